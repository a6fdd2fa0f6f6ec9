//! A book as plain as can be, written from the rules: a list in the order of time, searched and
//! sorted for each order.

use super::Ask;
use crate::order::book::Level;
use crate::order::{
    CancelReason, Liquidity, OrderId, OrderType, Price, Quantity, Reason, Report, SelfMatch, Side,
    TimeInForce, VenueOrder,
};

/// The rules once more, as plainly as can be: orders in the order of their time.
pub(super) struct Naive {
    capacity: usize,
    pub(super) trades: u64,
    orders: Vec<VenueOrder>,
}

impl Naive {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, trades: 0, orders: Vec::new() }
    }

    fn crosses(order: &VenueOrder, standing: &VenueOrder) -> bool {
        let good = match order.side {
            Side::Buy => standing.price <= order.price,
            Side::Sell => standing.price >= order.price,
        };
        order.side != standing.side
            && (good || order.order_type == OrderType::Market && order.price.0 == 0)
    }

    /// Standing orders of a side, first to trade first. The sort is stable, so time decides last.
    pub(super) fn by_priority(&self, side: Side) -> Vec<VenueOrder> {
        let mut orders: Vec<_> = self.orders.iter().filter(|o| o.side == side).copied().collect();
        orders.sort_by_key(|order| match side {
            Side::Buy => -i128::from(order.price.0),
            Side::Sell => i128::from(order.price.0),
        });
        orders
    }

    /// What the order would do now: trades, own orders to cancel, and what is left of it.
    fn plan(&self, order: &VenueOrder) -> (Vec<(VenueOrder, u64)>, u64, bool) {
        let (mut steps, mut left) = (Vec::new(), order.quantity.0);
        for standing in self.by_priority(order.side.opposite()) {
            if left == 0 || !Self::crosses(order, &standing) {
                break;
            }
            if standing.client == order.client && order.self_match == SelfMatch::CancelIncoming {
                return (steps, left, true);
            }
            let own =
                standing.client == order.client && order.self_match == SelfMatch::CancelStanding;
            let quantity = if own { 0 } else { left.min(standing.quantity.0) };
            left -= quantity;
            steps.push((standing, quantity));
        }
        (steps, left, false)
    }

    /// Trades as planned, and answers what is left, and whether it was stopped.
    fn carry_out(&mut self, order: &VenueOrder, reports: &mut Vec<Report>) -> (u64, bool) {
        let (steps, left, stopped) = self.plan(order);
        for (standing, traded) in steps {
            if traded == 0 {
                self.orders.retain(|o| o.order_id != standing.order_id);
                let reason = CancelReason::SelfMatch;
                reports.push(Report::Cancelled { order_id: standing.order_id, reason });
                continue;
            }
            self.trades += 1;
            for (order_id, liquidity) in
                [(standing.order_id, Liquidity::Maker), (order.order_id, Liquidity::Taker)]
            {
                reports.push(Report::Filled {
                    order_id,
                    match_id: self.trades,
                    price: standing.price,
                    quantity: Quantity(traded),
                    liquidity,
                });
            }
            for maker in &mut self.orders {
                if maker.order_id == standing.order_id {
                    maker.quantity.0 -= traded;
                }
            }
            self.orders.retain(|o| o.quantity.0 > 0);
        }
        (left, stopped)
    }

    fn finish(&mut self, order: VenueOrder, left: (u64, bool), reports: &mut Vec<Report>) {
        let (left, stopped) = left;
        let day = order.time_in_force == TimeInForce::Day && order.order_type == OrderType::Limit;
        let reason = match (stopped, day) {
            _ if left == 0 => return,
            (true, _) => CancelReason::SelfMatch,
            (false, false) => CancelReason::Unfilled,
            (false, true) => {
                self.orders.push(VenueOrder { quantity: Quantity(left), ..order });
                return;
            }
        };
        reports.push(Report::Cancelled { order_id: order.order_id, reason });
    }

    fn refusal(&self, order: &VenueOrder) -> Option<Reason> {
        let day = order.time_in_force == TimeInForce::Day && order.order_type == OrderType::Limit;
        let crosses = self.orders.iter().any(|standing| Self::crosses(order, standing));
        let refusals = [
            (order.order_id.0 == 0, Reason::UnknownOrder),
            (order.quantity.0 == 0, Reason::InvalidQuantity),
            (order.quantity.0 > u64::MAX / self.capacity as u64, Reason::InvalidQuantity),
            (self.orders.iter().any(|o| o.order_id == order.order_id), Reason::DuplicateOrder),
            (order.post_only && !day, Reason::InvalidCombination),
            (order.post_only && crosses, Reason::WouldCross),
            (day && !crosses && self.orders.len() == self.capacity, Reason::Capacity),
        ];
        refusals.into_iter().find_map(|(is, reason)| is.then_some(reason))
    }

    fn submit(&mut self, order: VenueOrder) -> Vec<Report> {
        let order_id = order.order_id;
        if let Some(reason) = self.refusal(&order) {
            return vec![Report::Rejected { order_id, reason }];
        }
        let mut reports = vec![Report::Accepted { order_id }];
        if order.time_in_force == TimeInForce::Fok && self.plan(&order).1 > 0 {
            reports.push(Report::Cancelled { order_id, reason: CancelReason::Killed });
            return reports;
        }
        let left = self.carry_out(&order, &mut reports);
        self.finish(order, left, &mut reports);
        reports
    }

    fn cancel(&mut self, order_id: OrderId) -> Vec<Report> {
        let before = self.orders.len();
        self.orders.retain(|o| o.order_id != order_id);
        if self.orders.len() == before {
            return vec![Report::CancelRejected { order_id, reason: Reason::TooLate }];
        }
        vec![Report::Cancelled { order_id, reason: CancelReason::Requested }]
    }

    fn replace(&mut self, order_id: OrderId, price: Price, leaves: Quantity) -> Vec<Report> {
        let refused = |reason| vec![Report::CancelRejected { order_id, reason }];
        let Some(at) = self.orders.iter().position(|o| o.order_id == order_id) else {
            return refused(Reason::TooLate);
        };
        let old = self.orders[at];
        let new = VenueOrder { price, quantity: leaves, ..old };
        if leaves.0 == 0 || leaves.0 > u64::MAX / self.capacity as u64 {
            return refused(Reason::InvalidQuantity);
        }
        if old.post_only && self.orders.iter().any(|standing| Self::crosses(&new, standing)) {
            return refused(Reason::WouldCross);
        }
        let mut reports = vec![Report::Replaced { order_id, price, leaves }];
        if price == old.price && leaves <= old.quantity {
            self.orders[at].quantity = leaves;
            return reports;
        }
        self.orders.remove(at);
        let left = self.carry_out(&new, &mut reports);
        self.finish(new, left, &mut reports);
        reports
    }

    pub(super) fn ask(&mut self, ask: Ask) -> Vec<Report> {
        match ask {
            Ask::Submit(order) => self.submit(order),
            Ask::Cancel(order_id) => self.cancel(order_id),
            Ask::Replace(order_id, price, leaves) => self.replace(order_id, price, leaves),
        }
    }

    pub(super) fn depth(&self, side: Side) -> Vec<Level> {
        let mut levels: Vec<Level> = Vec::new();
        for order in self.by_priority(side) {
            match levels.last_mut() {
                Some(level) if level.price == order.price => {
                    level.quantity.0 += order.quantity.0;
                    level.orders += 1;
                }
                _ => levels.push(Level { price: order.price, quantity: order.quantity, orders: 1 }),
            }
        }
        levels
    }
}
