//! An exchange allocates nothing once made, whatever comes, with a slow line and without.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use gapless::order::{
    CancelReason, Exchange, InstrumentId, OrderId, OrderType, Price, Quantity, Report, SelfMatch,
    Side, TimeInForce, Venue, VenueOrder,
};
use gapless::protocol::Random;
use gapless::sequencer::ClientId;

/// Counts what the current thread allocates.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed on as it is; the counter is a plain cell that allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps to the contract of this very function.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract of this very function.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// An order of the kinds that there are, near a price.
fn order(random: &mut Random, id: u64) -> VenueOrder {
    let market = random.below(20) == 0;
    let times = [TimeInForce::Day, TimeInForce::Day, TimeInForce::Ioc, TimeInForce::Fok];
    VenueOrder {
        order_id: OrderId(id),
        client: ClientId(random.below(5) as u16),
        instrument: InstrumentId(1 + random.below(3) as u32),
        side: Side::ALL[random.below(2) as usize],
        order_type: if market { OrderType::Market } else { OrderType::Limit },
        time_in_force: times[random.below(4) as usize],
        post_only: random.below(20) == 0,
        price: Price(1_000 + random.below(200) as i64),
        quantity: Quantity(random.below(100)),
        self_match: SelfMatch::ALL[random.below(3) as usize],
    }
}

#[test]
fn the_counter_counts() {
    let before = COUNT.get();
    drop(std::hint::black_box(Vec::<u8>::with_capacity(10)));
    assert_eq!(COUNT.get() - before, 1);
}

#[test]
fn nothing_is_allocated_between_a_request_and_its_reports() {
    let mut random = Random::new(4);
    let mut exchange = Exchange::new(3, 300);
    let mut reports = Vec::with_capacity(1 << 16);
    let (mut trades, mut full) = (0, 0);

    let before = COUNT.get();
    for id in 1..200_000 {
        if id % 1_000 == 0 {
            exchange.set(random.below(4) > 0, random.below(2) * 500);
        }
        reports.clear();
        exchange.advance(id, &mut reports);
        let named = OrderId(id.saturating_sub(random.below(1_000)));
        match random.below(8) {
            0 => exchange.cancel(id, named, CancelReason::Requested, &mut reports),
            1 => {
                let price = Price(1_000 + random.below(200) as i64);
                exchange.replace(id, named, price, Quantity(random.below(100)), &mut reports);
            }
            _ => exchange.submit(id, &order(&mut random, id), &mut reports),
        }
        for report in &reports {
            trades += u64::from(matches!(report, Report::Filled { .. }));
            full += u64::from(matches!(report, Report::Rejected { .. }));
        }
    }
    assert_eq!(COUNT.get() - before, 0, "allocations");
    assert!(trades > 10_000 && full > 1_000, "{trades} fills, {full} rejections: little happened");
}
