//! `order/replay`: a day's stream is followed from its first record to its last, by a sequencer
//! with an engine: every command is applied, every event compared. The state it comes to must be
//! the one that the day's leader had.
//!
//! The day is made anew for each run, which is not timed: four clients' orders, sequenced and
//! executed, in a ring that is large enough to keep them all.

use anyhow::{Context, Result, bail, ensure};
use gapless::Agent;
use gapless::sequencer::{ClientId, ClientOptions, Role, Sequencer, SequencerOptions, Standing};
use nix::sys::statvfs::statvfs;

use super::feed::Feed;
use super::market::{CLIENTS, Command, Orders};
use super::stage::{Market, engine, opening};
use super::{client_stream, options, stream};
use crate::clock::ticks;
use crate::control::Word;
use crate::scenario::{Outcome, Scenario, Session};

/// Records of a day.
const RECORDS: u64 = 10_000_000;
const RECORDS_QUICK: u64 = 200_000;
/// Of the ring for so many records.
const CAPACITY_BYTES: u64 = 2 << 30;
const CAPACITY_BYTES_QUICK: u64 = 64 << 20;
/// The client that sets the market up.
const OPERATOR: u16 = CLIENTS + 1;
/// Commands that are sent between two turns of the sequencer.
const BATCH: usize = 256;

/// A day of trading, sequenced.
struct Day {
    leader: Sequencer<Market>,
    feeds: Vec<Feed>,
    orders: Orders,
    /// A command that its client's ring had no room for.
    waiting: Option<Command>,
}

impl Day {
    fn begin(session: &Session<'_>, capacity_bytes: u64) -> Result<Self> {
        let orders = Orders::new()?;
        let operator = ClientOptions::new(ClientId(OPERATOR), client_stream(session.dir, OPERATOR))
            .role(Role::Operator);
        let options = options(session.dir, CLIENTS, capacity_bytes).client(operator);
        let engine = engine(CLIENTS, orders.instruments());
        let mut leader = Sequencer::open(options, engine).context("open")?;
        let mut open = |client| {
            Feed::open(session.dir, client, || {
                leader.duty_cycle()?;
                session.control.check()
            })
        };
        let mut operator = open(OPERATOR)?;
        let feeds = (1..=CLIENTS).map(open).collect::<Result<_>>()?;
        let opening = opening(CLIENTS, &orders.references())?;
        for command in &opening {
            ensure!(operator.try_send(command)?, "no room for the opening");
        }
        while leader.last_of(ClientId(OPERATOR)) < opening.len() as u64 {
            leader.duty_cycle()?;
        }
        Ok(Self { leader, feeds, orders, waiting: None })
    }

    /// Trades until the stream has so many records.
    fn trade(&mut self, records: u64) -> Result<()> {
        while self.leader.next_sequence() <= records {
            for _ in 0..BATCH {
                let command = self.waiting.take().unwrap_or_else(|| self.orders.command());
                let Some(feed) = self.feeds.get_mut(usize::from(command.client) - 1) else {
                    bail!("no client {}", command.client);
                };
                if !feed.try_send(command.bytes())? {
                    self.waiting = Some(command);
                    break;
                }
            }
            self.settle()?;
        }
        Ok(())
    }

    /// Sequences all that was sent, so that clients' commands come in the order in which they were
    /// made, or nearly so.
    fn settle(&mut self) -> Result<()> {
        while self.leader.duty_cycle()? > 0 {}
        Ok(())
    }
}

/// Follows a day.
pub(crate) struct Replay;

fn sizes(quick: bool) -> (u64, u64) {
    if quick { (RECORDS_QUICK, CAPACITY_BYTES_QUICK) } else { (RECORDS, CAPACITY_BYTES) }
}

impl Scenario for Replay {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let (records, capacity_bytes) = sizes(session.span.is_quick());
        let free = statvfs(session.dir).context("ask for free room")?;
        let free = free.blocks_available() * free.fragment_size();
        ensure!(free > capacity_bytes, "the day needs {capacity_bytes} bytes in /dev/shm");
        let mut day = Day::begin(session, capacity_bytes)?;
        day.trade(records)?;
        let (leader, end) = (&day.leader, day.leader.next_sequence());
        let sequenced = leader.stats().sequenced;
        let output = stream(session.dir, "sequenced", capacity_bytes);
        let engine = engine(CLIENTS, day.orders.instruments());
        let mut follower =
            Sequencer::open(SequencerOptions::new(output), engine).context("open the follower")?;
        while follower.standing() == Standing::Waiting {
            follower.duty_cycle()?;
        }
        let from = ticks();
        while follower.next_sequence() < end {
            let followed = follower.duty_cycle().context("follow")?;
            ensure!(followed > 0, "the stream ends at {}", follower.next_sequence());
        }
        let now = ticks();
        session.control.set(Word::Stop, 1);
        let mut outcome = Outcome::rate(session.clock, end - 1, now - from)
            .with_detail("records", (end - 1) as f64)
            .with_detail("commands", sequenced as f64)
            .with_detail("trades", follower.application().venue().trades() as f64);
        outcome.hash_equal = Some(follower.state_hash() == leader.state_hash());
        Ok(outcome)
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.doze_until(Word::Stop, 1)
    }
}
