//! Tests of the table of instruments.

use super::*;

fn define(id: u32, symbol: &str) -> DefineInstrument {
    DefineInstrument {
        symbol: Symbol::new(symbol).unwrap(),
        tick: Price(5),
        lot: Quantity(10),
        multiplier: 100,
        reference: Price(0),
        instrument: InstrumentId(id),
        price_exponent: -2,
        state: MarketState::Open,
    }
}

fn found(instruments: &Instruments, symbol: &str) -> Option<u32> {
    instruments.find(Symbol::new(symbol).unwrap()).map(|instrument| instrument.id.0)
}

#[test]
fn an_instrument_is_found_by_number_and_by_symbol() {
    let mut instruments = Instruments::new(3);
    for (id, symbol) in [(3, "B"), (1, "C"), (2, "A")] {
        assert_eq!(instruments.define(&define(id, symbol)), Ok(()));
    }
    assert_eq!(instruments.iter().map(|i| i.id.0).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(
        ["A", "B", "C", "D"].map(|s| found(&instruments, s)),
        [Some(2), Some(3), Some(1), None]
    );
    assert_eq!(instruments.get(InstrumentId(3)).map(|i| i.symbol), Symbol::new("B"));
    assert!([0, 4, u32::MAX].iter().all(|&id| instruments.get(InstrumentId(id)).is_none()));
    assert_eq!((instruments.len(), instruments.is_empty(), instruments.capacity()), (3, false, 3));
}

#[test]
fn an_instrument_without_sense_is_refused_and_changes_nothing() {
    let mut instruments = Instruments::new(2);
    instruments.define(&define(1, "A")).unwrap();
    let mut before = Vec::new();
    instruments.save(&mut before);
    type Spoil = fn(&mut DefineInstrument);
    let spoils: [(Spoil, Reason); 11] = [
        (|d| d.instrument.0 = 0, Reason::UnknownInstrument),
        (|d| d.instrument.0 = 3, Reason::Capacity),
        (|d| d.instrument.0 = u32::MAX, Reason::Capacity),
        (|d| d.tick.0 = 0, Reason::InvalidTick),
        (|d| d.tick.0 = i64::MIN, Reason::InvalidTick),
        (|d| d.lot.0 = 0, Reason::InvalidLot),
        (|d| d.multiplier = 0, Reason::Malformed),
        (|d| d.price_exponent = 19, Reason::Malformed),
        (|d| d.price_exponent = -19, Reason::Malformed),
        (|d| d.reference.0 = -1, Reason::InvalidPrice),
        (|d| d.symbol = Symbol::new("A").unwrap(), Reason::Malformed),
    ];
    for (spoil, reason) in spoils {
        let mut message = define(2, "B");
        spoil(&mut message);
        assert_eq!(instruments.define(&message), Err(reason), "{message:?}");
    }
    let mut after = Vec::new();
    instruments.save(&mut after);
    assert_eq!(before, after);
    for exponent in [-18, 18] {
        let message = DefineInstrument { price_exponent: exponent, ..define(2, "B") };
        assert_eq!(instruments.define(&message), Ok(()));
    }
}

#[test]
fn a_redefinition_takes_the_place_and_frees_the_old_symbol() {
    let mut instruments = Instruments::new(2);
    instruments.define(&define(1, "OLD")).unwrap();
    let again = DefineInstrument { tick: Price(7), ..define(1, "OLD") };
    assert_eq!(instruments.define(&again), Ok(()));
    assert_eq!(instruments.get(InstrumentId(1)).unwrap().tick, Price(7));
    assert_eq!(instruments.define(&define(1, "NEW")), Ok(()));
    assert_eq!((found(&instruments, "OLD"), found(&instruments, "NEW")), (None, Some(1)));
    assert_eq!(instruments.define(&define(2, "OLD")), Ok(()));
    assert_eq!((found(&instruments, "OLD"), instruments.len()), (Some(2), 2));
}

#[test]
fn a_market_is_opened_and_closed_alone_or_with_all() {
    let mut instruments = Instruments::new(3);
    instruments.define(&define(1, "A")).unwrap();
    instruments.define(&define(3, "C")).unwrap();
    let states = |table: &Instruments| table.iter().map(|i| i.state).collect::<Vec<_>>();
    assert_eq!(instruments.set_state(InstrumentId(3), MarketState::Halted), Ok(()));
    assert_eq!(states(&instruments), [MarketState::Open, MarketState::Halted]);
    assert_eq!(instruments.set_state(InstrumentId(0), MarketState::Closed), Ok(()));
    assert_eq!(states(&instruments), [MarketState::Closed; 2]);
    for unknown in [2, 4, u32::MAX] {
        let set = instruments.set_state(InstrumentId(unknown), MarketState::Open);
        assert_eq!(set, Err(Reason::UnknownInstrument));
    }
}

#[test]
fn worth_is_exact_or_nothing() {
    let mut instruments = Instruments::new(1);
    instruments.define(&DefineInstrument { multiplier: 2, ..define(1, "A") }).unwrap();
    let instrument = instruments.get(InstrumentId(1)).unwrap();
    let half = i64::MAX / 2;
    assert_eq!(instrument.notional(Price(half), Quantity(1)), Some(Money(i64::MAX - 1)));
    assert_eq!(instrument.notional(Price(half + 1), Quantity(1)), None);
    assert_eq!(instrument.notional(Price(1), Quantity(half as u64)), Some(Money(i64::MAX - 1)));
    assert_eq!(instrument.notional(Price(1), Quantity(half as u64 + 1)), None);
    assert_eq!(instrument.notional(Price(1), Quantity(u64::MAX)), None);
    let huge = Instrument { multiplier: u64::MAX, ..*instrument };
    assert_eq!(huge.unit_value(Price(1)), None);
}

#[test]
fn a_saved_table_is_loaded_equal_and_saves_the_same_bytes() {
    let mut instruments = Instruments::new(9);
    for (id, symbol) in [(9, "Z"), (2, "SIXTEEN-BYTES-OK"), (4, "M")] {
        instruments.define(&define(id, symbol)).unwrap();
    }
    instruments.set_state(InstrumentId(4), MarketState::Halted).unwrap();
    let mut saved = Vec::new();
    instruments.save(&mut saved);
    let mut loaded = Instruments::new(12);
    loaded.define(&define(1, "GONE")).unwrap();
    let mut image = ImageReader::new(&saved);
    loaded.load(&mut image).unwrap();
    image.finish("nothing more").unwrap();
    assert!(loaded.iter().eq(instruments.iter()));
    assert_eq!((found(&loaded, "Z"), found(&loaded, "GONE")), (Some(9), None));
    let mut again = Vec::new();
    loaded.save(&mut again);
    assert_eq!(saved, again);
}

#[test]
fn nonsense_is_not_loaded_and_leaves_the_state() {
    let mut instruments = Instruments::new(4);
    instruments.define(&define(1, "A")).unwrap();
    instruments.define(&define(2, "B")).unwrap();
    let mut saved = Vec::new();
    instruments.save(&mut saved);
    for end in 0..saved.len() {
        assert!(instruments.load(&mut ImageReader::new(&saved[..end])).is_err(), "{end} bytes");
    }
    let mut twice = saved.clone();
    twice.copy_within(4..4 + SAVED_BYTES, 4 + SAVED_BYTES);
    assert!(instruments.load(&mut ImageReader::new(&twice)).is_err());
    let mut same_symbol = saved.clone();
    same_symbol.copy_within(8..24, 8 + SAVED_BYTES);
    assert!(instruments.load(&mut ImageReader::new(&same_symbol)).is_err());
    let mut no_tick = saved.clone();
    no_tick[24..32].fill(0);
    assert!(instruments.load(&mut ImageReader::new(&no_tick)).is_err());
    assert!(Instruments::new(1).load(&mut ImageReader::new(&saved)).is_err());
    let mut still = Vec::new();
    instruments.save(&mut still);
    assert_eq!(saved, still);
}
