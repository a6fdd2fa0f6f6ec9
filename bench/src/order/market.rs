//! Orders derived from a real feed, without end.
//!
//! `data/moex-forts-2013` says how much stands at each of the five best prices of nine instruments
//! (MOEX FORTS, 2013-08-01). What is derived are orders that make a book do the same:
//!
//! - more at a price: a new order of the difference, by one of three makers in turn;
//! - less at the best price: an immediate-or-cancel order of a taker, which trades with it;
//! - less behind it: the newest orders there are replaced by smaller ones, or cancelled.
//!
//! So prices, sizes, instruments and the mix of what happens are the exchange's own; who sends is
//! made up, and so is that what leaves the best price has traded. At the end of the feed everybody
//! cancels everything, and it begins anew.

use std::collections::{BTreeMap, VecDeque};

use anyhow::{Context, Result};
use gapless::order::messages::{CancelOrder, MassCancel, NewOrder, ReplaceOrder};
use gapless::order::{
    ClientOrderId, InstrumentId, Message, OrderId, OrderType, Price, Quantity, Side, TimeInForce,
};

use super::fast::{self, Action};

/// 2-byte big-endian length, message, repeated.
const FILE: &[u8] = include_bytes!("../../../data/moex-forts-2013/increment_a.binfile");

/// Clients 1 to 3 make, 4 takes.
pub(super) const CLIENTS: u16 = 4;
const TAKER: u16 = CLIENTS;

/// The feed's messages.
pub(super) fn messages() -> impl Iterator<Item = &'static [u8]> {
    let mut rest = FILE;
    std::iter::from_fn(move || {
        let (length, tail) = rest.split_first_chunk::<2>()?;
        let (message, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = tail;
        Some(message)
    })
}

/// A change of one price level, prices in the instrument's own smallest step.
#[derive(Clone, Copy, Debug)]
struct Change {
    instrument: u32,
    side: Side,
    is_best: bool,
    price: i64,
    size: u64,
}

/// A command and whose it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    pub(super) client: u16,
    bytes: [u8; 64],
    len: usize,
}

impl Command {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn new(client: u16, encoded: &[u8]) -> Self {
        let mut bytes = [0; 64];
        bytes[..encoded.len()].copy_from_slice(encoded);
        Self { client, bytes, len: encoded.len() }
    }
}

/// An order that stands.
#[derive(Clone, Copy, Debug)]
struct Standing {
    client: u16,
    id: u64,
    leaves: u64,
    filled: u64,
}

/// One side of a book: by price, the oldest order first.
type Levels = BTreeMap<i64, VecDeque<Standing>>;

/// Makes commands of the feed.
pub(super) struct Orders {
    changes: Vec<Change>,
    next: usize,
    /// Bids and offers of each instrument.
    books: Vec<[Levels; 2]>,
    /// The last client order id of each client.
    ids: [u64; CLIENTS as usize + 1],
    maker: u16,
    waiting: VecDeque<Command>,
}

fn index(side: Side) -> usize {
    usize::from(side == Side::Sell)
}

fn opposite(side: Side) -> Side {
    if side == Side::Buy { Side::Sell } else { Side::Buy }
}

impl Orders {
    /// Reads the feed.
    pub(super) fn new() -> Result<Self> {
        let mut entries = Vec::new();
        for message in messages() {
            fast::entries(message, &mut entries).context("read the feed")?;
        }
        // The instruments in the order of their first messages, and their finest exponents.
        let mut finest: Vec<(u64, i32)> = Vec::new();
        for entry in &entries {
            match finest.iter_mut().find(|(security, _)| *security == entry.security) {
                Some((_, exponent)) => *exponent = entry.exponent.min(*exponent),
                None => finest.push((entry.security, entry.exponent)),
            }
        }
        let changes = entries.iter().map(|entry| {
            let known = finest.iter().position(|&(security, _)| security == entry.security);
            let at = known.context("an instrument")?;
            let steps = 10i64.pow((entry.exponent - finest[at].1).unsigned_abs());
            Ok(Change {
                instrument: at as u32 + 1,
                side: if entry.is_bid { Side::Buy } else { Side::Sell },
                is_best: entry.level == 1,
                price: entry.mantissa * steps,
                size: if entry.action == Action::Delete { 0 } else { entry.size },
            })
        });
        let changes = changes.collect::<Result<Vec<_>>>()?;
        let books = finest.iter().map(|_| Default::default()).collect();
        let ids = [0; CLIENTS as usize + 1];
        Ok(Self { changes, next: 0, books, ids, maker: 0, waiting: VecDeque::new() })
    }

    /// How many instruments there are: 1 and following.
    pub(super) fn instruments(&self) -> u32 {
        self.books.len() as u32
    }

    /// A price of each instrument to begin with.
    pub(super) fn references(&self) -> Vec<i64> {
        let first = |id| self.changes.iter().find(|change| change.instrument == id);
        (1..=self.instruments()).map(|id| first(id).map_or(1, |change| change.price)).collect()
    }

    /// The next command.
    pub(super) fn command(&mut self) -> Command {
        loop {
            if let Some(command) = self.waiting.pop_front() {
                return command;
            }
            match self.changes.get(self.next).copied() {
                Some(change) => {
                    self.next += 1;
                    self.follow(change);
                }
                None => self.begin_again(),
            }
        }
    }

    fn begin_again(&mut self) {
        self.next = 0;
        self.books.iter_mut().flatten().for_each(Levels::clear);
        let all = MassCancel { instrument: InstrumentId(0) }.encode();
        self.waiting.extend((1..=CLIENTS).map(|client| Command::new(client, &all)));
    }

    fn levels(&mut self, instrument: u32, side: Side) -> &mut Levels {
        &mut self.books[instrument as usize - 1][index(side)]
    }

    /// Makes the book do what the feed says.
    fn follow(&mut self, change: Change) {
        let Change { instrument, side, price, size, .. } = change;
        let level = self.levels(instrument, side).get(&price);
        let there = level.map_or(0, |orders| orders.iter().map(|order| order.leaves).sum());
        if size > there {
            self.maker = self.maker % (TAKER - 1) + 1;
            self.order(self.maker, change, side, size - there, TimeInForce::Day);
        } else if size < there && change.is_best {
            self.order(TAKER, change, opposite(side), there - size, TimeInForce::Ioc);
        } else if size < there {
            self.shrink(change, there - size);
        }
    }

    fn id(&mut self, client: u16) -> u64 {
        let id = &mut self.ids[usize::from(client)];
        *id += 1;
        *id
    }

    /// A new order: trades with what it crosses, and its rest stands if it may.
    fn order(&mut self, client: u16, change: Change, side: Side, quantity: u64, stay: TimeInForce) {
        let id = self.id(client);
        let Change { instrument, price, .. } = change;
        let order = NewOrder {
            client_order_id: ClientOrderId(id),
            price: Price(price),
            quantity: Quantity(quantity),
            instrument: InstrumentId(instrument),
            side,
            order_type: OrderType::Limit,
            time_in_force: stay,
            post_only: false,
        };
        self.waiting.push_back(Command::new(client, &order.encode()));
        let mut leaves = quantity;
        let levels = self.levels(instrument, opposite(side));
        while leaves > 0 {
            let best = if side == Side::Buy { levels.first_entry() } else { levels.last_entry() };
            let Some(mut best) = best.filter(|best| {
                if side == Side::Buy { *best.key() <= price } else { *best.key() >= price }
            }) else {
                break;
            };
            let oldest = best.get_mut().front_mut();
            let traded = oldest.as_ref().map_or(0, |oldest| oldest.leaves.min(leaves));
            leaves -= traded;
            if let Some(oldest) = oldest {
                oldest.leaves -= traded;
                oldest.filled += traded;
            }
            best.get_mut().retain(|order| order.leaves > 0);
            if best.get().is_empty() {
                best.remove();
            }
        }
        if leaves > 0 && stay == TimeInForce::Day {
            let standing = Standing { client, id, leaves, filled: quantity - leaves };
            self.levels(instrument, side).entry(price).or_default().push_back(standing);
        }
    }

    /// The newest orders of a level give way.
    fn shrink(&mut self, change: Change, mut surplus: u64) {
        let Change { instrument, side, price, .. } = change;
        while surplus > 0 {
            let orders = self.levels(instrument, side).entry(price).or_default();
            let Some(newest) = orders.pop_back() else { break };
            let Standing { client, id: original, leaves, filled } = newest;
            if leaves <= surplus {
                surplus -= leaves;
                let client_order_id = ClientOrderId(original);
                let cancel = CancelOrder { client_order_id, order_id: OrderId(0) };
                self.waiting.push_back(Command::new(client, &cancel.encode()));
                continue;
            }
            let leaves = leaves - surplus;
            surplus = 0;
            let id = self.id(client);
            let replace = ReplaceOrder {
                client_order_id: ClientOrderId(id),
                original: ClientOrderId(original),
                price: Price(price),
                quantity: Quantity(filled + leaves),
            };
            self.waiting.push_back(Command::new(client, &replace.encode()));
            let standing = Standing { client, id, leaves, filled };
            self.levels(instrument, side).entry(price).or_default().push_back(standing);
        }
        self.levels(instrument, side).retain(|_, orders| !orders.is_empty());
    }
}

/// How many commands of a kind there were, and how they were answered.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Mix {
    pub(super) commands: u64,
    pub(super) new_orders: u64,
    pub(super) cancels: u64,
    pub(super) replaces: u64,
    pub(super) fills: u64,
    /// Commands that were rejected.
    pub(super) rejected: u64,
}

impl Mix {
    /// Takes note of a command or an event.
    pub(super) fn note(&mut self, payload: &[u8], is_event: bool) {
        self.commands += u64::from(!is_event);
        match Message::decode(payload) {
            Ok(Message::NewOrder(_)) => self.new_orders += 1,
            Ok(Message::CancelOrder(_)) => self.cancels += 1,
            Ok(Message::ReplaceOrder(_)) => self.replaces += 1,
            Ok(Message::Filled(_)) => self.fills += 1,
            Ok(Message::Rejected(_) | Message::CancelRejected(_)) => self.rejected += 1,
            _ => {}
        }
    }
}
