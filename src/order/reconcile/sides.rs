//! One client's own record against what the stream has of it.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Difference, DifferenceKind, Fields, fields_between, fields_of_records};
use super::{At, Told};
use crate::order::field::{ClientOrderId, OrderId};
use crate::order::messages::Message;
use crate::order::own::{Direction, OwnRecord};
use crate::sequencer::{ClientId, Kind, Record, STAMP_BYTES};

/// Both sides of one client.
pub(super) struct Sides<'s> {
    client: ClientId,
    /// What it sent, once each, by its own numbers.
    sent: BTreeMap<u64, &'s [u8]>,
    /// What it saw, in the order in which it saw it.
    seen: Vec<(u64, &'s [u8])>,
    told: &'s Told,
    /// The stream's commands of it, by its own numbers: where each is first.
    first: BTreeMap<u64, &'s At>,
    /// All that the stream has of clients, stamps and all.
    bytes: &'s [u8],
    last_sequence: u64,
    found: Vec<Difference>,
}

/// Where two sides have the same command under different numbers.
#[derive(Default)]
struct Moved {
    /// Numbers of the client's, and those under which the stream has the same commands.
    to: BTreeMap<u64, u64>,
    /// Numbers of the stream's that are explained.
    taken: BTreeSet<u64>,
}

impl<'s> Sides<'s> {
    pub(super) fn new(
        client: ClientId,
        own: &[OwnRecord<'s>],
        told: &'s Told,
        bytes: &'s [u8],
        last_sequence: u64,
    ) -> Self {
        let (mut sent, mut seen, mut first) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        let mut ambiguous = BTreeSet::new();
        for OwnRecord { direction, sequence, bytes } in own {
            match direction {
                Direction::Sent => {
                    if *sent.entry(*sequence).or_insert(*bytes) != *bytes {
                        ambiguous.insert(*sequence);
                    }
                }
                Direction::Seen => seen.push((*sequence, *bytes)),
            }
        }
        for at in told.commands() {
            first.entry(at.reference).or_insert(at);
        }
        let found = Vec::new();
        let mut sides = Self { client, sent, seen, told, first, bytes, last_sequence, found };
        for own in ambiguous {
            sides.differ(sides.place(own), DifferenceKind::Ambiguous { own });
        }
        sides
    }

    /// Appends what differs.
    pub(super) fn compare(mut self, found: &mut Vec<Difference>) {
        self.compare_sent();
        self.compare_order();
        self.compare_duplicates();
        self.compare_seen();
        found.append(&mut self.found);
    }

    fn differ(&mut self, sequence: u64, what: DifferenceKind) {
        self.found.push(Difference { sequence, client: self.client, what });
    }

    /// A command's message as the stream has it.
    fn message(&self, at: &At) -> &'s [u8] {
        &self.bytes[at.start + STAMP_BYTES..at.end]
    }

    /// Where in the stream the command `own` is, or should have been.
    fn place(&self, own: u64) -> u64 {
        let next = self.first.range(own..).next();
        next.map_or(self.last_sequence + 1, |(_, at)| at.sequence)
    }

    fn compare_sent(&mut self) {
        let equal = |own: u64, bytes: &[u8]| {
            self.first.get(&own).is_some_and(|at| self.message(at) == bytes)
        };
        let unmet: Vec<(u64, &[u8])> = self
            .sent
            .iter()
            .filter(|&(&own, &bytes)| !equal(own, bytes) && !self.was_refused(own))
            .map(|(&own, &bytes)| (own, bytes))
            .collect();
        let strange: Vec<(u64, &At)> = self
            .first
            .iter()
            .filter(|&(&own, at)| self.sent.get(&own) != Some(&self.message(at)))
            .map(|(&own, &at)| (own, at))
            .collect();
        let moved = self.moved(&unmet, &strange);
        if let Some((&own, &other)) = moved.to.first_key_value() {
            // Of two that changed places the one that comes first in the stream is named.
            let (own, other) = if other < own { (own, other) } else { (other, own) };
            let sequence = self.place(other);
            self.differ(sequence, DifferenceKind::Reordered { own, other });
        }
        for (own, bytes) in unmet {
            if moved.to.contains_key(&own) {
                continue;
            }
            let there = self.first.get(&own).copied().filter(|_| !moved.taken.contains(&own));
            match there {
                Some(at) => {
                    let fields = Fields(fields_between(bytes, self.message(at)));
                    self.differ(at.sequence, DifferenceKind::Altered { own, fields });
                }
                None => {
                    let (message, client_order) = named(bytes);
                    let what = DifferenceKind::Missing { own, message, client_order };
                    self.differ(self.place(own), what);
                }
            }
        }
        let never_sent =
            |(own, _): &(u64, &At)| !moved.taken.contains(own) && !self.sent.contains_key(own);
        let never_sent: Vec<(u64, &At)> = strange.into_iter().filter(never_sent).collect();
        self.compare_never_sent(&never_sent);
    }

    fn was_refused(&self, own: u64) -> bool {
        !self.first.contains_key(&own) && self.told.refused.contains(&own)
    }

    /// Pairs what the client has and the stream has not with what the stream has and the client
    /// has not, where the bytes are equal.
    fn moved(&self, unmet: &[(u64, &[u8])], strange: &[(u64, &At)]) -> Moved {
        let mut places: BTreeMap<&[u8], Vec<u64>> = BTreeMap::new();
        for &(own, at) in strange.iter().rev() {
            places.entry(self.message(at)).or_default().push(own);
        }
        let mut moved = Moved::default();
        for &(own, bytes) in unmet {
            if let Some(there) = places.get_mut(bytes).and_then(Vec::pop) {
                moved.to.insert(own, there);
                moved.taken.insert(there);
            }
        }
        moved
    }

    /// The stream has commands under numbers that the client never used.
    fn compare_never_sent(&mut self, strange: &[(u64, &'s At)]) {
        if strange.is_empty() {
            return;
        }
        let met = self.sent.iter().filter(|(own, _)| self.first.contains_key(own));
        let twins: BTreeMap<&[u8], u64> = met.map(|(&own, &bytes)| (bytes, own)).collect();
        for &(own, at) in strange {
            let bytes = self.message(at);
            let (message, client_order) = named(bytes);
            // Equal cancels may well be sent twice; an order is never sent under two numbers.
            let twin = twins.get(bytes).filter(|_| client_order.is_some());
            let what = match twin {
                Some(&own) => {
                    let first = self.place(own);
                    DifferenceKind::Duplicated { own, first, client_order }
                }
                None => DifferenceKind::NeverSent { own, message, client_order },
            };
            self.differ(at.sequence, what);
        }
    }

    /// The stream must have a client's commands by rising numbers; the first that stands in front
    /// of a lower one is named.
    fn compare_order(&mut self) {
        let firsts: Vec<&At> = self.told.commands().filter(|at| self.is_first(at)).collect();
        let mut least_behind = u64::MAX;
        let mut found = None;
        for at in firsts.iter().rev() {
            if at.reference > least_behind {
                found = Some((at.sequence, at.reference, least_behind));
            }
            least_behind = least_behind.min(at.reference);
        }
        if let Some((sequence, own, other)) = found {
            self.differ(sequence, DifferenceKind::Reordered { own, other });
        }
    }

    fn is_first(&self, at: &At) -> bool {
        self.first.get(&at.reference).is_some_and(|first| first.sequence == at.sequence)
    }

    /// No number of the client's may stand in the stream twice.
    fn compare_duplicates(&mut self) {
        let again: Vec<&At> = self.told.commands().filter(|at| !self.is_first(at)).collect();
        for at in again {
            let (own, first) = (at.reference, self.place(at.reference));
            let (_, client_order) = named(self.message(at));
            self.differ(at.sequence, DifferenceKind::Duplicated { own, first, client_order });
        }
    }

    fn compare_seen(&mut self) {
        let mut known = BTreeSet::new();
        let (mut latest, mut is_late) = (0, false);
        for (sequence, theirs) in std::mem::take(&mut self.seen) {
            if !known.insert(sequence) {
                self.differ(sequence, DifferenceKind::SeenTwice);
                continue;
            }
            if sequence < latest && !is_late {
                is_late = true;
                self.differ(sequence, DifferenceKind::SeenLate { behind: latest });
            }
            latest = latest.max(sequence);
            self.compare_one(sequence, theirs);
        }
        for at in &self.told.all {
            if at.kind == Kind::Event && at.seeable && !known.contains(&at.sequence) {
                let bytes = self.message(at);
                let message = Message::decode(bytes).ok();
                let order = message.as_ref().and_then(order_of);
                let message = named(bytes).0;
                self.differ(at.sequence, DifferenceKind::Unseen { message, order });
            }
        }
    }

    fn compare_one(&mut self, sequence: u64, theirs: &[u8]) {
        let all = &self.told.all;
        let at = all.binary_search_by_key(&sequence, |at| at.sequence).ok().map(|at| all[at]);
        let Some(at) = at else {
            let message = theirs.get(STAMP_BYTES..).map_or("no record", |bytes| named(bytes).0);
            self.differ(sequence, DifferenceKind::NotInStream { message });
            return;
        };
        let ours = &self.bytes[at.start..at.end];
        if theirs == ours {
            return;
        }
        let read = |bytes| Record::read(sequence, bytes).ok();
        let fields = match (read(theirs), read(ours)) {
            (Some(theirs), Some(ours)) => fields_of_records(&theirs, &ours),
            _ => fields_between(theirs, ours),
        };
        self.differ(sequence, DifferenceKind::SeenAltered(Fields(fields)));
    }
}

impl Told {
    /// Its commands, in the stream's order.
    fn commands(&self) -> impl Iterator<Item = &At> {
        self.all.iter().filter(|at| at.kind == Kind::Command)
    }
}

/// What a message is called; if it brings an order or renames one, what the client calls that.
fn named(bytes: &[u8]) -> (&'static str, Option<ClientOrderId>) {
    match Message::decode(bytes) {
        Ok(message) => {
            let client_order = match message {
                Message::NewOrder(order) => Some(order.client_order_id),
                Message::ReplaceOrder(order) => Some(order.client_order_id),
                _ => None,
            };
            (message.name(), client_order)
        }
        Err(_) => ("a message that cannot be read", None),
    }
}

/// The order that an event is about.
fn order_of(event: &Message) -> Option<OrderId> {
    let order = match event {
        Message::Accepted(event) => event.order_id,
        Message::Rejected(event) => event.order_id,
        Message::Filled(event) => event.order_id,
        Message::Cancelled(event) => event.order_id,
        Message::Replaced(event) => event.order_id,
        Message::CancelRejected(event) => event.order_id,
        Message::Routed(event) => event.order_id,
        _ => return None,
    };
    Some(order).filter(|&order| order != OrderId(0))
}
