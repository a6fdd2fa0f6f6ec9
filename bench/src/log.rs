//! Our log: written, read, searched, opened after a crash, and joined. What suite `log` measures.

mod append;
mod library;
mod replay;
mod restart;
mod seek;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use gapless::log::{LogOptions, LogWriter, Recovery};

pub(crate) use append::Append;
pub(crate) use replay::Replay;
pub(crate) use restart::{Doomed, Restart};
pub(crate) use seek::{Key, Seek};

use crate::partner::pin;

/// The session of every log.
const SESSION: u64 = 35;
/// Messages between two looks at the clock, by writers: what a recorder takes from a ring at once.
const BATCH: u64 = 256;

/// Opens a log for writing. Its own thread, which syncs and makes files, gets the core `beside`: it
/// would else have that of the thread that opens.
fn open(options: &LogOptions, dir: &Path, beside: usize) -> Result<(LogWriter, Option<Recovery>)> {
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| {
            pin(beside);
            options.open(dir)
        });
        let opened = opening.join().map_err(|_| anyhow!("the opening thread panicked"))?;
        opened.context("open the log")
    })
}

/// The time as logs keep it.
fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
