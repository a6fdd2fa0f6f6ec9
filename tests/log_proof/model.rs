//! What a log should hold, in plain vectors, and what reading it may bring.

use std::ops::Range;

use gapless::log::LogError;
use gapless::{Flags, Message};

/// A point in a stream: session, and sequence of the message that comes next.
pub(crate) type Point = (u64, u64);

/// What a log should have in one sequence number.
pub(crate) struct Entry {
    /// The message; `None` if it was put on record as lost.
    pub(crate) message: Option<(Vec<u8>, Flags)>,
    /// When it was appended; never earlier than the one before.
    pub(crate) ns: u64,
    /// The time that readers were told.
    told_ns: Option<u64>,
}

/// Messages of one session, without a hole.
pub(crate) struct Course {
    pub(crate) session: u64,
    pub(crate) first: u64,
    pub(crate) entries: Vec<Entry>,
    /// Sequences behind the blocks that were written.
    pub(crate) blocks: Vec<u64>,
}

impl Course {
    pub(crate) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Sequence behind what was written.
    pub(crate) fn written(&self) -> u64 {
        self.blocks.last().copied().unwrap_or(self.first)
    }

    pub(crate) fn is_written(&self) -> bool {
        !self.blocks.is_empty()
    }

    pub(crate) fn entry(&self, sequence: u64) -> &Entry {
        &self.entries[(sequence - self.first) as usize]
    }

    /// A block was written up to `end`, unless that was so already.
    pub(crate) fn write_to(&mut self, end: u64) {
        assert!((self.written()..=self.end()).contains(&end), "{end} was written");
        if end > self.written() {
            self.blocks.push(end);
        }
    }

    /// The block that has a message.
    pub(crate) fn block(&self, sequence: u64) -> Range<u64> {
        let at = self.blocks.partition_point(|&end| end <= sequence);
        at.checked_sub(1).map_or(self.first, |at| self.blocks[at])..self.blocks[at]
    }

    /// The time of a message, within 2 ns: as it was told, or as the block has it.
    pub(crate) fn time(&self, sequence: u64) -> u64 {
        let block = self.block(sequence);
        let entry = |sequence| self.entry(sequence);
        let (first, last) = (entry(block.start).ns, entry(block.end - 1).ns);
        let steps = u128::from(block.end - block.start - 1).max(1);
        let passed = u128::from(last - first) * u128::from(sequence - block.start) / steps;
        entry(sequence).told_ns.unwrap_or(first + passed as u64)
    }

    /// Bytes that the log has from a message on, at least: headers of segments aside.
    pub(crate) fn bytes_from(&self, sequence: u64) -> u64 {
        let blocks = self.blocks.iter().filter(|&&end| end > sequence).count() as u64 * 64;
        let records = (sequence..self.written()).filter_map(|n| self.entry(n).message.as_ref());
        blocks + records.map(|(bytes, _)| 8 + bytes.len().next_multiple_of(8) as u64).sum::<u64>()
    }
}

/// Where somebody reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    pub(crate) at: Point,
    last_ns: u64,
}

impl Cursor {
    pub(crate) fn new(at: Point) -> Self {
        Self { at, last_ns: 0 }
    }
}

/// What a log should hold.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) courses: Vec<Course>,
    /// Where the log begins.
    pub(crate) oldest: Point,
}

impl Model {
    pub(crate) fn course(&self, session: u64) -> &Course {
        let course = self.courses.iter().find(|course| course.session == session);
        course.unwrap_or_else(|| panic!("there never was a session {session}"))
    }

    pub(crate) fn last(&mut self) -> &mut Course {
        self.courses.last_mut().expect("a session")
    }

    /// Where the log ends: nothing if there is nothing in it.
    pub(crate) fn end(&self) -> Option<Point> {
        let last = self.courses.iter().rfind(|course| course.is_written())?;
        Some((last.session, last.written()))
    }

    /// Adds to the newest session. What has no message is lost.
    pub(crate) fn push(&mut self, message: Option<(Vec<u8>, Flags)>, ns: u64) {
        self.last().entries.push(Entry { message, ns, told_ns: None });
    }

    /// A reader at `cursor` was given a message.
    pub(crate) fn given(&mut self, cursor: &mut Cursor, message: &Message<'_>, unix_ns: u64) {
        let (session, sequence) = cursor.at;
        assert_eq!(message.sequence, sequence, "of session {session}");
        let course = self.courses.iter_mut().find(|course| course.session == session);
        let course = course.expect("a session that was begun");
        assert!(sequence < course.written(), "{sequence} of {session} was not written");
        let (block, time) = (course.block(sequence), course.time(sequence));
        let bounds = course.entry(block.start).ns..=course.entry(block.end - 1).ns;
        assert!(bounds.contains(&unix_ns), "{sequence}: {unix_ns} is not in {bounds:?}");
        assert!(sequence > block.start || unix_ns == *bounds.start(), "{sequence}: {unix_ns}");
        let entry = &mut course.entries[(sequence - course.first) as usize];
        match entry.told_ns {
            Some(told) => assert_eq!(unix_ns, told, "{sequence} had another time"),
            None => assert!(unix_ns.abs_diff(time) <= 2, "{sequence}: {unix_ns} is not {time}"),
        }
        assert!(unix_ns >= cursor.last_ns, "{unix_ns} came behind {}", cursor.last_ns);
        let (bytes, flags) = entry.message.as_ref().expect("a message that was not lost");
        assert!(message.payload == bytes, "message {sequence} is another");
        assert_eq!(message.flags, *flags, "of message {sequence}");
        entry.told_ns = Some(unix_ns);
        (cursor.at, cursor.last_ns) = ((session, sequence + 1), unix_ns);
    }

    /// A reader at `cursor` was told something.
    pub(crate) fn told(&self, cursor: &mut Cursor, error: &LogError) {
        let (session, at) = cursor.at;
        match *error {
            LogError::Missing { first, count } => {
                assert!(first == at && count > 0, "at {at}: {error}");
                let course = self.course(session);
                assert!(first + count <= course.written(), "at {at}: {error}");
                let lacks = |n| course.entry(n).message.is_none() || (session, n) < self.oldest;
                assert!((first..first + count).all(lacks), "{error}: it is there");
                cursor.at = (session, first + count);
            }
            LogError::NewSession { session: new, next } => {
                let new = new.number().expect("a session with a number");
                let passed = self.courses.iter().filter(|course| course.is_written());
                for course in passed.filter(|course| (session..=new).contains(&course.session)) {
                    let first = if course.session == session { at } else { course.first };
                    let end = if course.session == new { next } else { course.written() };
                    let gone = first >= end || (course.session, end) <= self.oldest;
                    assert!(gone, "{error}: {first} to {end} of {} were passed", course.session);
                }
                assert!(new > session && next < self.course(new).written(), "{error}");
                cursor.at = (new, next);
            }
            _ => panic!("at {:?}: {error}", cursor.at),
        }
    }

    /// Whether `found` is where a seek to the time `wanted` is to go within a session.
    pub(crate) fn check_time(&self, session: u64, wanted: u64, found: u64) {
        let course = self.course(session);
        let range = self.oldest_of(session)..=course.written();
        assert!(range.contains(&found), "@{wanted} is not at {found}, not in {range:?}");
        if found > *range.start() {
            let time = course.time(found - 1);
            let slack = if course.entry(found - 1).told_ns.is_some() { 0 } else { 2 };
            assert!(
                time < wanted.saturating_add(slack),
                "@{wanted} is not at {found}: {time} is before"
            );
        }
        if found < *range.end() {
            let time = course.time(found);
            assert!(time.saturating_add(2) >= wanted, "@{wanted} is not at {found}, {time}");
        }
    }

    /// Whether `found` is where a reader is with about `bytes` of log behind it.
    pub(crate) fn check_back(&self, (session, found): Point, bytes: u64, segments: &[Point]) {
        let course = self.course(session);
        let behind = course.bytes_from(found);
        assert!(behind <= bytes, "{behind} bytes are behind {found}, not {bytes}");
        if found > self.oldest_of(session) {
            let before = course.block(found - 1).start;
            let (whole, above) = (course.bytes_from(before), (session, before));
            // Headers and seals of the segments are between.
            let heads = 1 + segments.iter().filter(|&&segment| segment > above).count() as u64;
            assert!(whole + heads * (4096 + 64) > bytes, "{found} has less than {bytes} behind it");
        }
    }

    /// Sequence of the oldest message of a session.
    pub(crate) fn oldest_of(&self, session: u64) -> u64 {
        let (oldest, first) = self.oldest;
        if oldest == session { first } else { self.course(session).first }
    }
}
