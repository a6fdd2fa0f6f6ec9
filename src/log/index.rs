//! The index beside a segment: where in it a sequence, or a time, is to be found.
//!
//! One entry for each 64 KiB of log or so, at the start of a block. It is a help, not a truth: what
//! it says is checked against the block it points to, and one that is missing, short or damaged is
//! made again from the segment.

use std::path::Path;

use super::catalog::SegmentName;
use super::disk::{Disk, DiskFile};
use super::format::{BlockHeader, INDEX_ENTRY_BYTES, INDEX_HEADER_BYTES, IndexEntry, index_header};

/// Bytes of log between two entries, at least.
pub(crate) const INTERVAL_BYTES: u64 = 64 << 10;
/// Entries gathered before they are written.
const GATHERED: usize = 16;
/// Longest index that is read, bytes: 128 GiB of segment.
const READ_BYTES_MAX: u64 = 64 << 20;

/// The writing side.
pub(crate) struct IndexWriter<F> {
    /// `None` once it could not be written: then there is none from there on.
    file: Option<F>,
    end: u64,
    gathered: Vec<u8>,
    spacing: Spacing,
}

/// Which blocks get an entry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spacing {
    /// Where the next entry is due.
    due: u64,
}

impl Spacing {
    /// The entry of a block at `offset`, if one is due there.
    #[inline]
    pub(crate) fn entry(&mut self, offset: u64, block: &BlockHeader) -> Option<IndexEntry> {
        if offset < self.due {
            return None;
        }
        self.due = offset + INTERVAL_BYTES;
        let (sequence, first_ns) = (block.first_sequence, block.first_ns);
        Some(IndexEntry { sequence, offset, first_ns })
    }
}

impl<F: DiskFile> IndexWriter<F> {
    /// Starts the index of a segment anew.
    pub(crate) fn create<D: Disk<File = F>>(disk: &D, path: &Path, name: SegmentName) -> Self {
        let header = index_header(name.session, name.first_sequence);
        let file = disk.create(path).ok();
        let file = file.filter(|file| file.write_all_at(&header, 0).is_ok());
        Self {
            file,
            end: INDEX_HEADER_BYTES as u64,
            gathered: Vec::new(),
            spacing: Spacing::default(),
        }
    }

    /// Begins with the blocks that a walk has met, every one that was [due](Spacing).
    pub(crate) fn note_all(&mut self, entries: &[IndexEntry]) {
        for entry in entries {
            self.gathered.extend(entry.encode());
            self.spacing.due = entry.offset + INTERVAL_BYTES;
        }
        self.flush();
    }

    /// Takes note of a block at `offset`.
    #[inline]
    pub(crate) fn note(&mut self, offset: u64, block: &BlockHeader) {
        let Some(entry) = self.spacing.entry(offset, block) else { return };
        self.gathered.extend(entry.encode());
        if self.gathered.len() >= GATHERED * INDEX_ENTRY_BYTES {
            self.flush();
        }
    }

    /// Writes what was gathered.
    pub(crate) fn flush(&mut self) {
        if let Some(file) = &self.file {
            if file.write_all_at(&self.gathered, self.end).is_err() {
                self.file = None;
            }
            self.end += self.gathered.len() as u64;
        }
        self.gathered.clear();
    }

    /// The file, when it is finished.
    pub(crate) fn finish(mut self) -> Option<F> {
        self.flush();
        self.file
    }
}

/// What is looked up.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Key {
    Sequence(u64),
    UnixNs(u64),
    /// Offset in the segment.
    Offset(u64),
}

impl Key {
    fn reaches(self, entry: &IndexEntry) -> bool {
        match self {
            Self::Sequence(wanted) => entry.sequence <= wanted,
            // Several blocks may have one time: the first of them is wanted.
            Self::UnixNs(wanted) => entry.first_ns < wanted,
            Self::Offset(wanted) => entry.offset <= wanted,
        }
    }
}

/// Looks a key up without reading more of an index than it takes. Where there is none, or where it
/// is damaged, what the rest of it says, or nothing.
pub(crate) fn look_up<D: Disk>(
    disk: &D,
    path: &Path,
    name: SegmentName,
    key: Key,
) -> Option<IndexEntry> {
    let file = disk.open(path, false).ok()?;
    let mut header = [0; INDEX_HEADER_BYTES];
    let have = file.read_full_at(&mut header, 0).ok()?;
    if have < header.len() || header != index_header(name.session, name.first_sequence) {
        return None;
    }
    let bytes = file.length().ok()?.min(READ_BYTES_MAX) - INDEX_HEADER_BYTES as u64;
    let (mut low, mut high) = (0, bytes / INDEX_ENTRY_BYTES as u64);
    let mut found = None;
    while low < high {
        let middle = low.midpoint(high);
        let at = INDEX_HEADER_BYTES as u64 + middle * INDEX_ENTRY_BYTES as u64;
        let mut entry = [0; INDEX_ENTRY_BYTES];
        let have = file.read_full_at(&mut entry, at).ok()?;
        let entry = IndexEntry::decode(&entry).filter(|_| have == INDEX_ENTRY_BYTES);
        let Some(entry) = entry else { return Index::read(disk, path, name).find(key) };
        if key.reaches(&entry) {
            found = Some(entry);
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    found
}

/// The index of a segment, read.
pub(crate) struct Index {
    bytes: Vec<u8>,
}

impl Index {
    /// Reads an index, or nothing where there is none.
    pub(crate) fn read<D: Disk>(disk: &D, path: &Path, name: SegmentName) -> Self {
        let read = || {
            let file = disk.open(path, false).ok()?;
            let length = file.length().ok()?.min(READ_BYTES_MAX);
            let mut bytes = vec![0; usize::try_from(length).ok()?];
            let have = file.read_full_at(&mut bytes, 0).ok()?;
            bytes.truncate(have);
            let expected = index_header(name.session, name.first_sequence);
            (bytes.get(..INDEX_HEADER_BYTES)? == expected).then_some(bytes)
        };
        Self { bytes: read().unwrap_or_default() }
    }

    /// Whether it was there, with a header that fits its segment.
    pub(crate) fn is_there(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Bytes behind the last whole entry.
    pub(crate) fn bytes_over(&self) -> usize {
        self.bytes.len().saturating_sub(INDEX_HEADER_BYTES) % INDEX_ENTRY_BYTES
    }

    pub(crate) fn entries(&self) -> &[[u8; INDEX_ENTRY_BYTES]] {
        self.bytes.get(INDEX_HEADER_BYTES..).unwrap_or_default().as_chunks().0
    }

    /// The last entry at or before what is looked up. It may be wrong: ask the block.
    pub(crate) fn find(&self, key: Key) -> Option<IndexEntry> {
        let entries = self.entries();
        let mut damaged = false;
        let behind = entries.partition_point(|entry| match IndexEntry::decode(entry) {
            Some(entry) => key.reaches(&entry),
            None => {
                damaged = true;
                false
            }
        });
        if damaged {
            let mut sound = entries.iter().filter_map(IndexEntry::decode);
            return sound.rfind(|entry| key.reaches(entry));
        }
        IndexEntry::decode(entries.get(behind.checked_sub(1)?)?)
    }
}
