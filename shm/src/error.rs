//! What can go wrong, by family of operation: setting up ([`RingError`]), publishing
//! ([`PublishError`]), polling ([`PollError`]); and the counters page ([`CountersError`]).

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A ring could not be created, opened or attached to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RingError {
    /// The stream name cannot be a file name.
    #[error("stream name {name:?} is not usable: {reason}")]
    BadName {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An option is out of its range.
    #[error("{option} = {value}: {expected}")]
    BadOption {
        /// Which option.
        option: &'static str,
        /// Its value.
        value: u64,
        /// What would be accepted.
        expected: String,
    },
    /// The stream exists with another property than the one asked for.
    #[error(
        "{path} exists with {option} = {existing}, asked for {wanted}: remove the ring or ask for what it has"
    )]
    Differs {
        /// The ring's file.
        path: PathBuf,
        /// Which property.
        option: &'static str,
        /// What the ring has.
        existing: u64,
        /// What was asked for.
        wanted: u64,
    },
    /// There is no such ring.
    #[error("no ring at {path}: start its publisher first, or check the name and directory")]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The ring exists already (and was to be created).
    #[error("{path} exists already")]
    Exists {
        /// The ring's file.
        path: PathBuf,
    },
    /// Another producer holds the stream.
    #[error("{path} has a live producer, pid {pid}: a stream has one publisher")]
    ProducerAlive {
        /// The ring's file.
        path: PathBuf,
        /// The live producer's process id.
        pid: u32,
    },
    /// Every consumer slot is held by a live consumer.
    #[error(
        "all {slots} consumer slots of {path} are taken: create the ring with more, or attach as an observer"
    )]
    NoFreeSlot {
        /// The ring's file.
        path: PathBuf,
        /// How many slots it has.
        slots: usize,
    },
    /// The user may not open the file this way.
    #[error(
        "{path}: permission denied to {what}: the owner can create the ring with a group mode, and a reader without write permission can attach as an observer"
    )]
    Denied {
        /// The ring's file.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
    },
    /// The ring to publish into belongs to another user, who could have put it there.
    #[error(
        "{path} belongs to user {owner}: a publisher writes only into its own user's rings (or root's), unless created with foreign_owner(true)"
    )]
    ForeignOwner {
        /// The ring's file.
        path: PathBuf,
        /// User id of the owner.
        owner: u32,
    },
    /// The file does not start with the magic of a ring.
    #[error("{path} is not a gapless ring: its first bytes are {found:02x?}")]
    BadMagic {
        /// The file.
        path: PathBuf,
        /// Its first eight bytes.
        found: [u8; 8],
    },
    /// The ring was written by another version of the layout.
    #[error(
        "{path} has layout version {found}, this build reads {supported}: use the same release on both sides"
    )]
    BadVersion {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Version of this build.
        supported: u32,
    },
    /// The ring was written on a machine of another byte order.
    #[error("{path} was written with another byte order (mark {found:#010x})")]
    BadByteOrder {
        /// The file.
        path: PathBuf,
        /// The mark as read here.
        found: u32,
    },
    /// The header's checksum does not match its bytes.
    #[error(
        "{path}: header checksum {found:#010x} does not match its bytes ({computed:#010x}): the header is damaged, remove the ring"
    )]
    BadChecksum {
        /// The file.
        path: PathBuf,
        /// Checksum in the file.
        found: u32,
        /// Checksum of its bytes.
        computed: u32,
    },
    /// A header field holds what no creator writes.
    #[error("{path}: header field {field} is {value}: impossible, remove the ring")]
    BadHeader {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The file is shorter or longer than its header says.
    #[error(
        "{path} has {found} bytes, its header says {expected}: truncated or damaged, remove the ring"
    )]
    BadLength {
        /// The file.
        path: PathBuf,
        /// Length of the file.
        found: u64,
        /// Length by the header.
        expected: u64,
    },
    /// The producer page says that the stream is where it cannot be.
    #[error("impossible cursor: position {position}, sequence {sequence}: the ring is damaged")]
    BadCursor {
        /// Position found.
        position: u64,
        /// Sequence found.
        sequence: u64,
    },
    /// The data holds a record that no producer writes.
    #[error("corrupt record at position {position}: commit word {word:#018x}")]
    Corrupt {
        /// Position of the record.
        position: u64,
        /// The commit word found there.
        word: u64,
    },
    /// The sequence asked for is no longer in the ring.
    #[error("sequence {wanted} is gone: the oldest in the ring is {oldest}")]
    SequenceGone {
        /// Sequence asked for.
        wanted: u64,
        /// Oldest that could be had.
        oldest: u64,
    },
    /// The stream moved faster than it could be joined.
    #[error("the stream moves too fast to be joined there: use a larger ring, or start from now")]
    Unsteady,
    /// There is not enough room for the ring.
    #[error(
        "no room for {bytes} bytes at {path}: enlarge that file system (for /dev/shm: mount -o remount,size=…), remove stale rings, or ask for less capacity"
    )]
    NoSpace {
        /// The ring's file.
        path: PathBuf,
        /// Bytes wanted.
        bytes: u64,
    },
    /// The memory cannot be locked, and was required to be.
    #[error("cannot lock {bytes} bytes in memory: {source}: raise the memlock limit (ulimit -l)")]
    CannotLock {
        /// Bytes to be locked.
        bytes: u64,
        /// The system's answer.
        source: io::Error,
    },
    /// Huge pages cannot be had, and were required.
    #[error("no huge pages for {path}: {reason}")]
    NoHugePages {
        /// The ring's file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Anything else that the system refused.
    #[error("{what} {path}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// A message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PublishError {
    /// A gating consumer is a whole ring behind. Not a failure: try again when it has moved, or
    /// ask [`Producer::slowest`](crate::Producer::slowest) who it is.
    #[error("the ring is full: the consumer in slot {slot} has not read it")]
    Backpressure {
        /// Slot of the slowest consumer.
        slot: u32,
    },
    /// The message is longer than the ring takes.
    #[error("message of {len} bytes, this ring takes {max}: publish it in fragments")]
    TooLong {
        /// Its length, bytes.
        len: usize,
        /// The ring's limit, bytes.
        max: usize,
    },
    /// A batch would be longer than the ring.
    #[error("the batch is longer than the ring's {capacity_bytes} bytes: commit it in parts")]
    BatchTooLong {
        /// The ring's capacity, bytes.
        capacity_bytes: u64,
    },
    /// Consumers of this ring cannot be thrown out.
    #[error("consumers can be evicted only from a ring created evictable")]
    NotEvictable,
}

impl PublishError {
    /// Whether the ring is merely full: trying again can succeed.
    pub fn is_backpressure(&self) -> bool {
        matches!(self, Self::Backpressure { .. })
    }
}

/// A poll found something else than messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PollError {
    /// The producer overwrote what this consumer had not read. The next poll goes on.
    #[error("lapped: {missed} messages were overwritten unread, going on at {resumed_at}")]
    Lapped {
        /// Exactly how many messages this consumer will never see.
        missed: u64,
        /// Sequence of the next message.
        resumed_at: u64,
    },
    /// The producer threw this consumer out. Attach again to go on.
    #[error("evicted by the producer: next would have been {next}")]
    Evicted {
        /// First sequence not delivered.
        next: u64,
    },
    /// The ring holds bytes that no producer writes. It cannot be read further.
    #[error("corrupt record at position {position}: commit word {word:#018x}")]
    Corrupt {
        /// Position of the record.
        position: u64,
        /// The commit word found there.
        word: u64,
    },
    /// The producer page changed faster than it could be read; try again.
    #[error("the producer page could not be read in one piece")]
    Unsteady,
}

/// A counters page could not be opened, for writing or for reading.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CountersError {
    /// A label or kind that a page cannot hold.
    #[error("{what} {text:?}: {expected}")]
    BadText {
        /// Label of a counter, label of a histogram, or kind.
        what: &'static str,
        /// The text as given.
        text: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// More of them than a page holds.
    #[error("{count} {what}, a page holds {max}")]
    TooMany {
        /// Counters or histograms.
        what: &'static str,
        /// How many were asked for.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// There is no such page.
    #[error("no counters at {path}: start what writes them first, or check the name and directory")]
    NotFound {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// Somebody who lives writes this page.
    #[error("{path} has a live writer, pid {pid}: a counters page has one writer")]
    WriterAlive {
        /// The page.
        path: PathBuf,
        /// The live writer's process id, as it saw itself; 0 if it cannot be read.
        pid: u32,
    },
    /// The page is in the way, and belongs to another user.
    #[error(
        "{path} belongs to user {owner}, and is not replaced: choose another name or directory"
    )]
    ForeignOwner {
        /// The page.
        path: PathBuf,
        /// User id of the owner.
        owner: u32,
    },
    /// The user may not open the page this way.
    #[error("{path}: permission denied to {what}: its writer can create it with a group mode")]
    Denied {
        /// The page.
        path: PathBuf,
        /// What was tried.
        what: &'static str,
    },
    /// The file does not start with the magic of a counters page.
    #[error("{path} is not a counters page: its first bytes are {found:02x?}")]
    BadMagic {
        /// The file.
        path: PathBuf,
        /// Its first eight bytes.
        found: [u8; 8],
    },
    /// The page was written by another version.
    #[error("{path} has counters version {found}, this build reads {supported}")]
    BadVersion {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u32,
        /// Version of this build.
        supported: u32,
    },
    /// The page was written on a machine of another byte order.
    #[error("{path} was written with another byte order (mark {found:#010x})")]
    BadByteOrder {
        /// The file.
        path: PathBuf,
        /// The mark as read here.
        found: u32,
    },
    /// The header's checksum does not match its bytes.
    #[error(
        "{path}: header checksum {found:#010x} does not match its bytes ({computed:#010x}): damaged, remove the page"
    )]
    BadChecksum {
        /// The file.
        path: PathBuf,
        /// Checksum in the file.
        found: u32,
        /// Checksum of its bytes.
        computed: u32,
    },
    /// A header field holds what no writer writes.
    #[error("{path}: header field {field} is {value}: impossible, remove the page")]
    BadHeader {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// Its value; of a text, its place among its kind.
        value: u64,
    },
    /// The file is shorter or longer than it must be.
    #[error(
        "{path} has {found} bytes instead of {expected}: truncated or damaged, remove the page"
    )]
    BadLength {
        /// The file.
        path: PathBuf,
        /// Length of the file.
        found: u64,
        /// Length that it should have.
        expected: u64,
    },
    /// The name is not usable, there is no room, or the system refused something else.
    #[error(transparent)]
    File(RingError),
}

impl From<RingError> for CountersError {
    /// What rings and counters pages have in common, in the words of a counters page.
    fn from(error: RingError) -> Self {
        match error {
            RingError::NotFound { path } => Self::NotFound { path },
            RingError::ProducerAlive { path, pid } => Self::WriterAlive { path, pid },
            RingError::Denied { path, what } => Self::Denied { path, what },
            other => Self::File(other),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_where_and_what_to_do() {
        let path = PathBuf::from("/dev/shm/gapless/orders.ring");
        let text = RingError::ProducerAlive { path: path.clone(), pid: 7 }.to_string();
        assert!(text.contains("orders.ring") && text.contains("pid 7"), "{text}");
        let text = RingError::NoSpace { path, bytes: 4096 }.to_string();
        assert!(text.contains("4096 bytes") && text.contains("remount"), "{text}");
        let text = PublishError::TooLong { len: 10, max: 5 }.to_string();
        assert!(text.contains("10 bytes") && text.contains('5'), "{text}");
    }
}
