//! `gapless ls`: all rings of a directory, one row each; a damaged ring is a row as well.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use gapless::shm::{Header, Inspector, Mode, ProducerStatus, RingError, Snapshot, list, ring_path};

use crate::exit::Outcome;
use crate::table::{Cell, Table, print_json, rate_text};
use crate::target::Directory;

/// List the rings of this host
///
/// Looks only: nothing is attached to, nothing is held up.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless ls
  gapless ls --dir /mnt/huge/gapless --interval-ms 1000
  gapless ls --json | jq '.[] | select(.producer == \"dead\")'

The rate is what was published between two looks. A ring that cannot be read is listed with the
reason; that is no failure of `ls`.")]
pub(crate) struct Args {
    #[command(flatten)]
    directory: Directory,
    /// Time between the two looks that give the rate; 0: one look, no rate
    #[arg(long, value_name = "MS", default_value_t = 100)]
    #[arg(value_parser = clap::value_parser!(u64).range(..=3_600_000))]
    interval_ms: u64,
    /// One JSON array
    #[arg(long)]
    json: bool,
}

/// One ring, as found.
struct Found {
    name: String,
    /// The ring, and its sequence and the time at the first look.
    ring: Result<(Inspector, u64, Instant), RingError>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let directory = args.directory.path();
    let found: Vec<Found> = list(&directory)?
        .into_iter()
        .map(|name| Found { ring: first_look(&directory, &name), name })
        .collect();
    if args.interval_ms > 0 && !found.is_empty() {
        sleep(Duration::from_millis(args.interval_ms));
    }
    let mut table = Table::new(&[
        ("name", "name"),
        ("file_bytes", "size"),
        ("mode", "mode"),
        ("producer", "producer"),
        ("producer_pid", "pid"),
        ("messages", "messages"),
        ("messages_per_second", "rate"),
        ("consumers", "consumers"),
        ("problem", "problem"),
    ]);
    for ring in found {
        table.row(row(ring, args.interval_ms > 0));
    }
    if args.json {
        print_json(&table.json())?;
    } else if table.is_empty() {
        eprintln!("no rings in {}", directory.display());
    } else {
        table.print()?;
    }
    Ok(Outcome::Sound)
}

fn first_look(directory: &Path, name: &str) -> Result<(Inspector, u64, Instant), RingError> {
    let inspector = Inspector::open_file(&ring_path(directory, name)?)?;
    let next_sequence = inspector.snapshot().next_sequence;
    Ok((inspector, next_sequence, Instant::now()))
}

fn row(found: Found, rated: bool) -> Vec<Cell> {
    let looked = found.ring.map(|(inspector, before, since)| {
        let now = inspector.snapshot();
        let seconds = since.elapsed().as_secs_f64();
        let rate = now.next_sequence.saturating_sub(before) as f64 / seconds;
        (inspector.header().clone(), now, rate)
    });
    match looked {
        Ok((header, now, rate)) => {
            let rate = if rated { Cell::with(rate_text(rate, "msg"), rate) } else { Cell::none() };
            sound_row(found.name, &header, &now, rate)
        }
        Err(error) => {
            let mut cells = vec![Cell::text(found.name)];
            cells.extend((0..7).map(|_| Cell::none()));
            cells.push(Cell::text(error.to_string()));
            cells
        }
    }
}

fn sound_row(name: String, header: &Header, now: &Snapshot, rate: Cell) -> Vec<Cell> {
    let living = now.consumers.iter().filter(|consumer| consumer.alive).count() as u64;
    vec![
        Cell::text(name),
        Cell::bytes(header.file_bytes),
        Cell::text(mode_text(header.mode)),
        Cell::text(status_text(now.producer)),
        Cell::with(now.producer_pid.to_string(), now.producer_pid),
        Cell::count(now.next_sequence.saturating_sub(header.first_sequence)),
        rate,
        Cell::count(living),
        now.problem.as_ref().map_or(Cell::none(), Cell::text),
    ]
}

/// The mode in a word.
pub(crate) fn mode_text(mode: Mode) -> &'static str {
    match mode {
        Mode::Lossless => "lossless",
        Mode::Lossy => "lossy",
    }
}

/// The producer's state in a word.
pub(crate) fn status_text(status: ProducerStatus) -> &'static str {
    match status {
        ProducerStatus::Alive => "alive",
        ProducerStatus::Closed => "closed",
        ProducerStatus::Dead => "dead",
    }
}
