//! A trading process of the demo: orders that the sample drives, and a record of its own.

use super::trading::{OPENING, Told};
use super::{sample, troupe};
use crate::exit::Outcome;
use crate::order::client::{Seat, Trader};
use crate::order::generate::Generation;
use crate::order::market;
use crate::stop::Stop;

use gapless::pin_current_thread;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    seat: Seat,
    #[arg(long)]
    commands: u64,
    #[arg(long)]
    rate: u64,
    /// Which half of the feed, 0 or 1.
    #[arg(long)]
    half: usize,
    #[arg(long)]
    core: Option<usize>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    troupe::join_troupe()?;
    if let Some(core) = args.core {
        pin_current_thread(core)?;
    }
    let stop = Stop::on_signals()?;
    let updates = feed().split_off(OPENING);
    let mut trader = Trader::join(&args.seat, true, &stop)?;
    trader.set_up(&[], &stop)?;
    troupe::tell(&Told::Ready)?;
    troupe::await_cue()?;
    let generation = Generation {
        generate: Some(args.commands),
        rate: args.rate,
        data: None,
        share: (args.half, 2),
    };
    let half = || troupe::tell(&Told::Half);
    let generated = trader.generate(updates, &generation, &stop, half)?;
    trader.leave()?;
    troupe::tell(&Told::Traded(Box::new(generated)))?;
    Ok(Outcome::Sound)
}

/// The sample's updates of the books.
pub(super) fn feed() -> Vec<market::Update> {
    let mut updates = Vec::new();
    for message in sample::messages() {
        // A test reads them all.
        let _ = market::read(message, &mut updates);
    }
    updates
}
