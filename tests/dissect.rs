//! What leaves us is MoldUDP64 to others: Wireshark's dissector reads every packet and has nothing
//! to complain of. Needs `tshark`; says so and passes without.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::Path;
use std::process::Command;

use gapless::protocol::{
    BURST_BYTES, Random, Receiver, ReceiverOptions, RequestProtocol, Sender, SenderOptions,
    Session, To,
};
use gapless::shm::{RingOptions, Start};

const STREAM: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(239, 1, 2, 3), 26_400);
const SENDER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 26_401);
const RECEIVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 26_402);

/// A capture file: IPv4 packets without a link layer, a microsecond apart.
struct Capture {
    file: Vec<u8>,
    packets: u32,
}

impl Capture {
    fn new() -> Self {
        const RAW_IPV4: u32 = 228;
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4_u32, 4 << 16 | 2, 0, 0, 0xffff, RAW_IPV4] {
            file.extend(word.to_le_bytes());
        }
        Self { file, packets: 0 }
    }

    fn add(&mut self, from: SocketAddrV4, to: SocketAddrV4, payload: &[u8]) {
        let udp_bytes = 8 + payload.len() as u16;
        let mut packet = vec![0x45, 0];
        packet.extend((20 + udp_bytes).to_be_bytes());
        packet.extend([0, 0, 0x40, 0, 16, 17, 0, 0]); // may not be fragmented; 16 hops; UDP
        packet.extend(from.ip().octets());
        packet.extend(to.ip().octets());
        let words = packet.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
        let sum: u32 = words.sum();
        let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        for field in [from.port(), to.port(), udp_bytes, 0] {
            packet.extend(field.to_be_bytes());
        }
        packet.extend(payload);
        let len = packet.len() as u32;
        for word in [self.packets / 1_000_000, self.packets % 1_000_000, len, len] {
            self.file.extend(word.to_le_bytes());
        }
        self.file.extend(packet);
        self.packets += 1;
    }
}

/// One line for each packet: protocol, count, messages by their lengths, complaints.
fn dissect(capture: &Capture, path: &Path) -> Vec<String> {
    std::fs::write(path, &capture.file).unwrap();
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(path).args(["-T", "fields", "-E", "separator=;"]);
    for port in [STREAM.port(), SENDER.port()] {
        tshark.args(["-d", &format!("udp.port=={port},moldudp64")]);
    }
    for field in ["frame.protocols", "moldudp64.count", "moldudp64.msglen"] {
        tshark.args(["-e", field]);
    }
    for complaint in ["_ws.expert.message", "_ws.malformed"] {
        tshark.args(["-e", complaint]);
    }
    let output = tshark.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

fn have_tshark() -> bool {
    let have = Command::new("tshark").arg("--version").output().is_ok();
    if !have {
        eprintln!("skipped: there is no tshark (Debian: tshark)");
    }
    have
}

/// A stream of messages of many lengths over a bad line, to its end: data, heartbeats, the end,
/// requests, answers. Every datagram is captured.
fn traffic() -> (Capture, u64) {
    let (mut producer, ring) = RingOptions::new().capacity_bytes(1 << 20).heap().unwrap();
    let consumer = ring.subscribe("sender", Start::Oldest).unwrap();
    let session = Session::from_number(1_234_567);
    let mut sender = Sender::new(SenderOptions::default(), session, consumer, 0).unwrap();
    let options = ReceiverOptions {
        protocol: RequestProtocol::Mold,
        report_ns: 0,
        ..ReceiverOptions::default()
    };
    let mut receiver = Receiver::new(options).unwrap();
    let (mut capture, mut random) = (Capture::new(), Random::new(1));
    let (mut now, mut buffer, mut ended) = (0, vec![0; BURST_BYTES], false);
    let mut handler = |event: gapless::protocol::Event<'_>| {
        ended |= matches!(event, gapless::protocol::Event::Ended { .. });
        true
    };
    let from = SocketAddr::from(SENDER);
    for turn in 0..20_000 {
        now += 1_000;
        if turn < 2_000 && random.chance(0.7) {
            let most = if random.chance(0.1) { 1_451 } else { 60 };
            let len = random.below(most) as usize;
            producer.try_publish(&vec![turn as u8; len]).unwrap();
        } else if turn == 2_000 {
            sender.end(now);
        }
        while let Some(sent) = sender.poll_transmit(now, &mut buffer).unwrap() {
            for bytes in buffer[..sent.bytes].chunks(sent.segment_bytes) {
                if sent.to == To::Stream {
                    capture.add(SENDER, STREAM, bytes);
                    if !random.chance(0.05) {
                        receiver.on_datagram(0, from, bytes, now, &mut handler);
                    }
                } else {
                    capture.add(SENDER, RECEIVER, bytes);
                    receiver.on_answer(from, bytes, now, &mut handler);
                }
            }
        }
        while let Some(asked) = receiver.poll_transmit(now, &mut buffer) {
            capture.add(RECEIVER, SENDER, &buffer[..asked.bytes]);
            sender.on_datagram(SocketAddr::from(RECEIVER), &buffer[..asked.bytes], now);
        }
        receiver.deliver(&mut handler);
    }
    assert!(ended && receiver.counts().repaired > 0);
    (capture, receiver.counts().requests)
}

#[test]
fn wireshark_reads_all_of_it_without_a_complaint() {
    if !have_tshark() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (capture, requests) = traffic();
    let lines = dissect(&capture, &dir.path().join("ours.pcap"));
    assert_eq!(lines.len(), capture.packets as usize);
    let (mut bare, mut asked) = (0, 0);
    for (n, line) in lines.iter().enumerate() {
        let fields: Vec<&str> = line.split(';').collect();
        let [protocols, count, lengths, complaint, malformed] = fields[..] else {
            panic!("{line}")
        };
        assert!(protocols.contains("moldudp64"), "packet {}: {line}", n + 1);
        // So it tells requests from data, and takes the end of a session for one; no complaint.
        let is_request = complaint == "Number of Requested Messages";
        asked += u64::from(is_request && count != "65535");
        assert!(is_request || complaint.is_empty(), "packet {}: {line}", n + 1);
        assert!(malformed.is_empty(), "packet {}: {line}", n + 1);
        match lengths {
            "" => bare += 1, // a heartbeat, the end, or a request
            lengths => assert_eq!(lengths.split(',').count().to_string(), count, "{line}"),
        }
    }
    assert_eq!(asked, requests);
    assert!(bare > requests && bare < u64::from(capture.packets));
}

#[test]
fn wireshark_would_have_complained() {
    if !have_tshark() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut capture = Capture::new();
    let header = gapless::protocol::Header { session: Session([b'A'; 10]), sequence: 1, count: 1 };
    for blocks in [&b"\0\x02hi"[..], b"\0\x02hi\0\x01+", b"\0\x09hi"] {
        capture.add(SENDER, STREAM, &[&header.to_bytes()[..], blocks].concat());
    }
    let end = gapless::protocol::Header { count: 0xffff, ..header };
    capture.add(SENDER, STREAM, &[&end.to_bytes()[..], b"+"].concat());
    let lines = dissect(&capture, &dir.path().join("bad.pcap"));
    let complains = |line: &String| !line.ends_with(";;");
    let found: Vec<_> = lines.iter().map(complains).collect();
    assert_eq!(found, [false, true, true, true], "{lines:?}");
}
