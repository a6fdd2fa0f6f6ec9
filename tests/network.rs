//! Streams between hosts on a real network: multicast over a bridge to receivers in namespaces of
//! their own, with loss on the bridge, cables pulled, processes killed. All of it on each back end,
//! and with a host on each. Needs root; says so and passes elsewhere.

#[path = "network/child.rs"]
mod child;
#[path = "network/hosts.rs"]
mod hosts;
#[path = "network/loss.rs"]
mod loss;

use std::time::Instant;

use child::{Player, is_as_asked, payload, play};
use gapless::net::NetError;
use gapless::shm::ProducerStatus;
use gapless::wire::WireError;
use gapless::{Address, PollError, Publisher, Subscriber};
use hosts::{Hosts, PATIENCE};

/// Which back end each host is on: the publisher's (host 0) and the subscribers' (1, 2 and 3).
#[derive(Clone, Copy)]
struct Cast {
    /// As its tests are called.
    name: &'static str,
    hosts: [&'static str; 4],
}

/// Makes a test of each function for each cast. Of two hosts it is the first two of a cast.
macro_rules! suite {
    ($($cast:ident: $hosts:expr;)*) => {$(
        mod $cast {
            const CAST: super::Cast = super::Cast { name: stringify!($cast), hosts: $hosts };
            suite!(@tests
                three_receivers_get_the_same_over_lossy_links
                three_receivers_get_the_same_over_ipv6
                cables_are_pulled_and_plugged_in_again
                a_host_takes_its_interface_down_and_up
                a_killed_host_is_missed_and_comes_back
                a_killed_receiver_holds_the_sender_up_no_longer_than_its_timeout
                a_path_too_narrow_is_told_and_passes
                a_groups_path_too_narrow_is_told_and_passes
            );
        }
    )*};
    (@tests $($test:ident)*) => {$(
        #[test]
        fn $test() {
            super::$test(CAST);
        }
    )*};
}

suite! {
    sockets: ["socket"; 4];
    io_uring: ["uring"; 4];
    af_xdp: ["xdp"; 4];
    sockets_to_others: ["socket", "xdp", "uring", "socket"];
    io_uring_to_others: ["uring", "socket", "xdp", "uring"];
    af_xdp_to_others: ["xdp", "uring", "socket", "xdp"];
}

impl Cast {
    /// So many hosts; `None`, and says why, where they or a back end of theirs cannot be had.
    fn hosts(&self, count: usize) -> Option<Hosts> {
        let hosts = Hosts::new(count)?;
        for backend in &self.hosts[..count] {
            if let Err(reason) = hosts.can(backend) {
                eprintln!("skipped: {reason}");
                return None;
            }
        }
        Some(hosts)
    }

    /// An address as a host has it.
    fn address(&self, host: usize, address: &str) -> String {
        format!("{address}&backend={}", self.hosts[host])
    }

    /// A test's full name.
    fn test(&self, name: &str) -> String {
        format!("{}::{name}", self.name)
    }
}

/// A subscriber on a host: its sockets are there, it is polled from here.
struct Reader {
    subscriber: Subscriber,
    next: u64,
    sessions: u64,
}

impl Reader {
    fn new(cast: Cast, hosts: &Hosts, host: usize, address: &str) -> Self {
        let address = format!("{address}&from=1&giveup=60s&name=reader{host}");
        let address = cast.address(host, &address);
        let open = move || {
            let mut subscriber = Subscriber::open(&address).unwrap();
            is_as_asked(subscriber.inlet().unwrap().network(), 0, &address);
            subscriber
        };
        Self { subscriber: hosts.on(host, open).join().unwrap(), next: 1, sessions: 1 }
    }

    /// Takes what has come: the next messages, byte for byte, and nothing else.
    fn poll(&mut self) {
        let next = &mut self.next;
        let polled = self.subscriber.poll(256, |message| {
            assert_eq!(message.sequence, *next);
            assert_eq!(message.payload, payload(*next), "message {next}");
            *next += 1;
        });
        match polled {
            Ok(_) => {}
            Err(PollError::NewSession { next, .. }) => {
                self.next = next;
                self.sessions += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn lost(&mut self) -> u64 {
        self.subscriber.inlet().unwrap().counts().lost
    }
}

fn readers(cast: Cast, hosts: &Hosts, count: usize, address: &str) -> Vec<Reader> {
    (1..=count).map(|host| Reader::new(cast, hosts, host, address)).collect()
}

fn publisher(cast: Cast, hosts: &Hosts, address: &str) -> Publisher {
    let address = cast.address(0, address);
    let open = move || {
        let mut publisher = Publisher::open(&address).unwrap();
        is_as_asked(publisher.sender().unwrap().network(), 0, &address);
        publisher
    };
    hosts.on(0, open).join().unwrap()
}

/// Publishes up to `last`, in batches of many sizes.
fn publish(publisher: &mut Publisher, last: u64) {
    while publisher.next_sequence() <= last {
        let next = publisher.next_sequence();
        let end = last.min(next + next % 41);
        let mut batch = publisher.batch();
        for sequence in next..=end {
            batch.push(&payload(sequence)).unwrap();
        }
        batch.commit();
        publisher.poll().unwrap();
    }
}

/// Polls until something is so, and fails if it never is.
fn until(readers: &mut [Reader], mut done: impl FnMut(&mut [Reader]) -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !done(readers) {
        readers.iter_mut().for_each(Reader::poll);
        let places: Vec<u64> = readers.iter().map(|reader| reader.next).collect();
        assert!(Instant::now() < limit, "this never came; next messages: {places:?}");
    }
}

/// Polls until every reader has all messages up to `last`.
fn all_have(readers: &mut [Reader], publisher: &mut Publisher, last: u64) {
    until(readers, |readers| {
        publisher.poll().unwrap();
        readers.iter().all(|reader| reader.next > last)
    });
}

const V4: &str = "udp:239.1.2.3:9000?iface=eth0&heartbeat=10ms";
const V6: &str = "udp:[ff15::7]:9000?iface=eth0&heartbeat=10ms";

fn all_receive_the_same_over_lossy_links(cast: Cast, address: &str) {
    let Some(hosts) = cast.hosts(4) else { return };
    let lossy = (1..=3).all(|host| hosts.lose(host, 9000, 10));
    let mut readers = readers(cast, &hosts, 3, address);
    let mut publisher = publisher(cast, &hosts, address);
    for last in (1_000..=20_000).step_by(1_000) {
        publish(&mut publisher, last);
        readers.iter_mut().for_each(Reader::poll);
    }
    all_have(&mut readers, &mut publisher, 20_000);
    for (n, reader) in readers.iter_mut().enumerate() {
        let counts = *reader.subscriber.inlet().unwrap().counts();
        assert_eq!((counts.messages, counts.lost, counts.sessions), (20_000, 0, 1));
        if lossy {
            let dropped = hosts.lost(n + 1);
            assert!(dropped > 0 && counts.repaired > 0, "{dropped} packets dropped, {counts:?}");
        }
    }
    // The sender knows them all by name.
    until(&mut readers, |_| {
        publisher.poll().unwrap();
        let sender = publisher.sender().unwrap();
        sender.receivers().count() == 3 && sender.receivers().all(|view| view.lag_messages == 0)
    });
    let sender = publisher.sender().unwrap();
    let mut names: Vec<_> = sender.receivers().map(|view| view.name).collect();
    names.sort();
    assert_eq!(names, ["reader1", "reader2", "reader3"]);
}

fn three_receivers_get_the_same_over_lossy_links(cast: Cast) {
    all_receive_the_same_over_lossy_links(cast, V4);
}

fn three_receivers_get_the_same_over_ipv6(cast: Cast) {
    all_receive_the_same_over_lossy_links(cast, V6);
}

fn cables_are_pulled_and_plugged_in_again(cast: Cast) {
    let Some(hosts) = cast.hosts(4) else { return };
    let mut readers = readers(cast, &hosts, 3, V4);
    let mut publisher = publisher(cast, &hosts, V4);
    publish(&mut publisher, 2_000);
    all_have(&mut readers, &mut publisher, 2_000);

    hosts.cable(2, false);
    publish(&mut publisher, 4_000);
    until(&mut readers, |readers| {
        publisher.poll().unwrap();
        readers[0].next > 4_000 && readers[2].next > 4_000
    });
    assert_eq!(readers[1].next, 2_001);
    hosts.cable(2, true);
    all_have(&mut readers, &mut publisher, 4_000);

    hosts.cable(0, false);
    publish(&mut publisher, 6_000);
    for _ in 0..100 {
        publisher.poll().unwrap();
        readers.iter_mut().for_each(Reader::poll);
    }
    assert!(readers.iter().all(|reader| reader.next == 4_001));
    hosts.cable(0, true);
    all_have(&mut readers, &mut publisher, 6_000);
    assert!(readers.iter_mut().all(|reader| reader.lost() == 0));
}

/// The link itself is taken down and up on the host, which forgets what the host was about to send.
fn a_host_takes_its_interface_down_and_up(cast: Cast) {
    let Some(hosts) = cast.hosts(3) else { return };
    let mut readers = readers(cast, &hosts, 2, V4);
    let mut publisher = publisher(cast, &hosts, V4);
    publish(&mut publisher, 1_000);
    all_have(&mut readers, &mut publisher, 1_000);
    for host in [0, 1] {
        hosts.ip(host, "link set eth0 down\n");
        let last = publisher.next_sequence() + 999;
        publish(&mut publisher, last);
        hosts.ip(host, "link set eth0 up\n");
        all_have(&mut readers, &mut publisher, last);
    }
    assert!(readers.iter_mut().all(|reader| reader.lost() == 0));
}

fn a_killed_host_is_missed_and_comes_back(cast: Cast) {
    play();
    let Some(hosts) = cast.hosts(4) else { return };
    let start = |address: &str| {
        let test = cast.test("a_killed_host_is_missed_and_comes_back");
        Player::start(&test, &hosts, 0, "publisher", &cast.address(0, address))
    };
    let dir = tempfile::tempdir().unwrap();
    let kept = format!("{V4}&ring=orders&capacity=4M&dir={}", dir.path().display());
    let mut readers = readers(cast, &hosts, 3, V4);
    let reached = |readers: &mut [Reader], last: u64| {
        until(readers, |readers| readers.iter().all(|reader| reader.next > last));
    };

    let mut host = start(&kept);
    assert_eq!(host.at(), 0);
    host.publish(1_000);
    reached(&mut readers, 1_000);
    let session = readers[0].subscriber.inlet().unwrap().session();
    host.kill();
    let all = |readers: &[Reader], status| {
        readers.iter().all(|reader| reader.subscriber.publisher_status() == status)
    };
    assert!(all(&readers, ProducerStatus::Alive), "nobody can know that yet");
    until(&mut readers, |readers| all(readers, ProducerStatus::Dead));

    // With its ring it carries on, and is killed again in mid-flow.
    let mut host = start(&kept);
    assert_eq!(host.at(), 1_000);
    host.publish(u64::MAX - 1);
    reached(&mut readers, 3_000);
    host.kill();
    let mut host = start(&kept);
    let last = host.at();
    assert!(last >= 3_000);
    host.publish(last + 1_000);
    reached(&mut readers, last + 1_000);
    assert!(all(&readers, ProducerStatus::Alive));
    for reader in &mut readers {
        assert_eq!(reader.subscriber.inlet().unwrap().session(), session);
        assert_eq!((reader.lost(), reader.sessions), (0, 1));
    }
    host.kill();

    // Without, it begins a new session, from message 1, and says so.
    let mut host = start(V4);
    assert_eq!(host.at(), 0);
    host.publish(1_000);
    until(&mut readers, |readers| {
        readers.iter().all(|reader| reader.sessions == 2 && reader.next > 1_000)
    });
    assert_ne!(readers[0].subscriber.inlet().unwrap().session(), session);
    host.kill();
}

fn a_killed_receiver_holds_the_sender_up_no_longer_than_its_timeout(cast: Cast) {
    play();
    let Some(hosts) = cast.hosts(4) else { return };
    let text = format!("{V4}&flow=slowest&rcvbuf=64K");
    let mut readers = readers(cast, &hosts, 2, &text);
    let doomed = cast.address(3, &format!("{text}&from=1&name=doomed"));
    let test = cast.test("a_killed_receiver_holds_the_sender_up_no_longer_than_its_timeout");
    let mut doomed = Player::start(&test, &hosts, 3, "subscriber", &doomed);
    let text = cast.address(0, &text);
    let Ok(Address::Udp(mut address)) = text.parse() else { panic!("{text}") };
    address.sender_options_mut().receiver_timeout_ns = 3_000_000_000;
    let mut publisher =
        hosts.on(0, || Publisher::open_at(&Address::Udp(address)).unwrap()).join().unwrap();

    publish(&mut publisher, 1);
    until(&mut readers, |_| {
        publisher.poll().unwrap();
        publisher.sender().unwrap().receivers().count() == 3
    });
    assert_eq!(doomed.at(), 1);
    doomed.kill();
    // Many times what anybody's socket takes.
    publish(&mut publisher, 20_000);
    let mut named = false;
    until(&mut readers, |readers| {
        publisher.poll().unwrap();
        let sender = publisher.sender().unwrap();
        let slowest = sender.slowest().map(|view| view.name);
        named |= sender.counts().stalls > 0 && slowest.as_deref() == Some("doomed");
        readers.iter().all(|reader| reader.next > 20_000)
    });
    assert!(named, "who held the sender up was not named");
    let sender = publisher.sender().unwrap();
    assert!(sender.receivers().all(|view| view.name != "doomed"));
    assert!(readers.iter_mut().all(|reader| reader.lost() == 0));
}

fn is_told_of_a_path_too_narrow(cast: Cast, place: &str) {
    let Some(hosts) = cast.hosts(2) else { return };
    let address = &format!("udp:{place}:9000?iface=eth0&datagram=1408&heartbeat=10ms");
    let mut reader = [Reader::new(cast, &hosts, 1, address)];
    hosts.ip(0, "link set eth0 mtu 1000\n");
    let mut publisher = publisher(cast, &hosts, address);
    let mut batch = publisher.batch();
    for sequence in 1..=20 {
        batch.push(&payload(sequence)).unwrap();
    }
    batch.commit();
    match publisher.poll().unwrap_err() {
        WireError::Net(NetError::TooLarge { bytes, mtu }) => {
            assert!((1001..=1408).contains(&bytes), "{bytes}");
            assert_eq!(mtu, Some(1000));
        }
        other => panic!("{other}"),
    }
    hosts.ip(0, "link set eth0 mtu 1500\n");
    all_have(&mut reader, &mut publisher, 20);
    assert_eq!(reader[0].lost(), 0);
}

fn a_path_too_narrow_is_told_and_passes(cast: Cast) {
    is_told_of_a_path_too_narrow(cast, "10.78.0.2");
}

fn a_groups_path_too_narrow_is_told_and_passes(cast: Cast) {
    is_told_of_a_path_too_narrow(cast, "239.1.2.3");
}
