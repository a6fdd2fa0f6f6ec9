//! Notifications: which records of the stream somebody wants to hear of, by kind, client and
//! instrument.
//!
//! A [`Filter`] is a line of text, compiled once:
//!
//! ```text
//! kind=filled,rejected client=3,7 instrument=SBER,1
//! ```
//!
//! | part | takes a record if |
//! |---|---|
//! | `kind` | it is one of these kinds of record (`command`, `event`, `refused`, `time`, `connected`, `disconnected`, `term`, `checkpoint`), or its message one of these (`filled`, `new-order`, …) |
//! | `client` | one of these sent it, or it concerns one of these; 0: nobody in particular |
//! | `instrument` | its message is about one of these, by number or symbol, or about all instruments |
//!
//! All parts must hold; a part that is left out always does. Case does not matter in kinds, nor do
//! `-` and `_`. A symbol is taken for an instrument once the stream has defined it (a name of
//! digits alone is a number, never a symbol). To test a record nothing is allocated, and nothing is
//! decoded unless an instrument is asked for and all else fits.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use super::field::{InstrumentId, Symbol};
use super::held::Held;
use super::messages::{DefineInstrument, Message};
use crate::sequencer::{ClientId, Kind, Record};

/// Kinds of record by the names that a filter has for them.
const KINDS: &[(&str, Kind)] = &[
    ("command", Kind::Command),
    ("event", Kind::Event),
    ("refused", Kind::Refused),
    ("time", Kind::Time),
    ("connected", Kind::Connected),
    ("disconnected", Kind::Disconnected),
    ("term", Kind::Term),
    ("checkpoint", Kind::Checkpoint),
];

/// What is wrong with a part of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FilterProblem {
    /// A word without `=`.
    #[error(
        "a filter's parts are kind=..., client=... and instrument=..., each a list with commas"
    )]
    NoValue,
    /// Something else than the three keys.
    #[error("no such part: there are kind, client and instrument")]
    Key,
    /// A key for the second time.
    #[error("given twice: put all values into one list, with commas")]
    Twice,
    /// An empty value in a list.
    #[error("a value is missing here")]
    Empty,
    /// No kind of record, and no message.
    #[error("neither a kind of record, as `refused`, nor a message, as `filled`")]
    Kind,
    /// No number of a client.
    #[error("a client is a number from 0 to 65535")]
    Client,
    /// Neither a number nor a symbol.
    #[error("an instrument is a number, or a symbol of up to 16 letters")]
    Instrument,
}

/// A filter could not be read. Its text shows the filter with the offending part underlined.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{problem}\n  {text}\n  {}{}", " ".repeat(*.start), "^".repeat((*.len).max(1)))]
pub struct FilterError {
    /// The filter as given.
    pub text: String,
    /// What is wrong with it, and what would be right.
    pub problem: FilterProblem,
    /// Where the offending part starts, in characters.
    pub start: usize,
    /// How long it is, in characters.
    pub len: usize,
}

/// Which records are wanted.
///
/// ```
/// use gapless::order::{Filter, FilterProblem};
///
/// let filter: Filter = "kind=filled,rejected client=3,7 instrument=SBER,1".parse()?;
/// assert_eq!(filter.unresolved().collect::<Vec<_>>(), ["SBER"]);
/// let error = "kind=filled,pondered".parse::<Filter>().unwrap_err();
/// assert_eq!((error.problem, error.start, error.len), (FilterProblem::Kind, 12, 8));
/// # Ok::<(), gapless::order::FilterError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    text: String,
    /// A bit for each kind of record, whatever its message.
    kinds: u16,
    /// A bit for each template, in commands and events.
    templates: u128,
    /// Sorted; `None`: any.
    clients: Option<Vec<ClientId>>,
    instruments: Option<Chosen>,
}

/// Instruments that are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Chosen {
    /// By number, sorted.
    ids: Vec<InstrumentId>,
    /// By symbol, and what the stream has defined under it.
    symbols: Vec<(Symbol, Option<InstrumentId>)>,
}

impl Chosen {
    fn has(&self, message: &Message) -> bool {
        if let Message::DefineInstrument(define) = message
            && self.symbols.iter().any(|(symbol, _)| *symbol == define.symbol)
        {
            return true;
        }
        let Some(instrument) = instrument_of(message) else { return false };
        instrument == InstrumentId(0)
            || self.ids.binary_search(&instrument).is_ok()
            || self.symbols.iter().any(|(_, id)| *id == Some(instrument))
    }
}

/// What a message is about: an instrument, all of them (0), or (`None`) something else.
fn instrument_of(message: &Message) -> Option<InstrumentId> {
    Some(match message {
        Message::NewOrder(message) => message.instrument,
        Message::MassCancel(message) => message.instrument,
        Message::ListOrders(message) => message.instrument,
        Message::DefineInstrument(message) => message.instrument,
        Message::SetMarketState(message) => message.instrument,
        Message::SetReference(message) => message.instrument,
        Message::Accepted(message) => message.instrument,
        Message::Filled(message) => message.instrument,
        Message::Cancelled(message) => message.instrument,
        Message::Replaced(message) => message.instrument,
        Message::Routed(message) => message.instrument,
        Message::Listed(message) => message.instrument,
        Message::Rejected(message) => {
            return Some(message.instrument).filter(|&instrument| instrument != InstrumentId(0));
        }
        _ => return None,
    })
}

impl Filter {
    /// Whether a record is wanted.
    #[inline]
    pub fn matches(&self, record: &Record<'_>) -> bool {
        self.has_kind(record)
            && self.clients.as_ref().is_none_or(|all| all.binary_search(&record.client).is_ok())
            && self.instruments.as_ref().is_none_or(|chosen| {
                let says = matches!(record.kind, Kind::Command | Kind::Event);
                says && Message::decode(record.payload).is_ok_and(|message| chosen.has(&message))
            })
    }

    #[inline]
    fn has_kind(&self, record: &Record<'_>) -> bool {
        if self.kinds & 1 << (record.kind as u8) != 0 {
            return true;
        }
        self.templates != 0
            && matches!(record.kind, Kind::Command | Kind::Event)
            && Message::template_of(record.payload)
                .and_then(|template| 1u128.checked_shl(template.into()))
                .is_some_and(|bit| self.templates & bit != 0)
    }

    /// Learns what instrument a symbol stands for from now on.
    pub fn learn(&mut self, define: &DefineInstrument) {
        let symbols = self.instruments.iter_mut().flat_map(|chosen| &mut chosen.symbols);
        for (symbol, id) in symbols {
            if *symbol == define.symbol {
                *id = Some(define.instrument);
            } else if *id == Some(define.instrument) {
                *id = None; // it was renamed
            }
        }
    }

    /// Symbols that no instrument is known for, as the stream has not defined it yet.
    pub fn unresolved(&self) -> impl Iterator<Item = &str> {
        let symbols = self.instruments.iter().flat_map(|chosen| &chosen.symbols);
        symbols.filter(|(_, id)| id.is_none()).map(|(symbol, _)| symbol.as_str())
    }
}

/// The text that it was made of.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let mut filter = Self {
            text: text.to_owned(),
            kinds: 0,
            templates: 0,
            clients: None,
            instruments: None,
        };
        let mut seen: Vec<&str> = Vec::new();
        for part in text.split_ascii_whitespace() {
            let error = |at: &str, problem| error(text, at, problem);
            let (key, values) =
                part.split_once('=').ok_or_else(|| error(part, FilterProblem::NoValue))?;
            if seen.contains(&key) {
                return Err(error(key, FilterProblem::Twice));
            }
            seen.push(key);
            for value in values.split(',') {
                let take = match key {
                    "kind" => Self::take_kind,
                    "client" => Self::take_client,
                    "instrument" => Self::take_instrument,
                    _ => return Err(error(key, FilterProblem::Key)),
                };
                if value.is_empty() {
                    return Err(error(value, FilterProblem::Empty));
                }
                take(&mut filter, value).map_err(|problem| error(value, problem))?;
            }
        }
        if !seen.contains(&"kind") {
            filter.kinds = u16::MAX;
        }
        if let Some(clients) = &mut filter.clients {
            clients.sort_unstable();
        }
        if let Some(chosen) = &mut filter.instruments {
            chosen.ids.sort_unstable();
        }
        Ok(filter)
    }
}

impl Filter {
    fn take_kind(&mut self, value: &str) -> Result<(), FilterProblem> {
        let plain = |name: &str| name.replace(['-', '_'], "").to_ascii_lowercase();
        let wanted = plain(value);
        if let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == wanted) {
            self.kinds |= 1 << (*kind as u8);
            return Ok(());
        }
        let mut templates = Message::TEMPLATES.iter();
        let (template, _) =
            templates.find(|(_, name)| plain(name) == wanted).ok_or(FilterProblem::Kind)?;
        self.templates |= 1u128.checked_shl((*template).into()).ok_or(FilterProblem::Kind)?;
        Ok(())
    }

    fn take_client(&mut self, value: &str) -> Result<(), FilterProblem> {
        let client = value.parse().map_err(|_| FilterProblem::Client)?;
        self.clients.get_or_insert_default().push(ClientId(client));
        Ok(())
    }

    fn take_instrument(&mut self, value: &str) -> Result<(), FilterProblem> {
        let chosen = self.instruments.get_or_insert_default();
        if value.bytes().all(|byte| byte.is_ascii_digit()) {
            let id = value.parse().map_err(|_| FilterProblem::Instrument)?;
            chosen.ids.push(InstrumentId(id));
        } else {
            let symbol = Symbol::new(value).ok_or(FilterProblem::Instrument)?;
            chosen.symbols.push((symbol, None));
        }
        Ok(())
    }
}

/// `at` is a slice of `text`.
fn error(text: &str, at: &str, problem: FilterProblem) -> FilterError {
    let offset = at.as_ptr() as usize - text.as_ptr() as usize;
    let start = text[..offset].chars().count();
    FilterError { text: text.to_owned(), problem, start, len: at.chars().count() }
}

/// Filters by name, and a stream that goes past them.
#[derive(Clone, Debug, Default)]
pub struct Notifications {
    filters: Vec<(String, Filter)>,
    defined: Vec<DefineInstrument>,
    held: Held,
}

impl Notifications {
    /// Nothing is wanted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a filter under a name, or replaces the one that had it. It knows the instruments that
    /// have gone past already.
    pub fn subscribe(&mut self, name: &str, mut filter: Filter) {
        self.defined.iter().for_each(|define| filter.learn(define));
        match self.filters.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = filter,
            None => self.filters.push((name.to_owned(), filter)),
        }
    }

    /// Takes a filter away. Says whether there was one.
    pub fn unsubscribe(&mut self, name: &str) -> bool {
        let before = self.filters.len();
        self.filters.retain(|(other, _)| other != name);
        self.filters.len() < before
    }

    /// All filters, in the order of their subscription.
    pub fn filters(&self) -> impl Iterator<Item = (&str, &Filter)> {
        self.filters.iter().map(|(name, filter)| (name.as_str(), filter))
    }

    /// Takes the stream's next record, and calls `notify` with the name of each filter that wants
    /// it. Allocates nothing, but when an instrument is defined.
    pub fn apply(&mut self, record: &Record<'_>, mut notify: impl FnMut(&str, &Record<'_>)) {
        if let Some((_, Message::DefineInstrument(define))) = self.held.settle(record) {
            self.defined.retain(|old| old.instrument != define.instrument);
            self.defined.push(define);
            self.filters.iter_mut().for_each(|(_, filter)| filter.learn(&define));
        }
        let is_definition = record.kind == Kind::Command
            && Message::template_of(record.payload) == Some(DefineInstrument::TEMPLATE_ID);
        if is_definition && let Ok(message) = Message::decode(record.payload) {
            self.held.hold(record, message);
        }
        for (name, filter) in &self.filters {
            if filter.matches(record) {
                notify(name, record);
            }
        }
    }
}

#[cfg(test)]
#[path = "notify_tests.rs"]
mod tests;
