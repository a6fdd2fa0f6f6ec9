//! The commit word: length, flags and the low half of the sequence in eight bytes.

/// What a record says about the message it carries.
///
/// A message longer than the ring's maximum travels as several records; the first *begins*, the
/// last *ends* it. A whole message does both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// A whole message in one record.
    pub const WHOLE: Self = Self(Self::BEGIN_BIT | Self::END_BIT);
    /// The first of several fragments.
    pub const BEGIN: Self = Self(Self::BEGIN_BIT);
    /// A fragment between the first and the last.
    pub const MIDDLE: Self = Self(0);
    /// The last of several fragments.
    pub const END: Self = Self(Self::END_BIT);
    /// No message: one that was published elsewhere and reached this ring's producer neither at
    /// first nor when asked for again, and that nobody has any more. Stands in its place, empty, so
    /// that a loss is seen, and the sequence numbers stay true.
    pub const LOST: Self = Self(Self::BEGIN_BIT | Self::END_BIT | Self::LOST_BIT);

    const BEGIN_BIT: u8 = 0x01;
    const END_BIT: u8 = 0x02;
    const LOST_BIT: u8 = 0x04;
    const USER_BITS: u8 = Self::BEGIN_BIT | Self::END_BIT | Self::LOST_BIT;

    /// Whether a message begins with this record.
    pub fn begins(self) -> bool {
        self.0 & Self::BEGIN_BIT != 0
    }

    /// Whether a message ends with this record.
    pub fn ends(self) -> bool {
        self.0 & Self::END_BIT != 0
    }

    /// Whether this stands in place of a message that is lost.
    pub fn is_lost(self) -> bool {
        self.0 & Self::LOST_BIT != 0
    }

    /// The three bits as they stand in the record.
    pub fn bits(self) -> u8 {
        self.0
    }
}

/// A commit word as it stands in front of a record: in a ring, and in a log's block.
///
/// | bits | what |
/// |---|---|
/// | 0-23 | length of the payload, bytes |
/// | 24-26 | [`Flags`] |
/// | 27-29 | reserved, clear |
/// | 30 | padding to the end of a ring's lap |
/// | 31 | committed |
/// | 32-63 | low half of the sequence number |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitWord(pub(crate) u64);

const COMMITTED: u64 = 0x80 << 24;
const PADDING: u64 = 0x40 << 24;
const _: () = assert!(COMMITTED == 1 << 31);
const RESERVED: u64 = 0x38 << 24;
const LENGTH_MASK: u64 = (1 << 24) - 1;

impl CommitWord {
    /// One more than the largest length, bytes.
    pub const LENGTH_END: usize = 1 << 24;

    /// The word as it was read.
    #[inline(always)]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The word as it is written.
    #[inline(always)]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Whether this stands in front of message `sequence`, and has nothing that a message has not.
    #[inline(always)]
    pub fn is_message(self, sequence: u64) -> bool {
        self.is(sequence) && self.0 & (PADDING | RESERVED) == 0
    }

    /// The word of a message of `len` bytes, which are fewer than
    /// [`LENGTH_END`](Self::LENGTH_END).
    #[inline(always)]
    pub fn message(sequence: u64, len: usize, flags: Flags) -> Self {
        debug_assert!(len as u64 <= LENGTH_MASK);
        Self(sequence << 32 | COMMITTED | u64::from(flags.0) << 24 | len as u64)
    }

    /// Padding to the end of the lap; the length says nothing (the position says it all).
    pub(crate) fn padding(next_sequence: u64) -> Self {
        Self(next_sequence << 32 | COMMITTED | PADDING)
    }

    /// Whether this is the committed record of `sequence` (or padding in front of it).
    #[inline(always)]
    pub(crate) fn is(self, sequence: u64) -> bool {
        // The committed flag and the sequence are the 33 highest bits: one shift compares both.
        (self.0 ^ (sequence << 32 | COMMITTED)) >> 31 == 0
    }

    /// Whether this is no ordinary record: padding, a reserved bit set, or a length beyond `max`.
    /// One comparison for all, since those bits are above the length.
    #[inline(always)]
    pub(crate) fn is_odd_or_longer_than(self, max: usize) -> bool {
        self.0 & (PADDING | RESERVED | LENGTH_MASK) > max as u64
    }

    #[inline(always)]
    pub(crate) fn is_padding(self) -> bool {
        self.0 & PADDING != 0
    }

    /// Whether bits are set that this layout version leaves clear.
    pub(crate) fn has_reserved_bits(self) -> bool {
        self.0 & RESERVED != 0 || (self.is_padding() && self.0 & (LENGTH_MASK | 7 << 24) != 0)
    }

    /// Length of the payload, bytes.
    #[expect(clippy::len_without_is_empty, reason = "a word is not a container")]
    #[inline(always)]
    pub fn len(self) -> usize {
        (self.0 & LENGTH_MASK) as usize
    }

    /// Whether the message is whole or a fragment.
    #[inline(always)]
    pub fn flags(self) -> Flags {
        Flags((self.0 >> 24) as u8 & Flags::USER_BITS)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_documented() {
        let word = CommitWord::message(0x1_2345_6789, 0x30, Flags::WHOLE);
        assert_eq!(word.0, 0x2345_6789_8300_0030);
        assert!(word.is(0x1_2345_6789) && !word.is(0x1_2345_678a));
        assert_eq!((word.len(), word.flags()), (0x30, Flags::WHOLE));
        assert_eq!(CommitWord::padding(7).0, 0x0000_0007_c000_0000);
        assert!(CommitWord::padding(7).is_padding() && !CommitWord::padding(7).has_reserved_bits());
        assert!(CommitWord(word.0 | 0x10 << 24).has_reserved_bits());
    }

    #[test]
    fn a_cleared_word_is_no_record_of_any_sequence() {
        assert!(!CommitWord(0).is(0) && !CommitWord(0).is(1 << 32));
    }
}
