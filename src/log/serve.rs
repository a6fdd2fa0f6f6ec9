//! The rewinder's bulk side: clients by TCP, each sent its log at its own pace. See
//! [`bulk`] for what is said.
//!
//! Nothing blocks. A client that does not read costs the buffer of its socket, and its place, until
//! it is given up; all clients together get no more bytes a second than the rewinder may send.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};

use super::bulk::{BulkError, Frame, HELLO_BYTES, Hello, Refusal, Word};
use super::error::LogError;
use super::pace::Pace;
use super::reader::LogReader;
use super::shelf::Library;
use crate::address::ReadFrom;
use crate::protocol::Session;

/// Bytes sent to one client before it is the next one's turn.
const TURN_BYTES: usize = 256 << 10;
/// Blocks up to this size are gathered, and sent by one system call, bytes.
const SMALL_BYTES: usize = 16 << 10;
/// What is gathered, bytes, about.
const GATHER_BYTES: usize = 64 << 10;
/// A client that has everything is looked after this often, ns.
const IDLE_NS: u64 = 500_000;
/// And told so this often, ns.
const STATUS_NS: u64 = 1_000_000_000;
/// New clients are looked for this often, ns.
const ACCEPT_NS: u64 = 1_000_000;
/// New clients taken in one look.
const ACCEPT_MAX: usize = 16;
/// Clients that have not said yet what they want, or were refused, beside those that are served.
const WAITING_MAX: usize = 32;

/// Limits of the bulk side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) clients_max: usize,
    /// A client has so long to say what it wants, ns.
    pub(super) hello_ns: u64,
    /// A client that takes nothing for so long is given up, ns.
    pub(super) stall_ns: u64,
}

/// What was done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BulkCounts {
    pub(super) served: u64,
    pub(super) refused: u64,
    pub(super) dropped: u64,
    pub(super) bytes: u64,
}

/// All clients.
pub(super) struct Bulk {
    listeners: Vec<TcpListener>,
    limits: Limits,
    clients: Vec<Client>,
    turn: usize,
    accept_at: u64,
    pub(super) counts: BulkCounts,
}

impl Bulk {
    /// The listeners must not block.
    pub(super) fn new(listeners: Vec<TcpListener>, limits: Limits) -> Self {
        let counts = BulkCounts::default();
        Self { listeners, limits, clients: Vec::new(), turn: 0, accept_at: 0, counts }
    }

    /// Addresses that are listened on.
    pub(super) fn listeners(&self) -> usize {
        self.listeners.len()
    }

    /// Clients that are served.
    pub(super) fn clients(&self) -> usize {
        self.clients.iter().filter(|client| client.reader.is_some()).count()
    }

    /// Goes once over all clients; bytes sent.
    pub(super) fn turn(&mut self, library: &mut Library, pace: &mut Pace, now: u64) -> usize {
        if now >= self.accept_at {
            self.accept_at = now + ACCEPT_NS;
            self.accept(now);
        }
        let mut sent = 0;
        self.turn = self.turn.wrapping_add(1);
        for index in 0..self.clients.len() {
            let at = (self.turn.wrapping_add(index)) % self.clients.len();
            if self.clients[at].is_waiting() && self.clients[at].hear() {
                let free = self.clients() < self.limits.clients_max;
                self.clients[at].begin(library, free, now, &mut self.counts);
            }
            sent += self.clients[at].serve(pace, now);
        }
        self.counts.bytes += sent as u64;
        let limits = self.limits;
        let before = self.clients.len();
        self.clients.retain(|client| !client.is_over(&limits, now));
        self.counts.dropped += (before - self.clients.len()) as u64;
        sent
    }

    #[cold]
    fn accept(&mut self, now: u64) {
        for listener in &self.listeners {
            for _ in 0..ACCEPT_MAX {
                // Out of descriptors, or the client has gone: it, or another, is looked for later.
                let Ok((stream, _)) = listener.accept() else { break };
                let room = self.clients.len() < self.limits.clients_max + WAITING_MAX;
                if room && stream.set_nonblocking(true).is_ok() {
                    let _ = stream.set_nodelay(true); // slower without, no worse
                    self.clients.push(Client::new(stream, now));
                } else {
                    self.counts.refused += 1;
                }
            }
        }
    }
}

/// Where listeners for the rewinder stand, non-blocking.
pub(super) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// One connection.
struct Client {
    stream: TcpStream,
    opened_at: u64,
    hello: [u8; HELLO_BYTES],
    heard: usize,
    reader: Option<LogReader>,
    /// Frames and small blocks.
    out: Vec<u8>,
    out_sent: usize,
    /// Bytes sent of the block that the reader is at, if that is sent as it stands.
    block_sent: Option<usize>,
    /// Whether nothing will follow.
    last: bool,
    /// Whether the connection is of no more use.
    closed: bool,
    /// Since when it has taken nothing, ns.
    stalled_at: Option<u64>,
    look_at: u64,
    status_at: u64,
    /// What it was last told to have everything up to.
    told: u64,
}

impl Client {
    fn new(stream: TcpStream, now: u64) -> Self {
        Self {
            stream,
            opened_at: now,
            hello: [0; HELLO_BYTES],
            heard: 0,
            reader: None,
            out: Vec::new(),
            out_sent: 0,
            block_sent: None,
            last: false,
            closed: false,
            stalled_at: None,
            look_at: 0,
            status_at: 0,
            told: u64::MAX,
        }
    }

    /// Whether it has not said yet what it wants.
    fn is_waiting(&self) -> bool {
        self.heard < HELLO_BYTES && !self.closed
    }

    /// Reads of its hello what is there. True when that is all of it.
    fn hear(&mut self) -> bool {
        match self.stream.read(&mut self.hello[self.heard..]) {
            Ok(0) => self.closed = true,
            Ok(read) => self.heard += read,
            Err(error) => self.closed |= !passes(&error),
        }
        self.heard == HELLO_BYTES
    }

    /// Gives it what it asked for.
    #[cold]
    fn begin(&mut self, library: &mut Library, free: bool, now: u64, counts: &mut BulkCounts) {
        let hello = match Hello::read(&self.hello) {
            Ok(hello) => hello,
            Err(BulkError::Version { .. }) => {
                counts.refused += 1;
                return self.refuse(0, 0, Refusal::Version, 0);
            }
            Err(BulkError::Foreign) => {
                self.closed = true; // it would not understand
                return;
            }
        };
        library.list(now);
        let session = hello.session.or_else(|| library.newest()).unwrap_or_default();
        if !free {
            counts.refused += 1;
            return self.refuse(session, hello.from, Refusal::Busy, 0);
        }
        match open(library, session, hello.from) {
            Ok((reader, word)) => {
                counts.served += 1;
                let oldest = reader.oldest_sequence();
                Frame { session, oldest, word }.write(&mut self.out);
                self.reader = Some(reader);
            }
            Err(error) => {
                counts.refused += 1;
                let (why, oldest) = match error {
                    LogError::SessionUnknown { .. } => (Refusal::SessionUnknown, 0),
                    LogError::SequenceGone { oldest, .. } => (Refusal::SequenceGone, oldest),
                    _ => (Refusal::Unreadable, 0),
                };
                self.refuse(session, hello.from, why, oldest);
            }
        }
    }

    fn refuse(&mut self, session: u64, wanted: u64, why: Refusal, oldest: u64) {
        Frame { session, oldest, word: Word::Refusal { wanted, why } }.write(&mut self.out);
        self.reader = None;
        self.last = true;
    }

    /// Sends what may be sent and is taken.
    fn serve(&mut self, pace: &mut Pace, now: u64) -> usize {
        if self.closed || now < self.look_at || self.is_waiting() {
            return 0;
        }
        self.listen();
        let mut sent = 0;
        while !self.closed {
            let most = pace.room(now).min(TURN_BYTES - sent);
            if !self.has_unsent() && !self.gather(now) {
                break;
            }
            let wrote = if most == 0 { 0 } else { self.write(most, now) };
            if wrote == 0 {
                break;
            }
            pace.take(wrote);
            sent += wrote;
        }
        sent
    }

    fn has_unsent(&self) -> bool {
        self.out_sent < self.out.len() || self.block_sent.is_some()
    }

    /// A client has nothing to say but that it is gone.
    fn listen(&mut self) {
        match self.stream.peek(&mut [0]) {
            Ok(_) => self.closed = true,
            Err(error) => self.closed |= !passes(&error),
        }
    }

    /// Writes up to `most` bytes of what is unsent; how many were taken.
    fn write(&mut self, most: usize, now: u64) -> usize {
        let (bytes, in_block) = match (&mut self.reader, self.block_sent) {
            _ if self.out_sent < self.out.len() => (&self.out[self.out_sent..], false),
            (Some(reader), Some(from)) => match reader.block() {
                Ok(Some((_, bytes))) => (bytes.get(from..).unwrap_or_default(), true),
                _ => (&[][..], true), // it was there a moment ago
            },
            _ => (&[][..], false),
        };
        let length = bytes.len();
        if length == 0 {
            self.closed = true;
            return 0;
        }
        match self.stream.write(&bytes[..length.min(most)]) {
            Ok(wrote) => {
                self.stalled_at = None;
                match in_block {
                    false => self.out_sent += wrote,
                    true if wrote == length => self.pass(),
                    true => self.block_sent = self.block_sent.map(|sent| sent + wrote),
                }
                self.closed |= wrote == 0;
                wrote
            }
            Err(error) => {
                self.closed |= !passes(&error);
                self.stalled_at = self.stalled_at.or(Some(now));
                self.look_at = now + IDLE_NS;
                0
            }
        }
    }

    /// The block that was sent as it stands is behind.
    fn pass(&mut self) {
        self.block_sent = None;
        let Some(reader) = &mut self.reader else { return };
        if let Ok(Some((header, _))) = reader.block() {
            reader.pass(&header);
        }
    }

    /// Makes ready what comes next. False if there is nothing (yet).
    fn gather(&mut self, now: u64) -> bool {
        self.out.clear();
        self.out_sent = 0;
        while self.out.len() < GATHER_BYTES {
            let Some(reader) = &mut self.reader else { break };
            let (session, oldest) = (reader.session(), reader.oldest_sequence());
            let word = match reader.block() {
                Ok(Some((header, bytes))) if bytes.len() <= SMALL_BYTES => {
                    self.out.extend_from_slice(bytes);
                    reader.pass(&header);
                    continue;
                }
                Ok(Some(_)) => {
                    // What was gathered goes in front of it.
                    self.block_sent = Some(0);
                    break;
                }
                Ok(None) => {
                    self.look_at = now + IDLE_NS;
                    let next = reader.reached();
                    if next != self.told || now >= self.status_at {
                        (self.told, self.status_at) = (next, now + STATUS_NS);
                        let word = Word::Status { next };
                        Frame { session, oldest, word }.write(&mut self.out);
                    }
                    break;
                }
                Err(LogError::Missing { first, count }) => gone(first, count, false),
                Err(LogError::Damaged { first, count, .. }) => gone(first, count, true),
                Err(LogError::NewSession { next, .. }) => Word::Session { first: next },
                Err(_) => {
                    let wanted = reader.reached();
                    self.refuse(session, wanted, Refusal::Unreadable, oldest);
                    break;
                }
            };
            let session = reader.session();
            Frame { session, oldest, word }.write(&mut self.out);
        }
        if self.last && !self.has_unsent() {
            // It closes when it has read that.
            let _ = self.stream.shutdown(Shutdown::Write); // or was reset already
        }
        self.has_unsent()
    }

    fn is_over(&self, limits: &Limits, now: u64) -> bool {
        let old = now.saturating_sub(self.opened_at) >= limits.hello_ns;
        let stalled = self.stalled_at.is_some_and(|at| now.saturating_sub(at) >= limits.stall_ns);
        self.closed || stalled || (old && (self.is_waiting() || self.last))
    }
}

/// Whether an error says no more than that there is nothing to do.
fn passes(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn gone(first: u64, count: u64, damaged: bool) -> Word {
    Word::Gone { first, end: first.saturating_add(count), damaged }
}

/// Opens a session from a message on, in the first log that has both; and what to say to that.
fn open(library: &Library, session: u64, from: u64) -> Result<(LogReader, Word), LogError> {
    let named = Session::from_number(session);
    let mut failed = LogError::SessionUnknown { session: named };
    for directory in library.directories(session) {
        let opened =
            LogReader::open_session(directory, named, ReadFrom::Now).and_then(|mut log| {
                let next = log.reached();
                log.seek(if from == 0 { ReadFrom::Oldest } else { ReadFrom::Sequence(from) })?;
                Ok((log, next))
            });
        match opened {
            Ok((log, next)) => {
                let (first, enveloped) = (log.next_sequence(), log.is_enveloped());
                let name = log.name().to_owned();
                return Ok((log, Word::Welcome { first, next, enveloped, name }));
            }
            Err(error) => failed = error,
        }
    }
    Err(failed)
}
