//! Pre-trade risk against a naive model that adds everything up from scratch at every step.

use proptest::prelude::*;

use super::*;
use crate::sequencer::ImageReader;

const CLIENTS: u16 = 3;
const INSTRUMENTS: u32 = 4;

#[derive(Clone, Debug)]
enum Step {
    Limits { client: u16, which: u8, value: u16 },
    Reference { instrument: u32, price: i64 },
    Admit { client: u16, instrument: u32, side: Side, market: bool, price: i64, quantity: u64 },
    Replace { order: usize, price: i64, quantity: u64 },
    Release { order: usize, quantity: u64, all: bool },
    Fill { order: usize, price: i64, quantity: u64, all: bool },
    Stop { client: u16, engaged: bool },
    Reload,
}

fn step(price: BoxedStrategy<i64>, quantity: BoxedStrategy<u64>) -> impl Strategy<Value = Step> {
    let (client, instrument) = (1..=CLIENTS, 1..=INSTRUMENTS);
    let side = prop_oneof![Just(Buy), Just(Sell)];
    let order = 0..64_usize;
    prop_oneof![
        1 => (client.clone(), 0..12_u8, 0..3_000_u16)
            .prop_map(|(client, which, value)| Step::Limits { client, which, value }),
        2 => (instrument.clone(), price.clone())
            .prop_map(|(instrument, price)| Step::Reference { instrument, price }),
        12 => (client, instrument, side, any::<bool>(), price.clone(), quantity.clone()).prop_map(
            |(client, instrument, side, market, price, quantity)| {
                Step::Admit { client, instrument, side, market, price, quantity }
            }
        ),
        4 => (order.clone(), price.clone(), quantity.clone())
            .prop_map(|(order, price, quantity)| Step::Replace { order, price, quantity }),
        2 => (order.clone(), quantity.clone(), any::<bool>())
            .prop_map(|(order, quantity, all)| Step::Release { order, quantity, all }),
        8 => (order, price, quantity, any::<bool>()).prop_map(|(order, price, quantity, all)| {
            Step::Fill { order, price, quantity, all }
        }),
        1 => (0..=CLIENTS, any::<bool>())
            .prop_map(|(client, engaged)| Step::Stop { client, engaged }),
        1 => Just(Step::Reload),
    ]
}

/// Small numbers, so that limits are met again and again.
fn tame() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(step((1..40_i64).boxed(), (1..30_u64).boxed()), 1..100)
}

/// Numbers from all of the range, and its edges above all.
fn wild() -> impl Strategy<Value = Vec<Step>> {
    let prices = prop_oneof![
        any::<i64>(),
        (0..63_u32, -2..3_i64).prop_map(|(bits, more)| (1_i64 << bits).saturating_add(more)),
    ];
    let quantities = prop_oneof![
        any::<u64>(),
        (0..64_u32, 0..3_u64).prop_map(|(bits, more)| (1_u64 << bits).saturating_add(more)),
    ];
    prop::collection::vec(step(prices.boxed(), quantities.boxed()), 1..100)
}

#[derive(Clone, Copy)]
struct Order {
    client: ClientId,
    instrument: u32,
    side: Side,
    reserved: Price,
    open: u64,
    filled: u64,
}

impl Order {
    fn rest(&self, quantity: u64) -> Reserved {
        Reserved { price: self.reserved, quantity: Quantity(quantity) }
    }

    fn worth(&self) -> i128 {
        worth(self.instrument, self.reserved.0, self.open)
    }
}

struct Trade {
    client: ClientId,
    instrument: u32,
    side: Side,
    paid: i128,
    quantity: i128,
    fee: i128,
}

fn of(id: u32) -> Instrument {
    instrument(id, [1, 1, 2, 10][id as usize - 1])
}

fn worth(id: u32, price: i64, quantity: u64) -> i128 {
    i128::from(price) * i128::from(quantity) * i128::from(of(id).multiplier)
}

fn signed(side: Side, number: i128) -> i128 {
    if side == Buy { number } else { -number }
}

/// Everything that ever happened, and nothing added up.
struct Naive {
    risk: Risk,
    limits: Vec<SetLimits>,
    orders: Vec<Order>,
    trades: Vec<Trade>,
    stopped: Vec<bool>,
    now_ns: u64,
}

impl Naive {
    fn new() -> Self {
        Self {
            risk: Risk::new(CLIENTS.into(), INSTRUMENTS as usize),
            limits: (0..=CLIENTS).map(|client| SetLimits::none(ClientId(client))).collect(),
            orders: Vec::new(),
            trades: Vec::new(),
            stopped: vec![false; usize::from(CLIENTS) + 1],
            now_ns: 0,
        }
    }

    fn orders(&self, client: ClientId) -> impl Iterator<Item = &Order> {
        self.orders.iter().filter(move |order| order.client == client && order.open != 0)
    }

    fn position(&self, client: ClientId, id: u32) -> i128 {
        let own = self.trades.iter().filter(|t| (t.client, t.instrument) == (client, id));
        own.map(|trade| signed(trade.side, trade.quantity)).sum()
    }

    fn open(&self, client: ClientId, id: u32, side: Side) -> i128 {
        let own = self.orders(client).filter(|o| (o.instrument, o.side) == (id, side));
        own.map(|order| i128::from(order.open)).sum()
    }

    fn reserved(&self, client: ClientId, side: Side) -> i128 {
        self.orders(client).filter(|order| order.side == side).map(Order::worth).sum()
    }

    /// What a unit of an instrument is worth to a client: the only thing taken from `Risk`.
    fn mark(&self, client: ClientId, id: u32) -> i128 {
        let at = self.risk.at(client, InstrumentId(id)).unwrap();
        self.risk.holdings[at.holding].unit.into()
    }

    fn held(&self, client: ClientId) -> i128 {
        let worth = |id| self.position(client, id).abs() * self.mark(client, id);
        (1..=INSTRUMENTS).map(worth).sum()
    }

    fn paid(&self, client: ClientId) -> i128 {
        let own = self.trades.iter().filter(|trade| trade.client == client);
        own.map(|trade| signed(trade.side, trade.paid)).sum()
    }

    fn fees(&self, client: ClientId) -> i128 {
        self.trades.iter().filter(|trade| trade.client == client).map(|trade| trade.fee).sum()
    }

    fn profit(&self, client: ClientId) -> i128 {
        let value = |id| self.position(client, id) * self.mark(client, id);
        let value: i128 = (1..=INSTRUMENTS).map(value).sum();
        value - self.paid(client) - self.fees(client)
    }

    /// What an order, in place of `old` or new, has to be answered with; marks being as they are
    /// after it was judged. For numbers that fit.
    fn judge(
        &self,
        order: &Order,
        total: u64,
        old: Option<&Order>,
        market: bool,
    ) -> Option<Reason> {
        let client = order.client;
        let limits = &self.limits[usize::from(client.0)];
        let beyond = |limit: i64, value: i128| limit != 0 && value > limit.into();
        if self.stopped[0] || self.stopped[usize::from(client.0)] {
            return Some(Reason::KillSwitch);
        }
        if old.is_some_and(|old| old.reserved == order.reserved && order.open <= old.open) {
            return None;
        }
        if limits.max_quantity.0 != 0 && total > limits.max_quantity.0 {
            return Some(Reason::MaxQuantity);
        }
        let reference = self.risk.reference(InstrumentId(order.instrument));
        let money = [limits.max_notional, limits.max_gross, limits.credit];
        let needed = limits.collar_basis_points != 0 || money.iter().any(|money| money.0 != 0);
        if market && needed && reference.is_none() {
            return Some(Reason::StaleReference);
        }
        if beyond(limits.max_notional.0, worth(order.instrument, order.reserved.0, total)) {
            return Some(Reason::MaxNotional);
        }
        if !market && limits.collar_basis_points != 0 {
            let Some(Price(reference)) = reference else { return Some(Reason::StaleReference) };
            let away = (order.reserved.0 - reference).abs() * 10_000;
            if away > reference * i64::from(limits.collar_basis_points) {
                return Some(Reason::PriceCollar);
            }
        }
        let open_orders = self.orders(client).count() as i128;
        if old.is_none() && beyond(limits.max_open_orders.into(), open_orders + 1) {
            return Some(Reason::OpenOrders);
        }
        let old_open = old.map_or(0, |old| old.open.into());
        let old_worth = old.map_or(0, Order::worth);
        let open = self.open(client, order.instrument, order.side) - old_open;
        let position = signed(order.side, self.position(client, order.instrument));
        let worst = position + open + i128::from(order.open);
        let larger = i128::from(order.open) > old_open;
        if larger && beyond(limits.max_position.0 as i64, worst) {
            return Some(Reason::PositionLimit);
        }
        let (buys, sells) = (self.reserved(client, Buy), self.reserved(client, Sell));
        let more = order.worth() - old_worth;
        if worst > 0 && more > 0 {
            if beyond(limits.max_gross.0, self.held(client) + buys + sells + more) {
                return Some(Reason::GrossExposure);
            }
            let used = self.paid(client) + buys + more;
            if order.side == Buy && beyond(limits.credit.0, used) {
                return Some(Reason::Credit);
            }
        }
        let breached = self.risk.figures(client).unwrap().breached;
        let lost = breached || beyond(limits.max_loss.0, -self.profit(client));
        lost.then_some(Reason::LossLimit)
    }

    /// That what `Risk` has kept up is what has come together.
    fn compare(&self) {
        for client in (1..=CLIENTS).map(ClientId) {
            let figures = self.risk.figures(client).unwrap();
            let (buys, sells) = (self.reserved(client, Buy), self.reserved(client, Sell));
            assert_eq!(figures.open_orders as usize, self.orders(client).count());
            assert_eq!((figures.reserved_buys, figures.reserved_sells), (buys, sells));
            assert_eq!(figures.gross, self.held(client) + buys + sells);
            assert_eq!(figures.credit_used, self.paid(client) + buys);
            assert_eq!(figures.profit, self.profit(client));
            assert_eq!(figures.fees, self.fees(client));
            for id in 1..=INSTRUMENTS {
                let at = self.risk.at(client, InstrumentId(id)).unwrap();
                let holding = &self.risk.holdings[at.holding];
                let open = [Buy, Sell].map(|side| self.open(client, id, side));
                assert_eq!(holding.open.map(i128::from), open);
                let position = self.risk.position(client, InstrumentId(id));
                assert_eq!(i128::from(position), self.position(client, id));
                assert_eq!(holding.slot == 0, holding.is_flat());
                assert!(holding.slot != 0 || *holding == Holding::NONE);
            }
        }
        for id in 1..=INSTRUMENTS {
            let uses = |client| {
                let open = [Buy, Sell].iter().any(|&side| self.open(client, id, side) != 0);
                open || self.position(client, id) != 0
            };
            let used = (1..=CLIENTS).map(ClientId).any(uses);
            assert_eq!(self.risk.in_use(InstrumentId(id)), used);
        }
    }

    fn apply(&mut self, step: &Step, oracle: bool) {
        self.now_ns += 1;
        match *step {
            Step::Limits { client, which, value } => self.limit(client, which, value),
            Step::Reference { instrument, price } => {
                self.risk.set_reference(InstrumentId(instrument), Price(price), self.now_ns);
            }
            Step::Admit { client, instrument, side, market, price, quantity } => {
                let client = ClientId(client);
                let order_type = if market { OrderType::Market } else { OrderType::Limit };
                let (price, quantity) = (Price(price), Quantity(quantity));
                let intent = Intent { client, side, order_type, price, quantity };
                self.admit(instrument, &intent, oracle);
            }
            Step::Replace { order, price, quantity } => {
                self.replace(order, Price(price), quantity, oracle);
            }
            Step::Release { order, quantity, all } => {
                let Some((at, old, quantity)) = self.pick(order, quantity, all) else { return };
                let last = quantity == old.open;
                let rest = old.rest(quantity);
                self.risk.release(&of(old.instrument), old.client, old.side, rest, last);
                self.orders[at].open -= quantity;
            }
            Step::Fill { order, price, quantity, all } => {
                self.fill(order, Price(price), quantity, all);
            }
            Step::Stop { client, engaged } => {
                self.risk.stop(ClientId(client), engaged);
                self.stopped[usize::from(client)] = engaged;
            }
            Step::Reload => self.reload(),
        }
    }

    /// One of the limits is set, the others stay.
    fn limit(&mut self, client: u16, which: u8, value: u16) {
        let limits = &mut self.limits[usize::from(client)];
        let (number, money) = (u32::from(value), Money(value.into()));
        match which {
            0 => limits.max_quantity = Quantity(u64::from(value) / 100),
            1 => limits.max_notional = money,
            2 => limits.max_position = Quantity(u64::from(value) / 20),
            3 => limits.max_gross = Money(money.0 * 4),
            4 => limits.credit = money,
            5 => limits.max_loss = money,
            6 => limits.max_open_orders = number / 300,
            7 => limits.collar_basis_points = number * 2,
            8 => limits.maker_fee_ppm = i32::from(value) * -10,
            9 => limits.taker_fee_ppm = i32::from(value) * 20,
            10 => limits.stop_on_breach = value > 1_500,
            _ => *limits = SetLimits::none(ClientId(client)),
        }
        self.risk.set_limits(limits).unwrap();
    }

    fn admit(&mut self, id: u32, intent: &Intent, oracle: bool) {
        let answer = self.risk.admit(self.now_ns, &of(id), intent);
        let market = intent.order_type == OrderType::Market;
        let mut order = Order {
            client: intent.client,
            instrument: id,
            side: intent.side,
            reserved: intent.price,
            open: intent.quantity.0,
            filled: 0,
        };
        if market {
            // Where it counts is a test of its own; here it counts where it was said to.
            let collar = self.limits[usize::from(intent.client.0)].collar_basis_points;
            let Price(reference) = self.risk.reference(InstrumentId(id)).unwrap_or_default();
            let top = i128::from(reference) * i128::from(collar);
            let more = if intent.side == Buy { (top + 9_999) / 10_000 } else { 0 };
            order.reserved = Price(reference.saturating_add(more as i64));
        }
        if oracle {
            // Judged before it is among the orders; its reservation does not touch the marks.
            let wanted = self.judge(&order, order.open, None, market);
            assert_eq!(answer, wanted.map_or(Ok(order.reserved), Err), "{intent:?}");
        }
        if let Ok(price) = answer {
            order.reserved = price;
            self.orders.push(order);
        }
    }

    fn replace(&mut self, order: usize, price: Price, open: u64, oracle: bool) {
        let Some((at, old, _)) = self.pick(order, 1, true) else { return };
        let Some(total) = open.checked_add(old.filled) else { return };
        let new = Order { reserved: price, open, ..old };
        let (now_ns, instrument) = (self.now_ns, of(old.instrument));
        let (was, is, total) = (old.rest(old.open), new.rest(open), Quantity(total));
        let answer = self.risk.readmit(now_ns, &instrument, old.client, old.side, was, is, total);
        if oracle {
            let wanted = self.judge(&new, total.0, Some(&old), false);
            assert_eq!(answer.err(), wanted);
        }
        if answer.is_ok() {
            self.orders[at] = new;
        }
    }

    /// An open order, and how much of it.
    fn pick(&self, order: usize, quantity: u64, all: bool) -> Option<(usize, Order, u64)> {
        let open: Vec<usize> =
            (0..self.orders.len()).filter(|&at| self.orders[at].open != 0).collect();
        let at = *open.get(order % open.len().max(1))?;
        let order = self.orders[at];
        Some((at, order, if all { order.open } else { quantity.clamp(1, order.open) }))
    }

    fn fill(&mut self, order: usize, price: Price, quantity: u64, all: bool) {
        let Some((at, old, quantity)) = self.pick(order, quantity, all) else { return };
        let instrument = of(old.instrument);
        let Some(Money(paid)) = instrument.notional(price, Quantity(quantity)) else { return };
        let last = quantity == old.open;
        let (client, side) = (old.client, old.side);
        let quantity = Quantity(quantity);
        let liquidity = if at % 2 == 0 { Liquidity::Maker } else { Liquidity::Taker };
        let before = self.risk.figures(client).unwrap().breached;
        let fill = self.risk.fill(
            self.now_ns,
            &instrument,
            client,
            side,
            old.reserved,
            price,
            quantity,
            liquidity,
            last,
        );
        self.orders[at].open -= quantity.0;
        self.orders[at].filled += quantity.0;
        self.trades.push(Trade {
            client,
            instrument: old.instrument,
            side,
            paid: paid.into(),
            quantity: quantity.0.into(),
            fee: fill.fee.0.into(),
        });
        let limits = &self.limits[usize::from(client.0)];
        let lost = -self.profit(client);
        let broken = limits.max_loss.0 != 0 && lost > limits.max_loss.0.into();
        let said = fill.breached.map(|breached| i128::from(breached.value.0));
        let value = lost.min(i64::MAX.into());
        assert_eq!(said, (broken && !before).then_some(value), "once, and exactly");
        if said.is_some() && limits.stop_on_breach {
            self.stopped[usize::from(client.0)] = true;
        }
    }

    /// The saved state, loaded into larger tables, goes on in place of the other.
    fn reload(&mut self) {
        let (mut saved, mut again) = (Vec::new(), Vec::new());
        self.risk.save(&mut saved);
        let mut loaded = Risk::new(usize::from(CLIENTS) + 2, INSTRUMENTS as usize + 3);
        let mut image = ImageReader::new(&saved);
        loaded.load(&mut image).unwrap();
        image.finish("nothing more").unwrap();
        loaded.save(&mut again);
        assert_eq!(saved, again);
        self.risk = loaded;
    }

    fn run(steps: &[Step], oracle: bool) {
        let mut naive = Self::new();
        for step in steps {
            naive.apply(step, oracle);
            naive.compare();
        }
        // Everything that is open is taken back: nothing remains reserved.
        while naive.pick(0, 1, true).is_some() {
            naive.apply(&Step::Release { order: 0, quantity: 1, all: true }, oracle);
        }
        naive.compare();
        for client in (1..=CLIENTS).map(ClientId) {
            let figures = naive.risk.figures(client).unwrap();
            let none = (figures.open_orders, figures.reserved_buys, figures.reserved_sells);
            assert_eq!(none, (0, 0, 0));
        }
        let open = |holding: &Holding| holding.open != [0; 2];
        assert!(!naive.risk.holdings.iter().any(open));
        naive.reload();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn each_answer_and_each_figure_is_that_of_a_sum_from_scratch(steps in tame()) {
        Naive::run(&steps, true);
    }

    #[test]
    fn nothing_wraps_or_panics_whatever_the_numbers(steps in wild()) {
        Naive::run(&steps, false);
    }

    #[test]
    fn the_rate_is_kept_in_every_second_and_even_sending_at_it_passes(
        per_second in 1..50_u32,
        gaps_ns in prop::collection::vec(0..SECOND / 20, 1..400),
    ) {
        let mut desk = limited(|limits| limits.max_orders_per_second = per_second);
        let mut passed = Vec::new();
        for gap_ns in gaps_ns {
            desk.now_ns += gap_ns;
            if desk.send(Buy, 1, 1).is_ok() {
                passed.push(desk.now_ns);
            }
        }
        let most = 2 * per_second as usize - 1;
        for window in passed.windows(most + 1) {
            prop_assert!(window[most] - window[0] >= SECOND, "{most} in less than a second");
        }
        desk.now_ns += SECOND;
        for _ in 0..per_second * 2 {
            prop_assert!(desk.send(Buy, 1, 1).is_ok());
            desk.now_ns += SECOND.div_ceil(per_second.into());
        }
    }
}
