//! The demo from outside: what it finds, and that it leaves nothing behind however it ends.

mod support;

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::{Rings, Running};

fn is_empty(directory: &Path) -> bool {
    directory.read_dir().expect("readable").next().is_none()
}

#[test]
fn every_subscriber_sees_every_message() {
    let rings = Rings::new();
    let directory = rings.path().to_str().expect("text");
    let ended = rings
        .command(["demo", "--quick", "--json", "--rate", "50000", "--dir", directory])
        .current_dir("/")
        .output()
        .expect("runs from anywhere");
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{text}{}", String::from_utf8_lossy(&ended.stderr));
    let report: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
    assert_eq!(report["sound"], true, "{report:#}");
    assert_eq!(report["source"]["messages"], 8101);
    let acts = report["acts"].as_array().expect("acts");
    assert_eq!(acts.len(), 7);
    let (ring, rest) = acts.split_at(2);
    let (wire, rest) = rest.split_at(3);
    let (saga, trading) = rest.split_at(1);
    for (act, messages) in ring.iter().zip([25 * 8101, 3 * 8101]) {
        assert_eq!(act["messages"], messages);
        // Whole replays: the sample's bytes and a stamp of eight for each message.
        assert_eq!(act["bytes"], messages / 8101 * (688_083 + 8 * 8101));
        let subscribers = act["subscribers"].as_array().expect("subscribers");
        assert_eq!(subscribers.len(), 2);
        for subscriber in subscribers {
            assert_eq!(subscriber["gaps"], 0, "{act:#}");
            assert_eq!(subscriber["messages"], messages, "{act:#}");
            assert_eq!(subscriber["digest"], act["digest"], "{act:#}");
        }
    }
    let latency = &acts[1]["subscribers"][0]["latency"];
    let percentile = |key: &str| latency[key].as_u64().expect("a number");
    assert!(percentile("min_ns") <= percentile("p50_ns"), "{latency}");
    assert!(percentile("p50_ns") <= percentile("p9999_ns"), "{latency}");
    assert!(percentile("p9999_ns") <= percentile("max_ns"), "{latency}");
    assert!(acts[0]["subscribers"][0]["latency"].is_null());
    for (act, messages) in wire.iter().zip([12 * 8101, 3 * 8101, 8112]) {
        let receiver = &act["receiver"];
        assert_eq!((&act["messages"], &receiver["messages"]), (&messages.into(), &messages.into()));
        assert_eq!(receiver["digest"], act["digest"], "{act:#}");
        assert_eq!(receiver["lost"], 0, "{act:#}");
        let count = |of: &serde_json::Value| of.as_u64().expect("a number");
        let injected = &receiver["injected"];
        assert!(count(&injected["lost"]) > 0 && count(&injected["duplicated"]) > 0, "{act:#}");
        assert!(count(&receiver["gaps"]) > 0, "{act:#}");
    }
    for act in &wire[..2] {
        let count = |key: &str| act["receiver"][key].as_u64().expect("a number");
        assert_eq!(count("repaired") + count("reordered"), count("missed"), "{act:#}");
        assert!(act["receiver"]["repaired"].as_u64() > Some(0), "{act:#}");
        let repair = &act["receiver"]["repair"];
        assert!(repair["p50_ns"].as_u64() <= repair["p99_ns"].as_u64(), "{act:#}");
    }
    let lines = &wire[2]["receiver"];
    assert_eq!(lines["first_sequence"], 482_727);
    assert_eq!(lines["next_sequence"], 490_839);
    goes_on(&saga[0]);
    orders_agree(&trading[0]);
    assert!(is_empty(rings.path()), "the ring and the log are gone");
}

/// Of the act whose subscriber is killed.
fn goes_on(saga: &serde_json::Value) {
    let messages = 3 * 8101;
    let count = |of: &serde_json::Value| of.as_u64().expect("a number");
    assert_eq!((count(&saga["messages"]), count(&saga["recorded"])), (messages, messages));
    let successor = &saga["successor"];
    assert_eq!((&successor["digest"], count(&successor["gaps"])), (&saga["digest"], 0), "{saga:#}");
    let killed_at = count(&saga["killed_at"]);
    assert!((messages / 2..=messages / 4 * 3).contains(&killed_at), "{saga:#}");
    assert_eq!(count(&successor["from_file"]), killed_at, "{saga:#}");
    // What the ring had overwritten by then came from the log, and what is the log's from there.
    assert!(count(&saga["ring_began_at"]) > killed_at + 1, "{saga:#}");
    let overwritten = count(&saga["ring_began_at"]) - killed_at - 1;
    assert!(count(&successor["from_log"]) >= overwritten, "{saga:#}");
}

/// Of the act whose engine is killed.
fn orders_agree(act: &serde_json::Value) {
    let count = |of: &serde_json::Value| of.as_u64().expect("a number");
    assert_eq!((&act["terms"], &act["missed"]), (&2.into(), &0.into()), "{act:#}");
    assert_eq!(act["differences"], serde_json::json!([]), "{act:#}");
    for trader in act["traders"].as_array().expect("traders") {
        assert_eq!((&trader["commands"], &trader["refused"]), (&2430.into(), &0.into()));
        assert!(count(&trader["accepted"]) > 0 && count(&trader["fills"]) > 0, "{act:#}");
        let latency = &trader["latency"];
        assert!(count(&latency["p50_ns"]) <= count(&latency["max_ns"]), "{act:#}");
    }
    // Two traders' commands and the definitions of nine instruments, at least.
    assert!(count(&act["records"]) > 2 * 2430 + 9, "{act:#}");
    assert_eq!(act["records"], act["recorded"], "{act:#}");
    assert_eq!((&act["chained"], &act["records"]), (&act["audited"]["entries"], &act["replayed"]));
    assert!(count(&act["own_records"]) > 2 * 2430, "{act:#}");
    let bridged = &act["bridged"];
    assert!(count(&bridged["inward"]["lost"]) > 0, "{act:#}");
    assert!(count(&bridged["outward"]["datagrams"]) > 0, "{act:#}");
}

#[test]
fn people_get_text() {
    let rings = Rings::new();
    let directory = rings.path().to_str().expect("text");
    let arguments = ["demo", "--messages", "1000", "--paced-messages", "100", "--dir", directory];
    let ended = rings.run(arguments).expect(0);
    for part in [
        "MOEX FORTS",
        "BSD 2-clause",
        "1,000 messages",
        "100 messages",
        "p99.99",
        "equal",
        "ppm",
        "multicast over a bad line",
        "repaired",
        "sequence 482727 to 490838",
        "SIGKILL to the subscriber",
        "its successor",
        "SIGKILL to the engine",
        "tick to trade",
        "no difference",
        "Every subscriber saw every message",
    ] {
        assert!(ended.out().contains(part), "{part}: {}", ended.out());
    }
}

/// Starts a demo that would go on for hours, and returns once its three processes are at work.
fn long_demo(rings: &Rings) -> (Running, Vec<i32>) {
    let directory = rings.path().to_str().expect("text");
    let mut demo = rings.start([
        "demo",
        "--messages",
        "1",
        "--paced-messages",
        "1000000000",
        "--rate",
        "1000",
        "--dir",
        directory,
    ]);
    let pid = demo.pid();
    loop {
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(children).expect("the demo runs");
        let children: Vec<i32> =
            children.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
        let arguments = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        let paced = |pid: &&i32| arguments(pid).is_ok_and(|text| text.contains("demo-paced"));
        if children.iter().filter(paced).count() == 3 {
            return (demo, children);
        }
        std::thread::yield_now();
    }
}

fn are_gone(pids: &[i32]) -> bool {
    pids.iter().all(|&pid| kill(Pid::from_raw(pid), None).is_err())
}

#[test]
fn interrupted_it_leaves_nothing_behind() {
    let rings = Rings::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (mut demo, children) = long_demo(&rings);
        demo.signal(signal);
        let ended = demo.end().expect(1);
        assert!(ended.err().contains("interrupted"), "{}", ended.err());
        assert!(are_gone(&children) && is_empty(rings.path()));
    }
}

#[test]
fn a_process_that_dies_ends_the_demo() {
    let rings = Rings::new();
    for victim in 0..3 {
        let (demo, children) = long_demo(&rings);
        kill(Pid::from_raw(children[victim]), Signal::SIGKILL).expect("it runs");
        let ended = demo.end().expect(1);
        assert!(ended.err().contains("ended early"), "{}", ended.err());
        assert!(are_gone(&children) && is_empty(rings.path()));
    }
}

#[test]
fn it_needs_a_directory_that_exists() {
    let rings = Rings::new();
    let ended = rings.run(["demo", "--quick", "--dir", "/no/such/directory"]).expect(1);
    assert!(ended.err().contains("/no/such/directory"), "{}", ended.err());
    rings.run(["demo", "--rate", "0"]).expect(2);
}

/// Whether a process has ended, reaped or not.
fn has_ended(pid: i32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).map_or(true, |text| text.is_empty())
}

#[test]
fn between_hosts_it_leaves_nothing_behind_even_if_killed() {
    let rings = Rings::new();
    let directory = rings.path().to_str().expect("text");
    let forever = ["demo", "--messages", "1", "--rate", "50", "--paced-messages", "200"];
    let mut demo = rings.start_all(&[&forever[..], &["--dir", directory]].concat());
    let pid = demo.pid();
    let children = loop {
        let children = format!("/proc/{pid}/task/{pid}/children");
        let children = std::fs::read_to_string(children).expect("the demo runs");
        let children: Vec<i32> =
            children.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect();
        let arguments = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        let wire = |pid: &&i32| arguments(pid).is_ok_and(|text| text.contains("239.255.78.1"));
        if children.iter().filter(wire).count() == 2 {
            break children;
        }
        std::thread::yield_now();
    };
    // The namespaces have no name: they go with the last process that is in one, or holds it.
    assert!(!Path::new("/run/netns/sender").exists() && !Path::new("/run/netns/receiver").exists());
    demo.signal(Signal::SIGKILL);
    demo.end();
    while !children.iter().all(|pid| has_ended(*pid)) {
        std::thread::yield_now(); // the kernel kills them with it
    }
}
