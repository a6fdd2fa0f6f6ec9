//! Operators' commands, and clients that break a limit or are gone.

use crate::order::engine::tests::*;
use crate::order::engine::{CANCEL_TRIES_MAX, VENUE_LATENCY_MAX_NS};
use crate::order::field::{
    CancelReason, InstrumentId, MarketState, Money, Price, Quantity, Reason, ReportKind, Side,
};
use crate::order::messages::{
    Breached, Cancelled, KillSwitch, Message, NewOrder, SetLimits, SetMarketState, SetReference,
    SetVenue,
};
use crate::sequencer::{Application, ClientId};

fn why(answers: &Answers) -> Vec<(u16, u64, CancelReason)> {
    let why = |answer: &(u16, Message)| match answer.1 {
        Message::Cancelled(Cancelled { client_order_id, reason, .. }) => {
            Some((answer.0, client_order_id.0, reason))
        }
        _ => None,
    };
    answers.iter().filter_map(why).collect()
}

#[test]
fn a_kill_switch_stops_and_cancels() {
    let mut desk = exchange();
    let kill = |client, engaged, cancel_open| KillSwitch {
        client: ClientId(client),
        engaged,
        cancel_open,
    };
    for client in [2, 1] {
        for id in [1, 2] {
            desk.send(client, order(id, Side::Buy, 150, 1));
        }
    }
    let stopped = CancelReason::KillSwitch;
    assert_eq!(desk.operate(kill(1, true, false)), []);
    assert_eq!(refusal(&desk.send(1, order(3, Side::Buy, 150, 1))), (1, Reason::KillSwitch));
    assert_eq!(refusal(&desk.send(1, replace(2, 4, 150, 1))), (1, Reason::KillSwitch));
    assert_eq!(names(&desk.send(1, cancel(2))), [(1, "Cancelled")], "cancels are taken");
    assert_eq!(why(&desk.operate(kill(1, true, true))), [(1, 1, stopped)]);
    assert_eq!(desk.operate(kill(1, false, true)), []);
    desk.send(1, order(5, Side::Buy, 150, 1));
    let everybody = [(1, 5, stopped), (2, 1, stopped), (2, 2, stopped)];
    assert_eq!(why(&desk.operate(kill(0, true, true))), everybody);
    assert_eq!(refusal(&desk.send(2, order(9, Side::Buy, 150, 1))), (2, Reason::KillSwitch));
    assert_eq!(refusal(&desk.operate(kill(10, true, true))), (OPERATOR, Reason::Capacity));
}

/// Cancels that the venue refuses are said to the orders' clients.
#[test]
fn a_kill_switch_that_the_venue_does_not_hear() {
    let mut desk = exchange();
    desk.send(1, order(1, Side::Buy, 150, 1));
    desk.operate(SetVenue { latency_ns: 0, connected: false });
    let answers =
        desk.operate(KillSwitch { client: ClientId(1), engaged: true, cancel_open: true });
    let [(1, Message::CancelRejected(rejected))] = answers[..] else { panic!("{answers:?}") };
    assert_eq!((rejected.command, rejected.reason), (18, Reason::VenueDown));
    assert_eq!(desk.engine.orders().len(), 1);
}

/// A client is gone while the venue is down: its orders go as soon as the venue is back.
#[test]
fn what_must_go_is_asked_for_again() {
    let line = |latency_ns, connected| SetVenue { latency_ns, connected };
    let mut desk = exchange();
    desk.send(1, order(1, Side::Buy, 150, 1));
    desk.operate(line(0, false));
    assert_eq!(names(&desk.gone(1)), [(1, "CancelRejected")]);
    assert_eq!(refusal(&desk.send(1, replace(1, 2, 155, 1))), (1, Reason::Pending));
    assert_eq!(why(&desk.operate(line(0, true))), [(1, 1, CancelReason::Disconnected)]);

    // Refused only when it was due; the copy was saved in between.
    desk.send(1, order(3, Side::Buy, 150, 1));
    desk.operate(line(100, true));
    assert_eq!(desk.gone(1), []);
    desk.operate(line(0, false));
    assert_eq!(names(&desk.at(2_000)), [(1, "CancelRejected")]);
    let saved = desk.saved();
    let mut desk = exchange();
    desk.engine.load(&saved).unwrap();
    assert_eq!(why(&desk.operate(line(0, true))), [(1, 3, CancelReason::Disconnected)]);
}

/// A kill switch behind a cancel of the client's own, which the venue then refuses; and a venue
/// that refuses for ever.
#[test]
fn what_must_go_is_asked_for_behind_the_clients_own_cancel() {
    let mut desk = remote();
    desk.send(1, order(1, Side::Buy, 150, 1));
    let id = desk.open_ids()[0];
    desk.report(report(id, ReportKind::Accepted));
    desk.send(1, cancel(1));
    assert_eq!(
        desk.operate(KillSwitch { client: ClientId(1), engaged: true, cancel_open: true }),
        []
    );
    let refused = [(1, "CancelRejected"), (GATEWAY, "Routed")];
    for _ in 0..CANCEL_TRIES_MAX {
        assert_eq!(names(&desk.report(report(id, ReportKind::CancelRejected))), refused);
    }
    assert_eq!(names(&desk.report(report(id, ReportKind::CancelRejected))), refused[..1]);
    let again = desk.operate(SetVenue { latency_ns: 0, connected: true });
    assert_eq!(names(&again), refused[1..]);
    let answers = desk.report(report(id, ReportKind::Cancelled));
    assert_eq!(why(&answers), [(1, 1, CancelReason::KillSwitch)]);
}

#[test]
fn a_venue_is_at_most_a_minute_away() {
    let mut desk = exchange();
    let line = |latency_ns| SetVenue { latency_ns, connected: true };
    assert_eq!(desk.operate(line(VENUE_LATENCY_MAX_NS)), []);
    let saved = desk.saved();
    let farther = desk.operate(line(VENUE_LATENCY_MAX_NS + 1));
    assert_eq!(refusal(&farther), (OPERATOR, Reason::InvalidLimit));
    assert!(desk.saved() == saved);
}

/// A gateway that is gone takes no orders; what it was to be asked for waits until it is back.
#[test]
fn a_gateway_that_is_gone_is_a_venue_that_is_down() {
    let mut desk = remote();
    desk.send(1, order(1, Side::Buy, 150, 1));
    assert_eq!(desk.gone(GATEWAY), []);
    assert_eq!(refusal(&desk.send(1, order(2, Side::Buy, 150, 1))), (1, Reason::VenueDown));
    assert_eq!(desk.operate(SetVenue { latency_ns: 0, connected: true }), []);
    assert_eq!(refusal(&desk.send(1, order(3, Side::Buy, 150, 1))), (1, Reason::VenueDown));
    assert_eq!(names(&desk.gone(1)), [(1, "CancelRejected")]);
    let (saved, sequence) = (desk.saved(), desk.sequence);
    let mut desk = remote();
    desk.engine.load(&saved).unwrap();
    desk.sequence = sequence;
    assert_eq!(refusal(&desk.send(2, order(1, Side::Buy, 150, 1))), (2, Reason::VenueDown));
    assert_eq!(desk.here(1), []);
    assert_eq!(names(&desk.here(GATEWAY)), [(GATEWAY, "Routed")]);
    assert_eq!(names(&desk.send(2, order(2, Side::Buy, 150, 1))), [(GATEWAY, "Routed")]);
    // What operators say holds as well.
    desk.operate(SetVenue { latency_ns: 0, connected: false });
    desk.gone(GATEWAY);
    desk.here(GATEWAY);
    assert_eq!(refusal(&desk.send(2, order(3, Side::Buy, 150, 1))), (2, Reason::VenueDown));
}

#[test]
fn a_closing_market_cancels_what_is_open_in_it() {
    let mut desk = exchange();
    desk.send(2, order(1, Side::Buy, 150, 1));
    desk.send(1, order(1, Side::Buy, 150, 1));
    desk.send(1, NewOrder { instrument: GOOGL, ..order(2, Side::Buy, 150, 5) });
    let close = |instrument| SetMarketState { instrument, state: MarketState::Closed };
    let closed = CancelReason::MarketClosed;
    assert_eq!(why(&desk.operate(close(AAPL))), [(1, 1, closed), (2, 1, closed)]);
    assert_eq!(why(&desk.operate(close(InstrumentId(0)))), [(1, 2, closed)]);
    assert_eq!(refusal(&desk.operate(close(NOTHING))), (OPERATOR, Reason::UnknownInstrument));
}

/// The client is gone: its orders are cancelled, but where its limits say otherwise.
#[test]
fn disconnect_cancels() {
    let mut desk = exchange();
    desk.operate(SetLimits { cancel_on_disconnect: false, ..limits(2) });
    for client in [1, 2] {
        desk.send(client, order(1, Side::Buy, 150, 1));
        desk.send(client, order(2, Side::Buy, 155, 1));
    }
    let gone = CancelReason::Disconnected;
    assert_eq!(why(&desk.gone(1)), [(1, 1, gone), (1, 2, gone)]);
    assert_eq!(desk.gone(2), []);
    assert_eq!(desk.gone(77), []);
    assert_eq!(desk.engine.orders().open(ClientId(2)), 2);
}

#[test]
fn a_loss_that_is_too_large_stops_and_cancels() {
    let mut desk = exchange();
    let strict = SetLimits { max_loss: Money(100), stop_on_breach: true, ..limits(1) };
    desk.operate(strict);
    desk.send(1, order(1, Side::Buy, 200, 10));
    desk.send(2, order(1, Side::Sell, 200, 10)); // 10 at 200
    desk.send(1, order(2, Side::Buy, 100, 1));
    desk.send(1, order(3, Side::Buy, 185, 5));
    let answers = desk.send(2, order(2, Side::Sell, 185, 5)); // 10 are worth 150 less
    let expected = [
        (2, "Accepted"),
        (1, "Filled"),
        (1, "Breached"),
        (2, "Filled"),
        (1, "Cancelled"), // what was open of it
    ];
    assert_eq!(names(&answers), expected);
    assert_eq!(why(&answers), [(1, 2, CancelReason::Breach)]);
    let breached =
        Breached { value: Money(150), limit: Money(100), reason: Reason::LossLimit, stopped: true };
    assert_eq!(answers[2].1, breached.into());
    assert_eq!(refusal(&desk.send(1, order(4, Side::Sell, 185, 1))), (1, Reason::KillSwitch));
}

/// A breach in the middle of an order's own fills: the rest of it is cancelled, and nothing else is
/// said of it.
#[test]
fn a_breach_cancels_the_rest_of_the_order_that_broke_it() {
    let mut desk = exchange();
    desk.operate(SetLimits { max_loss: Money(1), stop_on_breach: true, ..limits(1) });
    desk.send(2, order(1, Side::Sell, 150, 1));
    desk.send(2, order(2, Side::Buy, 100, 1));
    desk.send(1, order(1, Side::Buy, 150, 1));
    let answers = desk.send(1, order(2, Side::Sell, 100, 3)); // one lost 50
    let expected =
        [(1, "Accepted"), (2, "Filled"), (1, "Filled"), (1, "Breached"), (1, "Cancelled")];
    assert_eq!(names(&answers), expected);
    assert_eq!(why(&answers), [(1, 2, CancelReason::Breach)]);

    // Through at once: its cancel is refused by the venue, and that is no news.
    let mut desk = exchange();
    desk.operate(SetLimits { max_loss: Money(1), stop_on_breach: true, ..limits(1) });
    desk.send(2, order(1, Side::Sell, 150, 3));
    desk.send(2, order(2, Side::Buy, 100, 1));
    desk.send(2, order(3, Side::Buy, 95, 1));
    desk.send(1, order(1, Side::Buy, 150, 3));
    let answers = desk.send(1, order(2, Side::Sell, 95, 2));
    let expected = [
        (1, "Accepted"),
        (2, "Filled"),
        (1, "Filled"),
        (1, "Breached"),
        (2, "Filled"),
        (1, "Filled"),
    ];
    assert_eq!(names(&answers), expected);
}

#[test]
fn a_reference_price_and_new_limits_can_break_a_limit_as_well() {
    let mut desk = exchange();
    desk.send(1, order(1, Side::Buy, 200, 10));
    desk.send(2, order(1, Side::Sell, 200, 10));
    desk.send(1, order(2, Side::Buy, 100, 1));
    desk.operate(SetLimits { max_loss: Money(100), stop_on_breach: true, ..limits(1) });
    let fall = |price| SetReference { price: Price(price), instrument: AAPL };
    assert_eq!(desk.operate(fall(190)), []);
    assert_eq!(names(&desk.operate(fall(185))), [(1, "Breached"), (1, "Cancelled")]);
    assert_eq!(desk.operate(fall(180)), [], "said once");
    let answers = desk.operate(SetLimits { max_loss: Money(5), ..limits(2) });
    assert_eq!(answers, [], "client 2 has won");
    assert_eq!(names(&desk.operate(fall(205))), [(2, "Breached")], "and is not stopped");
    let unknown = SetReference { price: Price(1), instrument: NOTHING };
    assert_eq!(refusal(&desk.operate(unknown)).1, Reason::UnknownInstrument);
    assert_eq!(refusal(&desk.operate(fall(-1))).1, Reason::InvalidPrice);
}

#[test]
fn an_instrument_in_use_is_not_defined_anew() {
    let mut desk = exchange();
    desk.send(1, order(1, Side::Buy, 150, 1));
    assert_eq!(refusal(&desk.operate(define(AAPL, "APPL", 1))).1, Reason::OpenOrders);
    desk.send(2, order(1, Side::Sell, 150, 1));
    assert_eq!(refusal(&desk.operate(define(AAPL, "APPL", 1))).1, Reason::PositionLimit);
    desk.send(1, order(2, Side::Sell, 150, 1));
    desk.send(2, order(2, Side::Buy, 150, 1));
    assert_eq!(desk.operate(define(AAPL, "APPL", 2)), []);
    assert_eq!(desk.engine.instruments().get(AAPL).unwrap().lot, Quantity(2));
    assert_eq!(refusal(&desk.operate(define(AAPL, "GOOGL", 2))).1, Reason::Malformed);
    assert_eq!(refusal(&desk.operate(define(InstrumentId(9), "X", 1))).1, Reason::Capacity);
}

#[test]
fn limits_are_held_before_the_venue_hears() {
    let mut desk = exchange();
    let wrong = SetLimits { max_loss: Money(-1), ..limits(1) };
    assert_eq!(refusal(&desk.operate(wrong)), (OPERATOR, Reason::InvalidLimit));
    assert_eq!(refusal(&desk.operate(limits(10))), (OPERATOR, Reason::Capacity));
    desk.operate(SetLimits { max_open_orders: 1, max_quantity: Quantity(5), ..limits(1) });
    assert_eq!(refusal(&desk.send(1, order(1, Side::Buy, 150, 6))), (1, Reason::MaxQuantity));
    desk.send(1, order(2, Side::Buy, 150, 5));
    assert_eq!(refusal(&desk.send(1, order(3, Side::Buy, 150, 1))), (1, Reason::OpenOrders));
    assert_eq!(refusal(&desk.send(1, replace(2, 4, 150, 6))), (1, Reason::MaxQuantity));
    // What the venue refuses is given back.
    desk.send(1, cancel(2));
    desk.operate(SetVenue { latency_ns: 0, connected: false });
    assert_eq!(refusal(&desk.send(1, order(5, Side::Buy, 150, 1))), (1, Reason::VenueDown));
    desk.operate(SetVenue { latency_ns: 0, connected: true });
    assert_eq!(names(&desk.send(1, order(6, Side::Buy, 150, 1))), [(1, "Accepted")]);
}
