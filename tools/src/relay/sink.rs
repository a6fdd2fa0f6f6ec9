//! The ring that a relay writes: made when the stream is found, with its session and sequence
//! numbers, or carried on if it stands where the stream goes on.

use anyhow::Context;
use gapless::protocol::Event;
use gapless::shm::{Producer, RingError, remove};
use gapless::{Flags, Message, ShmAddress};

/// A ring to be written.
pub(crate) struct Sink {
    address: ShmAddress,
    pub(super) producer: Option<Producer>,
    /// Takes no message for now.
    pub(super) held: bool,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) lost: u64,
    failed: Option<anyhow::Error>,
}

impl Sink {
    /// Of a ring that is not opened yet.
    pub(super) fn new(address: ShmAddress) -> Self {
        let (messages, bytes, lost) = (0, 0, 0);
        Self { address, producer: None, held: false, messages, bytes, lost, failed: None }
    }

    /// What an earlier run left of a session, up to which sequence.
    pub(super) fn earlier(&self, session: u64) -> Option<u64> {
        let producer = self.address.ring_options().attach(self.address.name()).ok()?;
        (producer.session() == session).then(|| producer.next_sequence())
    }

    /// Makes the ring, or carries on with one that has the session and stands at `next`.
    pub(super) fn start(&mut self, session: Option<u64>, next: u64) -> anyhow::Result<()> {
        let (name, directory) = (self.address.name(), self.address.directory());
        self.producer = None;
        match self.address.ring_options().attach(name) {
            Ok(producer)
                if session == Some(producer.session()) && producer.next_sequence() == next =>
            {
                self.producer = Some(producer);
                return Ok(());
            }
            Err(error @ RingError::ProducerAlive { .. }) => return Err(error.into()),
            Ok(_) | Err(_) => {} // to be replaced
        }
        match remove(directory, name, false) {
            Ok(()) | Err(RingError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut options = self.address.ring_options().clone().first_sequence(next);
        if let Some(session) = session {
            options = options.session(session);
        }
        self.producer = Some(options.create(name)?);
        Ok(())
    }

    /// Makes the ring, or carries on where its last publisher ended: for messages without numbers.
    pub(super) fn carry_on(&mut self) -> anyhow::Result<u64> {
        let producer = self.address.ring_options().open(self.address.name())?;
        let next = producer.next_sequence();
        self.producer = Some(producer);
        Ok(next)
    }

    /// Takes what a receiver hands over; false if there is no room for it now, or it failed.
    pub(super) fn take(&mut self, event: Event<'_>) -> bool {
        let taken = match event {
            Event::Joined { session, next } => self.start(session.number(), next).map(|()| true),
            Event::Message { sequence, payload } => {
                self.publish(Message { sequence, payload, flags: Flags::WHOLE })
            }
            Event::Lost { first, count } => self.publish_lost(first + count),
            Event::Ended { .. } => Ok(true),
            _ => Ok(true),
        };
        taken.unwrap_or_else(|error| {
            self.failed = Some(error);
            false
        })
    }

    /// What went wrong in [`take`](Self::take).
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    /// False if there is no room.
    pub(super) fn publish(&mut self, message: Message<'_>) -> anyhow::Result<bool> {
        let Some(producer) = self.producer.as_mut().filter(|_| !self.held) else {
            return Ok(false);
        };
        match producer.try_publish_flagged(message.payload, message.flags) {
            Ok(_) if message.flags.is_lost() => self.lost += 1,
            Ok(_) => {
                self.messages += 1;
                self.bytes += message.payload.len() as u64;
            }
            Err(error) if error.is_backpressure() => return Ok(false),
            Err(error) => {
                return Err(error).with_context(|| format!("message {}", message.sequence));
            }
        }
        Ok(true)
    }

    /// Puts an empty record in the place of each lost message below `end`. False if there is no
    /// room for all.
    pub(super) fn publish_lost(&mut self, end: u64) -> anyhow::Result<bool> {
        while let Some(sequence) = self.producer.as_ref().map(Producer::next_sequence) {
            if sequence >= end {
                return Ok(true);
            }
            if !self.publish(Message { sequence, payload: &[], flags: Flags::LOST })? {
                return Ok(false);
            }
        }
        Ok(false)
    }
}
