//! How much may be sent: so many bytes a second, over everything.

/// What may be sent at once, as a part of a second.
const BURST_PART: u64 = 100;
/// At least that much, bytes: a burst of datagrams.
const BURST_MIN_BYTES: u64 = 128 << 10;

/// Bytes that may be sent: earned as time goes by, spent by sending. One sending may overdraw it.
#[derive(Debug)]
pub(super) struct Pace {
    /// 0: no limit.
    bytes_per_second: u64,
    burst: i64,
    left: i64,
    at: u64,
}

impl Pace {
    pub(super) fn new(bytes_per_second: u64, now: u64) -> Self {
        let burst = (bytes_per_second / BURST_PART).max(BURST_MIN_BYTES);
        let burst = i64::try_from(burst).unwrap_or(i64::MAX);
        Self { bytes_per_second, burst, left: burst, at: now }
    }

    /// How many bytes may be sent now.
    pub(super) fn room(&mut self, now: u64) -> usize {
        if self.bytes_per_second == 0 {
            return usize::MAX;
        }
        let elapsed_ns = now.saturating_sub(self.at);
        let earned = u128::from(elapsed_ns) * u128::from(self.bytes_per_second) / 1_000_000_000;
        if earned > 0 {
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            self.left = self.left.saturating_add(earned).min(self.burst);
            self.at = now;
        }
        usize::try_from(self.left).unwrap_or(0)
    }

    /// So many were sent.
    pub(super) fn take(&mut self, bytes: usize) {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.left = self.left.saturating_sub(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_was_earned_and_a_burst() {
        const RATE: u64 = 10_000_000;
        let mut pace = Pace::new(RATE, 5);
        let mut sent = 0_u64;
        for now in (5..1_000_000_005).step_by(1_000_003) {
            while pace.room(now) > 0 {
                let bytes = pace.room(now).min(60_000);
                pace.take(bytes);
                sent += bytes as u64;
            }
            assert!(sent <= BURST_MIN_BYTES + RATE * (now - 5) / 1_000_000_000, "{sent} at {now}");
        }
        assert!(sent > RATE * 9 / 10, "{sent}");
    }

    #[test]
    fn what_was_overdrawn_is_earned_first() {
        let mut pace = Pace::new(1_000_000, 0);
        pace.take(BURST_MIN_BYTES as usize + 1_000);
        assert_eq!(pace.room(500_000), 0);
        assert_eq!(pace.room(2_000_000), 1_000);
        assert_eq!(Pace::new(0, 0).room(0), usize::MAX);
    }
}
