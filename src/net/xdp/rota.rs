//! Which kernel sockets to look at, beside the rings.
//!
//! Looking at a ring costs a few nanoseconds, looking at a socket a system call. So a socket whose
//! packets are steered is looked at once in a while, in turn with the others, and each time for as
//! long as it brings something: super datagrams of a neighbour on the same machine, what came
//! before the steering, what another network of the process takes too.

/// Polls between looks at one socket.
const INTERVAL: u32 = 256;
/// Looks that bring nothing before a socket that brought something is left alone.
const PATIENCE: u32 = 64;

/// The sockets as bits, as in a [`SocketSet`](super::super::SocketSet).
#[derive(Debug, Default)]
pub(super) struct Rota {
    count: u32,
    /// Those that are looked at in each poll: nothing is steered for them.
    always: u32,
    /// Those that brought something of late.
    lively: u32,
    /// Those whose turn has come. They wait until they are wanted: who asks for some sockets and
    /// for others in a fixed order would miss the same one's turn forever.
    owed: u32,
    patience: u32,
    /// Polls until the next look in turn, and whose turn it is.
    countdown: u32,
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

    /// The sockets to look at in this poll, of those that are wanted.
    #[inline]
    pub(super) fn due(&mut self, wanted: u32) -> u32 {
        if self.countdown > 0 {
            self.countdown -= 1;
        } else {
            self.countdown = INTERVAL;
            self.turn = if self.turn + 1 < self.count { self.turn + 1 } else { 0 };
            self.owed |= u32::from(self.count > 0) << self.turn;
        }
        let due = (self.always | self.lively | self.owed) & wanted;
        self.owed &= !due;
        due
    }

    /// These were looked at, and those of them brought something.
    #[inline]
    pub(super) fn looked(&mut self, due: u32, brought: u32) {
        let brought = brought & !self.always;
        if brought != 0 {
            self.lively |= brought;
            self.patience = PATIENCE;
        } else if self.lively & due != 0 {
            self.patience -= 1;
            if self.patience == 0 {
                self.lively = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steered_sockets_are_looked_at_in_turn_and_others_always() {
        let mut rota = Rota::default();
        assert_eq!(rota.due(u32::MAX), 0);
        for always in [false, true, false] {
            rota.add(always);
        }
        let mut looks = [0; 3];
        for _ in 0..3 * (INTERVAL + 1) {
            let due = rota.due(u32::MAX);
            (0..3).for_each(|socket| looks[socket] += due >> socket & 1);
            rota.looked(u32::MAX, 0);
        }
        assert_eq!(looks, [1, 3 * (INTERVAL + 1), 1]);
    }

    #[test]
    fn a_socket_that_brings_something_is_looked_at_until_it_does_not() {
        let mut rota = Rota::default();
        rota.add(false);
        rota.add(false);
        rota.due(u32::MAX);
        rota.looked(u32::MAX, 0b10);
        for _ in 1..PATIENCE {
            assert_eq!(rota.due(u32::MAX) & 0b10, 0b10);
            rota.looked(u32::MAX, 0);
        }
        rota.looked(u32::MAX, 0b10);
        for _ in 0..PATIENCE {
            assert_eq!(rota.due(u32::MAX) & 0b10, 0b10);
            rota.looked(u32::MAX, 0);
        }
        assert_eq!(rota.due(u32::MAX) & 0b10, 0);
        rota.set_always(1, true);
        assert_eq!(rota.due(u32::MAX) & 0b10, 0b10);
    }

    /// A caller asks for one and for the other in turn, an odd number of polls between the turns.
    #[test]
    fn a_turn_is_kept_until_it_is_wanted() {
        for first in [0b01, 0b10] {
            let mut rota = Rota::default();
            rota.add(false);
            rota.add(false);
            let mut looks = [0; 2];
            let mut wanted = first;
            for _ in 0..8 * (INTERVAL + 1) {
                let due = rota.due(wanted);
                assert_eq!(due & !wanted, 0);
                (0..2).for_each(|socket| looks[socket] += due >> socket & 1);
                rota.looked(due, 0);
                wanted ^= 0b11;
            }
            assert!(looks.iter().all(|count| (3..=4).contains(count)), "{looks:?}");
        }
    }

    #[test]
    fn patience_is_for_looks_at_what_was_lively() {
        let mut rota = Rota::default();
        rota.add(true);
        rota.add(false);
        rota.looked(0b10, 0b10);
        for _ in 0..2 * PATIENCE {
            let due = rota.due(0b01);
            rota.looked(due, 0b01);
        }
        assert_eq!(rota.due(0b10), 0b10);
    }
}
