//! How many members of a group this host has.

use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;

/// The most that is read of the kernel's list: some twenty thousand memberships.
const LIST_BYTES_MAX: usize = 1 << 20;

/// The kernel's lists, of the network namespace in which they were opened.
#[derive(Debug)]
pub(super) struct Members {
    v4: Option<File>,
    v6: Option<File>,
}

impl Members {
    /// Opens the lists of the calling thread's network namespace.
    pub(super) fn open() -> Self {
        Self {
            v4: File::open("/proc/thread-self/net/igmp").ok(),
            v6: File::open("/proc/thread-self/net/igmp6").ok(),
        }
    }

    /// How many memberships of `group` there are on an interface, of all processes together. 0 also
    /// if the kernel does not tell: who has joined the group and is told 0 knows nothing.
    pub(super) fn count(&self, interface: u32, group: IpAddr) -> u32 {
        let (list, count): (_, fn(&str, u32, IpAddr) -> u32) = match group {
            IpAddr::V4(_) => (&self.v4, in_igmp),
            IpAddr::V6(_) => (&self.v6, in_igmp6),
        };
        let text = list.as_ref().map(read);
        text.and_then(Result::ok).map_or(0, |text| count(&text, interface, group))
    }
}

/// Reads a file from its beginning, whatever was read of it before.
fn read(file: &File) -> io::Result<String> {
    let mut text = Vec::new();
    let mut piece = [0; 4_096];
    while text.len() < LIST_BYTES_MAX {
        match file.read_at(&mut piece, text.len() as u64)? {
            0 => break,
            len => text.extend_from_slice(&piece[..len]),
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The same from the text about IPv4: a line an interface ("2 eth0 : 1 V3"), and after it, further
/// in, a line each of its groups ("010000E0 1 0:00000000 0").
fn in_igmp(text: &str, interface: u32, group: IpAddr) -> u32 {
    let IpAddr::V4(group) = group else { return 0 };
    // The kernel prints the number that the address's bytes make in its memory.
    let wanted = format!("{:08X}", u32::from_ne_bytes(group.octets()));
    let mut here = false;
    for line in text.lines().skip(1) {
        let mut words = line.split_whitespace();
        if !line.starts_with(char::is_whitespace) {
            here = words.next().and_then(|index| index.parse().ok()) == Some(interface);
        } else if here && words.next() == Some(&wanted) {
            return words.next().and_then(|users| users.parse().ok()).unwrap_or(0);
        }
    }
    0
}

/// The same from the text about IPv6: a line a group ("2 eth0 ff02...01 1 0000000C 0").
fn in_igmp6(text: &str, interface: u32, group: IpAddr) -> u32 {
    let IpAddr::V6(group) = group else { return 0 };
    let wanted = format!("{:032x}", group.to_bits());
    let users = |line: &str| {
        let mut words = line.split_whitespace();
        let found = words.next()?.parse() == Ok(interface) && words.nth(1)? == wanted;
        words.next().filter(|_| found)?.parse().ok()
    };
    text.lines().find_map(users).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use nix::net::if_::if_nametoindex;
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
        for (interface, group, count) in [
            (2, "239.1.2.3", 12),
            (2, "224.0.0.1", 1),
            (7, "239.1.2.3", 2),
            (8, "239.1.2.3", 4),
            (1, "239.1.2.3", 0),
            (99, "239.1.2.3", 0),
            (9, "239.1.2.3", 0),
            (2, "239.3.2.1", 0),
            (2, "ff05::1", 0),
        ] {
            assert_eq!(in_igmp(IGMP, interface, at(group)), count, "{group} on {interface}");
        }
    }

    const IGMP6: &str = "1    lo              ff020000000000000000000000000001     1 0000000C 0
2    eth0            ff05000000000000000000000000abcd    11 00000004 0
2    eth0            ff020000000000000000000000000001     1 0000000C 0
12   longestnameof15 ff05000000000000000000000000abcd     3 00000004 0
";

    #[test]
    fn members_over_ipv6_are_found_by_interface_and_group() {
        for (interface, group, count) in [
            (2, "ff05::abcd", 11),
            (2, "ff02::1", 1),
            (12, "ff05::abcd", 3),
            (1, "ff05::abcd", 0),
            (99, "ff05::abcd", 0),
            (2, "ff05::abc", 0),
            (2, "239.1.2.3", 0),
        ] {
            assert_eq!(in_igmp6(IGMP6, interface, at(group)), count, "{group} on {interface}");
        }
    }

    #[test]
    fn what_is_not_such_a_text_has_no_members() {
        for text in ["", "\n\n", "1", "\t\n\t030201EF", "x\n1\teth0\n\t030201EF none", "a b c"] {
            assert_eq!(in_igmp(text, 2, at("239.1.2.3")), 0, "{text:?}");
            assert_eq!(in_igmp6(text, 2, at("ff05::abcd")), 0, "{text:?}");
        }
    }

    #[test]
    fn every_membership_counts() {
        in_a_fresh_namespace(|| {
            cable();
            let members = Members::open();
            let [left, right] = ["left", "right"].map(|name| if_nametoindex(name).unwrap());
            let group = at("239.1.2.3");
            let join = || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                let IpAddr::V4(group) = group else { unreachable!() };
                socket.join_multicast_v4(&group, &[10, 0, 0, 1].into()).unwrap();
                socket
            };
            assert_eq!(members.count(left, group), 0);
            let first = join();
            assert_eq!(members.count(left, group), 1);
            let _second = join();
            assert_eq!(members.count(left, group), 2);
            assert_eq!((members.count(right, group), members.count(1, group)), (0, 0));
            drop(first);
            assert_eq!(members.count(left, group), 1);

            let group = at("ff05::abcd");
            let IpAddr::V6(wanted) = group else { unreachable!() };
            assert_eq!(members.count(left, group), 0);
            let sockets = [(); 2].map(|()| UdpSocket::bind("[::]:0").unwrap());
            for (i, socket) in (1..).zip(&sockets) {
                socket.join_multicast_v6(&wanted, left).unwrap();
                assert_eq!(members.count(left, group), i);
            }
            assert_eq!(members.count(right, group), 0);
        });
    }
}
