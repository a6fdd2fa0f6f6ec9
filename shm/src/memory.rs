//! What the ring algorithm needs of the memory it lives in: a file mapping in production, a heap
//! block in one process, Miri and the model checker.
//!
//! The algorithm computes only offsets that its checked [`Geometry`](crate::layout::Geometry)
//! allows; a memory may rely on that and checks it again in debug builds.

use crate::sync::AtomicU64;

/// Memory that a ring lives in. Sealed: implemented by [`Mapped`](crate::Mapped) and
/// [`Heap`](crate::Heap).
pub trait Memory: Access {}

/// The sealed half of [`Memory`].
pub trait Access: Send + 'static {
    /// Whether a producer may write payloads in place, by ordinary stores, while readers that
    /// validate copy the same bytes by atomic loads. True where those readers have mappings of
    /// their own: no compiler can then see both sides, and what the reader got is judged
    /// afterwards. False where they share this very memory: such a race would be undefined, so
    /// claims are written elsewhere and copied in.
    const IN_PLACE: bool;

    /// The word at an 8-byte aligned offset.
    fn word(&self, offset: usize) -> &AtomicU64;

    /// The bytes at `offset..offset + len`.
    ///
    /// # Safety
    /// Nobody writes these bytes while the slice lives. The ring's protocol gives that to a
    /// consumer for committed records at or above its published cursor.
    unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8];

    /// The bytes at `offset..offset + len`, for writing.
    ///
    /// # Safety
    /// The caller is the ring's one producer, the range lies between its head and its frontier, no
    /// other slice of the range lives, and [`IN_PLACE`](Self::IN_PLACE) holds.
    #[expect(clippy::mut_from_ref, reason = "shared memory: exclusivity is the caller's duty")]
    unsafe fn bytes_mut(&self, offset: usize, len: usize) -> &mut [u8];

    /// Copies `from` to `offset`, which is 8-byte aligned.
    ///
    /// # Safety
    /// As for [`bytes_mut`](Self::bytes_mut), but readers that validate afterwards may be copying
    /// the range meanwhile.
    unsafe fn copy_in(&self, offset: usize, from: &[u8]);

    /// Copies from `offset`, which is 8-byte aligned, while the producer may be writing there: the
    /// caller must throw the bytes away unless it validates them afterwards.
    fn copy_out(&self, offset: usize, to: &mut [u8]) {
        let mut chunks = to.chunks_exact_mut(8);
        let mut at = offset;
        for chunk in &mut chunks {
            // Relaxed: the caller's acquire fence and frontier check decide whether it counts.
            let word = self.word(at).load(crate::sync::Ordering::Relaxed);
            chunk.copy_from_slice(&word.to_le_bytes());
            at += 8;
        }
        let rest = chunks.into_remainder();
        if !rest.is_empty() {
            let word = self.word(at).load(crate::sync::Ordering::Relaxed);
            rest.copy_from_slice(&word.to_le_bytes()[..rest.len()]);
        }
    }

    /// Whether this process set the handle up. A forked child holds copies of its parent's handles;
    /// dropping those must change nothing that the parent still uses.
    fn is_own(&self) -> bool {
        true
    }

    /// Whether somebody holds the lease of the given byte of the file.
    fn lease_held(&self, byte: usize) -> bool;

    /// Sleeps until the low half of the word at `offset` is no longer `seen`, somebody wakes it,
    /// or `timeout` has passed.
    fn park(&self, offset: usize, seen: u32, timeout: core::time::Duration);

    /// Wakes all that sleep on the word at `offset`.
    fn wake(&self, offset: usize);
}
