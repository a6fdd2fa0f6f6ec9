//! `floor/memcpy`: what copying alone costs, in blocks of 1 KiB.

use std::hint::black_box;

use anyhow::Result;

use crate::clock::ticks;
use crate::control::Word;
use crate::link::CAPACITY_BYTES;
use crate::scenario::{Outcome, Scenario, Session};

/// Copies blocks within a buffer of the ring's size, on one core; the other one rests.
pub(crate) struct Memcpy;

const BLOCK: usize = 1024;

impl Scenario for Memcpy {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let from_block = [0x5a; BLOCK];
        let mut ring = vec![0u8; CAPACITY_BYTES as usize];
        let (warm, end) = session.schedule();
        let (mut copied, mut from) = (0u64, 0);
        let now = loop {
            for block in ring.chunks_exact_mut(BLOCK) {
                block.copy_from_slice(black_box(&from_block));
            }
            black_box(&mut ring);
            let now = ticks();
            if now < warm {
                from = now;
            } else {
                copied += CAPACITY_BYTES / BLOCK as u64;
            }
            if now > end {
                break now;
            }
        };
        session.control.set(Word::Stop, 1);
        let ns = session.clock.to_ns(now - from);
        let outcome = Outcome::rate(session.clock, copied, now - from);
        Ok(outcome.with_detail("gigabytes_per_s", (copied * BLOCK as u64) as f64 / ns))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.wait_for(Word::Stop, 1)
    }
}
