//! How far the stream is: what a receiver takes on trust of packets that run ahead, and what it
//! takes back.
//!
//! One packet may claim any sequence, by mistake or by malice, and everything in front of it would
//! be missing. So a long jump needs a second packet that carries on from the first, and a heartbeat
//! that comes after a silence says how far the stream really is: what was claimed beyond it was
//! never sent.

use super::mold::{END_OF_SESSION, Header};
use super::receiver::{Event, Receiver};

/// The longest jump that one packet is believed, messages. More than a full store holds, mostly.
const JUMP_MAX_MESSAGES: u64 = 1 << 20;
/// No heartbeat is overtaken by so much, ns.
const OVERTAKEN_MAX_NS: u64 = 100_000_000;

impl Receiver {
    /// A packet from `first` to before `end` came: opens a gap if there is one in front of it.
    /// False if it is too far ahead. Then nothing is opened, or a gap that ends where the packet is
    /// not, and the stream gets there bit by bit.
    pub(super) fn reach(&mut self, first: u64, end: u64, now: u64) -> bool {
        if first <= self.newest {
            return true;
        }
        if first - self.newest > JUMP_MAX_MESSAGES {
            let before = self.doubted.replace(end);
            let carries_on = |from: u64| first >= from && first - from <= JUMP_MAX_MESSAGES;
            if !before.is_some_and(carries_on) {
                self.counts.overflows += 1;
                return false;
            }
        }
        self.extend(first, now)
    }

    /// The stream is known to reach up to `sequence`. False if that is too far ahead.
    pub(super) fn extend(&mut self, sequence: u64, now: u64) -> bool {
        if sequence <= self.newest {
            return true;
        }
        let end = sequence.min(self.next.saturating_add(self.options.ahead_max_messages));
        let due_at = now.saturating_add(self.requests.patience_ns(&self.options));
        if end > self.newest && self.gaps.open(self.newest, end, now, due_at) {
            self.counts.gaps += 1;
            self.counts.missed = self.counts.missed.saturating_add(end - self.newest);
            self.newest = end;
        }
        let reached = sequence == self.newest;
        self.counts.overflows += u64::from(!reached);
        reached
    }

    /// The stream turns out to end at `sequence`: forgets what was said to be behind that.
    pub(super) fn truncate(&mut self, sequence: u64) {
        let kept = self.store.truncate(sequence);
        let end = sequence.max(self.next).max(kept.unwrap_or(0));
        self.gaps.truncate(end);
        self.newest = end;
        self.ends_at = self.ends_at.filter(|at| *at <= end);
    }

    /// A packet without messages: says how far the stream is, or that it ends there.
    pub(super) fn on_heartbeat(
        &mut self,
        is_live: bool,
        header: &Header,
        now: u64,
        handler: &mut impl FnMut(Event<'_>) -> bool,
    ) {
        self.counts.heartbeats += 1;
        let silent_ns = self.idle_at.saturating_sub(self.heard_at);
        if header.sequence < self.newest
            && is_live
            && silent_ns >= OVERTAKEN_MAX_NS
            && !self.gaps.is_empty()
            && !self.is_refused()
        {
            let newest = self.newest;
            self.truncate(header.sequence);
            self.counts.malformed += u64::from(self.newest < newest);
        }
        if !self.reach(header.sequence, header.sequence, now) {
            return;
        }
        self.hurry_report(now);
        if header.count == END_OF_SESSION && header.sequence == self.newest {
            // Carried on after it had ended, and ended again.
            self.end_told &= self.ends_at == Some(header.sequence);
            self.ends_at = Some(header.sequence);
            self.drain(handler);
        }
    }

    /// Where there are several lines, a gap is asked for as soon as all have gone past it.
    pub(super) fn ask_for_what_all_lines_passed(&mut self, now: u64) {
        if self.gaps.is_empty() {
            return;
        }
        let due_at = now + self.options.reorder_ns;
        let mut first_due = self.gaps.due_at();
        for gap in self.gaps.scan() {
            if !self.arbiter.all_passed(gap.end) {
                break;
            }
            if gap.attempts == 0 {
                gap.due_at = gap.due_at.min(due_at);
                first_due = first_due.min(gap.due_at);
            }
        }
        self.gaps.set_due_at(first_due);
    }
}
