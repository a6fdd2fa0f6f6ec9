//! Bulk catch-up: the whole log over TCP as its reader tells it, followed, resumed, refused, and
//! in the face of peers that make no sense.

mod support;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use gapless::log::bulk::{Hello, Refusal};
use gapless::log::{Fetch, LogError, LogReader, ReadFrom};
use gapless::protocol::{Random, Session};
use gapless::{Agent, Flags, Message};

use support::{damage, payload, rewinder, running, small, write};

/// What a reader tells, as text.
#[derive(Debug, Default, PartialEq)]
struct Transcript(Vec<String>);

impl Transcript {
    fn message(&mut self, message: &Message<'_>, unix_ns: u64) {
        self.0.push(format!("{} {:?} {unix_ns}", message.sequence, message.payload));
    }

    fn told(&mut self, error: &LogError) {
        assert!(error.is_told(), "{error}");
        self.0.push(match error {
            // It says where, which differs.
            LogError::Damaged { first, count, .. } => format!("damaged {first} {count}"),
            other => other.to_string(),
        });
    }
}

fn read(directory: &std::path::Path, session: u64, from: ReadFrom) -> Transcript {
    let session = Session::from_number(session);
    let mut reader = LogReader::open_session(directory, session, from).unwrap();
    let mut transcript = Transcript::default();
    loop {
        match reader.poll(1000, |message, unix_ns| transcript.message(&message, unix_ns)) {
            Ok(0) => return transcript,
            Ok(_) => {}
            Err(error) => transcript.told(&error),
        }
    }
}

/// Fetches until `length` things were told, in bits of changing size, saying no at times.
fn fetch(fetch: &mut Fetch, length: usize) -> Transcript {
    let mut transcript = Transcript::default();
    let (mut calls, mut limit) = (0, 1);
    while transcript.0.len() < length {
        limit = limit % 977 + 13;
        let polled = fetch.poll_while(limit, |message, unix_ns| {
            calls += 1;
            let taken = calls % 101 != 0;
            if taken {
                transcript.message(&message, unix_ns);
            }
            taken
        });
        if let Err(error) = polled {
            transcript.told(&error);
        }
    }
    transcript
}

fn check(transcript: &Transcript, expected: &Transcript) {
    for (got, expected) in transcript.0.iter().zip(&expected.0) {
        assert_eq!(got, expected);
    }
    assert_eq!(transcript.0.len(), expected.0.len());
}

/// Polls until it has everything; nothing more may come.
fn is_all(fetch: &mut Fetch) {
    while !fetch.is_caught_up() {
        assert_eq!(fetch.poll_while(1, |message, _| panic!("{message:?}")).unwrap(), 0);
    }
    assert_eq!(fetch.newest_sequence(), fetch.next_sequence());
}

/// Two sessions; the first with messages that were never recorded and some that are damaged.
fn eventful(directory: &std::path::Path) {
    write(directory, 35, 5, 3000);
    let (mut log, _) = small().open(directory).unwrap();
    log.append_lost(10, 4000).unwrap();
    log.flush().unwrap();
    drop(log);
    write(directory, 35, 3015, 2000);
    damage(directory);
    write(directory, 36, 1, 500);
    let (mut log, _) = small().open(directory).unwrap();
    // One that is larger than a block and one without a byte.
    log.append(501, &vec![7; 100_000], Flags::WHOLE, 501).unwrap();
    log.append(502, &[], Flags::WHOLE, 502).unwrap();
    log.flush().unwrap();
}

#[test]
fn a_log_comes_as_its_reader_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    eventful(dir.path());
    let (server, runner) = running(&rewinder(dir.path()));
    let expected = read(dir.path(), 35, ReadFrom::Oldest);
    assert!(expected.0.iter().any(|told| told.starts_with("damaged")));
    let mut whole = Fetch::connect(server, Some(35), 0).unwrap();
    assert_eq!((whole.session(), whole.next_sequence()), (35, 5));
    check(&fetch(&mut whole, expected.0.len()), &expected);
    is_all(&mut whole);
    assert_eq!((whole.session(), whole.next_sequence()), (36, 503));
    for from in [5, 6, 1000, 3004, 3005, 3010, 5014] {
        let expected = read(dir.path(), 35, ReadFrom::Sequence(from));
        let mut part = Fetch::connect(server, Some(35), from).unwrap();
        check(&fetch(&mut part, expected.0.len()), &expected);
    }
    let newest = Fetch::connect(server, None, 0).unwrap();
    assert_eq!((newest.session(), newest.newest_sequence()), (36, 503));
    let (rewinder, outcome) = runner.stop();
    outcome.unwrap();
    assert_eq!(rewinder.counts().clients_served, 9);
}

#[test]
fn what_is_recorded_meanwhile_follows() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = small().open(dir.path()).unwrap();
    log.begin(35, 1).unwrap();
    log.append(1, &payload(1), Flags::WHOLE, 1).unwrap();
    log.flush().unwrap();
    let (server, runner) = running(&rewinder(dir.path()));
    let mut early = Fetch::connect(server, None, 1).unwrap();
    let mut future = Fetch::connect(server, Some(35), 4000).unwrap();
    let (mut next, mut future_next) = (1, 4000);
    for sequence in 2..=6000 {
        log.append(sequence, &payload(sequence), Flags::WHOLE, sequence).unwrap();
        if sequence % 50 != 0 && sequence != 6000 {
            continue;
        }
        log.flush().unwrap();
        for (fetch, next) in [(&mut early, &mut next), (&mut future, &mut future_next)] {
            while *next <= sequence {
                let polled = fetch.poll_while(1000, |message, _| {
                    assert_eq!((message.sequence, message.payload), (*next, &payload(*next)[..]));
                    *next += 1;
                    true
                });
                polled.unwrap();
            }
        }
    }
    assert_eq!((early.next_sequence(), future.next_sequence()), (6001, 6001));
    is_all(&mut early);
    assert!(runner.stop().1.is_ok());
}

#[test]
fn another_server_goes_on_where_one_ended() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(one.path(), 35, 1, 9000);
    write(two.path(), 35, 1, 9000);
    // So slow that it cannot have sent everything when it ends.
    let (first, slow) = running(&rewinder(one.path()).bytes_per_second(200_000));
    let (second, runner) = running(&rewinder(two.path()));
    let mut fetch = Fetch::connect_any(&[first, second], None, 1).unwrap();
    assert_eq!(fetch.server(), Some(first));
    let (mut next, mut slow) = (1, Some(slow));
    while next <= 9000 {
        let polled = fetch.poll_while(300, |message, _| {
            assert_eq!((message.sequence, message.payload), (next, &payload(next)[..]));
            next += 1;
            true
        });
        polled.unwrap();
        if next > 500
            && let Some(slow) = slow.take()
        {
            drop(slow.stop());
        }
    }
    assert_eq!(fetch.server(), Some(second));
    drop(runner.stop());
    // Both are gone: that is told, and poll goes on asking.
    for _ in 0..2 {
        let error = loop {
            match fetch.poll_while(1, |_, _| true) {
                Ok(handled) => assert_eq!(handled, 0),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, LogError::Unreachable { .. }), "{error}");
    }
}

#[test]
fn refusals_say_why() {
    let (dir, newer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(dir.path(), 35, 100, 10);
    write(newer.path(), 35, 50, 10);
    let (server, runner) = running(&rewinder(dir.path()).clients_max(1));
    let refused = |session, from| Fetch::connect(server, session, from).err().unwrap();
    let unknown = refused(Some(34), 1);
    assert!(matches!(unknown, LogError::SessionUnknown { .. }), "{unknown}");
    assert!(matches!(refused(Some(u64::MAX - 1), 1), LogError::SessionUnknown { .. }));
    let gone = refused(None, 99);
    assert!(matches!(gone, LogError::SequenceGone { wanted: 99, oldest: 100 }), "{gone}");
    // Another server that has it is found.
    let (other, other_runner) = running(&rewinder(newer.path()));
    let found = Fetch::connect_any(&[server, other], Some(35), 55).unwrap();
    assert_eq!((found.server(), found.next_sequence()), (Some(other), 55));
    let served = Fetch::connect(server, None, 100).unwrap();
    let busy = refused(None, 100);
    assert!(matches!(busy, LogError::Refused { why: Refusal::Busy, .. }), "{busy}");
    drop(served);
    // Its place is free as soon as that was noticed.
    while Fetch::connect(server, None, 100).is_err() {}
    let mut hello = Hello { session: None, from: 1 }.to_bytes();
    hello[8] = 2;
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(&hello).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert_eq!((answer.len(), answer[48]), (64, 4)); // a refusal for its version
    drop((runner.stop(), other_runner.stop()));
    let nobody = Fetch::connect(server, None, 1).err().unwrap();
    assert!(matches!(nobody, LogError::Unreachable { .. }), "{nobody}");
    let empty = tempfile::tempdir().unwrap();
    let (server, _runner) = running(&rewinder(empty.path()));
    let nothing = Fetch::connect(server, None, 1).err().unwrap();
    assert!(matches!(nothing, LogError::SessionUnknown { .. }), "{nothing}");
}

#[test]
fn a_client_that_does_not_read_holds_nobody_up_and_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = small().segment_bytes(64 << 20).open(dir.path()).unwrap();
    log.begin(35, 1).unwrap();
    for sequence in 1..=500 {
        log.append(sequence, &vec![1; 100_000], Flags::WHOLE, 1).unwrap(); // no socket takes that
    }
    log.flush().unwrap();
    let options = rewinder(dir.path()).bytes_per_second(0);
    let mut rewinder = options.stall_timeout(Duration::from_millis(200)).open().unwrap();
    let server = rewinder.addresses().next().unwrap();
    let mut stuck = TcpStream::connect(server).unwrap();
    stuck.write_all(&Hello { session: None, from: 0 }.to_bytes()).unwrap();
    while rewinder.counts().clients == 0 {
        rewinder.duty_cycle().unwrap();
    }
    let reader = std::thread::spawn(move || {
        let mut fetch = Fetch::connect(server, None, 0).unwrap();
        while fetch.next_sequence() <= 500 {
            fetch.poll_while(10, |_, _| true).unwrap();
        }
    });
    while !reader.is_finished() || rewinder.counts().clients > 0 {
        rewinder.duty_cycle().unwrap();
    }
    reader.join().unwrap();
    // Two, or more: a reader that is held up itself is given up as well, and comes again.
    assert!(rewinder.counts().clients_served >= 2);
    let mut rest = Vec::new();
    // Whatever its socket held, or that it was cut off; not all of the log.
    let _ = stuck.read_to_end(&mut rest);
    assert!(rest.len() < 50_000_000, "{}", rest.len());
}

#[test]
fn all_clients_together_get_no_more_than_the_budget() {
    const RATE: u64 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 35, 1, 4000);
    let started = Instant::now();
    let (server, runner) = running(&rewinder(dir.path()).bytes_per_second(RATE));
    let mut clients: Vec<_> = (0..3).map(|_| Fetch::connect(server, None, 1).unwrap()).collect();
    let mut bytes = 0;
    while bytes < 700_000 {
        for client in &mut clients {
            client
                .poll_while(100, |message, _| {
                    bytes += message.payload.len() as u64;
                    true
                })
                .unwrap();
        }
        let earned = (u128::from(RATE) * started.elapsed().as_nanos() / 1_000_000_000) as u64;
        assert!(bytes <= earned + (128 << 10), "{bytes} of {earned}");
    }
    assert!(clients.iter().all(|client| client.next_sequence() > 100));
    assert!(runner.stop().1.is_ok());
}

#[test]
fn garbage_from_clients_costs_only_their_connection() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 35, 1, 100);
    let options = rewinder(dir.path()).hello_timeout(Duration::from_millis(50)).clients_max(2);
    let (server, runner) = running(&options);
    let mut random = Random::new(3);
    let mut silent = VecDeque::new();
    for round in 0..300 {
        let mut bytes = Hello { session: None, from: 1 }.to_bytes().to_vec();
        for _ in 0..random.below(3) {
            bytes[random.below(40) as usize] = random.next() as u8;
        }
        bytes.truncate(random.below(60) as usize);
        bytes.extend((0..random.below(9)).map(|_| random.next() as u8));
        let Ok(mut stream) = TcpStream::connect(server) else { continue };
        let _ = stream.write_all(&bytes); // it may have been cut off
        if round % 3 == 0 {
            silent.push_back(stream);
        }
        if silent.len() > 20 {
            silent.pop_front();
        }
    }
    drop(silent);
    // Places are free again when it was noticed that those are gone.
    let mut good = loop {
        if let Ok(good) = Fetch::connect(server, None, 1) {
            break good;
        }
    };
    assert_eq!(fetch(&mut good, 100).0.len(), 100);
    let (_, outcome) = runner.stop();
    outcome.unwrap();
}

/// What a rewinder sends of a log, in full.
fn recorded(server: SocketAddr) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.write_all(&Hello { session: None, from: 1 }.to_bytes()).unwrap();
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    // The last is a status, which has its length and kind in its head.
    while bytes.len() < 64 || bytes[bytes.len() - 60..][..12] != *b"GREW\x40\0\0\0\x02\0\0\0" {
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0);
        bytes.extend(&piece[..read]);
    }
    bytes
}

#[test]
fn garbage_from_servers_is_an_error_and_never_a_message() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 35, 1, 200);
    let (server, runner) = running(&rewinder(dir.path()));
    let sound = recorded(server);
    assert!(runner.stop().1.is_ok());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let liar = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let mut random = Random::new(11);
        for (mut stream, _) in std::iter::from_fn(|| listener.accept().ok()) {
            let mut hello = [0; 40];
            if stream.read_exact(&mut hello).is_err() || hello[16] == 99 {
                return; // that was the sign to end
            }
            let mut bad = sound.clone();
            for _ in 0..=random.below(3) {
                let at = random.below(bad.len() as u64) as usize;
                bad[at] = random.next() as u8;
            }
            bad.truncate(random.below(2 * bad.len() as u64) as usize);
            let _ = stream.write_all(&bad); // the client may have left
        }
    });
    for _ in 0..100 {
        let Ok(mut fetch) = Fetch::connect(liar, None, 1) else { continue };
        let mut next = 1;
        // To the end, or until it has given up.
        while next <= 200 {
            let polled = fetch.poll_while(50, |message, _| {
                assert_eq!((message.sequence, message.payload), (next, &payload(next)[..]));
                next += 1;
                true
            });
            if let Err(error) = polled {
                assert!(!error.is_told(), "{error}");
                break;
            }
        }
    }
    drop(Fetch::connect(liar, Some(99), 1));
    thread.join().unwrap();
}
