//! Questions to the kernel over netlink and its answers, one at a time.
//!
//! An answer is bounded in time and length, and nobody but the kernel can give one.

use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno as NixErrno;
use nix::sys::socket::{
    self as sockets, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType,
};

use super::super::sys::{Errno, interest, poll};
use super::attributes::{Message, Messages, Request, word_at};

/// The longest wait for a part of an answer. The kernel answers within the call that asks.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// More than one datagram of an answer takes: the kernel fills at most 32 KiB, but for a link with
/// hundreds of virtual functions, which are not asked for.
const ANSWER_BYTES: usize = 1 << 16;
/// The most datagrams of one answer; a few hundred addresses fit each.
const ANSWER_DATAGRAMS_MAX: usize = 1 << 12;

/// A socket to one part of the kernel. One question at a time, hence not `Sync`.
#[derive(Debug)]
pub(super) struct Conversation {
    socket: OwnedFd,
    /// The number of the last request.
    sequence: Cell<u32>,
}

impl Conversation {
    /// Opens a socket in the calling thread's network namespace.
    pub(super) fn open(part: SockProtocol) -> Result<Self, Errno> {
        let connected = socket(part).and_then(|socket| {
            // Connected, it takes nothing from anybody but the kernel.
            sockets::connect(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
            Ok(Self { socket, sequence: Cell::new(0) })
        });
        connected.map_err(|error| Errno(error as i32))
    }

    /// Asks for one thing, told in a message of the kind `told`.
    pub(super) fn one<T>(
        &self,
        request: Request,
        told: u16,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<T, Errno> {
        let mut answer = None;
        self.ask(request, |message| {
            if message.kind == told {
                answer = read(message.body);
            }
        })?;
        answer.ok_or(Errno(libc::EBADMSG))
    }

    /// Asks, and hands over each message of the answer. `EINTR`: what was asked for changed while
    /// the kernel told it.
    pub(super) fn ask(
        &self,
        request: Request,
        mut each: impl FnMut(Message<'_>),
    ) -> Result<(), Errno> {
        let sequence = self.sequence.get().wrapping_add(1);
        self.sequence.set(sequence);
        let request = request.finish(sequence);
        let fd = self.socket.as_raw_fd();
        again(|| sockets::send(fd, &request, MsgFlags::empty()))?;
        let mut room = vec![0; ANSWER_BYTES];
        let mut torn = false;
        for _ in 0..ANSWER_DATAGRAMS_MAX {
            let len = self.receive(&mut room)?;
            // What remains of an answer that was given up has another number.
            for message in Messages(&room[..len]).filter(|message| message.sequence == sequence) {
                let flags = i32::from(message.flags);
                torn |= flags & libc::NLM_F_DUMP_INTR != 0;
                let kind = i32::from(message.kind);
                if kind == libc::NLMSG_ERROR || kind == libc::NLMSG_DONE {
                    return match verdict(message.body) {
                        0 if torn => Err(Errno(libc::EINTR)),
                        0 => Ok(()),
                        errno => Err(Errno(errno)),
                    };
                }
                each(message);
                if flags & libc::NLM_F_MULTI == 0 {
                    return Ok(());
                }
            }
        }
        Err(Errno(libc::EOVERFLOW))
    }

    /// Receives one datagram of an answer, when it comes; returns its length.
    fn receive(&self, room: &mut [u8]) -> Result<usize, Errno> {
        let fd = self.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC; // the whole length, if cut
        let len = match again(|| sockets::recv(fd, room, flags)) {
            Err(error) if error.would_block() => {
                match poll(&mut [interest(fd, libc::POLLIN)], ANSWER_WAIT) {
                    Ok(0) => return Err(Errno(libc::ETIMEDOUT)),
                    Ok(_) | Err(Errno(libc::EINTR)) => return Ok(0),
                    Err(error) => return Err(error),
                }
            }
            result => result?,
        };
        if len <= room.len() { Ok(len) } else { Err(Errno(libc::EMSGSIZE)) }
    }
}

/// A socket that never blocks, in the calling thread's network namespace.
pub(super) fn socket(part: SockProtocol) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    sockets::socket(AddressFamily::Netlink, SockType::Raw, flags, part)
}

/// Calls again when a signal came between.
fn again(mut call: impl FnMut() -> nix::Result<usize>) -> Result<usize, Errno> {
    loop {
        match call() {
            Err(NixErrno::EINTR) => {}
            result => return result.map_err(|error| Errno(error as i32)),
        }
    }
}

/// What the end of an answer says: 0, or why there is no more.
fn verdict(body: &[u8]) -> i32 {
    word_at(body, 0).map_or(libc::EBADMSG, |word| (word as i32).saturating_neg())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told() {
        assert_eq!(verdict(&(-libc::ENODEV).to_ne_bytes()), libc::ENODEV);
        assert_eq!(verdict(&[0; 4]), 0);
        assert_eq!(verdict(&[0; 3]), libc::EBADMSG);
        assert_eq!(verdict(&i32::MIN.to_ne_bytes()), i32::MAX);
    }

    #[test]
    fn what_remains_of_another_answer_is_passed_over() {
        let kernel = Conversation::open(SockProtocol::NetlinkRoute).unwrap();
        let links = || Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; 16]);
        let unread = links().finish(77);
        let fd = kernel.socket.as_raw_fd();
        sockets::send(fd, &unread, MsgFlags::empty()).unwrap();
        let error = kernel.ask(Request::new(u16::MAX, 0, &[0; 16]), |_| ()).unwrap_err();
        assert_eq!(error, Errno(libc::EOPNOTSUPP), "this question's, not the dump's");
        let mut names = 0;
        kernel
            .ask(links(), |message| {
                assert_eq!(message.sequence, 2);
                names += 1;
            })
            .unwrap();
        assert!(names >= 1, "there is a loopback interface");
    }

    #[test]
    fn an_answer_of_another_kind_is_none() {
        let kernel = Conversation::open(SockProtocol::NetlinkRoute).unwrap();
        let mut header = [0; 16];
        header[4..8].copy_from_slice(&1_u32.to_ne_bytes());
        let ask = |told| {
            let request = Request::new(libc::RTM_GETLINK, 0, &header);
            kernel.one(request, told, |body| Some(body.len()))
        };
        assert_eq!(ask(libc::RTM_NEWADDR), Err(Errno(libc::EBADMSG)));
        assert!(ask(libc::RTM_NEWLINK).unwrap() > 16);
    }
}
