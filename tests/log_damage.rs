//! Logs with damaged bytes, and disks that are full: what is sound is read, the rest is told.

mod log_proof;

use std::fs;
use std::path::Path;

use gapless::Flags;
use gapless::log::{FaultyDisk, LogError, LogOptions, LogReader, ReadFrom};
use gapless::protocol::Random;

use log_proof::{length, payload, variable};

const SESSION: u64 = 7;
const FIRST: u64 = 5;

fn message(sequence: u64, bytes: &mut Vec<u8>) {
    let mut random = Random::new(sequence);
    payload(random.next(), length(&mut random), bytes);
}

fn options() -> LogOptions {
    LogOptions::new().segment_bytes(64 << 10).block_bytes(4 << 10).in_line(true)
}

/// Makes a log of several finished segments, and says where it ends.
fn make(directory: &Path, random: &mut Random) -> u64 {
    let (mut log, _) = options().open(directory).unwrap();
    log.begin(SESSION, FIRST).unwrap();
    let (end, mut bytes) = (FIRST + 200 + random.below(400), Vec::new());
    for sequence in FIRST..end {
        message(sequence, &mut bytes);
        log.append(sequence, &bytes, Flags::WHOLE, sequence * 1000).unwrap();
        if random.chance(0.2) {
            log.flush().unwrap();
        }
    }
    log.close().unwrap();
    end
}

/// Damages any file of a log but its last segment.
fn damage(directory: &Path, random: &mut Random) {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some()).collect();
    files.sort();
    files.retain(|path| path.extension().is_some_and(|kind| kind == "log" || kind == "idx"));
    files.pop();
    for _ in 0..1 + random.below(4) {
        let path = &files[random.below(files.len() as u64) as usize];
        let mut bytes = fs::read(path).unwrap();
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => bytes[..at.min(5000)].fill(0),
            2 => {
                let end = (at + 6000).min(bytes.len());
                bytes[at..end].fill(0);
            }
            3 => bytes.rotate_left(at),
            _ => bytes.iter_mut().skip(at).take(8).for_each(|byte| *byte ^= random.next() as u8),
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
        fs::write(path, bytes).unwrap();
    }
}

/// Reads to the end; every message is handed out as it was, or told of, in order.
fn read(reader: &mut LogReader, end: u64) -> u64 {
    let (mut next, mut bytes, mut told, mut polls) = (reader.next_sequence(), Vec::new(), 0, 0);
    while next < end {
        polls += 1;
        assert!(polls < 100_000, "no end of it, at {next}");
        let polled = reader.poll(50, |found, _| {
            message(found.sequence, &mut bytes);
            assert_eq!(found.sequence, next);
            assert!(found.payload == bytes, "message {next} is another");
            next += 1;
        });
        match polled {
            Ok(_) => {}
            Err(LogError::Damaged { first, count, .. } | LogError::Missing { first, count }) => {
                assert!(first == next && count > 0 && first + count <= end, "{first} {count}");
                (next, told) = (first + count, told + count);
            }
            Err(error) => panic!("at {next}: {error}"),
        }
    }
    told
}

fn play(seed: u64) -> u64 {
    let mut random = Random::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let end = make(dir.path(), &mut random);
    damage(dir.path(), &mut random);
    let mut reader = LogReader::open(dir.path(), ReadFrom::Oldest).unwrap();
    let told = read(&mut reader, end);
    for _ in 0..20 {
        let from = match random.below(3) {
            0 => ReadFrom::UnixNs(random.below(end + 10) * 1000),
            1 => ReadFrom::Now,
            _ => ReadFrom::Sequence(FIRST + random.below(end - FIRST)),
        };
        reader.seek(from).unwrap();
        if let ReadFrom::Sequence(wanted) = from {
            assert_eq!(reader.next_sequence(), wanted);
        }
        read(&mut reader, end);
    }
    drop(reader);
    // A writer goes on, or says what is in its way.
    match options().open(dir.path()) {
        Ok((_, recovery)) => assert_eq!(recovery.map(|found| found.next_sequence), Some(end)),
        Err(error) => assert!(matches!(error, LogError::Header { .. }), "{error}"),
    }
    told
}

#[test]
fn what_is_sound_is_read_and_the_rest_is_told() {
    if let Some(seed) = variable("GAPLESS_LOG_SEED") {
        play(seed);
        return;
    }
    let mut told = 0;
    for seed in 1..=variable("GAPLESS_LOG_SEEDS").unwrap_or(60) {
        told += std::panic::catch_unwind(|| play(seed)).unwrap_or_else(|panic| {
            eprintln!("GAPLESS_LOG_SEED={seed} failed");
            std::panic::resume_unwind(panic)
        });
    }
    assert!(told > 0, "nothing was ever damaged");
}

#[test]
fn a_full_disk_is_waited_for_without_a_gap() {
    for seed in 0..50 {
        let mut random = Random::new(seed);
        let disk = FaultyDisk::new(seed);
        let (mut log, _) = options().open_on(disk.clone(), "/log").unwrap();
        log.begin(SESSION, FIRST).unwrap();
        let (mut refused, mut bytes, mut next) = (0, Vec::new(), FIRST);
        disk.set_room(Some(random.below(200 << 10)));
        while next < 500 {
            message(next, &mut bytes);
            let appended = log.append(next, &bytes, Flags::WHOLE, next * 1000);
            match appended.and_then(|()| log.tick(next * 1000)) {
                Ok(()) => next += 1,
                Err(error) => {
                    assert!(error.is_no_room(), "{error}");
                    assert_eq!(log.position(), Some((SESSION, next)));
                    refused += 1;
                    if random.chance(0.5) {
                        disk.set_room(Some(disk.used() + random.below(150 << 10)));
                    }
                }
            }
        }
        assert!(refused > 0, "the disk was never full");
        disk.set_room(None);
        log.sync().unwrap();
        let disk = disk.power_off(seed);
        let mut reader = LogReader::open_on(disk, "/log", None, ReadFrom::Oldest).unwrap();
        let mut seen = FIRST;
        while reader.poll(1000, |_, _| seen += 1).unwrap() > 0 {}
        assert_eq!(seen, 500, "seed {seed}");
    }
}
