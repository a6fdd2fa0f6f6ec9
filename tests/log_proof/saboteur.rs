//! A disk that does not do what it was asked for: the mistakes that a writer of logs could make.

use std::io;
use std::path::Path;

use gapless::log::{Disk, DiskFile, FaultyDisk, FaultyFile};
use gapless::shm::FileMap;

/// What is done wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Files are not synced.
    NoSync,
    /// Directories are not.
    NoDirectorySync,
    /// What is torn is not cut off.
    NoCut,
    /// Some writes are left out.
    DropWrite,
    /// A bit of some writes is another.
    FlipBit,
    /// Some writes go to the place behind.
    Misplace,
    /// Files that are to be removed stay.
    NoRemove,
}

impl Mistake {
    pub(crate) const ALL: [Self; 7] = [
        Self::NoSync,
        Self::NoDirectorySync,
        Self::NoCut,
        Self::DropWrite,
        Self::FlipBit,
        Self::Misplace,
        Self::NoRemove,
    ];
}

/// A disk, and what is done wrongly on it.
#[derive(Clone, Debug)]
pub(crate) struct Saboteur {
    pub(crate) disk: FaultyDisk,
    pub(crate) mistake: Option<Mistake>,
}

#[derive(Debug)]
pub(crate) struct SabotagedFile {
    file: FaultyFile,
    disk: FaultyDisk,
    mistake: Option<Mistake>,
}

impl Saboteur {
    fn file(&self, file: FaultyFile) -> SabotagedFile {
        SabotagedFile { file, disk: self.disk.clone(), mistake: self.mistake }
    }
}

impl Disk for Saboteur {
    type File = SabotagedFile;

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.create_directory(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.disk.list(directory)
    }

    fn create(&self, path: &Path) -> io::Result<SabotagedFile> {
        self.disk.create(path).map(|file| self.file(file))
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<SabotagedFile> {
        self.disk.open(path, writable).map(|file| self.file(file))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let log = path.extension().is_some_and(|extension| extension == "log");
        if log && self.mistake == Some(Mistake::NoRemove) {
            return Ok(());
        }
        self.disk.remove(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        match self.mistake {
            Some(Mistake::NoDirectorySync) => Ok(()),
            _ => self.disk.sync_directory(path),
        }
    }

    fn boot_id(&self) -> [u8; 16] {
        self.disk.boot_id()
    }
}

impl DiskFile for SabotagedFile {
    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let now = self.disk.calls().is_multiple_of(16) && bytes.len() > 64;
        match self.mistake {
            Some(Mistake::DropWrite) if now => Ok(bytes.len()),
            Some(Mistake::Misplace) if now => self.file.write_at(bytes, offset + 8),
            Some(Mistake::FlipBit) if now => {
                let mut bytes = bytes.to_vec();
                bytes[63] ^= 16;
                self.file.write_at(&bytes, offset)
            }
            _ => self.file.write_at(bytes, offset),
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        match self.mistake {
            Some(Mistake::NoCut) => Ok(()),
            _ => self.file.set_length(bytes),
        }
    }

    fn sync(&self) -> io::Result<()> {
        match self.mistake {
            Some(Mistake::NoSync) => Ok(()),
            _ => self.file.sync(),
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        self.file.try_lock()
    }

    fn map(&self) -> Option<FileMap> {
        None
    }
}
