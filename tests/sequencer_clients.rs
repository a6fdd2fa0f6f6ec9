//! Clients of a sequencer that lose answers, wait long for them, never rest, or are not what they
//! should be: none waits for ever, and none holds another up.

use std::path::Path;
use std::time::{Duration, Instant};

use gapless::sequencer::{
    Application, Client, ClientError, ClientId, ClientOptions, Events, LoadError, Record,
    Sequencer, SequencerOptions,
};
use gapless::{Agent, PollError, Publisher, Subscriber};

/// Counts records.
#[derive(Default)]
struct Count(u64);

impl Application for Count {
    fn apply(&mut self, _: &Record<'_>, _: &mut Events) {
        self.0 += 1;
    }

    fn save(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    fn load(&mut self, saved: &[u8]) -> Result<(), LoadError> {
        self.0 = u64::from_le_bytes(saved.try_into().map_err(|_| LoadError { what: "a count" })?);
        Ok(())
    }
}

const LIMIT: Duration = Duration::from_secs(60);
const HEARTBEAT: u8 = 2;
const HELLO: u8 = 3;

fn at(dir: &Path, name: &str) -> String {
    format!("shm:{name}?capacity=64K&dir={}", dir.display())
}

fn open(dir: &Path) -> Sequencer<Count> {
    let options = (1..=2).fold(SequencerOptions::new(at(dir, "sequenced")), |options, id| {
        options.client(ClientOptions::new(ClientId(id), at(dir, &format!("client-{id}"))))
    });
    let mut sequencer = Sequencer::open(options, Count::default()).unwrap();
    sequencer.duty_cycle().unwrap();
    sequencer
}

/// Opens a client whose commands go to `commands`, and which reads the stream as `options` say.
fn client(dir: &Path, id: u16, commands: &str, options: &str) -> Client {
    let sequenced = at(dir, "sequenced") + options;
    Client::open(ClientId(id), &at(dir, commands), &sequenced).unwrap()
}

fn until(mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < LIMIT, "this takes too long");
    }
}

fn settle(nodes: &mut [Sequencer<Count>], client: &mut Client) {
    until(|| {
        for node in nodes.iter_mut() {
            node.duty_cycle().unwrap();
        }
        client.poll(1000, |_| ()).unwrap();
        client.is_ready() && client.unconfirmed() == 0
    });
}

/// A frame's head: version, kind, client, run, number.
fn head(kind: u8, client: u8, run: u64, number: u64) -> [u8; 32] {
    let mut head = [0; 32];
    (head[0], head[1], head[2]) = (1, kind, client);
    head[8..16].copy_from_slice(&run.to_le_bytes());
    head[16..24].copy_from_slice(&number.to_le_bytes());
    head
}

#[test]
fn a_hello_that_is_answered_late_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut sequencer = open(dir.path());
    let mut client = client(dir.path(), 1, "far", "");
    let mut far = Subscriber::open(&at(dir.path(), "far")).unwrap();
    // It has repeated its hello twice when the first one arrives.
    let mut hellos: Vec<Vec<u8>> = Vec::new();
    until(|| {
        client.poll(100, |_| ()).unwrap();
        far.poll(100, |message| hellos.push(message.payload.to_vec())).unwrap();
        hellos.len() == 3
    });
    assert!(hellos.iter().all(|hello| hello[1] == HELLO && hello[8..16] == hellos[0][8..16]));
    let mut way = Publisher::open(&at(dir.path(), "client-1")).unwrap();
    way.try_publish(&hellos[0]).unwrap();
    until(|| {
        sequencer.duty_cycle().unwrap();
        client.poll(100, |_| ()).unwrap();
        client.is_ready()
    });
}

#[test]
fn a_client_that_lost_answers_asks_for_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = [open(dir.path())];
    let mut lapped = client(dir.path(), 1, "client-1", "&observe=yes");
    let mut other = client(dir.path(), 2, "client-2", "");
    settle(&mut nodes, &mut lapped);
    settle(&mut nodes, &mut other);
    for _ in 0..10 {
        lapped.submit(b"order").unwrap();
    }
    until(|| {
        nodes[0].duty_cycle().unwrap();
        nodes[0].last_of(ClientId(1)) == 10
    });
    // The other fills the ring until the answers are gone.
    for _ in 0..2000 {
        other.submit(&[0; 32]).unwrap();
        settle(&mut nodes, &mut other);
    }
    let error = lapped.poll(1000, |_| ()).unwrap_err();
    assert!(matches!(error, ClientError::Poll(PollError::Lapped { .. })), "{error}");
    assert_eq!(lapped.unconfirmed(), 10);
    settle(&mut nodes, &mut lapped);
    assert_eq!((lapped.last_submitted(), nodes[0].last_of(ClientId(1))), (10, 10));
    lapped.submit(b"order").unwrap();
    settle(&mut nodes, &mut lapped);
    assert_eq!(nodes[0].last_of(ClientId(1)), 11);
}

#[test]
fn a_client_that_always_finds_something_sends_heartbeats() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = [open(dir.path())];
    let mut busy = client(dir.path(), 1, "client-1", "");
    let mut other = client(dir.path(), 2, "client-2", "");
    settle(&mut nodes, &mut busy);
    settle(&mut nodes, &mut other);
    busy.set_heartbeat(Duration::ZERO);
    let mut heartbeats = 0;
    let watch = at(dir.path(), "client-1") + "&observe=yes&from=now";
    let mut watch = Subscriber::open(&watch).unwrap();
    for _ in 0..500 {
        other.submit(b"order").unwrap();
        settle(&mut nodes, &mut other);
    }
    for _ in 0..500 {
        assert_eq!(busy.poll(1, |_| ()).unwrap(), 1);
        watch.poll(10, |frame| heartbeats += u32::from(frame.payload[1] == HEARTBEAT)).unwrap();
    }
    assert!((5..=10).contains(&heartbeats), "{heartbeats}");
}

#[test]
fn what_is_refused_for_ever_is_not_kept_by_a_standby() {
    let gap = |_| head(1, 1, 0, 1000);
    let unknown_run = |_| head(1, 1, 5, 1);
    let another = |n: u64| head(HELLO, 2, 1_000_000 + n, 0);
    for (what, frame) in [
        ("a gap that nobody fills", &gap as &dyn Fn(u64) -> [u8; 32]),
        ("a run that never said hello", &unknown_run),
        ("hellos of another client", &another),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut nodes = [open(dir.path()), open(dir.path())];
        let mut hostile = Publisher::open(&at(dir.path(), "client-1")).unwrap();
        let mut sent = 0;
        let mut refused = 0;
        while sent < 5000 {
            match hostile.try_publish(&frame(sent)) {
                Ok(_) => (sent, refused) = (sent + 1, 0),
                Err(error) if error.is_backpressure() => refused += 1,
                Err(error) => panic!("{error}"),
            }
            assert!(refused < 20_000, "{what}: stuck behind {sent}");
            for node in &mut nodes {
                node.duty_cycle().unwrap();
            }
        }
        drop(hostile);
        let mut right = client(dir.path(), 1, "client-1", "");
        settle(&mut nodes, &mut right);
        right.submit(b"order").unwrap();
        settle(&mut nodes, &mut right);
        assert_eq!(nodes[0].last_of(ClientId(1)), 1, "{what}");
    }
}

#[test]
fn what_a_dead_leader_had_not_read_is_kept_by_a_standby() {
    let dir = tempfile::tempdir().unwrap();
    let mut nodes = vec![open(dir.path()), open(dir.path())];
    let mut short_lived = client(dir.path(), 1, "client-1", "");
    settle(&mut nodes, &mut short_lived);
    for _ in 0..100 {
        short_lived.submit(b"order").unwrap();
        nodes[1].duty_cycle().unwrap();
    }
    // Both die at once: nobody could send again.
    drop((short_lived, nodes.remove(0)));
    until(|| {
        nodes[0].duty_cycle().unwrap();
        nodes[0].last_of(ClientId(1)) == 100
    });
}
