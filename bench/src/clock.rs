//! The timer: raw time-stamp-counter ticks, and their rate against the system's clock.
//!
//! Ticks of two processes compare directly where the counter is invariant and synchronised between
//! cores (every x86-64 server of the last decade). Reading is not serialising: a reading may move
//! by a few nanoseconds against the loads and stores around it, for every case alike.

use std::time::{Duration, Instant};

/// Calibration compares the two clocks over this long: the error is some 50 ns in it, 1e-6.
const CALIBRATION: Duration = Duration::from_millis(50);
/// Readings that the timer's own cost is taken from.
const COST_READINGS: u32 = 100_000;

/// The raw counter.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
pub(crate) fn ticks() -> u64 {
    // SAFETY: the instruction is part of the x86-64 base set, touches no memory, and Linux leaves
    // it enabled in user space.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Nanoseconds of the monotonic clock, where there is no counter that we know how to read.
#[inline(always)]
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn ticks() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |t| t.tv_sec() as u64 * 1_000_000_000 + t.tv_nsec() as u64)
}

/// What the timer is, as reports name it.
pub(crate) const NAME: &str = if cfg!(target_arch = "x86_64") { "tsc" } else { "monotonic" };

/// The rate of the counter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    ticks_per_ns: f64,
}

impl Clock {
    /// Compares the counter with the system's clock for 50 ms.
    pub(crate) fn calibrate() -> Self {
        let (from, from_ticks) = reading();
        while from.elapsed() < CALIBRATION {
            std::hint::spin_loop();
        }
        let (to, to_ticks) = reading();
        let ns = to.duration_since(from).as_nanos() as f64;
        Self::with_rate((to_ticks - from_ticks) as f64 / ns)
    }

    /// A clock whose rate is known: the partner takes its parent's.
    pub(crate) fn with_rate(ticks_per_ns: f64) -> Self {
        Self { ticks_per_ns }
    }

    pub(crate) fn ticks_per_ns(self) -> f64 {
        self.ticks_per_ns
    }

    pub(crate) fn to_ns(self, ticks: u64) -> f64 {
        ticks as f64 / self.ticks_per_ns
    }

    pub(crate) fn to_ticks(self, duration: Duration) -> u64 {
        (duration.as_nanos() as f64 * self.ticks_per_ns) as u64
    }

    /// Mean cost of one reading in a row of readings.
    pub(crate) fn timer_cost_ns(self) -> f64 {
        let from = ticks();
        for _ in 0..COST_READINGS {
            std::hint::black_box(ticks());
        }
        self.to_ns(ticks() - from) / f64::from(COST_READINGS)
    }
}

/// Both clocks at one moment: of several attempts, the one with the counter readings closest.
fn reading() -> (Instant, u64) {
    let attempt = || {
        let before = ticks();
        let now = Instant::now();
        let after = ticks();
        (after.saturating_sub(before), now, before / 2 + after / 2)
    };
    let (_, now, at) = (0..16)
        .map(|_| attempt())
        .min_by_key(|&(width, ..)| width)
        .expect("sixteen attempts were made");
    (now, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_runs_at_the_rate_that_was_calibrated() {
        let clock = Clock::calibrate();
        let (from, wall) = (ticks(), Instant::now());
        while wall.elapsed() < Duration::from_millis(20) {}
        let (passed, wall) = (clock.to_ns(ticks() - from), wall.elapsed());
        // Whoever takes the core away between the readings makes `wall` the longer one.
        assert!(passed >= 19.9e6, "{passed}");
        assert!(passed <= wall.as_nanos() as f64 * 1.01, "{passed} {wall:?}");
    }

    #[test]
    fn durations_survive_the_way_there_and_back() {
        let clock = Clock::with_rate(2.5);
        assert_eq!(clock.to_ticks(Duration::from_micros(4)), 10_000);
        assert_eq!(clock.to_ns(10_000), 4_000.0);
    }
}
