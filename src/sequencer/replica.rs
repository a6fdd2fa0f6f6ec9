//! A copy of the application that only reads: for audits, dashboards, reports, other hosts.

use std::path::Path;

use gapless_shm::Start;

use super::application::Application;
use super::core::Core;
use super::error::{SequencerError, SnapshotError};
use super::record::Record;
use super::snapshot::{Snapshots, session_of};
use crate::address::{Address, ReadFrom};
use crate::error::Error;
use crate::protocol::Session;
use crate::subscriber::Subscriber;

/// Follows a sequenced stream with an application of its own, from any address: its ring, its
/// datagrams on another host, its log.
///
/// What it reads is compared with what its application would have done, as a standby does; so a
/// replica that has come to a record is equal to the leader at that record.
///
/// ```
/// # use gapless::Agent;
/// # use gapless::sequencer::*;
/// # #[derive(Default)]
/// # struct Nothing;
/// # impl Application for Nothing {
/// #     fn apply(&mut self, _: &Record<'_>, _: &mut Events) {}
/// #     fn save(&self, _: &mut Vec<u8>) {}
/// #     fn load(&mut self, _: &[u8]) -> Result<(), LoadError> { Ok(()) }
/// # }
/// # let dir = tempfile::tempdir()?;
/// # let address = format!("shm:sequenced?capacity=64K&dir={}", dir.path().display());
/// # let mut leader = Sequencer::open(SequencerOptions::new(&address), Nothing)?;
/// # leader.duty_cycle()?;
/// // let address = "log:/var/log/sequenced";
/// let mut replica = Replica::open(&address, Nothing, None)?;
/// replica.poll(1000, |record| println!("{} {:?}", record.sequence, record.kind))?;
/// assert_eq!(replica.next_sequence(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Replica<A> {
    core: Core<A>,
    subscriber: Subscriber,
}

impl<A: Application> Replica<A> {
    /// Begins with the newest of the `snapshots` that will do, if there is a directory with any (of
    /// several streams, those of the one that is named like `address`), and goes on
    /// with the stream at `address`; otherwise with the stream's first message.
    ///
    /// # Errors
    /// [`SequencerError`] if the stream cannot be opened, or not so far back; if the snapshots
    /// cannot be read, or are of another session.
    pub fn open(
        address: &str,
        application: A,
        snapshots: Option<&Path>,
    ) -> Result<Self, SequencerError> {
        let failed = |error| SequencerError::Open { stream: address.to_owned(), error };
        let mut parsed: Address = address.parse().map_err(|error| failed(Error::from(error)))?;
        let mut core = Core::new(application, 0);
        let mut session = None;
        if let Some(directory) = snapshots {
            let wanted = match &parsed {
                Address::Shm(ring) => session_of(ring),
                Address::Udp(udp) => udp.receiver.session.and_then(|session| session.number()),
                Address::Log(log) => log.session.and_then(|session| session.number()),
            };
            let mut snapshots = Snapshots::like(directory, parsed.name())?;
            session = snapshots.newest(wanted, |state| core.load(state))?;
        }
        begin_at(&mut parsed, core.next_sequence(), session);
        let mut subscriber = Subscriber::open_at(&parsed).map_err(failed)?;
        if let (Some(snapshot), Some(consumer)) = (session, subscriber.consumer())
            && snapshot != consumer.session()
        {
            return Err(SnapshotError::Session { snapshot, stream: consumer.session() }.into());
        }
        Ok(Self { core, subscriber })
    }

    /// Applies up to `limit` records, shows each to `seen` behind that, and returns how many.
    ///
    /// # Errors
    /// [`SequencerError::Diverged`] if the stream is not what its application makes of it;
    /// [`SequencerError::Poll`] if it cannot be read, or not all of it.
    pub fn poll(
        &mut self,
        limit: usize,
        mut seen: impl FnMut(&Record<'_>),
    ) -> Result<usize, SequencerError> {
        let mut diverged = None;
        let core = &mut self.core;
        let polled = self.subscriber.poll_while(limit, |message| {
            let followed = core
                .follow(message.sequence, message.payload)
                .and_then(|()| Ok(Record::read(message.sequence, message.payload)?));
            match followed {
                Ok(record) => seen(&record),
                Err(error) => diverged = Some(error),
            }
            diverged.is_none()
        });
        match diverged {
            Some(diverged) => Err(diverged.into()),
            None => Ok(polled?),
        }
    }

    /// The application, in the state behind the newest record that was read.
    pub fn application(&self) -> &A {
        self.core.application()
    }

    /// Sequence number of the next record.
    pub fn next_sequence(&self) -> u64 {
        self.core.next_sequence()
    }

    /// A hash of the application's whole state, equal where states are equal.
    pub fn state_hash(&self) -> u64 {
        self.core.state_hash()
    }

    /// The stream's subscription: whether it is live, or has ended.
    pub fn subscriber(&mut self) -> &mut Subscriber {
        &mut self.subscriber
    }
}

/// Lets a subscription begin with message `next`; with the oldest if that is the first.
pub(crate) fn begin_at(address: &mut Address, next: u64, session: Option<u64>) {
    // A ring may begin with another message than the first, which is found out by its number.
    let known = next > 1;
    let from = if known { ReadFrom::Sequence(next) } else { ReadFrom::Oldest };
    match address {
        Address::Shm(shm) => {
            let start = if known { Start::Sequence(next) } else { Start::Oldest };
            shm.consumer = shm.consumer.clone().start(start);
            shm.past.from = Some(from);
        }
        Address::Udp(udp) => {
            udp.ring.past.from = Some(from);
            let session = session.map(Session::from_number);
            udp.receiver.session = session.or(udp.receiver.session);
        }
        Address::Log(log) => {
            log.from = from;
            log.session = session.map(Session::from_number).or(log.session);
        }
    }
}
