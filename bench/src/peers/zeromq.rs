//! ZeroMQ: PUSH and PULL sockets over `ipc://` (a Unix socket), polled without blocking. Its I/O
//! threads share the cores of the two sides.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{CAPACITY, PAYLOAD_BYTES};
use crate::link::{Link, Receiver, Sender};

/// A PUSH socket that a PULL socket connects to.
pub(crate) struct ZeroMq;

fn socket(kind: zmq::SocketType) -> Result<zmq::Socket> {
    let socket = zmq::Context::new().socket(kind).context("make a ZeroMQ socket")?;
    socket.set_sndhwm(CAPACITY as i32)?;
    socket.set_rcvhwm(CAPACITY as i32)?;
    socket.set_linger(0)?;
    Ok(socket)
}

fn address(dir: &Path, channel: &str) -> String {
    format!("ipc://{}", dir.join(channel).display())
}

impl Link for ZeroMq {
    type Sender = ZeroMqSender;
    type Receiver = ZeroMqReceiver;

    fn open_sender(&self, dir: &Path, channel: &str) -> Result<ZeroMqSender> {
        let socket = socket(zmq::PUSH)?;
        socket.bind(&address(dir, channel)).context("bind a ZeroMQ socket")?;
        Ok(ZeroMqSender(socket))
    }

    fn open_receiver(&self, dir: &Path, channel: &str) -> Result<ZeroMqReceiver> {
        let socket = socket(zmq::PULL)?;
        socket.connect(&address(dir, channel)).context("connect a ZeroMQ socket")?;
        Ok(ZeroMqReceiver { socket, message: [0; PAYLOAD_BYTES] })
    }
}

pub(crate) struct ZeroMqSender(zmq::Socket);

impl Sender for ZeroMqSender {
    #[inline(always)]
    fn try_send(&mut self, payload: &[u8]) -> bool {
        match self.0.send(payload, zmq::DONTWAIT) {
            Ok(()) => true,
            Err(zmq::Error::EAGAIN) => false,
            Err(error) => panic!("ZeroMQ: {error}"),
        }
    }
}

pub(crate) struct ZeroMqReceiver {
    socket: zmq::Socket,
    message: [u8; PAYLOAD_BYTES],
}

impl Receiver for ZeroMqReceiver {
    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        for count in 0..limit {
            match self.socket.recv_into(&mut self.message, zmq::DONTWAIT) {
                Ok(bytes) => handler(&self.message[..bytes]),
                Err(zmq::Error::EAGAIN) => return count,
                Err(error) => panic!("ZeroMQ: {error}"),
            }
        }
        limit
    }
}
