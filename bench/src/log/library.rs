//! Logs that several runs share: written once a measurement, and on the disk before anything is
//! timed.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Context, Result};
use gapless::Flags;
use gapless::log::LogOptions;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use super::{BATCH, SESSION};
use crate::disk::record_bytes;
use crate::place::Place;

/// Time of message 0, ns since the Unix epoch, and from each message to the next.
const BEGIN_NS: u64 = 1_700_000_000_000_000_000;
const STEP_NS: u64 = 1_000;
/// How the names of a log's indexes end.
pub(super) const INDEX: &str = ".idx";

/// One such log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Library {
    pub(super) name: &'static str,
    pub(super) payload_bytes: usize,
    /// Bytes of all records.
    pub(super) bytes: u64,
}

impl Library {
    /// The large one, of 64 B messages: searched, and opened after crashes.
    pub(super) fn large(place: &Place) -> Self {
        Self { name: "large", payload_bytes: 64, bytes: place.library_bytes() }
    }

    pub(super) fn dir(&self, place: &Place) -> PathBuf {
        place.dir.join(self.name)
    }

    /// Messages in it.
    pub(super) fn messages(&self) -> u64 {
        self.bytes / record_bytes(self.payload_bytes) as u64
    }

    /// Time of a message.
    pub(super) fn time_of(sequence: u64) -> u64 {
        BEGIN_NS + sequence * STEP_NS
    }

    /// Why it cannot be written; nothing if it can, or has been.
    pub(super) fn obstacle(&self, place: &Place) -> Option<String> {
        if self.dir(place).exists() { None } else { place.shortage(self.bytes + (1 << 30)) }
    }

    /// Writes it, unless it is there. Each message begins with its sequence number.
    pub(super) fn make(&self, place: &Place) -> Result<()> {
        let dir = self.dir(place);
        if dir.exists() {
            return Ok(());
        }
        let draft = dir.with_extension("draft");
        let (mut writer, _) = LogOptions::new().open(&draft).context("make a log")?;
        writer.begin(SESSION, 1).context("begin")?;
        let mut payload = vec![0x5a; self.payload_bytes];
        for sequence in 1..=self.messages() {
            payload[..8].copy_from_slice(&sequence.to_ne_bytes());
            let at = Self::time_of(sequence);
            writer.append(sequence, &payload, Flags::WHOLE, at).context("append")?;
            if sequence.is_multiple_of(BATCH) {
                writer.tick(at).context("tick")?;
            }
        }
        writer.sync().context("sync")?;
        drop(writer);
        fs::rename(&draft, &dir).context("name the log")?;
        place.settle()
    }

    /// Takes the bytes of its files whose names end so out of the page cache, as far as they are on
    /// the disk and nobody maps them.
    pub(super) fn forget(&self, place: &Place, suffix: &str) -> Result<()> {
        for entry in fs::read_dir(self.dir(place)).context("list the log")?.flatten() {
            if !entry.file_name().to_string_lossy().ends_with(suffix) {
                continue;
            }
            let file = File::open(entry.path()).context("open a file of the log")?;
            posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)
                .context("empty the page cache")?;
        }
        Ok(())
    }
}
