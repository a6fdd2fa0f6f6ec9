//! The order path as a house: an engine behind a sequencer, traders and an operator, and readers of
//! the one stream, each for itself: positions, audit, notifications.
//!
//! Each test is a row of what a trading system's users ask for.

use std::path::Path;
use std::time::{Duration, Instant};

use gapless::order::messages::{
    CancelOrder, DefineInstrument, KillSwitch, ListOrders, NewOrder, SetLimits,
};
use gapless::order::{
    Audit, CancelReason, Capacity, ClientOrderId, Engine, Exchange, Fate, InstrumentId,
    MarketState, Message, Money, Notifications, OrderId, OrderType, Positions, Price, Quantity,
    Reason, Side, Symbol, TimeInForce,
};
use gapless::sequencer::{
    Client, ClientId, ClientOptions, Kind, Leaving, Record, Role, Sequencer, SequencerOptions,
    SubmitError,
};
use gapless::{Agent, Subscriber};

const OPERATOR: ClientId = ClientId(1);
const USER: ClientId = ClientId(501);
const OTHER: ClientId = ClientId(502);
const AAPL: InstrumentId = InstrumentId(1);
const GOOGL: InstrumentId = InstrumentId(2);
const LIMIT: Duration = Duration::from_secs(60);

fn at(dir: &Path, name: &str) -> String {
    format!("shm:{name}?capacity=1M&dir={}", dir.display())
}

/// What the stream said to one client.
type Said = Vec<Message>;

struct House {
    dir: tempfile::TempDir,
    sequencer: Sequencer<Engine<Exchange>>,
    operator: Client,
    user: Option<Client>,
    other: Client,
    /// Three readers, each with a subscription of its own.
    portfolio: (Subscriber, Positions),
    auditor: (Subscriber, Audit),
    notifier: (Subscriber, Notifications),
    notified: Vec<(String, u64)>,
    /// Events that the user itself has heard.
    heard: Said,
    /// Events by client, as the operator hears them.
    said: Vec<(ClientId, Message)>,
    /// Who came and went.
    leavings: Vec<(ClientId, Leaving)>,
}

impl House {
    fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let stream = at(&path, "sequenced");
        let client = |id: ClientId| ClientOptions::new(id, at(&path, &format!("client-{id}")));
        let options = SequencerOptions::new(&stream)
            .client(client(OPERATOR).role(Role::Operator))
            .client(client(USER))
            .client(client(OTHER));
        let capacity = Capacity { clients: 600, instruments: 10, orders: 10_000 };
        let engine = Engine::new(capacity, Exchange::new(10, 10_000));
        let mut sequencer = Sequencer::open(options, engine).unwrap();
        sequencer.duty_cycle().unwrap();
        let open =
            |id: ClientId| Client::open(id, &at(&path, &format!("client-{id}")), &stream).unwrap();
        let (operator, user, other) = (open(OPERATOR), open(USER), open(OTHER));
        let read = || Subscriber::open(&stream).unwrap();
        let mut notifications = Notifications::new();
        notifications.subscribe("trades", "kind=filled,rejected".parse().unwrap());
        let mut house = Self {
            portfolio: (read(), Positions::new()),
            auditor: (read(), Audit::new()),
            notifier: (read(), notifications),
            notified: Vec::new(),
            dir,
            sequencer,
            operator,
            user: Some(user),
            other,
            heard: Vec::new(),
            said: Vec::new(),
            leavings: Vec::new(),
        };
        house.settle();
        for (instrument, symbol) in [(AAPL, "AAPL"), (GOOGL, "GOOGL")] {
            house.operate(&define(instrument, symbol).encode());
        }
        house
    }

    /// Lets everybody work until nobody has anything to do.
    fn settle(&mut self) {
        let begun = Instant::now();
        let mut idle = 0;
        while idle < 50 {
            assert!(begun.elapsed() < LIMIT, "this takes too long");
            let mut done = self.sequencer.duty_cycle().unwrap();
            let (said, leavings) = (&mut self.said, &mut self.leavings);
            done += self.operator.poll(1000, |record| hear(record, said, leavings)).unwrap();
            done += self.other.poll(1000, |_| ()).unwrap();
            let mut waits = !self.operator.is_ready() || !self.other.is_ready();
            if let Some(user) = &mut self.user {
                let heard = &mut self.heard;
                done += user
                    .poll(1000, |record| {
                        if record.kind == Kind::Event && record.client == USER {
                            heard.push(Message::decode(record.payload).unwrap());
                        }
                    })
                    .unwrap();
                waits |= !user.is_ready() || user.unconfirmed() > 0;
            }
            let (subscriber, positions) = &mut self.portfolio;
            done += each(subscriber, |record| positions.apply(record).unwrap());
            let (subscriber, audit) = &mut self.auditor;
            done += each(subscriber, |record| audit.apply(record));
            let (subscriber, notifications) = &mut self.notifier;
            let notified = &mut self.notified;
            done += each(subscriber, |record| {
                notifications.apply(record, |name, record| {
                    notified.push((name.to_owned(), record.sequence));
                });
            });
            idle = if done == 0 && !waits { idle + 1 } else { 0 };
        }
    }

    fn operate(&mut self, command: &[u8]) -> Said {
        let before = self.said.len();
        self.operator.submit(command).unwrap();
        self.settle();
        self.since(before, OPERATOR)
    }

    /// A command of the user's, and what it was answered.
    fn send(&mut self, command: &[u8]) -> Said {
        let (before, heard) = (self.said.len(), self.heard.len());
        self.user.as_mut().unwrap().submit(command).unwrap();
        self.settle();
        let said = self.since(before, USER);
        assert_eq!(said, self.heard[heard..], "all hear the same");
        said
    }

    fn since(&self, before: usize, client: ClientId) -> Said {
        let of_client = self.said[before..].iter().filter(|(of, _)| *of == client);
        of_client.map(|(_, message)| *message).collect()
    }

    /// Waits until the user counts as gone, and says why.
    fn wait_for_leaving(&mut self) -> Leaving {
        let before = self.leavings.len();
        let begun = Instant::now();
        while self.leavings.len() == before {
            assert!(begun.elapsed() < LIMIT, "nobody leaves");
            self.settle();
        }
        let (client, leaving) = self.leavings[before];
        assert_eq!(client, USER);
        leaving
    }

    fn return_of_the_user(&mut self) {
        let commands = at(self.dir.path(), &format!("client-{USER}"));
        let stream = at(self.dir.path(), "sequenced");
        self.user = Some(Client::open(USER, &commands, &stream).unwrap());
        self.settle();
    }
}

fn hear(
    record: &Record<'_>,
    said: &mut Vec<(ClientId, Message)>,
    leavings: &mut Vec<(ClientId, Leaving)>,
) {
    match record.kind {
        Kind::Event => said.push((record.client, Message::decode(record.payload).unwrap())),
        Kind::Disconnected => leavings.push((record.client, Leaving::of(record.code).unwrap())),
        _ => {}
    }
}

fn each(subscriber: &mut Subscriber, mut handle: impl FnMut(&Record<'_>)) -> usize {
    let polled = subscriber.poll(1000, |message| {
        handle(&Record::read(message.sequence, message.payload).unwrap());
    });
    polled.unwrap()
}

fn define(instrument: InstrumentId, symbol: &str) -> DefineInstrument {
    DefineInstrument {
        symbol: Symbol::new(symbol).unwrap(),
        tick: Price(1),
        lot: Quantity(1),
        multiplier: 1,
        reference: Price(18_700),
        instrument,
        price_exponent: -2,
        state: MarketState::Open,
    }
}

fn order(id: u64, instrument: InstrumentId, quantity: u64) -> NewOrder {
    NewOrder {
        client_order_id: ClientOrderId(id),
        price: Price(18_725),
        quantity: Quantity(quantity),
        instrument,
        side: Side::Buy,
        order_type: OrderType::Limit,
        time_in_force: TimeInForce::Day,
        post_only: false,
    }
}

fn reason_of(said: &Said) -> Reason {
    match said[..] {
        [Message::Rejected(rejected)] => rejected.reason,
        _ => panic!("not rejected: {said:?}"),
    }
}

#[test]
fn order_placed_is_seen_by_engine_portfolio_and_audit() {
    let mut house = House::open();
    let sell = NewOrder { side: Side::Sell, ..order(1, AAPL, 10) };
    house.other.submit(&sell.encode()).unwrap();
    house.settle();
    let said = house.send(&order(1001, AAPL, 10).encode());
    let [Message::Accepted(accepted), Message::Filled(filled)] = said[..] else {
        panic!("{said:?}");
    };
    assert_eq!((filled.leaves, filled.price), (Quantity(0), Price(18_725)));
    let engine = house.sequencer.application();
    assert_eq!((engine.orders().len(), engine.risk().position(USER, AAPL)), (0, 10));
    let position = house.portfolio.1.get(USER, AAPL).unwrap();
    assert_eq!((position.quantity, position.fills), (10, 1));
    assert_eq!(house.portfolio.1.get(OTHER, AAPL).unwrap().quantity, -10);
    let life = house.auditor.1.life(accepted.order_id).unwrap();
    assert_eq!((life.client, life.fate), (USER, Fate::Filled));
    assert_eq!(house.notified.len(), 2, "both sides of the trade: {:?}", house.notified);
}

#[test]
fn duplicate_orders() {
    let mut house = House::open();
    let sell = NewOrder { side: Side::Sell, ..order(1, GOOGL, 100) };
    house.other.submit(&sell.encode()).unwrap();
    house.settle();
    let first = house.send(&order(1002, GOOGL, 15).encode());
    assert!(matches!(first[..], [Message::Accepted(_), Message::Filled(_)]), "{first:?}");
    let second = house.send(&order(1002, GOOGL, 15).encode());
    assert_eq!(reason_of(&second), Reason::DuplicateOrder);
    assert_eq!(house.portfolio.1.get(USER, GOOGL).unwrap().quantity, 15);
}

#[test]
fn invalid_stock_orders() {
    let mut house = House::open();
    let said = house.send(&order(1003, InstrumentId(9), 5).encode());
    assert_eq!(reason_of(&said), Reason::UnknownInstrument);
    let lives: Vec<_> = house.auditor.1.lives_named(USER, ClientOrderId(1003)).collect();
    assert_eq!(lives[0].why_rejected(), Some(Reason::UnknownInstrument));
    assert!(house.portfolio.1.get(USER, InstrumentId(9)).is_none());
}

#[test]
fn rate_limiting() {
    let mut house = House::open();
    let limits = SetLimits { max_orders_per_second: 100, ..SetLimits::none(USER) };
    assert!(house.operate(&limits.encode()).is_empty());
    let (before, begun_ns) = (house.said.len(), house.sequencer.time_ns());
    for id in 1..=1000 {
        house.user.as_mut().unwrap().submit(&order(id, AAPL, 1).encode()).unwrap();
    }
    house.settle();
    let said = house.since(before, USER);
    assert_eq!(said.len(), 1000, "each is answered");
    let accepted = said.iter().filter(|said| matches!(said, Message::Accepted(_))).count();
    let reasons = said.iter().filter_map(|said| match said {
        Message::Rejected(rejected) => Some(rejected.reason),
        _ => None,
    });
    let rejected = reasons.filter(|&reason| reason == Reason::OrderRate).count();
    assert_eq!(accepted + rejected, 1000);
    // A hundred at once, and one more each 10 ms of sequenced time that this took.
    let took_ms = (house.sequencer.time_ns() - begun_ns) / 1_000_000;
    assert!((100..=101 + took_ms as usize / 10).contains(&accepted), "{accepted} in {took_ms} ms");
}

#[test]
fn malformed_and_unauthorised_commands_are_rejected_and_audited() {
    let mut house = House::open();
    for (command, reason) in [
        (&b"nonsense"[..], Reason::Malformed),
        (&[], Reason::Malformed),
        (&order(7, AAPL, 1).encode()[..39], Reason::Malformed),
        (&SetLimits::none(USER).encode(), Reason::NotAuthorised),
        (&order(7, AAPL, 0).encode(), Reason::InvalidQuantity),
    ] {
        assert_eq!(reason_of(&house.send(command)), reason);
    }
    let position = house.portfolio.1.get(USER, AAPL);
    assert!(position.is_none() && house.sequencer.application().orders().is_empty());
}

#[test]
fn oms_disconnected_its_orders_are_cancelled() {
    let mut house = House::open();
    for id in 1..=3 {
        house.send(&order(id, AAPL, 10).encode());
    }
    let before = house.said.len();
    house.user = None; // closes its ring without a good-bye, as a process that ends does
    house.wait_for_leaving();
    let said = house.since(before, USER);
    assert_eq!(said.len(), 3, "{said:?}");
    for said in said {
        let Message::Cancelled(cancelled) = said else { panic!("{said:?}") };
        assert_eq!(cancelled.reason, CancelReason::Disconnected);
    }
    assert!(house.sequencer.application().orders().is_empty());
}

#[test]
fn oms_disconnected_its_orders_stand_if_its_limits_say_so_and_are_listed_on_return() {
    let mut house = House::open();
    let limits = SetLimits { cancel_on_disconnect: false, ..SetLimits::none(USER) };
    house.operate(&limits.encode());
    for id in 1..=3 {
        house.send(&order(id, if id == 2 { GOOGL } else { AAPL }, 10 * id).encode());
    }
    house.user.take().unwrap().close().unwrap();
    assert_eq!(house.wait_for_leaving(), Leaving::Closed);
    assert_eq!(house.sequencer.application().orders().len(), 3);
    house.return_of_the_user();
    assert_eq!(house.user.as_ref().unwrap().last_submitted(), 3);
    let said = house.send(&ListOrders { instrument: InstrumentId(0) }.encode());
    let listed: Vec<_> = said
        .iter()
        .filter_map(|said| match said {
            Message::Listed(listed) => Some((listed.client_order_id.0, listed.leaves.0)),
            _ => None,
        })
        .collect();
    assert_eq!(listed, [(1, 10), (2, 20), (3, 30)]);
    assert!(matches!(said.last(), Some(Message::ListEnd(end)) if end.orders == 3), "{said:?}");
    let said = house.send(&ListOrders { instrument: GOOGL }.encode());
    assert!(matches!(said[..], [Message::Listed(_), Message::ListEnd(_)]), "{said:?}");
}

#[test]
fn oms_loses_the_queue_and_is_told_rather_than_queued() {
    let mut house = House::open();
    let user = house.user.as_mut().unwrap();
    user.set_silence(Duration::from_millis(20));
    // Nobody runs the sequencer, so not even the time passes.
    let begun = Instant::now();
    while !user.is_silent() {
        assert!(begun.elapsed() < LIMIT);
        user.poll(1000, |_| ()).unwrap();
    }
    let refused = user.submit(&order(1, AAPL, 1).encode()).unwrap_err();
    assert!(matches!(refused, SubmitError::Silent { .. }) && !refused.is_backpressure());
    house.settle();
    house.user.as_mut().unwrap().set_silence(Duration::from_secs(60));
    house.settle();
    let said = house.send(&order(1, AAPL, 1).encode());
    assert!(matches!(said[..], [Message::Accepted(_)]), "{said:?}");
}

#[test]
fn a_kill_switch_stops_a_client_and_cancels_what_is_open() {
    let mut house = House::open();
    house.send(&order(1, AAPL, 10).encode());
    let before = house.said.len();
    let kill = KillSwitch { client: USER, engaged: true, cancel_open: true };
    house.operate(&kill.encode());
    let said = house.since(before, USER);
    let [Message::Cancelled(cancelled)] = said[..] else { panic!("{said:?}") };
    assert_eq!(cancelled.reason, CancelReason::KillSwitch);
    assert_eq!(reason_of(&house.send(&order(2, AAPL, 10).encode())), Reason::KillSwitch);
    house.operate(&KillSwitch { engaged: false, ..kill }.encode());
    let said = house.send(&order(3, AAPL, 10).encode());
    assert!(matches!(said[..], [Message::Accepted(_)]), "{said:?}");
}

#[test]
fn a_market_order_goes_no_further_than_its_client_s_limits() {
    let mut house = House::open();
    for (id, price) in [(1, 18_800), (2, 18_887), (3, 18_888), (4, 1_000_000)] {
        let sell = NewOrder { side: Side::Sell, price: Price(price), ..order(id, AAPL, 10) };
        house.other.submit(&sell.encode()).unwrap();
    }
    house.settle();
    let market = NewOrder {
        order_type: OrderType::Market,
        time_in_force: TimeInForce::Ioc,
        price: Price(0),
        ..order(1, AAPL, 40)
    };
    // One percent above 187.00 is 188.87; without a collar, credit reaches as far as 187.00.
    let limits = SetLimits { collar_basis_points: 100, ..SetLimits::none(USER) };
    house.operate(&limits.encode());
    let filled = |said: &Said| -> Vec<i64> {
        let fills = said.iter().filter_map(|said| match said {
            Message::Filled(filled) => Some(filled.price.0),
            _ => None,
        });
        fills.collect()
    };
    let said = house.send(&market.encode());
    assert_eq!(filled(&said), [18_800, 18_887]);
    assert!(matches!(said.last(), Some(Message::Cancelled(rest)) if rest.quantity.0 == 20));
    house.operate(&SetLimits { credit: Money(i64::MAX), ..SetLimits::none(USER) }.encode());
    let said = house.send(&NewOrder { client_order_id: ClientOrderId(2), ..market }.encode());
    assert!(filled(&said).is_empty(), "{said:?}");
    house.operate(&SetLimits::none(USER).encode());
    let said = house.send(&NewOrder { client_order_id: ClientOrderId(3), ..market }.encode());
    assert_eq!(filled(&said), [18_888, 1_000_000]);
}

#[test]
fn an_unknown_order_and_another_s_cannot_be_cancelled() {
    let mut house = House::open();
    house.other.submit(&order(1, AAPL, 10).encode()).unwrap();
    house.settle();
    let theirs = house.sequencer.application().orders().iter().next().unwrap().order_id;
    let reason = |said: Said| match said[..] {
        [Message::CancelRejected(rejected)] => rejected.reason,
        _ => panic!("{said:?}"),
    };
    let cancel = CancelOrder { client_order_id: ClientOrderId(77), order_id: OrderId(0) };
    assert_eq!(reason(house.send(&cancel.encode())), Reason::UnknownOrder);
    let cancel = CancelOrder { order_id: theirs, ..cancel };
    assert_eq!(reason(house.send(&cancel.encode())), Reason::WrongOwner);
    assert_eq!(house.sequencer.application().orders().len(), 1);
}
