//! `gapless order audit`: who sent what, when, and what came of it, from the stream alone.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use gapless::log::ReadFrom;
use gapless::order::{Audit, Entry, Filter, Notifications, OrderId, Query};
use gapless::sequencer::{ClientId, Kind, Record};

use super::chain::Chain;
use super::source::Source;
use super::words;
use crate::exit::{Outcome, Usage};
use crate::log::Point;
use crate::stop::Stop;
use crate::table::{Cell, Facts, grouped, print_json};

/// Tell what stands in the sequenced stream, entry by entry
///
/// One line an entry: time, number, kind, client, what it says. What is told can be narrowed; ticks
/// of time are left out unless asked for. With --order, the whole life of one order, with why it
/// was rejected.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless order audit log:/var/log/orders --client 2 --from @2025-11-22T09:30:00Z
  gapless order audit shm:sequenced --order 1742
  gapless order audit shm:sequenced --filter 'kind=rejected instrument=AAPL' --follow
  gapless order audit log:/var/log/orders --quiet --chain orders.chain

--chain keeps a chain of hashes over all entries in a file: the first time it is written, later
what it covers is compared, and what is new is appended. An entry that was changed, taken out or
put in since is named, and the exit code is 3. Note the last hash elsewhere: whoever can write the
file could make it anew.")]
pub(crate) struct Args {
    #[command(flatten)]
    source: Source,
    /// All about this order: its order id, which is the number of the entry that brought it
    #[arg(long, value_name = "ID", conflicts_with = "follow")]
    order: Option<u64>,
    /// What this client sent, or what concerns it
    #[arg(long, value_name = "N")]
    client: Option<u16>,
    /// From here on: a sequence number, or a time as @2025-11-22T09:30:00Z
    #[arg(long, value_name = "POINT")]
    from: Option<Point>,
    /// Up to here, not included
    #[arg(long, value_name = "POINT")]
    to: Option<Point>,
    /// Only what fits, as 'kind=filled,rejected client=3 instrument=AAPL'
    #[arg(long, value_name = "FILTER")]
    filter: Option<Filter>,
    /// Ticks of time as well
    #[arg(long)]
    ticks: bool,
    /// Compare with, or append to, a chain of hashes
    #[arg(long, value_name = "FILE")]
    chain: Option<PathBuf>,
    /// Tell no entries, only the account at the end
    #[arg(long)]
    quiet: bool,
    /// JSON objects, one a line
    #[arg(long)]
    json: bool,
}

/// Whether a record is at a point or behind it.
fn is_behind(record: &Record<'_>, point: Point) -> bool {
    match point.0 {
        ReadFrom::Sequence(sequence) => record.sequence >= sequence,
        ReadFrom::UnixNs(time_ns) => record.time_ns >= time_ns,
        _ => true,
    }
}

impl Args {
    fn takes(&self, record: &Record<'_>) -> bool {
        (self.ticks || record.kind != Kind::Time)
            && self.client.is_none_or(|client| record.client == ClientId(client))
            && self.from.is_none_or(|from| is_behind(record, from))
            && !self.to.is_some_and(|to| is_behind(record, to))
    }

    fn check(&self) -> anyhow::Result<()> {
        let known = |point: Point| matches!(point.0, ReadFrom::Sequence(_) | ReadFrom::UnixNs(_));
        if [self.from, self.to].into_iter().flatten().all(known) {
            return Ok(());
        }
        let text = "--from and --to need a sequence number or a time as @2025-11-22T09:30:00Z";
        Err(Usage(text.into()).into())
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    args.check()?;
    let stop = Stop::on_signals()?;
    let mut chain = args.chain.as_deref().map(Chain::open).transpose()?;
    let mut audit = args.order.map(|_| Audit::new());
    let mut filter = Notifications::new();
    if let Some(wanted) = &args.filter {
        filter.subscribe("", wanted.clone());
    }
    let out = std::cell::RefCell::new(BufWriter::new(io::stdout()));
    let mut told = 0_u64;
    let read = args.source.read(
        &stop,
        |record| {
            if let Some(chain) = &mut chain {
                chain.take(record)?;
            }
            let mut fits = args.filter.is_none();
            filter.apply(record, |_, _| fits = true);
            if let Some(audit) = &mut audit {
                audit.apply(record);
            } else if fits && args.takes(record) {
                told += 1;
                if !args.quiet {
                    tell(&mut *out.borrow_mut(), &Entry::of(record), args.json)?;
                }
            }
            Ok(())
        },
        || Ok(out.borrow_mut().flush()?),
    )?;
    let mut out = out.into_inner();
    if let (Some(audit), Some(order)) = (&audit, args.order) {
        let order = Some(OrderId(order));
        let found = audit.find(&Query { order, ..Query::default() });
        told += found.len() as u64;
        for entry in found.iter().filter(|_| !args.quiet) {
            tell(&mut out, entry, args.json)?;
        }
        if found.is_empty() {
            eprintln!("gapless: no entry of the stream brought order {}", args.order.unwrap_or(0));
        }
    }
    out.flush()?;
    let mut facts = Facts::default();
    facts.add("entries", "entries read", Cell::count(read.records));
    facts.add("told", "of them asked for", Cell::count(told));
    facts.add("missed", "not to be had", Cell::count(read.missed));
    let wrong = chain.as_mut().map_or(Ok(0), |chain| conclude(chain, &mut facts))?;
    match (args.json, args.quiet || args.chain.is_some()) {
        (true, _) => print_json(&facts.json().into())?,
        (false, true) => println!("{facts}"),
        (false, false) => eprintln!("{} entries, {} told", grouped(read.records), grouped(told)),
    }
    let unknown = args.order.is_some() && told == 0;
    Ok(Outcome::wrong_if(wrong > 0 || read.missed > 0 || unknown))
}

fn tell(out: &mut impl Write, entry: &Entry, json: bool) -> anyhow::Result<()> {
    match json {
        true => writeln!(out, "{}", words::object(entry))?,
        false => writeln!(out, "{entry}")?,
    }
    Ok(())
}

/// Ends the chain, and tells what is wrong with it.
fn conclude(chain: &mut Chain, facts: &mut Facts) -> anyhow::Result<usize> {
    let (last, hash) = chain.finish()?;
    facts.add("chain_compared", "chain: compared", Cell::count(chain.compared));
    facts.add("chain_appended", "chain: appended", Cell::count(chain.appended));
    facts.add("chain_wrong", "chain: wrong", Cell::count(chain.wrong.len() as u64));
    facts.add("chain_last", "chain: last entry", Cell::count(last));
    facts.add("chain_hash", "chain: its hash", Cell::text(hash));
    for wrong in &chain.wrong {
        eprintln!("gapless: {wrong}");
    }
    Ok(chain.wrong.len())
}
