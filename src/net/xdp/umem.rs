//! Memory that the kernel and we hand packets over in, cut into frames.
//!
//! A [`Frame`] is the right to look into one frame: there is one for each, made with the memory.
//! Giving it to a ring gives the frame to the kernel, and taking it from a ring gets it back, so
//! nobody reads what the other side writes. Frames of one memory must not be given to the rings of
//! another; [`queue`](super::queue) keeps each with its own.

use std::io;
use std::slice;

use memmap2::{Advice, MmapMut, MmapOptions, MmapRaw};

/// Bytes of a frame: a page, the most that the kernel allows with frames aligned to their size.
pub(super) const FRAME_BYTES: usize = 4_096;
/// What the kernel keeps free before a packet that it puts into a frame (`XDP_PACKET_HEADROOM`).
const HEADROOM_BYTES: usize = 256;
/// The longest packet that comes in by a frame, Ethernet header included, in bytes.
pub(super) const PACKET_BYTES_MAX: usize = FRAME_BYTES - HEADROOM_BYTES;

/// A frame that is ours, by where it begins in the memory.
#[derive(Debug)]
pub(super) struct Frame(u32);

impl Frame {
    /// The frame that the kernel gave back. Only rings call this, for what was given to them.
    #[inline]
    pub(super) fn returned(address: u64) -> Self {
        // Before the memory is that long the frame number is used up: see `Umem::new`.
        Self(address as u32 & !(FRAME_BYTES as u32 - 1))
    }

    /// Where it begins.
    #[inline]
    pub(super) fn address(&self) -> u64 {
        self.0.into()
    }
}

/// The memory.
#[derive(Debug)]
pub(super) struct Umem {
    map: MmapRaw,
    huge: bool,
}

impl Umem {
    /// Memory for `count` frames, and the frames. Asks for huge pages, reserved ones and then
    /// transparent ones, and does without.
    ///
    /// # Panics
    /// If the frames take 4 GiB or more.
    pub(super) fn new(count: usize) -> io::Result<(Self, Vec<Frame>)> {
        let bytes = count * FRAME_BYTES;
        assert!(u32::try_from(bytes).is_ok(), "frames are counted in 32 bits");
        let reserved = MmapOptions::new().len(bytes).huge(None).populate().map_anon();
        let (map, huge): (MmapMut, bool) = match reserved {
            Ok(map) => (map, true),
            Err(_) => {
                let map = MmapOptions::new().len(bytes).map_anon()?;
                // Where there are none the small ones do.
                let _ = map.advise(Advice::HugePage);
                (map, false)
            }
        };
        let frames = (0..count).map(|i| Frame((i * FRAME_BYTES) as u32)).collect();
        Ok((Self { map: map.into(), huge }, frames))
    }

    /// Where it is, for the kernel.
    pub(super) fn start(&self) -> u64 {
        self.map.as_ptr() as u64
    }

    /// How long it is.
    pub(super) fn len(&self) -> u64 {
        self.map.len() as u64
    }

    /// Whether it lies in huge pages that were reserved.
    pub(super) fn is_huge(&self) -> bool {
        self.huge
    }

    /// `len` bytes of a frame from `offset` on, less where it ends before.
    #[inline]
    pub(super) fn bytes<'a>(&'a self, frame: &'a Frame, offset: usize, len: usize) -> &'a [u8] {
        let offset = offset.min(FRAME_BYTES);
        let len = len.min(FRAME_BYTES - offset);
        // SAFETY: a frame lies within the memory whole (`new` made it so, `returned` passes on
        // what the kernel checked), the range within the frame. The frame is borrowed: neither the
        // kernel nor anybody else writes to it.
        unsafe { slice::from_raw_parts(self.at(frame).wrapping_add(offset), len) }
    }

    /// All bytes of a frame, to write.
    #[inline]
    pub(super) fn bytes_mut<'a>(&'a self, frame: &'a mut Frame) -> &'a mut [u8] {
        // SAFETY: as above, and the frame is borrowed mutably: nobody else reads it either.
        unsafe { slice::from_raw_parts_mut(self.at(frame), FRAME_BYTES) }
    }

    #[inline]
    fn at(&self, frame: &Frame) -> *mut u8 {
        assert!((frame.0 as usize) < self.map.len(), "a frame of another memory");
        self.map.as_mut_ptr().wrapping_add(frame.0 as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_apart_and_whole() {
        let (umem, mut frames) = Umem::new(16).unwrap();
        assert_eq!(umem.len(), 16 * FRAME_BYTES as u64);
        for (i, frame) in frames.iter_mut().enumerate() {
            umem.bytes_mut(frame).fill(i as u8);
        }
        for (i, frame) in frames.iter().enumerate() {
            assert!(umem.bytes(frame, 0, FRAME_BYTES).iter().all(|&byte| byte == i as u8));
            assert_eq!(umem.bytes(frame, FRAME_BYTES - 2, 100).len(), 2);
            assert_eq!(umem.bytes(frame, FRAME_BYTES + 2, 100).len(), 0);
            assert_eq!(frame.address(), (i * FRAME_BYTES) as u64);
        }
        assert_eq!(Frame::returned(3 * FRAME_BYTES as u64 + 256).address(), frames[3].address());
    }
}
