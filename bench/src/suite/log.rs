//! Suite `log`: streams on a disk.
//!
//! A floor stands right before the cases that are judged by it, so that both see the same weather.

use crate::brokers::{Append, Nats, Redis, Replay, Syncing};
use crate::disk::{Burst, Copy, Read, Write};
use crate::scenario::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    appends::<64>(&mut cases);
    appends::<1024>(&mut cases);
    replays::<64>(&mut cases);
    replays::<1024>(&mut cases);
    peers(&mut cases, 64);
    peers(&mut cases, 1024);
    cases
}

/// Servers that keep logs.
fn peers(cases: &mut Vec<Case>, payload_bytes: usize) {
    let redis = [("redis", Syncing::No), ("redis/everysec", Syncing::EverySecond)];
    for (name, syncing) in redis {
        let append = Append { broker: Redis(syncing), payload_bytes };
        cases.push(Case::new(format!("{name}/append/{payload_bytes}"), append));
    }
    let append = Append { broker: Nats, payload_bytes };
    cases.push(Case::new(format!("nats/append/{payload_bytes}"), append));
    let replay = Replay { broker: Redis(Syncing::No), payload_bytes };
    cases.push(Case::new(format!("redis/replay/{payload_bytes}"), replay));
    let replay = Replay { broker: Nats, payload_bytes };
    cases.push(Case::new(format!("nats/replay/{payload_bytes}"), replay));
}

/// What a disk takes, by how it is asked.
fn appends<const N: usize>(cases: &mut Vec<Case>) {
    let bursts = [("", Burst::Cached), ("-sync", Burst::Synced), ("-sustained", Burst::Sustained)];
    for (suffix, burst) in bursts {
        let floor = format!("floor/write{suffix}/{N}");
        cases.push(Case::new(floor, Write { payload_bytes: N, burst }));
    }
}

/// What memory gives back.
fn replays<const N: usize>(cases: &mut Vec<Case>) {
    cases.push(Case::new(format!("floor/read/{N}"), Read::<N>));
    cases.push(Case::new(format!("floor/copy/{N}"), Copy::<N>));
}
