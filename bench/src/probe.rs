//! The core-to-core probe: one cache line passed to and fro, nothing else.
//!
//! It is the physical limit (`floor/line`), and it tells how far apart the two cores are at the
//! moment: virtual machines move. Every run is bracketed by it, and results are compared only
//! within a class.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, ticks};
use crate::control::{Control, Word};
use crate::scenario::histogram;

/// Below this median the cores share a cache.
const NEAR_BELOW_NS: f64 = 250.0;
/// How long the bracketing probes take.
const PROBE: Duration = Duration::from_millis(2);
/// Round trips that a probe makes at least, so that a partner which is not on its core at first
/// does not pass for one that is far away; but no longer than `PATIENCE` times its span.
const SAMPLES_MIN: u64 = 200;
const PATIENCE: u64 = 50;
/// Said instead of the next number when the lead has seen enough.
const END: u64 = u64::MAX;

/// How far apart the two sides ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Class {
    /// The line's round trip takes less than 250 ns: one last-level cache.
    Near,
    /// It takes longer: another cache complex, or socket.
    Far,
}

impl Class {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }
}

/// The probe's class of this moment, and its median round trip in ns.
pub(crate) fn classify(control: &Control, clock: Clock, line: Word) -> Result<(Class, f64)> {
    let samples = lead(control, line, clock.to_ticks(PROBE))?;
    let median_ns = clock.to_ns(samples.value_at_quantile(0.5));
    let near = median_ns < NEAR_BELOW_NS;
    Ok((if near { Class::Near } else { Class::Far }, median_ns))
}

/// Plays ball for `ticks_long` and returns the round trips, in ticks; at least one.
pub(crate) fn lead(control: &Control, line: Word, ticks_long: u64) -> Result<Histogram<u64>> {
    let mut samples = histogram();
    let word = control.word(line);
    let start = ticks();
    let (end, limit) = (start + ticks_long, start + PATIENCE * ticks_long);
    let mut watch = control.watch();
    let mut ball = 1;
    loop {
        let from = ticks();
        word.store(ball, Ordering::Release); // pairs with: BALL
        while word.load(Ordering::Acquire) != ball + 1 {
            watch.stopped()?;
            std::hint::spin_loop();
        }
        let now = ticks();
        samples.saturating_record(now.saturating_sub(from));
        ball += 2;
        if now > end && (samples.len() >= SAMPLES_MIN || now > limit) {
            word.store(END, Ordering::Release); // pairs with: BALL
            return Ok(samples);
        }
    }
}

/// Returns the ball until the lead has seen enough.
pub(crate) fn follow(control: &Control, line: Word) -> Result<()> {
    let word = control.word(line);
    let mut watch = control.watch();
    let mut ball = 1;
    loop {
        match word.load(Ordering::Acquire) {
            END => return Ok(()),
            seen if seen == ball => {
                word.store(ball + 1, Ordering::Release); // pairs with: BALL
                ball += 2;
            }
            _ => {
                watch.stopped()?;
                std::hint::spin_loop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ball_comes_back_until_the_lead_ends_the_game() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::with_rate(1.0);
        let control = Control::create(dir.path(), clock).unwrap();
        std::thread::scope(|scope| {
            let partner = scope.spawn(|| follow(&control, Word::ProbeBefore));
            let samples = lead(&control, Word::ProbeBefore, 1_000_000).unwrap();
            assert!(!samples.is_empty());
            partner.join().unwrap().unwrap();
        });
    }
}
