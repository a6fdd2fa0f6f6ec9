//! The floors that logs are judged by: what this disk, through the page cache or around it, and
//! this memory do by themselves. Nothing of the library is in them.

mod memory;
mod segments;
mod write;

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

pub(crate) use memory::{Copy, Read};
pub(crate) use write::{Burst, Write};

/// Time that this thread had its core so far. Unlike other clocks it stands still while somebody
/// else has it.
pub(crate) fn core_time() -> Duration {
    let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID);
    now.map_or(Duration::ZERO, Duration::from)
}

/// Bytes over time.
pub(crate) fn gigabytes_per_s(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / took.as_nanos().max(1) as f64
}

/// Bytes of a record in a log: a word in front, and the payload rounded up to whole words.
pub(crate) const fn record_bytes(payload_bytes: usize) -> usize {
    8 + payload_bytes.next_multiple_of(8)
}
