//! What the kernel knows of the network: links, addresses, routes and neighbours, asked over
//! rtnetlink.
//!
//! Everything is as the network namespace sees it in which the socket was opened. Asking allocates
//! and may wait for the kernel: not for the hot path. [`Watch`](super::watch::Watch) tells when to
//! ask again.

use std::net::{IpAddr, Ipv6Addr};

use nix::sys::socket::SockProtocol;

use super::super::NetError;
use super::super::sys::Errno;
use super::attributes::{Attributes, Request, address, half_at, word_at};
use super::channels::Channels;
use super::conversation::Conversation;
use super::frame::Mac;

/// How often a list is asked for again because it changed while it was told.
const DUMPS_MAX: usize = 8;

/// Bytes of the headers that messages about these have.
const LINK_HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
pub(super) const NEIGHBOUR_HEADER: usize = 12;

/// Constants of the kernel's that libc lacks.
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_XDP_MODES: [u16; 3] = [5, 6, 7]; // the driver's, the generic, the hardware's
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;
const RTAX_MTU: u16 = 2;

/// Questions to the kernel. One at a time, hence not `Sync`.
#[derive(Debug)]
pub(super) struct Netlink {
    kernel: Conversation,
    /// `None` where the kernel knows none.
    channels: Option<Channels>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    /// Its number, from 1.
    pub(super) index: u32,
    /// Its name; at most 15 bytes.
    pub(super) name: String,
    /// Its Ethernet address (zeroes on the loopback interface); `None` if its frames are not
    /// Ethernet's.
    pub(super) mac: Option<Mac>,
    /// The longest packet without its Ethernet header, in bytes.
    pub(super) mtu: u32,
    /// It is switched on and has its cable in.
    pub(super) up: bool,
    /// It leads back to this host.
    pub(super) loopback: bool,
    /// Who made it, if the kernel did in software: "veth", "vlan", "bridge", "bond".
    pub(super) kind: Option<String>,
    /// The 802.1Q tag of what it sends and the interface that it sends by. `None` for a VLAN of
    /// another protocol (802.1ad) or by an interface of another namespace, though `kind` is "vlan".
    pub(super) vlan: Option<(u16, u32)>,
    /// How many receive queues are in use, or how many were allocated if its driver does not tell;
    /// at least 1.
    pub(super) rx_queues: u32,
    /// The number of the XDP program that is attached: of the driver's mode, else of the generic
    /// one, else of the hardware's.
    pub(super) program: Option<u32>,
}

impl Link {
    /// No card: the kernel made it in software.
    pub(super) fn is_virtual(&self) -> bool {
        self.kind.is_some() || self.loopback
    }
}

/// What a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RouteKind {
    /// One host's address.
    Unicast,
    /// An address of this host's.
    Local,
    /// A group.
    Multicast,
    /// All hosts on a wire.
    Broadcast,
    /// Something else: anycast, address translation.
    Other,
}

/// How packets get to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// The interface that they leave by: the loopback one if `kind` is [`RouteKind::Local`].
    pub(super) interface: u32,
    /// The host that forwards them, maybe of the other family; `None` if they are sent straight to
    /// the address.
    pub(super) gateway: Option<IpAddr>,
    /// The source address that the kernel would choose.
    pub(super) source: Option<IpAddr>,
    /// The route's own MTU, in bytes, where it has one: configured or found out.
    pub(super) mtu: Option<u32>,
    /// What the address is.
    pub(super) kind: RouteKind,
}

impl Netlink {
    /// Opens sockets in the calling thread's network namespace.
    pub(super) fn open() -> Result<Self, NetError> {
        let kernel = Conversation::open(SockProtocol::NetlinkRoute)
            .map_err(|Errno(errno)| NetError::refused("open a netlink socket", errno))?;
        Ok(Self { kernel, channels: Channels::open().ok() })
    }

    /// The interface of that number. `ENODEV` as [`NetError::Io`] if there is none.
    pub(super) fn link(&self, index: u32) -> Result<Link, NetError> {
        let mut header = [0; LINK_HEADER];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let request = Request::new(libc::RTM_GETLINK, 0, &header)
            .with(libc::IFLA_EXT_MASK, &libc::RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        let mut link =
            self.kernel.one(request, libc::RTM_NEWLINK, link).map_err(|Errno(errno)| {
                NetError::refused(format!("ask for interface {index}"), errno)
            })?;
        let in_use = self.channels.as_ref().and_then(|channels| channels.receiving(index));
        link.rx_queues = in_use.unwrap_or(link.rx_queues);
        Ok(link)
    }

    /// The addresses of all interfaces by the interfaces' numbers, also those that are not in use
    /// yet because IPv6 is still looking for duplicates.
    pub(super) fn addresses(&self) -> Result<Vec<(u32, IpAddr)>, NetError> {
        for _ in 0..DUMPS_MAX {
            let mut found = Vec::new();
            let request = Request::new(libc::RTM_GETADDR, libc::NLM_F_DUMP, &[0; ADDRESS_HEADER]);
            let whole = self.kernel.ask(request, |message| {
                if message.kind == libc::RTM_NEWADDR {
                    found.extend(interface_address(message.body));
                }
            });
            match whole {
                Ok(()) => return Ok(found),
                Err(Errno(libc::EINTR)) => {}
                Err(Errno(errno)) => return Err(NetError::refused("list addresses", errno)),
            }
        }
        Err(NetError::refused("list addresses, which change all the time", libc::EBUSY))
    }

    /// How packets get to an address, by that interface if one is given; `None` if they do not.
    ///
    /// By an interface that is up every IPv4 address is reachable: the kernel takes those that no
    /// route leads to for hosts on the wire.
    pub(super) fn route(&self, to: IpAddr, via: Option<u32>) -> Result<Option<Route>, NetError> {
        let mut header = [0; ROUTE_HEADER];
        let request = |header: &mut [u8; ROUTE_HEADER], family: i32, address: &[u8]| {
            header[0] = family as u8;
            header[1] = address.len() as u8 * 8; // the bits of the address that count
            Request::new(libc::RTM_GETROUTE, 0, header).with(libc::RTA_DST, address)
        };
        let mut request = match to {
            IpAddr::V4(to) => request(&mut header, libc::AF_INET, &to.octets()),
            IpAddr::V6(to) => request(&mut header, libc::AF_INET6, &to.octets()),
        };
        if let Some(interface) = via {
            request = request.with(libc::RTA_OIF, &interface.to_ne_bytes());
        }
        match self.kernel.one(request, libc::RTM_NEWROUTE, |body| route(to, body)) {
            Ok(route) => Ok(route),
            Err(error) if is_no_route(error) => Ok(None),
            Err(Errno(errno)) => Err(NetError::refused(format!("ask for the way to {to}"), errno)),
        }
    }

    /// The Ethernet address of a host on an interface's wire, if the kernel knows it and takes it
    /// for good.
    pub(super) fn neighbour(&self, on: u32, host: IpAddr) -> Result<Option<Mac>, NetError> {
        let request = about_neighbour(libc::RTM_GETNEIGH, 0, 0, on, host);
        match self.kernel.one(request, libc::RTM_NEWNEIGH, neighbour) {
            Ok(mac) => Ok(mac),
            Err(Errno(libc::ENOENT)) => Ok(None),
            Err(Errno(errno)) => Err(NetError::refused(format!("ask who {host} is"), errno)),
        }
    }

    /// Tells the kernel that a host is being sent to: it asks whether the host is there still, once
    /// it is unsure, and who it is then. Of no host that it does not know.
    pub(super) fn use_neighbour(&self, on: u32, host: IpAddr) {
        const NTF_USE: u8 = 1;
        let request = about_neighbour(libc::RTM_NEWNEIGH, libc::NLM_F_ACK, NTF_USE, on, host);
        // Where it is refused the kernel knows no such host, and a notice has said so.
        let _ = self.kernel.ask(request, |_| ());
    }
}

/// A request about a host on an interface's wire.
fn about_neighbour(kind: u16, flags: i32, about: u8, on: u32, host: IpAddr) -> Request {
    let mut header = [0; NEIGHBOUR_HEADER];
    header[4..8].copy_from_slice(&on.to_ne_bytes());
    header[10] = about;
    let mut request = |family: i32, address: &[u8]| {
        header[0] = family as u8;
        Request::new(kind, flags, &header).with(libc::NDA_DST, address)
    };
    match host {
        IpAddr::V4(host) => request(libc::AF_INET, &host.octets()),
        IpAddr::V6(host) => request(libc::AF_INET6, &host.octets()),
    }
}

/// The answers that mean that packets would not get there: no route, or one that says no (a black
/// hole's answer is `EINVAL`), or that the interface has gone.
fn is_no_route(Errno(errno): Errno) -> bool {
    let refusals = [libc::EACCES, libc::EINVAL, libc::ENODEV, libc::ENETDOWN];
    refusals.contains(&errno) || matches!(errno, libc::ENETUNREACH | libc::EHOSTUNREACH)
}

/// Reads a message about an interface.
fn link(body: &[u8]) -> Option<Link> {
    let attributes = Attributes::after(LINK_HEADER, body);
    let flags = word_at(body, 8)? as i32;
    let up = libc::IFF_UP | libc::IFF_RUNNING | libc::IFF_LOWER_UP;
    let frames = half_at(body, 2)?;
    let has_mac = frames == libc::ARPHRD_ETHER || frames == libc::ARPHRD_LOOPBACK;
    let mac = attributes.find(libc::IFLA_ADDRESS).filter(|_| has_mac);
    let info = attributes.within(libc::IFLA_LINKINFO);
    let kind = info.text(libc::IFLA_INFO_KIND);
    let program = attributes.within(libc::IFLA_XDP);
    let mut programs = [IFLA_XDP_PROG_ID].into_iter().chain(IFLA_XDP_MODES);
    Some(Link {
        index: word_at(body, 4)?,
        name: attributes.text(libc::IFLA_IFNAME)?,
        mac: mac.and_then(|mac| mac.try_into().ok()),
        mtu: attributes.word(libc::IFLA_MTU)?,
        up: flags & up == up,
        loopback: flags & libc::IFF_LOOPBACK != 0,
        vlan: kind.as_deref().filter(|kind| *kind == "vlan").and_then(|_| {
            let data = info.within(libc::IFLA_INFO_DATA);
            let tagged = data.find(IFLA_VLAN_PROTOCOL)? == (libc::ETH_P_8021Q as u16).to_be_bytes();
            let here = attributes.find(libc::IFLA_LINK_NETNSID).is_none();
            let pair = (data.half(IFLA_VLAN_ID)?, attributes.word(libc::IFLA_LINK)?);
            (tagged && here).then_some(pair)
        }),
        kind,
        rx_queues: attributes.word(libc::IFLA_NUM_RX_QUEUES).unwrap_or(1).max(1),
        program: programs.find_map(|kind| program.word(kind).filter(|id| *id != 0)),
    })
}

/// Reads a message about an address: the interface's number, and the address.
fn interface_address(body: &[u8]) -> Option<(u32, IpAddr)> {
    let attributes = Attributes::after(ADDRESS_HEADER, body);
    // The other is the far end's where a link has just two ends.
    let own = attributes.address(libc::IFA_LOCAL);
    Some((word_at(body, 4)?, own.or_else(|| attributes.address(libc::IFA_ADDRESS))?))
}

/// Reads a message about the route to an address; `None` within if it leads nowhere.
fn route(to: IpAddr, body: &[u8]) -> Option<Option<Route>> {
    let attributes = Attributes::after(ROUTE_HEADER, body);
    let kind = match *body.get(7)? {
        libc::RTN_BLACKHOLE | libc::RTN_UNREACHABLE | libc::RTN_PROHIBIT | libc::RTN_THROW => {
            return Some(None);
        }
        libc::RTN_LOCAL => RouteKind::Local,
        libc::RTN_BROADCAST => RouteKind::Broadcast,
        libc::RTN_MULTICAST => RouteKind::Multicast,
        // So some kernels call IPv6's route to a group.
        libc::RTN_UNICAST if to.is_multicast() => RouteKind::Multicast,
        libc::RTN_UNICAST => RouteKind::Unicast,
        _ => RouteKind::Other,
    };
    // Of a gateway of the other family its family is told first.
    let other = || address(attributes.find(libc::RTA_VIA)?.get(2..)?);
    let gateway = attributes.address(libc::RTA_GATEWAY).or_else(other);
    let mtu = attributes.within(libc::RTA_METRICS).word(RTAX_MTU);
    Some(Some(Route {
        interface: attributes.word(libc::RTA_OIF)?,
        gateway: gateway.filter(|gateway| *gateway != IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        source: attributes.address(libc::RTA_PREFSRC),
        mtu: mtu.filter(|mtu| *mtu != 0),
        kind,
    }))
}

/// Reads a message about a neighbour; `None` within if its address is not known, or in doubt.
pub(super) fn neighbour(body: &[u8]) -> Option<Option<Mac>> {
    let usable = libc::NUD_REACHABLE
        | libc::NUD_STALE
        | libc::NUD_DELAY
        | libc::NUD_PROBE
        | libc::NUD_PERMANENT;
    let known = half_at(body, 8)? & usable != 0;
    let mac = Attributes::after(NEIGHBOUR_HEADER, body).find(libc::NDA_LLADDR);
    Some(mac.filter(|_| known).and_then(|mac| mac.try_into().ok()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::process::Command;
    use std::time::{Duration, Instant};

    use nix::errno::Errno as NixErrno;
    use nix::sys::socket::{MsgFlags, recv};
    use proptest::prelude::*;

    use super::super::super::sys::{interest, poll};
    use super::super::attributes::MESSAGE_HEADER;
    use super::super::namespace::{cable, in_a_fresh_namespace, ip, try_ip};
    use super::super::watch::Watch;
    use super::*;

    const LONG: Duration = Duration::from_secs(10);
    const LEFT_MAC: Mac = [2, 0, 0, 0, 0, 1];

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn index(name: &str) -> u32 {
        nix::net::if_::if_nametoindex(name).unwrap()
    }

    /// Both ends of a [`cable`], once plugged in and ready for IPv6: the kernel takes its time.
    fn plugged(netlink: &Netlink) -> (u32, u32) {
        let mut watch = Watch::open().unwrap();
        cable();
        let ends = (index("left"), index("right"));
        wait_until(&mut watch, || {
            let own = netlink.route(at("fd00::1"), None).unwrap();
            own.is_some_and(|route| route.kind == RouteKind::Local)
                && [ends.0, ends.1].iter().all(|end| netlink.link(*end).unwrap().up)
        });
        ends
    }

    /// Looks again after each change, for a [`LONG`] time.
    fn wait_until(watch: &mut Watch, mut done: impl FnMut() -> bool) {
        let start = Instant::now();
        while !done() {
            let left = LONG.saturating_sub(start.elapsed());
            assert!(!left.is_zero(), "it never came");
            sees_a_change(watch, left);
        }
    }

    /// Whether there is a change within that time.
    fn sees_a_change(watch: &mut Watch, wait: Duration) -> bool {
        poll(&mut [interest(watch.socket.as_raw_fd(), libc::POLLIN)], wait).unwrap();
        watch.changed(|_| true)
    }

    #[test]
    fn a_link_tells_what_it_is() {
        in_a_fresh_namespace(|| {
            let netlink = Netlink::open().unwrap();
            let (left, right) = plugged(&netlink);
            ip("link set right mtu 9000
                link add name bridged type bridge
                link set right down");

            let link = netlink.link(left).unwrap();
            assert_eq!((link.index, link.name.as_str()), (left, "left"));
            assert_eq!((link.mac, link.mtu, link.loopback), (Some(LEFT_MAC), 1500, false));
            assert_eq!(link.kind.as_deref(), Some("veth"));
            assert_eq!((link.vlan, link.program), (None, None));
            assert!(!link.up, "the other end is down");

            let other = netlink.link(right).unwrap();
            assert_eq!((other.mtu, other.up), (9000, false));
            assert_eq!(netlink.link(index("bridged")).unwrap().kind.as_deref(), Some("bridge"));

            let home = netlink.link(1).unwrap();
            assert_eq!((home.name.as_str(), home.loopback, home.up), ("lo", true, true));
            assert_eq!((home.mac, home.kind), (Some([0; 6]), None));
        });
    }

    #[test]
    fn the_receive_queues_are_those_in_use() {
        in_a_fresh_namespace(|| {
            ip("link add name left type veth peer name right
                link add name wide numrxqueues 6 type veth peer name far");
            let netlink = Netlink::open().unwrap();
            if netlink.channels.is_none() {
                eprintln!("skipped: this kernel does not tell the queues in use");
                return;
            }
            let queues = |name| netlink.link(index(name)).unwrap().rx_queues;
            assert_eq!(queues("left"), 1, "allocated is one for each processor");
            assert_eq!(queues("wide"), 6);
            assert_eq!(queues("lo"), 1, "which its driver does not tell");
        });
    }

    #[test]
    fn a_vlan_tells_its_tag_and_its_parent() {
        in_a_fresh_namespace(|| {
            cable();
            if let Err(said) = try_ip("link add link left name tagged type vlan id 7") {
                eprintln!("skipped: this kernel has no VLANs: {said}");
                return;
            }
            let link = Netlink::open().unwrap().link(index("tagged")).unwrap();
            assert_eq!(link.kind.as_deref(), Some("vlan"));
            assert_eq!(link.vlan, Some((7, index("left"))));
        });
    }

    #[test]
    fn a_missing_link_is_an_error() {
        in_a_fresh_namespace(|| {
            let error = Netlink::open().unwrap().link(77).unwrap_err();
            let NetError::Io { what, source } = error else { panic!("{error}") };
            assert_eq!(what, "ask for interface 77");
            assert_eq!(source.raw_os_error(), Some(libc::ENODEV));
        });
    }

    #[test]
    fn addresses_are_listed_however_many() {
        in_a_fresh_namespace(|| {
            cable();
            let more: Vec<String> =
                (2..=250).map(|i| format!("address add 10.0.7.{i}/24 dev right")).collect();
            ip(&more.join("\n"));
            ip("address add 10.7.0.1 peer 10.7.0.2 dev left");
            let addresses = Netlink::open().unwrap().addresses().unwrap();
            let (left, right) = (index("left"), index("right"));
            for own in [(1, "127.0.0.1"), (1, "::1"), (left, "10.0.0.1"), (left, "fd00::1")] {
                assert!(addresses.contains(&(own.0, at(own.1))), "{own:?} in {addresses:?}");
            }
            for i in 2..=250_u8 {
                assert!(addresses.contains(&(right, IpAddr::from([10, 0, 7, i]))), "{i}");
            }
            assert!(addresses.contains(&(left, at("10.7.0.1"))), "{addresses:?}");
            assert!(!addresses.contains(&(left, at("10.7.0.2"))), "that is the far end's");
        });
    }

    #[test]
    fn a_route_tells_the_way() {
        in_a_fresh_namespace(|| {
            let netlink = Netlink::open().unwrap();
            let (left, right) = plugged(&netlink);
            ip("route add 10.5.0.0/16 via 10.0.0.9 mtu 1200
                route add 10.9.0.0/16 via inet6 fe80::7 dev left
                route add fd05::/64 via fd00::9 mtu 1300");
            let way = |to: &str, via| netlink.route(at(to), via).unwrap();
            let straight = Route {
                interface: left,
                gateway: None,
                source: Some(at("10.0.0.1")),
                mtu: None,
                kind: RouteKind::Unicast,
            };
            let by = |gateway: &str| Some(at(gateway));
            assert_eq!(way("10.0.0.7", None), Some(straight));
            assert_eq!(way("10.0.0.7", Some(left)), Some(straight));
            let forwarded = Route { gateway: by("10.0.0.9"), mtu: Some(1200), ..straight };
            assert_eq!(way("10.5.1.1", None), Some(forwarded));
            assert_eq!(way("10.9.1.1", None), Some(Route { gateway: by("fe80::7"), ..straight }));
            let group = Route { kind: RouteKind::Multicast, ..straight };
            assert_eq!(way("239.1.2.3", Some(left)), Some(group));
            let everybody = Route { kind: RouteKind::Broadcast, ..straight };
            assert_eq!(way("10.0.0.255", None), Some(everybody));
            let home = Route { interface: 1, kind: RouteKind::Local, ..straight };
            assert_eq!(way("10.0.0.1", None), Some(home));
            let elsewhere = way("10.0.0.7", Some(right)).unwrap();
            assert_eq!((elsewhere.interface, elsewhere.kind), (right, RouteKind::Unicast));

            let straight = Route { source: Some(at("fd00::1")), ..straight };
            assert_eq!(way("fd00::7", None), Some(straight));
            let forwarded = Route { gateway: by("fd00::9"), mtu: Some(1300), ..straight };
            assert_eq!(way("fd05::1", None), Some(forwarded));
            let group = way("ff05::1", Some(left)).unwrap();
            assert_eq!((group.interface, group.kind), (left, RouteKind::Multicast));
            assert_eq!(group.gateway, None);
            let home = way("fd00::1", None).unwrap();
            assert_eq!((home.interface, home.kind), (1, RouteKind::Local));
        });
    }

    #[test]
    fn where_nothing_leads_there_is_no_route() {
        in_a_fresh_namespace(|| {
            cable();
            ip("route add blackhole 10.8.0.0/16
                route add prohibit 10.7.0.0/16
                route add unreachable 10.6.0.0/16
                route add blackhole fd08::/64
                route add prohibit fd07::/64");
            let netlink = Netlink::open().unwrap();
            for to in ["192.0.2.1", "10.8.0.1", "10.7.0.1", "10.6.0.1"] {
                assert_eq!(netlink.route(at(to), None).unwrap(), None, "{to}");
            }
            for to in ["2001:db8::1", "fd08::1", "fd07::1"] {
                assert_eq!(netlink.route(at(to), None).unwrap(), None, "{to}");
            }
            assert_eq!(netlink.route(at("10.0.0.7"), Some(77)).unwrap(), None, "no interface");
            assert!(netlink.route(at("10.0.0.7"), None).unwrap().is_some(), "still in step");
        });
    }

    #[test]
    fn a_neighbour_is_known_when_it_is_usable() {
        in_a_fresh_namespace(|| {
            cable();
            ip("neighbour add 10.0.0.9 lladdr 02:00:00:00:00:09 dev left nud permanent
                neighbour add 10.0.0.8 lladdr 02:00:00:00:00:08 dev left nud stale
                neighbour add 10.0.0.6 lladdr 02:00:00:00:00:06 dev left nud noarp
                neighbour add fd00::9 lladdr 02:00:00:00:00:19 dev left nud reachable");
            let netlink = Netlink::open().unwrap();
            let mac = |host| netlink.neighbour(index("left"), at(host)).unwrap();
            assert_eq!(mac("10.0.0.9"), Some([2, 0, 0, 0, 0, 9]));
            assert_eq!(mac("10.0.0.8"), Some([2, 0, 0, 0, 0, 8]));
            assert_eq!(mac("10.0.0.6"), None, "nobody has confirmed it");
            assert_eq!(mac("fd00::9"), Some([2, 0, 0, 0, 0, 0x19]));
            assert_eq!((mac("10.0.0.7"), mac("fd00::7")), (None, None));
            assert_eq!(netlink.neighbour(index("right"), at("10.0.0.9")).unwrap(), None);
        });
    }

    #[test]
    fn every_kind_of_change_is_seen() {
        in_a_fresh_namespace(|| {
            let netlink = Netlink::open().unwrap();
            plugged(&netlink);
            let mut watch = Watch::open().unwrap();
            for line in [
                "link set left mtu 1400",
                "address add 10.0.0.2/24 dev left",
                "route add 10.5.0.0/16 via 10.0.0.9",
                "neighbour add 10.0.0.9 lladdr 02:00:00:00:00:09 dev left nud permanent",
                "address add fd00::2/64 dev left nodad",
                "route add fd05::/64 via fd00::9",
                "rule add from 10.0.0.1 lookup 7",
            ] {
                watch.changed(|_| true);
                ip(line);
                assert!(sees_a_change(&mut watch, LONG), "{line}");
            }
            let rule = ["-6", "rule", "add", "from", "fd00::1", "lookup", "7"];
            watch.changed(|_| true);
            assert!(Command::new("ip").args(rule).status().unwrap().success());
            assert!(sees_a_change(&mut watch, LONG), "{rule:?}");
        });
    }

    #[test]
    fn where_nothing_changes_nothing_is_seen() {
        in_a_fresh_namespace(|| {
            let mut watch = Watch::open().unwrap();
            ip("link set lo mtu 9000");
            assert!(watch.changed(|_| true));
            assert!(!watch.changed(|_| true), "it was taken note of");
            Netlink::open().unwrap().link(1).unwrap();
            assert!(!watch.changed(|_| true), "asking changes nothing");
        });
    }

    #[test]
    fn changes_too_many_to_remember_are_a_change() {
        in_a_fresh_namespace(|| {
            let mut watch = Watch::open().unwrap();
            nix::sys::socket::setsockopt(&watch.socket, nix::sys::socket::sockopt::RcvBuf, &0)
                .unwrap();
            let lines: Vec<String> =
                (1..100).map(|i| format!("link set lo mtu {}", 2000 + i)).collect();
            ip(&lines.join("\n"));
            let overrun = recv(watch.socket.as_raw_fd(), &mut [0; 4], MsgFlags::MSG_DONTWAIT);
            assert_eq!(overrun, Err(NixErrno::ENOBUFS), "the test fills the buffer");
            ip(&lines.join("\n"));
            assert!(watch.changed(|_| true));
            assert!(!watch.changed(|_| true));
        });
    }

    /// A message about a VLAN device with an XDP program, as `change` has it.
    fn vlan(change: impl Fn(Request) -> Request, protocol: u16) -> Link {
        let data = Request::nest(&[
            (IFLA_VLAN_ID, &4094_u16.to_ne_bytes()),
            (IFLA_VLAN_PROTOCOL, &protocol.to_be_bytes()),
        ]);
        let info = [(libc::IFLA_INFO_KIND, &b"vlan\0"[..]), (libc::IFLA_INFO_DATA, &data)];
        let mut header = [0; LINK_HEADER];
        header[2..4].copy_from_slice(&libc::ARPHRD_ETHER.to_ne_bytes());
        header[4..8].copy_from_slice(&9_u32.to_ne_bytes());
        let request = Request::new(libc::RTM_NEWLINK, 0, &header)
            .with(libc::IFLA_IFNAME, b"left.4094\0")
            .with(libc::IFLA_ADDRESS, &LEFT_MAC)
            .with(libc::IFLA_MTU, &1500_u32.to_ne_bytes())
            .with(libc::IFLA_LINK, &3_u32.to_ne_bytes())
            .with(libc::IFLA_LINKINFO, &Request::nest(&info));
        link(&change(request).finish(0)[MESSAGE_HEADER..]).unwrap()
    }

    #[test]
    fn a_vlan_is_one_of_802_1q_by_an_interface_of_ours() {
        let link = vlan(|request| request, 0x8100);
        assert_eq!(link.vlan, Some((4094, 3)));
        assert_eq!((link.name.as_str(), link.index, link.mac), ("left.4094", 9, Some(LEFT_MAC)));
        assert_eq!((link.rx_queues, link.up), (1, false));
        let link = vlan(|request| request, 0x88a8);
        assert_eq!((link.vlan, link.kind.as_deref()), (None, Some("vlan")));
        let elsewhere = |request: Request| request.with(libc::IFLA_LINK_NETNSID, &[0; 4]);
        assert_eq!(vlan(elsewhere, 0x8100).vlan, None);
    }

    #[test]
    fn a_program_is_found_in_any_mode() {
        for (attached, wanted) in [
            (&[(2, 1), (IFLA_XDP_PROG_ID, 70)][..], Some(70)),
            (&[(2, 4), (IFLA_XDP_MODES[0], 71), (IFLA_XDP_MODES[1], 72)], Some(71)),
            (&[(2, 4), (IFLA_XDP_MODES[1], 72), (IFLA_XDP_MODES[2], 73)], Some(72)),
            (&[(2, 0)], None),
        ] {
            let values: Vec<_> =
                attached.iter().map(|(kind, id)| (*kind, u32::to_ne_bytes(*id))).collect();
            let nested: Vec<_> = values.iter().map(|(kind, id)| (*kind, &id[..])).collect();
            let nested = Request::nest(&nested);
            let with = |request: Request| request.with(libc::IFLA_XDP, &nested);
            assert_eq!(vlan(with, 0x8100).program, wanted);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            kinds in prop::collection::vec(
                (0_u16..64, prop::collection::vec(any::<u8>(), 0..24)),
                0..8,
            ),
        ) {
            // Sound attributes behind any header get further than any bytes do.
            let header = &bytes[..bytes.len().min(16) / 4 * 4];
            let mut request = Request::new(0, 0, header);
            for (kind, value) in &kinds {
                request = request.with(*kind, value);
            }
            for body in [&bytes, &request.finish(0)[MESSAGE_HEADER..].to_vec()] {
                let _ = (link(body), interface_address(body), neighbour(body));
                let found = route(at("10.0.0.1"), body);
                prop_assert!(body.len() >= ROUTE_HEADER || found.flatten().is_none());
            }
        }
    }
}
