//! Where rings and counters pages live: names, paths, listing, making room, removing.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::{CountersError, RingError};
use crate::layout::{
    COUNTERS_PID, COUNTERS_STATE, NAME_MAX_BYTES, PRODUCER_PAGE, PRODUCER_PID, SMALL_PAGE_BYTES,
};
use crate::lease;

/// Where rings live unless told otherwise (or by the environment variable `GAPLESS_DIR`).
pub const DEFAULT_DIRECTORY: &str = "/dev/shm/gapless";
const RING_EXTENSION: &str = "ring";
const COUNTERS_EXTENSION: &str = "counters";

/// `GAPLESS_DIR` if it is set, [`DEFAULT_DIRECTORY`] otherwise.
pub fn default_directory() -> PathBuf {
    std::env::var_os("GAPLESS_DIR").map_or_else(|| DEFAULT_DIRECTORY.into(), PathBuf::from)
}

/// The file of stream `name` in `directory`.
///
/// # Errors
/// [`RingError::BadName`] for a name that is empty, longer than 128 bytes, starts with a dot, or
/// has anything but ASCII letters, digits, `.`, `_` and `-`: no name can leave the directory.
pub fn ring_path(directory: &Path, name: &str) -> Result<PathBuf, RingError> {
    path_of(directory, name, RING_EXTENSION)
}

/// The counters page `name` in `directory`.
///
/// # Errors
/// [`RingError::BadName`] in [`CountersError::File`], by the rules of [`ring_path`].
pub fn counters_path(directory: &Path, name: &str) -> Result<PathBuf, CountersError> {
    Ok(path_of(directory, name, COUNTERS_EXTENSION)?)
}

fn path_of(directory: &Path, name: &str, extension: &str) -> Result<PathBuf, RingError> {
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.len() > NAME_MAX_BYTES {
        "it is longer than 128 bytes"
    } else if name.starts_with('.') {
        "it starts with a dot"
    } else if !name.chars().all(usable) {
        "only letters, digits, '.', '_' and '-' may be in it"
    } else {
        return Ok(directory.join(format!("{name}.{extension}")));
    };
    Err(RingError::BadName { name: name.to_owned(), reason })
}

/// Names of all rings in `directory`, sorted; none if there is no such directory.
///
/// # Errors
/// [`RingError::System`] if the directory cannot be read.
pub fn list(directory: &Path) -> Result<Vec<String>, RingError> {
    names_with(directory, RING_EXTENSION)
}

/// Names of all counters pages in `directory`, sorted; none if there is no such directory.
///
/// # Errors
/// [`CountersError::File`] if the directory cannot be read.
pub fn list_counters(directory: &Path) -> Result<Vec<String>, CountersError> {
    Ok(names_with(directory, COUNTERS_EXTENSION)?)
}

fn names_with(directory: &Path, extension: &str) -> Result<Vec<String>, RingError> {
    let failed = |source| RingError::System { what: "read", path: directory.to_path_buf(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str());
        if let (Some(name), Some(true)) = (name, path.extension().map(|e| e == extension))
            && path_of(directory, name, extension).is_ok()
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// Removes a ring's file. Consumers that are attached keep their mapping and read on.
///
/// # Errors
/// [`RingError::ProducerAlive`] if the stream has a live producer and `force` is not set.
pub fn remove(directory: &Path, name: &str, force: bool) -> Result<(), RingError> {
    remove_file(ring_path(directory, name)?, PRODUCER_PAGE, PRODUCER_PID, force)
}

/// Removes a counters page. Whoever has it open reads on, values that no longer change.
///
/// # Errors
/// [`CountersError::WriterAlive`] if its writer lives and `force` is not set;
/// [`CountersError::NotFound`], [`CountersError::Denied`].
pub fn remove_counters(directory: &Path, name: &str, force: bool) -> Result<(), CountersError> {
    let path = counters_path(directory, name)?;
    Ok(remove_file(path, COUNTERS_STATE, COUNTERS_PID, force)?)
}

/// Removes a file whose writer holds the lease of a byte and has left its pid at an offset.
fn remove_file(
    path: PathBuf,
    lease_byte: usize,
    pid_offset: usize,
    force: bool,
) -> Result<(), RingError> {
    if force {
        return fs::remove_file(&path).map_err(|error| refused(error, &path, "remove"));
    }
    let file = open(&path, false)?;
    // Held until the name is gone: no writer can attach in between.
    let kept_out = lease::keep_out(&file, lease_byte);
    if !kept_out.map_err(|error| refused(error, &path, "lock"))? {
        return Err(RingError::ProducerAlive { pid: pid_at(&file, pid_offset), path });
    }
    if !is_current(&file, &path) {
        return Err(RingError::NotFound { path }); // removed, and perhaps made anew, meanwhile
    }
    fs::remove_file(&path).map_err(|error| refused(error, &path, "remove"))
}

/// The pid that the producer page names; 0 if it cannot be read.
pub(crate) fn producer_pid(file: &File) -> u32 {
    pid_at(file, PRODUCER_PID)
}

/// The pid at an offset; 0 if it cannot be read.
pub(crate) fn pid_at(file: &File, offset: usize) -> u32 {
    let mut pid = [0; 4];
    match file.read_exact_at(&mut pid, offset as u64) {
        Ok(()) => u32::from_le_bytes(pid),
        Err(_) => 0,
    }
}

/// Fills `bytes` from the start of the file as far as that goes, and returns how far.
pub(crate) fn read_start(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], read as u64)? {
            0 => break,
            n => read += n,
        }
    }
    Ok(read)
}

/// Page size of the directory's file system, bytes, and whether that is hugetlbfs.
pub(crate) fn granule(directory: &Path) -> Result<(u64, bool), RingError> {
    let status = nix::sys::statfs::statfs(directory).map_err(|errno| RingError::System {
        what: "look at",
        path: directory.to_path_buf(),
        source: errno.into(),
    })?;
    if status.filesystem_type() == nix::sys::statfs::HUGETLBFS_MAGIC {
        return Ok((status.block_size() as u64, true));
    }
    Ok((SMALL_PAGE_BYTES as u64, false))
}

/// Gives the file its length, and every page of it a place: a full file system shows here, not as a
/// signal in the middle of a message.
pub(crate) fn allocate(file: &File, path: &Path, bytes: u64) -> Result<(), RingError> {
    use nix::errno::Errno;
    use nix::fcntl::{FallocateFlags, fallocate};
    let no_space = || RingError::NoSpace { path: path.to_path_buf(), bytes };
    let failed = |source| RingError::System { what: "allocate", path: path.to_path_buf(), source };
    let length = libc::off_t::try_from(bytes).map_err(|_| no_space())?;
    let mut outcome = fallocate(file, FallocateFlags::empty(), 0, length);
    while outcome == Err(Errno::EINTR) {
        outcome = fallocate(file, FallocateFlags::empty(), 0, length); // a signal came: go on
    }
    match outcome {
        Ok(()) => Ok(()),
        Err(Errno::ENOSPC | Errno::EFBIG | Errno::EDQUOT | Errno::ENOMEM) => Err(no_space()),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => file.set_len(bytes).map_err(failed),
        Err(errno) => Err(failed(errno.into())),
    }
}
/// Opens a ring's file: never through a symbolic link, never anything but a regular file.
pub(crate) fn open(path: &Path, write: bool) -> Result<File, RingError> {
    let what = if write { "open it for reading and writing" } else { "read it" };
    let file = OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| refused(error, path, what))?;
    let metadata = file.metadata().map_err(|error| refused(error, path, what))?;
    if !metadata.is_file() {
        let source = io::Error::from(ErrorKind::InvalidInput);
        return Err(RingError::System { what: "not a regular file:", path: path.into(), source });
    }
    Ok(file)
}

/// The user that owns a file, if that is neither this process's nor root.
pub(crate) fn foreign_owner(file: &File) -> Option<u32> {
    let owner = file.metadata().ok()?.uid();
    (owner != 0 && owner != nix::unistd::geteuid().as_raw()).then_some(owner)
}

/// Whether the file behind `path` is still the one that was opened.
pub(crate) fn is_current(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn refused(error: io::Error, path: &Path, what: &'static str) -> RingError {
    let path = path.to_path_buf();
    match error.kind() {
        ErrorKind::NotFound => RingError::NotFound { path },
        ErrorKind::PermissionDenied => RingError::Denied { path, what },
        _ => RingError::System { what, path, source: error },
    }
}

/// Makes the directory if it is missing. The shared default one is open to all users, each
/// touching only his own files (sticky, as /tmp); any other belongs to its creator.
pub(crate) fn ensure(directory: &Path) -> Result<(), RingError> {
    let failed = |error| refused(error, directory, "create the directory");
    let shared = directory == Path::new(DEFAULT_DIRECTORY);
    let found = fs::metadata(directory).ok().filter(fs::Metadata::is_dir);
    if found.is_none() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.map_err(failed)?;
    }
    // Also if somebody was killed between making it and opening it to all.
    let own = |found: &fs::Metadata| found.uid() == nix::unistd::geteuid().as_raw();
    let closed = |found: &fs::Metadata| found.mode() & 0o7777 == 0o700 && own(found);
    if shared && found.as_ref().is_none_or(closed) {
        fs::set_permissions(directory, Permissions::from_mode(0o1777)).map_err(failed)?;
    }
    Ok(())
}

/// A file that has no name yet; [`publish`](Self::publish) gives it one, all or nothing.
pub(crate) struct Unnamed {
    pub(crate) file: File,
    /// Set where the file system has no unnamed files (`O_TMPFILE`): a hidden name, removed on
    /// drop. Only there can a kill leave something behind.
    hidden: Option<PathBuf>,
}

impl Unnamed {
    pub(crate) fn create(directory: &Path, name: &str) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        let unnamed = options.clone().custom_flags(libc::O_TMPFILE).open(directory);
        match unnamed {
            Ok(file) => Ok(Self { file, hidden: None }),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                options.create_new(true);
                for attempt in 0.. {
                    let hidden = format!(".{name}.{}-{attempt}.new", std::process::id());
                    let hidden = directory.join(hidden);
                    match options.open(&hidden) {
                        Ok(file) => return Ok(Self { file, hidden: Some(hidden) }),
                        // Left by a process of our pid that was killed, or another thread's.
                        Err(error)
                            if error.kind() == ErrorKind::AlreadyExists && attempt < 1000 => {}
                        Err(error) => return Err(error),
                    }
                }
                Err(ErrorKind::AlreadyExists.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Gives the finished file its name; fails with `AlreadyExists` if that is taken.
    pub(crate) fn publish(&self, path: &Path) -> io::Result<()> {
        if let Some(hidden) = &self.hidden {
            return fs::hard_link(hidden, path);
        }
        use std::os::fd::AsRawFd;
        let source = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let here = nix::fcntl::AT_FDCWD;
        let follow = nix::fcntl::AtFlags::AT_SYMLINK_FOLLOW;
        nix::unistd::linkat(here, source.as_str(), here, path, follow)?;
        Ok(())
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            // Nothing to do about a failure: the name is hidden and `list` passes over it.
            let _ = fs::remove_file(hidden);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn no_name_leaves_the_directory() {
        let directory = Path::new("/dev/shm/gapless");
        for name in ["", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a b", "a\0b", "ü"] {
            assert!(
                matches!(ring_path(directory, name), Err(RingError::BadName { .. })),
                "{name:?}"
            );
        }
        assert!(ring_path(directory, &"x".repeat(129)).is_err());
        let longest = "x".repeat(128);
        for name in ["a", "orders.eu-1_A", "a..b", longest.as_str()] {
            let path = ring_path(directory, name).unwrap();
            assert_eq!(path.parent(), Some(directory));
        }
    }
}
