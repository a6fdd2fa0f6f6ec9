//! `floor/line`: the probe as a case of its own.

use anyhow::Result;

use crate::control::Word;
use crate::probe;
use crate::scenario::{Outcome, Scenario, Session};

/// One cache line to and fro between two processes: what the cores themselves need.
pub(crate) struct Line;

impl Scenario for Line {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let long = session.clock.to_ticks(session.span.measure);
        let samples = probe::lead(session.control, Word::Progress, long)?;
        Ok(Outcome::latency(samples))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        probe::follow(session.control, Word::Progress)
    }
}
