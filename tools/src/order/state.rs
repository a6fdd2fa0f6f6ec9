//! The state of an engine as others are told it: what it has open, who holds what.

use std::collections::BTreeMap;

use gapless::order::{
    ClientOrderId, Engine, InstrumentId, OpenOrder, OrderId, Price, Quantity, Side, Venue,
};
use gapless::sequencer::{Application, ClientId};
use serde::{Deserialize, Serialize};

/// An engine's state behind a record of the stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// Sequence number of the next record.
    pub(crate) next_sequence: u64,
    /// Of all that the engine would save.
    pub(crate) hash: String,
    pub(crate) orders: Vec<Open>,
    pub(crate) positions: Vec<Holding>,
}

/// An open order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Open {
    order_id: u64,
    client: u16,
    client_order_id: u64,
    instrument: u32,
    /// Whether it buys.
    buys: bool,
    price: i64,
    leaves: u64,
}

/// What a client holds of an instrument: bought less sold, not 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Holding {
    client: u16,
    instrument: u32,
    quantity: i64,
}

impl State {
    /// Of an engine that has come as far as `next_sequence`, and serves clients up to `clients`.
    pub(crate) fn of<V: Venue>(engine: &Engine<V>, next_sequence: u64, clients: u16) -> Self {
        let mut image = Vec::new();
        engine.save(&mut image);
        let hash = format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&image));
        let mut orders: Vec<Open> = engine
            .orders()
            .iter()
            .map(|order| Open {
                order_id: order.order_id.0,
                client: order.client.0,
                client_order_id: order.client_order_id.0,
                instrument: order.instrument.0,
                buys: order.side == Side::Buy,
                price: order.price.0,
                leaves: order.leaves().0,
            })
            .collect();
        orders.sort_by_key(|order| order.order_id);
        let mut positions = Vec::new();
        for client in 1..=clients {
            for instrument in engine.instruments().iter() {
                let quantity = engine.risk().position(ClientId(client), instrument.id);
                let instrument = instrument.id.0;
                positions.extend((quantity != 0).then_some(Holding {
                    client,
                    instrument,
                    quantity,
                }));
            }
        }
        Self { next_sequence, hash, orders, positions }
    }

    /// How the state of an engine that ran differs from this, which was made of its stream.
    pub(crate) fn differences(&self, theirs: &Self) -> Vec<String> {
        let mut found = Vec::new();
        if self.next_sequence != theirs.next_sequence {
            let (ours, theirs) = (self.next_sequence, theirs.next_sequence);
            found.push(format!("the engine had come to #{theirs}, the stream goes to #{ours}"));
        }
        let mut open: BTreeMap<u64, &Open> =
            theirs.orders.iter().map(|order| (order.order_id, order)).collect();
        for order in &self.orders {
            let id = order.order_id;
            match open.remove(&id) {
                Some(other) if other == order => {}
                Some(_) => found.push(format!("order #{id} is not as the engine had it")),
                None => found.push(format!("order #{id} is open, and was not in the engine")),
            }
        }
        let gone = open.keys().map(|id| format!("order #{id} was open in the engine, and is not"));
        found.extend(gone);
        if found.is_empty() && self.hash != theirs.hash {
            found.push("the engine's saved state has other bytes".into());
        }
        found
    }

    /// The open orders, as a reconciliation takes them.
    pub(crate) fn open(&self) -> impl Iterator<Item = OpenOrder> {
        self.orders.iter().map(|order| OpenOrder {
            order_id: OrderId(order.order_id),
            client: ClientId(order.client),
            client_order_id: ClientOrderId(order.client_order_id),
            instrument: InstrumentId(order.instrument),
            side: if order.buys { Side::Buy } else { Side::Sell },
            price: Price(order.price),
            leaves: Quantity(order.leaves),
        })
    }

    /// The positions, as a reconciliation takes them.
    pub(crate) fn held(&self) -> impl Iterator<Item = (ClientId, InstrumentId, i64)> {
        self.positions
            .iter()
            .map(|held| (ClientId(held.client), InstrumentId(held.instrument), held.quantity))
    }
}
