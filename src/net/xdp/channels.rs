//! How many of an interface's queues are in use, which its driver tells over ethtool's netlink.

use super::super::sys::Errno;
use super::attributes::{Attributes, Request};
use super::family::{Family, HEADER};

/// Constants of `linux/ethtool_netlink.h`, which libc lacks.
const CHANNELS_GET: u8 = 17;
const INTERFACE: u16 = 1;
const INTERFACE_INDEX: u16 = 1;
const RECEIVING: u16 = 6;
const COMBINED: u16 = 9;

/// Questions to drivers about their queues.
#[derive(Debug)]
pub(super) struct Channels(Family);

impl Channels {
    /// Opens a socket in the calling thread's network namespace. `ENOENT` if the kernel has no such
    /// part.
    pub(super) fn open() -> Result<Self, Errno> {
        Family::open("ethtool").map(Self)
    }

    /// How many queues an interface receives by; `None` if its driver does not tell.
    pub(super) fn receiving(&self, interface: u32) -> Option<u32> {
        let index = Request::nest(&[(INTERFACE_INDEX, &interface.to_ne_bytes())]);
        let which = (INTERFACE | libc::NLA_F_NESTED as u16, &index[..]);
        self.0.one(CHANNELS_GET, which, receiving).ok()
    }
}

/// Reads a message about queues: those that only receive, and those that send as well.
fn receiving(body: &[u8]) -> Option<u32> {
    let attributes = Attributes::after(HEADER, body);
    let count = |kind| attributes.word(kind).unwrap_or(0);
    Some(count(RECEIVING).saturating_add(count(COMBINED))).filter(|queues| *queues > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_only_receive_and_those_that_do_both_count() {
        let told = |counts: &[(u16, u32)]| {
            let mut message = Request::new(0, 0, &[0; HEADER]);
            for (kind, count) in counts {
                message = message.with(*kind, &count.to_ne_bytes());
            }
            receiving(&message.finish(0)[super::super::attributes::MESSAGE_HEADER..])
        };
        assert_eq!(told(&[(2, 9), (5, 9), (7, 9), (RECEIVING, 2), (COMBINED, 4)]), Some(6));
        assert_eq!(told(&[(RECEIVING, 1)]), Some(1));
        assert_eq!(told(&[(COMBINED, u32::MAX), (RECEIVING, 1)]), Some(u32::MAX));
        assert_eq!(told(&[(7, 9)]), None, "it only sends");
        assert_eq!(told(&[]), None);
    }

    #[test]
    fn an_interface_that_is_not_there_has_none() {
        match Channels::open() {
            Ok(channels) => assert_eq!(channels.receiving(u32::MAX >> 1), None),
            Err(error) => eprintln!("skipped: {error:?}"),
        }
    }
}
