//! Pre-trade risk: what a client's orders are held against before they reach a venue.
//!
//! The checks are those of firms under SEC rule 15c3-5, cheapest first: kill switch, order rate,
//! largest quantity, largest notional, price collar, number of open orders, position, gross
//! exposure, credit, loss. A check reads sums that are kept up with each order and fill: its cost
//! does not depend on how many instruments, orders or clients there are. Nothing is allocated
//! behind [`Risk::new`], nothing overflows: what cannot be reckoned with is rejected.
//!
//! **Rate.** A client may send `n` orders at once; each 1/n of a second of sequenced time gives it
//! one back. So of orders at one instant the n-th passes and the next does not, until 1/n second
//! (rounded up to ns) later; in no second do more than 2n - 1 pass, in the long run n a second. An
//! order that passes this check counts whatever the later ones say; one that does not, does not.
//!
//! **Reservations.** An open order counts at its limit; a market order at the reference price, a
//! buy at the top of its collar. What is released or filled gives back the very price it was
//! reserved at, so that nothing remains of an order that is through.
//!
//! **Marks.** A position counts at its mark. The mark follows the reference price when the client
//! sends, replaces or gets a fill in that instrument; at each such occasion, if it has a gross or
//! loss limit, also for the next [`MARKED_IN_TURN`] of its instruments, in turn; for all clients
//! when the reference is set by command; for all of a client's when its limits are set. So a
//! client in two instruments is always marked exactly when it is checked, one in a hundred after
//! fifty of its own orders or fills, and each check at a bounded cost.
//!
//! **Closing.** An order is closing if it and all that the client has open on its side would at
//! most bring the position to zero. It passes the position, gross and credit limits whatever they
//! are. A replacement at the same price for no more than is open passes everything but kill switch
//! and rate. A limit that is lowered below what is there cancels nothing.
//!
//! **Loss.** What sales brought less what purchases cost, plus positions at their marks, less fees,
//! since the state began. Once more is lost than the limit, every new order is rejected, closing
//! or not, until the limits are set anew and the loss is within them; letting the client go from
//! the kill switch is not enough. A client that others' trades lose money learns it with its own
//! next order or fill, or when somebody asks ([`Risk::check_loss`]).
//!
//! **What it cannot see.** A sell far below the market counts at its low limit: with a gross limit
//! or a largest notional belongs a collar.

use zerocopy::FromZeros;

use super::account::{Account, Holding, Part, index};
use super::field::{InstrumentId, Liquidity, Money, OrderType, Price, Quantity, Reason, Side};
use super::instrument::Instrument;
use super::limits::Limits;
use super::messages::{Breached, SetLimits};
use crate::sequencer::ClientId;
use checks::{
    Reference, check_collar, check_notional, check_quantity, fee, market_price, part, protection,
};

mod checks;
mod saved;

/// How many of a client's other holdings are marked when one is touched.
pub const MARKED_IN_TURN: u32 = 2;

/// An order that has not been admitted yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Whose.
    pub client: ClientId,
    /// Which way.
    pub side: Side,
    /// With a price or without.
    pub order_type: OrderType,
    /// The limit; of a market order, not looked at.
    pub price: Price,
    /// How much.
    pub quantity: Quantity,
}

/// What is reserved for the open part of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reserved {
    /// The price at which it counts: what [`Risk::admit`] returned, or the new limit of a
    /// replacement.
    pub price: Price,
    /// What is open.
    pub quantity: Quantity,
}

/// What a fill cost, and what it led to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fill {
    /// Rounded up: never in the client's favour by rounding. Negative is a rebate.
    pub fee: Money,
    /// The loss limit, if this broke it. Said once, not with each further fill.
    pub breached: Option<Breached>,
}

/// A client's figures, for people and tests. All money in units of the instruments' exponents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Open orders of all instruments.
    pub open_orders: u32,
    /// Notional of open buys at their reserved prices.
    pub reserved_buys: i128,
    /// Notional of open sells at their reserved prices.
    pub reserved_sells: i128,
    /// All positions at their marks, and all open orders.
    pub gross: i128,
    /// Paid and reserved for purchases, less what sales brought.
    pub credit_used: i128,
    /// Realised and open profit less fees; below zero is a loss.
    pub profit: i128,
    /// Fees paid less rebates.
    pub fees: i128,
    /// Whether it may send.
    pub stopped: bool,
    /// Whether it broke the loss limit.
    pub breached: bool,
}

/// Where a client and an instrument stand in the tables.
#[derive(Clone, Copy)]
struct At {
    client: usize,
    instrument: usize,
    holding: usize,
}

/// The limits and figures of all clients.
///
/// ```
/// use gapless::order::messages::DefineInstrument;
/// use gapless::order::{
///     InstrumentId, Instruments, Intent, Liquidity, MarketState, OrderType, Price, Quantity,
///     Reason, Reserved, Risk, Side, Symbol,
/// };
/// use gapless::sequencer::ClientId;
///
/// let mut instruments = Instruments::new(10);
/// instruments.define(&DefineInstrument {
///     symbol: Symbol::new("ACME").expect("printable"),
///     tick: Price(1),
///     lot: Quantity(1),
///     multiplier: 1,
///     reference: Price(0),
///     instrument: InstrumentId(1),
///     price_exponent: -2,
///     state: MarketState::Open,
/// })?;
/// let acme = instruments.get(InstrumentId(1)).expect("just defined");
///
/// let mut risk = Risk::new(10, instruments.capacity());
/// let (client, side, quantity) = (ClientId(3), Side::Buy, Quantity(50));
/// let order_type = OrderType::Limit;
/// let order = Intent { client, side, order_type, price: Price(1_000), quantity };
/// let at = risk.admit(0, acme, &order)?;
/// let fill = risk.fill(
///     0, acme, client, side, at, Price(990), Quantity(20), Liquidity::Taker, false,
/// );
/// assert_eq!((fill.breached, risk.position(client, acme.id)), (None, 20));
/// risk.release(acme, client, side, Reserved { price: at, quantity: Quantity(30) }, true);
/// assert_eq!(risk.figures(client).map(|figures| figures.gross), Some(20 * 990));
///
/// risk.stop(ClientId::NONE, true);
/// assert_eq!(risk.admit(0, acme, &order), Err(Reason::KillSwitch));
/// # Ok::<(), Reason>(())
/// ```
pub struct Risk {
    /// Client n at n - 1.
    accounts: Vec<Account>,
    /// Instrument n at n - 1.
    references: Vec<Reference>,
    /// A row of all instruments per client.
    holdings: Vec<Holding>,
    /// The same rows: in each, the instruments of the holdings that are not flat, and what is
    /// behind them has no meaning.
    lists: Vec<u32>,
    all_stopped: bool,
}

impl Risk {
    /// Room for the client ids 1 to `clients` and instrument ids 1 to `instruments`: 68 bytes for
    /// each pair of them, which cost memory only once they are used. Who is first to use a page of
    /// them waits for the kernel to bring it.
    ///
    /// # Panics
    /// If there is no such address space.
    pub fn new(clients: usize, instruments: usize) -> Self {
        let pairs = clients.checked_mul(instruments).expect("fewer pairs than bytes");
        Self {
            accounts: vec![Account::default(); clients],
            references: vec![Reference::default(); instruments],
            holdings: Holding::new_vec_zeroed(pairs).expect("room for all holdings"),
            lists: vec![0; pairs],
            all_stopped: false,
        }
    }

    #[inline]
    fn at(&self, client: ClientId, instrument: InstrumentId) -> Option<At> {
        let client = usize::from(client.0).wrapping_sub(1);
        let instrument = (instrument.0 as usize).wrapping_sub(1);
        let fits = client < self.accounts.len() && instrument < self.references.len();
        let holding = client.wrapping_mul(self.references.len()).wrapping_add(instrument);
        fits.then_some(At { client, instrument, holding })
    }

    fn account(&self, client: ClientId) -> Option<&Account> {
        self.accounts.get(usize::from(client.0).wrapping_sub(1))
    }

    fn account_mut(&mut self, client: ClientId) -> Option<&mut Account> {
        self.accounts.get_mut(usize::from(client.0).wrapping_sub(1))
    }

    /// Sets a client's limits, from now on. What is open stays, whatever they are. A broken loss
    /// limit is forgotten if the loss is within the new one; a client that was stopped stays so.
    ///
    /// # Errors
    /// [`Reason::InvalidLimit`], [`Reason::Capacity`]; the limits are then as they were.
    pub fn set_limits(&mut self, message: &SetLimits) -> Result<(), Reason> {
        let limits = Limits::try_from(message)?;
        let client = usize::from(message.client.0).wrapping_sub(1);
        let account = self.accounts.get_mut(client).ok_or(Reason::Capacity)?;
        account.limits = limits;
        account.rate.limit(limits.max_orders_per_second);
        self.mark_in_turn(client, u32::MAX);
        let account = &mut self.accounts[client];
        account.breached &= account.loses_too_much();
        Ok(())
    }

    /// A client's limits; no limits of one beyond the capacity.
    pub fn limits(&self, client: ClientId) -> Limits {
        self.account(client).map_or_else(Limits::default, |account| account.limits)
    }

    /// The worst price that a market order of this client's may trade at, 0 for any: the collar's
    /// edge; without a collar, of a purchase by a client whose notional, gross exposure or credit
    /// is limited, the reference price. What it is admitted at is so what it can cost.
    pub fn protection(&self, client: ClientId, instrument: InstrumentId, side: Side) -> Price {
        self.at(client, instrument).map_or(Price(0), |at| {
            protection(&self.accounts[at.client].limits, &self.references[at.instrument], side)
        })
    }

    /// Stops a client or lets it go again; client 0: everybody. Letting everybody go lets nobody
    /// go that was stopped alone.
    pub fn stop(&mut self, client: ClientId, engaged: bool) {
        if client == ClientId::NONE {
            self.all_stopped = engaged;
        } else if let Some(account) = self.account_mut(client) {
            account.stopped = engaged;
        }
    }

    /// Whether a client may not send: it, or everybody, is stopped.
    pub fn is_stopped(&self, client: ClientId) -> bool {
        self.all_stopped || self.account(client).is_some_and(|account| account.stopped)
    }

    /// Sets an instrument's reference price and marks everybody at it; 0 or less: there is none
    /// from now on, and marks stay. Costs a step per client: not for every trade (see
    /// [`fill`](Self::fill), which sets it as well).
    pub fn set_reference(&mut self, instrument: InstrumentId, price: Price, now_ns: u64) {
        let index = (instrument.0 as usize).wrapping_sub(1);
        let stride = self.references.len();
        let Some(reference) = self.references.get_mut(index) else { return };
        (reference.price, reference.at_ns) = (price.max(Price(0)), now_ns);
        for (client, account) in self.accounts.iter_mut().enumerate() {
            if account.holdings != 0 {
                account.mark(&mut self.holdings[client * stride + index], price);
            }
        }
    }

    /// An instrument's reference price; `None` if it has none.
    pub fn reference(&self, instrument: InstrumentId) -> Option<Price> {
        let reference = self.references.get((instrument.0 as usize).wrapping_sub(1))?;
        (reference.price.0 > 0).then_some(reference.price)
    }

    /// All checks of a new order, cheapest first; reserves for it if it passes. Returns the price
    /// that it was reserved at: the limit, or of a market order the reference price (0 if there is
    /// none, and no limit asks for one), of a buy plus the collar.
    ///
    /// # Errors
    /// The first check that it does not pass. Then nothing is reserved, and nothing but the rate
    /// and the marks has changed.
    pub fn admit(
        &mut self,
        now_ns: u64,
        instrument: &Instrument,
        order: &Intent,
    ) -> Result<Price, Reason> {
        let at = self.at(order.client, instrument.id).ok_or(Reason::Capacity)?;
        let account = &mut self.accounts[at.client];
        account.may_send(now_ns, self.all_stopped)?;
        let limits = &account.limits;
        let quantity = order.quantity;
        check_quantity(limits, quantity)?;
        let reference = &self.references[at.instrument];
        let price = match order.order_type {
            OrderType::Limit => order.price,
            OrderType::Market => market_price(limits, reference, now_ns, order.side)?,
        };
        let (unit, notional) =
            check_notional(limits, instrument, order.order_type, price, quantity)?;
        if order.order_type == OrderType::Limit {
            check_collar(limits, reference, now_ns, price)?;
        }
        let most = if limits.max_open_orders == 0 { u32::MAX } else { limits.max_open_orders };
        if account.open_orders >= most {
            return Err(Reason::OpenOrders);
        }
        self.mark(at, instrument.multiplier);
        let account = &mut self.accounts[at.client];
        let holding = &mut self.holdings[at.holding];
        let new = Part { quantity: quantity.0, notional };
        let nothing = Part { quantity: 0, notional: 0 };
        if let Err(reason) = account.may_hold(holding, order.side, unit, nothing, new) {
            if holding.slot == 0 {
                *holding = Holding::NONE;
            }
            return Err(reason);
        }
        account.open_orders += 1;
        account.reserved[index(order.side)] += i128::from(notional);
        holding.open[index(order.side)] += quantity.0;
        self.enlist(at, instrument.multiplier);
        Ok(price)
    }

    /// Checks of a replacement: `old` is what is reserved for the order, `new` what is to be,
    /// `total` its new quantity, what has been filled included. Moves the reservation if it passes.
    ///
    /// # Errors
    /// The first check that it does not pass. Then the reservation stays, and nothing but the rate
    /// and the marks has changed.
    #[expect(clippy::too_many_arguments, reason = "what a replacement is judged by")]
    pub fn readmit(
        &mut self,
        now_ns: u64,
        instrument: &Instrument,
        client: ClientId,
        side: Side,
        old: Reserved,
        new: Reserved,
        total: Quantity,
    ) -> Result<(), Reason> {
        let at = self.at(client, instrument.id).ok_or(Reason::Capacity)?;
        let account = &mut self.accounts[at.client];
        account.may_send(now_ns, self.all_stopped)?;
        let limits = &account.limits;
        if new.quantity.0 == 0 || total < new.quantity {
            return Err(Reason::InvalidQuantity);
        }
        let old_part = part(instrument, old);
        let unit = instrument.unit_value(new.price).ok_or(Reason::InvalidPrice)?.0;
        let new_part = part(instrument, new);
        if new.price != old.price || new.quantity > old.quantity {
            check_quantity(limits, total)?;
            check_notional(limits, instrument, OrderType::Limit, new.price, total)?;
            check_collar(limits, &self.references[at.instrument], now_ns, new.price)?;
            self.mark(at, instrument.multiplier);
            let account = &self.accounts[at.client];
            let holding = &self.holdings[at.holding];
            account.may_hold(holding, side, unit, old_part, new_part)?;
        }
        self.move_part(at, side, old_part, new_part);
        Ok(())
    }

    /// Moves a reservation without a check, for what has been checked already or is so anyway: both
    /// sides of a replacement while the venue has not answered, and what is left of it then.
    pub fn restate(
        &mut self,
        instrument: &Instrument,
        client: ClientId,
        side: Side,
        old: Reserved,
        new: Reserved,
    ) {
        let Some(at) = self.at(client, instrument.id) else { return };
        self.move_part(at, side, part(instrument, old), part(instrument, new));
    }

    /// What was open is open no more (cancelled, or rejected by the venue): gives back exactly what
    /// was reserved. `last`: the order is through, and no longer counts as an open one.
    ///
    /// What is given back must have been reserved: no more than is open of the order, at the price
    /// that it was reserved at.
    pub fn release(
        &mut self,
        instrument: &Instrument,
        client: ClientId,
        side: Side,
        reserved: Reserved,
        last: bool,
    ) {
        let Some(at) = self.at(client, instrument.id) else { return };
        self.unreserve(at, side, part(instrument, reserved), last);
        self.delist_if_flat(at);
    }

    /// A fill: what was reserved for it becomes position, paid for at `price`; the fee is booked,
    /// `price` becomes the reference price, and the loss is looked at.
    ///
    /// The quantity must be open of the order, and [`Instrument::notional`] of price and quantity
    /// must be money: a report from outside has to be looked at before.
    #[expect(clippy::too_many_arguments, reason = "what a fill consists of")]
    pub fn fill(
        &mut self,
        now_ns: u64,
        instrument: &Instrument,
        client: ClientId,
        side: Side,
        reserved_price: Price,
        price: Price,
        quantity: Quantity,
        liquidity: Liquidity,
        last: bool,
    ) -> Fill {
        let Some(at) = self.at(client, instrument.id) else { return Fill::default() };
        let reserved = Reserved { price: reserved_price, quantity };
        self.enlist(at, instrument.multiplier);
        self.unreserve(at, side, part(instrument, reserved), last);
        let filled = part(instrument, Reserved { price, quantity });
        let account = &mut self.accounts[at.client];
        let ppm = match liquidity {
            Liquidity::Maker => account.limits.maker_fee_ppm,
            Liquidity::Taker => account.limits.taker_fee_ppm,
        };
        let fee = fee(filled.notional, ppm);
        account.fees += i128::from(fee);
        let holding = &mut self.holdings[at.holding];
        let quantity = i64::try_from(filled.quantity).unwrap_or(i64::MAX);
        let position = match side {
            Side::Buy => {
                account.paid += i128::from(filled.notional);
                holding.position.saturating_add(quantity)
            }
            Side::Sell => {
                account.paid -= i128::from(filled.notional);
                holding.position.saturating_sub(quantity)
            }
        };
        account.set_position(holding, position);
        let reference = &mut self.references[at.instrument];
        (reference.price, reference.at_ns) = (price, now_ns);
        self.mark(at, instrument.multiplier);
        self.delist_if_flat(at);
        Fill { fee: Money(fee), breached: self.check_loss(client) }
    }

    /// Whether a client has just broken its loss limit. [`fill`](Self::fill) asks it itself; after
    /// [`set_reference`](Self::set_reference) it may be asked for each client. Stops the client if
    /// its limits say so. Says it once: the next time after the limits have been set anew.
    pub fn check_loss(&mut self, client: ClientId) -> Option<Breached> {
        let account = self.account_mut(client)?;
        if account.breached || !account.loses_too_much() {
            return None;
        }
        account.breached = true;
        account.stopped |= account.limits.stop_on_breach;
        Some(Breached {
            value: Money(i64::try_from(-account.profit()).unwrap_or(i64::MAX)),
            limit: account.limits.max_loss,
            reason: Reason::LossLimit,
            stopped: account.limits.stop_on_breach,
        })
    }

    /// What a client has of an instrument; below zero if more was sold than bought.
    pub fn position(&self, client: ClientId, instrument: InstrumentId) -> i64 {
        self.at(client, instrument).map_or(0, |at| self.holdings[at.holding].position)
    }

    /// Whether anybody has a position or open orders: the instrument must not be redefined then.
    pub fn in_use(&self, instrument: InstrumentId) -> bool {
        let reference = self.references.get((instrument.0 as usize).wrapping_sub(1));
        reference.is_some_and(|reference| reference.holders != 0)
    }

    /// A client's figures; `None` beyond the capacity.
    pub fn figures(&self, client: ClientId) -> Option<Figures> {
        let account = self.account(client)?;
        Some(Figures {
            open_orders: account.open_orders,
            reserved_buys: account.reserved[index(Side::Buy)],
            reserved_sells: account.reserved[index(Side::Sell)],
            gross: account.gross(),
            credit_used: account.credit_used(),
            profit: account.profit(),
            fees: account.fees,
            stopped: self.is_stopped(client),
            breached: account.breached,
        })
    }

    #[inline]
    fn move_part(&mut self, at: At, side: Side, old: Part, new: Part) {
        self.accounts[at.client].reserved[index(side)] +=
            i128::from(new.notional) - i128::from(old.notional);
        let open = &mut self.holdings[at.holding].open[index(side)];
        *open = open.saturating_sub(old.quantity).saturating_add(new.quantity);
    }

    fn unreserve(&mut self, at: At, side: Side, part: Part, last: bool) {
        let account = &mut self.accounts[at.client];
        let open = &mut self.holdings[at.holding].open[index(side)];
        debug_assert!(*open >= part.quantity, "given back more than was reserved");
        *open = open.saturating_sub(part.quantity);
        account.reserved[index(side)] -= i128::from(part.notional);
        account.open_orders = account.open_orders.saturating_sub(last.into());
    }

    /// Marks this holding and the next few in turn.
    #[inline]
    fn mark(&mut self, at: At, multiplier: u64) {
        let holding = &mut self.holdings[at.holding];
        if holding.slot == 0 {
            holding.multiplier = multiplier;
        }
        let account = &mut self.accounts[at.client];
        account.mark(holding, self.references[at.instrument].price);
        if account.limits.need_marks() {
            self.mark_in_turn(at.client, MARKED_IN_TURN);
        }
    }

    fn mark_in_turn(&mut self, client: usize, most: u32) {
        let account = &mut self.accounts[client];
        let row = client * self.references.len();
        for _ in 0..most.min(account.holdings) {
            account.turn = if account.turn + 1 < account.holdings { account.turn + 1 } else { 0 };
            let instrument = self.lists[row + account.turn as usize] as usize;
            let holding = &mut self.holdings[row + instrument];
            account.mark(holding, self.references[instrument].price);
        }
    }

    /// Puts a holding on the client's list, if it is not there.
    #[inline]
    fn enlist(&mut self, at: At, multiplier: u64) {
        let holding = &mut self.holdings[at.holding];
        if holding.slot != 0 {
            return;
        }
        let account = &mut self.accounts[at.client];
        let row = at.holding - at.instrument;
        self.lists[row + account.holdings as usize] = at.instrument as u32;
        account.holdings += 1;
        holding.slot = account.holdings;
        holding.multiplier = multiplier;
        self.references[at.instrument].holders += 1;
    }

    /// Takes a flat holding off the list; the last one of the list takes its place.
    #[inline]
    fn delist_if_flat(&mut self, at: At) {
        let holding = &mut self.holdings[at.holding];
        if !holding.is_flat() {
            return;
        }
        let slot = std::mem::replace(holding, Holding::NONE).slot;
        if slot == 0 {
            return;
        }
        let account = &mut self.accounts[at.client];
        let row = at.holding - at.instrument;
        account.holdings -= 1;
        let moved = self.lists[row + account.holdings as usize];
        if slot <= account.holdings {
            self.lists[row + slot as usize - 1] = moved;
            self.holdings[row + moved as usize].slot = slot;
        }
        self.references[at.instrument].holders -= 1;
    }
}

#[cfg(test)]
#[path = "risk_tests.rs"]
mod tests;
