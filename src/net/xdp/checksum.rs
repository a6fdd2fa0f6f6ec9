//! The Internet checksum (RFC 1071) of whatever a packet is made of, a piece at a time.
//!
//! Sums are kept in the machine's own byte order, which a ones' complement sum allows: a result is
//! stored as it stands in memory, and no word of the payload is swapped. Costs about 2 ns and
//! 0.02 ns a byte.

/// A sum of 16-bit words that is not folded yet. Has room for 2³¹ additions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u64);

impl Sum {
    /// Adds a word as it stands in the packet.
    #[inline]
    pub(super) const fn word(self, word: [u8; 2]) -> Self {
        Self(self.0 + u16::from_ne_bytes(word) as u64)
    }

    #[inline]
    const fn four(self, bytes: [u8; 4]) -> Self {
        Self(self.0 + u32::from_ne_bytes(bytes) as u64)
    }

    /// Adds bytes that begin at an even offset of the packet. An odd one at the end counts as if
    /// a zero followed, so only the last piece may have one.
    #[inline]
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let (words, mut rest) = bytes.as_chunks::<8>();
        // Of each eight bytes, all 64 bits, wrapping, and the upper 32: the lower halves' sum is
        // the former without the latter. The compiler makes vectors of it: 25 ns for 1,400 bytes,
        // where both halves added apart take 30, and words added with carry 28 to 46.
        let (mut all, mut upper) = (0_u64, 0_u64);
        for word in words {
            let word = u64::from_ne_bytes(*word);
            all = all.wrapping_add(word);
            upper = upper.wrapping_add(word >> 32);
        }
        let mut sum = Self(self.0 + all.wrapping_sub(upper << 32) + upper);
        if let Some((four, behind)) = rest.split_first_chunk() {
            (sum, rest) = (sum.four(*four), behind);
        }
        if let Some((two, behind)) = rest.split_first_chunk() {
            (sum, rest) = (sum.word(*two), behind);
        }
        if let [last] = rest {
            sum = sum.word([*last, 0]);
        }
        sum
    }

    /// The ones' complement sum, as it stands in the packet: 0xFFFF over data that has its
    /// checksum in it. 0 only if nothing but zeros was added.
    #[inline]
    pub(super) const fn fold(self) -> u16 {
        let sum = (self.0 >> 32) + (self.0 & 0xFFFF_FFFF); // 33 bits
        let sum = (sum >> 16) + (sum & 0xFFFF); // 18 bits
        let sum = (sum >> 16) + (sum & 0xFFFF); // 17 bits
        ((sum >> 16) + (sum & 0xFFFF)) as u16
    }

    /// The checksum, as it stands in the packet.
    #[inline]
    pub(super) const fn checksum(self) -> [u8; 2] {
        (!self.fold()).to_ne_bytes()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Word by word, as RFC 1071 has it.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            if sum > 0xFFFF {
                sum -= 0xFFFF;
            }
        }
        sum as u16
    }

    fn folded(bytes: &[u8]) -> u16 {
        u16::from_be_bytes(Sum::default().bytes(bytes).fold().to_ne_bytes())
    }

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7];
        assert_eq!(folded(&bytes), 0xDDF2);
        assert_eq!(Sum::default().bytes(&bytes).checksum(), [0x22, 0x0D]);
    }

    #[test]
    fn sums_that_carry_to_the_last() {
        for len in 0..600 {
            for byte in [0, 1, 0x7F, 0x80, 0xFE, 0xFF] {
                let bytes = vec![byte; len];
                assert_eq!(folded(&bytes), naive(&bytes), "{len} bytes of {byte}");
            }
        }
        assert_eq!(folded(&[0xFF; 65_536]), 0xFFFF);
        assert_eq!(folded(&[0; 65_536]), 0);
        assert_eq!(Sum(u64::MAX).fold(), 0xFFFF);
        assert_eq!(Sum(0xFFFF_FFFF_FFFF_0000).fold(), 0xFFFF);
        assert_eq!(Sum(0xFFFF_FFFF_0001_0000).fold(), 1); // carries at every step
    }

    fn bytes(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), len)
    }

    proptest! {
        #[test]
        fn as_word_by_word(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert_eq!(folded(&bytes), naive(&bytes));
        }

        #[test]
        fn in_pieces_as_in_one(bytes in bytes(0..300), at in 0..150_usize) {
            let (front, back) = bytes.split_at((at * 2).min(bytes.len() & !1));
            let pieces = Sum::default().bytes(front).bytes(back);
            prop_assert_eq!(pieces.fold(), Sum::default().bytes(&bytes).fold());
        }

        #[test]
        fn with_its_checksum_it_is_all_ones(mut bytes in bytes(2..200)) {
            bytes[..2].fill(0);
            let checksum = Sum::default().bytes(&bytes).checksum();
            bytes[..2].copy_from_slice(&checksum);
            prop_assert_eq!(Sum::default().bytes(&bytes).fold(), 0xFFFF);
        }
    }
}
