//! `gapless rm`: removes rings, but not from under a living producer.

use gapless::shm::{RingError, remove};

use crate::exit::Outcome;
use crate::target::{Directory, Target};

/// Remove rings
///
/// Refuses a ring whose producer lives, and says its process id. Subscribers that are attached
/// keep what they have and read on to its end.
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
        match remove(&target.directory(&args.directory), target.name(), args.force) {
            Ok(()) => {}
            Err(error @ RingError::ProducerAlive { .. }) => {
                failures.push(format!("{error}; --force removes it all the same"));
            }
            Err(error) => failures.push(error.to_string()),
        }
    }
    if failures.is_empty() {
        return Ok(Outcome::Sound);
    }
    anyhow::bail!(failures.join("\ngapless: "))
}
