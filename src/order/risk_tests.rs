//! Tests of pre-trade risk: each check by name, at its limit and one beyond.

use super::*;
use crate::order::field::{MarketState, SelfMatch, Symbol};

const SECOND: u64 = 1_000_000_000;
const CLIENT: ClientId = ClientId(1);

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

fn no_limits(client: ClientId) -> SetLimits {
    SetLimits {
        max_quantity: Quantity(0),
        max_notional: Money(0),
        max_position: Quantity(0),
        max_gross: Money(0),
        credit: Money(0),
        max_loss: Money(0),
        max_open_orders: 0,
        max_orders_per_second: 0,
        collar_basis_points: 0,
        reference_age_ms: 0,
        maker_fee_ppm: 0,
        taker_fee_ppm: 0,
        client,
        self_match: SelfMatch::Allow,
        cancel_on_disconnect: true,
        stop_on_breach: false,
    }
}

fn limit(side: Side, price: i64, quantity: u64) -> Intent {
    let (price, quantity) = (Price(price), Quantity(quantity));
    Intent { client: CLIENT, side, order_type: OrderType::Limit, price, quantity }
}

fn limited(change: impl FnOnce(&mut SetLimits)) -> Risk {
    let mut risk = Risk::new(4, 4);
    let mut message = no_limits(CLIENT);
    change(&mut message);
    risk.set_limits(&message).unwrap();
    risk
}

#[test]
fn an_order_beyond_the_largest_quantity_is_rejected() {
    let mut risk = limited(|limits| limits.max_quantity = Quantity(10));
    let one = instrument(1, 1);
    assert_eq!(risk.admit(0, &one, &limit(Side::Buy, 5, 11)), Err(Reason::MaxQuantity));
    assert_eq!(risk.admit(0, &one, &limit(Side::Buy, 5, 10)), Ok(Price(5)));
}

#[test]
fn more_orders_in_a_second_than_allowed_are_rejected() {
    let mut risk = limited(|limits| limits.max_orders_per_second = 3);
    let one = instrument(1, 1);
    let mut send = |now_ns| risk.admit(now_ns, &one, &limit(Side::Buy, 5, 1)).err();
    assert_eq!([0; 4].map(&mut send), [None, None, None, Some(Reason::OrderRate)]);
    let third = SECOND.div_ceil(3);
    assert_eq!(send(third - 1), Some(Reason::OrderRate));
    assert_eq!(send(third), None);
    assert_eq!(send(third), Some(Reason::OrderRate));
    assert_eq!([SECOND * 9; 4].map(send), [None, None, None, Some(Reason::OrderRate)]);
}
