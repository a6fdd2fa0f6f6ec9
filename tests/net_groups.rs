//! Multicast groups, and what a network or a host refuses, on every back end that this host has.
//!
//! Nothing here is timed.

mod sockets;

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use gapless::net::{
    Backend, Datagram, Datagrams, Interface, NetError, Network, Run, SocketOptions, SocketSet,
};
use sockets::{
    PATIENCE, V4, at, backends, collect, complaints, drain, for_all, for_each, options, pair,
    pattern,
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
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
    // In one way all of it: what goes by two is not in order.
    let coalesce = backend != Backend::Xdp;
    let out = base(SocketAddr::new(bind, 0)).connect(to).ttl(1).coalesce(coalesce);
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
    let mut expected = [(); 10].map(|()| expected.clone()).concat();
    if backend == Backend::Xdp {
        // A checksum that looks unfinished makes a datagram the kernel's, and others overtake it.
        expected.sort();
        seen.iter_mut().for_each(|seen| seen.sort());
    }
    assert!(seen[joined] == expected && seen[second] == expected);
    assert!(seen[other].is_empty(), "a socket got a group that it did not join");
    Ok(())
}

/// On the first interface that can; that none can is told, and fails only where one must.
#[test]
fn multicast_reaches_who_joined() {
    for_each(|name, backend| {
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
    });
}

/// A source-specific join takes from that source only.
#[test]
fn a_source_filter_keeps_others_out() {
    for_each(|_, backend| {
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
    });
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
    for_each(|_, backend| {
        let mut network = Network::open(backend).unwrap();
        let refuse = |network: &mut Network, options: SocketOptions| {
            let error = network.add(&options).unwrap_err();
            eprintln!("{error}");
            error
        };
        let v4 = || options(backend, V4);

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

        for (what, wrong) in [
            ("destination", v4().connect(at("[::1]:9"))),
            ("group", v4().join(ip("ff05::1"))),
            ("source", v4().join(ip("232.0.0.1")).source(ip("::1"))),
        ] {
            let error = refuse(&mut network, wrong);
            assert!(matches!(error, NetError::FamilyMismatch { what: named, .. } if named == what));
        }

        let holder = std::net::UdpSocket::bind(V4).unwrap();
        let taken = holder.local_addr().unwrap();
        let error = refuse(&mut network, options(backend, &taken.to_string()));
        assert!(matches!(error, NetError::PortInUse { address } if address == taken));

        let foreign = at("198.51.100.9:0");
        let error = refuse(&mut network, options(backend, "198.51.100.9:0"));
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
    });
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
        assert_eq!(collect(&mut network, 1)[0].1, b"before");
        assert!(matches!(
            network.send(1, None, &runs[1..]).unwrap_err(),
            NetError::TooLarge { bytes: 70_000, .. }
        ));
        assert_eq!(network.send(1, None, &runs[2..]).unwrap(), 1);
        assert_eq!(collect(&mut network, 1)[0].1, b"after");
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
    let chosen = Network::open(Backend::Auto).unwrap().backend();
    assert!([Backend::Xdp, Backend::Socket].contains(&chosen));
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
        assert!(complaints(&network).is_empty(), "{:?}", network.notes());
    }
}
