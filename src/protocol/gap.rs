//! The holes in what has arrived, and when each is next asked for.

use std::collections::VecDeque;

/// Messages that are missing, from `first` to before `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) first: u64,
    pub(crate) end: u64,
    /// When it was seen.
    pub(crate) seen_at: u64,
    /// When it is to be asked for, or asked for again.
    pub(crate) due_at: u64,
    /// When it was last asked for, and how often.
    pub(crate) asked_at: u64,
    pub(crate) attempts: u32,
    /// When it was first asked for, or something of it last came.
    pub(crate) progress_at: u64,
    /// What was asked for ends here.
    pub(crate) asked_end: u64,
    /// Index of the server to ask.
    pub(crate) server: usize,
    /// Servers that do not have it any more, one bit each.
    pub(crate) gone: u32,
    /// Nobody has it: to be told, not asked for.
    pub(crate) lost: bool,
}

impl Gap {
    /// The server to ask from now on: the one of this number, or the next that may have it.
    pub(crate) fn turn_to(&mut self, server: usize, servers: usize) {
        let mut order = (server..server + servers).map(|server| server % servers);
        let may_have_it = |server: &usize| self.gone >> server & 1 == 0;
        self.server = order.find(may_have_it).unwrap_or(server);
    }
}

/// Every hole, by sequence; none overlap.
#[derive(Debug)]
pub(crate) struct Gaps {
    list: VecDeque<Gap>,
    max: usize,
    /// No gap is due before this.
    due_at: u64,
}

impl Gaps {
    pub(crate) fn new(max: usize) -> Self {
        Self { list: VecDeque::with_capacity(max), max, due_at: u64::MAX }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.due_at = u64::MAX;
    }

    pub(crate) fn due_at(&self) -> u64 {
        self.due_at
    }

    /// Opens a gap behind all others. False if there are too many.
    pub(crate) fn open(&mut self, first: u64, end: u64, now: u64, due_at: u64) -> bool {
        if self.is_full() {
            return false;
        }
        self.list.push_back(Gap {
            first,
            end,
            seen_at: now,
            due_at,
            asked_at: 0,
            attempts: 0,
            progress_at: now,
            asked_end: first,
            server: 0,
            gone: 0,
            lost: false,
        });
        self.due_at = self.due_at.min(due_at);
        true
    }

    /// The first gap.
    pub(crate) fn front(&self) -> Option<&Gap> {
        self.list.front()
    }

    /// Index of the first gap that ends behind `sequence`.
    fn index(&self, sequence: u64) -> usize {
        self.list.partition_point(|gap| gap.end <= sequence)
    }

    /// The gap that `sequence` is in, or the next one behind it.
    pub(crate) fn at_or_behind(&self, sequence: u64) -> Option<&Gap> {
        self.list.get(self.index(sequence))
    }

    /// Whether no gap may be opened or split. One place is left for the first gap, so that the
    /// stream can always go on over what nobody has.
    fn is_full(&self) -> bool {
        self.list.len() + 1 >= self.max
    }

    /// Whether [`fill`](Self::fill) would find room for what it leaves.
    pub(crate) fn can_fill(&self, first: u64, end: u64) -> bool {
        !self.is_full()
            || self.at_or_behind(first).is_some_and(|gap| gap.first == first || gap.end == end)
    }

    /// The messages from `first` to before `end`, all of one gap, have come. Returns the gap as it
    /// was, and whether nothing of it is left. `None`, and the gap stays, if it would fall into two
    /// and there are too many.
    pub(crate) fn fill(&mut self, first: u64, end: u64, now: u64) -> Option<(Gap, bool)> {
        let index = self.index(first);
        let was = *self.list.get(index)?;
        if first < was.first || end > was.end {
            return None;
        }
        let gap = Gap { progress_at: now, ..was };
        match (first == gap.first, end == gap.end) {
            (true, true) => {
                self.list.remove(index);
            }
            (true, false) => {
                let left = &mut self.list[index];
                *left = Gap { first: end, ..gap };
                if left.attempts > 0 && left.asked_end <= end {
                    // What comes next was not asked for yet.
                    (left.attempts, left.due_at) = (0, now);
                    self.due_at = self.due_at.min(now);
                }
            }
            (false, true) => self.list[index] = Gap { end: first, ..gap },
            (false, false) => {
                if self.is_full() {
                    return None;
                }
                self.list[index] = Gap { end: first, ..gap };
                self.list.insert(index + 1, Gap { first: end, ..gap });
            }
        }
        Some((was, first == was.first && end == was.end))
    }

    /// Message `sequence` came, but could not be kept: whoever is asked for its gap answers.
    pub(crate) fn note_answer(&mut self, sequence: u64, now: u64) {
        let index = self.index(sequence);
        if let Some(gap) = self.list.get_mut(index) {
            gap.progress_at = now;
        }
    }

    /// Forgets everything from `sequence` on.
    pub(crate) fn truncate(&mut self, sequence: u64) {
        while self.list.back().is_some_and(|gap| gap.first >= sequence) {
            self.list.pop_back();
        }
        if let Some(gap) = self.list.back_mut() {
            gap.end = gap.end.min(sequence);
        }
    }

    /// Changes every gap that overlaps `[first, end)`; one that reaches beyond is split first if
    /// there is room, and left alone if not.
    pub(crate) fn change(&mut self, first: u64, end: u64, mut change: impl FnMut(&mut Gap)) {
        let mut index = self.index(first);
        while let Some(gap) = self.list.get(index).copied().filter(|gap| gap.first < end) {
            let (from, to) = (gap.first.max(first), gap.end.min(end));
            let parts = usize::from(from > gap.first) + usize::from(to < gap.end);
            let is_first = index == 0 && from == gap.first;
            if parts > 0 && self.list.len() + parts + usize::from(!is_first) > self.max {
                return;
            }
            if from > gap.first {
                self.list[index].end = from;
                index += 1;
                self.list.insert(index, Gap { first: from, ..gap });
            }
            if to < gap.end {
                self.list[index].end = to;
                self.list.insert(index + 1, Gap { first: to, ..gap });
            }
            change(&mut self.list[index]);
            self.due_at = self.due_at.min(self.list[index].due_at);
            index += 1;
        }
    }

    /// Every gap, to be asked for or given up. The caller says when the next is due.
    pub(crate) fn scan(&mut self) -> impl Iterator<Item = &mut Gap> {
        self.list.iter_mut()
    }

    /// Every gap that ends behind `sequence`.
    pub(crate) fn scan_from(&mut self, sequence: u64) -> impl Iterator<Item = &mut Gap> {
        let index = self.index(sequence);
        self.list.range_mut(index..)
    }

    pub(crate) fn set_due_at(&mut self, due_at: u64) {
        self.due_at = due_at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(gaps: &Gaps) -> Vec<(u64, u64)> {
        gaps.list.iter().map(|gap| (gap.first, gap.end)).collect()
    }

    #[test]
    fn gaps_shrink_split_and_close() {
        let mut gaps = Gaps::new(4);
        assert!(gaps.open(10, 20, 0, 5));
        assert!(gaps.open(30, 31, 1, 3));
        assert_eq!((gaps.due_at(), gaps.at_or_behind(19).unwrap().first), (3, 10));
        assert!(gaps.fill(12, 14, 2).is_some_and(|(_, closed)| !closed));
        assert_eq!(ranges(&gaps), [(10, 12), (14, 20), (30, 31)]);
        assert!(gaps.fill(15, 16, 2).is_none(), "no room to split");
        assert!(gaps.fill(10, 12, 2).is_some_and(|(_, closed)| closed));
        assert!(gaps.fill(14, 16, 2).is_some());
        assert!(gaps.fill(18, 20, 2).is_some());
        assert_eq!(ranges(&gaps), [(16, 18), (30, 31)]);
        assert!(gaps.fill(20, 25, 2).is_none(), "no gap there");
        assert!(gaps.fill(30, 31, 2).is_some_and(|(_, closed)| closed));
        assert_eq!(gaps.list[0].due_at, 5, "nothing was asked for yet: it still has its time");
        gaps.change(17, 40, |gap| gap.lost = true);
        assert_eq!(ranges(&gaps), [(16, 17), (17, 18)]);
        assert!(!gaps.list[0].lost && gaps.list[1].lost);
        gaps.truncate(17);
        assert_eq!(ranges(&gaps), [(16, 17)]);
    }
}
