//! bpf(2), each command behind a safe function. No policy lives here.
//!
//! Every call passes one structure that lives through it, and in it pointers only to memory that
//! the call's own arguments or locals keep alive, with lengths taken from that memory. The
//! structures have no padding and end where the command's fields did in Linux 5.9: a longer kernel
//! takes the rest as zero. Programs, maps and links are known by descriptors here, which the kernel
//! closes on exec, and by ids to everybody else.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::net::sys::Errno;

const MAP_CREATE: u32 = 0;
const MAP_LOOKUP_ELEM: u32 = 1;
const MAP_UPDATE_ELEM: u32 = 2;
const MAP_DELETE_ELEM: u32 = 3;
const MAP_GET_NEXT_KEY: u32 = 4;
const PROG_LOAD: u32 = 5;
const PROG_GET_FD_BY_ID: u32 = 13;
const MAP_GET_FD_BY_ID: u32 = 14;
const OBJ_GET_INFO_BY_FD: u32 = 15;
const LINK_CREATE: u32 = 28;
const LINK_GET_FD_BY_ID: u32 = 30;
const LINK_GET_NEXT_ID: u32 = 31;

const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
/// `BPF_F_NO_PREALLOC`: elements take memory when they come.
const NO_PREALLOC: u32 = 1;
/// Names are cut to this and a zero.
const NAME_BYTES: usize = 16;
/// More maps than any program of ours has.
const MAPS_MAX: usize = 8;
/// Room for what the verifier says; it keeps the end if there is more.
const LOG_BYTES: usize = 1 << 16;
/// A signal may interrupt the verifier; so often it may.
const LOAD_ATTEMPTS: usize = 5;

/// A link's kind as [`link_info`] tells it: an XDP program on an interface.
pub(super) const LINK_XDP: u32 = 6;
/// For [`Map::update`]: the key must be new (EEXIST).
pub(super) const NEW: u64 = 1;
/// For [`Map::update`]: new or not.
pub(super) const ANY: u64 = 0;
/// For [`link_create_xdp`]: the program runs on socket buffers, with any driver.
pub(super) const GENERIC: u32 = 1 << 1;
/// For [`link_create_xdp`]: the program runs in the driver.
pub(super) const DRIVER: u32 = 1 << 2;

/// What a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum MapKind {
    /// Any key, any value.
    Hash = 1,
    /// AF_XDP sockets by number: key and value are `u32`, the value a socket's descriptor.
    Sockets = 17,
}

/// A map with the sizes that its keys and values have.
#[derive(Debug)]
pub(super) struct Map {
    fd: OwnedFd,
    kind: u32,
    key_bytes: usize,
    value_bytes: usize,
    entries: u32,
}

/// What the kernel says of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProgramInfo {
    pub(super) id: u32,
    pub(super) name: String,
    /// A digest of the instructions, whatever maps they use.
    pub(super) tag: [u8; 8],
    /// Ids of its maps, at most eight.
    pub(super) maps: Vec<u32>,
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub(super) id: u32,
    /// [`LINK_XDP`], or another kind, which has no `interface`.
    pub(super) kind: u32,
    /// The program's id.
    pub(super) program: u32,
    /// The interface's index in its network namespace; 0 once it is gone.
    pub(super) interface: u32,
}

/// A program was not loaded.
#[derive(Clone, Debug)]
pub(super) struct Rejected {
    pub(super) errno: Errno,
    /// What the verifier said; empty if it was not asked.
    pub(super) log: String,
}

/// Executes `command`.
///
/// # Safety
/// `attr` is the command's structure; every pointer in it is to memory as long as the kernel will
/// read or write, which lives and is not used otherwise meanwhile.
unsafe fn bpf<A>(command: u32, attr: &mut A) -> Result<RawFd, Errno> {
    let (attr, bytes) = (std::ptr::from_mut(attr), size_of::<A>());
    // SAFETY: the kernel reads and writes `bytes` of `attr`, and what the caller answers for.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr, bytes) };
    RawFd::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(Errno::last)
}

/// Executes a command that makes a descriptor.
///
/// # Safety
/// As [`bpf`], and `command` returns a new descriptor.
unsafe fn bpf_fd<A>(command: u32, attr: &mut A) -> Result<OwnedFd, Errno> {
    // SAFETY: the caller's.
    let fd = unsafe { bpf(command, attr) }?;
    // SAFETY: the kernel has just given this descriptor to us; nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A name as the kernel wants it: letters, digits, `_` and `.`, a zero at the end.
fn name(text: &str) -> [u8; NAME_BYTES] {
    let mut bytes = [0; NAME_BYTES];
    let len = text.len().min(NAME_BYTES - 1);
    bytes[..len].copy_from_slice(&text.as_bytes()[..len]);
    bytes
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn address<T>(of: &[T]) -> u64 {
    of.as_ptr().expose_provenance() as u64
}

fn address_mut<T>(of: &mut [T]) -> u64 {
    of.as_mut_ptr().expose_provenance() as u64
}

#[repr(C)]
struct Create {
    kind: u32,
    key_bytes: u32,
    value_bytes: u32,
    entries: u32,
    flags: u32,
    inner: u32,
    node: u32,
    name: [u8; NAME_BYTES],
}

#[repr(C)]
struct Element {
    map: RawFd,
    zero: u32,
    key: u64,
    /// Or the next key.
    value: u64,
    flags: u64,
}

impl Map {
    /// Makes a map for `entries` keys.
    pub(super) fn create(
        kind: MapKind,
        key_bytes: u32,
        value_bytes: u32,
        entries: u32,
        called: &str,
    ) -> Result<Self, Errno> {
        let flags = if kind == MapKind::Hash { NO_PREALLOC } else { 0 };
        let (kind, name) = (kind as u32, name(called));
        let mut attr =
            Create { kind, key_bytes, value_bytes, entries, flags, inner: 0, node: 0, name };
        // SAFETY: the structure has no pointers.
        let fd = unsafe { bpf_fd(MAP_CREATE, &mut attr) }?;
        let (key_bytes, value_bytes) = (key_bytes as usize, value_bytes as usize);
        Ok(Self { fd, kind, key_bytes, value_bytes, entries })
    }

    /// The map with that id: ENOENT if there is none, EPERM without CAP_SYS_ADMIN.
    pub(super) fn by_id(id: u32) -> Result<Self, Errno> {
        let fd = by_id(MAP_GET_FD_BY_ID, id)?;
        let [kind, _, key_bytes, value_bytes, entries, _] = information(fd.as_fd())?;
        let (key_bytes, value_bytes) = (key_bytes as usize, value_bytes as usize);
        Ok(Self { fd, kind, key_bytes, value_bytes, entries })
    }

    /// Whether it is of that kind, with such keys and values and so many entries.
    pub(super) fn is(&self, kind: MapKind, key: usize, value: usize, entries: u32) -> bool {
        (self.kind, self.key_bytes, self.value_bytes, self.entries)
            == (kind as u32, key, value, entries)
    }

    /// For a program's instructions.
    pub(super) fn raw(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    /// # Panics
    /// If `key` or `value` is not as long as this map's.
    fn element(&self, key: &[u8], value: u64, flags: u64) -> Element {
        assert_eq!(key.len(), self.key_bytes, "the map has other keys");
        Element { map: self.raw(), zero: 0, key: address(key), value, flags }
    }

    /// Sets the value of `key`; `flags` is [`NEW`] or [`ANY`]. E2BIG: the map is full.
    ///
    /// # Panics
    /// If `key` or `value` is not as long as this map's.
    pub(super) fn update(&self, key: &[u8], value: &[u8], flags: u64) -> Result<(), Errno> {
        assert_eq!(value.len(), self.value_bytes, "the map has other values");
        let mut attr = self.element(key, address(value), flags);
        // SAFETY: the kernel reads a key and a value of the map's sizes, which these have.
        unsafe { bpf(MAP_UPDATE_ELEM, &mut attr) }.map(drop)
    }

    /// Reads the value of `key`; `false` if there is none.
    ///
    /// # Panics
    /// If `key` or `value` is not as long as this map's.
    pub(super) fn look_up(&self, key: &[u8], value: &mut [u8]) -> Result<bool, Errno> {
        assert_eq!(value.len(), self.value_bytes, "the map has other values");
        let mut attr = self.element(key, address_mut(value), 0);
        // SAFETY: the kernel reads a key and writes a value of the map's sizes, which these have.
        none_is_false(unsafe { bpf(MAP_LOOKUP_ELEM, &mut attr) })
    }

    /// Removes `key`; `false` if it was not there.
    ///
    /// # Panics
    /// If `key` is not as long as this map's.
    pub(super) fn delete(&self, key: &[u8]) -> Result<bool, Errno> {
        let mut attr = self.element(key, 0, 0);
        // SAFETY: the kernel reads a key of the map's size, which this has.
        none_is_false(unsafe { bpf(MAP_DELETE_ELEM, &mut attr) })
    }

    /// All keys, in no order. Those that come or go meanwhile may be there or not, or twice.
    pub(super) fn keys(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        // A key that was removed meanwhile has no next: the kernel begins again.
        let enough = 2 * self.entries as usize;
        while keys.len() < enough {
            let mut next = vec![0; self.key_bytes];
            let value = address_mut(&mut next);
            let mut attr = match keys.last() {
                Some(key) => self.element(key, value, 0),
                None => Element { map: self.raw(), zero: 0, key: 0, value, flags: 0 },
            };
            // SAFETY: the kernel reads a key of the map's size, or none, and writes one.
            if !none_is_false(unsafe { bpf(MAP_GET_NEXT_KEY, &mut attr) })? {
                break;
            }
            keys.push(next);
        }
        Ok(keys)
    }
}

/// Whether what was asked for is there.
fn none_is_false(result: Result<RawFd, Errno>) -> Result<bool, Errno> {
    match result {
        Ok(_) => Ok(true),
        Err(Errno(libc::ENOENT)) => Ok(false),
        Err(errno) => Err(errno),
    }
}

#[repr(C)]
struct Load {
    kind: u32,
    instructions: u32,
    code: u64,
    license: u64,
    log_level: u32,
    log_bytes: u32,
    log: u64,
    kernel: u32,
    flags: u32,
    name: [u8; NAME_BYTES],
    interface: u32,
    attach_type: u32,
}

/// Loads an XDP program. The verifier is asked for its reasons if it rejects it.
pub(super) fn prog_load(code: &[u64], called: &str) -> Result<OwnedFd, Rejected> {
    let errno = match load(code, called, &mut []) {
        Ok(program) => return Ok(program),
        Err(errno) if errno.0 == libc::EPERM => return Err(Rejected { errno, log: String::new() }),
        Err(errno) => errno,
    };
    let mut log = vec![0; LOG_BYTES];
    load(code, called, &mut log).map_err(|_| Rejected { errno, log: text(&log) })
}

fn load(code: &[u64], called: &str, log: &mut [u8]) -> Result<OwnedFd, Errno> {
    const LICENSE: &[u8] = b"MIT\0";
    for attempt in 1.. {
        let mut attr = Load {
            kind: PROG_TYPE_XDP,
            instructions: code.len() as u32,
            code: address(code),
            license: address(LICENSE),
            log_level: u32::from(!log.is_empty()),
            log_bytes: log.len() as u32,
            log: if log.is_empty() { 0 } else { address_mut(log) },
            kernel: 0,
            flags: 0,
            name: name(called),
            interface: 0,
            attach_type: ATTACH_TYPE_XDP,
        };
        // SAFETY: the kernel reads the code and the license up to its zero, and writes at most
        // `log_bytes` to `log`.
        match unsafe { bpf_fd(PROG_LOAD, &mut attr) } {
            Err(Errno(libc::EAGAIN)) if attempt < LOAD_ATTEMPTS => {}
            result => return result,
        }
    }
    Err(Errno(libc::EAGAIN))
}

#[repr(C)]
struct CreateLink {
    program: RawFd,
    interface: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches an XDP program to an interface of the thread's network namespace until the last
/// descriptor of the link is closed; `mode` is [`GENERIC`] or [`DRIVER`].
pub(super) fn link_create_xdp(
    program: BorrowedFd<'_>,
    interface: u32,
    mode: u32,
) -> Result<OwnedFd, Errno> {
    let program = program.as_raw_fd();
    let mut attr = CreateLink { program, interface, attach_type: ATTACH_TYPE_XDP, flags: mode };
    // SAFETY: the structure has no pointers.
    unsafe { bpf_fd(LINK_CREATE, &mut attr) }
}

#[repr(C)]
struct Id {
    id: u32,
    next: u32,
    flags: u32,
}

fn by_id(command: u32, id: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: the structure has no pointers.
    unsafe { bpf_fd(command, &mut Id { id, next: 0, flags: 0 }) }
}

/// The program with that id: ENOENT if there is none, EPERM without CAP_SYS_ADMIN.
pub(super) fn prog_by_id(id: u32) -> Result<OwnedFd, Errno> {
    by_id(PROG_GET_FD_BY_ID, id)
}

/// The link with that id: ENOENT if there is none, EPERM without CAP_SYS_ADMIN.
pub(super) fn link_by_id(id: u32) -> Result<OwnedFd, Errno> {
    by_id(LINK_GET_FD_BY_ID, id)
}

/// The least id of a link that is greater than `id`. EPERM without CAP_SYS_ADMIN.
pub(super) fn next_link_id(id: u32) -> Result<Option<u32>, Errno> {
    let mut attr = Id { id, next: 0, flags: 0 };
    // SAFETY: the structure has no pointers.
    let found = none_is_false(unsafe { bpf(LINK_GET_NEXT_ID, &mut attr) })?;
    Ok(found.then_some(attr.next))
}

#[repr(C)]
struct Inform {
    object: RawFd,
    bytes: u32,
    info: u64,
}

/// The beginning of what the kernel tells of an object.
fn information<const WORDS: usize>(object: BorrowedFd<'_>) -> Result<[u32; WORDS], Errno> {
    let mut words = [0; WORDS];
    let bytes = size_of_val(&words) as u32;
    let mut attr = Inform { object: object.as_raw_fd(), bytes, info: address_mut(&mut words) };
    // SAFETY: the kernel reads and writes at most `bytes` of `words`, and nothing through pointers
    // in there, which are null and have lengths of zero.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    Ok(words)
}

/// The beginning of `bpf_prog_info`, up to the name.
#[repr(C)]
#[derive(Default)]
struct ProgramWords {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    lengths: [u32; 2],
    code: [u64; 2],
    loaded: u64,
    user: u32,
    maps: u32,
    map_ids: u64,
    name: [u8; NAME_BYTES],
}

/// What the kernel says of a program.
pub(super) fn prog_info(program: BorrowedFd<'_>) -> Result<ProgramInfo, Errno> {
    let mut ids = [0_u32; MAPS_MAX];
    let mut info = ProgramWords {
        maps: MAPS_MAX as u32,
        map_ids: address_mut(&mut ids),
        ..ProgramWords::default()
    };
    let bytes = size_of::<ProgramWords>() as u32;
    let at = std::ptr::from_mut(&mut info).expose_provenance() as u64;
    let mut attr = Inform { object: program.as_raw_fd(), bytes, info: at };
    // SAFETY: the kernel reads and writes `bytes` of `info`, and at most `maps` numbers to `ids`;
    // the lengths of what else it could write are zero.
    unsafe { bpf(OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let maps = ids[..MAPS_MAX.min(info.maps as usize)].to_vec();
    Ok(ProgramInfo { id: info.id, name: text(&info.name), tag: info.tag, maps })
}

/// What the kernel says of a link.
pub(super) fn link_info(link: BorrowedFd<'_>) -> Result<LinkInfo, Errno> {
    let [kind, id, program, _, interface, _, _, _] = information(link)?;
    Ok(LinkInfo { id, kind, program, interface })
}

/// Runs a program once on `frame` and returns its verdict; `queue` is an interface and which of its
/// queues the frame is said to have come in by, otherwise the first one of `lo`. The kernel takes
/// 14 to about 3,500 bytes.
#[cfg(test)]
pub(super) fn prog_test_run(
    program: BorrowedFd<'_>,
    frame: &[u8],
    queue: Option<(u32, u32)>,
) -> Result<u32, Errno> {
    #[repr(C)]
    struct Test {
        program: RawFd,
        verdict: u32,
        bytes: [u32; 2],
        data: [u64; 2],
        repeat: u32,
        nanoseconds: u32,
        context_bytes: [u32; 2],
        context: [u64; 2],
    }
    let (interface, number) = queue.unwrap_or_default();
    // `xdp_md`: data, its end, metadata, interface, queue, interface to send by.
    let context = [0, frame.len() as u32, 0, interface, number, 0];
    let mut attr = Test {
        program: program.as_raw_fd(),
        verdict: 0,
        bytes: [frame.len() as u32, 0],
        data: [address(frame), 0],
        repeat: 1,
        nanoseconds: 0,
        context_bytes: [if queue.is_some() { size_of_val(&context) as u32 } else { 0 }, 0],
        context: [if queue.is_some() { address(&context) } else { 0 }, 0],
    };
    const PROG_TEST_RUN: u32 = 10;
    // SAFETY: the kernel reads as many bytes of `frame` and of `context` as they have, and is
    // given no place to write to.
    unsafe { bpf(PROG_TEST_RUN, &mut attr) }?;
    Ok(attr.verdict)
}

/// Takes the effective capabilities that are not in `mask` from this thread, until it asks for them
/// again.
#[cfg(test)]
pub(super) fn keep_capabilities(mask: u64) -> Result<(), Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0]; // of this thread
    // Twice effective, permitted, inheritable: bits 0 to 31, and the rest.
    let mut sets = [0_u32; 6];
    // SAFETY: the kernel reads `header` and writes six words to `sets`.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    if got < 0 {
        return Err(Errno::last());
    }
    sets[0] = sets[1] & mask as u32;
    sets[3] = sets[4] & (mask >> 32) as u32;
    // SAFETY: the kernel reads `header` and six words of `sets`.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    if set < 0 { Err(Errno::last()) } else { Ok(()) }
}
