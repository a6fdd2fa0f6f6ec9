//! The interfaces of this network namespace, as the kernel lists them (rtnetlink), and the XDP
//! programs on them. What `/sys` shows may be another namespace's; this is always our own.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// A message's header, and what stands before the attributes of a link: bytes.
const HEADER: usize = 16;
const LINK_HEADER: usize = 16;
/// Attributes below those that `libc` names (linux/if_link.h).
const XDP_ATTACHED: u16 = 2;
const XDP_PROGRAM: u16 = 4;
const XDP_PROGRAMS: std::ops::RangeInclusive<u16> = 5..=7; // in driver mode, generic, on the card
/// Room for what the kernel sends at once, bytes.
const ROOM: usize = 64 << 10;

/// Where an XDP program is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attached {
    /// `driver`, `generic`, `offloaded`, `several`.
    pub(super) mode: &'static str,
    /// The programs' numbers, as bpftool takes them.
    pub(super) programs: Vec<u32>,
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) flags: u32,
    pub(super) mtu: u32,
    /// What kind of virtual device it is: `veth`, `bridge`, `vlan`.
    pub(super) kind: Option<String>,
    /// The interface that carries it: of a VLAN, the one below; of a veth, its other end.
    pub(super) other: Option<u32>,
    pub(super) xdp: Option<Attached>,
}

impl Link {
    pub(super) fn is_up(&self) -> bool {
        self.flags & libc::IFF_UP as u32 != 0
    }

    pub(super) fn has_carrier(&self) -> bool {
        self.flags & libc::IFF_LOWER_UP as u32 != 0
    }

    /// Whether it is a VLAN that the interface of that number carries.
    pub(super) fn is_vlan_on(&self, index: u32) -> bool {
        self.kind.as_deref() == Some("vlan") && self.other == Some(index)
    }

    pub(super) fn is_loopback(&self) -> bool {
        self.flags & libc::IFF_LOOPBACK as u32 != 0
    }
}

/// All interfaces, as the kernel orders them.
///
/// # Errors
/// What the kernel refused; `InvalidData` if its answer makes no sense.
pub(super) fn all() -> io::Result<Vec<Link>> {
    let protocol = SockProtocol::NetlinkRoute;
    let kind = SockType::Raw;
    let socket: OwnedFd = socket(AddressFamily::Netlink, kind, SockFlag::SOCK_CLOEXEC, protocol)?;
    send(socket.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut links = Vec::new();
    let mut room = vec![0; ROOM];
    loop {
        // The kernel answers while it is asked, so nothing is there to be waited for.
        let flags = MsgFlags::MSG_DONTWAIT;
        let bytes = match recv(socket.as_raw_fd(), &mut room, flags) {
            Err(Errno::EINTR) => continue,
            result => result?,
        };
        if read(&room[..bytes], &mut links)? {
            return Ok(links);
        }
    }
}

/// Asks for all links.
fn request() -> [u8; HEADER + LINK_HEADER] {
    let mut bytes = [0; HEADER + LINK_HEADER];
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    bytes[..4].copy_from_slice(&((HEADER + LINK_HEADER) as u32).to_ne_bytes());
    bytes[4..6].copy_from_slice(&libc::RTM_GETLINK.to_ne_bytes());
    bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn invalid() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's list of interfaces is not understood")
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// Takes the links out of what was received; whether that was all.
fn read(mut bytes: &[u8], links: &mut Vec<Link>) -> io::Result<bool> {
    if bytes.is_empty() {
        return Err(invalid());
    }
    while !bytes.is_empty() {
        let length = u32_at(bytes, 0).ok_or_else(invalid)? as usize;
        let kind = u16_at(bytes, 4).ok_or_else(invalid)?;
        if length < HEADER {
            return Err(invalid());
        }
        let body = bytes.get(HEADER..length).ok_or_else(invalid)?;
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => {
                let errno = u32_at(body, 0).ok_or_else(invalid)? as i32;
                return Err(io::Error::from_raw_os_error(errno.saturating_neg()));
            }
            _ if kind == libc::RTM_NEWLINK => links.push(link(body).ok_or_else(invalid)?),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The attributes of a message: type and value. Ends at the first that does not fit.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16_at(bytes, 0)? as usize;
        let kind = u16_at(bytes, 2)? & libc::NLA_TYPE_MASK as u16;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Text that ends with a zero.
fn string(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

fn link(body: &[u8]) -> Option<Link> {
    let mut link = Link { index: u32_at(body, 4)?, flags: u32_at(body, 8)?, ..Link::default() };
    for (kind, value) in attributes(body.get(LINK_HEADER..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = string(value),
            libc::IFLA_MTU => link.mtu = u32_at(value, 0)?,
            libc::IFLA_LINK => link.other = Some(u32_at(value, 0)?),
            libc::IFLA_LINKINFO => {
                let mut inner = attributes(value);
                let kind = inner.find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = kind.map(|(_, value)| string(value));
            }
            libc::IFLA_XDP => link.xdp = attached(value),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn attached(value: &[u8]) -> Option<Attached> {
    let (mut mode, mut one, mut programs) = (0, None, Vec::new());
    for (kind, value) in attributes(value) {
        match kind {
            XDP_ATTACHED => mode = *value.first()?,
            XDP_PROGRAM => one = u32_at(value, 0),
            kind if XDP_PROGRAMS.contains(&kind) => programs.extend(u32_at(value, 0)),
            _ => {}
        }
    }
    if programs.is_empty() {
        programs.extend(one);
    }
    let mode = match mode {
        0 => return None,
        1 => "driver",
        2 => "generic",
        3 => "offloaded",
        _ => "several",
    };
    Some(Attached { mode, programs })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = ((HEADER + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes
    }

    /// eth0, index 4, up with carrier, a veth with a program in driver mode.
    fn sample() -> Vec<u8> {
        let mut body = vec![0; LINK_HEADER];
        body[4] = 4;
        body[8..12].copy_from_slice(&0x1_1043u32.to_ne_bytes());
        body.extend(attribute(libc::IFLA_IFNAME, b"eth0\0"));
        body.extend(attribute(libc::IFLA_MTU, &1400u32.to_ne_bytes()));
        body.extend(attribute(libc::IFLA_LINK, &3u32.to_ne_bytes()));
        let kind = attribute(libc::IFLA_INFO_KIND, b"veth\0");
        body.extend(attribute(libc::IFLA_LINKINFO | 0x8000, &kind));
        let mut xdp = attribute(XDP_ATTACHED, &[1]);
        xdp.extend(attribute(XDP_PROGRAM, &17u32.to_ne_bytes()));
        xdp.extend(attribute(*XDP_PROGRAMS.start(), &17u32.to_ne_bytes()));
        body.extend(attribute(libc::IFLA_XDP, &xdp));
        message(libc::RTM_NEWLINK, &body)
    }

    #[test]
    fn a_link_is_read_with_its_program() {
        let mut links = Vec::new();
        assert!(!read(&sample(), &mut links).expect("sound"));
        let [link] = &links[..] else { panic!("{links:?}") };
        assert_eq!((link.index, link.name.as_str(), link.mtu), (4, "eth0", 1400));
        assert!(link.is_up() && link.has_carrier() && !link.is_loopback());
        assert_eq!((link.kind.as_deref(), link.other), (Some("veth"), Some(3)));
        assert!(!link.is_vlan_on(3), "it is a veth");
        let vlan = Link { kind: Some("vlan".into()), ..link.clone() };
        assert!(vlan.is_vlan_on(3) && !vlan.is_vlan_on(4));
        assert_eq!(link.xdp, Some(Attached { mode: "driver", programs: vec![17] }));
        let done = message(libc::NLMSG_DONE as u16, &[0; 4]);
        assert!(read(&done, &mut links).expect("sound"));
        let denied = message(libc::NLMSG_ERROR as u16, &(-libc::EPERM).to_ne_bytes());
        let error = read(&denied, &mut links).expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
    }

    #[test]
    fn damaged_lists_are_errors_and_never_more() {
        let sample = sample();
        for cut in 0..sample.len() {
            assert!(read(&sample[..cut], &mut Vec::new()).is_err(), "cut at {cut}");
        }
        for at in 0..sample.len() {
            for byte in [0, 1, 3, 0x7f, 0xff] {
                let mut bytes = sample.clone();
                bytes[at] = byte;
                let mut links = Vec::new();
                let result = read(&bytes, &mut links);
                assert!(links.len() <= 1 && (result.is_err() || links.len() <= 1), "{at} {byte}");
            }
        }
    }

    #[test]
    fn this_host_has_a_loopback_interface() {
        let links = all().expect("listed");
        assert!(links.iter().any(|link| link.is_loopback() && link.name == "lo"), "{links:?}");
    }
}
