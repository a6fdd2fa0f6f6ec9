//! The rewinder by datagram: what left a sender's ring comes from the log, by either protocol, and
//! from another rewinder when one is gone.

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use gapless::log::LogOptions;
use gapless::protocol::control::{self, Advertisement, Body, Control, Gone, Request};
use gapless::protocol::{Event, Header, Session};
use gapless::shm::{ConsumerOptions, CountersReader, RingOptions};
use gapless::wire::{Inlet, SenderAgent};
use gapless::{Address, Agent, Flags, UdpAddress};

use support::{damage, payload, rewinder, running, small, write};

/// A socket that asks, and waits long enough for any answer that comes at all.
fn asker(server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.connect(server).unwrap();
    socket
}

fn answer(socket: &UdpSocket) -> Vec<u8> {
    let mut buffer = [0; 65_536];
    let length = socket.recv(&mut buffer).unwrap();
    buffer[..length].to_vec()
}

/// Sends what must not be answered, and then a solicit, whose answer must be the first to come.
fn unanswered(socket: &UdpSocket, session: Session, question: &[u8]) {
    socket.send(question).unwrap();
    let advertised = ask(socket, session, Body::Solicit { receiver: 1 });
    let control = Control::read(&advertised).unwrap();
    assert!(matches!(control.body, Body::Advertisement(_)), "{control:?}");
}

fn ask(socket: &UdpSocket, session: Session, body: Body<'_>) -> Vec<u8> {
    let mut buffer = [0; control::CONTROL_MAX_BYTES];
    let length = Control { session, body }.write(&mut buffer);
    socket.send(&buffer[..length]).unwrap();
    answer(socket)
}

/// The packet with messages from `first` on: as many of `wanted` as fit.
fn packet(session: Session, first: u64, wanted: u64, datagram_bytes: usize) -> Vec<u8> {
    let (mut blocks, mut count) = (Vec::new(), 0);
    for sequence in first..first + wanted {
        let message = payload(sequence);
        if 20 + blocks.len() + 2 + message.len() > datagram_bytes {
            break;
        }
        blocks.extend((message.len() as u16).to_be_bytes());
        blocks.extend(message);
        count += 1;
    }
    [&Header { session, sequence: first, count }.to_bytes()[..], &blocks[..]].concat()
}

#[test]
fn mold_requests_are_answered_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 35, 5, 2000);
    let (server, runner) = running(&rewinder(dir.path()).datagram_bytes(1000));
    let (socket, session) = (asker(server), Session::from_number(35));
    for (first, count) in [(5, 1), (5, 3), (900, 0xfffe), (901, 0xffff), (2003, 50), (77, 200)] {
        socket.send(&Header { session, sequence: first, count }.to_bytes()).unwrap();
        let wanted = u64::from(count).min(2005 - first);
        assert_eq!(answer(&socket), packet(session, first, wanted, 1000), "{first} {count}");
    }
    let other = Session::from_number(36);
    for (session, sequence, count) in [(session, 5, 0), (other, 5, 1), (session, 2005, 9)] {
        unanswered(
            &socket,
            Session::from_number(35),
            &Header { session, sequence, count }.to_bytes(),
        );
    }
    for odd in [&b"x"[..], &[0xff; 21], &[0; 4096]] {
        unanswered(&socket, session, odd);
    }
    let (rewinder, outcome) = runner.stop();
    outcome.unwrap();
    let counts = rewinder.counts();
    assert_eq!((counts.packets, counts.malformed, counts.odd), (6, 3, 3), "{counts:?}");
    assert_eq!(counts.requests, 6, "{counts:?}");
}

#[test]
fn gone_is_what_no_log_has_and_never_what_is_still_to_come() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut log, _) = small().open(dir.path()).unwrap();
    log.begin(35, 10).unwrap();
    for sequence in 10..100 {
        log.append(sequence, &payload(sequence), Flags::WHOLE, 0).unwrap();
    }
    log.append_lost(50, 0).unwrap();
    for sequence in 150..200 {
        log.append(sequence, &payload(sequence), Flags::WHOLE, 0).unwrap();
    }
    log.flush().unwrap();
    write(other.path(), 35, 120, 10);
    let options = rewinder(dir.path()).log(other.path());
    let (server, runner) = running(&options.server("10.1.2.3:4".parse().unwrap()));
    let (socket, session) = (asker(server), Session::from_number(35));
    let request = |first, span| {
        let body = Body::Request(Request { receiver: 1, first, span, bitmap: &[] });
        ask(&socket, session, body)
    };
    let gone = |first, span| {
        let body = Body::Gone(Gone { first, span, oldest: 10, next: 200 });
        let mut buffer = [0; control::CONTROL_MAX_BYTES];
        let length = Control { session, body }.write(&mut buffer);
        buffer[..length].to_vec()
    };
    assert_eq!(request(100, 5), gone(100, 5));
    assert_eq!(request(100, 50), gone(100, 20)); // up to what the other log has
    assert_eq!(answer(&socket), packet(session, 120, 10, 1472));
    assert_eq!(answer(&socket), gone(130, 20));
    assert_eq!(request(3, 8), gone(3, 7)); // before the log
    assert_eq!(answer(&socket), packet(session, 10, 1, 1472));
    assert_eq!(request(200, 9), gone(200, 9)); // not there yet: its next says so
    for sequence in 200..220 {
        log.append(sequence, &payload(sequence), Flags::WHOLE, 0).unwrap();
    }
    log.flush().unwrap();
    // What it looked up is a moment old at most.
    let mut came = gone(200, 9);
    while came == gone(200, 9) {
        came = request(200, 9);
    }
    assert_eq!(came, packet(session, 200, 9, 1472));
    let bitmap = [0b1001_0001, 0b1];
    let body = Body::Request(Request { receiver: 1, first: 150, span: 9, bitmap: &bitmap });
    assert_eq!(ask(&socket, session, body), packet(session, 150, 1, 1472));
    assert_eq!(answer(&socket), packet(session, 154, 1, 1472));
    assert_eq!(answer(&socket), packet(session, 157, 2, 1472));
    let any = ask(&socket, Session([0; 10]), Body::Solicit { receiver: 1 });
    let mut servers = [None; control::SERVERS_MAX];
    servers[0] = Some("10.1.2.3:4".parse().unwrap());
    let expected = Advertisement { oldest: 10, next: 220, ended: false, servers };
    let expected = Control { session, body: Body::Advertisement(expected) };
    assert_eq!(Control::read(&any), Ok(expected));
    assert!(runner.stop().1.is_ok());
}

#[test]
fn what_is_damaged_in_one_log_comes_from_another() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(dir.path(), 35, 1, 3000);
    let (first, count) = damage(dir.path());
    let session = Session::from_number(35);
    let body = Body::Request(Request { receiver: 1, first, span: 1, bitmap: &[] });
    let (server, runner) = running(&rewinder(dir.path()));
    let control = ask(&asker(server), session, body);
    let Body::Gone(gone) = Control::read(&control).unwrap().body else { panic!("{control:?}") };
    assert_eq!((gone.first, gone.span), (first, 1));
    assert!(count > 1 && gone.next == 3001);
    assert!(runner.stop().1.is_ok());

    write(other.path(), 35, 1, 3000);
    let (server, runner) = running(&rewinder(dir.path()).log(other.path()));
    assert_eq!(ask(&asker(server), session, body), packet(session, first, 1, 1472));
    assert!(runner.stop().1.is_ok());
}

#[test]
fn a_log_that_begins_to_have_the_session_later_is_found() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(dir.path(), 35, 1, 100);
    // Nothing is refused, however often one asks.
    let options = rewinder(dir.path()).log(other.path()).requester_bytes_per_second(1 << 40);
    let (server, runner) = running(&options);
    let (socket, session) = (asker(server), Session::from_number(35));
    let body = Body::Request(Request { receiver: 1, first: 200, span: 5, bitmap: &[] });
    let before = ask(&socket, session, body);
    assert!(control::is_control(&before));
    write(other.path(), 35, 150, 100);
    let mut came = before;
    while control::is_control(&came) {
        came = ask(&socket, session, body); // once a second it looks
    }
    assert_eq!(came, packet(session, 200, 5, 1472));
    assert!(runner.stop().1.is_ok());
}

fn udp(text: &str) -> UdpAddress {
    match text.parse().unwrap() {
        Address::Udp(udp) => *udp,
        other => panic!("{other}"),
    }
}

/// A sender that has sent much more than its ring holds, and what it sent, in a log each.
fn sender(dir: &std::path::Path, port: u16, count: u64) -> SenderAgent {
    let mut producer = RingOptions::new().directory(dir).capacity_bytes(1 << 16).open("x").unwrap();
    let ring = ConsumerOptions::new().directory(dir).name("sender").attach("x").unwrap();
    let session = ring.session();
    let address = udp(&format!("udp:127.0.0.1:{port}"));
    let mut sender = SenderAgent::open(&address, ring).unwrap();
    for name in ["a", "b"] {
        let (mut log, _) = LogOptions::new().open(dir.join(name)).unwrap();
        log.begin(session, 1).unwrap();
        for sequence in 1..=count {
            log.append(sequence, &payload(sequence), Flags::WHOLE, sequence).unwrap();
        }
        log.flush().unwrap();
    }
    for sequence in 1..=count {
        while producer.try_publish(&payload(sequence)).is_err() {
            sender.duty_cycle().unwrap();
        }
    }
    while sender.next_sequence() <= count {
        sender.duty_cycle().unwrap();
    }
    sender
}

/// Receives 1 to `count`, calling `between` after each poll with the next sequence.
fn receive(inlet: &mut Inlet, count: u64, mut between: impl FnMut(u64)) {
    let mut next = 1;
    while next <= count {
        inlet
            .poll(64, |event| {
                match event {
                    Event::Message { sequence, payload: bytes, .. } => {
                        assert_eq!((sequence, bytes), (next, &payload(next)[..]));
                        next += 1;
                    }
                    Event::Joined { next: 1, .. } => {}
                    other => panic!("{other:?}"),
                }
                true
            })
            .unwrap();
        between(next);
    }
}

fn free_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn what_left_the_ring_comes_from_the_log() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let mut sender = sender(dir.path(), port, 5000);
    let options = rewinder(dir.path().join("a")).counters("r").counters_directory(dir.path());
    let mut rewinder = options.open().unwrap();
    let servers = [sender.request_address().port(), rewinder.addresses().next().unwrap().port()]
        .map(|port| format!("127.0.0.1:{port}"));
    let address = format!("udp:127.0.0.1:{port}?from=1&request={}", servers.join(","));
    let mut inlet = Inlet::open(&udp(&address)).unwrap();
    receive(&mut inlet, 5000, |_| {
        sender.duty_cycle().unwrap();
        rewinder.duty_cycle().unwrap();
    });
    let (sent, rewound) = (sender.counts(), rewinder.counts());
    assert!(sent.gone > 0 && rewound.messages > 3000, "{sent:?} {rewound:?}");
    drop(rewinder);
    let page = CountersReader::open(dir.path(), "r").unwrap().snapshot().unwrap();
    assert!(page.counters.iter().any(|(name, value)| name == "messages" && *value > 3000));
}

#[test]
fn a_receiver_falls_over_to_another_rewinder() {
    let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
    let mut sender = sender(dir.path(), port, 5000);
    // So slow that the first cannot have answered everything.
    let slow = rewinder(dir.path().join("a")).requester_bytes_per_second(1_000_000);
    let mut first = Some(slow.open().unwrap());
    let mut second = rewinder(dir.path().join("b")).open().unwrap();
    let servers = [first.as_ref().unwrap(), &second].map(|r| r.addresses().next().unwrap());
    let servers = servers.map(|server| server.to_string()).join(",");
    let address = format!("udp:127.0.0.1:{port}?from=1&request={servers}");
    let mut inlet = Inlet::open(&udp(&address)).unwrap();
    receive(&mut inlet, 5000, |next| {
        sender.duty_cycle().unwrap();
        if next > 100 {
            first = None;
        }
        if let Some(first) = &mut first {
            first.duty_cycle().unwrap();
        } else {
            second.duty_cycle().unwrap();
        }
    });
    assert!(second.counts().messages > 100, "{:?}", second.counts());
}

#[test]
fn requesters_get_no_more_than_the_budget() {
    const RATE: u64 = 1_000_000;
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), 35, 1, 5000);
    let started = std::time::Instant::now();
    let options = rewinder(dir.path()).bytes_per_second(RATE);
    let mut rewinder = options.open().unwrap();
    let (socket, session) = (asker(rewinder.addresses().next().unwrap()), Session::from_number(35));
    let body = Body::Request(Request { receiver: 1, first: 1, span: 4000, bitmap: &[] });
    let mut buffer = [0; control::CONTROL_MAX_BYTES];
    let length = Control { session, body }.write(&mut buffer);
    while rewinder.counts().bytes < 600_000 {
        socket.send(&buffer[..length]).unwrap();
        rewinder.duty_cycle().unwrap();
        let counts = rewinder.counts();
        let earned = RATE as u128 * started.elapsed().as_nanos() / 1_000_000_000;
        // A burst, and the last packets.
        let most = earned + (128 << 10) + (64 << 10);
        assert!(u128::from(counts.bytes) <= most, "{counts:?} of {most}");
    }
    assert!(rewinder.counts().refused > 0, "{:?}", rewinder.counts());
}
