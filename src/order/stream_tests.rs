//! A sequenced stream made by hand, for the tests of those who fold it.

use super::field::*;
use super::messages::*;
use crate::sequencer::{ClientId, Kind, Leaving, Record, Refusal, Role, STAMP_BYTES};

/// 2025-11-22T05:20:00Z.
pub(super) const START_NS: u64 = 1_763_788_800_000_000_000;
pub(super) const AAPL: InstrumentId = InstrumentId(1);
pub(super) const OPERATOR: ClientId = ClientId(1);

/// Messages of a stream, one after the other, each a stamp and a payload; the first has sequence 1.
#[derive(Clone, Default)]
pub(super) struct Stream {
    pub(super) messages: Vec<(u64, Vec<u8>)>,
    next: u64,
}

impl Stream {
    pub(super) fn records(&self) -> impl Iterator<Item = Record<'_>> {
        self.messages.iter().map(|(sequence, bytes)| Record::read(*sequence, bytes).unwrap())
    }

    pub(super) fn record(&self, sequence: u64) -> Record<'_> {
        self.records().find(|record| record.sequence == sequence).unwrap()
    }

    /// Appends a record of any kind, and says its sequence number.
    pub(super) fn put(
        &mut self,
        kind: Kind,
        code: u8,
        client: ClientId,
        reference: u64,
        payload: &[u8],
    ) -> u64 {
        self.next += 1;
        let sequence = self.next;
        let time_ns = START_NS + sequence * 1_000;
        let sent_ns = if kind == Kind::Command { time_ns - 100 } else { 0 };
        let record =
            Record { sequence, kind, code, client, term: 1, reference, sent_ns, time_ns, payload };
        let mut bytes = record.stamp().to_vec();
        assert_eq!(bytes.len(), STAMP_BYTES);
        bytes.extend(payload);
        self.messages.push((sequence, bytes));
        sequence
    }

    pub(super) fn command(
        &mut self,
        client: ClientId,
        own: u64,
        message: impl Into<Message>,
    ) -> u64 {
        let role = if client == OPERATOR { Role::Operator } else { Role::Trader };
        let mut payload = Vec::new();
        message.into().encode_to(&mut payload);
        self.put(Kind::Command, role as u8, client, own, &payload)
    }

    pub(super) fn event(
        &mut self,
        client: ClientId,
        cause: u64,
        message: impl Into<Message>,
    ) -> u64 {
        let mut payload = Vec::new();
        message.into().encode_to(&mut payload);
        self.put(Kind::Event, 0, client, cause, &payload)
    }

    pub(super) fn refused(&mut self, client: ClientId, own: u64, why: Refusal) -> u64 {
        self.put(Kind::Refused, why as u8, client, own, &[])
    }

    pub(super) fn left(&mut self, client: ClientId, why: Leaving) -> u64 {
        self.put(Kind::Disconnected, why as u8, client, 0, &[])
    }
}

pub(super) fn define(instrument: InstrumentId, symbol: &str) -> DefineInstrument {
    DefineInstrument {
        symbol: Symbol::new(symbol).unwrap(),
        tick: Price(1),
        lot: Quantity(1),
        multiplier: 1,
        reference: Price(0),
        instrument,
        price_exponent: -2,
        state: MarketState::Open,
    }
}

pub(super) fn new_order(id: u64, side: Side, quantity: u64, price: i64) -> NewOrder {
    NewOrder {
        client_order_id: ClientOrderId(id),
        price: Price(price),
        quantity: Quantity(quantity),
        instrument: AAPL,
        side,
        order_type: OrderType::Limit,
        time_in_force: TimeInForce::Day,
        post_only: false,
    }
}

/// What the engine says of an order that the command `order_id` brought.
pub(super) fn accepted(order: &NewOrder, order_id: u64) -> Accepted {
    Accepted {
        client_order_id: order.client_order_id,
        order_id: OrderId(order_id),
        price: order.price,
        quantity: order.quantity,
        instrument: order.instrument,
        side: order.side,
        order_type: order.order_type,
        time_in_force: order.time_in_force,
        post_only: order.post_only,
    }
}

pub(super) fn rejected(order: &NewOrder, reason: Reason) -> Rejected {
    Rejected {
        client_order_id: order.client_order_id,
        order_id: OrderId(0),
        instrument: order.instrument,
        command: NewOrder::TEMPLATE_ID,
        reason,
    }
}

pub(super) fn filled(order: &NewOrder, order_id: u64, quantity: u64, leaves: u64) -> Filled {
    Filled {
        client_order_id: order.client_order_id,
        order_id: OrderId(order_id),
        match_id: order_id,
        price: order.price,
        quantity: Quantity(quantity),
        leaves: Quantity(leaves),
        fee: Money(1),
        instrument: order.instrument,
        side: order.side,
        liquidity: Liquidity::Taker,
    }
}

pub(super) fn cancelled(order: &NewOrder, order_id: u64, reason: CancelReason) -> Cancelled {
    Cancelled {
        client_order_id: order.client_order_id,
        order_id: OrderId(order_id),
        quantity: order.quantity,
        instrument: order.instrument,
        side: order.side,
        reason,
    }
}
