//! What can go wrong when a stream is opened or read.

use std::path::PathBuf;

use gapless_shm::{PublishError, RingError};
use thiserror::Error;

use crate::address::AddressError;
use crate::log::LogError;
use crate::protocol::Session;
use crate::wire::WireError;

/// A stream could not be opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The address makes no sense.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The ring behind the address could not be opened.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// The sockets behind the address could not be opened, or the stream not be carried by them.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The log behind the address, or the one that it goes on from, could not be opened.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A message of the log does not fit the ring that is made from it.
    #[error("message {sequence} of the log does not fit the new ring: {error}")]
    Refill {
        /// Its sequence number.
        sequence: u64,
        /// Why.
        error: PublishError,
    },
    /// The ring is gone, and its log was not finished in order: receivers may have messages that it
    /// has not.
    #[error(
        "the log in {directory} goes on with message {next} of session {session}, but was not \
         finished in order: receivers may have later ones. Say resume=durable if nobody was sent, \
         or acted on, what was not durable; or fresh=yes for a new session"
    )]
    Unsettled {
        /// The log's directory.
        directory: PathBuf,
        /// Its newest session.
        session: Session,
        /// Sequence that it goes on with.
        next: u64,
    },
    /// A log cannot be published to.
    #[error("{address} is a log: publish to a shm: or udp: address, and record that")]
    NotPublished {
        /// The address.
        address: String,
    },
}

/// A subscriber's poll found something else than messages.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PollError {
    /// The publisher overwrote what this subscriber had not read. The next poll goes on.
    #[error("lapped: {missed} messages were overwritten unread, going on at {resumed_at}")]
    Lapped {
        /// Exactly how many messages this subscriber will never see.
        missed: u64,
        /// Sequence of the next message.
        resumed_at: u64,
    },
    /// Messages were lost on a network, or are damaged in or missing from a log, and nobody has
    /// them any more. The next poll goes on.
    #[error("{count} messages from {first} on were lost and cannot be had again")]
    Lost {
        /// Sequence of the first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// The publisher started a new session: sequence numbers begin anew. The next poll goes on.
    #[error("session {session} begins, at {next}")]
    NewSession {
        /// The session.
        session: Session,
        /// Sequence of the next message.
        next: u64,
    },
    /// The publisher threw this subscriber out. Open it again to go on.
    #[error("evicted by the publisher: next would have been {next}")]
    Evicted {
        /// First sequence not delivered.
        next: u64,
    },
    /// The ring holds bytes that no publisher writes. It cannot be read further.
    #[error("corrupt record at position {position}: commit word {word:#018x}")]
    Corrupt {
        /// Position of the record.
        position: u64,
        /// The commit word found there.
        word: u64,
    },
    /// The producer page changed faster than it could be read; try again.
    #[error("the producer page could not be read in one piece")]
    Unsteady,
    /// The network.
    #[error(transparent)]
    Wire(Box<WireError>),
    /// The log, or a server of the past.
    #[error(transparent)]
    Log(Box<LogError>),
    /// Something else of the ring.
    #[error(transparent)]
    Ring(gapless_shm::PollError),
}

impl From<gapless_shm::PollError> for PollError {
    #[cold]
    fn from(error: gapless_shm::PollError) -> Self {
        use gapless_shm::PollError as Ring;
        match error {
            Ring::Lapped { missed, resumed_at } => Self::Lapped { missed, resumed_at },
            Ring::Evicted { next } => Self::Evicted { next },
            Ring::Corrupt { position, word } => Self::Corrupt { position, word },
            Ring::Unsteady => Self::Unsteady,
            other => Self::Ring(other),
        }
    }
}

impl From<LogError> for PollError {
    #[cold]
    fn from(error: LogError) -> Self {
        match error {
            LogError::Damaged { first, count, .. } | LogError::Missing { first, count } => {
                Self::Lost { first, count }
            }
            LogError::NewSession { session, next } => Self::NewSession { session, next },
            other => Self::Log(Box::new(other)),
        }
    }
}

impl From<WireError> for PollError {
    fn from(error: WireError) -> Self {
        Self::Wire(Box::new(error))
    }
}
