//! Just enough of FAST 1.1 for one feed: the incremental refreshes (template 74) of MOEX FORTS, as
//! they lie in `data/moex-forts-2013`.
//!
//! Each message begins with a reset (template 120), so that nothing is carried over from the one
//! before it: only the fields with operators `copy` and `delta` within the message need memory.

use anyhow::{Context, Result, ensure};

/// What happens to a price level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    New,
    Change,
    Delete,
}

/// One change of a book that is known by its price levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) security: u64,
    pub(super) action: Action,
    /// Whether it is of the bids.
    pub(super) is_bid: bool,
    /// 1 is the best.
    pub(super) level: u32,
    /// The price is `mantissa` times ten to `exponent`.
    pub(super) mantissa: i64,
    pub(super) exponent: i32,
    /// What stands there from now on.
    pub(super) size: u64,
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The bytes of one field: up to the one with the stop bit.
    fn field(&mut self) -> Result<&'a [u8]> {
        let end = self.0.iter().position(|byte| byte & 0x80 != 0).context("a stop bit")?;
        let (field, rest) = self.0.split_at(end + 1);
        self.0 = rest;
        Ok(field)
    }

    fn unsigned(&mut self) -> Result<u64> {
        let field = self.field()?;
        Ok(field.iter().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f)))
    }

    fn signed(&mut self) -> Result<i64> {
        let field = self.field()?;
        let sign = if field[0] & 0x40 != 0 { -1 } else { 0 };
        Ok(field.iter().fold(sign, |number, byte| number << 7 | i64::from(byte & 0x7f)))
    }

    /// Of a field that may be absent.
    fn optional(&mut self) -> Result<Option<i64>> {
        Ok(match self.signed()? {
            0 => None,
            number if number > 0 => Some(number - 1),
            number => Some(number),
        })
    }

    fn skip(&mut self, fields: usize) -> Result<()> {
        (0..fields).try_for_each(|_| self.field().map(|_| ()))
    }
}

/// Whether bit `index` of a presence map is set, 0 the first.
fn is_present(map: &[u8], index: usize) -> bool {
    map.get(index / 7).is_some_and(|byte| byte & (0x40 >> (index % 7)) != 0)
}

/// The entries of one message.
pub(super) fn entries(message: &[u8], out: &mut Vec<Entry>) -> Result<()> {
    let mut reader = Reader(message);
    reader.field()?;
    ensure!(reader.unsigned()? == 120, "a message begins with a reset");
    reader.field()?;
    ensure!(reader.unsigned()? == 74, "an incremental refresh");
    reader.skip(2)?; // MsgSeqNum, SendingTime
    let (mut action, mut security) = (0, 0i64);
    for _ in 0..reader.unsigned()? {
        let map = reader.field()?;
        if is_present(map, 0) {
            action = reader.unsigned()?;
        }
        let kind = reader.field()?[0] & 0x7f;
        security += reader.optional()?.context("a security")?;
        reader.skip((1..3).filter(|&bit| is_present(map, bit)).count())?; // Symbol, session
        reader.skip(1)?; // RptSeq
        reader.skip(usize::from(is_present(map, 3)))?; // MarketDepth
        let level = reader.unsigned()?.checked_sub(1).context("a level")?;
        reader.skip(1)?; // MDEntryID
        let exponent = reader.optional()?.context("a price")?;
        let mantissa = reader.signed()?;
        let size = reader.optional()?.context("a size")?;
        reader.skip(2)?; // date and time
        reader.skip(3)?; // NumberOfOrders, MDEntryTradeType, TrdType
        if reader.optional()?.is_some() {
            reader.skip(1)?; // the mantissa of LastPx
        }
        reader.skip(1)?; // MDFlags
        out.push(Entry {
            security: security as u64,
            action: [Action::New, Action::Change, Action::Delete]
                .get(action as usize)
                .copied()
                .context("an action")?,
            is_bid: kind == b'0',
            level: level as u32,
            mantissa,
            exponent: exponent as i32,
            size: size as u64,
        });
    }
    ensure!(reader.0.is_empty(), "{} bytes behind a message", reader.0.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_feeds_first_message_is_what_its_publisher_s_decoder_said() {
        let message = crate::order::market::messages().next().unwrap();
        let mut found = Vec::new();
        entries(message, &mut found).unwrap();
        let entry = |action, is_bid, security, level, mantissa, exponent, size| Entry {
            security,
            action,
            is_bid,
            level,
            mantissa,
            exponent,
            size,
        };
        // Independently decoded: MDUpdateAction, MDEntryType, SecurityID, level, price, size.
        let wanted = [
            entry(Action::Change, true, 49_630_790, 2, 19_835, 0, 12),
            entry(Action::New, false, 49_630_790, 5, 19_861, 0, 647),
            entry(Action::Delete, false, 49_634_118, 1, 13_331, 1, 0),
            entry(Action::New, false, 49_634_118, 5, 13_337, 1, 40),
        ];
        assert_eq!(found, wanted);
        assert!(entries(&message[..message.len() - 1], &mut found).is_err());
    }

    #[test]
    fn the_whole_feed_can_be_read() {
        let mut found = Vec::new();
        crate::order::market::messages().for_each(|message| {
            entries(message, &mut found).unwrap();
        });
        let count = |action| found.iter().filter(|entry| entry.action == action).count();
        let counts = (count(Action::New), count(Action::Change), count(Action::Delete));
        assert!(counts.0 >= 8_275 && counts.1 >= 9_349 && counts.2 >= 4_457, "{counts:?}");
        assert!(found.iter().all(|entry| (1..=5).contains(&entry.level) && entry.mantissa > 0));
    }
}
