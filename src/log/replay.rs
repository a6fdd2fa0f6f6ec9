//! A log, replayed by its address: from where, until when, and how fast.

use std::time::Instant;

use gapless_shm::Message;

use super::error::LogError;
use super::reader::LogReader;
use crate::address::{LogAddress, Pace, ReadFrom, Until};

/// Something that hands out records of the past, in order, and says what it lacks.
pub(crate) trait Records {
    /// Hands up to `limit` messages to `handler`, with the time of each, until it says no.
    fn poll_while(
        &mut self,
        limit: usize,
        handler: impl FnMut(Message<'_>, u64) -> bool,
    ) -> Result<usize, LogError>;
}

/// Replays a log.
///
/// ```no_run
/// use gapless::Address;
/// use gapless::log::Replay;
/// let Address::Log(address) = "log:/var/log/orders?from=1000&pace=2x".parse()? else { panic!() };
/// let mut replay = Replay::open(&address)?;
/// while !replay.is_ended() {
///     replay.poll_while(64, |message, unix_ns| {
///         println!("{} at {unix_ns}: {} bytes", message.sequence, message.payload.len());
///         true
///     })?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Replay {
    reader: LogReader,
    until: Option<Until>,
    factor: Option<f64>,
    /// Session, and sequence behind the last message of it, at which the replay ends.
    end: Option<(u64, u64)>,
    /// When the first message was handed out, and the time that it had.
    began: Option<(Instant, u64)>,
    ended: bool,
}

impl Replay {
    /// Opens the log of an address.
    ///
    /// # Errors
    /// As for [`LogReader::open_session`] and [`LogReader::declare`].
    pub fn open(address: &LogAddress) -> Result<Self, LogError> {
        let open = |from| match address.session() {
            Some(session) => LogReader::open_session(address.directory(), session, from),
            None => LogReader::open(address.directory(), from),
        };
        let mut reader = open(address.from())?;
        if let Some(name) = &address.reader {
            reader.declare(name)?;
        }
        let end = match address.follows() {
            true => None,
            false => {
                let end = LogReader::open(address.directory(), ReadFrom::Now)?;
                Some((end.session(), end.next_sequence()))
            }
        };
        let factor = match address.pace() {
            Pace::Flat => None,
            Pace::Times(factor) => Some(factor),
        };
        let until = address.until();
        Ok(Self { reader, until, factor, end, began: None, ended: false })
    }

    /// The log.
    pub fn reader(&mut self) -> &mut LogReader {
        &mut self.reader
    }

    /// Sequence of the next message.
    pub fn next_sequence(&self) -> u64 {
        self.reader.next_sequence()
    }

    /// Sequence of the message behind the last one of the replay, in the session that it ends in;
    /// `None` if it follows the writer.
    pub fn end_sequence(&self) -> Option<u64> {
        let bound = match self.until {
            Some(Until::Sequence(sequence)) => Some(sequence),
            _ => None,
        };
        self.end.map(|(_, end)| bound.map_or(end, |bound| bound.min(end))).or(bound)
    }

    /// Whether all of it has been handed out.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Hands up to `limit` messages that are due to `handler`, in order, with the time of each (ns
    /// since the Unix epoch), until it says no. Never blocks, but for the disk.
    ///
    /// # Errors
    /// As for [`LogReader::poll`].
    pub fn poll_while(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(Message<'_>, u64) -> bool,
    ) -> Result<usize, LogError> {
        // What is missing behind the end is no part of it either.
        let at_end = |until| matches!(until, Until::Sequence(end) if self.next_sequence() >= end);
        let session = self.reader.session();
        let here = (session, self.next_sequence());
        self.ended |= self.until.is_some_and(at_end) || self.end.is_some_and(|end| here >= end);
        if self.ended {
            return Ok(0);
        }
        let (until, end) = (self.until, self.end.filter(|&(last, _)| last == session));
        let due_ns = self.factor.and_then(|factor| {
            let (start, first_ns) = self.began?;
            let passed = start.elapsed().as_secs_f64() * factor * 1e9;
            Some(first_ns.saturating_add(passed as u64))
        });
        // At a pace, the first message sets the clock.
        let limit =
            if self.factor.is_some() && self.began.is_none() { limit.min(1) } else { limit };
        let (mut over, mut first_ns) = (false, None);
        let handled = self.reader.poll_while(limit, |message, unix_ns| {
            over = end.is_some_and(|(_, end)| message.sequence >= end)
                || match until {
                    Some(Until::Sequence(sequence)) => message.sequence >= sequence,
                    Some(Until::UnixNs(time)) => unix_ns >= time,
                    None => false,
                };
            if over || due_ns.is_some_and(|due| unix_ns > due) {
                return false;
            }
            first_ns.get_or_insert(unix_ns);
            handler(message, unix_ns)
        })?;
        if let (None, Some(first_ns)) = (self.began, first_ns) {
            self.began = Some((Instant::now(), first_ns));
        }
        let next = (self.reader.session(), self.reader.next_sequence());
        self.ended = over || self.end.is_some_and(|end| next >= end);
        Ok(handled)
    }
}

impl Records for Replay {
    fn poll_while(
        &mut self,
        limit: usize,
        handler: impl FnMut(Message<'_>, u64) -> bool,
    ) -> Result<usize, LogError> {
        Self::poll_while(self, limit, handler)
    }
}
