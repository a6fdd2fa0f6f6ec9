//! Snapshots: the whole state behind one record, in a file.
//!
//! A snapshot is written beside, synced, and renamed, so that one that is there is whole; its
//! checksum says so again. Its name is `STREAM-SESSION-SEQUENCE.snapshot` (the next sequence, as
//! both numbers are written in 20 digits), so that of a stream's the newest is the last by name.
//! Streams may share a directory: each reads and removes its own alone.
//!
//! | bytes | field |
//! |---|---|
//! | 0-7 | `GAPLSNAP` |
//! | 8-11 | version of this layout, 2 |
//! | 12-13 | bytes of the stream's name |
//! | 14-15 | 0 |
//! | 16-23 | session of the stream |
//! | 24-31 | sequence of the next record |
//! | 32-39 | bytes of the state |
//! | 40-47 | CRC-64/NVME of the name and the state |
//! | 48-51 | 0 |
//! | 52-55 | CRC32C of bytes 0 to 51 |
//! | 56- | the stream's name, then the state, which begins with the sequence again |
//!
//! What is being written is `NAME.PID-N.unfinished`, locked by its writer; so one without a lock is
//! a dead writer's, and goes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use gapless_shm::Inspector;

use super::application::LoadError;
use super::error::SnapshotError;
use crate::address::ShmAddress;

const MAGIC: &[u8; 8] = b"GAPLSNAP";
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 56;
const SUFFIX: &str = ".snapshot";
const UNFINISHED: &str = ".unfinished";
/// How many of a stream are kept.
const KEPT: usize = 2;
/// Files that one process writes at a time.
const WRITERS_MAX: u32 = 16;
/// The last sequence number that a snapshot may have: 146 years of a thousand million records a
/// second, and far from where numbers wrap.
const SEQUENCE_MAX: u64 = 1 << 62;

/// A snapshot that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Snapshot {
    name: Name,
    state: Vec<u8>,
}

/// What the name of a snapshot says. Ordered by stream, and by age within it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    stream: String,
    session: u64,
    next_sequence: u64,
}

impl Name {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.strip_suffix(SUFFIX)?.rsplitn(3, '-');
        let mut number = || {
            let digits = parts.next()?;
            digits.parse().ok().filter(|_| digits.len() == 20)
        };
        let (next_sequence, session) = (number()?, number()?);
        let stream = parts.next().filter(|stream| !stream.is_empty())?.to_owned();
        Some(Self { stream, session, next_sequence })
    }

    /// Of a file that is still being written.
    fn read_unfinished(text: &str) -> Option<Self> {
        Self::read(text.strip_suffix(UNFINISHED)?.rsplit_once('.')?.0)
    }

    fn text(&self) -> String {
        format!("{}-{:020}-{:020}{SUFFIX}", self.stream, self.session, self.next_sequence)
    }
}

/// The snapshots of one stream.
#[derive(Debug)]
pub(crate) struct Snapshots {
    directory: PathBuf,
    stream: String,
    trouble: Option<SnapshotError>,
}

impl Snapshots {
    /// Those of `stream`, named like its ring.
    pub(crate) fn of(directory: &Path, stream: &str) -> Self {
        Self { directory: directory.to_path_buf(), stream: stream.to_owned(), trouble: None }
    }

    /// Those of `stream` if there are any, else those of the only stream that has some: a log or
    /// a line may be named otherwise than the ring behind it.
    ///
    /// # Errors
    /// [`SnapshotError::Several`] if other streams have some; [`SnapshotError::System`].
    pub(crate) fn like(directory: &Path, stream: &str) -> Result<Self, SnapshotError> {
        let mut streams = snapshot_streams(directory)?;
        let stream = match streams.len() {
            _ if streams.iter().any(|other| other == stream) => stream.to_owned(),
            0 => stream.to_owned(),
            1 => streams.remove(0),
            _ => {
                let directory = directory.to_path_buf();
                return Err(SnapshotError::Several { directory, streams: streams.join(", ") });
            }
        };
        Ok(Self::of(directory, &stream))
    }

    /// What went wrong last: why a newer snapshot was passed over, or none written.
    pub(crate) fn trouble(&self) -> Option<&SnapshotError> {
        self.trouble.as_ref()
    }

    /// Hands the states to `load`, newest first, until it takes one, and says of which session that
    /// was; `None` if there is none. Of another session than the one `wanted`, none is taken.
    ///
    /// # Errors
    /// Why the newest sound one could not be taken, if none was.
    pub(crate) fn newest(
        &mut self,
        wanted: Option<u64>,
        mut load: impl FnMut(&[u8]) -> Result<(), LoadError>,
    ) -> Result<Option<u64>, SnapshotError> {
        let mut names = names(&self.directory, Name::read)?;
        names.retain(|name| name.stream == self.stream);
        names.sort();
        let mut passed = Vec::new();
        let mut taken = None;
        for name in names.into_iter().rev() {
            match self.take(&name, wanted, &mut load) {
                Ok(()) => {
                    taken = Some(name.session);
                    break;
                }
                // Removed since it was listed.
                Err(SnapshotError::System { source, .. })
                    if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => passed.push(error),
            }
        }
        if taken.is_none() {
            let sound = |error: &SnapshotError| !matches!(error, SnapshotError::Damaged { .. });
            if let Some(at) = passed.iter().position(sound) {
                return Err(passed.swap_remove(at));
            }
        }
        self.trouble = passed.into_iter().next();
        Ok(taken)
    }

    fn take(
        &self,
        name: &Name,
        wanted: Option<u64>,
        load: &mut impl FnMut(&[u8]) -> Result<(), LoadError>,
    ) -> Result<(), SnapshotError> {
        if let Some(stream) = wanted.filter(|&stream| stream != name.session) {
            return Err(SnapshotError::Session { snapshot: name.session, stream });
        }
        let path = self.directory.join(name.text());
        let snapshot = read(&path)?;
        if snapshot.name != *name {
            let reason = "it says another stream, session or sequence than its name";
            return Err(SnapshotError::Damaged { path, reason });
        }
        load(&snapshot.state).map_err(|error| SnapshotError::State { path, error })
    }

    /// Writes a snapshot, and removes all of this stream but it and the one before it, and what
    /// dead writers left. False if it could not be written: [`trouble`](Self::trouble) says why.
    ///
    /// `state` is what [`Core::save`](super::core::Core::save) wrote in front of `next_sequence`.
    pub(crate) fn write(&mut self, session: u64, next_sequence: u64, state: &[u8]) -> bool {
        let name = Name { stream: self.stream.clone(), session, next_sequence };
        let written = self.try_write(&name, state);
        self.trouble = written.err();
        self.trouble.is_none()
    }

    fn try_write(&self, name: &Name, state: &[u8]) -> Result<(), SnapshotError> {
        let directory = &self.directory;
        fs::create_dir_all(directory).map_err(failed("create", directory))?;
        self.sweep()?;
        let path = directory.join(name.text());
        if !(1..=SEQUENCE_MAX).contains(&name.next_sequence) {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "its sequence is too large");
            return Err(failed("write", &path)(source));
        }
        let (mut file, unfinished) = create(&path)?;
        let written = file
            .write_all(&header(name, state))
            .and_then(|()| file.write_all(name.stream.as_bytes()))
            .and_then(|()| file.write_all(state))
            .and_then(|()| file.sync_all())
            .map_err(failed("write", &unfinished))
            .and_then(|()| fs::rename(&unfinished, &path).map_err(failed("rename", &unfinished)));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished); // which may be what filled the disk
            return written;
        }
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(failed("sync", directory))?;
        let mut older = names(directory, Name::read)?;
        older.retain(|other| other.stream == name.stream && other <= name);
        older.sort();
        for old in older.iter().rev().skip(KEPT) {
            // Another may have removed it already.
            let _ = fs::remove_file(directory.join(old.text()));
        }
        Ok(())
    }

    /// Removes what dead writers of this stream left.
    fn sweep(&self) -> Result<(), SnapshotError> {
        let ours = |text: &str| {
            let name = Name::read_unfinished(text)?;
            (name.stream == self.stream).then(|| self.directory.join(text))
        };
        for path in names(&self.directory, ours)? {
            // Finished, or removed by another, since it was listed; or not this user's.
            let Ok(file) = File::open(&path) else { continue };
            if file.try_lock().is_ok() {
                let _ = fs::remove_file(&path);
            }
        }
        Ok(())
    }
}

/// Names of the streams that have snapshots in a directory, sorted; none if there is no directory.
///
/// # Errors
/// [`SnapshotError::System`] if the directory cannot be read.
pub fn snapshot_streams(directory: &Path) -> Result<Vec<String>, SnapshotError> {
    let mut streams = names(directory, |text| Some(Name::read(text)?.stream))?;
    streams.sort();
    streams.dedup();
    Ok(streams)
}

/// The session that a ring is in; `None` if there is no ring that could be read.
pub(crate) fn session_of(ring: &ShmAddress) -> Option<u64> {
    let path = gapless_shm::ring_path(ring.directory(), ring.name()).ok()?;
    Some(Inspector::open_file(&path).ok()?.header().session)
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_path_buf();
    move |source| SnapshotError::System { what, path, source }
}

/// A new, locked file to write into before it is renamed to `path`: two that stand by in one
/// directory do not write into each other's.
fn create(path: &Path) -> Result<(File, PathBuf), SnapshotError> {
    let pid = std::process::id();
    let mut number = 0;
    loop {
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{pid}-{number}{UNFINISHED}"));
        let unfinished = PathBuf::from(unfinished);
        match File::create_new(&unfinished) {
            Ok(file) => {
                // Where there are no locks, nobody sweeps. Where another has it already, it takes
                // this for a dead writer's: the file is gone, and cannot be renamed.
                let _ = file.try_lock();
                return Ok((file, unfinished));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < WRITERS_MAX => {
                number += 1;
            }
            Err(error) => return Err(failed("create", &unfinished)(error)),
        }
    }
}

/// What `read` makes of the names in a directory; nothing if there is no directory.
fn names<T>(directory: &Path, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, SnapshotError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", directory)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed("list", directory))?.file_name();
        names.extend(name.to_str().and_then(&read));
    }
    Ok(names)
}

fn crc64(bytes: &[u8], more: &[u8]) -> u64 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme);
    digest.update(bytes);
    digest.update(more);
    digest.finalize()
}

fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

fn header(name: &Name, state: &[u8]) -> [u8; HEADER_BYTES] {
    let stream = name.stream.as_bytes();
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(MAGIC);
    header[8..12].copy_from_slice(&VERSION.to_le_bytes());
    // No longer than a file's name.
    header[12..14].copy_from_slice(&(stream.len() as u16).to_le_bytes());
    header[16..24].copy_from_slice(&name.session.to_le_bytes());
    header[24..32].copy_from_slice(&name.next_sequence.to_le_bytes());
    header[32..40].copy_from_slice(&(state.len() as u64).to_le_bytes());
    header[40..48].copy_from_slice(&crc64(stream, state).to_le_bytes());
    let checksum = crc32c(&header[..52]);
    header[52..].copy_from_slice(&checksum.to_le_bytes());
    header
}

/// Reads and checks one.
fn read(path: &Path) -> Result<Snapshot, SnapshotError> {
    let damaged = |reason| SnapshotError::Damaged { path: path.to_path_buf(), reason };
    let mut bytes = fs::read(path).map_err(failed("read", path))?;
    let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
        return Err(damaged("shorter than a header"));
    };
    let number = |at: usize, bytes: usize| {
        head[at..at + bytes].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    };
    let (session, next_sequence, length) = (number(16, 8), number(24, 8), number(32, 8));
    let (name_bytes, checksum) = (number(12, 2) as usize, number(40, 8));
    if &head[..8] != MAGIC {
        return Err(damaged("it does not begin with GAPLSNAP"));
    }
    if head[8..12] != VERSION.to_le_bytes() {
        return Err(damaged("another version of the layout"));
    }
    if crc32c(&head[..52]).to_le_bytes() != head[52..] {
        return Err(damaged("its header's checksum is wrong"));
    }
    if !(1..=SEQUENCE_MAX).contains(&next_sequence) {
        return Err(damaged("no stream comes to its sequence number"));
    }
    let Some((stream, state)) = bytes[HEADER_BYTES..].split_at_checked(name_bytes) else {
        return Err(damaged("shorter than its stream's name"));
    };
    if state.len() as u64 != length || crc64(stream, state) != checksum {
        return Err(damaged("its state's length or checksum is wrong"));
    }
    if state.first_chunk() != Some(&next_sequence.to_le_bytes()) {
        return Err(damaged("its state is behind another record than it says"));
    }
    let Ok(stream) = String::from_utf8(stream.to_vec()) else {
        return Err(damaged("its stream's name is no text"));
    };
    let state = bytes.split_off(HEADER_BYTES + name_bytes);
    Ok(Snapshot { name: Name { stream, session, next_sequence }, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A state behind record `next - 1`.
    fn state(next: u64) -> Vec<u8> {
        [&next.to_le_bytes()[..], &[next as u8; 40]].concat()
    }

    fn written(snapshots: &mut Snapshots, session: u64, next: u64) -> PathBuf {
        assert!(snapshots.write(session, next, &state(next)), "{:?}", snapshots.trouble());
        let name = Name { stream: snapshots.stream.clone(), session, next_sequence: next };
        snapshots.directory.join(name.text())
    }

    /// Session and sequence of what is found, if the application takes those for which `takes`.
    fn found(
        snapshots: &mut Snapshots,
        wanted: Option<u64>,
        takes: impl Fn(u64) -> bool,
    ) -> Result<Option<(u64, u64)>, SnapshotError> {
        let mut next = 0;
        let session = snapshots.newest(wanted, |state| {
            next = u64::from_le_bytes(*state.first_chunk().unwrap());
            takes(next).then_some(()).ok_or(LoadError { what: "a state" })
        })?;
        Ok(session.map(|session| (session, next)))
    }

    fn count(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn the_newest_sound_one_is_found_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut none = Snapshots::of(&dir.path().join("none"), "s");
        assert_eq!(found(&mut none, None, |_| true).unwrap(), None);
        let mut snapshots = Snapshots::of(dir.path(), "s");
        let paths = [5, 900, 77_000].map(|sequence| written(&mut snapshots, 3, sequence));
        assert_eq!(paths.each_ref().map(|path| path.exists()), [false, true, true]);
        assert_eq!(found(&mut snapshots, None, |_| true).unwrap(), Some((3, 77_000)));
        assert!(snapshots.trouble().is_none());
        let sound = fs::read(&paths[2]).unwrap();
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x10;
            fs::write(&paths[2], &bytes).unwrap();
            assert_eq!(found(&mut snapshots, None, |_| true).unwrap(), Some((3, 900)), "{at}");
            let reason = snapshots.trouble();
            assert!(matches!(reason, Some(SnapshotError::Damaged { .. })), "byte {at}: {reason:?}");
        }
        for length in 0..sound.len() {
            fs::write(&paths[2], &sound[..length]).unwrap();
            assert!(matches!(read(&paths[2]), Err(SnapshotError::Damaged { .. })), "{length}");
        }
    }

    #[test]
    fn streams_share_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        // Names within names, and such as look like a session.
        let session = format!("a-{:020}", 3);
        let names = ["a", "a-b", "b", &session];
        let mut all = names.map(|name| Snapshots::of(dir.path(), name));
        for next in 1..9 {
            for (nth, snapshots) in all.iter_mut().enumerate() {
                written(snapshots, 3, next * 10 + nth as u64);
            }
        }
        for (nth, snapshots) in all.iter_mut().enumerate() {
            assert_eq!(found(snapshots, None, |_| true).unwrap(), Some((3, 80 + nth as u64)));
        }
        assert_eq!(count(dir.path()), KEPT * names.len());
        let mut sorted = names;
        sorted.sort_unstable();
        assert_eq!(snapshot_streams(dir.path()).unwrap(), sorted);
        let mut stranger = Snapshots::of(dir.path(), "c");
        assert_eq!(found(&mut stranger, None, |_| true).unwrap(), None);
    }

    #[test]
    fn another_stream_under_this_ones_name_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut ours = Snapshots::of(dir.path(), "ours");
        let own = written(&mut ours, 3, 10);
        let mut theirs = Snapshots::of(dir.path(), "theirs");
        let other = written(&mut theirs, 3, 20);
        fs::rename(other, dir.path().join(own.to_str().unwrap().replace("10.", "20."))).unwrap();
        assert_eq!(found(&mut ours, None, |_| true).unwrap(), Some((3, 10)));
        assert!(ours.trouble().unwrap().to_string().contains("another stream"));
    }

    #[test]
    fn a_reader_takes_the_only_stream_that_there_is() {
        let dir = tempfile::tempdir().unwrap();
        let log = "/var/log/orders";
        assert_eq!(Snapshots::like(dir.path(), log).unwrap().stream, log);
        written(&mut Snapshots::of(dir.path(), "a"), 3, 10);
        assert_eq!(Snapshots::like(dir.path(), log).unwrap().stream, "a");
        written(&mut Snapshots::of(dir.path(), "b"), 3, 10);
        assert_eq!(Snapshots::like(dir.path(), "b").unwrap().stream, "b");
        let several = Snapshots::like(dir.path(), log).unwrap_err();
        assert!(several.to_string().contains("a, b"), "{several}");
    }

    #[test]
    fn an_older_one_does_where_the_newest_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut snapshots = Snapshots::of(dir.path(), "s");
        written(&mut snapshots, 3, 900);
        written(&mut snapshots, 4, 70);
        // The application does not know the newest one's state.
        assert_eq!(found(&mut snapshots, None, |next| next != 70).unwrap(), Some((3, 900)));
        let Some(SnapshotError::State { path, .. }) = snapshots.trouble() else { panic!() };
        assert!(path.ends_with(format!("s-{:020}-{:020}.snapshot", 4, 70)));
        // Another session is wanted.
        assert_eq!(found(&mut snapshots, Some(3), |_| true).unwrap(), Some((3, 900)));
        let reason = snapshots.trouble();
        assert!(matches!(reason, Some(SnapshotError::Session { snapshot: 4, stream: 3 })));
        // None does: the newest one's reason is told.
        let session = found(&mut snapshots, Some(5), |_| true);
        assert!(matches!(session, Err(SnapshotError::Session { snapshot: 4, stream: 5 })));
        let state = found(&mut snapshots, None, |_| false).unwrap_err();
        assert!(matches!(&state, SnapshotError::State { path, .. }
            if path.to_str().unwrap().contains("00070.")));
    }

    #[test]
    fn what_dead_writers_left_goes_and_what_is_being_written_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut snapshots = Snapshots::of(dir.path(), "s");
        let path = written(&mut snapshots, 3, 10);
        let (dead, left) = create(&path).unwrap();
        drop(dead);
        let (alive, writing) = create(&path).unwrap();
        assert_ne!(left, writing);
        let (stranger, others) =
            create(&dir.path().join(path.to_str().unwrap().replace("s-", "t-"))).unwrap();
        drop(stranger);
        written(&mut snapshots, 3, 10);
        assert!(!left.exists() && writing.exists() && others.exists());
        drop(alive);
        written(&mut snapshots, 3, 20);
        assert!(!writing.exists() && others.exists());
        assert_eq!(count(dir.path()), KEPT + 1);
    }

    #[test]
    fn what_cannot_be_written_is_told_and_tried_again() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("file");
        fs::write(&place, b"").unwrap();
        let mut snapshots = Snapshots::of(&place.join("below"), "s");
        assert!(!snapshots.write(3, 10, &state(10)));
        assert!(matches!(snapshots.trouble(), Some(SnapshotError::System { what: "create", .. })));
        fs::remove_file(&place).unwrap();
        let path = written(&mut snapshots, 3, 20);
        assert!(path.exists() && snapshots.trouble().is_none());
        assert_eq!(count(path.parent().unwrap()), 1);
    }

    #[test]
    fn sequences_that_cannot_be_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut snapshots = Snapshots::of(dir.path(), "s");
        written(&mut snapshots, 3, 10);
        written(&mut snapshots, 3, SEQUENCE_MAX);
        assert_eq!(found(&mut snapshots, None, |_| true).unwrap(), Some((3, SEQUENCE_MAX)));
        for next in [0, SEQUENCE_MAX + 1, u64::MAX - 1, u64::MAX] {
            assert!(!snapshots.write(9, next, &state(next)));
            assert_eq!(count(dir.path()), 2, "nothing is left behind");
        }
        // As another program might write them: whole, with right checksums.
        let plant = |next_sequence: u64, inside: u64| {
            let name = Name { stream: "s".to_owned(), session: 9, next_sequence };
            let state = state(inside);
            let bytes = [&header(&name, &state)[..], b"s", &state].concat();
            fs::write(dir.path().join(name.text()), bytes).unwrap();
        };
        for (next, inside) in [(0, 0), (u64::MAX, u64::MAX), (50, 51), (50, u64::MAX)] {
            plant(next, inside);
            assert_eq!(
                found(&mut snapshots, None, |_| true).unwrap(),
                Some((3, SEQUENCE_MAX)),
                "{next} with {inside} inside"
            );
            assert!(matches!(snapshots.trouble(), Some(SnapshotError::Damaged { .. })));
        }
        plant(50, 50);
        assert_eq!(found(&mut snapshots, None, |_| true).unwrap(), Some((9, 50)));
    }
}
