//! The order and execution path: deterministic state machines around one sequenced stream.

mod account;
mod audit;
mod book;
mod engine;
mod entry;
mod exchange;
pub mod field;
mod held;
mod id_map;
mod instrument;
mod layout;
mod limits;
pub mod messages;
mod notify;
mod orders;
mod own;
mod positions;
mod reconcile;
mod remote;
mod risk;
#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod stream_tests;
mod venue;

pub use audit::{Audit, Fate, LIFE_ENTRIES_MAX, Life, Query};
pub use book::{Book, BookView, LEVELS, LEVELS_MAX, Level};
pub use engine::{CANCEL_TRIES_MAX, Capacity, Engine, VENUE_LATENCY_MAX_NS};
pub use entry::{Entry, Outcome, What};
pub use exchange::{Exchange, SeedError};
pub use field::{
    CancelReason, ClientOrderId, InstrumentId, Liquidity, MarketState, Money, OrderId, OrderType,
    Price, Quantity, Reason, ReportKind, RouteAction, SelfMatch, Side, Symbol, TimeInForce,
};
pub use id_map::IdMap;
pub use instrument::{Instrument, Instruments};
pub use limits::Limits;
pub use messages::{Message, MessageError};
pub use notify::{Filter, FilterError, FilterProblem, Notifications};
pub use orders::{Cancelling, Change, MustGo, Order, Orders};
pub use own::{
    Direction, OWN_HEADER_BYTES, OWN_PAYLOAD_MAX, OWN_RECORD_BYTES, OwnError, OwnReader, OwnRecord,
    OwnWriter,
};
pub use positions::{Anomalies, Anomaly, Listed, Position, Positions};
pub use reconcile::{
    AlteredField, DIFFERENCES_MAX, Difference, DifferenceKind, Fields, OpenOrder, Reconciliation,
    Report as ReconcileReport,
};
pub use remote::Remote;
pub use risk::{Figures, Fill, Intent, MARKED_IN_TURN, Reserved, Risk};
pub use venue::{Report, Venue, VenueOrder};
