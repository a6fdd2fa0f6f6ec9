//! Who has sent how much: what makes a command count once, and not too often.
//!
//! Everything here follows from the sequenced stream, so that a standby that has read the stream
//! knows what the leader knew.

use super::application::LoadError;
use super::frame::{Frame, FrameKind};
use super::image::{ImageReader, ImageWriter};
use super::record::ClientId;

/// How often a client may send commands: a token bucket, in sequenced time.
///
/// `burst` commands may come at once; then one each `1/per_second` (the generic cell rate
/// algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Commands a second in the long run, 1 to 1,000,000,000.
    pub per_second: u32,
    /// Commands at once, at least 1.
    pub burst: u32,
}

/// What is known of one client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seat {
    /// The last of its numbers that is used up.
    pub(crate) last: u64,
    /// Its run: when it said hello, Unix ns by its clock.
    pub(crate) run: u64,
    /// Whether it counts as there.
    pub(crate) is_connected: bool,
    /// When its bucket is full again, Unix ns.
    full_ns: u64,
}

/// A rate as it is reckoned with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    interval_ns: u64,
    /// How far ahead of time its level may run.
    tolerance_ns: u64,
}

impl Rate {
    pub(crate) fn bucket(self) -> Bucket {
        let interval_ns = 1_000_000_000 / u64::from(self.per_second.max(1));
        let tolerance_ns = interval_ns * u64::from(self.burst.max(1) - 1);
        Bucket { interval_ns, tolerance_ns }
    }
}

impl Seat {
    /// Whether one more command is within the rate now.
    #[inline]
    pub(crate) fn affords(&self, bucket: &Bucket, now_ns: u64) -> bool {
        self.full_ns.saturating_sub(now_ns) <= bucket.tolerance_ns
    }

    /// Takes one command's worth.
    #[inline]
    pub(crate) fn charge(&mut self, bucket: &Bucket, now_ns: u64) {
        self.full_ns = self.full_ns.max(now_ns).saturating_add(bucket.interval_ns);
    }
}

/// The clients by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    seats: Vec<Seat>,
}

/// Bytes of a seat in an image.
const SEAT_BYTES: usize = 27;

impl Ledger {
    #[inline]
    pub(crate) fn seat(&mut self, client: ClientId) -> &mut Seat {
        let index = usize::from(client.0);
        if index >= self.seats.len() {
            self.grow(index);
        }
        &mut self.seats[index]
    }

    #[cold]
    fn grow(&mut self, index: usize) {
        self.seats.resize(index + 1, Seat::default());
    }

    /// Whether what a frame asks for stands in the stream, or is not to: a command behind all that
    /// its client has used up does not, nor does the hello of a run that is not known. What names
    /// another client than the stream's own is only refused.
    pub(crate) fn knows(&self, client: ClientId, frame: &Frame<'_>) -> bool {
        if frame.client != client {
            return true;
        }
        let seat = self.seats.get(usize::from(client.0)).copied().unwrap_or_default();
        match frame.kind {
            FrameKind::Command => frame.run < seat.run || frame.sequence <= seat.last,
            FrameKind::Hello => frame.run <= seat.run,
            FrameKind::Heartbeat | FrameKind::Goodbye => true,
        }
    }

    /// The last number of a client that is used up.
    pub(crate) fn last(&self, client: ClientId) -> u64 {
        self.seats.get(usize::from(client.0)).map_or(0, |seat| seat.last)
    }

    /// The clients that count as there.
    pub(crate) fn connected(&self) -> impl Iterator<Item = ClientId> {
        let seats = self.seats.iter().enumerate();
        seats.filter(|(_, seat)| seat.is_connected).map(|(client, _)| ClientId(client as u16))
    }

    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        let mut image = ImageWriter::new(out);
        let used = |&(_, seat): &(usize, &Seat)| *seat != Seat::default();
        image.u32(self.seats.iter().enumerate().filter(used).count() as u32);
        for (client, seat) in self.seats.iter().enumerate().filter(used) {
            image.u16(client as u16);
            image.u64(seat.last);
            image.u64(seat.run);
            image.u8(u8::from(seat.is_connected));
            image.u64(seat.full_ns);
        }
    }

    pub(crate) fn load(image: &mut ImageReader<'_>) -> Result<Self, LoadError> {
        let mut ledger = Self::default();
        for _ in 0..image.count(SEAT_BYTES, "the clients")? {
            let client = ClientId(image.u16("a client")?);
            let seat = Seat {
                last: image.u64("a client's last number")?,
                run: image.u64("a client's run")?,
                is_connected: image.u8("whether a client is connected")? == 1,
                full_ns: image.u64("a client's rate")?,
            };
            *ledger.seat(client) = seat;
        }
        Ok(ledger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate { per_second: 1000, burst: 5 }.bucket();
        let mut seat = Seat::default();
        let mut send = |now_ns| {
            let affords = seat.affords(&rate, now_ns);
            if affords {
                seat.charge(&rate, now_ns);
            }
            affords
        };
        let start = 1_700_000_000_000_000_000;
        let at_once = (0..1000).filter(|_| send(start)).count();
        assert_eq!(at_once, 5);
        assert!(!send(start + 999_999));
        assert!(send(start + 1_000_000) && !send(start + 1_000_000));
        let in_a_second = (0..10_000).filter(|n| send(start + 1_000_000 + n * 100_000)).count();
        assert_eq!(in_a_second, 999);
    }

    #[test]
    fn a_saved_ledger_is_equal() {
        let mut ledger = Ledger::default();
        *ledger.seat(ClientId(7)) = Seat { last: 99, run: 3, is_connected: true, full_ns: 5 };
        ledger.seat(ClientId(300)).last = 1;
        let mut image = Vec::new();
        ledger.save(&mut image);
        let mut reader = ImageReader::new(&image);
        let mut loaded = Ledger::load(&mut reader).unwrap();
        reader.finish("more").unwrap();
        assert_eq!((loaded.last(ClientId(7)), loaded.last(ClientId(300))), (99, 1));
        assert_eq!(loaded.seat(ClientId(7)), ledger.seat(ClientId(7)));
        assert_eq!(loaded.connected().collect::<Vec<_>>(), [ClientId(7)]);
        for short in 0..image.len() {
            assert!(Ledger::load(&mut ImageReader::new(&image[..short])).is_err());
        }
    }
}
