//! The seam to where orders trade: an exchange in the same process, or a gateway to one outside.

use super::field::{
    CancelReason, InstrumentId, Liquidity, OrderId, OrderType, Price, Quantity, Reason,
    RouteAction, SelfMatch, Side, TimeInForce,
};
use crate::sequencer::{ClientId, ImageReader, LoadError};

/// An order as a venue sees it: valid, and within its client's limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VenueOrder {
    /// Which.
    pub order_id: OrderId,
    /// Whose.
    pub client: ClientId,
    /// Of what.
    pub instrument: InstrumentId,
    /// Which way.
    pub side: Side,
    /// With a price or without.
    pub order_type: OrderType,
    /// How long it stands.
    pub time_in_force: TimeInForce,
    /// Whether it must not trade at once.
    pub post_only: bool,
    /// The limit; of a market order, the worst price that it may trade at, or 0 for any.
    pub price: Price,
    /// How much is to be traded.
    pub quantity: Quantity,
    /// What happens when it would trade with the same client's.
    pub self_match: SelfMatch,
}

/// What a venue says of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// It was taken.
    Accepted {
        /// Which.
        order_id: OrderId,
    },
    /// It was refused.
    Rejected {
        /// Which.
        order_id: OrderId,
        /// Why.
        reason: Reason,
    },
    /// It traded. Of each trade the standing order is reported first, then the incoming one.
    Filled {
        /// Which.
        order_id: OrderId,
        /// Which trade.
        match_id: u64,
        /// At what price.
        price: Price,
        /// How much of it.
        quantity: Quantity,
        /// Which side of the trade.
        liquidity: Liquidity,
    },
    /// It is out of the market.
    Cancelled {
        /// Which.
        order_id: OrderId,
        /// Why.
        reason: CancelReason,
    },
    /// It has another price or quantity. What it trades at once is reported behind this.
    Replaced {
        /// Which.
        order_id: OrderId,
        /// The new limit.
        price: Price,
        /// What is to be traded from now on.
        leaves: Quantity,
    },
    /// It was not cancelled or replaced, and stands as it was, if it stands at all.
    CancelRejected {
        /// Which.
        order_id: OrderId,
        /// Why.
        reason: Reason,
    },
    /// A gateway has to ask the venue; what it says comes later.
    Route {
        /// Which.
        order_id: OrderId,
        /// What is asked.
        action: RouteAction,
    },
}

/// Somewhere orders trade. Deterministic, as everything behind a sequencer: what it does follows
/// from what it was asked and from the sequenced time alone.
pub trait Venue {
    /// Takes an order. It answers [`Report::Accepted`] or [`Report::Rejected`], and then what else
    /// happens to it, at once or in a later call.
    fn submit(&mut self, now_ns: u64, order: &VenueOrder, reports: &mut Vec<Report>);

    /// Takes an order out: [`Report::Cancelled`] for this reason, or [`Report::CancelRejected`].
    fn cancel(
        &mut self,
        now_ns: u64,
        order_id: OrderId,
        reason: CancelReason,
        reports: &mut Vec<Report>,
    );

    /// Changes the price, and what is to be traded from now on: [`Report::Replaced`], or
    /// [`Report::CancelRejected`].
    fn replace(
        &mut self,
        now_ns: u64,
        order_id: OrderId,
        price: Price,
        leaves: Quantity,
        reports: &mut Vec<Report>,
    );

    /// Does what is due by now. Called before anything else at a new time.
    fn advance(&mut self, now_ns: u64, reports: &mut Vec<Report>);

    /// Whether it can be reached from now on, and how long it takes to act on an order.
    fn set(&mut self, connected: bool, latency_ns: u64);

    /// Appends the state to a snapshot.
    fn save(&self, out: &mut Vec<u8>);

    /// Replaces the state by a saved one.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are no state of this venue.
    fn load(&mut self, image: &mut ImageReader<'_>) -> Result<(), LoadError>;
}
