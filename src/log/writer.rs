//! The writing side: messages are gathered in a block, blocks are appended to a segment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gapless_shm::{CommitWord, Flags};

use super::block::Block;
use super::catalog::{self, SegmentName};
use super::disk::{Disk, DiskFile, FileSystem};
use super::error::LogError;
use super::format::{BLOCK_HEADER_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::index::IndexWriter;
use super::keeper::{Job, Keeper};
use super::options::{LogOptions, SyncPolicy};
use super::recovery::{self, End};
use super::retention;
use super::syncing::SyncState;
use super::unsynced;
use crate::protocol::Session;

pub use super::recovery::{Cut, Recovery};

/// Largest sequence that a session begins with.
const SEQUENCE_MAX: u64 = 1 << 62;
/// Bytes that must be left in a segment for its seal.
const SEAL_BYTES: u64 = BLOCK_HEADER_BYTES as u64;
/// The name of a file that will be the next segment.
pub(super) const PREPARED: &str = "next.new";

/// The one writer of a log.
///
/// Messages are [appended](Self::append) to a block in memory and are in the log when the block is
/// [flushed](Self::flush): after each burst, or sooner when it is full. From then on a crash of
/// this process does not lose them. [`tick`](Self::tick) does what time demands: syncs, by the
/// policy of the [options](LogOptions).
///
/// Times are nanoseconds since the Unix epoch, given by the caller; one that is earlier than the
/// last is taken for the last, so that times in a log never run backwards.
pub struct LogWriter<D: Disk = FileSystem> {
    pub(super) disk: D,
    pub(super) directory: PathBuf,
    pub(super) options: LogOptions,
    pub(super) keeper: Keeper<D>,
    pub(super) boot: [u8; 16],
    pub(super) stream: Option<Stream>,
    pub(super) segment: Option<Segment<D::File>>,
    /// A file for the next segment: its path when it is ready.
    pub(super) prepared: Prepared<D::File>,
    pub(super) block: Block,
    pub(super) last_ns: u64,
    pub(super) sync: SyncState,
    /// Met in the background; told by the next call.
    pub(super) failed: Option<LogError>,
    /// Held for as long as the log is written.
    _lock: D::File,
}

/// What the log is in the middle of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) session: u64,
    /// Sequence of the next message to be appended.
    pub(super) next_sequence: u64,
    /// Sequence behind what has been written.
    pub(super) written_end: u64,
    /// Sequence from which on nothing is lost, as far back as is known.
    pub(super) whole_from: u64,
}

/// The segment that is written.
pub(super) struct Segment<F> {
    pub(super) name: SegmentName,
    pub(super) path: PathBuf,
    pub(super) file: Arc<F>,
    pub(super) index: IndexWriter<F>,
    pub(super) created_ns: u64,
    /// Where the next block goes.
    pub(super) end: u64,
    pub(super) capacity: u64,
}

/// A file for the next segment.
pub(super) enum Prepared<F> {
    No,
    Asked,
    /// There was no room: it is asked for again when the next segment is written.
    Refused,
    Ready(PathBuf, F),
}

impl<D: Disk> LogWriter<D> {
    pub(crate) fn open(
        disk: D,
        directory: PathBuf,
        options: LogOptions,
    ) -> Result<(Self, Option<Recovery>), LogError> {
        disk.create_directory(&directory).map_err(LogError::system("make", &directory))?;
        let lock = recovery::lock(&disk, &directory)?;
        recovery::remove_unfinished(&disk, &directory)?;
        let end = recovery::find_end(&disk, &directory, true)?;
        let keeper = match options.in_line {
            true => Keeper::in_line(disk.clone()),
            false => Keeper::thread(disk.clone())
                .map_err(LogError::system("start a thread for", &directory))?,
        };
        let mut writer = Self {
            boot: disk.boot_id(),
            block: Block::new(options.block_bytes),
            disk,
            directory,
            options,
            keeper,
            stream: None,
            segment: None,
            prepared: Prepared::No,
            last_ns: 0,
            sync: SyncState::default(),
            failed: None,
            _lock: lock,
        };
        let recovery = match end {
            Some(end) => Some(writer.resume(end)?),
            None => recovery::clear(&writer.disk, &writer.directory).map(|()| None)?,
        };
        Ok((writer, recovery))
    }

    /// Goes on where an earlier writer ended.
    fn resume(&mut self, end: End<D::File>) -> Result<Recovery, LogError> {
        let cut = recovery::cut(&self.disk, &self.directory, &end, &self.options)?;
        let names = catalog::list(&self.disk, &self.directory)?;
        // What is there was written, but nobody knows whether it was synced.
        let unsynced = unsynced::find(&self.disk, &self.directory, &names)?;
        unsynced::write_anew(&self.disk, &self.directory, &unsynced)?;
        (self.sync.earlier, self.sync.names) = (unsynced, true);
        let End { name, header, file, scanned, entries, .. } = end;
        let path = name.path(&self.directory);
        let failed = |what| LogError::system(what, &path);
        self.last_ns = scanned.last_ns;
        let next = scanned.next_sequence;
        self.stream = Some(Stream {
            session: name.session,
            next_sequence: next,
            written_end: next,
            whole_from: scanned.whole_from,
        });
        let recovery = Recovery {
            session: name.session,
            next_sequence: next,
            last_unix_ns: scanned.last_ns,
            cut,
        };
        if !scanned.sealed {
            let path = name.index_path(&self.directory);
            let mut index = IndexWriter::create(&self.disk, &path, name);
            index.note_all(&entries);
            let capacity = file.length().map_err(failed("ask the length of"))?;
            self.segment = Some(Segment {
                file: Arc::new(file),
                index,
                created_ns: header.created_unix_ns,
                end: scanned.end,
                capacity,
                name,
                path: name.path(&self.directory),
            });
        }
        if self.options.sync != SyncPolicy::None {
            self.submit_sync(next);
        }
        Ok(recovery)
    }

    /// The session, and the sequence of the message that comes next; `None` before the first
    /// [`begin`](Self::begin).
    pub fn position(&self) -> Option<(u64, u64)> {
        self.stream.map(|stream| (stream.session, stream.next_sequence))
    }

    /// Sequence of the last message that is in the log: it survives the death of this process. 0 if
    /// there is none.
    pub fn written_sequence(&self) -> u64 {
        self.stream.map_or(0, |stream| stream.written_end.saturating_sub(1))
    }

    /// Sequence of the last message that survives a crash of the host, 0 if there is none. With
    /// [`SyncPolicy::None`] only an explicit [`sync`](Self::sync) moves it on.
    pub fn durable_sequence(&self) -> u64 {
        self.sync.durable_end.saturating_sub(1)
    }

    /// Sequence from which on the log has every message, as far back as this writer knows: since it
    /// was opened, and in the segment that it goes on with. 0 before the first
    /// [`begin`](Self::begin).
    pub fn whole_from(&self) -> u64 {
        self.stream.map_or(0, |stream| stream.whole_from)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// How it was opened.
    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    /// Begins a session, or goes on with it if the log is exactly there.
    ///
    /// # Errors
    /// [`LogError::OutOfTurn`] if the log has this session, and is elsewhere;
    /// [`LogError::OldSession`] if it has a later one; [`LogError::Option`] if `next_sequence` is
    /// more than 2^62; what [`flush`](Self::flush) says.
    pub fn begin(&mut self, session: u64, next_sequence: u64) -> Result<(), LogError> {
        if next_sequence > SEQUENCE_MAX {
            let expected = "at most 2^62, as in a ring";
            return Err(LogError::Option { option: "sequence", value: next_sequence, expected });
        }
        if let Some(stream) = self.stream {
            if stream.session == session && stream.next_sequence == next_sequence {
                return Ok(());
            }
            if stream.session == session {
                let expected = stream.next_sequence;
                return Err(LogError::OutOfTurn { expected, found: next_sequence });
            }
            if stream.session > session {
                let (offered, current) =
                    (Session::from_number(session), Session::from_number(stream.session));
                return Err(LogError::OldSession { offered, current });
            }
            self.flush()?;
            self.seal()?;
            self.wait_for_syncs()?; // what they say is about the session before
        }
        let (written_end, whole_from) = (next_sequence, next_sequence);
        self.stream = Some(Stream { session, next_sequence, written_end, whole_from });
        (self.sync.durable_end, self.sync.asked_end) = (0, next_sequence);
        Ok(())
    }

    /// Appends a message to the block in memory, which is flushed first if it has no room.
    ///
    /// # Errors
    /// [`LogError::OutOfTurn`], [`LogError::TooLong`], and what [`flush`](Self::flush) says: the
    /// message was then not taken, and may be offered again.
    #[inline]
    pub fn append(
        &mut self,
        sequence: u64,
        payload: &[u8],
        flags: Flags,
        unix_ns: u64,
    ) -> Result<(), LogError> {
        let stream = self.stream.as_mut();
        let Some(stream) = stream.filter(|stream| stream.next_sequence == sequence) else {
            return Err(self.out_of_turn(sequence));
        };
        if self.block.push(sequence, payload, flags) {
            stream.next_sequence += 1;
            self.last_ns = self.last_ns.max(unix_ns);
            return Ok(());
        }
        self.append_first(sequence, payload, flags, unix_ns)
    }

    /// Appends the first message of a block.
    fn append_first(
        &mut self,
        sequence: u64,
        payload: &[u8],
        flags: Flags,
        unix_ns: u64,
    ) -> Result<(), LogError> {
        if payload.len() >= CommitWord::LENGTH_END {
            let max = CommitWord::LENGTH_END - 1;
            return Err(LogError::TooLong { len: payload.len(), max });
        }
        self.flush()?;
        self.last_ns = self.last_ns.max(unix_ns);
        self.block.begin(sequence, payload, flags, self.last_ns);
        if let Some(stream) = &mut self.stream {
            stream.next_sequence = sequence + 1;
        }
        Ok(())
    }

    /// Puts on record that `count` messages from the next one on are lost.
    ///
    /// # Errors
    /// [`LogError::Option`] if `count` is more than 2^62, [`LogError::OutOfTurn`] before the first
    /// [`begin`](Self::begin). What [`flush`](Self::flush) says; then nothing was put on record,
    /// and the call is to be made again with what [`position`](Self::position) still lacks.
    pub fn append_lost(&mut self, count: u64, unix_ns: u64) -> Result<(), LogError> {
        let mut left = count;
        if count > SEQUENCE_MAX {
            let expected = "at most 2^62, as in a ring";
            return Err(LogError::Option { option: "count", value: count, expected });
        }
        while left > 0 {
            self.flush()?;
            let Some(stream) = &mut self.stream else { return Err(self.out_of_turn(0)) };
            self.last_ns = self.last_ns.max(unix_ns);
            let now = u32::try_from(left).unwrap_or(u32::MAX);
            self.block.say_lost(stream.next_sequence, now, self.last_ns);
            stream.next_sequence = stream.next_sequence.saturating_add(now.into());
            stream.whole_from = stream.next_sequence;
            left -= u64::from(now);
        }
        self.flush()
    }

    #[cold]
    fn out_of_turn(&self, found: u64) -> LogError {
        let expected = self.stream.map_or(0, |stream| stream.next_sequence);
        LogError::OutOfTurn { expected, found }
    }

    /// Whether a message of `len` bytes goes with what waits in memory, or that has to be written
    /// first.
    #[inline]
    pub fn takes(&self, len: usize) -> bool {
        self.block.takes(len)
    }

    /// Whether messages wait in memory.
    pub fn has_unwritten(&self) -> bool {
        !self.block.is_empty()
    }

    /// Writes the block in memory.
    ///
    /// # Errors
    /// [`LogError::NoRoom`], [`LogError::System`]: the block is kept, and the next call tries
    /// again. [`LogError::SyncFailed`] ends the writer.
    #[inline]
    pub fn flush(&mut self) -> Result<(), LogError> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.write_block()
    }

    fn write_block(&mut self) -> Result<(), LogError> {
        let Some(stream) = self.stream else { return Ok(()) };
        self.fail()?;
        let length = self.block.length() as u64;
        let mut segment = self.segment_for(length)?;
        let (header, block) =
            self.block.finish(stream.session, self.last_ns, self.sync.durable_end);
        let is_new = segment.end == SEGMENT_HEADER_BYTES;
        let written = segment.file.write_all_at(block, segment.end);
        if written.is_ok() {
            segment.index.note(segment.end, &header);
            segment.end += length;
            self.block.clear();
            self.stream = Some(Stream { written_end: header.end_sequence(), ..stream });
        }
        let path = segment.path.clone();
        self.segment = Some(segment);
        if is_new && written.is_ok() {
            let _ = self.retain(); // tried again with the next segment
        }
        written.map_err(LogError::system("write", path))
    }

    /// Takes out the segment to write `length` bytes to; the caller puts it back.
    fn segment_for(&mut self, length: u64) -> Result<Segment<D::File>, LogError> {
        let age = self.options.segment_age.map(|age| age.as_nanos() as u64);
        let fits = |segment: &mut Segment<D::File>| {
            let old = age.is_some_and(|age| self.last_ns.saturating_sub(segment.created_ns) > age);
            segment.end + length + SEAL_BYTES <= segment.capacity && !old
        };
        if let Some(segment) = self.segment.take_if(fits) {
            return Ok(segment);
        }
        // One with nothing in it has the name that the next one would have: it is stretched.
        if let Some(segment) = &mut self.segment
            && segment.end == SEGMENT_HEADER_BYTES
        {
            let capacity = segment.capacity.max(segment.end + length + SEAL_BYTES);
            let stretched = segment.file.allocate(capacity);
            stretched.map_err(LogError::system("lengthen", &segment.path))?;
            segment.capacity = capacity;
        } else {
            self.seal()?;
        }
        match self.segment.take() {
            Some(segment) => Ok(segment),
            None => self.create(length),
        }
    }

    /// Finishes the segment that is written, if there is one.
    fn seal(&mut self) -> Result<(), LogError> {
        let Some((segment, stream)) = self.segment.as_ref().zip(self.stream) else { return Ok(()) };
        let seal =
            recovery::seal(stream.session, stream.written_end, self.last_ns, self.sync.durable_end);
        let path = segment.path.clone();
        segment.file.write_all_at(&seal, segment.end).map_err(LogError::system("write", &path))?;
        let Some(segment) = self.segment.take() else { return Ok(()) };
        let length = segment.end + SEAL_BYTES;
        let sync = self.options.sync != SyncPolicy::None;
        let (file, index) = (segment.file, segment.index.finish());
        self.keeper.submit(Job::Finish { file, path, length, index, sync });
        match sync {
            true => {
                // The third segment waits for the first: recovery relies on it.
                self.wait_for_syncs()?;
                self.submit_sync(stream.written_end);
            }
            false => self.sync.earlier.push(segment.name),
        }
        Ok(())
    }

    /// Makes the next segment, with room for a block of `length` at least.
    fn create(&mut self, length: u64) -> Result<Segment<D::File>, LogError> {
        let (session, first_sequence) = match self.stream {
            Some(stream) => (stream.session, stream.written_end),
            None => (0, 0), // never: a block has a stream
        };
        let name = SegmentName { session, first_sequence };
        let path = name.path(&self.directory);
        let capacity = self.options.segment_bytes.max(SEGMENT_HEADER_BYTES + length + SEAL_BYTES);
        let prepared = match &self.prepared {
            // One that is still being made stays asked for: its name is in use.
            Prepared::Ready(..) if capacity == self.options.segment_bytes => {
                std::mem::replace(&mut self.prepared, Prepared::No)
            }
            Prepared::Refused => std::mem::replace(&mut self.prepared, Prepared::No),
            _ => Prepared::No,
        };
        let (new, file) = match prepared {
            Prepared::Ready(path, file) => (path, file),
            _ => {
                let new = self.directory.join(format!("{first_sequence}.new"));
                let file = self.disk.create(&new).map_err(LogError::system("make", &new))?;
                (new, file)
            }
        };
        let made = self.make(&file, name, capacity);
        if let Err(error) = made.and_then(|()| self.disk.rename(&new, &path)) {
            let _ = self.disk.remove(&new); // it is made anew
            return Err(LogError::system("make", &path)(error));
        }
        let index = IndexWriter::create(&self.disk, &name.index_path(&self.directory), name);
        self.sync.names = true;
        let (file, end) = (Arc::new(file), SEGMENT_HEADER_BYTES);
        Ok(Segment { name, path, file, index, created_ns: self.last_ns, end, capacity })
    }

    fn make(&self, file: &D::File, name: SegmentName, capacity: u64) -> std::io::Result<()> {
        file.allocate(capacity)?;
        let header = SegmentHeader {
            session: name.session,
            first_sequence: name.first_sequence,
            created_unix_ns: self.last_ns,
            boot: self.boot,
            synced: self.options.sync != SyncPolicy::None,
            enveloped: self.options.enveloped,
            name: self.options.name.clone(),
        };
        file.write_all_at(&header.encode(), 0)
    }

    /// Flushes, makes everything durable and finishes the segment: for a stream that has ended.
    ///
    /// # Errors
    /// As for [`sync`](Self::sync).
    pub fn close(mut self) -> Result<(), LogError> {
        self.sync()?;
        self.seal()?;
        self.sync()
    }

    /// Removes segments by the retention of the options, and says how many.
    ///
    /// # Errors
    /// [`LogError::System`] if the directory, or a reader's declaration, cannot be read.
    pub fn retain(&mut self) -> Result<usize, LogError> {
        let (disk, directory) = (&self.disk, &self.directory);
        let removal = retention::removable(disk, directory, self.options.retention, self.last_ns)?;
        let Some(removal) = removal else { return Ok(0) };
        let segments = removal.go.len();
        let directory = directory.clone();
        self.keeper.submit(Job::Remove { directory, removal });
        Ok(segments)
    }
}

impl<D: Disk> Drop for LogWriter<D> {
    /// Writes what is in memory, if that can be done.
    fn drop(&mut self) {
        let _ = self.flush(); // nobody is left to be told
        if let Some(segment) = &mut self.segment {
            segment.index.flush();
        }
        if let Prepared::Ready(path, _) = &self.prepared {
            let _ = self.disk.remove(path); // the next writer would
        }
    }
}
