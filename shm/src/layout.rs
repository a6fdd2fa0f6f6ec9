//! Every offset of a ring file and of a counters page, in one place; nothing else in the crate
//! knows a literal offset.
//!
//! All numbers are little-endian `u64` words at 8-byte aligned offsets (the name and the checksum
//! of the header page excepted). `G` is the granule: 4,096, or the huge page size on hugetlbfs.
//!
//! | region | offset | bytes | written by |
//! |---|---|---|---|
//! | header page | 0 | 4,096 | creator, once |
//! | producer page | 4,096 | 4,096 | producer |
//! | index page | 8,192 | 4,096 | producer |
//! | consumer table | 12,288 rounded up to `G` | 128 + 128 a slot, rounded up to `G` | consumers, each its slot |
//! | data | after the table | capacity, rounded up to `G` | producer |
//!
//! **Header page**
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic, `GAPLESS\0` |
//! | 8 | 4 | layout version |
//! | 12 | 4 | byte order mark, 0x01020304 |
//! | 16 | 8 | file length in bytes |
//! | 24 | 8 | granule in bytes |
//! | 32 | 8 | capacity in bytes, a power of two |
//! | 40 | 4 | record alignment in bytes, a power of two |
//! | 44 | 4 | consumer slots |
//! | 48 | 4 | max message in bytes |
//! | 52 | 4 | flags: 1 lossy, 2 parkable, 4 evictable |
//! | 56 | 8 | session: below 36^10, shown as ten characters of base 36 |
//! | 64 | 8 | creation time, ns since the Unix epoch |
//! | 72 | 8 | first sequence |
//! | 80 | 4 | name length in bytes |
//! | 84 | 128 | name, UTF-8, zero padded |
//! | 212 | 4 | CRC32C of bytes 0..212 |
//!
//! **Producer page** (each group on its own pair of cache lines)
//!
//! | offset | field |
//! |---|---|
//! | 0 | frontier: the producer may be writing anything below this position; bytes at positions below `frontier - capacity` are gone |
//! | 128 | checkpoint version; the valid pair is the one of its lowest bit |
//! | 136, 144 | checkpoint pair 0: position, sequence of the next message there |
//! | 152, 160 | checkpoint pair 1 |
//! | 256 | producer state: 0 none yet, 1 active, 2 closed in order |
//! | 264 | producer pid |
//! | 272 | starts: how many producers have written this ring |
//! | 280 | heartbeat, ns since the Unix epoch, as last told by the producer |
//! | 288 | backpressure: publishes refused for want of room |
//! | 296 | consumers whose slot was taken back after their death |
//! | 304 | consumers that broke the cursor's rules and were set aside |
//! | 312 | aborted claims |
//! | 384 | wake epoch; its low 32 bits are the futex word |
//!
//! **Index page**: 256 entries of position, sequence: the first record that starts in that 1/256 of
//! the data. An entry counts only while its position lies within the last lap.
//!
//! **Consumer table**: offset 0: joins, a counter of attachments; offset 64: parked, 1 while a
//! consumer sleeps; then the slots, 128 bytes each:
//!
//! | offset | field |
//! |---|---|
//! | 0 | state: generation × 256 + (0 free, 1 active and gating, 2 active, 3 evicted) |
//! | 8 | cursor position: everything below it is done with |
//! | 16 | cursor sequence: of the next message at that position |
//! | 64 | pid |
//! | 72 | stalls: publishes refused because of this consumer (written by the producer) |
//! | 80 | messages missed by being lapped |
//! | 88 | 40 bytes of name, UTF-8, zero padded |
//!
//! **Record**, at every multiple of the alignment where one starts:
//!
//! ```text
//!  63            32 31      24 23             0
//! +----------------+----------+----------------+
//! | sequence, low  |  flags   | payload bytes  |  commit word: stored last, read first
//! +----------------+----------+----------------+
//! | payload, then padding to the alignment     |
//! +---------------------------------------------+
//! ```
//!
//! Flags: 0x80 committed (always set), 0x40 padding to the end of the data, 0x01 begins and
//! 0x02 ends a message (both on a whole message), 0x04 stands in place of a lost one. A word with
//! another sequence than the one expected there is "not written yet", whatever an earlier lap left:
//! before a producer commits a record it looks at the word behind it, and zeroes that word if it
//! could be taken for the next record.
//!
//! An OFD write lock on byte 0 of the producer page is the producer's lease, one on byte 0 of a
//! slot that consumer's.
//!
//! # The counters page
//!
//! A file of its own, `<name>.counters`, of 25,216 bytes rounded up to `G`. All numbers are
//! little-endian. Its header never changes: every writer makes a new page. Byte 4,096 is the
//! writer's lease, in this and every later version.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic, `GAPLCTRS` |
//! | 8 | 4 | version of the counters page |
//! | 12 | 4 | byte order mark, 0x01020304 |
//! | 16 | 8 | file length in bytes |
//! | 24 | 8 | start of the writer, ns since the Unix epoch |
//! | 32 | 4 | pid of the writer, as it saw itself |
//! | 36 | 4 | counters in use, up to 64 |
//! | 40 | 4 | histograms in use, up to 4 |
//! | 44 | 4 | name length in bytes |
//! | 48 | 32 | kind, a label |
//! | 80 | 128 | name, zero padded |
//! | 256 | 64 × 32 | labels of the counters |
//! | 2,304 | 4 × 32 | labels of the histograms |
//! | 2,432 | 4 | CRC32C of bytes 0..2432 |
//! | 4,096 | 8 | state: 1 writing, 2 closed in order |
//! | 4,224 | 64 × 8 | the counters |
//! | 4,736 | 4 × 5,120 | the histograms |
//!
//! A label is 1 to 32 printable ASCII characters without spaces, zero padded; all zero where there
//! is nothing to label.
//!
//! **Histogram**: offset 0: sum of all values; offset 8: the largest; offset 128: 624 counts.
//! Values 0 to 15 have a count each; from there on every power of two up to 2^41 has 16 counts of
//! equal width, so that a count's width is at most 1/16 of its values. The last one also counts
//! everything above.

/// First eight bytes of every ring file.
pub const MAGIC: [u8; 8] = *b"GAPLESS\0";
/// Version of everything this module describes.
pub const LAYOUT_VERSION: u32 = 1;
/// Reads as this number only where the byte order is the writer's.
pub const BYTE_ORDER_MARK: u32 = 0x0102_0304;

/// Offset of the session in the header.
pub(crate) const HEADER_SESSION: usize = 56;
/// Offset of the first sequence in the header.
pub(crate) const HEADER_FIRST_SEQUENCE: usize = 72;
/// Granule of ordinary files, bytes.
pub(crate) const SMALL_PAGE_BYTES: usize = 4096;
/// Bytes of the header page that the checksum covers.
pub(crate) const HEADER_CHECKED_BYTES: usize = 212;
/// Bytes of the header in all.
pub(crate) const HEADER_BYTES: usize = 216;
/// Longest stream name, bytes.
pub const NAME_MAX_BYTES: usize = 128;
/// Longest consumer name, bytes; longer ones are cut.
pub const CONSUMER_NAME_MAX_BYTES: usize = 40;

pub(crate) const PRODUCER_PAGE: usize = 4096;
pub(crate) const FRONTIER: usize = PRODUCER_PAGE;
pub(crate) const CHECKPOINT_VERSION: usize = PRODUCER_PAGE + 128;
pub(crate) const CHECKPOINT_PAIRS: usize = PRODUCER_PAGE + 136;
pub(crate) const PRODUCER_STATE: usize = PRODUCER_PAGE + 256;
pub(crate) const PRODUCER_PID: usize = PRODUCER_PAGE + 264;
pub(crate) const PRODUCER_STARTS: usize = PRODUCER_PAGE + 272;
pub(crate) const PRODUCER_HEARTBEAT: usize = PRODUCER_PAGE + 280;
pub(crate) const BACKPRESSURE_COUNT: usize = PRODUCER_PAGE + 288;
pub(crate) const RECLAIMED_COUNT: usize = PRODUCER_PAGE + 296;
pub(crate) const QUARANTINED_COUNT: usize = PRODUCER_PAGE + 304;
pub(crate) const ABORTED_COUNT: usize = PRODUCER_PAGE + 312;
pub(crate) const WAKE_EPOCH: usize = PRODUCER_PAGE + 384;

pub(crate) const INDEX_PAGE: usize = 8192;
/// Entries of the index page.
pub(crate) const INDEX_ENTRIES: u64 = if cfg!(loom) { 2 } else { 256 }; // fewer steps to model
/// Header, producer and index page together.
pub(crate) const CONTROL_BYTES: usize = 12288;

/// Offsets inside the consumer table.
pub(crate) const TABLE_JOINS: usize = 0;
pub(crate) const TABLE_PARKED: usize = 64;
pub(crate) const TABLE_HEADER_BYTES: usize = 128;
/// Bytes of a consumer's slot: a pair of cache lines, so that neighbours never share one.
pub(crate) const SLOT_BYTES: usize = 128;
pub(crate) const SLOT_STATE: usize = 0;
pub(crate) const SLOT_POSITION: usize = 8;
pub(crate) const SLOT_SEQUENCE: usize = 16;
pub(crate) const SLOT_PID: usize = 64;
pub(crate) const SLOT_STALLS: usize = 72;
pub(crate) const SLOT_MISSED: usize = 80;
pub(crate) const SLOT_NAME: usize = 88;

/// First eight bytes of every counters page.
pub const COUNTERS_MAGIC: [u8; 8] = *b"GAPLCTRS";
/// Version of the counters page that this module describes.
pub const COUNTERS_VERSION: u32 = 1;
/// Most counters of a page.
pub const COUNTERS_MAX: usize = 64;
/// Most histograms of a page.
pub const HISTOGRAMS_MAX: usize = 4;
/// Longest label of a counter, a histogram or a page's kind, bytes.
pub const LABEL_MAX_BYTES: usize = 32;
/// Counts of a histogram.
pub const HISTOGRAM_BUCKETS: usize = 624;

pub(crate) const COUNTERS_PID: usize = 32;
pub(crate) const COUNTERS_KIND: usize = 48;
pub(crate) const COUNTERS_NAME: usize = 80;
pub(crate) const COUNTERS_LABELS: usize = 256;
pub(crate) const HISTOGRAM_LABELS: usize = 2304;
/// Bytes of a counters page's header that the checksum covers.
pub(crate) const COUNTERS_CHECKED_BYTES: usize = 2432;
/// Bytes of that header in all, in whole words.
pub(crate) const COUNTERS_HEADER_BYTES: usize = 2440;
pub(crate) const COUNTERS_STATE: usize = 4096;
pub(crate) const COUNTERS_VALUES: usize = 4224;
pub(crate) const COUNTERS_HISTOGRAMS: usize = 4736;
pub(crate) const HISTOGRAM_SUM: usize = 0;
pub(crate) const HISTOGRAM_LARGEST: usize = 8;
pub(crate) const HISTOGRAM_COUNTS: usize = 128;
pub(crate) const HISTOGRAM_BYTES: usize = 5120;
/// Bytes of a counters page before rounding to the granule.
pub(crate) const COUNTERS_BYTES: usize = 25216;

const _: () = {
    assert!(COUNTERS_KIND + LABEL_MAX_BYTES == COUNTERS_NAME);
    assert!(COUNTERS_NAME + NAME_MAX_BYTES <= COUNTERS_LABELS);
    assert!(COUNTERS_LABELS + COUNTERS_MAX * LABEL_MAX_BYTES == HISTOGRAM_LABELS);
    assert!(HISTOGRAM_LABELS + HISTOGRAMS_MAX * LABEL_MAX_BYTES == COUNTERS_CHECKED_BYTES);
    assert!(COUNTERS_HEADER_BYTES >= COUNTERS_CHECKED_BYTES + 4);
    assert!(COUNTERS_HEADER_BYTES.is_multiple_of(8) && COUNTERS_HEADER_BYTES <= COUNTERS_STATE);
    // Each on pairs of cache lines of its own.
    assert!(COUNTERS_VALUES == COUNTERS_STATE + 128);
    assert!(COUNTERS_HISTOGRAMS == COUNTERS_VALUES + COUNTERS_MAX * 8);
    assert!(COUNTERS_HISTOGRAMS.is_multiple_of(128) && HISTOGRAM_BYTES.is_multiple_of(128));
    assert!(HISTOGRAM_COUNTS + HISTOGRAM_BUCKETS * 8 == HISTOGRAM_BYTES);
    assert!(COUNTERS_BYTES == COUNTERS_HISTOGRAMS + HISTOGRAMS_MAX * HISTOGRAM_BYTES);
};

pub(crate) const FLAG_LOSSY: u32 = 1;
pub(crate) const FLAG_PARKABLE: u32 = 2;
pub(crate) const FLAG_EVICTABLE: u32 = 4;

/// Bytes of the commit word in front of every payload.
pub const RECORD_HEADER_BYTES: usize = 8;
/// Smallest and largest capacity of a ring, bytes.
pub const CAPACITY_MIN_BYTES: u64 = 4096;
/// Largest capacity of a ring, bytes.
pub const CAPACITY_MAX_BYTES: u64 = 1 << 40;
/// Largest message that a record's 24-bit length can say, bytes.
pub const MESSAGE_MAX_BYTES: usize = (1 << 24) - 1;
/// Most consumer slots a ring can be created with.
pub const CONSUMER_SLOTS_MAX: u32 = 1024;

const _: () = {
    assert!(HEADER_BYTES <= SMALL_PAGE_BYTES);
    assert!(HEADER_CHECKED_BYTES == 84 + NAME_MAX_BYTES);
    assert!(INDEX_PAGE == PRODUCER_PAGE + SMALL_PAGE_BYTES);
    assert!(cfg!(loom) || INDEX_PAGE + INDEX_ENTRIES as usize * 16 == CONTROL_BYTES);
    assert!(SLOT_NAME + CONSUMER_NAME_MAX_BYTES == SLOT_BYTES);
    assert!(TABLE_HEADER_BYTES.is_multiple_of(SLOT_BYTES));
    assert!(MESSAGE_MAX_BYTES < u32::MAX as usize);
};

/// Where things are in one particular ring: the checked header, reduced to what the hot path needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) capacity: u64,
    pub(crate) alignment: u64,
    /// `capacity - 1` and `alignment - 1`, which the hot path would else compute each time.
    capacity_mask: u64,
    alignment_mask: u64,
    pub(crate) max_message: usize,
    pub(crate) slots: usize,
    pub(crate) table: usize,
    pub(crate) data: usize,
    pub(crate) file_bytes: usize,
    pub(crate) lossy: bool,
    pub(crate) parkable: bool,
    pub(crate) evictable: bool,
}

impl Geometry {
    /// Lays the regions out; the caller has checked the ranges.
    pub(crate) fn new(granule: usize, capacity: u64, alignment: u64, slots: usize) -> Self {
        let table = CONTROL_BYTES.next_multiple_of(granule);
        let table_bytes = (TABLE_HEADER_BYTES + slots * SLOT_BYTES).next_multiple_of(granule);
        let data = table + table_bytes;
        Self {
            capacity,
            alignment,
            capacity_mask: capacity - 1,
            alignment_mask: alignment - 1,
            max_message: Self::largest_message(capacity, alignment),
            slots,
            table,
            data,
            file_bytes: data + (capacity as usize).next_multiple_of(granule),
            lossy: false,
            parkable: false,
            evictable: false,
        }
    }

    /// The largest message for which a padding record, the record and the commit word behind it
    /// always fit in one lap: `2 × record + alignment <= capacity`.
    pub(crate) fn largest_message(capacity: u64, alignment: u64) -> usize {
        let record = (capacity - alignment) / 2 / alignment * alignment;
        (record as usize - RECORD_HEADER_BYTES).min(MESSAGE_MAX_BYTES)
    }

    /// Bytes a payload of `len` occupies in the data, commit word and padding included.
    #[inline(always)]
    pub(crate) fn record_bytes(&self, len: usize) -> u64 {
        (len as u64 + RECORD_HEADER_BYTES as u64 + self.alignment_mask) & !self.alignment_mask
    }

    /// File offset of a stream position.
    #[inline(always)]
    pub(crate) fn offset(&self, position: u64) -> usize {
        self.data + (position & self.capacity_mask) as usize
    }

    /// Whether a record of `bytes` at `position` stays within its lap.
    #[inline(always)]
    pub(crate) fn fits_lap(&self, position: u64, bytes: u64) -> bool {
        (position & self.capacity_mask) + bytes <= self.capacity
    }

    /// First position of the next lap.
    #[inline(always)]
    pub(crate) fn lap_end(&self, position: u64) -> u64 {
        (position | self.capacity_mask) + 1
    }

    /// How far the frontier runs ahead of the head: 1/64 of the ring, 16 KiB at most, so that the
    /// housekeeping at each step is paid once in at least 128 messages on a ring of 1 MiB or more
    /// (out of the way of p99), and little of the history is given up for it.
    pub(crate) fn chunk(&self) -> u64 {
        (self.capacity / 64).clamp(self.alignment, 16 * 1024)
    }

    /// Index entry that covers a position.
    #[inline(always)]
    pub(crate) fn index_entry(&self, position: u64) -> u64 {
        (position & self.capacity_mask)
            >> (self.capacity.trailing_zeros() - INDEX_ENTRIES.trailing_zeros())
    }

    pub(crate) fn index_offset(&self, entry: u64) -> usize {
        INDEX_PAGE + entry as usize * 16
    }

    pub(crate) fn slot_offset(&self, slot: usize) -> usize {
        self.table + TABLE_HEADER_BYTES + slot * SLOT_BYTES
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn regions_follow_each_other_without_overlap() {
        for granule in [4096, 2 << 20] {
            for slots in [1, 30, 31, 32, 1024] {
                let g = Geometry::new(granule, 4096, 64, slots);
                assert!(g.table >= CONTROL_BYTES && g.table.is_multiple_of(granule));
                assert!(g.data >= g.slot_offset(slots - 1) + SLOT_BYTES);
                assert!(g.data.is_multiple_of(granule) && g.file_bytes >= g.data + 4096);
            }
        }
    }

    #[test]
    fn largest_message_leaves_room_for_padding_and_the_word_behind() {
        for alignment in [16, 32, 64, 128] {
            let g = Geometry::new(4096, 4096, alignment, 1);
            let record = g.record_bytes(g.max_message);
            assert!(2 * record + alignment <= g.capacity);
            assert!(2 * g.record_bytes(g.max_message + 1) + alignment > g.capacity);
        }
    }
}
