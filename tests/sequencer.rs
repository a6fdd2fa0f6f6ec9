//! Sequencers and their clients over rings: what is taken, refused, and written down of whom.

mod chain;

use std::time::Duration;

use gapless::Agent;
use gapless::sequencer::{
    Client, ClientId, ClientOptions, Kind, Leaving, Rate, Record, Refusal, Role, Sequencer,
    SequencerOptions, SubmitError,
};

use chain::{Chain, at, join, open, options, settle, until};

#[test]
fn every_command_comes_back_once_with_its_events() {
    let dir = tempfile::tempdir().unwrap();
    let mut sequencer = open(options(dir.path(), 2));
    let mut client = join(dir.path(), 1, &mut sequencer);
    let mut other = join(dir.path(), 2, &mut sequencer);
    for number in 1..=500 {
        assert_eq!(client.submit(b"buy").unwrap(), number);
        other.submit(b"sell").unwrap();
    }
    let seen = settle(&mut sequencer, &mut client);
    let commands: Vec<_> = seen.iter().filter(|(kind, ..)| *kind == Kind::Command).collect();
    assert_eq!(commands.len(), 500);
    assert!(commands.iter().zip(1..).all(|((.., reference), number)| *reference == number));
    assert!(seen.iter().filter(|(kind, ..)| *kind == Kind::Event).count() >= 500);
    assert_eq!(sequencer.application().commands, 1000);
    assert_eq!(sequencer.stats().duplicates, 0);
}

#[test]
fn a_client_that_is_not_known_yet_must_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut sequencer = open(options(dir.path(), 1));
    sequencer.duty_cycle().unwrap();
    let commands = at(dir.path(), "client-1");
    let mut client = Client::open(ClientId(1), &commands, &at(dir.path(), "sequenced")).unwrap();
    let error = client.submit(b"early").unwrap_err();
    assert!(error == SubmitError::NotReady && error.is_backpressure());
}

#[test]
fn of_a_thousand_rapid_commands_those_within_the_rate_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let rate = Rate { per_second: 1, burst: 100 };
    let client = ClientOptions::new(ClientId(1), at(dir.path(), "client-1")).rate(rate);
    let mut sequencer = open(SequencerOptions::new(at(dir.path(), "sequenced")).client(client));
    let mut client = join(dir.path(), 1, &mut sequencer);
    for _ in 0..1000 {
        client.submit(b"AAPL").unwrap();
    }
    let seen = settle(&mut sequencer, &mut client);
    let taken = seen.iter().filter(|(kind, ..)| *kind == Kind::Command).count();
    let refused = |&&(kind, code, _): &&(Kind, u8, u64)| {
        kind == Kind::Refused && Refusal::of(code) == Some(Refusal::Rate)
    };
    let refused = seen.iter().filter(refused).count();
    // A command a second comes free, if this takes seconds.
    assert!((100..160).contains(&taken), "{taken}");
    assert_eq!(taken + refused, 1000);
    let stats = sequencer.stats();
    assert_eq!((stats.sequenced, stats.refused), (taken as u64, refused as u64));
}

#[test]
fn a_flood_holds_others_up_by_no_more_than_a_quota() {
    let dir = tempfile::tempdir().unwrap();
    let mut sequencer = open(options(dir.path(), 2).quota(8));
    let mut flooder = join(dir.path(), 1, &mut sequencer);
    let mut other = join(dir.path(), 2, &mut sequencer);
    for _ in 0..1000 {
        flooder.submit(&[0; 64]).unwrap();
    }
    for _ in 0..3 {
        let number = other.submit(b"one").unwrap();
        sequencer.duty_cycle().unwrap();
        assert_eq!(sequencer.last_of(ClientId(2)), number);
    }
    assert_eq!(sequencer.last_of(ClientId(1)), 24);
}

#[test]
fn malformed_frames_are_refused_and_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let mut sequencer = open(options(dir.path(), 2));
    let mut watcher = join(dir.path(), 2, &mut sequencer);
    let mut hostile = gapless::Publisher::open(&at(dir.path(), "client-1")).unwrap();
    // What a client of another number might send by this one's stream, and nonsense.
    let mut foreign = [0; 40];
    (foreign[0], foreign[1], foreign[2]) = (1, 1, 2);
    for message in [&b"nonsense"[..], &foreign, &[], &[0xFF; 300]] {
        hostile.try_publish(message).unwrap();
    }
    let mut seen = Vec::new();
    until(|| {
        seen.extend(settle(&mut sequencer, &mut watcher));
        seen.len() >= 4
    });
    let codes: Vec<_> = seen.iter().map(|&(kind, code, _)| (kind, Refusal::of(code))).collect();
    let refused = |refusal| (Kind::Refused, Some(refusal));
    let (malformed, wrong) = (refused(Refusal::Malformed), refused(Refusal::WrongClient));
    assert_eq!(codes, [malformed, wrong, malformed, malformed]);
}

#[test]
fn a_ring_of_another_user_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let owner = own_uid() + 1;
    let client = ClientOptions::new(ClientId(1), at(dir.path(), "client-1")).owner(owner);
    let watcher = ClientOptions::new(ClientId(2), at(dir.path(), "client-2"));
    let output = SequencerOptions::new(at(dir.path(), "sequenced"));
    let mut sequencer = open(output.client(client).client(watcher));
    let mut watcher = join(dir.path(), 2, &mut sequencer);
    let mut foreign = gapless::Publisher::open(&at(dir.path(), "client-1")).unwrap();
    foreign.try_publish(&[1; 64]).unwrap();
    let mut seen = Vec::new();
    until(|| {
        seen.extend(settle(&mut sequencer, &mut watcher));
        !seen.is_empty()
    });
    let wrong = (Kind::Refused, Refusal::WrongOwner as u8, u64::from(owner - 1));
    assert_eq!(seen, [wrong]);
}

/// The user id of this process: what its files belong to.
fn own_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().metadata().unwrap().uid()
}

#[test]
fn a_client_that_closes_or_falls_silent_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let silent = ClientOptions::new(ClientId(1), at(dir.path(), "client-1"))
        .silence(Duration::from_millis(50));
    let watcher = ClientOptions::new(ClientId(2), at(dir.path(), "client-2"));
    let output = SequencerOptions::new(at(dir.path(), "sequenced"));
    let mut sequencer = open(output.client(silent).client(watcher));
    let mut client = join(dir.path(), 1, &mut sequencer);
    let mut watcher = join(dir.path(), 2, &mut sequencer);
    let mut gone = Vec::new();
    let mut watch = |sequencer: &mut Sequencer<Chain>, gone: &mut Vec<_>| {
        sequencer.duty_cycle().unwrap();
        let told = |record: &Record<'_>| match record.kind {
            Kind::Connected | Kind::Disconnected if record.client == ClientId(1) => {
                gone.push((record.kind, Leaving::of(record.code)));
            }
            _ => {}
        };
        watcher.poll(100, told).unwrap();
    };
    // It does not poll, so sends no heartbeats.
    until(|| {
        watch(&mut sequencer, &mut gone);
        gone.last() == Some(&(Kind::Disconnected, Some(Leaving::Silent)))
    });
    client.submit(b"back").unwrap();
    until(|| {
        watch(&mut sequencer, &mut gone);
        gone.last() == Some(&(Kind::Connected, None))
    });
    client.close().unwrap();
    until(|| {
        watch(&mut sequencer, &mut gone);
        gone.last() == Some(&(Kind::Disconnected, Some(Leaving::Closed)))
    });
    assert_eq!(gone.len(), 3, "{gone:?}");
}

#[test]
fn a_client_that_is_started_again_goes_on_with_its_next_number() {
    let dir = tempfile::tempdir().unwrap();
    let mut sequencer = open(options(dir.path(), 1));
    for begun in [0, 7, 14] {
        let mut client = join(dir.path(), 1, &mut sequencer);
        assert_eq!(client.last_submitted(), begun);
        for _ in 0..7 {
            client.submit(b"order").unwrap();
        }
        settle(&mut sequencer, &mut client);
    }
    assert_eq!(sequencer.application().commands, 21);
}

#[test]
fn what_cannot_be_used_is_named() {
    let refused = |options| Sequencer::open(options, Chain::default()).err().unwrap().to_string();
    let output = |address: &str| SequencerOptions::new(address);
    assert!(refused(output("shm:s?mode=lossy")).contains("a lossy stream has gaps"));
    assert!(refused(output("shm:s?envelope=yes")).contains("without envelopes"));
    assert!(refused(output("udp:127.0.0.1:9000")).contains("name its ring"));
    assert!(refused(output("log:/tmp/x")).contains("cannot be written to"));
    let client = |id, address| output("shm:s").client(ClientOptions::new(ClientId(id), address));
    assert!(refused(client(0, "shm:c")).contains("client 0"));
    let twice = client(3, "shm:c").client(ClientOptions::new(ClientId(3), "shm:d"));
    assert!(refused(twice).contains("client 3 is listed twice"));
    assert!(refused(client(3, "log:/tmp/x")).contains("shm: or udp:"));
    assert!(refused(client(3, "shm:c?envelope=yes")).contains("without envelopes"));
}

#[test]
fn heartbeats_do_not_stop_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let tick = Duration::from_millis(2);
    let mut sequencer = open(options(dir.path(), 2).tick(tick));
    let mut beating = join(dir.path(), 1, &mut sequencer);
    beating.set_heartbeat(Duration::ZERO);
    let before = sequencer.next_sequence();
    until(|| {
        beating.poll(0, |_| ()).unwrap();
        sequencer.duty_cycle().unwrap();
        sequencer.next_sequence() > before + 20
    });
}

#[test]
fn roles_stand_in_the_records() {
    let dir = tempfile::tempdir().unwrap();
    let operator = ClientOptions::new(ClientId(1), at(dir.path(), "client-1")).role(Role::Operator);
    let mut sequencer = open(SequencerOptions::new(at(dir.path(), "sequenced")).client(operator));
    let mut client = join(dir.path(), 1, &mut sequencer);
    client.submit(b"halt").unwrap();
    let seen = settle(&mut sequencer, &mut client);
    assert_eq!(seen[0], (Kind::Command, Role::Operator as u8, 1));
}
