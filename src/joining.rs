//! From a stream's past to its present, without a seam.
//!
//! The past is read until there is no more of it, and only then the present is joined, at exactly
//! the next message. A ring is asked for that one sequence: it has it, and holds it from then on,
//! or it says that it has not, and the past is read further. A receiver of datagrams is told that
//! it has received everything in front of it: whatever was sent meanwhile is a gap like any other,
//! and repaired. So there is nothing to compare, to drop or to wait for, however fast the publisher
//! is.

use std::time::{Duration, Instant};

use gapless_shm::{Consumer, ConsumerOptions, Message, RingError, Start};

use crate::address::{PastOptions, ReadFrom, ShmAddress, UdpAddress};
use crate::error::{Error, PollError};
use crate::log::{LogError, Past, Records};
use crate::protocol::Session;
use crate::wire::Inlet;

/// Idle polls between two attempts at the present.
const ATTEMPT_POLLS: u32 = 256;
/// How long the past may end before what the present has: its recorder is behind, or has gone.
const PATIENCE: Duration = Duration::from_secs(2);

/// A reader of the past that is on its way to the present.
pub(crate) struct Joining {
    past: Past,
    target: Target,
    idle_polls: u32,
    idle_since: Option<Instant>,
}

/// The present to come.
enum Target {
    Ring(Box<ShmAddress>),
    Wire(Box<UdpAddress>),
}

/// The present.
pub(crate) enum Live {
    Ring(Box<Consumer>),
    /// And the session that was read so far.
    Wire(Box<Inlet>, Session),
}

/// What a poll came to.
pub(crate) enum Turn {
    /// So many messages of the past.
    Handed(usize),
    /// The present is joined; this is to be told first, if anything.
    Joined(Live, Option<PollError>),
}

/// How a subscription of a ring begins.
pub(crate) enum Beginning {
    Present(Box<Consumer>),
    Past(Joining),
}

impl Joining {
    /// Begins in the ring if it has what is wanted, else in the past.
    pub(crate) fn of_ring(address: &ShmAddress) -> Result<Beginning, Error> {
        let attach = |options: &ConsumerOptions| options.attach(address.name());
        let options = address.consumer_options();
        let past = &address.past;
        let from = past.from.unwrap_or(ReadFrom::Oldest);
        if past.sources.is_empty() || from == ReadFrom::Now {
            return Ok(Beginning::Present(Box::new(attach(options)?)));
        }
        if let ReadFrom::Sequence(_) = from {
            match attach(options) {
                Ok(consumer) => return Ok(Beginning::Present(Box::new(consumer))),
                Err(RingError::SequenceGone { .. } | RingError::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let session = match attach(&options.clone().start(Start::Now).observer(true)) {
            Ok(consumer) => Some(consumer.session()),
            Err(RingError::NotFound { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let target = Target::Ring(Box::new(address.clone()));
        match open_past(past, session, from) {
            Ok(past) => Ok(Beginning::Past(Self::new(past, target))),
            // Nothing is recorded of it yet: then the ring has all there is.
            Err(LogError::NotFound { .. } | LogError::SessionUnknown { .. })
                if session.is_some() && from == ReadFrom::Oldest =>
            {
                Ok(Beginning::Present(Box::new(attach(options)?)))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Begins in the past of a stream of datagrams, if it has one.
    pub(crate) fn of_wire(address: &UdpAddress) -> Result<Option<Self>, Error> {
        let past = &address.ring.past;
        let from = past.from.unwrap_or(ReadFrom::Now);
        if past.sources.is_empty() || from == ReadFrom::Now {
            return Ok(None);
        }
        let session = address.receiver.session.and_then(Session::number);
        let past = open_past(past, session, from)?;
        Ok(Some(Self::new(past, Target::Wire(Box::new(address.clone())))))
    }

    fn new(past: Past, target: Target) -> Self {
        Self { past, target, idle_polls: 0, idle_since: None }
    }

    /// Sequence of the next message.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.past.next_sequence()
    }

    /// Hands out messages of the past; where there are no more, joins the present.
    pub(crate) fn poll(
        &mut self,
        limit: usize,
        handler: &mut impl FnMut(Message<'_>) -> bool,
    ) -> Result<Turn, PollError> {
        match poll_past(&mut self.past, limit, handler) {
            Ok(0) => {}
            Ok(handed) => {
                (self.idle_polls, self.idle_since) = (0, None);
                return Ok(Turn::Handed(handed));
            }
            Err(PollError::Lost { first, count }) => {
                let Target::Ring(address) = &self.target else {
                    return Err(PollError::Lost { first, count });
                };
                return self.past_lacks(address, first, count);
            }
            Err(error) => return Err(error),
        }
        self.idle_polls += 1;
        if self.idle_polls % ATTEMPT_POLLS != 1 {
            return Ok(Turn::Handed(0));
        }
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        let (session, next) = (self.past.session(), self.past.next_sequence());
        match &self.target {
            // What is on its way is quicker than asking for it again.
            Target::Wire(_) if !self.past.is_caught_up() && since.elapsed() < PATIENCE => {
                Ok(Turn::Handed(0))
            }
            Target::Wire(address) => {
                let session = Session::from_number(session);
                let mut address = address.clone();
                address.receiver.resume = Some((session, next));
                let inlet = Inlet::open(&address)?;
                Ok(Turn::Joined(Live::Wire(Box::new(inlet), session), None))
            }
            Target::Ring(address) => match join_ring(address, session, next)? {
                Some(live) => Ok(Turn::Joined(live, None)),
                None if since.elapsed() >= PATIENCE => give_up(address, session, next),
                None => Ok(Turn::Handed(0)),
            },
        }
    }
}

impl Joining {
    /// The ring may have what its recorder missed, or the end of it.
    #[cold]
    fn past_lacks(&self, address: &ShmAddress, first: u64, count: u64) -> Result<Turn, PollError> {
        let session = self.past.session();
        if let Some(live) = join_ring(address, session, first)? {
            return Ok(Turn::Joined(live, None));
        }
        let options = address.consumer_options().clone().start(Start::Oldest);
        if let Ok(consumer) = options.attach(address.name()) {
            let oldest = consumer.next_sequence();
            if consumer.session() == session && (first..first + count).contains(&oldest) {
                let told = PollError::Lost { first, count: oldest - first };
                return Ok(Turn::Joined(Live::Ring(Box::new(consumer)), Some(told)));
            }
        }
        Err(PollError::Lost { first, count })
    }
}

fn open_past(past: &PastOptions, session: Option<u64>, from: ReadFrom) -> Result<Past, LogError> {
    Past::open(past.sources.clone(), session, from)
}

/// Joins the ring at `next` of `session`, if it has that.
fn join_ring(address: &ShmAddress, session: u64, next: u64) -> Result<Option<Live>, PollError> {
    let options = address.consumer_options().clone().start(Start::Sequence(next));
    match options.attach(address.name()) {
        Ok(consumer) if consumer.session() == session => Ok(Some(Live::Ring(Box::new(consumer)))),
        Ok(_) | Err(RingError::SequenceGone { .. } | RingError::NotFound { .. }) => Ok(None),
        Err(error) => Err(LogError::from(error).into()),
    }
}

/// The past ends before what the ring has, and does not grow: what is in between is told as lost,
/// or that the ring has a later session.
#[cold]
fn give_up(address: &ShmAddress, session: u64, next: u64) -> Result<Turn, PollError> {
    let options = address.consumer_options().clone().start(Start::Oldest);
    let consumer = match options.attach(address.name()) {
        Ok(consumer) => consumer,
        Err(RingError::NotFound { .. }) => return Ok(Turn::Handed(0)),
        Err(error) => return Err(LogError::from(error).into()),
    };
    let (found, oldest) = (consumer.session(), consumer.next_sequence());
    let told = if found > session {
        PollError::NewSession { session: Session::from_number(found), next: oldest }
    } else if found == session && oldest > next {
        PollError::Lost { first: next, count: oldest - next }
    } else {
        return Ok(Turn::Handed(0)); // a ring from before: its publisher will see to it
    };
    Ok(Turn::Joined(Live::Ring(Box::new(consumer)), Some(told)))
}

/// Hands out records, and tells of those that stand for lost messages.
#[inline]
pub(crate) fn poll_past(
    records: &mut impl Records,
    limit: usize,
    handler: &mut impl FnMut(Message<'_>) -> bool,
) -> Result<usize, PollError> {
    let mut lost = None;
    let handled = records.poll_while(limit, |message, _| {
        if message.flags.is_lost() {
            lost = Some(message.sequence);
            return false;
        }
        handler(message)
    })?;
    match lost {
        Some(first) if handled == 0 => {
            let count = records.poll_while(usize::MAX, |message, _| message.flags.is_lost())?;
            Err(PollError::Lost { first, count: count as u64 })
        }
        _ => Ok(handled),
    }
}
