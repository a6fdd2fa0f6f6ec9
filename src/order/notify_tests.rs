//! Filters: what each part takes, what is no filter, and symbols that the stream defines.

use super::super::field::{
    CancelReason, ClientOrderId, MarketState, OrderId, Price, Quantity, Reason, Side,
};
use super::super::messages::{CancelOrder, ListOrders, Listed, Rejected, SetMarketState};
use super::super::stream_tests::*;
use super::*;
use crate::sequencer::Refusal;

const GOOGL: InstrumentId = InstrumentId(2);

/// Every kind of record, of clients 3 and 7.
fn stream() -> Stream {
    let mut stream = Stream::default();
    stream.command(OPERATOR, 1, define(AAPL, "AAPL")); // 1
    for client in [ClientId(3), ClientId(7)] {
        let order = new_order(1, Side::Buy, 10, 100);
        let id = stream.command(client, 1, order); // 2, 7
        stream.event(client, id, accepted(&order, id)); // 3, 8
        stream.event(client, id, filled(&order, id, 4, 6)); // 4, 9
        stream.event(client, id, cancelled(&order, id, CancelReason::Requested)); // 5, 10
        stream.refused(client, 2, Refusal::Rate); // 6, 11
    }
    let all = SetMarketState { instrument: InstrumentId(0), state: MarketState::Closed };
    stream.command(OPERATOR, 2, all); // 12
    stream.put(Kind::Time, 0, ClientId::NONE, 0, &[]); // 13
    stream.put(Kind::Event, 0, ClientId(3), 13, b"odd"); // 14
    stream
}

fn taken(filter: &str) -> Vec<u64> {
    let filter: Filter = filter.parse().unwrap();
    stream().records().filter(|record| filter.matches(record)).map(|r| r.sequence).collect()
}

#[test]
fn each_part_narrows() {
    assert_eq!(taken(""), (1..=14).collect::<Vec<_>>());
    assert_eq!(taken("kind=filled"), [4, 9]);
    assert_eq!(taken("kind=FILLED,new-order,refused"), [2, 4, 6, 7, 9, 11]);
    assert_eq!(taken("kind=New_Order,time"), [2, 7, 13]);
    assert_eq!(taken("kind=event"), [3, 4, 5, 8, 9, 10, 14]);
    assert_eq!(taken("client=7"), [7, 8, 9, 10, 11]);
    assert_eq!(taken("client=7,0"), [7, 8, 9, 10, 11, 13]);
    assert_eq!(taken("client=3 kind=filled,cancelled instrument=1"), [4, 5]);
    assert_eq!(taken("  kind=command\tinstrument=1 "), [1, 2, 7, 12]);
    assert_eq!(taken("instrument=2"), [12], "what is about all is about each");
    assert_eq!(taken("kind=checkpoint"), []);
}

#[test]
fn what_is_about_no_instrument_is_not_taken_for_one() {
    let mut stream = Stream::default();
    let cancel = CancelOrder { client_order_id: Default::default(), order_id: Default::default() };
    stream.command(ClientId(3), 1, cancel);
    let order = new_order(1, Side::Buy, 10, 100);
    let none = Rejected { instrument: InstrumentId(0), ..rejected(&order, Reason::Malformed) };
    stream.event(ClientId(3), 1, none);
    stream.event(ClientId(3), 1, rejected(&order, Reason::InvalidTick));
    let filter: Filter = "instrument=1".parse().unwrap();
    let all: Vec<_> = stream.records().map(|record| filter.matches(&record)).collect();
    assert_eq!(all, [false, false, true]);
}

#[test]
fn an_error_points_at_the_offending_part() {
    for (text, problem, start, len) in [
        ("kind=filled rejected", FilterProblem::NoValue, 12, 8),
        ("kind=filled side=buy", FilterProblem::Key, 12, 4),
        ("client=1 client=2", FilterProblem::Twice, 9, 6),
        ("client=1,,2", FilterProblem::Empty, 9, 0),
        ("kind=", FilterProblem::Empty, 5, 0),
        ("kind=filled,pondered", FilterProblem::Kind, 12, 8),
        ("client=3,65536", FilterProblem::Client, 9, 5),
        ("client=-1", FilterProblem::Client, 7, 2),
        ("instrument=4294967296", FilterProblem::Instrument, 11, 10),
        ("instrument=A,\u{20AC}\u{20AC} client=1", FilterProblem::Instrument, 13, 2),
    ] {
        let error = text.parse::<Filter>().unwrap_err();
        assert_eq!((error.problem, error.start, error.len), (problem, start, len), "{text}");
        let shown = error.to_string();
        let marks = shown.lines().last().unwrap();
        assert_eq!(marks.find('^'), Some(start + 2), "{shown}");
    }
}

#[test]
fn a_symbol_is_resolved_by_the_stream() {
    let mut notifications = Notifications::new();
    notifications
        .subscribe("apple", "kind=filled,define-instrument instrument=AAPL".parse().unwrap());
    notifications.subscribe("all", "kind=filled".parse().unwrap());
    let unresolved = |notifications: &Notifications| {
        let (_, filter) = notifications.filters().next().unwrap();
        filter.unresolved().count()
    };
    assert_eq!(unresolved(&notifications), 1);
    let mut heard = Vec::new();
    for record in stream().records() {
        notifications.apply(&record, |name, record| heard.push((name.to_owned(), record.sequence)));
    }
    let expected = [("apple", 1), ("apple", 4), ("all", 4), ("apple", 9), ("all", 9)]
        .map(|(n, s)| (n.into(), s));
    assert_eq!(heard, expected);
    assert_eq!(unresolved(&notifications), 0);
    // Who comes late knows it as well.
    notifications.subscribe("apple", "instrument=AAPL".parse().unwrap());
    assert_eq!((unresolved(&notifications), notifications.filters().count()), (0, 2));
    assert!(notifications.unsubscribe("all") && !notifications.unsubscribe("all"));
}

#[test]
fn a_rejected_definition_resolves_nothing_and_a_new_one_moves_the_symbol() {
    let mut stream = Stream::default();
    let id = stream.command(ClientId(3), 1, define(AAPL, "X"));
    let no = rejected(&new_order(0, Side::Buy, 1, 1), Reason::NotAuthorised);
    let no = Rejected { command: DefineInstrument::TEMPLATE_ID, ..no };
    stream.event(ClientId(3), id, no);
    stream.command(OPERATOR, 1, define(GOOGL, "X"));
    stream.command(OPERATOR, 2, define(AAPL, "Y"));
    stream.command(OPERATOR, 3, define(InstrumentId(3), "X"));
    stream.put(Kind::Time, 0, ClientId::NONE, 0, &[]);
    let mut notifications = Notifications::new();
    notifications.subscribe("x", "instrument=X".parse().unwrap());
    let mut known = Vec::new();
    for record in stream.records() {
        notifications.apply(&record, |_, _| {});
        known.push(notifications.filters[0].1.instruments.as_ref().unwrap().symbols[0].1);
    }
    let moved = [None, None, None, Some(GOOGL), Some(GOOGL), Some(InstrumentId(3))];
    assert_eq!(known, moved);
}

#[test]
fn lists_are_about_their_instrument() {
    let mut stream = Stream::default();
    stream.command(ClientId(3), 1, ListOrders { instrument: AAPL });
    let listed = Listed {
        client_order_id: ClientOrderId(1),
        order_id: OrderId(1),
        price: Price(100),
        quantity: Quantity(10),
        leaves: Quantity(10),
        instrument: AAPL,
        side: Side::Buy,
        accepted: true,
    };
    stream.event(ClientId(3), 1, listed);
    let taken = |text: &str| {
        let filter: Filter = text.parse().unwrap();
        stream.records().filter(|record| filter.matches(record)).count()
    };
    assert_eq!((taken("instrument=1"), taken("instrument=2")), (2, 0));
}
