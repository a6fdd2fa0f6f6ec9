//! What a sender says to single peers: repairs, and control. Data comes first: an answer leaves at
//! every other turn at most, and repairs and control take turns among themselves.

use std::collections::VecDeque;
use std::net::SocketAddr;

use gapless_shm::Memory;

use super::control::{Advertisement, Body, CONTROL_MAX_BYTES, Control, Gone, Request, SERVERS_MAX};
use super::repair::{Filled, Repairs, Shelf, Taken};
use super::sender::Sender;
use super::{To, Transmit};

/// A message of control that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Note {
    Advertise,
    /// With the next sequence as it was then: a note may wait, and the stream goes on.
    Gone {
        first: u64,
        span: u32,
        next: u64,
    },
}

/// Notes that may wait; more are dropped, and asked for again.
const NOTES_MAX: usize = 32;

/// What waits to be said.
#[derive(Debug)]
pub(super) struct Answers {
    repairs: Repairs,
    notes: VecDeque<(SocketAddr, Note)>,
    /// Whether the last turn was an answer's: then the next is the data's.
    answered_last: bool,
    /// Whether the last answer was a note.
    noted_last: bool,
}

impl Answers {
    pub(super) fn new(repairs: Repairs) -> Self {
        let notes = VecDeque::with_capacity(NOTES_MAX);
        Self { repairs, notes, answered_last: false, noted_last: false }
    }
}

impl<M: Memory> Sender<M> {
    pub(super) fn take_request(
        &mut self,
        from: SocketAddr,
        request: &Request<'_>,
        one_packet: bool,
        now: u64,
    ) {
        let next = self.next_sequence();
        // Some clients count from 0; but a ring may do so, too.
        let odd_zero = request.first == 0 && one_packet && self.consumer.oldest_sequence() > 0;
        if request.first >= next || odd_zero {
            self.counts.requests_odd += 1;
            if !one_packet {
                self.note(from, Note::Gone { first: request.first, span: request.span, next }, now);
            }
            return;
        }
        self.counts.requests += 1;
        match self.answers.repairs.request(from, request, one_packet, now) {
            Taken::Queued => {}
            Taken::Merged => self.counts.requests_merged += 1,
            Taken::Refused => self.counts.requests_refused += 1,
        }
    }

    pub(super) fn note(&mut self, to: SocketAddr, note: Note, now: u64) {
        let answers = &mut self.answers;
        if answers.notes.len() < NOTES_MAX && answers.repairs.allow(to, CONTROL_MAX_BYTES, now) {
            answers.notes.push_back((to, note));
        } else {
            self.counts.requests_refused += 1;
        }
    }

    #[inline(always)]
    pub(super) fn has_answers(&self) -> bool {
        !self.answers.notes.is_empty() || !self.answers.repairs.is_empty()
    }

    /// Control and repairs; every other turn belongs to the data.
    #[cold]
    pub(super) fn answer(&mut self, now: u64, buffer: &mut [u8]) -> Option<Transmit> {
        let answers = &mut self.answers;
        answers.answered_last = !answers.answered_last;
        if !answers.answered_last {
            return None;
        }
        let is_note = answers.repairs.is_empty() || !answers.noted_last;
        if is_note && let Some((to, note)) = answers.notes.pop_front() {
            answers.noted_last = true;
            return Some(self.write_note(to, note, buffer));
        }
        answers.noted_last = false;
        self.repair(now, buffer)
    }

    fn repair(&mut self, now: u64, buffer: &mut [u8]) -> Option<Transmit> {
        while !self.answers.repairs.is_empty() {
            if !self.answers.repairs.check_budget(now) {
                self.counts.requests_refused += 1;
                continue;
            }
            let shelf = Shelf {
                consumer: &self.consumer,
                history: &self.history,
                session: self.session,
                datagram_bytes: self.options.datagram_bytes,
            };
            let repairs = &mut self.answers.repairs;
            let pending = repairs.current()?;
            match shelf.fill(pending, buffer) {
                Filled::Packets(answer, done) => {
                    self.counts.repaired_messages += answer.messages;
                    self.counts.repaired_packets += answer.packets;
                    repairs.charge(&answer, now);
                    if done {
                        repairs.finish(now);
                    }
                    let (to, bytes) = (answer.to, answer.bytes);
                    return Some(Transmit { to, bytes, segment_bytes: answer.segment_bytes });
                }
                Filled::Gone => {
                    self.counts.gone += 1;
                    let (peer, first, span) = shelf.pass_gone(pending);
                    let (one_packet, done) = (pending.one_packet, pending.is_done());
                    if done {
                        repairs.finish(now);
                    }
                    // To have looked for it is enough for one turn.
                    let tells = !one_packet && repairs.allow(peer, CONTROL_MAX_BYTES, now);
                    let note = Note::Gone { first, span, next: self.next_sequence() };
                    return tells.then(|| self.write_note(peer, note, buffer));
                }
                Filled::Done => drop(repairs.drop_current()),
            }
        }
        None
    }

    fn write_note(&self, to: SocketAddr, note: Note, buffer: &mut [u8]) -> Transmit {
        let (oldest, next) = (self.consumer.oldest_sequence(), self.next_sequence());
        let body = match note {
            Note::Gone { first, span, next } => Body::Gone(Gone { first, span, oldest, next }),
            Note::Advertise => {
                let mut servers = [None; SERVERS_MAX];
                for (entry, server) in servers.iter_mut().zip(&self.options.servers) {
                    *entry = Some(*server);
                }
                let ended = self.ended_at.is_some();
                Body::Advertisement(Advertisement { oldest, next, ended, servers })
            }
        };
        let bytes = Control { session: self.session, body }.write(buffer);
        Transmit { to: To::Peer(to), bytes, segment_bytes: bytes }
    }
}
