//! A counters page: its header, encoded once and checked in full, and its words.

use std::path::Path;

use crate::directory;
use crate::error::{CountersError, RingError};
use crate::layout::{
    BYTE_ORDER_MARK, COUNTERS_BYTES, COUNTERS_CHECKED_BYTES, COUNTERS_HEADER_BYTES,
    COUNTERS_HISTOGRAMS, COUNTERS_KIND, COUNTERS_LABELS, COUNTERS_MAGIC, COUNTERS_MAX,
    COUNTERS_NAME, COUNTERS_PID, COUNTERS_VALUES, COUNTERS_VERSION, HISTOGRAM_BYTES,
    HISTOGRAM_LABELS, HISTOGRAMS_MAX, LABEL_MAX_BYTES, NAME_MAX_BYTES, SMALL_PAGE_BYTES,
};
use crate::memory::Access;
use crate::region::Mapped;
use crate::sync::{AtomicU64, Ordering};

pub(crate) const STATE_WRITING: u64 = 1;
pub(crate) const STATE_CLOSED: u64 = 2;
/// Largest granule that a page is rounded up to, bytes: the largest huge page there is.
const GRANULE_MAX_BYTES: u64 = 1 << 30;

/// What a page is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) started_unix_ns: u64,
    pub(crate) file_bytes: u64,
    pub(crate) counters: Vec<String>,
    pub(crate) histograms: Vec<String>,
}

/// Whether a text can be a label or a kind.
pub(crate) fn is_label(text: &str) -> bool {
    (1..=LABEL_MAX_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Where the word of a counter stands.
#[inline(always)]
pub(crate) fn counter_offset(index: usize) -> usize {
    COUNTERS_VALUES + index * 8
}

/// Where a histogram begins.
#[inline(always)]
pub(crate) fn histogram_offset(index: usize) -> usize {
    COUNTERS_HISTOGRAMS + index * HISTOGRAM_BYTES
}

impl PageHeader {
    /// Texts and numbers are within their limits: the writer has checked them.
    pub(crate) fn encode(&self) -> [u8; COUNTERS_HEADER_BYTES] {
        let mut bytes = [0; COUNTERS_HEADER_BYTES];
        let mut put = |offset: usize, field: &[u8]| {
            bytes[offset..offset + field.len()].copy_from_slice(field);
        };
        put(0, &COUNTERS_MAGIC);
        put(8, &COUNTERS_VERSION.to_le_bytes());
        put(12, &BYTE_ORDER_MARK.to_ne_bytes());
        put(16, &self.file_bytes.to_le_bytes());
        put(24, &self.started_unix_ns.to_le_bytes());
        put(COUNTERS_PID, &self.pid.to_le_bytes());
        put(36, &(self.counters.len() as u32).to_le_bytes());
        put(40, &(self.histograms.len() as u32).to_le_bytes());
        put(44, &(self.name.len() as u32).to_le_bytes());
        put(COUNTERS_KIND, self.kind.as_bytes());
        put(COUNTERS_NAME, self.name.as_bytes());
        for (first, labels) in
            [(COUNTERS_LABELS, &self.counters), (HISTOGRAM_LABELS, &self.histograms)]
        {
            for (index, label) in labels.iter().enumerate() {
                put(first + index * LABEL_MAX_BYTES, label.as_bytes());
            }
        }
        let checksum = crc32c::crc32c(&bytes[..COUNTERS_CHECKED_BYTES]);
        bytes[COUNTERS_CHECKED_BYTES..][..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// Reads a header that anybody may have written. `file_bytes` is the length of the file.
    ///
    /// # Errors
    /// One for each thing that can be wrong, from the magic on.
    pub(crate) fn decode(
        bytes: &[u8],
        file_bytes: u64,
        path: &Path,
    ) -> Result<Self, CountersError> {
        let path = || path.to_path_buf();
        let short =
            |expected| CountersError::BadLength { path: path(), found: file_bytes, expected };
        let Some(bytes) = bytes.first_chunk::<COUNTERS_HEADER_BYTES>() else {
            return Err(short(COUNTERS_BYTES.next_multiple_of(SMALL_PAGE_BYTES) as u64));
        };
        let word = |offset: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[offset + i]));
        let long = |offset: usize| u64::from_le_bytes(std::array::from_fn(|i| bytes[offset + i]));
        let found: [u8; 8] = std::array::from_fn(|i| bytes[i]);
        if found != COUNTERS_MAGIC {
            return Err(CountersError::BadMagic { path: path(), found });
        }
        if word(12) != BYTE_ORDER_MARK {
            return Err(CountersError::BadByteOrder { path: path(), found: word(12) });
        }
        if word(8) != COUNTERS_VERSION {
            let (found, supported) = (word(8), COUNTERS_VERSION);
            return Err(CountersError::BadVersion { path: path(), found, supported });
        }
        let computed = crc32c::crc32c(&bytes[..COUNTERS_CHECKED_BYTES]);
        let found = word(COUNTERS_CHECKED_BYTES);
        if found != computed {
            return Err(CountersError::BadChecksum { path: path(), found, computed });
        }
        let bad = |field, value| CountersError::BadHeader { path: path(), field, value };
        let length = long(16);
        let shortest = COUNTERS_BYTES.next_multiple_of(SMALL_PAGE_BYTES) as u64;
        if !(shortest..=GRANULE_MAX_BYTES).contains(&length)
            || !length.is_multiple_of(SMALL_PAGE_BYTES as u64)
        {
            return Err(bad("file length", length));
        }
        if length != file_bytes {
            return Err(short(length));
        }
        let counters = labels(bytes, COUNTERS_LABELS, word(36), COUNTERS_MAX);
        let histograms = labels(bytes, HISTOGRAM_LABELS, word(40), HISTOGRAMS_MAX);
        Ok(Self {
            kind: label(bytes, COUNTERS_KIND).ok_or_else(|| bad("kind", 0))?,
            name: name(bytes, word(44) as usize)
                .ok_or_else(|| bad("name length", word(44).into()))?,
            pid: word(COUNTERS_PID),
            started_unix_ns: long(24),
            file_bytes: length,
            counters: counters.map_err(|value| bad("counters", value))?,
            histograms: histograms.map_err(|value| bad("histograms", value))?,
        })
    }

    /// Reads and checks the header of an open file.
    pub(crate) fn read(file: &std::fs::File, path: &Path) -> Result<Self, CountersError> {
        let failed = |source| {
            let path = path.to_path_buf();
            CountersError::File(RingError::System { what: "read", path, source })
        };
        let length = file.metadata().map_err(failed)?.len();
        let mut bytes = [0; COUNTERS_HEADER_BYTES];
        let read = directory::read_start(file, &mut bytes).map_err(failed)?;
        Self::decode(&bytes[..read], length, path)
    }
}

/// The stream's name, if it is one that a writer could have been given.
fn name(bytes: &[u8; COUNTERS_HEADER_BYTES], length: usize) -> Option<String> {
    let name = bytes[COUNTERS_NAME..COUNTERS_NAME + NAME_MAX_BYTES].get(..length)?;
    let name = str::from_utf8(name).ok()?;
    directory::ring_path(Path::new(""), name).ok()?;
    Some(name.to_owned())
}

/// The label at an offset, if it is one.
fn label(bytes: &[u8; COUNTERS_HEADER_BYTES], offset: usize) -> Option<String> {
    let field = &bytes[offset..offset + LABEL_MAX_BYTES];
    let length = field.iter().position(|byte| *byte == 0).unwrap_or(LABEL_MAX_BYTES);
    let text = str::from_utf8(&field[..length]).ok()?;
    is_label(text).then(|| text.to_owned())
}

/// The first `count` labels of a table of `max`; an impossible count, or the place of an impossible
/// label.
fn labels(
    bytes: &[u8; COUNTERS_HEADER_BYTES],
    first: usize,
    count: u32,
    max: usize,
) -> Result<Vec<String>, u64> {
    if count as usize > max {
        return Err(count.into());
    }
    let at = |index| label(bytes, first + index * LABEL_MAX_BYTES).ok_or(index as u64);
    (0..count as usize).map(at).collect()
}

/// The memory of a page: at least [`COUNTERS_BYTES`] of it.
pub(crate) enum Words {
    /// A file.
    Mapped(Mapped),
    /// This process's own.
    Private(Box<[AtomicU64]>),
}

impl Words {
    pub(crate) fn private() -> Self {
        Self::Private((0..COUNTERS_BYTES / 8).map(|_| AtomicU64::new(0)).collect())
    }

    /// The word at an 8-byte aligned offset below [`COUNTERS_BYTES`].
    #[inline(always)]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        match self {
            Self::Mapped(mapped) => mapped.word(offset),
            Self::Private(words) => &words[offset / 8],
        }
    }

    /// Sets a word behind all that were set before.
    #[inline(always)]
    pub(crate) fn show(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Ordering::Release); // pairs with: COUNTER
    }

    /// A word, and with it all that were set before it was.
    #[inline(always)]
    pub(crate) fn seen(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::Acquire) // pairs with: COUNTER
    }

    // Relaxed, as every other access to these words: they are numbers to be looked at, and nothing
    // else is concluded from them.
    #[inline(always)]
    pub(crate) fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::Relaxed)
    }

    #[inline(always)]
    pub(crate) fn store(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Ordering::Relaxed);
    }

    /// Adds to a word that only this handle writes: a load and a store, no locked instruction.
    #[inline(always)]
    pub(crate) fn add(&self, offset: usize, n: u64) {
        let word = self.word(offset);
        word.store(word.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn sample() -> PageHeader {
        PageHeader {
            kind: "sender".into(),
            name: "orders".into(),
            pid: 0x0102_0304,
            started_unix_ns: 5,
            file_bytes: 28_672,
            counters: vec!["messages".into(), "x".repeat(32)],
            histograms: vec!["repair_ns".into()],
        }
    }

    fn decode(bytes: &[u8]) -> Result<PageHeader, CountersError> {
        PageHeader::decode(bytes, 28_672, Path::new("x.counters"))
    }

    #[test]
    fn encoding_is_as_documented_and_reads_back() {
        let bytes = sample().encode();
        assert_eq!(&bytes[..24], b"GAPLCTRS\x01\0\0\0\x04\x03\x02\x01\0\x70\0\0\0\0\0\0");
        let numbers = b"\x05\0\0\0\0\0\0\0\x04\x03\x02\x01\x02\0\0\0\x01\0\0\0\x06\0\0\0";
        assert_eq!(&bytes[24..48], numbers);
        assert_eq!((&bytes[48..56], &bytes[80..88]), (&b"sender\0\0"[..], &b"orders\0\0"[..]));
        assert_eq!((&bytes[256..265], &bytes[288..320]), (&b"messages\0"[..], &[b'x'; 32][..]));
        assert_eq!((&bytes[320..2304], &bytes[2304..2313]), (&[0; 1984][..], &b"repair_ns"[..]));
        assert_eq!(decode(&bytes).unwrap(), sample());
    }

    #[test]
    fn impossible_fields_are_named_even_under_a_right_checksum() {
        type Change = fn(&mut [u8; COUNTERS_HEADER_BYTES]);
        let cases: [(&str, u64, Change); 11] = [
            ("file length", 24_576, |b| b[16..18].copy_from_slice(&24_576u16.to_le_bytes())),
            ("file length", 28_673, |b| b[16] = 1),
            ("file length", u64::MAX, |b| b[16..24].fill(0xff)),
            ("counters", 65, |b| b[36] = 65),
            ("counters", 2, |b| b[36] = 3),
            ("histograms", 5, |b| b[40] = 5),
            ("counters", 0, |b| b[256] = 0x1b),
            ("histograms", 0, |b| b[2304] = 0xff),
            ("kind", 0, |b| b[48] = b' '),
            ("name length", 129, |b| b[44] = 129),
            ("name length", 6, |b| b[80] = b'/'),
        ];
        for (expected, number, change) in cases {
            let mut bytes = sample().encode();
            change(&mut bytes);
            let checksum = crc32c::crc32c(&bytes[..COUNTERS_CHECKED_BYTES]);
            bytes[COUNTERS_CHECKED_BYTES..][..4].copy_from_slice(&checksum.to_le_bytes());
            match decode(&bytes) {
                Err(CountersError::BadHeader { field, value, .. }) => {
                    assert_eq!((field, value), (expected, number));
                }
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    #[test]
    fn no_bytes_panic() {
        for end in [0, 8, 2432, 2439] {
            let cut = decode(&sample().encode()[..end]);
            assert!(matches!(cut, Err(CountersError::BadLength { .. })));
        }
        // Every byte; fewer under an interpreter.
        let step = if cfg!(miri) { 97 } else { 1 };
        for at in (0..COUNTERS_CHECKED_BYTES + 4).step_by(step) {
            let mut bytes = sample().encode();
            bytes[at] ^= 0x80;
            assert!(decode(&bytes).is_err(), "{at}");
        }
    }
}
