//! What a follower finds in the stream that cannot be.

use thiserror::Error;

use super::core::LAYOUT_VERSION;
use super::record::{ClientId, RecordError};

/// A follower found something in the stream that cannot be, or that its own application would not
/// have done. It must not lead.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Divergence {
    /// A message is no record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Messages are missing.
    #[error("message {found} came where {wanted} was next")]
    Gap {
        /// What should have come.
        wanted: u64,
        /// What came.
        found: u64,
    },
    /// The event is not the one that this application answers with.
    #[error("message {sequence} is not the event that record {cause} leads to here")]
    Event {
        /// The event.
        sequence: u64,
        /// What caused it.
        cause: u64,
    },
    /// Events that this application answers with are not there.
    #[error("in front of message {sequence}, {missing} events of record {cause} are missing")]
    Missing {
        /// What came instead.
        sequence: u64,
        /// What caused them.
        cause: u64,
        /// How many.
        missing: usize,
    },
    /// The state's hash is another one.
    #[error("the state in front of message {sequence} has hash {here:#018x}, not {there:#018x}")]
    State {
        /// The checkpoint.
        sequence: u64,
        /// This application's.
        here: u64,
        /// The leader's.
        there: u64,
    },
    /// A client's number came twice, or after a gap.
    #[error("message {sequence} is command {found} of client {client}, where {wanted} was next")]
    Command {
        /// Its place in the stream.
        sequence: u64,
        /// Whose.
        client: ClientId,
        /// What should have come.
        wanted: u64,
        /// What came.
        found: u64,
    },
    /// A term that is not larger than the one before it, or a record of another term than its own:
    /// two leaders have written.
    #[error("message {sequence} is of term {found} in term {term}")]
    Term {
        /// The record.
        sequence: u64,
        /// The term before it.
        term: u32,
        /// Its own.
        found: u32,
    },
    /// Time runs back.
    #[error("message {sequence} is of {found_ns} ns, the one before it of {time_ns} ns")]
    Time {
        /// The record.
        sequence: u64,
        /// The time before it.
        time_ns: u64,
        /// Its own.
        found_ns: u64,
    },
    /// Written by a version that this one does not know.
    #[error("message {sequence} says layout {found}; this version knows {LAYOUT_VERSION}")]
    Version {
        /// The record.
        sequence: u64,
        /// Its layout.
        found: u64,
    },
}
