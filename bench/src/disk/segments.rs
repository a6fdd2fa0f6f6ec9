//! Files of 256 MiB, allocated when they are begun, filled one after another.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

pub(super) const SEGMENT_BYTES: u64 = 256 << 20;

/// How bytes get into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// `pwrite` into the page cache.
    Call,
    /// `pwrite` past the page cache.
    Direct,
    /// Copied into a mapping.
    Mapping,
}

/// The files of one run. Chunks must divide [`SEGMENT_BYTES`].
pub(super) struct Segments {
    dir: PathBuf,
    by: By,
    begun: u32,
    file: Option<Arc<File>>,
    map: Option<MmapRaw>,
    at: u64,
}

impl Segments {
    pub(super) fn new(dir: &Path, by: By) -> Self {
        Self { dir: dir.to_path_buf(), by, begun: 0, file: None, map: None, at: SEGMENT_BYTES }
    }

    /// The file being filled, if any was begun.
    pub(super) fn file(&self) -> Option<&Arc<File>> {
        self.file.as_ref()
    }

    /// True if the next chunk begins a file.
    pub(super) fn is_full(&self) -> bool {
        self.at == SEGMENT_BYTES
    }

    /// Appends a chunk.
    ///
    /// # Errors
    /// If a file cannot be made, or the disk is full.
    pub(super) fn append(&mut self, chunk: &[u8]) -> Result<()> {
        if self.is_full() {
            self.begin()?;
        }
        match (&self.file, &self.map) {
            (_, Some(map)) => copy(map, self.at, chunk),
            (Some(file), None) => file.write_all_at(chunk, self.at).context("write")?,
            (None, None) => {}
        }
        self.at += chunk.len() as u64;
        Ok(())
    }

    #[cold]
    fn begin(&mut self) -> Result<()> {
        let path = self.dir.join(format!("{:08}.floor", self.begun));
        let flags = if self.by == By::Direct { libc::O_DIRECT } else { 0 };
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true).custom_flags(flags);
        let file = options.open(&path).with_context(|| format!("create {}", path.display()))?;
        match fallocate(&file, FallocateFlags::empty(), 0, SEGMENT_BYTES as i64) {
            Ok(()) => {}
            // Nothing to be had beforehand here.
            Err(Errno::EOPNOTSUPP) => file.set_len(SEGMENT_BYTES).context("set the length")?,
            Err(error) => return Err(error).context("allocate a file"),
        }
        let map = || MmapOptions::new().map_raw(&file).context("map a file");
        self.map = (self.by == By::Mapping).then(map).transpose()?;
        self.file = Some(Arc::new(file));
        self.begun += 1;
        self.at = 0;
        Ok(())
    }
}

fn copy(map: &MmapRaw, at: u64, chunk: &[u8]) {
    assert!(at as usize + chunk.len() <= map.len());
    // SAFETY: in bounds (asserted), so the result stays inside the mapping.
    let to = unsafe { map.as_mut_ptr().add(at as usize) };
    // SAFETY: the target lies inside a writable mapping of a file that this process has made in a
    // directory of its own and that nobody else touches; a chunk is never part of a mapping.
    unsafe { to.copy_from_nonoverlapping(chunk.as_ptr(), chunk.len()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: usize = 1 << 20;

    #[test]
    fn each_way_leaves_the_bytes_in_files_that_are_allocated() {
        let dir = tempfile::tempdir().unwrap();
        for by in [By::Call, By::Mapping] {
            let dir = dir.path().join(format!("{by:?}"));
            std::fs::create_dir(&dir).unwrap();
            let mut segments = Segments::new(&dir, by);
            for fill in 1..=3u8 {
                segments.append(&vec![fill; CHUNK]).unwrap();
            }
            let file = segments.file().unwrap();
            assert_eq!(file.metadata().unwrap().len(), SEGMENT_BYTES);
            let mut byte = [0];
            for (chunk, fill) in [(0, 1), (2, 3), (3, 0)] {
                file.read_exact_at(&mut byte, chunk * CHUNK as u64 + 17).unwrap();
                assert_eq!(byte[0], fill);
            }
        }
    }
}
