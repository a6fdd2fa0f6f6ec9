//! Ring to wire: an agent that sends what a ring's producer publishes.
//!
//! Two kinds of sockets: data leaves from one for each destination, connected to it; requests come
//! to one more, bound to the same port, so that whoever has seen a data packet knows whom to ask.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use gapless_shm::{Consumer, ConsumerOptions};

use super::WireError;
use super::durable::Recorder;
use super::page::{Page, sum};
use crate::address::UdpAddress;
use crate::agent::Agent;
use crate::clock::{Clock, TscClock};
use crate::net::{Datagrams, Network, Run, SocketSet, SocketStatistics};
use crate::protocol::{BURST_BYTES, ReceiverView, Sender, SenderCounts, Session, To, Transmit};

/// Bursts sent in one duty cycle: then requests are looked at. A burst takes about 20 µs, and so
/// long, times this, a request waits in a flood.
const BURSTS_MAX: usize = 4;
/// Nobody confirms the end of a session: it is said at least so often, over 0.3 ms.
const ENDS_MIN: u64 = 5;
/// Requests taken in one look.
const REQUESTS_MAX: usize = 64;
/// Requests are looked for in every so many duty cycles: a look is a system call of 0.2 to 0.3 µs,
/// and most find nothing.
const LOOK_EVERY: u32 = 32;
/// While requests or reports come, or may come because a heartbeat was sent, it is every cycle, for
/// so many cycles more.
const ALERT_CYCLES: u32 = 256;

/// Sends a stream: from its ring to a group or to hosts.
///
/// ```
/// use gapless::shm::{ConsumerOptions, RingOptions};
/// use gapless::{Address, Agent, wire::SenderAgent};
/// # let dir = tempfile::tempdir()?;
/// let mut producer = RingOptions::new().directory(dir.path()).open("orders")?;
/// let Address::Udp(address) = "udp:127.0.0.1:9000".parse()? else { unreachable!() };
///
/// let ring = ConsumerOptions::new().directory(dir.path()).name("sender").attach("orders")?;
/// let mut sender = SenderAgent::open(&address, ring)?; // or on an AgentRunner
/// producer.try_publish(b"buy 100 SBER")?;
/// while sender.counts().messages == 0 {
///     sender.duty_cycle()?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SenderAgent<D: Datagrams = Network> {
    name: String,
    sender: Sender,
    network: D,
    clock: TscClock,
    buffer: Box<[u8]>,
    /// One for each destination.
    outlets: usize,
    linger: Duration,
    /// Index of the socket that requests come to.
    requests: usize,
    /// What the network had no room for: to which outlet it goes next.
    unsent: Option<(Transmit, usize)>,
    no_room: u64,
    /// Answers that could not be sent.
    unanswered: u64,
    turn: u32,
    /// Duty cycles in which requests are expected.
    alert: u32,
    /// Who says what of the ring is on disk.
    recorder: Option<Recorder>,
    page: Page,
}

impl SenderAgent<Network> {
    /// Opens the sockets of an address, to send what `ring` reads from now on. The session is the
    /// ring's.
    ///
    /// # Errors
    /// [`WireError`] says what the network refused, or which option is out of its range.
    pub fn open(address: &UdpAddress, ring: Consumer) -> Result<Self, WireError> {
        Self::open_over(Network::prefer(address.backend), address, ring)
    }

    /// Opens the sockets of an address, to send what is in the ring that its `ring` option names.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and why the ring could not be attached to.
    pub fn open_ring(address: &UdpAddress) -> Result<Self, WireError> {
        let name = address.ring_name().ok_or(WireError::Address("which ring? say ring=NAME"))?;
        let options = ConsumerOptions::new()
            .directory(address.ring.directory())
            .name(format!("sender to {}", address.name()));
        Self::open(address, options.attach(name)?)
    }
}

impl<D: Datagrams> SenderAgent<D> {
    /// As [`open`](SenderAgent::open), over a network of the caller's, such as a
    /// [`Faulty`](crate::net::Faulty) one; it must have no sockets yet.
    ///
    /// # Errors
    /// As for [`open`](SenderAgent::open).
    pub fn open_over(
        mut network: D,
        address: &UdpAddress,
        ring: Consumer,
    ) -> Result<Self, WireError> {
        let ring_name = address.ring_name().filter(|_| address.durable);
        let recorder = ring_name.map(|ring| Recorder::of(address.ring.directory(), ring));
        if recorder.is_some() != address.durable {
            return Err(WireError::Address("durable=yes: of which ring? say ring=NAME"));
        }
        let any = match address.lines[0] {
            SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::from(Ipv6Addr::UNSPECIFIED),
        };
        let bind = address.bind.unwrap_or(SocketAddr::new(any, 0));
        let requests = network.add(&address.socket(bind, 0).share(true).coalesce(false))?;
        let port = network.local_address(requests).port();
        let also = address.also.iter().map(|destination| (0, destination));
        let mut outlets = 0;
        for (line, destination) in address.lines.iter().enumerate().chain(also) {
            let bind = SocketAddr::new(if line == 0 { bind.ip() } else { any }, port);
            network.add(&address.socket(bind, line).reuse(true).connect(*destination))?;
            outlets += 1;
        }
        let clock = TscClock::new();
        let session = Session::from_number(ring.session());
        let sender = Sender::new(address.sender.clone(), session, ring, clock.now_ns())?;
        Ok(Self {
            name: format!("sender {}", address.name()),
            sender,
            network,
            clock,
            buffer: vec![0; BURST_BYTES].into(),
            outlets,
            linger: Duration::from_nanos(address.sender.linger_ns),
            requests,
            unsent: None,
            no_room: 0,
            unanswered: 0,
            turn: 0,
            alert: ALERT_CYCLES,
            recorder,
            page: Page::sender(address)?,
        })
    }

    /// The network underneath.
    pub fn network(&mut self) -> &mut D {
        &mut self.network
    }

    /// How long the end of the session is repeated and requests are served.
    pub fn linger(&self) -> Duration {
        self.linger
    }

    /// Where requests come to.
    pub fn request_address(&self) -> SocketAddr {
        self.network.local_address(self.requests)
    }

    /// The session that it sends.
    pub fn session(&self) -> Session {
        self.sender.session()
    }

    /// The next message to be sent.
    pub fn next_sequence(&self) -> u64 {
        self.sender.next_sequence()
    }

    /// What it has done so far.
    pub fn counts(&self) -> &SenderCounts {
        self.sender.counts()
    }

    /// What its sockets have done so far, together.
    pub fn socket_statistics(&self) -> SocketStatistics {
        sum((0..=self.outlets).map(|socket| self.network.statistics(socket)))
    }

    /// Every receiver that reports.
    pub fn receivers(&self) -> impl Iterator<Item = ReceiverView> {
        self.sender.receivers(self.clock.now_ns())
    }

    /// The receiver that is furthest behind, if any reports.
    pub fn slowest(&self) -> Option<ReceiverView> {
        self.sender.slowest(self.clock.now_ns())
    }

    /// The message up to which everything sent is durable on at least `k` hosts, which never goes
    /// down; 0 if there is none. A publisher that goes on only when `stable_sequence(2)` has come
    /// to its message knows that no single disk can lose it.
    ///
    /// With `durable=yes` in the address this host counts as one, by what its ring's recorder says.
    /// What other hosts mean by durable is for their recorders to decide. See
    /// [`Sender::stable_sequence`] for hosts that leave, join late, or lost something.
    pub fn stable_sequence(&mut self, k: usize) -> u64 {
        self.sender.stable_sequence(k)
    }

    /// Whether this one message is durable on at least `k` hosts; see [`Sender::is_stable`].
    pub fn is_stable(&self, sequence: u64, k: usize) -> bool {
        self.sender.is_stable(sequence, k)
    }

    /// Messages from `first` to `last` are durable on this host; see
    /// [`Sender::set_local_durable`].
    pub fn set_local_durable(&mut self, first: u64, last: u64) {
        self.sender.set_local_durable(first, last);
    }

    /// Longest message that fits a datagram, bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.sender.max_message_bytes()
    }

    /// Ends the session behind the ring's last message; go on with duty cycles until
    /// [`is_done`](Self::is_done).
    pub fn end(&mut self) {
        self.sender.end(self.clock.now_ns());
    }

    /// Whether the session has ended and been repeated for as long as the address's `linger` says.
    pub fn is_done(&self) -> bool {
        self.sender.is_done(self.clock.now_ns())
    }

    /// Whether it has ended and said so several times, and every receiver that reports has
    /// everything.
    pub fn is_confirmed(&self) -> bool {
        if self.counts().ends < ENDS_MIN {
            return false;
        }
        let mut receivers = self.receivers().peekable();
        receivers.peek().is_some() && receivers.all(|receiver| receiver.lag_messages == 0)
    }

    /// Sends what has been published, now, without looking at anything else.
    ///
    /// # Errors
    /// As for [`duty_cycle`](Agent::duty_cycle).
    #[inline]
    pub fn send(&mut self) -> Result<usize, WireError> {
        let now = self.clock.now_ns();
        self.send_at(now)
    }

    #[inline]
    fn send_at(&mut self, now: u64) -> Result<usize, WireError> {
        if self.unsent.is_some() && !self.retry()? {
            return Ok(0);
        }
        for sent in 0..BURSTS_MAX {
            match self.sender.poll_transmit(now, &mut self.buffer)? {
                None => return Ok(sent),
                Some(transmit) => {
                    if !self.transmit(transmit, 0)? {
                        return Ok(sent);
                    }
                }
            }
        }
        Ok(BURSTS_MAX)
    }

    #[cold]
    fn retry(&mut self) -> Result<bool, WireError> {
        match self.unsent.take() {
            Some((transmit, outlet)) => self.transmit(transmit, outlet),
            None => Ok(true),
        }
    }

    /// Sends to the destinations from `first` on. False if the network has no room.
    #[inline]
    fn transmit(&mut self, transmit: Transmit, first: usize) -> Result<bool, WireError> {
        let bytes = &self.buffer[..transmit.bytes];
        let run = Run { bytes, segment_bytes: transmit.segment_bytes };
        let (sockets, to) = match transmit.to {
            To::Stream => (1 + first..1 + self.outlets, None),
            To::Peer(peer) => (self.requests..self.requests + 1, Some(peer)),
        };
        let mut failed = None;
        for socket in sockets {
            match self.network.send(socket, to, &[run]) {
                Ok(0) => {
                    self.no_room += 1;
                    self.unsent = Some((transmit, socket.saturating_sub(1)));
                    return Ok(false);
                }
                Ok(_) => {}
                // Whoever asked from an address that nothing can be sent to stops nobody else.
                Err(_) if to.is_some() => self.unanswered += 1,
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(true), |error| Err(error.into()))
    }

    fn take_requests(&mut self, now: u64) -> Result<usize, WireError> {
        let sender = &mut self.sender;
        let wanted = SocketSet::of(self.requests);
        let taken = self.network.receive(wanted, REQUESTS_MAX, |datagram| {
            sender.on_datagram(datagram.source, datagram.bytes, now);
        })?;
        if taken > 0 {
            self.alert = ALERT_CYCLES;
        }
        Ok(taken)
    }

    #[cold]
    fn count(&mut self, now: u64) {
        let sockets = self.socket_statistics();
        let (next, receivers) = (self.sender.next_sequence(), self.sender.receiver_counts());
        let stable = self.sender.stable_sequence(1);
        self.page.put_sender(
            now,
            self.sender.counts(),
            next,
            receivers,
            &sockets,
            [self.no_room, self.unanswered, stable],
        );
    }
}

impl<D: Datagrams> Agent for SenderAgent<D> {
    type Error = WireError;

    fn name(&self) -> &str {
        &self.name
    }

    /// # Errors
    /// [`WireError::Sender`] if the stream cannot be sent further; [`WireError::Net`] if the
    /// network refuses a datagram in a way that will not pass, such as one larger than the path
    /// takes.
    #[inline]
    fn duty_cycle(&mut self) -> Result<usize, WireError> {
        let now = self.clock.now_ns();
        self.turn = self.turn.wrapping_add(1);
        let mut work = 0;
        let every = if self.alert > 0 { 1 } else { LOOK_EVERY };
        self.alert = self.alert.saturating_sub(1);
        if self.turn.is_multiple_of(every) {
            work = self.take_requests(now)?;
        }
        let heartbeats = self.sender.counts().heartbeats;
        work += self.send_at(now)?;
        if self.sender.counts().heartbeats != heartbeats {
            self.alert = ALERT_CYCLES;
        }
        if let Some(recorder) = &mut self.recorder
            && recorder.is_due(now)
            && let Some((first, last)) = {
                let ring = self.sender.consumer();
                recorder.look(ring.session(), ring.first_sequence(), now)
            }
        {
            self.sender.set_local_durable(first, last);
        }
        if self.page.is_due(now) {
            self.count(now);
        }
        Ok(work)
    }
}

impl<D: Datagrams> Drop for SenderAgent<D> {
    fn drop(&mut self) {
        self.count(self.clock.now_ns()); // the page keeps the last figures
    }
}
