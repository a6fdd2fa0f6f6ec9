//! AF_XDP between hosts in namespaces: what passes the kernel by, what does not, and that neither
//! is harmed by whatever happens to the interface meanwhile. Needs root; says so and passes
//! elsewhere.
//!
//! Whether datagrams passed the kernel by is told by the kernel's own counters of UDP.

#[path = "xdp/bystanders.rs"]
mod bystanders;
#[path = "xdp/changes.rs"]
mod changes;
#[path = "network/child.rs"]
mod child;
#[path = "xdp/ends.rs"]
mod ends;
#[path = "network/hosts.rs"]
mod hosts;
#[path = "xdp/owners.rs"]
mod owners;
#[path = "xdp/sharing.rs"]
mod sharing;

use gapless::net::{Datagrams, NetError, Network, Run, SocketOptions, XdpMode};

use ends::{
    GROUPS, by_kernel, collect, collect_sorted, end, group, hosts, look, numbered, on, plain,
    reach, send, steered, until,
};

const PORT: u16 = 9_100;

/// What an end on host `from` sends is handed over by the other, in order and byte for byte, and no
/// kernel sees it.
fn passes_by(hosts: &hosts::Hosts, sender: &mut Network, receiver: &mut Network) {
    while look(receiver) > 0 {}
    let before = (by_kernel(hosts, 0), by_kernel(hosts, 1));
    let sent: Vec<Vec<u8>> = (0..200).map(|n| numbered(n, 12 + n * 7)).collect();
    for bytes in &sent {
        send(sender, 0, &[Run::one(bytes)]);
    }
    assert!(collect(receiver, sent.len()) == sent);
    let run = numbered(1, 50 * 20 + 7);
    send(sender, 0, &[Run { bytes: &run, segment_bytes: 50 }, Run::one(b"")]);
    let mut expected: Vec<Vec<u8>> = run.chunks(50).map(<[u8]>::to_vec).collect();
    expected.push(Vec::new());
    assert!(collect(receiver, expected.len()) == expected);
    assert_eq!((by_kernel(hosts, 0), by_kernel(hosts, 1)), before);
}

#[test]
fn unicast_passes_the_kernel_by_once_the_neighbour_is_known() {
    for mode in [XdpMode::Generic, XdpMode::Driver] {
        for v6 in [false, true] {
            let Some(hosts) = hosts(2) else { return };
            let options = |host| on(host, v6, PORT).xdp_mode(mode);
            let mut receiver = end(&hosts, 1, &[options(1)]);
            let there = receiver.local_address(0);
            let mut sender = end(&hosts, 0, &[options(0).connect(there)]);
            assert!(steered(&receiver, 0) && steered(&sender, 0));
            let (_, before) = by_kernel(&hosts, 0);
            send(&mut sender, 0, &[Run::one(b"hello")]);
            let (_, after) = by_kernel(&hosts, 0);
            assert_eq!(after, before + 1, "{there} is not known, and the kernel was not asked");
            assert_eq!(collect(&mut receiver, 1), [b"hello"]);
            reach(&hosts, 0, &mut sender);
            passes_by(&hosts, &mut sender, &mut receiver);
        }
    }
}

#[test]
fn multicast_passes_the_kernel_by_from_the_first() {
    for to in GROUPS {
        let Some(hosts) = hosts(3) else { return };
        let mut receivers: Vec<Network> =
            (1..=2).map(|host| end(&hosts, host, &[group(to, PORT)])).collect();
        let there = receivers[0].local_address(0);
        let mut sender = end(&hosts, 0, &[on(0, there.is_ipv6(), 0).connect(there)]);
        let (_, before) = by_kernel(&hosts, 0);
        send(&mut sender, 0, &[Run::one(b"all of you")]);
        for receiver in &mut receivers {
            assert_eq!(collect(receiver, 1), [b"all of you"]);
        }
        assert_eq!(by_kernel(&hosts, 0).1, before);
        let [first, second] = &mut receivers[..] else { unreachable!() };
        passes_by(&hosts, &mut sender, first);
        assert_eq!(collect(second, 222).len(), 222);
        let counted = sender.statistics(0);
        assert_eq!((counted.datagrams_out, counted.send_failures), (223, 0));
    }
}

/// Lines A and B: two groups of one receiver.
#[test]
fn each_line_gets_its_own() {
    let Some(hosts) = hosts(2) else { return };
    let places = ["239.78.1.1", "239.78.1.2"].map(|to| group(to, PORT));
    let mut receiver = end(&hosts, 1, &places);
    let lines = [0, 1].map(|line| on(0, false, 0).connect(receiver.local_address(line)));
    let mut sender = end(&hosts, 0, &lines);
    let before = by_kernel(&hosts, 1);
    let mut seen = [Vec::new(), Vec::new()];
    for n in 0..100_u8 {
        for line in [0, 1] {
            send(&mut sender, line, &[Run::one(&[n, line as u8])]);
        }
    }
    until("both lines' datagrams", || {
        let take = |d: gapless::net::Datagram<'_>| seen[d.socket].push(d.bytes.to_vec());
        receiver.receive(gapless::net::SocketSet::all(), 64, take).unwrap();
        seen.iter().all(|line| line.len() >= 100)
    });
    for (line, seen) in (0..).zip(seen) {
        let expected: Vec<Vec<u8>> = (0..100).map(|n| vec![n, line]).collect();
        assert_eq!(seen, expected);
    }
    assert_eq!(by_kernel(&hosts, 1), before);
}

/// What a plain socket sends over a veth is for the kernel to finish, and to cut.
#[test]
fn runs_of_a_plain_socket_arrive_as_datagrams() {
    for to in GROUPS {
        let Some(hosts) = hosts(2) else { return };
        let mut receiver = end(&hosts, 1, &[group(to, PORT)]);
        let there = receiver.local_address(0);
        let options = [on(0, there.is_ipv6(), 0).connect(there).coalesce(true)];
        let mut sender = plain(&hosts, 0, &options);
        for (segment_bytes, pieces) in [(50, 3), (1, 64), (600, 30), (1_400, 40), (50, 3)] {
            let run = numbered(segment_bytes, segment_bytes * pieces - segment_bytes / 2);
            send(&mut sender, 0, &[Run { bytes: &run, segment_bytes }, Run::one(b"lone")]);
            let mut expected: Vec<Vec<u8>> =
                run.chunks(segment_bytes).map(<[u8]>::to_vec).collect();
            expected.push(b"lone".to_vec());
            assert!(collect(&mut receiver, pieces + 1) == expected, "{pieces} x {segment_bytes}");
        }
        // What AF_XDP leaves to the kernel for being long is no different.
        drop(sender);
        let mut sender = end(&hosts, 0, &options);
        let run = numbered(3, 64 * 300);
        send(&mut sender, 0, &[Run { bytes: &run, segment_bytes: 300 }]);
        let expected: Vec<Vec<u8>> = run.chunks(300).map(<[u8]>::to_vec).collect();
        assert!(collect(&mut receiver, 64) == expected);
    }
}

/// Jumbo datagrams, which the path takes and a frame does not, go through the kernel.
#[test]
fn datagrams_wider_than_a_frame_arrive() {
    let Some(hosts) = hosts(2) else { return };
    hosts.switch("link set port0 mtu 9000\nlink set port1 mtu 9000\nlink set br0 mtu 9000\n");
    (0..2).for_each(|host| drop(hosts.ip(host, "link set eth0 mtu 9000\n")));
    let mut receiver = end(&hosts, 1, &[on(1, false, PORT)]);
    let there = receiver.local_address(0);
    let mut sender = end(&hosts, 0, &[on(0, false, 0).connect(there)]);
    reach(&hosts, 0, &mut sender);
    let (_, before) = by_kernel(&hosts, 0);
    let mut sent: Vec<Vec<u8>> =
        [3_500, 3_900, 4_054, 4_055, 4_096, 8_972].map(|len| numbered(len, len)).into();
    for bytes in &sent {
        send(&mut sender, 0, &[Run::one(bytes)]);
    }
    sent.sort();
    assert!(collect_sorted(&mut receiver, sent.len()) == sent);
    let (_, after) = by_kernel(&hosts, 0);
    assert_eq!(after - before, 3, "those of 4,055 bytes and more");
    match sender.send(0, None, &[Run::one(&[0; 8_973])]).unwrap_err() {
        NetError::TooLarge { bytes: 8_973, mtu: Some(9_000) } => {}
        other => panic!("{other}"),
    }
}

/// Nothing is lost without being counted, whether the receiver looks or not, and "no room" means
/// that nothing was taken.
#[test]
fn a_flood_is_accounted_for() {
    for mode in [XdpMode::Generic, XdpMode::Driver] {
        let Some(hosts) = hosts(2) else { return };
        let mut receiver = end(&hosts, 1, &[on(1, false, PORT).xdp_mode(mode)]);
        let there = receiver.local_address(0);
        let own = on(0, false, 0).xdp_mode(mode).connect(there);
        let mut sender = end(&hosts, 0, &[own]);
        reach(&hosts, 0, &mut sender);
        let warm = sender.statistics(0).datagrams_out;
        let bytes = numbered(7, 64 * 100);
        let runs = [Run { bytes: &bytes, segment_bytes: 100 }; 16];
        let mut taken = 0;
        for _ in 0..50 {
            taken += sender.send(0, None, &runs).unwrap() as u64 * 64;
        }
        let counted = sender.statistics(0);
        assert_eq!(counted.datagrams_out - warm + counted.send_failures, taken);
        assert!(taken > 8_192, "more than anybody has room for");
        let mut seen = 0;
        until("every datagram, or its loss", || {
            let take = |d: gapless::net::Datagram<'_>| seen += u64::from(d.bytes != b"?");
            receiver.receive(gapless::net::SocketSet::all(), 64, take).unwrap();
            let counted = receiver.statistics(0);
            seen + counted.kernel_drops >= taken - sender.statistics(0).send_failures
        });
        let dropped = receiver.statistics(0).kernel_drops;
        assert_eq!(seen + dropped, taken - sender.statistics(0).send_failures);
        assert!(dropped > 0 && seen > 0, "{seen} came, {dropped} were dropped");
    }
}

/// What cannot be steered is not promised: zero-copy is the driver's to give.
#[test]
fn zero_copy_is_refused_where_the_driver_has_none() {
    let Some(hosts) = hosts(1) else { return };
    let options: SocketOptions = on(0, false, PORT).xdp_mode(XdpMode::ZeroCopy);
    match ends::refusal(&hosts, 0, &options) {
        NetError::Unavailable { backend: "AF_XDP", reason } => {
            assert!(reason.contains("zero-copy"), "{reason}");
        }
        other => panic!("{other}"),
    }
    assert!(!hosts.ip(0, "link show eth0\n").contains("xdp"), "a program was left behind");
}
