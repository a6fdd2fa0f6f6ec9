//! A simulated exchange: one [`Book`](super::Book)'s rules for each instrument, behind a line that
//! can be slow, or down.
//!
//! - Instruments are 1 to as many as it was made for; all of them are open. Which orders are valid
//!   is for who stands in front of it to say.
//! - Trades are numbered 1, 2, ... across all instruments.
//! - With a latency, requests wait and are acted on in [`advance`](Venue::advance) when they are
//!   due. No request overtakes another, also when the latency has become less in between.
//! - While it is disconnected every request is refused ([`Reason::VenueDown`]): new ones at once,
//!   those under way when they are due. What stands in its books stays.
//! - A replacement that waits while its order trades replaces less by just that: the total is what
//!   was asked for. If that much has traded already it comes too late.
//!
//! Nothing is allocated after [`Exchange::new`] but reports, and price levels beyond
//! [`LEVELS`](super::LEVELS) a side.

use std::collections::VecDeque;

use thiserror::Error;

use super::book::{BookView, LEVELS, Pool, Sides};
use super::field::{
    CancelReason, InstrumentId, OrderId, OrderType, Price, Quantity, Reason, SelfMatch, Side,
    TimeInForce,
};
use super::venue::{Report, Venue, VenueOrder};
use crate::sequencer::{ClientId, ImageReader, ImageWriter, LoadError};

/// Bytes of the shortest saved request.
const REQUEST_BYTES_MIN: usize = 18;

/// A simulated exchange.
///
/// ```
/// use gapless::order::{
///     Exchange, InstrumentId, OrderId, OrderType, Price, Quantity, Report, SelfMatch, Side,
///     TimeInForce, Venue, VenueOrder,
/// };
/// use gapless::sequencer::ClientId;
///
/// let mut exchange = Exchange::new(2, 1000);
/// exchange.set(true, 5_000); // it takes 5 µs to get there
/// let order = VenueOrder {
///     order_id: OrderId(1),
///     client: ClientId(7),
///     instrument: InstrumentId(2),
///     side: Side::Buy,
///     order_type: OrderType::Limit,
///     time_in_force: TimeInForce::Day,
///     post_only: false,
///     price: Price(9_950),
///     quantity: Quantity(100),
///     self_match: SelfMatch::Allow,
/// };
/// let mut reports = Vec::new();
/// exchange.submit(1_000, &order, &mut reports);
/// exchange.advance(5_999, &mut reports);
/// assert!(reports.is_empty());
/// exchange.advance(6_000, &mut reports);
/// assert_eq!(reports, [Report::Accepted { order_id: OrderId(1) }]);
/// ```
#[derive(Clone, Debug)]
pub struct Exchange {
    pool: Pool,
    /// By instrument, 1 the first.
    books: Vec<Sides>,
    connected: bool,
    latency_ns: u64,
    /// What is under way, in the order in which it is due.
    waiting: VecDeque<Waiting>,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    due_ns: u64,
    request: Request,
}

#[derive(Clone, Copy, Debug)]
enum Request {
    Submit(VenueOrder),
    Cancel {
        order_id: OrderId,
        reason: CancelReason,
    },
    Replace {
        order_id: OrderId,
        price: Price,
        leaves: Quantity,
        /// What of the order had traded when it was asked for.
        traded: u64,
    },
}

/// An order that cannot stand in a book before the open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("order {order_id} cannot stand in the opening book: {reason:?}")]
pub struct SeedError {
    /// Which.
    pub order_id: OrderId,
    /// Why: what [`Book::submit`](super::Book::submit) rejects, [`Reason::WouldCross`] for any
    /// order that would trade, [`Reason::InvalidCombination`] for any that is not a limit order
    /// for the day, or [`Reason::UnknownInstrument`].
    pub reason: Reason,
}

impl Exchange {
    /// With a book for each of the `instruments` 1, 2, ..., room for `orders` standing orders in
    /// all of them together, and for [`LEVELS`](super::LEVELS) price levels on each side of each.
    /// Twice as many requests as orders may be under way; only cancels use the second half.
    ///
    /// # Panics
    /// If `orders` is 0 or more than 2 to the 30.
    pub fn new(instruments: usize, orders: usize) -> Self {
        let sides = || Sides::new(orders.min(LEVELS));
        Self {
            pool: Pool::new(orders),
            books: std::iter::repeat_with(sides).take(instruments).collect(),
            connected: true,
            latency_ns: 0,
            waiting: VecDeque::with_capacity(orders * 2),
        }
    }

    /// Fills the books before the open, with orders in the order of their time; they do not trade.
    /// Answers how many there were. Their ids must be none that the stream's own orders will have:
    /// 2 to the 63 and more are free. They are reported when they trade, like all others.
    ///
    /// # Errors
    /// [`SeedError`] at the first order that cannot stand; those in front of it do.
    pub fn seed(
        &mut self,
        orders: impl IntoIterator<Item = VenueOrder>,
    ) -> Result<usize, SeedError> {
        let mut placed = 0;
        for order in orders {
            let book = book_mut(&mut self.books, order.instrument);
            book.ok_or(Reason::UnknownInstrument)
                .and_then(|book| book.place(&mut self.pool, &order))
                .map_err(|reason| SeedError { order_id: order.order_id, reason })?;
            placed += 1;
        }
        Ok(placed)
    }

    /// What stands in the book of an instrument; `None` if there is no such book.
    pub fn book(&self, instrument: InstrumentId) -> Option<BookView<'_>> {
        let index = (instrument.0 as usize).checked_sub(1)?;
        Some(BookView::new(&self.pool, self.books.get(index)?))
    }

    /// How many orders stand in all books.
    pub fn len(&self) -> usize {
        self.pool.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many requests are under way.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The number of the last trade; 0 before the first.
    pub fn trades(&self) -> u64 {
        self.pool.trades
    }

    /// Takes a request: acts on it, lets it wait, or refuses it.
    #[inline]
    fn ask(&mut self, now_ns: u64, request: Request, reports: &mut Vec<Report>) {
        let orders = self.pool.capacity();
        let room = if matches!(request, Request::Cancel { .. }) { orders * 2 } else { orders };
        if !self.connected {
            reports.push(request.refused(Reason::VenueDown));
        } else if self.latency_ns == 0 && self.waiting.is_empty() {
            self.act(request, reports);
        } else if self.waiting.len() >= room {
            reports.push(request.refused(Reason::Capacity));
        } else {
            let last_ns = self.waiting.back().map_or(0, |last| last.due_ns);
            let due_ns = now_ns.saturating_add(self.latency_ns).max(last_ns);
            self.waiting.push_back(Waiting { due_ns, request });
        }
    }

    #[inline]
    fn act(&mut self, request: Request, reports: &mut Vec<Report>) {
        let pool = &mut self.pool;
        let order_id = request.order_id();
        if let Request::Submit(order) = request {
            match book_mut(&mut self.books, order.instrument) {
                Some(book) => book.submit(pool, &order, reports),
                None => reports.push(request.refused(Reason::UnknownInstrument)),
            }
            return;
        }
        let Some(slot) = pool.find(order_id) else {
            reports.push(request.refused(Reason::TooLate));
            return;
        };
        let node = pool.node(slot);
        let Some(book) = book_mut(&mut self.books, node.instrument) else {
            unreachable!("an order that stands has a book");
        };
        match request {
            Request::Cancel { reason, .. } => book.cancel(pool, slot, reason, reports),
            Request::Replace { price, leaves, traded, .. } => {
                let meanwhile = node.traded.wrapping_sub(traded);
                if meanwhile > 0 && meanwhile >= leaves.0 {
                    reports.push(request.refused(Reason::TooLate));
                } else {
                    let leaves = Quantity(leaves.0 - meanwhile);
                    book.replace(pool, slot, price, leaves, reports);
                }
            }
            Request::Submit(_) => {}
        }
    }

    fn restore(&mut self, image: &mut ImageReader<'_>) -> Result<(), LoadError> {
        self.pool.load(image)?;
        if image.u32("how many instruments there are")? as usize != self.books.len() {
            return Err(LoadError { what: "an exchange of as many instruments" });
        }
        self.connected = match image.u8("whether the exchange is connected")? {
            0 => false,
            1 => true,
            _ => return Err(LoadError { what: "whether the exchange is connected" }),
        };
        self.latency_ns = image.u64("the latency of an exchange")?;
        let mut due_ns = 0;
        for _ in 0..image.count(REQUEST_BYTES_MIN, "requests under way")? {
            let waiting = Waiting::load(image)?;
            if waiting.due_ns < due_ns || self.waiting.len() == self.pool.capacity() * 2 {
                return Err(LoadError { what: "requests by the time when they are due" });
            }
            due_ns = waiting.due_ns;
            self.waiting.push_back(waiting);
        }
        for (index, book) in self.books.iter_mut().enumerate() {
            let instrument = InstrumentId(index as u32 + 1); // as many as were read as a `u32`
            book.load(&mut self.pool, instrument, image)?;
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.pool.clear();
        self.books.iter_mut().for_each(Sides::clear);
        (self.connected, self.latency_ns) = (true, 0);
        self.waiting.clear();
    }
}

#[inline]
fn book_mut(books: &mut [Sides], instrument: InstrumentId) -> Option<&mut Sides> {
    books.get_mut((instrument.0 as usize).checked_sub(1)?)
}

impl Venue for Exchange {
    #[inline]
    fn submit(&mut self, now_ns: u64, order: &VenueOrder, reports: &mut Vec<Report>) {
        self.ask(now_ns, Request::Submit(*order), reports);
    }

    #[inline]
    fn cancel(
        &mut self,
        now_ns: u64,
        order_id: OrderId,
        reason: CancelReason,
        reports: &mut Vec<Report>,
    ) {
        self.ask(now_ns, Request::Cancel { order_id, reason }, reports);
    }

    #[inline]
    fn replace(
        &mut self,
        now_ns: u64,
        order_id: OrderId,
        price: Price,
        leaves: Quantity,
        reports: &mut Vec<Report>,
    ) {
        // One that is still under way has not traded.
        let traded = self.pool.find(order_id).map_or(0, |slot| self.pool.node(slot).traded);
        self.ask(now_ns, Request::Replace { order_id, price, leaves, traded }, reports);
    }

    #[inline]
    fn advance(&mut self, now_ns: u64, reports: &mut Vec<Report>) {
        while let Some(&Waiting { due_ns, request }) = self.waiting.front()
            && due_ns <= now_ns
        {
            self.waiting.pop_front();
            if self.connected {
                self.act(request, reports);
            } else {
                reports.push(request.refused(Reason::VenueDown));
            }
        }
        if self.waiting.is_empty() {
            self.waiting.clear(); // begins anew where the cache is warm
        }
    }

    fn set(&mut self, connected: bool, latency_ns: u64) {
        (self.connected, self.latency_ns) = (connected, latency_ns);
    }

    fn save(&self, out: &mut Vec<u8>) {
        let mut out = ImageWriter::new(out);
        self.pool.save(&mut out);
        out.u32(self.books.len() as u32); // instruments are numbered by `u32`
        out.u8(u8::from(self.connected));
        out.u64(self.latency_ns);
        out.u32(self.waiting.len() as u32); // at most twice a pool's capacity, below 2 to the 32
        self.waiting.iter().for_each(|waiting| waiting.save(&mut out));
        self.books.iter().for_each(|book| book.save(&self.pool, &mut out));
    }

    /// Replaces the state by a saved one, orders from before the open included.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are no state of an exchange of these capacities; it is then
    /// empty, connected and without latency.
    fn load(&mut self, image: &mut ImageReader<'_>) -> Result<(), LoadError> {
        self.clear();
        let restored = self.restore(image);
        if restored.is_err() {
            self.clear();
        }
        restored
    }
}

impl Request {
    fn order_id(&self) -> OrderId {
        match *self {
            Self::Submit(VenueOrder { order_id, .. })
            | Self::Cancel { order_id, .. }
            | Self::Replace { order_id, .. } => order_id,
        }
    }

    fn refused(&self, reason: Reason) -> Report {
        let order_id = self.order_id();
        match self {
            Self::Submit(_) => Report::Rejected { order_id, reason },
            Self::Cancel { .. } | Self::Replace { .. } => {
                Report::CancelRejected { order_id, reason }
            }
        }
    }
}

impl Waiting {
    fn save(&self, out: &mut ImageWriter<'_>) {
        out.u64(self.due_ns);
        match self.request {
            Request::Submit(order) => {
                out.u8(1);
                out.u64(order.order_id.0);
                out.u16(order.client.0);
                out.u32(order.instrument.0);
                out.i64(order.price.0);
                out.u64(order.quantity.0);
                out.bytes(&[
                    order.side as u8,
                    order.order_type as u8,
                    order.time_in_force as u8,
                    u8::from(order.post_only),
                    order.self_match as u8,
                ]);
            }
            Request::Cancel { order_id, reason } => {
                out.u8(2);
                out.u64(order_id.0);
                out.u8(reason as u8);
            }
            Request::Replace { order_id, price, leaves, traded } => {
                out.u8(3);
                out.u64(order_id.0);
                out.i64(price.0);
                out.u64(leaves.0);
                out.u64(traded);
            }
        }
    }

    fn load(image: &mut ImageReader<'_>) -> Result<Self, LoadError> {
        const WHAT: &str = "a request under way";
        const ODD: LoadError = LoadError { what: WHAT };
        let due_ns = image.u64(WHAT)?;
        let kind = image.u8(WHAT)?;
        let order_id = OrderId(image.u64(WHAT)?);
        let request = match kind {
            1 => Request::Submit(VenueOrder {
                order_id,
                client: ClientId(image.u16(WHAT)?),
                instrument: InstrumentId(image.u32(WHAT)?),
                price: Price(image.i64(WHAT)?),
                quantity: Quantity(image.u64(WHAT)?),
                side: Side::of(image.u8(WHAT)?).ok_or(ODD)?,
                order_type: OrderType::of(image.u8(WHAT)?).ok_or(ODD)?,
                time_in_force: TimeInForce::of(image.u8(WHAT)?).ok_or(ODD)?,
                post_only: match image.u8(WHAT)? {
                    0 => false,
                    1 => true,
                    _ => return Err(ODD),
                },
                self_match: SelfMatch::of(image.u8(WHAT)?).ok_or(ODD)?,
            }),
            2 => {
                Request::Cancel { order_id, reason: CancelReason::of(image.u8(WHAT)?).ok_or(ODD)? }
            }
            3 => Request::Replace {
                order_id,
                price: Price(image.i64(WHAT)?),
                leaves: Quantity(image.u64(WHAT)?),
                traded: image.u64(WHAT)?,
            },
            _ => return Err(ODD),
        };
        Ok(Self { due_ns, request })
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
