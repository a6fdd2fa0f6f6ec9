//! A market for the engine: its instruments and limits, set up by commands as in production.

use anyhow::Result;
use gapless::order::{Capacity, Engine, Exchange, Message};
use gapless::sequencer::ClientId;

use super::risk::{instrument, limits};

/// Open orders that there is room for.
const ORDERS: u32 = 1 << 16;

/// An engine in front of a simulated exchange.
pub(super) type Market = Engine<Exchange>;

/// One that knows no instruments yet.
pub(super) fn engine(clients: u16, instruments: u32) -> Market {
    let capacity = Capacity { clients, instruments, orders: ORDERS };
    Engine::new(capacity, Exchange::new(instruments as usize, ORDERS as usize))
}

/// The commands that an operator begins the day with: instruments by their reference prices, and
/// the limits of clients 1 to `clients`.
pub(super) fn opening(clients: u16, references: &[i64]) -> Result<Vec<Vec<u8>>> {
    let mut messages: Vec<Message> = Vec::new();
    for (id, &reference) in (1..).zip(references) {
        messages.push(instrument(id, reference)?.into());
    }
    messages.extend((1..=clients).map(|client| Message::from(limits(ClientId(client)))));
    let encode = |message: Message| {
        let mut bytes = Vec::new();
        message.encode_to(&mut bytes);
        bytes
    };
    Ok(messages.into_iter().map(encode).collect())
}
