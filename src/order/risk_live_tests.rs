//! Tests of pre-trade risk over time: fills, marks, losses, switches, changed limits, saved state.

use super::*;
use crate::sequencer::ImageReader;

#[test]
fn once_the_loss_limit_is_broken_orders_are_rejected() {
    let mut desk = limited(|limits| limits.max_loss = Money(100));
    desk.trade(1, Buy, 50, 10);
    desk.reference(1, 40);
    assert_eq!(desk.risk.check_loss(CLIENT), None, "100 is not more than 100");
    assert_eq!(desk.trade(2, Buy, 10, 1).breached, None);
    desk.reference(2, 9);
    assert_eq!(desk.send(Sell, 50, 1), Err(Reason::LossLimit), "before a fill said so");
    let breached = desk.risk.check_loss(CLIENT);
    let (value, limit, reason) = (Money(101), Money(100), Reason::LossLimit);
    assert_eq!(breached, Some(Breached { value, limit, reason, stopped: false }));
    desk.reference(1, 60);
    assert_eq!(desk.send(Sell, 60, 1), Err(Reason::LossLimit), "broken is broken");
    desk.set(|limits| limits.max_loss = Money(100));
    assert!(desk.send(Sell, 60, 1).is_ok());
}

#[test]
fn a_breach_is_said_once_and_stops_the_client_if_its_limits_say_so() {
    let mut desk = limited(|limits| {
        limits.max_loss = Money(100);
        limits.taker_fee_ppm = 100_000;
        limits.stop_on_breach = true;
    });
    for _ in 0..3 {
        desk.send(Buy, 100, 10).unwrap();
    }
    assert_eq!(desk.fill(1, Buy, 100, 100, 10), Fill { fee: Money(100), breached: None });
    let stopped =
        Breached { value: Money(101), limit: Money(100), reason: Reason::LossLimit, stopped: true };
    let fill = desk.fill(1, Buy, 100, 101, 10);
    // 20 at 101 are worth 10 more than they cost; the fees are 100 + 101.
    let breached = Some(Breached { value: Money(191), ..stopped });
    assert_eq!(fill, Fill { fee: Money(101), breached });
    assert_eq!(desk.fill(1, Buy, 100, 100, 10).breached, None, "said already");
    assert_eq!(desk.send(Buy, 1, 1), Err(Reason::KillSwitch));
    desk.risk.stop(CLIENT, false);
    assert_eq!(desk.send(Buy, 1, 1), Err(Reason::LossLimit));
    // 301 of fees; 30 at 100 are worth 10 less than they cost.
    desk.set(|limits| limits.max_loss = Money(310));
    assert_eq!(desk.send(Buy, 1, 1), Err(Reason::LossLimit));
    desk.set(|limits| limits.max_loss = Money(311));
    assert!(desk.send(Buy, 1, 1).is_ok());
    desk.set(|limits| limits.max_loss = Money(310));
    let limit = Money(310);
    let again = Breached { value: Money(311), limit, stopped: false, ..stopped };
    assert_eq!(desk.risk.check_loss(CLIENT), Some(again), "with new limits it is said anew");
}

#[test]
fn a_client_that_is_stopped_cannot_send_until_it_is_let_go() {
    let mut desk = limited(|_| {});
    assert!(desk.send(Buy, 5, 2).is_ok());
    desk.risk.stop(OTHER, true);
    assert_eq!((desk.risk.is_stopped(OTHER), desk.risk.is_stopped(CLIENT)), (true, false));
    assert!(desk.send(Buy, 5, 2).is_ok());
    desk.risk.stop(CLIENT, true);
    assert_eq!(desk.send(Buy, 5, 2), Err(Reason::KillSwitch));
    assert_eq!(desk.market(Sell, 2), Err(Reason::KillSwitch));
    assert_eq!(desk.replace(Buy, (5, 2), (5, 1)), Err(Reason::KillSwitch));
    desk.release(Buy, 5, 2);
    desk.risk.stop(CLIENT, false);
    assert!(desk.send(Buy, 5, 2).is_ok());
}

#[test]
fn when_everybody_is_stopped_nobody_can_send_and_each_keeps_its_own_switch() {
    let mut desk = limited(|_| {});
    desk.risk.stop(OTHER, true);
    desk.risk.stop(ClientId::NONE, true);
    assert_eq!(desk.send(Buy, 5, 2), Err(Reason::KillSwitch));
    desk.risk.stop(CLIENT, false);
    assert_eq!(desk.send(Buy, 5, 2), Err(Reason::KillSwitch));
    desk.risk.stop(ClientId::NONE, false);
    assert!(desk.send(Buy, 5, 2).is_ok());
    assert!(desk.risk.is_stopped(OTHER));
}

#[test]
fn limits_change_live_and_a_lower_one_only_blocks_more() {
    let mut desk = limited(|_| {});
    desk.trade(1, Buy, 10, 100);
    assert!(desk.send(Buy, 10, 50).is_ok());
    desk.set(|limits| {
        limits.max_position = Quantity(60);
        limits.max_gross = Money(10);
        limits.credit = Money(10);
        limits.max_quantity = Quantity(99);
    });
    assert_eq!(desk.figures().open_orders, 1);
    assert_eq!(desk.send(Buy, 10, 1), Err(Reason::PositionLimit));
    assert_eq!(desk.send_in(2, Buy, 10, 2), Err(Reason::GrossExposure));
    assert_eq!(desk.replace(Buy, (10, 50), (11, 50)), Err(Reason::GrossExposure));
    assert_eq!(desk.replace(Buy, (10, 50), (10, 51)), Err(Reason::PositionLimit));
    assert_eq!(desk.replace(Buy, (10, 50), (9, 50)), Ok(()), "cheaper");
    assert_eq!(desk.replace(Buy, (9, 50), (9, 40)), Ok(()), "smaller");
    desk.set(|limits| limits.credit = Money(10));
    assert_eq!(desk.send_in(2, Buy, 1, 1), Err(Reason::Credit));
    desk.set(|_| {});
    assert!(desk.send(Buy, 10, 1_000).is_ok());
}

#[test]
fn what_closes_a_position_passes_position_gross_and_credit_limits() {
    for (side, other) in [(Buy, Sell), (Sell, Buy)] {
        let mut desk = limited(|_| {});
        desk.trade(1, side, 10, 100);
        desk.trade(2, Buy, 10, 1_000);
        desk.set(|limits| {
            limits.max_position = Quantity(1);
            limits.max_gross = Money(1);
            limits.credit = Money(1);
        });
        assert!(desk.send(other, 20, 60).is_ok());
        assert!(desk.send(other, 20, 40).is_ok());
        assert_eq!(desk.send(other, 20, 1), Err(Reason::GrossExposure), "past flat");
        assert_eq!(desk.send(other, 20, 2), Err(Reason::PositionLimit));
        assert_eq!(desk.replace(other, (20, 40), (25, 40)), Ok(()), "dearer, but closing");
        assert_eq!(desk.replace(other, (25, 40), (25, 41)), Err(Reason::GrossExposure));
    }
}

#[test]
fn a_pure_reduction_of_an_order_passes_all_but_kill_switch_and_rate() {
    let mut desk = limited(|_| {});
    assert!(desk.send(Buy, 100, 10).is_ok());
    desk.set(|limits| {
        limits.max_quantity = Quantity(1);
        limits.max_notional = Money(1);
        limits.collar_basis_points = 1;
        limits.max_gross = Money(1);
        limits.max_open_orders = 1;
    });
    assert_eq!(desk.replace(Buy, (100, 10), (100, 9)), Ok(()));
    assert_eq!(desk.replace(Buy, (100, 9), (99, 9)), Err(Reason::MaxQuantity));
    assert_eq!(desk.replace(Buy, (100, 9), (100, 0)), Err(Reason::InvalidQuantity));
    assert_eq!(desk.figures().gross, 900);
}

#[test]
fn a_mark_that_cannot_be_reckoned_with_is_not_taken() {
    let mut desk = limited(|_| {});
    desk.trade(1, Buy, 10, 1 << 40);
    desk.reference(1, 1 << 23);
    assert_eq!(desk.figures().gross, 10 << 40, "2^63 is one too many");
    desk.reference(1, (1 << 23) - 1);
    assert_eq!(desk.figures().gross, ((1 << 23) - 1) << 40);
    assert_eq!(desk.send(Buy, 1, 1 << 40), Err(Reason::MaxNotional), "at the mark");
}

#[test]
fn clients_and_instruments_beyond_the_capacity_are_rejected() {
    let mut desk = limited(|_| {});
    for client in [0, 5, u16::MAX].map(ClientId) {
        assert_eq!(desk.risk.set_limits(&SetLimits::none(client)), Err(Reason::Capacity));
        assert_eq!(desk.risk.limits(client), Limits::default());
        assert_eq!(
            (desk.risk.figures(client), desk.risk.position(client, InstrumentId(1))),
            (None, 0)
        );
        assert_eq!(desk.risk.check_loss(client), None);
    }
    desk.risk.stop(ClientId(5), true);
    for id in [0, 9, u32::MAX] {
        assert_eq!(desk.send_in(id, Buy, 1, 1), Err(Reason::Capacity));
        desk.reference(id, 5);
        assert_eq!(desk.risk.reference(InstrumentId(id)), None);
        assert!(!desk.risk.in_use(InstrumentId(id)));
    }
    assert!(desk.send_in(8, Buy, 1, 1).is_ok());
    let invalid =
        SetLimits { credit: Money(-1), max_quantity: Quantity(1), ..SetLimits::none(CLIENT) };
    assert_eq!(desk.risk.set_limits(&invalid), Err(Reason::InvalidLimit));
    assert_eq!(desk.risk.limits(CLIENT).max_quantity, Quantity(0), "all is as it was");
}

#[test]
fn an_instrument_is_in_use_while_anybody_has_orders_or_a_position() {
    let mut desk = limited(|_| {});
    let used = |desk: &Desk| desk.risk.in_use(InstrumentId(1));
    desk.send(Buy, 5, 3).unwrap();
    assert!(used(&desk) && !desk.risk.in_use(InstrumentId(2)));
    desk.release(Buy, 5, 3);
    assert!(!used(&desk));
    desk.trade(1, Sell, 5, 3);
    assert!(used(&desk));
    desk.trade(1, Buy, 5, 3);
    assert!(!used(&desk));
}

#[test]
fn fees_are_rounded_up_and_rebates_down() {
    for (notional, ppm, wanted) in [
        (1_000_000, 25, 25),
        (1_000_001, 25, 26),
        (1, 1, 1),
        (0, 25, 0),
        (1_000_000, -25, -25),
        (999_999, -25, -24),
        (1, -1, 0),
        (i64::MAX, 1_000_000, i64::MAX),
        (i64::MAX, -1_000_000, -i64::MAX),
        (i64::MAX, 500_000, i64::MAX / 2 + 1),
        (i64::MAX, -500_000, -(i64::MAX / 2)),
    ] {
        assert_eq!(fee(notional, ppm), wanted, "{ppm} of {notional}");
    }
    let mut desk = limited(|limits| {
        limits.maker_fee_ppm = -1_000;
        limits.taker_fee_ppm = 2_000;
    });
    assert_eq!(desk.trade(1, Buy, 1_000, 10).fee, Money(20));
    desk.send(Sell, 1_000, 10).unwrap();
    let (one, price, quantity) = (instrument(1, 1), Price(1_000), Quantity(10));
    let fill =
        desk.risk.fill(0, &one, CLIENT, Sell, price, price, quantity, Liquidity::Maker, true);
    assert_eq!((fill.fee, desk.figures().fees), (Money(-10), 10));
}

#[test]
fn a_fill_sets_the_reference_and_marks_its_own_client() {
    let mut desk = limited(|limits| limits.max_loss = Money(1_000_000));
    for id in 1..=6 {
        desk.trade(id, Buy, 10, 1);
    }
    assert_eq!(desk.figures().gross, 60);
    // Another client trades in all of them: the marks follow two by two as this one sends.
    for id in 1..=6 {
        let (one, price) = (instrument(id, 1), Price(20));
        let order_type = OrderType::Limit;
        let (client, side, quantity) = (OTHER, Sell, Quantity(1));
        let order = Intent { client, side, order_type, price, quantity };
        desk.risk.admit(0, &one, &order).unwrap();
        desk.risk.fill(0, &one, OTHER, Sell, price, price, quantity, Liquidity::Maker, true);
        assert_eq!(desk.risk.reference(InstrumentId(id)), Some(price));
    }
    assert_eq!(desk.figures().gross, 60);
    let gross = [0; 4].map(|_| {
        assert!(desk.send_in(7, Buy, 1, 1).is_ok());
        desk.figures().gross - i128::from(desk.figures().open_orders)
    });
    assert_eq!((gross[0], gross[3]), (80, 120));
    desk.reference(3, 0);
    assert_eq!(desk.figures().gross, 124, "without a reference the mark stays");
}

#[test]
fn nonsense_is_not_loaded_and_leaves_the_state() {
    let mut desk = limited(|limits| limits.max_orders_per_second = 9);
    desk.trade(1, Buy, 10, 1);
    desk.trade(2, Sell, 10, 1);
    desk.send_in(3, Sell, 7, 2).unwrap();
    desk.send_in(3, Buy, 7, 2).unwrap();
    let saved = desk.saved();
    for end in 0..saved.len() {
        let loaded = desk.risk.load(&mut ImageReader::new(&saved[..end]));
        assert!(loaded.is_err(), "{end} bytes of {}", saved.len());
    }
    // Whatever is loaded can be worked with and saves what it was loaded from.
    for at in 0..saved.len() {
        for byte in [0, 1, 0x7F, 0x80, 0xFF] {
            let mut bytes = saved.clone();
            bytes[at] = byte;
            let mut other = limited(|_| {});
            match other.risk.load(&mut ImageReader::new(&bytes)) {
                Ok(()) => assert!(bytes.starts_with(&other.saved()), "byte {at}"),
                Err(_) => assert_eq!(other.saved(), limited(|_| {}).saved()),
            }
            for id in 1..=4 {
                let _ = other.send_in(id, Buy, 3, 1);
                other.reference(id, 12);
            }
            other.figures();
        }
    }
    assert!(Risk::new(4, 2).load(&mut ImageReader::new(&saved)).is_err());
    assert!(Risk::new(0, 4).load(&mut ImageReader::new(&saved)).is_err());
    assert_eq!(desk.saved(), saved);
    let mut other = Desk { risk: Risk::new(100, 50), now_ns: 0 };
    other.risk.load(&mut ImageReader::new(&saved)).unwrap();
    assert_eq!((other.saved(), other.figures()), (saved, desk.figures()));
}
