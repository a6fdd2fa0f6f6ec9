//! The producer's view of the consumers that it must not overrun.
//!
//! Cursors are read only when the room known from the last scan is used up, so a publish costs the
//! same for one consumer or sixty. A consumer that died is found by its lease, one whose cursor
//! makes no sense is set aside: neither stops the producer.

use crate::layout::{
    BACKPRESSURE_COUNT, Geometry, QUARANTINED_COUNT, RECLAIMED_COUNT, SLOT_POSITION, SLOT_STALLS,
    TABLE_JOINS,
};
use crate::memory::Memory;
use crate::slot::SlotState;
use crate::sync::Ordering;

pub(crate) struct Gate {
    /// Slots that were gating when `joins_seen` was read.
    active: Vec<usize>,
    joins_seen: u64,
    /// The slowest cursor plus the capacity, as of the last scan. Cursors only move on, so it is
    /// too low if anything, but for a joiner not yet seen: `Producer::advance` looks for those.
    limit: u64,
    slowest: usize,
}

impl Gate {
    pub(crate) fn new(slots: usize) -> Self {
        Self {
            active: Vec::with_capacity(slots), // never grows later: no allocation while publishing
            joins_seen: u64::MAX,
            limit: 0,
            slowest: 0,
        }
    }

    /// The producer may write below this, as far as the last scan knows.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Slot of the slowest gating consumer at the last scan.
    pub(crate) fn slowest(&self) -> usize {
        self.slowest
    }

    /// Rescans if a consumer has attached since the last scan; says whether it did.
    pub(crate) fn rescan_if_joined<M: Memory>(
        &mut self,
        memory: &M,
        g: &Geometry,
        head: u64,
    ) -> bool {
        // Relaxed: the caller's SeqCst fence orders it behind the frontier (JOIN).
        let joins = memory.word(g.table + TABLE_JOINS).load(Ordering::Relaxed);
        if joins == self.joins_seen {
            return false;
        }
        self.rescan(memory, g, head);
        true
    }

    /// Reads every gating cursor.
    pub(crate) fn rescan<M: Memory>(&mut self, memory: &M, g: &Geometry, head: u64) {
        // pairs with: JOINS. A slot activated before this count is seen below.
        let joins = memory.word(g.table + TABLE_JOINS).load(Ordering::Acquire);
        if joins != self.joins_seen {
            self.joins_seen = joins;
            self.active.clear();
            self.active
                .extend((0..g.slots).filter(|&slot| SlotState::load(memory, g, slot).is_gating()));
        }
        let mut limit = u64::MAX;
        let mut slowest = 0;
        let mut at = 0;
        while let Some(&slot) = self.active.get(at) {
            match gating_cursor(memory, g, slot, head) {
                Cursor::At(cursor) => {
                    if cursor + g.capacity < limit {
                        limit = cursor + g.capacity;
                        slowest = slot;
                    }
                    at += 1;
                }
                Cursor::Behind => at += 1,
                Cursor::Gone => drop(self.active.swap_remove(at)),
            }
        }
        self.limit = limit;
        self.slowest = slowest;
    }

    /// Counts a refused publish against the slowest consumer and asks the kernel whether that
    /// consumer still lives (a system call of 0.2 µs, which a producer that must wait can spare).
    /// True if its slot was taken back: try again.
    pub(crate) fn refuse<M: Memory>(&mut self, memory: &M, g: &Geometry) -> bool {
        let slot = self.slowest;
        add(memory, BACKPRESSURE_COUNT);
        add(memory, g.slot_offset(slot) + SLOT_STALLS);
        let state = SlotState::load(memory, g, slot);
        if !state.is_gating() || memory.lease_held(g.slot_offset(slot)) {
            return false;
        }
        // The generation in the state makes this fail if somebody new has taken the slot meanwhile.
        if state.replace(memory, g, slot, state.freed()) {
            add(memory, RECLAIMED_COUNT);
        }
        true
    }

    /// Takes back the slots of all gating consumers that are dead: a restarted producer must not
    /// take their cursors for limits.
    pub(crate) fn free_dead<M: Memory>(&mut self, memory: &M, g: &Geometry) {
        for slot in 0..g.slots {
            let state = SlotState::load(memory, g, slot);
            if state.is_gating()
                && !memory.lease_held(g.slot_offset(slot))
                && state.replace(memory, g, slot, state.freed())
            {
                add(memory, RECLAIMED_COUNT);
            }
        }
    }
}

/// What the scan found in a slot.
enum Cursor {
    At(u64),
    /// Still gating, but holds nothing up: a joiner that chose a place already gone and is about
    /// to choose again, or a consumer that moved its cursor back.
    Behind,
    Gone,
}

/// Reads one gating cursor. One ahead of the producer is a broken or hostile consumer's: that slot
/// is set aside.
fn gating_cursor<M: Memory>(memory: &M, g: &Geometry, slot: usize, head: u64) -> Cursor {
    let state = SlotState::load(memory, g, slot);
    if !state.is_gating() {
        return Cursor::Gone;
    }
    #[cfg(not(weaken_cursor))]
    let order = Ordering::Acquire;
    #[cfg(weaken_cursor)]
    let order = Ordering::Relaxed;
    // pairs with: CURSOR. What the consumer read below its cursor, it read before we overwrite it.
    let cursor = memory.word(g.slot_offset(slot) + SLOT_POSITION).load(order);
    if cursor > head {
        if state.replace(memory, g, slot, state.evicted()) {
            add(memory, QUARANTINED_COUNT);
        }
        return Cursor::Gone;
    }
    if head - cursor > g.capacity { Cursor::Behind } else { Cursor::At(cursor) }
}

/// Adds one to a statistics word that only the producer writes (or whose exactness nobody needs).
pub(crate) fn add<M: Memory>(memory: &M, offset: usize) {
    let word = memory.word(offset);
    // Relaxed: a statistic, ordered with nothing.
    word.store(word.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
}
