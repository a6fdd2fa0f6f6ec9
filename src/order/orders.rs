//! The order table: what is open, found by order id and by the client's own id, and each client's
//! orders in the order in which they came.
//!
//! A slab with intrusive lists: no allocation once made but for the first use of each place, no
//! search. Finished orders are forgotten. That a client order id was used is known all the same,
//! for they only ever rise: see [`Orders::use_up`].

use super::field::{
    CancelReason, ClientOrderId, InstrumentId, OrderId, OrderType, Price, Quantity, Side,
    TimeInForce,
};
use super::id_map::IdMap;
use crate::sequencer::{ClientId, ImageReader, ImageWriter, LoadError};

/// No place in the slab.
const NONE: u32 = u32::MAX;
/// The fewest bytes that a saved order takes.
const SAVED_BYTES: usize = 81;

/// A change that a venue was asked for and has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What the order will be called.
    pub client_order_id: ClientOrderId,
    /// The limit that was asked for.
    pub price: Price,
    /// The quantity that was asked for, what has been filled included.
    pub quantity: Quantity,
}

/// A cancel that a venue was asked for and has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cancelling {
    /// Why.
    pub reason: CancelReason,
    /// Template id of the command that it came by; 0 if by none.
    pub command: u16,
    /// The name that the client's command gave the order; 0 if it gave none, and is answered with
    /// the name that the order has by then.
    pub named: ClientOrderId,
}

impl Cancelling {
    /// What its answer calls the order.
    pub(crate) fn name(&self, order: &Order) -> ClientOrderId {
        if self.named.0 == 0 { order.client_order_id } else { self.named }
    }
}

/// That an order has to leave the market, whatever its client wants, until it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MustGo {
    /// Why.
    pub reason: CancelReason,
    /// Template id of the command behind it; 0 if there is none.
    pub command: u16,
    /// How often it was asked for again because the venue refused.
    pub tries: u8,
}

/// An open order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which.
    pub order_id: OrderId,
    /// What its client calls it.
    pub client_order_id: ClientOrderId,
    /// Whose.
    pub client: ClientId,
    /// Of what.
    pub instrument: InstrumentId,
    /// Which way.
    pub side: Side,
    /// With a price or without.
    pub order_type: OrderType,
    /// How long it stands.
    pub time_in_force: TimeInForce,
    /// Whether it must not trade at once.
    pub post_only: bool,
    /// The limit.
    pub price: Price,
    /// How much was ordered.
    pub quantity: Quantity,
    /// How much of it has been filled.
    pub filled: Quantity,
    /// The price that its exposure is reserved at.
    pub reserved_price: Price,
    /// How much is reserved for it: what is open, or more while a change is asked for.
    pub reserved_quantity: Quantity,
    /// Number of its last fill's trade; 0 if it has none.
    pub last_match: u64,
    /// Whether the venue has taken it.
    pub accepted: bool,
    /// The change that is asked for.
    pub change: Option<Change>,
    /// The cancel that is asked for. Behind the change, if there are both.
    pub cancelling: Option<Cancelling>,
    /// That it has to leave. While the venue refuses, no cancel is asked for.
    pub must_go: Option<MustGo>,
}

impl Order {
    /// What is still to be traded.
    #[inline]
    pub fn leaves(&self) -> Quantity {
        Quantity(self.quantity.0 - self.filled.0)
    }

    fn goes_by(&self, client: ClientId, id: ClientOrderId) -> bool {
        let coming = self.change.is_some_and(|change| change.client_order_id == id);
        self.client == client && (self.client_order_id == id || coming)
    }
}

/// A place in the table. Good until the order is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(u32);

#[derive(Clone, Copy, Debug)]
struct Slot {
    order: Order,
    before: u32,
    /// The client's next order; of a vacant slot, the next vacant one.
    behind: u32,
}

/// What is known of a client.
#[derive(Clone, Copy, Debug)]
struct Owner {
    first: u32,
    last: u32,
    open: u32,
    /// The largest client order id that it has used.
    used: ClientOrderId,
}

const NOBODY: Owner = Owner { first: NONE, last: NONE, open: 0, used: ClientOrderId(0) };

/// All open orders.
#[derive(Clone, Debug)]
pub struct Orders {
    slots: Vec<Slot>,
    vacant: u32,
    capacity: u32,
    by_id: IdMap,
    /// Both names of an order that is about to change its name.
    by_client: IdMap,
    owners: Box<[Owner]>,
    /// The last order id that was given.
    last_id: OrderId,
}

impl Orders {
    /// Room for `orders` open orders of clients 1 to `clients`.
    pub fn new(clients: u16, orders: u32) -> Self {
        let capacity = orders.min(NONE - 1);
        Self {
            slots: Vec::with_capacity(capacity as usize),
            vacant: NONE,
            capacity,
            by_id: IdMap::new(capacity as usize),
            by_client: IdMap::new(2 * capacity as usize),
            owners: vec![NOBODY; usize::from(clients) + 1].into(),
            last_id: OrderId(0),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// How many of a client's there are.
    pub fn open(&self, client: ClientId) -> u32 {
        self.owners.get(usize::from(client.0)).map_or(0, |owner| owner.open)
    }

    /// The largest client order id that a client has used, 0 if none.
    pub fn used(&self, client: ClientId) -> ClientOrderId {
        self.owners.get(usize::from(client.0)).map_or(ClientOrderId(0), |owner| owner.used)
    }

    /// The largest order id that has been given, 0 if none.
    pub fn last_id(&self) -> OrderId {
        self.last_id
    }

    /// An open order.
    pub fn get(&self, order_id: OrderId) -> Option<&Order> {
        self.find(order_id).map(|place| self.at(place))
    }

    /// An open order by what its client calls it, or will call it when the change that is asked
    /// for is done.
    pub fn get_by_client(&self, client: ClientId, id: ClientOrderId) -> Option<&Order> {
        self.find_by_client(client, id).map(|place| self.at(place))
    }

    /// All of them: by client, and of each client as they came.
    pub fn iter(&self) -> impl Iterator<Item = &Order> {
        self.clients().flat_map(|client| self.of(client))
    }

    /// A client's, as they came.
    pub fn of(&self, client: ClientId) -> impl Iterator<Item = &Order> {
        let first = self.first(client);
        std::iter::successors(first, |&place| self.behind(place)).map(|place| self.at(place))
    }

    /// Whether a client's id was larger than all it has used. From now on it is used.
    pub(crate) fn use_up(&mut self, client: ClientId, id: ClientOrderId) -> bool {
        let served = client != ClientId::NONE;
        match self.owners.get_mut(usize::from(client.0)).filter(|_| served) {
            Some(owner) if id > owner.used => {
                owner.used = id;
                true
            }
            _ => false,
        }
    }

    /// Whether one more of this client's fits.
    pub(crate) fn has_room(&self, client: ClientId) -> bool {
        self.len() < self.capacity as usize && self.serves(client)
    }

    /// Whether the table was made for this client.
    pub(crate) fn serves(&self, client: ClientId) -> bool {
        client != ClientId::NONE && usize::from(client.0) < self.owners.len()
    }

    /// All clients that it was made for.
    pub(crate) fn clients(&self) -> impl Iterator<Item = ClientId> + use<> {
        (1..self.owners.len()).map(|client| ClientId(client as u16))
    }

    pub(crate) fn find(&self, order_id: OrderId) -> Option<Place> {
        self.by_id.get(order_id.0).map(Place)
    }

    pub(crate) fn find_by_client(&self, client: ClientId, id: ClientOrderId) -> Option<Place> {
        let is_it = |place| self.at(Place(place)).goes_by(client, id);
        self.by_client.find(digest(client, id), is_it).map(Place)
    }

    pub(crate) fn at(&self, place: Place) -> &Order {
        &self.slots[place.0 as usize].order
    }

    /// The order, to be changed in all but its names and its owner.
    pub(crate) fn at_mut(&mut self, place: Place) -> &mut Order {
        &mut self.slots[place.0 as usize].order
    }

    /// A client's first.
    pub(crate) fn first(&self, client: ClientId) -> Option<Place> {
        let owner = self.owners.get(usize::from(client.0))?;
        (owner.first != NONE).then_some(Place(owner.first))
    }

    /// The same client's next.
    pub(crate) fn behind(&self, place: Place) -> Option<Place> {
        let behind = self.slots[place.0 as usize].behind;
        (behind != NONE).then_some(Place(behind))
    }

    /// Adds an order, the last of its client's. The caller has asked whether it
    /// [has room](Self::has_room).
    pub(crate) fn insert(&mut self, order: Order) -> Place {
        let owner = &mut self.owners[usize::from(order.client.0)];
        let slot = Slot { order, before: owner.last, behind: NONE };
        let at = if self.vacant == NONE {
            self.slots.push(slot);
            self.slots.len() as u32 - 1
        } else {
            let at = self.vacant;
            self.vacant = std::mem::replace(&mut self.slots[at as usize], slot).behind;
            at
        };
        match owner.last {
            NONE => owner.first = at,
            last => self.slots[last as usize].behind = at,
        }
        owner.last = at;
        owner.open += 1;
        self.last_id = self.last_id.max(order.order_id);
        let mut entered = self.by_id.insert(order.order_id.0, at);
        entered &= self.by_client.insert(digest(order.client, order.client_order_id), at);
        debug_assert!(entered, "the maps are as large as the slab");
        Place(at)
    }

    /// Takes an order out.
    pub(crate) fn remove(&mut self, place: Place) -> Order {
        let Slot { order, before, behind } = self.slots[place.0 as usize];
        self.forget_change(place);
        let owner = &mut self.owners[usize::from(order.client.0)];
        match before {
            NONE => owner.first = behind,
            before => self.slots[before as usize].behind = behind,
        }
        match behind {
            NONE => owner.last = before,
            behind => self.slots[behind as usize].before = before,
        }
        owner.open -= 1;
        self.by_id.remove(order.order_id.0);
        self.unname(place, order.client_order_id);
        self.slots[place.0 as usize].behind = self.vacant;
        self.vacant = place.0;
        order
    }

    /// Remembers the change that is asked for, so that the order goes by its coming name as well.
    pub(crate) fn set_change(&mut self, place: Place, change: Change) {
        self.forget_change(place);
        self.at_mut(place).change = Some(change);
        let client = self.at(place).client;
        let entered = self.by_client.insert(digest(client, change.client_order_id), place.0);
        debug_assert!(entered, "there is room for two names of each order");
    }

    /// The change that was asked for will not be.
    pub(crate) fn forget_change(&mut self, place: Place) -> Option<Change> {
        let change = self.at_mut(place).change.take()?;
        self.unname(place, change.client_order_id);
        Some(change)
    }

    /// The order goes by its coming name alone. Returns the one it had.
    pub(crate) fn rename(&mut self, place: Place) -> ClientOrderId {
        let order = self.at_mut(place);
        let original = order.client_order_id;
        if let Some(change) = order.change.take() {
            order.client_order_id = change.client_order_id;
            self.unname(place, original);
        }
        original
    }

    fn unname(&mut self, place: Place, id: ClientOrderId) {
        let client = self.at(place).client;
        self.by_client.remove_where(digest(client, id), |at| at == place.0);
    }

    /// Appends all of it to a snapshot: equal for equal orders, wherever in the slab they lie.
    pub fn save(&self, out: &mut Vec<u8>) {
        let mut image = ImageWriter::new(out);
        image.u64(self.last_id.0);
        let known = |owner: &&Owner| owner.used.0 != 0;
        image.u32(self.owners.iter().filter(known).count() as u32);
        for (client, owner) in self.owners.iter().enumerate().filter(|(_, owner)| known(owner)) {
            image.u16(client as u16);
            image.u64(owner.used.0);
        }
        image.u32(self.len() as u32);
        for order in self.iter() {
            save_order(order, &mut image);
        }
    }

    /// Replaces all of it by what was saved. The capacities stay as they are.
    ///
    /// # Errors
    /// [`LoadError`] if the bytes are no order table, or one that does not fit; it is then empty.
    pub fn load(&mut self, image: &mut ImageReader<'_>) -> Result<(), LoadError> {
        self.clear();
        let loaded = self.load_all(image);
        if loaded.is_err() {
            self.clear();
        }
        loaded
    }

    fn load_all(&mut self, image: &mut ImageReader<'_>) -> Result<(), LoadError> {
        let last_id = OrderId(image.u64("last order id")?);
        for _ in 0..image.count(10, "clients with orders")? {
            let client = ClientId(image.u16("client")?);
            let used = ClientOrderId(image.u64("largest client order id")?);
            if !self.serves(client) || !self.use_up(client, used) {
                return Err(LoadError { what: "a client that fits, and is there once" });
            }
        }
        for _ in 0..image.count(SAVED_BYTES, "open orders")? {
            let mut order = load_order(image)?;
            let change = order.change.take();
            let (used, last) = (self.used(order.client), change.map(|c| c.client_order_id));
            let named =
                order.client_order_id.0 > 0 && last.unwrap_or(order.client_order_id) <= used;
            let is_new = self.find(order.order_id).is_none()
                && self.find_by_client(order.client, order.client_order_id).is_none()
                && last.is_none_or(|id| self.find_by_client(order.client, id).is_none());
            let sound = named && is_new && order.order_id.0 > 0 && order.order_id <= last_id;
            if !(sound && self.has_room(order.client)) {
                return Err(LoadError { what: "an order that fits, and is there once" });
            }
            let place = self.insert(order);
            if let Some(change) = change {
                self.set_change(place, change);
            }
        }
        self.last_id = last_id;
        Ok(())
    }

    fn clear(&mut self) {
        self.slots.clear();
        self.vacant = NONE;
        self.by_id.clear();
        self.by_client.clear();
        self.owners.fill(NOBODY);
        self.last_id = OrderId(0);
    }
}

/// One number for both halves of a name; not only for one.
#[inline]
fn digest(client: ClientId, id: ClientOrderId) -> u64 {
    id.0 ^ u64::from(client.0) << 48
}

fn save_order(order: &Order, image: &mut ImageWriter<'_>) {
    image.u64(order.order_id.0);
    image.u64(order.client_order_id.0);
    image.u16(order.client.0);
    image.u32(order.instrument.0);
    image.u8(order.side as u8);
    image.u8(order.order_type as u8);
    image.u8(order.time_in_force as u8);
    image.u8(u8::from(order.post_only));
    image.i64(order.price.0);
    image.u64(order.quantity.0);
    image.u64(order.filled.0);
    image.i64(order.reserved_price.0);
    image.u64(order.reserved_quantity.0);
    image.u64(order.last_match);
    image.u8(u8::from(order.accepted));
    image.u8(order.cancelling.map_or(0, |cancelling| cancelling.reason as u8));
    if let Some(cancelling) = order.cancelling {
        image.u16(cancelling.command);
        image.u64(cancelling.named.0);
    }
    image.u8(order.must_go.map_or(0, |must_go| must_go.reason as u8));
    if let Some(must_go) = order.must_go {
        image.u16(must_go.command);
        image.u8(must_go.tries);
    }
    image.u64(order.change.map_or(0, |change| change.client_order_id.0));
    if let Some(change) = order.change {
        image.i64(change.price.0);
        image.u64(change.quantity.0);
    }
}

fn load_order(image: &mut ImageReader<'_>) -> Result<Order, LoadError> {
    fn known<T>(value: Option<T>, what: &'static str) -> Result<T, LoadError> {
        value.ok_or(LoadError { what })
    }
    fn flag(image: &mut ImageReader<'_>, what: &'static str) -> Result<bool, LoadError> {
        let byte = image.u8(what)?;
        known((byte <= 1).then_some(byte == 1), what)
    }
    let mut order = Order {
        order_id: OrderId(image.u64("order id")?),
        client_order_id: ClientOrderId(image.u64("client order id")?),
        client: ClientId(image.u16("client")?),
        instrument: InstrumentId(image.u32("instrument")?),
        side: known(Side::of(image.u8("side")?), "side")?,
        order_type: known(OrderType::of(image.u8("order type")?), "order type")?,
        time_in_force: known(TimeInForce::of(image.u8("time in force")?), "time in force")?,
        post_only: flag(image, "post only")?,
        price: Price(image.i64("price")?),
        quantity: Quantity(image.u64("quantity")?),
        filled: Quantity(image.u64("filled")?),
        reserved_price: Price(image.i64("reserved price")?),
        reserved_quantity: Quantity(image.u64("reserved quantity")?),
        last_match: image.u64("last match")?,
        accepted: flag(image, "accepted")?,
        change: None,
        cancelling: None,
        must_go: None,
    };
    let cancel = image.u8("cancelling")?;
    if cancel != 0 {
        let reason = known(CancelReason::of(cancel), "cancelling")?;
        let command = image.u16("cancelling")?;
        let named = ClientOrderId(image.u64("cancelling")?);
        order.cancelling = Some(Cancelling { reason, command, named });
    }
    let must_go = image.u8("why it must go")?;
    if must_go != 0 {
        let reason = known(CancelReason::of(must_go), "why it must go")?;
        let (command, tries) = (image.u16("why it must go")?, image.u8("why it must go")?);
        order.must_go = Some(MustGo { reason, command, tries });
    }
    let client_order_id = ClientOrderId(image.u64("change")?);
    if client_order_id.0 != 0 {
        let (price, quantity) = (Price(image.i64("change")?), Quantity(image.u64("change")?));
        order.change = Some(Change { client_order_id, price, quantity });
    }
    if order.filled >= order.quantity || order.reserved_quantity < order.leaves() {
        return Err(LoadError { what: "an order with something open, and reserved" });
    }
    Ok(order)
}

#[cfg(test)]
#[path = "orders_tests.rs"]
mod tests;
