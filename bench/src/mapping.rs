//! A shared file mapping, reduced to what the floor and the control words need: atomic words, and
//! raw copies. `floor.rs` answers for the protocol. Other unsafe operations are in `clock.rs` and
//! in the floors that call the kernel by hand: `net/flood.rs`, `net/uring.rs`, `net/xsk.rs` and
//! `net/steer.rs`.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use memmap2::{MmapOptions, MmapRaw};

/// A file, mapped shared and writable, all its pages present.
pub(crate) struct Mapping {
    map: MmapRaw,
}

impl Mapping {
    /// Creates the file, zeroed.
    pub(crate) fn create(path: &Path, bytes: usize) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        file.set_len(bytes as u64)?;
        let map = MmapOptions::new().populate().map_raw(&file)?;
        Ok(Self { map })
    }

    /// Maps a file that [`create`](Self::create) made.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let map = MmapOptions::new().populate().map_raw(&file)?;
        Ok(Self { map })
    }

    fn check(&self, offset: usize, len: usize) {
        debug_assert!(offset + len <= self.map.len());
    }

    /// The word at an 8-byte aligned offset below the length of the mapping.
    #[inline(always)]
    pub(crate) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.map.len());
        // SAFETY: in bounds (asserted), so the result stays inside the mapping.
        let pointer = unsafe { self.map.as_mut_ptr().add(offset) };
        // SAFETY: the pointer is valid for as long as the mapping, which `self` owns; aligned,
        // since pages and offset are; all shared access to control words is atomic.
        unsafe { AtomicU64::from_ptr(pointer.cast()) }
    }

    /// As [`word`](Self::word), unchecked, for the floor's hot path.
    ///
    /// # Safety
    /// `offset` is a multiple of 8 and `offset + 8` at most the mapping's length.
    #[inline(always)]
    pub(crate) unsafe fn word_unchecked(&self, offset: usize) -> &AtomicU64 {
        self.check(offset, 8);
        // SAFETY: in bounds, by this function's contract.
        let pointer = unsafe { self.map.as_mut_ptr().add(offset) };
        // SAFETY: as in `word`.
        unsafe { AtomicU64::from_ptr(pointer.cast()) }
    }

    /// Copies `from` to `offset`.
    ///
    /// # Safety
    /// The range is inside the mapping, and nobody reads or writes it meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn copy_in<const N: usize>(&self, offset: usize, from: &[u8; N]) {
        self.check(offset, N);
        // SAFETY: in bounds, by this function's contract.
        let to = unsafe { self.map.as_mut_ptr().add(offset) };
        // SAFETY: both sides are valid for N bytes; a borrowed array is not inside the mapping.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, N) };
    }

    /// The bytes at `offset`.
    ///
    /// # Safety
    /// The range is inside the mapping, and nobody writes it while the result lives.
    #[inline(always)]
    pub(crate) unsafe fn bytes<const N: usize>(&self, offset: usize) -> &[u8; N] {
        self.check(offset, N);
        // SAFETY: in bounds, by this function's contract.
        let from = unsafe { self.map.as_ptr().add(offset) };
        // SAFETY: valid for N bytes as long as `self` lives; unwritten meanwhile, by this
        // function's contract; an array of bytes has no alignment.
        unsafe { &*from.cast::<[u8; N]>() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn two_mappings_of_a_file_show_the_same_words_and_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        let one = Mapping::create(&path, 4096).unwrap();
        let other = Mapping::open(&path).unwrap();
        one.word(64).store(7, Ordering::Release);
        assert_eq!(other.word(64).load(Ordering::Acquire), 7);
        // SAFETY: the range lies inside the 4,096 bytes, and this thread alone uses it.
        unsafe { one.copy_in(128, b"abc") };
        // SAFETY: as above.
        assert_eq!(unsafe { other.bytes::<3>(128) }, b"abc");
    }

    #[test]
    fn an_existing_file_is_not_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m");
        Mapping::create(&path, 4096).unwrap();
        assert!(Mapping::create(&path, 4096).is_err());
    }
}
