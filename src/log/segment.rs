//! A segment that is read: mapped if it is finished, else read into memory piece by piece.

use std::path::{Path, PathBuf};

use gapless_shm::FileMap;

use super::catalog::{SegmentName, read_header};
use super::disk::{Disk, DiskFile};
use super::error::LogError;
use super::format::{BLOCK_HEADER_BYTES, BlockHeader, Kind, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::scan::{self, Window, follows};

/// A segment that is read.
pub(super) struct Segment<F> {
    pub(super) name: SegmentName,
    pub(super) path: PathBuf,
    pub(super) header: SegmentHeader,
    pub(super) file: F,
    pub(super) bytes: Bytes,
    /// Where the next block is.
    pub(super) offset: u64,
    /// Whether the seal was read: the next block is in another segment.
    pub(super) done: bool,
}

/// What is read of it.
pub(super) enum Bytes {
    Mapped(FileMap),
    Read(Window),
}

impl<F: DiskFile> Segment<F> {
    /// Opens a segment. Should its header be unreadable, it is taken to be one of the stream that
    /// `known` is a header of: its blocks say all else.
    pub(super) fn open<D: Disk<File = F>>(
        disk: &D,
        directory: &Path,
        name: SegmentName,
        known: Option<&SegmentHeader>,
    ) -> Result<Self, LogError> {
        let path = name.path(directory);
        let file = disk.open(&path, false).map_err(LogError::system("open", &path))?;
        let header = match (read_header(&file, name, &path), known) {
            (Err(LogError::Header { .. }), Some(known)) => {
                guess(&file, name, known).map_err(LogError::system("read", &path))?
            }
            (header, _) => header?,
        };
        let sealed = is_sealed(&file, &header).map_err(LogError::system("read", &path))?;
        let map = sealed.then(|| file.map()).flatten();
        let bytes = map.map_or_else(|| Bytes::Read(Window::new()), Bytes::Mapped);
        Ok(Self { name, path, header, file, bytes, offset: SEGMENT_HEADER_BYTES, done: false })
    }

    /// The bytes at `offset`, the whole block there if there is one. `fresh`: not from memory.
    #[inline]
    pub(super) fn block(&mut self, offset: u64, fresh: bool) -> Result<&[u8], LogError> {
        match &mut self.bytes {
            Bytes::Mapped(map) => {
                let start = usize::try_from(offset).ok();
                Ok(start.and_then(|start| map.get(start..)).unwrap_or_default())
            }
            Bytes::Read(window) => {
                if fresh {
                    let loaded = window.load(&self.file, offset, BLOCK_HEADER_BYTES);
                    loaded.map_err(LogError::system("read", &self.path))?;
                }
                let block = window.block(&self.file, offset);
                block.map_err(LogError::system("read", &self.path))
            }
        }
    }

    /// The next block, if it is whole.
    pub(super) fn next(&mut self, next_sequence: u64) -> Result<Option<BlockHeader>, LogError> {
        let found = self.check(next_sequence, false)?;
        match self.bytes {
            // What is in memory may be older than what is in the file.
            Bytes::Read(_) if found.is_none() && self.has_something()? => {
                self.check(next_sequence, true)
            }
            _ => Ok(found),
        }
    }

    /// The next block by its header alone.
    pub(super) fn peek(&mut self, next_sequence: u64) -> Result<Option<BlockHeader>, LogError> {
        let session = self.header.session;
        let mut fresh = false;
        loop {
            let block = BlockHeader::peek(self.head(self.offset, fresh)?);
            let block = block.filter(|block| follows(block, session, next_sequence));
            if block.is_some() || fresh || matches!(self.bytes, Bytes::Mapped(_)) {
                return Ok(block);
            }
            fresh = true; // what is in memory may be older than what is in the file
        }
    }

    /// The bytes at `offset`, a block's header if there is one.
    pub(super) fn head(&mut self, offset: u64, fresh: bool) -> Result<&[u8], LogError> {
        if let Bytes::Read(window) = &mut self.bytes
            && (fresh || window.at(offset).len() < BLOCK_HEADER_BYTES)
        {
            let loaded = window.load(&self.file, offset, BLOCK_HEADER_BYTES);
            loaded.map_err(LogError::system("read", &self.path))?;
        }
        Ok(match &self.bytes {
            Bytes::Read(window) => window.at(offset),
            Bytes::Mapped(map) => map.get(offset as usize..).unwrap_or_default(),
        })
    }

    /// Whether the file has anything but zeroes where the next block should be: to ask is much
    /// cheaper than to read on, and most of the time there is nothing.
    pub(super) fn has_something(&self) -> Result<bool, LogError> {
        let mut head = [0; BLOCK_HEADER_BYTES];
        let have = self.file.read_full_at(&mut head, self.offset);
        have.map_err(LogError::system("read", &self.path))?;
        Ok(head.iter().any(|&byte| byte != 0))
    }

    #[inline]
    fn check(&mut self, next_sequence: u64, fresh: bool) -> Result<Option<BlockHeader>, LogError> {
        let session = self.header.session;
        let block = BlockHeader::check(self.block(self.offset, fresh)?);
        Ok(block.filter(|block| follows(block, session, next_sequence)))
    }

    /// Length of the file, bytes.
    pub(super) fn length(&self) -> Result<u64, LogError> {
        let length = self.file.length();
        length.map_err(LogError::system("ask the length of", &self.path))
    }
}

/// The header that a segment must have had.
fn guess<F: DiskFile>(
    file: &F,
    name: SegmentName,
    known: &SegmentHeader,
) -> std::io::Result<SegmentHeader> {
    let first = scan::find_block(file, name.session, SEGMENT_HEADER_BYTES, name.first_sequence)?;
    Ok(SegmentHeader {
        session: name.session,
        first_sequence: name.first_sequence,
        created_unix_ns: first.map_or(known.created_unix_ns, |(_, block)| block.first_ns),
        ..known.clone()
    })
}

/// Whether a segment ends with its seal.
fn is_sealed<F: DiskFile>(file: &F, header: &SegmentHeader) -> std::io::Result<bool> {
    Ok(read_seal(file, header.session)?.is_some())
}

/// The seal that a finished segment ends with: what comes next, and when the last came.
pub(super) fn read_seal<F: DiskFile>(
    file: &F,
    session: u64,
) -> std::io::Result<Option<BlockHeader>> {
    let end = file.length()?;
    let Some(at) = end.checked_sub(BLOCK_HEADER_BYTES as u64) else { return Ok(None) };
    let mut seal = [0; BLOCK_HEADER_BYTES];
    let have = file.read_full_at(&mut seal, at)?;
    let block = BlockHeader::check(&seal[..have]);
    Ok(block.filter(|block| block.kind == Kind::Seal && block.session == session))
}
