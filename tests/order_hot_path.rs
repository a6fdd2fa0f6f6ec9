//! An exchange, and an engine in front of one, allocate nothing once made, whatever comes, with a
//! slow line and without.

mod counting;

use gapless::order::messages::{
    CancelOrder, DefineInstrument, MassCancel, NewOrder, ReplaceOrder, SetVenue,
};
use gapless::order::{
    CancelReason, Capacity, ClientOrderId, Engine, Exchange, InstrumentId, MarketState, OrderId,
    OrderType, Price, Quantity, Report, SelfMatch, Side, Symbol, TimeInForce, Venue, VenueOrder,
};
use gapless::protocol::Random;
use gapless::sequencer::{Application, ClientId, Events, Kind, Record, Role};

use counting::COUNT;

/// An order of the kinds that there are, near a price.
fn order(random: &mut Random, id: u64) -> VenueOrder {
    let market = random.below(20) == 0;
    let times = [TimeInForce::Day, TimeInForce::Day, TimeInForce::Ioc, TimeInForce::Fok];
    VenueOrder {
        order_id: OrderId(id),
        client: ClientId(random.below(5) as u16),
        instrument: InstrumentId(1 + random.below(3) as u32),
        side: Side::ALL[random.below(2) as usize],
        order_type: if market { OrderType::Market } else { OrderType::Limit },
        time_in_force: times[random.below(4) as usize],
        post_only: random.below(20) == 0,
        price: Price(1_000 + random.below(200) as i64),
        quantity: Quantity(random.below(100)),
        self_match: SelfMatch::ALL[random.below(3) as usize],
    }
}

#[test]
fn nothing_is_allocated_between_a_request_and_its_reports() {
    let mut random = Random::new(4);
    let mut exchange = Exchange::new(3, 300);
    let mut reports = Vec::with_capacity(1 << 16);
    let (mut trades, mut full) = (0, 0);

    let before = COUNT.get();
    for id in 1..200_000 {
        if id % 1_000 == 0 {
            exchange.set(random.below(4) > 0, random.below(2) * 500);
        }
        reports.clear();
        exchange.advance(id, &mut reports);
        let named = OrderId(id.saturating_sub(random.below(1_000)));
        match random.below(8) {
            0 => exchange.cancel(id, named, CancelReason::Requested, &mut reports),
            1 => {
                let price = Price(1_000 + random.below(200) as i64);
                exchange.replace(id, named, price, Quantity(random.below(100)), &mut reports);
            }
            _ => exchange.submit(id, &order(&mut random, id), &mut reports),
        }
        for report in &reports {
            trades += u64::from(matches!(report, Report::Filled { .. }));
            full += u64::from(matches!(report, Report::Rejected { .. }));
        }
    }
    assert_eq!(COUNT.get() - before, 0, "allocations");
    assert!(trades > 10_000 && full > 1_000, "{trades} fills, {full} rejections: little happened");
}

/// An engine, and what a sequencer would stamp its records with.
struct Desk {
    engine: Engine<Exchange>,
    events: Events,
    sequence: u64,
}

impl Desk {
    fn send(&mut self, kind: Kind, role: Role, client: u16, payload: &[u8]) {
        self.sequence += 1;
        let record = Record {
            sequence: self.sequence,
            kind,
            code: role as u8,
            client: ClientId(client),
            term: 1,
            reference: 0,
            sent_ns: 0,
            time_ns: self.sequence,
            payload,
        };
        self.events.clear();
        self.engine.apply(&record, &mut self.events);
    }

    fn operate(&mut self, payload: &[u8]) {
        self.send(Kind::Command, Role::Operator, 5, payload);
    }

    fn trade(&mut self, client: u16, payload: &[u8]) {
        self.send(Kind::Command, Role::Trader, client, payload);
    }
}

#[test]
fn nothing_is_allocated_between_a_command_and_its_events() {
    let mut random = Random::new(5);
    let capacity = Capacity { clients: 5, instruments: 3, orders: 200 };
    let engine = Engine::new(capacity, Exchange::new(3, 300));
    let mut desk = Desk { engine, events: Events::new(), sequence: 0 };
    for (id, name) in [(1, "ONE"), (2, "TWO"), (3, "THREE")] {
        let define = DefineInstrument {
            symbol: Symbol::new(name).unwrap(),
            tick: Price(1),
            lot: Quantity(1),
            multiplier: 1,
            reference: Price(0),
            instrument: InstrumentId(id),
            price_exponent: 0,
            state: MarketState::Open,
        };
        desk.operate(&define.encode());
    }

    let (mut answers, before) = (0, COUNT.get());
    for id in 1..200_000 {
        let client = 1 + random.below(4) as u16;
        let client_order_id = ClientOrderId(id);
        let original = ClientOrderId(id.saturating_sub(random.below(300)));
        match random.below(64) {
            0 if id % 8 == 0 => {
                let (connected, latency_ns) = (random.below(4) > 0, random.below(2) * 50);
                desk.operate(&SetVenue { latency_ns, connected }.encode());
            }
            0 => desk.trade(client, &MassCancel { instrument: InstrumentId(0) }.encode()),
            1 => desk.send(Kind::Disconnected, Role::Operator, client, &[]),
            2..10 => {
                let cancel = CancelOrder { client_order_id: original, order_id: OrderId(0) };
                desk.trade(client, &cancel.encode());
            }
            10..20 => {
                let (price, quantity) =
                    (Price(1_000 + random.below(200) as i64), Quantity(random.below(100)));
                let replace = ReplaceOrder { client_order_id, original, price, quantity };
                desk.trade(client, &replace.encode());
            }
            _ => {
                let VenueOrder { price, quantity, instrument, side, order_type, .. } =
                    order(&mut random, id);
                let market = order_type == OrderType::Market;
                let new = NewOrder {
                    client_order_id,
                    price,
                    quantity,
                    instrument,
                    side,
                    order_type,
                    time_in_force: if market { TimeInForce::Ioc } else { TimeInForce::Day },
                    post_only: false,
                };
                desk.trade(client, &new.encode());
            }
        }
        answers += desk.events.len();
    }
    assert_eq!(COUNT.get() - before, 0, "allocations");
    assert!(answers > 200_000, "{answers} answers: little happened");
}
