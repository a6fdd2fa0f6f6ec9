//! Suite `ipc`: messages between two pinned processes of one host.

use gapless_shm::WaitStrategy;

use crate::floor::Floor;
use crate::line::Line;
use crate::link::Link;
use crate::lossy::Lossy;
use crate::memcpy::Memcpy;
use crate::oneway::OneWay;
use crate::peers::{self, ThreadLink};
use crate::publish::Publish;
use crate::ring::{BatchedRing, ClaimedRing, Ring, WaitingRing};
use crate::roundtrip::RoundTrip;
use crate::scenario::Case;
use crate::throughput::Throughput;

const LOW_RATE: u32 = 100_000;
const HIGH_RATE: u32 = 1_000_000;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new("floor/line", Line), Case::new("floor/memcpy", Memcpy)];
    round_trips(&mut cases);
    one_ways(&mut cases);
    throughputs(&mut cases);
    costs(&mut cases);
    thread_peers(&mut cases);
    #[cfg(feature = "aeron")]
    aeron(&mut cases);
    #[cfg(feature = "iceoryx2")]
    cases.extend(peer("iceoryx2", peers::PAYLOAD_BYTES, || peers::Iceoryx2));
    #[cfg(feature = "zeromq")]
    cases.extend(peer("zeromq", peers::PAYLOAD_BYTES, || peers::ZeroMq));
    cases
}

fn round_trip(name: String, link: impl Link, payload_bytes: usize) -> Case {
    let scenario = RoundTrip { link, payload_bytes };
    Case::new(name, scenario)
}

fn throughput(name: String, link: impl Link, payload_bytes: usize) -> Case {
    let scenario = Throughput { link, payload_bytes };
    Case::new(name, scenario)
}

fn one_way(name: String, link: impl Link, payload_bytes: usize, rate_per_s: u32) -> Case {
    let scenario = OneWay { link, payload_bytes, rate_per_s };
    Case::new(name, scenario)
}

/// The payload of the floor that a payload is judged by: one line carries all up to 56 B, so these
/// share the floor of 48 B.
fn floor_payload(bytes: usize) -> usize {
    if bytes <= 56 { 48 } else { bytes }
}

/// The name of the floor's round trip for a payload size.
fn floor_round_trip(bytes: usize) -> String {
    match floor_payload(bytes) {
        48 => "floor/ring".into(),
        bytes => format!("floor/rtt/{bytes}"),
    }
}

/// The name of the floor's throughput for a payload size.
fn floor_throughput(bytes: usize) -> String {
    format!("floor/throughput/{}", floor_payload(bytes))
}

/// The floor and our ring, for a payload size known at compile time.
fn sized_round_trip<const N: usize>(cases: &mut Vec<Case>) {
    let floor = floor_round_trip(N);
    if floor_payload(N) == N {
        cases.push(round_trip(floor.clone(), Floor::<N>, N));
    }
    cases.push(round_trip(format!("ring/rtt/{N}"), Ring::<N>, N).against(floor));
}

fn round_trips(cases: &mut Vec<Case>) {
    sized_round_trip::<16>(cases);
    sized_round_trip::<48>(cases);
    sized_round_trip::<64>(cases);
    sized_round_trip::<256>(cases);
    sized_round_trip::<1024>(cases);
    sized_round_trip::<4096>(cases);
}

fn one_ways(cases: &mut Vec<Case>) {
    for (rate_per_s, rate) in [(LOW_RATE, "100k"), (HIGH_RATE, "1M")] {
        let floor = format!("floor/oneway/48/{rate}");
        cases.push(one_way(floor.clone(), Floor::<48>, 48, rate_per_s));
        let name = format!("ring/oneway/48/{rate}");
        cases.push(one_way(name, Ring::<48>, 48, rate_per_s).against(floor));
    }
    cases.extend([
        one_way("ring/oneway/16/100k".into(), Ring::<16>, 16, LOW_RATE),
        one_way("ring/oneway/256/100k".into(), Ring::<256>, 256, LOW_RATE),
        one_way("ring/oneway/1024/100k".into(), Ring::<1024>, 1024, LOW_RATE),
        one_way("ring/oneway/4096/100k".into(), Ring::<4096>, 4096, LOW_RATE),
    ]);
}

/// The floor and our ring in its three styles, for a payload size known at compile time.
fn sized_throughput<const N: usize>(cases: &mut Vec<Case>) {
    let floor = floor_throughput(N);
    if floor_payload(N) == N {
        cases.push(throughput(floor.clone(), Floor::<N>, N));
    }
    let name = format!("ring/throughput/{N}");
    let batched = throughput(format!("{name}/batch"), BatchedRing::<N>, N);
    let claimed = throughput(format!("{name}/claim"), ClaimedRing::<N>, N);
    let all = [throughput(name, Ring::<N>, N), batched, claimed];
    cases.extend(all.map(|case| case.against(floor.clone())));
}

fn throughputs(cases: &mut Vec<Case>) {
    sized_throughput::<16>(cases);
    sized_throughput::<48>(cases);
    sized_throughput::<64>(cases);
    sized_throughput::<256>(cases);
    sized_throughput::<1024>(cases);
}

/// What publishing costs, lossy mode, and the wait strategies.
fn costs(cases: &mut Vec<Case>) {
    for consumers in [0, 1, 8, 32] {
        let name = format!("ring/publish/consumers/{consumers}");
        cases.push(Case::new(name, Publish { consumers }));
    }
    cases.push(Case::new("ring/lossy/48", Lossy).against(floor_throughput(48)));
    for (strategy, name) in [
        (WaitStrategy::BusySpin, "busy-spin"),
        (WaitStrategy::SpinYield, "spin-yield"),
        (WaitStrategy::Park, "park"),
    ] {
        let name = format!("ring/rtt/48/{name}");
        let case = round_trip(name, WaitingRing::<48>(strategy), 48);
        cases.push(case.against(floor_round_trip(48)));
    }
}

/// A peer's round trip and throughput, judged by the floor and by our ring.
fn peer<L: Link>(name: &str, bytes: usize, link: impl Fn() -> L) -> [Case; 2] {
    [
        round_trip(format!("{name}/rtt/{bytes}"), link(), bytes)
            .against(floor_round_trip(bytes))
            .rival_of(format!("ring/rtt/{bytes}")),
        throughput(format!("{name}/throughput/{bytes}"), link(), bytes)
            .against(floor_throughput(bytes))
            .rival_of(format!("ring/throughput/{bytes}")),
    ]
}

/// Aeron in the room that all others have, and flat out in the room that it takes by default.
#[cfg(feature = "aeron")]
fn aeron(cases: &mut Vec<Case>) {
    for bytes in [64, 1024] {
        cases.extend(peer("aeron", bytes, || peers::AeronIpc::SameRoom));
        let name = format!("aeron/throughput/{bytes}/default-terms");
        let case = throughput(name, peers::AeronIpc::DefaultTerms, bytes);
        let case = case.against(floor_throughput(bytes));
        cases.push(case.rival_of(format!("ring/throughput/{bytes}")));
    }
}

/// Peers that cannot leave the process.
fn thread_peers(cases: &mut Vec<Case>) {
    let bytes = peers::PAYLOAD_BYTES;
    let all = [
        peer("array-queue", bytes, || ThreadLink::new(peers::Array)),
        peer("crossbeam-channel", bytes, || ThreadLink::new(peers::Channel)),
        peer("rtrb", bytes, || ThreadLink::new(peers::Rtrb)),
        peer("disruptor", bytes, || ThreadLink::new(peers::Disruptor)),
    ];
    cases.extend(all.into_iter().flatten().map(Case::in_threads));
}
