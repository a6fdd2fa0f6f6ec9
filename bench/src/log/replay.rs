//! `log/replay/N`: a log read from its first message to its last, out of the page cache, as fast as
//! one core can. Every message is counted and looked at.

use anyhow::{Context, Result, ensure};
use gapless::log::{LogReader, ReadFrom};

use super::library::Library;
use crate::clock::ticks;
use crate::control::Word;
use crate::disk::record_bytes;
use crate::link::consume;
use crate::place::Place;
use crate::scenario::{Outcome, Scenario, Session};

/// Messages of a poll.
const POLL_LIMIT: usize = 4096;

/// Reads messages of `N` bytes.
pub(crate) struct Replay<const N: usize>;

impl<const N: usize> Replay<N> {
    fn library(place: &Place) -> Library {
        let name = if N == 64 { "replay-64" } else { "replay" };
        Library { name, payload_bytes: N, bytes: place.burst_bytes / 2 }
    }

    /// Reads all messages once.
    fn pass(place: &Place, messages: u64) -> Result<()> {
        let dir = Self::library(place).dir(place);
        let mut reader = LogReader::open(dir, ReadFrom::Oldest).context("open the log")?;
        let (mut read, mut sum) = (0u64, 0u64);
        while read < messages {
            let count = reader.poll(POLL_LIMIT, |message, _| {
                // A size known at compile time, as in most applications.
                if let Ok(payload) = <&[u8; N]>::try_from(message.payload) {
                    sum = sum.wrapping_add(consume(payload));
                }
            });
            let count = count.context("read")?;
            ensure!(count > 0, "the log ends behind message {read}");
            read += count as u64;
        }
        // The first word is the sequence number, each further line begins with the filling.
        let filling = u64::from_ne_bytes([0x5a; 8]).wrapping_mul(N.div_ceil(64) as u64 - 1);
        let sequences = (1..=messages).sum::<u64>();
        let right = sequences.wrapping_add(filling.wrapping_mul(messages));
        ensure!(sum == right, "the {messages} messages read are not those that were written");
        Ok(())
    }
}

impl<const N: usize> Scenario for Replay<N> {
    fn obstacle_at(&self, place: &Place) -> Option<String> {
        Self::library(place).obstacle(place)
    }

    fn prepare(&self, place: &Place) -> Result<()> {
        Self::library(place).make(place)
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let place = session.place()?;
        let messages = Self::library(place).messages();
        Self::pass(place, messages)?; // from here on it is in the page cache
        let from = ticks();
        let end = from + session.clock.to_ticks(session.span.measure);
        let mut read = 0;
        let now = loop {
            Self::pass(place, messages)?;
            read += messages;
            let now = ticks();
            if now > end {
                break now;
            }
        };
        session.control.set(Word::Stop, 1);
        let bytes = read * record_bytes(N) as u64;
        let gigabytes_per_s = bytes as f64 / session.clock.to_ns(now - from);
        let outcome = Outcome::rate(session.clock, read, now - from);
        Ok(outcome.with_detail("gigabytes_per_s", gigabytes_per_s))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.doze_until(Word::Stop, 1)
    }
}
