//! `rewind` from outside: a log is served by TCP and by datagram until it is asked to end.

mod support;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use gapless::Flags;
use gapless::log::{Fetch, LogOptions};
use gapless::protocol::{Header, Session};
use nix::sys::signal::Signal;
use support::Rings;

#[test]
fn a_log_is_served_until_ctrl_c() {
    let rings = Rings::new();
    let directory = rings.path().join("log");
    let (mut log, _) = LogOptions::new().open(&directory).expect("a log");
    log.begin(35, 1).expect("a session");
    for sequence in 1..=100_u64 {
        log.append(sequence, &sequence.to_be_bytes(), Flags::WHOLE, sequence).expect("room");
    }
    log.flush().expect("written");
    let arguments =
        ["rewind", "--bind", "127.0.0.1:0", "--rate", "50M", "--json", "--stats", "rewinder"];
    let mut rewinder = rings.start_more(arguments, &[&directory]);
    let line = rewinder.await_error_line("serving 1 log at");
    let server: SocketAddr =
        line.trim().rsplit(' ').next().and_then(|at| at.parse().ok()).expect("where");

    let mut fetch = Fetch::connect(server, None, 1).expect("the rewinder");
    let mut next = 1_u64;
    while next <= 100 {
        fetch
            .poll_while(64, |message, _| {
                assert_eq!(message.payload, next.to_be_bytes());
                next += 1;
                true
            })
            .expect("messages");
    }
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let header = Header { session: Session::from_number(35), sequence: 7, count: 1 };
    socket.send_to(&header.to_bytes(), server).expect("sent");
    let mut answer = [0; 100];
    let (length, _) = socket.recv_from(&mut answer).expect("an answer");
    assert_eq!(
        answer[..length],
        [&header.to_bytes()[..], b"\0\x08", &7_u64.to_be_bytes()].concat()
    );

    rewinder.signal(Signal::SIGINT);
    let summary = rewinder.end().expect(0).json();
    assert_eq!((&summary["messages"], &summary["clients_served"]), (&1.into(), &1.into()));
    let page = rings.run(["stat", "rewinder", "--once", "--json"]).expect(0).json();
    assert_eq!(page["counters"]["requests"]["value"], 1, "{page:#}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let rings = Rings::new();
    let missing = rings.run(["rewind", "/no/such/log", "--bind", "127.0.0.1:0"]).expect(2);
    assert!(missing.err().contains("/no/such/log is no directory"), "{}", missing.err());
    rings.run(["rewind", "/tmp"]).expect(2);
    rings.run(["rewind", "/tmp", "--bind", "127.0.0.1:0", "--rate", "much"]).expect(2);
    let nowhere = rings.run(["rewind", "/tmp", "--bind", "nowhere"]).expect(2);
    assert!(nowhere.err().contains("nowhere"), "{}", nowhere.err());
}
