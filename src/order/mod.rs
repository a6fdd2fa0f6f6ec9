//! The order and execution path: deterministic state machines around one sequenced stream.

pub mod field;
mod id_map;
pub mod messages;
mod venue;

pub use field::{
    CancelReason, ClientOrderId, InstrumentId, Liquidity, MarketState, Money, OrderId, OrderType,
    Price, Quantity, Reason, ReportKind, RouteAction, SelfMatch, Side, Symbol, TimeInForce,
};
pub use id_map::IdMap;
pub use messages::{Message, MessageError};
pub use venue::{Report, Venue, VenueOrder};
