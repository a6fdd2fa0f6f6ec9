//! A sequencer with its streams: stands by, leads, and hands over.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use gapless_shm::{ProducerStatus, PublishError, RingError, ring_path};

use super::application::{Application, EVENT_BYTES_MAX};
use super::client_stream::{ClientStream, Watched};
use super::core::{Core, Outcome};
use super::error::{SequencerError, SnapshotError};
use super::options::{SequencerOptions, output};
use super::record::{ClientId, Leaving, STAMP_BYTES};
use super::replica::begin_at;
use super::snapshot::{Snapshots, session_of};
use super::standing::{Election, KernelLease, SequencerStats, Standing};
use crate::address::{Address, ShmAddress};
use crate::agent::Agent;
use crate::clock::{Clock, UnixClock};
use crate::error::Error;
use crate::log::LogError;
use crate::publisher::Publisher;
use crate::subscriber::Subscriber;

/// Records that a follower reads in one duty cycle.
const FOLLOW_RECORDS: usize = 256;
/// Empty polls of a follower between two looks at whether the leader lives: each is a system call.
const LIVENESS_POLLS: u32 = 16;
/// Between two attempts to open a stream that is not there.
const RETRY_NS: u64 = 1_000_000;
/// What any stream of records must take.
const RECORD_BYTES_MIN: usize = STAMP_BYTES + EVENT_BYTES_MAX;
/// Between two attempts to evict who holds the stream up.
const EVICT_NS: u64 = 10_000_000;
/// A take-over that reads nothing for so long has no more to read.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);

enum Part {
    Waiting {
        retry_ns: u64,
    },
    Following(Box<Subscriber>),
    Leading(Box<Publisher>),
    /// It has told its error and let go of all its streams.
    Ended,
}

/// Makes one stream of many clients' commands, with an application behind it.
///
/// All sequencers of one stream are opened alike. The first to get the lease of the stream leads;
/// the others follow, and one of them goes on when the leader dies, is stopped, or ceases. The same
/// code begins the first, brings a crashed one back and takes over: it reads the stream to its end,
/// gets the lease, finishes what was begun, and goes on.
///
/// See the [module](super) for an example.
pub struct Sequencer<A> {
    core: Core<A>,
    part: Part,
    election: Box<dyn Election>,
    output: Address,
    /// The ring behind the output, which followers read.
    ring: ShmAddress,
    clients: Vec<ClientStream>,
    /// Client that the next turn starts with.
    first: usize,
    clock: UnixClock,
    options: SequencerOptions,
    idle_polls: u32,
    checkpoint_at: u64,
    snapshot_at: u64,
    snapshots: Option<Snapshots>,
    /// The stream's, once it is known.
    session: Option<u64>,
    /// Since when the stream has had no room.
    stalled_ns: Option<u64>,
    stats: SequencerStats,
}

impl<A: Application> Sequencer<A> {
    /// Takes up the state of the newest snapshot, if there is one. Streams are opened by the duty
    /// cycles.
    ///
    /// # Errors
    /// [`SequencerError`] if an address is unusable, a client is listed twice, or the snapshots
    /// cannot be read.
    pub fn open(options: SequencerOptions, application: A) -> Result<Self, SequencerError> {
        Self::open_elected(options, application, Box::new(KernelLease))
    }

    /// As [`open`](Self::open), leading only while `election` allows it.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_elected(
        options: SequencerOptions,
        application: A,
        election: Box<dyn Election>,
    ) -> Result<Self, SequencerError> {
        let (output, ring) = output(&options.output)?;
        let mut core = Core::new(application, RECORD_BYTES_MIN);
        let mut clients: Vec<ClientStream> = Vec::new();
        for client in &options.clients {
            let id = client.id;
            if id == ClientId::NONE || clients.iter().any(|other| other.id() == id) {
                return Err(SequencerError::Client { client: id });
            }
            core.admit(id, client.admission);
            clients.push(ClientStream::new(client, "sequencer")?);
        }
        let named = |directory: &PathBuf| Snapshots::of(directory, ring.name());
        let mut snapshots = options.snapshots.as_ref().map(named);
        let mut session = None;
        if let Some(snapshots) = &mut snapshots {
            session = snapshots.newest(session_of(&ring), |state| core.load(state))?;
        }
        let next = core.next_sequence();
        Ok(Self {
            core,
            part: Part::Waiting { retry_ns: 0 },
            election,
            output,
            ring,
            clients,
            first: 0,
            clock: UnixClock::new(),
            idle_polls: 0,
            checkpoint_at: next.saturating_add(interval(options.checkpoint_records)),
            snapshot_at: next.saturating_add(interval(options.snapshot_records)),
            options,
            snapshots,
            session,
            stalled_ns: None,
            stats: SequencerStats::default(),
        })
    }

    /// What it is doing.
    pub fn standing(&self) -> Standing {
        match self.part {
            Part::Waiting { .. } => Standing::Waiting,
            Part::Ended => Standing::Ended,
            Part::Following(_) => Standing::Following,
            Part::Leading(_) => Standing::Leading,
        }
    }

    /// What has happened.
    pub fn stats(&self) -> SequencerStats {
        self.stats
    }

    /// Why the newest snapshot was passed over for an older one, or the last could not be written.
    pub fn snapshot_trouble(&self) -> Option<&SnapshotError> {
        self.snapshots.as_ref()?.trouble()
    }

    /// The application, in the state behind the newest record that was followed or written.
    pub fn application(&self) -> &A {
        self.core.application()
    }

    /// Sequence number of the next record.
    pub fn next_sequence(&self) -> u64 {
        self.core.next_sequence()
    }

    /// The term that the stream is in: how many leaders it has had.
    pub fn term(&self) -> u32 {
        self.core.term()
    }

    /// Sequenced time, Unix ns.
    pub fn time_ns(&self) -> u64 {
        self.core.time_ns()
    }

    /// How old the newest record is, by this host's clock. Much more than the tick while following
    /// means a leader that is stuck or stopped: it keeps its lease, so nobody takes over until
    /// somebody ends it (`gapless inspect` names its process).
    pub fn silent_for(&self) -> Duration {
        Duration::from_nanos(self.clock.now_ns().saturating_sub(self.core.time_ns()))
    }

    /// A hash of the application's whole state, equal where states are equal.
    pub fn state_hash(&self) -> u64 {
        self.core.state_hash()
    }

    /// The last number of a client's that is used up.
    pub fn last_of(&self, client: ClientId) -> u64 {
        self.core.ledger().last(client)
    }

    // ---- Waiting and following

    fn wait(&mut self, retry_ns: u64) -> Result<usize, SequencerError> {
        let now_ns = self.clock.now_ns();
        if now_ns < retry_ns {
            return Ok(0);
        }
        match self.subscribe()? {
            Some(subscriber) => {
                self.part = Part::Following(Box::new(subscriber));
                Ok(1)
            }
            None => {
                self.part = Part::Waiting { retry_ns: now_ns + RETRY_NS };
                self.take_over(None)
            }
        }
    }

    /// A reader of the stream from the next record on; `None` if there is no stream.
    fn subscribe(&self) -> Result<Option<Subscriber>, SequencerError> {
        let next = self.core.next_sequence();
        let mut ring = self.ring.clone();
        ring.consumer = ring.consumer.name("standby");
        let mut address = Address::Shm(ring);
        begin_at(&mut address, next, None);
        match Subscriber::open_at(&address) {
            Ok(mut subscriber) => {
                let oldest = subscriber.consumer().map_or(next, |ring| ring.next_sequence());
                if oldest > next {
                    return Err(SequencerError::Incomplete { wanted: next, oldest });
                }
                Ok(Some(subscriber))
            }
            Err(Error::Ring(RingError::NotFound { .. })) => Ok(None),
            // Nothing has been recorded yet.
            Err(Error::Log(LogError::NotFound { .. } | LogError::SessionUnknown { .. })) => {
                Ok(None)
            }
            Err(Error::Ring(RingError::SequenceGone { oldest, .. })) => {
                Err(SequencerError::Incomplete { wanted: next, oldest })
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: Error) -> SequencerError {
        SequencerError::Open { stream: self.options.output.clone(), error }
    }

    fn follow(&mut self) -> Result<usize, SequencerError> {
        let Part::Following(subscriber) = &mut self.part else { return Ok(0) };
        if let Some(consumer) = subscriber.consumer() {
            let stream = consumer.session();
            let known = *self.session.get_or_insert(stream);
            if known != stream {
                return Err(SequencerError::OtherSession { known, stream });
            }
        }
        let followed = read(&mut self.core, subscriber)?;
        self.stats.followed += followed as u64;
        self.hold();
        if followed > 0 {
            self.idle_polls = 0;
            self.snapshot();
            return Ok(followed);
        }
        self.idle_polls = self.idle_polls.wrapping_add(1);
        if self.idle_polls.is_multiple_of(LIVENESS_POLLS) {
            let Part::Following(subscriber) = &self.part else { return Ok(0) };
            // A ring that is gone is made again from its log, by who has read that to its end.
            let is_orphaned = match subscriber.is_live() {
                true => subscriber.publisher_status() != ProducerStatus::Alive,
                false => !self.has_ring(),
            };
            if is_orphaned {
                let waiting = Part::Waiting { retry_ns: 0 };
                let Part::Following(subscriber) = std::mem::replace(&mut self.part, waiting) else {
                    return Ok(0);
                };
                return self.take_over(Some(subscriber));
            }
        }
        Ok(0)
    }

    /// Whether the stream's ring is there.
    fn has_ring(&self) -> bool {
        ring_path(self.ring.directory(), self.ring.name()).is_ok_and(|path| path.exists())
    }

    /// Keeps clients from overwriting what has not been sequenced yet.
    fn hold(&mut self) {
        let now_ns = self.clock.now_ns();
        for client in &mut self.clients {
            // Whether it is gone is the leader's to say.
            let _ = client.watch(now_ns);
            let _ = client.hold(self.core.ledger(), now_ns);
        }
    }

    /// Writes a snapshot if it is time for one and the state is that behind a whole record. One
    /// that cannot be written is counted, and another tried after as many records.
    fn snapshot(&mut self) {
        let next = self.core.next_sequence();
        let Some(snapshots) = &mut self.snapshots else { return };
        if next < self.snapshot_at || !self.core.is_settled() {
            return;
        }
        let Part::Following(subscriber) = &mut self.part else { return };
        let Some(session) = subscriber.consumer().map(|consumer| consumer.session()) else {
            return; // it still reads the past
        };
        self.snapshot_at = next.saturating_add(interval(self.options.snapshot_records));
        let mut state = Vec::new();
        self.core.save(&mut state);
        match snapshots.write(session, next, &state) {
            true => self.stats.snapshots += 1,
            false => self.stats.snapshots_failed += 1,
        }
    }

    // ---- Leading

    /// Gets the lease, reads what is still to be read, and leads; or goes on as before, if another
    /// was quicker.
    fn take_over(&mut self, subscriber: Option<Box<Subscriber>>) -> Result<usize, SequencerError> {
        let known = self.core.next_sequence() > 1;
        if known && self.ring.past.log().is_none() && !self.has_ring() {
            // Another would begin anew, with numbers that this one's state knows nothing of.
            return Err(SequencerError::RingGone { next: self.core.next_sequence() });
        }
        let may_lead = self.election.may_lead();
        let publisher = if may_lead { self.claim(subscriber.is_some())? } else { None };
        let Some(mut publisher) = publisher else {
            if let Some(subscriber) = subscriber {
                self.part = Part::Following(subscriber);
            }
            return Ok(0);
        };
        let stream = publisher.producer().session();
        if let Some(known) = self.session.filter(|&known| known != stream) {
            return Err(SequencerError::OtherSession { known, stream });
        }
        self.session = Some(stream);
        self.drain(subscriber, publisher.next_sequence())?;
        self.core.set_max_bytes(publisher.max_message_bytes());
        self.lead(publisher)
    }

    /// Reads what nobody writes any more, up to message `end`.
    fn drain(
        &mut self,
        subscriber: Option<Box<Subscriber>>,
        end: u64,
    ) -> Result<(), SequencerError> {
        let ends = |wanted| SequencerError::Ends { wanted, end };
        let mut subscriber = match subscriber {
            Some(subscriber) => subscriber,
            None => {
                let wanted = self.core.next_sequence();
                Box::new(self.subscribe()?.ok_or(ends(wanted))?)
            }
        };
        let mut read_at = Instant::now();
        while self.core.next_sequence() < end {
            let followed = read(&mut self.core, &mut subscriber)?;
            self.stats.followed += followed as u64;
            if followed > 0 {
                read_at = Instant::now();
            } else if read_at.elapsed() > DRAIN_LIMIT {
                break;
            }
        }
        let wanted = self.core.next_sequence();
        if wanted == end { Ok(()) } else { Err(ends(wanted)) }
    }

    /// The stream's publisher; `None` if another has the lease. Clients wait for one that takes
    /// over: it maps the ring without touching all of its pages first, which takes milliseconds.
    fn claim(&self, takes_over: bool) -> Result<Option<Publisher>, SequencerError> {
        let mut output = self.output.clone();
        match &mut output {
            Address::Shm(shm) if takes_over => shm.ring = shm.ring.clone().prefault(false),
            Address::Udp(udp) if takes_over => {
                udp.ring.ring = udp.ring.ring.clone().prefault(false);
            }
            _ => {}
        }
        match Publisher::open_at(&output) {
            Ok(publisher) if publisher.max_message_bytes() < RECORD_BYTES_MIN => {
                let stream = self.options.output.clone();
                let reason = "its messages are too short for records: 256 bytes are needed";
                Err(SequencerError::Unusable { stream, reason })
            }
            Ok(publisher) => Ok(Some(publisher)),
            // Somebody has it, or is creating it just now.
            Err(Error::Ring(RingError::ProducerAlive { .. } | RingError::Exists { .. })) => {
                Ok(None)
            }
            Err(error) => Err(self.failed(error)),
        }
    }

    fn lead(&mut self, publisher: Publisher) -> Result<usize, SequencerError> {
        let now_ns = self.clock.now_ns();
        self.part = Part::Leading(Box::new(publisher));
        self.core.lead(now_ns);
        self.stats.terms += 1;
        for client in &mut self.clients {
            client.hear(now_ns);
        }
        let listed = |id| self.clients.iter().any(|client| client.id() == id);
        let strangers: Vec<_> = self.core.ledger().connected().filter(|&id| !listed(id)).collect();
        for stranger in strangers {
            self.core.disconnect(stranger, Leaving::Unreadable, now_ns);
        }
        self.flush()?;
        Ok(1)
    }

    fn turn(&mut self) -> Result<usize, SequencerError> {
        if !self.election.may_lead() {
            return self.cease();
        }
        let mut done = self.poll_publisher();
        let now_ns = self.clock.now_ns();
        if !self.core.outbox().is_empty() && !self.flush()? {
            self.stall(now_ns);
            return Ok(done);
        }
        self.stalled_ns = None;
        let count = self.clients.len();
        for turn in 0..count {
            let index = (self.first + turn) % count;
            done += self.serve(index, now_ns);
            if !self.core.outbox().is_empty() && !self.flush()? {
                break; // nobody brings anything before the stream has room again
            }
        }
        self.first = if count > 0 { (self.first + 1) % count } else { 0 };
        self.core.tick(now_ns, self.options.tick.as_nanos() as u64);
        if self.core.next_sequence() >= self.checkpoint_at {
            let records = interval(self.options.checkpoint_records);
            self.checkpoint_at = self.core.next_sequence().saturating_add(records);
            self.core.checkpoint();
        }
        if !self.core.outbox().is_empty() {
            self.flush()?;
        }
        Ok(done)
    }

    /// A client's turn.
    #[inline]
    fn serve(&mut self, index: usize, now_ns: u64) -> usize {
        let (client, stats) = (&mut self.clients[index], &mut self.stats);
        let taken =
            client.take(&mut self.core, self.options.quota, now_ns, |outcome| match outcome {
                Outcome::Sequenced => stats.sequenced += 1,
                Outcome::Duplicate => stats.duplicates += 1,
                Outcome::Refused(_) => stats.refused += 1,
                Outcome::Heard => {}
            });
        match taken {
            Ok(0) => self.watch(index, now_ns),
            Ok(taken) => return taken,
            Err(leaving) => self.core.disconnect(client.id(), leaving, now_ns),
        }
        0
    }

    /// Looks whether a client is still there.
    #[inline]
    fn watch(&mut self, index: usize, now_ns: u64) {
        let client = &mut self.clients[index];
        match client.watch(now_ns) {
            Watched::Well => {}
            Watched::Left(leaving) => self.core.disconnect(client.id(), leaving, now_ns),
            Watched::Foreign(owner) => self.core.turn_away(client.id(), owner, now_ns),
        }
    }

    /// The stream has no room: a reader is a whole ring behind. Who is gone is noted all the same;
    /// who holds an `evictable` stream up for too long is thrown out.
    #[cold]
    fn stall(&mut self, now_ns: u64) {
        for index in 0..self.clients.len() {
            self.watch(index, now_ns);
        }
        let Part::Leading(publisher) = &mut self.part else { return };
        let since = *self.stalled_ns.get_or_insert(now_ns);
        if now_ns.saturating_sub(since) < self.options.patience.as_nanos() as u64 {
            return;
        }
        self.stalled_ns = Some(since + EVICT_NS); // the next one, if there is one, a little later
        let producer = publisher.producer();
        let Some(slowest) = producer.slowest() else { return };
        // A ring that is not evictable says no: then it waits.
        self.stats.evicted += u64::from(producer.evict(slowest.slot).unwrap_or(false));
    }

    /// Answers requests of receivers on other hosts, if there are any.
    #[inline]
    fn poll_publisher(&mut self) -> usize {
        let Part::Leading(publisher) = &mut self.part else { return 0 };
        publisher.poll().unwrap_or_else(|_| {
            // What could not be sent is asked for again: the stream is in the ring.
            self.stats.network_errors += 1;
            0
        })
    }

    /// Writes the outbox into the stream. False if the stream has no room for all of it.
    #[inline]
    fn flush(&mut self) -> Result<bool, SequencerError> {
        let Part::Leading(publisher) = &mut self.part else { return Ok(true) };
        let waiting = self.core.outbox().len();
        let first = self.core.next_sequence() - waiting as u64;
        let mut batch = publisher.batch();
        let mut refused = None;
        for record in self.core.outbox().iter() {
            if let Err(error) = batch.push(record) {
                refused = Some(error);
                break;
            }
        }
        let written = batch.commit() as usize;
        self.core.outbox().advance(written);
        match refused {
            None => Ok(true),
            // The rest of a batch that would fill the ring goes with the next one.
            Some(PublishError::BatchTooLong { .. }) if written > 0 => Ok(false),
            Some(error) if error.is_backpressure() => {
                self.stats.backpressure += 1;
                Ok(false)
            }
            Some(error) => Err(SequencerError::Publish { sequence: first + written as u64, error }),
        }
    }

    /// Hands the lease back and follows.
    #[cold]
    fn cease(&mut self) -> Result<usize, SequencerError> {
        self.poll_publisher();
        if !self.core.outbox().is_empty() && !self.flush()? {
            return Ok(0); // what is not written would be unknown to others
        }
        self.part = Part::Waiting { retry_ns: self.clock.now_ns() + RETRY_NS };
        Ok(1)
    }
}

impl<A: Application> Agent for Sequencer<A> {
    type Error = SequencerError;

    fn name(&self) -> &str {
        "sequencer"
    }

    /// Follows, takes over, or gives each client its turn.
    ///
    /// # Errors
    /// [`SequencerError`]: it must not go on, and has let go of its streams and its lease.
    #[inline]
    fn duty_cycle(&mut self) -> Result<usize, SequencerError> {
        self.step().inspect_err(|_| {
            // Its lease, and the rings that it holds, are free for others.
            self.part = Part::Ended;
            self.clients.clear();
        })
    }
}

impl<A: Application> Sequencer<A> {
    #[inline]
    fn step(&mut self) -> Result<usize, SequencerError> {
        match self.part {
            Part::Leading(_) => self.turn(),
            Part::Following(_) => self.follow(),
            Part::Waiting { retry_ns } => self.wait(retry_ns),
            Part::Ended => Ok(0),
        }
    }
}

/// Reads records into the core.
fn read<A: Application>(
    core: &mut Core<A>,
    subscriber: &mut Subscriber,
) -> Result<usize, SequencerError> {
    let mut diverged = None;
    let polled = subscriber.poll_while(FOLLOW_RECORDS, |message| {
        diverged = core.follow(message.sequence, message.payload).err();
        diverged.is_none()
    });
    match diverged {
        Some(diverged) => Err(diverged.into()),
        None => Ok(polled?),
    }
}

/// Records between two of something; 0 is never.
fn interval(records: u64) -> u64 {
    if records == 0 { u64::MAX } else { records }
}
