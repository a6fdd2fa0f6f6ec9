//! A flow of orders that is driven by a real feed: what appears in its books is ordered here, what
//! changes is replaced, what goes is cancelled; and now and then somebody takes what is offered.

use std::collections::HashMap;

use anyhow::ensure;
use gapless::order::messages::{CancelOrder, Message, NewOrder, ReplaceOrder};
use gapless::order::{
    ClientOrderId, InstrumentId, OrderId, OrderType, Price, Quantity, Side, TimeInForce,
};
use gapless::sequencer::{Kind, Record};

use super::desk::Desk;
use super::market::{Change, Update};

/// One in so many new levels is taken, immediately or not at all, instead of being joined.
const TAKEN: usize = 4;
/// At most so much of it.
const TAKEN_MAX: u64 = 5;

/// Where in the books.
type Level = (InstrumentId, Side, i64);

/// Makes commands of a feed's updates, over and over.
pub(crate) struct Flow {
    updates: Vec<Update>,
    /// The instruments' numbers in the stream, by those of the feed.
    ids: HashMap<u64, InstrumentId>,
    at: usize,
    /// Takes the updates whose number leaves this rest, divided by so many.
    share: (usize, usize),
    standing: HashMap<Level, ClientOrderId>,
    levels: HashMap<ClientOrderId, Level>,
}

impl Flow {
    /// Of those instruments that the stream has defined, by the feed's numbers as symbols.
    pub(crate) fn new(
        updates: Vec<Update>,
        share: (usize, usize),
        desk: &Desk,
    ) -> anyhow::Result<Self> {
        let mut ids = HashMap::new();
        for update in &updates {
            if let Ok(named) = desk.names().find(&update.security.to_string()) {
                ids.insert(update.security, named.id);
            }
        }
        let known = updates.iter().filter(|update| ids.contains_key(&update.security)).count();
        ensure!(
            known > share.1,
            "none of the feed's instruments is defined: let an operator send them by --setup-data"
        );
        let (standing, levels) = (HashMap::new(), HashMap::new());
        Ok(Self { updates, ids, at: 0, share, standing, levels })
    }

    /// The next command.
    pub(crate) fn next(&mut self, client_order_id: ClientOrderId) -> Message {
        loop {
            let number = self.at;
            self.at += 1;
            let update = self.updates[number % self.updates.len()];
            if number % self.share.1 != self.share.0 {
                continue;
            }
            let Some(&instrument) = self.ids.get(&update.security) else { continue };
            if let Some(message) = self.message(&update, instrument, client_order_id, number) {
                return message;
            }
        }
    }

    fn message(
        &mut self,
        update: &Update,
        instrument: InstrumentId,
        client_order_id: ClientOrderId,
        number: usize,
    ) -> Option<Message> {
        let Update { side, price, size, change, .. } = *update;
        let level = (instrument, side, price);
        let known = self.standing.get(&level).copied();
        if change == Change::Gone || size == 0 {
            let client_order_id = known?;
            self.forget(client_order_id);
            return Some(CancelOrder { client_order_id, order_id: OrderId(0) }.into());
        }
        if let Some(original) = known {
            self.forget(original);
            self.keep(level, client_order_id);
            let (price, quantity) = (Price(price), Quantity(size));
            return Some(ReplaceOrder { client_order_id, original, price, quantity }.into());
        }
        let takes = (number / self.share.1).is_multiple_of(TAKEN);
        if !takes {
            self.keep(level, client_order_id);
        }
        Some(Message::NewOrder(NewOrder {
            client_order_id,
            price: Price(price),
            quantity: Quantity(if takes { size.min(TAKEN_MAX) } else { size }),
            instrument,
            side: if takes { side.opposite() } else { side },
            order_type: OrderType::Limit,
            time_in_force: if takes { TimeInForce::Ioc } else { TimeInForce::Day },
            post_only: false,
        }))
    }

    fn keep(&mut self, level: Level, order: ClientOrderId) {
        self.standing.insert(level, order);
        self.levels.insert(order, level);
    }

    fn forget(&mut self, order: ClientOrderId) {
        let level = self.levels.remove(&order);
        if let Some(level) = level.filter(|level| self.standing.get(level) == Some(&order)) {
            self.standing.remove(&level);
        }
    }

    /// Takes an event of the client's: orders that are no more are forgotten.
    pub(crate) fn learn(&mut self, record: &Record<'_>) {
        if record.kind != Kind::Event {
            return;
        }
        match Message::decode(record.payload) {
            Ok(Message::Filled(fill)) if fill.leaves == Quantity(0) => {
                self.forget(fill.client_order_id);
            }
            Ok(Message::Cancelled(order)) => self.forget(order.client_order_id),
            Ok(Message::Rejected(order)) => self.forget(order.client_order_id),
            Ok(Message::CancelRejected(order)) => self.forget(order.client_order_id),
            _ => {}
        }
    }
}
