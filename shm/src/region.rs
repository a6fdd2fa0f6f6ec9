//! The file mapping a ring lives in: read and write for the producer; for consumers read-only but
//! for the consumer table; read-only throughout for observers and inspectors.
//!
//! Whoever can write the file can also truncate it, and a truncated mapping kills its reader
//! (`SIGBUS`): that is what file modes are for. Everything else that a peer can do to the bytes is
//! checked where they are read.

use std::fs::File;
use std::io;
use std::path::Path;
use std::ptr::NonNull;
use std::time::Duration;

use memmap2::{Advice, MmapOptions, MmapRaw};
use nix::sys::mman::{ProtFlags, mprotect};

use crate::error::RingError;
use crate::layout::Geometry;
use crate::lease;
use crate::memory::{Access, Memory};
use crate::sync::AtomicU64;

/// Whether a mapping is locked in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LockMemory {
    /// Never.
    Never,
    /// If the memlock limit allows it; [`Residency`] says whether it did.
    #[default]
    IfPermitted,
    /// Or else an error.
    Required,
}

/// Which pages a ring is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HugePages {
    /// Those of the directory's file system (on hugetlbfs that means huge ones).
    #[default]
    Default,
    /// Advises the kernel to use transparent huge pages.
    Transparent,
    /// Huge pages or an error: the directory must be a hugetlbfs mount.
    Required,
}

/// What the system granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// All pages were present before the first message.
    pub prefaulted: bool,
    /// All pages are locked in memory.
    pub locked: bool,
    /// The file is on hugetlbfs, or transparent huge pages were accepted (the kernel need not
    /// grant them at once).
    pub huge_pages: bool,
}

/// How to map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapOptions {
    pub(crate) prefault: bool,
    pub(crate) lock: LockMemory,
    pub(crate) huge: HugePages,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    Producer,
    Consumer,
    Reader,
}

/// A ring's file, mapped.
pub struct Mapped {
    base: NonNull<u8>,
    map: MmapRaw,
    file: File,
    residency: Residency,
    /// The process that mapped it.
    pid: u32,
}

// SAFETY: `base` points into `map`, which the value owns and which is not bound to a thread.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Maps `file`, whose length has been checked to be the geometry's.
    pub(crate) fn new(
        file: File,
        path: &Path,
        geometry: &Geometry,
        protection: Protection,
        options: MapOptions,
    ) -> Result<Self, RingError> {
        let mut mapped = Self::map(file, path, geometry.file_bytes, protection)?;
        if protection == Protection::Consumer {
            let table = mapped.base.as_ptr().wrapping_add(geometry.table).cast();
            let table = NonNull::new(table).expect("inside the mapping");
            let writable = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
            // SAFETY: the range is page aligned (the regions are laid out by granule), lies within
            // our mapping, and gets more rights, not fewer; no Rust reference into it exists yet.
            unsafe { mprotect(table, geometry.data - geometry.table, writable) }.map_err(
                |errno| RingError::System {
                    what: "make the consumer table writable in",
                    path: path.to_path_buf(),
                    source: errno.into(),
                },
            )?;
        }
        mapped.make_resident(path, protection, options)?;
        Ok(mapped)
    }

    /// Maps `len` bytes of `file`, which has at least as many, all of them writable or none.
    pub(crate) fn whole(
        file: File,
        path: &Path,
        len: usize,
        writable: bool,
    ) -> Result<Self, RingError> {
        let protection = if writable { Protection::Producer } else { Protection::Reader };
        let mut mapped = Self::map(file, path, len, protection)?;
        let lock = if writable { LockMemory::IfPermitted } else { LockMemory::Never };
        let options = MapOptions { prefault: writable, lock, huge: HugePages::Default };
        mapped.make_resident(path, protection, options)?;
        Ok(mapped)
    }

    fn map(file: File, path: &Path, len: usize, protection: Protection) -> Result<Self, RingError> {
        let mut how = MmapOptions::new();
        how.len(len);
        let map = match protection {
            Protection::Producer => how.map_raw(&file),
            Protection::Consumer | Protection::Reader => how.map_raw_read_only(&file),
        }
        .map_err(|source| RingError::System {
            what: "map",
            path: path.to_path_buf(),
            source,
        })?;
        let base = NonNull::new(map.as_mut_ptr()).expect("a mapping is never at address 0");
        Ok(Self { base, map, file, residency: Residency::default(), pid: std::process::id() })
    }

    fn make_resident(
        &mut self,
        path: &Path,
        protection: Protection,
        options: MapOptions,
    ) -> Result<(), RingError> {
        let bytes = self.map.len() as u64;
        if options.huge == HugePages::Transparent {
            self.residency.huge_pages = self.map.advise(Advice::HugePage).is_ok();
        }
        if options.prefault {
            let advice = match protection {
                Protection::Producer => Advice::PopulateWrite,
                Protection::Consumer | Protection::Reader => Advice::PopulateRead,
            };
            self.residency.prefaulted = match self.map.advise(advice) {
                Ok(()) => true,
                // Kernels before 5.14 do not know the advice: pages come at first touch.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EFAULT | libc::ENOMEM)) => {
                    return Err(RingError::NoSpace { path: path.to_path_buf(), bytes });
                }
                Err(source) => {
                    let path = path.to_path_buf();
                    return Err(RingError::System { what: "prefault", path, source });
                }
            };
        }
        match (options.lock, options.lock != LockMemory::Never && self.map.lock().is_ok()) {
            (_, true) => self.residency.locked = true,
            (LockMemory::Required, false) => {
                return Err(RingError::CannotLock { bytes, source: io::Error::last_os_error() });
            }
            _ => {}
        }
        Ok(())
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// What the system granted of prefaulting, locking and huge pages.
    pub fn residency(&self) -> Residency {
        self.residency
    }

    pub(crate) fn note_hugetlbfs(&mut self) {
        self.residency.huge_pages = true;
    }

    /// First byte of the mapping, and its length.
    pub fn as_ptr_len(&self) -> (*const u8, usize) {
        (self.base.as_ptr(), self.map.len())
    }

    #[inline(always)]
    fn pointer(&self, offset: usize, len: usize) -> *mut u8 {
        debug_assert!(offset + len <= self.map.len());
        // SAFETY: offsets come from the checked geometry, whose regions end within the mapping.
        unsafe { self.base.as_ptr().add(offset) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.is_own() {
            lease::release(&self.file);
        }
    }
}

impl Memory for Mapped {}

impl Access for Mapped {
    const IN_PLACE: bool = true;

    fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    #[inline(always)]
    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset.is_multiple_of(8));
        let pointer = self.pointer(offset, 8).cast::<AtomicU64>();
        // SAFETY: in bounds, 8-byte aligned (the mapping starts on a page), mapped as long as
        // `self` lives; every access to a word that others write is atomic.
        unsafe { &*pointer }
    }

    #[inline(always)]
    unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        let start = self.pointer(offset, len);
        // SAFETY: in bounds; bytes of a mapping are initialised; the caller vouches that nobody
        // writes them while the slice lives.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    #[inline(always)]
    unsafe fn bytes_mut(&self, offset: usize, len: usize) -> &mut [u8] {
        let start = self.pointer(offset, len);
        // SAFETY: in bounds of a producer's writable mapping; the caller vouches for exclusivity.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    #[inline(always)]
    unsafe fn copy_in(&self, offset: usize, from: &[u8]) {
        let to = self.pointer(offset, from.len());
        // SAFETY: in bounds of a producer's writable mapping, exclusive by the caller's word.
        // Readers that validate copy through other mappings, by atomics, and throw away what
        // overlaps with this.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
    }

    fn lease_held(&self, byte: usize) -> bool {
        lease::held_by_another(&self.file, byte)
    }

    fn park(&self, offset: usize, seen: u32, timeout: Duration) {
        let timeout = libc::timespec {
            tv_sec: timeout.as_secs().min(i64::MAX as u64) as libc::time_t,
            tv_nsec: libc::c_long::from(timeout.subsec_nanos() as i32),
        };
        let word = self.pointer(offset, 4);
        // SAFETY: `word` is a mapped, aligned 32-bit word and `timeout` a valid timespec for the
        // duration of the call; the kernel reads both and writes neither. Woken, timed out,
        // interrupted or changed already: the caller looks again in any case.
        unsafe {
            libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAIT, seen, &raw const timeout);
        }
    }

    fn wake(&self, offset: usize) {
        let word = self.pointer(offset, 4);
        // SAFETY: `word` is a mapped, aligned 32-bit word; waking writes nothing to it.
        unsafe {
            libc::syscall(libc::SYS_futex, word, libc::FUTEX_WAKE, i32::MAX);
        }
    }
}
