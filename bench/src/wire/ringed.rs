//! The same streams from ring to ring: what is published into a ring here is read from a ring
//! there, with an agent on each side between ring and wire.
//!
//! There are two busy threads, so each drives both of its parts by turns: one the producer and the
//! sending agent, the other the receiving agent and the consumer. Agents on threads of their own
//! would have to share two cores between four.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use gapless::shm::{Consumer, Producer};
use gapless::wire::{ReceiverAgent, SenderAgent};
use gapless::{Address, Agent};

use super::address::{Backend, Form, fresh, parsed, until};
use super::flow::{batch, fault};
use crate::link::{Link, Receiver, Sender};
use crate::net::{Dial, Duplex, Ground, ask, tell, told};
use crate::ring;
use crate::scenario::Session;

/// Datagrams of round trips.
const DATAGRAM_BYTES: usize = 1472;
/// What a packet with one message has beside the message's bytes.
const OVERHEAD: usize = 22;
/// Names of the rings that a side writes and reads.
const OUT: &str = "out";
const IN: &str = "in";

/// Producer, ring, and the agent that sends what is in it.
struct Outgoing {
    producer: Producer,
    agent: SenderAgent,
}

impl Outgoing {
    fn open(dir: &Path, name: &str, address: &str) -> Result<Self> {
        let address = parsed(address)?;
        let longest = address.sender_options().datagram_bytes - OVERHEAD;
        let options = ring::options(dir).max_message_bytes(longest as u64);
        let producer = options.create(name).context("create the ring")?;
        let agent = SenderAgent::open(&address, ring::attach(dir, name)?)?;
        Ok(Self { producer, agent })
    }

    #[inline(always)]
    fn duty_cycle(&mut self) {
        if let Err(error) = self.agent.duty_cycle() {
            fault(error);
        }
    }

    #[inline(always)]
    fn try_publish<const N: usize>(&mut self, payload: &[u8]) -> bool {
        let payload: &[u8; N] = payload.try_into().expect("the link's payload size");
        let published = match self.producer.try_publish(payload) {
            Ok(_) => true,
            Err(error) if error.is_backpressure() => false,
            Err(error) => fault(error),
        };
        self.duty_cycle();
        published
    }
}

/// The agent that receives, its ring, and a consumer of it.
struct Incoming {
    agent: ReceiverAgent,
    dir: PathBuf,
    name: String,
    /// Once the stream was found, and the ring made.
    consumer: Option<Consumer>,
}

impl Incoming {
    fn open(dir: &Path, name: &str, address: &str) -> Result<Self> {
        let to = format!("shm:{name}?capacity={}&dir={}", ring::CAPACITY_BYTES, dir.display());
        let Address::Shm(to) = to.parse()? else { bail!("{to} is no ring") };
        let agent = ReceiverAgent::open(&parsed(address)?, &to)?;
        Ok(Self { agent, dir: dir.to_path_buf(), name: name.to_owned(), consumer: None })
    }

    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        if let Err(error) = self.agent.duty_cycle() {
            fault(error);
        }
        let Some(consumer) = &mut self.consumer else {
            self.attach();
            return 0;
        };
        match consumer.poll(limit, |message| handler(message.payload)) {
            Ok(count) => count,
            Err(error) => fault(error),
        }
    }

    #[cold]
    fn attach(&mut self) {
        if self.agent.producer().is_some() {
            let attached = ring::attach(&self.dir, &self.name);
            self.consumer = Some(attached.unwrap_or_else(|error| fault(error)));
        }
    }
}

/// A flood of messages of `N` bytes from ring to ring, unicast over plain sockets.
pub(crate) struct RingedFlow<const N: usize> {
    pub(crate) datagram_bytes: usize,
}

impl<const N: usize> Link for RingedFlow<N> {
    type Sender = RingedSender<N>;
    type Receiver = RingedReceiver<N>;

    fn open_sender(&self, dir: &Path, channel: &str) -> Result<RingedSender<N>> {
        Ok(RingedSender {
            dir: dir.to_path_buf(),
            channel: channel.to_owned(),
            batch: batch(self.datagram_bytes, N),
            outgoing: None,
        })
    }

    fn open_receiver(&self, dir: &Path, channel: &str) -> Result<RingedReceiver<N>> {
        let options = format!("backend=socket&datagram={}&flow=slowest", self.datagram_bytes);
        let address = fresh(Form::Unicast, IpAddr::V4(Ipv4Addr::LOCALHOST), dir, &options)?;
        let incoming = Incoming::open(dir, IN, &address)?;
        tell(dir, channel, &address)?;
        Ok(RingedReceiver(incoming))
    }
}

/// The sending end.
pub(crate) struct RingedSender<const N: usize> {
    dir: PathBuf,
    channel: String,
    batch: usize,
    /// Once it is known where to.
    outgoing: Option<Outgoing>,
}

impl<const N: usize> RingedSender<N> {
    #[inline(always)]
    fn outgoing(&mut self) -> &mut Outgoing {
        self.outgoing.as_mut().expect("connected before anything is sent")
    }
}

impl<const N: usize> Sender for RingedSender<N> {
    fn connect(&mut self) -> Result<()> {
        let address = told(&self.dir, &self.channel).context("no receiver is open")?;
        let mut outgoing = Outgoing::open(&self.dir, OUT, &address)?;
        until("the receiver reports", || {
            outgoing.duty_cycle();
            Ok(outgoing.agent.receivers().count() == 1)
        })?;
        self.outgoing = Some(outgoing);
        Ok(())
    }

    #[inline(always)]
    fn try_send(&mut self, payload: &[u8]) -> bool {
        self.outgoing().try_publish::<N>(payload)
    }

    #[inline(always)]
    fn send_some(&mut self, payload: &[u8], _limit: usize) -> usize {
        let payload: &[u8; N] = payload.try_into().expect("the link's payload size");
        let most = self.batch;
        let outgoing = self.outgoing();
        let mut count = 0;
        if outgoing.agent.next_sequence() == outgoing.producer.next_sequence() {
            let mut batch = outgoing.producer.batch();
            for _ in 0..most {
                match batch.push(payload) {
                    Ok(_) => {}
                    Err(error) if error.is_backpressure() => break,
                    Err(error) => fault(error),
                }
            }
            count = batch.commit() as usize;
        }
        outgoing.duty_cycle();
        count
    }

    #[inline(always)]
    fn idle(&mut self) {
        self.outgoing().duty_cycle();
    }

    fn calls(&mut self) -> Option<u64> {
        Some(self.outgoing().agent.socket_statistics().system_calls)
    }
}

/// The receiving end.
pub(crate) struct RingedReceiver<const N: usize>(Incoming);

impl<const N: usize> Receiver for RingedReceiver<N> {
    #[inline(always)]
    fn poll(&mut self, _limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        self.0.poll(usize::MAX, |payload| {
            let payload: &[u8; N] = payload.try_into().expect("the link's payload size");
            handler(payload);
        })
    }

    fn calls(&mut self) -> Option<u64> {
        Some(self.0.agent.inlet().socket_statistics().system_calls)
    }
}

/// Round trips over two streams from ring to ring.
pub(crate) struct RingedStreams {
    pub(crate) backend: Backend,
}

/// One side of them.
pub(crate) struct RingedEnd {
    outgoing: Outgoing,
    incoming: Incoming,
}

impl Dial for RingedStreams {
    type End = RingedEnd;

    fn open(&self, session: &Session<'_>, ground: &Ground) -> Result<RingedEnd> {
        let (mine, theirs) = ground.names();
        let options = format!("{}&datagram={DATAGRAM_BYTES}", self.backend.option());
        let (address, incoming) = ground.inside(|| -> Result<_> {
            let address = fresh(Form::Unicast, ground.address(), session.dir, &options)?;
            let incoming = Incoming::open(session.dir, &format!("{mine}-{IN}"), &address)?;
            Ok((address, incoming))
        })??;
        tell(session.dir, &format!("{mine}-stream"), &address)?;
        let other = ask(session, &format!("{theirs}-stream"))?;
        let name = format!("{mine}-{OUT}");
        let outgoing = ground.inside(|| Outgoing::open(session.dir, &name, &other))??;
        let mut end = RingedEnd { outgoing, incoming };
        until("the other side's stream is found", || {
            end.poll(|_| ())?;
            Ok(end.incoming.consumer.is_some())
        })?;
        tell(session.dir, &format!("{mine}-joined"), "")?;
        until("the other side has found this side's stream", || {
            end.outgoing.duty_cycle();
            Ok(told(session.dir, &format!("{theirs}-joined")).is_some())
        })?;
        Ok(end)
    }

    fn obstacle(&self) -> Option<String> {
        self.backend.obstacle()
    }
}

impl Duplex for RingedEnd {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> Result<()> {
        self.outgoing.producer.try_publish(message)?;
        self.outgoing.duty_cycle();
        Ok(())
    }

    #[inline(always)]
    fn poll(&mut self, handler: impl FnMut(&[u8])) -> Result<usize> {
        let count = self.incoming.poll(1, handler);
        if count == 0 {
            self.outgoing.duty_cycle();
        }
        Ok(count)
    }
}
