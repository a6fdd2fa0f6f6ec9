//! Logs and rewinders for tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use gapless::log::{LogError, LogOptions, LogReader, ReadFrom, Rewinder, RewinderOptions};
use gapless::{AgentRunner, Flags, RunnerOptions, WaitStrategy};

/// Message `sequence` of every log here.
pub(crate) fn payload(sequence: u64) -> Vec<u8> {
    let length = 8 + (sequence * 7919 % 200) as usize;
    sequence.to_be_bytes().into_iter().cycle().take(length).collect()
}

/// Logs of many small segments and blocks.
pub(crate) fn small() -> LogOptions {
    LogOptions::new().segment_bytes(64 << 10).block_bytes(4 << 10).in_line(true)
}

/// Appends messages to a log, and begins the session if it is new.
pub(crate) fn write(directory: &Path, session: u64, first: u64, count: u64) {
    let (mut log, _) = small().open(directory).unwrap();
    log.begin(session, first).unwrap();
    for sequence in first..first + count {
        log.append(sequence, &payload(sequence), Flags::WHOLE, sequence).unwrap();
    }
    log.flush().unwrap();
}

/// Damages a block in the middle of a log, and says which messages that hits, by its reader.
pub(crate) fn damage(directory: &Path) -> (u64, u64) {
    let mut segments: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    let mut bytes = std::fs::read(&segments[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segments[1], bytes).unwrap();
    let mut reader = LogReader::open(directory, ReadFrom::Oldest).unwrap();
    loop {
        match reader.poll(1000, |_, _| ()) {
            Ok(0) => panic!("nothing is damaged"),
            Ok(_) => {}
            Err(LogError::Damaged { first, count, .. }) => return (first, count),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A rewinder of one log, on any port of this host.
pub(crate) fn rewinder(directory: impl Into<PathBuf>) -> RewinderOptions {
    RewinderOptions::new().log(directory).bind("127.0.0.1:0".parse().unwrap())
}

/// Runs a rewinder on a thread.
pub(crate) fn running(options: &RewinderOptions) -> (SocketAddr, AgentRunner<Rewinder>) {
    let agent = options.open().unwrap();
    let address = agent.addresses().next().unwrap();
    let options = RunnerOptions { core: None, wait: WaitStrategy::SpinYield };
    (address, AgentRunner::spawn(agent, options).unwrap())
}
