//! The rings by which frames go to the kernel and come back.
//!
//! Each has one side that produces and one that consumes: fill (we give frames to receive into),
//! completion (the kernel gives back what was sent), receive and transmit. Layout and protocol:
//! "AF_XDP" of the kernel's networking documentation, `linux/if_xdp.h`. The cursors are 32 bits
//! wide, only rise, and wrap; an entry's place is its cursor modulo the ring's length.
//!
//! The kernel's cursor is read with acquire and pairs with the kernel's release store; ours is
//! written with release and pairs with the kernel's acquire load. What the kernel gives back is
//! what it was given, once: that is believed, as everything else about the kernel is.

use std::io;
use std::marker::PhantomData;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

use super::super::sys::{Descriptor, Errno};
use super::umem::Frame;

/// Which ring of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Receive,
    Transmit,
    Fill,
    Completion,
}

impl Kind {
    /// The option that sizes it, its place among the offsets, and where it is mapped.
    fn facts(self) -> (i32, usize, u64) {
        match self {
            Self::Receive => (libc::XDP_RX_RING, 0, libc::XDP_PGOFF_RX_RING as u64),
            Self::Transmit => (libc::XDP_TX_RING, 1, libc::XDP_PGOFF_TX_RING as u64),
            Self::Fill => (libc::XDP_UMEM_FILL_RING, 2, libc::XDP_UMEM_PGOFF_FILL_RING),
            Self::Completion => {
                (libc::XDP_UMEM_COMPLETION_RING, 3, libc::XDP_UMEM_PGOFF_COMPLETION_RING)
            }
        }
    }
}

/// A packet in a frame: `struct xdp_desc`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Packet {
    address: u64,
    len: u32,
    options: u32,
}

/// A mapped ring of `T`s.
#[derive(Debug)]
struct Ring<T> {
    map: MmapRaw,
    /// Offsets of the cursors, the flags and the entries in the mapping.
    producer: usize,
    consumer: usize,
    flags: usize,
    entries: usize,
    mask: u32,
    _entry: PhantomData<fn(T) -> T>,
}

impl<T: Copy> Ring<T> {
    /// Sizes a ring of `socket` and maps it. `count` is a power of two.
    fn open(socket: &Descriptor, kind: Kind, count: u32) -> Result<Self, Errno> {
        assert!(count.is_power_of_two());
        let (option, place, page) = kind.facts();
        socket.set_int(libc::SOL_XDP, option, count.cast_signed())?;
        // Four rings' offsets of producer, consumer, entries, flags.
        let mut offsets = [0; 4 * 4 * 8];
        let len = socket.get(libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, &mut offsets)?;
        if len != offsets.len() {
            return Err(Errno(libc::ENOTSUP)); // a kernel before 5.4 tells no flags
        }
        let offset = |field: usize| {
            let at = (place * 4 + field) * 8;
            let bytes = offsets[at..at + 8].try_into().unwrap_or_default();
            usize::try_from(u64::from_ne_bytes(bytes)).unwrap_or(usize::MAX / 2)
        };
        let [producer, consumer, entries, flags] = [0, 1, 2, 3].map(offset);
        let bytes = entries + count as usize * size_of::<T>();
        let fits = |at: usize, align: usize| at < bytes && at.is_multiple_of(align);
        let words = [producer, consumer, flags];
        if !fits(entries, align_of::<T>()) || !words.iter().all(|&at| fits(at, 4)) {
            return Err(Errno(libc::EPROTO));
        }
        let map = map(socket.raw(), page, bytes).map_err(|e| Errno::of(&e))?;
        let (mask, _entry) = (count - 1, PhantomData);
        Ok(Self { map, producer, consumer, flags, entries, mask, _entry })
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU32 {
        let at = self.map.as_mut_ptr().wrapping_add(offset).cast::<AtomicU32>();
        // SAFETY: `open` checked that four bytes at `offset` lie in the mapping, aligned; the
        // kernel and we touch them by atomic operations only.
        unsafe { &*at }
    }

    #[inline]
    fn entry(&self, cursor: u32) -> *mut T {
        let at = (cursor & self.mask) as usize * size_of::<T>();
        self.map.as_mut_ptr().wrapping_add(self.entries + at).cast()
    }
}

fn map(fd: RawFd, page: u64, bytes: usize) -> io::Result<MmapRaw> {
    MmapOptions::new().offset(page).len(bytes).populate().map_raw(fd)
}

/// Our end of a ring that we produce into.
#[derive(Debug)]
pub(super) struct Producer<T> {
    ring: Ring<T>,
    /// The next entry to write.
    next: u32,
    /// The kernel's cursor as last seen.
    taken: u32,
}

impl<T: Copy> Producer<T> {
    fn open(socket: &Descriptor, kind: Kind, count: u32) -> Result<Self, Errno> {
        Ok(Self { ring: Ring::open(socket, kind, count)?, next: 0, taken: 0 })
    }

    /// Whether `count` more fit.
    #[inline]
    pub(super) fn has_room(&mut self, count: usize) -> bool {
        if self.room() >= count {
            return true;
        }
        self.taken = self.ring.word(self.ring.consumer).load(Ordering::Acquire);
        self.room() >= count
    }

    /// How many entries the kernel has not taken, as far as it tells.
    fn waiting(&mut self) -> u32 {
        self.taken = self.ring.word(self.ring.consumer).load(Ordering::Acquire);
        self.next.wrapping_sub(self.taken)
    }

    #[inline]
    fn room(&self) -> usize {
        let used = self.next.wrapping_sub(self.taken) as usize;
        (self.ring.mask as usize + 1).saturating_sub(used)
    }

    #[inline]
    fn put(&mut self, entry: T) {
        let at = self.ring.entry(self.next);
        // SAFETY: the place lies in the mapping, aligned as `open` checked. It is ours until the
        // cursor passes it: the callers asked for room.
        unsafe { at.write(entry) };
        self.next = self.next.wrapping_add(1);
    }

    /// Shows the kernel what was put.
    #[inline]
    pub(super) fn publish(&mut self) {
        self.ring.word(self.ring.producer).store(self.next, Ordering::Release);
    }

    /// Whether the kernel sleeps over this ring. Only right after [`publish`](Self::publish).
    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        // The kernel sets the flag and looks at the cursor then; we move the cursor and look at
        // the flag then. One of the two must see the other's.
        fence(Ordering::SeqCst);
        self.ring.word(self.ring.flags).load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

/// Our end of a ring that we consume from.
#[derive(Debug)]
pub(super) struct Consumer<T> {
    ring: Ring<T>,
    /// The next entry to read.
    next: u32,
    /// The kernel's cursor as last seen.
    ready: u32,
}

impl<T: Copy> Consumer<T> {
    fn open(socket: &Descriptor, kind: Kind, count: u32) -> Result<Self, Errno> {
        Ok(Self { ring: Ring::open(socket, kind, count)?, next: 0, ready: 0 })
    }

    #[inline]
    fn take(&mut self) -> Option<T> {
        if self.ready == self.next {
            self.ready = self.ring.word(self.ring.producer).load(Ordering::Acquire);
            if self.ready == self.next {
                return None;
            }
        }
        let at = self.ring.entry(self.next);
        // SAFETY: the place lies in the mapping, aligned as `open` checked; the kernel wrote it
        // before its cursor passed it, and leaves it alone until ours does.
        let entry = unsafe { at.read() };
        self.next = self.next.wrapping_add(1);
        Some(entry)
    }

    /// Gives the places of what was taken back to the kernel.
    #[inline]
    pub(super) fn release(&mut self) {
        self.ring.word(self.ring.consumer).store(self.next, Ordering::Release);
    }
}

/// Frames for the kernel to receive into.
#[derive(Debug)]
pub(super) struct Fill(Producer<u64>);

impl Fill {
    pub(super) fn open(socket: &Descriptor, count: u32) -> Result<Self, Errno> {
        Producer::open(socket, Kind::Fill, count).map(Self)
    }

    /// How many frames the kernel has not used yet.
    pub(super) fn waiting(&mut self) -> usize {
        self.0.waiting() as usize
    }

    /// Gives the last `count` frames, or as many as there are and find room.
    pub(super) fn give(&mut self, frames: &mut Vec<Frame>, count: usize) {
        for _ in 0..count {
            if !self.0.has_room(1) {
                break;
            }
            let Some(frame) = frames.pop() else { break };
            self.0.put(frame.address());
        }
        self.0.publish();
    }

    pub(super) fn needs_wakeup(&self) -> bool {
        self.0.needs_wakeup()
    }
}

/// Frames that the kernel has sent.
#[derive(Debug)]
pub(super) struct Completion(Consumer<u64>);

impl Completion {
    pub(super) fn open(socket: &Descriptor, count: u32) -> Result<Self, Errno> {
        Consumer::open(socket, Kind::Completion, count).map(Self)
    }

    /// Takes back all there are.
    pub(super) fn reap(&mut self, into: &mut Vec<Frame>) {
        while let Some(address) = self.0.take() {
            into.push(Frame::returned(address));
        }
        self.0.release();
    }
}

/// Packets that came in.
#[derive(Debug)]
pub(super) struct Receive(Consumer<Packet>);

impl Receive {
    pub(super) fn open(socket: &Descriptor, count: u32) -> Result<Self, Errno> {
        Consumer::open(socket, Kind::Receive, count).map(Self)
    }

    /// The next packet: its frame, where in it, and how long it is.
    #[inline]
    pub(super) fn take(&mut self) -> Option<(Frame, usize, usize)> {
        let packet = self.0.take()?;
        let frame = Frame::returned(packet.address);
        let offset = (packet.address - frame.address()) as usize;
        Some((frame, offset, packet.len as usize))
    }

    /// Makes room for as many as were taken.
    #[inline]
    pub(super) fn release(&mut self) {
        self.0.release();
    }
}

/// Packets to send.
#[derive(Debug)]
pub(super) struct Transmit {
    ring: Producer<Packet>,
    /// Up to where the kernel was shown.
    shown: u32,
}

impl Transmit {
    pub(super) fn open(socket: &Descriptor, count: u32) -> Result<Self, Errno> {
        Ok(Self { ring: Producer::open(socket, Kind::Transmit, count)?, shown: 0 })
    }

    /// Whether `count` more fit.
    #[inline]
    pub(super) fn has_room(&mut self, count: usize) -> bool {
        self.ring.has_room(count)
    }

    /// Puts the first `len` bytes of a frame. The caller asked for room.
    #[inline]
    pub(super) fn put(&mut self, frame: Frame, len: usize) {
        self.ring.put(Packet { address: frame.address(), len: len as u32, options: 0 });
    }

    /// Shows the kernel what was put; returns up to where it was shown before.
    #[inline]
    pub(super) fn publish(&mut self) -> u32 {
        let before = self.shown;
        self.shown = self.ring.next;
        self.ring.publish();
        before
    }

    /// Takes back what was put since the ring was shown up to `before`. The kernel must not have
    /// looked at the ring since; and if it has not taken, as far as it tells, all that was shown
    /// until then, nothing is taken back.
    #[cold]
    pub(super) fn withdraw(&mut self, before: u32, into: &mut Vec<Frame>) {
        if self.ring.next.wrapping_sub(self.ring.waiting()) != before {
            return;
        }
        while self.ring.next != before {
            self.ring.next = self.ring.next.wrapping_sub(1);
            let at = self.ring.ring.entry(self.ring.next);
            // SAFETY: the place lies in the mapping, aligned as `open` checked; we wrote it, and
            // the kernel, which only reads, is not looking.
            let packet = unsafe { at.read() };
            into.push(Frame::returned(packet.address));
        }
        self.publish();
    }

    #[inline]
    pub(super) fn needs_wakeup(&self) -> bool {
        self.ring.needs_wakeup()
    }

    /// How many the kernel has not taken yet.
    pub(super) fn waiting(&mut self) -> u32 {
        self.ring.waiting()
    }
}
