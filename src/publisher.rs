//! Writing a stream by its address.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gapless_shm::{ConsumerOptions, ConsumerView, Mapped, Producer, PublishError, Start, remove};

use crate::address::{Address, UdpAddress};
use crate::agent::Agent;
use crate::durable::{Durable, DurableError};
use crate::error::Error;
use crate::fragment::Fragments;
use crate::protocol::Envelope;
use crate::protocol::envelope::ENVELOPE_BYTES;
use crate::protocol::mold::{BLOCK_HEADER_BYTES, HEADER_BYTES};
use crate::revival;
use crate::wire::{SenderAgent, WireError};

/// A publisher of datagrams that is dropped gives its receivers so long to ask for what they lack.
const DROP_LINGER: Duration = Duration::from_millis(20);

/// The one writer of a stream.
///
/// Opening creates the stream, or carries on where its last publisher ended. See the crate's first
/// page for an example, and [`shm::Producer`](crate::shm::Producer) for everything that can be done
/// with [`producer`](Self::producer).
///
/// Of a `udp:` address, the stream lives in a ring as well, from which lost messages are repeated:
/// an unnamed one, or the one that the address's `ring` names. Each message leaves in the call that
/// publishes it; messages of one [`batch`](Self::batch) leave together, which is many times cheaper
/// each. Between messages call [`poll`](Self::poll): it answers requests and sends heartbeats.
///
/// With `log=DIRECTORY` a publisher whose ring is gone (its host was started anew) goes on with the
/// session and the sequence that the log ends with, and has the log's last messages in its ring
/// again, for whoever asks for them; `fresh=yes` begins a new session all the same. What the log
/// had not been given when the host went down is not known to anybody but those who received it. A
/// number that is used twice would be dropped by those silently; so a publisher of datagrams
/// goes on only from a log that was finished in order ([`Recorder::close`]), or if
/// `resume=durable` says that nobody was sent, or acted on, what was not durable.
///
/// [`Recorder::close`]: crate::log::Recorder::close
///
/// With `envelope=yes` each message is preceded by an [`Envelope`], which subscribers with the same
/// option take off again: it names topic, publisher, the publisher's own sequence number and the
/// time, and lets fragments travel.
pub struct Publisher {
    producer: Producer,
    durable: Durable,
    wire: Option<Box<Wire>>,
    envelope: Option<Envelope>,
    /// Where messages of a batch meet their envelopes.
    scratch: Vec<u8>,
}

/// The sending side of a publisher of datagrams.
struct Wire {
    agent: SenderAgent,
    /// Met while publishing; told by the next poll.
    failed: Option<WireError>,
    /// Longest record that fits a datagram, bytes.
    max_bytes: usize,
    /// Whether the ring has a name, or there is a log: then the session can be carried on, and is
    /// not ended.
    carries_on: bool,
}

impl Publisher {
    /// Opens the stream of an address such as `shm:orders?capacity=64M` or
    /// `udp:239.1.2.3:9000?iface=eth0`.
    ///
    /// # Errors
    /// [`Error::Address`] points at what is wrong in the address; [`Error::Ring`] says why the ring
    /// could not be had, among others that the stream has a live publisher (with its pid);
    /// [`Error::Wire`] what the network refused.
    pub fn open(address: &str) -> Result<Self, Error> {
        Self::open_at(&address.parse()?)
    }

    /// Opens the stream of a parsed address.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_at(address: &Address) -> Result<Self, Error> {
        match address {
            Address::Shm(shm) => Ok(Self {
                producer: revival::open_ring(shm, shm.ring.clone(), false)?,
                durable: Durable::of(shm),
                wire: None,
                envelope: shm.envelope,
                scratch: Vec::new(),
            }),
            Address::Udp(udp) => Self::open_udp(udp),
            Address::Log(log) => Err(Error::NotPublished { address: log.text().to_owned() }),
        }
    }

    fn open_udp(address: &UdpAddress) -> Result<Self, Error> {
        let longest =
            address.sender.datagram_bytes.saturating_sub(HEADER_BYTES + BLOCK_HEADER_BYTES);
        let mut ring = address.ring.ring.clone();
        if !address.ring_has_max {
            ring = ring.max_message_bytes(longest as u64);
        }
        let directory = address.ring.directory();
        let consumer = ConsumerOptions::new().directory(directory).start(Start::Now).name("sender");
        let (producer, consumer) = match address.ring_name() {
            Some(name) => (revival::open_ring(&address.ring, ring, true)?, consumer.attach(name)?),
            None => {
                let name = unnamed();
                let producer = match revival::from_log(&address.ring, &ring, &name, true)? {
                    Some(producer) => producer,
                    None => ring.create(&name)?,
                };
                let consumer = consumer.attach(&name);
                // From here on it lives as long as its two mappings.
                remove(directory, &name, true)?;
                (producer, consumer?)
            }
        };
        let agent = SenderAgent::open(address, consumer)?;
        let carries_on = address.ring_name().is_some() || address.ring.past.log().is_some();
        let max_bytes = agent.max_message_bytes();
        let wire = Box::new(Wire { agent, failed: None, max_bytes, carries_on });
        let (envelope, scratch) = (address.ring.envelope, Vec::new());
        let durable = Durable::of(&address.ring);
        Ok(Self { producer, durable, wire: Some(wire), envelope, scratch })
    }

    /// Publishes a copy of `payload` and returns its sequence number. Never blocks.
    ///
    /// # Errors
    /// [`PublishError::Backpressure`] if a subscriber is a whole ring behind;
    /// [`PublishError::TooLong`] with the limit if it does not fit one record
    /// ([`Fragments`] then). What goes wrong on a network is told by [`poll`](Self::poll): the
    /// message is published all the same, and will be repeated.
    #[inline]
    pub fn try_publish(&mut self, payload: &[u8]) -> Result<u64, PublishError> {
        if let Some(envelope) = &self.envelope {
            let envelope = whole(envelope, self.producer.next_sequence(), payload.len());
            return self.try_publish_as(&envelope, payload);
        }
        let Some(wire) = &mut self.wire else { return self.producer.try_publish(payload) };
        wire.check(payload.len())?;
        let producer = &mut self.producer;
        wire.publish(|| producer.try_publish(payload))
    }

    /// Publishes a message, or a fragment of one, behind an envelope of the caller's own.
    /// [`try_publish`](Self::try_publish) fills one in by itself: with the address's topic and
    /// publisher, the stream's sequence number as the publisher's, and the time.
    ///
    /// # Errors
    /// As for [`try_publish`](Self::try_publish).
    pub fn try_publish_as(
        &mut self,
        envelope: &Envelope,
        payload: &[u8],
    ) -> Result<u64, PublishError> {
        let producer = &mut self.producer;
        let mut publish = || {
            let mut claim = producer.claim(ENVELOPE_BYTES + payload.len())?;
            if let Some((head, body)) = claim.split_first_chunk_mut() {
                envelope.write(head);
                body.copy_from_slice(payload);
            }
            claim.set_flags(envelope.record_flags());
            Ok(claim.commit())
        };
        let Some(wire) = &mut self.wire else { return publish() };
        wire.check(ENVELOPE_BYTES + payload.len())?;
        wire.publish(publish)
    }

    /// `publish` on an enveloped stream.
    fn publish_enveloped(
        &mut self,
        template: &Envelope,
        payload: &[u8],
        mut on_backpressure: impl FnMut() -> bool,
    ) -> Result<u64, PublishError> {
        let most = self.wire.as_ref().map_or(usize::MAX, |wire| wire.max_bytes);
        let record = self.producer.max_message_bytes().min(most);
        let room = record.saturating_sub(ENVELOPE_BYTES).max(1);
        let mut envelope = whole(template, self.producer.next_sequence(), payload.len());
        let mut rest = payload;
        envelope.flags = Envelope::BEGIN;
        loop {
            let (now, later) = rest.split_at(rest.len().min(room));
            if later.is_empty() {
                envelope.flags |= Envelope::END;
            }
            match self.try_publish_as(&envelope, now) {
                Ok(sequence) if later.is_empty() => return Ok(sequence),
                Ok(_) => {
                    (rest, envelope.flags, envelope.message_bytes) = (later, 0, 0);
                }
                Err(error) if error.is_backpressure() && on_backpressure() => self.make_room(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the reports that a publisher of datagrams may be waiting for.
    fn make_room(&mut self) {
        if let Some(wire) = &mut self.wire
            && let Err(error) = wire.agent.duty_cycle()
        {
            wire.failed = Some(error);
        }
    }

    /// Publishes `payload` whatever its length, in fragments if need be, and asks
    /// `on_backpressure` whether to go on each time the ring is full. Returns the sequence number
    /// of the last record.
    ///
    /// ```
    /// # use gapless::{Publisher, Subscriber, Reassembler, Part};
    /// # let dir = tempfile::tempdir()?;
    /// # let address = format!("shm:big?capacity=4K&dir={}", dir.path().display());
    /// let mut publisher = Publisher::open(&address)?;
    /// let mut subscriber = Subscriber::open(&address)?;
    /// let mut reassembler = Reassembler::new(1 << 20);
    /// let sent = vec![7; 100_000]; // 25 times the ring
    /// publisher.publish(&sent, || {
    ///     subscriber
    ///         .poll(64, |message| {
    ///             reassembler.accept(message, |part| assert!(matches!(part, Part::Whole { .. })));
    ///         })
    ///         .is_ok()
    /// })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PublishError::Backpressure`] if `on_backpressure` said no. A message that was already
    /// begun is then left without its end; readers are told so when the next one begins.
    pub fn publish(
        &mut self,
        payload: &[u8],
        mut on_backpressure: impl FnMut() -> bool,
    ) -> Result<u64, PublishError> {
        if let Some(envelope) = self.envelope {
            return self.publish_enveloped(&envelope, payload, on_backpressure);
        }
        let mut fragments = Fragments::new(payload);
        loop {
            let published = match &self.wire {
                None => fragments.try_publish(&mut self.producer),
                Some(_) => self.try_publish(payload), // plain datagrams carry no fragments
            };
            match published {
                Ok(sequence) => return Ok(sequence),
                Err(error) if error.is_backpressure() && on_backpressure() => self.make_room(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Claims room for a message of `len` bytes, to write it in place.
    ///
    /// # Errors
    /// As for [`try_publish`](Self::try_publish).
    #[inline]
    pub fn claim(&mut self, len: usize) -> Result<Claim<'_>, PublishError> {
        let next = self.producer.next_sequence();
        let envelope = self.envelope.map(|envelope| whole(&envelope, next, len));
        let head = envelope.map_or(0, |_| ENVELOPE_BYTES);
        if let Some(wire) = &self.wire {
            wire.check(head + len)?;
        }
        let claim = self.producer.claim(head + len)?;
        Ok(Claim { claim, envelope, wire: self.wire.as_deref_mut() })
    }

    /// Starts a batch of messages that appear together, and leave together.
    pub fn batch(&mut self) -> Batch<'_> {
        Batch {
            next: self.producer.next_sequence(),
            batch: self.producer.batch(),
            envelope: self.envelope,
            scratch: &mut self.scratch,
            wire: self.wire.as_deref_mut(),
        }
    }

    /// Does what there is to do between messages: nothing for a ring; for datagrams, sends what
    /// could not be sent before, answers requests, sends heartbeats. Returns how much that was.
    /// Never blocks.
    ///
    /// # Errors
    /// [`WireError`]: what the network refused since the last poll. The stream can go on if that
    /// passes.
    #[inline]
    pub fn poll(&mut self) -> Result<usize, WireError> {
        match &mut self.wire {
            None => Ok(0),
            Some(wire) => match wire.failed.take() {
                Some(error) => Err(error),
                None => wire.agent.duty_cycle(),
            },
        }
    }

    /// Sequence of the last message that a [recorder](crate::log::Recorder) of this stream's ring
    /// has made durable; 0 if there is none yet, or if the recorder's policy is not to sync.
    ///
    /// # Errors
    /// [`DurableError::NoRecorder`], [`DurableError::RecorderDead`].
    pub fn durable_sequence(&mut self) -> Result<u64, DurableError> {
        self.durable.sequence(self.producer.session())
    }

    /// Waits until message `sequence` is durable, for as long as `timeout`; meanwhile does what
    /// [`poll`](Self::poll) does. For those who must not act before the disk has it: ask
    /// [`durable_sequence`](Self::durable_sequence) instead where waiting is not to be had. A
    /// recorder that runs in the same thread makes no progress meanwhile, and one whose policy is
    /// not to sync makes nothing durable.
    ///
    /// # Errors
    /// [`DurableError::Timeout`] says how far the recorder has come;
    /// [`DurableError::NoRecorder`], [`DurableError::RecorderDead`].
    pub fn wait_durable(&mut self, sequence: u64, timeout: Duration) -> Result<(), DurableError> {
        let start = Instant::now();
        loop {
            let durable = match self.durable_sequence() {
                Ok(durable) => durable,
                // What it did before it went is done.
                Err(DurableError::RecorderDead { durable, .. }) if durable >= sequence => durable,
                Err(error) => return Err(error),
            };
            if durable >= sequence {
                return Ok(());
            }
            if start.elapsed() >= timeout {
                return Err(DurableError::Timeout { wanted: sequence, durable });
            }
            self.make_room();
            std::hint::spin_loop();
        }
    }

    /// Bytes of the longest message that one record, and one datagram, takes; its envelope not
    /// counted.
    pub fn max_message_bytes(&self) -> usize {
        let datagram = self.wire.as_ref().map_or(usize::MAX, |wire| wire.max_bytes);
        let head = self.envelope.map_or(0, |_| ENVELOPE_BYTES);
        self.producer.max_message_bytes().min(datagram).saturating_sub(head)
    }

    /// Sequence number that the next record will get.
    pub fn next_sequence(&self) -> u64 {
        self.producer.next_sequence()
    }

    /// The subscriber of the ring that is furthest behind, by name; `None` if none holds the
    /// publisher up. Receivers on other hosts are the [`sender`](Self::sender)'s to name.
    pub fn slowest(&mut self) -> Option<ConsumerView> {
        self.producer.slowest()
    }

    /// The ring's own handle. What is published through it leaves with the next
    /// [`poll`](Self::poll).
    pub fn producer(&mut self) -> &mut Producer {
        &mut self.producer
    }

    /// The sending side, of a `udp:` address: counters, receivers, the session.
    pub fn sender(&mut self) -> Option<&mut SenderAgent> {
        self.wire.as_mut().map(|wire| &mut wire.agent)
    }

    /// Ends the stream. Of datagrams, tells its receivers so and answers their requests, until all
    /// that report have everything, or for as long as the address's `linger` says: blocks so long.
    ///
    /// # Errors
    /// [`WireError::Unsent`] if flow control held messages back all that time; what the network
    /// refused.
    pub fn close(mut self) -> Result<(), WireError> {
        match &mut self.wire {
            None => Ok(()),
            Some(wire) => {
                wire.carries_on = true; // told here: nothing is left for `drop`
                wire.finish(wire.agent.linger())?;
                let (sent, next) = (wire.agent.next_sequence(), self.producer.next_sequence());
                if sent == next { Ok(()) } else { Err(WireError::Unsent { first: sent, next }) }
            }
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(wire) = self.wire.as_mut().filter(|wire| !wire.carries_on) {
            // Nobody is left to be told.
            let _ = wire.finish(DROP_LINGER);
        }
    }
}

impl Wire {
    /// Refuses what no datagram takes, before it is in the ring.
    #[inline]
    fn check(&self, len: usize) -> Result<(), PublishError> {
        let max = self.max_bytes;
        if len > max { Err(PublishError::TooLong { len, max }) } else { Ok(()) }
    }

    /// Publishes and sends; if the ring is full, sends and tries once more.
    #[inline]
    fn publish(
        &mut self,
        mut publish: impl FnMut() -> Result<u64, PublishError>,
    ) -> Result<u64, PublishError> {
        let mut published = publish();
        if published.is_err_and(|error| error.is_backpressure()) {
            self.send();
            published = publish();
        }
        self.send();
        published
    }

    #[inline]
    fn send(&mut self) {
        if let Err(error) = self.agent.send() {
            self.failed = Some(error);
        }
    }

    fn finish(&mut self, at_most: Duration) -> Result<(), WireError> {
        self.agent.end();
        let begun = Instant::now();
        while !self.agent.is_done() && !self.agent.is_confirmed() && begun.elapsed() < at_most {
            if self.agent.duty_cycle()? == 0 {
                std::thread::yield_now();
            }
        }
        Ok(())
    }
}

/// Room for a message, to be written in place; see [`shm::Claim`](crate::shm::Claim).
#[must_use = "a claim that is dropped is aborted"]
pub struct Claim<'a> {
    claim: gapless_shm::Claim<'a, Mapped>,
    envelope: Option<Envelope>,
    wire: Option<&'a mut Wire>,
}

impl Claim<'_> {
    /// Shortens the message to `len` bytes; a longer `len` changes nothing.
    pub fn truncate(&mut self, len: usize) {
        self.claim.truncate(self.head() + len);
    }

    /// Bytes in front of the message.
    fn head(&self) -> usize {
        self.envelope.map_or(0, |_| ENVELOPE_BYTES)
    }

    /// Publishes the message and returns its sequence number.
    #[inline]
    pub fn commit(mut self) -> u64 {
        if let Some(mut envelope) = self.envelope {
            envelope.message_bytes = self.len() as u32;
            if let Some(head) = self.claim.first_chunk_mut() {
                envelope.write(head);
            }
        }
        let sequence = self.claim.commit();
        if let Some(wire) = self.wire {
            wire.send();
        }
        sequence
    }
}

impl Deref for Claim<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.claim[self.head()..]
    }
}

impl DerefMut for Claim<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let head = self.head();
        &mut self.claim[head..]
    }
}

/// Messages that appear together; see [`shm::Batch`](crate::shm::Batch).
#[must_use = "a batch that is dropped is aborted"]
pub struct Batch<'a> {
    batch: gapless_shm::Batch<'a, Mapped>,
    /// Sequence of its first message.
    next: u64,
    envelope: Option<Envelope>,
    scratch: &'a mut Vec<u8>,
    wire: Option<&'a mut Wire>,
}

impl Batch<'_> {
    /// Adds a message and returns the sequence number that it will have.
    ///
    /// # Errors
    /// As for [`shm::Batch::push`](crate::shm::Batch::push).
    #[inline]
    pub fn push(&mut self, payload: &[u8]) -> Result<u64, PublishError> {
        if let Some(wire) = &self.wire {
            wire.check(self.envelope.map_or(0, |_| ENVELOPE_BYTES) + payload.len())?;
        }
        let Some(envelope) = &self.envelope else { return self.batch.push(payload) };
        let envelope = whole(envelope, self.next + self.batch.len(), payload.len());
        let mut head = [0; ENVELOPE_BYTES];
        envelope.write(&mut head);
        self.scratch.clear();
        self.scratch.extend_from_slice(&head);
        self.scratch.extend_from_slice(payload);
        self.batch.push(self.scratch)
    }

    /// Messages in the batch so far.
    pub fn len(&self) -> u64 {
        self.batch.len()
    }

    /// Whether the batch holds no message.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Publishes the batch and returns how many messages it held.
    #[inline]
    pub fn commit(self) -> u64 {
        let count = self.batch.commit();
        if let Some(wire) = self.wire {
            wire.send();
        }
        count
    }
}

/// The envelope of a whole message that is sent now.
fn whole(template: &Envelope, sequence: u64, len: usize) -> Envelope {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Envelope {
        flags: Envelope::BEGIN | Envelope::END,
        publisher_sequence: sequence,
        send_time_unix_ns: now.as_nanos() as u64,
        message_bytes: len as u32,
        ..*template
    }
}

/// A name that no other ring has.
fn unnamed() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Relaxed: only uniqueness counts.
    format!("udp-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
