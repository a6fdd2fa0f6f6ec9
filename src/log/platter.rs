//! One file of a [`FaultyDisk`](super::FaultyDisk): what its readers see, what is on the disk, and
//! what lies between the two.
//!
//! Between them is a list of writes and changes of length, as in a page cache. A sync puts them all
//! on the disk. When the power goes, each sector has seen some of the writes to it, the first so
//! many, whatever became of the other sectors; the length is what it was after one of the changes.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::protocol::Random;

#[derive(Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

/// The contents of a file.
#[derive(Debug, Default)]
pub(super) struct Platter {
    /// What its readers see.
    cached: Vec<u8>,
    /// What is on the disk.
    stored: Vec<u8>,
    /// What leads from the second to the first, in order.
    changes: Vec<Change>,
}

impl Platter {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.cached
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        write(&mut self.cached, offset, bytes);
        self.changes.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn set_length(&mut self, length: usize) {
        self.cached.resize(length, 0);
        self.changes.push(Change::Length(length));
    }

    pub(super) fn sync(&mut self) {
        for change in self.changes.drain(..) {
            match change {
                Change::Write { offset, bytes } => write(&mut self.stored, offset, &bytes),
                Change::Length(length) => self.stored.resize(length, 0),
            }
        }
    }

    /// A sync that failed: some of it got to the disk, the rest counts as written and never will
    /// be. Readers may go on seeing it, or see what the disk has.
    pub(super) fn fail_sync(&mut self, random: &mut Random) {
        let length = self.cached.len();
        self.settle(random);
        self.stored.resize(length, 0);
        if random.chance(0.5) {
            self.cached.clone_from(&self.stored);
        }
    }

    /// The power goes.
    pub(super) fn power_off(&mut self, random: &mut Random) {
        self.settle(random);
        self.cached.clone_from(&self.stored);
    }

    /// Puts on the disk what chance has of the changes, and forgets them.
    fn settle(&mut self, random: &mut Random) {
        let changes = std::mem::take(&mut self.changes);
        let sector = if random.chance(0.5) { 512 } else { 4096 };
        // All, none, or any of it; the same chance everywhere, so that there are all sorts.
        let kept = [0.0, 0.1, 0.5, 0.9, 1.0][random.below(5) as usize];
        let lengths = match random.below(3) {
            0 => 0,
            1 => changes.len(),
            _ => random.below(changes.len() as u64 + 1) as usize,
        };
        let mut writes: BTreeMap<usize, u64> = BTreeMap::new();
        for change in &changes {
            for sector in sectors(change, sector) {
                *writes.entry(sector).or_default() += 1;
            }
        }
        for count in writes.values_mut() {
            let all = *count;
            *count = if random.chance(kept) { all } else { random.below(all) };
        }
        let mut length = self.stored.len();
        for (at, change) in changes.iter().enumerate() {
            let touched = sectors(change, sector);
            match change {
                Change::Write { offset, bytes } => {
                    if at < lengths {
                        length = length.max(offset + bytes.len());
                    }
                    for number in touched {
                        let left = writes.entry(number).or_default();
                        if *left > 0 {
                            *left -= 1;
                            let start = (number * sector).max(*offset);
                            let end = ((number + 1) * sector).min(offset + bytes.len());
                            let part = &bytes[start - offset..end - offset];
                            write(&mut self.stored, start, part);
                        }
                    }
                }
                Change::Length(to) if at < lengths => {
                    length = *to;
                    self.stored.truncate(length);
                }
                Change::Length(_) => {}
            }
        }
        self.stored.resize(length, 0);
    }
}

/// The sectors that a change writes to.
fn sectors(change: &Change, sector: usize) -> Range<usize> {
    match change {
        Change::Write { offset, bytes } => offset / sector..(offset + bytes.len()).div_ceil(sector),
        Change::Length(_) => 0..0,
    }
}

fn write(to: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if to.len() < end {
        to.resize(end, 0);
    }
    to[offset..end].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_synced_stays_and_the_rest_may() {
        let (mut whole, mut none, mut torn, mut short) = (0, 0, 0, 0);
        for seed in 0..400 {
            let mut platter = Platter::default();
            platter.write(0, &[1; 8192]);
            platter.sync();
            platter.write(4000, &[2; 8192]);
            platter.write(4000, &[3; 100]);
            platter.power_off(&mut Random::new(seed));
            let bytes = platter.bytes();
            assert!(bytes[..4000].iter().all(|&byte| byte == 1), "{seed}");
            let (new, rest) = bytes[4000..].split_at(96);
            assert!(new.iter().all(|&byte| byte == new[0]), "a sector is written as a whole");
            let seen = |byte| rest.contains(&byte);
            match (seen(2), seen(1)) {
                (true, false) => whole += 1,
                (true, true) => torn += 1,
                (false, _) => none += 1,
            }
            short += u32::from(bytes.len() == 8192);
        }
        assert!(whole > 20 && none > 20 && torn > 20 && short > 20);
    }

    #[test]
    fn a_failed_sync_is_never_made_good() {
        let mut lost = 0;
        for seed in 0..100 {
            let mut platter = Platter::default();
            platter.write(0, &[1; 4096]);
            platter.fail_sync(&mut Random::new(seed));
            platter.sync();
            platter.power_off(&mut Random::new(seed));
            assert_eq!(platter.bytes().len(), 4096);
            lost += u32::from(platter.bytes()[4095] == 0);
        }
        assert!(lost > 20);
    }
}
