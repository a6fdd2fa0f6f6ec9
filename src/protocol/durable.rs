//! What is durable where: which messages the hosts of a stream say are on their disks, and what
//! follows from that for the sender.
//!
//! Each host names one unbroken run of messages. A message counts for a host if it is in the run:
//! a host that joined later, or lost some, never vouches for what it does not have. What was once
//! found durable on `k` hosts stays so, even when they leave: disks do not forget with a process.

use super::control::Durable;

/// What has been found for one `k`.
#[derive(Clone, Copy, Debug)]
struct Found {
    /// Everything before this is durable on `k` hosts.
    next: u64,
    /// What was known then.
    version: u64,
}

/// Of one sender: its own host's run, and how far the stream is durable on how many hosts.
#[derive(Debug)]
pub(super) struct Stable {
    /// The first message that this sender sends.
    first: u64,
    local: Option<Durable>,
    /// By `k`.
    found: Box<[Found]>,
    /// Behind the last durable message of each host that counts; as long as there can be hosts.
    ends: Vec<u64>,
    /// Changes whenever a run does.
    version: u64,
}

impl Stable {
    /// Of a stream that starts with message `first` and has at most `receivers_max` receivers.
    pub(super) fn new(first: u64, receivers_max: usize) -> Self {
        let found = vec![Found { next: first, version: 0 }; receivers_max + 2].into();
        let ends = Vec::with_capacity(receivers_max + 1);
        Self { first, local: None, found, ends, version: 1 }
    }

    /// The run of the sender's own host; `next` is the next message of the stream.
    pub(super) fn set_local(&mut self, run: Durable, next: u64) {
        self.version += u64::from(replace(&mut self.local, run.below(next)));
    }

    /// A receiver's run is another than before.
    pub(super) fn on_change(&mut self) {
        self.version += 1;
    }

    /// How many hosts have message `sequence`.
    fn holders(&self, sequence: u64, runs: impl Iterator<Item = Durable>) -> usize {
        runs.chain(self.local).filter(|run| run.contains(sequence)).count()
    }

    /// Whether message `sequence` is durable on `k` hosts, of which `runs` are the receivers'.
    pub(super) fn contains(
        &self,
        sequence: u64,
        k: usize,
        runs: impl Iterator<Item = Durable>,
    ) -> bool {
        let found = self.found.get(k).map_or(self.first, |found| found.next);
        (self.first..found).contains(&sequence) || self.holders(sequence, runs) >= k
    }

    /// The last message up to which all is durable on `k` hosts, at least one; 0 if there is none.
    pub(super) fn last(&mut self, k: usize, runs: impl Iterator<Item = Durable> + Clone) -> u64 {
        let Some(Found { mut next, version }) = self.found.get(k).copied().filter(|_| k > 0) else {
            return 0;
        };
        while version != self.version {
            // A run that begins further on says nothing of what lies between.
            self.ends.clear();
            let hosts = runs.clone().chain(self.local);
            self.ends.extend(hosts.filter(|run| run.first <= next).map(|run| run.last + 1));
            self.ends.sort_unstable_by(|a, b| b.cmp(a));
            match self.ends.get(k - 1) {
                Some(&end) if end > next => next = end, // more runs may reach it now
                _ => {
                    self.found[k] = Found { next, version: self.version };
                    break;
                }
            }
        }
        if next == self.first { 0 } else { next - 1 }
    }
}

/// Puts a later run in the place of an earlier one, or of none. True if that changes anything: what
/// reaches less far was overtaken.
pub(super) fn replace(known: &mut Option<Durable>, run: Option<Durable>) -> bool {
    let later = run.filter(|run| known.is_none_or(|known| run.last >= known.last && *run != known));
    *known = later.or(*known);
    later.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(first: u64, last: u64) -> Durable {
        Durable { first, last }
    }

    #[test]
    fn k_of_n_hosts() {
        let mut stable = Stable::new(1, 4);
        let runs = [run(1, 30), run(1, 10), run(1, 20)];
        let last: Vec<_> = (0..9).map(|k| stable.last(k, runs.into_iter())).collect();
        assert_eq!(last, [0, 30, 20, 10, 0, 0, 0, 0, 0]);
        stable.set_local(run(1, 25), 100);
        let last: Vec<_> = (1..6).map(|k| stable.last(k, runs.into_iter())).collect();
        assert_eq!(last, [30, 25, 20, 10, 0]);
        // Nobody can have what was not sent.
        stable.set_local(run(1, 500), 100);
        assert_eq!(stable.last(1, runs.into_iter()), 99);
    }

    #[test]
    fn what_was_found_stays_though_hosts_leave() {
        let mut stable = Stable::new(1, 4);
        assert_eq!(stable.last(2, [run(1, 30), run(1, 20)].into_iter()), 20);
        stable.on_change();
        assert_eq!(stable.last(2, [run(1, 30)].into_iter()), 20);
        assert!(stable.contains(20, 2, [].into_iter()));
        assert!(!stable.contains(21, 2, [run(1, 30)].into_iter()));
        stable.on_change();
        assert_eq!(stable.last(2, [run(1, 30), run(1, 5)].into_iter()), 20);
        assert_eq!(stable.last(1, [run(1, 30), run(1, 5)].into_iter()), 30);
        assert_eq!(stable.last(3, [run(1, 30), run(1, 5)].into_iter()), 0, "was never asked");
    }

    #[test]
    fn who_does_not_have_a_message_does_not_vouch_for_it() {
        let mut stable = Stable::new(1, 4);
        let late = run(101, 200);
        assert_eq!(stable.last(1, [late].into_iter()), 0);
        assert_eq!(stable.last(2, [late, run(1, 150)].into_iter()), 0);
        let holds = |n, k| stable.contains(n, k, [late, run(1, 150)].into_iter());
        assert!(holds(101, 2) && holds(150, 2) && holds(200, 1));
        assert!(!holds(100, 2) && !holds(151, 2) && !holds(201, 1));
        // Once others have carried the stream up to where it joined, it counts.
        stable.on_change();
        assert_eq!(stable.last(1, [late, run(1, 100)].into_iter()), 200);
    }

    #[test]
    fn what_is_overtaken_changes_nothing() {
        let mut known = None;
        assert!(replace(&mut known, Some(run(1, 10))));
        for run in [Some(run(1, 9)), Some(run(1, 10)), None] {
            assert!(!replace(&mut known, run));
        }
        assert_eq!(known, Some(run(1, 10)));
        assert!(replace(&mut known, Some(run(8, 10))), "a hole was found in the log");
    }
}
