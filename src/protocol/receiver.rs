//! The receiving side of a stream: packets in, messages in order out, and requests for what is
//! missing. Sans-IO: reads no clock and owns no socket.
//!
//! Every message is delivered once, in sequence, whatever the network does; the only exception is
//! [`Event::Lost`], which names what nobody has any more, in its place. What arrives ahead of a gap
//! waits in a buffer of fixed size; what does not fit is dropped and asked for later. Memory is
//! bounded by the options, whatever arrives.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::arbiter::{Arbiter, LineCounts};
use super::control::Durable;
use super::gap::Gaps;
use super::join::{Joining, PAST_SESSIONS, Past};
use super::mold::{BLOCK_HEADER_BYTES, Messages, Packet, Session};
use super::options::{OptionError, ReceiverOptions};
use super::request::Requests;
use super::store::Store;

/// What a receiver hands over, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The stream begins here: the first session that was found, or the next one.
    Joined {
        /// The session.
        session: Session,
        /// Sequence of the first message to come.
        next: u64,
    },
    /// A message.
    Message {
        /// Its sequence.
        sequence: u64,
        /// Its bytes.
        payload: &'a [u8],
    },
    /// Messages that nobody has any more. The stream goes on behind them.
    Lost {
        /// Sequence of the first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// The session ended, and everything of it has been handed over.
    Ended {
        /// The sequence that would have come next.
        next: u64,
    },
}

/// What a receiver has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverCounts {
    /// Messages handed over.
    pub messages: u64,
    /// Packets of the session, on any line or as an answer; heartbeats included.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
    /// Heartbeats and ends of session.
    pub heartbeats: u64,
    /// Messages that came more than once.
    pub duplicates: u64,
    /// Holes seen.
    pub gaps: u64,
    /// Messages missing in them when they were seen.
    pub missed: u64,
    /// Of those, messages that came by themselves, late or on another line.
    pub reordered: u64,
    /// Of those, messages that came after they were asked for.
    pub repaired: u64,
    /// Of those, messages given up.
    pub lost: u64,
    /// Requests sent.
    pub requests: u64,
    /// Requests sent because an earlier one was not answered in time.
    pub retries: u64,
    /// Reports sent.
    pub reports: u64,
    /// Datagrams that are no packet, or whose messages run over their end.
    pub malformed: u64,
    /// Packets of another session that was not taken up.
    pub foreign: u64,
    /// Packets of a session that is over.
    pub stale: u64,
    /// Packets of this session from a second sender, refused.
    pub conflicts: u64,
    /// Times that the stream moved to another source address.
    pub moves: u64,
    /// Packets dropped because what waits for a repair fills its buffer, or because they were
    /// further ahead than one packet alone is believed.
    pub overflows: u64,
    /// Sessions taken up.
    pub sessions: u64,
}

/// Repair times kept until they are taken.
const REPAIRS_MAX: usize = 256;

/// The receiving side of one stream.
pub struct Receiver {
    pub(super) options: ReceiverOptions,
    pub(super) session: Option<Session>,
    /// `None` while the stream has been joined.
    pub(super) joining: Option<Joining>,
    pub(super) past: VecDeque<Past>,
    /// The next message to hand over.
    pub(super) next: u64,
    /// Behind the newest message known of: everything between is in a gap or in the store.
    pub(super) newest: u64,
    pub(super) gaps: Gaps,
    pub(super) store: Store,
    pub(super) arbiter: Arbiter,
    /// Where each line's packets come from.
    pub(super) sources: Box<[Option<SocketAddr>]>,
    /// When a packet last came on each line, and on any.
    pub(super) line_heard_at: Box<[u64]>,
    pub(super) heard_at: u64,
    /// When the lines were last found empty: only what was looked for can be missed.
    pub(super) idle_at: u64,
    /// Where a packet ended that was too far ahead to be believed.
    pub(super) doubted: Option<u64>,
    pub(super) ends_at: Option<u64>,
    pub(super) end_told: bool,
    pub(super) requests: Requests,
    pub(super) counts: ReceiverCounts,
    /// What is durable on this host, of this session.
    pub(super) durable: Option<Durable>,
    repairs: VecDeque<u64>,
}

impl Receiver {
    /// A receiver that waits for its stream.
    ///
    /// # Errors
    /// [`OptionError`].
    pub fn new(options: ReceiverOptions) -> Result<Self, OptionError> {
        options.check()?;
        Ok(Self {
            session: None,
            joining: None,
            past: VecDeque::with_capacity(PAST_SESSIONS),
            next: 0,
            newest: 0,
            gaps: Gaps::new(options.gaps_max),
            store: Store::new(options.store_bytes, options.store_packets),
            arbiter: Arbiter::new(options.lines),
            sources: vec![None; options.lines].into(),
            line_heard_at: vec![0; options.lines].into(),
            heard_at: 0,
            idle_at: 0,
            doubted: None,
            ends_at: None,
            end_told: false,
            requests: Requests::new(&options),
            counts: ReceiverCounts::default(),
            durable: None,
            repairs: VecDeque::with_capacity(REPAIRS_MAX),
            options,
        })
    }

    /// The session that is being received, once one was found.
    pub fn session(&self) -> Option<Session> {
        self.session.filter(|_| self.joining.is_none())
    }

    /// The next message to hand over; 0 before the stream was joined.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Behind the newest message known of.
    pub fn newest_sequence(&self) -> u64 {
        self.newest
    }

    /// What it has seen so far.
    pub fn counts(&self) -> &ReceiverCounts {
        &self.counts
    }

    /// What a line has brought so far; `None` if there is no such line.
    pub fn line(&self, line: usize) -> Option<&LineCounts> {
        self.arbiter.counts(line)
    }

    /// Whether the next message has come and was refused.
    pub fn is_refused(&self) -> bool {
        self.newest != self.next
            && (self.store.front().is_some_and(|(held, _)| held.first == self.next)
                || self.gaps.front().is_some_and(|gap| gap.lost && gap.first == self.next))
    }

    /// Whether something has been asked for, or is about to be.
    #[inline]
    pub fn expects_answers(&self) -> bool {
        !self.gaps.is_empty() || self.joining.is_some()
    }

    /// How many holes there are.
    pub fn open_gaps(&self) -> usize {
        self.gaps.len()
    }

    /// Bytes that wait behind a hole: at most what the options allow.
    pub fn held_bytes(&self) -> usize {
        self.store.used_bytes()
    }

    /// When the session was last heard of.
    pub fn heard_at(&self) -> u64 {
        self.heard_at
    }

    /// Whether the session has ended and all of it was handed over.
    pub fn has_ended(&self) -> bool {
        self.end_told
    }

    /// How long each hole was open that has been closed since the last call, ns. At most 256 are
    /// kept.
    pub fn take_repairs(&mut self) -> impl Iterator<Item = u64> + '_ {
        self.repairs.drain(..)
    }

    /// Takes a datagram that came from `source` on a line (0 unless there are several).
    ///
    /// `handler` gets what can be handed over now. It may refuse a message or a loss by returning
    /// false, if it has no room; [`deliver`](Self::deliver) offers it again.
    #[inline]
    pub fn on_datagram(
        &mut self,
        line: usize,
        source: SocketAddr,
        bytes: &[u8],
        now: u64,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) {
        let Ok(packet) = Packet::read(bytes) else {
            self.counts.malformed += 1;
            return;
        };
        if self.session != Some(packet.header.session) || self.joining.is_some() {
            if !self.other_session(line, source, &packet.header, now, handler) {
                return;
            }
        } else if self.sources.get(line) != Some(&Some(source))
            && !self.other_source(line, source, &packet.header, now)
        {
            return;
        }
        let end = packet.header.sequence + u64::from(packet.header.messages());
        self.arbiter.on_packet(line, packet.header.sequence, end, bytes.len());
        self.on_packet(Some(line), &packet, bytes.len(), now, handler);
        self.heard_at = now;
        if let Some(heard_at) = self.line_heard_at.get_mut(line) {
            *heard_at = now;
        }
    }

    /// Takes a datagram that came to the port that requests are sent from: an answer.
    pub fn on_answer(
        &mut self,
        source: SocketAddr,
        bytes: &[u8],
        now: u64,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) {
        if super::control::is_control(bytes) {
            self.on_control(source, bytes, now, handler);
            return;
        }
        match Packet::read(bytes) {
            Ok(packet)
                if self.session == Some(packet.header.session)
                    && self.joining.is_none()
                    && self.servers().any(|server| server == source) =>
            {
                self.requests.answered_at = now;
                self.on_packet(None, &packet, bytes.len(), now, handler);
            }
            Ok(_) => self.counts.foreign += 1,
            Err(_) => self.counts.malformed += 1,
        }
    }

    /// Notes that nothing waits on any line. Whoever polls the lines says so whenever they are
    /// empty: a source or a session counts as silent only for times in which it was listened to.
    #[inline]
    pub fn on_idle(&mut self, now: u64) {
        self.idle_at = now;
    }

    /// Offers again what `handler` refused, and hands over what has been given up since. Call it
    /// whenever [`poll_transmit`](Self::poll_transmit) was called.
    #[inline]
    pub fn deliver(&mut self, handler: &mut impl FnMut(Event<'_>) -> bool) {
        if self.newest != self.next || self.ends_at.is_some() {
            self.drain(handler);
        }
    }

    /// A packet of this session.
    #[inline]
    fn on_packet(
        &mut self,
        line: Option<usize>,
        packet: &Packet<'_>,
        bytes: usize,
        now: u64,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) {
        self.counts.packets += 1;
        self.counts.bytes += bytes as u64;
        self.requests.on_bytes(bytes);
        let before = self.counts.messages;
        let mut messages = packet.messages();
        if messages.left() == 0 {
            self.on_heartbeat(line.is_some(), &packet.header, now, handler);
            return;
        }
        let first = packet.header.sequence;
        let (known, absent) = if first <= self.next && self.newest == self.next {
            let known = u64::from(messages.left()).min(self.next - first);
            pass_over(&mut messages, known);
            let count = messages.left().into();
            self.newest = self.hand_over(&mut messages, count, handler);
            (known, messages.left())
        } else {
            self.fit_in(messages, now, handler)
        };
        self.counts.malformed += u64::from(absent > 0);
        self.counts.duplicates += known;
        if let Some(line) = line {
            let count = u64::from(packet.header.count - absent);
            self.arbiter.on_messages(line, count.saturating_sub(known), known);
            if self.options.lines > 1 {
                let new = self.counts.messages > before;
                self.arbiter.measure(line, first, first + count, new, now);
                self.ask_for_what_all_lines_passed(now);
            }
        }
        if let Some(end) = self.ends_at {
            if self.newest > end {
                // The session was carried on after it had ended.
                (self.ends_at, self.end_told) = (None, false);
            }
            self.drain(handler);
        }
    }

    /// A packet that does not simply come next. Returns how many of its messages were known, and
    /// how many it lacks.
    fn fit_in(
        &mut self,
        mut messages: Messages<'_>,
        now: u64,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) -> (u64, u16) {
        let first = messages.sequence();
        let mut behind = messages.clone();
        let whole = behind.by_ref().count() as u16;
        let (end, absent) = (first + u64::from(whole), messages.left() - whole);
        if whole == 0 || !self.reach(first, end, now) {
            return (0, absent);
        }
        if first == self.newest && first != self.next {
            // By far the most frequent while a gap is open: all of it is new, none is next.
            let blocks = &messages.rest()[..messages.rest().len() - behind.rest().len()];
            if self.store.insert(first, end, blocks) {
                self.newest = end;
            } else {
                self.counts.overflows += 1;
            }
            return (0, absent);
        }
        let (mut known, mut at) = (0, first);
        while at < end {
            let gap = self.gaps.at_or_behind(at).filter(|gap| gap.first < end);
            let (run_first, run_end) = match gap {
                Some(gap) => (gap.first.max(at), gap.end.min(end)),
                None => (self.newest.clamp(at, end), end),
            };
            known += run_first - at;
            pass_over(&mut messages, run_first - at);
            if run_first < run_end {
                self.take_run(&mut messages, run_first, run_end, now, handler);
            }
            at = run_end;
        }
        self.drain(handler);
        (known, absent)
    }

    /// Messages that are missing: hands them over if they are next, keeps them if they are not.
    fn take_run(
        &mut self,
        messages: &mut Messages<'_>,
        first: u64,
        end: u64,
        now: u64,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) {
        let in_gap = first < self.newest;
        let taken_to = if first == self.next {
            self.hand_over(messages, end - first, handler)
        } else {
            let start = messages.rest();
            pass_over(messages, end - first);
            let blocks = &start[..start.len() - messages.rest().len()];
            let fits = !in_gap || self.gaps.can_fill(first, end);
            if fits && self.store.insert(first, end, blocks) {
                end
            } else {
                self.counts.overflows += 1;
                first
            }
        };
        if !in_gap {
            self.newest = self.newest.max(taken_to);
        } else if taken_to > first {
            self.close(first, taken_to, now);
        } else {
            self.gaps.note_answer(first, now);
        }
    }

    /// Missing messages have come.
    fn close(&mut self, first: u64, end: u64, now: u64) {
        let Some((gap, closed)) = self.gaps.fill(first, end, now) else { return };
        if gap.attempts == 0 {
            self.counts.reordered += end - first;
            return;
        }
        self.counts.repaired += end - first;
        if gap.attempts == 1 {
            self.requests.on_round_trip(now.saturating_sub(gap.asked_at));
        }
        if closed && self.repairs.len() < REPAIRS_MAX {
            self.repairs.push_back(now.saturating_sub(gap.seen_at));
        }
    }

    /// Hands over the next `count` messages, the first of which is next in the stream, and returns
    /// the sequence behind what was handed over or kept: from the one that `handler` refuses on
    /// they are kept, if there is room. The packet may lack some.
    #[inline(always)]
    fn hand_over(
        &mut self,
        messages: &mut Messages<'_>,
        count: u64,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) -> u64 {
        let start = messages.rest();
        // A packet that was cut may claim more than there are numbers.
        let end = self.next.saturating_add(count);
        let mut next = self.next;
        let mut refused = None;
        while next < end {
            let Some((sequence, payload)) = messages.next() else { break };
            if !handler(Event::Message { sequence, payload }) {
                let left = messages.rest().len() + BLOCK_HEADER_BYTES + payload.len();
                refused = Some(&start[start.len() - left..]);
                break;
            }
            next += 1;
        }
        self.counts.messages += next - self.next;
        self.next = next;
        match refused {
            Some(blocks) => self.keep(blocks, messages, end),
            None => next,
        }
    }

    /// Keeps `blocks`, the first of which `handler` refused; `messages` stands behind that one.
    #[cold]
    fn keep(&mut self, blocks: &[u8], messages: &mut Messages<'_>, end: u64) -> u64 {
        pass_over(messages, end - self.next - 1);
        let kept_end = messages.sequence();
        let blocks = &blocks[..blocks.len() - messages.rest().len()];
        if self.store.insert(self.next, kept_end, blocks) {
            return kept_end;
        }
        self.counts.overflows += 1;
        self.next
    }

    /// Hands the gap that is next over as lost. False if there is none, or `handler` refuses.
    pub(super) fn lose(&mut self, handler: &mut impl FnMut(Event<'_>) -> bool) -> bool {
        let Some(gap) = self.gaps.front().filter(|gap| gap.first == self.next) else {
            return false;
        };
        let (first, end) = (gap.first, gap.end);
        let is_taken = handler(Event::Lost { first, count: end - first });
        if is_taken {
            self.gaps.fill(first, end, 0);
            self.counts.lost = self.counts.lost.saturating_add(end - first);
            self.next = end;
        }
        is_taken
    }

    /// Hands over what has become next: held messages, and losses.
    pub(super) fn drain(&mut self, handler: &mut impl FnMut(Event<'_>) -> bool) {
        loop {
            if let Some(gap) = self.gaps.front().filter(|gap| gap.first == self.next) {
                if !gap.lost || !self.lose(handler) {
                    return;
                }
                continue;
            }
            let Some((held, blocks)) = self.store.front() else { break };
            if held.first != self.next {
                return;
            }
            let mut messages = Messages::of(blocks, held.first, (held.end - held.first) as u16);
            let mut left = blocks.len();
            let mut next = self.next;
            for (sequence, payload) in &mut messages {
                if !handler(Event::Message { sequence, payload }) {
                    break;
                }
                left -= BLOCK_HEADER_BYTES + payload.len();
                next += 1;
            }
            self.counts.messages += next - self.next;
            self.next = next;
            self.store.advance(next, left);
            if next < held.end {
                return;
            }
        }
        if self.ends_at == Some(self.next) && !self.end_told {
            self.end_told = true;
            handler(Event::Ended { next: self.next });
        }
    }
}

/// Takes `count` messages and does nothing with them.
fn pass_over(messages: &mut Messages<'_>, count: u64) {
    for _ in 0..count {
        messages.next();
    }
}
