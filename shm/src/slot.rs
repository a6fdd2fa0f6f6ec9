//! A consumer's slot in the table: claiming it, publishing a cursor in it, giving it back.
//!
//! Holding the lease (an OFD lock on the slot's first byte) *is* owning the slot; the words say
//! what the owner does with it. The state carries a generation, so that a decision taken on an old
//! state can never hit a new owner.

use crate::checkpoint::Place;
use crate::layout::{
    CONSUMER_NAME_MAX_BYTES, Geometry, SLOT_MISSED, SLOT_NAME, SLOT_PID, SLOT_POSITION,
    SLOT_SEQUENCE, SLOT_STALLS, SLOT_STATE, TABLE_JOINS,
};
use crate::memory::Memory;
use crate::sync::{Ordering, fence};

const FREE: u64 = 0;
const GATING: u64 = 1;
const OBSERVING: u64 = 2;
const EVICTED: u64 = 3;

/// The state word of a slot: generation and state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotState(u64);

impl SlotState {
    pub(crate) fn load<M: Memory>(memory: &M, g: &Geometry, slot: usize) -> Self {
        // pairs with: SLOT. An active state shows the cursor that was written before it.
        Self(memory.word(g.slot_offset(slot) + SLOT_STATE).load(Ordering::Acquire))
    }

    /// As [`load`](Self::load), for a read-only mapping (where only relaxed loads are promised to
    /// work) and for people's eyes.
    #[cfg(not(loom))]
    pub(crate) fn load_shown<M: Memory>(memory: &M, g: &Geometry, slot: usize) -> Self {
        Self(memory.word(g.slot_offset(slot) + SLOT_STATE).load(Ordering::Relaxed))
    }

    pub(crate) fn is_free(self) -> bool {
        self.0 & 0xff == FREE
    }

    pub(crate) fn is_gating(self) -> bool {
        self.0 & 0xff == GATING
    }

    pub(crate) fn is_evicted(self) -> bool {
        self.0 & 0xff == EVICTED
    }

    pub(crate) fn freed(self) -> Self {
        Self(self.0 & !0xff | FREE)
    }

    pub(crate) fn evicted(self) -> Self {
        Self(self.0 & !0xff | EVICTED)
    }

    fn next_generation(self, state: u64) -> Self {
        let step = if cfg!(weaken_generation) { 0 } else { 0x100 };
        Self((self.0 & !0xff).wrapping_add(step) | state)
    }

    /// Puts `new` in place of `self`; false if the slot has changed hands.
    pub(crate) fn replace<M: Memory>(
        self,
        memory: &M,
        g: &Geometry,
        slot: usize,
        new: Self,
    ) -> bool {
        // Relaxed on success: freeing publishes nothing. The next owner orders itself by SLOT.
        memory
            .word(g.slot_offset(slot) + SLOT_STATE)
            .compare_exchange(self.0, new.0, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }
}

/// A slot whose lease we hold. The lease itself lies with the memory (a file's lock) and ends after
/// this value.
pub(crate) struct Slot {
    pub(crate) number: usize,
    state: SlotState,
    offset: usize,
}

impl Slot {
    /// Takes over the slot whose lease the caller has just got, whatever its last owner left.
    pub(crate) fn activate<M: Memory>(
        memory: &M,
        g: &Geometry,
        number: usize,
        owner: &Owner<'_>,
        place: Place,
    ) -> Self {
        let offset = g.slot_offset(number);
        let mut old = SlotState::load(memory, g, number);
        while !old.is_free() {
            // A dead owner's state; the producer may be freeing it at this moment.
            if old.replace(memory, g, number, old.freed()) {
                old = old.freed();
            } else {
                old = SlotState::load(memory, g, number);
            }
        }
        // Relaxed: published by the state below.
        let set = |field, value| memory.word(offset + field).store(value, Ordering::Relaxed);
        set(SLOT_PID, u64::from(owner.pid));
        set(SLOT_STALLS, 0);
        set(SLOT_MISSED, 0);
        let mut name = [0; CONSUMER_NAME_MAX_BYTES];
        let cut = owner.name.floor_char_boundary(CONSUMER_NAME_MAX_BYTES);
        name[..cut].copy_from_slice(&owner.name.as_bytes()[..cut]);
        for (i, word) in name.as_chunks::<8>().0.iter().enumerate() {
            set(SLOT_NAME + i * 8, u64::from_le_bytes(*word));
        }
        set(SLOT_SEQUENCE, place.sequence);
        set(SLOT_POSITION, place.position);
        let state = old.next_generation(if owner.gating { GATING } else { OBSERVING });
        memory.word(offset + SLOT_STATE).store(state.0, Ordering::Release); // pairs with: SLOT
        // pairs with: JOINS
        memory.word(g.table + TABLE_JOINS).fetch_add(1, Ordering::Release);
        // pairs with: JOIN. Either we see the producer's new frontier, or it sees us in its scan.
        #[cfg(not(weaken_join))]
        fence(Ordering::SeqCst);
        Self { number, state, offset }
    }

    /// Publishes how far this consumer has come; everything below may be overwritten from now on.
    #[inline(always)]
    pub(crate) fn publish<M: Memory>(&self, memory: &M, place: Place) {
        // Relaxed: only shown to people.
        memory.word(self.offset + SLOT_SEQUENCE).store(place.sequence, Ordering::Relaxed);
        #[cfg(not(weaken_cursor))]
        let order = Ordering::Release;
        #[cfg(weaken_cursor)]
        let order = Ordering::Relaxed;
        // pairs with: CURSOR
        memory.word(self.offset + SLOT_POSITION).store(place.position, order);
    }

    /// Moves a cursor that was found too old while joining, and tells the producer again.
    pub(crate) fn rejoin<M: Memory>(&self, memory: &M, g: &Geometry, place: Place) {
        self.publish(memory, place);
        memory.word(g.table + TABLE_JOINS).fetch_add(1, Ordering::Release); // pairs with: JOINS
        #[cfg(not(weaken_join))]
        fence(Ordering::SeqCst); // pairs with: JOIN
    }

    /// Whether the producer has thrown this consumer out.
    #[inline(always)]
    pub(crate) fn was_evicted<M: Memory>(&self, memory: &M) -> bool {
        // Relaxed: only tells why; that bytes were overwritten is told by the frontier.
        let state = memory.word(self.offset + SLOT_STATE).load(Ordering::Relaxed);
        state != self.state.0
    }

    pub(crate) fn add_missed<M: Memory>(&self, memory: &M, missed: u64) {
        // Relaxed: a statistic of which this consumer is the only writer.
        let word = memory.word(self.offset + SLOT_MISSED);
        word.store(word.load(Ordering::Relaxed).wrapping_add(missed), Ordering::Relaxed);
    }

    /// Gives the slot back.
    pub(crate) fn free<M: Memory>(&self, memory: &M, g: &Geometry) {
        // pairs with: CURSOR (through the producer's scan): our reads are over.
        fence(Ordering::Release);
        if !self.state.replace(memory, g, self.number, self.state.freed()) {
            // Evicted meanwhile; or reclaimed, if this process forked and the lease's owner died.
            let _taken = self.state.evicted().replace(memory, g, self.number, self.state.freed());
        }
        memory.word(g.table + TABLE_JOINS).fetch_add(1, Ordering::Release); // pairs with: JOINS
    }
}

/// Who owns a slot, and how.
pub(crate) struct Owner<'a> {
    pub(crate) pid: u32,
    pub(crate) name: &'a str,
    pub(crate) gating: bool,
}

/// A consumer's name, as far as it is text.
pub(crate) fn slot_name<M: Memory>(memory: &M, g: &Geometry, slot: usize) -> String {
    let mut name = [0; CONSUMER_NAME_MAX_BYTES];
    memory.copy_out(g.slot_offset(slot) + SLOT_NAME, &mut name);
    let len = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..len]).into_owned()
}
