//! Opening a socket as [`SocketOptions`] ask, and checking that the kernel did it.
//!
//! What makes the socket useless is an error; what merely makes it worse is a note.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

use super::address::{RawAddress, needs_scope, unspecified};
use super::error::NetError;
use super::options::{Interface, SocketOptions};
use super::sys::{Descriptor, Errno};

/// A socket as it came to be.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) descriptor: Descriptor,
    pub(super) local: SocketAddr,
    pub(super) peer: Option<SocketAddr>,
}

/// Opens a socket; `index` is its number, for the notes.
pub(super) fn open(
    options: &SocketOptions,
    index: usize,
    notes: &mut Vec<String>,
) -> Result<Opened, NetError> {
    check(options)?;
    let scope = options.interface.as_ref().map(interface_index).transpose()?;
    let family = if options.bind.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET };
    let descriptor =
        Descriptor::udp(family).map_err(|e| NetError::refused("open a UDP socket", e.0))?;
    let mut setting = Setting { descriptor: &descriptor, v6: options.bind.is_ipv6(), index, notes };
    setting.before_bind(options);
    setting.buffers(options);
    bind(&descriptor, scoped(options.bind, scope))?;
    setting.after_bind(options);
    setting.routing(options, scope)?;
    let peer = options.connect.map(|peer| scoped(peer, scope));
    if let Some(peer) = peer {
        descriptor
            .connect(&RawAddress::of(peer))
            .map_err(|e| NetError::refused(format!("connect to {peer}"), e.0))?;
    }
    let local = descriptor
        .local_address()
        .map_err(|e| NetError::refused("ask for the local address", e.0))?
        .address()
        .unwrap_or(options.bind);
    Ok(Opened { descriptor, local, peer })
}

/// Refuses what cannot work whatever the kernel says.
fn check(options: &SocketOptions) -> Result<(), NetError> {
    let same = |what: &'static str, address: Option<IpAddr>| match address {
        Some(address) if address.is_ipv4() != options.bind.is_ipv4() => {
            Err(NetError::FamilyMismatch { what, address, socket: options.bind })
        }
        _ => Ok(()),
    };
    if let Some(group) = options.join.filter(|group| !group.is_multicast()) {
        return Err(NetError::NotMulticast { group });
    }
    same("destination", options.connect.map(|peer| peer.ip()))?;
    same("group", options.join)?;
    same("source", options.source)
}

fn bind(descriptor: &Descriptor, address: SocketAddr) -> Result<(), NetError> {
    descriptor.bind(&RawAddress::of(address)).map_err(|Errno(errno)| match errno {
        libc::EADDRINUSE => NetError::PortInUse { address },
        libc::EADDRNOTAVAIL => NetError::AddressMissing { address },
        _ => NetError::refused(format!("bind {address}"), errno),
    })
}

/// Completes an address that needs an interface with the one given.
fn scoped(address: SocketAddr, scope: Option<u32>) -> SocketAddr {
    match (address, scope) {
        (SocketAddr::V6(mut v6), Some(scope)) if v6.scope_id() == 0 && needs_scope(v6.ip()) => {
            v6.set_scope_id(scope);
            v6.into()
        }
        _ => address,
    }
}

pub(super) fn interface_index(wanted: &Interface) -> Result<u32, NetError> {
    let all: Vec<(String, Option<IpAddr>)> = getifaddrs()
        .map_err(|e| NetError::refused("list the interfaces", e as i32))?
        .map(|entry| {
            let storage = entry.address;
            let v4 = storage.and_then(|s| s.as_sockaddr_in().map(|a| IpAddr::from(a.ip())));
            let v6 = storage.and_then(|s| s.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())));
            (entry.interface_name, v4.or(v6))
        })
        .collect();
    let name = match wanted {
        Interface::Name(name) => Some(name),
        Interface::Address(address) => {
            all.iter().find(|(_, own)| own.as_ref() == Some(address)).map(|(name, _)| name)
        }
    };
    let index = name.and_then(|name| if_nametoindex(name.as_str()).ok());
    index.ok_or_else(|| {
        let text = |(name, address): &(String, Option<IpAddr>)| match address {
            Some(address) => format!("{name} ({address})"),
            None => name.clone(),
        };
        let mut available: Vec<String> = all.iter().map(text).collect();
        available.sort();
        available.dedup();
        NetError::InterfaceMissing { wanted: wanted.to_string(), available }
    })
}

/// Sets options on one socket and notes refusals.
struct Setting<'a> {
    descriptor: &'a Descriptor,
    v6: bool,
    index: usize,
    notes: &'a mut Vec<String>,
}

impl Setting<'_> {
    fn note(&mut self, text: &str) {
        self.notes.push(format!("socket {}: {text}", self.index));
    }

    /// Sets an integer; a refusal is a note.
    fn wish(&mut self, what: &str, level: i32, name: i32, value: i32) {
        if let Err(Errno(errno)) = self.descriptor.set_int(level, name, value) {
            let reason = std::io::Error::from_raw_os_error(errno);
            self.note(&format!("{what} = {value} refused: {reason}"));
        }
    }

    /// The same for an option that has one name for each family.
    fn wish_ip(&mut self, what: &str, v4: i32, v6: i32, value: i32) {
        let (level, name) = if self.v6 { (libc::IPPROTO_IPV6, v6) } else { (libc::IPPROTO_IP, v4) };
        self.wish(what, level, name, value);
    }

    fn before_bind(&mut self, options: &SocketOptions) {
        if options.reuse {
            self.wish("SO_REUSEADDR", libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
        }
        if options.reuse_port {
            self.wish("SO_REUSEPORT", libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
        }
        if self.v6 {
            self.wish("IPV6_V6ONLY", libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1);
        }
        // Without this a socket gets every group that any process on this host has joined.
        self.wish_ip("IP_MULTICAST_ALL", libc::IP_MULTICAST_ALL, libc::IPV6_MULTICAST_ALL, 0);
        if !options.fragment {
            let (v4, v6) = (libc::IP_MTU_DISCOVER, libc::IPV6_MTU_DISCOVER);
            self.wish_ip("IP_MTU_DISCOVER", v4, v6, libc::IP_PMTUDISC_DO);
        }
        if let Some(class) = options.dscp {
            self.wish_ip("DSCP", libc::IP_TOS, libc::IPV6_TCLASS, i32::from(class) << 2);
        }
        if let Some(us) = options.busy_poll_us {
            let us = i32::try_from(us).unwrap_or(i32::MAX);
            self.wish("SO_BUSY_POLL", libc::SOL_SOCKET, libc::SO_BUSY_POLL, us);
        }
    }

    fn after_bind(&mut self, options: &SocketOptions) {
        if options.share {
            self.wish("SO_REUSEADDR", libc::SOL_SOCKET, libc::SO_REUSEADDR, 1);
        }
    }

    fn buffers(&mut self, options: &SocketOptions) {
        if let Some(bytes) = options.receive_buffer_bytes {
            self.buffer("receive", libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, bytes);
        }
        if let Some(bytes) = options.send_buffer_bytes {
            self.buffer("send", libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, bytes);
        }
    }

    /// The kernel doubles what it is asked for, to pay for its bookkeeping, and tells the double.
    fn buffer(&mut self, which: &str, force: i32, plain: i32, bytes: usize) {
        let wanted = i32::try_from(bytes).unwrap_or(i32::MAX / 2).min(i32::MAX / 2);
        if self.descriptor.set_int(libc::SOL_SOCKET, force, wanted).is_err() {
            self.wish(which, libc::SOL_SOCKET, plain, wanted);
        }
        match self.descriptor.get_int(libc::SOL_SOCKET, plain) {
            Ok(got) if got / 2 >= wanted => {}
            Ok(got) => self.note(&format!(
                "the {which} buffer has {} bytes, not {bytes}: raise net.core.{}mem_max",
                got / 2,
                if which == "receive" { 'r' } else { 'w' }
            )),
            Err(Errno(errno)) => self.note(&format!("the {which} buffer is unknown: {errno}")),
        }
    }

    /// Groups, interfaces and hops.
    fn routing(&mut self, options: &SocketOptions, scope: Option<u32>) -> Result<(), NetError> {
        let on = i32::from(options.multicast_loopback);
        self.wish_ip("IP_MULTICAST_LOOP", libc::IP_MULTICAST_LOOP, libc::IPV6_MULTICAST_LOOP, on);
        if let Some(hops) = options.ttl.map(i32::from) {
            let (v4, v6) = (libc::IP_MULTICAST_TTL, libc::IPV6_MULTICAST_HOPS);
            self.wish_ip("IP_MULTICAST_TTL", v4, v6, hops);
            // The kernel takes no unicast datagram that may not travel at all.
            self.wish_ip("IP_TTL", libc::IP_TTL, libc::IPV6_UNICAST_HOPS, hops.max(1));
        }
        if let Some(scope) = scope {
            self.outgoing(scope)?;
        }
        match options.join {
            Some(group) => self.join(group, options.source, scope.unwrap_or(0)),
            None => Ok(()),
        }
    }

    fn outgoing(&mut self, scope: u32) -> Result<(), NetError> {
        let index = scope.cast_signed();
        let result = if self.v6 {
            self.descriptor.set_int(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF, index)
        } else {
            let mut request = [0; size_of::<libc::ip_mreqn>()];
            request[8..12].copy_from_slice(&index.to_ne_bytes());
            self.descriptor.set(libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)
        };
        let what = "send multicast by the interface given";
        result.map_err(|e| NetError::refused(what, e.0))?;
        // This one wants network byte order, in both families.
        let index = index.to_be();
        self.wish_ip("IP_UNICAST_IF", libc::IP_UNICAST_IF, libc::IPV6_UNICAST_IF, index);
        Ok(())
    }

    /// Joins by `group_req` or `group_source_req`: an interface index, then one or two
    /// `sockaddr_storage`, each aligned as such.
    fn join(&mut self, group: IpAddr, source: Option<IpAddr>, scope: u32) -> Result<(), NetError> {
        const STORAGE: usize = size_of::<libc::sockaddr_storage>();
        const FIRST: usize = align_of::<libc::sockaddr_storage>();
        let mut request = [0; FIRST + 2 * STORAGE];
        request[..4].copy_from_slice(&scope.to_ne_bytes());
        let mut put = |at: usize, address: IpAddr| {
            let raw = RawAddress::of((address, 0).into());
            request[at..at + raw.bytes().len()].copy_from_slice(raw.bytes());
        };
        put(FIRST, group);
        put(FIRST + STORAGE, source.unwrap_or(unspecified(group)));
        let level = if self.v6 { libc::IPPROTO_IPV6 } else { libc::IPPROTO_IP };
        let result = if source.is_some() {
            self.descriptor.set(level, libc::MCAST_JOIN_SOURCE_GROUP, &request)
        } else {
            self.descriptor.set(level, libc::MCAST_JOIN_GROUP, &request[..FIRST + STORAGE])
        };
        result.map_err(|e| NetError::refused(format!("join the group {group}"), e.0))
    }
}

/// The largest packet, headers included, that the path of a connected socket can carry, in bytes,
/// if the kernel knows.
pub(super) fn own_mtu(descriptor: &Descriptor, v6: bool) -> Option<usize> {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_MTU) } else { (libc::IPPROTO_IP, libc::IP_MTU) };
    usize::try_from(descriptor.get_int(level, name).ok()?).ok()
}

/// The same for the path to `to`, as the kernel's routes have it.
pub(super) fn path_mtu(to: SocketAddr) -> Option<usize> {
    let v6 = to.is_ipv6();
    let probe = Descriptor::udp(if v6 { libc::AF_INET6 } else { libc::AF_INET }).ok()?;
    probe.connect(&RawAddress::of(to)).ok()?;
    own_mtu(&probe, v6)
}

/// Packets that the kernel dropped at a socket: field 8 (`SK_MEMINFO_DROPS`) of `SO_MEMINFO`.
pub(super) fn kernel_drops(descriptor: &Descriptor) -> u64 {
    const DROPS: usize = 8 * 4;
    let mut report = [0; DROPS + 4];
    match descriptor.get(libc::SOL_SOCKET, libc::SO_MEMINFO, &mut report) {
        Ok(len) if len == report.len() => {
            let [.., a, b, c, d] = report;
            u32::from_ne_bytes([a, b, c, d]).into()
        }
        _ => 0,
    }
}
