//! Parts of the kernel that answer over generic netlink, each by a number that differs from host to
//! host.

use nix::sys::socket::SockProtocol;

use super::super::sys::Errno;
use super::attributes::{Attributes, Request};
use super::conversation::Conversation;

/// Bytes of the header that messages have after netlink's own: command, version, two spare.
pub(super) const HEADER: usize = 4;
const VERSION: u8 = 1;

/// Questions to one such part.
#[derive(Debug)]
pub(super) struct Family {
    kernel: Conversation,
    /// The kind of its messages.
    number: u16,
}

impl Family {
    /// Opens a socket in the calling thread's network namespace. `ENOENT` if the kernel has no such
    /// part.
    pub(super) fn open(name: &str) -> Result<Self, Errno> {
        let kernel = Conversation::open(SockProtocol::NetlinkGeneric)?;
        let header = [libc::CTRL_CMD_GETFAMILY as u8, VERSION, 0, 0];
        let name = [name.as_bytes(), b"\0"].concat();
        let request = Request::new(libc::GENL_ID_CTRL as u16, 0, &header)
            .with(libc::CTRL_ATTR_FAMILY_NAME as u16, &name);
        let number = kernel.one(request, libc::GENL_ID_CTRL as u16, |body| {
            Attributes::after(HEADER, body).half(libc::CTRL_ATTR_FAMILY_ID as u16)
        })?;
        Ok(Self { kernel, number })
    }

    /// Asks for one thing by a command with one attribute, and reads the answer.
    pub(super) fn one<T>(
        &self,
        command: u8,
        (kind, value): (u16, &[u8]),
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, Errno> {
        let header = [command, VERSION, 0, 0];
        let request = Request::new(self.number, 0, &header).with(kind, value);
        self.kernel.one(request, self.number, read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_the_kernel_lacks_is_told() {
        assert_eq!(Family::open("nosuchthing").unwrap_err(), Errno(libc::ENOENT));
        let control = Family::open("nlctrl").unwrap();
        assert_eq!(control.number, libc::GENL_ID_CTRL as u16);
    }
}
