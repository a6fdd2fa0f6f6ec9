//! `udp:` addresses: where datagrams go, and how a stream is sent and received.

use std::net::{IpAddr, SocketAddr};

use gapless_shm::{Start, WaitStrategy};

use super::{AddressError, Input, ShmAddress};
use crate::net::{Backend, Interface, SocketOptions, XdpMode};
use crate::protocol::{Flow, Join, ReceiverOptions, RequestProtocol, SenderOptions, Session};

/// The address of a stream of datagrams, and how to open it on either side.
///
/// `udp:239.1.2.3:9000?iface=eth0`, `udp:10.0.0.7:9000`, `udp:[ff15::7]:9000`: a multicast group,
/// or the receiver's own address.
///
/// | option | value | side |
/// |---|---|---|
/// | `iface` | interface, by name or address | both |
/// | `b` | `GROUP_OR_HOST:PORT` of line B, which carries the same | both |
/// | `ifaceb` | interface of line B, if another | both |
/// | `also` | further destinations, `HOST:PORT,HOST:PORT` | publisher |
/// | `bind` | own address `HOST:PORT`: data leaves from it, and requests come to it; a fixed port lets receivers ask before they have seen data | publisher |
/// | `ttl` | hops, 0 to 255 (multicast: 1 unless given) | publisher |
/// | `loop` | `yes`, `no`: whether this host's receivers get its multicast | publisher |
/// | `datagram` | largest payload, bytes (1,472; IPv6: 1,452) | publisher |
/// | `flow` | `none`, `slowest`, or how many receivers must keep up | publisher |
/// | `heartbeat` | longest time between heartbeats (1s) | publisher |
/// | `linger` | how long the end is repeated and requests are served (1s) | publisher |
/// | `ring` | name of a ring that local subscribers may read too, and that outlives the publisher | publisher |
/// | `anysession` | `yes`: answer MoldUDP64 requests of any session | publisher |
/// | `request` | request servers, `HOST:PORT,HOST:PORT`; `none`: never ask; default: whoever sends | subscriber |
/// | `source` | the only sender to take from in the group | subscriber |
/// | `session` | the only session to take, 10 characters | subscriber |
/// | `from` | `now`, `oldest` (still held by the sender), a sequence; with `log` or `rewind` also `@TIME` | subscriber |
/// | `log` | directory of the stream's log: what the sender has not any more is read there; a publisher whose ring is gone goes on from it | both |
/// | `rewind` | rewinders, `HOST:PORT,HOST:PORT`, that have what the sender has not any more, in bulk | subscriber |
/// | `resume` | `durable`: nobody was sent, or acted on, what was not durable, so that a publisher may go on from a log that was not finished in order | publisher |
/// | `fresh` | `yes`: begin a new session although there is a log to go on with | publisher |
/// | `name` | shown in the sender's list of receivers | subscriber |
/// | `reorder` | how long a gap may be mere reordering (2us) | subscriber |
/// | `skew` | how far line B may be behind line A (1ms) | subscriber |
/// | `backoff` | random part of that wait (0; multicast: 5us) | subscriber |
/// | `retry` | time for an answer while none was measured (200us) | subscriber |
/// | `giveup` | when a gap is given up (5s) | subscriber |
/// | `store` | bytes that may wait behind a gap (8M) | subscriber |
/// | `repair` | `gapless`, `mold`: how to ask | subscriber |
/// | `backend` | `socket` (unless given), `uring`, `xdp` (past the kernel's stack; plain sockets where that cannot be had, and a note says why), `auto` (the quickest that can be had: at present the same) | both |
/// | `xdp` | how AF_XDP takes packets: `auto`, `generic`, `driver`, `zerocopy` | both |
/// | `rcvbuf`, `sndbuf` | socket buffers, bytes (4M, 1M) | both |
/// | `durable` | `yes`: what the recorder of this host's ring says is on disk counts for the sender's `stable_sequence`; needs `ring` in a publisher, and on the other side a receiver agent, which reports it to the sender whatever `request` says | both |
/// | `dscp` | class of service, 0 to 63 | both |
/// | `busypoll` | µs that the kernel polls the device | both |
/// | `coalesce` | `no`: neither GSO nor GRO | both |
/// | `envelope` | `yes`: messages carry [envelopes](crate::protocol::Envelope); fragments may travel | both |
/// | `topic`, `publisher` | numbers for the envelope | publisher |
/// | `stats` | name of the counters page | both |
///
/// and of a ring: `dir`, `capacity`, `align`, `max`, `slots`, `mode`, `parkable`, `evictable`,
/// `filemode`, `wait`, `prefault`, `lock`, `huge`. Times are written `20us`, `5ms`, `1s`, or in
/// nanoseconds.
#[derive(Clone, Debug)]
pub struct UdpAddress {
    text: String,
    name: String,
    pub(crate) lines: Vec<SocketAddr>,
    pub(crate) also: Vec<SocketAddr>,
    pub(crate) interfaces: [Option<Interface>; 2],
    pub(crate) bind: Option<SocketAddr>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) ttl: Option<u8>,
    pub(crate) loopback: bool,
    pub(crate) dscp: Option<u8>,
    pub(crate) busy_poll_us: Option<u32>,
    pub(crate) coalesce: bool,
    pub(crate) receive_buffer_bytes: usize,
    pub(crate) send_buffer_bytes: usize,
    pub(crate) backend: Backend,
    pub(crate) xdp_mode: XdpMode,
    pub(crate) sender: SenderOptions,
    pub(crate) receiver: ReceiverOptions,
    /// The ring's options; its name is empty unless `ring` was given.
    pub(crate) ring: ShmAddress,
    /// Whether `max` was given: otherwise a ring takes what fits a datagram.
    pub(crate) ring_has_max: bool,
    pub(crate) counters: Option<String>,
    /// Whether the ring's recorder is asked what is on disk.
    pub(crate) durable: bool,
}

impl UdpAddress {
    /// The address as given.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `GROUP_OR_HOST:PORT`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the lines go: one address, or two with `b`.
    pub fn lines(&self) -> &[SocketAddr] {
        &self.lines
    }

    /// Which back end was asked for.
    pub fn backend(&self) -> Backend {
        self.backend
    }

    /// The receive buffer that its sockets ask for, bytes.
    pub fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }

    /// The send buffer that its sockets ask for, bytes.
    pub fn send_buffer_bytes(&self) -> usize {
        self.send_buffer_bytes
    }

    /// How a publisher sends.
    pub fn sender_options(&self) -> &SenderOptions {
        &self.sender
    }

    /// How a publisher sends, to change it.
    pub fn sender_options_mut(&mut self) -> &mut SenderOptions {
        &mut self.sender
    }

    /// How a subscriber receives.
    pub fn receiver_options(&self) -> &ReceiverOptions {
        &self.receiver
    }

    /// How a subscriber receives, to change it.
    pub fn receiver_options_mut(&mut self) -> &mut ReceiverOptions {
        &mut self.receiver
    }

    /// The name of the ring that the stream lives in on the sending side, if it has one.
    pub fn ring_name(&self) -> Option<&str> {
        Some(self.ring.name.as_str()).filter(|name| !name.is_empty())
    }

    /// How a subscriber waits.
    pub fn wait_strategy(&self) -> WaitStrategy {
        self.ring.wait
    }

    /// Sets what all sockets of this address have in common; `line` chooses the interface.
    pub(crate) fn socket(&self, bind: SocketAddr, line: usize) -> SocketOptions {
        let options = SocketOptions::new(bind)
            .ttl(self.ttl)
            .dscp(self.dscp)
            .multicast_loopback(self.loopback)
            .busy_poll_us(self.busy_poll_us)
            .coalesce(self.coalesce)
            .xdp_mode(self.xdp_mode)
            .receive_buffer_bytes(self.receive_buffer_bytes)
            .send_buffer_bytes(self.send_buffer_bytes);
        let own = self.interfaces.get(line).and_then(Option::as_ref);
        match own.or(self.interfaces[0].as_ref()) {
            Some(interface) => options.interface(interface.clone()),
            None => options,
        }
    }
}

/// Ring of a stream of datagrams, unless the address says otherwise. Half of it is what can be
/// repeated: 2 ms of the fastest flood, half a second of 100,000 messages of 100 bytes a second. A
/// larger one falls out of the cache: publishing and packing a message of 1 KiB was measured (no
/// sockets) at 270 ns with 64 MiB, and 85 ns with 4 MiB.
const RING_BYTES: u64 = 16 << 20;

/// Parses what stands behind `udp:`.
pub(super) fn parse(input: &Input<'_>, rest: &str) -> Result<UdpAddress, AddressError> {
    let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
    let destination = destination(input, place)?;
    let multicast = destination.ip().is_multicast();
    let mut address = UdpAddress {
        text: input.text.to_owned(),
        name: place.to_owned(),
        lines: vec![destination],
        also: Vec::new(),
        interfaces: [None, None],
        bind: None,
        source: None,
        ttl: None,
        loopback: true,
        dscp: None,
        busy_poll_us: None,
        coalesce: true,
        receive_buffer_bytes: 4 << 20,
        send_buffer_bytes: 1 << 20,
        backend: Backend::Socket,
        xdp_mode: XdpMode::Auto,
        sender: SenderOptions {
            datagram_bytes: if destination.is_ipv6() { 1452 } else { 1472 },
            merge_ns: if multicast { 100_000 } else { 0 },
            ..SenderOptions::default()
        },
        receiver: ReceiverOptions {
            backoff_ns: if multicast { 5_000 } else { 0 },
            ..ReceiverOptions::default()
        },
        ring: {
            let mut ring = input.blank("");
            ring.ring = ring.ring.capacity_bytes(RING_BYTES);
            ring
        },
        ring_has_max: false,
        counters: None,
        durable: false,
    };
    for (key, value) in input.options(options)? {
        let taken = input.set_past(&mut address.ring.past, key, value)?
            || set_place(input, &mut address, key, value)?
            || set_sending(input, &mut address, key, value)?
            || set_receiving(input, &mut address, key, value)?;
        if !taken {
            set_ring(input, &mut address, key, value)?;
        }
    }
    address.receiver.lines = address.lines.len();
    input.check_past(&address.ring.past)?;
    Ok(address)
}

fn endpoint(input: &Input<'_>, text: &str) -> Result<SocketAddr, AddressError> {
    text.parse().map_err(|_| {
        input.error(text, "expected an IP address and a port, as 239.1.2.3:9000 or [ff15::7]:9000")
    })
}

/// An address to send to.
fn destination(input: &Input<'_>, text: &str) -> Result<SocketAddr, AddressError> {
    let destination = endpoint(input, text)?;
    if destination.port() == 0 {
        return Err(input.error(text, "port 0: the sender must know where to send"));
    }
    Ok(destination)
}

fn destinations(input: &Input<'_>, text: &str) -> Result<Vec<SocketAddr>, AddressError> {
    text.split(',').map(|part| destination(input, part)).collect()
}

/// Nanoseconds, with `ns`, `us`, `ms` or `s`.
fn time_ns(input: &Input<'_>, text: &str) -> Result<u64, AddressError> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "" | "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => 0,
    };
    let ns = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(scale));
    ns.filter(|_| scale > 0).ok_or_else(|| input.error(text, "not a time, as 20us, 5ms or 1s"))
}

/// Sockets, networks and what is counted. False if `key` is something else.
fn set_place(
    input: &Input<'_>,
    address: &mut UdpAddress,
    key: &str,
    value: &str,
) -> Result<bool, AddressError> {
    match key {
        "iface" => address.interfaces[0] = Some(value.into()),
        "ifaceb" => address.interfaces[1] = Some(value.into()),
        "b" => {
            let line = destination(input, value)?;
            if line.is_ipv4() != address.lines[0].is_ipv4() {
                return Err(input.error(value, "line B is not of line A's address family"));
            }
            address.lines.push(line);
        }
        "also" => address.also = destinations(input, value)?,
        "bind" => address.bind = Some(endpoint(input, value)?),
        "source" => {
            let source = value.parse().map_err(|_| input.error(value, "not an IP address"))?;
            address.source = Some(source);
        }
        "ttl" => address.ttl = Some(input.number(value)?),
        "loop" => address.loopback = input.yes(value)?,
        "dscp" => {
            let class = input.number(value)?;
            if class > 63 {
                return Err(input.error(value, "a class of service is from 0 to 63"));
            }
            address.dscp = Some(class);
        }
        "busypoll" => address.busy_poll_us = Some(input.number(value)?),
        "coalesce" => address.coalesce = input.yes(value)?,
        "rcvbuf" => address.receive_buffer_bytes = input.size(value)?,
        "sndbuf" => address.send_buffer_bytes = input.size(value)?,
        "backend" => {
            let backends = [
                ("auto", Backend::Auto),
                ("socket", Backend::Socket),
                ("uring", Backend::Uring),
                ("xdp", Backend::Xdp),
            ];
            address.backend = input.word(value, &backends)?;
        }
        "xdp" => {
            let modes = [
                ("auto", XdpMode::Auto),
                ("generic", XdpMode::Generic),
                ("driver", XdpMode::Driver),
                ("zerocopy", XdpMode::ZeroCopy),
            ];
            address.xdp_mode = input.word(value, &modes)?;
        }
        "durable" => address.durable = input.yes(value)?,
        "stats" => {
            if let Err(error) = gapless_shm::ring_path("".as_ref(), value) {
                return Err(input.error(value, error.to_string()));
            }
            address.counters = Some(value.to_owned());
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The publisher's side.
fn set_sending(
    input: &Input<'_>,
    address: &mut UdpAddress,
    key: &str,
    value: &str,
) -> Result<bool, AddressError> {
    let sender = &mut address.sender;
    match key {
        "datagram" => sender.datagram_bytes = input.size(value)?,
        "flow" => {
            let flows = [("none", Flow::None), ("slowest", Flow::Slowest)];
            sender.flow = match value.parse() {
                Ok(receivers) => Flow::Quorum(receivers),
                Err(_) => input.word(value, &flows)?,
            };
        }
        "heartbeat" => {
            sender.heartbeat_max_ns = time_ns(input, value)?;
            sender.heartbeat_first_ns = sender.heartbeat_first_ns.min(sender.heartbeat_max_ns);
        }
        "linger" => sender.linger_ns = time_ns(input, value)?,
        "anysession" => sender.any_session = input.yes(value)?,
        "ring" => {
            if let Err(error) = gapless_shm::ring_path("".as_ref(), value) {
                return Err(input.error(value, error.to_string()));
            }
            value.clone_into(&mut address.ring.name);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The subscriber's side.
fn set_receiving(
    input: &Input<'_>,
    address: &mut UdpAddress,
    key: &str,
    value: &str,
) -> Result<bool, AddressError> {
    let receiver = &mut address.receiver;
    match key {
        "request" => {
            receiver.ask_source = false;
            if value != "none" {
                receiver.servers = destinations(input, value)?;
            }
        }
        "session" => {
            let session = value.as_bytes().try_into();
            let session = session.map_err(|_| input.error(value, "a session has 10 characters"))?;
            receiver.session = Some(Session(session));
        }
        "from" => {
            receiver.join = match input.start(value)? {
                Start::Now => Join::Now,
                Start::Oldest => Join::Oldest,
                Start::Sequence(sequence) => Join::Sequence(sequence),
            };
        }
        "name" => value.clone_into(&mut receiver.name),
        "reorder" => receiver.reorder_ns = time_ns(input, value)?,
        "skew" => receiver.skew_ns = time_ns(input, value)?,
        "backoff" => receiver.backoff_ns = time_ns(input, value)?,
        "retry" => {
            receiver.retry_ns = time_ns(input, value)?;
            receiver.retry_max_ns = receiver.retry_max_ns.max(receiver.retry_ns);
        }
        "giveup" => receiver.give_up_ns = time_ns(input, value)?,
        "store" => receiver.store_bytes = input.size(value)?,
        "repair" => {
            let protocols =
                [("gapless", RequestProtocol::Gapless), ("mold", RequestProtocol::Mold)];
            receiver.protocol = input.word(value, &protocols)?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The ring that the stream lives in.
fn set_ring(
    input: &Input<'_>,
    address: &mut UdpAddress,
    key: &str,
    value: &str,
) -> Result<(), AddressError> {
    if input.set_envelope(&mut address.ring.envelope, key, value)? {
        address.sender.enveloped = address.ring.envelope.is_some();
        return Ok(());
    }
    const RING: [&str; 13] = [
        "dir",
        "capacity",
        "align",
        "max",
        "slots",
        "mode",
        "parkable",
        "evictable",
        "filemode",
        "wait",
        "prefault",
        "lock",
        "huge",
    ];
    address.ring_has_max |= key == "max";
    if RING.contains(&key) {
        return input.set(&mut address.ring, key, value);
    }
    Err(input.error(
        key,
        format!(
            "unknown option; known: iface, b, ifaceb, also, bind, ttl, loop, datagram, flow, \
             heartbeat, linger, ring, anysession, request, source, session, from, log, rewind, \
             resume, fresh, name, reorder, skew, backoff, retry, giveup, store, repair, backend, \
             rcvbuf, sndbuf, dscp, busypoll, coalesce, durable, envelope, topic, publisher, stats; \
             of the ring: {}",
            RING.join(", ")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Address;

    fn parsed(text: &str) -> UdpAddress {
        match text.parse::<Address>() {
            Ok(Address::Udp(udp)) => *udp,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn errors_point_at_the_offending_part() {
        for (text, part) in [
            ("udp:", ""),
            ("udp:239.1.2.3", "239.1.2.3"),
            ("udp:host:9000", "host:9000"),
            ("udp:10.0.0.1:0", "10.0.0.1:0"),
            ("udp:10.0.0.1:99999", "10.0.0.1:99999"),
            ("udp:10.0.0.1:9?b=[::1]:7", "[::1]:7"),
            ("udp:10.0.0.1:9?also=10.0.0.1:0", "10.0.0.1:0"),
            ("udp:10.0.0.1:9?request=10.0.0.2:1,x", "x"),
            ("udp:10.0.0.1:9?reorder=5m", "5m"),
            ("udp:10.0.0.1:9?reorder=us", "us"),
            ("udp:10.0.0.1:9?flow=fast", "fast"),
            ("udp:10.0.0.1:9?session=short", "short"),
            ("udp:10.0.0.1:9?colour=red", "colour"),
            ("udp:10.0.0.1:9?ttl=256", "256"),
            ("udp:10.0.0.1:9?dscp=64", "64"),
            ("udp:10.0.0.1:9?ring=../x", "../x"),
            ("udp:10.0.0.1:9?capacity=5T", "5T"),
            ("udp:10.0.0.1:9?first=5", "first"),
        ] {
            let error = text.parse::<Address>().expect_err(text);
            let pointed: String = text.chars().skip(error.start).take(error.len).collect();
            assert_eq!(pointed, part, "{error}");
        }
    }

    #[test]
    fn both_sides_may_use_one_string() {
        let text = "udp:239.1.2.3:9000?iface=eth0&b=239.1.2.4:9000&ifaceb=10.0.0.1&ttl=4&loop=no\
                    &datagram=8K&flow=2&heartbeat=10ms&linger=2s&ring=orders&request=10.0.0.9:7,\
                    10.0.0.10:7&source=10.0.0.9&session=0123456789&from=oldest&name=book\
                    &reorder=20us&skew=3ms&backoff=7&retry=1ms&giveup=10s&store=1M&repair=mold\
                    &backend=socket&rcvbuf=16M&sndbuf=2M&dscp=46&busypoll=50&coalesce=no\
                    &envelope=yes&stats=feed&capacity=1M&wait=yield&anysession=yes&durable=yes";
        let udp = parsed(text);
        assert_eq!((udp.text(), udp.name()), (text, "239.1.2.3:9000"));
        assert_eq!((udp.lines().len(), udp.receiver.lines), (2, 2));
        assert_eq!(udp.sender.datagram_bytes, 8192);
        assert_eq!((udp.sender.flow, udp.sender.heartbeat_max_ns), (Flow::Quorum(2), 10_000_000));
        assert_eq!((udp.receiver.servers.len(), udp.receiver.ask_source), (2, false));
        assert_eq!((udp.receiver.reorder_ns, udp.receiver.backoff_ns), (20_000, 7));
        assert_eq!((udp.ring_name(), udp.durable), (Some("orders"), true));
        assert_eq!(udp.wait_strategy(), WaitStrategy::SpinYield);
        assert_eq!(parsed("udp:[ff15::7]:9000").sender.datagram_bytes, 1452);
        assert_eq!(parsed("udp:127.0.0.1:9000").ring_name(), None);
        assert!(!parsed("udp:127.0.0.1:9000?request=none").receiver.ask_source);
    }
}
