//! `floor/read/N`, `floor/copy/N`: records read, and copied, out of memory far larger than any
//! cache, by one core. Replay from the page cache can do no better.

use std::hint::black_box;

use anyhow::Result;

use super::record_bytes;
use crate::clock::ticks;
use crate::control::Word;
use crate::link::consume;
use crate::scenario::{Outcome, Scenario, Session};

/// Several times the last-level cache of any machine that this is run on.
const BUFFER_BYTES: usize = 256 << 20;

/// Reads records of `N` bytes in order, one word of each line.
pub(crate) struct Read<const N: usize>;

/// Copies records of `N` bytes in order, out of the large buffer into a small one.
pub(crate) struct Copy<const N: usize>;

/// Goes through the buffer until the run is over; `pass` takes all records in it.
fn run(session: &Session<'_>, record: usize, mut pass: impl FnMut(&[u8])) -> Result<Outcome> {
    let buffer = vec![0x5a_u8; BUFFER_BYTES];
    let part = record * 4096;
    let (warm, end) = session.schedule();
    let (mut bytes, mut from) = (0u64, 0);
    let mut parts = buffer.chunks_exact(part).cycle();
    let now = loop {
        pass(black_box(parts.next().unwrap_or_default()));
        let now = ticks();
        if now < warm {
            from = now;
        } else {
            bytes += part as u64;
        }
        if now > end {
            break now;
        }
    };
    session.control.set(Word::Stop, 1);
    let ns = session.clock.to_ns(now - from);
    let outcome = Outcome::rate(session.clock, bytes / record as u64, now - from);
    Ok(outcome.with_detail("gigabytes_per_s", bytes as f64 / ns))
}

impl<const N: usize> Scenario for Read<N> {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let record = record_bytes(N);
        let mut sum = 0u64;
        let outcome = run(session, record, |part| {
            for record in part.chunks_exact(record) {
                sum = sum.wrapping_add(consume(&record[..8]));
                sum = sum.wrapping_add(consume(&record[8..8 + N]));
            }
        });
        black_box(sum);
        outcome
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.doze_until(Word::Stop, 1)
    }
}

impl<const N: usize> Scenario for Copy<N> {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let record = record_bytes(N);
        let mut into = [0u8; N];
        run(session, record, |part| {
            for record in part.chunks_exact(record) {
                into.copy_from_slice(&record[8..8 + N]);
                black_box(&mut into);
            }
        })
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.doze_until(Word::Stop, 1)
    }
}
