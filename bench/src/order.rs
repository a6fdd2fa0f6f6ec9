//! The order path: sequencer, engine, risk, fail-over, replay. What suite `order` measures.

mod failover;
mod fast;
mod feed;
mod market;
mod path;
mod replay;
mod risk;
mod roundtrip;
mod sequencing;
mod stage;
mod tally;

use std::path::Path;

use gapless::sequencer::{ClientId, ClientOptions, SequencerOptions};

pub(crate) use failover::{Failover, Node};
pub(crate) use path::{Applied, Path as FullPath};
pub(crate) use replay::Replay;
pub(crate) use risk::{Checks, RiskChecks};
pub(crate) use roundtrip::{Inline, Three};
pub(crate) use sequencing::{Prefilled, Sequencing};

/// Bytes of a new order, which all commands of these cases have: 8 of header, 32 of fields.
pub(crate) const COMMAND_BYTES: usize = 40;
/// Bytes of a new order in its client's ring.
pub(crate) const FRAME_BYTES: usize = feed::HEAD_BYTES + COMMAND_BYTES;

/// The address of a ring of this run.
fn stream(dir: &Path, name: &str, capacity_bytes: u64) -> String {
    format!("shm:{name}?capacity={capacity_bytes}&dir={}", dir.display())
}

/// The address of a client's ring.
fn client_stream(dir: &Path, client: u16) -> String {
    stream(dir, &format!("client-{client}"), crate::link::CAPACITY_BYTES)
}

/// Options of a sequencer of clients 1 to `clients`, whose stream has room for so many bytes.
fn options(dir: &Path, clients: u16, capacity_bytes: u64) -> SequencerOptions {
    let output = SequencerOptions::new(stream(dir, "sequenced", capacity_bytes));
    (1..=clients).fold(output, |options, id| {
        options.client(ClientOptions::new(ClientId(id), client_stream(dir, id)))
    })
}
