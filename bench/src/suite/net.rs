//! Suite `net`: datagrams between two pinned processes of one host.
//!
//! A floor stands right before the cases that are judged by it, so that both see the same weather.

use crate::net::{BareSocket, BareUring, Flood, Path, PingPong};
use crate::scenario::Case;
use crate::throughput::Throughput;

/// Bytes of the message whose round trips are measured.
const ROUND_TRIP_BYTES: usize = 64;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    round_trips(&mut cases);
    floods(&mut cases);
    cases
}

fn round_trips(cases: &mut Vec<Case>) {
    for (path, suffix) in [(Path::Loopback, ""), (Path::Veth, "/veth")] {
        let payload_bytes = ROUND_TRIP_BYTES;
        let socket = PingPong { dial: BareSocket, path, payload_bytes };
        cases.push(Case::new(format!("floor/socket/rtt{suffix}"), socket));
        let uring = PingPong { dial: BareUring, path, payload_bytes };
        cases.push(Case::new(format!("floor/uring/rtt{suffix}"), uring));
    }
}

/// The floor of a flood: messages of `N` bytes in datagrams of so many.
fn flood<const N: usize>(cases: &mut Vec<Case>, datagram_bytes: usize) {
    let link = Flood::<N> { datagram_bytes };
    let name = format!("floor/gso/{N}/{datagram_bytes}");
    cases.push(Case::new(name, Throughput { link, payload_bytes: N }));
}

fn floods(cases: &mut Vec<Case>) {
    flood::<64>(cases, 1408);
    flood::<1024>(cases, 1408);
    flood::<1024>(cases, 8192);
    flood::<1024>(cases, 64_512);
}
