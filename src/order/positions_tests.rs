//! Positions: the rule by hand, its conservation by chance, and what makes no sense.

use proptest::prelude::*;

use super::super::field::{ClientOrderId, Liquidity, OrderId, Reason};
use super::super::messages::{CancelRejected, Rejected};
use super::super::stream_tests::{AAPL, OPERATOR, Stream, define, filled, new_order, rejected};
use super::*;

const USER: ClientId = ClientId(501);

fn fold(stream: &Stream) -> Positions {
    let mut positions = Positions::new();
    for record in stream.records() {
        positions.apply(&record).unwrap();
    }
    positions
}

/// AAPL defined, and then these trades of [`USER`]: side, quantity, price.
fn traded(trades: &[(Side, u64, i64)]) -> Stream {
    let mut stream = Stream::default();
    stream.command(OPERATOR, 1, define(AAPL, "AAPL"));
    for (own, &(side, quantity, price)) in (1..).zip(trades) {
        let order = new_order(own, side, quantity, price);
        let id = stream.command(USER, own, order);
        stream.event(USER, id, filled(&order, id, quantity, 0));
    }
    stream
}

fn position(trades: &[(Side, u64, i64)]) -> Position {
    *fold(&traded(trades)).get(USER, AAPL).unwrap()
}

#[test]
fn order_placed_1001_of_user_501_moves_the_position() {
    let mut stream = Stream::default();
    stream.command(OPERATOR, 1, define(AAPL, "AAPL"));
    let order = new_order(1001, Side::Buy, 10, 15_000);
    let id = stream.command(USER, 1, order);
    assert_eq!(fold(&stream).get(USER, AAPL), None);
    stream.event(USER, id, filled(&order, id, 10, 0));
    let positions = fold(&stream);
    let expected = Position {
        quantity: 10,
        bought: Quantity(10),
        cost: Money(150_000),
        fees: Money(1),
        fills: 1,
        ..Position::default()
    };
    assert_eq!(positions.get(USER, AAPL), Some(&expected));
    assert_eq!(positions.iter().collect::<Vec<_>>(), [(USER, AAPL, &expected)]);
    assert_eq!(positions.open_profit(USER, AAPL), Some(Money(0)));
    assert_eq!(expected.average_price(1), Some(Price(15_000)));
}

#[test]
fn duplicate_orders_move_the_position_once() {
    let mut stream = traded(&[(Side::Buy, 15, 100)]);
    let again = new_order(1, Side::Buy, 15, 100);
    let id = stream.command(USER, 2, again);
    stream.event(USER, id, rejected(&again, Reason::DuplicateOrder));
    assert_eq!(fold(&stream).get(USER, AAPL).unwrap().quantity, 15);
}

#[test]
fn closing_realises_in_proportion_and_keeps_the_remainder() {
    // 3 held for 100: closing one takes 33 off, then 33, and the last takes 34.
    let open = [(Side::Buy, 2, 33), (Side::Buy, 1, 34)];
    let mut trades = open.to_vec();
    for (cost, realised) in [(67, 7), (34, 14), (0, 20)] {
        trades.push((Side::Sell, 1, 40));
        let at = position(&trades);
        assert_eq!((at.cost, at.realised), (Money(cost), Money(realised)));
    }
}

#[test]
fn a_fill_through_zero_closes_and_opens_the_other_way() {
    let at = position(&[(Side::Buy, 4, 10), (Side::Sell, 6, 12)]);
    assert_eq!((at.quantity, at.cost, at.realised), (-2, Money(-24), Money(8)));
    assert_eq!(
        (at.bought, at.sold, at.average_price(1)),
        (Quantity(4), Quantity(6), Some(Price(12)))
    );
    assert_eq!(at.open_profit(Price(10), 1), Some(Money(4)));
    let flat = position(&[(Side::Sell, 2, 12), (Side::Buy, 2, 15)]);
    assert_eq!((flat.cost, flat.realised, flat.average_price(1)), (Money(0), Money(-6), None));
}

#[test]
fn the_last_price_marks_whoever_traded_or_said_it() {
    let mut stream = traded(&[(Side::Buy, 4, 100)]);
    let reference = SetReference { price: Price(90), instrument: AAPL };
    stream.command(OPERATOR, 2, reference);
    assert_eq!(fold(&stream).open_profit(USER, AAPL), Some(Money(0)), "it may yet be rejected");
    stream.put(Kind::Time, 0, ClientId::NONE, 0, &[]);
    assert_eq!(fold(&stream).open_profit(USER, AAPL), Some(Money(-40)));
    let other = new_order(1, Side::Sell, 1, 130);
    stream.event(ClientId(7), 0, filled(&other, 9, 1, 0));
    assert_eq!(fold(&stream).open_profit(USER, AAPL), Some(Money(120)));
}

#[test]
fn a_rejected_definition_or_price_does_not_count() {
    let mut stream = traded(&[(Side::Buy, 4, 100)]);
    for message in [
        SetReference { price: Price(1), instrument: AAPL }.into(),
        Message::from(DefineInstrument { multiplier: 50, ..define(AAPL, "AAPL") }),
        define(InstrumentId(2), "GOOGL").into(),
    ] {
        let id = stream.command(USER, 9, message);
        let rejected = Rejected {
            client_order_id: Default::default(),
            order_id: Default::default(),
            instrument: InstrumentId(0),
            command: Message::template_of(stream.record(id).payload).unwrap(),
            reason: Reason::NotAuthorised,
        };
        stream.event(USER, id, rejected);
    }
    let positions = fold(&stream);
    let listed = positions.instrument(AAPL).unwrap();
    assert_eq!((listed.multiplier, listed.mark), (1, Some(Price(100))));
    assert_eq!(positions.instrument(InstrumentId(2)), None);
}

#[test]
fn the_multiplier_is_in_all_money() {
    let mut stream = Stream::default();
    stream.command(OPERATOR, 1, DefineInstrument { multiplier: 50, ..define(AAPL, "AAPL") });
    let order = new_order(1, Side::Sell, 3, 20);
    let id = stream.command(USER, 1, order);
    stream.event(USER, id, filled(&order, id, 3, 0));
    let positions = fold(&stream);
    let at = positions.get(USER, AAPL).unwrap();
    assert_eq!((at.cost, at.average_price(50)), (Money(-3_000), Some(Price(20))));
    assert_eq!(at.open_profit(Price(21), 50), Some(Money(-150)));
}

#[test]
fn what_makes_no_sense_is_counted_and_left_out() {
    let mut stream = traded(&[(Side::Buy, 4, 100)]);
    let mut positions = fold(&stream);
    let before = *positions.get(USER, AAPL).unwrap();
    let fine = filled(&new_order(5, Side::Buy, 1, 1), 9, 1, 0);
    let stranger = Filled { instrument: InstrumentId(9), ..fine };
    let huge = Filled { price: Price(i64::MAX), quantity: Quantity(3), ..fine };
    let odd = stream.put(Kind::Event, 0, USER, 0, b"no message");
    let unknown = stream.event(USER, 0, stranger);
    let large = stream.event(USER, 0, huge);
    let larger = stream.event(USER, 0, Filled { quantity: Quantity(u64::MAX), ..fine });
    let nobody = stream.event(ClientId::NONE, 0, fine);
    let mut found = Vec::new();
    for record in stream.records().skip(3) {
        found.extend(positions.apply(&record).err());
    }
    let (client, instrument) = (USER, AAPL);
    let error = Message::decode(b"no message").unwrap_err();
    assert_eq!(
        found,
        [
            Anomaly::Unreadable { sequence: odd, error },
            Anomaly::UnknownInstrument { sequence: unknown, instrument: InstrumentId(9) },
            Anomaly::Overflow { sequence: large, client, instrument },
            Anomaly::Overflow { sequence: larger, client, instrument },
            Anomaly::Nobody { sequence: nobody },
        ]
    );
    let again = positions.apply(&stream.record(nobody));
    assert_eq!(again, Err(Anomaly::Repeated { sequence: nobody, last: nobody }));
    let late = Record { sequence: nobody + 3, ..stream.record(1) };
    let gap = Anomaly::Skipped { from: nobody + 1, until: nobody + 2 };
    assert_eq!(positions.apply(&late), Err(gap));
    assert_eq!(positions.get(USER, AAPL), Some(&before));
    assert_eq!(positions.anomalies().total(), 7);
    assert!(found.iter().all(|anomaly| !anomaly.to_string().is_empty()));
}

#[test]
fn a_redefinition_that_mixes_sums_is_named() {
    let mut stream = traded(&[(Side::Buy, 4, 100)]);
    let id =
        stream.command(OPERATOR, 2, DefineInstrument { price_exponent: -4, ..define(AAPL, "A") });
    stream.put(Kind::Time, 0, ClientId::NONE, 0, &[]);
    let mut positions = Positions::new();
    let found: Vec<_> = stream.records().filter_map(|r| positions.apply(&r).err()).collect();
    assert_eq!(found, [Anomaly::Redefined { sequence: id, instrument: AAPL }]);
}

#[test]
fn a_saved_state_goes_on_as_if_nothing_had_been() {
    let mut stream = traded(&[(Side::Buy, 4, 100), (Side::Sell, 7, 120)]);
    stream.command(OPERATOR, 2, SetReference { price: Price(90), instrument: AAPL });
    stream.put(Kind::Time, 0, ClientId::NONE, 0, &[]);
    let full = fold(&stream);
    let mut saved = Positions::new();
    for record in stream.records() {
        let mut bytes = Vec::new();
        saved.save(&mut bytes);
        let mut image = ImageReader::new(&bytes);
        saved = Positions::load(&mut image).unwrap();
        image.finish("nothing more").unwrap();
        for short in 0..bytes.len() {
            assert!(Positions::load(&mut ImageReader::new(&bytes[..short])).is_err());
        }
        saved.apply(&record).unwrap();
    }
    assert_eq!(saved, full);
    let (mut one, mut other) = (Vec::new(), Vec::new());
    saved.save(&mut one);
    full.save(&mut other);
    assert_eq!(one, other);
}

proptest! {
    #[test]
    fn money_is_conserved_to_the_last_unit(
        multiplier in 1..1_000u64,
        trades in prop::collection::vec((any::<bool>(), 1..1_000u64, -50..10_000i64), 1..200),
    ) {
        let (mut position, mut held, mut cash) = (Position::default(), 0, 0);
        for (buy, quantity, price) in trades {
            let side = if buy { Side::Buy } else { Side::Sell };
            let order = new_order(1, side, quantity, price);
            let fill = Filled { liquidity: Liquidity::Maker, ..filled(&order, 1, quantity, 0) };
            position = position.after(&fill, multiplier).unwrap();
            let signed = if buy { quantity as i64 } else { -(quantity as i64) };
            held += signed;
            cash -= signed * price * multiplier as i64;
            prop_assert_eq!(position.quantity, held);
            prop_assert_eq!(position.realised.0 - position.cost.0, cash);
            prop_assert!(held != 0 || position.cost == Money(0));
            prop_assert_eq!(position.bought.0 as i64 - position.sold.0 as i64, held);
        }
    }
}

#[test]
fn no_reference_leaves_the_mark() {
    let mut stream = traded(&[(Side::Buy, 4, 100)]);
    stream.command(OPERATOR, 2, SetReference { price: Price(90), instrument: AAPL });
    stream.command(OPERATOR, 3, SetReference { price: Price(0), instrument: AAPL });
    stream.put(Kind::Time, 0, ClientId::NONE, 0, &[]);
    let positions = fold(&stream);
    assert_eq!(positions.instrument(AAPL).unwrap().mark, Some(Price(90)));
    assert_eq!(positions.open_profit(USER, AAPL), Some(Money(-40)));
}

#[test]
fn a_definition_stands_though_what_was_due_with_it_is_refused() {
    let mut stream = Stream::default();
    let definition = stream.command(OPERATOR, 1, define(AAPL, "AAPL"));
    for (client, command) in [(USER, 2), (OPERATOR, 2), (OPERATOR, 0)] {
        let refused = CancelRejected {
            client_order_id: ClientOrderId(1),
            order_id: OrderId(1),
            command,
            reason: Reason::VenueDown,
        };
        stream.event(client, definition, refused);
    }
    let reference =
        stream.command(OPERATOR, 2, SetReference { price: Price(90), instrument: AAPL });
    let breach = CancelRejected {
        client_order_id: ClientOrderId(1),
        order_id: OrderId(1),
        command: 0,
        reason: Reason::VenueDown,
    };
    stream.event(USER, reference, breach);
    stream.put(Kind::Time, 0, ClientId::NONE, 0, &[]);
    assert_eq!(fold(&stream).instrument(AAPL).unwrap().mark, Some(Price(90)));
    // Its own rejection counts.
    let no = Rejected {
        client_order_id: ClientOrderId(0),
        order_id: OrderId(0),
        instrument: InstrumentId(0),
        command: SetReference::TEMPLATE_ID,
        reason: Reason::NotAuthorised,
    };
    let unheard = stream.command(USER, 3, SetReference { price: Price(80), instrument: AAPL });
    stream.event(USER, unheard, no);
    stream.put(Kind::Time, 0, ClientId::NONE, 0, &[]);
    assert_eq!(fold(&stream).instrument(AAPL).unwrap().mark, Some(Price(90)));
}
