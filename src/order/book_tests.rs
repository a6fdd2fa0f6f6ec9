//! The book beside a naive one (a list, searched and sorted each time), and its invariants.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::order::{Liquidity, OrderType, SelfMatch, TimeInForce};
use crate::sequencer::ClientId;

#[path = "book_naive.rs"]
mod naive;

use naive::Naive;

const INSTRUMENT: InstrumentId = InstrumentId(1);

/// What is asked of a book.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Submit(VenueOrder),
    Cancel(OrderId),
    Replace(OrderId, Price, Quantity),
}

fn ask(book: &mut Book, ask: Ask) -> Vec<Report> {
    let mut reports = Vec::new();
    match ask {
        Ask::Submit(order) => book.submit(&order, &mut reports),
        Ask::Cancel(order_id) => book.cancel(order_id, CancelReason::Requested, &mut reports),
        Ask::Replace(order_id, price, leaves) => {
            book.replace(order_id, price, leaves, &mut reports);
        }
    }
    reports
}

/// An order as its reports tell of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Told {
    /// What it was to trade, by its submission and its replacements.
    submitted: u128,
    filled: u128,
    cancelled: u128,
    open: u128,
    ended: bool,
}

/// Follows the reports: each is possible at its time, and no quantity is lost or made.
#[derive(Default)]
struct Ledger(BTreeMap<OrderId, Told>);

impl Ledger {
    fn follow(&mut self, ask: Ask, reports: &[Report]) {
        for &report in reports {
            match report {
                Report::Accepted { order_id } => {
                    let Ask::Submit(order) = ask else { panic!("{ask:?}: {report:?}") };
                    let open = order.quantity.0.into();
                    let told = Told { submitted: open, open, ..Told::default() };
                    // A book does not remember orders; an id that is free again is as a new one.
                    let before = self.0.insert(order_id, told);
                    assert!(before.is_none_or(|told| told.ended), "accepted twice");
                }
                Report::Filled { order_id, quantity, .. } => {
                    let told = self.live(order_id);
                    told.open = told.open.checked_sub(quantity.0.into()).expect("open");
                    told.filled += u128::from(quantity.0);
                    told.ended = told.open == 0;
                }
                Report::Cancelled { order_id, .. } => {
                    let told = self.live(order_id);
                    told.cancelled = std::mem::take(&mut told.open);
                    told.ended = true;
                }
                Report::Replaced { order_id, leaves, .. } => {
                    let told = self.live(order_id);
                    told.open = leaves.0.into();
                    told.submitted = told.filled + told.open;
                }
                Report::Rejected { .. } | Report::CancelRejected { .. } => {
                    assert_eq!(reports.len(), 1, "a refusal changes nothing");
                }
                Report::Route { .. } => panic!("a book asks nobody"),
            }
        }
    }

    fn live(&mut self, order_id: OrderId) -> &mut Told {
        let told = self.0.get_mut(&order_id).expect("accepted before");
        assert!(!told.ended, "{order_id} goes on after its end");
        told
    }

    /// That the book holds just what was told.
    fn check(&self, book: &Book) {
        let view = book.view();
        let standing: BTreeMap<OrderId, u128> = [Side::Buy, Side::Sell]
            .into_iter()
            .flat_map(|side| view.orders(side))
            .map(|order| (order.order_id, order.quantity.0.into()))
            .collect();
        let open = self.0.iter().filter(|(_, told)| !told.ended);
        assert_eq!(standing, open.map(|(&id, told)| (id, told.open)).collect());
        assert_eq!(standing.len(), view.len());
        for told in self.0.values() {
            assert_eq!(told.submitted, told.filled + told.cancelled + told.open);
            assert_eq!(told.ended, told.open == 0);
        }
        check_levels(view);
    }
}

/// That levels are sorted and hold what their orders do, and that the book is not crossed.
fn check_levels(view: BookView<'_>) {
    for side in [Side::Buy, Side::Sell] {
        let levels: Vec<Level> = view.depth(side).collect();
        let better = |a: &Level, b: &Level| match side {
            Side::Buy => a.price > b.price,
            Side::Sell => a.price < b.price,
        };
        assert!(levels.is_sorted_by(better), "{levels:?}");
        let mut orders = view.orders(side);
        for level in levels {
            let of_level: Vec<_> = orders.by_ref().take(level.orders as usize).collect();
            assert!(of_level.iter().all(|order| order.price == level.price));
            assert!(of_level.iter().all(|order| order.quantity.0 > 0));
            let open: u64 = of_level.iter().map(|order| order.quantity.0).sum();
            assert_eq!((open, of_level.len()), (level.quantity.0, level.orders as usize));
            assert!(!of_level.is_empty(), "an empty level");
        }
        assert_eq!(orders.next(), None);
    }
    if let (Some(bid), Some(ask)) = (view.best(Side::Buy), view.best(Side::Sell)) {
        assert!(bid.price < ask.price, "crossed: {bid:?} {ask:?}");
    }
}

fn saved(book: &Book) -> Vec<u8> {
    let mut out = Vec::new();
    book.save(&mut out);
    out
}

fn loaded(image: &[u8], capacity: usize) -> Result<Book, LoadError> {
    let mut book = Book::new(capacity);
    // A book that was in use: nothing of it may stay.
    ask(&mut book, Ask::Submit(limit(u64::MAX, Side::Buy, 1, 1)));
    let mut reader = ImageReader::new(image);
    book.load(INSTRUMENT, &mut reader)?;
    reader.finish("the end")?;
    Ok(book)
}

fn limit(order_id: u64, side: Side, price: i64, quantity: u64) -> VenueOrder {
    VenueOrder {
        order_id: OrderId(order_id),
        client: ClientId(order_id as u16),
        instrument: INSTRUMENT,
        side,
        order_type: OrderType::Limit,
        time_in_force: TimeInForce::Day,
        post_only: false,
        price: Price(price),
        quantity: Quantity(quantity),
        self_match: SelfMatch::Allow,
    }
}

fn sides() -> impl Strategy<Value = Side> {
    prop::sample::select(Side::ALL)
}

/// Mostly near each other, now and then at the ends of what there is.
fn prices() -> impl Strategy<Value = Price> {
    prop_oneof![
        20 => 95..=105_i64,
        4 => -30..=300_i64,
        1 => prop::sample::select(&[i64::MIN, i64::MIN + 1, 0, i64::MAX - 1, i64::MAX][..]),
    ]
    .prop_map(Price)
}

fn quantities() -> impl Strategy<Value = Quantity> {
    prop_oneof![40 => 1..=20_u64, 2 => 100..=400_u64, 1 => Just(0), 1 => Just(u64::MAX)]
        .prop_map(Quantity)
}

fn orders() -> impl Strategy<Value = VenueOrder> {
    let times = prop_oneof![
        6 => Just(TimeInForce::Day), 1 => Just(TimeInForce::Ioc), 1 => Just(TimeInForce::Fok)
    ];
    let types = prop_oneof![9 => Just(OrderType::Limit), 1 => Just(OrderType::Market)];
    let policies = prop::sample::select(SelfMatch::ALL);
    let kinds = (types, times, prop::bool::weighted(0.1), policies);
    (sides(), prices(), quantities(), 1..=4_u16, kinds).prop_map(
        |(side, price, quantity, client, (order_type, time_in_force, post_only, self_match))| {
            VenueOrder {
                client: ClientId(client),
                order_type,
                time_in_force,
                post_only,
                self_match,
                price,
                quantity,
                ..limit(0, side, 0, 0)
            }
        },
    )
}

/// Of an order, the next id.
const NEXT: OrderId = OrderId(u64::MAX);

/// Asks, whose orders have the id [`NEXT`], or one so many back from the last.
fn asks() -> impl Strategy<Value = Ask> {
    let back = || (0..60_u64).prop_map(OrderId);
    let id = prop_oneof![30 => Just(NEXT), 1 => back()];
    prop_oneof![
        12 => (orders(), id).prop_map(|(order, order_id)| {
            Ask::Submit(VenueOrder { order_id, ..order })
        }),
        4 => back().prop_map(Ask::Cancel),
        5 => (back(), prices(), quantities()).prop_map(|(id, price, leaves)| {
            Ask::Replace(id, price, leaves)
        }),
    ]
}

/// Turns "so many back" into ids: 1, 2, ..., and 0 for what is further back.
fn numbered(asks: Vec<Ask>) -> Vec<Ask> {
    let mut last = 0;
    let mut id = |id: OrderId| {
        last += u64::from(id == NEXT);
        OrderId(if id == NEXT { last } else { last.saturating_sub(id.0) })
    };
    let number = |ask| match ask {
        Ask::Submit(order) => Ask::Submit(VenueOrder { order_id: id(order.order_id), ..order }),
        Ask::Cancel(order_id) => Ask::Cancel(id(order_id)),
        Ask::Replace(order_id, price, leaves) => Ask::Replace(id(order_id), price, leaves),
    };
    asks.into_iter().map(number).collect()
}

fn sequences(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Ask>> {
    prop::collection::vec(asks(), len).prop_map(numbered)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn a_book_does_what_a_naive_one_does(
        asks in sequences(0..3000),
        capacity in prop::sample::select(&[1_usize, 5, 40, 300][..]),
    ) {
        let mut book = Book::new(capacity);
        let mut naive = Naive::new(capacity);
        let mut ledger = Ledger::default();
        for (step, &each) in asks.iter().enumerate() {
            let reports = ask(&mut book, each);
            prop_assert_eq!(&reports, &naive.ask(each), "step {}: {:?}", step, each);
            ledger.follow(each, &reports);
            for side in [Side::Buy, Side::Sell] {
                prop_assert_eq!(book.view().depth(side).collect::<Vec<_>>(), naive.depth(side));
                let orders: Vec<_> = book.view().orders(side).collect();
                prop_assert_eq!(orders, naive.by_priority(side));
            }
            check_levels(book.view());
            if step % 16 == 0 {
                ledger.check(&book);
            }
        }
        ledger.check(&book);
        prop_assert_eq!(book.trades(), naive.trades);
    }

    #[test]
    fn a_loaded_book_goes_on_as_the_saved_one(
        asks in sequences(0..800),
        at in any::<prop::sample::Index>(),
        capacity in prop::sample::select(&[3_usize, 40][..]),
    ) {
        let mut book = Book::new(capacity);
        let (before, after) = asks.split_at(at.index(asks.len() + 1));
        before.iter().for_each(|&each| drop(ask(&mut book, each)));
        let image = saved(&book);
        let mut copy = loaded(&image, capacity)?;
        prop_assert_eq!(saved(&copy), image, "saved again");
        for &each in after {
            prop_assert_eq!(ask(&mut copy, each), ask(&mut book, each));
        }
        prop_assert_eq!(saved(&copy), saved(&book));
    }

    #[test]
    fn damaged_images_are_refused_or_sound(
        asks in sequences(1..60),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        let mut book = Book::new(20);
        asks.iter().for_each(|&each| drop(ask(&mut book, each)));
        let mut image = saved(&book);
        for (at, byte) in damage {
            let at = at.index(image.len());
            image[at] = byte;
        }
        if cuts {
            image.truncate(cut.index(image.len()));
        }
        let mut book = Book::new(20);
        match book.load(INSTRUMENT, &mut ImageReader::new(&image)) {
            Ok(()) => {
                check_levels(book.view());
                let again = saved(&book);
                prop_assert_eq!(&again[..], &image[..again.len()]);
                asks.iter().for_each(|&each| drop(ask(&mut book, each)));
                check_levels(book.view());
            }
            Err(_) => prop_assert_eq!(saved(&book), saved(&Book::new(20))),
        }
    }
}

/// A book of 8 orders with these in it.
fn book_of(orders: &[VenueOrder]) -> Book {
    let mut book = Book::new(8);
    for &order in orders {
        assert_eq!(ask(&mut book, Ask::Submit(order)).len(), 1, "{order:?} only stands");
    }
    book
}

/// Ids and open quantities of a side, first to trade first.
fn queue(book: &Book, side: Side) -> Vec<(u64, u64)> {
    book.view().orders(side).map(|order| (order.order_id.0, order.quantity.0)).collect()
}

fn ended(order_id: u64, reason: CancelReason) -> Report {
    Report::Cancelled { order_id: OrderId(order_id), reason }
}

#[test]
fn price_goes_before_time() {
    let mut book = book_of(&[
        limit(1, Side::Sell, 11, 5),
        limit(2, Side::Sell, 10, 5),
        limit(3, Side::Sell, 10, 5),
        limit(4, Side::Sell, 12, 5),
    ]);
    assert_eq!(queue(&book, Side::Sell), [(2, 5), (3, 5), (1, 5), (4, 5)]);
    let reports = ask(&mut book, Ask::Submit(limit(5, Side::Buy, 11, 12)));
    let fill = |order_id, match_id, price, quantity, liquidity| Report::Filled {
        order_id: OrderId(order_id),
        match_id,
        price: Price(price),
        quantity: Quantity(quantity),
        liquidity,
    };
    let expected = [
        Report::Accepted { order_id: OrderId(5) },
        fill(2, 1, 10, 5, Liquidity::Maker),
        fill(5, 1, 10, 5, Liquidity::Taker),
        fill(3, 2, 10, 5, Liquidity::Maker),
        fill(5, 2, 10, 5, Liquidity::Taker),
        fill(1, 3, 11, 2, Liquidity::Maker),
        fill(5, 3, 11, 2, Liquidity::Taker),
    ];
    assert_eq!(reports, expected);
    assert_eq!(queue(&book, Side::Sell), [(1, 3), (4, 5)]);
}

#[test]
fn fill_or_kill_looks_before_it_trades() {
    let own = |order: VenueOrder, self_match| VenueOrder {
        client: ClientId(2),
        time_in_force: TimeInForce::Fok,
        self_match,
        ..order
    };
    let standing = [1, 2, 3].map(|id| limit(id, Side::Sell, 10, 5));
    let attempt = |quantity, self_match| {
        let mut book = book_of(&standing);
        let order = own(limit(9, Side::Buy, 10, quantity), self_match);
        (ask(&mut book, Ask::Submit(order)), queue(&book, Side::Sell))
    };
    let all = vec![(1, 5), (2, 5), (3, 5)];
    for (quantity, policy) in [
        (16, SelfMatch::Allow),
        (11, SelfMatch::CancelStanding), // five of them are its own
        (6, SelfMatch::CancelIncoming),  // and so stop it
    ] {
        let (reports, left) = attempt(quantity, policy);
        assert_eq!(reports[1..], [ended(9, CancelReason::Killed)], "{quantity}");
        assert_eq!(left, all, "nothing was touched");
    }
    assert_eq!(attempt(15, SelfMatch::Allow).1, []);
    assert_eq!(attempt(9, SelfMatch::CancelStanding).1, [(3, 1)]);
    assert_eq!(attempt(5, SelfMatch::CancelIncoming).1, [(2, 5), (3, 5)]);
}

#[test]
fn a_replacement_keeps_its_place_only_if_it_asks_for_no_more() {
    let standing = [1, 2, 3].map(|id| limit(id, Side::Buy, 10, 5));
    let replaced = |price, leaves| {
        let mut book = book_of(&standing);
        let reports = ask(&mut book, Ask::Replace(OrderId(1), Price(price), Quantity(leaves)));
        assert_eq!(reports.len(), 1, "{reports:?}");
        queue(&book, Side::Buy)
    };
    assert_eq!(replaced(10, 4), [(1, 4), (2, 5), (3, 5)]);
    assert_eq!(replaced(10, 5), [(1, 5), (2, 5), (3, 5)]);
    assert_eq!(replaced(10, 6), [(2, 5), (3, 5), (1, 6)]);
    assert_eq!(replaced(9, 4), [(2, 5), (3, 5), (1, 4)]);
    assert_eq!(replaced(11, 4), [(1, 4), (2, 5), (3, 5)]);
}

#[test]
fn a_post_only_order_never_takes() {
    let quiet = VenueOrder { post_only: true, ..limit(2, Side::Buy, 10, 5) };
    let mut book = book_of(&[limit(1, Side::Sell, 10, 5)]);
    let refused = Report::Rejected { order_id: OrderId(2), reason: Reason::WouldCross };
    assert_eq!(ask(&mut book, Ask::Submit(quiet)), [refused]);
    let lower = VenueOrder { price: Price(9), ..quiet };
    assert_eq!(ask(&mut book, Ask::Submit(lower)).len(), 1);
    let across = ask(&mut book, Ask::Replace(OrderId(2), Price(10), Quantity(1)));
    let reason = Reason::WouldCross;
    assert_eq!(across, [Report::CancelRejected { order_id: OrderId(2), reason }]);
    assert_eq!(queue(&book, Side::Buy), [(2, 5)], "it stays as it was");
}

#[test]
fn a_full_book_still_trades() {
    let standing: Vec<_> = (1..=8).map(|id| limit(id, Side::Sell, 10, 5)).collect();
    let mut book = book_of(&standing);
    let full = Report::Rejected { order_id: OrderId(9), reason: Reason::Capacity };
    assert_eq!(ask(&mut book, Ask::Submit(limit(9, Side::Buy, 9, 1))), [full]);
    assert_eq!(ask(&mut book, Ask::Submit(limit(9, Side::Buy, 10, 41))).len(), 17);
    assert_eq!(queue(&book, Side::Buy), [(9, 1)], "what is left of it stands");
}

#[test]
fn another_capacity_is_another_state() {
    let image = saved(&book_of(&[limit(1, Side::Buy, 10, 5)]));
    assert!(loaded(&image, 8).is_ok());
    assert_eq!(loaded(&image, 9).unwrap_err(), LoadError { what: "a book of this capacity" });
}

fn order(id: u64, client: u16, side: Side, price: i64, quantity: u64) -> VenueOrder {
    VenueOrder {
        order_id: OrderId(id),
        client: ClientId(client),
        instrument: INSTRUMENT,
        side,
        order_type: OrderType::Limit,
        time_in_force: TimeInForce::Day,
        post_only: false,
        price: Price(price),
        quantity: Quantity(quantity),
        self_match: SelfMatch::Allow,
    }
}

/// One side with all the levels that there may be, the best at price `LEVELS_MAX`.
fn high(levels: usize) -> Book {
    let mut book = Book::new(2 * LEVELS_MAX);
    let mut reports = Vec::new();
    for id in 1..=levels as u64 {
        let bid = order(id, 1, Side::Buy, id as i64, 10);
        book.submit(&bid, &mut reports);
    }
    assert_eq!(reports.len(), levels);
    book
}

#[test]
fn a_side_has_so_many_levels_and_no_more() {
    let most = LEVELS_MAX as i64;
    let mut book = high(LEVELS_MAX);
    let ask = |book: &mut Book, order: &VenueOrder| {
        let mut reports = Vec::new();
        book.submit(order, &mut reports);
        reports
    };
    let id = OrderId(10_000);
    let refused = [Report::Rejected { order_id: id, reason: Reason::Capacity }];
    assert_eq!(ask(&mut book, &order(10_000, 1, Side::Buy, most + 1, 10)), refused);
    assert_eq!(ask(&mut book, &order(10_000, 1, Side::Buy, 0, 10)), refused);
    // Where there is a level already, and on the other side, it may stand.
    let taken = [Report::Accepted { order_id: OrderId(10_001) }];
    assert_eq!(ask(&mut book, &order(10_001, 1, Side::Buy, 7, 10)), taken);
    assert_eq!(ask(&mut book, &order(10_002, 1, Side::Sell, most + 5, 10)).len(), 1);
    // One that trades in full is served; one of which something would stand is not.
    assert_eq!(ask(&mut book, &order(10_000, 2, Side::Buy, most + 5, 11)), refused);
    assert_eq!(ask(&mut book, &order(10_003, 2, Side::Buy, most + 5, 10)).len(), 3);

    let mut change = |id, price| {
        let mut reports = Vec::new();
        book.replace(OrderId(id), Price(price), Quantity(10), &mut reports);
        reports[0]
    };
    let refused = Report::CancelRejected { order_id: OrderId(10_001), reason: Reason::Capacity };
    assert_eq!(change(10_001, 0), refused, "its level stays, for another order");
    assert!(matches!(change(9, 0), Report::Replaced { .. }), "its level goes with it");
    assert!(matches!(change(10_001, 8), Report::Replaced { .. }));
    assert_eq!(book.view().depth(Side::Buy).len(), LEVELS_MAX - 1 + 1);
}

/// Levels from the worst to the best, and such in the middle, go one by one; what is left is what
/// is seen, and new ones come in between.
#[test]
fn levels_go_and_come_in_any_order() {
    for step in [1, 3, 7, 1001] {
        let mut book = high(1000);
        let mut left: std::collections::BTreeSet<u64> = (1..=1000).collect();
        let mut at = 0;
        for round in 0..1000_u64 {
            at = (at + step) % 1001;
            if !left.remove(&at) {
                continue;
            }
            book.cancel(OrderId(at), CancelReason::Requested, &mut Vec::new());
            if round % 5 == 0 {
                book.submit(&order(at, 1, Side::Buy, at as i64, 10), &mut Vec::new());
                left.insert(at);
            }
            let depth = book.view().depth(Side::Buy);
            assert_eq!(depth.len(), left.len());
            if round % 50 == 0 {
                let prices: Vec<_> = depth.map(|level| level.price.0 as u64).collect();
                assert_eq!(prices, left.iter().rev().copied().collect::<Vec<_>>());
            }
        }
        let (mut saved, mut again) = (Vec::new(), Vec::new());
        book.save(&mut saved);
        let mut copy = Book::new(2 * LEVELS_MAX);
        copy.load(InstrumentId(1), &mut ImageReader::new(&saved)).unwrap();
        copy.save(&mut again);
        assert!(saved == again);
    }
}
