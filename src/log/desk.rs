//! The rewinder's answers by datagram: questions of both protocols, one desk for each session that
//! is asked about, and for each socket that they come to.

use std::net::SocketAddr;
use std::sync::Arc;

use super::shelf::{Library, LogShelf};
use crate::protocol::answer::{Answers, Note};
use crate::protocol::control::{Body, Control, Request, is_control};
use crate::protocol::mold::{HEADER_BYTES, Header};
use crate::protocol::repair::{Budgets, Repairs};
use crate::protocol::{SenderCounts, Session, Transmit};

/// Sessions that are served at a time, of each socket: who asks for one more waits until one is
/// idle.
const DESKS_MAX: usize = 16;
/// Requesters whose budgets are remembered.
const REQUESTERS_MAX: usize = 256;
/// What a requester may have at once, as a part of what it may have in a second.
const BURST_PART: u64 = 4;
/// At least that much, bytes: a burst of datagrams.
const BURST_MIN_BYTES: u64 = 64 << 10;

/// What is answered, and how.
pub(super) struct Terms {
    pub(super) datagram_bytes: usize,
    pub(super) requests_max: usize,
    pub(super) requester_bytes_per_second: u64,
    pub(super) servers: Arc<[SocketAddr]>,
}

/// A session that was asked about, at one socket.
struct Desk {
    socket: usize,
    session: u64,
    shelf: LogShelf,
    answers: Answers,
    asked_at: u64,
}

/// All of them.
pub(super) struct Desks {
    terms: Terms,
    desks: Vec<Desk>,
    /// Whose turn it is.
    turn: usize,
    pub(super) counts: SenderCounts,
}

impl Desks {
    pub(super) fn new(terms: Terms) -> Self {
        Self { terms, desks: Vec::new(), turn: 0, counts: SenderCounts::default() }
    }

    /// Takes a datagram that came to a socket.
    pub(super) fn on_datagram(
        &mut self,
        library: &mut Library,
        socket: usize,
        from: SocketAddr,
        bytes: &[u8],
        now: u64,
    ) {
        if from.port() == 0 {
            self.counts.malformed += 1; // nothing can be sent there
        } else if is_control(bytes) {
            match Control::read(bytes) {
                Ok(control) => self.on_control(library, socket, from, &control, now),
                Err(_) => self.counts.malformed += 1,
            }
        } else if let (Ok(header), HEADER_BYTES) = (Header::read(bytes), bytes.len()) {
            let Header { session, sequence: first, count } = header;
            if count == 0 {
                self.counts.requests_odd += 1;
                return;
            }
            let request = Request { receiver: 0, first, span: count.into(), bitmap: &[] };
            self.on_request(library, (socket, session), (from, &request), true, now);
        } else {
            self.counts.malformed += 1;
        }
    }

    fn on_control(
        &mut self,
        library: &mut Library,
        socket: usize,
        from: SocketAddr,
        control: &Control<'_>,
        now: u64,
    ) {
        let session = control.session;
        match &control.body {
            Body::Solicit { .. } => {
                let any = session == Session([0; 10]);
                let newest = if any { library.newest_lately(now) } else { session.number() };
                match newest.and_then(|session| self.desk(library, socket, session, now)) {
                    Some((desk, counts)) => desk.answers.note(counts, from, Note::Advertise, now),
                    None => self.counts.requests_odd += 1,
                }
            }
            Body::Request(request) => {
                self.on_request(library, (socket, session), (from, request), false, now);
            }
            // Who knows nobody else to report to.
            Body::Report(_) => self.counts.reports += 1,
            Body::Advertisement(_) | Body::Gone(_) => self.counts.malformed += 1,
        }
    }

    fn on_request(
        &mut self,
        library: &mut Library,
        (socket, session): (usize, Session),
        question: (SocketAddr, &Request<'_>),
        one_packet: bool,
        now: u64,
    ) {
        let number = session.number();
        match number.and_then(|session| self.desk(library, socket, session, now)) {
            Some((desk, counts)) => {
                desk.answers.take_request(&mut desk.shelf, counts, question, one_packet, now);
            }
            None => self.counts.requests_odd += 1,
        }
    }

    /// The desk of a session; `None` if no log has it, or all desks are busy.
    fn desk(
        &mut self,
        library: &mut Library,
        socket: usize,
        session: u64,
        now: u64,
    ) -> Option<(&mut Desk, &mut SenderCounts)> {
        let known = |desk: &Desk| desk.socket == socket && desk.session == session;
        let at = match self.desks.iter().position(known) {
            Some(at) => {
                library.refresh(&mut self.desks[at].shelf, now);
                at
            }
            None => {
                let terms = &self.terms;
                let shelf = library.shelf(session, terms.datagram_bytes, &terms.servers, now)?;
                let rate = terms.requester_bytes_per_second;
                let burst = (rate / BURST_PART).max(BURST_MIN_BYTES);
                let budgets = Budgets::new(rate, burst, REQUESTERS_MAX);
                let answers = Answers::new(Repairs::new(terms.requests_max, 0, budgets));
                let desk = Desk { socket, session, shelf, answers, asked_at: now };
                let own = self.desks.iter().filter(|desk| desk.socket == socket).count();
                if own < DESKS_MAX {
                    self.desks.push(desk);
                    self.desks.len() - 1
                } else {
                    let desks = self.desks.iter().enumerate();
                    let idle = desks.filter(|(_, d)| d.socket == socket && d.answers.is_empty());
                    let (at, _) = idle.min_by_key(|(_, desk)| desk.asked_at)?;
                    self.desks[at] = desk;
                    at
                }
            }
        };
        let desk = &mut self.desks[at];
        (desk.asked_at, desk.shelf.now) = (now, now);
        Some((desk, &mut self.counts))
    }

    /// Whether anybody waits for an answer.
    pub(super) fn is_empty(&self) -> bool {
        self.desks.iter().all(|desk| desk.answers.is_empty())
    }

    /// The next answer, and the socket that it leaves by. Sessions take turns.
    pub(super) fn next(&mut self, now: u64, buffer: &mut [u8]) -> Option<(usize, Transmit)> {
        for _ in 0..self.desks.len() {
            self.turn = (self.turn + 1) % self.desks.len();
            let desk = &mut self.desks[self.turn];
            if desk.answers.is_empty() {
                continue;
            }
            desk.shelf.now = now;
            let answer = desk.answers.next(&mut desk.shelf, &mut self.counts, now, buffer);
            if let Some(transmit) = answer {
                return Some((desk.socket, transmit));
            }
        }
        None
    }
}
