//! A seeded simulation of sequencers, clients and everything that can happen between them.
//!
//! The cores, the clients' windows and the frames are those of production; streams are vectors.
//! Sequencers die with half of what they had to say unsaid, restart from nothing or from a
//! snapshot, and take over; clients send twice, lose frames, and are started again. At the end
//! everybody is let live, and it is checked that each command of each client stands in the stream
//! exactly once and in order, and that every replica's state is that of a replay.

use super::application::Application;
use super::core::{Admission, Core, Outcome};
use super::frame::{Frame, FrameKind};
use super::ledger::Rate;
use super::record::{ClientId, Kind, Leaving, Record, Refusal, Role};
use super::window::{Run, Window, notice};
use crate::protocol::Random;

/// One sequencer that lives.
struct Node<A> {
    core: Core<A>,
    /// How many messages of each client's stream it has read.
    read: Vec<usize>,
}

/// One client, and its stream as a vector.
struct SimClient {
    id: ClientId,
    window: Window,
    resend: Option<u64>,
    run: Run,
    /// Frames, each with whether a reader will miss it.
    stream: Vec<(Vec<u8>, bool)>,
    /// How much of the sequenced stream it has read.
    read: usize,
    /// Every command that it ever sent, by its number.
    sent: Vec<Vec<u8>>,
    has_gone: bool,
}

/// What a run came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcomes {
    pub(crate) records: u64,
    pub(crate) commands: u64,
    pub(crate) duplicates: u64,
    pub(crate) gaps: u64,
    pub(crate) rate_refusals: u64,
    pub(crate) take_overs: u64,
    pub(crate) state_hash: u64,
}

/// See the module's first page.
pub(crate) struct Simulation<A, N, C> {
    dice: Random,
    new: N,
    command: C,
    now_ns: u64,
    log: Vec<Vec<u8>>,
    nodes: Vec<Option<Node<A>>>,
    leader: Option<usize>,
    snapshot: Option<Vec<u8>>,
    clients: Vec<SimClient>,
    outcomes: Outcomes,
}

const MAX_BYTES: usize = 512;
const START_NS: u64 = 1_700_000_000_000_000_000;

impl<A, N, C> Simulation<A, N, C>
where
    A: Application,
    N: FnMut() -> A,
    C: FnMut(&mut Random, ClientId, u64, Option<&A>) -> Vec<u8>,
{
    /// `new` makes applications, `command` the commands of a client by number and what the leader
    /// knows.
    pub(crate) fn new(seed: u64, clients: u16, new: N, command: C) -> Self {
        let client = |id| SimClient {
            id: ClientId(id),
            window: Window::new(16),
            resend: None,
            run: Run::default(),
            stream: Vec::new(),
            read: 0,
            sent: Vec::new(),
            has_gone: true,
        };
        Self {
            dice: Random::new(seed),
            new,
            command,
            now_ns: START_NS,
            log: Vec::new(),
            nodes: vec![None, None, None],
            leader: None,
            snapshot: None,
            clients: (1..=clients).map(client).collect(),
            outcomes: Outcomes::default(),
        }
    }

    /// Lets `steps` things happen, then lets everybody live, and checks; at last shows the stream
    /// and the leader's application to `look`.
    pub(crate) fn run(mut self, steps: u64, look: impl FnOnce(&[Vec<u8>], &A)) -> Outcomes {
        for _ in 0..steps {
            self.now_ns += self.dice.below(50_000);
            match self.dice.below(100) {
                0 => self.kill(),
                1..=3 => self.start(),
                4..=8 => self.take_over(),
                9..=30 => self.follow(),
                31 => self.save(),
                32 => self.restart_client(),
                33 => self.disconnect(),
                34..=36 => self.pass_time(),
                37..=60 => self.serve(),
                61..=75 => self.client_reads(),
                _ => self.client_sends(),
            }
        }
        self.settle();
        self.check();
        let leader = self.leader.and_then(|index| self.nodes[index].as_ref()).unwrap();
        look(&self.log, leader.core.application());
        self.outcomes
    }

    fn pick_client(&mut self) -> usize {
        self.dice.below(self.clients.len() as u64) as usize
    }

    fn pick_node(&mut self) -> usize {
        self.dice.below(self.nodes.len() as u64) as usize
    }

    // ---- Sequencers

    fn start(&mut self) {
        let index = self.pick_node();
        if self.nodes[index].is_some() {
            return;
        }
        let mut core = Core::new((self.new)(), MAX_BYTES);
        for client in &self.clients {
            // The last client is held to a rate, the first is an operator.
            let rate = (usize::from(client.id.0) == self.clients.len())
                .then_some(Rate { per_second: 20_000, burst: 5 });
            let role = if client.id.0 == 1 { Role::Operator } else { Role::Trader };
            core.admit(client.id, Admission { role, rate });
        }
        if let Some(snapshot) = self.snapshot.as_ref().filter(|_| self.dice.below(2) == 0) {
            core.load(snapshot).unwrap();
        }
        let read = vec![0; self.clients.len()];
        self.nodes[index] = Some(Node { core, read });
    }

    fn kill(&mut self) {
        let index = if self.dice.below(2) == 0 { self.leader } else { None };
        let index = index.unwrap_or_else(|| self.pick_node());
        if self.leader == Some(index) {
            self.flush(); // some of it
            self.leader = None;
        }
        self.nodes[index] = None;
    }

    fn follow(&mut self) {
        let index = self.pick_node();
        if self.leader == Some(index) {
            return;
        }
        let many = self.dice.below(40) as usize;
        let Some(node) = &mut self.nodes[index] else { return };
        let next = node.core.next_sequence() as usize;
        for (at, message) in self.log.iter().enumerate().skip(next - 1).take(many) {
            node.core.follow(at as u64 + 1, message).unwrap();
        }
        for (client, read) in self.clients.iter().zip(&mut node.read) {
            let ledger = node.core.ledger();
            let known = |(frame, _): &&(Vec<u8>, bool)| {
                Frame::read(frame).map_or(true, |frame| ledger.knows(client.id, &frame))
            };
            *read += client.stream[*read..].iter().take_while(known).count();
        }
    }

    fn take_over(&mut self) {
        if self.leader.is_some() {
            return;
        }
        let index = self.pick_node();
        let Some(node) = &mut self.nodes[index] else { return };
        let next = node.core.next_sequence() as usize;
        for (at, message) in self.log.iter().enumerate().skip(next - 1) {
            node.core.follow(at as u64 + 1, message).unwrap();
        }
        node.core.lead(self.now_ns);
        self.leader = Some(index);
        self.outcomes.take_overs += 1;
    }

    fn save(&mut self) {
        let index = self.pick_node();
        let Some(node) = self.nodes[index].as_ref().filter(|node| node.core.is_settled()) else {
            return;
        };
        let mut state = Vec::new();
        node.core.save(&mut state);
        self.snapshot = Some(state);
    }

    /// Lets the leader take some frames of one client, and write some of what it has to say.
    fn serve(&mut self) {
        let (client, many) = (self.pick_client(), self.dice.below(8) as usize);
        let Some(node) = self.leader.and_then(|index| self.nodes[index].as_mut()) else { return };
        let SimClient { id, stream, .. } = &self.clients[client];
        for (frame, missed) in stream.iter().skip(node.read[client]).take(many) {
            node.read[client] += 1;
            if *missed {
                continue;
            }
            match node.core.submit(*id, frame, self.now_ns) {
                Outcome::Duplicate => self.outcomes.duplicates += 1,
                Outcome::Refused(Refusal::Gap) => self.outcomes.gaps += 1,
                Outcome::Refused(Refusal::Rate) => self.outcomes.rate_refusals += 1,
                _ => {}
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        let Some(node) = self.leader.and_then(|index| self.nodes[index].as_mut()) else { return };
        let outbox = node.core.outbox();
        let many = self.dice.below(outbox.len() as u64 + 2) as usize;
        let written = many.min(outbox.len());
        self.log.extend(outbox.iter().take(written).map(<[u8]>::to_vec));
        outbox.advance(written);
    }

    fn pass_time(&mut self) {
        let checkpoint = self.dice.below(3) == 0;
        self.now_ns += 2_000_000;
        let Some(node) = self.leader.and_then(|index| self.nodes[index].as_mut()) else { return };
        node.core.tick(self.now_ns, 1_000_000);
        if checkpoint {
            node.core.checkpoint();
        }
    }

    fn disconnect(&mut self) {
        let client = self.pick_client();
        let id = self.clients[client].id;
        let Some(node) = self.leader.and_then(|index| self.nodes[index].as_mut()) else { return };
        node.core.disconnect(id, Leaving::Silent, self.now_ns);
    }

    // ---- Clients

    fn put(client: &mut SimClient, kind: FrameKind, sequence: u64, sent_ns: u64, missed: bool) {
        let payload: &[u8] = match kind {
            FrameKind::Command => &client.sent[sequence as usize - 1],
            _ => &[],
        };
        let run = client.run.number;
        let frame = Frame { kind, client: client.id, run, sequence, sent_ns, payload };
        let mut bytes = frame.head().to_vec();
        bytes.extend_from_slice(payload);
        client.stream.push((bytes, missed));
    }

    fn client_sends(&mut self) {
        let index = self.pick_client();
        if self.clients[index].has_gone {
            return self.greet(index);
        }
        let application = self.leader.and_then(|index| self.nodes[index].as_ref());
        let application = application.map(|node| node.core.application());
        let client = &mut self.clients[index];
        if !client.run.is_answered || client.window.is_full() {
            return;
        }
        Self::send_again(client, self.now_ns);
        let sequence = client.window.last() + 1;
        let command = (self.command)(&mut self.dice, client.id, sequence, application);
        client.sent.truncate(sequence as usize - 1); // what an earlier run sent and nobody got
        client.sent.push(command.clone());
        client.window.push(&command, self.now_ns);
        // Now and then one is lost on its way, or is on its way twice.
        let missed = self.dice.below(40) == 0;
        Self::put(client, FrameKind::Command, sequence, self.now_ns, missed);
        if self.dice.below(20) == 0 {
            let again = sequence - self.dice.below(sequence.min(3));
            Self::put(client, FrameKind::Command, again, self.now_ns, false);
        }
    }

    fn greet(&mut self, index: usize) {
        // Now and then the clock has been set back.
        let back = if self.dice.below(4) == 0 { 40_000_000 } else { 0 };
        let client = &mut self.clients[index];
        client.has_gone = false;
        client.run.outdo(self.now_ns - back);
        Self::put(client, FrameKind::Hello, 0, self.now_ns, false);
    }

    fn send_again(client: &mut SimClient, now_ns: u64) {
        let Some(from) = client.resend.take() else { return };
        for sequence in from.max(client.window.first())..=client.window.last() {
            Self::put(client, FrameKind::Command, sequence, now_ns, false);
        }
    }

    fn client_reads(&mut self) {
        let (index, many) = (self.pick_client(), self.dice.below(60) as usize);
        self.read_on(index, many);
    }

    fn read_on(&mut self, index: usize, many: usize) {
        let client = &mut self.clients[index];
        let end = self.log.len().min(client.read.saturating_add(many));
        for at in client.read..end {
            let record = Record::read(at as u64 + 1, &self.log[at]).unwrap();
            if record.client == client.id || record.kind == Kind::Term {
                notice(&record, &mut client.window, &mut client.resend, &mut client.run);
            }
        }
        client.read = end;
        Self::send_again(client, self.now_ns);
        assert!(!client.run.is_superseded, "no other run of client {} has begun", client.id);
        if !client.has_gone && !client.run.is_answered {
            Self::put(client, FrameKind::Hello, 0, self.now_ns, false);
        } else if client.window.len() > 0 && self.dice.below(10) == 0 {
            Self::put(client, FrameKind::Heartbeat, client.window.last(), self.now_ns, false);
        }
    }

    /// A client's process is killed and started again: it knows nothing but its stream.
    fn restart_client(&mut self) {
        let index = self.pick_client();
        let client = &mut self.clients[index];
        let mark = client.run.mark + 1;
        let run = Run { mark, ..Run::default() };
        (client.window, client.resend, client.run) = (Window::new(16), None, run);
        client.has_gone = true;
        client.read = self.log.len();
    }

    // ---- The end

    fn settle(&mut self) {
        for _ in 0..200 {
            self.start();
            self.take_over();
            self.now_ns += 60_000_000;
            for _ in 0..10 {
                self.serve();
            }
            for index in 0..self.clients.len() {
                if self.clients[index].has_gone {
                    self.greet(index);
                }
                self.read_on(index, usize::MAX);
            }
        }
        let node = self.leader.and_then(|index| self.nodes[index].as_mut()).unwrap();
        node.core.checkpoint();
        while !node.core.outbox().is_empty() {
            self.log.extend(node.core.outbox().iter().map(<[u8]>::to_vec));
            let written = node.core.outbox().len();
            node.core.outbox().advance(written);
        }
    }

    fn check(&mut self) {
        let mut seen: Vec<Vec<(u64, Option<Vec<u8>>)>> = vec![Vec::new(); self.clients.len()];
        let mut time_ns = 0;
        for (at, message) in self.log.iter().enumerate() {
            let record = Record::read(at as u64 + 1, message).unwrap();
            assert!(record.time_ns >= time_ns, "time runs back at {}", record.sequence);
            time_ns = record.time_ns;
            let refusal = Refusal::of(record.code).filter(|_| record.kind == Kind::Refused);
            let of_client = usize::from(record.client.0).wrapping_sub(1);
            if record.kind == Kind::Command {
                self.outcomes.commands += 1;
                seen[of_client].push((record.reference, Some(record.payload.to_vec())));
            } else if refusal.is_some_and(Refusal::uses_up) {
                seen[of_client].push((record.reference, None));
            }
        }
        for (client, seen) in self.clients.iter().zip(&seen) {
            assert_eq!(client.window.len(), 0, "client {} waits", client.id);
            assert_eq!(seen.len(), client.window.last() as usize, "client {}", client.id);
            for (at, (number, payload)) in seen.iter().enumerate() {
                assert_eq!(*number, at as u64 + 1, "client {}", client.id);
                if let (Some(payload), Some(sent)) = (payload, client.sent.get(at)) {
                    assert_eq!(payload, sent, "command {number} of client {}", client.id);
                }
            }
        }
        let mut replay = Core::new((self.new)(), MAX_BYTES);
        for (at, message) in self.log.iter().enumerate() {
            replay.follow(at as u64 + 1, message).unwrap();
        }
        let hash = replay.state_hash();
        let leader = self.leader.and_then(|index| self.nodes[index].as_ref()).unwrap();
        assert_eq!(leader.core.state_hash(), hash, "the leader's state is not that of a replay");
        for node in self.nodes.iter_mut().flatten() {
            let next = node.core.next_sequence() as usize;
            for (at, message) in self.log.iter().enumerate().skip(next - 1) {
                node.core.follow(at as u64 + 1, message).unwrap();
            }
            assert_eq!(node.core.state_hash(), hash, "a standby's state is not that of a replay");
        }
        self.outcomes.records = self.log.len() as u64;
        self.outcomes.state_hash = hash;
    }
}

/// Runs `runs` seeds, or the one that `SIMULATION_SEED` names; a failure prints its seed.
pub(crate) fn for_seeds(runs: u64, run: impl Fn(u64) -> Outcomes) -> Outcomes {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("SIMULATION_SEED={} brings this back", self.0);
            }
        }
    }
    let named = std::env::var("SIMULATION_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = named.map_or(1..=runs, |seed| seed..=seed);
    let mut all = Outcomes::default();
    for seed in seeds {
        let _named = Seed(seed);
        let outcomes = run(seed);
        all.records += outcomes.records;
        all.commands += outcomes.commands;
        all.duplicates += outcomes.duplicates;
        all.gaps += outcomes.gaps;
        all.rate_refusals += outcomes.rate_refusals;
        all.take_overs += outcomes.take_overs;
        all.state_hash ^= outcomes.state_hash.rotate_left((seed % 64) as u32);
    }
    all
}
