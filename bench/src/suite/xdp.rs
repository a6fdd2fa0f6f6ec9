//! Suite `xdp`: datagrams between two pinned processes in two network namespaces, which a veth pair
//! joins, by AF_XDP, plain sockets and io_uring in turn. Needs root.
//!
//! A floor stands right before the cases that are judged by it, so that both see the same weather.

use crate::net::{Across, BareSocket, BareUring, BareXdp, Mode, Path, PingPong};
use crate::scenario::Case;
use crate::throughput::Throughput;
use crate::wire::{Backend, Flow, Form, Streams};

/// Bytes of the messages whose round trips are measured.
const ROUND_TRIP_BYTES: [usize; 3] = [64, 512, 1400];
/// Bytes of a datagram on an Ethernet.
const DATAGRAM_BYTES: usize = 1472;
/// Bytes of a datagram that has room for one message of 64 B.
const SINGLE_BYTES: usize = 20 + 2 + 64;
/// Every back end, the one that is compared with the others last.
const BACKENDS: [Backend; 2] = [Backend::Socket, Backend::Uring];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    ROUND_TRIP_BYTES.into_iter().for_each(|bytes| round_trips(&mut cases, bytes));
    for (bytes, suffix) in [(DATAGRAM_BYTES, ""), (SINGLE_BYTES, "/single")] {
        throughputs(&mut cases, bytes, suffix);
    }
    cases
}

/// The floors of a size, each with the back end that is judged by it.
fn round_trips(cases: &mut Vec<Case>, payload_bytes: usize) {
    let path = Path::Veth;
    let suffix = suffix(payload_bytes);
    let xdp = |mode| BareXdp { mode, payload_bytes };
    cases.push(Case::new(format!("floor/xdp/rtt{suffix}"), xdp(Mode::Generic)));
    if payload_bytes == ROUND_TRIP_BYTES[0] {
        cases.push(Case::new("floor/xdp/rtt/driver", xdp(Mode::Driver)));
    }
    let socket = PingPong { dial: BareSocket, path, payload_bytes };
    cases.push(Case::new(format!("floor/socket/rtt{suffix}"), socket));
    cases.push(round_trip(Backend::Socket, payload_bytes));
    let uring = PingPong { dial: BareUring, path, payload_bytes };
    cases.push(Case::new(format!("floor/uring/rtt{suffix}"), uring));
    cases.push(round_trip(Backend::Uring, payload_bytes));
}

/// What the names of floors end with.
fn suffix(payload_bytes: usize) -> String {
    let is_first = payload_bytes == ROUND_TRIP_BYTES[0];
    if is_first { String::new() } else { format!("/{payload_bytes}") }
}

/// Our round trip, judged by the floor of its back end, and by bare sockets.
fn round_trip(backend: Backend, payload_bytes: usize) -> Case {
    let dial = Streams { backend, form: Form::Unicast, loss: 0.0 };
    let name = format!("{}/rtt/{payload_bytes}", backend.name());
    let case = Case::new(name, PingPong { dial, path: Path::Veth, payload_bytes });
    let suffix = suffix(payload_bytes);
    case.against(format!("{}{suffix}", backend.floor()))
        .over_sockets(format!("floor/socket/rtt{suffix}"))
}

/// Messages of 64 B flat out, in datagrams of so many bytes; each back end over the others.
fn throughputs(cases: &mut Vec<Case>, datagram_bytes: usize, suffix: &str) {
    let name = |backend: Backend| format!("{}/throughput/64{suffix}", backend.name());
    for backend in BACKENDS {
        let mut case = throughput(name(backend), backend, datagram_bytes, Path::Veth);
        if backend != Backend::Socket {
            case = case.over_sockets(name(Backend::Socket));
        }
        if backend != Backend::Uring {
            case = case.over_uring(name(Backend::Uring));
        }
        cases.push(case);
    }
    let cut = format!("{}/nogso", name(Backend::Socket));
    cases.push(throughput(cut, Backend::Socket, datagram_bytes, Path::CutVeth));
}

fn throughput(name: String, backend: Backend, datagram_bytes: usize, path: Path) -> Case {
    let link = Flow::<64> { backend, path, ..Flow::new(datagram_bytes) };
    let scenario = Throughput { link, payload_bytes: 64 };
    Case::new(name, Across { path, scenario })
}
