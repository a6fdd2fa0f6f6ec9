//! One client's stream, as the sequencer reads it: opened when it is there, watched, reopened.

use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use gapless_shm::{
    Consumer, LockMemory, LookBack, Message, Place, ProducerStatus, RingError, Start, ring_path,
};

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

/// Between two attempts to open a stream, at first.
const RETRY_NS: u64 = 10_000_000;
/// Between two attempts, after many: each is a system call.
const RETRY_MAX_NS: u64 = 80_000_000;
/// Frames that are passed over at a time.
const HOLD_FRAMES: usize = 4096;
/// Frames of datagrams are kept no longer than this: there is no ring to tell by.
const HOLD_NS: u64 = 1_000_000_000;
/// What a record has around its payload, bytes, at most.
const AROUND_BYTES: u64 = 256;
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
    /// From an attempt to the next one.
    pause_ns: u64,
    watch_ns: u64,
    heard_ns: u64,
    /// Since when a frame is kept that the leader has not dealt with.
    held_ns: Option<u64>,
    /// How far the stream has been seen to go, while a frame is kept.
    seen: Option<Place>,
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
                let consumer = shm.consumer.clone().start(Start::Oldest).name(reader);
                // Whoever opens it has others to serve, and the client chose its size.
                shm.consumer = consumer.prefault(false).lock_memory(LockMemory::Never);
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
            pause_ns: RETRY_NS,
            watch_ns: 0,
            heard_ns: 0,
            held_ns: None,
            seen: None,
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

    /// Tries to open the stream; the next attempt is later, the more have failed.
    fn open(&mut self, now_ns: u64) -> Watched {
        let opened = self.open_by(Subscriber::open_at);
        let failed = self.subscriber.is_none();
        self.pause_ns = if failed { (2 * self.pause_ns).min(RETRY_MAX_NS) } else { RETRY_NS };
        self.retry_ns = now_ns + self.pause_ns;
        opened
    }

    /// Opens the stream by `open` if it is there and may be opened.
    fn open_by(&mut self, open: impl FnOnce(&Address) -> Result<Subscriber, Error>) -> Watched {
        let file = self.file_now();
        if let Some(owner) = self.owner {
            let Some(found) = file else { return Watched::Left(Leaving::Died) };
            if owner != found.owner {
                let told = self.foreign.replace(found) == Some(found);
                return if told { Watched::Well } else { Watched::Foreign(found.owner) };
            }
        }
        match open(&self.address) {
            // Another file may have been opened than the one that was looked at.
            Ok(_) if self.file_now() != file => Watched::Well,
            Ok(subscriber) => {
                (self.subscriber, self.file, self.foreign) = (Some(subscriber), file, None);
                (self.held_ns, self.seen) = (None, None);
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
            return self.open(now_ns);
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
                return self.open(now_ns);
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

    /// Passes over the frames that the leader has dealt with, and keeps the others: as much as the
    /// client can spare. Of what is passed over beyond that, a client that lives will be asked.
    pub(crate) fn hold(&mut self, ledger: &Ledger, now_ns: u64) -> Result<usize, Leaving> {
        let Some(subscriber) = &mut self.subscriber else { return Ok(0) };
        let id = self.id;
        let first_kept = match (self.held_ns, subscriber.consumer()) {
            (None, _) => 0,
            (Some(_), Some(consumer)) => first_kept(consumer, &mut self.seen),
            (Some(since), None) if now_ns.saturating_sub(since) < HOLD_NS => 0,
            (Some(_), None) => u64::MAX,
        };
        let mut keeps = false;
        let polled = subscriber.poll_while(HOLD_FRAMES, |message: Message<'_>| {
            let known = Frame::read(message.payload).map_or(true, |frame| ledger.knows(id, &frame));
            keeps = !known && message.sequence >= first_kept;
            !keeps
        });
        self.held_ns = keeps.then(|| self.held_ns.unwrap_or(now_ns));
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

/// The first frame that may be kept: so that no more lies between it and the ring's end than half
/// the ring, or less if the client would have no room for its longest message. `seen` is how far
/// the stream was known to go.
fn first_kept(consumer: &Consumer, seen: &mut Option<Place>) -> u64 {
    let behind = |place| match consumer.look_back(place, &mut []) {
        LookBack::Record { next, .. } | LookBack::TooLong { next, .. } => Some(next),
        LookBack::NotYet | LookBack::Gone => None,
    };
    let here = consumer.place();
    let from = seen.filter(|seen| seen.position() > here.position()).unwrap_or(here);
    let end = (0..HOLD_FRAMES).try_fold(from, |at, _| behind(at).ok_or(at));
    let (Ok(end) | Err(end)) = end;
    *seen = Some(end);
    let capacity = consumer.capacity_bytes();
    let longest = consumer.max_message_bytes() as u64 + AROUND_BYTES;
    let room = capacity.saturating_sub(2 * longest).min(capacity / 2);
    let mut first = here;
    for _ in 0..HOLD_FRAMES {
        match behind(first) {
            Some(next) if end.position() - first.position() > room => first = next,
            _ => break,
        }
    }
    first.sequence()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publisher::Publisher;
    use crate::sequencer::frame::FrameKind;

    fn address(directory: &tempfile::TempDir) -> String {
        format!("shm:client?capacity=64K&dir={}", directory.path().display())
    }

    fn stream(directory: &tempfile::TempDir, owned: bool) -> ClientStream {
        let mut options = ClientOptions::new(ClientId(7), address(directory));
        if owned {
            let owner = std::fs::metadata(directory.path()).unwrap().uid();
            options = options.owner(owner);
        }
        ClientStream::new(&options, "sequencer").unwrap()
    }

    fn command(sequence: u64) -> Vec<u8> {
        let kind = FrameKind::Command;
        let (client, payload) = (ClientId(7), &[0; 32][..]);
        let frame = Frame { kind, client, run: 0, sequence, sent_ns: 0, payload };
        [&frame.head()[..], payload].concat()
    }

    #[test]
    fn a_standby_keeps_half_a_ring_and_never_holds_its_client_up() {
        let directory = tempfile::tempdir().unwrap();
        let mut publisher = Publisher::open(&address(&directory)).unwrap();
        let mut stream = stream(&directory, false);
        stream.watch(1);
        let ledger = Ledger::default();
        // Each takes 128 bytes of the ring's 64 KiB.
        for sequence in 1..=10_000 {
            publisher.try_publish(&command(sequence)).unwrap();
            stream.hold(&ledger, 2).unwrap();
            let kept = sequence + 1 - stream.subscriber.as_ref().unwrap().next_sequence();
            assert!((sequence.min(250)..=257).contains(&kept), "{kept} of {sequence}");
        }
    }

    #[test]
    fn a_ring_that_is_exchanged_while_it_is_opened_is_not_read() {
        for owned in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let mut stream = stream(&directory, owned);
            let ring = || Publisher::open(&address(&directory)).unwrap();
            let mut publisher = ring();
            let path = ring_path(directory.path(), "client").unwrap();
            stream.open_by(|address| {
                std::fs::rename(&path, directory.path().join("kept")).unwrap();
                publisher = ring();
                Subscriber::open_at(address)
            });
            assert!(stream.subscriber.is_none());
            stream.open_by(Subscriber::open_at);
            assert!(stream.subscriber.is_some());
        }
    }

    #[test]
    fn a_ring_whose_owner_was_not_seen_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut stream = stream(&directory, true);
        let mut publisher = None;
        stream.open_by(|at| {
            publisher = Some(Publisher::open(&address(&directory)).unwrap());
            Subscriber::open_at(at)
        });
        assert!(stream.subscriber.is_none());
    }

    #[test]
    fn an_absent_client_is_looked_for_less_and_less_often() {
        let directory = tempfile::tempdir().unwrap();
        let mut stream = stream(&directory, false);
        let mut attempts = 0;
        for now_ms in 0..1000 {
            let watched = stream.watch(now_ms * 1_000_000);
            attempts += u32::from(matches!(watched, Watched::Left(Leaving::Died)));
        }
        assert!((12..20).contains(&attempts), "{attempts}");
    }

    #[test]
    fn a_client_does_not_choose_what_its_ring_costs_the_sequencer() {
        let options = ClientOptions::new(ClientId(7), "shm:client?prefault=yes&lock=required");
        let stream = ClientStream::new(&options, "sequencer").unwrap();
        let Address::Shm(shm) = &stream.address else { panic!("a ring") };
        let consumer = format!("{:?}", shm.consumer);
        assert!(consumer.contains("prefault: false") && consumer.contains("lock: Never"));
    }
}
