//! Socket addresses as the kernel lays them out, read and written byte by byte.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// `sockaddr_in` takes 16 of the bytes, `sockaddr_in6` all 28.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(super) struct RawAddress {
    bytes: [u8; RawAddress::CAPACITY],
    len: u32,
}

impl RawAddress {
    pub(super) const CAPACITY: usize = size_of::<libc::sockaddr_in6>();

    /// Room for the kernel to write into.
    #[inline]
    pub(super) const fn room() -> Self {
        Self { bytes: [0; Self::CAPACITY], len: Self::CAPACITY as u32 }
    }

    #[inline]
    pub(super) fn of(address: SocketAddr) -> Self {
        let mut raw = Self::room();
        raw.bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let family = match address {
            SocketAddr::V4(address) => {
                raw.bytes[4..8].copy_from_slice(&address.ip().octets());
                raw.len = size_of::<libc::sockaddr_in>() as u32;
                libc::AF_INET
            }
            SocketAddr::V6(address) => {
                raw.bytes[4..8].copy_from_slice(&address.flowinfo().to_be_bytes());
                raw.bytes[8..24].copy_from_slice(&address.ip().octets());
                raw.bytes[24..28].copy_from_slice(&address.scope_id().to_ne_bytes());
                libc::AF_INET6
            }
        };
        raw.bytes[0..2].copy_from_slice(&(family as u16).to_ne_bytes());
        raw
    }

    /// `None` if the kernel wrote no internet address.
    #[inline]
    pub(super) fn address(&self) -> Option<SocketAddr> {
        let half = |at: usize| u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        let word = |at: usize| {
            [self.bytes[at], self.bytes[at + 1], self.bytes[at + 2], self.bytes[at + 3]]
        };
        match i32::from(u16::from_ne_bytes([self.bytes[0], self.bytes[1]])) {
            libc::AF_INET => Some(SocketAddrV4::new(Ipv4Addr::from(word(4)), half(2)).into()),
            libc::AF_INET6 => {
                let octets: [u8; 16] = self.bytes[8..24].try_into().ok()?;
                let flow = u32::from_be_bytes(word(4));
                let scope = u32::from_ne_bytes(word(24));
                Some(SocketAddrV6::new(octets.into(), half(2), flow, scope).into())
            }
            _ => None,
        }
    }

    /// The same, where none is written as 0.0.0.0:0.
    #[inline]
    pub(super) fn address_or_none(&self) -> SocketAddr {
        self.address().unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    #[inline]
    pub(super) fn pointer(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    #[inline]
    pub(super) fn pointer_mut(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    #[inline]
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    #[inline]
    pub(super) fn len_mut(&mut self) -> &mut u32 {
        &mut self.len
    }
}

/// The unspecified address of the same family.
pub(super) fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Whether an address means something only together with an interface.
pub(super) fn needs_scope(address: &Ipv6Addr) -> bool {
    let [first, second, ..] = address.octets();
    let link_local = first == 0xfe && second & 0xc0 == 0x80;
    let narrow_group = first == 0xff && matches!(second & 0x0f, 1 | 2);
    link_local || narrow_group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_kernel_layout() {
        for text in ["127.0.0.1:9000", "239.1.2.3:65535", "[::1]:1", "[fe80::1:2%3]:77"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(RawAddress::of(address).address(), Some(address));
        }
        let flow = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 5, 0x000a_bcde, 9);
        assert_eq!(RawAddress::of(flow.into()).address(), Some(flow.into()));
        assert_eq!(RawAddress::of("127.0.0.1:1".parse().unwrap()).bytes().len(), 16);
        assert_eq!(RawAddress::room().address(), None);
    }

    #[test]
    fn link_local_addresses_need_an_interface() {
        for (text, needs) in
            [("fe80::1", true), ("ff02::1", true), ("ff05::1", false), ("fd00::1", false)]
        {
            assert_eq!(needs_scope(&text.parse().unwrap()), needs, "{text}");
        }
    }
}
