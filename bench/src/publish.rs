//! What publishing costs the producer, with many consumers attached.
//!
//! Bursts are timed, the waiting for the consumers between them is not: a burst always finds room,
//! as it does in service. The consumers are polled in turn by one process, so that two busy threads
//! stay two.

use anyhow::{Context, Result, ensure};

use crate::clock::ticks;
use crate::control::Word;
use crate::ring;
use crate::scenario::{Outcome, Scenario, Session, histogram};

/// Publishes bursts of 48 B to a number of gating consumers.
pub(crate) struct Publish {
    pub(crate) consumers: usize,
}

/// Messages in a burst.
const BURST: u32 = 256;
const PAYLOAD: [u8; 48] = [0x5a; 48];
const OPENED: u64 = 1;
const ATTACHED: u64 = 2;

impl Scenario for Publish {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let control = session.control;
        let ring = ring::options(session.dir).create("flow");
        let mut producer = ring.context("create the ring")?;
        control.set(Word::Stage, OPENED);
        control.wait_for(Word::Stage, ATTACHED)?;
        let mut samples = histogram();
        let mut watch = control.watch();
        let mut published = 0;
        let (warm, end) = session.schedule();
        loop {
            let from = ticks();
            for _ in 0..BURST {
                published = producer.try_publish(&PAYLOAD).context("publish")?;
            }
            let now = ticks();
            if now > warm {
                samples.saturating_record(now - from);
            }
            if now > end {
                break;
            }
            while self.consumers > 0 && control.get(Word::Progress) < published {
                watch.stopped()?;
                std::hint::spin_loop();
            }
        }
        control.set(Word::Stop, 1);
        Ok(Outcome { operations_per_sample: BURST, ..Outcome::latency(samples) }
            .with_detail("consumers", self.consumers as f64))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let control = session.control;
        control.wait_for(Word::Stage, OPENED)?;
        let attached: Result<Vec<_>> =
            (0..self.consumers).map(|_| ring::attach(session.dir, "flow")).collect();
        let mut consumers = attached?;
        ensure!(consumers.iter().all(gapless_shm::Consumer::is_gating));
        control.set(Word::Stage, ATTACHED);
        let mut watch = control.watch();
        loop {
            let mut count = 0;
            for consumer in &mut consumers {
                count += consumer.poll(BURST as usize, |message| {
                    std::hint::black_box(message.payload);
                })?;
            }
            if count > 0 {
                let passed = consumers.iter().map(|consumer| consumer.next_sequence() - 1);
                control.set(Word::Progress, passed.min().unwrap_or(0));
            } else {
                if watch.stopped()? {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        }
    }
}
