//! Reading ahead of a length: the guess that the next record is as long as the last.

use crate::sync::launder;

/// Where the next record starts is known only from the length in this one: each would wait for the
/// last one's cache line to arrive. So the length is guessed to be the last one's, which lets the
/// processor load ahead, and the guess is then compared: streams of equal records are read at
/// nearly twice the rate. Where a guess fails, none is made for a while, so that records of mixed
/// lengths do not pay for failed guesses.
///
/// One word: the guess in the low half, and above it how many records to read without guessing.
#[derive(Clone, Copy, Default)]
pub(crate) struct Stride(u64);

/// Records read without guessing after a guess that failed.
const DISTRUST_RECORDS: u64 = 64;
const DISTRUST_ONE: u64 = 1 << 32;

impl Stride {
    /// Returns `bytes`, by way of the guess.
    #[inline(always)]
    pub(crate) fn guess(&mut self, bytes: u64) -> u64 {
        if self.0 == bytes {
            return launder(self.0);
        }
        self.0 = match self.0.checked_sub(DISTRUST_ONE) {
            None => DISTRUST_RECORDS * DISTRUST_ONE,
            Some(last) if last < DISTRUST_ONE => bytes,
            Some(less) => less,
        };
        bytes
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_guessed_the_length_is_right() {
        let mut stride = Stride::default();
        for n in 0..1000u64 {
            let bytes = if n % 300 < 200 { 64 } else { 64 + n % 7 * 64 };
            assert_eq!(stride.guess(bytes), bytes);
        }
    }

    #[test]
    fn trust_returns_after_a_failed_guess() {
        let mut stride = Stride(64);
        stride.guess(128);
        assert_eq!(stride.0, DISTRUST_RECORDS * DISTRUST_ONE);
        for _ in 0..DISTRUST_RECORDS {
            stride.guess(128);
        }
        assert_eq!(stride.0, 128);
    }
}
