//! What can go wrong with a log.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use gapless_shm::{CountersError, PollError, RingError};
use thiserror::Error;

use super::bulk::Refusal;
use crate::net::NetError;
use crate::protocol::Session;

/// A log could not be opened, written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LogError {
    /// There is no log, or nothing in it yet.
    #[error("there is no log in {directory}: record one first")]
    NotFound {
        /// The directory.
        directory: PathBuf,
    },
    /// Another process, or another part of this one, writes the log.
    #[error("the log in {directory} has a live writer: end it first, or read only")]
    WriterAlive {
        /// The directory.
        directory: PathBuf,
    },
    /// The system refused something.
    #[error("cannot {what} {path}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The disk is full. What could not be written is kept, and written when there is room.
    #[error("no room on the disk for {path}: nothing is lost, recording goes on when there is")]
    NoRoom {
        /// The file.
        path: PathBuf,
    },
    /// A sync failed: nothing since the last success can be relied on, and the system will not say
    /// so again. The writer has stopped.
    #[error(
        "{path} could not be synced: {source}; durable is what was before {durable_end}. \
         Check the disk, then open the log again"
    )]
    SyncFailed {
        /// The file or directory.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
        /// Sequence of the first message that is not durable.
        durable_end: u64,
    },
    /// A file of the log is of a newer version than this program knows.
    #[error("{path} has format version {version}, this program knows 1: use a newer one")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A segment's header cannot be read.
    #[error("{path} is no segment of a log, or its first page is damaged")]
    Header {
        /// The file.
        path: PathBuf,
    },
    /// The bytes of some messages are damaged; the next poll goes on behind them.
    #[error("{path}: {count} messages from {first} on are damaged, from byte {offset} on")]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Sequence of the first damaged message.
        first: u64,
        /// How many.
        count: u64,
        /// Where in the segment the damage begins, bytes.
        offset: u64,
    },
    /// Messages that were never recorded, or whose segment is gone; the next poll goes on behind
    /// them.
    #[error("{count} messages from {first} on are not in the log")]
    Missing {
        /// Sequence of the first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// The log goes on with another session: sequence numbers begin anew. The next poll goes on.
    #[error("session {session} begins, at {next}")]
    NewSession {
        /// The session.
        session: Session,
        /// Sequence of its first message.
        next: u64,
    },
    /// The log does not go back so far any more.
    #[error("message {wanted} is not in the log any more: the oldest is {oldest}")]
    SequenceGone {
        /// What was asked for.
        wanted: u64,
        /// Sequence of the oldest message.
        oldest: u64,
    },
    /// The log has nothing of that session.
    #[error("session {session} is not in the log")]
    SessionUnknown {
        /// What was asked for.
        session: Session,
    },
    /// A message was offered out of its turn.
    #[error("message {found} was offered to the log, which is at {expected}")]
    OutOfTurn {
        /// Sequence of the message that the log goes on with.
        expected: u64,
        /// Sequence of the message offered.
        found: u64,
    },
    /// The ring that is recorded has another message than the log of the same number.
    #[error(
        "message {sequence} of session {session} is another in the ring than in the log: its \
         publisher went on from a shorter log. Record into another directory, or have it begin \
         anew (fresh=yes)"
    )]
    Conflict {
        /// The session.
        session: Session,
        /// Sequence of the first such message.
        sequence: u64,
    },
    /// A session was offered that is not newer than the log's.
    #[error(
        "session {offered} is older than the log's, {current}: is this another stream's log, or \
         was the clock set back?"
    )]
    OldSession {
        /// What was offered.
        offered: Session,
        /// The log's newest.
        current: Session,
    },
    /// A message is longer than a log takes.
    #[error("a message of {len} bytes does not fit a log: at most {max}")]
    TooLong {
        /// Its length, bytes.
        len: usize,
        /// The limit, bytes.
        max: usize,
    },
    /// An option is out of its range.
    #[error("{option} cannot be {value}: {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// What was asked for.
        value: u64,
        /// What is accepted.
        expected: &'static str,
    },
    /// A reader's name that no file can have.
    #[error("{name:?} is no name for a reader: 1 to 64 letters, digits, '.', '_' and '-'")]
    ReaderName {
        /// The name.
        name: String,
    },
    /// A rewinder cannot be had, or does not speak as one.
    #[error("the rewinder {server} is of no use: {source}")]
    Unreachable {
        /// Its address.
        server: String,
        /// What went wrong.
        source: io::Error,
    },
    /// A rewinder refused to serve.
    #[error("the rewinder {server} refuses: {why}")]
    Refused {
        /// Its address.
        server: String,
        /// Why.
        why: Refusal,
    },
    /// A rewinder cannot be reached where it was to be.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// A rewinder's sockets.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The ring that is recorded could not be opened.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The ring that is recorded could not be read.
    #[error(transparent)]
    Poll(#[from] PollError),
    /// The counters page.
    #[error(transparent)]
    Counters(#[from] CountersError),
}

impl LogError {
    /// Whether this passes, and the same call should be made again: a full disk.
    pub fn is_no_room(&self) -> bool {
        matches!(self, Self::NoRoom { .. })
    }

    /// Whether reading goes on with the next call: this said what the log does not have.
    pub fn is_told(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Missing { .. } | Self::NewSession { .. })
    }

    pub(crate) fn system(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoRoom { path },
            _ => Self::System { what, path, source },
        }
    }
}
