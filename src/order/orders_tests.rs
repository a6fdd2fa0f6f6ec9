//! The table's names, lists and saved bytes.

use super::*;

fn order(order_id: u64, client: u16, name: u64) -> Order {
    Order {
        order_id: OrderId(order_id),
        client_order_id: ClientOrderId(name),
        client: ClientId(client),
        instrument: InstrumentId(1),
        side: Side::Buy,
        order_type: OrderType::Limit,
        time_in_force: TimeInForce::Day,
        post_only: false,
        price: Price(100),
        quantity: Quantity(10),
        filled: Quantity(3),
        reserved_price: Price(100),
        reserved_quantity: Quantity(7),
        last_match: 4,
        accepted: true,
        change: None,
        cancelling: None,
        must_go: None,
    }
}

fn insert(orders: &mut Orders, order: Order) -> Place {
    assert!(orders.has_room(order.client));
    orders.use_up(order.client, order.client_order_id);
    orders.insert(order)
}

fn ids<'a>(orders: impl Iterator<Item = &'a Order>) -> Vec<u64> {
    orders.map(|order| order.order_id.0).collect()
}

fn saved(orders: &Orders) -> Vec<u8> {
    let mut image = Vec::new();
    orders.save(&mut image);
    image
}

#[test]
fn a_client_order_id_is_used_up_by_any_larger_one() {
    let mut orders = Orders::new(2, 4);
    let (one, two) = (ClientId(1), ClientId(2));
    assert!(!orders.use_up(one, ClientOrderId(0)));
    assert!(orders.use_up(one, ClientOrderId(5)));
    assert!(!orders.use_up(one, ClientOrderId(5)));
    assert!(!orders.use_up(one, ClientOrderId(4)));
    assert!(orders.use_up(two, ClientOrderId(4)));
    assert!(!orders.use_up(ClientId(3), ClientOrderId(9)), "a client that does not fit");
    assert_eq!((orders.used(one), orders.used(two)), (ClientOrderId(5), ClientOrderId(4)));
}

#[test]
fn orders_stand_by_client_as_they_came() {
    let mut orders = Orders::new(2, 5);
    let places: Vec<_> = [(10, 2, 1), (11, 1, 1), (12, 2, 2), (13, 2, 3), (14, 1, 2)]
        .map(|(id, client, name)| insert(&mut orders, order(id, client, name)))
        .into();
    assert!(!orders.has_room(ClientId(1)));
    assert_eq!(ids(orders.iter()), [11, 14, 10, 12, 13]);

    orders.remove(places[2]);
    assert_eq!(ids(orders.of(ClientId(2))), [10, 13]);
    insert(&mut orders, order(15, 2, 4));
    orders.remove(places[0]);
    assert_eq!(ids(orders.of(ClientId(2))), [13, 15]);
    assert_eq!((orders.open(ClientId(1)), orders.open(ClientId(2)), orders.len()), (2, 2, 4));
    assert!(!orders.has_room(ClientId::NONE) && !orders.has_room(ClientId(3)));
}

#[test]
fn an_order_goes_by_its_coming_name_as_well() {
    let mut orders = Orders::new(1, 1);
    let client = ClientId(1);
    let names = |orders: &Orders| {
        [7, 8].map(|name| orders.get_by_client(client, ClientOrderId(name)).is_some())
    };
    let change =
        Change { client_order_id: ClientOrderId(8), price: Price(1), quantity: Quantity(9) };
    let place = insert(&mut orders, order(1, 1, 7));
    orders.set_change(place, change);
    assert_eq!(names(&orders), [true, true]);
    assert_eq!(orders.forget_change(place), Some(change));
    assert_eq!(names(&orders), [true, false]);

    orders.set_change(place, change);
    assert_eq!(orders.rename(place), ClientOrderId(7));
    assert_eq!(names(&orders), [false, true]);

    orders.set_change(place, Change { client_order_id: ClientOrderId(9), ..change });
    assert!(orders.remove(place).change.is_some());
    assert_eq!(names(&orders), [false, false]);
    assert!(orders.by_client.is_empty() && orders.by_id.is_empty());
}

#[test]
fn names_of_two_clients_are_told_apart() {
    let mut orders = Orders::new(3, 2);
    // The same digest: the client's number stands in the upper bits of the other's name.
    insert(&mut orders, order(1, 1, 3 << 48));
    insert(&mut orders, order(2, 3, 1 << 48));
    let found = |client, name| {
        orders.get_by_client(ClientId(client), ClientOrderId(name)).map(|order| order.order_id.0)
    };
    assert_eq!((found(1, 3 << 48), found(3, 1 << 48)), (Some(1), Some(2)));
    assert_eq!((found(2, 2 << 48), found(1, 1 << 48)), (None, None));
}

#[test]
fn equal_orders_save_equal_bytes_wherever_they_lie() {
    let mut orders = Orders::new(2, 3);
    let gone = insert(&mut orders, order(1, 1, 1));
    let changed = insert(&mut orders, order(2, 2, 1));
    orders.remove(gone);
    insert(&mut orders, order(3, 1, 2)); // where the first one lay
    orders.use_up(ClientId(2), ClientOrderId(6));
    let change =
        Change { client_order_id: ClientOrderId(6), price: Price(5), quantity: Quantity(99) };
    orders.set_change(changed, change);
    orders.at_mut(changed).cancelling =
        Some(Cancelling { reason: CancelReason::KillSwitch, command: 18, named: ClientOrderId(0) });
    orders.at_mut(changed).must_go =
        Some(MustGo { reason: CancelReason::KillSwitch, command: 18, tries: 3 });

    let image = saved(&orders);
    let mut copy = Orders::new(5, 9);
    copy.load(&mut ImageReader::new(&image)).unwrap();
    assert_eq!(saved(&copy), image);
    assert!(copy.iter().eq(orders.iter()));
    assert_eq!(copy.last_id(), OrderId(3));
    assert!(copy.get_by_client(ClientId(2), ClientOrderId(6)).is_some());
}

#[test]
fn what_is_no_table_leaves_an_empty_one() {
    let mut orders = Orders::new(2, 3);
    insert(&mut orders, order(1, 1, 1));
    insert(&mut orders, order(2, 2, 1));
    let image = saved(&orders);
    let empty = saved(&Orders::new(2, 3));
    for length in 0..image.len() {
        assert!(orders.load(&mut ImageReader::new(&image[..length])).is_err(), "{length}");
        assert_eq!(saved(&orders), empty);
    }
    let twice = [&image[..image.len() - 4], &[9; 4]].concat();
    assert!(orders.load(&mut ImageReader::new(&twice)).is_err());
    assert!(Orders::new(1, 3).load(&mut ImageReader::new(&image)).is_err(), "too few clients");
    assert!(Orders::new(2, 1).load(&mut ImageReader::new(&image)).is_err(), "too few orders");
    assert!(orders.load(&mut ImageReader::new(&image)).is_ok());
}
