//! What a receiver sends: requests for what is missing, reports, and the question what there is.

use std::net::SocketAddr;

use super::control::{
    BITMAP_MAX_BYTES, Body, CONTROL_MAX_BYTES, Control, Durable, Report, Request, SERVERS_MAX,
};
use super::durable::replace;
use super::flow::name_bytes;
use super::mold::{HEADER_BYTES, Header, Session};
use super::options::{ReceiverOptions, RequestProtocol};
use super::random::Random;
use super::receiver::Receiver;
use super::{PACKET_COST_BYTES, To, Transmit};

/// An answer is never taken for late sooner than this, ns.
const RETRY_MIN_NS: u64 = 20_000;
/// What has become durable is reported no more often than this, ns, unless a report is due.
const DURABLE_REPORT_NS: u64 = 1_000_000;
/// Most messages that a bitmap can speak of.
const BITMAP_MAX_MESSAGES: u64 = BITMAP_MAX_BYTES as u64 * 8;

/// State of the requesting side.
#[derive(Debug)]
pub(super) struct Requests {
    id: u64,
    random: Random,
    /// Servers that the sender told of.
    pub(super) advertised: Vec<SocketAddr>,
    /// Whether a server has answered by control.
    pub(super) is_understood: bool,
    /// When a server last answered anything.
    pub(super) answered_at: u64,
    /// A walk over the gaps that is not at its end: where to go on, and when the first of those
    /// behind is due.
    walk: Option<(u64, u64)>,
    /// What is asked for in the request being made.
    ranges: Vec<(u64, u64)>,
    /// Time from a request to its answer: smoothed, and its mean deviation, ns.
    round_trip: Option<(u64, u64)>,
    report_at: u64,
    reported_at: u64,
    /// What has arrived since the last report, as the sender reckons it.
    unreported: u64,
    reported_next: u64,
    reported_durable: Option<Durable>,
}

impl Requests {
    pub(super) fn new(options: &ReceiverOptions) -> Self {
        let mut random = Random::new(options.id);
        let id = if options.id == 0 { random_id() } else { options.id };
        if options.id == 0 {
            random = Random::new(id);
        }
        Self {
            id,
            random,
            advertised: Vec::with_capacity(SERVERS_MAX),
            is_understood: false,
            answered_at: 0,
            walk: None,
            ranges: Vec::with_capacity(options.gaps_max),
            round_trip: None,
            report_at: 0,
            reported_at: 0,
            unreported: 0,
            reported_next: 0,
            reported_durable: None,
        }
    }

    pub(super) fn restart(&mut self) {
        (self.unreported, self.reported_next, self.report_at) = (0, 0, 0);
        self.reported_durable = None;
        self.walk = None;
        self.advertised.clear();
    }

    #[inline(always)]
    pub(super) fn on_bytes(&mut self, bytes: usize) {
        self.unreported += bytes as u64 + PACKET_COST_BYTES;
    }

    /// How long a new gap is given to close by itself.
    pub(super) fn patience_ns(&mut self, options: &ReceiverOptions) -> u64 {
        let wait = if options.lines > 1 { options.skew_ns } else { options.reorder_ns };
        wait + self.random.below(options.backoff_ns)
    }

    /// An answer came to the first request for something.
    pub(super) fn on_round_trip(&mut self, ns: u64) {
        // As TCP does it (RFC 6298).
        self.round_trip = Some(match self.round_trip {
            None => (ns, ns / 2),
            Some((mean, deviation)) => {
                ((mean * 7 + ns) / 8, (deviation * 3 + mean.abs_diff(ns)) / 4)
            }
        });
    }

    /// How long an answer may take, or its server be left alone, after so many attempts.
    pub(super) fn retry_ns(&self, options: &ReceiverOptions, attempts: u32) -> u64 {
        let first = match self.round_trip {
            None => options.retry_ns,
            Some((mean, deviation)) => (mean * 2).max(mean + 4 * deviation).max(RETRY_MIN_NS),
        };
        first.saturating_mul(1 << attempts.min(20)).min(options.retry_max_ns)
    }
}

/// An id that no other receiver has, and a seed that nobody can guess.
fn random_id() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one("receiver") | 1
}

impl Receiver {
    /// This receiver's id.
    pub fn id(&self) -> u64 {
        self.requests.id
    }

    /// Makes the next datagram to send from the request port, if there is one to send: call it
    /// until there is none, after each datagram that came in and whenever time has passed.
    /// `buffer` needs 1,320 bytes.
    #[inline]
    pub fn poll_transmit(&mut self, now: u64, buffer: &mut [u8]) -> Option<Transmit> {
        if self.joining.is_some() {
            return self.solicit(now, buffer);
        }
        while self.request_is_due(now) {
            if let Some(transmit) = self.request(now, buffer) {
                return Some(transmit);
            }
        }
        if self.report_is_due(now) {
            return self.report(now, buffer);
        }
        None
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) has something to do.
    #[inline]
    pub fn wants_to_send(&self, now: u64) -> bool {
        self.request_is_due(now) || self.report_is_due(now) || self.joining.is_some()
    }

    #[inline]
    fn request_is_due(&self, now: u64) -> bool {
        now >= self.gaps.due_at() || self.requests.walk.is_some()
    }

    #[inline]
    fn report_is_due(&self, now: u64) -> bool {
        let window = u64::from(self.options.window_bytes) / 8;
        self.options.report_ns > 0
            && (now >= self.requests.report_at || self.requests.unreported >= window)
    }

    /// When [`poll_transmit`](Self::poll_transmit) has something to do although nothing came in,
    /// ns.
    pub fn timeout(&self) -> u64 {
        match &self.joining {
            Some(joining) => joining.solicit_at,
            None if self.requests.walk.is_some() => 0,
            None if self.session.is_none() || self.options.report_ns == 0 => self.gaps.due_at(),
            None => self.gaps.due_at().min(self.requests.report_at),
        }
    }

    /// Everybody who may be asked.
    pub(super) fn servers(&self) -> impl Iterator<Item = SocketAddr> {
        let own = &self.options.servers;
        let sources = if self.options.ask_source { &*self.sources } else { &[] };
        let lines = sources.iter().enumerate().filter_map(move |(line, source)| {
            let is_new = !sources[..line].contains(source);
            source.filter(|source| is_new && !own.contains(source))
        });
        let advertised = self.requests.advertised.iter().copied();
        let others = advertised.filter(move |server| !sources.contains(&Some(*server)));
        own.iter().copied().chain(lines).chain(others)
    }

    /// Where data last came from.
    fn source(&self) -> Option<SocketAddr> {
        let lines = self.sources.iter().zip(&self.line_heard_at);
        let last = lines.filter(|(source, _)| source.is_some()).max_by_key(|(_, at)| **at)?;
        *last.0
    }

    fn server(&self, index: usize) -> Option<SocketAddr> {
        let count = self.servers().count().max(1);
        self.servers().nth(index % count)
    }

    fn peer(to: SocketAddr, bytes: usize) -> Option<Transmit> {
        Some(Transmit { to: To::Peer(to), bytes, segment_bytes: bytes })
    }

    fn solicit(&mut self, now: u64, buffer: &mut [u8]) -> Option<Transmit> {
        let joining = self.joining.as_mut().filter(|joining| now >= joining.solicit_at)?;
        let tries = joining.tries;
        joining.tries += 1;
        joining.solicit_at = now + self.options.retry_max_ns.min(1_000_000 << tries.min(16));
        let server = self.server(tries as usize)?;
        let body = Body::Solicit { receiver: self.requests.id };
        let session = self.session.unwrap_or(Session([0; 10]));
        Self::peer(server, Control { session, body }.write(buffer))
    }

    /// Asks for the next gap that is due, and for those behind it that fit the same request. Each
    /// walk over the gaps goes on where the last request ended.
    #[cold]
    fn request(&mut self, now: u64, buffer: &mut [u8]) -> Option<Transmit> {
        let servers = self.servers().count();
        let mold = self.options.protocol == RequestProtocol::Mold;
        let walk = self.requests.walk.take();
        if walk.is_none() {
            self.gaps.set_due_at(u64::MAX); // lowered by what becomes due meanwhile
        }
        // While anything is answered, only what was asked for is given up. MoldUDP64 has no word
        // for what a server lacks: there the whole gap counts as asked for.
        let unheard_ns = now.saturating_sub(self.requests.answered_at);
        let is_whole = mold || servers == 0 || unheard_ns >= self.options.give_up_ns;
        let (from, mut first_due) = walk.unwrap_or((0, u64::MAX));
        let (mut asked, mut in_vain): (Option<usize>, _) = (None, None);
        let mut again = false;
        self.requests.ranges.clear();
        for gap in self.gaps.scan_from(from) {
            if gap.lost {
                continue;
            }
            if gap.due_at > now {
                first_due = first_due.min(gap.due_at);
                continue;
            }
            if servers == 0 || gap.is_in_vain(self.options.give_up_ns, now) {
                if is_whole || gap.asked_end >= gap.end {
                    gap.lost = true;
                    continue;
                }
                gap.due_at = now + self.options.retry_max_ns; // if there is no room to split it
                first_due = first_due.min(gap.due_at);
                in_vain = Some((gap.first, gap.asked_end));
                self.requests.walk = Some((gap.asked_end, first_due));
                break;
            }
            let server = gap.server % servers;
            let ranges = &mut self.requests.ranges;
            let fits = match ranges.first() {
                None => true,
                Some((first, _)) => {
                    !mold && asked == Some(server) && gap.end - first <= BITMAP_MAX_MESSAGES
                }
            };
            if !fits {
                self.requests.walk = Some((gap.first, first_due));
                break;
            }
            let max = u64::from(self.options.request_max_messages);
            let end = gap.end.min(gap.first.saturating_add(max));
            ranges.push((gap.first, end));
            asked = Some(server);
            again |= gap.attempts > 0;
            let due_at = now + self.requests.retry_ns(&self.options, gap.attempts);
            // One packet answers a MoldUDP64 request: what it leaves is asked for when it came.
            gap.ask(if mold { gap.first + 1 } else { end }, due_at, now);
            if gap.attempts.is_multiple_of(self.options.attempts_per_server) {
                gap.turn_to(server + 1, servers);
            }
            first_due = first_due.min(gap.due_at);
        }
        if let Some((first, end)) = in_vain {
            self.gaps.change(first, end, now, |gap| gap.lost = true);
        }
        if self.requests.walk.is_none() {
            self.gaps.set_due_at(first_due.min(self.gaps.due_at()));
        }
        let server = self.server(asked?)?;
        self.counts.requests += 1;
        self.counts.retries += u64::from(again);
        Self::peer(server, self.write_request(mold, buffer)?)
    }

    fn write_request(&self, mold: bool, buffer: &mut [u8]) -> Option<usize> {
        let session = self.session?;
        let ranges = &self.requests.ranges;
        let (&(first, first_end), &(_, end)) = (ranges.first()?, ranges.last()?);
        if mold {
            let count = (first_end - first) as u16; // the options keep it below the odd ones
            Header { session, sequence: first, count }.write(buffer.first_chunk_mut()?);
            return Some(HEADER_BYTES);
        }
        let span = (end - first) as u32;
        let mut bitmap = [0; BITMAP_MAX_BYTES];
        let mut bitmap_bytes = 0;
        if ranges.len() > 1 {
            bitmap_bytes = span.div_ceil(8) as usize;
            for sequence in ranges.iter().flat_map(|&(first, end)| first..end) {
                let index = (sequence - first) as usize;
                bitmap[index / 8] |= 1 << (index % 8);
            }
        }
        let bitmap = &bitmap[..bitmap_bytes];
        let body = Body::Request(Request { receiver: self.requests.id, first, span, bitmap });
        debug_assert!(buffer.len() >= CONTROL_MAX_BYTES);
        Some(Control { session, body }.write(buffer))
    }

    /// Tells the sender how far this receiver is.
    #[cold]
    fn report(&mut self, now: u64, buffer: &mut [u8]) -> Option<Transmit> {
        let progress = self.next != self.requests.reported_next
            || self.durable != self.requests.reported_durable;
        let wait = self.options.report_ns.saturating_mul(if progress { 1 } else { 100 });
        self.requests.report_at = now.saturating_add(wait);
        self.requests.unreported = 0;
        let session = self.session.filter(|_| self.options.report_ns > 0)?;
        (self.requests.reported_next, self.requests.reported_at) = (self.next, now);
        self.requests.reported_durable = self.durable;
        // The sender itself has to hear it, whoever else can repeat.
        let may_be_told = self.options.ask_source || self.durable.is_some();
        let source = self.source().filter(|_| may_be_told).or_else(|| self.servers().next());
        let server = source?;
        let body = Body::Report(Report {
            receiver: self.requests.id,
            next: self.next,
            newest: self.newest,
            missed: self.counts.missed,
            window_bytes: self.options.window_bytes,
            name: name_bytes(&self.options.name),
            durable: self.durable,
        });
        self.counts.reports += 1;
        Self::peer(server, Control { session, body }.write(buffer))
    }

    /// The sender has nothing new: it may be waiting for a report.
    pub(super) fn hurry_report(&mut self, now: u64) {
        let rested = self.requests.reported_at + self.options.report_ns / 100;
        if self.next != self.requests.reported_next && self.newest == self.next {
            self.requests.report_at = self.requests.report_at.min(now.max(rested));
        }
    }

    /// Messages from `first` to `last` of the session are durable on this host: said in the reports
    /// from now on, for the sender's [`stable_sequence`](super::Sender::stable_sequence). Such a
    /// report leaves at once, but not within a millisecond of the one before. It goes to where the
    /// data comes from, even if that is not to be asked for repair.
    ///
    /// What has not been handed over yet is left out, and what reaches less far than what was said
    /// before is ignored. A new session starts with nothing. Without reports
    /// ([`report_ns`](super::ReceiverOptions::report_ns) 0) nothing is said.
    pub fn set_durable(&mut self, first: u64, last: u64) {
        let run = Durable { first, last }.below(self.next);
        if replace(&mut self.durable, run) {
            let rested = self.requests.reported_at + DURABLE_REPORT_NS.min(self.options.report_ns);
            self.requests.report_at = self.requests.report_at.min(rested);
        }
    }

    /// What is durable on this host, of the session joined last, as far as it was said.
    pub fn durable(&self) -> Option<Durable> {
        self.durable
    }
}
