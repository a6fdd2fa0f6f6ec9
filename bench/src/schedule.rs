//! Open-loop load: messages are due at fixed times, whatever became of the ones before.
//!
//! Latency is taken from the time a message was *due*, not from when it was sent. A sender that
//! stalls for a millisecond at a million messages a second makes a thousand messages late, and all
//! of them count; measured from the time of sending, the stall would be one sample in a million
//! (coordinated omission).

/// When message `n` is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start: u64,
    interval_ticks: f64,
}

impl Schedule {
    /// The first message is due at `start`.
    pub(crate) fn new(start: u64, interval_ticks: f64) -> Self {
        Self { start, interval_ticks }
    }

    /// The tick at which message `n` (from 0) is due.
    #[inline(always)]
    pub(crate) fn due(&self, n: u64) -> u64 {
        self.start + (n as f64 * self.interval_ticks) as u64
    }
}

/// Sends `count` messages on schedule: `send` is called with the tick each is due at, never before
/// it, and as soon as possible if the schedule has been missed. Ends early if `send` says false.
/// Both closures get `state`; `now` is called again and again until a message is due.
#[inline(always)]
pub(crate) fn run_schedule<S>(
    schedule: Schedule,
    count: u64,
    state: &mut S,
    mut now: impl FnMut(&mut S) -> u64,
    mut send: impl FnMut(&mut S, u64) -> bool,
) {
    for n in 0..count {
        let due = schedule.due(n);
        while now(state) < due {}
        if !send(state, due) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::histogram;
    use std::cell::Cell;

    const MICROSECOND: u64 = 1_000;
    const MILLISECOND: u64 = 1_000_000;
    /// What a send and the way to the receiver take in these tests.
    const FLIGHT: u64 = 100;

    /// A paced run on a clock of 1 tick a nanosecond that moves 10 a reading; the sender loses
    /// `stall` in message 50,000 of 100,000. Returns p99.9 from the time due and of sending.
    fn p999_with_stall(stall: u64) -> (u64, u64) {
        let time = Cell::new(0);
        let now = |(): &mut ()| {
            time.set(time.get() + 10);
            time.get()
        };
        let (mut from_due, mut from_sending) = (histogram(), histogram());
        let mut sent = 0;
        run_schedule(Schedule::new(0, MICROSECOND as f64), 100_000, &mut (), now, |(), due| {
            if sent == 50_000 {
                time.set(time.get() + stall);
            }
            let sending = time.get();
            time.set(sending + FLIGHT);
            from_due.record(time.get() - due).unwrap();
            from_sending.record(time.get() - sending).unwrap();
            sent += 1;
            true
        });
        assert_eq!(sent, 100_000);
        (from_due.value_at_quantile(0.999), from_sending.value_at_quantile(0.999))
    }

    #[test]
    fn a_stall_shows_in_the_corrected_percentile_and_only_there() {
        let (corrected, uncorrected) = p999_with_stall(2 * MILLISECOND);
        assert!(corrected > MILLISECOND, "{corrected}");
        assert!(uncorrected <= FLIGHT, "{uncorrected}");
    }

    #[test]
    fn without_a_stall_nothing_is_late() {
        let (corrected, _) = p999_with_stall(0);
        assert!(corrected <= FLIGHT + 20, "{corrected}");
    }

    #[test]
    fn nothing_is_sent_before_it_is_due_and_a_refusal_ends_the_run() {
        let time = Cell::new(0);
        let now = |(): &mut ()| {
            time.set(time.get() + 7);
            time.get()
        };
        let mut dues = Vec::new();
        run_schedule(Schedule::new(100, 2.5), 10, &mut (), now, |(), due| {
            assert!(time.get() >= due);
            dues.push(due);
            dues.len() < 4
        });
        assert_eq!(dues, [100, 102, 105, 107]);
    }
}
