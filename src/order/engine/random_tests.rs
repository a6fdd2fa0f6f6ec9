//! Days of random commands, and a ledger that follows them by what is said alone: after each
//! record it and the engine agree, every order ends once, every request is answered once.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::*;
use crate::order::exchange::Exchange;
use crate::order::field::{
    ClientOrderId, InstrumentId, Liquidity, MarketState, Money, OrderId, OrderType, Price,
    Quantity, Reason, ReportKind, SelfMatch, Side, TimeInForce,
};
use crate::order::messages::{
    CancelOrder, CancelRejected, Filled, KillSwitch, MassCancel, Message, NewOrder, SetLimits,
    SetMarketState, SetReference, SetVenue, VenueReport,
};
use crate::order::remote::Remote;
use crate::order::venue::Venue;
use crate::order::{Engine, Order};
use crate::sequencer::{Application, ClientId, Kind, Role};

const CLIENTS: u16 = 4;

/// A step of a day, still without a meaning.
type Dice = (u8, u16, u8, u8, u8);

fn days() -> impl Strategy<Value = Vec<Dice>> {
    let dice = (0..100_u8, 1..=CLIENTS, any::<u8>(), any::<u8>(), any::<u8>());
    prop::collection::vec(dice, 1..250)
}

/// A record to be sequenced.
type Step = (Kind, u16, Role, Option<Message>);

/// Gives dice a meaning, such that most commands are sound and hit something.
struct Player {
    names: [u64; CLIENTS as usize + 1],
    matches: u64,
    has_gateway: bool,
}

impl Player {
    fn new(has_gateway: bool) -> Self {
        Self { names: [0; CLIENTS as usize + 1], matches: 0, has_gateway }
    }

    fn name(&mut self, client: u16, stale: bool) -> ClientOrderId {
        let last = &mut self.names[usize::from(client)];
        *last += u64::from(!stale);
        ClientOrderId(*last)
    }

    fn step<V: Venue>(&mut self, desk: &Desk<V>, (kind, client, x, y, z): Dice) -> Step {
        let operator = |message: Message| (Kind::Command, OPERATOR, Role::Operator, Some(message));
        let message = match kind {
            91.. if self.has_gateway => {
                let report = self.report(desk, x, y, z);
                return (Kind::Command, GATEWAY, Role::Gateway, Some(report.into()));
            }
            50..62 => cancel_of(desk, client, y, z).into(),
            62..76 => {
                let own: Vec<_> = desk.engine.orders().of(ClientId(client)).collect();
                let original = pick(&own, y).map_or(1, |order| order.client_order_id.0);
                let ClientOrderId(name) = self.name(client, z.is_multiple_of(16));
                replace(original, name, price(x), 5 * u64::from(1 + z % 4)).into()
            }
            76..78 => MassCancel { instrument: InstrumentId(u32::from(x % 4)) }.into(),
            78..82 => return (Kind::Time, 0, Role::Trader, None),
            82..85 => return operator(random_limits(client, x, y, z).into()),
            85 => return (Kind::Disconnected, client, Role::Operator, None),
            86 => {
                let whom = ClientId(if y.is_multiple_of(4) { 0 } else { client });
                let (engaged, cancel_open) = (z.is_multiple_of(3), x.is_multiple_of(2));
                return operator(KillSwitch { client: whom, engaged, cancel_open }.into());
            }
            87 => {
                let state = match x % 8 {
                    0 => MarketState::Closed,
                    1 => MarketState::Halted,
                    _ => MarketState::Open,
                };
                let instrument = InstrumentId(u32::from(y % 4));
                return operator(SetMarketState { instrument, state }.into());
            }
            88..90 => {
                let (latency_ns, connected) = (u64::from(z % 3) * 25, !y.is_multiple_of(5));
                return operator(SetVenue { latency_ns, connected }.into());
            }
            90 => {
                let instrument = InstrumentId(1 + u32::from(y % 3));
                return operator(SetReference { price: Price(price(x)), instrument }.into());
            }
            _ => self.new_order(client, x, y, z).into(),
        };
        (Kind::Command, client, Role::Trader, Some(message))
    }

    fn new_order(&mut self, client: u16, x: u8, y: u8, z: u8) -> NewOrder {
        let (order_type, time_in_force, post_only) = match x / 16 {
            0 => (OrderType::Market, TimeInForce::Ioc, false),
            1 => (OrderType::Market, TimeInForce::Fok, false),
            2 => (OrderType::Limit, TimeInForce::Ioc, false),
            3 => (OrderType::Limit, TimeInForce::Fok, false),
            4 => (OrderType::Limit, TimeInForce::Day, true),
            5 => (OrderType::Market, TimeInForce::Day, false),
            _ => (OrderType::Limit, TimeInForce::Day, false),
        };
        NewOrder {
            client_order_id: self.name(client, z.is_multiple_of(16)),
            price: Price(price(y)),
            quantity: Quantity(if z % 8 == 1 { 3 } else { 5 * u64::from(1 + z % 4) }),
            instrument: if x % 4 < 2 { AAPL } else { GOOGL },
            side: if x.is_multiple_of(2) { Side::Buy } else { Side::Sell },
            order_type,
            time_in_force,
            post_only,
        }
    }

    /// Mostly what a venue would say of one of the open orders.
    fn report<V: Venue>(&mut self, desk: &Desk<V>, x: u8, y: u8, z: u8) -> VenueReport {
        let open: Vec<_> = desk.engine.orders().iter().collect();
        let Some(order) = pick(&open, y) else { return report(1, ReportKind::Accepted) };
        let OrderId(id) = order.order_id;
        let change = order.change;
        match x % 8 {
            0 | 1 => report(id, ReportKind::Accepted),
            2 => report(id, ReportKind::Rejected),
            3 if order.cancelling.is_some() => report(id, ReportKind::Cancelled),
            4 if let Some(change) = change => VenueReport {
                price: change.price,
                quantity: change.quantity,
                ..report(id, ReportKind::Replaced)
            },
            5 => report(id, ReportKind::CancelRejected),
            6 if z.is_multiple_of(4) => report(id, ReportKind::Cancelled),
            _ => {
                self.matches += u64::from(!z.is_multiple_of(8));
                VenueReport {
                    match_id: self.matches,
                    price: Price(price(z)),
                    quantity: Quantity(1 + u64::from(z % 9)),
                    liquidity: if z.is_multiple_of(2) {
                        Liquidity::Maker
                    } else {
                        Liquidity::Taker
                    },
                    ..report(id, ReportKind::Filled)
                }
            }
        }
    }
}

fn price(dice: u8) -> i64 {
    100 + 5 * i64::from(dice % 6)
}

fn pick<'a>(orders: &[&'a Order], dice: u8) -> Option<&'a Order> {
    orders.get(usize::from(dice).checked_rem(orders.len())?).copied()
}

fn cancel_of<V: Venue>(desk: &Desk<V>, client: u16, y: u8, z: u8) -> CancelOrder {
    let own: Vec<_> = desk.engine.orders().of(ClientId(client)).collect();
    let all: Vec<_> = desk.engine.orders().iter().collect();
    match (z % 8, pick(&own, y), pick(&all, y)) {
        (0, _, Some(any)) => {
            CancelOrder { client_order_id: ClientOrderId(0), order_id: any.order_id }
        }
        (1, ..) => cancel(u64::from(y)),
        (_, Some(own), _) => {
            let coming = own.change.filter(|_| z.is_multiple_of(2));
            cancel(coming.map_or(own.client_order_id, |change| change.client_order_id).0)
        }
        _ => cancel(u64::from(y)),
    }
}

fn random_limits(client: u16, x: u8, y: u8, z: u8) -> SetLimits {
    let maybe = |dice: u8, limit: u32| if dice.is_multiple_of(4) { limit } else { 0 };
    SetLimits {
        max_quantity: Quantity(maybe(x, 15).into()),
        max_position: Quantity(maybe(y, 40).into()),
        max_loss: Money(maybe(z / 4, 60).into()),
        credit: Money(maybe(x / 4, 9_000).into()),
        max_open_orders: maybe(y / 4, 5),
        collar_basis_points: maybe(z / 16, 1_500),
        maker_fee_ppm: -i32::from(x) * 100,
        taker_fee_ppm: i32::from(y) * 100,
        self_match: SelfMatch::ALL[usize::from(z % 3)],
        cancel_on_disconnect: x.is_multiple_of(2),
        stop_on_breach: y.is_multiple_of(2),
        ..limits(client)
    }
}

/// An order, by what was said of it.
#[derive(Debug)]
struct Known {
    client: u16,
    quantity: u64,
    filled: u64,
    accepted: bool,
    through: bool,
    /// Its client's cancels that have not been answered.
    cancels: u32,
}

#[derive(Default)]
struct Ledger {
    orders: BTreeMap<u64, Known>,
    /// Replacements that have not been answered: by client and new name, and the order meant.
    replaces: Vec<((u16, u64), Option<u64>)>,
    /// The order that the last cancel meant, when it was sent.
    meant: Option<u64>,
    positions: BTreeMap<(u16, u32), i64>,
    fees: BTreeMap<u16, i128>,
}

impl Ledger {
    /// What is sent, before the engine sees it.
    fn sent<V: Venue>(&mut self, desk: &Desk<V>, client: u16, message: &Message) {
        let orders = desk.engine.orders();
        let named = |name| orders.get_by_client(ClientId(client), name);
        match message {
            Message::NewOrder(order) => {
                let known = Known {
                    client,
                    quantity: order.quantity.0,
                    filled: 0,
                    accepted: false,
                    through: false,
                    cancels: 0,
                };
                self.orders.insert(desk.sequence + 1, known);
            }
            Message::CancelOrder(cancel) => {
                let by_id = orders.get(cancel.order_id).filter(|order| order.client.0 == client);
                let by_name = named(cancel.client_order_id);
                let target = if cancel.order_id.0 == 0 { by_name } else { by_id };
                self.meant = target.map(|order| order.order_id.0);
                if let Some(id) = self.meant {
                    self.orders.get_mut(&id).unwrap().cancels += 1;
                }
            }
            Message::ReplaceOrder(replace) => {
                let target = named(replace.original).map(|order| order.order_id.0);
                self.replaces.push(((client, replace.client_order_id.0), target));
            }
            _ => {}
        }
    }

    fn order(&mut self, client: u16, OrderId(id): OrderId) -> &mut Known {
        let known = self.orders.get_mut(&id).expect("an order that was sent");
        assert_eq!(known.client, client, "whose order it is");
        known
    }

    fn open(&mut self, client: u16, id: OrderId) -> &mut Known {
        let known = self.order(client, id);
        assert!(!known.through, "an order that is through: {id}");
        known
    }

    /// What was said.
    fn heard(&mut self, sequence: u64, client: u16, message: &Message) {
        match message {
            Message::Accepted(accepted) => {
                let known = self.open(client, accepted.order_id);
                assert!(!std::mem::replace(&mut known.accepted, true));
                assert_eq!(known.quantity, accepted.quantity.0);
            }
            Message::Rejected(rejected) if rejected.command == NewOrder::TEMPLATE_ID => {
                if rejected.order_id.0 == 0 {
                    self.orders.remove(&sequence).expect("the order that came");
                } else {
                    let known = self.open(client, rejected.order_id);
                    assert!(!known.accepted);
                    known.through = true;
                }
            }
            Message::Filled(filled) => self.filled(client, filled),
            Message::Cancelled(cancelled) => {
                let known = self.open(client, cancelled.order_id);
                assert_eq!(known.quantity - known.filled, cancelled.quantity.0);
                (known.through, known.cancels) = (true, 0);
            }
            Message::Replaced(replaced) => {
                let key = (client, replaced.client_order_id.0);
                let order = Some(replaced.order_id.0);
                let at = self.replaces.iter().position(|asked| *asked == (key, order));
                self.replaces.remove(at.expect("a replacement that was asked for"));
                let known = self.open(client, replaced.order_id);
                assert_eq!(replaced.quantity.0, known.filled + replaced.leaves.0);
                known.quantity = replaced.quantity.0;
            }
            Message::CancelRejected(rejected) => self.cancel_rejected(client, rejected),
            _ => {}
        }
    }

    fn filled(&mut self, client: u16, filled: &Filled) {
        let known = self.open(client, filled.order_id);
        assert!(known.accepted && filled.quantity.0 > 0);
        known.filled += filled.quantity.0;
        assert_eq!(known.quantity, known.filled + filled.leaves.0);
        known.through = filled.leaves.0 == 0;
        let signed = if filled.side == Side::Buy { 1 } else { -1 } * filled.quantity.0 as i64;
        *self.positions.entry((client, filled.instrument.0)).or_default() += signed;
        *self.fees.entry(client).or_default() += i128::from(filled.fee.0);
    }

    fn cancel_rejected(&mut self, client: u16, rejected: &CancelRejected) {
        if rejected.command == 3 {
            // Of two of one name, the second is refused.
            let key = (client, rejected.client_order_id.0);
            let at = self.replaces.iter().rposition(|asked| asked.0 == key);
            self.replaces.remove(at.expect("a replacement that was asked for"));
        } else if rejected.command == 2 && rejected.order_id.0 != 0 {
            let known = self.order(client, rejected.order_id);
            known.cancels = known.cancels.checked_sub(1).expect("a cancel that was asked for");
        } else if rejected.command == 2
            && let Some(id) = self.meant.take()
        {
            // What it meant was through by the time it came, or had another name.
            let known = self.orders.get_mut(&id).unwrap();
            known.cancels = known.cancels.saturating_sub(1);
        }
    }

    fn agrees_with<V: Venue>(&self, engine: &Engine<V>) {
        let orders = engine.orders();
        assert_eq!(self.orders.values().filter(|known| !known.through).count(), orders.len());
        for order in orders.iter() {
            let known = &self.orders[&order.order_id.0];
            let said = (known.client, known.quantity, known.filled, known.accepted, known.through);
            let Order { client, quantity, filled, accepted, .. } = *order;
            assert_eq!(said, (client.0, quantity.0, filled.0, accepted, false));
            assert_eq!(known.cancels > 0, order.cancelling.is_some_and(|c| c.command == 2));
            let asked = order.change.map(|change| (client.0, change.client_order_id.0));
            let is_known = |key| self.replaces.contains(&(key, Some(order.order_id.0)));
            assert!(asked.is_none_or(is_known));
        }
        assert!(self.orders.values().all(|known| known.cancels <= u32::from(!known.through)));
        let waits = |id: Option<u64>| id.is_some_and(|id| !self.orders[&id].through);
        assert!(self.replaces.iter().all(|asked| waits(asked.1)), "answered, or under way");
        for client in 1..=CLIENTS {
            let of = || orders.of(ClientId(client));
            let figures = engine.risk().figures(ClientId(client)).unwrap();
            assert_eq!(figures.open_orders, orders.open(ClientId(client)));
            assert_eq!(figures.open_orders as usize, of().count());
            for (side, reserved) in
                [(Side::Buy, figures.reserved_buys), (Side::Sell, figures.reserved_sells)]
            {
                let part = |order: &Order| {
                    i128::from(order.reserved_price.0) * i128::from(order.reserved_quantity.0)
                };
                let sum: i128 = of().filter(|order| order.side == side).map(part).sum();
                assert_eq!(reserved, sum);
            }
            assert_eq!(figures.fees, self.fees.get(&client).copied().unwrap_or(0));
            for instrument in [AAPL, GOOGL] {
                let position = self.positions.get(&(client, instrument.0)).copied().unwrap_or(0);
                assert_eq!(engine.risk().position(ClientId(client), instrument), position);
            }
        }
    }
}

fn bytes(message: Option<Message>) -> Vec<u8> {
    let mut payload = Vec::new();
    if let Some(message) = message {
        message.encode_to(&mut payload);
    }
    payload
}

fn play<V: Venue>(desk: &mut Desk<V>, ledger: &mut Ledger, step: Step) {
    let (kind, client, role, message) = step;
    if let Some(message) = &message {
        ledger.sent(desk, client, message);
    }
    let sequence = desk.sequence + 1;
    let raw = desk.record(kind, client, role as u8, &bytes(message));
    for (client, payload) in raw {
        ledger.heard(sequence, client, &Message::decode(&payload).unwrap());
    }
    ledger.agrees_with(&desk.engine);
}

fn play_day<V: Venue>(desk: &mut Desk<V>, ledger: &mut Ledger, day: Vec<Dice>, gateway: bool) {
    let mut player = Player::new(gateway);
    for dice in day {
        let step = player.step(desk, dice);
        desk.now_ns += u64::from(dice.4 % 4) * 10;
        play(desk, ledger, step);
    }
}

/// Everything is through, and nothing is left reserved.
fn is_over<V: Venue>(desk: &Desk<V>, ledger: &Ledger) {
    assert!(desk.engine.orders().is_empty());
    assert!(ledger.orders.values().all(|known| known.through && known.cancels == 0));
    assert!(ledger.replaces.is_empty());
}

/// Two engines, the second made of what the first saved, in the middle of a day.
fn saved_in_the_middle<V: Venue>(
    mut desk: Desk<V>,
    fresh: Engine<V>,
    day: Vec<Dice>,
    cut: usize,
    gateway: bool,
) {
    let mut player = Player::new(gateway);
    let (before, after) = day.split_at(cut.min(day.len()));
    let mut play = |desk: &mut Desk<V>, copy: Option<&mut Desk<V>>, dice: &Dice| {
        let (kind, client, role, message) = player.step(desk, *dice);
        desk.now_ns += u64::from(dice.4 % 4) * 10;
        let answers = desk.record(kind, client, role as u8, &bytes(message));
        if let Some(copy) = copy {
            copy.now_ns = desk.now_ns;
            assert_eq!(copy.record(kind, client, role as u8, &bytes(message)), answers);
            assert!(copy.saved() == desk.saved());
        }
    };
    for dice in before {
        play(&mut desk, None, dice);
    }
    let mut copy = Desk { engine: fresh, sequence: desk.sequence, now_ns: desk.now_ns };
    copy.engine.load(&desk.saved()).unwrap();
    assert!(copy.saved() == desk.saved());
    for dice in after {
        play(&mut desk, Some(&mut copy), dice);
    }
}

proptest! {
    #[test]
    fn days_at_an_exchange(day in days()) {
        let (mut desk, mut ledger) = (exchange(), Ledger::default());
        play_day(&mut desk, &mut ledger, day, false);
        for instrument in [AAPL, GOOGL] {
            let all = (1..=CLIENTS).map(|c| desk.engine.risk().position(ClientId(c), instrument));
            prop_assert_eq!(all.sum::<i64>(), 0, "what one bought another sold");
        }
        let line = SetVenue { latency_ns: 0, connected: true };
        play(&mut desk, &mut ledger, (Kind::Command, OPERATOR, Role::Operator, Some(line.into())));
        desk.now_ns += 1_000;
        play(&mut desk, &mut ledger, (Kind::Time, 0, Role::Trader, None));
        prop_assert_eq!(desk.engine.venue().waiting(), 0);
        prop_assert_eq!(desk.engine.venue().len(), desk.engine.orders().len());
        for client in 1..=CLIENTS {
            let all = MassCancel { instrument: InstrumentId(0) };
            let all = (Kind::Command, client, Role::Trader, Some(all.into()));
            play(&mut desk, &mut ledger, all);
        }
        is_over(&desk, &ledger);
        prop_assert_eq!(desk.engine.venue().len(), 0);
    }

    #[test]
    fn days_at_a_gateway(day in days()) {
        let (mut desk, mut ledger) = (remote(), Ledger::default());
        play_day(&mut desk, &mut ledger, day, true);
        for id in desk.open_ids() {
            let cancelled = report(id, ReportKind::Cancelled).into();
            play(&mut desk, &mut ledger, (Kind::Command, GATEWAY, Role::Gateway, Some(cancelled)));
        }
        is_over(&desk, &ledger);
    }

    #[test]
    fn an_exchanges_engine_is_saved_in_the_middle_of_a_day(day in days(), cut in 0..250_usize) {
        let fresh = Engine::new(CAPACITY, Exchange::new(8, 64));
        saved_in_the_middle(exchange(), fresh, day, cut, false);
    }

    #[test]
    fn a_gateways_engine_is_saved_in_the_middle_of_a_day(day in days(), cut in 0..250_usize) {
        let fresh = Engine::new(CAPACITY, Remote::new()).with_gateway(ClientId(GATEWAY));
        saved_in_the_middle(remote(), fresh, day, cut, true);
    }
}

#[test]
fn the_dice_reach_every_answer() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut said: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..40 {
        let dice = days().new_tree(&mut runner).unwrap().current();
        let (mut desk, mut player) = (exchange(), Player::new(false));
        for dice in dice {
            let (kind, client, role, message) = player.step(&desk, dice);
            desk.now_ns += u64::from(dice.4 % 4) * 10;
            for (_, payload) in desk.record(kind, client, role as u8, &bytes(message)) {
                let message = Message::decode(&payload).unwrap();
                let reason = match message {
                    Message::Rejected(rejected) => Some(rejected.reason),
                    Message::CancelRejected(rejected) => Some(rejected.reason),
                    _ => None,
                };
                let reason = reason.map(|reason: Reason| format!(" {reason:?}"));
                *said
                    .entry(message.name().to_owned() + &reason.unwrap_or_default())
                    .or_default() += 1;
            }
        }
    }
    for wanted in [
        "Accepted",
        "Filled",
        "Cancelled",
        "Replaced",
        "Breached",
        "CancelRejected Pending",
        "CancelRejected TooLate",
        "CancelRejected WrongOwner",
        "CancelRejected VenueDown",
        "Rejected DuplicateOrder",
        "Rejected VenueDown",
        "Rejected KillSwitch",
        "Rejected PositionLimit",
        "Rejected WouldCross",
        "Rejected LossLimit",
    ] {
        assert!(said.contains_key(wanted), "{wanted}: not among {said:?}");
    }
}

#[path = "fold_tests.rs"]
mod folds;
