//! How far the recorder of a stream has come: read from its counters page.

use std::path::PathBuf;

use gapless_shm::{CountersError, RingError};
use thiserror::Error;

use crate::address::ShmAddress;
use crate::recorder_page::RecorderPage;

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
    page: Option<RecorderPage>,
    polls: u32,
}

impl Durable {
    pub(crate) fn of(ring: &ShmAddress) -> Self {
        let (stream, directory) = (ring.name().to_owned(), ring.directory().to_path_buf());
        Self { stream, directory, page: None, polls: 0 }
    }

    /// Sequence of the last durable message of `session`.
    pub(crate) fn sequence(&mut self, session: u64) -> Result<u64, DurableError> {
        let page = match &self.page {
            Some(page) => page,
            None => {
                self.polls = 0; // one that is opened is asked at once
                let opened = self.open()?;
                self.page.insert(opened)
            }
        };
        let ask = self.polls.is_multiple_of(LIVENESS_POLLS);
        self.polls = self.polls.wrapping_add(1);
        let durable = page.durable(session);
        match durable {
            Some(durable) if !ask || page.is_alive()? => return Ok(durable),
            _ => self.page = None, // there may be another by now
        }
        let stream = self.stream.clone();
        Err(durable
            .map_or_else(|| self.none(), |durable| DurableError::RecorderDead { stream, durable }))
    }

    #[cold]
    fn open(&self) -> Result<RecorderPage, DurableError> {
        match RecorderPage::open(&self.directory, &self.stream) {
            Ok(Some(page)) => Ok(page),
            Ok(None) | Err(CountersError::NotFound { .. }) => Err(self.none()),
            Err(CountersError::File(RingError::BadName { .. })) => Err(self.none()),
            Err(error) => Err(error.into()),
        }
    }

    fn none(&self) -> DurableError {
        DurableError::NoRecorder { stream: self.stream.clone() }
    }
}
