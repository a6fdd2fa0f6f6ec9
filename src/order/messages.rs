//! The order path's messages: fixed layouts, little-endian, each behind SBE's message header.
//!
//! `schema.xml` beside this file is the same as an SBE 1.0 schema (FIX Simple Binary Encoding), so
//! that other languages can generate their codecs; a test keeps the two equal. A message is
//!
//! | bytes | field |
//! |---|---|
//! | 0-1 | block length: bytes behind the header |
//! | 2-3 | template id: which message |
//! | 4-5 | schema id: [`SCHEMA_ID`] |
//! | 6-7 | version: [`SCHEMA_VERSION`] of who wrote it |
//! | 8- | the fields, one after the other as listed, without padding |
//!
//! Fields are only ever appended, and only with a new version; a reader takes longer blocks than
//! it knows, and leaves the rest alone.
//!
//! Commands travel as payloads of [`Kind::Command`](crate::sequencer::Kind::Command), events as
//! those of [`Kind::Event`](crate::sequencer::Kind::Event); the record's stamp says whose they are,
//! when it was, and (by an event's reference) which record caused it.

use std::fmt;

use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::field::{
    CancelReason, ClientOrderId, Field, InstrumentId, Liquidity, MarketState, Money, OrderId,
    OrderType, Price, Quantity, Reason, ReportKind, RouteAction, SelfMatch, Side, Symbol,
    TimeInForce,
};
#[cfg(test)]
pub(crate) use super::layout::Layout;
pub use super::layout::{HEADER_BYTES, MESSAGE_BYTES_MAX, MessageError, SCHEMA_ID, SCHEMA_VERSION};
use super::layout::{Header, messages};
use crate::sequencer::ClientId;

messages! {
    // Commands of traders.

    /// A new order. Answered by [`Accepted`] and what the market does with it, or by [`Rejected`].
    NewOrder = 1 {
        /// Larger than any that the client has used; used up whatever the answer.
        client_order_id: ClientOrderId,
        /// The limit; of a market order, not looked at.
        price: Price,
        /// How much.
        quantity: Quantity,
        /// Of what.
        instrument: InstrumentId,
        /// Which way.
        side: Side,
        /// With a price or without.
        order_type: OrderType,
        /// How long it stands.
        time_in_force: TimeInForce,
        /// Whether it must not trade at once.
        post_only: bool,
    }

    /// Takes an order out. Answered by [`Cancelled`] or [`CancelRejected`].
    CancelOrder = 2 {
        /// The order by the client's own number; not looked at if `order_id` is not 0.
        client_order_id: ClientOrderId,
        /// The order by its order id; 0 if by the client's.
        order_id: OrderId,
    }

    /// Changes price and quantity of an order. Answered by [`Replaced`] and what the market does
    /// with it, or by [`CancelRejected`]: then the order stands as it was. Only a smaller quantity
    /// at the same price keeps its place in the queue.
    ReplaceOrder = 3 {
        /// What the order is called from now on: larger than any that the client has used.
        client_order_id: ClientOrderId,
        /// What it was called.
        original: ClientOrderId,
        /// The new limit.
        price: Price,
        /// The new quantity, what has been filled included.
        quantity: Quantity,
    }

    /// Takes out all of the client's own orders. Answered by a [`Cancelled`] for each.
    MassCancel = 4 {
        /// Of which instrument; 0: of all.
        instrument: InstrumentId,
    }

    /// Asks which of the client's own orders are open: after a restart, or a day's silence.
    /// Answered by a [`Listed`] for each, in the order in which they came, and [`ListEnd`].
    ListOrders = 5 {
        /// Of which instrument; 0: of all.
        instrument: InstrumentId,
    }

    // Commands of operators.

    /// Defines an instrument, or redefines one that has no open orders and no positions.
    DefineInstrument = 16 {
        /// Its name.
        symbol: Symbol,
        /// Prices are multiples of this, at least 1.
        tick: Price,
        /// Quantities are multiples of this, at least 1.
        lot: Quantity,
        /// Money per unit of price and quantity, at least 1.
        multiplier: u64,
        /// A first reference price; 0: none.
        reference: Price,
        /// Its number, at least 1.
        instrument: InstrumentId,
        /// Prices are in units of ten to this power, -18 to 18.
        price_exponent: i8,
        /// Whether it can be traded.
        state: MarketState,
    }

    /// Opens, halts or closes an instrument.
    SetMarketState = 17 {
        /// Which; 0: all.
        instrument: InstrumentId,
        /// What it is from now on.
        state: MarketState,
    }

    /// Stops a client, or everybody, and lets go again.
    KillSwitch = 18 {
        /// Whom; 0: everybody.
        client: ClientId,
        /// Stopped from now on, or no longer.
        engaged: bool,
        /// Whether open orders are cancelled as well.
        cancel_open: bool,
    }

    /// Sets a client's limits. For all of them, 0 stands for no limit.
    SetLimits = 19 {
        /// Of one order.
        max_quantity: Quantity,
        /// Of one order, price times quantity times multiplier.
        max_notional: Money,
        /// Of each instrument, open orders on the same side included, either way.
        max_position: Quantity,
        /// Of all positions and open orders, at the reference price.
        max_gross: Money,
        /// What may be paid for purchases and reserved for open ones, less what sales brought.
        credit: Money,
        /// Realised and open loss of the day.
        max_loss: Money,
        /// Of all instruments together.
        max_open_orders: u32,
        /// New orders and replacements in a second of sequenced time.
        max_orders_per_second: u32,
        /// How far from the reference price an order may be, in hundredths of a percent.
        collar_basis_points: u32,
        /// How old the reference price may be, milliseconds.
        reference_age_ms: u32,
        /// Paid on a maker's fill, in millionths of its notional; a rebate if negative.
        maker_fee_ppm: i32,
        /// Paid on a taker's fill, in millionths of its notional.
        taker_fee_ppm: i32,
        /// Whose.
        client: ClientId,
        /// What happens when the client would trade with itself.
        self_match: SelfMatch,
        /// Whether open orders are cancelled when the client is gone.
        cancel_on_disconnect: bool,
        /// Whether the loss limit also cancels what is open, and stops the client.
        stop_on_breach: bool,
    }

    /// Sets the reference price that collars and exposures go by. Trades set it as well.
    SetReference = 20 {
        /// The price; 0: there is none any more, and positions stay marked at the last one.
        price: Price,
        /// Of what.
        instrument: InstrumentId,
    }

    /// Says whether the venue can be reached. Orders for one that cannot are rejected.
    SetVenue = 21 {
        /// How long the simulated exchange takes to act on an order, ns of sequenced time.
        latency_ns: u64,
        /// Whether it can be reached.
        connected: bool,
    }

    // Commands of gateways.

    /// What a venue did with an order that was [`Routed`] to it.
    VenueReport = 32 {
        /// Which order.
        order_id: OrderId,
        /// The venue's number of the trade, of a fill.
        match_id: u64,
        /// Of a fill, the price of the trade; of a replacement, the new one.
        price: Price,
        /// Of a fill, how much of it; of a replacement, the new total.
        quantity: Quantity,
        /// What happened.
        kind: ReportKind,
        /// Of a fill, which side it was.
        liquidity: Liquidity,
        /// Of a rejection, why.
        reason: Reason,
    }

    // Events.

    /// The order is valid, within the limits, and taken by the venue.
    Accepted = 64 {
        /// By the client.
        client_order_id: ClientOrderId,
        /// From now on.
        order_id: OrderId,
        /// The limit; of a market order, the worst price that it may trade at, or 0 for any.
        price: Price,
        /// How much.
        quantity: Quantity,
        /// Of what.
        instrument: InstrumentId,
        /// Which way.
        side: Side,
        /// With a price or without.
        order_type: OrderType,
        /// How long it stands.
        time_in_force: TimeInForce,
        /// Whether it must not trade at once.
        post_only: bool,
    }

    /// The command was not carried out.
    Rejected = 65 {
        /// Of a new order, its client order id; else 0.
        client_order_id: ClientOrderId,
        /// Of an order that had been routed to the venue, its order id; else 0.
        order_id: OrderId,
        /// Of an order, its instrument; else 0.
        instrument: InstrumentId,
        /// Template id of the command; 0 if it could not be read.
        command: u16,
        /// Why.
        reason: Reason,
    }

    /// An order traded, all of it or some.
    Filled = 66 {
        /// By the client.
        client_order_id: ClientOrderId,
        /// Which order.
        order_id: OrderId,
        /// The trade: the same for both sides, 1 the first.
        match_id: u64,
        /// Of the trade.
        price: Price,
        /// Of the trade.
        quantity: Quantity,
        /// What is still open.
        leaves: Quantity,
        /// What it cost; negative is a rebate.
        fee: Money,
        /// Of what.
        instrument: InstrumentId,
        /// Which way.
        side: Side,
        /// Which side of the trade.
        liquidity: Liquidity,
    }

    /// An order, or the rest of one, is out of the market.
    Cancelled = 67 {
        /// By the client.
        client_order_id: ClientOrderId,
        /// Which order.
        order_id: OrderId,
        /// What was open.
        quantity: Quantity,
        /// Of what.
        instrument: InstrumentId,
        /// Which way.
        side: Side,
        /// Why.
        reason: CancelReason,
    }

    /// An order has another price, quantity and client order id.
    Replaced = 68 {
        /// By the client, from now on.
        client_order_id: ClientOrderId,
        /// By the client, until now.
        original: ClientOrderId,
        /// Which order.
        order_id: OrderId,
        /// The new limit.
        price: Price,
        /// The new quantity, what has been filled included.
        quantity: Quantity,
        /// What is open.
        leaves: Quantity,
        /// Of what.
        instrument: InstrumentId,
        /// Which way.
        side: Side,
    }

    /// An order was not cancelled or replaced, and stands as it was, if it stands at all.
    CancelRejected = 69 {
        /// Of a replacement, the id that it would have had; of a cancel, what it named.
        client_order_id: ClientOrderId,
        /// Which order; 0 if there is none.
        order_id: OrderId,
        /// Template id of the command.
        command: u16,
        /// Why.
        reason: Reason,
    }

    /// What a gateway is to ask of its venue. It is concerned, not the order's client.
    Routed = 70 {
        /// By the client.
        client_order_id: ClientOrderId,
        /// Which order: the venue's reports name it.
        order_id: OrderId,
        /// The limit; of a market order, the worst price that it may trade at, or 0 for any.
        price: Price,
        /// The quantity, what has been filled included.
        quantity: Quantity,
        /// Of what.
        instrument: InstrumentId,
        /// Whose.
        client: ClientId,
        /// What to do.
        action: RouteAction,
        /// Which way.
        side: Side,
        /// With a price or without.
        order_type: OrderType,
        /// How long it stands.
        time_in_force: TimeInForce,
        /// Whether it must not trade at once.
        post_only: bool,
    }

    /// A client broke a limit after the fact: what it has lost is more than it may.
    Breached = 71 {
        /// How much it is.
        value: Money,
        /// How much it may be.
        limit: Money,
        /// Which limit.
        reason: Reason,
        /// Whether the client was stopped for it.
        stopped: bool,
    }

    /// An open order, as it was asked for.
    Listed = 72 {
        /// By the client.
        client_order_id: ClientOrderId,
        /// Which order.
        order_id: OrderId,
        /// The limit.
        price: Price,
        /// The quantity, what has been filled included.
        quantity: Quantity,
        /// What is open.
        leaves: Quantity,
        /// Of what.
        instrument: InstrumentId,
        /// Which way.
        side: Side,
        /// Whether the venue has taken it.
        accepted: bool,
    }

    /// All that was asked for has been listed.
    ListEnd = 73 {
        /// The largest client order id that the client has used.
        last: ClientOrderId,
        /// How many that was.
        orders: u32,
    }
}

impl Message {
    /// The template id of what may be a message of this schema, without reading further; `None` if
    /// it is none.
    #[inline]
    pub fn template_of(bytes: &[u8]) -> Option<u16> {
        let (header, _) = Header::ref_from_prefix(bytes).ok()?;
        (header.schema_id.get() == SCHEMA_ID).then(|| header.template_id.get())
    }
}

/// In one line: its name, and its fields by name.
///
/// ```
/// use gapless::order::{ClientOrderId, messages::CancelOrder, Message, OrderId};
///
/// let cancel = CancelOrder { client_order_id: ClientOrderId(1001), order_id: OrderId(0) };
/// let text = Message::from(cancel).to_string();
/// assert_eq!(text, "CancelOrder client_order_id=1001 order_id=0");
/// ```
impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let mut result = Ok(());
        self.visit(|name, value| result = result.and_then(|()| write!(f, " {name}={value}")));
        result
    }
}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
