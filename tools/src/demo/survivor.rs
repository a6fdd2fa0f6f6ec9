//! A subscribing process of the demo that keeps what it reads in a file, and can be killed at any
//! time: whoever is started behind it goes on from the last whole message in the file.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use gapless::shm::ProducerStatus;
use gapless::{Address, PollError, Subscriber};

use super::ring::Told;
use super::saga::Successor;
use super::troupe;
use crate::digest::Digest;
use crate::exit::Outcome;
use crate::records::{Prefix, RecordReader};

/// Messages of one poll.
const POLL_LIMIT: u64 = 256;
/// Empty polls between two questions about the publisher, each of which is a system call.
const EMPTY_POLLS: u32 = 1_000;
const PREFIX: Prefix = Prefix::Be32;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Without options that say where to begin.
    address: String,
    #[arg(long)]
    file: PathBuf,
    /// Say so when so many messages are read.
    #[arg(long)]
    tell_at: Option<u64>,
    /// Read no further than this: whoever should end this process may be late.
    #[arg(long, requires = "tell_at")]
    hold_at: Option<u64>,
}

/// What a file has: whole messages, their digest, and bytes up to the last one's end.
pub(super) struct Kept {
    pub(super) messages: u64,
    pub(super) digest: Digest,
    bytes: u64,
}

/// Reads what a predecessor has left; what it was in the middle of writing does not count.
pub(super) fn read_kept(path: &Path) -> anyhow::Result<Kept> {
    let mut kept = Kept { messages: 0, digest: Digest::new(), bytes: 0 };
    let Ok(file) = File::open(path) else { return Ok(kept) };
    let mut reader = RecordReader::new(BufReader::new(file), PREFIX);
    let mut record = Vec::new();
    while let Ok(true) = reader.next(&mut record) {
        kept.messages += 1;
        kept.digest.add(&record);
        kept.bytes += 4 + record.len() as u64;
    }
    Ok(kept)
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    troupe::join_troupe()?;
    let kept = read_kept(&args.file)?;
    let file = OpenOptions::new().create(true).append(true).open(&args.file);
    let file = file.with_context(|| args.file.display().to_string())?;
    file.set_len(kept.bytes)?;
    let address: Address = format!("{}&from={}", args.address, kept.messages + 1).parse()?;
    let mut subscriber = Subscriber::open_at(&address)?;
    troupe::tell(&Told::Ready)?;
    let mut survivor = Survivor {
        next_sequence: kept.messages + 1,
        account: Successor { from_file: kept.messages, ..Successor::default() },
        digest: kept.digest,
        file: BufWriter::new(file),
        failed: None,
    };
    survivor.read_to_end(&mut subscriber, args)?;
    let mut account = survivor.account;
    account.digest = survivor.digest.text();
    troupe::tell(&Told::Survived(account))?;
    Ok(Outcome::Sound)
}

struct Survivor {
    next_sequence: u64,
    account: Successor,
    digest: Digest,
    file: BufWriter<File>,
    failed: Option<anyhow::Error>,
}

impl Survivor {
    fn take(&mut self, sequence: u64, payload: &[u8]) {
        self.account.gaps += sequence.abs_diff(self.next_sequence);
        self.next_sequence = sequence + 1;
        self.digest.add(payload);
        let written = PREFIX.write(&mut self.file, payload);
        self.failed = self.failed.take().or(written.err().map(|error| anyhow!(error)));
    }

    fn read_to_end(&mut self, subscriber: &mut Subscriber, args: &Args) -> anyhow::Result<()> {
        let (mut empty_polls, mut ended) = (0, false);
        let mut tell_at = args.tell_at;
        loop {
            let read = self.next_sequence - 1;
            if tell_at.is_some_and(|at| read >= at) {
                tell_at = None;
                troupe::tell(&Told::Half)?;
            }
            let left = args.hold_at.map_or(u64::MAX, |hold| hold.saturating_sub(read));
            if left == 0 {
                std::thread::park(); // until it is killed
                continue;
            }
            let was_live = subscriber.is_live();
            let limit = left.min(POLL_LIMIT) as usize;
            let polled = subscriber.poll(limit, |message| {
                self.take(message.sequence, message.payload);
            });
            if let Some(error) = self.failed.take() {
                return Err(error);
            }
            match polled {
                Ok(0) if ended => return Ok(()),
                Ok(0) => {
                    empty_polls += 1;
                    if empty_polls % EMPTY_POLLS == 0 {
                        // Asked before the last poll: nothing published before the end is left.
                        ended = subscriber.publisher_status() != ProducerStatus::Alive;
                    }
                    std::thread::yield_now();
                }
                Ok(count) => {
                    empty_polls = 0;
                    self.file.flush()?; // what a killed process has written stays
                    let part = match was_live {
                        true => &mut self.account.live,
                        false => &mut self.account.from_log,
                    };
                    *part += count as u64;
                }
                // The jump in the sequence numbers is counted with the next message.
                Err(PollError::Lapped { .. } | PollError::Lost { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_message_does_not_count() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("kept");
        assert_eq!(read_kept(&path).expect("nothing yet").messages, 0);
        let mut file = Vec::new();
        let mut whole = Digest::new();
        for message in [&b"one"[..], b"", b"three"] {
            PREFIX.write(&mut file, message).expect("written");
            whole.add(message);
        }
        let bytes = file.len() as u64;
        for torn in [&b""[..], b"\0", b"\0\0\0", b"\0\0\0\x09four"] {
            std::fs::write(&path, [&file[..], torn].concat()).expect("written");
            let mut kept = read_kept(&path).expect("readable");
            assert_eq!((kept.messages, kept.bytes), (3, bytes));
            assert_eq!(kept.digest.text(), whole.text());
        }
    }
}
