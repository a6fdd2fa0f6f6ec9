//! `gapless-bench`: how fast the ring, the wire, the log and the order path are, against the
//! physical limit and against their peers, measured in one interleaved run.
//!
//! The rules: both sides pinned; warmed up; every sample in a histogram; the timer's own cost
//! stated; medians of several rounds with the extremes beside them; paced load measured from the
//! intended send time; results compared only between runs of the same core-to-core class.

mod brokers;
mod clock;
mod control;
mod disk;
mod floor;
mod host;
mod instructions;
mod line;
mod link;
mod log;
mod lossy;
mod mapping;
mod memcpy;
mod net;
mod oneway;
mod order;
mod partner;
mod peers;
mod place;
mod plot;
mod probe;
mod publish;
mod report;
mod ring;
mod roundtrip;
mod run;
mod scenario;
mod schedule;
mod suite;
mod throughput;
mod wire;

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::clock::Clock;
use crate::host::Host;
use crate::place::Site;
use crate::report::Report;
use crate::run::Plan;
use crate::scenario::{Case, Span};

/// Rounds of a full and of a quick measurement.
const ROUNDS: u32 = 5;
const ROUNDS_QUICK: u32 = 3;

const AFTER_HELP: &str = "\
Suites:
  ipc    the ring between two processes of one host, its floor and its peers
  net    streams over datagrams between two processes, and their floors
  log    streams on a disk, what disk and memory do by themselves, and peers
  order  the order path: sequencer, risk, matching, fail-over, replay
  xdp    streams by AF_XDP between two network namespaces, and what they are judged by

Example:
  gapless-bench ipc --quick --json ipc.jsonl";

/// Measures gapless against the physical limit of this machine and against its peers.
#[derive(Parser)]
#[command(name = "gapless-bench", version, args_conflicts_with_subcommands = true)]
#[command(after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    measure: Measure,
}

#[derive(clap::Args)]
struct Measure {
    /// What to measure.
    #[arg(required = true, value_parser = suite::names())]
    suite: Option<String>,
    /// Shorter runs, fewer rounds: ends within two minutes.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name contains this text, and the floors that they are judged by.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Rounds; each runs every case once.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: Option<u32>,
    /// Writes one JSON object a line.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes a plot of the latency percentiles.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Suite `log`: where to write; beside this program or here, whichever is on a disk, if not
    /// given.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Suite `log`: what a burst writes, in MiB [default: 2048, quick: 1024].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(16..=1 << 20))]
    burst: Option<u64>,
    /// Suite `log`: measures `redis-server` and `nats-server` as well, where they are installed.
    #[arg(long)]
    peers: bool,
    /// Lists the cases and runs none.
    #[arg(long)]
    list: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Counts the instructions of the hot path under callgrind.
    Instructions {
        /// Fails if an operation takes over 1.05 times its budget.
        #[arg(long)]
        check: bool,
    },
    /// One side of a count.
    #[command(name = "__spin", hide = true)]
    Spin(instructions::Spin),
    /// A writer that is to be killed.
    #[command(name = "__doomed", hide = true)]
    Doomed(log::Doomed),
    /// A sequencer that is to be killed.
    #[command(name = "__node", hide = true)]
    Node(order::Node),
    /// The other side of a run.
    #[command(name = "__partner", hide = true)]
    Partner(partner::Brief),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        Some(Command::Partner(brief)) => partner::run(&brief),
        Some(Command::Doomed(doomed)) => doomed.run(),
        Some(Command::Node(node)) => node.run(),
        Some(Command::Spin(spin)) => instructions::spin(&spin),
        Some(Command::Instructions { check }) => instructions::count(check),
        None => measure(&cli.measure),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gapless-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(args: &Measure) -> Result<()> {
    let suite = args.suite.as_deref().unwrap_or_default();
    let cases = select(suite::cases(suite)?, &args.only)?;
    if args.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        return Ok(());
    }
    let clock = Clock::calibrate();
    let mut host = Host::probe(clock);
    println!("{}", host.line());
    let site = if suite::is_on_disk(suite) {
        let burst_bytes = args.burst.map(|mebibytes| mebibytes << 20);
        Some(Site::open(args.dir.as_deref(), burst_bytes, args.quick, args.peers)?)
    } else {
        None
    };
    if let Some(site) = &site {
        println!("{}", site.line);
        host.disk = Some(site.line.clone());
    }
    if host.cores == 1 {
        println!(
            "one core: both sides take turns on it, so every figure below is the scheduler's, \
             not those of what is measured"
        );
    }
    let plan = Plan {
        suite: suite.to_owned(),
        clock,
        span: if args.quick { Span::QUICK } else { Span::FULL },
        rounds: args.rounds.unwrap_or(if args.quick { ROUNDS_QUICK } else { ROUNDS }),
        quick: args.quick,
        cores: cores(),
        place: site.as_ref().map(|site| site.place.clone()),
    };
    let (cases, skipped) = run::runnable(suite, cases, plan.place.as_ref());
    let runs = run::rounds(&plan, &cases, progress)?;
    progress("");
    let report = Report::new(host, clock, suite, &cases, &runs)?.skipping(skipped);
    println!("{}", report.table());
    report.remarks().for_each(|remark| println!("{remark}"));
    report.skipped.iter().for_each(|skipped| println!("{skipped}"));
    if let Some(path) = &args.json {
        write(path, |out| report.write_json(out))?;
    }
    if let Some(path) = &args.svg {
        plot::write_svg(&report, path)?;
    }
    Ok(())
}

/// The first two cores that this process may run on; the same one twice if there is but one.
fn cores() -> [usize; 2] {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    let first = ids.first().map_or(0, |core| core.id);
    [first, ids.get(1).map_or(first, |core| core.id)]
}

/// The cases whose names contain one of `only`, and what they are compared with.
fn select(cases: Vec<Case>, only: &[String]) -> Result<Vec<Case>> {
    if only.is_empty() {
        return Ok(cases);
    }
    let asked = |case: &Case| only.iter().any(|text| case.name.contains(text));
    let wanted: Vec<String> = cases
        .iter()
        .filter(|case| asked(case))
        .flat_map(|case| std::iter::once(&case.name).chain(case.measures()).cloned())
        .collect();
    anyhow::ensure!(!wanted.is_empty(), "no case contains {}", only.join(" or "));
    Ok(cases.into_iter().filter(|case| wanted.contains(&case.name)).collect())
}

/// Shows what is going on, on a terminal only; an empty text wipes it.
fn progress(text: &str) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        // A terminal that cannot be written to misses nothing but this line.
        let _ = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
    }
}

fn write(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let mut out = BufWriter::new(file);
    fill(&mut out)?;
    out.flush().with_context(|| format!("write {}", path.display()))
}
