//! Reading again what a consumer has passed: for whoever keeps no copy of its own.
//!
//! Costs the producer nothing and reserves nothing: what is behind the consumer's cursor stays
//! until the producer needs the room. A copy is taken, and then judged by the producer's frontier.

use crate::checkpoint::{self, Place, Step};
use crate::consumer::Consumer;
use crate::layout::RECORD_HEADER_BYTES;
use crate::memory::Memory;
use crate::record::Flags;
use crate::sync::{Ordering, fence};

/// What [`Consumer::look_back`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookBack {
    /// The record, whose payload is now in the first `len` bytes of the buffer.
    Record {
        /// Length of the payload, bytes.
        len: usize,
        /// Whether the message is whole or a fragment.
        flags: Flags,
        /// The place of the record behind it.
        next: Place,
    },
    /// The payload does not fit the buffer, which is unchanged.
    TooLong {
        /// Its length, bytes.
        len: usize,
        /// The place of the record behind it.
        next: Place,
    },
    /// The stream has not come this far.
    NotYet,
    /// The record was overwritten.
    Gone,
}

impl<M: Memory> Consumer<M> {
    /// The place of the next message: for a later [`look_back`](Self::look_back).
    pub fn place(&self) -> Place {
        self.next
    }

    /// Keeps the producer from overwriting what stands at `place` and behind it, although this
    /// consumer has passed it; a later call with a later place lets go of what is in between. From
    /// the first call on the producer goes by this alone. A gating consumer of a lossless ring can
    /// hold what it has itself not let go of: an earlier place than the last one, or one that it
    /// has not come to yet, changes nothing.
    pub fn hold(&mut self, place: Place) {
        let least = self.held.map_or(self.published, |held| held.position);
        let may_hold = (least..=self.next.position).contains(&place.position);
        if let Some(slot) = self.slot.as_ref().filter(|_| may_hold) {
            slot.publish(&self.memory, place);
            self.held = Some(place);
        }
    }

    /// Bytes behind this consumer that it [holds](Self::hold).
    pub fn held_bytes(&self) -> u64 {
        self.held.map_or(0, |held| self.next.position - held.position)
    }

    /// Copies the payload of the record at `place` into `buffer`.
    ///
    /// ```
    /// # use gapless_shm::{LookBack, RingOptions, Start};
    /// # let (mut producer, ring) = RingOptions::new().capacity_bytes(4096).heap()?;
    /// let mut consumer = ring.subscribe("sender", Start::Oldest)?;
    /// let first = consumer.place();
    /// producer.try_publish(b"again")?;
    /// consumer.poll(1, |_| ())?;
    ///
    /// let mut buffer = [0; 64];
    /// let LookBack::Record { len, .. } = consumer.look_back(first, &mut buffer) else { panic!() };
    /// assert_eq!(&buffer[..len], b"again");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn look_back(&self, place: Place, buffer: &mut [u8]) -> LookBack {
        let (memory, g) = (&self.memory, &self.geometry);
        let mut at = place;
        let step = checkpoint::step(memory, g, &mut at);
        let found = match step {
            Step::Record(word) if word.len() > buffer.len() => {
                LookBack::TooLong { len: word.len(), next: at.after(g, word) }
            }
            Step::Record(word) => {
                let offset = g.offset(at.position) + RECORD_HEADER_BYTES;
                memory.copy_out(offset, &mut buffer[..word.len()]);
                let next = at.after(g, word);
                LookBack::Record { len: word.len(), flags: word.flags(), next }
            }
            Step::Head => LookBack::NotYet,
            Step::Corrupt(_) => LookBack::Gone,
        };
        // pairs with: FRONTIER. If a byte of the copy, or the word, was the producer's next lap,
        // the frontier read below says so.
        fence(Ordering::Acquire);
        if place.position < checkpoint::oldest_position(memory, g) { LookBack::Gone } else { found }
    }

    /// The place of a record by its sequence number; `None` if it is overwritten, or not there yet.
    /// Walks up to 1/256 of the ring.
    pub fn find(&self, sequence: u64) -> Option<Place> {
        let (memory, g) = (&self.memory, &self.geometry);
        let (_, newest) = checkpoint::read_checkpoint(memory)?;
        newest.check(g).ok()?;
        let mut place = checkpoint::find_place(memory, g, Some(sequence), newest);
        let end = place.position.saturating_add(g.capacity);
        while place.sequence < sequence && place.position < end {
            let Step::Record(word) = checkpoint::step(memory, g, &mut place) else {
                return None;
            };
            place = place.after(g, word);
        }
        // pairs with: FRONTIER. No word read above was of the next lap if the place is retained.
        fence(Ordering::Acquire);
        let retained = place.position >= checkpoint::oldest_position(memory, g);
        (place.sequence == sequence && retained).then_some(place)
    }

    /// The sequence number of the oldest record that the ring still holds (up to 1/256 of the ring
    /// may be given up), or of the next one if it holds none.
    pub fn oldest_sequence(&self) -> u64 {
        let (memory, g) = (&self.memory, &self.geometry);
        match checkpoint::read_checkpoint(memory) {
            Some((_, newest)) if newest.check(g).is_ok() => {
                checkpoint::find_place(memory, g, None, newest).sequence
            }
            _ => self.next.sequence,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{RingOptions, Start};

    #[test]
    fn what_is_held_stays() {
        let (mut producer, ring) = RingOptions::new().capacity_bytes(4096).heap().unwrap();
        let mut consumer = ring.subscribe("sender", Start::Oldest).unwrap();
        let first = consumer.place();
        consumer.hold(first);
        let fill = |producer: &mut crate::Producer<_>, consumer: &mut Consumer<_>| {
            while producer.try_publish(b"x").is_ok() {
                consumer.poll(8, |_| ()).unwrap();
            }
            consumer.next_sequence()
        };
        let end = fill(&mut producer, &mut consumer);
        assert!((50..=64).contains(&end), "{end}");
        assert!(matches!(consumer.look_back(first, &mut [0; 8]), LookBack::Record { .. }));
        let half = consumer.find(end / 2).unwrap();
        consumer.hold(half);
        consumer.hold(first); // changes nothing
        assert!(fill(&mut producer, &mut consumer) > end + 20);
        assert!(matches!(consumer.look_back(half, &mut [0; 8]), LookBack::Record { .. }));
        assert_eq!(consumer.look_back(first, &mut [0; 8]), LookBack::Gone);
    }

    #[test]
    #[cfg(not(miri))] // thousands of walks: minutes of interpretation for what the other test has
    fn what_was_passed_can_be_read_until_it_is_overwritten() {
        let (mut producer, ring) = RingOptions::new().capacity_bytes(1 << 16).heap().unwrap();
        let mut consumer = ring.subscribe("sender", Start::Oldest).unwrap();
        let first = consumer.place();
        assert_eq!(consumer.look_back(first, &mut [0; 8]), LookBack::NotYet);
        let count = 10_000;
        for n in 1..=count {
            producer.try_publish(&u64::to_le_bytes(n)).unwrap();
            assert_eq!(consumer.poll(8, |_| ()).unwrap(), 1);
        }
        assert_eq!(consumer.look_back(first, &mut [0; 8]), LookBack::Gone);
        let oldest = consumer.oldest_sequence();
        assert!((count - 1_030..count - 900).contains(&oldest), "{oldest}");
        assert_eq!((consumer.find(1), consumer.find(count + 1)), (None, Some(consumer.place())));
        assert_eq!(consumer.find(count + 2), None);
        let mut place = consumer.find(oldest).unwrap();
        let short = consumer.look_back(place, &mut [0; 7]);
        assert!(matches!(short, LookBack::TooLong { len: 8, .. }), "{short:?}");
        for n in oldest..=count {
            assert_eq!(consumer.find(n).unwrap().sequence(), n);
            let mut buffer = [0; 8];
            match consumer.look_back(place, &mut buffer) {
                LookBack::Record { len: 8, flags: Flags::WHOLE, next } => place = next,
                other => panic!("{n}: {other:?}"),
            }
            assert_eq!(u64::from_le_bytes(buffer), n);
        }
        assert_eq!(place, consumer.place());
    }
}
