//! What a bad line does to datagrams one after another: loses, corrupts, doubles and delays them.
//! Decides by a seeded sequence of numbers and by nothing else, so the same seed and the same
//! datagrams give the same faults.

use std::net::SocketAddr;

use super::fault::{FaultCounters, Faults};

/// Datagrams held back at one time, at most: a line's memory is bounded by this many.
pub(super) const HELD_MAX: usize = 64;

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// True in `rate` of all cases. Draws one number whatever the rate.
    fn chance(&mut self, rate: f64) -> bool {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        unit < rate
    }
}

/// A datagram kept for later, or on its way out.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    /// Its source if it came in; its destination if it goes out.
    pub(super) address: Option<SocketAddr>,
    pub(super) bytes: Vec<u8>,
    /// Datagrams that are to pass it.
    pub(super) behind: u32,
}

/// What happens to one datagram.
struct Fate {
    lost: bool,
    doubled: bool,
    /// The bit to flip.
    flipped: Option<usize>,
    /// Datagrams that are to pass it first.
    behind: u32,
}

/// One direction of one socket.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) faults: Faults,
    pub(super) counted: FaultCounters,
    numbers: Numbers,
    /// Datagrams that the burst has yet to swallow.
    burst_left: u32,
    held: Vec<Kept>,
    spare: Vec<Kept>,
    scratch: Vec<u8>,
    /// Rounds in which nothing passed.
    idle: u32,
}

impl Lane {
    pub(super) fn new(seed: u64, salt: u64) -> Self {
        let mut numbers = Numbers(seed ^ salt.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        numbers.next();
        Self {
            faults: Faults::default(),
            counted: FaultCounters::default(),
            numbers,
            burst_left: 0,
            held: Vec::with_capacity(HELD_MAX),
            spare: Vec::with_capacity(HELD_MAX),
            scratch: Vec::new(),
            idle: 0,
        }
    }

    /// Draws the same amount of numbers for each datagram, so that changing one rate does not
    /// change which datagrams the other faults hit.
    fn fate(&mut self, len: usize) -> Fate {
        let faults = self.faults;
        let starts = self.numbers.chance(faults.burst);
        if starts && self.burst_left == 0 {
            self.burst_left = faults.burst_datagrams;
        }
        let mut lost = self.numbers.chance(faults.loss);
        if self.burst_left > 0 {
            self.burst_left -= 1;
            lost = true;
        }
        let doubled = self.numbers.chance(faults.duplicate);
        let (corrupt, bit) = (self.numbers.chance(faults.corrupt), self.numbers.next());
        let (reorder, by) = (self.numbers.chance(faults.reorder), self.numbers.next());
        let depth = u64::from(faults.reorder_by.max(1));
        Fate {
            lost,
            doubled,
            flipped: (corrupt && len > 0).then(|| (bit % (len as u64 * 8)) as usize),
            behind: if reorder { (by % depth) as u32 + 1 } else { 0 },
        }
    }

    /// Takes one datagram and delivers what comes out of the line for it: none, one or several. The
    /// last argument of `deliver` is whether it is the one that went in, as it went in.
    pub(super) fn pass(
        &mut self,
        address: Option<SocketAddr>,
        bytes: &[u8],
        mut deliver: impl FnMut(Option<SocketAddr>, &[u8], bool),
    ) {
        self.idle = 0;
        let fate = self.fate(bytes.len());
        self.counted.entered += 1;
        if fate.lost {
            self.counted.lost += 1;
            return self.advance(&mut deliver);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut content = bytes;
        if let Some(bit) = fate.flipped {
            self.counted.corrupted += 1;
            scratch.clear();
            scratch.extend_from_slice(bytes);
            scratch[bit / 8] ^= 1 << (bit % 8);
            content = &scratch;
        }
        let delayed = fate.behind > 0 && self.held.len() < HELD_MAX;
        self.counted.duplicated += u64::from(fate.doubled);
        self.counted.reordered += u64::from(delayed);
        if !delayed || fate.doubled {
            deliver(address, content, fate.flipped.is_none());
        }
        if fate.doubled && !delayed {
            deliver(address, content, false);
        }
        self.advance(&mut deliver);
        if delayed {
            let mut kept = self.spare.pop().unwrap_or_default();
            kept.bytes.clear();
            kept.bytes.extend_from_slice(content);
            (kept.address, kept.behind) = (address, fate.behind);
            self.held.push(kept);
        }
        self.scratch = scratch;
    }

    /// One datagram has gone by: those that wait for it and no more are delivered.
    fn advance(&mut self, deliver: &mut impl FnMut(Option<SocketAddr>, &[u8], bool)) {
        let mut i = 0;
        while i < self.held.len() {
            self.held[i].behind -= 1;
            if self.held[i].behind == 0 {
                self.release(i, deliver);
            } else {
                i += 1;
            }
        }
    }

    fn release(&mut self, i: usize, deliver: &mut impl FnMut(Option<SocketAddr>, &[u8], bool)) {
        let kept = self.held.remove(i);
        deliver(kept.address, &kept.bytes, false);
        self.spare.push(kept);
    }

    /// A round without a datagram: after `rounds` of them everything held back is delivered.
    pub(super) fn rest(
        &mut self,
        rounds: u32,
        mut deliver: impl FnMut(Option<SocketAddr>, &[u8], bool),
    ) {
        if self.held.is_empty() {
            return;
        }
        self.idle += 1;
        if self.idle > rounds {
            self.idle = 0;
            while !self.held.is_empty() {
                self.release(0, &mut deliver);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, faults: Faults, count: u32) -> (Vec<Vec<u8>>, FaultCounters) {
        let mut lane = Lane::new(seed, 0);
        lane.faults = faults;
        let mut out = Vec::new();
        for i in 0..count {
            lane.pass(None, &i.to_le_bytes(), |_, bytes, _| out.push(bytes.to_vec()));
        }
        for _ in 0..=10 {
            lane.rest(10, |_, bytes, _| out.push(bytes.to_vec()));
        }
        (out, lane.counted)
    }

    #[test]
    fn a_seed_decides_everything() {
        let faults = Faults {
            loss: 0.1,
            burst: 0.01,
            burst_datagrams: 5,
            duplicate: 0.1,
            reorder: 0.1,
            reorder_by: 9,
            corrupt: 0.1,
        };
        assert_eq!(run(7, faults, 2_000), run(7, faults, 2_000));
        assert_ne!(run(7, faults, 2_000), run(8, faults, 2_000));
    }

    #[test]
    fn nothing_happens_without_faults() {
        let (out, counted) = run(3, Faults::default(), 500);
        assert!(out.iter().zip(0_u32..).all(|(bytes, i)| *bytes == i.to_le_bytes()));
        assert_eq!((out.len(), counted.entered, counted.lost), (500, 500, 0));
    }

    /// Rates are met within five standard deviations, which these seeds either are or are not.
    #[test]
    fn rates_are_met() {
        let count = 100_000;
        let near = |hits: u64, rate: f64| {
            let n = f64::from(count);
            let deviation = (n * rate * (1.0 - rate)).sqrt();
            assert!((hits as f64 - n * rate).abs() < 5.0 * deviation, "{hits} for {rate}");
        };
        for rate in [0.001, 0.01, 0.05, 0.5] {
            near(run(1, Faults { loss: rate, ..Faults::default() }, count).1.lost, rate);
            let doubled = run(2, Faults { duplicate: rate, ..Faults::default() }, count);
            near(doubled.1.duplicated, rate);
            assert_eq!(doubled.0.len() as u64, u64::from(count) + doubled.1.duplicated);
            near(run(3, Faults { corrupt: rate, ..Faults::default() }, count).1.corrupted, rate);
        }
        assert_eq!(run(1, Faults { loss: 1.0, ..Faults::default() }, 100).0.len(), 0);
    }

    /// A datagram of rank r comes out after no more than the given number of later ones.
    #[test]
    fn reordering_is_bounded_and_loses_nothing() {
        let faults = Faults { reorder: 0.2, reorder_by: 4, ..Faults::default() };
        let (out, counted) = run(11, faults, 10_000);
        assert!(counted.reordered > 1_000);
        let rank = |bytes: &Vec<u8>| u32::from_le_bytes(bytes[..].try_into().unwrap());
        let mut sorted: Vec<u32> = out.iter().map(rank).collect();
        let moved = sorted.iter().zip(0_u32..).filter(|(rank, place)| **rank != *place).count();
        assert!(moved > 1_000);
        for (place, rank) in sorted.iter().enumerate() {
            let overtaken_by = sorted[..place].iter().filter(|other| *other > rank).count();
            assert!(overtaken_by <= 4, "{rank} came after {overtaken_by} later ones");
        }
        sorted.sort_unstable();
        assert!(sorted.iter().zip(0_u32..).all(|(rank, i)| *rank == i));
    }

    #[test]
    fn bursts_swallow_so_many_in_a_row() {
        let faults = Faults { burst: 0.001, burst_datagrams: 7, ..Faults::default() };
        let (out, counted) = run(5, faults, 20_000);
        assert!(counted.lost > 0);
        let ranks: Vec<u32> =
            out.iter().map(|bytes| u32::from_le_bytes(bytes[..].try_into().unwrap())).collect();
        for pair in ranks.windows(2) {
            assert_eq!((pair[1] - pair[0] - 1) % 7, 0, "a gap that is no whole burst");
        }
    }

    #[test]
    fn corruption_flips_one_bit() {
        let (out, _) = run(5, Faults { corrupt: 1.0, ..Faults::default() }, 100);
        for (bytes, i) in out.iter().zip(0_u32..) {
            let got = u32::from_le_bytes(bytes[..].try_into().unwrap());
            assert_eq!((got ^ i).count_ones(), 1);
        }
    }

    #[test]
    fn what_is_held_back_is_bounded() {
        let mut lane = Lane::new(1, 1);
        lane.faults = Faults { reorder: 1.0, reorder_by: u32::MAX, ..Faults::default() };
        let mut out = 0;
        for _ in 0..10_000 {
            lane.pass(None, b"x", |_, _, _| out += 1);
            assert!(lane.held.len() <= HELD_MAX);
        }
        assert!(out >= 10_000 - HELD_MAX);
    }
}
