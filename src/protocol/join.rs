//! Which session a receiver takes, from which source, and where it starts; and what senders say
//! about what they have.
//!
//! Of our own senders, the later session of a host follows the earlier one at once: sessions are
//! numbered by time. Any other session has to wait until the current one has ended, or has been
//! silent for the session timeout. A session that has ended, or that a later one of its host
//! followed, is never taken up again; one that was only silent goes on where it was left, by the
//! same rule.

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
/// Questions without an answer before a receiver starts with what it sees.
const TRIES_MAX: u32 = 10;
/// A second source may speak up when the first has been silent for so long, ns.
const SOURCE_TIMEOUT_NS: u64 = 100_000_000;

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
            let may_follow = over
                || self.has_ended()
                || now.saturating_sub(self.heard_at) >= self.options.session_timeout_ns;
            if !may_follow || !self.finish_session(over, handler) {
                self.counts.foreign += 1;
                return false;
            }
        }
        self.sources.fill(None);
        if let Some(entry) = self.sources.get_mut(line) {
            *entry = Some(source);
        }
        // Of a session that follows another nothing is to be missed.
        self.heard_at = now;
        if let Some(next) = resume_at.flatten() {
            self.past.retain(|past| past.session != header.session);
            self.begin(header.session, next, handler);
            return true;
        }
        let join = match self.options.resume {
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
                self.joining = Some(Joining { solicit_at: now, tries: 0 });
                return false;
            }
        };
        self.begin(header.session, begin, handler);
        true
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
        if let Some(entry) = self.sources.get_mut(line) {
            *entry = Some(source);
        }
        self.heard_at = now;
        if self.joining.is_none_or(|joining| joining.tries < TRIES_MAX) {
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
        let Some(known) = self.sources.get_mut(line) else {
            self.counts.malformed += 1;
            return false;
        };
        if known.is_none() {
            *known = Some(source);
            return true;
        }
        // A sender that carries on after a restart is on the same host, and says nothing that was
        // said before.
        let restarted =
            known.is_some_and(|known| known.ip() == source.ip()) && header.sequence >= self.newest;
        let heard_at = self.line_heard_at.get(line).copied().unwrap_or(0);
        let silent = now.saturating_sub(heard_at) >= SOURCE_TIMEOUT_NS;
        if !restarted && !silent {
            self.counts.conflicts += 1;
            return false;
        }
        *known = Some(source);
        self.counts.moves += 1;
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
        self.reach(next, now);
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
        for gap in self.gaps.scan() {
            gap.lost = true;
        }
        self.drain(handler);
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

    /// The stream turns out to end at `sequence`: forgets what was said to be behind that.
    pub(super) fn truncate(&mut self, sequence: u64) {
        let kept = self.store.truncate(sequence);
        let end = sequence.max(self.next).max(kept.unwrap_or(0));
        self.gaps.truncate(end);
        self.newest = end;
        self.ends_at = self.ends_at.filter(|at| *at <= end);
    }

    /// A server does not have what it was asked for.
    fn on_gone(&mut self, server: usize, source: SocketAddr, gone: &Gone, now: u64) {
        let end = gone.first.saturating_add(gone.span.into());
        if gone.next <= gone.first {
            // It has not come this far. If the sender itself says so, there is no such message:
            // some packet claimed a sequence that was never sent.
            if self.sources.contains(&Some(source)) && gone.next.max(self.next) < self.newest {
                self.truncate(gone.next);
                self.counts.malformed += 1;
            }
            return;
        }
        let servers = self.servers().count() as u32;
        self.gaps.change(gone.first, end, |gap| {
            gap.gone |= 1_u32.checked_shl(server as u32).unwrap_or(0);
            gap.lost = gap.gone.count_ones() >= servers;
            if gap.server % servers as usize == server {
                gap.turn_to(server + 1, servers as usize);
                gap.due_at = now;
            }
        });
    }
}
