//! Sending and receiving allocate nothing, in either gear, on any back end, once sockets are open.

mod counting;

use std::time::{Duration, Instant};

use gapless::net::{Backend, Datagrams, Network, Run, SocketOptions, SocketSet};

use counting::COUNT;

#[test]
fn nothing_is_allocated_between_send_and_receive() {
    for backend in [Backend::Socket, Backend::Uring] {
        let mut network = match Network::open(backend) {
            Ok(network) => network,
            Err(error) => {
                eprintln!("skipped: {error}");
                continue;
            }
        };
        let options = SocketOptions::new("127.0.0.1:0".parse().unwrap());
        network.add(&options.clone().receive_buffer_bytes(1 << 20)).unwrap();
        let there = network.local_address(0);
        network.add(&options.clone().connect(there)).unwrap();
        network.add(&options).unwrap();
        let bytes = [7; 32 * 500];
        let flood = Run { bytes: &bytes, segment_bytes: 500 };
        let (mut lone, mut many, started) = (0, 0, Instant::now());

        let before = COUNT.get();
        for round in 0..3_000 {
            // Lone datagrams, then floods, then lone ones again: up and down through the gears.
            let runs =
                if (1_000..2_000).contains(&round) { [flood; 2] } else { [Run::one(b"1"); 2] };
            network.send(1, None, &runs[..1]).unwrap();
            network.send(2, Some(there), &runs).unwrap();
            let (lone_out, many_out) = match round {
                0..1_000 => (3 * (round + 1), 0),
                1_000..2_000 => (3_000, 96 * (round - 999)),
                _ => (3 * (round - 999), 96_000),
            };
            while (lone, many) != (lone_out, many_out) {
                let count = |d: gapless::net::Datagram<'_>| match d.bytes.len() {
                    1 => lone += 1,
                    _ => many += 1,
                };
                if network.receive(SocketSet::all(), 64, count).unwrap() == 0 {
                    network.wait(Duration::from_secs(1)).unwrap();
                }
                assert!(started.elapsed() < Duration::from_secs(60), "datagrams are missing");
            }
        }
        assert_eq!(COUNT.get() - before, 0, "{backend:?}");
        assert!(network.notes().is_empty(), "{:?}", network.notes());
    }
}
