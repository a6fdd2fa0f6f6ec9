//! What can go wrong above the ring.

use gapless_shm::RingError;
use thiserror::Error;

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
}

/// An address could not be read. Its text shows the address with the offending part underlined.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}\n  {address}\n  {}{}", " ".repeat(*.start), "^".repeat((*.len).max(1)))]
pub struct AddressError {
    /// The address as given.
    pub address: String,
    /// What is wrong with it, and what would be right.
    pub reason: String,
    /// Where the offending part starts, in characters.
    pub start: usize,
    /// How long it is, in characters.
    pub len: usize,
}

/// A thread could not be pinned.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PinError {
    /// The core does not exist or is not this process's to use.
    #[error("core {core} is not available to this process; available: {available:?}")]
    NotAvailable {
        /// The core asked for.
        core: usize,
        /// Those that could be had.
        available: Vec<usize>,
    },
    /// The system refused.
    #[error("the system refused to pin the thread to core {core}")]
    Refused {
        /// The core asked for.
        core: usize,
    },
}
