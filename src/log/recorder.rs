//! Ring to log: an agent that records a stream.
//!
//! It is one more consumer of the ring. What has accumulated since its last turn is appended and
//! written at once: a lone message within microseconds, a flood in blocks. Syncs are made by a
//! thread of the log's own, so that the ring is read on while the disk works.

mod options;

use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gapless_shm::{
    Consumer, Counters, CountersOptions, PollError, ProducerStatus, RingError, session_text,
};

use super::disk::{Disk, FileSystem};
use super::error::LogError;
use super::overlap::{Overlap, attach};
use super::past::Past;
use super::writer::{LogWriter, Recovery};
use crate::address::ShmAddress;
use crate::agent::Agent;
use crate::recorder_page;

pub use options::{RecorderOptions, WhenSlow};

/// Messages taken from the ring in one turn, at most: otherwise as many as fill a block.
const TURN_MESSAGES: usize = 16 << 10;
/// Time between two copies of the counters to their page.
const PAGE_PERIOD_NS: u64 = 1_000_000;
/// Time between two attempts at what the disk refused, or at finding a new ring.
const RETRY: Duration = Duration::from_millis(20);
/// Turns that found nothing between two looks at the publisher.
const LOOK_TURNS: u32 = 1024;

const COUNTERS: [&str; 12] = [
    "messages",
    "bytes",
    "written-sequence",
    recorder_page::FIRST,
    recorder_page::DURABLE,
    "missing",
    "lapped",
    "refilled",
    "lost",
    "no-room",
    recorder_page::SESSION,
    "cut-bytes",
];

/// Which of them is the session.
const SESSION_AT: usize = 10;
const _: () = assert!(matches!(COUNTERS[SESSION_AT].as_bytes(), b"session"));

/// What a recorder has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecorderCounts {
    /// Messages appended.
    pub messages: u64,
    /// Bytes of payload appended.
    pub bytes: u64,
    /// Messages that were overwritten in the ring before they were recorded.
    pub lapped: u64,
    /// Messages that were got from elsewhere.
    pub refilled: u64,
    /// Messages put on record as lost.
    pub lost: u64,
    /// Times that the disk had no room.
    pub no_room: u64,
}

/// Records a ring into a log.
///
/// ```
/// use gapless::log::{LogReader, ReadFrom, Recorder, RecorderOptions};
/// use gapless::{Address, Agent, Publisher};
/// # let dir = tempfile::tempdir()?;
/// # let text = format!("shm:orders?capacity=64K&dir={}", dir.path().display());
/// # let text = text.as_str();
/// // let text = "shm:orders";
/// let mut publisher = Publisher::open(text)?;
/// let Address::Shm(ring) = text.parse()? else { unreachable!() };
/// # let directory = dir.path().join("log");
/// // let directory = "/var/log/orders";
/// let mut recorder = Recorder::open(&ring, &directory, &RecorderOptions::new())?;
///
/// publisher.try_publish(b"buy 100 SBER")?;
/// recorder.duty_cycle()?; // in this thread; or on one of its own, by an `AgentRunner`
///
/// let mut reader = LogReader::open(&directory, ReadFrom::Oldest)?;
/// let read = reader.poll(64, |message, _| assert_eq!(message.payload, b"buy 100 SBER"))?;
/// assert_eq!(read, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Recorder<D: Disk = FileSystem> {
    name: String,
    ring: ShmAddress,
    options: RecorderOptions,
    consumer: Consumer,
    writer: LogWriter<D>,
    recovery: Option<Recovery>,
    /// What the log has, and the ring brings once more.
    overlap: Option<Overlap<D>>,
    /// What the ring has not any more, and the log has not yet.
    missing: Range<u64>,
    past: Option<Past>,
    /// Since when the past has had nothing.
    patient_since: Option<Instant>,
    counts: RecorderCounts,
    page: Option<Counters>,
    page_due_ns: u64,
    told_durable: u64,
    /// Sequence behind the last message that stands in the ring as lost.
    lost_end: u64,
    /// What the disk refused, and when it is tried again.
    trouble: Option<LogError>,
    retry_at: Option<Instant>,
    idle_turns: u32,
    /// Whether the publisher has gone, and left nothing more in the ring.
    gone: bool,
}

impl Recorder<FileSystem> {
    /// Opens the log in `directory`, attaches to the ring, and goes on where the log ends.
    ///
    /// # Errors
    /// [`LogError`]: among others that there is no such ring, that the log has another writer, or
    /// that it belongs to a later session than the ring.
    pub fn open(
        ring: &ShmAddress,
        directory: impl Into<PathBuf>,
        options: &RecorderOptions,
    ) -> Result<Self, LogError> {
        Self::open_on(FileSystem::default(), ring, directory, options)
    }
}

impl<D: Disk> Recorder<D> {
    /// As [`open`](Recorder::open), on a disk of the caller's.
    ///
    /// # Errors
    /// As for [`open`](Recorder::open).
    pub fn open_on(
        disk: D,
        ring: &ShmAddress,
        directory: impl Into<PathBuf>,
        options: &RecorderOptions,
    ) -> Result<Self, LogError> {
        let log = options.log.clone().name(ring.name()).enveloped(ring.envelope.is_some());
        let (writer, recovery) = log.open_on(disk, directory)?;
        let consumer = attach(ring, options.observes(), writer.position())?;
        let page = match options.counters {
            true => {
                let page = CountersOptions::new().directory(ring.directory());
                let name = RecorderOptions::page_name(ring.name());
                Some(page.open(&name, "recorder", &COUNTERS, &[])?)
            }
            false => None,
        };
        let mut recorder = Self {
            name: format!("recorder {}", ring.name()),
            ring: ring.clone(),
            options: options.clone(),
            consumer,
            writer,
            recovery,
            overlap: None,
            missing: 0..0,
            past: None,
            patient_since: None,
            counts: RecorderCounts::default(),
            page,
            page_due_ns: 0,
            told_durable: u64::MAX,
            lost_end: 0,
            trouble: None,
            retry_at: None,
            idle_turns: 0,
            gone: false,
        };
        recorder.begin()?;
        recorder.show(unix_ns(), true);
        Ok(recorder)
    }

    /// Sets the log to where the ring is, or sees what is missing in between, or there already.
    fn begin(&mut self) -> Result<(), LogError> {
        self.consumer.hold(self.consumer.place());
        (self.lost_end, self.overlap) = (0, None);
        let (session, next) = (self.consumer.session(), self.consumer.next_sequence());
        match self.writer.position() {
            Some((current, expected)) if current == session && expected < next => {
                self.miss(expected..next);
                Ok(())
            }
            Some((current, expected)) if current == session && expected > next => {
                self.overlap = Some(Overlap::open(&self.writer, session, next, expected));
                Ok(())
            }
            _ => self.writer.begin(session, next),
        }
    }

    fn miss(&mut self, missing: Range<u64>) {
        let session = self.consumer.session();
        self.counts.lapped += missing.end - missing.start;
        let sources = self.options.refill.clone();
        self.past = (!sources.is_empty()).then(|| Past::new(sources, session, missing.start));
        self.missing = missing;
    }

    /// What an earlier recorder of this log left, and what of it was cut off.
    pub fn recovery(&self) -> Option<&Recovery> {
        self.recovery.as_ref()
    }

    /// The log.
    pub fn writer(&self) -> &LogWriter<D> {
        &self.writer
    }

    /// What has been done so far.
    pub fn counts(&self) -> RecorderCounts {
        self.counts
    }

    /// What keeps the recorder from writing, at the moment: a full disk. It tries again by itself.
    pub fn trouble(&self) -> Option<&LogError> {
        self.trouble.as_ref()
    }

    /// Sequence of the next message to be recorded.
    pub fn next_sequence(&self) -> u64 {
        self.writer.position().map_or(0, |(_, next)| next)
    }

    /// Whether the publisher has gone and all that it left is in the log. Found out within a
    /// thousand idle turns or so; no longer so when a publisher comes back.
    pub fn is_done(&self) -> bool {
        self.gone && self.missing.is_empty() && !self.writer.has_unwritten()
    }

    /// Writes and syncs everything, and finishes the log's segment.
    ///
    /// # Errors
    /// As for [`LogWriter::close`].
    pub fn close(mut self) -> Result<(), LogError> {
        let synced = self.writer.sync();
        self.show(unix_ns(), true);
        synced?;
        self.writer.close()
    }

    /// Takes from the ring what there is.
    fn take(&mut self) -> Result<usize, LogError> {
        if self.overlap.is_some() { self.compare() } else { self.record() }
    }

    /// Takes what the log has already.
    #[cold]
    fn compare(&mut self) -> Result<usize, LogError> {
        let Some(overlap) = &mut self.overlap else { return Ok(0) };
        let mut failed = None;
        let polled = self.consumer.poll_while(TURN_MESSAGES, |message| {
            overlap.has(&message).unwrap_or_else(|error| {
                failed = Some(error);
                false
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if self.consumer.next_sequence() >= overlap.end() {
            self.overlap = None;
        }
        self.consumer.hold(self.consumer.place());
        polled.or_else(|error| self.interrupted(error))
    }

    /// Takes what is new.
    fn record(&mut self) -> Result<usize, LogError> {
        let (writer, counts, lost_end) = (&mut self.writer, &mut self.counts, &mut self.lost_end);
        let (mut failed, mut now) = (None, None);
        let polled = self.consumer.poll_while(TURN_MESSAGES, |message| {
            if !writer.takes(message.payload.len()) {
                return false; // it begins the next block
            }
            let now = *now.get_or_insert_with(unix_ns);
            match writer.append(message.sequence, message.payload, message.flags, now) {
                Ok(()) => {
                    counts.bytes += message.payload.len() as u64;
                    if message.flags.is_lost() {
                        *lost_end = message.sequence + 1;
                    }
                    true
                }
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        });
        let taken = match polled {
            Ok(taken) => taken,
            Err(error) => return self.interrupted(error),
        };
        self.counts.messages += taken as u64;
        self.gone &= taken == 0;
        match failed {
            Some(error) => Err(error),
            None => {
                if self.writer.has_unwritten() {
                    self.writer.flush()?;
                    // The publisher may overwrite what is in the log, and not before.
                    self.consumer.hold(self.consumer.place());
                }
                Ok(taken)
            }
        }
    }

    #[cold]
    fn interrupted(&mut self, error: PollError) -> Result<usize, LogError> {
        match error {
            PollError::Lapped { missed, resumed_at } => {
                let first = resumed_at.saturating_sub(missed).max(self.next_sequence());
                if first < resumed_at {
                    self.miss(first..resumed_at);
                }
                Ok(1)
            }
            PollError::Evicted { .. } => {
                let position = self.writer.position();
                self.consumer = attach(&self.ring, self.options.observes(), position)?;
                self.begin().map(|()| 1)
            }
            error => Err(error.into()),
        }
    }

    /// Gets what was missed from elsewhere, or puts on record that it is lost.
    #[cold]
    fn refill(&mut self) -> Result<usize, LogError> {
        let end = self.missing.end;
        let Some(past) = &mut self.past else { return self.give_up() };
        let (writer, counts) = (&mut self.writer, &mut self.counts);
        let mut failed = None;
        let polled = past.poll_while(TURN_MESSAGES, |message, unix_ns| {
            if message.sequence >= end || failed.is_some() {
                return false;
            }
            match writer.append(message.sequence, message.payload, message.flags, unix_ns) {
                Ok(()) => {
                    counts.bytes += message.payload.len() as u64;
                    true
                }
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        });
        let next = self.writer.position().map_or(end, |(_, next)| next);
        self.missing.start = next.min(end);
        if let Some(error) = failed {
            return Err(error);
        }
        match polled {
            Ok(taken) if taken > 0 => {
                self.counts.messages += taken as u64;
                self.counts.refilled += taken as u64;
                self.patient_since = None;
                self.writer.flush()?;
                Ok(taken)
            }
            Ok(_) if self.missing.is_empty() => self.record(),
            Err(LogError::Missing { first, count } | LogError::Damaged { first, count, .. })
                if first == self.missing.start =>
            {
                self.lose(count.min(end - first))
            }
            // It may come: another recorder is behind as well, or a server is away for a while.
            Ok(_) | Err(_) => {
                let now = Instant::now();
                let since = *self.patient_since.get_or_insert(now);
                match now.duration_since(since) < self.options.patience {
                    true => Ok(0),
                    false => self.give_up(),
                }
            }
        }
    }

    fn give_up(&mut self) -> Result<usize, LogError> {
        self.lose(self.missing.end - self.missing.start)
    }

    fn lose(&mut self, count: u64) -> Result<usize, LogError> {
        let before = self.next_sequence();
        let said = self.writer.append_lost(count, unix_ns());
        let lost = self.next_sequence() - before;
        self.missing.start += lost;
        self.counts.lost += lost;
        said.map(|()| 1)
    }

    /// Looks whether the publisher has gone and a new ring has come in the place of this one.
    #[cold]
    fn look_for_ring(&mut self) -> Result<usize, LogError> {
        if self.consumer.producer_status() == ProducerStatus::Alive {
            self.gone = false;
            return Ok(0);
        }
        // What it published before it went is there now.
        let taken = self.take()?;
        self.gone = taken == 0;
        if taken > 0 || self.retry_at.is_some_and(|at| Instant::now() < at) {
            return Ok(taken);
        }
        self.retry_at = Some(Instant::now() + RETRY);
        match attach(&self.ring, self.options.observes(), self.writer.position()) {
            Ok(consumer) if consumer.producer_status() == ProducerStatus::Alive => {
                self.consumer = consumer;
                self.gone = false;
                self.begin().map(|()| 1)
            }
            Ok(_) | Err(LogError::Ring(RingError::NotFound { .. })) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Copies the counters to their page.
    fn show(&mut self, now_ns: u64, force: bool) {
        let durable = self.writer.durable_sequence();
        let shown = self.page_due_ns.saturating_sub(PAGE_PERIOD_NS)..self.page_due_ns;
        if shown.contains(&now_ns) && durable == self.told_durable && !force {
            return;
        }
        self.page_due_ns = now_ns + PAGE_PERIOD_NS;
        self.told_durable = durable;
        let counts = self.counts;
        let cut = self.recovery.as_ref().and_then(|recovery| recovery.cut.as_ref());
        let values = [
            counts.messages,
            counts.bytes,
            self.writer.written_sequence(),
            self.writer.whole_from().max(self.lost_end),
            durable,
            self.missing.end - self.missing.start,
            counts.lapped,
            counts.refilled,
            counts.lost,
            counts.no_room,
            self.consumer.session(),
            cut.map_or(0, |cut| cut.bytes),
        ];
        if let Some(page) = &mut self.page {
            if page.get(SESSION_AT) != self.consumer.session() {
                page.set(SESSION_AT, 0); // nothing is said of either while the others change
            }
            for (index, value) in values.into_iter().enumerate() {
                page.set(index, value);
            }
        }
    }
}

fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

impl<D: Disk> Agent for Recorder<D> {
    type Error = LogError;

    fn name(&self) -> &str {
        &self.name
    }

    /// Connecting to a rewinder, to refill, can take a second. A full disk is no error:
    /// [`trouble`](Self::trouble) and the counters page tell of it, and recording goes on when
    /// there is room.
    ///
    /// # Errors
    /// [`LogError::Conflict`] if the ring has another message than the log of the same number;
    /// what else the disk or the ring refuses.
    fn duty_cycle(&mut self) -> Result<usize, LogError> {
        if self.trouble.is_some() {
            if self.retry_at.is_some_and(|at| Instant::now() < at) {
                return Ok(0);
            }
            self.trouble = None;
        }
        let look = self.idle_turns >= LOOK_TURNS;
        let done = match self.missing.is_empty() {
            true if look => self.look_for_ring(),
            true => self.take(),
            false => self.refill(),
        };
        let now_ns = unix_ns();
        let done = match done {
            Err(error) if error.is_no_room() => {
                self.counts.no_room += 1;
                self.trouble = Some(error);
                self.retry_at = Some(Instant::now() + RETRY);
                0
            }
            other => other?,
        };
        self.writer.tick(now_ns)?;
        self.show(now_ns, false);
        let idle = done == 0 && !look;
        self.idle_turns = if idle { self.idle_turns + 1 } else { 0 };
        Ok(done)
    }
}

impl<D: Disk> std::fmt::Debug for Recorder<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder")
            .field("name", &self.name)
            .field("session", &session_text(self.consumer.session()))
            .field("next_sequence", &self.next_sequence())
            .field("missing", &self.missing)
            .field("counts", &self.counts)
            .finish_non_exhaustive()
    }
}
