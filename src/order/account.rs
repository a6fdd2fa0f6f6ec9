//! One client's figures: what pre-trade checks go by, each kept up with every order and fill, so
//! that no check adds anything up.
//!
//! None of the sums can overflow: an order's notional and, of each [`Holding`], its extent times
//! its mark are at most `i64::MAX`; there are fewer than 2^32 orders and holdings; sums are `i128`.

use zerocopy::FromZeros;

use super::field::{Price, Reason, Side};
use super::limits::Limits;

/// What an order adds to its client's [`Rate`]; per nanosecond it loses 1 for each order that is
/// allowed in a second.
const ORDER: u64 = 1_000_000_000;

#[inline]
pub(super) fn index(side: Side) -> usize {
    usize::from(side == Side::Sell)
}

/// What a client has of one instrument, and what it has open in it. All zero if it has neither.
#[derive(Clone, Copy, Debug, FromZeros, PartialEq, Eq)]
#[repr(C, align(64))]
pub(super) struct Holding {
    /// Below zero if more was sold than bought.
    pub(super) position: i64,
    /// Open quantity by side.
    pub(super) open: [u64; 2],
    /// What one unit is worth at the mark.
    pub(super) unit: i64,
    /// The instrument's.
    pub(super) multiplier: u64,
    /// Where it stands in the client's list, 1 the first; 0 if all is zero.
    pub(super) slot: u32,
}

impl Holding {
    pub(super) const NONE: Self =
        Self { position: 0, open: [0; 2], unit: 0, multiplier: 0, slot: 0 };

    /// The position if everything open filled the way that makes it largest, and beyond.
    #[inline]
    pub(super) fn extent(&self) -> i128 {
        i128::from(self.position.unsigned_abs()) + self.opened()
    }

    #[inline]
    fn opened(&self) -> i128 {
        i128::from(self.open[0]) + i128::from(self.open[1])
    }

    pub(super) fn is_flat(&self) -> bool {
        self.position == 0 && self.open == [0; 2]
    }

    /// What the position is worth at its mark; below zero if it is short.
    #[inline]
    pub(super) fn value(&self) -> i128 {
        i128::from(self.position) * i128::from(self.unit)
    }
}

/// A part of an order, open or to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) quantity: u64,
    pub(super) notional: i64,
}

/// How many orders came of late: a bucket that an order fills by one, and that loses as many in a
/// second as are allowed; an order that would make it run over is one too many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rate {
    /// In [`ORDER`]ths of an order.
    pub(super) level: u64,
    pub(super) last_ns: u64,
}

impl Rate {
    /// At the highest limit that there is.
    pub(super) const LEVEL_MAX: u64 = u32::MAX as u64 * ORDER;

    /// Goes by another limit from now on: what came before fills it up at most once.
    pub(super) fn limit(&mut self, per_second: u32) {
        self.level = self.level.min(u64::from(per_second) * ORDER);
    }

    #[inline]
    fn admit(&mut self, now_ns: u64, per_second: u32) -> Result<(), Reason> {
        if per_second == 0 {
            return Ok(());
        }
        let per_second = u64::from(per_second);
        let elapsed_ns = now_ns.saturating_sub(self.last_ns);
        self.level = self.level.saturating_sub(elapsed_ns.saturating_mul(per_second));
        self.last_ns = now_ns.max(self.last_ns);
        // At most 2^32 times 2^30: no overflow, on either side.
        if self.level + ORDER > per_second * ORDER {
            return Err(Reason::OrderRate);
        }
        self.level += ORDER;
        Ok(())
    }
}

/// A client's limits and figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(align(64))]
pub(super) struct Account {
    pub(super) limits: Limits,
    pub(super) rate: Rate,
    /// Sum of the worth of all positions at their marks, short ones counted like long ones.
    pub(super) held: i128,
    /// The same, short ones subtracted.
    pub(super) value: i128,
    /// Notional of all open orders at their reserved prices, by side.
    pub(super) reserved: [i128; 2],
    /// Paid for purchases, less what sales brought.
    pub(super) paid: i128,
    pub(super) fees: i128,
    pub(super) open_orders: u32,
    /// How many holdings are in the client's list.
    pub(super) holdings: u32,
    /// Which of them is to be marked next in turn.
    pub(super) turn: u32,
    pub(super) stopped: bool,
    /// Whether the loss limit is broken, and was said to be.
    pub(super) breached: bool,
}

impl Account {
    /// Whether the client may send at all, and at this rate.
    #[inline]
    pub(super) fn may_send(&mut self, now_ns: u64, all_stopped: bool) -> Result<(), Reason> {
        if all_stopped || self.stopped {
            return Err(Reason::KillSwitch);
        }
        self.rate.admit(now_ns, self.limits.max_orders_per_second)
    }

    /// Whether the client's exposure allows `new` in place of `old` (nothing, for a new order).
    #[inline]
    pub(super) fn may_hold(
        &self,
        holding: &Holding,
        side: Side,
        unit: i64,
        old: Part,
        new: Part,
    ) -> Result<(), Reason> {
        let limits = &self.limits;
        let more = i128::from(new.quantity) - i128::from(old.quantity);
        let extent = holding.extent() + more;
        if extent > i128::from(i64::MAX) {
            return Err(Reason::InvalidQuantity);
        }
        if extent * i128::from(unit.max(holding.unit)) > i128::from(i64::MAX) {
            return Err(Reason::MaxNotional);
        }
        let position = i128::from(holding.position);
        let towards = if side == Side::Buy { position } else { -position };
        let worst = towards + i128::from(holding.open[index(side)]) + more;
        let max_position = i128::from(limits.max_position.0);
        if max_position != 0 && more > 0 && worst > max_position {
            return Err(Reason::PositionLimit);
        }
        // What is open on this side does at most close the position: nothing can grow by it.
        let closes = worst <= 0;
        let dearer = i128::from(new.notional) - i128::from(old.notional);
        if !closes && dearer > 0 {
            let max_gross = i128::from(limits.max_gross.0);
            if max_gross != 0 && self.gross() + dearer > max_gross {
                return Err(Reason::GrossExposure);
            }
            let credit = i128::from(limits.credit.0);
            if credit != 0 && side == Side::Buy && self.credit_used() + dearer > credit {
                return Err(Reason::Credit);
            }
        }
        if self.breached || self.loses_too_much() {
            return Err(Reason::LossLimit);
        }
        Ok(())
    }

    /// All positions and open orders.
    #[inline]
    pub(super) fn gross(&self) -> i128 {
        self.held + self.reserved[0] + self.reserved[1]
    }

    /// Paid and reserved for purchases, less what sales brought.
    #[inline]
    pub(super) fn credit_used(&self) -> i128 {
        self.paid + self.reserved[index(Side::Buy)]
    }

    /// Realised and open profit, less fees. Whatever way costs are averaged, the two add up to what
    /// sales brought, less what purchases cost, plus what is held at its mark.
    #[inline]
    pub(super) fn profit(&self) -> i128 {
        self.value - self.paid - self.fees
    }

    #[inline]
    pub(super) fn loses_too_much(&self) -> bool {
        self.limits.max_loss.0 != 0 && -self.profit() > i128::from(self.limits.max_loss.0)
    }

    /// Marks a holding at this price. A price at which it could not be reckoned with leaves the
    /// mark as it is; so does none.
    #[inline]
    pub(super) fn mark(&mut self, holding: &mut Holding, price: Price) {
        let Some(unit) = super::instrument::unit_value(price, holding.multiplier) else { return };
        if unit == holding.unit || unit <= 0 {
            return;
        }
        if holding.extent() * i128::from(unit) > i128::from(i64::MAX) {
            return;
        }
        let rise = i128::from(unit) - i128::from(holding.unit);
        self.value += i128::from(holding.position) * rise;
        self.held += i128::from(holding.position.unsigned_abs()) * rise;
        holding.unit = unit;
    }

    /// Changes a position. Its mark stays.
    #[inline]
    pub(super) fn set_position(&mut self, holding: &mut Holding, position: i64) {
        let before = holding.value();
        holding.position = position;
        let after = holding.value();
        self.value += after - before;
        self.held += after.abs() - before.abs();
    }
}
