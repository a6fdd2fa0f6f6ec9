//! What a client writes into its own stream: frames, each a head of 32 bytes and a payload.
//!
//! The layout is this project's own; little-endian throughout.
//!
//! | bytes | field |
//! |---|---|
//! | 0 | version of this layout, 1 |
//! | 1 | kind: 1 command, 2 heartbeat, 3 hello, 4 good-bye |
//! | 2-3 | the client |
//! | 4-7 | 0 |
//! | 8-15 | the client's run: when it said hello, Unix ns by its clock; later runs have larger ones |
//! | 16-23 | of a command, the client's own sequence number, 1 the first; else the last one used |
//! | 24-31 | when it was sent, Unix ns by the client's clock |
//!
//! A run that has said hello shuts out those before it: what they left in the stream and nobody
//! had sequenced is not sequenced any more, as the client will use its numbers anew.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::record::{ClientId, Refusal};

/// Bytes in front of each command's payload.
pub(crate) const FRAME_HEAD_BYTES: usize = 32;

const VERSION: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// To be sequenced.
    Command = 1,
    /// The client lives.
    Heartbeat = 2,
    /// The client begins, and wants to be told how far it had come.
    Hello = 3,
    /// The client ends.
    Goodbye = 4,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Head {
    version: u8,
    kind: u8,
    client: U16,
    reserved: U32,
    run: U64,
    sequence: U64,
    sent_ns: U64,
}

const _: () = assert!(size_of::<Head>() == FRAME_HEAD_BYTES);

/// One frame, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) client: ClientId,
    pub(crate) run: u64,
    pub(crate) sequence: u64,
    pub(crate) sent_ns: u64,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a message of a client's stream.
    #[inline]
    pub(crate) fn read(message: &'a [u8]) -> Result<Self, Refusal> {
        let Ok((head, payload)) = Head::ref_from_prefix(message) else {
            return Err(Refusal::Malformed);
        };
        let kind = match head.kind {
            1 => FrameKind::Command,
            2 => FrameKind::Heartbeat,
            3 => FrameKind::Hello,
            4 => FrameKind::Goodbye,
            _ => return Err(Refusal::Malformed),
        };
        if head.version != VERSION {
            return Err(Refusal::Malformed);
        }
        Ok(Self {
            kind,
            client: ClientId(head.client.get()),
            run: head.run.get(),
            sequence: head.sequence.get(),
            sent_ns: head.sent_ns.get(),
            payload,
        })
    }

    /// What goes in front of the payload.
    #[inline]
    pub(crate) fn head(&self) -> [u8; FRAME_HEAD_BYTES] {
        let head = Head {
            version: VERSION,
            kind: self.kind as u8,
            client: U16::new(self.client.0),
            reserved: U32::ZERO,
            run: U64::new(self.run),
            sequence: U64::new(self.sequence),
            sent_ns: U64::new(self.sent_ns),
        };
        zerocopy::transmute!(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let frame = Frame {
            kind: FrameKind::Hello,
            client: ClientId(0x0201),
            run: 0x0A09_0807_0605_0403,
            sequence: 0x1211_100F_0E0D_0C0B,
            sent_ns: 0x1A19_1817_1615_1413,
            payload: b"x",
        };
        let mut message: Vec<u8> = vec![1, 3, 1, 2, 0, 0, 0, 0];
        message.extend(3..=0x1A);
        assert_eq!(frame.head(), message[..]);
        message.push(b'x');
        assert_eq!(Frame::read(&message), Ok(frame));
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let mut bytes = [0; 32];
        (bytes[0], bytes[1]) = (1, 1);
        assert!(Frame::read(&bytes).is_ok());
        assert_eq!(Frame::read(&bytes[..31]), Err(Refusal::Malformed));
        for (version, kind) in [(0, 1), (2, 1), (1, 0), (1, 5)] {
            (bytes[0], bytes[1]) = (version, kind);
            assert_eq!(Frame::read(&bytes), Err(Refusal::Malformed));
        }
    }
}
