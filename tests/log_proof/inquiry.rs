//! The reading half of a run: seeks, readers that follow, replays.

use gapless::log::{Disk, LogError, LogReader, ReadFrom, Replay, Until};
use gapless::protocol::Session;
use gapless::{Address, Message};

use crate::course::{Run, SECOND};
use crate::model::{Cursor, Model, Point};

const READER: &str = "declared";
/// Polls that find nothing, after which there is nothing: a reader lists once in 256.
const IDLE_POLLS: u32 = 600;

type Handler<'a> = dyn FnMut(Message<'_>, u64) -> bool + 'a;

impl<D: Disk> Run<D> {
    /// A point to begin at, in a session or close to it: more often than not at a bound.
    fn from(&mut self, session: u64, segments: &[Point]) -> ReadFrom {
        let random = &mut self.random;
        let course = self.model.course(session);
        let any = course.first + random.below(course.entries.len() as u64);
        let segment = segments[random.below(segments.len() as u64) as usize];
        let near = match random.below(4) {
            0 => course.block(any.min(course.written() - 1)).end,
            1 if segment.0 == session => segment.1,
            2 => course.written() + random.below(10),
            _ => any,
        };
        let near = (near + random.below(3)).saturating_sub(1);
        let near_ns = || match near.checked_sub(course.first) {
            Some(at) => course.entries.get(at as usize).map_or(u64::MAX, |entry| entry.ns),
            None => 0,
        };
        match random.below(10) {
            0 => ReadFrom::Oldest,
            1 => ReadFrom::Now,
            2..6 => ReadFrom::Sequence(near.saturating_sub(u64::from(near < 3))),
            _ => ReadFrom::UnixNs(near_ns().saturating_add(random.below(3)).saturating_sub(1)),
        }
    }

    /// Whether a reader that was told to go somewhere is there.
    fn check_seek(&self, from: ReadFrom, (session, next): Point) {
        match from {
            ReadFrom::Oldest => assert_eq!(next, self.model.oldest_of(session)),
            ReadFrom::Now => assert_eq!(next, self.model.course(session).written()),
            ReadFrom::Sequence(wanted) => assert_eq!(next, wanted),
            ReadFrom::UnixNs(wanted) => self.model.check_time(session, wanted, next),
        }
    }

    /// Whether it was right to say that a log has not what was asked for.
    fn check_refusal(&self, session: u64, from: ReadFrom, error: &LogError) {
        let gone = session < self.model.oldest.0;
        match (error, from) {
            (LogError::SequenceGone { wanted, oldest }, ReadFrom::Sequence(sequence)) => {
                assert!(*wanted == sequence && wanted < oldest, "{error}");
                // Who has not looked for long may not know better.
                assert!(gone || *oldest <= self.model.oldest_of(session), "{error}");
            }
            (LogError::NotFound { .. } | LogError::SessionUnknown { .. }, _) => assert!(gone),
            _ => panic!("{from:?} of {session}: {error}"),
        }
    }

    /// A new reader goes here and there.
    pub(crate) fn seek(&mut self) {
        let segments = self.look();
        let written: Vec<_> = self.model.courses.iter().filter(|c| c.is_written()).collect();
        if written.is_empty() {
            let opened =
                LogReader::open_on(self.disk.clone(), &self.directory, None, ReadFrom::Oldest);
            assert!(matches!(opened, Err(LogError::NotFound { .. })));
            return;
        }
        let session = written[self.random.below(written.len() as u64) as usize].session;
        let from = self.from(session, &segments);
        self.report.seeks += 1;
        let opened = LogReader::open_on(self.disk.clone(), &self.directory, Some(session), from);
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(error) => {
                self.report.gone += 1;
                return self.check_refusal(session, from, &error);
            }
        };
        self.check_seek(from, (reader.session(), reader.next_sequence()));
        for _ in 0..self.random.below(5) {
            let mut cursor = Cursor::new((reader.session(), reader.next_sequence()));
            for _ in 0..self.random.below(4) {
                self.poll(&mut cursor, |limit, handler| reader.poll_while(limit, handler));
                assert_eq!((reader.session(), reader.next_sequence()), cursor.at);
            }
            let from = self.from(reader.session(), &segments);
            self.report.seeks += 1;
            match reader.seek(from) {
                Ok(()) => self.check_seek(from, (reader.session(), reader.next_sequence())),
                Err(error) => self.check_refusal(reader.session(), from, &error),
            }
        }
    }

    pub(crate) fn seek_back(&mut self) {
        let Some((session, _)) = self.model.end() else { return };
        let segments = self.look();
        let disk = self.disk.clone();
        let mut reader = LogReader::open_on(disk, &self.directory, None, ReadFrom::Now).unwrap();
        let all = self.model.course(session).bytes_from(self.model.oldest_of(session));
        let bytes = self.random.below(all + all / 4);
        reader.seek_back(bytes).unwrap();
        assert_eq!(reader.session(), session);
        let mut cursor = Cursor::new((session, reader.next_sequence()));
        // One that is finished by another thread may be longer yet than what is in it.
        if self.is_in_line() {
            self.model.check_back(cursor.at, bytes, &segments);
        }
        self.poll(&mut cursor, |limit, handler| reader.poll_while(limit, handler));
    }

    /// Polls once, with a handler that may say no, and compares. False if there was nothing.
    fn poll(
        &mut self,
        cursor: &mut Cursor,
        poll: impl FnOnce(usize, &mut Handler<'_>) -> Result<usize, LogError>,
    ) -> bool {
        let limit = 1 + self.random.below(60) as usize;
        let mut refused = self.random.chance(0.3).then(|| self.random.below(limit as u64));
        let (mut given, model) = (0, &mut self.model);
        let polled = poll(limit, &mut |message, unix_ns| {
            assert_ne!(refused, Some(u64::MAX), "it was told to wait");
            if refused == Some(given as u64) {
                refused = Some(u64::MAX);
                return false;
            }
            model.given(cursor, &message, unix_ns);
            given += 1;
            true
        });
        self.report.read += given as u64;
        match polled {
            Ok(read) => assert!(read == given && read <= limit, "{read} of {given}, {limit}"),
            Err(error) => {
                assert_eq!(given, 0, "{error}");
                self.model.told(cursor, &error);
                return true;
            }
        }
        given > 0 || refused == Some(u64::MAX)
    }

    /// Polls a reader that goes on and on.
    fn poll_reader(&mut self, (reader, cursor): &mut (LogReader<D>, Cursor)) -> bool {
        let found = self.poll(cursor, |limit, handler| reader.poll_while(limit, handler));
        assert_eq!((reader.session(), reader.next_sequence()), cursor.at);
        found
    }

    fn reader(&self) -> (LogReader<D>, Cursor) {
        let (disk, session) = (self.disk.clone(), self.model.oldest.0);
        let from = ReadFrom::Oldest;
        let opened = LogReader::open_on(disk, &self.directory, Some(session), from);
        (opened.unwrap(), Cursor::new(self.model.oldest))
    }

    pub(crate) fn follow(&mut self) {
        if self.look().is_empty() {
            return;
        }
        let mut follower = self.follower.take().unwrap_or_else(|| self.reader());
        for _ in 0..self.random.below(4) {
            self.poll_reader(&mut follower);
        }
        self.follower = Some(follower).filter(|_| !self.random.chance(0.01));
    }

    pub(crate) fn seek_follower(&mut self) {
        let segments = self.look();
        let Some((mut reader, _)) = self.follower.take() else { return };
        let session = reader.session();
        let from = self.from(session, &segments);
        match reader.seek(from) {
            // It may still have what was removed under it.
            Ok(()) => match from {
                ReadFrom::Sequence(wanted) => assert_eq!(reader.next_sequence(), wanted),
                ReadFrom::Now => self.check_seek(from, (session, reader.next_sequence())),
                _ => {}
            },
            Err(error) => self.check_refusal(session, from, &error),
        }
        let cursor = Cursor::new((reader.session(), reader.next_sequence()));
        self.follower = Some((reader, cursor));
    }

    /// The declared reader reads, commits, goes away, comes back, or takes its word back.
    pub(crate) fn declared(&mut self) {
        if self.look().is_empty() {
            return;
        }
        let mut declared = self.declared.take().unwrap_or_else(|| {
            let (mut reader, mut cursor) = self.reader();
            let known = reader.declare(READER).unwrap();
            assert_eq!(known, self.committed.is_some());
            cursor.at = self.committed.unwrap_or(cursor.at);
            assert_eq!((reader.session(), reader.next_sequence()), cursor.at);
            self.committed = Some(cursor.at);
            (reader, cursor)
        });
        for _ in 0..self.random.below(12) {
            self.poll_reader(&mut declared);
        }
        if self.random.chance(0.7) {
            declared.0.commit().unwrap();
            self.committed = Some(declared.1.at);
        }
        if self.real && self.random.chance(0.05) {
            assert!(gapless::log::forget_reader(&self.directory, READER).unwrap());
            self.committed = None;
            return;
        }
        self.declared = Some(declared).filter(|_| self.random.chance(0.7));
    }

    /// Readers come to the end of the log.
    pub(crate) fn catch_up(&mut self) {
        self.look();
        self.log.flush().unwrap();
        self.wrote();
        let Some(end) = self.model.end() else { return };
        let mut reader = self.follower.take().unwrap_or_else(|| self.reader());
        let mut idle = 0;
        while idle < IDLE_POLLS {
            idle = if self.poll_reader(&mut reader) { 0 } else { idle + 1 };
        }
        assert!(reader.1.at >= end, "it was read to {:?}, not {end:?}", reader.1.at);
        self.follower = Some(reader);
    }

    /// A replay, from somewhere until somewhere, while more is recorded.
    pub(crate) fn replay(&mut self) {
        let segments = self.look();
        let Some(end) = self.model.end().filter(|_| self.real) else { return };
        let session = segments[self.random.below(segments.len() as u64) as usize].0;
        let (from, until) = (self.from(session, &segments), self.from(session, &segments));
        let text = |point| match point {
            ReadFrom::Oldest => "oldest".to_owned(),
            ReadFrom::Now => "now".to_owned(),
            ReadFrom::Sequence(sequence) => sequence.to_string(),
            ReadFrom::UnixNs(ns) => format!("@{}.{:09}", ns / SECOND, ns % SECOND),
        };
        let (directory, name) = (self.directory.display(), Session::from_number(session));
        let mut address = format!("log:{directory}?session={name}&from={}", text(from));
        let until = match until {
            ReadFrom::Sequence(sequence) => Some(Until::Sequence(sequence)),
            ReadFrom::UnixNs(ns) => Some(Until::UnixNs(ns)),
            _ => None,
        };
        match until {
            Some(Until::Sequence(sequence)) => address += &format!("&until={sequence}"),
            Some(Until::UnixNs(ns)) => address += &format!("&until={}", text(ReadFrom::UnixNs(ns))),
            None => {}
        }
        let Address::Log(address) = address.parse().unwrap() else { panic!("it is a log's") };
        let mut replay = match Replay::open(&address) {
            Ok(replay) => replay,
            Err(error) => return self.check_refusal(session, from, &error),
        };
        let mut cursor = Cursor::new((session, replay.next_sequence()));
        self.check_seek(from, cursor.at);
        self.report.replays += 1;
        if self.random.chance(0.5) {
            self.append(1);
            self.lose();
            self.look();
        }
        self.play(&mut replay, &mut cursor, until, end);
    }

    /// Plays a replay to its end, and compares.
    fn play(&mut self, replay: &mut Replay, cursor: &mut Cursor, until: Option<Until>, end: Point) {
        let began = cursor.at;
        let before = |model: &Model, (session, sequence): Point| match until {
            Some(Until::Sequence(until)) => sequence < until,
            Some(Until::UnixNs(until)) => model.course(session).time(sequence) < until,
            None => true,
        };
        let mut polls = 0;
        while !replay.is_ended() {
            polls += 1;
            assert!(polls < 100_000, "a replay from {began:?} until {until:?} has no end");
            let at = cursor.at;
            self.poll(cursor, |limit, handler| replay.poll_while(limit, handler));
            if cursor.at == at {
                continue;
            }
            assert!(at < end, "{at:?} to {:?} is behind the end {end:?}", cursor.at);
            let (session, next) = cursor.at;
            if session == at.0 && self.model.course(session).entry(next - 1).message.is_some() {
                assert!(before(&self.model, (session, next - 1)), "{next} is behind {until:?}");
            }
        }
        let at = cursor.at;
        assert!(at >= end || !before(&self.model, at), "{began:?} until {until:?} ended at {at:?}");
        assert!(at <= end.max(began), "it went on to {at:?}, behind the end {end:?}");
    }
}
