//! An AF_XDP socket by hand: frames in memory that the kernel shares, and four rings of them.
//!
//! Nothing of it is the library's, so that it can judge the library's. Rings are plain loads and
//! stores: whoever produces stores its own counter, whoever consumes its own, and neither looks at
//! the other's to find room, since no ring has fewer entries than are under way. One thread
//! uses all of it.

use std::ffi::CStr;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use libc::{c_int, socklen_t};
use memmap2::{MmapOptions, MmapRaw};

use super::steer::{Attached, Mode};

/// What a frame has room for, with what the kernel keeps in front of it.
const FRAME_BYTES: u32 = 2048;
/// The queue of the interface; these have one.
const QUEUE: u32 = 0;

/// A frame with something in it: an offset into the shared memory, and a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    at: u64,
    bytes: u32,
}

/// A ring of descriptors, of which this side is the producer or the consumer.
struct Ring<T> {
    producer: *const AtomicU32,
    consumer: *const AtomicU32,
    entries: *mut T,
    /// How many they are, less 1; a power of two.
    mask: u32,
    /// This side's own counter.
    next: u32,
    _map: MmapRaw,
}

impl<T: Copy> Ring<T> {
    fn map(
        socket: &OwnedFd,
        at: &libc::xdp_ring_offset,
        page: u64,
        entries: u32,
    ) -> io::Result<Self> {
        let bytes = at.desc as usize + entries as usize * size_of::<T>();
        let map = MmapOptions::new().offset(page).len(bytes).populate().map_raw(socket)?;
        let base = map.as_mut_ptr();
        // SAFETY: the kernel says where in the mapping the words and the entries are.
        let producer = unsafe { base.add(at.producer as usize) };
        // SAFETY: as above.
        let consumer = unsafe { base.add(at.consumer as usize) };
        // SAFETY: as above; the mapping has room for all entries from there.
        let first = unsafe { base.add(at.desc as usize) };
        Ok(Self {
            producer: producer.cast(),
            consumer: consumer.cast(),
            entries: first.cast(),
            mask: entries - 1,
            next: 0,
            _map: map,
        })
    }

    /// Where entry `next` is.
    #[inline(always)]
    fn entry(&self) -> *mut T {
        let index = self.next & self.mask;
        // SAFETY: below the number of entries, for which the mapping has room.
        unsafe { self.entries.add(index as usize) }
    }

    /// Adds an entry, for which there always is room.
    #[inline(always)]
    fn put(&mut self, entry: T) {
        // SAFETY: inside the mapping and aligned; the kernel is done with what was there, since
        // no more are under way than there are entries: no more frames exist, and all that is
        // sent is taken before more is. It reads the new one when the counter says so.
        unsafe { self.entry().write(entry) };
        self.next = self.next.wrapping_add(1);
        // SAFETY: a word of the mapping, aligned, which `self` keeps; accessed atomically only.
        let producer = unsafe { &*self.producer };
        producer.store(self.next, Ordering::Release); // pairs with: the kernel's load
    }

    /// Takes an entry, if there is one.
    #[inline(always)]
    fn take(&mut self) -> Option<T> {
        // SAFETY: as in `put`.
        let producer = unsafe { &*self.producer };
        // pairs with: the kernel's store
        if producer.load(Ordering::Acquire) == self.next {
            return None;
        }
        // SAFETY: inside the mapping and aligned; the kernel has written it (above) and does not
        // write it again before the counter below has passed it.
        let entry = unsafe { self.entry().read() };
        self.next = self.next.wrapping_add(1);
        // SAFETY: as in `put`.
        let consumer = unsafe { &*self.consumer };
        consumer.store(self.next, Ordering::Release); // pairs with: the kernel's load
        Some(entry)
    }
}

/// The socket, its frames, and the program that fills them.
pub(super) struct Xsk {
    received: Ring<libc::xdp_desc>,
    sending: Ring<libc::xdp_desc>,
    free: Ring<u64>,
    sent: Ring<u64>,
    socket: OwnedFd,
    memory: MmapRaw,
    _attached: Attached,
}

impl Xsk {
    /// Takes all IPv4 datagrams that come in on an interface of the thread's network namespace.
    /// There are so many frames, a power of two, and as many entries in each ring: frame 0 is the
    /// caller's, for what it sends, the kernel has the others.
    ///
    /// # Errors
    /// Without the right to (root has it), or without AF_XDP in kernel or driver.
    pub(super) fn open(interface: &CStr, mode: Mode, frames: u32) -> Result<Self> {
        assert!(frames.is_power_of_two(), "rings have powers of two");
        // SAFETY: `interface` ends with a zero byte.
        let index = unsafe { libc::if_nametoindex(interface.as_ptr()) };
        ensure!(index != 0, "no interface {interface:?}: {}", io::Error::last_os_error());
        let socket = socket().context("an AF_XDP socket")?;
        let bytes = (frames * FRAME_BYTES) as usize;
        let memory = MmapOptions::new().len(bytes).populate().map_anon().context("map frames")?;
        let memory = MmapRaw::from(memory);
        // SAFETY: a structure of integers, for all of which zero is a value.
        let mut region: libc::xdp_umem_reg = unsafe { zeroed() };
        region.addr = memory.as_mut_ptr() as u64;
        region.len = bytes as u64;
        region.chunk_size = FRAME_BYTES;
        set(&socket, libc::XDP_UMEM_REG, &region).context("register the frames")?;
        for ring in [
            libc::XDP_UMEM_FILL_RING,
            libc::XDP_UMEM_COMPLETION_RING,
            libc::XDP_RX_RING,
            libc::XDP_TX_RING,
        ] {
            set(&socket, ring, &frames).context("make a ring")?;
        }
        let at = offsets(&socket).context("ask where the rings are")?;
        let map = "map a ring";
        let [rx, tx] = [libc::XDP_PGOFF_RX_RING, libc::XDP_PGOFF_TX_RING].map(|at| at as u64);
        let [fr, cr] = [libc::XDP_UMEM_PGOFF_FILL_RING, libc::XDP_UMEM_PGOFF_COMPLETION_RING];
        let received = Ring::map(&socket, &at.rx, rx, frames).context(map)?;
        let sending = Ring::map(&socket, &at.tx, tx, frames).context(map)?;
        let free = Ring::map(&socket, &at.fr, fr, frames).context(map)?;
        let sent = Ring::map(&socket, &at.cr, cr, frames).context(map)?;
        bind(&socket, index).context("bind to the interface's queue")?;
        let attached = Attached::new(index, socket.as_fd(), QUEUE, mode)?;
        let mut xsk = Self { received, sending, free, sent, socket, memory, _attached: attached };
        for frame in 1..frames {
            xsk.free.put(u64::from(frame * FRAME_BYTES));
        }
        Ok(xsk)
    }

    /// Puts a frame's bytes into frame 0, which must not be under way.
    pub(super) fn prepare(&mut self, bytes: &[u8]) -> Frame {
        assert!(bytes.len() <= FRAME_BYTES as usize, "longer than a frame");
        let into = self.memory.as_mut_ptr();
        // SAFETY: frame 0 has that much room, is the caller's, and the kernel does not touch it
        // before it is sent; `bytes` is the caller's and not inside the mapping.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), into, bytes.len()) };
        Frame { at: 0, bytes: bytes.len() as u32 }
    }

    /// Sends a frame: one entry, one system call.
    #[inline(always)]
    pub(super) fn send(&mut self, frame: Frame) -> Result<()> {
        self.send_again(frame, 1).map(drop)
    }

    /// Sends a frame `times` times, at most as often as rings have entries, and returns how many
    /// system calls that took: one if the kernel takes so many at once.
    #[inline(always)]
    pub(super) fn send_again(&mut self, frame: Frame, times: u32) -> Result<u64> {
        for _ in 0..times {
            self.sending.put(libc::xdp_desc { addr: frame.at, len: frame.bytes, options: 0 });
        }
        let mut calls = 0;
        loop {
            calls += 1;
            let (fd, nothing) = (self.socket.as_raw_fd(), ptr::null());
            // SAFETY: no bytes and no address are handed over.
            let result =
                unsafe { libc::sendto(fd, nothing, 0, libc::MSG_DONTWAIT, nothing.cast(), 0) };
            if result >= 0 {
                return Ok(calls);
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error).context("have the frame sent");
            }
            self.reap(); // more than it takes at once, or no room for what it is done with
        }
    }

    /// Gives frames that have been sent back to the kernel, all but frame 0.
    #[inline(always)]
    pub(super) fn reap(&mut self) {
        while let Some(at) = self.sent.take() {
            if at >= FRAME_BYTES.into() {
                self.free.put(at);
            }
        }
    }

    /// A frame that has come in, if there is one: the caller's until it is sent or released.
    #[inline(always)]
    pub(super) fn receive(&mut self) -> Option<Frame> {
        let entry = self.received.take()?;
        Some(Frame { at: entry.addr, bytes: entry.len })
    }

    /// The bytes of a frame.
    #[inline(always)]
    pub(super) fn bytes(&self, frame: Frame) -> &[u8] {
        let (at, bytes) = (frame.at as usize, frame.bytes as usize);
        assert!(at + bytes <= self.memory.len(), "a frame outside of the shared memory");
        // SAFETY: inside the mapping (asserted).
        let from = unsafe { self.memory.as_mut_ptr().add(at) };
        // SAFETY: inside the mapping; the kernel does not write to a frame that it has handed over
        // before it gets it back, which takes `&mut self`.
        unsafe { std::slice::from_raw_parts(from, bytes) }
    }

    /// Gives a frame that has come in back to the kernel.
    #[inline(always)]
    pub(super) fn release(&mut self, frame: Frame) {
        self.free.put(frame.at);
    }
}

fn socket() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set<T>(socket: &OwnedFd, name: c_int, value: &T) -> io::Result<()> {
    let (bytes, value) = (size_of::<T>() as socklen_t, ptr::from_ref(value).cast());
    // SAFETY: `value` points to a value of that many bytes, which lives until the return.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_XDP, name, value, bytes) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn offsets(socket: &OwnedFd) -> io::Result<libc::xdp_mmap_offsets> {
    // SAFETY: a structure of integers, for all of which zero is a value.
    let mut at: libc::xdp_mmap_offsets = unsafe { zeroed() };
    let mut bytes = size_of_val(&at) as socklen_t;
    let (fd, into) = (socket.as_raw_fd(), (&raw mut at).cast());
    // SAFETY: `into` points to `bytes` bytes, which live until the return.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_XDP, libc::XDP_MMAP_OFFSETS, into, &raw mut bytes)
    };
    if result == 0 { Ok(at) } else { Err(io::Error::last_os_error()) }
}

/// In copy mode: there is no other where neither driver nor interface shares its memory.
fn bind(socket: &OwnedFd, index: u32) -> io::Result<()> {
    let address = libc::sockaddr_xdp {
        sxdp_family: libc::AF_XDP as u16,
        sxdp_flags: libc::XDP_COPY,
        sxdp_ifindex: index,
        sxdp_queue_id: QUEUE,
        sxdp_shared_umem_fd: 0,
    };
    let bytes = size_of_val(&address) as socklen_t;
    // SAFETY: `address` is an address of this family and of that many bytes.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), bytes) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
