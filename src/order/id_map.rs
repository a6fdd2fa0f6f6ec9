//! A map of fixed capacity from numbers to places in a table: open addressing, linear probing, at
//! most half full, and no tombstones, so that it is as fast at night as it was in the morning.
//!
//! It never allocates once made. It cannot be iterated: where an entry lies depends on a seed drawn
//! for each map, so that no client can choose numbers that all fall on one place; nothing that a
//! state machine answers or saves depends on it.

use std::hash::{BuildHasher, RandomState};

/// A value that stands for an empty slot.
const VACANT: u32 = u32::MAX;
/// An odd number without pattern (the fraction of the golden ratio).
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: u64,
    value: u32,
}

/// Up to a fixed number of `u64` keys, each with a `u32`.
///
/// ```
/// use gapless::order::IdMap;
///
/// let mut map = IdMap::new(2);
/// assert!(map.insert(1_000_000, 7) && map.insert(5, 8));
/// assert!(!map.insert(6, 9), "full");
/// assert_eq!((map.get(5), map.get(6)), (Some(8), None));
/// assert_eq!((map.remove(5), map.len()), (Some(8), 1));
/// ```
#[derive(Clone, Debug)]
pub struct IdMap {
    /// A power of two of them, at least twice the capacity.
    slots: Box<[Slot]>,
    len: usize,
    capacity: usize,
    seed: u64,
}

impl IdMap {
    /// Room for `capacity` entries: 32 to 64 bytes each.
    pub fn new(capacity: usize) -> Self {
        let slots = (capacity.max(1) * 2).next_power_of_two();
        Self {
            slots: vec![Slot { key: 0, value: VACANT }; slots].into(),
            len: 0,
            capacity,
            seed: RandomState::new().hash_one(0_u8),
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many entries fit.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Adds an entry; `false` if the map is full. Does not look whether the key is there already:
    /// two entries of one key both stand, and [`find`](Self::find) tells them apart.
    ///
    /// # Panics
    /// If `value` is `u32::MAX`.
    #[inline]
    pub fn insert(&mut self, key: u64, value: u32) -> bool {
        assert!(value != VACANT, "u32::MAX is no value of an IdMap");
        if self.len == self.capacity {
            return false;
        }
        let mut at = self.home(key);
        while self.slots[at].value != VACANT {
            at = self.next(at);
        }
        self.slots[at] = Slot { key, value };
        self.len += 1;
        true
    }

    /// The value of a key; of one that was added more than once, any.
    #[inline]
    pub fn get(&self, key: u64) -> Option<u32> {
        self.find(key, |_| true)
    }

    /// The value of a key that `is_it`: for keys that are a digest of something longer.
    #[inline]
    pub fn find(&self, key: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        self.place(key, is_it).map(|at| self.slots[at].value)
    }

    /// Takes out a key, and returns its value.
    #[inline]
    pub fn remove(&mut self, key: u64) -> Option<u32> {
        self.remove_where(key, |_| true)
    }

    /// Takes out the entry of a key whose value `is_it`, and returns the value.
    #[inline]
    pub fn remove_where(&mut self, key: u64, is_it: impl FnMut(u32) -> bool) -> Option<u32> {
        let at = self.place(key, is_it)?;
        let value = self.slots[at].value;
        self.vacate(at);
        self.len -= 1;
        Some(value)
    }

    /// Takes out everything.
    pub fn clear(&mut self) {
        self.slots.fill(Slot { key: 0, value: VACANT });
        self.len = 0;
    }

    #[inline]
    fn place(&self, key: u64, mut is_it: impl FnMut(u32) -> bool) -> Option<usize> {
        let mut at = self.home(key);
        loop {
            let slot = self.slots[at];
            if slot.value == VACANT {
                return None; // there is always one: at most half are taken
            }
            if slot.key == key && is_it(slot.value) {
                return Some(at);
            }
            at = self.next(at);
        }
    }

    /// Empties a slot, and moves back what had to give way to it.
    #[inline]
    fn vacate(&mut self, mut hole: usize) {
        let mask = self.slots.len() - 1;
        let mut at = hole;
        loop {
            at = self.next(at);
            let slot = self.slots[at];
            if slot.value == VACANT {
                break;
            }
            let from_home = at.wrapping_sub(self.home(slot.key)) & mask;
            if from_home >= at.wrapping_sub(hole) & mask {
                self.slots[hole] = slot;
                hole = at;
            }
        }
        self.slots[hole].value = VACANT;
    }

    #[inline]
    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }

    /// Where a key would like to be.
    #[inline]
    fn home(&self, key: u64) -> usize {
        let product = u128::from(key ^ self.seed) * u128::from(SPREAD);
        let mixed = (product >> 64) as u64 ^ product as u64;
        mixed as usize & (self.slots.len() - 1)
    }
}

#[cfg(test)]
#[path = "id_map_tests.rs"]
mod tests;
