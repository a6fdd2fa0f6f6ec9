//! Sender and receiver joined by a wire that the test bends: small cases, each told in full. The
//! simulation goes on from here.

use std::net::SocketAddr;

use gapless_shm::{Consumer, Flags, Heap, Producer, RingOptions, Start};

use super::*;

const SESSION: Session = Session(*b"TEST000001");

fn sender_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 4000))
}

fn receiver_address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 2], 5000))
}

/// What the handler saw.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Joined(Session, u64),
    Message(u64, Vec<u8>),
    Lost(u64, u64),
    Ended(u64),
}

struct Pair {
    producer: Producer<Heap>,
    sender: Sender<Heap>,
    receiver: Receiver,
    seen: Vec<Seen>,
    /// How many more messages the handler takes.
    room: usize,
    now: u64,
    buffer: Vec<u8>,
}

fn ring(capacity: u64) -> (Producer<Heap>, Consumer<Heap>) {
    let options = RingOptions::new().capacity_bytes(capacity);
    let (producer, ring) = options.heap().unwrap();
    (producer, ring.subscribe("sender", Start::Oldest).unwrap())
}

impl Pair {
    fn new(sender: SenderOptions, receiver: ReceiverOptions) -> Self {
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

    fn publish(&mut self, n: u64) {
        self.producer.try_publish(&n.to_be_bytes()).unwrap();
    }

    /// What the sender has to send now, datagram by datagram.
    fn sent(&mut self) -> Vec<(To, Vec<u8>)> {
        let mut datagrams = Vec::new();
        while let Some(transmit) = self.sender.poll_transmit(self.now, &mut self.buffer).unwrap() {
            let bytes = &self.buffer[..transmit.bytes];
            let segments = bytes.chunks(transmit.segment_bytes);
            datagrams.extend(segments.map(|bytes| (transmit.to, bytes.to_vec())));
        }
        datagrams
    }

    fn receive(&mut self, to: To, bytes: &[u8]) {
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
    fn run(&mut self, ns: u64) {
        let end = self.now + ns;
        while self.now < end {
            self.now += 1_000;
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

    fn messages(&self) -> Vec<u64> {
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
