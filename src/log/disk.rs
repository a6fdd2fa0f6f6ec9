//! The file layer: what a log asks of a disk, and nothing more.
//!
//! Everything that a log does to its files goes through [`Disk`], so that a test can tear, drop and
//! reorder what was not synced, refuse any call, and cut the power at any instant.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use gapless_shm::FileMap;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// A place for files.
pub trait Disk: Clone + Send + 'static {
    /// A file of it, open.
    type File: DiskFile;

    /// Makes a directory and those above it; one that is there already is none the worse.
    ///
    /// # Errors
    /// Those of the system.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Names of what is in a directory, in any order.
    ///
    /// # Errors
    /// Those of the system; [`NotFound`](io::ErrorKind::NotFound) if there is no such directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Makes an empty file in the place of whatever was there, open for reading and writing.
    ///
    /// # Errors
    /// Those of the system.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Opens a file that exists.
    ///
    /// # Errors
    /// Those of the system.
    fn open(&self, path: &Path, writable: bool) -> io::Result<Self::File>;

    /// Gives a file another name, in the place of whatever had it.
    ///
    /// # Errors
    /// Those of the system.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Takes a file's name away. Whoever has it open can go on reading.
    ///
    /// # Errors
    /// Those of the system.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory last.
    ///
    /// # Errors
    /// Those of the system.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// What changes whenever the host starts anew, and with it everything is lost that was not
    /// synced.
    fn boot_id(&self) -> [u8; 16];
}

/// An open file. All calls may come from several threads.
pub trait DiskFile: Debug + Send + Sync + 'static {
    /// Length, bytes.
    ///
    /// # Errors
    /// Those of the system.
    fn length(&self) -> io::Result<u64>;

    /// Reads some bytes at `offset`; 0 at the end of the file.
    ///
    /// # Errors
    /// Those of the system.
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some of `bytes` at `offset`, and says how many.
    ///
    /// # Errors
    /// Those of the system, [`StorageFull`](io::ErrorKind::StorageFull) among them.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes the file at least `bytes` long, with room on the disk for all of it where the file
    /// system can promise that.
    ///
    /// # Errors
    /// [`StorageFull`](io::ErrorKind::StorageFull), and others of the system.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// Cuts the file to `bytes`, or lengthens it with zeroes.
    ///
    /// # Errors
    /// Those of the system.
    fn set_length(&self, bytes: u64) -> io::Result<()>;

    /// Makes what was written, and the length, last.
    ///
    /// # Errors
    /// Those of the system. What was written since the last success may then be lost, whatever a
    /// later call says.
    fn sync(&self) -> io::Result<()>;

    /// Takes the file's lock, for as long as it is open. False if somebody else has it.
    ///
    /// # Errors
    /// Those of the system.
    fn try_lock(&self) -> io::Result<bool>;

    /// Maps the file, which is finished; `None` if that cannot be had.
    fn map(&self) -> Option<FileMap>;

    /// Reads until `bytes` are full or the file ends, and says how many there were.
    ///
    /// # Errors
    /// As for [`read_at`](Self::read_at).
    fn read_full_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut have = 0;
        while have < bytes.len() {
            match self.read_at(&mut bytes[have..], offset + have as u64) {
                Ok(0) => break,
                Ok(read) => have += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(have)
    }

    /// Writes all of `bytes`.
    ///
    /// # Errors
    /// As for [`write_at`](Self::write_at); some may have been written.
    fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = bytes.get(written..).unwrap_or_default();
                    offset += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The file system of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileSystem {
    file_mode: Option<u32>,
}

impl FileSystem {
    /// Files are made with `file_mode` (less the umask) instead of 0600.
    #[must_use]
    pub fn file_mode(mut self, file_mode: u32) -> Self {
        self.file_mode = Some(file_mode);
        self
    }
}

impl Disk for FileSystem {
    type File = File;

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        let mode = self.file_mode.unwrap_or(0o600);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(mode).open(path)
    }

    fn open(&self, path: &Path, writable: bool) -> io::Result<File> {
        OpenOptions::new().read(true).write(writable).open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn boot_id(&self) -> [u8; 16] {
        let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
        u128::from_str_radix(&digits, 16).unwrap_or(0).to_le_bytes()
    }
}

impl DiskFile for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    #[inline]
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, offset)
    }

    #[inline]
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let too_long = |_| io::Error::from(io::ErrorKind::FileTooLarge);
        let length = bytes.try_into().map_err(too_long)?;
        match fallocate(self, FallocateFlags::empty(), 0, length) {
            // A file system that cannot promise room (or a network's): it is found out later.
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) if self.length()? < bytes => self.set_len(bytes),
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            other => Ok(other?),
        }
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn try_lock(&self) -> io::Result<bool> {
        match File::try_lock(self) {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn map(&self) -> Option<FileMap> {
        FileMap::new(self).ok()
    }
}
