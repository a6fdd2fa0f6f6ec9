//! Captured traffic: the UDP datagrams of a pcap or pcapng file, with the times they were seen.

use std::fs::File;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, bail};
use etherparse::{EtherType, NetSlice, SlicedPacket, TransportSlice};
use pcap_parser::traits::PcapReaderIterator;
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// Holds the longest record of any sane capture: larger ones are refused.
const BUFFER_BYTES: usize = 1 << 20;

/// A capture that is read record by record.
pub(crate) struct Capture {
    reader: Box<dyn PcapReaderIterator + Send>,
    /// Of each interface: what its frames are, ticks of its clock in a second, where that began.
    interfaces: Vec<(Linktype, u64, i64)>,
}

impl Capture {
    pub(crate) fn open(file: File) -> anyhow::Result<Self> {
        let reader = create_reader(BUFFER_BYTES, file).map_err(told).context("read the capture")?;
        Ok(Self { reader, interfaces: Vec::new() })
    }

    /// Hands the next UDP datagram of the capture to `take`, with where it went to and when, ns
    /// since the Unix epoch. Whatever is no whole UDP datagram is passed over. False at the end.
    pub(crate) fn next(
        &mut self,
        mut take: impl FnMut(SocketAddr, &[u8], u64),
    ) -> anyhow::Result<bool> {
        loop {
            let (exhausted, offset) = (self.reader.reader_exhausted(), self.reader.consumed());
            let (consumed, is_datagram) = match self.reader.next() {
                Ok((consumed, block)) => {
                    let found = frame(&block, &mut self.interfaces);
                    let datagram = found.and_then(|(link, frame, at)| {
                        let (to, payload) = datagram(link, frame)?;
                        Some((to, payload, at))
                    });
                    if let Some((to, payload, at)) = &datagram {
                        take(*to, payload, *at);
                    }
                    (consumed, datagram.is_some())
                }
                Err(PcapError::Eof) => return Ok(false),
                Err(PcapError::UnexpectedEof) => {
                    bail!("the capture ends inside the record at byte {offset}")
                }
                Err(PcapError::Incomplete(_)) if exhausted => {
                    bail!("the capture ends inside the record at byte {offset}")
                }
                Err(PcapError::Incomplete(_)) => {
                    self.reader.refill().map_err(told).context("read the capture")?;
                    continue;
                }
                Err(error) => {
                    let place = format!("the capture's record at byte {offset}");
                    return Err(told(error)).context(place);
                }
            };
            self.reader.consume(consumed);
            if is_datagram {
                return Ok(true);
            }
        }
    }
}

/// The error without the bytes that it is about.
fn told(error: PcapError<&[u8]>) -> anyhow::Error {
    match error {
        PcapError::NomError(..) | PcapError::OwnedNomError(..) => {
            anyhow::anyhow!("not what a capture has there")
        }
        PcapError::HeaderNotRecognized => anyhow::anyhow!("neither pcap nor pcapng"),
        PcapError::BufferTooSmall => {
            anyhow::anyhow!("a record longer than {BUFFER_BYTES} bytes")
        }
        error => anyhow::anyhow!("{error}"),
    }
}

/// The frame of a record, what kind it is, and when it was seen; notes what headers say.
fn frame<'a>(
    block: &'a PcapBlockOwned<'_>,
    interfaces: &mut Vec<(Linktype, u64, i64)>,
) -> Option<(Linktype, &'a [u8], u64)> {
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            let resolution =
                if header.is_nanosecond_precision() { 1_000_000_000 } else { 1_000_000 };
            *interfaces = vec![(header.network, resolution, 0)];
            None
        }
        PcapBlockOwned::Legacy(record) => {
            let &(link, resolution, _) = interfaces.first()?;
            let part = u64::from(record.ts_usec) * (1_000_000_000 / resolution);
            let at = u64::from(record.ts_sec) * 1_000_000_000 + part;
            Some((link, record.data.get(..record.caplen as usize)?, at))
        }
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            interfaces.clear();
            None
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(header)) => {
            let resolution = header.ts_resolution().unwrap_or(1_000_000).max(1);
            interfaces.push((header.linktype, resolution, header.ts_offset()));
            None
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(record)) => {
            let &(link, resolution, offset) = interfaces.get(record.if_id as usize)?;
            let ticks = u128::from(record.ts_high) << 32 | u128::from(record.ts_low);
            let ns = ticks * 1_000_000_000 / u128::from(resolution);
            let at = (ns as u64).saturating_add_signed(offset.saturating_mul(1_000_000_000));
            Some((link, record.data.get(..record.caplen as usize)?, at))
        }
        PcapBlockOwned::NG(Block::SimplePacket(record)) => {
            let &(link, ..) = interfaces.first()?;
            Some((link, record.data.get(..record.origlen as usize)?, 0))
        }
        PcapBlockOwned::NG(_) => None,
    }
}

/// Where a frame's datagram went to, and its payload; `None` if it is no whole UDP datagram.
fn datagram(link: Linktype, frame: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let packet = match link {
        Linktype::ETHERNET => SlicedPacket::from_ethernet(frame),
        Linktype::LINUX_SLL => SlicedPacket::from_linux_sll(frame),
        // A loopback header: the address family, in the byte order of whoever captured.
        Linktype::NULL | Linktype::LOOP => SlicedPacket::from_ip(frame.get(4..)?),
        Linktype(276) => {
            let protocol = u16::from_be_bytes([*frame.first()?, *frame.get(1)?]);
            SlicedPacket::from_ether_type(EtherType(protocol), frame.get(20..)?)
        }
        _ => SlicedPacket::from_ip(frame),
    };
    let packet = packet.ok()?;
    let to: IpAddr = match packet.net? {
        NetSlice::Ipv4(ip) => ip.header().destination_addr().into(),
        NetSlice::Ipv6(ip) => ip.header().destination_addr().into(),
        NetSlice::Arp(_) => return None,
    };
    match packet.transport? {
        TransportSlice::Udp(udp) => {
            Some((SocketAddr::new(to, udp.destination_port()), udp.payload()))
        }
        _ => None,
    }
}
