//! Reading a stream by its address.

use std::collections::VecDeque;
use std::time::Duration;

use gapless_shm::{Consumer, Flags, Message, ProducerStatus, WaitStrategy, Waiter};

use crate::address::Address;
use crate::error::{Error, PollError};
use crate::joining::{Beginning, Joining, Live, Turn, poll_past};
use crate::log::Replay;
use crate::protocol::{Envelope, Event, Session};
use crate::wire::{Inlet, WireError};

/// A subscriber of datagrams that has heard nothing for so long takes the publisher for dead: three
/// of its longest heartbeats by default.
const SILENCE_NS: u64 = 3_000_000_000;
/// Longest sleep of a subscriber that waits by parking.
const PARK_MAX: Duration = Duration::from_millis(10);

/// One reader of a stream.
///
/// See the crate's first page for an example. Of a `shm:` address it reads the ring; of a `udp:`
/// address it owns the sockets, and asks for what was lost on the way: all of it in
/// [`poll`](Self::poll), in the caller's thread. Of a `log:` address it replays what was recorded.
///
/// A `shm:` or `udp:` address that names a `log`, or rewinders, may say `from` further back than
/// the ring or the sender go: then the past is read there first, and the stream joined where it
/// ends, with no gap, no message twice, and nothing to do for the caller.
pub struct Subscriber {
    source: Source,
    wait: WaitStrategy,
    waiter: Waiter,
    enveloped: bool,
}

#[expect(clippy::large_enum_variant, reason = "the quicker of the two stays at hand")]
enum Source {
    Ring(Consumer),
    Wire(Box<Wire>),
    Log(Box<Replay>),
    Joining(Box<Joining>),
}

/// An inlet, and what cannot be told between two messages.
struct Wire {
    inlet: Inlet,
    parks: bool,
    joined: Option<Session>,
    /// To be told by the next polls.
    told: VecDeque<PollError>,
}

impl Subscriber {
    /// Opens the stream of an address such as `shm:orders?from=oldest&name=risk` or
    /// `udp:239.1.2.3:9000?iface=eth0`.
    ///
    /// # Errors
    /// [`Error::Address`] points at what is wrong in the address; [`Error::Ring`] says why the ring
    /// could not be attached to, among others that it does not exist yet; [`Error::Wire`] what the
    /// network refused; [`Error::Log`] why there is no log to read, or not so far back.
    pub fn open(address: &str) -> Result<Self, Error> {
        Self::open_at(&address.parse()?)
    }

    /// Opens the stream of a parsed address.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_at(address: &Address) -> Result<Self, Error> {
        let (source, wait, envelope) = match address {
            Address::Shm(shm) => {
                let source = match Joining::of_ring(shm)? {
                    Beginning::Present(consumer) => Source::Ring(*consumer),
                    Beginning::Past(joining) => Source::Joining(Box::new(joining)),
                };
                (source, shm.wait, shm.envelope)
            }
            Address::Udp(udp) => {
                let wait = udp.wait_strategy();
                let source = match Joining::of_wire(udp)? {
                    Some(joining) => Source::Joining(Box::new(joining)),
                    None => Source::wire(Inlet::open(udp)?, wait, None),
                };
                (source, wait, udp.ring.envelope)
            }
            Address::Log(log) => {
                (Source::Log(Box::new(Replay::open(log)?)), log.wait, log.envelope)
            }
        };
        Ok(Self { source, wait, waiter: Waiter::new(wait), enveloped: envelope.is_some() })
    }

    /// Hands up to `limit` messages to `handler`, in order, and returns how many. Never blocks.
    ///
    /// # Errors
    /// Only when nothing was handed over (but for [`PollError::Wire`]): [`PollError::Lapped`] and
    /// [`PollError::Lost`] name exactly which messages are gone, and the next poll goes on behind
    /// them; so it does after [`PollError::NewSession`]. [`PollError::Evicted`],
    /// [`PollError::Corrupt`] end the subscription.
    #[inline]
    pub fn poll(
        &mut self,
        limit: usize,
        handler: impl FnMut(Message<'_>),
    ) -> Result<usize, PollError> {
        if self.enveloped {
            let mut handler = handler;
            return self.poll_enveloped(limit, |_, message| handler(message));
        }
        let mut handler = handler;
        self.poll_records(limit, |message| {
            handler(message);
            true
        })
    }

    /// As [`poll`](Self::poll), until `handler` says no: the message that it refuses is not
    /// counted, and the next poll starts with it. On an enveloped stream the envelopes are left on.
    ///
    /// # Errors
    /// As for [`poll`](Self::poll).
    #[inline]
    pub fn poll_while(
        &mut self,
        limit: usize,
        handler: impl FnMut(Message<'_>) -> bool,
    ) -> Result<usize, PollError> {
        self.poll_records(limit, handler)
    }

    /// As [`poll`](Self::poll), with each message's envelope beside it.
    ///
    /// # Errors
    /// As for [`poll`](Self::poll), and [`WireError::Envelope`] if the next message has none: the
    /// next poll goes on behind it.
    pub fn poll_enveloped(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(&Envelope, Message<'_>),
    ) -> Result<usize, PollError> {
        let mut wrong = None;
        let mut handled = 0;
        self.poll_records(limit, |record| match Envelope::split(record.payload) {
            Ok((envelope, payload)) if wrong.is_none() => {
                handled += 1;
                let flags = envelope.record_flags();
                handler(&envelope, Message { payload, flags, ..record });
                true
            }
            // Told by this poll if it is the first, and left to the next one if not.
            Err(error) if wrong.is_none() && handled == 0 => {
                wrong = Some(WireError::Envelope { sequence: record.sequence, error });
                true
            }
            _ => false,
        })?;
        wrong.map_or(Ok(handled), |error| Err(error.into()))
    }

    /// Hands records to `handler` until it says no.
    #[inline]
    fn poll_records(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(Message<'_>) -> bool,
    ) -> Result<usize, PollError> {
        match &mut self.source {
            Source::Ring(consumer) => {
                let mut lost = false;
                let handled = consumer.poll_while(limit, |message| {
                    lost = message.flags.is_lost();
                    !lost && handler(message)
                })?;
                if handled == 0 && lost {
                    return Err(pass_lost(consumer)?);
                }
                Ok(handled)
            }
            Source::Wire(wire) => wire.poll(limit, handler),
            Source::Log(replay) => poll_past(&mut **replay, limit, &mut handler),
            Source::Joining(joining) => match joining.poll(limit, &mut handler)? {
                Turn::Handed(handed) => Ok(handed),
                Turn::Joined(live, told) => {
                    self.source = match live {
                        Live::Ring(consumer) => Source::Ring(*consumer),
                        Live::Wire(inlet, session) => {
                            Source::wire(*inlet, self.wait, Some(session))
                        }
                    };
                    told.map_or(Ok(0), Err)
                }
            },
        }
    }

    /// As [`poll`](Self::poll), and if there was nothing, one step of waiting by the address's
    /// `wait` option: a pause, a yield, or a sleep of at most 10 ms.
    ///
    /// # Errors
    /// As for [`poll`](Self::poll).
    #[inline]
    pub fn poll_or_wait(
        &mut self,
        limit: usize,
        handler: impl FnMut(Message<'_>),
    ) -> Result<usize, PollError> {
        let handled = self.poll(limit, handler)?;
        if handled > 0 {
            self.waiter.reset();
            return Ok(handled);
        }
        match &mut self.source {
            Source::Ring(consumer) => self.waiter.wait(consumer),
            Source::Wire(wire) if wire.parks => wire.inlet.wait(PARK_MAX)?,
            Source::Wire(_) | Source::Log(_) | Source::Joining(_) => self.waiter.idle(),
        }
        Ok(0)
    }

    /// Sequence number of the next message; 0 while a stream of datagrams has not been found.
    pub fn next_sequence(&self) -> u64 {
        match &self.source {
            Source::Ring(consumer) => consumer.next_sequence(),
            Source::Wire(wire) => wire.inlet.next_sequence(),
            Source::Log(replay) => replay.next_sequence(),
            Source::Joining(joining) => joining.next_sequence(),
        }
    }

    /// Whether this has come to the present: false while it reads the past.
    pub fn is_live(&self) -> bool {
        matches!(self.source, Source::Ring(_) | Source::Wire(_))
    }

    /// Whether the publisher lives, has closed the stream, or has died. Ask when polls stay empty.
    ///
    /// Of datagrams nobody can know: a publisher that has not been heard of for 3 s counts as dead,
    /// one that was never heard of as alive. A replay that has come to its end counts as closed.
    pub fn publisher_status(&self) -> ProducerStatus {
        match &self.source {
            Source::Ring(consumer) => consumer.producer_status(),
            Source::Wire(wire) if wire.inlet.has_ended() => ProducerStatus::Closed,
            Source::Wire(wire) => match wire.inlet.silent_ns() {
                Some(silent) if silent >= SILENCE_NS => ProducerStatus::Dead,
                _ => ProducerStatus::Alive,
            },
            Source::Log(replay) if replay.is_ended() => ProducerStatus::Closed,
            Source::Log(_) | Source::Joining(_) => ProducerStatus::Alive,
        }
    }

    /// The ring's own handle, of a `shm:` address.
    pub fn consumer(&mut self) -> Option<&mut Consumer> {
        match &mut self.source {
            Source::Ring(consumer) => Some(consumer),
            _ => None,
        }
    }

    /// The receiving side, of a `udp:` address: counters, lines, the session.
    pub fn inlet(&mut self) -> Option<&mut Inlet> {
        match &mut self.source {
            Source::Wire(wire) => Some(&mut wire.inlet),
            _ => None,
        }
    }

    /// The log, of a `log:` address.
    pub fn replay(&mut self) -> Option<&mut Replay> {
        match &mut self.source {
            Source::Log(replay) => Some(replay),
            _ => None,
        }
    }
}

impl Source {
    fn wire(inlet: Inlet, wait: WaitStrategy, joined: Option<Session>) -> Self {
        let parks = wait == WaitStrategy::Park;
        Self::Wire(Box::new(Wire { inlet, parks, joined, told: VecDeque::new() }))
    }
}

/// Passes over the records that stand for lost messages.
#[cold]
fn pass_lost(consumer: &mut Consumer) -> Result<PollError, PollError> {
    let first = consumer.next_sequence();
    let count = consumer.poll_while(usize::MAX, |message| message.flags.is_lost())?;
    Ok(PollError::Lost { first, count: count as u64 })
}

impl Wire {
    #[inline]
    fn poll(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(Message<'_>) -> bool,
    ) -> Result<usize, PollError> {
        if let Some(told) = self.told.pop_front() {
            return Err(told);
        }
        let mut handled = 0;
        let (joined, told) = (&mut self.joined, &mut self.told);
        self.inlet.poll(limit, |event| match event {
            Event::Message { sequence, payload } => {
                if handled == limit || !told.is_empty() {
                    return false;
                }
                let taken = handler(Message { sequence, payload, flags: Flags::WHOLE });
                handled += usize::from(taken);
                taken
            }
            Event::Lost { first, count } => {
                let next = told.is_empty();
                if next {
                    told.push_back(PollError::Lost { first, count });
                }
                next
            }
            Event::Joined { session, next } => {
                if joined.is_some_and(|joined| joined != session) {
                    told.push_back(PollError::NewSession { session, next });
                }
                *joined = Some(session);
                true
            }
            Event::Ended { .. } => true,
        })?;
        if handled == 0
            && let Some(told) = self.told.pop_front()
        {
            return Err(told);
        }
        Ok(handled)
    }
}
