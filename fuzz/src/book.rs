//! A limit order book that is asked for whatever the bytes say, saved and loaded in between; or
//! bytes that are taken for a saved one.
//!
//! Whatever is asked: never crossed, no quantity lost or made, no report of an order that has
//! ended, levels that hold what their orders do, and a loaded book that goes on as the saved one.

use std::collections::BTreeMap;

use gapless::order::{
    Book, BookView, CancelReason, InstrumentId, OrderId, OrderType, Price, Quantity, Report,
    SelfMatch, Side, TimeInForce, VenueOrder,
};
use gapless::sequencer::{ClientId, ImageReader};

use super::Input;

const INSTRUMENT: InstrumentId = InstrumentId(1);
const SIDES: [Side; 2] = [Side::Buy, Side::Sell];

/// A book, and what its reports have told of it.
struct World {
    book: Book,
    /// Of each order that has not ended, what is open.
    open: BTreeMap<OrderId, u64>,
    trades: u64,
    last: u64,
}

/// Orders of a few clients at a few prices, or anywhere.
fn price(byte: u8) -> Price {
    match byte {
        0..=239 => Price(i64::from(byte & 15)),
        240 => Price(i64::MIN),
        241 => Price(i64::MAX),
        _ => Price(-i64::from(byte)),
    }
}

fn quantity(byte: u8) -> Quantity {
    match byte {
        254 => Quantity(u64::MAX >> 4),
        255 => Quantity(u64::MAX),
        _ => Quantity(u64::from(byte & 31)),
    }
}

fn saved(book: &Book) -> Vec<u8> {
    let mut image = Vec::new();
    book.save(&mut image);
    image
}

impl World {
    fn ask(&mut self, input: &mut Input<'_>) {
        let (what, how) = (input.byte(), input.byte());
        let (price, quantity) = (price(input.byte()), quantity(input.byte()));
        let named = OrderId(self.last.saturating_sub(u64::from(how & 31)));
        let mut reports = Vec::new();
        match what & 7 {
            0 => self.book.cancel(named, CancelReason::Requested, &mut reports),
            1 | 2 => self.book.replace(named, price, quantity, &mut reports),
            _ => {
                self.last += 1;
                let of = usize::from(how >> 2 & 3);
                let order = VenueOrder {
                    order_id: if what == 7 { named } else { OrderId(self.last) },
                    client: ClientId(u16::from(how >> 6)),
                    instrument: INSTRUMENT,
                    side: SIDES[usize::from(how & 1)],
                    order_type: if what >> 3 == 1 { OrderType::Market } else { OrderType::Limit },
                    time_in_force: *TimeInForce::ALL.get(of).unwrap_or(&TimeInForce::Day),
                    post_only: how & 2 != 0,
                    price,
                    quantity,
                    self_match: *SelfMatch::ALL
                        .get(usize::from(how >> 4 & 3))
                        .unwrap_or(&SelfMatch::Allow),
                };
                self.book.submit(&order, &mut reports);
                self.accept(&order, &reports);
            }
        }
        self.follow(&reports);
        if what >= 240 {
            self.reload();
        }
    }

    fn accept(&mut self, order: &VenueOrder, reports: &[Report]) {
        match reports[0] {
            Report::Accepted { order_id } => {
                assert_eq!(order_id, order.order_id);
                assert_eq!(self.open.insert(order_id, order.quantity.0), None, "accepted twice");
            }
            Report::Rejected { .. } => assert_eq!(reports.len(), 1),
            other => panic!("answered by {other:?}"),
        }
    }

    fn follow(&mut self, reports: &[Report]) {
        assert!(!reports.is_empty(), "no answer");
        for &report in reports {
            match report {
                Report::Filled { order_id, match_id, quantity, liquidity, .. } => {
                    self.trades += u64::from(liquidity == gapless::order::Liquidity::Maker);
                    assert_eq!(match_id, self.trades);
                    let open = self.open.get_mut(&order_id).expect("it has not ended");
                    *open = open.checked_sub(quantity.0).expect("no more than is open");
                    if *open == 0 {
                        self.open.remove(&order_id);
                    }
                }
                Report::Cancelled { order_id, .. } => {
                    assert!(self.open.remove(&order_id).is_some(), "it has not ended");
                }
                Report::Replaced { order_id, leaves, .. } => {
                    *self.open.get_mut(&order_id).expect("it has not ended") = leaves.0;
                }
                _ => {}
            }
        }
    }

    /// The book as it is saved, made anew.
    fn reload(&mut self) {
        let image = saved(&self.book);
        let mut book = Book::new(self.book.capacity());
        book.load(INSTRUMENT, &mut ImageReader::new(&image)).expect("its own image");
        assert_eq!(saved(&book), image);
        self.book = book;
    }

    fn check(&self) {
        check(self.book.view());
        let orders = SIDES.into_iter().flat_map(|side| self.book.view().orders(side));
        let standing: BTreeMap<_, _> = orders.map(|o| (o.order_id, o.quantity.0)).collect();
        assert_eq!(standing, self.open);
        assert_eq!(standing.len(), self.book.view().len());
        assert_eq!(self.book.trades(), self.trades);
    }
}

fn check(view: BookView<'_>) {
    for side in SIDES {
        let mut orders = view.orders(side);
        let mut before = None;
        for level in view.depth(side) {
            let price = level.price.0;
            assert!(before.is_none_or(|before| (price < before) == (side == Side::Buy)));
            assert!(before != Some(price) && level.orders > 0);
            before = Some(price);
            let of_level = orders.by_ref().take(level.orders as usize);
            let open = of_level.map(|order| {
                assert!(order.price == level.price && order.quantity.0 > 0);
                order.quantity.0
            });
            assert_eq!(open.sum::<u64>(), level.quantity.0);
        }
        assert_eq!(orders.next(), None);
    }
    if let (Some(bid), Some(ask)) = (view.best(Side::Buy), view.best(Side::Sell)) {
        assert!(bid.price < ask.price, "crossed");
    }
}

/// A book is asked for whatever the bytes say.
pub fn book(data: &[u8]) {
    let mut input = Input(data);
    let setting = input.byte();
    let book = Book::new(1 + usize::from(setting & 15));
    let mut world = World { book, open: BTreeMap::new(), trades: 0, last: 0 };
    if setting >= 240 {
        let loaded = world.book.load(INSTRUMENT, &mut ImageReader::new(input.0));
        check(world.book.view());
        if loaded.is_ok() {
            assert!(input.0.starts_with(&saved(&world.book)));
        }
        return;
    }
    while !input.0.is_empty() {
        world.ask(&mut input);
        world.check();
    }
}
