//! Suite `ipc`: messages between two pinned processes of one host.

use crate::floor::Floor;
use crate::line::Line;
use crate::link::Link;
use crate::ring::{BatchedRing, ClaimedRing, Ring};
use crate::roundtrip::RoundTrip;
use crate::scenario::Case;
use crate::throughput::Throughput;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new("floor/line", Line)];
    round_trips(&mut cases);
    throughputs(&mut cases);
    cases
}

fn round_trip(name: String, link: impl Link, payload_bytes: usize) -> Case {
    let scenario = RoundTrip {
        link,
        payload_bytes,
    };
    Case::new(name, scenario)
}

fn throughput(name: String, link: impl Link, payload_bytes: usize) -> Case {
    let scenario = Throughput {
        link,
        payload_bytes,
    };
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
