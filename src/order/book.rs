//! A limit order book with price-time priority, usable alone.
//!
//! The rules, which an [`Exchange`](super::Exchange) has in each of its books too:
//!
//! - An order trades with the best price first, at one price with who came first, at the price of
//!   the order that stands.
//! - What is left of a limit order for the day stands; of any other it is cancelled
//!   ([`CancelReason::Unfilled`]). Fill or kill trades in full or not at all
//!   ([`CancelReason::Killed`]).
//! - A post-only order that would trade is rejected ([`Reason::WouldCross`]), whoever's orders it
//!   would meet.
//! - When an order meets one of the same client's, its own [`SelfMatch`](super::SelfMatch) decides.
//!   Fill or kill foresees that: own orders that it would cancel do not count, and neither does
//!   what is behind an own order that would stop it.
//! - A replacement at the same price with no more quantity keeps its place. Any other goes to the
//!   back of its price's queue, and trades first if it crosses; a post-only order that would is
//!   left as it was.
//! - A full book refuses ([`Reason::Capacity`]) orders that would only stand; those that trade are
//!   served. A side has at most [`LEVELS_MAX`] price levels: orders and replacements that could
//!   come to stand on one more are refused as well.
//!
//! Prices are any `i64`, below zero too. Nothing here knows of ticks, lots or limits. After
//! [`Book::new`] nothing is allocated but reports, and levels beyond those stated there. Saved
//! bytes and answers depend on the orders alone, not on where in memory they lie.

mod ladder;
mod matching;
mod pool;

use super::field::{CancelReason, InstrumentId, OrderId, Price, Quantity, Reason, Side};
use super::venue::{Report, VenueOrder};
use crate::sequencer::{ImageReader, ImageWriter, LoadError};

pub(super) use matching::Sides;
pub(super) use pool::Pool;

/// Price levels on each side of a book that there is room for from the start.
pub const LEVELS: usize = 1024;
/// Price levels on each side of a book that there are at most: what a step costs is bounded.
pub const LEVELS_MAX: usize = 4096;

/// A price level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// Of all its orders.
    pub price: Price,
    /// What is open of them, together; never 0.
    pub quantity: Quantity,
    /// How many they are; never 0.
    pub orders: u32,
}

/// A limit order book of one instrument.
///
/// ```
/// use gapless::order::{
///     Book, InstrumentId, OrderId, OrderType, Price, Quantity, SelfMatch, Side, TimeInForce,
///     VenueOrder,
/// };
/// use gapless::sequencer::ClientId;
///
/// let mut book = Book::new(1000);
/// let mut reports = Vec::new();
/// let bid = VenueOrder {
///     order_id: OrderId(1),
///     client: ClientId(7),
///     instrument: InstrumentId(1),
///     side: Side::Buy,
///     order_type: OrderType::Limit,
///     time_in_force: TimeInForce::Day,
///     post_only: false,
///     price: Price(9_950),
///     quantity: Quantity(100),
///     self_match: SelfMatch::Allow,
/// };
/// book.submit(&bid, &mut reports);
/// let sale = VenueOrder {
///     order_id: OrderId(2),
///     client: ClientId(8),
///     side: Side::Sell,
///     quantity: Quantity(30),
///     ..bid
/// };
/// book.submit(&sale, &mut reports);
/// assert_eq!(reports.len(), 4, "two accepted, two filled");
/// let best = book.view().best(Side::Buy).unwrap();
/// assert_eq!((best.price, best.quantity), (Price(9_950), Quantity(70)));
/// ```
#[derive(Clone, Debug)]
pub struct Book {
    pool: Pool,
    sides: Sides,
}

impl Book {
    /// With room for `orders` standing orders (96 to 128 bytes each), and for [`LEVELS`] price
    /// levels on each side, or as many as there can be orders. More levels are taken, up to
    /// [`LEVELS_MAX`], and room once taken is kept. An order's quantity is at most
    /// `u64::MAX / orders`.
    ///
    /// # Panics
    /// If `orders` is 0 or more than 2 to the 30.
    pub fn new(orders: usize) -> Self {
        Self { pool: Pool::new(orders), sides: Sides::new(orders.min(LEVELS)) }
    }

    /// Takes an order: [`Report::Accepted`], what it trades, and [`Report::Cancelled`] if the rest
    /// does not stand; or [`Report::Rejected`], with [`Reason::UnknownOrder`] (its id is 0),
    /// [`Reason::DuplicateOrder`] (one of its id stands), [`Reason::InvalidQuantity`],
    /// [`Reason::InvalidCombination`] (post only, but it could not stand), [`Reason::WouldCross`]
    /// or [`Reason::Capacity`]. Its instrument is not looked at.
    pub fn submit(&mut self, order: &VenueOrder, reports: &mut Vec<Report>) {
        self.sides.submit(&mut self.pool, order, reports);
    }

    /// Takes an order out: [`Report::Cancelled`], or [`Report::CancelRejected`] with
    /// [`Reason::TooLate`] if it does not stand.
    pub fn cancel(&mut self, order_id: OrderId, reason: CancelReason, reports: &mut Vec<Report>) {
        match self.pool.find(order_id) {
            Some(slot) => self.sides.cancel(&mut self.pool, slot, reason, reports),
            None => reports.push(Report::CancelRejected { order_id, reason: Reason::TooLate }),
        }
    }

    /// Changes the price, and what is open from now on: [`Report::Replaced`] and what it trades;
    /// or [`Report::CancelRejected`] with [`Reason::TooLate`] (it does not stand),
    /// [`Reason::InvalidQuantity`], [`Reason::WouldCross`] or [`Reason::Capacity`].
    pub fn replace(
        &mut self,
        order_id: OrderId,
        price: Price,
        leaves: Quantity,
        reports: &mut Vec<Report>,
    ) {
        match self.pool.find(order_id) {
            Some(slot) => self.sides.replace(&mut self.pool, slot, price, leaves, reports),
            None => reports.push(Report::CancelRejected { order_id, reason: Reason::TooLate }),
        }
    }

    /// What stands in it.
    pub fn view(&self) -> BookView<'_> {
        BookView { pool: &self.pool, sides: &self.sides }
    }

    /// The number of the last trade; 0 before the first.
    pub fn trades(&self) -> u64 {
        self.pool.trades
    }

    /// How many orders fit.
    pub fn capacity(&self) -> usize {
        self.pool.capacity()
    }

    /// Appends the state to a snapshot. Equal books append equal bytes.
    pub fn save(&self, out: &mut Vec<u8>) {
        let mut out = ImageWriter::new(out);
        self.pool.save(&mut out);
        self.sides.save(&self.pool, &mut out);
    }

    /// Replaces the state by a saved one. Instruments are not saved; the orders get
    /// `instrument`.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are no state of a book of this capacity; the book is then empty.
    pub fn load(
        &mut self,
        instrument: InstrumentId,
        image: &mut ImageReader<'_>,
    ) -> Result<(), LoadError> {
        self.sides.clear();
        let loaded =
            self.pool.load(image).and_then(|()| self.sides.load(&mut self.pool, instrument, image));
        if loaded.is_err() {
            self.sides.clear();
            self.pool.clear();
        }
        loaded
    }
}

/// What stands in a book.
#[derive(Clone, Copy, Debug)]
pub struct BookView<'a> {
    pool: &'a Pool,
    sides: &'a Sides,
}

impl<'a> BookView<'a> {
    pub(super) fn new(pool: &'a Pool, sides: &'a Sides) -> Self {
        Self { pool, sides }
    }

    /// The best price level of a side; `None` if it is empty.
    pub fn best(self, side: Side) -> Option<Level> {
        self.depth(side).next()
    }

    /// The price levels of a side, best first.
    pub fn depth(self, side: Side) -> impl ExactSizeIterator<Item = Level> + use<'a> {
        self.sides.levels(side)
    }

    /// The orders of a side in the order in which they would trade, each with what is open of it.
    pub fn orders(self, side: Side) -> impl Iterator<Item = VenueOrder> + use<'a> {
        self.sides.orders(self.pool, side)
    }

    /// How many orders stand.
    pub fn len(self) -> usize {
        self.sides.of(Side::Buy).orders() + self.sides.of(Side::Sell).orders()
    }

    /// Whether none does.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
