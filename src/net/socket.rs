//! Plain non-blocking sockets: the quickest way for a lone packet.
//!
//! A receiving socket has two gears. In **low** gear a datagram is taken by one `recv` (or
//! `recvfrom`), the cheapest call there is. When reads keep finding something it shifts up: in
//! **high** gear the kernel coalesces datagrams (UDP GRO), and one `recvmmsg` takes several
//! super datagrams with their segment sizes. When nothing comes for a while it shifts down.
//!
//! The order of the steps keeps datagrams apart. A coalesced datagram read by plain `recv` would
//! look like one large one, so coalescing is switched on only after reading by `recvmmsg`, and
//! after it is switched off that goes on until the queue was seen empty many times over.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::address::RawAddress;
use super::error::NetError;
use super::member::Member;
use super::options::SocketOptions;
use super::sys::{self, Arrival, Errno, MESSAGE_BYTES};
use super::{Datagram, Datagrams, Run, SOCKETS_MAX, SocketSet, SocketStatistics};

/// Messages taken by one call in high gear.
const BATCH: usize = 8;
/// Reads that must find something, without an empty one between, before one more is tried in the
/// same receive: a lone datagram is handed over at the price of one call.
const GREEDY_AFTER: u32 = 4;
/// Such reads before shifting up.
const UP_AFTER: u32 = 16;
/// Empty reads in high gear before coalescing is switched off.
const DOWN_AFTER: u32 = 64;
/// Empty reads with coalescing off before reading singly. The kernel may be half way into queueing
/// a coalesced datagram while coalescing is switched off; it is done long before so many reads.
const SETTLED_AFTER: u32 = 256;

/// Where a message came from whose address is not one of the internet's.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gear {
    Low,
    High,
    /// As high, but coalescing is off.
    Falling,
}

#[derive(Debug)]
struct Receiving {
    gear: Gear,
    /// Reads in a row that found something.
    found: u32,
    /// Reads in a row that did not.
    empty: u32,
}

/// The plain-socket back end. See [`Datagrams`].
#[derive(Debug)]
pub struct SocketNetwork {
    members: Vec<Member>,
    receiving: Vec<Receiving>,
    /// Room for [`BATCH`] messages; nothing is kept in it between calls.
    slab: Box<[u8]>,
    /// Which socket is looked at first.
    turn: u32,
    polled: Vec<libc::pollfd>,
    notes: Vec<String>,
}

impl Default for SocketNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl SocketNetwork {
    /// A network without sockets. Takes half a megabyte for receiving.
    #[must_use]
    pub fn new() -> Self {
        Self {
            members: Vec::with_capacity(SOCKETS_MAX),
            receiving: Vec::with_capacity(SOCKETS_MAX),
            slab: vec![0; BATCH * MESSAGE_BYTES].into(),
            turn: 0,
            polled: Vec::with_capacity(SOCKETS_MAX),
            notes: Vec::new(),
        }
    }

    /// Settings that the kernel refused or cut.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// One datagram a call.
    #[inline]
    fn receive_singly(
        &mut self,
        socket: usize,
        limit: usize,
        handler: &mut impl FnMut(Datagram<'_>),
    ) -> Result<usize, NetError> {
        let (member, state) = (&mut self.members[socket], &mut self.receiving[socket]);
        let room = &mut self.slab[..MESSAGE_BYTES];
        let (mut got, mut retried) = (0, false);
        loop {
            member.counted.system_calls += 1;
            let result = match member.peer {
                Some(peer) => member.descriptor.receive(room).map(|len| (len, peer)),
                None => {
                    let mut source = RawAddress::room();
                    let result = member.descriptor.receive_from(room, &mut source);
                    result.map(|len| (len, source.address().unwrap_or(NOWHERE)))
                }
            };
            match result {
                Ok((len, source)) => {
                    member.count_in(len);
                    (state.found, got) = (state.found + 1, got + 1);
                    handler(Datagram { socket, source, bytes: &room[..len] });
                    if state.found >= UP_AFTER {
                        self.shift_up(socket);
                        return Ok(got);
                    }
                    if state.found < GREEDY_AFTER || got >= limit {
                        return Ok(got);
                    }
                }
                Err(errno) if errno.would_block() => {
                    state.found = 0;
                    return Ok(got);
                }
                Err(errno) if !retried => {
                    member.refused_to_receive(errno)?;
                    retried = true;
                }
                Err(errno) => return member.refused_to_receive(errno).map(|()| got),
            }
        }
    }

    /// Several messages a call, each one datagram or many.
    fn receive_batch(
        &mut self,
        socket: usize,
        limit: usize,
        handler: &mut impl FnMut(Datagram<'_>),
    ) -> Result<usize, NetError> {
        let (mut got, mut retried) = (0, false);
        while got < limit {
            let member = &mut self.members[socket];
            let wanted = (limit - got).min(BATCH);
            let mut arrivals = [Arrival::NONE; BATCH];
            member.counted.system_calls += 1;
            let result = member.descriptor.receive_batch(&mut self.slab, &mut arrivals[..wanted]);
            let count = match result {
                Ok(count) => count,
                Err(errno) if errno.would_block() => {
                    if got == 0 {
                        self.idle(socket);
                    }
                    break;
                }
                Err(errno) => {
                    member.refused_to_receive(errno)?;
                    if retried {
                        break;
                    }
                    retried = true;
                    continue;
                }
            };
            for (arrival, chunk) in arrivals[..count].iter().zip(self.slab.chunks(MESSAGE_BYTES)) {
                let bytes = &chunk[..arrival.len.min(MESSAGE_BYTES)];
                let source = arrival.source.address().unwrap_or(NOWHERE);
                got += hand_over(member, socket, source, bytes, arrival.segment_bytes, handler);
            }
            let state = &mut self.receiving[socket];
            (state.empty, state.found) = (0, state.found.saturating_add(1));
            if state.gear == Gear::Falling && state.found >= UP_AFTER {
                self.shift_up(socket);
            }
            if count < wanted {
                break;
            }
        }
        Ok(got)
    }

    #[cold]
    fn shift_up(&mut self, socket: usize) {
        let (member, state) = (&mut self.members[socket], &mut self.receiving[socket]);
        *state = Receiving { gear: Gear::High, found: 0, empty: 0 };
        if member.coalesces {
            member.set_gro(true, &mut self.notes);
        }
    }

    /// An empty read in high gear.
    fn idle(&mut self, socket: usize) {
        let (member, state) = (&mut self.members[socket], &mut self.receiving[socket]);
        (state.empty, state.found) = (state.empty + 1, 0);
        match state.gear {
            Gear::High if state.empty >= DOWN_AFTER => {
                (state.gear, state.empty) = (Gear::Falling, 0);
                // A kernel that refuses goes on coalescing: then stay.
                if member.coalesces && !member.set_gro(false, &mut self.notes) {
                    state.gear = Gear::High;
                }
            }
            Gear::Falling if state.empty >= SETTLED_AFTER => {
                *state = Receiving { gear: Gear::Low, found: 0, empty: 0 };
            }
            _ => {}
        }
    }
}

/// Hands over a message, cut into its datagrams; returns how many.
#[inline]
fn hand_over(
    member: &mut Member,
    socket: usize,
    source: SocketAddr,
    bytes: &[u8],
    segment_bytes: usize,
    handler: &mut impl FnMut(Datagram<'_>),
) -> usize {
    if segment_bytes == 0 || bytes.len() <= segment_bytes {
        member.count_in(bytes.len());
        handler(Datagram { socket, source, bytes });
        return 1;
    }
    let mut count = 0;
    for bytes in bytes.chunks(segment_bytes) {
        member.count_in(bytes.len());
        handler(Datagram { socket, source, bytes });
        count += 1;
    }
    count
}

impl Member {
    /// A read that failed: counted if a network explains it.
    #[cold]
    fn refused_to_receive(&mut self, errno: Errno) -> Result<(), NetError> {
        self.counted.unreachable += u64::from(errno.is_unreachable());
        if errno.is_loss() || errno.0 == libc::EINTR {
            return Ok(());
        }
        Err(NetError::refused(format!("receive on {}", self.local), errno.0))
    }
}

impl Datagrams for SocketNetwork {
    fn add(&mut self, options: &SocketOptions) -> Result<usize, NetError> {
        let index = self.members.len();
        let member = Member::open(options, index, &mut self.notes)?;
        self.polled.push(sys::interest(member.descriptor.raw(), libc::POLLIN));
        self.members.push(member);
        self.receiving.push(Receiving { gear: Gear::Low, found: 0, empty: 0 });
        Ok(index)
    }

    #[inline]
    fn receive(
        &mut self,
        wanted: SocketSet,
        limit: usize,
        mut handler: impl FnMut(Datagram<'_>),
    ) -> Result<usize, NetError> {
        let present = u32::MAX.checked_shr(32 - self.members.len() as u32).unwrap_or(0);
        let wanted = wanted.0 & present;
        let later = u32::MAX << self.turn;
        let mut got = 0;
        for mut sockets in [wanted & later, wanted & !later] {
            while sockets != 0 {
                if got >= limit {
                    return Ok(got);
                }
                let socket = sockets.trailing_zeros();
                sockets &= sockets - 1;
                let at = socket as usize;
                got += match self.receiving[at].gear {
                    Gear::Low => self.receive_singly(at, limit - got, &mut handler)?,
                    Gear::High | Gear::Falling => {
                        self.receive_batch(at, limit - got, &mut handler)?
                    }
                };
                if got >= limit {
                    self.turn = (socket + 1) % SOCKETS_MAX as u32;
                }
            }
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
        let member = &mut self.members[socket];
        let to = member.destination(to)?;
        match runs {
            [run] if run.is_one() => member.send_one(to.as_ref(), run.bytes).map(usize::from),
            _ => member.send_many(to.as_ref(), runs, &mut self.notes),
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), NetError> {
        match sys::poll(&mut self.polled, timeout) {
            Ok(_) | Err(Errno(libc::EINTR)) => Ok(()),
            Err(Errno(errno)) => Err(NetError::refused("wait for datagrams", errno)),
        }
    }

    fn local_address(&self, socket: usize) -> SocketAddr {
        self.members[socket].local
    }

    fn statistics(&self, socket: usize) -> SocketStatistics {
        self.members[socket].statistics()
    }
}
