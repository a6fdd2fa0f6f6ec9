//! `gapless order`: the order and execution path, each part of it a process.

mod audit;
pub(crate) mod chain;
pub(crate) mod client;
mod config;
mod decimal;
mod desk;
pub(crate) mod engine;
mod flow;
pub(crate) mod generate;
pub(crate) mod market;
mod names;
mod positions;
pub(crate) mod reconcile;
mod replica;
mod script;
pub(crate) mod source;
mod state;
mod words;

use crate::exit::Outcome;

/// Trade: a sequencer with its engine and standbys, clients, and those who look on
#[derive(clap::Args)]
#[command(after_long_help = "\
Each client writes a stream of its own; the engine sequences them all into one, checks and \
matches, and everybody reads that one stream. On one host:

  gapless order engine --out shm:sequenced --client 1=shm:ops,role=operator --client 2=shm:desk
  gapless order standby --out shm:sequenced --client 1=shm:ops,role=operator --client 2=shm:desk
  gapless order client --id 1 --to shm:ops --from shm:sequenced --setup exchange.toml
  gapless order client --id 2 --to shm:desk --from shm:sequenced
  gapless order positions shm:sequenced

The standby goes on when the engine is gone; clients need not notice.")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Engine(engine::Args),
    /// Stand by for an engine: the same command, told to wait for its turn
    ///
    /// Whoever gets the lease of the stream leads; the others follow, each with an engine of its
    /// own. So this leads at once where nobody else does. All options are those of `engine`, and
    /// have to be the same.
    Standby(engine::Args),
    Client(client::Args),
    Audit(audit::Args),
    Positions(positions::Args),
    Reconcile(reconcile::Args),
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    match &args.command {
        Command::Engine(args) => engine::run(args),
        Command::Standby(args) => engine::run(args),
        Command::Client(args) => client::run(args),
        Command::Audit(args) => audit::run(args),
        Command::Positions(args) => positions::run(args),
        Command::Reconcile(args) => reconcile::run(args),
    }
}
