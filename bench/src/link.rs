//! What every carrier of messages looks like to the measuring loops: floor, ring and peers alike.

use std::path::Path;

use anyhow::Result;

/// Bytes of every ring measured: fits the second-level cache, so that memory is not what is
/// measured.
pub(crate) const CAPACITY_BYTES: u64 = 1 << 20;

/// A way to carry messages in one direction between two sides.
pub(crate) trait Link: Send + Sync + 'static {
    type Sender: Sender;
    type Receiver: Receiver;

    /// Opens the sending end of `channel`; always before its receiving end.
    fn open_sender(&self, dir: &Path, channel: &str) -> Result<Self::Sender>;

    /// Opens the receiving end of `channel`.
    fn open_receiver(&self, dir: &Path, channel: &str) -> Result<Self::Receiver>;

    /// Why there is no such carrier here; `None` if there is.
    fn obstacle(&self) -> Option<String> {
        None
    }
}

/// The sending end. An error other than a lack of room ends the run by a panic.
pub(crate) trait Sender {
    /// Called once, before the first message and when the receiving end is open, for a sender that
    /// must know where that is.
    fn connect(&mut self) -> Result<()> {
        Ok(())
    }

    /// Sends a copy of `payload`, or says that there is no room.
    fn try_send(&mut self, payload: &[u8]) -> bool;

    /// Sends up to `limit` copies and says how many it sent; where messages leave in packs, the
    /// last of them is a whole one.
    #[inline(always)]
    fn send_some(&mut self, payload: &[u8], _limit: usize) -> usize {
        self.try_send(payload).into()
    }

    /// What the sending end has to do while its owner waits for something else.
    #[inline(always)]
    fn idle(&mut self) {}

    /// System calls made so far, if this end makes any and counts them.
    fn calls(&mut self) -> Option<u64> {
        None
    }
}

/// The receiving end.
pub(crate) trait Receiver {
    /// Hands up to `limit` messages to `handler` and says how many there were; where messages
    /// arrive in packs, the last of them is a whole one.
    fn poll(&mut self, limit: usize, handler: impl FnMut(&[u8])) -> usize;

    /// What is done after an empty poll: one `pause`, unless waiting itself is what is measured.
    #[inline(always)]
    fn idle(&mut self) {
        std::hint::spin_loop();
    }

    /// System calls made so far, if this end makes any and counts them.
    fn calls(&mut self) -> Option<u64> {
        None
    }

    /// What this end has seen that belongs into the record of the run.
    fn remarks(&mut self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// Reads a message as an application would at least: one word of each of its cache lines.
#[inline(always)]
pub(crate) fn consume(payload: &[u8]) -> u64 {
    payload.chunks(64).fold(0u64, |sum, line| {
        let word = line.first_chunk::<8>().copied().unwrap_or_default();
        sum.wrapping_add(u64::from_ne_bytes(word))
    })
}
