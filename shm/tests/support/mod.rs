//! What the process tests share: a seeded generator, a stream whose every message is a function of
//! its sequence number, a witness in shared memory that survives its writer, and child processes.
//!
//! A child is this very test binary, run again with an environment variable that says its role.

#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each test binary uses its own part of this module"
)]

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use gapless_shm::{Memory, Message, Producer, PublishError};
use memmap2::MmapRaw;

/// Environment variable that makes a test binary a child; its value is the role.
pub(crate) const ROLE: &str = "GAPLESS_TEST_ROLE";
/// Directory of the test's rings, for the child.
pub(crate) const DIRECTORY: &str = "GAPLESS_TEST_DIRECTORY";

/// SplitMix64: small, seeded, good enough to choose moments and sizes.
pub(crate) struct Rng(u64);

impl Rng {
    /// A generator from `GAPLESS_SEED`, or else from the clock; prints the seed.
    pub(crate) fn from_environment(test: &str) -> Self {
        let clock = || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
            now.map_or(1, |since| since.as_nanos() as u64)
        };
        let seed = std::env::var("GAPLESS_SEED")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(clock);
        println!("{test}: GAPLESS_SEED={seed}");
        Self(seed)
    }

    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

pub(crate) fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Spins for a number of `pause` instructions: a random moment, not a wait for anything.
pub(crate) fn pause(count: u64) {
    for _ in 0..count {
        std::hint::spin_loop();
    }
}

/// Longest message of [`payload`].
pub(crate) const PAYLOAD_MAX_BYTES: usize = 300;

/// The message of a sequence number. Half of them are full of words that look like the commit words
/// of the messages to come: whoever takes payload for a header is found out.
pub(crate) fn payload(sequence: u64, to: &mut Vec<u8>) {
    let h = mix(sequence);
    let len = match h % 8 {
        0 => 0,
        1 => PAYLOAD_MAX_BYTES,
        2 | 3 => (h >> 8) as usize % PAYLOAD_MAX_BYTES,
        _ => (h >> 8) as usize % 57,
    };
    to.clear();
    let forged = h >> 32 & 1 == 0;
    let mut i = 0;
    while to.len() < len {
        let word = if forged {
            looks_committed(sequence + 1 + i % 3)
        } else {
            h.wrapping_add(i * 0x0101_0101)
        };
        to.extend_from_slice(&word.to_le_bytes());
        i += 1;
    }
    to.truncate(len);
}

/// The commit word of an 8-byte message, as the layout documents it.
pub(crate) fn looks_committed(sequence: u64) -> u64 {
    sequence << 32 | 0x83 << 24 | 8
}

/// What the producer does at a sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Publish,
    Claim,
    Truncate,
    AbortFirst,
    AbortBatchFirst,
    Batch(u64),
}

fn op_at(sequence: u64) -> Op {
    match mix(sequence ^ 0x5eed) % 16 {
        0..=5 => Op::Publish,
        6..=7 => Op::Claim,
        8..=9 => Op::Truncate,
        10 => Op::AbortFirst,
        11 => Op::AbortBatchFirst,
        n => Op::Batch(n - 10),
    }
}

/// Messages that become visible at once with the one of `sequence`.
fn together(sequence: u64) -> u64 {
    match op_at(sequence) {
        Op::Batch(messages) => messages,
        _ => 1,
    }
}

/// Does the next thing of the stream: what it is depends on the next sequence number alone.
/// `before(last)` is called when messages up to `last` are about to be committed.
pub(crate) fn step<M: Memory>(
    producer: &mut Producer<M>,
    buffer: &mut Vec<u8>,
    before: impl Fn(u64),
) -> Result<(), PublishError> {
    let first = producer.next_sequence();
    payload(first, buffer);
    match op_at(first) {
        Op::Publish => {
            before(first);
            producer.try_publish(buffer)?;
        }
        Op::Claim => {
            let mut claim = producer.claim(buffer.len())?;
            claim.copy_from_slice(buffer);
            before(first);
            claim.commit();
        }
        Op::Truncate => {
            let mut claim = producer.claim(PAYLOAD_MAX_BYTES + 8)?;
            forge(&mut claim, first);
            claim[..buffer.len()].copy_from_slice(buffer);
            claim.truncate(buffer.len());
            before(first);
            claim.commit();
        }
        Op::AbortFirst => {
            let mut claim = producer.claim(PAYLOAD_MAX_BYTES)?;
            forge(&mut claim, first);
            drop(claim);
            before(first);
            producer.try_publish(buffer)?;
        }
        Op::AbortBatchFirst => {
            let mut batch = producer.batch();
            for _ in 0..3 {
                batch.push(b"never seen")?;
            }
            drop(batch);
            before(first);
            producer.try_publish(buffer)?;
        }
        Op::Batch(messages) => {
            let mut batch = producer.batch();
            for i in 0..messages {
                payload(first + i, buffer);
                batch.push(buffer)?;
            }
            before(first + messages - 1);
            batch.commit();
        }
    }
    Ok(())
}

fn forge(bytes: &mut [u8], first: u64) {
    for (i, chunk) in bytes.chunks_mut(8).enumerate() {
        let word = looks_committed(first + i as u64 % 3).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// A reader's check of the stream.
pub(crate) struct Checker {
    pub(crate) next: u64,
    /// Where the messages that appear together with `next - 1` end.
    together_until: u64,
    buffer: Vec<u8>,
}

impl Checker {
    /// Expects the stream from its first message, number 1.
    pub(crate) fn new() -> Self {
        Self { next: 1, together_until: 1, buffer: Vec::new() }
    }

    /// Expects the stream from `sequence`.
    pub(crate) fn from(sequence: u64) -> Self {
        let mut checker = Self::new();
        checker.skip_to(sequence);
        checker
    }

    pub(crate) fn check(&mut self, message: &Message<'_>) {
        assert_eq!(message.sequence, self.next, "the sequence has a gap");
        payload(self.next, &mut self.buffer);
        assert!(
            message.payload == self.buffer,
            "message {} holds {:x?} instead of {:x?}",
            self.next,
            message.payload,
            self.buffer
        );
        self.skip_to(self.next + 1);
    }

    /// Messages below `sequence` were reported as missed.
    pub(crate) fn skip_to(&mut self, sequence: u64) {
        assert!(sequence >= self.next, "the stream went back");
        while self.together_until < sequence {
            self.together_until += together(self.together_until);
        }
        self.next = sequence;
    }

    /// Whether no batch has been seen in part.
    pub(crate) fn is_between_batches(&self) -> bool {
        self.together_until == self.next
    }
}

/// A few words in a shared file, which outlive whoever wrote them.
pub(crate) struct Witness {
    map: MmapRaw,
}

impl Witness {
    pub(crate) const WORDS: usize = 8;

    /// Opens, or creates zeroed, the witness of a directory.
    pub(crate) fn open(directory: &Path) -> Self {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(directory.join("witness"))
            .expect("the witness file");
        file.set_len(4096).expect("room for the witness");
        let map = MmapRaw::map_raw(&file).expect("a mapping of the witness");
        Self { map }
    }

    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < Self::WORDS);
        let word = self.map.as_mut_ptr().cast::<AtomicU64>().wrapping_add(index);
        // SAFETY: in bounds (asserted), aligned (the mapping starts on a page), mapped as long as
        // `self` lives, and accessed by everybody as an atomic.
        unsafe { &*word }
    }

    pub(crate) fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::SeqCst);
    }

    pub(crate) fn get(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::SeqCst)
    }

    /// Yields until the word is at least `value`; panics if `child` ends before.
    pub(crate) fn wait_for(&self, index: usize, value: u64, child: &mut Process) {
        while self.get(index) < value {
            assert!(child.is_running(), "the child ended before it got there");
            std::thread::yield_now();
        }
    }
}

/// A child process; killed when dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Runs this test binary again as `role`; its `#[test] fn child()` sees the role and directory.
    pub(crate) fn spawn(role: &str, directory: &Path, variables: &[(&str, String)]) -> Self {
        let exe = std::env::current_exe().expect("the path of this test");
        let child = Command::new(exe)
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(DIRECTORY, directory)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("a child process");
        Self { child }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child's state").is_none()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killing our own child");
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("the child's end")
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).expect("a signal to our own child");
    }

    /// SIGSTOP, and waits until the kernel says that it stands.
    pub(crate) fn stop(&self) {
        use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
        self.signal(nix::sys::signal::Signal::SIGSTOP);
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let status = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("the child's state");
        assert!(matches!(status, WaitStatus::Stopped(..)), "stopped, not {status:?}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already: then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A temporary directory in shared memory, where rings live: on a disk they wait for it.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary directory")
}

/// The role of this process and its directory, if it is a child.
pub(crate) fn role() -> Option<(String, PathBuf)> {
    let role = std::env::var(ROLE).ok()?;
    // A child whose test was killed must not run on.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .expect("a signal to ourselves");
    let directory = std::env::var_os(DIRECTORY).expect("a child is told its directory");
    Some((role, directory.into()))
}

/// How many kills of each kind: `GAPLESS_KILLS`, or a few.
pub(crate) fn kills() -> u64 {
    std::env::var("GAPLESS_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}
