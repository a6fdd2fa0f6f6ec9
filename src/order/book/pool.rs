//! The standing orders of one book or many: a slab of fixed capacity, found by order id.
//!
//! Each order fills a cache line, and knows its neighbours in its price level's queue. A place
//! that an order has left is the next to be taken, so it is likely to be in the cache still. Where
//! an order lies is never saved, and nothing that a book answers depends on it.

use crate::order::id_map::IdMap;
use crate::order::{InstrumentId, OrderId, OrderType, Price, Quantity, SelfMatch, Side};
use crate::order::{TimeInForce, VenueOrder};
use crate::sequencer::{ClientId, ImageReader, ImageWriter, LoadError};

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;
/// The largest capacity.
pub(crate) const CAPACITY_MAX: usize = 1 << 30;
/// Bytes of a saved order.
pub(crate) const SAVED_BYTES: usize = 36;
/// The largest number of a last trade that is believed: counting on from it does not overflow.
const TRADES_MAX: u64 = 1 << 63;
/// Of a saved order's flags: post only. The rest of them is the self-match policy.
const POST_ONLY: u8 = 0x80;

/// An order that stands, or a vacant place.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(crate) struct Node {
    pub(crate) order_id: OrderId,
    pub(crate) price: Price,
    /// What is open; never 0 in a queue.
    pub(crate) open: u64,
    /// What has traded ever since it came, modulo 2 to the 64 (replacements may add to it).
    pub(crate) traded: u64,
    /// Neighbours in the level's queue; of a vacant place, `next` is the next vacant one.
    pub(crate) previous: u32,
    pub(crate) next: u32,
    pub(crate) instrument: InstrumentId,
    pub(crate) client: ClientId,
    pub(crate) side: Side,
    pub(crate) self_match: SelfMatch,
    pub(crate) post_only: bool,
}

const _: () = assert!(size_of::<Node>() == 64);

impl Node {
    /// An order that is going to stand with `open` left of it.
    #[inline]
    pub(crate) fn new(order: &VenueOrder, open: u64, traded: u64) -> Self {
        Self {
            order_id: order.order_id,
            price: order.price,
            open,
            traded,
            previous: NONE,
            next: NONE,
            instrument: order.instrument,
            client: order.client,
            side: order.side,
            self_match: order.self_match,
            post_only: order.post_only,
        }
    }

    fn vacant(next: u32) -> Self {
        Self {
            order_id: OrderId(0),
            price: Price(0),
            open: 0,
            traded: 0,
            previous: NONE,
            next,
            instrument: InstrumentId(0),
            client: ClientId::NONE,
            side: Side::Buy,
            self_match: SelfMatch::Allow,
            post_only: false,
        }
    }

    /// The order as it would come in now.
    pub(crate) fn as_order(&self) -> VenueOrder {
        VenueOrder {
            order_id: self.order_id,
            client: self.client,
            instrument: self.instrument,
            side: self.side,
            order_type: OrderType::Limit,
            time_in_force: TimeInForce::Day,
            post_only: self.post_only,
            price: self.price,
            quantity: Quantity(self.open),
            self_match: self.self_match,
        }
    }

    /// Side and instrument are the reader's to know.
    pub(crate) fn save(&self, out: &mut ImageWriter<'_>) {
        out.u64(self.order_id.0);
        out.i64(self.price.0);
        out.u64(self.open);
        out.u64(self.traded);
        out.u16(self.client.0);
        out.u8(self.self_match as u8 | if self.post_only { POST_ONLY } else { 0 });
        out.u8(0);
    }

    pub(crate) fn load(
        image: &mut ImageReader<'_>,
        instrument: InstrumentId,
        side: Side,
    ) -> Result<Self, LoadError> {
        const WHAT: &str = "a standing order";
        let mut node = Self::vacant(NONE);
        (node.instrument, node.side) = (instrument, side);
        node.order_id = OrderId(image.u64(WHAT)?);
        node.price = Price(image.i64(WHAT)?);
        node.open = image.u64(WHAT)?;
        node.traded = image.u64(WHAT)?;
        node.client = ClientId(image.u16(WHAT)?);
        let flags = image.u8(WHAT)?;
        node.post_only = flags & POST_ONLY != 0;
        node.self_match = SelfMatch::of(flags & !POST_ONLY).ok_or(LoadError { what: WHAT })?;
        let spare = image.u8(WHAT)?;
        if spare == 0 { Ok(node) } else { Err(LoadError { what: WHAT }) }
    }
}

/// All standing orders, and the number of the last trade.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    nodes: Box<[Node]>,
    /// The vacant place to take next.
    vacant: u32,
    slots: IdMap,
    /// The number of the last trade; 0 before the first.
    pub(crate) trades: u64,
}

impl Pool {
    /// Room for `capacity` orders, 96 to 128 bytes each, all of it touched.
    ///
    /// # Panics
    /// If `capacity` is 0 or above 2 to the 30.
    pub(crate) fn new(capacity: usize) -> Self {
        assert!((1..=CAPACITY_MAX).contains(&capacity), "room for {capacity} orders");
        let mut pool = Self {
            nodes: vec![Node::vacant(NONE); capacity].into(),
            vacant: NONE,
            slots: IdMap::new(capacity),
            trades: 0,
        };
        pool.clear();
        pool
    }

    pub(crate) fn clear(&mut self) {
        for (next, node) in (1..).zip(&mut self.nodes) {
            *node = Node::vacant(next);
        }
        if let Some(last) = self.nodes.last_mut() {
            last.next = NONE;
        }
        self.vacant = 0;
        self.slots.clear();
        self.trades = 0;
    }

    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.nodes.len()
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.vacant == NONE
    }

    /// The largest quantity of an order: the sum of as many as fit does not overflow.
    #[inline]
    pub(crate) fn quantity_max(&self) -> u64 {
        u64::MAX / self.nodes.len() as u64
    }

    #[inline]
    pub(crate) fn find(&self, order_id: OrderId) -> Option<u32> {
        self.slots.get(order_id.0)
    }

    #[inline]
    pub(crate) fn node(&self, slot: u32) -> &Node {
        &self.nodes[slot as usize]
    }

    #[inline]
    pub(crate) fn node_mut(&mut self, slot: u32) -> &mut Node {
        &mut self.nodes[slot as usize]
    }

    /// Takes a place for an order whose id has none yet; `None` if the pool is full.
    #[inline]
    pub(crate) fn insert(&mut self, node: Node) -> Option<u32> {
        let slot = self.vacant;
        if slot == NONE || !self.slots.insert(node.order_id.0, slot) {
            return None;
        }
        self.vacant = self.node(slot).next;
        *self.node_mut(slot) = node;
        Some(slot)
    }

    /// Vacates the place of an order that is in no queue any more.
    #[inline]
    pub(crate) fn remove(&mut self, slot: u32) {
        self.slots.remove(self.node(slot).order_id.0);
        self.node_mut(slot).next = self.vacant;
        self.vacant = slot;
    }

    /// What is not the books' own: how many orders fit, and the number of the last trade.
    pub(crate) fn save(&self, out: &mut ImageWriter<'_>) {
        out.u32(self.nodes.len() as u32); // at most `CAPACITY_MAX`
        out.u64(self.trades);
    }

    /// Empties it for the orders of a saved one. Another capacity would refuse orders at another
    /// time, so it is another state.
    pub(crate) fn load(&mut self, image: &mut ImageReader<'_>) -> Result<(), LoadError> {
        self.clear();
        if image.u32("the capacity of a book")? as usize != self.nodes.len() {
            return Err(LoadError { what: "a book of this capacity" });
        }
        const WHAT: &str = "the number of the last trade";
        let trades = image.u64(WHAT)?;
        if trades > TRADES_MAX {
            return Err(LoadError { what: WHAT });
        }
        self.trades = trades;
        Ok(())
    }

    /// The orders of a queue, from this one on.
    #[inline]
    pub(crate) fn queue(&self, head: u32) -> impl Iterator<Item = &Node> {
        let node = |slot| (slot != NONE).then(|| self.node(slot));
        std::iter::successors(node(head), move |last| node(last.next))
    }
}
