//! Suite `xdp`: datagrams between two pinned processes in two network namespaces, which a veth pair
//! joins, by AF_XDP, plain sockets and io_uring in turn. Needs root.
//!
//! A floor stands right before the cases that are judged by it, so that both see the same weather.

use crate::net::{Across, BareSocket, BareUring, BareXdp, Mode, Path, PingPong, XdpFlood};
use crate::oneway::OneWay;
use crate::scenario::Case;
use crate::throughput::Throughput;
use crate::wire::{Backend, Flow, Form, Streams};

/// Bytes of the messages whose round trips are measured.
const ROUND_TRIP_BYTES: [usize; 3] = [64, 512, 1400];
/// Bytes of a datagram on an Ethernet.
const DATAGRAM_BYTES: usize = 1472;
/// Bytes of a datagram that has room for one message of 64 B.
const SINGLE_BYTES: usize = 20 + 2 + 64;
/// AF_XDP as a veth pair has it at its best.
const XDP: Backend = Backend::Xdp(Mode::Generic);
/// Every back end.
const BACKENDS: [Backend; 3] = [Backend::Socket, Backend::Uring, XDP];
/// Messages a second of a paced stream.
const PACE: u32 = 100_000;
/// Shares of datagrams that are lost on their way in.
const LOSSES: [(f64, &str); 2] = [(0.01, "loss1"), (0.05, "loss5")];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    ROUND_TRIP_BYTES.into_iter().for_each(|bytes| round_trips(&mut cases, bytes));
    for (bytes, suffix) in [(DATAGRAM_BYTES, ""), (SINGLE_BYTES, "/single")] {
        throughputs(&mut cases, bytes, suffix);
    }
    losses(&mut cases);
    cases
}

/// The floors of a size, each with the back end that is judged by it.
fn round_trips(cases: &mut Vec<Case>, payload_bytes: usize) {
    let path = Path::Veth;
    let suffix = suffix(payload_bytes);
    let xdp = |mode| BareXdp { mode, payload_bytes };
    cases.push(Case::new(format!("floor/xdp/rtt{suffix}"), xdp(Mode::Generic)));
    cases.push(round_trip(XDP, payload_bytes));
    if payload_bytes == ROUND_TRIP_BYTES[0] {
        cases.push(Case::new("floor/xdp/rtt/driver", xdp(Mode::Driver)));
        cases.push(round_trip(Backend::Xdp(Mode::Driver), payload_bytes));
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
    let mode = if backend == Backend::Xdp(Mode::Driver) { "/driver" } else { "" };
    let name = format!("{}/rtt/{payload_bytes}{mode}", backend.name());
    let case = Case::new(name, PingPong { dial, path: Path::Veth, payload_bytes });
    let suffix = suffix(payload_bytes);
    case.against(format!("{}{suffix}{mode}", backend.floor()))
        .over_sockets(format!("floor/socket/rtt{suffix}"))
}

/// Messages of 64 B flat out, in datagrams of so many bytes; each back end over the others.
fn throughputs(cases: &mut Vec<Case>, datagram_bytes: usize, suffix: &str) {
    let name = |backend: Backend| format!("{}/throughput/64{suffix}", backend.name());
    let cut = format!("{}/nogso", name(Backend::Socket));
    let floor = format!("floor/{}", name(XDP));
    let link = XdpFlood::<64> { datagram_bytes };
    let scenario = Throughput { link, payload_bytes: 64 };
    cases.push(Case::new(floor.clone(), Across { path: Path::Veth, scenario }));
    for backend in BACKENDS {
        let mut case = throughput(name(backend), backend, datagram_bytes, Path::Veth);
        if backend != Backend::Socket {
            case = case.over_sockets(name(Backend::Socket));
        }
        if backend != Backend::Uring {
            case = case.over_uring(name(Backend::Uring));
        }
        if backend == XDP {
            case = case.against(floor.clone()).over_cut_sockets(cut.clone());
        }
        cases.push(case);
    }
    cases.push(throughput(cut, Backend::Socket, datagram_bytes, Path::CutVeth));
}

fn throughput(name: String, backend: Backend, datagram_bytes: usize, path: Path) -> Case {
    let link = Flow::<64> { backend, path, ..Flow::new(datagram_bytes) };
    let scenario = Throughput { link, payload_bytes: 64 };
    Case::new(name, Across { path, scenario })
}

/// Goodput and paced latency of a group's stream with losses, over those without, through the same
/// layers.
fn losses(cases: &mut Vec<Case>) {
    let path = Path::Veth;
    let (goodput, paced) = ("xdp/goodput/64", "xdp/paced/100k");
    let link = |loss| Flow::<64> {
        backend: XDP,
        form: Form::Multicast,
        path,
        loss: Some(loss),
        ..Flow::new(DATAGRAM_BYTES)
    };
    let flood = |name: String, loss| {
        let scenario = Throughput { link: link(loss), payload_bytes: 64 };
        Case::new(name, Across { path, scenario })
    };
    let drip = |name: String, loss| {
        let scenario = OneWay { link: link(loss), payload_bytes: 64, rate_per_s: PACE };
        Case::new(name, Across { path, scenario })
    };
    cases.push(flood(goodput.to_owned(), 0.0));
    cases.push(drip(paced.to_owned(), 0.0));
    for (loss, name) in LOSSES {
        cases.push(flood(format!("xdp/{name}/goodput/64"), loss).without_loss(goodput));
        cases.push(drip(format!("xdp/{name}/paced/100k"), loss).without_loss(paced));
    }
}
