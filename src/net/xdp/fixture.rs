//! For tests: a socket to steer to, and whether the kernel lets us.

use std::os::fd::{AsFd, BorrowedFd, RawFd};

use super::bpf::{Map, MapKind};
use super::namespace::in_a_fresh_namespace;
use crate::net::sys::{Descriptor, Errno};

/// Runs a test in a fresh network namespace, if this kernel lets us use BPF; otherwise says why not
/// and leaves the test out.
pub(super) fn alone(test: impl FnOnce() + Send + 'static) {
    match Map::create(MapKind::Sockets, 4, 4, 1, "trial") {
        Ok(_) => in_a_fresh_namespace(test),
        Err(Errno(errno)) => {
            let error = std::io::Error::from_raw_os_error(errno);
            eprintln!("skipped: no map of sockets can be made here: {error}");
        }
    }
}

/// An AF_XDP socket on a queue, with rings that nobody looks at.
pub(super) struct Socket {
    descriptor: Descriptor,
    /// What it receives into; released after the socket.
    _memory: Vec<u8>,
}

impl Socket {
    pub(super) fn open(interface: u32, queue: u32) -> Self {
        const PAGE: usize = 4096;
        const PAGES: usize = 16;
        let memory = vec![0; (PAGES + 1) * PAGE];
        let start = memory.as_ptr().expose_provenance().next_multiple_of(PAGE);
        let descriptor = Descriptor::xdp().unwrap();
        // `struct xdp_umem_reg`: start, length, bytes of a frame, headroom, flags, metadata.
        let mut registration = [0; 32];
        registration[..8].copy_from_slice(&(start as u64).to_ne_bytes());
        registration[8..16].copy_from_slice(&((PAGES * PAGE) as u64).to_ne_bytes());
        registration[16..20].copy_from_slice(&(PAGE as u32).to_ne_bytes());
        descriptor.set(libc::SOL_XDP, libc::XDP_UMEM_REG, &registration).unwrap();
        for ring in [libc::XDP_UMEM_FILL_RING, libc::XDP_UMEM_COMPLETION_RING, libc::XDP_RX_RING] {
            descriptor.set_int(libc::SOL_XDP, ring, 16).unwrap();
        }
        // `struct sockaddr_xdp`: family, flags, interface, queue, shared descriptor.
        let mut address = [0; 16];
        address[..2].copy_from_slice(&(libc::AF_XDP as u16).to_ne_bytes());
        address[2..4].copy_from_slice(&libc::XDP_COPY.to_ne_bytes());
        address[4..8].copy_from_slice(&interface.to_ne_bytes());
        address[8..12].copy_from_slice(&queue.to_ne_bytes());
        descriptor.bind_to(&address).unwrap();
        Self { descriptor, _memory: memory }
    }

    pub(super) fn raw(&self) -> RawFd {
        self.descriptor.raw()
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.borrow()
    }
}
