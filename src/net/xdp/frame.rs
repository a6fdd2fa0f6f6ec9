//! Ethernet frames with UDP in them: written from a prebuilt header, and parsed.
//!
//! | written | bytes before the payload |
//! |---|---|
//! | Ethernet, IPv4, UDP | 42 |
//! | Ethernet, 802.1Q, IPv4, UDP | 46 |
//! | Ethernet, IPv6, UDP | 62 |
//! | Ethernet, 802.1Q, IPv6, UDP | 66 |
//!
//! What is parsed has one of these shapes; every length and checksum in it is checked, and no bytes
//! panic. Nothing allocates. Deliberately absent: IP options and extension headers, fragments,
//! 802.1ad and stacked tags (refused when parsed), and any judgement of the addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::checksum::Sum;

/// An Ethernet address.
pub type Mac = [u8; 6];

const ETHERNET: usize = 14;
const TAG: usize = 4;
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;

/// The longest header: Ethernet, 802.1Q, IPv6, UDP.
pub const HEADER_BYTES_MAX: usize = ETHERNET + TAG + IPV6 + UDP;

const TYPE_IPV4: u16 = 0x0800;
const TYPE_IPV6: u16 = 0x86DD;
/// 802.1Q, the customer's tag.
const TYPE_TAG: u16 = 0x8100;
const VLAN_MAX: u16 = 0xFFF;
const DSCP_MAX: u8 = 63;
const PROTOCOL_UDP: u8 = 17;
/// Version 4, five words of header.
const IPV4_PLAIN: u8 = 0x45;
const DONT_FRAGMENT: u16 = 0x4000;
/// "More fragments" and the fragment's offset.
const FRAGMENT: u16 = 0x3FFF;
/// What a sum over data with its checksum folds to.
const SOUND: u16 = 0xFFFF;

/// Everything that a header is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who sends, on this link.
    pub source_mac: Mac,
    /// Who is to receive, on this link: a host, a gateway, or [`group_mac`].
    pub destination_mac: Mac,
    /// The 802.1Q identifier, 0 to 4,095, sent with priority 0. `None` is no tag, 0 a tag without
    /// a VLAN.
    pub vlan: Option<u16>,
    /// Who sends. Of an IPv6 address, flow and scope are not used.
    pub source: SocketAddr,
    /// Who is to receive.
    pub destination: SocketAddr,
    /// Time to live, or hop limit.
    pub hops: u8,
    /// Differentiated services code point, 0 to 63.
    pub dscp: u8,
}

/// A prebuilt header with the checksums as far as the payload does not matter.
#[derive(Clone, Debug)]
pub struct Header {
    bytes: [u8; HEADER_BYTES_MAX],
    len: usize,
    /// Of the IPv4 header, its length and checksum left out; nothing for IPv6.
    ip: Sum,
    /// Of the pseudo-header and the ports; both lengths and the checksum left out.
    udp: Sum,
}

impl Header {
    /// Builds it. `None` if the families of the addresses differ, or `vlan` or `dscp` is beyond its
    /// range.
    #[must_use]
    pub fn new(ends: &Ends) -> Option<Self> {
        if ends.vlan.is_some_and(|id| id > VLAN_MAX) || ends.dscp > DSCP_MAX {
            return None;
        }
        let mut header =
            Self { bytes: [0; HEADER_BYTES_MAX], len: 0, ip: Sum::default(), udp: Sum::default() };
        header.push(&ends.destination_mac);
        header.push(&ends.source_mac);
        if let Some(id) = ends.vlan {
            header.push(&TYPE_TAG.to_be_bytes());
            header.push(&id.to_be_bytes());
        }
        let pseudo = match (ends.source.ip(), ends.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header.push(&TYPE_IPV4.to_be_bytes());
                let at = header.len;
                // Identification 0: it means nothing where fragments are forbidden (RFC 6864).
                header.push(&[IPV4_PLAIN, ends.dscp << 2, 0, 0, 0, 0]);
                header.push(&DONT_FRAGMENT.to_be_bytes());
                header.push(&[ends.hops, PROTOCOL_UDP, 0, 0]);
                header.push(&source.octets());
                header.push(&destination.octets());
                header.ip = Sum::default().bytes(&header.bytes[at..header.len]);
                2 * source.octets().len()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header.push(&TYPE_IPV6.to_be_bytes());
                let first = 6 << 28 | u32::from(ends.dscp) << 22; // flow label 0
                header.push(&first.to_be_bytes());
                header.push(&[0, 0, PROTOCOL_UDP, ends.hops]);
                header.push(&source.octets());
                header.push(&destination.octets());
                2 * source.octets().len()
            }
            _ => return None,
        };
        let addresses = header.len - pseudo;
        header.push(&ends.source.port().to_be_bytes());
        header.push(&ends.destination.port().to_be_bytes());
        let summed = &header.bytes[addresses..header.len];
        header.udp = Sum::default().bytes(summed).word([0, PROTOCOL_UDP]);
        header.push(&[0; 4]);
        Some(header)
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// Bytes before the payload: 42, 46, 62 or 66.
    #[must_use]
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a header is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Writes header and payload to the start of `frame`, and returns how many bytes they take.
    ///
    /// IPv4 forbids fragments. The UDP checksum is always there. Ethernet's least length is left
    /// to the driver, which pads.
    ///
    /// # Panics
    /// If `frame` has less than [`len`](Self::len) and `payload` together, or `payload` is more
    /// than 65,507 bytes.
    #[inline]
    pub fn write(&self, payload: &[u8], frame: &mut [u8]) -> usize {
        // With its length known, the header is copied in a few moves rather than by a call.
        match self.len {
            42 => self.fill::<42, IPV4>(payload, frame),
            46 => self.fill::<46, IPV4>(payload, frame),
            62 => self.fill::<62, IPV6>(payload, frame),
            _ => self.fill::<66, IPV6>(payload, frame),
        }
    }

    #[inline]
    fn fill<const LEN: usize, const IP: usize>(&self, payload: &[u8], frame: &mut [u8]) -> usize {
        assert!(payload.len() <= PAYLOAD_BYTES_MAX, "too much for a datagram");
        let udp_len = ((UDP + payload.len()) as u16).to_be_bytes();
        let (frame, _) = frame.split_at_mut(LEN + payload.len());
        let (header, body) = frame.split_first_chunk_mut::<LEN>().expect("split so");
        body.copy_from_slice(payload);
        *header = *self.bytes.first_chunk().expect("no shape is longer");
        let ip = LEN - UDP - IP;
        if IP == IPV4 {
            let total = ((IPV4 + UDP + payload.len()) as u16).to_be_bytes();
            header[ip + 2..ip + 4].copy_from_slice(&total);
            header[ip + 10..ip + 12].copy_from_slice(&self.ip.word(total).checksum());
        } else {
            header[ip + 4..ip + 6].copy_from_slice(&udp_len);
        }
        // The length is in the pseudo-header as well.
        let checksum = match self.udp.word(udp_len).word(udp_len).bytes(payload).checksum() {
            [0, 0] => [0xFF; 2], // 0 would mean that there is none
            checksum => checksum,
        };
        header[LEN - 4..LEN - 2].copy_from_slice(&udp_len);
        header[LEN - 2..].copy_from_slice(&checksum);
        frame.len()
    }
}

/// What UDP over IPv4 can carry, in bytes.
const PAYLOAD_BYTES_MAX: usize = u16::MAX as usize - IPV4 - UDP;

/// A datagram found in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// Who sent it. Of an IPv6 address, flow and scope are 0.
    pub source: SocketAddr,
    /// Who is to receive it. Likewise.
    pub destination: SocketAddr,
    /// The 802.1Q identifier, 1 to 4,095. A tag with identifier 0 only has a priority, and is as
    /// good as none.
    pub vlan: Option<u16>,
    /// What it carries; may be empty.
    pub payload: &'a [u8],
}

/// Why a frame is none of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// It ends within its headers.
    #[error("the frame ends within its headers")]
    Short,
    /// Neither IPv4 nor IPv6 behind at most one 802.1Q tag.
    #[error("EtherType {0:#06x} is neither IPv4 nor IPv6")]
    EtherType(u16),
    /// An IP version other than the EtherType says.
    #[error("IP version {0} is not what the EtherType says")]
    Version(u8),
    /// An IPv4 header of other than five words.
    #[error("an IPv4 header of {0} words, where 5 are expected")]
    Options(u8),
    /// The IPv4 header's checksum is wrong.
    #[error("the IPv4 header's checksum is wrong")]
    IpChecksum,
    /// The IP length is less than the header, or more than the frame has.
    #[error("an IP length of {0} bytes does not fit the frame")]
    IpLength(u16),
    /// A part of a datagram.
    #[error("a fragment")]
    Fragment,
    /// Neither UDP nor, in IPv6, immediately followed by UDP.
    #[error("IP protocol {0} is not UDP")]
    Protocol(u8),
    /// The UDP length is less than the header, or more than the IP packet has.
    #[error("a UDP length of {0} bytes does not fit the packet")]
    UdpLength(u16),
    /// The UDP checksum is wrong.
    #[error("the UDP checksum is wrong")]
    UdpChecksum,
    /// IPv6 without a UDP checksum.
    #[error("no UDP checksum, which IPv6 demands")]
    NoUdpChecksum,
}

/// Finds the datagram in a frame. Ethernet's padding behind it is left out.
///
/// The UDP checksum may be right; absent, in IPv4; or unfinished, which is the sum of the
/// pseudo-header alone, not complemented. A sender on the same machine leaves that (Linux calls it
/// CHECKSUM_PARTIAL) for its interface to finish, and a virtual one (veth) hands it on as it is,
/// since nothing between them can damage the bytes.
///
/// # Errors
/// [`Malformed`] says what the frame is instead.
#[inline]
pub fn parse(frame: &[u8]) -> Result<Packet<'_>, Malformed> {
    let (ethernet, mut packet) = frame.split_first_chunk::<ETHERNET>().ok_or(Malformed::Short)?;
    let mut ether_type = word(ethernet, 12);
    let mut vlan = None;
    if ether_type == TYPE_TAG {
        let (tag, behind) = packet.split_first_chunk::<TAG>().ok_or(Malformed::Short)?;
        vlan = Some(word(tag, 0) & VLAN_MAX).filter(|&id| id != 0);
        (ether_type, packet) = (word(tag, 2), behind);
    }
    let (source, destination, payload) = match ether_type {
        TYPE_IPV4 => ipv4(packet)?,
        TYPE_IPV6 => ipv6(packet)?,
        other => return Err(Malformed::EtherType(other)),
    };
    Ok(Packet { source, destination, vlan, payload })
}

type Found<'a> = (SocketAddr, SocketAddr, &'a [u8]);

#[inline]
fn ipv4(packet: &[u8]) -> Result<Found<'_>, Malformed> {
    let header = packet.first_chunk::<IPV4>().ok_or(Malformed::Short)?;
    match header[0] {
        IPV4_PLAIN => {}
        first if first >> 4 == 4 => return Err(Malformed::Options(first & 15)),
        first => return Err(Malformed::Version(first >> 4)),
    }
    if Sum::default().bytes(header).fold() != SOUND {
        return Err(Malformed::IpChecksum);
    }
    let total = word(header, 2);
    let body = packet.get(IPV4..total.into()).ok_or(Malformed::IpLength(total))?;
    if word(header, 6) & FRAGMENT != 0 {
        return Err(Malformed::Fragment);
    }
    if header[9] != PROTOCOL_UDP {
        return Err(Malformed::Protocol(header[9]));
    }
    let pseudo = Sum::default().bytes(&header[12..]).word([0, PROTOCOL_UDP]);
    let (ports, payload) = udp::<true>(body, pseudo)?;
    let address = |at| Ipv4Addr::from_octets(part(header, at));
    Ok(((address(12), ports[0]).into(), (address(16), ports[1]).into(), payload))
}

#[inline]
fn ipv6(packet: &[u8]) -> Result<Found<'_>, Malformed> {
    let (header, body) = packet.split_first_chunk::<IPV6>().ok_or(Malformed::Short)?;
    if header[0] >> 4 != 6 {
        return Err(Malformed::Version(header[0] >> 4));
    }
    let length = word(header, 4);
    let body = body.get(..length.into()).ok_or(Malformed::IpLength(length))?;
    if header[6] != PROTOCOL_UDP {
        return Err(Malformed::Protocol(header[6]));
    }
    let pseudo = Sum::default().bytes(&header[8..]).word([0, PROTOCOL_UDP]);
    let (ports, payload) = udp::<false>(body, pseudo)?;
    let address = |at| Ipv6Addr::from_octets(part(header, at));
    Ok(((address(8), ports[0]).into(), (address(24), ports[1]).into(), payload))
}

/// The ports and the payload; `pseudo` lacks the length. UDP may be shorter than the IP packet, as
/// the kernel has it.
#[inline]
fn udp<const CHECKSUM_OPTIONAL: bool>(
    body: &[u8],
    pseudo: Sum,
) -> Result<([u16; 2], &[u8]), Malformed> {
    let header = body.first_chunk::<UDP>().ok_or(Malformed::Short)?;
    let length = word(header, 4);
    let datagram = body.get(..length.into()).ok_or(Malformed::UdpLength(length))?;
    let payload = datagram.get(UDP..).ok_or(Malformed::UdpLength(length))?;
    let pseudo = pseudo.word(part(header, 4));
    match u16::from_ne_bytes(part(header, 6)) {
        0 if CHECKSUM_OPTIONAL => {}
        0 => return Err(Malformed::NoUdpChecksum),
        unfinished if unfinished == pseudo.fold() => {}
        _ if pseudo.bytes(datagram).fold() == SOUND => {}
        _ => return Err(Malformed::UdpChecksum),
    }
    Ok(([word(header, 0), word(header, 2)], payload))
}

/// The Ethernet address of a multicast group (RFC 1112, section 6.4; RFC 2464, section 7). `None`
/// if `group` is not multicast.
#[must_use]
pub fn group_mac(group: IpAddr) -> Option<Mac> {
    if !group.is_multicast() {
        return None;
    }
    Some(match group {
        IpAddr::V4(group) => {
            let [_, b, c, d] = group.octets();
            [0x01, 0x00, 0x5E, b & 0x7F, c, d]
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            [0x33, 0x33, a, b, c, d]
        }
    })
}

/// Bytes of a header from `at` on. Checked by the compiler where both are known.
#[inline(always)]
fn part<const N: usize>(header: &[u8], at: usize) -> [u8; N] {
    *header[at..].first_chunk().expect("offsets are within their header")
}

/// A number of a header.
#[inline(always)]
fn word(header: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(part(header, at))
}
