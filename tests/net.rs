//! Datagram I/O over the loopback interface, on every back end that this host has.
//!
//! Nothing here is timed. Loops that wait for a datagram give up after [`PATIENCE`], which only a
//! datagram that never comes can use up.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use gapless::net::{
    Backend, Datagram, Datagrams, Direction, FaultCounters, Faults, Faulty, Interface, NetError,
    Network, Run, SocketOptions, SocketSet, SocketStatistics,
};

const PATIENCE: Duration = Duration::from_secs(20);
const V4: &str = "127.0.0.1:0";
const V6: &str = "[::1]:0";

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The back ends to test, each with a name for messages.
fn backends() -> Vec<(&'static str, Backend)> {
    let mut backends = vec![("socket", Backend::Socket)];
    match Network::open(Backend::Uring) {
        Ok(_) => backends.push(("io_uring", Backend::Uring)),
        Err(error) => eprintln!("skipped for io_uring: {error}"),
    }
    backends
}

/// The loopback addresses of the families that this host has.
fn families() -> Vec<&'static str> {
    let have = |text: &&str| std::net::UdpSocket::bind(*text).is_ok();
    let families: Vec<&str> = [V4, V6].into_iter().filter(have).collect();
    if !families.contains(&V6) {
        eprintln!("skipped for IPv6: this host has no ::1");
    }
    families
}

fn for_all(test: impl Fn(Backend, &'static str)) {
    for (name, backend) in backends() {
        for family in families() {
            eprintln!("-- {name}, {family}");
            test(backend, family);
        }
    }
}

/// A network with a receiver (0) and a sender connected to it (1).
fn pair(backend: Backend, family: &str) -> Network {
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
fn collect(network: &mut Network, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
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
fn drain(network: &mut Network) -> usize {
    let (mut count, mut empty) = (0, 0);
    while empty < 1_000 {
        match network.receive(SocketSet::all(), 64, |_| ()).unwrap() {
            0 => empty += 1,
            got => (count, empty) = (count + got, 0),
        }
    }
    count
}

fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seed.wrapping_mul(31) + i * 7 + i / 251) as u8).collect()
}

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
            let options = SocketOptions::new(at(family)).coalesce(coalesce);
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
                        let seen = collect(&mut network, expected.len());
                        for ((_, seen), expected) in seen.iter().zip(expected) {
                            assert!(seen == expected, "{segment_bytes} x {pieces}, last {last}");
                        }
                    }
                }
            }
            assert!(round > 60);
            assert_eq!(network.statistics(0).kernel_drops, 0);
            assert!(network.notes().is_empty(), "{:?}", network.notes());
        }
    });
}

/// Floods and lone datagrams in turn, so that the receiver shifts up and down, often while data is
/// under way. Each datagram says which it is; none may be lost, doubled or merged.
#[test]
fn shifting_gears_neither_loses_nor_merges() {
    for_all(|backend, family| {
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
    for_all(|backend, family| {
        let mut network = Network::open(backend).unwrap();
        network.add(&SocketOptions::new(at(family)).receive_buffer_bytes(8 << 10)).unwrap();
        let there = network.local_address(0);
        network.add(&SocketOptions::new(at(family)).connect(there)).unwrap();
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
/// comes it is served.
#[test]
fn nobody_there_is_not_an_error() {
    for_all(|backend, family| {
        let mut network = Network::open(backend).unwrap();
        // A port that is held, by a socket that takes datagrams from elsewhere only.
        let late = std::net::UdpSocket::bind(at(family)).unwrap();
        let vacant = late.local_addr().unwrap();
        late.connect(SocketAddr::new(vacant.ip(), 9)).unwrap();
        network.add(&SocketOptions::new(at(family))).unwrap();
        network.add(&SocketOptions::new(at(family)).connect(vacant)).unwrap();
        for _ in 0..50 {
            assert_eq!(network.send(1, None, &[Run::one(b"hello?")]).unwrap(), 1);
            assert_eq!(network.send(1, None, &[Run::one(b"a"), Run::one(b"b")]).unwrap(), 2);
            assert_eq!(network.receive(SocketSet::of(1), 8, |_| ()).unwrap(), 0);
        }
        let counted = network.statistics(1);
        assert!(counted.unreachable > 0);
        assert_eq!(counted.datagrams_out + counted.send_failures, 150);
        late.connect(network.local_address(1)).unwrap();
        late.set_read_timeout(Some(PATIENCE)).unwrap();
        network.send(1, None, &[Run::one(b"welcome")]).unwrap();
        let mut room = [0; 16];
        assert_eq!(late.recv(&mut room).unwrap(), 7);
    });
}

/// The names of this host's interfaces, loopback first.
fn interfaces() -> Vec<String> {
    let nowhere = SocketOptions::new(at(V4)).interface("no such interface");
    let error = Network::open(Backend::Socket).unwrap().add(&nowhere).unwrap_err();
    let NetError::InterfaceMissing { available, .. } = error else { panic!("{error}") };
    let mut names: Vec<String> =
        available.iter().map(|text| text.split(' ').next().unwrap().to_owned()).collect();
    names.sort_by_key(|name| (name != "lo", name.clone()));
    names.dedup();
    names
}

/// Multicast within this host by one interface: each socket that joined gets each datagram, others
/// get none. The error is why this host cannot do that.
fn multicast(
    backend: Backend,
    interface: &str,
    group: &str,
    source: Option<IpAddr>,
) -> Result<(), String> {
    let mut network = Network::open(backend).unwrap();
    let group = ip(group);
    let base = |bind| SocketOptions::new(bind).interface(interface).reuse(true);
    let receiver = |bind| base(bind).receive_buffer_bytes(8 << 20).join(group).source(source);
    let why = |error: NetError| error.to_string();
    let joined = network.add(&receiver(SocketAddr::new(group, 0))).map_err(why)?;
    let to = network.local_address(joined);
    let second = network.add(&receiver(to)).unwrap();
    let any = if to.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
    let elsewhere = if to.is_ipv4() { ip("239.255.77.9") } else { ip("ff05::7709") };
    let other = base(SocketAddr::new(any, to.port())).join(elsewhere);
    let other = network.add(&other).map_err(why)?;
    let bind = if interface == "lo" && to.is_ipv4() { ip("127.0.0.1") } else { any };
    let out = base(SocketAddr::new(bind, 0)).connect(to).ttl(1);
    let out = network.add(&out).map_err(why)?;

    let bytes = pattern(9, 40 * 1_000);
    let run = Run { bytes: &bytes, segment_bytes: 1_000 };
    let started = Instant::now();
    for run in [Run::one(b"lone"), run].into_iter().cycle().take(20) {
        // A real device takes its time, and the kernel has no room meanwhile.
        while network.send(out, None, &[run]).unwrap() == 0 {
            assert!(started.elapsed() < PATIENCE, "no room to send");
        }
    }
    if network.statistics(out).send_failures > 0 {
        return Err(format!("{interface} has no route to {to}"));
    }
    let mut seen = vec![Vec::new(); 4];
    let source = network.local_address(out);
    while [joined, second].iter().any(|socket| seen[*socket].len() < 410) {
        assert!(started.elapsed() < PATIENCE, "{}, {}", seen[joined].len(), seen[second].len());
        let take = |d: Datagram<'_>| {
            assert_eq!((d.source.ip(), d.source.port()), (source.ip(), source.port()));
            seen[d.socket].push(d.bytes.to_vec());
        };
        network.receive(SocketSet::all(), 64, take).unwrap();
    }
    let mut expected = vec![b"lone".to_vec()];
    expected.extend(bytes.chunks(1_000).map(<[u8]>::to_vec));
    for socket in [joined, second] {
        assert_eq!(seen[socket].len(), 410);
        assert!(seen[socket].chunks(41).all(|chunk| chunk == expected));
    }
    assert!(seen[other].is_empty(), "a socket got a group that it did not join");
    Ok(())
}

/// On the first interface that can; that none can is told, and fails only where one must.
#[test]
fn multicast_reaches_who_joined() {
    for (name, backend) in backends() {
        for (group, source) in [
            ("239.255.77.1", None),
            ("232.1.77.1", Some(ip("127.0.0.1"))),
            ("ff05::7701", None),
            ("ff02::7701", None),
        ] {
            let able = interfaces().into_iter().find(|interface| {
                match multicast(backend, interface, group, source) {
                    Ok(()) => true,
                    Err(error) => {
                        eprintln!("{name}, {group} on {interface}: cannot: {error}");
                        false
                    }
                }
            });
            match &able {
                Some(interface) => eprintln!("{name}, {group} on {interface}: passed"),
                None => eprintln!("{name}, {group}: skipped: no interface can"),
            }
            // Any Linux does IPv4 multicast on lo; IPv6 needs an interface with a route.
            assert!(able.is_some() || group.contains(':'));
        }
    }
}

/// A source-specific join takes from that source only.
#[test]
fn a_source_filter_keeps_others_out() {
    for (_, backend) in backends() {
        let mut network = Network::open(backend).unwrap();
        let group = ip("232.1.77.3");
        let feed = SocketOptions::new(SocketAddr::new(group, 0)).interface("lo").join(group);
        network.add(&feed.source(ip("127.0.0.2"))).unwrap();
        let to = network.local_address(0);
        for bind in ["127.0.0.3:0", "127.0.0.2:0"] {
            network.add(&SocketOptions::new(at(bind)).connect(to).interface("127.0.0.1")).unwrap();
        }
        network.send(1, None, &[Run::one(b"stranger")]).unwrap();
        network.send(2, None, &[Run::one(b"friend")]).unwrap();
        assert_eq!(collect(&mut network, 1)[0].1, b"friend");
        assert_eq!(drain(&mut network), 0);
    }
}

#[test]
fn loopback_of_multicast_can_be_off() {
    for (_, backend) in backends() {
        let mut network = Network::open(backend).unwrap();
        let group = ip("239.255.77.4");
        let feed = SocketOptions::new(SocketAddr::new(group, 0)).interface("eth0").join(group);
        if let Err(error) = network.add(&feed) {
            eprintln!("skipped: {error}");
            return;
        }
        let to = network.local_address(0);
        let out = SocketOptions::new(at("0.0.0.0:0")).connect(to).interface("eth0").ttl(0);
        network.add(&out.clone().multicast_loopback(false)).unwrap();
        network.add(&out).unwrap();
        network.send(1, None, &[Run::one(b"for others")]).unwrap();
        network.send(2, None, &[Run::one(b"for all")]).unwrap();
        assert_eq!(collect(&mut network, 1)[0].1, b"for all");
        assert_eq!(drain(&mut network), 0);
    }
}

#[test]
fn each_mistake_has_its_own_error() {
    for (_, backend) in backends() {
        let mut network = Network::open(backend).unwrap();
        let refuse = |network: &mut Network, options: SocketOptions| {
            let error = network.add(&options).unwrap_err();
            eprintln!("{error}");
            error
        };
        let v4 = || SocketOptions::new(at(V4));

        for wanted in [Interface::Name("wan7".into()), ip("198.51.100.9").into()] {
            match refuse(&mut network, v4().interface(wanted.clone())) {
                NetError::InterfaceMissing { wanted: named, available } => {
                    assert_eq!(named, wanted.to_string());
                    assert!(available.iter().any(|text| text == "lo (127.0.0.1)"));
                }
                other => panic!("{other}"),
            }
        }
        let error = refuse(&mut network, v4().join(ip("10.0.0.1")));
        assert!(matches!(error, NetError::NotMulticast { group } if group == ip("10.0.0.1")));

        for (what, options) in [
            ("destination", v4().connect(at("[::1]:9"))),
            ("group", v4().join(ip("ff05::1"))),
            ("source", v4().join(ip("232.0.0.1")).source(ip("::1"))),
        ] {
            let error = refuse(&mut network, options);
            assert!(matches!(error, NetError::FamilyMismatch { what: named, .. } if named == what));
        }

        let holder = std::net::UdpSocket::bind(V4).unwrap();
        let taken = holder.local_addr().unwrap();
        let error = refuse(&mut network, SocketOptions::new(taken));
        assert!(matches!(error, NetError::PortInUse { address } if address == taken));

        let foreign = at("198.51.100.9:0");
        let error = refuse(&mut network, SocketOptions::new(foreign));
        assert!(matches!(error, NetError::AddressMissing { address } if address == foreign));

        assert_eq!(network.add(&v4()).unwrap(), 0, "refused sockets take no place");
        let error = network.send(0, None, &[Run::one(b"?")]).unwrap_err();
        assert!(matches!(error, NetError::NotConnected { socket: 0, .. }), "{error}");
        let error = network.send(0, Some(at("[::1]:9")), &[Run::one(b"?")]).unwrap_err();
        assert!(matches!(error, NetError::FamilyMismatch { what: "destination", .. }), "{error}");

        for _ in 1..32 {
            network.add(&v4()).unwrap();
        }
        let error = refuse(&mut network, v4());
        assert!(matches!(error, NetError::TooManySockets { limit: 32 }));
    }
}

/// What cannot travel whole is refused with the size and the limit; what was before it is sent.
#[test]
fn oversize_datagrams_are_refused() {
    for_all(|backend, family| {
        let mut network = pair(backend, family);
        let huge = vec![1; 70_000];
        for runs in [vec![Run::one(&huge)], vec![Run { bytes: &huge, segment_bytes: 66_000 }]] {
            match network.send(1, None, &runs).unwrap_err() {
                NetError::TooLarge { bytes, mtu } => {
                    assert!(bytes == 70_000 || bytes == 66_000);
                    assert!(mtu.is_some_and(|mtu| mtu >= 65_535), "that of lo: {mtu:?}");
                }
                other => panic!("{other}"),
            }
        }
        let runs = [Run::one(b"before"), Run::one(&huge), Run::one(b"after")];
        assert_eq!(network.send(1, None, &runs).unwrap(), 1);
        assert!(matches!(
            network.send(1, None, &runs[1..]).unwrap_err(),
            NetError::TooLarge { bytes: 70_000, .. }
        ));
        assert_eq!(network.send(1, None, &runs[2..]).unwrap(), 1);
        let seen: Vec<_> = collect(&mut network, 2).into_iter().map(|(_, bytes)| bytes).collect();
        assert_eq!(seen, [b"before".to_vec(), b"after".to_vec()]);
    });
}

/// Runs `test` in a thread that has no privilege, whatever the process has.
fn without_privilege(test: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        // Version 3 of the interface, this thread, no capability of any kind.
        let (header, none) = ([0x2008_0522_u32, 0], [0_u32; 6]);
        // SAFETY: the kernel reads eight bytes of `header` and 24 of `none`.
        let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        test();
    })
    .join()
    .unwrap();
}

/// What the kernel refuses without making the socket useless is told.
#[test]
fn refused_settings_are_noted() {
    without_privilege(|| {
        for (_, backend) in backends() {
            let mut network = Network::open(backend).unwrap();
            let fine = SocketOptions::new(at(V4)).dscp(10).ttl(3).send_buffer_bytes(8 << 10);
            network.add(&fine).unwrap();
            assert!(network.notes().is_empty(), "{:?}", network.notes());
            let greedy = SocketOptions::new(at(V4)).receive_buffer_bytes(1 << 30);
            network.add(&greedy).unwrap();
            let notes = network.notes();
            assert_eq!(notes.len(), 1, "{notes:?}");
            let short = "socket 1: the receive buffer has ";
            assert!(notes[0].starts_with(short) && notes[0].contains("net.core.rmem_max"));
        }
    });
}

#[test]
fn a_port_of_the_system_is_denied() {
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first.is_ok_and(|text| text.trim() != "1024") {
        eprintln!("skipped: this host gives its ports to anybody");
        return;
    }
    without_privilege(|| {
        for (_, backend) in backends() {
            let mut network = Network::open(backend).unwrap();
            let error = network.add(&SocketOptions::new(at("127.0.0.1:631"))).unwrap_err();
            assert!(matches!(&error, NetError::Denied { what } if what == "bind 127.0.0.1:631"));
        }
    });
}

/// Makes the kernel answer `io_uring_setup` with "not permitted" in this thread, as containers do.
fn forbid_io_uring() {
    let instruction = |code: u32, jump_false: u8, value: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: jump_false,
        k: value,
    };
    let filter = [
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0), // the call's number
        instruction(libc::BPF_JMP | libc::BPF_JEQ, 1, libc::SYS_io_uring_setup as u32),
        instruction(libc::BPF_RET, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        instruction(libc::BPF_RET, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_ptr().cast_mut() };
    // SAFETY: takes no pointer.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the kernel copies the program, of the length given, from `filter`.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program, 0, 0) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Where io_uring is forbidden, asking for it is an error that says so, and preferring it
/// gives plain sockets that work, and a note.
#[test]
fn without_io_uring_there_are_sockets() {
    std::thread::spawn(|| {
        forbid_io_uring();
        match Network::open(Backend::Uring).unwrap_err() {
            NetError::Unavailable { backend: "io_uring", reason } => {
                assert!(reason.contains("forbidden"), "{reason}");
            }
            other => panic!("{other}"),
        }
        let mut network = Network::prefer(Backend::Uring);
        assert_eq!(network.backend(), Backend::Socket);
        assert_eq!(network.notes().len(), 1);
        assert!(network.notes()[0].contains("io_uring is not available"), "{:?}", network.notes());
        let here = network.add(&SocketOptions::new(at(V4))).unwrap();
        let there = network.local_address(here);
        network.send(here, Some(there), &[Run::one(b"still")]).unwrap();
        assert_eq!(collect(&mut network, 1)[0].1, b"still");
        assert_eq!(Network::open(Backend::Auto).unwrap().notes().len(), 0);
    })
    .join()
    .unwrap();
}

#[test]
fn the_back_end_is_the_one_asked_for() {
    for (_, backend) in backends() {
        assert_eq!(Network::open(backend).unwrap().backend(), backend);
        assert_eq!(Network::prefer(backend).backend(), backend);
        assert!(Network::prefer(backend).notes().is_empty());
    }
    assert_eq!(Network::open(Backend::Auto).unwrap().backend(), Backend::Socket);
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

/// Sockets that are always busy do not keep others from being looked at.
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
            let socket = network.add(&SocketOptions::new(port)).unwrap();
            network.send(socket, Some(port), &[Run::one(b"to myself")]).unwrap();
            assert_eq!(collect(&mut network, 1)[0].0, port);
        }
    });
}

/// A network may be made, used and dropped in different threads.
#[test]
fn a_network_moves_between_threads() {
    for (_, backend) in backends() {
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
    }
}

/// Segments wider than the path are refused, with the path's MTU.
#[test]
fn a_run_wider_than_the_path_is_refused() {
    let narrow = interfaces().into_iter().find_map(|name| {
        let mtu = std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok()?;
        let mtu: usize = mtu.trim().parse().ok()?;
        let options = SocketOptions::new(at("0.0.0.0:0")).interface(name.as_str()).ttl(0);
        let options = options.connect(at("239.255.77.10:9"));
        let works = Network::open(Backend::Socket).ok()?.add(&options).is_ok();
        (works && (600..60_000).contains(&mtu)).then_some((options, mtu))
    });
    let Some((options, mtu)) = narrow else {
        eprintln!("skipped: no interface with multicast and an MTU below that of lo");
        return;
    };
    for (_, backend) in backends() {
        let mut network = Network::open(backend).unwrap();
        network.add(&options).unwrap();
        let bytes = vec![0; 4 * mtu];
        for segment_bytes in [bytes.len(), mtu, mtu - 27] {
            let error = network.send(0, None, &[Run { bytes: &bytes, segment_bytes }]).unwrap_err();
            assert!(
                matches!(error, NetError::TooLarge { bytes, mtu: Some(told) }
                    if bytes == segment_bytes && told == mtu),
                "{error}"
            );
        }
        let run = Run { bytes: &bytes[..3 * (mtu - 28)], segment_bytes: mtu - 28 };
        assert_eq!(network.send(0, None, &[run]).unwrap(), 1);
        assert!(network.notes().is_empty(), "{:?}", network.notes());
    }
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
    let receiver = SocketOptions::new(at(V4)).receive_buffer_bytes(4 << 20);
    let receiver = network.add(&receiver).unwrap();
    let there = network.local_address(receiver);
    let sender = network.add(&SocketOptions::new(at(V4)).connect(there)).unwrap();
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
