//! Whether what the kernel knows of the network has changed.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno as NixErrno;
use nix::sys::socket::{MsgFlags, NetlinkAddr, SockProtocol, bind, recv};

use super::super::NetError;
use super::attributes::{Attributes, Message, Messages, word_at};
use super::conversation::socket;
use super::frame::Mac;
use super::netlink::{NEIGHBOUR_HEADER, neighbour};

/// What is read of a notice.
const NOTICE_BYTES: usize = 2_048;
/// The most notices that one look takes.
const NOTICES_MAX: usize = 1 << 12;
/// A constant of the kernel's that libc lacks.
const RTNLGRP_NEXTHOP_BIT: i32 = 1 << 31;

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// What is known of a host on an interface's wire: its address, if that may be used.
    Neighbour { device: u32, host: IpAddr, mac: Option<Mac> },
    /// A link, an address, a route; or nobody knows what.
    Other,
}

/// Tells when links, addresses, routes or neighbours have changed. Asking is one system call when
/// nothing has.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) socket: OwnedFd,
    room: Box<[u8]>,
}

impl Watch {
    /// Opens a socket in the calling thread's network namespace. Changes count from now on.
    pub(super) fn open() -> Result<Self, NetError> {
        let groups = libc::RTMGRP_LINK
            | libc::RTMGRP_NEIGH
            | libc::RTMGRP_IPV4_IFADDR
            | libc::RTMGRP_IPV6_IFADDR
            | libc::RTMGRP_IPV4_ROUTE
            | libc::RTMGRP_IPV6_ROUTE
            | libc::RTMGRP_IPV4_RULE
            | 1 << (libc::RTNLGRP_IPV6_RULE - 1)
            | RTNLGRP_NEXTHOP_BIT;
        let bound = socket(SockProtocol::NetlinkRoute).and_then(|socket| {
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups as u32))?;
            Ok(Self { socket, room: vec![0; NOTICE_BYTES].into() })
        });
        bound.map_err(|error| NetError::refused("watch the network's changes", error as i32))
    }

    /// Whether anything has changed since this was last asked that matters to the caller; takes
    /// note of all.
    ///
    /// Too many changes to remember matter; so does a failure, since then nobody knows.
    pub(super) fn changed(&mut self, matters: impl Fn(&Change) -> bool) -> bool {
        let mut changed = false;
        for _ in 0..NOTICES_MAX {
            // Of a long one the rest is cut off: it is not about a neighbour.
            match recv(self.socket.as_raw_fd(), &mut self.room, MsgFlags::MSG_DONTWAIT) {
                Ok(len) => changed = changed || matters(&change(&self.room[..len])),
                Err(NixErrno::ENOBUFS | NixErrno::EINTR) => changed = true,
                Err(NixErrno::EAGAIN) => return changed,
                Err(_) => return true,
            }
        }
        changed
    }
}

/// What a notice is about.
fn change(notice: &[u8]) -> Change {
    let mut messages = Messages(notice);
    let (Some(message), None) = (messages.next(), messages.next()) else { return Change::Other };
    neighbour_change(&message).unwrap_or(Change::Other)
}

fn neighbour_change(message: &Message<'_>) -> Option<Change> {
    let told = [libc::RTM_NEWNEIGH, libc::RTM_DELNEIGH].contains(&message.kind);
    let device = word_at(message.body, 4).filter(|_| told)?;
    let attributes = Attributes::after(NEIGHBOUR_HEADER, message.body);
    let host = attributes.address(libc::NDA_DST)?;
    let mac = neighbour(message.body)?.filter(|_| message.kind == libc::RTM_NEWNEIGH);
    Some(Change::Neighbour { device, host, mac })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::super::sys::{interest, poll};
    use super::super::namespace::{cable, in_a_fresh_namespace, ip};
    use super::*;

    #[test]
    fn a_neighbour_is_told_from_the_rest() {
        in_a_fresh_namespace(|| {
            cable();
            let mut watch = Watch::open().unwrap();
            let device = nix::net::if_::if_nametoindex("left").unwrap();
            let told = |watch: &mut Watch, line: &str| {
                watch.changed(|_| true);
                ip(line);
                let seen = std::cell::RefCell::new(Vec::new());
                let fd = watch.socket.as_raw_fd();
                poll(&mut [interest(fd, libc::POLLIN)], Duration::from_secs(20)).unwrap();
                let note = |change: &Change| {
                    seen.borrow_mut().push(*change);
                    false
                };
                assert!(!watch.changed(note), "what does not matter is no change");
                seen.into_inner()
            };
            let host = "10.0.0.9".parse().unwrap();
            let mac = Some([2, 0, 0, 0, 0, 9]);
            let known = Change::Neighbour { device, host, mac };
            let line = "neighbour add 10.0.0.9 lladdr 02:00:00:00:00:09 dev left nud permanent";
            assert!(told(&mut watch, line).contains(&known));
            let gone = Change::Neighbour { device, host, mac: None };
            assert!(told(&mut watch, "neighbour delete 10.0.0.9 dev left").contains(&gone));
            assert!(told(&mut watch, "link set left mtu 1400").contains(&Change::Other));
        });
    }

    #[test]
    fn what_is_no_notice_may_be_anything() {
        for notice in [&[][..], &[0; 3], &[0xff; 100], &[0; 2_048]] {
            assert_eq!(change(notice), Change::Other);
        }
    }
}
