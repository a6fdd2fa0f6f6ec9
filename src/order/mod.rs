//! The order and execution path: deterministic state machines around one sequenced stream.

mod account;
mod book;
mod engine;
mod exchange;
pub mod field;
mod id_map;
mod instrument;
mod limits;
pub mod messages;
mod orders;
mod remote;
mod risk;
#[cfg(test)]
mod simulation_tests;
mod venue;

pub use book::{Book, BookView, LEVELS, Level};
pub use engine::{Capacity, Engine};
pub use exchange::{Exchange, SeedError};
pub use field::{
    CancelReason, ClientOrderId, InstrumentId, Liquidity, MarketState, Money, OrderId, OrderType,
    Price, Quantity, Reason, ReportKind, RouteAction, SelfMatch, Side, Symbol, TimeInForce,
};
pub use id_map::IdMap;
pub use instrument::{Instrument, Instruments};
pub use limits::Limits;
pub use messages::{Message, MessageError};
pub use orders::{Cancelling, Change, Order, Orders};
pub use remote::Remote;
pub use risk::{Figures, Fill, Intent, MARKED_IN_TURN, Reserved, Risk};
pub use venue::{Report, Venue, VenueOrder};
