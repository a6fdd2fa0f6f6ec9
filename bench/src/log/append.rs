//! `log/append/N` and its kind: one writer, alone, as fast as it can.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gapless::Flags;
use gapless::log::{LogOptions, LogWriter, SyncPolicy};

use super::{BATCH, SESSION, unix_ns, unpinned};
use crate::control::Word;
use crate::disk::{Burst, core_time, gigabytes_per_s, record_bytes};
use crate::place::Place;
use crate::scenario::{Outcome, Scenario, Session};

/// A run that takes longer is broken off: the rate is known by then.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often what was written is made durable.
pub(super) fn sync_policy(burst: Burst) -> SyncPolicy {
    match burst {
        Burst::Cached | Burst::Sustained => SyncPolicy::None,
        Burst::Synced => SyncPolicy::Every(Duration::from_millis(10)),
    }
}

/// Appends messages of `N` bytes.
pub(crate) struct Append<const N: usize> {
    pub(crate) burst: Burst,
}

impl<const N: usize> Append<N> {
    /// Appends so many messages, or as many as patience allows; says how many.
    fn append(&self, writer: &mut LogWriter, messages: u64) -> Result<u64> {
        let payload = [0x5a; N];
        let from = Instant::now();
        let mut sequence = 1;
        while sequence <= messages && from.elapsed() < PATIENCE {
            let now = unix_ns();
            for _ in 0..BATCH {
                writer.append(sequence, &payload, Flags::WHOLE, now).context("append")?;
                sequence += 1;
            }
            writer.tick(now).context("tick")?;
        }
        match self.burst {
            Burst::Synced => writer.sync().context("sync")?,
            Burst::Cached | Burst::Sustained => writer.flush().context("flush")?,
        }
        Ok(sequence - 1)
    }
}

impl<const N: usize> Scenario for Append<N> {
    fn obstacle_at(&self, place: &Place) -> Option<String> {
        self.burst.obstacle(place)
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let place = session.place()?;
        let scratch = place.scratch()?;
        let options = LogOptions::new().sync(sync_policy(self.burst));
        let log = scratch.path().join("log");
        let opened = unpinned(session.beside, || options.open(&log))?;
        let (mut writer, _) = opened.context("open the log")?;
        writer.begin(SESSION, 1).context("begin")?;
        let record = record_bytes(N) as u64;
        let (from, core_from) = (Instant::now(), core_time());
        let messages = self.append(&mut writer, self.burst.bytes(place) / record)?;
        let (took, core) = (from.elapsed(), core_time() - core_from);
        session.control.set(Word::Stop, 1);
        drop(writer);
        scratch.clear()?;
        let bytes = messages * record;
        Ok(Outcome::rate(session.clock, messages, session.clock.to_ticks(took))
            .with_detail("gigabytes_per_s", gigabytes_per_s(bytes, took))
            .with_detail("gigabytes_per_core_s", gigabytes_per_s(bytes, core))
            .with_detail("written_bytes", bytes as f64))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.doze_until(Word::Stop, 1)
    }
}
