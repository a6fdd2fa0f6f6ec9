//! What is said to single peers: repairs, and control, which take turns.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::control::{Advertisement, Body, CONTROL_MAX_BYTES, Control, Gone, Request, SERVERS_MAX};
use super::repair::{Filled, Repairs, Taken, fill, pass_gone};
use super::sender::SenderCounts;
use super::shelf::Shelf;
use super::{To, Transmit};

/// A message of control that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note {
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

/// What waits to be said about one session.
#[derive(Debug)]
pub(crate) struct Answers {
    repairs: Repairs,
    notes: VecDeque<(SocketAddr, Note)>,
    /// Whether the last answer was a note.
    noted_last: bool,
}

impl Answers {
    pub(crate) fn new(repairs: Repairs) -> Self {
        Self { repairs, notes: VecDeque::with_capacity(NOTES_MAX), noted_last: false }
    }

    pub(crate) fn take_request(
        &mut self,
        shelf: &mut impl Shelf,
        counts: &mut SenderCounts,
        (from, request): (SocketAddr, &Request<'_>),
        one_packet: bool,
        now: u64,
    ) {
        let Request { first, span, .. } = *request;
        let next = shelf.next_sequence();
        // Some clients count from 0; but a ring may do so, too.
        let odd_zero = first == 0 && one_packet && shelf.oldest_sequence() > 0;
        if first >= next || odd_zero {
            counts.requests_odd += 1;
            if !one_packet {
                self.note(counts, from, Note::Gone { first, span, next }, now);
            }
            return;
        }
        counts.requests += 1;
        match self.repairs.request(from, request, one_packet, now) {
            Taken::Queued => {}
            Taken::Merged => counts.requests_merged += 1,
            Taken::Refused => counts.requests_refused += 1,
        }
    }

    pub(crate) fn note(&mut self, counts: &mut SenderCounts, to: SocketAddr, note: Note, now: u64) {
        if self.notes.len() < NOTES_MAX && self.repairs.allow(to, CONTROL_MAX_BYTES, now) {
            self.notes.push_back((to, note));
        } else {
            counts.requests_refused += 1;
        }
    }

    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.repairs.is_empty()
    }

    /// The next answer. `None` although there are more: what was looked for is gone.
    #[cold]
    pub(crate) fn next(
        &mut self,
        shelf: &mut impl Shelf,
        counts: &mut SenderCounts,
        now: u64,
        buffer: &mut [u8],
    ) -> Option<Transmit> {
        let is_note = self.repairs.is_empty() || !self.noted_last;
        if is_note && let Some((to, note)) = self.notes.pop_front() {
            self.noted_last = true;
            return Some(write_note(shelf, to, note, buffer));
        }
        self.noted_last = false;
        self.repair(shelf, counts, now, buffer)
    }

    fn repair(
        &mut self,
        shelf: &mut impl Shelf,
        counts: &mut SenderCounts,
        now: u64,
        buffer: &mut [u8],
    ) -> Option<Transmit> {
        let repairs = &mut self.repairs;
        while !repairs.is_empty() {
            if !repairs.check_budget(now) {
                counts.requests_refused += 1;
                continue;
            }
            let pending = repairs.current()?;
            match fill(shelf, pending, buffer) {
                Filled::Packets(answer, done) => {
                    counts.repaired_messages += answer.messages;
                    counts.repaired_packets += answer.packets;
                    repairs.charge(&answer, now);
                    if done {
                        repairs.finish(now);
                    }
                    let (to, bytes) = (answer.to, answer.bytes);
                    return Some(Transmit { to, bytes, segment_bytes: answer.segment_bytes });
                }
                Filled::Gone => {
                    counts.gone += 1;
                    let (peer, first, span) = pass_gone(shelf, pending);
                    let (one_packet, done) = (pending.one_packet, pending.is_done());
                    if done {
                        repairs.finish(now);
                    }
                    // To have looked for it is enough for one turn.
                    let tells = !one_packet && repairs.allow(peer, CONTROL_MAX_BYTES, now);
                    let note = Note::Gone { first, span, next: shelf.next_sequence() };
                    return tells.then(|| write_note(shelf, peer, note, buffer));
                }
                Filled::Done => drop(repairs.drop_current()),
            }
        }
        None
    }
}

fn write_note(shelf: &mut impl Shelf, to: SocketAddr, note: Note, buffer: &mut [u8]) -> Transmit {
    let (oldest, next) = (shelf.oldest_sequence(), shelf.next_sequence());
    let terms = shelf.terms();
    let body = match note {
        Note::Gone { first, span, next } => Body::Gone(Gone { first, span, oldest, next }),
        Note::Advertise => {
            let mut servers = [None; SERVERS_MAX];
            for (entry, server) in servers.iter_mut().zip(terms.servers) {
                *entry = Some(*server);
            }
            Body::Advertisement(Advertisement { oldest, next, ended: terms.ended, servers })
        }
    };
    let bytes = Control { session: terms.session, body }.write(buffer);
    Transmit { to: To::Peer(to), bytes, segment_bytes: bytes }
}
