//! Which kernel sockets to look at, beside the rings.
//!
//! Looking at a ring costs a few nanoseconds, looking at a socket a system call. So a socket whose
//! packets are steered is looked at once in a while, in turn with the others, and each time for as
//! long as it brings something: super datagrams of a neighbour on the same machine, what came
//! before the steering, what another network of the process takes too.

/// Nanoseconds between looks at one socket and at the next.
const INTERVAL_NS: u64 = 20_000;
/// How long a socket is looked at each time after it brought something, in nanoseconds.
const PATIENCE_NS: u64 = 1_000_000;

/// The sockets as bits, as in a [`SocketSet`](super::super::SocketSet).
#[derive(Debug, Default)]
pub(super) struct Rota {
    count: u32,
    /// Those that are looked at in each poll: nothing is steered for them.
    always: u32,
    /// Those that brought something of late, and until when they are looked at for that.
    lively: u32,
    lively_until_ns: u64,
    /// Those whose turn has come. They wait until they are wanted: who asks for some sockets and
    /// for others in a fixed order would miss the same one's turn forever.
    owed: u32,
    /// When the next one's turn is, and whose.
    next_ns: u64,
    turn: u32,
}

impl Rota {
    /// One more socket; `always` is whether all it gets comes through the kernel.
    pub(super) fn add(&mut self, always: bool) {
        self.always |= u32::from(always) << self.count;
        self.count += 1;
    }

    /// Something is steered for a socket from now on, or nothing any more.
    pub(super) fn set_always(&mut self, socket: usize, always: bool) {
        self.always = self.always & !(1 << socket) | u32::from(always) << socket;
    }

    /// The kernel says that these have something.
    pub(super) fn owe(&mut self, sockets: u32) {
        self.owed |= sockets;
    }

    /// The sockets to look at in this poll, of those that are wanted.
    #[inline]
    pub(super) fn due(&mut self, now_ns: u64, wanted: u32) -> u32 {
        if now_ns >= self.next_ns {
            self.next_ns = now_ns + INTERVAL_NS;
            self.turn = if self.turn + 1 < self.count { self.turn + 1 } else { 0 };
            self.owed |= u32::from(self.count > 0) << self.turn;
            if now_ns >= self.lively_until_ns {
                self.lively = 0;
            }
        }
        let due = (self.always | self.lively | self.owed) & wanted;
        self.owed &= !due;
        due
    }

    /// These were looked at and brought something.
    #[inline]
    pub(super) fn brought(&mut self, now_ns: u64, sockets: u32) {
        let sockets = sockets & !self.always;
        if sockets != 0 {
            self.lively |= sockets;
            self.lively_until_ns = now_ns + PATIENCE_NS;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steered_sockets_are_looked_at_in_turn_and_others_always() {
        let mut rota = Rota::default();
        assert_eq!(rota.due(0, u32::MAX), 0);
        for always in [false, true, false] {
            rota.add(always);
        }
        let mut looks = [0; 3];
        for poll in 1..=300 {
            let due = rota.due(poll * INTERVAL_NS / 100, u32::MAX);
            (0..3).for_each(|socket| looks[socket] += due >> socket & 1);
        }
        assert_eq!(looks, [1, 300, 1]);
    }

    #[test]
    fn who_polls_rarely_looks_at_one_each_time() {
        let mut rota = Rota::default();
        rota.add(false);
        rota.add(false);
        let looks: Vec<u32> = (1..=4).map(|ms| rota.due(ms * 1_000_000, u32::MAX)).collect();
        assert_eq!(looks, [0b10, 0b01, 0b10, 0b01]);
    }

    #[test]
    fn a_socket_that_brings_something_is_looked_at_until_it_does_not() {
        let mut rota = Rota::default();
        rota.add(false);
        rota.add(false);
        rota.due(INTERVAL_NS, u32::MAX);
        rota.brought(INTERVAL_NS, 0b10);
        let until = INTERVAL_NS + PATIENCE_NS;
        for now in (INTERVAL_NS + 1..until).step_by(1_000) {
            assert_eq!(rota.due(now, 0b10), 0b10);
        }
        assert_eq!(rota.due(until + INTERVAL_NS, 0b01) & 0b10, 0);
        assert_eq!(rota.due(until + INTERVAL_NS + 1, 0b10) & !0b10, 0);
        rota.set_always(1, true);
        assert_eq!(rota.due(until + INTERVAL_NS + 2, u32::MAX) & 0b10, 0b10);
    }

    /// A caller asks for one and for the other in turn, an odd number of polls between the turns.
    #[test]
    fn a_turn_is_kept_until_it_is_wanted() {
        for first in [0b01, 0b10] {
            let mut rota = Rota::default();
            rota.add(false);
            rota.add(false);
            let (mut looks, mut wanted) = ([0; 2], first);
            for poll in 1..=8 * 101 {
                let due = rota.due(poll * INTERVAL_NS / 101, wanted);
                assert_eq!(due & !wanted, 0);
                (0..2).for_each(|socket| looks[socket] += due >> socket & 1);
                wanted ^= 0b11;
            }
            assert!(looks.iter().all(|count| (3..=4).contains(count)), "{looks:?}");
        }
    }

    #[test]
    fn what_has_something_is_owed_a_look() {
        let mut rota = Rota::default();
        rota.add(false);
        rota.add(false);
        rota.due(INTERVAL_NS, u32::MAX);
        rota.owe(0b01);
        assert_eq!(rota.due(INTERVAL_NS + 1, u32::MAX), 0b01);
        assert_eq!(rota.due(INTERVAL_NS + 2, u32::MAX), 0);
    }
}
