//! Datagram I/O: moves bytes between sockets and callers, knows no protocol.
//!
//! One trait, [`Datagrams`], and who implements it: [`SocketNetwork`] (plain non-blocking sockets),
//! [`UringNetwork`] (io_uring, one system call for many sockets), [`XdpNetwork`] (AF_XDP, past the
//! kernel's network stack: the quickest for a lone packet, and takes rights) and [`Faulty`], which
//! wraps another and makes it a bad one. [`Network`] chooses between the back ends at run time.
//!
//! Nothing here blocks but [`Datagrams::wait`], and nothing allocates but [`Datagrams::add`] (and
//! AF_XDP, when it looks for the way to a destination). Through a socket a lone datagram costs one
//! system call to send and one to receive; a flood is moved in super datagrams (UDP GSO and GRO),
//! many a call. What UDP may do, this may do: datagrams get lost, doubled and reordered, and only
//! counters tell.
//!
//! ```
//! use gapless::net::{Backend, Datagrams, Network, Run, SocketOptions, SocketSet};
//! # use std::net::SocketAddr;
//! let mut network = Network::open(Backend::Socket)?;
//! let any: SocketAddr = "127.0.0.1:0".parse()?;
//! let here = network.add(&SocketOptions::new(any))?;
//! let there = network.local_address(here);
//! let out = network.add(&SocketOptions::new(any).connect(there))?;
//!
//! let run = Run { bytes: b"abcabcab", segment_bytes: 3 }; // three datagrams: abc, abc, ab
//! assert_eq!(network.send(out, None, &[run])?, 1);
//! let mut seen = Vec::new();
//! while seen.len() < 3 {
//!     network.receive(SocketSet::of(here), 16, |datagram| seen.push(datagram.bytes.to_vec()))?;
//! }
//! assert_eq!(seen, [b"abc".to_vec(), b"abc".to_vec(), b"ab".to_vec()]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Deliberately absent: threads, timers, name resolution, fragmentation (the kernel is told not to
//! fragment either), and any look into the bytes.

mod address;
mod error;
mod fault;
mod gear;
mod lane;
mod member;
mod open;
mod options;
#[expect(unsafe_code, reason = "the submission queue takes pointers")]
mod ring;
mod socket;
#[expect(unsafe_code, reason = "system calls on sockets")]
mod sys;
mod uring;
mod xdp;

use std::net::SocketAddr;
use std::time::Duration;

pub use error::NetError;
pub use fault::{Direction, FaultCounters, Faults, Faulty};
pub use options::{Interface, SocketOptions, XdpMode};
pub use socket::SocketNetwork;
pub use uring::UringNetwork;
/// For the fuzz targets alone: may change or go at any time.
#[doc(hidden)]
pub use xdp::frame;
pub use xdp::{XdpNetwork, XdpSupport};

/// The most sockets that one network holds: a [`SocketSet`] has this many bits.
pub const SOCKETS_MAX: usize = 32;
/// The most datagrams in one [`Run`] (the kernel's limit).
pub const RUN_SEGMENTS_MAX: usize = 64;
/// The most bytes in one [`Run`], and in one datagram: what UDP over IPv4 can carry. Over IPv6 the
/// kernel takes 65,527.
pub const RUN_BYTES_MAX: usize = 65_507;

/// A datagram that came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Datagram<'a> {
    /// The socket that it came in on: what [`Datagrams::add`] returned.
    pub socket: usize,
    /// Who sent it.
    pub source: SocketAddr,
    /// What it carries; may be empty.
    pub bytes: &'a [u8],
}

/// Consecutive datagrams to one destination: `bytes` cut into pieces of `segment_bytes`, of which
/// the last may be shorter. At most [`RUN_SEGMENTS_MAX`] pieces and [`RUN_BYTES_MAX`] bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// All datagrams' payloads, end to end.
    pub bytes: &'a [u8],
    /// The payload of each but the last, in bytes. 0, or no less than `bytes`, means one datagram.
    pub segment_bytes: usize,
}

impl<'a> Run<'a> {
    /// One datagram.
    #[must_use]
    #[inline]
    pub fn one(bytes: &'a [u8]) -> Self {
        Self { bytes, segment_bytes: bytes.len() }
    }

    /// How many datagrams this is. An empty run is one empty datagram.
    #[must_use]
    #[inline]
    pub fn segments(&self) -> usize {
        if self.is_one() { 1 } else { self.bytes.len().div_ceil(self.segment_bytes) }
    }

    /// The payload of the longest datagram, in bytes.
    #[inline]
    pub(crate) fn piece_bytes(&self) -> usize {
        if self.is_one() { self.bytes.len() } else { self.segment_bytes }
    }

    /// The datagrams' payloads.
    #[inline]
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (one, many) =
            if self.is_one() { (Some(self.bytes), &[][..]) } else { (None, self.bytes) };
        one.into_iter().chain(many.chunks(self.segment_bytes.max(1)))
    }

    /// Whether it is a single datagram.
    #[inline]
    pub(crate) fn is_one(&self) -> bool {
        self.segment_bytes == 0 || self.bytes.len() <= self.segment_bytes
    }

    /// Whether the kernel takes it as one super datagram.
    #[inline]
    pub(crate) fn fits_one_call(&self) -> bool {
        self.bytes.len() <= RUN_BYTES_MAX && self.segments() <= RUN_SEGMENTS_MAX
    }
}

/// Sockets to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketSet(u32);

impl SocketSet {
    /// This socket only.
    ///
    /// # Panics
    /// If `socket` is [`SOCKETS_MAX`] or more: no network has such a socket.
    #[must_use]
    #[inline]
    pub const fn of(socket: usize) -> Self {
        assert!(socket < SOCKETS_MAX, "a network has no such socket");
        Self(1 << socket)
    }

    /// Every socket.
    #[must_use]
    #[inline]
    pub const fn all() -> Self {
        Self(u32::MAX)
    }

    /// None.
    #[must_use]
    #[inline]
    pub const fn none() -> Self {
        Self(0)
    }

    /// These and one more.
    ///
    /// # Panics
    /// As [`of`](Self::of).
    #[must_use]
    #[inline]
    pub const fn with(self, socket: usize) -> Self {
        Self(self.0 | Self::of(socket).0)
    }

    /// The bits of those that a network of `count` sockets has.
    #[inline]
    pub(crate) fn among(self, count: usize) -> u32 {
        self.0 & u32::MAX.checked_shr(u32::BITS - count as u32).unwrap_or(0)
    }

    /// Whether `socket` is among them.
    #[must_use]
    #[inline]
    pub const fn contains(self, socket: usize) -> bool {
        socket < SOCKETS_MAX && self.0 & (1 << socket) != 0
    }
}

/// What one socket did. Counters start at 0 when the socket is added and only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SocketStatistics {
    /// Datagrams handed over.
    pub datagrams_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Datagrams that the kernel took.
    pub datagrams_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Packets that the kernel dropped at this socket, most often because its receive buffer was
    /// full. A super datagram counts as one. The kernel's counter has 32 bits and wraps.
    pub kernel_drops: u64,
    /// Datagrams that were accepted but could not leave: interface down, no route, no memory,
    /// filtered. Lost, as a network would lose them.
    pub send_failures: u64,
    /// Times that the network answered that nobody is there (ICMP unreachable).
    pub unreachable: u64,
    /// System calls made for this socket to send and receive, empty polls included.
    pub system_calls: u64,
    /// Bytes that its receive buffer takes, the kernel's bookkeeping included. Not a counter.
    pub receive_buffer_bytes: u64,
}

/// Sockets that send and receive datagrams. See the [module](self) for an example.
pub trait Datagrams {
    /// Opens one more socket and returns its index: 0, 1, 2, ...
    ///
    /// What the kernel refused without making the socket useless is told as a note, where the
    /// implementation has any.
    ///
    /// # Errors
    /// Whatever is wrong with the options, each as its own [`NetError`]; nothing is added then.
    fn add(&mut self, options: &SocketOptions) -> Result<usize, NetError>;

    /// Hands over what has arrived, at most about `limit` datagrams, and returns how many. 0 means
    /// that nothing is there. Never blocks.
    ///
    /// `wanted` are the sockets to look at; io_uring and AF_XDP may hand over others' as well. A
    /// super datagram is handed over whole, datagram by datagram, and may exceed `limit`. A lone
    /// datagram is handed over without looking for a second one, so less than `limit` does not
    /// mean that nothing is left.
    ///
    /// # Errors
    /// [`NetError::Io`] when the kernel fails in a way that no network explains.
    fn receive(
        &mut self,
        wanted: SocketSet,
        limit: usize,
        handler: impl FnMut(Datagram<'_>),
    ) -> Result<usize, NetError>;

    /// Sends runs in order, to `to`, or where the socket is connected if that is `None`. Returns
    /// how many runs the kernel took, from the first: less than `runs.len()` means that it has
    /// no room now. The bytes may be reused at once.
    ///
    /// Never blocks, but for one case: when the kernel does not segment for us, and runs out of
    /// room within a run, it is given a millisecond to make room, and what does not fit
    /// then is lost and counted in [`SocketStatistics::send_failures`].
    ///
    /// "Nobody is there" (ICMP) is counted and not an error: a receiver may come later. Datagrams
    /// that cannot leave are counted in [`SocketStatistics::send_failures`] and taken for sent.
    ///
    /// # Errors
    /// About the first run not taken: [`NetError::TooLarge`]; [`NetError::NotConnected`];
    /// [`NetError::FamilyMismatch`]; [`NetError::Io`]. Runs before it may have been sent.
    ///
    /// # Panics
    /// If there is no such socket.
    fn send(
        &mut self,
        socket: usize,
        to: Option<SocketAddr>,
        runs: &[Run<'_>],
    ) -> Result<usize, NetError>;

    /// Sleeps until something can be received on any socket, or `timeout` has passed. May
    /// wake early.
    ///
    /// # Errors
    /// [`NetError::Io`] when the kernel refuses to wait.
    fn wait(&mut self, timeout: Duration) -> Result<(), NetError>;

    /// The address that a socket is bound to, with the port that the kernel chose if it was 0.
    ///
    /// # Panics
    /// If there is no such socket.
    fn local_address(&self, socket: usize) -> SocketAddr;

    /// What a socket did so far. Asks the kernel for its drops: not for the hot path.
    ///
    /// # Panics
    /// If there is no such socket.
    fn statistics(&self, socket: usize) -> SocketStatistics;

    /// What is worth telling the user, in sentences: settings that the kernel refused or cut, why a
    /// back end was not to be had ([`Network::prefer`]), which interface AF_XDP uses how. Grows
    /// with [`add`](Self::add), and when something is refused later.
    fn notes(&self) -> &[String];
}

/// A choice of back end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Backend {
    /// The quickest that can be had: AF_XDP where the interface and our rights allow it, else
    /// plain sockets, with a note that says why.
    Auto,
    /// Plain non-blocking sockets. They take nothing but a socket, and are quicker than io_uring
    /// for few of them, as measured.
    #[default]
    Socket,
    /// io_uring.
    Uring,
    /// AF_XDP.
    Xdp,
}

/// A back end chosen at run time.
#[derive(Debug)]
#[non_exhaustive]
pub enum Network {
    /// Plain sockets.
    Socket(SocketNetwork),
    /// io_uring.
    Uring(UringNetwork),
    /// AF_XDP. Larger than the others by far, and made once.
    Xdp(Box<XdpNetwork>),
}

impl Network {
    /// Makes a network without sockets.
    ///
    /// # Errors
    /// [`NetError::Unavailable`] if the back end asked for cannot be had here.
    pub fn open(backend: Backend) -> Result<Self, NetError> {
        match backend {
            Backend::Auto => Ok(Self::lenient_xdp().unwrap_or_else(Self::fallen_back)),
            Backend::Socket => Ok(Self::Socket(SocketNetwork::new())),
            Backend::Uring => UringNetwork::new().map(Self::Uring),
            Backend::Xdp => XdpNetwork::new().map(Box::new).map(Self::Xdp),
        }
    }

    /// Makes a network without sockets on `backend` if it can be had, and on plain sockets
    /// otherwise, with a note that says why.
    #[must_use]
    pub fn prefer(backend: Backend) -> Self {
        let opened = match backend {
            Backend::Xdp => Self::lenient_xdp(),
            other => Self::open(other),
        };
        opened.unwrap_or_else(Self::fallen_back)
    }

    fn lenient_xdp() -> Result<Self, NetError> {
        XdpNetwork::lenient().map(Box::new).map(Self::Xdp)
    }

    fn fallen_back(error: NetError) -> Self {
        Self::Socket(SocketNetwork::with_note(format!("{error}: plain sockets are used")))
    }

    /// The back end in use; never [`Backend::Auto`].
    #[must_use]
    pub fn backend(&self) -> Backend {
        match self {
            Self::Socket(_) => Backend::Socket,
            Self::Uring(_) => Backend::Uring,
            Self::Xdp(_) => Backend::Xdp,
        }
    }
}

impl Datagrams for Network {
    fn add(&mut self, options: &SocketOptions) -> Result<usize, NetError> {
        match self {
            Self::Socket(network) => network.add(options),
            Self::Uring(network) => network.add(options),
            Self::Xdp(network) => network.add(options),
        }
    }

    #[inline]
    fn receive(
        &mut self,
        wanted: SocketSet,
        limit: usize,
        handler: impl FnMut(Datagram<'_>),
    ) -> Result<usize, NetError> {
        match self {
            Self::Socket(network) => network.receive(wanted, limit, handler),
            Self::Uring(network) => network.receive(wanted, limit, handler),
            Self::Xdp(network) => network.receive(wanted, limit, handler),
        }
    }

    #[inline]
    fn send(
        &mut self,
        socket: usize,
        to: Option<SocketAddr>,
        runs: &[Run<'_>],
    ) -> Result<usize, NetError> {
        match self {
            Self::Socket(network) => network.send(socket, to, runs),
            Self::Uring(network) => network.send(socket, to, runs),
            Self::Xdp(network) => network.send(socket, to, runs),
        }
    }

    fn wait(&mut self, timeout: Duration) -> Result<(), NetError> {
        match self {
            Self::Socket(network) => network.wait(timeout),
            Self::Uring(network) => network.wait(timeout),
            Self::Xdp(network) => network.wait(timeout),
        }
    }

    fn local_address(&self, socket: usize) -> SocketAddr {
        match self {
            Self::Socket(network) => network.local_address(socket),
            Self::Uring(network) => network.local_address(socket),
            Self::Xdp(network) => network.local_address(socket),
        }
    }

    fn statistics(&self, socket: usize) -> SocketStatistics {
        match self {
            Self::Socket(network) => network.statistics(socket),
            Self::Uring(network) => network.statistics(socket),
            Self::Xdp(network) => network.statistics(socket),
        }
    }

    fn notes(&self) -> &[String] {
        match self {
            Self::Socket(network) => network.notes(),
            Self::Uring(network) => network.notes(),
            Self::Xdp(network) => network.notes(),
        }
    }
}
