//! The header page: encoding it once, and checking every field of one that somebody else wrote.

use std::path::Path;

use crate::error::RingError;
use crate::layout::{
    BYTE_ORDER_MARK, CAPACITY_MAX_BYTES, CAPACITY_MIN_BYTES, CONSUMER_SLOTS_MAX, FLAG_EVICTABLE,
    FLAG_LOSSY, FLAG_PARKABLE, Geometry, HEADER_BYTES, HEADER_CHECKED_BYTES, LAYOUT_VERSION, MAGIC,
    NAME_MAX_BYTES, SMALL_PAGE_BYTES,
};

/// Whether the producer waits for its consumers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The producer never overwrites what a gating consumer has not passed: it is told to wait.
    #[default]
    Lossless,
    /// The producer never waits; a consumer that is too slow is told exactly what it missed.
    Lossy,
}

/// What a ring is: the contents of its header page.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// Stream name.
    pub name: String,
    /// Session: a number below 36^10, new with each creation of the ring; see [`session_text`].
    pub session: u64,
    /// Creation time, ns since the Unix epoch.
    pub created_unix_ns: u64,
    /// Sequence number of the stream's first message.
    pub first_sequence: u64,
    /// Size of the data, bytes; a power of two.
    pub capacity_bytes: u64,
    /// Records start at multiples of this, bytes.
    pub alignment_bytes: u64,
    /// Largest message in one record, bytes.
    pub max_message_bytes: usize,
    /// How many consumers may attach.
    pub consumer_slots: usize,
    /// Lossless or lossy.
    pub mode: Mode,
    /// Whether consumers may sleep.
    pub parkable: bool,
    /// Whether the producer may throw consumers out.
    pub evictable: bool,
    /// Length of the whole file, bytes.
    pub file_bytes: u64,
    /// Page size that the regions are laid out for, bytes.
    pub granule_bytes: u64,
}

/// A session as ten characters of base 36, as it also travels on the wire.
pub fn session_text(session: u64) -> String {
    let mut rest = session;
    let mut text = [b'0'; 10];
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[(rest % 36) as usize];
        rest /= 36;
    }
    text.iter().map(|&byte| char::from(byte)).collect()
}

/// One more than the largest session.
pub(crate) const SESSION_END: u64 = 36u64.pow(10);

impl Header {
    pub(crate) fn geometry(&self) -> Geometry {
        let mut geometry = Geometry::new(
            self.granule_bytes as usize,
            self.capacity_bytes,
            self.alignment_bytes,
            self.consumer_slots,
        );
        geometry.max_message = self.max_message_bytes;
        geometry.lossy = self.mode == Mode::Lossy;
        geometry.parkable = self.parkable;
        geometry.evictable = self.evictable;
        geometry
    }

    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |offset: usize, field: &[u8]| {
            bytes[offset..offset + field.len()].copy_from_slice(field);
        };
        let lossy = if self.mode == Mode::Lossy { FLAG_LOSSY } else { 0 };
        let parkable = if self.parkable { FLAG_PARKABLE } else { 0 };
        let evictable = if self.evictable { FLAG_EVICTABLE } else { 0 };
        put(0, &MAGIC);
        put(8, &LAYOUT_VERSION.to_le_bytes());
        put(12, &BYTE_ORDER_MARK.to_ne_bytes());
        put(16, &self.file_bytes.to_le_bytes());
        put(24, &self.granule_bytes.to_le_bytes());
        put(32, &self.capacity_bytes.to_le_bytes());
        put(40, &(self.alignment_bytes as u32).to_le_bytes());
        put(44, &(self.consumer_slots as u32).to_le_bytes());
        put(48, &(self.max_message_bytes as u32).to_le_bytes());
        put(52, &(lossy | parkable | evictable).to_le_bytes());
        put(56, &self.session.to_le_bytes());
        put(64, &self.created_unix_ns.to_le_bytes());
        put(72, &self.first_sequence.to_le_bytes());
        put(80, &(self.name.len() as u32).to_le_bytes());
        put(84, self.name.as_bytes());
        let checksum = crc32c::crc32c(&bytes[..HEADER_CHECKED_BYTES]);
        bytes[HEADER_CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header that anybody may have written. `file_bytes` is the length of the file.
    ///
    /// # Errors
    /// One for each thing that can be wrong, from the magic on.
    pub(crate) fn decode(bytes: &[u8], file_bytes: u64, path: &Path) -> Result<Self, RingError> {
        let path = || path.to_path_buf();
        let short = |expected| RingError::BadLength { path: path(), found: file_bytes, expected };
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(short(SMALL_PAGE_BYTES as u64));
        };
        let word = |offset: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[offset + i]));
        let long = |offset: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[offset + i]));
        let found: [u8; 8] = std::array::from_fn(|i| bytes[i]);
        if found != MAGIC {
            return Err(RingError::BadMagic { path: path(), found });
        }
        if word(12) != BYTE_ORDER_MARK {
            return Err(RingError::BadByteOrder { path: path(), found: word(12) });
        }
        if word(8) != LAYOUT_VERSION {
            let supported = LAYOUT_VERSION;
            return Err(RingError::BadVersion { path: path(), found: word(8), supported });
        }
        let computed = crc32c::crc32c(&bytes[..HEADER_CHECKED_BYTES]);
        if word(HEADER_CHECKED_BYTES) != computed {
            let found = word(HEADER_CHECKED_BYTES);
            return Err(RingError::BadChecksum { path: path(), found, computed });
        }
        let flags = word(52);
        let name_bytes = word(80) as usize;
        let name = bytes[84..84 + NAME_MAX_BYTES].get(..name_bytes).map(str::from_utf8);
        let header = Self {
            name: match name {
                Some(Ok(name)) => name.to_owned(),
                _ => return Err(bad(&path(), "name length", name_bytes as u64)),
            },
            session: long(56),
            created_unix_ns: long(64),
            first_sequence: long(72),
            capacity_bytes: long(32),
            alignment_bytes: u64::from(word(40)),
            max_message_bytes: word(48) as usize,
            consumer_slots: word(44) as usize,
            mode: if flags & FLAG_LOSSY != 0 { Mode::Lossy } else { Mode::Lossless },
            parkable: flags & FLAG_PARKABLE != 0,
            evictable: flags & FLAG_EVICTABLE != 0,
            file_bytes: long(16),
            granule_bytes: long(24),
        };
        if flags & !(FLAG_LOSSY | FLAG_PARKABLE | FLAG_EVICTABLE) != 0 {
            return Err(bad(&path(), "flags", u64::from(flags)));
        }
        header.check(&path())?;
        if header.file_bytes != file_bytes {
            return Err(short(header.file_bytes));
        }
        Ok(header)
    }

    /// Every number within the range that a creator keeps to, so that nothing computed from them
    /// leaves the file.
    fn check(&self, path: &Path) -> Result<(), RingError> {
        let capacity = self.capacity_bytes;
        let granule = self.granule_bytes;
        let require = |sound: bool, field: &'static str, value: u64| {
            if sound { Ok(()) } else { Err(bad(path, field, value)) }
        };
        require(
            capacity.is_power_of_two()
                && (CAPACITY_MIN_BYTES..=CAPACITY_MAX_BYTES).contains(&capacity),
            "capacity",
            capacity,
        )?;
        let alignment = self.alignment_bytes;
        require(matches!(alignment, 16 | 32 | 64 | 128), "alignment", alignment)?;
        let slots = self.consumer_slots as u64;
        require((1..=u64::from(CONSUMER_SLOTS_MAX)).contains(&slots), "consumer slots", slots)?;
        require(
            granule.is_power_of_two() && (4096..=1 << 30).contains(&granule),
            "granule",
            granule,
        )?;
        let largest = Geometry::largest_message(capacity, alignment);
        let max = self.max_message_bytes;
        require((1..=largest).contains(&max), "max message", max as u64)?;
        let first = self.first_sequence;
        require(first <= crate::checkpoint::FIRST_SEQUENCE_MAX, "first sequence", first)?;
        let expected = self.geometry().file_bytes as u64;
        require(self.file_bytes == expected, "file length", self.file_bytes)
    }
}

fn bad(path: &Path, field: &'static str, value: u64) -> RingError {
    RingError::BadHeader { path: path.to_path_buf(), field, value }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn sample() -> Header {
        let mut header = Header {
            name: "orders".into(),
            session: 35,
            created_unix_ns: 1_700_000_000_000_000_000,
            first_sequence: 1,
            capacity_bytes: 1 << 20,
            alignment_bytes: 64,
            max_message_bytes: 1000,
            consumer_slots: 64,
            mode: Mode::Lossy,
            parkable: true,
            evictable: false,
            file_bytes: 0,
            granule_bytes: 4096,
        };
        header.file_bytes = header.geometry().file_bytes as u64;
        header
    }

    fn resealed(change: impl Fn(&mut [u8; HEADER_BYTES])) -> RingError {
        let mut bytes = sample().encode();
        change(&mut bytes);
        let checksum = crc32c::crc32c(&bytes[..HEADER_CHECKED_BYTES]);
        bytes[HEADER_CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        Header::decode(&bytes, sample().file_bytes, Path::new("x.ring")).unwrap_err()
    }

    #[test]
    fn encoding_is_as_documented_and_reads_back() {
        let bytes = sample().encode();
        assert_eq!(&bytes[..16], b"GAPLESS\0\x01\0\0\0\x04\x03\x02\x01");
        assert_eq!(&bytes[32..56], b"\0\0\x10\0\0\0\0\0\x40\0\0\0\x40\0\0\0\xe8\x03\0\0\x03\0\0\0");
        assert_eq!(&bytes[80..92], b"\x06\0\0\0orders\0\0");
        let read = Header::decode(&bytes, sample().file_bytes, Path::new("x.ring"));
        assert_eq!(read.unwrap(), sample());
    }

    #[test]
    fn every_kind_of_damage_has_its_own_error() {
        let path = Path::new("x.ring");
        let len = sample().file_bytes;
        let good = sample().encode();
        let mut bytes = good;
        bytes[0] = b'g';
        assert!(matches!(Header::decode(&bytes, len, path), Err(RingError::BadMagic { .. })));
        bytes = good;
        bytes[8] = 9;
        let error = Header::decode(&bytes, len, path).unwrap_err();
        assert!(matches!(error, RingError::BadVersion { found: 9, supported: 1, .. }));
        bytes = good;
        bytes[12..16].reverse();
        assert!(matches!(Header::decode(&bytes, len, path), Err(RingError::BadByteOrder { .. })));
        bytes = good;
        bytes[33] ^= 1;
        assert!(matches!(Header::decode(&bytes, len, path), Err(RingError::BadChecksum { .. })));
        let cut = Header::decode(&good, len - 1, path);
        assert!(matches!(cut, Err(RingError::BadLength { .. })));
        let cut = Header::decode(&good[..100], 100, path);
        assert!(matches!(cut, Err(RingError::BadLength { found: 100, .. })));
    }

    #[test]
    fn impossible_numbers_are_named_even_under_a_right_checksum() {
        let field = |error| match error {
            RingError::BadHeader { field, .. } => field,
            other => panic!("{other}"),
        };
        assert_eq!(field(resealed(|b| b[32] = 1)), "capacity");
        assert_eq!(field(resealed(|b| b[32..40].fill(0))), "capacity");
        assert_eq!(field(resealed(|b| b[40] = 8)), "alignment");
        assert_eq!(field(resealed(|b| b[44..48].fill(0xff))), "consumer slots");
        assert_eq!(field(resealed(|b| b[48..52].fill(0xff))), "max message");
        assert_eq!(field(resealed(|b| b[52] = 0x80)), "flags");
        assert_eq!(field(resealed(|b| b[24..32].fill(0))), "granule");
        assert_eq!(field(resealed(|b| b[72..80].fill(0xff))), "first sequence");
        assert_eq!(field(resealed(|b| b[80] = 200)), "name length");
        assert_eq!(field(resealed(|b| b[84] = 0xff)), "name length");
        assert_eq!(field(resealed(|b| b[16] ^= 1)), "file length");
    }

    #[test]
    fn sessions_are_ten_characters() {
        assert_eq!(session_text(0), "0000000000");
        assert_eq!(session_text(SESSION_END - 1), "ZZZZZZZZZZ");
        assert_eq!(session_text(36 * 36 + 35), "000000010Z");
    }
}
