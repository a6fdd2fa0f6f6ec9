//! The ring under the model checker: a memory whose every word is a loom atomic, and whose payload
//! bytes are watched, so that a zero-copy read that races with a write is found; and the models.
//!
//! `.ci/loom` runs them, and runs each again with one ordering taken out of the code
//! (`--cfg weaken_…`): the models must then fail, or they would prove nothing.

use std::cell::UnsafeCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use loom::cell::UnsafeCell as Watch;
use loom::sync::{Condvar, Mutex};

use crate::layout::{
    CHECKPOINT_PAIRS, CONTROL_BYTES, Geometry, INDEX_ENTRIES, INDEX_PAGE, PRODUCER_PAGE,
    TABLE_JOINS, TABLE_PARKED,
};
use crate::memory::{Access, Memory};
use crate::sync::{AtomicU64, Ordering};

/// A ring's memory in a model.
#[derive(Clone)]
pub struct Mapped {
    shared: Arc<Shared>,
}

struct Shared {
    data: usize,
    words: BTreeMap<usize, AtomicU64>,
    /// The payload bytes, as slices are handed out of them.
    bytes: Box<[UnsafeCell<u64>]>,
    /// One for each word of `bytes`: tells loom who reads and writes it.
    watches: Vec<Watch<()>>,
    /// One for each slot: 1 while somebody holds its lease.
    leases: BTreeMap<usize, AtomicU64>,
    sleepers: Mutex<()>,
    woken: Condvar,
}

// SAFETY: `bytes` is only touched through `Access`, whose callers vouch for exclusivity; `watches`
// makes loom check that they are right.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Mapped {
    /// Zeroed memory of a ring; only the words that this layout uses exist.
    pub(crate) fn zeroed(g: &Geometry) -> Self {
        let producer_page = [0, 128, 256, 264, 272, 280, 288, 296, 304, 312, 384];
        let mut offsets: Vec<usize> = producer_page.map(|at| PRODUCER_PAGE + at).into();
        offsets.extend((0..4).map(|i| CHECKPOINT_PAIRS + i * 8));
        offsets.extend((0..INDEX_ENTRIES as usize * 2).map(|i| INDEX_PAGE + i * 8));
        offsets.extend([TABLE_JOINS, TABLE_PARKED].map(|at| g.table + at));
        for slot in 0..g.slots {
            let fields = [0, 8, 16, 64, 72, 80, 88, 96, 104, 112, 120];
            offsets.extend(fields.map(|field| g.slot_offset(slot) + field));
        }
        let words = g.capacity as usize / 8;
        offsets.extend((0..words).map(|i| g.data + i * 8));
        assert!(g.table >= CONTROL_BYTES);
        let shared = Shared {
            data: g.data,
            words: offsets.into_iter().map(|at| (at, AtomicU64::new(0))).collect(),
            bytes: (0..words).map(|_| UnsafeCell::new(0)).collect(),
            watches: (0..words).map(|_| Watch::new(())).collect(),
            leases: (0..g.slots).map(|slot| (g.slot_offset(slot), AtomicU64::new(0))).collect(),
            sleepers: Mutex::new(()),
            woken: Condvar::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Takes a slot's lease, as the kernel would; false if it is held.
    pub(crate) fn lease(&self, byte: usize) -> bool {
        self.shared.leases[&byte]
            .compare_exchange(0, 1, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// The lease falls: its owner is dead.
    pub(crate) fn die(&self, byte: usize) {
        self.shared.leases[&byte].store(0, Ordering::Release);
    }

    fn watched(&self, offset: usize, len: usize) -> &[Watch<()>] {
        let first = (offset - self.shared.data) / 8;
        &self.shared.watches[first..first + len.div_ceil(8)]
    }

    fn pointer(&self, offset: usize, len: usize) -> *mut u8 {
        let at = offset - self.shared.data;
        assert!(at + len <= self.shared.bytes.len() * 8);
        self.shared.bytes.as_ptr().cast::<u8>().cast_mut().wrapping_add(at)
    }
}

impl Memory for Mapped {}

impl Access for Mapped {
    const IN_PLACE: bool = true;

    fn word(&self, offset: usize) -> &AtomicU64 {
        &self.shared.words[&offset]
    }

    unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        for watch in self.watched(offset, len) {
            watch.with(|_| ());
        }
        // SAFETY: in bounds (asserted), initialised; the caller vouches that nobody writes, and the
        // watches have loom check it.
        unsafe { std::slice::from_raw_parts(self.pointer(offset, len), len) }
    }

    unsafe fn bytes_mut(&self, offset: usize, len: usize) -> &mut [u8] {
        for watch in self.watched(offset, len) {
            watch.with_mut(|_| ());
        }
        // SAFETY: as for `bytes`; the caller vouches for exclusivity.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(offset, len), len) }
    }

    unsafe fn copy_in(&self, offset: usize, from: &[u8]) {
        // For readers of slices ...
        // SAFETY: as the caller's.
        let to = unsafe { self.bytes_mut(offset, from.len()) };
        to.copy_from_slice(from);
        // ... and for readers that copy words and validate them, or take them for commit words.
        for (i, chunk) in from.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(offset + i * 8).store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    fn lease_held(&self, byte: usize) -> bool {
        self.shared.leases.get(&byte).is_none_or(|lease| lease.load(Ordering::Acquire) == 1)
    }

    /// As the kernel does: compares and falls asleep in one step. There is no timeout: a lost
    /// wake-up is a deadlock, which loom reports.
    fn park(&self, offset: usize, seen: u32, _timeout: Duration) {
        let sleepers = self.shared.sleepers.lock().expect("no poison");
        if self.word(offset).load(Ordering::Relaxed) as u32 == seen {
            drop(self.shared.woken.wait(sleepers).expect("no poison"));
        }
    }

    fn wake(&self, _offset: usize) {
        drop(self.shared.sleepers.lock().expect("no poison"));
        self.shared.woken.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use loom::thread;

    use super::*;
    use crate::checkpoint::{Place, read_checkpoint, read_index, write_checkpoint, write_index};
    use crate::consumer::{Consumer, Join, Start};
    use crate::error::PollError;
    use crate::layout::SLOT_STATE;
    use crate::producer::Producer;
    use crate::record::{CommitWord, Flags};
    use crate::slot::{Owner, Slot, SlotState};

    /// Explores every schedule with at most `preemptions` forced switches.
    fn explore(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(preemptions);
        builder.max_branches = 100_000;
        builder.check(model);
    }

    fn geometry(capacity: u64, slots: usize) -> Geometry {
        Geometry::new(128, capacity, 16, slots)
    }

    /// An empty ring and its producer.
    fn ring(g: &Geometry) -> (Mapped, Producer) {
        let memory = Mapped::zeroed(g);
        let place = Place { position: 0, sequence: 1 };
        write_checkpoint(&memory, 0, place);
        write_index(&memory, g, place);
        let producer = Producer::start(memory.clone(), *g, 1).expect("a sound ring");
        (memory, producer)
    }

    fn join(memory: &Mapped, g: &Geometry, slot: Option<usize>, start: Start) -> Option<Consumer> {
        if let Some(slot) = slot {
            assert!(memory.lease(g.slot_offset(slot)));
        }
        let owner = Owner { pid: 1, name: "", gating: slot.is_some() && !g.lossy };
        Consumer::join(memory.clone(), *g, &Join { owner, start, slot }).ok()
    }

    fn publish(producer: &mut Producer, messages: u64, words: usize) {
        for _ in 0..messages {
            let payload = producer.next_sequence().to_le_bytes().repeat(words);
            while producer.try_publish(&payload).is_err() {
                thread::yield_now();
            }
        }
    }

    /// Reads up to and without `end`; every word of a message must be its sequence number.
    fn read_until(consumer: &mut Consumer, end: u64) {
        let mut next = consumer.next_sequence();
        while next < end {
            let read = consumer.poll(2, |message| {
                assert_eq!(message.sequence, next, "a gap");
                for word in message.payload.chunks(8) {
                    assert_eq!(word, next.to_le_bytes(), "torn");
                }
                next += 1;
            });
            match read {
                Ok(0) => thread::yield_now(),
                Ok(_) => {}
                Err(PollError::Lapped { missed, resumed_at }) => {
                    assert_eq!(next + missed, resumed_at, "miscounted");
                    next = resumed_at;
                }
                Err(PollError::Unsteady) => thread::yield_now(),
                Err(other) => panic!("{other}"),
            }
        }
    }

    /// Claim, commit, poll, gating, over the wrap. Fails under `weaken_commit` (payload seen before
    /// it is written) and `weaken_cursor` (overwritten before it is read).
    #[test]
    fn one_reader_over_a_wrap() {
        explore(2, || {
            let g = geometry(64, 1);
            let (memory, mut producer) = ring(&g);
            let mut consumer = join(&memory, &g, Some(0), Start::Oldest).expect("a free slot");
            let writer = thread::spawn(move || publish(&mut producer, 5, 1));
            read_until(&mut consumer, 6);
            writer.join().expect("the writer");
        });
    }

    /// Records of two sizes: padding at the end of the lap, batches.
    #[test]
    fn padding_and_batches() {
        explore(2, || {
            let g = geometry(128, 1);
            let (memory, mut producer) = ring(&g);
            publish(&mut producer, 1, 4); // 48 bytes, nobody attached yet
            let mut consumer = join(&memory, &g, Some(0), Start::Now).expect("a free slot");
            let writer = thread::spawn(move || {
                let mut batch = producer.batch();
                batch.push(&2u64.to_le_bytes()).expect("room");
                batch.push(&3u64.to_le_bytes()).expect("room");
                batch.commit();
                publish(&mut producer, 2, 4); // one more does not fit this lap
            });
            read_until(&mut consumer, 6);
            writer.join().expect("the writer");
        });
    }

    /// A payload imitates the commit word of a message to come, at the very place where that one
    /// will stand. Fails under `weaken_disarm`: the imitation is taken for the message.
    #[test]
    fn a_forged_commit_word_is_never_believed() {
        explore(3, || {
            let g = geometry(128, 1);
            let (memory, mut producer) = ring(&g);
            let mut consumer = join(&memory, &g, Some(0), Start::Oldest).expect("a free slot");
            // Message 1 covers positions 0..32; message 9 will stand at 128 + 16.
            let forged = CommitWord::message(9, 8, Flags::WHOLE).0;
            let payload = [1, forged, 1].map(u64::to_le_bytes);
            producer.try_publish(payload.as_flattened()).expect("room");
            publish(&mut producer, 3, 1);
            consumer.poll(4, |_| ()).expect("four messages");
            publish(&mut producer, 3, 1);
            read_until(&mut consumer, 8);
            let writer = thread::spawn(move || publish(&mut producer, 2, 1));
            read_until(&mut consumer, 10);
            writer.join().expect("the writer");
        });
    }

    /// Two readers, of which one leaves: the slower gates, whoever has left does not.
    #[test]
    fn two_readers() {
        explore(2, || {
            let g = geometry(64, 2);
            let (memory, mut producer) = ring(&g);
            let mut first = join(&memory, &g, Some(0), Start::Oldest).expect("a free slot");
            let mut second = join(&memory, &g, Some(1), Start::Oldest).expect("a free slot");
            publish(&mut producer, 3, 1); // full
            let writer = thread::spawn(move || publish(&mut producer, 1, 1));
            read_until(&mut first, 3);
            read_until(&mut second, 2);
            drop(second);
            read_until(&mut first, 5);
            writer.join().expect("the writer");
        });
    }

    fn join_while_moving(start: Start) {
        explore(2, move || {
            let g = geometry(128, 1);
            let (memory, mut producer) = ring(&g);
            // The oldest indexed place is message 5, at 80. Message 7 leaves it alone; message 8
            // overwrites it, and nothing announces that before the frontier of message 8 itself.
            publish(&mut producer, 1, 3);
            publish(&mut producer, 5, 1);
            let writer = thread::spawn(move || publish(&mut producer, 2, 5));
            if let Some(mut consumer) = join(&memory, &g, Some(0), start) {
                read_until(&mut consumer, 9);
            }
            writer.join().expect("the writer");
        });
    }

    /// A reader joins a ring that nobody gates while its producer laps it. Fails under
    /// `weaken_join` and `weaken_frontier`: neither sees the other.
    #[test]
    fn join_oldest_while_moving() {
        join_while_moving(Start::Oldest);
    }

    #[test]
    fn join_now_while_moving() {
        join_while_moving(Start::Now);
    }

    /// On an evictable ring too, a reader that gates is lapped by nobody: the frontier that a
    /// producer raises over a joiner, and takes back, costs it nothing. Fails under `weaken_gate`:
    /// judged by the frontier alone, the joiner gives up messages that are still there.
    #[test]
    fn a_joiner_that_gates_is_never_lapped() {
        explore(3, || {
            let mut g = geometry(64, 1);
            g.evictable = true;
            let (memory, mut producer) = ring(&g);
            publish(&mut producer, 4, 1); // the next one raises the frontier
            let writer = thread::spawn(move || publish(&mut producer, 1, 1));
            if let Some(mut consumer) = join(&memory, &g, Some(0), Start::Oldest) {
                let mut next = consumer.next_sequence();
                while next < 6 {
                    match consumer.poll(1, |message| assert_eq!(message.sequence, next, "a gap")) {
                        Ok(0) => thread::yield_now(),
                        Ok(_) => next += 1,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            writer.join().expect("the writer");
        });
    }

    /// A dead reader's slot is wanted by the producer (to free it) and by a new reader (to take it)
    /// at once. Fails under `weaken_generation`: the producer frees the new owner's slot.
    #[test]
    fn reclaim_against_a_new_owner() {
        explore(2, || {
            let g = geometry(64, 1);
            let (memory, mut producer) = ring(&g);
            let dead = join(&memory, &g, Some(0), Start::Oldest).expect("a free slot");
            publish(&mut producer, 3, 1); // full
            std::mem::forget(dead);
            memory.die(g.slot_offset(0));
            let writer = thread::spawn(move || publish(&mut producer, 2, 1));
            if let Some(mut consumer) = join(&memory, &g, Some(0), Start::Now) {
                let state = SlotState::load(&memory, &g, 0);
                assert!(state.is_gating(), "a living reader's slot was freed");
                read_until(&mut consumer, 6);
            }
            writer.join().expect("the writer");
        });
    }

    /// The slot's words alone: two owners in turn and a decision taken on the first one's state.
    #[test]
    fn a_decision_on_an_old_state_never_hits_the_new_owner() {
        explore(3, || {
            let g = geometry(64, 1);
            let memory = Mapped::zeroed(&g);
            let owner = Owner { pid: 1, name: "", gating: true };
            let place = Place { position: 0, sequence: 1 };
            assert!(memory.lease(g.slot_offset(0)));
            let _dead = Slot::activate(&memory, &g, 0, &owner, place);
            memory.die(g.slot_offset(0));
            let theirs = memory.clone();
            let reclaimer = thread::spawn(move || {
                let state = SlotState::load(&theirs, &g, 0);
                if state.is_gating() && !theirs.lease_held(g.slot_offset(0)) {
                    state.replace(&theirs, &g, 0, state.freed());
                }
            });
            assert!(memory.lease(g.slot_offset(0)));
            let _alive = Slot::activate(&memory, &g, 0, &owner, place);
            reclaimer.join().expect("the reclaimer");
            let state = memory.word(g.slot_offset(0) + SLOT_STATE).load(Ordering::Relaxed);
            assert_eq!(state & 0xff, 1, "the living owner's slot was freed");
        });
    }

    /// A lossy reader is lapped in the middle of a message: never torn, counted exactly. Fails
    /// under
    /// `weaken_frontier` and `weaken_validate`.
    #[test]
    fn lapped_and_never_torn() {
        explore(2, || {
            let mut g = geometry(128, 1);
            g.lossy = true;
            let (memory, mut producer) = ring(&g);
            let mut consumer = join(&memory, &g, None, Start::Oldest).expect("a sound ring");
            publish(&mut producer, 2, 1);
            read_until(&mut consumer, 3);
            publish(&mut producer, 5, 1);
            // Message 8 wraps and overwrites messages 1 to 3 in one go; 3 is not announced before.
            let writer = thread::spawn(move || publish(&mut producer, 2, 5));
            read_until(&mut consumer, 10);
            writer.join().expect("the writer");
        });
    }

    /// A reader that has seen everything is lapped at one stroke, and finds a checkpoint that is
    /// not behind it.
    #[test]
    fn lapped_from_the_head() {
        explore(2, || {
            let mut g = geometry(128, 1);
            g.lossy = true;
            let (memory, mut producer) = ring(&g);
            let mut consumer = join(&memory, &g, None, Start::Oldest).expect("a sound ring");
            publish(&mut producer, 4, 1);
            read_until(&mut consumer, 5);
            publish(&mut producer, 3, 1);
            read_until(&mut consumer, 8); // at 112; the last checkpoint is at 96
            let writer = thread::spawn(move || publish(&mut producer, 2, 5));
            read_until(&mut consumer, 10);
            writer.join().expect("the writer");
        });
    }

    /// Checkpoints are read whole, in order, whatever the writer does. Fails under
    /// `weaken_checkpoint`.
    #[test]
    fn checkpoints_are_whole() {
        explore(3, || {
            let g = geometry(64, 1);
            let memory = Mapped::zeroed(&g);
            let place = |n| Place { position: n * 16, sequence: n };
            write_checkpoint(&memory, 0, place(0));
            let theirs = memory.clone();
            let writer = thread::spawn(move || {
                for n in 1..=4 {
                    write_checkpoint(&theirs, n, place(n));
                }
            });
            let mut last = 0;
            for _ in 0..2 {
                if let Some((version, seen)) = read_checkpoint(&memory) {
                    assert_eq!(seen, place(version), "torn");
                    assert!(version >= last);
                    last = version;
                }
            }
            writer.join().expect("the writer");
        });
    }

    /// Index entries are read whole or not at all. Fails under `weaken_index`.
    #[test]
    fn index_entries_are_whole() {
        explore(3, || {
            let g = geometry(64, 1);
            let memory = Mapped::zeroed(&g);
            let place = |lap| Place { position: lap * 64, sequence: lap };
            let theirs = memory.clone();
            let writer = thread::spawn(move || {
                for lap in 1..=3 {
                    write_index(&theirs, &g, place(lap));
                }
            });
            for _ in 0..2 {
                if let Some(seen) = read_index(&memory, &g, 0) {
                    assert_eq!(seen, place(seen.sequence), "torn");
                }
            }
            writer.join().expect("the writer");
        });
    }

    /// Two readers go to sleep while the producer publishes: a wake-up that is lost would leave one
    /// asleep for ever. Fails under `weaken_park`.
    #[test]
    fn no_wake_up_is_lost() {
        explore(2, || {
            let mut g = geometry(128, 2);
            g.parkable = true;
            let (memory, mut producer) = ring(&g);
            let mut consumers: Vec<_> = (0..2)
                .map(|slot| join(&memory, &g, Some(slot), Start::Oldest).expect("a free slot"))
                .collect();
            let sleep = |mut consumer: Consumer| {
                while consumer.poll(1, |_| ()) == Ok(0) {
                    consumer.park(Duration::MAX);
                }
            };
            let second = consumers.pop().expect("two");
            let first = consumers.pop().expect("two");
            let other = thread::spawn(move || sleep(second));
            let writer = thread::spawn(move || {
                publish(&mut producer, 1, 1);
                std::mem::forget(producer); // closing would wake them too
            });
            sleep(first);
            other.join().expect("the other reader");
            writer.join().expect("the writer");
        });
    }
}
