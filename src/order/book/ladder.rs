//! One side of a book: price levels, the best one at the end, each with a queue of orders.
//!
//! Most orders come and go near the best price, so a new level moves few others. A far one moves
//! all that are better: 32 bytes each.

use super::Level;
use super::pool::{NONE, Node, Pool};
use crate::order::{Price, Quantity, Side};

/// How many levels are looked at one by one, from the best one on, before the rest is halved.
const NEAR: usize = 8;

/// A price level: its orders from the first come to the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queue {
    /// The price as a rank: see [`Ladder::rank`].
    pub(crate) rank: i64,
    /// The sum of what is open.
    pub(crate) open: u64,
    pub(crate) head: u32,
    tail: u32,
    count: u32,
}

const _: () = assert!(size_of::<Queue>() == 32);

/// One side of a book.
#[derive(Clone, Debug)]
pub(crate) struct Ladder {
    side: Side,
    queues: Vec<Queue>,
    orders: usize,
}

impl Ladder {
    /// With room for so many levels; more are taken, and room once taken is kept.
    pub(crate) fn new(side: Side, levels: usize) -> Self {
        Self { side, queues: Vec::with_capacity(levels), orders: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.queues.clear();
        self.orders = 0;
    }

    /// A price as a number that is larger the better the price is for the other side: the price
    /// itself for bids, and its complement, which no price overflows, for asks.
    #[inline]
    pub(crate) fn rank(&self, price: Price) -> i64 {
        match self.side {
            Side::Buy => price.0,
            Side::Sell => !price.0,
        }
    }

    /// How many orders stand on this side.
    pub(crate) fn orders(&self) -> usize {
        self.orders
    }

    /// The levels, worst first.
    pub(crate) fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// The price of one of the levels.
    #[inline]
    pub(crate) fn price(&self, queue: &Queue) -> Price {
        match self.side {
            Side::Buy => Price(queue.rank),
            Side::Sell => Price(!queue.rank),
        }
    }

    pub(crate) fn level(&self, queue: &Queue) -> Level {
        Level { price: self.price(queue), quantity: Quantity(queue.open), orders: queue.count }
    }

    /// The best level.
    #[inline]
    pub(crate) fn best(&self) -> Option<&Queue> {
        self.queues.last()
    }

    /// Whether there is a level of this rank or a better one.
    #[inline]
    pub(crate) fn reaches(&self, rank: i64) -> bool {
        self.best().is_some_and(|best| best.rank >= rank)
    }

    /// Where the level of this rank is, or would be.
    #[inline]
    fn find(&self, rank: i64) -> Result<usize, usize> {
        let far = self.queues.len().saturating_sub(NEAR);
        for (at, queue) in self.queues.iter().enumerate().skip(far).rev() {
            if queue.rank <= rank {
                return if queue.rank == rank { Ok(at) } else { Err(at + 1) };
            }
        }
        self.queues[..far].binary_search_by_key(&rank, |queue| queue.rank)
    }

    /// Where the level of an order is that stands here.
    #[inline]
    fn level_of(&self, node: &Node) -> usize {
        self.find(self.rank(node.price)).expect("an order that stands has a level")
    }

    /// Puts an order at the back of its level's queue.
    #[inline]
    pub(crate) fn push(&mut self, pool: &mut Pool, slot: u32) {
        let &Node { price, open, .. } = pool.node(slot);
        let rank = self.rank(price);
        let at = self.find(rank).unwrap_or_else(|at| {
            self.queues.insert(at, Queue { rank, open: 0, head: slot, tail: NONE, count: 0 });
            at
        });
        let queue = &mut self.queues[at];
        let node = pool.node_mut(slot);
        (node.previous, node.next) = (queue.tail, NONE);
        if queue.tail != NONE {
            pool.node_mut(queue.tail).next = slot;
        }
        queue.tail = slot;
        queue.open += open;
        queue.count += 1;
        self.orders += 1;
    }

    /// Takes an order out of its level's queue, wherever it is; its place in the pool stays.
    #[inline]
    pub(crate) fn unlink(&mut self, pool: &mut Pool, slot: u32) {
        let at = self.level_of(pool.node(slot));
        self.unlink_at(pool, at, slot);
    }

    /// Takes the first order of the best level out of its queue.
    #[inline]
    pub(crate) fn unlink_best(&mut self, pool: &mut Pool) {
        if let Some(best) = self.queues.last() {
            self.unlink_at(pool, self.queues.len() - 1, best.head);
        }
    }

    #[inline]
    fn unlink_at(&mut self, pool: &mut Pool, at: usize, slot: u32) {
        let &Node { previous, next, open, .. } = pool.node(slot);
        let queue = &mut self.queues[at];
        match previous {
            NONE => queue.head = next,
            previous => pool.node_mut(previous).next = next,
        }
        match next {
            NONE => queue.tail = previous,
            next => pool.node_mut(next).previous = previous,
        }
        queue.open -= open;
        queue.count -= 1;
        self.orders -= 1;
        if queue.count == 0 {
            self.queues.remove(at);
        }
    }

    /// Takes some of what is open of an order, not all; it keeps its place.
    #[inline]
    pub(crate) fn reduce(&mut self, pool: &mut Pool, slot: u32, by: u64) {
        let at = self.level_of(pool.node(slot));
        self.queues[at].open -= by;
        pool.node_mut(slot).open -= by;
    }

    /// As [`reduce`](Self::reduce), of the first order of the best level.
    #[inline]
    pub(crate) fn reduce_best(&mut self, pool: &mut Pool, by: u64) {
        if let Some(best) = self.queues.last_mut() {
            best.open -= by;
            pool.node_mut(best.head).open -= by;
        }
    }
}
