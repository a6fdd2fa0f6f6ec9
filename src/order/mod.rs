//! The order and execution path: deterministic state machines around one sequenced stream.

pub mod field;
pub mod messages;
mod venue;

pub use field::{
    CancelReason, ClientOrderId, InstrumentId, Liquidity, MarketState, Money, OrderId, OrderType,
    Price, Quantity, Reason, ReportKind, RouteAction, SelfMatch, Side, Symbol, TimeInForce,
};
pub use messages::{Message, MessageError};
pub use venue::{Report, Venue, VenueOrder};
