//! Orders in front of an exchange and of a gateway: taken, refused, changed, cancelled.

use crate::order::engine::tests::*;
use crate::order::exchange::Exchange;
use crate::order::field::{
    CancelReason, ClientOrderId, InstrumentId, Liquidity, MarketState, Money, OrderId, OrderType,
    Price, Quantity, Reason, ReportKind, RouteAction, Side, TimeInForce,
};
use crate::order::messages::{
    Accepted, CancelOrder, CancelRejected, Cancelled, Filled, MassCancel, Message, NewOrder,
    Replaced, SetMarketState, SetVenue, VenueReport,
};
use crate::order::venue::Venue;
use crate::sequencer::ClientId;

/// An order of 501's for 10 AAPL rests, and another client's takes it: both hear of it, each in
/// turn, and positions and table agree.
#[test]
fn order_placed() {
    let mut desk = exchange();
    let resting = NewOrder { client_order_id: ClientOrderId(1001), ..order(0, Side::Buy, 150, 10) };
    let answers = desk.send(1, resting);
    let accepted = Accepted {
        client_order_id: ClientOrderId(1001),
        order_id: OrderId(3),
        price: Price(150),
        quantity: Quantity(10),
        instrument: AAPL,
        side: Side::Buy,
        order_type: OrderType::Limit,
        time_in_force: TimeInForce::Day,
        post_only: false,
    };
    assert_eq!(answers, [(1, accepted.into())]);
    assert_eq!(desk.engine.orders().get(OrderId(3)).unwrap().leaves(), Quantity(10));

    let answers = desk.send(2, order(7, Side::Sell, 145, 4));
    assert_eq!(names(&answers), [(2, "Accepted"), (1, "Filled"), (2, "Filled")]);
    let filled = Filled {
        client_order_id: ClientOrderId(1001),
        order_id: OrderId(3),
        match_id: 1,
        price: Price(150),
        quantity: Quantity(4),
        leaves: Quantity(6),
        fee: Money(0),
        instrument: AAPL,
        side: Side::Buy,
        liquidity: Liquidity::Maker,
    };
    assert_eq!(answers[1], (1, filled.into()));
    let taken = Filled {
        client_order_id: ClientOrderId(7),
        order_id: OrderId(5),
        leaves: Quantity(0),
        side: Side::Sell,
        liquidity: Liquidity::Taker,
        ..filled
    };
    assert_eq!(answers[2], (2, taken.into()));
    let risk = desk.engine.risk();
    assert_eq!((risk.position(ClientId(1), AAPL), risk.position(ClientId(2), AAPL)), (4, -4));
    assert_eq!((desk.engine.orders().len(), desk.engine.venue().len()), (1, 1));
}

/// Order 1002 for 15 GOOGL comes twice: one is accepted, one is a duplicate, one is in the market.
#[test]
fn duplicate_orders() {
    let mut desk = exchange();
    let twice = NewOrder { instrument: GOOGL, ..order(1002, Side::Buy, 150, 15) };
    assert_eq!(names(&desk.send(1, twice)), [(1, "Accepted")]);
    assert_eq!(refusal(&desk.send(1, twice)), (1, Reason::DuplicateOrder));
    assert_eq!((desk.engine.orders().len(), desk.engine.venue().len()), (1, 1));
    let sold = NewOrder { instrument: GOOGL, ..order(1, Side::Sell, 150, 30) };
    desk.send(2, sold);
    assert_eq!(desk.engine.risk().position(ClientId(1), GOOGL), 15, "it moves once");
    // Also when the first one is through, and when a rejected one had used the id up.
    assert_eq!(refusal(&desk.send(1, twice)), (1, Reason::DuplicateOrder));
    let unknown = NewOrder { instrument: NOTHING, ..order(1005, Side::Buy, 150, 15) };
    assert_eq!(refusal(&desk.send(1, unknown)), (1, Reason::UnknownInstrument));
    assert_eq!(refusal(&desk.send(1, order(1005, Side::Buy, 150, 15))).1, Reason::DuplicateOrder);
    assert_eq!(refusal(&desk.send(1, order(1004, Side::Buy, 150, 15))).1, Reason::DuplicateOrder);
    assert_eq!(names(&desk.send(1, order(1006, Side::Buy, 150, 15))), [(1, "Accepted")]);
    assert_eq!(refusal(&desk.send(3, order(0, Side::Buy, 150, 15))).1, Reason::DuplicateOrder);
}

/// Order 1003 for 5 of a stock that does not exist.
#[test]
fn invalid_stock_orders() {
    let mut desk = exchange();
    for instrument in [NOTHING, InstrumentId(0), InstrumentId(u32::MAX)] {
        let invalid = NewOrder { instrument, ..order(1003, Side::Buy, 150, 5) };
        let answers = desk.send(1, invalid);
        let [(1, Message::Rejected(rejected))] = answers[..] else { panic!("{answers:?}") };
        assert_eq!(rejected.client_order_id, ClientOrderId(1003));
        assert_eq!((rejected.instrument, rejected.command), (instrument, 1));
        assert_eq!(rejected.reason, Reason::UnknownInstrument);
    }
    assert!(desk.engine.orders().is_empty() && desk.engine.venue().is_empty());
}

#[test]
fn orders_that_break_their_instruments_rules() {
    let mut desk = exchange();
    let sound = NewOrder { instrument: GOOGL, ..order(0, Side::Buy, 150, 15) };
    let market = OrderType::Market;
    let rows = [
        (NewOrder { quantity: Quantity(0), ..sound }, Reason::InvalidQuantity),
        (NewOrder { quantity: Quantity(1 << 63), ..sound }, Reason::InvalidQuantity),
        (NewOrder { quantity: Quantity(16), ..sound }, Reason::InvalidLot),
        (NewOrder { price: Price(0), ..sound }, Reason::InvalidPrice),
        (NewOrder { price: Price(-150), ..sound }, Reason::InvalidPrice),
        (NewOrder { price: Price(151), ..sound }, Reason::InvalidTick),
        (NewOrder { order_type: market, ..sound }, Reason::InvalidCombination),
        (
            NewOrder { time_in_force: TimeInForce::Ioc, post_only: true, ..sound },
            Reason::InvalidCombination,
        ),
        (NewOrder { price: Price(i64::MAX / 5 * 5), ..sound }, Reason::MaxNotional),
    ];
    for (id, (order, reason)) in (1..).zip(rows) {
        let order = NewOrder { client_order_id: ClientOrderId(id), ..order };
        assert_eq!(refusal(&desk.send(1, order)), (1, reason), "{order:?}");
    }
    // A market order's price is not looked at.
    let client_order_id = ClientOrderId(99);
    let time_in_force = TimeInForce::Ioc;
    let order =
        NewOrder { order_type: market, price: Price(-3), time_in_force, client_order_id, ..sound };
    assert_eq!(names(&desk.send(1, order)), [(1, "Accepted"), (1, "Cancelled")]);
}

#[test]
fn a_client_beyond_the_capacity_and_one_order_too_many() {
    let mut desk = exchange();
    assert_eq!(refusal(&desk.send(10, order(1, Side::Buy, 150, 1))), (10, Reason::Capacity));
    assert_eq!(refusal(&desk.send(0, order(1, Side::Buy, 150, 1))), (0, Reason::Capacity));
    assert_eq!(refusal(&desk.send(10, cancel(1))), (10, Reason::UnknownOrder));
    for id in 1..=64 {
        assert_eq!(names(&desk.send(1, order(id, Side::Buy, 150, 1))), [(1, "Accepted")]);
    }
    assert_eq!(refusal(&desk.send(1, order(65, Side::Sell, 150, 1))).1, Reason::Capacity);
    desk.send(1, cancel(64));
    assert_eq!(names(&desk.send(1, order(66, Side::Buy, 150, 1))), [(1, "Accepted")]);
}

#[test]
fn markets_that_are_not_open() {
    let mut desk = exchange();
    desk.send(1, order(1, Side::Buy, 150, 1));
    for (state, reason) in
        [(MarketState::Halted, Reason::Halted), (MarketState::Closed, Reason::MarketClosed)]
    {
        let answers = desk.operate(SetMarketState { instrument: AAPL, state });
        let closed = state == MarketState::Closed;
        assert_eq!(answers.len(), usize::from(closed), "only closing cancels");
        let id = 10 + state as u64;
        assert_eq!(refusal(&desk.send(2, order(id, Side::Sell, 150, 1))), (2, reason));
        if !closed {
            assert_eq!(refusal(&desk.send(1, replace(1, 2, 155, 1))), (1, reason));
        }
    }
    let other = NewOrder { instrument: GOOGL, ..order(99, Side::Sell, 150, 5) };
    assert_eq!(names(&desk.send(2, other)), [(2, "Accepted")], "the other market is open");
}

/// Cancels of orders that never were, of other clients' orders, of orders that are through.
#[test]
fn unknown_order() {
    let mut desk = exchange();
    assert_eq!(refusal(&desk.send(1, cancel(1))), (1, Reason::UnknownOrder));
    assert_eq!(refusal(&desk.send(1, cancel(0))), (1, Reason::UnknownOrder));
    assert_eq!(refusal(&desk.send(1, replace(1, 2, 150, 1))), (1, Reason::UnknownOrder));
    let by_id = |id| CancelOrder { client_order_id: ClientOrderId(0), order_id: OrderId(id) };
    assert_eq!(refusal(&desk.send(1, by_id(77))), (1, Reason::UnknownOrder));

    desk.send(1, order(3, Side::Buy, 150, 1));
    let id = desk.open_ids()[0];
    let answers = desk.send(1, by_id(id));
    let cancelled = Cancelled {
        client_order_id: ClientOrderId(3),
        order_id: OrderId(id),
        quantity: Quantity(1),
        instrument: AAPL,
        side: Side::Buy,
        reason: CancelReason::Requested,
    };
    assert_eq!(answers, [(1, cancelled.into())]);
    assert_eq!(refusal(&desk.send(1, by_id(id))), (1, Reason::TooLate));
    assert_eq!(refusal(&desk.send(1, cancel(3))), (1, Reason::TooLate));
    assert_eq!(refusal(&desk.send(1, cancel(4))), (1, Reason::UnknownOrder));
    let answers = desk.send(1, replace(3, 4, 150, 1));
    let rejected = CancelRejected {
        client_order_id: ClientOrderId(4),
        order_id: OrderId(0),
        command: 3,
        reason: Reason::TooLate,
    };
    assert_eq!(answers, [(1, rejected.into())]);
}

#[test]
fn wrong_owner() {
    let mut desk = exchange();
    desk.send(1, order(3, Side::Buy, 150, 1));
    let order_id = OrderId(desk.open_ids()[0]);
    let stolen = CancelOrder { client_order_id: ClientOrderId(3), order_id };
    assert_eq!(refusal(&desk.send(2, stolen)), (2, Reason::WrongOwner));
    assert_eq!(refusal(&desk.operate(stolen)), (OPERATOR, Reason::WrongOwner));
    assert_eq!(refusal(&desk.send(2, cancel(3))), (2, Reason::UnknownOrder));
    assert_eq!(desk.engine.orders().len(), 1);
    assert_eq!(names(&desk.send(1, stolen)), [(1, "Cancelled")]);
}

/// Less at the same price stays in front; another price, or more, goes behind.
#[test]
fn a_replacement_keeps_or_loses_its_place() {
    for (price, quantity, keeps) in [(150, 5, true), (150, 11, false), (155, 5, false)] {
        let mut desk = exchange();
        desk.send(1, order(1, Side::Buy, 150, 10));
        let order_id = OrderId(desk.open_ids()[0]);
        desk.send(2, order(1, Side::Buy, price, 10));
        let replaced = Replaced {
            client_order_id: ClientOrderId(2),
            original: ClientOrderId(1),
            order_id,
            price: Price(price),
            quantity: Quantity(quantity),
            leaves: Quantity(quantity),
            instrument: AAPL,
            side: Side::Buy,
        };
        assert_eq!(desk.send(1, replace(1, 2, price, quantity)), [(1, replaced.into())]);
        let answers = desk.send(3, order(1, Side::Sell, price, 1));
        let first = if keeps { 1 } else { 2 };
        assert_eq!(names(&answers)[1], (first, "Filled"), "{price} {quantity}");
        assert_eq!(refusal(&desk.send(1, cancel(1))), (1, Reason::TooLate), "the name it had");
        assert_eq!(names(&desk.send(1, cancel(2))), [(1, "Cancelled")]);
    }
}

#[test]
fn a_replacement_counts_what_has_been_filled_and_may_trade() {
    let mut desk = exchange();
    desk.send(1, order(1, Side::Buy, 150, 10));
    desk.send(2, order(1, Side::Sell, 150, 4));
    assert_eq!(refusal(&desk.send(1, replace(1, 2, 150, 4))), (1, Reason::InvalidQuantity));
    desk.send(2, order(2, Side::Sell, 160, 3));
    let answers = desk.send(1, replace(1, 3, 160, 12));
    assert_eq!(names(&answers), [(1, "Replaced"), (2, "Filled"), (1, "Filled")]);
    let (Message::Replaced(replaced), Message::Filled(filled)) = (answers[0].1, answers[2].1)
    else {
        panic!("{answers:?}")
    };
    assert_eq!((replaced.quantity, replaced.leaves), (Quantity(12), Quantity(8)));
    assert_eq!((filled.leaves, filled.client_order_id), (Quantity(5), ClientOrderId(3)));
    assert_eq!(desk.engine.risk().figures(ClientId(1)).unwrap().reserved_buys, 160 * 5);
}

#[test]
fn replacements_are_held_against_the_rules() {
    let mut desk = exchange();
    desk.send(1, order(5, Side::Buy, 150, 10));
    let rows = [
        (replace(5, 6, 150, 0), Reason::InvalidQuantity),
        (replace(5, 7, 0, 1), Reason::InvalidPrice),
        (replace(5, 8, 151, 1), Reason::InvalidTick),
        (replace(5, 5, 150, 1), Reason::DuplicateOrder),
        (replace(5, 8, 150, 1), Reason::DuplicateOrder),
        (replace(5, 9, i64::MAX / 5 * 5, 2), Reason::MaxNotional),
    ];
    for (replace, reason) in rows {
        assert_eq!(refusal(&desk.send(1, replace)), (1, reason), "{replace:?}");
    }
    assert_eq!(desk.engine.risk().figures(ClientId(1)).unwrap().reserved_buys, 1500);
    assert_eq!(names(&desk.send(1, replace(5, 10, 155, 2))), [(1, "Replaced")]);
    assert_eq!(desk.engine.risk().figures(ClientId(1)).unwrap().reserved_buys, 310);
}

#[test]
fn a_mass_cancel_goes_through_a_clients_orders_as_they_came() {
    let mut desk = exchange();
    for id in [1, 3, 4] {
        desk.send(1, order(id, Side::Buy, 150 - 5 * id as i64, 1));
    }
    desk.send(1, NewOrder { instrument: GOOGL, ..order(5, Side::Buy, 150, 5) });
    desk.send(2, order(1, Side::Buy, 150, 1));
    let unknown = MassCancel { instrument: NOTHING };
    assert_eq!(refusal(&desk.send(1, unknown)), (1, Reason::UnknownInstrument));
    let ids = |answers: Answers| -> Vec<u64> {
        let id = |answer: &(u16, Message)| match answer.1 {
            Message::Cancelled(cancelled) => cancelled.client_order_id.0,
            _ => 0,
        };
        answers.iter().map(id).collect()
    };
    assert_eq!(ids(desk.send(1, MassCancel { instrument: AAPL })), [1, 3, 4]);
    assert_eq!(ids(desk.send(1, MassCancel { instrument: InstrumentId(0) })), [5]);
    assert_eq!(desk.send(1, MassCancel { instrument: InstrumentId(0) }), []);
    assert_eq!(desk.engine.orders().len(), 1, "the other client's");
}

/// An exchange that is slow: what is under way is pending, and goes by both names.
#[test]
fn an_order_is_pending_until_the_venue_answers() {
    let mut desk = exchange();
    desk.operate(SetVenue { latency_ns: 100, connected: true });
    assert_eq!(desk.send(1, order(1, Side::Buy, 150, 10)), []);
    assert_eq!(desk.send(1, replace(1, 2, 155, 4)), []);
    assert_eq!(refusal(&desk.send(1, replace(1, 3, 155, 4))), (1, Reason::Pending));
    let figures = desk.engine.risk().figures(ClientId(1)).unwrap();
    assert_eq!((figures.open_orders, figures.reserved_buys), (1, 1500), "the dearer of both");
    assert_eq!(desk.send(1, cancel(2)), [], "by the name it will have");
    assert_eq!(refusal(&desk.send(1, cancel(1))), (1, Reason::Pending));
    assert_eq!(refusal(&desk.send(1, replace(2, 4, 155, 4))), (1, Reason::Pending));
    let answers = desk.at(1_100);
    assert_eq!(names(&answers), [(1, "Accepted"), (1, "Replaced"), (1, "Cancelled")]);
    let figures = desk.engine.risk().figures(ClientId(1)).unwrap();
    assert_eq!((figures.open_orders, figures.reserved_buys), (0, 0));
}

/// The line breaks while a replacement is under way; the cancel behind it is refused at once, and
/// is not taken for the replacement's answer.
#[test]
fn a_cancel_refused_at_once_is_not_the_replacements_answer() {
    let mut desk = exchange();
    desk.send(1, order(1, Side::Buy, 150, 10));
    desk.operate(SetVenue { latency_ns: 100, connected: true });
    desk.send(1, replace(1, 2, 155, 10));
    desk.operate(SetVenue { latency_ns: 100, connected: false });
    let answers = desk.send(1, cancel(1));
    let [(1, Message::CancelRejected(rejected))] = answers[..] else { panic!("{answers:?}") };
    assert_eq!((rejected.command, rejected.reason), (2, Reason::VenueDown));
    desk.operate(SetVenue { latency_ns: 100, connected: true });
    assert_eq!(names(&desk.at(1_100)), [(1, "Replaced")]);
    assert_eq!(desk.engine.orders().iter().next().unwrap().price, Price(155));
}

#[test]
fn what_an_order_still_waits_for_when_it_is_through_came_too_late() {
    let mut desk = exchange();
    desk.send(1, order(1, Side::Buy, 150, 10));
    desk.operate(SetVenue { latency_ns: 100, connected: true });
    desk.send(2, order(1, Side::Sell, 150, 10));
    desk.now_ns += 1;
    desk.send(1, replace(1, 2, 155, 20));
    desk.send(1, cancel(2));
    let answers = desk.at(2_000);
    assert_eq!(
        names(&answers),
        [
            (2, "Accepted"),
            (1, "Filled"),
            (1, "CancelRejected"),
            (1, "CancelRejected"),
            (2, "Filled"),
        ]
    );
    let commands: Vec<_> = answers
        .iter()
        .filter_map(|answer| match answer.1 {
            Message::CancelRejected(r) => Some((r.command, r.client_order_id.0, r.reason)),
            _ => None,
        })
        .collect();
    assert_eq!(commands, [(3, 2, Reason::TooLate), (2, 2, Reason::TooLate)]);
    let figures = desk.engine.risk().figures(ClientId(1)).unwrap();
    assert_eq!((figures.open_orders, figures.reserved_buys), (0, 0));
}

/// What stood in the books before the open trades, and only our side hears of it.
#[test]
fn orders_from_before_the_open_are_not_ours() {
    let seeded = crate::order::venue::VenueOrder {
        order_id: OrderId(1 << 63),
        client: ClientId(0),
        instrument: AAPL,
        side: Side::Sell,
        order_type: OrderType::Limit,
        time_in_force: TimeInForce::Day,
        post_only: false,
        price: Price(150),
        quantity: Quantity(3),
        self_match: crate::order::field::SelfMatch::Allow,
    };
    let mut market = Exchange::new(8, 64);
    market.seed([seeded]).unwrap();
    let mut desk = desk(market);
    let answers = desk.send(1, order(1, Side::Buy, 150, 5));
    assert_eq!(names(&answers), [(1, "Accepted"), (1, "Filled")]);
}

/// A gateway hears what is asked, and what it brings becomes events.
#[test]
fn orders_go_through_a_gateway() {
    let mut desk = remote();
    let answers = desk.send(1, order(1, Side::Buy, 150, 10));
    let [(GATEWAY, Message::Routed(routed))] = answers[..] else { panic!("{answers:?}") };
    assert_eq!((routed.action, routed.client), (RouteAction::New, ClientId(1)));
    assert_eq!((routed.price, routed.quantity), (Price(150), Quantity(10)));
    let OrderId(id) = routed.order_id;
    assert_eq!(names(&desk.report(report(id, ReportKind::Accepted))), [(1, "Accepted")]);

    let answers = desk.send(1, replace(1, 2, 155, 12));
    let [(GATEWAY, Message::Routed(routed))] = answers[..] else { panic!("{answers:?}") };
    assert_eq!((routed.action, routed.client_order_id), (RouteAction::Replace, ClientOrderId(2)));
    assert_eq!((routed.price, routed.quantity), (Price(155), Quantity(12)));

    // Filled before the venue heard of the replacement: its total counts that.
    let fill = VenueReport { match_id: 71, ..report(id, ReportKind::Filled) };
    let fill = VenueReport { price: Price(150), quantity: Quantity(3), ..fill };
    let answers = desk.report(fill);
    let [(1, Message::Filled(filled))] = answers[..] else { panic!("{answers:?}") };
    assert_eq!((filled.leaves, filled.client_order_id), (Quantity(7), ClientOrderId(1)));
    let changed = report(id, ReportKind::Replaced);
    let changed = VenueReport { price: Price(155), quantity: Quantity(12), ..changed };
    let answers = desk.report(changed);
    let [(1, Message::Replaced(replaced))] = answers[..] else { panic!("{answers:?}") };
    assert_eq!((replaced.quantity, replaced.leaves), (Quantity(12), Quantity(9)));
    assert_eq!(desk.engine.risk().figures(ClientId(1)).unwrap().reserved_buys, 155 * 9);

    let answers = desk.send(1, cancel(2));
    let [(GATEWAY, Message::Routed(routed))] = answers[..] else { panic!("{answers:?}") };
    assert_eq!(routed.action, RouteAction::Cancel);
    let answers = desk.report(report(id, ReportKind::Cancelled));
    let [(1, Message::Cancelled(cancelled))] = answers[..] else { panic!("{answers:?}") };
    assert_eq!((cancelled.reason, cancelled.quantity), (CancelReason::Requested, Quantity(9)));
    assert!(desk.engine.orders().is_empty());
}

/// While a change is under way, the venue may have traded at either limit.
#[test]
fn a_fill_is_within_the_limit_or_the_one_asked_for() {
    for (side, other, within, beyond) in
        [(Side::Buy, 160, 155, 161), (Side::Sell, 140, 145, 139), (Side::Buy, 140, 150, 151)]
    {
        let mut desk = remote();
        desk.send(1, order(1, side, 150, 10));
        let id = desk.open_ids()[0];
        desk.report(report(id, ReportKind::Accepted));
        desk.send(1, replace(1, 2, other, 10));
        let mut fill = |match_id, price| {
            let fill = VenueReport { match_id, ..report(id, ReportKind::Filled) };
            desk.report(VenueReport { price: Price(price), quantity: Quantity(1), ..fill })
        };
        assert_eq!(refusal(&fill(1, beyond)), (GATEWAY, Reason::InvalidPrice));
        assert_eq!(names(&fill(1, within)), [(1, "Filled")]);
    }
}

/// A cancel is answered by the name that it named, though the order has another one by then.
#[test]
fn a_refused_cancel_is_answered_by_the_name_it_gave() {
    let mut desk = remote();
    desk.send(1, order(1, Side::Buy, 150, 10));
    let id = desk.open_ids()[0];
    desk.report(report(id, ReportKind::Accepted));
    desk.send(1, replace(1, 2, 155, 10));
    desk.send(1, cancel(1));
    let changed = report(id, ReportKind::Replaced);
    desk.report(VenueReport { price: Price(155), quantity: Quantity(10), ..changed });
    let answers = desk.report(report(id, ReportKind::CancelRejected));
    let [(1, Message::CancelRejected(rejected))] = answers[..] else { panic!("{answers:?}") };
    assert_eq!((rejected.command, rejected.client_order_id), (2, ClientOrderId(1)));
}

/// Reports that cannot be true change nothing, and their gateway is told.
#[test]
fn a_gateways_reports_are_held_against_the_order() {
    let mut desk = remote();
    desk.send(1, order(1, Side::Buy, 150, 10));
    let id = desk.open_ids()[0];
    let fill = |match_id, price, quantity| VenueReport {
        match_id,
        price: Price(price),
        quantity: Quantity(quantity),
        ..report(id, ReportKind::Filled)
    };
    // A fill of an order that was not accepted accepts it.
    assert_eq!(names(&desk.report(fill(5, 150, 2))), [(1, "Accepted"), (1, "Filled")]);
    let rows = [
        (report(99, ReportKind::Accepted), Reason::UnknownOrder),
        (report(id - 1, ReportKind::Cancelled), Reason::TooLate),
        (report(id, ReportKind::Accepted), Reason::DuplicateOrder),
        (report(id, ReportKind::Rejected), Reason::TooLate),
        (fill(5, 150, 2), Reason::DuplicateOrder),
        (fill(6, 150, 0), Reason::InvalidQuantity),
        (fill(6, 150, 9), Reason::InvalidQuantity),
        (fill(6, 0, 1), Reason::InvalidPrice),
        (fill(6, 151, 1), Reason::InvalidPrice),
        (fill(6, i64::MAX, 2), Reason::InvalidPrice),
        (report(id, ReportKind::Replaced), Reason::InvalidQuantity),
        (
            VenueReport { quantity: Quantity(9), ..report(id, ReportKind::Replaced) },
            Reason::InvalidCombination,
        ),
        (report(id, ReportKind::CancelRejected), Reason::InvalidCombination),
    ];
    let before = desk.saved();
    for (brought, reason) in rows {
        let answers = desk.report(brought);
        let [(GATEWAY, Message::Rejected(rejected))] = answers[..] else { panic!("{answers:?}") };
        assert_eq!((rejected.command, rejected.reason), (32, reason), "{brought:?}");
        assert_eq!(rejected.order_id, brought.order_id);
        assert!(desk.saved() == before, "{brought:?}");
    }
    assert_eq!(names(&desk.report(fill(6, 145, 8))), [(1, "Filled")]);
    assert_eq!(refusal(&desk.report(fill(7, 145, 1))), (GATEWAY, Reason::TooLate));
    assert_eq!(desk.engine.risk().position(ClientId(1), AAPL), 10);
}

#[test]
fn a_gateway_that_cannot_be_reached_refuses_for_its_venue() {
    let mut desk = remote();
    desk.send(1, order(1, Side::Buy, 150, 10));
    desk.operate(SetVenue { latency_ns: 0, connected: false });
    assert_eq!(refusal(&desk.send(1, order(2, Side::Buy, 150, 10))), (1, Reason::VenueDown));
    assert_eq!(refusal(&desk.send(1, replace(1, 3, 155, 1))), (1, Reason::VenueDown));
    assert_eq!(refusal(&desk.send(1, cancel(1))), (1, Reason::VenueDown));
    let figures = desk.engine.risk().figures(ClientId(1)).unwrap();
    assert_eq!((figures.open_orders, figures.reserved_buys), (1, 1500));
    desk.operate(SetVenue { latency_ns: 0, connected: true });
    assert_eq!(names(&desk.send(1, cancel(1))), [(GATEWAY, "Routed")]);
}

fn desk<V: Venue>(venue: V) -> Desk<V> {
    Desk::open(crate::order::Engine::new(CAPACITY, venue))
}
