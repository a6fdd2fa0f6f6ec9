//! What the stream's instruments are called, and how their prices are written: learned from the
//! stream itself.

use std::collections::BTreeMap;

use gapless::order::messages::{DefineInstrument, Message, Rejected};
use gapless::order::{InstrumentId, Money, Price, Symbol};
use gapless::sequencer::{Kind, Record};

use super::decimal::{self, Decimal};

/// An instrument as it was last defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Named {
    pub(crate) id: InstrumentId,
    pub(crate) symbol: Symbol,
    pub(crate) exponent: i8,
}

/// The instruments by number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    named: BTreeMap<InstrumentId, Named>,
    /// A definition that may still be rejected, and its place in the stream.
    held: Option<(u64, DefineInstrument)>,
    /// Number of the first record that was seen; 0 if none was.
    first: u64,
}

impl Names {
    /// Takes the next record.
    pub(crate) fn learn(&mut self, record: &Record<'_>) {
        if self.first == 0 {
            self.first = record.sequence;
        }
        if let Some((sequence, define)) = self.held.take() {
            let answers = record.kind == Kind::Event && record.reference == sequence;
            let rejected = Message::template_of(record.payload) == Some(Rejected::TEMPLATE_ID);
            if !(answers && rejected) {
                let DefineInstrument { instrument: id, symbol, price_exponent: exponent, .. } =
                    define;
                self.named.insert(id, Named { id, symbol, exponent });
            }
        }
        if record.kind == Kind::Command
            && Message::template_of(record.payload) == Some(DefineInstrument::TEMPLATE_ID)
            && let Ok(Message::DefineInstrument(define)) = Message::decode(record.payload)
        {
            self.held = Some((record.sequence, define));
        }
    }

    /// An instrument by its symbol, or by its number.
    pub(crate) fn find(&self, text: &str) -> Result<Named, String> {
        let by_symbol = self.named.values().find(|named| named.symbol.as_str() == text);
        let by_id = || text.parse().ok().and_then(|id| self.named.get(&InstrumentId(id)));
        let found = by_symbol.or_else(by_id);
        found.copied().ok_or_else(|| match self.named.len() {
            0 if self.is_late() => format!(
                "{text}: the stream's beginning is gone from its ring, and what was defined with \
                 it: name its log as well, as in shm:sequenced?log=/var/log/orders"
            ),
            0 => format!("{text}: no instrument has been defined"),
            _ => {
                let known = self.named.values().map(|named| named.symbol.as_str());
                let known: Vec<_> = known.take(8).collect();
                format!("{text}: no such instrument; there are {}", known.join(", "))
            }
        })
    }

    /// Whether the beginning of the stream was not seen.
    pub(crate) fn is_late(&self) -> bool {
        self.first > 1
    }

    /// What an instrument is called.
    pub(crate) fn symbol(&self, id: InstrumentId) -> String {
        let named = self.named.get(&id);
        named.map_or_else(|| format!("instrument-{id}"), |named| named.symbol.to_string())
    }

    fn exponent(&self, id: InstrumentId) -> i8 {
        self.named.get(&id).map_or(0, |named| named.exponent)
    }

    /// A price as people write it.
    pub(crate) fn price(&self, id: InstrumentId, price: Price) -> String {
        decimal::text(price.0, self.exponent(id))
    }

    /// Money as people write it.
    pub(crate) fn money(&self, id: InstrumentId, money: Money) -> String {
        decimal::text(money.0, self.exponent(id))
    }
}

impl Named {
    /// A price that people wrote.
    pub(crate) fn price(&self, text: &str) -> Result<Price, String> {
        let price: Decimal = text.parse()?;
        let at = price.at(self.exponent);
        at.map(Price).map_err(|error| format!("{}: {error}", self.symbol))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use gapless::order::{MarketState, Quantity, Reason};
    use gapless::sequencer::ClientId;

    pub(crate) fn define(id: u32, symbol: &str, exponent: i8) -> DefineInstrument {
        DefineInstrument {
            symbol: Symbol::new(symbol).expect("printable"),
            tick: Price(1),
            lot: Quantity(1),
            multiplier: 1,
            reference: Price(0),
            instrument: InstrumentId(id),
            price_exponent: exponent,
            state: MarketState::Open,
        }
    }

    /// A record of a stream.
    pub(crate) fn record(sequence: u64, kind: Kind, reference: u64, payload: &[u8]) -> Record<'_> {
        let (code, client, term) = (1, ClientId(1), 1);
        Record { sequence, kind, code, client, term, reference, sent_ns: 0, time_ns: 0, payload }
    }

    #[test]
    fn what_was_rejected_is_not_learned() {
        let mut names = Names::default();
        names.learn(&record(1, Kind::Command, 1, &define(7, "AAPL", -2).encode()));
        names.learn(&record(2, Kind::Time, 0, &[]));
        names.learn(&record(3, Kind::Command, 2, &define(7, "AAPL", -4).encode()));
        let rejected = Rejected {
            client_order_id: Default::default(),
            order_id: Default::default(),
            instrument: InstrumentId(0),
            command: DefineInstrument::TEMPLATE_ID,
            reason: Reason::NotAuthorised,
        };
        names.learn(&record(4, Kind::Event, 3, &rejected.encode()));
        names.learn(&record(5, Kind::Time, 0, &[]));
        let apple = names.find("AAPL").expect("defined");
        assert_eq!((apple.exponent, names.find("7")), (-2, Ok(apple)));
        assert_eq!(apple.price("187.25"), Ok(Price(18725)));
        assert_eq!(names.price(InstrumentId(7), Price(18725)), "187.25");
        assert!(names.find("MSFT").unwrap_err().contains("there are AAPL"));
        let mut late = Names::default();
        late.learn(&record(1000, Kind::Time, 0, &[]));
        assert!(late.find("AAPL").unwrap_err().contains("?log="));
        assert!(late.is_late() && !names.is_late());
        assert!(apple.price("187.255").unwrap_err().starts_with("AAPL: "));
    }
}
