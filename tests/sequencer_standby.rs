//! Sequencers that stand by and take over: in turns in one thread, and in processes that are
//! killed.
//!
//! `GAPLESS_KILLS=N cargo test --test sequencer_standby` says how often a leader is killed (12).

mod chain;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gapless::log::{Recorder, RecorderOptions};
use gapless::sequencer::{
    Application, Client, ClientId, ClientOptions, Election, Events, Kind, LoadError, Record,
    Replica, Sequencer, SequencerError, SequencerOptions, Standing,
};
use gapless::{Address, Agent, PollError, Subscriber};

use chain::{Chain, LIMIT, at, join, open, options, options_of, settle, until};

/// Leads while it is told to.
struct Told(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Election for Told {
    fn may_lead(&mut self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

#[test]
fn an_election_decides_who_leads_and_for_how_long() {
    let dir = tempfile::tempdir().unwrap();
    let told = [true, false].map(|may| std::sync::Arc::new(may.into()));
    let mut nodes = told.clone().map(|told| {
        let election = Box::new(Told(told));
        Sequencer::open_elected(options(dir.path(), 1), Chain::default(), election).unwrap()
    });
    let mut client = join(dir.path(), 1, &mut nodes[0]);
    for leader in [1, 0, 1] {
        for (node, told) in told.iter().enumerate() {
            told.store(node == leader, std::sync::atomic::Ordering::Relaxed);
        }
        until(|| {
            for node in &mut nodes {
                node.duty_cycle().unwrap();
            }
            nodes[leader].standing() == Standing::Leading
        });
        assert_ne!(nodes[1 - leader].standing(), Standing::Leading);
        client.submit(b"order").unwrap();
        until(|| {
            for node in &mut nodes {
                node.duty_cycle().unwrap();
            }
            client.poll(100, |_| ()).unwrap();
            client.unconfirmed() == 0 && nodes[0].next_sequence() == nodes[1].next_sequence()
        });
    }
    assert_eq!(nodes[0].state_hash(), nodes[1].state_hash());
    assert_eq!(nodes[0].term(), 4);
}

#[test]
fn a_snapshot_and_the_rest_are_as_good_as_everything() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = dir.path().join("snapshots");
    let mut leader = open(options(dir.path(), 1));
    let mut client = join(dir.path(), 1, &mut leader);
    let standby = options(dir.path(), 1).snapshots(&snapshots).snapshot_records(1000);
    let mut standby = open(standby);
    // Several rings full: the stream's beginning is gone.
    for _ in 0..60_000 {
        while let Err(error) = client.submit(&[7; 64]) {
            assert!(error.is_backpressure(), "{error}");
            leader.duty_cycle().unwrap();
            standby.duty_cycle().unwrap();
            client.poll(1000, |_| ()).unwrap();
        }
    }
    until(|| {
        leader.duty_cycle().unwrap();
        standby.duty_cycle().unwrap();
        client.poll(1000, |_| ()).unwrap();
        client.unconfirmed() == 0
    });
    let wanted = leader.next_sequence();
    until(|| {
        standby.duty_cycle().unwrap();
        standby.next_sequence() >= wanted
    });
    assert!(standby.stats().snapshots > 50 && standby.term() == 1);
    drop(leader);

    let mut late = open(options(dir.path(), 1));
    let begun = Instant::now();
    let incomplete = loop {
        assert!(begun.elapsed() < LIMIT);
        if let Err(error) = late.duty_cycle() {
            break error;
        }
    };
    assert!(matches!(incomplete, SequencerError::Incomplete { wanted: 1, .. }), "{incomplete}");

    let replica = at(dir.path(), "sequenced");
    let mut replica = Replica::open(&replica, Chain::default(), Some(&snapshots)).unwrap();
    until(|| {
        replica.poll(1000, |_| ()).unwrap();
        replica.next_sequence() == wanted
    });
    assert_eq!(replica.state_hash(), standby.state_hash());
    drop(replica);

    let mut restarted = open(options(dir.path(), 1).snapshots(&snapshots).snapshot_records(0));
    assert!(restarted.next_sequence() > wanted - 20_000);
    until(|| {
        restarted.duty_cycle().unwrap();
        restarted.standing() == Standing::Leading
    });
    assert!(restarted.stats().followed < 20_000);
    assert_eq!(restarted.application().commands, 60_000);
    until(|| {
        standby.duty_cycle().unwrap();
        standby.next_sequence() == restarted.next_sequence()
    });
    assert_eq!(restarted.state_hash(), standby.state_hash());
}

#[test]
fn a_remote_client_is_as_good_as_a_local_one_also_after_a_take_over() {
    let dir = tempfile::tempdir().unwrap();
    let there = dir.path().display();
    let [out, commands] = [free_port(), free_port()].map(|port| format!("udp:127.0.0.1:{port}"));
    let output = format!("{out}?ring=sequenced&capacity=1M&dir={there}");
    let options = SequencerOptions::new(&output)
        .client(ClientOptions::new(ClientId(1), format!("{commands}?dir={there}")))
        .client(ClientOptions::new(ClientId(2), at(dir.path(), "client-2")));
    let mut nodes = vec![open(options.clone()), open(options)];
    nodes[0].duty_cycle().unwrap();
    assert_eq!(nodes[0].standing(), Standing::Leading);
    let ring = at(dir.path(), "sequenced");
    let mut remote = Client::open(ClientId(1), &commands, &out).unwrap();
    let mut local = Client::open(ClientId(2), &at(dir.path(), "client-2"), &ring).unwrap();
    let mut seen = Vec::new();
    for round in 0..2 {
        until(|| {
            for node in &mut nodes {
                node.duty_cycle().unwrap();
            }
            for client in [&mut remote, &mut local] {
                if client.last_submitted() < 300 * (round + 1) && client.is_ready() {
                    let _ = client.submit(b"order");
                }
            }
            local.poll(1000, |_| ()).unwrap();
            remote
                .poll(1000, |record| {
                    if record.kind == Kind::Command {
                        seen.push((record.client, record.reference));
                    }
                })
                .unwrap();
            [&remote, &local].iter().all(|client| {
                client.last_submitted() == 300 * (round + 1) && client.unconfirmed() == 0
            })
        });
        if round == 0 {
            // With some on their way.
            for _ in 0..20 {
                remote.submit(b"order").unwrap();
                local.submit(b"order").unwrap();
            }
            nodes.remove(0);
        }
    }
    assert_eq!((nodes[0].term(), nodes[0].application().commands), (2, 1200));
    for client in [1, 2].map(ClientId) {
        let numbers: Vec<_> = seen.iter().filter(|(of, _)| *of == client).collect();
        assert_eq!(numbers.len(), 600);
        assert!(numbers.iter().zip(1..).all(|((_, number), wanted)| *number == wanted));
    }
}

fn free_port() -> u16 {
    std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The address of the stream, with the log that its past is in.
fn logged(dir: &Path) -> String {
    format!("{}&log={}", at(dir, "sequenced"), dir.join("log").display())
}

/// A recorder of the stream, into that log.
fn record(dir: &Path) -> Recorder {
    let Address::Shm(ring) = at(dir, "sequenced").parse().unwrap() else { panic!("a ring") };
    Recorder::open(&ring, dir.join("log"), &RecorderOptions::new()).unwrap()
}

#[test]
fn a_stream_is_taken_up_again_from_its_log() {
    let dir = tempfile::tempdir().unwrap();
    let options = || options_of(logged(dir.path()), dir.path(), 1);
    // Nothing is recorded yet.
    let mut sequencer = open(options());
    let mut client = join(dir.path(), 1, &mut sequencer);
    let mut recorder = record(dir.path());
    for _ in 0..100 {
        client.submit(b"order").unwrap();
    }
    settle(&mut sequencer, &mut client);
    let (wanted, hash) = (sequencer.next_sequence(), sequencer.state_hash());
    drop((client, sequencer));
    while recorder.duty_cycle().unwrap() > 0 {}
    recorder.close().unwrap();
    // The host is started anew: its rings are gone.
    for ring in ["sequenced", "client-1"] {
        gapless::shm::remove(dir.path(), ring, true).unwrap();
    }
    let mut sequencer = open(options());
    until(|| {
        sequencer.duty_cycle().unwrap();
        sequencer.standing() == Standing::Leading
    });
    assert_eq!((sequencer.stats().followed, sequencer.term()), (wanted - 1, 2));
    assert_eq!((sequencer.state_hash(), sequencer.application().commands), (hash, 100));
    let mut client = join(dir.path(), 1, &mut sequencer);
    assert_eq!(client.submit(b"order").unwrap(), 101);
    settle(&mut sequencer, &mut client);
    assert_eq!(sequencer.application().commands, 101);
}

#[test]
fn a_standby_that_comes_late_reads_the_past_from_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let stream = logged(dir.path()).replace("4M", "64K");
    let options = || options_of(stream.clone(), dir.path(), 1);
    let mut leader = open(options());
    let mut client = join(dir.path(), 1, &mut leader);
    let mut recorder = record(dir.path());
    for _ in 0..2000 {
        client.submit(&[7; 64]).unwrap();
    }
    until(|| {
        recorder.duty_cycle().unwrap();
        leader.duty_cycle().unwrap();
        client.poll(1000, |_| ()).unwrap();
        client.unconfirmed() == 0
    });
    let mut standby = open(options());
    until(|| {
        recorder.duty_cycle().unwrap();
        standby.duty_cycle().unwrap();
        standby.next_sequence() == leader.next_sequence()
    });
    assert!(standby.stats().followed * 64 > 2 * (64 << 10), "the ring has it all");
    assert_eq!(standby.state_hash(), leader.state_hash());
    drop((client, leader));
    until(|| {
        standby.duty_cycle().unwrap();
        standby.standing() == Standing::Leading
    });
    assert_eq!((standby.term(), standby.application().commands), (2, 2000));
}

#[test]
fn a_standby_does_not_begin_anew_where_the_stream_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let mut leader = open(options(dir.path(), 1));
    let mut client = join(dir.path(), 1, &mut leader);
    client.submit(b"order").unwrap();
    settle(&mut leader, &mut client);
    let mut standby = open(options(dir.path(), 1));
    until(|| {
        standby.duty_cycle().unwrap();
        standby.next_sequence() == leader.next_sequence()
    });
    drop((client, leader));
    gapless::shm::remove(dir.path(), "sequenced", true).unwrap();
    let begun = Instant::now();
    let gone = loop {
        assert!(begun.elapsed() < LIMIT);
        if let Err(error) = standby.duty_cycle() {
            break error;
        }
    };
    assert!(matches!(gone, SequencerError::RingGone { .. }), "{gone}");
    assert_eq!((standby.standing(), standby.duty_cycle().unwrap()), (Standing::Ended, 0));
    // Nor does it go on with another one's.
    let mut other = open(options(dir.path(), 1));
    other.duty_cycle().unwrap();
    assert_eq!((other.standing(), other.term()), (Standing::Leading, 1));
}

#[test]
fn who_holds_an_evictable_stream_up_is_thrown_out() {
    let dir = tempfile::tempdir().unwrap();
    let stream = format!("shm:sequenced?capacity=16K&evictable=yes&dir={}", dir.path().display());
    let client = ClientOptions::new(ClientId(1), at(dir.path(), "client-1"));
    let options = SequencerOptions::new(&stream).client(client);
    let mut sequencer = open(options.patience(Duration::from_millis(20)));
    let mut stopped = {
        sequencer.duty_cycle().unwrap();
        Subscriber::open(&stream).unwrap()
    };
    let mut client = join(dir.path(), 1, &mut sequencer);
    for _ in 0..1000 {
        client.submit(&[0; 100]).unwrap();
    }
    settle(&mut sequencer, &mut client);
    assert_eq!((sequencer.application().commands, sequencer.stats().evicted), (1000, 1));
    assert!(matches!(stopped.poll(1, |_| ()), Err(PollError::Evicted { .. })));
}

#[test]
fn a_standby_that_has_failed_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut leader = open(options(dir.path(), 1));
    let mut client = join(dir.path(), 1, &mut leader);
    // One that knows another application.
    let mut other = Sequencer::open(options(dir.path(), 1), Silent).unwrap();
    client.submit(b"order").unwrap();
    settle(&mut leader, &mut client);
    until(|| other.duty_cycle().is_err());
    for _ in 0..100_000 {
        while client.submit(&[7; 64]).is_err() {
            leader.duty_cycle().unwrap();
            client.poll(1000, |_| ()).unwrap();
        }
    }
    settle(&mut leader, &mut client);
    assert_eq!(leader.application().commands, 100_001);
}

/// Answers nothing.
struct Silent;

impl Application for Silent {
    fn apply(&mut self, _: &Record<'_>, _: &mut Events) {}
    fn save(&self, _: &mut Vec<u8>) {}
    fn load(&mut self, _: &[u8]) -> Result<(), LoadError> {
        Ok(())
    }
}

// ---- Processes

const DIRECTORY: &str = "GAPLESS_SEQUENCER_DIRECTORY";

/// Not a test of its own: a sequencer that runs until it is killed, and says what it does.
#[test]
fn node() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let dir = Path::new(&dir);
    let mut sequencer = open(options_of(logged(dir), dir, 3));
    let mut standing = Standing::Waiting;
    loop {
        if sequencer.duty_cycle().unwrap() == 0 {
            std::thread::yield_now();
        }
        if sequencer.standing() != standing {
            standing = sequencer.standing();
            println!("\nis {standing:?}");
        }
    }
}

struct Node {
    process: Child,
    says: BufReader<std::process::ChildStdout>,
}

impl Node {
    fn start(dir: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "node", "--nocapture"])
            .env(DIRECTORY, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(process.stdout.take().unwrap());
        Self { process, says }
    }

    /// Waits until it says that it does this.
    fn wait(&mut self, standing: Standing) {
        let wanted = format!("is {standing:?}");
        let mut line = String::new();
        while line.trim() != wanted {
            line.clear();
            assert_ne!(self.says.read_line(&mut line).unwrap(), 0, "it ended");
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client for which a loaded machine is no reason to refuse.
fn patient(dir: &Path, id: u16) -> Client {
    let commands = at(dir, &format!("client-{id}"));
    let mut client = Client::open(ClientId(id), &commands, &at(dir, "sequenced")).unwrap();
    client.set_silence(LIMIT);
    client
}

#[test]
fn a_leader_that_is_killed_loses_nothing_and_does_nothing_twice() {
    let kills = std::env::var("GAPLESS_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    let dir = tempfile::tempdir().unwrap();
    let mut leader = Node::start(dir.path());
    leader.wait(Standing::Leading);
    let sequenced = at(dir.path(), "sequenced");
    let mut clients: Vec<_> = [1, 2].map(|id| patient(dir.path(), id)).into();
    // A standby may start when the ring has no beginning any more: it is in the log then.
    let mut recorder = record(dir.path());
    let mut replica = Replica::open(&sequenced, Chain::default(), None).unwrap();
    let mut journal = Subscriber::open(&sequenced).unwrap();
    let mut numbers: [Vec<u64>; 2] = Default::default();
    let mut terms = 0;
    let mut go_on = |clients: &mut Vec<Client>, submit: bool| {
        for client in clients.iter_mut() {
            let command = (client.last_submitted() + 1).to_le_bytes();
            let submitted = if submit { client.submit(&command) } else { Ok(0) };
            assert!(submitted.map_or_else(|error| error.is_backpressure(), |_| true));
            client.poll(1000, |_| ()).unwrap();
        }
        journal
            .poll(1000, |message| {
                let record = Record::read(message.sequence, message.payload).unwrap();
                match record.kind {
                    Kind::Command => {
                        let number = u64::from_le_bytes(record.payload.try_into().unwrap());
                        assert_eq!(number, record.reference);
                        numbers[usize::from(record.client.0) - 1].push(number);
                    }
                    Kind::Term => terms = record.term,
                    _ => {}
                }
            })
            .unwrap();
        recorder.duty_cycle().unwrap();
        replica.poll(1000, |_| ()).unwrap(); // it holds the ring as every reader does
        std::thread::yield_now();
        (numbers.each_ref().map(|numbers| numbers.len() as u64), terms)
    };
    for kill in 1..=kills {
        let mut standby = Node::start(dir.path());
        standby.wait(Standing::Following);
        let (before, _) = go_on(&mut clients, true);
        until(|| {
            let (now, _) = go_on(&mut clients, true);
            now.iter().zip(before).all(|(now, before)| now > &(before + 50 * (kill % 3)))
        });
        leader.process.kill().unwrap();
        leader.process.wait().unwrap();
        leader = standby;
        until(|| go_on(&mut clients, true).1 == kill as u32 + 1);
    }
    until(|| {
        let (seen, _) = go_on(&mut clients, false);
        clients
            .iter()
            .zip(seen)
            .all(|(client, seen)| client.unconfirmed() == 0 && client.last_submitted() == seen)
    });
    for numbers in &numbers {
        assert!(numbers.iter().zip(1..).all(|(&number, wanted)| number == wanted));
    }
    // The stream is what this replica makes of it, event by event.
    while replica.poll(1000, |_| ()).unwrap() > 0 {}
    assert!(replica.application().commands >= numbers.iter().flatten().count() as u64);
}
