//! Real feeds: the A and B lines of an exchange arbitrated into one stream, and MoldUDP64 packets
//! of another exchange read and written again byte for byte.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};

use gapless::protocol::mold::{self, HEADER_BYTES};
use gapless::protocol::{
    Event, Header, Join, Packet, Random, Receiver, ReceiverOptions, RequestProtocol, Session, To,
};
use gapless::wire::Inlet;
use gapless::{Address, UdpAddress};

const A: &[u8] = include_bytes!("../data/moex-forts-2013/increment_a.binfile");
const B: &[u8] = include_bytes!("../data/moex-forts-2013/increment_b.binfile");
const BIST: &[u8] = include_bytes!("../data/bist-mold/mold.sample.dat");

/// Of both lines together.
const FIRST: u64 = 482_727;
const END: u64 = 490_839;
const SESSION: Session = Session(*b"FORTS     ");

type Messages = BTreeMap<u64, &'static [u8]>;

/// The messages of a file: 2-byte big-endian length, message, repeated.
fn messages(mut file: &'static [u8], first: u64) -> Messages {
    let mut messages = Messages::new();
    while let Some((length, tail)) = file.split_first_chunk::<2>() {
        let (message, tail) = tail.split_at(u16::from_be_bytes(*length).into());
        messages.insert(first + messages.len() as u64, message);
        file = tail;
    }
    messages
}

fn lines() -> [Messages; 2] {
    [messages(A, 482_727), messages(B, 482_751)]
}

fn union() -> Messages {
    let [a, mut b] = lines();
    b.extend(a);
    b
}

fn source(line: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + line as u8], 26_400))
}

/// A datagram of one line, and which messages it has.
#[derive(Clone)]
struct Sent {
    line: usize,
    first: u64,
    end: u64,
    bytes: Vec<u8>,
}

/// Up to `most` messages from `first` on, as many as fit a datagram.
fn packet(messages: &Messages, first: u64, most: u16) -> (u64, Vec<u8>) {
    let mut bytes = vec![0; 1472];
    let (mut used, mut count) = (HEADER_BYTES, 0);
    for message in messages.range(first..).take(most.into()).map(|(_, message)| message) {
        let Some(end) = mold::append(&mut bytes, used, message) else { break };
        (used, count) = (end, count + 1);
    }
    Header { session: SESSION, sequence: first, count }.write(bytes.first_chunk_mut().unwrap());
    bytes.truncate(used);
    (first + u64::from(count), bytes)
}

/// Both lines packed by different hands and sent at the same time, now one ahead, now the other.
fn schedule(random: &mut Random) -> Vec<Sent> {
    let lines = lines();
    let mut next = [0, 1].map(|line| *lines[line].keys().next().unwrap());
    let ends = [0, 1].map(|line| lines[line].keys().next_back().unwrap() + 1);
    let mut sent = Vec::new();
    while next != ends {
        let line = random.below(2) as usize;
        if next[line] < ends[line] {
            let first = next[line];
            let (end, bytes) = packet(&lines[line], first, 1 + random.below(12) as u16);
            next[line] = end;
            sent.push(Sent { line, first, end, bytes });
        }
    }
    sent
}

/// What must come of what arrives.
#[derive(Default, Debug, PartialEq, Eq)]
struct Line {
    packets: u64,
    bytes: u64,
    wins: u64,
    duplicates: u64,
    lost: u64,
}

/// By a set of what has been seen, and nothing else.
fn expected(arriving: &[Sent]) -> [Line; 2] {
    let mut seen = std::collections::BTreeSet::new();
    let mut next = [None; 2];
    let mut lines = [Line::default(), Line::default()];
    for sent in arriving {
        let line = &mut lines[sent.line];
        line.packets += 1;
        line.bytes += sent.bytes.len() as u64;
        line.lost += sent.first - next[sent.line].unwrap_or(sent.first);
        next[sent.line] = Some(sent.end);
        for sequence in sent.first..sent.end {
            if seen.insert(sequence) { line.wins += 1 } else { line.duplicates += 1 }
        }
    }
    lines
}

fn found(line: &gapless::protocol::LineCounts) -> Line {
    assert_eq!(line.reordered, 0, "each line keeps its order");
    Line {
        packets: line.packets,
        bytes: line.bytes,
        wins: line.wins,
        duplicates: line.duplicates,
        lost: line.lost,
    }
}

/// Takes events, and checks that they are the next of the stream, byte for byte.
struct Check {
    union: Messages,
    next: u64,
    lost: Vec<u64>,
}

impl Check {
    fn new() -> Self {
        Self { union: union(), next: FIRST, lost: Vec::new() }
    }

    fn take(&mut self, event: Event<'_>) -> bool {
        match event {
            Event::Joined { session, next } => assert_eq!((session, next), (SESSION, FIRST)),
            Event::Message { sequence, payload } => {
                assert_eq!(sequence, self.next);
                assert_eq!(payload, self.union[&sequence], "message {sequence}");
                self.next += 1;
            }
            Event::Lost { first, count } => {
                assert_eq!(first, self.next);
                self.lost.extend(first..first + count);
                self.next += count;
            }
            other => panic!("{other:?}"),
        }
        true
    }
}

/// Nanoseconds between two datagrams: a line is never behind by as much as `skew_ns`.
const STEP_NS: u64 = 100;

fn receiver(options: ReceiverOptions) -> Receiver {
    let join = Join::Sequence(FIRST);
    Receiver::new(ReceiverOptions { lines: 2, join, report_ns: 0, ..options }).unwrap()
}

/// Feeds `arriving`, and answers requests from `server` if there is one.
fn arbitrate(
    options: ReceiverOptions,
    arriving: &[Sent],
    server: Option<SocketAddr>,
) -> (Receiver, Check) {
    let (mut receiver, mut check) = (receiver(options), Check::new());
    let (mut now, mut buffer) = (0, [0; 2048]);
    let mut pump = |receiver: &mut Receiver, check: &mut Check, now| {
        while let Some(transmit) = receiver.poll_transmit(now, &mut buffer) {
            let To::Peer(peer) = transmit.to else { panic!("a receiver has no group") };
            assert_eq!(Some(peer), server, "nobody else is to be asked");
            let request = Header::read(&buffer[..transmit.bytes]).unwrap();
            assert_eq!((request.session, transmit.bytes), (SESSION, HEADER_BYTES));
            let (_, answer) = packet(&check.union, request.sequence, request.count);
            receiver.on_answer(peer, &answer, now, &mut |event| check.take(event));
        }
        receiver.deliver(&mut |event| check.take(event));
    };
    for sent in arriving {
        now += STEP_NS;
        let mut take = |event: Event<'_>| check.take(event);
        receiver.on_datagram(sent.line, source(sent.line), &sent.bytes, now, &mut take);
        pump(&mut receiver, &mut check, now);
    }
    for _ in 0..100 {
        now += 1_000_000;
        pump(&mut receiver, &mut check, now);
    }
    (receiver, check)
}

#[test]
fn the_lines_are_what_they_are_said_to_be() {
    let [a, b] = lines();
    assert_eq!((a.len(), *a.keys().next_back().unwrap()), (8_101, 490_827));
    assert_eq!((b.len(), *b.keys().next_back().unwrap()), (8_088, 490_838));
    let both = a.iter().filter(|(sequence, message)| b.get(sequence) == Some(message));
    assert_eq!(both.count(), 8_077);
    let union = union();
    assert_eq!((union.len(), *union.keys().next().unwrap()), (8_112, FIRST));
}

#[test]
fn two_lines_arbitrate_to_one_stream() {
    for seed in 0..20 {
        let sent = schedule(&mut Random::new(seed));
        let options = ReceiverOptions { ask_source: false, ..Default::default() };
        let (receiver, check) = arbitrate(options, &sent, None);
        assert_eq!((check.next, check.lost.len()), (END, 0), "seed {seed}");
        let counts = receiver.counts();
        assert_eq!((counts.messages, counts.requests, counts.malformed), (8_112, 0, 0));
        assert_eq!((counts.duplicates, counts.packets), (8_077, sent.len() as u64));
        let expected = expected(&sent);
        for (line, expected) in expected.iter().enumerate() {
            assert_eq!(&found(receiver.line(line).unwrap()), expected, "seed {seed}, line {line}");
        }
        assert_eq!(expected.iter().map(|line| line.wins).sum::<u64>(), 8_112);
        let late = receiver.line(0).unwrap().late_samples + receiver.line(1).unwrap().late_samples;
        assert!(late > 0, "how much later the second copy comes is measured");
    }
}

#[test]
fn what_one_line_loses_the_other_has() {
    for (seed, loss) in [(1, [0.1, 0.0]), (2, [0.0, 0.3]), (3, [0.9, 0.0]), (4, [0.0, 1.0])] {
        let mut random = Random::new(seed);
        let mut sent = schedule(&mut random);
        // Line B begins 24 messages late and A ends 11 early: there the other one is alone.
        sent.retain(|sent| {
            let alone = sent.first < 482_751 || sent.end > 490_828;
            alone || !random.chance(loss[sent.line])
        });
        let options = ReceiverOptions { ask_source: false, ..Default::default() };
        let (receiver, check) = arbitrate(options, &sent, None);
        assert_eq!((check.next, check.lost.len()), (END, 0), "seed {seed}");
        let counts = receiver.counts();
        assert_eq!((counts.messages, counts.requests, counts.lost), (8_112, 0, 0));
        for (line, expected) in expected(&sent).iter().enumerate() {
            assert_eq!(&found(receiver.line(line).unwrap()), expected, "seed {seed}, line {line}");
        }
    }
}

/// What neither line brings of the messages before the last that any brings.
fn lost_on_both(arriving: &[Sent]) -> Vec<u64> {
    let mut missing: std::collections::BTreeSet<u64> = (FIRST..END).collect();
    for sent in arriving {
        (sent.first..sent.end).for_each(|sequence| _ = missing.remove(&sequence));
    }
    missing.into_iter().collect()
}

fn bad_lines(seed: u64) -> Vec<Sent> {
    let mut random = Random::new(seed);
    let mut sent = schedule(&mut random);
    sent.retain(|sent| sent.end == END || !random.chance(0.15));
    assert!(!lost_on_both(&sent).is_empty());
    sent
}

#[test]
fn what_both_lines_lose_is_told_in_its_place() {
    for seed in 0..10 {
        let sent = bad_lines(seed);
        let options = ReceiverOptions { ask_source: false, ..Default::default() };
        let (receiver, check) = arbitrate(options, &sent, None);
        assert_eq!(check.next, END, "seed {seed}");
        assert_eq!(check.lost, lost_on_both(&sent), "seed {seed}");
        assert_eq!(receiver.counts().lost, check.lost.len() as u64);
    }
}

#[test]
fn what_both_lines_lose_is_had_from_the_exchanges_server() {
    let server = SocketAddr::from(([10, 0, 0, 9], 26_401));
    for seed in 0..10 {
        let sent = bad_lines(seed);
        let options = ReceiverOptions {
            ask_source: false,
            servers: vec![server],
            protocol: RequestProtocol::Mold,
            ..Default::default()
        };
        let (receiver, check) = arbitrate(options, &sent, Some(server));
        assert_eq!((check.next, check.lost.len()), (END, 0), "seed {seed}");
        let counts = receiver.counts();
        assert_eq!((counts.messages, counts.lost), (8_112, 0));
        assert!(counts.repaired >= lost_on_both(&sent).len() as u64, "{counts:?}");
        for (line, expected) in expected(&sent).iter().enumerate() {
            let found = found(receiver.line(line).unwrap());
            assert_eq!((found.packets, found.lost), (expected.packets, expected.lost));
        }
    }
}

fn udp(text: &str) -> UdpAddress {
    match text.parse().unwrap() {
        Address::Udp(udp) => *udp,
        other => panic!("{other}"),
    }
}

#[test]
fn two_lines_over_sockets() {
    // A loopback address that no other process has.
    let pid = std::process::id().to_be_bytes();
    let own = std::net::Ipv4Addr::new(127, 64 | pid[1] & 0x3f, pid[2], pid[3]);
    let out = [0, 1].map(|_| UdpSocket::bind((own, 0)).unwrap());
    let to = [26_400, 26_401].map(|port| SocketAddr::from((own, port)));
    // However slow this host is, the other line may yet bring what one has lost.
    let text = format!("udp:{}?b={}&request=none&skew=60s&reorder=60s&from={FIRST}", to[0], to[1]);
    let mut inlet = Inlet::open(&udp(&text)).unwrap();
    let mut random = Random::new(1);
    let mut sent = schedule(&mut random);
    sent.retain(|sent| {
        let alone = sent.first < 482_751 || sent.end > 490_828;
        alone || sent.line == 1 || !random.chance(0.05)
    });
    let mut check = Check::new();
    for (count, sent) in sent.iter().enumerate() {
        out[sent.line].send_to(&sent.bytes, to[sent.line]).unwrap();
        while inlet.counts().packets == count as u64 {
            inlet.poll(64, |event| check.take(event)).unwrap();
        }
    }
    assert_eq!((check.next, check.lost.len()), (END, 0));
    assert_eq!(inlet.counts().messages, 8_112);
    for (line, expected) in expected(&sent).iter().enumerate() {
        assert_eq!(&found(inlet.line(line).unwrap()), expected, "line {line}");
    }
}

/// The captured packets; the last is cut within its last message.
fn captured() -> Vec<&'static [u8]> {
    let mut rest = BIST;
    let mut packets = Vec::new();
    while !rest.is_empty() {
        let mut messages = Packet::read(rest).unwrap().messages();
        while messages.next().is_some() {}
        let behind = if messages.left() > 0 { 0 } else { messages.rest().len() };
        let (packet, tail) = rest.split_at(rest.len() - behind);
        packets.push(packet);
        rest = tail;
    }
    packets
}

#[test]
fn captured_packets_are_read_and_written_again_byte_for_byte() {
    let packets = captured();
    let headers: Vec<Header> = packets.iter().map(|packet| Header::read(packet).unwrap()).collect();
    let session = Session([0; 10]);
    let header = |sequence, count| Header { session, sequence, count };
    assert_eq!(headers, [header(1, 15), header(16, 13), header(29, 13)]);
    let mut written = Vec::new();
    let mut whole = 0;
    for bytes in &packets {
        let packet = Packet::read(bytes).unwrap();
        let mut again = vec![0; bytes.len()];
        packet.header.write(again.first_chunk_mut().unwrap());
        let (mut used, mut messages) = (HEADER_BYTES, packet.messages());
        for (sequence, message) in &mut messages {
            whole += 1;
            assert_eq!(sequence, whole);
            used = mold::append(&mut again, used, message).unwrap();
        }
        again.truncate(used);
        again.extend(messages.rest());
        written.extend(again);
    }
    assert_eq!(written, BIST);
    assert_eq!(whole, 40, "of 41, the last is cut");
    // 25 bytes by its length, of which 20 are there.
    assert_eq!(BIST[BIST.len() - 22..][..2], [0, 25]);
}

#[test]
fn captured_packets_are_received() {
    let mut receiver = Receiver::new(ReceiverOptions::default()).unwrap();
    let mut seen = Vec::new();
    for packet in captured() {
        receiver.on_datagram(0, source(0), packet, 0, &mut |event| {
            if let Event::Message { sequence, payload } = event {
                seen.push((sequence, payload.to_vec()));
            }
            true
        });
    }
    let packets = captured();
    let expected = packets.iter().flat_map(|packet| Packet::read(packet).unwrap().messages());
    assert!(seen.iter().map(|(sequence, bytes)| (*sequence, &bytes[..])).eq(expected));
    assert_eq!(receiver.session(), Some(Session([0; 10])));
    let counts = receiver.counts();
    assert_eq!((counts.messages, counts.malformed, receiver.next_sequence()), (40, 1, 41));
    assert_eq!(receiver.line(0).unwrap().wins, 40, "the cut message came from nobody");
}
