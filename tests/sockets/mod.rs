//! Networks over the loopback interface for tests, on every back end that this host has.
//!
//! Loops that wait for a datagram give up after [`PATIENCE`], which only a datagram that never
//! comes can use up.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gapless::net::{Backend, Datagram, Datagrams, Network, SocketOptions, SocketSet};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const V4: &str = "127.0.0.1:0";
pub(crate) const V6: &str = "[::1]:0";

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The back ends to test, each with a name for messages.
pub(crate) fn backends() -> Vec<(&'static str, Backend)> {
    let mut backends = vec![("socket", Backend::Socket)];
    match Network::open(Backend::Uring) {
        Ok(_) => backends.push(("io_uring", Backend::Uring)),
        Err(error) => eprintln!("skipped for io_uring: {error}"),
    }
    backends
}

/// The loopback addresses of the families that this host has.
pub(crate) fn families() -> Vec<&'static str> {
    let have = |text: &&str| std::net::UdpSocket::bind(*text).is_ok();
    let families: Vec<&str> = [V4, V6].into_iter().filter(have).collect();
    if !families.contains(&V6) {
        eprintln!("skipped for IPv6: this host has no ::1");
    }
    families
}

pub(crate) fn for_all(test: impl Fn(Backend, &'static str)) {
    for (name, backend) in backends() {
        for family in families() {
            eprintln!("-- {name}, {family}");
            test(backend, family);
        }
    }
}

/// A network with a receiver (0) and a sender connected to it (1).
pub(crate) fn pair(backend: Backend, family: &str) -> Network {
    let mut network = Network::open(backend).unwrap();
    let room = 4 << 20;
    let receiver = SocketOptions::new(at(family)).receive_buffer_bytes(room);
    assert_eq!(network.add(&receiver).unwrap(), 0);
    let there = network.local_address(0);
    let sender = SocketOptions::new(at(family)).connect(there).send_buffer_bytes(room);
    assert_eq!(network.add(&sender).unwrap(), 1);
    network
}

/// Receives on socket 0 until `count` datagrams are there.
pub(crate) fn collect(network: &mut Network, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let started = Instant::now();
    let mut seen = Vec::new();
    while seen.len() < count {
        assert!(started.elapsed() < PATIENCE, "{} of {count} datagrams came", seen.len());
        let take = |d: Datagram<'_>| {
            assert_eq!(d.socket, 0);
            seen.push((d.source, d.bytes.to_vec()));
        };
        network.receive(SocketSet::of(0), 64, take).unwrap();
    }
    seen
}

/// Receives until nothing has come for so long that the socket has shifted down.
pub(crate) fn drain(network: &mut Network) -> usize {
    let (mut count, mut empty) = (0, 0);
    while empty < 1_000 {
        match network.receive(SocketSet::all(), 64, |_| ()).unwrap() {
            0 => empty += 1,
            got => (count, empty) = (count + got, 0),
        }
    }
    count
}

pub(crate) fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seed.wrapping_mul(31) + i * 7 + i / 251) as u8).collect()
}
