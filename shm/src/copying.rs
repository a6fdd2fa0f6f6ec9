//! Reading what may be overwritten meanwhile: copy, then judge the copy; laps and evictions.
//!
//! For lossy rings, evictable rings and observers. A copy is handed out only if, behind an acquire
//! fence, the producer had not been allowed to write where it was taken from.

use crate::checkpoint::{self, Place, Step};
use crate::consumer::{Consumer, Message, PASSED_OVER_MAX};
use crate::error::PollError;
use crate::layout::RECORD_HEADER_BYTES;
use crate::memory::Memory;
use crate::sync::{Ordering, fence};

impl<M: Memory> Consumer<M> {
    /// `poll` through the private buffer, validating each copy.
    pub(crate) fn poll_copying(
        &mut self,
        limit: usize,
        handler: &mut impl FnMut(Message<'_>) -> bool,
    ) -> Result<usize, PollError> {
        let mut count = 0;
        let mut overruns = 0;
        let mut result = Ok(());
        for _ in 0..limit.saturating_add(PASSED_OVER_MAX) {
            if count == limit {
                break;
            }
            let mut place = self.next;
            let step = checkpoint::step(&self.memory, &self.geometry, &mut place);
            if let Step::Record(word) = step {
                let offset = self.geometry.offset(place.position) + RECORD_HEADER_BYTES;
                self.memory.copy_out(offset, &mut self.buffer[..word.len()]);
            }
            // pairs with: FRONTIER. If a byte of the copy, or the word, was the producer's next
            // lap, the frontier read below says so.
            #[cfg(not(weaken_validate))]
            fence(Ordering::Acquire);
            if self.is_overrun() {
                if count > 0 {
                    break; // told by the next poll
                }
                result = self.overrun().map_or(Ok(()), Err);
                overruns += 1;
                if result.is_err() || overruns > 1 {
                    break;
                }
                continue;
            }
            match step {
                Step::Record(word) => {
                    if place.sequence >= self.first_wanted {
                        let payload = &self.buffer[..word.len()];
                        let flags = word.flags();
                        if !handler(Message { sequence: place.sequence, payload, flags }) {
                            break;
                        }
                        count += 1;
                    }
                    self.next = place.after(&self.geometry, word);
                }
                Step::Head => {
                    if count == 0 {
                        result = self.found_nothing().map(|_| ());
                    }
                    break;
                }
                Step::Corrupt(word) => {
                    if count == 0 {
                        let position = place.position;
                        result = Err(PollError::Corrupt { position, word: word.0 });
                    }
                    break;
                }
            }
            if self.next.position - self.published >= self.cursor_batch {
                self.publish_cursor();
            }
        }
        if self.next.position != self.published {
            self.publish_cursor();
        }
        result.map(|()| count)
    }

    /// What it means that the next message is not there, if anything.
    #[cold]
    #[inline(never)]
    pub(crate) fn look_closer(&mut self) -> Option<PollError> {
        let (memory, g) = (&self.memory, &self.geometry);
        let mut place = self.next;
        let step = checkpoint::step(memory, g, &mut place);
        fence(Ordering::Acquire); // pairs with: FRONTIER
        if self.is_overrun() {
            return self.overrun();
        }
        let (memory, g) = (&self.memory, &self.geometry);
        let Place { position, .. } = place;
        match step {
            Step::Record(_) => None,
            Step::Corrupt(word) => Some(PollError::Corrupt { position, word: word.0 }),
            Step::Head if checkpoint::is_missing(memory, g, place) => {
                let word = memory.word(g.offset(position)).load(Ordering::Relaxed);
                Some(PollError::Corrupt { position, word })
            }
            Step::Head => None,
        }
    }

    /// Whether the producer has thrown this consumer out.
    pub(crate) fn was_evicted(&self) -> bool {
        self.slot.as_ref().is_some_and(|slot| slot.was_evicted(&self.memory))
    }

    /// Whether the next message, and whatever was copied of it in front of an acquire fence, may be
    /// overwritten. A consumer that gates goes by its slot: the producer raises the frontier over
    /// it for a moment when it joins, but overwrites nothing before it has been evicted.
    fn is_overrun(&self) -> bool {
        // pairs with: FRONTIER, through the caller's acquire fence. An eviction is followed by that
        // fence too before anything is written over.
        #[cfg(not(weaken_gate))]
        if self.gates {
            return self.was_evicted();
        }
        self.next.position < checkpoint::oldest_position(&self.memory, &self.geometry)
    }

    /// The producer has overwritten the next message: go on half a ring behind it (so that it is
    /// not lapped again at once), and say exactly what was missed.
    #[cold]
    #[inline(never)]
    fn overrun(&mut self) -> Option<PollError> {
        if self.was_evicted() {
            return Some(PollError::Evicted { next: self.next_sequence() });
        }
        fence(Ordering::Acquire); // pairs with: LAPPED. The checkpoint below is not older.
        let Some((_, newest)) = checkpoint::read_checkpoint(&self.memory) else {
            return Some(PollError::Unsteady);
        };
        if newest.check(&self.geometry).is_err() || newest.sequence < self.next.sequence {
            return Some(PollError::Corrupt { position: newest.position, word: 0 });
        }
        let half = newest.position.saturating_sub(self.geometry.capacity / 2);
        let from = half.max(self.next.position); // never back, should the frontier go back
        let resumed = checkpoint::place_at_or_after(&self.memory, &self.geometry, from, newest);
        let missed = resumed.sequence.saturating_sub(self.next_sequence());
        self.next = resumed;
        if missed == 0 {
            return None; // only messages in front of where this consumer asked to start
        }
        if let Some(slot) = &self.slot {
            slot.add_missed(&self.memory, missed);
        }
        Some(PollError::Lapped { missed, resumed_at: resumed.sequence })
    }
}
