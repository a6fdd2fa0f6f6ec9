//! Suite `log`: streams on a disk.
//!
//! A floor stands right before the cases that are judged by it, so that both see the same weather.

use crate::brokers::{self, Nats, Redis, Syncing};
use crate::disk::{Burst, Copy, Read, Write};
use crate::log::{Append, Key, Replay, Restart, Seek};
use crate::scenario::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    appends::<64>(&mut cases);
    appends::<1024>(&mut cases);
    replays::<64>(&mut cases);
    replays::<1024>(&mut cases);
    for (suffix, key) in [("", Key::Sequence), ("/time", Key::Time)] {
        cases.push(Case::new(format!("log/seek{suffix}"), Seek { key, cold: false }).alone());
        cases.push(Case::new(format!("log/seek{suffix}/cold"), Seek { key, cold: true }).alone());
    }
    cases.push(Case::new("log/restart", Restart { cold: false }).alone());
    cases.push(Case::new("log/restart/cold", Restart { cold: true }).alone());
    peers(&mut cases, 64);
    peers(&mut cases, 1024);
    cases
}

/// Servers that keep logs.
fn peers(cases: &mut Vec<Case>, payload_bytes: usize) {
    let ours = |what: &str| format!("log/{what}/{payload_bytes}");
    let redis = [("redis", Syncing::No), ("redis/everysec", Syncing::EverySecond)];
    for (name, syncing) in redis {
        let append = brokers::Append { broker: Redis(syncing), payload_bytes };
        let case = Case::new(format!("{name}/append/{payload_bytes}"), append);
        cases.push(case.rival_of(ours("append")));
    }
    let append = brokers::Append { broker: Nats, payload_bytes };
    let case = Case::new(format!("nats/append/{payload_bytes}"), append);
    cases.push(case.rival_of(ours("append")));
    let replay = brokers::Replay { broker: Redis(Syncing::No), payload_bytes };
    let case = Case::new(format!("redis/replay/{payload_bytes}"), replay);
    cases.push(case.rival_of(ours("replay")));
    let replay = brokers::Replay { broker: Nats, payload_bytes };
    let case = Case::new(format!("nats/replay/{payload_bytes}"), replay);
    cases.push(case.rival_of(ours("replay")));
}

/// What a disk takes, by how it is asked.
fn appends<const N: usize>(cases: &mut Vec<Case>) {
    let bursts = [("", Burst::Cached), ("-sync", Burst::Synced), ("-sustained", Burst::Sustained)];
    for (suffix, burst) in bursts {
        let floor = format!("floor/write{suffix}/{N}");
        cases.push(Case::new(floor.clone(), Write { payload_bytes: N, burst }).alone());
        let append = Case::new(format!("log/append{suffix}/{N}"), Append::<N> { burst });
        cases.push(append.against(floor).alone());
    }
}

/// What memory gives back.
fn replays<const N: usize>(cases: &mut Vec<Case>) {
    let floor = format!("floor/read/{N}");
    cases.push(Case::new(floor.clone(), Read::<N>).alone());
    cases.push(Case::new(format!("floor/copy/{N}"), Copy::<N>).alone());
    cases.push(Case::new(format!("log/replay/{N}"), Replay::<N>).against(floor).alone());
}
