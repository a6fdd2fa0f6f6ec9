//! Our streams over datagrams, as the measuring loops see them: what suite `net` holds against the
//! floors.

mod address;
mod conversation;
mod fan;
mod flow;
mod repair;
mod ringed;

pub(crate) use address::{Backend, Form};
pub(crate) use conversation::Streams;
pub(crate) use fan::Fan;
pub(crate) use flow::Flow;
pub(crate) use repair::{Holes, Tail};
pub(crate) use ringed::{RingedFlow, RingedStreams};
