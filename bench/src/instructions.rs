//! Instructions of the hot path, counted: the regression guard for machines too noisy to time on.
//!
//! This program runs itself under `valgrind --tool=callgrind`, once with N operations and once with
//! 2N; the difference over N is one operation, and everything else (set-up, first touch, exit)
//! cancels. The budget of each operation is in `bench/instructions.budget`.

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use gapless_shm::{ConsumerOptions, RingOptions, Start};

use crate::order::{Applied, Checks, RiskChecks};
use crate::run::workspace;

/// Operations of the shorter run.
const OPERATIONS: u64 = 20_000;
const PAYLOAD: [u8; 48] = [0x5a; 48];
/// Above the budget by more than this: a regression.
const TOLERANCE: f64 = 1.05;
/// The budget, as committed.
const BUDGET: &str = include_str!("../instructions.budget");

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Operation {
    /// `try_publish` of 48 B, nobody attached.
    Publish,
    /// `claim`, fill and `commit` of 48 B, nobody attached.
    Claim,
    /// One message of a poll that hands over 64.
    Poll,
    /// A poll that finds nothing.
    EmptyPoll,
    /// `try_publish` of 48 B, then a poll that hands it over.
    PublishPoll,
    /// A command's whole way through the engine.
    Order,
    /// An order's pre-trade checks, and giving back what they reserved.
    Risk,
}

impl Operation {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// The hidden subcommand's arguments.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Spin {
    #[arg(long)]
    operation: Operation,
    #[arg(long)]
    count: u64,
}

/// Does `count` operations. Runs under callgrind.
pub(crate) fn spin(spin: &Spin) -> Result<()> {
    match spin.operation {
        Operation::Order => {
            let mut applied = Applied::new()?;
            // As many whatever `count` is, so that making them cancels.
            applied.fill(2 * OPERATIONS as usize);
            applied.run(spin.count as usize);
            Ok(())
        }
        Operation::Risk => Checks::new(RiskChecks::DESK)?.count(spin.count),
        _ => spin_ring(spin),
    }
}

fn spin_ring(spin: &Spin) -> Result<()> {
    let dir = workspace()?;
    // Small, so that laps and their housekeeping are part of the count; not prefaulted, since the
    // kernel's work is not counted and the emulator knows few ways to ask for it.
    let options = RingOptions::new()
        .directory(dir.path())
        .prefault(false)
        .capacity_bytes(if spin.operation == Operation::Poll { 8 << 20 } else { 1 << 20 });
    let mut producer = options.create("count").context("create the ring")?;
    let payload = black_box(&PAYLOAD[..]);
    if matches!(spin.operation, Operation::Publish | Operation::Claim) {
        for _ in 0..spin.count {
            if spin.operation == Operation::Publish {
                black_box(producer.try_publish(payload)?);
            } else {
                let mut claim = producer.claim(payload.len())?;
                claim.copy_from_slice(payload);
                black_box(claim.commit());
            }
        }
        return Ok(());
    }
    let attach = ConsumerOptions::new().directory(dir.path()).prefault(false);
    let mut consumer = attach.start(Start::Oldest).attach("count").context("attach")?;
    let mut handled = 0;
    let mut handler = |message: gapless_shm::Message<'_>| {
        black_box(message.payload);
        handled += 1;
    };
    match spin.operation {
        Operation::Poll => {
            // The same number of messages whatever `count` is, so that publishing cancels.
            for _ in 0..2 * OPERATIONS {
                producer.try_publish(payload)?;
            }
            for _ in 0..spin.count / 64 {
                ensure!(consumer.poll(64, &mut handler)? == 64);
            }
        }
        Operation::EmptyPoll => {
            for _ in 0..spin.count {
                ensure!(black_box(consumer.poll(64, &mut handler)?) == 0);
            }
        }
        _ => {
            for _ in 0..spin.count {
                producer.try_publish(payload)?;
                ensure!(consumer.poll(64, &mut handler)? == 1);
            }
        }
    }
    black_box(handled);
    Ok(())
}

/// Counts every operation, prints the table, and, with `check`, fails above the budget.
pub(crate) fn count(check: bool) -> Result<()> {
    if Command::new("valgrind").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!(
            "valgrind is not installed: instructions were not counted, the budget was not checked"
        );
        return Ok(());
    }
    let budget = parse_budget(BUDGET)?;
    let dir = workspace()?;
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["operation", "instructions", "budget", ""]);
    let mut over = Vec::new();
    for operation in Operation::value_variants() {
        let name = operation.name();
        let measured = per_operation(*operation, dir.path())?;
        let allowed = budget.iter().find(|(of, _)| *of == name).map(|(_, allowed)| *allowed);
        let allowed = allowed.with_context(|| format!("{name} has no budget"))?;
        let exceeded = measured > allowed * TOLERANCE;
        if exceeded {
            over.push(name.clone());
        }
        table.add_row([
            name,
            format!("{measured:.1}"),
            format!("{allowed:.1}"),
            if exceeded { "above" } else { "" }.to_owned(),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("{table}");
    ensure!(!check || over.is_empty(), "above the budget: {}", over.join(", "));
    Ok(())
}

/// Instructions of an order's way through the engine, and of its checks with giving back.
///
/// # Errors
/// If valgrind is not installed, or fails.
pub(crate) fn of_orders() -> Result<[f64; 2]> {
    let dir = workspace()?;
    let order = per_operation(Operation::Order, dir.path())?;
    Ok([order, per_operation(Operation::Risk, dir.path())?])
}

/// Instructions of one operation.
fn per_operation(operation: Operation, dir: &Path) -> Result<f64> {
    // A multiple of 64 for the batched poll.
    let short = OPERATIONS / 64 * 64;
    let one = instructions(operation, short, dir)?;
    let two = instructions(operation, 2 * short, dir)?;
    Ok(two.saturating_sub(one) as f64 / short as f64)
}

/// Instructions of a whole run of this program.
fn instructions(operation: Operation, count: u64, dir: &Path) -> Result<u64> {
    let out = dir.join("callgrind.out");
    let program = std::env::current_exe().context("find this program")?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(program)
        .args(["__spin", "--operation", &operation.name(), "--count", &count.to_string()])
        .output()
        .context("run valgrind")?;
    if !output.status.success() {
        bail!("valgrind: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = std::fs::read_to_string(&out).context("read what callgrind wrote")?;
    parse_total(&text).context("callgrind wrote no total")
}

/// The count of a callgrind output file.
fn parse_total(text: &str) -> Option<u64> {
    let line = |key| text.lines().find_map(move |line: &str| line.strip_prefix(key));
    let total = line("totals:").or_else(|| line("summary:"))?;
    total.split_whitespace().next()?.parse().ok()
}

/// Lines of operation and instructions; `#` starts a comment.
fn parse_budget(text: &str) -> Result<Vec<(String, f64)>> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    lines
        .filter(|line| !line.is_empty())
        .map(|line| {
            let (name, count) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let count = count.trim().parse();
            Ok((name.to_owned(), count.with_context(|| format!("budget of {name}"))?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_a_budget_and_every_budget_an_operation() {
        let budget = parse_budget(BUDGET).unwrap();
        let names: Vec<_> = Operation::value_variants().iter().map(|op| op.name()).collect();
        assert_eq!(budget.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>(), names);
        assert!(budget.iter().all(|(_, count)| *count >= 1.0));
    }

    #[test]
    fn totals_are_found_and_bad_budgets_refused() {
        assert_eq!(parse_total("events: Ir\nsummary: 12\ntotals: 345\n"), Some(345));
        assert_eq!(parse_total("events: Ir\nsummary: 12\n"), Some(12));
        assert_eq!(parse_total("events: Ir\n"), None);
        assert!(parse_budget("publish many").is_err());
        assert_eq!(parse_budget("# c\npublish 12.5 # why\n").unwrap(), [("publish".into(), 12.5)]);
    }

    #[test]
    fn the_operations_that_are_counted_do_what_they_say() {
        for &operation in Operation::value_variants() {
            spin(&Spin { operation, count: 640 }).unwrap();
        }
    }
}
