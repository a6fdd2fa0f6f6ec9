//! The past of a stream, wherever it can be had: logs on this host, and whoever else keeps one.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use gapless_shm::Message;

use super::disk::FileSystem;
use super::error::LogError;
use super::fetch::Fetch;
use super::reader::LogReader;
use super::replay::Records;
use crate::address::{PastSource, ReadFrom};

/// Time between two attempts at servers that could not be reached.
const RETRY: Duration = Duration::from_millis(100);
/// A place that had nothing in so many polls is left for the next one.
const PATIENCE_POLLS: u32 = 256;

/// Reads the past of one session, from the first of several places that has it; if one has no more,
/// from the next.
pub struct Past {
    sources: Vec<PastSource>,
    session: u64,
    next_sequence: u64,
    open: Option<Opened>,
    /// Which source is open, or comes next.
    turn: usize,
    /// What each source said last, if it did not have the next message.
    refused: Vec<Option<LogError>>,
    empty_polls: u32,
    /// When places that could not be reached are tried again.
    retry_at: Option<Instant>,
}

enum Opened {
    Log(Box<LogReader>),
    Server(Box<Fetch>),
}

impl Opened {
    fn at(source: &PastSource, session: Option<u64>, from: ReadFrom) -> Result<Self, LogError> {
        match source {
            PastSource::Log(directory) => {
                let disk = FileSystem::default();
                let reader = LogReader::open_on(disk, directory, session, from)?;
                Ok(Self::Log(Box::new(reader)))
            }
            PastSource::Server(server) => {
                let from = match from {
                    ReadFrom::Oldest => 0,
                    ReadFrom::Sequence(sequence) => sequence,
                    ReadFrom::Now | ReadFrom::UnixNs(_) => {
                        let source = std::io::ErrorKind::Unsupported.into();
                        let server = server.to_string();
                        return Err(LogError::system("begin at a time at", server)(source));
                    }
                };
                Ok(Self::Server(Box::new(Fetch::connect(*server, session, from)?)))
            }
        }
    }

    /// Whether a poll that found nothing means that there is nothing more.
    fn is_caught_up(&self) -> bool {
        match self {
            Self::Log(_) => true,
            Self::Server(fetch) => fetch.is_caught_up(),
        }
    }

    fn session(&self) -> u64 {
        match self {
            Self::Log(reader) => reader.session(),
            Self::Server(fetch) => fetch.session(),
        }
    }

    fn next_sequence(&self) -> u64 {
        match self {
            Self::Log(reader) => reader.next_sequence(),
            Self::Server(fetch) => fetch.next_sequence(),
        }
    }

    #[inline]
    fn poll_while(
        &mut self,
        limit: usize,
        handler: impl FnMut(Message<'_>, u64) -> bool,
    ) -> Result<usize, LogError> {
        match self {
            Self::Log(reader) => reader.poll_while(limit, handler),
            Self::Server(fetch) => fetch.poll_while(limit, handler),
        }
    }
}

impl Past {
    /// Opens the first of `sources` that has the past of `session` (or of its newest one) from
    /// `from` on.
    ///
    /// # Errors
    /// What the last of them said, if none has.
    pub fn open(
        sources: Vec<PastSource>,
        session: Option<u64>,
        from: ReadFrom,
    ) -> Result<Self, LogError> {
        let mut refused = LogError::NotFound { directory: PathBuf::new() };
        for turn in 0..sources.len() {
            match Opened::at(&sources[turn], session, from) {
                Ok(open) => {
                    let (session, next_sequence) = (open.session(), open.next_sequence());
                    let open = Some(open);
                    return Ok(Self { open, turn, ..Self::new(sources, session, next_sequence) });
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// The past of `session`, from `next_sequence` on. Nothing is opened yet.
    pub fn new(sources: Vec<PastSource>, session: u64, next_sequence: u64) -> Self {
        let refused = sources.iter().map(|_| None).collect();
        Self {
            sources,
            session,
            next_sequence,
            open: None,
            turn: 0,
            refused,
            empty_polls: 0,
            retry_at: None,
        }
    }

    /// The session.
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Sequence of the next message.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Whether a poll that found nothing means that there is nothing more for now, and not that it
    /// is on its way.
    pub fn is_caught_up(&self) -> bool {
        self.open.as_ref().is_some_and(Opened::is_caught_up)
    }

    /// Hands up to `limit` messages to `handler`, in order, with the time of each, until it says
    /// no. 0 if there is none yet.
    ///
    /// # Errors
    /// [`LogError::Missing`] if no place has the next messages, and one of them has later ones: the
    /// next poll goes on with those. [`LogError::NewSession`] if the session has ended and another
    /// has begun: the next poll goes on with it. What the last place said, if none can be read; a
    /// server that cannot be reached is tried again later.
    pub fn poll_while(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(Message<'_>, u64) -> bool,
    ) -> Result<usize, LogError> {
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return Ok(0);
        }
        self.retry_at = None;
        // Each place is asked once, beginning with the one that had the last message.
        for _ in 0..self.sources.len() {
            if self.open.is_none() {
                match self.open_source() {
                    Ok(open) => self.open = Some(open),
                    Err(error) => {
                        self.refuse(error);
                        continue;
                    }
                }
            }
            let Some(reader) = &mut self.open else { return Ok(0) };
            match reader.poll_while(limit, &mut handler) {
                Ok(0) if reader.next_sequence() > self.next_sequence => {
                    let (first, end) = (self.next_sequence, reader.next_sequence());
                    self.refuse(LogError::Missing { first, count: end - first });
                }
                Ok(0) => {
                    self.empty_polls += u32::from(reader.is_caught_up());
                    if self.empty_polls >= PATIENCE_POLLS {
                        self.turn_on(); // another may have more by now
                    }
                    return Ok(0);
                }
                Ok(handled) => {
                    self.next_sequence = reader.next_sequence();
                    self.empty_polls = 0;
                    self.refused.fill_with(|| None);
                    return Ok(handled);
                }
                Err(LogError::NewSession { session, next }) => {
                    self.session = reader.session();
                    self.next_sequence = next;
                    return Err(LogError::NewSession { session, next });
                }
                Err(error) => self.refuse(error),
            }
        }
        self.nobody_has_it()
    }

    fn open_source(&self) -> Result<Opened, LogError> {
        let source = self.sources.get(self.turn);
        let source = source.ok_or(LogError::NotFound { directory: PathBuf::new() })?;
        Opened::at(source, Some(self.session), ReadFrom::Sequence(self.next_sequence))
    }

    /// Turns to the next place because of what this one said.
    fn refuse(&mut self, error: LogError) {
        if let Some(refused) = self.refused.get_mut(self.turn) {
            *refused = Some(error);
        }
        self.open = None;
        self.turn_on();
    }

    /// Turns to the next place, if there is another.
    fn turn_on(&mut self) {
        self.empty_polls = 0;
        if self.sources.len() > 1 {
            self.open = None;
            self.turn = (self.turn + 1) % self.sources.len();
        }
    }

    /// All places have said what they lack: what none of them has is missing.
    #[cold]
    fn nobody_has_it(&mut self) -> Result<usize, LogError> {
        let next = self.next_sequence;
        let behind = |error: &LogError| match error {
            LogError::Missing { first, count } | LogError::Damaged { first, count, .. } => {
                Some(first + count)
            }
            LogError::SequenceGone { oldest, .. } => Some(*oldest),
            _ => None,
        };
        let known = self.refused.iter().flatten();
        let later = known.filter_map(behind).filter(|&end| end > next).min();
        if let Some(end) = later {
            self.next_sequence = end;
            self.refused.fill_with(|| None);
            return Err(LogError::Missing { first: next, count: end - next });
        }
        let away = |error: &LogError| matches!(error, LogError::Unreachable { .. });
        if self.refused.iter().flatten().any(away) {
            self.refused.fill_with(|| None);
            self.retry_at = Some(Instant::now() + RETRY);
            return Ok(0);
        }
        let last = self.refused.iter_mut().find_map(Option::take);
        last.map_or(Ok(0), Err)
    }
}

impl Records for Past {
    fn poll_while(
        &mut self,
        limit: usize,
        handler: impl FnMut(Message<'_>, u64) -> bool,
    ) -> Result<usize, LogError> {
        Self::poll_while(self, limit, handler)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_away_is_tried_again() {
        let nobody = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let mut past = Past::new(vec![PastSource::Server(nobody)], 35, 1);
        for _ in 0..1000 {
            assert_eq!(past.poll_while(1, |_, _| true).unwrap(), 0);
        }
        assert!(!past.is_caught_up());
        let nothing = PastSource::Log("/nowhere/at/all".into());
        let mut past = Past::new(vec![nothing], 35, 1);
        assert!(past.poll_while(1, |_, _| true).is_err());
    }
}
