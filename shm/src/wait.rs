//! What to do when a poll found nothing: the caller's choice, one step at a time.

use std::time::Duration;

use crate::consumer::Consumer;
use crate::memory::Memory;

/// How a consumer waits for the next message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WaitStrategy {
    /// One `pause` instruction a poll: the lowest latency, a core of its own.
    #[default]
    BusySpin,
    /// Spins a while, then yields the core at each further empty poll: for cores that are shared.
    SpinYield,
    /// Spins a while, then sleeps in the kernel until the producer wakes it: no CPU while idle, and
    /// a wake of some 30 µs. Needs a ring created [`parkable`](crate::RingOptions::parkable);
    /// elsewhere it behaves as `SpinYield`.
    Park,
}

/// Empty polls before a consumer yields or sleeps: about 20 µs.
const SPINS: u32 = 500;
/// A sleeping consumer looks around this often (for a producer that died without waking it).
const PARK_TIMEOUT: Duration = Duration::from_millis(10);

/// The state of waiting: how long polls have been empty.
///
/// ```
/// use gapless_shm::{RingOptions, Start, WaitStrategy, Waiter};
/// # let (mut producer, ring) = RingOptions::new().capacity_bytes(4096).heap()?;
/// # let mut consumer = ring.subscribe("reader", Start::Oldest)?;
/// # producer.try_publish(b"x")?;
/// let mut waiter = Waiter::new(WaitStrategy::SpinYield);
/// let mut seen = 0;
/// while seen < 1 {
///     match consumer.poll(64, |_message| {})? {
///         0 => waiter.wait(&consumer),
///         n => {
///             seen += n;
///             waiter.reset();
///         }
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Waiter {
    strategy: WaitStrategy,
    empty_polls: u32,
}

impl Waiter {
    /// A waiter that has not waited yet.
    pub fn new(strategy: WaitStrategy) -> Self {
        Self { strategy, empty_polls: 0 }
    }

    /// A message came: the next wait starts with spinning again.
    #[inline]
    pub fn reset(&mut self) {
        self.empty_polls = 0;
    }

    /// One step of waiting after an empty poll of `consumer`.
    #[inline]
    pub fn wait<M: Memory>(&mut self, consumer: &Consumer<M>) {
        if self.strategy == WaitStrategy::BusySpin || self.empty_polls < SPINS {
            self.empty_polls = self.empty_polls.saturating_add(1);
            crate::sync::spin_hint();
        } else if self.strategy == WaitStrategy::Park && consumer.can_park() {
            consumer.park(PARK_TIMEOUT);
        } else {
            std::thread::yield_now();
        }
    }

    /// One step of waiting where there is no one ring to sleep on (several streams, or a publisher
    /// that waits for room): `Park` yields.
    #[inline]
    pub fn idle(&mut self) {
        if self.strategy == WaitStrategy::BusySpin || self.empty_polls < SPINS {
            self.empty_polls = self.empty_polls.saturating_add(1);
            crate::sync::spin_hint();
        } else {
            std::thread::yield_now();
        }
    }
}
