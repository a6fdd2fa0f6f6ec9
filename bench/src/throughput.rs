//! Throughput: one side sends as fast as it can, the other takes all there is; nothing may be lost.

use std::hint::spin_loop;
use std::time::Duration;

use anyhow::{Result, ensure};

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

impl<L: Link> Scenario for Throughput<L> {
    fn obstacle(&self) -> Option<String> {
        self.link.obstacle()
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let control = session.control;
        control.wait_for(Word::Stage, OPENED)?;
        let mut receiver = self.link.open_receiver(session.dir, "flow")?;
        control.set(Word::Stage, STARTED);
        let (warm, end) = session.schedule();
        let (mut received, mut sum, mut full_polls) = (0u64, 0u64, 0u64);
        let mut first: Option<(u64, u64)> = None;
        let mut last = None;
        let mut windows = Windows::new(session.clock);
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
            if last.is_some() && control.get(Word::Total) == received + 1 {
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
        let Some(calls) = receiver.calls() else {
            return Ok(outcome);
        };
        let a_message = |calls: u64| calls as f64 / received.max(1) as f64;
        Ok(outcome
            .with_detail("sender_calls_per_message", a_message(control.get(Word::Progress)))
            .with_detail("receiver_calls_per_message", a_message(calls)))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let control = session.control;
        let mut sender = self.link.open_sender(session.dir, "flow")?;
        control.set(Word::Stage, OPENED);
        control.wait_for(Word::Stage, STARTED)?;
        sender.connect()?;
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
