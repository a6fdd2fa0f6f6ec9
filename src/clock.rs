//! Time: the CPU's own counter, calibrated, and a clock that stands still until it is told.

use std::cell::Cell;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A monotonic clock. Protocol code takes one of these and never looks at the system's.
pub trait Clock {
    /// Nanoseconds since an origin that is fixed for this clock.
    fn now_ns(&self) -> u64;
}

/// The time-stamp counter of the CPU (calibrated by the `quanta` crate), or the system's monotonic
/// clock where the CPU has no invariant counter.
///
/// Raw ticks are comparable between the processes of one host, so one process may subtract a tick
/// count that another wrote into a message. That needs a counter that runs alike on all
/// cores (`constant_tsc`, `nonstop_tsc`), which quanta checks for.
///
/// ```
/// use std::time::Duration;
/// use gapless::TscClock;
/// let clock = TscClock::new();
/// let start = clock.ticks();
/// let took_ns = clock.ns_between(start, clock.ticks());
/// assert!(took_ns < 1_000_000_000);
/// let calibration = clock.calibration(Duration::from_millis(20));
/// println!("{calibration}");
/// ```
#[derive(Clone, Debug)]
pub struct TscClock {
    clock: quanta::Clock,
    origin: u64,
}

/// How good a [`TscClock`] is, measured against the system's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// How much faster (or, negative, slower) than the system's clock it ran, parts per million.
    pub error_ppm: f64,
    /// How far off that measurement may be itself, parts per million.
    pub uncertainty_ppm: f64,
    /// Ticks a second; 1e9 where it counts nanoseconds of the system's clock.
    pub ticks_per_second: f64,
    /// What one reading costs, ns.
    pub read_cost_ns: f64,
}

impl std::fmt::Display for Calibration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.1} MHz, error {:+.1} ± {:.1} ppm against the system clock, {:.0} ns a reading",
            self.ticks_per_second / 1e6,
            self.error_ppm,
            self.uncertainty_ppm,
            self.read_cost_ns
        )
    }
}

impl TscClock {
    /// Calibrates the clock, once per process; takes up to 200 ms the first time.
    pub fn new() -> Self {
        let clock = quanta::Clock::new();
        let origin = clock.raw();
        Self { clock, origin }
    }

    /// The counter as it stands.
    #[inline]
    pub fn ticks(&self) -> u64 {
        self.clock.raw()
    }

    /// Nanoseconds from one reading to a later one; 0 if it is not later.
    #[inline]
    pub fn ns_between(&self, start_ticks: u64, end_ticks: u64) -> u64 {
        self.clock.delta_as_nanos(start_ticks, end_ticks)
    }

    /// Measures this clock against the system's over `interval` (20 ms gives about ±5 ppm on a
    /// quiet machine). The caller's thread is busy for that long.
    pub fn calibration(&self, interval: Duration) -> Calibration {
        let (start, start_ticks, start_slack) = self.read_both();
        while start.elapsed() < interval {
            std::hint::spin_loop();
        }
        let (end, end_ticks, end_slack) = self.read_both();
        let system_ns = end.duration_since(start).as_nanos() as f64;
        let ours_ns = self.ns_between(start_ticks, end_ticks) as f64;
        const READINGS: u32 = 1000;
        let before = self.ticks();
        for _ in 0..READINGS {
            std::hint::black_box(self.ticks());
        }
        let cost = self.ns_between(before, self.ticks()) as f64 / f64::from(READINGS);
        Calibration {
            error_ppm: (ours_ns - system_ns) / system_ns * 1e6,
            uncertainty_ppm: (start_slack + end_slack) as f64 / system_ns * 1e6,
            ticks_per_second: (end_ticks - start_ticks) as f64 / system_ns * 1e9,
            read_cost_ns: cost,
        }
    }

    /// Reads both clocks as close together as can be had, and says how close, ns.
    fn read_both(&self) -> (Instant, u64, u64) {
        let attempt = |_| {
            let before = self.ticks();
            let system = Instant::now();
            let after = self.ticks();
            (system, before + (after - before) / 2, self.ns_between(before, after))
        };
        let tries = (0..16).map(attempt);
        tries.min_by_key(|&(_, _, slack)| slack).expect("16 tries were made")
    }
}

impl Default for TscClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TscClock {
    #[inline]
    fn now_ns(&self) -> u64 {
        self.ns_between(self.origin, self.ticks())
    }
}

/// A clock that is moved by hand, for simulations and tests.
///
/// ```
/// use gapless::{Clock, ManualClock};
/// let clock = ManualClock::new();
/// clock.advance_ns(5);
/// assert_eq!(clock.now_ns(), 5);
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    now_ns: Cell<u64>,
}

impl ManualClock {
    /// A clock at 0.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the clock on.
    pub fn advance_ns(&self, ns: u64) {
        self.now_ns.set(self.now_ns.get().saturating_add(ns));
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> u64 {
        self.now_ns.get()
    }
}

/// Unix time that never runs back: the system's time when the clock was made, and what has passed
/// since by the monotonic clock, read from the CPU's counter and set anew 100 times a second.
///
/// It is as cheap as [`TscClock`]. A step of the system's clock is not followed, so that neither
/// intervals nor stamps jump; what NTP corrects by slewing is.
#[derive(Clone, Debug)]
pub struct UnixClock {
    tsc: TscClock,
    /// The system's monotonic clock when the system's time was `begun_ns`.
    begun: Instant,
    begun_ns: u64,
    /// Ticks, and the time at that tick.
    anchor: Cell<(u64, u64)>,
    last_ns: Cell<u64>,
}

/// Between two looks at the system's clock.
const ANCHOR_NS: u64 = 10_000_000;

impl UnixClock {
    /// Calibrates the counter, once per process; takes up to 200 ms the first time.
    pub fn new() -> Self {
        let tsc = TscClock::new();
        let begun = Instant::now();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let begun_ns = since.as_nanos() as u64;
        let clock =
            Self { tsc, begun, begun_ns, anchor: Cell::default(), last_ns: Cell::default() };
        clock.set();
        clock
    }

    /// Looks at the system's clock.
    #[cold]
    fn set(&self) -> u64 {
        let (system, ticks, _) = self.tsc.read_both();
        let now_ns = self.begun_ns + system.saturating_duration_since(self.begun).as_nanos() as u64;
        self.anchor.set((ticks, now_ns));
        now_ns
    }
}

impl Default for UnixClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for UnixClock {
    /// Unix time, ns.
    #[inline]
    fn now_ns(&self) -> u64 {
        let (ticks, anchor_ns) = self.anchor.get();
        let since = self.tsc.ns_between(ticks, self.tsc.ticks());
        let now_ns = if since >= ANCHOR_NS { self.set() } else { anchor_ns + since };
        let now_ns = now_ns.max(self.last_ns.get());
        self.last_ns.set(now_ns);
        now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unix_time_is_the_system_s() {
        let clock = UnixClock::new();
        let system = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let before = system();
        let here = clock.now_ns();
        // The counter and the system's clock may be set apart by a step of the system's.
        assert!(here.abs_diff(before) < 1_000_000_000, "{here} {before}");
    }

    #[test]
    fn the_counter_runs_forward_and_states_its_error() {
        let clock = TscClock::new();
        let first = clock.now_ns();
        let calibration = clock.calibration(Duration::from_millis(5));
        assert!(clock.now_ns() - first >= 5_000_000 * 9 / 10);
        assert!(calibration.ticks_per_second > 1e6, "{calibration}");
        assert!(calibration.uncertainty_ppm.is_finite() && calibration.error_ppm.is_finite());
        assert_eq!(clock.ns_between(10, 5), 0);
    }
}
