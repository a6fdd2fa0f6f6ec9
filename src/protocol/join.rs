//! Which session a receiver takes, from which source, and where it starts; and what senders say
//! about what they have.
//!
//! Of our own senders, the later session of a host follows the earlier one at once: sessions are
//! numbered by time. Any other session has to wait until the current one has ended, or has been
//! silent for the session timeout. A session that has ended, or that a later one of its host
//! followed, is not taken up again; one that was only silent goes on where it was left, by the
//! same rule. That is remembered of the last eight sessions.
//!
//! A line's source may be followed by one on another host by the same timeout. Silent is who was
//! not heard although the lines were looked at and found empty: what waits unread is not silence.

use std::net::SocketAddr;

use super::control::{Advertisement, Body, Control, Gone};
use super::mold::{Header, Session};
use super::options::Join;
use super::receiver::{Event, Receiver};

/// A session was found, and its sender is asked where it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Joining {
    pub(super) solicit_at: u64,
    pub(super) tries: u32,
    give_up_at: u64,
}

/// A session that was received before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Past {
    pub(super) session: Session,
    /// Where to go on if its sender is heard again. `None` if it is over and done with.
    pub(super) resume_at: Option<u64>,
}

/// Sessions remembered that were received before.
pub(super) const PAST_SESSIONS: usize = 8;
/// Questions without an answer before a receiver starts with what it sees, at least.
const TRIES_MIN: u32 = 10;
/// How long one waits for an answer by who may not know the question, ns.
const UNKNOWN_GIVE_UP_NS: u64 = 50_000_000;

impl Receiver {
    /// A packet of a session that is not being received. True if it is now, and the packet counts.
    #[cold]
    pub(super) fn other_session(
        &mut self,
        line: usize,
        source: SocketAddr,
        header: &Header,
        now: u64,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) -> bool {
        if self.session == Some(header.session) {
            return self.while_joining(line, source, header, now, handler);
        }
        if header.sequence > self.options.first_max {
            self.counts.malformed += 1;
            return false;
        }
        let past = self.past.iter().position(|past| past.session == header.session);
        let resume_at = past.map(|index| self.past[index].resume_at);
        if resume_at == Some(None) {
            self.counts.stale += 1;
            return false;
        }
        if self.options.session.is_some_and(|only| only != header.session) {
            self.counts.foreign += 1;
            return false;
        }
        if let Some(current) = self.session {
            let over = self.is_successor(current, source, header.session);
            let may_follow = over || self.has_ended() || self.is_silent_since(self.heard_at);
            if !may_follow || !self.finish_session(over, handler) {
                self.counts.foreign += 1;
                return false;
            }
        }
        self.sources.fill(None);
        self.hear(line, source, now);
        if let Some(next) = resume_at.flatten() {
            self.past.retain(|past| past.session != header.session);
            self.begin(header.session, next, handler);
            return true;
        }
        let join = match self.options.resume {
            // Of a session that follows another nothing is to be missed.
            _ if self.counts.sessions > 0 => Join::Oldest,
            Some((session, next)) if session == header.session => Join::Sequence(next),
            _ => self.options.join,
        };
        let begin = match join {
            Join::Now => header.sequence,
            Join::Sequence(wanted) => wanted,
            Join::Oldest if self.servers().next().is_none() => header.sequence,
            Join::Oldest => {
                self.session = Some(header.session);
                let knows = self.options.join == Join::Oldest || self.requests.is_understood;
                let patience = if knows { self.options.give_up_ns } else { UNKNOWN_GIVE_UP_NS };
                let give_up_at = now.saturating_add(patience);
                self.joining = Some(Joining { solicit_at: now, tries: 0, give_up_at });
                return false;
            }
        };
        self.begin(header.session, begin, handler);
        true
    }

    fn hear(&mut self, line: usize, source: SocketAddr, now: u64) {
        if let Some(entry) = self.sources.get_mut(line) {
            *entry = Some(source);
            self.line_heard_at[line] = now;
        }
        self.heard_at = now;
    }

    /// Whether nothing came from `heard_at` on for the session timeout, though it was looked for.
    fn is_silent_since(&self, heard_at: u64) -> bool {
        self.idle_at.saturating_sub(heard_at) >= self.options.session_timeout_ns
    }

    /// Whether `next` is a later session of the host that sends the current one.
    fn is_successor(&self, current: Session, source: SocketAddr, next: Session) -> bool {
        let newer = match (current.number(), next.number()) {
            (Some(current), Some(next)) => next > current,
            _ => false,
        };
        newer && self.sources.iter().flatten().any(|known| known.ip() == source.ip())
    }

    /// A packet of the session whose beginning is being asked for: counts only when nobody answers.
    fn while_joining(
        &mut self,
        line: usize,
        source: SocketAddr,
        header: &Header,
        now: u64,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) -> bool {
        self.hear(line, source, now);
        let waits = |joining: Joining| joining.tries < TRIES_MIN || now < joining.give_up_at;
        if self.joining.is_none_or(waits) {
            return false;
        }
        self.begin(header.session, header.sequence, handler);
        true
    }

    /// A packet of the session from another address than before. True if the stream has moved
    /// there.
    #[cold]
    pub(super) fn other_source(
        &mut self,
        line: usize,
        source: SocketAddr,
        header: &Header,
        now: u64,
    ) -> bool {
        let Some(&known) = self.sources.get(line) else {
            self.counts.malformed += 1;
            return false;
        };
        if let Some(known) = known {
            // A sender that carries on after a restart is on the same host, and says nothing that
            // was said before.
            let restarted = known.ip() == source.ip() && header.sequence >= self.newest;
            if !restarted && !self.is_silent_since(self.line_heard_at[line]) {
                self.counts.conflicts += 1;
                return false;
            }
            self.counts.moves += 1;
        }
        self.hear(line, source, now);
        // Who has what is noted by the servers' numbers, which have changed.
        self.gaps.scan().for_each(|gap| gap.gone = 0);
        true
    }

    /// A control packet on the request port.
    #[cold]
    pub(super) fn on_control(
        &mut self,
        source: SocketAddr,
        bytes: &[u8],
        now: u64,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) {
        let Ok(control) = Control::read(bytes) else {
            self.counts.malformed += 1;
            return;
        };
        let Some(server) = self.servers().position(|server| server == source) else {
            self.counts.foreign += 1;
            return;
        };
        if self.session != Some(control.session) {
            self.counts.foreign += 1;
            return;
        }
        self.requests.is_understood = true;
        self.requests.answered_at = now;
        match control.body {
            Body::Advertisement(advertisement) => {
                self.on_advertisement(control.session, &advertisement, now, handler);
            }
            Body::Gone(gone) if self.joining.is_none() => {
                self.on_gone(server, source, &gone, now);
                self.drain(handler);
            }
            _ => self.counts.malformed += 1,
        }
    }

    fn on_advertisement(
        &mut self,
        session: Session,
        advertisement: &Advertisement,
        now: u64,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) {
        let Advertisement { oldest, next, .. } = *advertisement;
        if oldest > next {
            self.counts.malformed += 1;
            return;
        }
        if self.joining.is_some() {
            self.begin(session, oldest, handler);
        }
        for server in advertisement.servers.iter().flatten() {
            let known = self.servers().any(|known| known == *server);
            let advertised = &mut self.requests.advertised;
            if !known && advertised.len() < advertised.capacity() {
                advertised.push(*server);
            }
        }
        self.extend(next, now);
    }

    /// Starts to receive a session.
    pub(super) fn begin(
        &mut self,
        session: Session,
        next: u64,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) {
        (self.next, self.newest) = (next, next);
        self.session = Some(session);
        self.joining = None;
        self.gaps.clear();
        self.store.clear();
        (self.doubted, self.durable) = (None, None);
        self.arbiter.restart();
        (self.ends_at, self.end_told) = (None, false);
        self.requests.restart();
        self.counts.sessions += 1;
        handler(Event::Joined { session, next });
    }

    /// Gives up what is missing and hands over what is held. False if `handler` refused. If the
    /// session is not over, it may be taken up again.
    pub(super) fn finish_session(
        &mut self,
        over: bool,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) -> bool {
        // One gap after the other: what is not taken is not given up.
        self.drain(handler);
        while self.lose(handler) {
            self.drain(handler);
        }
        if self.next != self.newest {
            return false;
        }
        let session = self.session.take();
        // One that was not joined yet has no place to go on from: it would be joined anew.
        if let Some(session) = session.filter(|_| self.joining.take().is_none()) {
            if self.past.len() == PAST_SESSIONS {
                self.past.pop_front();
            }
            let resume_at = Some(self.next).filter(|_| !over && !self.end_told);
            self.past.push_back(Past { session, resume_at });
        }
        (self.ends_at, self.end_told) = (None, false);
        true
    }

    /// A server does not have what it was asked for.
    fn on_gone(&mut self, server: usize, source: SocketAddr, gone: &Gone, now: u64) {
        let end = gone.first.saturating_add(gone.span.into());
        let heard = self.sources.iter().flatten().count();
        if gone.next <= gone.first {
            // It has not come this far. If the sender itself says so, there is no such message:
            // some packet claimed a sequence that was never sent. Of several lines one may merely
            // be behind the others.
            let only = self.sources.len() == 1 && self.sources.contains(&Some(source));
            if only && gone.next.max(self.next) < self.newest {
                self.truncate(gone.next);
                self.counts.malformed += 1;
            }
            if !only {
                self.on_not_yet(server, gone.first, end, now);
            }
            return;
        }
        let servers = self.servers().count() as u32;
        // A line that has not been heard yet may have what the others never had.
        let unheard = self.options.ask_source && heard < self.sources.len();
        let later = now + self.options.retry_max_ns;
        self.gaps.change(gone.first, end, now, |gap| {
            gap.gone |= 1_u32.checked_shl(server as u32).unwrap_or(0);
            let everywhere = gap.gone.count_ones() >= servers;
            gap.lost = everywhere && !unheard;
            if everywhere && unheard {
                gap.due_at = later;
            } else if gap.server % servers as usize == server {
                gap.turn_to(server + 1, servers as usize);
                gap.due_at = now;
            }
        });
    }

    /// A server has not come as far as it was asked. Another may have: each is asked once without
    /// delay. If none has, one soon will, or never: then they are left alone for longer each round.
    fn on_not_yet(&mut self, server: usize, first: u64, end: u64, now: u64) {
        let servers = self.servers().count();
        let (options, requests) = (&self.options, &self.requests);
        self.gaps.change(first, end, now, |gap| {
            if gap.server % servers != server {
                return; // another is being asked, or is about to be
            }
            gap.turn_to(server + 1, servers);
            gap.due_at = match gap.attempts.checked_sub(servers as u32) {
                None => now,
                Some(rounds) => gap.due_at.min(now + requests.retry_ns(options, rounds)),
            };
        });
    }
}
