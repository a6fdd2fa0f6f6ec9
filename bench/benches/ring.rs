//! Micro-benchmarks of the ring's calls in one thread: what the instructions cost when every line
//! is in this core's cache. What a message costs between cores is measured by `gapless-bench`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gapless_shm::{Consumer, ConsumerOptions, Memory, Producer, RingOptions, Start};

const PAYLOAD: [u8; 48] = [0x5a; 48];
/// Messages published, or polled, between two readings of the clock: fit the ring.
const BATCH: u64 = 1024;
const CAPACITY_BYTES: u64 = 1 << 20;
const FAN_IN: [usize; 3] = [2, 8, 32];

/// A ring on the heap, with one consumer.
fn heap() -> (Producer<impl Memory>, Consumer<impl Memory>) {
    let options = RingOptions::new().capacity_bytes(CAPACITY_BYTES);
    let (producer, ring) = options.heap().expect("a ring on the heap");
    let consumer = ring.subscribe("bench", Start::Oldest).expect("a free slot");
    (producer, consumer)
}

/// A mapped ring, with one consumer.
fn mapped(dir: &tempfile::TempDir, name: &str) -> (Producer, Consumer) {
    let options = RingOptions::new().directory(dir.path()).capacity_bytes(CAPACITY_BYTES);
    let producer = options.create(name).expect("a ring in a file");
    let attach = ConsumerOptions::new().directory(dir.path()).name("bench");
    (producer, attach.attach(name).expect("a free slot"))
}

fn drain<M: Memory>(consumer: &mut Consumer<M>) -> usize {
    let polled = consumer.poll(usize::MAX, |message| {
        black_box(message.payload);
    });
    polled.expect("an undamaged ring")
}

/// Times `step` in batches, with the untimed `between` after each.
fn batches(iterations: u64, mut step: impl FnMut(), mut between: impl FnMut()) -> Duration {
    let mut left = iterations;
    let mut total = Duration::ZERO;
    while left > 0 {
        let count = left.min(BATCH);
        let from = Instant::now();
        (0..count).for_each(|_| step());
        total += from.elapsed();
        between();
        left -= count;
    }
    total
}

/// All calls on one ring.
fn calls<M: Memory, N: Memory>(
    criterion: &mut Criterion,
    name: &str,
    (mut producer, mut consumer): (Producer<M>, Consumer<N>),
) {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1));
    group.bench_function("try_publish/48", |bencher| {
        bencher.iter_custom(|iterations| {
            let publish = || {
                black_box(producer.try_publish(&PAYLOAD)).expect("room");
            };
            batches(iterations, publish, || {
                drain(&mut consumer);
            })
        });
    });
    group.bench_function("claim+commit/48", |bencher| {
        bencher.iter_custom(|iterations| {
            let publish = || {
                let mut claim = producer.claim(PAYLOAD.len()).expect("room");
                claim.copy_from_slice(&PAYLOAD);
                black_box(claim.commit());
            };
            batches(iterations, publish, || {
                drain(&mut consumer);
            })
        });
    });
    group.bench_function("poll/48", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            let mut left = iterations;
            while left > 0 {
                let count = left.min(BATCH);
                for _ in 0..count {
                    producer.try_publish(&PAYLOAD).expect("room");
                }
                let from = Instant::now();
                assert_eq!(drain(&mut consumer) as u64, count);
                total += from.elapsed();
                left -= count;
            }
            total
        });
    });
    group.bench_function("poll/empty", |bencher| {
        bencher.iter(|| black_box(drain(&mut consumer)));
    });
    group.bench_function("try_publish+poll/48", |bencher| {
        bencher.iter(|| {
            producer.try_publish(&PAYLOAD).expect("room");
            drain(&mut consumer)
        });
    });
    group.finish();
}

fn heap_ring(criterion: &mut Criterion) {
    calls(criterion, "heap", heap());
}

fn mapped_ring(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    calls(criterion, "mapped", mapped(&dir, "calls"));
}

/// One message on one of several rings, which are all polled in turn: the cost of a merge.
fn fan_in(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut group = criterion.benchmark_group("fan-in");
    group.throughput(Throughput::Elements(1));
    for rings in FAN_IN {
        let names = (0..rings).map(|ring| format!("in-{rings}-{ring}"));
        let mut ends: Vec<_> = names.map(|name| mapped(&dir, &name)).collect();
        let mut turn = 0;
        group.bench_function(BenchmarkId::from_parameter(rings), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % rings;
                ends[turn].0.try_publish(&PAYLOAD).expect("room");
                ends.iter_mut().map(|(_, consumer)| drain(consumer)).sum::<usize>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, heap_ring, mapped_ring, fan_in);
criterion_main!(benches);
