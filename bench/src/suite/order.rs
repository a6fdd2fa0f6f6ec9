//! Suite `order`: from a client's command to what the engine answers, and what becomes of it when a
//! sequencer is killed.

use crate::line::Line;
use crate::order::{
    COMMAND_BYTES, FRAME_BYTES, Failover, FullPath, Inline, Prefilled, Replay, RiskChecks,
    Sequencing, Three,
};
use crate::ring::Ring;
use crate::roundtrip::RoundTrip;
use crate::scenario::Case;

fn ring<const N: usize>() -> Case {
    let scenario = RoundTrip { link: Ring::<N>, payload_bytes: N };
    Case::new(format!("ring/rtt/{N}"), scenario)
}

pub(super) fn cases() -> Vec<Case> {
    let (floor, same) = ("floor/line", format!("ring/rtt/{COMMAND_BYTES}"));
    let round_trip = |case: Case| case.against(floor).over_ring(same.clone());
    vec![
        Case::new(floor, Line),
        ring::<COMMAND_BYTES>().against(floor),
        ring::<FRAME_BYTES>().against(floor),
        round_trip(Case::new("order/roundtrip", Inline)),
        round_trip(Case::new("order/roundtrip/three", Three)),
        Case::new("order/sequencer", Sequencing),
        Case::new("order/sequencer/prefilled", Prefilled).of_any_class(),
        Case::new("order/path", FullPath).of_any_class(),
        Case::new("order/risk", RiskChecks::DESK).of_any_class(),
        Case::new("order/risk/wide", RiskChecks::BROKER).of_any_class(),
        Case::new("order/failover", Failover).of_any_class().pooled(),
        Case::new("order/replay", Replay).of_any_class(),
    ]
}
