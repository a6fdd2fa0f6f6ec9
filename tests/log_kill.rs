//! A log whose writer is killed, in real processes on a real disk: what it said is there, is there.
//!
//! `GAPLESS_KILLS=N cargo test --test log_kill` says how often (150).

mod log_proof;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gapless::Flags;
use gapless::log::{LogError, LogOptions, LogReader, ReadFrom, SyncPolicy};
use gapless::protocol::Random;

use log_proof::{length, payload, variable};

const SESSION: u64 = 7;
const DIRECTORY: &str = "GAPLESS_KILL_DIRECTORY";

fn options(random: &mut Random) -> LogOptions {
    let sync = match random.below(4) {
        0 => SyncPolicy::None,
        1 => SyncPolicy::Every(Duration::from_millis(1)),
        _ => SyncPolicy::Batch,
    };
    let options = LogOptions::new().sync(sync).in_line(random.chance(0.3));
    options.segment_bytes((64 << 10) << random.below(5)).block_bytes((4 << 10) << random.below(5))
}

/// The message of a sequence number.
fn message(sequence: u64, bytes: &mut Vec<u8>) {
    let mut random = Random::new(sequence);
    payload(random.next(), length(&mut random), bytes);
}

/// Not a test of its own: writes until it is killed, and says how far it is.
#[test]
fn writer() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let mut random = Random::new(variable("GAPLESS_KILL_SEED").unwrap_or(0));
    let (mut log, _) = options(&mut random).open(directory).unwrap();
    let (_, mut next) = log.position().unwrap_or((SESSION, 1));
    log.begin(SESSION, next).unwrap();
    let mut out = std::io::stdout().lock();
    let mut bytes = Vec::new();
    loop {
        for _ in 0..random.below(30) {
            message(next, &mut bytes);
            log.append(next, &bytes, Flags::WHOLE, next).unwrap();
            next += 1;
        }
        log.flush().unwrap();
        log.tick(next * 100_000).unwrap();
        if random.chance(0.01) {
            log.sync().unwrap();
        }
        let (written, durable) = (log.written_sequence(), log.durable_sequence());
        // In one write, so that a kill does not cut it.
        let line = format!("\nat {written} {durable}\n");
        if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
            return; // nobody listens: the test is over
        }
    }
}

/// Lets a writer write until it has said so many things, kills it, and says what it said last.
fn kill_after(directory: &Path, lines: u64, seed: u64) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture"])
        .env(DIRECTORY, directory)
        .env("GAPLESS_KILL_SEED", seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let (mut said, mut written) = (0, 0);
    for line in out.lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        if words.next() != Some("at") {
            continue;
        }
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (now, durable) = (number().unwrap(), number().unwrap());
        assert!(written <= now && durable <= now, "{written}, then {line}");
        written = now;
        said += 1;
        if said == lines {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(!status.success() && said >= lines, "the writer ended by itself: {status}");
    written
}

/// Reads from `from` on, compares, and says what comes next.
fn read(directory: &Path, from: u64) -> u64 {
    let mut reader = LogReader::open(directory, ReadFrom::Sequence(from)).unwrap();
    let (mut next, mut bytes) = (from, Vec::new());
    loop {
        let handled = reader.poll(1000, |found, _| {
            message(next, &mut bytes);
            assert_eq!(found.sequence, next);
            assert!(found.payload == bytes, "message {next} is another");
            next += 1;
        });
        if handled.unwrap() == 0 {
            return next;
        }
    }
}

#[test]
fn what_a_killed_writer_has_written_is_there() {
    let kills = variable("GAPLESS_KILLS").unwrap_or(150);
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(kills);
    let mut end: u64 = 1;
    for kill in 0..kills {
        let written = kill_after(dir.path(), 1 + random.below(60), random.next());
        let (log, recovery) = options(&mut random).in_line(true).open(dir.path()).unwrap();
        let next = recovery.unwrap().next_sequence;
        assert!(next > written, "kill {kill}: {written} was written, {next} comes next");
        drop(log);
        assert_eq!(read(dir.path(), end.saturating_sub(100).max(1)), next, "kill {kill}");
        end = next;
    }
    assert_eq!(read(dir.path(), 1), end);
    let (mut log, _) = options(&mut random).open(dir.path()).unwrap();
    let refused = log.append(end + 1, b"", Flags::WHOLE, 0);
    assert!(matches!(refused, Err(LogError::OutOfTurn { .. })));
    println!("{kills} kills, {end} messages");
}
