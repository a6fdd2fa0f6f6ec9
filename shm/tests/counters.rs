//! Counters pages: what is written is read, by whoever may look and at no cost to the writer; the
//! dead are told from the living; and no bytes do harm.

#![cfg(not(miri))] // file mappings, processes

mod support;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};

use gapless_shm::{
    Counters, CountersError, CountersOptions, CountersReader, CountersSnapshot, RingOptions,
    counters_path, list, list_counters, remove, remove_counters,
};
use support::{Process, Rng, Witness, kills, pause};

const LABELS: [&str; 3] = ["messages", "bytes", "gaps"];
const HISTOGRAMS: [&str; 2] = ["repair_ns", "poll_ns"];
/// Witness word: how many messages the child has counted.
const COUNTED: usize = 0;
/// Bytes of a page, as the layout documents, in a directory of ordinary files.
const PAGE_BYTES: u64 = 28_672;

fn open(directory: &Path) -> Result<Counters, CountersError> {
    CountersOptions::new().directory(directory).open("s", "sender", &LABELS, &HISTOGRAMS)
}

fn look(directory: &Path) -> Result<CountersSnapshot, CountersError> {
    CountersReader::open(directory, "s")?.snapshot()
}

/// Counts a message of 100 bytes.
fn count(counters: &mut Counters) {
    counters.add(0, 1);
    counters.add(1, 100);
    counters.record(0, counters.get(0));
}

/// Not a test of its own: what the children run.
#[test]
fn child() {
    let Some((role, directory)) = support::role() else {
        return;
    };
    assert_eq!(role, "writer");
    let witness = Witness::open(&directory);
    let mut counters = open(&directory).unwrap();
    loop {
        count(&mut counters);
        witness.set(COUNTED, counters.get(0));
    }
}

#[test]
fn what_is_counted_is_read_and_reading_changes_nothing() {
    let directory = support::directory();
    let directory = directory.path();
    let mut counters = open(directory).unwrap();
    let reader = CountersReader::open(directory, "s").unwrap();
    assert_eq!(reader.snapshot().unwrap(), counters.snapshot());
    for _ in 0..1000 {
        count(&mut counters);
    }
    counters.set(2, 7);
    counters.record(1, 3);
    let before = fs::read(reader.path()).unwrap();
    let snapshot = reader.snapshot().unwrap();
    assert_eq!(fs::read(reader.path()).unwrap(), before);
    assert_eq!((snapshot.kind.as_str(), snapshot.name.as_str()), ("sender", "s"));
    assert_eq!((snapshot.pid, snapshot.alive, snapshot.closed), (std::process::id(), true, false));
    assert!(snapshot.started_unix_ns > 1_700_000_000_000_000_000);
    let values = LABELS.map(|label| snapshot.counter(label));
    assert_eq!(values, [Some(1000), Some(100_000), Some(7)]);
    assert_eq!(snapshot.counter("none"), None);
    let indices = LABELS.map(|label| reader.index_of(label).unwrap());
    assert_eq!(indices.map(|index| reader.value(index)), values);
    assert_eq!((reader.index_of("none"), reader.value(LABELS.len())), (None, None));
    let repair = snapshot.histogram("repair_ns").unwrap();
    assert_eq!((repair.count, repair.max_ns, repair.mean_ns()), (1000, 1000, Some(500)));
    let median = repair.quantile_ns(0.5).unwrap();
    assert!((500..=531).contains(&median), "{median}");
    assert_eq!(snapshot.histogram("poll_ns").and_then(|h| h.quantile_ns(0.5)), Some(3));
    assert_eq!(fs::metadata(reader.path()).unwrap().permissions().mode() & 0o777, 0o600);

    drop(counters);
    let closed = look(directory).unwrap();
    assert_eq!((closed.alive, closed.closed), (false, true));
    assert_eq!(closed.counters, snapshot.counters, "the last values stay");
}

#[test]
fn a_page_has_one_writer_and_the_next_begins_at_zero() {
    let directory = support::directory();
    let directory = directory.path();
    let mut first = open(directory).unwrap();
    count(&mut first);
    let old = CountersReader::open(directory, "s").unwrap();
    match open(directory) {
        Err(CountersError::WriterAlive { pid, path }) => {
            assert_eq!((pid, path.as_path()), (std::process::id(), old.path()));
        }
        other => panic!("{other:?}"),
    }
    assert!(old.is_current());
    drop(first);
    // Another kind, with other labels.
    let options = CountersOptions::new().directory(directory).file_mode(0o640);
    let second = options.open("s", "receiver", &["x"], &[]).unwrap();
    assert!(!old.is_current());
    assert_eq!(old.snapshot().unwrap().counter("messages"), Some(1), "who has it open keeps it");
    let snapshot = look(directory).unwrap();
    assert_eq!((snapshot.kind.as_str(), snapshot.counter("x")), ("receiver", Some(0)));
    assert!(snapshot.alive && snapshot.histograms.is_empty());
    let path = counters_path(directory, "s").unwrap();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o640);
    drop(second);
    // Refused before anything is made.
    let bad = options.open("../s", "receiver", &["x"], &[]);
    assert!(matches!(bad, Err(CountersError::File(_))), "{bad:?}");
    let bad = options.open("t", "receiver", &["a b"], &[]);
    assert!(matches!(bad, Err(CountersError::BadText { .. })), "{bad:?}");
    assert_eq!(fs::read_dir(directory).unwrap().count(), 1);
}

#[test]
fn a_killed_writer_is_seen_dead_and_followed() {
    let mut rng = Rng::from_environment("a_killed_writer_is_seen_dead_and_followed");
    let directory = support::directory();
    let directory = directory.path();
    let witness = Witness::open(directory);
    for round in 0..kills() {
        witness.set(COUNTED, 0);
        let mut child = Process::spawn("writer", directory, &[]);
        // One in four dies while it starts.
        if round % 4 != 3 {
            witness.wait_for(COUNTED, 1, &mut child);
            match open(directory) {
                Err(CountersError::WriterAlive { pid, .. }) => assert_eq!(pid, child.id()),
                other => panic!("{other:?}"),
            }
            let snapshot = look(directory).unwrap();
            assert_eq!((snapshot.alive, snapshot.pid), (true, child.id()));
        }
        pause(rng.below(5000));
        child.kill();
        child.wait();
        let counted = witness.get(COUNTED);
        if counted > 0 {
            let snapshot = look(directory).unwrap();
            assert_eq!((snapshot.alive, snapshot.closed), (false, false), "it died");
            assert_eq!(snapshot.pid, child.id());
            let messages = snapshot.counter("messages").unwrap();
            assert!(messages == counted || messages == counted + 1, "{messages} {counted}");
        }
        let mut next = open(directory).unwrap();
        assert_eq!(next.get(0), 0);
        count(&mut next);
        let snapshot = look(directory).unwrap();
        assert_eq!((snapshot.alive, snapshot.pid), (true, std::process::id()));
        assert_eq!(snapshot.counter("messages"), Some(1));
    }
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["s.counters", "witness"], "nothing else is left behind");
}

#[test]
fn of_many_that_start_at_once_one_writes() {
    let directory = support::directory();
    let directory = directory.path();
    for round in 0..50 {
        if round % 2 == 0 {
            drop(open(directory).unwrap()); // a page to be replaced
        } else {
            remove_counters(directory, "s", false).unwrap();
        }
        let barrier = Barrier::new(4);
        let start = || {
            barrier.wait();
            let opened = open(directory);
            barrier.wait(); // nobody leaves before all have tried
            match opened {
                Ok(counters) => Some(counters),
                Err(CountersError::WriterAlive { pid, .. }) => {
                    assert_eq!(pid, std::process::id());
                    None
                }
                Err(other) => panic!("{other}"),
            }
        };
        let opened: Vec<Option<Counters>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(opened.iter().flatten().count(), 1);
        assert!(look(directory).unwrap().alive);
    }
}

#[test]
fn a_reader_beside_a_running_writer_sees_only_what_was_counted() {
    const MESSAGES: u64 = 300_000;
    let directory = support::directory();
    let mut counters = open(directory.path()).unwrap();
    let reader = CountersReader::open(directory.path(), "s").unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..MESSAGES {
                count(&mut counters);
            }
            done.store(true, Ordering::Release);
        });
        let mut before = reader.snapshot().unwrap();
        loop {
            let last = done.load(Ordering::Acquire);
            let now = reader.snapshot().unwrap();
            for ((label, then), (_, now)) in before.counters.iter().zip(&now.counters) {
                assert!(then <= now, "{label} went back");
            }
            let bytes = now.counter("bytes").unwrap();
            assert!(bytes.is_multiple_of(100) && bytes <= MESSAGES * 100, "{bytes}");
            let (then, repair) = (&before.histograms[0], &now.histograms[0]);
            assert!(then.count <= repair.count && repair.count <= MESSAGES);
            assert!(then.max_ns <= repair.max_ns && repair.max_ns <= MESSAGES);
            if last {
                assert_eq!((now.counter("messages"), repair.count), (Some(MESSAGES), MESSAGES));
                assert_eq!(repair.sum_ns, MESSAGES * (MESSAGES + 1) / 2);
                break;
            }
            before = now;
        }
    });
}

#[test]
fn pages_and_rings_keep_out_of_each_others_way() {
    let directory = support::directory();
    let directory = directory.path();
    assert!(list_counters(&directory.join("none")).unwrap().is_empty());
    let counters = open(directory).unwrap();
    let other = CountersOptions::new().directory(directory);
    drop(other.open("a.b", "sender", &[], &[]).unwrap());
    let ring = RingOptions::new().directory(directory).capacity_bytes(4096).create("s").unwrap();
    fs::write(directory.join(".hidden.counters"), b"").unwrap();
    assert_eq!(list_counters(directory).unwrap(), ["a.b", "s"]);
    assert_eq!(list(directory).unwrap(), ["s"]);
    match remove_counters(directory, "s", false) {
        Err(CountersError::WriterAlive { pid, .. }) => assert_eq!(pid, std::process::id()),
        other => panic!("{other:?}"),
    }
    drop(ring);
    remove(directory, "s", false).unwrap();
    assert_eq!(list_counters(directory).unwrap(), ["a.b", "s"], "the page stays");
    drop(counters);
    remove_counters(directory, "s", false).unwrap();
    let gone = remove_counters(directory, "s", false);
    assert!(matches!(gone, Err(CountersError::NotFound { .. })), "{gone:?}");
    assert!(matches!(look(directory), Err(CountersError::NotFound { .. })));
    let counters = open(directory).unwrap();
    remove_counters(directory, "s", true).unwrap();
    let successor = open(directory).unwrap();
    drop(counters);
    assert!(look(directory).unwrap().alive, "the one before left what is not its own alone");
    drop(successor);
}

#[test]
fn every_damage_has_its_own_error_and_is_replaced_by_a_writer() {
    type Damage = fn(&fs::File);
    type Expected = fn(&CountersError) -> bool;
    let cases: [(Damage, Expected); 8] = [
        (|f| f.write_all_at(b"X", 0).unwrap(), |e| matches!(e, CountersError::BadMagic { .. })),
        (
            |f| f.write_all_at(&[9], 8).unwrap(),
            |e| matches!(e, CountersError::BadVersion { found: 9, supported: 1, .. }),
        ),
        (
            |f| f.write_all_at(&[1, 2, 3, 4], 12).unwrap(),
            |e| matches!(e, CountersError::BadByteOrder { .. }),
        ),
        (
            |f| f.write_all_at(b"X", 256).unwrap(),
            |e| matches!(e, CountersError::BadChecksum { .. }),
        ),
        (
            |f| {
                f.write_all_at(&[200], 36).unwrap();
                reseal(f);
            },
            |e| matches!(e, CountersError::BadHeader { field: "counters", value: 200, .. }),
        ),
        (
            |f| f.set_len(PAGE_BYTES - 1).unwrap(),
            |e| matches!(e, CountersError::BadLength { found, .. } if *found == PAGE_BYTES - 1),
        ),
        (
            |f| f.set_len(PAGE_BYTES + 4096).unwrap(),
            |e| matches!(e, CountersError::BadLength { expected, .. } if *expected == PAGE_BYTES),
        ),
        (|f| f.set_len(0).unwrap(), |e| matches!(e, CountersError::BadLength { found: 0, .. })),
    ];
    let directory = support::directory();
    let directory = directory.path();
    let path = counters_path(directory, "s").unwrap();
    for (damage, expected) in cases {
        drop(open(directory).unwrap());
        damage(&OpenOptions::new().read(true).write(true).open(&path).unwrap());
        let error = look(directory).unwrap_err();
        assert!(expected(&error), "{error}");
        assert!(error.to_string().contains("s.counters"), "{error}");
        drop(open(directory).unwrap());
        assert!(look(directory).unwrap().closed);
    }
    // Under a reader that has it open.
    let reader = CountersReader::open(directory, "s").unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(4096).unwrap();
    let error = reader.snapshot().unwrap_err();
    assert!(matches!(error, CountersError::BadLength { found: 4096, .. }), "{error}");
}

/// Recomputes the checksum of the header: damage that it does not catch.
fn reseal(file: &fs::File) {
    let mut header = [0; 2432];
    file.read_exact_at(&mut header, 0).unwrap();
    file.write_all_at(&crc32c::crc32c(&header).to_le_bytes(), 2432).unwrap();
}

#[test]
fn no_bytes_do_harm() {
    let mut rng = Rng::from_environment("no_bytes_do_harm");
    let directory = support::directory();
    let directory = directory.path();
    let path = counters_path(directory, "s").unwrap();
    drop(open(directory).unwrap());
    let sound = fs::read(&path).unwrap();
    let mut opened = 0;
    for round in 0..2000 {
        fs::write(&path, &sound).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        for _ in 0..1 + rng.below(8) {
            // Half of it in the numbers of the header; the header is resealed.
            let end = if rng.below(2) == 0 { 48 } else { PAGE_BYTES - 8 };
            let word = match rng.below(3) {
                0 => u64::MAX,
                1 => 1 << rng.below(64),
                _ => rng.next(),
            };
            file.write_all_at(&word.to_le_bytes()[..1 + rng.below(8) as usize], rng.below(end))
                .unwrap();
        }
        if round % 2 == 0 {
            file.write_all_at(&sound[..48], 0).unwrap();
        }
        reseal(&file);
        if let Ok(snapshot) = look(directory) {
            opened += 1;
            assert!(snapshot.counters.len() <= 64 && snapshot.histograms.len() <= 4);
            for histogram in &snapshot.histograms {
                let quantile = histogram.quantile_ns(0.99);
                assert!(quantile.is_none_or(|ns| ns <= histogram.max_ns));
                assert!(histogram.mean_ns().is_some() || histogram.count == 0);
            }
        }
    }
    assert!(opened > 100, "the damage never got past the header: {opened}");
}

#[test]
fn what_is_no_file_of_ours_is_neither_read_nor_replaced() {
    let directory = support::directory();
    let directory = directory.path();
    let path = counters_path(directory, "s").unwrap();
    let target = directory.join("target");
    drop(CountersOptions::new().directory(directory).open("t", "sender", &[], &[]).unwrap());
    fs::rename(counters_path(directory, "t").unwrap(), &target).unwrap();
    let refused = || {
        let error = look(directory).unwrap_err();
        assert!(matches!(error, CountersError::File(_)), "{error}");
        let error = open(directory).unwrap_err();
        assert!(matches!(error, CountersError::File(_)), "{error}");
    };
    symlink(&target, &path).unwrap();
    refused();
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "the link was replaced");
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused();
    assert!(fs::metadata(&path).unwrap().is_dir());
    let options = CountersOptions::new().directory(directory.join("target"));
    assert!(matches!(options.open("s", "sender", &[], &[]), Err(CountersError::File(_))));
}
