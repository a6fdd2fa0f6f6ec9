//! Publishing from a command: a ring or datagrams, however long the ring is full, tended while
//! there is nothing to publish.

use std::cell::RefCell;
use std::rc::Rc;
use std::thread::{sleep, yield_now};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use gapless::shm::{Inspector, ring_path};
use gapless::wire::WireError;
use gapless::{Address, Fragments, Publisher, WaitStrategy, Waiter};

use crate::digest::Digest;
use crate::enveloped::{Origin, Pieces};
use crate::notes;
use crate::progress;
use crate::stop::{LOOK_INTERVAL, Stop};

/// A full ring is nothing to talk about until it has lasted this long.
const STALL_TOLD_AFTER: Duration = Duration::from_secs(1);
/// Records that leave together, at most.
const TOGETHER_MAX: u32 = 256;
/// A sender of datagrams looks for requests in one of so many polls.
const POLLS: u32 = 8;
/// After a message, requests for it are looked for without a pause for so long: a repair should not
/// wait for a sleeper.
const EAGER: Duration = Duration::from_millis(2);
/// Then, so often.
const REST: Duration = Duration::from_millis(1);

/// A publisher that somebody looks after: heartbeats and repairs, if it is one of datagrams.
pub(crate) struct Tended {
    publisher: Publisher,
    wired: bool,
    published_at: Instant,
}

/// Shared with the input, which waits for messages.
pub(crate) type SharedPublisher = Rc<RefCell<Tended>>;

impl Tended {
    fn tend(&mut self) -> Result<(), WireError> {
        if self.wired {
            for _ in 0..POLLS {
                self.publisher.poll()?;
            }
        }
        Ok(())
    }

    /// Does what there is to do between messages. Returns how long to rest then.
    pub(crate) fn rest(&mut self) -> Result<Duration, WireError> {
        self.tend()?;
        Ok(match self.wired {
            false => LOOK_INTERVAL,
            true if self.published_at.elapsed() < EAGER => Duration::ZERO,
            true => REST,
        })
    }
}

/// The publisher of a command, and what it has sent.
pub(crate) struct Sending {
    shared: SharedPublisher,
    stop: Stop,
    /// Of an enveloped stream.
    origin: Option<Origin>,
    record: Vec<u8>,
    /// Longest record, bytes.
    max_bytes: usize,
    /// Whether a longer message may travel in fragments.
    fragments: bool,
    /// Records published since the last that left.
    gathered: u32,
    pub(crate) digest: Option<Digest>,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// Messages for which the ring was full at first.
    pub(crate) waits: u64,
}

impl Sending {
    /// Opens the stream of an address; `enveloped` if its messages are to carry envelopes although
    /// the address does not say so.
    pub(crate) fn open(address: &Address, enveloped: bool, stop: &Stop) -> anyhow::Result<Self> {
        let mut publisher = Publisher::open_at(address)?;
        if let Some(sender) = publisher.sender() {
            notes::tell(sender.network());
        }
        let ring_max = publisher.producer().max_message_bytes();
        let wire_max = publisher.sender().map(|sender| sender.max_message_bytes());
        let enveloped = enveloped || address.is_enveloped();
        let wired = wire_max.is_some();
        let tended = Tended { publisher, wired, published_at: Instant::now() };
        Ok(Self {
            shared: Rc::new(RefCell::new(tended)),
            stop: stop.clone(),
            origin: enveloped.then(Origin::this_process),
            record: Vec::new(),
            max_bytes: wire_max.map_or(ring_max, |max| max.min(ring_max)),
            fragments: enveloped || !wired,
            gathered: 0,
            digest: None,
            messages: 0,
            bytes: 0,
            waits: 0,
        })
    }

    /// The publisher, to be tended by whoever waits for input.
    pub(crate) fn shared(&self) -> SharedPublisher {
        Rc::clone(&self.shared)
    }

    /// Publishes one message, however long the ring is full. False if asked to stop meanwhile; a
    /// message that was begun is then left without its end, which readers are told.
    ///
    /// If `more` follow at once, datagrams may leave together with theirs.
    ///
    /// # Errors
    /// If the message is too long for the stream, or the network refuses it.
    pub(crate) fn send(&mut self, message: &[u8], more: bool) -> anyhow::Result<bool> {
        if !self.fragments && message.len() > self.max_bytes {
            bail!(
                "message {} has {} bytes, a datagram of this stream takes {}: send larger \
                 datagrams (datagram=BYTES in the address), or fragments (envelope=yes in the \
                 address of both sides)",
                self.messages + 1,
                message.len(),
                self.max_bytes
            );
        }
        let tended = &mut *self.shared.borrow_mut();
        let mut pieces = match &mut self.origin {
            None => Pieces::Plain(Fragments::new(message)),
            Some(origin) => Pieces::enveloped(message, origin, &mut self.record, self.max_bytes),
        };
        let mut stall: Option<Stall> = None;
        loop {
            match pieces.try_publish(tended.publisher.producer()) {
                Ok(()) => break,
                Err(error) if error.is_backpressure() => {
                    tended.tend().context("send")?;
                    if stall.is_none() {
                        self.waits += 1;
                    }
                    stall.get_or_insert_with(Stall::new).wait(tended);
                    if self.stop.asked() {
                        return Ok(false);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.gathered += 1;
        if tended.wired && (!more || self.gathered >= TOGETHER_MAX) {
            tended.publisher.poll().context("send")?;
            tended.published_at = Instant::now();
            self.gathered = 0;
        }
        if let Some(digest) = &mut self.digest {
            digest.add(message);
        }
        self.messages += 1;
        self.bytes += message.len() as u64;
        Ok(true)
    }

    /// Waits until the next message is due at so many a second, or a stop is asked.
    pub(crate) fn await_due(&mut self, start: Instant, rate: u64) -> anyhow::Result<()> {
        let due = start + Duration::from_secs_f64(self.messages as f64 / rate as f64);
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.asked() {
                return Ok(());
            }
            let pause = self.shared.borrow_mut().rest().context("send")?;
            if left > Duration::from_millis(2) {
                self.heartbeat();
                sleep((left - Duration::from_millis(1)).min(pause));
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Says in the ring that this publisher is at work.
    pub(crate) fn heartbeat(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let publisher = &mut self.shared.borrow_mut().publisher;
        publisher.producer().heartbeat(now.as_nanos() as u64);
    }

    /// Returns when `count` subscribers are attached, or receivers report, or a stop is asked.
    pub(crate) fn await_subscribers(&self, address: &Address, count: usize) -> anyhow::Result<()> {
        if count == 0 {
            return Ok(());
        }
        let inspector = match address {
            Address::Shm(shm) => {
                Some(Inspector::open_file(&ring_path(shm.directory(), shm.name())?)?)
            }
            _ => None,
        };
        let spinner = progress::spinner("waiting for subscribers");
        loop {
            let mut tended = self.shared.borrow_mut();
            tended.tend()?;
            let found = match (&inspector, tended.publisher.sender()) {
                (Some(inspector), _) => {
                    inspector.snapshot().consumers.iter().filter(|c| c.alive).count()
                }
                (None, Some(sender)) => sender.receivers().count(),
                (None, None) => 0,
            };
            if self.stop.asked() || found >= count {
                spinner.finish_and_clear();
                return Ok(());
            }
            sleep(REST);
        }
    }

    /// Sequence number that the next record would get.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.shared.borrow().publisher.next_sequence()
    }

    /// Sends what has been gathered.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        self.gathered = 0;
        self.shared.borrow_mut().publisher.poll().context("send")?;
        Ok(())
    }

    /// Ends the stream; its receivers are given the time to ask for what they lack. Whoever shares
    /// the publisher must have let go of it.
    pub(crate) fn close(mut self) -> anyhow::Result<()> {
        self.flush()?;
        let tended = Rc::into_inner(self.shared).context("the input still holds the publisher")?;
        tended.into_inner().publisher.close().context("end the stream")
    }
}

/// A full ring: how long already, and whether that was told.
struct Stall {
    since: Instant,
    told: bool,
    waiter: Waiter,
}

impl Stall {
    fn new() -> Self {
        let waiter = Waiter::new(WaitStrategy::SpinYield);
        Self { since: Instant::now(), told: false, waiter }
    }

    fn wait(&mut self, tended: &mut Tended) {
        if self.since.elapsed() < STALL_TOLD_AFTER {
            self.waiter.idle();
            return;
        }
        if !self.told {
            self.told = true;
            tell_who_is_slow(&mut tended.publisher);
        }
        if tended.wired {
            yield_now(); // somebody may ask
        } else {
            sleep(Duration::from_millis(1));
        }
    }
}

fn tell_who_is_slow(publisher: &mut Publisher) {
    if let Some(slow) = publisher.sender().and_then(|sender| sender.slowest()) {
        eprintln!(
            "gapless: the ring is full, waiting for receiver {:?} ({}), {} messages behind",
            slow.name, slow.address, slow.lag_messages
        );
    } else if let Some(slow) = publisher.slowest() {
        eprintln!(
            "gapless: the ring is full, waiting for subscriber {:?} (pid {}, slot {}), {} \
             messages behind",
            slow.name, slow.pid, slow.slot, slow.lag_messages
        );
    }
}
