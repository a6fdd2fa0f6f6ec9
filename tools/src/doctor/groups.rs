//! The multicast groups that an interface has joined.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::finding::Finding;
use super::host::Text;

/// Groups that are named; more are counted.
const SHOWN: usize = 5;

/// The IGMP version and the groups of an interface in `/proc/net/igmp`.
fn of_ipv4<'a>(igmp: &'a str, interface: &str) -> (Option<&'a str>, Vec<IpAddr>) {
    let (mut version, mut groups, mut ours) = (None, Vec::new(), false);
    for line in igmp.lines().skip(1) {
        if let Some((head, tail)) = line.split_once(" :").or_else(|| line.split_once(':'))
            && line.starts_with(|c: char| c.is_ascii_digit())
        {
            ours = head.split_whitespace().nth(1) == Some(interface);
            if ours {
                version = tail.split_whitespace().nth(1);
            }
        } else if ours {
            let word = line.split_whitespace().next().unwrap_or_default();
            // The address as it lies in memory, read as one number.
            let group = u32::from_str_radix(word, 16).ok().map(u32::to_ne_bytes);
            groups.extend(group.map(|bytes| IpAddr::from(Ipv4Addr::from(bytes))));
        }
    }
    (version, groups)
}

/// The groups of an interface in `/proc/net/igmp6`.
fn of_ipv6(igmp6: &str, interface: &str) -> Vec<IpAddr> {
    let group = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let ours = words.next()? == interface;
        let group = u128::from_str_radix(words.next()?, 16).ok()?;
        ours.then(|| IpAddr::from(Ipv6Addr::from(group)))
    };
    igmp6.lines().filter_map(group).collect()
}

/// What an interface has joined.
pub(super) fn joined(igmp: &Text, igmp6: &Text, interface: &str) -> Finding {
    const CHECK: &str = "groups joined";
    let igmp = match igmp {
        Ok(igmp) if igmp.starts_with("Idx") => igmp,
        Ok(other) => return Finding::garbled(CHECK, other),
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let (version, mut groups) = of_ipv4(igmp, interface);
    groups.extend(of_ipv6(igmp6.as_deref().unwrap_or_default(), interface));
    let shown: Vec<String> = groups.iter().take(SHOWN).map(IpAddr::to_string).collect();
    let mut found = match groups.len() {
        0 => return Finding::ok(CHECK, "none"),
        count => format!("{count}: {}", shown.join(" ")),
    };
    if groups.len() > SHOWN {
        found += " ...";
    }
    match version {
        Some(old @ ("V1" | "V2")) => {
            let why = "the network is not told of source=, and forwards every sender";
            Finding::note(CHECK, format!("{found} (IGMP {old})"), why)
                .fix(format!("sysctl -w net.ipv4.conf.{interface}.force_igmp_version=3"))
        }
        _ => Finding::ok(CHECK, found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::super::host::tests::{absent, text};
    use super::*;

    const IGMP: &str = "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter
1\tlo        :     1      V3
\t\t\t\t010000E0     1 0:00000000\t\t0
4\teth0      :     2      V3
\t\t\t\t030201EF     1 0:00000000\t\t0
\t\t\t\t010000E0     1 0:00000000\t\t0
5\tlongnamed0.7: 1      V2
\t\t\t\t010000E0     1 0:00000000\t\t0
";
    const IGMP6: &str = "\
1    lo              ff020000000000000000000000000001     1 0000000C 0
4    eth0            ff150000000000000000000000000007     1 00000004 0
";

    #[test]
    fn groups_are_those_of_the_interface() {
        let of = |name: &str| joined(&text(IGMP), &text(IGMP6), name);
        assert_eq!(of("eth0").found, "3: 239.1.2.3 224.0.0.1 ff15::7");
        assert_eq!(of("lo").found, "2: 224.0.0.1 ff02::1");
        let old = of("longnamed0.7");
        assert_eq!((old.status, old.found.as_str()), (Status::Note, "1: 224.0.0.1 (IGMP V2)"));
        assert_eq!(of("eth1").found, "none");
        assert_eq!(joined(&text(IGMP), &absent(), "eth0").found, "2: 239.1.2.3 224.0.0.1");
    }

    #[test]
    fn many_groups_are_counted_and_damage_is_passed_over() {
        let many = format!("Idx\n4\teth0 : 9 V3\n{}", "\t\t\t\t010000E0 1\n".repeat(9));
        let found = joined(&text(&many), &absent(), "eth0").found;
        assert!(found.starts_with("9: ") && found.ends_with(" ..."), "{found}");
        let damaged = text("Idx\n4\teth0\n4 eth0 :\n\tzz\n\n::\n");
        assert_eq!(joined(&damaged, &text("1\n\n2 eth0\n3 eth0 zz"), "eth0").found, "none");
        assert_eq!(joined(&text(""), &absent(), "eth0").status, Status::Unknown);
        assert_eq!(joined(&absent(), &absent(), "eth0").status, Status::Unknown);
    }
}
