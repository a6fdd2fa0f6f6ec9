//! Flow control and the sender's view of its receivers, by their reports.
//!
//! Nobody has to report, and by default nobody holds the sender up. A receiver that falls silent is
//! forgotten after a while, so a dead one never holds the sender up for longer than that. One that
//! goes on reporting but stands still while the sender is held up is no longer waited for after the
//! same time, until it has caught up.

use std::net::SocketAddr;

use super::control::{Durable, NAME_MAX_BYTES, Report};
use super::durable::replace;

/// How far the sender may run ahead of its receivers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flow {
    /// As far as it likes: who cannot keep up asks for repair.
    #[default]
    None,
    /// Not beyond the window of the slowest receiver that reports. Without any, as far as it likes.
    Slowest,
    /// Not beyond the windows of this many receivers, the fastest ones; while fewer report, not at
    /// all.
    Quorum(usize),
}

/// What the sender knows of a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceiverView {
    /// Its id, which it chose at random.
    pub id: u64,
    /// Where it reports from.
    pub address: SocketAddr,
    /// Its name.
    pub name: String,
    /// It has every message below this.
    pub next: u64,
    /// Messages sent that it has not confirmed.
    pub lag_messages: u64,
    /// Messages that it missed at first, ever.
    pub missed: u64,
    /// Time since its last report, ns.
    pub silent_ns: u64,
    /// What is durable on its host, as far as it said.
    pub durable: Option<Durable>,
}

#[derive(Clone, Debug)]
struct Receiver {
    id: u64,
    address: SocketAddr,
    name: [u8; NAME_MAX_BYTES],
    next: u64,
    missed: u64,
    /// Cost of everything sent that it can take.
    limit: u64,
    heard_at: u64,
    /// When it last got further, or had everything.
    moved_at: u64,
    /// It stood still for too long, and is not waited for.
    is_stuck: bool,
    durable: Option<Durable>,
}

/// Everyone who reports, and how far that lets the sender go.
#[derive(Debug)]
pub(crate) struct Receivers {
    flow: Flow,
    timeout_ns: u64,
    max: usize,
    table: Vec<Receiver>,
    /// For choosing a quorum; as long as the table.
    limits: Vec<u64>,
    limit: u64,
    /// Nobody has to be forgotten before this.
    forget_at: u64,
    /// Receivers no longer waited for because they fell silent or stood still.
    pub(crate) silenced: u64,
    /// Reports refused because the table is full.
    pub(crate) refused: u64,
}

impl Receivers {
    pub(crate) fn new(flow: Flow, timeout_ns: u64, max: usize) -> Self {
        let (table, limits) = (Vec::with_capacity(max), Vec::with_capacity(max));
        let (limit, forget_at, silenced, refused) = (0, u64::MAX, 0, 0);
        let mut receivers =
            Self { flow, timeout_ns, max, table, limits, limit, forget_at, silenced, refused };
        receivers.settle();
        receivers
    }

    /// Notes a report. `passed` is the cost of everything in front of the message it waits for,
    /// `sent` that of everything. True if something else is durable on that host than before.
    pub(crate) fn on_report(
        &mut self,
        report: &Report,
        from: SocketAddr,
        passed: u64,
        sent: u64,
        now: u64,
    ) -> bool {
        let limit = passed.saturating_add(report.window_bytes.into());
        let mut is_news = report.durable.is_some();
        let known = self.table.iter_mut().find(|receiver| receiver.id == report.receiver);
        if let Some(receiver) = known {
            // A report that was overtaken by a later one says nothing new.
            if report.next >= receiver.next {
                let has_everything = passed == sent && limit > sent;
                if report.next > receiver.next || limit > receiver.limit || has_everything {
                    receiver.moved_at = now;
                    receiver.is_stuck &= limit <= sent;
                }
                receiver.next = report.next;
                receiver.limit = limit;
            }
            receiver.missed = receiver.missed.max(report.missed);
            (receiver.address, receiver.heard_at) = (from, now);
            is_news = replace(&mut receiver.durable, report.durable);
        } else if self.table.len() < self.max || self.make_room(now) {
            self.table.push(Receiver {
                id: report.receiver,
                address: from,
                name: report.name,
                next: report.next,
                missed: report.missed,
                limit,
                heard_at: now,
                moved_at: now,
                is_stuck: false,
                durable: report.durable,
            });
            self.forget_at = self.forget_at.min(now.saturating_add(self.timeout_ns));
        } else {
            self.refused += 1;
            return false;
        }
        self.settle();
        is_news
    }

    /// What is durable on the hosts of those who report.
    pub(crate) fn durable(&self) -> impl Iterator<Item = Durable> + Clone + '_ {
        self.table.iter().filter_map(|receiver| receiver.durable)
    }

    /// Forgets, of those who have not got further for too long, the one for which that is longest.
    /// False if there is none.
    fn make_room(&mut self, now: u64) -> bool {
        let longest = self.table.iter().enumerate().min_by_key(|(_, receiver)| receiver.moved_at);
        let Some((index, receiver)) = longest else { return false };
        let may_go = now.saturating_sub(receiver.moved_at) >= self.timeout_ns;
        if may_go {
            self.silenced += u64::from(!receiver.is_stuck);
            self.table.swap_remove(index);
        }
        may_go
    }

    /// Forgets who has been silent for too long. If flow control holds the stream up,
    /// those who stood still for as long are no longer waited for.
    pub(crate) fn forget_idle(&mut self, is_held_up: bool, now: u64) {
        let before = self.table.len();
        let timeout = self.timeout_ns;
        self.table.retain(|receiver| now.saturating_sub(receiver.heard_at) < timeout);
        self.silenced += (before - self.table.len()) as u64;
        let mut forget_at = u64::MAX;
        for receiver in &mut self.table {
            if is_held_up && now.saturating_sub(receiver.moved_at) >= timeout {
                self.silenced += u64::from(!receiver.is_stuck);
                receiver.is_stuck = true;
            }
            forget_at = forget_at.min(receiver.heard_at.saturating_add(timeout));
            if !receiver.is_stuck && self.flow != Flow::None {
                // It may stand still already, and begin to hold the stream up at any time.
                let look_at = receiver.moved_at.saturating_add(timeout);
                forget_at = forget_at.min(look_at.max(now.saturating_add(timeout / 8 + 1)));
            }
        }
        self.forget_at = forget_at;
        self.settle();
    }

    /// When [`forget_idle`](Self::forget_idle) may have somebody to forget.
    #[inline(always)]
    pub(crate) fn forget_at(&self) -> u64 {
        self.forget_at
    }

    /// The sender may go until the cost of all that it sent reaches this.
    #[inline]
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    fn settle(&mut self) {
        let waited_for = self.table.iter().filter(|receiver| !receiver.is_stuck);
        let limits = waited_for.map(|receiver| receiver.limit);
        self.limit = match self.flow {
            Flow::None => u64::MAX,
            Flow::Slowest => limits.min().unwrap_or(u64::MAX),
            Flow::Quorum(0) => u64::MAX,
            Flow::Quorum(n) => {
                self.limits.clear();
                self.limits.extend(limits);
                self.limits.sort_unstable_by(|a, b| b.cmp(a));
                self.limits.get(n - 1).copied().unwrap_or(0)
            }
        };
    }

    /// Everything below this has arrived wherever flow control says that it must; the highest
    /// number if it asks nothing of anybody.
    pub(crate) fn confirmed(&mut self) -> u64 {
        let waited_for = self.table.iter().filter(|receiver| !receiver.is_stuck);
        let next = waited_for.map(|receiver| receiver.next);
        match self.flow {
            Flow::None | Flow::Quorum(0) => u64::MAX,
            Flow::Slowest => next.min().unwrap_or(u64::MAX),
            Flow::Quorum(n) => {
                self.limits.clear();
                self.limits.extend(next);
                self.limits.sort_unstable_by(|a, b| b.cmp(a));
                self.limits.get(n - 1).copied().unwrap_or(0)
            }
        }
    }

    /// Everyone who reports; `next` is the sender's next sequence.
    pub(crate) fn views(&self, next: u64, now: u64) -> impl Iterator<Item = ReceiverView> {
        self.table.iter().map(move |receiver| ReceiverView {
            id: receiver.id,
            address: receiver.address,
            name: name_text(&receiver.name),
            next: receiver.next,
            lag_messages: next.saturating_sub(receiver.next),
            missed: receiver.missed,
            silent_ns: now.saturating_sub(receiver.heard_at),
            durable: receiver.durable,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// How many messages the slowest is behind.
    pub(crate) fn lag(&self, next: u64) -> u64 {
        let slowest = self.table.iter().map(|receiver| receiver.next).min();
        slowest.map_or(0, |slowest| next.saturating_sub(slowest))
    }
}

/// A name as it stands in a report. Bytes that are not UTF-8 are replaced.
fn name_text(name: &[u8]) -> String {
    let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
    String::from_utf8_lossy(&name[..end]).into_owned()
}

/// A name as it goes into a report: cut at a character's end if it is too long.
pub(crate) fn name_bytes(name: &str) -> [u8; NAME_MAX_BYTES] {
    let mut end = name.len().min(NAME_MAX_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    let mut bytes = [0; NAME_MAX_BYTES];
    bytes[..end].copy_from_slice(&name.as_bytes()[..end]);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(receiver: u64, next: u64, window_bytes: u32) -> Report {
        Report {
            receiver,
            next,
            newest: next,
            missed: 0,
            window_bytes,
            name: name_bytes("réceiver-with-a-long-name"),
            durable: None,
        }
    }

    fn from() -> SocketAddr {
        "10.0.0.1:5000".parse().unwrap()
    }

    #[test]
    fn the_slowest_holds_the_sender_up_until_it_falls_silent() {
        let mut receivers = Receivers::new(Flow::Slowest, 100, 2);
        assert_eq!(receivers.limit(), u64::MAX);
        receivers.on_report(&report(1, 10, 50), from(), 1000, 3000, 0);
        receivers.on_report(&report(2, 20, 50), from(), 2000, 3000, 60);
        assert_eq!(receivers.limit(), 1050);
        receivers.on_report(&report(3, 1, 1), from(), 0, 3000, 60);
        assert_eq!((receivers.limit(), receivers.refused), (1050, 1));
        assert_eq!(receivers.lag(30), 20);
        // Overtaken reports change nothing.
        receivers.on_report(&report(1, 9, 50), from(), 900, 3000, 10);
        assert_eq!((receivers.limit(), receivers.forget_at()), (1050, 100));
        receivers.forget_idle(false, 100);
        assert_eq!((receivers.limit(), receivers.forget_at()), (1050, 110));
        receivers.forget_idle(false, 110);
        assert_eq!((receivers.limit(), receivers.silenced, receivers.len()), (2050, 1, 1));
        assert_eq!(receivers.forget_at(), 160);
        let view = receivers.views(30, 100).next().unwrap();
        assert_eq!((view.lag_messages, view.silent_ns), (10, 40));
        assert_eq!(view.name, "réceiver-with-a-long-na");
    }

    #[test]
    fn a_quorum_waits_for_its_fastest() {
        let mut receivers = Receivers::new(Flow::Quorum(2), 100, 8);
        assert_eq!(receivers.limit(), 0);
        receivers.on_report(&report(1, 1, 0), from(), 100, 3000, 0);
        assert_eq!(receivers.limit(), 0);
        receivers.on_report(&report(2, 1, 0), from(), 300, 3000, 0);
        receivers.on_report(&report(3, 1, 0), from(), 200, 3000, 0);
        assert_eq!(receivers.limit(), 200);
    }
}
