//! The fuzz targets as plain functions of bytes, so that a stable test replays the corpus.
//!
//! Whatever the bytes, the ring may answer with errors or messages, but must not panic, hang, or
//! hand out more than a message can hold.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use gapless_shm::layout::MESSAGE_MAX_BYTES;
use gapless_shm::{
    ConsumerOptions, Inspector, LockMemory, Message, Mode, RingOptions, Start, ring_path,
};

/// Longest file that is tried as it is.
const FILE_MAX_BYTES: usize = 1 << 20;
const CAPACITY: u64 = 4096;
const FILE_BYTES: u64 = 20480;

fn options(directory: &Path) -> RingOptions {
    RingOptions::new().directory(directory).lock_memory(LockMemory::Never)
}

fn consumer(directory: &Path) -> ConsumerOptions {
    ConsumerOptions::new().directory(directory).lock_memory(LockMemory::Never)
}

/// Touches every byte, so that a slice beyond the mapping is found.
fn look(message: &Message<'_>) {
    assert!(message.payload.len() <= MESSAGE_MAX_BYTES);
    let sum = message.payload.iter().fold(0u64, |sum, &byte| sum.wrapping_add(byte.into()));
    std::hint::black_box(sum);
}

/// Bytes as numbers; nothing but zeros behind their end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn number<const BYTES: usize>(&mut self) -> u64 {
        let mut word = [0; 8];
        let (taken, rest) = self.0.split_at(self.0.len().min(BYTES));
        word[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        u64::from_le_bytes(word)
    }
}

/// In shared memory, where rings live: on a disk they wait for it.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary directory")
}

/// A small ring with two laps of messages.
fn create(directory: &Path, kind: u64) -> gapless_shm::Producer {
    let mode = if kind & 1 == 0 { Mode::Lossless } else { Mode::Lossy };
    let evictable = kind & 2 != 0 && mode == Mode::Lossless;
    let alignment = 16 << (kind >> 2 & 3);
    let options = options(directory).capacity_bytes(CAPACITY).consumer_slots(4);
    let options = options.mode(mode).evictable(evictable).alignment_bytes(alignment);
    let mut producer = options.create("r").expect("a new ring in a new directory");
    for n in 0..150u64 {
        producer.try_publish(&[n as u8; 48][..(n % 49) as usize]).expect("nobody gates");
    }
    producer
}

/// `data` as a whole file (first byte even), or as patches of a sound ring, resealed (odd).
pub fn attach(data: &[u8]) {
    let mut input = Input(data);
    let kind = input.number::<1>();
    let directory = directory();
    let directory = directory.path();
    let path = ring_path(directory, "r").expect("a sound name");
    if kind & 1 == 0 {
        let bytes = &input.0[..input.0.len().min(FILE_MAX_BYTES)];
        fs::write(&path, bytes).expect("room for a file");
    } else {
        drop(create(directory, kind >> 1));
        let file = OpenOptions::new().read(true).write(true).open(&path).expect("the ring");
        while !input.is_empty() {
            let offset = (input.number::<2>() % FILE_BYTES) & !7;
            let word = input.number::<8>();
            file.write_all_at(&word.to_le_bytes(), offset).expect("room in the file");
        }
        let mut header = [0; 212];
        file.read_exact_at(&mut header, 0).expect("a header");
        file.write_all_at(&crc32c::crc32c(&header).to_le_bytes(), 212).expect("room");
    }
    use_it(directory);
}

/// Uses the ring `r` of a directory in every way.
pub fn use_it(directory: &Path) {
    let path = ring_path(directory, "r").expect("a sound name");
    if let Ok(inspector) = Inspector::open_file(&path) {
        // Errors are as good an answer as any, here and below.
        let _ = inspector.snapshot();
        let _ = inspector.verify(|_| ());
        let _ = inspector.records(0, u64::MAX, |record| look(&record.message));
    }
    for start in [Start::Oldest, Start::Now, Start::Sequence(140)] {
        for observer in [false, true] {
            let options = consumer(directory).observer(observer).start(start);
            let Ok(mut consumer) = options.attach("r") else { continue };
            for _ in 0..5 {
                let _ = consumer.poll(1000, |message| look(&message));
            }
            let _ = consumer.producer_status();
        }
    }
    if let Ok(mut producer) = options(directory).attach("r") {
        for n in 0..150usize {
            let len = (n % 49).min(producer.max_message_bytes());
            let _ = producer.try_publish(&[7; 48][..len]);
        }
        let _ = producer.slowest();
    }
}

/// `data` as operations on a live ring: publishes, polls, and words written behind everyone's back.
pub fn mutate(data: &[u8]) {
    let mut input = Input(data);
    let directory = directory();
    let directory = directory.path();
    let mut producer = create(directory, input.number::<1>());
    let mut readers: Vec<_> = [false, true]
        .into_iter()
        .map(|observer| consumer(directory).observer(observer).attach("r").expect("a sound ring"))
        .collect();
    let path = ring_path(directory, "r").expect("a sound name");
    let inspector = Inspector::open_file(&path).expect("a sound ring");
    let file = OpenOptions::new().write(true).open(&path).expect("the ring");
    while !input.is_empty() {
        match input.number::<1>() % 8 {
            0 => {
                let len = input.number::<1>() as usize % 300;
                let _ = producer.try_publish(&vec![1; len.min(producer.max_message_bytes())]);
            }
            1 => {
                for _ in 0..input.number::<1>() {
                    let _ = producer.try_publish(b"sixteen or so ..");
                }
            }
            2 | 3 => {
                for reader in &mut readers {
                    let _ = reader.poll(input.number::<1>() as usize, |message| look(&message));
                }
            }
            4 => {
                let mut batch = producer.batch();
                for _ in 0..input.number::<1>() % 8 {
                    let _ = batch.push(b"one of several");
                }
                batch.commit();
            }
            5 => {
                let _ = inspector.snapshot();
                let _ = inspector.verify(|_| ());
            }
            // Anything but the header page, which nobody reads again.
            _ => {
                let offset = (4096 + input.number::<2>() % (FILE_BYTES - 4096)) & !7;
                let word = input.number::<8>();
                file.write_all_at(&word.to_le_bytes(), offset).expect("room in the file");
            }
        }
    }
    for reader in &mut readers {
        let _ = reader.poll(1000, |message| look(&message));
    }
    let _ = consumer(directory).attach("r");
}
