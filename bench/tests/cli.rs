//! The command line: what it teaches, what it refuses, and that a measurement leaves what it
//! promises. Figures are not judged here.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gapless-bench")).args(args).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One measurement at a time: two would take each other's cores.
fn measuring() -> MutexGuard<'static, ()> {
    static CORES: Mutex<()> = Mutex::new(());
    CORES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn help_names_the_suites_and_the_options() {
    let output = bench(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for word in [
        "ipc",
        "net",
        "log",
        "order",
        "xdp",
        "--quick",
        "--json",
        "--svg",
        "instructions",
        "Example",
    ] {
        assert!(help.contains(word), "{word} is missing in:\n{help}");
    }
    assert!(!help.contains("__partner"));
}

#[test]
fn an_unknown_suite_is_refused_with_the_known_ones_and_exit_code_2() {
    let output = bench(&["nonsense"]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.contains("nonsense") && error.contains("ipc"), "{error}");
}

#[test]
fn no_suite_and_no_such_case_are_refused() {
    assert_eq!(bench(&[]).status.code(), Some(2));
    let output = bench(&["ipc", "--only", "no such case", "--list"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no such case"));
}

#[test]
fn selecting_a_case_selects_its_floor() {
    let output = bench(&["ipc", "--only", "ring/oneway/48/1M", "--list"]);
    assert_eq!(text(&output.stdout), "floor/oneway/48/1M\nring/oneway/48/1M\n");
}

fn parse(path: &Path) -> Vec<Value> {
    let lines = std::fs::read_to_string(path).expect("the JSON file is there");
    let parse = |line| serde_json::from_str(line).expect("each line is one JSON object");
    lines.lines().map(parse).collect()
}

#[test]
fn a_quick_measurement_writes_lines_that_parse_and_a_plot() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (json, svg) = (dir.path().join("r.jsonl"), dir.path().join("r.svg"));
    let _cores = measuring();
    let output = bench(&[
        "ipc",
        "--quick",
        "--rounds=1",
        "--only=floor/line",
        "--only=ring/rtt/48/busy-spin",
        "--only=ring/throughput/48/claim",
        "--only=ring/publish/consumers/8",
        "--only=ring/lossy/48",
        "--only=rtrb",
        "--json",
        json.to_str().expect("a plain path"),
        "--svg",
        svg.to_str().expect("a plain path"),
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let rows = parse(&json);
    let table = text(&output.stdout);
    for row in &rows {
        let case = row["case"].as_str().expect("a case");
        assert!(table.contains(case), "{case} is not in the table");
        assert!(["near", "far"].contains(&row["class"].as_str().expect("a class")));
        assert!(!row["host"]["cpu"].as_str().expect("a CPU").is_empty());
        assert!(row["host"]["timer_cost_ns"].as_f64().expect("a cost") > 0.0);
        match row["p50_ns"].as_f64() {
            Some(p50) => {
                let at = |key: &str| row[key].as_f64().expect("a latency");
                assert!(0.0 < p50 && p50 <= at("p99_ns") && at("p99_ns") <= at("max_ns"));
                assert!(row["samples"].as_u64().expect("samples") > 0);
            }
            None => assert!(row["rate_mps"].as_f64().expect("a rate") > 0.0, "{row}"),
        }
    }
    // A case whose class would not stay has no row; not all of them can be without.
    assert!(!rows.is_empty());
    let plot = std::fs::read_to_string(&svg).expect("the plot is there");
    assert!(plot.contains("<svg"));
    let has_line = |row: &&Value| row["case"] == "floor/line" || row["case"] == "rtrb/rtt/64";
    for row in rows.iter().filter(has_line) {
        assert!(plot.contains(row["case"].as_str().expect("a case")), "{row} is not in the plot");
    }
}

/// Runs every case of a suite once: each leaves a row or the reason why not. Returns the rates.
fn rates_of(suite: &str) -> Vec<Value> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let json = dir.path().join("rows.jsonl");
    let path = json.to_str().expect("a plain path");
    let _cores = measuring();
    let output = bench(&[suite, "--quick", "--rounds=1", "--json", path]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    let rows = parse(&json);
    // A case whose class would not stay has no row; not all of them can be without.
    assert!(!rows.is_empty());
    for row in &rows {
        let case = row["case"].as_str().expect("a case");
        assert!(table.contains(case), "{case} is not in what people read");
        assert!(!row["host"]["cpu"].as_str().expect("a CPU").is_empty());
        if let Some(reason) = row["skipped"].as_str() {
            assert!(table.contains(&format!("skipped {case}: {reason}")), "{table}");
            continue;
        }
        let is_latency =
            ["/rtt", "repair/", "paced/", "receivers/"].iter().any(|part| case.contains(part));
        let figure = if is_latency { "p50_ns" } else { "rate_mps" };
        assert!(row[figure].as_f64().expect("a figure") > 0.0, "{row}");
    }
    let is_rate = |row: &Value| row["rate_mps"].is_number() && row["p50_ns"].is_null();
    rows.into_iter().filter(is_rate).collect()
}

#[test]
fn each_case_of_the_wire_leaves_a_row_or_the_reason_why_not() {
    for row in rates_of("net") {
        for side in ["sender", "receiver"] {
            let calls = &row["details"][format!("{side}_calls_per_message")];
            assert!(calls.as_f64().expect("a count") > 0.0, "{row}");
        }
    }
}

#[test]
fn each_case_of_the_bypass_leaves_a_row_or_the_reason_why_not() {
    for row in rates_of("xdp") {
        assert!(row["system_calls_per_message"].as_f64().expect("a count") > 0.0, "{row}");
    }
}

#[test]
fn each_case_of_a_log_leaves_a_row_or_the_reason_why_not_and_no_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let on_disk = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let (json, disk) = (dir.path().join("log.jsonl"), on_disk.path());
    let _cores = measuring();
    let output = bench(&[
        "log",
        "--quick",
        "--peers",
        "--rounds=1",
        "--burst=64",
        "--dir",
        disk.to_str().expect("a plain path"),
        "--json",
        json.to_str().expect("a plain path"),
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.contains("files in") && table.contains("GiB free"), "{table}");
    let rows = parse(&json);
    for row in &rows {
        let case = row["case"].as_str().expect("a case");
        assert!(row["host"]["disk"].as_str().expect("a disk").contains("GiB free"));
        if let Some(reason) = row["skipped"].as_str() {
            assert!(table.contains(&format!("skipped {case}: {reason}")), "{table}");
            continue;
        }
        let measured = row["rate_mps"].as_f64().or(row["p50_ns"].as_f64());
        assert!(measured.expect("a rate or a latency") > 0.0, "{row}");
    }
    // A case whose class would not stay has no row; not all of them can be without.
    assert!(rows.iter().any(|row| row["skipped"].is_null()));
    assert_eq!(disk.read_dir().expect("it is there").count(), 0, "files were left");
}

#[test]
fn a_partner_that_cannot_run_its_case_says_why() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path().to_str().expect("a plain path");
    let output = bench(&[
        "__partner",
        "--suite=ipc",
        "--case=none",
        "--dir",
        dir,
        "--core=0",
        "--ticks-per-ns=1",
        "--warm-up-us=1",
        "--measure-us=1",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("no case none"), "{}", text(&output.stderr));
}
