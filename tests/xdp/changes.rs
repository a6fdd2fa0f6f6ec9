//! What happens to the interface, its neighbours and its MTU while datagrams flow.

use std::time::Duration;

use gapless::net::{Datagrams, NetError, Network, Run};

use crate::ends::{
    GROUPS, by_kernel, collect, end, group, hosts, look, numbered, on, plain, reach, send, until,
};
use crate::hosts::Hosts;

const PORT: u16 = 9_300;

/// Sends numbered datagrams until one comes through, and then those that are on their way.
fn comes_through(sender: &mut Network, receiver: &mut Network, from: usize) {
    let mut number = from;
    let mut seen = false;
    until("a datagram", || {
        number += 1;
        let _ = sender.send(0, None, &[Run::one(&numbered(number, 20))]).unwrap();
        look(sender);
        let take = |d: gapless::net::Datagram<'_>| seen |= d.bytes == numbered(number, 20);
        receiver.receive(gapless::net::SocketSet::all(), 64, take).unwrap();
        seen
    });
}

fn drain(network: &mut Network) {
    while look(network) > 0 {}
}

#[test]
fn an_interface_goes_down_and_comes_up() {
    for multicast in [false, true] {
        let Some(hosts) = hosts(2) else { return };
        let options = if multicast { group(GROUPS[0], PORT) } else { on(1, false, PORT) };
        let mut receiver = end(&hosts, 1, &[options]);
        let there = receiver.local_address(0);
        let mut sender = end(&hosts, 0, &[on(0, false, 0).connect(there)]);
        reach(&hosts, 0, &mut sender);
        for host in [0, 1, 0] {
            hosts.ip(host, "link set eth0 down\n");
            let before = sender.statistics(0);
            for n in 0..100 {
                // Gone, as in any network, and counted if it is our own host that knows.
                send(&mut sender, 0, &[Run::one(&numbered(n, 30))]);
                receiver.receive(gapless::net::SocketSet::all(), 8, |_| ()).unwrap();
            }
            let after = sender.statistics(0);
            let failed = after.send_failures - before.send_failures;
            assert_eq!(after.datagrams_out - before.datagrams_out + failed, 100);
            assert!(host == 1 || failed == 100, "{failed} were counted");
            hosts.ip(host, "link set eth0 up\n");
            comes_through(&mut sender, &mut receiver, 1_000);
            drain(&mut receiver);
            reach(&hosts, 0, &mut sender);
            let before = (by_kernel(&hosts, 0), by_kernel(&hosts, 1));
            send(&mut sender, 0, &[Run::one(b"past the kernel again")]);
            assert_eq!(collect(&mut receiver, 1), [b"past the kernel again"]);
            assert_eq!((by_kernel(&hosts, 0), by_kernel(&hosts, 1)), before);
        }
    }
}

/// Whoever has an interface that is taken away goes on without; on a new one a new network works.
#[test]
fn an_interface_is_removed_and_made_again() {
    for host in [0, 1] {
        let Some(hosts) = hosts(2) else { return };
        let mut receiver = end(&hosts, 1, &[on(1, false, PORT), group(GROUPS[0], PORT)]);
        let there = receiver.local_address(0);
        let mut sender = end(&hosts, 0, &[on(0, false, 0).connect(there)]);
        reach(&hosts, 0, &mut sender);
        send(&mut sender, 0, &[Run::one(b"before")]);
        assert_eq!(collect(&mut receiver, 1), [b"before"]);

        hosts.ip(host, "link del eth0\n");
        for n in 0..2_000 {
            let before = sender.statistics(0);
            let sent = sender.send(0, None, &[Run::one(&numbered(n, 30))]);
            let after = sender.statistics(0);
            match sent {
                Ok(1) => {
                    let failed = after.send_failures - before.send_failures;
                    assert_eq!(after.datagrams_out - before.datagrams_out + failed, 1);
                    assert!(host == 1 || failed == 1, "sent by an interface that is gone");
                }
                Ok(other) => panic!("{other} runs taken"),
                Err(NetError::Io { .. }) => {}
                Err(other) => panic!("{other}"),
            }
            receiver.receive(gapless::net::SocketSet::all(), 8, |_| ()).unwrap();
        }
        for network in [&mut sender, &mut receiver] {
            look(network);
            network.wait(Duration::from_millis(1)).unwrap();
            network.statistics(0);
        }

        hosts.plug_in(host);
        let mut again = match host {
            0 => end(&hosts, 0, &[on(0, false, 0).connect(there)]),
            _ => end(&hosts, 1, &[on(1, false, PORT + 1)]),
        };
        if host == 0 {
            drop(sender);
            reach(&hosts, 0, &mut again);
            comes_through(&mut again, &mut receiver, 5_000);
        } else {
            drop(receiver);
            let there = again.local_address(0);
            let mut sender = end(&hosts, 0, &[on(0, false, 0).connect(there)]);
            comes_through(&mut sender, &mut again, 5_000);
            reach(&hosts, 0, &mut sender);
            drain(&mut again);
            let before = by_kernel(&hosts, 1);
            send(&mut sender, 0, &[Run::one(b"steered anew")]);
            assert_eq!(collect(&mut again, 1), [b"steered anew"]);
            assert_eq!(by_kernel(&hosts, 1), before);
        }
    }
}

/// The interface stays up on the host, but has no carrier.
#[test]
fn a_cable_is_pulled_and_plugged_in_again() {
    let Some(hosts) = hosts(2) else { return };
    let mut receiver = end(&hosts, 1, &[on(1, false, PORT)]);
    let there = receiver.local_address(0);
    let mut sender = end(&hosts, 0, &[on(0, false, 0).connect(there)]);
    reach(&hosts, 0, &mut sender);
    for host in [1, 0] {
        drain(&mut receiver);
        hosts.cable(host, false);
        let before = sender.statistics(0);
        for n in 0..100 {
            send(&mut sender, 0, &[Run::one(&numbered(n, 30))]);
        }
        let after = sender.statistics(0);
        let failed = after.send_failures - before.send_failures;
        assert_eq!(after.datagrams_out - before.datagrams_out + failed, 100);
        assert_eq!(look(&mut receiver), 0);
        hosts.cable(host, true);
        comes_through(&mut sender, &mut receiver, 1_000);
        reach(&hosts, 0, &mut sender);
    }
}

fn refuses(sender: &mut Network, payload: usize, wanted: usize) -> bool {
    match sender.send(0, None, &[Run::one(&vec![7; payload])]) {
        Ok(_) => false,
        Err(NetError::TooLarge { bytes, mtu }) => {
            assert_eq!((bytes, mtu), (payload, Some(wanted)));
            true
        }
        Err(other) => panic!("{other}"),
    }
}

/// What is wider than the path is refused as by sockets, and the path may change.
#[test]
fn the_mtu_is_lowered_and_raised() {
    for v6 in [false, true] {
        let Some(hosts) = hosts(2) else { return };
        let headers = if v6 { 48 } else { 28 };
        // No less than IPv6 asks for.
        let (narrow, wide) = (1_300, 1_500);
        let mut receiver = end(&hosts, 1, &[on(1, v6, PORT)]);
        let there = receiver.local_address(0);
        let mut sender = end(&hosts, 0, &[on(0, v6, 0).connect(there)]);
        reach(&hosts, 0, &mut sender);
        for _ in 0..2 {
            assert!(refuses(&mut sender, wide - headers + 1, wide));
            send(&mut sender, 0, &[Run::one(&numbered(1, wide - headers))]);
            assert_eq!(collect(&mut receiver, 1)[0].len(), wide - headers);

            hosts.ip(0, &format!("link set eth0 mtu {narrow}\n"));
            look(&mut sender);
            assert!(refuses(&mut sender, narrow - headers + 1, narrow));
            assert!(refuses(&mut sender, wide - headers, narrow));
            let run = numbered(2, 2 * (wide - headers));
            let run = Run { bytes: &run, segment_bytes: wide - headers };
            assert!(matches!(sender.send(0, None, &[run]), Err(NetError::TooLarge { .. })));
            send(&mut sender, 0, &[Run::one(&numbered(3, narrow - headers))]);
            drain_until(&mut receiver, &numbered(3, narrow - headers));

            hosts.ip(0, &format!("link set eth0 mtu {wide}\n"));
            look(&mut sender);
        }
        let before = by_kernel(&hosts, 0);
        send(&mut sender, 0, &[Run::one(&numbered(4, wide - headers))]);
        drain_until(&mut receiver, &numbered(4, wide - headers));
        assert_eq!(by_kernel(&hosts, 0), before);
    }
}

fn drain_until(network: &mut Network, wanted: &[u8]) {
    let mut seen = false;
    until("a datagram", || {
        let take = |d: gapless::net::Datagram<'_>| seen |= d.bytes == wanted;
        network.receive(gapless::net::SocketSet::all(), 8, take).unwrap();
        seen
    });
}

/// A neighbour's address on the wire changes, and the kernel learns it.
fn new_mac(hosts: &Hosts, mac: &str) {
    hosts.ip(1, &format!("link set eth0 address {mac}\n"));
    for place in ["10.78.0.2", "fd78::2"] {
        hosts.ip(0, &format!("neigh replace {place} lladdr {mac} dev eth0 nud reachable\n"));
    }
}

/// To a plain socket, whose kernel takes nothing that is addressed to another.
#[test]
fn a_neighbour_gets_another_mac() {
    for v6 in [false, true] {
        let Some(hosts) = hosts(2) else { return };
        let mut receiver = plain(&hosts, 1, &[on(1, v6, PORT)]);
        let there = receiver.local_address(0);
        let mut sender = end(&hosts, 0, &[on(0, v6, 0).connect(there)]);
        reach(&hosts, 0, &mut sender);
        for mac in ["02:00:00:00:78:01", "02:00:00:00:78:02"] {
            new_mac(&hosts, mac);
            reach(&hosts, 0, &mut sender);
            drain(&mut receiver);
            let before = by_kernel(&hosts, 0);
            send(&mut sender, 0, &[Run::one(mac.as_bytes())]);
            assert_eq!(collect(&mut receiver, 1), [mac.as_bytes()]);
            assert_eq!(by_kernel(&hosts, 0), before);
        }
        // One that is gone from the table is asked for anew, by the kernel.
        hosts.ip(0, "neigh flush dev eth0\n");
        look(&mut sender);
        let (_, before) = by_kernel(&hosts, 0);
        send(&mut sender, 0, &[Run::one(b"who has")]);
        assert_eq!(collect(&mut receiver, 1), [b"who has"]);
        assert_eq!(by_kernel(&hosts, 0).1, before + 1);
        reach(&hosts, 0, &mut sender);
    }
}
