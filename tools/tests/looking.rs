//! `ls`, `inspect` and `rm` from outside, on rings in every state; looking changes no byte.

mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use gapless::{Publisher, Subscriber};
use nix::sys::signal::Signal;
use serde_json::Value;
use support::Rings;

/// Ring `name` with these lines, closed.
fn closed_ring(rings: &Rings, name: &str, lines: &str) {
    let address = format!("shm:{name}?capacity=64K");
    rings.run_with_input(["pub", &address], lines).expect(0);
}

fn inspected(rings: &Rings, name: &str, code: i32) -> Value {
    rings.run(["inspect", name, "--json"]).expect(code).json()
}

/// Looks at a ring in every way, and asserts that its file is the same afterwards.
#[track_caller]
fn look_everywhere(rings: &Rings, name: &str, code: i32) {
    let before = std::fs::read(rings.file(name)).expect("readable");
    for arguments in [
        &["inspect", name][..],
        &["inspect", name, "--json"],
        &["inspect", name, "--follow", "--times", "2", "--interval-ms", "1"],
        &["inspect", name, "--verify"],
    ] {
        let ended = rings.command(arguments).output().expect("runs");
        let err = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(code), "{arguments:?}: {err}");
    }
    let records = rings.run(["inspect", name, "--records", ".."]);
    assert!([0, 1, 3].contains(&records.code()), "{}", records.err());
    rings.run(["ls", "--interval-ms", "0"]).expect(0);
    assert!(std::fs::read(rings.file(name)).expect("readable") == before, "{name} was changed");
}

fn change(path: &Path, offset: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("writable");
    file.write_all_at(bytes, offset).expect("writable");
}

/// Where a payload stands in a ring's file.
fn find(path: &Path, payload: &[u8]) -> u64 {
    let bytes = std::fs::read(path).expect("readable");
    let at = bytes.windows(payload.len()).position(|window| window == payload);
    at.expect("it is there") as u64
}

#[test]
fn a_live_ring_is_shown_with_everybody_on_it() {
    let rings = Rings::new();
    let mut publisher = rings.start(["pub", "shm:live?capacity=64K"]);
    publisher.write("one\ntwo\nthree\n");
    rings.run(["sub", "shm:live?wait=yield", "--wait-for-publisher", "--max", "3"]).expect(0);
    let address = format!("shm:live?name=book&dir={}", rings.path().display());
    let mut book = Subscriber::open(&address).expect("attaches");
    assert_eq!(book.poll(1, |_| {}).unwrap(), 1);
    let observer = Subscriber::open(&format!("{address}&observe=yes")).expect("attaches");
    let found = inspected(&rings, "live", 0);
    assert_eq!(found["producer"]["status"], "alive");
    assert_eq!(found["producer"]["pid"], publisher.pid());
    assert_eq!(found["producer"]["next_sequence"], 4);
    assert_eq!(found["header"]["capacity_bytes"], 65_536);
    let consumers = found["consumers"].as_array().expect("consumers");
    assert_eq!(consumers.len(), 1, "observers take no slot: {found:#}");
    let expected = [
        ("name", "book".into()),
        ("pid", std::process::id().into()),
        ("alive", true.into()),
        ("kind", "gating".into()),
        ("next_sequence", 2.into()),
        ("lag_messages", 2.into()),
        ("lag_bytes", 128.into()),
        ("missed", Value::from(0)),
    ];
    for (key, value) in expected {
        assert_eq!(consumers[0][key], value, "{key}");
    }
    let text = rings.run(["inspect", "live"]).expect(0);
    assert!(text.out().contains("alive") && text.out().contains("book"), "{}", text.out());
    drop(observer);
    look_everywhere(&rings, "live", 0);
    let listed = rings.run(["ls", "--json"]).expect(0).json();
    let row = &listed[0];
    assert_eq!((&row["name"], &row["producer"]), (&"live".into(), &"alive".into()));
    assert_eq!((&row["messages"], &row["consumers"]), (&3.into(), &1.into()));
    assert_eq!(row["messages_per_second"], 0.0);

    let refused = rings.run(["rm", "live"]).expect(1);
    let pid = format!("pid {}", publisher.pid());
    assert!(refused.err().contains(&pid) && refused.err().contains("--force"), "{}", refused.err());
    assert!(rings.file("live").exists());
    rings.run(["rm", "live", "--force"]).expect(0);
    assert!(!rings.file("live").exists());
    publisher.end().expect(0);
    assert_eq!(book.poll(10, |_| {}).unwrap(), 2, "who is attached reads on");
}

#[test]
fn closed_and_dead_are_told_apart() {
    let rings = Rings::new();
    closed_ring(&rings, "closed", "one\n");
    assert_eq!(inspected(&rings, "closed", 0)["producer"]["status"], "closed");
    look_everywhere(&rings, "closed", 0);
    let mut publisher = rings.start(["pub", "shm:killed?capacity=64K"]);
    publisher.write("one\n");
    let mut subscriber =
        rings.start(["sub", "shm:killed?wait=yield&name=victim", "--wait-for-publisher"]);
    assert_eq!(subscriber.read_exact(4), b"one\n");
    for process in [&mut publisher, &mut subscriber] {
        process.signal(Signal::SIGKILL);
    }
    let pid = publisher.pid();
    publisher.end();
    subscriber.end();
    let found = inspected(&rings, "killed", 0);
    assert_eq!(
        (&found["producer"]["status"], &found["producer"]["pid"]),
        (&"dead".into(), &pid.into())
    );
    assert_eq!(
        (&found["consumers"][0]["name"], &found["consumers"][0]["alive"]),
        (&"victim".into(), &false.into())
    );
    look_everywhere(&rings, "killed", 0);
    rings.run(["rm", "killed", "shm:closed"]).expect(0);
    assert!(!rings.file("killed").exists() && !rings.file("closed").exists());
}

#[test]
fn a_half_written_message_is_not_seen() {
    let rings = Rings::new();
    let address = format!("shm:at-work?capacity=64K&dir={}", rings.path().display());
    let mut publisher = Publisher::open(&address).expect("opens");
    publisher.try_publish(b"whole").expect("there is room");
    let mut claim = publisher.claim(100).expect("there is room");
    claim.fill(0xff);
    // What a process leaves that is killed between writing and committing.
    std::fs::copy(rings.file("at-work"), rings.file("half")).expect("copied");
    drop(claim);
    let found = inspected(&rings, "half", 0);
    assert_eq!(
        (&found["producer"]["status"], &found["producer"]["next_sequence"]),
        (&"dead".into(), &2.into())
    );
    look_everywhere(&rings, "half", 0);
    let verified = rings.run(["inspect", "half", "--verify", "--json"]).expect(0).json();
    assert_eq!((&verified["records"], &verified["bytes"]), (&1.into(), &5.into()));
    assert_eq!(rings.run(["sub", "shm:half"]).expect(3).out(), "whole\n");
}

#[test]
fn every_kind_of_damage_is_shown_and_listed() {
    let rings = Rings::new();
    closed_ring(&rings, "sound", "one\n");
    type Damage = fn(&Path);
    let damages: [(&str, &str, Damage); 6] = [
        ("truncated", "truncated or damaged", |path| {
            let file = OpenOptions::new().write(true).open(path).expect("writable");
            file.set_len(10_000).expect("writable");
        }),
        ("magic", "is not a gapless ring", |path| change(path, 0, b"NONSENSE")),
        ("version", "layout version 99", |path| change(path, 8, &[99])),
        ("checksum", "checksum", |path| change(path, 90, &[1])),
        ("empty", "has 0 bytes", |path| {
            std::fs::write(path, b"").expect("writable");
        }),
        ("cursor", "impossible cursor", |path| {
            // Both checkpoints: positions that are no multiple of the alignment.
            change(path, 4096 + 136, &[0x55; 32]);
        }),
    ];
    for (name, text, damage) in damages {
        let file = rings.file(name);
        std::fs::copy(rings.file("sound"), &file).expect("copied");
        damage(&file);
        let shown = rings.run(["inspect", name]).expect(3);
        assert!(shown.out().contains(text), "{name}: {}", shown.out());
        assert_eq!(shown.out().contains("The first 256 bytes"), name != "cursor");
        let problem = inspected(&rings, name, 3)["problem"].to_string();
        assert!(problem.contains(text), "{name}: {problem}");
        look_everywhere(&rings, name, 3);
        rings.run(["sub", &format!("shm:{name}")]).expect(1);
    }
    let dump = rings.run(["inspect", "magic"]).expect(3);
    assert!(dump.out().contains("4e 4f 4e 53 45 4e 53 45"), "{}", dump.out());
    let listed = rings.run(["ls", "--json"]).expect(0).json();
    let rows = listed.as_array().expect("rows");
    assert_eq!(rows.len(), 7);
    for row in rows {
        assert_eq!(row["problem"].is_null(), row["name"] == "sound", "{row}");
    }
    let text = rings.run(["ls"]).expect(0);
    assert!(text.out().contains("is not a gapless ring"), "{}", text.out());
    rings.run(["rm", "truncated", "magic", "version", "checksum", "empty", "cursor"]).expect(0);
    assert_eq!(rings.run(["ls", "--json"]).expect(0).json().as_array().map(Vec::len), Some(1));
}

#[test]
fn verify_finds_a_corrupt_record() {
    let rings = Rings::new();
    let lines: String = (0..100).map(|number| format!("line {number:03}\n")).collect();
    closed_ring(&rings, "a", &lines);
    let verified = rings.run(["inspect", "a", "--verify", "--json"]).expect(0).json();
    assert_eq!((&verified["records"], &verified["next_sequence"]), (&100.into(), &101.into()));
    // The length of record 51: longer than any record of this ring.
    let payload = find(&rings.file("a"), b"line 050");
    change(&rings.file("a"), payload - 8, &[0xff; 3]);
    let verified = rings.run(["inspect", "a", "--verify"]).expect(3);
    for part in ["WRONG: corrupt record at position 3200", "sequence 51"] {
        assert!(verified.out().contains(part), "{}", verified.out());
    }
    let verified = rings.run(["inspect", "a", "--verify", "--json"]).expect(3).json();
    assert_eq!(verified["problems"].as_array().map(Vec::len), Some(1), "{verified}");
    let read = rings.run(["sub", "shm:a"]).expect(3);
    assert_eq!(read.out().lines().count(), 50);
    assert!(read.err().contains("corrupt record at position 3200"), "{}", read.err());
}

#[test]
fn records_are_shown_by_their_numbers() {
    let rings = Rings::new();
    closed_ring(&rings, "a", "zero\none\ntwo\nthree\n");
    let sequences = |range: &str| {
        let ended = rings.run(["inspect", "a", "--json", "--records", range]).expect(0);
        let number =
            |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["sequence"].as_u64();
        ended.out().lines().map(|line| number(line).expect("a number")).collect::<Vec<_>>()
    };
    assert_eq!(sequences(".."), [1, 2, 3, 4]);
    assert_eq!(sequences("2..4"), [2, 3]);
    assert_eq!(sequences("3.."), [3, 4]);
    assert_eq!(sequences("..2"), [1]);
    assert_eq!(sequences("3"), [3]);
    assert!(sequences("5..").is_empty());
    let text = rings.run(["inspect", "a", "--records", "2"]).expect(0);
    assert!(text.out().contains("sequence 2  position 64  3 bytes  whole"), "{}", text.out());
    assert!(text.out().contains("6f 6e 65") && text.out().contains("|one|"), "{}", text.out());
    rings.run(["inspect", "a", "--records", "4..2"]).expect(2);
    rings.run(["inspect", "a", "--records", "x"]).expect(2);
    let gone = rings.run(["inspect", "a", "--records", "0..2"]).expect(1);
    assert!(gone.err().contains("sequence 0 is gone"), "{}", gone.err());
}

#[test]
fn a_busy_ring_is_sound_and_its_rate_is_seen() {
    let rings = Rings::new();
    let load = ["pub", "shm:load?mode=lossy&capacity=64K", "--generate", "--size", "40"];
    let mut publisher = rings.start(load);
    // Lapped or not, it has seen a message.
    let first = ["sub", "shm:load?from=now&wait=yield", "--wait-for-publisher", "--max", "1"];
    let first = rings.start_more(first, &[Path::new("--count")]).end();
    assert!([0, 3].contains(&first.code()), "{}", first.err());
    let follow = ["inspect", "load", "--follow", "--times", "3", "--interval-ms", "20", "--json"];
    let looks = rings.run(follow).expect(0);
    let looks: Vec<Value> =
        looks.out().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(looks.len(), 3);
    assert!(looks[0]["producer"]["messages_per_second"].is_null());
    assert!(looks[2]["producer"]["messages_per_second"].is_number());
    let listed = rings.run(["ls", "--interval-ms", "1000", "--json"]).expect(0).json();
    assert!(listed[0]["messages_per_second"].as_f64() > Some(0.0), "{listed}");
    assert!(listed[0]["problem"].is_null(), "{listed}");
    let verified = rings.run(["inspect", "load", "--verify", "--json"]).expect(0).json();
    assert_eq!(verified["problems"].as_array().map(Vec::len), Some(0), "{verified}");
    publisher.signal(Signal::SIGTERM);
    publisher.end().expect(0);
}

#[test]
fn what_is_not_there_is_a_failure_and_what_makes_no_sense_is_misuse() {
    let rings = Rings::new();
    for command in ["inspect", "rm"] {
        let ended = rings.run([command, "none"]).expect(1);
        assert!(ended.err().contains("no ring at"), "{}", ended.err());
        let ended = rings.run([command, "../../etc/passwd"]).expect(2);
        assert!(ended.err().contains("^^^^"), "{}", ended.err());
    }
    rings.run(["inspect", "none", "--times", "3"]).expect(2);
    assert_eq!(rings.run(["ls", "--json"]).expect(0).out(), "[]\n");
    assert!(rings.run(["ls"]).expect(0).err().contains("no rings in"));
    assert_eq!(rings.run(["ls", "--json", "--dir", "/no/such/dir"]).expect(0).out(), "[]\n");
}
