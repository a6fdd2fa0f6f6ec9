//! Positions and profit, per client and instrument: what the stream's fills add up to.
//!
//! A fold over the stream alone, and on purpose a second computation beside the engine's risk
//! checks: the two share no code, so that comparing them proves something.
//!
//! **The rule.** A fill is worth price times quantity times multiplier, exactly. A position keeps
//! what was paid for what it holds as a sum, its *cost* (negative when short: what the sale
//! brought). A fill in the position's direction adds its worth to the cost. A fill against it
//! closes `c` of the `h` held, takes `cost * c / h` off the cost, rounded toward zero, and realises
//! the difference to its own worth; what the division left over stays in the cost, and the last
//! unit closed takes it along. What goes beyond `h` opens the other way at the fill's own price. So
//! at any time, to the last unit of money,
//!
//! `realised - cost = received for sales - paid for purchases`.
//!
//! Fees are kept apart; they are no part of cost or realised profit. Prices mark positions: the
//! last trade's or the last reference, whichever came later; that there is no reference any more
//! (a price of 0) leaves the mark as it is. Nothing saturates: a fill that the
//! numbers cannot hold is left out whole, and counted.

use std::collections::BTreeMap;

use thiserror::Error;

use super::field::{Field, InstrumentId, Money, Price, Quantity, Side, Symbol};
use super::held::Held;
use super::messages::{DefineInstrument, Filled, Message, MessageError, SetReference};
use crate::sequencer::{ClientId, ImageReader, ImageWriter, Kind, LoadError, Record};

/// First word of a saved state; its last byte is the version.
const MAGIC: u32 = u32::from_le_bytes(*b"POS\x02");

/// What one client holds of one instrument. Money is in units of ten to the instrument's
/// `price_exponent`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Bought less sold; negative when short.
    pub quantity: i64,
    /// Bought in all.
    pub bought: Quantity,
    /// Sold in all.
    pub sold: Quantity,
    /// Paid for what is held; negative when short: what was received for it.
    pub cost: Money,
    /// Profit of what was closed, without fees; negative is a loss.
    pub realised: Money,
    /// Paid to the venue; negative is a rebate.
    pub fees: Money,
    /// How many fills there were.
    pub fills: u64,
}

impl Position {
    /// What a unit of what is held cost on average, rounded toward zero; `None` if nothing is held.
    pub fn average_price(&self, multiplier: u64) -> Option<Price> {
        let units = i128::from(self.quantity).checked_mul(multiplier.into())?;
        let price = i128::from(self.cost.0).checked_div(units)?;
        i64::try_from(price).ok().map(Price)
    }

    /// Profit of what is held, if it were closed at `mark`; `None` if money cannot hold it.
    pub fn open_profit(&self, mark: Price, multiplier: u64) -> Option<Money> {
        let unit = i128::from(mark.0) * i128::from(multiplier);
        let worth = unit.checked_mul(self.quantity.into())?;
        money(worth.checked_sub(self.cost.0.into())?)
    }

    /// The position after a fill; `None` if the numbers cannot hold it.
    fn after(&self, fill: &Filled, multiplier: u64) -> Option<Self> {
        let mut next = *self;
        let amount = i64::try_from(fill.quantity.0).ok()?;
        let signed = match fill.side {
            Side::Buy => amount,
            Side::Sell => -amount,
        };
        let unit = i128::from(fill.price.0) * i128::from(multiplier);
        let (held, cost) = (i128::from(self.quantity), i128::from(self.cost.0));
        let against = self.quantity.signum() * signed.signum() < 0;
        // The part of the fill that closes, with the fill's sign.
        let closing = if against { i128::from(signed).clamp(-held.abs(), held.abs()) } else { 0 };
        let share = if against { cost * closing.abs() / held.abs() } else { 0 };
        let gain = unit.checked_mul(-closing)?.checked_sub(share)?;
        next.realised = money(i128::from(self.realised.0).checked_add(gain)?)?;
        let opening = unit.checked_mul(i128::from(signed) - closing)?;
        next.cost = money((cost - share).checked_add(opening)?)?;
        next.quantity = self.quantity.checked_add(signed)?;
        next.fees = Money(self.fees.0.checked_add(fill.fee.0)?);
        let total = match fill.side {
            Side::Buy => &mut next.bought.0,
            Side::Sell => &mut next.sold.0,
        };
        *total = total.checked_add(fill.quantity.0)?;
        next.fills += 1;
        Some(next)
    }
}

fn money(value: i128) -> Option<Money> {
    i64::try_from(value).ok().map(Money)
}

/// An instrument as its last definition has it, and its last price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub symbol: Symbol,
    /// Money per unit of price and quantity.
    pub multiplier: u64,
    /// Prices and money are in units of ten to this power.
    pub price_exponent: i8,
    /// The last trade's price, or the reference if that came later; `None` before either.
    pub mark: Option<Price>,
}

/// A record that makes no sense here. It is counted, and the fold goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Anomaly {
    /// A record that was folded already, or one before it; it was left out.
    #[error("record {sequence} came behind record {last}: it was left out")]
    Repeated {
        /// Its sequence number.
        sequence: u64,
        /// Of the last one folded.
        last: u64,
    },
    /// Records are missing: positions may lack their fills. Folded all the same.
    #[error("records {from} to {until} are missing: replay the stream from its beginning")]
    Skipped {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        until: u64,
    },
    /// An event that cannot be read.
    #[error("event {sequence} cannot be read: {error}")]
    Unreadable {
        /// Its sequence number.
        sequence: u64,
        /// Why.
        error: MessageError,
    },
    /// A fill or a price of an instrument that nobody defined; it was left out.
    #[error("record {sequence} is about instrument {instrument}, which nobody defined")]
    UnknownInstrument {
        /// Its sequence number.
        sequence: u64,
        /// The instrument.
        instrument: InstrumentId,
    },
    /// A fill of nobody's; it was left out.
    #[error("fill {sequence} concerns no client")]
    Nobody {
        /// Its sequence number.
        sequence: u64,
    },
    /// A fill that the numbers cannot hold; it was left out.
    #[error("fill {sequence} is too large for the position of client {client} in {instrument}")]
    Overflow {
        /// Its sequence number.
        sequence: u64,
        /// Whose.
        client: ClientId,
        /// Of what.
        instrument: InstrumentId,
    },
    /// A definition with another multiplier or exponent, while something was held, or money was
    /// booked in units of the old exponent. It counts from now on; the sums are mixed.
    #[error(
        "instrument {instrument} was redefined by record {sequence} with another multiplier or \
         price exponent, while there were positions in it"
    )]
    Redefined {
        /// Its sequence number.
        sequence: u64,
        /// Which.
        instrument: InstrumentId,
    },
}

/// How many anomalies of each kind there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Anomalies {
    /// [`Anomaly::Repeated`].
    pub repeated: u64,
    /// [`Anomaly::Skipped`]: gaps, not records.
    pub skipped: u64,
    /// [`Anomaly::Unreadable`].
    pub unreadable: u64,
    /// [`Anomaly::UnknownInstrument`].
    pub unknown_instrument: u64,
    /// [`Anomaly::Nobody`].
    pub nobody: u64,
    /// [`Anomaly::Overflow`].
    pub overflow: u64,
    /// [`Anomaly::Redefined`].
    pub redefined: u64,
}

impl Anomalies {
    /// Of all kinds.
    pub fn total(&self) -> u64 {
        self.counts().iter().sum()
    }

    fn counts(&self) -> [u64; 7] {
        let Self { repeated, skipped, unreadable, unknown_instrument, .. } = *self;
        let Self { nobody, overflow, redefined, .. } = *self;
        [repeated, skipped, unreadable, unknown_instrument, nobody, overflow, redefined]
    }

    fn count(&mut self, anomaly: &Anomaly) {
        *match anomaly {
            Anomaly::Repeated { .. } => &mut self.repeated,
            Anomaly::Skipped { .. } => &mut self.skipped,
            Anomaly::Unreadable { .. } => &mut self.unreadable,
            Anomaly::UnknownInstrument { .. } => &mut self.unknown_instrument,
            Anomaly::Nobody { .. } => &mut self.nobody,
            Anomaly::Overflow { .. } => &mut self.overflow,
            Anomaly::Redefined { .. } => &mut self.redefined,
        } += 1;
    }
}

/// The positions of all clients.
///
/// Give it each record of the stream, from the first, or from the one behind where it was saved.
/// Nothing is allocated but for a client's first fill in an instrument, and for a new instrument.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions {
    /// Of the last record folded.
    sequence: u64,
    instruments: BTreeMap<InstrumentId, Listed>,
    positions: BTreeMap<(ClientId, InstrumentId), Position>,
    held: Held,
    anomalies: Anomalies,
}

impl Positions {
    /// No positions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Folds one record.
    ///
    /// # Errors
    /// [`Anomaly`], if the record makes no sense. It is counted already, and the fold is as it was
    /// but for what the anomaly says: a caller may go on.
    pub fn apply(&mut self, record: &Record<'_>) -> Result<(), Anomaly> {
        let last = self.sequence;
        let sequence = record.sequence;
        if sequence <= last {
            return self.counted(Err(Anomaly::Repeated { sequence, last }));
        }
        self.sequence = sequence;
        let whole = if sequence == last + 1 {
            Ok(())
        } else {
            self.counted(Err(Anomaly::Skipped { from: last + 1, until: sequence - 1 }))
        };
        let settled = match self.held.settle(record) {
            Some((sequence, command)) => self.carry_out(sequence, &command),
            None => Ok(()),
        };
        let settled = self.counted(settled);
        let folded = self.fold(record);
        whole.and(settled).and(self.counted(folded))
    }

    fn counted(&mut self, result: Result<(), Anomaly>) -> Result<(), Anomaly> {
        result.inspect_err(|anomaly| self.anomalies.count(anomaly))
    }

    fn fold(&mut self, record: &Record<'_>) -> Result<(), Anomaly> {
        let sequence = record.sequence;
        let template = Message::template_of(record.payload);
        match (record.kind, template) {
            (Kind::Event, Some(Filled::TEMPLATE_ID) | None) => {}
            (Kind::Command, Some(DefineInstrument::TEMPLATE_ID | SetReference::TEMPLATE_ID)) => {
                // One that cannot be read is rejected by the engine, and is nothing to us.
                if let Ok(message) = Message::decode(record.payload) {
                    self.held.hold(record, message);
                }
                return Ok(());
            }
            _ => return Ok(()),
        }
        match Message::decode(record.payload) {
            Ok(Message::Filled(fill)) => self.fill(sequence, record.client, &fill),
            Ok(_) => Ok(()),
            Err(error) => Err(Anomaly::Unreadable { sequence, error }),
        }
    }

    /// A command that nobody rejected.
    fn carry_out(&mut self, sequence: u64, command: &Message) -> Result<(), Anomaly> {
        match command {
            Message::DefineInstrument(define) => self.define(sequence, define),
            Message::SetReference(SetReference { price, instrument }) => {
                let listed = self.listed(sequence, *instrument)?;
                if *price != Price(0) {
                    listed.mark = Some(*price);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn define(&mut self, sequence: u64, define: &DefineInstrument) -> Result<(), Anomaly> {
        let DefineInstrument { symbol, multiplier, price_exponent, instrument, .. } = *define;
        let mark = (define.reference != Price(0)).then_some(define.reference);
        let new = Listed { symbol, multiplier, price_exponent, mark };
        let Some(old) = self.instruments.insert(instrument, new) else { return Ok(()) };
        let mut own = self.positions.iter().filter(|((_, of), _)| *of == instrument);
        let mixed = own.any(|(_, position)| {
            let booked = position.realised != Money(0) || position.fees != Money(0);
            position.quantity != 0 && old.multiplier != multiplier
                || (position.quantity != 0 || booked) && old.price_exponent != price_exponent
        });
        if mixed { Err(Anomaly::Redefined { sequence, instrument }) } else { Ok(()) }
    }

    fn fill(&mut self, sequence: u64, client: ClientId, fill: &Filled) -> Result<(), Anomaly> {
        if client == ClientId::NONE {
            return Err(Anomaly::Nobody { sequence });
        }
        let instrument = fill.instrument;
        let listed = self.listed(sequence, instrument)?;
        listed.mark = Some(fill.price);
        let multiplier = listed.multiplier;
        let before = self.positions.get(&(client, instrument)).copied().unwrap_or_default();
        let after = before.after(fill, multiplier).ok_or(Anomaly::Overflow {
            sequence,
            client,
            instrument,
        })?;
        self.positions.insert((client, instrument), after);
        Ok(())
    }

    fn listed(&mut self, sequence: u64, instrument: InstrumentId) -> Result<&mut Listed, Anomaly> {
        let unknown = Anomaly::UnknownInstrument { sequence, instrument };
        self.instruments.get_mut(&instrument).ok_or(unknown)
    }

    /// The sequence number of the last record folded; 0 before the first.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// What made no sense so far.
    pub fn anomalies(&self) -> &Anomalies {
        &self.anomalies
    }

    /// One client's position in one instrument; `None` before its first fill.
    pub fn get(&self, client: ClientId, instrument: InstrumentId) -> Option<&Position> {
        self.positions.get(&(client, instrument))
    }

    /// All positions, by client and instrument; those that are flat again as well.
    pub fn iter(&self) -> impl Iterator<Item = (ClientId, InstrumentId, &Position)> {
        self.positions.iter().map(|(&(client, instrument), at)| (client, instrument, at))
    }

    /// An instrument that was defined.
    pub fn instrument(&self, instrument: InstrumentId) -> Option<&Listed> {
        self.instruments.get(&instrument)
    }

    /// Profit of what a client holds of an instrument at its last price; `None` without a position
    /// or a price, or if money cannot hold it.
    pub fn open_profit(&self, client: ClientId, instrument: InstrumentId) -> Option<Money> {
        let listed = self.instrument(instrument)?;
        self.get(client, instrument)?.open_profit(listed.mark?, listed.multiplier)
    }

    /// Appends the whole state; equal states append equal bytes.
    pub fn save(&self, out: &mut Vec<u8>) {
        let mut image = ImageWriter::new(out);
        image.u32(MAGIC);
        image.u64(self.sequence);
        self.anomalies.counts().into_iter().for_each(|count| image.u64(count));
        self.held.save(&mut image);
        image.u32(self.instruments.len() as u32);
        for (id, listed) in &self.instruments {
            image.u32(id.0);
            image.bytes(&listed.symbol.to_wire());
            image.u64(listed.multiplier);
            image.i8(listed.price_exponent);
            image.u8(listed.mark.is_some().into());
            image.i64(listed.mark.map_or(0, |mark| mark.0));
        }
        image.u32(self.positions.len() as u32);
        for (&(client, instrument), position) in &self.positions {
            image.u16(client.0);
            image.u32(instrument.0);
            image.i64(position.quantity);
            image.u64(position.bought.0);
            image.u64(position.sold.0);
            image.i64(position.cost.0);
            image.i64(position.realised.0);
            image.i64(position.fees.0);
            image.u64(position.fills);
        }
    }

    /// Reads a state that was saved.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are none, or of another version.
    pub fn load(image: &mut ImageReader<'_>) -> Result<Self, LoadError> {
        let what = "positions of this version";
        if image.u32(what)? != MAGIC {
            return Err(LoadError { what });
        }
        let sequence = image.u64(what)?;
        let mut number = || image.u64("counts of what made no sense");
        let anomalies = Anomalies {
            repeated: number()?,
            skipped: number()?,
            unreadable: number()?,
            unknown_instrument: number()?,
            nobody: number()?,
            overflow: number()?,
            redefined: number()?,
        };
        let held = Held::load(image)?;
        let (mut instruments, mut positions) = (BTreeMap::new(), BTreeMap::new());
        let what = "an instrument that positions are in";
        for _ in 0..image.count(38, what)? {
            let (id, symbol) = (InstrumentId(image.u32(what)?), image.bytes(16, what)?);
            let symbol = symbol.try_into().ok().and_then(Symbol::from_wire);
            let symbol = symbol.ok_or(LoadError { what })?;
            let (multiplier, price_exponent) = (image.u64(what)?, image.i8(what)?);
            let (marked, mark) = (image.u8(what)?, Price(image.i64(what)?));
            let mark = (marked != 0).then_some(mark);
            instruments.insert(id, Listed { symbol, multiplier, price_exponent, mark });
        }
        let what = "a position";
        for _ in 0..image.count(62, what)? {
            let key = (ClientId(image.u16(what)?), InstrumentId(image.u32(what)?));
            let position = Position {
                quantity: image.i64(what)?,
                bought: Quantity(image.u64(what)?),
                sold: Quantity(image.u64(what)?),
                cost: Money(image.i64(what)?),
                realised: Money(image.i64(what)?),
                fees: Money(image.i64(what)?),
                fills: image.u64(what)?,
            };
            positions.insert(key, position);
        }
        Ok(Self { sequence, instruments, positions, held, anomalies })
    }
}

#[cfg(test)]
#[path = "positions_tests.rs"]
mod tests;
