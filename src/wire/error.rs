//! What can go wrong when a stream is carried by datagrams.

use gapless_shm::{CountersError, PublishError, RingError};
use thiserror::Error;

use crate::net::NetError;
use crate::protocol::envelope::EnvelopeError;
use crate::protocol::{OptionError, SenderError};

/// A stream could not be opened, sent or received.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The network.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The stream cannot be sent on.
    #[error(transparent)]
    Sender(#[from] SenderError),
    /// An option is out of its range.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The ring that the stream comes from or goes to.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A message that came in does not go into the ring of this side.
    #[error("message {sequence} came in and cannot be published here: {error}")]
    Publish {
        /// Its sequence.
        sequence: u64,
        /// Why.
        error: PublishError,
    },
    /// The stream was closed before everything could be sent.
    #[error(
        "closed with messages {first} to {} unsent: receivers that flow control waits for did not take them in time", next - 1
    )]
    Unsent {
        /// The first that was not sent.
        first: u64,
        /// The one behind the last.
        next: u64,
    },
    /// A message of an enveloped stream has no envelope.
    #[error("message {sequence}: {error}")]
    Envelope {
        /// Its sequence.
        sequence: u64,
        /// What is wrong with it.
        error: EnvelopeError,
    },
    /// The counters page.
    #[error(transparent)]
    Counters(#[from] CountersError),
    /// Two of an address's options exclude each other, or one is missing.
    #[error("{0}")]
    Address(&'static str),
}
