//! `pub`, `sub`, `ping` and `pong` over datagrams of the loopback interface.

mod support;

use std::net::UdpSocket;

use nix::sys::signal::Signal;
use support::Rings;

const SAMPLE: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../data/moex-forts-2013/increment_a.binfile");

/// A port of this host that nobody has at the moment, and the next one neither.
fn free_port() -> u16 {
    loop {
        let first = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = first.local_addr().expect("bound").port();
        if port < u16::MAX && UdpSocket::bind(("127.0.0.1", port + 1)).is_ok() {
            return port;
        }
    }
}

#[test]
fn lines_cross_the_wire_as_they_come() {
    let rings = Rings::new();
    let address = format!("udp:127.0.0.1:{}?wait=park", free_port());
    let mut subscriber = rings.start(["sub", &address]);
    let mut publisher = rings.start(["pub", &address, "--wait-for", "1"]);
    for line in ["first\n", "second ä\n", "\n"] {
        publisher.write(line);
        assert_eq!(subscriber.read_exact(line.len()), line.as_bytes());
    }
    publisher.write("last");
    let published = publisher.end().expect(0);
    assert!(published.err().contains("published 4 messages"), "{}", published.err());
    let read = subscriber.end().expect(0);
    assert_eq!(read.out(), "last\n");
    assert!(read.err().contains("the publisher closed the stream"), "{}", read.err());
}

#[test]
fn a_file_arrives_whole_at_two_receivers_of_a_group() {
    let rings = Rings::new();
    let port = free_port();
    let address = format!("udp:239.255.7.1:{port}?iface=lo&flow=2&wait=yield");
    let copy = rings.path().join("copy.binfile");
    let writer = rings.start_more(["sub", &address, "--output"], &[&copy]);
    let counted = format!("{address}&stats=hasher&dir={}", rings.path().display());
    let hasher = rings.start(["sub", &counted, "--hash", "--json"]);
    let publish = ["pub", &address, "--wait-for", "2", "--digest", "--json", "--file", SAMPLE];
    let published = rings.run(publish).expect(0).json();
    writer.end().expect(0);
    assert!(std::fs::read(&copy).expect("the copy") == std::fs::read(SAMPLE).expect("the sample"));
    let hashed = hasher.end().expect(0).json();
    assert_eq!(hashed["digest"], published["digest"]);
    assert_eq!((&hashed["messages"], &hashed["missed"]), (&8101.into(), &0.into()));
    assert_eq!(hashed["sessions"], 1);
    let page = rings.run(["stat", "hasher", "--once", "--json"]).expect(0).json();
    assert_eq!(page["counters"]["messages"]["value"], 8101, "{page:#}");
}

#[test]
fn who_comes_late_asks_for_what_went_before() {
    let rings = Rings::new();
    let address = format!("udp:127.0.0.1:{}?wait=yield", free_port());
    let mut publisher = rings.start(["pub", &address]);
    publisher.write("one\ntwo\nthree\n");
    let late = format!("{address}&from=2");
    assert_eq!(rings.run(["sub", &late, "--max", "2"]).expect(0).out(), "two\nthree\n");
    let oldest = format!("{address}&from=oldest");
    assert_eq!(rings.run(["sub", &oldest, "--max", "1"]).expect(0).out(), "one\n");
    publisher.signal(Signal::SIGINT);
    publisher.end_leaving_input_open().expect(0);
}

#[test]
fn long_messages_need_envelopes() {
    let rings = Rings::new();
    let plain = format!("udp:127.0.0.1:{}?linger=10ms", free_port());
    let long = ["pub", &plain, "--generate", "--size", "1451", "--count", "1"];
    let refused = rings.run(long).expect(1);
    let text = refused.err();
    assert!(text.contains("1451 bytes") && text.contains("takes 1450"), "{text}");
    assert!(text.contains("envelope=yes"), "{text}");

    let address = format!("udp:127.0.0.1:{}?envelope=yes&flow=1&wait=yield", free_port());
    let subscriber = rings.start(["sub", &address, "--hash", "--json"]);
    let size = "100001";
    let publish = [
        "pub",
        &address,
        "--generate",
        "--size",
        size,
        "--count",
        "30",
        "--wait-for",
        "1",
        "--digest",
        "--json",
    ];
    let published = rings.run(publish).expect(0).json();
    let whole = subscriber.end().expect(0).json();
    assert_eq!((&whole["messages"], &whole["bytes"]), (&30.into(), &3_000_030.into()));
    assert_eq!(whole["digest"], published["digest"]);
    // 1,418 bytes beside each envelope.
    assert_eq!(whole["next_sequence"], 30 * 71 + 1);
}

#[test]
fn a_publisher_of_datagrams_that_died_is_told() {
    let rings = Rings::new();
    let address = format!("udp:127.0.0.1:{}?wait=park", free_port());
    let mut subscriber = rings.start(["sub", &address]);
    let mut publisher = rings.start(["pub", &address, "--wait-for", "1"]);
    publisher.write("hello\n");
    assert_eq!(subscriber.read_exact(6), b"hello\n");
    publisher.signal(Signal::SIGKILL);
    publisher.end();
    let read = subscriber.end().expect(3);
    assert!(read.err().contains("died"), "{}", read.err());
}

#[test]
fn the_round_trip_works_in_either_order() {
    let rings = Rings::new();
    let port = free_port();
    let both = format!("udp:127.0.0.1:{port}?wait=yield");
    let back = format!("udp:127.0.0.1:{}?wait=yield", free_port());
    for (count, extra) in [("300", None), ("200", Some(back.as_str()))] {
        for ping_first in [true, false] {
            let mut ping = vec!["ping", &both, "--count", count, "--json"];
            let mut pong = vec!["pong", &both];
            for side in [&mut ping, &mut pong] {
                side.extend(extra.iter().flat_map(|back| ["--back", back]));
            }
            let ([first, second], [pong_at, ping_at]) = match ping_first {
                true => ([ping, pong], [1, 0]),
                false => ([pong, ping], [0, 1]),
            };
            let ended = [first, second].map(|arguments| rings.start_all(&arguments));
            let ended = ended.map(|running| running.end().expect(0));
            let figures = ended[ping_at].json();
            assert_eq!(figures["round_trips"].to_string(), count);
            assert!(figures["p50_ns"].as_u64() > Some(0));
            assert!(ended[pong_at].err().contains("answered"), "{}", ended[pong_at].err());
        }
    }
}

#[test]
fn what_makes_no_sense_is_told_at_once() {
    let rings = Rings::new();
    for command in ["pub", "sub", "ping", "pong"] {
        let ended = rings.run([command, "udp:127.0.0.1:9?reorder=5m"]).expect(2);
        assert!(ended.err().contains("^^"), "{}", ended.err());
    }
    let one_way = rings.run(["ping", "udp:127.0.0.1:9?bind=127.0.0.1:7"]).expect(2);
    assert!(one_way.err().contains("bind=127.0.0.1:7"), "{}", one_way.err());
    rings.run(["pong", "udp:127.0.0.1:65535"]).expect(2);
    let nowhere = rings.run(["sub", "udp:239.255.7.1:9000?iface=none0"]).expect(1);
    assert!(nowhere.err().contains("none0"), "{}", nowhere.err());
    let size = ["ping", "udp:127.0.0.1:9000", "--size", "2000"];
    assert!(rings.run(size).expect(1).err().contains("1450 bytes"));
}
