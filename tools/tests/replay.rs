//! `gapless replay` from outside: what was recorded comes once more, as it was.

mod support;

use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use gapless::Flags;
use gapless::log::LogOptions;
use nix::sys::signal::Signal;
use support::Rings;

const SAMPLE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../data/moex-forts-2013/increment_a.binfile");
const SECOND: u64 = 1_000_000_000;

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A log of the sample, and the digest of that.
fn sample_log(rings: &Rings) -> (String, serde_json::Value) {
    let directory = rings.path().join("sample");
    let log = format!("log:{}", directory.display());
    rings.run(["log", "import", SAMPLE, &log, "--format", "file", "--first", "482727"]).expect(0);
    let publish = ["pub", "shm:sample", "--digest", "--json", "--file", SAMPLE];
    (log, rings.run(publish).expect(0).json()["digest"].clone())
}

/// A log of messages a tenth of a second apart, numbers 1 to 40 and 44 to 50.
fn made_log(rings: &Rings) -> String {
    let directory = rings.path().join("made");
    let (mut log, _) = LogOptions::new().open(&directory).expect("a log");
    log.begin(35, 1).expect("a session");
    for sequence in (1..=40).chain(44..=50) {
        let unix_ns = 1_763_788_800 * SECOND + sequence * SECOND / 10;
        if sequence == 44 {
            log.append_lost(3, unix_ns).expect("told");
        }
        log.append(sequence, sequence.to_string().as_bytes(), Flags::WHOLE, unix_ns).expect("room");
        log.flush().expect("written");
    }
    log.close().expect("closed");
    format!("log:{}", directory.display())
}

#[test]
fn it_is_read_as_any_stream_is() {
    let rings = Rings::new();
    let (log, digest) = sample_log(&rings);
    for command in ["replay", "sub"] {
        let read = rings.run([command, &log, "--hash", "--json"]).expect(0).json();
        assert_eq!((&read["digest"], &read["messages"]), (&digest, &8101.into()));
        assert_eq!((&read["next_sequence"], &read["missed"]), (&490_828.into(), &0.into()));
        assert_eq!(read["end"], "the end of the replay");
    }
    let copy = rings.path().join("copy.binfile");
    rings.run(["replay", &log, "--output", text(&copy)]).expect(0);
    assert!(std::fs::read(&copy).expect("a copy") == std::fs::read(SAMPLE).expect("the sample"));
    let part = ["replay", &log, "--from", "482730", "--until", "490000", "--count", "--json"];
    assert_eq!(rings.run(part).expect(0).json()["messages"], 490_000 - 482_730);
    let address = format!("{log}?from=482730");
    let first = rings.run(["replay", &address, "--max", "1", "--hex"]).expect(0);
    assert!(first.out().starts_with("c0f8"), "{}", first.out());
    rings.run(["replay", &address, "--from", "1"]).expect(2); // said twice
    rings.run(["replay", &log, "--pace", "fast"]).expect(2);
    rings.run(["replay", "shm:sample"]).expect(2);
    assert!(rings.run(["replay", "log:/no/such"]).expect(1).err().contains("no log in /no/such"));
}

#[test]
fn parts_are_chosen_by_number_and_by_time() {
    let rings = Rings::new();
    let log = made_log(&rings);
    let lines = |arguments: &[&str], code: i32| {
        let ended = rings.start_all(&[&["replay", &log][..], arguments].concat()).end();
        let ended = ended.expect(code);
        ended.out().split_whitespace().map(|n| n.parse().expect("a number")).collect::<Vec<u64>>()
    };
    assert_eq!(lines(&[], 3), (1..=40).chain(44..=50).collect::<Vec<_>>());
    assert_eq!(lines(&["--from", "38", "--max", "2"], 0), [38, 39]);
    assert_eq!(lines(&["--from", "@1763788804.8"], 0), [48, 49, 50]);
    assert_eq!(lines(&["--from", "46", "--until", "@2025-11-22T05:20:04.8Z"], 0), [46, 47]);
}

#[test]
fn at_a_pace_it_takes_its_time() {
    let rings = Rings::new();
    let log = made_log(&rings);
    let start = Instant::now();
    let paced = ["replay", &log, "--until", "41", "--pace", "20x", "--count", "--json"];
    assert_eq!(rings.run(paced).expect(0).json()["messages"], 40);
    // Messages 1 to 40 were 3.9 s apart.
    assert!(start.elapsed() >= Duration::from_millis(3_900 / 20));
}

#[test]
fn into_a_ring_it_keeps_session_and_numbers_and_tells_of_holes() {
    let rings = Rings::new();
    let (log, digest) = sample_log(&rings);
    let hash = ["sub", "shm:again?wait=yield", "--hash", "--json", "--wait-for-publisher"];
    let reader = rings.start(hash);
    let replay = ["replay", &log, "shm:again?capacity=64K", "--wait-for", "1", "--json"];
    let replayed = rings.run(replay).expect(0).json();
    assert_eq!((&replayed["messages"], &replayed["lost"]), (&8101.into(), &0.into()));
    assert_eq!(replayed["end"], "the end of the replay");
    let read = reader.end().expect(0).json();
    assert_eq!((&read["digest"], &read["next_sequence"]), (&digest, &490_828.into()));
    let made = made_log(&rings);
    assert_eq!(rings.run(["replay", &made, "shm:made", "--json"]).expect(3).json()["lost"], 3);
    let read = rings.run(["sub", "shm:made?from=39"]).expect(3);
    assert!(read.err().contains("missed 3 messages: sequence 41 to 43"), "{}", read.err());
    assert!(read.out().starts_with("39\n40\n44\n"), "{}", read.out());
    let ring = rings.run(["inspect", "made", "--json"]).expect(0).json();
    assert_eq!(ring["header"]["session"], "000000000Z");
}

#[test]
fn by_datagrams_as_well() {
    let rings = Rings::new();
    let (log, digest) = sample_log(&rings);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("bound").port();
    drop(socket);
    let address = format!("udp:127.0.0.1:{port}?flow=1&wait=yield");
    let reader = rings.start(["sub", &address, "--hash", "--json"]);
    rings.run(["replay", &log, &address, "--wait-for", "1", "--json"]).expect(0);
    let read = reader.end().expect(0).json();
    assert_eq!((&read["digest"], &read["next_sequence"]), (&digest, &490_828.into()));
}

#[test]
fn it_follows_what_is_recorded_meanwhile() {
    let rings = Rings::new();
    let log = format!("log:{}", rings.path().join("log").display());
    let mut publisher = rings.start(["pub", "shm:live"]);
    publisher.write("one\n");
    let record = ["record", "shm:live?wait=park", &log, "--wait-for-publisher"];
    let mut recorder = rings.start(record);
    rings.run(["sub", "shm:live?wait=yield", "--wait-for-publisher", "--max", "1"]).expect(0);
    while rings.run(["replay", &log, "--count"]).code() != 0 {
        std::thread::yield_now(); // nothing is recorded yet
    }
    let mut replay = rings.start(["replay", &format!("{log}?wait=yield"), "--follow"]);
    assert_eq!(replay.read_exact(4), b"one\n");
    publisher.write("two\n");
    assert_eq!(replay.read_exact(4), b"two\n");
    publisher.write("three\n");
    assert_eq!(replay.read_exact(6), b"three\n");
    replay.signal(Signal::SIGINT);
    replay.end().expect(0);
    recorder.signal(Signal::SIGINT);
    recorder.end().expect(0);
    publisher.end().expect(0);
}
