//! Records of the stream as a client is told them: a line, or a JSON object.

use gapless::order::messages::Message;
use gapless::order::{Entry, Liquidity, What};
use gapless::sequencer::{Kind, Record, Refusal};
use serde_json::{Map, Value};

use super::names::Names;

/// What an event says to its client.
pub(crate) fn event(message: &Message, names: &Names) -> String {
    match message {
        Message::Accepted(order) => {
            let at = match names.price(order.instrument, order.price) {
                _ if order.order_type == gapless::order::OrderType::Market => String::new(),
                price => format!(" @ {price}"),
            };
            let symbol = names.symbol(order.instrument);
            let side = order.side.to_string().to_lowercase();
            let (name, quantity, id) = (order.client_order_id, order.quantity, order.order_id);
            format!("accepted {name}: {side} {quantity} {symbol}{at}, order #{id}")
        }
        Message::Rejected(rejected) => match rejected.client_order_id.0 {
            0 => format!("rejected: {}", rejected.reason),
            name => format!("rejected {name}: {}", rejected.reason),
        },
        Message::Filled(fill) => {
            let (symbol, price) =
                (names.symbol(fill.instrument), names.price(fill.instrument, fill.price));
            let part = match fill.liquidity {
                Liquidity::Maker => "maker",
                Liquidity::Taker => "taker",
            };
            let fee = match fill.fee.0 {
                0 => String::new(),
                _ => format!(", fee {}", names.money(fill.instrument, fill.fee)),
            };
            let side = if fill.side == gapless::order::Side::Buy { "bought" } else { "sold" };
            let (name, quantity, leaves) = (fill.client_order_id, fill.quantity, fill.leaves);
            format!(
                "filled {name}: {side} {quantity} {symbol} @ {price}, {leaves} left, {part}{fee}"
            )
        }
        Message::Cancelled(order) => {
            let symbol = names.symbol(order.instrument);
            let (name, quantity) = (order.client_order_id, order.quantity);
            format!("cancelled {name}: {quantity} {symbol}, {}", order.reason)
        }
        Message::Replaced(order) => {
            let (symbol, price) =
                (names.symbol(order.instrument), names.price(order.instrument, order.price));
            let (name, original, leaves) = (order.client_order_id, order.original, order.leaves);
            format!("replaced {original} by {name}: {leaves} {symbol} @ {price} open")
        }
        Message::CancelRejected(rejected) => match rejected.client_order_id.0 {
            0 => format!("cancel rejected of #{}: {}", rejected.order_id, rejected.reason),
            name => format!("cancel rejected {name}: {}", rejected.reason),
        },
        Message::Listed(order) => {
            let price = names.price(order.instrument, order.price);
            let symbol = names.symbol(order.instrument);
            let side = order.side.to_string().to_lowercase();
            let (name, quantity, leaves) = (order.client_order_id, order.quantity, order.leaves);
            let id = order.order_id;
            format!("open {name}: {side} {quantity} {symbol} @ {price}, {leaves} left, order #{id}")
        }
        Message::ListEnd(end) => format!("{} open, the last was {}", end.orders, end.last),
        other => other.to_string(),
    }
}

/// A record that a client is told: an event of its own, or that a command was refused.
pub(crate) fn answer(record: &Record<'_>, names: &Names) -> Option<String> {
    match record.kind {
        Kind::Event => Some(match Message::decode(record.payload) {
            Ok(message) => event(&message, names),
            Err(error) => format!("an event that cannot be read: {error}"),
        }),
        Kind::Refused => {
            let why = match Refusal::of(record.code) {
                Some(Refusal::Gap) => return None, // it is sent again
                Some(why) => why.to_string(),
                None => "for a reason that this version does not know".into(),
            };
            Some(format!("refused command {}: {why}", record.reference))
        }
        _ => None,
    }
}

/// An entry as one object, the message's fields among the rest.
pub(crate) fn object(entry: &Entry) -> Value {
    let mut object = Map::new();
    let mut add = |key: &str, value: Value| object.insert(key.to_owned(), value);
    add("sequence", entry.sequence.into());
    add("kind", format!("{:?}", entry.kind).to_lowercase().into());
    add("time_ns", entry.time_ns.into());
    add("client", entry.client.0.into());
    add("term", entry.term.into());
    add("reference", entry.reference.into());
    if entry.sent_ns != 0 {
        add("sent_ns", entry.sent_ns.into());
    }
    match &entry.what {
        What::Message(message) => {
            add("message", message.name().into());
            let mut fields = Map::new();
            message.visit(|name, value| {
                fields.insert(name.to_owned(), plain(value.to_string()));
            });
            add("fields", fields.into());
        }
        What::Unreadable { error, .. } => {
            add("unreadable", error.to_string().into());
        }
        What::Refused(Some(why)) => {
            add("why", why.to_string().into());
        }
        What::Disconnected(Some(why)) => {
            add("why", why.to_string().into());
        }
        _ => {}
    }
    if let gapless::order::Outcome::Rejected(reason) = entry.outcome {
        add("rejected", reason.to_string().into());
    }
    object.into()
}

/// A field's value: a number or a truth if it is one.
fn plain(text: String) -> Value {
    match text.as_str() {
        "true" => true.into(),
        "false" => false.into(),
        _ => match (text.parse::<i64>(), text.parse::<u64>()) {
            (Ok(number), _) => number.into(),
            (_, Ok(number)) => number.into(),
            _ => text.into(),
        },
    }
}
