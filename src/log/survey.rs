//! What a log has, at a glance: one line for each segment, found without reading what is in it.
//!
//! A finished segment tells by its header and its seal; of the one that is written, what is behind
//! the last entry of its index is walked. Changes nothing, and holds nobody up.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::catalog::{self, SegmentName, read_header};
use super::disk::{Disk, DiskFile, FileSystem};
use super::error::LogError;
use super::format::{IndexEntry, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::index::{Index, Key};
use super::scan::{self, Scanned};
use super::segment::read_seal;

/// A segment of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SegmentInfo {
    /// Its file.
    pub path: PathBuf,
    /// The session, by number.
    pub session: u64,
    /// Name of the stream, as its recorder gave it.
    pub name: String,
    /// Sequence of its first message.
    pub first_sequence: u64,
    /// Sequence behind its last message.
    pub next_sequence: u64,
    /// When it was made: with its first block, ns since the Unix epoch.
    pub created_unix_ns: u64,
    /// Time of its last message, ns since the Unix epoch.
    pub last_unix_ns: u64,
    /// Bytes in use.
    pub bytes: u64,
    /// Length of the file, bytes: more than is in use while it is written.
    pub file_bytes: u64,
    /// Whether it is finished.
    pub sealed: bool,
    /// Whether its writer syncs.
    pub synced: bool,
    /// Whether messages carry envelopes.
    pub enveloped: bool,
    /// Why its first page cannot be read; what else is said here is then by its name alone.
    pub problem: Option<String>,
}

/// The segments of the log in `directory`, in order. Empty if there is none.
///
/// ```
/// use gapless::log::{LogOptions, survey};
/// # let dir = tempfile::tempdir()?;
/// let (mut log, _) = LogOptions::new().name("orders").open(dir.path())?;
/// log.begin(35, 1)?;
/// log.append(1, b"buy 100 SBER", gapless::Flags::WHOLE, 1_700_000_000_000_000_000)?;
/// log.flush()?;
/// let segments = survey(dir.path())?;
/// assert_eq!((segments.len(), segments[0].name.as_str()), (1, "orders"));
/// assert_eq!((segments[0].first_sequence, segments[0].next_sequence), (1, 2));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`LogError::Version`] of a log of a newer program; [`LogError::System`] if something cannot be
/// read.
pub fn survey(directory: &Path) -> Result<Vec<SegmentInfo>, LogError> {
    let disk = FileSystem::default();
    let mut segments = Vec::new();
    for name in catalog::list(&disk, directory)? {
        match look(&disk, directory, name) {
            Ok(segment) => segments.push(segment),
            // Removed since it was listed.
            Err(LogError::System { source, .. }) if source.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(segments)
}

fn look<D: Disk>(disk: &D, directory: &Path, name: SegmentName) -> Result<SegmentInfo, LogError> {
    let path = name.path(directory);
    let file = disk.open(&path, false).map_err(LogError::system("open", &path))?;
    let length = file.length().map_err(LogError::system("ask the length of", &path))?;
    let mut info = SegmentInfo {
        path: path.clone(),
        session: name.session,
        name: String::new(),
        first_sequence: name.first_sequence,
        next_sequence: name.first_sequence,
        created_unix_ns: 0,
        last_unix_ns: 0,
        bytes: length,
        file_bytes: length,
        sealed: false,
        synced: false,
        enveloped: false,
        problem: None,
    };
    let header = match read_header(&file, name, &path) {
        Ok(header) => header,
        Err(error @ LogError::Header { .. }) => {
            return Ok(SegmentInfo { problem: Some(error.to_string()), ..info });
        }
        Err(error) => return Err(error),
    };
    info.created_unix_ns = header.created_unix_ns;
    (info.synced, info.enveloped) = (header.synced, header.enveloped);
    let seal = read_seal(&file, name.session).map_err(LogError::system("read", &path))?;
    if let Some(seal) = seal {
        (info.next_sequence, info.last_unix_ns, info.sealed) =
            (seal.first_sequence.max(name.first_sequence), seal.last_ns, true);
    } else {
        let index = Index::read(disk, &name.index_path(directory), name);
        let end = find_end(&file, &header, &index).map_err(LogError::system("read", &path))?;
        (info.next_sequence, info.last_unix_ns) = (end.next_sequence, end.last_ns);
        (info.bytes, info.sealed) = (end.end, end.sealed);
    }
    info.name = header.name;
    Ok(info)
}

/// Walks from the last block that the index knows, or from the first.
fn find_end<F: DiskFile>(
    file: &F,
    header: &SegmentHeader,
    index: &Index,
) -> std::io::Result<Scanned> {
    let from = |entry: IndexEntry| Scanned {
        end: entry.offset,
        next_sequence: entry.sequence,
        whole_from: entry.sequence,
        last_ns: entry.first_ns,
        sealed: false,
        torn: false,
    };
    if let Some(entry) = index.find(Key::Sequence(u64::MAX))
        && entry.offset > SEGMENT_HEADER_BYTES
    {
        let end = scan::scan_on(file, header.session, from(entry), |_, _| ())?;
        if end.end > entry.offset {
            return Ok(end);
        }
    }
    scan::scan(file, header, |_, _| ())
}
