//! What a reconciliation found, by name.

use std::fmt;

use thiserror::Error;

use super::super::field::{ClientOrderId, InstrumentId, OrderId};
use super::super::messages::Message;
use crate::sequencer::{ClientId, Record};

/// How many differences a report lists; more are counted.
pub const DIFFERENCES_MAX: usize = 10_000;

/// A field that two sides have different values of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlteredField {
    /// Its name; `message` if the messages are of two kinds, `bytes` if they cannot be read.
    pub field: &'static str,
    /// As the client, or the engine, has it.
    pub theirs: String,
    /// As the stream has it.
    pub stream: String,
}

/// Several fields in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fields(pub Vec<AlteredField>);

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, AlteredField { field, theirs, stream }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{field} is {theirs} there and {stream} in the stream")?;
        }
        Ok(())
    }
}

/// A kind of difference.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DifferenceKind {
    /// Records of the stream are missing in what was given as its log.
    #[error("the stream's records up to {until} are missing in its log")]
    Gap {
        /// The last that is missing.
        until: u64,
    },
    /// A record of the stream's log stands behind a later one.
    #[error("the stream's log goes back to it from {last}")]
    Back {
        /// The later one.
        last: u64,
    },
    /// A client sent a command that was neither sequenced nor refused.
    #[error(
        "command {own} ({message}{}) was sent, and is not in the stream",
        order(*.client_order)
    )]
    Missing {
        /// The client's own sequence number.
        own: u64,
        /// What it is.
        message: &'static str,
        /// Of a message that brings an order, what the client called it.
        client_order: Option<ClientOrderId>,
    },
    /// One command is in the stream twice.
    #[error("command {own}{} is in the stream twice, first as {first}", order(*.client_order))]
    Duplicated {
        /// The client's own sequence number.
        own: u64,
        /// Where it is first in the stream.
        first: u64,
        /// Of a message that brings an order, what the client called it.
        client_order: Option<ClientOrderId>,
    },
    /// A command is not in the stream as it was sent.
    #[error("command {own} was altered: {fields}")]
    Altered {
        /// The client's own sequence number.
        own: u64,
        /// Which fields, and both values.
        fields: Fields,
    },
    /// Commands are in another order than they were sent in; the first one is named.
    #[error("command {own} is in front of command {other} in the stream, and was sent behind it")]
    Reordered {
        /// The client's own sequence number.
        own: u64,
        /// That of the command whose place it took.
        other: u64,
    },
    /// The stream has a command under a client's name that the client never sent.
    #[error("command {own} ({message}{}) was never sent", order(*.client_order))]
    NeverSent {
        /// The sequence number that it has under the client's name.
        own: u64,
        /// What it is.
        message: &'static str,
        /// Of a message that brings an order, what it is called.
        client_order: Option<ClientOrderId>,
    },
    /// The client's own record has two different commands under one number.
    #[error("the client's own record has two different commands {own}")]
    Ambiguous {
        /// The client's own sequence number.
        own: u64,
    },
    /// The client saw a record that is not in the stream, or is not about it.
    #[error("the client saw {message}, which is not in the stream")]
    NotInStream {
        /// What it is.
        message: &'static str,
    },
    /// An event in the stream that the client, connected as it was, did not see.
    #[error("the client did not see {message}{}", order_id(*.order))]
    Unseen {
        /// What it is.
        message: &'static str,
        /// The order it is about, if it is about one.
        order: Option<OrderId>,
    },
    /// The client saw a record otherwise than it is in the stream.
    #[error("the client saw another record: {0}")]
    SeenAltered(Fields),
    /// The client saw a record twice.
    #[error("the client saw it twice")]
    SeenTwice,
    /// The client saw a record behind a later one; the first one is named.
    #[error("the client saw it behind {behind}")]
    SeenLate {
        /// The later record.
        behind: u64,
    },
    /// The stream contradicts itself.
    #[error("the stream contradicts itself about order {order}: {why}")]
    Contradiction {
        /// The order.
        order: OrderId,
        /// How.
        why: &'static str,
    },
    /// An event of an order does not go with the order's past: something in between was lost.
    #[error("an event of order {order} does not go with what was in front of it: {fields}")]
    Broken {
        /// The order.
        order: OrderId,
        /// What should be (theirs), and what the event says (the stream's).
        fields: Fields,
    },
    /// An order is open by the stream, and the engine does not have it.
    #[error("order {0} is open by the stream, and the engine does not have it")]
    NotInEngine(OrderId),
    /// The engine has an open order that is not open by the stream.
    #[error("the engine has order {0} open, and by the stream it is not")]
    OnlyInEngine(OrderId),
    /// The engine has an open order with other values.
    #[error("the engine has order {order} otherwise: {fields}")]
    EngineAltered {
        /// The order.
        order: OrderId,
        /// Which fields, and both values.
        fields: Fields,
    },
    /// A position is not the sum of the stream's fills.
    #[error("{source_name} has {found} of instrument {instrument}, and the fills make {fills}")]
    Position {
        /// Who has it.
        source_name: String,
        /// Of what.
        instrument: InstrumentId,
        /// The position there.
        found: i64,
        /// Bought less sold, by the stream.
        fills: i128,
    },
}

fn order(client_order: Option<ClientOrderId>) -> String {
    client_order.map_or_else(String::new, |id| format!(" of order {id}"))
}

fn order_id(order: Option<OrderId>) -> String {
    order.map_or_else(String::new, |id| format!(" of order {id}"))
}

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where the stream first differs by it: the record itself; of one that is missing, the place
    /// where it should have been; of a position, its last fill.
    pub sequence: u64,
    /// Whose; [`ClientId::NONE`]: nobody's in particular.
    pub client: ClientId,
    /// What it is.
    pub what: DifferenceKind,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} client {}: {}", self.sequence, self.client, self.what)
    }
}

/// What was compared, and what differs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The differences, by place in the stream; at most [`DIFFERENCES_MAX`].
    pub differences: Vec<Difference>,
    /// How many more there are.
    pub left_out: u64,
    /// Records of the stream.
    pub records: u64,
    /// Commands of the stream.
    pub commands: u64,
    /// New orders of the stream, whatever became of them.
    pub orders: u64,
    /// Fills of the stream.
    pub fills: u64,
    /// Clients whose own record was compared.
    pub clients: u64,
    /// Records of theirs.
    pub own_records: u64,
    /// Open orders of the engine; `None` if they were not given.
    pub engine_orders: Option<u64>,
    /// Positions that were given.
    pub positions: u64,
    /// Clients whose own record ends in a torn tail, and the bytes of it. No difference by itself:
    /// what was lost with it is one.
    pub torn: Vec<(ClientId, u64)>,
}

impl Report {
    /// Whether there is no difference.
    pub fn is_clean(&self) -> bool {
        self.differences.is_empty()
    }

    /// Where the stream first differs.
    pub fn first_sequence(&self) -> Option<u64> {
        self.differences.first().map(|difference| difference.sequence)
    }

    /// Sorts the differences, and keeps the first.
    pub(super) fn close(mut self) -> Self {
        self.differences.sort_by_key(|difference| (difference.sequence, difference.client));
        self.left_out = self.differences.len().saturating_sub(DIFFERENCES_MAX) as u64;
        self.differences.truncate(DIFFERENCES_MAX);
        self
    }
}

/// What was compared in the first line, and a line for each difference.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, commands, orders, fills, clients, own_records, positions, .. } = self;
        write!(
            f,
            "{records} records ({commands} commands, {orders} orders, {fills} fills) against \
             {own_records} of {clients} clients, "
        )?;
        if let Some(engine) = self.engine_orders {
            write!(f, "{engine} open orders of the engine, ")?;
        }
        write!(f, "{positions} positions: ")?;
        match self.differences.len() as u64 + self.left_out {
            0 => f.write_str("no difference")?,
            count => write!(f, "{count} differences")?,
        }
        for (client, bytes) in &self.torn {
            write!(f, "\nclient {client}: its own record ends in a torn tail of {bytes} bytes")?;
        }
        self.differences.iter().try_for_each(|difference| write!(f, "\n{difference}"))?;
        if self.left_out > 0 {
            write!(f, "\nand {} more", self.left_out)?;
        }
        Ok(())
    }
}

/// The fields in which two messages differ.
pub(super) fn fields_between(theirs: &[u8], stream: &[u8]) -> Vec<AlteredField> {
    if theirs == stream {
        return Vec::new();
    }
    let bytes = || {
        let text = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        vec![AlteredField { field: "bytes", theirs: text(theirs), stream: text(stream) }]
    };
    let (Ok(their), Ok(our)) = (Message::decode(theirs), Message::decode(stream)) else {
        return bytes();
    };
    let found = fields_of(&their, &our);
    if found.is_empty() { bytes() } else { found }
}

/// The fields in which two readable messages differ.
pub(super) fn fields_of(theirs: &Message, stream: &Message) -> Vec<AlteredField> {
    if theirs.name() != stream.name() {
        let (theirs, stream) = (theirs.to_string(), stream.to_string());
        return vec![AlteredField { field: "message", theirs, stream }];
    }
    let mut values = Vec::new();
    theirs.visit(|field, value| values.push((field, value.to_string())));
    let mut found = Vec::new();
    let mut own = values.into_iter();
    stream.visit(|_, value| {
        let stream = value.to_string();
        if let Some((field, theirs)) = own.next().filter(|(_, theirs)| *theirs != stream) {
            found.push(AlteredField { field, theirs, stream });
        }
    });
    found
}

/// The fields of stamp and message in which two records differ.
pub(super) fn fields_of_records(theirs: &Record<'_>, stream: &Record<'_>) -> Vec<AlteredField> {
    let mut found = Vec::new();
    let mut compare = |field, theirs: &dyn fmt::Display, stream: &dyn fmt::Display| {
        let (theirs, stream) = (theirs.to_string(), stream.to_string());
        if theirs != stream {
            found.push(AlteredField { field, theirs, stream });
        }
    };
    compare("kind", &(theirs.kind as u8), &(stream.kind as u8));
    compare("code", &theirs.code, &stream.code);
    compare("client", &theirs.client, &stream.client);
    compare("term", &theirs.term, &stream.term);
    compare("reference", &theirs.reference, &stream.reference);
    compare("sent", &theirs.sent_ns, &stream.sent_ns);
    compare("time", &theirs.time_ns, &stream.time_ns);
    found.extend(fields_between(theirs.payload, stream.payload));
    found
}
