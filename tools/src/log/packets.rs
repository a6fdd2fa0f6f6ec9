//! A capture of a log's messages, as if it had been sent: MoldUDP64 packets in UDP, IPv4 and
//! Ethernet, each at the time at which its messages were recorded.
//!
//! Messages share a packet if they have the very same time, are next to each other and fit an
//! ordinary frame; so the capture has every message's time, to the nanosecond.

use std::io::{self, Write};
use std::net::SocketAddrV4;

use anyhow::{Context, bail};
use etherparse::PacketBuilder;
use gapless::protocol::mold::{BLOCK_HEADER_BYTES, COUNT_MAX, HEADER_BYTES};
use gapless::protocol::{Header, Session};

/// Payload of a datagram that fits a frame of 1,500 bytes.
const PAYLOAD_BYTES: usize = 1472;
/// Longest message that one datagram can carry.
const MESSAGE_BYTES_MAX: usize = 65_535 - 20 - 8 - HEADER_BYTES - BLOCK_HEADER_BYTES;
/// Hops that a packet may make.
const TTL: u8 = 16;
const MAC_FROM: [u8; 6] = [2, 0, 0, 0, 0, 1];
const MAC_TO: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// First bytes of a capture with times in nanoseconds; version 2.4, frames of Ethernet.
const FILE_HEADER: [u32; 6] = [0xa1b2_3c4d, 4 << 16 | 2, 0, 0, 0x40000, 1];

/// Writes a capture.
pub(super) struct PacketWriter<W> {
    out: W,
    from: SocketAddrV4,
    to: SocketAddrV4,
    session: u64,
    first: u64,
    count: u16,
    unix_ns: u64,
    packet: Vec<u8>,
    frame: Vec<u8>,
}

impl<W: Write> PacketWriter<W> {
    /// Begins a capture of packets that went from `from` to `to`.
    pub(super) fn new(mut out: W, from: SocketAddrV4, to: SocketAddrV4) -> io::Result<Self> {
        for word in FILE_HEADER {
            out.write_all(&word.to_le_bytes())?;
        }
        let (session, first, count, unix_ns) = (0, 0, 0, 0);
        let (packet, frame) = (Vec::new(), Vec::new());
        Ok(Self { out, from, to, session, first, count, unix_ns, packet, frame })
    }

    /// Adds a message.
    pub(super) fn add(
        &mut self,
        session: u64,
        sequence: u64,
        message: &[u8],
        unix_ns: u64,
    ) -> anyhow::Result<()> {
        if message.len() > MESSAGE_BYTES_MAX {
            let len = message.len();
            bail!("message {sequence} has {len} bytes: a datagram holds {MESSAGE_BYTES_MAX}");
        }
        let goes_along = session == self.session
            && unix_ns == self.unix_ns
            && sequence == self.first + u64::from(self.count)
            && self.count < COUNT_MAX
            && self.packet.len() + BLOCK_HEADER_BYTES + message.len() <= PAYLOAD_BYTES;
        if self.count == 0 || !goes_along {
            self.flush()?;
            self.packet.resize(HEADER_BYTES, 0);
            (self.session, self.first, self.unix_ns) = (session, sequence, unix_ns);
        }
        self.packet.extend((message.len() as u16).to_be_bytes());
        self.packet.extend(message);
        self.count += 1;
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let session = Session::from_number(self.session);
        let header = Header { session, sequence: self.first, count: self.count };
        self.packet[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
        let to = self.to.ip().octets();
        // A group has the Ethernet address that its own low 23 bits make.
        let mac = match self.to.ip().is_multicast() {
            true => [1, 0, 0x5e, to[1] & 0x7f, to[2], to[3]],
            false => MAC_TO,
        };
        let builder = PacketBuilder::ethernet2(MAC_FROM, mac)
            .ipv4(self.from.ip().octets(), to, TTL)
            .udp(self.from.port(), self.to.port());
        self.frame.clear();
        builder.write(&mut self.frame, &self.packet).context("make a packet")?;
        let seconds = u32::try_from(self.unix_ns / 1_000_000_000);
        let seconds = seconds.context("a capture ends in 2106")?;
        let (ns, len) = ((self.unix_ns % 1_000_000_000) as u32, self.frame.len() as u32);
        for word in [seconds, ns, len, len] {
            self.out.write_all(&word.to_le_bytes())?;
        }
        self.out.write_all(&self.frame)?;
        self.packet.clear();
        self.count = 0;
        Ok(())
    }

    /// Writes what is left.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.flush()?;
        Ok(self.out.flush()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_one_time_share_a_packet_as_far_as_they_fit() {
        let (from, to) = ("10.0.0.1:5", "239.1.2.3:6");
        let (from, to) = (from.parse().expect("a place"), to.parse().expect("a place"));
        let mut file = Vec::new();
        let mut writer = PacketWriter::new(&mut file, from, to).expect("begun");
        let long = [7; 1000];
        for (sequence, message, unix_ns) in [
            (1, &b"a"[..], 5),
            (2, b"b", 5),
            (3, b"c", 6),
            (5, b"d", 6),
            (6, &long, 6),
            (7, &long, 6),
        ] {
            writer.add(35, sequence, message, unix_ns).expect("added");
        }
        let error = writer.add(35, 8, &[0; 65_486], 6).expect_err("too long");
        assert!(error.to_string().contains("65486 bytes"), "{error}");
        writer.finish().expect("written");
        let (mut rest, mut packets) = (&file[24..], Vec::new());
        while !rest.is_empty() {
            let len = u32::from_le_bytes(rest[8..12].try_into().expect("four")) as usize;
            let (frame, behind) = rest[16..].split_at(len);
            let packet = gapless::protocol::Packet::read(&frame[42..]).expect("a packet");
            packets.push((packet.header.sequence, packet.header.count, frame.len()));
            assert_eq!(frame[..6], [1, 0, 0x5e, 1, 2, 3]);
            rest = behind;
        }
        assert_eq!(packets, [(1, 2, 68), (3, 1, 65), (5, 2, 67 + 1000), (7, 1, 64 + 1000)]);
    }
}
