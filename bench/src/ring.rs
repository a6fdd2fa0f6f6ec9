//! Our ring as a link: single publishes, batches, claims, and the wait strategies.

use std::path::Path;

use anyhow::{Context, Result};
use gapless_shm::{
    Consumer, ConsumerOptions, Producer, PublishError, RingOptions, Start, WaitStrategy, Waiter,
};

pub(crate) use crate::link::CAPACITY_BYTES;
use crate::link::{Link, Receiver, Sender};

/// Messages in a batch.
const BATCH: usize = 64;

/// The ring's options of every case.
pub(crate) fn options(dir: &Path) -> RingOptions {
    RingOptions::new().directory(dir).capacity_bytes(CAPACITY_BYTES)
}

/// Attaches a consumer from the first message on.
pub(crate) fn attach(dir: &Path, channel: &str) -> Result<Consumer> {
    ConsumerOptions::new()
        .directory(dir)
        .name("bench")
        .start(Start::Oldest)
        .attach(channel)
        .context("attach to the ring")
}

/// Ends the run: a refusal other than for want of room is a fault of ring or harness.
#[cold]
#[inline(never)]
pub(crate) fn fault(error: impl std::error::Error) -> ! {
    panic!("the ring refused: {error}")
}

/// True if it was published, false if there was no room.
#[inline(always)]
fn published(result: Result<u64, PublishError>) -> bool {
    match result {
        Ok(_) => true,
        Err(error) if error.is_backpressure() => false,
        Err(error) => fault(error),
    }
}

/// The payload as an array: messages of our cases have a size known at compile time, as those of
/// most applications, of the floor and of the peers.
#[inline(always)]
fn array<const N: usize>(payload: &[u8]) -> &[u8; N] {
    payload.try_into().expect("the link's payload size")
}

macro_rules! ring_link {
    ($(#[$doc:meta])* $link:ident, $sender:ident) => {
        $(#[$doc])*
        pub(crate) struct $link<const N: usize>;

        impl<const N: usize> Link for $link<N> {
            type Sender = $sender<N>;
            type Receiver = Spinning;

            fn open_sender(&self, dir: &Path, channel: &str) -> Result<$sender<N>> {
                Ok($sender(options(dir).create(channel).context("create the ring")?))
            }

            fn open_receiver(&self, dir: &Path, channel: &str) -> Result<Spinning> {
                Ok(Spinning(attach(dir, channel)?))
            }
        }
    };
}

ring_link!(
    /// One `try_publish` a message.
    Ring, Single
);
ring_link!(
    /// Batches of 64.
    BatchedRing, Batched
);
ring_link!(
    /// `claim`, fill, `commit`.
    ClaimedRing, Claimed
);

/// Publishes one by one.
pub(crate) struct Single<const N: usize>(Producer);

impl<const N: usize> Sender for Single<N> {
    #[inline(always)]
    fn try_send(&mut self, payload: &[u8]) -> bool {
        published(self.0.try_publish(array::<N>(payload)))
    }
}

/// Publishes in batches.
pub(crate) struct Batched<const N: usize>(Producer);

impl<const N: usize> Sender for Batched<N> {
    #[inline(always)]
    fn try_send(&mut self, payload: &[u8]) -> bool {
        self.send_some(payload, 1) == 1
    }

    #[inline(always)]
    fn send_some(&mut self, payload: &[u8], limit: usize) -> usize {
        let mut batch = self.0.batch();
        for _ in 0..limit.min(BATCH) {
            if !published(batch.push(array::<N>(payload))) {
                break;
            }
        }
        batch.commit() as usize
    }
}

/// Publishes in place.
pub(crate) struct Claimed<const N: usize>(Producer);

impl<const N: usize> Sender for Claimed<N> {
    #[inline(always)]
    fn try_send(&mut self, payload: &[u8]) -> bool {
        match self.0.claim(N) {
            Ok(mut claim) => {
                claim.copy_from_slice(array::<N>(payload));
                claim.commit();
                true
            }
            Err(error) if error.is_backpressure() => false,
            Err(error) => fault(error),
        }
    }
}

/// A consumer that pauses after an empty poll, and no more.
pub(crate) struct Spinning(Consumer);

impl Receiver for Spinning {
    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        match self.0.poll(limit, |message| handler(message.payload)) {
            Ok(count) => count,
            Err(error) => fault(error),
        }
    }
}

/// The ring read by a wait strategy.
pub(crate) struct WaitingRing<const N: usize>(pub(crate) WaitStrategy);

impl<const N: usize> Link for WaitingRing<N> {
    type Sender = Single<N>;
    type Receiver = Waiting;

    fn open_sender(&self, dir: &Path, channel: &str) -> Result<Single<N>> {
        let parkable = self.0 == WaitStrategy::Park;
        let ring = options(dir).parkable(parkable).create(channel);
        Ok(Single(ring.context("create the ring")?))
    }

    fn open_receiver(&self, dir: &Path, channel: &str) -> Result<Waiting> {
        Ok(Waiting { consumer: attach(dir, channel)?, waiter: Waiter::new(self.0) })
    }
}

/// A consumer that waits by its strategy.
pub(crate) struct Waiting {
    consumer: Consumer,
    waiter: Waiter,
}

impl Receiver for Waiting {
    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        match self.consumer.poll(limit, |message| handler(message.payload)) {
            Ok(0) => 0,
            Ok(count) => {
                self.waiter.reset();
                count
            }
            Err(error) => fault(error),
        }
    }

    #[inline(always)]
    fn idle(&mut self) {
        self.waiter.wait(&self.consumer);
    }
}
