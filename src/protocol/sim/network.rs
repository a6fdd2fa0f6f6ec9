//! A network on virtual time: links that lose, delay, reorder, repeat and damage datagrams, as a
//! seed says.
//!
//! What arrives is taken out with [`Network::pop`], one datagram at a time and in order of time;
//! nothing here knows what the datagrams mean.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::Arc;

use crate::protocol::Random;

/// What a link does to datagrams, in one direction. Chances are from 0 to 1 and for each datagram.
/// [`Default`]: 10 µs of delay and no fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Faults {
    /// Time on the way, ns.
    pub delay_ns: u64,
    /// Up to so much longer, at random, but in order; ns.
    pub jitter_ns: u64,
    /// Lost, each for itself.
    pub loss: f64,
    /// Losses in a row (Gilbert-Elliott): chance that the link turns bad, and then loses all.
    pub burst_enter: f64,
    /// Chance that a bad link turns good again.
    pub burst_leave: f64,
    /// Chance that the last datagram of what is sent at once is lost.
    pub tail: f64,
    /// Damaged and dropped by the checksum.
    pub corrupt: f64,
    /// Cut short, and taken for sound.
    pub truncate: f64,
    /// One bit changed, and taken for sound. Nothing in MoldUDP64 would notice that in a message.
    pub flip: f64,
    /// Comes twice.
    pub duplicate: f64,
    /// Overtaken by what is sent later.
    pub reorder: f64,
    /// By at most so much, ns.
    pub reorder_ns: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay_ns: 10_000,
            jitter_ns: 0,
            loss: 0.0,
            burst_enter: 0.0,
            burst_leave: 1.0,
            tail: 0.0,
            corrupt: 0.0,
            truncate: 0.0,
            flip: 0.0,
            duplicate: 0.0,
            reorder: 0.0,
            reorder_ns: 0,
        }
    }
}

/// What a network has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkCounts {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that arrived, repeated ones included.
    pub delivered: u64,
    /// Datagrams lost, damaged ones and those into a cut link included.
    pub lost: u64,
}

/// One direction of a path.
#[derive(Clone, Debug)]
struct Link {
    faults: Faults,
    is_cut: bool,
    is_bad: bool,
    arrived_at: u64,
}

#[derive(Debug)]
struct Arrival<T> {
    at: u64,
    order: u64,
    to: T,
    bytes: Arc<[u8]>,
}

impl<T> Arrival<T> {
    fn key(&self) -> (u64, u64) {
        (self.at, self.order)
    }
}

impl<T> PartialEq for Arrival<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Arrival<T> {}

impl<T> PartialOrd for Arrival<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Arrival<T> {
    /// The earliest is the greatest, for the heap.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key().cmp(&self.key())
    }
}

/// Links, and what is on its way over them. `T` says where a datagram goes, and whatever else its
/// recipient has to know.
///
/// ```
/// use gapless::protocol::sim::{Faults, Network};
/// let mut network = Network::new(7);
/// let link = network.add_link(Faults { loss: 0.5, ..Faults::default() });
/// for n in 0..100_u8 {
///     network.send(1_000, link, "bob", &[n][..].into(), true);
/// }
/// let mut arrived = 0;
/// while let Some((at_ns, to, _bytes)) = network.pop() {
///     assert_eq!((at_ns, to), (11_000, "bob"));
///     arrived += 1;
/// }
/// assert!((20..80).contains(&arrived));
/// ```
#[derive(Debug)]
pub struct Network<T> {
    random: Random,
    links: Vec<Link>,
    on_the_way: BinaryHeap<Arrival<T>>,
    order: u64,
    counts: NetworkCounts,
}

impl<T: Copy> Network<T> {
    /// A network without links.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            links: Vec::new(),
            on_the_way: BinaryHeap::new(),
            order: 0,
            counts: NetworkCounts::default(),
        }
    }

    /// Adds a link; its number.
    pub fn add_link(&mut self, faults: Faults) -> usize {
        self.links.push(Link { faults, is_cut: false, is_bad: false, arrived_at: 0 });
        self.links.len() - 1
    }

    /// Changes what a link does from now on.
    ///
    /// # Panics
    /// If there is no such link.
    pub fn set_faults(&mut self, link: usize, faults: Faults) {
        self.links[link].is_bad = false;
        self.links[link].faults = faults;
    }

    /// Cuts a link, or heals it. What is on its way arrives.
    ///
    /// # Panics
    /// If there is no such link.
    pub fn cut(&mut self, link: usize, is_cut: bool) {
        self.links[link].is_cut = is_cut;
    }

    /// Sends a datagram; `last` says that no more are sent with it.
    ///
    /// # Panics
    /// If there is no such link.
    pub fn send(&mut self, now: u64, link: usize, to: T, bytes: &Arc<[u8]>, last: bool) {
        self.counts.sent += 1;
        let (link, random) = (&mut self.links[link], &mut self.random);
        let faults = &link.faults;
        let turn = if link.is_bad { faults.burst_leave } else { faults.burst_enter };
        link.is_bad ^= random.chance(turn);
        let lost = link.is_cut
            || link.is_bad
            || random.chance(faults.loss)
            || random.chance(faults.corrupt)
            || (last && random.chance(faults.tail));
        if lost {
            self.counts.lost += 1;
            return;
        }
        let damaged = damage(faults, bytes, random);
        let bytes = damaged.as_ref().unwrap_or(bytes);
        for _ in 0..1 + u32::from(random.chance(faults.duplicate)) {
            let at = now + faults.delay_ns + random.below(faults.jitter_ns);
            // In order, unless it is overtaken.
            let mut at = at.max(link.arrived_at);
            if random.chance(faults.reorder) {
                at += random.below(faults.reorder_ns);
            } else {
                link.arrived_at = at;
            }
            self.order += 1;
            let arrival = Arrival { at, order: self.order, to, bytes: Arc::clone(bytes) };
            self.on_the_way.push(arrival);
        }
    }

    /// When the next datagram arrives, ns.
    pub fn next_at(&self) -> Option<u64> {
        self.on_the_way.peek().map(|arrival| arrival.at)
    }

    /// The next datagram: when it arrives, where, and its bytes.
    pub fn pop(&mut self) -> Option<(u64, T, Arc<[u8]>)> {
        let arrival = self.on_the_way.pop()?;
        self.counts.delivered += 1;
        Some((arrival.at, arrival.to, arrival.bytes))
    }

    /// What it has done so far.
    pub fn counts(&self) -> &NetworkCounts {
        &self.counts
    }
}

fn damage(faults: &Faults, bytes: &Arc<[u8]>, random: &mut Random) -> Option<Arc<[u8]>> {
    let truncate = random.chance(faults.truncate);
    let flip = random.chance(faults.flip);
    if (!truncate && !flip) || bytes.is_empty() {
        return None;
    }
    let mut damaged = bytes.to_vec();
    if flip {
        let at = random.below(damaged.len() as u64) as usize;
        damaged[at] ^= 1 << random.below(8);
    }
    if truncate {
        damaged.truncate(random.below(bytes.len() as u64) as usize);
    }
    Some(damaged.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(seed: u64, faults: Faults) -> Vec<(u64, u8, usize)> {
        let mut network = Network::new(seed);
        let link = network.add_link(faults);
        for n in 0..200_u8 {
            network.send(u64::from(n) * 100, link, (), &vec![n; 50].into(), n % 10 == 9);
        }
        std::iter::from_fn(|| {
            network.pop().map(|(at, (), b)| (at, *b.first().unwrap_or(&0), b.len()))
        })
        .collect()
    }

    #[test]
    fn each_fault_is_seen_and_the_seed_decides() {
        let good = Faults::default();
        let clean = arrivals(1, good.clone());
        assert_eq!(clean.len(), 200);
        assert!(
            clean.is_sorted() && clean.iter().all(|(at, n, _)| *at == u64::from(*n) * 100 + 10_000)
        );
        let faults = Faults { loss: 0.1, reorder: 0.2, reorder_ns: 5_000, ..good.clone() };
        let lossy = arrivals(1, faults.clone());
        assert_eq!(lossy, arrivals(1, faults.clone()));
        assert_ne!(lossy, arrivals(2, faults));
        assert!((150..199).contains(&lossy.len()));
        assert!(!lossy.is_sorted_by_key(|(_, n, _)| *n));
        let tail = arrivals(1, Faults { tail: 1.0, ..good.clone() });
        assert!(tail.len() == 180 && tail.iter().all(|(_, n, _)| n % 10 != 9));
        let bursts = arrivals(1, Faults { burst_enter: 0.05, burst_leave: 0.2, ..good.clone() });
        assert!((80..195).contains(&bursts.len()), "{}", bursts.len());
        let twice = arrivals(1, Faults { duplicate: 1.0, ..good.clone() });
        assert_eq!(twice.len(), 400);
        let cut = arrivals(1, Faults { truncate: 1.0, ..good.clone() });
        assert!(cut.iter().all(|(_, _, len)| *len < 50));
        let jitter = arrivals(1, Faults { jitter_ns: 10_000, ..good });
        assert!(jitter.is_sorted_by_key(|(_, n, _)| *n) && jitter != clean);
    }
}
