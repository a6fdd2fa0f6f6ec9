//! What a socket is asked to be. Nothing here touches the kernel.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A network interface, by what one knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// By name: `eth0`.
    Name(String),
    /// By one of its addresses, of either family.
    Address(IpAddr),
}

impl From<&str> for Interface {
    /// An IP address if it reads as one, a name otherwise.
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.into()), Self::Address)
    }
}

impl From<String> for Interface {
    fn from(text: String) -> Self {
        text.as_str().into()
    }
}

impl From<IpAddr> for Interface {
    fn from(address: IpAddr) -> Self {
        Self::Address(address)
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// How AF_XDP takes packets from an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum XdpMode {
    /// The best that the interface has: zero-copy, driver mode, generic mode; generic mode first on
    /// a virtual interface, where it is quicker.
    #[default]
    Auto,
    /// In the kernel's common code, from packets as the kernel has them. Every interface can.
    Generic,
    /// In the driver, before the kernel makes a packet of its own, copied once.
    Driver,
    /// In the driver, by the device itself into our memory.
    ZeroCopy,
}

impl fmt::Display for XdpMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Generic => "generic",
            Self::Driver => "driver",
            Self::ZeroCopy => "zerocopy",
        })
    }
}

/// A socket to open by [`Datagrams::add`](super::Datagrams::add): where it is bound and how it is
/// set. What is not set stays as the kernel has it.
///
/// ```
/// use gapless::net::SocketOptions;
/// let feed = SocketOptions::new("239.1.2.3:9000".parse()?)
///     .join("239.1.2.3".parse::<std::net::IpAddr>()?)
///     .interface("eth0")
///     .reuse(true)
///     .receive_buffer_bytes(8 << 20);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct SocketOptions {
    pub(super) bind: SocketAddr,
    pub(super) connect: Option<SocketAddr>,
    pub(super) reuse: bool,
    pub(super) share: bool,
    pub(super) reuse_port: bool,
    pub(super) interface: Option<Interface>,
    pub(super) join: Option<IpAddr>,
    pub(super) source: Option<IpAddr>,
    pub(super) ttl: Option<u8>,
    pub(super) multicast_loopback: bool,
    pub(super) send_buffer_bytes: Option<usize>,
    pub(super) receive_buffer_bytes: Option<usize>,
    pub(super) dscp: Option<u8>,
    pub(super) busy_poll_us: Option<u32>,
    pub(super) coalesce: bool,
    pub(super) fragment: bool,
    pub(super) xdp_mode: XdpMode,
}

impl SocketOptions {
    /// A socket bound to `bind`; port 0 lets the kernel choose. A receiver of multicast binds to
    /// the group's address and port, and so gets nothing else.
    #[must_use]
    pub fn new(bind: SocketAddr) -> Self {
        Self {
            bind,
            connect: None,
            reuse: false,
            share: false,
            reuse_port: false,
            interface: None,
            join: None,
            source: None,
            ttl: None,
            multicast_loopback: true,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            dscp: None,
            busy_poll_us: None,
            coalesce: true,
            fragment: false,
            xdp_mode: XdpMode::Auto,
        }
    }

    /// Sends to `peer`, and takes datagrams from nobody else. Saves about a microsecond a round
    /// trip against naming the destination each time. May be a multicast group for a socket that
    /// only sends.
    #[must_use]
    pub fn connect(mut self, peer: impl Into<Option<SocketAddr>>) -> Self {
        self.connect = peer.into();
        self
    }

    /// Lets other sockets that ask for the same bind the same address (`SO_REUSEADDR`). Of
    /// multicast each gets a copy; of unicast only the one bound last gets anything. Default: no.
    #[must_use]
    pub fn reuse(mut self, reuse: bool) -> Self {
        self.reuse = reuse;
        self
    }

    /// Takes an address that nobody has, and lets sockets with [`reuse`](Self::reuse) bind it too
    /// from then on. With `reuse` alone the kernel may choose a port that another such socket has
    /// already. Default: no.
    #[must_use]
    pub fn share(mut self, share: bool) -> Self {
        self.share = share;
        self
    }

    /// Shares the port among sockets by a hash of the sender (`SO_REUSEPORT`). Default: no.
    #[must_use]
    pub fn reuse_port(mut self, reuse: bool) -> Self {
        self.reuse_port = reuse;
        self
    }

    /// The interface to join groups on and to send by. Default: the one that the kernel's routes
    /// name.
    #[must_use]
    pub fn interface(mut self, interface: impl Into<Interface>) -> Self {
        self.interface = Some(interface.into());
        self
    }

    /// The multicast group to join.
    #[must_use]
    pub fn join(mut self, group: impl Into<Option<IpAddr>>) -> Self {
        self.join = group.into();
        self
    }

    /// The only sender to take from in the group (source-specific multicast).
    #[must_use]
    pub fn source(mut self, sender: impl Into<Option<IpAddr>>) -> Self {
        self.source = sender.into();
        self
    }

    /// Hops that a datagram may take, unicast and multicast, 0 to 255. Default: the kernel's, 1 for
    /// multicast.
    #[must_use]
    pub fn ttl(mut self, hops: impl Into<Option<u8>>) -> Self {
        self.ttl = hops.into();
        self
    }

    /// Whether receivers on this host get the multicast that this socket sends. Default: yes.
    #[must_use]
    pub fn multicast_loopback(mut self, on: bool) -> Self {
        self.multicast_loopback = on;
        self
    }

    /// Bytes of payload and bookkeeping that may wait to leave. With the capability to do so the
    /// system's limit is exceeded; otherwise a shortfall is noted.
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.send_buffer_bytes = bytes.into();
        self
    }

    /// Bytes of payload and bookkeeping that may wait to be received, as above. Small datagrams
    /// take several hundred bytes each.
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: impl Into<Option<usize>>) -> Self {
        self.receive_buffer_bytes = bytes.into();
        self
    }

    /// Class of service to mark datagrams with, 0 to 63; more is cut to that.
    #[must_use]
    pub fn dscp(mut self, class: impl Into<Option<u8>>) -> Self {
        self.dscp = class.into().map(|class| class.min(63));
        self
    }

    /// Microseconds for which the kernel itself polls the device on an empty receive.
    #[must_use]
    pub fn busy_poll_us(mut self, us: impl Into<Option<u32>>) -> Self {
        self.busy_poll_us = us.into();
        self
    }

    /// Whether runs may travel as super datagrams (GSO), and be received so in a flood (GRO).
    /// Default: yes; no is for comparing.
    #[must_use]
    pub fn coalesce(mut self, on: bool) -> Self {
        self.coalesce = on;
        self
    }

    /// Whether datagrams larger than the path's MTU are fragmented instead of refused. Default: no.
    #[must_use]
    pub fn fragment(mut self, on: bool) -> Self {
        self.fragment = on;
        self
    }

    /// How AF_XDP takes packets from the socket's interface, where that is the back end. All
    /// sockets of a process on an interface have the same. Default: [`XdpMode::Auto`].
    #[must_use]
    pub fn xdp_mode(mut self, mode: XdpMode) -> Self {
        self.xdp_mode = mode;
        self
    }
}
