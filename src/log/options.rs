//! How a log is written.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::disk::{Disk, FileSystem};
use super::error::LogError;
use super::format::NAME_BYTES;
use super::writer::{LogWriter, Recovery};

const SEGMENT_BYTES: RangeInclusive<u64> = (64 << 10)..=(64 << 30);
const BLOCK_BYTES: RangeInclusive<usize> = (4 << 10)..=(8 << 20);

/// When what was written is made to last through a crash of the host. A crash of the process alone
/// loses nothing that was written, whatever this says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// When the system sees fit, usually within 30 s. Nothing counts as durable but by an explicit
    /// [`LogWriter::sync`].
    #[default]
    None,
    /// At least this often while anything is written.
    Every(Duration),
    /// As soon as it is written; what comes meanwhile goes with the next one.
    Batch,
}

/// What is kept. Segments go as a whole, the oldest first, never the one that is written, and never
/// one that a declared reader has not passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Keep about this many bytes; `None`: all.
    pub bytes: Option<u64>,
    /// Keep what is younger than this; `None`: all.
    pub age: Option<Duration>,
}

/// How a log is written.
///
/// | option | default | range |
/// |---|---|---|
/// | `segment_bytes` | 256 MiB | 64 KiB … 64 GiB |
/// | `segment_age` | none | any: one that is older is finished when the next block is written |
/// | `block_bytes` | 256 KiB | 4 KiB … 8 MiB |
/// | `sync` | [`SyncPolicy::None`] | |
/// | `retention` | keep all | |
/// | `in_line` | no: syncs and removals are made on a thread of their own | |
/// | `name` | none | up to 128 bytes: the stream's name, shown by tools |
/// | `enveloped` | no | whether messages carry envelopes |
///
/// ```
/// use gapless::log::{LogOptions, LogReader, ReadFrom};
/// # let dir = tempfile::tempdir()?;
/// # let directory = dir.path().join("log");
/// let (mut log, recovery) = LogOptions::new().segment_bytes(1 << 20).open(&directory)?;
/// assert!(recovery.is_none()); // it is new
/// log.begin(35, 1)?; // session 35, from message 1 on
/// log.append(1, b"buy 100 SBER", gapless::Flags::WHOLE, 1_700_000_000_000_000_000)?;
/// log.flush()?;
///
/// let mut reader = LogReader::open(&directory, ReadFrom::Oldest)?;
/// reader.poll(64, |message, _time| assert_eq!(message.payload, b"buy 100 SBER"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    pub(crate) segment_bytes: u64,
    pub(crate) segment_age: Option<Duration>,
    pub(crate) block_bytes: usize,
    pub(crate) sync: SyncPolicy,
    pub(crate) retention: Retention,
    pub(crate) in_line: bool,
    pub(crate) name: String,
    pub(crate) enveloped: bool,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 256 << 20,
            segment_age: None,
            block_bytes: 256 << 10,
            sync: SyncPolicy::None,
            retention: Retention::default(),
            in_line: false,
            name: String::new(),
            enveloped: false,
        }
    }
}

impl LogOptions {
    /// The defaults of the table above.
    pub fn new() -> Self {
        Self::default()
    }

    /// Size of a segment, bytes. A message that needs more gets a segment of its own.
    #[must_use]
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// Age at which a segment is finished, although there is room. It is when the next block is
    /// written: while nothing comes, the segment stays unfinished, and is kept, however old.
    #[must_use]
    pub fn segment_age(mut self, age: Duration) -> Self {
        self.segment_age = Some(age);
        self
    }

    /// Most that is gathered before it is written, bytes. A message that needs more gets a block of
    /// its own.
    #[must_use]
    pub fn block_bytes(mut self, bytes: usize) -> Self {
        self.block_bytes = bytes;
        self
    }

    /// When what was written is made durable.
    #[must_use]
    pub fn sync(mut self, policy: SyncPolicy) -> Self {
        self.sync = policy;
        self
    }

    /// What is kept.
    #[must_use]
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Whether syncs, finishing and removals are made by the caller's own thread, which then waits
    /// for the disk.
    #[must_use]
    pub fn in_line(mut self, in_line: bool) -> Self {
        self.in_line = in_line;
        self
    }

    /// The stream's name; the first 128 bytes are kept.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        let mut end = self.name.len().min(NAME_BYTES);
        while !self.name.is_char_boundary(end) {
            end -= 1;
        }
        self.name.truncate(end);
        self
    }

    /// Whether messages carry an [`Envelope`](crate::protocol::Envelope).
    #[must_use]
    pub fn enveloped(mut self, enveloped: bool) -> Self {
        self.enveloped = enveloped;
        self
    }

    /// Opens the log in `directory` for writing, making it if there is none, and says what an
    /// earlier writer left.
    ///
    /// A writer that ended in the middle of a block, or with a host that crashed, has left a torn
    /// tail: it is found by its checksum, cut off exactly there, and reported.
    ///
    /// # Errors
    /// [`LogError::WriterAlive`], [`LogError::Option`], [`LogError::Version`],
    /// [`LogError::NoRoom`], [`LogError::System`].
    pub fn open(
        &self,
        directory: impl Into<PathBuf>,
    ) -> Result<(LogWriter, Option<Recovery>), LogError> {
        self.open_on(FileSystem::default(), directory)
    }

    /// As [`open`](Self::open), on a disk of the caller's.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_on<D: Disk>(
        &self,
        disk: D,
        directory: impl Into<PathBuf>,
    ) -> Result<(LogWriter<D>, Option<Recovery>), LogError> {
        let wrong = |option, value, expected| Err(LogError::Option { option, value, expected });
        if !SEGMENT_BYTES.contains(&self.segment_bytes) {
            return wrong("segment_bytes", self.segment_bytes, "64 KiB to 64 GiB");
        }
        if !BLOCK_BYTES.contains(&self.block_bytes) {
            return wrong("block_bytes", self.block_bytes as u64, "4 KiB to 8 MiB");
        }
        LogWriter::open(disk, directory.into(), self.clone())
    }
}
