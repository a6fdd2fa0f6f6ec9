//! How long a repair takes: of a hole in a stream that goes on, and of a lone message behind which
//! nothing comes that would show that it is missing.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context, Result};
use gapless::Publisher;
use gapless::net::Direction;
use gapless::protocol::Event;
use gapless::wire::Inlet;

use super::address::{Backend, Form, fresh, lose, parsed, until};
use super::flow::Flow;
use crate::clock::ticks;
use crate::control::{Watch, Word};
use crate::net::{ask, tell};
use crate::oneway::OneWay;
use crate::roundtrip;
use crate::scenario::{Outcome, Scenario, Session, histogram};

/// Time between seeing a hole and filling it, in a paced stream that loses some datagrams.
pub(crate) struct Holes(pub(crate) OneWay<Flow<64>>);

impl Scenario for Holes {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let mut repairs = histogram();
        self.0.listen(session, |receiver| {
            receiver.take_repairs(|time| {
                repairs.saturating_record(session.clock.to_ticks(time).max(1));
            });
        })?;
        Ok(Outcome::latency(repairs))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        self.0.follow(session)
    }
}

/// Time between publishing a message, which is lost and the last one for a while, and its delivery.
pub(crate) struct Tail {
    pub(crate) backend: Backend,
}

/// Bytes of the message; the first of them say when it was published.
const MESSAGE_BYTES: usize = 64;
const STREAM: &str = "stream";
const POLL_LIMIT: usize = 64;

/// The receiving side, and the tick that the last message was published at.
struct Ear {
    inlet: Inlet<gapless::net::Faulty<gapless::net::Network>>,
    published: Option<u64>,
}

impl Ear {
    #[inline(always)]
    fn poll(&mut self) -> Result<()> {
        let published = &mut self.published;
        self.inlet.poll(POLL_LIMIT, |event| {
            if let Event::Message { payload, .. } = event {
                *published = payload.first_chunk().map(|tick| u64::from_ne_bytes(*tick));
            }
            true
        })?;
        Ok(())
    }

    /// Datagrams that have come in, lost or not.
    fn entered(&mut self) -> u64 {
        self.inlet.network().counters(Direction::Receive, 0).entered
    }

    /// Has message `number` published, loses it, and waits until it is here all the same. Returns
    /// how long that took, ticks; `None` if it was not lost after all.
    fn lose_one(
        &mut self,
        session: &Session<'_>,
        watch: &mut Watch<'_>,
        number: u64,
    ) -> Result<Option<u64>> {
        let repaired = self.inlet.counts().repaired;
        self.published = None;
        lose(self.inlet.network(), 1.0);
        session.control.set(Word::Progress, number);
        while session.control.get(Word::Total) < number {
            self.poll()?;
            watch.stopped()?;
        }
        // What has left has arrived, on one host: nothing comes any more when it was taken.
        let mut before = u64::MAX;
        while before != self.entered() {
            before = self.entered();
            self.poll()?;
        }
        lose(self.inlet.network(), 0.0);
        loop {
            self.poll()?;
            if let Some(published) = self.published {
                let time = ticks().saturating_sub(published);
                return Ok((self.inlet.counts().repaired > repaired).then_some(time));
            }
            watch.stopped()?;
        }
    }
}

impl Scenario for Tail {
    fn obstacle(&self) -> Option<String> {
        self.backend.obstacle()
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let options = self.backend.option();
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let address = fresh(Form::Unicast, localhost, session.dir, options)?;
        let inlet = Inlet::open_over(self.backend.faulty(1)?, &parsed(&address)?)?;
        let mut ear = Ear { inlet, published: None };
        tell(session.dir, STREAM, &address)?;
        let mut watch = session.control.watch();
        while session.control.get(Word::Stage) == 0 {
            ear.poll()?;
            watch.stopped()?;
        }
        let (mut number, mut passed) = (0, 0u64);
        let samples = roundtrip::sample_some(session, |watch| {
            number += 1;
            let time = ear.lose_one(session, watch, number)?;
            passed += u64::from(time.is_none());
            Ok(time)
        })?;
        session.control.set(Word::Stop, 1);
        Ok(Outcome::latency(samples).with_detail("not_lost", passed as f64))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let control = session.control;
        let mut publisher = Publisher::open(&ask(session, STREAM)?)?;
        until("the receiver reports", || {
            publisher.poll()?;
            let sender = publisher.sender().context("a stream of datagrams has a sender")?;
            Ok(sender.receivers().count() == 1)
        })?;
        control.set(Word::Stage, 1);
        let mut watch = control.watch();
        let (mut published, mut payload) = (0, [0x5a; MESSAGE_BYTES]);
        while !watch.stopped()? {
            let wanted = control.get(Word::Progress);
            if wanted > published {
                published = wanted;
                payload[..8].copy_from_slice(&ticks().to_ne_bytes());
                publisher.try_publish(&payload)?;
                control.set(Word::Total, published);
            }
            publisher.poll()?;
        }
        Ok(())
    }
}
