//! Death at random points: producers and consumers are killed (SIGKILL) and stopped (SIGSTOP) while
//! they run flat out, and nothing committed is lost, nothing uncommitted is seen, nobody is held
//! up.
//!
//! `GAPLESS_KILLS` sets how many kills of each kind, `GAPLESS_SEED` repeats a run's choices.

#![cfg(not(miri))] // file mappings, processes, or too much for an interpreter

mod support;

use std::path::Path;
use std::time::{Duration, Instant};

use gapless_shm::{
    Consumer, ConsumerOptions, Inspector, Mode, PollError, ProducerStatus, PublishError, RingError,
    RingOptions, Start, list, remove, ring_path,
};
use nix::sys::signal::Signal;
use support::{Checker, Process, Rng, Witness, kills, pause, step};

/// A publish after a death must not take longer than this, even on a loaded machine. The target is
/// 10 ms; what it took is printed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Witness words.
const INTENT: usize = 0; // a commit up to this sequence has begun
const DONE: usize = 1; // a commit up to this sequence has ended
const TURNS: usize = 2; // how often the child has gone round
const PROGRESS: usize = 3; // sequence that a child consumer expects next

/// Not a test of its own: what the children run.
#[test]
fn child() {
    let Some((role, directory)) = support::role() else {
        return;
    };
    let witness = Witness::open(&directory);
    match role.as_str() {
        "producer" => produce(&directory, &witness),
        "consumer" => consume(&directory, &witness),
        "reopen" => reopen(&directory, &witness),
        "rejoin" => rejoin(&directory, &witness),
        other => panic!("no such role: {other}"),
    }
}

fn produce(directory: &Path, witness: &Witness) {
    let mut producer = RingOptions::new().directory(directory).attach("r").unwrap();
    let mut buffer = Vec::new();
    loop {
        match step(&mut producer, &mut buffer, |last| witness.set(INTENT, last)) {
            Ok(()) => witness.set(DONE, producer.next_sequence() - 1),
            Err(PublishError::Backpressure { .. }) => std::thread::yield_now(),
            Err(other) => panic!("{other}"),
        }
    }
}

/// Reads until the stream is closed.
fn consume(directory: &Path, witness: &Witness) {
    let mut consumer = attach(directory, "victim").unwrap();
    let mut checker = Checker::from(consumer.next_sequence());
    loop {
        let closed = consumer.producer_status() == ProducerStatus::Closed;
        let read = consumer.poll(16, |message| checker.check(&message)).unwrap();
        witness.set(PROGRESS, checker.next);
        if read == 0 && closed {
            return;
        }
    }
}

/// Creates, writes, closes and removes a ring, over and over.
fn reopen(directory: &Path, witness: &Witness) {
    let options = small(directory);
    let mut buffer = Vec::new();
    for turn in 1.. {
        let mut producer = options.open("r").unwrap();
        for _ in 0..turn % 5 {
            step(&mut producer, &mut buffer, |_| ()).unwrap();
        }
        drop(producer);
        if turn % 2 == 0 {
            remove(directory, "r", false).unwrap();
        }
        witness.set(TURNS, turn);
    }
}

/// Attaches and leaves, over and over.
fn rejoin(directory: &Path, witness: &Witness) {
    for turn in 1.. {
        let mut consumer = attach(directory, "victim").unwrap();
        let mut checker = Checker::from(consumer.next_sequence());
        consumer.poll(3, |message| checker.check(&message)).unwrap();
        witness.set(TURNS, turn);
    }
}

fn small(directory: &Path) -> RingOptions {
    RingOptions::new().directory(directory).capacity_bytes(4096).consumer_slots(2)
}

fn attach(directory: &Path, name: &str) -> Result<Consumer, RingError> {
    ConsumerOptions::new().directory(directory).name(name).attach("r")
}

fn verify(directory: &Path) -> gapless_shm::Snapshot {
    let inspector = Inspector::open_file(&ring_path(directory, "r").unwrap()).unwrap();
    let verified = inspector.verify(|_| ()).unwrap();
    assert!(verified.problems.is_empty(), "{:?}", verified.problems);
    let snapshot = inspector.snapshot();
    assert_eq!(snapshot.problem, None);
    snapshot
}

/// Polls once; a lap counts as read.
fn read(consumer: &mut Consumer, checker: &mut Checker) -> usize {
    match consumer.poll(64, |message| checker.check(&message)) {
        Ok(read) => read,
        Err(PollError::Lapped { missed, resumed_at }) => {
            assert_eq!(checker.next + missed, resumed_at, "the lap is counted exactly");
            checker.skip_to(resumed_at);
            1
        }
        Err(other) => panic!("{other}"),
    }
}

/// Prints a table line of times from a death to the next successful publish.
fn report(what: &str, times: &mut [Duration]) {
    times.sort();
    let at = |share: f64| times[(times.len() as f64 * share) as usize];
    let late = times.iter().filter(|time| **time >= Duration::from_millis(10)).count();
    let (p50, p99, max) = (at(0.5), at(0.99), times[times.len() - 1]);
    println!(
        "{what}: {} kills, p50 {p50:?}, p99 {p99:?}, max {max:?}, {late} of 10 ms or more",
        times.len()
    );
}

fn kill_producers(mode: Mode, capacity: u64, alignment: u64) {
    let name = format!("kill_producers {mode:?} {capacity} {alignment}");
    let mut rng = Rng::from_environment(&name);
    let directory = support::directory();
    let directory = directory.path();
    let options = RingOptions::new().directory(directory);
    let created =
        options.clone().capacity_bytes(capacity).alignment_bytes(alignment).mode(mode).create("r");
    drop(created.unwrap());
    let witness = Witness::open(directory);
    let mut consumer = attach(directory, "reader").unwrap();
    let mut checker = Checker::new();
    let mut buffer = Vec::new();
    let mut times = Vec::new();
    let share = kills().div_ceil(4);
    for round in 0..share {
        let mut child = Process::spawn("producer", directory, &[]);
        // One in eight dies while it starts, the others after some messages.
        if round % 8 != 7 {
            let target = checker.next + rng.below(3000);
            while checker.next < target || witness.get(DONE) < checker.next {
                assert!(child.is_running(), "the producer ended by itself");
                if read(&mut consumer, &mut checker) == 0 {
                    std::thread::yield_now();
                }
            }
        }
        pause(rng.below(2000));
        let killed = Instant::now();
        child.kill();
        child.wait();
        // A new producer carries on at once, with the next sequence number.
        let mut producer = options.attach("r").unwrap();
        let next = producer.next_sequence();
        let (done, intent) = (witness.get(DONE), witness.get(INTENT));
        assert!(next > done, "committed {done} is lost: next is {next}");
        assert!(next <= intent + 1, "{next} was never committed: {intent}");
        // Whoever drains the ring sees everything that was committed, and no batch in part.
        while read(&mut consumer, &mut checker) > 0 {}
        assert_eq!(checker.next, next);
        assert!(checker.is_between_batches(), "a batch was seen in part at {next}");
        step(&mut producer, &mut buffer, |last| witness.set(INTENT, last)).unwrap();
        times.push(killed.elapsed());
        witness.set(DONE, producer.next_sequence() - 1);
        verify(directory);
    }
    report(&name, &mut times);
    let snapshot = verify(directory);
    assert!(snapshot.producer_starts > share);
    assert!(times.last().is_some_and(|time| *time < PATIENCE));
}

#[test]
fn a_killed_producer_loses_nothing_lossless_small() {
    kill_producers(Mode::Lossless, 4096, 16);
}

#[test]
fn a_killed_producer_loses_nothing_lossless_large() {
    kill_producers(Mode::Lossless, 1 << 18, 64);
}

#[test]
fn a_killed_producer_loses_nothing_lossy_small() {
    kill_producers(Mode::Lossy, 4096, 64);
}

#[test]
fn a_killed_producer_loses_nothing_lossy_large() {
    kill_producers(Mode::Lossy, 1 << 18, 16);
}

#[test]
fn a_killed_consumer_holds_nobody_up() {
    let name = "kill_consumers";
    let mut rng = Rng::from_environment(name);
    let directory = support::directory();
    let directory = directory.path();
    let mut producer = small(directory).create("r").unwrap();
    let witness = Witness::open(directory);
    let mut other = attach(directory, "other").unwrap();
    let mut checker = Checker::new();
    let mut buffer = Vec::new();
    let (mut from_kill, mut from_death) = (Vec::new(), Vec::new());
    let mut publish = |producer: &mut gapless_shm::Producer| {
        let published = step(producer, &mut buffer, |_| ());
        while read(&mut other, &mut checker) > 0 {}
        match published {
            Ok(()) => true,
            Err(PublishError::Backpressure { .. }) => false,
            Err(error) => panic!("{error}"),
        }
    };
    for _ in 0..kills() {
        witness.set(PROGRESS, 0);
        let mut child = Process::spawn("consumer", directory, &[]);
        let target = producer.next_sequence() + rng.below(2000);
        while witness.get(PROGRESS) == 0 || producer.next_sequence() < target {
            assert!(child.is_running(), "the consumer ended by itself");
            if !publish(&mut producer) {
                std::thread::yield_now();
            }
        }
        pause(rng.below(2000));
        let killed = Instant::now();
        child.kill();
        // More than the ring holds: nothing but taking the dead consumer's slot back lets it pass.
        let end = producer.next_sequence() + 4096 / 16;
        let mut refused = None;
        let mut stalled = Duration::ZERO;
        let mut first = None;
        // When the kernel said that it is dead, and how long the next publish behind that took.
        let mut died = None;
        let mut continued = None;
        while producer.next_sequence() < end {
            if died.is_none() && !child.is_running() {
                died = Some(Instant::now());
            }
            if publish(&mut producer) {
                first.get_or_insert_with(|| killed.elapsed());
                continued = continued.or(died.map(|died| died.elapsed()));
                if let Some(since) = refused.take() {
                    stalled = stalled.max(Instant::elapsed(&since));
                }
            } else {
                let since = refused.get_or_insert_with(Instant::now);
                assert!(since.elapsed() < PATIENCE, "a dead consumer blocks the producer");
                pause(20); // yielding would measure the other processes' time slices
            }
        }
        // Either the wait right behind the kill or the later one for the slot: whichever was worse.
        from_kill.push(stalled.max(first.unwrap()));
        from_death.extend(continued);
        child.wait();
    }
    // The first includes what the kernel took to run, and end, the killed process.
    report(&format!("{name}, from the signal"), &mut from_kill);
    report(&format!("{name}, from the death"), &mut from_death);
    let snapshot = verify(directory);
    assert_eq!(snapshot.reclaimed, kills(), "each dead consumer's slot was taken back once");
    assert_eq!(snapshot.quarantined, 0);
    assert_eq!(snapshot.consumers.len(), 1);
}

#[test]
fn a_stopped_consumer_is_named_and_goes_on_without_a_gap() {
    let mut rng = Rng::from_environment("stop_consumers");
    let directory = support::directory();
    let directory = directory.path();
    let mut producer = small(directory).create("r").unwrap();
    let witness = Witness::open(directory);
    let mut child = Process::spawn("consumer", directory, &[]);
    witness.wait_for(PROGRESS, 1, &mut child);
    let mut buffer = Vec::new();
    for _ in 0..20 {
        let target = producer.next_sequence() + rng.below(500);
        while producer.next_sequence() < target {
            if step(&mut producer, &mut buffer, |_| ()).is_err() {
                std::thread::yield_now();
            }
        }
        child.stop();
        let slot = loop {
            match step(&mut producer, &mut buffer, |_| ()) {
                Ok(()) => {}
                Err(PublishError::Backpressure { slot }) => break slot,
                Err(other) => panic!("{other}"),
            }
        };
        let view = producer.slowest().expect("somebody is slow");
        assert_eq!((view.slot, view.name.as_str()), (slot as usize, "victim"));
        assert_eq!(view.pid, child.id());
        assert!(view.lag_messages > 0 && view.lag_bytes > 0);
        for _ in 0..100 {
            let refused = step(&mut producer, &mut buffer, |_| ());
            assert!(matches!(refused, Err(PublishError::Backpressure { slot: s }) if s == slot));
        }
        child.signal(Signal::SIGCONT);
        let head = producer.next_sequence();
        witness.wait_for(PROGRESS, head, &mut child);
    }
    drop(producer);
    assert!(child.wait().success(), "the consumer saw a gap");
    let snapshot = verify(directory);
    assert_eq!(snapshot.reclaimed, 0, "a stopped process is not a dead one");
    assert!(snapshot.backpressure >= 20 * 100);
}

#[test]
fn a_death_while_creating_leaves_nothing_that_blocks_the_next_start() {
    let mut rng = Rng::from_environment("kill_creators");
    let mut buffer = Vec::new();
    for _ in 0..kills() {
        let directory = support::directory();
        let directory = directory.path();
        let witness = Witness::open(directory);
        let mut child = Process::spawn("reopen", directory, &[]);
        witness.wait_for(TURNS, rng.below(20), &mut child);
        pause(rng.below(10_000));
        child.kill();
        child.wait();
        let names: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "witness")
            .collect();
        assert!(names.is_empty() || names == ["r.ring"], "left behind: {names:?}");
        let mut producer = small(directory).open("r").unwrap();
        let mut consumer = attach(directory, "reader").unwrap();
        let mut checker = Checker::new();
        step(&mut producer, &mut buffer, |_| ()).unwrap();
        while read(&mut consumer, &mut checker) > 0 {}
        assert_eq!(checker.next, producer.next_sequence());
        verify(directory);
        drop(producer);
        remove(directory, "r", false).unwrap();
        assert!(list(directory).unwrap().is_empty());
    }
}

#[test]
fn a_death_while_joining_costs_no_slot() {
    let mut rng = Rng::from_environment("kill_joiners");
    let directory = support::directory();
    let directory = directory.path();
    let options = small(directory).consumer_slots(1);
    let mut producer = options.create("r").unwrap();
    let witness = Witness::open(directory);
    let mut buffer = Vec::new();
    for _ in 0..kills() {
        witness.set(TURNS, 0);
        let mut child = Process::spawn("rejoin", directory, &[]);
        let wanted = rng.below(20);
        while witness.get(TURNS) < wanted {
            assert!(child.is_running(), "the joiner ended by itself");
            // The producer runs meanwhile, and is refused only while the joiner sits still.
            if step(&mut producer, &mut buffer, |_| ()).is_err() {
                std::thread::yield_now();
            }
        }
        pause(rng.below(10_000));
        child.kill();
        child.wait();
        let mut consumer = attach(directory, "next").expect("the dead joiner's slot");
        let mut checker = Checker::from(consumer.next_sequence());
        while read(&mut consumer, &mut checker) > 0 {}
        assert_eq!(checker.next, producer.next_sequence());
        drop(consumer);
        for _ in 0..300 {
            step(&mut producer, &mut buffer, |_| ()).expect("nobody holds the producer up");
        }
    }
    let snapshot = verify(directory);
    assert_eq!((snapshot.consumers.len(), snapshot.quarantined), (0, 0));
}

#[test]
fn a_second_producer_in_another_process_is_refused_until_the_first_dies() {
    let directory = support::directory();
    let directory = directory.path();
    drop(small(directory).create("r").unwrap());
    let witness = Witness::open(directory);
    let mut child = Process::spawn("producer", directory, &[]);
    witness.wait_for(DONE, 1, &mut child);
    for _ in 0..100 {
        match small(directory).open("r") {
            Err(RingError::ProducerAlive { pid, .. }) => assert_eq!(pid, child.id()),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("two producers"),
        }
    }
    child.kill();
    child.wait();
    let observer = ConsumerOptions::new().directory(directory).observer(true);
    assert_eq!(observer.attach("r").unwrap().producer_status(), ProducerStatus::Dead);
    assert!(small(directory).open("r").unwrap().next_sequence() > witness.get(DONE));
    let start = ConsumerOptions::new().directory(directory).start(Start::Now);
    start.attach("r").unwrap();
}
