//! The floor: the least that two processes can do to hand a message over, written by hand.
//!
//! One producer, one consumer, slots of a fixed size known at compile time: an 8-byte sequence word
//! that is also the publication, then the payload. A slot of one cache line carries 56 bytes. The
//! consumer writes its cursor back every 64 messages, the producer looks at it when the room it
//! knew of is used up. No wrap, no lengths, no liveness, no checks: nothing can be left out any
//! more.

use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};

use crate::link::{CAPACITY_BYTES, Link, Receiver, Sender};
use crate::mapping::Mapping;

const CURSOR: usize = 0;
const DATA: usize = 4096;
const CURSOR_BATCH: u64 = 64;

/// Floor rings for payloads of `N` bytes.
pub(crate) struct Floor<const N: usize>;

impl<const N: usize> Floor<N> {
    const STRIDE: usize = (N + 8).next_multiple_of(64);
    /// As many slots as the capacity of the measured ring holds, rounded down to a power of two.
    const SLOTS: u64 = 1 << (CAPACITY_BYTES / Self::STRIDE as u64).ilog2();

    /// Where the slot of message `number` starts.
    #[inline(always)]
    fn slot(number: u64) -> usize {
        DATA + (number & (Self::SLOTS - 1)) as usize * Self::STRIDE
    }
}

impl<const N: usize> Link for Floor<N> {
    type Sender = FloorSender<N>;
    type Receiver = FloorReceiver<N>;

    fn open_sender(&self, dir: &Path, channel: &str) -> Result<FloorSender<N>> {
        let bytes = DATA + Self::SLOTS as usize * Self::STRIDE;
        let map = Mapping::create(&dir.join(channel), bytes).context("create the floor ring")?;
        Ok(FloorSender { map, head: 0, limit: 0 })
    }

    fn open_receiver(&self, dir: &Path, channel: &str) -> Result<FloorReceiver<N>> {
        let map = Mapping::open(&dir.join(channel)).context("open the floor ring")?;
        Ok(FloorReceiver { map, next: 0 })
    }
}

/// The one producer.
pub(crate) struct FloorSender<const N: usize> {
    map: Mapping,
    head: u64,
    /// The consumer's cursor, as last seen, plus the number of slots.
    limit: u64,
}

impl<const N: usize> Sender for FloorSender<N> {
    #[inline(always)]
    fn try_send(&mut self, payload: &[u8]) -> bool {
        if self.head == self.limit {
            let cursor = self.map.word(CURSOR).load(Ordering::Acquire); // pairs with: FLOOR CURSOR
            self.limit = cursor + Floor::<N>::SLOTS;
            if self.head == self.limit {
                return false;
            }
        }
        let slot = Floor::<N>::slot(self.head);
        let payload: &[u8; N] = payload.try_into().expect("the link's payload size");
        // SAFETY: `slot` masks the number, so the slot is inside the file; its last reader has
        // passed it (cursor, above), its next one waits for the store below.
        unsafe { self.map.copy_in(slot + 8, payload) };
        // SAFETY: inside the file as above, and a multiple of 64.
        let word = unsafe { self.map.word_unchecked(slot) };
        self.head += 1;
        word.store(self.head, Ordering::Release); // pairs with: FLOOR COMMIT
        true
    }
}

/// The one consumer.
pub(crate) struct FloorReceiver<const N: usize> {
    map: Mapping,
    next: u64,
}

impl<const N: usize> Receiver for FloorReceiver<N> {
    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        for count in 0..limit {
            let slot = Floor::<N>::slot(self.next);
            // SAFETY: `slot` masks the number, so the slot is inside the file; a multiple of 64.
            let word = unsafe { self.map.word_unchecked(slot) };
            // pairs with: FLOOR COMMIT
            if word.load(Ordering::Acquire) != self.next + 1 {
                return count;
            }
            // SAFETY: inside the file; published (above), and not written again before the cursor
            // has passed it, which is behind the handler.
            handler(unsafe { self.map.bytes::<N>(slot + 8) });
            self.next += 1;
            if self.next.is_multiple_of(CURSOR_BATCH) {
                // pairs with: FLOOR CURSOR
                self.map.word(CURSOR).store(self.next, Ordering::Release);
            }
        }
        limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_arrives_once_and_in_order_over_many_laps() {
        let dir = tempfile::tempdir().unwrap();
        let mut sender = Floor::<48>.open_sender(dir.path(), "f").unwrap();
        let mut receiver = Floor::<48>.open_receiver(dir.path(), "f").unwrap();
        let (mut sent, mut seen) = (0u64, 0u64);
        while seen < 3 * Floor::<48>::SLOTS {
            let mut payload = [0; 48];
            payload[..8].copy_from_slice(&sent.to_le_bytes());
            while sender.try_send(&payload) {
                sent += 1;
                payload[..8].copy_from_slice(&sent.to_le_bytes());
            }
            assert!(sent - seen <= Floor::<48>::SLOTS);
            let read = receiver.poll(usize::MAX, |payload| {
                assert_eq!(payload[..8], seen.to_le_bytes());
                seen += 1;
            });
            assert!(read > 0);
        }
    }

    #[test]
    fn one_line_carries_56_bytes_and_1_kib_takes_17() {
        assert_eq!((Floor::<48>::STRIDE, Floor::<56>::STRIDE), (64, 64));
        assert_eq!((Floor::<57>::STRIDE, Floor::<1024>::STRIDE), (128, 1088));
        assert_eq!(Floor::<48>::SLOTS * 64, CAPACITY_BYTES);
    }
}
