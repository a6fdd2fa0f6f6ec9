//! Walking the blocks of a segment by their checksums.

use std::io;

use super::disk::DiskFile;
use super::format::{
    BLOCK_BYTES_MAX, BLOCK_HEADER_BYTES, BLOCK_MAGIC, BlockHeader, Kind, SEGMENT_HEADER_BYTES,
    SegmentHeader, read_record,
};

/// Bytes read at a time, at most, but for a block that is longer.
const READ_BYTES: usize = 1 << 20;
/// Bytes read at first, and at the end of a log that is followed: there is not more.
const READ_LEAST_BYTES: usize = 16 << 10;

/// Where a walk came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Behind the last good block, bytes.
    pub(crate) end: u64,
    /// Sequence behind the last good block.
    pub(crate) next_sequence: u64,
    /// Sequence from which on nothing is on record as lost.
    pub(crate) whole_from: u64,
    /// Time of the last message.
    pub(crate) last_ns: u64,
    /// Whether the last block was a seal.
    pub(crate) sealed: bool,
    /// Whether something other than zeroes stands where the next block's header would.
    pub(crate) torn: bool,
}

/// A part of a file, in memory.
pub(crate) struct Window {
    bytes: Vec<u8>,
    have: usize,
    base: u64,
    /// Bytes of the next read: more, the more of the last one was of use.
    reach: usize,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), have: 0, base: 0, reach: READ_LEAST_BYTES }
    }

    /// What is in memory from `offset` on.
    #[inline]
    pub(crate) fn at(&self, offset: u64) -> &[u8] {
        let start = offset.checked_sub(self.base).and_then(|start| usize::try_from(start).ok());
        start.and_then(|start| self.bytes.get(start..self.have)).unwrap_or_default()
    }

    /// Reads at least `least` bytes from `offset` on into memory, if the file has them; more, if
    /// that is cheap.
    pub(crate) fn load<F: DiskFile>(
        &mut self,
        file: &F,
        offset: u64,
        least: usize,
    ) -> io::Result<()> {
        let used = offset.saturating_sub(self.base);
        let have = self.have as u64;
        if used >= have / 2 && used <= have && have > 0 {
            self.reach = (self.reach * 2).min(READ_BYTES);
        } else if used < have / 8 {
            self.reach = (self.reach / 2).max(READ_LEAST_BYTES);
        }
        let want = least.max(self.reach);
        if self.bytes.len() < want {
            self.bytes.resize(want, 0);
        }
        self.have = 0;
        self.have = file.read_full_at(&mut self.bytes[..want], offset)?;
        self.base = offset;
        Ok(())
    }

    /// The bytes of the block at `offset`, or of what stands there instead: all that it says it
    /// has, if the file has them.
    pub(crate) fn block<F: DiskFile>(&mut self, file: &F, offset: u64) -> io::Result<&[u8]> {
        if self.at(offset).len() < BLOCK_HEADER_BYTES {
            self.load(file, offset, BLOCK_HEADER_BYTES)?;
        }
        let length = BlockHeader::peek(self.at(offset)).map_or(0, |header| header.length as usize);
        if self.at(offset).len() < length {
            self.load(file, offset, length)?;
        }
        Ok(self.at(offset))
    }
}

/// Whether a block may stand behind one that ended with `next_sequence`.
pub(crate) fn follows(block: &BlockHeader, session: u64, next_sequence: u64) -> bool {
    block.session == session && block.first_sequence == next_sequence
}

/// Whether a checked block's records are what its header says.
pub(crate) fn records_sound(block: &[u8], header: &BlockHeader) -> bool {
    if header.kind != Kind::Records {
        return true;
    }
    let mut rest = &block[BLOCK_HEADER_BYTES..header.length as usize];
    for sequence in header.first_sequence..header.end_sequence() {
        let Some((_, _, length)) = read_record(rest, sequence) else { return false };
        let Some(behind) = rest.get(length..) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

/// Walks from the first block on until something is not the next block.
pub(crate) fn scan<F: DiskFile>(
    file: &F,
    header: &SegmentHeader,
    on_block: impl FnMut(u64, &BlockHeader),
) -> io::Result<Scanned> {
    let start = Scanned {
        end: SEGMENT_HEADER_BYTES,
        next_sequence: header.first_sequence,
        whole_from: header.first_sequence,
        last_ns: header.created_unix_ns,
        sealed: false,
        torn: false,
    };
    scan_on(file, header.session, start, on_block)
}

/// As [`scan`], from where an earlier walk ended.
pub(crate) fn scan_on<F: DiskFile>(
    file: &F,
    session: u64,
    mut scanned: Scanned,
    mut on_block: impl FnMut(u64, &BlockHeader),
) -> io::Result<Scanned> {
    let mut window = Window::new();
    loop {
        let bytes = window.block(file, scanned.end)?;
        let next = BlockHeader::check(bytes)
            .filter(|block| follows(block, session, scanned.next_sequence))
            .filter(|block| records_sound(bytes, block));
        let Some(block) = next else {
            let head = &bytes[..bytes.len().min(BLOCK_HEADER_BYTES)];
            scanned.torn = head.iter().any(|&byte| byte != 0);
            return Ok(scanned);
        };
        on_block(scanned.end, &block);
        scanned.end += u64::from(block.length);
        scanned.next_sequence = block.end_sequence();
        scanned.last_ns = scanned.last_ns.max(block.last_ns);
        if block.kind == Kind::Lost {
            scanned.whole_from = block.end_sequence();
        }
        if block.kind == Kind::Seal {
            scanned.sealed = true;
            return Ok(scanned);
        }
    }
}

/// Looks for the next good block of `session` behind `from`, at any multiple of 8, that begins at
/// `least` or later. `None` if there is none up to the end of the file.
pub(crate) fn find_block<F: DiskFile>(
    file: &F,
    session: u64,
    from: u64,
    least: u64,
) -> io::Result<Option<(u64, BlockHeader)>> {
    let mut window = Window::new();
    let mut offset = from.next_multiple_of(8);
    loop {
        window.load(file, offset, READ_BYTES)?;
        let bytes = window.at(offset);
        if bytes.len() < BLOCK_HEADER_BYTES {
            return Ok(None);
        }
        let whole = bytes.len() - (BLOCK_HEADER_BYTES - 8);
        let hit = (0..whole).step_by(8).find(|&at| bytes[at + 4..at + 8] == BLOCK_MAGIC);
        let Some(at) = hit else {
            offset += whole.next_multiple_of(8) as u64;
            continue;
        };
        offset += at as u64;
        let bytes = window.block(file, offset)?;
        match BlockHeader::check(bytes) {
            Some(block)
                if block.session == session
                    && block.first_sequence >= least
                    && records_sound(bytes, &block) =>
            {
                return Ok(Some((offset, block)));
            }
            _ => offset += 8,
        }
    }
}

const _: () = assert!(READ_BYTES < BLOCK_BYTES_MAX);
