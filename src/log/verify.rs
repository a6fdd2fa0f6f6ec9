//! Checking every byte of a log, and making its indexes again.
//!
//! A byte is in the header of a segment, in a block, or in the zeroes behind the last block, and
//! each of the three has its check. What does not pass is told by file, offset and length, and by
//! the sequence numbers that are lost with it. Nothing is changed; a writer may be at work.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::catalog::{self, SegmentName, read_header};
use super::disk::{Disk, DiskFile, FileSystem};
use super::error::LogError;
use super::finding::{Finding, VerifyReport};
use super::format::{BLOCK_HEADER_BYTES, BlockHeader, IndexEntry, Kind, SEGMENT_HEADER_BYTES};
use super::index::{INTERVAL_BYTES, Index, IndexWriter};
use super::recovery::{self, bytes_behind};
use super::scan::{self, Window, follows, records_sound};

/// A block that a live writer is in the middle of becomes whole within so many looks.
const LOOKS: u32 = 64;

/// Checks the log in `directory`: all checksums, that sequence numbers go on from block to block
/// and from segment to segment, that blocks hold the records that they say, that segments are
/// finished, and that indexes tell the truth.
///
/// `progress` is called now and then with how many bytes have been checked, and how many there are.
/// The segment that a live writer is at is checked as far as it goes; what is begun later is not
/// looked at.
///
/// # Errors
/// [`LogError::NotFound`], [`LogError::Version`]; [`LogError::System`] if something cannot be read.
/// What is wrong with the log is no error but in the report.
pub fn verify(directory: &Path, progress: impl FnMut(u64, u64)) -> Result<VerifyReport, LogError> {
    verify_on(&FileSystem::default(), directory, progress)
}

/// As [`verify`], on a disk of the caller's.
///
/// # Errors
/// As for [`verify`].
pub fn verify_on<D: Disk>(
    disk: &D,
    directory: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<VerifyReport, LogError> {
    let names = catalog::list(disk, directory)?;
    let Some(&last) = names.last() else {
        return Err(LogError::NotFound { directory: directory.to_path_buf() });
    };
    let length = |name: &SegmentName| disk.open(&name.path(directory), false)?.length();
    let total: u64 = names.iter().map(length).filter_map(Result::ok).sum();
    let mut report = VerifyReport::default();
    // Where the segment before ended.
    let mut before: Option<(u64, u64)> = None;
    for &name in &names {
        let path = name.path(directory);
        let file = match disk.open(&path, false) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                before = None; // removed since it was listed, and so was all in front of it
                continue;
            }
            Err(error) => return Err(LogError::system("open", path)(error)),
        };
        if let Some((session, next)) = before
            && session == name.session
            && next != name.first_sequence
        {
            report.findings.push(Finding::between(&path, session, next, name.first_sequence));
        }
        check_header(&file, name, &path, &mut report)?;
        let done = report.bytes;
        let mut expected = IndexRule::default();
        let on_block = |offset: u64, block: &BlockHeader| {
            if block.kind != Kind::Seal && expected.takes(offset) && expected.told % 16 == 1 {
                progress(done + offset, total);
            }
            if block.kind == Kind::Records {
                report.messages += u64::from(block.count);
            }
        };
        let walk = Walk { file: &file, path: &path, name, is_last: name == last };
        let walked = walk.run(&mut report.findings, on_block);
        let walked = walked.map_err(LogError::system("read", &path))?;
        check_index(disk, directory, name, &file, &walked, expected.told, &mut report)?;
        before = Some((name.session, walked.next_sequence));
        report.segments += 1;
        report.bytes += walked.bytes;
        progress(report.bytes.min(total), total);
    }
    Ok(report)
}

/// Which blocks an index has an entry for, seals aside.
#[derive(Default)]
struct IndexRule {
    due: u64,
    told: usize,
}

impl IndexRule {
    fn takes(&mut self, offset: u64) -> bool {
        let takes = offset >= self.due;
        if takes {
            self.due = offset + INTERVAL_BYTES;
            self.told += 1;
        }
        takes
    }
}

fn check_header<F: DiskFile>(
    file: &F,
    name: SegmentName,
    path: &Path,
    report: &mut VerifyReport,
) -> Result<(), LogError> {
    match read_header(file, name, path) {
        Ok(_) => Ok(()),
        Err(LogError::Header { path }) => {
            report.findings.push(Finding::Header { path });
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// The walk through a segment's blocks, over what is damaged.
struct Walk<'a, F> {
    file: &'a F,
    path: &'a Path,
    name: SegmentName,
    /// Nothing is behind it: its end may be torn, or on its way.
    is_last: bool,
}

/// Where a walk has ended.
struct Walked {
    next_sequence: u64,
    /// Length of the file, bytes.
    bytes: u64,
    sealed: bool,
    damaged: bool,
}

impl<F: DiskFile> Walk<'_, F> {
    fn run(
        &self,
        findings: &mut Vec<Finding>,
        mut on_block: impl FnMut(u64, &BlockHeader),
    ) -> io::Result<Walked> {
        let mut window = Window::new();
        let (mut offset, mut next) = (SEGMENT_HEADER_BYTES, self.name.first_sequence);
        let mut damaged = false;
        loop {
            let block = match self.block(&mut window, offset, next)? {
                Some(block) => block,
                None => match self.look_behind(&mut window, offset, next)? {
                    Behind::Whole(block) => block,
                    Behind::Block(at, block) => {
                        damaged = true;
                        findings.push(self.damage(offset, at, next, block.first_sequence));
                        (offset, next) = (at, block.first_sequence);
                        block
                    }
                    Behind::Nothing(bytes) => {
                        findings.extend(self.end(offset, bytes));
                        let (bytes, damaged) = (self.file.length()?, damaged || bytes > 0);
                        return Ok(Walked { next_sequence: next, bytes, sealed: false, damaged });
                    }
                },
            };
            on_block(offset, &block);
            if block.kind == Kind::Lost {
                let (path, first) = (self.path.to_path_buf(), next);
                findings.push(Finding::Lost { path, first, count: block.count.into() });
            }
            offset += u64::from(block.length);
            next = block.end_sequence();
            if block.kind == Kind::Seal {
                let bytes = bytes_behind(self.file, offset)?;
                if bytes > 0 {
                    findings.push(self.damage(offset, offset + bytes, next, next));
                }
                let (bytes, damaged) = (self.file.length()?, damaged || bytes > 0);
                return Ok(Walked { next_sequence: next, bytes, sealed: true, damaged });
            }
        }
    }

    /// The block at `offset`, if it is the next one and whole.
    fn block(
        &self,
        window: &mut Window,
        offset: u64,
        next: u64,
    ) -> io::Result<Option<BlockHeader>> {
        let bytes = window.block(self.file, offset)?;
        let block = BlockHeader::check(bytes);
        let block = block.filter(|block| follows(block, self.name.session, next));
        Ok(block.filter(|block| records_sound(bytes, block)))
    }

    /// What stands at `offset` is no block, as far as was seen: looks again, and behind it.
    #[cold]
    fn look_behind(&self, window: &mut Window, offset: u64, next: u64) -> io::Result<Behind> {
        // The first look was at what is in memory: the file may be ahead of that.
        let mut look_again = |looks: u32| {
            for look in 0..looks {
                window.load(self.file, offset, BLOCK_HEADER_BYTES)?;
                let block = self.block(window, offset, next)?;
                let is_empty = || window.at(offset).iter().take(8).all(|&byte| byte == 0);
                if block.is_some() || is_empty() {
                    return Ok(block);
                }
                if look > 0 {
                    std::thread::yield_now();
                }
            }
            Ok::<_, io::Error>(None)
        };
        if let Some(block) = look_again(if self.is_last { LOOKS } else { 1 })? {
            return Ok(Behind::Whole(block));
        }
        let found = scan::find_block(self.file, self.name.session, offset + 8, next)?;
        let bytes = if found.is_none() { bytes_behind(self.file, offset)? } else { 0 };
        // It may have come meanwhile, and what was found behind it as well.
        if self.is_last
            && let Some(block) = look_again(1)?
        {
            return Ok(Behind::Whole(block));
        }
        Ok(found.map_or(Behind::Nothing(bytes), |(at, block)| Behind::Block(at, block)))
    }

    fn damage(&self, offset: u64, end: u64, first: u64, next: u64) -> Finding {
        let (path, bytes, count) = (self.path.to_path_buf(), end - offset, next - first);
        Finding::Damaged { path, offset, bytes, first, count }
    }

    /// What to say of a segment without a seal, with `bytes` behind its last block. Which messages
    /// those were, the next segment says.
    fn end(&self, offset: u64, bytes: u64) -> Option<Finding> {
        let path = self.path.to_path_buf();
        match (self.is_last, bytes) {
            (true, 0) => None,
            (true, bytes) => Some(Finding::Torn { path, offset, bytes }),
            (false, bytes) => Some(Finding::Unfinished { path, offset, bytes }),
        }
    }
}

/// What is to be found where a block should be.
enum Behind {
    /// The block, after all.
    Whole(BlockHeader),
    /// Another, further on.
    Block(u64, BlockHeader),
    /// No block; so many bytes that are not zero.
    Nothing(u64),
}

fn check_index<D: Disk>(
    disk: &D,
    directory: &Path,
    name: SegmentName,
    file: &D::File,
    walked: &Walked,
    expected: usize,
    report: &mut VerifyReport,
) -> Result<(), LogError> {
    let path = name.index_path(directory);
    let index = Index::read(disk, &path, name);
    let mut wrong = 0;
    let mut before = 0;
    for entry in index.entries() {
        let points = match IndexEntry::decode(entry) {
            Some(entry) if entry.offset > before => {
                before = entry.offset;
                points_to_block(file, name, &entry).map_err(LogError::system("read", &path))?
            }
            _ => false,
        };
        // What a damaged block was is not known.
        wrong += usize::from(!points && !walked.damaged);
    }
    let short = walked.sealed && !walked.damaged && index.entries().len() != expected;
    let why = match (index.is_there(), wrong) {
        // One that is written may have none yet.
        (false, _) if !walked.sealed => return Ok(()),
        (false, _) => "is missing, or is not that of its segment".to_owned(),
        (true, 0) if short => {
            format!("has {} entries, and should have {expected}", index.entries().len())
        }
        (true, 0) if walked.sealed && index.bytes_over() > 0 => "ends in half an entry".to_owned(),
        (true, 0) => return Ok(()),
        (true, wrong) => format!("has {wrong} entries that are wrong"),
    };
    let segment = name.path(directory);
    if disk.open(&segment, false).is_err() {
        return Ok(()); // both were removed meanwhile
    }
    report.findings.push(Finding::Index { path, segment, why });
    Ok(())
}

/// Whether an entry points to the block that it says.
fn points_to_block<F: DiskFile>(
    file: &F,
    name: SegmentName,
    entry: &IndexEntry,
) -> io::Result<bool> {
    let mut head = [0; BLOCK_HEADER_BYTES];
    let have = file.read_full_at(&mut head, entry.offset)?;
    let block = BlockHeader::peek(&head[..have]);
    let sound = |block: BlockHeader| {
        follows(&block, name.session, entry.sequence) && block.first_ns == entry.first_ns
    };
    Ok(block.is_some_and(sound))
}

/// Makes the index of a segment again, from the segment. Whoever reads the log meanwhile is none
/// the worse.
///
/// # Errors
/// [`LogError::WriterAlive`] if the segment is not finished and somebody writes it;
/// [`LogError::Header`] if `segment` has no segment's name; [`LogError::System`].
pub fn rebuild_index(segment: &Path) -> Result<(), LogError> {
    let disk = FileSystem::default();
    let file_name = segment.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let directory = segment.parent().unwrap_or(Path::new(""));
    let Some(name) = SegmentName::parse(file_name) else {
        return Err(LogError::Header { path: segment.to_path_buf() });
    };
    let file = disk.open(segment, false).map_err(LogError::system("open", segment))?;
    let sealed = super::segment::read_seal(&file, name.session);
    let finished = sealed.map_err(LogError::system("read", segment))?.is_some();
    let _lock = (!finished).then(|| recovery::lock(&disk, directory)).transpose()?;
    let new: PathBuf = directory.join(format!("{file_name}.idx.new"));
    let mut index = IndexWriter::create(&disk, &new, name);
    let walk = Walk { file: &file, path: segment, name, is_last: true };
    let walked = walk.run(&mut Vec::new(), |offset, block| {
        if block.kind != Kind::Seal {
            index.note(offset, block);
        }
    });
    walked.map_err(LogError::system("read", segment))?;
    let full = || LogError::system("write", &new)(ErrorKind::StorageFull.into());
    let made = index.finish().ok_or_else(full).and_then(|file| {
        file.sync().map_err(LogError::system("sync", &new))?;
        let renamed = disk.rename(&new, &name.index_path(directory));
        renamed.map_err(LogError::system("rename", &new))
    });
    if made.is_err() {
        let _ = disk.remove(&new); // of no use to anybody
    }
    made
}
