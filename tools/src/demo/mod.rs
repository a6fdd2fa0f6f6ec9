//! `gapless demo`: real market data from one publisher process to two subscriber processes, and
//! from host to host over a bad line.
//!
//! The demo is a list of acts; each returns its report, and the demo is sound if all of them are.
//! It needs no set-up: the data is built in, the ring lives in a private directory of its own.

pub(crate) mod auditor;
pub(crate) mod bridge;
pub(crate) mod engine;
mod hosts;
mod probe;
pub(crate) mod publisher;
pub(crate) mod receiver;
pub(crate) mod recorder;
mod ring;
mod saga;
mod sample;
pub(crate) mod sender;
mod stage;
pub(crate) mod subscriber;
pub(crate) mod survivor;
pub(crate) mod trader;
mod trading;
mod troupe;
mod wire;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use gapless::{Calibration, TscClock};
use serde::Serialize;
use serde_json::{Value, json};

use crate::exit::Outcome;
use crate::latency::{self, Latency};
use crate::stop::Stop;
use crate::table::{Cell, Table, bytes_text, grouped, ns_text, rate_text};
use hosts::Hosts;
use ring::RingReport;
use saga::SagaReport;
use stage::Stage;
use trading::TradingReport;
use wire::WireReport;

/// Messages of the flat-out act: 618 replays of the sample, a little over five million.
const FLAT_OUT_MESSAGES: u64 = 618 * sample::MESSAGES;
/// Messages of the paced act: 25 replays.
const PACED_MESSAGES: u64 = 25 * sample::MESSAGES;
const QUICK_FLAT_OUT_MESSAGES: u64 = 25 * sample::MESSAGES;
const QUICK_PACED_MESSAGES: u64 = 3 * sample::MESSAGES;
/// Messages of the acts between hosts: at most so many of what the ring's acts have.
const WIRE_FLAT_OUT_MESSAGES: u64 = 123 * sample::MESSAGES;
const QUICK_WIRE_FLAT_OUT_MESSAGES: u64 = 12 * sample::MESSAGES;
const RATE_DEFAULT: u64 = 100_000;
/// Commands of each trader, a tenth of the paced act's messages within these bounds; a second.
const COMMANDS_MIN: u64 = 2_000;
const COMMANDS_MAX: u64 = 10_000;
const COMMANDS_RATE: u64 = 5_000;
/// Messages a second of the act with two lines.
const LINES_RATE: u64 = 20_000;

/// Replay real market data through a ring and between hosts, and measure it
///
/// A publisher process and two subscriber processes, pinned to cores where there are several,
/// exchange a built-in sample of a real exchange feed (MOEX FORTS, FAST 1.1): first flat out, then
/// at a fixed pace. Prints the rate, the one-way latency of the paced part (from the time each
/// message was due: a publisher that falls behind does not hide it), the gaps in the sequence
/// numbers, and whether each subscriber's digest of all bytes equals the publisher's.
///
/// Then the same data goes over multicast from one host to another (network namespaces where root
/// may make them, else the loopback interface), where one datagram in a hundred is lost, one comes
/// twice and one is overtaken; then the feed's own two lines are sent as two lines, and
/// arbitrated. Prints the gaps found and repaired, how long repairs took, and the digests.
///
/// Then the data is recorded to a log, the subscriber is killed half way, and a new one goes
/// on from its last message: first from the log, then live.
///
/// In the last act the feed drives orders: two traders, one of them on the other host, an engine
/// that is killed half way, a standby, a recorder and an audit. Prints the time from each command
/// to its first event, and holds everybody's account against everybody else's, order by order.
///
/// Needs no set-up and leaves nothing behind.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless demo                    some five million messages flat out, 200 thousand paced; then
                                  a million and 200 thousand between hosts
  gapless demo --quick            a few seconds, for scripts
  gapless demo --rate 1000000     a million messages a second in the paced act
  gapless demo --quick --json     one JSON object

Ends with 3 if a message was missed, or a digest or an account differs.")]
pub(crate) struct Args {
    /// Fewer messages: about 200 thousand flat out, 24 thousand paced
    #[arg(long)]
    quick: bool,
    /// Messages of the flat-out act [default: 5006418, the sample 618 times]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    messages: Option<u64>,
    /// Messages of the paced act [default: 202525, the sample 25 times]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    paced_messages: Option<u64>,
    /// Messages a second of the paced act
    #[arg(long, value_name = "R", default_value_t = RATE_DEFAULT)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: u64,
    /// Where to make the private directory of the ring [default: /dev/shm, or else $TMPDIR]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// What an act found. Further kinds of acts become further variants.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Report {
    /// Messages through a shared-memory ring.
    Ring(RingReport),
    /// Messages from host to host.
    Wire(Box<WireReport>),
    /// Messages through a log.
    Log(SagaReport),
    /// Orders.
    Trading(Box<TradingReport>),
}

impl Report {
    fn is_sound(&self) -> bool {
        match self {
            Self::Ring(report) => report.is_sound(),
            Self::Wire(report) => report.is_sound(),
            Self::Log(report) => report.is_sound(),
            Self::Trading(report) => report.is_sound(),
        }
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Ring(report) => print_ring(report, out),
            Self::Wire(report) => report.print(out),
            Self::Log(report) => report.print(out),
            Self::Trading(report) => report.print(out),
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    let clock = TscClock::new();
    let calibration = clock.calibration(Duration::from_millis(20));
    let stage = Stage::set(stop, args.dir.as_deref())?;
    let (flat_out, paced) = if args.quick {
        (QUICK_FLAT_OUT_MESSAGES, QUICK_PACED_MESSAGES)
    } else {
        (FLAT_OUT_MESSAGES, PACED_MESSAGES)
    };
    let (flat_out, paced) =
        (args.messages.unwrap_or(flat_out), args.paced_messages.unwrap_or(paced));
    let mut out = io::stdout().lock();
    if !args.json {
        print_opening(&stage, &calibration, &mut out)?;
    }
    let mut reports = Vec::new();
    let mut tell = |report: Report| -> anyhow::Result<()> {
        if !args.json {
            report.print(&mut out)?;
        }
        reports.push(report);
        Ok(())
    };
    for act in ring_acts(flat_out, paced, args.rate) {
        tell(Report::Ring(ring::play(&act, &stage, &clock)?))?;
    }
    let hosts = Hosts::find();
    let wire_max = if args.quick { QUICK_WIRE_FLAT_OUT_MESSAGES } else { WIRE_FLAT_OUT_MESSAGES };
    for act in wire_acts(flat_out.min(wire_max), paced, args.rate) {
        let report = wire::play(&act, &hosts, &stage, &clock)?;
        tell(Report::Wire(Box::new(report)))?;
    }
    tell(Report::Log(saga::play(paced, args.rate, &stage, args.dir.as_deref())?))?;
    let commands = (paced / 10).clamp(COMMANDS_MIN, COMMANDS_MAX);
    let report = trading::play(commands, COMMANDS_RATE, &hosts, &stage, args.dir.as_deref())?;
    tell(Report::Trading(Box::new(report)))?;
    let sound = reports.iter().all(Report::is_sound);
    if args.json {
        writeln!(out, "{}", json_of(&stage, &calibration, &reports, sound)?)?;
    } else if sound {
        writeln!(
            out,
            "Every subscriber saw every message, in order, byte for byte; every account agrees."
        )?;
    } else {
        writeln!(out, "WRONG: messages are missing or differ, see above.")?;
    }
    Ok(Outcome::wrong_if(!sound))
}

fn ring_acts(flat_out: u64, paced: u64, rate: u64) -> [ring::Act; 2] {
    [
        ring::Act {
            title: "Act 1a: through the ring, flat out",
            stream: "demo-flat-out",
            messages: flat_out,
            rate: None,
        },
        ring::Act {
            title: "Act 1b: through the ring, at a fixed pace",
            stream: "demo-paced",
            messages: paced,
            rate: Some(rate),
        },
    ]
}

fn wire_acts(flat_out: u64, paced: u64, rate: u64) -> [wire::Act; 3] {
    let act = |title, messages, rate, lines| wire::Act { title, messages, rate, lines };
    [
        act("Act 2a: multicast over a bad line, flat out", flat_out, None, false),
        act("Act 2b: multicast over a bad line, at a fixed pace", paced, Some(rate), false),
        act("Act 3: the feed's two lines, both bad, arbitrated", 0, Some(LINES_RATE), true),
    ]
}

fn json_of(
    stage: &Stage,
    calibration: &Calibration,
    reports: &[Report],
    sound: bool,
) -> anyhow::Result<Value> {
    Ok(json!({
        "source": {
            "title": sample::TITLE,
            "origin": sample::ORIGIN,
            "messages": sample::MESSAGES,
        },
        "machine": {
            "cores": stage.cores,
            "note": stage.note,
            "core_to_core_ns": stage.core_to_core_ns,
            "load_average": stage.load_average,
        },
        "clock": {
            "ticks_per_second": calibration.ticks_per_second,
            "error_ppm": calibration.error_ppm,
            "uncertainty_ppm": calibration.uncertainty_ppm,
            "read_cost_ns": calibration.read_cost_ns,
        },
        "acts": serde_json::to_value(reports)?,
        "sound": sound,
    }))
}

fn print_opening(stage: &Stage, calibration: &Calibration, out: &mut dyn Write) -> io::Result<()> {
    let core =
        |core: Option<usize>| core.map_or("not pinned".into(), |core| format!("core {core}"));
    let roles = &stage.roles;
    let [a, b] = roles.subscribers;
    writeln!(out, "Data     {}", sample::TITLE)?;
    writeln!(out, "         {}", sample::ORIGIN)?;
    writeln!(
        out,
        "Cores    {} to use; publisher: {}; subscribers: {}, {}",
        stage.cores.len(),
        core(roles.publisher),
        core(a),
        core(b)
    )?;
    for line in lines_of(stage.note, 80) {
        writeln!(out, "         {line}")?;
    }
    if let Some(ns) = stage.core_to_core_ns {
        writeln!(
            out,
            "         one cache line between them, there and back: {ns} ns ({})",
            probe::class_text(ns)
        )?;
    }
    if let Some(load) = stage.load_average.filter(|_| stage.is_busy()) {
        writeln!(out, "         busy: load average {load:.1}; other work shows in the figures")?;
    }
    writeln!(out, "Clock    {calibration}\n")?;
    out.flush()
}

/// Breaks `text` between words into lines of at most `columns`.
fn lines_of(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// How much an act is about, and how fast it should go.
fn print_size(messages: u64, bytes: u64, rate: Option<u64>, out: &mut dyn Write) -> io::Result<()> {
    let pace = match rate {
        Some(rate) => format!("{} a second wanted", grouped(rate)),
        None => "as fast as they go".into(),
    };
    writeln!(
        out,
        "  {} messages ({:.1} times the sample), {}, {pace}",
        grouped(messages),
        messages as f64 / sample::MESSAGES as f64,
        bytes_text(bytes),
    )
}

fn print_ring(report: &RingReport, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{}", report.title)?;
    print_size(report.messages, report.bytes, report.wanted_rate, out)?;
    writeln!(
        out,
        "  {} in {}: {}, {:.1} MB/s to each subscriber; the publisher had to wait {} times",
        if report.wanted_rate.is_some() { "paced" } else { "done" },
        ns_text(report.elapsed_ns),
        rate_text(report.messages_per_second, "msg"),
        report.bytes_per_second / 1e6,
        grouped(report.backpressure_waits),
    )?;
    writeln!(out, "  publisher's digest {}", report.digest)?;
    let mut columns = vec![
        ("name", "  subscriber"),
        ("messages", "messages"),
        ("gaps", "gaps"),
        ("digest", "digest"),
    ];
    if report.wanted_rate.is_some() {
        columns.extend(latency::COLUMNS);
    }
    let mut table = Table::new(&columns);
    for subscriber in &report.subscribers {
        let digest = if subscriber.digest == report.digest {
            "equal".to_owned()
        } else {
            format!("DIFFERS: {}", subscriber.digest)
        };
        let mut cells = vec![
            Cell::text(format!("  {}", subscriber.name)),
            Cell::count(subscriber.messages),
            Cell::count(subscriber.gaps),
            Cell::text(digest),
        ];
        cells.extend(subscriber.latency.iter().flat_map(Latency::cells));
        table.row(cells);
    }
    writeln!(out, "{table}")?;
    let remark = if report.wanted_rate.is_some() {
        "one-way latency, from the time each message was due to the time it was read"
    } else {
        "no latency: flat out, a message's age is the length of the queue in front of it"
    };
    writeln!(out, "  ({remark})\n")?;
    out.flush()
}
