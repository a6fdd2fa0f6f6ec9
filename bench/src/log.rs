//! Our log: written, read, searched, opened after a crash, and joined. What suite `log` measures.

mod append;
mod join;
mod library;
mod publish;
mod record;
mod replay;
mod restart;
mod seek;

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

pub(crate) use append::Append;
pub(crate) use join::Join;
pub(crate) use publish::{Attached, Publish};
pub(crate) use record::Record;
pub(crate) use replay::Replay;
pub(crate) use restart::{Doomed, Restart};
pub(crate) use seek::{Heat, Key, Seek};

/// The session of every log.
const SESSION: u64 = 35;
/// Messages between two looks at the clock, by writers: what a recorder takes from a ring at once.
const BATCH: u64 = 256;

/// Does something with both cores, so that threads which are started by it have both: a log's own
/// thread would else stay on the core of whoever opens it. The caller is on its own one core
/// afterwards.
fn unpinned<T>(beside: usize, open: impl FnOnce() -> T) -> Result<T> {
    let this = Pid::from_raw(0);
    let own = sched_getaffinity(this).context("ask for this thread's core")?;
    let mut both = own;
    both.set(beside).context("name the other core")?;
    // Not allowed, perhaps: the threads are then where this one is.
    let _ = sched_setaffinity(this, &both);
    let opened = open();
    let _ = sched_setaffinity(this, &own);
    Ok(opened)
}

/// The time as logs keep it.
fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
