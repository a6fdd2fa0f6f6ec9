//! Where the stream stands, written by the producer once a chunk: the checkpoint (position and
//! sequence of the next message) and the index (a record start in each 1/256 of the data).
//!
//! Neither is on the path of a message. Joiners, restarted producers and inspectors read them and
//! walk the few records from there to the head. Both survive `kill -9` between any two stores.

use crate::error::RingError;
use crate::layout::{CHECKPOINT_PAIRS, CHECKPOINT_VERSION, FRONTIER, Geometry, INDEX_ENTRIES};
use crate::memory::Memory;
use crate::record::CommitWord;
use crate::sync::{Ordering, fence};

/// A place in a stream: where the record of a sequence number starts or will start. Means something
/// only to the ring that it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub(crate) position: u64,
    pub(crate) sequence: u64,
}

/// Largest position a stream may reach: 4 EiB, centuries at memory speed.
const POSITION_MAX: u64 = 1 << 62;
/// Largest sequence number a stream may reach.
const SEQUENCE_MAX: u64 = 1 << 63;
/// Largest first sequence of a stream: leaves it 2^62 messages.
pub(crate) const FIRST_SEQUENCE_MAX: u64 = 1 << 62;
/// Marks an index entry that is being rewritten.
const REWRITING: u64 = u64::MAX;
/// Readers give up after this many pairs were rewritten under them; each takes the producer at
/// least a chunk of messages, so only a hostile writer gets there.
const READ_ATTEMPTS: usize = if cfg!(loom) { 2 } else { 10_000 };

/// Writes pair `version`; the other pair stays valid until the version moves.
pub(crate) fn write_checkpoint<M: Memory>(memory: &M, version: u64, place: Place) {
    let pair = CHECKPOINT_PAIRS + (version & 1) as usize * 16;
    // pairs with: CHECKPOINT-REREAD. Whoever reads one of the stores below sees, behind its
    // acquire fence, at least the previous version and so knows that this pair is being rewritten.
    #[cfg(not(weaken_checkpoint))]
    fence(Ordering::Release);
    // Relaxed, both: published by the version.
    memory.word(pair).store(place.position, Ordering::Relaxed);
    memory.word(pair + 8).store(place.sequence, Ordering::Relaxed);
    // pairs with: CHECKPOINT
    memory.word(CHECKPOINT_VERSION).store(version, Ordering::Release);
}

/// The newest whole checkpoint, with its version. `None` if it changes faster than it can be read.
pub(crate) fn read_checkpoint<M: Memory>(memory: &M) -> Option<(u64, Place)> {
    for _ in 0..READ_ATTEMPTS {
        // Relaxed loads and fences throughout: a consumer's mapping of this page is read-only, and
        // only relaxed loads are promised to work on read-only memory.
        let version = memory.word(CHECKPOINT_VERSION).load(Ordering::Relaxed);
        fence(Ordering::Acquire); // pairs with: CHECKPOINT
        let pair = CHECKPOINT_PAIRS + (version & 1) as usize * 16;
        let position = memory.word(pair).load(Ordering::Relaxed);
        let sequence = memory.word(pair + 8).load(Ordering::Relaxed);
        fence(Ordering::Acquire); // pairs with: CHECKPOINT-REREAD
        if memory.word(CHECKPOINT_VERSION).load(Ordering::Relaxed) == version {
            return Some((version, Place { position, sequence }));
        }
        crate::sync::spin_hint();
    }
    None
}

/// Notes that a record starts, or will start, at `place`.
pub(crate) fn write_index<M: Memory>(memory: &M, geometry: &Geometry, place: Place) {
    let entry = geometry.index_offset(geometry.index_entry(place.position));
    // Relaxed: the fence below orders it before the sequence.
    memory.word(entry).store(REWRITING, Ordering::Relaxed);
    #[cfg(not(weaken_index))]
    fence(Ordering::Release); // pairs with: INDEX-REREAD
    memory.word(entry + 8).store(place.sequence, Ordering::Relaxed);
    memory.word(entry).store(place.position, Ordering::Release); // pairs with: INDEX
}

/// One index entry, if it is whole and names a place in its own part of the data.
pub(crate) fn read_index<M: Memory>(memory: &M, geometry: &Geometry, entry: u64) -> Option<Place> {
    let offset = geometry.index_offset(entry);
    let position = memory.word(offset).load(Ordering::Relaxed);
    fence(Ordering::Acquire); // pairs with: INDEX
    let sequence = memory.word(offset + 8).load(Ordering::Relaxed);
    fence(Ordering::Acquire); // pairs with: INDEX-REREAD
    let whole = memory.word(offset).load(Ordering::Relaxed) == position;
    let own =
        position.is_multiple_of(geometry.alignment) && geometry.index_entry(position) == entry;
    (whole && position != REWRITING && own).then_some(Place { position, sequence })
}

/// Positions below this are, or may be, overwritten.
pub(crate) fn oldest_position<M: Memory>(memory: &M, geometry: &Geometry) -> u64 {
    // Relaxed: callers put a fence in front where the order matters.
    memory.word(FRONTIER).load(Ordering::Relaxed).saturating_sub(geometry.capacity)
}

/// The indexed place to start walking from: the oldest one retained, or the newest at or before
/// `sequence` (the oldest retained if that is gone already). `newest` is the checkpoint's.
pub(crate) fn find_place<M: Memory>(
    memory: &M,
    g: &Geometry,
    sequence: Option<u64>,
    newest: Place,
) -> Place {
    if sequence.is_some_and(|n| n >= newest.sequence) {
        return newest;
    }
    let at_or_before = |n| {
        let places = indexed(memory, g, newest).filter(move |place| place.sequence <= n);
        places.max_by_key(|place| place.position)
    };
    let oldest = || indexed(memory, g, newest).min_by_key(|place| place.position);
    sequence.and_then(at_or_before).or_else(oldest).unwrap_or(newest)
}

/// The first indexed place at or behind `position`.
pub(crate) fn place_at_or_after<M: Memory>(
    memory: &M,
    g: &Geometry,
    position: u64,
    newest: Place,
) -> Place {
    indexed(memory, g, newest)
        .filter(|place| place.position >= position)
        .min_by_key(|place| place.position)
        .unwrap_or(newest)
}

/// Every index entry that is retained and not newer than the checkpoint.
pub(crate) fn indexed<'a, M: Memory>(
    memory: &'a M,
    g: &'a Geometry,
    newest: Place,
) -> impl Iterator<Item = Place> + 'a {
    let oldest = oldest_position(memory, g);
    (0..INDEX_ENTRIES).filter_map(move |entry| read_index(memory, g, entry)).filter(move |place| {
        (oldest..=newest.position).contains(&place.position) && place.sequence <= newest.sequence
    })
}

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A record; the message it carries starts behind the commit word.
    Record(CommitWord),
    /// Not the record expected here: this is the head (whatever bytes an earlier lap left), unless
    /// the checkpoint says that the stream went on.
    Head,
    /// Bytes that no producer of this layout writes.
    Corrupt(CommitWord),
}

/// Reads the commit word at `place`, jumping over padding, and checks every field of it. The result
/// counts only if the place is not overwritten afterwards.
pub(crate) fn step<M: Memory>(memory: &M, geometry: &Geometry, place: &mut Place) -> Step {
    // A hostile file may hold padding behind padding; a sound one never does.
    for _ in 0..2 {
        // Relaxed load and acquire fence: works on a read-only mapping.
        let word = CommitWord(memory.word(geometry.offset(place.position)).load(Ordering::Relaxed));
        fence(Ordering::Acquire); // pairs with: COMMIT
        if !word.is(place.sequence) {
            return Step::Head;
        }
        if word.has_reserved_bits() {
            return Step::Corrupt(word);
        }
        if !word.is_padding() {
            let end = place.position + geometry.record_bytes(word.len());
            let fits =
                word.len() <= geometry.max_message && end <= geometry.lap_end(place.position);
            return if fits { Step::Record(word) } else { Step::Corrupt(word) };
        }
        place.position = geometry.lap_end(place.position);
    }
    Step::Corrupt(CommitWord::padding(place.sequence))
}

/// Whether the stream went past `place` although no record stands there, and the producer has not
/// overwritten it either: then the data is damaged.
pub(crate) fn is_missing<M: Memory>(memory: &M, g: &Geometry, place: Place) -> bool {
    let Some((_, newest)) = read_checkpoint(memory) else {
        return false;
    };
    // The commit that the checkpoint followed came first: look again before judging.
    let word = CommitWord(memory.word(g.offset(place.position)).load(Ordering::Relaxed));
    fence(Ordering::Acquire); // pairs with: FRONTIER
    newest.position > place.position
        && !word.is(place.sequence)
        && place.position >= oldest_position(memory, g)
}

impl Place {
    /// The sequence number of the record here.
    pub fn sequence(self) -> u64 {
        self.sequence
    }

    /// Bytes of ring in front of the record, from the beginning of the stream on.
    pub fn position(self) -> u64 {
        self.position
    }

    /// Refuses a place that no producer can have reached, before anything is computed from it.
    pub(crate) fn check(self, geometry: &Geometry) -> Result<(), RingError> {
        let sound = self.position <= POSITION_MAX
            && self.position.is_multiple_of(geometry.alignment)
            && self.sequence <= SEQUENCE_MAX;
        let Self { position, sequence } = self;
        if sound { Ok(()) } else { Err(RingError::BadCursor { position, sequence }) }
    }

    /// The place behind a record that [`step`] found here.
    pub(crate) fn after(self, geometry: &Geometry, word: CommitWord) -> Self {
        Self {
            position: self.position + geometry.record_bytes(word.len()),
            sequence: self.sequence + 1,
        }
    }
}
