//! One run: a log is written, crashes, is opened, read, compared and written again, several times.

use std::path::Path;
use std::time::Duration;

use gapless::Flags;
use gapless::log::{
    Cut, Disk, DiskFile, Fault, Faults, FaultyDisk, LogError, LogOptions, LogReader, LogWriter,
    ReadFrom, Recovery, Retention, SyncPolicy,
};
use gapless::protocol::Random;

use crate::log_proof::{length, payload, variable};
use crate::saboteur::{Mistake, Saboteur};

const LOG: &str = "/disk/log";
const SECOND: u64 = 1_000_000_000;

/// What happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) messages: u64,
    pub(crate) read: u64,
    pub(crate) kills: u64,
    pub(crate) outages: u64,
    pub(crate) cuts: u64,
    pub(crate) failed_syncs: u64,
    pub(crate) refused: u64,
    pub(crate) calls: u64,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.read += other.read;
        self.kills += other.kills;
        self.outages += other.outages;
        self.cuts += other.cuts;
        self.failed_syncs += other.failed_syncs;
        self.refused += other.refused;
        self.calls += other.calls;
    }
}

/// What a log should have in one sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// A message of so many bytes, made from this key.
    Message { key: u64, len: usize },
    /// A message that was put on record as lost.
    Lost,
    /// A message that a crash of the host may have taken, and has taken.
    Gone,
}

/// Messages of one session, without a hole.
#[derive(Clone, Debug)]
struct Course {
    session: u64,
    first: u64,
    entries: Vec<Entry>,
}

impl Course {
    fn new(session: u64, first: u64) -> Self {
        Self { session, first, entries: Vec::new() }
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn get(&self, sequence: u64) -> Option<&Entry> {
        self.entries.get(usize::try_from(sequence.checked_sub(self.first)?).ok()?)
    }
}

/// A point in a stream: session, and sequence behind what is meant.
type Point = (u64, u64);

struct Run {
    random: Random,
    disk: FaultyDisk,
    mistake: Option<Mistake>,
    /// What was appended, session by session.
    courses: Vec<Course>,
    /// What was in the log, and what was durable, when they were last asked.
    written: Point,
    durable: Point,
    /// Where the log began, as long as it was known.
    oldest: Point,
    /// What must be there after the last crash.
    promised: Point,
    /// Whether a writer let the system sync when it sees fit, and whether the power was ever cut.
    unpromised: bool,
    outage: bool,
    /// Whether the last writer ended with a sync that failed.
    sync_failed: bool,
    failed_syncs: u64,
    /// Whether nothing more can be asked of the log.
    over: bool,
    /// Whether what happens is told, for a seed that is played alone.
    told: bool,
    /// Whether readers are watched for long at the end of the log.
    deep: bool,
    now_ns: u64,
    report: Report,
}

/// Plays a seed. What is wrong comes back in words.
pub(crate) fn run(seed: u64, mistake: Option<Mistake>) -> Result<Report, String> {
    let mut random = Random::new(seed);
    let disk = FaultyDisk::new(random.next());
    let mut run = Run {
        random,
        disk,
        mistake,
        courses: Vec::new(),
        written: (0, 0),
        durable: (0, 0),
        oldest: (0, 0),
        promised: (0, 0),
        unpromised: false,
        outage: false,
        sync_failed: false,
        failed_syncs: 0,
        over: false,
        told: variable("GAPLESS_LOG_SEED").is_some(),
        deep: seed.is_multiple_of(16),
        now_ns: SECOND,
        report: Report::default(),
    };
    let rounds = 2 + run.random.below(5);
    for round in 0..rounds {
        let said = |what| format!("round {round}: {what}");
        let Some(mut log) = run.open().map_err(said)? else { continue };
        run.read_back().map_err(said)?;
        let ended = run.write(&mut log).map_err(said);
        drop(log);
        ended?;
        run.crash().map_err(said)?;
        if run.over {
            return Ok(run.report);
        }
    }
    let mut log = run.open_calmly()?;
    run.read_back()?;
    run.append_some(&mut log, 10)?;
    log.close().map_err(|error| format!("close: {error}"))?;
    run.note_oldest()?;
    run.disk = run.disk.power_off(1);
    let ended = run.courses.iter().rfind(|course| !course.entries.is_empty());
    run.durable = ended.map_or((0, 0), |course| (course.session, course.end()));
    run.promised = run.durable;
    drop(run.open_calmly()?);
    run.read_back()?;
    run.report.calls = run.disk.calls();
    Ok(run.report)
}

impl Run {
    fn sabotaged(&self) -> Saboteur {
        Saboteur { disk: self.disk.clone(), mistake: self.mistake }
    }

    fn options(&mut self) -> LogOptions {
        let random = &mut self.random;
        let sync = match random.below(4) {
            0 => SyncPolicy::None,
            1 => SyncPolicy::Every(Duration::from_secs(1 + random.below(20))),
            _ => SyncPolicy::Batch,
        };
        let mut options = LogOptions::new()
            .in_line(true)
            .sync(sync)
            .segment_bytes((64 << 10) << random.below(3))
            .block_bytes((4 << 10) << random.below(5))
            .name("a stream");
        if random.chance(0.2) {
            options = options.segment_age(Duration::from_secs(random.below(60)));
        }
        if random.chance(0.2) {
            let (bytes, age) = (Some(random.below(400 << 10)), None);
            options = options.retention(Retention { bytes, age });
        }
        if sync == SyncPolicy::None {
            self.unpromised = true;
        }
        options
    }

    /// Opens the log, perhaps after it crashed several times while it was opened.
    fn open(&mut self) -> Result<Option<LogWriter<Saboteur>>, String> {
        for _ in 0..self.random.below(3) {
            if self.random.chance(0.5) {
                continue;
            }
            self.disk.plan(self.random.below(60), Fault::Death);
            let options = self.options();
            let opened = options.open_on(self.sabotaged(), LOG);
            match opened {
                Err(_) if self.disk.is_dead() => {}
                Err(error) => return Err(format!("does not open: {error}")),
                Ok(_) => {}
            }
            self.crash()?;
        }
        self.open_calmly().map(Some)
    }

    /// Opens the log, and compares what it says with what must be there.
    fn open_calmly(&mut self) -> Result<LogWriter<Saboteur>, String> {
        let faults = Faults { short: 0.05, interrupted: 0.05, ..Faults::default() };
        self.disk.set_faults(faults);
        let before = self.segments();
        let options = self.options();
        let (log, recovery) = options
            .open_on(self.sabotaged(), LOG)
            .map_err(|error| format!("does not open: {error}"))?;
        self.tell(|run| format!("open: {options:?} {recovery:?}, unpromised {}", run.unpromised));
        self.recovered(recovery.as_ref())?;
        if let Some(Recovery { cut, .. }) = recovery {
            self.report.cuts += u64::from(cut.is_some());
            self.check_cut(&before, cut.as_ref())?;
        }
        Ok(log)
    }

    /// Takes note of where the log ends after a crash; it must be between what was promised and
    /// what was appended.
    fn recovered(&mut self, recovery: Option<&Recovery>) -> Result<(), String> {
        let found = recovery.map_or((0, 0), |found| (found.session, found.next_sequence));
        let promised = self.promised;
        if found < promised {
            return Err(format!("{promised:?} was promised, the log ends at {found:?}"));
        }
        if found != (0, 0) {
            let course = self.courses.iter_mut().find(|course| course.session == found.0);
            let Some(course) = course.filter(|course| course.end() >= found.1) else {
                return Err(format!("the log ends at {found:?}, which was never appended"));
            };
            let count = found.1.checked_sub(course.first);
            let count = count.ok_or_else(|| format!("it ends at {found:?}, before it began"))?;
            course.entries.truncate(count as usize);
        }
        self.courses.retain(|course| course.session <= found.0);
        (self.written, self.promised, self.sync_failed) = (found, (0, 0), false);
        Ok(())
    }

    /// Names and contents of the segments.
    fn segments(&self) -> Vec<(String, Vec<u8>)> {
        let Ok(mut names) = self.disk.list(LOG.as_ref()) else { return Vec::new() };
        names.retain(|name| name.ends_with(".log"));
        names.sort();
        let read = |name: String| {
            let file = self.disk.open(&Path::new(LOG).join(&name), false).unwrap();
            let mut bytes = vec![0; file.length().unwrap() as usize];
            file.read_full_at(&mut bytes, 0).unwrap();
            (name, bytes)
        };
        names.into_iter().map(read).collect()
    }

    /// What was cut is what is not there any more.
    fn check_cut(&self, before: &[(String, Vec<u8>)], cut: Option<&Cut>) -> Result<(), String> {
        let after = self.segments();
        let gone = before.len() - after.len();
        let told = cut.map_or(0, |cut| cut.segments);
        if gone != told {
            return Err(format!("{gone} segments were removed, {told} were told of"));
        }
        for ((name, before), (also, after)) in before.iter().zip(&after) {
            if name != also {
                return Err(format!("{name} became {also}"));
            }
            let cut = cut.filter(|cut| cut.path.ends_with(name));
            let offset = cut.map_or(after.len().min(before.len()), |cut| cut.offset as usize);
            // A first page that was not on the disk yet may have been made again.
            let start = if self.outage { offset.min(4096) } else { 0 };
            if before[start..offset] != after[start..offset] {
                return Err(format!("{name} is not what it was, in front of {offset}"));
            }
            let rest = &before[offset..];
            let bytes = rest.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
            if bytes as u64 != cut.map_or(0, |cut| cut.bytes) {
                return Err(format!("{bytes} bytes of {name} were cut, told was {cut:?}"));
            }
            if after[offset..].iter().any(|&byte| byte != 0) {
                return Err(format!("{name} was cut at {offset}, and something is behind"));
            }
        }
        Ok(())
    }

    /// Takes note of where the log begins: it never begins earlier again.
    fn note_oldest(&mut self) -> Result<Vec<String>, String> {
        let names = self.segments();
        if let Some((name, _)) = names.first() {
            let course = self.courses.iter().find(|course| name.starts_with(&text(course.session)));
            let first = name[11..31].parse().map_err(|_| format!("a segment {name}"))?;
            let course = course.ok_or_else(|| format!("a segment of nobody's, {name}"))?;
            self.oldest = self.oldest.max((course.session, first));
        }
        Ok(names.into_iter().map(|(name, _)| name).collect())
    }

    fn crash(&mut self) -> Result<(), String> {
        self.disk = self.disk.kill();
        let names = self.note_oldest()?;
        let mark = Path::new(LOG).join("sync.failed");
        // The process may die before it hears of a failure, or before it has left word of it.
        self.sync_failed |= self.disk.failed_syncs() > self.failed_syncs;
        self.outage |= self.sync_failed; // what was not synced may be gone as well
        self.failed_syncs = self.disk.failed_syncs();
        self.over |= self.sync_failed && self.disk.open(&mark, false).is_err();
        self.promised = self.durable;
        if self.random.chance(0.5) {
            self.report.kills += 1;
            self.tell(|run| {
                format!("killed: written {:?}, durable {:?}", run.written, run.durable)
            });
            if !self.sync_failed {
                self.promised = self.durable.max(self.written);
            }
        } else {
            self.report.outages += 1;
            self.tell(|run| {
                format!(
                    "power off: written {:?}, durable {:?}, {names:#?}",
                    run.written, run.durable
                )
            });
            self.disk = self.disk.power_off(self.random.next());
            self.outage = true;
            self.written = self.durable; // more is not known to be there
        }
        Ok(())
    }

    /// Writes until the process dies, or enough.
    fn write(&mut self, log: &mut LogWriter<Saboteur>) -> Result<(), String> {
        if self.random.chance(0.8) {
            self.disk.plan(self.random.below(500), Fault::Death);
        }
        if self.random.chance(0.3) {
            let rare = [0.0, 0.001, 0.01][self.random.below(3) as usize];
            let rarer = [0.0, 0.01][self.random.below(2) as usize];
            self.disk.set_faults(Faults {
                short: 0.05,
                interrupted: 0.05,
                io_error: rare,
                no_room: rare * 10.0,
                sync_error: rarer,
            });
        }
        let steps = self.random.below(80);
        for _ in 0..steps {
            let count = 1 + self.random.below(12);
            let done = self.append_some(log, count);
            if self.disk.is_dead() {
                break;
            }
            match done {
                Ok(()) => {}
                Err(_) if self.sync_failed => break,
                Err(what) => return Err(what),
            }
            self.take_note(log)?;
        }
        Ok(())
    }

    /// What the writer says about itself.
    fn take_note(&mut self, log: &LogWriter<Saboteur>) -> Result<(), String> {
        let Some((session, next)) = log.position() else { return Ok(()) };
        let appended = self.courses.last().map_or((0, 0), |c| (c.session, c.end()));
        if appended != (session, next) {
            return Err(format!("{appended:?} was appended, the log is at {session}, {next}"));
        }
        let written = (session, log.written_sequence() + 1);
        let durable = (session, log.durable_sequence() + 1);
        if durable > written || written > appended {
            return Err(format!("durable {durable:?}, written {written:?}, {appended:?}"));
        }
        if self.courses.last().is_some_and(|course| written.1 > course.first) {
            self.written = self.written.max(written);
        }
        if durable.1 > 1 && self.written.0 == session {
            self.durable = self.durable.max(durable);
        }
        Ok(())
    }

    fn tell(&self, words: impl FnOnce(&Self) -> String) {
        if self.told {
            println!("{}", words(self));
        }
    }

    /// Whether an error is one that was asked for.
    fn excused(&mut self, what: &str, done: Result<(), LogError>) -> Result<bool, String> {
        let Err(error) = done else { return Ok(true) };
        self.tell(|_| format!("{what}: {error}"));
        match error {
            LogError::SyncFailed { .. } => {
                self.sync_failed = true;
                self.report.failed_syncs += 1;
                Err("a sync failed".to_owned())
            }
            LogError::NoRoom { .. } | LogError::System { .. } => {
                self.report.refused += 1;
                Ok(false)
            }
            error => Err(format!("{what}: {error}")),
        }
    }

    fn append_some(&mut self, log: &mut LogWriter<Saboteur>, count: u64) -> Result<(), String> {
        if log.position().is_none() || self.random.chance(0.02) {
            let session = log.position().map_or(0, |(session, _)| session);
            let session = session + 1 + self.random.below(3);
            let first = [1, 1, 1000][self.random.below(3) as usize];
            let begun = log.begin(session, first);
            if self.excused("begin", begun)? {
                self.courses.push(Course::new(session, first));
            }
        }
        if log.position().is_none() {
            return Ok(());
        }
        for _ in 0..count {
            self.append_one(log)?;
        }
        if self.random.chance(0.03) {
            let lost = log.append_lost(1 + self.random.below(20), self.now_ns);
            self.excused("append_lost", lost)?;
            let end = log.position().map_or(0, |(_, next)| next);
            if let Some(course) = self.courses.last_mut() {
                course.entries.resize((end - course.first) as usize, Entry::Lost);
            }
        }
        if self.random.chance(0.5) {
            let flushed = log.flush();
            self.excused("flush", flushed)?;
        }
        if self.random.chance(0.05) {
            let synced = log.sync();
            if self.excused("sync", synced)? && !log.has_unwritten() {
                let durable = log.durable_sequence();
                if durable != log.written_sequence() {
                    return Err(format!("synced, and only {durable} is durable"));
                }
            }
        }
        let ticked = log.tick(self.now_ns);
        self.excused("tick", ticked).map(|_| ())
    }

    fn append_one(&mut self, log: &mut LogWriter<Saboteur>) -> Result<(), String> {
        let (key, len) = (self.random.next(), length(&mut self.random));
        let mut bytes = Vec::new();
        payload(key, len, &mut bytes);
        self.now_ns += self.random.below(SECOND / 4);
        let Some(course) = self.courses.last() else { return Ok(()) };
        let appended = log.append(course.end(), &bytes, Flags::WHOLE, self.now_ns);
        if self.excused("append", appended)?
            && let Some(course) = self.courses.last_mut()
        {
            course.entries.push(Entry::Message { key, len });
            self.report.messages += 1;
        }
        Ok(())
    }

    /// Reads all of the log, and compares.
    fn read_back(&mut self) -> Result<(), String> {
        let Some(first) = self.first_session()? else { return Ok(()) };
        let disk = self.disk.clone();
        let mut reader = LogReader::open_on(disk, LOG, Some(first), ReadFrom::Oldest)
            .map_err(|error| format!("does not read: {error}"))?;
        let mut at = (first, reader.next_sequence());
        let end = self.courses.last().map_or((0, 0), |course| (course.session, course.end()));
        // A session that was begun, and has no message yet, leaves no trace.
        let last = self.courses.iter().rfind(|course| !course.entries.is_empty());
        let ended = last.map_or((0, 0), |course| (course.session, course.end()));
        let (mut bytes, mut last_ns, mut idle) = (Vec::new(), 0, 0);
        // A reader looks for what is behind once in 256 polls; behind a crash of the host that may
        // be several segments of which nothing is left.
        while idle < 2000 {
            let courses = &self.courses;
            let mut wrong = None;
            let limit = 1 + self.random.below(100) as usize;
            let polled = reader.poll_while(limit, |message, unix_ns| {
                let course = courses.iter().find(|course| course.session == at.0);
                let wanted = course.and_then(|course| course.get(message.sequence));
                let same = match wanted {
                    Some(&Entry::Message { key, len }) => {
                        payload(key, len, &mut bytes);
                        bytes == message.payload
                    }
                    _ => false,
                };
                if message.sequence != at.1 || !same || unix_ns < last_ns {
                    let n = message.sequence;
                    wrong = Some(format!("message {n} at {at:?}, {unix_ns}: {wanted:?}, {same}"));
                    return false;
                }
                (at.1, last_ns) = (at.1 + 1, unix_ns);
                true
            });
            if let Some(wrong) = wrong {
                return Err(wrong);
            }
            match polled {
                Ok(0) if at == end || at == ended => idle += if self.deep { 4 } else { 700 },
                Ok(0) => idle += if self.outage { 1 } else { 7 },
                Ok(read) => (idle, self.report.read) = (0, self.report.read + read as u64),
                Err(
                    LogError::Missing { first, count } | LogError::Damaged { first, count, .. },
                ) => {
                    self.may_lack(at, first, count)?;
                    (at.1, idle) = (first + count, 0);
                }
                Err(LogError::NewSession { session, next }) => {
                    let known = self.courses.iter().find(|course| course.session == at.0);
                    if let Some(course) = known.filter(|course| course.end() > at.1) {
                        let count = course.end() - at.1;
                        self.may_lack(at, at.1, count)?;
                    }
                    at = (session.number().unwrap_or(0), next);
                }
                Err(error) => return Err(format!("at {at:?}: {error}")),
            }
        }
        if at != end && at != ended {
            return Err(format!("it was read up to {at:?}, and ends at {end:?}"));
        }
        Ok(())
    }

    fn first_session(&self) -> Result<Option<u64>, String> {
        let Some((name, _)) = self.segments().into_iter().next() else { return Ok(None) };
        let course = self.courses.iter().find(|course| name.starts_with(&text(course.session)));
        let course = course.ok_or_else(|| format!("a segment of nobody's: {name}"))?;
        let first: u64 = name[11..31].parse().map_err(|_| format!("a segment {name}"))?;
        let begins = (course.session, first).max((course.session, course.first));
        let oldest = self.oldest.max((self.courses[0].session, self.courses[0].first));
        if begins > oldest && course.get(first).is_some() {
            self.may_be_gone(oldest, begins)?;
        }
        Ok(Some(course.session))
    }

    /// Whether the log may begin later than it did.
    fn may_be_gone(&self, oldest: Point, begins: Point) -> Result<(), String> {
        match self.outage && self.unpromised {
            true => Ok(()),
            false => Err(format!("the log began at {oldest:?}, now it does at {begins:?}")),
        }
    }

    /// Whether the log may be without these messages.
    fn may_lack(&mut self, at: Point, first: u64, count: u64) -> Result<(), String> {
        let (oldest, durable) = (self.oldest, self.durable);
        let lossy = self.outage && self.unpromised;
        let last = self.courses.last().is_none_or(|course| course.session == at.0);
        let course = self.courses.iter_mut().find(|course| course.session == at.0);
        let course = course.ok_or("a session of nobody's")?;
        if lossy && !last && (first, count) == (course.end(), 1) {
            return Ok(()); // its seal is gone, and with it the word that nothing else is
        }
        if first != at.1 || count == 0 || first + count > course.end() {
            return Err(format!("at {at:?}, {count} from {first} on were told missing"));
        }
        for sequence in first..first + count {
            let point = (at.0, sequence);
            let Some(entry) = course.entries.get_mut((sequence - course.first) as usize) else {
                return Err(format!("{sequence} is before the session began"));
            };
            match *entry {
                Entry::Lost | Entry::Gone => {}
                Entry::Message { .. } if point < oldest => {}
                Entry::Message { .. } if lossy && point >= durable => *entry = Entry::Gone,
                Entry::Message { .. } => {
                    return Err(format!("{point:?} is missing, {durable:?} is durable"));
                }
            }
        }
        Ok(())
    }
}

/// A session's ten characters.
fn text(session: u64) -> String {
    gapless::protocol::Session::from_number(session).to_string()
}
