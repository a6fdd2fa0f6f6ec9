//! When a receiving socket reads datagram by datagram, and when in batches of coalesced ones.
//!
//! In **low** gear a datagram is taken by the cheapest call there is. When datagrams come densely
//! the socket shifts up: in **high** gear the kernel coalesces datagrams (UDP GRO), and messages
//! are read with the segment size beside them. When only lone datagrams come, or nothing for a
//! while, it shifts down.
//!
//! Dense is not the same as "always something there". Over loopback and veth it is the sender that
//! pays for splitting what the receiver does not want coalesced, so a slow-geared receiver
//! slows the sender until it finds the queue empty half of the time.
//!
//! The order of the steps keeps datagrams apart. A coalesced datagram read by plain `recv` would
//! look like one large one, so coalescing is switched on only after reading with segment sizes has
//! begun, and after it is switched off that goes on until the queue was seen empty many times.

use std::net::SocketAddr;

use super::Datagram;
use super::member::Member;

/// Reads that must find something, without an empty one between, before one more is tried in the
/// same receive: a lone datagram is handed over at the price of one call.
const GREEDY_AFTER: u32 = 4;
/// Empty reads that a datagram makes up for: datagrams come densely if more than one read in so
/// many finds one. A round trip between two spinning sides is 8 to 25 reads long, a flood taken
/// one by one finds something in every second read.
const DENSITY: u32 = 3;
/// Reads' worth of dense datagrams before shifting up.
const UP_AFTER: u32 = 16 * DENSITY;
/// Reads in a row, in high gear, that found one datagram each, before coalescing is switched off.
const LONE_MAX: u32 = 64;
/// Empty reads in a row, in high gear, before the same: about a millisecond of spinning.
const QUIET_MAX: u32 = 4_096;
/// Empty reads with coalescing off before reading singly. The kernel may be half way into queueing
/// a coalesced datagram while coalescing is switched off; it is done long before so many reads.
const SETTLED_AFTER: u32 = 256;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Gear {
    #[default]
    Low,
    High,
    /// As high, but coalescing is off.
    Falling,
}

/// The gear of one socket, and what will change it.
#[derive(Debug, Default)]
pub(super) struct Gearbox {
    gear: Gear,
    /// Reads in a row that found something.
    found: u32,
    /// Empty reads: in a row in high gear, all of them when falling.
    empty: u32,
    /// How densely datagrams have come of late: see [`UP_AFTER`].
    dense: u32,
    /// Reads in a row that found one datagram.
    lone: u32,
}

impl Gearbox {
    /// Whether to read with segment sizes.
    #[inline]
    pub(super) fn is_high(&self) -> bool {
        self.gear != Gear::Low
    }

    /// Whether data has come so steadily that more is likely to be there.
    #[inline]
    pub(super) fn is_greedy(&self) -> bool {
        self.found >= GREEDY_AFTER
    }

    /// A read found so many messages, which were so many datagrams; returns whether the gear
    /// changed.
    #[inline]
    pub(super) fn found(
        &mut self,
        messages: usize,
        datagrams: usize,
        member: &mut Member,
        notes: &mut Vec<String>,
    ) -> bool {
        self.found = self.found.saturating_add(1);
        if self.gear == Gear::High {
            self.empty = 0;
            self.lone = if datagrams == 1 { self.lone + 1 } else { 0 };
            return self.lone >= LONE_MAX && self.fall(member, notes);
        }
        if datagrams > messages {
            self.empty = 0; // falling, and not settled at all
        }
        let gained = u32::try_from(datagrams).unwrap_or(u32::MAX).saturating_mul(DENSITY);
        self.dense = self.dense.saturating_add(gained);
        self.dense >= UP_AFTER && self.rise(member, notes)
    }

    /// A read found nothing.
    #[inline]
    pub(super) fn empty(&mut self, member: &mut Member, notes: &mut Vec<String>) {
        self.found = 0;
        self.dense = self.dense.saturating_sub(1);
        if self.gear != Gear::Low {
            self.empty += 1;
            if self.gear == Gear::High && self.empty >= QUIET_MAX {
                self.fall(member, notes);
            } else if self.gear == Gear::Falling && self.empty >= SETTLED_AFTER {
                *self = Self::default();
            }
        }
    }

    #[cold]
    fn rise(&mut self, member: &mut Member, notes: &mut Vec<String>) -> bool {
        *self = Self { gear: Gear::High, ..Self::default() };
        if member.coalesces {
            member.set_gro(true, notes);
        }
        true
    }

    #[cold]
    fn fall(&mut self, member: &mut Member, notes: &mut Vec<String>) -> bool {
        // A kernel that refuses goes on coalescing: then stay.
        let off = !member.coalesces || member.set_gro(false, notes);
        *self = Self { gear: if off { Gear::Falling } else { Gear::High }, ..Self::default() };
        off
    }
}

/// Hands over a message, cut into its datagrams; returns how many. `segment_bytes` of 0 means that
/// it is one.
#[inline]
pub(super) fn hand_over(
    member: &mut Member,
    socket: usize,
    source: SocketAddr,
    bytes: &[u8],
    segment_bytes: usize,
    handler: &mut impl FnMut(Datagram<'_>),
) -> usize {
    if segment_bytes == 0 || bytes.len() <= segment_bytes {
        member.count_in(bytes.len());
        handler(Datagram { socket, source, bytes });
        return 1;
    }
    let mut count = 0;
    for bytes in bytes.chunks(segment_bytes) {
        member.count_in(bytes.len());
        handler(Datagram { socket, source, bytes });
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::super::options::SocketOptions;
    use super::*;

    struct Car {
        gears: Gearbox,
        member: Member,
        notes: Vec<String>,
    }

    impl Car {
        fn new() -> Self {
            let options = SocketOptions::new("127.0.0.1:0".parse().unwrap());
            let member = Member::open(&options, 0, &mut Vec::new()).unwrap();
            Self { gears: Gearbox::default(), member, notes: Vec::new() }
        }

        /// Reads that each find so many datagrams in one message, with empty ones after each.
        fn drive(&mut self, reads: u32, datagrams: usize, empty: u32) -> &mut Self {
            for _ in 0..reads {
                self.gears.found(1, datagrams, &mut self.member, &mut self.notes);
                self.check();
                for _ in 0..empty {
                    self.gears.empty(&mut self.member, &mut self.notes);
                    self.check();
                }
            }
            self
        }

        /// Coalescing is never on while datagrams are read singly.
        fn check(&self) {
            let on = self.member.descriptor.get_int(libc::SOL_UDP, libc::UDP_GRO).unwrap();
            assert!(on == 0 || self.gears.is_high());
            assert!(self.notes.is_empty(), "{:?}", self.notes);
        }

        fn gear(&self) -> Gear {
            self.gears.gear
        }
    }

    #[test]
    fn dense_datagrams_shift_up_and_lone_ones_do_not() {
        assert_eq!(Car::new().drive(15, 1, 0).gear(), Gear::Low);
        assert_eq!(Car::new().drive(16, 1, 0).gear(), Gear::High);
        assert_eq!(Car::new().drive(64, 1, 1).gear(), Gear::High);
        assert_eq!(Car::new().drive(1_000, 1, 3).gear(), Gear::Low);
        assert_eq!(Car::new().drive(1_000, 1, 8).gear(), Gear::Low);
        assert_eq!(Car::new().drive(1_000, 1, 20).gear(), Gear::Low);
    }

    #[test]
    fn a_flood_stays_in_high_gear() {
        assert_eq!(Car::new().drive(16, 1, 0).drive(1_000, 46, 60).gear(), Gear::High);
        assert_eq!(Car::new().drive(16, 1, 0).drive(100, 1, 0).drive(100, 2, 0).gear(), Gear::High);
    }

    #[test]
    fn lone_datagrams_shift_down_once_the_queue_has_settled() {
        let mut car = Car::new();
        assert_eq!(car.drive(16, 1, 0).drive(63, 1, 20).gear(), Gear::High);
        assert_eq!(car.drive(1, 1, 20).gear(), Gear::Falling);
        // A coalesced datagram that was still under way starts the count again.
        assert_eq!(car.drive(11, 1, 20).drive(1, 2, 20).gear(), Gear::Falling);
        assert_eq!(car.drive(11, 1, 20).gear(), Gear::Falling);
        assert_eq!(car.drive(1, 1, 20).gear(), Gear::Low);
    }

    #[test]
    fn quiet_shifts_down() {
        let mut car = Car::new();
        assert_eq!(car.drive(16, 1, 0).drive(1, 9, QUIET_MAX - 1).gear(), Gear::High);
        assert_eq!(car.drive(1, 9, QUIET_MAX).gear(), Gear::Falling);
        assert_eq!(car.drive(1, 1, SETTLED_AFTER).gear(), Gear::Low);
    }

    #[test]
    fn a_flood_while_falling_shifts_up_again() {
        let mut car = Car::new();
        assert_eq!(car.drive(16, 1, 0).drive(64, 1, 20).gear(), Gear::Falling);
        assert_eq!(car.drive(16, 1, 0).gear(), Gear::High);
    }
}
