//! `gapless inspect --verify`: every retained record, checked, with the list of what is wrong.

use std::io::{self, Write};

use gapless::shm::Inspector;

use crate::exit::Outcome;
use crate::progress;
use crate::table::{Cell, Facts, print_json};
use crate::target::is_damage;

/// Records between two movements of the progress bar.
const PROGRESS_RECORDS: u64 = 4096;

/// Checks the ring and prints what was found.
pub(crate) fn run(inspector: &Inspector, json: bool) -> anyhow::Result<Outcome> {
    let snapshot = inspector.snapshot();
    let retained = snapshot.next_sequence.saturating_sub(snapshot.oldest_sequence);
    let bar = progress::bar(retained, "verifying");
    let verified = inspector.verify(|records| {
        if records.is_multiple_of(PROGRESS_RECORDS) {
            bar.set_position(records);
        }
    });
    bar.finish_and_clear();
    let mut facts = Facts::default();
    let problems = match verified {
        Ok(verified) => {
            facts.add("records", "records", Cell::count(verified.records));
            facts.add("bytes", "bytes", Cell::bytes(verified.bytes));
            facts.add("first_sequence", "first sequence", Cell::count(verified.first_sequence));
            facts.add("next_sequence", "next sequence", Cell::count(verified.next_sequence));
            facts.add("overtaken", "overtaken", Cell::count(verified.overtaken));
            verified.problems
        }
        Err(error) if is_damage(&error) => vec![error.to_string()],
        Err(error) => return Err(error.into()),
    };
    let outcome = Outcome::wrong_if(!problems.is_empty());
    if json {
        let mut object = facts.json();
        object.insert("problems".into(), problems.into());
        print_json(&object.into())?;
        return Ok(outcome);
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{facts}")?;
    for problem in &problems {
        writeln!(out, "WRONG: {problem}")?;
    }
    if problems.is_empty() {
        writeln!(out, "every retained record is sound")?;
    }
    Ok(outcome)
}
