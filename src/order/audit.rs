//! The audit: who sent what and when, what happened, why it was rejected; from the stream alone.
//!
//! A fold that keeps an [`Entry`] of every record but for ticks of time, sorted by the order that
//! it is about, and answers questions about them. An order begins with the command that brought it,
//! whatever became of that: a rejected order has a life too. Since it runs all day it can be told
//! how many finished orders to remember; open ones are always remembered. What was forgotten is
//! still in the log, and folding that part of it again brings it back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use super::entry::{Entry, Outcome};
use super::field::{CancelReason, ClientOrderId, OrderId, Quantity, Reason};
use super::held::Asked;
use super::messages::{CancelOrder, Message, NewOrder};
use crate::sequencer::{ClientId, Kind, Record};

/// How many entries, and how many names, an order may have when memory is bounded, so that nobody
/// fills the memory by asking for one order's cancel or change for ever. Later entries are kept
/// among those that are about no order, and the oldest name goes; what became of the order is
/// known all the same.
pub const LIFE_ENTRIES_MAX: usize = 4_096;

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It was sequenced, and nothing was said of it yet.
    Sequenced,
    /// It is in the market.
    Open,
    /// All of it traded.
    Filled,
    /// It, or the rest of it, was taken out.
    Cancelled(CancelReason),
    /// It was never in the market.
    Rejected(Reason),
}

impl Fate {
    /// Whether nothing more can happen to the order.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Filled | Self::Cancelled(_) | Self::Rejected(_))
    }
}

/// All that happened to one order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Which.
    pub order_id: OrderId,
    /// Whose.
    pub client: ClientId,
    /// As it was sent.
    pub order: NewOrder,
    /// What the client called it, the newest name last.
    pub names: Vec<ClientOrderId>,
    /// Where it stands.
    pub fate: Fate,
    /// How much of it traded.
    pub filled: Quantity,
    /// Every command and event about it, in the stream's order.
    pub entries: Vec<Entry>,
}

impl Life {
    /// Why it was rejected; `None` if it was not.
    pub fn why_rejected(&self) -> Option<Reason> {
        match self.fate {
            Fate::Rejected(reason) => Some(reason),
            _ => None,
        }
    }
}

/// One entry a line.
impl fmt::Display for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { order_id, client, fate, .. } = self;
        write!(f, "order {order_id} of client {client}: {fate:?}")?;
        self.entries.iter().try_for_each(|entry| write!(f, "\n  {entry}"))
    }
}

/// What to look for: all that is said must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// About this order.
    pub order: Option<OrderId>,
    /// About the orders that this client called so.
    pub client_order: Option<(ClientId, ClientOrderId)>,
    /// Sent by this client, or concerning it.
    pub client: Option<ClientId>,
    /// Sequenced at this time or later, Unix ns.
    pub from_ns: Option<u64>,
    /// Sequenced before this time, Unix ns.
    pub until_ns: Option<u64>,
}

impl Query {
    fn takes(&self, entry: &Entry) -> bool {
        self.client.is_none_or(|client| client == entry.client)
            && self.from_ns.is_none_or(|from| entry.time_ns >= from)
            && self.until_ns.is_none_or(|until| entry.time_ns < until)
    }
}

/// The command whose answers are being read.
#[derive(Clone, Copy, Debug)]
struct Asking {
    command: Asked,
    /// The order that it is about.
    order: Option<OrderId>,
    /// Whether its entry is in that order's life; if not it is among the others.
    told: bool,
    /// Whether it was rejected.
    rejected: bool,
}

/// Entries, by the order that they are about.
#[derive(Clone, Debug)]
pub struct Audit {
    lives: BTreeMap<OrderId, Life>,
    /// Each name that an order of `lives` has, or had.
    names: BTreeSet<(ClientId, ClientOrderId, OrderId)>,
    /// Entries about no order of `lives`.
    others: VecDeque<Entry>,
    /// Those of `lives` that are finished, the first to finish first.
    finished: VecDeque<OrderId>,
    /// Orders that a client's cancel is under way of, which was not answered at once.
    cancelling: BTreeSet<OrderId>,
    asked: Option<Asking>,
    remembered_max: usize,
    forgotten: u64,
    ticks: u64,
}

impl Default for Audit {
    fn default() -> Self {
        Self::new()
    }
}

impl Audit {
    /// Remembers everything.
    pub fn new() -> Self {
        Self::remembering(usize::MAX)
    }

    /// Remembers open orders, the last `count` finished ones, and the last `count` entries about
    /// no order.
    pub fn remembering(count: usize) -> Self {
        Self {
            lives: BTreeMap::new(),
            names: BTreeSet::new(),
            others: VecDeque::new(),
            finished: VecDeque::new(),
            cancelling: BTreeSet::new(),
            asked: None,
            remembered_max: count,
            forgotten: 0,
            ticks: 0,
        }
    }

    /// Folds one record.
    pub fn apply(&mut self, record: &Record<'_>) {
        self.decide(record);
        if record.kind == Kind::Time {
            self.ticks += 1;
            return;
        }
        let entry = Entry::of(record);
        let order = self.order_of(&entry);
        let max = self.life_max();
        let life = order.and_then(|order| self.lives.get_mut(&order));
        let told = life.is_some_and(|life| {
            let has_room = life.entries.len() < max;
            if has_room {
                life.entries.push(entry);
            }
            has_room
        });
        if !told {
            self.others.push_back(entry);
            if self.others.len() > self.remembered_max {
                self.others.pop_front();
            }
        }
        if let Some(order) = order {
            self.turn(order, &entry);
        }
        if entry.kind == Kind::Command {
            let command = Asked::of(record, entry.message());
            self.asked = Some(Asking { command, order, told, rejected: false });
        }
        self.forget();
    }

    /// How many entries, and how many names, an order may have.
    fn life_max(&self) -> usize {
        if self.remembered_max == usize::MAX { usize::MAX } else { LIFE_ENTRIES_MAX }
    }

    /// Says of the last command what `record` shows of it. The last rejection is its own, if more
    /// than one could be: what was due when it came is answered in front of it.
    fn decide(&mut self, record: &Record<'_>) {
        let Some(asked) = self.asked else { return };
        let Asked { sequence, template, .. } = asked.command;
        let outcome = if record.kind != Kind::Event || record.reference != sequence {
            self.asked = None;
            if asked.rejected {
                return;
            }
            if template == CancelOrder::TEMPLATE_ID
                && let Some(order) = asked.order
            {
                self.cancel_taken(order);
            }
            Outcome::Taken
        } else if let Some(rejection) = asked.command.rejection(record) {
            // A cancel under way is answered before a second one; that is told it is pending.
            let older = template == CancelOrder::TEMPLATE_ID
                && self.cancelling.contains(&rejection.order)
                && rejection.reason != Reason::Pending;
            if older {
                return;
            }
            self.asked = Some(Asking { rejected: true, ..asked });
            Outcome::Rejected(rejection.reason)
        } else {
            return;
        };
        let is_it = |entry: &&mut Entry| entry.sequence == sequence;
        let life = asked.order.filter(|_| asked.told).and_then(|order| self.lives.get_mut(&order));
        let entry = match life {
            Some(life) => life.entries.iter_mut().rfind(is_it),
            None => self.others.iter_mut().rfind(is_it),
        };
        if let Some(entry) = entry {
            entry.outcome = outcome;
        }
    }

    /// Nothing was said yet of a cancel, and its order is not out of the market.
    fn cancel_taken(&mut self, order: OrderId) {
        if self.lives.get(&order).is_some_and(|life| !life.fate.is_final()) {
            self.cancelling.insert(order);
        }
    }

    /// Which order of `lives` an entry is about. A new order's command begins its life.
    fn order_of(&mut self, entry: &Entry) -> Option<OrderId> {
        let named = |name| self.named(entry.client, name);
        let order = match *entry.message()? {
            Message::NewOrder(order) if entry.kind == Kind::Command => {
                return Some(self.begin(entry, order));
            }
            Message::CancelOrder(cancel) if cancel.order_id == OrderId(0) => {
                named(cancel.client_order_id)?
            }
            Message::CancelOrder(cancel) => cancel.order_id,
            Message::ReplaceOrder(replace) => named(replace.original)?,
            Message::VenueReport(report) => report.order_id,
            Message::Accepted(event) => event.order_id,
            Message::Filled(event) => event.order_id,
            Message::Cancelled(event) => event.order_id,
            Message::Replaced(event) => event.order_id,
            Message::Routed(event) => event.order_id,
            Message::Listed(event) => event.order_id,
            Message::Rejected(event) if event.order_id != OrderId(0) => event.order_id,
            Message::CancelRejected(event) if event.order_id != OrderId(0) => event.order_id,
            // It is told with the command that it answers.
            Message::Rejected(_) | Message::CancelRejected(_) => {
                self.asked.filter(|asked| asked.command.sequence == entry.reference)?.order?
            }
            _ => return None,
        };
        self.lives.contains_key(&order).then_some(order)
    }

    /// The newest order that was called so and was not rejected.
    fn named(&self, client: ClientId, name: ClientOrderId) -> Option<OrderId> {
        let mut lives = self.lives_named(client, name).rev();
        lives.find(|life| life.why_rejected().is_none()).map(|life| life.order_id)
    }

    fn begin(&mut self, entry: &Entry, order: NewOrder) -> OrderId {
        let (order_id, client) = (OrderId(entry.sequence), entry.client);
        let life = Life {
            order_id,
            client,
            order,
            names: vec![order.client_order_id],
            fate: Fate::Sequenced,
            filled: Quantity(0),
            entries: Vec::new(),
        };
        self.lives.insert(order_id, life);
        self.names.insert((client, order.client_order_id, order_id));
        order_id
    }

    /// What an event turns an order into.
    fn turn(&mut self, order: OrderId, entry: &Entry) {
        let max = self.life_max();
        let Some(life) = self.lives.get_mut(&order) else { return };
        if entry.kind != Kind::Event || life.fate.is_final() {
            return;
        }
        match entry.message() {
            Some(Message::Accepted(_)) => life.fate = Fate::Open,
            Some(Message::Filled(fill)) => {
                life.filled.0 = life.filled.0.saturating_add(fill.quantity.0);
                life.fate = if fill.leaves == Quantity(0) { Fate::Filled } else { Fate::Open };
            }
            Some(Message::Cancelled(cancelled)) => life.fate = Fate::Cancelled(cancelled.reason),
            // A gateway's report about it may be rejected as well: it stands as it was.
            Some(Message::Rejected(rejected)) if rejected.command == NewOrder::TEMPLATE_ID => {
                life.fate = Fate::Rejected(rejected.reason);
            }
            Some(Message::CancelRejected(rejected))
                if rejected.command == CancelOrder::TEMPLATE_ID
                    && rejected.reason != Reason::Pending =>
            {
                self.cancelling.remove(&order);
            }
            Some(Message::Replaced(replaced)) => {
                if life.names.len() >= max {
                    self.names.remove(&(life.client, life.names.remove(0), order));
                }
                life.names.push(replaced.client_order_id);
                self.names.insert((life.client, replaced.client_order_id, order));
            }
            _ => {}
        }
        if life.fate.is_final() {
            self.cancelling.remove(&order);
            self.finished.push_back(order);
        }
    }

    /// Forgets the orders that finished first, if there are too many.
    fn forget(&mut self) {
        while self.finished.len() > self.remembered_max {
            let Some(order) = self.finished.pop_front() else { return };
            let Some(life) = self.lives.remove(&order) else { continue };
            for name in life.names {
                self.names.remove(&(life.client, name, order));
            }
            self.forgotten += 1;
        }
    }

    /// An order that is remembered. One that was rejected goes by the sequence number of its
    /// command, as all do.
    pub fn life(&self, order: OrderId) -> Option<&Life> {
        self.lives.get(&order)
    }

    /// The orders that a client called so, the oldest first: more than one if it used a number
    /// twice.
    pub fn lives_named(
        &self,
        client: ClientId,
        name: ClientOrderId,
    ) -> impl DoubleEndedIterator<Item = &Life> {
        let (first, last) = (OrderId(0), OrderId(u64::MAX));
        let named = self.names.range((client, name, first)..=(client, name, last));
        named.filter_map(|(.., order)| self.lives.get(order))
    }

    /// All orders that are remembered, the oldest first.
    pub fn lives(&self) -> impl Iterator<Item = &Life> {
        self.lives.values()
    }

    /// What is remembered and fits the query, in the stream's order. Looks at everything, unless
    /// the query names an order.
    pub fn find(&self, query: &Query) -> Vec<&Entry> {
        let lives: Vec<&Life> = match (query.order, query.client_order) {
            (Some(order), _) => self.life(order).into_iter().collect(),
            (None, Some((client, name))) => self.lives_named(client, name).collect(),
            (None, None) => self.lives.values().collect(),
        };
        let is_named = |life: &&Life| {
            let named = |(client, name)| life.client == client && life.names.contains(&name);
            query.client_order.is_none_or(named)
        };
        let told = lives.into_iter().filter(is_named).flat_map(|life| &life.entries);
        let any_order = query.order.is_none() && query.client_order.is_none();
        let others = self.others.iter().filter(|_| any_order);
        let mut found: Vec<&Entry> = told.chain(others).collect();
        found.retain(|entry| query.takes(entry));
        found.sort_unstable_by_key(|entry| entry.sequence);
        found
    }

    /// How many finished orders were forgotten.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// How many ticks of time there were; they are not kept.
    pub fn ticks(&self) -> u64 {
        self.ticks
    }
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
