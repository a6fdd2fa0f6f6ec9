//! A log and a plain model of it: whatever is done, what is read is what the model says.
//!
//! `GAPLESS_LOG_SEED=N cargo test --test log_model` plays one seed; `GAPLESS_LOG_SEEDS=N` says how
//! many to play (200 of either), from `GAPLESS_LOG_START` (1) on.

#[path = "log_proof/course.rs"]
mod course;
#[path = "log_proof/inquiry.rs"]
mod inquiry;
mod log_proof;
#[path = "log_proof/model.rs"]
mod model;

use std::panic::{catch_unwind, resume_unwind};
use std::path::Path;

use gapless::log::{FaultyDisk, FileSystem};

use course::{Report, run};
use log_proof::variable;

fn play(name: &str, run: impl Fn(u64) -> Report + std::panic::RefUnwindSafe) {
    let seeds = match variable("GAPLESS_LOG_SEED") {
        Some(seed) => seed..=seed,
        None => {
            let start = variable("GAPLESS_LOG_START").unwrap_or(1);
            start..=start + variable("GAPLESS_LOG_SEEDS").unwrap_or(200) - 1
        }
    };
    let (mut sum, many) = (Report::default(), seeds.end() - seeds.start() >= 50);
    println!("{name}: {seeds:?}");
    for seed in seeds {
        sum.add(catch_unwind(|| run(seed)).unwrap_or_else(|panic| {
            eprintln!("{name}: GAPLESS_LOG_SEED={seed} failed");
            resume_unwind(panic)
        }));
    }
    println!("{name}: {sum:?}");
    assert!(!many || sum.is_full(), "something never happened: {sum:?}");
}

#[test]
fn on_real_files() {
    play("on_real_files", |seed| {
        let dir = tempfile::tempdir().unwrap();
        run(seed, FileSystem::default(), &dir.path().join("log"), true)
    });
}

#[test]
fn on_a_disk_in_memory() {
    play("on_a_disk_in_memory", |seed| {
        let mut report = run(seed, FaultyDisk::new(seed), Path::new("/log"), false);
        report.replays += 1; // an address names real files
        report
    });
}
