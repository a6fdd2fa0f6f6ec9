//! What ends a sequencer, or a client of one.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use gapless_shm::PublishError;
use thiserror::Error;

use super::application::LoadError;
use super::divergence::Divergence;
use super::record::{ClientId, RecordError};
use crate::error::{Error, PollError};
use crate::wire::WireError;

/// A sequencer could not begin, or must not go on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SequencerError {
    /// A stream could not be opened.
    #[error("{stream}: {error}")]
    Open {
        /// The stream's address.
        stream: String,
        /// Why.
        #[source]
        error: Error,
    },
    /// An address that a sequencer cannot use.
    #[error("{stream}: {reason}")]
    Unusable {
        /// The stream's address.
        stream: String,
        /// Why, and what would do.
        reason: &'static str,
    },
    /// A client appears twice, or is number 0.
    #[error("client {client} is listed twice, or 0: clients are 1 to 65535, each once")]
    Client {
        /// Which.
        client: ClientId,
    },
    /// The stream cannot be read from where its state is known.
    #[error(
        "the stream begins at message {oldest}, but {wanted} is the next that is wanted: name its \
         log in the address, or a newer snapshot"
    )]
    Incomplete {
        /// The next message wanted.
        wanted: u64,
        /// The oldest that there is.
        oldest: u64,
    },
    /// The stream is another one than the one that was followed so far.
    #[error(
        "the stream is of session {stream}, but what is known is of session {known}: numbers of \
         one mean nothing in the other. Begin anew without the old state, or bring back the ring"
    )]
    OtherSession {
        /// What is known.
        known: u64,
        /// What is there.
        stream: u64,
    },
    /// The stream's ring was removed, and there is no log to make it again from.
    #[error(
        "the stream's ring is gone, and message {next} would be the next: name its log in the \
         address, or begin anew"
    )]
    RingGone {
        /// The next message.
        next: u64,
    },
    /// The stream ends elsewhere than it was followed to.
    #[error(
        "the stream goes on with message {end}, but the state with {wanted}: the log it was made \
         from ends before what this sequencer has seen, or what is in between cannot be read"
    )]
    Ends {
        /// The state's next message.
        wanted: u64,
        /// The stream's.
        end: u64,
    },
    /// The stream could not be read.
    #[error("the sequenced stream: {0}")]
    Poll(#[from] PollError),
    /// Another application, another version of it, or damage.
    #[error("this sequencer must not lead: {0}")]
    Diverged(#[from] Divergence),
    /// A record could not be published.
    #[error("record {sequence} could not be published: {error}")]
    Publish {
        /// The record.
        sequence: u64,
        /// Why.
        error: PublishError,
    },
    /// The network.
    #[error("the sequenced stream: {0}")]
    Wire(#[from] WireError),
    /// A snapshot.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// A snapshot could not be written or read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The system said no.
    #[error("cannot {what} {}: {source}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// No snapshot, or a damaged one.
    #[error("{} is no snapshot: {reason}; remove it, and an older one is taken", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Of another application, or of another version of it.
    #[error("{}: {error}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What was looked for and not found.
        error: LoadError,
    },
    /// Of another session.
    #[error(
        "the snapshot is of session {snapshot}, the stream of session {stream}: sequence numbers \
         of one mean nothing in the other; remove the snapshots to begin anew"
    )]
    Session {
        /// The snapshot's.
        snapshot: u64,
        /// The stream's.
        stream: u64,
    },
    /// Of several streams, none of which is the one that is read.
    #[error(
        "{} has snapshots of several streams ({streams}): read one of them by its ring's name",
        directory.display()
    )]
    Several {
        /// Where they are.
        directory: PathBuf,
        /// The streams' names.
        streams: String,
    },
}

/// A client's command was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The sequencer has not said yet how far this client had come: poll until it has.
    #[error("the sequencer has not answered yet")]
    NotReady,
    /// The sequenced stream says nothing: there is no sequencer, or none that is heard here.
    #[error("the sequencer has not been heard of for {limit:?}: nothing is sent until it is")]
    Silent {
        /// How long it may be silent.
        limit: Duration,
    },
    /// As many commands as the window holds are on their way: poll until some have come back.
    #[error("{window} commands are on their way: that is all the window holds")]
    WindowFull {
        /// How many that is.
        window: usize,
    },
    /// The stream has no room, or the command is too long for it.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

impl SubmitError {
    /// Whether it helps to poll and try again.
    pub fn is_backpressure(&self) -> bool {
        match self {
            Self::NotReady | Self::WindowFull { .. } => true,
            Self::Silent { .. } => false,
            Self::Publish(error) => error.is_backpressure(),
        }
    }
}

/// A client's poll found something else than records.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The sequenced stream could not be read, or not all of it.
    #[error("the sequenced stream: {0}")]
    Poll(#[from] PollError),
    /// It holds what is no record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Another process has begun as the same client: this one is shut out.
    #[error("another process has begun as this client: what this one sends is passed over")]
    Superseded,
    /// The network, on the way to the sequencer.
    #[error("the client's own stream: {0}")]
    Wire(#[from] WireError),
}
