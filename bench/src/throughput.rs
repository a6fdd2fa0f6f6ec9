//! Throughput: one side sends as fast as it can, the other takes all there is; nothing may be lost.

use std::hint::spin_loop;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::clock::{Clock, ticks};
use crate::control::Word;
use crate::link::{Link, Receiver, Sender, consume};
use crate::scenario::{Outcome, Scenario, Session};

/// Floods one link with messages of a size.
pub(crate) struct Throughput<L> {
    pub(crate) link: L,
    pub(crate) payload_bytes: usize,
}

const OPENED: u64 = 1;
const STARTED: u64 = 2;
const DRAINED: u64 = 3;
/// Messages handed out by a poll at most.
const POLL_LIMIT: usize = 256;
/// Messages between two looks at the stop word.
const CHUNK: usize = 4096;
/// Polls between two looks at the clock.
const POLLS: u32 = 32;
/// Messages that take longer after the last one was sent are lost.
const LOST_AFTER: Duration = Duration::from_secs(2);
/// Every byte of every payload.
const FILL: u8 = 0x5a;

/// Rates of windows of a millisecond: where a busy machine takes the cores away for a part of the
/// run, the best tenth of them tells what both sides did while they had them.
struct Windows {
    clock: Clock,
    /// Messages received at the start of the window, and when that was.
    start: Option<(u64, u64)>,
    rates_mps: Vec<f64>,
}

impl Windows {
    const LONG: Duration = Duration::from_millis(1);
    /// More than a full measurement has.
    const MOST: usize = 4096;

    fn new(clock: Clock) -> Self {
        Self { clock, start: None, rates_mps: Vec::with_capacity(Self::MOST) }
    }

    fn open(&mut self, received: u64, now: u64) {
        self.start = Some((received, now));
    }

    #[inline(always)]
    fn close_if_over(&mut self, received: u64, now: u64) {
        let Some((before, from)) = self.start else {
            return;
        };
        if now - from >= self.clock.to_ticks(Self::LONG) && self.rates_mps.len() < Self::MOST {
            let ns = self.clock.to_ns(now - from);
            self.rates_mps.push((received - before) as f64 * 1e3 / ns);
            self.open(received, now);
        }
    }

    fn p90_mps(&mut self) -> f64 {
        self.rates_mps.sort_by(f64::total_cmp);
        let at = self.rates_mps.len() * 9 / 10;
        self.rates_mps.get(at).copied().unwrap_or(0.0)
    }
}

/// The end of a run: everything that was sent has to come.
struct Drain {
    received: u64,
    /// When the last message came, as far as was looked.
    since: u64,
}

impl Drain {
    /// True if everything has come.
    fn is_over(&mut self, session: &Session<'_>, received: u64, now: u64) -> Result<bool> {
        let total = session.control.get(Word::Total);
        if total == received + 1 {
            return Ok(true);
        }
        if total == 0 || received > self.received {
            *self = Self { received, since: now };
        } else if now.saturating_sub(self.since) > session.clock.to_ticks(LOST_AFTER) {
            bail!("{} of {} messages were lost", total - 1 - received, total - 1);
        }
        Ok(false)
    }
}

/// Tells of the system calls that sender and receiver made, if they make any.
fn with_calls(outcome: Outcome, calls: [Option<u64>; 2], messages: u64) -> Outcome {
    let [Some(sender), Some(receiver)] = calls else {
        return outcome;
    };
    let a_message = |calls: u64| calls as f64 / messages.max(1) as f64;
    let both = Some(a_message(sender + receiver));
    Outcome { system_calls_per_message: both, ..outcome }
        .with_detail("sender_calls_per_message", a_message(sender))
        .with_detail("receiver_calls_per_message", a_message(receiver))
}

impl<L: Link> Scenario for Throughput<L> {
    fn obstacle(&self) -> Option<String> {
        self.link.obstacle()
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let control = session.control;
        control.wait_for(Word::Stage, OPENED)?;
        let mut receiver = self.link.open_receiver(session.dir, "flow")?;
        control.set(Word::Stage, STARTED);
        // Not yet: the sender may take its time to find the receiver, which has to be polled then.
        let (mut warm, mut end) = (u64::MAX, u64::MAX);
        let (mut received, mut sum, mut full_polls) = (0u64, 0u64, 0u64);
        let mut first: Option<(u64, u64)> = None;
        let mut last = None;
        let mut windows = Windows::new(session.clock);
        let mut drain = Drain { received: 0, since: 0 };
        let mut watch = control.watch();
        loop {
            for _ in 0..POLLS {
                let count = receiver.poll(POLL_LIMIT, |message| {
                    sum = sum.wrapping_add(consume(message));
                });
                received += count as u64;
                if count > 0 {
                    full_polls += 1;
                } else {
                    watch.stopped()?;
                    receiver.idle();
                }
            }
            let now = ticks();
            if end == u64::MAX && control.get(Word::Start) != 0 {
                (warm, end) = session.schedule();
            }
            if first.is_none() && now > warm {
                first = Some((received, now));
                windows.open(received, now);
            }
            windows.close_if_over(received, now);
            // Not before something has come: a sender that never got its core has no rate.
            let moved = first.is_some_and(|(before, _)| received > before);
            if last.is_none() && now > end && moved {
                last = Some((received, now));
                control.set(Word::Stop, 1);
            }
            if last.is_some() && drain.is_over(session, received, now)? {
                break;
            }
        }
        control.set(Word::Stage, DRAINED);
        let payload = vec![FILL; self.payload_bytes];
        ensure!(
            sum == consume(&payload).wrapping_mul(received),
            "the {received} messages received are not the bytes that were sent"
        );
        let (from, to) = (first.unwrap_or((0, warm)), last.unwrap_or((received, end)));
        let outcome = Outcome::rate(session.clock, to.0 - from.0, to.1.saturating_sub(from.1));
        // A few: the receiver is at the sender's heels and takes lines that it still writes to;
        // `POLL_LIMIT`: the ring is full, and both stream.
        let messages_per_poll = received as f64 / full_polls.max(1) as f64;
        let outcome = outcome
            .with_detail("messages_per_poll", messages_per_poll)
            .with_detail("window_p90_mps", windows.p90_mps());
        let noted = receiver.remarks().into_iter();
        let outcome =
            noted.fold(outcome, |outcome, (name, value)| outcome.with_detail(name, value));
        let calls = [Some(control.get(Word::Progress)), receiver.calls()];
        Ok(with_calls(outcome, calls, received))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let control = session.control;
        let mut sender = self.link.open_sender(session.dir, "flow")?;
        control.set(Word::Stage, OPENED);
        control.wait_for(Word::Stage, STARTED)?;
        sender.connect()?;
        control.set(Word::Start, 1);
        let payload = vec![FILL; self.payload_bytes];
        let mut watch = control.watch();
        let mut sent = 0u64;
        while !control.is_stopped() {
            let mut left = CHUNK;
            while left > 0 {
                let count = sender.send_some(&payload, left);
                left = left.saturating_sub(count);
                sent += count as u64;
                if count == 0 {
                    if watch.stopped()? {
                        break;
                    }
                    spin_loop();
                }
            }
        }
        control.set(Word::Progress, sender.calls().unwrap_or(0));
        control.set(Word::Total, sent + 1);
        // Keeps the sending end open, and at work, until everything has been received.
        control.wait_meanwhile(Word::Stage, DRAINED, || sender.idle())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Control;
    use crate::scenario::Span;

    #[test]
    fn a_message_that_does_not_come_is_reported_lost() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::with_rate(1.0);
        let control = Control::create(dir.path(), clock).unwrap();
        let session = Session {
            dir: dir.path(),
            control: &control,
            clock,
            span: Span::QUICK,
            beside: 0,
            place: None,
        };
        let mut drain = Drain { received: 0, since: 0 };
        let patience = LOST_AFTER.as_nanos() as u64;
        // The sender has not sent its last: there is nothing to miss.
        assert!(!drain.is_over(&session, 5, 10 * patience).unwrap());
        control.set(Word::Total, 8);
        assert!(!drain.is_over(&session, 5, 11 * patience).unwrap());
        assert!(!drain.is_over(&session, 6, 12 * patience).unwrap());
        assert!(!drain.is_over(&session, 6, 13 * patience).unwrap());
        let error = drain.is_over(&session, 6, 13 * patience + 1).unwrap_err();
        assert_eq!(error.to_string(), "1 of 7 messages were lost");
        assert!(drain.is_over(&session, 7, 20 * patience).unwrap());
    }
}
