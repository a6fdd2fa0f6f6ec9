//! One side of a book: price levels, the best one at the end, each with a queue of orders.
//!
//! Most orders come and go near the best price, so a new level moves few others. A far one moves
//! all that are better: 32 bytes each. A level whose last order is gone stays, empty, until it is
//! the best one or half of all are empty: so taking out all orders of a side costs a few steps for
//! each, wherever they stand.

use super::Level;
use super::pool::{NONE, Node, Pool};
use crate::order::{Price, Quantity, Side};

/// How many levels are looked at one by one, from the best one on, before the rest is halved.
const NEAR: usize = 8;
/// How many empty levels are never too many.
const EMPTY_MIN: usize = 16;

/// A price level: its orders from the first come to the last. An empty one has neither.
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
    /// The last one is not empty.
    queues: Vec<Queue>,
    empty: usize,
    orders: usize,
}

impl Ladder {
    /// With room for so many levels; more are taken, and room once taken is kept.
    pub(crate) fn new(side: Side, levels: usize) -> Self {
        Self { side, queues: Vec::with_capacity(levels), empty: 0, orders: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.queues.clear();
        (self.empty, self.orders) = (0, 0);
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

    /// How many levels are not empty.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.queues.len() - self.empty
    }

    /// Whether an order of this price would have a level of its own.
    pub(crate) fn is_new(&self, price: Price) -> bool {
        self.find(self.rank(price)).map_or(true, |at| self.queues[at].count == 0)
    }

    /// Whether an order stands alone at its price.
    pub(crate) fn is_alone(&self, node: &Node) -> bool {
        self.queues[self.level_of(node)].count == 1
    }

    /// The levels that are not empty, best first.
    pub(crate) fn levels(&self) -> impl ExactSizeIterator<Item = Level> {
        let queues = self.queues.iter().rev().filter(|queue| queue.count > 0);
        Levels { queues: queues.map(|queue| self.level(queue)), left: self.len() }
    }

    /// The levels, worst first; some may be empty.
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

    fn level(&self, queue: &Queue) -> Level {
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
        let at = self.find(rank).unwrap_or_else(|at| self.open_level(at, rank));
        let queue = &mut self.queues[at];
        let node = pool.node_mut(slot);
        (node.previous, node.next) = (queue.tail, NONE);
        match queue.tail {
            NONE => {
                queue.head = slot;
                self.empty -= 1;
            }
            tail => pool.node_mut(tail).next = slot,
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
            self.empty += 1;
            self.clear_away();
        }
    }

    /// Puts an empty level in.
    fn open_level(&mut self, at: usize, rank: i64) -> usize {
        let mut at = at;
        if self.queues.len() == self.queues.capacity() && self.empty > 0 {
            at -= self.queues[..at].iter().filter(|queue| queue.count == 0).count();
            self.compact(); // rather than take more room
        }
        self.queues.insert(at, Queue { rank, open: 0, head: NONE, tail: NONE, count: 0 });
        self.empty += 1;
        at
    }

    /// Takes out empty levels: the best, and all if they are half of what there is.
    #[inline]
    fn clear_away(&mut self) {
        while self.best().is_some_and(|best| best.count == 0) {
            self.queues.pop();
            self.empty -= 1;
        }
        if self.empty > EMPTY_MIN && self.empty * 2 > self.queues.len() {
            self.compact();
        }
    }

    fn compact(&mut self) {
        self.queues.retain(|queue| queue.count > 0);
        self.empty = 0;
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

/// Levels that were counted.
struct Levels<I> {
    queues: I,
    left: usize,
}

impl<I: Iterator<Item = Level>> Iterator for Levels<I> {
    type Item = Level;

    fn next(&mut self) -> Option<Level> {
        let level = self.queues.next()?;
        self.left -= 1;
        Some(level)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<I: Iterator<Item = Level>> ExactSizeIterator for Levels<I> {}
