//! Messages longer than a record: cut into fragments by the publisher, put together by the reader.
//!
//! Each fragment is a record with a sequence number of its own; the first begins, the last ends the
//! message. A reader that does not care sees the fragments as they are.

use gapless_shm::{Flags, Memory, Message, Producer, PublishError};

/// One message on its way into a ring, in as many records as it needs. Keeps its place when the
/// ring is full, so that publishing can go on later.
///
/// ```
/// use gapless::{Fragments, Part, Reassembler};
/// # use gapless::shm::{RingOptions, Start};
/// # let (mut producer, ring) = RingOptions::new().capacity_bytes(4096).heap()?;
/// # let mut consumer = ring.subscribe("reader", Start::Oldest)?;
/// let mut fragments = Fragments::new(&[7; 1200]);
/// assert_eq!(fragments.try_publish(&mut producer), Ok(3)); // 512 bytes a record
/// assert_eq!(fragments.try_publish(&mut producer), Ok(3)); // done is done
///
/// let mut reassembler = Reassembler::new(1 << 20);
/// consumer.poll(10, |message| {
///     reassembler.accept(message, |part| match part {
///         Part::Whole { first, last, payload } => {
///             assert_eq!((first, last, payload), (1, 3, &[7; 1200][..]));
///         }
///         other => panic!("{other:?}"),
///     });
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    rest: &'a [u8],
    begun: bool,
    /// Sequence of the last record, once all is published.
    done: Option<u64>,
}

impl<'a> Fragments<'a> {
    /// All of `payload` is still to be published.
    pub fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload, begun: false, done: None }
    }

    /// Bytes not yet published.
    pub fn remaining_bytes(&self) -> usize {
        self.rest.len()
    }

    /// Publishes as much as there is room for; returns the sequence number of the last record once
    /// all is published, and from then on publishes nothing more.
    ///
    /// # Errors
    /// [`PublishError::Backpressure`]: call again later, it goes on where it stopped.
    pub fn try_publish<M: Memory>(
        &mut self,
        producer: &mut Producer<M>,
    ) -> Result<u64, PublishError> {
        if let Some(sequence) = self.done {
            return Ok(sequence);
        }
        loop {
            let (now, later) =
                self.rest.split_at(self.rest.len().min(producer.max_message_bytes()));
            let flags = match (self.begun, later.is_empty()) {
                (false, true) => Flags::WHOLE,
                (false, false) => Flags::BEGIN,
                (true, false) => Flags::MIDDLE,
                (true, true) => Flags::END,
            };
            let sequence = producer.try_publish_flagged(now, flags)?;
            (self.rest, self.begun) = (later, true);
            if later.is_empty() {
                self.done = Some(sequence);
                return Ok(sequence);
            }
        }
    }
}

/// What a [`Reassembler`] makes of the records it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A whole message.
    Whole {
        /// Sequence of its first record.
        first: u64,
        /// Sequence of its last record.
        last: u64,
        /// All its bytes.
        payload: &'a [u8],
    },
    /// Records that never became a message: its publisher died or gave up in the middle, the reader
    /// joined in the middle or was lapped, or it is longer than the reassembler takes.
    Abandoned {
        /// First sequence passed over.
        first: u64,
        /// Last sequence passed over.
        last: u64,
    },
}

/// Puts fragments together. Whole messages pass through without a copy. Memory is bounded by the
/// longest message it takes.
#[derive(Clone, Debug)]
pub struct Reassembler {
    buffer: Vec<u8>,
    max_bytes: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Between,
    Collecting {
        first: u64,
        last: u64,
    },
    /// Passing over records up to the next beginning.
    Skipping {
        first: u64,
        last: u64,
    },
}

impl Reassembler {
    /// Takes messages of up to `max_bytes`. The buffer grows to the longest one seen, then never
    /// again.
    pub fn new(max_bytes: usize) -> Self {
        Self { buffer: Vec::new(), max_bytes, state: State::Between }
    }

    /// Takes the next record, and hands to `handler` what it completes: nothing, one part, or
    /// (abandoned records in front of a whole message) two.
    pub fn accept(&mut self, message: Message<'_>, mut handler: impl FnMut(Part<'_>)) {
        let Message { sequence, payload, flags } = message;
        let continues = match self.state {
            State::Collecting { last, .. } | State::Skipping { last, .. } => {
                !flags.begins() && last.wrapping_add(1) == sequence
            }
            State::Between => false,
        };
        if !continues {
            self.abandon(&mut handler);
        }
        if flags.begins() && flags.ends() {
            return handler(Part::Whole { first: sequence, last: sequence, payload });
        }
        self.state = match self.state {
            State::Between if flags.begins() => {
                self.buffer.clear();
                State::Collecting { first: sequence, last: sequence }
            }
            State::Between => State::Skipping { first: sequence, last: sequence },
            State::Collecting { first, .. } => State::Collecting { first, last: sequence },
            State::Skipping { first, .. } => State::Skipping { first, last: sequence },
        };
        if let State::Collecting { first, last } = self.state {
            if self.buffer.len() + payload.len() > self.max_bytes {
                self.state = State::Skipping { first, last };
            } else {
                self.buffer.extend_from_slice(payload);
            }
        }
        if flags.ends() {
            if let State::Collecting { first, last } = self.state {
                self.state = State::Between;
                return handler(Part::Whole { first, last, payload: &self.buffer });
            }
            self.abandon(&mut handler);
        }
    }

    /// The stream has ended: reports a message that was begun and never ended, if there is one.
    pub fn finish(&mut self, mut handler: impl FnMut(Part<'_>)) {
        self.abandon(&mut handler);
    }

    /// Reports an unfinished message, if there is one, and starts afresh.
    fn abandon(&mut self, handler: &mut impl FnMut(Part<'_>)) {
        if let State::Collecting { first, last } | State::Skipping { first, last } = self.state {
            handler(Part::Abandoned { first, last });
        }
        self.state = State::Between;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    enum Got {
        Whole(u64, u64, Vec<u8>),
        Abandoned(u64, u64),
    }

    fn run(max_bytes: usize, records: &[(u64, Flags, &[u8])]) -> Vec<Got> {
        let mut reassembler = Reassembler::new(max_bytes);
        let mut got = Vec::new();
        for &(sequence, flags, payload) in records {
            reassembler.accept(Message { sequence, payload, flags }, |part| {
                got.push(match part {
                    Part::Whole { first, last, payload } => {
                        Got::Whole(first, last, payload.to_vec())
                    }
                    Part::Abandoned { first, last } => Got::Abandoned(first, last),
                });
            });
        }
        reassembler.finish(|part| match part {
            Part::Abandoned { first, last } => got.push(Got::Abandoned(first, last)),
            other => panic!("{other:?}"),
        });
        got
    }

    #[test]
    fn fragments_become_their_message_and_whole_ones_pass() {
        let got = run(
            100,
            &[
                (1, Flags::WHOLE, b"a"),
                (2, Flags::BEGIN, b"bc"),
                (3, Flags::MIDDLE, b"de"),
                (4, Flags::END, b""),
                (5, Flags::WHOLE, b""),
            ],
        );
        let whole = |first, last, bytes: &[u8]| Got::Whole(first, last, bytes.to_vec());
        assert_eq!(got, [whole(1, 1, b"a"), whole(2, 4, b"bcde"), whole(5, 5, b"")]);
    }

    #[test]
    fn what_is_not_complete_is_named_and_never_mixed() {
        let got = run(
            3,
            &[
                (7, Flags::MIDDLE, b"x"), // joined in the middle
                (8, Flags::END, b"x"),
                (9, Flags::BEGIN, b"a"), // publisher gave up
                (10, Flags::BEGIN, b"b"),
                (12, Flags::END, b"c"), // 11 was lapped
                (13, Flags::BEGIN, b"ab"),
                (14, Flags::MIDDLE, b"cd"), // too long
                (15, Flags::END, b"e"),
                (16, Flags::BEGIN, b"f"),
                (17, Flags::WHOLE, b"g"),
                (18, Flags::BEGIN, b"h"), // the stream ended
            ],
        );
        let expected = [
            Got::Abandoned(7, 8),
            Got::Abandoned(9, 9),
            Got::Abandoned(10, 10),
            Got::Abandoned(12, 12),
            Got::Abandoned(13, 15),
            Got::Abandoned(16, 16),
            Got::Whole(17, 17, b"g".to_vec()),
            Got::Abandoned(18, 18),
        ];
        assert_eq!(got, expected);
    }
}
