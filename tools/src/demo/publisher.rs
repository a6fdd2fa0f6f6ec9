//! The demo's publishing process: writes the sample into the ring, in place, as often as asked.
//!
//! Each message is the time at which it was due, in ticks of the CPU's counter (8 bytes,
//! little-endian), and behind that the market data.

use std::time::Duration;

use gapless::{Address, Publisher, TscClock, pin_current_thread};

use super::ring::{Published, Told};
use super::{sample, troupe};
use crate::digest::Digest;
use crate::exit::Outcome;

/// Bytes of the time stamp in front of each message.
pub(super) const STAMP_BYTES: usize = 8;

#[derive(clap::Args)]
pub(crate) struct Args {
    address: Address,
    #[arg(long)]
    core: Option<usize>,
    #[arg(long)]
    messages: u64,
    #[arg(long)]
    rate: Option<u64>,
    /// Give the core away while waiting.
    #[arg(long = "yield")]
    yields: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    troupe::join_troupe()?;
    if let Some(core) = args.core {
        pin_current_thread(core)?;
    }
    let sample = sample::messages();
    let clock = TscClock::new();
    let calibration = clock.calibration(Duration::from_millis(20));
    let mut publisher = Publisher::open_at(&args.address)?;
    troupe::tell(&Told::Ready)?;
    troupe::await_cue()?;

    let ticks_per_message = args.rate.map(|rate| calibration.ticks_per_second / rate as f64);
    let mut digest = Digest::new();
    let mut backpressure_waits = 0;
    let start_ticks = clock.ticks();
    for (number, message) in (0..args.messages).zip(sample.iter().cycle()) {
        let due_ticks = match ticks_per_message {
            Some(ticks) => {
                let due = start_ticks + (number as f64 * ticks) as u64;
                while clock.ticks() < due {
                    pause(args.yields);
                }
                due
            }
            None => 0, // nobody looks: flat out there is no due time
        };
        if !publish(&mut publisher, due_ticks, message, &mut digest)? {
            backpressure_waits += 1;
            while !publish(&mut publisher, due_ticks, message, &mut digest)? {
                pause(args.yields);
            }
        }
    }
    drop(publisher); // closes the stream: the subscribers read to its end
    troupe::tell(&Told::Published(Published {
        messages: digest.messages(),
        bytes: digest.bytes(),
        digest: digest.text(),
        start_ticks,
        backpressure_waits,
    }))?;
    Ok(Outcome::Sound)
}

/// Writes one message in place. False if the ring is full.
#[inline]
fn publish(
    publisher: &mut Publisher,
    due_ticks: u64,
    message: &[u8],
    digest: &mut Digest,
) -> anyhow::Result<bool> {
    match publisher.claim(STAMP_BYTES + message.len()) {
        Ok(mut claim) => {
            let (stamp, body) = claim.split_at_mut(STAMP_BYTES);
            stamp.copy_from_slice(&due_ticks.to_le_bytes());
            body.copy_from_slice(message);
            digest.add(&claim);
            claim.commit();
            Ok(true)
        }
        Err(error) if error.is_backpressure() => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[inline]
fn pause(yields: bool) {
    if yields {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}
