//! Lossy mode: a producer that waits for nobody, a consumer that must account for every message.

use anyhow::{Context, Result, ensure};
use gapless_shm::{Mode, PollError};

use crate::clock::ticks;
use crate::control::Word;
use crate::ring;
use crate::scenario::{Outcome, Scenario, Session};

/// Floods a lossy ring with messages of 48 B. The rate is the producer's; how much of it was
/// delivered is told beside it. What was missed must add up, and no message may be torn.
pub(crate) struct Lossy;

const OPENED: u64 = 1;
const STARTED: u64 = 2;
const DRAINED: u64 = 3;
const POLL_LIMIT: usize = 256;
/// Messages between two looks at the stop word.
const CHUNK: u64 = 4096;
/// Different payloads, used in turn: message `n` is payload `n % 256`.
const PATTERNS: u64 = 256;
const WORDS: usize = 6;

/// Six words that all say which payload this is.
fn pattern(n: u64) -> [u8; WORDS * 8] {
    let word = (n % PATTERNS).wrapping_mul(0x0101_0101_0101_0101).to_ne_bytes();
    let mut bytes = [0; WORDS * 8];
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&word);
    }
    bytes
}

impl Scenario for Lossy {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let control = session.control;
        let clock = session.clock;
        control.wait_for(Word::Stage, OPENED)?;
        let mut consumer = ring::attach(session.dir, "flow")?;
        let patterns: Vec<_> = (0..PATTERNS).map(pattern).collect();
        control.set(Word::Stage, STARTED);
        let (mut seen, mut missed, mut laps, mut torn) = (0u64, 0u64, 0u64, 0u64);
        let (warm, end) = session.schedule();
        let from = ticks();
        let mut stopped_at = None;
        let mut watch = control.watch();
        loop {
            let polled = consumer.poll(POLL_LIMIT, |message| {
                let expected = &patterns[(message.sequence % PATTERNS) as usize];
                torn += u64::from(message.payload != expected);
            });
            match polled {
                Ok(0) => {
                    if control.get(Word::Total) == seen + missed + 1 {
                        break;
                    }
                    watch.stopped()?;
                    std::hint::spin_loop();
                }
                Ok(count) => seen += count as u64,
                Err(PollError::Lapped { missed: gap, .. }) => {
                    missed += gap;
                    laps += 1;
                }
                Err(error) => return Err(error).context("poll"),
            }
            let now = ticks();
            if stopped_at.is_none() && now > end {
                control.set(Word::Stop, 1);
                stopped_at = Some(now);
            }
            ensure!(
                control.get(Word::Total) == 0 || seen + missed < control.get(Word::Total),
                "{seen} seen and {missed} missed are more than were sent"
            );
        }
        ensure!(torn == 0, "{torn} of {seen} messages were torn");
        control.set(Word::Stage, DRAINED);
        let long = stopped_at.unwrap_or(warm) - from;
        let published = control.get(Word::Total) - 1;
        let rate = control.get(Word::Progress) as f64 / 1e6;
        Ok(Outcome { rate_mps: Some(rate), ..Outcome::default() }
            .with_detail("published", published as f64)
            .with_detail("delivered_mps", seen as f64 * 1e3 / clock.to_ns(long))
            .with_detail("missed", missed as f64)
            .with_detail("laps", laps as f64))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let control = session.control;
        let ring = ring::options(session.dir).mode(Mode::Lossy).create("flow");
        let mut producer = ring.context("create the ring")?;
        let patterns: Vec<_> = (0..PATTERNS).map(pattern).collect();
        control.set(Word::Stage, OPENED);
        control.wait_for(Word::Stage, STARTED)?;
        let from = ticks();
        let mut sent = 0;
        while !control.is_stopped() {
            for _ in 0..CHUNK {
                let next = producer.next_sequence();
                sent = producer
                    .try_publish(&patterns[(next % PATTERNS) as usize])
                    .context("publish")?;
            }
        }
        let ns = session.clock.to_ns(ticks() - from);
        // Messages a second.
        control.set(Word::Progress, (sent as f64 * 1e9 / ns) as u64);
        control.set(Word::Total, sent + 1);
        control.wait_for(Word::Stage, DRAINED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_payloads_differ_in_every_word() {
        for (one, other) in pattern(7).chunks(8).zip(pattern(8).chunks(8)) {
            assert_ne!(one, other);
        }
        assert_eq!(pattern(3), pattern(3 + PATTERNS));
    }
}
