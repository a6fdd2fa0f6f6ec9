//! A file that is finished, mapped for reading.

use std::fs::File;
use std::io;
use std::ops::Deref;

use memmap2::{Advice, Mmap};

/// The bytes of a file that nobody writes any more.
///
/// Reading through a mapping copies nothing, which is worth twice the rate of `read`. Its price:
/// whoever may write the file could change bytes under the slice, or shorten it, which kills the
/// reader that touches what is gone (`SIGBUS`), as does a disk that cannot deliver a page. Map what
/// is finished by its protocol; read what is not.
///
/// ```
/// use gapless_shm::FileMap;
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("finished");
/// std::fs::write(&path, b"for ever")?;
/// let map = FileMap::new(&std::fs::File::open(&path)?)?;
/// assert_eq!(&map[..], b"for ever");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct FileMap {
    map: Mmap,
}

impl FileMap {
    /// Maps the whole of `file`, as long as it is now.
    ///
    /// # Errors
    /// Those of `mmap`: no memory, or a file that cannot be mapped.
    pub fn new(file: &File) -> io::Result<Self> {
        // SAFETY: a slice of the mapping needs bytes that do not change while it is borrowed. The
        // caller says by the type's contract that the file is finished: its protocol has no writer
        // left. Another process that breaks it could do the same to any mapping; file modes say
        // who that may be.
        let map = unsafe { Mmap::map(file) }?;
        // Only a hint: what it does not do, page faults do.
        let _ = map.advise(Advice::Sequential);
        Ok(Self { map })
    }
}

impl Deref for FileMap {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}
