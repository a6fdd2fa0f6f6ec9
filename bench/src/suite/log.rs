//! Suite `log`: streams on a disk.
//!
//! A floor stands right before the cases that are judged by it, so that both see the same weather.

use crate::brokers::{self, Nats, Redis, Syncing};
use crate::disk::{Burst, Copy, Read, Write};
use crate::log::{Append, Attached, Heat, Join, Key, Publish, Record, Replay, Restart, Seek};
use crate::scenario::Case;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    appends::<64>(&mut cases);
    appends::<1024>(&mut cases);
    replays::<64>(&mut cases);
    replays::<1024>(&mut cases);
    for (suffix, key) in [("", Key::Sequence), ("/time", Key::Time)] {
        let heats = [("", Heat::Warm), ("/cold-index", Heat::ColdIndex), ("/cold", Heat::Cold)];
        for (state, heat) in heats {
            let seek = Case::new(format!("log/seek{suffix}{state}"), Seek { key, heat });
            cases.push(seek.of_any_class());
        }
    }
    for (state, cold) in [("", false), ("/cold", true)] {
        cases.push(Case::new(format!("log/restart{state}"), Restart { cold }).of_any_class());
    }
    cases.push(Case::new("log/join", Join).of_any_class());
    let consumer = "publish/consumer";
    cases.push(Case::new(consumer, Publish(Attached::Consumer)));
    for (suffix, burst) in [("", Burst::Cached), ("-sync", Burst::Synced)] {
        let publish = Publish(Attached::Recorder(burst));
        cases.push(Case::new(format!("publish/recorder{suffix}"), publish).against(consumer));
    }
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
        cases.push(Case::new(floor.clone(), Write { payload_bytes: N, burst }).of_any_class());
        let append = Case::new(format!("log/append{suffix}/{N}"), Append::<N> { burst });
        cases.push(append.against(floor.clone()).of_any_class());
        let record = Case::new(format!("log/record{suffix}/{N}"), Record::<N> { burst });
        cases.push(record.against(floor).of_any_class());
    }
}

/// What memory gives back.
fn replays<const N: usize>(cases: &mut Vec<Case>) {
    let floor = format!("floor/read/{N}");
    cases.push(Case::new(floor.clone(), Read::<N>).of_any_class());
    cases.push(Case::new(format!("floor/copy/{N}"), Copy::<N>).of_any_class());
    cases.push(Case::new(format!("log/replay/{N}"), Replay::<N>).against(floor).of_any_class());
}
