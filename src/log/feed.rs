//! What a rewinder sends, taken apart: bytes in, messages out. Sans-IO, and trusts nothing: what
//! memory it takes is bounded by the longest block, and what makes no sense ends the connection.

use std::path::PathBuf;

use gapless_shm::Message;

use super::bulk::{BulkError, FRAME_MAGIC, Frame, Hello, Refusal, Word};
use super::error::LogError;
use super::format::{BLOCK_HEADER_BYTES, BLOCK_MAGIC, BlockHeader, Kind, read_record};
use super::reader::step;
use crate::protocol::Session;

/// Room for bytes that come in is made in pieces of this, bytes.
const ROOM_BYTES: usize = 256 << 10;

/// Why nothing more is to be had from a server.
#[derive(Debug)]
pub(super) enum Broken {
    /// It said what cannot be.
    Nonsense(&'static str),
    /// It does not speak the protocol, or was not understood.
    Bulk(BulkError),
    /// It refused.
    Refused { why: Refusal, oldest: u64 },
}

impl From<BulkError> for Broken {
    fn from(error: BulkError) -> Self {
        Self::Bulk(error)
    }
}

/// What a poll came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// So many messages were handed out, or the handler said no to the first.
    Handed(usize),
    /// More bytes are needed.
    Hungry,
    /// The log does not have something; the next poll goes on.
    Told(LogError),
}

/// What follows in the bytes.
enum Unit {
    Frame(Frame, usize),
    Block(BlockHeader),
}

/// The block that is being handed out; it stands where the bytes begin.
#[derive(Clone, Copy, Debug)]
struct Open {
    header: BlockHeader,
    /// From the start of the block.
    at: usize,
    sequence: u64,
    /// Since the first message, ns, with 16 bits of fraction.
    time: u64,
}

/// The stream as it comes, from whichever server.
#[derive(Debug)]
pub(super) struct Feed {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    open: Option<Open>,
    welcomed: bool,
    /// `None`: the newest, until the first server has said which that is.
    session: Option<u64>,
    /// Where the next message is; 0 also: where the session begins.
    next: u64,
    newest: u64,
    caught_up: bool,
    enveloped: bool,
    name: String,
}

impl Feed {
    pub(super) fn new(session: Option<u64>, from: u64) -> Self {
        Self {
            bytes: Vec::new(),
            start: 0,
            end: 0,
            open: None,
            welcomed: false,
            session,
            next: from,
            newest: 0,
            caught_up: false,
            enveloped: false,
            name: String::new(),
        }
    }

    pub(super) fn session(&self) -> Option<u64> {
        self.session
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.next
    }

    pub(super) fn newest_sequence(&self) -> u64 {
        self.newest.max(self.next)
    }

    pub(super) fn is_caught_up(&self) -> bool {
        self.caught_up && self.next >= self.newest
    }

    pub(super) fn is_enveloped(&self) -> bool {
        self.enveloped
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A new connection: what came by the last one is forgotten. What to say to the server.
    pub(super) fn restart(&mut self) -> Hello {
        (self.start, self.end, self.open) = (0, 0, None);
        (self.welcomed, self.caught_up) = (false, false);
        Hello { session: self.session, from: self.next }
    }

    /// Where bytes that come in go. To be used when it is [hungry](Outcome::Hungry).
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        // Only what has come makes it longer, whatever a header may say.
        if self.bytes.len() - self.end < ROOM_BYTES / 2 {
            self.bytes.resize(self.end + ROOM_BYTES, 0);
        }
        &mut self.bytes[self.end..]
    }

    /// So many bytes of the room were filled.
    pub(super) fn filled(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.bytes.len());
    }

    /// Takes the welcome, if it is there.
    pub(super) fn welcome(&mut self) -> Result<bool, Broken> {
        if !self.welcomed
            && let Some(unit) = self.unit()?
        {
            self.take_welcome(unit)?;
        }
        Ok(self.welcomed)
    }

    /// Hands up to `limit` messages to `handler`, until it says no to one, which comes again.
    pub(super) fn poll_while(
        &mut self,
        limit: usize,
        handler: &mut impl FnMut(Message<'_>, u64) -> bool,
    ) -> Result<Outcome, Broken> {
        if limit == 0 {
            return Ok(Outcome::Handed(0));
        }
        if !self.welcome()? {
            return Ok(Outcome::Hungry);
        }
        let mut handled = 0;
        loop {
            if let Some(open) = self.open {
                let goes_on = self.hand_out(open, limit, &mut handled, handler);
                match goes_on {
                    Ok(true) => {}
                    Ok(false) => return Ok(Outcome::Handed(handled)),
                    Err(_) if handled > 0 => return Ok(Outcome::Handed(handled)), // met again
                    Err(error) => {
                        self.close(open.header);
                        return Ok(Outcome::Told(error));
                    }
                }
                continue;
            }
            let Some(unit) = self.unit()? else { break };
            match unit {
                Unit::Block(header) => self.open_block(header)?,
                Unit::Frame(Frame { word: Word::Gone { .. } | Word::Session { .. }, .. }, _)
                    if handled > 0 =>
                {
                    break; // met again
                }
                Unit::Frame(frame, length) => {
                    let told = self.take_frame(&frame)?;
                    self.start += length;
                    if let Some(told) = told {
                        return Ok(Outcome::Told(told));
                    }
                }
            }
        }
        Ok(if handled > 0 { Outcome::Handed(handled) } else { Outcome::Hungry })
    }

    fn waiting(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// What follows, if it is there in full, checked.
    fn unit(&self) -> Result<Option<Unit>, Broken> {
        let bytes = self.waiting();
        let Some(magic) = bytes.get(4..8) else { return Ok(None) };
        if magic == FRAME_MAGIC {
            return Ok(Frame::read(bytes)?.map(|(frame, length)| Unit::Frame(frame, length)));
        }
        if magic != BLOCK_MAGIC {
            return Err(BulkError::Foreign.into());
        }
        if bytes.len() < BLOCK_HEADER_BYTES {
            return Ok(None);
        }
        let Some(header) = BlockHeader::peek(bytes) else { return Err(BulkError::Foreign.into()) };
        if bytes.len() < header.length as usize {
            return Ok(None);
        }
        let whole = BlockHeader::check(bytes).ok_or(BulkError::Foreign)?;
        Ok(Some(Unit::Block(whole)))
    }

    fn take_welcome(&mut self, unit: Unit) -> Result<(), Broken> {
        let Unit::Frame(Frame { session, oldest, word }, length) = unit else {
            return Err(Broken::Nonsense("it began with a block"));
        };
        let (first, next) = match word {
            Word::Welcome { first, next, enveloped, name } => {
                (self.enveloped, self.name) = (enveloped, name);
                (first, next)
            }
            Word::Refusal { why, .. } => return Err(Broken::Refused { why, oldest }),
            _ => return Err(Broken::Nonsense("it began without a welcome")),
        };
        if self.session.is_some_and(|wanted| wanted != session) {
            return Err(Broken::Nonsense("it sends another session than was asked for"));
        }
        if self.next != 0 && first != self.next {
            return Err(Broken::Nonsense("it begins elsewhere than was asked for"));
        }
        (self.session, self.next, self.welcomed) = (Some(session), first, true);
        self.newest = self.newest.max(next);
        self.start += length;
        Ok(())
    }

    fn take_frame(&mut self, frame: &Frame) -> Result<Option<LogError>, Broken> {
        let is_session = matches!(frame.word, Word::Session { .. });
        let current = self.session.unwrap_or_default();
        if frame.session != current && !is_session {
            return Err(Broken::Nonsense("it speaks of another session"));
        }
        match frame.word {
            Word::Welcome { .. } => Err(Broken::Nonsense("it welcomed us twice")),
            Word::Refusal { why, .. } => Err(Broken::Refused { why, oldest: frame.oldest }),
            Word::Status { next } => {
                self.newest = self.newest.max(next);
                self.caught_up = true;
                Ok(None)
            }
            Word::Gone { first, end, damaged } => {
                if first > self.next {
                    return Err(Broken::Nonsense("it left out messages"));
                }
                let (first, count) = (self.next, end.saturating_sub(self.next));
                if count == 0 {
                    return Ok(None);
                }
                self.next = end;
                self.newest = self.newest.max(end);
                Ok(Some(match damaged {
                    true => LogError::Damaged { path: PathBuf::new(), first, count, offset: 0 },
                    false => LogError::Missing { first, count },
                }))
            }
            Word::Session { first } => {
                if frame.session <= current {
                    return Err(Broken::Nonsense("it went back to an older session"));
                }
                self.session = Some(frame.session);
                (self.next, self.newest, self.caught_up) = (first, first, false);
                let session = Session::from_number(frame.session);
                Ok(Some(LogError::NewSession { session, next: first }))
            }
        }
    }

    fn open_block(&mut self, header: BlockHeader) -> Result<(), Broken> {
        if header.kind != Kind::Records || Some(header.session) != self.session {
            return Err(Broken::Nonsense("it sent a block of something else"));
        }
        if header.first_sequence > self.next {
            return Err(Broken::Nonsense("it left out messages"));
        }
        if header.end_sequence() <= self.next {
            self.start += header.length as usize; // in front of what is wanted
            return Ok(());
        }
        self.newest = self.newest.max(header.end_sequence());
        let (at, sequence) = (BLOCK_HEADER_BYTES, header.first_sequence);
        self.open = Some(Open { header, at, sequence, time: 0 });
        Ok(())
    }

    /// Hands out what is left of a block. True if it came to its end.
    fn hand_out(
        &mut self,
        mut open: Open,
        limit: usize,
        handled: &mut usize,
        handler: &mut impl FnMut(Message<'_>, u64) -> bool,
    ) -> Result<bool, LogError> {
        let header = open.header;
        let block = self.waiting().get(..header.length as usize).unwrap_or_default();
        let (step, wanted, end) = (step(&header), self.next, header.end_sequence());
        while open.sequence < end && *handled < limit {
            let sequence = open.sequence;
            let rest = block.get(open.at..).unwrap_or_default();
            let Some((payload, flags, length)) = read_record(rest, sequence) else {
                (self.open, self.next) = (Some(open), sequence.max(wanted));
                // The checksum was right, the records are not: no writer of ours made that.
                let (first, offset) = (self.next, open.at as u64);
                let count = end - first;
                return Err(LogError::Damaged { path: PathBuf::new(), first, count, offset });
            };
            if sequence >= wanted {
                let unix_ns = header.first_ns.saturating_add(open.time >> 16);
                if !handler(Message { sequence, payload, flags }, unix_ns) {
                    break;
                }
                *handled += 1;
            }
            (open.at, open.sequence) = (open.at + length, sequence + 1);
            open.time = open.time.saturating_add(step);
        }
        (self.open, self.next) = (Some(open), open.sequence.max(wanted));
        if open.sequence < end {
            return Ok(false);
        }
        self.close(header);
        Ok(true)
    }

    /// Goes behind the open block.
    fn close(&mut self, header: BlockHeader) {
        self.open = None;
        self.start += header.length as usize;
        self.next = self.next.max(header.end_sequence());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::format::{record_bytes, write_record};
    use crate::protocol::Random;
    use gapless_shm::Flags;

    fn block(first: u64, count: u32) -> Vec<u8> {
        let mut block = vec![0; BLOCK_HEADER_BYTES];
        for sequence in first..first + u64::from(count) {
            let payload = sequence.to_be_bytes();
            let at = block.len();
            block.resize(at + record_bytes(payload.len()), 0);
            write_record(&mut block[at..], sequence, &payload, Flags::WHOLE);
        }
        let header = BlockHeader {
            length: block.len() as u32,
            count,
            first_sequence: first,
            first_ns: 1_000,
            last_ns: 1_000 + u64::from(count),
            session: 35,
            kind: Kind::Records,
            durable_end: 0,
        };
        header.finish(&mut block);
        block
    }

    fn frame(session: u64, word: Word) -> Vec<u8> {
        let mut bytes = Vec::new();
        Frame { session, oldest: 1, word }.write(&mut bytes);
        bytes
    }

    fn welcome(first: u64) -> Vec<u8> {
        let name = "orders".to_owned();
        frame(35, Word::Welcome { first, next: 20, enveloped: false, name })
    }

    /// Messages 7 to 12 and 15 to 19, then session 36.
    fn stream() -> Vec<u8> {
        [
            welcome(7),
            block(5, 5),
            block(10, 3),
            frame(35, Word::Gone { first: 13, end: 15, damaged: false }),
            block(15, 5),
            frame(35, Word::Status { next: 20 }),
            frame(36, Word::Session { first: 1 }),
        ]
        .concat()
    }

    /// Feeds bytes in pieces; what came of it, as text, until it broke or they are used up.
    fn fed(bytes: &[u8], piece: usize, refuse_every: usize) -> (Vec<String>, Option<Broken>) {
        let mut feed = Feed::new(Some(35), 7);
        let (mut bytes, mut told, mut calls) = (bytes, Vec::new(), 0);
        loop {
            let outcome = feed.poll_while(2, &mut |message, _| {
                calls += 1;
                let taken = refuse_every == 0 || calls % refuse_every != 0;
                if taken {
                    assert_eq!(message.payload, message.sequence.to_be_bytes());
                    told.push(message.sequence.to_string());
                }
                taken
            });
            match outcome {
                Ok(Outcome::Handed(_)) => {}
                Ok(Outcome::Told(error)) => told.push(error.to_string()),
                Ok(Outcome::Hungry) if bytes.is_empty() => return (told, None),
                Ok(Outcome::Hungry) => {
                    let (now, later) = bytes.split_at(piece.min(bytes.len()));
                    feed.room()[..now.len()].copy_from_slice(now);
                    feed.filled(now.len());
                    bytes = later;
                }
                Err(broken) => return (told, Some(broken)),
            }
        }
    }

    #[test]
    fn messages_come_in_order_however_the_bytes_are_cut() {
        let mut expected: Vec<_> = (7..13_u64).map(|sequence| sequence.to_string()).collect();
        expected.push("2 messages from 13 on are not in the log".into());
        expected.extend((15..20_u64).map(|sequence| sequence.to_string()));
        expected.push("session 0000000010 begins, at 1".into());
        for piece in [1, 7, 64, 10_000] {
            for refuse_every in [0, 2, 3] {
                let (told, broken) = fed(&stream(), piece, refuse_every);
                assert!(broken.is_none(), "{broken:?}");
                assert_eq!(told, expected, "{piece} {refuse_every}");
            }
        }
    }

    #[test]
    fn what_cannot_be_ends_it() {
        let name = String::new();
        let other = frame(36, Word::Welcome { first: 7, next: 9, enveloped: false, name });
        let refusal = Word::Refusal { wanted: 7, why: Refusal::Busy };
        for bad in [
            welcome(8),
            block(7, 2),
            other,
            [welcome(7), welcome(7)].concat(),
            [welcome(7), block(8, 2)].concat(),
            [welcome(7), frame(35, Word::Gone { first: 8, end: 9, damaged: false })].concat(),
            [welcome(7), frame(34, Word::Session { first: 1 })].concat(),
            [welcome(7), frame(36, Word::Status { next: 9 })].concat(),
            frame(35, refusal.clone()),
            [welcome(7), frame(35, refusal)].concat(),
        ] {
            let (told, broken) = fed(&bad, 1000, 0);
            assert!(told.is_empty() && broken.is_some(), "{told:?} {broken:?}");
        }
    }

    #[test]
    fn changed_bytes_never_become_messages() {
        let stream = stream();
        let (sound, _) = fed(&stream, 1000, 0);
        let mut random = Random::new(7);
        for _ in 0..3000 {
            let mut bad = stream.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(bad.len() as u64) as usize;
                bad[at] = random.next() as u8;
            }
            bad.truncate(random.below(2 * stream.len() as u64) as usize);
            let (told, _) = fed(&bad, 1 + random.below(500) as usize, 0);
            assert!(sound.starts_with(&told), "{told:?}");
        }
    }

    #[test]
    fn a_header_alone_takes_no_memory() {
        let mut feed = Feed::new(None, 7);
        let mut head = block(7, 1);
        head[8..12].copy_from_slice(&(16_u32 << 20).to_le_bytes());
        for bytes in [welcome(7), head] {
            feed.room()[..bytes.len()].copy_from_slice(&bytes);
            feed.filled(bytes.len());
            assert!(matches!(feed.poll_while(1, &mut |_, _| true), Ok(Outcome::Hungry)));
        }
        assert!(feed.room().len() <= ROOM_BYTES && feed.bytes.len() <= 2 * ROOM_BYTES);
    }
}
