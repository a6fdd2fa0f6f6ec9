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
/// The UDP checksum must be right, or absent, in IPv4. One that a sender on the same machine left
/// unfinished, for its interface to finish (Linux calls that CHECKSUM_PARTIAL), is wrong here: the
/// frame may be several datagrams in one.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const US: Mac = [0x02, 0, 0, 0, 0, 0x0A];
    const THEM: Mac = [0x02, 0, 0, 0, 0, 0x0B];

    /// What a Linux socket sent through a veth without checksum offload: DSCP 46, 9 hops.
    const KERNEL_V4: &[u8] = b"\
        \x02\x00\x00\x00\x00\x0B\x02\x00\x00\x00\x00\x0A\x08\x00\
        \x45\xB8\x00\x23\x00\x00\x40\x00\x09\x11\xED\x0E\xC0\x00\x02\x01\xC0\x00\x02\x02\
        \x1B\x58\x1B\x59\x00\x0F\x94\xD9gapless";
    const KERNEL_V6: &[u8] = b"\
        \x02\x00\x00\x00\x00\x0B\x02\x00\x00\x00\x00\x0A\x86\xDD\
        \x6B\x89\xC5\xC2\x00\x0F\x11\x09\
        \x20\x01\x0D\xB8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\
        \x20\x01\x0D\xB8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\
        \x1B\x58\x1B\x59\x00\x0F\xBD\x68gapless";
    /// The UDP checksums of the same, with the offload that a veth has from the start.
    const UNFINISHED_V4: [u8; 2] = [0x84, 0x24];
    const UNFINISHED_V6: [u8; 2] = [0x5B, 0x95];

    fn ends(vlan: Option<u16>, source: &str, destination: &str) -> Ends {
        Ends {
            source_mac: US,
            destination_mac: THEM,
            vlan,
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            hops: 9,
            dscp: 46,
        }
    }

    fn v4(vlan: Option<u16>) -> Ends {
        ends(vlan, "192.0.2.1:7000", "192.0.2.2:7001")
    }

    fn v6(vlan: Option<u16>) -> Ends {
        ends(vlan, "[2001:db8::1]:7000", "[2001:db8::2]:7001")
    }

    /// Every shape, with where its IP header starts.
    fn shapes() -> [(Ends, usize); 4] {
        [(v4(None), 14), (v4(Some(42)), 18), (v6(None), 14), (v6(Some(42)), 18)]
    }

    fn written(ends: &Ends, payload: &[u8]) -> Vec<u8> {
        let header = Header::new(ends).expect("sound ends");
        let mut frame = vec![0xA5; header.len() + payload.len() + 3];
        let len = header.write(payload, &mut frame);
        assert_eq!(len, header.len() + payload.len());
        assert_eq!(frame[len..], [0xA5; 3], "wrote behind its end");
        frame.truncate(len);
        frame
    }

    fn found<'a>(ends: &Ends, payload: &'a [u8]) -> Packet<'a> {
        let vlan = ends.vlan.filter(|&id| id > 0);
        Packet { source: ends.source, destination: ends.destination, vlan, payload }
    }

    /// RFC 1071 to the letter.
    fn naive_sum(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for (i, byte) in bytes.iter().enumerate() {
            sum += u32::from(*byte) << if i % 2 == 0 { 8 } else { 0 };
        }
        while sum > 0xFFFF {
            sum = (sum >> 16) + (sum & 0xFFFF);
        }
        sum as u16
    }

    /// Source, destination, protocol and length, as both protocols have it but for zeros.
    fn pseudo_header(ends: &Ends, udp_len: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        for ip in [ends.source.ip(), ends.destination.ip()] {
            match ip {
                IpAddr::V4(ip) => bytes.extend(ip.octets()),
                IpAddr::V6(ip) => bytes.extend(ip.octets()),
            }
        }
        bytes.extend([0, 17]);
        bytes.extend(udp_len.to_be_bytes());
        bytes
    }

    /// A frame, field by field.
    fn naive(ends: &Ends, payload: &[u8]) -> Vec<u8> {
        let mut udp = Vec::new();
        udp.extend(ends.source.port().to_be_bytes());
        udp.extend(ends.destination.port().to_be_bytes());
        let udp_len = 8 + payload.len() as u16;
        udp.extend(udp_len.to_be_bytes());
        udp.extend([0, 0]);
        udp.extend(payload);
        let checksum = !naive_sum(&[&pseudo_header(ends, udp_len)[..], &udp].concat());
        let checksum = if checksum == 0 { 0xFFFF } else { checksum };
        udp[6..8].copy_from_slice(&checksum.to_be_bytes());

        let mut frame = [ends.destination_mac, ends.source_mac].concat();
        if let Some(id) = ends.vlan {
            frame.extend([0x81, 0x00, (id >> 8) as u8, id as u8]);
        }
        match (ends.source.ip(), ends.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut ip = vec![0x45, ends.dscp * 4];
                ip.extend((20 + udp_len).to_be_bytes());
                ip.extend([0, 0, 0x40, 0, ends.hops, 17, 0, 0]);
                ip.extend(source.octets());
                ip.extend(destination.octets());
                let checksum = !naive_sum(&ip);
                ip[10..12].copy_from_slice(&checksum.to_be_bytes());
                frame.extend([0x08, 0x00]);
                frame.extend(ip);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xDD, 0x60 | ends.dscp >> 2, ends.dscp << 6, 0, 0]);
                frame.extend(udp_len.to_be_bytes());
                frame.extend([17, ends.hops]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            _ => panic!("mixed families"),
        }
        frame.extend(udp);
        frame
    }

    #[test]
    fn written_as_the_kernel_writes() {
        assert_eq!(written(&v4(None), b"gapless"), KERNEL_V4);
        let mut kernel = KERNEL_V6.to_vec();
        kernel[15..18].copy_from_slice(&[0x80, 0, 0]); // the kernel invents a flow label
        assert_eq!(written(&v6(None), b"gapless"), kernel);
    }

    #[test]
    fn what_the_kernel_wrote_is_parsed() {
        assert_eq!(parse(KERNEL_V4), Ok(found(&v4(None), b"gapless")));
        assert_eq!(parse(KERNEL_V6), Ok(found(&v6(None), b"gapless")));
    }

    #[test]
    fn a_checksum_left_to_the_hardware_is_refused() {
        for (frame, unfinished) in [(KERNEL_V4, UNFINISHED_V4), (KERNEL_V6, UNFINISHED_V6)] {
            let at = frame.len() - 9;
            let mut frame = frame.to_vec();
            frame[at..at + 2].copy_from_slice(&unfinished);
            assert_eq!(parse(&frame), Err(Malformed::UdpChecksum));
        }
    }

    #[test]
    fn a_checksum_may_be_absent_from_ipv4_only() {
        for (ends, _) in shapes() {
            let mut frame = written(&ends, b"gapless");
            let at = frame.len() - 9;
            frame[at..at + 2].fill(0);
            let expected = match ends.source {
                SocketAddr::V4(_) => Ok(found(&ends, b"gapless")),
                SocketAddr::V6(_) => Err(Malformed::NoUdpChecksum),
            };
            assert_eq!(parse(&frame), expected);
        }
    }

    /// Of a checksum that comes out as 0, the other zero is sent.
    #[test]
    fn a_checksum_of_zero_is_all_ones() {
        for (ends, _) in shapes() {
            let first = written(&ends, &[0, 0]);
            let payload = [first[first.len() - 4], first[first.len() - 3]];
            let frame = written(&ends, &payload);
            assert_eq!(frame[frame.len() - 4..frame.len() - 2], [0xFF, 0xFF]);
            assert_eq!(frame, naive(&ends, &payload));
            assert_eq!(parse(&frame), Ok(found(&ends, &payload)));
        }
    }

    #[test]
    fn every_length_of_every_shape() {
        let payload: Vec<u8> = (0..1472_u32).map(|i| (i * i / 8) as u8).collect();
        for ((ends, _), len) in shapes().iter().zip([42, 46, 62, 66]) {
            assert_eq!(Header::new(ends).unwrap().len(), len);
            for bytes in 0..=payload.len() {
                let payload = &payload[..bytes];
                let frame = written(ends, payload);
                assert_eq!(frame, naive(ends, payload));
                assert_eq!(parse(&frame), Ok(found(ends, payload)));
            }
        }
    }

    #[test]
    fn as_much_as_udp_carries_and_no_more() {
        let payload = vec![0xFF; PAYLOAD_BYTES_MAX + 1];
        for (ends, _) in shapes() {
            let frame = written(&ends, &payload[1..]);
            assert_eq!(parse(&frame), Ok(found(&ends, &payload[1..])));
            let header = Header::new(&ends).unwrap();
            let beyond = std::panic::catch_unwind(|| header.write(&payload, &mut vec![0; 1 << 17]));
            assert!(beyond.is_err());
        }
    }

    #[test]
    fn padding_is_left_out() {
        for (ends, _) in shapes() {
            let mut frame = written(&ends, b"gap");
            frame.extend([0x5A; 20]);
            assert_eq!(parse(&frame), Ok(found(&ends, b"gap")));
        }
    }

    #[test]
    fn udp_may_end_before_ip_does() {
        let mut frame = written(&v6(None), b"gap");
        frame.extend([1, 2, 3]);
        frame[19] += 3;
        assert_eq!(parse(&frame), Ok(found(&v6(None), b"gap")));
        frame[19] += 1;
        assert_eq!(parse(&frame), Err(Malformed::IpLength(15)));
    }

    #[test]
    fn every_truncation_is_refused() {
        for (ends, _) in shapes() {
            let frame = written(&ends, b"gapless");
            for len in 0..frame.len() {
                let refusal = parse(&frame[..len]).expect_err("it is too short");
                let headers = frame.len() - 7 - UDP;
                let expected = matches!(refusal, Malformed::Short | Malformed::IpLength(_));
                assert!(expected && (len < headers || refusal != Malformed::Short), "{refusal}");
            }
        }
    }

    /// A flip is refused, or stands where nothing protects a frame, and harms nothing there.
    #[test]
    fn every_flipped_bit_is_refused_or_harmless() {
        for (ends, ip) in shapes() {
            let frame = written(&ends, b"gapless");
            let is_v6 = ends.source.is_ipv6();
            for bit in 0..frame.len() * 8 {
                let mut flipped = frame.clone();
                flipped[bit / 8] ^= 0x80 >> (bit % 8);
                let mut expected = found(&ends, b"gapless");
                let (byte, tagged) = (bit / 8, ends.vlan.is_some());
                let harmless = match byte {
                    0..12 => true,                                                  // both MACs
                    14 if tagged && bit % 8 < 4 => true,                            // priority
                    _ if is_v6 && (ip * 8 + 4..ip * 8 + 32).contains(&bit) => true, // class, flow
                    _ => is_v6 && byte == ip + 7,                                   // hop limit
                };
                if let (14 | 15, Some(id)) = (byte, expected.vlan.as_mut())
                    && !harmless
                {
                    *id ^= 0x8000 >> (bit - 14 * 8); // another VLAN, and nothing to tell it by
                    assert_eq!(parse(&flipped), Ok(expected), "bit {bit}");
                } else if harmless {
                    assert_eq!(parse(&flipped), Ok(expected), "bit {bit}");
                } else {
                    assert!(parse(&flipped).is_err(), "bit {bit}");
                }
            }
        }
    }

    /// Changes a frame and makes the IPv4 header's checksum right again.
    fn mended(change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let mut frame = written(&v4(None), b"gapless");
        change(&mut frame);
        frame[24..26].fill(0);
        let checksum = !naive_sum(&frame[14..34]);
        frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        frame
    }

    #[test]
    fn refusals_are_told_apart() {
        let refused = |change: fn(&mut [u8]), refusal| {
            assert_eq!(parse(&mended(change)), Err(refusal));
        };
        refused(|frame| frame[12] = 0x86, Malformed::EtherType(0x8600));
        refused(|frame| (frame[12], frame[13]) = (0x88, 0xA8), Malformed::EtherType(0x88A8));
        refused(|frame| frame[14] = 0x65, Malformed::Version(6));
        refused(|frame| frame[14] = 0x46, Malformed::Options(6));
        refused(|frame| frame[14] = 0x44, Malformed::Options(4));
        refused(|frame| frame[17] += 1, Malformed::IpLength(36));
        refused(|frame| frame[17] = 19, Malformed::IpLength(19));
        refused(|frame| frame[17] = 27, Malformed::Short);
        refused(|frame| frame[17] -= 1, Malformed::UdpLength(15));
        refused(|frame| frame[20] |= 0x20, Malformed::Fragment);
        refused(|frame| frame[21] = 1, Malformed::Fragment);
        refused(|frame| frame[20] |= 0x10, Malformed::Fragment);
        refused(|frame| frame[23] = 6, Malformed::Protocol(6));
        refused(|frame| frame[26] ^= 1, Malformed::UdpChecksum);
        refused(|frame| frame[39] = 7, Malformed::UdpLength(7));
        refused(|frame| frame[39] = 0, Malformed::UdpLength(0));
        refused(|frame| frame[39] = 16, Malformed::UdpLength(16));
        refused(|frame| frame[44] ^= 1, Malformed::UdpChecksum);
        let mut frame = written(&v4(None), b"gapless");
        frame[22] ^= 1;
        assert_eq!(parse(&frame), Err(Malformed::IpChecksum));

        let mut frame = written(&v4(None), &[0; 12]);
        (frame[12], frame[13]) = (0x86, 0xDD);
        assert_eq!(parse(&frame), Err(Malformed::Version(4)));

        let mut frame = written(&v6(None), b"gapless");
        frame[20] = 44; // a fragment header
        assert_eq!(parse(&frame), Err(Malformed::Protocol(44)));
        let mut frame = written(&v4(Some(42)), b"gapless");
        (frame[16], frame[17]) = (0x81, 0x00); // a tag in a tag
        assert_eq!(parse(&frame), Err(Malformed::EtherType(0x8100)));
    }

    #[test]
    fn the_reserved_flag_and_the_congestion_mark_are_not_ours_to_judge() {
        let frame = mended(|frame| (frame[15], frame[20]) = (frame[15] | 3, 0xC0));
        assert_eq!(parse(&frame), Ok(found(&v4(None), b"gapless")));
    }

    #[test]
    fn a_tag_without_a_vlan_is_none() {
        let frame = written(&v4(Some(0)), b"gapless");
        assert_eq!(frame.len(), 46 + 7);
        assert_eq!(parse(&frame), Ok(found(&v4(None), b"gapless")));
        let mut frame = written(&v4(Some(4095)), b"gapless");
        frame[14] |= 0xF0; // priority and drop eligibility
        assert_eq!(parse(&frame), Ok(found(&v4(Some(4095)), b"gapless")));
    }

    #[test]
    fn ends_that_make_no_header() {
        assert!(Header::new(&Ends { source: v6(None).source, ..v4(None) }).is_none());
        assert!(Header::new(&Ends { source: v4(None).source, ..v6(None) }).is_none());
        assert!(Header::new(&v4(Some(4096))).is_none());
        assert!(Header::new(&Ends { dscp: 64, ..v6(None) }).is_none());
    }

    #[test]
    fn scope_and_flow_are_not_on_the_wire() {
        let mut source: std::net::SocketAddrV6 = "[fe80::1%3]:7000".parse().unwrap();
        source.set_flowinfo(5);
        let frame = written(&Ends { source: source.into(), ..v6(None) }, b"gapless");
        let packet = parse(&frame).unwrap();
        assert_eq!(packet.source, "[fe80::1]:7000".parse().unwrap());
    }

    #[test]
    fn groups_have_addresses_on_the_link() {
        let mac = |group: &str| group_mac(group.parse().unwrap());
        assert_eq!(mac("224.0.0.1"), Some([0x01, 0x00, 0x5E, 0, 0, 1]));
        assert_eq!(mac("239.255.1.2"), Some([0x01, 0x00, 0x5E, 0x7F, 1, 2]));
        assert_eq!(mac("239.127.1.2"), mac("224.127.1.2"));
        assert_eq!(mac("ff02::1"), Some([0x33, 0x33, 0, 0, 0, 1]));
        assert_eq!(mac("ff15::1:ff28:9c5a"), Some([0x33, 0x33, 0xFF, 0x28, 0x9C, 0x5A]));
        for address in ["192.0.2.1", "240.0.0.1", "255.255.255.255", "2001:db8::1", "::"] {
            assert_eq!(mac(address), None);
        }
    }

    fn any_ends() -> impl Strategy<Value = Ends> {
        let vlan = prop::option::of(0..=VLAN_MAX);
        let hosts = prop_oneof![
            any::<[[u8; 4]; 2]>().prop_map(|pair| pair.map(IpAddr::from)),
            any::<[[u8; 16]; 2]>().prop_map(|pair| pair.map(IpAddr::from)),
        ];
        let rest = (any::<[u16; 2]>(), any::<u8>(), 0..=DSCP_MAX);
        (any::<[Mac; 2]>(), vlan, hosts, rest).prop_map(|(macs, vlan, hosts, rest)| {
            let (ports, hops, dscp) = rest;
            Ends {
                source_mac: macs[0],
                destination_mac: macs[1],
                vlan,
                source: (hosts[0], ports[0]).into(),
                destination: (hosts[1], ports[1]).into(),
                hops,
                dscp,
            }
        })
    }

    proptest! {
        #[test]
        fn written_as_field_by_field_and_parsed_back(
            ends in any_ends(),
            payload in prop::collection::vec(any::<u8>(), 0..=1472),
        ) {
            let frame = written(&ends, &payload);
            prop_assert_eq!(&frame, &naive(&ends, &payload));
            prop_assert_eq!(parse(&frame), Ok(found(&ends, &payload)));
        }

        #[test]
        fn no_bytes_panic(frame in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&frame);
        }

        /// Some bytes of a sound frame are others: what is still taken is within the frame.
        #[test]
        fn no_damage_panics(
            ends in any_ends(),
            payload in prop::collection::vec(any::<u8>(), 0..60),
            damage in prop::collection::vec((0..126_usize, any::<u8>()), 1..6),
            len in 0..126_usize,
        ) {
            let mut frame = written(&ends, &payload);
            for (at, byte) in damage {
                let at = at % frame.len();
                frame[at] = byte;
            }
            frame.truncate(len.max(14));
            if let Ok(packet) = parse(&frame) {
                prop_assert!(packet.payload.len() + 42 <= frame.len());
            }
        }
    }
}
