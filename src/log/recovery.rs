//! Opening what an earlier writer left: where the log ends, and cutting off what is torn.
//!
//! A block is in the log if its checksum is right and everything in front of it is in the log. What
//! a process wrote before it was killed, the kernel still has: then only the last segment can be
//! torn, at its end. When the host crashed, any page may be missing that was not synced, in any
//! segment that was not: so those are walked as well, oldest first, and the log ends at the first
//! hole. A log that is not synced by policy promises nothing about a crash of the host, and only
//! its last segment is walked: `verify` tells about the others.
//!
//! What is cut off is cut off for good before anything is written in its place: should the power go
//! once more, it must not come back behind what is new.

use std::path::{Path, PathBuf};

use super::catalog::{self, SegmentName, read_header};
use super::disk::{Disk, DiskFile};
use super::error::LogError;
use super::format::{
    BLOCK_HEADER_BYTES, BlockHeader, IndexEntry, Kind, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use super::index::Spacing;
use super::options::LogOptions;
use super::scan::{self, Scanned, Window};
use super::unsynced;

/// Segments that are walked at most after a crash of the host. A writer has at most two that are
/// not synced; each sync of a finished one is waited for before a third is begun.
pub(crate) const UNSYNCED_MAX: usize = 3;

/// The file that a writer holds locked.
pub(crate) const LOCK: &str = "writer.lock";

/// Disks write at least this much at a time, bytes.
const SECTOR: usize = 512;

/// Where a log ends.
pub(crate) struct End<F> {
    pub(crate) name: SegmentName,
    pub(crate) header: SegmentHeader,
    pub(crate) file: F,
    pub(crate) scanned: Scanned,
    /// Bytes behind the end, up to the last that is not zero, unless it is sealed.
    pub(crate) torn_bytes: u64,
    /// What belongs in its index.
    pub(crate) entries: Vec<IndexEntry>,
    /// Segments whose first page is to be written anew.
    pub(crate) headless: Vec<(SegmentName, SegmentHeader)>,
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

/// The segments that have to be walked.
struct Candidates<F> {
    /// Newest first.
    segments: Vec<(SegmentName, SegmentHeader, F)>,
    /// Those among them whose header is lost.
    headless: Vec<(SegmentName, SegmentHeader)>,
    /// Segments of which nothing is there.
    lost: Vec<SegmentName>,
}

fn candidates<D: Disk>(
    disk: &D,
    directory: &Path,
    names: &[SegmentName],
    doubtful: bool,
    writable: bool,
) -> Result<Candidates<D::File>, LogError> {
    // From the end back to a segment behind which nothing can be missing.
    let mut found = Candidates { segments: Vec::new(), headless: Vec::new(), lost: Vec::new() };
    let boot = disk.boot_id();
    for &name in names.iter().rev() {
        let path = name.path(directory);
        let file = disk.open(&path, writable).map_err(LogError::system("open", &path))?;
        match read_header(&file, name, &path) {
            Ok(header) => {
                let known = header.boot == boot && !doubtful || !header.synced;
                found.segments.push((name, header, file));
                if known || found.segments.len() == UNSYNCED_MAX {
                    break;
                }
            }
            Err(error @ LogError::Header { .. }) => {
                let what = lost_header(&file, name).map_err(LogError::system("read", &path))?;
                match what {
                    Lost::Nothing => found.lost.push(name),
                    Lost::HeaderOnly(header) => {
                        found.headless.push((name, header.clone()));
                        found.segments.push((name, header, file));
                    }
                    Lost::Unclear => return Err(error),
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Finds where the log ends. Changes nothing.
pub(crate) fn find_end<D: Disk>(
    disk: &D,
    directory: &Path,
    writable: bool,
) -> Result<Option<End<D::File>>, LogError> {
    let names = catalog::list(disk, directory)?;
    // After a sync that failed, pages may be missing as after a crash.
    let doubtful = unsynced::is_marked(disk, directory)?;
    let Candidates { segments, mut headless, lost } =
        candidates(disk, directory, &names, doubtful, writable)?;
    let walked: Vec<_> = segments.iter().map(|&(name, ..)| name).collect();
    let mut proof = Proof { disk, directory, names: &walked, found: None };
    let mut end: Option<End<D::File>> = None;
    for (name, header, file) in segments.into_iter().rev() {
        if let Some(end) = &end {
            let session_goes_on = end.name.session == name.session;
            let next = end.scanned.next_sequence;
            let hole = lost.iter().any(|&lost| end.name < lost && lost < name);
            let joins = end.scanned.sealed && !hole && name.first_sequence == next;
            let goes_on = match session_goes_on {
                true if joins => true,
                // Its seal is damaged, or what is in front of that, but what is behind it lasts.
                true => {
                    let failed = LogError::system("read", end.name.path(directory));
                    proof.durable_end(name.session).map_err(failed)? > next
                }
                false => end.scanned.sealed && !hole,
            };
            if !goes_on {
                break;
            }
        }
        let path = name.path(directory);
        let written_in_order = header.boot == disk.boot_id() && !doubtful;
        let walked = walk(&file, &header, |next| {
            Ok(written_in_order || proof.durable_end(name.session)? > next)
        });
        let (scanned, entries, torn_bytes) = walked.map_err(LogError::system("read", &path))?;
        let (headless, behind) = (Vec::new(), Vec::new());
        end = Some(End { name, header, file, scanned, entries, torn_bytes, headless, behind });
    }
    let Some(mut end) = end else { return Ok(None) };
    headless.retain(|&(name, _)| name <= end.name);
    end.headless = headless;
    end.behind = names.into_iter().filter(|&name| name > end.name).collect();
    Ok(Some(end))
}

/// Walks a segment, over holes that are no torn tail: `is_damage` is asked whether the message at
/// the hole, and good blocks behind it, cannot have been left so by a crash.
fn walk<F: DiskFile>(
    file: &F,
    header: &SegmentHeader,
    mut is_damage: impl FnMut(u64) -> std::io::Result<bool>,
) -> std::io::Result<(Scanned, Vec<IndexEntry>, u64)> {
    let (mut entries, mut spacing) = (Vec::new(), Spacing::default());
    let mut note = |offset, block: &BlockHeader| entries.extend(spacing.entry(offset, block));
    let mut scanned = scan::scan(file, header, &mut note)?;
    // A header that is lost can be all zeroes, as the end is.
    let mut bytes = 0;
    while !scanned.sealed {
        bytes = bytes_behind(file, scanned.end)?;
        if bytes == 0 {
            break;
        }
        let next = scanned.next_sequence;
        let behind = scan::find_block(file, header.session, scanned.end + 8, next)?;
        let Some((offset, block)) = behind else { break };
        if !is_damage(next)? {
            break;
        }
        (scanned.end, scanned.next_sequence) = (offset, block.first_sequence);
        scanned.whole_from = block.first_sequence;
        scanned = scan::scan_on(file, header.session, scanned, &mut note)?;
        bytes = 0;
    }
    Ok((scanned, entries, bytes))
}

/// How far a session was durable by the word of its own blocks, looked for when it matters.
struct Proof<'a, D> {
    disk: &'a D,
    directory: &'a Path,
    /// The segments that may have such a block: any of them may speak for all in front of it.
    names: &'a [SegmentName],
    /// The session that was looked for, and what was found.
    found: Option<(u64, u64)>,
}

impl<D: Disk> Proof<'_, D> {
    /// The largest `durable_end` of the session in any of the segments.
    fn durable_end(&mut self, session: u64) -> std::io::Result<u64> {
        if let Some((_, largest)) = self.found.filter(|&(found, _)| found == session) {
            return Ok(largest);
        }
        let mut largest = 0;
        for name in self.names.iter().filter(|name| name.session == session) {
            let file = self.disk.open(&name.path(self.directory), false)?;
            let mut at = SEGMENT_HEADER_BYTES;
            while let Some((offset, block)) = scan::find_block(&file, session, at, 0)? {
                largest = largest.max(block.durable_end);
                at = offset + u64::from(block.length);
            }
        }
        self.found = Some((session, largest));
        Ok(largest)
    }
}

/// What became of a segment whose header cannot be read.
enum Lost {
    /// It has no block where its first one should be, and its header was never synced.
    Nothing,
    /// Its first block is there.
    HeaderOnly(SegmentHeader),
    /// It was whole once.
    Unclear,
}

/// A segment gets its name before its first page is on the disk. So a page that was never there, in
/// full or in part, is no damage: nothing was promised about what is behind it.
fn lost_header<F: DiskFile>(file: &F, name: SegmentName) -> std::io::Result<Lost> {
    let mut window = Window::new();
    let first = BlockHeader::check(window.block(file, SEGMENT_HEADER_BYTES)?);
    if let Some(block) = first
        && scan::follows(&block, name.session, name.first_sequence)
    {
        return Ok(Lost::HeaderOnly(SegmentHeader {
            session: name.session,
            first_sequence: name.first_sequence,
            created_unix_ns: block.first_ns,
            boot: [0; 16],
            synced: true,
            enveloped: false,
            name: String::new(),
        }));
    }
    let mut page = vec![0; SEGMENT_HEADER_BYTES as usize];
    let have = file.read_full_at(&mut page, 0)?;
    let zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
    let torn = have < page.len() || zero(&page[..SECTOR]) || zero(&page[have - SECTOR..]);
    let empty = torn || scan::find_block(file, name.session, 0, 0)?.is_none();
    Ok(if empty { Lost::Nothing } else { Lost::Unclear })
}

/// Removes what an earlier writer left in the making.
///
/// # Errors
/// [`LogError::System`].
pub(crate) fn remove_unfinished<D: Disk>(disk: &D, directory: &Path) -> Result<(), LogError> {
    let names = disk.list(directory).map_err(LogError::system("read", directory))?;
    for name in names.iter().filter(|name| name.ends_with(".new")) {
        let _ = disk.remove(&directory.join(name)); // of no account, but for its room
    }
    Ok(())
}

/// Removes segments of which nothing is left, in a log without any other.
pub(crate) fn clear<D: Disk>(disk: &D, directory: &Path) -> Result<(), LogError> {
    remove_all(disk, directory, &catalog::list(disk, directory)?)
}

fn remove_all<D: Disk>(disk: &D, directory: &Path, names: &[SegmentName]) -> Result<(), LogError> {
    // The last first: what is left is the beginning, should this be cut short.
    for name in names.iter().rev() {
        let path = name.path(directory);
        disk.remove(&path).map_err(LogError::system("remove", &path))?;
        let _ = disk.remove(&name.index_path(directory)); // may not be there
    }
    if names.is_empty() {
        return Ok(());
    }
    disk.sync_directory(directory).map_err(|error| {
        unsynced::mark(disk, directory);
        LogError::system("sync", directory)(error)
    })
}

/// Cuts off what stands behind the end, and writes headers that are lost.
pub(crate) fn cut<D: Disk>(
    disk: &D,
    directory: &Path,
    end: &End<D::File>,
    options: &LogOptions,
) -> Result<Option<Cut>, LogError> {
    for (name, header) in &end.headless {
        let path = name.path(directory);
        let (name, enveloped) = (options.name.clone(), options.enveloped);
        let header = SegmentHeader { name, enveloped, ..header.clone() };
        let file = disk.open(&path, true).map_err(LogError::system("open", &path))?;
        let written = file.write_all_at(&header.encode(), 0);
        written.map_err(LogError::system("write", &path))?;
    }
    let path = end.name.path(directory);
    remove_all(disk, directory, &end.behind)?;
    // Behind a seal is nothing, unless the host crashed.
    let boot_changed = end.header.boot != disk.boot_id();
    let doubtful = boot_changed || unsynced::is_marked(disk, directory)?;
    let offset = end.scanned.end;
    let bytes = match end.scanned.sealed {
        false => end.torn_bytes,
        true if doubtful || !end.behind.is_empty() => {
            bytes_behind(&end.file, offset).map_err(LogError::system("read", &path))?
        }
        true => return Ok(None),
    };
    if bytes > 0 {
        // What is cut must never look like a block again, whatever is written in front of it.
        end.file.set_length(offset).map_err(LogError::system("cut", &path))?;
        end.file.sync().map_err(|error| {
            unsynced::mark(disk, directory);
            LogError::system("sync", &path)(error)
        })?;
        if !end.scanned.sealed {
            let length = options.segment_bytes.max(offset);
            end.file.allocate(length).map_err(LogError::system("lengthen", &path))?;
        }
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
        // Nearly always there is nothing, which is found out many bytes at a time.
        let any = buffer[..have].iter().fold(0, |any, &byte| any | byte) != 0;
        let byte = if any { buffer[..have].iter().rposition(|&byte| byte != 0) } else { None };
        if let Some(byte) = byte {
            last = at + byte as u64 + 1;
        }
        if have < buffer.len() {
            return Ok(last - offset);
        }
        at += have as u64;
    }
}

/// The block that ends a segment.
pub(crate) fn seal(
    session: u64,
    next_sequence: u64,
    now_ns: u64,
    durable_end: u64,
) -> [u8; BLOCK_HEADER_BYTES] {
    let mut block = [0; BLOCK_HEADER_BYTES];
    let header = BlockHeader {
        length: BLOCK_HEADER_BYTES as u32,
        count: 0,
        first_sequence: next_sequence,
        first_ns: now_ns,
        last_ns: now_ns,
        session,
        kind: Kind::Seal,
        durable_end,
    };
    header.finish(&mut block);
    block
}

/// Takes the lock of a log's writer.
pub(crate) fn lock<D: Disk>(disk: &D, directory: &Path) -> Result<D::File, LogError> {
    let path = directory.join(LOCK);
    let file = match disk.open(&path, true) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => disk.create(&path),
        other => other,
    };
    let file = file.map_err(LogError::system("open", &path))?;
    match file.try_lock().map_err(LogError::system("lock", &path))? {
        true => Ok(file),
        false => Err(LogError::WriterAlive { directory: directory.to_path_buf() }),
    }
}
