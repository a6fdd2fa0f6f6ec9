//! A log with bytes that are not what was written: the input says which.
//!
//! Whatever the damage: no panic, no read without end, and what is handed out is what was recorded.
//! A block that the damage did not touch is handed out.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use gapless::Flags;
use gapless::log::{
    BLOCK_HEADER_BYTES, Disk, DiskFile, FaultyDisk, LogError, LogOptions, LogReader, ReadFrom,
    SEGMENT_HEADER_BYTES, verify_on,
};

use super::Input;

const LOG: &str = "/log";
const FIRST: u64 = 5;
const MESSAGES: u64 = 400;
const SECOND: u64 = 1_000_000_000;

/// A file of the log, by its name, as it was written.
type Written = (String, Vec<u8>);

/// A block of messages: its file, where it is in it, and what it has.
struct Block {
    file: String,
    bytes: Range<usize>,
    messages: Range<u64>,
}

struct Sample {
    files: Vec<Written>,
    blocks: Vec<Block>,
}

fn options() -> LogOptions {
    LogOptions::new().segment_bytes(64 << 10).block_bytes(4 << 10).in_line(true)
}

fn message(sequence: u64) -> Vec<u8> {
    let len = (sequence * 7919 % 700) as usize;
    sequence.to_le_bytes().into_iter().cycle().take(len).collect()
}

fn read(disk: &FaultyDisk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(&Path::new(LOG).join(name), false)?;
    let mut bytes = vec![0; file.length()? as usize];
    file.read_full_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Three segments, the last of them unfinished, and where their blocks are.
fn sample() -> Sample {
    let disk = FaultyDisk::new(1);
    let (mut log, _) = options().open_on(disk.clone(), LOG).expect("a log");
    log.begin(7, FIRST).expect("a session");
    for sequence in FIRST..FIRST + MESSAGES {
        let appended = log.append(sequence, &message(sequence), Flags::WHOLE, sequence * SECOND);
        appended.expect("room");
    }
    drop(log);
    let mut names = disk.list(LOG.as_ref()).expect("a directory");
    names.retain(|name| name.ends_with(".log") || name.ends_with(".idx"));
    names.sort();
    let files: Vec<Written> =
        names.into_iter().map(|name| (name.clone(), read(&disk, &name).expect("a file"))).collect();
    let mut blocks = Vec::new();
    for (name, bytes) in files.iter().filter(|(name, _)| name.ends_with(".log")) {
        let mut at = SEGMENT_HEADER_BYTES as usize;
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        while at + BLOCK_HEADER_BYTES <= bytes.len() && word(at + 8) > 0 {
            let (length, count) = (word(at + 8) as usize, u64::from(word(at + 12)));
            let first = u64::from(word(at + 16)); // the other half is zero
            if word(at + 48) == 0 {
                let (bytes, messages) = (at..at + length, first..first + count);
                blocks.push(Block { file: name.clone(), bytes, messages });
            }
            at += length;
        }
    }
    assert!(files.len() >= 6 && blocks.len() > 20, "{} files", files.len());
    Sample { files, blocks }
}

/// Changes one of the files.
fn damage(input: &mut Input<'_>, files: &mut [Written], blocks: &[Block]) {
    let (how, which) = (input.byte(), usize::from(input.byte()));
    let at = usize::from(input.byte()) | usize::from(input.byte()) << 8;
    let count = files.len();
    let (name, bytes) = &mut files[which % count];
    // In a header more often than not.
    let mine: Vec<_> = blocks.iter().filter(|block| block.file == *name).collect();
    let at = match how & 3 {
        _ if bytes.is_empty() => return,
        0 => at % bytes.len().min(80),
        1 if !mine.is_empty() => mine[(at >> 6) % mine.len()].bytes.start + (at & 63),
        _ => (at | usize::from(input.byte()) << 16) % bytes.len(),
    };
    let at = at.min(bytes.len() - 1);
    let end = (at + 1 + usize::from(input.byte())).min(bytes.len());
    match how >> 2 & 7 {
        0 => bytes.truncate(at),
        1 => bytes[at..].fill(0),
        2 => bytes[at..end].fill(0),
        3 => bytes.copy_within(at..end, at / 2),
        4 => bytes.resize(bytes.len() + at % 10_000, how),
        5 => drop(bytes.drain(at..end)),
        6 => bytes[at] ^= 1 << (how >> 5),
        _ => {
            let new = input.take(end - at);
            bytes[at..at + new.len()].copy_from_slice(new);
        }
    }
}

/// Puts the files on a disk.
fn put(disk: &FaultyDisk, files: &[Written]) {
    disk.create_directory(LOG.as_ref()).expect("a directory");
    for (name, bytes) in files {
        let file = disk.create(&Path::new(LOG).join(name)).expect("a file");
        file.write_all_at(bytes, 0).expect("room");
    }
}

/// Reads to the end, and says which messages were handed out, in order.
fn read_all(mut reader: LogReader<FaultyDisk>) -> Vec<u64> {
    let (mut seen, mut idle) = (Vec::new(), 0);
    for turn in 0.. {
        assert!(turn < 20_000, "a reader comes to no end");
        if idle > 600 {
            break;
        }
        let next = reader.next_sequence();
        match reader.poll(64, |found, _| {
            assert!(found.payload == message(found.sequence), "{} is another", found.sequence);
            assert!(seen.last() < Some(&found.sequence), "{} came again", found.sequence);
            seen.push(found.sequence);
        }) {
            Ok(0) => idle += 1,
            Ok(_) => idle = 0,
            Err(LogError::Damaged { first, count, .. } | LogError::Missing { first, count }) => {
                assert!(first >= next && count > 0, "{count} from {first} on, at {next}");
                idle = 0;
            }
            Err(error) => assert!(!error.is_told(), "{error}"),
        }
        idle += u32::from(reader.next_sequence() == next);
    }
    seen
}

/// A damaged log is verified, read, sought, and written on.
pub fn log(data: &[u8]) {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    let sample = SAMPLE.get_or_init(sample);
    let (mut input, mut files) = (Input(data), sample.files.clone());
    let damages = 1 + input.byte() % 4;
    (0..damages).for_each(|_| damage(&mut input, &mut files, &sample.blocks));
    let disk = FaultyDisk::new(2);
    put(&disk, &files);
    let _ = verify_on(&disk, LOG.as_ref(), |_, _| ()); // whatever it says, it ends

    let open = |from| LogReader::open_on(disk.clone(), LOG, None, from);
    let seen = open(ReadFrom::Oldest).map(read_all);
    if let Ok(seen) = &seen {
        for block in &sample.blocks {
            let (_, bytes) = files.iter().find(|(name, _)| *name == block.file).expect("a file");
            let (_, before) =
                sample.files.iter().find(|(name, _)| *name == block.file).expect("a file");
            let range = block.bytes.clone();
            // In a segment that is written, zeroes are what is not there yet, and nobody looks
            // behind them: there, everything in front of it is to be whole as well.
            let is_last = sample.blocks.last().is_some_and(|last| last.file == block.file);
            let start = if is_last { SEGMENT_HEADER_BYTES as usize } else { range.start };
            let range = start..range.end;
            if bytes.get(range.clone()) == before.get(range) {
                let missed = block.messages.clone().find(|n| seen.binary_search(n).is_err());
                assert_eq!(missed, None, "of {:?} in {}", block.bytes, block.file);
            }
        }
    }
    for _ in 0..2 {
        let at = u64::from(input.byte()) * 2;
        let from = match input.byte() & 3 {
            0 => ReadFrom::UnixNs(at * SECOND),
            1 => ReadFrom::Now,
            _ => ReadFrom::Sequence(at),
        };
        if let Ok(reader) = open(from) {
            read_all(reader);
        }
    }
    if let Ok((mut log, Some(_))) = options().open_on(disk.clone(), LOG) {
        let (_, next) = log.position().expect("it goes on");
        log.append(next, &message(next), Flags::WHOLE, 0).expect("room");
        log.flush().expect("room");
        drop(log);
        let reader = open(ReadFrom::Sequence(next)).expect("what was just written");
        assert_eq!(read_all(reader), [next]);
    }
}
