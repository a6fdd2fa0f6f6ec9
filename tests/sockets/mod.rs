//! Networks over the loopback interface for tests, on every back end that this host has.
//!
//! Loops that wait for a datagram give up after [`PATIENCE`], which only a datagram that never
//! comes can use up.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use gapless::net::{Backend, Datagram, Datagrams, Network, SocketOptions, SocketSet};
use nix::sched::{CloneFlags, unshare};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const V4: &str = "127.0.0.1:0";
pub(crate) const V6: &str = "[::1]:0";

pub(crate) fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// The back ends that need no interface of their own, each with a name for messages.
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

/// A test of what the kernel's sockets do, whoever asks them: on all back ends but AF_XDP.
pub(crate) fn for_sockets(test: impl Fn(Backend, &'static str)) {
    for (name, backend) in backends() {
        for family in families() {
            eprintln!("-- {name}, {family}");
            test(backend, family);
        }
    }
}

/// A test of what every back end does.
pub(crate) fn for_all(test: impl Fn(Backend, &'static str) + Sync) {
    for_sockets(&test);
    on_a_loopback(|| {
        for family in families() {
            eprintln!("-- AF_XDP, {family}");
            test(Backend::Xdp, family);
        }
    });
}

/// The same where the family does not matter.
pub(crate) fn for_each(test: impl Fn(&'static str, Backend) + Sync) {
    backends().into_iter().for_each(|(name, backend)| test(name, backend));
    on_a_loopback(|| test("AF_XDP", Backend::Xdp));
}

/// Runs a test of AF_XDP in a network namespace of its own, which has the loopback interface. Where
/// that cannot be had, says so and leaves the test out.
fn on_a_loopback(test: impl Fn() + Sync) {
    let run = || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            eprintln!("skipped for AF_XDP: no network namespace can be made here: {error}");
            return;
        }
        match Command::new("ip").args(["link", "set", "lo", "up"]).status() {
            Ok(status) => assert!(status.success(), "the loopback interface does not come up"),
            Err(error) => {
                eprintln!("skipped for AF_XDP: there is no program `ip` (iproute2): {error}");
                return;
            }
        }
        let mut network = Network::open(Backend::Xdp).unwrap();
        if let Err(error) = network.add(&options(Backend::Xdp, V4)) {
            eprintln!("skipped for AF_XDP: {error}");
            return;
        }
        let Network::Xdp(own) = &network else { panic!("{network:?}") };
        assert!(own.is_steered(0), "{:?}", own.notes());
        drop(network);
        test();
    };
    std::thread::scope(|scope| {
        if let Err(panic) = scope.spawn(run).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// A socket bound to an address of the loopback interface. AF_XDP takes that from the kernel only
/// if it is named, and leaves long runs to it unless they are not to be coalesced.
pub(crate) fn options(backend: Backend, bind: &str) -> SocketOptions {
    let options = SocketOptions::new(at(bind));
    if backend == Backend::Xdp { options.interface("lo").coalesce(false) } else { options }
}

/// What a network notes that is not as asked for. Which interfaces AF_XDP is on, it notes always.
pub(crate) fn complaints(network: &Network) -> Vec<&String> {
    network.notes().iter().filter(|note| !note.starts_with("AF_XDP on ")).collect()
}

/// A network with a receiver (0) and a sender connected to it (1).
pub(crate) fn pair(backend: Backend, family: &str) -> Network {
    let mut network = Network::open(backend).unwrap();
    let room = 4 << 20;
    let receiver = options(backend, family).receive_buffer_bytes(room);
    assert_eq!(network.add(&receiver).unwrap(), 0);
    let there = network.local_address(0);
    let sender = options(backend, family).connect(there).send_buffer_bytes(room);
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
