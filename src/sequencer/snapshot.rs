//! Snapshots: the whole state behind one record, in a file.
//!
//! A snapshot is written beside, synced, and renamed, so that one that is there is whole; its
//! checksum says so again. Its name is `SESSION-SEQUENCE.snapshot` (the next sequence, as both are
//! written in 20 digits), so that the newest is the last by name.
//!
//! | bytes | field |
//! |---|---|
//! | 0-7 | `GAPLSNAP` |
//! | 8-11 | version of this layout, 1 |
//! | 12-15 | 0 |
//! | 16-23 | session of the stream |
//! | 24-31 | sequence of the next record |
//! | 32-39 | bytes of the state |
//! | 40-47 | CRC-64/NVME of the state |
//! | 48-51 | 0 |
//! | 52-55 | CRC32C of bytes 0 to 51 |
//! | 56- | the state |

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::error::SnapshotError;

const MAGIC: &[u8; 8] = b"GAPLSNAP";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 56;
const SUFFIX: &str = ".snapshot";

/// A snapshot that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    pub(crate) session: u64,
    pub(crate) next_sequence: u64,
    pub(crate) state: Vec<u8>,
    pub(crate) path: PathBuf,
}

fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes)
}

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn header(session: u64, next_sequence: u64, state: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    header[16..24].copy_from_slice(&session.to_le_bytes());
    header[24..32].copy_from_slice(&next_sequence.to_le_bytes());
    header[32..40].copy_from_slice(&(state.len() as u64).to_le_bytes());
    header[40..48].copy_from_slice(&crc64(state).to_le_bytes());
    let checksum = crc32c(&header[..52]);
    header[52..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Writes a snapshot, and removes all but it and the one before it.
pub(crate) fn write(
    directory: &Path,
    session: u64,
    next_sequence: u64,
    state: &[u8],
) -> Result<PathBuf, SnapshotError> {
    let failed = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| SnapshotError::System { what, path, source }
    };
    fs::create_dir_all(directory).map_err(failed("create", directory))?;
    let path = directory.join(format!("{session:020}-{next_sequence:020}{SUFFIX}"));
    // Two that stand by in one directory do not write into each other's file.
    let unfinished = path.with_extension(format!("{}.unfinished", std::process::id()));
    let mut file = File::create(&unfinished).map_err(failed("create", &unfinished))?;
    let written = file
        .write_all(&header(session, next_sequence, state))
        .and_then(|()| file.write_all(state))
        .and_then(|()| file.sync_all());
    written.map_err(failed("write", &unfinished))?;
    fs::rename(&unfinished, &path).map_err(failed("rename", &unfinished))?;
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(failed("sync", directory))?;
    for old in names(directory)?.iter().rev().skip_while(|name| **name != path).skip(2) {
        // Another may have removed it already.
        let _ = fs::remove_file(old);
    }
    Ok(path)
}

/// The newest snapshot that is sound; `None` if there is none. Damaged ones are passed over.
pub(crate) fn newest(directory: &Path) -> Result<Option<Snapshot>, SnapshotError> {
    for path in names(directory)?.into_iter().rev() {
        match read(&path) {
            Ok(snapshot) => return Ok(Some(snapshot)),
            Err(SnapshotError::Damaged { .. }) => {}
            // Removed since it was listed.
            Err(SnapshotError::System { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The snapshots of a directory, oldest first; none if there is no directory.
fn names(directory: &Path) -> Result<Vec<PathBuf>, SnapshotError> {
    let failed =
        |source| SnapshotError::System { what: "list", path: directory.to_path_buf(), source };
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(SUFFIX)) {
            names.push(path);
        }
    }
    names.sort();
    Ok(names)
}

/// Reads and checks one.
pub(crate) fn read(path: &Path) -> Result<Snapshot, SnapshotError> {
    let damaged = |reason| SnapshotError::Damaged { path: path.to_path_buf(), reason };
    let mut bytes = fs::read(path).map_err(|source| SnapshotError::System {
        what: "read",
        path: path.to_path_buf(),
        source,
    })?;
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(damaged("shorter than a header"));
    };
    let u64_at = |at: usize| {
        head[at..at + 8].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    };
    let (session, next_sequence, length) = (u64_at(16), u64_at(24), u64_at(32));
    if &head[..8] != MAGIC {
        return Err(damaged("it does not begin with GAPLSNAP"));
    }
    if head[8..12] != VERSION.to_le_bytes() {
        return Err(damaged("another version of the layout"));
    }
    if crc32c(&head[..52]).to_le_bytes() != head[52..] {
        return Err(damaged("its header's checksum is wrong"));
    }
    let checksum = u64_at(40);
    let state = bytes.split_off(HEADER_BYTES);
    if state.len() as u64 != length || crc64(&state) != checksum {
        return Err(damaged("its state's length or checksum is wrong"));
    }
    Ok(Snapshot { session, next_sequence, state, path: path.to_path_buf() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_sound_one_is_found_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(newest(&dir.path().join("none")).unwrap(), None);
        for sequence in [5, 900, 77_000] {
            write(dir.path(), 3, sequence, &[sequence as u8; 100]).unwrap();
        }
        let paths = names(dir.path()).unwrap();
        assert_eq!(paths.len(), 2);
        let found = newest(dir.path()).unwrap().unwrap();
        assert_eq!((found.session, found.next_sequence), (3, 77_000));
        let sound = fs::read(&paths[1]).unwrap();
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x10;
            fs::write(&paths[1], &bytes).unwrap();
            assert!(matches!(read(&paths[1]), Err(SnapshotError::Damaged { .. })), "byte {at}");
            assert_eq!(newest(dir.path()).unwrap().unwrap().next_sequence, 900);
        }
        fs::write(&paths[1], &sound[..40]).unwrap();
        assert!(matches!(read(&paths[1]), Err(SnapshotError::Damaged { .. })));
    }
}
