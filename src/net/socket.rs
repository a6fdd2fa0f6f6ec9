//! Plain non-blocking sockets: the quickest way for a lone packet.
//!
//! A socket reads datagram by datagram until they come steadily, and in batches then: see the
//! gears. Reading in high gear is one `recvmmsg` for several super datagrams.

use std::net::SocketAddr;
use std::time::Duration;

use super::address::RawAddress;
use super::error::NetError;
use super::gear::{Gearbox, hand_over};
use super::member::Member;
use super::options::SocketOptions;
use super::sys::{self, Arrival, Descriptor, MESSAGE_BYTES};
use super::{Datagram, Datagrams, Run, SOCKETS_MAX, SocketSet, SocketStatistics};

/// Messages taken by one call in high gear.
const BATCH: usize = 8;
/// The plain-socket back end. See [`Datagrams`].
#[derive(Debug)]
pub struct SocketNetwork {
    members: Vec<Member>,
    gears: Vec<Gearbox>,
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
            gears: Vec::with_capacity(SOCKETS_MAX),
            slab: vec![0; BATCH * MESSAGE_BYTES].into(),
            turn: 0,
            polled: Vec::with_capacity(SOCKETS_MAX),
            notes: Vec::new(),
        }
    }

    pub(super) fn with_note(note: String) -> Self {
        Self { notes: vec![note], ..Self::new() }
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Whether runs leave a socket as super datagrams.
    pub(super) fn segments(&self, socket: usize) -> bool {
        self.members[socket].segments
    }

    pub(super) fn descriptor(&self, socket: usize) -> &Descriptor {
        &self.members[socket].descriptor
    }

    /// One datagram a call.
    #[inline]
    fn receive_singly(
        &mut self,
        socket: usize,
        limit: usize,
        handler: &mut impl FnMut(Datagram<'_>),
    ) -> Result<usize, NetError> {
        let (member, gears) = (&mut self.members[socket], &mut self.gears[socket]);
        let room = &mut self.slab[..MESSAGE_BYTES];
        let (mut got, mut retried) = (0, false);
        loop {
            member.counted.system_calls += 1;
            let result = match member.peer {
                Some(peer) => member.descriptor.receive(room).map(|len| (len, peer)),
                None => {
                    let mut source = RawAddress::room();
                    let result = member.descriptor.receive_from(room, &mut source);
                    result.map(|len| (len, source.address_or_none()))
                }
            };
            match result {
                Ok((len, source)) => {
                    got += hand_over(member, socket, source, &room[..len], 0, handler);
                    let shifted = gears.found(1, 1, member, &mut self.notes);
                    if shifted || got >= limit || !gears.is_greedy() {
                        return Ok(got);
                    }
                }
                Err(errno) if errno.would_block() => {
                    gears.empty(member, &mut self.notes);
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
                        self.gears[socket].empty(member, &mut self.notes);
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
            let before = got;
            for (arrival, chunk) in arrivals[..count].iter().zip(self.slab.chunks(MESSAGE_BYTES)) {
                let bytes = &chunk[..arrival.len.min(MESSAGE_BYTES)];
                let source = arrival.source.address_or_none();
                got += hand_over(member, socket, source, bytes, arrival.segment_bytes, handler);
            }
            self.gears[socket].found(count, got - before, member, &mut self.notes);
            if count < wanted {
                break;
            }
        }
        Ok(got)
    }
}

impl Datagrams for SocketNetwork {
    fn add(&mut self, options: &SocketOptions) -> Result<usize, NetError> {
        let index = self.members.len();
        let member = Member::open(options, index, &mut self.notes)?;
        self.polled.push(sys::interest(member.descriptor.raw(), libc::POLLIN));
        self.members.push(member);
        self.gears.push(Gearbox::default());
        Ok(index)
    }

    #[inline]
    fn receive(
        &mut self,
        wanted: SocketSet,
        limit: usize,
        mut handler: impl FnMut(Datagram<'_>),
    ) -> Result<usize, NetError> {
        let wanted = wanted.among(self.members.len());
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
                got += if self.gears[at].is_high() {
                    self.receive_batch(at, limit - got, &mut handler)?
                } else {
                    self.receive_singly(at, limit - got, &mut handler)?
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
            [run] if run.is_one() => {
                member.send_one(run.bytes, to.as_ref(), Descriptor::send).map(usize::from)
            }
            _ => member.send_many(runs, &mut self.notes, to.as_ref(), Descriptor::send_batch),
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), NetError> {
        sys::wait(&mut self.polled, timeout)
    }

    fn local_address(&self, socket: usize) -> SocketAddr {
        self.members[socket].local
    }

    fn statistics(&self, socket: usize) -> SocketStatistics {
        self.members[socket].statistics()
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }
}
