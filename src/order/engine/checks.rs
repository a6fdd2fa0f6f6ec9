//! What makes a command valid by itself: who may send it, and whether an order follows the rules of
//! its instrument.

use crate::order::field::{MarketState, OrderType, Price, Quantity, Reason, TimeInForce};
use crate::order::instrument::{Instrument, Instruments};
use crate::order::messages::{Message, MessageError, NewOrder};
use crate::sequencer::Role;

/// Why bytes that are no message are rejected.
pub(super) fn reason_of(error: &MessageError) -> Reason {
    match error {
        MessageError::Value { field: "side", .. } => Reason::InvalidSide,
        _ => Reason::Malformed,
    }
}

/// Whether a role allows a command. `gateway`: it comes from the engine's own gateway.
#[inline]
pub(super) fn may_send(role: Role, gateway: bool, message: &Message) -> bool {
    match message {
        Message::NewOrder(_)
        | Message::CancelOrder(_)
        | Message::ReplaceOrder(_)
        | Message::MassCancel(_)
        | Message::ListOrders(_) => matches!(role, Role::Trader | Role::Operator),
        Message::DefineInstrument(_)
        | Message::SetMarketState(_)
        | Message::KillSwitch(_)
        | Message::SetLimits(_)
        | Message::SetReference(_)
        | Message::SetVenue(_) => role == Role::Operator,
        Message::VenueReport(_) => role == Role::Gateway && gateway,
        Message::Accepted(_)
        | Message::Rejected(_)
        | Message::Filled(_)
        | Message::Cancelled(_)
        | Message::Replaced(_)
        | Message::CancelRejected(_)
        | Message::Routed(_)
        | Message::Breached(_)
        | Message::Listed(_)
        | Message::ListEnd(_) => false, // events are the engine's own
    }
}

/// The instrument of a new order that follows its rules.
#[inline]
pub(super) fn check_order<'a>(
    instruments: &'a Instruments,
    order: &NewOrder,
) -> Result<&'a Instrument, Reason> {
    let instrument = instruments.get(order.instrument).ok_or(Reason::UnknownInstrument)?;
    check_open(instrument)?;
    let limit = (order.order_type == OrderType::Limit).then_some(order.price);
    check_terms(instrument, order.quantity, limit)?;
    let day = order.time_in_force == TimeInForce::Day;
    let sound = match order.order_type {
        OrderType::Market => !day && !order.post_only,
        OrderType::Limit => day || !order.post_only,
    };
    if sound { Ok(instrument) } else { Err(Reason::InvalidCombination) }
}

/// Whether orders are taken.
#[inline]
pub(super) fn check_open(instrument: &Instrument) -> Result<(), Reason> {
    match instrument.state {
        MarketState::Open => Ok(()),
        MarketState::Closed => Err(Reason::MarketClosed),
        MarketState::Halted => Err(Reason::Halted),
    }
}

/// Whether quantity, and price if there is one, are what the instrument can be traded in.
#[inline]
pub(super) fn check_terms(
    instrument: &Instrument,
    quantity: Quantity,
    limit: Option<Price>,
) -> Result<(), Reason> {
    if quantity.0 == 0 || quantity.0 > i64::MAX as u64 {
        return Err(Reason::InvalidQuantity);
    }
    if !quantity.0.is_multiple_of(instrument.lot.0) {
        return Err(Reason::InvalidLot);
    }
    let Some(price) = limit else { return Ok(()) };
    if price.0 <= 0 {
        return Err(Reason::InvalidPrice);
    }
    if price.0 % instrument.tick.0 != 0 {
        return Err(Reason::InvalidTick);
    }
    Ok(())
}
