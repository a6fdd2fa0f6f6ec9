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
    /// When something of it was first asked for, or last came.
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

    /// Whether nothing has come of what was asked for, for so long. Whoever answers, though it
    /// could not be kept, is not given up.
    pub(crate) fn is_in_vain(&self, give_up_ns: u64, now: u64) -> bool {
        let is_silent = self.attempts > 0 && self.progress_at <= self.asked_at;
        is_silent && now.saturating_sub(self.progress_at) >= give_up_ns
    }

    /// It is asked for up to `asked_end`, and again at `due_at` if nothing comes.
    pub(crate) fn ask(&mut self, asked_end: u64, due_at: u64, now: u64) {
        if asked_end > self.asked_end {
            (self.asked_end, self.progress_at) = (asked_end, now);
        }
        (self.asked_at, self.due_at) = (now, due_at);
        self.attempts = self.attempts.saturating_add(1);
    }

    /// What is left of it from `first` on. If that was not asked for yet, it is due now.
    fn rest(self, first: u64, now: u64) -> Self {
        let is_asked = self.attempts == 0 || self.asked_end > first;
        let (attempts, due_at) = if is_asked { (self.attempts, self.due_at) } else { (0, now) };
        Self { first, attempts, due_at, ..self }
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
                self.list[index] = gap.rest(end, now);
                self.due_at = self.due_at.min(self.list[index].due_at);
            }
            (false, true) => self.list[index] = Gap { end: first, ..gap },
            (false, false) => {
                if self.is_full() {
                    return None;
                }
                self.list[index] = Gap { end: first, ..gap };
                self.list.insert(index + 1, gap.rest(end, now));
                self.due_at = self.due_at.min(self.list[index + 1].due_at);
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

    /// Changes every gap that overlaps `[first, end)`, of which a server spoke; one that reaches
    /// beyond is split first. Without room for that it stays as it is, but as one that is answered.
    pub(crate) fn change(
        &mut self,
        first: u64,
        end: u64,
        now: u64,
        mut change: impl FnMut(&mut Gap),
    ) {
        let mut index = self.index(first);
        while let Some(gap) = self.list.get(index).copied().filter(|gap| gap.first < end) {
            let mut part = Gap { first: gap.first.max(first), end: gap.end.min(end), ..gap };
            change(&mut part);
            let is_first = index == 0 && part.first == gap.first;
            if is_first && part.end < gap.end && self.is_full() && !part.lost {
                // The last place is for one message alone: there is no other to split it again.
                part.end = part.first + 1;
            }
            let parts = usize::from(part.first > gap.first) + usize::from(part.end < gap.end);
            if parts > 0 && self.list.len() + parts + usize::from(!is_first) > self.max {
                self.list[index].progress_at = now;
                return;
            }
            if part.first > gap.first {
                self.list[index].end = part.first;
                index += 1;
                self.list.insert(index, part);
            } else {
                self.list[index] = part;
            }
            index += 1;
            self.due_at = self.due_at.min(part.due_at);
            if part.end < gap.end {
                let rest = gap.rest(part.end, now);
                self.list.insert(index, rest);
                self.due_at = self.due_at.min(rest.due_at);
            }
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
        gaps.change(17, 40, 3, |gap| gap.lost = true);
        assert_eq!(ranges(&gaps), [(16, 17), (17, 18)]);
        assert!(!gaps.list[0].lost && gaps.list[1].lost);
        gaps.truncate(17);
        assert_eq!(ranges(&gaps), [(16, 17)]);
    }

    #[test]
    fn what_cannot_be_noted_is_an_answer_and_the_first_message_always_can() {
        let mut gaps = Gaps::new(3);
        assert!(gaps.open(10, 20, 0, 5) && gaps.open(30, 40, 1, 5));
        gaps.change(32, 34, 7, |gap| gap.gone = 1);
        assert_eq!(ranges(&gaps), [(10, 20), (30, 40)]);
        assert_eq!(gaps.list.iter().map(|gap| gap.progress_at).collect::<Vec<_>>(), [0, 7]);
        gaps.change(10, 14, 8, |gap| gap.gone |= 1);
        assert_eq!(ranges(&gaps), [(10, 11), (11, 20), (30, 40)]);
        gaps.change(10, 11, 9, |gap| gap.gone |= 2);
        assert_eq!((gaps.list[0].gone, gaps.list[1].gone), (3, 0));
    }

    #[test]
    fn what_is_left_and_was_not_asked_for_is_due_at_once() {
        let mut gaps = Gaps::new(16);
        assert!(gaps.open(10, 20, 0, 5));
        gaps.scan().for_each(|gap| (gap.attempts, gap.asked_end, gap.due_at) = (3, 12, 90));
        gaps.set_due_at(90);
        assert!(gaps.fill(15, 16, 7).is_some());
        gaps.change(10, 11, 8, |gap| gap.gone = 1);
        assert_eq!(ranges(&gaps), [(10, 11), (11, 15), (16, 20)]);
        let left: Vec<_> = gaps.list.iter().map(|gap| (gap.attempts, gap.due_at)).collect();
        assert_eq!((left, gaps.due_at()), (vec![(3, 90), (3, 90), (0, 7)], 7));
        gaps.change(11, 12, 9, |gap| gap.gone = 1);
        assert_eq!((gaps.list[2].attempts, gaps.list[2].due_at), (0, 9));
    }
}
