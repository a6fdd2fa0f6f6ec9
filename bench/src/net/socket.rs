//! `floor/socket`: a connected socket, `send` and a busy-spun non-blocking `recv`, nothing else.

use std::io::ErrorKind;
use std::net::UdpSocket;

use anyhow::{Context, Result};

use super::ground::Ground;
use super::pingpong::{Dial, Duplex};
use crate::scenario::Session;

/// Bytes that a datagram may have.
const DATAGRAM_MAX: usize = 2048;

/// Bare sockets.
pub(crate) struct BareSocket;

/// One side's socket.
pub(crate) struct BareSocketEnd {
    socket: UdpSocket,
    buffer: [u8; DATAGRAM_MAX],
}

impl Dial for BareSocket {
    type End = BareSocketEnd;

    fn open(&self, session: &Session<'_>, ground: &Ground) -> Result<BareSocketEnd> {
        Ok(BareSocketEnd { socket: ground.connect(session)?, buffer: [0; DATAGRAM_MAX] })
    }
}

impl Duplex for BareSocketEnd {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> Result<()> {
        self.socket.send(message).context("send")?;
        Ok(())
    }

    #[inline(always)]
    fn poll(&mut self, mut handler: impl FnMut(&[u8])) -> Result<usize> {
        match self.socket.recv(&mut self.buffer) {
            Ok(bytes) => {
                handler(&self.buffer[..bytes]);
                Ok(1)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error).context("receive"),
        }
    }
}
