//! `log/join`: a subscriber that has missed a long stream reads it from the log while the publisher
//! goes on, and changes to the ring when it has caught up. Nothing may be missing or come twice.

use std::hint::black_box;

use anyhow::{Context, Result, ensure};
use gapless::log::Recorder;
use gapless::shm::Producer;
use gapless::{Agent, Message, Subscriber};

use super::record::{RING, recorder};
use crate::clock::ticks;
use crate::control::Word;
use crate::disk::Burst;
use crate::net::{ask, tell};
use crate::place::Place;
use crate::ring;
use crate::scenario::{Outcome, Scenario, Session, histogram};

const PER_S: f64 = 1e6;
/// What the publisher tells: where the log is.
const LOG: &str = "log";
/// Messages published between two turns of the recorder.
const TURN: u64 = 512;
/// Messages of a poll.
const POLL_LIMIT: usize = 4096;
/// Messages that are taken live before the run ends.
const LIVE: u64 = 20_000;
const PAYLOAD_BYTES: usize = 64;
const CREATED: u64 = 1;

/// Joins a stream of 64 B messages, a million a second.
pub(crate) struct Join;

/// What has been delivered.
struct Delivered {
    next: u64,
    gaps: u64,
    duplicates: u64,
    torn: u64,
}

impl Delivered {
    #[inline(always)]
    fn take(&mut self, message: &Message<'_>) {
        if message.sequence != self.next {
            self.gaps += message.sequence.saturating_sub(self.next);
            self.duplicates += u64::from(message.sequence < self.next);
        }
        let number = message.payload.first_chunk().map_or(0, |n| u64::from_ne_bytes(*n));
        self.torn += u64::from(number != message.sequence);
        self.next = message.sequence + 1;
        black_box(message.payload);
    }
}

impl Delivered {
    /// Polls until `is_over` says so, asked after each poll with what was published before it.
    fn follow(
        &mut self,
        session: &Session<'_>,
        subscriber: &mut Subscriber,
        mut is_over: impl FnMut(&Self, &Subscriber, u64) -> bool,
    ) -> Result<()> {
        let mut watch = session.control.watch();
        loop {
            let published = session.control.get(Word::Progress);
            let polled = subscriber.poll(POLL_LIMIT, |message| self.take(&message));
            if polled.context("read the stream")? == 0 {
                watch.stopped()?;
                std::hint::spin_loop();
            }
            if is_over(self, subscriber, published) {
                return Ok(());
            }
        }
    }
}

/// Publisher and recorder, by turns in one thread.
struct Publishing {
    producer: Producer,
    recorder: Recorder,
    payload: [u8; PAYLOAD_BYTES],
    published: u64,
}

impl Publishing {
    /// Publishes up to message `end`, as long as there is room, and gives the recorder a turn.
    fn turn(&mut self, session: &Session<'_>, end: u64) -> Result<()> {
        while self.published < end {
            self.payload[..8].copy_from_slice(&(self.published + 1).to_ne_bytes());
            match self.producer.try_publish(&self.payload) {
                Ok(_) => self.published += 1,
                Err(error) if error.is_backpressure() => break,
                Err(error) => ring::fault(error),
            }
        }
        session.control.set(Word::Progress, self.published);
        self.recorder.duty_cycle().context("record")?;
        Ok(())
    }
}

impl Scenario for Join {
    fn obstacle_at(&self, place: &Place) -> Option<String> {
        place.shortage(place.backlog() * 80 + (1 << 30))
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let control = session.control;
        let behind = session.place()?.backlog();
        control.wait_for(Word::Stage, CREATED)?;
        let log = ask(session, LOG)?;
        let address = format!("shm:{RING}?dir={}&log={log}&from=1", session.dir.display());
        let mut delivered = Delivered { next: 1, gaps: 0, duplicates: 0, torn: 0 };
        let from = ticks();
        let mut subscriber = Subscriber::open(&address).context("open the stream")?;
        delivered.follow(session, &mut subscriber, |_, subscriber, _| subscriber.is_live())?;
        let (joined, from_log) = (ticks(), delivered.next - 1);
        delivered.follow(session, &mut subscriber, |got, _, published| got.next > published)?;
        let (now, live) = (ticks(), delivered.next);
        delivered.follow(session, &mut subscriber, |got, _, _| got.next > live + LIVE)?;
        control.set(Word::Stop, 1);
        let Delivered { gaps, duplicates, torn, next } = delivered;
        ensure!(
            gaps == 0 && duplicates == 0 && torn == 0,
            "{gaps} messages were missing, {duplicates} came twice, {torn} were others"
        );
        ensure!(next > behind, "only {next} messages were there");
        let mut samples = histogram();
        samples.saturating_record(now - from);
        Ok(Outcome::latency(samples)
            .with_rate(session.clock, live - 1, now - from)
            .with_detail("behind", behind as f64)
            .with_detail("from_log", from_log as f64)
            .with_detail("from_log_ns", session.clock.to_ns(joined - from))
            .with_detail("gaps", gaps as f64)
            .with_detail("duplicates", duplicates as f64))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let control = session.control;
        let producer = ring::options(session.dir).create(RING).context("create the ring")?;
        let (recorder, scratch) = recorder(session, Burst::Cached)?;
        let directory = recorder.writer().directory().display().to_string();
        let payload = [0x5a; PAYLOAD_BYTES];
        let mut publishing = Publishing { producer, recorder, payload, published: 0 };
        let behind = session.place()?.backlog();
        while publishing.published < behind {
            control.check()?;
            let end = behind.min(publishing.published + TURN);
            publishing.turn(session, end)?;
        }
        tell(session.dir, LOG, &directory)?;
        control.set(Word::Stage, CREATED);
        let a_tick = PER_S / (session.clock.ticks_per_ns() * 1e9);
        let start = ticks();
        while !control.is_stopped() {
            control.check()?;
            let due = behind + ((ticks() - start) as f64 * a_tick) as u64;
            publishing.turn(session, due.min(publishing.published + TURN))?;
        }
        drop(publishing);
        scratch.clear()
    }
}
