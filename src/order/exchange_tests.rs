//! The exchange beside one book for each instrument, its line, and its saved state.

use proptest::prelude::*;

use super::*;
use crate::order::{Book, Level, Liquidity};

const INSTRUMENTS: usize = 3;
const ORDERS: usize = 24;

/// What is asked of an exchange, and when: so many ns after the one before it.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Submit(VenueOrder),
    Cancel(OrderId),
    Replace(OrderId, Price, Quantity),
    Advance(u64),
    Set(bool, u64),
}

fn order(order_id: u64, instrument: u32, side: Side, price: i64, quantity: u64) -> VenueOrder {
    VenueOrder {
        order_id: OrderId(order_id),
        client: ClientId(order_id as u16 % 5),
        instrument: InstrumentId(instrument),
        side,
        order_type: OrderType::Limit,
        time_in_force: TimeInForce::Day,
        post_only: false,
        price: Price(price),
        quantity: Quantity(quantity),
        self_match: SelfMatch::CancelStanding,
    }
}

fn asks(line: bool) -> impl Strategy<Value = Vec<Ask>> {
    let orders = (1..=INSTRUMENTS as u32 + 1, prop::sample::select(Side::ALL), 1..=9_u64, 1..9_u64)
        .prop_map(|(instrument, side, price, quantity)| {
            Ask::Submit(order(0, instrument, side, price as i64, quantity))
        });
    let changes = (0..40_u64, 1..=9_i64, 0..9_u64).prop_map(|(back, price, leaves)| {
        Ask::Replace(OrderId(back), Price(price), Quantity(leaves))
    });
    let cancels = (0..40_u64).prop_map(|back| Ask::Cancel(OrderId(back)));
    let often = if line { 4 } else { 1 };
    let settings = (prop::bool::weighted(0.7), prop::sample::select(&[0_u64, 0, 5, 40][..]));
    let one = prop_oneof![
        10 => orders,
        3 => changes,
        3 => cancels,
        often => (0..30_u64).prop_map(Ask::Advance),
        often => settings.prop_map(move |(connected, latency_ns)| match line {
            true => Ask::Set(connected, latency_ns),
            false => Ask::Set(true, 0),
        }),
    ];
    prop::collection::vec(one, 0..600).prop_map(|mut asks| {
        let mut last = 0;
        for ask in &mut asks {
            match ask {
                Ask::Submit(order) => {
                    last += 1;
                    (order.order_id, order.client) = (OrderId(last), ClientId(last as u16 % 5));
                }
                Ask::Cancel(id) | Ask::Replace(id, ..) => id.0 = last.saturating_sub(id.0),
                Ask::Advance(_) | Ask::Set(..) => {}
            }
        }
        asks
    })
}

fn ask(exchange: &mut Exchange, now_ns: &mut u64, ask: Ask) -> Vec<Report> {
    let mut reports = Vec::new();
    match ask {
        Ask::Submit(order) => exchange.submit(*now_ns, &order, &mut reports),
        Ask::Cancel(id) => exchange.cancel(*now_ns, id, CancelReason::Requested, &mut reports),
        Ask::Replace(id, price, leaves) => {
            exchange.replace(*now_ns, id, price, leaves, &mut reports);
        }
        Ask::Advance(by) => {
            *now_ns += by;
            exchange.advance(*now_ns, &mut reports);
        }
        Ask::Set(connected, latency_ns) => exchange.set(connected, latency_ns),
    }
    reports
}

fn saved(exchange: &Exchange) -> Vec<u8> {
    let mut out = Vec::new();
    exchange.save(&mut out);
    out
}

fn loaded(image: &[u8]) -> Result<Exchange, LoadError> {
    let mut exchange = Exchange::new(INSTRUMENTS, ORDERS);
    // One that was in use: nothing of it may stay.
    exchange.seed([order(u64::MAX, 1, Side::Buy, 1, 1)]).expect("an empty book");
    exchange.set(false, 7);
    let mut reader = ImageReader::new(image);
    exchange.load(&mut reader)?;
    reader.finish("the end")?;
    Ok(exchange)
}

/// The order that a report is about, and the trade with its number taken off.
fn unnumbered(report: Report) -> Report {
    match report {
        Report::Filled { order_id, price, quantity, liquidity, .. } => {
            Report::Filled { order_id, match_id: 0, price, quantity, liquidity }
        }
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn each_instrument_is_a_book_of_its_own(asks in asks(false)) {
        // Roomy, since one full pool is not as three full books are.
        let mut exchange = Exchange::new(INSTRUMENTS, 1000);
        let mut books = vec![Book::new(1000); INSTRUMENTS];
        let (mut now_ns, mut trades) = (0, 0);
        let mut instruments = vec![0];
        for each in asks {
            let reports = ask(&mut exchange, &mut now_ns, each);
            let mut expected = Vec::new();
            let book_of = |id: OrderId| instruments.get(id.0 as usize).copied().unwrap_or(0);
            match each {
                Ask::Submit(order) => {
                    let index = order.instrument.0 as usize - 1;
                    instruments.push(index.min(INSTRUMENTS - 1));
                    match books.get_mut(index) {
                        Some(book) => book.submit(&order, &mut expected),
                        None => expected.push(Report::Rejected {
                            order_id: order.order_id,
                            reason: Reason::UnknownInstrument,
                        }),
                    }
                }
                Ask::Cancel(id) => {
                    books[book_of(id)].cancel(id, CancelReason::Requested, &mut expected);
                }
                Ask::Replace(id, price, leaves) => {
                    books[book_of(id)].replace(id, price, leaves, &mut expected);
                }
                Ask::Advance(_) | Ask::Set(..) => {}
            }
            for report in &reports {
                if let Report::Filled { match_id, liquidity, .. } = *report {
                    trades += u64::from(liquidity == Liquidity::Maker);
                    prop_assert_eq!(match_id, trades, "numbered 1, 2, ...");
                }
            }
            let unnumbered: fn(Vec<Report>) -> Vec<Report> =
                |reports| reports.into_iter().map(unnumbered).collect();
            prop_assert_eq!(unnumbered(reports), unnumbered(expected));
        }
        for (instrument, book) in (1..).map(InstrumentId).zip(&books) {
            for side in [Side::Buy, Side::Sell] {
                let view = exchange.book(instrument).expect("a book");
                let levels: Vec<Level> = view.depth(side).collect();
                prop_assert_eq!(levels, book.view().depth(side).collect::<Vec<_>>());
                prop_assert!(view.orders(side).eq(book.view().orders(side)));
            }
        }
        prop_assert_eq!(exchange.len(), books.iter().map(|book| book.view().len()).sum::<usize>());
    }

    #[test]
    fn every_request_is_answered_once_and_in_order(asks in asks(true)) {
        let mut exchange = Exchange::new(INSTRUMENTS, ORDERS);
        let mut now_ns = 0;
        let (mut asked, mut answered) = (0, 0);
        let mut all = asks;
        all.extend([Ask::Set(true, 0), Ask::Advance(1000)]);
        for each in all {
            asked += usize::from(!matches!(each, Ask::Advance(_) | Ask::Set(..)));
            for report in ask(&mut exchange, &mut now_ns, each) {
                answered += usize::from(match report {
                    Report::Filled { .. } | Report::Route { .. } => false,
                    Report::Cancelled { reason, .. } => reason == CancelReason::Requested,
                    _ => true,
                });
            }
            prop_assert_eq!(asked, answered + exchange.waiting());
        }
        prop_assert_eq!(exchange.waiting(), 0, "all are due");
    }

    #[test]
    fn a_loaded_exchange_goes_on_as_the_saved_one(
        asks in asks(true),
        at in any::<prop::sample::Index>(),
    ) {
        let mut exchange = Exchange::new(INSTRUMENTS, ORDERS);
        let (before, after) = asks.split_at(at.index(asks.len() + 1));
        let mut now_ns = 0;
        before.iter().for_each(|&each| drop(ask(&mut exchange, &mut now_ns, each)));
        let image = saved(&exchange);
        let mut copy = loaded(&image)?;
        prop_assert_eq!(saved(&copy), image, "saved again");
        let mut copys_ns = now_ns;
        for &each in after {
            let reports = ask(&mut copy, &mut copys_ns, each);
            prop_assert_eq!(reports, ask(&mut exchange, &mut now_ns, each));
        }
        prop_assert_eq!(saved(&copy), saved(&exchange));
    }

    #[test]
    fn damaged_images_are_refused_or_sound(
        asks in asks(true),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let mut exchange = Exchange::new(INSTRUMENTS, ORDERS);
        let mut now_ns = 0;
        asks.iter().for_each(|&each| drop(ask(&mut exchange, &mut now_ns, each)));
        let mut image = saved(&exchange);
        for (at, byte) in damage {
            let at = at.index(image.len());
            image[at] = byte;
        }
        if cuts {
            image.truncate(cut.index(image.len()));
        }
        match exchange.load(&mut ImageReader::new(&image)) {
            Ok(()) => {
                let again = saved(&exchange);
                prop_assert_eq!(&again[..], &image[..again.len()]);
                exchange.advance(u64::MAX, &mut Vec::new());
                asks.iter().for_each(|&each| drop(ask(&mut exchange, &mut now_ns, each)));
            }
            Err(_) => {
                prop_assert_eq!(saved(&exchange), saved(&Exchange::new(INSTRUMENTS, ORDERS)));
            }
        }
    }
}

/// Reports of one call.
fn reports(call: impl FnOnce(&mut Vec<Report>)) -> Vec<Report> {
    let mut reports = Vec::new();
    call(&mut reports);
    reports
}

fn rejected(order_id: u64, reason: Reason) -> Report {
    Report::Rejected { order_id: OrderId(order_id), reason }
}

fn kept(order_id: u64, reason: Reason) -> Report {
    Report::CancelRejected { order_id: OrderId(order_id), reason }
}

#[test]
fn nobody_overtakes_on_the_line() {
    let mut exchange = Exchange::new(1, 8);
    exchange.set(true, 100);
    let bid = order(1, 1, Side::Buy, 10, 5);
    assert_eq!(reports(|out| exchange.submit(0, &bid, out)), []);
    exchange.set(true, 0);
    let cancel = |exchange: &mut Exchange, now_ns, out: &mut Vec<Report>| {
        exchange.cancel(now_ns, OrderId(1), CancelReason::KillSwitch, out);
    };
    assert_eq!(reports(|out| cancel(&mut exchange, 50, out)), [], "the order is in front of it");
    assert_eq!(reports(|out| exchange.advance(99, out)), []);
    let gone = Report::Cancelled { order_id: OrderId(1), reason: CancelReason::KillSwitch };
    let both = [Report::Accepted { order_id: OrderId(1) }, gone];
    assert_eq!(reports(|out| exchange.advance(100, out)), both);
    let late = reports(|out| cancel(&mut exchange, 100, out));
    assert_eq!(late, [kept(1, Reason::TooLate)], "at once again");
}

#[test]
fn while_disconnected_nothing_arrives_and_the_book_stays() {
    let mut exchange = Exchange::new(1, 8);
    let bid = order(1, 1, Side::Buy, 10, 5);
    exchange.submit(0, &bid, &mut Vec::new());
    exchange.set(true, 10);
    assert_eq!(reports(|out| exchange.submit(0, &order(2, 1, Side::Sell, 10, 5), out)), []);
    exchange.set(false, 10);
    let down = Reason::VenueDown;
    let sale = order(3, 1, Side::Sell, 10, 5);
    assert_eq!(reports(|out| exchange.submit(1, &sale, out)), [rejected(3, down)]);
    let cancelled = reports(|out| exchange.cancel(1, OrderId(1), CancelReason::Requested, out));
    assert_eq!(cancelled, [kept(1, down)]);
    let replaced = reports(|out| exchange.replace(1, OrderId(1), Price(9), Quantity(1), out));
    assert_eq!(replaced, [kept(1, down)]);
    assert_eq!(reports(|out| exchange.advance(10, out)), [rejected(2, down)]);
    let view = exchange.book(InstrumentId(1)).expect("a book");
    assert!(view.orders(Side::Buy).eq([bid]));
}

#[test]
fn a_replacement_under_way_does_not_trade_more_than_was_asked_for() {
    // Of 10 asked for, 4 trade while the replacement by a total of `leaves` is under way.
    let replaced_to = |leaves| {
        let mut exchange = Exchange::new(1, 8);
        exchange.submit(0, &order(1, 1, Side::Buy, 10, 10), &mut Vec::new());
        exchange.set(true, 100);
        exchange.submit(0, &order(2, 1, Side::Sell, 10, 4), &mut Vec::new());
        exchange.replace(1, OrderId(1), Price(9), Quantity(leaves), &mut Vec::new());
        let all = reports(|out| exchange.advance(101, out));
        let view = exchange.book(InstrumentId(1)).expect("a book");
        let open = view.best(Side::Buy).map(|level| (level.price.0, level.quantity.0));
        (all.last().copied(), open)
    };
    let replaced = Report::Replaced { order_id: OrderId(1), price: Price(9), leaves: Quantity(3) };
    assert_eq!(replaced_to(7), (Some(replaced), Some((9, 3))));
    for too_little in [4, 3] {
        let refused = kept(1, Reason::TooLate);
        assert_eq!(replaced_to(too_little), (Some(refused), Some((10, 6))), "as it was");
    }
}

#[test]
fn what_a_replacement_trades_counts_for_the_next_one() {
    let mut exchange = Exchange::new(1, 8);
    exchange.submit(0, &order(1, 1, Side::Buy, 10, 10), &mut Vec::new());
    exchange.submit(0, &order(2, 1, Side::Sell, 11, 3), &mut Vec::new());
    exchange.set(true, 100);
    exchange.replace(0, OrderId(1), Price(11), Quantity(10), &mut Vec::new());
    exchange.replace(0, OrderId(1), Price(9), Quantity(8), &mut Vec::new());
    let all = reports(|out| exchange.advance(100, out));
    let replaced = |price, leaves| Report::Replaced {
        order_id: OrderId(1),
        price: Price(price),
        leaves: Quantity(leaves),
    };
    assert_eq!((all.len(), all[0], all[3]), (4, replaced(11, 10), replaced(9, 5)), "{all:?}");
}

#[test]
fn requests_that_are_not_in_the_order_of_their_time_are_refused() {
    let mut exchange = Exchange::new(INSTRUMENTS, ORDERS);
    exchange.set(true, 10);
    for now_ns in [0, 1] {
        exchange.cancel(now_ns, OrderId(1), CancelReason::Requested, &mut Vec::new());
    }
    let mut image = saved(&exchange);
    assert_eq!(saved(&loaded(&image).expect("a sound image")), image);
    // Behind capacity, last trade, instruments, connected, latency and count stands the first time.
    let due = &mut image[4 + 8 + 4 + 1 + 8 + 4..][..8];
    assert_eq!(due, 10_u64.to_le_bytes());
    due.copy_from_slice(&12_u64.to_le_bytes());
    let what = "requests by the time when they are due";
    assert_eq!(loaded(&image).unwrap_err(), LoadError { what });
}

#[test]
fn the_last_room_on_the_line_is_for_cancels() {
    let mut exchange = Exchange::new(1, 2);
    exchange.set(true, 10);
    let submit = |exchange: &mut Exchange, id| {
        reports(|out| exchange.submit(0, &order(id, 1, Side::Buy, 10, 1), out))
    };
    let cancel = |exchange: &mut Exchange, id| {
        reports(|out| exchange.cancel(0, OrderId(id), CancelReason::Requested, out))
    };
    assert_eq!((submit(&mut exchange, 1), submit(&mut exchange, 2)), (vec![], vec![]));
    assert_eq!(submit(&mut exchange, 3), [rejected(3, Reason::Capacity)]);
    assert_eq!((cancel(&mut exchange, 1), cancel(&mut exchange, 2)), (vec![], vec![]));
    assert_eq!(cancel(&mut exchange, 2), [kept(2, Reason::Capacity)]);
}

#[test]
fn an_opening_book_stands_and_trades() {
    const OPENING: u64 = 1 << 63;
    let mut exchange = Exchange::new(2, 8);
    let opening = [
        order(OPENING, 1, Side::Buy, 10, 5),
        order(OPENING + 1, 1, Side::Sell, 11, 5),
        order(OPENING + 2, 2, Side::Sell, 10, 5),
    ];
    assert_eq!(exchange.seed(opening), Ok(3));
    for (bad, reason) in [
        (order(OPENING + 3, 1, Side::Sell, 10, 1), Reason::WouldCross),
        (order(OPENING + 1, 1, Side::Sell, 12, 1), Reason::DuplicateOrder),
        (order(OPENING + 3, 3, Side::Sell, 12, 1), Reason::UnknownInstrument),
        (order(OPENING + 3, 0, Side::Sell, 12, 1), Reason::UnknownInstrument),
        (order(OPENING + 3, 1, Side::Sell, 12, 0), Reason::InvalidQuantity),
        (
            VenueOrder { time_in_force: TimeInForce::Ioc, ..order(9, 1, Side::Buy, 1, 1) },
            Reason::InvalidCombination,
        ),
    ] {
        assert_eq!(exchange.seed([bad]), Err(SeedError { order_id: bad.order_id, reason }));
    }
    let reports = reports(|out| exchange.submit(0, &order(1, 2, Side::Buy, 10, 5), out));
    assert_eq!(reports.len(), 3, "{reports:?}");
    assert!(matches!(reports[1], Report::Filled { order_id: OrderId(OPENING_ASK), .. }));
    assert_eq!((exchange.len(), exchange.trades()), (2, 1));
}

/// The order of the opening book that trades.
const OPENING_ASK: u64 = (1 << 63) + 2;
