//! `gapless rm`: removes rings, and counters pages of the same name, but not from under those who
//! write them.

use std::path::Path;

use gapless::shm::{CountersError, RingError, remove, remove_counters};

use crate::exit::Outcome;
use crate::target::{Directory, Target};

/// Remove rings
///
/// Refuses a ring whose producer lives, and says its process id. Subscribers that are attached
/// keep what they have and read on to its end. What a sender or receiver of that name has counted
/// goes too, unless it lives.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless rm orders
  gapless rm orders prices --dir /tmp/rings
  gapless rm orders --force        although its producer lives: it writes on, unseen")]
pub(crate) struct Args {
    /// The rings, each a name or an address
    #[arg(required = true, value_name = "NAME")]
    targets: Vec<Target>,
    #[command(flatten)]
    directory: Directory,
    /// Even if the producer lives
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let mut failures = Vec::new();
    for target in &args.targets {
        let directory = target.directory(&args.directory);
        failures.extend(remove_both(&directory, target.name(), args.force).err());
    }
    if failures.is_empty() {
        return Ok(Outcome::Sound);
    }
    anyhow::bail!(failures.join("\ngapless: "))
}

/// Removes the ring, and then the counters page; one of them must be there.
fn remove_both(directory: &Path, name: &str, force: bool) -> Result<(), String> {
    let ring = remove(directory, name, force);
    let no_ring = match ring {
        Ok(()) => None,
        Err(error @ RingError::NotFound { .. }) => Some(error),
        Err(error @ RingError::ProducerAlive { .. }) => return Err(unless_forced(&error)),
        Err(error) => return Err(error.to_string()),
    };
    match (remove_counters(directory, name, force), no_ring) {
        (Ok(()), _) | (Err(CountersError::NotFound { .. }), None) => Ok(()),
        (Err(CountersError::NotFound { .. }), Some(no_ring)) => Err(no_ring.to_string()),
        (Err(error @ CountersError::WriterAlive { .. }), None) => {
            eprintln!("kept: {error}");
            Ok(())
        }
        (Err(error @ CountersError::WriterAlive { .. }), Some(_)) => Err(unless_forced(&error)),
        (Err(error), _) => Err(error.to_string()),
    }
}

fn unless_forced(error: &dyn std::error::Error) -> String {
    format!("{error}; --force removes it all the same")
}
