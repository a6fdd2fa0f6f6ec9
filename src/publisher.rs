//! Writing a stream by its address.

use gapless_shm::{Batch, Claim, ConsumerView, Mapped, Producer, PublishError};

use crate::address::Address;
use crate::error::Error;
use crate::fragment::Fragments;

/// The one writer of a stream.
///
/// Opening creates the stream, or carries on where its last publisher ended. See the crate's first
/// page for an example, and [`shm::Producer`](crate::shm::Producer) for everything that can be done
/// with [`producer`](Self::producer).
pub struct Publisher {
    producer: Producer,
}

impl Publisher {
    /// Opens the stream of an address such as `shm:orders?capacity=64M`.
    ///
    /// # Errors
    /// [`Error::Address`] points at what is wrong in the address; [`Error::Ring`] says why the ring
    /// could not be had, among others that the stream has a live publisher (with its pid).
    pub fn open(address: &str) -> Result<Self, Error> {
        Self::open_at(&address.parse()?)
    }

    /// Opens the stream of a parsed address.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_at(address: &Address) -> Result<Self, Error> {
        match address {
            Address::Shm(shm) => Ok(Self { producer: shm.ring.open(shm.name())? }),
        }
    }

    /// Publishes a copy of `payload` and returns its sequence number. Never blocks.
    ///
    /// # Errors
    /// [`PublishError::Backpressure`] if a subscriber is a whole ring behind;
    /// [`PublishError::TooLong`] with the limit if it does not fit one record
    /// ([`Fragments`] then).
    #[inline]
    pub fn try_publish(&mut self, payload: &[u8]) -> Result<u64, PublishError> {
        self.producer.try_publish(payload)
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
        let mut fragments = Fragments::new(payload);
        loop {
            match fragments.try_publish(&mut self.producer) {
                Ok(sequence) => return Ok(sequence),
                Err(error) if error.is_backpressure() && on_backpressure() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Claims room for a message of `len` bytes, to write it in place.
    ///
    /// # Errors
    /// As for [`try_publish`](Self::try_publish).
    #[inline]
    pub fn claim(&mut self, len: usize) -> Result<Claim<'_, Mapped>, PublishError> {
        self.producer.claim(len)
    }

    /// Starts a batch of messages that appear together.
    pub fn batch(&mut self) -> Batch<'_, Mapped> {
        self.producer.batch()
    }

    /// Sequence number that the next record will get.
    pub fn next_sequence(&self) -> u64 {
        self.producer.next_sequence()
    }

    /// The subscriber that is furthest behind, by name; `None` if none holds the publisher up.
    pub fn slowest(&mut self) -> Option<ConsumerView> {
        self.producer.slowest()
    }

    /// The ring's own handle.
    pub fn producer(&mut self) -> &mut Producer {
        &mut self.producer
    }
}
