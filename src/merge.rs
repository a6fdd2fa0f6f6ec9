//! Fair fan-in: one reader over any number of streams.
//!
//! There is no multi-producer ring: each writer has a stream of its own, and whoever needs them
//! together merges. The merge keeps the order of each stream and promises no order between them
//! (the sequencer does that). A busy stream cannot starve a quiet one: each gets at most its quota
//! in a turn, and each turn starts with another stream.

use gapless_shm::{Message, PollError};
use thiserror::Error;

use crate::subscriber::Subscriber;

/// Several subscriptions, read in turn.
///
/// ```
/// # use gapless::{Merge, Publisher, Subscriber};
/// # let dir = tempfile::tempdir()?;
/// # let at = |name: &str| format!("shm:{name}?capacity=4K&dir={}", dir.path().display());
/// let mut a = Publisher::open(&at("client-a"))?;
/// let mut b = Publisher::open(&at("client-b"))?;
/// let mut merge = Merge::new();
/// merge.add(Subscriber::open(&at("client-a"))?, 2);
/// merge.add(Subscriber::open(&at("client-b"))?, 2);
/// for _ in 0..4 {
///     a.try_publish(b"a")?;
/// }
/// b.try_publish(b"b")?;
/// let mut order = Vec::new();
/// merge.poll(100, |_stream, message| order.extend_from_slice(message.payload))?;
/// assert_eq!(order, b"aabaa"); // b need not wait for all of a
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct Merge {
    streams: Vec<Stream>,
    /// Stream that the next poll starts with.
    next: usize,
    /// An error that came up behind messages of other streams: told by the next poll.
    pending: Option<MergeError>,
}

struct Stream {
    subscriber: Subscriber,
    quota: usize,
}

/// One of the streams reported something else than messages. The others are not affected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("stream {stream}: {error}")]
pub struct MergeError {
    /// Which stream, as numbered by [`Merge::add`].
    pub stream: usize,
    /// What its poll returned.
    #[source]
    pub error: PollError,
}

impl Merge {
    /// Without streams.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a stream that may deliver up to `quota` messages in its turn (at least 1), and returns
    /// its number: 0 for the first.
    pub fn add(&mut self, subscriber: Subscriber, quota: usize) -> usize {
        self.streams.push(Stream { subscriber, quota: quota.max(1) });
        self.streams.len() - 1
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.streams.len()
    }

    /// Whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// One of the subscriptions.
    pub fn subscriber(&mut self, stream: usize) -> Option<&mut Subscriber> {
        self.streams.get_mut(stream).map(|stream| &mut stream.subscriber)
    }

    /// Hands up to `limit` messages to `handler`, with the number of the stream each came from, and
    /// returns how many. Goes round until all streams are empty or the limit is reached.
    ///
    /// # Errors
    /// As for [`Subscriber::poll`], naming the stream. Every error is reported once per occurrence;
    /// a stream that cannot be read any further reports its error in each poll that finds
    /// nothing else.
    pub fn poll(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(usize, Message<'_>),
    ) -> Result<usize, MergeError> {
        if let Some(error) = self.pending.take() {
            return Err(error);
        }
        let mut handled = 0;
        let mut empty_in_a_row = 0;
        while handled < limit && empty_in_a_row < self.streams.len() {
            let at = self.next;
            self.next = (at + 1) % self.streams.len();
            let Stream { subscriber, quota } = &mut self.streams[at];
            let turn = (*quota).min(limit - handled);
            match subscriber.poll(turn, |message| handler(at, message)) {
                Ok(0) => empty_in_a_row += 1,
                Ok(count) => {
                    handled += count;
                    empty_in_a_row = 0;
                }
                Err(error) => {
                    let error = MergeError { stream: at, error };
                    if handled == 0 {
                        return Err(error);
                    }
                    self.pending = Some(error);
                    break;
                }
            }
        }
        Ok(handled)
    }
}
