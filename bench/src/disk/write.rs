//! `floor/write/N`, `floor/write-sync/N`, `floor/write-sustained/N`: bytes of records of N bytes,
//! written one after another in every way that may be the best one here; the best one counts.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use memmap2::MmapMut;

use super::segments::{By, Segments};
use super::{core_time, gigabytes_per_s, record_bytes};
use crate::control::Word;
use crate::partner::pin;
use crate::place::Place;
use crate::scenario::{Outcome, Scenario, Session};

/// From the end of one `fdatasync` to the beginning of the next.
const SYNC_EVERY: Duration = Duration::from_millis(10);
/// A way that takes longer is broken off: the rate is known by then.
const PATIENCE: Duration = Duration::from_secs(6);
/// Sustained writing goes on for as many bursts: more than the system lets become dirty.
const SUSTAINED_BURSTS: u64 = 4;

/// How much is written, and what counts as done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Burst {
    /// As much as memory takes; done when it is in the page cache.
    Cached,
    /// As much, with `fdatasync` every 10 ms; done when the last of them is.
    Synced,
    /// More than memory takes; done when it is in the page cache or on the disk.
    Sustained,
}

impl Burst {
    /// Bytes written.
    pub(crate) fn bytes(self, place: &Place) -> u64 {
        match self {
            Self::Cached => place.burst_bytes,
            Self::Synced => place.burst_bytes / 2,
            Self::Sustained => place.burst_bytes * SUSTAINED_BURSTS,
        }
    }

    /// Why this cannot be had here.
    pub(crate) fn obstacle(self, place: &Place) -> Option<String> {
        if self == Self::Sustained && place.quick {
            return Some("takes longer than a quick measurement may".into());
        }
        // Segments are allocated as a whole.
        place.shortage(self.bytes(place) + (1 << 30))
    }
}

/// Writes the bytes of records of so many bytes of payload.
pub(crate) struct Write {
    pub(crate) payload_bytes: usize,
    pub(crate) burst: Burst,
}

/// Who calls `fdatasync`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Syncing {
    Nobody,
    /// The writer.
    Inline,
    /// A thread on the other core.
    Beside,
}

/// One way to write.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    by: By,
    chunk_bytes: usize,
    syncing: Syncing,
}

const fn way(name: &'static str, by: By, chunk_bytes: usize, syncing: Syncing) -> Way {
    Way { name, by, chunk_bytes, syncing }
}

const CACHED: [Way; 5] = [
    way("write_256k_gbps", By::Call, 256 << 10, Syncing::Nobody),
    way("write_512k_gbps", By::Call, 512 << 10, Syncing::Nobody),
    way("write_1m_gbps", By::Call, 1 << 20, Syncing::Nobody),
    way("mapping_gbps", By::Mapping, 256 << 10, Syncing::Nobody),
    way("direct_1m_gbps", By::Direct, 1 << 20, Syncing::Nobody),
];
/// In a quick measurement: the others are far behind wherever this was tried.
const CACHED_QUICK: [Way; 3] = [CACHED[0], CACHED[1], CACHED[2]];
const SYNCED: [Way; 3] = [
    way("inline_256k_gbps", By::Call, 256 << 10, Syncing::Inline),
    way("beside_256k_gbps", By::Call, 256 << 10, Syncing::Beside),
    way("direct_1m_gbps", By::Direct, 1 << 20, Syncing::Inline),
];
const SYNCED_QUICK: [Way; 2] = [SYNCED[0], SYNCED[1]];
const SUSTAINED: [Way; 3] = [CACHED[0], CACHED[2], CACHED[4]];

/// What one way has done.
#[derive(Clone, Copy)]
struct Done {
    bytes: u64,
    took: Duration,
    /// Time that the writer had its core.
    core: Duration,
    syncs: u64,
}

impl Done {
    fn gigabytes_per_s(&self) -> f64 {
        gigabytes_per_s(self.bytes, self.took)
    }
}

/// Files not known to be on the disk, for the thread that brings them there.
#[derive(Default)]
struct Pending {
    files: Mutex<Vec<Arc<File>>>,
    syncs: AtomicU64,
    is_over: AtomicBool,
}

impl Pending {
    /// Brings all there is to the disk; all but the last file are complete then.
    fn sync(&self) -> Result<()> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for file in &files {
            file.sync_data().context("fdatasync")?;
        }
        let complete = files.len().saturating_sub(1);
        self.files.lock().unwrap_or_else(PoisonError::into_inner).drain(..complete);
        // A count for the record; nothing is read behind it.
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn begin(&self, file: Option<&Arc<File>>) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).extend(file.cloned());
    }

    /// The life of a thread that syncs beside the writer.
    fn keep_syncing(&self, core: usize) -> Result<()> {
        pin(core);
        // Only ends the loop; what was written is synced once more by the writer.
        while !self.is_over.load(Ordering::Relaxed) {
            self.sync()?;
            std::thread::sleep(SYNC_EVERY);
        }
        Ok(())
    }
}

impl Way {
    fn run(self, session: &Session<'_>, bytes: u64) -> Result<Done> {
        let place = session.place()?;
        let scratch = place.scratch()?;
        let pending = Pending::default();
        let done = std::thread::scope(|scope| {
            let beside = || pending.keep_syncing(session.beside);
            let syncer = (self.syncing == Syncing::Beside).then(|| scope.spawn(beside));
            let (from, core_from) = (Instant::now(), core_time());
            let written = self.write(Segments::new(scratch.path(), self.by), bytes, &pending);
            pending.is_over.store(true, Ordering::Relaxed);
            if let Some(syncer) = syncer {
                syncer.join().expect("the syncing thread does not panic")?;
            }
            let (bytes, core) = (written?, core_time() - core_from);
            if self.syncing != Syncing::Nobody {
                pending.sync()?;
            }
            let syncs = pending.syncs.load(Ordering::Relaxed);
            anyhow::Ok(Done { bytes, took: from.elapsed(), core, syncs })
        })?;
        // A file that is still open is still written.
        drop(pending);
        scratch.clear()?;
        Ok(done)
    }

    /// Writes that many bytes, or as many as patience allows.
    fn write(self, mut segments: Segments, bytes: u64, pending: &Pending) -> Result<u64> {
        // Aligned to a page, as writing past the page cache asks for.
        let mut chunk = MmapMut::map_anon(self.chunk_bytes).context("a buffer")?;
        chunk.fill(0x5a);
        let from = Instant::now();
        let (mut written, mut synced) = (0, from);
        while written < bytes && from.elapsed() < PATIENCE {
            let begins = segments.is_full();
            segments.append(&chunk)?;
            written += chunk.len() as u64;
            if begins {
                pending.begin(segments.file());
            }
            if self.syncing == Syncing::Inline && synced.elapsed() >= SYNC_EVERY {
                pending.sync()?;
                synced = Instant::now();
            }
        }
        Ok(written)
    }
}

/// Whether the file system can be written to past its page cache.
fn can_write_directly(place: &Place) -> Result<bool> {
    let scratch = place.scratch()?;
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).custom_flags(libc::O_DIRECT);
    Ok(options.open(scratch.path().join("direct")).is_ok())
}

impl Scenario for Write {
    fn obstacle_at(&self, place: &Place) -> Option<String> {
        self.burst.obstacle(place)
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let place = session.place()?;
        let bytes = self.burst.bytes(place);
        let ways: &[Way] = match self.burst {
            Burst::Cached if place.quick => &CACHED_QUICK,
            Burst::Cached => &CACHED,
            Burst::Synced if place.quick => &SYNCED_QUICK,
            Burst::Synced => &SYNCED,
            Burst::Sustained => &SUSTAINED,
        };
        let mut outcome = Outcome::default();
        let mut best: Option<Done> = None;
        for way in ways {
            if way.by == By::Direct && !can_write_directly(place)? {
                continue;
            }
            let done = way.run(session, bytes).with_context(|| way.name.to_owned())?;
            outcome = outcome.with_detail(way.name, done.gigabytes_per_s());
            if best.is_none_or(|best| done.gigabytes_per_s() > best.gigabytes_per_s()) {
                best = Some(done);
            }
        }
        session.control.set(Word::Stop, 1);
        let best = best.context("there is a way")?;
        let messages = best.bytes / record_bytes(self.payload_bytes) as u64;
        let outcome = outcome
            .with_rate(session.clock, messages, session.clock.to_ticks(best.took))
            .with_detail("gigabytes_per_s", best.gigabytes_per_s())
            .with_detail("gigabytes_per_core_s", gigabytes_per_s(best.bytes, best.core))
            .with_detail("written_bytes", best.bytes as f64);
        if best.syncs == 0 {
            return Ok(outcome);
        }
        let syncs_per_s = best.syncs as f64 / best.took.as_secs_f64();
        Ok(outcome.with_detail("syncs_per_s", syncs_per_s))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.doze_until(Word::Stop, 1)
    }
}
