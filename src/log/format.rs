//! The bytes of a log: segment header, block header, record, index entry. See the
//! [module's page](super) for the tables.

use gapless_shm::{CommitWord, Flags};

/// First bytes of a segment.
pub(crate) const SEGMENT_MAGIC: [u8; 8] = *b"GAPLOG\x1a\n";
/// First bytes of an index.
pub(crate) const INDEX_MAGIC: [u8; 8] = *b"GAPIDX\x1a\n";
/// The second word of a block.
pub(crate) const BLOCK_MAGIC: [u8; 4] = *b"GBLK";
/// What this code writes, and the newest it reads.
pub(crate) const VERSION: u32 = 1;

/// Bytes of a segment in front of its first block: a page.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;
/// Bytes of a block in front of its first record.
pub const BLOCK_HEADER_BYTES: usize = 64;
/// Bytes of a record in front of its payload.
pub const RECORD_HEADER_BYTES: usize = 8;
/// Longest block, bytes: one record of the longest message a ring takes, and a little.
pub(crate) const BLOCK_BYTES_MAX: usize = CommitWord::LENGTH_END + 4096;
/// Bytes of an index in front of its first entry.
pub(crate) const INDEX_HEADER_BYTES: usize = 64;
/// Bytes of an index entry.
pub(crate) const INDEX_ENTRY_BYTES: usize = 32;
/// Longest stream name, bytes.
pub(crate) const NAME_BYTES: usize = 128;

const _: () = assert!(BLOCK_HEADER_BYTES.is_multiple_of(8));
const _: () = assert!(SEGMENT_HEADER_BYTES.is_multiple_of(8));
const _: () = assert!(BLOCK_BYTES_MAX < u32::MAX as usize);

/// CRC-32C (Castagnoli), as in iSCSI (RFC 3720, B.4).
#[inline]
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

/// `bytes` of a record, with its header, rounded up to where the next one may start.
#[inline(always)]
pub(crate) fn record_bytes(payload: usize) -> usize {
    RECORD_HEADER_BYTES + payload.next_multiple_of(8)
}

#[inline]
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[inline]
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// The first page of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) session: u64,
    pub(crate) first_sequence: u64,
    pub(crate) created_unix_ns: u64,
    /// The host's run that wrote it.
    pub(crate) boot: [u8; 16],
    /// Whether its writer syncs, so that a later segment says nothing about the end of this one.
    pub(crate) synced: bool,
    pub(crate) enveloped: bool,
    pub(crate) name: String,
}

const SYNCED: u32 = 1;
const ENVELOPED: u32 = 2;

/// Why a header cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Too short, or not what it should be.
    Foreign,
    /// Of a version from the future.
    Version(u32),
    /// Its checksum is wrong.
    Damaged,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
        put(&mut page, 0, &SEGMENT_MAGIC);
        put(&mut page, 8, &VERSION.to_le_bytes());
        let flags = u32::from(self.synced) * SYNCED + u32::from(self.enveloped) * ENVELOPED;
        put(&mut page, 12, &flags.to_le_bytes());
        put(&mut page, 16, &self.session.to_le_bytes());
        put(&mut page, 24, &self.first_sequence.to_le_bytes());
        put(&mut page, 32, &self.created_unix_ns.to_le_bytes());
        put(&mut page, 40, &self.boot);
        let name = self.name.as_bytes();
        put(&mut page, 64, &name[..name.len().min(NAME_BYTES)]);
        let end = page.len() - 4;
        let sum = crc(&page[..end]);
        put(&mut page, end, &sum.to_le_bytes());
        page
    }

    pub(crate) fn decode(page: &[u8]) -> Result<Self, Unreadable> {
        let page = page.get(..SEGMENT_HEADER_BYTES as usize).ok_or(Unreadable::Foreign)?;
        if page[..8] != SEGMENT_MAGIC {
            return Err(Unreadable::Foreign);
        }
        let end = page.len() - 4;
        let word = |at| u32_at(page, at).ok_or(Unreadable::Foreign);
        let long = |at| u64_at(page, at).ok_or(Unreadable::Foreign);
        if word(8)? != VERSION {
            return Err(Unreadable::Version(word(8)?));
        }
        if word(end)? != crc(&page[..end]) {
            return Err(Unreadable::Damaged);
        }
        let flags = word(12)?;
        let mut boot = [0; 16];
        boot.copy_from_slice(&page[40..56]);
        let name = page[64..64 + NAME_BYTES].split(|&byte| byte == 0).next().unwrap_or_default();
        Ok(Self {
            session: long(16)?,
            first_sequence: long(24)?,
            created_unix_ns: long(32)?,
            boot,
            synced: flags & SYNCED != 0,
            enveloped: flags & ENVELOPED != 0,
            name: String::from_utf8_lossy(name).into_owned(),
        })
    }
}

/// The first 64 bytes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    /// Bytes of the block, this header among them.
    pub(crate) length: u32,
    pub(crate) count: u32,
    pub(crate) first_sequence: u64,
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    pub(crate) session: u64,
    pub(crate) kind: Kind,
    /// Sequence behind what of the session was durable when the block was written.
    pub(crate) durable_end: u64,
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As many records as its count says.
    Records,
    /// The last of its segment; no records.
    Seal,
    /// No records: as many messages as its count says are lost.
    Lost,
}

impl BlockHeader {
    /// Writes the header, and the checksum over the whole block.
    pub(crate) fn finish(&self, block: &mut [u8]) {
        let kind: u32 = match self.kind {
            Kind::Records => 0,
            Kind::Seal => 1,
            Kind::Lost => 2,
        };
        block[..BLOCK_HEADER_BYTES].fill(0);
        put(block, 4, &BLOCK_MAGIC);
        put(block, 8, &self.length.to_le_bytes());
        put(block, 12, &self.count.to_le_bytes());
        put(block, 16, &self.first_sequence.to_le_bytes());
        put(block, 24, &self.first_ns.to_le_bytes());
        put(block, 32, &self.last_ns.to_le_bytes());
        put(block, 40, &self.session.to_le_bytes());
        put(block, 48, &kind.to_le_bytes());
        put(block, 56, &self.durable_end.to_le_bytes());
        let sum = crc(&block[4..self.length as usize]);
        put(block, 0, &sum.to_le_bytes());
    }

    /// Reads a header whose fields make sense; the checksum is not looked at.
    #[inline]
    pub(crate) fn peek(bytes: &[u8]) -> Option<Self> {
        let head: &[u8; BLOCK_HEADER_BYTES] = bytes.first_chunk()?;
        if head[4..8] != BLOCK_MAGIC {
            return None;
        }
        let kind = match u32_at(head, 48)? {
            0 => Kind::Records,
            1 => Kind::Seal,
            2 => Kind::Lost,
            _ => return None,
        };
        let header = Self {
            length: u32_at(head, 8)?,
            count: u32_at(head, 12)?,
            first_sequence: u64_at(head, 16)?,
            first_ns: u64_at(head, 24)?,
            last_ns: u64_at(head, 32)?,
            session: u64_at(head, 40)?,
            kind,
            durable_end: u64_at(head, 56)?,
        };
        let length = header.length as usize;
        let fits = match kind {
            Kind::Records => header.count as usize <= length / RECORD_HEADER_BYTES,
            Kind::Seal => length == BLOCK_HEADER_BYTES && header.count == 0,
            Kind::Lost => length == BLOCK_HEADER_BYTES,
        };
        let sound = fits
            && (BLOCK_HEADER_BYTES..=BLOCK_BYTES_MAX).contains(&length)
            && length.is_multiple_of(8)
            && header.first_sequence.checked_add(header.count.into()).is_some();
        sound.then_some(header)
    }

    /// Reads a header, and checks the block behind it, which must be there in full.
    #[inline]
    pub(crate) fn check(bytes: &[u8]) -> Option<Self> {
        let header = Self::peek(bytes)?;
        let block = bytes.get(..header.length as usize)?;
        (u32_at(block, 0)? == crc(&block[4..])).then_some(header)
    }

    /// Sequence of the message behind the last of the block.
    #[inline]
    pub(crate) fn end_sequence(&self) -> u64 {
        self.first_sequence + u64::from(self.count)
    }
}

/// Writes a record at the start of `room`, which has exactly its length.
#[inline(always)]
pub(crate) fn write_record(room: &mut [u8], sequence: u64, payload: &[u8], flags: Flags) {
    let word = CommitWord::message(sequence, payload.len(), flags);
    let padded = room.len();
    // The last word first: what the payload does not cover of it stays zero.
    room[padded - 8..].fill(0);
    room[..RECORD_HEADER_BYTES].copy_from_slice(&word.bits().to_le_bytes());
    room[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + payload.len()].copy_from_slice(payload);
}

/// Reads the record of `sequence` at the start of `bytes`: its payload, flags, and length.
#[inline(always)]
pub(crate) fn read_record(bytes: &[u8], sequence: u64) -> Option<(&[u8], Flags, usize)> {
    let head: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk()?;
    let word = CommitWord::from_bits(u64::from_le_bytes(*head));
    if !word.is_message(sequence) {
        return None;
    }
    let payload = bytes.get(RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + word.len())?;
    Some((payload, word.flags(), record_bytes(word.len())))
}

/// One entry of an index: a block of the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IndexEntry {
    pub(crate) sequence: u64,
    /// Offset of the block in the segment.
    pub(crate) offset: u64,
    pub(crate) first_ns: u64,
}

impl IndexEntry {
    pub(crate) fn encode(&self) -> [u8; INDEX_ENTRY_BYTES] {
        let mut entry = [0; INDEX_ENTRY_BYTES];
        put(&mut entry, 0, &self.sequence.to_le_bytes());
        put(&mut entry, 8, &self.offset.to_le_bytes());
        put(&mut entry, 16, &self.first_ns.to_le_bytes());
        let sum = crc(&entry[..24]);
        put(&mut entry, 24, &sum.to_le_bytes());
        entry
    }

    pub(crate) fn decode(entry: &[u8; INDEX_ENTRY_BYTES]) -> Option<Self> {
        let sound = u32_at(entry, 24)? == crc(&entry[..24]) && u32_at(entry, 28)? == 0;
        let entry = Self {
            sequence: u64_at(entry, 0)?,
            offset: u64_at(entry, 8)?,
            first_ns: u64_at(entry, 16)?,
        };
        (sound && entry.offset >= SEGMENT_HEADER_BYTES).then_some(entry)
    }
}

/// The first bytes of an index.
pub(crate) fn index_header(session: u64, first_sequence: u64) -> [u8; INDEX_HEADER_BYTES] {
    let mut header = [0; INDEX_HEADER_BYTES];
    put(&mut header, 0, &INDEX_MAGIC);
    put(&mut header, 8, &VERSION.to_le_bytes());
    put(&mut header, 16, &session.to_le_bytes());
    put(&mut header, 24, &first_sequence.to_le_bytes());
    let sum = crc(&header[..60]);
    put(&mut header, 60, &sum.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> SegmentHeader {
        SegmentHeader {
            session: 35,
            first_sequence: 7,
            created_unix_ns: 0x0102_0304_0506_0708,
            boot: [9; 16],
            synced: true,
            enveloped: false,
            name: "orders".into(),
        }
    }

    #[test]
    fn a_segment_header_is_as_documented() {
        let page = header().encode();
        assert_eq!(page.len(), 4096);
        assert_eq!(page[..16], *b"GAPLOG\x1a\n\x01\0\0\0\x01\0\0\0");
        assert_eq!(
            page[16..40],
            *b"\x23\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01"
        );
        assert_eq!((&page[40..56], &page[64..71]), (&[9_u8; 16][..], &b"orders\0"[..]));
        assert_eq!(SegmentHeader::decode(&page), Ok(header()));
        assert_eq!(SegmentHeader::decode(&page[..4095]), Err(Unreadable::Foreign));
        let changed = |at: usize, to: u8| {
            let mut page = page.clone();
            page[at] = to;
            SegmentHeader::decode(&page)
        };
        assert_eq!(changed(0, b'g'), Err(Unreadable::Foreign));
        assert_eq!(changed(8, 2), Err(Unreadable::Version(2)));
        assert_eq!(changed(3000, 1), Err(Unreadable::Damaged));
    }

    #[test]
    fn a_block_is_as_documented() {
        let mut block = vec![0xEE; BLOCK_HEADER_BYTES + record_bytes(3)];
        write_record(&mut block[BLOCK_HEADER_BYTES..], 0x1_0000_0005, b"abc", Flags::WHOLE);
        let header = BlockHeader {
            length: block.len() as u32,
            count: 1,
            first_sequence: 0x1_0000_0005,
            first_ns: 1,
            last_ns: 2,
            session: 3,
            kind: Kind::Records,
            durable_end: 4,
        };
        header.finish(&mut block);
        assert_eq!(block[4..16], *b"GBLK\x50\0\0\0\x01\0\0\0");
        assert_eq!(block[16..64], {
            let words: [u64; 6] = [0x1_0000_0005, 1, 2, 3, 0, 4];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            <[u8; 48]>::try_from(bytes).unwrap()
        });
        assert_eq!(block[64..], *b"\x03\0\0\x83\x05\0\0\0abc\0\0\0\0\0");
        assert_eq!(BlockHeader::check(&block), Some(header));
        let (payload, flags, length) = read_record(&block[64..], header.first_sequence).unwrap();
        assert_eq!((payload, flags, length), (&b"abc"[..], Flags::WHOLE, 16));
        assert!(read_record(&block[64..], header.first_sequence + 1).is_none());
        for at in 0..block.len() {
            let mut bad = block.clone();
            bad[at] ^= 0x10;
            assert_eq!(BlockHeader::check(&bad), None, "byte {at}");
        }
        assert_eq!(BlockHeader::check(&block[..block.len() - 1]), None);
    }

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc(b"123456789"), 0xE306_9283); // RFC 3720
    }

    #[test]
    fn an_index_entry_is_as_documented() {
        let entry = IndexEntry { sequence: 1, offset: 4096, first_ns: 3 };
        let bytes = entry.encode();
        assert_eq!(bytes[..9], *b"\x01\0\0\0\0\0\0\0\0");
        assert_eq!(IndexEntry::decode(&bytes), Some(entry));
        for at in 0..bytes.len() {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert_eq!(IndexEntry::decode(&bad), None, "byte {at}");
        }
    }
}
