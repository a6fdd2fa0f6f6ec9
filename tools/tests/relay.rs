//! `gapless relay` from outside: what goes in on one side comes out on the other, under the same
//! sequence numbers, whichever way it takes.

mod support;

use std::net::UdpSocket;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Rings, Running};

const SAMPLE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../data/moex-forts-2013/increment_a.binfile");
const BIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data/bist-mold/mold.sample.dat");

fn free_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.local_addr().expect("bound").port()
}

/// Digest of the sample and of nothing else.
fn sample_digest(rings: &Rings) -> Value {
    let publish = ["pub", "shm:sample", "--digest", "--json", "--file", SAMPLE];
    rings.run(publish).expect(0).json()["digest"].clone()
}

/// A follower of a ring that may not be there yet.
fn hasher(rings: &Rings, ring: &str) -> Running {
    let address = format!("shm:{ring}?wait=yield");
    rings.start_all(&["sub", &address, "--hash", "--json", "--wait-for-publisher"])
}

#[test]
fn ring_to_multicast_to_multicast_to_ring() {
    let rings = Rings::new();
    let digest = sample_digest(&rings);
    let (first, second) = (free_port(), free_port());
    let first = format!("udp:239.255.7.2:{first}?iface=lo&flow=1&wait=yield");
    let second = format!("udp:239.255.7.3:{second}?iface=lo&flow=1&wait=yield");
    let reader = hasher(&rings, "copy");
    // The last one first: each waits for the one before.
    let into = rings.start(["relay", &second, "shm:copy?capacity=4M", "--json"]);
    let between = rings.start(["relay", &first, &second, "--json"]);
    let out = rings.run(["relay", "shm:sample?wait=yield", &first, "--json"]).expect(0).json();
    let between = between.end().expect(0).json();
    let into = into.end().expect(0).json();
    for carried in [&out, &between, &into] {
        assert_eq!(carried["messages"], 8101, "{carried:#}");
        assert_eq!(carried["lost"], 0, "{carried:#}");
        assert_eq!(carried["end"], "the publisher closed the stream", "{carried:#}");
    }
    let read = reader.end().expect(0).json();
    assert_eq!((&read["digest"], &read["next_sequence"]), (&digest, &8102.into()));
    let session = |ring: &str| {
        let ring = rings.run(["inspect", ring, "--json"]).expect(0).json();
        ring["header"]["session"].clone()
    };
    assert_eq!(session("copy"), session("sample"), "one session all the way");
}

#[test]
fn two_lines_become_one_ring() {
    let rings = Rings::new();
    let digest = sample_digest(&rings);
    let (a, b) = (free_port(), free_port());
    let lines = format!("udp:127.0.0.1:{a}?b=127.0.0.1:{b}&flow=1&wait=yield");
    let reader = hasher(&rings, "feed");
    let into = rings.start(["relay", &lines, "shm:feed", "--json"]);
    rings.run(["relay", "shm:sample?wait=yield", &lines]).expect(0);
    let into = into.end().expect(0).json();
    assert_eq!((&into["messages"], &into["lost"]), (&8101.into(), &0.into()));
    assert!(into["duplicates"].as_u64() > Some(0), "the other line's: {into:#}");
    assert_eq!(reader.end().expect(0).json()["digest"], digest);
}

#[test]
fn ring_to_ring_keeps_numbers_and_goes_on_where_it_ended() {
    let rings = Rings::new();
    rings.run_with_input(["pub", "shm:a?first=1000"], "one\ntwo\n").expect(0);
    let copy = ["relay", "shm:a", "shm:b", "--json"];
    let first = rings.run(copy).expect(0).json();
    assert_eq!((&first["messages"], &first["bytes"]), (&2.into(), &6.into()));
    rings.run_with_input(["pub", "shm:a"], "three\n").expect(0);
    assert_eq!(rings.run(copy).expect(0).json()["messages"], 1);
    assert_eq!(rings.run(["sub", "shm:b?from=1001"]).expect(0).out(), "two\nthree\n");
    let one = ["relay", "shm:a", "shm:c", "--count", "1", "--json"];
    let enough = rings.run(one).expect(0).json();
    assert_eq!((&enough["messages"], &enough["end"]), (&1.into(), &END_ENOUGH.into()));
    assert_eq!(rings.run(["sub", "shm:c"]).expect(0).out(), "one\n");
}

const END_ENOUGH: &str = "as many messages as asked for";

#[test]
fn a_file_of_packets_comes_with_its_numbers_and_its_cut_is_told() {
    let rings = Rings::new();
    let from = format!("mold:{BIST}");
    let relayed = rings.run(["relay", &from, "shm:bist", "--json"]).expect(3).json();
    assert_eq!((&relayed["messages"], &relayed["lost"]), (&40.into(), &0.into()));
    let problem = relayed["problem"].as_str().expect("the cut");
    assert!(problem.contains("byte 1881") && problem.contains("lacks 5 B"), "{problem}");
    let read = rings.run(["sub", "shm:bist?from=1", "--count", "--json"]).expect(0).json();
    assert_eq!((&read["messages"], &read["next_sequence"]), (&40.into(), &41.into()));
}

#[test]
fn a_file_of_records_is_sent_when_its_receiver_is_there() {
    let rings = Rings::new();
    let digest = sample_digest(&rings);
    let address = format!("udp:127.0.0.1:{}?flow=1&wait=yield", free_port());
    let reader = rings.start(["sub", &address, "--hash", "--json"]);
    let from = format!("file:{SAMPLE}?first=482727");
    let relayed = rings.run(["relay", &from, &address, "--wait-for", "1", "--json"]).expect(0);
    assert_eq!(relayed.json()["messages"], 8101);
    let read = reader.end().expect(0).json();
    assert_eq!((&read["digest"], &read["next_sequence"]), (&digest, &490_828.into()));
}

#[test]
fn asked_to_stop_it_ends_the_session() {
    let rings = Rings::new();
    let address = format!("udp:127.0.0.1:{}?wait=park", free_port());
    let mut publisher = rings.start(["pub", "shm:live"]);
    publisher.write("hello\n");
    rings.run(["sub", "shm:live?wait=yield", "--wait-for-publisher", "--max", "1"]).expect(0);
    let late = format!("{address}&from=1");
    let mut reader = rings.start(["sub", &late]);
    let mut relay = rings.start(["relay", "shm:live?wait=yield", &address, "--json"]);
    assert_eq!(reader.read_exact(6), b"hello\n");
    relay.signal(Signal::SIGINT);
    let relayed = relay.end().expect(0).json();
    assert_eq!((&relayed["messages"], &relayed["end"]), (&1.into(), &"interrupted".into()));
    assert!(reader.end().expect(0).err().contains("closed the stream"));
    publisher.end().expect(0);
}

/// One captured frame: Ethernet, IPv4, UDP.
fn frame(to: [u8; 4], port: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![1, 0, 0x5e, 1, 2, 3, 2, 0, 0, 0, 0, 1, 8, 0];
    let (ip, udp) = (28 + payload.len() as u16, 8 + payload.len() as u16);
    frame.extend([0x45, 0, (ip >> 8) as u8, ip as u8, 0, 0, 0, 0, 1, 17, 0, 0, 10, 0, 0, 9]);
    frame.extend(to);
    frame.extend([0x30, 0x39]);
    frame.extend(port.to_be_bytes());
    frame.extend(udp.to_be_bytes());
    frame.extend([0, 0]);
    frame.extend(payload);
    frame
}

/// A number in the byte order of a capture.
type Put = fn(u32) -> [u8; 4];

/// A classic capture of these frames, a millisecond apart.
fn pcap(nanoseconds: bool, put: Put, frames: &[Vec<u8>]) -> Vec<u8> {
    let magic = if nanoseconds { 0xa1b2_3c4d } else { 0xa1b2_c3d4 };
    let version = if put(1)[0] == 1 { [2, 0, 4, 0] } else { [0, 2, 0, 4] };
    let mut file = [put(magic), version, put(0), put(0), put(65_535), put(1)].concat();
    for (number, frame) in (0..).zip(frames) {
        let part = number * if nanoseconds { 1_000_000 } else { 1_000 };
        let len = put(frame.len() as u32);
        file.extend([put(1_375_349_077), put(part), len, len].concat());
        file.extend(frame);
    }
    file
}

/// The same as pcapng.
fn pcapng(put: Put, frames: &[Vec<u8>]) -> Vec<u8> {
    let block = |kind: u32, body: &[u8]| {
        let mut body = body.to_vec();
        body.resize(body.len().next_multiple_of(4), 0);
        let len = put(12 + body.len() as u32);
        [&put(kind)[..], &len, &body, &len].concat()
    };
    let short = |low: u16| if put(1)[0] == 1 { low.to_le_bytes() } else { low.to_be_bytes() };
    let section = [&put(0x1a2b_3c4d)[..], &short(1), &short(0), &[0xff; 8]].concat();
    let interface = [&short(1)[..], &short(0), &put(65_535)].concat();
    let mut file = [block(0x0a0d_0d0a, &section), block(1, &interface)].concat();
    for (number, frame) in (0..).zip(frames) {
        let len = put(frame.len() as u32);
        let head = [put(0), put(0), put(number * 1000), len, len].concat();
        file.extend(block(6, &[head, frame.clone()].concat()));
    }
    file
}

fn mold(first: u64, messages: &[&str]) -> Vec<u8> {
    let mut packet = b"EXAMPLE0AB".to_vec();
    packet.extend(first.to_be_bytes());
    packet.extend((messages.len() as u16).to_be_bytes());
    for message in messages {
        packet.extend((message.len() as u16).to_be_bytes());
        packet.extend(message.as_bytes());
    }
    packet
}

const GROUP: [u8; 4] = [239, 1, 2, 3];

#[test]
fn captures_of_every_kind_are_read() {
    let rings = Rings::new();
    let frames = [
        frame(GROUP, 9000, &mold(7, &["seven", "eight"])),
        frame(GROUP, 9999, b"something else"),
        vec![0; 9], // no frame at all
        frame(GROUP, 9000, &mold(10, &["ten"])),
        frame(GROUP, 9000, &mold(9, &["nine"])), // overtaken
        frame(GROUP, 9000, &mold(10, &["ten"])),
    ];
    let kinds = [
        pcap(false, u32::to_le_bytes, &frames),
        pcap(true, u32::to_le_bytes, &frames),
        pcap(false, u32::to_be_bytes, &frames),
        pcap(true, u32::to_be_bytes, &frames),
        pcapng(u32::to_le_bytes, &frames),
        pcapng(u32::to_be_bytes, &frames),
    ];
    for (number, file) in kinds.iter().enumerate() {
        let path = rings.path().join(format!("{number}.pcap"));
        std::fs::write(&path, file).expect("writable");
        for place in ["9000", "239.1.2.3:9000"] {
            let from = format!("pcap:{}?port={place}", path.display());
            let carried = rings.run(["relay", &from, "shm:day", "--json"]).expect(0).json();
            assert_eq!((&carried["messages"], &carried["lost"]), (&4.into(), &0.into()));
            assert_eq!((&carried["reordered"], &carried["duplicates"]), (&1.into(), &1.into()));
            let read = rings.run(["sub", "shm:day?from=7"]).expect(0);
            assert_eq!(read.out(), "seven\neight\nnine\nten\n", "{number}");
        }
    }
}

#[test]
fn captured_lines_are_arbitrated_and_raw_datagrams_are_messages() {
    let rings = Rings::new();
    let relay = |file: &Path, options: &str, ring: &str, code: i32| {
        let from = format!("pcap:{}?{options}", file.display());
        rings.run(["relay", &from, ring, "--json"]).expect(code).json()
    };
    let path = rings.path().join("lines.pcap");
    let other = [239, 1, 2, 4];
    let frames = [
        frame(GROUP, 9000, &mold(1, &["one"])),
        frame(other, 9000, &mold(1, &["one"])),
        frame(other, 9000, &mold(2, &["two"])),  // A lost it
        frame(GROUP, 9000, &mold(4, &["four"])), // and both lost three
        frame(other, 9000, &mold(4, &["four"])),
    ];
    std::fs::write(&path, pcap(false, u32::to_le_bytes, &frames)).expect("writable");
    let both = relay(&path, "port=239.1.2.3:9000&b=239.1.2.4:9000", "shm:both", 3);
    assert_eq!((&both["messages"], &both["lost"]), (&3.into(), &1.into()));
    let read = rings.run(["sub", "shm:both"]).expect(3);
    assert_eq!(read.out(), "one\ntwo\nfour\n");
    assert!(read.err().contains("missed 1 message: sequence 3 to 3"), "{}", read.err());

    let frames = [frame(GROUP, 7, b"first"), frame(GROUP, 8, b"no"), frame(GROUP, 7, b"second")];
    std::fs::write(&path, pcap(false, u32::to_le_bytes, &frames)).expect("writable");
    assert_eq!(relay(&path, "port=7&raw=yes", "shm:raw", 0)["messages"], 2);
    assert_eq!(rings.run(["sub", "shm:raw"]).expect(0).out(), "first\nsecond\n");

    let whole = pcap(false, u32::to_le_bytes, &frames);
    std::fs::write(&path, &whole[..whole.len() - 3]).expect("writable");
    let from = format!("pcap:{}?port=7&raw=yes", path.display());
    let torn = rings.run(["relay", &from, "shm:torn"]).expect(1);
    assert!(torn.err().contains("ends inside the record at byte"), "{}", torn.err());
    std::fs::write(&path, "no capture").expect("writable");
    let none = rings.run(["relay", &from, "shm:torn"]).expect(1);
    assert!(none.err().contains("lines.pcap"), "{}", none.err());
}

#[test]
fn what_makes_no_sense_is_told_at_once() {
    let rings = Rings::new();
    rings.run_with_input(["pub", "shm:a"], "x\n").expect(0);
    for (from, to) in [
        ("shm:a", "shm:a"),
        ("shm:a", "udp:127.0.0.1:9?ring=b"),
        ("pcap:x", "shm:b"),
        ("file:x?prefix=7", "shm:b"),
        ("shm:a", "mold:x"),
    ] {
        rings.run(["relay", from, to]).expect(2);
    }
    rings.run(["relay", "shm:a", "shm:b", "--rate", "7"]).expect(2);
    let missing = rings.run(["relay", "file:/no/such/file", "shm:b"]).expect(1);
    assert!(missing.err().contains("/no/such/file"), "{}", missing.err());
    assert!(rings.run(["relay", "shm:none", "shm:b"]).expect(1).err().contains("no ring at"));
}
