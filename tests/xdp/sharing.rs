//! Several who want something of one interface: networks, subscribers, processes.

use gapless::net::{Datagrams, NetError, Network, Run};

use crate::ends::{
    GROUPS, by_kernel, collect, end, group, hosts, look, numbered, on, passes, plain, reach,
    refusal, send, steered,
};
use crate::hosts::Hosts;

const PORT: u16 = 9_200;

fn notes_say(network: &Network, what: &str) -> bool {
    network.notes().iter().any(|note| note.contains(what))
}

/// Sends 100 datagrams; all receivers get all of them, in order. Returns how many the kernel of
/// host 1 handed over, and how many that of host 0 took.
fn all_get(hosts: &Hosts, sender: &mut Network, receivers: &mut [&mut Network]) -> (u64, u64) {
    for receiver in &mut *receivers {
        while look(receiver) > 0 {}
    }
    let before = (by_kernel(hosts, 1).0, by_kernel(hosts, 0).1);
    let sent: Vec<Vec<u8>> = (0..100).map(|n| numbered(n, 8 + n)).collect();
    for bytes in &sent {
        send(sender, 0, &[Run::one(bytes)]);
    }
    for receiver in receivers {
        assert!(collect(receiver, sent.len()) == sent);
    }
    (by_kernel(hosts, 1).0 - before.0, by_kernel(hosts, 0).1 - before.1)
}

/// An end on host 0 that sends to where the first socket of another is bound.
fn towards(hosts: &Hosts, receiver: &Network) -> Network {
    let there = receiver.local_address(0);
    end(hosts, 0, &[on(0, there.is_ipv6(), 0).connect(there)])
}

#[test]
fn two_networks_of_a_process_share_an_interface() {
    let Some(hosts) = hosts(2) else { return };
    let mut one = end(&hosts, 1, &[on(1, false, PORT)]);
    let mut other = end(&hosts, 1, &[on(1, false, PORT + 1)]);
    let (mut to_one, mut to_other) = (towards(&hosts, &one), towards(&hosts, &other));
    reach(&hosts, 0, &mut to_one);
    reach(&hosts, 0, &mut to_other);
    for _ in 0..10 {
        assert_eq!(all_get(&hosts, &mut to_one, &mut [&mut one]), (0, 0));
        assert_eq!(all_get(&hosts, &mut to_other, &mut [&mut other]), (0, 0));
    }
    drop((one, to_one));
    assert_eq!(all_get(&hosts, &mut to_other, &mut [&mut other]), (0, 0));
    // The program goes with the last of them.
    assert!(hosts.ip(1, "link show eth0\n").contains("xdp"));
    drop(other);
    assert!(!hosts.ip(1, "link show eth0\n").contains("xdp"));
}

/// What waits for those that do not look takes no frames from who does.
#[test]
fn networks_that_do_not_look_starve_no_other() {
    let Some(hosts) = hosts(2) else { return };
    let idle: Vec<Network> = (1..=3).map(|n| end(&hosts, 1, &[on(1, false, PORT + n)])).collect();
    let mut lively = end(&hosts, 1, &[on(1, false, PORT)]);
    for network in &idle {
        let mut sender = towards(&hosts, network);
        reach(&hosts, 0, &mut sender);
        for n in 0..3_000 {
            send(&mut sender, 0, &[Run::one(&numbered(n, 64))]);
        }
        look(&mut lively);
    }
    let mut sender = towards(&hosts, &lively);
    reach(&hosts, 0, &mut sender);
    assert_eq!(all_get(&hosts, &mut sender, &mut [&mut lively]), (0, 0));
}

#[test]
fn two_subscribers_of_a_process_get_the_group_both() {
    for to in GROUPS {
        let Some(hosts) = hosts(2) else { return };
        let mut one = end(&hosts, 1, &[group(to, PORT)]);
        let mut sender = towards(&hosts, &one);
        assert_eq!(all_get(&hosts, &mut sender, &mut [&mut one]), (0, 0));
        let mut other = end(&hosts, 1, &[group(to, PORT)]);
        assert!(notes_say(&other, "both get it through the kernel"), "{:?}", other.notes());
        assert_eq!(all_get(&hosts, &mut sender, &mut [&mut one, &mut other]), (200, 0));
        drop(one);
        assert_eq!(all_get(&hosts, &mut sender, &mut [&mut other]), (0, 0));
    }
}

/// Two sockets of one network: a packet for both is handed over to both.
#[test]
fn two_sockets_of_a_network_get_the_group_both() {
    for to in GROUPS {
        let Some(hosts) = hosts(2) else { return };
        let mut receiver = end(&hosts, 1, &[group(to, PORT), group(to, PORT)]);
        assert!(steered(&receiver, 0) && steered(&receiver, 1), "{:?}", receiver.notes());
        let mut sender = towards(&hosts, &receiver);
        let before = by_kernel(&hosts, 1);
        send(&mut sender, 0, &[Run::one(b"you"), Run::one(b"two")]);
        assert_eq!(collect(&mut receiver, 4), [b"you", b"you", b"two", b"two"]);
        assert_eq!(by_kernel(&hosts, 1), before);
    }
}

/// A group that somebody else on the host receives stays with the kernel, which gives each a copy.
#[test]
fn another_process_that_was_first_keeps_getting_the_group() {
    for to in GROUPS {
        let Some(hosts) = hosts(2) else { return };
        let mut theirs = plain(&hosts, 1, &[group(to, PORT)]);
        let mut ours = end(&hosts, 1, &[group(to, PORT)]);
        assert!(!steered(&ours, 0), "what is steered would be stolen");
        assert!(notes_say(&ours, "others on this host use"), "{:?}", ours.notes());
        let mut sender = towards(&hosts, &ours);
        assert_eq!(all_get(&hosts, &mut sender, &mut [&mut ours, &mut theirs]), (200, 0));
    }
}

/// One that comes later is told, rather than left to wait for what never comes.
#[test]
fn another_process_that_comes_later_is_refused() {
    for to in GROUPS {
        let Some(hosts) = hosts(2) else { return };
        // However many they are.
        let mut ours = end(&hosts, 1, &[group(to, PORT), group(to, PORT)]);
        drop(end(&hosts, 1, &[group(to, PORT)]));
        let options = group(to, PORT);
        let theirs = hosts.on(1, move || {
            let mut network = Network::open(gapless::net::Backend::Socket).unwrap();
            network.add(&options)
        });
        match theirs.join().unwrap() {
            Err(NetError::PortInUse { address }) => assert_eq!(address, ours.local_address(0)),
            other => panic!("{other:?}"),
        }
        let mut sender = towards(&hosts, &ours);
        let before = by_kernel(&hosts, 1);
        send(&mut sender, 0, &[Run::one(b"ours")]);
        assert_eq!(collect(&mut ours, 2), [b"ours", b"ours"]);
        assert_eq!(by_kernel(&hosts, 1), before);
        // As is one of our own that does not want to share.
        let alone = group(to, PORT).reuse(false);
        assert!(matches!(refusal(&hosts, 1, &alone), NetError::PortInUse { .. }));
    }
}

/// A member of the group on the sender's own host hears it; while there is one, the kernel sends.
#[test]
fn a_local_member_hears_what_is_sent() {
    for to in GROUPS {
        let Some(hosts) = hosts(2) else { return };
        let mut far = end(&hosts, 1, &[group(to, PORT)]);
        let mut local = plain(&hosts, 0, &[group(to, PORT)]);
        let mut sender = towards(&hosts, &far);
        assert_eq!(all_get(&hosts, &mut sender, &mut [&mut far, &mut local]).1, 100);
        drop(local);
        reach(&hosts, 0, &mut sender);
        assert_eq!(all_get(&hosts, &mut sender, &mut [&mut far]).1, 0);
        let mut late = plain(&hosts, 0, &[group(to, PORT)]);
        crate::ends::until("the kernel", || !passes(&hosts, 0, &mut sender));
        look(&mut late);
        assert_eq!(all_get(&hosts, &mut sender, &mut [&mut far, &mut late]).1, 100);
    }
}

/// A sender without a local audience does not care who listens.
#[test]
fn without_loopback_a_local_member_hears_nothing() {
    let Some(hosts) = hosts(2) else { return };
    let mut far = end(&hosts, 1, &[group(GROUPS[0], PORT)]);
    let mut local = plain(&hosts, 0, &[group(GROUPS[0], PORT)]);
    let there = far.local_address(0);
    let options = on(0, false, 0).connect(there).multicast_loopback(false);
    let mut sender = end(&hosts, 0, &[options]);
    assert_eq!(all_get(&hosts, &mut sender, &mut [&mut far]), (0, 0));
    assert_eq!(look(&mut local), 0);
}
