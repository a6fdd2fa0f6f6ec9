//! The demo's audit: reads the sequenced stream on the far host, and chains every entry of it.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::bail;
use gapless::order::Positions;
use gapless::sequencer::Record;
use gapless::{Address, PollError, Subscriber};

use super::trading::{Audited, Told};
use super::troupe;
use crate::exit::Outcome;
use crate::order::chain::Chain;
use crate::units;

/// Records of one poll.
const POLL_LIMIT: usize = 256;
/// It is in no hurry: the others need the core more.
const REST: Duration = Duration::from_millis(1);

#[derive(clap::Args)]
pub(crate) struct Args {
    address: Address,
    #[arg(long)]
    chain: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    troupe::join_troupe()?;
    let mut subscriber = Subscriber::open_at(&args.address)?;
    let mut chain = Chain::open(&args.chain)?;
    let mut positions = Positions::new();
    troupe::tell(&Told::Ready)?;
    let cued = troupe::cue_of(true);
    let (mut until_ns, mut seen_ns) = (None, 0);
    while until_ns.is_none_or(|until| seen_ns <= until) {
        if until_ns.is_none() && cued.load(Ordering::Relaxed) {
            until_ns = Some(units::unix_ns()); // the stream goes on telling the time
        }
        let mut failed = None;
        let polled = subscriber.poll(POLL_LIMIT, |message| {
            let taken = Record::read(message.sequence, message.payload)
                .map_err(anyhow::Error::from)
                .and_then(|record| {
                    seen_ns = record.time_ns;
                    let _ = positions.apply(&record); // anomalies are counted
                    chain.take(&record)
                });
            failed = failed.take().or(taken.err());
        });
        match (failed, polled) {
            (Some(error), _) => return Err(error),
            (None, Ok(0) | Err(PollError::Unsteady)) => std::thread::sleep(REST),
            (None, Ok(_)) => {}
            (None, Err(error)) => bail!("the audit has a hole: {error}"),
        }
    }
    let (last, hash) = chain.finish()?;
    let anomalies = positions.anomalies().total();
    troupe::tell(&Told::Audited(Audited { entries: chain.appended, last, hash, anomalies }))?;
    Ok(Outcome::Sound)
}
