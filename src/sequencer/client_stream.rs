//! One client's stream, as the sequencer reads it: opened when it is there, watched, reopened.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use gapless_shm::{Message, ProducerStatus, RingError, Start, ring_path};

use super::core::{Core, Outcome};
use super::error::SequencerError;
use super::frame::Frame;
use super::ledger::Ledger;
use super::options::ClientOptions;
use super::record::{ClientId, Leaving};
use crate::address::{Address, ReadFrom};
use crate::error::{Error, PollError};
use crate::sequencer::Application;
use crate::subscriber::Subscriber;

/// Between two attempts to open a stream.
const RETRY_NS: u64 = 10_000_000;
/// Between two looks at whether a client lives: each is a system call.
const WATCH_NS: u64 = 1_000_000;

/// A ring's file: another one of the same name is another ring.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FileId {
    device: u64,
    inode: u64,
    owner: u32,
}

/// What a look at a client said of it.
pub(crate) enum Watched {
    /// Nothing to be said.
    Well,
    /// It is gone.
    Left(Leaving),
    /// Its ring belongs to this user, who is not the one that may have it.
    Foreign(u32),
}

/// See the module's first page.
pub(crate) struct ClientStream {
    id: ClientId,
    address: Address,
    silence_ns: Option<u64>,
    owner: Option<u32>,
    subscriber: Option<Subscriber>,
    file: Option<FileId>,
    /// A file that was found to be another user's: told once.
    foreign: Option<FileId>,
    retry_ns: u64,
    watch_ns: u64,
    heard_ns: u64,
}

impl ClientStream {
    pub(crate) fn new(options: &ClientOptions, reader: &str) -> Result<Self, SequencerError> {
        let stream = || options.address.clone();
        let mut address: Address = options.address.parse().map_err(|error| {
            SequencerError::Open { stream: stream(), error: Error::from(error) }
        })?;
        let reason = match &mut address {
            Address::Shm(shm) => {
                // Frames that are known already are passed over: what counts is that none is lost.
                shm.consumer = shm.consumer.clone().start(Start::Oldest).name(reader);
                shm.past.from = Some(ReadFrom::Oldest);
                None
            }
            Address::Udp(_) if options.owner.is_some() => Some("only a ring has an owner"),
            Address::Udp(_) => None,
            Address::Log(_) => Some("a client's stream is a shm: or udp: address"),
        };
        let enveloped = address.is_enveloped().then_some("frames travel without envelopes");
        if let Some(reason) = reason.or(enveloped) {
            return Err(SequencerError::Unusable { stream: stream(), reason });
        }
        Ok(Self {
            id: options.id,
            address,
            silence_ns: options.silence.map(|silence: Duration| silence.as_nanos() as u64),
            owner: options.owner,
            subscriber: None,
            file: None,
            foreign: None,
            retry_ns: 0,
            watch_ns: 0,
            heard_ns: 0,
        })
    }

    pub(crate) fn id(&self) -> ClientId {
        self.id
    }

    /// Silence counts from now on.
    pub(crate) fn hear(&mut self, now_ns: u64) {
        self.heard_ns = now_ns;
    }

    /// The ring's file as it is on disk; `None` of datagrams, or if there is none.
    fn file_now(&self) -> Option<FileId> {
        let Address::Shm(shm) = &self.address else { return None };
        let path = ring_path(shm.directory(), shm.name()).ok()?;
        let found = std::fs::metadata(path).ok()?;
        Some(FileId { device: found.dev(), inode: found.ino(), owner: found.uid() })
    }

    /// Opens the stream if it is there and may be opened.
    fn open(&mut self) -> Watched {
        let file = self.file_now();
        if let Some(found) = file
            && self.owner.is_some_and(|owner| owner != found.owner)
        {
            let told = self.foreign.replace(found) == Some(found);
            return if told { Watched::Well } else { Watched::Foreign(found.owner) };
        }
        match Subscriber::open_at(&self.address) {
            Ok(subscriber) => {
                (self.subscriber, self.file, self.foreign) = (Some(subscriber), file, None);
                Watched::Well
            }
            Err(Error::Ring(RingError::NotFound { .. })) => Watched::Left(Leaving::Died),
            Err(_) => Watched::Left(Leaving::Unreadable),
        }
    }

    /// Looks after the stream, seldom: opens it, and says if its client is gone.
    #[inline]
    pub(crate) fn watch(&mut self, now_ns: u64) -> Watched {
        match &self.subscriber {
            None if now_ns < self.retry_ns => Watched::Well,
            Some(_) if now_ns < self.watch_ns => Watched::Well,
            _ => self.look(now_ns),
        }
    }

    #[cold]
    fn look(&mut self, now_ns: u64) -> Watched {
        let Some(subscriber) = &self.subscriber else {
            self.retry_ns = now_ns + RETRY_NS;
            return self.open();
        };
        self.watch_ns = now_ns + WATCH_NS;
        let status = subscriber.publisher_status();
        if status == ProducerStatus::Alive {
            let silent = now_ns.saturating_sub(self.heard_ns);
            let gone = self.silence_ns.is_some_and(|most| silent > most);
            return if gone { Watched::Left(Leaving::Silent) } else { Watched::Well };
        }
        if now_ns >= self.retry_ns {
            self.retry_ns = now_ns + RETRY_NS;
            let there = self.file_now();
            if there.is_some() && there != self.file {
                self.subscriber = None; // a ring of the same name, but another one
                return self.open();
            }
        }
        let died = status == ProducerStatus::Dead;
        Watched::Left(if died { Leaving::Died } else { Leaving::Closed })
    }

    /// Hands up to `quota` frames to the core. `Err`: the stream cannot be read any further.
    #[inline]
    pub(crate) fn take<A: Application>(
        &mut self,
        core: &mut Core<A>,
        quota: usize,
        now_ns: u64,
        mut told: impl FnMut(Outcome),
    ) -> Result<usize, Leaving> {
        let Some(subscriber) = &mut self.subscriber else { return Ok(0) };
        let id = self.id;
        let polled = subscriber.poll_while(quota, |message| {
            told(core.submit(id, message.payload, now_ns));
            true
        });
        self.settle(polled, now_ns)
    }

    /// Passes over the frames that the leader has dealt with, and keeps the others.
    pub(crate) fn hold(&mut self, ledger: &Ledger, now_ns: u64) -> Result<usize, Leaving> {
        let Some(subscriber) = &mut self.subscriber else { return Ok(0) };
        let id = self.id;
        let known = |message: Message<'_>| {
            Frame::read(message.payload).map_or(true, |frame| ledger.knows(id, &frame))
        };
        let polled = subscriber.poll_while(usize::MAX, known);
        self.settle(polled, now_ns)
    }

    #[inline]
    fn settle(&mut self, polled: Result<usize, PollError>, now_ns: u64) -> Result<usize, Leaving> {
        match polled {
            Ok(0) => Ok(0),
            Ok(taken) => {
                self.heard_ns = now_ns;
                Ok(taken)
            }
            Err(error) => self.interrupted(&error, now_ns),
        }
    }

    /// What was lost shows by its numbers, and is asked of the client.
    #[cold]
    fn interrupted(&mut self, error: &PollError, now_ns: u64) -> Result<usize, Leaving> {
        match error {
            PollError::Lapped { .. } | PollError::Lost { .. } | PollError::NewSession { .. } => {
                Ok(1)
            }
            PollError::Unsteady | PollError::Wire(_) => Ok(0),
            _ => {
                self.subscriber = None;
                self.retry_ns = now_ns + RETRY_NS;
                Err(Leaving::Unreadable)
            }
        }
    }
}
