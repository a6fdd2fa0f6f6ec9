//! The peers: other people's ways to hand a message to another core, as links.
//!
//! Those that cannot leave the process run between two threads, which spares them what a ring
//! between processes must do; the names of their cases say so in `bench/README.md`.

#[cfg(feature = "aeron")]
mod aeron;
mod crossbeam;
mod disruptor;
#[cfg(feature = "iceoryx2")]
mod iceoryx2;
mod rtrb;
mod threads;
#[cfg(feature = "zeromq")]
mod zeromq;

use crate::link::CAPACITY_BYTES;

#[cfg(feature = "aeron")]
pub(crate) use aeron::AeronIpc;
pub(crate) use crossbeam::{Array, Channel};
pub(crate) use disruptor::Disruptor;
#[cfg(feature = "iceoryx2")]
pub(crate) use iceoryx2::Iceoryx2;
pub(crate) use rtrb::Rtrb;
pub(crate) use threads::ThreadLink;
#[cfg(feature = "zeromq")]
pub(crate) use zeromq::ZeroMq;

/// Bytes of a message between peers.
pub(crate) const PAYLOAD_BYTES: usize = 64;
/// A message as queues of values carry it.
type Payload = [u8; PAYLOAD_BYTES];
/// Messages that a peer's queue holds: as many bytes as our ring.
const CAPACITY: usize = CAPACITY_BYTES as usize / PAYLOAD_BYTES;

/// The payload as a value.
#[inline(always)]
fn value(payload: &[u8]) -> Payload {
    payload.try_into().expect("peers carry 64 bytes")
}
