//! `pub`, `sub`, `ping` and `pong` from outside: what goes in comes out, and what does not is told.

mod support;

use std::path::Path;

use gapless::Subscriber;
use nix::sys::signal::Signal;
use support::Rings;

const SAMPLE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../data/moex-forts-2013/increment_a.binfile");

#[test]
fn lines_go_in_and_come_out() {
    let rings = Rings::new();
    let published = rings.run_with_input(["pub", "shm:a"], "one\n\nthree ä\nlast").expect(0);
    assert!(published.err().contains("published 4 messages"), "{}", published.err());
    let read = rings.run(["sub", "shm:a"]).expect(0);
    assert_eq!(read.out(), "one\n\nthree ä\nlast\n");
    assert!(read.err().contains("read 4 messages"), "{}", read.err());
    assert_eq!(rings.run(["sub", "shm:a", "--hex", "--max", "1"]).expect(0).out(), "6f6e65\n");
    assert_eq!(rings.run(["sub", "shm:a?from=4"]).expect(0).out(), "last\n");
    assert_eq!(rings.run(["sub", "shm:a?from=now"]).expect(0).out(), "");
    // A second publisher carries on where the first one ended.
    rings.run_with_input(["pub", "shm:a"], "more\n").expect(0);
    assert_eq!(rings.run(["sub", "shm:a?from=4"]).expect(0).out(), "last\nmore\n");
}

#[test]
fn lines_arrive_while_the_publisher_is_at_it() {
    let rings = Rings::new();
    let mut subscriber = rings.start(["sub", "shm:live?wait=yield", "--wait-for-publisher"]);
    let mut publisher = rings.start(["pub", "shm:live", "--wait-for", "1"]);
    for line in ["first\n", "second\n"] {
        publisher.write(line);
        assert_eq!(subscriber.read_exact(line.len()), line.as_bytes());
    }
    publisher.end().expect(0);
    subscriber.end().expect(0);
}

#[test]
fn a_file_of_records_comes_back_as_it_was() {
    let rings = Rings::new();
    let copy = rings.path().join("copy.binfile");
    let to_file = ["sub", "shm:feed?wait=yield", "--wait-for-publisher", "--output"];
    let subscriber = rings.start_more(to_file, &[&copy]);
    let hasher =
        rings.start(["sub", "shm:feed?wait=yield", "--wait-for-publisher", "--hash", "--json"]);
    let publish = ["pub", "shm:feed", "--wait-for", "2", "--digest", "--json", "--file", SAMPLE];
    let published = rings.run(publish).expect(0).json();
    assert_eq!((&published["messages"], &published["bytes"]), (&8101.into(), &688_083.into()));
    subscriber.end().expect(0);
    let sample = std::fs::read(SAMPLE).expect("the sample");
    assert!(std::fs::read(&copy).expect("the copy") == sample, "byte for byte");
    let hashed = hasher.end().expect(0).json();
    assert_eq!(hashed["digest"], published["digest"]);
    assert_eq!((&hashed["messages"], &hashed["missed"]), (&8101.into(), &0.into()));
    // Other prefixes: written, read back, and the messages are the same.
    for prefix in ["le16", "be32", "le32"] {
        let address = format!("shm:{prefix}");
        let write = ["sub", "shm:feed", "--prefix", prefix, "--output"];
        rings.start_more(write, &[&copy]).end().expect(0);
        let read = ["pub", &address, "--digest", "--json", "--prefix", prefix, "--file"];
        let again = rings.start_more(read, &[&copy]).end().expect(0).json();
        assert_eq!(again["digest"], published["digest"], "{prefix}");
    }
}

#[test]
fn a_file_that_ends_inside_a_record_is_refused_there() {
    let rings = Rings::new();
    let torn = rings.path().join("torn.binfile");
    std::fs::write(&torn, b"\0\x02ab\0\x09c").expect("writable");
    let ended = rings.start_more(["pub", "shm:torn", "--file"], &[&torn]).end().expect(1);
    assert!(ended.err().contains("record 2 at byte 4: says 9 bytes, 1"), "{}", ended.err());
    assert_eq!(rings.run(["sub", "shm:torn"]).expect(0).out(), "ab\n");
    let missing = rings.run(["pub", "shm:torn", "--file", "/no/such/file"]).expect(1);
    assert!(missing.err().contains("/no/such/file"), "{}", missing.err());
}

#[test]
fn messages_longer_than_a_record_travel_in_fragments() {
    let rings = Rings::new();
    let hash = ["sub", "shm:big?wait=yield", "--wait-for-publisher", "--hash", "--json"];
    let subscriber = rings.start(hash);
    let raw =
        ["sub", "shm:big?wait=yield", "--wait-for-publisher", "--fragments", "--hash", "--json"];
    let raw = rings.start(raw);
    let address = "shm:big?capacity=64K&max=1000";
    let size = ["--size", "100001", "--count", "30"];
    let mut publish = vec!["pub", address, "--generate", "--wait-for", "2", "--digest", "--json"];
    publish.extend(size);
    let published = rings.command(publish).output().expect("runs");
    let published: serde_json::Value =
        serde_json::from_slice(&published.stdout).expect("one JSON object");
    let whole = subscriber.end().expect(0).json();
    assert_eq!((&whole["messages"], &whole["bytes"]), (&30.into(), &3_000_030.into()));
    assert_eq!(whole["digest"], published["digest"]);
    let parts = raw.end().expect(0).json();
    assert_eq!((&parts["messages"], &parts["bytes"]), (&(30 * 101).into(), &3_000_030.into()));
    // Who joins in the middle of a message is told so.
    let next = published["next_sequence"].as_u64().expect("a number");
    let middle = format!("shm:big?from={}", next - 50);
    let late = rings.run(["sub", &middle, "--hash", "--json"]).expect(3);
    assert_eq!((&late.json()["messages"], &late.json()["incomplete"]), (&0.into(), &1.into()));
    assert!(late.err().contains("part of a message"), "{}", late.err());
}

#[test]
fn what_a_slow_reader_misses_is_told_exactly() {
    const LINES: u64 = 50_000;
    let rings = Rings::new();
    // Nobody reads its output yet: it stops after what fits the pipe, and is lapped.
    let subscriber = rings.start(["sub", "shm:lossy?wait=yield", "--wait-for-publisher"]);
    let input: String = (1..=LINES).map(|number| format!("{number:0100}\n")).collect();
    let publish = ["pub", "shm:lossy?mode=lossy&capacity=64K", "--wait-for", "1"];
    rings.run_with_input(publish, &input).expect(0);
    let read = subscriber.end().expect(3);
    let numbers: Vec<u64> =
        read.out().lines().map(|line| line.parse().expect("a number")).collect();
    let mut missed = Vec::new();
    for line in read.err().lines() {
        let Some((_, range)) = line.split_once("missed ") else {
            continue;
        };
        let (count, range) = range.split_once(" messages: sequence ").expect("a range");
        let (first, last) = range.split_once(" to ").expect("a range");
        let (first, last): (u64, u64) =
            (first.parse().expect("first"), last.parse().expect("last"));
        assert_eq!(count.replace(',', ""), (last - first + 1).to_string(), "{line}");
        missed.extend(first..=last);
    }
    assert!(!missed.is_empty(), "it was lapped");
    // Every message was either read, in order, or named as missed: nothing else.
    assert!(numbers.is_sorted());
    let mut all = [numbers, missed].concat();
    all.sort_unstable();
    assert!(all.into_iter().eq(1..=LINES));
}

#[test]
fn asked_to_end_a_publisher_closes_its_stream() {
    let rings = Rings::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut publisher = rings.start(["pub", "shm:load", "--generate", "--rate", "1000"]);
        let first = ["sub", "shm:load?from=now&wait=yield", "--wait-for-publisher", "--max", "3"];
        rings.run(first).expect(0);
        publisher.signal(signal);
        let ended = publisher.end().expect(0);
        assert!(ended.err().contains("published"), "{}", ended.err());
        let counted = rings.run(["sub", "shm:load", "--count", "--json"]).expect(0).json();
        assert_eq!(counted["end"], "the publisher closed the stream");
        assert!(counted["messages"].as_u64() >= Some(3), "{counted}");
    }
    // One that waits for input, and a subscriber that waits for messages.
    let mut publisher = rings.start(["pub", "shm:idle"]);
    publisher.write("hello\n");
    let mut subscriber = rings.start(["sub", "shm:idle?wait=yield", "--wait-for-publisher"]);
    assert_eq!(subscriber.read_exact(6), b"hello\n");
    subscriber.signal(Signal::SIGTERM);
    assert!(subscriber.end().expect(0).err().contains("interrupted"));
    publisher.signal(Signal::SIGINT);
    publisher.end_leaving_input_open().expect(0);
    rings.run(["sub", "shm:idle"]).expect(0);
}

#[test]
fn a_publisher_that_died_is_told() {
    let rings = Rings::new();
    let mut publisher = rings.start(["pub", "shm:a"]);
    publisher.write("hello\n");
    rings.run(["sub", "shm:a?wait=yield", "--wait-for-publisher", "--max", "1"]).expect(0);
    let pid = publisher.pid().to_string();
    let second = rings.run(["pub", "shm:a"]).expect(1);
    assert!(second.err().contains(&format!("live producer, pid {pid}")), "{}", second.err());
    publisher.signal(Signal::SIGKILL);
    publisher.end();
    let read = rings.run(["sub", "shm:a"]).expect(3);
    assert_eq!(read.out(), "hello\n");
    assert!(read.err().contains("died"), "{}", read.err());
    // Who follows goes on with the next publisher.
    let mut follower = rings.start(["sub", "shm:a?wait=yield", "--follow", "--max", "2"]);
    assert_eq!(follower.read_exact(6), b"hello\n");
    rings.run_with_input(["pub", "shm:a"], "again\n").expect(0);
    assert_eq!(follower.end().expect(0).out(), "again\n");
}

#[test]
fn who_holds_the_publisher_up_is_named() {
    let rings = Rings::new();
    rings.run_with_input(["pub", "shm:full?capacity=4K"], "first\n").expect(0);
    let address = format!("shm:full?name=snail&dir={}", rings.path().display());
    let snail = Subscriber::open(&address).expect("attaches");
    let generate = ["pub", "shm:full", "--generate", "--count", "1000"];
    let mut publisher = rings.start(generate);
    let line = publisher.await_error_line("snail");
    assert!(line.contains(&format!("pid {}", std::process::id())), "{line}");
    drop(snail);
    let ended = publisher.end().expect(0);
    assert!(ended.err().contains("published 1,000 messages"), "{}", ended.err());
}

#[test]
fn the_round_trip_works_in_either_order() {
    let rings = Rings::new();
    for (count, ping_first) in [("3000", true), ("2000", false)] {
        let arguments = ["ping", "shm:echo?wait=yield", "--count", count, "--json"];
        let answer = ["pong", "shm:echo?wait=yield"];
        let (pong, ping);
        if ping_first {
            ping = rings.start(arguments);
            pong = rings.start(answer);
        } else {
            pong = rings.start(answer);
            ping = rings.start(arguments);
        }
        let figures = ping.end().expect(0).json();
        assert_eq!(figures["round_trips"].to_string(), count);
        assert!(figures["min_ns"].as_u64() > Some(0) && figures["p50_ns"].as_u64() > Some(0));
        let answered = pong.end().expect(0);
        assert!(answered.err().contains("answered"), "{}", answered.err());
    }
    let paced =
        ["ping", "shm:echo?wait=yield", "--count", "100", "--rate", "10000", "--size", "16"];
    let mut pong = rings.start(["pong", "shm:echo?wait=yield", "--forever"]);
    let figures = rings.run(paced).expect(0);
    assert!(figures.out().contains("p99.99"), "{}", figures.out());
    pong.signal(Signal::SIGTERM);
    pong.end().expect(0);
    rings.run(["ping", "shm:echo", "--size", "15"]).expect(2);
    rings.run(["ping", "shm:echo", "--core", "100000"]).expect(1);
}

#[test]
fn errors_point_at_the_offending_part() {
    let rings = Rings::new();
    for command in ["pub", "sub", "ping", "pong"] {
        let ended = rings.run([command, "shm:x?capacity=64Q"]).expect(2);
        let lines: Vec<&str> = ended.err().lines().collect();
        let at = lines.iter().position(|line| line.contains("  shm:x?")).expect("the address");
        let part = lines[at].find("64Q").expect("the part");
        assert_eq!(lines[at + 1], format!("{}^^^", " ".repeat(part)), "{}", ended.err());
    }
    rings.run(["sub", "shm:none"]).expect(1);
    rings.run(["sub", "shm:none", "--json"]).expect(2);
    rings.run(["sub"]).expect(2);
    rings.run(["pub", "shm:a", "--generate", "--file", "x"]).expect(2);
    rings.run(["no-such-command"]).expect(2);
    let differs = rings.run_with_input(["pub", "shm:a?capacity=4K"], "x\n").expect(0);
    assert!(differs.err().contains("1 message,"), "{}", differs.err());
    rings.run(["pub", "shm:a?capacity=8K"]).expect(1);
}

#[test]
fn help_teaches() {
    let rings = Rings::new();
    for command in ["demo", "pub", "sub", "ping", "pong", "relay", "ls", "inspect", "stat", "rm"] {
        let help = rings.run([command, "--help"]).expect(0);
        let example = format!("gapless {command}");
        assert!(help.out().contains("Examples:") && help.out().contains(&example), "{command}");
        let wide = help.out().lines().find(|line| line.chars().count() > 100);
        assert_eq!(wide, None, "{command}");
    }
    let all = rings.run(["--help"]).expect(0);
    for part in ["shm:NAME", "Exit codes:", "Examples:", "inspect", "demo"] {
        assert!(all.out().contains(part), "{part}");
    }
    assert!(!all.out().contains("demo-publisher"), "{}", all.out());
    assert!(Path::new(SAMPLE).exists());
}
