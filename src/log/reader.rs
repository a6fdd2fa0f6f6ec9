//! The reading side: from any point, flat out, following the writer.
//!
//! A segment that is finished is mapped, and messages are slices of it. The one that is still
//! written is read into memory instead: its bytes change, and a mapping would show them half
//! written. A block is checked once, before the first of its messages is handed out.

mod blocks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gapless_shm::Message;

use super::catalog::{self, SegmentName};
use super::disk::{Disk, FileSystem};
use super::error::LogError;
use super::format::{BLOCK_HEADER_BYTES, BlockHeader, Kind, read_record};
use super::retention::Declaration;
use super::scan;
use super::seek::{TRIES, is_gone};
use super::segment::{Bytes, Segment};
use crate::address::ReadFrom;
use crate::protocol::Session;

/// A block that does not become whole in so many polls is looked at for damage.
const SUSPECT_POLLS: u32 = 256;
/// The directory is listed once in so many polls that found nothing.
const LIST_POLLS: u32 = 256;

/// A reader of a log: any number, each at its own pace, in any process that may read the files.
///
/// It reads one session after the other, from the one it began with (the newest, unless told
/// otherwise), and follows the writer: a poll that finds nothing may find something later. What the
/// log does not have is told, by number, in its place.
pub struct LogReader<D: Disk = FileSystem> {
    pub(super) disk: D,
    pub(super) directory: PathBuf,
    pub(super) session: u64,
    pub(super) next_sequence: u64,
    /// Messages below this are passed over.
    pub(super) wanted: u64,
    pub(super) names: Vec<SegmentName>,
    /// When segments were made, as far as that was asked for.
    pub(super) created: BTreeMap<SegmentName, u64>,
    pub(super) segment: Segment<D::File>,
    /// Segments that were left by seeking, and may be come back to.
    pub(super) left: Vec<Segment<D::File>>,
    /// What is left of the block that is read.
    pub(super) rest: Rest,
    pub(super) empty_polls: u32,
    pub(super) told: Option<Told>,
    declaration: Option<Declaration<D::File>>,
}

/// What was found behind messages that were handed out: it is for the next poll to say. Until then
/// the reader is where it was.
pub(super) struct Told {
    error: LogError,
    session: u64,
    next_sequence: u64,
}

/// The records of a block that are still to be handed out: `end` is where it ends in the segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rest {
    at: u64,
    end: u64,
    /// Where the block begins in the segment.
    start: u64,
    /// Time of the next record, ns, and how much later each one is, with 16 bits of fraction.
    time: u64,
    first_ns: u64,
    step: u64,
}

impl Rest {
    fn of(header: &BlockHeader, offset: u64) -> Self {
        Self {
            at: offset + BLOCK_HEADER_BYTES as u64,
            end: offset + u64::from(header.length),
            start: offset,
            time: 0,
            first_ns: header.first_ns,
            step: step(header),
        }
    }
}

/// How much later each record of a block is than the one before, ns, with 16 bits of fraction: what
/// lies between the first and the last is evenly spread.
pub(super) fn step(header: &BlockHeader) -> u64 {
    let span = header.last_ns.saturating_sub(header.first_ns).min(1 << 47);
    (span << 16) / u64::from(header.count.saturating_sub(1).max(1))
}

impl LogReader<FileSystem> {
    /// Opens the newest session of the log in `directory`.
    ///
    /// # Errors
    /// [`LogError::NotFound`] if nothing was ever recorded there; [`LogError::SequenceGone`] if the
    /// log does not go back so far; [`LogError::Version`], [`LogError::Header`],
    /// [`LogError::System`].
    pub fn open(directory: impl Into<PathBuf>, from: ReadFrom) -> Result<Self, LogError> {
        Self::open_on(FileSystem::default(), directory, None, from)
    }

    /// Opens a session of the log in `directory`.
    ///
    /// # Errors
    /// As for [`open`](Self::open), and [`LogError::SessionUnknown`].
    pub fn open_session(
        directory: impl Into<PathBuf>,
        session: Session,
        from: ReadFrom,
    ) -> Result<Self, LogError> {
        let number = session.number().ok_or(LogError::SessionUnknown { session })?;
        Self::open_on(FileSystem::default(), directory, Some(number), from)
    }
}

impl<D: Disk> LogReader<D> {
    /// Opens a session (or the newest) of a log on a disk of the caller's.
    ///
    /// # Errors
    /// As for [`open_session`](LogReader::open_session).
    pub fn open_on(
        disk: D,
        directory: impl Into<PathBuf>,
        session: Option<u64>,
        from: ReadFrom,
    ) -> Result<Self, LogError> {
        let directory = directory.into();
        for _ in 1..TRIES {
            match Self::try_open(&disk, &directory, session, from) {
                Err(error) if is_gone(&error) => {}
                other => return other,
            }
        }
        Self::try_open(&disk, &directory, session, from)
    }

    fn try_open(
        disk: &D,
        directory: &Path,
        session: Option<u64>,
        from: ReadFrom,
    ) -> Result<Self, LogError> {
        let (disk, directory) = (disk.clone(), directory.to_path_buf());
        let names = catalog::list(&disk, &directory)?;
        let newest = names.last().map(|name| name.session);
        let Some(session) = session.or(newest) else {
            return Err(LogError::NotFound { directory });
        };
        let Some(&first) = names.iter().find(|name| name.session == session) else {
            let session = Session::from_number(session);
            return Err(LogError::SessionUnknown { session });
        };
        let open = |name, known| Segment::open(&disk, &directory, name, known);
        let segment = match open(first, None) {
            Err(error @ LogError::Header { .. }) => {
                // Any other segment says what the stream is.
                let other = names.iter().rev().find_map(|&name| open(name, None).ok());
                let Some(other) = other else { return Err(error) };
                open(first, Some(&other.header))
            }
            other => other,
        }?;
        let mut reader = Self {
            disk,
            directory,
            session,
            next_sequence: first.first_sequence,
            wanted: 0,
            names,
            created: BTreeMap::new(),
            segment,
            left: Vec::new(),
            rest: Rest::default(),
            empty_polls: 0,
            told: None,
            declaration: None,
        };
        reader.seek(from)?;
        Ok(reader)
    }

    /// The session that is read.
    pub fn session(&self) -> u64 {
        self.told.as_ref().map_or(self.session, |told| told.session)
    }

    /// Sequence of the next message.
    pub fn next_sequence(&self) -> u64 {
        let here = self.next_sequence.max(self.wanted);
        self.told.as_ref().map_or(here, |told| told.next_sequence)
    }

    /// Name of the stream, as its recorder gave it.
    pub fn name(&self) -> &str {
        &self.segment.header.name
    }

    /// Whether messages carry envelopes, as the recorder said.
    pub fn is_enveloped(&self) -> bool {
        self.segment.header.enveloped
    }

    /// Declares this reader under a name that lasts: what it has not
    /// [committed](Self::commit) is not removed from the log, whether or not it runs. Goes to where
    /// it was when it last committed, and says whether it ever had.
    ///
    /// # Errors
    /// [`LogError::ReaderName`]; [`LogError::System`] if the file cannot be written; what
    /// [`seek`](Self::seek) says if the log is not there any more.
    pub fn declare(&mut self, name: &str) -> Result<bool, LogError> {
        let (declaration, saved) = Declaration::open(&self.disk, &self.directory, name)?;
        if let Some((session, next_sequence)) = saved {
            if !self.names.iter().any(|name| name.session == session) {
                return Err(LogError::SessionUnknown { session: Session::from_number(session) });
            }
            (self.session, self.told) = (session, None);
            self.seek(ReadFrom::Sequence(next_sequence))?;
        }
        self.declaration = Some(declaration);
        self.commit()?;
        Ok(saved.is_some())
    }

    /// Says that everything handed out so far has been dealt with, if this reader is declared.
    ///
    /// # Errors
    /// [`LogError::System`] if it cannot be written.
    pub fn commit(&mut self) -> Result<(), LogError> {
        let next_sequence = self.next_sequence();
        match &self.declaration {
            Some(declaration) => declaration.commit(self.session(), next_sequence),
            None => Ok(()),
        }
    }

    /// Hands up to `limit` messages to `handler`, in order, with the time of each (ns since the
    /// Unix epoch), and returns how many. Never blocks, but for the disk; 0 means that there is
    /// none yet.
    ///
    /// # Errors
    /// Only when nothing was handed over: [`LogError::Damaged`], [`LogError::Missing`],
    /// [`LogError::NewSession`], after each of which the next poll goes on; [`LogError::System`].
    pub fn poll(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(Message<'_>, u64),
    ) -> Result<usize, LogError> {
        self.poll_while(limit, |message, unix_ns| {
            handler(message, unix_ns);
            true
        })
    }

    /// As [`poll`](Self::poll), until `handler` says no to a message: that one comes again.
    ///
    /// # Errors
    /// As for [`poll`](Self::poll).
    pub fn poll_while(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(Message<'_>, u64) -> bool,
    ) -> Result<usize, LogError> {
        if let Some(told) = self.told.take() {
            return Err(told.error);
        }
        let mut handled = 0;
        while handled < limit {
            let (session, next_sequence) = (self.session(), self.next_sequence());
            let goes_on = match self.rest.at < self.rest.end {
                true => self.hand_out(limit, &mut handled, &mut handler),
                false => self.next_block(),
            };
            match goes_on {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if handled == 0 => return Err(error),
                Err(error) => {
                    let next_sequence = match &error {
                        LogError::Damaged { first, .. } | LogError::Missing { first, .. } => *first,
                        _ => next_sequence,
                    };
                    self.told = Some(Told { error, session, next_sequence });
                    break;
                }
            }
        }
        Ok(handled)
    }

    /// Hands out what is left of a block. False if the handler said no.
    #[inline]
    fn hand_out(
        &mut self,
        limit: usize,
        handled: &mut usize,
        handler: &mut impl FnMut(Message<'_>, u64) -> bool,
    ) -> Result<bool, LogError> {
        let mut rest = self.rest;
        let block: &[u8] = match &self.segment.bytes {
            Bytes::Mapped(map) => map.get(rest.at as usize..rest.end as usize),
            Bytes::Read(window) => window.at(rest.at).get(..(rest.end - rest.at) as usize),
        }
        .unwrap_or_default();
        let mut sequence = self.next_sequence;
        let mut bytes = block;
        let mut said_no = false;
        while *handled < limit && !bytes.is_empty() {
            let Some((payload, flags, length)) = read_record(bytes, sequence) else {
                break;
            };
            if sequence >= self.wanted {
                let unix_ns = rest.first_ns + (rest.time >> 16);
                if !handler(Message { sequence, payload, flags }, unix_ns) {
                    said_no = true;
                    break;
                }
                *handled += 1;
            }
            bytes = bytes.get(length..).unwrap_or_default();
            sequence += 1;
            rest.time += rest.step;
        }
        let stuck = *handled < limit && !bytes.is_empty() && !said_no;
        rest.at += (block.len() - bytes.len()) as u64;
        if block.is_empty() || stuck {
            // The checksum was right, the records are not: no writer of ours made that.
            return self.pass_block(sequence);
        }
        (self.rest, self.next_sequence) = (rest, sequence);
        Ok(!said_no)
    }

    /// Gives up the rest of a block whose records are not what its header says.
    #[cold]
    fn pass_block(&mut self, first: u64) -> Result<bool, LogError> {
        let (offset, end) = (self.rest.at, self.rest.end);
        self.rest = Rest::default();
        self.segment.offset = end;
        self.next_sequence = first;
        self.damaged(offset, first)
    }

    /// Goes to the next block. False if there is none yet.
    fn next_block(&mut self) -> Result<bool, LogError> {
        if self.segment.done {
            return self.next_segment();
        }
        let Some(block) = self.segment.next(self.next_sequence)? else { return self.no_block() };
        self.empty_polls = 0;
        let offset = self.segment.offset;
        match block.kind {
            Kind::Records => {
                self.segment.offset += u64::from(block.length);
                self.rest = Rest::of(&block, offset);
            }
            Kind::Lost => {
                let (first, end) = (self.next_sequence(), block.end_sequence());
                self.segment.offset += u64::from(block.length);
                self.next_sequence = end;
                if first < end {
                    return Err(LogError::Missing { first, count: end - first });
                }
            }
            Kind::Seal => self.segment.done = true,
        }
        Ok(true)
    }

    /// What stands at the end is not the next block: it is not there yet, or damaged.
    #[cold]
    fn no_block(&mut self) -> Result<bool, LogError> {
        self.empty_polls = self.empty_polls.saturating_add(1);
        let finished = matches!(self.segment.bytes, Bytes::Mapped(_));
        if !finished && !self.empty_polls.is_multiple_of(SUSPECT_POLLS) {
            return Ok(false);
        }
        if !finished && !self.segment.has_something()? {
            // It may have been finished, and be damaged in front of its seal.
            self.names = catalog::list(&self.disk, &self.directory)?;
            if self.names.last() <= Some(&self.segment.name) {
                return Ok(false);
            }
        }
        let (offset, first) = (self.segment.offset, self.next_sequence);
        self.damaged(offset, first)
    }

    /// Looks behind damage at `offset`, where message `first` should be, for the next good block.
    #[cold]
    fn damaged(&mut self, offset: u64, first: u64) -> Result<bool, LogError> {
        let segment = &mut self.segment;
        let from = segment.offset.max(offset + 8);
        let found = scan::find_block(&segment.file, segment.header.session, from, first);
        let found = found.map_err(LogError::system("read", &segment.path))?;
        let behind = match found {
            Some(_) => None,
            None => {
                self.names = catalog::list(&self.disk, &self.directory)?;
                let behind = self.names.iter().find(|&&name| name > segment.name);
                let Some(&behind) = behind else { return Ok(false) }; // not finished yet
                Some(behind)
            }
        };
        // Something is behind it. What a writer was in the middle of is whole by now.
        if segment.next(self.next_sequence)?.is_some() {
            return Ok(true);
        }
        let next = match (found, behind) {
            (Some((at, block)), _) => {
                segment.offset = at;
                block.first_sequence
            }
            (None, behind) => {
                segment.done = true;
                let same = behind.filter(|behind| behind.session == segment.name.session);
                same.map_or(first.saturating_add(1), |behind| behind.first_sequence)
            }
        };
        let start = first.max(self.wanted);
        self.next_sequence = next;
        if next <= start {
            return Ok(true);
        }
        let (path, count) = (segment.path.clone(), next - start);
        Err(LogError::Damaged { path, first: start, count, offset })
    }

    /// Goes to the segment behind one that was read to its end.
    #[cold]
    fn next_segment(&mut self) -> Result<bool, LogError> {
        self.left.clear(); // what is removed meanwhile should not be kept on the disk
        let here = self.segment.name;
        let expected = SegmentName { session: self.session, first_sequence: self.next_sequence };
        let known = self.names.iter().copied().find(|&name| name > here);
        let next = match known {
            Some(name) => name,
            None => {
                self.empty_polls = self.empty_polls.saturating_add(1);
                let there = self.disk.open(&expected.path(&self.directory), false).is_ok();
                if !there && self.empty_polls % LIST_POLLS != 1 {
                    return Ok(false);
                }
                self.names = catalog::list(&self.disk, &self.directory)?;
                let Some(&name) = self.names.iter().find(|&&name| name > here) else {
                    return Ok(false);
                };
                name
            }
        };
        let (wanted, first) = (self.wanted, self.next_sequence());
        match self.enter(next) {
            // Removed since it was listed.
            Err(error) if is_gone(&error) => {
                self.names.retain(|&name| name != next);
                return Ok(true);
            }
            other => other?,
        }
        if next.session != here.session {
            let session = Session::from_number(next.session);
            return Err(LogError::NewSession { session, next: next.first_sequence });
        }
        self.wanted = wanted;
        if next.first_sequence > first {
            return Err(LogError::Missing { first, count: next.first_sequence - first });
        }
        Ok(true)
    }
}
