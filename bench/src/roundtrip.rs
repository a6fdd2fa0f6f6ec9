//! Round trips: one message there, the same back, one at a time.

use std::hint::{black_box, spin_loop};

use anyhow::Result;
use hdrhistogram::Histogram;

use crate::clock::ticks;
use crate::control::{Watch, Word};
use crate::link::{Link, Receiver, Sender, consume};
use crate::scenario::{Outcome, Scenario, Session, histogram};

/// Passes messages of a size to and fro over two links of a kind.
pub(crate) struct RoundTrip<L> {
    pub(crate) link: L,
    pub(crate) payload_bytes: usize,
}

/// A run goes on until it has this many samples (its partner may not have been on its core all the
/// time), but no longer than `PATIENCE` times its span more.
const SAMPLES_MIN: u64 = 1000;
const PATIENCE: u64 = 4;
/// Stages of the set-up.
const LEAD_SENDS: u64 = 1;
const PARTNER_READY: u64 = 2;

impl<L: Link> Scenario for RoundTrip<L> {
    fn obstacle(&self) -> Option<String> {
        self.link.obstacle()
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let control = session.control;
        let mut sender = self.link.open_sender(session.dir, "there")?;
        control.set(Word::Stage, LEAD_SENDS);
        control.wait_for(Word::Stage, PARTNER_READY)?;
        let mut receiver = self.link.open_receiver(session.dir, "back")?;
        let payload = vec![0x5a; self.payload_bytes];
        let samples = sample(session, |watch| {
            send(&mut sender, &payload, watch)?;
            while receiver.poll(1, |message| {
                black_box(consume(message));
            }) == 0
            {
                watch.stopped()?;
                receiver.idle();
            }
            Ok(())
        })?;
        control.set(Word::Stop, 1);
        Ok(Outcome::latency(samples))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let control = session.control;
        control.wait_for(Word::Stage, LEAD_SENDS)?;
        let mut receiver = self.link.open_receiver(session.dir, "there")?;
        let mut sender = self.link.open_sender(session.dir, "back")?;
        control.set(Word::Stage, PARTNER_READY);
        let mut watch = control.watch();
        loop {
            let answered = receiver.poll(1, |message| {
                while !sender.try_send(message) {
                    spin_loop();
                }
            });
            if answered == 0 {
                if watch.stopped()? {
                    return Ok(());
                }
                receiver.idle();
            }
        }
    }
}

/// Makes round trips until the run is over and says how long they took, in ticks.
#[inline(always)]
pub(crate) fn sample(
    session: &Session<'_>,
    mut round_trip: impl FnMut(&mut Watch<'_>) -> Result<()>,
) -> Result<Histogram<u64>> {
    sample_some(session, |watch| {
        let from = ticks();
        round_trip(watch)?;
        Ok(Some(ticks().saturating_sub(from)))
    })
}

/// Calls `take` until the run is over; it says how long something took, in ticks, if that counts.
#[inline(always)]
pub(crate) fn sample_some(
    session: &Session<'_>,
    mut take: impl FnMut(&mut Watch<'_>) -> Result<Option<u64>>,
) -> Result<Histogram<u64>> {
    let mut samples = histogram();
    let mut watch = session.control.watch();
    let (warm, end) = session.schedule();
    let limit = end + PATIENCE * (end - warm);
    loop {
        let taken = take(&mut watch)?;
        let now = ticks();
        if let Some(long) = taken.filter(|_| now > warm) {
            samples.saturating_record(long.max(1));
        }
        if now > end && (samples.len() >= SAMPLES_MIN || now > limit) {
            return Ok(samples);
        }
    }
}

/// Sends, with a pause after each refusal. Returns false if the run was stopped meanwhile.
#[inline(always)]
pub(crate) fn send(
    sender: &mut impl Sender,
    payload: &[u8],
    watch: &mut Watch<'_>,
) -> Result<bool> {
    while !sender.try_send(payload) {
        if watch.stopped()? {
            return Ok(false);
        }
        spin_loop();
    }
    Ok(true)
}
