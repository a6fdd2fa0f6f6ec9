//! One run: a log is written, trimmed, opened again, read and sought, and compared with a model.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gapless::Flags;
use gapless::log::{
    Disk, DiskFile, LogError, LogOptions, LogReader, LogWriter, Retention, SyncPolicy, retain,
    trim, verify_on,
};
use gapless::protocol::{Random, Session};

use crate::log_proof::{length, payload};
use crate::model::{Course, Cursor, Model, Point};

pub(crate) const SECOND: u64 = 1_000_000_000;

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) messages: u64,
    pub(crate) read: u64,
    pub(crate) segments: u64,
    pub(crate) removed: u64,
    pub(crate) sessions: u64,
    pub(crate) opens: u64,
    pub(crate) seeks: u64,
    pub(crate) gone: u64,
    pub(crate) replays: u64,
}

impl Report {
    fn all(&mut self) -> [&mut u64; 9] {
        [
            &mut self.messages,
            &mut self.read,
            &mut self.segments,
            &mut self.removed,
            &mut self.sessions,
            &mut self.opens,
            &mut self.seeks,
            &mut self.gone,
            &mut self.replays,
        ]
    }

    pub(crate) fn add(&mut self, mut other: Self) {
        self.all().into_iter().zip(other.all()).for_each(|(sum, part)| *sum += *part);
    }

    /// Whether all of it happened.
    pub(crate) fn is_full(&mut self) -> bool {
        self.all().into_iter().all(|count| *count > 0)
    }
}

pub(crate) type Following<D> = Option<(LogReader<D>, Cursor)>;

pub(crate) struct Run<D: Disk> {
    pub(crate) random: Random,
    pub(crate) disk: D,
    pub(crate) directory: PathBuf,
    /// Whether these are real files, which a replay and tools can have.
    pub(crate) real: bool,
    pub(crate) log: LogWriter<D>,
    pub(crate) model: Model,
    pub(crate) now_ns: u64,
    pub(crate) last_ns: u64,
    /// Reads all the time, and is overtaken when the log is trimmed.
    pub(crate) follower: Following<D>,
    /// Is declared, and never overtaken; where it last committed.
    pub(crate) declared: Following<D>,
    pub(crate) committed: Option<Point>,
    pub(crate) report: Report,
}

/// Plays a seed.
pub(crate) fn run<D: Disk>(seed: u64, disk: D, directory: &Path, real: bool) -> Report {
    let mut random = Random::new(seed);
    let (log, recovery) = options(&mut random).open_on(disk.clone(), directory).unwrap();
    assert_eq!(recovery, None);
    let mut run = Run {
        random,
        disk,
        directory: directory.to_path_buf(),
        real,
        log,
        model: Model::default(),
        now_ns: 1000 * SECOND,
        last_ns: 0,
        follower: None,
        declared: None,
        committed: None,
        report: Report::default(),
    };
    run.begin();
    for _ in 0..20 + run.random.below(60) {
        run.step();
    }
    run.log.flush().unwrap();
    run.wrote();
    run.catch_up();
    run.reopen();
    run.verify();
    run.append(1);
    run.catch_up();
    run.report
}

fn options(random: &mut Random) -> LogOptions {
    let sync = match random.below(4) {
        0 => SyncPolicy::Every(Duration::from_secs(1 + random.below(20))),
        1 => SyncPolicy::Batch,
        _ => SyncPolicy::None,
    };
    let mut options = LogOptions::new()
        .sync(sync)
        .in_line(true)
        .segment_bytes((64 << 10) << random.below(3))
        .block_bytes((4 << 10) << random.below(6));
    if random.chance(0.3) {
        options = options.segment_age(Duration::from_secs(random.below(40)));
    }
    match random.below(5) {
        0 => options = options.retention(retention(random)),
        1 => options = options.in_line(false),
        _ => {}
    }
    options
}

fn retention(random: &mut Random) -> Retention {
    let (bytes, age) = (random.below(600 << 10), Duration::from_secs(random.below(200)));
    match random.below(3) {
        0 => Retention { bytes: Some(bytes), age: Some(age) },
        1 => Retention { bytes: Some(bytes), age: None },
        _ => Retention { bytes: None, age: Some(age) },
    }
}

impl<D: Disk> Run<D> {
    fn step(&mut self) {
        match self.random.below(40) {
            0..12 => {
                let count = 1 + self.random.below(30);
                self.append(count);
            }
            12 => self.lose(),
            13..16 => {
                self.log.flush().unwrap();
                self.wrote();
                assert!(!self.log.has_unwritten());
            }
            16 => {
                self.log.sync().unwrap();
                self.wrote();
                assert!(self.log.durable_sequence() <= self.log.written_sequence());
            }
            17 => self.reopen(),
            18 => {
                if self.random.chance(0.4) {
                    self.begin();
                }
            }
            19 | 20 => self.let_go(),
            21..27 => self.seek(),
            27 | 28 => self.seek_back(),
            29..31 => self.replay(),
            31..34 => self.declared(),
            34 => self.seek_follower(),
            _ => self.follow(),
        }
        self.log.tick(self.now_ns).unwrap();
        self.wrote();
        self.look();
        self.follow();
    }

    /// Begins a session; what is no beginning is refused.
    fn begin(&mut self) {
        let before = self.log.position();
        let session = before.map_or(1, |(session, _)| session + 1 + self.random.below(50));
        let first = match self.random.below(4) {
            0 => (1 << 32) - 1 - self.random.below(100),
            1 => 1 + self.random.below(1000),
            _ => 1,
        };
        if let Some((session, next)) = before {
            let refused = self.log.begin(session, next + 1);
            assert!(matches!(refused, Err(LogError::OutOfTurn { .. })));
            let refused = self.log.begin(session - 1, 1);
            assert!(matches!(refused, Err(LogError::OldSession { .. })));
            assert!(self.log.begin(session, next).is_ok());
        }
        self.log.begin(session, first).unwrap();
        self.close_course();
        let (entries, blocks) = (Vec::new(), Vec::new());
        self.model.courses.push(Course { session, first, entries, blocks });
        self.report.sessions += 1;
    }

    /// Everything that was appended has been written; a session without a message leaves no trace.
    fn close_course(&mut self) {
        if let Some(course) = self.model.courses.last_mut() {
            course.write_to(course.end());
        }
        self.model.courses.retain(Course::is_written);
    }

    /// Takes note of what the writer has written.
    pub(crate) fn wrote(&mut self) {
        let written = self.log.written_sequence() + 1;
        let course = self.model.last();
        assert_eq!(self.log.position(), Some((course.session, course.end())));
        course.write_to(written);
    }

    pub(crate) fn append(&mut self, count: u64) {
        for _ in 0..count {
            let random = &mut self.random;
            let len = if random.chance(0.003) { 300 << 10 } else { length(random) };
            let (flags, len) = match random.below(12) {
                0 => (Flags::BEGIN, len),
                1 => (Flags::MIDDLE, len),
                2 => (Flags::END, len),
                3 => (Flags::LOST, 0),
                _ => (Flags::WHOLE, len),
            };
            let mut bytes = Vec::new();
            payload(random.next(), len, &mut bytes);
            self.time_passes();
            let end = self.model.last().end();
            if self.random.chance(0.01) {
                let refused = self.log.append(end + 1, &bytes, flags, self.now_ns);
                assert!(matches!(refused, Err(LogError::OutOfTurn { .. })));
            }
            self.log.append(end, &bytes, flags, self.now_ns).unwrap();
            self.push(Some((bytes, flags)));
            self.report.messages += 1;
            self.wrote();
        }
    }

    /// Time goes on, stands still, leaps, or seems to run backwards.
    fn time_passes(&mut self) {
        let random = &mut self.random;
        match random.below(50) {
            0 => self.now_ns -= SECOND,
            1 => self.now_ns += random.below(20_000) * SECOND,
            2..10 => {}
            _ => self.now_ns += random.below(SECOND / 2),
        }
    }

    /// Adds to the model what was appended.
    fn push(&mut self, message: Option<(Vec<u8>, Flags)>) {
        self.last_ns = self.last_ns.max(self.now_ns);
        self.model.push(message, self.last_ns);
    }

    pub(crate) fn lose(&mut self) {
        self.time_passes();
        let count = self.random.below(20);
        self.log.append_lost(count, self.now_ns).unwrap();
        let course = self.model.last();
        if count > 0 {
            course.write_to(course.end());
        }
        (0..count).for_each(|_| self.push(None));
        self.wrote();
    }

    fn reopen(&mut self) {
        let options = options(&mut self.random);
        // Its lock is to be free first.
        let aside = Path::new(&self.directory).join("aside");
        let (other, _) = LogOptions::new().in_line(true).open_on(self.disk.clone(), aside).unwrap();
        let log = std::mem::replace(&mut self.log, other);
        match self.random.chance(0.3) {
            true => log.close().unwrap(),
            false => drop(log),
        }
        let (mut log, recovery) = options.open_on(self.disk.clone(), &self.directory).unwrap();
        self.close_course();
        let found = recovery.as_ref().map(|found| (found.session, found.next_sequence));
        assert_eq!((found, log.position()), (self.model.end(), self.model.end()));
        assert!(recovery.is_none_or(|found| found.cut.is_none()), "something was cut");
        if self.model.courses.is_empty() {
            log.begin(1, 1).unwrap();
            let (entries, blocks) = (Vec::new(), Vec::new());
            self.model.courses.push(Course { session: 1, first: 1, entries, blocks });
        }
        self.log = log;
        self.report.opens += 1;
        self.look();
    }

    /// Whether the writer waits for what it has others do.
    pub(crate) fn is_in_line(&self) -> bool {
        let options = self.log.options();
        *options == options.clone().in_line(true)
    }

    /// The segments that are there, oldest first.
    fn segments(&self) -> Vec<Point> {
        let name = |name: String| {
            let (session, first) = name.strip_suffix(".log")?.split_once('-')?;
            let session = Session(session.as_bytes().try_into().ok()?).number()?;
            Some((session, first.parse().ok()?))
        };
        let names = self.disk.list(&self.directory).unwrap();
        let mut segments: Vec<_> = names.into_iter().filter_map(name).collect();
        segments.sort_unstable();
        segments
    }

    /// Takes note of where the log begins: never earlier than it did, nor behind who is declared.
    pub(crate) fn look(&mut self) -> Vec<Point> {
        let segments = self.segments();
        self.report.segments = self.report.segments.max(segments.len() as u64);
        let Some(&oldest) = segments.first() else { return segments };
        assert!(oldest >= self.model.oldest, "{oldest:?} came back");
        if let Some(committed) = self.committed
            && oldest > self.model.oldest
        {
            assert!(oldest <= committed, "{oldest:?} is the oldest, {committed:?} is needed");
        }
        self.model.oldest = oldest;
        segments
    }

    /// The log is trimmed, up to a point or by a retention.
    fn let_go(&mut self) {
        let before = self.look();
        if !self.real || before.is_empty() {
            let removed = self.log.retain().unwrap();
            let now = self.look().len();
            let gone = before.len() - now == removed;
            assert!(gone || !self.is_in_line(), "{removed} were said to go");
            self.report.removed += removed as u64;
            return;
        }
        let needed = self.committed.unwrap_or((u64::MAX, 0));
        let removed = if self.random.chance(0.5) {
            let (session, first) = before[self.random.below(before.len() as u64) as usize];
            let sequence = (first + self.random.below(20)).saturating_sub(10);
            let removed = trim(&self.directory, Session::from_number(session), sequence).unwrap();
            let free = (session, sequence).min(needed);
            let goes = before.iter().skip(1).filter(|&&behind| behind <= free).count();
            assert_eq!(removed, goes, "of {before:?}, in front of {free:?}");
            removed
        } else {
            let retention = retention(&mut self.random);
            let lengths: Vec<_> = before.iter().map(|&segment| self.length(segment)).collect();
            let removed = retain(&self.directory, retention, self.now_ns).unwrap();
            if let Retention { bytes: Some(bytes), age: None } = retention {
                let kept = |from: usize| lengths[from..].iter().sum::<u64>();
                let more = before.get(removed + 1).is_some_and(|&behind| behind <= needed);
                assert!(removed == 0 || kept(removed) >= bytes, "too little is left");
                assert!(!more || kept(removed + 1) < bytes, "too much is left");
            }
            removed
        };
        assert_eq!(self.look(), before[removed..]);
        self.report.removed += removed as u64;
    }

    fn length(&self, (session, first): Point) -> u64 {
        let name = format!("{}-{first:020}.log", Session::from_number(session));
        self.disk.open(&self.directory.join(name), false).unwrap().length().unwrap()
    }

    /// The log is as sound as it looks, and has as much.
    fn verify(&mut self) {
        let oldest = self.model.oldest;
        if self.model.end().is_none() {
            return;
        }
        let report = verify_on(&self.disk, &self.directory, |_, _| ()).unwrap();
        assert!(report.is_sound(), "{:?}", report.findings);
        let (mut messages, mut lost) = (0, 0);
        for course in &self.model.courses {
            for sequence in course.first..course.written() {
                let is_there = (course.session, sequence) >= oldest;
                let is_message = course.entry(sequence).message.is_some();
                messages += u64::from(is_there && is_message);
                lost += u64::from(is_there && !is_message);
            }
        }
        let told = report.findings.iter().filter_map(|finding| finding.messages());
        assert_eq!((report.messages, told.map(|(_, count)| count).sum()), (messages, lost));
    }
}
