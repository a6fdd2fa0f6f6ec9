//! Suite `net`: datagrams between two pinned processes of one host.
//!
//! A floor stands right before the cases that are judged by it, so that both see the same weather.

use crate::net::{BareSocket, BareUring, Flood, Path, PingPong};
use crate::oneway::OneWay;
use crate::scenario::Case;
use crate::throughput::Throughput;
use crate::wire::{Backend, Fan, Flow, Form, Holes, RingedFlow, RingedStreams, Streams, Tail};

/// Bytes of the message whose round trips are measured.
const ROUND_TRIP_BYTES: usize = 64;
/// Messages a second of a paced stream.
const PACE: u32 = 100_000;
/// Shares of datagrams that are lost on their way in.
const LOSSES: [(f64, &str); 2] = [(0.01, "loss1"), (0.05, "loss5")];

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    round_trips(&mut cases);
    floods(&mut cases);
    goodputs(&mut cases);
    paced(&mut cases);
    repairs(&mut cases);
    for receivers in [1, 4, 16] {
        cases.push(Case::new(format!("receivers/{receivers}"), Fan { receivers }));
    }
    cases
}

fn round_trips(cases: &mut Vec<Case>) {
    let payload_bytes = ROUND_TRIP_BYTES;
    for (path, suffix) in [(Path::Loopback, ""), (Path::Veth, "/veth")] {
        let socket = PingPong { dial: BareSocket, path, payload_bytes };
        cases.push(Case::new(format!("floor/socket/rtt{suffix}"), socket));
        cases.push(round_trip(Backend::Socket, Form::Unicast, path, suffix));
        let uring = PingPong { dial: BareUring, path, payload_bytes };
        cases.push(Case::new(format!("floor/uring/rtt{suffix}"), uring));
        cases.push(round_trip(Backend::Uring, Form::Unicast, path, suffix));
    }
    cases.push(round_trip(Backend::Socket, Form::Multicast, Path::Loopback, ""));
    let dial = RingedStreams { backend: Backend::Socket };
    let ringed = PingPong { dial, path: Path::Loopback, payload_bytes };
    let ringed = Case::new("socket/rtt/64/ring", ringed);
    cases.push(ringed.against("floor/socket/rtt").instead_of("socket/rtt/64"));
    for (loss, name) in LOSSES {
        let backend = Backend::Socket;
        let dial = Streams { backend, form: Form::Unicast, loss };
        let case = PingPong { dial, path: Path::Loopback, payload_bytes };
        let case = Case::new(format!("socket/rtt/64/{name}"), case);
        cases.push(case.against("floor/socket/rtt").without_loss("socket/rtt/64"));
    }
}

/// Our round trip, judged by the floor of its back end on that path.
fn round_trip(backend: Backend, form: Form, path: Path, suffix: &str) -> Case {
    let dial = Streams { backend, form, loss: 0.0 };
    let backend_name = backend.name();
    let name = match form {
        Form::Unicast => format!("{backend_name}/rtt/64{suffix}"),
        Form::Multicast => format!("multicast/{backend_name}/rtt/64{suffix}"),
    };
    let case = Case::new(name, PingPong { dial, path, payload_bytes: ROUND_TRIP_BYTES });
    case.against(format!("{}{suffix}", backend.floor()))
}

/// The floor of a flood, and our streams of the same messages in the same datagrams.
fn flood<const N: usize>(cases: &mut Vec<Case>, datagram_bytes: usize) {
    let floor = format!("floor/gso/{N}/{datagram_bytes}");
    let link = Flood::<N> { datagram_bytes };
    cases.push(Case::new(floor.clone(), Throughput { link, payload_bytes: N }));
    for (backend, suffix) in [(Backend::Socket, ""), (Backend::Uring, "/uring")] {
        let link = Flow::<N> { backend, ..Flow::new(datagram_bytes) };
        let name = format!("throughput/{N}/{datagram_bytes}{suffix}");
        cases.push(throughput(name, link).against(floor.clone()));
    }
    let name = format!("throughput/{N}/{datagram_bytes}");
    let link = RingedFlow::<N> { datagram_bytes };
    let ringed = Case::new(format!("{name}/ring"), Throughput { link, payload_bytes: N });
    cases.push(ringed.against(floor).instead_of(name));
}

fn throughput<const N: usize>(name: String, link: Flow<N>) -> Case {
    Case::new(name, Throughput { link, payload_bytes: N })
}

fn floods(cases: &mut Vec<Case>) {
    flood::<64>(cases, 1408);
    flood::<1024>(cases, 1408);
    flood::<1024>(cases, 8192);
    flood::<1024>(cases, 64_512);
}

/// Goodput with losses, over that without, by streams of the same form through the same layer.
fn goodputs(cases: &mut Vec<Case>) {
    for (form, prefix, receivers) in [(Form::Unicast, "", 1), (Form::Multicast, "multicast/", 3)] {
        let flow = |loss| Flow::<64> { form, receivers, loss: Some(loss), ..Flow::new(1408) };
        let lossfree = format!("{prefix}goodput/64");
        cases.push(throughput(lossfree.clone(), flow(0.0)).against("floor/gso/64/1408"));
        for (loss, name) in LOSSES {
            let case = throughput(format!("{lossfree}/{name}"), flow(loss));
            cases.push(case.against("floor/gso/64/1408").without_loss(lossfree.clone()));
        }
    }
}

/// One-way latency of a paced group stream, with and without losses.
fn paced(cases: &mut Vec<Case>) {
    let one_way = |loss| {
        let link = Flow::<64> { form: Form::Multicast, loss: Some(loss), ..Flow::new(1408) };
        OneWay { link, payload_bytes: 64, rate_per_s: PACE }
    };
    let lossfree = "paced/multicast/100k";
    cases.push(Case::new(lossfree, one_way(0.0)));
    let lossy = Case::new(format!("{lossfree}/loss1"), one_way(0.01));
    cases.push(lossy.without_loss(lossfree));
}

fn repairs(cases: &mut Vec<Case>) {
    let link = Flow::<64> { loss: Some(0.01), ..Flow::new(1408) };
    let holes = Holes(OneWay { link, payload_bytes: 64, rate_per_s: PACE });
    cases.push(Case::new("repair/latency", holes).against("floor/socket/rtt"));
    let tail = Tail { backend: Backend::Socket };
    cases.push(Case::new("repair/tail", tail).against("floor/socket/rtt"));
}
