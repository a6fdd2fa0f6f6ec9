//! Tests of limits.

use super::*;
use crate::sequencer::ClientId;

fn message() -> SetLimits {
    SetLimits {
        max_quantity: Quantity(1),
        max_notional: Money(2),
        max_position: Quantity(3),
        max_gross: Money(4),
        credit: Money(5),
        max_loss: Money(6),
        max_open_orders: 7,
        max_orders_per_second: 8,
        collar_basis_points: 9,
        reference_age_ms: 10,
        maker_fee_ppm: -11,
        taker_fee_ppm: 12,
        client: ClientId(1),
        self_match: SelfMatch::CancelStanding,
        cancel_on_disconnect: false,
        stop_on_breach: true,
    }
}

#[test]
fn limits_without_sense_are_invalid() {
    type Spoil = fn(&mut SetLimits);
    let spoils: [Spoil; 9] = [
        |m| m.max_notional.0 = -1,
        |m| m.max_gross.0 = i64::MIN,
        |m| m.credit.0 = -1,
        |m| m.max_loss.0 = -1,
        |m| m.max_position.0 = i64::MAX as u64 + 1,
        |m| m.maker_fee_ppm = 1_000_001,
        |m| m.maker_fee_ppm = -1_000_001,
        |m| m.taker_fee_ppm = i32::MIN,
        |m| m.taker_fee_ppm = i32::MAX,
    ];
    for spoil in spoils {
        let mut message = message();
        assert!(Limits::try_from(&message).is_ok());
        spoil(&mut message);
        assert_eq!(Limits::try_from(&message), Err(Reason::InvalidLimit), "{message:?}");
    }
    let edge = SetLimits {
        max_position: Quantity(i64::MAX as u64),
        max_loss: Money(i64::MAX),
        maker_fee_ppm: -1_000_000,
        taker_fee_ppm: 1_000_000,
        ..message()
    };
    assert!(Limits::try_from(&edge).is_ok());
}

#[test]
fn saved_limits_are_loaded_equal_and_odd_ones_not_at_all() {
    let limits = Limits::try_from(&message()).unwrap();
    let mut saved = Vec::new();
    limits.save(&mut ImageWriter::new(&mut saved));
    assert_eq!(Limits::load(&mut ImageReader::new(&saved)), Ok(limits));
    for end in 0..saved.len() {
        assert!(Limits::load(&mut ImageReader::new(&saved[..end])).is_err(), "{end} bytes");
    }
    for odd in [15, saved.len() - 3, saved.len() - 2, saved.len() - 1] {
        let mut bytes = saved.clone();
        bytes[odd] = 0xFF;
        assert!(Limits::load(&mut ImageReader::new(&bytes)).is_err(), "byte {odd}");
    }
}
