//! `gapless stat`: what senders, receivers and other agents count, from their counters pages; read
//! only, at no cost to them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gapless::shm::{
    CountersError, CountersReader, CountersSnapshot, HistogramSnapshot, list_counters,
};
use serde_json::{Map, Value, json};

use crate::exit::Outcome;
use crate::stop::Stop;
use crate::table::{Cell, Table, age_text, ns_text, print_json, rate_text};
use crate::target::{Directory, Target};

/// Quantiles shown of a histogram: JSON key, heading, share.
const QUANTILES: [(&str, &str, f64); 3] =
    [("p50_ns", "p50", 0.5), ("p99_ns", "p99", 0.99), ("p999_ns", "p99.9", 0.999)];

/// Show the counters of senders, receivers and other agents, live
///
/// Reads only. Rates are those between two looks; quantiles are of everything since the agent
/// started. An agent that died is named as such, with the last values it counted.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless stat                           all of them, once a second, until ctrl-c
  gapless stat prices --once             one look, no rates
  gapless stat --json | jq -c 'select(.state == \"dead\") | .name'

JSON is one line for each agent and look. Ends with 3 if at the last look an agent had died without
closing its counters, or a page could not be read.")]
pub(crate) struct Args {
    /// The streams, each a name or an address [default: all]
    #[arg(value_name = "NAME")]
    targets: Vec<Target>,
    #[command(flatten)]
    directory: Directory,
    /// Time between two looks
    #[arg(long, alias = "interval", value_name = "MS", default_value_t = 1000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    interval_ms: u64,
    /// Looks in all [default: until ctrl-c]
    #[arg(long, value_name = "N", conflicts_with = "once")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    times: Option<u64>,
    /// One look
    #[arg(long)]
    once: bool,
    /// JSON, a line for each agent and look
    #[arg(long)]
    json: bool,
}

/// A page at one look.
struct Looked {
    name: String,
    page: Result<CountersSnapshot, CountersError>,
    at: Instant,
}

/// What a page counted at the look before.
struct Before {
    started_unix_ns: u64,
    counters: Vec<(String, u64)>,
    at: Instant,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    let interval = Duration::from_millis(args.interval_ms);
    let times = if args.once { 1 } else { args.times.unwrap_or(u64::MAX) };
    let mut before = BTreeMap::new();
    let mut wrong = false;
    for look in 0..times {
        if look > 0 {
            stop.wait(interval);
        }
        if stop.asked() {
            break;
        }
        let pages = look_at(args)?;
        if look == 0 {
            missing(args, &pages)?;
        }
        wrong = pages.iter().any(|(_, looked)| is_wrong(looked));
        if args.json {
            print_lines(&pages, &before)?;
        } else {
            print_tables(args, &pages, &before, look)?;
        }
        before =
            pages.into_iter().filter_map(|(path, looked)| Some((path, kept(looked)?))).collect();
    }
    Ok(Outcome::wrong_if(wrong))
}

/// Looks at every page asked for, by its directory and name.
fn look_at(args: &Args) -> anyhow::Result<Vec<((PathBuf, String), Looked)>> {
    let wanted: Vec<(PathBuf, String)> = if args.targets.is_empty() {
        let directory = args.directory.path();
        let names = list_counters(&directory)?.into_iter();
        names.map(|name| (directory.clone(), name)).collect()
    } else {
        let targets = args.targets.iter();
        targets.map(|t| (t.directory(&args.directory), t.name().to_owned())).collect()
    };
    let looked = |(directory, name): (PathBuf, String)| {
        let page = snapshot(&directory, &name);
        let looked = Looked { name: name.clone(), page, at: Instant::now() };
        ((directory, name), looked)
    };
    let all = wanted.into_iter().map(looked);
    // Of those that were listed, one may have been removed since.
    let gone = |looked: &Looked| matches!(looked.page, Err(CountersError::NotFound { .. }));
    Ok(all.filter(|(_, looked)| !args.targets.is_empty() || !gone(looked)).collect())
}

/// Opened anew at each look: a writer that starts makes a new page.
fn snapshot(directory: &Path, name: &str) -> Result<CountersSnapshot, CountersError> {
    CountersReader::open(directory, name)?.snapshot()
}

/// A page that was asked for by name and is not there is a failure, if it has never been there.
fn missing(args: &Args, pages: &[((PathBuf, String), Looked)]) -> anyhow::Result<()> {
    let failures = pages.iter().filter_map(|(_, looked)| match &looked.page {
        Err(error @ CountersError::NotFound { .. }) => Some(error.to_string()),
        _ => None,
    });
    let failures: Vec<String> = failures.collect();
    anyhow::ensure!(failures.is_empty(), failures.join("\ngapless: "));
    if pages.is_empty() {
        eprintln!("no counters in {}", args.directory.path().display());
    }
    Ok(())
}

fn is_wrong(looked: &Looked) -> bool {
    looked.page.as_ref().map_or(true, |page| !page.alive && !page.closed)
}

fn kept(looked: Looked) -> Option<Before> {
    let page = looked.page.ok()?;
    let (started_unix_ns, counters) = (page.started_unix_ns, page.counters);
    Some(Before { started_unix_ns, counters, at: looked.at })
}

fn state_text(page: &CountersSnapshot) -> &'static str {
    match (page.alive, page.closed) {
        (true, _) => "alive",
        (false, true) => "closed",
        (false, false) => "dead",
    }
}

/// How fast a counter has grown since the look before; `None` without one, or if it was set back.
fn rate(looked: &Looked, before: Option<&Before>, label: &str, value: u64) -> Option<f64> {
    let page = looked.page.as_ref().ok()?;
    let before = before.filter(|before| before.started_unix_ns == page.started_unix_ns)?;
    let (_, then) = before.counters.iter().find(|(found, _)| found == label)?;
    let seconds = looked.at.duration_since(before.at).as_secs_f64();
    Some(value.checked_sub(*then)? as f64 / seconds)
}

type Pages = [((PathBuf, String), Looked)];
type Earlier = BTreeMap<(PathBuf, String), Before>;

fn print_lines(pages: &Pages, before: &Earlier) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    for (key, looked) in pages {
        let mut line = Map::new();
        line.insert("unix_ns".into(), Value::from(now.as_nanos() as u64));
        line.insert("name".into(), Value::from(looked.name.as_str()));
        match &looked.page {
            Err(error) => {
                line.insert("problem".into(), Value::from(error.to_string()));
            }
            Ok(page) => {
                line.insert("kind".into(), Value::from(page.kind.as_str()));
                line.insert("pid".into(), Value::from(page.pid));
                line.insert("state".into(), Value::from(state_text(page)));
                line.insert("started_unix_ns".into(), Value::from(page.started_unix_ns));
                let counters = page.counters.iter().map(|(label, value)| {
                    let rate = rate(looked, before.get(key), label, *value);
                    (label.clone(), json!({ "value": value, "per_second": rate }))
                });
                line.insert("counters".into(), Value::Object(counters.collect()));
                let histograms = page.histograms.iter();
                let histograms =
                    histograms.map(|h| (h.label.clone(), Value::Object(histogram_json(h))));
                line.insert("histograms".into(), Value::Object(histograms.collect()));
                line.insert("problem".into(), Value::Null);
            }
        }
        print_json(&Value::Object(line))?;
    }
    Ok(())
}

fn histogram_json(histogram: &HistogramSnapshot) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("count".into(), Value::from(histogram.count));
    fields.insert("mean_ns".into(), Value::from(histogram.mean_ns()));
    for (key, _, share) in QUANTILES {
        fields.insert(key.into(), Value::from(histogram.quantile_ns(share)));
    }
    fields.insert("max_ns".into(), Value::from(largest(histogram)));
    fields
}

/// The largest value, if there is any.
fn largest(histogram: &HistogramSnapshot) -> Option<u64> {
    (histogram.count > 0).then_some(histogram.max_ns)
}

fn print_tables(args: &Args, pages: &Pages, before: &Earlier, look: u64) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if look > 0 {
        writeln!(out, "\n{}\n", "-".repeat(72))?;
    }
    let tables = [agents(pages), counters(pages, before), histograms(pages)];
    let mut texts = tables.iter().filter(|table| !table.is_empty()).map(Table::to_string);
    match texts.next() {
        Some(first) => {
            write!(out, "{first}")?;
            texts.try_for_each(|text| write!(out, "\n\n{text}"))?;
            writeln!(out)?;
        }
        None if look > 0 => writeln!(out, "no counters in {}", args.directory.path().display())?,
        None => {} // told already
    }
    out.flush()
}

fn agents(pages: &Pages) -> Table {
    let mut table = Table::new(&[
        ("name", "name"),
        ("kind", "kind"),
        ("pid", "pid"),
        ("state", "state"),
        ("started_unix_ns", "started"),
        ("problem", "problem"),
    ]);
    for (_, looked) in pages {
        let name = Cell::text(&looked.name);
        table.row(match &looked.page {
            Ok(page) => vec![
                name,
                Cell::text(&page.kind),
                Cell::with(page.pid.to_string(), page.pid),
                Cell::text(state_text(page)),
                Cell::with(age_text(page.started_unix_ns), page.started_unix_ns),
                Cell::none(),
            ],
            Err(error) => {
                let nothing = || Cell::none();
                vec![
                    name,
                    nothing(),
                    nothing(),
                    nothing(),
                    nothing(),
                    Cell::text(error.to_string()),
                ]
            }
        });
    }
    table
}

fn counters(pages: &Pages, before: &Earlier) -> Table {
    let mut table = Table::new(&[
        ("name", "name"),
        ("counter", "counter"),
        ("value", "value"),
        ("per_second", "rate"),
    ]);
    for (key, looked) in pages {
        for (label, value) in looked.page.iter().flat_map(|page| &page.counters) {
            let rate = rate(looked, before.get(key), label, *value);
            table.row(vec![
                Cell::text(&looked.name),
                Cell::text(label),
                Cell::count(*value),
                rate.map_or(Cell::none(), |rate| Cell::with(rate_text(rate, ""), rate)),
            ]);
        }
    }
    table
}

fn histograms(pages: &Pages) -> Table {
    let mut table = Table::new(&[
        ("name", "name"),
        ("histogram", "histogram"),
        ("count", "count"),
        ("mean_ns", "mean"),
        (QUANTILES[0].0, QUANTILES[0].1),
        (QUANTILES[1].0, QUANTILES[1].1),
        (QUANTILES[2].0, QUANTILES[2].1),
        ("max_ns", "max"),
    ]);
    let time = |ns: Option<u64>| ns.map_or(Cell::none(), |ns| Cell::with(ns_text(ns), ns));
    for (_, looked) in pages {
        for histogram in looked.page.iter().flat_map(|page| &page.histograms) {
            let mut row = vec![
                Cell::text(&looked.name),
                Cell::text(&histogram.label),
                Cell::count(histogram.count),
                time(histogram.mean_ns()),
            ];
            row.extend(QUANTILES.map(|(_, _, share)| time(histogram.quantile_ns(share))));
            row.push(time(largest(histogram)));
            table.row(row);
        }
    }
    table
}
