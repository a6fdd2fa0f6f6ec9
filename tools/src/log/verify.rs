//! `gapless log verify`: every byte of a log, checked, with the list of what is wrong.

use std::io::{self, Write};

use gapless::log::{Finding, VerifyReport, rebuild_index, verify};
use serde_json::{Value, json};

use super::Directory;
use crate::exit::Outcome;
use crate::progress;
use crate::table::{Cell, Facts, print_json};

/// Check every byte of a log
///
/// Checksums, sequence numbers from block to block and from segment to segment, the records inside
/// blocks, the ends of segments, the indexes. Names each damaged range by file, byte and sequence
/// number. Changes nothing, and may be used while the log is written.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless log verify /var/log/orders
  gapless log verify /var/log/orders --repair-index --json

Ends with 3 if anything is damaged. The torn end that a killed writer leaves is no damage, nor are
messages that the recorder put on record as lost: both are told.")]
pub(crate) struct Args {
    /// The log's directory
    directory: Directory,
    /// Make indexes again that do not fit their segments
    #[arg(long)]
    repair_index: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let mut report = check(args)?;
    let mut repaired = 0;
    if args.repair_index {
        for finding in &report.findings {
            if let Finding::Index { segment, .. } = finding {
                rebuild_index(segment)?;
                repaired += 1;
            }
        }
        if repaired > 0 {
            report = check(args)?;
        }
    }
    let mut facts = Facts::default();
    facts.add("segments", "segments", Cell::count(report.segments as u64));
    facts.add("messages", "messages", Cell::count(report.messages));
    facts.add("bytes", "bytes", Cell::bytes(report.bytes));
    if args.repair_index {
        facts.add("repaired_indexes", "indexes made again", Cell::count(repaired));
    }
    let outcome = Outcome::wrong_if(!report.is_sound());
    if args.json {
        let mut object = facts.json();
        object.insert("sound".into(), report.is_sound().into());
        object.insert("findings".into(), report.findings.iter().map(finding_json).collect());
        print_json(&object.into())?;
        return Ok(outcome);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{facts}")?;
    for finding in &report.findings {
        let mark = if finding.is_damage() { "WRONG" } else { "note" };
        writeln!(out, "{mark}: {finding}")?;
    }
    if report.is_sound() {
        writeln!(out, "every message that was recorded is sound")?;
    }
    Ok(outcome)
}

fn check(args: &Args) -> anyhow::Result<VerifyReport> {
    let bar = progress::byte_bar("verifying");
    let report = verify(&args.directory.0, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(report?)
}

fn finding_json(finding: &Finding) -> Value {
    let kind = match finding {
        Finding::Header { .. } => "header",
        Finding::Damaged { .. } => "damaged",
        Finding::Unfinished { .. } => "unfinished",
        Finding::Torn { .. } => "torn",
        Finding::Missing { .. } => "missing",
        Finding::Twice { .. } => "twice",
        Finding::Lost { .. } => "lost",
        Finding::Index { .. } => "index",
        _ => "other",
    };
    let (bytes, messages) = (finding.bytes(), finding.messages());
    json!({
        "kind": kind,
        "damage": finding.is_damage(),
        "file": finding.path(),
        "offset": bytes.map(|(offset, _)| offset),
        "bytes": bytes.map(|(_, length)| length),
        "first_sequence": messages.map(|(first, _)| first),
        "count": messages.map(|(_, count)| count),
        "text": finding.to_string(),
    })
}
