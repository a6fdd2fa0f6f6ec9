//! The seam between the sequencer and what it orders commands for.
//!
//! An [`Application`] is a deterministic state machine: it sees the sequenced stream's records and
//! nothing else. It reads no clock (each record carries the time), draws no random numbers, and
//! iterates over nothing whose order is not fixed; so any number of copies that read the same
//! stream are equal, and a copy that is rebuilt by a replay is equal too.

use thiserror::Error;

use super::record::{ClientId, Record};

/// Bytes of the longest event.
pub const EVENT_BYTES_MAX: usize = 224;

/// A deterministic state machine behind a sequencer.
pub trait Application {
    /// Applies one record and answers with any number of events, which are written to the stream
    /// right behind it. Its own events do not come back to it, nor do terms and checkpoints: they
    /// tell an application nothing.
    fn apply(&mut self, record: &Record<'_>, events: &mut Events);

    /// Appends the whole state to `out`, so that [`load`](Self::load) makes an equal one of it. Two
    /// equal states append equal bytes.
    fn save(&self, out: &mut Vec<u8>);

    /// Replaces the state by one that was saved.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are of another version or of another application; the state is
    /// then as new.
    fn load(&mut self, saved: &[u8]) -> Result<(), LoadError>;
}

/// Bytes that are no saved state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the saved state is not this application's, or of another version: {what}")]
pub struct LoadError {
    /// What was looked for and not found.
    pub what: &'static str,
}

/// The events that an application answers one record with.
///
/// ```
/// use gapless::sequencer::{ClientId, Events};
///
/// let mut events = Events::new();
/// events.push(ClientId(7), b"accepted");
/// events.push(ClientId(9), b"filled");
/// let all: Vec<_> = events.iter().collect();
/// assert_eq!(all, [(ClientId(7), &b"accepted"[..]), (ClientId(9), &b"filled"[..])]);
/// ```
#[derive(Debug, Default)]
pub struct Events {
    bytes: Vec<u8>,
    /// Whom each concerns, and where it ends in `bytes`.
    ends: Vec<(ClientId, usize)>,
}

impl Events {
    /// Room for a few hundred events; more are taken as well, and room once taken is kept.
    pub fn new() -> Self {
        Self { bytes: Vec::with_capacity(1 << 16), ends: Vec::with_capacity(1 << 10) }
    }

    /// Adds an event that concerns `client`, of at most [`EVENT_BYTES_MAX`] bytes: what every
    /// sequenced stream takes.
    ///
    /// # Panics
    /// If it is longer. An application that makes such an event does so on every replica.
    #[inline]
    pub fn push(&mut self, client: ClientId, payload: &[u8]) {
        assert!(payload.len() <= EVENT_BYTES_MAX, "an event of {} bytes", payload.len());
        self.bytes.extend_from_slice(payload);
        self.ends.push((client, self.bytes.len()));
    }

    /// The events in order.
    pub fn iter(&self) -> impl Iterator<Item = (ClientId, &[u8])> {
        (0..self.ends.len()).filter_map(|index| self.get(index))
    }

    /// One event, 0 the first.
    #[inline]
    pub fn get(&self, index: usize) -> Option<(ClientId, &[u8])> {
        let &(client, end) = self.ends.get(index)?;
        let begin = index.checked_sub(1).map_or(0, |before| self.ends[before].1);
        Some((client, &self.bytes[begin..end]))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}
