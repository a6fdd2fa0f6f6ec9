//! A desk to test engines at; who may send what; bytes that are no message; saved states.

use proptest::prelude::*;

use super::super::exchange::Exchange;
use super::super::field::{
    ClientOrderId, MarketState, OrderType, Price, Quantity, Side, Symbol, TimeInForce,
};
use super::super::messages::{
    CancelOrder, DefineInstrument, KillSwitch, MassCancel, NewOrder, ReplaceOrder, SetLimits,
    SetMarketState, SetReference, SetVenue, VenueReport,
};
use super::super::{Liquidity, OrderId, Remote, ReportKind};
use super::*;

pub(super) const AAPL: InstrumentId = InstrumentId(1);
/// In lots of five.
pub(super) const GOOGL: InstrumentId = InstrumentId(2);
/// Defined by nobody.
pub(super) const NOTHING: InstrumentId = InstrumentId(4);
pub(super) const OPERATOR: u16 = 9;
pub(super) const GATEWAY: u16 = 8;
pub(super) const CAPACITY: Capacity = Capacity { clients: 9, instruments: 8, orders: 64 };

/// An engine that is fed like a sequencer's, and the events it answers with.
pub(super) struct Desk<V> {
    pub(super) engine: Engine<V>,
    pub(super) sequence: u64,
    pub(super) now_ns: u64,
}

pub(super) type Answers = Vec<(u16, Message)>;

/// A desk in front of an exchange.
pub(super) fn exchange() -> Desk<Exchange> {
    Desk::open(Engine::new(CAPACITY, Exchange::new(8, 64)))
}

/// A desk in front of a gateway.
pub(super) fn remote() -> Desk<Remote> {
    Desk::open(Engine::new(CAPACITY, Remote::new()).with_gateway(ClientId(GATEWAY)))
}

impl<V: Venue> Desk<V> {
    /// With two instruments that are open.
    pub(super) fn open(engine: Engine<V>) -> Self {
        let mut desk = Self { engine, sequence: 0, now_ns: 1_000 };
        assert_eq!(desk.operate(define(AAPL, "AAPL", 1)), []);
        assert_eq!(desk.operate(define(GOOGL, "GOOGL", 5)), []);
        desk
    }

    pub(super) fn record(
        &mut self,
        kind: Kind,
        client: u16,
        code: u8,
        payload: &[u8],
    ) -> Vec<(u16, Vec<u8>)> {
        self.sequence += 1;
        let record = Record {
            sequence: self.sequence,
            kind,
            code,
            client: ClientId(client),
            term: 1,
            reference: 0,
            sent_ns: 0,
            time_ns: self.now_ns,
            payload,
        };
        let mut events = Events::new();
        self.engine.apply(&record, &mut events);
        self.sequence += events.len() as u64;
        events.iter().map(|(client, payload)| (client.0, payload.to_vec())).collect()
    }

    fn read(events: Vec<(u16, Vec<u8>)>) -> Answers {
        let read = |(client, payload): (u16, Vec<u8>)| {
            (client, Message::decode(&payload).expect("events are messages"))
        };
        events.into_iter().map(read).collect()
    }

    pub(super) fn command(
        &mut self,
        client: u16,
        role: Role,
        message: impl Into<Message>,
    ) -> Answers {
        let mut payload = Vec::new();
        message.into().encode_to(&mut payload);
        Self::read(self.record(Kind::Command, client, role as u8, &payload))
    }

    pub(super) fn send(&mut self, client: u16, message: impl Into<Message>) -> Answers {
        self.command(client, Role::Trader, message)
    }

    pub(super) fn operate(&mut self, message: impl Into<Message>) -> Answers {
        self.command(OPERATOR, Role::Operator, message)
    }

    pub(super) fn report(&mut self, message: VenueReport) -> Answers {
        self.command(GATEWAY, Role::Gateway, message)
    }

    pub(super) fn at(&mut self, now_ns: u64) -> Answers {
        self.now_ns = now_ns;
        Self::read(self.record(Kind::Time, 0, 0, &[]))
    }

    pub(super) fn gone(&mut self, client: u16) -> Answers {
        Self::read(self.record(Kind::Disconnected, client, 1, &[]))
    }

    pub(super) fn here(&mut self, client: u16) -> Answers {
        Self::read(self.record(Kind::Connected, client, 0, &[]))
    }

    pub(super) fn saved(&self) -> Vec<u8> {
        let mut saved = Vec::new();
        self.engine.save(&mut saved);
        saved
    }

    /// The id of the order that was sent last, if it was the only record since.
    pub(super) fn open_ids(&self) -> Vec<u64> {
        self.engine.orders().iter().map(|order| order.order_id.0).collect()
    }
}

pub(super) fn define(instrument: InstrumentId, symbol: &str, lot: u64) -> DefineInstrument {
    DefineInstrument {
        symbol: Symbol::new(symbol).unwrap(),
        tick: Price(5),
        lot: Quantity(lot),
        multiplier: 1,
        reference: Price(0),
        instrument,
        price_exponent: -2,
        state: MarketState::Open,
    }
}

/// A limit order of AAPL for the day.
pub(super) fn order(id: u64, side: Side, price: i64, quantity: u64) -> NewOrder {
    NewOrder {
        client_order_id: ClientOrderId(id),
        price: Price(price),
        quantity: Quantity(quantity),
        instrument: AAPL,
        side,
        order_type: OrderType::Limit,
        time_in_force: TimeInForce::Day,
        post_only: false,
    }
}

pub(super) fn cancel(id: u64) -> CancelOrder {
    CancelOrder { client_order_id: ClientOrderId(id), order_id: OrderId(0) }
}

pub(super) fn replace(original: u64, id: u64, price: i64, quantity: u64) -> ReplaceOrder {
    ReplaceOrder {
        client_order_id: ClientOrderId(id),
        original: ClientOrderId(original),
        price: Price(price),
        quantity: Quantity(quantity),
    }
}

/// No limits but those that are set.
pub(super) fn limits(client: u16) -> SetLimits {
    SetLimits::none(ClientId(client))
}

/// What a gateway brings, of a kind that needs no more.
pub(super) fn report(order_id: u64, kind: ReportKind) -> VenueReport {
    VenueReport {
        order_id: OrderId(order_id),
        match_id: 0,
        price: Price(0),
        quantity: Quantity(0),
        kind,
        liquidity: Liquidity::Taker,
        reason: Reason::VenueRejected,
    }
}

/// What happened to whom, without the details.
pub(super) fn names(answers: &Answers) -> Vec<(u16, &'static str)> {
    answers.iter().map(|(client, message)| (*client, message.name())).collect()
}

/// To whom a refusal went, and why; of a new order, a command or a cancel.
#[track_caller]
pub(super) fn refusal(answers: &Answers) -> (u16, Reason) {
    match answers[..] {
        [(client, Message::Rejected(rejected))] => (client, rejected.reason),
        [(client, Message::CancelRejected(rejected))] => (client, rejected.reason),
        _ => panic!("no refusal: {answers:?}"),
    }
}

fn every_command() -> [Message; 11] {
    let id = ClientId(1);
    [
        order(1, Side::Buy, 100, 1).into(),
        cancel(1).into(),
        replace(1, 2, 100, 1).into(),
        MassCancel { instrument: AAPL }.into(),
        define(InstrumentId(3), "MSFT", 1).into(),
        SetMarketState { instrument: AAPL, state: MarketState::Open }.into(),
        KillSwitch { client: id, engaged: false, cancel_open: false }.into(),
        limits(1).into(),
        SetReference { price: Price(100), instrument: AAPL }.into(),
        SetVenue { latency_ns: 0, connected: true }.into(),
        report(1, ReportKind::Accepted).into(),
    ]
}

#[test]
fn roles_may_send_what_is_theirs() {
    let rows = [(Role::Trader, 0..4), (Role::Operator, 0..10), (Role::Gateway, 10..11)];
    for (role, allowed) in rows {
        for (index, command) in every_command().into_iter().enumerate() {
            let answers = remote().command(GATEWAY, role, command);
            let refused = answers.iter().any(|answer| {
                matches!(answer.1, Message::Rejected(r) if r.reason == Reason::NotAuthorised)
            });
            assert_eq!(refused, !allowed.contains(&index), "{role:?} {command:?}");
        }
    }
    let mut desk = remote();
    let mut payload = Vec::new();
    desk.send(1, order(7, Side::Buy, 100, 1))[0].1.encode_to(&mut payload);
    let answers = Desk::<Remote>::read(desk.record(Kind::Command, 1, 1, &payload));
    assert_eq!(refusal(&answers), (1, Reason::NotAuthorised), "an event is no command");
    let answers = Desk::<Remote>::read(desk.record(Kind::Command, 1, 77, &payload));
    assert_eq!(refusal(&answers), (1, Reason::NotAuthorised), "a role that there is not");
}

#[test]
fn only_the_engines_own_gateway_brings_reports() {
    let mut desk = remote();
    desk.send(1, order(1, Side::Buy, 100, 1));
    let accepted = report(desk.open_ids()[0], ReportKind::Accepted);
    let other = desk.command(7, Role::Gateway, accepted);
    assert_eq!(refusal(&other), (7, Reason::NotAuthorised));
    assert_eq!(names(&desk.report(accepted)), [(1, "Accepted")]);
    let mut desk = exchange();
    assert_eq!(refusal(&desk.report(accepted)), (GATEWAY, Reason::NotAuthorised));
}

#[test]
fn a_refused_command_is_named() {
    let mut desk = exchange();
    let answers = desk.command(3, Role::Gateway, order(41, Side::Buy, 100, 1));
    let rejected = Rejected {
        client_order_id: ClientOrderId(41),
        order_id: OrderId(0),
        instrument: AAPL,
        command: 1,
        reason: Reason::NotAuthorised,
    };
    assert_eq!(answers, [(3, rejected.into())]);
    // What the role does not allow uses up no id.
    assert_eq!(names(&desk.send(3, order(41, Side::Buy, 100, 1))), [(3, "Accepted")]);

    let bytes = order(42, Side::Buy, 100, 1).encode();
    let mut damaged = |at: usize, value: u8| {
        let mut bytes = bytes;
        bytes[at] = value;
        let answers = Desk::<Exchange>::read(desk.record(Kind::Command, 3, 0, &bytes));
        let [(3, Message::Rejected(rejected))] = answers[..] else { panic!("{answers:?}") };
        (rejected.command, rejected.reason)
    };
    assert_eq!(damaged(36, 3), (1, Reason::InvalidSide));
    assert_eq!(damaged(37, 9), (1, Reason::Malformed));
    assert_eq!(damaged(2, 200), (200, Reason::Malformed));
    assert_eq!(damaged(4, 0), (0, Reason::Malformed), "another schema's template means nothing");
    assert_eq!(damaged(0, 255), (1, Reason::Malformed));
}

#[test]
fn what_is_no_engine_leaves_a_new_one() {
    let mut desk = exchange();
    let blank = {
        let mut blank = Vec::new();
        Engine::new(CAPACITY, Exchange::new(8, 64)).save(&mut blank);
        blank
    };
    desk.send(1, order(1, Side::Buy, 100, 3));
    desk.send(2, order(1, Side::Sell, 100, 1));
    let saved = desk.saved();
    for length in 0..saved.len() {
        assert!(desk.engine.load(&saved[..length]).is_err(), "{length}");
        assert!(desk.saved() == blank, "{length}");
        desk.engine.load(&saved).unwrap();
    }
    let longer = [&saved[..], &[0]].concat();
    assert!(desk.engine.load(&longer).is_err());
    let other = [&[9], &saved[1..]].concat();
    assert!(desk.engine.load(&other).is_err());
    assert!(desk.saved() == blank);
}

/// What another engine would do with a state depends on its capacity and its gateway as well.
#[test]
fn an_engine_of_another_capacity_or_gateway_is_not_loaded() {
    let Capacity { clients, instruments, orders } = CAPACITY;
    let saved = remote().saved();
    let engine = |capacity, gateway| {
        Engine::new(capacity, Remote::new()).with_gateway(ClientId(gateway)).load(&saved)
    };
    assert!(engine(CAPACITY, GATEWAY).is_ok());
    assert!(engine(CAPACITY, 7).is_err());
    assert!(engine(Capacity { clients: clients + 1, ..CAPACITY }, GATEWAY).is_err());
    assert!(engine(Capacity { instruments: instruments + 1, ..CAPACITY }, GATEWAY).is_err());
    assert!(engine(Capacity { orders: orders + 1, ..CAPACITY }, GATEWAY).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_answered_once(
        role in 0..4_u8,
        client in 0..12_u16,
        bytes in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut desk = exchange();
        let answers = Desk::<Exchange>::read(desk.record(Kind::Command, client, role, &bytes));
        if Message::decode(&bytes).is_err() {
            prop_assert_eq!(refusal(&answers).0, client);
        }
    }

    #[test]
    fn damaged_commands_are_answered_once(
        role in 0..4_u8,
        which in 0..11_usize,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        long in 0..16_u16,
    ) {
        let mut desk = remote();
        desk.send(1, order(1, Side::Buy, 100, 10));
        let mut payload = Vec::new();
        every_command()[which].encode_to(&mut payload);
        payload.resize(payload.len() + usize::from(long), 0);
        for (at, value) in damage {
            let at = at.index(payload.len());
            payload[at] = value;
        }
        let events = desk.record(Kind::Command, GATEWAY, role, &payload);
        let answers = Desk::<Remote>::read(events);
        match Message::decode(&payload) {
            Err(_) => prop_assert_eq!(refusal(&answers).0, GATEWAY),
            Ok(Message::NewOrder(_) | Message::CancelOrder(_) | Message::ReplaceOrder(_)) => {
                prop_assert_eq!(answers.len(), 1);
            }
            Ok(_) => prop_assert!(answers.len() <= 1),
        }
    }

    #[test]
    fn damaged_states_are_refused_or_loaded(
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
    ) {
        let mut desk = exchange();
        desk.send(1, order(1, Side::Buy, 100, 3));
        desk.send(2, order(1, Side::Sell, 100, 1));
        let mut saved = desk.saved();
        let at = at.index(saved.len());
        saved[at] ^= 1_u8 << bit;
        if desk.engine.load(&saved).is_ok() {
            prop_assert!(desk.saved() == saved);
        }
    }
}
