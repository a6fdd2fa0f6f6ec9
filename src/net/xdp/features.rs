//! Which parts of XDP a driver has, which Linux 6.3 and later tell over netlink.

use super::attributes::Attributes;
use super::family::{Family, HEADER};

/// Constants of `linux/netdev.h`, which libc lacks.
const DEVICE_GET: u8 = 1;
const INTERFACE_INDEX: u16 = 1;
const FEATURES: u16 = 3;
/// Bits of those: programs run in the driver, and may pass, drop and send back.
const BASIC: u64 = 1;
/// They may redirect: to an AF_XDP socket, for one.
const REDIRECT: u64 = 2;
/// An AF_XDP socket's memory is the device's own.
const ZERO_COPY: u64 = 8;

/// What a driver has of use to us, with the interface's present settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    /// Our program can run in the driver.
    pub(super) driver: bool,
    /// Packets can come there without a copy.
    pub(super) zero_copy: bool,
}

impl Features {
    /// Those of an interface in the calling thread's network namespace; `None` if the kernel does
    /// not tell.
    pub(super) fn of(interface: u32) -> Option<Self> {
        let kernel = Family::open("netdev").ok()?;
        kernel.one(DEVICE_GET, (INTERFACE_INDEX, &interface.to_ne_bytes()), features).ok()
    }
}

/// Reads a message about a device.
fn features(body: &[u8]) -> Option<Features> {
    let bits = Attributes::after(HEADER, body).long(FEATURES)?;
    let has = |wanted| bits & wanted == wanted;
    Some(Features { driver: has(BASIC | REDIRECT), zero_copy: has(BASIC | REDIRECT | ZERO_COPY) })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::attributes::{MESSAGE_HEADER, Request};
    use super::super::namespace::{cable, in_a_fresh_namespace, ip};
    use super::*;

    #[test]
    fn a_mode_takes_all_its_parts() {
        let modes = |bits: u64| {
            let message = Request::new(0, 0, &[0; HEADER]).with(FEATURES, &bits.to_ne_bytes());
            let Features { driver, zero_copy } =
                features(&message.finish(0)[MESSAGE_HEADER..]).unwrap();
            (driver, zero_copy)
        };
        assert_eq!(modes(0), (false, false));
        assert_eq!(modes(BASIC), (false, false), "nothing gets to a socket");
        assert_eq!(modes(BASIC | REDIRECT | 4), (true, false));
        assert_eq!(modes(BASIC | REDIRECT | ZERO_COPY), (true, true));
        assert_eq!(modes(u64::MAX), (true, true), "more is to come");
    }

    #[test]
    fn a_veth_has_driver_mode_and_no_zero_copy() {
        in_a_fresh_namespace(|| {
            cable();
            if Family::open("netdev").is_err() {
                assert_eq!(Features::of(1), None);
                eprintln!("skipped: this kernel does not tell what drivers have");
                return;
            }
            let of = |name| Features::of(nix::net::if_::if_nametoindex(name).unwrap()).unwrap();
            assert_eq!(of("left"), Features { driver: true, zero_copy: false });
            let none = Features { driver: false, zero_copy: false };
            assert_eq!(of("lo"), none, "it has no XDP of its own");
            ip("link add name bridged type bridge");
            assert_eq!(of("bridged"), none);
            assert_eq!(Features::of(u32::MAX >> 1), None);
        });
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_harm(
            bytes in prop::collection::vec(any::<u8>(), 0..64),
            value in prop::collection::vec(any::<u8>(), 0..12),
        ) {
            let _ = features(&bytes);
            let header = &bytes[..bytes.len().min(HEADER) / 4 * 4];
            let message = Request::new(0, 0, header).with(FEATURES, &value).finish(0);
            let read = features(&message[MESSAGE_HEADER..]);
            let sound = header.len() == HEADER && value.len() == 8;
            prop_assert_eq!(read.is_some(), sound);
        }
    }
}
