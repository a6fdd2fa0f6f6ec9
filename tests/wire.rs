//! Streams over real sockets of this host: publishers and subscribers by their addresses, agents
//! between rings and the wire, bad lines between them.

use std::net::UdpSocket;
use std::path::Path;

use gapless::net::{Backend, Direction, Faults, Faulty, Network, SocketSet};
use gapless::protocol::{Control, Event, Session, control};
use gapless::shm::{ConsumerOptions, Counters, CountersOptions, CountersReader};
use gapless::wire::{Inlet, ReceiverAgent, SenderAgent, WireError};
use gapless::{
    Address, Agent, PollError, PublishError, Publisher, ShmAddress, Subscriber, UdpAddress,
};

/// A port of this host that nobody has at the moment.
fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn udp(text: &str) -> UdpAddress {
    match text.parse().unwrap() {
        Address::Udp(udp) => *udp,
        other => panic!("{other}"),
    }
}

fn shm(text: &str) -> ShmAddress {
    match text.parse().unwrap() {
        Address::Shm(shm) => shm,
        other => panic!("{other}"),
    }
}

fn payload(sequence: u64) -> Vec<u8> {
    let len = 8 + (sequence * 7919 % 200) as usize;
    sequence.to_be_bytes().into_iter().cycle().take(len).collect()
}

fn carries_everything(address: &str, count: u64) {
    let mut subscriber = Subscriber::open(address).unwrap();
    let mut publisher = Publisher::open(address).unwrap();
    // Joins at the first message it sees: heartbeats tell where that is.
    while subscriber.next_sequence() == 0 {
        publisher.poll().unwrap();
        subscriber.poll(1, |_| ()).unwrap();
    }
    let (mut published, mut received) = (0, 0);
    while received < count {
        if published < count {
            let mut batch = publisher.batch();
            for sequence in published + 1..=count.min(published + 1 + published % 100) {
                if batch.push(&payload(sequence)).is_err() {
                    break;
                }
            }
            published += batch.commit();
        }
        publisher.poll().unwrap();
        subscriber
            .poll(1000, |message| {
                received += 1;
                assert_eq!((message.sequence, message.payload), (received, &payload(received)[..]));
            })
            .unwrap();
    }
    assert_eq!(subscriber.next_sequence(), count + 1);
    assert_eq!(subscriber.inlet().unwrap().counts().messages, count);
}

#[test]
fn unicast() {
    carries_everything(&format!("udp:127.0.0.1:{}", free_port()), 50_000);
}

#[test]
fn unicast_with_flow_control_and_small_buffers() {
    let port = free_port();
    carries_everything(&format!("udp:127.0.0.1:{port}?flow=slowest&rcvbuf=64K"), 20_000);
}

#[test]
fn multicast_on_the_loopback_interface() {
    let port = free_port();
    carries_everything(&format!("udp:239.255.7.1:{port}?iface=127.0.0.1"), 20_000);
}

#[test]
fn ipv6() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 on this host");
        return;
    }
    carries_everything(&format!("udp:[::1]:{}", free_port()), 10_000);
}

#[test]
fn two_lines() {
    let (a, b) = (free_port(), free_port());
    carries_everything(&format!("udp:127.0.0.1:{a}?b=127.0.0.1:{b}"), 10_000);
}

#[test]
fn ring_to_wire_to_ring_over_a_bad_line() {
    let dir = tempfile::tempdir().unwrap();
    let there = tempfile::tempdir().unwrap();
    let port = free_port();
    let from =
        format!("udp:127.0.0.1:{port}?ring=orders&flow=slowest&dir={}", dir.path().display());
    let to = shm(&format!("shm:orders?capacity=1M&dir={}", there.path().display()));
    let mut producer =
        Publisher::open(&format!("shm:orders?capacity=1M&max=1450&dir={}", dir.path().display()))
            .unwrap();

    let network = Faulty::new(Network::open(Backend::Socket).unwrap(), 7);
    let bad =
        Faults { loss: 0.05, duplicate: 0.02, reorder: 0.05, reorder_by: 4, ..Faults::default() };
    let mut receiver = ReceiverAgent::open_over(network, &udp(&from), &to).unwrap();
    receiver.inlet().network().set(Direction::Receive, SocketSet::all(), bad);
    let mut sender = SenderAgent::open_ring(&udp(&from)).unwrap();
    while receiver.producer().is_none() {
        sender.duty_cycle().unwrap();
        receiver.duty_cycle().unwrap();
    }
    let options = ConsumerOptions::new().directory(there.path());
    let mut subscriber = options.attach("orders").unwrap();
    let (mut published, mut received) = (0, 0);
    while received < 50_000 {
        while published < 50_000 && producer.try_publish(&payload(published + 1)).is_ok() {
            published += 1;
        }
        sender.duty_cycle().unwrap();
        receiver.duty_cycle().unwrap();
        subscriber
            .poll(1000, |message| {
                received += 1;
                assert_eq!((message.sequence, message.payload), (received, &payload(received)[..]));
            })
            .unwrap();
    }
    let counts = *receiver.inlet().counts();
    assert!(counts.repaired > 0 && counts.lost == 0, "{counts:?}");
    assert_eq!(subscriber.session(), producer.producer().session(), "one stream, one session");
}

#[test]
fn what_is_lost_for_good_is_told_between_the_messages() {
    let port = free_port();
    // Nobody to ask: what is lost is lost at once.
    let address = format!("udp:127.0.0.1:{port}?request=none&reorder=0");
    let mut subscriber = Subscriber::open(&address).unwrap();
    let mut publisher = Publisher::open(&address).unwrap();
    publisher.try_publish(b"1").unwrap();
    let mut seen = Vec::new();
    while seen.is_empty() {
        subscriber.poll(1, |message| seen.push(message.sequence)).unwrap();
    }
    // One message leaves while nobody listens at that port.
    drop(subscriber);
    publisher.try_publish(b"2").unwrap();
    let mut subscriber = Subscriber::open(&format!("{address}&from=2")).unwrap();
    publisher.try_publish(b"3").unwrap();
    let lost = loop {
        match subscriber.poll(10, |message| seen.push(message.sequence)) {
            Ok(_) => {}
            Err(PollError::Lost { first, count }) => break (first, count),
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((lost, &seen[..]), ((2, 1), &[1][..]));
    while seen.len() < 2 {
        subscriber.poll(10, |message| seen.push(message.sequence)).unwrap();
    }
    assert_eq!(seen, [1, 3]);
}

#[test]
fn a_closed_stream_is_read_to_its_end() {
    let address = udp(&format!("udp:127.0.0.1:{}", free_port()));
    let mut inlet = Inlet::open(&address).unwrap();
    let mut publisher = Publisher::open(address.text()).unwrap();
    let closing = std::thread::spawn(move || {
        for n in 0..1000_u32 {
            publisher.try_publish(&n.to_be_bytes()).unwrap();
        }
        publisher.close().unwrap();
    });
    let mut last = 0;
    while !inlet.has_ended() {
        inlet
            .poll(64, |event| {
                if let Event::Message { sequence, .. } = event {
                    last = sequence;
                }
                true
            })
            .unwrap();
    }
    closing.join().unwrap();
    assert_eq!(last, 1000);
}

#[test]
fn enveloped_streams_carry_fragments() {
    let dir = tempfile::tempdir().unwrap();
    let options = format!("envelope=yes&dir={}", dir.path().display());
    let address = format!("udp:127.0.0.1:{}?{options}&topic=7&publisher=42", free_port());
    let to = shm(&format!("shm:copy?{options}"));
    let mut receiver = ReceiverAgent::open(&udp(&address), &to).unwrap();
    let mut publisher = Publisher::open(&address).unwrap();
    while receiver.producer().is_none() {
        publisher.poll().unwrap();
        receiver.duty_cycle().unwrap();
    }
    let mut direct = Subscriber::open(&format!("shm:copy?{options}")).unwrap();
    let large: Vec<u8> = (0..10_000_u32).flat_map(u32::to_be_bytes).collect();
    publisher.publish(&large, || true).unwrap();
    let mut claim = publisher.claim(10).unwrap();
    claim[..5].copy_from_slice(b"claim");
    claim.truncate(5);
    claim.commit();
    let mut batch = publisher.batch();
    batch.push(b"batch").unwrap();
    assert_eq!(batch.commit(), 1);

    let mut reassembler = gapless::Reassembler::new(1 << 20);
    let mut seen: Vec<Vec<u8>> = Vec::new();
    while seen.len() < 3 {
        publisher.poll().unwrap();
        receiver.duty_cycle().unwrap();
        direct
            .poll_enveloped(64, |envelope, message| {
                assert_eq!((envelope.topic, envelope.publisher), (7, 42));
                reassembler.accept(message, |part| match part {
                    gapless::Part::Whole { payload, .. } => seen.push(payload.to_vec()),
                    other => panic!("{other:?}"),
                });
            })
            .unwrap();
    }
    assert_eq!(seen, [large, b"claim".to_vec(), b"batch".to_vec()]);
}

#[test]
fn what_fits_no_datagram_is_refused_before_it_is_published() {
    let address = format!("udp:127.0.0.1:{}?max=60000", free_port());
    let mut publisher = Publisher::open(&address).unwrap();
    let refused = PublishError::TooLong { len: 1451, max: 1450 };
    let long = [0; 1451];
    assert_eq!(publisher.publish(&long, || true), Err(refused));
    assert_eq!(publisher.try_publish(&long), Err(refused));
    assert_eq!(publisher.claim(1451).err(), Some(refused));
    assert_eq!(publisher.batch().push(&long), Err(refused));
    assert_eq!(publisher.try_publish(&long[1..]), Ok(1));
    publisher.poll().unwrap();
}

#[test]
fn a_publish_waits_for_the_reports_that_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let options = format!("flow=1&capacity=64K&rcvbuf=64K&dir={}", dir.path().display());
    let address = format!("udp:127.0.0.1:{}?{options}", free_port());
    let mut subscriber = Subscriber::open(&address).unwrap();
    let mut publisher = Publisher::open(&address).unwrap();
    let mut seen = 0;
    while subscriber.next_sequence() == 0 {
        publisher.poll().unwrap();
        subscriber.poll(1, |_| ()).unwrap();
    }
    for _ in 0..5000 {
        let poll = || subscriber.poll(1000, |_| seen += 1).is_ok();
        publisher.publish(&[7; 100], poll).unwrap();
    }
    while seen < 5000 {
        publisher.poll().unwrap();
        subscriber.poll(1000, |_| seen += 1).unwrap();
    }
}

#[test]
fn closing_a_stream_that_nobody_takes_says_so() {
    let address = format!("udp:127.0.0.1:{}?flow=1&linger=20ms", free_port());
    let mut publisher = Publisher::open(&address).unwrap();
    publisher.try_publish(b"held back").unwrap();
    let error = publisher.close().unwrap_err();
    assert!(matches!(error, WireError::Unsent { first: 1, next: 2 }), "{error}");
}

#[test]
fn two_publishers_of_a_host_share_no_port() {
    let address = format!("udp:127.0.0.1:{}", free_port());
    let mut publishers: Vec<_> = (0..20).map(|_| Publisher::open(&address).unwrap()).collect();
    let mut ports: Vec<u16> = publishers
        .iter_mut()
        .map(|publisher| publisher.sender().unwrap().request_address().port())
        .collect();
    let fixed = format!("{address}?bind=127.0.0.1:{}", ports[0]);
    assert!(Publisher::open(&fixed).is_err(), "the port is taken");
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 20);
}

#[test]
fn who_cannot_be_answered_stops_nobody() {
    let address = format!("udp:127.0.0.1:{}", free_port());
    let mut publisher = Publisher::open(&address).unwrap();
    let to = publisher.sender().unwrap().request_address().port();
    let body = control::Body::Solicit { receiver: 1 };
    let solicit = Control { session: Session([0; 10]), body };
    let mut bytes = [0; control::CONTROL_MAX_BYTES];
    let len = solicit.write(&mut bytes);
    let peer = UdpSocket::bind("127.0.0.1:0").unwrap();
    peer.send_to(&bytes[..len], ("127.0.0.1", to)).unwrap();
    drop(peer); // its port answers "unreachable" from now on
    for n in 0..1000_u32 {
        publisher.try_publish(&n.to_be_bytes()).unwrap();
        publisher.poll().unwrap();
    }
}

/// The page of a recorder that has messages 1 to `last` on disk.
fn recorder(directory: &Path, session: u64, last: u64) -> Counters {
    let labels = ["session", "blocks", "durable-sequence"];
    let options = CountersOptions::new().directory(directory);
    let mut page = options.open("orders.recorder", "recorder", &labels, &[]).unwrap();
    for (index, value) in [session, 1, last].into_iter().enumerate() {
        page.set(index, value);
    }
    page
}

#[test]
fn a_sender_knows_what_is_on_the_disks_of_other_hosts() {
    let dirs = [0; 3].map(|_| tempfile::tempdir().unwrap());
    let ports = [free_port(), free_port()];
    let mut receivers = [0, 1].map(|host| {
        let from = udp(&format!("udp:127.0.0.1:{}?durable=yes&request=none", ports[host]));
        let to = shm(&format!("shm:orders?capacity=1M&dir={}", dirs[host].path().display()));
        ReceiverAgent::open(&from, &to).unwrap()
    });
    let dir = dirs[2].path();
    let to =
        format!("udp:127.0.0.1:{}?also=127.0.0.1:{}&durable=yes&stats=out", ports[0], ports[1]);
    let error = Publisher::open(&to).err().unwrap();
    assert!(error.to_string().contains("ring=NAME"), "{error}");
    let to = format!("{to}&ring=orders&dir={}", dir.display());
    let mut publisher = Publisher::open(&to).unwrap();
    let session = publisher.producer().session();
    for n in 1..=100 {
        publisher.try_publish(&payload(n)).unwrap();
    }
    let mut pages = Vec::new();
    for (host, last) in [(0, 60), (1, 40), (2, 20)] {
        pages.push(recorder(dirs[host].path(), session, last));
    }
    let mut run_until = |publisher: &mut Publisher, expected: [u64; 3]| loop {
        publisher.poll().unwrap();
        for receiver in &mut receivers {
            receiver.duty_cycle().unwrap();
        }
        let sender = publisher.sender().unwrap();
        let stable = [1, 2, 3].map(|k| sender.stable_sequence(k));
        assert!(stable.iter().zip(expected).all(|(found, expected)| *found <= expected));
        if stable == expected {
            return;
        }
    };
    run_until(&mut publisher, [60, 40, 20]);
    let sender = publisher.sender().unwrap();
    assert!(sender.is_stable(40, 2) && !sender.is_stable(41, 2));
    pages[1].set(2, 80);
    run_until(&mut publisher, [80, 60, 20]);
    // What this session has not brought here is another's.
    pages[0].set(0, session + 1);
    pages[0].set(2, 100);
    pages[2].set(2, 70);
    run_until(&mut publisher, [80, 70, 60]);
    publisher.close().unwrap();
    let snapshot = CountersReader::open(dir, "out").unwrap().snapshot().unwrap();
    assert_eq!(snapshot.counter("stable-1"), Some(80));
}
