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

/// The floor's round trip of a payload size.
fn floor_round_trip(bytes: usize) -> String {
    match bytes {
        // One line carries them all: one floor.
        0..=56 => "floor/ring".into(),
        _ => format!("floor/rtt/{bytes}"),
    }
}

/// The floor's throughput of a payload size.
fn floor_throughput(bytes: usize) -> String {
    match bytes {
        0..=56 => "floor/throughput/48".into(),
        _ => format!("floor/throughput/{bytes}"),
    }
}

fn round_trips(cases: &mut Vec<Case>) {
    cases.extend([
        round_trip(floor_round_trip(48), Floor::<48>, 48),
        round_trip(floor_round_trip(64), Floor::<64>, 64),
        round_trip(floor_round_trip(256), Floor::<256>, 256),
        round_trip(floor_round_trip(1024), Floor::<1024>, 1024),
        round_trip(floor_round_trip(4096), Floor::<4096>, 4096),
    ]);
    for bytes in [16, 48, 64, 256, 1024, 4096] {
        let name = format!("ring/rtt/{bytes}");
        cases.push(round_trip(name, Ring, bytes).against(floor_round_trip(bytes)));
    }
}

fn one_ways(cases: &mut Vec<Case>) {
    for (rate_per_s, rate) in [(LOW_RATE, "100k"), (HIGH_RATE, "1M")] {
        let floor = format!("floor/oneway/48/{rate}");
        cases.push(one_way(floor.clone(), Floor::<48>, 48, rate_per_s));
        let name = format!("ring/oneway/48/{rate}");
        cases.push(one_way(name, Ring, 48, rate_per_s).against(floor));
    }
    for bytes in [16, 256, 1024, 4096] {
        let name = format!("ring/oneway/{bytes}/100k");
        cases.push(one_way(name, Ring, bytes, LOW_RATE));
    }
}

fn throughputs(cases: &mut Vec<Case>) {
    cases.extend([
        throughput(floor_throughput(48), Floor::<48>, 48),
        throughput(floor_throughput(64), Floor::<64>, 64),
        throughput(floor_throughput(256), Floor::<256>, 256),
        throughput(floor_throughput(1024), Floor::<1024>, 1024),
    ]);
    for bytes in [16, 48, 64, 256, 1024] {
        let name = format!("ring/throughput/{bytes}");
        let batched = throughput(format!("{name}/batch"), BatchedRing, bytes);
        let claimed = throughput(format!("{name}/claim"), ClaimedRing, bytes);
        let all = [throughput(name, Ring, bytes), batched, claimed];
        cases.extend(all.map(|case| case.against(floor_throughput(bytes))));
    }
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
        let case = round_trip(name, WaitingRing(strategy), 48);
        cases.push(case.against(floor_round_trip(48)));
    }
}

/// A peer's round trip and throughput, judged by the floor and by our ring.
fn peer<L: Link>(name: &str, link: impl Fn() -> L) -> [Case; 2] {
    let bytes = peers::PAYLOAD_BYTES;
    [
        round_trip(format!("{name}/rtt/{bytes}"), link(), bytes)
            .against(floor_round_trip(bytes))
            .rival_of(format!("ring/rtt/{bytes}")),
        throughput(format!("{name}/throughput/{bytes}"), link(), bytes)
            .against(floor_throughput(bytes))
            .rival_of(format!("ring/throughput/{bytes}")),
    ]
}

/// Peers that cannot leave the process.
fn thread_peers(cases: &mut Vec<Case>) {
    let all = [
        peer("array-queue", || ThreadLink::new(peers::Array)),
        peer("crossbeam-channel", || ThreadLink::new(peers::Channel)),
        peer("rtrb", || ThreadLink::new(peers::Rtrb)),
        peer("disruptor", || ThreadLink::new(peers::Disruptor)),
    ];
    cases.extend(all.into_iter().flatten().map(Case::in_threads));
}
