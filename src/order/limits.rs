//! What a client may do: its limits, and which of them make sense.

use super::field::{Field, Money, Quantity, Reason, SelfMatch};
use super::messages::SetLimits;
use crate::sequencer::{ClientId, ImageReader, ImageWriter, LoadError};

/// Fees and rebates are at most all of the notional, in millionths.
const FEE_PPM_MAX: i32 = 1_000_000;

/// A client's limits; 0 stands for none. The default is no limit at all and no fees, self-matches
/// allowed, and open orders cancelled when the client is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one order.
    pub max_quantity: Quantity,
    /// Of one order, price times quantity times multiplier.
    pub max_notional: Money,
    /// Of each instrument, open orders on the same side included, either way.
    pub max_position: Quantity,
    /// Of all positions, each at its mark, and open orders, each at its reserved price.
    pub max_gross: Money,
    /// What may be paid for purchases and reserved for open ones, less what sales brought.
    pub credit: Money,
    /// Realised and open loss, fees included.
    pub max_loss: Money,
    /// Of all instruments together.
    pub max_open_orders: u32,
    /// New orders and replacements in a second of sequenced time.
    pub max_orders_per_second: u32,
    /// How far from the reference price an order may be, in hundredths of a percent.
    pub collar_basis_points: u32,
    /// How old the reference price may be, milliseconds.
    pub reference_age_ms: u32,
    /// Paid on a maker's fill, in millionths of its notional; a rebate if negative.
    pub maker_fee_ppm: i32,
    /// Paid on a taker's fill, in millionths of its notional; a rebate if negative.
    pub taker_fee_ppm: i32,
    /// What happens when the client would trade with itself.
    pub self_match: SelfMatch,
    /// Whether open orders are cancelled when the client is gone.
    pub cancel_on_disconnect: bool,
    /// Whether breaking the loss limit also stops the client, and cancels what it has open.
    pub stop_on_breach: bool,
}

impl SetLimits {
    /// No limits and no fees: what holds for a client that none were set for.
    ///
    /// ```
    /// use gapless::order::{Quantity, messages::SetLimits};
    /// use gapless::sequencer::ClientId;
    ///
    /// let one = SetLimits { max_quantity: Quantity(100), ..SetLimits::none(ClientId(7)) };
    /// assert_eq!((one.max_open_orders, one.cancel_on_disconnect), (0, true));
    /// ```
    pub fn none(client: ClientId) -> Self {
        Self {
            max_quantity: Quantity(0),
            max_notional: Money(0),
            max_position: Quantity(0),
            max_gross: Money(0),
            credit: Money(0),
            max_loss: Money(0),
            max_open_orders: 0,
            max_orders_per_second: 0,
            collar_basis_points: 0,
            reference_age_ms: 0,
            maker_fee_ppm: 0,
            taker_fee_ppm: 0,
            client,
            self_match: SelfMatch::Allow,
            cancel_on_disconnect: true,
            stop_on_breach: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::of(&SetLimits::none(ClientId::NONE))
    }
}

impl TryFrom<&SetLimits> for Limits {
    type Error = Reason;

    /// [`Reason::InvalidLimit`] if money is negative, the largest position is more than a position
    /// can be, or a fee or rebate is more than all of the notional.
    fn try_from(message: &SetLimits) -> Result<Self, Reason> {
        let limits = Self::of(message);
        if limits.sound() { Ok(limits) } else { Err(Reason::InvalidLimit) }
    }
}

impl Limits {
    fn of(message: &SetLimits) -> Self {
        Self {
            max_quantity: message.max_quantity,
            max_notional: message.max_notional,
            max_position: message.max_position,
            max_gross: message.max_gross,
            credit: message.credit,
            max_loss: message.max_loss,
            max_open_orders: message.max_open_orders,
            max_orders_per_second: message.max_orders_per_second,
            collar_basis_points: message.collar_basis_points,
            reference_age_ms: message.reference_age_ms,
            maker_fee_ppm: message.maker_fee_ppm,
            taker_fee_ppm: message.taker_fee_ppm,
            self_match: message.self_match,
            cancel_on_disconnect: message.cancel_on_disconnect,
            stop_on_breach: message.stop_on_breach,
        }
    }

    fn sound(&self) -> bool {
        let money = [self.max_notional, self.max_gross, self.credit, self.max_loss];
        let fees = [self.maker_fee_ppm, self.taker_fee_ppm];
        money.iter().all(|money| money.0 >= 0)
            && self.max_position.0 <= i64::MAX as u64
            && fees.iter().all(|fee| (-FEE_PPM_MAX..=FEE_PPM_MAX).contains(fee))
    }

    /// Whether a market order can be judged only by a reference price.
    #[inline]
    pub(super) fn need_reference(&self) -> bool {
        let money = self.max_notional.0 | self.max_gross.0 | self.credit.0;
        money != 0 || self.collar_basis_points != 0
    }

    /// Whether anything goes by the marks of positions.
    #[inline]
    pub(super) fn need_marks(&self) -> bool {
        self.max_gross.0 | self.max_loss.0 != 0
    }

    pub(super) fn save(&self, image: &mut ImageWriter<'_>) {
        image.u64(self.max_quantity.0);
        image.i64(self.max_notional.0);
        image.u64(self.max_position.0);
        image.i64(self.max_gross.0);
        image.i64(self.credit.0);
        image.i64(self.max_loss.0);
        image.u32(self.max_open_orders);
        image.u32(self.max_orders_per_second);
        image.u32(self.collar_basis_points);
        image.u32(self.reference_age_ms);
        image.i32(self.maker_fee_ppm);
        image.i32(self.taker_fee_ppm);
        image.u8(self.self_match as u8);
        image.u8(self.cancel_on_disconnect.into());
        image.u8(self.stop_on_breach.into());
    }

    pub(super) fn load(image: &mut ImageReader<'_>) -> Result<Self, LoadError> {
        const WHAT: &str = "a client's limits";
        let odd = LoadError { what: WHAT };
        let loaded = Self {
            max_quantity: Quantity(image.u64(WHAT)?),
            max_notional: Money(image.i64(WHAT)?),
            max_position: Quantity(image.u64(WHAT)?),
            max_gross: Money(image.i64(WHAT)?),
            credit: Money(image.i64(WHAT)?),
            max_loss: Money(image.i64(WHAT)?),
            max_open_orders: image.u32(WHAT)?,
            max_orders_per_second: image.u32(WHAT)?,
            collar_basis_points: image.u32(WHAT)?,
            reference_age_ms: image.u32(WHAT)?,
            maker_fee_ppm: image.i32(WHAT)?,
            taker_fee_ppm: image.i32(WHAT)?,
            self_match: SelfMatch::of(image.u8(WHAT)?).ok_or(odd)?,
            cancel_on_disconnect: bool::from_wire(image.u8(WHAT)?).ok_or(odd)?,
            stop_on_breach: bool::from_wire(image.u8(WHAT)?).ok_or(odd)?,
        };
        if loaded.sound() { Ok(loaded) } else { Err(odd) }
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
