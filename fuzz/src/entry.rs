//! The fuzz targets as plain functions of bytes, so that a stable test replays the corpus.
//!
//! Whatever the bytes: no panic, no turn without end, nothing beyond the limits of the options, and
//! messages in order.

use std::net::SocketAddr;

use gapless::log::bulk::{Frame, Hello};
use gapless::protocol::control::CONTROL_MAX_BYTES;
use gapless::protocol::{
    Control, Event, Flow, Header, Join, Packet, Receiver, ReceiverOptions, RequestProtocol, Sender,
    SenderOptions, Session, To,
};
use gapless::shm::{Heap, Producer, RingOptions, Start};

mod book;
mod damage;
mod frames;
mod orders;

pub use book::book;
pub use damage::log;
pub use frames::frames;
pub use orders::orders;

const SESSION: Session = Session(*b"FUZZ000001");
const LATER_SESSION: Session = Session(*b"FUZZ000002");
const GAPS_MAX: usize = 16;
const STORE_BYTES: usize = 4096;

/// What is read as a packet is within its bytes, and what is read as control is written alike.
pub fn packets(data: &[u8]) {
    if let Ok(packet) = Packet::read(data) {
        let (mut next, mut bytes) = (packet.header.sequence, 0);
        for (sequence, message) in packet.messages() {
            assert_eq!(sequence, next);
            next += 1;
            bytes += 2 + message.len();
        }
        assert!(next - packet.header.sequence <= packet.header.messages().into());
        assert!(bytes <= packet.blocks.len());
    }
    if let Ok(control) = Control::read(data) {
        let mut buffer = [0; CONTROL_MAX_BYTES];
        let len = control.write(&mut buffer);
        assert_eq!(Control::read(&buffer[..len]), Ok(control));
    }
}

/// What is read as a hello or a frame of bulk catch-up is written alike.
pub fn bulk(data: &[u8]) {
    if let Some(bytes) = data.first_chunk()
        && let Ok(hello) = Hello::read(bytes)
    {
        assert_eq!(Hello::read(&hello.to_bytes()), Ok(hello));
    }
    let mut rest = data;
    while let Ok(Some((frame, length))) = Frame::read(rest) {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        assert_eq!(Frame::read(&bytes), Ok(Some((frame, length))));
        rest = &rest[length..];
    }
}

/// Input, taken from the front; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A number near one end of its range, or near `known`, or anywhere.
    fn sequence(&mut self, known: u64) -> u64 {
        let (how, near) = (self.byte(), u64::from(self.byte()));
        match how & 3 {
            0 => near,
            1 => u64::MAX - near,
            2 => known.wrapping_add(near).wrapping_sub(16),
            _ => near << (how >> 2),
        }
    }

    /// A datagram: raw, or with a head that is likely to be let in.
    fn datagram(&mut self, known: u64) -> Vec<u8> {
        let (shape, len) = (self.byte(), usize::from(self.byte()));
        let session = match shape >> 5 {
            0 => LATER_SESSION,
            1 => Session([0; 10]),
            _ => SESSION,
        };
        let mut bytes = Vec::new();
        match shape & 31 {
            0 => {}
            // Messages that are there.
            1..8 => {
                let count = u16::from(shape & 7);
                let header = Header { session, sequence: self.sequence(known), count };
                bytes.extend(header.to_bytes());
                for _ in 0..count {
                    bytes.extend((len as u16).to_be_bytes());
                    bytes.resize(bytes.len() + len, shape);
                }
                return bytes;
            }
            // A heartbeat, an end, a request, or more messages than there are.
            8..16 => {
                let count = [0, 0xffff, 1, 0xfffe, 300, 2, 0x8000, 40][usize::from(shape & 7)];
                bytes.extend(Header { session, sequence: self.sequence(known), count }.to_bytes());
                bytes.truncate(bytes.len() - usize::from(len == 255));
                if len & 1 == 0 {
                    return bytes;
                }
            }
            _ => return self.control(shape & 7, len, session, known),
        }
        bytes.extend(self.take(len));
        bytes
    }

    fn control(&mut self, kind: u8, len: usize, session: Session, known: u64) -> Vec<u8> {
        let servers = len % 9;
        let bitmap = len % 5 * 8;
        let size = [40 + bitmap, 224, 40 + 20 * servers, 40 + bitmap, 80, 48, 60, 48];
        let size = size[usize::from(kind)];
        let kind = [3, 1, 2, 3, 4, 5, 6, 5][usize::from(kind)];
        let mut bytes = vec![0; size];
        bytes[..4].copy_from_slice(b"\xfeGAP");
        (bytes[4], bytes[5]) = (1, kind);
        bytes[6..8].copy_from_slice(&(size as u16).to_be_bytes());
        bytes[8..18].copy_from_slice(&session.0);
        let mut put = |at: usize, from: &[u8]| bytes[at..at + from.len()].copy_from_slice(from);
        // A gone's span stands between its numbers, a request's behind them.
        let numbers = if kind == 5 { [20, 32, 40] } else { [20, 28, size] };
        for at in numbers.into_iter().filter(|at| at + 8 <= size) {
            put(at, &self.sequence(known).to_be_bytes());
        }
        let span = match self.byte() {
            255 => u32::MAX,
            _ if bitmap > 0 => bitmap as u32 * 8,
            span => u32::from(span) << (span & 15),
        };
        match kind {
            2 => put(36, &[len as u8 & 1, servers as u8]),
            3 => put(36, &span.to_be_bytes()),
            5 => put(28, &span.to_be_bytes()),
            _ => {}
        }
        let rest = if kind == 2 || kind == 3 { 40 } else { size };
        let tail = self.take(size - rest);
        bytes[rest..rest + tail.len()].copy_from_slice(tail);
        bytes
    }
}

/// What the application has seen, and must see next.
#[derive(Default)]
struct Watch {
    expected: u64,
    refuses: bool,
}

impl Watch {
    fn take(&mut self, event: Event<'_>) -> bool {
        match event {
            Event::Joined { next, .. } => self.expected = next,
            Event::Message { sequence, .. } => {
                assert_eq!(sequence, self.expected);
                if self.refuses && sequence % 5 == 0 {
                    return false;
                }
                self.expected += 1;
            }
            Event::Lost { first, count } => {
                assert!(first == self.expected && count > 0);
                if self.refuses {
                    return false;
                }
                self.expected += count;
            }
            Event::Ended { next } => assert_eq!(next, self.expected),
            _ => {}
        }
        true
    }
}

/// A sender and a receiver that hear each other now and then, and whatever else is said to them.
struct World {
    producer: Producer<Heap>,
    sender: Sender<Heap>,
    receiver: Receiver,
    watch: Watch,
    buffer: Vec<u8>,
    now: u64,
}

fn host(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 7).into()
}

const SENDER: u8 = 1;
const RECEIVER: u8 = 3;

impl World {
    fn new(setting: u8) -> Self {
        let (producer, ring) = RingOptions::new().capacity_bytes(4096).heap().expect("a ring");
        let consumer = ring.subscribe("sender", Start::Oldest).expect("a free slot");
        let sender = SenderOptions {
            datagram_bytes: 200,
            history_packets: 4,
            requests_max: 4,
            receivers_max: 4,
            flow: if setting & 8 == 0 { Flow::None } else { Flow::Slowest },
            merge_ns: u64::from(setting & 16) * 1000,
            any_session: setting & 32 != 0,
            ..Default::default()
        };
        let joins = [Join::Now, Join::Oldest, Join::Sequence(1), Join::Sequence(u64::MAX - 40)];
        let receiver = ReceiverOptions {
            join: joins[usize::from(setting & 3)],
            protocol: match setting & 4 {
                0 => RequestProtocol::Gapless,
                _ => RequestProtocol::Mold,
            },
            lines: 1 + usize::from(setting >> 7),
            gaps_max: GAPS_MAX,
            store_bytes: STORE_BYTES,
            store_packets: 16,
            ask_source: setting & 64 == 0,
            servers: vec![host(SENDER); usize::from(setting & 64 != 0)],
            id: 1,
            ..Default::default()
        };
        Self {
            producer,
            sender: Sender::new(sender, SESSION, consumer, 0).expect("good options"),
            receiver: Receiver::new(receiver).expect("good options"),
            watch: Watch::default(),
            buffer: vec![0; 4096],
            now: 0,
        }
    }

    /// Something comes from somewhere.
    fn hear(&mut self, input: &mut Input<'_>) {
        let to = input.byte();
        let known = match to & 8 {
            0 => self.receiver.newest_sequence(),
            _ => self.sender.next_sequence(),
        };
        let datagram = input.datagram(known);
        let source = host([SENDER, SENDER, SENDER, 2][usize::from(to >> 6)]);
        let (now, watch) = (self.now, &mut self.watch);
        let mut handler = |event: Event<'_>| watch.take(event);
        match to & 3 {
            0 => self.sender.on_datagram(source, &datagram, now),
            1 => self.receiver.on_answer(source, &datagram, now, &mut handler),
            line => {
                let line = usize::from(line - 2);
                self.receiver.on_datagram(line, source, &datagram, now, &mut handler);
            }
        }
    }

    /// Both send what they have to; all of it arrives, or nothing.
    fn turn(&mut self, to_sender: bool, to_receiver: bool) {
        let now = self.now;
        for turn in 0.. {
            assert!(turn < 1000, "a receiver does not stop sending");
            let Some(transmit) = self.receiver.poll_transmit(now, &mut self.buffer) else { break };
            if to_sender {
                self.sender.on_datagram(host(RECEIVER), &self.buffer[..transmit.bytes], now);
            }
        }
        let watch = &mut self.watch;
        let mut handler = |event: Event<'_>| watch.take(event);
        self.receiver.deliver(&mut handler);
        for turn in 0.. {
            assert!(turn < 10_000, "a sender does not stop sending");
            let transmit = self.sender.poll_transmit(now, &mut self.buffer).expect("a good ring");
            let Some(transmit) = transmit else { break };
            let bytes = &self.buffer[..transmit.bytes];
            for datagram in bytes.chunks(transmit.segment_bytes).filter(|_| to_receiver) {
                match transmit.to {
                    To::Stream => {
                        self.receiver.on_datagram(0, host(SENDER), datagram, now, &mut handler);
                    }
                    To::Peer(peer) if peer == host(RECEIVER) => {
                        self.receiver.on_answer(host(SENDER), datagram, now, &mut handler);
                    }
                    To::Peer(_) => {}
                }
            }
        }
    }

    fn check(&self) {
        let receiver = &self.receiver;
        assert!(receiver.open_gaps() <= GAPS_MAX && receiver.held_bytes() <= STORE_BYTES);
        assert!(receiver.next_sequence() <= receiver.newest_sequence());
        assert_eq!(receiver.next_sequence(), self.watch.expected);
        assert!(self.sender.timeout() > self.now, "due, and idle");
    }
}

/// A sender and a receiver take whatever comes.
pub fn machines(data: &[u8]) {
    let mut input = Input(data);
    let mut world = World::new(input.byte());
    while !input.0.is_empty() {
        let (step, clock) = (input.byte(), input.byte());
        world.now += u64::from(clock & 15) << (clock >> 4 << 1);
        world.watch.refuses = step & 1 != 0;
        for _ in 0..step >> 5 {
            let _ = world.producer.try_publish(&[step; 20]);
        }
        if step & 2 != 0 {
            world.hear(&mut input);
        }
        if step & 16 != 0 && clock == 255 {
            world.sender.end(world.now);
        }
        world.turn(step & 4 != 0, step & 8 != 0);
        world.check();
    }
}
