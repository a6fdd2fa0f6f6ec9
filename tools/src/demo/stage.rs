//! What every act needs: a private directory, a plan of cores, and the flag that says to stop.

use std::path::Path;

use anyhow::Context;
use gapless::shm::{RingOptions, remove};
use gapless::{TscClock, available_cores};
use serde::Serialize;
use tempfile::TempDir;

use super::probe;
use crate::stop::Stop;

/// Where the acts are played. The directory goes when this is dropped.
pub(super) struct Stage {
    directory: TempDir,
    pub(super) stop: Stop,
    /// Cores that this process may use.
    pub(super) cores: Vec<usize>,
    pub(super) roles: Roles,
    /// What the number of cores means for the figures.
    pub(super) note: &'static str,
    /// Round trip of a cache line between the publisher's core and the first subscriber's.
    pub(super) core_to_core_ns: Option<u64>,
    /// Load average of the last minute.
    pub(super) load_average: Option<f64>,
}

/// Who runs on which core.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Roles {
    pub(super) publisher: Option<usize>,
    pub(super) subscribers: [Option<usize>; 2],
    /// Whether the publisher has a core of its own.
    pub(super) publisher_alone: bool,
    /// Whether each subscriber has a core of its own.
    pub(super) subscribers_alone: bool,
}

const NOTE_THREE: &str = "each process has a core of its own";
const NOTE_TWO: &str = "two cores: both subscribers share one and take turns, so latency includes \
                        waiting for each other, and the rate is half of what one would have";
const NOTE_ONE: &str = "one core: all three processes take turns, so latency and rate are the \
                        scheduler's, not the ring's; order and digests count all the same";
const NOTE_NONE: &str = "the system does not tell which cores there are: nothing is pinned, and \
                         latency and rate may be the scheduler's";

impl Roles {
    fn cast(cores: &[usize]) -> (Self, &'static str) {
        let roles = |publisher, subscribers, publisher_alone, subscribers_alone| Self {
            publisher,
            subscribers,
            publisher_alone,
            subscribers_alone,
        };
        match *cores {
            [] => (roles(None, [None, None], false, false), NOTE_NONE),
            [a] => (roles(Some(a), [Some(a); 2], false, false), NOTE_ONE),
            [a, b] => (roles(Some(a), [Some(b); 2], true, false), NOTE_TWO),
            [a, b, c, ..] => (roles(Some(a), [Some(b), Some(c)], true, true), NOTE_THREE),
        }
    }
}

impl Stage {
    /// Makes a private directory, in `parent` or in shared memory if there is any, and looks at
    /// the cores.
    pub(super) fn set(stop: Stop, parent: Option<&Path>) -> anyhow::Result<Self> {
        let directory = match parent {
            Some(parent) => private_directory(parent),
            None => private_directory(Path::new("/dev/shm"))
                .or_else(|_| private_directory(&std::env::temp_dir())),
        }?;
        let cores = available_cores();
        let (roles, note) = Roles::cast(&cores);
        let core_to_core_ns = match (roles.publisher, roles.subscribers[0]) {
            (Some(a), Some(b)) if a != b => probe::round_trip_ns(&TscClock::new(), a, b),
            _ => None,
        };
        let load_average = probe::load_average();
        Ok(Self { directory, stop, cores, roles, note, core_to_core_ns, load_average })
    }

    /// Whether other work is likely to show in the figures.
    pub(super) fn is_busy(&self) -> bool {
        self.load_average.is_some_and(|load| load > 0.5 * self.cores.len() as f64)
    }

    /// Directory of the rings.
    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }
}

/// A directory of our own in `parent`, which has room for a ring.
fn private_directory(parent: &Path) -> anyhow::Result<TempDir> {
    let directory = tempfile::Builder::new()
        .prefix("gapless-demo-")
        .tempdir_in(parent)
        .context("make a directory for the demo's ring")?;
    RingOptions::new().directory(directory.path()).create("trial")?;
    remove(directory.path(), "trial", false)?;
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_gets_a_core_as_far_as_they_go() {
        let (roles, note) = Roles::cast(&[4, 5, 6, 7]);
        assert_eq!((roles.publisher, roles.subscribers), (Some(4), [Some(5), Some(6)]));
        assert!(roles.subscribers_alone && note == NOTE_THREE);
        let (roles, note) = Roles::cast(&[0, 1]);
        assert_eq!((roles.publisher, roles.subscribers), (Some(0), [Some(1), Some(1)]));
        assert!(roles.publisher_alone && !roles.subscribers_alone && note == NOTE_TWO);
        let (roles, note) = Roles::cast(&[3]);
        assert_eq!((roles.publisher, roles.subscribers), (Some(3), [Some(3), Some(3)]));
        assert!(!roles.publisher_alone && note == NOTE_ONE);
        assert_eq!(Roles::cast(&[]).0.publisher, None);
    }
}
