//! Which part of a log a command is about, and reading it from end to end.

use gapless::Message;
use gapless::log::{LogError, LogReader, ReadFrom, survey};
use gapless::protocol::Session;

use super::{Directory, Point};
use crate::exit::Usage;
use crate::progress;
use crate::stop::Stop;

/// Messages of one poll.
const POLL_LIMIT: usize = 256;
/// So many empty polls in front of the end mean that the rest is torn.
const EMPTY_POLLS_MAX: u32 = 1024;

/// Which part of a log.
#[derive(clap::Args)]
pub(crate) struct Selection {
    /// The log's directory
    pub(super) directory: Directory,
    /// Begin here: oldest, a sequence number, or a time as @1763788800.25 or @2025-11-22T05:20:00Z
    #[arg(long, value_name = "POINT", default_value = "oldest")]
    from: Point,
    /// Leave out what comes from here on: a sequence number or a time
    #[arg(long, value_name = "POINT")]
    until: Option<Point>,
    /// End after N messages
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// The session, ten characters [default: the newest]
    #[arg(long, value_name = "SESSION", value_parser = session)]
    session: Option<Session>,
    /// All sessions, from the oldest one on
    #[arg(long, conflicts_with = "session")]
    all_sessions: bool,
}

/// A session as ten characters.
pub(super) fn session(text: &str) -> Result<Session, String> {
    let session = text.as_bytes().try_into().map(Session).ok();
    let known = session.filter(|session| session.number().is_some());
    known.ok_or_else(|| "a session is ten characters, 0-9 and A-Z".into())
}

/// What is met on the way.
pub(crate) enum Item<'a> {
    /// A message, of a session by its number, and when it was recorded, ns since the Unix epoch.
    Message { session: u64, message: Message<'a>, unix_ns: u64 },
    /// Messages that the log does not have, and why.
    Lacking { session: u64, first: u64, count: u64, why: String },
    /// Another session begins.
    Session { session: u64, next: u64 },
}

/// What was met in all.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Met {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) lacking: u64,
}

impl Selection {
    /// Reads what is selected, as far as the log goes now, and shows how far it has come.
    pub(crate) fn read(
        &self,
        stop: &Stop,
        what: &'static str,
        mut take: impl FnMut(Item<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Met> {
        let directory = &self.directory.0;
        let segments = survey(directory)?;
        let in_session = |session: u64| segments.iter().filter(move |s| s.session == session);
        let session = match (self.session, self.all_sessions) {
            (Some(session), _) => session.number(),
            (None, true) => segments.first().map(|segment| segment.session),
            (None, false) => segments.last().map(|segment| segment.session),
        };
        let session = session.ok_or(LogError::NotFound { directory: directory.clone() })?;
        if self.until.is_some_and(|until| matches!(until.0, ReadFrom::Oldest | ReadFrom::Now)) {
            let text = "--until needs a sequence number or a time as @1763788800.25";
            return Err(Usage(text.into()).into());
        }
        let last =
            if self.all_sessions { segments.last().map_or(0, |s| s.session) } else { session };
        let end = in_session(last).map(|segment| segment.next_sequence).max().unwrap_or(0);
        let name = Session::from_number(session);
        let mut reader = LogReader::open_session(directory, name, self.from.0)?;
        let start = reader.next_sequence();
        let total = match (self.all_sessions, self.until.map(|until| until.0)) {
            (true, _) => segments.iter().map(|s| s.next_sequence - s.first_sequence).sum(),
            (false, Some(ReadFrom::Sequence(until))) => until.min(end).saturating_sub(start),
            _ => end.saturating_sub(start),
        };
        let bar = progress::bar(total.min(self.count.unwrap_or(u64::MAX)), what);
        let mut reading = Reading { selection: self, met: Met::default(), over: false, empty: 0 };
        let at_until = |reader: &LogReader| {
            let until = self.until.map(|until| until.0);
            matches!(until, Some(ReadFrom::Sequence(end)) if reader.next_sequence() >= end)
        };
        while !reading.over
            && !at_until(&reader)
            && (reader.session(), reader.next_sequence()) < (last, end)
        {
            if stop.asked() {
                anyhow::bail!("interrupted");
            }
            reading.step(&mut reader, &mut take)?;
            bar.set_position(reading.met.messages);
        }
        bar.finish_and_clear();
        Ok(reading.met)
    }
}

struct Reading<'a> {
    selection: &'a Selection,
    met: Met,
    over: bool,
    empty: u32,
}

impl Reading<'_> {
    fn step(
        &mut self,
        reader: &mut LogReader,
        take: &mut impl FnMut(Item<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let left = self.selection.count.map_or(u64::MAX, |count| count - self.met.messages);
        let limit = usize::try_from(left).unwrap_or(usize::MAX).min(POLL_LIMIT);
        let (until, session) = (self.selection.until.map(|until| until.0), reader.session());
        let (mut failed, mut over) = (None, false);
        let met = &mut self.met;
        let polled = reader.poll_while(limit, |message, unix_ns| {
            over = match until {
                Some(ReadFrom::Sequence(sequence)) => message.sequence >= sequence,
                Some(ReadFrom::UnixNs(time)) => unix_ns >= time,
                _ => false,
            };
            if over {
                return false;
            }
            met.messages += 1;
            met.bytes += message.payload.len() as u64;
            failed = take(Item::Message { session, message, unix_ns }).err();
            failed.is_none()
        });
        if let Some(error) = failed {
            return Err(error);
        }
        match polled {
            Ok(0) => {
                self.empty += 1;
                over |= self.empty > EMPTY_POLLS_MAX;
            }
            Ok(_) => self.empty = 0,
            Err(LogError::NewSession { session, next }) if self.selection.all_sessions => {
                let session = session.number().unwrap_or(0);
                take(Item::Session { session, next })?;
            }
            Err(LogError::NewSession { .. }) => over = true,
            Err(error @ (LogError::Missing { .. } | LogError::Damaged { .. })) => {
                let (first, count) = match error {
                    LogError::Missing { first, count } => (first, count),
                    LogError::Damaged { first, count, .. } => (first, count),
                    _ => (0, 0),
                };
                self.met.lacking += count;
                take(Item::Lacking { session, first, count, why: error.to_string() })?;
            }
            Err(error) => return Err(error.into()),
        }
        self.over = over || self.selection.count == Some(self.met.messages);
        Ok(())
    }
}
