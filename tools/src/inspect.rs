//! `gapless inspect`: everything about one ring, from outside: read-only, holding nobody up, and
//! of use on a ring that is dead, half-written or damaged.

use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use gapless::shm::{Header, Inspector, RingError, Snapshot, session_text};
use serde_json::{Value, json};

use crate::exit::{Outcome, Usage};
use crate::ls::{mode_text, status_text};
use crate::range::Range;
use crate::stop::Stop;
use crate::table::{Cell, Facts, Table, age_text, print_json, rate_text};
use crate::target::{Directory, Target, head_of, hexdump, is_damage};
use crate::verify;

/// Bytes shown of a file whose header cannot be read.
const DUMP_BYTES: usize = 256;

/// Look at a ring: header, producer, consumers, records
///
/// Reads only, holds nobody up, and works on a ring whose producer is alive, dead, or died in the
/// middle of a message. Of a damaged one it shows the reason, and the first bytes.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless inspect orders
  gapless inspect orders --follow                  once a second, until ctrl-c
  gapless inspect orders --records 100..110        sequences 100 to 109, as hexdumps
  gapless inspect orders --records ..              everything retained
  gapless inspect orders --verify                  check every retained record

Ends with 3 if something is wrong with the ring.")]
pub(crate) struct Args {
    /// The ring: its name or address
    #[arg(value_name = "NAME")]
    target: Target,
    #[command(flatten)]
    directory: Directory,
    /// Show the records of these sequence numbers; TO is not included, either end may be left out
    #[arg(long, value_name = "FROM..TO", conflicts_with_all = ["follow", "verify"])]
    records: Option<Range>,
    /// Walk every retained record, and check it
    #[arg(long, conflicts_with = "follow")]
    verify: bool,
    /// Look again and again
    #[arg(long)]
    follow: bool,
    /// Time between two looks
    #[arg(long, value_name = "MS", default_value_t = 1000, requires = "follow")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    interval_ms: u64,
    /// Looks in all [default: until ctrl-c]
    #[arg(long, value_name = "N", requires = "follow")]
    times: Option<u64>,
    /// JSON: one object, one a look, or one a record
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let path = args.target.file(&args.directory)?;
    let inspector = match Inspector::open_file(&path) {
        Ok(inspector) => inspector,
        Err(error) if is_damage(&error) => return damaged(args, &path, &error),
        Err(error) => return Err(error.into()),
    };
    if let Some(range) = args.records {
        return records(args, &inspector, range);
    }
    if args.verify {
        return verify::run(&inspector, args.json);
    }
    if args.follow {
        return follow(args, &inspector);
    }
    let snapshot = inspector.snapshot();
    show(args, &inspector, &snapshot, None)?;
    Ok(Outcome::wrong_if(snapshot.problem.is_some()))
}

/// The header cannot be read: its typed error, and the bytes it was read from.
fn damaged(args: &Args, path: &Path, error: &RingError) -> anyhow::Result<Outcome> {
    if args.json {
        print_json(&json!({ "path": path.display().to_string(), "problem": error.to_string() }))?;
    } else {
        let mut out = io::stdout().lock();
        writeln!(out, "{error}\n\nThe first {DUMP_BYTES} bytes of {}:", path.display())?;
        write!(out, "{}", head_of(path, DUMP_BYTES))?;
    }
    Ok(Outcome::Wrong)
}

fn follow(args: &Args, inspector: &Inspector) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    let interval = Duration::from_millis(args.interval_ms);
    let mut before: Option<(u64, Instant)> = None;
    let mut wrong = false;
    for look in 0..args.times.unwrap_or(u64::MAX) {
        if look > 0 {
            stop.wait(interval);
        }
        if stop.asked() {
            break;
        }
        let snapshot = inspector.snapshot();
        let now = Instant::now();
        let rate = before.map(|(sequence, then)| {
            let count = snapshot.next_sequence.saturating_sub(sequence);
            count as f64 / now.duration_since(then).as_secs_f64()
        });
        before = Some((snapshot.next_sequence, now));
        wrong = snapshot.problem.is_some();
        if look > 0 && !args.json {
            writeln!(io::stdout(), "\n{}\n", "-".repeat(72))?;
        }
        show(args, inspector, &snapshot, rate)?;
    }
    Ok(Outcome::wrong_if(wrong))
}

fn show(
    args: &Args,
    inspector: &Inspector,
    snapshot: &Snapshot,
    rate: Option<f64>,
) -> io::Result<()> {
    let header = header_facts(inspector);
    let producer = producer_facts(inspector.header(), snapshot, rate);
    let consumers = consumer_table(snapshot);
    if args.json {
        return print_json(&json!({
            "header": Value::from(header.json()),
            "producer": Value::from(producer.json()),
            "consumers": consumers.json(),
            "problem": snapshot.problem,
        }));
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{header}\n\n{producer}\n")?;
    if consumers.is_empty() {
        writeln!(out, " no consumers")?;
    } else {
        writeln!(out, "{consumers}")?;
    }
    if let Some(problem) = &snapshot.problem {
        writeln!(out, "\nWRONG: {problem}")?;
    }
    out.flush()
}

fn header_facts(inspector: &Inspector) -> Facts {
    let header = inspector.header();
    let yes = |yes| Cell::with(if yes { "yes" } else { "no" }, yes);
    let mut facts = Facts::default();
    facts.add("name", "name", Cell::text(&header.name));
    facts.add("path", "file", Cell::text(inspector.path().display().to_string()));
    facts.add("file_bytes", "file size", Cell::bytes(header.file_bytes));
    facts.add("session", "session", Cell::text(session_text(header.session)));
    let age = age_text(header.created_unix_ns);
    facts.add("created_unix_ns", "created", Cell::with(age, header.created_unix_ns));
    facts.add("mode", "mode", Cell::text(mode_text(header.mode)));
    facts.add("capacity_bytes", "capacity", Cell::bytes(header.capacity_bytes));
    facts.add("alignment_bytes", "alignment", Cell::bytes(header.alignment_bytes));
    let max = header.max_message_bytes as u64;
    facts.add("max_message_bytes", "largest record", Cell::bytes(max));
    facts.add("consumer_slots", "consumer slots", Cell::count(header.consumer_slots as u64));
    facts.add("parkable", "parkable", yes(header.parkable));
    facts.add("evictable", "evictable", yes(header.evictable));
    facts.add("first_sequence", "first sequence", Cell::count(header.first_sequence));
    facts
}

fn producer_facts(header: &Header, snapshot: &Snapshot, rate: Option<f64>) -> Facts {
    let mut facts = Facts::default();
    facts.add("status", "producer", Cell::text(status_text(snapshot.producer)));
    let pid = snapshot.producer_pid;
    facts.add("pid", "pid", Cell::with(pid.to_string(), pid));
    facts.add("starts", "starts", Cell::count(snapshot.producer_starts));
    let heartbeat = match snapshot.heartbeat_unix_ns {
        0 => Cell::with("never", Value::Null),
        unix_ns => Cell::with(age_text(unix_ns), unix_ns),
    };
    facts.add("heartbeat_unix_ns", "heartbeat", heartbeat);
    let published = snapshot.next_sequence.saturating_sub(header.first_sequence);
    facts.add("messages", "messages", Cell::count(published));
    let retained = snapshot.next_sequence.saturating_sub(snapshot.oldest_sequence);
    facts.add("retained", "retained", Cell::count(retained));
    facts.add("oldest_sequence", "oldest sequence", Cell::count(snapshot.oldest_sequence));
    facts.add("next_sequence", "next sequence", Cell::count(snapshot.next_sequence));
    facts.add("position_bytes", "position", Cell::count(snapshot.position));
    facts.add("frontier_bytes", "frontier", Cell::count(snapshot.frontier));
    if let Some(rate) = rate {
        facts.add("messages_per_second", "rate", Cell::with(rate_text(rate, "msg"), rate));
    }
    facts.add("backpressure", "refused for room", Cell::count(snapshot.backpressure));
    facts.add("aborted", "aborted", Cell::count(snapshot.aborted));
    facts.add("reclaimed", "slots taken back", Cell::count(snapshot.reclaimed));
    facts.add("quarantined", "set aside", Cell::count(snapshot.quarantined));
    facts
}

fn consumer_table(snapshot: &Snapshot) -> Table {
    let mut table = Table::new(&[
        ("slot", "slot"),
        ("name", "consumer"),
        ("pid", "pid"),
        ("alive", "alive"),
        ("kind", "kind"),
        ("next_sequence", "next"),
        ("lag_messages", "lag"),
        ("lag_bytes", "lag bytes"),
        ("stalls", "stalls"),
        ("missed", "missed"),
    ]);
    for consumer in &snapshot.consumers {
        let kind = match (consumer.evicted, consumer.gating) {
            (true, _) => "evicted",
            (_, true) => "gating",
            (_, false) => "free-running",
        };
        let name = if consumer.name.is_empty() { "(no name)" } else { &consumer.name };
        table.row(vec![
            Cell::count(consumer.slot as u64),
            Cell::with(name, consumer.name.as_str()),
            Cell::with(consumer.pid.to_string(), consumer.pid),
            Cell::with(if consumer.alive { "yes" } else { "dead" }, consumer.alive),
            Cell::text(kind),
            Cell::count(consumer.next_sequence),
            Cell::count(consumer.lag_messages),
            Cell::bytes(consumer.lag_bytes),
            Cell::count(consumer.stalls),
            Cell::count(consumer.missed),
        ]);
    }
    table
}

fn records(args: &Args, inspector: &Inspector, range: Range) -> anyhow::Result<Outcome> {
    let snapshot = inspector.snapshot();
    let from = range.from.unwrap_or(snapshot.oldest_sequence);
    let to = range.to.unwrap_or(u64::MAX);
    if from >= to {
        return Err(Usage(format!("--records {from}..{to}: TO must be above FROM")).into());
    }
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut failed = None;
    let walked = inspector.records(from, to, |record| {
        if failed.is_none() {
            failed = write_record(&mut out, &record, args.json).err();
        }
    });
    if let Some(error) = failed {
        return Err(error.into());
    }
    out.flush()?;
    match walked {
        Ok(0) if !args.json => {
            eprintln!("no records from {from} on; next is {}", snapshot.next_sequence)
        }
        Ok(_) => {}
        Err(error) if is_damage(&error) => {
            eprintln!("gapless: {error}");
            return Ok(Outcome::Wrong);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(Outcome::Sound)
}

fn write_record(
    out: &mut dyn Write,
    record: &gapless::shm::Record<'_>,
    as_json: bool,
) -> io::Result<()> {
    let message = &record.message;
    let part = match (message.flags.begins(), message.flags.ends()) {
        (true, true) => "whole",
        (true, false) => "begins",
        (false, false) => "continues",
        (false, true) => "ends",
    };
    if as_json {
        let hex: String = message.payload.iter().map(|byte| format!("{byte:02x}")).collect();
        let object = json!({
            "sequence": message.sequence,
            "position": record.position,
            "bytes": message.payload.len(),
            "part": part,
            "hex": hex,
        });
        return writeln!(out, "{object}");
    }
    writeln!(
        out,
        "sequence {}  position {}  {} bytes  {part}",
        message.sequence,
        record.position,
        message.payload.len()
    )?;
    out.write_all(hexdump(message.payload).as_bytes())
}
