//! Bulk catch-up, version 1: a log, or what is left of it from some message on, over TCP.
//!
//! The client says once what it wants; from then on only the server speaks. It sends the blocks of
//! the log as they stand in the segments, so that nothing is encoded again and a checksum made by
//! the recorder is checked by the client, and between them frames of its own: where it begins, what
//! is not in the log, and how far the client is. It goes on with what is recorded meanwhile, until
//! the client closes the connection. TCP's own flow control is the only one: a client that does not
//! read is not sent anything.
//!
//! All numbers are little-endian; checksums are CRC-32C.
//!
//! | offset | bytes | hello, by the client |
//! |---|---|---|
//! | 0 | 8 | magic `GAPBLK`, 0x1A, 0x0A |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | zero |
//! | 16 | 8 | session; all ones: the newest that the server has |
//! | 24 | 8 | sequence of the first message wanted; 0: the oldest there is |
//! | 32 | 4 | zero |
//! | 36 | 4 | checksum of what is in front of it |
//!
//! The server answers with frames and blocks in any order, but for the first, which is a welcome or
//! a refusal. A block begins with its checksum and `GBLK` and is described with the [log](super). A
//! frame is told from it by its second word:
//!
//! | offset | bytes | frame |
//! |---|---|---|
//! | 0 | 4 | checksum of the rest of the frame |
//! | 4 | 4 | magic `GREW` |
//! | 8 | 4 | length of the frame, bytes: 64, a welcome 192 |
//! | 12 | 4 | kind |
//! | 16 | 8 | session |
//! | 24 | 8 | first |
//! | 32 | 8 | end |
//! | 40 | 8 | oldest sequence of the session that the server has |
//! | 48 | 4 | code |
//! | 52 | 4 | version, 1 |
//! | 56 | 8 | zero |
//! | 64 | 128 | of a welcome: name of the stream, UTF-8, zero padded |
//!
//! | kind | | first | end | code |
//! |---|---|---|---|---|
//! | 1 | welcome | sequence of the first message that will come | behind the newest message | 1: messages carry envelopes |
//! | 2 | status: everything was sent. At once when it was, then every second | | behind the newest message | |
//! | 3 | gone: these messages are not in the log | first of them | behind the last | 0 never recorded, 1 damaged |
//! | 4 | session: the log goes on with another one | its first message | | |
//! | 5 | refusal, the last frame | what was asked for | | 1 session unknown, 2 gone with the oldest, 3 too many clients, 4 version, 5 the log cannot be read |
//!
//! The first block may begin in front of what is wanted: the client passes over that. Every other
//! block, and everything gone, begins where the one before ended.

use super::format::{NAME_BYTES, crc, put, u32_at, u64_at};

/// First bytes of a hello.
pub const HELLO_MAGIC: [u8; 8] = *b"GAPBLK\x1a\n";
/// The second word of a frame.
pub const FRAME_MAGIC: [u8; 4] = *b"GREW";
/// Version of everything this module describes.
pub const VERSION: u32 = 1;
/// Bytes of a hello.
pub const HELLO_BYTES: usize = 40;
/// Bytes of a frame, but a welcome.
pub const FRAME_BYTES: usize = 64;
/// Bytes of a welcome.
pub const WELCOME_BYTES: usize = FRAME_BYTES + NAME_BYTES;
/// The session of a hello that wants the newest.
pub const NEWEST: u64 = u64::MAX;

/// What a client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The session; `None`: the newest.
    pub session: Option<u64>,
    /// Sequence of the first message wanted; 0: the oldest there is.
    pub from: u64,
}

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BulkError {
    /// Not of this protocol, or changed on the way.
    #[error("this is not the bulk protocol, or was damaged on the way")]
    Foreign,
    /// Of another version.
    #[error("version {found} of the bulk protocol; this build speaks {VERSION}")]
    Version {
        /// The version found.
        found: u32,
    },
}

impl Hello {
    /// The hello as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HELLO_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        put(&mut bytes, 0, &HELLO_MAGIC);
        put(&mut bytes, 8, &VERSION.to_le_bytes());
        put(&mut bytes, 16, &self.session.unwrap_or(NEWEST).to_le_bytes());
        put(&mut bytes, 24, &self.from.to_le_bytes());
        let sum = crc(&bytes[..HELLO_BYTES - 4]);
        put(&mut bytes, HELLO_BYTES - 4, &sum.to_le_bytes());
        bytes
    }

    /// Reads a hello.
    ///
    /// # Errors
    /// [`BulkError`] says why the bytes are none.
    pub fn read(bytes: &[u8; HELLO_BYTES]) -> Result<Self, BulkError> {
        let word = |at| u32_at(bytes, at).unwrap_or_default();
        let long = |at| u64_at(bytes, at).unwrap_or_default();
        if bytes[..8] != HELLO_MAGIC {
            return Err(BulkError::Foreign);
        }
        if word(8) != VERSION {
            return Err(BulkError::Version { found: word(8) });
        }
        if word(HELLO_BYTES - 4) != crc(&bytes[..HELLO_BYTES - 4]) {
            return Err(BulkError::Foreign);
        }
        let session = Some(long(16)).filter(|&session| session != NEWEST);
        Ok(Self { session, from: long(24) })
    }
}

/// Why a client is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// None of the server's logs has the session.
    SessionUnknown,
    /// The log does not go back so far any more.
    SequenceGone,
    /// The server has as many clients as it takes.
    Busy,
    /// The server speaks another version.
    Version,
    /// The server's log cannot be read.
    Unreadable,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::SessionUnknown => "it has nothing of that session",
            Self::SequenceGone => "its log does not go back so far",
            Self::Busy => "it has as many clients as it takes",
            Self::Version => "it speaks another version",
            Self::Unreadable => "its log cannot be read",
        })
    }
}

const REFUSALS: [Refusal; 5] = [
    Refusal::SessionUnknown,
    Refusal::SequenceGone,
    Refusal::Busy,
    Refusal::Version,
    Refusal::Unreadable,
];

/// What a server says between blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The session that it is about.
    pub session: u64,
    /// Oldest sequence of the session that the server has.
    pub oldest: u64,
    /// What it says.
    pub word: Word,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// Blocks will follow.
    Welcome {
        /// Sequence of the first message that will come.
        first: u64,
        /// Behind the newest message.
        next: u64,
        /// Whether messages carry envelopes.
        enveloped: bool,
        /// Name of the stream.
        name: String,
    },
    /// Everything up to here was sent.
    Status {
        /// Behind the newest message.
        next: u64,
    },
    /// These are not in the log.
    Gone {
        /// The first of them.
        first: u64,
        /// Behind the last.
        end: u64,
        /// Whether they were there, and are damaged.
        damaged: bool,
    },
    /// Another session begins.
    Session {
        /// Its first message.
        first: u64,
    },
    /// Nothing will follow.
    Refusal {
        /// What was asked for.
        wanted: u64,
        /// Why.
        why: Refusal,
    },
}

impl Frame {
    /// Appends the frame's bytes.
    pub fn write(&self, to: &mut Vec<u8>) {
        let (kind, first, end, code): (u32, u64, u64, u32) = match &self.word {
            Word::Welcome { first, next, enveloped, .. } => (1, *first, *next, (*enveloped).into()),
            Word::Status { next } => (2, 0, *next, 0),
            Word::Gone { first, end, damaged } => (3, *first, *end, (*damaged).into()),
            Word::Session { first } => (4, *first, 0, 0),
            Word::Refusal { wanted, why } => {
                let code = REFUSALS.iter().position(|known| known == why).unwrap_or_default() + 1;
                (5, *wanted, 0, code as u32)
            }
        };
        let is_welcome = matches!(self.word, Word::Welcome { .. });
        let length = if is_welcome { WELCOME_BYTES } else { FRAME_BYTES };
        let start = to.len();
        to.resize(start + length, 0);
        let frame = &mut to[start..];
        put(frame, 4, &FRAME_MAGIC);
        put(frame, 8, &(length as u32).to_le_bytes());
        put(frame, 12, &kind.to_le_bytes());
        put(frame, 16, &self.session.to_le_bytes());
        put(frame, 24, &first.to_le_bytes());
        put(frame, 32, &end.to_le_bytes());
        put(frame, 40, &self.oldest.to_le_bytes());
        put(frame, 48, &code.to_le_bytes());
        put(frame, 52, &VERSION.to_le_bytes());
        if let Word::Welcome { name, .. } = &self.word {
            let end = name.floor_char_boundary(NAME_BYTES);
            put(frame, FRAME_BYTES, &name.as_bytes()[..end]);
        }
        let sum = crc(&frame[4..]);
        put(frame, 0, &sum.to_le_bytes());
    }

    /// Reads the frame at the start of `bytes`: it, and its length. `None` if it is not there in
    /// full yet.
    ///
    /// # Errors
    /// [`BulkError`] says why there is none.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, BulkError> {
        let Some(head) = bytes.first_chunk::<FRAME_BYTES>() else { return Ok(None) };
        let word = |at| u32_at(head, at).unwrap_or_default();
        let long = |at| u64_at(head, at).unwrap_or_default();
        let kind = word(12);
        let length = if kind == 1 { WELCOME_BYTES } else { FRAME_BYTES };
        if head[4..8] != FRAME_MAGIC {
            return Err(BulkError::Foreign);
        }
        if word(52) != VERSION {
            return Err(BulkError::Version { found: word(52) });
        }
        if word(8) as usize != length {
            return Err(BulkError::Foreign);
        }
        let Some(frame) = bytes.get(..length) else { return Ok(None) };
        if word(0) != crc(&frame[4..]) {
            return Err(BulkError::Foreign);
        }
        let (first, end, code) = (long(24), long(32), word(48));
        let word = match kind {
            1 => {
                let name = frame[FRAME_BYTES..].split(|&byte| byte == 0).next();
                let name = str::from_utf8(name.unwrap_or_default());
                let name = name.map_err(|_| BulkError::Foreign)?.to_owned();
                Word::Welcome { first, next: end, enveloped: code & 1 != 0, name }
            }
            2 => Word::Status { next: end },
            3 if first < end => Word::Gone { first, end, damaged: code == 1 },
            4 => Word::Session { first },
            5 => {
                let why = (code as usize).checked_sub(1).and_then(|code| REFUSALS.get(code));
                Word::Refusal { wanted: first, why: *why.ok_or(BulkError::Foreign)? }
            }
            _ => return Err(BulkError::Foreign),
        };
        Ok(Some((Self { session: long(16), oldest: long(40), word }, length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Vec<Word> {
        let name = "orders".to_owned();
        let mut words = vec![
            Word::Welcome { first: 5, next: 9, enveloped: true, name },
            Word::Status { next: 9 },
            Word::Gone { first: 5, end: 7, damaged: true },
            Word::Gone { first: 5, end: 6, damaged: false },
            Word::Session { first: 1 },
        ];
        words.extend(REFUSALS.map(|why| Word::Refusal { wanted: 4, why }));
        words
    }

    #[test]
    fn a_hello_is_as_documented() {
        let hello = Hello { session: Some(35), from: 7 };
        let bytes = hello.to_bytes();
        assert_eq!(bytes[..16], *b"GAPBLK\x1a\n\x01\0\0\0\0\0\0\0");
        assert_eq!(bytes[16..36], *b"\x23\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(bytes[36..], crc(&bytes[..36]).to_le_bytes());
        assert_eq!(Hello::read(&bytes), Ok(hello));
        let newest = Hello { session: None, from: 0 };
        assert_eq!(Hello::read(&newest.to_bytes()), Ok(newest));
        for at in 0..bytes.len() {
            let mut bad = bytes;
            bad[at] ^= 2;
            assert!(Hello::read(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn frames_come_back_as_they_were_and_never_changed() {
        for word in words() {
            let frame = Frame { session: 35, oldest: 3, word };
            let mut bytes = Vec::new();
            frame.write(&mut bytes);
            let length = bytes.len();
            assert_eq!(Frame::read(&bytes), Ok(Some((frame.clone(), length))));
            assert_eq!(Frame::read(&bytes[..length - 1]), Ok(None));
            for at in 0..length {
                let mut bad = bytes.clone();
                bad[at] ^= 0x40;
                assert!(!matches!(Frame::read(&bad), Ok(Some(_))), "byte {at} of {frame:?}");
            }
        }
    }

    #[test]
    fn a_frame_is_as_documented() {
        let mut bytes = Vec::new();
        let word = Word::Gone { first: 5, end: 7, damaged: true };
        Frame { session: 35, oldest: 3, word }.write(&mut bytes);
        assert_eq!(bytes[..4], crc(&bytes[4..]).to_le_bytes());
        assert_eq!(bytes[4..16], *b"GREW\x40\0\0\0\x03\0\0\0");
        let words = [35_u64, 5, 7, 3].map(u64::to_le_bytes).concat();
        assert_eq!(bytes[16..48], words);
        assert_eq!(bytes[48..], *b"\x01\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0");
    }
}
