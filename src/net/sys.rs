//! System calls on datagram sockets, each behind a safe function. No policy lives here.
//!
//! Every call passes pointers only to memory that the call's own arguments or locals keep alive,
//! with lengths taken from that memory.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Duration;

use super::address::RawAddress;

/// The most messages of one batch call.
pub(super) const BATCH: usize = 16;
/// Room for one received message: more than any datagram, or any coalesced one.
pub(super) const MESSAGE_BYTES: usize = 1 << 16;

/// What the kernel answered instead of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(pub(super) i32);

impl Errno {
    #[cold]
    pub(super) fn last() -> Self {
        Self::of(&io::Error::last_os_error())
    }

    /// The number in an error of `std`'s.
    pub(super) fn of(error: &io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// Nothing to receive, or no room to send.
    #[inline]
    pub(super) fn would_block(self) -> bool {
        self.0 == libc::EAGAIN || self.0 == libc::EWOULDBLOCK
    }

    /// The network answered that nobody is there, now or at an earlier send.
    pub(super) fn is_unreachable(self) -> bool {
        matches!(
            self.0,
            libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::ENOPROTOOPT
                | libc::EPROTO
                | libc::ENONET
        )
    }

    /// The datagram is lost, as a network may lose it; the socket is sound.
    pub(super) fn is_loss(self) -> bool {
        self.is_unreachable()
            || matches!(
                self.0,
                libc::EPERM | libc::ENETDOWN | libc::ENOBUFS | libc::ENOMEM | libc::ENODEV
            )
    }

    /// The kernel or the device cannot segment for us, or the path is too narrow for the segments.
    pub(super) fn refuses_segmentation(self) -> bool {
        matches!(
            self.0,
            libc::EIO | libc::EINVAL | libc::ENOPROTOOPT | libc::EOPNOTSUPP | libc::EMSGSIZE
        )
    }
}

/// What to send in one message of a batch.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) bytes: &'a [u8],
    /// The kernel is to cut it into pieces of so many bytes; 0 = it is one datagram.
    pub(super) segment_bytes: u16,
}

/// What one message of a batch was.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) source: RawAddress,
    pub(super) len: usize,
    /// It holds datagrams of so many bytes end to end; 0 = it is one datagram.
    pub(super) segment_bytes: usize,
}

impl Arrival {
    pub(super) const NONE: Self = Self { source: RawAddress::room(), len: 0, segment_bytes: 0 };
}

/// Bytes of a `cmsghdr`: a length of the machine's word, a level, a type.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();

/// Room for control messages, aligned as they must be.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control([u8; 64]);

impl Control {
    pub(super) const fn new() -> Self {
        Self([0; 64])
    }

    /// Asks for segments of `bytes`; returns the length to pass.
    #[inline]
    pub(super) fn segment(&mut self, bytes: u16) -> usize {
        const WORD: usize = size_of::<usize>();
        let len = CONTROL_HEADER + 2;
        self.0[..WORD].copy_from_slice(&len.to_ne_bytes());
        self.0[WORD..WORD + 4].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
        self.0[WORD + 4..WORD + 8].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
        self.0[CONTROL_HEADER..len].copy_from_slice(&bytes.to_ne_bytes());
        len.next_multiple_of(WORD)
    }

    /// The size of segments that the kernel put together, in its first `len` bytes; 0 if it did
    /// not.
    #[inline]
    pub(super) fn segment_of(&self, len: usize) -> usize {
        segment_in(&self.0[..len.min(self.0.len())])
    }

    pub(super) fn pointer_mut(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }
}

/// Finds the segment size in control messages; 0 if there is none.
#[inline]
pub(super) fn segment_in(mut control: &[u8]) -> usize {
    const WORD: usize = size_of::<usize>();
    let int = |bytes: &[u8]| bytes.try_into().map_or(0, i32::from_ne_bytes);
    while control.len() >= CONTROL_HEADER {
        let len = control[..WORD].try_into().map_or(0, usize::from_ne_bytes);
        if len < CONTROL_HEADER || len > control.len() {
            return 0;
        }
        let (level, kind) = (int(&control[WORD..WORD + 4]), int(&control[WORD + 4..WORD + 8]));
        if level == libc::SOL_UDP && kind == libc::UDP_GRO && len >= CONTROL_HEADER + 4 {
            let segment = int(&control[CONTROL_HEADER..CONTROL_HEADER + 4]);
            return usize::try_from(segment).unwrap_or(0);
        }
        control = &control[len.next_multiple_of(WORD).min(control.len())..];
    }
    0
}

/// The result of a call that returns -1 on failure.
#[inline]
fn checked(result: libc::c_int) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::last())
}

/// The same for calls that return a length.
#[inline]
fn checked_len(result: libc::ssize_t) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::last())
}

/// A non-blocking socket.
#[derive(Debug)]
pub(super) struct Descriptor(OwnedFd);

impl Descriptor {
    /// A UDP socket.
    pub(super) fn udp(family: libc::c_int) -> Result<Self, Errno> {
        Self::new(family, libc::SOCK_DGRAM)
    }

    /// An AF_XDP socket.
    pub(super) fn xdp() -> Result<Self, Errno> {
        Self::new(libc::AF_XDP, libc::SOCK_RAW)
    }

    fn new(family: libc::c_int, kind: libc::c_int) -> Result<Self, Errno> {
        let kind = kind | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no pointers are passed.
        let fd = checked(unsafe { libc::socket(family, kind, 0) })?;
        // SAFETY: the kernel has just given this descriptor to us; nobody else knows its number.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
    }

    #[inline]
    pub(super) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    pub(super) fn borrow(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub(super) fn set(&self, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let len = value.len() as libc::socklen_t;
        // SAFETY: the kernel reads at most `len` bytes, all within `value`.
        checked(unsafe { libc::setsockopt(self.raw(), level, name, value.as_ptr().cast(), len) })
            .map(drop)
    }

    pub(super) fn set_int(&self, level: i32, name: i32, value: i32) -> Result<(), Errno> {
        self.set(level, name, &value.to_ne_bytes())
    }

    /// Reads an option into `value`; returns how many bytes it has.
    pub(super) fn get(&self, level: i32, name: i32, value: &mut [u8]) -> Result<usize, Errno> {
        let mut len = value.len() as libc::socklen_t;
        let at = value.as_mut_ptr().cast();
        // SAFETY: the kernel writes at most `len` bytes, all within `value`, and the length to
        // `len`.
        checked(unsafe { libc::getsockopt(self.raw(), level, name, at, &raw mut len) })?;
        Ok(len as usize)
    }

    pub(super) fn get_int(&self, level: i32, name: i32) -> Result<i32, Errno> {
        let mut value = [0; 4];
        self.get(level, name, &mut value)?;
        Ok(i32::from_ne_bytes(value))
    }

    pub(super) fn bind(&self, address: &RawAddress) -> Result<(), Errno> {
        self.bind_to(address.bytes())
    }

    /// Binds to an address of any family, given as the kernel lays it out.
    pub(super) fn bind_to(&self, address: &[u8]) -> Result<(), Errno> {
        let (at, len) = (address.as_ptr().cast(), address.len() as libc::socklen_t);
        // SAFETY: the kernel reads `len` bytes of `address`.
        checked(unsafe { libc::bind(self.raw(), at, len) }).map(drop)
    }

    /// Has the kernel send what lies in the transmit ring of an AF_XDP socket.
    #[inline]
    pub(super) fn kick(&self) -> Result<(), Errno> {
        let (none, nowhere) = (ptr::null(), ptr::null());
        // SAFETY: the lengths are 0: the kernel reads through neither pointer.
        checked_len(unsafe { libc::sendto(self.raw(), none, 0, libc::MSG_DONTWAIT, nowhere, 0) })
            .map(drop)
    }

    /// Has the kernel poll the device of an AF_XDP socket, or go on filling its receive ring.
    pub(super) fn prod(&self) -> Result<(), Errno> {
        // SAFETY: the length is 0: the kernel writes nothing.
        checked_len(unsafe { libc::recv(self.raw(), ptr::null_mut(), 0, libc::MSG_DONTWAIT) })
            .map(drop)
    }

    /// Another descriptor of the same socket.
    pub(super) fn duplicate(&self) -> Result<Self, Errno> {
        self.0.try_clone().map(Self).map_err(|error| Errno::of(&error))
    }

    pub(super) fn connect(&self, address: &RawAddress) -> Result<(), Errno> {
        let at = address.pointer().cast();
        // SAFETY: as `bind`.
        checked(unsafe { libc::connect(self.raw(), at, address.len()) }).map(drop)
    }

    pub(super) fn local_address(&self) -> Result<RawAddress, Errno> {
        let mut address = RawAddress::room();
        let mut len = address.len();
        let at = address.pointer_mut().cast();
        // SAFETY: the kernel writes at most `len` bytes, the whole room of `address`.
        checked(unsafe { libc::getsockname(self.raw(), at, &raw mut len) })?;
        *address.len_mut() = len.min(address.len());
        Ok(address)
    }

    #[inline]
    pub(super) fn receive(&self, into: &mut [u8]) -> Result<usize, Errno> {
        // SAFETY: the kernel writes at most `into.len()` bytes to `into`.
        checked_len(unsafe { libc::recv(self.raw(), into.as_mut_ptr().cast(), into.len(), 0) })
    }

    #[inline]
    pub(super) fn receive_from(
        &self,
        into: &mut [u8],
        source: &mut RawAddress,
    ) -> Result<usize, Errno> {
        let mut len = RawAddress::CAPACITY as libc::socklen_t;
        let (at, from) = (into.as_mut_ptr().cast(), source.pointer_mut().cast());
        // SAFETY: the kernel writes at most `into.len()` bytes to `into` and at most `len` to
        // `source`, which has room for them.
        checked_len(unsafe { libc::recvfrom(self.raw(), at, into.len(), 0, from, &raw mut len) })
    }

    /// Sends one datagram; `None` is where the socket is connected.
    #[inline]
    pub(super) fn send(&self, to: Option<&RawAddress>, bytes: &[u8]) -> Result<(), Errno> {
        let (fd, at, len) = (self.raw(), bytes.as_ptr().cast(), bytes.len());
        let sent = match to {
            // SAFETY: the kernel reads `len` bytes of `bytes`.
            None => unsafe { libc::send(fd, at, len, 0) },
            // SAFETY: the kernel reads `len` bytes of `bytes` and `to.len()` of `to`.
            Some(to) => unsafe { libc::sendto(fd, at, len, 0, to.pointer().cast(), to.len()) },
        };
        checked_len(sent).map(drop)
    }

    /// Sends up to [`BATCH`] messages; returns how many the kernel took.
    pub(super) fn send_batch(
        &self,
        to: Option<&RawAddress>,
        parts: &[Part<'_>],
    ) -> Result<usize, Errno> {
        let count = parts.len().min(BATCH);
        let mut controls = [Control::new(); BATCH];
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
        // SAFETY: all-zero bytes are a valid `mmsghdr`: null pointers and zero lengths.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        for (i, part) in parts[..count].iter().enumerate() {
            vectors[i].iov_base = part.bytes.as_ptr().cast_mut().cast();
            vectors[i].iov_len = part.bytes.len();
            let header = &mut headers[i].msg_hdr;
            header.msg_iov = &raw mut vectors[i];
            header.msg_iovlen = 1;
            if let Some(to) = to {
                header.msg_name = to.pointer().cast_mut().cast();
                header.msg_namelen = to.len();
            }
            if part.segment_bytes > 0 {
                header.msg_controllen = controls[i].segment(part.segment_bytes) as _;
                header.msg_control = controls[i].pointer_mut().cast();
            }
        }
        if count == 1 {
            // SAFETY: the header points to one part's bytes, `to` and a local control, all alive;
            // the kernel only reads them.
            return checked_len(unsafe {
                libc::sendmsg(self.raw(), &raw const headers[0].msg_hdr, 0)
            })
            .map(|_| 1);
        }
        // SAFETY: as above for each of the first `count` headers; the kernel writes only `msg_len`.
        checked(unsafe { libc::sendmmsg(self.raw(), headers.as_mut_ptr(), count as u32, 0) })
    }

    /// Receives up to [`BATCH`] messages, message `i` into the `i`th [`MESSAGE_BYTES`] of `slab`,
    /// as many as `slab` and `arrivals` have room for; returns how many there were.
    pub(super) fn receive_batch(
        &self,
        slab: &mut [u8],
        arrivals: &mut [Arrival],
    ) -> Result<usize, Errno> {
        let count = arrivals.len().min(slab.len() / MESSAGE_BYTES).min(BATCH);
        let mut controls = [Control::new(); BATCH];
        let mut vectors = [libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 }; BATCH];
        // SAFETY: all-zero bytes are a valid `mmsghdr`: null pointers and zero lengths.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { mem::zeroed() };
        let chunks = slab.chunks_exact_mut(MESSAGE_BYTES);
        for (i, (chunk, arrival)) in chunks.zip(arrivals.iter_mut()).take(count).enumerate() {
            vectors[i].iov_base = chunk.as_mut_ptr().cast();
            vectors[i].iov_len = MESSAGE_BYTES;
            let header = &mut headers[i].msg_hdr;
            header.msg_iov = &raw mut vectors[i];
            header.msg_iovlen = 1;
            header.msg_name = arrival.source.pointer_mut().cast();
            header.msg_namelen = RawAddress::CAPACITY as u32;
            header.msg_control = controls[i].pointer_mut().cast();
            header.msg_controllen = size_of::<Control>() as _;
        }
        let at = headers.as_mut_ptr();
        // SAFETY: each of the first `count` headers points to a chunk of `slab` of its own, to an
        // arrival's address and to a local control, with their lengths; all outlive the call.
        let got =
            checked(unsafe { libc::recvmmsg(self.raw(), at, count as u32, 0, ptr::null_mut()) })?;
        for (i, arrival) in arrivals[..got].iter_mut().enumerate() {
            arrival.len = headers[i].msg_len as usize;
            arrival.segment_bytes = controls[i].segment_of(headers[i].msg_hdr.msg_controllen as _);
        }
        Ok(got)
    }
}

/// What to wait for on a descriptor.
pub(super) fn interest(fd: RawFd, events: libc::c_short) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

/// Sleeps until a descriptor is ready or the time has passed; returns how many are.
pub(super) fn poll(descriptors: &mut [libc::pollfd], timeout: Duration) -> Result<usize, Errno> {
    let limit = libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    };
    let (at, count) = (descriptors.as_mut_ptr(), descriptors.len() as libc::nfds_t);
    // SAFETY: the kernel reads and writes `count` entries of `descriptors` and reads `limit`.
    checked(unsafe { libc::ppoll(at, count, &raw const limit, ptr::null()) })
}

/// The same, with the kernel's refusal as an error.
pub(super) fn wait(
    descriptors: &mut [libc::pollfd],
    timeout: Duration,
) -> Result<(), super::NetError> {
    match poll(descriptors, timeout) {
        Ok(_) | Err(Errno(libc::EINTR)) => Ok(()),
        Err(Errno(errno)) => Err(super::NetError::refused("wait for datagrams", errno)),
    }
}
