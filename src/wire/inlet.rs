//! Wire to handler: sockets, a receiver, and whoever takes its messages.
//!
//! A socket for each line, and one more that requests leave from and answers come to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use super::WireError;
use super::page::{Page, sum};
use crate::address::UdpAddress;
use crate::clock::{Clock, TscClock};
use crate::net::{Datagram, Datagrams, Network, Run, SocketSet, SocketStatistics};
use crate::protocol::control::CONTROL_MAX_BYTES;
use crate::protocol::{
    Event, LineCounts, PACKET_COST_BYTES, Receiver, ReceiverCounts, Session, To, Transmit,
};

/// Datagrams taken from the lines in one poll, about: then requests and reports may leave.
const DATAGRAMS_MAX: usize = 128;
/// Requests and reports that leave in one poll.
const SENDS_MAX: usize = 32;
/// Answers are looked for in every so many polls while none are expected. A look is a system call
/// of about 0.2 µs.
const LOOK_EVERY: u32 = 64;

/// Receives a stream from its lines and hands it over in order.
///
/// [`Subscriber`](crate::Subscriber) is this with messages for a handler; this one also tells of
/// sessions and ends, and lets the handler refuse.
///
/// ```
/// use gapless::protocol::Event;
/// use gapless::{Address, Publisher, wire::Inlet};
/// let address = "udp:127.0.0.1:9100".parse()?;
/// let Address::Udp(udp) = &address else { unreachable!() };
/// let mut inlet = Inlet::open(udp)?;
/// let mut publisher = Publisher::open_at(&address)?;
/// publisher.try_publish(b"buy 100 SBER")?;
///
/// let mut bought = false;
/// while !bought {
///     publisher.poll()?; // heartbeats, and repair if that was lost
///     inlet.poll(64, |event| {
///         bought |= matches!(event, Event::Message { sequence: 1, .. });
///         true // taken
///     })?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Inlet<D: Datagrams = Network> {
    receiver: Receiver,
    network: D,
    clock: TscClock,
    buffer: Box<[u8]>,
    lines: SocketSet,
    /// Index of the socket that requests leave from.
    answers: usize,
    unsent: Option<Transmit>,
    /// Requests that could not be sent.
    unasked: u64,
    turn: u32,
    page: Page,
}

impl Inlet<Network> {
    /// Opens the sockets of an address and waits for its stream.
    ///
    /// # Errors
    /// [`WireError`] says what the network refused, or which option is out of its range.
    pub fn open(address: &UdpAddress) -> Result<Self, WireError> {
        Self::open_over(Network::prefer(address.backend), address)
    }
}

impl<D: Datagrams> Inlet<D> {
    /// As [`open`](Inlet::open), over a network of the caller's, such as a
    /// [`Faulty`](crate::net::Faulty) one; it must have no sockets yet.
    ///
    /// # Errors
    /// As for [`open`](Inlet::open).
    pub fn open_over(mut network: D, address: &UdpAddress) -> Result<Self, WireError> {
        let mut lines = SocketSet::none();
        for (line, place) in address.lines.iter().enumerate() {
            let group = place.ip().is_multicast().then(|| place.ip());
            let options = address.socket(*place, line).join(group).reuse(group.is_some());
            let source = address.source.filter(|_| group.is_some());
            lines = lines.with(network.add(&options.source(source))?);
        }
        let any = match address.lines[0] {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let answers = network.add(&address.socket(SocketAddr::new(any, 0), 0))?;
        let mut options = address.receiver.clone();
        options.window_bytes = window_bytes(network.statistics(0).receive_buffer_bytes);
        Ok(Self {
            receiver: Receiver::new(options)?,
            network,
            clock: TscClock::new(),
            buffer: vec![0; CONTROL_MAX_BYTES].into(),
            lines,
            answers,
            unsent: None,
            unasked: 0,
            turn: 0,
            page: Page::receiver(address)?,
        })
    }

    /// Takes what has arrived, about `limit` datagrams at most, and hands over what is next in the
    /// stream. Returns how many datagrams came. Never blocks.
    ///
    /// `handler` may refuse a message or a loss by returning false: it is offered again by the next
    /// poll, and no further datagram is taken from the lines before it has been accepted.
    ///
    /// # Errors
    /// [`WireError::Net`].
    #[inline]
    pub fn poll(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(Event<'_>) -> bool,
    ) -> Result<usize, WireError> {
        let now = self.clock.now_ns();
        self.receiver.deliver(&mut handler);
        let mut taken = 0;
        if !self.receiver.is_refused() {
            let receiver = &mut self.receiver;
            let limit = limit.min(DATAGRAMS_MAX);
            let lines = self.lines;
            taken = self.network.receive(lines, limit, |datagram| {
                take(receiver, lines, &datagram, now, &mut handler);
            })?;
            if taken == 0 {
                self.receiver.on_idle(now);
            }
        }
        self.turn = self.turn.wrapping_add(1);
        if self.receiver.expects_answers() || self.turn.is_multiple_of(LOOK_EVERY) {
            taken += self.take_answers(limit, now, &mut handler)?;
        }
        if self.unsent.is_some() || self.receiver.wants_to_send(now) {
            self.send(now)?;
            self.receiver.deliver(&mut handler); // what was just given up
        }
        if self.page.is_due(now) {
            self.count(now);
        }
        Ok(taken)
    }

    #[cold]
    fn take_answers(
        &mut self,
        limit: usize,
        now: u64,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) -> Result<usize, WireError> {
        let (receiver, lines) = (&mut self.receiver, self.lines);
        let (answers, limit) = (SocketSet::of(self.answers), limit.min(DATAGRAMS_MAX));
        let taken = self.network.receive(answers, limit, |datagram| {
            take(receiver, lines, &datagram, now, handler);
        })?;
        Ok(taken)
    }

    #[cold]
    fn send(&mut self, now: u64) -> Result<(), WireError> {
        for _ in 0..SENDS_MAX {
            let unsent = self.unsent.take();
            let next = unsent.or_else(|| self.receiver.poll_transmit(now, &mut self.buffer));
            let Some(transmit) = next else { return Ok(()) };
            let To::Peer(server) = transmit.to else { continue };
            let run = Run::one(&self.buffer[..transmit.bytes]);
            match self.network.send(self.answers, Some(server), &[run]) {
                Ok(0) => {
                    self.unsent = Some(transmit);
                    return Ok(());
                }
                Ok(_) => {}
                // A server that cannot be sent to: the next one is asked when it does not answer.
                Err(_) => self.unasked += 1,
            }
        }
        Ok(()) // the rest at the next poll
    }

    /// Sleeps until a datagram is there, something is due, or `timeout` has passed.
    ///
    /// # Errors
    /// [`WireError::Net`].
    pub fn wait(&mut self, timeout: Duration) -> Result<(), WireError> {
        let due = self.receiver.timeout().saturating_sub(self.clock.now_ns());
        Ok(self.network.wait(timeout.min(Duration::from_nanos(due)))?)
    }

    /// The network underneath.
    pub fn network(&mut self) -> &mut D {
        &mut self.network
    }

    /// The session that is being received, once one was found.
    pub fn session(&self) -> Option<Session> {
        self.receiver.session()
    }

    /// The next message to hand over; 0 before the stream was found.
    pub fn next_sequence(&self) -> u64 {
        self.receiver.next_sequence()
    }

    /// Whether the session has ended and all of it was handed over.
    pub fn has_ended(&self) -> bool {
        self.receiver.has_ended()
    }

    /// How long nothing has been heard of the session, ns; `None` before it was found.
    pub fn silent_ns(&self) -> Option<u64> {
        let heard_at = self.receiver.heard_at();
        self.receiver.session().map(|_| self.clock.now_ns().saturating_sub(heard_at))
    }

    /// What has been seen so far.
    pub fn counts(&self) -> &ReceiverCounts {
        self.receiver.counts()
    }

    /// What a line has brought so far; `None` if there is no such line.
    pub fn line(&self, line: usize) -> Option<&LineCounts> {
        self.receiver.line(line)
    }

    /// The state machine: gaps, what waits behind them, repair times.
    pub fn receiver(&mut self) -> &mut Receiver {
        &mut self.receiver
    }

    /// Messages from `first` to `last` of the session are durable on this host; see
    /// [`Receiver::set_durable`].
    pub fn set_durable(&mut self, first: u64, last: u64) {
        self.receiver.set_durable(first, last);
    }

    /// The time that it goes by, ns.
    pub(super) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    /// What its sockets have done so far, together.
    pub fn socket_statistics(&self) -> SocketStatistics {
        sum((0..=self.answers).map(|socket| self.network.statistics(socket)))
    }

    /// Where the lines come in, and last where answers do.
    pub fn local_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        (0..=self.answers).map(|socket| self.network.local_address(socket))
    }

    #[cold]
    fn count(&mut self, now: u64) {
        let sockets = self.socket_statistics();
        for ns in self.receiver.take_repairs() {
            self.page.record_repair(ns);
        }
        let receiver = &self.receiver;
        let place = [
            receiver.next_sequence(),
            receiver.newest_sequence(),
            receiver.open_gaps() as u64,
            receiver.held_bytes() as u64,
            self.unasked,
        ];
        let none = LineCounts::default();
        let line = |line| receiver.line(line).unwrap_or(&none);
        self.page.put_receiver(now, receiver.counts(), place, &sockets, [line(0), line(1)]);
    }
}

/// Takes a datagram of a line, or an answer: a network may hand over others than it was asked for.
#[inline]
fn take(
    receiver: &mut Receiver,
    lines: SocketSet,
    datagram: &Datagram<'_>,
    now: u64,
    handler: &mut impl FnMut(Event<'_>) -> bool,
) {
    let Datagram { socket, source, bytes } = *datagram;
    if lines.contains(socket) {
        receiver.on_datagram(socket, source, bytes, now, handler);
    } else {
        receiver.on_answer(source, bytes, now, handler);
    }
}

impl<D: Datagrams> Drop for Inlet<D> {
    fn drop(&mut self) {
        self.count(self.clock.now_ns()); // the page keeps the last figures
    }
}

/// What a sender may have on the way to a socket whose receive buffer is so large: half of it is
/// left for what the kernel needs beside each datagram, as far as the sender does not reckon it.
fn window_bytes(receive_buffer_bytes: u64) -> u32 {
    let window = (receive_buffer_bytes / 2).max(8 * PACKET_COST_BYTES);
    u32::try_from(window).unwrap_or(u32::MAX)
}
