//! What can be traded: the instruments by number, their rules, and whether their market is open.
//!
//! A table with a place for every number up to its capacity: looking one up is one load. Nothing
//! is allocated behind [`Instruments::new`]. Whether an instrument may be *re*defined (it may not
//! while somebody has open orders in it or a position) is for the caller to judge: see
//! [`Risk::in_use`](super::Risk::in_use).

use super::field::{Field, InstrumentId, MarketState, Money, Price, Quantity, Reason, Symbol};
use super::messages::DefineInstrument;
use crate::sequencer::{ImageReader, ImageWriter, LoadError};

/// Of [`Instrument::price_exponent`], either way.
const PRICE_EXPONENT_MAX: i8 = 18;

/// Bytes of an instrument in a saved state.
const SAVED_BYTES: usize = 4 + 16 + 8 + 8 + 8 + 1 + 1;

/// An instrument and its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instrument {
    /// Its number, 1 and more.
    pub id: InstrumentId,
    /// Its name, which no other has.
    pub symbol: Symbol,
    /// Prices are multiples of this, at least 1.
    pub tick: Price,
    /// Quantities are multiples of this, at least 1.
    pub lot: Quantity,
    /// Money per unit of price and quantity, at least 1.
    pub multiplier: u64,
    /// Prices and money are in units of ten to this power, -18 to 18.
    pub price_exponent: i8,
    /// Whether it can be traded.
    pub state: MarketState,
}

impl Instrument {
    /// What one unit of quantity is worth at this price; `None` if the price is negative, or it is
    /// more than [`Money`] holds.
    #[inline]
    pub fn unit_value(&self, price: Price) -> Option<Money> {
        unit_value(price, self.multiplier).map(Money)
    }

    /// What this quantity is worth at this price; `None` if the price is negative, or it is more
    /// than [`Money`] holds.
    ///
    /// A report from outside is to be held against this before it is believed.
    #[inline]
    pub fn notional(&self, price: Price, quantity: Quantity) -> Option<Money> {
        let quantity = i64::try_from(quantity.0).ok()?;
        self.unit_value(price)?.0.checked_mul(quantity).map(Money)
    }

    fn sound(&self) -> Result<(), Reason> {
        if self.id.0 == 0 {
            return Err(Reason::UnknownInstrument);
        }
        if self.tick.0 < 1 {
            return Err(Reason::InvalidTick);
        }
        if self.lot.0 < 1 {
            return Err(Reason::InvalidLot);
        }
        let exponents = -PRICE_EXPONENT_MAX..=PRICE_EXPONENT_MAX;
        if self.multiplier < 1 || !exponents.contains(&self.price_exponent) {
            return Err(Reason::Malformed);
        }
        Ok(())
    }

    fn save(&self, image: &mut ImageWriter<'_>) {
        image.u32(self.id.0);
        image.bytes(&self.symbol.to_wire());
        image.i64(self.tick.0);
        image.u64(self.lot.0);
        image.u64(self.multiplier);
        image.i8(self.price_exponent);
        image.u8(self.state as u8);
    }

    fn load(image: &mut ImageReader<'_>) -> Result<Self, LoadError> {
        const SYMBOL: &str = "an instrument's symbol";
        const STATE: &str = "an instrument's market state";
        let id = InstrumentId(image.u32("an instrument's number")?);
        let mut symbol = [0; 16];
        symbol.copy_from_slice(image.bytes(16, SYMBOL)?);
        let loaded = Self {
            id,
            symbol: Symbol::from_wire(symbol).ok_or(LoadError { what: SYMBOL })?,
            tick: Price(image.i64("an instrument's tick")?),
            lot: Quantity(image.u64("an instrument's lot")?),
            multiplier: image.u64("an instrument's multiplier")?,
            price_exponent: image.i8("an instrument's exponent")?,
            state: MarketState::of(image.u8(STATE)?).ok_or(LoadError { what: STATE })?,
        };
        loaded.sound().map_err(|_| LoadError { what: "an instrument with sound rules" })?;
        Ok(loaded)
    }
}

/// What one unit of quantity is worth.
#[inline]
pub(super) fn unit_value(price: Price, multiplier: u64) -> Option<i64> {
    if price.0 < 0 {
        return None;
    }
    price.0.checked_mul(i64::try_from(multiplier).ok()?)
}

/// All instruments, by number.
///
/// ```
/// use gapless::order::messages::DefineInstrument;
/// use gapless::order::{InstrumentId, Instruments, MarketState, Price, Quantity, Reason, Symbol};
///
/// let mut instruments = Instruments::new(100);
/// let symbol = Symbol::new("ACME").expect("printable");
/// let mut define = DefineInstrument {
///     symbol,
///     tick: Price(5),
///     lot: Quantity(1),
///     multiplier: 1,
///     reference: Price(0),
///     instrument: InstrumentId(7),
///     price_exponent: -2,
///     state: MarketState::Open,
/// };
/// instruments.define(&define)?;
/// assert_eq!(instruments.find(symbol).map(|found| found.id), Some(InstrumentId(7)));
///
/// define.tick = Price(0);
/// assert_eq!(instruments.define(&define), Err(Reason::InvalidTick));
/// # Ok::<(), Reason>(())
/// ```
#[derive(Clone, Debug)]
pub struct Instruments {
    /// Number n stands at n - 1.
    table: Vec<Option<Instrument>>,
    /// Sorted.
    symbols: Vec<(Symbol, InstrumentId)>,
}

impl Instruments {
    /// Room for the numbers 1 to `capacity`.
    pub fn new(capacity: usize) -> Self {
        Self { table: vec![None; capacity], symbols: Vec::with_capacity(capacity) }
    }

    /// The largest number that fits.
    pub fn capacity(&self) -> usize {
        self.table.len()
    }

    /// How many are defined.
    pub fn len(&self) -> usize {
        self.symbols.len()
    }

    /// Whether none is defined.
    pub fn is_empty(&self) -> bool {
        self.symbols.is_empty()
    }

    /// The one with this number.
    #[inline]
    pub fn get(&self, id: InstrumentId) -> Option<&Instrument> {
        self.table.get((id.0 as usize).wrapping_sub(1))?.as_ref()
    }

    /// The one with this name.
    pub fn find(&self, symbol: Symbol) -> Option<&Instrument> {
        let at = self.symbols.binary_search_by_key(&symbol, |&(name, _)| name).ok()?;
        self.get(self.symbols[at].1)
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Instrument> {
        self.table.iter().flatten()
    }

    /// Defines an instrument, or defines it anew. Its reference price is not kept here: see
    /// [`Risk::set_reference`](super::Risk::set_reference).
    ///
    /// # Errors
    /// [`Reason::UnknownInstrument`] for number 0, [`Reason::Capacity`] for one that does not fit,
    /// [`Reason::InvalidTick`], [`Reason::InvalidLot`], [`Reason::InvalidPrice`] for a negative
    /// reference, [`Reason::Malformed`] for a multiplier of 0, an exponent beyond 18 either way, or
    /// a symbol that another instrument has. All is then as it was.
    pub fn define(&mut self, message: &DefineInstrument) -> Result<(), Reason> {
        let instrument = Instrument {
            id: message.instrument,
            symbol: message.symbol,
            tick: message.tick,
            lot: message.lot,
            multiplier: message.multiplier,
            price_exponent: message.price_exponent,
            state: message.state,
        };
        instrument.sound()?;
        if message.reference.0 < 0 {
            return Err(Reason::InvalidPrice);
        }
        self.insert(instrument)
    }

    fn insert(&mut self, instrument: Instrument) -> Result<(), Reason> {
        let id = instrument.id;
        let place = self.table.get_mut((id.0 as usize).wrapping_sub(1)).ok_or(Reason::Capacity)?;
        match self.symbols.binary_search_by_key(&instrument.symbol, |&(name, _)| name) {
            Ok(at) if self.symbols[at].1 != id => return Err(Reason::Malformed),
            Ok(_) => {}
            Err(_) => {
                if place.is_some() {
                    self.symbols.retain(|&(_, other)| other != id);
                }
                let at = self.symbols.partition_point(|&(name, _)| name < instrument.symbol);
                self.symbols.insert(at, (instrument.symbol, id));
            }
        }
        *place = Some(instrument);
        Ok(())
    }

    /// Opens, halts or closes an instrument, or with number 0 all of them.
    ///
    /// # Errors
    /// [`Reason::UnknownInstrument`].
    pub fn set_state(&mut self, id: InstrumentId, state: MarketState) -> Result<(), Reason> {
        if id.0 == 0 {
            self.table.iter_mut().flatten().for_each(|instrument| instrument.state = state);
            return Ok(());
        }
        let place = self.table.get_mut((id.0 as usize).wrapping_sub(1));
        place.and_then(Option::as_mut).ok_or(Reason::UnknownInstrument)?.state = state;
        Ok(())
    }

    /// Appends the state to a snapshot. Equal states append equal bytes, whatever the capacities.
    pub fn save(&self, out: &mut Vec<u8>) {
        let mut image = ImageWriter::new(out);
        image.u32(self.len() as u32);
        self.iter().for_each(|instrument| instrument.save(&mut image));
    }

    /// Replaces the state by a saved one. The capacity stays.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are no instruments, or more than fit; the state then stays.
    pub fn load(&mut self, image: &mut ImageReader<'_>) -> Result<(), LoadError> {
        let mut fresh = Self::new(self.capacity());
        let mut last = InstrumentId(0);
        for _ in 0..image.count(SAVED_BYTES, "as many instruments as are announced")? {
            let instrument = Instrument::load(image)?;
            if instrument.id <= last {
                return Err(LoadError { what: "instruments in the order of their numbers" });
            }
            last = instrument.id;
            let misfit = LoadError { what: "instruments that fit, each with its own symbol" };
            fresh.insert(instrument).map_err(|_| misfit)?;
        }
        *self = fresh;
        Ok(())
    }
}

#[cfg(test)]
#[path = "instrument_tests.rs"]
mod tests;
