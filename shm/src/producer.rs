//! The writing side of a ring: one per stream, never blocked, never allocating after set-up.
//!
//! The path of a message is: one comparison (is there room), the payload, one load (what stands
//! where the next commit word will be), one release store that publishes. Everything else (scanning
//! consumers, moving the frontier, checkpoint, index, wrapping) happens in
//! [`make_room`](Producer::make_room), once a chunk.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::checkpoint::{self, Place, Step};
use crate::claim::{Batch, Claim};
use crate::error::{PublishError, RingError};
use crate::gate::{Gate, add};
use crate::layout::{
    ABORTED_COUNT, FRONTIER, Geometry, HEADER_FIRST_SEQUENCE, HEADER_SESSION, PRODUCER_HEARTBEAT,
    PRODUCER_PID, PRODUCER_STARTS, PRODUCER_STATE, RECORD_HEADER_BYTES, SLOT_PID, SLOT_POSITION,
    SLOT_SEQUENCE, TABLE_PARKED, WAKE_EPOCH,
};
use crate::memory::Memory;
use crate::record::{CommitWord, Flags};
use crate::region::Mapped;
use crate::slot::{SlotState, slot_name};
use crate::sync::{AtomicU64, Ordering, fence};

/// Producer states as they stand in the producer page.
pub(crate) const STATE_ACTIVE: u64 = 1;
pub(crate) const STATE_CLOSED: u64 = 2;

/// The one writer of a ring.
///
/// `Send`, but not `Sync`: publishing takes `&mut self`, and a second producer of the same ring is
/// refused when it attaches. Dropping it closes the stream in order: consumers that have read
/// everything then see [`ProducerStatus::Closed`](crate::ProducerStatus::Closed).
///
/// ```
/// use gapless_shm::{RingOptions, Start};
///
/// let (mut producer, ring) = RingOptions::new().capacity_bytes(4096).heap()?;
/// let mut consumer = ring.subscribe("reader", Start::Oldest)?;
/// assert_eq!(producer.try_publish(b"hello")?, 1);
/// consumer.poll(10, |message| assert_eq!(message.payload, b"hello"))?;
///
/// // A full ring is an answer, not a wait: the slow consumer is named.
/// let refused = loop {
///     if let Err(error) = producer.try_publish(&[0; 100]) {
///         break error;
///     }
/// };
/// assert!(refused.is_backpressure());
/// assert_eq!(producer.slowest().unwrap().name, "reader");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// One thread at a time:
///
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// shared::<gapless_shm::Producer>();
/// ```
///
/// and one claim at a time:
///
/// ```compile_fail,E0499
/// # use gapless_shm::RingOptions;
/// # let (mut producer, _ring) = RingOptions::new().capacity_bytes(4096).heap().unwrap();
/// let first = producer.claim(8).unwrap();
/// let second = producer.claim(8).unwrap();
/// first.commit();
/// ```
pub struct Producer<M: Memory = Mapped> {
    pub(crate) memory: M,
    pub(crate) geometry: Geometry,
    /// Where the next record goes, and its sequence.
    pub(crate) head: Place,
    /// A record may start a commit word behind its end below this: the lesser of the frontier and
    /// the lap's end.
    limit: u64,
    /// As last published: consumers take everything below `frontier - capacity` for gone.
    pub(crate) frontier: u64,
    gate: Gate,
    checkpoint_version: u64,
    checkpointed: u64,
    index_entry: u64,
    not_sync: PhantomData<Cell<()>>,
}

/// A consumer as the producer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerView {
    /// Slot number in the consumer table.
    pub slot: usize,
    /// Name given when it attached.
    pub name: String,
    /// Process id as that process saw it.
    pub pid: u32,
    /// Messages published but not yet passed by it.
    pub lag_messages: u64,
    /// Bytes of ring between it and the head.
    pub lag_bytes: u64,
}

impl<M: Memory> Producer<M> {
    /// Takes over the stream as its last producer left it. The caller holds the producer's lease.
    pub(crate) fn start(memory: M, geometry: Geometry, pid: u32) -> Result<Self, RingError> {
        let (version, mut head) =
            checkpoint::read_checkpoint(&memory).ok_or(RingError::Unsteady)?;
        head.check(&geometry)?;
        // What was committed behind the last checkpoint is part of the stream. At most one lap.
        let end = head.position.saturating_add(geometry.capacity);
        while head.position < end {
            match checkpoint::step(&memory, &geometry, &mut head) {
                Step::Record(word) => head = head.after(&geometry, word),
                Step::Head => break,
                Step::Corrupt(word) => {
                    return Err(RingError::Corrupt { position: head.position, word: word.0 });
                }
            }
        }
        let left = memory.word(FRONTIER).load(Ordering::Relaxed);
        let frontier = left.clamp(head.position, head.position + geometry.capacity);
        let mut producer = Self {
            index_entry: geometry.index_entry(head.position),
            limit: 0, // the first publish takes the long way
            frontier,
            head,
            gate: Gate::new(geometry.slots),
            checkpoint_version: version,
            checkpointed: u64::MAX,
            memory,
            geometry,
            not_sync: PhantomData,
        };
        producer.checkpoint();
        // The last producer may have died between raising the frontier and looking for consumers
        // that joined below it: raise it again, look, and take back what they do not allow.
        producer.store_frontier(frontier);
        let (memory, g, head) = (&producer.memory, &producer.geometry, producer.head.position);
        if !g.lossy {
            producer.gate.free_dead(memory, g);
            producer.gate.rescan(memory, g, head);
            producer.store_frontier(frontier.min(producer.gate.limit()));
        }
        let set = |offset, value| producer.memory.word(offset).store(value, Ordering::Relaxed);
        set(PRODUCER_PID, u64::from(pid));
        set(PRODUCER_STATE, STATE_ACTIVE);
        add(&producer.memory, PRODUCER_STARTS);
        Ok(producer)
    }

    /// The session of the ring; see [`session_text`](crate::session_text).
    pub fn session(&self) -> u64 {
        // Relaxed: written once, before anybody could find the ring.
        self.memory.word(HEADER_SESSION).load(Ordering::Relaxed)
    }

    /// Sequence number that the ring began with, however long ago.
    pub fn first_sequence(&self) -> u64 {
        // Relaxed: as the session.
        self.memory.word(HEADER_FIRST_SEQUENCE).load(Ordering::Relaxed)
    }

    /// Sequence number that the next message will get.
    pub fn next_sequence(&self) -> u64 {
        self.head.sequence
    }

    /// Largest message this ring takes in one record, bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.geometry.max_message
    }

    /// Publishes a copy of `payload` and returns its sequence number. Never blocks.
    ///
    /// # Errors
    /// [`PublishError::Backpressure`] if a gating consumer is a whole ring behind (lossless rings
    /// only), [`PublishError::TooLong`] beyond [`max_message_bytes`](Self::max_message_bytes).
    #[inline(always)] // so that a payload of known length is copied without a call
    pub fn try_publish(&mut self, payload: &[u8]) -> Result<u64, PublishError> {
        self.try_publish_flagged(payload, Flags::WHOLE)
    }

    /// As [`try_publish`](Self::try_publish), for one fragment of a longer message.
    ///
    /// # Errors
    /// As for [`try_publish`](Self::try_publish).
    #[inline(always)]
    pub fn try_publish_flagged(
        &mut self,
        payload: &[u8],
        flags: Flags,
    ) -> Result<u64, PublishError> {
        let end = self.reserve(payload.len())?;
        let fill = |memory: &M, offset| {
            // SAFETY: `reserve` made sure that the record lies between head and frontier; `&mut
            // self` of the one producer makes the access exclusive, but for validating readers.
            unsafe { memory.copy_in(offset, payload) }
        };
        Ok(self.commit(end, payload.len(), flags, fill))
    }

    /// Claims `len` bytes in the ring to write a message in place; nothing is published before
    /// [`Claim::commit`], and dropping the claim gives the room back.
    ///
    /// # Errors
    /// As for [`try_publish`](Self::try_publish).
    #[inline]
    pub fn claim(&mut self, len: usize) -> Result<Claim<'_, M>, PublishError> {
        self.reserve(len)?;
        Ok(Claim::new(self, len))
    }

    /// Starts a batch: its messages appear together, by one store, or (dropped, or killed) not at
    /// all.
    pub fn batch(&mut self) -> Batch<'_, M> {
        Batch::new(self)
    }

    /// Room for a record of `len` bytes at the head. Returns where the record ends. Moves the head
    /// over padding if the lap has no room left.
    #[inline(always)]
    fn reserve(&mut self, len: usize) -> Result<u64, PublishError> {
        let end = self.head.position + self.geometry.record_bytes(len);
        if end >= self.limit || len > self.geometry.max_message {
            return self.make_room(len);
        }
        Ok(end)
    }

    /// The long way: wrap, move the frontier, look at the consumers, clear the word behind the
    /// record.
    #[inline(never)]
    fn make_room(&mut self, len: usize) -> Result<u64, PublishError> {
        let (start, end) = self.span(self.head.position, len)?;
        let need = end + self.geometry.alignment;
        if need > self.frontier {
            self.advance(need)?;
        }
        if start != self.head.position {
            let Place { position, sequence } = self.head;
            disarm(self.memory.word(self.geometry.offset(start)), sequence);
            let word = self.memory.word(self.geometry.offset(position));
            publish_word(word, CommitWord::padding(sequence));
            self.head.position = start;
        }
        let lap_end = self.geometry.lap_end(start);
        self.limit = self.frontier.min(lap_end + self.geometry.alignment);
        Ok(end)
    }

    /// Start and end of a record of `len` bytes if the last one ended at `position`: at the next
    /// lap if this one has no room for it in one piece.
    #[inline]
    pub(crate) fn span(&self, position: u64, len: usize) -> Result<(u64, u64), PublishError> {
        if len > self.geometry.max_message {
            return Err(PublishError::TooLong { len, max: self.geometry.max_message });
        }
        let record = self.geometry.record_bytes(len);
        let lap_end = self.geometry.lap_end(position);
        let start = if position + record > lap_end { lap_end } else { position };
        Ok((start, start + record))
    }

    /// Moves the frontier to `need` or beyond, so that everything below it may be written: no
    /// gating consumer is a whole ring behind it, and all have been told.
    pub(crate) fn advance(&mut self, need: u64) -> Result<(), PublishError> {
        if self.head.position != self.checkpointed {
            self.checkpoint();
        }
        let (memory, g, head) = (&self.memory, &self.geometry, self.head.position);
        // Never a whole lap ahead (a batch can ask for nearly that): the head stays readable.
        let target = (need + g.chunk()).min(head + g.capacity);
        if g.lossy {
            self.store_frontier(target);
            return Ok(());
        }
        if need > self.gate.limit() {
            self.gate.rescan(memory, g, head);
            while need > self.gate.limit() {
                if !self.gate.refuse(memory, g) {
                    return Err(PublishError::Backpressure { slot: self.gate.slowest() as u32 });
                }
                self.gate.rescan(memory, g, head);
            }
        }
        let before = self.frontier;
        self.store_frontier(target.min(self.gate.limit()));
        let (memory, g) = (&self.memory, &self.geometry);
        if self.gate.rescan_if_joined(memory, g, head) {
            // A consumer joined between our scan and our claim, at a place that it may have
            // checked against the old frontier: fall back to what it allows.
            if need > self.gate.limit() {
                self.store_frontier(before);
                return Err(PublishError::Backpressure { slot: self.gate.slowest() as u32 });
            }
            self.store_frontier(self.frontier.min(self.gate.limit()));
        }
        Ok(())
    }

    /// Tells consumers that everything below `frontier` may be written from now on.
    fn store_frontier(&mut self, frontier: u64) {
        self.frontier = frontier;
        // pairs with: LAPPED. Who sees it sees the checkpoint in front of it.
        self.memory.word(FRONTIER).store(frontier, Ordering::Release);
        // pairs with: FRONTIER. Whoever copies a byte that we write from now on sees, behind its
        // acquire fence, this frontier. pairs with: JOIN (SeqCst): a joiner that the scan behind
        // this misses sees this frontier.
        #[cfg(not(weaken_frontier))]
        fence(Ordering::SeqCst);
    }

    /// Writes where the stream stands.
    fn checkpoint(&mut self) {
        self.checkpointed = self.head.position;
        self.checkpoint_version = self.checkpoint_version.wrapping_add(1);
        checkpoint::write_checkpoint(&self.memory, self.checkpoint_version, self.head);
        let entry = self.geometry.index_entry(self.head.position);
        if entry != self.index_entry {
            self.index_entry = entry;
            checkpoint::write_index(&self.memory, &self.geometry, self.head);
        }
    }

    /// Publishes the record at the head, which ends at `end`; `fill` writes its payload.
    #[inline(always)]
    pub(crate) fn commit(
        &mut self,
        end: u64,
        len: usize,
        flags: Flags,
        fill: impl FnOnce(&M, usize),
    ) -> u64 {
        // All addresses before the first store, behind which the compiler would load them anew.
        let Place { position, sequence } = self.head;
        let offset = self.geometry.offset(position);
        let word = self.memory.word(offset);
        let next_word = self.memory.word(self.geometry.offset(end));
        fill(&self.memory, offset + RECORD_HEADER_BYTES);
        disarm(next_word, sequence + 1);
        publish_word(word, CommitWord::message(sequence, len, flags));
        self.head = Place { position: end, sequence: sequence + 1 };
        if self.geometry.parkable {
            self.wake_parked();
        }
        sequence
    }

    /// Publishes a batch whose later words stand already: with its first word, all is visible.
    pub(crate) fn commit_batch(&mut self, first: CommitWord, end: Place) {
        publish_word(self.memory.word(self.geometry.offset(self.head.position)), first);
        self.head = end;
        if self.geometry.parkable {
            self.wake_parked();
        }
    }

    /// Wakes sleeping consumers, if there are any.
    fn wake_parked(&mut self) {
        // pairs with: PARK. Either the consumer sees the message, or we see that it sleeps.
        #[cfg(not(weaken_park))]
        fence(Ordering::SeqCst);
        let parked = self.memory.word(self.geometry.table + TABLE_PARKED);
        if parked.load(Ordering::Relaxed) != 0 {
            // Relaxed: ordered before the epoch by its release.
            parked.store(0, Ordering::Relaxed);
            self.memory.word(WAKE_EPOCH).fetch_add(1, Ordering::Release); // pairs with: EPOCH
            self.memory.wake(WAKE_EPOCH);
        }
    }

    /// Counts an abandoned claim or batch. What it wrote lies behind the head, where each commit
    /// disarms the next word.
    pub(crate) fn count_abort(&mut self) {
        add(&self.memory, ABORTED_COUNT);
    }

    /// Records the time at which the producer was last known to be running, for inspection. Agents
    /// call it from their duty cycle; liveness does not depend on it.
    pub fn heartbeat(&mut self, unix_ns: u64) {
        // Relaxed: only shown to people.
        self.memory.word(PRODUCER_HEARTBEAT).store(unix_ns, Ordering::Relaxed);
    }

    /// The slowest gating consumer now, and how far behind it is; `None` without one.
    pub fn slowest(&mut self) -> Option<ConsumerView> {
        self.gate.rescan(&self.memory, &self.geometry, self.head.position);
        if self.gate.limit() == u64::MAX {
            return None;
        }
        let slot = self.gate.slowest();
        let field = |field| {
            let offset = self.geometry.slot_offset(slot) + field;
            // Relaxed: shown to people, compared with nothing.
            self.memory.word(offset).load(Ordering::Relaxed)
        };
        Some(ConsumerView {
            slot,
            name: slot_name(&self.memory, &self.geometry, slot),
            pid: field(SLOT_PID) as u32,
            lag_messages: self.head.sequence.saturating_sub(field(SLOT_SEQUENCE)),
            lag_bytes: self.head.position.saturating_sub(field(SLOT_POSITION)),
        })
    }

    /// Throws the consumer of a slot out, so that it no longer holds the producer up; its next poll
    /// returns [`PollError::Evicted`](crate::PollError::Evicted), whatever it had not read. False
    /// if there is none.
    ///
    /// # Errors
    /// [`PublishError::NotEvictable`] unless the ring was created
    /// [`evictable`](crate::RingOptions::evictable): consumers of other rings hold slices of it,
    /// which must not change under them. (End such a process instead: its lease falls with it.)
    pub fn evict(&mut self, slot: usize) -> Result<bool, PublishError> {
        if !self.geometry.evictable {
            return Err(PublishError::NotEvictable);
        }
        if slot >= self.geometry.slots {
            return Ok(false);
        }
        let state = SlotState::load(&self.memory, &self.geometry, slot);
        let gating = state.is_gating();
        Ok(gating && state.replace(&self.memory, &self.geometry, slot, state.evicted()))
    }
}

/// Makes sure that what an earlier lap, or an abandoned claim or batch, left in `word` is not taken
/// for the record of `sequence`. To be done before the record in front of it is committed: readers
/// look there next. Any other word there they take for "not yet", so nothing need be cleared
/// ahead, and a payload that imitates a commit word gains nothing.
#[inline(always)]
pub(crate) fn disarm(word: &AtomicU64, sequence: u64) {
    // Relaxed, both: the producer wrote what it reads; the commit that follows orders the rest.
    #[cfg(not(weaken_disarm))]
    if CommitWord(word.load(Ordering::Relaxed)).is(sequence) {
        word.store(0, Ordering::Relaxed);
    }
}

/// Makes a record visible, the disarmed word behind it first.
#[inline(always)]
fn publish_word(at: &AtomicU64, word: CommitWord) {
    #[cfg(not(weaken_commit))]
    let order = Ordering::Release;
    #[cfg(weaken_commit)]
    let order = Ordering::Relaxed;
    at.store(word.0, order); // pairs with: COMMIT
}

impl<M: Memory> Drop for Producer<M> {
    fn drop(&mut self) {
        if std::thread::panicking() || !self.memory.is_own() {
            // Not closed in order: readers see a producer that died, or the parent's that lives.
            return;
        }
        self.checkpoint();
        // pairs with: CLOSED. Whoever sees this sees every message.
        self.memory.word(PRODUCER_STATE).store(STATE_CLOSED, Ordering::Release);
        if self.geometry.parkable {
            self.wake_parked();
        }
    }
}
