//! A session as logs have it, for answers by datagram: any message by its sequence.
//!
//! Several logs may have the same session (recorders on two hosts, or one that was restarted
//! elsewhere): what one lacks is taken from another, and only what all lack is gone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gapless_shm::Flags;

use super::catalog;
use super::disk::FileSystem;
use super::error::LogError;
use super::reader::LogReader;
use crate::address::ReadFrom;
use crate::protocol::shelf::{Packed, Pending, Shelf, Terms};
use crate::protocol::{Session, mold};

/// Places in a log that are read at by turns: as many requesters are answered without looking up
/// where each is.
const READERS_MAX: usize = 4;
/// How far the log is, is looked up this often at most, ns.
const LOOK_NS: u64 = 2_000_000;
/// A session that is not known is looked for this often at most, ns.
const LIST_NS: u64 = 20_000_000;
/// Whether more logs have a session that is served, is looked this often, ns.
const REFRESH_NS: u64 = 1_000_000_000;
/// Sessions that are listed: the newest of each log.
const SESSIONS_MAX: usize = 4096;

/// Which directories have which session.
#[derive(Debug)]
pub(super) struct Library {
    directories: Vec<PathBuf>,
    /// By session, then directory.
    sessions: Vec<(u64, usize)>,
    listed_at: Option<u64>,
}

impl Library {
    pub(super) fn new(directories: Vec<PathBuf>) -> Self {
        Self { directories, sessions: Vec::new(), listed_at: None }
    }

    /// Looks what there is. A directory that cannot be read has nothing.
    pub(super) fn list(&mut self, now: u64) {
        self.listed_at = Some(now);
        self.sessions.clear();
        for (index, directory) in self.directories.iter().enumerate() {
            let mut names = catalog::list(&FileSystem::default(), directory).unwrap_or_default();
            names.dedup_by_key(|name| name.session);
            let newest = names.iter().rev().take(SESSIONS_MAX);
            self.sessions.extend(newest.map(|name| (name.session, index)));
        }
        self.sessions.sort_unstable();
    }

    fn list_sometimes(&mut self, now: u64) {
        if self.listed_at.is_none_or(|at| now.saturating_sub(at) >= LIST_NS) {
            self.list(now);
        }
    }

    /// Directories that have a session, as far as is known.
    pub(super) fn directories(&self, session: u64) -> Vec<&Path> {
        let found = self.sessions.iter().filter(|(known, _)| *known == session);
        found.map(|(_, index)| &*self.directories[*index]).collect()
    }

    /// The newest session that is known.
    pub(super) fn newest(&self) -> Option<u64> {
        self.sessions.last().map(|(session, _)| *session)
    }

    /// The shelf of a session; `None` if no log has it.
    pub(super) fn shelf(
        &mut self,
        session: u64,
        datagram_bytes: usize,
        servers: &Arc<[SocketAddr]>,
        now: u64,
    ) -> Option<LogShelf> {
        if self.directories(session).is_empty() {
            self.list_sometimes(now);
        }
        let copies: Vec<_> = self.directories(session).into_iter().map(Copy::new).collect();
        let servers = Arc::clone(servers);
        let (looked_at, listed_at) = (None, now);
        let shelf =
            LogShelf { session, datagram_bytes, servers, copies, looked_at, listed_at, now };
        (!shelf.copies.is_empty()).then_some(shelf)
    }

    /// Adds logs to a shelf that have begun to have its session.
    pub(super) fn refresh(&mut self, shelf: &mut LogShelf, now: u64) {
        if now.saturating_sub(shelf.listed_at) < REFRESH_NS {
            return;
        }
        shelf.listed_at = now;
        self.list_sometimes(now);
        for directory in self.directories(shelf.session) {
            if !shelf.copies.iter().any(|copy| copy.directory == directory) {
                shelf.copies.push(Copy::new(directory));
                shelf.looked_at = None;
            }
        }
    }

    /// The newest session, looked for if that was not done lately.
    pub(super) fn newest_lately(&mut self, now: u64) -> Option<u64> {
        self.list_sometimes(now);
        self.newest()
    }
}

/// One session, in one or several logs.
pub(super) struct LogShelf {
    session: u64,
    datagram_bytes: usize,
    servers: Arc<[SocketAddr]>,
    copies: Vec<Copy>,
    looked_at: Option<u64>,
    listed_at: u64,
    /// The time, as last told.
    pub(super) now: u64,
}

/// A session in one log.
struct Copy {
    directory: PathBuf,
    /// At the end, when last looked.
    head: Option<LogReader>,
    /// The one used longest ago first.
    readers: Vec<LogReader>,
    oldest: u64,
    next: u64,
    /// From where to where something was last found to be gone.
    gone: Option<(u64, u64)>,
}

impl LogShelf {
    /// Looks how far the logs are, unless that was done a moment ago.
    fn look(&mut self) {
        if self.looked_at.is_some_and(|at| self.now.saturating_sub(at) < LOOK_NS) {
            return;
        }
        self.looked_at = Some(self.now);
        for copy in &mut self.copies {
            copy.look(self.session);
        }
    }
}

impl Shelf for LogShelf {
    fn terms(&self) -> Terms<'_> {
        Terms {
            session: Session::from_number(self.session),
            datagram_bytes: self.datagram_bytes,
            ended: false, // a log does not say
            servers: &self.servers,
        }
    }

    fn oldest_sequence(&mut self) -> u64 {
        self.look();
        self.copies.iter().map(|copy| copy.oldest).min().unwrap_or_default()
    }

    fn next_sequence(&mut self) -> u64 {
        self.look();
        self.copies.iter().map(|copy| copy.next).max().unwrap_or_default()
    }

    fn pack(&mut self, sequence: u64, pending: &mut Pending, packet: &mut [u8]) -> Packed {
        let mut gone = true;
        for copy in self.copies.iter_mut().filter(|copy| sequence < copy.next) {
            let packed = copy.pack(self.session, sequence, pending, packet);
            if packed.count > 0 {
                return packed;
            }
            gone &= packed.gone;
        }
        Packed { gone, ..Packed::default() }
    }

    fn gone_end(&mut self, first: u64, _: u64) -> u64 {
        let ends = self.copies.iter().filter(|copy| first < copy.next).map(|copy| {
            let found = copy.gone.filter(|(from, end)| (*from..*end).contains(&first));
            found.map_or(first, |(_, end)| end)
        });
        ends.min().unwrap_or(first)
    }
}

impl Copy {
    fn new(directory: &Path) -> Self {
        let directory = directory.to_owned();
        Self { directory, head: None, readers: Vec::new(), oldest: 0, next: 0, gone: None }
    }

    fn look(&mut self, session: u64) {
        let head = self.head.take();
        // What cannot be read now may be later: until then it is as it was.
        self.head = self.moved(head, session, ReadFrom::Now).ok();
        if let Some(head) = &self.head {
            (self.oldest, self.next) = (head.oldest_sequence(), head.reached());
        }
    }

    /// A reader that was elsewhere, if there is one, or a new one, at `from`.
    fn moved(
        &self,
        reader: Option<LogReader>,
        session: u64,
        from: ReadFrom,
    ) -> Result<LogReader, LogError> {
        match reader.and_then(|mut reader| reader.seek(from).ok().map(|()| reader)) {
            Some(reader) => Ok(reader),
            // None to spare, or what it knew of the log is no longer so.
            None => {
                let session = Session::from_number(session);
                LogReader::open_session(&self.directory, session, from)
            }
        }
    }

    /// A reader of the session that is at `sequence`.
    fn reader(&mut self, session: u64, sequence: u64) -> Result<&mut LogReader, LogError> {
        self.readers.retain(|reader| reader.session() == session);
        let there = self.readers.iter().position(|reader| reader.next_sequence() == sequence);
        let reader = match there {
            Some(at) => self.readers.remove(at),
            None => {
                let spare = self.readers.len() >= READERS_MAX;
                let oldest = spare.then(|| self.readers.remove(0));
                self.moved(oldest, session, ReadFrom::Sequence(sequence))?
            }
        };
        self.readers.push(reader);
        let last = self.readers.len() - 1;
        Ok(&mut self.readers[last])
    }

    fn pack(
        &mut self,
        session: u64,
        sequence: u64,
        pending: &mut Pending,
        packet: &mut [u8],
    ) -> Packed {
        let mut packed = Packed { used: mold::HEADER_BYTES, ..Packed::default() };
        let mut unfit = false;
        let mut outcome = Ok(0);
        // Once more if nothing was there: it should be.
        for again in [false, true] {
            let reader = match self.reader(session, sequence) {
                Ok(reader) => reader,
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            };
            if again {
                reader.suspect();
            }
            let enveloped = reader.is_enveloped();
            outcome = reader.poll_while(usize::from(mold::COUNT_MAX), |message, _| {
                let due = message.sequence == sequence + u64::from(packed.count);
                if !due || !pending.wants_next() {
                    return false;
                }
                let plain =
                    message.flags == Flags::WHOLE || (enveloped && !message.flags.is_lost());
                let end = mold::append(packet, packed.used, message.payload).filter(|_| plain);
                let Some(end) = end else {
                    unfit = packed.count == 0; // no packet will ever carry it
                    return false;
                };
                packed.used = end;
                packed.count += 1;
                pending.pass();
                true
            });
            if !matches!(outcome, Ok(0)) || unfit {
                break;
            }
        }
        self.gone = match outcome {
            _ if unfit => Some((sequence, sequence + 1)),
            Err(LogError::SequenceGone { oldest, .. }) => Some((sequence, oldest)),
            // All of it was removed meanwhile.
            Err(LogError::SessionUnknown { .. } | LogError::NotFound { .. }) => {
                Some((sequence, self.next))
            }
            Err(LogError::Missing { first, count } | LogError::Damaged { first, count, .. }) => {
                Some((first, first.saturating_add(count)))
            }
            _ => self.gone,
        };
        let is_gone = |(from, end): (u64, u64)| (from..end).contains(&sequence);
        packed.gone = packed.count == 0 && self.gone.is_some_and(is_gone);
        packed
    }
}
