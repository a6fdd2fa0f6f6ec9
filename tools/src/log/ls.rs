//! `gapless log ls`: the segments of a log, its declared readers, and totals.

use gapless::log::{SegmentInfo, readers, survey};
use gapless::shm::session_text;
use serde_json::json;

use super::Directory;
use crate::exit::Outcome;
use crate::table::{Cell, Facts, Table, print_json};
use crate::units::utc;

/// Show a log: its segments, who reads it, totals
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless log ls /var/log/orders
  gapless log ls /var/log/orders --json | jq .totals.messages

Only looks, and reads hardly more than the first page of each segment: `gapless log verify` checks
what is in them.")]
pub(crate) struct Args {
    /// The log's directory
    directory: Directory,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let directory = &args.directory.0;
    let segments = survey(directory)?;
    if segments.is_empty() {
        return Err(gapless::log::LogError::NotFound { directory: directory.clone() }.into());
    }
    let (segment_table, reader_table) = (of_segments(&segments), of_readers(args, &segments)?);
    let totals = totals(&segments);
    let wrong = segments.iter().any(|segment| segment.problem.is_some());
    if args.json {
        print_json(&json!({
            "segments": segment_table.json(),
            "readers": reader_table.json(),
            "totals": totals.json(),
        }))?;
        return Ok(Outcome::wrong_if(wrong));
    }
    segment_table.print()?;
    if !reader_table.is_empty() {
        println!();
        reader_table.print()?;
    }
    println!("\n{totals}");
    Ok(Outcome::wrong_if(wrong))
}

fn of_segments(segments: &[SegmentInfo]) -> Table {
    let mut table = Table::new(&[
        ("session", "session"),
        ("first_sequence", "first"),
        ("next_sequence", "next"),
        ("bytes", "bytes"),
        ("created", "made"),
        ("last", "last message"),
        ("state", "state"),
        ("problem", "problem"),
    ]);
    for segment in segments {
        let time = |ns: u64| if ns == 0 { Cell::none() } else { Cell::text(utc(ns)) };
        table.row(vec![
            Cell::text(session_text(segment.session)),
            Cell::count(segment.first_sequence),
            Cell::count(segment.next_sequence),
            Cell::bytes(segment.bytes),
            time(segment.created_unix_ns),
            time(segment.last_unix_ns),
            Cell::text(if segment.sealed { "finished" } else { "open" }),
            segment.problem.as_ref().map_or(Cell::none(), Cell::text),
        ]);
    }
    table
}

fn of_readers(args: &Args, segments: &[SegmentInfo]) -> anyhow::Result<Table> {
    let mut table = Table::new(&[
        ("name", "reader"),
        ("session", "session"),
        ("next_sequence", "next"),
        ("behind", "behind"),
    ]);
    for reader in readers(&args.directory.0)? {
        let behind = |segment: &SegmentInfo| match segment.session.cmp(&reader.session) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => {
                let from = segment.first_sequence.max(reader.next_sequence);
                segment.next_sequence.saturating_sub(from)
            }
            std::cmp::Ordering::Greater => segment.next_sequence - segment.first_sequence,
        };
        table.row(vec![
            Cell::text(reader.name.clone()),
            Cell::text(session_text(reader.session)),
            Cell::count(reader.next_sequence),
            Cell::count(segments.iter().map(behind).sum()),
        ]);
    }
    Ok(table)
}

fn totals(segments: &[SegmentInfo]) -> Facts {
    let sum = |of: fn(&SegmentInfo) -> u64| segments.iter().map(of).sum::<u64>();
    let mut sessions: Vec<u64> = segments.iter().map(|segment| segment.session).collect();
    sessions.dedup();
    let name = segments.iter().rev().map(|segment| segment.name.as_str());
    let name = name.clone().find(|name| !name.is_empty()).unwrap_or_default();
    let mut facts = Facts::default();
    facts.add("stream", "stream", Cell::text(name));
    facts.add("sessions", "sessions", Cell::count(sessions.len() as u64));
    facts.add("segments", "segments", Cell::count(segments.len() as u64));
    let messages = sum(|segment| segment.next_sequence - segment.first_sequence);
    facts.add("messages", "messages", Cell::count(messages));
    facts.add("bytes", "bytes", Cell::bytes(sum(|segment| segment.bytes)));
    facts.add("file_bytes", "on disk", Cell::bytes(sum(|segment| segment.file_bytes)));
    let enveloped = segments.last().is_some_and(|segment| segment.enveloped);
    let yes = |yes| Cell::with(if yes { "yes" } else { "no" }, yes);
    facts.add("enveloped", "envelopes", yes(enveloped));
    facts.add("synced", "synced", yes(segments.last().is_some_and(|segment| segment.synced)));
    facts
}
