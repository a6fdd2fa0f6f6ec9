//! `publish/consumer`, `publish/recorder`: what a recorder at the ring costs its publisher.
//! Messages are due at fixed times; latency is from then until a message is in the ring.

use std::hint::black_box;

use anyhow::{Context, Result};
use gapless::Agent;

use super::record::{RING, recorder};
use crate::clock::ticks;
use crate::control::Word;
use crate::disk::Burst;
use crate::place::Place;
use crate::ring;
use crate::scenario::{Outcome, Scenario, Session, histogram};
use crate::schedule::{Schedule, run_schedule};

const PER_S: f64 = 1e6;
const PAYLOAD: [u8; 64] = [0x5a; 64];
/// Messages of a poll, as a recorder takes them.
const POLL_LIMIT: usize = 1024;
const CREATED: u64 = 1;
const ATTACHED: u64 = 2;

/// Who reads the ring on the other core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attached {
    /// A consumer that looks at each message.
    Consumer,
    /// A recorder that syncs as a burst of that kind asks for.
    Recorder(Burst),
}

/// Publishes a million messages a second.
pub(crate) struct Publish(pub(crate) Attached);

impl Publish {
    fn consume(session: &Session<'_>) -> Result<()> {
        let mut consumer = ring::attach(session.dir, RING)?;
        session.control.set(Word::Stage, ATTACHED);
        let mut watch = session.control.watch();
        loop {
            let polled = consumer.poll(POLL_LIMIT, |message| {
                black_box(message.payload);
            });
            if polled.context("read the ring")? == 0 {
                if watch.stopped()? {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        }
    }

    fn record(session: &Session<'_>, burst: Burst) -> Result<()> {
        let (mut recorder, scratch) = recorder(session, burst)?;
        session.control.set(Word::Stage, ATTACHED);
        let mut watch = session.control.watch();
        loop {
            if recorder.duty_cycle().context("record")? == 0 {
                if watch.stopped()? {
                    break;
                }
                std::hint::spin_loop();
            }
        }
        drop(recorder);
        scratch.clear()
    }
}

impl Scenario for Publish {
    fn obstacle_at(&self, place: &Place) -> Option<String> {
        Burst::Cached.obstacle(place)
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let control = session.control;
        let mut producer = ring::options(session.dir).create(RING).context("create the ring")?;
        control.set(Word::Stage, CREATED);
        control.wait_for(Word::Stage, ATTACHED)?;
        let mut samples = histogram();
        let mut refused = 0_u64;
        let mut watch = control.watch();
        let mut result = Ok(());
        let (warm, _) = session.schedule();
        let span = session.span.warm_up + session.span.measure;
        let schedule = Schedule::new(ticks(), session.clock.ticks_per_ns() * 1e9 / PER_S);
        let count = (span.as_secs_f64() * PER_S) as u64;
        run_schedule(
            schedule,
            count,
            &mut producer,
            |_| ticks(),
            |producer, due| {
                loop {
                    match producer.try_publish(&PAYLOAD) {
                        Ok(_) => break,
                        Err(error) if error.is_backpressure() => {
                            refused += 1;
                            if let Err(error) = watch.stopped() {
                                result = Err(error);
                                return false;
                            }
                            std::hint::spin_loop();
                        }
                        Err(error) => ring::fault(error),
                    }
                }
                let now = ticks();
                if due >= warm {
                    samples.saturating_record(now.saturating_sub(due).max(1));
                }
                true
            },
        );
        result?;
        control.set(Word::Stop, 1);
        Ok(Outcome::latency(samples).with_detail("refused", refused as f64))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.wait_for(Word::Stage, CREATED)?;
        match self.0 {
            Attached::Consumer => Self::consume(session),
            Attached::Recorder(burst) => Self::record(session, burst),
        }
    }
}
