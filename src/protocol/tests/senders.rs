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
