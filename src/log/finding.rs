//! What the check of a log finds.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::protocol::Session;

/// Something that a log should not have, or lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finding {
    /// The first page of a segment is damaged: readers cannot open it. Its blocks were checked.
    Header {
        /// The segment.
        path: PathBuf,
    },
    /// Bytes of a segment are not what was written there.
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the damaged range begins, bytes.
        offset: u64,
        /// Its length, bytes.
        bytes: u64,
        /// Sequence of the first message that is lost with it.
        first: u64,
        /// How many messages are lost; 0 if none was there.
        count: u64,
    },
    /// A segment has others behind it, and no seal: its end is lost.
    Unfinished {
        /// The segment.
        path: PathBuf,
        /// Where its last block ends, bytes.
        offset: u64,
        /// How many bytes behind that make no block.
        bytes: u64,
    },
    /// The end of the log is torn: its writer was killed, or is at it. The next one cuts it off.
    Torn {
        /// The segment.
        path: PathBuf,
        /// Where the last whole block ends, bytes.
        offset: u64,
        /// How many bytes behind that make no block.
        bytes: u64,
    },
    /// A segment does not begin where the one before ended.
    Missing {
        /// The later segment.
        path: PathBuf,
        /// The session, by number.
        session: u64,
        /// Sequence of the first message that is missing.
        first: u64,
        /// How many.
        count: u64,
    },
    /// A segment begins before the one in front of it ends.
    Twice {
        /// The later segment.
        path: PathBuf,
        /// The session, by number.
        session: u64,
        /// Sequence of the first message that is there twice.
        first: u64,
        /// How many.
        count: u64,
    },
    /// The recorder put on record that messages were lost before they reached it: no damage.
    Lost {
        /// The segment.
        path: PathBuf,
        /// Sequence of the first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// An index does not fit its segment. Readers do without; it can be
    /// [made again](super::rebuild_index).
    Index {
        /// The index.
        path: PathBuf,
        /// Its segment.
        segment: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Finding {
    /// What is wrong with a segment that should begin with message `next`.
    pub(super) fn between(path: &Path, session: u64, next: u64, first: u64) -> Self {
        let path = path.to_path_buf();
        match first.checked_sub(next) {
            Some(count) => Self::Missing { path, session, first: next, count },
            None => Self::Twice { path, session, first, count: next - first },
        }
    }

    /// Whether this is damage: not what a writer leaves that ends, is killed, or is at work.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Torn { .. } | Self::Lost { .. })
    }

    /// The file that it is about.
    pub fn path(&self) -> &Path {
        match self {
            Self::Header { path }
            | Self::Damaged { path, .. }
            | Self::Unfinished { path, .. }
            | Self::Torn { path, .. }
            | Self::Missing { path, .. }
            | Self::Twice { path, .. }
            | Self::Lost { path, .. }
            | Self::Index { path, .. } => path,
        }
    }

    /// Sequence of the first message that the log lacks for this, and how many those are; `None` if
    /// it lacks none.
    pub fn messages(&self) -> Option<(u64, u64)> {
        match self {
            Self::Damaged { first, count, .. }
            | Self::Missing { first, count, .. }
            | Self::Lost { first, count, .. } => Some((*first, *count)).filter(|(_, n)| *n > 0),
            _ => None,
        }
    }

    /// Where in its file this is, and how long it is, bytes.
    pub fn bytes(&self) -> Option<(u64, u64)> {
        match self {
            Self::Header { .. } => Some((0, super::SEGMENT_HEADER_BYTES)),
            Self::Damaged { offset, bytes, .. }
            | Self::Unfinished { offset, bytes, .. }
            | Self::Torn { offset, bytes, .. } => Some((*offset, *bytes)),
            _ => None,
        }
    }
}

/// Messages from `first` on, as people say it.
fn messages(first: u64, count: u64) -> String {
    match count {
        0 => "no message is lost".into(),
        1 => format!("message {first}"),
        count => format!("messages {first} to {}", first.saturating_add(count - 1)),
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.path().display())?;
        match self {
            Self::Header { .. } => f.write_str("the first page is damaged"),
            Self::Damaged { offset, bytes, first, count, .. } => {
                let lost = messages(*first, *count);
                write!(f, "{bytes} bytes from {offset} on are damaged: {lost}")
            }
            Self::Unfinished { offset, bytes: 0, .. } => {
                write!(f, "it ends at byte {offset} without a seal")
            }
            Self::Unfinished { offset, bytes, .. } => {
                write!(f, "it ends at byte {offset} without a seal, and {bytes} bytes are damaged")
            }
            Self::Torn { offset, bytes, .. } => write!(
                f,
                "{bytes} bytes from {offset} on are a torn end: the next writer cuts them off"
            ),
            Self::Missing { session, first, count, .. } => {
                let (session, what) = (Session::from_number(*session), messages(*first, *count));
                write!(f, "{what} of session {session} are missing in front of it")
            }
            Self::Twice { session, first, count, .. } => {
                let (session, what) = (Session::from_number(*session), messages(*first, *count));
                write!(f, "{what} of session {session} are there twice")
            }
            Self::Lost { first, count, .. } => {
                write!(f, "{} never reached the recorder", messages(*first, *count))
            }
            Self::Index { why, .. } => write!(f, "the index {why}"),
        }
    }
}

/// What [`verify`](super::verify) has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments that were checked.
    pub segments: usize,
    /// Messages that are sound.
    pub messages: u64,
    /// Bytes that were checked.
    pub bytes: u64,
    /// What was found, in the order of the log.
    pub findings: Vec<Finding>,
}

impl VerifyReport {
    /// Whether nothing is damaged, and nothing is missing that was recorded.
    pub fn is_sound(&self) -> bool {
        !self.findings.iter().any(Finding::is_damage)
    }
}
