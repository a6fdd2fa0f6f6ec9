//! What a venue reports becomes events: of an exchange in the same process and of a gateway alike.

use super::{CANCEL_TRIES_MAX, Step};
use crate::order::field::{
    CancelReason, Liquidity, OrderType, Price, Quantity, Reason, ReportKind, RouteAction, Side,
    TimeInForce,
};
use crate::order::messages::{
    Accepted, CancelOrder, CancelRejected, Cancelled, Filled, NewOrder, Rejected, ReplaceOrder,
    Replaced, Routed, VenueReport,
};
use crate::order::orders::{Order, Place};
use crate::order::risk::Reserved;
use crate::order::venue::{Report, Venue};

/// A fill, as it is reported.
struct Trade {
    match_id: u64,
    price: Price,
    quantity: Quantity,
    liquidity: Liquidity,
}

impl<V: Venue> Step<'_, V> {
    /// Hears all that the venue has said, and what it says to that.
    pub(super) fn hear(&mut self) {
        let mut next = 0;
        while let Some(&report) = self.engine.reports.get(next) {
            next += 1;
            // An exchange also speaks of orders from before the open, and of such as are through.
            let _ = self.report(report);
        }
        self.engine.reports.clear();
    }

    /// What a gateway brings.
    pub(super) fn venue_report(&mut self, brought: &VenueReport) {
        let heard = self.translate(brought).and_then(|report| self.report(report));
        if let Err(reason) = heard {
            let rejected = Rejected {
                client_order_id: Default::default(),
                order_id: brought.order_id,
                instrument: Default::default(),
                command: VenueReport::TEMPLATE_ID,
                reason,
            };
            self.events.push(self.client, &rejected.encode());
        }
    }

    fn translate(&self, brought: &VenueReport) -> Result<Report, Reason> {
        let order_id = brought.order_id;
        let order = self.engine.orders.at(self.find(order_id)?);
        Ok(match brought.kind {
            ReportKind::Accepted => Report::Accepted { order_id },
            ReportKind::Rejected => Report::Rejected { order_id, reason: brought.reason },
            ReportKind::Filled => Report::Filled {
                order_id,
                match_id: brought.match_id,
                price: brought.price,
                quantity: brought.quantity,
                liquidity: brought.liquidity,
            },
            ReportKind::Cancelled => Report::Cancelled { order_id, reason: why_cancelled(order) },
            ReportKind::Replaced => {
                let leaves = brought.quantity.0.checked_sub(order.filled.0);
                let leaves = Quantity(leaves.ok_or(Reason::InvalidQuantity)?);
                Report::Replaced { order_id, price: brought.price, leaves }
            }
            ReportKind::CancelRejected => {
                Report::CancelRejected { order_id, reason: brought.reason }
            }
        })
    }

    /// Applies a report.
    ///
    /// # Errors
    /// Why it cannot be true; then nothing has changed.
    fn report(&mut self, report: Report) -> Result<(), Reason> {
        match report {
            Report::Accepted { order_id } => self.accepted(self.find(order_id)?),
            Report::Rejected { order_id, reason } => self.rejected(self.find(order_id)?, reason),
            Report::Filled { order_id, match_id, price, quantity, liquidity } => {
                let trade = Trade { match_id, price, quantity, liquidity };
                self.filled(self.find(order_id)?, &trade)
            }
            Report::Cancelled { order_id, reason } => {
                self.cancelled(self.find(order_id)?, reason);
                Ok(())
            }
            Report::Replaced { order_id, price, leaves } => {
                self.replaced(self.find(order_id)?, price, leaves)
            }
            Report::CancelRejected { order_id, reason } => {
                self.cancel_rejected(self.find(order_id)?, reason)
            }
            Report::Route { order_id, action } => {
                self.route(self.find(order_id)?, action);
                Ok(())
            }
        }
    }

    fn accepted(&mut self, place: Place) -> Result<(), Reason> {
        let order = self.engine.orders.at_mut(place);
        if std::mem::replace(&mut order.accepted, true) {
            return Err(Reason::DuplicateOrder);
        }
        let accepted = Accepted {
            client_order_id: order.client_order_id,
            order_id: order.order_id,
            price: order.price,
            quantity: order.quantity,
            instrument: order.instrument,
            side: order.side,
            order_type: order.order_type,
            time_in_force: order.time_in_force,
            post_only: order.post_only,
        };
        self.events.push(order.client, &accepted.encode());
        Ok(())
    }

    fn rejected(&mut self, place: Place, reason: Reason) -> Result<(), Reason> {
        let order = *self.engine.orders.at(place);
        if order.accepted {
            return Err(Reason::TooLate);
        }
        let rejected = Rejected {
            client_order_id: order.client_order_id,
            order_id: order.order_id,
            instrument: order.instrument,
            command: NewOrder::TEMPLATE_ID,
            reason,
        };
        self.events.push(order.client, &rejected.encode());
        self.release(place, true);
        self.end(place, false);
        Ok(())
    }

    fn filled(&mut self, place: Place, trade: &Trade) -> Result<(), Reason> {
        let Trade { match_id, price, quantity, liquidity } = *trade;
        let engine = &*self.engine;
        let order = engine.orders.at(place);
        if quantity.0 == 0 || quantity > order.leaves() {
            return Err(Reason::InvalidQuantity);
        }
        if match_id <= order.last_match {
            return Err(Reason::DuplicateOrder);
        }
        let instrument =
            engine.instruments.get(order.instrument).ok_or(Reason::UnknownInstrument)?;
        if price.0 <= 0 || instrument.notional(price, quantity).is_none() {
            return Err(Reason::InvalidPrice);
        }
        if is_beyond(order, price) {
            return Err(Reason::InvalidPrice);
        }
        let instrument = *instrument;
        if !order.accepted {
            self.accepted(place)?;
        }
        let order = self.engine.orders.at_mut(place);
        order.filled.0 += quantity.0;
        order.reserved_quantity.0 -= quantity.0;
        order.last_match = match_id;
        let order = *order;
        let leaves = order.leaves();
        let last = leaves.0 == 0;
        if last {
            self.release(place, false); // what a change under way had reserved beyond it
        }
        let fill = self.engine.risk.fill(
            self.now_ns,
            &instrument,
            order.client,
            order.side,
            order.reserved_price,
            price,
            quantity,
            liquidity,
            last,
        );
        let filled = Filled {
            client_order_id: order.client_order_id,
            order_id: order.order_id,
            match_id,
            price,
            quantity,
            leaves,
            fee: fill.fee,
            instrument: order.instrument,
            side: order.side,
            liquidity,
        };
        self.events.push(order.client, &filled.encode());
        if last {
            self.end(place, false);
        }
        if let Some(breached) = fill.breached {
            self.breached(order.client, &breached);
        }
        Ok(())
    }

    fn cancelled(&mut self, place: Place, reason: CancelReason) {
        let order = *self.engine.orders.at(place);
        let cancelled = Cancelled {
            client_order_id: order.client_order_id,
            order_id: order.order_id,
            quantity: order.leaves(),
            instrument: order.instrument,
            side: order.side,
            reason,
        };
        self.events.push(order.client, &cancelled.encode());
        self.release(place, true);
        self.end(place, true);
    }

    fn replaced(&mut self, place: Place, price: Price, leaves: Quantity) -> Result<(), Reason> {
        let order = *self.engine.orders.at(place);
        let Some(change) = order.change else { return Err(Reason::InvalidCombination) };
        if price != change.price {
            return Err(Reason::InvalidPrice);
        }
        let most = change.quantity.0.saturating_sub(order.filled.0);
        if leaves.0 == 0 || leaves.0 > most {
            return Err(Reason::InvalidQuantity);
        }
        self.reserve(place, Reserved { price, quantity: leaves });
        let original = self.engine.orders.rename(place);
        let order = self.engine.orders.at_mut(place);
        order.price = price;
        order.quantity = Quantity(order.filled.0 + leaves.0);
        let replaced = Replaced {
            client_order_id: order.client_order_id,
            original,
            order_id: order.order_id,
            price,
            quantity: order.quantity,
            leaves,
            instrument: order.instrument,
            side: order.side,
        };
        self.events.push(order.client, &replaced.encode());
        Ok(())
    }

    /// The answer to what was asked first: the replacement, and otherwise the cancel.
    fn cancel_rejected(&mut self, place: Place, reason: Reason) -> Result<(), Reason> {
        if let Some(change) = self.engine.orders.forget_change(place) {
            let order = self.engine.orders.at(place);
            let stays = Reserved { price: order.price, quantity: order.leaves() };
            self.reserve(place, stays);
            let command = ReplaceOrder::TEMPLATE_ID;
            self.reject_cancel(Some(place), change.client_order_id, command, reason);
        } else {
            let order = self.engine.orders.at_mut(place);
            let cancelling = order.cancelling.take().ok_or(Reason::InvalidCombination)?;
            let named = cancelling.name(order);
            self.reject_cancel(Some(place), named, cancelling.command, reason);
        }
        if let Some(must_go) = &mut self.engine.orders.at_mut(place).must_go
            && must_go.tries < CANCEL_TRIES_MAX
        {
            must_go.tries += 1;
            self.ask_again(place);
        }
        Ok(())
    }

    /// Hands a request on to the gateway.
    fn route(&mut self, place: Place, action: RouteAction) {
        let order = self.engine.orders.at(place);
        let (client_order_id, price, quantity) = match (action, order.change) {
            (RouteAction::Replace, Some(change)) => {
                (change.client_order_id, change.price, change.quantity)
            }
            _ => (order.client_order_id, order.price, order.quantity),
        };
        let routed = Routed {
            client_order_id,
            order_id: order.order_id,
            price,
            quantity,
            instrument: order.instrument,
            client: order.client,
            action,
            side: order.side,
            order_type: order.order_type,
            time_in_force: order.time_in_force,
            post_only: order.post_only,
        };
        self.events.push(self.engine.gateway, &routed.encode());
    }

    /// Gives back all that is reserved. `last`: the order no longer counts as an open one.
    fn release(&mut self, place: Place, last: bool) {
        let engine = &mut *self.engine;
        let order = engine.orders.at_mut(place);
        let (price, quantity) = (order.reserved_price, order.reserved_quantity);
        if quantity.0 == 0 && !last {
            return;
        }
        order.reserved_quantity = Quantity(0);
        if let Some(instrument) = engine.instruments.get(order.instrument) {
            let reserved = Reserved { price, quantity };
            engine.risk.release(instrument, order.client, order.side, reserved, last);
        }
    }

    /// Reserves this in place of what is.
    fn reserve(&mut self, place: Place, new: Reserved) {
        let engine = &mut *self.engine;
        let order = engine.orders.at_mut(place);
        let old = Reserved { price: order.reserved_price, quantity: order.reserved_quantity };
        (order.reserved_price, order.reserved_quantity) = (new.price, new.quantity);
        if let Some(instrument) = engine.instruments.get(order.instrument) {
            engine.risk.restate(instrument, order.client, order.side, old, new);
        }
    }

    /// Takes out an order that is through. What its client still waits for came too late; a
    /// cancel did not, if `cancelled`.
    fn end(&mut self, place: Place, cancelled: bool) {
        let order = self.engine.orders.remove(place);
        let Order { order_id, client, change, cancelling, .. } = order;
        let mut too_late = |client_order_id, command| {
            let reason = Reason::TooLate;
            let rejected = CancelRejected { client_order_id, order_id, command, reason };
            self.events.push(client, &rejected.encode());
        };
        if let Some(change) = change {
            too_late(change.client_order_id, ReplaceOrder::TEMPLATE_ID);
        }
        if let Some(asked) = cancelling
            && asked.command == CancelOrder::TEMPLATE_ID
            && !cancelled
        {
            too_late(asked.name(&order), asked.command);
        }
    }
}

/// Whether a price is worse than the order's limit, and than the one that is asked for.
#[inline]
fn is_beyond(order: &Order, price: Price) -> bool {
    let coming = order.change.map_or(order.price, |change| change.price);
    // A market order without a bound has price 0.
    (order.order_type == OrderType::Limit || order.price.0 != 0)
        && match order.side {
            Side::Buy => price > order.price.max(coming),
            Side::Sell => price < order.price.min(coming),
        }
}

/// A gateway does not say why an order is out of the market: as asked for, or as is its kind.
fn why_cancelled(order: &Order) -> CancelReason {
    match (order.cancelling, order.time_in_force) {
        (Some(asked), _) => asked.reason,
        (None, TimeInForce::Fok) => CancelReason::Killed,
        (None, TimeInForce::Ioc) => CancelReason::Unfilled,
        (None, TimeInForce::Day) => CancelReason::Venue,
    }
}
