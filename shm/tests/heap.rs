//! The ring on the heap, between threads: what Miri can run, data races included.

use gapless_shm::{Consumer, Heap, Mode, PollError, Producer, RingOptions, Start};

const MESSAGES: u64 = if cfg!(miri) { 120 } else { 100_000 };

fn fill(sequence: u64, buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.resize((sequence * 7 % 90) as usize, sequence as u8);
}

fn publish_all(producer: &mut Producer<Heap>) {
    let mut buffer = Vec::new();
    while producer.next_sequence() <= MESSAGES {
        let sequence = producer.next_sequence();
        fill(sequence, &mut buffer);
        let published = if sequence.is_multiple_of(3) {
            producer.claim(buffer.len()).map(|mut claim| {
                claim.copy_from_slice(&buffer);
                claim.commit()
            })
        } else {
            producer.try_publish(&buffer)
        };
        match published {
            Ok(number) => assert_eq!(number, sequence),
            Err(error) => {
                assert!(error.is_backpressure());
                std::thread::yield_now();
            }
        }
    }
}

/// Reads to the end; returns how many messages were read and missed.
fn read_all(consumer: &mut Consumer<Heap>) -> (u64, u64) {
    let (mut next, mut seen, mut missed_all) = (1, 0, 0);
    let mut expected = Vec::new();
    while next <= MESSAGES {
        let polled = consumer.poll(16, |message| {
            assert_eq!(message.sequence, next);
            fill(next, &mut expected);
            assert_eq!(message.payload, expected);
            next += 1;
            seen += 1;
        });
        match polled {
            Ok(0) => std::thread::yield_now(),
            Ok(_) => {}
            Err(PollError::Lapped { missed, resumed_at }) => {
                assert_eq!(next + missed, resumed_at);
                next = resumed_at;
                missed_all += missed;
            }
            Err(other) => panic!("{other}"),
        }
    }
    (seen, missed_all)
}

#[test]
fn lossless_between_threads() {
    let (mut producer, ring) =
        RingOptions::new().capacity_bytes(4096).consumer_slots(2).heap().unwrap();
    let mut readers = [(); 2].map(|()| ring.subscribe("reader", Start::Oldest).unwrap());
    std::thread::scope(|scope| {
        for reader in &mut readers {
            scope.spawn(|| assert_eq!(read_all(reader), (MESSAGES, 0)));
        }
        publish_all(&mut producer);
    });
}

#[test]
fn lossy_between_threads() {
    let options = RingOptions::new()
        .capacity_bytes(4096)
        .consumer_slots(1)
        .alignment_bytes(16)
        .mode(Mode::Lossy);
    let (mut producer, ring) = options.heap().unwrap();
    let mut reader = ring.subscribe("reader", Start::Oldest).unwrap();
    let mut observer = ring.observe(Start::Oldest).unwrap();
    std::thread::scope(|scope| {
        for reader in [&mut reader, &mut observer] {
            scope.spawn(|| {
                let (seen, missed) = read_all(reader);
                assert_eq!(seen + missed, MESSAGES);
            });
        }
        publish_all(&mut producer);
    });
}

/// A joiner of an evictable ring is not lapped, whatever its producer's frontier does while it
/// joins.
#[test]
fn joins_of_an_evictable_ring_lose_nothing() {
    let joins = if cfg!(miri) { 3 } else { 20_000 };
    let options = RingOptions::new().capacity_bytes(1 << 16).evictable(true);
    let (mut producer, ring) = options.heap().unwrap();
    for _ in 0..if cfg!(miri) { 50 } else { 5000 } {
        producer.try_publish(&[0; 40]).unwrap();
    }
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                if producer.try_publish(&[1; 40]).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        for _ in 0..joins {
            let Ok(mut consumer) = ring.subscribe("joiner", Start::Oldest) else { continue };
            let mut next = consumer.next_sequence();
            for _ in 0..5 {
                let polled = consumer.poll(4, |message| {
                    assert_eq!(message.sequence, next);
                    next += 1;
                });
                assert!(polled.is_ok(), "{polled:?}");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_ring_knows_where_it_began() {
    let options = RingOptions::new().capacity_bytes(4096).first_sequence(7);
    let (mut producer, ring) = options.heap().unwrap();
    let consumer = ring.subscribe("c", Start::Now).unwrap();
    producer.try_publish(b"x").unwrap();
    assert_eq!((producer.first_sequence(), consumer.first_sequence()), (7, 7));
}
