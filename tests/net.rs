//! Datagram I/O over the loopback interface, on every back end that this host has.
//!
//! Nothing here is timed.

mod sockets;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gapless::net::{
    Backend, Datagram, Datagrams, Direction, FaultCounters, Faults, Faulty, NetError, Network, Run,
    SocketOptions, SocketSet, SocketStatistics,
};
use sockets::{
    PATIENCE, V4, at, backends, collect, complaints, drain, for_all, for_each, for_sockets,
    options, pair, pattern,
};

#[test]
fn a_datagram_goes_there_and_the_answer_comes_back() {
    for_all(|backend, family| {
        let mut network = pair(backend, family);
        assert_eq!(network.receive(SocketSet::all(), 8, |_| panic!("nothing sent")).unwrap(), 0);
        assert_eq!(network.send(1, None, &[Run::one(b"there")]).unwrap(), 1);
        let (source, bytes) = collect(&mut network, 1).remove(0);
        assert_eq!((source, &bytes[..]), (network.local_address(1), &b"there"[..]));

        assert_eq!(network.send(0, Some(source), &[Run::one(b"back")]).unwrap(), 1);
        network.wait(PATIENCE).unwrap();
        let mut answers = Vec::new();
        while answers.is_empty() {
            let take = |d: Datagram<'_>| {
                answers.push((d.socket, d.source, d.bytes.to_vec()));
            };
            network.receive(SocketSet::of(1), 1, take).unwrap();
        }
        assert_eq!(answers, [(1, network.local_address(0), b"back".to_vec())]);
        let (receiver, sender) = (network.statistics(0), network.statistics(1));
        assert_eq!((receiver.datagrams_in, receiver.bytes_in), (1, 5));
        assert_eq!((sender.datagrams_out, sender.bytes_out), (1, 5));
        assert_eq!((receiver.datagrams_out, sender.datagrams_in), (1, 1));
        assert_eq!(
            (receiver.kernel_drops, receiver.send_failures, receiver.unreachable),
            (0, 0, 0)
        );
    });
}

#[test]
fn an_empty_datagram_is_a_datagram() {
    for_all(|backend, family| {
        let mut network = pair(backend, family);
        let runs = [Run::one(b""), Run { bytes: b"", segment_bytes: 100 }, Run::one(b"x")];
        assert_eq!(network.send(1, None, &runs).unwrap(), 3);
        let seen: Vec<_> = collect(&mut network, 3).into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(seen, [b"".to_vec(), b"".to_vec(), b"x".to_vec()]);
    });
}

#[test]
fn a_lone_datagram_costs_one_call_each_way() {
    let mut network = pair(Backend::Socket, V4);
    for round in 1..=100_u64 {
        network.send(1, None, &[Run::one(b"lone")]).unwrap();
        network.wait(PATIENCE).unwrap();
        let before = network.statistics(0).system_calls;
        assert_eq!(network.receive(SocketSet::of(0), 64, |_| ()).unwrap(), 1);
        assert_eq!(network.statistics(0).system_calls - before, 1);
        assert_eq!(network.statistics(1).system_calls, round);
        assert_eq!(network.receive(SocketSet::of(0), 64, |_| ()).unwrap(), 0);
    }
}

#[test]
fn only_wanted_sockets_are_looked_at() {
    let mut network = pair(Backend::Socket, V4);
    network.send(1, None, &[Run::one(b"wait")]).unwrap();
    network.wait(PATIENCE).unwrap();
    assert_eq!(network.receive(SocketSet::of(1), 8, |_| ()).unwrap(), 0);
    assert_eq!(network.receive(SocketSet::none(), 8, |_| ()).unwrap(), 0);
    assert_eq!(network.receive(SocketSet::of(31), 8, |_| ()).unwrap(), 0, "there is no such");
    assert_eq!(network.receive(SocketSet::none().with(0), 8, |_| ()).unwrap(), 1);
}

/// Runs of every shape arrive as the datagrams they stand for, in order, with every byte.
#[test]
fn runs_arrive_byte_for_byte() {
    for_all(|backend, family| {
        for coalesce in [true, false] {
            let mut network = Network::open(backend).unwrap();
            let options = options(backend, family).coalesce(coalesce);
            network.add(&options.clone().receive_buffer_bytes(8 << 20)).unwrap();
            let there = network.local_address(0);
            network.add(&options.connect(there)).unwrap();
            let mut round = 0;
            for segment_bytes in [1, 63, 64, 1_000, 1_408, 8_192, 30_000] {
                for pieces in [1, 2, 3, 17, 64] {
                    for last in [segment_bytes, 1, segment_bytes / 2 + 1] {
                        let len = segment_bytes * (pieces - 1) + last;
                        if len > 65_000 {
                            continue;
                        }
                        round += 1;
                        let bytes = pattern(round, len);
                        let run = Run { bytes: &bytes, segment_bytes };
                        assert_eq!(run.segments(), pieces);
                        let lone = pattern(round + 1, 100);
                        let sent = network.send(1, None, &[run, Run::one(&lone)]).unwrap();
                        assert_eq!(sent, 2);
                        let mut expected: Vec<&[u8]> = bytes.chunks(segment_bytes).collect();
                        expected.push(&lone);
                        let mut seen = collect(&mut network, expected.len());
                        if backend == Backend::Xdp {
                            // What went through the kernel, for its width or length, is overtaken.
                            expected.sort();
                            seen.sort_by(|one, other| one.1.cmp(&other.1));
                        }
                        for ((_, seen), expected) in seen.iter().zip(expected) {
                            assert!(seen == expected, "{segment_bytes} x {pieces}, last {last}");
                        }
                    }
                }
            }
            assert!(round > 60);
            assert_eq!(network.statistics(0).kernel_drops, 0);
            assert!(complaints(&network).is_empty(), "{:?}", network.notes());
        }
    });
}

/// Floods and lone datagrams in turn, so that the receiver shifts up and down, often while data is
/// under way. Each datagram says which it is; none may be lost, doubled or merged.
#[test]
fn shifting_gears_neither_loses_nor_merges() {
    for_sockets(|backend, family| {
        let mut network = pair(backend, family);
        let (mut next_out, mut next_in) = (0_u64, 0_u64);
        let started = Instant::now();
        for round in 0..60_u64 {
            let segment_bytes = [8, 24, 1_400][round as usize % 3];
            for _ in 0..(if round % 2 == 0 { 40 } else { 3 }) {
                let mut bytes = Vec::new();
                for _ in 0..[1, 5, 40][(round / 2 % 3) as usize] {
                    bytes.extend(next_out.to_le_bytes());
                    bytes.resize(bytes.len() + segment_bytes - 8, 0xEE);
                    next_out += 1;
                }
                let run = Run { bytes: &bytes, segment_bytes };
                assert_eq!(network.send(1, None, &[run]).unwrap(), 1);
                let limit = 1 + round as usize * 7 % 64;
                let check = |d: Datagram<'_>| {
                    assert_eq!(d.bytes.len(), segment_bytes, "merged or cut");
                    assert_eq!(d.bytes[..8], next_in.to_le_bytes());
                    next_in += 1;
                };
                network.receive(SocketSet::of(0), limit, check).unwrap();
            }
            while next_in < next_out {
                assert!(started.elapsed() < PATIENCE, "{next_in} of {next_out} came");
                let check = |d: Datagram<'_>| {
                    assert_eq!(d.bytes.len(), segment_bytes, "merged or cut");
                    assert_eq!(d.bytes[..8], next_in.to_le_bytes());
                    next_in += 1;
                };
                network.receive(SocketSet::of(0), 64, check).unwrap();
            }
            for _ in 0..[0, 10, 500, 5_000][round as usize % 4] {
                assert_eq!(network.receive(SocketSet::of(0), 64, |_| ()).unwrap(), 0);
            }
        }
        assert_eq!(network.statistics(0).datagrams_in, next_out);
        assert_eq!(network.statistics(0).kernel_drops, 0);
    });
}

#[test]
fn a_flood_takes_few_calls() {
    for_all(|backend, family| {
        let mut network = pair(backend, family);
        let bytes = pattern(1, 64 * 1_000);
        let runs = [Run { bytes: &bytes, segment_bytes: 1_000 }; 4];
        for _ in 0..50 {
            assert_eq!(network.send(1, None, &runs).unwrap(), 4);
            collect(&mut network, 256);
        }
        let (receiver, sender) = (network.statistics(0), network.statistics(1));
        assert_eq!(receiver.datagrams_in, 12_800);
        assert!(sender.system_calls <= 200, "{} calls", sender.system_calls);
        assert!(receiver.system_calls <= 1_600, "{} calls", receiver.system_calls);
    });
}

/// A receiver that does not read loses datagrams, and the kernel says how many.
#[test]
fn kernel_drops_are_counted() {
    for_sockets(|backend, family| {
        let mut network = Network::open(backend).unwrap();
        network.add(&options(backend, family).receive_buffer_bytes(8 << 10)).unwrap();
        let there = network.local_address(0);
        network.add(&options(backend, family).connect(there)).unwrap();
        for _ in 0..200 {
            network.send(1, None, &[Run::one(&[7; 1_000])]).unwrap();
        }
        let (mut seen, started) = (0, Instant::now());
        while seen + network.statistics(0).kernel_drops < 200 {
            assert!(started.elapsed() < PATIENCE, "{seen} came, {:?}", network.statistics(0));
            seen += drain(&mut network) as u64;
        }
        let receiver = network.statistics(0);
        assert!(receiver.kernel_drops > 0);
        assert_eq!((seen + receiver.kernel_drops, receiver.datagrams_in), (200, seen));
    });
}

/// A connected sender without a receiver: the network's answer is counted, and when a receiver
/// comes it is served. (Of what comes from 127.0.0.1 the kernel takes only what it sent itself.)
#[test]
fn nobody_there_is_not_an_error() {
    for_sockets(|backend, family| {
        let mut network = Network::open(backend).unwrap();
        // A port that is held, by a socket that takes datagrams from elsewhere only.
        let late = std::net::UdpSocket::bind(at(family)).unwrap();
        let vacant = late.local_addr().unwrap();
        late.connect(SocketAddr::new(vacant.ip(), 9)).unwrap();
        network.add(&options(backend, family)).unwrap();
        network.add(&options(backend, family).connect(vacant)).unwrap();
        for _ in 0..50 {
            assert_eq!(network.send(1, None, &[Run::one(b"hello?")]).unwrap(), 1);
            assert_eq!(network.send(1, None, &[Run::one(b"a"), Run::one(b"b")]).unwrap(), 2);
            assert_eq!(network.receive(SocketSet::of(1), 8, |_| ()).unwrap(), 0);
        }
        let started = Instant::now();
        while network.statistics(1).unreachable == 0 {
            assert!(started.elapsed() < PATIENCE, "{:?}", network.statistics(1));
            assert_eq!(network.receive(SocketSet::of(1), 8, |_| ()).unwrap(), 0);
        }
        let counted = network.statistics(1);
        assert_eq!(counted.datagrams_out + counted.send_failures, 150);
        late.connect(network.local_address(1)).unwrap();
        late.set_read_timeout(Some(PATIENCE)).unwrap();
        network.send(1, None, &[Run::one(b"welcome")]).unwrap();
        let mut room = [0; 16];
        assert_eq!(late.recv(&mut room).unwrap(), 7);
    });
}

/// By io_uring all sockets are looked at in one call.
#[test]
fn io_uring_looks_at_many_sockets_in_one_call() {
    let Ok(mut network) = Network::open(Backend::Uring) else {
        eprintln!("skipped: no io_uring here");
        return;
    };
    for _ in 0..8 {
        network.add(&SocketOptions::new(at(V4))).unwrap();
    }
    let sender = std::net::UdpSocket::bind(V4).unwrap();
    for socket in 0..8 {
        let to = network.local_address(socket);
        assert_eq!(sender.send_to(&[socket as u8; 3], to).unwrap(), 3);
    }
    let (mut seen, mut receives) = (Vec::new(), 0);
    while seen.len() < 8 {
        network.wait(PATIENCE).unwrap();
        receives += 1;
        let take = |d: Datagram<'_>| {
            assert_eq!(d.source, sender.local_addr().unwrap());
            seen.push((d.socket, d.bytes.to_vec()));
        };
        network.receive(SocketSet::all(), 64, take).unwrap();
    }
    seen.sort();
    let expected: Vec<_> = (0..8).map(|socket| (socket, vec![socket as u8; 3])).collect();
    assert_eq!(seen, expected);
    let calls: u64 = (0..8).map(|socket| network.statistics(socket).system_calls).sum();
    assert_eq!(calls, receives);
}

/// Sockets that are always busy do not keep others from being looked at. (By AF_XDP a socket is
/// looked at once in a while, until it brings something.)
#[test]
fn no_socket_starves() {
    for (_, backend) in backends() {
        let mut network = Network::open(backend).unwrap();
        let sender = std::net::UdpSocket::bind(V4).unwrap();
        for _ in 0..3 {
            network.add(&SocketOptions::new(at(V4)).receive_buffer_bytes(1 << 20)).unwrap();
        }
        let mut counts = [0; 3];
        for _ in 0..200 {
            for socket in 0..3 {
                let to = network.local_address(socket);
                for _ in 0..if socket == 0 { 2 } else { 1 } {
                    sender.send_to(b"x", to).unwrap();
                }
            }
            for _ in 0..3 {
                network.receive(SocketSet::all(), 1, |d| counts[d.socket] += 1).unwrap();
            }
        }
        assert!(counts.iter().all(|count| *count >= 150), "{counts:?}");
    }
}

/// A port is free as soon as the network that had it is gone, used or not.
#[test]
fn a_dropped_network_gives_its_ports_back() {
    for_all(|backend, family| {
        // Below what the kernel gives to those who let it choose: nobody else takes it meanwhile.
        let mut port = at(family);
        let free = |port: &u16| std::net::UdpSocket::bind((at(family).ip(), *port)).is_ok();
        let first = 20_000 + (std::process::id() % 10_000) as u16;
        port.set_port((first..32_000).find(free).unwrap());
        for _ in 0..100 {
            let mut network = Network::open(backend).unwrap();
            let socket = network.add(&options(backend, &port.to_string())).unwrap();
            network.send(socket, Some(port), &[Run::one(b"to myself")]).unwrap();
            assert_eq!(collect(&mut network, 1)[0].0, port);
        }
    });
}

/// A network may be made, used and dropped in different threads.
#[test]
fn a_network_moves_between_threads() {
    for_each(|_, backend| {
        let mut network = pair(backend, V4);
        for _ in 0..3 {
            network.send(1, None, &[Run::one(b"hop")]).unwrap();
            network = std::thread::spawn(move || {
                assert_eq!(collect(&mut network, 1)[0].1, b"hop");
                network.send(1, None, &[Run::one(b"skip"), Run::one(b"jump")]).unwrap();
                network
            })
            .join()
            .unwrap();
            let seen = collect(&mut network, 2);
            assert_eq!((&seen[0].1[..], &seen[1].1[..]), (&b"skip"[..], &b"jump"[..]));
        }
    });
}

#[test]
fn waiting_ends_with_the_datagram_or_the_time() {
    for_all(|backend, family| {
        let mut network = pair(backend, family);
        network.wait(Duration::from_millis(1)).unwrap();
        assert_eq!(network.receive(SocketSet::all(), 8, |_| ()).unwrap(), 0);
        let to = network.local_address(0);
        let thread = std::thread::spawn(move || {
            let socket = std::net::UdpSocket::bind(SocketAddr::new(to.ip(), 0)).unwrap();
            socket.send_to(b"wake", to).unwrap();
        });
        let started = Instant::now();
        while network.receive(SocketSet::all(), 8, |_| ()).unwrap() == 0 {
            assert!(started.elapsed() < PATIENCE);
            network.wait(PATIENCE).unwrap();
        }
        thread.join().unwrap();
    });
}

/// Every fault at once, at rates that leave something.
const BAD: Faults = Faults {
    loss: 0.05,
    burst: 0.002,
    burst_datagrams: 10,
    duplicate: 0.05,
    reorder: 0.05,
    reorder_by: 8,
    corrupt: 0.05,
};

/// Sends 4,000 numbered datagrams in runs over a bad line; returns what came, and the counters.
fn over_a_bad_line(
    backend: Backend,
    direction: Direction,
    seed: u64,
) -> (Vec<Vec<u8>>, FaultCounters) {
    let mut network = Faulty::new(pair(backend, V4), seed);
    // Sockets added below the faults have none; these are added through them.
    let receiver = options(backend, V4).receive_buffer_bytes(4 << 20);
    let receiver = network.add(&receiver).unwrap();
    let there = network.local_address(receiver);
    let sender = network.add(&options(backend, V4).connect(there)).unwrap();
    let bad = if direction == Direction::Send { sender } else { receiver };
    network.set(direction, SocketSet::of(bad), BAD);
    let mut seen = Vec::new();
    for round in 0..100_u64 {
        let bytes: Vec<u8> = (0..40).flat_map(|i| (round * 40 + i).to_le_bytes()).collect();
        assert_eq!(
            network.send(sender, None, &[Run { bytes: &bytes, segment_bytes: 8 }]).unwrap(),
            1
        );
        // What went out on this line is known: let it all come in before the next, so that the
        // kernel's buffer is never full.
        let out = network.statistics(sender).datagrams_out;
        let started = Instant::now();
        while network.statistics(receiver).datagrams_in < out {
            assert!(started.elapsed() < PATIENCE);
            let take = |d: Datagram<'_>| seen.push(d.bytes.to_vec());
            network.receive(SocketSet::of(receiver), 64, take).unwrap();
        }
    }
    for _ in 0..3_000 {
        let take = |d: Datagram<'_>| seen.push(d.bytes.to_vec());
        network.receive(SocketSet::of(receiver), 64, take).unwrap();
    }
    (seen, network.counters(direction, bad))
}

#[test]
fn a_bad_line_is_bad_by_its_seed() {
    for (_, backend) in backends() {
        for direction in [Direction::Receive, Direction::Send] {
            let (seen, counted) = over_a_bad_line(backend, direction, 42);
            assert_eq!(counted.entered, 4_000);
            assert!(counted.lost > 100 && counted.duplicated > 100, "{counted:?}");
            assert!(counted.reordered > 100 && counted.corrupted > 100, "{counted:?}");
            // Nothing vanishes but what is counted as lost, not even at the end.
            assert_eq!(seen.len() as u64, 4_000 - counted.lost + counted.duplicated);
            assert!(seen.iter().all(|bytes| bytes.len() == 8), "merged or cut");
            assert_eq!((seen, counted), over_a_bad_line(backend, direction, 42));
            assert_ne!(counted, over_a_bad_line(backend, direction, 43).1);
        }
    }
}

/// A network that takes one run in three and keeps what it took.
struct Narrow {
    offered: usize,
    taken: Vec<Vec<u8>>,
}

impl Datagrams for Narrow {
    fn add(&mut self, _: &SocketOptions) -> Result<usize, NetError> {
        Ok(0)
    }

    fn receive(
        &mut self,
        _: SocketSet,
        _: usize,
        _: impl FnMut(Datagram<'_>),
    ) -> Result<usize, NetError> {
        Ok(0)
    }

    fn send(
        &mut self,
        _: usize,
        _: Option<SocketAddr>,
        runs: &[Run<'_>],
    ) -> Result<usize, NetError> {
        self.offered += 1;
        if !self.offered.is_multiple_of(3) {
            return Ok(0);
        }
        let pieces = runs[0].bytes.chunks(runs[0].segment_bytes.max(1));
        self.taken.extend(pieces.map(<[u8]>::to_vec));
        Ok(1)
    }

    fn wait(&mut self, _: Duration) -> Result<(), NetError> {
        Ok(())
    }

    fn local_address(&self, _: usize) -> SocketAddr {
        at(V4)
    }

    fn statistics(&self, _: usize) -> SocketStatistics {
        SocketStatistics::default()
    }

    fn notes(&self) -> &[String] {
        &[]
    }
}

/// A lack of room below a bad line neither loses nor reorders, and is passed on to the caller.
#[test]
fn a_bad_line_passes_on_a_lack_of_room() {
    let mut network = Faulty::new(Narrow { offered: 0, taken: Vec::new() }, 5);
    network.add(&SocketOptions::new(at(V4))).unwrap();
    let faults = Faults { loss: 0.1, ..Faults::default() };
    network.set(Direction::Send, SocketSet::all(), faults);
    let (mut refused, mut sent) = (0, 0_u32);
    while sent < 600 {
        let bytes: Vec<u8> = (sent..sent + 6).flat_map(u32::to_le_bytes).collect();
        match network.send(0, None, &[Run { bytes: &bytes, segment_bytes: 4 }]).unwrap() {
            0 => refused += 1,
            _ => sent += 6,
        }
    }
    assert!(refused > 0);
    while network.send(0, None, &[Run::one(b"")]).unwrap() == 0 {}
    let counted = network.counters(Direction::Send, 0);
    assert_eq!(counted.entered, 601);
    let ranks: Vec<u32> = network
        .inner()
        .taken
        .iter()
        .map(|bytes| u32::from_le_bytes(bytes[..].try_into().unwrap()))
        .collect();
    assert!(ranks.is_sorted(), "{ranks:?}");
    assert!(ranks.len() as u64 >= 600 - counted.lost && ranks.len() < 600);
}
