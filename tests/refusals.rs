//! What the network refuses when a stream is opened or sent: each its own error, through addresses.

use std::net::UdpSocket;

use gapless::net::NetError;
use gapless::wire::WireError;
use gapless::{Error, Publisher, Subscriber};

fn net(error: Error) -> NetError {
    eprintln!("{error}");
    match error {
        Error::Wire(WireError::Net(error)) => error,
        other => panic!("{other}"),
    }
}

fn refused_to_subscriber(address: &str) -> NetError {
    net(Subscriber::open(address).map(|_| ()).unwrap_err())
}

fn refused_to_publisher(address: &str) -> NetError {
    net(Publisher::open(address).map(|_| ()).unwrap_err())
}

#[test]
fn an_interface_that_is_not_there() {
    for interface in ["wan7", "198.51.100.9", "2001:db8::77"] {
        let address = format!("udp:239.255.7.2:9000?iface={interface}");
        for error in [refused_to_subscriber(&address), refused_to_publisher(&address)] {
            let NetError::InterfaceMissing { wanted, available } = error else { panic!("{error}") };
            assert_eq!(wanted, interface);
            assert!(available.iter().any(|text| text.starts_with("lo")), "{available:?}");
        }
    }
}

#[test]
fn a_group_that_is_none_and_no_address_of_this_host_either() {
    let error = refused_to_subscriber("udp:198.51.100.9:9000");
    assert!(matches!(error, NetError::AddressMissing { address } if address.port() == 9000));
    let error = refused_to_publisher("udp:239.255.7.2:9000?bind=198.51.100.9:0");
    assert!(matches!(error, NetError::AddressMissing { .. }), "{error}");
}

#[test]
fn a_port_in_use() {
    // At a loopback address that no other process has.
    let pid = std::process::id().to_be_bytes();
    let own = std::net::Ipv4Addr::new(127, 64 | pid[1] & 0x3f, pid[2], pid[3]);
    let taken = std::net::SocketAddr::from((own, 9_777));
    let holder = UdpSocket::bind(taken).unwrap();
    let error = refused_to_subscriber(&format!("udp:{taken}"));
    assert!(matches!(error, NetError::PortInUse { address } if address == taken), "{error}");
    let error = refused_to_publisher(&format!("udp:{own}:9?bind={taken}"));
    assert!(matches!(error, NetError::PortInUse { address } if address == taken), "{error}");
    drop(holder);
    Subscriber::open(&format!("udp:{taken}")).unwrap();
}

#[test]
fn families_that_are_mixed() {
    if UdpSocket::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 on this host");
        return;
    }
    let error = refused_to_publisher("udp:239.255.7.2:9000?also=[::1]:9000");
    assert!(matches!(error, NetError::FamilyMismatch { what: "destination", .. }), "{error}");
    let error = refused_to_subscriber("udp:239.255.7.2:9000?source=::1");
    assert!(matches!(error, NetError::FamilyMismatch { what: "source", .. }), "{error}");
}

#[test]
fn what_takes_a_permission() {
    // To everybody on every network: the kernel wants that to be asked for specially.
    let error = refused_to_publisher("udp:255.255.255.255:9000");
    let NetError::Denied { what } = error else { panic!("{error}") };
    assert_eq!(what, "connect to 255.255.255.255:9000");
    let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    if first.is_ok_and(|text| text.trim() != "1024") {
        eprintln!("skipped: this host gives its ports to anybody");
        return;
    }
    std::thread::spawn(|| {
        give_up_privileges();
        let error = refused_to_subscriber("udp:127.0.0.1:631");
        assert!(matches!(&error, NetError::Denied { what } if what == "bind 127.0.0.1:631"));
    })
    .join()
    .unwrap();
}

/// Of this thread.
fn give_up_privileges() {
    // Version 3 of the interface, this thread, no capability of any kind.
    let (header, none) = ([0x2008_0522_u32, 0], [0_u32; 6]);
    // SAFETY: the kernel reads eight bytes of `header` and 24 of `none`.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), none.as_ptr()) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

#[test]
fn datagrams_too_large_or_too_small_to_be() {
    for (bytes, address) in [(63, "127.0.0.1:9"), (65_508, "127.0.0.1:9"), (65_508, "[::1]:9")] {
        let error = Publisher::open(&format!("udp:{address}?datagram={bytes}")).map(|_| ());
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with(&format!("datagram_bytes = {bytes}: from 64")), "{error}");
    }
}

/// A message that fits no datagram is refused where it is published, with the limit.
#[test]
fn a_message_too_long() {
    let mut publisher = Publisher::open("udp:127.0.0.1:9?datagram=1408").unwrap();
    let longest = 1408 - 20 - 2;
    assert_eq!(publisher.sender().unwrap().max_message_bytes(), longest);
    publisher.try_publish(&vec![1; longest]).unwrap();
    let error = publisher.try_publish(&vec![1; longest + 1]).unwrap_err().to_string();
    assert!(error.contains("1387") && error.contains("1386"), "{error}");
    publisher.poll().unwrap();
    assert_eq!(publisher.sender().unwrap().counts().messages, 1);
}
