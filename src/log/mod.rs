//! The log: a stream on disk, recorded at full speed, replayed from any point.
//!
//! A log is a directory. It has one writer (a [`LogWriter`], which a [`Recorder`] drives from a
//! ring) and any number of readers ([`LogReader`]), in any processes. Message *n* of the stream is
//! message *n* of the log.
//!
//! # Files
//!
//! | file | what |
//! |---|---|
//! | `SESSION-SEQUENCE.log` | a segment: ten characters of session, twenty digits of first sequence |
//! | `SESSION-SEQUENCE.idx` | its index; made again from the segment if it is missing or damaged |
//! | `NAME.reader` | a declared reader, and from where on it still needs the log |
//! | `writer.lock` | locked (`flock`) while the log has a writer |
//! | `sync.failed` | a sync failed: the next writer writes anew what may be lacking |
//! | `*.new` | a file in the making; of no account |
//! | `sync.failed` | a sync failed: the next writer writes anew what the disk may lack |
//!
//! All numbers are little-endian. Checksums are CRC-32C (Castagnoli).
//!
//! **Segment**: a header of 4,096 bytes, then blocks without a hole between them. A finished
//! segment ends with a seal; the one that is written is longer than what is in it, and the rest is
//! zero.
//!
//! | offset | bytes | segment header |
//! |---|---|---|
//! | 0 | 8 | magic `GAPLOG`, 0x1A, 0x0A |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | flags: 1 the writer syncs, 2 messages carry envelopes |
//! | 16 | 8 | session: a number below 36^10 |
//! | 24 | 8 | sequence of the first message |
//! | 32 | 8 | when it was made, ns since the Unix epoch |
//! | 40 | 16 | boot id of the host |
//! | 56 | 8 | zero |
//! | 64 | 128 | name of the stream, UTF-8, zero padded |
//! | 192 | 3,900 | zero |
//! | 4,092 | 4 | checksum of what is in front of it |
//!
//! | offset | bytes | block |
//! |---|---|---|
//! | 0 | 4 | checksum of the rest of the block |
//! | 4 | 4 | magic `GBLK` |
//! | 8 | 4 | length of the block, bytes, these 64 among them; a multiple of 8 |
//! | 12 | 4 | count of messages |
//! | 16 | 8 | sequence of the first message |
//! | 24 | 8 | time of the first message, ns since the Unix epoch |
//! | 32 | 8 | time of the last message |
//! | 40 | 8 | session |
//! | 48 | 4 | kind: 0 records; 1 seal, the last block of a segment; 2 as many messages as the count says are lost, and were never recorded |
//! | 52 | 4 | zero |
//! | 56 | 8 | sequence behind what of the session was known to be durable when this was written |
//! | 64 | | records |
//!
//! The time of a message is the recorder's when it took it; messages between the first and the last
//! of a block are spread evenly between the two. Times never run backwards.
//!
//! | offset | bytes | record |
//! |---|---|---|
//! | 0 | 8 | [commit word](gapless_shm::CommitWord), as in the ring: length, flags, low half of the sequence |
//! | 8 | length | payload, zero padded to a multiple of 8 |
//!
//! | offset | bytes | index |
//! |---|---|---|
//! | 0 | 8 | magic `GAPIDX`, 0x1A, 0x0A |
//! | 8 | 4 | format version, 1 |
//! | 16 | 8 | session |
//! | 24 | 8 | sequence of the segment's first message |
//! | 60 | 4 | checksum of what is in front of it |
//! | 64 + 32 *n* | 8 | entry *n*: sequence of the first message of a block |
//! | +8 | 8 | offset of that block in the segment |
//! | +16 | 8 | time of its first message |
//! | +24 | 4 | checksum of the entry's first 24 bytes |
//! | +28 | 4 | zero |
//!
//! # What survives what
//!
//! | | process killed | host crashed, power lost |
//! |---|---|---|
//! | [flushed](LogWriter::flush) | yes | perhaps |
//! | [durable](LogWriter::durable_sequence) | yes | yes |
//!
//! Opening after a crash finds the torn tail by its checksum, cuts it off exactly there, and says
//! so. A hole in front of what was durable, or that a crash cannot have left, is no torn tail but
//! damage: nothing is cut there. Damage in the middle of a segment is told by readers and by
//! `verify`, by number, and everything outside it stays readable.

use std::path::Path;

use crate::protocol::Session;

mod block;
pub mod bulk;
mod catalog;
mod desk;
mod disk;
mod error;
mod faulty;
mod feed;
mod fetch;
mod finding;
mod format;
mod index;
mod keeper;
mod options;
mod overlap;
mod pace;
mod past;
mod platter;
mod reader;
mod recorder;
mod recovery;
mod replay;
mod retention;
mod rewinder;
mod scan;
mod seek;
mod segment;
mod serve;
mod shelf;
mod survey;
mod syncing;
mod unsynced;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

pub use crate::address::{Pace, PastSource, ReadFrom, Until};
pub use disk::{Disk, DiskFile, FileSystem};
pub use error::LogError;
pub use faulty::{Fault, Faults, FaultyDisk, FaultyFile};
pub use fetch::Fetch;
pub use finding::{Finding, VerifyReport};
pub use format::{BLOCK_HEADER_BYTES, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
pub use options::{LogOptions, Retention, SyncPolicy};
pub use past::Past;
pub use reader::LogReader;
pub use recorder::{Recorder, RecorderCounts, RecorderOptions, WhenSlow};
pub(crate) use replay::Records;
pub use replay::Replay;
pub use retention::Reader;
pub use rewinder::{Rewinder, RewinderCounts, RewinderOptions};
pub use survey::{SegmentInfo, survey};
pub use verify::{rebuild_index, verify, verify_on};
pub use writer::{Cut, LogWriter, Recovery};

/// The declared readers of the log in `directory`, by name.
///
/// # Errors
/// [`LogError::System`] if the directory cannot be read.
pub fn readers(directory: &Path) -> Result<Vec<Reader>, LogError> {
    retention::readers(&FileSystem::default(), directory)
}

/// Takes back what a reader [declared](LogReader::declare): the log may then let go of what it has
/// not read. False if there was no such reader.
///
/// # Errors
/// [`LogError::ReaderName`], [`LogError::System`].
pub fn forget_reader(directory: &Path, name: &str) -> Result<bool, LogError> {
    retention::forget(&FileSystem::default(), directory, name)
}

/// Removes the segments that hold nothing from message `sequence` of `session` on, nor anything
/// that a declared reader still needs, and says how many those were. The newest segment stays.
///
/// # Errors
/// [`LogError::System`].
pub fn trim(directory: &Path, session: Session, sequence: u64) -> Result<usize, LogError> {
    let number = session.number().ok_or(LogError::SessionUnknown { session })?;
    retention::trim(&FileSystem::default(), directory, number, sequence)
}

/// Removes the oldest segments as far as `retention` lets them go at the time `now_unix_ns` (ns
/// since the Unix epoch), but for those that a declared reader still needs, and says how many those
/// were. The newest segment stays.
///
/// # Errors
/// [`LogError::System`].
pub fn retain(directory: &Path, retention: Retention, now_unix_ns: u64) -> Result<usize, LogError> {
    retention::retain(&FileSystem::default(), directory, retention, now_unix_ns)
}

/// Where a log ends: what a writer that opened it would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogEnd {
    /// The newest session.
    pub session: Session,
    /// Sequence of the message that it goes on with.
    pub next_sequence: u64,
    /// Whether its last segment was finished, as a writer does that is closed in order.
    pub is_finished: bool,
}

/// Where the log in `directory` ends. `None` if there is no log, or nothing in it.
///
/// # Errors
/// As for [`LogOptions::open`].
pub fn end(directory: &Path) -> Result<Option<LogEnd>, LogError> {
    let end = recovery::find_end(&FileSystem::default(), directory, false)?;
    Ok(end.map(|end| LogEnd {
        session: Session::from_number(end.name.session),
        next_sequence: end.scanned.next_sequence,
        is_finished: end.scanned.sealed,
    }))
}

/// Whether the log in `directory` has a live writer.
///
/// # Errors
/// [`LogError::System`].
pub fn has_writer(directory: &Path) -> Result<bool, LogError> {
    if directory
        .join(recovery::LOCK)
        .try_exists()
        .map_err(LogError::system("look at", directory))?
    {
        return match recovery::lock(&FileSystem::default(), directory) {
            Ok(_) => Ok(false),
            Err(LogError::WriterAlive { .. }) => Ok(true),
            Err(error) => Err(error),
        };
    }
    Ok(false)
}
