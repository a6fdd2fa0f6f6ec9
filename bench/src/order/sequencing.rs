//! `order/sequencer`: how many commands a second one sequencer makes one stream of, with nothing
//! behind it but a count.

use std::hint::spin_loop;

use anyhow::{Context, Result, ensure};
use gapless::sequencer::{Kind, Record, Sequencer, Standing};
use gapless::{Agent, Subscriber};

use super::feed::Feed;
use super::tally::Tally;
use super::{COMMAND_BYTES, options, stream};
use crate::clock::ticks;
use crate::control::Word;
use crate::link::CAPACITY_BYTES;
use crate::scenario::{Outcome, Scenario, Session};

/// Clients, each with a ring of its own.
const CLIENTS: u16 = 4;
/// Commands of a client's that have not come back, at most: a `Client`'s window.
const WINDOW: u64 = 4096;
/// Of the sequenced stream: what all windows together hold, and more.
const SEQUENCED_BYTES: u64 = 4 << 20;
/// Commands that a client sends in its turn, and records that the reader takes.
const BATCH: usize = 64;
const READ: usize = 1024;
const COMMAND: [u8; COMMAND_BYTES] = [0x5a; COMMAND_BYTES];
/// Stages of the set-up.
const SEQUENCER_LEADS: u64 = 1;

/// Four clients and a reader of the sequenced stream, by turns on the first core; the sequencer on
/// the second.
pub(crate) struct Sequencing;

impl Scenario for Sequencing {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let control = session.control;
        control.wait_for(Word::Stage, SEQUENCER_LEADS)?;
        let sequenced = stream(session.dir, "sequenced", SEQUENCED_BYTES);
        let mut reader = Subscriber::open(&sequenced).context("read the stream")?;
        let mut feeds = (1..=CLIENTS)
            .map(|client| Feed::open(session.dir, client, || control.check()))
            .collect::<Result<Vec<_>>>()?;
        let mut seen = [0u64; CLIENTS as usize];
        let mut watch = control.watch();
        let (warm, end) = session.schedule();
        let (mut before, mut from) = ([0u64; CLIENTS as usize], 0);
        let now = loop {
            let mut done = 0;
            for (feed, seen) in feeds.iter_mut().zip(seen) {
                if feed.last() - seen + BATCH as u64 <= WINDOW {
                    done += feed.send_some(&COMMAND, BATCH)?;
                }
            }
            done += take(&mut reader, &mut seen)?;
            if done == 0 {
                watch.stopped()?;
                spin_loop();
            }
            let now = ticks();
            if from == 0 && now > warm {
                (before, from) = (seen, now);
            }
            if now > end {
                break now;
            }
        };
        control.set(Word::Stop, 1);
        let each: Vec<u64> = seen.iter().zip(before).map(|(seen, before)| seen - before).collect();
        let total: u64 = each.iter().sum();
        let least = each.iter().min().copied().unwrap_or_default();
        let share = least as f64 * f64::from(CLIENTS) / total.max(1) as f64;
        let outcome = Outcome::rate(session.clock, total, now - from);
        Ok(outcome.with_detail("least_over_fair_share", share))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let options = options(session.dir, CLIENTS, SEQUENCED_BYTES);
        let mut sequencer = Sequencer::open(options, Tally::default()).context("open")?;
        while sequencer.standing() != Standing::Leading {
            sequencer.duty_cycle()?;
        }
        session.control.set(Word::Stage, SEQUENCER_LEADS);
        let mut watch = session.control.watch();
        while !watch.stopped()? {
            if sequencer.duty_cycle()? == 0 {
                spin_loop();
            }
        }
        Ok(())
    }
}

/// Reads what is there, and counts the commands of each client by their numbers.
#[inline(always)]
fn take(reader: &mut Subscriber, seen: &mut [u64; CLIENTS as usize]) -> Result<usize> {
    let mut odd = None;
    let taken =
        reader.poll(READ, |message| match Record::read(message.sequence, message.payload) {
            Ok(record) if record.kind == Kind::Command => {
                let client = usize::from(record.client.0).wrapping_sub(1);
                let Some(last) = seen.get_mut(client) else { return };
                if record.reference != *last + 1 {
                    odd = Some((record.reference, *last));
                }
                *last = record.reference;
            }
            _ => {}
        })?;
    ensure!(odd.is_none(), "a client's commands are out of order: {odd:?}");
    Ok(taken)
}

/// The sequencer alone, on one core: rings are filled, then only its turns are timed. Nobody reads
/// the stream.
pub(crate) struct Prefilled;

impl Scenario for Prefilled {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let options = options(session.dir, CLIENTS, CAPACITY_BYTES);
        let mut sequencer = Sequencer::open(options, Tally::default()).context("open")?;
        let mut feeds = (1..=CLIENTS)
            .map(|client| {
                Feed::open(session.dir, client, || {
                    sequencer.duty_cycle()?;
                    session.control.check()
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let (warm, end) = session.schedule();
        let (mut sequenced, mut spent, mut filled) = (0u64, 0u64, 0u64);
        loop {
            for feed in &mut feeds {
                loop {
                    let sent = feed.send_some(&COMMAND, BATCH)?;
                    filled += sent as u64;
                    if sent < BATCH {
                        break;
                    }
                }
            }
            let before = sequencer.stats().sequenced;
            let from = ticks();
            while sequencer.stats().sequenced < filled {
                sequencer.duty_cycle()?;
            }
            let now = ticks();
            if from > warm {
                sequenced += sequencer.stats().sequenced - before;
                spent += now - from;
            }
            if now > end && spent > 0 {
                break;
            }
            session.control.check()?;
        }
        session.control.set(Word::Stop, 1);
        Ok(Outcome::rate(session.clock, sequenced, spent))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.doze_until(Word::Stop, 1)
    }
}
