//! What a client knows from the stream: the instruments, its open orders, and the number that its
//! next order may have.

use std::collections::BTreeMap;

use gapless::order::messages::Message;
use gapless::order::{ClientOrderId, InstrumentId, Quantity};
use gapless::sequencer::{ClientId, Kind, Record};

use super::names::{Named, Names};

/// A client's view of the stream.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    client: ClientId,
    names: Names,
    open: BTreeMap<ClientOrderId, InstrumentId>,
    /// The largest number that it has used.
    used: ClientOrderId,
}

impl Desk {
    /// Of a client that has seen nothing yet.
    pub(crate) fn new(client: ClientId) -> Self {
        let (names, open) = (Names::default(), BTreeMap::new());
        Self { client, names, open, used: ClientOrderId(0) }
    }

    /// Takes the next record.
    pub(crate) fn learn(&mut self, record: &Record<'_>) {
        self.names.learn(record);
        if record.client != self.client || !matches!(record.kind, Kind::Command | Kind::Event) {
            return;
        }
        match Message::decode(record.payload) {
            Ok(message) if record.kind == Kind::Command => self.sent(&message),
            Ok(Message::Accepted(order)) => {
                self.open.insert(order.client_order_id, order.instrument);
            }
            Ok(Message::Filled(fill)) if fill.leaves == Quantity(0) => {
                self.open.remove(&fill.client_order_id);
            }
            Ok(Message::Cancelled(order)) => {
                self.open.remove(&order.client_order_id);
            }
            Ok(Message::Listed(order)) => {
                self.open.insert(order.client_order_id, order.instrument);
            }
            Ok(Message::ListEnd(end)) => self.used = self.used.max(end.last),
            Ok(Message::Replaced(order)) => {
                self.open.remove(&order.original);
                self.open.insert(order.client_order_id, order.instrument);
            }
            _ => {}
        }
    }

    /// Takes note that a command is on its way.
    pub(crate) fn sent(&mut self, message: &Message) {
        self.used = match message {
            Message::NewOrder(order) => self.used.max(order.client_order_id),
            Message::ReplaceOrder(order) => self.used.max(order.client_order_id),
            _ => self.used,
        };
    }

    /// Whose it is.
    pub(crate) fn client(&self) -> ClientId {
        self.client
    }

    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// The number for a new order.
    pub(crate) fn next(&self) -> ClientOrderId {
        ClientOrderId(self.used.0 + 1)
    }

    /// What an open order is of.
    pub(crate) fn instrument_of(&self, order: ClientOrderId) -> Option<Named> {
        let id = self.open.get(&order)?;
        self.names.find(&id.to_string()).ok()
    }
}
