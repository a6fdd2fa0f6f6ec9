//! Fair fan-in: one reader over any number of streams.
//!
//! There is no multi-producer ring: each writer has a stream of its own, and whoever needs them
//! together merges. The merge keeps the order of each stream and promises no order between them
//! (the sequencer does that). A busy stream cannot starve a quiet one: each gets at most its quota
//! in a turn, and each turn starts with another stream.

use gapless_shm::Message;
use thiserror::Error;

use crate::error::PollError;
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
    /// A removed stream leaves its place empty, so that the others keep their numbers.
    streams: Vec<Option<Stream>>,
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
#[derive(Debug, Error)]
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
    /// its number: the lowest that no stream has, 0 for the first.
    pub fn add(&mut self, subscriber: Subscriber, quota: usize) -> usize {
        let stream = Some(Stream { subscriber, quota: quota.max(1) });
        if let Some(number) = self.streams.iter().position(Option::is_none) {
            self.streams[number] = stream;
            return number;
        }
        self.streams.push(stream);
        self.streams.len() - 1
    }

    /// Takes a stream out and gives its subscription back; the others keep their numbers. An error
    /// of it that has not been told yet is dropped.
    pub fn remove(&mut self, stream: usize) -> Option<Subscriber> {
        let removed = self.streams.get_mut(stream)?.take()?;
        self.pending = self.pending.take().filter(|pending| pending.stream != stream);
        Some(removed.subscriber)
    }

    /// Number of streams.
    pub fn len(&self) -> usize {
        self.streams.iter().flatten().count()
    }

    /// Whether there is no stream.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One of the subscriptions.
    pub fn subscriber(&mut self, stream: usize) -> Option<&mut Subscriber> {
        self.streams.get_mut(stream)?.as_mut().map(|stream| &mut stream.subscriber)
    }

    /// Hands up to `limit` messages to `handler`, with the number of the stream each came from, and
    /// returns how many. Goes round until all streams are empty or the limit is reached.
    ///
    /// # Errors
    /// As for [`Subscriber::poll`], naming the stream. An error that comes up behind messages of
    /// other streams is told by the next poll. A stream that cannot be read any further reports its
    /// error whenever its turn comes: [`remove`](Self::remove) it.
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
            let Some(Stream { subscriber, quota }) = &mut self.streams[at] else {
                empty_in_a_row += 1;
                continue;
            };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Publisher;

    #[test]
    fn streams_come_and_go_and_none_starves() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| format!("shm:{name}?capacity=4K&dir={}", dir.path().display());
        let mut publishers: Vec<_> =
            ["a", "b", "c"].map(|name| Publisher::open(&at(name)).unwrap()).into();
        let mut merge = Merge::new();
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            assert_eq!(merge.add(Subscriber::open(&at(name)).unwrap(), 3), number);
        }
        for publisher in &mut publishers {
            for _ in 0..20 {
                publisher.try_publish(b"x").unwrap();
            }
        }
        let mut seen = [0; 3];
        assert_eq!(merge.poll(18, |stream, _| seen[stream] += 1).unwrap(), 18);
        assert_eq!(seen, [6, 6, 6]);
        assert!(merge.remove(1).is_some() && merge.remove(1).is_none());
        assert_eq!(merge.len(), 2);
        assert_eq!(merge.poll(100, |stream, _| seen[stream] += 1).unwrap(), 28);
        assert_eq!(seen, [20, 6, 20]);
        assert_eq!(merge.add(Subscriber::open(&at("b")).unwrap(), 3), 1);
        assert_eq!(merge.poll(100, |stream, _| seen[stream] += 1).unwrap(), 20);
        assert_eq!(seen, [20, 26, 20]);
    }

    #[test]
    fn an_error_behind_messages_is_told_next_and_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str, more: &str| {
            format!("shm:{name}?capacity=4K&dir={}{more}", dir.path().display())
        };
        let mut sound = Publisher::open(&at("sound", "")).unwrap();
        let mut lossy = Publisher::open(&at("lossy", "&mode=lossy")).unwrap();
        let mut merge = Merge::new();
        merge.add(Subscriber::open(&at("sound", "")).unwrap(), 8);
        merge.add(Subscriber::open(&at("lossy", "")).unwrap(), 8);
        sound.try_publish(b"x").unwrap();
        for _ in 0..1000 {
            lossy.try_publish(b"y").unwrap();
        }
        assert_eq!(merge.poll(100, |stream, _| assert_eq!(stream, 0)).unwrap(), 1);
        let error = merge.poll(100, |_, _| ()).unwrap_err();
        assert_eq!(error.stream, 1);
        assert!(matches!(error.error, PollError::Lapped { missed, .. } if missed > 900));
        assert!(merge.poll(100, |stream, _| assert_eq!(stream, 1)).unwrap() > 0);
    }
}
