//! Going to a point of a log: by names to the segment, by the index to a block near by, from there
//! block by block.

use std::io::ErrorKind;

use super::catalog::{self, SegmentName};
use super::disk::Disk;
use super::error::LogError;
use super::format::{BlockHeader, Kind, SEGMENT_HEADER_BYTES};
use super::index::{self, Key};
use super::reader::{LogReader, Rest, step};
use super::scan::{self, follows};
use super::segment::{Bytes, Segment};
use crate::address::ReadFrom;

/// What was listed may be removed before it is opened: then it is listed again, so often.
pub(super) const TRIES: u32 = 8;

/// Finished segments that are kept open for seeks that come back to them.
const LEFT_MAX: usize = 64;

/// Whether a file was not there that was listed.
pub(super) fn is_gone(error: &LogError) -> bool {
    matches!(error, LogError::System { source, .. } if source.kind() == ErrorKind::NotFound)
}

impl<D: Disk> LogReader<D> {
    /// Goes to another point of the session.
    ///
    /// # Errors
    /// As for [`open`](LogReader::open). The reader is then where it was, or at the beginning of a
    /// segment.
    pub fn seek(&mut self, from: ReadFrom) -> Result<(), LogError> {
        // The next session may have been found, and not been told of yet.
        let found = self.session;
        self.session = self.session();
        let sought = self.seek_in_session(from);
        if self.told.is_some() {
            self.session = found; // it is where it was
        }
        sought
    }

    fn seek_in_session(&mut self, from: ReadFrom) -> Result<(), LogError> {
        for _ in 1..TRIES {
            match self.try_seek(from) {
                Err(error) if is_gone(&error) => {
                    self.names = catalog::list(&self.disk, &self.directory)?;
                }
                other => return other,
            }
        }
        self.try_seek(from)
    }

    fn try_seek(&mut self, from: ReadFrom) -> Result<(), LogError> {
        let mut names = self.session_names();
        // Further than the segments that are known: there may be new ones.
        let known = names.last().map_or(0, |name| name.first_sequence);
        let within = matches!(from, ReadFrom::Sequence(wanted) if wanted < known);
        if !within && from != ReadFrom::Oldest {
            self.names = catalog::list(&self.disk, &self.directory)?;
            names = self.session_names();
        }
        let (Some(&oldest), Some(&newest)) = (names.first(), names.last()) else {
            return Err(LogError::NotFound { directory: self.directory.clone() });
        };
        match from {
            ReadFrom::Oldest => self.enter(oldest),
            ReadFrom::Sequence(wanted) => {
                let behind = names.partition_point(|name| name.first_sequence <= wanted);
                let Some(&name) = behind.checked_sub(1).and_then(|at| names.get(at)) else {
                    let oldest = oldest.first_sequence;
                    return Err(LogError::SequenceGone { wanted, oldest });
                };
                self.enter(name)?;
                self.walk(Key::Sequence(wanted))
            }
            ReadFrom::UnixNs(wanted) => {
                // The last segment that began before: what is looked for is in it or behind it.
                let (mut low, mut high) = (0, names.len());
                while low < high {
                    let middle = low.midpoint(high);
                    match self.created_unix_ns(names[middle])? < wanted {
                        true => low = middle + 1,
                        false => high = middle,
                    }
                }
                self.enter(names[low.saturating_sub(1)])?;
                self.walk(Key::UnixNs(wanted))
            }
            ReadFrom::Now => {
                self.enter(newest)?;
                self.walk(Key::Sequence(u64::MAX))?;
                self.wanted = 0;
                Ok(())
            }
        }
    }

    /// Goes to a message with about `bytes` of log behind it, or to the oldest.
    ///
    /// # Errors
    /// As for [`seek`](Self::seek).
    pub fn seek_back(&mut self, bytes: u64) -> Result<(), LogError> {
        self.seek(ReadFrom::Now)?;
        let mut name = self.segment.name;
        let (mut end, mut left) = (self.segment.offset, bytes);
        let names = self.session_names();
        let newest = name;
        for &before in names.iter().rev().filter(|&&before| before < newest) {
            if left <= end {
                break;
            }
            left -= end;
            self.enter(before)?;
            end = self.segment.length()?;
            name = before;
        }
        self.enter(name)?;
        self.walk(Key::Offset(end.saturating_sub(left)))
    }

    /// When a segment was made. A damaged header says nothing: then the segment may have anything.
    fn created_unix_ns(&mut self, name: SegmentName) -> Result<u64, LogError> {
        if let Some(&created) = self.created.get(&name) {
            return Ok(created);
        }
        let created = self.open_segment(name)?.header.created_unix_ns;
        self.created.insert(name, created);
        Ok(created)
    }

    fn session_names(&self) -> Vec<SegmentName> {
        self.names.iter().copied().filter(|name| name.session == self.session).collect()
    }

    /// Goes to the beginning of a segment.
    pub(super) fn enter(&mut self, name: SegmentName) -> Result<(), LogError> {
        if self.segment.name != name {
            let known = self.left.iter().position(|left| left.name == name);
            let segment = match known {
                Some(at) => self.left.swap_remove(at),
                None => self.open_segment(name)?,
            };
            let before = std::mem::replace(&mut self.segment, segment);
            // One that is finished does not change.
            if matches!(before.bytes, Bytes::Mapped(_)) {
                if self.left.len() == LEFT_MAX {
                    self.left.remove(0);
                }
                self.left.push(before);
            }
        }
        (self.segment.offset, self.segment.done) = (SEGMENT_HEADER_BYTES, false);
        (self.session, self.next_sequence) = (name.session, name.first_sequence);
        (self.rest, self.wanted, self.empty_polls) = (Rest::default(), 0, 0);
        self.told = None;
        Ok(())
    }

    fn open_segment(&self, name: SegmentName) -> Result<Segment<D::File>, LogError> {
        Segment::open(&self.disk, &self.directory, name, Some(&self.segment.header))
    }

    /// Goes on to the block that has what is wanted, or to the end.
    fn walk(&mut self, key: Key) -> Result<(), LogError> {
        if let Key::Sequence(wanted) = key {
            self.wanted = wanted;
        }
        loop {
            let name = self.segment.name;
            let path = name.index_path(&self.directory);
            if let Some(entry) = index::look_up(&self.disk, &path, name, key) {
                let head = BlockHeader::peek(self.segment.head(entry.offset, true)?);
                if head.is_some_and(|head| follows(&head, name.session, entry.sequence)) {
                    (self.segment.offset, self.next_sequence) = (entry.offset, entry.sequence);
                }
            }
            let found = self.walk_segment(key)?;
            // A segment is made when its first block is full: that may begin before.
            let goes_on = |behind: &&SegmentName| behind.session == name.session && **behind > name;
            match (key, self.names.iter().find(goes_on)) {
                (Key::UnixNs(_), Some(&behind)) if !found => self.enter(behind)?,
                _ => return Ok(()),
            }
        }
    }

    /// As [`walk`](Self::walk), within the segment. False if it is not there.
    fn walk_segment(&mut self, key: Key) -> Result<bool, LogError> {
        loop {
            // Where the end is looked for, only a whole block is one. Elsewhere the block that is
            // found is checked when it is read, and those that are passed need not be.
            let next = match key {
                Key::Sequence(u64::MAX) => self.segment.next(self.next_sequence)?,
                _ => self.segment.peek(self.next_sequence)?,
            };
            let Some(block) = next else {
                match self.walk_over_damage(key)? {
                    true => continue,
                    false => return Ok(false),
                }
            };
            let here = match key {
                Key::Sequence(wanted) => block.end_sequence() > wanted,
                Key::UnixNs(wanted) => block.last_ns >= wanted && block.kind != Kind::Seal,
                Key::Offset(wanted) => self.segment.offset >= wanted,
            };
            if let (Key::UnixNs(wanted), true) = (key, here) {
                let late = wanted.saturating_sub(block.first_ns) << 16;
                let passed = late.div_ceil(step(&block).max(1)).min(block.count.into());
                // All at one time, or the last is: it is among them.
                let last = block.end_sequence().saturating_sub(1);
                self.wanted = (block.first_sequence + passed).min(last);
            }
            if here || block.kind == Kind::Seal {
                return Ok(here);
            }
            self.segment.offset += u64::from(block.length);
            self.next_sequence = block.end_sequence();
        }
    }

    /// Passes over damage that is in front of what is wanted. False if it is not, or if there is
    /// nothing behind it.
    #[cold]
    fn walk_over_damage(&mut self, key: Key) -> Result<bool, LogError> {
        let segment = &mut self.segment;
        let last = self.names.last() <= Some(&segment.name);
        if last && !segment.has_something()? {
            return Ok(false);
        }
        let from = segment.offset + 8;
        let found =
            scan::find_block(&segment.file, segment.header.session, from, self.next_sequence);
        let Some((at, block)) = found.map_err(LogError::system("read", &segment.path))? else {
            return Ok(false);
        };
        let in_front = match key {
            Key::Sequence(wanted) => block.first_sequence <= wanted,
            Key::UnixNs(wanted) => block.first_ns < wanted && block.kind != Kind::Seal,
            Key::Offset(wanted) => at < wanted,
        };
        if in_front && segment.next(self.next_sequence)?.is_none() {
            (segment.offset, self.next_sequence) = (at, block.first_sequence);
        }
        Ok(in_front)
    }
}
