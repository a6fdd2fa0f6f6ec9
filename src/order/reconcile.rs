//! Reconciliation: clients' own records, the stream's log, the engine's open orders and positions,
//! compared order by order.
//!
//! The log is folded record by record; the others are given as they are. What the log says is
//! checked against itself first (an order's events must follow from each other), so that a record
//! that was lost or changed shows even where nobody else has a word on it. Each difference is
//! named, with the place in the stream where it begins.
//!
//! It takes about as much memory as the log has bytes of clients' records. What a client missed
//! while the stream says that it was gone is no difference.

mod report;
mod sides;

use std::collections::{BTreeMap, BTreeSet};

use super::field::{ClientOrderId, InstrumentId, OrderId, OrderType, Price, Quantity, Side};
use super::messages::{Accepted, Message, NewOrder};
use super::orders::Order;
use super::own::{OwnError, OwnReader, OwnRecord};
use crate::sequencer::{ClientId, Kind, Record, Refusal};
use report::fields_of;
pub use report::{AlteredField, DIFFERENCES_MAX, Difference, DifferenceKind, Fields, Report};

/// An open order as an engine has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOrder {
    /// Which.
    pub order_id: OrderId,
    /// Whose.
    pub client: ClientId,
    /// What the client calls it by now.
    pub client_order_id: ClientOrderId,
    /// Of what.
    pub instrument: InstrumentId,
    /// Which way.
    pub side: Side,
    /// The limit; of a market order, not looked at.
    pub price: Price,
    /// How much is open.
    pub leaves: Quantity,
}

impl From<&Order> for OpenOrder {
    fn from(order: &Order) -> Self {
        Self {
            order_id: order.order_id,
            client: order.client,
            client_order_id: order.client_order_id,
            instrument: order.instrument,
            side: order.side,
            price: order.price,
            leaves: order.leaves(),
        }
    }
}

/// Where a record of a client is in the stream.
#[derive(Clone, Copy, Debug)]
struct At {
    sequence: u64,
    /// Of a command, the client's own number.
    reference: u64,
    kind: Kind,
    /// Whether the client was there to see it.
    seeable: bool,
    /// Of stamp and payload, in [`Reconciliation::bytes`].
    start: usize,
    end: usize,
}

/// What the stream has of one client.
#[derive(Clone, Debug, Default)]
struct Told {
    /// Every record about it, in the stream's order.
    all: Vec<At>,
    /// Its numbers that were used up without being sequenced.
    refused: BTreeSet<u64>,
    gone: bool,
}

/// An order that is open by the stream.
#[derive(Clone, Copy, Debug)]
struct Known {
    open: OpenOrder,
    order_type: OrderType,
    /// As it was sent, until it is accepted.
    sent: Option<NewOrder>,
    filled: Quantity,
    /// The record that the engine would have to know it by.
    sequence: u64,
}

/// What fills add up to.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    quantity: i128,
    last_sequence: u64,
}

/// Positions as somebody has them.
#[derive(Clone, Debug)]
struct Claimed {
    source_name: String,
    positions: BTreeMap<(ClientId, InstrumentId), i64>,
}

/// Gathers the sides, in any order, and compares them.
///
/// ```
/// use gapless::order::Reconciliation;
/// use gapless::sequencer::Record;
///
/// let mut reconciliation = Reconciliation::new();
/// let time = [&[4][..], &[0; 31]].concat();
/// for sequence in [1, 3] {
///     reconciliation.stream(&Record::read(sequence, &time)?);
/// }
/// let report = reconciliation.finish();
/// assert_eq!((report.is_clean(), report.first_sequence()), (false, Some(2))); // a gap
/// # Ok::<(), gapless::sequencer::RecordError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Reconciliation<'a> {
    /// Records of clients, one behind the other.
    bytes: Vec<u8>,
    told: BTreeMap<ClientId, Told>,
    open: BTreeMap<OrderId, Known>,
    fills: BTreeMap<(ClientId, InstrumentId), Sum>,
    last_sequence: u64,
    own: BTreeMap<ClientId, Vec<OwnRecord<'a>>>,
    engine: Option<Vec<OpenOrder>>,
    claimed: Vec<Claimed>,
    report: Report,
}

impl<'a> Reconciliation<'a> {
    /// Nothing to compare yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a client's own record, all of it.
    ///
    /// # Errors
    /// [`OwnError::Damaged`]; what is in front of the damage is taken.
    pub fn client(&mut self, mut reader: OwnReader<'a>) -> Result<(), OwnError> {
        let client = reader.client();
        let own = self.own.entry(client).or_default();
        for record in reader.by_ref() {
            own.push(record?);
        }
        if reader.torn_bytes() > 0 {
            self.report.torn.push((client, reader.torn_bytes()));
        }
        Ok(())
    }

    /// Takes open orders of an engine that has applied the stream as far as it is given here.
    pub fn engine(&mut self, orders: impl IntoIterator<Item = OpenOrder>) {
        self.engine.get_or_insert_default().extend(orders);
    }

    /// Takes positions, bought less sold, as `source_name` has them at the end of the stream. A
    /// position that is not given is zero.
    pub fn positions(
        &mut self,
        source_name: &str,
        positions: impl IntoIterator<Item = (ClientId, InstrumentId, i64)>,
    ) {
        let positions = positions.into_iter().map(|(client, of, held)| ((client, of), held));
        let source_name = source_name.to_owned();
        self.claimed.push(Claimed { source_name, positions: positions.collect() });
    }

    /// Takes the next record of the stream's log.
    pub fn stream(&mut self, record: &Record<'_>) {
        let (sequence, next) = (record.sequence, self.last_sequence + 1);
        self.report.records += 1;
        if sequence < next {
            let last = self.last_sequence;
            self.differ(sequence, record.client, DifferenceKind::Back { last });
            return;
        }
        if sequence > next {
            self.differ(next, ClientId::NONE, DifferenceKind::Gap { until: sequence - 1 });
        }
        self.last_sequence = sequence;
        if record.client != ClientId::NONE {
            self.note(record);
        }
        let message = match record.kind {
            Kind::Command => {
                self.report.commands += 1;
                Message::decode(record.payload)
            }
            Kind::Event => Message::decode(record.payload),
            _ => return,
        };
        match (record.kind, message) {
            (Kind::Command, Ok(Message::NewOrder(order))) => self.begin(record, &order),
            (Kind::Event, Ok(message)) => self.event(record, &message),
            _ => {}
        }
    }

    /// Keeps a record for the client's own to be compared with.
    fn note(&mut self, record: &Record<'_>) {
        let told = self.told.entry(record.client).or_default();
        match record.kind {
            Kind::Connected => told.gone = false,
            Kind::Disconnected => told.gone = true,
            Kind::Refused if Refusal::of(record.code).is_some_and(Refusal::uses_up) => {
                told.refused.insert(record.reference);
            }
            _ => {}
        }
        let Record { sequence, reference, kind, .. } = *record;
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&record.stamp());
        self.bytes.extend_from_slice(record.payload);
        let (end, seeable) = (self.bytes.len(), !told.gone);
        told.all.push(At { sequence, reference, kind, seeable, start, end });
    }

    fn begin(&mut self, record: &Record<'_>, order: &NewOrder) {
        self.report.orders += 1;
        let order_id = OrderId(record.sequence);
        let open = OpenOrder {
            order_id,
            client: record.client,
            client_order_id: order.client_order_id,
            instrument: order.instrument,
            side: order.side,
            price: order.price,
            leaves: order.quantity,
        };
        let known = Known {
            open,
            order_type: order.order_type,
            sent: Some(*order),
            filled: Quantity(0),
            sequence: record.sequence,
        };
        self.open.insert(order_id, known);
    }

    /// What an event says must follow from what was in front of it.
    fn event(&mut self, record: &Record<'_>, message: &Message) {
        if let Message::Filled(fill) = message {
            self.report.fills += 1;
            let sum = self.fills.entry((record.client, fill.instrument)).or_default();
            let quantity = i128::from(fill.quantity.0);
            sum.quantity += if fill.side == Side::Buy { quantity } else { -quantity };
            sum.last_sequence = record.sequence;
        }
        let order = match message {
            Message::Accepted(event) => event.order_id,
            Message::Filled(event) => event.order_id,
            Message::Cancelled(event) => event.order_id,
            Message::Replaced(event) => event.order_id,
            // A gateway's report that was rejected changed nothing.
            Message::Rejected(event) if event.command != NewOrder::TEMPLATE_ID => return,
            Message::Rejected(event) if event.order_id != OrderId(0) => event.order_id,
            Message::Rejected(_) => {
                // Of an order that never got so far as to have an id, if of an order at all.
                self.open.remove(&OrderId(record.reference));
                return;
            }
            _ => return,
        };
        let Some(known) = self.open.get_mut(&order) else {
            let why = "an event of it, and it is not open";
            self.differ(
                record.sequence,
                record.client,
                DifferenceKind::Contradiction { order, why },
            );
            return;
        };
        let is_owners = known.open.client == record.client;
        let expected = known.turn(message);
        if known.open.leaves == Quantity(0) && !matches!(message, Message::Replaced(_)) {
            self.open.remove(&order);
        }
        if !is_owners {
            let why = "an event of it concerns another client";
            self.differ(
                record.sequence,
                record.client,
                DifferenceKind::Contradiction { order, why },
            );
        }
        let fields = fields_of(&expected, message);
        if !fields.is_empty() {
            let fields = Fields(fields);
            self.differ(record.sequence, record.client, DifferenceKind::Broken { order, fields });
        }
    }

    fn differ(&mut self, sequence: u64, client: ClientId, what: DifferenceKind) {
        self.report.differences.push(Difference { sequence, client, what });
    }

    /// Compares what was given.
    pub fn finish(mut self) -> Report {
        for (client, own) in std::mem::take(&mut self.own) {
            self.report.clients += 1;
            self.report.own_records += own.len() as u64;
            let told = self.told.remove(&client).unwrap_or_default();
            sides::Sides::new(client, &own, &told, &self.bytes, self.last_sequence)
                .compare(&mut self.report.differences);
        }
        if let Some(engine) = self.engine.take() {
            self.report.engine_orders = Some(engine.len() as u64);
            self.compare_engine(engine);
        }
        for claimed in std::mem::take(&mut self.claimed) {
            self.report.positions += claimed.positions.len() as u64;
            self.compare_positions(&claimed);
        }
        self.report.close()
    }

    fn compare_engine(&mut self, engine: Vec<OpenOrder>) {
        let mut open = std::mem::take(&mut self.open);
        for order in engine {
            let OpenOrder { order_id, client, .. } = order;
            let Some(known) = open.remove(&order_id) else {
                // One that is given twice is not open the second time.
                self.differ(order_id.0, client, DifferenceKind::OnlyInEngine(order_id));
                continue;
            };
            let fields = known.fields_to(&order);
            if !fields.is_empty() {
                let what =
                    DifferenceKind::EngineAltered { order: order_id, fields: Fields(fields) };
                self.differ(known.sequence, known.open.client, what);
            }
        }
        for (order, known) in open {
            self.differ(known.sequence, known.open.client, DifferenceKind::NotInEngine(order));
        }
    }

    fn compare_positions(&mut self, claimed: &Claimed) {
        let keys: BTreeSet<_> =
            claimed.positions.keys().chain(self.fills.keys()).copied().collect();
        for key in keys {
            let sum = self.fills.get(&key).copied().unwrap_or_default();
            let found = claimed.positions.get(&key).copied().unwrap_or_default();
            if i128::from(found) != sum.quantity {
                let (client, instrument) = key;
                let source_name = claimed.source_name.clone();
                let fills = sum.quantity;
                let what = DifferenceKind::Position { source_name, instrument, found, fills };
                self.differ(sum.last_sequence, client, what);
            }
        }
    }
}

impl Known {
    /// Takes an event, as it is; says what it should have been.
    fn turn(&mut self, message: &Message) -> Message {
        let open = &mut self.open;
        let OpenOrder { client_order_id, order_id, instrument, side, .. } = *open;
        match *message {
            Message::Accepted(event) => {
                let Some(sent) = self.sent.take() else {
                    return Message::Accepted(event);
                };
                open.price = event.price;
                open.leaves = event.quantity;
                Message::Accepted(Accepted {
                    client_order_id,
                    order_id,
                    price: if sent.order_type == OrderType::Limit {
                        sent.price
                    } else {
                        event.price
                    },
                    quantity: sent.quantity,
                    instrument,
                    side,
                    order_type: sent.order_type,
                    time_in_force: sent.time_in_force,
                    post_only: sent.post_only,
                })
            }
            Message::Filled(mut event) => {
                let leaves = Quantity(open.leaves.0.saturating_sub(event.quantity.0));
                self.filled.0 = self.filled.0.saturating_add(event.quantity.0);
                open.leaves = event.leaves;
                (event.client_order_id, event.leaves) = (client_order_id, leaves);
                (event.instrument, event.side) = (instrument, side);
                Message::Filled(event)
            }
            Message::Cancelled(mut event) => {
                (event.client_order_id, event.quantity) = (client_order_id, open.leaves);
                (event.instrument, event.side) = (instrument, side);
                open.leaves = Quantity(0);
                Message::Cancelled(event)
            }
            Message::Replaced(mut event) => {
                let leaves = Quantity(event.quantity.0.saturating_sub(self.filled.0));
                open.client_order_id = event.client_order_id;
                (open.price, open.leaves) = (event.price, event.leaves);
                if let Some(sent) = &mut self.sent {
                    // A gateway may replace an order before it says that it was accepted.
                    sent.client_order_id = event.client_order_id;
                    (sent.price, sent.quantity) = (event.price, event.quantity);
                }
                (event.original, event.leaves) = (client_order_id, leaves);
                (event.instrument, event.side) = (instrument, side);
                Message::Replaced(event)
            }
            ref other => {
                open.leaves = Quantity(0); // rejected
                *other
            }
        }
    }

    /// The fields in which the engine has the order otherwise.
    fn fields_to(&self, theirs: &OpenOrder) -> Vec<AlteredField> {
        let mut found = Vec::new();
        let mut compare =
            |field, theirs: &dyn std::fmt::Display, stream: &dyn std::fmt::Display| {
                let (theirs, stream) = (theirs.to_string(), stream.to_string());
                if theirs != stream {
                    found.push(AlteredField { field, theirs, stream });
                }
            };
        let stream = &self.open;
        compare("client", &theirs.client, &stream.client);
        compare("client_order_id", &theirs.client_order_id, &stream.client_order_id);
        compare("instrument", &theirs.instrument, &stream.instrument);
        compare("side", &theirs.side, &stream.side);
        if self.order_type == OrderType::Limit {
            compare("price", &theirs.price, &stream.price);
        }
        compare("leaves", &theirs.leaves, &stream.leaves);
        found
    }
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
