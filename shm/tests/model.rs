//! The ring against a plain vector: any mix of sizes, laps, batches, aborts, joins, leaves,
//! evictions and restarts must deliver what the vector holds, in order, without a gap, and count
//! exactly what a lap cost. Failures shrink to a short list of operations.

#![cfg(not(miri))] // file mappings, processes, or too much for an interpreter

use std::fmt::Debug;
use std::path::Path;

use gapless_shm::{
    Consumer, ConsumerOptions, Flags, Heap, HeapRing, Inspector, Mapped, Memory, Mode, PollError,
    Producer, PublishError, RingError, RingOptions, Start, ring_path,
};
use proptest::prelude::*;

const SLOTS: usize = 3;
const CONSUMERS_MAX: usize = 6;

/// A ring to be tried.
#[derive(Clone, Debug)]
struct Config {
    capacity: u64,
    alignment: u64,
    /// Largest message, in 1/8 of the largest possible one.
    max_eighths: u64,
    mode: Mode,
    evictable: bool,
    parkable: bool,
    first: u64,
}

impl Config {
    fn options(&self) -> RingOptions {
        let largest = (self.capacity - self.alignment) / 2 / self.alignment * self.alignment - 8;
        RingOptions::new()
            .capacity_bytes(self.capacity)
            .alignment_bytes(self.alignment)
            .max_message_bytes((largest * self.max_eighths / 8).max(1))
            .consumer_slots(SLOTS as u32)
            .mode(self.mode)
            .evictable(self.evictable)
            .parkable(self.parkable)
            .first_sequence(self.first)
    }
}

/// One thing to do. Lengths are shares of the largest message, in 1/1024.
#[derive(Clone, Debug)]
enum Op {
    Publish(u64),
    /// Many small ones: laps.
    Flood(u16, u64),
    Fragment(u64, u8),
    Claim(u64, u64, End),
    Batch(Vec<u64>, End),
    Poll(usize, usize),
    Join(Origin, bool),
    Leave(usize),
    Evict,
    Restart,
    /// The producer dies now, in the middle of a claim or batch: a new one carries on in a copy.
    Crash(u64, Vec<u64>),
    Check,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Commit,
    Abort,
    /// Never told: `mem::forget`.
    Forget,
}

#[derive(Clone, Copy, Debug)]
enum Origin {
    Oldest,
    Now,
    /// Relative to the next message.
    Back(u64),
    Ahead(u64),
}

fn config() -> impl Strategy<Value = Config> {
    let first = prop_oneof![
        Just(1),
        Just(0),
        Just(u64::from(u32::MAX) - 20),
        (1u64..1 << 20, 0u64..60).prop_map(|(k, back)| (k << 32) - back),
        Just((1 << 62) - 1_000_000),
    ];
    let mode = prop_oneof![3 => Just(Mode::Lossless), 2 => Just(Mode::Lossy)];
    (
        prop::sample::select(vec![4096u64, 8192, 32768]),
        prop::sample::select(vec![16u64, 32, 64, 128]),
        0u64..=8,
        mode,
        any::<bool>(),
        any::<bool>(),
        first,
    )
        .prop_map(|(capacity, alignment, max_eighths, mode, evictable, parkable, first)| {
            Config {
                capacity,
                alignment,
                max_eighths,
                mode,
                evictable: evictable && mode == Mode::Lossless,
                parkable,
                first,
            }
        })
}

fn share() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..100, 2 => 0u64..=1024, 1 => Just(1024), 1 => Just(0)]
}

fn op() -> impl Strategy<Value = Op> {
    let end = || prop_oneof![4 => Just(End::Commit), 2 => Just(End::Abort), 1 => Just(End::Forget)];
    let origin = prop_oneof![
        3 => Just(Origin::Oldest),
        2 => Just(Origin::Now),
        2 => (0u64..100).prop_map(Origin::Back),
        1 => (0u64..20).prop_map(Origin::Ahead),
    ];
    let lens = || prop::collection::vec(share(), 0..6);
    prop_oneof![
        6 => share().prop_map(Op::Publish),
        3 => (1u16..300, 0u64..60).prop_map(|(n, len)| Op::Flood(n, len)),
        1 => (share(), 0u8..4).prop_map(|(len, flags)| Op::Fragment(len, flags)),
        4 => (share(), share(), end()).prop_map(|(len, cut, end)| Op::Claim(len, cut, end)),
        4 => (lens(), end()).prop_map(|(lens, end)| Op::Batch(lens, end)),
        8 => (any::<usize>(), 0usize..200).prop_map(|(who, limit)| Op::Poll(who, limit)),
        3 => (origin, any::<bool>()).prop_map(|(origin, observer)| Op::Join(origin, observer)),
        1 => any::<usize>().prop_map(Op::Leave),
        1 => Just(Op::Evict),
        1 => Just(Op::Restart),
        1 => (share(), lens()).prop_map(|(len, lens)| Op::Crash(len, lens)),
        1 => Just(Op::Check),
    ]
}

/// What a kind of memory adds to the common operations.
trait Ring<M: Memory> {
    fn join(&self, name: &str, start: Start, observer: bool) -> Result<Consumer<M>, RingError>;
    /// Closes the producer and starts the next; a heap ring cannot.
    fn restart(&self, producer: Producer<M>) -> Producer<M>;
    /// A ring that died at this moment, checked against the model.
    fn crash(&self, _model: &Model) {}
    fn check(&self, _head: u64) {}
}

impl Ring<Heap> for HeapRing {
    fn join(&self, name: &str, start: Start, observer: bool) -> Result<Consumer<Heap>, RingError> {
        if observer { self.observe(start) } else { self.subscribe(name, start) }
    }

    fn restart(&self, producer: Producer<Heap>) -> Producer<Heap> {
        producer
    }
}

struct FileRing<'a>(&'a Path);

impl FileRing<'_> {
    fn options(&self) -> RingOptions {
        RingOptions::new().directory(self.0)
    }
}

impl Ring<Mapped> for FileRing<'_> {
    fn join(&self, name: &str, start: Start, observer: bool) -> Result<Consumer, RingError> {
        let options = ConsumerOptions::new().directory(self.0).observer(observer);
        options.name(name).start(start).attach("r")
    }

    fn restart(&self, producer: Producer) -> Producer {
        drop(producer);
        self.options().attach("r").unwrap()
    }

    fn crash(&self, model: &Model) {
        let path = |name| ring_path(self.0, name).unwrap();
        std::fs::copy(path("r"), path("copy")).unwrap();
        let mut model = model.clone();
        let mut producer = self.options().attach("copy").unwrap();
        assert_eq!(producer.next_sequence(), model.head());
        let options = ConsumerOptions::new().directory(self.0).observer(true);
        let mut observer = options.attach("copy").unwrap();
        let mut next = observer.next_sequence();
        // The dead gating consumers of the copy must not hold the new producer up for long.
        for n in 0..200u8 {
            let message = vec![n; usize::from(n % 90).min(producer.max_message_bytes())];
            let mut attempts = 0;
            while let Err(error) = producer.try_publish(&message) {
                assert!(error.is_backpressure() && attempts < 16 * SLOTS, "{error}");
                attempts += 1;
            }
            model.messages.push((message, Flags::WHOLE));
            model.drain(&mut observer, &mut next, usize::MAX, Lapping::Allowed);
            assert_eq!(next, model.head());
        }
        drop(producer);
        let inspector = Inspector::open_file(&path("copy")).unwrap();
        let verified = inspector.verify(|_| ()).unwrap();
        assert_eq!(verified.problems, Vec::<String>::new());
        std::fs::remove_file(path("copy")).unwrap();
    }

    fn check(&self, head: u64) {
        let inspector = Inspector::open_file(&ring_path(self.0, "r").unwrap()).unwrap();
        let verified = inspector.verify(|_| ()).unwrap();
        assert_eq!(verified.problems, Vec::<String>::new());
        assert_eq!(verified.next_sequence, head);
        let snapshot = inspector.snapshot();
        assert_eq!(snapshot.problem, None);
        assert_eq!(snapshot.next_sequence, head);
        assert_eq!(snapshot.quarantined, 0);
    }
}

/// The stream as it should be.
#[derive(Clone)]
struct Model {
    first: u64,
    messages: Vec<(Vec<u8>, Flags)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lapping {
    Never,
    Allowed,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drained {
    AtHead,
    LimitReached,
    Evicted,
}

impl Model {
    fn head(&self) -> u64 {
        self.first + self.messages.len() as u64
    }

    /// Polls up to `limit` messages and checks each against the model.
    fn drain<M: Memory>(
        &self,
        consumer: &mut Consumer<M>,
        next: &mut u64,
        limit: usize,
        lapping: Lapping,
    ) -> Drained {
        let mut left = limit;
        let mut laps = 0;
        while left > 0 {
            let result = consumer.poll(left, |message| {
                assert_eq!(message.sequence, *next);
                let (payload, flags) = &self.messages[(*next - self.first) as usize];
                assert_eq!(message.payload, payload, "payload of {}", *next);
                assert_eq!(message.flags, *flags);
                *next += 1;
            });
            match result {
                Ok(0) => return Drained::AtHead,
                Ok(read) => left -= read,
                Err(PollError::Lapped { missed, resumed_at }) => {
                    assert_eq!(lapping, Lapping::Allowed, "lapped {missed} at {next}");
                    assert_eq!(*next + missed, resumed_at);
                    assert!(missed > 0 && resumed_at <= self.head());
                    *next = resumed_at;
                    laps += 1;
                    assert!(laps < 3, "lapped again and again, with nobody writing");
                }
                Err(PollError::Evicted { next: told }) => {
                    assert_eq!(told, *next);
                    return Drained::Evicted;
                }
                Err(other) => panic!("{other}"),
            }
        }
        Drained::LimitReached
    }
}

struct Reader<M: Memory> {
    name: String,
    consumer: Consumer<M>,
    next: u64,
    has_slot: bool,
    evicted: bool,
    /// The head at which it last found nothing more.
    drained_at: Option<u64>,
}

struct Run<'a, M: Memory, R: Ring<M>> {
    config: &'a Config,
    ring: R,
    producer: Option<Producer<M>>,
    model: Model,
    readers: Vec<Reader<M>>,
    joins: u32,
}

impl<M: Memory, R: Ring<M>> Run<'_, M, R> {
    fn producer(&mut self) -> &mut Producer<M> {
        self.producer.as_mut().expect("put back after each restart")
    }

    fn len(&mut self, share: u64) -> usize {
        self.producer().max_message_bytes() * share as usize / 1024
    }

    /// A message that no other has.
    fn message(&mut self, index: u64, len: usize) -> Vec<u8> {
        let sequence = self.model.head() + index;
        let word = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
        (0..len).map(|i| word[i % 8].wrapping_add((i / 8) as u8)).collect()
    }

    fn gating(&self, reader: &Reader<M>) -> bool {
        reader.has_slot && !reader.evicted && self.config.mode == Mode::Lossless
    }

    /// A refusal is right only if somebody gating may be behind, and ends once they have read.
    fn refused(&mut self, error: PublishError) {
        assert!(error.is_backpressure(), "{error}");
        assert_eq!(self.config.mode, Mode::Lossless);
        let head = self.model.head();
        let behind = |r: &Reader<M>| self.gating(r) && r.drained_at != Some(head);
        assert!(self.readers.iter().any(behind), "refused, but everybody has read everything");
        assert!(self.producer().slowest().is_some());
        for i in 0..self.readers.len() {
            self.poll(i, usize::MAX);
        }
    }

    fn publish(&mut self, payload: Vec<u8>, flags: Flags) {
        let first = self.producer().try_publish_flagged(&payload, flags);
        let result = match first {
            Err(error) => {
                self.refused(error);
                self.producer().try_publish_flagged(&payload, flags)
            }
            ok => ok,
        };
        assert_eq!(result, Ok(self.model.head()));
        self.model.messages.push((payload, flags));
    }

    fn claim(&mut self, len: usize, cut: usize, end: End) {
        let message = self.message(0, cut.min(len));
        let forged = self.model.head();
        if let Err(error) = self.producer().claim(len).map(std::mem::forget) {
            self.refused(error);
        }
        let producer = self.producer.as_mut().expect("put back after each restart");
        let mut claim = producer.claim(len).expect("everybody has read everything");
        for (i, chunk) in claim.chunks_mut(8).enumerate() {
            // What looks like the commit words of the next messages.
            let word = ((forged + 1 + i as u64 % 2) << 32 | 0x8300_0000).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        match end {
            End::Commit => {
                claim[..message.len()].copy_from_slice(&message);
                claim.truncate(message.len());
                assert_eq!(claim.commit(), forged);
                self.model.messages.push((message, Flags::WHOLE));
            }
            End::Abort => drop(claim),
            End::Forget => std::mem::forget(claim),
        }
    }

    fn batch(&mut self, shares: &[u64], end: End) {
        let lens: Vec<_> = shares.iter().map(|&share| self.len(share)).collect();
        let messages: Vec<_> = (0u64..).zip(&lens).map(|(i, &len)| self.message(i, len)).collect();
        let head = self.model.head();
        let producer = self.producer.as_mut().expect("put back after each restart");
        let mut batch = producer.batch();
        let mut pushed = 0;
        let mut refused = None;
        for message in &messages {
            match batch.push(message) {
                Ok(sequence) => assert_eq!(sequence, head + pushed as u64),
                Err(PublishError::BatchTooLong { .. }) if pushed > 0 => break,
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
            pushed += 1;
        }
        assert_eq!(batch.len(), pushed as u64);
        match end {
            End::Commit => {
                assert_eq!(batch.commit(), pushed as u64);
                let messages = messages.into_iter().take(pushed);
                self.model.messages.extend(messages.map(|m| (m, Flags::WHOLE)));
            }
            End::Abort => drop(batch),
            End::Forget => std::mem::forget(batch),
        }
        if let Some(error) = refused
            && pushed == 0
        {
            self.refused(error);
        } else if let Some(error) = refused {
            assert!(error.is_backpressure(), "{error}");
        }
    }

    fn poll(&mut self, who: usize, limit: usize) {
        let head = self.model.head();
        let lossless = self.config.mode == Mode::Lossless;
        let reader = &mut self.readers[who];
        let lapping = if lossless && reader.has_slot { Lapping::Never } else { Lapping::Allowed };
        let wanted = reader.consumer.next_sequence();
        assert!(wanted == reader.next, "next is {wanted}, not {}", reader.next);
        match self.model.drain(&mut reader.consumer, &mut reader.next, limit, lapping) {
            Drained::AtHead => {
                assert!(reader.next >= head, "stopped at {} of {head}", reader.next);
                reader.drained_at = Some(head);
            }
            Drained::LimitReached => {}
            Drained::Evicted => assert!(reader.evicted, "evicted, but not by us"),
        }
    }

    fn join(&mut self, origin: Origin, observer: bool) {
        if self.readers.len() == CONSUMERS_MAX {
            return;
        }
        let head = self.model.head();
        let start = match origin {
            Origin::Oldest => Start::Oldest,
            Origin::Now => Start::Now,
            Origin::Back(n) => Start::Sequence(head.saturating_sub(n)),
            Origin::Ahead(n) => Start::Sequence(head + n),
        };
        let taken = self.readers.iter().filter(|reader| reader.has_slot).count();
        self.joins += 1;
        let name = format!("reader {}", self.joins);
        let joined = self.ring.join(&name, start, observer);
        let consumer = match joined {
            Err(RingError::NoFreeSlot { slots: SLOTS, .. }) => {
                assert!(!observer && taken == SLOTS, "{taken} slots taken");
                return;
            }
            Err(RingError::SequenceGone { wanted, oldest }) => {
                assert_eq!(Start::Sequence(wanted), start);
                assert!(wanted < oldest && oldest <= head);
                return;
            }
            Err(other) => panic!("{other}"),
            Ok(consumer) => consumer,
        };
        assert!(observer || taken < SLOTS);
        let next = consumer.next_sequence();
        match start {
            Start::Now => assert_eq!(next, head),
            Start::Sequence(wanted) => assert_eq!(next, wanted),
            Start::Oldest => assert!((self.model.first..=head).contains(&next)),
        }
        self.readers.push(Reader {
            name,
            consumer,
            next,
            has_slot: !observer,
            evicted: false,
            drained_at: None,
        });
    }

    /// Evicts the slowest.
    fn evict(&mut self) {
        let Some(view) = self.producer().slowest() else {
            let anybody = self.readers.iter().any(|reader| self.gating(reader));
            assert!(!anybody, "a gating consumer is not seen");
            return;
        };
        if !self.config.evictable {
            assert_eq!(self.producer().evict(view.slot), Err(PublishError::NotEvictable));
            return;
        }
        assert_eq!(self.producer().evict(view.slot), Ok(true));
        assert_eq!(self.producer().evict(view.slot), Ok(false));
        let who = self.readers.iter().position(|reader| reader.name == view.name);
        let who = who.expect("the slowest is one of ours");
        assert!(self.gating(&self.readers[who]));
        self.readers[who].evicted = true;
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Publish(share) => {
                let len = self.len(share);
                let message = self.message(0, len);
                self.publish(message, Flags::WHOLE);
            }
            Op::Flood(count, len) => {
                let len = (len as usize).min(self.producer().max_message_bytes());
                for _ in 0..count {
                    let message = self.message(0, len);
                    self.publish(message, Flags::WHOLE);
                }
            }
            Op::Fragment(share, which) => {
                let flags = [Flags::BEGIN, Flags::MIDDLE, Flags::END, Flags::WHOLE];
                let len = self.len(share);
                let message = self.message(0, len);
                self.publish(message, flags[usize::from(which % 4)]);
            }
            Op::Claim(share, cut, end) => {
                let (len, cut) = (self.len(share), self.len(cut));
                self.claim(len, cut, end);
            }
            Op::Batch(lens, end) => self.batch(&lens, end),
            Op::Poll(_, _) | Op::Leave(_) if self.readers.is_empty() => {}
            Op::Poll(who, limit) => self.poll(who % self.readers.len(), limit),
            Op::Leave(who) => {
                let who = who % self.readers.len();
                self.readers.swap_remove(who);
            }
            Op::Join(origin, observer) => self.join(origin, observer),
            Op::Evict => self.evict(),
            Op::Restart => {
                let producer = self.producer.take().expect("put back after each restart");
                self.producer = Some(self.ring.restart(producer));
                let head = self.model.head();
                assert_eq!(self.producer().next_sequence(), head);
            }
            Op::Crash(share, lens) => self.crash(share, &lens),
            Op::Check => self.ring.check(self.model.head()),
        }
    }

    fn crash(&mut self, share: u64, shares: &[u64]) {
        let len = self.len(share);
        let lens: Vec<_> = shares.iter().map(|&share| self.len(share)).collect();
        let producer = self.producer.as_mut().expect("put back after each restart");
        if let Ok(mut claim) = producer.claim(len) {
            claim.fill(0x83);
            self.ring.crash(&self.model);
        }
        let mut batch = producer.batch();
        for len in lens {
            if batch.push(&vec![0x83; len]).is_err() {
                break;
            }
        }
        self.ring.crash(&self.model);
    }
}

fn run<M: Memory, R: Ring<M>>(config: &Config, ops: Vec<Op>, producer: Producer<M>, ring: R) {
    let mut run = Run {
        config,
        ring,
        producer: Some(producer),
        model: Model { first: config.first, messages: Vec::new() },
        readers: Vec::new(),
        joins: 0,
    };
    for op in ops {
        run.apply(op);
    }
    for who in 0..run.readers.len() {
        run.poll(who, usize::MAX);
    }
    run.ring.check(run.model.head());
}

fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    ProptestConfig {
        cases: cases.unwrap_or(default),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

fn show(error: &impl Debug) -> String {
    format!("{error:?}")
}

proptest! {
    #![proptest_config(cases(250))]
    #[test]
    fn the_heap_ring_is_the_model(config in config(), ops in prop::collection::vec(op(), 1..80)) {
        let opened = config.options().heap();
        prop_assert!(opened.is_ok(), "{}", opened.as_ref().err().map(show).unwrap_or_default());
        let (producer, ring) = opened.unwrap();
        run(&config, ops, producer, ring);
    }
}

proptest! {
    #![proptest_config(cases(80))]
    #[test]
    fn the_file_ring_is_the_model(config in config(), ops in prop::collection::vec(op(), 1..60)) {
        // In shared memory, where rings live: on a disk they wait for it.
        let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let producer = config.options().directory(directory.path()).create("r").unwrap();
        run(&config, ops, producer, FileRing(directory.path()));
    }
}
