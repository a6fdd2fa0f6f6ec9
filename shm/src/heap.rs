//! A ring in ordinary memory: for threads of one process, for Miri and for the model tests.
//!
//! The same algorithm as in a file, without names, leases and kernel waits. Payloads are copied in
//! word by word with relaxed atomics, since a validating reader may be copying the same words; for
//! that reason a claim is written aside (in a buffer of its own) and copied in when committed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::memory::{Access, Memory};

/// A ring's memory on the heap, shared by reference count.
#[derive(Clone)]
pub struct Heap {
    words: Arc<[AtomicU64]>,
}

impl Heap {
    pub(crate) fn zeroed(bytes: usize) -> Self {
        Self { words: (0..bytes.div_ceil(8)).map(|_| AtomicU64::new(0)).collect() }
    }

    /// Address of `len` bytes at `offset`; panics outside the block.
    fn pointer(&self, offset: usize, len: usize) -> *mut u8 {
        // It covers the whole slice, so the pointer may walk all of it. No reference to the slice
        // is made on the way: Miri would borrow each of its words anew.
        let block = Arc::as_ptr(&self.words);
        assert!(offset + len <= block.len() * 8);
        block.cast::<u8>().cast_mut().wrapping_add(offset)
    }
}

impl Memory for Heap {}

impl Access for Heap {
    const IN_PLACE: bool = false;

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        let word = self.pointer(offset, 8).cast::<AtomicU64>();
        // SAFETY: in bounds (checked above), aligned (the block is, and so is the offset), alive as
        // long as `self`.
        unsafe { &*word }
    }

    unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
        let start = self.pointer(offset, len);
        // SAFETY: in bounds (checked above), initialised at creation, alive as long as `self`; the
        // caller vouches that nobody writes.
        unsafe { std::slice::from_raw_parts(start, len) }
    }

    unsafe fn bytes_mut(&self, offset: usize, len: usize) -> &mut [u8] {
        let start = self.pointer(offset, len);
        // SAFETY: in bounds (checked above), initialised, inside atomics (so writable through a
        // shared owner), alive as long as `self`; the caller vouches for exclusivity.
        unsafe { std::slice::from_raw_parts_mut(start, len) }
    }

    unsafe fn copy_in(&self, offset: usize, from: &[u8]) {
        for (i, chunk) in from.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            // Relaxed: published by the commit word, or thrown away by the reader's validation.
            self.word(offset + i * 8).store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    fn lease_held(&self, _byte: usize) -> bool {
        true // inside one process a handle frees its slot when it is dropped
    }

    fn park(&self, offset: usize, seen: u32, timeout: Duration) {
        let started = std::time::Instant::now();
        while self.word(offset).load(Ordering::Acquire) as u32 == seen
            && started.elapsed() < timeout
        {
            std::thread::yield_now();
        }
    }

    fn wake(&self, _offset: usize) {}
}
