//! Round trips over two of our streams, one each way: a publisher and a subscriber a side, both
//! polled by the side's one thread, as an application would.

use anyhow::{Context, Result, bail, ensure};
use gapless::net::{Faulty, Network};
use gapless::protocol::Event;
use gapless::wire::Inlet;
use gapless::{Publisher, Subscriber};

use super::address::{Backend, Form, fresh, lose, parsed, until};
use crate::net::{Dial, Duplex, Ground, ask, tell, told};
use crate::scenario::Session;

/// Datagrams, and messages, handed over by a poll at most.
const POLL_LIMIT: usize = 64;

/// Two streams.
pub(crate) struct Streams {
    pub(crate) backend: Backend,
    pub(crate) form: Form,
    /// The share of datagrams that are lost on their way into a side.
    pub(crate) loss: f64,
}

/// One side: the stream that it writes and the one that it reads.
pub(crate) struct StreamsEnd {
    publisher: Publisher,
    incoming: Incoming,
}

/// Where messages come from.
#[expect(clippy::large_enum_variant, reason = "there is one a side")]
enum Incoming {
    Plain(Subscriber),
    Lossy(Inlet<Faulty<Network>>),
}

impl Incoming {
    fn open(streams: &Streams, address: &str, seed: u64) -> Result<Self> {
        if streams.loss == 0.0 {
            return Ok(Self::Plain(Subscriber::open(address)?));
        }
        let inlet = Inlet::open_over(streams.backend.faulty(seed)?, &parsed(address)?)?;
        Ok(Self::Lossy(inlet))
    }

    fn next_sequence(&self) -> u64 {
        match self {
            Self::Plain(subscriber) => subscriber.next_sequence(),
            Self::Lossy(inlet) => inlet.next_sequence(),
        }
    }

    #[inline(always)]
    fn poll(&mut self, mut handler: impl FnMut(&[u8])) -> Result<usize> {
        let inlet = match self {
            Self::Plain(subscriber) => {
                return Ok(subscriber.poll(POLL_LIMIT, |message| handler(message.payload))?);
            }
            Self::Lossy(inlet) => inlet,
        };
        let (mut count, mut lost) = (0, 0);
        inlet.poll(POLL_LIMIT, |event| {
            match event {
                Event::Message { payload, .. } => {
                    handler(payload);
                    count += 1;
                }
                Event::Lost { count, .. } => lost += count,
                _ => {}
            }
            true
        })?;
        ensure!(lost == 0, "{lost} messages were not repaired");
        Ok(count)
    }
}

impl Dial for Streams {
    type End = StreamsEnd;

    fn open(&self, session: &Session<'_>, ground: &Ground) -> Result<StreamsEnd> {
        let (mine, theirs) = ground.names();
        let (address, incoming) = ground.inside(|| -> Result<_> {
            let option = self.backend.option();
            let address = fresh(self.form, ground.address(), session.dir, option)?;
            let incoming = Incoming::open(self, &address, mine.len() as u64)?;
            Ok((address, incoming))
        })??;
        tell(session.dir, &format!("{mine}-stream"), &address)?;
        let other = ask(session, &format!("{theirs}-stream"))?;
        let publisher = ground.inside(|| Publisher::open(&other))?;
        let publisher = publisher.with_context(|| format!("publish to {other}"))?;
        let mut end = StreamsEnd { publisher, incoming };
        until("the other side's stream is found", || {
            if end.poll(|_| ())? > 0 {
                bail!("a message came before both sides were ready");
            }
            Ok(end.incoming.next_sequence() > 0)
        })?;
        tell(session.dir, &format!("{mine}-joined"), "")?;
        until("the other side has found this side's stream", || {
            end.publisher.poll()?;
            Ok(told(session.dir, &format!("{theirs}-joined")).is_some())
        })?;
        if let Incoming::Lossy(inlet) = &mut end.incoming {
            lose(inlet.network(), self.loss);
        }
        Ok(end)
    }

    fn obstacle(&self) -> Option<String> {
        self.backend.obstacle()
    }
}

impl Duplex for StreamsEnd {
    #[inline(always)]
    fn send(&mut self, message: &[u8]) -> Result<()> {
        self.publisher.try_publish(message)?;
        Ok(())
    }

    #[inline(always)]
    fn poll(&mut self, handler: impl FnMut(&[u8])) -> Result<usize> {
        let count = self.incoming.poll(handler)?;
        if count == 0 {
            self.publisher.poll()?; // heartbeats, and what the other side lacks
        }
        Ok(count)
    }
}
