//! The two halves of a relay: what comes in and goes into a ring, and what a ring sends out.

use std::time::Duration;

use anyhow::{Context, bail};
use gapless::log::{LogError, Replay};
use gapless::protocol::{ReceiverCounts, SenderCounts};
use gapless::shm::{
    Consumer, ConsumerOptions, Inspector, ProducerStatus, RingError, Start, ring_path,
};
use gapless::wire::{ReceiverAgent, SenderAgent};
use gapless::{Address, Agent, LogAddress, PollError, ShmAddress, UdpAddress};

use super::feed::Feed;
use super::sink::Sink;
use crate::notes;

/// Messages of one cycle.
const MESSAGES_MAX: usize = 1024;
/// Messages of a file that leave together.
const TOGETHER_MAX: usize = 64;

/// How a stream that is read has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SourceEnd {
    Closed,
    Died,
}

/// What fills a ring.
pub(crate) enum Intake {
    /// The ring is there, and others fill it.
    Nothing {
        ring: Box<Inspector>,
    },
    Wire(Box<ReceiverAgent>),
    Ring {
        consumer: Box<Consumer>,
        sink: Sink,
    },
    File {
        feed: Box<Feed>,
        sink: Sink,
    },
    Log {
        replay: Box<Replay>,
        sink: Sink,
        /// Messages in front of this are not in the log, and the ring was not told all of it.
        lost_until: u64,
    },
}

impl Intake {
    /// From a ring into another.
    pub(crate) fn copy(from: &ShmAddress, to: ShmAddress) -> anyhow::Result<Self> {
        let mut sink = Sink::new(to);
        let mut options = from.consumer_options().clone();
        let session = inspect(from)?.header().session;
        if let Some(next) = sink.earlier(session) {
            options = options.start(Start::Sequence(next));
        }
        let consumer = match options.attach(from.name()) {
            // What it goes on with is gone: the copy begins again.
            Err(RingError::SequenceGone { .. }) => {
                from.consumer_options().clone().attach(from.name())
            }
            consumer => consumer,
        }?;
        sink.start(Some(consumer.session()), consumer.next_sequence())?;
        Ok(Self::Ring { consumer: Box::new(consumer), sink })
    }

    /// From a log into a ring.
    pub(crate) fn replay(from: &LogAddress, mut sink: Sink) -> anyhow::Result<Self> {
        let mut replay = Box::new(Replay::open(from)?);
        sink.start(Some(replay.reader().session()), replay.next_sequence())?;
        Ok(Self::Log { replay, sink, lost_until: 0 })
    }

    /// Does what there is to do, up to `limit` messages as far as that can be told beforehand.
    pub(crate) fn cycle(&mut self, limit: u64) -> anyhow::Result<usize> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(MESSAGES_MAX);
        match self {
            Self::Nothing { .. } => Ok(0),
            Self::Wire(agent) => Ok(agent.duty_cycle()?),
            Self::File { feed, sink } => {
                let mut work = 0;
                while work < limit.min(TOGETHER_MAX) {
                    match feed.cycle(sink)? {
                        0 => break,
                        more => work += more,
                    }
                }
                Ok(work)
            }
            Self::Log { replay, sink, lost_until } => {
                if *lost_until > 0 && !sink.publish_lost(*lost_until)? {
                    return Ok(0);
                }
                *lost_until = 0;
                replay_into(replay, sink, lost_until, limit)
            }
            Self::Ring { consumer, sink } => {
                let mut failed = None;
                let polled = consumer.poll_while(limit, |message| {
                    sink.publish(message).unwrap_or_else(|error| {
                        failed = Some(error);
                        false
                    })
                });
                match (failed, polled.map_err(PollError::from)) {
                    (Some(error), _) => Err(error),
                    (None, Ok(count)) => Ok(count),
                    (None, Err(PollError::Unsteady)) => Ok(0),
                    (None, Err(PollError::Lapped { resumed_at, .. })) => {
                        while !sink.publish_lost(resumed_at)? {
                            std::thread::yield_now(); // its own readers are slow as well
                        }
                        Ok(1)
                    }
                    (None, Err(error)) => Err(error.into()),
                }
            }
        }
    }

    /// Whether there is nothing more to come, as far as `sent`, the next sequence to leave.
    pub(crate) fn end(&mut self, sent: Option<u64>) -> Option<SourceEnd> {
        let ended = |status| match status {
            ProducerStatus::Closed => Some(SourceEnd::Closed),
            ProducerStatus::Dead => Some(SourceEnd::Died),
            _ => None,
        };
        match self {
            Self::Nothing { ring } => {
                let looked = ring.snapshot();
                let all = sent.is_some_and(|sent| sent >= looked.next_sequence);
                ended(looked.producer).filter(|_| all)
            }
            Self::Wire(agent) => {
                let silent = agent.inlet().silent_ns();
                match agent.inlet().has_ended() {
                    true => Some(SourceEnd::Closed),
                    false => silent.filter(|ns| *ns >= SILENCE_NS).map(|_| SourceEnd::Died),
                }
            }
            Self::File { feed, .. } => feed.is_done().then_some(SourceEnd::Closed),
            Self::Log { replay, lost_until, .. } => {
                (replay.is_ended() && *lost_until == 0).then_some(SourceEnd::Closed)
            }
            Self::Ring { consumer, .. } => ended(consumer.producer_status()),
        }
    }

    /// The session of the ring that is filled; `None` before the stream was found.
    pub(crate) fn session(&mut self) -> Option<u64> {
        match self {
            Self::Nothing { ring } => Some(ring.header().session),
            Self::Wire(agent) => agent.producer().map(|producer| producer.session()),
            Self::Ring { sink, .. } | Self::File { sink, .. } | Self::Log { sink, .. } => {
                sink.producer.as_ref().map(|producer| producer.session())
            }
        }
    }

    /// Messages, their bytes as far as known, and how many were lost for good.
    pub(crate) fn carried(&mut self) -> (u64, u64, u64) {
        match self {
            Self::Nothing { .. } => (0, 0, 0),
            Self::Wire(agent) => {
                let counts = agent.inlet().counts();
                (counts.messages, counts.bytes, counts.lost)
            }
            Self::Ring { sink, .. } | Self::File { sink, .. } | Self::Log { sink, .. } => {
                (sink.messages, sink.bytes, sink.lost)
            }
        }
    }

    /// What was seen of packets.
    pub(crate) fn received(&mut self) -> Option<ReceiverCounts> {
        match self {
            Self::Wire(agent) => Some(*agent.inlet().counts()),
            Self::File { feed, .. } => feed.counts(),
            Self::Nothing { .. } | Self::Ring { .. } | Self::Log { .. } => None,
        }
    }

    /// Sleeps until something comes in, or a while has passed.
    pub(crate) fn sleep(&mut self, at_most: Duration) -> anyhow::Result<()> {
        match self {
            Self::Wire(agent) => Ok(agent.inlet().wait(at_most)?),
            _ => {
                std::thread::sleep(at_most);
                Ok(())
            }
        }
    }
}

/// Publishes what is due of a replay.
fn replay_into(
    replay: &mut Replay,
    sink: &mut Sink,
    lost_until: &mut u64,
    limit: usize,
) -> anyhow::Result<usize> {
    let mut failed = None;
    let polled = replay.poll_while(limit, |message, _| {
        sink.publish(message).unwrap_or_else(|error| {
            failed = Some(error);
            false
        })
    });
    match (failed, polled) {
        (Some(error), _) => Err(error),
        (None, Ok(count)) => Ok(count),
        (
            None,
            Err(LogError::Damaged { first, count, .. } | LogError::Missing { first, count }),
        ) => {
            *lost_until = first + count;
            Ok(1)
        }
        (None, Err(LogError::NewSession { session, next })) => {
            sink.start(session.number(), next)?;
            Ok(1)
        }
        (None, Err(error)) => Err(error.into()),
    }
}

/// As a subscriber takes its publisher for dead.
const SILENCE_NS: u64 = 3_000_000_000;

/// What sends a ring.
pub(crate) struct Outlet {
    address: UdpAddress,
    ring: ShmAddress,
    sender: Option<(u64, SenderAgent)>,
    /// Of sessions that have ended.
    earlier: SenderCounts,
}

impl Outlet {
    /// Sends what is in `ring`, once that is there.
    pub(crate) fn new(address: UdpAddress, ring: ShmAddress) -> Self {
        Self { address, ring, sender: None, earlier: SenderCounts::default() }
    }

    /// Sends the ring that has this session: at once if it is another than before.
    pub(crate) fn follow(&mut self, session: Option<u64>) -> anyhow::Result<()> {
        let Some(session) = session.filter(|new| self.sender.as_ref().is_none_or(|s| s.0 != *new))
        else {
            return Ok(());
        };
        self.finish()?;
        let name = format!("relay to {}", self.address.name());
        let options: ConsumerOptions = self.ring.consumer_options().clone().name(name);
        let consumer = options.attach(self.ring.name())?;
        let mut sender = SenderAgent::open(&self.address, consumer)?;
        notes::tell(sender.network());
        self.sender = Some((session, sender));
        Ok(())
    }

    pub(crate) fn cycle(&mut self) -> anyhow::Result<usize> {
        let Some((_, sender)) = &mut self.sender else { return Ok(0) };
        sender.duty_cycle().with_context(|| format!("send to {}", self.address.name()))
    }

    /// The next sequence to leave.
    pub(crate) fn next_sequence(&self) -> Option<u64> {
        self.sender.as_ref().map(|(_, sender)| sender.next_sequence())
    }

    pub(crate) fn receivers(&self) -> usize {
        self.sender.as_ref().map_or(0, |(_, sender)| sender.receivers().count())
    }

    /// Ends the session: blocks until those that report have all of it, at most as long as the
    /// address's `linger` says.
    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        let Some((_, mut sender)) = self.sender.take() else { return Ok(()) };
        sender.end();
        while !sender.is_done() && !sender.is_confirmed() {
            if sender.duty_cycle()? == 0 {
                std::thread::yield_now();
            }
        }
        self.earlier = sum(&self.earlier, sender.counts());
        Ok(())
    }

    /// What was sent in all.
    pub(crate) fn counts(&self) -> SenderCounts {
        let current = self.sender.as_ref().map(|(_, sender)| *sender.counts());
        sum(&self.earlier, &current.unwrap_or_default())
    }
}

fn sum(one: &SenderCounts, other: &SenderCounts) -> SenderCounts {
    SenderCounts {
        messages: one.messages + other.messages,
        packets: one.packets + other.packets,
        bytes: one.bytes + other.bytes,
        requests: one.requests + other.requests,
        repaired_messages: one.repaired_messages + other.repaired_messages,
        gone: one.gone + other.gone,
        lapped: one.lapped + other.lapped,
        ..*other
    }
}

/// The ring of an address, seen from outside.
pub(crate) fn inspect(address: &ShmAddress) -> anyhow::Result<Inspector> {
    Ok(Inspector::open_file(&ring_path(address.directory(), address.name())?)?)
}

/// The ring between the two halves when neither end names one: the one that the address's `ring`
/// says, or `name` in `directory`; with the address's options of rings.
pub(crate) fn ring_between(
    to: &UdpAddress,
    name: &str,
    directory: &str,
) -> anyhow::Result<ShmAddress> {
    const OF_RINGS: [&str; 13] = [
        "capacity",
        "align",
        "max",
        "slots",
        "mode",
        "parkable",
        "evictable",
        "filemode",
        "wait",
        "envelope",
        "prefault",
        "lock",
        "huge",
    ];
    let options = to.text().split_once('?').map_or("", |(_, options)| options);
    let mut kept: Vec<&str> = options
        .split('&')
        .filter(|option| {
            let key = option.split('=').next().unwrap_or_default();
            OF_RINGS.contains(&key) || (key == "dir" && to.ring_name().is_some())
        })
        .collect();
    let private = format!("dir={directory}");
    if to.ring_name().is_none() {
        kept.push(&private);
    }
    if !kept.iter().any(|option| option.starts_with("capacity=")) {
        kept.push("capacity=64M");
    }
    let name = to.ring_name().unwrap_or(name);
    match format!("shm:{name}?{}", kept.join("&")).parse()? {
        Address::Shm(ring) => Ok(ring),
        _ => bail!("a ring's address was expected"),
    }
}
