//! The wire protocol on a bad network: fresh seeds at each run, and every seed that ever failed.
//!
//! `GAPLESS_SIM_SEED=N cargo test --test simulation` plays one seed; `GAPLESS_SIM_SEEDS=N` says how
//! many fresh ones to play (1,000).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use gapless::protocol::sim::{Report, Sabotage, Scenario, run};

/// Every seed that ever failed, and why.
const FAILED: &str = include_str!("simulation_seeds.txt");

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn play(seed: u64) -> Report {
    // Also where it panics: the seed is what one needs.
    let outcome = std::panic::catch_unwind(|| run(Scenario::random(seed)));
    match outcome {
        Ok(Ok(report)) => report,
        Ok(Err(violation)) => panic!("GAPLESS_SIM_SEED={seed}\n{violation}"),
        Err(panic) => {
            eprintln!("GAPLESS_SIM_SEED={seed} panicked: {:#?}", Scenario::random(seed));
            std::panic::resume_unwind(panic)
        }
    }
}

#[test]
fn fresh_seeds() {
    if let Some(seed) = variable("GAPLESS_SIM_SEED") {
        println!("{:#?}", Scenario::random(seed));
        println!("{:?}", play(seed));
        return;
    }
    let count = variable("GAPLESS_SIM_SEEDS").unwrap_or(1000);
    let start = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    println!("seeds {start} to {}", start + count - 1);
    let (next, datagrams) = (AtomicU64::new(0), AtomicU64::new(0));
    let (messages, losses) = (AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let work = || {
        let mut busy = 0.0;
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return busy;
            }
            let began = Instant::now();
            let report = play(start + n);
            busy += began.elapsed().as_secs_f64();
            datagrams.fetch_add(report.datagrams, Ordering::Relaxed);
            messages.fetch_add(report.messages, Ordering::Relaxed);
            losses.fetch_add(report.losses, Ordering::Relaxed);
        }
    };
    let busy: f64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a seed failed: see above")).sum()
    });
    let (datagrams, messages) = (datagrams.into_inner(), messages.into_inner());
    println!(
        "{count} seeds in {:.1} s: {datagrams} datagrams, {:.0} a second of a thread's time; \
         {messages} messages, {} losses told",
        began.elapsed().as_secs_f64(),
        datagrams as f64 / busy,
        losses.into_inner()
    );
    assert!(messages > count * 10, "the simulation does nothing");
}

#[test]
fn seeds_that_failed_once() {
    let seeds = FAILED.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in seeds {
        let seed = line.split_whitespace().next().unwrap();
        play(seed.parse().expect("each line begins with a seed"));
    }
}

#[test]
fn a_seed_gives_the_same_events_again() {
    let reports: Vec<_> = (0..10).map(play).collect();
    assert_eq!(reports, (0..10).map(play).collect::<Vec<_>>());
    assert!(reports.windows(2).all(|pair| pair[0].digest != pair[1].digest));
}

#[test]
fn every_mistake_is_found() {
    let mistakes = [
        (Sabotage::Swallow, "expected"),
        (Sabotage::Repeat, "expected"),
        (Sabotage::Alter, "differs from what was published"),
        (Sabotage::Invent, "is lost and still held"),
        (Sabotage::Stop, "not all catch up"),
        (Sabotage::EndTwice, "expected"),
    ];
    for (sabotage, words) in mistakes {
        let mut found = 0;
        for seed in 0..4 {
            // Nobody forges here, so that every message is judged.
            let scenario =
                Scenario { sabotage: Some(sabotage), hostile_ns: 0, ..Scenario::random(seed) };
            if let Err(violation) = run(scenario) {
                assert!(violation.what.contains(words), "{sabotage:?}: {violation}");
                found += 1;
            }
        }
        assert!(found >= 2, "{sabotage:?} was found {found} times of 4");
    }
}
