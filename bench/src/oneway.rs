//! One-way latency under paced load: the message carries the tick it was due at.

use anyhow::Result;

use crate::clock::ticks;
use crate::control::Word;
use crate::link::{Link, Receiver, Sender, consume};
use crate::roundtrip::send;
use crate::scenario::{Outcome, Scenario, Session, histogram};
use crate::schedule::{Schedule, run_schedule};

/// Sends `rate_per_s` messages a second over one link, on an open-loop schedule.
pub(crate) struct OneWay<L> {
    pub(crate) link: L,
    /// At least 8: the tick that the message was due at.
    pub(crate) payload_bytes: usize,
    pub(crate) rate_per_s: u32,
}

const OPENED: u64 = 1;
const STARTED: u64 = 2;
const DRAINED: u64 = 3;
const POLL_LIMIT: usize = 64;

impl<L: Link> OneWay<L> {
    /// The receiving side; `after` is called with the receiving end after each poll.
    pub(crate) fn listen(
        &self,
        session: &Session<'_>,
        mut after: impl FnMut(&mut L::Receiver),
    ) -> Result<Outcome> {
        let control = session.control;
        control.wait_for(Word::Stage, OPENED)?;
        let mut receiver = self.link.open_receiver(session.dir, "flow")?;
        control.set(Word::Stage, STARTED);
        let mut received = 0u64;
        // A sender may have to find its receiver, which must be at work then.
        control.wait_meanwhile(Word::Start, 1, || {
            received += receiver.poll(POLL_LIMIT, |_| ()) as u64;
        })?;
        let start = control.get(Word::Start);
        let warm = start + session.clock.to_ticks(session.span.warm_up);
        let mut samples = histogram();
        let (mut last, mut sum) = (start, 0u64);
        let mut watch = control.watch();
        loop {
            let count = receiver.poll(POLL_LIMIT, |message| {
                sum = sum.wrapping_add(consume(message));
                let now = ticks();
                let due = message.first_chunk().map_or(0, |due| u64::from_ne_bytes(*due));
                if due >= warm {
                    samples.saturating_record(now.saturating_sub(due).max(1));
                    last = now;
                }
            });
            after(&mut receiver);
            received += count as u64;
            if count == 0 {
                if control.get(Word::Total) == received + 1 {
                    break;
                }
                watch.stopped()?;
                receiver.idle();
            }
        }
        std::hint::black_box(sum);
        control.set(Word::Stage, DRAINED);
        let count = samples.len();
        let long = last.saturating_sub(warm);
        let outcome = Outcome::latency(samples).with_rate(session.clock, count, long);
        let noted = receiver.remarks().into_iter();
        Ok(noted.fold(outcome, |outcome, (name, value)| outcome.with_detail(name, value)))
    }
}

impl<L: Link> Scenario for OneWay<L> {
    fn obstacle(&self) -> Option<String> {
        self.link.obstacle()
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        self.listen(session, |_| ())
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let control = session.control;
        let mut sender = self.link.open_sender(session.dir, "flow")?;
        control.set(Word::Stage, OPENED);
        control.wait_for(Word::Stage, STARTED)?;
        sender.connect()?;
        let interval_ticks = session.clock.ticks_per_ns() * 1e9 / f64::from(self.rate_per_s);
        let span = session.span.warm_up + session.span.measure;
        let count = (span.as_secs_f64() * f64::from(self.rate_per_s)) as u64;
        let mut payload = vec![0x5a; self.payload_bytes];
        let mut watch = control.watch();
        let mut sent = 0;
        let mut result = Ok(());
        let start = ticks() + session.clock.to_ticks(session.span.warm_up / 10);
        control.set(Word::Start, start);
        let schedule = Schedule::new(start, interval_ticks);
        let now = |sender: &mut L::Sender| {
            sender.idle();
            ticks()
        };
        run_schedule(schedule, count, &mut sender, now, |sender, due| {
            payload[..8].copy_from_slice(&due.to_ne_bytes());
            match send(sender, &payload, &mut watch) {
                Ok(true) => sent += 1,
                Ok(false) => return false,
                Err(error) => {
                    result = Err(error);
                    return false;
                }
            }
            true
        });
        result?;
        control.set(Word::Total, sent + 1);
        control.wait_meanwhile(Word::Stage, DRAINED, || sender.idle())
    }
}
