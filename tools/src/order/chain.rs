//! A chain of hashes over the entries of a stream, kept in a file: each covers its entry and all
//! before it, so that an entry which is changed, taken out or put in later is found and named.
//!
//! The file is little-endian: the magic `GAPCHAIN` (8 bytes), the version 1 (4), 4 zeroes, the
//! sequence number of the first entry (8); then, for each entry in order, the SHA-256 (32) of the
//! hash before it (of the first: the SHA-256 of the header) and of the entry's bytes in their one
//! form. Whoever notes the last hash elsewhere notices if somebody makes the file anew.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use gapless::order::Entry;
use gapless::sequencer::Record;
use sha2::{Digest, Sha256};

const MAGIC: &[u8; 8] = b"GAPCHAIN";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 24;
const HASH_BYTES: usize = 32;

type Hash = [u8; HASH_BYTES];

/// The chain of a file: what it has is compared, what it does not have yet is appended.
pub(crate) struct Chain {
    file: BufWriter<File>,
    /// Sequence number of the first entry; 0 if there is none yet.
    first: u64,
    known: Vec<Hash>,
    last: Hash,
    next: u64,
    /// Entries that were compared, and those that were appended.
    pub(crate) compared: u64,
    pub(crate) appended: u64,
    /// What was found to be wrong.
    pub(crate) wrong: Vec<String>,
    bytes: Vec<u8>,
}

fn header(first: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..].copy_from_slice(&first.to_le_bytes());
    header
}

impl Chain {
    /// Opens a file, or begins one.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let named = || path.display().to_string();
        let mut file = OpenOptions::new();
        let file = file.read(true).append(true).create(true).open(path).with_context(named)?;
        let bytes = std::fs::read(path).with_context(named)?;
        let mut chain = Self {
            file: BufWriter::new(file),
            first: 0,
            known: Vec::new(),
            last: [0; HASH_BYTES],
            next: 0,
            compared: 0,
            appended: 0,
            wrong: Vec::new(),
            bytes: Vec::new(),
        };
        if bytes.is_empty() {
            return Ok(chain);
        }
        let Some((head, hashes)) = bytes.split_at_checked(HEADER_BYTES) else {
            bail!("{}: shorter than the header of a chain", named());
        };
        let first = head[16..].try_into().map_or(0, u64::from_le_bytes);
        ensure!(head == header(first), "{}: no chain of version {VERSION}", named());
        let (hashes, torn) = hashes.as_chunks();
        ensure!(torn.is_empty(), "{}: its last hash is torn: cut {} bytes", named(), torn.len());
        chain.known = hashes.to_vec();
        chain.begin(first);
        Ok(chain)
    }

    fn begin(&mut self, first: u64) {
        (self.first, self.next) = (first, first);
        self.last = Sha256::digest(header(first)).into();
    }

    /// Takes the next entry of the stream.
    pub(crate) fn take(&mut self, record: &Record<'_>) -> anyhow::Result<()> {
        let sequence = record.sequence;
        if self.first == 0 {
            self.file.write_all(&header(sequence)).context("write the chain")?;
            self.begin(sequence);
        }
        if sequence < self.next {
            return Ok(()); // in front of the chain
        }
        if sequence > self.next {
            self.skip(sequence);
        }
        self.bytes.clear();
        Entry::canonical(record, &mut self.bytes);
        let hash: Hash =
            Sha256::new().chain_update(self.last).chain_update(&self.bytes).finalize().into();
        self.next += 1;
        match self.known.get((sequence - self.first) as usize) {
            Some(known) => {
                self.compared += 1;
                if *known != hash {
                    self.wrong.push(format!("entry #{sequence} is not the one that was chained"));
                }
                self.last = *known; // so that others behind it are judged by themselves
            }
            None if self.wrong.is_empty() => {
                self.file.write_all(&hash).context("write the chain")?;
                self.appended += 1;
                self.last = hash;
            }
            None => {} // nothing is built on what is wrong
        }
        Ok(())
    }

    /// Entries in front of this one did not come.
    fn skip(&mut self, sequence: u64) {
        let (from, until) = (self.next, sequence - 1);
        let which =
            if from == until { format!("#{from} is") } else { format!("#{from} to #{until} are") };
        self.wrong.push(format!("{which} missing"));
        self.next = sequence;
        if let Some(&known) = self.known.get((until - self.first) as usize) {
            self.last = known;
        }
    }

    /// The stream ends here. Says the last entry of the chain, and its hash.
    pub(crate) fn finish(&mut self) -> anyhow::Result<(u64, String)> {
        let end = self.first + self.known.len() as u64;
        if self.next < end {
            self.skip(end);
        }
        self.file.flush().context("write the chain")?;
        let mut text = String::with_capacity(2 * HASH_BYTES);
        for byte in self.last {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Ok((self.next.saturating_sub(1), text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::order::names::tests::record;
    use gapless::sequencer::Kind;

    /// Takes these entries: numbers and payloads. Says what is wrong, and the last hash.
    fn chained(path: &Path, entries: &[(u64, &[u8])]) -> (Vec<String>, u64, String) {
        let mut chain = Chain::open(path).expect("a chain");
        for &(sequence, payload) in entries {
            chain.take(&record(sequence, Kind::Event, 1, payload)).expect("written");
        }
        let (_, hash) = chain.finish().expect("written");
        (chain.wrong.clone(), chain.appended, hash)
    }

    #[test]
    fn what_was_changed_taken_out_or_put_in_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("chain");
        let entries: [(u64, &[u8]); 4] = [(5, b"a"), (6, b"b"), (7, b"c"), (8, b"d")];
        let (wrong, appended, half) = chained(&path, &entries[..2]);
        assert_eq!((wrong.len(), appended), (0, 2));
        let (wrong, appended, whole) = chained(&path, &entries);
        assert_eq!((wrong.len(), appended), (0, 2));
        assert_ne!(half, whole);
        assert_eq!(chained(&path, &entries), (vec![], 0, whole.clone()));
        let mut altered = entries;
        altered[1].1 = b"B";
        let (wrong, _, last) = chained(&path, &altered);
        assert_eq!((wrong, last), (vec!["entry #6 is not the one that was chained".into()], whole));
        let without = [entries[0], entries[2], entries[3]];
        assert_eq!(chained(&path, &without).0, ["#6 is missing"]);
        assert_eq!(chained(&path, &entries[..2]).0, ["#7 to #8 are missing"]);
        let more = [&altered[..], &[(9, b"e")]].concat();
        assert_eq!(chained(&path, &more).1, 0, "nothing is appended behind what is wrong");
        std::fs::write(&path, b"nonsense that is no chain").expect("written");
        assert!(Chain::open(&path).is_err());
    }
}
