//! The demo's engine and its standby: the very command, in a host of the demo's.

use super::trading::Told;
use super::{hosts, troupe};
use crate::exit::Outcome;
use crate::order::engine;
use crate::stop::Stop;

use gapless::sequencer::Standing;

#[derive(clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    #[command(flatten)]
    engine: engine::Args,
    #[arg(long)]
    namespace: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    troupe::join_troupe()?;
    hosts::enter(args.namespace.as_deref())?;
    let stop = Stop::on_signals()?;
    let sequencer = engine::work(&args.engine, &stop, |standing, term, _| match standing {
        Standing::Leading => troupe::tell(&Told::Leads(term)),
        Standing::Following if term > 0 => troupe::tell(&Told::StandsBy(term)),
        _ => Ok(()),
    })?;
    let trades = sequencer.application().venue().trades();
    drop(sequencer); // closes the stream
    troupe::tell(&Told::Ended { trades })?;
    Ok(Outcome::Sound)
}
