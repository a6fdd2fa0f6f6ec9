//! Which packet a message left in: the sender's index into its ring, one entry a packet.
//!
//! Finding a message takes a binary search and a walk over the packet's messages. What is older
//! than the index is looked up in the ring's own, which is coarser.

use gapless_shm::Place;

/// A packet that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    /// Place of its first message.
    pub(crate) place: Place,
    /// Cost of all packets in front of it.
    pub(crate) cost: u64,
}

/// The newest packets sent, oldest first.
#[derive(Debug)]
pub(crate) struct History {
    entries: Box<[Sent]>,
    /// Packets ever sent; the newest is at `count - 1`, modulo the length.
    count: u64,
}

impl History {
    /// Room for `packets`, rounded up to a power of two.
    pub(crate) fn new(packets: usize, start: Place) -> Self {
        let entries = vec![Sent { place: start, cost: 0 }; packets.next_power_of_two()];
        Self { entries: entries.into(), count: 0 }
    }

    #[inline]
    pub(crate) fn push(&mut self, sent: Sent) {
        let slot = self.slot(self.count);
        self.entries[slot] = sent;
        self.count += 1;
    }

    fn slot(&self, number: u64) -> usize {
        number as usize & (self.entries.len() - 1)
    }

    /// Numbers of the packets that are remembered.
    #[inline]
    pub(crate) fn numbers(&self) -> std::ops::Range<u64> {
        self.count.saturating_sub(self.entries.len() as u64)..self.count
    }

    /// Place of the first message of a packet that is remembered.
    #[inline]
    pub(crate) fn place(&self, number: u64) -> Place {
        self.entries[self.slot(number)].place
    }

    /// The packet that message `sequence` left in, unless it is forgotten. Asked for one that has
    /// not left yet, it returns the last.
    pub(crate) fn find(&self, sequence: u64) -> Option<Sent> {
        let std::ops::Range { start: mut from, end: mut to } = self.numbers();
        // The last entry whose first message is not behind the wanted one is in [from, to).
        while to - from > 1 {
            let middle = from + (to - from) / 2;
            if self.entries[self.slot(middle)].place.sequence() <= sequence {
                from = middle;
            } else {
                to = middle;
            }
        }
        let found = *self.entries.get(self.slot(from)).filter(|_| to > from)?;
        (found.place.sequence() <= sequence).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gapless_shm::{RingOptions, Start};

    #[test]
    fn finds_the_packet_of_each_message_it_remembers() {
        let (mut producer, ring) = RingOptions::new().capacity_bytes(1 << 16).heap().unwrap();
        let mut consumer = ring.subscribe("sender", Start::Oldest).unwrap();
        let mut history = History::new(8, consumer.place());
        assert!(history.find(1).is_none());
        for packet in 0..20_u64 {
            history.push(Sent { place: consumer.place(), cost: packet });
            for _ in 0..3 {
                producer.try_publish(b"x").unwrap();
            }
            consumer.poll(3, |_| ()).unwrap();
        }
        for sequence in 1..=60 {
            let packet = (sequence - 1) / 3;
            let found = history.find(sequence).map(|sent| sent.cost);
            assert_eq!(found, (packet >= 12).then_some(packet), "{sequence}");
        }
        assert_eq!(history.find(1000).map(|sent| sent.cost), Some(19));
    }
}
