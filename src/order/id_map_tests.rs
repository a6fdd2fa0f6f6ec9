//! The map against the standard library's, and the corners that random walks seldom meet.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[test]
fn full_is_said_and_nothing_is_lost() {
    let mut map = IdMap::new(3);
    for key in 0..3 {
        assert!(map.insert(key, key as u32));
    }
    assert!(!map.insert(3, 3));
    assert_eq!((map.len(), map.get(3), map.get(0)), (3, None, Some(0)));
    assert_eq!(map.remove(1), Some(1));
    assert!(map.insert(3, 3));
    map.clear();
    assert!(map.is_empty() && map.get(3).is_none());
}

#[test]
fn a_map_without_room_takes_nothing() {
    let mut map = IdMap::new(0);
    assert!(!map.insert(1, 1));
    assert_eq!((map.get(1), map.remove(1)), (None, None));
}

#[test]
fn entries_of_one_key_are_told_apart() {
    let mut map = IdMap::new(4);
    for value in 0..4 {
        assert!(map.insert(9, value));
    }
    assert_eq!(map.find(9, |value| value == 2), Some(2));
    assert_eq!(map.remove_where(9, |value| value == 1), Some(1));
    assert_eq!(map.find(9, |value| value == 1), None);
    for value in [0, 2, 3] {
        assert_eq!(map.find(9, |found| found == value), Some(value));
    }
}

#[test]
fn a_day_of_orders_leaves_nothing_behind() {
    let mut map = IdMap::new(64);
    for id in 0..100_000_u64 {
        assert!(map.insert(id, id as u32));
        if let Some(old) = id.checked_sub(63) {
            assert_eq!(map.remove(old), Some(old as u32));
        }
    }
    assert_eq!(map.len(), 63);
    assert!(map.slots.iter().filter(|slot| slot.value != VACANT).count() == 63);
}

#[test]
#[should_panic(expected = "no value")]
fn the_empty_mark_is_no_value() {
    IdMap::new(1).insert(1, u32::MAX);
}

proptest! {
    #[test]
    fn equal_to_a_standard_map(
        steps in prop::collection::vec((0..24_u64, 0..1000_u32, any::<bool>()), 0..400),
    ) {
        let (mut map, mut model) = (IdMap::new(16), BTreeMap::new());
        for (key, value, add) in steps {
            if add && !model.contains_key(&key) {
                let fits = model.len() < 16;
                prop_assert_eq!(map.insert(key, value), fits);
                if fits {
                    model.insert(key, value);
                }
            } else if !add {
                prop_assert_eq!(map.remove(key), model.remove(&key));
            }
            prop_assert_eq!(map.len(), model.len());
            for key in 0..24 {
                prop_assert_eq!(map.get(key), model.get(&key).copied());
            }
        }
    }
}
