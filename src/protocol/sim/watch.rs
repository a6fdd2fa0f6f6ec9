//! What must hold of a receiver, checked at every event that it hands over.

use super::stream::{Book, Host};
use crate::protocol::control::{Body, Control, Request};
use crate::protocol::{Event, Join, ReceiverOptions, RequestProtocol, Session};

/// How far a receiver has come in a session.
#[derive(Clone, Copy, Debug)]
struct Position {
    session: Session,
    expected: u64,
    has_ended: bool,
}

/// The judge of one receiver.
#[derive(Debug)]
pub(super) struct Watch {
    join: Join,
    give_up_ns: u64,
    session_timeout_ns: u64,
    /// The first server that it asks, and whether it asks any.
    asks_from: usize,
    asks: bool,
    /// Whether its servers say so if they lack something.
    is_answered: bool,
    /// The last is the current one.
    positions: Vec<Position>,
    /// When the receiver first knew of how much of the current session.
    known: Vec<(u64, u64)>,
    /// What it asked for, and when: from, to before, at.
    asked: Vec<(u64, u64, u64)>,
    /// When a server last answered anything, and until when none had for too long.
    answered_at: u64,
    ignored_at: u64,
    /// When a packet of the current session last came to it.
    pub(super) heard_at: u64,
    /// Whether sessions that nobody began may be joined: somebody forges packets.
    hostile: bool,
    expected: Vec<u8>,
    digest: u64,
}

impl Watch {
    pub(super) fn new(options: &ReceiverOptions, servers: usize, hostile: bool) -> Self {
        Self {
            join: options.join,
            give_up_ns: options.give_up_ns,
            session_timeout_ns: options.session_timeout_ns,
            asks_from: usize::from(!options.ask_source),
            asks: options.ask_source || servers > 1,
            is_answered: options.protocol == RequestProtocol::Gapless,
            positions: Vec::new(),
            known: Vec::new(),
            asked: Vec::new(),
            answered_at: 0,
            ignored_at: 0,
            heard_at: 0,
            hostile,
            expected: Vec::new(),
            digest: 0,
        }
    }

    /// The session, and the next sequence.
    pub(super) fn position(&self) -> Option<(Session, u64)> {
        self.positions.last().map(|at| (at.session, at.expected))
    }

    /// Whether it was told of the end of any session.
    pub(super) fn has_heard_an_end(&self) -> bool {
        self.positions.iter().any(|at| at.has_ended)
    }

    /// A number that differs if any event differed.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn note(&mut self, value: u64) {
        self.digest = (self.digest.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95);
    }

    /// The receiver knows of messages up to `newest`.
    pub(super) fn on_newest(&mut self, newest: u64, now: u64) {
        let last = self.known.last().map_or(0, |(newest, _)| *newest);
        if newest > last {
            self.known.push((newest, now));
        } else if newest < last {
            // Taken back: it had been forged. What is left of it was known before.
            let index = self.known.partition_point(|(known, _)| *known < newest);
            let known_at = self.known.get(index).map_or(now, |(_, at)| *at);
            self.known.truncate(index);
            self.known.push((newest, known_at));
        }
    }

    /// The receiver asks for something, or reports.
    pub(super) fn on_sent(&mut self, bytes: &[u8], now: u64) {
        let Ok(Control { body: Body::Request(request), .. }) = Control::read(bytes) else { return };
        let Request { first, span, .. } = request;
        let wanted: Vec<u32> = (0..span).filter(|index| request.wants(*index)).collect();
        for run in wanted.chunk_by(|index, next| index + 1 == *next) {
            let from = first + u64::from(run[0]);
            self.asked.push((from, from + run.len() as u64, now));
        }
    }

    /// A server's answer came to the receiver, whatever it says.
    pub(super) fn on_answer(&mut self, now: u64) {
        if now - self.answered_at >= self.give_up_ns {
            self.ignored_at = now;
        }
        self.answered_at = now;
    }

    /// Judges an event.
    pub(super) fn on_event(
        &mut self,
        event: &Event<'_>,
        books: &[Book],
        hosts: &[Host],
        now: u64,
    ) -> Result<(), String> {
        self.note(now);
        if let Event::Joined { session, next } = *event {
            return self.on_joined(session, next, books);
        }
        let Some(at) = self.positions.last().copied() else {
            return Err(format!("{event:?} before a session was joined"));
        };
        let book = books.iter().find(|book| book.session == at.session);
        let at = self.positions.last_mut().expect("looked at above");
        match *event {
            Event::Message { sequence, payload } => {
                if sequence != at.expected {
                    return Err(format!("message {sequence}, expected {}", at.expected));
                }
                at.expected += 1;
                self.note(sequence);
                let Some(book) = book else { return Ok(()) };
                if !(book.first..book.next).contains(&sequence) || book.is_lost(sequence) {
                    return Err(format!("message {sequence} was never published"));
                }
                book.fill(sequence, &mut self.expected);
                if payload != self.expected {
                    return Err(format!("message {sequence} differs from what was published"));
                }
            }
            Event::Lost { first, count } => {
                if first != at.expected || count == 0 {
                    return Err(format!("{count} lost from {first}, expected {}", at.expected));
                }
                at.expected += count;
                self.note(first ^ count << 48);
                let Some(book) = book else { return Ok(()) };
                return self.judge_loss(book, first, first + count, hosts, now);
            }
            Event::Ended { next } => {
                if next != at.expected || at.has_ended {
                    return Err(format!("ended at {next}, expected {}", at.expected));
                }
                at.has_ended = true;
                self.note(next);
                // Of a session whose sender is gone a forger may say what he likes.
                let nobody_knows = |book: &Book| self.hostile && book.is_over;
                let book = book.filter(|book| !nobody_knows(book));
                if let Some(book) = book.filter(|book| !book.has_ended || book.next != next) {
                    return Err(format!("ended at {next}, which is no end: {book:?}"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn on_joined(&mut self, session: Session, next: u64, books: &[Book]) -> Result<(), String> {
        self.note(next);
        let is_first = self.positions.is_empty();
        let earlier = self.positions.iter().position(|at| at.session == session);
        let book = books.iter().find(|book| book.session == session);
        match (book, earlier) {
            (None, _) if !self.hostile => return Err(format!("joined {session}, which is none")),
            (None, _) => {}
            (Some(_), Some(index)) => {
                let left = self.positions.remove(index);
                if left.expected != next {
                    return Err(format!("{session} was left at {}, not {next}", left.expected));
                }
            }
            (Some(book), None) => {
                let right = match self.join {
                    Join::Sequence(wanted) if is_first => next == wanted,
                    _ => (book.first..=book.next).contains(&next),
                };
                if !right {
                    return Err(format!("joined {session} at {next}: {book:?}"));
                }
            }
        }
        self.positions.push(Position { session, expected: next, has_ended: false });
        self.known.clear();
        self.known.push((next, 0));
        self.asked.clear();
        Ok(())
    }

    /// Messages are lost only if nobody has them any more, or nobody said so for long enough: to
    /// who asked for them, or to who got no answer to anything. MoldUDP64 has no word for "gone".
    fn judge_loss(
        &self,
        book: &Book,
        first: u64,
        end: u64,
        hosts: &[Host],
        now: u64,
    ) -> Result<(), String> {
        // A session that is left takes with it what it still owed.
        let silent_ns = now.saturating_sub(self.heard_at);
        if book.is_over || silent_ns >= self.session_timeout_ns || !self.asks {
            return Ok(());
        }
        for sequence in first..end {
            let asked_in_vain = || {
                let is_long = |from: u64, to: u64| to.saturating_sub(from) >= self.give_up_ns;
                let index = self.known.partition_point(|(newest, _)| *newest <= sequence);
                let known_at = self.known.get(index).map_or(now, |(_, at)| *at);
                let is_ignored = !self.is_answered || is_long(self.answered_at, now);
                let asked = self.asked.iter().find(|asked| (asked.0..asked.1).contains(&sequence));
                (is_ignored && is_long(known_at, now))
                    || is_long(known_at, self.ignored_at)
                    || asked.is_some_and(|(_, _, at)| is_long(*at, now))
            };
            if sequence >= book.next {
                return Err(format!("message {sequence} is lost and was never published"));
            }
            let is_lost = sequence < book.first || book.is_lost(sequence);
            if !is_lost && hosts[book.host].holds(sequence, self.asks_from) && !asked_in_vain() {
                return Err(format!("message {sequence} of {first}..{end} is lost and still held"));
            }
        }
        Ok(())
    }
}
