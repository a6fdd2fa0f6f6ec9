//! `gapless order reconcile`: do the clients' own records, the engine, the positions and the log
//! say the same, order by order?

use std::path::{Path, PathBuf};

use anyhow::Context;
use gapless::Address;
use gapless::order::{OwnReader, Positions, Reconciliation};
use serde_json::json;

use super::engine::Tables;
use super::replica::Replica;
use super::source::Source;
use super::state::State;
use crate::exit::Outcome;
use crate::stop::Stop;
use crate::table::print_json;

/// Compare clients' own records, the engine, the positions and the stream, order by order
///
/// The stream is checked against itself; against each client's own record; and against an engine
/// that is made anew from it, event by event: what that engine has open in the end, and what its
/// clients hold, must be what the orders' events and the fills add up to. So must the state that an
/// engine wrote when it ended. Every difference is named, with its place in the stream.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless order reconcile --stream log:/var/log/orders --client desk.orders --client other.orders
  gapless order reconcile --stream log:/var/log/orders --config exchange.toml --state engine.json
  gapless order reconcile --stream log:/var/log/orders --snapshot /var/lib/orders

With --snapshot the engine begins with the newest snapshot instead of an empty one. Its capacities
and its opening book must be those of the engine that ran: --config, --orders and so on. A
difference ends with exit code 3.")]
pub(crate) struct Args {
    /// The sequenced stream, all of it: log:DIRECTORY or a ring that still has it
    #[arg(long, value_name = "SOURCE")]
    stream: Address,
    /// A client's own record, as `gapless order client --record` keeps it
    #[arg(long, value_name = "FILE")]
    client: Vec<PathBuf>,
    /// The state that an engine wrote at its end, by --state, when it had the whole stream
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Begin with the newest snapshot of DIR
    #[arg(long, value_name = "DIR")]
    snapshot: Option<PathBuf>,
    #[command(flatten)]
    tables: Tables,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// What is compared with the stream.
pub(crate) struct Sides<'a> {
    pub(crate) clients: &'a [PathBuf],
    pub(crate) state: Option<&'a Path>,
    pub(crate) snapshot: Option<&'a Path>,
    pub(crate) tables: &'a Tables,
}

/// What came of it.
pub(crate) struct Findings {
    pub(crate) report: gapless::order::ReconcileReport,
    /// What else differs.
    pub(crate) others: Vec<String>,
    /// Messages of the stream that could not be had.
    pub(crate) missed: u64,
    /// Records that the engine was made of.
    pub(crate) replayed: u64,
    /// Of the engine that was made from the stream.
    pub(crate) state: State,
}

impl Findings {
    /// Whether all sides agree.
    pub(crate) fn is_clean(&self) -> bool {
        self.report.is_clean() && self.others.is_empty() && self.missed == 0
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    let sides = Sides {
        clients: &args.client,
        state: args.state.as_deref(),
        snapshot: args.snapshot.as_deref(),
        tables: &args.tables,
    };
    let found = reconcile(args.stream.clone(), &sides, &stop)?;
    if args.json {
        let report = &found.report;
        let differences = report.differences.iter().map(|difference| {
            json!({
                "sequence": difference.sequence,
                "client": difference.client.0,
                "what": difference.what.to_string(),
            })
        });
        let differences: Vec<_> = differences.collect();
        print_json(&json!({
            "clean": found.is_clean(),
            "records": report.records,
            "commands": report.commands,
            "orders": report.orders,
            "fills": report.fills,
            "clients": report.clients,
            "own_records": report.own_records,
            "engine_orders": report.engine_orders,
            "positions": report.positions,
            "replayed": found.replayed,
            "state": found.state.hash,
            "differences": differences,
            "left_out": report.left_out,
            "others": found.others,
            "missed": found.missed,
        }))?;
    } else {
        println!("{}", found.report);
        for other in &found.others {
            println!("{other}");
        }
    }
    Ok(Outcome::wrong_if(!found.is_clean()))
}

/// Compares all sides.
pub(crate) fn reconcile(
    stream: Address,
    sides: &Sides<'_>,
    stop: &Stop,
) -> anyhow::Result<Findings> {
    let mut files = Vec::new();
    for path in sides.clients {
        files.push((path, std::fs::read(path).with_context(|| path.display().to_string())?));
    }
    let mut reconciliation = Reconciliation::new();
    for (path, bytes) in &files {
        let named = || path.display().to_string();
        reconciliation.client(OwnReader::new(bytes).with_context(named)?).with_context(named)?;
    }
    let mut replica = Replica::begin(sides.tables, sides.snapshot)?;
    let (begun, mut positions) = (replica.next(), Positions::new());
    let read = Source::of(stream).read(
        stop,
        |record| {
            reconciliation.stream(record);
            replica.take(record);
            let _ = positions.apply(record); // anomalies are counted
            Ok(())
        },
        || Ok(()),
    )?;
    let state = replica.finish();
    let mut others = std::mem::take(&mut replica.wrong);
    if replica.left_out > 0 {
        others.push(format!("and {} more of that kind", replica.left_out));
    }
    if positions.anomalies().total() > 0 {
        others.push(format!("positions: {:?}", positions.anomalies()));
    }
    reconciliation.engine(state.open());
    reconciliation.positions("an engine made anew", state.held());
    let folded = positions.iter().map(|(client, of, held)| (client, of, held.quantity));
    reconciliation.positions("the fold of positions", folded.filter(|(.., held)| *held != 0));
    if let Some(path) = sides.state {
        let named = || path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(named)?;
        let theirs: State = serde_json::from_str(&text).with_context(named)?;
        reconciliation.positions("the engine that ran", theirs.held());
        others.extend(state.differences(&theirs));
    }
    let report = reconciliation.finish();
    let replayed = state.next_sequence - begun;
    Ok(Findings { report, others, missed: read.missed, replayed, state })
}
