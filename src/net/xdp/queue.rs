//! One receive queue of an interface, and our sockets on it.
//!
//! The kernel lets one process have a queue, and a process may have several networks. So the memory
//! with its fill and completion rings belongs to the [`Queue`], which the process has once, and
//! each network has a socket of its own on it, a [`Tap`], with its own receive and transmit rings
//! (`XDP_SHARED_UMEM`). The rings that all share are behind a lock that is taken once in many
//! packets.
//!
//! Frames to receive into and frames to send from are kept apart: a full inbox stops no sender.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::sys::{Descriptor, Errno};
use super::rings::{Completion, Fill, Receive, Transmit};
use super::umem::{FRAME_BYTES, Frame, Umem};

/// Frames to receive into: the most packets that can wait for all networks of the process.
const RECEIVE_FRAMES: u32 = 8_192;
/// Frames to send from.
const TRANSMIT_FRAMES: u32 = 2_048;
/// Packets that can wait for one network. Three that do not look at theirs leave the others of the
/// process this many.
const RECEIVE_RING: u32 = 2_048;
/// Frames that wait for packets at first: as many as one network can have wait, and no more, so
/// that a packet finds a frame that is still in a cache. They are doubled each time that less than
/// a quarter is left.
const FRAMES_AT_FIRST: usize = RECEIVE_RING as usize;
const TRANSMIT_RING: u32 = 2_048;
/// Frames that a tap takes out of the common ones, and gives back to them, at once.
const BATCH: usize = 16;
/// Packets that the kernel sends in one call, where it can be told (`XDP_MAX_TX_SKB_BUDGET`, 6.17
/// and later; 32 before).
const SEND_BUDGET: i32 = 512;
const XDP_MAX_TX_SKB_BUDGET: i32 = 9;
/// Calls in which the kernel must make room for all that waits.
const KICKS_MAX: usize = 2 * TRANSMIT_RING as usize / 32;

/// What the process has once for a queue.
#[derive(Debug)]
pub(super) struct Queue {
    interface: u32,
    number: u16,
    umem: Umem,
    /// Holds the memory and the rings that all taps share. Receives and sends nothing.
    holder: Descriptor,
    zero_copy: bool,
    pool: Mutex<Pool>,
}

#[derive(Debug)]
struct Pool {
    fill: Fill,
    completion: Completion,
    /// Frames to send from.
    idle: Vec<Frame>,
    /// Frames to receive into that do not wait for packets, the last used last.
    spent: Vec<Frame>,
    /// How many are to wait.
    level: usize,
}

impl Pool {
    /// Has as many frames wait for packets as there should, those used last first.
    fn refill(&mut self) {
        let waiting = self.fill.waiting();
        if waiting < self.level / 4 {
            self.level = (2 * self.level).min(RECEIVE_FRAMES as usize);
        }
        self.fill.give(&mut self.spent, self.level.saturating_sub(waiting));
    }
}

impl Queue {
    /// Takes a queue. [`libc::EBUSY`]: somebody has it; [`libc::EINVAL`]: there is no such queue;
    /// [`libc::EOPNOTSUPP`]: no zero-copy.
    pub(super) fn open(interface: u32, number: u16, zero_copy: bool) -> Result<Self, Errno> {
        let count = (RECEIVE_FRAMES + TRANSMIT_FRAMES) as usize;
        let (umem, mut spent) = Umem::new(count).map_err(|error| Errno::of(&error))?;
        let mut idle = spent.split_off(RECEIVE_FRAMES as usize);
        idle.reverse(); // the first frames are the first to be used
        let holder = Descriptor::xdp()?;
        // `struct xdp_umem_reg`: start, length, bytes of a frame, headroom, flags, metadata.
        let mut registration = [0; 32];
        registration[..8].copy_from_slice(&umem.start().to_ne_bytes());
        registration[8..16].copy_from_slice(&umem.len().to_ne_bytes());
        registration[16..20].copy_from_slice(&(FRAME_BYTES as u32).to_ne_bytes());
        holder.set(libc::SOL_XDP, libc::XDP_UMEM_REG, &registration)?;
        let mut fill = Fill::open(&holder, RECEIVE_FRAMES)?;
        let completion = Completion::open(&holder, TRANSMIT_FRAMES)?;
        // A socket must have one of the two.
        holder.set_int(libc::SOL_XDP, libc::XDP_RX_RING, 2)?;
        fill.give(&mut spent, FRAMES_AT_FIRST);
        let copy = if zero_copy { libc::XDP_ZEROCOPY } else { libc::XDP_COPY };
        holder.bind_to(&address(copy | libc::XDP_USE_NEED_WAKEUP, interface, number, 0))?;
        let pool = Mutex::new(Pool { fill, completion, idle, spent, level: FRAMES_AT_FIRST });
        Ok(Self { interface, number, umem, holder, zero_copy, pool })
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// Whether its memory lies in reserved huge pages.
    pub(super) fn is_huge(&self) -> bool {
        self.umem.is_huge()
    }

    fn pool(&self) -> MutexGuard<'_, Pool> {
        // Nothing panics while it is held but for lack of memory, which leaves frames unused.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `struct sockaddr_xdp`.
fn address(flags: u16, interface: u32, queue: u16, shared: i32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&(libc::AF_XDP as u16).to_ne_bytes());
    bytes[2..4].copy_from_slice(&flags.to_ne_bytes());
    bytes[4..8].copy_from_slice(&interface.to_ne_bytes());
    bytes[8..12].copy_from_slice(&u32::from(queue).to_ne_bytes());
    bytes[12..].copy_from_slice(&shared.to_ne_bytes());
    bytes
}

/// A network's own socket on a queue.
#[derive(Debug)]
pub(super) struct Tap {
    /// `None` only while it is dropped.
    socket: Option<Descriptor>,
    receive: Receive,
    transmit: Transmit,
    idle: Vec<Frame>,
    spent: Vec<Frame>,
    /// Packets were put that the kernel had no room for yet.
    unsent: bool,
    /// Packets that were lost while room was made, and are to be told.
    uncounted: u64,
    queue: Arc<Queue>,
}

impl Tap {
    pub(super) fn open(queue: &Arc<Queue>) -> Result<Self, Errno> {
        let socket = Descriptor::xdp()?;
        let receive = Receive::open(&socket, RECEIVE_RING)?;
        let transmit = Transmit::open(&socket, TRANSMIT_RING)?;
        let holder = queue.holder.raw();
        let shared = libc::XDP_SHARED_UMEM;
        socket.bind_to(&address(shared, queue.interface, queue.number, holder))?;
        // Older kernels do not know it, and send 32 a call.
        let _ = socket.set_int(libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, SEND_BUDGET);
        // Room for all packets that the interface is slow to send; refused, there is less.
        let bytes = TRANSMIT_RING.cast_signed() * FRAME_BYTES as i32;
        let _ = socket.set_int(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes);
        Ok(Self {
            socket: Some(socket),
            receive,
            transmit,
            idle: Vec::with_capacity(TRANSMIT_FRAMES as usize),
            spent: Vec::with_capacity(RECEIVE_FRAMES as usize),
            unsent: false,
            uncounted: 0,
            queue: Arc::clone(queue),
        })
    }

    pub(super) fn queue(&self) -> &Queue {
        &self.queue
    }

    #[inline]
    pub(super) fn socket(&self) -> &Descriptor {
        self.socket.as_ref().expect("a tap that is not being dropped has its socket")
    }

    /// Hands over the packets that have come, at most `limit`; returns how many.
    #[inline]
    pub(super) fn receive(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        let mut got = 0;
        while got < limit {
            let Some((frame, offset, len)) = self.receive.take() else { break };
            handler(self.queue.umem.bytes(&frame, offset, len));
            self.spent.push(frame);
            got += 1;
        }
        if got > 0 {
            self.receive.release();
            if self.spent.len() >= BATCH {
                self.give_back();
            }
        }
        got
    }

    /// Gives back the frames of packets that were handed over, and has others wait in place of
    /// those that networks hold which do not look at their packets.
    pub(super) fn give_back(&mut self) {
        let pool = &mut *self.queue.pool();
        pool.spent.append(&mut self.spent);
        pool.refill();
    }

    /// Tells the driver what it waits for, after a look that found nothing: that there are frames
    /// to receive into, or, if it is polled by us, to look.
    #[inline]
    pub(super) fn nothing_came(&self, polls_busily: bool) {
        if polls_busily || self.queue.zero_copy && self.queue.pool().fill.needs_wakeup() {
            // It says by packets whether it did anything.
            let _ = self.socket().prod();
        }
    }

    /// Whether `count` packets find room, for which the kernel is given a chance to make some.
    /// `calls` is raised by the system calls that it took.
    #[inline]
    pub(super) fn reserve(&mut self, count: usize, calls: &mut u64) -> bool {
        if self.has_room(count) || self.more(count) {
            return true;
        }
        let Ok(lost) = self.kick(calls) else { return false };
        self.uncounted += lost;
        self.has_room(count) || self.more(count)
    }

    #[inline]
    fn has_room(&mut self, count: usize) -> bool {
        self.idle.len() >= count && self.transmit.has_room(count)
    }

    #[cold]
    fn more(&mut self, count: usize) -> bool {
        {
            let pool = &mut *self.queue.pool();
            pool.completion.reap(&mut pool.idle);
            let lacking = count.saturating_sub(self.idle.len()).next_multiple_of(BATCH);
            let from = pool.idle.len().saturating_sub(lacking);
            self.idle.extend(pool.idle.drain(from..));
        }
        self.has_room(count)
    }

    /// Puts a packet that `write` writes and tells the length of.
    ///
    /// # Panics
    /// If there is no room that was [reserved](Self::reserve).
    #[inline]
    pub(super) fn put(&mut self, write: impl FnOnce(&mut [u8]) -> usize) {
        let mut frame = self.idle.pop().expect("the caller reserved it");
        let len = write(self.queue.umem.bytes_mut(&mut frame));
        self.transmit.put(frame, len);
    }

    /// Has the kernel send what was put; returns how many packets were lost on the way. `calls` is
    /// raised by the system calls that it took.
    #[inline]
    pub(super) fn kick(&mut self, calls: &mut u64) -> Result<u64, Errno> {
        let before = self.transmit.publish();
        self.unsent = false;
        let mut lost = mem::take(&mut self.uncounted);
        for call in 0..KICKS_MAX {
            // Without zero-copy it is this very call that sends.
            if self.queue.zero_copy && !self.transmit.needs_wakeup() {
                return Ok(lost);
            }
            *calls += 1;
            match self.socket().kick() {
                Ok(()) => return Ok(lost),
                Err(errno) if errno.would_block() => {
                    if self.transmit.waiting() == 0 {
                        return Ok(lost);
                    }
                }
                // The interface took this one and dropped it.
                Err(Errno(libc::EBUSY)) => lost += 1,
                Err(Errno(libc::ENOBUFS | libc::EINTR)) => {}
                Err(errno) => {
                    // The socket refused before it looked at the ring: what it has not seen is not
                    // to leave when the interface is back, and that is long past.
                    let refused = matches!(errno.0, libc::ENETDOWN | libc::ENXIO);
                    if call == 0 && refused && !self.queue.zero_copy {
                        self.transmit.withdraw(before, &mut self.idle);
                    }
                    return Err(errno);
                }
            }
        }
        self.unsent = self.transmit.waiting() > 0;
        Ok(lost)
    }

    /// Whether the kernel is to be asked once more to send.
    #[inline]
    pub(super) fn is_unsent(&self) -> bool {
        self.unsent
    }

    /// Packets that found no room: no frame, or no place in the ring. Asks the kernel: not for the
    /// hot path.
    pub(super) fn drops(&self) -> u64 {
        // `struct xdp_statistics`: dropped, invalid to receive, invalid to send, ring full, no
        // frame, nothing to send; the first three only in old kernels.
        let mut report = [0; 6 * 8];
        let len = self.socket().get(libc::SOL_XDP, libc::XDP_STATISTICS, &mut report);
        let count = |field: usize| {
            let known = len.is_ok_and(|len| len >= (field + 1) * 8);
            let bytes = report[field * 8..(field + 1) * 8].try_into().unwrap_or_default();
            if known { u64::from_ne_bytes(bytes) } else { 0 }
        };
        // One that finds no frame is among those dropped; "no frame" counts attempts to get one.
        count(0) + count(3)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // Without the socket the kernel neither fills one ring nor empties the other.
        drop(self.socket.take());
        while let Some((frame, ..)) = self.receive.take() {
            self.spent.push(frame);
        }
        // What the kernel had not sent stays unused: whether it looked at a packet before it gave
        // up is not to be known.
        self.give_back();
        self.queue.pool().idle.append(&mut self.idle);
    }
}
