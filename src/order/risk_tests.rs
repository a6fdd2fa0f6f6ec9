//! Tests of pre-trade risk: each check by name, at its limit and one beyond.

use super::*;
use crate::order::field::{MarketState, Symbol};
use Side::{Buy, Sell};

#[path = "risk_live_tests.rs"]
mod live;
#[path = "risk_model_tests.rs"]
mod model;

const SECOND: u64 = 1_000_000_000;
const MILLISECOND: u64 = 1_000_000;
const CLIENT: ClientId = ClientId(1);
const OTHER: ClientId = ClientId(2);

fn instrument(id: u32, multiplier: u64) -> Instrument {
    Instrument {
        id: InstrumentId(id),
        symbol: Symbol::new("TEST").unwrap(),
        tick: Price(1),
        lot: Quantity(1),
        multiplier,
        price_exponent: -2,
        state: MarketState::Open,
    }
}

/// Risk with one client, and the time.
struct Desk {
    risk: Risk,
    now_ns: u64,
}

/// With these limits, and a multiplier of 1 throughout.
fn limited(change: impl FnOnce(&mut SetLimits)) -> Desk {
    let mut desk = Desk { risk: Risk::new(4, 8), now_ns: 0 };
    desk.set(change);
    desk
}

impl Desk {
    fn set(&mut self, change: impl FnOnce(&mut SetLimits)) {
        let mut message = SetLimits::none(CLIENT);
        change(&mut message);
        self.risk.set_limits(&message).unwrap();
    }

    fn send(&mut self, side: Side, price: i64, quantity: u64) -> Result<Price, Reason> {
        self.send_in(1, side, price, quantity)
    }

    fn send_in(&mut self, id: u32, side: Side, price: i64, quantity: u64) -> Result<Price, Reason> {
        let order_type = OrderType::Limit;
        let (price, quantity) = (Price(price), Quantity(quantity));
        let order = Intent { client: CLIENT, side, order_type, price, quantity };
        self.risk.admit(self.now_ns, &instrument(id, 1), &order)
    }

    fn market(&mut self, side: Side, quantity: u64) -> Result<Price, Reason> {
        let (order_type, price, quantity) =
            (OrderType::Market, Price(i64::MIN), Quantity(quantity));
        let order = Intent { client: CLIENT, side, order_type, price, quantity };
        self.risk.admit(self.now_ns, &instrument(1, 1), &order)
    }

    /// Replaces what was all of an order.
    fn replace(&mut self, side: Side, old: (i64, u64), new: (i64, u64)) -> Result<(), Reason> {
        let [old, new] = [old, new].map(reserved);
        let one = instrument(1, 1);
        self.risk.readmit(self.now_ns, &one, CLIENT, side, old, new, new.quantity)
    }

    fn release(&mut self, side: Side, price: i64, quantity: u64) {
        self.risk.release(&instrument(1, 1), CLIENT, side, reserved((price, quantity)), true);
    }

    fn fill(&mut self, id: u32, side: Side, reserved: i64, price: i64, quantity: u64) -> Fill {
        let (now_ns, one, quantity) = (self.now_ns, instrument(id, 1), Quantity(quantity));
        let (at, price) = (Price(reserved), Price(price));
        self.risk.fill(now_ns, &one, CLIENT, side, at, price, quantity, Liquidity::Taker, true)
    }

    /// Sends and fills at once.
    fn trade(&mut self, id: u32, side: Side, price: i64, quantity: u64) -> Fill {
        self.send_in(id, side, price, quantity).unwrap();
        self.fill(id, side, price, price, quantity)
    }

    fn reference(&mut self, id: u32, price: i64) {
        self.risk.set_reference(InstrumentId(id), Price(price), self.now_ns);
    }

    fn figures(&self) -> Figures {
        self.risk.figures(CLIENT).unwrap()
    }

    fn saved(&self) -> Vec<u8> {
        let mut saved = Vec::new();
        self.risk.save(&mut saved);
        saved
    }
}

fn reserved((price, quantity): (i64, u64)) -> Reserved {
    Reserved { price: Price(price), quantity: Quantity(quantity) }
}

#[test]
fn an_order_beyond_the_largest_quantity_is_rejected() {
    let mut desk = limited(|limits| limits.max_quantity = Quantity(10));
    assert_eq!(desk.send(Buy, 5, 11), Err(Reason::MaxQuantity));
    assert_eq!(desk.market(Sell, 11), Err(Reason::MaxQuantity));
    assert_eq!(desk.send(Buy, 5, 10), Ok(Price(5)));
    // Of a replacement the total counts, what has been filled included.
    let (old, new, one) = (reserved((5, 10)), reserved((6, 9)), instrument(1, 1));
    let mut replace = |total| desk.risk.readmit(0, &one, CLIENT, Buy, old, new, Quantity(total));
    assert_eq!(replace(11), Err(Reason::MaxQuantity));
    assert_eq!(replace(10), Ok(()));
}

#[test]
fn an_order_worth_more_than_the_largest_notional_is_rejected() {
    let mut desk = limited(|limits| limits.max_notional = Money(1_000));
    assert_eq!(desk.send(Sell, 91, 11), Err(Reason::MaxNotional));
    assert_eq!(desk.send(Sell, 100, 10), Ok(Price(100)));
    let three = instrument(2, 3);
    let mut order = Intent {
        client: CLIENT,
        side: Buy,
        order_type: OrderType::Limit,
        price: Price(111),
        quantity: Quantity(3),
    };
    assert_eq!(desk.risk.admit(0, &three, &order), Ok(Price(111)), "999");
    order.price = Price(112);
    assert_eq!(desk.risk.admit(0, &three, &order), Err(Reason::MaxNotional), "1,008");
}

#[test]
fn a_price_outside_the_collar_is_rejected_either_way() {
    let mut desk = limited(|limits| limits.collar_basis_points = 250);
    desk.reference(1, 1_000);
    for side in [Buy, Sell] {
        assert_eq!(desk.send(side, 974, 1), Err(Reason::PriceCollar));
        assert_eq!(desk.send(side, 975, 1), Ok(Price(975)));
        assert_eq!(desk.send(side, 1_025, 1), Ok(Price(1_025)));
        assert_eq!(desk.send(side, 1_026, 1), Err(Reason::PriceCollar));
    }
    assert_eq!(desk.replace(Buy, (975, 1), (1_026, 1)), Err(Reason::PriceCollar));
    assert_eq!(desk.replace(Buy, (975, 1), (1_025, 1)), Ok(()));
    desk.reference(1, i64::MAX);
    assert_eq!(desk.send(Buy, 1, 1), Err(Reason::PriceCollar));
}

#[test]
fn a_market_order_counts_at_the_reference_and_a_buy_at_the_top_of_its_collar() {
    let mut desk = limited(|limits| limits.collar_basis_points = 250);
    desk.reference(1, 999);
    assert_eq!(desk.market(Buy, 2), Ok(Price(1_024)), "1,023.975 rounded up");
    assert_eq!(desk.market(Sell, 2), Ok(Price(999)));
    assert_eq!(desk.figures().gross, 2 * 1_024 + 2 * 999);
    desk.reference(1, i64::MAX);
    assert_eq!(desk.market(Buy, 1), Err(Reason::InvalidPrice));
}

#[test]
fn a_reference_that_is_missing_or_too_old_is_stale_where_one_is_needed() {
    type Change = fn(&mut SetLimits);
    let changes: [(Change, bool); 5] = [
        (|limits| limits.collar_basis_points = 100, true),
        (|limits| limits.max_notional = Money(1_000_000), false),
        (|limits| limits.max_gross = Money(1_000_000), false),
        (|limits| limits.credit = Money(1_000_000), false),
        (|limits| limits.max_position = Quantity(1_000_000), false),
    ];
    for (at, (change, of_limit_orders)) in changes.into_iter().enumerate() {
        let mut desk = limited(|limits| {
            change(limits);
            limits.reference_age_ms = 5;
        });
        let of_market_orders = at < 4;
        let expect = |desk: &mut Desk, stale: bool| {
            let limit = desk.send(Buy, 100, 1).err();
            let market = desk.market(Buy, 1).err();
            let wanted = [stale && of_limit_orders, stale && of_market_orders];
            assert_eq!([limit, market], wanted.map(|yes| yes.then_some(Reason::StaleReference)));
        };
        expect(&mut desk, true);
        desk.now_ns = SECOND;
        desk.reference(1, 100);
        desk.now_ns += 5 * MILLISECOND;
        expect(&mut desk, false);
        desk.now_ns += 1;
        expect(&mut desk, true);
        desk.reference(1, 0);
        expect(&mut desk, true);
    }
}

#[test]
fn without_limits_a_market_order_needs_no_reference() {
    let mut desk = limited(|_| {});
    assert_eq!(desk.market(Buy, 7), Ok(Price(0)));
    assert_eq!((desk.figures().gross, desk.figures().open_orders), (0, 1));
    assert_eq!(desk.fill(1, Buy, 0, 50, 7).breached, None);
    assert_eq!((desk.figures().gross, desk.figures().open_orders), (350, 0));
}

#[test]
fn more_orders_in_a_second_than_allowed_are_rejected() {
    let mut desk = limited(|limits| limits.max_orders_per_second = 3);
    let mut send = |now_ns| {
        desk.now_ns = now_ns;
        desk.send(Buy, 5, 1).err()
    };
    let rate = Some(Reason::OrderRate);
    assert_eq!([0; 4].map(&mut send), [None, None, None, rate]);
    let third = SECOND.div_ceil(3);
    assert_eq!(send(third - 1), rate);
    assert_eq!(send(third), None);
    assert_eq!(send(third), rate);
    assert_eq!([SECOND * 9; 4].map(&mut send), [None, None, None, rate]);
    assert_eq!(send(0), rate, "time does not run back");
    assert_eq!(desk.replace(Buy, (5, 1), (6, 1)), Err(Reason::OrderRate));
    desk.now_ns = SECOND * 10;
    assert_eq!(desk.replace(Buy, (5, 1), (6, 1)), Ok(()));
}

#[test]
fn of_a_thousand_rapid_orders_as_many_pass_as_are_allowed() {
    let mut desk = limited(|limits| limits.max_orders_per_second = 100);
    let mut passed = 0;
    for number in 0..1_000 {
        desk.now_ns = number * MILLISECOND;
        passed += u32::from(desk.send(Buy, 5, 1).is_ok());
    }
    assert_eq!(passed, 199, "a hundred at once, and one more each ten milliseconds");
    desk.set(|limits| limits.max_orders_per_second = u32::MAX);
    assert_eq!(desk.send(Buy, 5, 1), Ok(Price(5)));
    desk.set(|limits| limits.max_orders_per_second = 1);
    assert_eq!(desk.send(Buy, 5, 1), Err(Reason::OrderRate));
    desk.now_ns += SECOND;
    assert_eq!(desk.send(Buy, 5, 1), Ok(Price(5)), "what came before fills it up once at most");
}

#[test]
fn an_order_that_fails_a_later_check_counts_in_the_rate_and_one_too_many_does_not() {
    let mut desk = limited(|limits| {
        limits.max_orders_per_second = 2;
        limits.max_quantity = Quantity(1);
    });
    assert_eq!(desk.send(Buy, 5, 2), Err(Reason::MaxQuantity));
    assert_eq!(desk.send(Buy, 5, 1), Ok(Price(5)));
    assert_eq!(desk.send(Buy, 5, 1), Err(Reason::OrderRate));
    desk.now_ns = SECOND / 2;
    assert_eq!(desk.send(Buy, 5, 1), Ok(Price(5)));
}

#[test]
fn too_many_open_orders_are_rejected() {
    let mut desk = limited(|limits| limits.max_open_orders = 2);
    assert!(desk.send_in(1, Buy, 5, 1).is_ok());
    assert!(desk.send_in(2, Sell, 5, 1).is_ok());
    assert_eq!(desk.send_in(3, Buy, 5, 1), Err(Reason::OpenOrders));
    assert_eq!(desk.replace(Buy, (5, 1), (6, 1)), Ok(()), "a replacement is no further order");
    desk.release(Buy, 6, 1);
    assert!(desk.send_in(3, Buy, 5, 1).is_ok());
    assert_eq!(desk.send(Buy, 5, 1), Err(Reason::OpenOrders));
}

#[test]
fn a_position_beyond_its_limit_is_rejected_open_orders_included() {
    for (side, other) in [(Buy, Sell), (Sell, Buy)] {
        let mut desk = limited(|limits| limits.max_position = Quantity(10));
        desk.trade(1, side, 5, 6);
        assert!(desk.send(side, 5, 3).is_ok());
        assert_eq!(desk.send(side, 5, 2), Err(Reason::PositionLimit));
        assert!(desk.send(side, 5, 1).is_ok());
        assert_eq!(desk.replace(side, (5, 3), (5, 4)), Err(Reason::PositionLimit));
        assert!(desk.send_in(2, side, 5, 10).is_ok(), "each instrument by itself");
        assert_eq!(desk.send(other, 5, 17), Err(Reason::PositionLimit));
        assert!(desk.send(other, 5, 16).is_ok(), "through flat to the limit on the other side");
        assert_eq!(desk.replace(side, (5, 3), (5, 2)), Ok(()));
        assert!(desk.send(side, 5, 1).is_ok());
    }
}

#[test]
fn gross_exposure_is_that_of_all_positions_and_open_orders() {
    let mut desk = limited(|limits| limits.max_gross = Money(1_000));
    desk.trade(1, Buy, 10, 30); // 300
    desk.trade(2, Sell, 20, 10); // 200
    assert!(desk.send_in(3, Sell, 40, 10).is_ok()); // 400
    assert_eq!(desk.figures().gross, 900);
    assert_eq!(desk.send_in(4, Buy, 101, 1), Err(Reason::GrossExposure));
    assert!(desk.send_in(4, Buy, 100, 1).is_ok());
    desk.reference(1, 11); // 330
    assert_eq!(desk.figures().gross, 1_030);
    assert_eq!(desk.send_in(5, Sell, 1, 1), Err(Reason::GrossExposure));
    desk.reference(1, 8);
    assert!(desk.send_in(5, Sell, 1, 60).is_ok());
    assert_eq!(desk.send_in(5, Sell, 1, 1), Err(Reason::GrossExposure));
}

#[test]
fn purchases_beyond_the_credit_are_rejected_and_sales_bring_it_back() {
    let mut desk = limited(|limits| limits.credit = Money(1_000));
    desk.trade(1, Buy, 10, 60);
    assert!(desk.send(Buy, 10, 40).is_ok());
    assert_eq!(desk.send_in(2, Buy, 1, 1), Err(Reason::Credit));
    assert!(desk.send(Sell, 20, 5).is_ok());
    assert_eq!(desk.send_in(2, Buy, 1, 1), Err(Reason::Credit), "a sale brings when it is made");
    desk.fill(1, Sell, 20, 20, 5);
    assert_eq!(desk.send_in(2, Buy, 101, 1), Err(Reason::Credit));
    assert!(desk.send_in(2, Buy, 100, 1).is_ok());
    desk.fill(1, Buy, 10, 9, 40);
    assert_eq!(desk.figures().credit_used, 600 + 360 - 100 + 100, "bought for less than reserved");
}

#[test]
fn checks_come_cheapest_first() {
    // All at once too tight; each is taken away when it has spoken.
    let mut limits = SetLimits::none(CLIENT);
    limits.max_orders_per_second = 1;
    limits.max_quantity = Quantity(1);
    limits.max_notional = Money(1);
    limits.collar_basis_points = 1;
    limits.max_open_orders = 1;
    limits.max_position = Quantity(1);
    limits.max_gross = Money(1);
    limits.credit = Money(1);
    limits.max_loss = Money(1);
    let mut desk = limited(|limits| limits.max_orders_per_second = 1);
    desk.trade(2, Buy, 10, 10);
    desk.now_ns = SECOND;
    assert!(desk.send_in(3, Buy, 10, 10).is_ok());
    desk.reference(2, 5);
    desk.reference(1, 50);
    desk.risk.stop(CLIENT, true);
    desk.risk.set_limits(&limits).unwrap();
    type Loosen = fn(&mut SetLimits);
    let order: [(Reason, Loosen); 9] = [
        (Reason::OrderRate, |limits| limits.max_orders_per_second = 0),
        (Reason::MaxQuantity, |limits| limits.max_quantity.0 = 0),
        (Reason::MaxNotional, |limits| limits.max_notional.0 = 0),
        (Reason::PriceCollar, |limits| limits.collar_basis_points = 0),
        (Reason::OpenOrders, |limits| limits.max_open_orders = 0),
        (Reason::PositionLimit, |limits| limits.max_position.0 = 0),
        (Reason::GrossExposure, |limits| limits.max_gross.0 = 0),
        (Reason::Credit, |limits| limits.credit.0 = 0),
        (Reason::LossLimit, |limits| limits.max_loss.0 = 0),
    ];
    assert_eq!(desk.send(Buy, 100, 10), Err(Reason::KillSwitch));
    desk.risk.stop(CLIENT, false);
    for (reason, loosen) in order {
        assert_eq!(desk.send(Buy, 100, 10), Err(reason));
        loosen(&mut limits);
        desk.risk.set_limits(&limits).unwrap();
    }
    assert!(desk.send(Buy, 100, 10).is_ok());
}

#[test]
fn what_cannot_be_reckoned_with_is_rejected() {
    let mut desk = limited(|_| {});
    let most = i64::MAX as u64;
    for (price, quantity, reason) in [
        (1, 0, Reason::InvalidQuantity),
        (1, most + 1, Reason::InvalidQuantity),
        (1, u64::MAX, Reason::InvalidQuantity),
        (0, 1, Reason::InvalidPrice),
        (-1, 1, Reason::InvalidPrice),
        (i64::MIN, 1, Reason::InvalidPrice),
        (2, most / 2 + 1, Reason::MaxNotional),
        (i64::MAX, 2, Reason::MaxNotional),
        (i64::MAX, most, Reason::MaxNotional),
    ] {
        assert_eq!(desk.send(Buy, price, quantity), Err(reason), "{quantity} at {price}");
    }
    let order = Intent {
        client: CLIENT,
        side: Sell,
        order_type: OrderType::Limit,
        price: Price(2),
        quantity: Quantity(1),
    };
    let dear = instrument(1, most);
    assert_eq!(desk.risk.admit(0, &dear, &order), Err(Reason::InvalidPrice));
    let nonsense = instrument(1, u64::MAX);
    assert_eq!(desk.risk.admit(0, &nonsense, &order), Err(Reason::InvalidPrice));
    assert!(!desk.risk.in_use(InstrumentId(1)), "a rejected order leaves nothing");
    assert_eq!(desk.saved(), limited(|_| {}).saved());
    assert!(desk.send(Buy, 1, most).is_ok());
    assert_eq!(desk.send(Sell, 1, 1), Err(Reason::InvalidQuantity), "both sides, in one number");
    assert!(desk.send_in(2, Buy, i64::MAX, 1).is_ok());
    assert_eq!(desk.figures().gross, i128::from(i64::MAX) * 2);
}
