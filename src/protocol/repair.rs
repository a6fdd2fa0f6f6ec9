//! The sender's answers: requests that were taken, whom they are answered to, and how much each
//! requester may have.
//!
//! Everything is bounded: requests wait in a queue of fixed length, each requester has a budget of
//! bytes a second, and nothing is sent that was not asked for.

use std::collections::VecDeque;
use std::net::SocketAddr;

use gapless_shm::Place;

use super::control::{self, BITMAP_MAX_BYTES, Request};
use super::mold;
use super::shelf::Shelf;
use super::{GSO_SEGMENTS_MAX, To};

/// A request that waits to be answered, or is being answered.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) to: To,
    asked_by: SocketAddr,
    pub(crate) first: u64,
    pub(crate) span: u32,
    bitmap_bytes: usize,
    bitmap: [u8; BITMAP_MAX_BYTES],
    /// The next message to look at, counted from `first`.
    at: u32,
    /// Where that was last found, if that was in a ring.
    pub(crate) place: Option<Place>,
    /// Asked for by a MoldUDP64 request: one packet, then done.
    pub(crate) one_packet: bool,
    /// Whether nothing of it was gone so far.
    whole: bool,
    /// When its requester had its last turn.
    turn: u64,
}

impl Pending {
    /// Whether nothing is left to answer.
    pub(crate) fn is_done(&self) -> bool {
        self.at >= self.span || self.one_packet
    }

    fn new(from: SocketAddr, request: &Request<'_>, one_packet: bool) -> Self {
        let mut bitmap = [0; BITMAP_MAX_BYTES];
        bitmap[..request.bitmap.len()].copy_from_slice(request.bitmap);
        Self {
            to: To::Peer(from),
            asked_by: from,
            first: request.first,
            span: request.span,
            bitmap_bytes: request.bitmap.len(),
            bitmap,
            at: 0,
            place: None,
            one_packet,
            whole: true,
            turn: 0,
        }
    }

    /// Whether the next message to look at is wanted.
    #[inline]
    pub(crate) fn wants_next(&self) -> bool {
        self.wants(self.at)
    }

    /// The message that was to be looked at next is packed.
    #[inline]
    pub(crate) fn pass(&mut self) {
        self.at += 1;
    }

    fn wants(&self, index: u32) -> bool {
        index < self.span
            && (self.bitmap_bytes == 0 || control::bit(&self.bitmap[..self.bitmap_bytes], index))
    }

    /// Moves to the next message that is wanted; its sequence.
    fn next_wanted(&mut self) -> Option<u64> {
        while self.at < self.span && !self.wants(self.at) {
            self.at += 1;
        }
        (self.at < self.span).then(|| self.first + u64::from(self.at))
    }

    fn covers(&self, request: &Request<'_>) -> bool {
        let same = self.bitmap[..self.bitmap_bytes] == *request.bitmap;
        let within = !self.one_packet
            && self.first <= request.first
            && request.end() <= self.first + u64::from(self.span)
            && self.bitmap_bytes == 0;
        within
            || (same
                && !self.one_packet
                && self.first == request.first
                && self.span == request.span)
    }
}

/// Packets that answer a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) to: To,
    pub(crate) asked_by: SocketAddr,
    pub(crate) bytes: usize,
    pub(crate) segment_bytes: usize,
    pub(crate) packets: u64,
    pub(crate) messages: u64,
}

/// A range that was answered, kept for a moment to see whether others ask for the same.
#[derive(Clone, Copy, Debug)]
struct Served {
    first: u64,
    end: u64,
    by: SocketAddr,
    to_stream: bool,
    at: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It will be answered.
    Queued,
    /// An answer that is on its way to everybody covers it.
    Merged,
    /// There is no room for it, or the requester has used up its budget.
    Refused,
}

/// Lost messages that one answer tells of, at most: bounds the walk over their records.
const GONE_AT_ONCE_MAX: u64 = 4096;

/// Requests, budgets, and what was answered lately.
#[derive(Debug)]
pub(crate) struct Repairs {
    queue: VecDeque<Pending>,
    queue_max: usize,
    /// Index of the request that is being answered.
    current: usize,
    /// Turns so far.
    turn: u64,
    served: VecDeque<Served>,
    /// Answers to several requesters of the same go to everybody, within this time, ns; 0: never.
    merge_ns: u64,
    budgets: Budgets,
}

const SERVED_MAX: usize = 64;
/// Requesters who fill the queue together: each has its share of it.
const REQUESTERS: usize = 4;

impl Repairs {
    pub(crate) fn new(queue_max: usize, merge_ns: u64, budgets: Budgets) -> Self {
        Self {
            queue: VecDeque::with_capacity(queue_max),
            queue_max,
            current: 0,
            turn: 0,
            served: VecDeque::with_capacity(SERVED_MAX),
            merge_ns,
            budgets,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether this peer may have an answer of `bytes`, which is taken from its budget.
    pub(crate) fn allow(&mut self, peer: SocketAddr, bytes: usize, now: u64) -> bool {
        self.budgets.has_some(peer, now) && {
            self.budgets.take(peer, bytes, now);
            true
        }
    }

    pub(crate) fn request(
        &mut self,
        from: SocketAddr,
        request: &Request<'_>,
        one_packet: bool,
        now: u64,
    ) -> Taken {
        if !self.budgets.has_some(from, now) {
            return Taken::Refused;
        }
        let mut to = To::Peer(from);
        if self.merge_ns > 0 && !one_packet {
            let waiting = self.queue.iter_mut().find(|pending| pending.covers(request));
            if let Some(pending) = waiting.filter(|pending| pending.at == 0) {
                if pending.asked_by != from {
                    pending.to = To::Stream;
                }
                return Taken::Merged;
            }
            let recently = |served: &&Served| {
                now.saturating_sub(served.at) < self.merge_ns
                    && served.first <= request.first
                    && request.end() <= served.end
            };
            match self.served.iter().rev().find(recently) {
                Some(served) if served.to_stream && served.by != from => return Taken::Merged,
                Some(served) if served.by != from => to = To::Stream,
                _ => {}
            }
        }
        let mut own = self.queue.iter().filter(|pending| pending.asked_by == from).peekable();
        // Behind those who wait, with one's own at the turn of one's own.
        let turn = own.peek().map_or(self.turn, |pending| pending.turn);
        let share = (self.queue_max / REQUESTERS).max(1);
        if self.queue.len() == self.queue_max || own.count() >= share {
            return Taken::Refused;
        }
        self.queue.push_back(Pending { to, turn, ..Pending::new(from, request, one_packet) });
        Taken::Queued
    }

    /// Turns to the request whose requester has waited longest. True if it may be answered; drops
    /// it if not.
    pub(crate) fn check_budget(&mut self, now: u64) -> bool {
        let waiting = self.queue.iter().enumerate().min_by_key(|(_, pending)| pending.turn);
        let Some((index, from)) = waiting.map(|(index, next)| (index, next.asked_by)) else {
            return true;
        };
        self.current = index;
        self.turn += 1;
        for own in self.queue.iter_mut().filter(|pending| pending.asked_by == from) {
            own.turn = self.turn;
        }
        let allowed = self.budgets.has_some(from, now);
        if !allowed {
            self.drop_current();
        }
        allowed
    }

    /// The request that it is the turn of.
    pub(crate) fn current(&mut self) -> Option<&mut Pending> {
        self.queue.get_mut(self.current)
    }

    /// Takes the current request away.
    pub(crate) fn drop_current(&mut self) -> Option<Pending> {
        self.queue.remove(self.current)
    }

    /// Takes the current request away, answered.
    pub(crate) fn finish(&mut self, now: u64) {
        let Some(done) = self.drop_current() else { return };
        // Who asks for what was only in part repeated is not helped by that.
        let is_whole = done.whole && done.bitmap_bytes == 0;
        if self.merge_ns > 0 && !done.one_packet && is_whole {
            if self.served.len() == SERVED_MAX {
                self.served.pop_front();
            }
            let end = done.first + u64::from(done.span);
            let to_stream = done.to == To::Stream;
            let Pending { first, asked_by: by, .. } = done;
            self.served.push_back(Served { first, end, by, to_stream, at: now });
        }
    }

    pub(crate) fn charge(&mut self, answer: &Answer, now: u64) {
        self.budgets.take(answer.asked_by, answer.bytes, now);
    }
}

/// Outcome of filling a buffer for a request.
pub(crate) enum Filled {
    /// Packets to send; `true` if the request is answered with them.
    Packets(Answer, bool),
    /// The next message wanted is not held: the request is done as far as it can be.
    Gone,
    /// Nothing (more) to answer.
    Done,
}

/// Fills `buffer` with packets that answer the request, all of one length but the last.
pub(crate) fn fill(shelf: &mut impl Shelf, pending: &mut Pending, buffer: &mut [u8]) -> Filled {
    let (session, next) = (shelf.terms().session, shelf.next_sequence());
    let mut answer = Answer {
        to: pending.to,
        asked_by: pending.asked_by,
        bytes: 0,
        segment_bytes: shelf.terms().datagram_bytes,
        packets: 0,
        messages: 0,
    };
    let mut gone = false;
    while answer.packets < GSO_SEGMENTS_MAX
        && answer.bytes + answer.segment_bytes <= buffer.len()
        && !gone
    {
        let Some(sequence) = pending.next_wanted() else { break };
        if sequence >= next {
            pending.at = pending.span; // not sent yet is not gone
            break;
        }
        let packet = &mut buffer[answer.bytes..answer.bytes + answer.segment_bytes];
        let packed = shelf.pack(sequence, pending, packet);
        gone = packed.gone;
        let count = packed.count;
        if count == 0 {
            break;
        }
        let header = mold::Header { session, sequence, count };
        if let Some(start) = packet.first_chunk_mut() {
            header.write(start);
        }
        answer.bytes += packed.used;
        answer.packets += 1;
        answer.messages += u64::from(count);
        if answer.packets == 1 {
            answer.segment_bytes = packed.used;
        }
        if packed.used < answer.segment_bytes || pending.one_packet {
            break;
        }
    }
    let done = pending.is_done();
    match (answer.packets, gone) {
        (0, true) => Filled::Gone,
        (0, false) => Filled::Done,
        _ => Filled::Packets(answer, done && !gone),
    }
}

/// Passes over what is wanted next and not held. Returns who asked for it, its first sequence and
/// how many messages it is.
pub(crate) fn pass_gone(shelf: &mut impl Shelf, pending: &mut Pending) -> (SocketAddr, u64, u32) {
    pending.whole = false;
    let first = pending.next_wanted().unwrap_or(pending.first);
    let end = if first < shelf.oldest_sequence() {
        shelf.oldest_sequence()
    } else if first >= shelf.next_sequence() {
        u64::MAX // nor is anything behind it
    } else {
        shelf.gone_end(first, first.saturating_add(GONE_AT_ONCE_MAX)).max(first + 1)
    };
    let span = (end - first).min(u64::from(pending.span - pending.at)) as u32;
    pending.at += span;
    (pending.asked_by, first, span)
}

/// Who may have how much: a budget of bytes for each peer, refilled as time goes by.
#[derive(Debug)]
pub(crate) struct Budgets {
    bytes_per_second: u64,
    burst_bytes: i64,
    peers: Vec<Budget>,
    peers_max: usize,
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    peer: SocketAddr,
    left_bytes: i64,
    at: u64,
}

impl Budgets {
    pub(crate) fn new(bytes_per_second: u64, burst_bytes: u64, peers_max: usize) -> Self {
        let burst_bytes = i64::try_from(burst_bytes).unwrap_or(i64::MAX);
        Self { bytes_per_second, burst_bytes, peers: Vec::with_capacity(peers_max), peers_max }
    }

    /// The peer's budget, refilled. A new peer takes the place of the one not heard from longest.
    fn of(&mut self, peer: SocketAddr, now: u64) -> &mut Budget {
        let fresh = Budget { peer, left_bytes: self.burst_bytes, at: now };
        let index = match self.peers.iter().position(|budget| budget.peer == peer) {
            Some(index) => index,
            None if self.peers.len() < self.peers_max => {
                self.peers.push(fresh);
                self.peers.len() - 1
            }
            None => {
                let oldest = self.peers.iter().enumerate().min_by_key(|(_, budget)| budget.at);
                let index = oldest.map_or(0, |(index, _)| index);
                self.peers[index] = fresh;
                index
            }
        };
        let budget = &mut self.peers[index];
        let elapsed_ns = now.saturating_sub(budget.at);
        let earned = u128::from(elapsed_ns) * u128::from(self.bytes_per_second) / 1_000_000_000;
        if earned > 0 {
            let earned = i64::try_from(earned).unwrap_or(i64::MAX);
            budget.left_bytes = budget.left_bytes.saturating_add(earned).min(self.burst_bytes);
            budget.at = now;
        }
        budget
    }

    fn has_some(&mut self, peer: SocketAddr, now: u64) -> bool {
        self.of(peer, now).left_bytes > 0
    }

    fn take(&mut self, peer: SocketAddr, bytes: usize, now: u64) {
        let budget = self.of(peer, now);
        budget.left_bytes = budget.left_bytes.saturating_sub(bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(port: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], port))
    }

    #[test]
    fn a_budget_is_used_up_and_refilled() {
        let mut budgets = Budgets::new(1_000, 500, 2);
        assert!(budgets.has_some(peer(1), 0));
        budgets.take(peer(1), 700, 0);
        assert!(!budgets.has_some(peer(1), 100_000_000));
        assert!(budgets.has_some(peer(1), 300_000_000));
        // A third peer takes the place of the first, the one not heard from longest.
        budgets.take(peer(2), 700, 400_000_000);
        budgets.take(peer(3), 700, 500_000_000);
        assert!(!budgets.has_some(peer(2), 500_000_000) && !budgets.has_some(peer(3), 500_000_000));
        assert_eq!(budgets.peers.len(), 2);
    }

    #[test]
    fn several_who_ask_for_the_same_are_answered_at_once() {
        let mut repairs = Repairs::new(2, 1_000, Budgets::new(1, 1_000, 8));
        let request = Request { receiver: 0, first: 10, span: 5, bitmap: &[] };
        let part = Request { first: 12, span: 2, ..request };
        assert_eq!(repairs.request(peer(1), &request, false, 0), Taken::Queued);
        assert_eq!(repairs.request(peer(2), &part, false, 0), Taken::Merged);
        assert_eq!(repairs.current().unwrap().to, To::Stream);
        repairs.finish(0);
        assert_eq!(repairs.request(peer(3), &part, false, 900), Taken::Merged);
        assert_eq!(repairs.request(peer(3), &part, false, 1_000), Taken::Queued);
        assert_eq!(repairs.current().unwrap().to, To::Peer(peer(3)));
        repairs.finish(1_000);
        // Who asks again has not got it; who asks after another did gets it with everybody.
        assert_eq!(repairs.request(peer(3), &part, false, 1_100), Taken::Queued);
        repairs.finish(1_100);
        assert_eq!(repairs.request(peer(4), &part, false, 1_200), Taken::Queued);
        assert_eq!(repairs.current().unwrap().to, To::Stream);
        assert_eq!(repairs.request(peer(5), &request, true, 1_200), Taken::Queued);
        assert_eq!(repairs.request(peer(6), &request, true, 1_200), Taken::Refused);
    }
}
