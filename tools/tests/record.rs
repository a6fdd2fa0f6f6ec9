//! `gapless record` from outside: what is published is in the log, however the recorder ends.

mod support;

use std::net::UdpSocket;
use std::path::Path;

use gapless::log::{LogReader, ReadFrom, survey};
use nix::sys::signal::Signal;
use support::Rings;

const SAMPLE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../data/moex-forts-2013/increment_a.binfile");

fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("bound").port()
}

/// A log's messages, as a file of records.
fn records(rings: &Rings, directory: &Path) -> Vec<u8> {
    let directory = directory.to_str().expect("text");
    let export = ["log", "export", directory, "-", "--format", "file"];
    rings.run(export).expect(0).bytes().to_vec()
}

/// Waits until the log has messages up to `sequence`.
fn await_recorded(directory: &Path, sequence: u64) {
    let recorded = || {
        let segments = survey(directory).unwrap_or_default();
        segments.last().map_or(0, |segment| segment.next_sequence)
    };
    while recorded() <= sequence {
        std::thread::yield_now();
    }
}

#[test]
fn a_stream_that_has_ended_is_recorded_to_its_end() {
    let rings = Rings::new();
    let directory = rings.path().join("log");
    let to = format!("log:{}", directory.display());
    rings.run(["pub", "shm:feed?capacity=4M", "--file", SAMPLE]).expect(0);
    let record = ["record", "shm:feed?wait=yield", &to, "--json"];
    let recorded = rings.run(record).expect(0).json();
    assert_eq!((&recorded["messages"], &recorded["lost"]), (&8101.into(), &0.into()));
    assert_eq!(recorded["end"], "the publisher closed the stream");
    assert!(records(&rings, &directory) == std::fs::read(SAMPLE).expect("the sample"));
    let session = rings.run(["inspect", "feed", "--json"]).expect(0).json();
    let found = survey(&directory).expect("segments");
    let name = gapless::shm::session_text(found[0].session);
    assert_eq!(session["header"]["session"], name, "the ring's own");
    assert_eq!((found[0].name.as_str(), found[0].sealed), ("feed", true));
    // Again: nothing is new. More is published: only that is.
    assert_eq!(rings.run(record).expect(0).json()["messages"], 0);
    rings.run_with_input(["pub", "shm:feed"], "one\ntwo\n").expect(0);
    let more = rings.run(record).expect(0).json();
    assert_eq!((&more["messages"], &more["next_sequence"]), (&2.into(), &8104.into()));
    let missing = rings.run(["record", "shm:nothing", &to]).expect(1);
    assert!(missing.err().contains("nothing"), "{}", missing.err());
}

#[test]
fn interrupted_or_killed_it_has_what_was_published() {
    let rings = Rings::new();
    let directory = rings.path().join("log");
    let to = format!("log:{}", directory.display());
    let mut publisher = rings.start(["pub", "shm:live"]);
    publisher.write("one\ntwo\n");
    let record = ["record", "shm:live?wait=park", &to, "--wait-for-publisher", "--json"];
    let mut first = rings.start_all(&[&record[..], &["--sync", "batch"]].concat());
    await_recorded(&directory, 2);
    let alive = rings.run(["record", "shm:live", &to]).expect(1);
    assert!(alive.err().contains("live writer"), "{}", alive.err());
    first.signal(Signal::SIGINT);
    let ended = first.end().expect(0).json();
    assert_eq!((&ended["messages"], &ended["end"]), (&2.into(), &"interrupted".into()));
    let mut second = rings.start(record);
    publisher.write("three\n");
    await_recorded(&directory, 3);
    second.signal(Signal::SIGKILL);
    second.end();
    publisher.write("four\n");
    let third = rings.start(record);
    publisher.end().expect(0);
    assert_eq!(third.end().expect(0).json()["messages"], 1);
    let mut read = Vec::new();
    let mut reader = LogReader::open(&directory, ReadFrom::Oldest).expect("a log");
    reader.poll(9, |message, _| read.push(message.payload.to_vec())).expect("readable");
    assert_eq!(read, [&b"one"[..], b"two", b"three", b"four"]);
    rings.run(["log", "verify", &to]).expect(0);
}

#[test]
fn datagrams_are_recorded_with_their_numbers() {
    let rings = Rings::new();
    let directory = rings.path().join("log");
    let to = format!("log:{}", directory.display());
    let address = format!("udp:127.0.0.1:{}?flow=1&wait=yield", free_port());
    let recorder = rings.start(["record", &address, &to, "--json"]);
    let from = format!("file:{SAMPLE}?first=482727");
    rings.run(["relay", &from, &address, "--wait-for", "1"]).expect(0);
    let recorded = recorder.end().expect(0).json();
    assert_eq!((&recorded["messages"], &recorded["lost"]), (&8101.into(), &0.into()));
    assert_eq!(recorded["next_sequence"], 490_828);
    assert!(records(&rings, &directory) == std::fs::read(SAMPLE).expect("the sample"));
}

#[test]
fn what_the_ring_has_not_any_more_is_got_from_another_log() {
    let rings = Rings::new();
    let (a, b) = (rings.path().join("a"), rings.path().join("b"));
    let (to_a, to_b) = (format!("log:{}", a.display()), format!("log:{}", b.display()));
    rings.run_with_input(["pub", "shm:feed?capacity=64K"], "one\ntwo\n").expect(0);
    for to in [&to_a, &to_b] {
        rings.run(["record", "shm:feed", to]).expect(0);
    }
    let publisher = rings.start(["pub", "shm:feed", "--wait-for", "1", "--file", SAMPLE]);
    let follower = ["record", "shm:feed?wait=yield", &to_a, "--follow", "--json"];
    let mut follower = rings.start(follower);
    publisher.end().expect(0);
    await_recorded(&a, 8103);
    follower.signal(Signal::SIGTERM);
    assert_eq!(follower.end().expect(0).json()["messages"], 8101);
    let record = ["record", "shm:feed?wait=yield", &to_b, "--refill", &to_a, "--json"];
    let refilled = rings.run(record).expect(0).json();
    assert_eq!((&refilled["messages"], &refilled["lost"]), (&8101.into(), &0.into()));
    assert!(refilled["refilled"].as_u64() > Some(4000), "{refilled:#}");
    assert!(records(&rings, &a) == records(&rings, &b));
    // Without such a place, it is put on record that they are lost.
    let c = rings.path().join("c");
    std::fs::create_dir(&c).expect("made");
    for entry in b.read_dir().expect("readable") {
        let entry = entry.expect("readable");
        if entry.path() == survey(&b).expect("segments")[0].path {
            std::fs::copy(entry.path(), c.join(entry.file_name())).expect("copied");
        }
    }
    let to_c = format!("log:{}", c.display());
    let lost = rings.run(["record", "shm:feed?wait=yield", &to_c, "--json"]).expect(3).json();
    let count = refilled["refilled"].as_u64().expect("a number");
    assert_eq!((lost["lost"].as_u64(), &lost["next_sequence"]), (Some(count), &8104.into()));
}

#[test]
fn options_are_checked() {
    let rings = Rings::new();
    rings.run_with_input(["pub", "shm:feed"], "one\n").expect(0);
    let to = format!("log:{}", rings.path().join("log").display());
    for bad in [["--sync", "often"], ["--segment", "1Q"], ["--refill", "x"], ["--on-slow", "y"]] {
        rings.start_all(&[&["record", "shm:feed", &to][..], &bad].concat()).end().expect(2);
    }
    let small = rings.run(["record", "shm:feed", &to, "--segment", "1K"]).expect(1);
    assert!(small.err().contains("64 KiB to 64 GiB"), "{}", small.err());
}
