//! The way to a destination: a header to put before the payload, or the kernel.

use std::net::{IpAddr, SocketAddr};

use super::super::address::needs_scope;
use super::super::error::NetError;
use super::frame::{Ends, Header, Mac, group_mac};
use super::members::Members;
use super::netlink::{Link, Netlink, RouteKind};
use super::umem::FRAME_BYTES;
use super::watch::Change;

/// Hops of a unicast datagram that is asked for none.
const HOPS: u8 = 64;
/// Bytes of an IPv4 and of an IPv6 header with the UDP header behind it.
const HEADERS: [usize; 2] = [28, 48];

/// Where datagrams of one socket to one destination go.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// `None`: through the kernel.
    pub(super) way: Option<Way>,
    /// Whom they are handed to first, where that is a host.
    hop: Option<Hop>,
    /// Whether it may be another one before a change of the tables tells: a router may know of a
    /// narrower one, this host's last member of a group may leave.
    pub(super) is_doubtful: bool,
}

/// Out of an interface, past the kernel.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// The device that the kernel has for the route.
    pub(super) device: u32,
    /// The interface itself: that below a VLAN's device.
    pub(super) interface: u32,
    /// What comes before the payload.
    pub(super) header: Header,
    pub(super) payload_bytes_max: usize,
}

/// A host on the wire of a device, and its address there if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hop {
    device: u32,
    host: IpAddr,
    mac: Option<Mac>,
}

impl Path {
    /// Through the kernel.
    pub(super) const KERNEL: Self = Self { way: None, hop: None, is_doubtful: false };

    /// Whether the kernel is about to ask for the host's address.
    pub(super) fn waits_for_neighbour(&self) -> bool {
        self.hop.is_some_and(|hop| hop.mac.is_none())
    }

    /// The device and the host that datagrams are handed to past the kernel, which therefore does
    /// not know that they are.
    pub(super) fn unseen_host(&self) -> Option<(u32, IpAddr)> {
        self.hop.filter(|_| self.way.is_some()).map(|hop| (hop.device, hop.host))
    }

    /// Whether it may be another one since that change.
    pub(super) fn may_differ(&self, change: &Change) -> bool {
        match *change {
            Change::Neighbour { device, host, mac } => self
                .hop
                .is_some_and(|hop| (hop.device, hop.host) == (device, host) && hop.mac != mac),
            Change::Other => true,
        }
    }
}

/// What a path depends on, of the socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    pub(super) local: SocketAddr,
    /// The interface that the socket was given, a VLAN's own if it has one.
    pub(super) interface: Option<u32>,
    pub(super) hops: Option<u8>,
    pub(super) dscp: u8,
    pub(super) multicast_loopback: bool,
}

/// Finds the way as the kernel's tables have it now. What is not sure goes through the kernel,
/// which asks the neighbours and answers errors.
pub(super) fn find(
    netlink: &Netlink,
    members: &Members,
    origin: &Origin,
    to: SocketAddr,
) -> Result<Path, NetError> {
    let scope = match to {
        SocketAddr::V6(to) if needs_scope(to.ip()) => Some(to.scope_id()).filter(|id| *id != 0),
        _ => None,
    };
    if scope.is_some() && origin.interface.is_some_and(|own| scope != Some(own)) {
        return Ok(Path::KERNEL);
    }
    let via = scope.or(origin.interface);
    let Some(route) = netlink.route(to.ip(), via)? else { return Ok(Path::KERNEL) };
    let outer = netlink.link(route.interface)?;
    let inner = match outer.vlan {
        Some((_, parent)) => netlink.link(parent)?,
        None => outer.clone(),
    };
    // Only who names the loopback interface has its packets taken from the kernel.
    let local = route.kind == RouteKind::Local || outer.loopback;
    if !outer.up || !inner.up || local && origin.interface != Some(outer.index) {
        return Ok(Path::KERNEL);
    }
    let Some(hops) = hops(origin, to.ip()) else { return Ok(Path::KERNEL) };
    let loops = to.ip().is_multicast() && origin.multicast_loopback && !outer.loopback;
    if loops && members.count(outer.index, to.ip()) > 0 {
        return Ok(Path { is_doubtful: true, ..Path::KERNEL });
    }
    let (mac, hop) = match route.kind {
        _ if outer.loopback => (Some(Mac::default()), None),
        RouteKind::Multicast => (group_mac(to.ip()), None),
        RouteKind::Unicast => {
            let host = route.gateway.unwrap_or(to.ip());
            let mac = netlink.neighbour(outer.index, host)?;
            (mac, Some(Hop { device: outer.index, host, mac }))
        }
        _ => (None, None),
    };
    let source = source(netlink, origin, &outer, route.source)?;
    let header = mac.zip(source).and_then(|(destination_mac, source)| {
        Header::new(&Ends {
            source_mac: inner.mac.unwrap_or_default(),
            destination_mac,
            vlan: outer.vlan.map(|(id, _)| id),
            source,
            destination: to,
            hops,
            dscp: origin.dscp,
        })
    });
    let mtu = route.mtu.unwrap_or(outer.mtu).min(outer.mtu) as usize;
    let way = header.map(|header| Way {
        device: outer.index,
        interface: inner.index,
        payload_bytes_max: mtu
            .saturating_sub(HEADERS[usize::from(to.is_ipv6())])
            .min(FRAME_BYTES - header.len()),
        header,
    });
    Ok(Path { way, hop, is_doubtful: route.gateway.is_some() })
}

/// Hops that a datagram may take; `None`: it is not to leave this host.
fn hops(origin: &Origin, to: IpAddr) -> Option<u8> {
    match origin.hops {
        Some(0) if to.is_multicast() => None,
        Some(hops) => Some(hops.max(1)),
        None if to.is_multicast() => Some(1),
        None => Some(HOPS),
    }
}

/// The address that datagrams come from: the socket's, or the route's, or the interface's.
fn source(
    netlink: &Netlink,
    origin: &Origin,
    link: &Link,
    preferred: Option<IpAddr>,
) -> Result<Option<SocketAddr>, NetError> {
    let own = origin.local.ip();
    let port = origin.local.port();
    if !own.is_unspecified() && !own.is_multicast() {
        return Ok(Some(SocketAddr::new(own, port)));
    }
    let usable = |ip: &IpAddr| ip.is_ipv4() == own.is_ipv4() && !ip.is_unspecified();
    if let Some(ip) = preferred.filter(usable) {
        return Ok(Some(SocketAddr::new(ip, port)));
    }
    let all = netlink.addresses()?;
    let first = all.iter().find(|(index, ip)| *index == link.index && usable(ip));
    Ok(first.map(|&(_, ip)| SocketAddr::new(ip, port)))
}
