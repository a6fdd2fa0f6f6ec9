//! The control words that both sides of a run share: where the run stands, and who gave up.
//!
//! Words live in one small file, each on its own pair of cache lines. A side that waits for the
//! other yields its core, so that a run also works where both share one; it sleeps only where the
//! core is wanted by others, such as the kernel's own writers.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::clock::{Clock, ticks};
use crate::mapping::Mapping;

/// No run takes longer; a partner that was killed is noticed by this.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks of a side that leaves its core to others.
const DOZE: Duration = Duration::from_millis(1);
const FILE: &str = "control";

/// What each control word says.
#[derive(Clone, Copy)]
pub(crate) enum Word {
    /// How far the set-up of both sides has come.
    Stage,
    /// Not 0 once the lead has measured enough.
    Stop,
    /// Not 0 once a side has failed.
    Failed,
    /// Messages sent in all plus 1, once the sender has sent its last.
    Total,
    /// What the partner reports of its progress; the meaning is the scenario's.
    Progress,
    /// First tick of a paced schedule.
    Start,
    /// The core-to-core probe's line, before and after the run.
    ProbeBefore,
    ProbeAfter,
}

/// Words, and the lines between them.
const WORDS: usize = 8;
const WORD_BYTES: usize = 128;

/// The shared words of one run.
pub(crate) struct Control {
    map: Mapping,
    deadline: u64,
}

impl Control {
    pub(crate) fn create(dir: &Path, clock: Clock) -> Result<Self> {
        let map = Mapping::create(&dir.join(FILE), WORDS * WORD_BYTES)
            .context("create the control words")?;
        Ok(Self::new(map, clock))
    }

    pub(crate) fn open(dir: &Path, clock: Clock) -> Result<Self> {
        let map = Mapping::open(&dir.join(FILE)).context("open the control words")?;
        Ok(Self::new(map, clock))
    }

    fn new(map: Mapping, clock: Clock) -> Self {
        let deadline = ticks() + clock.to_ticks(RUN_LIMIT);
        Self { map, deadline }
    }

    pub(crate) fn word(&self, word: Word) -> &AtomicU64 {
        self.map.word(word as usize * WORD_BYTES)
    }

    /// Tells the other side.
    pub(crate) fn set(&self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::Release); // pairs with: CONTROL
    }

    /// Asks what the other side told.
    pub(crate) fn get(&self, word: Word) -> u64 {
        self.word(word).load(Ordering::Acquire) // pairs with: CONTROL
    }

    /// Waits until the other side has set `word` to `value` or more.
    pub(crate) fn wait_for(&self, word: Word, value: u64) -> Result<()> {
        self.wait_meanwhile(word, value, || ())
    }

    /// As [`wait_for`](Self::wait_for), with something to do again and again meanwhile.
    pub(crate) fn wait_meanwhile(
        &self,
        word: Word,
        value: u64,
        mut work: impl FnMut(),
    ) -> Result<()> {
        while self.get(word) < value {
            self.check()?;
            work();
            std::thread::yield_now();
        }
        Ok(())
    }

    /// As [`wait_for`](Self::wait_for), asleep most of the time.
    pub(crate) fn doze_until(&self, word: Word, value: u64) -> Result<()> {
        self.doze_until_or(word, value, || false)
    }

    /// As [`doze_until`](Self::doze_until), or until `is_over` says true.
    pub(crate) fn doze_until_or(
        &self,
        word: Word,
        value: u64,
        mut is_over: impl FnMut() -> bool,
    ) -> Result<()> {
        while self.get(word) < value && !is_over() {
            self.check()?;
            std::thread::sleep(DOZE);
        }
        Ok(())
    }

    /// An error if the other side has failed, or the run has taken too long.
    #[cold]
    pub(crate) fn check(&self) -> Result<()> {
        if self.get(Word::Failed) != 0 {
            bail!("the other side of the run failed");
        }
        if ticks() > self.deadline {
            self.set(Word::Failed, 1);
            bail!("the run took longer than {} s", RUN_LIMIT.as_secs());
        }
        Ok(())
    }

    /// True once the lead has stopped the run.
    pub(crate) fn is_stopped(&self) -> bool {
        self.get(Word::Stop) != 0
    }

    /// A watch for a waiting loop.
    pub(crate) fn watch(&self) -> Watch<'_> {
        Watch { control: self, empty_polls: 0 }
    }
}

/// Looks at the control words once in 256 empty polls, so that waiting costs next to nothing.
pub(crate) struct Watch<'a> {
    control: &'a Control,
    empty_polls: u32,
}

impl Watch<'_> {
    /// After an empty poll: true if the lead has stopped the run.
    #[inline(always)]
    pub(crate) fn stopped(&mut self) -> Result<bool> {
        self.empty_polls = self.empty_polls.wrapping_add(1);
        if !self.empty_polls.is_multiple_of(256) {
            return Ok(false);
        }
        self.control.check()?;
        Ok(self.control.is_stopped())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_of_one_side_ends_the_waiting_of_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::with_rate(1.0);
        let lead = Control::create(dir.path(), clock).unwrap();
        let partner = Control::open(dir.path(), clock).unwrap();
        partner.set(Word::Stage, 3);
        lead.wait_for(Word::Stage, 2).unwrap();
        partner.set(Word::Failed, 1);
        let error = lead.wait_for(Word::Stage, 4).unwrap_err();
        assert!(error.to_string().contains("other side"), "{error}");
    }

    #[test]
    fn a_watch_sees_the_stop_within_256_polls() {
        let dir = tempfile::tempdir().unwrap();
        let control = Control::create(dir.path(), Clock::with_rate(1.0)).unwrap();
        let mut watch = control.watch();
        assert!((0..1000).all(|_| !watch.stopped().unwrap()));
        control.set(Word::Stop, 1);
        assert!((0..256).any(|_| watch.stopped().unwrap()));
    }
}
