//! `order/path`: the engine alone, on one core: a command is read, validated, checked, matched and
//! reported. Commands are made beforehand, a batch at a time, and only the engine's work is timed.

use std::hint::black_box;
use std::sync::OnceLock;

use anyhow::{Result, ensure};
use gapless::sequencer::{Application, ClientId, Events, Kind, Record, Role};

use super::market::{CLIENTS, Command, Mix, Orders};
use super::stage::{Market, engine, opening};
use crate::clock::ticks;
use crate::control::Word;
use crate::instructions;
use crate::scenario::{Outcome, Scenario, Session};

/// Commands that are made and then carried out.
const BATCH: usize = 8192;
/// From one command to the next, ns of sequenced time.
const STEP_NS: u64 = 400;
const BEGIN_NS: u64 = 1_700_000_000_000_000_000;

/// An engine, and the place in the stream that it has come to.
pub(crate) struct Applied {
    engine: Market,
    events: Events,
    orders: Orders,
    batch: Vec<Command>,
    sequence: u64,
    time_ns: u64,
    /// Of the commands that were looked at.
    mix: Mix,
}

impl Applied {
    /// The market is set up, and nothing stands in its books.
    pub(crate) fn new() -> Result<Self> {
        let orders = Orders::new()?;
        let engine = engine(CLIENTS, orders.instruments());
        let mut applied = Self {
            engine,
            events: Events::new(),
            batch: Vec::with_capacity(BATCH),
            sequence: 1,
            time_ns: BEGIN_NS,
            mix: Mix::default(),
            orders,
        };
        for command in opening(CLIENTS, &applied.orders.references())? {
            applied.apply(1, Role::Operator, &command);
        }
        ensure!(applied.engine.instruments().len() == applied.orders.references().len());
        Ok(applied)
    }

    #[inline(always)]
    fn apply(&mut self, client: u16, role: Role, payload: &[u8]) {
        self.time_ns += STEP_NS;
        let record = Record {
            sequence: self.sequence,
            kind: Kind::Command,
            code: role as u8,
            client: ClientId(client),
            term: 1,
            reference: self.sequence,
            sent_ns: self.time_ns,
            time_ns: self.time_ns,
            payload: black_box(payload),
        };
        self.events.clear();
        self.engine.apply(&record, &mut self.events);
        self.sequence += 1 + self.events.len() as u64;
    }

    /// Makes the next commands.
    pub(crate) fn fill(&mut self, count: usize) {
        self.batch.clear();
        self.batch.extend(std::iter::repeat_with(|| self.orders.command()).take(count));
    }

    /// Carries out the first `count` of the commands that were made.
    #[inline(always)]
    pub(crate) fn run(&mut self, count: usize) {
        let batch = std::mem::take(&mut self.batch);
        for command in batch.iter().take(count) {
            self.apply(command.client, Role::Trader, command.bytes());
        }
        self.batch = batch;
    }

    /// The same, looking at what comes of it.
    fn look(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        for command in &batch {
            self.apply(command.client, Role::Trader, command.bytes());
            self.mix.note(command.bytes(), false);
            for (_, event) in self.events.iter() {
                self.mix.note(event, true);
            }
        }
        self.batch = batch;
    }
}

/// Instructions of one order's way and of one order's checks, counted once a measurement; `None` if
/// that cannot be done here, which is said.
fn counted() -> Option<[f64; 2]> {
    static COUNTED: OnceLock<Option<[f64; 2]>> = OnceLock::new();
    *COUNTED.get_or_init(|| {
        let counted = instructions::of_orders();
        if let Err(error) = &counted {
            eprintln!("instructions per order are not counted: {error:#}");
        }
        counted.ok()
    })
}

/// Commands of a real feed's mix, one after the other.
pub(crate) struct Path;

impl Scenario for Path {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let mut applied = Applied::new()?;
        let (warm, end) = session.schedule();
        let (mut count, mut spent) = (0u64, 0u64);
        loop {
            applied.fill(BATCH);
            let from = ticks();
            if from < warm || spent == 0 && applied.mix.commands == 0 {
                applied.look();
                continue;
            }
            applied.run(BATCH);
            let now = ticks();
            (count, spent) = (count + BATCH as u64, spent + (now - from));
            if now > end {
                break;
            }
        }
        session.control.set(Word::Stop, 1);
        let mix = applied.mix;
        let share = |part: u64| part as f64 / mix.commands.max(1) as f64;
        ensure!(mix.rejected * 20 < mix.commands, "the mix is mostly rejected: {mix:?}");
        let mut outcome = Outcome::rate(session.clock, count, spent)
            .with_detail("share_new_orders", share(mix.new_orders))
            .with_detail("share_cancels", share(mix.cancels))
            .with_detail("share_replaces", share(mix.replaces))
            .with_detail("share_rejected", share(mix.rejected))
            .with_detail("fills_per_command", share(mix.fills));
        if let Some([order, check]) = counted() {
            outcome = outcome
                .with_detail("instructions_per_order", order)
                .with_detail("instructions_per_check", check);
        }
        Ok(outcome)
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.doze_until(Word::Stop, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feeds_orders_are_taken_and_trade_on_every_round() {
        let mut applied = Applied::new().unwrap();
        for _ in 0..8 {
            applied.fill(BATCH);
            applied.look();
        }
        let Mix { commands, new_orders, cancels, replaces, fills, rejected } = applied.mix;
        assert_eq!(commands, 8 * BATCH as u64);
        assert!(new_orders > commands / 2 && cancels > 0 && replaces > 0, "{:?}", applied.mix);
        assert!(fills > commands / 10, "{:?}", applied.mix);
        assert_eq!(rejected, 0, "what the feed is made into is what the engine makes of it");
    }
}
