//! Two networks, one stream: which line brought each message first, what each line lost, and how
//! far it was behind.
//!
//! The first copy wins by its sequence number alone, so arbitration itself is the receiver's one
//! comparison; here it is only watched, line by line.

/// What one line has brought so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LineCounts {
    /// Packets that arrived on it, heartbeats included.
    pub packets: u64,
    /// Bytes of those packets.
    pub bytes: u64,
    /// Messages that it brought first.
    pub wins: u64,
    /// Messages that were there already when it brought them.
    pub duplicates: u64,
    /// Messages that it skipped and has not brought since.
    pub lost: u64,
    /// Packets that came behind a later one of the same line.
    pub reordered: u64,
    /// How often its lateness was measured: one message at a time, when it brings what another
    /// line brought first.
    pub late_samples: u64,
    /// Sum of those measurements, ns.
    pub late_ns: u64,
    /// The longest of them, ns.
    pub late_max_ns: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Line {
    next: Option<u64>,
    counts: LineCounts,
}

/// A message that one line brought first, and when: to see how much later the others bring it.
#[derive(Clone, Copy, Debug)]
struct Sample {
    sequence: u64,
    line: usize,
    at: u64,
}

/// The lines of a stream.
#[derive(Debug)]
pub(crate) struct Arbiter {
    lines: Box<[Line]>,
    sample: Option<Sample>,
}

impl Arbiter {
    pub(crate) fn new(lines: usize) -> Self {
        Self { lines: vec![Line::default(); lines.max(1)].into(), sample: None }
    }

    pub(crate) fn counts(&self, line: usize) -> Option<&LineCounts> {
        self.lines.get(line).map(|line| &line.counts)
    }

    /// A packet came; its messages are `[first, end)`.
    #[inline]
    pub(crate) fn on_packet(&mut self, line: usize, first: u64, end: u64, bytes: usize) {
        let Some(line) = self.lines.get_mut(line) else { return };
        line.counts.packets += 1;
        line.counts.bytes += bytes as u64;
        match line.next {
            Some(next) if first == next => line.next = Some(end),
            Some(next) if first > next => {
                line.counts.lost = line.counts.lost.saturating_add(first - next);
                line.next = Some(end);
            }
            Some(next) => {
                // Late, or a duplicate by the network: what it skipped has come after all.
                line.counts.reordered += u64::from(end > first);
                line.counts.lost = line.counts.lost.saturating_sub(end.min(next) - first);
                line.next = Some(end.max(next));
            }
            None => line.next = Some(end),
        }
    }

    /// How many of the packet's messages were new.
    #[inline]
    pub(crate) fn on_messages(&mut self, line: usize, new: u64, known: u64) {
        if let Some(line) = self.lines.get_mut(line) {
            line.counts.wins += new;
            line.counts.duplicates += known;
        }
    }

    /// Measures lateness; needed only where there are several lines.
    pub(crate) fn measure(&mut self, line: usize, first: u64, end: u64, new: bool, now: u64) {
        match self.sample {
            Some(sample) if (first..end).contains(&sample.sequence) && sample.line != line => {
                let late = now.saturating_sub(sample.at);
                if let Some(line) = self.lines.get_mut(line) {
                    line.counts.late_samples += 1;
                    line.counts.late_ns += late;
                    line.counts.late_max_ns = line.counts.late_max_ns.max(late);
                }
                self.sample = None;
            }
            // Another line has gone past it, or all others are dead: take another one.
            Some(sample)
                if (sample.line == line || first <= sample.sequence)
                    && first < sample.sequence.saturating_add(10_000) => {}
            _ if new => self.sample = Some(Sample { sequence: first, line, at: now }),
            _ => {}
        }
    }

    /// Whether every line has gone past `sequence`: then none will bring what is below any more,
    /// unless it reorders.
    pub(crate) fn all_passed(&self, sequence: u64) -> bool {
        self.lines.iter().all(|line| line.next.is_some_and(|next| next >= sequence))
    }

    /// A new session: its numbers have nothing to do with those before.
    pub(crate) fn restart(&mut self) {
        for line in &mut self.lines {
            line.next = None;
        }
        self.sample = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_judged_by_itself() {
        let mut arbiter = Arbiter::new(2);
        arbiter.on_packet(0, 1, 3, 100);
        arbiter.on_packet(0, 5, 6, 100);
        assert_eq!(arbiter.counts(0).unwrap().lost, 2);
        assert!(!arbiter.all_passed(5));
        arbiter.on_packet(1, 1, 6, 100);
        assert!(arbiter.all_passed(5) && arbiter.all_passed(6) && !arbiter.all_passed(7));
        arbiter.on_packet(0, 3, 5, 100);
        let counts = arbiter.counts(0).unwrap();
        assert_eq!((counts.lost, counts.reordered, counts.packets), (0, 1, 3));
        assert!(arbiter.counts(2).is_none());
    }

    #[test]
    fn lateness_is_the_time_between_the_copies() {
        let mut arbiter = Arbiter::new(2);
        arbiter.measure(0, 1, 2, true, 100);
        arbiter.measure(1, 1, 2, false, 350);
        arbiter.measure(0, 2, 3, true, 400);
        arbiter.measure(1, 2, 3, false, 450);
        let counts = arbiter.counts(1).unwrap();
        assert_eq!((counts.late_samples, counts.late_ns, counts.late_max_ns), (2, 300, 250));
        assert_eq!(arbiter.counts(0).unwrap().late_samples, 0);
        // What the other line has lost is not waited for.
        arbiter.measure(0, 3, 4, true, 500);
        arbiter.measure(1, 4, 5, true, 550);
        arbiter.measure(0, 4, 5, false, 600);
        assert_eq!(arbiter.counts(0).unwrap().late_samples, 1);
    }

    #[test]
    fn what_a_line_lost_in_several_sessions_has_a_largest_number_too() {
        let mut arbiter = Arbiter::new(1);
        for _ in 0..2 {
            arbiter.on_packet(0, 0, 0, 20);
            arbiter.on_packet(0, u64::MAX, u64::MAX, 20);
            arbiter.restart();
        }
        assert_eq!(arbiter.counts(0).unwrap().lost, u64::MAX);
    }
}
