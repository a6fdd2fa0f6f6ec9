//! One ring, one process: what each side sees, through the file mapping.

#![cfg(not(miri))] // file mappings, processes, or too much for an interpreter

use gapless_shm::{
    ConsumerOptions, CountersError, CountersOptions, CountersReader, Flags, Inspector, Mode,
    PollError, ProducerStatus, PublishError, RingError, RingOptions, Start, list, remove,
    ring_path,
};
use tempfile::TempDir;

fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

#[test]
fn messages_arrive_in_order_over_many_laps_and_all_sizes() {
    let dir = dir();
    let options = RingOptions::new().directory(dir.path()).capacity_bytes(4096);
    let mut producer = options.max_message_bytes(1500).open("a").unwrap();
    let mut consumer = ConsumerOptions::new().directory(dir.path()).name("c").attach("a").unwrap();
    let mut expected = 1;
    for round in 0..20_000u64 {
        let len = (round * 7919 % 1501) as usize;
        let payload = vec![round as u8; len];
        while let Err(error) = producer.try_publish(&payload) {
            assert!(error.is_backpressure());
            let read = consumer
                .poll(usize::MAX, |message| {
                    let n = expected - 1;
                    assert_eq!(message.sequence, expected);
                    assert_eq!(message.payload.len(), (n * 7919 % 1501) as usize);
                    assert!(message.payload.iter().all(|&byte| byte == n as u8));
                    assert_eq!(message.flags, Flags::WHOLE);
                    expected += 1;
                })
                .unwrap();
            assert!(read > 0);
        }
    }
}

#[test]
fn lossy_ring_counts_what_was_missed_exactly() {
    let dir = dir();
    let options = RingOptions::new().directory(dir.path()).capacity_bytes(4096).mode(Mode::Lossy);
    let mut producer = options.open("a").unwrap();
    let mut consumer = ConsumerOptions::new().directory(dir.path()).attach("a").unwrap();
    for n in 1..=1000u64 {
        assert_eq!(producer.try_publish(&n.to_le_bytes()), Ok(n));
    }
    let mut seen = 0;
    let mut missed_all = 0;
    let mut next = 1;
    while seen + missed_all < 1000 {
        match consumer.poll(10, |message| {
            assert_eq!(message.sequence, next);
            assert_eq!(message.payload, message.sequence.to_le_bytes());
            next += 1;
            seen += 1;
        }) {
            Ok(_) => {}
            Err(PollError::Lapped { missed, resumed_at }) => {
                next += missed;
                assert_eq!(resumed_at, next);
                missed_all += missed;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(missed_all > 900 && seen >= 30, "{missed_all} {seen}");
}

#[test]
fn producer_restart_continues_and_a_second_one_is_refused() {
    let dir = dir();
    let options = RingOptions::new().directory(dir.path()).capacity_bytes(4096);
    let mut consumer;
    {
        let mut producer = options.open("a").unwrap();
        consumer = ConsumerOptions::new().directory(dir.path()).attach("a").unwrap();
        for _ in 0..5 {
            producer.try_publish(b"x").unwrap();
        }
        let refused = options.open("a").err().unwrap();
        assert!(
            matches!(refused, RingError::ProducerAlive { pid, .. } if pid == std::process::id())
        );
        assert_eq!(consumer.producer_status(), ProducerStatus::Alive);
        let mut claim = producer.claim(400).unwrap();
        claim.fill(0xff);
    }
    assert_eq!(consumer.producer_status(), ProducerStatus::Closed);
    let mut producer = options.open("a").unwrap();
    assert_eq!(consumer.producer_status(), ProducerStatus::Alive);
    assert_eq!(producer.try_publish(b"y"), Ok(6));
    let mut got = Vec::new();
    consumer.poll(100, |message| got.push((message.sequence, message.payload.to_vec()))).unwrap();
    assert_eq!(got.len(), 6);
    assert_eq!(got[5], (6, b"y".to_vec()));
}

#[test]
fn joins_at_oldest_at_a_sequence_and_now() {
    let dir = dir();
    let options = RingOptions::new().directory(dir.path()).capacity_bytes(1 << 16);
    let mut producer = options.open("a").unwrap();
    for n in 1..=100_000u64 {
        producer.try_publish(&n.to_le_bytes()).unwrap();
    }
    let attach = |start| ConsumerOptions::new().directory(dir.path()).start(start).attach("a");
    let now = attach(Start::Now).unwrap();
    assert_eq!(now.next_sequence(), 100_001);
    let oldest = attach(Start::Oldest).unwrap().next_sequence();
    assert!((100_001 - 1024..=100_001 - 1024 + 40).contains(&oldest), "{oldest}");
    let mut at = attach(Start::Sequence(99_500)).unwrap();
    at.poll(1, |message| assert_eq!(message.sequence, 99_500)).unwrap();
    let gone = attach(Start::Sequence(5)).err().unwrap();
    assert!(matches!(gone, RingError::SequenceGone { wanted: 5, .. }), "{gone}");
    let mut future = attach(Start::Sequence(100_010)).unwrap();
    for n in 100_001..=100_012u64 {
        producer.try_publish(&n.to_le_bytes()).unwrap();
    }
    let mut seen = Vec::new();
    future.poll(100, |message| seen.push(message.sequence)).unwrap();
    assert_eq!(seen, [100_010, 100_011, 100_012]);
    let inspector = Inspector::open_file(&ring_path(dir.path(), "a").unwrap()).unwrap();
    let verified = inspector.verify(|_| {}).unwrap();
    assert!(verified.problems.is_empty(), "{:?}", verified.problems);
    assert_eq!(verified.next_sequence, 100_013);
}

#[test]
fn a_batch_appears_at_once_or_not_at_all() {
    let dir = dir();
    let options = RingOptions::new().directory(dir.path()).capacity_bytes(4096);
    let mut producer = options.open("a").unwrap();
    let mut consumer = ConsumerOptions::new().directory(dir.path()).attach("a").unwrap();
    let mut expected = 1;
    for round in 0..1000u64 {
        let mut batch = producer.batch();
        for i in 0..round % 7 {
            batch.push(&vec![i as u8; (round * 31 % 300) as usize]).unwrap();
        }
        if round % 3 == 0 {
            drop(batch);
            assert_eq!(consumer.poll(100, |_| ()), Ok(0));
        } else {
            assert_eq!(batch.commit(), round % 7);
            let mut i = 0;
            let n = consumer.poll(100, |message| {
                assert_eq!(message.sequence, expected);
                assert_eq!(message.payload, vec![i; (round * 31 % 300) as usize]);
                i += 1;
                expected += 1;
            });
            assert_eq!(n, Ok((round % 7) as usize));
        }
    }
    let mut batch = producer.batch();
    let error = loop {
        if let Err(error) = batch.push(&[0; 500]) {
            break error;
        }
    };
    assert!(matches!(error, PublishError::BatchTooLong { .. } | PublishError::Backpressure { .. }));
    assert!(batch.commit() >= 5);
}

#[test]
fn listing_and_removing() {
    let dir = dir();
    let options = RingOptions::new().directory(dir.path()).capacity_bytes(4096);
    let producer = options.create("b").unwrap();
    let _other = options.create("a").unwrap();
    assert_eq!(list(dir.path()).unwrap(), ["a", "b"]);
    assert!(matches!(options.create("a"), Err(RingError::Exists { .. })));
    assert!(matches!(remove(dir.path(), "b", false), Err(RingError::ProducerAlive { .. })));
    drop(producer);
    remove(dir.path(), "b", false).unwrap();
    assert_eq!(list(dir.path()).unwrap(), ["a"]);
    let differs = options.capacity_bytes(8192).attach("a").err().unwrap();
    assert!(
        differs.to_string().contains("4096") && differs.to_string().contains("8192"),
        "{differs}"
    );
}

#[test]
fn an_evicted_consumer_is_told_at_its_next_poll() {
    let dir = dir();
    let options = RingOptions::new().directory(dir.path()).capacity_bytes(4096).evictable(true);
    let mut producer = options.open("a").unwrap();
    let mut consumer = ConsumerOptions::new().directory(dir.path()).attach("a").unwrap();
    for _ in 0..10 {
        producer.try_publish(b"x").unwrap();
    }
    assert_eq!(consumer.poll(3, |_| ()), Ok(3));
    assert!(consumer.is_gating());
    let slot = producer.slowest().unwrap().slot;
    assert_eq!(producer.evict(slot), Ok(true));
    assert!(!consumer.is_gating());
    for _ in 0..3 {
        let told = consumer.poll(3, |_| panic!("delivered after its eviction"));
        assert_eq!(told, Err(PollError::Evicted { next: 4 }));
    }
    for _ in 0..1000 {
        producer.try_publish(b"x").unwrap(); // held up by nobody
    }
    let mut kept = RingOptions::new().directory(dir.path()).capacity_bytes(4096).open("b").unwrap();
    let _consumer = ConsumerOptions::new().directory(dir.path()).attach("b").unwrap();
    assert_eq!(kept.evict(0), Err(PublishError::NotEvictable));
}

#[test]
fn a_forked_child_that_drops_its_copies_disturbs_nobody() {
    let dir = dir();
    let options = RingOptions::new().directory(dir.path()).capacity_bytes(4096);
    let mut producer = options.open("a").unwrap();
    let mut consumer = ConsumerOptions::new().directory(dir.path()).attach("a").unwrap();
    let place = CountersOptions::new().directory(dir.path());
    let counters = place.open("a", "sender", &["messages"], &[]).unwrap();
    // SAFETY: the child drops three handles, which takes no lock that another thread of this
    // process could hold (the C library sets its allocator free in the child), and leaves without
    // unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(counters);
        drop(consumer);
        drop(producer);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    let mut status = 1;
    // SAFETY: waits for our own child; `status` is a valid place for the answer.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    assert_eq!(consumer.producer_status(), ProducerStatus::Alive);
    assert!(matches!(options.open("a"), Err(RingError::ProducerAlive { .. })));
    producer.try_publish(b"x").unwrap();
    assert_eq!(consumer.poll(3, |_| ()), Ok(1));
    assert_eq!(producer.slowest().map(|view| view.slot), Some(0));
    assert!(CountersReader::open(dir.path(), "a").unwrap().snapshot().unwrap().alive);
    assert!(matches!(place.open("a", "sender", &[], &[]), Err(CountersError::WriterAlive { .. })));
    drop(counters);
}
