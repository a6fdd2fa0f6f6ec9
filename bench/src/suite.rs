//! The suites: which cases there are, by name.

mod ipc;
mod log;
mod net;
mod order;
mod xdp;

use anyhow::{Result, bail};

use crate::scenario::Case;

/// A family of cases.
struct Suite {
    name: &'static str,
    cases: fn() -> Vec<Case>,
    /// Whether its cases need a directory on a disk.
    on_disk: bool,
}

/// Every suite there is; the help text of the command says what each measures.
const SUITES: [Suite; 5] = [
    Suite { name: "ipc", cases: ipc::cases, on_disk: false },
    Suite { name: "net", cases: net::cases, on_disk: false },
    Suite { name: "log", cases: log::cases, on_disk: true },
    Suite { name: "order", cases: order::cases, on_disk: false },
    Suite { name: "xdp", cases: xdp::cases, on_disk: false },
];

/// The cases of a suite.
///
/// # Errors
/// Names the suites there are, if `name` is none of them.
pub(crate) fn cases(name: &str) -> Result<Vec<Case>> {
    match SUITES.iter().find(|suite| suite.name == name) {
        Some(suite) => Ok((suite.cases)()),
        None => bail!("unknown suite `{name}`: choose one of {}", names().join(", ")),
    }
}

/// Whether a suite's cases write to a disk.
pub(crate) fn is_on_disk(name: &str) -> bool {
    SUITES.iter().any(|suite| suite.name == name && suite.on_disk)
}

/// The names of all suites.
pub(crate) fn names() -> Vec<&'static str> {
    SUITES.iter().map(|suite| suite.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_floors_and_rivals_exist() {
        for suite in names() {
            let cases = cases(suite).unwrap();
            let all: BTreeSet<_> = cases.iter().map(|case| &case.name).collect();
            assert_eq!(all.len(), cases.len(), "a name occurs twice in {suite}");
            for case in &cases {
                for other in case.measures() {
                    assert!(all.contains(other), "{} is judged by {other}", case.name);
                }
            }
        }
    }

    #[test]
    fn the_wire_its_floors_and_what_targets_are_set_for_are_there() {
        let cases = cases("net").unwrap();
        for name in [
            "floor/socket/rtt",
            "floor/socket/rtt/veth",
            "floor/uring/rtt",
            "floor/gso/64/1408",
            "floor/gso/1024/1408",
            "floor/gso/1024/8192",
            "floor/gso/1024/64512",
            "socket/rtt/64",
            "uring/rtt/64",
            "socket/rtt/64/veth",
            "socket/rtt/64/loss1",
            "throughput/64/1408",
            "throughput/64/1408/ring",
            "throughput/1024/8192",
            "goodput/64/loss5",
            "multicast/goodput/64/loss1",
            "multicast/goodput/64/loss5",
            "paced/multicast/100k/loss1",
            "repair/latency",
            "repair/tail",
            "receivers/16",
        ] {
            assert!(cases.iter().any(|case| case.name == name), "{name}");
        }
    }

    #[test]
    fn the_log_and_what_it_is_judged_by_are_there() {
        let cases = cases("log").unwrap();
        for (name, floor) in [
            ("floor/write/1024", None),
            ("log/append/64", Some("floor/write/64")),
            ("log/append/1024", Some("floor/write/1024")),
            ("log/append-sync/64", Some("floor/write-sync/64")),
            ("log/record/64", Some("floor/write/64")),
            ("log/replay/64", Some("floor/read/64")),
            ("log/replay/1024", Some("floor/read/1024")),
            ("log/seek", None),
            ("log/seek/time/cold", None),
            ("log/restart", None),
            ("log/join", None),
            ("publish/recorder", Some("publish/consumer")),
        ] {
            let case = cases.iter().find(|case| case.name == name);
            let case = case.unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(case.floor.as_deref(), floor, "{name}");
        }
    }

    #[test]
    fn the_order_path_and_what_it_is_judged_by_are_there() {
        let cases = cases("order").unwrap();
        for name in [
            "order/roundtrip",
            "order/roundtrip/three",
            "order/sequencer",
            "order/path",
            "order/risk",
            "order/failover",
            "order/replay",
        ] {
            assert!(cases.iter().any(|case| case.name == name), "{name}");
        }
        let inline = cases.iter().find(|case| case.name == "order/roundtrip").unwrap();
        assert_eq!(inline.floor.as_deref(), Some("floor/line"));
        assert_eq!(inline.ring.as_deref(), Some("ring/rtt/40"));
    }

    #[test]
    fn the_bypass_and_what_it_is_judged_by_are_there() {
        let cases = cases("xdp").unwrap();
        for name in [
            "floor/xdp/rtt",
            "floor/xdp/rtt/1400",
            "floor/xdp/rtt/driver",
            "floor/socket/rtt",
            "xdp/rtt/512",
            "floor/xdp/throughput/64",
            "xdp/throughput/64",
            "xdp/throughput/64/single",
            "socket/throughput/64/single/nogso",
            "xdp/loss1/goodput/64",
            "xdp/loss5/paced/100k",
        ] {
            assert!(cases.iter().any(|case| case.name == name), "{name}");
        }
        let ours = cases.iter().find(|case| case.name == "xdp/rtt/64").unwrap();
        assert_eq!(ours.floor.as_deref(), Some("floor/xdp/rtt"));
        assert_eq!(ours.sockets.as_deref(), Some("floor/socket/rtt"));
    }

    #[test]
    fn the_cases_that_targets_are_set_for_are_there() {
        let cases = cases("ipc").unwrap();
        for name in [
            "floor/line",
            "floor/ring",
            "ring/rtt/48",
            "ring/oneway/48/1M",
            "ring/throughput/48",
            "ring/throughput/1024",
            "ring/publish/consumers/1",
            "ring/publish/consumers/32",
        ] {
            assert!(cases.iter().any(|case| case.name == name), "{name}");
        }
    }
}
