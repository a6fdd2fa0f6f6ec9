//! Wire to ring: an agent that publishes, on this host, what arrives, under the same sequence
//! numbers and in the same session.
//!
//! A message that nobody has any more leaves an empty record with [`Flags::LOST`] in its place. If
//! the ring is full because a subscriber of it does not read, messages wait in the receiver, then
//! in the socket, and are then lost to this host until it has room and asks for them again: the
//! sender is not held up unless its flow control says so.

use gapless_shm::{Flags, Producer, RingError, RingOptions, remove};

use super::WireError;
use super::durable::Recorder;
use super::inlet::Inlet;
use crate::address::{ShmAddress, UdpAddress};
use crate::agent::Agent;
use crate::net::{Datagrams, Network};
use crate::protocol::envelope::Envelope;
use crate::protocol::{Event, Session};

/// Lost messages told to the ring in one duty cycle.
const LOST_AT_ONCE: u64 = 4096;
/// Largest sequence that a ring can begin with.
const FIRST_MAX: u64 = 1 << 62;
/// Datagrams taken in one duty cycle, about.
const DATAGRAMS_MAX: usize = 256;

/// Receives a stream into a ring of this host.
///
/// The ring is made when the stream is found. One that holds the same session already, from an
/// earlier run, is carried on; any other of that name is replaced.
pub struct ReceiverAgent<D: Datagrams = Network> {
    name: String,
    inlet: Inlet<D>,
    ring: Ring,
    /// Who says what of the ring is on disk.
    recorder: Option<Recorder>,
}

/// The ring that is written, once the stream has been found.
struct Ring {
    address: ShmAddress,
    producer: Option<Producer>,
    enveloped: bool,
    failed: Option<WireError>,
}

impl ReceiverAgent<Network> {
    /// Opens the sockets of `from`, to publish into the ring of `to`.
    ///
    /// # Errors
    /// [`WireError`] says what the network or the ring refused.
    pub fn open(from: &UdpAddress, to: &ShmAddress) -> Result<Self, WireError> {
        Self::open_over(Network::prefer(from.backend), from, to)
    }
}

impl<D: Datagrams> ReceiverAgent<D> {
    /// As [`open`](ReceiverAgent::open), over a network of the caller's.
    ///
    /// # Errors
    /// As for [`open`](ReceiverAgent::open).
    pub fn open_over(network: D, from: &UdpAddress, to: &ShmAddress) -> Result<Self, WireError> {
        let mut from = from.clone();
        let producer = match to.ring_options().attach(to.name()) {
            Ok(producer) => Some(producer),
            Err(error @ RingError::ProducerAlive { .. }) => return Err(error.into()),
            Err(RingError::NotFound { .. }) => None,
            // Whatever it is, it is not what an earlier run left: to be replaced, or refused then.
            Err(_) => None,
        };
        if let Some(producer) = &producer {
            let session = Session::from_number(producer.session());
            from.receiver.resume = Some((session, producer.next_sequence()));
        }
        from.receiver.first_max = FIRST_MAX;
        let enveloped = from.sender.enveloped;
        let ring = Ring { address: to.clone(), producer, enveloped, failed: None };
        let recorder = from.durable.then(|| Recorder::of(to.directory(), to.name()));
        let inlet = Inlet::open_over(network, &from)?;
        Ok(Self { name: format!("receiver {}", from.name()), inlet, ring, recorder })
    }

    /// The receiving side.
    pub fn inlet(&mut self) -> &mut Inlet<D> {
        &mut self.inlet
    }

    /// The ring, once the stream has been found.
    pub fn producer(&mut self) -> Option<&mut Producer> {
        self.ring.producer.as_mut()
    }

    /// Passes on what the ring's recorder says.
    #[inline]
    fn ask_recorder(&mut self) {
        let Some(recorder) = &mut self.recorder else { return };
        let now = self.inlet.now_ns();
        if recorder.is_due(now)
            && let Some(producer) = &self.ring.producer
            && let Some((first, last)) =
                recorder.look(producer.session(), producer.first_sequence(), now)
        {
            self.inlet.set_durable(first, last);
        }
    }
}

impl Ring {
    fn take(&mut self, event: Event<'_>) -> bool {
        let taken = match event {
            Event::Joined { session, next } => self.start(session, next),
            Event::Message { sequence, payload } => self.publish(sequence, payload),
            Event::Lost { first, count } => self.publish_lost(first, count),
            Event::Ended { .. } => Ok(true), // a ring closes when its producer goes
        };
        taken.unwrap_or_else(|error| {
            self.failed = Some(error);
            false
        })
    }

    /// Carries on with the ring if it stands where the stream begins, or makes a new one.
    fn start(&mut self, session: Session, next: u64) -> Result<bool, WireError> {
        let carries_on = self.producer.as_ref().is_some_and(|producer| {
            session.number() == Some(producer.session()) && producer.next_sequence() == next
        });
        if carries_on {
            return Ok(true);
        }
        self.producer = None;
        let (name, directory) = (self.address.name(), self.address.directory());
        match remove(directory, name, false) {
            Ok(()) | Err(RingError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut options: RingOptions = self.address.ring_options().clone().first_sequence(next);
        if let Some(session) = session.number() {
            options = options.session(session);
        }
        self.producer = Some(options.create(name)?);
        Ok(true)
    }

    #[inline]
    fn publish(&mut self, sequence: u64, payload: &[u8]) -> Result<bool, WireError> {
        let Some(producer) = &mut self.producer else { return Ok(false) };
        if sequence < producer.next_sequence() {
            return Ok(true); // it was given up, and partly told so already
        }
        let mut flags = Flags::WHOLE;
        if self.enveloped {
            let (envelope, _) = Envelope::split(payload)
                .map_err(|error| WireError::Envelope { sequence, error })?;
            flags = envelope.record_flags();
        }
        debug_assert_eq!(producer.next_sequence(), sequence);
        match producer.try_publish_flagged(payload, flags) {
            Ok(_) => Ok(true),
            Err(error) if error.is_backpressure() => Ok(false),
            Err(error) => Err(WireError::Publish { sequence, error }),
        }
    }

    /// One empty record for each, a few thousand at a time; what was published counts when the rest
    /// is offered again.
    fn publish_lost(&mut self, first: u64, count: u64) -> Result<bool, WireError> {
        let Some(producer) = &mut self.producer else { return Ok(false) };
        let end = first.saturating_add(count);
        let stop = end.min(producer.next_sequence().saturating_add(LOST_AT_ONCE));
        while producer.next_sequence() < stop {
            let sequence = producer.next_sequence();
            match producer.try_publish_flagged(&[], Flags::LOST) {
                Ok(_) => {}
                Err(error) if error.is_backpressure() => return Ok(false),
                Err(error) => return Err(WireError::Publish { sequence, error }),
            }
        }
        Ok(stop >= end)
    }
}

impl<D: Datagrams> Agent for ReceiverAgent<D> {
    type Error = WireError;

    fn name(&self) -> &str {
        &self.name
    }

    /// # Errors
    /// [`WireError::Net`], or whatever keeps the ring from being written.
    fn duty_cycle(&mut self) -> Result<usize, WireError> {
        let ring = &mut self.ring;
        let taken = self.inlet.poll(DATAGRAMS_MAX, |event| ring.take(event))?;
        self.ask_recorder();
        match self.ring.failed.take() {
            Some(error) => Err(error),
            None => Ok(taken),
        }
    }
}
