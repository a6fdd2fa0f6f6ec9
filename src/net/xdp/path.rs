//! The way to a destination: a header to put before the payload, or the kernel.

use std::net::{IpAddr, SocketAddr};

use super::super::error::NetError;
use super::frame::{Ends, Header, Mac, group_mac};
use super::members::Members;
use super::netlink::{Link, Netlink, RouteKind};
use super::umem::FRAME_BYTES;

/// Hops of a unicast datagram that is asked for none.
const HOPS: u8 = 64;
/// Bytes of an IPv4 and of an IPv6 header with the UDP header behind it.
const HEADERS: [usize; 2] = [28, 48];

/// Where datagrams of one socket to one destination go.
#[derive(Clone, Debug)]
pub(super) enum Path {
    /// Out of an interface, with this before each, if it is no longer than that.
    Port {
        /// The device that the kernel has for the route, and the interface itself: that below
        /// a VLAN's.
        device: u32,
        interface: u32,
        header: Header,
        payload_bytes_max: usize,
    },
    /// Through the kernel.
    Kernel,
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
    /// Memberships of the group that the socket's network has itself.
    pub(super) own_memberships: u32,
}

/// Finds the way as the kernel's tables have it now. What is not sure goes through the kernel,
/// which asks the neighbours and answers errors.
pub(super) fn find(
    netlink: &Netlink,
    members: &Members,
    origin: &Origin,
    to: SocketAddr,
) -> Result<Path, NetError> {
    let Some(route) = netlink.route(to.ip(), origin.interface)? else { return Ok(Path::Kernel) };
    let outer = netlink.link(route.interface)?;
    let inner = match outer.vlan {
        Some((_, parent)) => netlink.link(parent)?,
        None => outer.clone(),
    };
    // Only who names the loopback interface has its packets taken from the kernel.
    let local = route.kind == RouteKind::Local || outer.loopback;
    if !outer.up || !inner.up || local && origin.interface != Some(outer.index) {
        return Ok(Path::Kernel);
    }
    let hops = match origin.hops {
        Some(hops) if to.ip().is_multicast() => hops,
        Some(hops) => hops.max(1),
        None if to.ip().is_multicast() => 1,
        None => HOPS,
    };
    let heard_here = origin.multicast_loopback
        && members.count(outer.index, to.ip()) > origin.own_memberships;
    if to.ip().is_multicast() && (hops == 0 || heard_here && !outer.loopback) {
        return Ok(Path::Kernel);
    }
    let Some(destination_mac) = neighbour(netlink, &outer, &route.gateway, &route.kind, to.ip())?
    else {
        return Ok(Path::Kernel);
    };
    let Some(source) = source(netlink, origin, &outer, route.source)? else {
        return Ok(Path::Kernel);
    };
    let header = Header::new(&Ends {
        source_mac: inner.mac.unwrap_or_default(),
        destination_mac,
        vlan: outer.vlan.map(|(id, _)| id),
        source,
        destination: to,
        hops,
        dscp: origin.dscp,
    });
    let mtu = route.mtu.unwrap_or(outer.mtu).min(outer.mtu) as usize;
    let Some(header) = header else { return Ok(Path::Kernel) };
    let payload_bytes_max = mtu
        .saturating_sub(HEADERS[usize::from(to.is_ipv6())])
        .min(FRAME_BYTES - header.len());
    Ok(Path::Port { device: outer.index, interface: inner.index, header, payload_bytes_max })
}

fn neighbour(
    netlink: &Netlink,
    link: &Link,
    gateway: &Option<IpAddr>,
    kind: &RouteKind,
    to: IpAddr,
) -> Result<Option<Mac>, NetError> {
    if link.loopback {
        return Ok(Some(Mac::default()));
    }
    match kind {
        RouteKind::Multicast => Ok(group_mac(to)),
        RouteKind::Unicast => netlink.neighbour(link.index, gateway.unwrap_or(to)),
        _ => Ok(None),
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
