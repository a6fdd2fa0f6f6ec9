//! What may go, and who still needs it: retention, and the declarations of readers.
//!
//! A reader declares itself by a file `NAME.reader` in the log's directory, which says where it is:
//! from the first message that it still needs. It outlives the reader's process: a reader that is
//! away for a while finds everything it lacks. `gapless log` lists and removes declarations.

use std::path::{Path, PathBuf};

use super::catalog::{self, SegmentName};
use super::disk::{Disk, DiskFile};
use super::error::LogError;
use super::format::crc;
use super::options::Retention;
use super::unsynced::{self, Unsynced};

/// The retention that removes nothing.
pub(crate) const KEEP_ALL: Retention = Retention { bytes: None, age: None };

const EXTENSION: &str = ".reader";
const NAME_BYTES_MAX: usize = 64;
const MAGIC: [u8; 8] = *b"GAPRDR\x1a\n";
const BYTES: usize = 32;

/// How far a declared reader has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reader {
    /// Its name.
    pub name: String,
    /// The session it reads.
    pub session: u64,
    /// Sequence of the first message that it still needs.
    pub next_sequence: u64,
}

/// A reader's declaration, open for writing.
#[derive(Debug)]
pub(crate) struct Declaration<F> {
    path: PathBuf,
    file: F,
}

fn path_of(directory: &Path, name: &str) -> Result<PathBuf, LogError> {
    let usable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let sound = (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.chars().all(usable);
    match sound {
        true => Ok(directory.join(format!("{name}{EXTENSION}"))),
        false => Err(LogError::ReaderName { name: name.to_owned() }),
    }
}

/// Bytes 0-7 magic, 8-15 session, 16-23 next sequence, 24-27 CRC-32C of what is in front of it,
/// 28-31 zero; little-endian.
fn encode(session: u64, next_sequence: u64) -> [u8; BYTES] {
    let mut bytes = [0; BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&session.to_le_bytes());
    bytes[16..24].copy_from_slice(&next_sequence.to_le_bytes());
    let sum = crc(&bytes[..24]);
    bytes[24..28].copy_from_slice(&sum.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, u64)> {
    let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
    let long = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (session, next) = (long(8)?, long(16)?);
    (*bytes == encode(session, next)).then_some((session, next))
}

impl<F: DiskFile> Declaration<F> {
    /// Opens the declaration of `name`, and says where the reader was, if it was ever there.
    pub(crate) fn open<D: Disk<File = F>>(
        disk: &D,
        directory: &Path,
        name: &str,
    ) -> Result<(Self, Option<(u64, u64)>), LogError> {
        let path = path_of(directory, name)?;
        let file = match disk.open(&path, true) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => disk.create(&path),
            other => other,
        };
        let file = file.map_err(LogError::system("open", &path))?;
        let mut bytes = [0; BYTES];
        let have = file.read_full_at(&mut bytes, 0).map_err(LogError::system("read", &path))?;
        Ok((Self { path, file }, decode(&bytes[..have])))
    }

    /// Says that everything in front of `next_sequence` has been dealt with.
    pub(crate) fn commit(&self, session: u64, next_sequence: u64) -> Result<(), LogError> {
        let written = self.file.write_all_at(&encode(session, next_sequence), 0);
        written.map_err(LogError::system("write", &self.path))
    }
}

/// All declared readers. One whose file is damaged needs everything, so that nothing is removed
/// under it.
pub(crate) fn readers<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<Reader>, LogError> {
    let names = disk.list(directory).map_err(LogError::system("read", directory))?;
    let mut readers = Vec::new();
    for file_name in names {
        let Some(name) = file_name.strip_suffix(EXTENSION) else { continue };
        let path = directory.join(&file_name);
        let mut bytes = [0; BYTES];
        let file = match disk.open(&path, false) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue, // taken back
            other => other.map_err(LogError::system("open", &path))?,
        };
        let have = file.read_full_at(&mut bytes, 0).map_err(LogError::system("read", &path))?;
        let (session, next_sequence) = decode(&bytes[..have]).unwrap_or((0, 0));
        readers.push(Reader { name: name.to_owned(), session, next_sequence });
    }
    readers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(readers)
}

/// Takes a declaration back. False if there was none.
pub(crate) fn forget<D: Disk>(disk: &D, directory: &Path, name: &str) -> Result<bool, LogError> {
    let path = path_of(directory, name)?;
    match disk.remove(&path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LogError::system("remove", path)(error)),
    }
}

/// Segments that nobody needs, oldest first: all but the newest, up to where the first declared
/// reader is.
fn needless<D: Disk>(
    disk: &D,
    directory: &Path,
    names: &[SegmentName],
) -> Result<Vec<(SegmentName, SegmentName)>, LogError> {
    let readers = readers(disk, directory)?;
    let needed = readers.iter().map(|reader| (reader.session, reader.next_sequence)).min();
    let end = |behind: &SegmentName| (behind.session, behind.first_sequence);
    let pairs = names.iter().copied().zip(names.iter().copied().skip(1));
    Ok(pairs.take_while(|(_, behind)| needed.is_none_or(|needed| end(behind) <= needed)).collect())
}

/// Segments to remove, and the first one that stays.
#[derive(Debug)]
pub(crate) struct Removal {
    pub(crate) go: Vec<SegmentName>,
    pub(crate) stays: SegmentName,
}

impl Removal {
    fn new(pairs: impl Iterator<Item = (SegmentName, SegmentName)>) -> Option<Self> {
        let (go, behind): (Vec<_>, Vec<_>) = pairs.unzip();
        Some(Self { go, stays: behind.last().copied()? })
    }

    /// Makes what stays durable, which is to be done first: a log that lost its last segment with
    /// the power would not know where it was. What cannot be synced comes with its path.
    pub(crate) fn prepare<D: Disk>(&self, disk: &D, directory: &Path) -> Result<(), Unsynced> {
        unsynced::sync(disk, directory, &[self.stays])?;
        disk.sync_directory(directory).map_err(|error| (directory.to_path_buf(), error))
    }

    /// Removes one after the other, the oldest first, also for a host that crashes meanwhile: one
    /// that comes back in front of a gap would be taken for the end of the log.
    pub(crate) fn run<D: Disk>(&self, disk: &D, directory: &Path) -> Result<(), LogError> {
        for (at, name) in self.go.iter().enumerate() {
            if at > 0 {
                disk.sync_directory(directory).map_err(LogError::system("sync", directory))?;
            }
            let path = name.path(directory);
            match disk.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(LogError::system("remove", path)(error));
                }
                _ => {}
            }
            let _ = disk.remove(&name.index_path(directory)); // may not be there
        }
        Ok(())
    }
}

/// What a retention lets go.
pub(crate) fn removable<D: Disk>(
    disk: &D,
    directory: &Path,
    retention: Retention,
    now_ns: u64,
) -> Result<Option<Removal>, LogError> {
    if retention == KEEP_ALL {
        return Ok(None);
    }
    let length = |name: &SegmentName| {
        let path = name.path(directory);
        match disk.open(&path, false).and_then(|file| file.length()) {
            // Trimmed meanwhile, by somebody else.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
            other => other.map_err(LogError::system("ask the length of", &path)),
        }
    };
    let names = catalog::list(disk, directory)?;
    let lengths = names.iter().map(&length).collect::<Result<Vec<_>, _>>()?;
    let mut kept: u64 = lengths.iter().sum();
    let mut go = Vec::new();
    for ((name, behind), length) in needless(disk, directory, &names)?.into_iter().zip(lengths) {
        let too_much = retention.bytes.is_some_and(|bytes| kept - length >= bytes);
        // The segment behind began when this one ended.
        let too_old = match retention.age {
            Some(age) => {
                let path = behind.path(directory);
                let file = disk.open(&path, false).map_err(LogError::system("open", &path))?;
                let began = catalog::read_header(&file, behind, &path)?.created_unix_ns;
                now_ns.saturating_sub(began) >= age.as_nanos() as u64
            }
            None => false,
        };
        if !too_much && !too_old {
            break;
        }
        kept -= length;
        go.push((name, behind));
    }
    Ok(Removal::new(go.into_iter()))
}

/// Removes the segments that end before `sequence` of `session`, but for those that a declared
/// reader needs, and says how many.
pub(crate) fn trim<D: Disk>(
    disk: &D,
    directory: &Path,
    session: u64,
    sequence: u64,
) -> Result<usize, LogError> {
    let before =
        |behind: &SegmentName| (behind.session, behind.first_sequence) <= (session, sequence);
    let names = catalog::list(disk, directory)?;
    let go =
        needless(disk, directory, &names)?.into_iter().take_while(|(_, behind)| before(behind));
    remove(disk, directory, Removal::new(go))
}

/// Removes the segments that a retention lets go, and says how many.
pub(crate) fn retain<D: Disk>(
    disk: &D,
    directory: &Path,
    retention: Retention,
    now_ns: u64,
) -> Result<usize, LogError> {
    remove(disk, directory, removable(disk, directory, retention, now_ns)?)
}

fn remove<D: Disk>(
    disk: &D,
    directory: &Path,
    removal: Option<Removal>,
) -> Result<usize, LogError> {
    let Some(removal) = removal else { return Ok(0) };
    removal.prepare(disk, directory).map_err(|(path, error)| {
        unsynced::mark(disk, directory);
        LogError::system("sync", path)(error)
    })?;
    removal.run(disk, directory)?;
    Ok(removal.go.len())
}
