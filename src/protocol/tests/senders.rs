//! What a sender must not do, whatever is asked of it: each case in its smallest form.

use super::*;

/// A second peer of the sender.
fn peer(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, n], 5000))
}

#[test]
fn a_publisher_of_batches_is_never_stuck_behind_its_own_history() {
    // What was kept in the ring reached up to a packet's start, and no packet followed.
    for (capacity, datagram_bytes) in
        [(1 << 12, 1472), (1 << 14, 1472), (1 << 16, 60_000), (1 << 18, 60_000)]
    {
        let (mut producer, consumer) = ring(capacity);
        let retain_bytes = capacity; // as much as it may
        let options = SenderOptions { datagram_bytes, retain_bytes, ..Default::default() };
        let mut sender = Sender::new(options, SESSION, consumer, 0).unwrap();
        let mut buffer = vec![0; BURST_BYTES];
        for _ in 0..2_000 {
            let batch = (0..50).take_while(|_| producer.try_publish(b"8 bytes.").is_ok()).count();
            assert_ne!(batch, 0, "{capacity} {datagram_bytes}");
            while sender.poll_transmit(0, &mut buffer).unwrap().is_some() {}
        }
    }
}

#[test]
fn the_longest_message_finds_room_in_front_of_what_is_kept() {
    let options = RingOptions::new().capacity_bytes(1 << 12).max_message_bytes(1900);
    let (mut producer, ring) = options.heap().unwrap();
    let consumer = ring.subscribe("sender", Start::Oldest).unwrap();
    let options = SenderOptions { datagram_bytes: 4000, ..Default::default() };
    let mut sender = Sender::new(options, SESSION, consumer, 0).unwrap();
    let mut buffer = vec![0; BURST_BYTES];
    for len in (0..=1900).cycle().step_by(379).take(2_000) {
        producer.try_publish(&vec![0; len]).unwrap();
        while sender.poll_transmit(0, &mut buffer).unwrap().is_some() {}
    }
}

fn solicit() -> Vec<u8> {
    control(SESSION, control::Body::Solicit { receiver: 1 })
}

fn report(receiver: u64, next: u64, window_bytes: u32) -> Vec<u8> {
    let name = [0; control::NAME_MAX_BYTES];
    let (newest, missed, durable) = (next, 0, None);
    let report = control::Report { receiver, next, newest, missed, window_bytes, name, durable };
    control(SESSION, control::Body::Report(report))
}

/// A report by a receiver that has `next - 1` messages, of which those of `run` are durable.
fn durable_report(receiver: u64, next: u64, run: [u64; 2]) -> Vec<u8> {
    let name = [0; control::NAME_MAX_BYTES];
    let (newest, missed, window_bytes) = (next, 0, 1 << 20);
    let durable = Some(Durable { first: run[0], last: run[1] });
    let report = control::Report { receiver, next, newest, missed, window_bytes, name, durable };
    control(SESSION, control::Body::Report(report))
}

fn bitmap(first: u64, wanted: &[u64]) -> Vec<u8> {
    let mut bytes = [0];
    for sequence in wanted {
        bytes[0] |= 1 << (sequence - first);
    }
    let request = control::Request { receiver: 1, first, span: 8, bitmap: &bytes };
    control(SESSION, control::Body::Request(request))
}

impl Pair {
    /// The next burst of the sender.
    fn burst(&mut self) -> Option<(To, Vec<u8>)> {
        let transmit = self.sender.poll_transmit(self.now, &mut self.buffer).unwrap()?;
        Some((transmit.to, self.buffer[..transmit.bytes].to_vec()))
    }

    /// Publishes and sends for as long as there is room; returns how many messages.
    fn fill(&mut self) -> u64 {
        let mut count = 0;
        while self.producer.try_publish(&[0; 100]).is_ok() {
            count += 1;
            self.sent();
            assert!(count < 10_000, "nothing holds the publisher up");
        }
        count
    }
}

#[test]
fn questions_leave_data_and_repair_their_turns() {
    // They were answered first of all.
    let mut pair = pair();
    let (mut data, mut repairs) = (0, 0);
    for round in 0..20_u64 {
        pair.publish(round + 1);
        let transmit = pair.burst().unwrap();
        data += u32::from(transmit.0 == To::Stream);
        for _ in 0..4 {
            pair.sender.on_datagram(peer(1), &solicit(), pair.now);
        }
        pair.sender.on_datagram(peer(2), &request(1, 1), pair.now);
        for _ in 0..4 {
            let Some((to, _)) = pair.burst() else { break };
            data += u32::from(to == To::Stream);
            repairs += u32::from(to == To::Peer(peer(2)));
        }
    }
    assert!(data >= 20, "{data}");
    assert!(repairs >= 10, "{repairs}");
}

#[test]
fn one_requester_does_not_hold_the_queue() {
    let mut pair = pair();
    for n in 1..=1000 {
        pair.publish(n);
    }
    pair.sent();
    for _ in 0..64 {
        pair.sender.on_datagram(peer(1), &request(1, 1000), pair.now);
    }
    assert!(pair.sender.counts().requests_refused >= 48);
    let refused = pair.sender.counts().requests_refused;
    for other in 2..=4 {
        pair.sender.on_datagram(peer(other), &request(1, 1000), pair.now);
    }
    assert_eq!(pair.sender.counts().requests_refused, refused);
    // And they are answered in turn.
    let first: Vec<_> = std::iter::from_fn(|| pair.burst()).take(4).map(|(to, _)| to).collect();
    assert_eq!(first, [1, 2, 3, 4].map(|n| To::Peer(peer(n))));
}

#[test]
fn what_was_answered_in_part_answers_nobody_else() {
    let options = SenderOptions { merge_ns: 1_000_000, ..Default::default() };
    let mut pair = Pair::new(options, ReceiverOptions::default());
    for n in 1..=20 {
        pair.publish(n);
    }
    pair.sent();
    pair.sender.on_datagram(peer(1), &bitmap(1, &[1, 8]), pair.now);
    pair.sender.on_datagram(peer(3), &bitmap(1, &[1, 8]), pair.now);
    assert_eq!(pair.sent().len(), 2, "messages 1 and 8, to everybody");
    pair.sender.on_datagram(peer(2), &request(4, 1), pair.now);
    let answer = pair.sent();
    assert_eq!(answer.len(), 1, "4 was not repeated yet");
    assert_eq!(Header::read(&answer[0].1).unwrap().sequence, 4);
}

#[test]
fn what_could_not_be_answered_answers_nobody_else() {
    let options = SenderOptions { merge_ns: 1_000_000, retain_bytes: 1, ..Default::default() };
    let mut pair = Pair::new(options, ReceiverOptions::default());
    for n in 1..=3000 {
        pair.publish(n);
        pair.sent();
    }
    assert!(pair.sender.consumer().oldest_sequence() > 1);
    for n in 1..=3 {
        pair.sender.on_datagram(peer(n), &request(1, 10), pair.now);
        let sent = pair.sent();
        let refusal = sent.iter().filter(|(_, bytes)| control::is_control(bytes)).count();
        assert_eq!(refusal, 1, "requester {n} hears nothing");
    }
}

#[test]
fn a_receiver_that_stands_still_holds_the_stream_up_no_longer_than_a_silent_one() {
    // The one has a window for nothing, the other takes nothing off the ring.
    for window in [0, 1 << 30] {
        let options = SenderOptions { flow: Flow::Slowest, ..Default::default() };
        let mut pair = Pair::new(options, ReceiverOptions::default());
        pair.publish(1);
        pair.sent();
        pair.sender.on_datagram(peer(1), &report(7, 1, window), pair.now);
        pair.fill();
        let held_at = pair.sender.next_sequence();
        let mut steps = 0;
        while pair.sender.next_sequence() < held_at + 2000 && steps < 100 {
            pair.now += 100_000_000;
            steps += 1;
            pair.sender.on_datagram(peer(1), &report(7, 1, window), pair.now);
            for _ in 0..100 {
                let _ = pair.producer.try_publish(&[0; 100]);
                pair.sent();
            }
        }
        assert!((50..100).contains(&steps), "window {window}: {steps}");
        let view = pair.sender.slowest(pair.now).unwrap();
        assert_eq!((view.id, view.next), (7, 1), "it is still seen");
        // It counts again when it has caught up.
        let next = pair.sender.next_sequence();
        pair.sender.on_datagram(peer(1), &report(7, next, 10_000), pair.now);
        pair.fill();
        assert!(pair.sender.next_sequence() < next + 100);
    }
}

#[test]
fn invented_receivers_give_their_places_up() {
    let options = SenderOptions { flow: Flow::Slowest, receivers_max: 4, ..Default::default() };
    let mut pair = Pair::new(options, ReceiverOptions::default());
    pair.publish(1);
    pair.sent();
    for _ in 0..60 {
        for id in 1..=4 {
            pair.sender.on_datagram(peer(1), &report(id, 1, 1 << 30), pair.now);
        }
        pair.now += 100_000_000;
    }
    let next = pair.sender.next_sequence();
    pair.sender.on_datagram(peer(2), &report(9, next, 10_000), pair.now);
    assert!(pair.sender.receivers(pair.now).any(|view| view.id == 9));
}

#[test]
fn data_waits_for_one_look_for_what_is_gone() {
    // A look may be a walk over a part of the ring.
    let options = SenderOptions { retain_bytes: 1, ..Default::default() };
    let mut pair = Pair::new(options, ReceiverOptions::default());
    for n in 1..=3000 {
        pair.publish(n);
        pair.sent();
    }
    let ask = Header { session: SESSION, sequence: 1, count: 1 }.to_bytes();
    for n in 1..=10 {
        pair.sender.on_datagram(peer(n), &ask, pair.now);
    }
    pair.sender.on_datagram(peer(11), &request(2990, 1), pair.now);
    for n in 1..=10 {
        assert_eq!(pair.sender.timeout(), 0, "there is more to do");
        pair.publish(n);
        assert_eq!(pair.burst().map(|(to, _)| to), Some(To::Stream));
        assert!(pair.sender.counts().gone <= n, "{n}: {}", pair.sender.counts().gone);
    }
    let answers = std::iter::from_fn(|| pair.burst()).filter(|(to, _)| *to == To::Peer(peer(11)));
    assert_eq!(answers.count(), 1);
}

#[test]
fn what_flow_control_waits_for_is_kept_though_its_packet_is_forgotten() {
    let options = SenderOptions { flow: Flow::Slowest, history_packets: 4, ..Default::default() };
    let mut pair = Pair::new(options, ReceiverOptions::default());
    pair.publish(1);
    pair.sent();
    pair.sender.on_datagram(peer(1), &report(7, 1, 1 << 30), pair.now);
    pair.fill();
    assert!(pair.sender.consumer().find(1).is_some());
    let next = pair.sender.next_sequence();
    pair.sender.on_datagram(peer(1), &report(7, next, 1 << 30), pair.now);
    assert_ne!(pair.producer.try_publish(&[0; 100]).ok(), None);
}

#[test]
fn a_hold_up_is_counted_once() {
    let options = SenderOptions { flow: Flow::Slowest, ..Default::default() };
    let mut pair = Pair::new(options, ReceiverOptions::default());
    pair.publish(1);
    pair.sent();
    pair.sender.on_datagram(peer(1), &report(7, 2, 1), pair.now);
    for stalls in 1..=3 {
        for n in 0..2 {
            pair.publish(n);
            pair.sent();
        }
        for _ in 0..100 {
            pair.sent();
        }
        assert_eq!(pair.sender.counts().stalls, stalls);
        let next = pair.sender.next_sequence();
        pair.sender.on_datagram(peer(1), &report(7, next, 1), pair.now);
        pair.sent();
        let next = pair.sender.next_sequence();
        pair.sender.on_datagram(peer(1), &report(7, next, 1), pair.now);
    }
}

#[test]
fn what_is_durable_on_k_hosts_never_becomes_less() {
    let options = SenderOptions { receiver_timeout_ns: 1_000_000, ..Default::default() };
    let mut pair = Pair::new(options, ReceiverOptions::default());
    for n in 1..=100 {
        pair.publish(n);
    }
    assert_eq!(pair.sender.stable_sequence(0), 0, "nothing was sent");
    pair.sent();
    let stable = |pair: &mut Pair| [0, 1, 2, 3].map(|k| pair.sender.stable_sequence(k));
    assert_eq!(stable(&mut pair), [100, 0, 0, 0]);
    for (receiver, run) in [(1, [1, 40]), (2, [1, 60]), (3, [1, 1000]), (4, [7, 3])] {
        pair.sender.on_datagram(peer(1), &durable_report(receiver, 101, run), pair.now);
    }
    assert_eq!(stable(&mut pair), [100, 100, 60, 40]);
    // One that was overtaken, one of a peer that says nothing of it, and the own host's.
    pair.sender.on_datagram(peer(1), &durable_report(2, 90, [1, 50]), pair.now);
    pair.sender.on_datagram(peer(1), &report(1, 101, 1 << 20), pair.now);
    pair.sender.set_local_durable(1, 50);
    assert_eq!(stable(&mut pair), [100, 100, 60, 50]);
    // All leave, and one comes back that has less.
    pair.now += 2_000_000;
    pair.sent();
    assert_eq!(pair.sender.receiver_counts().0, 0);
    pair.sender.on_datagram(peer(1), &durable_report(2, 101, [1, 30]), pair.now);
    assert_eq!(stable(&mut pair), [100, 100, 60, 50]);
    assert!(pair.sender.is_stable(60, 2) && !pair.sender.is_stable(61, 2));
    assert!(pair.sender.is_stable(100, 1) && !pair.sender.is_stable(101, 0));
}

#[test]
fn a_receiver_says_what_is_durable_and_no_more_often_than_needed() {
    let mut pair = pair();
    pair.run(5_000);
    for n in 1..=100 {
        pair.publish(n);
    }
    pair.run(100_000_000); // reports rest by now
    pair.receiver.set_durable(1, 70);
    pair.run(5_000);
    assert_eq!(pair.sender.stable_sequence(1), 70, "at once");
    let reports = pair.receiver.counts().reports;
    for step in 0..20_000 {
        pair.receiver.set_durable(1, 71 + step / 700);
        pair.run(1_000);
    }
    assert!(pair.receiver.counts().reports <= reports + 21);
    pair.run(1_000_000);
    assert_eq!(pair.sender.stable_sequence(1), 99);
    // What it did not hand over is nothing that it has.
    pair.receiver.set_durable(1, 5000);
    pair.receiver.set_durable(1, 80);
    assert_eq!(pair.receiver.durable(), Some(Durable { first: 1, last: 100 }));
    pair.run(2_000_000);
    assert_eq!(pair.sender.stable_sequence(1), 100);
    let view = pair.sender.receivers(pair.now).next().unwrap();
    assert_eq!(view.durable, Some(Durable { first: 1, last: 100 }));
}

#[test]
fn what_is_durable_of_one_session_is_not_of_the_next() {
    let mut pair = pair();
    pair.run(5_000);
    pair.publish(1);
    pair.run(5_000);
    pair.receiver.set_durable(1, 1);
    assert!(pair.receiver.durable().is_some());
    let next = Session(*b"TEST000002");
    let header = Header { session: next, sequence: 5, count: mold::HEARTBEAT }.to_bytes();
    pair.receive(To::Stream, &header);
    pair.receiver.set_durable(1, 1); // its beginning is not known yet
    let servers = [None; control::SERVERS_MAX];
    let body = control::Advertisement { oldest: 5, next: 5, ended: false, servers };
    let answer = control(next, control::Body::Advertisement(body));
    pair.receive(To::Peer(receiver_address()), &answer);
    assert_eq!((pair.receiver.session(), pair.receiver.durable()), (Some(next), None));
}

#[test]
fn the_sender_hears_what_is_durable_though_others_repeat() {
    let options =
        ReceiverOptions { servers: vec![peer(9)], ask_source: false, ..Default::default() };
    let mut receiver = Receiver::new(options).unwrap();
    let bytes = Header { session: SESSION, sequence: 8, count: mold::HEARTBEAT }.to_bytes();
    receiver.on_datagram(0, sender_address(), &bytes, 0, &mut |_| true);
    let mut buffer = [0; control::CONTROL_MAX_BYTES];
    let mut told = |receiver: &mut Receiver, now| receiver.poll_transmit(now, &mut buffer);
    assert_eq!(told(&mut receiver, 0).unwrap().to, To::Peer(peer(9)));
    receiver.set_durable(1, 7);
    assert_eq!(told(&mut receiver, 1_000_000).unwrap().to, To::Peer(sender_address()));
    assert_eq!(told(&mut receiver, 1_000_000), None);
}
