//! How many members of a group this host has.

use std::fs;
use std::net::IpAddr;

/// How many memberships of `group` there are on an interface, in the calling thread's network
/// namespace, of all processes together. 0 also if the kernel does not tell: who has joined the
/// group and is told 0 knows nothing.
pub(super) fn members(interface_name: &str, group: IpAddr) -> u32 {
    let (path, count): (_, fn(&str, &str, IpAddr) -> u32) = match group {
        IpAddr::V4(_) => ("/proc/thread-self/net/igmp", in_igmp),
        IpAddr::V6(_) => ("/proc/thread-self/net/igmp6", in_igmp6),
    };
    fs::read_to_string(path).map_or(0, |text| count(&text, interface_name, group))
}

/// The same from the text about IPv4: a line an interface ("2 eth0 : 1 V3"), and after it, further
/// in, a line each of its groups ("010000E0 1 0:00000000 0").
fn in_igmp(text: &str, interface_name: &str, group: IpAddr) -> u32 {
    let IpAddr::V4(group) = group else { return 0 };
    // The kernel prints the number that the address's bytes make in its memory.
    let wanted = format!("{:08X}", u32::from_ne_bytes(group.octets()));
    let mut here = false;
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        if !line.starts_with(char::is_whitespace) {
            let name = words.nth(1).unwrap_or_default();
            here = name.strip_suffix(':').unwrap_or(name) == interface_name;
        } else if here && words.next() == Some(&wanted) {
            return words.next().and_then(|users| users.parse().ok()).unwrap_or(0);
        }
    }
    0
}

/// The same from the text about IPv6: a line a group ("2 eth0 ff02...01 1 0000000C 0").
fn in_igmp6(text: &str, interface_name: &str, group: IpAddr) -> u32 {
    let IpAddr::V6(group) = group else { return 0 };
    let wanted = format!("{:032x}", group.to_bits());
    let users = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let found = words.next()? == interface_name && words.next()? == wanted;
        words.next().filter(|_| found)?.parse().ok()
    };
    text.lines().find_map(users).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::super::namespace::{cable, in_a_fresh_namespace};
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const IGMP: &str = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter
1\tlo        :     1      V3
\t\t\t\t010000E0     1 0:00000000\t\t0
2\teth0      :     3      V3
\t\t\t\t030201EF    12 0:00000000\t\t1
\t\t\t\t010000E0     1 0:00000000\t\t0
7\teth0.100  :     1      V2
\t\t\t\t030201EF     2 1:00000123\t\t1
8\tlongestnameof15:     1      V3
\t\t\t\t030201EF     4 0:00000000\t\t1
";

    #[test]
    #[cfg(target_endian = "little")]
    fn members_are_found_by_interface_and_group() {
        for (name, group, count) in [
            ("eth0", "239.1.2.3", 12),
            ("eth0", "224.0.0.1", 1),
            ("eth0.100", "239.1.2.3", 2),
            ("longestnameof15", "239.1.2.3", 4),
            ("lo", "239.1.2.3", 0),
            ("eth", "239.1.2.3", 0),
            ("eth1", "239.1.2.3", 0),
            ("eth0", "239.3.2.1", 0),
            ("eth0", "ff05::1", 0),
        ] {
            assert_eq!(in_igmp(IGMP, name, at(group)), count, "{group} on {name}");
        }
    }

    const IGMP6: &str = "1    lo              ff020000000000000000000000000001     1 0000000C 0
2    eth0            ff05000000000000000000000000abcd    11 00000004 0
2    eth0            ff020000000000000000000000000001     1 0000000C 0
12   longestnameof15 ff05000000000000000000000000abcd     3 00000004 0
";

    #[test]
    fn members_over_ipv6_are_found_by_interface_and_group() {
        for (name, group, count) in [
            ("eth0", "ff05::abcd", 11),
            ("eth0", "ff02::1", 1),
            ("longestnameof15", "ff05::abcd", 3),
            ("lo", "ff05::abcd", 0),
            ("eth", "ff05::abcd", 0),
            ("eth0", "ff05::abc", 0),
            ("eth0", "239.1.2.3", 0),
        ] {
            assert_eq!(in_igmp6(IGMP6, name, at(group)), count, "{group} on {name}");
        }
    }

    #[test]
    fn what_is_not_such_a_text_has_no_members() {
        for text in ["", "\n\n", "1", "\t\n\t030201EF", "x\n1\teth0\n\t030201EF none", "a b c"] {
            assert_eq!(in_igmp(text, "eth0", at("239.1.2.3")), 0, "{text:?}");
            assert_eq!(in_igmp6(text, "eth0", at("ff05::abcd")), 0, "{text:?}");
        }
    }

    #[test]
    fn every_membership_counts() {
        in_a_fresh_namespace(|| {
            cable();
            let group = at("239.1.2.3");
            let join = || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                let IpAddr::V4(group) = group else { unreachable!() };
                socket.join_multicast_v4(&group, &[10, 0, 0, 1].into()).unwrap();
                socket
            };
            assert_eq!(members("left", group), 0);
            let first = join();
            assert_eq!(members("left", group), 1);
            let _second = join();
            assert_eq!(members("left", group), 2);
            assert_eq!((members("right", group), members("lo", group)), (0, 0));
            drop(first);
            assert_eq!(members("left", group), 1);

            let group = at("ff05::abcd");
            let IpAddr::V6(wanted) = group else { unreachable!() };
            let index = nix::net::if_::if_nametoindex("left").unwrap();
            assert_eq!(members("left", group), 0);
            let sockets = [(); 2].map(|()| UdpSocket::bind("[::]:0").unwrap());
            for (i, socket) in (1..).zip(&sockets) {
                socket.join_multicast_v6(&wanted, index).unwrap();
                assert_eq!(members("left", group), i);
            }
            assert_eq!(members("right", group), 0);
        });
    }
}
