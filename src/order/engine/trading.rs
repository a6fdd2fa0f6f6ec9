//! Traders' commands: new orders, replacements, cancels.

use super::{Step, checks};
use crate::order::field::{
    CancelReason, ClientOrderId, InstrumentId, OrderId, OrderType, Price, Quantity, Reason,
    TimeInForce,
};
use crate::order::messages::{
    CancelOrder, CancelRejected, ListEnd, ListOrders, Listed, MassCancel, NewOrder, Rejected,
    ReplaceOrder,
};
use crate::order::orders::{Cancelling, Change, MustGo, Order, Place};
use crate::order::risk::{Intent, Reserved};
use crate::order::venue::{Report, Venue, VenueOrder};
use crate::sequencer::ClientId;

impl<V: Venue> Step<'_, V> {
    pub(super) fn new_order(&mut self, order: &NewOrder) {
        if let Err(reason) = self.place_order(order) {
            self.reject_order(order, reason);
        }
    }

    fn place_order(&mut self, new: &NewOrder) -> Result<(), Reason> {
        let (client, engine) = (self.client, &mut *self.engine);
        let rises = engine.orders.use_up(client, new.client_order_id);
        let instrument = checks::check_order(&engine.instruments, new)?;
        if !rises && engine.orders.serves(client) {
            return Err(Reason::DuplicateOrder);
        }
        if !engine.orders.has_room(client) {
            return Err(Reason::Capacity);
        }
        let NewOrder { side, order_type, price, quantity, .. } = *new;
        let intent = Intent { client, side, order_type, price, quantity };
        let reserved_price = engine.risk.admit(self.now_ns, instrument, &intent)?;
        let price = match order_type {
            OrderType::Limit => price,
            OrderType::Market => engine.risk.protection(client, new.instrument, side),
        };
        let order = VenueOrder {
            order_id: OrderId(self.sequence),
            client,
            instrument: new.instrument,
            side,
            order_type,
            time_in_force: new.time_in_force,
            post_only: new.post_only,
            price,
            quantity,
            self_match: engine.risk.limits(client).self_match,
        };
        engine.orders.insert(Order {
            order_id: order.order_id,
            client_order_id: new.client_order_id,
            client,
            instrument: new.instrument,
            side,
            order_type,
            time_in_force: new.time_in_force,
            post_only: new.post_only,
            price,
            quantity,
            filled: Quantity(0),
            reserved_price,
            reserved_quantity: quantity,
            last_match: 0,
            accepted: false,
            change: None,
            cancelling: None,
            must_go: None,
        });
        engine.venue.submit(self.now_ns, &order, &mut engine.reports);
        Ok(())
    }

    pub(super) fn reject_order(&mut self, order: &NewOrder, reason: Reason) {
        let rejected = Rejected {
            client_order_id: order.client_order_id,
            order_id: OrderId(0),
            instrument: order.instrument,
            command: NewOrder::TEMPLATE_ID,
            reason,
        };
        self.events.push(self.client, &rejected.encode());
    }

    pub(super) fn cancel_order(&mut self, cancel: &CancelOrder) {
        let command = CancelOrder::TEMPLATE_ID;
        let (found, named) = match cancel.order_id {
            OrderId(0) => (self.find_own(cancel.client_order_id), cancel.client_order_id),
            order_id => (self.find_by_order_id(order_id), cancel.client_order_id),
        };
        let pending = |place: &Place| self.engine.orders.at(*place).cancelling.is_some();
        match found {
            Ok(place) if pending(&place) => {
                self.reject_cancel(Some(place), named, command, Reason::Pending);
            }
            Ok(place) => {
                let cancelling = Cancelling { reason: CancelReason::Requested, command, named };
                self.ask_cancel(place, cancelling);
            }
            Err(reason) => self.reject_cancel(None, named, command, reason),
        }
    }

    /// The client's own open order of this name.
    fn find_own(&self, id: ClientOrderId) -> Result<Place, Reason> {
        let orders = &self.engine.orders;
        let used = id.0 != 0 && id <= orders.used(self.client);
        let missing = if used { Reason::TooLate } else { Reason::UnknownOrder };
        orders.find_by_client(self.client, id).ok_or(missing)
    }

    /// The open order, if it is the client's.
    fn find_by_order_id(&self, order_id: OrderId) -> Result<Place, Reason> {
        let place = self.find(order_id)?;
        let own = self.engine.orders.at(place).client == self.client;
        if own { Ok(place) } else { Err(Reason::WrongOwner) }
    }

    /// The open order, anybody's.
    pub(super) fn find(&self, order_id: OrderId) -> Result<Place, Reason> {
        let orders = &self.engine.orders;
        let given = order_id.0 != 0 && order_id <= orders.last_id();
        let missing = if given { Reason::TooLate } else { Reason::UnknownOrder };
        orders.find(order_id).ok_or(missing)
    }

    pub(super) fn replace_order(&mut self, replace: &ReplaceOrder) {
        let found = self.find_own(replace.original);
        let rises = self.engine.orders.use_up(self.client, replace.client_order_id);
        let done = found.and_then(|place| self.change_order(place, replace, rises));
        if let Err(reason) = done {
            let (named, command) = (replace.client_order_id, ReplaceOrder::TEMPLATE_ID);
            self.reject_cancel(found.ok(), named, command, reason);
        }
    }

    fn change_order(
        &mut self,
        place: Place,
        new: &ReplaceOrder,
        rises: bool,
    ) -> Result<(), Reason> {
        let engine = &mut *self.engine;
        let order = *engine.orders.at(place);
        if order.change.is_some() || order.cancelling.is_some() || order.must_go.is_some() {
            return Err(Reason::Pending);
        }
        if order.order_type != OrderType::Limit || order.time_in_force != TimeInForce::Day {
            return Err(Reason::InvalidCombination);
        }
        let instrument =
            engine.instruments.get(order.instrument).ok_or(Reason::UnknownInstrument)?;
        checks::check_open(instrument)?;
        checks::check_terms(instrument, new.quantity, Some(new.price))?;
        if new.quantity <= order.filled {
            return Err(Reason::InvalidQuantity);
        }
        if !rises {
            return Err(Reason::DuplicateOrder);
        }
        let was = Reserved { price: order.reserved_price, quantity: order.reserved_quantity };
        let leaves = Quantity(new.quantity.0 - order.filled.0);
        let wanted = Reserved { price: new.price, quantity: leaves };
        let both = either(was, wanted).ok_or(Reason::MaxNotional)?;
        instrument.notional(both.price, both.quantity).ok_or(Reason::MaxNotional)?;
        let (now_ns, client, side) = (self.now_ns, order.client, order.side);
        engine.risk.readmit(now_ns, instrument, client, side, was, wanted, new.quantity)?;
        engine.risk.restate(instrument, client, side, wanted, both);
        let order = engine.orders.at_mut(place);
        (order.reserved_price, order.reserved_quantity) = (both.price, both.quantity);
        let order_id = order.order_id;
        let change = Change {
            client_order_id: new.client_order_id,
            price: new.price,
            quantity: new.quantity,
        };
        engine.orders.set_change(place, change);
        engine.venue.replace(now_ns, order_id, new.price, leaves, &mut engine.reports);
        Ok(())
    }

    pub(super) fn mass_cancel(&mut self, cancel: &MassCancel) -> Result<(), Reason> {
        let InstrumentId(id) = cancel.instrument;
        if id != 0 && self.engine.instruments.get(cancel.instrument).is_none() {
            return Err(Reason::UnknownInstrument);
        }
        let command = MassCancel::TEMPLATE_ID;
        let (reason, named) = (CancelReason::Requested, ClientOrderId(0));
        let cancelling = Cancelling { reason, command, named };
        self.for_all(self.client, cancel.instrument, |step, place| {
            if step.engine.orders.at(place).cancelling.is_none() {
                step.ask_cancel(place, cancelling);
            }
        });
        Ok(())
    }

    pub(super) fn list_orders(&mut self, list: &ListOrders) -> Result<(), Reason> {
        let (engine, wanted) = (&*self.engine, list.instrument);
        if wanted.0 != 0 && engine.instruments.get(wanted).is_none() {
            return Err(Reason::UnknownInstrument);
        }
        let mut orders = 0;
        for order in engine.orders.of(self.client) {
            if wanted.0 != 0 && order.instrument != wanted {
                continue;
            }
            orders += 1;
            let listed = Listed {
                client_order_id: order.client_order_id,
                order_id: order.order_id,
                price: order.price,
                quantity: order.quantity,
                leaves: order.leaves(),
                instrument: order.instrument,
                side: order.side,
                accepted: order.accepted,
            };
            self.events.push(self.client, &listed.encode());
        }
        let end = ListEnd { orders, last: engine.orders.used(self.client) };
        self.events.push(self.client, &end.encode());
        Ok(())
    }

    /// What a client has open of an instrument, or with number 0 all, has to leave the market.
    pub(super) fn send_off(&mut self, client: ClientId, instrument: InstrumentId, why: MustGo) {
        let cancelling = cancelling_of(why);
        self.for_all(client, instrument, |step, place| {
            let order = step.engine.orders.at_mut(place);
            order.must_go = Some(why);
            if order.cancelling.is_none() {
                step.ask_cancel(place, cancelling);
            }
        });
    }

    /// Asks once more for what must go, if nobody waits for its cancel. That this is refused at
    /// once is no news.
    pub(super) fn ask_again(&mut self, place: Place) {
        let order = self.engine.orders.at(place);
        if let (Some(must_go), None) = (order.must_go, order.cancelling) {
            let _ = self.try_cancel(place, cancelling_of(must_go));
        }
    }

    /// A client's orders of an instrument, or with number 0 all, as they came. None may be taken
    /// out on the way.
    fn for_all(
        &mut self,
        client: ClientId,
        instrument: InstrumentId,
        mut each: impl FnMut(&mut Self, Place),
    ) {
        let mut next = self.engine.orders.first(client);
        while let Some(place) = next {
            next = self.engine.orders.behind(place);
            if instrument.0 == 0 || self.engine.orders.at(place).instrument == instrument {
                each(self, place);
            }
        }
    }

    /// Asks the venue to take an order out that nobody has asked it for yet, and says so if that is
    /// refused at once.
    fn ask_cancel(&mut self, place: Place, cancelling: Cancelling) {
        let Err(reason) = self.try_cancel(place, cancelling) else { return };
        let requested = cancelling.command == CancelOrder::TEMPLATE_ID;
        // That its end is queued already is no news.
        if requested || reason != Reason::TooLate {
            let named = cancelling.name(self.engine.orders.at(place));
            self.reject_cancel(Some(place), named, cancelling.command, reason);
        }
    }

    /// Asks the venue to take an order out. The order stays where it is until the venue's reports
    /// are heard.
    fn try_cancel(&mut self, place: Place, cancelling: Cancelling) -> Result<(), Reason> {
        let engine = &mut *self.engine;
        let order = engine.orders.at_mut(place);
        let order_id = order.order_id;
        let before = engine.reports.len();
        engine.venue.cancel(self.now_ns, order_id, cancelling.reason, &mut engine.reports);
        if let Some(&Report::CancelRejected { order_id: refused, reason }) =
            engine.reports.get(before)
            && refused == order_id
        {
            // Refused at once: not to be taken for the answer to a replacement under way.
            engine.reports.truncate(before);
            return Err(reason);
        }
        order.cancelling = Some(cancelling);
        Ok(())
    }

    /// Says that an order was not cancelled or replaced: to its client, or if there is none to
    /// whoever asked.
    pub(super) fn reject_cancel(
        &mut self,
        place: Option<Place>,
        client_order_id: ClientOrderId,
        command: u16,
        reason: Reason,
    ) {
        let order = place.map(|place| self.engine.orders.at(place));
        let client = order.map_or(self.client, |order| order.client);
        let order_id = order.map_or(OrderId(0), |order| order.order_id);
        let rejected = CancelRejected { client_order_id, order_id, command, reason };
        self.events.push(client, &rejected.encode());
    }
}

/// What covers one reservation or the other, at any time while fills make both smaller: the larger
/// quantity, at a price at which it is worth as much as the dearer of them, rounded up.
fn either(one: Reserved, other: Reserved) -> Option<Reserved> {
    let worth = |part: Reserved| i128::from(part.price.0) * i128::from(part.quantity.0);
    let quantity = one.quantity.max(other.quantity);
    let most = i128::from(quantity.0);
    let price = (worth(one).max(worth(other)) + most - 1).checked_div(most)?;
    Some(Reserved { price: Price(i64::try_from(price).ok()?), quantity })
}

fn cancelling_of(MustGo { reason, command, .. }: MustGo) -> Cancelling {
    Cancelling { reason, command, named: ClientOrderId(0) }
}

#[cfg(test)]
#[path = "trading_tests.rs"]
mod tests;
