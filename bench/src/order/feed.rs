//! A client's stream without the client: frames, written as fast as they are taken.
//!
//! Nothing waits for what comes back, so that one thread can feed several streams. The layout is
//! that of `gapless::sequencer`'s frames; a test holds the two together.

use anyhow::{Context, Result, bail};
use gapless::Publisher;

use super::client_stream;

/// Bytes in front of a command.
pub(super) const HEAD_BYTES: usize = 32;
const VERSION: u8 = 1;
const COMMAND: u8 = 1;
const HELLO: u8 = 3;
/// The run of every feed.
const RUN: u64 = 1;

/// One client's stream.
pub(super) struct Feed {
    publisher: Publisher,
    client: u16,
    /// The last number that was given.
    last: u64,
    frame: Vec<u8>,
}

impl Feed {
    /// Opens the stream of `client`, says hello, and calls `turn` until somebody reads it: a ring
    /// that nobody reads does not keep what is written to it.
    pub(super) fn open(
        dir: &std::path::Path,
        client: u16,
        mut turn: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        let publisher = Publisher::open(&client_stream(dir, client)).context("open a feed")?;
        let mut feed = Self { publisher, client, last: 0, frame: Vec::with_capacity(256) };
        feed.head(HELLO);
        if !feed.send()? {
            bail!("a new ring has no room");
        }
        while feed.publisher.slowest().is_none() {
            turn()?;
        }
        Ok(feed)
    }

    /// The number of the last command.
    #[inline]
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    /// Sends one command; false if there is no room.
    #[inline]
    pub(super) fn try_send(&mut self, command: &[u8]) -> Result<bool> {
        self.last += 1;
        self.head(COMMAND);
        self.frame.extend_from_slice(command);
        let sent = self.send()?;
        self.last -= u64::from(!sent);
        Ok(sent)
    }

    /// Sends up to `limit` copies of a command in one batch, and says how many.
    #[inline]
    pub(super) fn send_some(&mut self, command: &[u8], limit: usize) -> Result<usize> {
        self.last += 1;
        self.head(COMMAND);
        self.frame.extend_from_slice(command);
        let mut batch = self.publisher.batch();
        let mut sent = 0;
        while sent < limit {
            self.frame[16..24].copy_from_slice(&(self.last + sent as u64).to_le_bytes());
            match batch.push(&self.frame) {
                Ok(_) => sent += 1,
                Err(error) if error.is_backpressure() => break,
                Err(error) => return Err(error).context("feed"),
            }
        }
        batch.commit();
        self.last = self.last + sent as u64 - 1;
        Ok(sent)
    }

    #[inline]
    fn head(&mut self, kind: u8) {
        self.frame.clear();
        self.frame.extend_from_slice(&[VERSION, kind]);
        self.frame.extend_from_slice(&self.client.to_le_bytes());
        self.frame.extend_from_slice(&[0; 4]);
        for word in [RUN, self.last, 0] {
            self.frame.extend_from_slice(&word.to_le_bytes());
        }
    }

    #[inline]
    fn send(&mut self) -> Result<bool> {
        match self.publisher.try_publish(&self.frame) {
            Ok(_) => Ok(true),
            Err(error) if error.is_backpressure() => Ok(false),
            Err(error) => Err(error).context("feed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use gapless::Agent;
    use gapless::sequencer::{ClientId, Sequencer};

    use super::*;
    use crate::order::{options, tally::Tally};

    #[test]
    fn what_is_fed_is_sequenced_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut sequencer =
            Sequencer::open(options(dir.path(), 2, 1 << 20), Tally::default()).unwrap();
        let mut feeds = [1, 2].map(|client| {
            Feed::open(dir.path(), client, || Ok(sequencer.duty_cycle().map(|_| ())?)).unwrap()
        });
        assert!(feeds[0].try_send(b"one").unwrap());
        assert_eq!(feeds[0].send_some(b"more", 9).unwrap(), 9);
        assert!(feeds[1].try_send(b"other").unwrap());
        while sequencer.stats().sequenced < 11 {
            sequencer.duty_cycle().unwrap();
        }
        assert_eq!((sequencer.last_of(ClientId(1)), sequencer.last_of(ClientId(2))), (10, 1));
        let stats = sequencer.stats();
        assert_eq!((stats.refused, stats.duplicates), (0, 0));
    }
}
