//! Looking at a ring from outside: read-only, never gating, and without trust in a single byte.
//!
//! Works on a ring whose producer is alive, dead, or died in the middle of a message, and on a
//! damaged one as far as its header can be read.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::checkpoint::{self, Place, Step};
use crate::consumer::{Message, ProducerStatus};
use crate::directory;
use crate::error::RingError;
use crate::header::Header;
use crate::layout::{
    ABORTED_COUNT, BACKPRESSURE_COUNT, FRONTIER, Geometry, PRODUCER_HEARTBEAT, PRODUCER_PAGE,
    PRODUCER_PID, PRODUCER_STARTS, PRODUCER_STATE, QUARANTINED_COUNT, RECLAIMED_COUNT,
    RECORD_HEADER_BYTES, SLOT_MISSED, SLOT_PID, SLOT_POSITION, SLOT_SEQUENCE, SLOT_STALLS,
};
use crate::memory::Access;
use crate::options::read_header;
use crate::producer::STATE_CLOSED;
use crate::region::{HugePages, LockMemory, MapOptions, Mapped, Protection};
use crate::slot::{SlotState, slot_name};
use crate::sync::{Ordering, fence};

/// A read-only view of one ring.
///
/// ```no_run
/// let inspector = gapless_shm::Inspector::open("orders")?;
/// let snapshot = inspector.snapshot();
/// for consumer in &snapshot.consumers {
///     println!("{} is {} messages behind", consumer.name, consumer.lag_messages);
/// }
/// # Ok::<(), gapless_shm::RingError>(())
/// ```
pub struct Inspector {
    path: PathBuf,
    header: Header,
    geometry: Geometry,
    memory: Mapped,
}

/// A ring at one moment. Numbers are read one by one: on a live ring they may be a few messages
/// apart.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// Alive, closed or dead.
    pub producer: ProducerStatus,
    /// Process id of the last producer, as it saw itself.
    pub producer_pid: u32,
    /// How many producers have written this ring, restarts included.
    pub producer_starts: u64,
    /// When the producer last said that it runs, ns since the Unix epoch; 0 if never.
    pub heartbeat_unix_ns: u64,
    /// Publishes refused for want of room.
    pub backpressure: u64,
    /// Dead consumers whose slot was taken back.
    pub reclaimed: u64,
    /// Consumers set aside for a cursor that makes no sense.
    pub quarantined: u64,
    /// Claims and batches given up.
    pub aborted: u64,
    /// Oldest sequence that can still be joined.
    pub oldest_sequence: u64,
    /// Sequence that the next message will get.
    pub next_sequence: u64,
    /// Bytes ever written into the data, padding included.
    pub position: u64,
    /// The producer may be writing up to here.
    pub frontier: u64,
    /// Every occupied slot.
    pub consumers: Vec<ConsumerInfo>,
    /// What was found wrong while looking.
    pub problem: Option<String>,
}

/// One consumer's slot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// Slot number.
    pub slot: usize,
    /// Name given when it attached.
    pub name: String,
    /// Process id as that process saw itself.
    pub pid: u32,
    /// Whether its lease is held: the process lives.
    pub alive: bool,
    /// Whether the producer waits for it.
    pub gating: bool,
    /// Whether the producer has thrown it out.
    pub evicted: bool,
    /// Sequence of the message it reads next.
    pub next_sequence: u64,
    /// Messages between it and the head.
    pub lag_messages: u64,
    /// Bytes of ring between it and the head.
    pub lag_bytes: u64,
    /// Publishes refused because of it.
    pub stalls: u64,
    /// Messages it missed by being lapped.
    pub missed: u64,
}

/// One record, as found by a walk.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Position of its commit word in the stream.
    pub position: u64,
    /// The message.
    pub message: Message<'a>,
}

/// The result of [`Inspector::verify`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Verified {
    /// Records checked.
    pub records: u64,
    /// Payload bytes in them.
    pub bytes: u64,
    /// First sequence checked.
    pub first_sequence: u64,
    /// One more than the last sequence checked.
    pub next_sequence: u64,
    /// Times that the producer overtook the walk, which then went on further ahead.
    pub overtaken: u64,
    /// Everything found wrong; empty on a sound ring.
    pub problems: Vec<String>,
}

/// Walks start over at most this often when a fast producer overtakes them.
const OVERTAKEN_MAX: u64 = 1000;

impl Inspector {
    /// Opens the ring `name` in the default directory.
    ///
    /// # Errors
    /// As for [`open_file`](Self::open_file), and [`RingError::BadName`].
    pub fn open(name: &str) -> Result<Self, RingError> {
        Self::open_file(&directory::ring_path(&directory::default_directory(), name)?)
    }

    /// Opens a ring by the path of its file.
    ///
    /// # Errors
    /// [`RingError::NotFound`], [`RingError::Denied`], and one error for each kind of damage to the
    /// header or the file's length. Damage elsewhere is reported by the other methods.
    pub fn open_file(path: &Path) -> Result<Self, RingError> {
        let file: File = directory::open(path, false)?;
        let header = read_header(&file, path)?;
        let geometry = header.geometry();
        let options =
            MapOptions { prefault: false, lock: LockMemory::Never, huge: HugePages::Default };
        let memory = Mapped::new(file, path, &geometry, Protection::Reader, options)?;
        Ok(Self { path: path.to_path_buf(), header, geometry, memory })
    }

    /// What the ring was created as.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The ring's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn load(&self, offset: usize) -> u64 {
        // Relaxed: shown to people.
        self.memory.word(offset).load(Ordering::Relaxed)
    }

    /// The ring as it is now. What makes no sense is left at 0 and named in
    /// [`problem`](Snapshot::problem); the rest is there all the same.
    pub fn snapshot(&self) -> Snapshot {
        let nowhere = Place { position: 0, sequence: 0 };
        let (head, oldest, problem) = match self.newest() {
            Err(error) => (nowhere, nowhere, Some(error.to_string())),
            Ok(newest) => {
                let (head, walked) = self.walk(newest, u64::MAX, &mut |_| {});
                let problem = match walked {
                    Walked::Corrupt(word) => {
                        let position = head.position;
                        Some(format!("corrupt record at position {position}: word {word:#018x}"))
                    }
                    Walked::Head | Walked::Overtaken => None,
                };
                let oldest = checkpoint::find_place(&self.memory, &self.geometry, None, newest);
                (head, oldest, problem)
            }
        };
        let closed = self.load(PRODUCER_STATE) == STATE_CLOSED;
        let producer = match (closed, self.memory.lease_held(PRODUCER_PAGE)) {
            (true, false) => ProducerStatus::Closed,
            (_, true) => ProducerStatus::Alive,
            (false, false) => ProducerStatus::Dead,
        };
        Snapshot {
            producer,
            producer_pid: self.load(PRODUCER_PID) as u32,
            producer_starts: self.load(PRODUCER_STARTS),
            heartbeat_unix_ns: self.load(PRODUCER_HEARTBEAT),
            backpressure: self.load(BACKPRESSURE_COUNT),
            reclaimed: self.load(RECLAIMED_COUNT),
            quarantined: self.load(QUARANTINED_COUNT),
            aborted: self.load(ABORTED_COUNT),
            oldest_sequence: oldest.sequence,
            next_sequence: head.sequence,
            position: head.position,
            frontier: self.load(FRONTIER),
            consumers: self.consumers(head),
            problem,
        }
    }

    fn newest(&self) -> Result<Place, RingError> {
        let (_, newest) = checkpoint::read_checkpoint(&self.memory).ok_or(RingError::Unsteady)?;
        newest.check(&self.geometry)?;
        Ok(newest)
    }

    fn consumers(&self, head: Place) -> Vec<ConsumerInfo> {
        let g = &self.geometry;
        let info = |slot| {
            let state = SlotState::load_shown(&self.memory, g, slot);
            let field = |field| self.load(g.slot_offset(slot) + field);
            (!state.is_free()).then(|| ConsumerInfo {
                slot,
                name: slot_name(&self.memory, g, slot),
                pid: field(SLOT_PID) as u32,
                alive: self.memory.lease_held(g.slot_offset(slot)),
                gating: state.is_gating(),
                evicted: state.is_evicted(),
                next_sequence: field(SLOT_SEQUENCE),
                lag_messages: head.sequence.saturating_sub(field(SLOT_SEQUENCE)),
                lag_bytes: head.position.saturating_sub(field(SLOT_POSITION)),
                stalls: field(SLOT_STALLS),
                missed: field(SLOT_MISSED),
            })
        };
        (0..g.slots).filter_map(info).collect()
    }

    /// Hands every retained record of `from..to` (sequences) to `handler`, as a private copy, and
    /// returns how many there were.
    ///
    /// # Errors
    /// [`RingError::SequenceGone`] if `from` is no longer held; [`RingError::Corrupt`] at a record
    /// that cannot be read; [`RingError::Unsteady`] if the producer overtakes the walk.
    pub fn records(
        &self,
        from: u64,
        to: u64,
        mut handler: impl FnMut(Record<'_>),
    ) -> Result<u64, RingError> {
        let newest = self.newest()?;
        let start = checkpoint::find_place(&self.memory, &self.geometry, Some(from), newest);
        if start.sequence > from {
            return Err(RingError::SequenceGone { wanted: from, oldest: start.sequence });
        }
        let mut count = 0;
        let mut visit = |record: Record<'_>| {
            if record.message.sequence >= from {
                count += 1;
                handler(record);
            }
        };
        match self.walk(start, to, &mut visit) {
            (_, Walked::Head) => Ok(count),
            (place, Walked::Corrupt(word)) => {
                Err(RingError::Corrupt { position: place.position, word })
            }
            (_, Walked::Overtaken) => Err(RingError::Unsteady),
        }
    }

    /// Walks every retained record and checks it, and the index against the records. On a live
    /// ring a fast producer may overtake the walk, which then goes on with what is retained.
    ///
    /// # Errors
    /// [`RingError::Unsteady`] and [`RingError::BadCursor`] if the producer page makes no sense;
    /// everything else is in [`Verified::problems`].
    pub fn verify(&self, mut progress: impl FnMut(u64)) -> Result<Verified, RingError> {
        let mut newest = self.newest()?;
        let mut result = Verified::default();
        let mut start = checkpoint::find_place(&self.memory, &self.geometry, None, newest);
        result.first_sequence = start.sequence;
        loop {
            let mut indexed: Vec<Place> =
                checkpoint::indexed(&self.memory, &self.geometry, newest).collect();
            indexed.sort_by_key(|place| place.position);
            let mut last = start.position;
            // Where the next record starts, unless padding stands there.
            let mut behind = start.position;
            let (end, walked) = self.walk(start, u64::MAX, &mut |record| {
                let Message { sequence, payload, .. } = record.message;
                let here = [behind, record.position];
                for place in indexed
                    .iter()
                    .filter(|place| here.contains(&place.position) && place.sequence != sequence)
                {
                    let problem = format!(
                        "index says sequence {} at {}, the record {sequence}",
                        place.sequence, place.position
                    );
                    result.problems.push(problem);
                }
                let between = |place: &&Place| {
                    (last..record.position).contains(&place.position) && place.position != behind
                };
                for place in indexed.iter().filter(between) {
                    let problem = format!("index entry {} names no record", place.position);
                    result.problems.push(problem);
                }
                last = record.position + 1;
                behind = record.position + self.geometry.record_bytes(payload.len());
                result.records += 1;
                result.bytes += payload.len() as u64;
                progress(result.records);
            });
            result.next_sequence = end.sequence;
            match walked {
                Walked::Head => return Ok(result),
                Walked::Corrupt(word) => {
                    let problem = format!(
                        "corrupt record at position {} where sequence {} should be: {word:#018x}",
                        end.position, end.sequence
                    );
                    result.problems.push(problem);
                    return Ok(result);
                }
                Walked::Overtaken if result.overtaken < OVERTAKEN_MAX => {
                    result.overtaken += 1;
                    newest = self.newest()?;
                    start = checkpoint::find_place(&self.memory, &self.geometry, None, newest);
                }
                Walked::Overtaken => return Ok(result),
            }
        }
    }

    /// Visits records from `place` up to sequence `to` or the head, at most two laps of them.
    fn walk(
        &self,
        mut place: Place,
        to: u64,
        visit: &mut dyn FnMut(Record<'_>),
    ) -> (Place, Walked) {
        let g = &self.geometry;
        let end = place.position.saturating_add(2 * g.capacity);
        let mut buffer = vec![0; g.max_message];
        while place.sequence < to && place.position < end {
            let before = place;
            let step = checkpoint::step(&self.memory, g, &mut place);
            if let Step::Record(word) = step {
                let offset = g.offset(place.position) + RECORD_HEADER_BYTES;
                self.memory.copy_out(offset, &mut buffer[..word.len()]);
            }
            fence(Ordering::Acquire); // pairs with: FRONTIER
            if before.position < checkpoint::oldest_position(&self.memory, g) {
                return (before, Walked::Overtaken);
            }
            match step {
                Step::Head if checkpoint::is_missing(&self.memory, g, place) => {
                    return (place, Walked::Corrupt(self.load(g.offset(place.position))));
                }
                Step::Head => return (place, Walked::Head),
                Step::Corrupt(word) => return (place, Walked::Corrupt(word.0)),
                Step::Record(word) => {
                    let payload = &buffer[..word.len()];
                    let message =
                        Message { sequence: place.sequence, payload, flags: word.flags() };
                    visit(Record { position: place.position, message });
                    place = place.after(g, word);
                }
            }
        }
        (place, Walked::Head)
    }
}

enum Walked {
    Head,
    Corrupt(u64),
    Overtaken,
}
