//! Networks on hosts, and what the hosts' kernels say of them.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use gapless::net::{
    Backend, Datagram, Datagrams, NetError, Network, Run, SocketOptions, SocketSet,
};

use crate::hosts::{Hosts, PATIENCE};

/// A group of each family.
pub(crate) const GROUPS: [&str; 2] = ["239.78.0.1", "ff15::78"];
/// A datagram that is for nobody: sent to find out by which way it goes.
const PROBE: &[u8] = b"?";
/// Polling for so long, a network sees what has changed, several times over.
const LOOK: Duration = Duration::from_millis(5);

/// Hosts that have AF_XDP; `None`, and says why, where they cannot be had.
pub(crate) fn hosts(count: usize) -> Option<Hosts> {
    let hosts = Hosts::new(count)?;
    match hosts.can("xdp") {
        Ok(()) => Some(hosts),
        Err(reason) => {
            eprintln!("skipped: {reason}");
            None
        }
    }
}

thread_local! {
    /// The next port for those that do not mind which. It is the same in each run of a test, and so
    /// are all checksums: one in 65,536 looks unfinished, and such a datagram is the kernel's.
    static NEXT: Cell<u16> = const { Cell::new(10_000) };
}

/// A socket with a host's own address. It sends runs by AF_XDP too, which by itself leaves long
/// ones to the kernel.
pub(crate) fn on(host: usize, v6: bool, port: u16) -> SocketOptions {
    let last = u16::try_from(host + 1).unwrap();
    let port = if port == 0 { NEXT.replace(NEXT.get() + 1) } else { port };
    let own = match v6 {
        false => IpAddr::from(Ipv4Addr::new(10, 78, 0, last as u8)),
        true => IpAddr::from(Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, last)),
    };
    let options = SocketOptions::new(SocketAddr::new(own, port)).interface("eth0");
    options.receive_buffer_bytes(8 << 20).coalesce(false)
}

/// A socket that receives a group, and lets others do so too.
pub(crate) fn group(to: &str, port: u16) -> SocketOptions {
    let to: IpAddr = to.parse().unwrap();
    let options = SocketOptions::new(SocketAddr::new(to, port)).interface("eth0").join(to);
    options.reuse(true).receive_buffer_bytes(8 << 20)
}

/// Does something on a host.
pub(crate) fn at<T: Send + 'static>(
    hosts: &Hosts,
    host: usize,
    task: impl FnOnce() -> T + Send + 'static,
) -> T {
    hosts.on(host, task).join().unwrap()
}

fn open(
    hosts: &Hosts,
    host: usize,
    backend: Backend,
    options: &[SocketOptions],
) -> Result<Network, NetError> {
    let options = options.to_vec();
    at(hosts, host, move || {
        let mut network = Network::open(backend)?;
        options.iter().try_for_each(|options| network.add(options).map(drop))?;
        Ok(network)
    })
}

/// A network on AF_XDP.
pub(crate) fn end(hosts: &Hosts, host: usize, options: &[SocketOptions]) -> Network {
    open(hosts, host, Backend::Xdp, options).unwrap()
}

/// A network on plain sockets.
pub(crate) fn plain(hosts: &Hosts, host: usize, options: &[SocketOptions]) -> Network {
    open(hosts, host, Backend::Socket, options).unwrap()
}

/// Why a host has no such socket on AF_XDP.
pub(crate) fn refusal(hosts: &Hosts, host: usize, options: &SocketOptions) -> NetError {
    let opened = open(hosts, host, Backend::Xdp, std::slice::from_ref(options));
    opened.expect_err("nobody minded")
}

/// Whether a socket's datagrams pass the kernel by.
pub(crate) fn steered(network: &Network, socket: usize) -> bool {
    matches!(network, Network::Xdp(network) if network.is_steered(socket))
}

/// Tries until something is so, and fails if it never is.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < limit, "this never came: {what}");
    }
}

/// Lets a network look around, which it does once in a while. Returns what came.
pub(crate) fn look(network: &mut Network) -> usize {
    let (started, mut came) = (Instant::now(), 0);
    while started.elapsed() < LOOK {
        came += network.receive(SocketSet::all(), 64, |_| ()).unwrap();
    }
    came
}

/// Sends all runs, when there is room.
pub(crate) fn send(network: &mut Network, socket: usize, mut runs: &[Run<'_>]) {
    until("room to send", || {
        runs = &runs[network.send(socket, None, runs).unwrap()..];
        runs.is_empty()
    });
}

/// Sends until nothing goes through the kernel any more.
pub(crate) fn reach(hosts: &Hosts, host: usize, network: &mut Network) {
    until("AF_XDP", || passes(hosts, host, network));
}

/// Whether what is sent passes the kernel by, after a look around.
pub(crate) fn passes(hosts: &Hosts, host: usize, network: &mut Network) -> bool {
    look(network);
    let (_, before) = by_kernel(hosts, host);
    send(network, 0, &[Run::one(PROBE)]);
    by_kernel(hosts, host).1 == before
}

/// Receives `count` datagrams that are for somebody.
pub(crate) fn collect(network: &mut Network, count: usize) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    let limit = Instant::now() + PATIENCE;
    while seen.len() < count {
        assert!(Instant::now() < limit, "{} of {count} datagrams came", seen.len());
        let take = |d: Datagram<'_>| {
            if d.bytes != PROBE {
                seen.push(d.bytes.to_vec());
            }
        };
        network.receive(SocketSet::all(), 64, take).unwrap();
    }
    seen
}

/// The same, where some may come through the kernel and so overtake others.
pub(crate) fn collect_sorted(network: &mut Network, count: usize) -> Vec<Vec<u8>> {
    let mut seen = collect(network, count);
    seen.sort();
    seen
}

/// A datagram of `len` bytes that no other is like.
pub(crate) fn numbered(number: usize, len: usize) -> Vec<u8> {
    number
        .to_be_bytes()
        .into_iter()
        .chain((0..).map(|i| (i * 7 + number) as u8))
        .take(len)
        .collect()
}

/// Datagrams that a host's kernel has handed to sockets and taken from them, by its counters.
pub(crate) fn by_kernel(hosts: &Hosts, host: usize) -> (u64, u64) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let (v4, v6) = at(hosts, host, move || (read("snmp").unwrap(), read("snmp6").unwrap()));
    let mut lines = v4.lines().filter(|line| line.starts_with("Udp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let of_v4 = |wanted| {
        let mut pairs = names.split(' ').zip(values.split(' '));
        pairs.find(|(name, _)| *name == wanted).unwrap().1.parse::<u64>().unwrap()
    };
    let of_v6 = |wanted: &str| {
        let line = v6.lines().find(|line| line.split_whitespace().next() == Some(wanted));
        line.unwrap().split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    (
        of_v4("InDatagrams") + of_v6("Udp6InDatagrams"),
        of_v4("OutDatagrams") + of_v6("Udp6OutDatagrams"),
    )
}
