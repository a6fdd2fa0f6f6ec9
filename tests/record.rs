//! Ring to log and back: recording, restarting, being overrun, refilling.

use std::path::Path;
use std::time::Duration;

use gapless::log::{
    LogError, LogOptions, LogReader, PastSource, ReadFrom, Recorder, RecorderOptions, WhenSlow,
};
use gapless::shm::{self, CountersReader};
use gapless::{Address, Agent, Publisher, ShmAddress};

fn ring(directory: &Path, options: &str) -> (Publisher, ShmAddress) {
    let text = format!("shm:orders?dir={}&{options}", directory.display());
    let publisher = Publisher::open(&text).unwrap();
    let Ok(Address::Shm(ring)) = text.parse() else { panic!("{text}") };
    (publisher, ring)
}

fn payload(n: u64) -> Vec<u8> {
    (0..n % 50 + 8).map(|byte| (n * 31 + byte) as u8).collect()
}

fn publish(publisher: &mut Publisher, sequences: std::ops::Range<u64>) {
    for n in sequences {
        assert_eq!(publisher.try_publish(&payload(n)).unwrap(), n);
    }
}

fn drain(recorder: &mut Recorder) {
    while recorder.duty_cycle().unwrap() > 0 {}
}

fn options() -> RecorderOptions {
    RecorderOptions::new().log(LogOptions::new().segment_bytes(64 << 10).block_bytes(4 << 10))
}

/// Checks that a log has exactly these messages, and what it says it has not.
fn check(directory: &Path, sequences: std::ops::Range<u64>, missing: &[(u64, u64)]) {
    let mut reader = LogReader::open(directory, ReadFrom::Oldest).unwrap();
    let mut missing = missing.iter();
    let mut expected = sequences.start;
    while expected < sequences.end {
        let polled = reader.poll(1000, |message, _| {
            assert_eq!((message.sequence, message.payload), (expected, &payload(expected)[..]));
            expected += 1;
        });
        match polled {
            Ok(0) => panic!("ends before {expected}"),
            Ok(_) => {}
            Err(LogError::Missing { first, count }) => {
                assert_eq!(missing.next(), Some(&(first, count)));
                expected = first + count;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((reader.poll(1, |_, _| ()).unwrap(), missing.next()), (0, None));
}

#[test]
fn a_stream_is_recorded_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let (mut publisher, ring) = ring(dir.path(), "capacity=1M");
    let mut recorder = Recorder::open(&ring, &log, &options()).unwrap();
    publish(&mut publisher, 1..2000);
    drain(&mut recorder);
    check(&log, 1..2000, &[]);
    drop(recorder);
    publish(&mut publisher, 2000..4000);
    let mut recorder = Recorder::open(&ring, &log, &options()).unwrap();
    assert_eq!(recorder.recovery().map(|found| found.next_sequence), Some(2000));
    drain(&mut recorder);
    check(&log, 1..4000, &[]);
    // A publisher that comes back carries on; so does the recorder, without being asked.
    drop(publisher);
    while !recorder.is_done() {
        recorder.duty_cycle().unwrap();
    }
    let (mut publisher, _) = self::ring(dir.path(), "capacity=1M");
    publish(&mut publisher, 4000..4010);
    while recorder.next_sequence() < 4010 {
        recorder.duty_cycle().unwrap();
    }
    assert!(!recorder.is_done());
    recorder.close().unwrap();
    check(&log, 1..4010, &[]);
}

#[test]
fn the_counters_page_says_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let (mut publisher, ring) = ring(dir.path(), "capacity=1M");
    let log = LogOptions::new().sync(gapless::log::SyncPolicy::Batch);
    let options = RecorderOptions::new().log(log);
    let mut recorder = Recorder::open(&ring, dir.path().join("log"), &options).unwrap();
    publish(&mut publisher, 1..100);
    while recorder.writer().durable_sequence() < 99 {
        recorder.duty_cycle().unwrap();
    }
    recorder.duty_cycle().unwrap();
    let page = CountersReader::open(dir.path(), &RecorderOptions::page_name("orders")).unwrap();
    let page = page.snapshot().unwrap();
    assert_eq!(page.counter("durable-sequence"), Some(99));
    assert_eq!(page.counter("written-sequence"), Some(99));
}

#[test]
fn what_was_overrun_is_refilled_from_another_log_or_on_record_as_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (logs, ring_options) = (["full", "refilled", "poor"], "capacity=16K");
    let [full, refilled, poor] = logs.map(|name| dir.path().join(name));
    let (mut publisher, ring) = ring(dir.path(), ring_options);
    let slow = || options().when_slow(WhenSlow::Refill).counters(false);
    let mut keeps_up = Recorder::open(&ring, &full, &options()).unwrap();
    let source = vec![PastSource::Log(full.clone())];
    let mut lags = Recorder::open(&ring, &refilled, &slow().refill(source)).unwrap();
    let mut alone = Recorder::open(&ring, &poor, &slow()).unwrap();
    for first in (1..5000).step_by(50) {
        publish(&mut publisher, first..first + 50);
        drain(&mut keeps_up);
        if first % 2000 == 1 {
            drain(&mut lags);
            drain(&mut alone);
        }
    }
    drain(&mut lags);
    drain(&mut alone);
    let counts = lags.counts();
    assert!(counts.lapped > 2000 && counts.lost == 0, "{counts:?}");
    assert_eq!(counts.refilled, counts.lapped);
    check(&full, 1..5001, &[]);
    check(&refilled, 1..5001, &[]);
    let counts = alone.counts();
    assert!(counts.lost == counts.lapped && counts.lapped > 2000, "{counts:?}");
    let mut reader = LogReader::open(&poor, ReadFrom::Oldest).unwrap();
    let (mut have, mut lost) = (0, 0);
    while have + lost < 5000 {
        match reader.poll(1000, |message, _| assert_eq!(message.payload, payload(message.sequence)))
        {
            Ok(0) => panic!("{have} + {lost}"),
            Ok(handled) => have += handled as u64,
            Err(LogError::Missing { count, .. }) => lost += count,
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(lost, counts.lost);
}

#[test]
fn a_gating_recorder_holds_the_publisher_up_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let (mut publisher, ring) = ring(dir.path(), "capacity=16K");
    let mut recorder = Recorder::open(&ring, &log, &options()).unwrap();
    let (mut next, mut refused) = (1, 0);
    while next < 3000 {
        match publisher.try_publish(&payload(next)) {
            Ok(_) => next += 1,
            Err(error) => {
                assert!(error.is_backpressure());
                refused += 1;
                drain(&mut recorder);
            }
        }
    }
    drain(&mut recorder);
    assert!(refused > 0);
    check(&log, 1..3000, &[]);
}

#[test]
fn a_gating_recorder_lets_go_of_nothing_that_is_not_in_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let (mut publisher, ring) = ring(dir.path(), "capacity=64K");
    let log = dir.path().join("log");
    // A block is larger than the ring.
    let options = RecorderOptions::new().log(LogOptions::new().block_bytes(256 << 10));
    let mut recorder = Recorder::open(&ring, &log, &options).unwrap();
    let mut next = 1;
    for turn in 0..2000 {
        while turn % 3 != 0 && publisher.try_publish(&payload(next)).is_ok() {
            next += 1;
        }
        if turn % 3 == 0 && publisher.try_publish(&payload(next)).is_ok() {
            next += 1;
        }
        recorder.duty_cycle().unwrap();
        let written = recorder.writer().written_sequence();
        let mut reader = shm::ConsumerOptions::new().directory(dir.path()).observer(true);
        reader = reader.start(shm::Start::Oldest);
        let oldest = reader.attach("orders").unwrap().next_sequence();
        assert!(oldest <= written + 1, "turn {turn}: {oldest} is the oldest, {written} written");
    }
    drain(&mut recorder);
    check(&log, 1..next, &[]);
}

#[test]
fn a_place_to_refill_from_may_come_late() {
    let dir = tempfile::tempdir().unwrap();
    let [full, late, log] = ["full", "late", "log"].map(|name| dir.path().join(name));
    let (mut publisher, ring) = ring(dir.path(), "capacity=16K");
    let mut keeps_up = Recorder::open(&ring, &full, &options().counters(false)).unwrap();
    let patient = options().refill([PastSource::Log(late.clone())]).patience(Duration::MAX);
    let patient = patient.counters(false).when_slow(WhenSlow::Refill);
    let mut lags = Recorder::open(&ring, &log, &patient).unwrap();
    for first in (1..2000).step_by(50) {
        publish(&mut publisher, first..first + 50);
        drain(&mut keeps_up);
    }
    for _ in 0..100 {
        lags.duty_cycle().unwrap();
    }
    keeps_up.close().unwrap();
    std::fs::rename(&full, &late).unwrap();
    while lags.next_sequence() < 2001 {
        lags.duty_cycle().unwrap();
    }
    assert_eq!(lags.counts().lost, 0);
    check(&log, 1..2001, &[]);
}

/// A ring of the same session, in the place of the one that was there: of `sequences`.
fn ring_again(directory: &Path, session: u64, sequences: std::ops::Range<u64>) -> shm::Producer {
    shm::remove(directory, "orders", true).unwrap();
    let options = shm::RingOptions::new().directory(directory).capacity_bytes(64 << 10);
    let options = options.session(session).first_sequence(sequences.start);
    let mut producer = options.create("orders").unwrap();
    for n in sequences {
        producer.try_publish(&payload(n)).unwrap();
    }
    producer
}

#[test]
fn what_a_ring_brings_once_more_is_passed_over_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let (mut publisher, ring) = ring(dir.path(), "capacity=64K");
    let mut recorder = Recorder::open(&ring, &log, &options()).unwrap();
    publish(&mut publisher, 1..100);
    drain(&mut recorder);
    let session = recorder.writer().position().unwrap().0;
    drop((recorder, publisher));
    // It is filled again while the recorder looks, and goes on.
    let mut producer = ring_again(dir.path(), session, 20..40);
    let mut recorder = Recorder::open(&ring, &log, &options()).unwrap();
    drain(&mut recorder);
    assert_eq!((recorder.next_sequence(), recorder.counts().messages), (100, 0));
    for n in 40..150 {
        producer.try_publish(&payload(n)).unwrap();
        recorder.duty_cycle().unwrap();
    }
    drain(&mut recorder);
    assert_eq!(recorder.counts().messages, 50);
    check(&log, 1..150, &[]);
    drop((recorder, producer));
    // It has gone on from a shorter log: before the recorder looks, or while it does.
    for (end, early) in [(100, true), (120, false), (149, true)] {
        let mut producer = ring_again(dir.path(), session, 90..end);
        let mut another = || producer.try_publish(b"another").unwrap();
        if early {
            assert_eq!(another(), end);
        }
        let mut recorder = Recorder::open(&ring, &log, &options()).unwrap();
        if !early {
            drain(&mut recorder);
            assert_eq!(another(), end);
        }
        assert_eq!(another(), end + 1);
        for _ in 0..2 {
            let refused = recorder.duty_cycle();
            let Err(LogError::Conflict { sequence, .. }) = refused else { panic!("{refused:?}") };
            assert_eq!(sequence, end);
        }
    }
    check(&log, 1..150, &[]);
}
