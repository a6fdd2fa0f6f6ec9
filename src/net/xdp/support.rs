//! What an interface has for AF_XDP, as the kernel tells it. Nothing is attached to find out.

use super::super::error::NetError;
use super::super::open::interface_index;
use super::super::options::{Interface, XdpMode};
use super::features::Features;
use super::netlink::Netlink;
use super::port::{QUEUES_MAX, attempts};
use super::steering::{self, Mode};

/// What an interface has for AF_XDP, with its present settings. What a driver says it has may still
/// be refused when it is asked for: for the MTU, for want of rights, for a program that is there.
///
/// ```
/// use gapless::net::{Interface, XdpMode, XdpSupport};
/// let home = XdpSupport::of(&Interface::from("lo"))?;
/// assert_eq!((home.interface.as_str(), home.receive_queues), ("lo", 1));
/// assert!(home.is_virtual && home.modes().contains(&XdpMode::Generic));
/// # Ok::<(), gapless::net::NetError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct XdpSupport {
    /// The interface that packets are taken from: below a VLAN's own, the one that carries it.
    pub interface: String,
    /// It is no card: the kernel made it in software, or it is the loopback interface. Generic mode
    /// is quicker there.
    pub is_virtual: bool,
    /// Whether its driver runs programs: [`XdpMode::Driver`]. `None`: the kernel does not tell,
    /// which takes Linux 6.3.
    pub driver: Option<bool>,
    /// Whether its device receives into our memory: [`XdpMode::ZeroCopy`]. `None` as above.
    pub zero_copy: Option<bool>,
    /// How many queues it receives by, from 1. Each of ours has memory of its own and is polled in
    /// turn.
    pub receive_queues: u32,
    /// The longest packet without its Ethernet header, in bytes. Drivers have limits of their own
    /// for driver mode: mostly about a page, less than 4,096.
    pub mtu: u32,
    /// The number of the XDP program that is attached to it.
    pub program: Option<u32>,
    /// Its name; `None` as well if it may not be read, which takes CAP_SYS_ADMIN.
    pub program_name: Option<String>,
}

impl XdpSupport {
    /// The most queues of an interface that one process takes. What comes in by others goes through
    /// the kernel.
    pub const QUEUES_MAX: u32 = QUEUES_MAX as u32;

    /// Asks the kernel about an interface of the calling thread's network namespace. Takes no
    /// rights, and changes nothing.
    ///
    /// # Errors
    /// [`NetError::InterfaceMissing`]; [`NetError::Denied`] and [`NetError::Io`] if the kernel does
    /// not answer.
    pub fn of(interface: &Interface) -> Result<Self, NetError> {
        let netlink = Netlink::open()?;
        let mut link = netlink.link(interface_index(interface)?)?;
        if let Some((_, below)) = link.vlan {
            link = netlink.link(below)?;
        }
        let features = Features::of(link.index);
        Ok(Self {
            is_virtual: link.is_virtual(),
            driver: features.map(|features| features.driver),
            zero_copy: features.map(|features| features.zero_copy),
            receive_queues: link.rx_queues,
            mtu: link.mtu,
            program: link.program,
            program_name: link.program.and_then(steering::program_name),
            interface: link.name,
        })
    }

    /// The modes that [`XdpMode::Auto`] tries, best first: never none, and never one that the
    /// driver is known not to have. Where a program of ours is, its mode is taken as it is.
    #[must_use]
    pub fn modes(&self) -> Vec<XdpMode> {
        let known = self.driver.zip(self.zero_copy);
        let features = known.map(|(driver, zero_copy)| Features { driver, zero_copy });
        let mode = |(mode, zero_copy)| match (mode, zero_copy) {
            (Mode::Generic, _) => XdpMode::Generic,
            (Mode::Driver, false) => XdpMode::Driver,
            (Mode::Driver, true) => XdpMode::ZeroCopy,
        };
        attempts(self.is_virtual, features, XdpMode::Auto).into_iter().map(mode).collect()
    }

    /// Whether the program that is attached is ours, of this version or another, which its name
    /// tells: processes share it. `None`: there is no program, or its name may not be read.
    #[must_use]
    pub fn is_program_ours(&self) -> Option<bool> {
        self.program_name.as_deref().map(steering::is_ours)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::alone;
    use super::super::namespace::{cable, in_a_fresh_namespace, try_ip};
    use super::super::steering::Steering;
    use super::*;

    fn of(name: &str) -> XdpSupport {
        XdpSupport::of(&Interface::from(name)).unwrap()
    }

    #[test]
    fn a_cable_has_generic_and_driver_mode_and_is_left_as_it_is() {
        in_a_fresh_namespace(|| {
            cable();
            let left = of("left");
            assert_eq!((left.interface.as_str(), left.mtu, left.receive_queues), ("left", 1500, 1));
            assert!(left.is_virtual && left.zero_copy != Some(true));
            assert_eq!(left.driver.is_some(), left.zero_copy.is_some(), "both are told, or none");
            assert_eq!(left.modes(), [XdpMode::Generic, XdpMode::Driver]);
            assert_eq!((left.program, left.is_program_ours()), (None, None));
            assert_eq!(of("10.0.0.1"), left, "it may be named by its address");
            assert_eq!(of("left"), left, "asking changes nothing");
        });
    }

    #[test]
    fn a_vlan_has_what_carries_it_has() {
        in_a_fresh_namespace(|| {
            cable();
            if let Err(said) = try_ip("link add link left name tagged type vlan id 7") {
                eprintln!("skipped: this kernel has no VLANs: {said}");
                return;
            }
            assert_eq!(of("tagged"), of("left"));
        });
    }

    #[test]
    fn our_program_is_known_by_its_name() {
        alone(|| {
            cable();
            let index = interface_index(&Interface::from("left")).unwrap();
            let steering = Steering::attach(index, None, Mode::Generic, 3_000).unwrap();
            let left = of("left");
            assert_eq!(left.program, Some(steering.program()));
            assert_ne!(left.is_program_ours(), Some(false), "{left:?}");
            if let Some(name) = &left.program_name {
                assert_eq!(name, "gapless1_skb");
            }
            assert_eq!(of("right").program, None);
            let foreign = XdpSupport { program_name: Some("xdp_pass".into()), ..left };
            assert_eq!(foreign.is_program_ours(), Some(false));
        });
    }

    #[test]
    fn modes_are_those_that_may_be_had() {
        let modes = |is_virtual, driver, zero_copy| {
            XdpSupport { is_virtual, driver, zero_copy, ..XdpSupport::default() }.modes()
        };
        use XdpMode::{Driver, Generic, ZeroCopy};
        assert_eq!(modes(false, None, None), [ZeroCopy, Driver, Generic]);
        assert_eq!(modes(false, Some(true), Some(false)), [Driver, Generic]);
        assert_eq!(modes(true, Some(true), Some(false)), [Generic, Driver]);
        assert_eq!(modes(true, Some(false), Some(false)), [Generic]);
    }

    #[test]
    fn an_interface_that_is_not_there_is_an_error() {
        let error = XdpSupport::of(&Interface::from("nosuch0")).unwrap_err();
        assert!(matches!(error, NetError::InterfaceMissing { .. }), "{error}");
    }
}
