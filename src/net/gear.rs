//! When a receiving socket reads datagram by datagram, and when in batches of coalesced ones.
//!
//! In **low** gear a datagram is taken by the cheapest call there is. When reads keep finding
//! something the socket shifts up: in **high** gear the kernel coalesces datagrams (UDP GRO), and
//! messages are read with the segment size beside them. When nothing comes for a while it shifts
//! down.
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
/// Such reads before shifting up.
const UP_AFTER: u32 = 16;
/// Empty reads in high gear before coalescing is switched off.
const DOWN_AFTER: u32 = 64;
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
    /// Reads in a row that did not.
    empty: u32,
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

    /// A read found something; returns whether the gear changed.
    #[inline]
    pub(super) fn found(&mut self, member: &mut Member, notes: &mut Vec<String>) -> bool {
        (self.found, self.empty) = (self.found.saturating_add(1), 0);
        let up = self.gear != Gear::High && self.found >= UP_AFTER;
        if up {
            self.shift_up(member, notes);
        }
        up
    }

    /// A read found nothing.
    #[inline]
    pub(super) fn empty(&mut self, member: &mut Member, notes: &mut Vec<String>) {
        self.found = 0;
        if self.gear != Gear::Low {
            self.idle(member, notes);
        }
    }

    #[cold]
    fn shift_up(&mut self, member: &mut Member, notes: &mut Vec<String>) {
        *self = Self { gear: Gear::High, found: 0, empty: 0 };
        if member.coalesces {
            member.set_gro(true, notes);
        }
    }

    fn idle(&mut self, member: &mut Member, notes: &mut Vec<String>) {
        self.empty += 1;
        match self.gear {
            Gear::High if self.empty >= DOWN_AFTER => {
                (self.gear, self.empty) = (Gear::Falling, 0);
                // A kernel that refuses goes on coalescing: then stay.
                if member.coalesces && !member.set_gro(false, notes) {
                    self.gear = Gear::High;
                }
            }
            Gear::Falling if self.empty >= SETTLED_AFTER => *self = Self::default(),
            _ => {}
        }
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
