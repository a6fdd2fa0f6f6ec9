//! A bad network in front of a good one: loss, bursts, duplicates, reordering, corruption, by seed.
//!
//! Each socket and direction is a line of its own with a sequence of numbers of its own: what
//! happens to a socket's datagrams depends on the seed, the rates and those datagrams alone,
//! not on other sockets nor on time. Super datagrams are treated datagram by datagram.
//!
//! For tests and demonstrations. Memory is bounded; held-back datagrams are copied, and the
//! buffers for that are allocated when first needed.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::lane::{Kept, Lane};
use super::{Datagram, Datagrams, NetError, Run, SocketOptions, SocketSet, SocketStatistics};

/// Calls of [`Datagrams::receive`] without a further datagram on its line after which a held-back
/// datagram is let go all the same: reordering is no loss, not even at the end of a stream.
const REST_ROUNDS: u32 = 1_000;

/// What is wrong with a line. A rate is the share of datagrams that are hit, from 0 to 1; less is
/// taken as 0, more as 1. The default is a good line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Rate of datagrams lost, each on its own.
    pub loss: f64,
    /// Rate at which bursts start.
    pub burst: f64,
    /// Datagrams lost in a row by a burst.
    pub burst_datagrams: u32,
    /// Rate of datagrams that arrive twice. If reordered too, the second copy is the late one.
    pub duplicate: f64,
    /// Rate of datagrams that are overtaken by others.
    pub reorder: f64,
    /// By how many at most: each is overtaken by 1 to so many. 0 counts as 1. At most 64 datagrams
    /// of a line are held back at one time; beyond that they pass in order.
    pub reorder_by: u32,
    /// Rate of datagrams with one bit flipped. Empty ones have none.
    pub corrupt: f64,
}

/// What a line did to datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FaultCounters {
    /// Datagrams that entered the line.
    pub entered: u64,
    /// Lost, singly or in bursts.
    pub lost: u64,
    /// Doubled.
    pub duplicated: u64,
    /// Held back to be overtaken.
    pub reordered: u64,
    /// Corrupted.
    pub corrupted: u64,
}

/// Whether datagrams come in or go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What [`Datagrams::receive`] hands over.
    Receive,
    /// What [`Datagrams::send`] is given.
    Send,
}

/// Datagrams over bad lines.
///
/// ```
/// use gapless::net::{Backend, Datagrams, Direction, Faults, Faulty, Network};
/// use gapless::net::{Run, SocketOptions, SocketSet};
/// let mut network = Faulty::new(Network::open(Backend::Socket)?, 42);
/// let here = network.add(&SocketOptions::new("127.0.0.1:0".parse()?))?;
/// let there = network.local_address(here);
/// network.set(Direction::Send, SocketSet::of(here), Faults { loss: 0.5, ..Faults::default() });
///
/// for _ in 0..100 {
///     network.send(here, Some(there), &[Run::one(b"?")])?;
/// }
/// let counted = network.counters(Direction::Send, here);
/// assert_eq!((counted.entered, counted.lost), (100, 59)); // whenever the seed is 42
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Faulty<D> {
    inner: D,
    seed: u64,
    lines: Vec<Lines>,
}

/// Both lines of a socket.
#[derive(Debug)]
struct Lines {
    receive: Lane,
    send: Lane,
    /// What the line let out, but the network below had no room for.
    unsent: VecDeque<Kept>,
}

impl<D: Datagrams> Faulty<D> {
    /// Good lines over `inner`, until [`set`](Self::set) says otherwise. `inner` may have no
    /// sockets yet: those added through this are the ones that can have faults.
    #[must_use]
    pub fn new(inner: D, seed: u64) -> Self {
        Self { inner, seed, lines: Vec::new() }
    }

    /// Makes lines bad, or good again. Sockets that are not there are passed over.
    pub fn set(&mut self, direction: Direction, sockets: SocketSet, faults: Faults) {
        for (socket, lines) in self.lines.iter_mut().enumerate() {
            if sockets.contains(socket) {
                match direction {
                    Direction::Receive => lines.receive.faults = faults,
                    Direction::Send => lines.send.faults = faults,
                }
            }
        }
    }

    /// What happened on a line so far.
    ///
    /// # Panics
    /// If there is no such socket.
    #[must_use]
    pub fn counters(&self, direction: Direction, socket: usize) -> FaultCounters {
        match direction {
            Direction::Receive => self.lines[socket].receive.counted,
            Direction::Send => self.lines[socket].send.counted,
        }
    }

    /// The network below.
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The network below, without faults: what is held back is lost.
    pub fn into_inner(self) -> D {
        self.inner
    }

    /// Offers what the network had no room for; returns whether all of it went.
    fn flush(&mut self, socket: usize) -> Result<bool, NetError> {
        let unsent = &mut self.lines[socket].unsent;
        while let Some(next) = unsent.front() {
            let sent = self.inner.send(socket, next.address, &[Run::one(&next.bytes)]);
            if matches!(sent, Ok(0)) {
                return Ok(false);
            }
            unsent.pop_front(); // what is refused for good is not offered again
            sent?;
        }
        Ok(true)
    }

    /// Sends what the line makes of one run. Unharmed neighbours stay one run.
    fn send_run(
        &mut self,
        socket: usize,
        to: Option<SocketAddr>,
        run: Run<'_>,
    ) -> Result<(), NetError> {
        let Self { inner, lines, .. } = self;
        let Lines { send: lane, unsent, .. } = &mut lines[socket];
        let mut out = Out { inner, socket, unsent, failed: None };
        let mut intact = 0..0; // bytes of the run that the line let through as they are
        let segment_bytes = if run.is_one() { run.bytes.len() } else { run.segment_bytes };
        for i in 0..run.segments() {
            let start = i * segment_bytes;
            let end = (start + segment_bytes).min(run.bytes.len());
            let mut kept = false;
            lane.pass(to, &run.bytes[start..end], |address, bytes, same| {
                if same {
                    (kept, intact.end) = (true, end);
                } else {
                    out.run(to, Run { bytes: &run.bytes[intact.clone()], segment_bytes });
                    intact = end..end;
                    out.one(address, bytes);
                }
            });
            if !kept {
                out.run(to, Run { bytes: &run.bytes[intact], segment_bytes });
                intact = end..end;
            } else if segment_bytes == 0 {
                out.one(to, &[]);
            }
        }
        out.run(to, Run { bytes: &run.bytes[intact], segment_bytes });
        out.failed.map_or(Ok(()), Err)
    }

    /// A round in which nothing came: lets go what has been held back for long.
    fn rest(&mut self, wanted: SocketSet, handler: &mut impl FnMut(Datagram<'_>)) -> usize {
        let mut got = 0;
        for socket in 0..self.lines.len() {
            let Lines { receive, send, unsent } = &mut self.lines[socket];
            if wanted.contains(socket) {
                receive.rest(REST_ROUNDS, |source, bytes, _| {
                    if let Some(source) = source {
                        got += 1;
                        handler(Datagram { socket, source, bytes });
                    }
                });
            }
            let mut out = Out { inner: &mut self.inner, socket, unsent, failed: None };
            send.rest(REST_ROUNDS, |to, bytes, _| out.one(to, bytes));
        }
        got
    }
}

/// The way out of a line.
struct Out<'a, D> {
    inner: &'a mut D,
    socket: usize,
    unsent: &'a mut VecDeque<Kept>,
    failed: Option<NetError>,
}

impl<D: Datagrams> Out<'_, D> {
    fn one(&mut self, to: Option<SocketAddr>, bytes: &[u8]) {
        self.offer(to, Run::one(bytes));
    }

    /// A run that may be empty, which is nothing then, not an empty datagram.
    fn run(&mut self, to: Option<SocketAddr>, run: Run<'_>) {
        if !run.bytes.is_empty() {
            self.offer(to, run);
        }
    }

    fn offer(&mut self, to: Option<SocketAddr>, run: Run<'_>) {
        if self.unsent.is_empty() {
            match self.inner.send(self.socket, to, &[run]) {
                Ok(0) => {}
                Ok(_) => return,
                Err(error) => return self.failed = Some(error),
            }
        }
        let pieces = run.bytes.chunks(run.segment_bytes.max(1));
        let lone: &[&[u8]] = if run.bytes.is_empty() { &[&[]] } else { &[] };
        for bytes in pieces.chain(lone.iter().copied()) {
            self.unsent.push_back(Kept { address: to, bytes: bytes.to_vec(), behind: 0 });
        }
    }
}

impl<D: Datagrams> Datagrams for Faulty<D> {
    fn add(&mut self, options: &SocketOptions) -> Result<usize, NetError> {
        let socket = self.inner.add(options)?;
        let seed = self.seed;
        while self.lines.len() <= socket {
            let salt = 2 * self.lines.len() as u64;
            self.lines.push(Lines {
                receive: Lane::new(seed, salt),
                send: Lane::new(seed, salt + 1),
                unsent: VecDeque::new(),
            });
        }
        Ok(socket)
    }

    fn receive(
        &mut self,
        wanted: SocketSet,
        limit: usize,
        mut handler: impl FnMut(Datagram<'_>),
    ) -> Result<usize, NetError> {
        let (mut got, mut came) = (0, false);
        let lines = &mut self.lines;
        self.inner.receive(wanted, limit, |datagram| {
            came = true;
            let socket = datagram.socket;
            let Some(lines) = lines.get_mut(socket) else {
                got += 1;
                return handler(datagram);
            };
            lines.receive.pass(Some(datagram.source), datagram.bytes, |source, bytes, _| {
                got += 1;
                let source = source.unwrap_or(datagram.source);
                handler(Datagram { socket, source, bytes });
            });
        })?;
        if !came {
            got += self.rest(wanted, &mut handler);
        }
        Ok(got)
    }

    fn send(
        &mut self,
        socket: usize,
        to: Option<SocketAddr>,
        runs: &[Run<'_>],
    ) -> Result<usize, NetError> {
        if socket >= self.lines.len() {
            return self.inner.send(socket, to, runs);
        }
        for (taken, run) in runs.iter().enumerate() {
            let sent = match self.flush(socket) {
                Ok(true) => self.send_run(socket, to, *run),
                Ok(false) => return Ok(taken),
                Err(error) => Err(error),
            };
            match sent {
                Ok(()) => {}
                Err(error) if taken == 0 => return Err(error),
                Err(_) => return Ok(taken),
            }
        }
        Ok(runs.len())
    }

    /// Held-back datagrams are not let go by waiting: a wait counts for nothing here.
    fn wait(&mut self, timeout: Duration) -> Result<(), NetError> {
        self.inner.wait(timeout)
    }

    fn local_address(&self, socket: usize) -> SocketAddr {
        self.inner.local_address(socket)
    }

    fn statistics(&self, socket: usize) -> SocketStatistics {
        self.inner.statistics(socket)
    }

    fn notes(&self) -> &[String] {
        self.inner.notes()
    }
}
