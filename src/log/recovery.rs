//! Opening what an earlier writer left: where the log ends, and cutting off what is torn.
//!
//! A block is in the log if its checksum is right and everything in front of it is in the log. What
//! a process wrote before it was killed, the kernel still has: then only the last segment can be
//! torn, at its end. When the host crashed, any page may be missing that was not synced, in any
//! segment that was not: so those are walked as well, oldest first, and the log ends at the first
//! hole. A log that is not synced by policy promises nothing about a crash of the host, and only
//! its last segment is walked: `verify` tells about the others.

use std::path::{Path, PathBuf};

use super::catalog::{self, SegmentName, read_header};
use super::disk::{Disk, DiskFile};
use super::error::LogError;
use super::format::{BLOCK_HEADER_BYTES, BlockHeader, Kind, SegmentHeader};
use super::scan::{self, Scanned};

/// Segments that are walked at most after a crash of the host. A writer has at most two that are
/// not synced; each sync of a finished one is waited for before a third is begun.
const UNSYNCED_MAX: usize = 3;

/// Where a log ends.
pub(crate) struct End<F> {
    pub(crate) name: SegmentName,
    pub(crate) header: SegmentHeader,
    pub(crate) file: F,
    pub(crate) scanned: Scanned,
    /// Segments behind the end, which are no part of the log.
    pub(crate) behind: Vec<SegmentName>,
}

/// What an earlier writer left, and what had to be cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// The newest session.
    pub session: u64,
    /// Sequence of the message that the log goes on with.
    pub next_sequence: u64,
    /// Time of its last message, ns since the Unix epoch.
    pub last_unix_ns: u64,
    /// What was cut off, if the tail was torn.
    pub cut: Option<Cut>,
}

/// A torn tail that was cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cut {
    /// The segment.
    pub path: PathBuf,
    /// Where it was cut, bytes.
    pub offset: u64,
    /// Bytes behind the cut that were not zero, up to the last such one.
    pub bytes: u64,
    /// Whole segments behind the cut that were removed.
    pub segments: usize,
}

/// Finds where the log ends. Changes nothing.
pub(crate) fn find_end<D: Disk>(
    disk: &D,
    directory: &Path,
    writable: bool,
) -> Result<Option<End<D::File>>, LogError> {
    let names = catalog::list(disk, directory)?;
    let boot = disk.boot_id();
    // From the end back to a segment behind which nothing can be missing.
    let mut candidates = Vec::new();
    for &name in names.iter().rev() {
        let path = name.path(directory);
        let file = disk.open(&path, writable).map_err(LogError::system("open", &path))?;
        match read_header(&file, name, &path) {
            Ok(header) => {
                let known = header.boot == boot || !header.synced;
                candidates.push((name, header, file));
                if known || candidates.len() == UNSYNCED_MAX {
                    break;
                }
            }
            // Its name was there before its first page was, if nothing else is in it.
            Err(error @ LogError::Header { .. }) => {
                let found = scan::find_block(&file, name.session, 0, 0);
                if found.map_err(LogError::system("read", &path))?.is_some() {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
    let mut end: Option<End<D::File>> = None;
    for (name, header, file) in candidates.into_iter().rev() {
        let joins = end.as_ref().is_none_or(|end| {
            let session_goes_on = end.name.session == name.session;
            let next = end.scanned.next_sequence;
            end.scanned.sealed && (!session_goes_on || name.first_sequence == next)
        });
        if !joins {
            break;
        }
        let path = name.path(directory);
        let scanned = scan::scan(&file, &header, |_, _| ());
        let scanned = scanned.map_err(LogError::system("read", &path))?;
        end = Some(End { name, header, file, scanned, behind: Vec::new() });
    }
    let Some(mut end) = end else { return Ok(None) };
    end.behind = names.into_iter().filter(|&name| name > end.name).collect();
    Ok(Some(end))
}

/// Cuts off what stands behind the end.
pub(crate) fn cut<D: Disk>(
    disk: &D,
    directory: &Path,
    end: &End<D::File>,
    capacity: u64,
) -> Result<Option<Cut>, LogError> {
    let path = end.name.path(directory);
    for name in &end.behind {
        let path = name.path(directory);
        disk.remove(&path).map_err(LogError::system("remove", &path))?;
        let _ = disk.remove(&name.index_path(directory)); // may not be there
    }
    // Zeroes may stand in front of what is left of blocks behind them, if the host crashed.
    let boot_changed = end.header.boot != disk.boot_id();
    let look = end.scanned.torn || boot_changed || !end.behind.is_empty();
    if !look || end.scanned.sealed && end.behind.is_empty() {
        return Ok(None);
    }
    let offset = end.scanned.end;
    let bytes = bytes_behind(&end.file, offset).map_err(LogError::system("read", &path))?;
    if bytes > 0 {
        // What is cut must never look like a block again, whatever is written in front of it.
        end.file.set_length(offset).map_err(LogError::system("cut", &path))?;
        end.file.allocate(capacity.max(offset)).map_err(LogError::system("lengthen", &path))?;
    }
    let segments = end.behind.len();
    Ok((bytes > 0 || segments > 0).then_some(Cut { path, offset, bytes, segments }))
}

/// How far behind `offset` the last byte is that is not zero.
pub(crate) fn bytes_behind<F: DiskFile>(file: &F, offset: u64) -> std::io::Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let (mut at, mut last) = (offset, offset);
    loop {
        let have = file.read_full_at(&mut buffer, at)?;
        if let Some(byte) = buffer[..have].iter().rposition(|&byte| byte != 0) {
            last = at + byte as u64 + 1;
        }
        if have < buffer.len() {
            return Ok(last - offset);
        }
        at += have as u64;
    }
}

/// The block that ends a segment.
pub(crate) fn seal(session: u64, next_sequence: u64, now_ns: u64) -> [u8; BLOCK_HEADER_BYTES] {
    let mut block = [0; BLOCK_HEADER_BYTES];
    let header = BlockHeader {
        length: BLOCK_HEADER_BYTES as u32,
        count: 0,
        first_sequence: next_sequence,
        first_ns: now_ns,
        last_ns: now_ns,
        session,
        kind: Kind::Seal,
    };
    header.finish(&mut block);
    block
}
