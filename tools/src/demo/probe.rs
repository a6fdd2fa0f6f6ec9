//! What the figures of the demo depend on besides the ring: how far apart two cores are (the round
//! trip of one cache line between them), and how busy the machine is.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use gapless::{TscClock, pin_current_thread};

const BATCHES: usize = 20;
const ROUNDS_PER_BATCH: u64 = 2_000;
/// Looks at the other side before a thread suspects that it does not run.
const PATIENCE: u64 = 100_000_000;
/// Cores that share a cache answer within this; measured: some 90 ns near, 430 ns far.
const NEAR_MAX_NS: u64 = 250;

/// On a pair of cache lines of its own.
#[repr(align(128))]
struct Line(AtomicU64);

/// "near" or "far", in words.
pub(super) fn class_text(round_trip_ns: u64) -> &'static str {
    if round_trip_ns <= NEAR_MAX_NS {
        "near: they share a cache"
    } else {
        "far: no cache in common, or one of the cores was busy"
    }
}

/// Processes that wanted a core, on average over the last minute; `None` if the system does not
/// tell.
pub(super) fn load_average() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Round trip of a cache line between two cores, ns: the best batch, since anything else on those
/// cores can only slow it down. `None` if a core cannot be had.
pub(super) fn round_trip_ns(clock: &TscClock, ours: usize, theirs: usize) -> Option<u64> {
    let line = Line(AtomicU64::new(0));
    let given_up = AtomicBool::new(false);
    thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let pinned = pin_current_thread(theirs).is_ok();
            for round in 0..BATCHES as u64 * ROUNDS_PER_BATCH {
                // Relaxed: it says only that nobody answers any more.
                if !pinned || !await_value(&line, 2 * round + 1, &given_up) {
                    given_up.store(true, Ordering::Relaxed);
                    return false;
                }
                line.0.store(2 * round + 2, Ordering::Release); // pairs with: LINE
            }
            true
        });
        let call = scope.spawn(|| {
            let pinned = pin_current_thread(ours).is_ok();
            let mut round = 0;
            let mut best_ns = u64::MAX;
            for _ in 0..BATCHES {
                let start = clock.ticks();
                for _ in 0..ROUNDS_PER_BATCH {
                    line.0.store(2 * round + 1, Ordering::Release); // pairs with: LINE
                    if !pinned || !await_value(&line, 2 * round + 2, &given_up) {
                        given_up.store(true, Ordering::Relaxed);
                        return None;
                    }
                    round += 1;
                }
                let took_ns = clock.ns_between(start, clock.ticks());
                best_ns = best_ns.min(took_ns / ROUNDS_PER_BATCH);
            }
            Some(best_ns)
        });
        let answered = echo.join().unwrap_or(false);
        call.join().ok().flatten().filter(|_| answered)
    })
}

fn await_value(line: &Line, value: u64, given_up: &AtomicBool) -> bool {
    for _ in 0..PATIENCE {
        // pairs with: LINE
        if line.0.load(Ordering::Acquire) == value {
            return true;
        }
        spin_loop();
        if given_up.load(Ordering::Relaxed) {
            return false;
        }
    }
    false
}
