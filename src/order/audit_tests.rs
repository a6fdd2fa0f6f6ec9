//! The audit: each question of it, asked of a small day.

use super::super::entry::What;
use super::super::field::{InstrumentId, Liquidity, Price, ReportKind, Side};
use super::super::messages::*;
use super::super::stream_tests::*;
use super::*;
use crate::sequencer::{Leaving, Refusal};

const USER: ClientId = ClientId(501);
const OTHER: ClientId = ClientId(502);

fn fold(audit: &mut Audit, stream: &Stream) {
    stream.records().for_each(|record| audit.apply(&record));
}

fn whole(stream: &Stream) -> Audit {
    let mut audit = Audit::new();
    fold(&mut audit, stream);
    audit
}

fn cancel(name: u64, order: u64) -> CancelOrder {
    CancelOrder { client_order_id: ClientOrderId(name), order_id: OrderId(order) }
}

fn sequences(entries: &[&Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.sequence).collect()
}

/// An order in, partly filled, renamed, and cancelled; and what else there is in a day.
fn day() -> Stream {
    let mut stream = Stream::default();
    stream.put(Kind::Term, 0, ClientId::NONE, 1, &[]);
    stream.put(Kind::Connected, 0, USER, 0, &[]);
    stream.command(OPERATOR, 1, define(AAPL, "AAPL"));
    let order = new_order(1001, Side::Buy, 10, 100);
    let id = stream.command(USER, 1, order);
    stream.event(USER, id, accepted(&order, id));
    stream.put(Kind::Time, 0, ClientId::NONE, 0, &[]);
    stream.event(USER, 6, filled(&order, id, 4, 6));
    let replace = ReplaceOrder {
        client_order_id: ClientOrderId(1002),
        original: ClientOrderId(1001),
        price: Price(101),
        quantity: Quantity(9),
    };
    let replacing = stream.command(USER, 2, replace);
    let replaced = Replaced {
        client_order_id: replace.client_order_id,
        original: replace.original,
        order_id: OrderId(id),
        price: replace.price,
        quantity: replace.quantity,
        leaves: Quantity(5),
        instrument: AAPL,
        side: Side::Buy,
    };
    stream.event(USER, replacing, replaced);
    let cancelling = stream.command(USER, 3, cancel(1002, 0));
    stream.event(USER, cancelling, cancelled(&order, id, CancelReason::Requested));
    stream.refused(USER, 4, Refusal::Rate);
    stream.left(USER, Leaving::Died);
    stream.put(Kind::Checkpoint, 0, ClientId::NONE, 0xABCD, &[]);
    stream
}

#[test]
fn order_placed_1001_of_user_501_is_audited() {
    let mut stream = Stream::default();
    let order = new_order(1001, Side::Buy, 10, 15_000);
    let id = stream.command(USER, 1, order);
    stream.event(USER, id, accepted(&order, id));
    stream.event(USER, id, filled(&order, id, 10, 0));
    let audit = whole(&stream);
    let life = audit.life(OrderId(id)).unwrap();
    assert_eq!((life.client, life.order, life.fate), (USER, order, Fate::Filled));
    assert_eq!((life.filled, life.entries.len()), (Quantity(10), 3));
    let line = life.entries[0].to_string();
    assert_eq!(
        line,
        "2025-11-22T05:20:00.000001000Z #1 command client=501 own=1 role=Trader \
         sent=2025-11-22T05:20:00.000000900Z NewOrder client_order_id=1001 price=15000 \
         quantity=10 instrument=1 side=Buy order_type=Limit time_in_force=Day post_only=false"
    );
}

#[test]
fn the_life_of_an_order_is_told_whole_by_any_of_its_names() {
    let audit = whole(&day());
    let life = audit.life(OrderId(4)).unwrap();
    assert_eq!(life.fate, Fate::Cancelled(CancelReason::Requested));
    assert_eq!((life.filled, life.why_rejected()), (Quantity(4), None));
    let told: Vec<_> = life.entries.iter().map(|entry| entry.sequence).collect();
    assert_eq!(told, [4, 5, 7, 8, 9, 10, 11]);
    for name in [1001, 1002] {
        let lives: Vec<_> = audit.lives_named(USER, ClientOrderId(name)).collect();
        assert_eq!(lives, [life]);
    }
    assert_eq!(audit.lives_named(OTHER, ClientOrderId(1001)).count(), 0);
    assert_eq!(life.to_string().lines().count(), 8);
}

#[test]
fn questions_are_answered_by_order_name_client_and_time() {
    let audit = whole(&day());
    let find = |query| sequences(&audit.find(&query));
    let of = Query::default();
    assert_eq!(find(of), [1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14]);
    assert_eq!(audit.ticks(), 1);
    assert_eq!(find(Query { order: Some(OrderId(4)), ..of }), [4, 5, 7, 8, 9, 10, 11]);
    let client_order = Some((USER, ClientOrderId(1002)));
    assert_eq!(find(Query { client_order, ..of }), [4, 5, 7, 8, 9, 10, 11]);
    let client_order = Some((OTHER, ClientOrderId(1002)));
    assert_eq!(find(Query { client_order, order: Some(OrderId(4)), ..of }), []);
    assert_eq!(find(Query { client: Some(OPERATOR), ..of }), [3]);
    let (from_ns, until_ns) = (Some(START_NS + 8_000), Some(START_NS + 12_000));
    assert_eq!(find(Query { client: Some(USER), from_ns, until_ns, ..of }), [8, 9, 10, 11]);
    assert_eq!(find(Query { order: Some(OrderId(9)), ..of }), []);
}

#[test]
fn every_kind_of_record_is_told_in_one_line() {
    let mut stream = day();
    stream.refused(USER, 6, Refusal::Gap);
    let text = |sequence| Entry::of(&stream.record(sequence)).to_string();
    let at = "2025-11-22T05:20:00.0000";
    assert_eq!(text(1), format!("{at}01000Z #1 term 1 layout=1"));
    assert_eq!(text(2), format!("{at}02000Z #2 connected client=501 used=0"));
    assert_eq!(text(6), format!("{at}06000Z #6 time"));
    let fill = text(7);
    assert!(fill.starts_with(&format!("{at}07000Z #7 event of #6 client=501 Filled ")), "{fill}");
    let why = "more commands than the client's rate allows";
    assert_eq!(text(12), format!("{at}12000Z #12 refused client=501 own=4: {why}"));
    assert_eq!(text(13), format!("{at}13000Z #13 disconnected client=501: its process died"));
    assert_eq!(text(14), format!("{at}14000Z #14 checkpoint hash=000000000000abcd"));
    assert!(text(15).contains(" #15 refused client=501 wanted=6: "), "{}", text(15));
}

#[test]
fn a_rejected_order_says_why() {
    let mut stream = Stream::default();
    let stranger = NewOrder { instrument: InstrumentId(9), ..new_order(1003, Side::Buy, 5, 1) };
    let id = stream.command(USER, 1, stranger);
    let why = stream.event(USER, id, rejected(&stranger, Reason::UnknownInstrument));
    let odd = stream.put(Kind::Command, 0, USER, 2, b"\x01");
    let malformed = Rejected {
        client_order_id: ClientOrderId(0),
        order_id: OrderId(0),
        instrument: InstrumentId(0),
        command: 0,
        reason: Reason::Malformed,
    };
    stream.event(USER, odd, malformed);
    let audit = whole(&stream);
    let life = audit.life(OrderId(id)).unwrap();
    assert_eq!(life.why_rejected(), Some(Reason::UnknownInstrument));
    assert_eq!(life.entries[0].outcome, Outcome::Rejected(Reason::UnknownInstrument));
    assert!(life.entries[0].to_string().ends_with(" -> rejected: UnknownInstrument"));
    assert_eq!(life.entries[1].cause(), Some(id));
    assert_eq!(life.entries[1].sequence, why);
    let found = audit.find(&Query { from_ns: Some(START_NS + odd * 1_000), ..Query::default() });
    assert_eq!(found[0].outcome, Outcome::Rejected(Reason::Malformed));
    assert!(matches!(found[0].what, What::Unreadable { bytes: 1, .. }));
    assert!(found[0].to_string().contains("unreadable (1 bytes)"), "{}", found[0]);
}

#[test]
fn a_duplicate_has_a_life_of_its_own() {
    let mut stream = Stream::default();
    let order = new_order(1002, Side::Buy, 15, 100);
    let first = stream.command(USER, 1, order);
    stream.event(USER, first, accepted(&order, first));
    let second = stream.command(USER, 2, order);
    stream.event(USER, second, rejected(&order, Reason::DuplicateOrder));
    let third = stream.command(USER, 3, cancel(1002, 0));
    stream.event(USER, third, cancelled(&order, first, CancelReason::Requested));
    let audit = whole(&stream);
    let fates: Vec<_> =
        audit.lives_named(USER, ClientOrderId(1002)).map(|l| (l.order_id.0, l.fate)).collect();
    let cancelled = Fate::Cancelled(CancelReason::Requested);
    assert_eq!(fates, [(first, cancelled), (second, Fate::Rejected(Reason::DuplicateOrder))]);
    assert_eq!(audit.life(OrderId(first)).unwrap().entries.len(), 4);
}

#[test]
fn commands_know_what_became_of_them() {
    let mut stream = day();
    let late = stream.command(USER, 5, cancel(1002, 0));
    let no = CancelRejected {
        client_order_id: ClientOrderId(1002),
        order_id: OrderId(0),
        command: CancelOrder::TEMPLATE_ID,
        reason: Reason::TooLate,
    };
    stream.event(USER, late, no);
    let last = stream.command(USER, 6, MassCancel { instrument: InstrumentId(0) });
    let audit = whole(&stream);
    let outcome = |sequence| {
        let all = audit.find(&Query::default());
        all.iter().find(|entry| entry.sequence == sequence).unwrap().outcome
    };
    assert_eq!([outcome(3), outcome(4), outcome(8), outcome(10)], [Outcome::Taken; 4]);
    assert_eq!(outcome(late), Outcome::Rejected(Reason::TooLate));
    assert_eq!((outcome(last), outcome(5)), (Outcome::Open, Outcome::Open));
    let life = audit.life(OrderId(4)).unwrap();
    assert_eq!(life.entries.last().unwrap().sequence, late + 1, "told with its command");
}

#[test]
fn the_rejection_of_an_older_order_is_not_the_commands_own() {
    let mut stream = Stream::default();
    let order = new_order(1, Side::Buy, 10, 100);
    let first = stream.command(USER, 1, order);
    let second = stream.command(OTHER, 1, order);
    let late = Rejected { order_id: OrderId(first), ..rejected(&order, Reason::VenueRejected) };
    stream.event(USER, second, late);
    stream.event(OTHER, second, accepted(&order, second));
    stream.put(Kind::Time, 0, ClientId::NONE, 0, &[]);
    let audit = whole(&stream);
    let fate = |order| audit.life(OrderId(order)).unwrap().fate;
    assert_eq!((fate(first), fate(second)), (Fate::Rejected(Reason::VenueRejected), Fate::Open));
    assert_eq!(audit.life(OrderId(second)).unwrap().entries[0].outcome, Outcome::Taken);
}

#[test]
fn only_finished_orders_are_forgotten() {
    let mut stream = Stream::default();
    let open = new_order(1, Side::Buy, 10, 100);
    let kept = stream.command(USER, 1, open);
    stream.event(USER, kept, accepted(&open, kept));
    let mut ids = Vec::new();
    for own in 2..=6 {
        let order = new_order(own, Side::Buy, 10, 100);
        let id = stream.command(USER, own, order);
        stream.event(USER, id, filled(&order, id, 10, 0));
        stream.put(Kind::Connected, 0, OTHER, own, &[]);
        ids.push(id);
    }
    let mut audit = Audit::remembering(2);
    fold(&mut audit, &stream);
    let known: Vec<_> = audit.lives().map(|life| life.order_id.0).collect();
    assert_eq!(known, [kept, ids[3], ids[4]]);
    assert_eq!((audit.forgotten(), audit.names.len(), audit.others.len()), (3, 3, 2));
    // One order that is asked about for ever does not fill the memory.
    for own in 10..10 + 2 * LIFE_ENTRIES_MAX as u64 {
        let sequence = stream.command(USER, own, cancel(0, kept));
        audit.apply(
            &stream.messages.last().map(|(_, m)| Record::read(sequence, m)).unwrap().unwrap(),
        );
    }
    assert_eq!(audit.life(OrderId(kept)).unwrap().entries.len(), LIFE_ENTRIES_MAX);
    assert_eq!(audit.others.len(), 2);
}

#[test]
fn the_canonical_bytes_differ_where_the_records_do() {
    let stream = day();
    let bytes = |record: &Record<'_>| {
        let mut bytes = Vec::new();
        Entry::canonical(record, &mut bytes);
        bytes
    };
    let record = stream.record(5);
    let sound = bytes(&record);
    assert_eq!(sound.len(), 44 + record.payload.len());
    let mut all: Vec<_> = stream.records().map(|record| bytes(&record)).collect();
    all.push(bytes(&Record { sequence: 99, ..record }));
    all.push(bytes(&Record { payload: &record.payload[..8], ..record }));
    let count = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), count);
}

/// What the engine says to a gateway whose report cannot be true.
fn refused_report(order: u64, reason: Reason) -> Rejected {
    Rejected {
        client_order_id: ClientOrderId(0),
        order_id: OrderId(order),
        instrument: InstrumentId(0),
        command: VenueReport::TEMPLATE_ID,
        reason,
    }
}

fn report(order: u64, kind: ReportKind) -> VenueReport {
    VenueReport {
        order_id: OrderId(order),
        match_id: 1,
        price: Price(100),
        quantity: Quantity(10),
        kind,
        liquidity: Liquidity::Taker,
        reason: Reason::VenueRejected,
    }
}

fn cancel_rejected(name: u64, order: u64, command: u16, reason: Reason) -> CancelRejected {
    let (client_order_id, order_id) = (ClientOrderId(name), OrderId(order));
    CancelRejected { client_order_id, order_id, command, reason }
}

fn outcome(audit: &Audit, sequence: u64) -> Outcome {
    let all = audit.find(&Query::default());
    all.iter().find(|entry| entry.sequence == sequence).unwrap().outcome
}

#[test]
fn a_gateways_report_that_is_refused_does_not_end_the_order() {
    let mut stream = Stream::default();
    let order = new_order(1, Side::Buy, 10, 100);
    let id = stream.command(USER, 1, order);
    stream.event(USER, id, accepted(&order, id));
    let again = stream.command(OTHER, 1, report(id, ReportKind::Accepted));
    stream.event(OTHER, again, refused_report(id, Reason::DuplicateOrder));
    let audit = whole(&stream);
    let life = audit.life(OrderId(id)).unwrap();
    assert_eq!((life.fate, life.entries.len()), (Fate::Open, 4));
    assert_eq!(outcome(&audit, again), Outcome::Rejected(Reason::DuplicateOrder));
}

#[test]
fn what_a_report_ends_is_no_rejection_of_the_report() {
    let mut stream = Stream::default();
    let order = new_order(1, Side::Buy, 10, 100);
    let id = stream.command(USER, 1, order);
    stream.event(USER, id, accepted(&order, id));
    let asked = stream.command(USER, 2, cancel(1, 0));
    let fill = stream.command(OTHER, 1, report(id, ReportKind::Filled));
    stream.event(USER, fill, filled(&order, id, 10, 0));
    let late = cancel_rejected(1, id, CancelOrder::TEMPLATE_ID, Reason::TooLate);
    stream.event(USER, fill, late);
    stream.put(Kind::Time, 0, ClientId::NONE, 0, &[]);
    let audit = whole(&stream);
    assert_eq!([outcome(&audit, asked), outcome(&audit, fill)], [Outcome::Taken; 2]);
    assert_eq!(audit.life(OrderId(id)).unwrap().fate, Fate::Filled);
}

#[test]
fn a_cancel_that_was_due_is_answered_in_front_of_its_repetition() {
    let mut stream = Stream::default();
    let order = new_order(1, Side::Buy, 10, 100);
    let id = stream.command(USER, 1, order);
    stream.event(USER, id, accepted(&order, id));
    let no = |reason| cancel_rejected(1, id, CancelOrder::TEMPLATE_ID, reason);
    let first = stream.command(USER, 2, cancel(1, 0));
    let second = stream.command(USER, 3, cancel(1, 0));
    stream.event(USER, second, no(Reason::Pending));
    let third = stream.command(USER, 4, cancel(1, 0));
    stream.event(USER, third, no(Reason::VenueDown)); // the first one's
    let fourth = stream.command(USER, 5, cancel(1, 0));
    stream.event(USER, fourth, no(Reason::VenueDown)); // the third one's
    stream.event(USER, fourth, no(Reason::VenueDown)); // its own
    stream.put(Kind::Time, 0, ClientId::NONE, 0, &[]);
    let audit = whole(&stream);
    let outcomes = [first, second, third, fourth].map(|sequence| outcome(&audit, sequence));
    let rejected = Outcome::Rejected;
    assert_eq!(outcomes[..2], [Outcome::Taken, rejected(Reason::Pending)]);
    assert_eq!(outcomes[2..], [Outcome::Taken, rejected(Reason::VenueDown)]);
}

#[test]
fn a_mass_cancel_is_not_rejected_with_one_of_its_cancels() {
    let mut stream = Stream::default();
    let order = new_order(1, Side::Buy, 10, 100);
    let id = stream.command(USER, 1, order);
    stream.event(USER, id, accepted(&order, id));
    let all = stream.command(USER, 2, MassCancel { instrument: InstrumentId(0) });
    let down = cancel_rejected(1, id, MassCancel::TEMPLATE_ID, Reason::VenueDown);
    stream.event(USER, all, down);
    stream.put(Kind::Time, 0, ClientId::NONE, 0, &[]);
    assert_eq!(outcome(&whole(&stream), all), Outcome::Taken);
}

#[test]
fn the_end_of_an_order_is_known_however_much_was_said_of_it() {
    let mut stream = Stream::default();
    let order = new_order(1, Side::Buy, 10, 100);
    let id = stream.command(USER, 1, order);
    stream.event(USER, id, accepted(&order, id));
    let max = LIFE_ENTRIES_MAX as u64;
    for own in 2..max + 10 {
        let replaced = Replaced {
            client_order_id: ClientOrderId(own),
            original: ClientOrderId(own - 1),
            order_id: OrderId(id),
            price: Price(100),
            quantity: Quantity(10),
            leaves: Quantity(10),
            instrument: AAPL,
            side: Side::Buy,
        };
        stream.event(USER, id, replaced);
    }
    stream.event(USER, id, cancelled(&order, id, CancelReason::Requested));
    let mut audit = Audit::remembering(1);
    fold(&mut audit, &stream);
    let life = audit.life(OrderId(id)).unwrap();
    assert_eq!(life.fate, Fate::Cancelled(CancelReason::Requested));
    assert_eq!((life.entries.len(), life.names.len()), (LIFE_ENTRIES_MAX, LIFE_ENTRIES_MAX));
    assert_eq!(audit.lives_named(USER, ClientOrderId(max + 9)).count(), 1);
    assert_eq!(audit.names.len(), LIFE_ENTRIES_MAX);
    let next = stream.command(USER, 2, new_order(max + 10, Side::Buy, 1, 1));
    stream.event(USER, next, rejected(&order, Reason::Capacity));
    fold_last(&mut audit, &stream, 2);
    assert_eq!((audit.forgotten(), audit.lives().count()), (1, 1), "it was finished");
}

fn fold_last(audit: &mut Audit, stream: &Stream, count: usize) {
    let skipped = stream.messages.len() - count;
    stream.records().skip(skipped).for_each(|record| audit.apply(&record));
}
