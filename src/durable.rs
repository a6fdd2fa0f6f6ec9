//! How far the recorder of a stream has come: read from its counters page.

use std::path::PathBuf;

use gapless_shm::{CountersError, CountersReader, RingError};
use thiserror::Error;

use crate::address::ShmAddress;
use crate::log::RecorderOptions;

/// It cannot be said, or is not so, that a message is durable.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DurableError {
    /// The stream has no recorder on this host, or none of this session.
    #[error("no recorder of {stream} runs on this host: start one, or do not wait for it")]
    NoRecorder {
        /// The stream.
        stream: String,
    },
    /// The recorder has died.
    #[error("the recorder of {stream} has died; durable is what there is up to {durable}")]
    RecorderDead {
        /// The stream.
        stream: String,
        /// Sequence of the last message that it made durable.
        durable: u64,
    },
    /// The recorder has not come so far in time.
    #[error("message {wanted} is not durable in time: the recorder is at {durable}")]
    Timeout {
        /// What was waited for.
        wanted: u64,
        /// Sequence of the last durable message.
        durable: u64,
    },
    /// The recorder's counters page cannot be read.
    #[error(transparent)]
    Counters(#[from] CountersError),
}

/// Whether the recorder lives is asked (a system call) once in so many looks.
const LIVENESS_POLLS: u32 = 256;

/// A look at a recorder's page.
pub(crate) struct Durable {
    stream: String,
    directory: PathBuf,
    reader: Option<CountersReader>,
    polls: u32,
}

impl Durable {
    pub(crate) fn of(ring: &ShmAddress) -> Self {
        let (stream, directory) = (ring.name().to_owned(), ring.directory().to_path_buf());
        Self { stream, directory, reader: None, polls: 0 }
    }

    /// Sequence of the last durable message of `session`.
    pub(crate) fn sequence(&mut self, session: u64) -> Result<u64, DurableError> {
        if self.reader.is_none() {
            self.polls = 0; // one that is opened is asked at once
        }
        let reader = match &self.reader {
            Some(reader) => reader,
            None => {
                let name = RecorderOptions::page_name(&self.stream);
                let opened = CountersReader::open(&self.directory, &name);
                let reader = opened.map_err(|error| match error {
                    CountersError::File(RingError::BadName { .. }) => self.none(),
                    CountersError::NotFound { .. } => self.none(),
                    error => error.into(),
                })?;
                self.reader.insert(reader)
            }
        };
        let counter = |label| reader.index_of(label).and_then(|index| reader.value(index));
        // Before and after: what stands between is of that session.
        let before = counter("session");
        let durable = counter("durable-sequence").unwrap_or(0);
        let other = before != Some(session) || counter("session") != before;
        if other || self.polls.is_multiple_of(LIVENESS_POLLS) && !reader.snapshot()?.alive {
            self.reader = None; // there may be another by now
            let stream = self.stream.clone();
            return match other {
                true => Err(self.none()),
                false => Err(DurableError::RecorderDead { stream, durable }),
            };
        }
        self.polls = self.polls.wrapping_add(1);
        Ok(durable)
    }

    fn none(&self) -> DurableError {
        DurableError::NoRecorder { stream: self.stream.clone() }
    }
}
