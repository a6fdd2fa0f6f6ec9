//! Who uses the interface beside us: other traffic, and other programs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use gapless::net::{Backend, Datagrams, NetError, Network, Run, SocketSet};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, socket,
};

use crate::ends::{
    at, by_kernel, collect, end, hosts, numbered, on, plain, reach, refusal, send, until,
};

const PORT: u16 = 9_400;
const STREAMED_BYTES: usize = 16 << 20;
const PINGS: u16 = 200;

/// Bytes that a stream carries, in pieces of one length.
fn piece(number: usize) -> Vec<u8> {
    (0..16_384).map(|i| (i * 31 + number * 7) as u8).collect()
}

/// Streams by TCP to whoever listens, and waits for the answer.
fn stream(to: &str) {
    let mut connection = TcpStream::connect((to, PORT)).unwrap();
    for number in 0..STREAMED_BYTES / piece(0).len() {
        connection.write_all(&piece(number)).unwrap();
    }
    connection.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "every byte");
}

fn serve(listener: &TcpListener) {
    let (mut connection, _) = listener.accept().unwrap();
    let mut room = vec![0; piece(0).len()];
    for number in 0..STREAMED_BYTES / room.len() {
        connection.read_exact(&mut room).unwrap();
        assert!(room == piece(number), "piece {number} of the stream");
    }
    assert_eq!(connection.read(&mut room).unwrap(), 0);
    connection.write_all(b"every byte").unwrap();
}

/// Pings, each until it is answered. Returns how many questions that took.
fn ping(to: Ipv4Addr) -> u32 {
    let flags = SockFlag::SOCK_NONBLOCK;
    let raw = SockProtocol::Icmp;
    let socket = socket(AddressFamily::Inet, SockType::Raw, flags, raw).unwrap();
    let place = SockaddrIn::from(std::net::SocketAddrV4::new(to, 0));
    let mut questions = 0;
    for number in 0..PINGS {
        // Echo request, code 0, checksum, identifier, number.
        let mut echo = [8, 0, 0, 0, 0x78, 0x78, 0, 0];
        echo[6..].copy_from_slice(&number.to_be_bytes());
        let sum: u32 =
            echo.chunks(2).map(|two| u32::from(u16::from_be_bytes([two[0], two[1]]))).sum();
        echo[2..4].copy_from_slice(&(!((sum & 0xFFFF) + (sum >> 16)) as u16).to_be_bytes());
        let mut patience = 0;
        until("an answer to a ping", || {
            if patience == 0 {
                sendto(socket.as_raw_fd(), &echo, &place, MsgFlags::empty()).unwrap();
                questions += 1;
                patience = 200_000; // polls, and then it is taken for lost
            }
            patience -= 1;
            let mut room = [0; 128];
            match recv(socket.as_raw_fd(), &mut room, MsgFlags::empty()) {
                // An IP header of 20 bytes, and the echo reply.
                Ok(len) => len >= 28 && room[20] == 0 && room[24..28] == echo[4..],
                Err(Errno::EAGAIN) => false,
                Err(error) => panic!("{error}"),
            }
        });
    }
    questions
}

/// A connection and a ping run through the interface while datagrams flood it both ways.
#[test]
fn other_traffic_is_let_alone() {
    let Some(hosts) = hosts(2) else { return };
    let mut left = end(&hosts, 0, &[on(0, false, PORT)]);
    let mut right = end(&hosts, 1, &[on(1, false, PORT)]);
    let places = [left.local_address(0), right.local_address(0)];
    let mut probe = end(&hosts, 0, &[on(0, false, 0).connect(places[1])]);
    reach(&hosts, 0, &mut probe);
    let mut probe = end(&hosts, 1, &[on(1, false, 0).connect(places[0])]);
    reach(&hosts, 1, &mut probe);
    let before = by_kernel(&hosts, 0);

    let listener = at(&hosts, 1, || TcpListener::bind(("10.78.0.2", PORT)).unwrap());
    let server = hosts.on(1, move || serve(&listener));
    let client = hosts.on(0, || stream("10.78.0.2"));
    let pinger = hosts.on(0, || ping(Ipv4Addr::new(10, 78, 0, 2)));
    let bytes = vec![0x55; 64 * 1_000];
    let runs = [Run { bytes: &bytes, segment_bytes: 1_000 }; 2];
    let (mut sent, mut seen) = (0, 0);
    while !(server.is_finished() && client.is_finished() && pinger.is_finished()) {
        sent += left.send(0, Some(places[1]), &runs).unwrap() as u64;
        sent += right.send(0, Some(places[0]), &runs).unwrap() as u64;
        for end in [&mut left, &mut right] {
            seen += end.receive(SocketSet::all(), 256, |_| ()).unwrap();
        }
    }
    server.join().unwrap();
    client.join().unwrap();
    let questions = pinger.join().unwrap();
    eprintln!("{sent} runs of 64 were sent, {seen} datagrams came; {questions} questions");
    assert!(sent > 0 && seen > 0);
    assert_eq!(by_kernel(&hosts, 0), before, "the flood went through the kernel");
}

/// What is not to one of our pairs is the kernel's, on the same interface and to the same address.
#[test]
fn other_ports_are_let_alone() {
    let Some(hosts) = hosts(2) else { return };
    let ours = end(&hosts, 1, &[on(1, false, PORT)]);
    for v6 in [false, true] {
        let mut theirs = plain(&hosts, 1, &[on(1, v6, PORT + 1)]);
        let there = theirs.local_address(0);
        for mut sender in [
            plain(&hosts, 0, &[on(0, v6, 0).connect(there)]),
            end(&hosts, 0, &[on(0, v6, 0).connect(there)]),
        ] {
            let before = by_kernel(&hosts, 1).0;
            let sent: Vec<Vec<u8>> = (0..100).map(|n| numbered(n, 20)).collect();
            for bytes in &sent {
                send(&mut sender, 0, &[Run::one(bytes)]);
            }
            assert!(collect(&mut theirs, sent.len()) == sent);
            assert_eq!(by_kernel(&hosts, 1).0 - before, 100);
        }
    }
    assert_eq!(ours.statistics(0).datagrams_in, 0);
}

/// A call of bpf(2) that returns a descriptor.
fn bpf(command: i64, attributes: &[u8; 128]) -> OwnedFd {
    // SAFETY: the kernel reads 128 bytes of `attributes`, and what they point at.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), 128) };
    assert!(fd >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
    // SAFETY: it is new, and nobody else's.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

/// Puts a program on an interface that lets everything pass. It stays as long as the link is held.
fn put_a_program_on(interface: u32) -> OwnedFd {
    // R0 = 2 (XDP_PASS); exit.
    let code = [0x0000_0002_0000_00b7_u64, 0x95];
    let license = c"GPL";
    let mut load = [0; 128];
    load[..4].copy_from_slice(&6_u32.to_ne_bytes()); // of the type XDP
    load[4..8].copy_from_slice(&(code.len() as u32).to_ne_bytes());
    load[8..16].copy_from_slice(&(code.as_ptr().expose_provenance() as u64).to_ne_bytes());
    load[16..24].copy_from_slice(&(license.as_ptr().expose_provenance() as u64).to_ne_bytes());
    load[48..55].copy_from_slice(b"theirs\0");
    let program = bpf(5, &load);
    let mut link = [0; 128];
    link[..4].copy_from_slice(&program.as_raw_fd().to_ne_bytes());
    link[4..8].copy_from_slice(&interface.to_ne_bytes());
    link[8..12].copy_from_slice(&37_u32.to_ne_bytes()); // at the hook XDP
    link[12..16].copy_from_slice(&2_u32.to_ne_bytes()); // in generic mode
    bpf(28, &link)
}

/// Somebody else's program stays where it is; we are told whose, and go without.
#[test]
fn a_foreign_program_is_not_displaced() {
    let Some(hosts) = hosts(2) else { return };
    let theirs = at(&hosts, 1, || put_a_program_on(nix::net::if_::if_nametoindex("eth0").unwrap()));
    let shown = |hosts: &crate::hosts::Hosts| {
        let text = hosts.ip(1, "link show eth0\n");
        text.split("prog/xdp id ").nth(1).map(|rest| rest.split(' ').next().unwrap().to_owned())
    };
    let program = shown(&hosts).expect("a program is there");
    match refusal(&hosts, 1, &on(1, false, PORT)) {
        NetError::Unavailable { backend: "AF_XDP", reason } => {
            assert!(reason.contains(&format!("XDP program {program} (theirs)")), "{reason}");
        }
        other => panic!("{other}"),
    }
    let mut receiver = at(&hosts, 1, || {
        let mut network = Network::prefer(Backend::Xdp);
        network.add(&on(1, false, PORT)).unwrap();
        network
    });
    let notes = receiver.notes().join("; ");
    assert!(notes.contains("(theirs)") && notes.contains("left to the kernel"), "{notes}");
    let there = receiver.local_address(0);
    let mut sender = end(&hosts, 0, &[on(0, false, 0).connect(there)]);
    reach(&hosts, 0, &mut sender);
    send(&mut sender, 0, &[Run::one(b"all the same")]);
    assert_eq!(collect(&mut receiver, 1), [b"all the same"]);
    receiver.wait(Duration::ZERO).unwrap();
    assert_eq!(shown(&hosts), Some(program));
    drop(theirs);
    until("their program to go", || shown(&hosts).is_none());
    drop(receiver);
    assert!(crate::ends::steered(&end(&hosts, 1, &[on(1, false, PORT)]), 0));
}
