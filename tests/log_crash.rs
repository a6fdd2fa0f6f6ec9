//! A log on a disk that fails: the process killed and the power cut at any call, over and over.
//!
//! `GAPLESS_LOG_SEED=N cargo test --test log_crash` plays one seed; `GAPLESS_LOG_SEEDS=N` says how
//! many to play (1,000), from `GAPLESS_LOG_START` (1) on.

#[path = "log_proof/crash.rs"]
mod crash;
mod log_proof;
#[path = "log_proof/saboteur.rs"]
mod saboteur;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crash::{Report, run};
use log_proof::variable;
use saboteur::Mistake;

/// Every seed that ever failed, and why.
const FAILED: &str = include_str!("log_seeds.txt");

fn play(seed: u64) -> Report {
    match std::panic::catch_unwind(|| run(seed, None)) {
        Ok(Ok(report)) => report,
        Ok(Err(violation)) => panic!("GAPLESS_LOG_SEED={seed}: {violation}"),
        Err(panic) => {
            eprintln!("GAPLESS_LOG_SEED={seed} panicked");
            std::panic::resume_unwind(panic)
        }
    }
}

#[test]
fn many_seeds() {
    if let Some(seed) = variable("GAPLESS_LOG_SEED") {
        println!("{:?}", play(seed));
        return;
    }
    let count = variable("GAPLESS_LOG_SEEDS").unwrap_or(1000);
    let start = variable("GAPLESS_LOG_START").unwrap_or(1);
    println!("seeds {start} to {}", start + count - 1);
    let (next, began) = (AtomicU64::new(0), Instant::now());
    let work = || {
        let mut sum = Report::default();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= count {
                return sum;
            }
            sum.add(&play(start + n));
        }
    };
    let mut sum = Report::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        for thread in threads {
            sum.add(&thread.join().expect("a seed failed: see above"));
        }
    });
    println!("{count} seeds in {:.1} s: {sum:?}", began.elapsed().as_secs_f64());
    assert!(sum.messages > count * 100 && sum.kills > count / 2 && sum.outages > count / 2);
    assert!(sum.cuts > count / 20, "nothing is ever torn");
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
    assert!(reports.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn every_mistake_is_found() {
    for mistake in Mistake::ALL {
        let found = (0..60).find_map(|seed| run(seed, Some(mistake)).err());
        println!("{mistake:?}: {found:?}");
        assert!(found.is_some(), "{mistake:?} was not found in 60 seeds");
    }
}
