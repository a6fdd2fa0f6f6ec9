//! What can go wrong with sockets: what it is, where, and what to do about it.

use std::io;
use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

/// Datagrams could not be sent, received, or a socket not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetError {
    /// No interface has that name or address.
    #[error("no interface {wanted}; there are: {}", available.join(", "))]
    InterfaceMissing {
        /// The name or address asked for.
        wanted: String,
        /// The interfaces of this host with their addresses.
        available: Vec<String>,
    },
    /// The group to join is not a multicast address.
    #[error(
        "{group} is not a multicast address; groups are 224.0.0.0 to 239.255.255.255 and ff00::/8"
    )]
    NotMulticast {
        /// The address given as a group.
        group: IpAddr,
    },
    /// IPv4 and IPv6 were mixed on one socket.
    #[error("{what} {address} is not of the family of {socket}, where the socket is bound")]
    FamilyMismatch {
        /// What does not fit: "destination", "group", "source".
        what: &'static str,
        /// Its address.
        address: IpAddr,
        /// The socket's own address.
        socket: SocketAddr,
    },
    /// Somebody has the port.
    #[error(
        "{address} is in use; choose another port, or set `reuse` on all sockets that are to share it"
    )]
    PortInUse {
        /// The address that could not be bound.
        address: SocketAddr,
    },
    /// The address to bind is not one of this host's.
    #[error("{address} is not an address of this host; bind to one that is, or to 0.0.0.0 or ::")]
    AddressMissing {
        /// The address that could not be bound.
        address: SocketAddr,
    },
    /// Permission is missing.
    #[error("no permission to {what}; run with the capability that it needs, or do without")]
    Denied {
        /// What was tried.
        what: String,
    },
    /// A datagram is larger than the path can carry whole.
    #[error("a datagram of {bytes} bytes does not fit: {}", limit(.mtu))]
    TooLarge {
        /// The datagram's payload, in bytes.
        bytes: usize,
        /// The path's MTU in bytes, headers included (28 over IPv4, 48 over IPv6), if the kernel
        /// knows it.
        mtu: Option<usize>,
    },
    /// A datagram without destination on a socket that is not connected.
    #[error("socket {socket} ({address}) is not connected: say where to send")]
    NotConnected {
        /// The socket's index.
        socket: usize,
        /// Where it is bound.
        address: SocketAddr,
    },
    /// The network has as many sockets as it can hold.
    #[error("a network holds at most {limit} sockets; open another network")]
    TooManySockets {
        /// How many.
        limit: usize,
    },
    /// The back end asked for cannot be had here; plain sockets always can.
    #[error("{backend} is not available: {reason}")]
    Unavailable {
        /// Which.
        backend: &'static str,
        /// Why: what the kernel refused, and how.
        reason: String,
    },
    /// The kernel refused for a reason of its own.
    #[error("could not {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
}

fn limit(mtu: &Option<usize>) -> String {
    match mtu {
        Some(mtu) => format!(
            "the path's MTU is {mtu} bytes, which leaves {} over IPv4 or {} over IPv6",
            mtu.saturating_sub(28).min(65_507),
            mtu.saturating_sub(48).min(65_527)
        ),
        None => "the path's MTU is smaller, or it exceeds what UDP can carry".into(),
    }
}

impl NetError {
    /// The kernel said no: the common cases typed, the rest as [`NetError::Io`].
    pub(super) fn refused(what: impl Into<String>, errno: i32) -> Self {
        match errno {
            libc::EPERM | libc::EACCES => Self::Denied { what: what.into() },
            _ => Self::Io { what: what.into(), source: io::Error::from_raw_os_error(errno) },
        }
    }
}
