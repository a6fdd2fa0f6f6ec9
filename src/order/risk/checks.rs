//! The checks that need no figures of the client's, and what things are worth.

use super::super::account::Part;
use super::super::field::{OrderType, Price, Quantity, Reason, Side};
use super::super::instrument::{Instrument, unit_value};
use super::super::limits::Limits;
use super::Reserved;

/// The price that an instrument's collar and exposures go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reference {
    /// 0: none.
    pub(super) price: Price,
    pub(super) at_ns: u64,
    /// How many clients have a position or open orders. Not saved: it follows from the holdings.
    pub(super) holders: u32,
}

impl Reference {
    fn is_fresh(&self, limits: &Limits, now_ns: u64) -> bool {
        let age_ns = u64::from(limits.reference_age_ms) * 1_000_000;
        self.price.0 > 0 && (age_ns == 0 || now_ns.saturating_sub(self.at_ns) <= age_ns)
    }
}

#[inline]
pub(super) fn check_quantity(limits: &Limits, quantity: Quantity) -> Result<(), Reason> {
    if quantity.0 == 0 || quantity.0 > i64::MAX as u64 {
        return Err(Reason::InvalidQuantity);
    }
    if limits.max_quantity.0 != 0 && quantity > limits.max_quantity {
        return Err(Reason::MaxQuantity);
    }
    Ok(())
}

/// What one unit and all of it are worth.
#[inline]
pub(super) fn check_notional(
    limits: &Limits,
    instrument: &Instrument,
    order_type: OrderType,
    price: Price,
    quantity: Quantity,
) -> Result<(i64, i64), Reason> {
    if order_type == OrderType::Limit && price.0 <= 0 {
        return Err(Reason::InvalidPrice);
    }
    let unit = instrument.unit_value(price).ok_or(Reason::InvalidPrice)?;
    let notional = instrument.notional(price, quantity).ok_or(Reason::MaxNotional)?;
    if limits.max_notional.0 != 0 && notional > limits.max_notional {
        return Err(Reason::MaxNotional);
    }
    Ok((unit.0, notional.0))
}

/// The price at which a market order counts.
pub(super) fn market_price(
    limits: &Limits,
    reference: &Reference,
    now_ns: u64,
    side: Side,
) -> Result<Price, Reason> {
    if limits.need_reference() && !reference.is_fresh(limits, now_ns) {
        return Err(Reason::StaleReference);
    }
    if side == Side::Sell || limits.collar_basis_points == 0 {
        return Ok(reference.price);
    }
    let more = i128::from(reference.price.0) * i128::from(limits.collar_basis_points);
    let top = i128::from(reference.price.0) + (more + 9_999) / 10_000;
    i64::try_from(top).map(Price).map_err(|_| Reason::InvalidPrice)
}

/// The worst price that a market order may trade at, 0 for any: the collar's edge; without a
/// collar, of a purchase that money is limited for, the reference price that it counts at.
pub(super) fn protection(limits: &Limits, reference: &Reference, side: Side) -> Price {
    let basis_points = i128::from(limits.collar_basis_points);
    if !limits.need_reference() || basis_points == 0 && side == Side::Sell {
        return Price(0);
    }
    let middle = i128::from(reference.price.0);
    let away = middle * basis_points / 10_000;
    let worst = match side {
        Side::Buy => middle + away,
        Side::Sell => middle - away,
    };
    Price(worst.clamp(1, i64::MAX.into()) as i64)
}

/// A limit exactly at the edge of the collar passes.
#[inline]
pub(super) fn check_collar(
    limits: &Limits,
    reference: &Reference,
    now_ns: u64,
    price: Price,
) -> Result<(), Reason> {
    if limits.collar_basis_points == 0 {
        return Ok(());
    }
    if !reference.is_fresh(limits, now_ns) {
        return Err(Reason::StaleReference);
    }
    let away = i128::from(price.0.abs_diff(reference.price.0)) * 10_000;
    let most = i128::from(reference.price.0) * i128::from(limits.collar_basis_points);
    if away > most { Err(Reason::PriceCollar) } else { Ok(()) }
}

/// Quantity and notional. What does not fit, which a caller that keeps to the rules never has,
/// counts as the largest money there is.
#[inline]
pub(super) fn part(instrument: &Instrument, reserved: Reserved) -> Part {
    let unit = unit_value(reserved.price, instrument.multiplier).unwrap_or(i64::MAX);
    let quantity = i64::try_from(reserved.quantity.0).unwrap_or(i64::MAX);
    Part { quantity: reserved.quantity.0, notional: unit.saturating_mul(quantity) }
}

/// Rounded up.
#[inline]
pub(super) fn fee(notional: i64, ppm: i32) -> i64 {
    const MILLION: i64 = 1_000_000;
    let ppm = i64::from(ppm);
    let up = |whole: i64, rest: i64| whole + i64::from(rest > 0);
    match notional.checked_mul(ppm) {
        Some(product) => up(product / MILLION, product % MILLION),
        None => {
            // The same in two parts: both products fit, as `ppm` is at most a million either way.
            let rest = notional % MILLION * ppm;
            up(notional / MILLION * ppm + rest / MILLION, rest % MILLION)
        }
    }
}
