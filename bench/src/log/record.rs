//! `log/record/N` and its kind: a publisher on the first core, a recorder on the second, a ring
//! between them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use gapless::log::{LogOptions, Recorder, RecorderOptions};
use gapless::{Address, Agent};

use super::append::sync_policy;
use super::unpinned;
use crate::control::Word;
use crate::disk::{Burst, gigabytes_per_s, record_bytes};
use crate::place::{Place, Scratch};
use crate::ring;
use crate::scenario::{Outcome, Scenario, Session};

/// A run that takes longer is broken off: the rate is known by then.
const PATIENCE: Duration = Duration::from_secs(10);
/// Messages between two looks at the clock.
const CHUNK: u64 = 4096;
pub(super) const RING: &str = "flow";
const CREATED: u64 = 1;
const ATTACHED: u64 = 2;

/// The recorder of the run's ring, and where its log is.
pub(super) fn recorder(session: &Session<'_>, burst: Burst) -> Result<(Recorder, Scratch)> {
    let scratch = session.place()?.scratch()?;
    let text = format!("shm:{RING}?dir={}", session.dir.display());
    let Address::Shm(address) = text.parse()? else { bail!("{text} is no ring") };
    let options = RecorderOptions::new().log(LogOptions::new().sync(sync_policy(burst)));
    let log = scratch.path().join("log");
    let recorder = unpinned(session.beside, || Recorder::open(&address, &log, &options));
    Ok((recorder?.context("open the recorder")?, scratch))
}

/// Records messages of `N` bytes.
pub(crate) struct Record<const N: usize> {
    pub(crate) burst: Burst,
}

impl<const N: usize> Scenario for Record<N> {
    fn obstacle_at(&self, place: &Place) -> Option<String> {
        self.burst.obstacle(place)
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let control = session.control;
        let mut producer = ring::options(session.dir).create(RING).context("create the ring")?;
        control.set(Word::Stage, CREATED);
        control.wait_for(Word::Stage, ATTACHED)?;
        let record = record_bytes(N) as u64;
        let messages = self.burst.bytes(session.place()?) / record;
        let payload = [0x5a; N];
        let mut watch = control.watch();
        let mut published = 0;
        let from = Instant::now();
        while published < messages && from.elapsed() < PATIENCE {
            let end = published + CHUNK;
            while published < end {
                match producer.try_publish(&payload) {
                    Ok(_) => published += 1,
                    Err(error) if error.is_backpressure() => {
                        watch.stopped()?;
                        std::hint::spin_loop();
                    }
                    Err(error) => ring::fault(error),
                }
            }
        }
        control.wait_for(Word::Progress, published)?;
        let took = from.elapsed();
        control.set(Word::Stop, 1);
        let bytes = published * record;
        Ok(Outcome::rate(session.clock, published, session.clock.to_ticks(took))
            .with_detail("gigabytes_per_s", gigabytes_per_s(bytes, took))
            .with_detail("written_bytes", bytes as f64))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let control = session.control;
        control.wait_for(Word::Stage, CREATED)?;
        let (mut recorder, scratch) = recorder(session, self.burst)?;
        control.set(Word::Stage, ATTACHED);
        let mut watch = control.watch();
        loop {
            let taken = recorder.duty_cycle().context("record")?;
            let writer = recorder.writer();
            let done = match self.burst {
                Burst::Synced => writer.durable_sequence(),
                Burst::Cached | Burst::Sustained => writer.written_sequence(),
            };
            control.set(Word::Progress, done);
            if taken == 0 {
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
