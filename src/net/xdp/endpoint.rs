//! One socket as AF_XDP sees it: which packets are its own, and the ways to where it sends.

use std::net::{IpAddr, SocketAddr};

use super::super::address::needs_scope;
use super::super::options::SocketOptions;
use super::super::{Datagram, SocketStatistics};
use super::frame::Packet;
use super::path::{Origin, Path};
use super::watch::Change;

/// Destinations of one socket whose paths are kept.
const PATHS_MAX: usize = 1_024;

/// Where a socket's packets come in and leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The interface as the kernel's routes have it: a VLAN's own if it has one.
    pub(super) device: u32,
    /// 0 is none.
    pub(super) vlan: u16,
    /// Which of the network's ports that is.
    pub(super) port: usize,
}

/// A socket. See the [module](self).
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) local: SocketAddr,
    pub(super) peer: Option<SocketAddr>,
    pub(super) group: Option<IpAddr>,
    /// The only host to take from in the group.
    source: Option<IpAddr>,
    /// `None`: all ports of the network.
    pub(super) place: Option<Place>,
    /// Nothing is steered for it.
    pub(super) left_to_kernel: bool,
    /// Addresses of packets that are steered here, to those that it is bound to.
    pub(super) steered: Vec<(usize, IpAddr)>,
    /// Whether another network of the process takes some of that too.
    pub(super) contested: bool,
    pub(super) origin: Origin,
    pub(super) counted: SocketStatistics,
    paths: Vec<(SocketAddr, Path)>,
    oldest: usize,
}

impl Endpoint {
    pub(super) fn new(
        options: &SocketOptions,
        local: SocketAddr,
        place: Option<Place>,
        left_to_kernel: bool,
    ) -> Self {
        Self {
            local,
            peer: options.connect,
            group: options.join,
            source: options.source,
            place,
            left_to_kernel,
            steered: Vec::new(),
            contested: false,
            origin: Origin {
                local,
                interface: place.map(|place| place.device),
                hops: options.ttl,
                dscp: options.dscp.unwrap_or(0),
                multicast_loopback: options.multicast_loopback,
            },
            counted: SocketStatistics::default(),
            paths: Vec::new(),
            oldest: 0,
        }
    }

    /// Whether a packet to this address and port would be this socket's.
    #[inline]
    fn is_bound_to(&self, destination: SocketAddr) -> bool {
        if self.local.port() != destination.port() {
            return false;
        }
        let (own, ip) = (self.local.ip(), destination.ip());
        if ip.is_multicast() {
            self.group == Some(ip) && (own == ip || own.is_unspecified())
        } else {
            own == ip || own.is_unspecified() && own.is_ipv4() == ip.is_ipv4()
        }
    }

    /// Whether a packet that came in at one of the network's ports is for this socket.
    #[inline]
    pub(super) fn takes(&self, port: usize, packet: &Packet<'_>) -> bool {
        let vlan = packet.vlan.unwrap_or(0);
        self.is_bound_to(packet.destination)
            && self.place.is_none_or(|place| (place.port, place.vlan) == (port, vlan))
            && self.peer.is_none_or(|peer| same(peer, packet.source))
            && (self.source.is_none_or(|source| source == packet.source.ip())
                || !packet.destination.ip().is_multicast())
    }

    /// Adds what was sent.
    #[inline]
    pub(super) fn count(&mut self, sent: &SocketStatistics) {
        self.counted.datagrams_out += sent.datagrams_out;
        self.counted.bytes_out += sent.bytes_out;
        self.counted.send_failures += sent.send_failures;
        self.counted.system_calls += sent.system_calls;
    }

    /// How well the kernel would say that it fits a unicast packet that it takes: who is connected
    /// to the sender before who is not, an address of its own before none.
    #[inline]
    pub(super) fn fit(&self) -> u8 {
        2 * u8::from(self.peer.is_some()) + u8::from(!self.local.ip().is_unspecified())
    }

    /// The path to a destination, if it is known.
    #[inline]
    pub(super) fn path(&self, to: SocketAddr) -> Option<&Path> {
        self.paths.iter().find(|(known, _)| *known == to).map(|(_, path)| path)
    }

    /// All paths that are known.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().map(|(_, path)| path)
    }

    /// Forgets those paths that may be others by now.
    pub(super) fn forget_doubtful_paths(&mut self) {
        self.paths.retain(|(_, path)| !path.is_doubtful);
        self.oldest = 0;
    }

    /// Whether a path of its own, or what is steered to it, may be another since a change.
    pub(super) fn is_affected(&self, change: &Change) -> bool {
        *change == Change::Other || self.paths.iter().any(|(_, path)| path.may_differ(change))
    }

    /// Keeps a path, in place of the oldest if there are too many.
    pub(super) fn keep(&mut self, to: SocketAddr, path: Path) {
        if self.paths.len() < PATHS_MAX {
            self.paths.push((to, path));
        } else {
            self.paths[self.oldest] = (to, path);
            self.oldest = (self.oldest + 1) % PATHS_MAX;
        }
    }

    pub(super) fn forget_paths(&mut self) {
        self.paths.clear();
        self.oldest = 0;
    }
}

/// The same host and port; scopes are ours and not the packet's.
fn same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip(), one.port()) == (other.ip(), other.port())
}

/// Hands a packet to whom it is for: of multicast to each, of unicast to the one that fits best.
/// Returns how many that were. `interface` is where the port is.
#[inline]
pub(super) fn hand_over(
    endpoints: &mut [Endpoint],
    port: usize,
    interface: u32,
    packet: &Packet<'_>,
    handler: &mut impl FnMut(Datagram<'_>),
) -> usize {
    let mut give = |socket: usize, endpoint: &mut Endpoint| {
        endpoint.counted.datagrams_in += 1;
        endpoint.counted.bytes_in += packet.payload.len() as u64;
        let mut source = packet.source;
        if let SocketAddr::V6(v6) = &mut source
            && needs_scope(v6.ip())
        {
            v6.set_scope_id(endpoint.place.map_or(interface, |place| place.device));
        }
        handler(Datagram { socket, source, bytes: packet.payload });
    };
    let mut count = 0;
    if packet.destination.ip().is_multicast() {
        for (socket, endpoint) in endpoints.iter_mut().enumerate() {
            if endpoint.takes(port, packet) {
                give(socket, endpoint);
                count += 1;
            }
        }
        return count;
    }
    let mut best = None;
    for (socket, endpoint) in endpoints.iter().enumerate() {
        // Of two that fit alike the kernel takes the one bound last.
        let fits = endpoint.takes(port, packet);
        if fits && best.is_none_or(|known: usize| endpoints[known].fit() <= endpoint.fit()) {
            best = Some(socket);
        }
    }
    if let Some(socket) = best {
        give(socket, &mut endpoints[socket]);
        count = 1;
    }
    count
}
