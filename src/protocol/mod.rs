//! The wire protocol, sans-IO: state machines that are fed datagrams and the time, and that write
//! datagrams into the caller's buffer.
//!
//! Nothing here reads a clock, owns a socket, or allocates after set-up. Time is in nanoseconds of
//! any clock that does not go back; randomness comes from a seed. So the code that runs in
//! production is the code that the simulation ([`sim`]) drives through millions of packets of loss,
//! reordering, duplication and restarts, and a seed that fails fails again.
//!
//! | file | what |
//! |---|---|
//! | [`mold`] | MoldUDP64 packets and requests |
//! | [`control`] | what our own peers say beside them |
//! | [`envelope`] | the inner header of enveloped streams |
//! | [`Sender`] | ring to packets, heartbeats, answers to requests, flow control |
//! | [`sim`] | a bad network, from a seed |
//! | [`Receiver`] | packets to messages in order: sessions, gaps, requests, two lines |

pub(crate) mod answer;
mod arbiter;
pub mod control;
mod durable;
pub mod envelope;
mod extent;
mod flow;
#[cfg(test)]
mod found;
mod gap;
mod history;
mod join;
pub mod mold;
mod options;
mod pack;
mod random;
mod receiver;
pub(crate) mod repair;
mod request;
mod sender;
pub(crate) mod shelf;
pub mod sim;
mod store;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use arbiter::LineCounts;
pub use control::{Control, ControlError, Durable};
pub use envelope::{Envelope, EnvelopeError};
pub use flow::{Flow, ReceiverView};
pub use mold::{Header, Messages, Packet, PacketError, Session};
pub use options::{Join, OptionError, ReceiverOptions, RequestProtocol, SenderOptions};
pub use random::Random;
pub use receiver::{Event, Receiver, ReceiverCounts};
pub use sender::{Sender, SenderCounts, SenderError};

/// Largest payload of a UDP datagram over IPv4, bytes.
pub const DATAGRAM_MAX_BYTES: usize = 65_507;
/// A buffer for [`Sender::poll_transmit`] that takes any burst, bytes.
pub const BURST_BYTES: usize = DATAGRAM_MAX_BYTES;
/// Datagrams that the kernel takes as one (UDP_MAX_SEGMENTS of Linux before 6.9).
const GSO_SEGMENTS_MAX: u64 = 64;
/// What a packet takes of a receive window beside its payload: the kernel's own bookkeeping for
/// each datagram that waits in a socket.
pub(crate) const PACKET_COST_BYTES: u64 = 768;

/// Where a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// To everybody who receives the stream: its group, or each of its destinations.
    Stream,
    /// To one peer, from the request port.
    Peer(SocketAddr),
}

/// Datagrams in the caller's buffer, to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to.
    pub to: To,
    /// Bytes in all, from the start of the buffer.
    pub bytes: usize,
    /// Bytes of each datagram; the last may have fewer.
    pub segment_bytes: usize,
}
