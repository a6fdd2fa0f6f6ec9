//! The reading side of a ring: any number per stream, each at its own pace.
//!
//! On a lossless ring a gating consumer is handed slices of the ring itself: the producer cannot
//! touch them before the cursor has passed. Everybody else (lossy rings, evictable rings,
//! observers) is handed a private copy that was checked against the producer's frontier after it
//! was taken: whole, or not at all.

use std::cell::Cell;
use std::marker::PhantomData;

use crate::checkpoint::{self, Place, Step};
use crate::error::{PollError, RingError};
use crate::layout::{
    Geometry, HEADER_FIRST_SEQUENCE, HEADER_SESSION, PRODUCER_STATE, RECORD_HEADER_BYTES,
    TABLE_PARKED, WAKE_EPOCH,
};
use crate::memory::Memory;
use crate::producer::STATE_CLOSED;
use crate::record::{CommitWord, Flags};
use crate::region::Mapped;
use crate::slot::{Owner, Slot};
use crate::stride::Stride;
use crate::sync::{Ordering, fence};

/// The cursor is written back after this many bytes, and at the end of each poll: 64 small
/// messages. Every message would cost a quarter of the throughput, more gains nothing.
const CURSOR_BATCH_BYTES: u64 = 4096;
/// Attempts to join at a place that a flat-out producer keeps overwriting.
const JOIN_ATTEMPTS: usize = if cfg!(loom) { 2 } else { 1000 };

/// Messages in front of the first wanted one that one poll passes over at most.
pub(crate) const PASSED_OVER_MAX: usize = 4096;
/// A consumer looks for trouble after this many polls that found nothing.
const EMPTY_POLLS_CHECKED: u32 = 256;

/// One message, as delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Number of the message in its stream; the first of a stream is 1 unless it was created
    /// otherwise.
    pub sequence: u64,
    /// The bytes published.
    pub payload: &'a [u8],
    /// Whether the message is whole or a fragment.
    pub flags: Flags,
}

/// Where a consumer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Start {
    /// At the oldest message still in the ring.
    ///
    /// That is the oldest one that the ring's index still points to: up to 1/256 of the ring and
    /// 16 KiB more may be given up (1/32 of a ring below 1 MiB).
    Oldest,
    /// At this sequence number; one in the future is waited for.
    Sequence(u64),
    /// At the next message to be published.
    Now,
}

/// What became of the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProducerStatus {
    /// It holds its lease.
    Alive,
    /// It closed the stream in order; what it published can still be read. Ask *before* a poll that
    /// finds nothing to know that it was the last: a message may come between that poll and a later
    /// question.
    Closed,
    /// It died, or its host process did; what it committed can still be read, and a new producer
    /// may carry on.
    Dead,
}

/// How a consumer attaches.
pub(crate) struct Join<'a> {
    pub(crate) owner: Owner<'a>,
    pub(crate) start: Start,
    /// Slot whose lease the caller holds; `None` for an observer.
    pub(crate) slot: Option<usize>,
}

/// One reader of a ring.
///
/// `Send`, but not `Sync`. Dropping it gives its slot back. See [`Producer`](crate::Producer) for
/// an example of both sides.
///
/// One thread at a time:
///
/// ```compile_fail,E0277
/// fn shared<T: Sync>() {}
/// shared::<gapless_shm::Consumer>();
/// ```
///
/// and no payload outlives its poll, behind which the producer may overwrite it:
///
/// ```compile_fail,E0521
/// # let (_producer, ring) = gapless_shm::RingOptions::new().capacity_bytes(4096).heap().unwrap();
/// # let mut consumer = ring.subscribe("reader", gapless_shm::Start::Oldest).unwrap();
/// let mut kept: Vec<&[u8]> = Vec::new();
/// consumer.poll(1, |message| kept.push(message.payload)).unwrap();
/// ```
pub struct Consumer<M: Memory = Mapped> {
    pub(crate) memory: M,
    pub(crate) geometry: Geometry,
    /// The next message's place.
    pub(crate) next: Place,
    /// What the slot says instead of `next`, see [`hold`](Self::hold).
    pub(crate) held: Option<Place>,
    /// Cursor position as last written to the slot.
    pub(crate) published: u64,
    pub(crate) cursor_batch: u64,
    pub(crate) slot: Option<Slot>,
    /// Where messages are copied before they are handed out; empty on the zero-copy path.
    pub(crate) buffer: Box<[u8]>,
    /// Whether the producer was told to wait for this consumer.
    pub(crate) gates: bool,
    /// Whether messages are handed out as slices of the ring from now on.
    in_place: bool,
    /// Messages below this are passed over: the consumer asked to start there.
    pub(crate) first_wanted: u64,
    empty_polls: u32,
    stride: Stride,
    not_sync: PhantomData<Cell<()>>,
}

impl<M: Memory> Consumer<M> {
    pub(crate) fn join(memory: M, geometry: Geometry, join: &Join<'_>) -> Result<Self, RingError> {
        let gates = join.owner.gating && join.slot.is_some();
        let copies = !gates || geometry.lossy || geometry.evictable;
        let mut consumer = Self {
            next: Place { position: 0, sequence: 0 },
            held: None,
            published: 0,
            cursor_batch: CURSOR_BATCH_BYTES.min(geometry.capacity / 8),
            slot: None,
            buffer: if copies { vec![0; geometry.max_message].into() } else { Box::default() },
            gates,
            in_place: false,
            first_wanted: 0,
            empty_polls: 0,
            stride: Stride::default(),
            memory,
            geometry,
            not_sync: PhantomData,
        };
        for attempt in 0..JOIN_ATTEMPTS {
            let place = consumer.choose(join.start, attempt)?;
            match (&consumer.slot, join.slot) {
                (None, Some(number)) => {
                    let (memory, g) = (&consumer.memory, &consumer.geometry);
                    consumer.slot = Some(Slot::activate(memory, g, number, &join.owner, place));
                }
                (Some(slot), _) => slot.rejoin(&consumer.memory, &consumer.geometry, place),
                (None, None) => {}
            }
            (consumer.next, consumer.published) = (place, place.position);
            if consumer.settle(join.start, attempt)? {
                return Ok(consumer);
            }
        }
        Err(RingError::Unsteady)
    }

    /// An indexed place at or before where the consumer wants to start.
    fn choose(&self, start: Start, attempt: usize) -> Result<Place, RingError> {
        let (_, newest) = checkpoint::read_checkpoint(&self.memory).ok_or(RingError::Unsteady)?;
        newest.check(&self.geometry)?;
        Ok(match start {
            Start::Now => newest,
            Start::Oldest if attempt == 0 => {
                checkpoint::find_place(&self.memory, &self.geometry, None, newest)
            }
            // The oldest is what a flat-out producer overwrites first: leave it an eighth more of
            // the ring at each attempt.
            Start::Oldest => {
                let kept = self.geometry.capacity / 8 * 8_usize.saturating_sub(attempt) as u64;
                let from = newest.position.saturating_sub(kept);
                checkpoint::place_at_or_after(&self.memory, &self.geometry, from, newest)
            }
            Start::Sequence(n) => {
                checkpoint::find_place(&self.memory, &self.geometry, Some(n), newest)
            }
        })
    }

    /// Walks from the chosen place to the wanted one. False if the producer overran it meanwhile.
    fn settle(&mut self, start: Start, attempt: usize) -> Result<bool, RingError> {
        let end = self.next.position.saturating_add(self.geometry.capacity);
        loop {
            let mut place = self.next;
            let wanted = match start {
                Start::Oldest => true,
                Start::Sequence(n) => place.sequence >= n,
                Start::Now => false,
            };
            let step = if wanted {
                Step::Head
            } else {
                checkpoint::step(&self.memory, &self.geometry, &mut place)
            };
            // pairs with: FRONTIER
            #[cfg(not(weaken_join))]
            fence(Ordering::SeqCst); // pairs with: JOIN, on the first turn
            #[cfg(weaken_join)]
            fence(Ordering::Acquire);
            if self.next.position < checkpoint::oldest_position(&self.memory, &self.geometry) {
                return Ok(false);
            }
            match step {
                Step::Record(word) => self.next = place.after(&self.geometry, word),
                Step::Corrupt(word) => {
                    return Err(RingError::Corrupt { position: place.position, word: word.0 });
                }
                Step::Head
                    if !wanted && checkpoint::is_missing(&self.memory, &self.geometry, place) =>
                {
                    let word = self.memory.word(self.geometry.offset(place.position));
                    let word = word.load(Ordering::Relaxed);
                    return Err(RingError::Corrupt { position: place.position, word });
                }
                Step::Head => break,
            }
            if self.next.position >= end {
                break; // "now" moves on while we walk: after a lap, this is late enough
            }
        }
        if let Start::Sequence(wanted) = start {
            if self.next.sequence > wanted {
                // An older index entry may have been in the middle of a rewrite: look once more.
                if attempt == 0 {
                    return Ok(false);
                }
                return Err(RingError::SequenceGone { wanted, oldest: self.next.sequence });
            }
            self.first_wanted = wanted;
        }
        self.publish_cursor();
        Ok(true)
    }

    /// Bytes of data that the ring holds.
    pub fn capacity_bytes(&self) -> u64 {
        self.geometry.capacity
    }

    /// Longest message that the ring takes, bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.geometry.max_message
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

    /// Sequence number of the next message.
    pub fn next_sequence(&self) -> u64 {
        self.next.sequence.max(self.first_wanted)
    }

    /// Whether the producer waits for this consumer: on a lossless ring, until it is evicted.
    pub fn is_gating(&self) -> bool {
        self.gates && !self.was_evicted()
    }

    /// Hands up to `limit` messages to `handler`, in order, and returns how many it handed over.
    /// Never blocks; 0 means that there was none.
    ///
    /// A handler that panics leaves its message undelivered: the next poll starts with it.
    ///
    /// # Errors
    /// Only when nothing was handed over (otherwise the next poll returns the error).
    /// [`PollError::Lapped`] if a producer that does not wait for this consumer has overwritten
    /// what it had not read: says how many messages are gone; the next poll goes on behind them.
    /// [`PollError::Evicted`] if the producer threw this consumer out. [`PollError::Corrupt`] if
    /// the ring holds bytes that no producer writes.
    #[inline]
    pub fn poll(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(Message<'_>),
    ) -> Result<usize, PollError> {
        self.poll_while(limit, |message| {
            handler(message);
            true
        })
    }

    /// As [`poll`](Self::poll), until `handler` says no: the message that it refuses is not
    /// counted, and the next poll starts with it.
    ///
    /// ```
    /// # use gapless_shm::{RingOptions, Start};
    /// # let (mut producer, ring) = RingOptions::new().capacity_bytes(4096).heap()?;
    /// # let mut consumer = ring.subscribe("reader", Start::Oldest)?;
    /// for n in [1_u8, 2, 3] {
    ///     producer.try_publish(&[n])?;
    /// }
    /// let mut room = 2;
    /// let mut take = |message: gapless_shm::Message<'_>| {
    ///     room -= 1;
    ///     room >= 0
    /// };
    /// assert_eq!(consumer.poll_while(64, &mut take)?, 2);
    /// assert_eq!(consumer.next_sequence(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`poll`](Self::poll).
    #[inline(always)]
    pub fn poll_while(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(Message<'_>) -> bool,
    ) -> Result<usize, PollError> {
        if !self.in_place {
            return self.poll_otherwise(limit, &mut handler);
        }
        // The most frequent answer first: nothing yet. Relaxed: nothing is read behind it.
        let word = self.memory.word(self.geometry.offset(self.next.position));
        if !CommitWord(word.load(Ordering::Relaxed)).is(self.next.sequence) {
            return self.found_nothing();
        }
        self.poll_in_place(limit, handler)
    }

    /// `poll` where the next record is there, or was.
    #[inline(always)]
    fn poll_in_place(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(Message<'_>) -> bool,
    ) -> Result<usize, PollError> {
        let g = self.geometry;
        let mut count = 0;
        let mut odd = false;
        let mut progress = Progress { next: self.next, stride: self.stride, consumer: self };
        while count < limit {
            let Place { position, sequence } = progress.next;
            let memory = &progress.consumer.memory;
            let offset = g.offset(position);
            // Relaxed load and acquire fence: works on a read-only mapping.
            let word = CommitWord(memory.word(offset).load(Ordering::Relaxed));
            if !word.is(sequence) {
                break;
            }
            fence(Ordering::Acquire); // pairs with: COMMIT
            let bytes = g.record_bytes(word.len());
            if word.is_odd_or_longer_than(g.max_message) || !g.fits_lap(position, bytes) {
                let at_lap_start = g.fits_lap(position, g.capacity);
                odd = !word.is_padding() || word.has_reserved_bits() || at_lap_start;
                if odd {
                    break;
                }
                progress.next.position = g.lap_end(position);
                continue;
            }
            // SAFETY: the record is committed, lies within the data (checked above) and at or
            // above our published cursor, so the producer does not write it while this lives. Like
            // every slice of shared memory, it relies on all who may write the file keeping to
            // the protocol: see the crate's "Trust".
            let payload = unsafe { memory.bytes(offset + RECORD_HEADER_BYTES, word.len()) };
            if !handler(Message { sequence, payload, flags: word.flags() }) {
                break;
            }
            count += 1;
            let step = progress.stride.guess(bytes);
            progress.next = Place { position: position + step, sequence: sequence + 1 };
            if position - progress.consumer.published >= progress.consumer.cursor_batch {
                progress.publish();
            }
        }
        drop(progress);
        match (count, odd) {
            (0, true) => self.look_closer().map_or(Ok(0), Err),
            (0, false) => self.found_nothing(),
            _ => Ok(count),
        }
    }

    /// Ends a poll that found nothing. After many of them in a row it is time to make sure that
    /// nothing is wrong: a consumer set aside by the producer, or a damaged ring, looks like an
    /// idle one.
    #[inline(always)]
    pub(crate) fn found_nothing(&mut self) -> Result<usize, PollError> {
        self.empty_polls = self.empty_polls.wrapping_add(1);
        if self.empty_polls.is_multiple_of(EMPTY_POLLS_CHECKED) {
            return self.look_closer().map_or(Ok(0), Err);
        }
        Ok(0)
    }

    /// `poll` for all who are not handed slices of the ring.
    #[inline(never)] // keeps the zero-copy path small
    fn poll_otherwise(
        &mut self,
        limit: usize,
        handler: &mut impl FnMut(Message<'_>) -> bool,
    ) -> Result<usize, PollError> {
        if !self.buffer.is_empty() {
            return self.poll_copying(limit, handler);
        }
        self.pass_over_unwanted();
        if !self.in_place {
            return self.found_nothing();
        }
        self.poll_in_place(limit, handler)
    }

    /// Moves to the message that this consumer asked to start with, as far as the stream has come.
    fn pass_over_unwanted(&mut self) {
        for _ in 0..PASSED_OVER_MAX {
            if self.next.sequence >= self.first_wanted {
                break;
            }
            let mut place = self.next;
            let Step::Record(word) = checkpoint::step(&self.memory, &self.geometry, &mut place)
            else {
                break;
            };
            self.next = place.after(&self.geometry, word);
        }
        self.publish_cursor();
        self.in_place = self.next.sequence >= self.first_wanted;
    }

    #[inline(always)]
    pub(crate) fn publish_cursor(&mut self) {
        self.published = self.next.position;
        if let Some(slot) = self.slot.as_ref().filter(|_| self.held.is_none()) {
            slot.publish(&self.memory, self.next);
        }
    }

    /// What became of the producer. A system call while the stream is not closed: ask when polls
    /// stay empty, not between messages.
    pub fn producer_status(&self) -> ProducerStatus {
        // Relaxed load and fence: works on a read-only mapping.
        let state = self.memory.word(PRODUCER_STATE).load(Ordering::Relaxed);
        fence(Ordering::Acquire); // pairs with: CLOSED
        if state == STATE_CLOSED {
            ProducerStatus::Closed
        } else if self.memory.lease_held(crate::layout::PRODUCER_PAGE) {
            ProducerStatus::Alive
        } else {
            ProducerStatus::Dead
        }
    }

    /// Whether [`park`](crate::Waiter) works here: the ring was created parkable, and this consumer
    /// has a slot (an observer cannot write the ring, so cannot say that it sleeps).
    pub fn can_park(&self) -> bool {
        self.geometry.parkable && self.slot.is_some()
    }

    /// Sleeps until a message is there, `timeout` has passed, or for no reason.
    pub(crate) fn park(&self, timeout: std::time::Duration) {
        let epoch = self.memory.word(WAKE_EPOCH).load(Ordering::Relaxed);
        // pairs with: EPOCH. An epoch seen here is older than our mark, so a producer that has
        // taken the mark away also moves the epoch on, and the sleep below ends.
        fence(Ordering::Acquire);
        // Relaxed: ordered by the fence.
        self.memory.word(self.geometry.table + TABLE_PARKED).store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst); // pairs with: PARK
        let offset = self.geometry.offset(self.next.position);
        let word = CommitWord(self.memory.word(offset).load(Ordering::Relaxed));
        if !word.is(self.next.sequence)
            && self.memory.word(PRODUCER_STATE).load(Ordering::Relaxed) != STATE_CLOSED
        {
            self.memory.park(WAKE_EPOCH, epoch as u32, timeout);
        }
    }
}

/// How far a poll has come: kept apart so that it stays in registers, and written back however
/// the poll ends (also by a panic of the handler).
struct Progress<'a, M: Memory> {
    next: Place,
    stride: Stride,
    consumer: &'a mut Consumer<M>,
}

impl<M: Memory> Progress<'_, M> {
    #[inline(always)]
    fn publish(&mut self) {
        self.consumer.next = self.next;
        self.consumer.publish_cursor();
    }
}

impl<M: Memory> Drop for Progress<'_, M> {
    #[inline(always)]
    fn drop(&mut self) {
        self.consumer.next = self.next;
        self.consumer.stride = self.stride;
        if self.next.position != self.consumer.published {
            self.consumer.publish_cursor();
        }
    }
}

impl<M: Memory> Drop for Consumer<M> {
    fn drop(&mut self) {
        if let Some(slot) = &self.slot
            && self.memory.is_own()
        {
            slot.free(&self.memory, &self.geometry);
        }
    }
}
