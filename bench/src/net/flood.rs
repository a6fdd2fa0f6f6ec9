//! `floor/gso`: a flood of packed messages in super-datagrams, nothing lost, nothing checked.
//!
//! The sender's messages lie packed in a buffer from the start; it does nothing but send that
//! buffer, which the kernel cuts into datagrams (`UDP_SEGMENT`), or, where a datagram alone is
//! almost as long as a packet may be, is one datagram. The receiver takes as many datagrams as the
//! kernel puts together again (`UDP_GRO`), with their length, and touches every message. What is in
//! flight stays below what the receiver's socket holds: a shared word tells how much was taken.

use std::io::{self, ErrorKind};
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result, ensure};
use libc::{c_int, c_void};

use super::meeting::{tell, told};
use crate::link::{Link, Receiver, Sender};
use crate::mapping::Mapping;

/// The longest payload of an IPv4 datagram, and so of a super-datagram.
const SUPER_MAX: usize = 65_507;
/// Segments that any kernel takes in one call.
const SEGMENTS_MAX: usize = 64;
/// Bytes in flight at most: more are of no use, and leave the second-level cache.
const WINDOW_MAX: usize = 512 * 1024;
/// Bytes asked for in the receiver's socket; what is granted is asked afterwards.
const SOCKET_BYTES: c_int = 4 << 20;
/// Where the receiver tells how many messages it took.
const TAKEN: usize = 0;
const CREDIT_BYTES: usize = 4096;

/// A flood of messages of `N` bytes, as many as fit in datagrams of `datagram_bytes`.
pub(crate) struct Flood<const N: usize> {
    pub(crate) datagram_bytes: usize,
}

impl<const N: usize> Flood<N> {
    /// Bytes of a datagram: whole messages.
    fn segment_bytes(&self) -> usize {
        self.datagram_bytes / N * N
    }

    /// Datagrams that one call sends.
    fn segments(&self) -> usize {
        (SUPER_MAX / self.segment_bytes()).clamp(1, SEGMENTS_MAX)
    }

    /// Why there are no super-datagrams here; `None` if there are.
    pub(crate) fn obstacle() -> Option<String> {
        let refused = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|socket| {
            set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 1024)?;
            set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1)
        });
        refused.err().map(|error| format!("no UDP segmentation offload: {error}"))
    }
}

impl<const N: usize> Link for Flood<N> {
    type Sender = FloodSender<N>;
    type Receiver = FloodReceiver<N>;

    fn obstacle(&self) -> Option<String> {
        Self::obstacle()
    }

    fn open_sender(&self, dir: &Path, channel: &str) -> Result<FloodSender<N>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("bind the sender")?;
        if self.segments() > 1 {
            segment(&socket, self.segment_bytes()).context("UDP_SEGMENT")?;
        }
        socket.set_nonblocking(true).context("make the socket non-blocking")?;
        let credit = Mapping::create(&dir.join(format!("{channel}.credit")), CREDIT_BYTES);
        Ok(FloodSender {
            socket,
            credit: credit.context("create the credit word")?,
            receiver: dir.join(format!("{channel}.receiver")),
            packed: vec![0; self.segments() * self.segment_bytes()],
            is_packed: false,
            window: 0,
            sent: 0,
            calls: 0,
        })
    }

    fn open_receiver(&self, dir: &Path, channel: &str) -> Result<FloodReceiver<N>> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("bind the receiver")?;
        set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).context("UDP_GRO")?;
        socket.set_nonblocking(true).context("make the socket non-blocking")?;
        let window = room(&socket)? / N;
        let unit = self.segments() * self.segment_bytes() / N;
        ensure!(window >= unit, "the socket's room of {window} messages is below {unit}");
        let credit = Mapping::open(&dir.join(format!("{channel}.credit")));
        let address = socket.local_addr().context("ask for the socket's address")?;
        tell(dir, &format!("{channel}.receiver"), &format!("{address} {window}"))?;
        Ok(FloodReceiver {
            socket,
            credit: credit.context("open the credit word")?,
            buffer: vec![0; 1 << 16],
            received: 0,
            calls: 0,
        })
    }
}

/// Payload bytes that the receiver's socket surely holds. The kernel counts what packets take in
/// memory, which is less than twice their payload at the sizes sent here.
fn room(socket: &UdpSocket) -> Result<usize> {
    // Root may have more than the system's limit; without that right the limit applies.
    let forced = set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, SOCKET_BYTES);
    forced
        .or_else(|_| set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, SOCKET_BYTES))
        .context("SO_RCVBUF")?;
    let granted = option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF).context("SO_RCVBUF")?;
    Ok((usize::try_from(granted)? / 2).min(WINDOW_MAX))
}

/// Lets the kernel cut what `socket` sends into datagrams of so many bytes.
pub(crate) fn segment(socket: &UdpSocket, bytes: usize) -> io::Result<()> {
    set_option(socket, libc::SOL_UDP, libc::UDP_SEGMENT, bytes as c_int)
}

fn set_option(socket: &UdpSocket, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let bytes = size_of::<c_int>() as libc::socklen_t;
    let value = (&raw const value).cast::<c_void>();
    // SAFETY: `value` points to an integer that lives until the call returns, `bytes` is its size.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, bytes) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn option(socket: &UdpSocket, level: c_int, name: c_int) -> io::Result<c_int> {
    let (mut value, mut bytes) = (0 as c_int, size_of::<c_int>() as libc::socklen_t);
    let into = (&raw mut value).cast::<c_void>();
    // SAFETY: `into` points to an integer and `bytes` to its size; both live until the return.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, into, &mut bytes) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// The sending end.
pub(crate) struct FloodSender<const N: usize> {
    socket: UdpSocket,
    credit: Mapping,
    /// Where the receiver tells its address.
    receiver: std::path::PathBuf,
    packed: Vec<u8>,
    is_packed: bool,
    /// Messages in flight at most.
    window: u64,
    sent: u64,
    calls: u64,
}

impl<const N: usize> Sender for FloodSender<N> {
    fn connect(&mut self) -> Result<()> {
        let dir = self.receiver.parent().context("the receiver's file has a directory")?;
        let name = self.receiver.file_name().and_then(|name| name.to_str());
        let text = told(dir, name.context("a plain name")?).context("no receiver is open")?;
        let (address, window) = text.split_once(' ').context("an address and a window")?;
        self.window = window.parse().context("the window")?;
        let address: SocketAddr = address.parse().context("the receiver's address")?;
        self.socket.connect(address).context("connect to the receiver")
    }

    fn try_send(&mut self, payload: &[u8]) -> bool {
        self.send_some(payload, 1) > 0
    }

    #[inline(always)]
    fn send_some(&mut self, payload: &[u8], _limit: usize) -> usize {
        if !self.is_packed {
            self.packed.chunks_exact_mut(N).for_each(|message| message.copy_from_slice(payload));
            self.is_packed = true;
        }
        let unit = self.packed.len() / N;
        let taken = self.credit.word(TAKEN).load(Ordering::Acquire); // pairs with: CREDIT
        if self.sent + unit as u64 - taken > self.window {
            return 0;
        }
        self.calls += 1;
        match self.socket.send(&self.packed) {
            Ok(bytes) => assert_eq!(bytes, self.packed.len(), "a datagram was cut"),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return 0,
            Err(error) => panic!("send: {error}"),
        }
        self.sent += unit as u64;
        unit
    }

    fn calls(&mut self) -> Option<u64> {
        Some(self.calls)
    }
}

/// The receiving end.
pub(crate) struct FloodReceiver<const N: usize> {
    socket: UdpSocket,
    credit: Mapping,
    buffer: Vec<u8>,
    received: u64,
    calls: u64,
}

/// Room for control messages, aligned as the kernel wants them.
#[repr(C, align(8))]
struct ControlRoom([u8; 64]);

impl<const N: usize> FloodReceiver<N> {
    /// Takes what the kernel has put together: its bytes, and the bytes of each datagram in it.
    #[inline(always)]
    fn receive(&mut self) -> io::Result<(usize, usize)> {
        let mut room = ControlRoom([0; 64]);
        let mut part =
            libc::iovec { iov_base: self.buffer.as_mut_ptr().cast(), iov_len: self.buffer.len() };
        // SAFETY: a structure of integers and pointers, for all of which zero is a value.
        let mut header: libc::msghdr = unsafe { zeroed() };
        header.msg_iov = &raw mut part;
        header.msg_iovlen = 1;
        header.msg_control = room.0.as_mut_ptr().cast();
        header.msg_controllen = room.0.len();
        self.calls += 1;
        // SAFETY: the header points to one part and to control room of the lengths given, all of
        // which live until the return.
        let bytes = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut header, 0) };
        let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
        Ok((bytes, segment_bytes(&header).unwrap_or(bytes)))
    }
}

/// The length of the datagrams that the kernel has put together, if it has.
#[inline(always)]
fn segment_bytes(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: the kernel has filled the control room that the header points to, and set its length.
    let message = unsafe { libc::CMSG_FIRSTHDR(header) };
    // SAFETY: null, or the first control message, aligned and whole in that room.
    let message_header = unsafe { message.as_ref() }?;
    let is_length =
        message_header.cmsg_level == libc::SOL_UDP && message_header.cmsg_type == libc::UDP_GRO;
    if !is_length {
        return None;
    }
    // SAFETY: `message` is the first control message, as above.
    let data = unsafe { libc::CMSG_DATA(message) };
    // SAFETY: the data of this control message is one integer; maybe not aligned.
    let bytes = unsafe { ptr::read_unaligned(data.cast::<c_int>()) };
    usize::try_from(bytes).ok().filter(|bytes| *bytes > 0)
}

impl<const N: usize> Receiver for FloodReceiver<N> {
    #[inline(always)]
    fn poll(&mut self, _limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        let (bytes, segment) = match self.receive() {
            Ok(received) => received,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return 0,
            Err(error) => panic!("receive: {error}"),
        };
        let mut count = 0;
        for datagram in self.buffer[..bytes].chunks(segment) {
            for message in datagram.chunks_exact(N) {
                handler(message);
            }
            count += datagram.len() / N;
        }
        self.received += count as u64;
        self.credit.word(TAKEN).store(self.received, Ordering::Release); // pairs with: CREDIT
        count
    }

    fn calls(&mut self) -> Option<u64> {
        Some(self.calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_hold_whole_messages_and_calls_whole_datagrams() {
        let shape = |segment, segments| (segment, segments);
        let of = |flood: Flood<64>| shape(flood.segment_bytes(), flood.segments());
        assert_eq!(of(Flood { datagram_bytes: 1408 }), (1408, 46));
        let of = |bytes| {
            let flood = Flood::<1024> { datagram_bytes: bytes };
            shape(flood.segment_bytes(), flood.segments())
        };
        assert_eq!(of(1408), (1024, 63));
        assert_eq!(of(8192), (8192, 7));
        assert_eq!(of(64_512), (64_512, 1));
    }

    #[test]
    fn a_flood_stops_at_the_window_and_arrives_whole() {
        if let Some(obstacle) = Flood::<1024>::obstacle() {
            assert!(obstacle.contains("segmentation"), "{obstacle}");
            return;
        }
        for datagram_bytes in [1408, 8192, 64_512] {
            let flood = Flood::<1024> { datagram_bytes };
            let dir = tempfile::tempdir().unwrap();
            let mut sender = flood.open_sender(dir.path(), "f").unwrap();
            let mut receiver = flood.open_receiver(dir.path(), "f").unwrap();
            sender.connect().unwrap();
            let payload = [7; 1024];
            let (mut sent, mut seen) = (0, 0);
            for _ in 0..20 {
                loop {
                    match sender.send_some(&payload, usize::MAX) {
                        0 => break,
                        count => sent += count,
                    }
                }
                while seen < sent {
                    seen += receiver.poll(usize::MAX, |message| assert_eq!(message, payload));
                }
                assert_eq!(seen, sent);
            }
            assert!(sent > 0 && sender.calls() <= Some(sent as u64));
        }
    }
}
