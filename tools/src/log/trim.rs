//! `gapless log trim`: lets go of old segments, and of readers that will not come back.

use std::time::Duration;

use anyhow::Context;
use gapless::log::{
    LogError, LogReader, ReadFrom, Retention, forget_reader, readers, retain, survey, trim,
};
use gapless::protocol::Session;
use gapless::shm::session_text;

use super::select::session;
use super::{Directory, Point};
use crate::exit::{Outcome, Usage};
use crate::table::{Cell, Facts, print_json};
use crate::units::{bytes, duration, unix_ns};

/// Remove the oldest segments of a log
///
/// Whole segments go, the oldest first; never the newest one, and never one that a declared reader
/// still needs (`--forget` takes a declaration back). May be used while the log is written.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless log trim /var/log/orders --before 1000000
  gapless log trim /var/log/orders --before @2025-11-22T00:00:00Z
  gapless log trim /var/log/orders --keep-bytes 10G --keep-age 7days
  gapless log trim /var/log/orders --forget risk")]
pub(crate) struct Args {
    /// The log's directory
    directory: Directory,
    /// Remove what is before this sequence number or time
    #[arg(long, value_name = "POINT")]
    before: Option<Point>,
    /// The session of --before, ten characters; earlier ones go with it [default: the newest]
    #[arg(long, value_name = "SESSION", value_parser = session, requires = "before")]
    session: Option<Session>,
    /// Keep about so many bytes, as 10G
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    keep_bytes: Option<u64>,
    /// Keep what is younger than this, as 12h or 7days
    #[arg(long, value_name = "AGE", value_parser = duration)]
    keep_age: Option<Duration>,
    /// Take back the declaration of a reader; may be given several times
    #[arg(long, value_name = "READER")]
    forget: Vec<String>,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let directory = &args.directory.0;
    let bounds = args.keep_bytes.is_some() || args.keep_age.is_some();
    if args.before.is_none() && !bounds && args.forget.is_empty() {
        let text = "trim to what? --before, --keep-bytes, --keep-age or --forget";
        return Err(Usage(text.into()).into());
    }
    for name in &args.forget {
        if !forget_reader(directory, name)? {
            anyhow::bail!("{} has no reader {name}", directory.display());
        }
    }
    let kept = |segments: &[gapless::log::SegmentInfo]| -> u64 {
        segments.iter().map(|segment| segment.file_bytes).sum()
    };
    let before = survey(directory)?;
    let Some(newest) = before.last().map(|segment| segment.session) else {
        return Err(LogError::NotFound { directory: directory.clone() }.into());
    };
    let mut removed = 0;
    if let Some(point) = args.before {
        let session = args.session.unwrap_or_else(|| Session::from_number(newest));
        let sequence = match point.0 {
            ReadFrom::Sequence(sequence) => sequence,
            ReadFrom::UnixNs(_) => {
                let reader = LogReader::open_session(directory, session, point.0);
                reader.context("look for the time")?.next_sequence()
            }
            _ => {
                let text = "--before needs a sequence number or a time as @1763788800.25";
                return Err(Usage(text.into()).into());
            }
        };
        removed += trim(directory, session, sequence)?;
    }
    if bounds {
        let retention = Retention { bytes: args.keep_bytes, age: args.keep_age };
        removed += retain(directory, retention, unix_ns())?;
    }
    let after = survey(directory)?;
    let mut facts = Facts::default();
    facts.add("removed_segments", "removed segments", Cell::count(removed as u64));
    let freed = kept(&before).saturating_sub(kept(&after));
    facts.add("removed_bytes", "removed bytes", Cell::bytes(freed));
    facts.add("segments", "segments left", Cell::count(after.len() as u64));
    if let Some(oldest) = after.first() {
        facts.add("session", "oldest session", Cell::text(session_text(oldest.session)));
        facts.add("oldest_sequence", "oldest message", Cell::count(oldest.first_sequence));
    }
    let slowest = readers(directory)?;
    let slowest = slowest.iter().min_by_key(|reader| (reader.session, reader.next_sequence));
    let name = slowest.map_or(Cell::none(), |reader| Cell::text(reader.name.clone()));
    facts.add("slowest_reader", "slowest reader", name);
    match args.json {
        true => print_json(&facts.json().into())?,
        false => println!("{facts}"),
    }
    Ok(Outcome::Sound)
}
