//! What stands in a sequenced stream: records, each a stamp of 32 bytes and a payload.
//!
//! The layout is this project's own; little-endian throughout.
//!
//! | bytes | field | in a command | otherwise |
//! |---|---|---|---|
//! | 0 | kind | 1 | see [`Kind`] |
//! | 1 | code | the client's [`Role`] | a reason, or 0 |
//! | 2-3 | client | who sent it | whom it concerns; 0: nobody in particular |
//! | 4-7 | term | which term of a sequencer wrote it | the same |
//! | 8-15 | reference | the client's own sequence number | see [`Kind`] |
//! | 16-23 | sent | when the client sent it, Unix ns by the client's clock | 0 |
//! | 24-31 | time | sequenced time, Unix ns | the same |
//!
//! Sequenced time never runs back, and is the only time that an application may know.

use std::fmt;

use thiserror::Error;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the stamp in front of each payload.
pub const STAMP_BYTES: usize = 32;

/// Who sends commands: the number of a client stream, 1 to 65,535. 0 is the sequencer itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u16);

impl ClientId {
    /// The sequencer; in commands that name a client, all clients.
    pub const NONE: Self = Self(0);
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A client's command. Its reference is the client's own sequence number.
    Command = 1,
    /// What the application answered. Its reference is the sequence number of the record that
    /// caused it.
    Event = 2,
    /// A command that was not sequenced. Its code is a [`Refusal`], its reference the client's own
    /// sequence number; after [`Refusal::Gap`], the number that is wanted next.
    Refused = 3,
    /// Time passes.
    Time = 4,
    /// A client was heard of. Its reference is the last of its numbers that has been used up; in
    /// place of when it was sent stands which run of the client is in force, by its hello's time.
    Connected = 5,
    /// A client is gone. Its code is a [`Leaving`].
    Disconnected = 6,
    /// A sequencer begins to write. Its reference is the version of this layout.
    Term = 7,
    /// A hash of the application's state in front of this record is its reference.
    Checkpoint = 8,
}

impl Kind {
    #[inline]
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Command,
            2 => Self::Event,
            3 => Self::Refused,
            4 => Self::Time,
            5 => Self::Connected,
            6 => Self::Disconnected,
            7 => Self::Term,
            8 => Self::Checkpoint,
            _ => return None,
        })
    }
}

/// What a client may do. The sequencer writes it into each of the client's commands, so that an
/// application need not be told otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Role {
    /// Sends orders.
    #[default]
    Trader = 0,
    /// Defines instruments, sets limits, stops trading.
    Operator = 1,
    /// Brings what a venue reports.
    Gateway = 2,
}

impl Role {
    /// The role of a record's code; `None` if it is none.
    pub fn of(code: u8) -> Option<Self> {
        [Self::Trader, Self::Operator, Self::Gateway].into_iter().find(|&r| r as u8 == code)
    }
}

/// Why a command was not sequenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// More commands than the client may send.
    #[error("more commands than the client's rate allows")]
    Rate = 1,
    /// Commands are missing in front of it: they have to be sent again.
    #[error("commands are missing in front of it: send them again")]
    Gap = 2,
    /// No frame of a client, or of another version.
    #[error("no frame of a client, or of another version")]
    Malformed = 3,
    /// The frame names another client than the one whose stream it came by.
    #[error("it names another client than the stream's own")]
    WrongClient = 4,
    /// More bytes than a record takes.
    #[error("longer than a record may be")]
    TooLong = 5,
    /// The client's ring belongs to another user, whose id is the record's reference.
    #[error("the client's ring belongs to another user")]
    WrongOwner = 6,
}

impl Refusal {
    /// Whether the client's number is used up all the same.
    pub fn uses_up(self) -> bool {
        matches!(self, Self::Rate | Self::TooLong)
    }

    /// The refusal of a record's code; `None` if it is none.
    pub fn of(code: u8) -> Option<Self> {
        const ALL: [Refusal; 6] = [
            Refusal::Rate,
            Refusal::Gap,
            Refusal::Malformed,
            Refusal::WrongClient,
            Refusal::TooLong,
            Refusal::WrongOwner,
        ];
        ALL.into_iter().find(|&refusal| refusal as u8 == code)
    }
}

/// Why a client counts as gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum Leaving {
    /// It said good-bye, or closed its stream.
    #[error("it took its leave")]
    Closed = 1,
    /// Its process died: the kernel dropped its lease.
    #[error("its process died")]
    Died = 2,
    /// It was not heard of for too long.
    #[error("it was not heard of for too long")]
    Silent = 3,
    /// Its stream cannot be read.
    #[error("its stream cannot be read")]
    Unreadable = 4,
}

impl Leaving {
    /// The reason of a record's code; `None` if it is none.
    pub fn of(code: u8) -> Option<Self> {
        [Self::Closed, Self::Died, Self::Silent, Self::Unreadable]
            .into_iter()
            .find(|&leaving| leaving as u8 == code)
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Stamp {
    kind: u8,
    code: u8,
    client: U16,
    term: U32,
    reference: U64,
    sent_ns: U64,
    time_ns: U64,
}

const _: () = assert!(size_of::<Stamp>() == STAMP_BYTES);

/// One record, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its place in the stream, 1 the first.
    pub sequence: u64,
    /// What it is.
    pub kind: Kind,
    /// A role, a refusal, a leaving, or 0: see [`Kind`].
    pub code: u8,
    /// Whose it is, or whom it concerns.
    pub client: ClientId,
    /// The term of the sequencer that wrote it, 1 the first.
    pub term: u32,
    /// A number that depends on the kind: see [`Kind`].
    pub reference: u64,
    /// When the client sent it, Unix ns by the client's own clock; 0 if nobody did.
    pub sent_ns: u64,
    /// Sequenced time, Unix ns.
    pub time_ns: u64,
    /// Of a command or an event, the application's bytes.
    pub payload: &'a [u8],
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// Shorter than a stamp.
    #[error("message {sequence} of {bytes} bytes is no record: a stamp alone has 32")]
    Short {
        /// Its sequence number.
        sequence: u64,
        /// Its length.
        bytes: usize,
    },
    /// A kind that this version does not know.
    #[error("message {sequence} is a record of kind {kind}, which this version does not know")]
    Kind {
        /// Its sequence number.
        sequence: u64,
        /// Its kind.
        kind: u8,
    },
}

impl<'a> Record<'a> {
    /// Reads message `sequence` of a sequenced stream.
    ///
    /// # Errors
    /// If it is too short, or of an unknown kind.
    #[inline]
    pub fn read(sequence: u64, message: &'a [u8]) -> Result<Self, RecordError> {
        let Ok((stamp, payload)) = Stamp::ref_from_prefix(message) else {
            return Err(RecordError::Short { sequence, bytes: message.len() });
        };
        let Some(kind) = Kind::of(stamp.kind) else {
            return Err(RecordError::Kind { sequence, kind: stamp.kind });
        };
        Ok(Self {
            sequence,
            kind,
            code: stamp.code,
            client: ClientId(stamp.client.get()),
            term: stamp.term.get(),
            reference: stamp.reference.get(),
            sent_ns: stamp.sent_ns.get(),
            time_ns: stamp.time_ns.get(),
            payload,
        })
    }

    /// The stamp that goes in front of the payload. The sequence number is not part of it: the
    /// stream numbers its messages itself.
    #[inline]
    pub fn stamp(&self) -> [u8; STAMP_BYTES] {
        let stamp = Stamp {
            kind: self.kind as u8,
            code: self.code,
            client: U16::new(self.client.0),
            term: U32::new(self.term),
            reference: U64::new(self.reference),
            sent_ns: U64::new(self.sent_ns),
            time_ns: U64::new(self.time_ns),
        };
        zerocopy::transmute!(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let record = Record {
            sequence: 77,
            kind: Kind::Command,
            code: Role::Operator as u8,
            client: ClientId(0x0201),
            term: 0x0605_0403,
            reference: 0x0E0D_0C0B_0A09_0807,
            sent_ns: 0x1615_1413_1211_100F,
            time_ns: 0x1E1D_1C1B_1A19_1817,
            payload: b"pay",
        };
        let mut message: Vec<u8> = vec![1, 1];
        message.extend(1..=0x1E);
        assert_eq!(record.stamp(), message[..]);
        message.extend(b"pay");
        assert_eq!(Record::read(77, &message), Ok(record));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let short = RecordError::Short { sequence: 5, bytes: 31 };
        assert_eq!(Record::read(5, &[1; 31]), Err(short));
        for kind in [0, 9, 255] {
            assert_eq!(Record::read(5, &[kind; 32]), Err(RecordError::Kind { sequence: 5, kind }));
        }
    }

    #[test]
    fn codes_are_read_back() {
        for code in 0..=255 {
            assert!(Kind::of(code).is_none_or(|kind| kind as u8 == code));
            assert!(Role::of(code).is_none_or(|role| role as u8 == code));
            assert!(Refusal::of(code).is_none_or(|refusal| refusal as u8 == code));
            assert!(Leaving::of(code).is_none_or(|leaving| leaving as u8 == code));
        }
        assert_eq!((Kind::of(8), Kind::of(9)), (Some(Kind::Checkpoint), None));
        assert_eq!((Role::of(2), Role::of(3)), (Some(Role::Gateway), None));
        assert_eq!((Refusal::of(6), Refusal::of(7)), (Some(Refusal::WrongOwner), None));
        assert_eq!((Leaving::of(4), Leaving::of(5)), (Some(Leaving::Unreadable), None));
    }
}
