//! The course of a simulation: one event after the other, and everything checked after each.

use std::net::SocketAddr;
use std::sync::Arc;

use super::hostile::{self, Port, Target};
use super::network::{Faults, Network};
use super::node::Node;
use super::scenario::{Action, Scenario};
use super::stream::{Book, Host, Outgoing};
use super::{Report, Violation};
use crate::protocol::control::is_control;
use crate::protocol::{Flow, Random, To};

/// Where a datagram goes, and where it seems to come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Going {
    Line { node: usize, line: usize, from: SocketAddr },
    Answer { node: usize, from: SocketAddr },
    Request { host: usize, at: SocketAddr, from: SocketAddr },
}

/// Time that all have to catch up after the last fault, ns.
const SETTLE_NS: u64 = 400_000_000_000;
/// Steps that they may take for it.
const STEPS_MAX: u64 = 3_000_000;
/// How much later than at its timeout a dead receiver may be let go of, ns.
const LET_GO_NS: u64 = 20_000_000;

/// A publisher that is held up tries again after so long, ns.
const BLOCKED_NS: u64 = 200_000;

/// A publisher at work.
struct Work {
    left: u64,
    next_at: u64,
    blocked_since: Option<u64>,
    reported_at: u64,
}

pub(super) struct World {
    scenario: Scenario,
    random: Random,
    network: Network<Going>,
    now: u64,
    hosts: Vec<Host>,
    /// Every session that ever was, and how it stands.
    books: Vec<Book>,
    work: Vec<Work>,
    nodes: Vec<Node>,
    script_at: usize,
    attack_at: u64,
    healed: bool,
    steps: u64,
    last_session: u64,
    out: Vec<Outgoing>,
}

impl World {
    pub(super) fn new(scenario: Scenario) -> Self {
        let mut random = Random::new(scenario.seed ^ 0x5eed);
        let mut network = Network::new(random.next());
        let now = scenario.start_ns;
        let hosts: Vec<Host> = (0..scenario.hosts)
            .map(|host| Host::new(&scenario, host, scenario.session + host as u64, now))
            .collect();
        let nodes = (0..scenario.receivers.len())
            .map(|number| Node::new(&scenario, number, &mut network))
            .collect();
        let work = |_: &Host| Work {
            left: scenario.messages,
            next_at: now,
            blocked_since: None,
            reported_at: now,
        };
        let attack_at = if scenario.hostile_ns > 0 { now } else { u64::MAX };
        Self {
            random,
            network,
            now,
            books: hosts.iter().map(|host| host.book).collect(),
            work: hosts.iter().map(work).collect(),
            hosts,
            nodes,
            script_at: 0,
            attack_at,
            healed: false,
            steps: 0,
            last_session: scenario.session + scenario.hosts as u64,
            out: Vec::new(),
            scenario,
        }
    }

    pub(super) fn run(mut self) -> Result<Report, Violation> {
        let outcome = self.play();
        let counts = *self.network.counts();
        let digest = self.nodes.iter().fold(self.steps, |digest, node| {
            digest.rotate_left(7).wrapping_mul(31) ^ node.watch.digest() ^ node.messages
        });
        match outcome {
            Ok(()) => Ok(Report {
                digest: digest ^ counts.sent.rotate_left(32) ^ counts.delivered,
                datagrams: counts.delivered,
                lost: counts.lost,
                messages: self.nodes.iter().map(|node| node.messages).sum(),
                losses: self.nodes.iter().map(|node| node.losses).sum(),
                steps: self.steps,
            }),
            Err(what) => Err(Violation {
                seed: self.scenario.seed,
                what,
                at_ns: self.now - self.scenario.start_ns,
                steps: self.steps,
                scenario: Box::new(self.scenario),
            }),
        }
    }

    fn play(&mut self) -> Result<(), String> {
        let end = self.now + self.scenario.faults_end_ns();
        while self.now < end {
            if !self.step(end)? {
                break;
            }
        }
        self.heal()?;
        self.settle("catch up", Self::is_level)?;
        for host in 0..self.hosts.len() {
            self.hosts[host].book.has_ended = true;
            self.sync(host);
            if let Some(sender) = self.hosts[host].sender(0) {
                sender.end(self.now);
            }
            self.poll_server(host, 0)?;
        }
        // Who hears of it goes on to another session, if there is one.
        self.settle("hear of the end", |world| {
            world.living().all(|node| node.watch.has_heard_an_end())
        })
    }

    fn living(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(|node| node.receiver.is_some())
    }

    /// Whether everything was published, and every living receiver has it.
    fn is_level(&self) -> bool {
        let published = self.work.iter().all(|work| work.left == 0);
        published
            && self.living().all(|node| {
                let Some((session, next)) = node.watch.position() else { return false };
                let book = self.books.iter().find(|book| book.session == session);
                book.is_some_and(|book| !book.is_over && book.next == next)
            })
    }

    /// No faults any more: the good must come to an end.
    fn heal(&mut self) -> Result<(), String> {
        self.healed = true;
        self.attack_at = u64::MAX;
        for node in &mut self.nodes {
            for link in node.links() {
                self.network.cut(link, false);
                self.network.set_faults(link, Faults::default());
            }
            node.heal(self.now);
        }
        (0..self.nodes.len()).try_for_each(|node| self.poll_node(node))
    }

    fn settle(&mut self, what: &str, is_done: fn(&Self) -> bool) -> Result<(), String> {
        let (end, steps) = (self.now + SETTLE_NS, self.steps + STEPS_MAX);
        while !is_done(self) {
            if self.now >= end || self.steps >= steps || !self.step(end)? {
                let state: Vec<_> = self.nodes.iter().map(Node::state).collect();
                return Err(format!("not all {what}: {state:#?}, {:?}", self.books));
            }
        }
        Ok(())
    }

    /// One instant. False if nothing will ever happen again.
    fn step(&mut self, end: u64) -> Result<bool, String> {
        let Some(at) = self.next_at() else { return Ok(false) };
        self.now = self.now.max(at.min(end));
        self.steps += 1;
        while self.network.next_at().is_some_and(|at| at <= self.now) {
            if let Some((_, going, bytes)) = self.network.pop() {
                self.arrive(going, &bytes)?;
            }
        }
        while let Some(&(at, action)) = self.scenario.script.get(self.script_at)
            && self.scenario.start_ns + at <= self.now
        {
            self.script_at += 1;
            self.act(action)?;
        }
        if self.now >= self.attack_at {
            self.attack_at = self.now + 1 + self.random.below(self.scenario.hostile_ns * 2);
            self.attack()?;
        }
        for host in 0..self.hosts.len() {
            if self.work[host].left > 0 && self.work[host].next_at <= self.now {
                self.publish(host)?;
            }
            for server in 0..self.hosts[host].servers() {
                if self.hosts[host].timeout(server) <= self.now {
                    self.poll_server(host, server)?;
                }
            }
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].next_at() <= self.now {
                self.poll_node(node)?;
            }
        }
        Ok(true)
    }

    fn next_at(&self) -> Option<u64> {
        let script = self.scenario.script.get(self.script_at);
        let mut next = script.map_or(u64::MAX, |(at, _)| self.scenario.start_ns + at);
        next = next.min(self.network.next_at().unwrap_or(u64::MAX)).min(self.attack_at);
        for (host, work) in self.hosts.iter().zip(&self.work) {
            next = next.min(if work.left > 0 { work.next_at } else { u64::MAX });
            next = (0..host.servers()).fold(next, |next, server| next.min(host.timeout(server)));
        }
        next = self.nodes.iter().fold(next, |next, node| next.min(node.next_at()));
        Some(next).filter(|next| *next < u64::MAX)
    }

    fn arrive(&mut self, going: Going, bytes: &[u8]) -> Result<(), String> {
        match going {
            Going::Line { node, line, from } => {
                let (hosts, books) = (&self.hosts, &self.books);
                self.nodes[node].on_datagram(Some(line), from, bytes, books, hosts, self.now)?;
                self.poll_node(node)
            }
            Going::Answer { node, from } => {
                let (hosts, books) = (&self.hosts, &self.books);
                self.nodes[node].on_datagram(None, from, bytes, books, hosts, self.now)?;
                self.poll_node(node)
            }
            Going::Request { host, at, from } => {
                let Some(server) = self.hosts[host].server_at(at) else { return Ok(()) };
                if is_control(bytes) && server == 0 {
                    self.work[host].reported_at = self.now;
                }
                if let Some(sender) = self.hosts[host].sender(server) {
                    sender.on_datagram(from, bytes, self.now);
                }
                self.poll_server(host, server)
            }
        }
    }

    /// The books say what has been published.
    fn sync(&mut self, host: usize) {
        let book = self.hosts[host].book;
        let entry = self.books.iter_mut().find(|entry| entry.session == book.session);
        *entry.expect("every session has a book") = book;
    }

    fn publish(&mut self, host: usize) -> Result<(), String> {
        let count = 1 + self.random.below(self.scenario.burst);
        let work = &mut self.work[host];
        work.next_at = self.now + 1 + self.random.below(self.scenario.pause_ns);
        for _ in 0..count.min(work.left) {
            if self.hosts[host].publish() {
                self.work[host].left -= 1;
                self.work[host].blocked_since = None;
                continue;
            }
            // Once everything was sent there is room, unless somebody is waited for.
            self.sync(host);
            self.poll_server(host, 0)?;
            if self.hosts[host].publish() {
                self.work[host].left -= 1;
                self.work[host].blocked_since = None;
            } else {
                self.judge_blocking(host)?;
                break;
            }
        }
        self.sync(host);
        (0..self.hosts[host].servers()).try_for_each(|server| self.poll_server(host, server))
    }

    fn judge_blocking(&mut self, host: usize) -> Result<(), String> {
        let work = &mut self.work[host];
        let since = *work.blocked_since.get_or_insert(self.now);
        work.next_at = self.now + BLOCKED_NS;
        let options = &self.scenario.sender;
        let for_ns = self.now - since.max(work.reported_at);
        match options.flow {
            Flow::None => Err("the publisher is held up, and nobody is waited for".into()),
            Flow::Slowest if for_ns > options.receiver_timeout_ns + LET_GO_NS => {
                Err(format!("the publisher has been held up for {for_ns} ns by nobody alive"))
            }
            _ => Ok(()),
        }
    }

    fn poll_server(&mut self, host: usize, server: usize) -> Result<(), String> {
        let mut out = std::mem::take(&mut self.out);
        self.hosts[host].poll(server, self.now, &mut out)?;
        for outgoing in out.drain(..) {
            match outgoing.to {
                To::Stream if server == 0 => self.send_stream(host, &outgoing),
                To::Stream => {}
                To::Peer(peer) => {
                    let Some(number) = self.nodes.iter().position(|node| node.address == peer)
                    else {
                        continue; // somebody hostile
                    };
                    let node = &self.nodes[number];
                    let from = match server {
                        0 => node.asked_at,
                        server => Host::server_address(host, server),
                    };
                    let going = Going::Answer { node: number, from };
                    let (link, last) = (node.answers, outgoing.last);
                    self.network.send(self.now, link, going, &outgoing.bytes, last);
                }
            }
        }
        self.out = out;
        Ok(())
    }

    fn send_stream(&mut self, host: usize, outgoing: &Outgoing) {
        for (number, node) in self.nodes.iter().enumerate() {
            if node.receiver.is_none() {
                continue;
            }
            for (line, &link) in node.lines.iter().enumerate() {
                let from = self.hosts[host].line_address(line);
                let going = Going::Line { node: number, line, from };
                self.network.send(self.now, link, going, &outgoing.bytes, outgoing.last);
            }
        }
    }

    fn poll_node(&mut self, number: usize) -> Result<(), String> {
        let mut out = std::mem::take(&mut self.out);
        self.nodes[number].poll(&self.books, &self.hosts, self.now, &mut out)?;
        let node = &mut self.nodes[number];
        for outgoing in out.drain(..) {
            let To::Peer(at) = outgoing.to else {
                return Err("a receiver sends to the stream".into());
            };
            let Some(host) = self.hosts.iter().position(|host| host.server_at(at).is_some()) else {
                continue; // where a sender was once, or somebody hostile
            };
            if self.hosts[host].server_at(at) == Some(0) {
                node.asked_at = at;
            }
            let going = Going::Request { host, at, from: node.address };
            self.network.send(self.now, node.up, going, &outgoing.bytes, outgoing.last);
        }
        self.out = out;
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Cut { receiver, cut } => {
                for link in self.nodes.get(receiver).into_iter().flat_map(Node::links) {
                    self.network.cut(link, cut);
                }
            }
            Action::CutLine { line, cut } => {
                for link in self.nodes.iter().filter_map(|node| node.lines.get(line)) {
                    self.network.cut(*link, cut);
                }
            }
            Action::Join(receiver) => {
                if let Some(node) = self.nodes.get_mut(receiver) {
                    node.start()?;
                }
            }
            Action::KillReceiver(receiver) => {
                if let Some(node) = self.nodes.get_mut(receiver) {
                    node.receiver = None;
                }
            }
            Action::KillSender(host) => self.hosts[host].kill(0),
            Action::RestartSender(host, how) => self.hosts[host].restart(how, self.now),
            Action::KillServer(host, server) => self.hosts[host].kill(server),
            Action::NewSession(host) => {
                self.hosts[host].book.is_over = true;
                self.sync(host);
                self.hosts[host].replace(&self.scenario, self.last_session, self.now);
                self.last_session += 1;
                self.books.push(self.hosts[host].book);
                self.work[host].left += 20;
            }
            Action::Storm(host, count) => {
                for _ in 0..count {
                    let bytes = hostile::request(&mut self.random, &self.hosts[host].book);
                    let from = hostile::address(&mut self.random);
                    let at = self.hosts[host].line_address(0);
                    self.arrive(Going::Request { host, at, from }, &bytes)?;
                }
            }
        }
        Ok(())
    }

    fn attack(&mut self) -> Result<(), String> {
        let node = self.random.below(self.nodes.len() as u64) as usize;
        let book = self.books[self.random.below(self.books.len() as u64) as usize];
        let position = self.nodes[node].watch.position();
        let target = Target {
            book: &book,
            is_joined: position.is_some_and(|(session, _)| session == book.session),
            has_flow: self.scenario.sender.flow != Flow::None,
        };
        let (port, bytes) = hostile::packet(&mut self.random, &target);
        let from = hostile::address(&mut self.random);
        let line = self.random.below(self.scenario.lines as u64) as usize;
        let going = match port {
            Port::Line => Going::Line { node, line, from },
            Port::Answers => Going::Answer { node, from },
            Port::Requests => {
                let at = self.hosts[book.host].line_address(0);
                Going::Request { host: book.host, at, from }
            }
        };
        let bytes: Arc<[u8]> = bytes.into();
        self.arrive(going, &bytes)
    }
}
