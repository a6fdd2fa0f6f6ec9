//! What arrived ahead of a gap: whole blocks, by sequence, in a buffer of fixed size.
//!
//! Bytes are kept in the order of arrival in one ring, so that nothing is allocated and nothing
//! fragments; what is delivered first need not have come first, and its room becomes free when
//! everything that came before it has gone too.

use std::collections::VecDeque;

/// Messages that follow each other, as blocks of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Sequence of the first message.
    pub(crate) first: u64,
    /// Behind the last.
    pub(crate) end: u64,
    at: u64,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
struct Room {
    at: u64,
    end: u64,
    used: bool,
}

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    bytes: Box<[u8]>,
    /// Rooms in use, in order of arrival; positions only grow, and are taken modulo the length.
    rooms: VecDeque<Room>,
    rooms_max: usize,
    /// By sequence.
    held: VecDeque<Held>,
}

impl Store {
    pub(crate) fn new(bytes: usize, packets: usize) -> Self {
        Self {
            bytes: vec![0; bytes].into(),
            rooms: VecDeque::with_capacity(packets),
            rooms_max: packets,
            held: VecDeque::with_capacity(packets),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.rooms.clear();
        self.held.clear();
    }

    /// Keeps blocks (not empty) of the messages from `first` to before `end`, none of which it
    /// holds. False if there is no room.
    pub(crate) fn insert(&mut self, first: u64, end: u64, blocks: &[u8]) -> bool {
        let size = self.bytes.len() as u64;
        let len = blocks.len() as u64;
        let head = self.rooms.back().map_or(0, |room| room.end);
        // Blocks lie in one piece: those that would pass the end start over at the front.
        let lap_left = size - head % size;
        let at = if len <= lap_left { head } else { head + lap_left };
        let tail = self.rooms.front().map_or(at, |room| room.at);
        if len > size || at + len - tail > size || self.rooms.len() == self.rooms_max {
            return false;
        }
        let start = (at % size) as usize;
        self.bytes[start..start + blocks.len()].copy_from_slice(blocks);
        self.rooms.push_back(Room { at, end: at + len, used: true });
        let held = Held { first, end, at, bytes: blocks.len() };
        let index = self.held.partition_point(|other| other.first < first);
        self.held.insert(index, held);
        true
    }

    /// The first blocks by sequence.
    pub(crate) fn front(&self) -> Option<(Held, &[u8])> {
        let held = *self.held.front()?;
        let start = (held.at % self.bytes.len() as u64) as usize;
        Some((held, &self.bytes[start..start + held.bytes]))
    }

    /// Takes the first blocks away, or their first messages: `left` are the bytes of those that
    /// stay, from message `first` on.
    pub(crate) fn advance(&mut self, first: u64, left: usize) {
        let Some(held) = self.held.front_mut() else { return };
        if first < held.end {
            held.at += (held.bytes - left) as u64;
            (held.first, held.bytes) = (first, left);
            return;
        }
        let at = held.at;
        self.held.pop_front();
        self.free(at);
    }

    /// Forgets all blocks whose first message is `sequence` or behind it. Returns where the last of
    /// those that stay end.
    pub(crate) fn truncate(&mut self, sequence: u64) -> Option<u64> {
        while let Some(held) = self.held.back().copied() {
            if held.first < sequence {
                return Some(held.end);
            }
            self.held.pop_back();
            self.free(held.at);
        }
        None
    }

    fn free(&mut self, at: u64) {
        let index = self.rooms.partition_point(|room| room.end <= at);
        if let Some(room) = self.rooms.get_mut(index) {
            room.used = false;
        }
        while self.rooms.front().is_some_and(|room| !room.used) {
            self.rooms.pop_front();
        }
    }

    /// Bytes of blocks held.
    pub(crate) fn used_bytes(&self) -> usize {
        self.held.iter().map(|held| held.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Random;
    use std::collections::BTreeMap;

    #[test]
    fn keeps_blocks_by_sequence_whatever_the_order_of_arrival() {
        let mut store = Store::new(10, 8);
        assert!(store.insert(5, 7, b"five"));
        assert!(store.insert(3, 4, b"abc"));
        assert!(!store.insert(9, 10, b"xyzw"), "7 of 10 bytes are taken");
        assert_eq!(store.front().map(|(held, bytes)| (held.first, bytes)), Some((3, &b"abc"[..])));
        store.advance(4, 0);
        assert!(!store.insert(9, 10, b"xyzw"), "`five` came first and still stands there");
        store.advance(6, 2);
        assert_eq!(store.front().map(|(held, bytes)| (held.first, bytes)), Some((6, &b"ve"[..])));
        store.advance(7, 0);
        assert!(store.held.is_empty() && store.rooms.is_empty());
        assert!(!store.insert(1, 2, &[0; 11]));
    }

    #[test]
    fn agrees_with_a_map() {
        let mut random = Random::new(1);
        let mut store = Store::new(1000, 32);
        let mut model = BTreeMap::new();
        for n in 0..100_000_u64 {
            match random.below(5) {
                0 | 1 => {
                    let first = random.below(1000) * 10;
                    let bytes = vec![n as u8; 1 + random.below(60) as usize];
                    if let std::collections::btree_map::Entry::Vacant(entry) = model.entry(first)
                        && store.insert(first, first + 10, &bytes)
                    {
                        entry.insert(bytes);
                    }
                }
                2 | 3 => {
                    let front = store.front().map(|(held, bytes)| (held.first, bytes.to_vec()));
                    assert_eq!(front, model.pop_first());
                    store.advance(front.map_or(0, |(first, _)| first + 10), 0);
                }
                _ => {
                    let sequence = random.below(20_000);
                    let end = store.truncate(sequence);
                    model.retain(|first, _| *first < sequence);
                    assert_eq!(end, model.last_key_value().map(|(first, _)| first + 10));
                }
            }
            assert_eq!(store.used_bytes(), model.values().map(Vec::len).sum::<usize>());
            assert_eq!(store.held.is_empty(), store.rooms.is_empty());
        }
    }
}
