//! The seam between a stream's past and its present: at every offset, and while it runs.

use std::path::Path;
use std::time::Duration;

use gapless::log::{
    LogError, LogOptions, Recorder, RecorderOptions, Rewinder, RewinderOptions, SyncPolicy,
};
use gapless::shm::ProducerStatus;
use gapless::{
    Address, Agent, AgentRunner, DurableError, Error, PollError, Publisher, RunnerOptions,
    ShmAddress, Subscriber, shm,
};

fn text(directory: &Path, options: &str) -> String {
    let directory = directory.display();
    format!("shm:orders?dir={directory}&log={directory}/log&{options}")
}

fn ring_of(text: &str) -> ShmAddress {
    match text.parse() {
        Ok(Address::Shm(ring)) => ring,
        other => panic!("{other:?}"),
    }
}

fn options() -> RecorderOptions {
    RecorderOptions::new().log(LogOptions::new().segment_bytes(64 << 10).block_bytes(4 << 10))
}

fn record(text: &str, directory: &Path) -> Recorder {
    Recorder::open(&ring_of(text), directory.join("log"), &options()).unwrap()
}

fn payload(n: u64) -> Vec<u8> {
    (0..n % 40 + 8).map(|byte| (n * 31 + byte) as u8).collect()
}

/// Publishes while somebody records, so that the ring may be as small as it likes.
fn publish(publisher: &mut Publisher, recorder: &mut Recorder, count: u64) {
    for _ in 0..count {
        let next = publisher.next_sequence();
        while publisher.try_publish(&payload(next)).is_err() {
            recorder.duty_cycle().unwrap();
        }
    }
    while recorder.duty_cycle().unwrap() > 0 {}
}

/// Checks that a subscriber's messages come one behind the other.
struct Expected(u64);

impl Expected {
    fn poll(&mut self, subscriber: &mut Subscriber, limit: usize) -> usize {
        let polled = subscriber.poll(limit, |message| {
            assert_eq!((message.sequence, message.payload), (self.0, &payload(self.0)[..]));
            self.0 += 1;
        });
        polled.unwrap()
    }
}

#[test]
fn the_seam_is_not_seen_at_any_offset() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path(), "capacity=4K&wait=yield");
    let mut publisher = Publisher::open(&text).unwrap();
    let mut recorder = record(&text, dir.path());
    publish(&mut publisher, &mut recorder, 400);
    // The ring has some 40 of them. Each subscriber reads so much of the past, then more is
    // published, so that the seam lies elsewhere in the ring each time.
    for from in 1..=401 {
        let mut subscriber = Subscriber::open(&format!("{text}&from={from}")).unwrap();
        let mut expected = Expected(from);
        expected.poll(&mut subscriber, (from % 60) as usize);
        publish(&mut publisher, &mut recorder, from % 7);
        let end = publisher.next_sequence();
        while expected.0 < end {
            expected.poll(&mut subscriber, 1 + (from % 13) as usize);
        }
        assert_eq!(expected.poll(&mut subscriber, 1), 0);
        expected.poll(&mut subscriber, 1);
        assert!(subscriber.is_live(), "from {from}");
        publisher.try_publish(&payload(end)).unwrap();
        assert_eq!(expected.poll(&mut subscriber, 9), 1);
        recorder.duty_cycle().unwrap();
    }
}

#[test]
fn a_stream_that_runs_on_is_caught_up_with() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path(), "capacity=64K&wait=yield");
    let mut publisher = Publisher::open(&text).unwrap();
    let recorder = record(&text, dir.path());
    let runner = AgentRunner::spawn(recorder, RunnerOptions::default()).unwrap();
    std::thread::scope(|scope| {
        let publisher = scope.spawn(|| {
            while publisher.next_sequence() <= 100_000 {
                let next = publisher.next_sequence();
                if publisher.try_publish(&payload(next)).is_err() {
                    std::thread::yield_now();
                }
            }
            publisher
        });
        let reader = || {
            let mut subscriber = loop {
                match Subscriber::open(&format!("{text}&from=1")) {
                    Ok(subscriber) => break subscriber,
                    Err(_) => std::thread::yield_now(), // nothing is recorded yet
                }
            };
            let mut expected = Expected(1);
            while expected.0 <= 100_000 {
                if expected.poll(&mut subscriber, 64) == 0 {
                    std::thread::yield_now();
                }
            }
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        for reader in readers {
            reader.join().unwrap();
        }
        drop(publisher.join().unwrap());
    });
    let (recorder, ended) = runner.stop();
    ended.unwrap();
    recorder.close().unwrap();
}

#[test]
fn what_the_recorder_missed_comes_from_the_ring_or_is_told_as_lost() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path(), "capacity=4K");
    let mut publisher = Publisher::open(&text).unwrap();
    let mut recorder = record(&text, dir.path());
    publish(&mut publisher, &mut recorder, 100);
    drop(recorder);
    for _ in 0..10 {
        publisher.try_publish(&payload(publisher.next_sequence())).unwrap();
    }
    // Not recorded, but in the ring still.
    let mut subscriber = Subscriber::open(&format!("{text}&from=1")).unwrap();
    let mut expected = Expected(1);
    while expected.0 < 111 {
        expected.poll(&mut subscriber, 64);
    }
    drop(subscriber);
    for _ in 0..200 {
        publisher.try_publish(&payload(publisher.next_sequence())).unwrap();
    }
    let mut subscriber = Subscriber::open(&format!("{text}&from=1")).unwrap();
    let mut expected = Expected(1);
    let mut told = None;
    while expected.0 < 311 {
        let polled = subscriber.poll(64, |message| {
            assert_eq!((message.sequence, message.payload), (expected.0, &payload(expected.0)[..]));
            expected.0 += 1;
        });
        match polled {
            Ok(_) => {}
            Err(PollError::Lost { first, count }) => {
                told = Some((first, count));
                expected.0 = first + count;
            }
            Err(other) => panic!("{other}"),
        }
    }
    let (first, count) = told.unwrap();
    assert!(first == 101 && count > 100, "{first} {count}");
}

#[test]
fn a_publisher_goes_on_from_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path(), "capacity=16K");
    let mut publisher = Publisher::open(&text).unwrap();
    let session = publisher.producer().session();
    let mut recorder = record(&text, dir.path());
    publish(&mut publisher, &mut recorder, 5000);
    drop((publisher, recorder));
    shm::remove(dir.path(), "orders", false).unwrap(); // as a restart of the host would
    let mut publisher = Publisher::open(&text).unwrap();
    assert_eq!((publisher.producer().session(), publisher.next_sequence()), (session, 5001));
    let mut recorder = record(&text, dir.path());
    publish(&mut publisher, &mut recorder, 10);
    // What the ring holds is what the log had: from the ring alone, and through both.
    let plain = format!("shm:orders?dir={}", dir.path().display());
    let mut subscriber = Subscriber::open(&plain).unwrap();
    let mut expected = Expected(subscriber.next_sequence());
    assert!((4500..5000).contains(&expected.0), "{}", expected.0);
    while expected.0 < 5011 {
        assert!(expected.poll(&mut subscriber, 64) > 0);
    }
    let mut subscriber = Subscriber::open(&text).unwrap();
    let mut expected = Expected(1);
    while expected.0 < 5011 {
        expected.poll(&mut subscriber, 64);
    }
    drop((publisher, recorder));
    let mut publisher = Publisher::open(&format!("{text}&fresh=yes")).unwrap();
    assert!(publisher.producer().session() > session && publisher.next_sequence() == 1);
}

#[test]
fn a_log_is_replayed_by_its_address() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path(), "capacity=64K");
    let mut publisher = Publisher::open(&text).unwrap();
    let mut recorder = record(&text, dir.path());
    publish(&mut publisher, &mut recorder, 1000);
    let log = format!("log:{}/log", dir.path().display());
    let mut subscriber = Subscriber::open(&format!("{log}?from=100&until=900")).unwrap();
    let mut followed = Subscriber::open(&format!("{log}?from=1000&follow=yes")).unwrap();
    let mut bounded = Subscriber::open(&format!("{log}?from=990")).unwrap();
    publish(&mut publisher, &mut recorder, 10);
    let mut expected = Expected(100);
    while subscriber.publisher_status() == ProducerStatus::Alive {
        expected.poll(&mut subscriber, 64);
    }
    assert_eq!(expected.0, 900);
    let mut expected = Expected(1000);
    while expected.0 < 1011 {
        expected.poll(&mut followed, 64);
    }
    assert_eq!(followed.publisher_status(), ProducerStatus::Alive);
    let mut expected = Expected(990);
    while bounded.publisher_status() == ProducerStatus::Alive {
        expected.poll(&mut bounded, 64);
    }
    assert_eq!(expected.0, 1001);
    assert!(Publisher::open(&log).is_err());
    // A declared reader begins where it was.
    let named = format!("{log}?reader=book");
    let mut subscriber = Subscriber::open(&named).unwrap();
    Expected(1).poll(&mut subscriber, 10);
    subscriber.replay().unwrap().reader().commit().unwrap();
    Expected(11).poll(&mut Subscriber::open(&named).unwrap(), 10);
}

#[test]
fn a_publisher_knows_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path(), "capacity=64K");
    let mut publisher = Publisher::open(&text).unwrap();
    let long = Duration::from_secs(60);
    assert!(matches!(publisher.wait_durable(1, long), Err(DurableError::NoRecorder { .. })));
    let options = RecorderOptions::new().log(LogOptions::new().sync(SyncPolicy::Batch));
    let recorder = Recorder::open(&ring_of(&text), dir.path().join("log"), &options).unwrap();
    let runner = AgentRunner::spawn(recorder, RunnerOptions::default()).unwrap();
    for n in 1..50 {
        let sequence = publisher.try_publish(&payload(n)).unwrap();
        publisher.wait_durable(sequence, long).unwrap();
        assert!(publisher.durable_sequence().unwrap() >= n);
    }
    let now = publisher.wait_durable(100, Duration::ZERO);
    assert!(matches!(now, Err(DurableError::Timeout { wanted: 100, durable: 49 })));
    let (recorder, _) = runner.stop();
    drop(recorder);
    // Whether the recorder lives is not asked each time.
    let dead = loop {
        if let Err(error) = publisher.durable_sequence() {
            break error;
        }
    };
    assert!(matches!(dead, DurableError::RecorderDead { durable: 49, .. }));
    publisher.wait_durable(49, long).unwrap();
}

/// Runs an agent on a thread of its own until the test is over.
fn run<A: Agent + Send + 'static>(agent: A) -> AgentRunner<A> {
    AgentRunner::spawn(agent, RunnerOptions { wait: shm::WaitStrategy::SpinYield, core: None })
        .unwrap()
}

fn rewinder(directory: &Path) -> (AgentRunner<Rewinder>, std::net::SocketAddr) {
    let local = "127.0.0.1:0".parse().unwrap();
    let rewinder = RewinderOptions::new().log(directory).bind(local).open().unwrap();
    let address = rewinder.addresses().next().unwrap();
    (run(rewinder), address)
}

#[test]
fn a_ring_is_joined_through_a_rewinder() {
    let dir = tempfile::tempdir().unwrap();
    let text = text(dir.path(), "capacity=4K");
    let mut publisher = Publisher::open(&text).unwrap();
    let mut recorder = record(&text, dir.path());
    publish(&mut publisher, &mut recorder, 5000);
    let (rewinder, server) = rewinder(&dir.path().join("log"));
    let plain = format!("shm:orders?dir={}&rewind={server}&from=7", dir.path().display());
    let mut subscriber = Subscriber::open(&plain).unwrap();
    let mut expected = Expected(7);
    while expected.0 < 5001 || !subscriber.is_live() {
        expected.poll(&mut subscriber, 64);
    }
    publisher.try_publish(&payload(5001)).unwrap();
    assert_eq!(expected.poll(&mut subscriber, 9), 1);
    rewinder.stop().1.unwrap();
}

/// A stream of datagrams, whose sender holds little, is joined from its beginning while it runs.
fn join_wire(past: impl Fn(&Path, std::net::SocketAddr) -> String) {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let port = {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port()
    };
    let place = format!("udp:127.0.0.1:{port}?dir={}&wait=yield", dir.path().display());
    let sending = format!("{place}&ring=orders&capacity=16K&flow=slowest");
    let mut publisher = Publisher::open(&sending).unwrap();
    let ring = ring_of(&format!("shm:orders?dir={}", dir.path().display()));
    let mut recorder = Recorder::open(&ring, &log, &options()).unwrap();
    let mut turn = |publisher: &mut Publisher, until: u64| {
        publisher.poll().unwrap();
        let next = publisher.next_sequence();
        if next < until && publisher.try_publish(&payload(next)).is_ok() {
            recorder.duty_cycle().unwrap();
        }
        recorder.duty_cycle().unwrap();
    };
    while publisher.next_sequence() < 3001 {
        turn(&mut publisher, 3001);
    }
    let (rewinder, server) = rewinder(&log);
    let mut subscriber =
        Subscriber::open(&format!("{place}&from=5{}&giveup=60s", past(&log, server))).unwrap();
    let mut expected = Expected(5);
    while expected.0 < 6001 || !subscriber.is_live() {
        turn(&mut publisher, 6001);
        expected.poll(&mut subscriber, 64);
    }
    while expected.0 < 6101 {
        turn(&mut publisher, 6101);
        expected.poll(&mut subscriber, 64);
    }
    rewinder.stop().1.unwrap();
}

#[test]
fn datagrams_are_joined_through_a_log() {
    join_wire(|log, server| format!("&log={}&request={server}", log.display()));
}

#[test]
fn datagrams_are_joined_through_a_rewinder() {
    join_wire(|_, server| format!("&rewind={server}&request={server}"));
}

#[test]
fn numbers_that_may_have_been_sent_are_not_used_again_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let place = format!("udp:127.0.0.1:9?dir={0}&ring=orders&log={0}/log", dir.path().display());
    let mut publisher = Publisher::open(&place).unwrap();
    let ring = ring_of(&format!("shm:orders?dir={}", dir.path().display()));
    let mut recorder = Recorder::open(&ring, dir.path().join("log"), &options()).unwrap();
    publish(&mut publisher, &mut recorder, 100);
    drop(publisher);
    shm::remove(dir.path(), "orders", true).unwrap();
    // A recorder that runs may have more than its log has.
    let refused = Publisher::open(&place).err().unwrap();
    assert!(matches!(&refused, Error::Log(LogError::WriterAlive { .. })), "{refused}");
    drop(recorder);
    let refused = Publisher::open(&place).err().unwrap();
    assert!(matches!(&refused, Error::Unsettled { next: 101, .. }), "{refused}");
    let next = |options: &str| {
        let publisher = Publisher::open(&format!("{place}{options}")).unwrap();
        let next = publisher.next_sequence();
        drop(publisher);
        shm::remove(dir.path(), "orders", true).unwrap();
        next
    };
    assert_eq!((next("&resume=durable"), next("&fresh=yes")), (101, 1));
    // One that was closed in order leaves no doubt.
    let (log, _) = LogOptions::new().open(dir.path().join("log")).unwrap();
    log.close().unwrap();
    assert_eq!(next(""), 101);
}
