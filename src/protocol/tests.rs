//! Sender and receiver joined by a wire that the test bends: small cases, each told in full. The
//! simulation goes on from here.

mod receivers;
mod senders;

use std::net::SocketAddr;

use gapless_shm::{Consumer, Flags, Heap, Producer, RingOptions, Start};

use super::*;

pub(super) const SESSION: Session = Session(*b"TEST000001");

pub(super) fn sender_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 4000))
}

pub(super) fn receiver_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 5000))
}

/// What the handler saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    Joined(Session, u64),
    Message(u64, Vec<u8>),
    Lost(u64, u64),
    Ended(u64),
}

pub(super) struct Pair {
    pub(super) producer: Producer<Heap>,
    pub(super) sender: Sender<Heap>,
    pub(super) receiver: Receiver,
    pub(super) seen: Vec<Seen>,
    /// How many more messages the handler takes.
    room: usize,
    pub(super) now: u64,
    buffer: Vec<u8>,
}

pub(super) fn ring(capacity: u64) -> (Producer<Heap>, Consumer<Heap>) {
    let options = RingOptions::new().capacity_bytes(capacity);
    let (producer, ring) = options.heap().unwrap();
    (producer, ring.subscribe("sender", Start::Oldest).unwrap())
}

impl Pair {
    pub(super) fn new(sender: SenderOptions, receiver: ReceiverOptions) -> Self {
        let (producer, consumer) = ring(1 << 16);
        Self {
            producer,
            sender: Sender::new(sender, SESSION, consumer, 0).unwrap(),
            receiver: Receiver::new(receiver).unwrap(),
            seen: Vec::new(),
            room: usize::MAX,
            now: 0,
            buffer: vec![0; BURST_BYTES],
        }
    }

    pub(super) fn publish(&mut self, n: u64) {
        self.producer.try_publish(&n.to_be_bytes()).unwrap();
    }

    /// What the sender has to send now, datagram by datagram.
    pub(super) fn sent(&mut self) -> Vec<(To, Vec<u8>)> {
        let mut datagrams = Vec::new();
        while let Some(transmit) = self.sender.poll_transmit(self.now, &mut self.buffer).unwrap() {
            let bytes = &self.buffer[..transmit.bytes];
            let segments = bytes.chunks(transmit.segment_bytes);
            datagrams.extend(segments.map(|bytes| (transmit.to, bytes.to_vec())));
        }
        datagrams
    }

    pub(super) fn receive(&mut self, to: To, bytes: &[u8]) {
        let (seen, room) = (&mut self.seen, &mut self.room);
        let mut handler = |event: Event<'_>| {
            if let Event::Message { .. } | Event::Lost { .. } = event {
                if *room == 0 {
                    return false;
                }
                *room -= 1;
            }
            seen.push(match event {
                Event::Joined { session, next } => Seen::Joined(session, next),
                Event::Message { sequence, payload } => Seen::Message(sequence, payload.to_vec()),
                Event::Lost { first, count } => Seen::Lost(first, count),
                Event::Ended { next } => Seen::Ended(next),
            });
            true
        };
        match to {
            To::Stream => {
                self.receiver.on_datagram(0, sender_address(), bytes, self.now, &mut handler);
            }
            To::Peer(peer) => {
                assert_eq!(peer, receiver_address());
                self.receiver.on_answer(sender_address(), bytes, self.now, &mut handler);
            }
        }
        self.receiver.deliver(&mut handler);
    }

    /// Carries whatever both have to say for `ns`, in steps of 1 µs.
    pub(super) fn run(&mut self, ns: u64) {
        let end = self.now + ns;
        while self.now < end {
            self.now += 1_000;
            self.receiver.on_idle(self.now);
            for (to, bytes) in self.sent() {
                self.receive(to, &bytes);
            }
            while let Some(transmit) = self.receiver.poll_transmit(self.now, &mut self.buffer) {
                assert_eq!(transmit.to, To::Peer(sender_address()));
                let bytes = self.buffer[..transmit.bytes].to_vec();
                self.sender.on_datagram(receiver_address(), &bytes, self.now);
            }
            let (seen, room) = (&mut self.seen, &mut self.room);
            self.receiver.deliver(&mut |event| match event {
                Event::Lost { first, count } => {
                    seen.push(Seen::Lost(first, count));
                    true
                }
                Event::Message { sequence, payload } if *room > 0 => {
                    *room -= 1;
                    seen.push(Seen::Message(sequence, payload.to_vec()));
                    true
                }
                _ => false,
            });
        }
    }

    pub(super) fn messages(&self) -> Vec<u64> {
        let message = |seen: &Seen| match seen {
            Seen::Message(sequence, payload) => {
                assert_eq!(payload, &sequence.to_be_bytes());
                Some(*sequence)
            }
            _ => None,
        };
        self.seen.iter().filter_map(message).collect()
    }
}

fn pair() -> Pair {
    Pair::new(SenderOptions::default(), ReceiverOptions::default())
}

#[test]
fn a_lone_message_leaves_at_once_and_many_leave_together() {
    let mut pair = pair();
    assert_eq!(pair.sent().len(), 1, "a heartbeat says that the stream is there");
    pair.publish(1);
    let lone = pair.sent();
    assert_eq!((lone.len(), lone[0].1.len()), (1, 30));
    for n in 2..=500 {
        pair.publish(n);
    }
    let many = pair.sent();
    assert_eq!(many.len(), 4);
    assert!(many[..3].iter().all(|(_, bytes)| bytes.len() == 1470));
    for (to, bytes) in lone.into_iter().chain(many) {
        pair.receive(to, &bytes);
    }
    assert_eq!(pair.seen[0], Seen::Joined(SESSION, 1));
    assert_eq!(pair.messages(), (1..=500).collect::<Vec<_>>());
    assert_eq!(pair.sender.counts().messages, 500);
}

#[test]
fn what_is_lost_is_asked_for_and_comes() {
    let mut pair = pair();
    pair.run(10_000);
    for n in 1..=400 {
        pair.publish(n);
    }
    for (i, (to, bytes)) in pair.sent().into_iter().enumerate() {
        if i != 1 {
            pair.receive(to, &bytes);
        }
    }
    assert_eq!(pair.messages().len(), 145);
    pair.run(10_000);
    assert_eq!(pair.messages(), (1..=400).collect::<Vec<_>>());
    let counts = pair.receiver.counts();
    assert_eq!((counts.gaps, counts.missed, counts.repaired, counts.requests), (1, 145, 145, 1));
    assert_eq!((pair.receiver.open_gaps(), pair.receiver.held_bytes()), (0, 0));
    assert_eq!(pair.receiver.take_repairs().count(), 1);
}

#[test]
fn a_lost_last_message_is_missed_within_microseconds() {
    let mut pair = pair();
    pair.run(5_000);
    pair.publish(1);
    assert_eq!(pair.sent().len(), 1); // and lost
    pair.run(25_000);
    assert_eq!(pair.messages(), [1]);
}

#[test]
fn what_nobody_has_is_told_and_the_stream_goes_on() {
    let options = SenderOptions { retain_bytes: 1, ..Default::default() };
    let mut pair = Pair::new(options, ReceiverOptions::default());
    pair.run(5_000);
    for n in 1..=3000 {
        pair.publish(n);
        if n % 500 == 0 {
            let sent = pair.sent();
            if n > 500 {
                sent.into_iter().for_each(|(to, bytes)| pair.receive(to, &bytes));
            }
        }
    }
    pair.run(50_000);
    // The ring holds about the last 1,000 messages; what went before is gone.
    let Seen::Lost(1, _) = pair.seen[1] else { panic!("{:?}", &pair.seen[..3]) };
    let lost: u64 = pair.seen.iter().map(|s| if let Seen::Lost(_, n) = s { *n } else { 0 }).sum();
    let messages = pair.messages();
    assert_eq!((messages.len() as u64 + lost, messages.last()), (3000, Some(&3000)));
    assert_eq!(pair.receiver.counts().lost, lost);
}

#[test]
fn lost_records_in_the_ring_are_lost_on_the_wire_too() {
    let mut pair = pair();
    pair.run(5_000);
    pair.publish(1);
    for _ in 0..100 {
        pair.producer.try_publish_flagged(b"", Flags::LOST).unwrap();
    }
    pair.publish(102);
    pair.run(50_000);
    assert_eq!(pair.messages(), [1, 102]);
    assert!(pair.seen.contains(&Seen::Lost(2, 100)), "{:?}", pair.seen);
}

#[test]
fn a_full_handler_is_offered_the_same_message_again() {
    let mut pair = pair();
    pair.run(5_000);
    pair.room = 10;
    for n in 1..=900 {
        pair.publish(n);
    }
    pair.run(20_000);
    assert_eq!(pair.messages().len(), 10);
    pair.room = 500;
    pair.run(20_000);
    assert_eq!(pair.messages().len(), 510);
    pair.room = usize::MAX;
    pair.run(20_000);
    assert_eq!(pair.messages(), (1..=900).collect::<Vec<_>>());
}

#[test]
fn the_end_is_told_behind_the_last_message() {
    let mut pair = pair();
    pair.run(5_000);
    pair.publish(1);
    pair.publish(2);
    let lost = pair.sent();
    assert_eq!(lost.len(), 1);
    pair.sender.end(pair.now);
    pair.run(100_000);
    assert_eq!(pair.messages(), [1, 2]);
    assert_eq!(pair.seen.last(), Some(&Seen::Ended(3)));
    assert_eq!(pair.seen.iter().filter(|seen| **seen == Seen::Ended(3)).count(), 1);
}

#[test]
fn a_late_joiner_can_have_everything_that_is_held() {
    for join in [Join::Oldest, Join::Sequence(1)] {
        let mut pair =
            Pair::new(SenderOptions::default(), ReceiverOptions { join, ..Default::default() });
        for n in 1..=500 {
            pair.publish(n);
        }
        pair.sent();
        pair.run(100_000);
        assert_eq!(pair.messages(), (1..=500).collect::<Vec<_>>(), "{join:?}");
    }
}

#[test]
fn flow_control_waits_for_the_slowest() {
    let options = SenderOptions { flow: Flow::Slowest, retain_bytes: 1, ..Default::default() };
    let window_bytes = 8_000;
    let mut pair = Pair::new(options, ReceiverOptions { window_bytes, ..Default::default() });
    pair.run(10_000);
    for n in 1..=900 {
        pair.publish(n);
    }
    let burst: usize = pair.sent().iter().map(|(_, bytes)| bytes.len() + 768).sum();
    assert!((8_000..11_000).contains(&burst), "{burst}");
    assert!(pair.sender.counts().stalls > 0);
    // That burst is lost; heartbeats, repair and reports get the stream going again.
    pair.run(1_000_000);
    assert_eq!(pair.messages(), (1..=900).collect::<Vec<_>>());
    let slowest = pair.sender.slowest(pair.now).unwrap();
    assert_eq!((slowest.lag_messages, slowest.address), (0, receiver_address()));
    // A receiver that has died holds nobody up for longer than its timeout.
    for n in 901..=1700 {
        pair.publish(n);
    }
    pair.sent();
    let sent = pair.sender.next_sequence();
    assert!(sent < 1700);
    pair.now += 5_000_000_001;
    pair.sent();
    assert_eq!(pair.sender.next_sequence(), 1701);
    assert_eq!(pair.sender.receiver_counts(), (0, 1, 0));
}

/// A control packet as bytes.
pub(super) fn control(session: Session, body: control::Body<'_>) -> Vec<u8> {
    let mut buffer = vec![0; control::CONTROL_MAX_BYTES];
    let len = Control { session, body }.write(&mut buffer);
    buffer.truncate(len);
    buffer
}

fn request(first: u64, span: u32) -> Vec<u8> {
    let request = control::Request { receiver: 1, first, span, bitmap: &[] };
    control(SESSION, control::Body::Request(request))
}

#[test]
fn a_request_past_the_end_is_answered_up_to_it() {
    // What was not sent yet was called gone, which it no longer was when the refusal left: with two
    // lines, of which one was ahead, the receiver then believed both and gave it up. And it was
    // called so once for each of the four billion messages.
    let mut pair = pair();
    for n in 1..=3 {
        pair.publish(n);
    }
    pair.sent();
    pair.sender.on_datagram(receiver_address(), &request(2, u32::MAX), 0);
    let sent = pair.sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(Packet::read(&sent[0].1).unwrap().messages().count(), 2);
    // Asked for by itself it is refused, with the number that comes next.
    pair.sender.on_datagram(receiver_address(), &request(4, 7), 0);
    let sent = pair.sent();
    let refusal = Control::read(&sent[0].1).unwrap().body;
    let gone = control::Gone { first: 4, span: 7, oldest: 1, next: 4 };
    assert_eq!((sent.len(), refusal), (1, control::Body::Gone(gone)));
}

#[test]
fn answers_go_on_when_there_is_no_data() {
    // The turn that belonged to the data ended the poll, and the answer's rest had to wait for the
    // next heartbeat.
    let mut pair = pair();
    for n in 1..=100 {
        pair.publish(n);
    }
    pair.sent();
    for _ in 0..5 {
        pair.sender.on_datagram(receiver_address(), &request(1, 100), 0);
        assert_eq!(pair.sent().len(), 1);
    }
}

#[test]
fn message_0_can_be_asked_for() {
    // Zero was taken for a mistake, and all that was asked for together with it given up.
    let join = Join::Sequence(0);
    let mut pair =
        Pair::new(SenderOptions::default(), ReceiverOptions { join, ..Default::default() });
    for n in 1..=300 {
        pair.publish(n);
    }
    pair.sent();
    pair.run(50_000);
    assert_eq!(pair.messages(), (1..=300).collect::<Vec<_>>());
    assert_eq!(pair.seen[1], Seen::Lost(0, 1));
}

#[test]
fn the_end_stands_behind_what_flow_control_holds_back() {
    // It was told in front of it, and the sender was done before it had sent all.
    let flow = Flow::Quorum(1);
    let mut pair =
        Pair::new(SenderOptions { flow, ..Default::default() }, ReceiverOptions::default());
    pair.publish(1);
    pair.sender.end(0);
    let first = pair.sent();
    assert_eq!(first.len(), 1);
    assert_eq!(Header::read(&first[0].1).unwrap().count, mold::HEARTBEAT);
    pair.now += 1_500_000_000;
    pair.sent();
    assert!(!pair.sender.is_done(pair.now));
    pair.run(50_000_000);
    assert_eq!(pair.seen.last(), Some(&Seen::Ended(2)));
    assert_eq!(pair.messages(), [1]);
    pair.now += 1_000_000_000;
    assert!(pair.sender.is_done(pair.now));
}

#[test]
fn the_silent_are_forgotten_in_time_whatever_the_heartbeats() {
    // They were at heartbeats only, of which there are none while data flows; the timeout that the
    // sender gave had passed, and a driver that slept until then would not have slept.
    let options = SenderOptions { receiver_timeout_ns: 1_000_000, ..Default::default() };
    let mut pair = Pair::new(options, ReceiverOptions::default());
    pair.run(20_000);
    assert_eq!(pair.sender.receiver_counts().0, 1);
    for n in 1..=200 {
        pair.now += 10_000;
        pair.publish(n);
        pair.sent();
        assert!(pair.sender.timeout() > pair.now);
    }
    assert_eq!(pair.sender.receiver_counts(), (0, 1, 0));
}

#[test]
fn a_stream_that_has_run_far_ahead_is_caught_up_with() {
    // Every packet was too far ahead, for ever.
    let options = ReceiverOptions { ahead_max_messages: 100, ..Default::default() };
    let mut pair = Pair::new(SenderOptions::default(), options);
    pair.run(5_000);
    for n in 1..=900 {
        pair.publish(n);
    }
    pair.sent(); // and lost
    pair.run(30_000_000);
    assert_eq!(pair.messages(), (1..=900).collect::<Vec<_>>());
}

#[test]
fn what_is_still_coming_is_not_given_up() {
    // A gap that took longer to fill than the time to give up was given up half filled.
    let options = ReceiverOptions {
        give_up_ns: 200_000,
        retry_ns: 50_000,
        request_max_messages: 1,
        report_ns: 0,
        ..Default::default()
    };
    let mut pair = Pair::new(SenderOptions::default(), options);
    pair.run(5_000);
    for n in 1..=900 {
        pair.publish(n);
    }
    pair.sent(); // and lost
    let start = pair.now;
    while pair.messages().len() < 900 && pair.now < start + 1_000_000_000 {
        pair.sent(); // an answer that is lost
        pair.now += 100_000;
        pair.run(3_000);
    }
    assert!(pair.now > start + 5_000_000, "it should take longer than that");
    assert_eq!(pair.messages(), (1..=900).collect::<Vec<_>>());
}

#[test]
fn a_handler_that_takes_nothing_for_long_loses_nothing() {
    // What came and could not be kept counted as missing, and was given up.
    let options =
        ReceiverOptions { give_up_ns: 1_000_000, store_bytes: 4096, ..Default::default() };
    let mut pair = Pair::new(SenderOptions::default(), options);
    pair.run(5_000);
    pair.room = 0;
    for n in 1..=900 {
        pair.publish(n);
    }
    pair.run(20_000_000);
    pair.room = usize::MAX;
    pair.run(20_000_000);
    assert_eq!(pair.messages(), (1..=900).collect::<Vec<_>>());
}

#[test]
fn a_stream_that_ends_sooner_than_was_said_leaves_no_hole() {
    // Blocks on both sides of the end were dropped, and nobody asked for their first half again.
    let mut pair = pair();
    pair.run(5_000);
    for n in 1..=100 {
        pair.publish(n);
        if n == 10 {
            pair.sent(); // and lost
        }
    }
    let (to, packet) = pair.sent().remove(0);
    pair.receive(to, &packet);
    let far = Header { session: SESSION, sequence: 1 << 20, count: 0 };
    pair.receive(To::Stream, &far.to_bytes());
    // An answer from when the sender had sent the first half of that packet.
    let gone = control::Gone { first: 200, span: 1, oldest: 1, next: 50 };
    let gone = control(SESSION, control::Body::Gone(gone));
    pair.receive(To::Peer(receiver_address()), &gone);
    assert_eq!(pair.receiver.newest_sequence(), 101);
    pair.run(50_000);
    assert_eq!(pair.messages(), (1..=100).collect::<Vec<_>>());
}

#[test]
fn a_session_that_was_only_silent_goes_on_where_it_was() {
    // One stray packet during a silence, and the stream was never taken up again.
    let mut pair = pair();
    pair.run(5_000);
    pair.publish(1);
    pair.run(5_000);
    pair.now += 3_000_000_000;
    let stray = Header { session: Session(*b"STRAY     "), sequence: 7, count: 0 }.to_bytes();
    let stranger = SocketAddr::from(([10, 0, 0, 9], 9));
    let seen = &mut pair.seen;
    let mut handler = |event: Event<'_>| {
        if let Event::Joined { session, next } = event {
            seen.push(Seen::Joined(session, next));
        }
        true
    };
    pair.receiver.on_idle(pair.now);
    pair.receiver.on_datagram(0, stranger, &stray, pair.now, &mut handler);
    // A session that follows is asked where it begins; while nobody says so, it gives way.
    pair.now += 3_000_000_000;
    pair.publish(2);
    pair.run(50_000);
    assert_eq!(pair.messages(), [1, 2]);
    assert_eq!(pair.seen.last(), Some(&Seen::Message(2, 2_u64.to_be_bytes().to_vec())));
    assert!(pair.seen.contains(&Seen::Joined(SESSION, 2)), "{:?}", pair.seen);
}

#[test]
fn strangers_neither_answer_nor_take_the_stream_over() {
    let mut pair = pair();
    pair.run(5_000);
    let mut forged = Header { session: SESSION, sequence: 1, count: 1 }.to_bytes().to_vec();
    forged.extend(b"\0\x03bad");
    let stranger = SocketAddr::from(([10, 0, 0, 9], 4000));
    let mut handler = |event: Event<'_>| panic!("{event:?}");
    pair.receiver.on_answer(stranger, &forged, pair.now, &mut handler);
    pair.receiver.on_datagram(0, stranger, &forged, pair.now, &mut handler);
    let counts = pair.receiver.counts();
    assert_eq!((counts.foreign, counts.conflicts, counts.moves), (1, 1, 0));
    pair.publish(1);
    pair.run(5_000);
    assert_eq!(pair.messages(), [1]);
}

#[test]
fn a_window_for_nothing_is_refused() {
    // A report was always due: polling never ended.
    let options = ReceiverOptions { window_bytes: 0, ..Default::default() };
    assert!(Receiver::new(options).is_err_and(|error| error.option == "window_bytes"));
}

#[test]
fn a_sender_that_starts_in_the_future_numbers_its_messages_right() {
    let (mut producer, ring) = RingOptions::new().capacity_bytes(1 << 16).heap().unwrap();
    let consumer = ring.subscribe("sender", Start::Sequence(5)).unwrap();
    let mut pair = pair();
    pair.sender = Sender::new(SenderOptions::default(), SESSION, consumer, 0).unwrap();
    for n in 1..=6_u64 {
        producer.try_publish(&n.to_be_bytes()).unwrap();
    }
    pair.run(5_000);
    assert_eq!(pair.messages(), [5, 6]);
}

#[test]
fn the_last_of_a_packet_is_held_when_its_first_is_overwritten() {
    let mut pair = pair();
    for n in 1..=140 {
        pair.publish(n); // one packet
    }
    pair.sent();
    let mut next = 141;
    while pair.sender.consumer().find(1).is_some() || pair.sender.consumer().find(100).is_none() {
        pair.publish(next);
        pair.sent();
        next += 1;
        assert!(next < 2000);
    }
    let held = pair.sender.consumer().find(140).is_some();
    pair.sender.on_datagram(receiver_address(), &request(140, 1), pair.now);
    let answer = pair.sent().remove(0).1;
    assert_eq!(held, Packet::read(&answer).is_ok_and(|packet| packet.messages().count() == 1));
    assert!(held);
}
