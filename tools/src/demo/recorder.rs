//! The demo's recording process: the ring into a log, to the end of the stream.

use std::sync::atomic::Ordering;
use std::time::Duration;

use gapless::log::{Recorder, RecorderOptions};
use gapless::{Address, Agent};

use super::ring::Told;
use super::troupe;
use crate::exit::Outcome;
use crate::log::Directory;

/// A recorder among many processes looks so often for more.
const REST: Duration = Duration::from_millis(1);

#[derive(clap::Args)]
pub(crate) struct Args {
    address: Address,
    log: Directory,
    /// Another publisher may take the ring over: the end comes only behind a cue.
    #[arg(long)]
    cued: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    troupe::join_troupe()?;
    let Address::Shm(ring) = &args.address else { anyhow::bail!("rings are recorded") };
    let mut recorder = Recorder::open(ring, &args.log.0, &RecorderOptions::new())?;
    troupe::tell(&Told::Ready)?;
    let cued = troupe::cue_of(args.cued);
    while !(cued.load(Ordering::Relaxed) && recorder.is_done()) {
        match recorder.duty_cycle()? {
            0 if args.cued => std::thread::sleep(REST), // others need the core more
            0 => std::thread::yield_now(),
            _ => {}
        }
    }
    let messages = recorder.counts().messages;
    recorder.close()?;
    troupe::tell(&Told::Recorded(messages))?;
    Ok(Outcome::Sound)
}
