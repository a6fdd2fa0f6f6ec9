//! MoldUDP64 1.00 (Nasdaq): the packets that sequenced data travels in. Strict out, lenient in.
//!
//! ```text
//!  0        10          18      20
//! +---------+-----------+-------+--------+---------+--------+---------+--
//! | session | sequence  | count | length | message | length | message | ...     all big-endian
//! +---------+-----------+-------+--------+---------+--------+---------+--
//! ```
//!
//! `sequence` is the first message's; the others are numbered by position. A count of 0 is a
//! heartbeat and 0xFFFF the end of the session: both carry the next sequence and no message. The
//! same 20 bytes sent to a request server ask for `count` messages from `sequence` on.
//!
//! Nothing is written behind the last block; what others leave there is ignored. Zero-length
//! messages are legal. A packet whose count runs over its end yields the blocks that are whole.

use std::fmt;

use thiserror::Error;

/// Bytes in front of the first block.
pub const HEADER_BYTES: usize = 20;
/// Bytes in front of each message.
pub const BLOCK_HEADER_BYTES: usize = 2;
/// Count of a heartbeat.
pub const HEARTBEAT: u16 = 0;
/// Count that ends a session.
pub const END_OF_SESSION: u16 = 0xffff;
/// Most messages in one packet.
pub const COUNT_MAX: u16 = 0xfffe;

/// The ten bytes that name a session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Session(pub [u8; 10]);

impl Session {
    /// A session by its number, which is below 36^10, as ten characters of base 36: a ring's
    /// session on the wire.
    ///
    /// ```
    /// use gapless::protocol::Session;
    /// assert_eq!(Session::from_number(35).to_string(), "000000000Z");
    /// assert_eq!(Session(*b"000000000Z").number(), Some(35));
    /// ```
    pub fn from_number(number: u64) -> Self {
        let mut session = [b'0'; 10];
        session.copy_from_slice(gapless_shm::session_text(number).as_bytes());
        Self(session)
    }

    /// The number, if this is one: then a later session of the same host has a higher one.
    pub fn number(self) -> Option<u64> {
        self.0.iter().try_fold(0_u64, |number, &byte| {
            let digit = match byte {
                b'0'..=b'9' => byte - b'0',
                b'A'..=b'Z' => byte - b'A' + 10,
                _ => return None,
            };
            Some(number * 36 + u64::from(digit))
        })
    }
}

impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({self})")
    }
}

/// The first 20 bytes of every packet and all of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The session.
    pub session: Session,
    /// Sequence of the first message, or the next one if there is none.
    pub sequence: u64,
    /// How many messages follow, or [`HEARTBEAT`], or [`END_OF_SESSION`].
    pub count: u16,
}

/// Bytes that are no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PacketError {
    /// Too short for a header.
    #[error("{len} bytes are no MoldUDP64 packet: its header alone has {HEADER_BYTES}")]
    Short {
        /// How many bytes there were.
        len: usize,
    },
    /// The numbers of its messages would pass the largest sequence.
    #[error("{count} messages from {sequence} on pass the largest sequence number")]
    SequenceOverflow {
        /// Sequence of the first message.
        sequence: u64,
        /// How many messages follow.
        count: u16,
    },
}

impl Header {
    /// Writes the header to the front of a packet.
    #[inline(always)]
    pub fn write(&self, packet: &mut [u8; HEADER_BYTES]) {
        packet[..10].copy_from_slice(&self.session.0);
        packet[10..18].copy_from_slice(&self.sequence.to_be_bytes());
        packet[18..].copy_from_slice(&self.count.to_be_bytes());
    }

    /// The header as bytes: a heartbeat, an end of session, or a request.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        self.write(&mut bytes);
        bytes
    }

    /// Reads the header at the front of a packet or a request. Any 20 bytes are one.
    #[inline(always)]
    pub fn read(packet: &[u8]) -> Result<Self, PacketError> {
        let Some(header) = packet.first_chunk::<HEADER_BYTES>() else {
            return Err(PacketError::Short { len: packet.len() });
        };
        let [session @ .., _, _, _, _, _, _, _, _, _, _] = header;
        let mut sequence = [0; 8];
        sequence.copy_from_slice(&header[10..18]);
        Ok(Self {
            session: Session(*session),
            sequence: u64::from_be_bytes(sequence),
            count: u16::from_be_bytes([header[18], header[19]]),
        })
    }

    /// How many messages the packet says it has.
    #[inline(always)]
    pub fn messages(&self) -> u16 {
        if self.count == END_OF_SESSION { 0 } else { self.count }
    }
}

/// A downstream packet, read in place.
///
/// ```
/// use gapless::protocol::{Header, Packet, Session};
/// let session = Session(*b"EXAMPLE   ");
/// let mut bytes = Header { session, sequence: 7, count: 2 }.to_bytes().to_vec();
/// bytes.extend(b"\0\x03one\0\x03two");
/// let packet = Packet::read(&bytes)?;
/// let messages: Vec<_> = packet.messages().collect();
/// assert_eq!(messages, [(7, &b"one"[..]), (8, &b"two"[..])]);
/// # Ok::<(), gapless::protocol::PacketError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub blocks: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads the header; the blocks are looked at one by one as they are taken.
    ///
    /// # Errors
    /// [`PacketError`] says why the bytes are no packet.
    #[inline(always)]
    pub fn read(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let header = Header::read(bytes)?;
        let Header { sequence, count, .. } = header;
        if sequence.checked_add(header.messages().into()).is_none() {
            return Err(PacketError::SequenceOverflow { sequence, count });
        }
        Ok(Self { header, blocks: &bytes[HEADER_BYTES..] })
    }

    /// The messages with their sequence numbers.
    #[inline(always)]
    pub fn messages(&self) -> Messages<'a> {
        Messages {
            blocks: self.blocks,
            sequence: self.header.sequence,
            left: self.header.messages(),
        }
    }
}

/// The messages of a packet: ends behind the last whole one.
#[derive(Clone, Debug)]
pub struct Messages<'a> {
    blocks: &'a [u8],
    sequence: u64,
    left: u16,
}

impl<'a> Messages<'a> {
    /// Blocks without a header in front: `count` messages from `sequence` on.
    pub(crate) fn of(blocks: &'a [u8], sequence: u64, count: u16) -> Self {
        Self { blocks, sequence, left: count }
    }

    /// Sequence of the next message.
    #[inline(always)]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// How many messages are left by the header's count: not 0 behind the last whole one if the
    /// packet was cut.
    #[inline(always)]
    pub fn left(&self) -> u16 {
        self.left
    }

    /// What has not been taken yet: blocks, and whatever stands behind them.
    #[inline(always)]
    pub fn rest(&self) -> &'a [u8] {
        self.blocks
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = (u64, &'a [u8]);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let (len, rest) = self.blocks.split_first_chunk::<BLOCK_HEADER_BYTES>()?;
        let (message, rest) = rest.split_at_checked(u16::from_be_bytes(*len).into())?;
        let sequence = self.sequence;
        self.blocks = rest;
        self.sequence += 1;
        self.left -= 1;
        Some((sequence, message))
    }
}

/// Appends a block to the packet of which `used` bytes are written; `None` if it does not fit.
/// Returns the bytes used then.
#[inline(always)]
pub fn append(packet: &mut [u8], used: usize, message: &[u8]) -> Option<usize> {
    let len = u16::try_from(message.len()).ok()?;
    let end = used + BLOCK_HEADER_BYTES + message.len();
    let block = packet.get_mut(used..end)?;
    let (header, body) = block.split_first_chunk_mut::<BLOCK_HEADER_BYTES>()?;
    *header = len.to_be_bytes();
    copy(body, message);
    Some(end)
}

/// Copies a message. Those of 16 to 64 bytes, which most are, in two overlapping moves: a call of
/// `memcpy` costs as much as all the rest that packing such a message takes.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
fn copy(to: &mut [u8], from: &[u8]) {
    assert_eq!(to.len(), from.len());
    if from.len() > 64 || !(copy_ends::<32>(to, from) || copy_ends::<16>(to, from)) {
        to.copy_from_slice(from);
    }
}

/// Copies the first and the last `N` bytes: everything, if there are `N` to `2 N`. False if there
/// are fewer.
#[inline(always)]
fn copy_ends<const N: usize>(to: &mut [u8], from: &[u8]) -> bool {
    let (Some(first), Some(last)) = (from.first_chunk::<N>(), from.last_chunk::<N>()) else {
        return false;
    };
    if let Some(place) = to.first_chunk_mut() {
        *place = *first;
    }
    if let Some(place) = to.last_chunk_mut() {
        *place = *last;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Session = Session(*b"0123456789");

    fn packet(sequence: u64, count: u16, blocks: &[u8]) -> Vec<u8> {
        let mut bytes = Header { session: SESSION, sequence, count }.to_bytes().to_vec();
        bytes.extend(blocks);
        bytes
    }

    #[test]
    fn golden_bytes() {
        let bytes = packet(0x0102_0304_0506_0708, 1, b"\0\x02hi");
        let golden = b"0123456789\x01\x02\x03\x04\x05\x06\x07\x08\0\x01\0\x02hi";
        assert_eq!(bytes, golden);
        let mut built = [0; 24];
        Header { session: SESSION, sequence: 0x0102_0304_0506_0708, count: 1 }
            .write(built.first_chunk_mut().unwrap());
        assert_eq!(append(&mut built, HEADER_BYTES, b"hi"), Some(24));
        assert_eq!(&built, golden);
        assert_eq!(append(&mut built, 24, b""), None);
    }

    #[test]
    fn every_length_is_copied_whole() {
        let message: Vec<u8> = (0..=200).collect();
        for len in 0..=message.len() {
            let mut packet = vec![0; len + 2];
            assert_eq!(append(&mut packet, 0, &message[..len]), Some(len + 2));
            assert_eq!(&packet[2..], &message[..len]);
        }
    }

    #[test]
    fn odd_counts() {
        let messages = |bytes: &[u8]| Packet::read(bytes).unwrap().messages().count();
        assert_eq!(messages(&packet(5, HEARTBEAT, b"trailing")), 0);
        assert_eq!(messages(&packet(5, END_OF_SESSION, b"\0\x01x")), 0);
        assert_eq!(messages(&packet(5, 3, b"\0\0\0\0\0\x01xtrailing")), 3);
        assert_eq!(messages(&packet(5, 3, b"\0\x01x\0\x09cut")), 1);
        assert_eq!(messages(&packet(5, 3, b"\0\x01x\0")), 1);
        assert_eq!(messages(&packet(5, COUNT_MAX, b"")), 0);
        let cut = packet(5, 3, b"\0\x01x\0\x09cut");
        let mut rest = Packet::read(&cut).unwrap().messages();
        while rest.next().is_some() {}
        assert_eq!((rest.left(), rest.rest()), (2, &b"\0\x09cut"[..]));
    }

    #[test]
    fn what_is_no_packet() {
        assert_eq!(Packet::read(&[0; 19]).unwrap_err(), PacketError::Short { len: 19 });
        let over = packet(u64::MAX, 1, b"\0\0");
        assert!(matches!(Packet::read(&over), Err(PacketError::SequenceOverflow { .. })));
        assert!(Packet::read(&packet(u64::MAX, END_OF_SESSION, b"")).is_ok());
    }

    #[test]
    fn sessions_are_numbers_if_they_look_so() {
        for number in [0, 1, 35, 36, 36_u64.pow(10) - 1] {
            assert_eq!(Session::from_number(number).number(), Some(number));
        }
        assert_eq!(Session([0; 10]).number(), None);
        assert_eq!(Session([0; 10]).to_string(), "\\x00".repeat(10));
    }
}
