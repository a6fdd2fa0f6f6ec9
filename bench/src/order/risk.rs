//! `order/risk`: the pre-trade checks alone, call by call.
//!
//! All limits are set, none is reached, and clients hold positions in many instruments, so that
//! every check runs to its end and marks are brought up to date. What is reserved by a call is
//! given back behind it, or becomes a fill, and neither is timed.

use std::hint::black_box;

use anyhow::{Context, Result, ensure};
use gapless::order::messages::{DefineInstrument, SetLimits};
use gapless::order::{
    InstrumentId, Instruments, Intent, Liquidity, MarketState, Money, OrderType, Price, Quantity,
    Reserved, Risk, SelfMatch, Side, Symbol,
};
use gapless::sequencer::ClientId;

use crate::clock::ticks;
use crate::control::Word;
use crate::scenario::{Outcome, Scenario, Session, histogram};

/// Orders that are made beforehand and used over and over.
const ORDERS: usize = 1 << 14;
/// One order of so many is filled.
const FILLED: usize = 16;
/// Checks that one reading of the clock is spread over, for the mean.
const BATCH: usize = 64;
const REFERENCE: i64 = 10_000;
/// From one order to the next, ns of sequenced time.
const STEP_NS: u64 = 200;

/// Clients, instruments and orders for the checks.
pub(crate) struct Checks {
    risk: Risk,
    instruments: Instruments,
    orders: Vec<(InstrumentId, Intent)>,
    now_ns: u64,
    next: usize,
}

/// A stream of numbers, the same each time (xorshift64).
fn numbers() -> impl FnMut() -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

/// Limits of every kind, none of which is reached here.
pub(super) fn limits(client: ClientId) -> SetLimits {
    let most = Money(i64::MAX / 4);
    SetLimits {
        max_quantity: Quantity(1_000_000_000),
        max_notional: most,
        max_position: Quantity(i64::MAX as u64 / 4),
        max_gross: most,
        credit: most,
        max_loss: most,
        max_open_orders: 1_000_000,
        max_orders_per_second: 1_000_000_000,
        collar_basis_points: 5_000,
        reference_age_ms: 0,
        maker_fee_ppm: -1,
        taker_fee_ppm: 3,
        client,
        self_match: SelfMatch::Allow,
        cancel_on_disconnect: true,
        stop_on_breach: true,
    }
}

/// An instrument that trades in steps of one.
pub(super) fn instrument(id: u32, reference: i64) -> Result<DefineInstrument> {
    Ok(DefineInstrument {
        symbol: Symbol::new(&format!("I{id}")).context("a symbol")?,
        tick: Price(1),
        lot: Quantity(1),
        multiplier: 1,
        reference: Price(reference),
        instrument: InstrumentId(id),
        price_exponent: 0,
        state: MarketState::Open,
    })
}

impl Checks {
    /// Orders of so many clients in so many instruments, each client with positions in most.
    pub(crate) fn new(size: RiskChecks) -> Result<Self> {
        let RiskChecks { clients, instruments: count } = size;
        let mut instruments = Instruments::new(count as usize);
        let mut risk = Risk::new(usize::from(clients), count as usize);
        let refused = |reason| anyhow::anyhow!("the set-up was refused: {reason:?}");
        for id in 1..=count {
            instruments.define(&instrument(id, REFERENCE)?).map_err(refused)?;
            risk.set_reference(InstrumentId(id), Price(REFERENCE), 0);
        }
        for client in 1..=clients {
            risk.set_limits(&limits(ClientId(client))).map_err(refused)?;
        }
        let mut number = numbers();
        let orders = (0..ORDERS).map(|_| {
            let bits = number();
            let order = Intent {
                client: ClientId((bits % u64::from(clients)) as u16 + 1),
                side: if bits & 1 << 20 == 0 { Side::Buy } else { Side::Sell },
                order_type: OrderType::Limit,
                price: Price(REFERENCE - 200 + (bits >> 24) as i64 % 400),
                quantity: Quantity(1 + (bits >> 40) % 100),
            };
            (InstrumentId((bits >> 8) as u32 % count + 1), order)
        });
        let orders = orders.collect();
        let mut checks = Self { risk, instruments, orders, now_ns: 1_000_000_000, next: 0 };
        for index in 0..ORDERS {
            let price = checks.admit(index)?;
            checks.settle(index, price, true)?;
        }
        Ok(checks)
    }

    #[inline(always)]
    fn admit(&mut self, index: usize) -> Result<Price> {
        let (id, order) = &self.orders[index];
        let instrument = self.instruments.get(*id).context("an instrument")?;
        match self.risk.admit(self.now_ns, instrument, black_box(order)) {
            Ok(price) => Ok(price),
            Err(reason) => Err(refusal(reason)),
        }
    }

    /// Gives back what was reserved, or fills the order.
    fn settle(&mut self, index: usize, price: Price, filled: bool) -> Result<()> {
        let (id, order) = self.orders[index];
        let instrument = self.instruments.get(id).context("an instrument")?;
        let Intent { client, side, quantity, .. } = order;
        if filled {
            let (at, now_ns) = (order.price, self.now_ns);
            let liquidity = Liquidity::Taker;
            let Self { risk, .. } = self;
            let fill =
                risk.fill(now_ns, instrument, client, side, price, at, quantity, liquidity, true);
            ensure!(fill.breached.is_none(), "a limit was broken");
        } else {
            self.risk.release(instrument, client, side, Reserved { price, quantity }, true);
        }
        Ok(())
    }

    /// The next order: how long its checks took, in ticks, the clock's own cost included.
    #[inline(always)]
    fn one(&mut self) -> Result<u64> {
        let index = self.step();
        let from = ticks();
        let price = self.admit(index);
        let long = ticks().saturating_sub(from);
        self.settle(index, black_box(price?), index.is_multiple_of(FILLED))?;
        Ok(long)
    }

    #[inline(always)]
    fn step(&mut self) -> usize {
        self.next = (self.next + 1) % ORDERS;
        self.now_ns += STEP_NS;
        self.next
    }

    /// The next so many orders, one after the other, and then what became of them.
    pub(crate) fn batch(&mut self) -> Result<u64> {
        let mut prices = [(0, Price(0)); BATCH];
        let from = ticks();
        for place in &mut prices {
            let index = self.step();
            *place = (index, self.admit(index)?);
        }
        let long = ticks().saturating_sub(from);
        for (index, price) in prices {
            self.settle(index, price, index.is_multiple_of(FILLED))?;
        }
        Ok(long)
    }

    /// Makes the checks of `count` orders, and nothing else that depends on `count` but giving
    /// back.
    pub(crate) fn count(&mut self, count: u64) -> Result<()> {
        for _ in 0..count {
            let index = self.step();
            let price = self.admit(index)?;
            self.settle(index, black_box(price), false)?;
        }
        Ok(())
    }
}

#[cold]
fn refusal(reason: gapless::order::Reason) -> anyhow::Error {
    anyhow::anyhow!("an order within all limits was refused: {reason:?}")
}

/// The checks of one order after another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RiskChecks {
    pub(crate) clients: u16,
    pub(crate) instruments: u32,
}

impl RiskChecks {
    /// A desk: what is known of it stays in the second-level cache.
    pub(crate) const DESK: Self = Self { clients: 32, instruments: 128 };
    /// A broker: it does not.
    pub(crate) const BROKER: Self = Self { clients: 256, instruments: 1024 };
}

impl Scenario for RiskChecks {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let mut checks = Checks::new(*self)?;
        let mut samples = histogram();
        let (warm, end) = session.schedule();
        let (mut batched, mut batches) = (0u64, 0u64);
        loop {
            let long = checks.batch()?;
            let now = ticks();
            if now > warm {
                (batched, batches) = (batched + long, batches + 1);
            }
            for _ in 0..BATCH {
                let long = checks.one()?;
                if now > warm {
                    samples.saturating_record(long.max(1));
                }
            }
            if now > end {
                break;
            }
        }
        session.control.set(Word::Stop, 1);
        let clock = session.clock;
        let timer_ns = clock.timer_cost_ns();
        let less = |q| (clock.to_ns(samples.value_at_quantile(q)) - timer_ns).max(0.0);
        let (p50, p99) = (less(0.5), less(0.99));
        let count = batches.max(1) * BATCH as u64;
        let outcome = Outcome::latency(samples).with_rate(clock, count, batched);
        Ok(outcome
            .with_detail("timer_ns", timer_ns)
            .with_detail("p50_less_timer_ns", p50)
            .with_detail("p99_less_timer_ns", p99)
            .with_detail("mean_batched_ns", clock.to_ns(batched) / count as f64))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.doze_until(Word::Stop, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_order_is_refused_however_often_they_come_round() {
        let mut checks = Checks::new(RiskChecks::DESK).unwrap();
        for _ in 0..ORDERS / BATCH {
            checks.batch().unwrap();
            checks.one().unwrap();
        }
        checks.count(100).unwrap();
        let figures = checks.risk.figures(ClientId(1)).unwrap();
        assert_eq!((figures.open_orders, figures.stopped), (0, false));
        assert!(figures.gross > 0);
    }
}
