//! `order/roundtrip`: a client sends a new order and waits until it sees its own `Accepted` in the
//! sequenced stream. The order is then cancelled, which is not timed.
//!
//! The client is an operator as well, so that one client sets the market up and trades.

use std::hint::spin_loop;

use anyhow::{Context, Result, bail};
use gapless::Agent;
use gapless::order::messages::{CancelOrder, NewOrder};
use gapless::order::{
    ClientOrderId, InstrumentId, Message, OrderId, OrderType, Price, Quantity, Side, TimeInForce,
};
use gapless::sequencer::{
    Application, Client, ClientId, ClientOptions, Events, Kind, Role, Sequencer, SequencerOptions,
    Standing,
};

use super::stage::{Market, engine, opening};
use super::tally::Tally;
use super::{client_stream, stream};
use crate::clock::ticks;
use crate::control::{Control, Watch, Word};
use crate::link::CAPACITY_BYTES;
use crate::roundtrip::sample_some;
use crate::scenario::{Outcome, Scenario, Session};

const TRADER: ClientId = ClientId(1);
/// In the case of three: the engine's own client stream.
const ENGINE: ClientId = ClientId(2);
const INSTRUMENTS: [i64; 2] = [10_000, 20_000];
/// Records of a poll.
const POLL: usize = 16;
/// Stages of the set-up.
const SEQUENCER_LEADS: u64 = 1;

/// Engine and sequencer in one thread on the second core, the client on the first.
pub(crate) struct Inline;

/// Three roles on two cores: client and engine by turns in one thread on the first, the sequencer
/// on the second. So an order crosses between the cores four times, as it would with three.
pub(crate) struct Three;

/// An engine that reads the stream as anybody does, and answers by a client stream of its own.
struct Apart {
    client: Client,
    engine: Market,
    events: Events,
}

impl Apart {
    #[inline]
    fn turn(&mut self) -> Result<()> {
        let Self { client, engine, events } = self;
        client.poll(1, |record| {
            if record.client != ENGINE {
                engine.apply(record, events);
            }
        })?;
        for (_, event) in events.iter() {
            client.submit(event).context("answer")?;
        }
        events.clear();
        Ok(())
    }
}

/// The client, and the engine if that is on this side.
struct Trader {
    client: Client,
    apart: Option<Apart>,
    /// What its answers are: events, or commands of the engine's.
    answers: (Kind, ClientId),
    number: u64,
}

impl Trader {
    fn open(session: &Session<'_>, apart: bool) -> Result<Self> {
        session.control.wait_for(Word::Stage, SEQUENCER_LEADS)?;
        let open = |id: ClientId| -> Result<Client> {
            let sequenced = stream(session.dir, "sequenced", CAPACITY_BYTES);
            Ok(Client::open(id, &client_stream(session.dir, id.0), &sequenced)?)
        };
        let instruments = INSTRUMENTS.len() as u32;
        let apart = if apart {
            let engine = engine(TRADER.0, instruments);
            Some(Apart { client: open(ENGINE)?, engine, events: Events::new() })
        } else {
            None
        };
        let answers = if apart.is_some() { (Kind::Command, ENGINE) } else { (Kind::Event, TRADER) };
        let mut trader = Self { client: open(TRADER)?, apart, answers, number: 0 };
        let mut watch = session.control.watch();
        while !trader.is_ready() {
            trader.poll(&mut watch, |_| ())?;
        }
        for command in opening(TRADER.0, &INSTRUMENTS)? {
            trader.client.submit(&command).context("set up")?;
        }
        while trader.client.unconfirmed() > 0 {
            trader.poll(&mut watch, |_| ())?;
        }
        Ok(trader)
    }

    fn is_ready(&self) -> bool {
        let ready = |apart: &Apart| apart.client.is_ready();
        self.client.is_ready() && self.apart.as_ref().is_none_or(ready)
    }

    /// Reads what there is, and hands over the answers among it.
    #[inline]
    fn poll(&mut self, watch: &mut Watch<'_>, mut answer: impl FnMut(Message)) -> Result<()> {
        let answers = self.answers;
        let read = self.client.poll(POLL, |record| {
            if (record.kind, record.client) == answers
                && let Ok(message) = Message::decode(record.payload)
            {
                answer(message);
            }
        })?;
        if let Some(apart) = &mut self.apart {
            apart.turn()?;
        }
        if read == 0 {
            watch.stopped()?;
            spin_loop();
        }
        Ok(())
    }

    /// Sends an order and waits until it is accepted; how long that took, in ticks.
    #[inline]
    fn accepted(&mut self, watch: &mut Watch<'_>) -> Result<(u64, OrderId)> {
        self.number += 1;
        let id = ClientOrderId(self.number);
        let order = NewOrder {
            client_order_id: id,
            price: Price(INSTRUMENTS[0] - 5),
            quantity: Quantity(10),
            instrument: InstrumentId(1),
            side: Side::Buy,
            order_type: OrderType::Limit,
            time_in_force: TimeInForce::Day,
            post_only: false,
        };
        let from = ticks();
        self.client.submit(&order.encode())?;
        let (mut found, mut refused) = (None, None);
        while found.is_none() {
            self.poll(watch, |message| match message {
                Message::Accepted(accepted) if accepted.client_order_id == id => {
                    found = Some(accepted.order_id);
                }
                Message::Rejected(rejected) => refused = Some(rejected.reason),
                _ => {}
            })?;
            if let Some(reason) = refused {
                bail!("the order was rejected: {reason:?}");
            }
        }
        Ok((ticks().saturating_sub(from), found.unwrap_or_default()))
    }

    /// Takes an order out, and waits until it is.
    fn cancelled(&mut self, watch: &mut Watch<'_>, order_id: OrderId) -> Result<()> {
        let client_order_id = ClientOrderId(0);
        self.client.submit(&CancelOrder { client_order_id, order_id }.encode())?;
        let (mut done, mut refused) = (false, None);
        while !done {
            self.poll(watch, |message| match message {
                Message::Cancelled(cancelled) => done |= cancelled.order_id == order_id,
                Message::CancelRejected(rejected) => refused = Some(rejected.reason),
                _ => {}
            })?;
            if let Some(reason) = refused {
                bail!("the order could not be cancelled: {reason:?}");
            }
        }
        Ok(())
    }
}

fn measure(session: &Session<'_>, apart: bool) -> Result<Outcome> {
    let mut trader = Trader::open(session, apart)?;
    let samples = sample_some(session, |watch| {
        let (long, order_id) = trader.accepted(watch)?;
        trader.cancelled(watch, order_id)?;
        Ok(Some(long))
    })?;
    session.control.set(Word::Stop, 1);
    Ok(Outcome::latency(samples))
}

/// A sequencer with an operator and another client, until the run is over.
fn sequence<A: Application>(session: &Session<'_>, application: A, clients: u16) -> Result<()> {
    let sequenced = stream(session.dir, "sequenced", CAPACITY_BYTES);
    let options = (1..=clients).fold(SequencerOptions::new(sequenced), |options, id| {
        let client = ClientOptions::new(ClientId(id), client_stream(session.dir, id));
        let role = if id == TRADER.0 { Role::Operator } else { Role::Gateway };
        options.client(client.role(role))
    });
    let mut sequencer = Sequencer::open(options, application).context("open")?;
    while sequencer.standing() != Standing::Leading {
        sequencer.duty_cycle()?;
    }
    let control: &Control = session.control;
    control.set(Word::Stage, SEQUENCER_LEADS);
    let mut watch = control.watch();
    loop {
        if sequencer.duty_cycle()? == 0 {
            if watch.stopped()? {
                return Ok(());
            }
            spin_loop();
        }
    }
}

impl Scenario for Inline {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        measure(session, false)
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        sequence(session, engine(TRADER.0, INSTRUMENTS.len() as u32), TRADER.0)
    }
}

impl Scenario for Three {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        measure(session, true)
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        sequence(session, Tally::default(), ENGINE.0)
    }
}
