//! The sending side of a stream: messages from its ring into MoldUDP64 packets, heartbeats, answers
//! to requests. Sans-IO: reads no clock and owns no socket.
//!
//! The ring is the retransmission buffer; nothing is kept here but where each packet began. A lone
//! message leaves in the packet made by the next call, and whatever has gathered meanwhile leaves
//! together: packets of equal length, ready for segmentation by the kernel. After the last data
//! packet heartbeats follow at once and then ever more rarely, so that a lost last message is
//! missed within microseconds.

use std::net::SocketAddr;

use gapless_shm::{Consumer, LookBack, Mapped, Memory, PollError};
use thiserror::Error;

use super::answer::{Answers, Note};
use super::control::{Body, Control, Durable, Report, Request, is_control};
use super::durable::Stable;
use super::flow::{ReceiverView, Receivers};
use super::history::{History, Sent};
use super::mold::{self, BLOCK_HEADER_BYTES, HEADER_BYTES, Header, Session};
use super::options::{OptionError, SenderOptions};
use super::pack::{Odd, pack};
use super::repair::{Budgets, Repairs};
use super::shelf::{RingShelf, Terms};
use super::{GSO_SEGMENTS_MAX, PACKET_COST_BYTES, To, Transmit};

/// A sender cannot go on, or not start.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SenderError {
    /// An option is out of its range.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The ring cannot be read further.
    #[error("the stream's ring: {0}")]
    Ring(#[from] PollError),
    /// A message does not fit a datagram.
    #[error(
        "message {sequence} has {len} bytes, a datagram takes {max}: send larger datagrams, or publish it in fragments on an enveloped stream"
    )]
    TooLong {
        /// Its sequence.
        sequence: u64,
        /// Its length, bytes.
        len: usize,
        /// The limit, bytes.
        max: usize,
    },
    /// A record is a fragment, and nothing in a plain stream would say so to the other side.
    #[error("record {sequence} is a fragment: only an enveloped stream carries fragments")]
    Fragment {
        /// Its sequence.
        sequence: u64,
    },
}

/// What a sender has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounts {
    /// Messages sent, repeated ones not counted.
    pub messages: u64,
    /// Data packets sent, repeated ones not counted.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
    /// Heartbeats and ends of session sent.
    pub heartbeats: u64,
    /// Of those, ends of session.
    pub ends: u64,
    /// Requests taken, of either protocol.
    pub requests: u64,
    /// Requests not answered for want of budget or room.
    pub requests_refused: u64,
    /// Requests answered by an answer to somebody else.
    pub requests_merged: u64,
    /// Requests that make no sense: another session, sequence 0, not yet sent.
    pub requests_odd: u64,
    /// Datagrams on the request port that are neither a request nor control.
    pub malformed: u64,
    /// Messages repeated.
    pub repaired_messages: u64,
    /// Packets repeated.
    pub repaired_packets: u64,
    /// Requests for what is no longer held.
    pub gone: u64,
    /// Reports by receivers.
    pub reports: u64,
    /// Messages overwritten in a lossy ring before they could be sent.
    pub lapped: u64,
    /// Times that flow control began to hold the stream up.
    pub stalls: u64,
}

/// What a message takes of the ring beside its bytes, at most.
const RECORD_COST_BYTES: u64 = 256;

/// The sending side of one stream.
pub struct Sender<M: Memory = Mapped> {
    options: SenderOptions,
    session: Session,
    consumer: Consumer<M>,
    history: History,
    receivers: Receivers,
    stable: Stable,
    answers: Answers,
    /// Whether the last turn was an answer's: then the next is the data's.
    answered_last: bool,
    /// Everything below this has arrived wherever it must.
    confirmed: u64,
    /// Number of the packet from which on the ring is kept.
    kept_from: u64,
    /// Cost of all data packets sent.
    cost: u64,
    heartbeat_at: u64,
    heartbeat_interval_ns: u64,
    /// Whether no more messages will come.
    ending: bool,
    /// When the end of the session was first sent.
    ended_at: Option<u64>,
    /// Whether flow control holds messages back.
    held_up: bool,
    counts: SenderCounts,
}

impl<M: Memory> Sender<M> {
    /// A sender of what `consumer` reads, from its next message on.
    ///
    /// # Errors
    /// [`SenderError::Option`].
    pub fn new(
        mut options: SenderOptions,
        session: Session,
        mut consumer: Consumer<M>,
        now: u64,
    ) -> Result<Self, SenderError> {
        options.check()?;
        let capacity = consumer.capacity_bytes();
        let retain = Some(options.retain_bytes).filter(|bytes| *bytes > 0).unwrap_or(capacity / 2);
        // The producer needs room for the longest message behind a padding as long.
        let longest = consumer.max_message_bytes().min(options.datagram_bytes) as u64;
        let room = 2 * (longest + RECORD_COST_BYTES).max(capacity / 16);
        options.retain_bytes = retain.min(capacity.saturating_sub(room));
        consumer.hold(consumer.place());
        let budgets =
            Budgets::new(options.repair_bytes_per_second, options.repair_burst_bytes, 256);
        Ok(Self {
            session,
            history: History::new(options.history_packets, consumer.place()),
            answers: Answers::new(Repairs::new(options.requests_max, options.merge_ns, budgets)),
            answered_last: false,
            receivers: Receivers::new(
                options.flow,
                options.receiver_timeout_ns,
                options.receivers_max,
            ),
            stable: Stable::new(consumer.next_sequence(), options.receivers_max),
            confirmed: u64::MAX,
            kept_from: 0,
            cost: 0,
            heartbeat_at: now,
            heartbeat_interval_ns: options.heartbeat_first_ns,
            ending: false,
            ended_at: None,
            held_up: false,
            counts: SenderCounts::default(),
            consumer,
            options,
        })
    }

    /// The session that it sends.
    pub fn session(&self) -> Session {
        self.session
    }

    /// The next message to be sent.
    pub fn next_sequence(&self) -> u64 {
        self.consumer.next_sequence()
    }

    /// What it has done so far.
    pub fn counts(&self) -> &SenderCounts {
        &self.counts
    }

    /// The ring's reader.
    pub fn consumer(&self) -> &Consumer<M> {
        &self.consumer
    }

    /// Longest message that fits a datagram, bytes.
    pub fn max_message_bytes(&self) -> usize {
        self.options.datagram_bytes - HEADER_BYTES - BLOCK_HEADER_BYTES
    }

    /// Everyone who reports.
    pub fn receivers(&self, now: u64) -> impl Iterator<Item = ReceiverView> {
        self.receivers.views(self.next_sequence(), now)
    }

    /// The receiver that is furthest behind, if any reports.
    pub fn slowest(&self, now: u64) -> Option<ReceiverView> {
        self.receivers(now).max_by_key(|receiver| receiver.lag_messages)
    }

    /// How many report, how many are no longer waited for because they fell silent or stood still,
    /// and by how many messages the slowest lags.
    pub fn receiver_counts(&self) -> (usize, u64, u64) {
        (self.receivers.len(), self.receivers.silenced, self.receivers.lag(self.next_sequence()))
    }

    /// The message up to which everything that this sender sent is durable on at least `k` hosts:
    /// those of the receivers that say so in their reports, and this one if
    /// [`set_local_durable`](Self::set_local_durable) says so. 0 if there is none, as while fewer
    /// hosts report; with `k` 0, the last message sent.
    ///
    /// It never goes down. What was durable on `k` hosts still is when they have left: what a disk
    /// holds does not depend on who reports it. A host that lost a message, or joined behind it,
    /// does not count until others have carried the number past that; of single messages behind it,
    /// ask [`is_stable`](Self::is_stable).
    ///
    /// A few nanoseconds if nothing was reported since it was last asked for this `k`; otherwise
    /// the receivers are sorted.
    pub fn stable_sequence(&mut self, k: usize) -> u64 {
        if k == 0 {
            return self.next_sequence().saturating_sub(1);
        }
        self.stable.last(k, self.receivers.durable())
    }

    /// Whether message `sequence` was sent and is durable on at least `k` hosts of those that
    /// report now, or was found so by [`stable_sequence`](Self::stable_sequence).
    pub fn is_stable(&self, sequence: u64, k: usize) -> bool {
        sequence < self.next_sequence()
            && self.stable.contains(sequence, k, self.receivers.durable())
    }

    /// Messages from `first` to `last` are durable on the sender's own host, which then counts as
    /// one. What reaches less far than what was said before is ignored.
    pub fn set_local_durable(&mut self, first: u64, last: u64) {
        let next = self.next_sequence();
        self.stable.set_local(Durable { first, last }, next);
    }

    /// Ends the session behind the last message of the ring: call it when no more will come, and
    /// go on polling until [`is_done`](Self::is_done).
    pub fn end(&mut self, now: u64) {
        if !self.ending {
            self.ending = true;
            self.heartbeat_at = now;
            self.heartbeat_interval_ns = self.options.heartbeat_first_ns;
        }
    }

    /// Whether the session has ended and been repeated for long enough.
    pub fn is_done(&self, now: u64) -> bool {
        self.ended_at.is_some_and(|at| now.saturating_sub(at) >= self.options.linger_ns)
    }

    /// Takes a datagram from the request port.
    pub fn on_datagram(&mut self, from: SocketAddr, bytes: &[u8], now: u64) {
        if is_control(bytes) {
            match Control::read(bytes) {
                Ok(control) => self.on_control(from, &control, now),
                Err(_) => self.counts.malformed += 1,
            }
        } else if let (Ok(header), HEADER_BYTES) = (Header::read(bytes), bytes.len()) {
            self.on_mold_request(from, &header, now);
        } else {
            self.counts.malformed += 1;
        }
    }

    fn on_mold_request(&mut self, from: SocketAddr, header: &Header, now: u64) {
        let Header { session, sequence: first, count } = *header;
        // Some ask for 0xFFFE and 0xFFFF messages: one packet is the answer to any number.
        let known = session == self.session || self.options.any_session;
        if !known || count == 0 {
            self.counts.requests_odd += 1;
            return;
        }
        let request = Request { receiver: 0, first, span: count.into(), bitmap: &[] };
        self.take_request(from, &request, true, now);
    }

    fn take_request(&mut self, from: SocketAddr, request: &Request<'_>, one: bool, now: u64) {
        let (answers, mut shelf, counts) = self.answering();
        answers.take_request(&mut shelf, counts, (from, request), one, now);
    }

    /// What answers are made by, from, and counted in.
    fn answering(&mut self) -> (&mut Answers, RingShelf<'_, M>, &mut SenderCounts) {
        let terms = Terms {
            session: self.session,
            datagram_bytes: self.options.datagram_bytes,
            ended: self.ended_at.is_some(),
            servers: &self.options.servers,
        };
        let shelf = RingShelf { consumer: &self.consumer, history: &self.history, terms };
        (&mut self.answers, shelf, &mut self.counts)
    }

    /// Control and repairs; every other turn belongs to the data, which comes first.
    #[cold]
    fn answer(&mut self, now: u64, buffer: &mut [u8]) -> Option<Transmit> {
        self.answered_last = !self.answered_last;
        if !self.answered_last {
            return None;
        }
        let (answers, mut shelf, counts) = self.answering();
        answers.next(&mut shelf, counts, now, buffer)
    }

    #[inline(always)]
    fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    fn on_control(&mut self, from: SocketAddr, control: &Control<'_>, now: u64) {
        let ours = control.session == self.session;
        match &control.body {
            Body::Solicit { .. } if ours || control.session == Session([0; 10]) => {
                self.answers.note(&mut self.counts, from, Note::Advertise, now);
            }
            Body::Request(request) if ours => self.take_request(from, request, false, now),
            Body::Report(report) if ours => self.on_report(from, report, now),
            Body::Solicit { .. } | Body::Request(_) | Body::Report(_) => {
                self.counts.requests_odd += 1;
            }
            // Other senders' answers are not for us.
            Body::Advertisement(_) | Body::Gone(_) => self.counts.malformed += 1,
        }
    }

    fn on_report(&mut self, from: SocketAddr, report: &Report, now: u64) {
        self.counts.reports += 1;
        let next = self.next_sequence();
        // Nobody can have what was not sent.
        let durable = report.durable.and_then(|run| run.below(next));
        let report = Report { next: report.next.min(next), durable, ..*report };
        let passed = if report.next == next {
            self.cost
        } else {
            self.history.find(report.next).map_or(0, |sent| sent.cost)
        };
        if self.receivers.on_report(&report, from, passed, self.cost, now) {
            self.stable.on_change();
        }
        self.confirmed = self.receivers.confirmed();
        self.let_go();
    }

    /// Makes the next datagrams to send, if there is anything to send: call it until it has
    /// nothing, after each datagram that came in and whenever time has passed.
    ///
    /// `buffer` should have [`BURST_BYTES`](super::BURST_BYTES), and must have at least the largest
    /// datagram's and 1,320 bytes. What it returns must be sent: the ring has moved on.
    ///
    /// # Errors
    /// [`SenderError`] says why the stream cannot be sent further.
    #[inline]
    pub fn poll_transmit(
        &mut self,
        now: u64,
        buffer: &mut [u8],
    ) -> Result<Option<Transmit>, SenderError> {
        loop {
            if self.has_answers()
                && let Some(transmit) = self.answer(now, buffer)
            {
                return Ok(Some(transmit));
            }
            if now >= self.receivers.forget_at() {
                self.forget_idle(now);
            }
            if let Some(transmit) = self.data(now, buffer)? {
                return Ok(Some(transmit));
            }
            // It was the data's turn, or what was looked for is gone.
            if !self.has_answers() {
                break;
            }
        }
        if now >= self.heartbeat_at {
            return Ok(self.heartbeat(now, buffer));
        }
        Ok(None)
    }

    /// When [`poll_transmit`](Self::poll_transmit) has something to do although nothing came in,
    /// ns.
    pub fn timeout(&self) -> u64 {
        if self.has_answers() { 0 } else { self.heartbeat_at.min(self.receivers.forget_at()) }
    }

    /// New messages, as many as there are and fit.
    #[inline]
    fn data(&mut self, now: u64, buffer: &mut [u8]) -> Result<Option<Transmit>, SenderError> {
        if self.consumer.place().sequence() != self.next_sequence() && !self.settle()? {
            return Ok(None);
        }
        let room = self.receivers.limit().saturating_sub(self.cost);
        let mut burst = Burst { used: 0, packets: 0, segment: self.options.datagram_bytes };
        while burst.packets < GSO_SEGMENTS_MAX && burst.used + burst.segment <= buffer.len() {
            if (burst.used as u64).saturating_add(burst.packets * PACKET_COST_BYTES) >= room {
                break;
            }
            let place = self.consumer.place();
            let mut odd = None;
            let packet = &mut buffer[burst.used..burst.used + burst.segment];
            let packed = pack(&mut self.consumer, packet, self.options.enveloped, &mut odd);
            let (used, count) = match packed {
                Err(PollError::Lapped { missed, .. }) => {
                    self.counts.lapped += missed;
                    continue;
                }
                packed => packed?,
            };
            if count == 0 {
                if let Some(found) = odd.take()
                    && burst.packets == 0
                {
                    self.pass_odd(found)?;
                    continue;
                }
                break;
            }
            let header = Header { session: self.session, sequence: place.sequence(), count };
            if let Some(start) = packet.first_chunk_mut() {
                header.write(start);
            }
            let sent = burst.used as u64 + burst.packets * PACKET_COST_BYTES;
            self.history.push(Sent { place, cost: self.cost + sent });
            self.counts.messages += u64::from(count);
            burst.used += used;
            burst.packets += 1;
            if burst.packets == 1 {
                burst.segment = used;
            }
            if used < burst.segment {
                break;
            }
        }
        if burst.packets == 0 {
            if room == 0 && !self.held_up && self.has_unsent() {
                self.counts.stalls += 1;
                self.held_up = true;
            }
            return Ok(None);
        }
        self.held_up = false;
        self.cost += burst.used as u64 + burst.packets * PACKET_COST_BYTES;
        self.counts.packets += burst.packets;
        self.counts.bytes += burst.used as u64;
        self.heartbeat_interval_ns = self.options.heartbeat_first_ns;
        self.heartbeat_at = now + self.heartbeat_interval_ns;
        self.let_go();
        Ok(Some(Transmit { to: To::Stream, bytes: burst.used, segment_bytes: burst.segment }))
    }

    /// Lets the producer overwrite packets that need not be kept any longer.
    #[inline]
    fn let_go(&mut self) {
        let head = self.consumer.place();
        let numbers = self.history.numbers();
        let before = self.kept_from;
        if before < numbers.start {
            if self.history.place(numbers.start).sequence() > self.confirmed {
                return; // somebody still needs what the history has forgotten
            }
            self.kept_from = numbers.start;
        }
        // Behind the last packet is what has not been sent.
        let place = |number| if number < numbers.end { self.history.place(number) } else { head };
        while self.kept_from < numbers.end {
            let kept = head.position() - place(self.kept_from).position();
            let is_wanted = place(self.kept_from + 1).sequence() > self.confirmed;
            if kept <= self.options.retain_bytes || is_wanted {
                break;
            }
            self.kept_from += 1;
        }
        if self.kept_from != before {
            let place = place(self.kept_from);
            self.consumer.hold(place);
        }
    }

    /// A record that is no plain message and stands first: jumps over lost ones, which the other
    /// side then asks for and is told are gone.
    #[cold]
    fn pass_odd(&mut self, odd: Odd) -> Result<(), SenderError> {
        match odd {
            Odd::Lost => {
                self.consumer.poll_while(usize::MAX, |message| message.flags.is_lost())?;
                // As if a packet had left: nothing is kept behind what will never be sent.
                let (place, cost) = (self.consumer.place(), self.cost);
                self.history.push(Sent { place, cost });
                self.let_go();
                Ok(())
            }
            Odd::Fragment { sequence } => Err(SenderError::Fragment { sequence }),
            Odd::TooLong { sequence, len } => {
                Err(SenderError::TooLong { sequence, len, max: self.max_message_bytes() })
            }
        }
    }

    #[cold]
    fn forget_idle(&mut self, now: u64) {
        let held = self.consumer.held_bytes() > self.options.retain_bytes;
        self.receivers.forget_idle(self.held_up || held, now);
        self.confirmed = self.receivers.confirmed();
        self.let_go();
    }

    /// Whether messages wait in the ring.
    fn has_unsent(&self) -> bool {
        self.consumer.look_back(self.consumer.place(), &mut []) != LookBack::NotYet
    }

    /// Moves a consumer that was to start with a message of the future on to where the stream is.
    /// True if it has come there.
    #[cold]
    fn settle(&mut self) -> Result<bool, SenderError> {
        match self.consumer.poll_while(1, |_| false) {
            Err(PollError::Lapped { .. }) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.consumer.place().sequence() == self.next_sequence())
    }

    #[cold]
    fn heartbeat(&mut self, now: u64, buffer: &mut [u8]) -> Option<Transmit> {
        // Flow control may hold the last messages back: the end stands behind them.
        if self.ending && self.ended_at.is_none() && !self.has_unsent() {
            self.ended_at = Some(now);
        }
        if self.is_done(now) {
            self.heartbeat_at = u64::MAX;
            return None;
        }
        self.heartbeat_at = now + self.heartbeat_interval_ns;
        let max = self.options.heartbeat_max_ns;
        self.heartbeat_interval_ns = (self.heartbeat_interval_ns * 2).min(max);
        let count = if self.ended_at.is_some() { mold::END_OF_SESSION } else { mold::HEARTBEAT };
        let header = Header { session: self.session, sequence: self.next_sequence(), count };
        header.write(buffer.first_chunk_mut()?);
        self.counts.heartbeats += 1;
        self.counts.ends += u64::from(self.ended_at.is_some());
        Some(Transmit { to: To::Stream, bytes: HEADER_BYTES, segment_bytes: HEADER_BYTES })
    }
}

/// Packets of equal length (but the last) in a row.
struct Burst {
    used: usize,
    packets: u64,
    segment: usize,
}
