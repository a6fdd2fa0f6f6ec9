//! The client of rewinders: a log that is elsewhere, read as if it were here.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use gapless_shm::Message;

use super::bulk::Refusal;
use super::error::LogError;
use super::feed::{Broken, Feed, Outcome};
use crate::clock::{Clock, TscClock};
use crate::protocol::Session;

/// How long a server may take to answer when one connects.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long when one falls over to it: a poll waits for no more than this.
const FALL_OVER_TIMEOUT: Duration = Duration::from_millis(250);
/// A server from which nothing has come for so long is given up, ns. It says something every
/// second.
const SILENT_NS: u64 = 5_000_000_000;
/// Between two attempts to connect, after each server was tried, ns.
const RETRY_NS: u64 = 100_000_000;
/// Reads from the socket in one poll.
const READS_MAX: usize = 8;

/// Reads what rewinders have, by TCP: a session from some message on, and what is recorded
/// meanwhile. Of several servers it uses one; when that fails, also half way, it goes on where it
/// was with the next. See [`Rewinder`](super::Rewinder) for an example.
///
/// As with a [`LogReader`](super::LogReader), what the log does not have is told in its place, and
/// sessions follow each other.
pub struct Fetch {
    servers: Vec<SocketAddr>,
    /// The server that is used, or tried next.
    turn: usize,
    link: Option<TcpStream>,
    feed: Feed,
    clock: TscClock,
    heard_at: u64,
    /// Servers in a row that were of no use.
    failures: usize,
    /// What the last of them said.
    failed: Option<LogError>,
    retry_at: u64,
}

impl Fetch {
    /// Connects to a server, and asks for `session` (`None`: its newest) from message `from` on
    /// (0: from the oldest). A message of the future is waited for.
    ///
    /// # Errors
    /// [`LogError::Unreachable`] if the server does not answer within a second, or not as a
    /// rewinder does; [`LogError::SessionUnknown`], [`LogError::SequenceGone`],
    /// [`LogError::Refused`].
    pub fn connect(server: SocketAddr, session: Option<u64>, from: u64) -> Result<Self, LogError> {
        Self::connect_any(&[server], session, from)
    }

    /// As [`connect`](Self::connect), to the first of several servers that has what is asked for.
    ///
    /// # Errors
    /// As for [`connect`](Self::connect), by the last server; [`LogError::Option`] without any.
    pub fn connect_any(
        servers: &[SocketAddr],
        session: Option<u64>,
        from: u64,
    ) -> Result<Self, LogError> {
        let mut fetch = Self {
            servers: servers.to_vec(),
            turn: 0,
            link: None,
            feed: Feed::new(session, from),
            clock: TscClock::new(),
            heard_at: 0,
            failures: 0,
            failed: None,
            retry_at: 0,
        };
        for _ in servers {
            match fetch.open_and_wait() {
                Ok(()) => return Ok(fetch),
                Err(error) => fetch.fail(error),
            }
        }
        let none = LogError::Option { option: "servers", value: 0, expected: "at least one" };
        Err(fetch.failed.unwrap_or(none))
    }

    /// The session that is read.
    pub fn session(&self) -> u64 {
        self.feed.session().unwrap_or_default()
    }

    /// Sequence of the next message.
    pub fn next_sequence(&self) -> u64 {
        self.feed.next_sequence()
    }

    /// Behind the newest message of the session that a server spoke of.
    pub fn newest_sequence(&self) -> u64 {
        self.feed.newest_sequence()
    }

    /// Whether everything that the server has was handed over, as far as it has said.
    pub fn is_caught_up(&self) -> bool {
        self.link.is_some() && self.feed.is_caught_up()
    }

    /// Name of the stream, as its recorder gave it.
    pub fn name(&self) -> &str {
        self.feed.name()
    }

    /// Whether messages carry envelopes, as the recorder said.
    pub fn is_enveloped(&self) -> bool {
        self.feed.is_enveloped()
    }

    /// The server that is connected.
    pub fn server(&self) -> Option<SocketAddr> {
        self.link.as_ref().and(self.servers.get(self.turn).copied())
    }

    /// Hands up to `limit` messages to `handler`, in order, with the time of each (ns since the
    /// Unix epoch), until it says no to one: that comes again. Returns how many; 0 means that there
    /// is none yet. Blocks only to connect to another server, for a quarter of a second at most.
    ///
    /// # Errors
    /// Only when nothing was handed over: [`LogError::Damaged`], [`LogError::Missing`],
    /// [`LogError::NewSession`], after each of which the next poll goes on. And when no server is
    /// of use: what the last one said; the next poll tries them anew.
    pub fn poll_while(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(Message<'_>, u64) -> bool,
    ) -> Result<usize, LogError> {
        let now = self.clock.now_ns();
        if self.link.is_none() {
            if now < self.retry_at {
                return Ok(0);
            }
            if let Err(error) = self.open(FALL_OVER_TIMEOUT) {
                return self.fall_over(error, now);
            }
        }
        for _ in 0..READS_MAX {
            match self.feed.poll_while(limit, &mut handler) {
                Ok(Outcome::Handed(handled)) => {
                    self.failures = 0;
                    return Ok(handled);
                }
                Ok(Outcome::Told(error)) => {
                    self.failures = 0;
                    return Err(self.placed(error));
                }
                Ok(Outcome::Hungry) => {}
                Err(broken) => {
                    let error = self.named(broken);
                    return self.fall_over(error, now);
                }
            }
            match self.read() {
                Ok(true) => self.heard_at = now,
                Ok(false) if now.saturating_sub(self.heard_at) < SILENT_NS => break,
                Ok(false) => {
                    let error = self.unreachable(ErrorKind::TimedOut.into());
                    return self.fall_over(error, now);
                }
                Err(error) => {
                    let error = self.unreachable(error);
                    return self.fall_over(error, now);
                }
            }
        }
        if self.feed.is_caught_up() {
            self.failures = 0; // it has done all there was to do
        }
        Ok(0)
    }

    /// Reads what is there. False if nothing is.
    fn read(&mut self) -> io::Result<bool> {
        let Some(link) = &mut self.link else { return Ok(false) };
        match link.read(self.feed.room()) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                self.feed.filled(read);
                Ok(true)
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(false),
                _ => Err(error),
            },
        }
    }

    /// Connects to the server whose turn it is, and says what is wanted.
    fn open(&mut self, timeout: Duration) -> Result<(), LogError> {
        let hello = self.feed.restart();
        let Some(server) = self.servers.get(self.turn) else { return Ok(()) };
        let connected = TcpStream::connect_timeout(server, timeout).and_then(|mut link| {
            link.set_write_timeout(Some(timeout))?;
            link.write_all(&hello.to_bytes())?;
            link.set_nonblocking(true)?;
            Ok(link)
        });
        self.heard_at = self.clock.now_ns();
        self.link = Some(connected.map_err(|error| self.unreachable(error))?);
        Ok(())
    }

    /// And waits for the welcome.
    fn open_and_wait(&mut self) -> Result<(), LogError> {
        self.open(CONNECT_TIMEOUT)?;
        let due = self.heard_at + CONNECT_TIMEOUT.as_nanos() as u64;
        let blocking = self.link.as_ref().map_or(Ok(()), |link| {
            link.set_read_timeout(Some(CONNECT_TIMEOUT))?;
            link.set_nonblocking(false)
        });
        blocking.map_err(|error| self.unreachable(error))?;
        loop {
            match self.feed.welcome() {
                Ok(true) => break,
                Ok(false) => {}
                Err(broken) => return Err(self.named(broken)),
            }
            if self.clock.now_ns() >= due {
                return Err(self.unreachable(ErrorKind::TimedOut.into()));
            }
            if let Err(error) = self.read() {
                return Err(self.unreachable(error));
            }
        }
        let unblocked = self.link.as_ref().map_or(Ok(()), |link| link.set_nonblocking(true));
        unblocked.map_err(|error| self.unreachable(error))
    }

    /// The server is of no use: the next one is tried.
    fn fail(&mut self, error: LogError) {
        self.link = None;
        self.failures += 1;
        self.turn = (self.turn + 1) % self.servers.len().max(1);
        self.failed = Some(error);
    }

    fn fall_over(&mut self, error: LogError, now: u64) -> Result<usize, LogError> {
        self.fail(error);
        if self.failures <= self.servers.len() {
            return Ok(0);
        }
        // All were tried, and the first of them once more.
        (self.failures, self.retry_at) = (0, now + RETRY_NS);
        self.failed.take().map_or(Ok(0), Err)
    }

    fn unreachable(&self, source: io::Error) -> LogError {
        let server = self.servers.get(self.turn).map(ToString::to_string).unwrap_or_default();
        LogError::Unreachable { server, source }
    }

    /// Why a server is of no use.
    fn named(&self, broken: Broken) -> LogError {
        let wanted = self.feed.next_sequence();
        match broken {
            Broken::Bulk(error) => self.unreachable(io::Error::new(ErrorKind::InvalidData, error)),
            Broken::Nonsense(what) => {
                self.unreachable(io::Error::new(ErrorKind::InvalidData, what))
            }
            Broken::Refused { why: Refusal::SequenceGone, oldest } => {
                LogError::SequenceGone { wanted, oldest }
            }
            Broken::Refused { why: Refusal::SessionUnknown, .. } => {
                LogError::SessionUnknown { session: Session::from_number(self.session()) }
            }
            Broken::Refused { why, .. } => {
                let server = self.servers.get(self.turn).map(ToString::to_string);
                LogError::Refused { server: server.unwrap_or_default(), why }
            }
        }
    }

    /// What is told names the server, where a log's reader would name the file.
    fn placed(&self, error: LogError) -> LogError {
        match error {
            LogError::Damaged { first, count, offset, .. } => {
                let server = self.servers.get(self.turn).map(ToString::to_string);
                let path = PathBuf::from(server.unwrap_or_default());
                LogError::Damaged { path, first, count, offset }
            }
            other => other,
        }
    }
}
