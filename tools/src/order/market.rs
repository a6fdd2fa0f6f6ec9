//! A real exchange's order feed, read: FAST 1.1 (FIX Protocol Ltd., 2006), the one template that
//! the incremental feed of MOEX FORTS had in 2013.
//!
//! Only what a generator of orders needs is kept: which price level of which instrument is new,
//! changed or gone, and how much stands there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, ensure};
use gapless::order::messages::DefineInstrument;
use gapless::order::{InstrumentId, MarketState, Price, Quantity, Side, Symbol};

use crate::records::{Prefix, RecordReader};

const TEMPLATE_RESET: u64 = 120;
const TEMPLATE_INCREMENT: u64 = 74;

/// What happened to a price level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    New,
    Changed,
    Gone,
}

/// One entry of the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Update {
    /// The exchange's number of the instrument.
    pub(crate) security: u64,
    pub(crate) side: Side,
    pub(crate) change: Change,
    pub(crate) price: i64,
    pub(crate) size: u64,
}

/// Stop-bit coded fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The bytes of the next field, as one number of seven bits a byte, and whether it begins with
    /// a set sign; `None` at the end, or if it is longer than any number.
    fn next(&mut self) -> Option<(u64, u32, bool)> {
        let mut value = 0_u64;
        for (index, &byte) in self.0.iter().enumerate().take(10) {
            value = value << 7 | u64::from(byte & 0x7F);
            if byte & 0x80 != 0 {
                let negative = self.0[0] & 0x40 != 0;
                self.0 = &self.0[index + 1..];
                return Some((value, 7 * (index as u32 + 1), negative));
            }
        }
        None
    }

    fn unsigned(&mut self) -> Option<u64> {
        self.next().map(|(value, ..)| value)
    }

    fn signed(&mut self) -> Option<i64> {
        let (value, bits, negative) = self.next()?;
        let extended = if negative && bits < 64 { value | u64::MAX << bits } else { value };
        Some(extended as i64)
    }

    /// A number that may be left out: those from 0 on are one more than they say.
    fn optional(&mut self) -> Option<Option<i64>> {
        let value = self.signed()?;
        Some(match value {
            0 => None,
            1.. => Some(value - 1),
            _ => Some(value),
        })
    }

    /// A price: an exponent and a mantissa, or neither.
    fn decimal(&mut self) -> Option<Option<i64>> {
        let Some(exponent) = self.optional()? else { return Some(None) };
        let mantissa = self.signed()?;
        let power = 10_i64.checked_pow(u32::try_from(exponent).ok()?)?;
        Some(Some(mantissa.checked_mul(power)?))
    }

    /// The bits that say which fields there are, the first in the highest bit.
    fn presence(&mut self) -> Option<Presence> {
        let (value, bits, _) = self.next()?;
        (bits <= 63).then(|| Presence(value << (64 - bits)))
    }

    /// Passes over some fields.
    fn skip(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.next().map(drop))
    }
}

struct Presence(u64);

impl Presence {
    fn next(&mut self) -> bool {
        let set = self.0 >> 63 == 1;
        self.0 <<= 1;
        set
    }
}

/// Reads a message. `None` if it is none of this feed.
pub(crate) fn read(message: &[u8], updates: &mut Vec<Update>) -> Option<()> {
    let mut fields = Fields(message);
    loop {
        let mut presence = fields.presence()?;
        if !presence.next() {
            return None; // without a template: there is none before it
        }
        match fields.unsigned()? {
            TEMPLATE_RESET => {}
            TEMPLATE_INCREMENT => return increment(&mut fields, presence, updates),
            _ => return None,
        }
    }
}

fn increment(
    fields: &mut Fields<'_>,
    mut presence: Presence,
    updates: &mut Vec<Update>,
) -> Option<()> {
    fields.skip(usize::from(presence.next()) + 1)?; // MsgSeqNum, SendingTime
    let count = fields.unsigned()?;
    let (mut action, mut security) = (0, 0_i64);
    for _ in 0..count {
        let mut presence = fields.presence()?;
        if presence.next() {
            action = fields.unsigned()?;
        }
        let kind = fields.unsigned()?;
        security = security.checked_add(fields.optional()?.unwrap_or(0))?;
        // Symbol, ExchangeTradingSessionID; RptSeq; MarketDepth; MDPriceLevel, MDEntryID.
        fields.skip(usize::from(presence.next()) + usize::from(presence.next()) + 1)?;
        fields.skip(usize::from(presence.next()) + 2)?;
        let price = fields.decimal()?;
        let size = fields.optional()?;
        fields.skip(5)?; // MDEntryDate, MDEntryTime, NumberOfOrders, MDEntryTradeType, TrdType
        fields.decimal()?; // LastPx
        fields.skip(1)?; // MDFlags
        let side = match u8::try_from(kind).ok()? {
            b'0' => Side::Buy,
            b'1' => Side::Sell,
            _ => continue, // trades and statistics
        };
        let change = match action {
            0 => Change::New,
            1 => Change::Changed,
            _ => Change::Gone,
        };
        let (Some(price), security) = (price, u64::try_from(security).ok()?) else { continue };
        let size = u64::try_from(size.unwrap_or(0)).ok()?;
        updates.push(Update { security, side, change, price, size });
    }
    Some(())
}

/// Reads a file of messages, each behind its length in two bytes, big-endian.
pub(crate) fn read_file(path: &Path) -> anyhow::Result<Vec<Update>> {
    let named = || path.display().to_string();
    let file = BufReader::new(File::open(path).with_context(named)?);
    let mut records = RecordReader::new(file, Prefix::Be16);
    let (mut message, mut updates) = (Vec::new(), Vec::new());
    for number in 1_u64.. {
        if !records.next(&mut message).with_context(named)? {
            break;
        }
        let read = read(&message, &mut updates);
        ensure!(read.is_some(), "{}: message {number} is none of the feed", named());
    }
    Ok(updates)
}

/// The instruments of the feed, numbered as they appear, each called by its number in the feed.
pub(crate) fn definitions(updates: &[Update]) -> Vec<DefineInstrument> {
    let mut known = BTreeSet::new();
    let fresh = updates.iter().filter(|update| known.insert(update.security));
    let define = |(id, update): (u32, &Update)| {
        Some(DefineInstrument {
            symbol: Symbol::new(&update.security.to_string())?,
            tick: Price(1),
            lot: Quantity(1),
            multiplier: 1,
            reference: Price(update.price),
            instrument: InstrumentId(id),
            price_exponent: 0,
            state: MarketState::Open,
        })
    };
    (1..).zip(fresh).filter_map(define).collect()
}

/// What stands in the books behind these updates, as far as they tell: a line for each level, in
/// the form of an opening book. Levels that the feed left behind are passed over.
pub(crate) fn opening(updates: &[Update], all: &[Update]) -> String {
    let mut levels = BTreeMap::new();
    for update in updates {
        let key = (update.security, update.side == Side::Sell, update.price);
        match update.change {
            Change::Gone => levels.remove(&key),
            _ => levels.insert(key, update.size),
        };
    }
    let mut book = String::new();
    for (id, define) in (1_u32..).zip(definitions(all)) {
        let of = |(security, ..): &(u64, bool, i64)| security.to_string() == define.symbol.as_str();
        let ask = levels.keys().find(|key| of(key) && key.1).map_or(i64::MAX, |key| key.2);
        for (key, size) in levels.iter().filter(|(key, size)| of(key) && **size > 0) {
            let (_, sells, price) = *key;
            if sells || price < ask {
                let side = if sells { "sell" } else { "buy" };
                book.push_str(&format!("{id} {side} {price} {size}\n"));
            }
        }
    }
    book
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../data/moex-forts-2013/increment_a.binfile");

    #[test]
    fn the_feed_is_read_as_it_was_meant() {
        let updates = read_file(Path::new(SAMPLE)).expect("the sample");
        let update =
            |security, side, change, price, size| Update { security, side, change, price, size };
        // As an independent decoder has the first message.
        let first = [
            update(49_630_790, Side::Buy, Change::Changed, 19835, 12),
            update(49_630_790, Side::Sell, Change::New, 19861, 647),
            update(49_634_118, Side::Sell, Change::Gone, 133_310, 0),
            update(49_634_118, Side::Sell, Change::New, 133_370, 40),
        ];
        assert_eq!(updates[..4], first);
        assert_eq!(definitions(&updates).len(), 9);
        let book = opening(&updates[..2000], &updates);
        assert!(book.lines().count() > 50, "{book}");
    }

    #[test]
    fn bytes_cut_short_are_no_message() {
        let file = std::fs::read(SAMPLE).expect("the sample");
        let message = &file[2..2 + usize::from(u16::from_be_bytes([file[0], file[1]]))];
        let mut updates = Vec::new();
        assert_eq!(read(message, &mut updates), Some(()));
        for end in 0..message.len() - 1 {
            assert_eq!(read(&message[..end], &mut updates), None, "{end}");
        }
        assert_eq!(read(&[0xFF; 64], &mut updates), None);
    }
}
