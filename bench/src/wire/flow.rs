//! One stream, flat out or paced: a publisher there, one receiver or several here, each of them
//! polled in turn by one thread. Everything published must be delivered to all of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use gapless::Publisher;
use gapless::net::{Faulty, Network};
use gapless::protocol::Event;
use gapless::wire::Inlet;

use super::address::{Backend, Form, fresh, lose, parsed, until};
use crate::link::{Link, Receiver, Sender, consume};
use crate::net::{self, Side, tell, told};

/// Datagrams taken by a poll, about.
const POLL_LIMIT: usize = 64;
/// Bytes that a system call sends at most.
const CALL_BYTES: usize = 65_507;
/// Datagrams that it sends at most.
const CALL_DATAGRAMS: usize = 64;
/// What a packet, and a message in it, has beside the message's bytes.
const PACKET_HEADER: usize = 20;
const MESSAGE_HEADER: usize = 2;

/// A stream of messages of `N` bytes.
pub(crate) struct Flow<const N: usize> {
    pub(crate) backend: Backend,
    pub(crate) form: Form,
    pub(crate) datagram_bytes: usize,
    /// What lies between the sides: the lead receives. Others than the loopback interface have to
    /// be there already.
    pub(crate) path: net::Path,
    /// Receivers of the stream; one if it is unicast.
    pub(crate) receivers: usize,
    /// The share of datagrams that are lost on their way into each of them; `None`: nothing stands
    /// between them and the network.
    pub(crate) loss: Option<f64>,
}

impl<const N: usize> Flow<N> {
    /// Plain sockets, unicast, nothing lost.
    pub(crate) fn new(datagram_bytes: usize) -> Self {
        let (backend, form, path) = (Backend::Socket, Form::Unicast, net::Path::Loopback);
        Self { backend, form, datagram_bytes, path, receivers: 1, loss: None }
    }
}

/// Messages of so many bytes in the datagrams that one system call sends.
pub(super) fn batch(datagram_bytes: usize, message_bytes: usize) -> usize {
    let messages = (datagram_bytes - PACKET_HEADER) / (message_bytes + MESSAGE_HEADER);
    let packet = PACKET_HEADER + messages * (message_bytes + MESSAGE_HEADER);
    messages * (CALL_BYTES / packet).clamp(1, CALL_DATAGRAMS)
}

impl<const N: usize> Link for Flow<N> {
    type Sender = FlowSender<N>;
    type Receiver = FlowReceivers<N>;

    fn obstacle(&self) -> Option<String> {
        self.backend.obstacle()
    }

    fn open_sender(&self, dir: &Path, channel: &str) -> Result<FlowSender<N>> {
        Ok(FlowSender {
            dir: dir.to_path_buf(),
            path: self.path,
            channel: channel.to_owned(),
            receivers: self.receivers,
            batch: batch(self.datagram_bytes, N),
            publisher: None,
        })
    }

    fn open_receiver(&self, dir: &Path, channel: &str) -> Result<FlowReceivers<N>> {
        let (backend, datagram) = (self.backend.option(), self.datagram_bytes);
        let options = format!("{backend}&datagram={datagram}&flow=slowest");
        let address = fresh(self.form, self.path.address(Side::Lead), dir, &options)?;
        let parsed = parsed(&address)?;
        let mut receivers = Vec::new();
        for seed in 0..self.receivers {
            receivers.push(match self.loss {
                None => Inflow::Plain(Inlet::open(&parsed)?),
                Some(_) => {
                    let network = self.backend.faulty(seed as u64 + 1)?;
                    Inflow::Lossy(Inlet::open_over(network, &parsed)?)
                }
            });
        }
        tell(dir, channel, &address)?;
        Ok(FlowReceivers { receivers, loss: self.loss, told: 1 })
    }
}

/// The sending end: batches that fill a system call each.
pub(crate) struct FlowSender<const N: usize> {
    dir: PathBuf,
    path: net::Path,
    channel: String,
    receivers: usize,
    batch: usize,
    /// Once it is known where to.
    publisher: Option<Publisher>,
}

impl<const N: usize> FlowSender<N> {
    #[inline(always)]
    fn publisher(&mut self) -> &mut Publisher {
        self.publisher.as_mut().expect("connected before anything is sent")
    }
}

/// Ends the run: what cannot happen on this host did.
#[cold]
#[inline(never)]
pub(super) fn fault(error: impl std::fmt::Display) -> ! {
    panic!("the stream failed: {error}")
}

impl<const N: usize> Sender for FlowSender<N> {
    fn connect(&mut self) -> Result<()> {
        let address = told(&self.dir, &self.channel).context("no receiver is open")?;
        // A group is reached by this side's own interface.
        let [near, far] = [Side::Lead, Side::Partner].map(|side| self.path.address(side));
        let address = address.replace(&format!("iface={near}"), &format!("iface={far}"));
        let mut publisher = Publisher::open(&address)?;
        until("every receiver reports", || {
            publisher.poll()?;
            let sender = publisher.sender().context("a stream of datagrams has a sender")?;
            Ok(sender.receivers().count() == self.receivers)
        })?;
        self.publisher = Some(publisher);
        Ok(())
    }

    #[inline(always)]
    fn try_send(&mut self, payload: &[u8]) -> bool {
        let payload: &[u8; N] = payload.try_into().expect("the link's payload size");
        match self.publisher().try_publish(payload) {
            Ok(_) => true,
            Err(error) if error.is_backpressure() => {
                self.idle();
                false
            }
            Err(error) => fault(error),
        }
    }

    /// A batch, once the one before has left: what flow control holds back is not piled up.
    #[inline(always)]
    fn send_some(&mut self, payload: &[u8], _limit: usize) -> usize {
        let payload: &[u8; N] = payload.try_into().expect("the link's payload size");
        let most = self.batch;
        let publisher = self.publisher();
        let published = publisher.next_sequence();
        let sent = publisher.sender().map_or(published, |sender| sender.next_sequence());
        let mut count = 0;
        if sent == published {
            let mut batch = publisher.batch();
            for _ in 0..most {
                match batch.push(payload) {
                    Ok(_) => {}
                    Err(error) if error.is_backpressure() => break,
                    Err(error) => fault(error),
                }
            }
            count = batch.commit() as usize;
        }
        self.idle();
        count
    }

    #[inline(always)]
    fn idle(&mut self) {
        if let Err(error) = self.publisher().poll() {
            fault(error);
        }
    }

    fn calls(&mut self) -> Option<u64> {
        Some(self.publisher().sender()?.socket_statistics().system_calls)
    }
}

/// One receiver.
enum Inflow {
    Plain(Inlet),
    Lossy(Inlet<Faulty<Network>>),
}

/// Calls something of either kind of inlet.
macro_rules! either {
    ($inflow:expr, $inlet:ident => $what:expr) => {
        match $inflow {
            Inflow::Plain($inlet) => $what,
            Inflow::Lossy($inlet) => $what,
        }
    };
}

impl Inflow {
    /// Takes what has come and returns the sequence behind it.
    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> Result<u64> {
        let mut lost = 0;
        let on_event = |event: Event<'_>| {
            match event {
                Event::Message { payload, .. } => handler(payload),
                Event::Lost { count, .. } => lost += count,
                _ => {}
            }
            true
        };
        either!(self, inlet => inlet.poll(limit, on_event))?;
        if lost > 0 {
            bail!("{lost} messages were not repaired");
        }
        Ok(either!(self, inlet => inlet.next_sequence()))
    }
}

/// The receiving end.
pub(crate) struct FlowReceivers<const N: usize> {
    receivers: Vec<Inflow>,
    /// To be lost once the stream was found.
    loss: Option<f64>,
    /// Every message below this has been counted: all receivers have it.
    told: u64,
}

impl<const N: usize> FlowReceivers<N> {
    /// Tells how long the holes were open that have been filled since the last call.
    pub(super) fn take_repairs(&mut self, mut told: impl FnMut(Duration)) {
        for receiver in &mut self.receivers {
            let repairs = either!(receiver, inlet => inlet.receiver());
            repairs.take_repairs().for_each(|ns| told(Duration::from_nanos(ns)));
        }
    }

    #[cold]
    fn begin_to_lose(&mut self) {
        let loss = self.loss.take().unwrap_or_default();
        for receiver in &mut self.receivers {
            if let Inflow::Lossy(inlet) = receiver {
                lose(inlet.network(), loss);
            }
        }
    }
}

impl<const N: usize> Receiver for FlowReceivers<N> {
    /// `handler` gets the first receiver's messages; the others' are read all the same. The count
    /// is of messages that all have.
    #[inline(always)]
    fn poll(&mut self, _limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        let mut all = u64::MAX;
        for (index, receiver) in self.receivers.iter_mut().enumerate() {
            let taken = receiver.poll(POLL_LIMIT, |payload| {
                let payload: &[u8; N] = payload.try_into().expect("the link's payload size");
                if index == 0 {
                    handler(payload);
                } else {
                    std::hint::black_box(consume(payload));
                }
            });
            all = all.min(taken.unwrap_or_else(|error| fault(error)));
        }
        let count = all.saturating_sub(self.told);
        self.told += count;
        if count > 0 && self.loss.is_some() {
            self.begin_to_lose();
        }
        count as usize
    }

    fn calls(&mut self) -> Option<u64> {
        let calls =
            |inflow: &mut Inflow| either!(inflow, inlet => inlet.socket_statistics().system_calls);
        Some(self.receivers.iter_mut().map(calls).sum())
    }

    fn remarks(&mut self) -> Vec<(&'static str, f64)> {
        let (mut kernel_drops, mut missed, mut retries, mut overflows) = (0, 0, 0, 0);
        for receiver in &mut self.receivers {
            let counts = either!(receiver, inlet => *inlet.counts());
            kernel_drops += either!(receiver, inlet => inlet.socket_statistics().kernel_drops);
            missed += counts.missed;
            retries += counts.retries;
            overflows += counts.overflows;
        }
        let noted = [
            ("kernel_drops", kernel_drops),
            ("missed", missed),
            ("retries", retries),
            ("overflows", overflows),
        ];
        noted.map(|(name, count)| (name, count as f64)).to_vec()
    }
}
