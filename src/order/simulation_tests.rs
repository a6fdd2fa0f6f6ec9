//! The whole order path under everything that can happen to sequencers and clients: kills,
//! take-overs, restarts, repeats, losses, silent clients. Replicas stay equal, and what the stream
//! says is what the engine knows.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::exchange::Exchange;
use super::field::*;
use super::messages::*;
use super::{Capacity, Engine, OpenOrder, Positions, Reconciliation};
use crate::protocol::Random;
use crate::sequencer::simulation::{Outcomes, Simulation, for_seeds};
use crate::sequencer::{ClientId, Kind, Record};

const INSTRUMENTS: u64 = 3;
const CLIENTS: u16 = 4;
const CAPACITY: Capacity = Capacity { clients: CLIENTS, instruments: 4, orders: 500 };

fn engine() -> Engine<Exchange> {
    Engine::new(CAPACITY, Exchange::new(4, 500))
}

/// The operator is client 1: it first says what can be traded, then trades as well.
fn command(
    random: &mut Random,
    client: ClientId,
    number: u64,
    engine: Option<&Engine<Exchange>>,
) -> Vec<u8> {
    let message = match (client.0, number) {
        (1, 1..=INSTRUMENTS) => instrument(number as u32),
        (1, 4..=7) => limits(ClientId(number as u16 - 3), random),
        _ => any(random, client, number, engine),
    };
    let mut bytes = Vec::new();
    message.encode_to(&mut bytes);
    if random.below(50) == 0 {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
    }
    bytes
}

fn instrument(number: u32) -> Message {
    DefineInstrument {
        symbol: Symbol::new(["AAPL", "GOOGL", "SBER"][number as usize - 1]).unwrap(),
        tick: Price(5),
        lot: Quantity(1),
        multiplier: u64::from(number),
        reference: Price(1000),
        instrument: InstrumentId(number),
        price_exponent: -2,
        state: MarketState::Open,
    }
    .into()
}

fn limits(client: ClientId, random: &mut Random) -> Message {
    SetLimits {
        max_quantity: Quantity(50),
        max_notional: Money(0),
        max_position: Quantity(200 + random.below(200)),
        max_gross: Money(random.below(2) as i64 * 2_000_000),
        credit: Money(0),
        max_loss: Money(random.below(2) as i64 * 20_000),
        max_open_orders: 40,
        max_orders_per_second: 0,
        collar_basis_points: 2000,
        reference_age_ms: 0,
        maker_fee_ppm: -50,
        taker_fee_ppm: 200,
        client,
        self_match: SelfMatch::ALL[random.below(3) as usize],
        cancel_on_disconnect: random.below(2) == 0,
        stop_on_breach: random.below(2) == 0,
    }
    .into()
}

fn any(
    random: &mut Random,
    client: ClientId,
    number: u64,
    engine: Option<&Engine<Exchange>>,
) -> Message {
    let own = engine.and_then(|engine| {
        let orders: Vec<_> = engine.orders().of(client).map(|o| o.client_order_id).collect();
        orders.get(random.below(orders.len().max(1) as u64) as usize).copied()
    });
    let price = Price(950 + 5 * random.below(21) as i64);
    let quantity = Quantity(1 + random.below(20));
    match (random.below(100), own) {
        (0..15, Some(client_order_id)) => {
            CancelOrder { client_order_id, order_id: OrderId(0) }.into()
        }
        (15..30, Some(original)) => {
            let client_order_id = ClientOrderId(number);
            ReplaceOrder { client_order_id, original, price, quantity }.into()
        }
        (30, _) => MassCancel { instrument: InstrumentId(random.below(4) as u32) }.into(),
        (31, _) if client.0 == 1 => {
            let client = ClientId(random.below(5) as u16);
            KillSwitch { client, engaged: random.below(3) == 0, cancel_open: true }.into()
        }
        (32, _) if client.0 == 1 => {
            let state = MarketState::ALL[random.below(3) as usize];
            SetMarketState { instrument: InstrumentId(random.below(4) as u32), state }.into()
        }
        (33, _) if client.0 == 1 => {
            let latency_ns = random.below(3) * 100_000;
            SetVenue { latency_ns, connected: random.below(4) > 0 }.into()
        }
        (34..38, _) if client.0 == 1 => limits(ClientId(1 + random.below(4) as u16), random),
        _ => NewOrder {
            client_order_id: ClientOrderId(number),
            price,
            quantity,
            instrument: InstrumentId(1 + random.below(INSTRUMENTS) as u32),
            side: if random.below(2) == 0 { Side::Buy } else { Side::Sell },
            order_type: OrderType::Limit,
            time_in_force: [TimeInForce::Day, TimeInForce::Day, TimeInForce::Ioc, TimeInForce::Fok]
                [random.below(4) as usize],
            post_only: false,
        }
        .into(),
    }
}

/// What the stream says of the orders: open quantity by order id.
#[derive(Default)]
struct Told {
    open: BTreeMap<OrderId, Quantity>,
    ended: u64,
    bought: BTreeMap<InstrumentId, u64>,
    sold: BTreeMap<InstrumentId, u64>,
}

impl Told {
    fn hear(&mut self, event: Message) {
        match event {
            Message::Accepted(accepted) => {
                let before = self.open.insert(accepted.order_id, accepted.quantity);
                assert_eq!(before, None, "accepted twice: {accepted:?}");
            }
            Message::Filled(filled) => {
                let of_side = match filled.side {
                    Side::Buy => &mut self.bought,
                    Side::Sell => &mut self.sold,
                };
                *of_side.entry(filled.instrument).or_default() += filled.quantity.0;
                let open = self.open.get_mut(&filled.order_id).expect("an open order");
                open.0 = open.0.checked_sub(filled.quantity.0).expect("no more than is open");
                assert_eq!(*open, filled.leaves, "{filled:?}");
                if open.0 == 0 {
                    self.end(filled.order_id);
                }
            }
            Message::Cancelled(cancelled) => {
                assert_eq!(self.open.get(&cancelled.order_id), Some(&cancelled.quantity));
                self.end(cancelled.order_id);
            }
            Message::Replaced(replaced) => {
                *self.open.get_mut(&replaced.order_id).expect("an open order") = replaced.leaves;
            }
            _ => {}
        }
    }

    fn end(&mut self, order: OrderId) {
        assert!(self.open.remove(&order).is_some(), "{order} ended twice");
        self.ended += 1;
    }
}

/// Holds the stream against the engine's state at its end, and says how many orders ended.
fn look(log: &[Vec<u8>], engine: &Engine<Exchange>) -> u64 {
    let mut told = Told::default();
    let mut positions = Positions::new();
    let mut reconciliation = Reconciliation::new();
    for (at, message) in log.iter().enumerate() {
        let record = Record::read(at as u64 + 1, message).unwrap();
        positions.apply(&record).unwrap();
        reconciliation.stream(&record);
        if record.kind == Kind::Event {
            told.hear(Message::decode(record.payload).unwrap());
        }
    }
    assert_eq!(told.bought, told.sold, "every trade has two sides");
    let open = || engine.orders().iter().filter(|order| order.accepted);
    let known: BTreeMap<_, _> = open().map(|order| (order.order_id, order.leaves())).collect();
    assert_eq!(known, told.open, "open orders");
    reconciliation.engine(engine.orders().iter().map(OpenOrder::from));
    let held = positions.iter().map(|(client, of, position)| (client, of, position.quantity));
    reconciliation.positions("positions", held);
    let pairs = (1..=CLIENTS).flat_map(|client| {
        (1..=INSTRUMENTS as u32).map(move |of| (ClientId(client), InstrumentId(of)))
    });
    let held = pairs.map(|(client, of)| (client, of, engine.risk().position(client, of)));
    reconciliation.positions("risk", held);
    let report = reconciliation.finish();
    assert!(report.is_clean(), "{:#?}", report.differences);
    told.ended
}

fn simulate(seed: u64, ended: &Cell<u64>) -> Outcomes {
    let look = |log: &[Vec<u8>], engine: &Engine<Exchange>| {
        ended.set(ended.get() + look(log, engine));
    };
    Simulation::new(seed, CLIENTS, engine, command).run(2000, look)
}

#[test]
fn replicas_stay_equal_and_the_stream_says_what_the_engine_knows() {
    let ended = Cell::new(0);
    let all = for_seeds(1000, |seed| simulate(seed, &ended));
    if std::env::var_os("SIMULATION_SEED").is_none() {
        assert!(all.take_overs > 5000 && all.commands > 30_000, "{all:?}");
        assert!(ended.get() > 30_000, "{} orders ended", ended.get());
    }
}
