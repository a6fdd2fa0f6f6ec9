//! Reading a stream by its address.

use gapless_shm::{Consumer, Message, PollError, ProducerStatus, Waiter};

use crate::address::Address;
use crate::error::Error;

/// One reader of a stream.
///
/// See the crate's first page for an example.
pub struct Subscriber {
    consumer: Consumer,
    waiter: Waiter,
}

impl Subscriber {
    /// Opens the stream of an address such as `shm:orders?from=oldest&name=risk`.
    ///
    /// # Errors
    /// [`Error::Address`] points at what is wrong in the address; [`Error::Ring`] says why the ring
    /// could not be attached to, among others that it does not exist yet.
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
                consumer: shm.consumer.attach(shm.name())?,
                waiter: Waiter::new(shm.wait),
            }),
        }
    }

    /// Hands up to `limit` messages to `handler`, in order, and returns how many. Never blocks.
    ///
    /// # Errors
    /// Only when nothing was handed over: [`PollError::Lapped`] names exactly how many messages are
    /// gone (lossy streams), and the next poll goes on behind them; [`PollError::Evicted`],
    /// [`PollError::Corrupt`] end the subscription.
    #[inline]
    pub fn poll(
        &mut self,
        limit: usize,
        handler: impl FnMut(Message<'_>),
    ) -> Result<usize, PollError> {
        self.consumer.poll(limit, handler)
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
        let handled = self.consumer.poll(limit, handler)?;
        if handled == 0 {
            self.waiter.wait(&self.consumer);
        } else {
            self.waiter.reset();
        }
        Ok(handled)
    }

    /// Sequence number of the next message.
    pub fn next_sequence(&self) -> u64 {
        self.consumer.next_sequence()
    }

    /// Whether the publisher lives, has closed the stream, or has died. Ask when polls stay empty.
    pub fn publisher_status(&self) -> ProducerStatus {
        self.consumer.producer_status()
    }

    /// The ring's own handle.
    pub fn consumer(&mut self) -> &mut Consumer {
        &mut self.consumer
    }
}
