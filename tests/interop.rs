//! What other people's peers send and expect, one test for each oddity; and what must never come of
//! bad input: whatever arrives is counted, dropped, or answered by no more than was asked for.

use std::net::SocketAddr;

use gapless::protocol::control::{Body, CONTROL_MAX_BYTES, Request};
use gapless::protocol::mold::{END_OF_SESSION, HEADER_BYTES, HEARTBEAT};
use gapless::protocol::{
    BURST_BYTES, Control, Event, Header, Packet, Random, Receiver, ReceiverCounts, ReceiverOptions,
    RequestProtocol, Sender, SenderOptions, Session, To,
};
use gapless::shm::{Heap, Producer, RingOptions, Start};

const SESSION: Session = Session(*b"0000000XYZ");
const CLIENT: ([u8; 4], u16) = ([10, 0, 0, 2], 5000);
const SERVER: ([u8; 4], u16) = ([10, 0, 0, 1], 4000);

fn header(sequence: u64, count: u16) -> Header {
    Header { session: SESSION, sequence, count }
}

/// A sender that has sent messages 1 to `sent`, each its own number.
struct Served {
    producer: Producer<Heap>,
    sender: Sender<Heap>,
    now: u64,
}

impl Served {
    fn new(options: SenderOptions, sent: u64) -> Self {
        let (producer, ring) = RingOptions::new().capacity_bytes(1 << 20).heap().unwrap();
        let consumer = ring.subscribe("sender", Start::Oldest).unwrap();
        let sender = Sender::new(options, SESSION, consumer, 0).unwrap();
        let mut served = Self { producer, sender, now: 1 };
        for n in 1..=sent {
            served.producer.try_publish(&n.to_be_bytes()).unwrap();
            if n % 1000 == 0 {
                served.out();
            }
        }
        served.out();
        served
    }

    /// Every datagram that it has to send now, and where to. All that are MoldUDP64 are checked.
    fn out(&mut self) -> Vec<(To, Vec<u8>)> {
        let mut buffer = vec![0; BURST_BYTES];
        let mut datagrams = Vec::new();
        while let Some(transmit) = self.sender.poll_transmit(self.now, &mut buffer).unwrap() {
            for bytes in buffer[..transmit.bytes].chunks(transmit.segment_bytes) {
                if Control::read(bytes).is_err() {
                    is_strict(bytes);
                }
                datagrams.push((transmit.to, bytes.to_vec()));
            }
        }
        datagrams
    }

    /// What it answers to a datagram, after a second in which nothing else was to be sent.
    fn answers(&mut self, question: &[u8]) -> Vec<Vec<u8>> {
        self.now += 1_000_000_000;
        self.out();
        self.sender.on_datagram(SocketAddr::from(CLIENT), question, self.now);
        let answers = self.out().into_iter().map(|(to, bytes)| {
            assert_eq!(to, To::Peer(SocketAddr::from(CLIENT)), "only to where it came from");
            bytes
        });
        answers.collect()
    }

    /// The one packet that answers a MoldUDP64 request.
    fn packet(&mut self, request: Header) -> Option<(Header, Vec<u64>)> {
        let mut answers = self.answers(&request.to_bytes());
        assert!(answers.len() <= 1, "one packet a request");
        let answer = answers.pop()?;
        let packet = Packet::read(&answer).unwrap();
        let numbers = packet.messages().map(|(sequence, message)| {
            assert_eq!(message, sequence.to_be_bytes());
            sequence
        });
        Some((packet.header, numbers.collect()))
    }
}

fn served(sent: u64) -> Served {
    Served::new(SenderOptions::default(), sent)
}

/// Nothing stands behind the last block, every block is whole, and what has no message ends behind
/// its header.
fn is_strict(bytes: &[u8]) {
    let packet = Packet::read(bytes).unwrap();
    let mut messages = packet.messages();
    let count = messages.by_ref().count();
    assert_eq!((messages.left(), messages.rest()), (0, &[][..]), "{:?}", packet.header);
    if matches!(packet.header.count, HEARTBEAT | END_OF_SESSION) {
        assert_eq!((count, bytes.len()), (0, HEADER_BYTES));
    }
}

fn from(address: ([u8; 4], u16)) -> SocketAddr {
    SocketAddr::from(address)
}

/// A receiver and the messages that it handed over.
struct Taking {
    receiver: Receiver,
    seen: Vec<(u64, Vec<u8>)>,
    ended: bool,
}

impl Taking {
    fn new(options: ReceiverOptions) -> Self {
        let receiver = Receiver::new(options).unwrap();
        Self { receiver, seen: Vec::new(), ended: false }
    }

    fn take_from(&mut self, source: SocketAddr, bytes: &[u8], now: u64) {
        let (seen, ended) = (&mut self.seen, &mut self.ended);
        self.receiver.on_datagram(0, source, bytes, now, &mut |event| {
            match event {
                Event::Message { sequence, payload } => seen.push((sequence, payload.to_vec())),
                Event::Ended { .. } => *ended = true,
                _ => {}
            }
            true
        });
    }

    fn take(&mut self, bytes: &[u8]) -> ReceiverCounts {
        self.take_from(from(SERVER), bytes, 1);
        *self.receiver.counts()
    }

    fn numbers(&self) -> Vec<u64> {
        self.seen.iter().map(|(sequence, _)| *sequence).collect()
    }
}

fn taking() -> Taking {
    Taking::new(ReceiverOptions::default())
}

/// A packet of one-byte messages.
fn packet(session: Session, sequence: u64, count: u16) -> Vec<u8> {
    let mut bytes = Header { session, sequence, count }.to_bytes().to_vec();
    (0..count).for_each(|n| bytes.extend([0, 1, n as u8]));
    bytes
}

#[test]
fn a_request_of_an_uninitialised_session_for_0xfffe_messages() {
    let garbage = Session([0xcd; 10]);
    let request = Header { session: garbage, ..header(7, 0xfffe) };
    let mut strict = served(1000);
    assert_eq!(strict.packet(request), None);
    assert_eq!(strict.sender.counts().requests_odd, 1);
    let mut lenient = Served::new(SenderOptions { any_session: true, ..Default::default() }, 1000);
    let (header, numbers) = lenient.packet(request).unwrap();
    assert_eq!(header.session, SESSION, "the answer says which session it is");
    assert_eq!(numbers, (7..7 + 145).collect::<Vec<_>>(), "as many as one datagram takes");
}

#[test]
fn a_request_for_5000_messages_is_answered_by_one_packet() {
    let mut served = served(6000);
    let mut next = 1;
    while next <= 5000 {
        let (header, numbers) = served.packet(header(next, (5001 - next) as u16)).unwrap();
        assert_eq!((header.sequence, numbers[0]), (next, next));
        next += u64::from(header.count);
    }
    assert_eq!(next, 5001, "never more than was asked for");
    let (_, numbers) = served.packet(header(5998, 5000)).unwrap();
    assert_eq!(numbers, [5998, 5999, 6000], "nor more than there is");
}

#[test]
fn a_request_for_sequence_0_is_odd() {
    let mut served = served(10);
    for odd in [header(0, 1), header(0, 5000), header(3, 0), header(11, 1), header(u64::MAX, 9)] {
        assert_eq!(served.packet(odd), None, "{odd:?}");
    }
    assert_eq!(served.sender.counts().requests_odd, 5);
    assert_eq!(served.packet(header(10, 1)).unwrap().1, [10]);
}

#[test]
fn a_client_that_keeps_nothing_ahead_of_a_gap() {
    // 23 packets are lost; whatever comes behind them is thrown away, and asked for packet by
    // packet, each question put twice.
    let mut served = served(3000);
    let (mut next, mut requests) = (1, 0);
    while next <= 3000 {
        for again in [false, true] {
            let count = (3001 - next).min(7) as u16;
            let (header, numbers) = served.packet(header(next, count)).unwrap();
            assert_eq!(numbers, (next..next + u64::from(count)).collect::<Vec<_>>());
            requests += 1;
            if again {
                next += u64::from(header.count);
            }
        }
    }
    let counts = served.sender.counts();
    assert_eq!((counts.requests, counts.requests_refused), (requests, 0));
    assert!(requests > 468);
}

#[test]
fn the_end_of_a_session_never_carries_blocks() {
    // Some take its count for 65,535 messages: they find none.
    let mut served = served(500);
    served.sender.end(served.now);
    served.now += 500_000_000;
    let ends: Vec<_> = served.out().into_iter().filter(|(to, _)| *to == To::Stream).collect();
    assert!(!ends.is_empty());
    for (_, bytes) in ends {
        assert_eq!(bytes, header(501, END_OF_SESSION).to_bytes());
    }
    // Requests are still answered, even for that many.
    served.sender.on_datagram(from(CLIENT), &header(499, 0xffff).to_bytes(), served.now);
    let answers = served.out();
    assert_eq!(answers.len(), 1);
    assert_eq!(Header::read(&answers[0].1), Ok(header(499, 2)));
    // Others' blocks there are not read.
    let mut taking = taking();
    taking.take(&packet(SESSION, 1, 2));
    let mut bytes = header(3, END_OF_SESSION).to_bytes().to_vec();
    bytes.extend(b"\0\x01x");
    taking.take(&bytes);
    assert_eq!((taking.numbers(), taking.ended), (vec![1, 2], true));
}

#[test]
fn sessions_padded_with_spaces_and_sessions_of_zeros() {
    for session in [Session(*b"ABC       "), Session([0; 10]), Session([0xff; 10])] {
        let protocol = RequestProtocol::Mold;
        let mut taking =
            Taking::new(ReceiverOptions { protocol, report_ns: 0, ..Default::default() });
        taking.take(&packet(session, 1, 2));
        taking.take(&packet(session, 5, 1));
        assert_eq!((taking.receiver.session(), taking.numbers()), (Some(session), vec![1, 2]));
        let mut buffer = [0; CONTROL_MAX_BYTES];
        let asked = taking.receiver.poll_transmit(1_000_000, &mut buffer).unwrap();
        let request = Header { session, sequence: 3, count: 2 };
        assert_eq!(buffer[..asked.bytes], request.to_bytes(), "as long, and the same ten bytes");
        assert_eq!(asked.to, To::Peer(from(SERVER)));
    }
}

#[test]
fn trailing_bytes_are_taken_and_never_sent() {
    let mut taking = taking();
    for (n, tail) in [&b"\0"[..], b"\0\x05tail", &[0xff; 700]].into_iter().enumerate() {
        let mut bytes = packet(SESSION, 1 + 2 * n as u64, 2);
        bytes.extend(tail);
        taking.take(&bytes);
        let mut heartbeat = header(3 + 2 * n as u64, HEARTBEAT).to_bytes().to_vec();
        heartbeat.extend(tail);
        taking.take(&heartbeat);
    }
    let counts = taking.receiver.counts();
    assert_eq!(taking.numbers(), (1..=6).collect::<Vec<_>>());
    assert_eq!((counts.malformed, counts.heartbeats, counts.gaps), (0, 3, 0));
    // `out` looks at every datagram: of many lengths, and repeated.
    let mut served = served(0);
    let mut random = Random::new(1);
    for n in 0..3000_u32 {
        let message = vec![n as u8; random.below(1451) as usize];
        served.producer.try_publish(&message).unwrap();
        if random.chance(0.2) {
            served.out();
            served.now += random.below(1_000_000);
        }
        if random.chance(0.05) {
            let first = 1 + random.below(u64::from(n) + 1);
            let question = header(first, 1 + random.below(500) as u16).to_bytes();
            served.sender.on_datagram(from(CLIENT), &question, served.now);
        }
    }
    served.sender.end(served.now);
    served.now += 1_000_000;
    served.out();
    let counts = served.sender.counts();
    assert!(counts.repaired_packets > 0 && counts.heartbeats > 0 && counts.messages == 3000);
}

#[test]
fn zero_length_messages_are_messages() {
    let mut served = served(0);
    for _ in 0..1000 {
        served.producer.try_publish(b"").unwrap();
    }
    let mut taking = taking();
    let mut packets = 0;
    for (_, bytes) in served.out() {
        packets += 1;
        taking.take(&bytes);
    }
    assert_eq!(packets, 2, "726 blocks of two bytes are a datagram");
    assert_eq!(taking.numbers(), (1..=1000).collect::<Vec<_>>());
    assert!(taking.seen.iter().all(|(_, payload)| payload.is_empty()));
    let answers = served.answers(&header(3, 9).to_bytes());
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0].len(), HEADER_BYTES + 9 * 2);
}

#[test]
fn a_heartbeat_has_count_0_and_the_next_sequence() {
    let mut served = served(5);
    served.now += 20_000;
    assert_eq!(served.out(), [(To::Stream, header(6, HEARTBEAT).to_bytes().to_vec())]);
    // And is believed: what it says is missing is asked for.
    let mut taking = taking();
    taking.take(&packet(SESSION, 1, 2));
    let counts = taking.take(&header(6, HEARTBEAT).to_bytes());
    assert_eq!((counts.heartbeats, counts.gaps, counts.missed), (1, 1, 3));
    taking.take(&packet(SESSION, 3, 3));
    assert_eq!(taking.numbers(), [1, 2, 3, 4, 5]);
}

#[test]
fn the_answer_to_solicit_is_never_longer_than_the_question() {
    for servers in 0..=8 {
        let server = |n| SocketAddr::from(([10, 0, 0, n], 9000));
        let options = SenderOptions {
            servers: (0..servers).map(server).collect(),
            ..SenderOptions::default()
        };
        let mut served = Served::new(options, 10);
        for session in [SESSION, Session([0; 10])] {
            let mut question = [0; CONTROL_MAX_BYTES];
            let body = Body::Solicit { receiver: 1 };
            let len = Control { session, body }.write(&mut question);
            let answers = served.answers(&question[..len]);
            assert_eq!(answers.len(), 1);
            assert!(answers[0].len() <= len, "{} bytes to {len}", answers[0].len());
            // Cut or padded, it is no question.
            assert_eq!(served.answers(&question[..len - 1]).len(), 0);
            assert_eq!(served.answers(&question[..len + 1]).len(), 0);
        }
    }
}

#[test]
fn what_is_gone_or_never_was_is_answered_by_one_packet() {
    let mut served = served(10);
    for (first, span) in [(11, 1), (11, u32::MAX), (u64::MAX - 9, 9), (1 << 40, 1 << 20)] {
        let body = Body::Request(Request { receiver: 1, first, span, bitmap: &[] });
        let mut question = [0; CONTROL_MAX_BYTES];
        let len = Control { session: SESSION, body }.write(&mut question);
        let answers = served.answers(&question[..len]);
        assert_eq!(answers.len(), 1, "{first} {span}");
        assert!(matches!(Control::read(&answers[0]).unwrap().body, Body::Gone(_)));
    }
}

#[test]
fn random_bytes_on_the_request_port_are_counted_and_not_answered() {
    let mut served = served(100);
    let mut random = Random::new(5);
    for round in 0..20_000_u64 {
        let len = random.below(if round % 100 == 0 { 65_507 } else { 300 }) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
        if round % 3 == 0 {
            // As far as the session and no further.
            bytes.splice(..len.min(10), SESSION.0);
        }
        if len != HEADER_BYTES {
            let before = served.sender.counts().malformed;
            served.sender.on_datagram(from(CLIENT), &bytes, served.now);
            assert_eq!(served.sender.counts().malformed, before + 1);
        }
    }
    assert!(served.out().is_empty());
}

#[test]
fn a_storm_of_requests_is_answered_within_the_budget() {
    let options = SenderOptions {
        repair_bytes_per_second: 10_000,
        repair_burst_bytes: 10_000,
        ..SenderOptions::default()
    };
    let mut served = Served::new(options, 1000);
    let mut bytes = 0;
    for _ in 0..10_000 {
        served.now += 100_000; // a second in all
        served.sender.on_datagram(from(CLIENT), &header(1, 1000).to_bytes(), served.now);
        let answers = served.out().into_iter().filter(|(to, _)| *to != To::Stream);
        bytes += answers.map(|(_, bytes)| bytes.len()).sum::<usize>();
    }
    assert!((10_000..22_000).contains(&bytes), "{bytes}");
    assert!(served.sender.counts().requests_refused > 9_900);
}

#[test]
fn another_session_is_foreign() {
    let session = Some(SESSION);
    let mut only = Taking::new(ReceiverOptions { session, ..Default::default() });
    assert_eq!(only.take(&packet(Session(*b"OTHER     "), 1, 3)).foreign, 1);
    assert_eq!(only.take(&packet(SESSION, 1, 3)).messages, 3);
    let mut first = taking();
    first.take(&packet(SESSION, 1, 3));
    let counts = first.take(&packet(Session(*b"OTHER     "), 1, 3));
    assert_eq!((counts.foreign, counts.messages, counts.sessions), (1, 3, 1));
}

#[test]
fn a_session_that_is_over_is_stale() {
    let mut taking = Taking::new(ReceiverOptions { ask_source: false, ..Default::default() });
    let (old, new) = (Session::from_number(1), Session::from_number(2));
    taking.take(&packet(old, 1, 3));
    let counts = taking.take(&packet(new, 1, 2));
    assert_eq!((counts.sessions, taking.receiver.session()), (2, Some(new)));
    let counts = taking.take(&packet(old, 4, 3));
    assert_eq!((counts.stale, counts.messages), (1, 5));
    assert_eq!(taking.numbers(), [1, 2, 3, 1, 2]);
}

#[test]
fn a_sequence_that_goes_backwards_is_known_already() {
    let mut taking = taking();
    taking.take(&packet(SESSION, 100, 10));
    let counts = taking.take(&packet(SESSION, 50, 10));
    assert_eq!((counts.messages, counts.duplicates, counts.gaps), (10, 10, 0));
    taking.take(&header(7, HEARTBEAT).to_bytes());
    taking.take(&header(7, END_OF_SESSION).to_bytes());
    taking.take(&packet(SESSION, 105, 10));
    assert_eq!((taking.numbers(), taking.ended), ((100..115).collect(), false));
    assert_eq!(taking.receiver.line(0).unwrap().reordered, 2);
}

#[test]
fn two_senders_of_one_session_conflict() {
    let mut taking = taking();
    taking.take(&packet(SESSION, 1, 10));
    let second = SocketAddr::from(([10, 0, 0, 66], 4000));
    let forged = packet(SESSION, 5, 10);
    taking.take_from(second, &forged, 2);
    assert_eq!(taking.receiver.counts().conflicts, 1);
    taking.take(&packet(SESSION, 11, 2));
    assert_eq!(taking.numbers(), (1..=12).collect::<Vec<_>>());
    assert_eq!(taking.seen[10].1, [0], "by the first sender");
}

#[test]
fn counts_that_overrun_their_packet_are_malformed() {
    let mut taking = taking();
    let mut bytes = packet(SESSION, 1, 3);
    bytes[18..20].copy_from_slice(&0xfffe_u16.to_be_bytes());
    let counts = taking.take(&bytes);
    assert_eq!((counts.messages, counts.malformed), (3, 1));
    // The same ahead of a gap, and a length that runs over the end.
    let mut ahead = packet(SESSION, 10, 2);
    *ahead.last_mut().unwrap() = 9;
    ahead[HEADER_BYTES + 4] = 200;
    let counts = taking.take(&ahead);
    assert_eq!((counts.messages, counts.malformed), (3, 2));
    taking.take(&packet(SESSION, 4, 8));
    assert_eq!(taking.numbers(), (1..=11).collect::<Vec<_>>());
    // Whole, the largest sequence and beyond.
    let counts = taking.take(&packet(SESSION, u64::MAX, 1));
    assert_eq!(counts.malformed, 3);
    for short in 0..HEADER_BYTES {
        taking.take(&packet(SESSION, 12, 1)[..short]);
    }
    assert_eq!(taking.receiver.counts().malformed, 3 + HEADER_BYTES as u64);
}

#[test]
fn the_largest_datagrams_are_read() {
    let mut taking = taking();
    let mut bytes = header(1, 32_743).to_bytes().to_vec();
    bytes.resize(HEADER_BYTES + 2 * 32_743, 0);
    assert_eq!(bytes.len(), 65_506);
    let counts = taking.take(&bytes);
    assert_eq!((counts.messages, counts.malformed), (32_743, 0));
    let mut one = header(32_744, 1).to_bytes().to_vec();
    one.extend(65_485_u16.to_be_bytes());
    one.resize(65_507, 7);
    taking.take(&one);
    assert_eq!(taking.seen.last().map(|(n, bytes)| (*n, bytes.len())), Some((32_744, 65_485)));
}

/// Packets of a stream, most of them damaged, on the line and where answers come to.
#[test]
fn no_bytes_break_a_receiver() {
    let mut random = Random::new(9);
    for _ in 0..20 {
        let (store_bytes, gaps_max) = (4096, 64);
        let options = ReceiverOptions { store_bytes, gaps_max, ..ReceiverOptions::default() };
        let mut receiver = Receiver::new(options).unwrap();
        let mut next = None;
        let mut handler = |event: Event<'_>| {
            match event {
                Event::Joined { next: first, .. } => next = Some(first),
                Event::Message { sequence, .. } => {
                    assert_eq!(next, Some(sequence));
                    next = Some(sequence + 1);
                }
                Event::Lost { first, count } => {
                    assert_eq!(next, Some(first));
                    next = Some(first + count);
                }
                _ => {}
            }
            true
        };
        let (mut now, mut buffer) = (1, [0; CONTROL_MAX_BYTES]);
        for n in 0..2_000_u64 {
            now += random.below(1_000_000);
            let mut bytes = packet(SESSION, 1 + n + random.below(20), random.below(9) as u16);
            for _ in 0..random.below(4) {
                let at = random.below(bytes.len() as u64) as usize;
                // Most often not the session, which would only make it a foreign one.
                bytes[if at < 10 && !random.chance(0.01) { 10 + at } else { at }] =
                    random.next() as u8;
            }
            if random.chance(0.1) {
                bytes.truncate(random.below(bytes.len() as u64) as usize);
            }
            if random.chance(0.3) {
                receiver.on_answer(from(SERVER), &bytes, now, &mut handler);
            } else {
                receiver.on_datagram(0, from(SERVER), &bytes, now, &mut handler);
            }
            while let Some(transmit) = receiver.poll_transmit(now, &mut buffer) {
                assert!(matches!(transmit.to, To::Peer(_)) && transmit.bytes <= buffer.len());
            }
            receiver.deliver(&mut handler);
            assert!(receiver.held_bytes() <= store_bytes && receiver.open_gaps() <= gaps_max);
        }
        assert!(receiver.counts().malformed > 0);
    }
}
