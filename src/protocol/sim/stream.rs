//! The sending hosts of a simulation: a publisher, its ring, the sender, and further servers that
//! keep more of the same stream.

use std::net::SocketAddr;
use std::sync::Arc;

use gapless_shm::{Flags, Heap, HeapRing, Producer, RingOptions, Start};

use super::scenario::Scenario;
use crate::protocol::{Random, Sender, SenderOptions, Session};

/// Datagrams that a sender may have to send at one instant.
const POLLS_MAX: usize = 20_000;

/// What was published under a session: enough to tell every message again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Book {
    pub(super) host: usize,
    pub(super) session: Session,
    pub(super) first: u64,
    /// Sequence that the next message will get.
    pub(super) next: u64,
    pub(super) has_ended: bool,
    /// Whether its host has begun another session since.
    pub(super) is_over: bool,
    seed: u64,
    message_max_bytes: u64,
    lost_chance: f64,
}

impl Book {
    fn random(&self, sequence: u64) -> Random {
        Random::new(self.seed ^ sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// Whether a record that stands for a lost message has this number.
    pub(super) fn is_lost(&self, sequence: u64) -> bool {
        self.lost_chance > 0.0 && self.random(!sequence).chance(self.lost_chance)
    }

    /// The bytes of a message.
    pub(super) fn fill(&self, sequence: u64, payload: &mut Vec<u8>) {
        let mut random = self.random(sequence);
        let short = random.below(8) > 0;
        let max = if short { self.message_max_bytes.min(64) } else { self.message_max_bytes };
        let len = random.below(max + 1) as usize;
        payload.clear();
        while payload.len() < len {
            payload.extend_from_slice(&random.next().to_le_bytes());
        }
        payload.truncate(len);
    }
}

/// A ring, and whoever sends from it.
struct Shelf {
    producer: Producer<Heap>,
    ring: HeapRing,
    sender: Option<Sender<Heap>>,
}

impl Shelf {
    fn new(capacity: u64, first: u64) -> Self {
        let options = RingOptions::new()
            .capacity_bytes(capacity)
            .alignment_bytes(16)
            .max_message_bytes(2048)
            .consumer_slots(4)
            .first_sequence(first);
        let (producer, ring) = options.heap().expect("options of the simulation are in range");
        Self { producer, ring, sender: None }
    }

    fn start(&mut self, options: SenderOptions, session: Session, start: Start, now: u64) {
        self.sender = None;
        let consumer = self.ring.subscribe("sender", start);
        let consumer = consumer.or_else(|_| self.ring.subscribe("sender", Start::Oldest));
        let consumer = consumer.expect("the ring has a free slot");
        let sender = Sender::new(options, session, consumer, now);
        self.sender = Some(sender.expect("options of the simulation are in range"));
    }
}

/// Something to send: to whom, and whether it is the last at this instant.
pub(super) struct Outgoing {
    pub(super) to: crate::protocol::To,
    pub(super) bytes: Arc<[u8]>,
    pub(super) last: bool,
}

/// A host that publishes a stream: server 0 is the sender itself, the others only answer.
pub(super) struct Host {
    pub(super) book: Book,
    shelves: Vec<Shelf>,
    options: SenderOptions,
    buffer: Vec<u8>,
    payload: Vec<u8>,
    port: u16,
    number: usize,
    /// The next message that the sender would have sent when it was killed.
    unsent: u64,
}

impl Host {
    pub(super) fn new(scenario: &Scenario, number: usize, session: u64, now: u64) -> Self {
        let first = scenario.first_sequence;
        let session = Session::from_number(session);
        let book = Book {
            host: number,
            session,
            first,
            next: first,
            has_ended: false,
            is_over: false,
            seed: scenario.seed ^ session.number().unwrap_or(0),
            message_max_bytes: scenario.message_max_bytes,
            lost_chance: scenario.lost_record_chance,
        };
        let mut host = Self {
            book,
            shelves: vec![Shelf::new(scenario.ring_bytes, first)],
            options: scenario.sender.clone(),
            buffer: vec![0; 8192.max(scenario.sender.datagram_bytes * 4)],
            payload: Vec::new(),
            port: 4000,
            number,
            unsent: first,
        };
        for _ in 0..scenario.servers {
            host.shelves.push(Shelf::new(scenario.ring_bytes * 4, first));
        }
        for server in 0..host.shelves.len() {
            host.start(server, Start::Oldest, now);
        }
        host
    }

    /// Begins another session: another ring, from nothing, and the next source port.
    pub(super) fn replace(&mut self, scenario: &Scenario, session: u64, now: u64) {
        let port = self.port + 1;
        *self = Self { port, ..Self::new(scenario, self.number, session, now) };
    }

    fn start(&mut self, server: usize, start: Start, now: u64) {
        let mut options = self.options.clone();
        if server > 0 {
            options.flow = crate::protocol::Flow::None;
            options.merge_ns = 0;
        }
        self.shelves[server].start(options, self.book.session, start, now);
    }

    /// The sender starts again on its ring, from another port.
    pub(super) fn restart(&mut self, how: u8, now: u64) {
        self.kill(0);
        self.port += 1;
        let start = [Start::Now, Start::Sequence(self.unsent), Start::Oldest][usize::from(how) % 3];
        self.start(0, start, now);
    }

    pub(super) fn kill(&mut self, server: usize) {
        let Some(shelf) = self.shelves.get_mut(server) else { return };
        if let Some(sender) = shelf.sender.take().filter(|_| server == 0) {
            self.unsent = sender.next_sequence();
        }
    }

    /// Where a line's packets come from; its own address for each line.
    pub(super) fn line_address(&self, line: usize) -> SocketAddr {
        ([10, 0, line as u8, 1 + self.number as u8], self.port).into()
    }

    /// Where a further server answers.
    pub(super) fn server_address(host: usize, server: usize) -> SocketAddr {
        ([10, 1, server as u8, 1 + host as u8], 4000).into()
    }

    /// Which server listens there.
    pub(super) fn server_at(&self, at: SocketAddr) -> Option<usize> {
        if (0..8).any(|line| self.line_address(line) == at) {
            return Some(0);
        }
        (1..self.shelves.len()).find(|&server| Self::server_address(self.number, server) == at)
    }

    pub(super) fn servers(&self) -> usize {
        self.shelves.len()
    }

    pub(super) fn sender(&mut self, server: usize) -> Option<&mut Sender<Heap>> {
        self.shelves.get_mut(server)?.sender.as_mut()
    }

    /// Whether any living server could still repeat a message; `from` 1 leaves out the sender.
    pub(super) fn holds(&self, sequence: u64, from: usize) -> bool {
        self.shelves[from..].iter().filter_map(|shelf| shelf.sender.as_ref()).any(|sender| {
            sender.consumer().oldest_sequence() <= sequence && sequence < sender.next_sequence()
        })
    }

    /// When a server has something to do by itself, ns.
    pub(super) fn timeout(&self, server: usize) -> u64 {
        self.shelves[server].sender.as_ref().map_or(u64::MAX, Sender::timeout)
    }

    /// Publishes the next message; false if the ring has no room.
    pub(super) fn publish(&mut self) -> bool {
        let sequence = self.book.next;
        let flags = if self.book.is_lost(sequence) { Flags::LOST } else { Flags::WHOLE };
        self.book.fill(sequence, &mut self.payload);
        if flags.is_lost() {
            self.payload.clear();
        }
        for (server, shelf) in self.shelves.iter_mut().enumerate() {
            match shelf.producer.try_publish_flagged(&self.payload, flags) {
                Ok(published) => assert_eq!(published, sequence),
                Err(_) if server == 0 => return false,
                // Its reader has been polled, and nobody holds it up.
                Err(error) => panic!("a further server's ring has no room: {error}"),
            }
        }
        self.book.next += 1;
        true
    }

    /// All that a server has to send now.
    pub(super) fn poll(
        &mut self,
        server: usize,
        now: u64,
        out: &mut Vec<Outgoing>,
    ) -> Result<(), String> {
        let Some(sender) = self.shelves[server].sender.as_mut() else { return Ok(()) };
        for _ in 0..POLLS_MAX {
            let transmit = match sender.poll_transmit(now, &mut self.buffer) {
                Ok(Some(transmit)) => transmit,
                Ok(None) if sender.timeout() <= now => {
                    return Err(format!(
                        "server {server} is due at {}, and idle",
                        sender.timeout()
                    ));
                }
                Ok(None) => return Ok(()),
                Err(error) => return Err(format!("server {server}: {error}")),
            };
            if transmit.segment_bytes > self.options.datagram_bytes.max(1320) {
                return Err(format!("server {server} sent a datagram too long: {transmit:?}"));
            }
            let bytes = &self.buffer[..transmit.bytes];
            let mut segments = bytes.chunks(transmit.segment_bytes).peekable();
            while let Some(segment) = segments.next() {
                let (to, last) = (transmit.to, segments.peek().is_none());
                out.push(Outgoing { to, bytes: segment.into(), last });
            }
        }
        Err(format!("server {server} does not stop sending"))
    }
}
