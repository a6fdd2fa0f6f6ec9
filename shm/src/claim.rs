//! Writing in place: one claimed message, or a batch that appears at once.

use std::ops::{Deref, DerefMut};

use crate::checkpoint::Place;
use crate::error::PublishError;
use crate::layout::RECORD_HEADER_BYTES;
use crate::memory::Memory;
use crate::producer::{Producer, disarm};
use crate::record::{CommitWord, Flags};
use crate::region::Mapped;
use crate::sync::Ordering;

/// Room for one message, in the ring itself. [`commit`](Self::commit) publishes it; dropping it
/// aborts, and the room is used by the next message. The bytes are whatever an earlier message
/// left there.
///
/// ```
/// # let (mut producer, _ring) = gapless_shm::RingOptions::new().capacity_bytes(4096).heap()?;
/// let mut claim = producer.claim(100)?;
/// claim[..5].copy_from_slice(b"hello");
/// claim.truncate(5);
/// assert_eq!(claim.commit(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a claim that is dropped publishes nothing"]
pub struct Claim<'a, M: Memory = Mapped> {
    producer: &'a mut Producer<M>,
    /// Where the message is written on memories that are not written in place; else empty.
    aside: Vec<u8>,
    len: usize,
    flags: Flags,
    committed: bool,
}

impl<'a, M: Memory> Claim<'a, M> {
    pub(crate) fn new(producer: &'a mut Producer<M>, len: usize) -> Self {
        let aside = if M::IN_PLACE { Vec::new() } else { vec![0; len] };
        Self { producer, aside, len, flags: Flags::WHOLE, committed: false }
    }

    /// Shortens the message to `len` bytes; a longer `len` changes nothing.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Marks the message as a fragment.
    pub fn set_flags(&mut self, flags: Flags) {
        self.flags = flags;
    }

    /// Publishes the message and returns its sequence number.
    #[inline]
    pub fn commit(mut self) -> u64 {
        self.committed = true;
        let producer = &mut *self.producer;
        let end = producer.head.position + producer.geometry.record_bytes(self.len);
        let aside = &self.aside[..if M::IN_PLACE { 0 } else { self.len }];
        producer.commit(end, self.len, self.flags, |memory, offset| {
            if !M::IN_PLACE {
                // SAFETY: the claimed range lies between head and frontier; the claim borrows the
                // one producer exclusively.
                unsafe { memory.copy_in(offset, aside) }
            }
        })
    }

    fn payload_offset(&self) -> usize {
        self.producer.geometry.offset(self.producer.head.position) + RECORD_HEADER_BYTES
    }
}

impl<M: Memory> Deref for Claim<'_, M> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        if !M::IN_PLACE {
            return &self.aside[..self.len];
        }
        // SAFETY: the claimed range lies between head and frontier, where only this producer
        // writes, and the claim borrows that producer exclusively.
        unsafe { self.producer.memory.bytes(self.payload_offset(), self.len) }
    }
}

impl<M: Memory> DerefMut for Claim<'_, M> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        if !M::IN_PLACE {
            return &mut self.aside[..self.len];
        }
        // SAFETY: as for `deref`; `&mut self` excludes any other slice of the range.
        unsafe { self.producer.memory.bytes_mut(self.payload_offset(), self.len) }
    }
}

impl<M: Memory> Drop for Claim<'_, M> {
    #[inline]
    fn drop(&mut self) {
        if !self.committed {
            self.producer.count_abort();
        }
    }
}

/// Several messages that appear together: one release store publishes them all.
///
/// ```
/// # let (mut producer, _ring) = gapless_shm::RingOptions::new().capacity_bytes(4096).heap()?;
/// let mut batch = producer.batch();
/// batch.push(b"one")?;
/// batch.push(b"two")?;
/// assert_eq!(batch.commit(), 2); // messages published
/// assert_eq!(producer.next_sequence(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a batch that is dropped publishes nothing"]
pub struct Batch<'a, M: Memory = Mapped> {
    producer: &'a mut Producer<M>,
    /// Behind the last message of the batch.
    end: Place,
    /// The commit word of the batch's first message, held back until `commit`.
    first: Option<CommitWord>,
}

impl<'a, M: Memory> Batch<'a, M> {
    pub(crate) fn new(producer: &'a mut Producer<M>) -> Self {
        let end = producer.head;
        Self { producer, end, first: None }
    }

    /// Adds a message and returns the sequence number that it will have.
    ///
    /// # Errors
    /// As for [`Producer::try_publish`], and [`PublishError::BatchTooLong`] if the batch would fill
    /// more than the ring. The batch keeps what it had: commit that, and go on in another.
    pub fn push(&mut self, payload: &[u8]) -> Result<u64, PublishError> {
        let producer = &mut *self.producer;
        let (start, end) = producer.span(self.end.position, payload.len())?;
        let capacity = producer.geometry.capacity;
        let need = end + producer.geometry.alignment;
        if need - producer.head.position > capacity {
            // It would overwrite its own first record, and no consumer can make room for it.
            return Err(PublishError::BatchTooLong { capacity_bytes: capacity });
        }
        if need > producer.frontier {
            producer.advance(need)?;
        }
        if start != self.end.position {
            // Padding up to the end of the lap becomes part of the batch.
            let sequence = self.end.sequence;
            self.hold_or_store(start, CommitWord::padding(sequence), sequence);
            self.end.position = start;
        }
        let producer = &mut *self.producer;
        let offset = producer.geometry.offset(start) + RECORD_HEADER_BYTES;
        // SAFETY: `advance` made sure that the record lies between head and frontier; the batch
        // borrows the one producer exclusively.
        unsafe { producer.memory.copy_in(offset, payload) };
        let sequence = self.end.sequence;
        let word = CommitWord::message(sequence, payload.len(), Flags::WHOLE);
        self.hold_or_store(end, word, sequence + 1);
        self.end = Place { position: end, sequence: sequence + 1 };
        Ok(sequence)
    }

    /// Stores the commit word at the batch's end, or keeps it back if it is the first: nobody looks
    /// at the others before that one is there.
    fn hold_or_store(&mut self, end: u64, word: CommitWord, next_sequence: u64) {
        let producer = &mut *self.producer;
        disarm(producer.memory.word(producer.geometry.offset(end)), next_sequence);
        if self.first.is_none() {
            self.first = Some(word);
        } else {
            // Relaxed: published by the first word's release.
            let offset = producer.geometry.offset(self.end.position);
            producer.memory.word(offset).store(word.0, Ordering::Relaxed);
        }
    }

    /// Messages in the batch so far.
    pub fn len(&self) -> u64 {
        self.end.sequence - self.producer.head.sequence
    }

    /// Whether the batch holds no message.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Publishes the batch and returns how many messages it held.
    pub fn commit(mut self) -> u64 {
        let count = self.len();
        if let Some(word) = self.first.take() {
            self.producer.commit_batch(word, self.end);
        }
        count
    }
}

impl<M: Memory> Drop for Batch<'_, M> {
    fn drop(&mut self) {
        if self.first.is_some() {
            self.producer.count_abort();
        }
    }
}
