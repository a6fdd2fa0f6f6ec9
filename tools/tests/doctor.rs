//! `doctor` from outside: it tells something on any host, in text and JSON, and fails only for an
//! interface that is not there.

mod support;

use std::process::Command;

use serde_json::Value;
use support::Rings;

fn findings(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

#[test]
fn every_finding_is_a_line_of_json_with_all_its_fields() {
    let rings = Rings::new();
    let ended = rings.run(["doctor", "--json", "--interface", "lo"]).expect(0);
    let findings = findings(ended.out());
    for finding in &findings {
        let status = finding["status"].as_str().expect("a status");
        assert!(["ok", "note", "warning", "unknown"].contains(&status), "{finding}");
        for key in ["section", "check", "found"] {
            assert!(finding[key].is_string(), "{key}: {finding}");
        }
        let bad = status == "note" || status == "warning";
        assert_eq!(finding["why"].is_string(), bad, "{finding}");
        assert!(status != "warning" || finding["fix"].is_string(), "{finding}");
        let is_interface = finding["section"] == "interface";
        assert_eq!(finding["interface"] == "lo", is_interface, "{finding}");
    }
    let mut sections: Vec<&str> = findings.iter().filter_map(|f| f["section"].as_str()).collect();
    sections.dedup();
    let expected = [
        "kernel",
        "processor",
        "clock",
        "memory",
        "limits",
        "sockets",
        "io_uring",
        "AF_XDP",
        "interrupts",
        "interface",
    ];
    assert_eq!(sections, expected);
    let release = findings.iter().find(|finding| finding["check"] == "release").expect("release");
    let uname = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("readable");
    let found = release["found"].as_str().expect("text");
    assert!(found.starts_with(uname.trim()), "{release}");
}

#[test]
fn the_text_says_the_same() {
    let rings = Rings::new();
    let json = rings.run(["doctor", "--json", "--interface", "lo"]).expect(0);
    let text = rings.run(["doctor", "--interface", "lo"]).expect(0);
    let findings = findings(json.out());
    for finding in &findings {
        let check = finding["check"].as_str().expect("text");
        assert!(text.out().contains(check), "{check}: {}", text.out());
    }
    assert!(text.out().contains("\ninterface lo\n"), "{}", text.out());
    let summary = text.out().lines().last().expect("a summary");
    assert!(summary.starts_with(&format!("{} findings: ", findings.len())), "{summary}");
}

#[test]
fn an_interface_that_is_not_there_is_an_error_that_names_those_that_are() {
    let rings = Rings::new();
    let ended = rings.run(["doctor", "--interface", "nosuch0"]).expect(1);
    assert!(ended.err().contains("no interface nosuch0; there are: lo"), "{}", ended.err());
    assert_eq!(ended.out(), "");
}

#[test]
fn an_interface_of_another_namespace_is_read_from_the_kernel() {
    let program = env!("CARGO_BIN_EXE_gapless");
    let script = format!(
        "ip link add near0 mtu 9000 type veth peer name far0 && ip link set near0 up \
         && exec {program} doctor --json --interface near0"
    );
    let ended = Command::new("unshare").args(["--net", "sh", "-c", &script]).output();
    let ended = ended.expect("unshare runs");
    if !ended.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&ended.stderr));
        return;
    }
    let findings = findings(str::from_utf8(&ended.stdout).expect("text"));
    let of = |check: &str| {
        let mut ours = findings.iter().filter(|finding| finding["interface"] == "near0");
        ours.find(|finding| finding["check"] == check).cloned().expect(check)
    };
    assert_eq!(of("driver")["found"], "veth (virtual)");
    assert_eq!(of("MTU")["found"], "9000");
    assert_eq!(of("state")["found"], "up, without carrier");
    assert_eq!(of("XDP program")["found"], "none attached");
    assert_eq!(of("XDP packet size")["status"], "note");
    let modes = of("XDP modes")["found"].as_str().expect("text").to_owned();
    assert!(modes.starts_with("generic, else driver is chosen"), "{modes}");
    assert_eq!(of("XDP queues")["found"], "1 to receive");
    let probe = of("XDP probe")["found"].as_str().expect("text").to_owned();
    assert!(probe.contains("nothing was attached"), "{probe}");
    let queues = of("queues");
    let reason = queues["found"].as_str().expect("text");
    assert!(queues["status"] == "unknown" && reason.contains("network namespace"), "{queues}");
}

#[test]
fn a_probe_opens_af_xdp_in_each_mode_and_takes_it_away_again() {
    let program = env!("CARGO_BIN_EXE_gapless");
    let script = format!(
        "ip link add near0 type veth peer name far0 && ip link set near0 up \
         && ip link set far0 up && ip address add 10.0.0.1/24 dev near0 \
         && {program} doctor --json --probe --interface near0 && ip link show near0"
    );
    let ended = Command::new("unshare").args(["--net", "sh", "-c", &script]).output();
    let ended = ended.expect("unshare runs");
    if !ended.status.success() {
        eprintln!("skipped: {}", String::from_utf8_lossy(&ended.stderr));
        return;
    }
    let text = str::from_utf8(&ended.stdout).expect("text");
    let (told, shown) = text.split_at(text.rfind("}\n").expect("objects") + 2);
    assert!(shown.contains("near0") && !shown.contains("xdp"), "{shown}");
    let findings = findings(told);
    let of = |check: &str| findings.iter().find(|finding| finding["check"] == check);
    let found = |check: &str| of(check).expect(check)["found"].as_str().expect("text").to_owned();
    assert_eq!(of("XDP probe"), None, "it was done");
    if of("capabilities").expect("capabilities")["status"] != "ok" {
        let generic = of("probe generic").expect("tried");
        assert_eq!(generic["status"], "note", "{generic}");
        eprintln!("skipped: without the rights: {}", found("probe generic"));
        return;
    }
    let generic = found("probe generic");
    assert!(generic.starts_with("works: near0 (generic mode, 1 queue"), "{generic}");
    let driver = found("probe driver");
    assert!(driver.starts_with("works: near0 (driver mode, 1 queue"), "{driver}");
    let straight = of("probe zerocopy").expect("tried");
    assert_eq!(straight["status"], "note", "a veth has none: {straight}");
}

#[test]
fn a_probe_names_its_interfaces() {
    let rings = Rings::new();
    let ended = rings.run(["doctor", "--probe"]).expect(2);
    assert!(ended.err().contains("--interface"), "{}", ended.err());
}
