//! What an earlier writer may have left unsynced, and making that durable.
//!
//! A log ends where its first hole is, so nothing in it is durable before all in front of it is. A
//! writer that was killed leaves at most two finished segments unsynced, and any number if its
//! policy was not to sync: the next one syncs them with the first sync of its own.
//!
//! A sync that fails is worse. The system may count what it could not write as written: readers see
//! it, and the next sync succeeds without it. So the writer stops, and leaves a file `sync.failed`
//! behind. The next one writes the same bytes once more, so that they are synced in earnest.

use std::io;
use std::path::{Path, PathBuf};

use super::catalog::{SegmentName, read_header};
use super::disk::{Disk, DiskFile};
use super::error::LogError;
use super::recovery::UNSYNCED_MAX;

const MARK: &str = "sync.failed";
/// Bytes written anew at a time.
const WRITE_BYTES: usize = 1 << 20;

/// What could not be synced, and why.
pub(crate) type Unsynced = (PathBuf, io::Error);

/// Takes note that a sync failed. Best effort: the disk is in a bad way.
pub(crate) fn mark<D: Disk>(disk: &D, directory: &Path) {
    for _ in 0..3 {
        if disk.create(&directory.join(MARK)).is_ok() {
            break;
        }
    }
}

/// Whether a sync failed, and nothing was done about it.
pub(crate) fn is_marked<D: Disk>(disk: &D, directory: &Path) -> Result<bool, LogError> {
    let mark = directory.join(MARK);
    match disk.open(&mark, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other.map(|_| true).map_err(LogError::system("open", &mark)),
    }
}

/// The segments, newest first, of which something may not be on the disk.
pub(crate) fn find<D: Disk>(
    disk: &D,
    directory: &Path,
    names: &[SegmentName],
) -> Result<Vec<SegmentName>, LogError> {
    let (mut found, mut synced) = (Vec::new(), 0);
    for &name in names.iter().rev() {
        let path = name.path(directory);
        let file = disk.open(&path, false).map_err(LogError::system("open", &path))?;
        found.push(name);
        match read_header(&file, name, &path) {
            // What a run of the host before this one left is on the disk, or it would not be here.
            // The last such segment may since have grown.
            Ok(header) if header.boot != disk.boot_id() => break,
            Ok(header) => synced += usize::from(header.synced),
            Err(LogError::Header { .. }) => {}
            Err(error) => return Err(error),
        }
        if synced == UNSYNCED_MAX {
            break;
        }
    }
    Ok(found)
}

/// Writes segments once more, if a sync failed, and syncs them.
pub(crate) fn write_anew<D: Disk>(
    disk: &D,
    directory: &Path,
    names: &[SegmentName],
) -> Result<(), LogError> {
    if !is_marked(disk, directory)? {
        return Ok(());
    }
    for name in names {
        let path = name.path(directory);
        let file = disk.open(&path, true).map_err(LogError::system("open", &path))?;
        rewrite(&file).map_err(LogError::system("write anew", &path))?;
    }
    disk.sync_directory(directory).map_err(LogError::system("sync", directory))?;
    let mark = directory.join(MARK);
    disk.remove(&mark).map_err(LogError::system("remove", &mark))
}

fn rewrite<F: DiskFile>(file: &F) -> io::Result<()> {
    let mut buffer = vec![0; WRITE_BYTES];
    let mut at = 0;
    loop {
        let have = file.read_full_at(&mut buffer, at)?;
        file.write_all_at(&buffer[..have], at)?;
        at += have as u64;
        if have < buffer.len() {
            return file.sync();
        }
    }
}

/// Makes segments last. One that is not there any more has been removed on purpose. What failed
/// comes with its path.
pub(crate) fn sync<D: Disk>(
    disk: &D,
    directory: &Path,
    names: &[SegmentName],
) -> Result<(), Unsynced> {
    for name in names {
        let path = name.path(directory);
        match disk.open(&path, true).and_then(|file| file.sync()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err((path, error)),
            _ => {}
        }
    }
    Ok(())
}
