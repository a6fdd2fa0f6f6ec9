//! AF_XDP: datagrams between an interface and rings of ours, past the kernel's network stack.
//!
//! A small program at the interface ([`program`]) sends packets for our pairs of address and port
//! to our rings and lets all others pass. Packets are read where the kernel or the device put them,
//! and written where it takes them from, headers and checksums included.
//!
//! Beside each pair stands a plain socket ([`SocketNetwork`]): it holds the port and the membership
//! of the group, takes what does not come by the rings, and sends what cannot leave by them: to an
//! unknown neighbour (which makes the kernel ask for it), to this host, wider than the path. So a
//! network on AF_XDP can what one on plain sockets can, and where AF_XDP cannot be had it is one.
//!
//! One copy is made of what is sent, into a frame: messages lie in their ring without the headers
//! that a packet has before them, and several share a packet. The copy costs a few hundredths of
//! what sending does. Received packets are handed over where they are.
//!
//! Deliberately absent: fragments, and multicast by AF_XDP to receivers on this host: while the
//! host has a member of the group, and loopback is not switched off, that group is sent to through
//! the kernel.

mod attributes;
#[expect(unsafe_code, reason = "bpf(2) takes pointers")]
mod bpf;
mod channels;
mod checksum;
mod conversation;
mod endpoint;
mod family;
mod features;
#[cfg(test)]
mod fixture;
pub mod frame;
mod members;
#[cfg(test)]
mod namespace;
mod netlink;
mod path;
mod port;
mod program;
mod queue;
#[expect(unsafe_code, reason = "rings are shared with the kernel")]
mod rings;
mod rota;
mod steering;
mod support;
#[expect(unsafe_code, reason = "frames are shared with the kernel")]
mod umem;
mod watch;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use self::endpoint::{Endpoint, Place, hand_over};
use self::members::Members;
use self::netlink::Netlink;
use self::path::Path;
use self::port::{Claimed, Member, Port};
use self::queue::Tap;
use self::rota::Rota;
use self::steering::Pair;
pub use self::support::XdpSupport;
use self::watch::{Change, Watch};
use super::error::NetError;
use super::options::SocketOptions;
use super::socket::SocketNetwork;
use super::sys;
use super::{Datagram, Datagrams, RUN_SEGMENTS_MAX, Run, SocketSet, SocketStatistics, open};
use crate::clock::{Clock, TscClock};

/// Calls of `receive` and `send` that share one look at the clock, beside the first, and the time
/// that so many may have taken.
const CALLS_A_LOOK: u32 = 7;
const OFTEN_NS: u64 = 8_000;
/// Nanoseconds between questions whether the kernel's tables have changed.
const LOOK_NS: u64 = 1_000_000;
/// The same while a neighbour is asked for.
const LOOK_FOR_NEIGHBOUR_NS: u64 = 50_000;
/// Nanoseconds between looks for new members of groups on this host, at what routers have told, and
/// telling the kernel of hosts that are sent to past it.
const LISTEN_NS: u64 = 500_000_000;
/// Datagrams of a run from which on it is quicker through the kernel as a super datagram (GSO) than
/// in frames that the kernel copies one by one.
const SEGMENTS_MIN: usize = 4;

/// The AF_XDP back end. See [`Datagrams`].
///
/// Of statistics, packets that were dropped at an interface, for lack of room or because a checksum
/// is wrong, count for the first socket there.
#[derive(Debug)]
pub struct XdpNetwork {
    endpoints: Vec<Endpoint>,
    ports: Vec<Member>,
    kernel: SocketNetwork,
    rota: Rota,
    netlink: Netlink,
    watch: Watch,
    members: Members,
    /// Where AF_XDP cannot be had, a socket is refused rather than left to the kernel.
    strict: bool,
    clock: TscClock,
    /// The time as last looked at, and calls until it is looked at again.
    now_ns: u64,
    calls_left: u32,
    /// When to ask what has changed, and when to listen around.
    look_ns: u64,
    listen_ns: u64,
    /// Which port is looked at first.
    turn: usize,
    /// Groups, and devices, that are sent to past the kernel as long as this host has no member.
    unheard: Vec<(u32, IpAddr)>,
    polled: Vec<libc::pollfd>,
}

impl XdpNetwork {
    /// A network without sockets. A socket for which AF_XDP cannot be had is refused, unless it is
    /// bound to no interface in particular.
    ///
    /// # Errors
    /// [`NetError::Unavailable`] if the kernel's tables cannot be read.
    pub fn new() -> Result<Self, NetError> {
        Self::open(true)
    }

    /// The same, but a socket for which AF_XDP cannot be had is left to the kernel, with a note
    /// that says why.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn lenient() -> Result<Self, NetError> {
        Self::open(false)
    }

    fn open(strict: bool) -> Result<Self, NetError> {
        Ok(Self {
            endpoints: Vec::new(),
            ports: Vec::new(),
            kernel: SocketNetwork::new(),
            rota: Rota::default(),
            netlink: Netlink::open()?,
            watch: Watch::open()?,
            members: Members::open(),
            strict,
            clock: TscClock::new(),
            now_ns: 0,
            calls_left: 0,
            look_ns: 0,
            listen_ns: 0,
            turn: 0,
            unheard: Vec::new(),
            polled: Vec::new(),
        })
    }

    /// Whether datagrams to and from a socket pass the kernel by, as things are now.
    ///
    /// # Panics
    /// If there is no such socket.
    #[must_use]
    pub fn is_steered(&self, socket: usize) -> bool {
        !self.endpoints[socket].steered.is_empty()
    }

    /// Where a socket's packets come in and leave: the device that the kernel has for it, and the
    /// interface below. `None`: no one in particular.
    fn device(&self, options: &SocketOptions) -> Result<Option<u32>, String> {
        let said = |error: NetError| error.to_string();
        if let Some(interface) = &options.interface {
            return open::interface_index(interface).map(Some).map_err(said);
        }
        let own = options.bind.ip();
        let far = options.join.or(options.connect.map(|peer| peer.ip()));
        let device = if own.is_unspecified() || own.is_multicast() {
            let Some(far) = far.or(Some(own).filter(IpAddr::is_multicast)) else {
                return Ok(None);
            };
            self.netlink.route(far, None).map_err(said)?.map(|route| route.interface)
        } else {
            let all = self.netlink.addresses().map_err(said)?;
            all.iter().find(|(_, ip)| *ip == own).map(|&(index, _)| index)
        };
        let device = device.ok_or("no interface leads there")?;
        if self.netlink.link(device).map_err(said)?.loopback {
            return Err("the loopback interface is left to the kernel, unless it is named".into());
        }
        Ok(Some(device))
    }

    /// The same with the port, which is opened if the network does not use it yet.
    fn place(&mut self, options: &SocketOptions) -> Result<Option<Place>, String> {
        let Some(device) = self.device(options)? else { return Ok(None) };
        let link = self.netlink.link(device).map_err(|error| error.to_string())?;
        let (vlan, interface) = link.vlan.unwrap_or((0, device));
        let known = self.ports.iter().position(|member| member.port.index() == interface);
        let port = match known {
            Some(port) => port,
            None => {
                let port = Port::open(&self.netlink, interface, options.xdp_mode)?;
                let mut member = port.join()?;
                if let Some(us) = options.busy_poll_us {
                    member.poll_busily(us);
                }
                self.kernel.note(format!("AF_XDP on {port}"));
                self.ports.push(member);
                self.ports.len() - 1
            }
        };
        Ok(Some(Place { device, vlan, port }))
    }

    /// Opens the kernel's socket. One that receives a group takes the port for itself, where it
    /// can: another would get nothing of what is steered, and shall rather be told. Returns whether
    /// packets may be steered.
    fn open_kernel(
        &mut self,
        options: &SocketOptions,
        place: Option<Place>,
    ) -> Result<(usize, bool), NetError> {
        let shares = options.reuse || options.reuse_port;
        let group = options.join.filter(|_| shares);
        let (Some(_), Some(group)) = (place, group) else {
            // Who shares a port of one host shares it by the kernel's rules.
            return self.kernel.add(options).map(|socket| (socket, !shares));
        };
        let own = Some(options.bind.ip()).filter(|ip| !ip.is_unspecified());
        let (address, port) = (own.unwrap_or(group), options.bind.port());
        if port::share(address, port, true) {
            let added = self.kernel.add(options);
            // Only while it is bound: what a stranger shared would be steered past it.
            port::share(address, port, false);
            let socket = added?;
            let descriptor = self.kernel.descriptor(socket);
            let _ = descriptor.set_int(libc::SOL_SOCKET, libc::SO_REUSEADDR, 0);
            return Ok((socket, true));
        }
        let alone = options.clone().reuse(false).reuse_port(false);
        match self.kernel.add(&alone) {
            Err(NetError::PortInUse { address }) => {
                let socket = port::sharing(port, || self.kernel.add(options))?;
                self.kernel.note(format!(
                    "socket {socket}: others on this host use {address} too: its datagrams come \
                     through the kernel, which gives each a copy"
                ));
                Ok((socket, false))
            }
            result => result.map(|socket| (socket, true)),
        }
    }

    /// Steers what is bound to an interface, and what is bound to none, to all ports.
    ///
    /// What cannot be steered is left to the kernel, with a note.
    fn steer_all(&mut self) {
        // An interface that is gone has nothing to steer; what is there stays as it was.
        let Ok(addresses) = self.netlink.addresses() else { return };
        for socket in 0..self.endpoints.len() {
            for port in 0..self.ports.len() {
                if let Err(error) = self.steer(socket, port, &addresses) {
                    self.endpoints[socket].left_to_kernel = true;
                    self.rota.set_always(socket, true);
                    let left = "it is left to the kernel";
                    self.kernel.note(format!("socket {socket}: {error}: {left}"));
                }
            }
        }
    }

    fn steer(
        &mut self,
        socket: usize,
        port: usize,
        addresses: &[(u32, IpAddr)],
    ) -> Result<(), NetError> {
        let (endpoint, member) = (&mut self.endpoints[socket], &self.ports[port]);
        let (device, vlan) = match endpoint.place {
            _ if endpoint.left_to_kernel => return Ok(()),
            Some(place) if place.port == port => (place.device, place.vlan),
            Some(_) => return Ok(()),
            // Only what names the loopback interface is taken from it.
            None if member.port.is_loopback() => return Ok(()),
            None => (member.port.index(), 0),
        };
        let own = endpoint.local.ip();
        let same = |ip: &&IpAddr| ip.is_ipv4() == own.is_ipv4();
        let wanted: Vec<IpAddr> = if own.is_unspecified() {
            let here = addresses.iter().filter(|(index, _)| *index == device);
            here.map(|(_, ip)| ip).chain(&endpoint.group).filter(same).copied().collect()
        } else {
            vec![own]
        };
        for address in wanted {
            if endpoint.steered.contains(&(port, address)) {
                continue;
            }
            let pair = Pair { address, port: endpoint.local.port(), vlan };
            let claimed = member.claim(pair, self.kernel.descriptor(socket))?;
            endpoint.steered.push((port, address));
            endpoint.contested |= claimed == Claimed::Contested;
            self.rota.set_always(socket, endpoint.contested);
            if claimed == Claimed::Contested {
                self.kernel.note(format!(
                    "socket {socket}: another network of this process takes {address} port {} \
                     too: both get it through the kernel",
                    pair.port
                ));
            }
        }
        Ok(())
    }

    /// Asks, once in a while, whether the tables have changed that paths depend on. Returns the
    /// time, which is not looked at in each call of one who calls often.
    #[inline]
    fn look_around(&mut self) -> u64 {
        if self.calls_left > 0 {
            self.calls_left -= 1;
            return self.now_ns;
        }
        let before_ns = self.now_ns;
        self.now_ns = self.clock.now_ns();
        let often = self.now_ns - before_ns < OFTEN_NS;
        self.calls_left = if often { CALLS_A_LOOK } else { 0 };
        if self.now_ns >= self.look_ns {
            self.look(self.now_ns);
        }
        self.now_ns
    }

    #[cold]
    fn look(&mut self, now_ns: u64) {
        self.look_ns = now_ns + LOOK_NS;
        self.ports.iter_mut().flat_map(|member| &mut member.taps).for_each(Tap::give_back);
        let endpoints = &self.endpoints;
        let differs = |change: &Change| endpoints.iter().any(|one| one.is_affected(change));
        let mut changed = self.watch.changed(differs);
        if now_ns >= self.listen_ns {
            self.listen_ns = now_ns + LISTEN_NS;
            changed |= self.is_heard();
            for endpoint in &mut self.endpoints {
                let hosts = endpoint.paths().filter_map(Path::unseen_host);
                hosts.for_each(|(device, host)| self.netlink.use_neighbour(device, host));
                endpoint.forget_doubtful_paths();
            }
        }
        if changed {
            self.forget_paths();
            self.steer_all();
        }
    }

    fn forget_paths(&mut self) {
        self.unheard.clear();
        self.endpoints.iter_mut().for_each(Endpoint::forget_paths);
    }

    /// Whether somebody on this host has joined a group that is sent to past the kernel.
    fn is_heard(&self) -> bool {
        let mut groups = self.unheard.iter();
        groups.any(|&(device, group)| self.members.count(device, group) > 0)
    }

    /// Finds the path to a destination anew. What the tables do not tell the kernel will: then it
    /// is the kernel's.
    #[cold]
    fn find(&mut self, socket: usize, to: SocketAddr) {
        let endpoint = &mut self.endpoints[socket];
        let found = path::find(&self.netlink, &self.members, &endpoint.origin, to);
        let path = found.unwrap_or(Path::KERNEL);
        if let Some(way) = &path.way
            && to.ip().is_multicast()
            && endpoint.origin.multicast_loopback
        {
            self.unheard.push((way.device, to.ip()));
        }
        if path.waits_for_neighbour() {
            self.look_ns = self.look_ns.min(self.clock.now_ns() + LOOK_FOR_NEIGHBOUR_NS);
        }
        endpoint.keep(to, path);
    }

    /// Sends runs past the kernel, if all fit; `None` if not.
    #[inline]
    fn send_frames(
        &mut self,
        socket: usize,
        to: SocketAddr,
        runs: &[Run<'_>],
    ) -> Option<Result<usize, NetError>> {
        let endpoint = &mut self.endpoints[socket];
        let way = endpoint.path(to)?.way.as_ref()?;
        let fits = |run: &Run<'_>| {
            run.piece_bytes() <= way.payload_bytes_max && run.segments() <= RUN_SEGMENTS_MAX
        };
        let member = self.ports.iter_mut().find(|member| member.port.index() == way.interface)?;
        let tap = member.taps.first_mut()?;
        let floods = !member.port.is_zero_copy() && self.kernel.segments(socket);
        let is_flood = |run: &Run<'_>| floods && run.segments() >= SEGMENTS_MIN;
        if !runs.iter().all(|run| fits(run) && !is_flood(run)) {
            return None;
        }
        let (mut taken, mut sent) = (0, SocketStatistics::default());
        for run in runs {
            let segments = run.segments();
            if !tap.reserve(segments, &mut sent.system_calls) {
                break;
            }
            run.pieces().for_each(|piece| tap.put(|frame| way.header.write(piece, frame)));
            taken += 1;
            sent.datagrams_out += segments as u64;
            sent.bytes_out += run.bytes.len() as u64;
        }
        let kicked = tap.kick(&mut sent.system_calls);
        let (lost, refused) = match kicked {
            Ok(lost) => (lost, None),
            Err(errno) => (sent.datagrams_out, Some(errno)),
        };
        if lost > 0 {
            let each = sent.bytes_out / sent.datagrams_out.max(1);
            let lost = lost.min(sent.datagrams_out);
            sent.datagrams_out -= lost;
            sent.bytes_out -= lost * each;
            sent.send_failures = lost;
        }
        endpoint.count(&sent);
        if let Some(errno) = refused {
            endpoint.forget_paths();
            if !errno.is_loss() && errno.0 != libc::ENXIO {
                return Some(Err(NetError::refused(format!("send to {to} by AF_XDP"), errno.0)));
            }
        }
        Some(Ok(taken))
    }
}

impl Datagrams for XdpNetwork {
    fn add(&mut self, options: &SocketOptions) -> Result<usize, NetError> {
        options.interface.as_ref().map(open::interface_index).transpose()?;
        let (place, refused) = match self.place(options) {
            Ok(place) => (place, None),
            Err(reason) => (None, Some(reason)),
        };
        if let Some(reason) = refused.clone().filter(|_| self.strict) {
            return Err(NetError::Unavailable { backend: "AF_XDP", reason });
        }
        let (socket, steers) = self.open_kernel(options, place)?;
        if let Some(reason) = &refused {
            let note = format!("socket {socket}: AF_XDP: {reason}: it is left to the kernel");
            self.kernel.note(note);
        }
        let left_to_kernel = refused.is_some() || !steers;
        let local = self.kernel.local_address(socket);
        self.endpoints.push(Endpoint::new(options, local, place, left_to_kernel));
        // What shares a pair with another of ours gets what is that one's to get.
        let shared = |one: &Endpoint| one.local.port() == local.port() && !one.left_to_kernel;
        let covered = options.connect.is_some() && self.endpoints.iter().any(shared);
        self.rota.add(!covered);
        self.steer_all();
        Ok(socket)
    }

    #[inline]
    fn receive(
        &mut self,
        wanted: SocketSet,
        limit: usize,
        mut handler: impl FnMut(Datagram<'_>),
    ) -> Result<usize, NetError> {
        let now_ns = self.look_around();
        let mut got = 0;
        let Self { ports, endpoints, .. } = self;
        for step in 0..ports.len() {
            let port = (self.turn + step) % ports.len();
            let member = &mut ports[port];
            let interface = member.port.index();
            let Member { taps, malformed, turn, polls_busily, .. } = member;
            let (later, first) = taps.split_at_mut(*turn);
            for tap in first.iter_mut().chain(later) {
                let before = got;
                tap.receive(limit.saturating_sub(got), |frame| match frame::parse(frame) {
                    Ok(packet) => {
                        got += hand_over(endpoints, port, interface, &packet, &mut handler);
                    }
                    Err(_) => *malformed += 1,
                });
                if got == before {
                    tap.nothing_came(*polls_busily);
                }
                if tap.is_unsent() {
                    // Whoever sends next is told of a refusal.
                    let _ = tap.kick(&mut 0);
                }
            }
            if got >= limit {
                member.take_turns();
            }
        }
        if got >= limit && !self.ports.is_empty() {
            self.turn = (self.turn + 1) % self.ports.len();
        }
        let due = self.rota.due(now_ns, wanted.among(self.endpoints.len()));
        if due != 0 {
            let mut brought = 0;
            // Rings that are always full do not keep a socket from being looked at.
            let limit = limit.saturating_sub(got).max(limit.min(1));
            let result = self.kernel.receive(SocketSet(due), limit, |datagram| {
                brought |= 1 << datagram.socket;
                handler(datagram);
            });
            self.rota.brought(now_ns, brought);
            got += result?;
        }
        Ok(got)
    }

    #[inline]
    fn send(
        &mut self,
        socket: usize,
        to: Option<SocketAddr>,
        runs: &[Run<'_>],
    ) -> Result<usize, NetError> {
        self.look_around();
        let endpoint = &self.endpoints[socket];
        if let Some(far) = to.or(endpoint.peer)
            && !self.ports.is_empty()
            && far.is_ipv4() == endpoint.local.is_ipv4()
        {
            if endpoint.path(far).is_none() {
                self.find(socket, far);
            }
            if let Some(result) = self.send_frames(socket, far, runs) {
                return result;
            }
        }
        self.kernel.send(socket, to, runs)
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), NetError> {
        self.polled.clear();
        let kernel = (0..self.endpoints.len()).map(|socket| self.kernel.descriptor(socket).raw());
        let taps = self.ports.iter().flat_map(|member| &member.taps).map(|tap| tap.socket().raw());
        let all = kernel.chain(taps).chain([self.watch.socket.as_raw_fd()]);
        self.polled.extend(all.map(|fd| sys::interest(fd, libc::POLLIN)));
        sys::wait(&mut self.polled, timeout)?;
        let ready = self.polled.iter().take(self.endpoints.len()).enumerate();
        let ready = ready.filter(|(_, one)| one.revents != 0);
        self.rota.owe(ready.fold(0, |bits, (socket, _)| bits | 1 << socket));
        if self.polled.last().is_some_and(|watch| watch.revents != 0) {
            self.look_ns = 0;
        }
        self.calls_left = 0;
        Ok(())
    }

    fn local_address(&self, socket: usize) -> SocketAddr {
        self.kernel.local_address(socket)
    }

    fn statistics(&self, socket: usize) -> SocketStatistics {
        let (kernel, own) = (self.kernel.statistics(socket), self.endpoints[socket].counted);
        let first = |port: usize| {
            let at = |endpoint: &Endpoint| endpoint.steered.iter().any(|(at, _)| *at == port);
            self.endpoints.iter().position(at) == Some(socket)
        };
        let mine = self.ports.iter().enumerate().filter(|(port, _)| first(*port));
        let drops = mine.map(|(_, member)| member.drops());
        SocketStatistics {
            datagrams_in: kernel.datagrams_in + own.datagrams_in,
            bytes_in: kernel.bytes_in + own.bytes_in,
            datagrams_out: kernel.datagrams_out + own.datagrams_out,
            bytes_out: kernel.bytes_out + own.bytes_out,
            kernel_drops: kernel.kernel_drops + drops.sum::<u64>(),
            send_failures: kernel.send_failures + own.send_failures,
            system_calls: kernel.system_calls + own.system_calls,
            ..kernel
        }
    }

    fn notes(&self) -> &[String] {
        self.kernel.notes()
    }
}
