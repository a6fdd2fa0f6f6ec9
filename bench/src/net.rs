//! Datagrams between two processes of one host: what suite `net` is made of.
//!
//! The floors are bare system calls, written by hand: nothing of the library's transports is in
//! them, so that they can judge it.

mod flood;
mod ground;
mod meeting;
mod pingpong;
mod socket;
mod steer;
mod uring;
mod veth;
mod xdp;
mod xdp_flood;
mod xsk;

pub(crate) use flood::{Flood, segment};
pub(crate) use ground::{Across, Ground, Path, Side};
pub(crate) use meeting::{ask, tell, told};
pub(crate) use pingpong::{Dial, Duplex, PingPong};
pub(crate) use socket::BareSocket;
pub(crate) use steer::Mode;
pub(crate) use uring::BareUring;
pub(crate) use xdp::{BareXdp, xdp_obstacle};
pub(crate) use xdp_flood::XdpFlood;
