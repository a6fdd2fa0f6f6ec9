//! Reconciliation: a clean day is clean, and each thing planted in it is found and named.

use super::super::field::{CancelReason, Reason};
use super::super::messages::CancelOrder;
use super::super::own::{Direction, OwnWriter};
use super::super::stream_tests::*;
use super::*;
use crate::sequencer::{Leaving, STAMP_BYTES};

const USER: ClientId = ClientId(501);
const MAKER: ClientId = ClientId(7);

/// All sides of a day, to be tampered with.
#[derive(Clone)]
struct Day {
    stream: Stream,
    sent: Vec<(ClientId, u64, Vec<u8>)>,
    seen: Vec<(ClientId, u64, Vec<u8>)>,
    engine: Vec<OpenOrder>,
    positions: Vec<(ClientId, InstrumentId, i64)>,
}

impl Day {
    fn own(&self, client: ClientId) -> Vec<u8> {
        let mut file = Vec::new();
        let mut writer = OwnWriter::begin(&mut file, client).unwrap();
        for (direction, all) in [(Direction::Sent, &self.sent), (Direction::Seen, &self.seen)] {
            for (_, sequence, bytes) in all.iter().filter(|(whose, ..)| *whose == client) {
                writer.append(&OwnRecord { direction, sequence: *sequence, bytes }).unwrap();
            }
        }
        drop(writer);
        file
    }

    fn report(&self) -> Report {
        let files = [USER, MAKER].map(|client| self.own(client));
        let mut reconciliation = Reconciliation::new();
        for file in &files {
            reconciliation.client(OwnReader::new(file).unwrap()).unwrap();
        }
        self.stream.records().for_each(|record| reconciliation.stream(&record));
        reconciliation.engine(self.engine.iter().copied());
        reconciliation.positions("positions", self.positions.iter().copied());
        reconciliation.finish()
    }

    /// What is found, as sequence, client and kind.
    fn found(&self) -> Vec<(u64, ClientId, DifferenceKind)> {
        let report = self.report();
        assert_eq!(report.is_clean(), report.differences.is_empty());
        assert_eq!(report.to_string().lines().count(), 1 + report.differences.len());
        report.differences.into_iter().map(|d| (d.sequence, d.client, d.what)).collect()
    }

    /// Changes a message of the stream in place.
    fn alter(&mut self, sequence: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let (_, bytes) = self.stream.messages.iter_mut().find(|(at, _)| *at == sequence).unwrap();
        change(bytes);
    }

    /// Makes the clients see what the stream has, as whoever tampers with both would.
    fn see(&mut self) {
        let seen = self.stream.records().zip(&self.stream.messages);
        self.seen = seen
            .filter(|(record, _)| record.kind == Kind::Event)
            .map(|(record, (sequence, bytes))| (record.client, *sequence, bytes.clone()))
            .collect();
    }
}

/// Where things are in [`day`].
const FIRST: u64 = 4;
const FILL: u64 = 6;
const SECOND: u64 = 8;
const THIRD: u64 = 10;

/// A seller, and a buyer with three orders: the first trades in two parts, the second is a
/// duplicate, and the third stands.
fn day() -> Day {
    let mut stream = Stream::default();
    stream.command(OPERATOR, 1, define(AAPL, "AAPL")); // 1
    let ask = new_order(1, Side::Sell, 50, 100);
    let ask_id = stream.command(MAKER, 1, ask); // 2
    stream.event(MAKER, ask_id, accepted(&ask, ask_id)); // 3
    let first = new_order(1001, Side::Buy, 10, 100);
    stream.command(USER, 1, first); // 4
    stream.event(USER, FIRST, accepted(&first, FIRST)); // 5
    stream.event(USER, FIRST, filled(&first, FIRST, 4, 6)); // 6
    stream.event(MAKER, FIRST, filled(&ask, ask_id, 4, 46)); // 7
    stream.command(USER, 2, first); // 8
    stream.event(USER, SECOND, rejected(&first, Reason::DuplicateOrder)); // 9
    let third = new_order(1003, Side::Buy, 5, 90);
    stream.command(USER, 3, third); // 10
    stream.event(USER, THIRD, accepted(&third, THIRD)); // 11
    stream.event(USER, THIRD, filled(&first, FIRST, 6, 0)); // 12
    stream.event(MAKER, THIRD, filled(&ask, ask_id, 6, 40)); // 13
    stream.refused(USER, 4, Refusal::Rate); // 14
    let cancel = CancelOrder { client_order_id: ClientOrderId(1), order_id: OrderId(0) };
    stream.command(MAKER, 2, cancel); // 15
    let rest = super::super::messages::Cancelled {
        quantity: Quantity(40),
        ..cancelled(&ask, ask_id, CancelReason::Requested)
    };
    stream.event(MAKER, 15, rest); // 16
    let open = OpenOrder {
        order_id: OrderId(THIRD),
        client: USER,
        client_order_id: ClientOrderId(1003),
        instrument: AAPL,
        side: Side::Buy,
        price: Price(90),
        leaves: Quantity(5),
    };
    let positions = vec![(USER, AAPL, 10), (MAKER, AAPL, -10)];
    let mut day = Day { stream, sent: vec![], seen: vec![], engine: vec![open], positions };
    for record in day.stream.records().filter(|record| record.kind == Kind::Command) {
        day.sent.push((record.client, record.reference, record.payload.to_vec()));
    }
    day.sent.push((USER, 4, new_order(1004, Side::Buy, 1, 1).encode().to_vec())); // refused
    day.see();
    day
}

fn order_1003() -> Option<ClientOrderId> {
    Some(ClientOrderId(1003))
}

#[test]
fn a_clean_day_is_clean() {
    let mut day = day();
    let report = day.report();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.records, report.commands, report.orders, report.fills), (16, 6, 4, 4));
    assert_eq!((report.clients, report.own_records), (2, 15));
    assert_eq!((report.engine_orders, report.positions), (Some(1), 2));
    assert!(report.to_string().ends_with("2 positions: no difference"), "{report}");
    // What is sent again under its number, and what a client also keeps of what is no event.
    day.sent.push(day.sent[1].clone());
    day.seen.push((MAKER, 15, day.stream.messages[14].1.clone()));
    day.seen.retain(|(_, sequence, _)| *sequence != 16);
    day.seen.push((MAKER, 16, day.stream.messages[15].1.clone()));
    assert_eq!(day.found(), []);
}

#[test]
fn a_missing_order_is_named() {
    // The client sent a fifth command; nobody has it.
    let mut day = day();
    let lost = new_order(1005, Side::Buy, 1, 1);
    day.sent.push((USER, 5, lost.encode().to_vec()));
    let client_order = Some(ClientOrderId(1005));
    let missing = DifferenceKind::Missing { own: 5, message: "NewOrder", client_order };
    assert_eq!(day.found(), [(17, USER, missing)]);
    // The stream lost an order that everybody else knows of: its place is named.
    let mut day = self::day();
    day.stream.messages.retain(|(sequence, _)| *sequence != THIRD);
    let why = "an event of it, and it is not open";
    let order = OrderId(THIRD);
    assert_eq!(
        day.found(),
        [
            (THIRD, ClientId::NONE, DifferenceKind::Gap { until: THIRD }),
            (THIRD, USER, DifferenceKind::OnlyInEngine(order)),
            (THIRD + 1, USER, DifferenceKind::Contradiction { order, why }),
            (
                17,
                USER,
                DifferenceKind::Missing { own: 3, message: "NewOrder", client_order: order_1003() }
            ),
        ]
    );
}

#[test]
fn a_duplicated_order_is_named() {
    for own in [3, 5] {
        // Under its own number once more, or under another one.
        let mut day = day();
        let order = new_order(1003, Side::Buy, 5, 90);
        let again = day.stream.command(USER, own, order);
        day.stream.event(USER, again, rejected(&order, Reason::DuplicateOrder));
        day.see();
        let duplicated =
            DifferenceKind::Duplicated { own: 3, first: THIRD, client_order: order_1003() };
        assert_eq!(day.found(), [(again, USER, duplicated)]);
    }
}

#[test]
fn an_altered_order_is_named_with_the_field_and_both_values() {
    let mut day = day();
    let order = new_order(1003, Side::Buy, 5, 90);
    let altered = NewOrder { price: Price(91), ..order };
    day.alter(THIRD, |bytes| bytes.splice(STAMP_BYTES.., altered.encode()).for_each(drop));
    day.alter(THIRD + 1, |bytes| {
        bytes.splice(STAMP_BYTES.., accepted(&altered, THIRD).encode()).for_each(drop);
    });
    day.see();
    day.engine[0].price = Price(91);
    let field = |theirs: &str, stream: &str| {
        let (theirs, stream) = (theirs.to_owned(), stream.to_owned());
        Fields(vec![AlteredField { field: "price", theirs, stream }])
    };
    let expected = DifferenceKind::Altered { own: 3, fields: field("90", "91") };
    let text = expected.to_string();
    assert_eq!(day.found(), [(THIRD, USER, expected)]);
    assert_eq!(text, "command 3 was altered: price is 90 there and 91 in the stream");
    // Only the answer was altered: the stream shows it by itself.
    let mut day = self::day();
    day.alter(THIRD + 1, |bytes| {
        bytes.splice(STAMP_BYTES.., accepted(&altered, THIRD).encode()).for_each(drop);
    });
    let order = OrderId(THIRD);
    assert_eq!(
        day.found(),
        [
            (THIRD, USER, DifferenceKind::EngineAltered { order, fields: field("90", "91") }),
            (THIRD + 1, USER, DifferenceKind::Broken { order, fields: field("90", "91") }),
            (THIRD + 1, USER, DifferenceKind::SeenAltered(field("90", "91"))),
        ]
    );
}

/// Two orders that stand, as 5 and 6 of the user's, sequenced under these numbers.
fn two_more(day: &mut Day, numbers: [u64; 2]) -> u64 {
    let orders = [new_order(1005, Side::Buy, 1, 80), new_order(1006, Side::Buy, 2, 70)];
    for (own, order) in [5, 6].into_iter().zip(orders) {
        day.sent.push((USER, own, order.encode().to_vec()));
    }
    let mut first = 0;
    for own in numbers {
        let order = orders[if own == 5 { 0 } else { 1 }];
        let id = day.stream.command(USER, own, order);
        day.stream.event(USER, id, accepted(&order, id));
        day.engine.push(OpenOrder {
            order_id: OrderId(id),
            client_order_id: order.client_order_id,
            price: order.price,
            leaves: order.quantity,
            ..day.engine[0]
        });
        first = if first == 0 { id } else { first };
    }
    day.see();
    first
}

#[test]
fn a_reordered_order_is_named() {
    let mut day = day();
    two_more(&mut day, [5, 6]);
    assert_eq!(day.found(), []);
    // The second in front of the first, each under its own number.
    let mut day = self::day();
    let at = two_more(&mut day, [6, 5]);
    let reordered = DifferenceKind::Reordered { own: 6, other: 5 };
    assert_eq!(day.found(), [(at, USER, reordered.clone())]);
    // The same, and the numbers were changed to hide it.
    for (sequence, own) in [(at, 5u64), (at + 2, 6)] {
        day.alter(sequence, |bytes| bytes[8..16].copy_from_slice(&own.to_le_bytes()));
    }
    assert_eq!(day.found(), [(at, USER, reordered)]);
}

#[test]
fn a_command_that_was_never_sent_is_named() {
    let mut day = day();
    day.sent.retain(|(client, own, _)| (*client, *own) != (MAKER, 2));
    let message = "CancelOrder";
    let never = DifferenceKind::NeverSent { own: 2, message, client_order: None };
    assert_eq!(day.found(), [(15, MAKER, never)]);
    let mut day = self::day();
    day.sent.push((USER, 1, new_order(9, Side::Buy, 1, 1).encode().to_vec()));
    assert_eq!(day.found(), [(FIRST, USER, DifferenceKind::Ambiguous { own: 1 })]);
}

#[test]
fn a_lost_fill_is_named() {
    // The client did not see it.
    let mut day = day();
    day.seen.retain(|(_, sequence, _)| *sequence != FILL);
    let order = Some(OrderId(FIRST));
    let unseen = DifferenceKind::Unseen { message: "Filled", order };
    let text = unseen.to_string();
    assert_eq!(day.found(), [(FILL, USER, unseen)]);
    assert_eq!(text, "the client did not see Filled of order 4");
    // The stream lost it, in whatever way.
    let mut day = self::day();
    day.stream.messages.retain(|(sequence, _)| *sequence != FILL);
    let found = day.found();
    let broken = |(_, _, what): &(u64, ClientId, DifferenceKind)| {
        let leaves = |field: &AlteredField| (field.field, &*field.theirs) == ("leaves", "4");
        matches!(what, DifferenceKind::Broken { order: OrderId(FIRST), fields }
            if fields.0.iter().all(leaves))
    };
    assert_eq!(found[0], (FILL, ClientId::NONE, DifferenceKind::Gap { until: FILL }));
    assert_eq!(found[1], (FILL, USER, DifferenceKind::NotInStream { message: "Filled" }));
    assert!(broken(&found[2]), "{found:?}");
    let (source_name, instrument) = ("positions".into(), AAPL);
    let position = DifferenceKind::Position { source_name, instrument, found: 10, fills: 6 };
    assert_eq!(found[3..], [(12, USER, position)]);
}

#[test]
fn events_are_seen_once_in_order_and_as_they_are() {
    let mut day = day();
    let again = day.seen.iter().find(|(_, sequence, _)| *sequence == FILL).unwrap().clone();
    day.seen.push(again);
    assert_eq!(day.found(), [(FILL, USER, DifferenceKind::SeenTwice)]);
    let mut day = self::day();
    let at = day.seen.iter().position(|(_, sequence, _)| *sequence == FILL).unwrap();
    let late = day.seen.remove(at);
    day.seen.push(late);
    assert_eq!(day.found(), [(FILL, USER, DifferenceKind::SeenLate { behind: 12 })]);
    let mut day = self::day();
    day.seen[at].2[24] ^= 1; // its time
    let found = day.found();
    assert!(
        matches!(&found[..], [(FILL, USER, DifferenceKind::SeenAltered(Fields(fields)))]
        if fields.len() == 1 && fields[0].field == "time"),
        "{found:?}"
    );
}

#[test]
fn who_was_gone_need_not_have_seen() {
    let mut day = day();
    let left = day.stream.left(USER, Leaving::Died);
    let order = new_order(1003, Side::Buy, 5, 90);
    let gone = cancelled(&order, THIRD, CancelReason::Disconnected);
    day.stream.event(USER, left, gone);
    day.engine.clear();
    assert_eq!(day.found(), []);
}

#[test]
fn a_wrong_position_is_named() {
    let mut day = day();
    day.positions[0].2 = 9;
    let position = |found, fills| DifferenceKind::Position {
        source_name: "positions".into(),
        instrument: AAPL,
        found,
        fills,
    };
    let text = position(9, 10).to_string();
    assert_eq!(day.found(), [(12, USER, position(9, 10))]);
    assert_eq!(text, "positions has 9 of instrument 1, and the fills make 10");
    day.positions.remove(0);
    assert_eq!(day.found(), [(12, USER, position(0, 10))]);
    day.positions.push((USER, AAPL, 10));
    day.positions.push((ClientId(8), AAPL, 1));
    assert_eq!(day.found(), [(0, ClientId(8), position(1, 0))]);
}

#[test]
fn the_engine_has_what_the_stream_has() {
    let mut day = day();
    let open = day.engine[0];
    let (order, stranger) = (OrderId(THIRD), OpenOrder { order_id: OrderId(FIRST), ..open });
    day.engine = vec![stranger];
    assert_eq!(
        day.found(),
        [
            (FIRST, USER, DifferenceKind::OnlyInEngine(OrderId(FIRST))),
            (THIRD, USER, DifferenceKind::NotInEngine(order)),
        ]
    );
    day.engine = vec![OpenOrder { leaves: Quantity(4), side: Side::Sell, ..open }];
    let found = day.found();
    let text = found[0].2.to_string();
    assert_eq!(found.len(), 1);
    let values = "side is Sell there and Buy in the stream, leaves is 4 there and 5 in the stream";
    assert_eq!(text, format!("the engine has order 10 otherwise: {values}"));
}

#[test]
fn a_log_that_goes_back_and_a_torn_record_are_told() {
    let day = day();
    let mut file = day.own(USER);
    file.truncate(file.len() - 1);
    let mut reconciliation = Reconciliation::new();
    reconciliation.client(OwnReader::new(&file).unwrap()).unwrap();
    day.stream.records().for_each(|record| reconciliation.stream(&record));
    reconciliation.stream(&day.stream.record(1));
    let report = reconciliation.finish();
    assert_eq!((report.torn.len(), report.torn[0].0), (1, USER));
    assert!(report.torn[0].1 > STAMP_BYTES as u64);
    let kinds: Vec<_> = report.differences.iter().map(|d| (d.sequence, &d.what)).collect();
    let unseen = DifferenceKind::Unseen { message: "Filled", order: Some(OrderId(FIRST)) };
    assert_eq!(kinds, [(1, &DifferenceKind::Back { last: 16 }), (12, &unseen)]);
    assert!(report.to_string().contains("client 501: its own record ends in a torn tail of "));
    // Damage is an error, and says where.
    let mut bad = day.own(USER);
    bad[20] ^= 1;
    let damaged = Reconciliation::new().client(OwnReader::new(&bad).unwrap());
    assert!(matches!(damaged, Err(OwnError::Damaged { offset: 16 })));
}

#[test]
fn an_event_of_anothers_order_is_named() {
    let mut day = day();
    let order = new_order(1003, Side::Buy, 5, 90);
    let wrong = day.stream.event(MAKER, 15, filled(&order, THIRD, 1, 4));
    day.see();
    day.engine[0].leaves = Quantity(4);
    day.positions[1].2 += 1;
    let why = "an event of it concerns another client";
    let order = OrderId(THIRD);
    assert_eq!(day.found(), [(wrong, MAKER, DifferenceKind::Contradiction { order, why })]);
}

#[test]
fn too_many_differences_are_counted() {
    let mut reconciliation = Reconciliation::new();
    let positions = (0..DIFFERENCES_MAX as u32 + 5).map(|of| (USER, InstrumentId(of), 1));
    reconciliation.positions("positions", positions);
    let report = reconciliation.finish();
    assert_eq!((report.differences.len(), report.left_out), (DIFFERENCES_MAX, 5));
    assert!(report.to_string().ends_with("\nand 5 more"));
}

#[test]
fn a_days_fills_are_what_positions_say() {
    let day = day();
    let mut positions = super::super::positions::Positions::new();
    day.stream.records().for_each(|record| positions.apply(&record).unwrap());
    let held: Vec<_> = positions.iter().map(|(client, of, at)| (client, of, at.quantity)).collect();
    assert_eq!(held, [(MAKER, AAPL, -10), (USER, AAPL, 10)]);
}

#[test]
fn a_gateways_report_that_is_refused_changes_nothing() {
    let mut day = day();
    let refused = |order_id| super::super::messages::Rejected {
        client_order_id: ClientOrderId(0),
        order_id: OrderId(order_id),
        instrument: InstrumentId(0),
        command: super::super::messages::VenueReport::TEMPLATE_ID,
        reason: Reason::TooLate,
    };
    day.stream.event(OPERATOR, 15, refused(THIRD)); // it is open
    day.stream.event(OPERATOR, 15, refused(FIRST)); // it is through
    assert_eq!(day.found(), []);
}
