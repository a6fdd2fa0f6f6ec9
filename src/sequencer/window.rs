//! A client's commands that have not come back, and what the sequenced stream says of them.

use std::cmp::Ordering;

use super::record::{Kind, Record, Refusal};

/// What a record means for what is on its way.
pub(crate) fn notice(
    record: &Record<'_>,
    window: &mut Window,
    resend: &mut Option<u64>,
    run: &mut Run,
) {
    match record.kind {
        Kind::Command => window.confirm(record.reference),
        Kind::Refused => match Refusal::of(record.code) {
            Some(Refusal::Gap) => *resend = Some(record.reference),
            Some(refusal) if refusal.uses_up() => window.confirm(record.reference),
            _ => {}
        },
        Kind::Connected => match record.sent_ns.cmp(&run.number) {
            Ordering::Equal if run.is_answered => window.confirm(record.reference),
            Ordering::Equal => {
                run.is_answered = true;
                window.begin(record.reference);
            }
            Ordering::Greater if run.is_answered => run.is_superseded = true,
            // The clock was set back since an earlier run said hello.
            Ordering::Greater => run.outdo(record.sent_ns),
            Ordering::Less => {} // to an earlier run
        },
        // The new leader may not have what its predecessor had not sequenced.
        Kind::Term => *resend = Some(0),
        _ => {}
    }
}

/// Which run of the client this is.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    /// When it said hello, Unix ns, but for the lowest 16 bits: larger than those of all runs
    /// before it.
    pub(crate) number: u64,
    /// The lowest 16 bits: two runs that find the same number to be the next do not both take it.
    pub(crate) mark: u16,
    /// Whether the sequencer knows of it.
    pub(crate) is_answered: bool,
    /// Whether a later run has said hello.
    pub(crate) is_superseded: bool,
}

impl Run {
    /// Whether a record of this client answers a hello of this run.
    pub(crate) fn is_answered_by(&self, record: &Record<'_>) -> bool {
        record.kind == Kind::Connected && record.sent_ns == self.number
    }

    /// Takes a number that is larger than this one; the largest there is, if none is.
    pub(crate) fn outdo(&mut self, number: u64) {
        let next = (number >> 16) + 1;
        let fits = next <= u64::MAX >> 16;
        self.number = if fits { next << 16 | u64::from(self.mark) } else { u64::MAX };
    }
}

/// The commands that have not come back.
pub(crate) struct Window {
    /// Slot `n % len` has command `n`, and when it was sent.
    slots: Vec<(Vec<u8>, u64)>,
    confirmed: u64,
    last: u64,
}

impl Window {
    pub(crate) fn new(commands: usize) -> Self {
        let slots =
            std::iter::repeat_with(|| (Vec::with_capacity(128), 0)).take(commands).collect();
        Self { slots, confirmed: 0, last: 0 }
    }

    pub(crate) fn first(&self) -> u64 {
        self.confirmed + 1
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    pub(crate) fn len(&self) -> usize {
        (self.last - self.confirmed) as usize
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() == self.slots.len()
    }

    fn slot(&mut self, sequence: u64) -> &mut (Vec<u8>, u64) {
        let index = sequence % self.slots.len() as u64;
        &mut self.slots[index as usize]
    }

    pub(crate) fn push(&mut self, command: &[u8], sent_ns: u64) {
        self.last += 1;
        let (bytes, sent) = self.slot(self.last);
        bytes.clear();
        bytes.extend_from_slice(command);
        *sent = sent_ns;
    }

    /// Lends a command out.
    pub(crate) fn take(&mut self, sequence: u64) -> (Vec<u8>, u64) {
        let (bytes, sent_ns) = self.slot(sequence);
        (std::mem::take(bytes), *sent_ns)
    }

    pub(crate) fn put_back(&mut self, sequence: u64, bytes: Vec<u8>) {
        self.slot(sequence).0 = bytes;
    }

    /// All up to `sequence` have come back.
    pub(crate) fn confirm(&mut self, sequence: u64) {
        self.confirmed = self.confirmed.max(sequence.min(self.last));
    }

    /// All up to `sequence` have been taken, by a sequencer that was asked. If that is less than
    /// has come back, its stream is another one: goes on there, without what has not come back.
    pub(crate) fn settle(&mut self, sequence: u64) {
        if sequence < self.confirmed {
            (self.confirmed, self.last) = (sequence, sequence);
        } else {
            self.confirm(sequence);
        }
    }

    /// Goes on behind what an earlier run of this client had sent.
    pub(crate) fn begin(&mut self, sequence: u64) {
        if self.last == 0 || sequence > self.last {
            (self.confirmed, self.last) = (sequence, sequence);
        } else {
            self.confirm(sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_outdoes_every_number_but_the_largest() {
        let mut run = Run { mark: 7, ..Run::default() };
        for number in [0, 1, 0xFFFF, 0x1_0000, 1 << 63, u64::MAX - 0x1_0000] {
            run.outdo(number);
            assert!(run.number > number, "{number:#x}");
            assert_eq!(run.number & 0xFFFF, 7);
        }
        for number in [u64::MAX - 0xFFFF, u64::MAX] {
            run.outdo(number);
            assert_eq!(run.number, u64::MAX);
        }
    }

    #[test]
    fn a_stream_that_knows_less_than_has_come_back_is_another_one() {
        let mut window = Window::new(4);
        for _ in 0..3 {
            window.push(b"order", 1);
        }
        window.confirm(1);
        window.settle(2);
        assert_eq!((window.first(), window.last()), (3, 3));
        window.settle(0);
        assert_eq!((window.first(), window.last(), window.len()), (1, 0, 0));
    }
}
