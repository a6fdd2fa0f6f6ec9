//! What happens to an order that comes in: the rules of one book, whose orders lie in a pool.

use super::ladder::Ladder;
use super::pool::{Node, Pool, SAVED_BYTES};
use super::{LEVELS_MAX, Level};
use crate::order::{
    CancelReason, InstrumentId, Liquidity, OrderId, OrderType, Price, Quantity, Reason, Report,
    SelfMatch, Side, TimeInForce, VenueOrder,
};
use crate::sequencer::{ClientId, ImageReader, ImageWriter, LoadError};

/// Both sides of a book.
#[derive(Clone, Debug)]
pub(crate) struct Sides {
    bids: Ladder,
    asks: Ladder,
}

/// An order that looks for others.
struct Taker {
    order_id: OrderId,
    client: ClientId,
    side: Side,
    self_match: SelfMatch,
    /// The worst rank on the other side that it trades with.
    rank: i64,
    open: u64,
    traded: u64,
}

impl Taker {
    fn new(order: &VenueOrder, rank: i64) -> Self {
        Self {
            order_id: order.order_id,
            client: order.client,
            side: order.side,
            self_match: order.self_match,
            rank,
            open: order.quantity.0,
            traded: 0,
        }
    }

    /// Whether it trades with this client's orders.
    #[inline]
    fn trades_with(&self, client: ClientId) -> bool {
        self.client != client || self.self_match == SelfMatch::Allow
    }
}

#[inline]
fn cancelled(order_id: OrderId, reason: CancelReason, reports: &mut Vec<Report>) {
    reports.push(Report::Cancelled { order_id, reason });
}

impl Sides {
    pub(crate) fn new(levels: usize) -> Self {
        Self { bids: Ladder::new(Side::Buy, levels), asks: Ladder::new(Side::Sell, levels) }
    }

    pub(crate) fn clear(&mut self) {
        self.bids.clear();
        self.asks.clear();
    }

    pub(crate) fn of(&self, side: Side) -> &Ladder {
        match side {
            Side::Buy => &self.bids,
            Side::Sell => &self.asks,
        }
    }

    #[inline]
    fn of_mut(&mut self, side: Side) -> &mut Ladder {
        match side {
            Side::Buy => &mut self.bids,
            Side::Sell => &mut self.asks,
        }
    }

    pub(crate) fn levels(&self, side: Side) -> impl ExactSizeIterator<Item = Level> {
        self.of(side).levels()
    }

    /// The worst rank of the other side that an order trades with.
    #[inline]
    fn worst_rank(&self, side: Side, order_type: OrderType, price: Price) -> i64 {
        match order_type {
            OrderType::Market if price.0 == 0 => i64::MIN,
            OrderType::Market | OrderType::Limit => self.of(side.opposite()).rank(price),
        }
    }

    #[inline]
    pub(crate) fn submit(
        &mut self,
        pool: &mut Pool,
        order: &VenueOrder,
        reports: &mut Vec<Report>,
    ) {
        let order_id = order.order_id;
        let rank = self.worst_rank(order.side, order.order_type, order.price);
        if let Err(reason) = self.admits(pool, order, rank) {
            reports.push(Report::Rejected { order_id, reason });
            return;
        }
        reports.push(Report::Accepted { order_id });
        let mut taker = Taker::new(order, rank);
        if order.time_in_force == TimeInForce::Fok && !self.could_fill(pool, &taker) {
            cancelled(order_id, CancelReason::Killed, reports);
            return;
        }
        self.trade(pool, &mut taker, reports);
        if taker.open == 0 {
            return;
        }
        if self.of(order.side.opposite()).reaches(rank) {
            // It stopped in front of one of its own client's.
            cancelled(order_id, CancelReason::SelfMatch, reports);
        } else if !rests(order) {
            cancelled(order_id, CancelReason::Unfilled, reports);
        } else {
            let slot = pool.insert(Node::new(order, taker.open, taker.traded));
            let slot = slot.expect("room was found, or made by trading");
            self.of_mut(order.side).push(pool, slot);
        }
    }

    /// Places an order that must not trade.
    pub(crate) fn place(&mut self, pool: &mut Pool, order: &VenueOrder) -> Result<(), Reason> {
        let rank = self.worst_rank(order.side, order.order_type, order.price);
        if !rests(order) {
            return Err(Reason::InvalidCombination);
        }
        self.admits(pool, order, rank)?;
        if self.of(order.side.opposite()).reaches(rank) {
            return Err(Reason::WouldCross);
        }
        let slot = pool.insert(Node::new(order, order.quantity.0, 0)).ok_or(Reason::Capacity)?;
        self.of_mut(order.side).push(pool, slot);
        Ok(())
    }

    #[inline]
    fn admits(&self, pool: &Pool, order: &VenueOrder, rank: i64) -> Result<(), Reason> {
        if order.order_id == OrderId(0) {
            return Err(Reason::UnknownOrder);
        }
        if !(1..=pool.quantity_max()).contains(&order.quantity.0) {
            return Err(Reason::InvalidQuantity);
        }
        if pool.find(order.order_id).is_some() {
            return Err(Reason::DuplicateOrder);
        }
        if order.post_only && !rests(order) {
            return Err(Reason::InvalidCombination);
        }
        if order.post_only && self.of(order.side.opposite()).reaches(rank) {
            return Err(Reason::WouldCross);
        }
        // One that crosses ends, or takes at least one order out of the book before it rests.
        if pool.is_full() && rests(order) && !self.of(order.side.opposite()).reaches(rank) {
            return Err(Reason::Capacity);
        }
        if rests(order) && self.lacks_level(order.side, order.price, 0) {
            let taker = Taker::new(order, rank);
            if !self.could_fill(pool, &taker) {
                return Err(Reason::Capacity);
            }
        }
        Ok(())
    }

    /// Whether an order that stood at this price would have a level more than a side has, when so
    /// many of the others are gone.
    #[inline]
    fn lacks_level(&self, side: Side, price: Price, gone: usize) -> bool {
        let ladder = self.of(side);
        ladder.len() - gone >= LEVELS_MAX && ladder.is_new(price)
    }

    /// Whether all of it would trade at once.
    fn could_fill(&self, pool: &Pool, taker: &Taker) -> bool {
        let mut wanted = taker.open;
        let queues = self.of(taker.side.opposite()).queues().iter().rev();
        for queue in queues.take_while(|queue| queue.rank >= taker.rank) {
            if taker.self_match == SelfMatch::Allow {
                if queue.open >= wanted {
                    return true;
                }
                wanted -= queue.open;
                continue;
            }
            for node in pool.queue(queue.head) {
                if !taker.trades_with(node.client) {
                    if taker.self_match == SelfMatch::CancelIncoming {
                        return false;
                    }
                } else if node.open >= wanted {
                    return true;
                } else {
                    wanted -= node.open;
                }
            }
        }
        false
    }

    /// Trades until all of it is traded, nothing is left that it would trade with, or it stands in
    /// front of an order of its own client's that stops it.
    #[inline]
    fn trade(&mut self, pool: &mut Pool, taker: &mut Taker, reports: &mut Vec<Report>) {
        let ladder = self.of_mut(taker.side.opposite());
        while taker.open > 0
            && let Some(best) = ladder.best()
            && best.rank >= taker.rank
        {
            let (slot, price) = (best.head, ladder.price(best));
            let &Node { order_id, client, open, .. } = pool.node(slot);
            if !taker.trades_with(client) {
                if taker.self_match == SelfMatch::CancelIncoming {
                    return;
                }
                ladder.unlink_best(pool);
                pool.remove(slot);
                cancelled(order_id, CancelReason::SelfMatch, reports);
                continue;
            }
            let traded = open.min(taker.open);
            pool.trades += 1;
            let (match_id, quantity) = (pool.trades, Quantity(traded));
            let fill = |order_id, liquidity| Report::Filled {
                order_id,
                match_id,
                price,
                quantity,
                liquidity,
            };
            reports.push(fill(order_id, Liquidity::Maker));
            reports.push(fill(taker.order_id, Liquidity::Taker));
            taker.open -= traded;
            taker.traded = taker.traded.wrapping_add(traded);
            if traded == open {
                ladder.unlink_best(pool);
                pool.remove(slot);
            } else {
                ladder.reduce_best(pool, traded);
                let maker = pool.node_mut(slot);
                maker.traded = maker.traded.wrapping_add(traded);
            }
        }
    }

    /// Takes out an order that stands in this book.
    #[inline]
    pub(crate) fn cancel(
        &mut self,
        pool: &mut Pool,
        slot: u32,
        reason: CancelReason,
        reports: &mut Vec<Report>,
    ) {
        let &Node { order_id, side, .. } = pool.node(slot);
        self.of_mut(side).unlink(pool, slot);
        pool.remove(slot);
        cancelled(order_id, reason, reports);
    }

    /// How many levels are gone without this order.
    fn frees(&self, node: &Node) -> usize {
        usize::from(self.of(node.side).is_alone(node))
    }

    /// Changes an order that stands in this book.
    #[inline]
    pub(crate) fn replace(
        &mut self,
        pool: &mut Pool,
        slot: u32,
        price: Price,
        leaves: Quantity,
        reports: &mut Vec<Report>,
    ) {
        let &node = pool.node(slot);
        let order_id = node.order_id;
        let rank = self.worst_rank(node.side, OrderType::Limit, price);
        let crosses = self.of(node.side.opposite()).reaches(rank);
        let keeps = price == node.price && leaves.0 <= node.open;
        let mut taker = Taker {
            order_id,
            client: node.client,
            side: node.side,
            self_match: node.self_match,
            rank,
            open: leaves.0,
            traded: node.traded,
        };
        let refusal = if !(1..=pool.quantity_max()).contains(&leaves.0) {
            Some(Reason::InvalidQuantity)
        } else if node.post_only && crosses {
            Some(Reason::WouldCross)
        } else if self.lacks_level(node.side, price, self.frees(&node))
            && !self.could_fill(pool, &taker)
        {
            Some(Reason::Capacity)
        } else {
            None
        };
        if let Some(reason) = refusal {
            reports.push(Report::CancelRejected { order_id, reason });
            return;
        }
        reports.push(Report::Replaced { order_id, price, leaves });
        if keeps {
            self.of_mut(node.side).reduce(pool, slot, node.open - leaves.0);
            return;
        }
        self.of_mut(node.side).unlink(pool, slot);
        self.trade(pool, &mut taker, reports);
        if taker.open > 0 && !self.of(node.side.opposite()).reaches(rank) {
            let node = pool.node_mut(slot);
            (node.price, node.open, node.traded) = (price, taker.open, taker.traded);
            self.of_mut(node.side).push(pool, slot);
            return;
        }
        pool.remove(slot);
        if taker.open > 0 {
            cancelled(order_id, CancelReason::SelfMatch, reports);
        }
    }

    /// Worst price first, so that a reader adds each level at the end.
    pub(crate) fn save(&self, pool: &Pool, out: &mut ImageWriter<'_>) {
        for ladder in [&self.bids, &self.asks] {
            out.u32(ladder.orders() as u32); // no more than a pool takes
            for queue in ladder.queues() {
                pool.queue(queue.head).for_each(|node| node.save(out));
            }
        }
    }

    /// Reads what was saved into an empty book.
    pub(crate) fn load(
        &mut self,
        pool: &mut Pool,
        instrument: InstrumentId,
        image: &mut ImageReader<'_>,
    ) -> Result<(), LoadError> {
        for side in [Side::Buy, Side::Sell] {
            let mut worst = i64::MIN;
            for _ in 0..image.count(SAVED_BYTES, "the standing orders of a side")? {
                let node = Node::load(image, instrument, side)?;
                let rank = self.of(side).rank(node.price);
                if rank < worst {
                    return Err(LoadError { what: "standing orders by price" });
                }
                worst = rank;
                let traded = node.traded;
                self.place(pool, &node.as_order())
                    .map_err(|_| LoadError { what: "standing orders that fit and do not cross" })?;
                if let Some(slot) = pool.find(node.order_id) {
                    pool.node_mut(slot).traded = traded;
                }
            }
        }
        Ok(())
    }

    /// The orders of a side in the order in which they would trade.
    pub(crate) fn orders(&self, pool: &Pool, side: Side) -> impl Iterator<Item = VenueOrder> {
        let heads = self.of(side).queues().iter().rev().map(|queue| queue.head);
        heads.flat_map(move |head| pool.queue(head)).map(Node::as_order)
    }
}

/// Whether what is left of an order stays in the book.
#[inline]
fn rests(order: &VenueOrder) -> bool {
    order.order_type == OrderType::Limit && order.time_in_force == TimeInForce::Day
}
