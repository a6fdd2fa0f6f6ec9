//! `stat` from outside, and `ls` and `rm` beside counters pages; looking changes no byte.

mod support;

use std::path::{Path, PathBuf};

use gapless::shm::{Counters, CountersOptions};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::Rings;

fn open(rings: &Rings, name: &str, kind: &str) -> Counters {
    let options = CountersOptions::new().directory(rings.path());
    options.open(name, kind, &["messages", "gaps"], &["repair_ns"]).expect("a page")
}

fn page(rings: &Rings, name: &str) -> PathBuf {
    rings.path().join(format!("{name}.counters"))
}

/// What a writer leaves that is killed: the page, and no lease on it.
fn dead(rings: &Rings, name: &str) {
    let counters = open(rings, "at-work", "sender");
    std::fs::copy(page(rings, "at-work"), page(rings, name)).expect("copied");
    drop(counters);
    std::fs::remove_file(page(rings, "at-work")).expect("removed");
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn living_closed_and_dead_agents_are_shown() {
    let rings = Rings::new();
    let mut live = open(&rings, "live", "receiver");
    live.add(0, 1_234_567);
    for us in 1..=1000 {
        live.record(0, us * 1000);
    }
    drop(open(&rings, "closed", "sender"));
    dead(&rings, "lost");
    let before = std::fs::read(page(&rings, "live")).expect("readable");
    let looks = lines(rings.run(["stat", "--once", "--json"]).expect(3).out());
    let states: Vec<_> = looks.iter().map(|look| (&look["name"], &look["state"])).collect();
    let expected = [("closed", "closed"), ("live", "alive"), ("lost", "dead")];
    let expected = expected.map(|(name, state)| (Value::from(name), Value::from(state)));
    assert_eq!(states, expected.iter().map(|(name, state)| (name, state)).collect::<Vec<_>>());
    let found = &looks[1];
    assert_eq!((&found["kind"], &found["pid"]), (&"receiver".into(), &std::process::id().into()));
    let counters = json!({
        "messages": { "value": 1_234_567, "per_second": null },
        "gaps": { "value": 0, "per_second": null },
    });
    assert_eq!(found["counters"], counters);
    let repair = &found["histograms"]["repair_ns"];
    assert_eq!((&repair["count"], &repair["max_ns"]), (&1000.into(), &1_000_000.into()));
    for (key, exact) in [("p50_ns", 500_000), ("p99_ns", 990_000), ("p999_ns", 999_000)] {
        let ns = repair[key].as_u64().expect("a number");
        assert!(exact <= ns && ns <= exact + exact / 16, "{key}: {ns}");
    }
    assert_eq!(looks[0]["histograms"]["repair_ns"]["p99_ns"], Value::Null);

    let text = rings.run(["stat", "--once"]).expect(3);
    for part in ["receiver", "dead", "1,234,567", "repair_ns", "p99.9", "1.0 ms"] {
        assert!(text.out().contains(part), "{part}: {}", text.out());
    }
    assert!(std::fs::read(page(&rings, "live")).expect("readable") == before, "it was changed");
    // Of these alone none is dead.
    let two = rings.run(["stat", "live", "shm:closed", "--once", "--json"]).expect(0);
    assert_eq!(lines(two.out()).len(), 2);
}

#[test]
fn rates_are_shown_between_looks_and_a_new_writer_is_followed() {
    let rings = Rings::new();
    let mut counters = open(&rings, "live", "sender");
    counters.set(1, 9);
    let mut running = rings.start(["stat", "live", "--json", "--interval-ms", "1"]);
    let mut text = String::new();
    let mut next = || {
        text.clear();
        while !text.ends_with('\n') {
            text.push(char::from(running.read_exact(1)[0]));
        }
        serde_json::from_str::<Value>(&text).expect("JSON")
    };
    let first = next();
    assert_eq!(first["counters"]["messages"], json!({ "value": 0, "per_second": null }));
    counters.add(0, 5000);
    let mut look = next();
    while look["counters"]["messages"]["value"] == 0 {
        assert_eq!(look["counters"]["messages"]["per_second"], 0.0);
        look = next();
    }
    assert_eq!(look["counters"]["messages"]["value"], 5000);
    let rate = look["counters"]["messages"]["per_second"].as_f64().expect("a rate");
    assert!(rate > 0.0 && rate <= 5_000_000.0, "{rate}: 5000 in at least a millisecond");
    counters.set(1, 3);
    while look["counters"]["gaps"]["value"] == 9 {
        look = next();
    }
    assert_eq!(look["counters"]["gaps"]["per_second"], Value::Null, "a gauge that fell");
    drop(counters);
    while look["state"] == "alive" {
        look = next();
    }
    assert_eq!(look["state"], "closed");
    let _new = open(&rings, "live", "receiver");
    while look["kind"] != "receiver" {
        look = next(); // the old page, or for a moment none
    }
    let fresh = json!({ "value": 0, "per_second": null });
    assert_eq!((&look["state"], &look["counters"]["messages"]), (&"alive".into(), &fresh));
    running.signal(Signal::SIGTERM);
    running.end().expect(0);
}

#[test]
fn live_tables_go_on_and_say_what_cannot_be_read() {
    let rings = Rings::new();
    let empty = rings.run(["stat", "--times", "2", "--interval", "1"]).expect(0);
    assert!(empty.err().contains("no counters in"), "{}", empty.err());
    let _live = open(&rings, "live", "sender");
    std::fs::write(page(&rings, "damaged"), b"NONSENSE").expect("written");
    let text = rings.run(["stat", "--times", "2", "--interval", "1"]).expect(3);
    let rows = text.out().lines().filter(|line| line.trim_start().starts_with("live "));
    assert_eq!(rows.count(), 8, "four a look: {}", text.out());
    assert!(text.out().contains("has 8 bytes instead of"), "{}", text.out());
    assert!(text.out().contains("/s"), "{}", text.out());
    let looks = lines(rings.run(["stat", "--once", "--json"]).expect(3).out());
    assert!(looks[0]["problem"].to_string().contains("damaged.counters"), "{}", looks[0]);
    assert_eq!(looks[1]["problem"], Value::Null);

    let none = rings.run(["stat", "live", "none", "--once"]).expect(1);
    assert!(none.err().contains("no counters at") && none.out().is_empty(), "{}", none.err());
    rings.run(["stat", "../x", "--once"]).expect(2);
    rings.run(["stat", "--once", "--times", "2"]).expect(2);
    rings.run(["stat", "--interval-ms", "0"]).expect(2);
}

#[test]
fn ls_passes_over_pages_and_rm_removes_those_of_the_dead() {
    let rings = Rings::new();
    let exists = |path: &Path| path.exists();
    rings.run_with_input(["pub", "shm:both?capacity=64K"], "one\n").expect(0);
    dead(&rings, "both");
    dead(&rings, "alone");
    let listed = rings.run(["ls", "--json"]).expect(0).json();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    assert_eq!(listed[0]["name"], "both");
    rings.run(["rm", "both", "alone"]).expect(0);
    for path in [rings.file("both"), page(&rings, "both"), page(&rings, "alone")] {
        assert!(!exists(&path), "{path:?}");
    }
    let gone = rings.run(["rm", "alone"]).expect(1);
    assert!(gone.err().contains("no ring at"), "{}", gone.err());

    // A living agent keeps its page, and its stream's ring goes.
    rings.run_with_input(["pub", "shm:live?capacity=64K"], "one\n").expect(0);
    let live = open(&rings, "live", "sender");
    let kept = rings.run(["rm", "live"]).expect(0);
    let pid = format!("pid {}", std::process::id());
    assert!(kept.err().contains("kept") && kept.err().contains(&pid), "{}", kept.err());
    assert!(!exists(&rings.file("live")) && exists(&page(&rings, "live")));
    let refused = rings.run(["rm", "live"]).expect(1);
    assert!(refused.err().contains(&pid) && refused.err().contains("--force"), "{}", refused.err());
    rings.run(["rm", "live", "--force"]).expect(0);
    assert!(!exists(&page(&rings, "live")));
    drop(live);

    // A living publisher keeps both.
    let mut publisher = rings.start(["pub", "shm:busy?capacity=64K"]);
    publisher.write("one\n");
    rings.run(["sub", "shm:busy?wait=yield", "--wait-for-publisher", "--max", "1"]).expect(0);
    dead(&rings, "busy");
    rings.run(["rm", "busy"]).expect(1);
    assert!(exists(&rings.file("busy")) && exists(&page(&rings, "busy")));
    publisher.end().expect(0);
    rings.run(["rm", "busy"]).expect(0);
    assert!(!exists(&rings.file("busy")) && !exists(&page(&rings, "busy")));
}
