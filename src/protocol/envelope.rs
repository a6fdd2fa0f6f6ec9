//! The inner header of an enveloped stream: 32 bytes in front of every message or fragment, as part
//! of the message that MoldUDP64 carries. A peer that knows nothing of envelopes still receives
//! every byte in order.
//!
//! All numbers are big-endian, as around them.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | version, 1 |
//! | 1 | 1 | flags: 0x01 begins a message, 0x02 ends it (a whole message does both); others are 0 |
//! | 2 | 2 | topic, the publisher's choice |
//! | 4 | 4 | publisher: who published it first, however many streams it has passed since |
//! | 8 | 8 | that publisher's own sequence number of the message |
//! | 16 | 8 | send time, ns since the Unix epoch |
//! | 24 | 4 | where a message begins: length of all of it, without envelopes, bytes; elsewhere 0 |
//! | 28 | 4 | reserved, 0 |
//!
//! Reading is lenient where a later writer of the same version may say more: unknown flags are kept
//! and mean nothing, reserved bytes are passed over. Another version is an error. Whether
//! fragments make a message is for those to judge who put them together.

use gapless_shm::Flags;
use thiserror::Error;

/// Bytes of an envelope, in front of the payload.
pub const ENVELOPE_BYTES: usize = 32;
/// The version written and read here.
pub const ENVELOPE_VERSION: u8 = 1;

/// What an envelope says about the bytes behind it.
///
/// ```
/// use gapless::protocol::envelope::{ENVELOPE_BYTES, Envelope};
/// let envelope = Envelope {
///     flags: Envelope::BEGIN | Envelope::END,
///     topic: 7,
///     publisher: 42,
///     publisher_sequence: 1,
///     send_time_unix_ns: 1_700_000_000_000_000_000,
///     message_bytes: 5,
/// };
/// let mut message = [0; ENVELOPE_BYTES + 5];
/// let (head, payload) = message.split_first_chunk_mut().expect("room for both");
/// envelope.write(head);
/// payload.copy_from_slice(b"hello");
/// assert_eq!(Envelope::split(&message), Ok((envelope, &b"hello"[..])));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// [`BEGIN`](Self::BEGIN), [`END`](Self::END), and whatever else somebody set.
    pub flags: u8,
    /// Topic.
    pub topic: u16,
    /// Who published the message first.
    pub publisher: u32,
    /// Sequence number of the message among all of its publisher.
    pub publisher_sequence: u64,
    /// When it was sent, ns since the Unix epoch.
    pub send_time_unix_ns: u64,
    /// Length of the whole message where it begins, bytes; elsewhere 0.
    pub message_bytes: u32,
}

/// Bytes that are no envelope of this version with something behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// Shorter than an envelope.
    #[error("{len} bytes, an envelope has {ENVELOPE_BYTES}: is this an enveloped stream?")]
    TooShort {
        /// Bytes there are.
        len: usize,
    },
    /// Of a version that is not known here.
    #[error(
        "envelope version {found}, this build reads {ENVELOPE_VERSION}: is this an enveloped stream, of the same release?"
    )]
    UnknownVersion {
        /// The version found.
        found: u8,
    },
}

impl Envelope {
    /// A message begins with these bytes.
    pub const BEGIN: u8 = 0x01;
    /// A message ends with these bytes.
    pub const END: u8 = 0x02;

    /// Whether a message begins here.
    pub fn begins(&self) -> bool {
        self.flags & Self::BEGIN != 0
    }

    /// Whether a message ends here.
    pub fn ends(&self) -> bool {
        self.flags & Self::END != 0
    }

    /// The same two bits as a ring's record carries them; all others are left behind.
    pub fn record_flags(&self) -> Flags {
        match (self.begins(), self.ends()) {
            (true, true) => Flags::WHOLE,
            (true, false) => Flags::BEGIN,
            (false, false) => Flags::MIDDLE,
            (false, true) => Flags::END,
        }
    }

    /// Writes the envelope as it travels.
    pub fn write(&self, to: &mut [u8; ENVELOPE_BYTES]) {
        to[0] = ENVELOPE_VERSION;
        to[1] = self.flags;
        to[2..4].copy_from_slice(&self.topic.to_be_bytes());
        to[4..8].copy_from_slice(&self.publisher.to_be_bytes());
        to[8..16].copy_from_slice(&self.publisher_sequence.to_be_bytes());
        to[16..24].copy_from_slice(&self.send_time_unix_ns.to_be_bytes());
        to[24..28].copy_from_slice(&self.message_bytes.to_be_bytes());
        to[28..32].fill(0);
    }

    /// Takes a message apart: the envelope, and the bytes behind it, where they are.
    ///
    /// # Errors
    /// [`EnvelopeError`]: too short, or of another version.
    pub fn split(bytes: &[u8]) -> Result<(Self, &[u8]), EnvelopeError> {
        let Some((head, payload)) = bytes.split_first_chunk::<ENVELOPE_BYTES>() else {
            return Err(EnvelopeError::TooShort { len: bytes.len() });
        };
        if head[0] != ENVELOPE_VERSION {
            return Err(EnvelopeError::UnknownVersion { found: head[0] });
        }
        let long = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| head[at + i]));
        let word = |at: usize| u32::from_be_bytes(std::array::from_fn(|i| head[at + i]));
        let envelope = Self {
            flags: head[1],
            topic: u16::from_be_bytes([head[2], head[3]]),
            publisher: word(4),
            publisher_sequence: long(8),
            send_time_unix_ns: long(16),
            message_bytes: word(24),
        };
        Ok((envelope, payload))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample() -> Envelope {
        Envelope {
            flags: Envelope::BEGIN,
            topic: 0x0203,
            publisher: 0x0405_0607,
            publisher_sequence: 0x0809_0a0b_0c0d_0e0f,
            send_time_unix_ns: 0x1011_1213_1415_1617,
            message_bytes: 0x1819_1a1b,
        }
    }

    #[test]
    fn the_bytes_are_as_documented() {
        let mut bytes = [0xff; ENVELOPE_BYTES];
        sample().write(&mut bytes);
        let mut expected: [u8; 32] = std::array::from_fn(|i| i as u8);
        (expected[0], expected[1]) = (1, 1);
        expected[28..].fill(0);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn flags_are_the_bits_of_a_record() {
        assert_eq!(Envelope::BEGIN, Flags::BEGIN.bits());
        assert_eq!(Envelope::END, Flags::END.bits());
        for flags in 0..=255 {
            let envelope = Envelope { flags, ..sample() };
            assert_eq!(envelope.record_flags().bits(), flags & 3);
        }
    }

    #[test]
    fn what_is_no_envelope_is_told() {
        let mut bytes = [0; ENVELOPE_BYTES];
        sample().write(&mut bytes);
        for len in 0..ENVELOPE_BYTES {
            assert_eq!(Envelope::split(&bytes[..len]), Err(EnvelopeError::TooShort { len }));
        }
        assert_eq!(Envelope::split(&bytes), Ok((sample(), &[][..])));
        for found in (0..=255).filter(|version| *version != ENVELOPE_VERSION) {
            bytes[0] = found;
            assert_eq!(Envelope::split(&bytes), Err(EnvelopeError::UnknownVersion { found }));
        }
    }

    prop_compose! {
        fn any_envelope()(
            flags: u8, topic: u16, publisher: u32,
            publisher_sequence: u64, send_time_unix_ns: u64, message_bytes: u32,
        ) -> Envelope {
            Envelope {
                flags, topic, publisher, publisher_sequence, send_time_unix_ns, message_bytes,
            }
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_in_place(
            envelope in any_envelope(),
            payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut bytes = vec![0; ENVELOPE_BYTES];
            envelope.write(bytes.first_chunk_mut().expect("32 bytes"));
            bytes.extend_from_slice(&payload);
            let (read, rest) = Envelope::split(&bytes).expect("an envelope");
            prop_assert_eq!((read, rest), (envelope, &payload[..]));
            prop_assert_eq!(rest.as_ptr(), bytes[ENVELOPE_BYTES..].as_ptr());
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            mut bytes in prop::collection::vec(any::<u8>(), 0..100),
            known: bool,
        ) {
            if let (true, Some(version)) = (known, bytes.first_mut()) {
                *version = ENVELOPE_VERSION;
            }
            match Envelope::split(&bytes) {
                Ok((envelope, payload)) => {
                    let mut again = [0; ENVELOPE_BYTES];
                    envelope.write(&mut again);
                    prop_assert_eq!(&again[..28], &bytes[..28]);
                    prop_assert_eq!(payload, &bytes[ENVELOPE_BYTES..]);
                }
                Err(EnvelopeError::TooShort { len }) => {
                    prop_assert!(len == bytes.len() && len < ENVELOPE_BYTES);
                }
                Err(EnvelopeError::UnknownVersion { found }) => {
                    prop_assert!(found == bytes[0] && found != ENVELOPE_VERSION);
                }
            }
        }
    }
}
