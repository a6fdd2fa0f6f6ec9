//! Which session a receiver takes, from which source, and where it starts; and what senders say
//! about what they have.
//!
//! Of our own senders, the later session of a host follows the earlier one at once: sessions are
//! numbered by time. Any other session has to wait until the current one has ended, or has been
//! silent for the session timeout. A session that is over is never taken up again.

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
        if self.is_past(header.session) {
            self.counts.stale += 1;
            return false;
        }
        if self.options.session.is_some_and(|only| only != header.session) {
            self.counts.foreign += 1;
            return false;
        }
        if let Some(current) = self.session
            && !(self.may_follow(current, source, header.session, now)
                && self.finish_session(handler))
        {
            self.counts.foreign += 1;
            return false;
        }
        self.sources.fill(None);
        if let Some(entry) = self.sources.get_mut(line) {
            *entry = Some(source);
        }
        // Of a session that follows another nothing is to be missed.
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
                self.heard_at = now;
                return false;
            }
        };
        self.begin(header.session, begin, handler);
        true
    }

    fn may_follow(&self, current: Session, source: SocketAddr, next: Session, now: u64) -> bool {
        let newer = match (current.number(), next.number()) {
            (Some(current), Some(next)) => next > current,
            _ => false,
        };
        let same_host = self.sources.iter().flatten().any(|known| known.ip() == source.ip());
        let silent = now.saturating_sub(self.heard_at) >= self.options.session_timeout_ns;
        self.has_ended() || silent || (newer && same_host)
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
        // A sender that carries on after a restart says nothing that was not said before; a second
        // one does.
        let silent = now.saturating_sub(self.heard_at) >= SOURCE_TIMEOUT_NS;
        if header.sequence < self.newest && !silent {
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

    /// A server does not have what it was asked for.
    fn on_gone(&mut self, server: usize, source: SocketAddr, gone: &Gone, now: u64) {
        let end = gone.first.saturating_add(gone.span.into());
        if gone.next <= gone.first {
            // It has not come this far. If the sender itself says so, there is no such message:
            // some packet claimed a sequence that was never sent.
            if self.sources.contains(&Some(source)) {
                let real = gone.next.max(self.next);
                if real < self.newest {
                    self.gaps.truncate(real);
                    self.store.truncate(real);
                    self.newest = real;
                    self.counts.malformed += 1;
                }
            }
            return;
        }
        let servers = self.servers().count() as u32;
        self.gaps.change(gone.first, end, |gap| {
            gap.gone |= 1_u32.checked_shl(server as u32).unwrap_or(0);
            gap.lost = gap.gone.count_ones() >= servers;
            gap.server = server + 1;
            gap.due_at = now;
        });
    }
}
