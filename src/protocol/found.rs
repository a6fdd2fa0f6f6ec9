//! What the simulation and the fuzz targets found: each case in its smallest form, told in full.

use std::net::SocketAddr;

use gapless_shm::{Flags, RingOptions, Start};

use super::tests::{Pair, SESSION, Seen, receiver_address};
use super::*;

#[test]
fn what_nobody_has_does_not_stop_a_receiver_whose_gaps_are_all_in_use() {
    // To say that the first message of a gap is gone splits the gap, and there was no room.
    let options = ReceiverOptions { gaps_max: 16, store_packets: 64, ..Default::default() };
    let small = SenderOptions { datagram_bytes: 64, ..Default::default() };
    let mut pair = Pair::new(small, options);
    pair.run(5_000);
    pair.producer.try_publish_flagged(b"", Flags::LOST).unwrap();
    for n in 2..=200 {
        pair.publish(n);
    }
    for (n, (to, bytes)) in pair.sent().into_iter().enumerate() {
        if n % 2 == 1 {
            pair.receive(to, &bytes);
        }
    }
    assert_eq!(pair.receiver.open_gaps(), 15);
    pair.run(100_000_000);
    assert_eq!(pair.seen[1], Seen::Lost(1, 1));
    assert_eq!(pair.messages(), (2..=200).collect::<Vec<_>>());
}

#[test]
fn a_packet_as_large_as_the_ring_does_not_hold_the_publisher_up() {
    // Packets were kept whole as long as the next one had to be: more than the ring has.
    let (mut producer, ring) = RingOptions::new().capacity_bytes(1 << 14).heap().unwrap();
    let consumer = ring.subscribe("sender", Start::Oldest).unwrap();
    let options = SenderOptions { datagram_bytes: 60_000, ..Default::default() };
    let mut sender = Sender::new(options, SESSION, consumer, 0).unwrap();
    let mut buffer = vec![0; BURST_BYTES];
    for _ in 0..1000 {
        let mut published = 0;
        while producer.try_publish(&[0; 500]).is_ok() {
            published += 1;
        }
        assert!(published > 0);
        while sender.poll_transmit(0, &mut buffer).unwrap().is_some() {}
    }
}

#[test]
fn lost_records_alone_do_not_hold_the_publisher_up() {
    // No packet followed them, so the last one was kept, and all of them with it.
    let (mut producer, ring) = RingOptions::new().capacity_bytes(1 << 14).heap().unwrap();
    let consumer = ring.subscribe("sender", Start::Oldest).unwrap();
    let mut sender = Sender::new(SenderOptions::default(), SESSION, consumer, 0).unwrap();
    let mut buffer = vec![0; BURST_BYTES];
    for _ in 0..1000 {
        producer.try_publish_flagged(b"", Flags::LOST).expect("there is room");
        while sender.poll_transmit(0, &mut buffer).unwrap().is_some() {}
    }
}

#[test]
fn the_sender_hears_reports_though_others_are_asked_first() {
    // They went to the first server in the list.
    let server = SocketAddr::from(([10, 0, 0, 7], 7));
    let mut pair = Pair::new(SenderOptions::default(), ReceiverOptions::default());
    let options = ReceiverOptions { servers: vec![server], ..Default::default() };
    pair.receiver = Receiver::new(options).unwrap();
    pair.run(20_000); // asserts whom the receiver speaks to
    assert_eq!(pair.sender.counts().reports, 1);
    assert_eq!(pair.sender.slowest(pair.now).unwrap().address, receiver_address());
}

#[test]
fn a_line_that_was_taken_over_comes_back_while_the_other_is_busy() {
    // Silence was that of all lines together.
    let session_timeout_ns = 100_000_000;
    let options = ReceiverOptions { lines: 2, session_timeout_ns, ..Default::default() };
    let mut receiver = Receiver::new(options).unwrap();
    let address = |line, host| SocketAddr::from(([10, 0, line, host], 1));
    let bytes = Header { session: SESSION, sequence: 1, count: 0 }.to_bytes();
    let far = Header { session: SESSION, sequence: 1000, count: 0 }.to_bytes();
    let mut handler = |_: Event<'_>| true;
    receiver.on_datagram(0, address(0, 1), &bytes, 0, &mut handler);
    receiver.on_datagram(1, address(1, 9), &far, 1, &mut handler); // the first to be heard on it
    for ms in 1..=200_u64 {
        let now = ms * 1_000_000;
        receiver.on_idle(now);
        receiver.on_datagram(0, address(0, 1), &bytes, now, &mut handler);
        receiver.on_datagram(1, address(1, 1), &bytes, now, &mut handler);
    }
    assert_eq!(receiver.counts().moves, 1);
    assert!(receiver.counts().conflicts < 105);
}

/// A receiver that joined with message `next`, and has heard of those before `newest`.
fn receiver_at(next: u64, newest: u64) -> Receiver {
    let mut receiver = Receiver::new(ReceiverOptions::default()).unwrap();
    for sequence in [next, newest] {
        let bytes = Header { session: SESSION, sequence, count: mold::HEARTBEAT }.to_bytes();
        receiver.on_datagram(0, super::tests::sender_address(), &bytes, 0, &mut |_| true);
    }
    receiver
}

#[test]
fn a_cut_packet_of_the_last_numbers_there_are() {
    // What it lacked was counted from the next message on, and passed the largest number.
    let mut receiver = receiver_at(u64::MAX - 5, u64::MAX - 5);
    let bytes = Header { session: SESSION, sequence: u64::MAX - 40, count: 20 }.to_bytes();
    receiver.on_datagram(0, super::tests::sender_address(), &bytes, 0, &mut |_| true);
    assert_eq!(
        (receiver.next_sequence(), receiver.newest_sequence()),
        (u64::MAX - 5, u64::MAX - 5)
    );
    assert_eq!(receiver.counts().malformed, 1);
}

#[test]
fn the_last_numbers_there_are_can_be_asked_for() {
    // The largest request passed the largest number.
    let mut receiver = receiver_at(u64::MAX - 20, u64::MAX - 5);
    let mut buffer = [0; control::CONTROL_MAX_BYTES];
    let transmit = receiver.poll_transmit(2_000, &mut buffer).expect("a gap is due");
    let control = Control::read(&buffer[..transmit.bytes]).unwrap();
    let control::Body::Request(request) = control.body else { panic!("{control:?}") };
    assert_eq!((request.first, request.end()), (u64::MAX - 20, u64::MAX - 5));
}
