//! The smallest program that fills an AF_XDP socket, by `bpf(2)`: IPv4 datagrams go to the socket
//! of the queue that they came in on, everything else to the kernel.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};

/// Where the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// In the kernel's generic path, behind any driver.
    Generic,
    /// In the driver.
    Driver,
}

impl Mode {
    /// `XDP_FLAGS_SKB_MODE`, `XDP_FLAGS_DRV_MODE`.
    fn flags(self) -> u32 {
        match self {
            Self::Generic => 1 << 1,
            Self::Driver => 1 << 2,
        }
    }
}

/// Commands, and what they take: `union bpf_attr` of `linux/bpf.h`.
const MAP_CREATE: u32 = 0;
const MAP_UPDATE_ELEM: u32 = 2;
const PROG_LOAD: u32 = 5;
const LINK_CREATE: u32 = 28;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const REDIRECT_MAP: i32 = 51;
const XDP_PASS: i32 = 2;

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
}

#[repr(C)]
struct MapUpdate {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgLoad {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach: u32,
    flags: u32,
}

/// # Safety
/// `T` is what `command` takes, and every pointer in it is valid for what the kernel does with it.
unsafe fn bpf<T>(command: u32, attributes: &T) -> io::Result<RawFd> {
    let (from, bytes) = (std::ptr::from_ref(attributes), size_of::<T>());
    // SAFETY: `from` points to that many bytes; the rest is this function's contract.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, from, bytes) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as RawFd) }
}

/// As [`bpf`], of commands that return a descriptor.
///
/// # Safety
/// As [`bpf`].
unsafe fn bpf_fd<T>(command: u32, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: by this function's contract.
    let fd = unsafe { bpf(command, attributes)? };
    // SAFETY: the command returns a new descriptor, nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One instruction: operation, destination, source, offset, constant.
fn instruction(operation: u8, to: u8, from: u8, offset: i16, constant: i32) -> u64 {
    let registers = u64::from(to | from << 4);
    let offset = u64::from(offset.cast_unsigned());
    u64::from(operation) | registers << 8 | offset << 16 | u64::from(constant.cast_unsigned()) << 32
}

/// The program; `sockets` is the map that it looks the socket up in.
fn program(sockets: RawFd) -> [u64; 17] {
    let ipv4 = i32::from(0x0800_u16.to_be()); // as the word is read from memory
    [
        instruction(0x61, 2, 1, 0, 0),        // r2 = first byte of the frame
        instruction(0x61, 3, 1, 4, 0),        // r3 = behind its last
        instruction(0xbf, 4, 2, 0, 0),        // r4 = r2
        instruction(0x07, 4, 0, 0, 34),       // r4 += Ethernet's and IPv4's headers
        instruction(0x2d, 4, 3, 10, 0),       // if r4 > r3: pass
        instruction(0x69, 4, 2, 12, 0),       // r4 = EtherType
        instruction(0x55, 4, 0, 8, ipv4),     // if r4 != IPv4: pass
        instruction(0x71, 4, 2, 23, 0),       // r4 = protocol
        instruction(0x55, 4, 0, 6, 17),       // if r4 != UDP: pass
        instruction(0x61, 2, 1, 16, 0),       // r2 = queue
        instruction(0x18, 1, 1, 0, sockets),  // r1 = map, in two words
        0,                                    //
        instruction(0xb7, 3, 0, 0, XDP_PASS), // r3 = what to do without a socket
        instruction(0x85, 0, 0, 0, REDIRECT_MAP),
        instruction(0x95, 0, 0, 0, 0),
        instruction(0xb7, 0, 0, 0, XDP_PASS), // pass:
        instruction(0x95, 0, 0, 0, 0),
    ]
}

/// The program on an interface: it goes when this goes.
pub(super) struct Attached {
    _link: OwnedFd,
}

impl Attached {
    /// Sends the datagrams of a queue of an interface to `socket`.
    ///
    /// # Errors
    /// Without the right to (root has it), or if the interface has a program, or no such mode.
    pub(super) fn new(
        interface: u32,
        socket: BorrowedFd<'_>,
        queue: u32,
        mode: Mode,
    ) -> Result<Self> {
        let attributes =
            MapCreate { kind: MAP_TYPE_XSKMAP, key_bytes: 4, value_bytes: 4, entries: queue + 1 };
        // SAFETY: what the command takes; no pointers.
        let map = unsafe { bpf_fd(MAP_CREATE, &attributes) }.context("make a map of sockets")?;
        let value = socket.as_raw_fd().cast_unsigned();
        let attributes = MapUpdate {
            map: map.as_raw_fd().cast_unsigned(),
            padding: 0,
            key: (&raw const queue) as u64,
            value: (&raw const value) as u64,
            flags: 0,
        };
        // SAFETY: what the command takes; key and value have the map's four bytes, and live.
        unsafe { bpf(MAP_UPDATE_ELEM, &attributes) }.context("put the socket into its map")?;
        let code = program(map.as_raw_fd());
        let attributes = ProgLoad {
            kind: PROG_TYPE_XDP,
            instructions: code.len() as u32,
            code: code.as_ptr() as u64,
            license: c"Dual MIT/GPL".as_ptr() as u64,
        };
        // SAFETY: what the command takes; code and license are of the kinds and lengths given.
        let program = unsafe { bpf_fd(PROG_LOAD, &attributes) }.context("load the program")?;
        let attributes = LinkCreate {
            program: program.as_raw_fd().cast_unsigned(),
            interface,
            attach: ATTACH_XDP,
            flags: mode.flags(),
        };
        // SAFETY: what the command takes; no pointers.
        let link = unsafe { bpf_fd(LINK_CREATE, &attributes) };
        Ok(Self { _link: link.with_context(|| format!("attach the program ({mode:?})"))? })
    }
}
