//! The wire: streams carried by datagrams, as agents that are polled.
//!
//! | to | use |
//! |---|---|
//! | send what is in a ring | [`SenderAgent`] |
//! | receive into a ring of this host | [`ReceiverAgent`] |
//! | receive into a handler | [`Inlet`] |
//!
//! With `durable=yes`, agents read from the counters page of their ring's recorder what is on disk:
//! a receiver says so in its reports, and [`SenderAgent::stable_sequence`] counts the hosts.
//!
//! [`Publisher`](crate::Publisher) and [`Subscriber`](crate::Subscriber) of a `udp:` address drive
//! one of these inline, in the application's own thread. Each owns its sockets and its clock, and
//! none blocks.

mod durable;
mod error;
mod inlet;
mod outlet;
mod page;
mod receiver;

pub use error::WireError;
pub use inlet::Inlet;
pub use outlet::SenderAgent;
pub use receiver::ReceiverAgent;
