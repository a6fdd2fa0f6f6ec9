//! The engine: a client's command becomes an order, and what a venue does with it becomes events.
//!
//! For each record, what the venue has due by then comes first; then
//!
//! - a **command**: read ([`Reason::Malformed`], [`Reason::InvalidSide`]), allowed to the client's
//!   role ([`Reason::NotAuthorised`]), carried out. Traders trade; operators do as well, and say
//!   what can be traded, by whom and how much; the engine's one gateway brings reports.
//! - a client that is **gone**: its open orders are cancelled, if its limits say so. While the
//!   gateway is gone the venue counts as down: new orders are rejected ([`Reason::VenueDown`])
//!   until it is back.
//!
//! **Order of the checks** of a new order: instrument, market state, quantity, lot, price, tick,
//! combination, client order id, capacity; then [`Risk::admit`]. The first that fails is the
//! answer. A market order is immediate or cancel, or fill or kill; post-only takes a limit order
//! for the day.
//!
//! **Client order ids** rise. Whatever new order or replacement can be read and is allowed uses up
//! its id, and all below it, also if it is rejected.
//!
//! **Between asking and answer** an order is pending: one replacement may be asked for, and behind
//! it one cancel. Meanwhile it goes by both names (the coming one is never wrong, whichever of its
//! replacement and a cancel is faster), and what is dearer of both stays reserved.
//! If the order is through before the venue answers, they are answered with [`Reason::TooLate`].
//! That the engine's own cancels (of a kill switch, of a closing market) were refused is said to
//! the order's client, with the template id of the command behind it, or 0.
//!
//! **What must go** goes: what the engine itself wants out of the market (a kill switch, a closing
//! market, a client that is gone, a breach) is remembered on the order until it is through, though
//! the switch be released and the client be back. It is asked for again whenever the venue has
//! refused a request of the order's, up to [`CANCEL_TRIES_MAX`] times, and anew with each
//! connection of the venue. Such an order is not replaced ([`Reason::Pending`]).
//!
//! **Order ids** are sequence numbers, and finished orders are not remembered: a cancel by an order
//! id that is not open is [`Reason::TooLate`] if it is at most the last one that was given, be it
//! an order's or not, and [`Reason::UnknownOrder`] above that.
//!
//! **Reports** from a gateway are held against the order: one that cannot be true is answered with
//! [`Rejected`](super::messages::Rejected) and changes nothing. Trades of one order have rising
//! match ids, so that a report that comes twice is known for one; a gateway to a venue whose
//! numbers do not rise numbers them itself. A fill of an order that was not accepted accepts it.
//! A refusal answers the replacement, if there is one, and otherwise the cancel. Of an exchange in
//! the same process, reports of orders that are not open here are passed over: they are from before
//! the open, or crossed with another on the way.
//!
//! In steady state nothing is allocated, and nothing is recursive: what an order sets off, a breach
//! and its cancels included, goes through one queue of reports.

use super::field::{InstrumentId, Reason};
use super::instrument::Instruments;
use super::messages::{Message, Rejected, SCHEMA_ID};
use super::orders::Orders;
use super::risk::Risk;
use super::venue::{Report, Venue};
use crate::sequencer::{
    Application, ClientId, Events, ImageReader, ImageWriter, Kind, LoadError, Record, Role,
};

mod checks;
mod operating;
#[cfg(test)]
mod random_tests;
mod reporting;
mod trading;

/// Of the saved state.
const VERSION: u32 = 2;
/// Reports that one command may set off before the queue has to grow.
const REPORTS: usize = 1 << 12;

/// How often the engine asks again for a cancel that its venue refuses, before it waits for the
/// venue to be connected anew.
pub const CANCEL_TRIES_MAX: u8 = 8;

/// The largest latency that a venue can be given, ns: what is asked of it is due within a minute.
pub const VENUE_LATENCY_MAX_NS: u64 = 60_000_000_000;

/// What an engine has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// The largest client id that is served.
    pub clients: u16,
    /// The largest instrument id that can be defined.
    pub instruments: u32,
    /// Open orders of all clients together.
    pub orders: u32,
}

/// The order path's state machine, in front of a venue.
///
/// ```
/// use gapless::order::{Capacity, Engine, Remote};
/// use gapless::sequencer::{Application, ClientId};
///
/// let capacity = Capacity { clients: 100, instruments: 50, orders: 10_000 };
/// let engine = Engine::new(capacity, Remote::new()).with_gateway(ClientId(100));
/// let (mut saved, mut again) = (Vec::new(), Vec::new());
/// engine.save(&mut saved);
///
/// let mut copy = Engine::new(capacity, Remote::new()).with_gateway(ClientId(100));
/// copy.load(&saved)?;
/// copy.save(&mut again);
/// assert_eq!(saved, again);
/// # Ok::<(), gapless::sequencer::LoadError>(())
/// ```
pub struct Engine<V> {
    capacity: Capacity,
    instruments: Instruments,
    risk: Risk,
    orders: Orders,
    venue: V,
    gateway: ClientId,
    line: Line,
    /// What the venue has said and the engine has not heard. Empty between records.
    reports: Vec<Report>,
    /// The state at the beginning, saved.
    blank: Vec<u8>,
}

/// What there is between the engine and its venue.
#[derive(Clone, Copy)]
struct Line {
    /// As operators set it.
    connected: bool,
    latency_ns: u64,
    /// The gateway was here, and is no more.
    gateway_gone: bool,
}

const LINE: Line = Line { connected: true, latency_ns: 0, gateway_gone: false };

impl<V: Venue> Engine<V> {
    /// An engine that knows no instruments, in front of this venue.
    ///
    /// # Panics
    /// If there is no address space for so many pairs of clients and instruments.
    pub fn new(capacity: Capacity, venue: V) -> Self {
        let (clients, instruments) = (capacity.clients, capacity.instruments as usize);
        let engine = Self {
            capacity,
            instruments: Instruments::new(instruments),
            risk: Risk::new(usize::from(clients), instruments),
            orders: Orders::new(clients, capacity.orders),
            venue,
            gateway: ClientId::NONE,
            line: LINE,
            reports: Vec::with_capacity(REPORTS),
            blank: Vec::new(),
        };
        engine.begin()
    }

    /// Remembers the state at the beginning.
    fn begin(mut self) -> Self {
        let mut blank = Vec::new();
        self.save(&mut blank);
        self.blank = blank;
        self
    }

    /// The client that brings reports, and that requests of a [`Remote`](super::Remote) venue are
    /// addressed to. Without one, nobody may bring reports. To be said before any record.
    #[must_use]
    pub fn with_gateway(mut self, gateway: ClientId) -> Self {
        self.gateway = gateway;
        self.begin()
    }

    /// Where orders trade.
    pub fn venue(&self) -> &V {
        &self.venue
    }

    /// What can be traded.
    pub fn instruments(&self) -> &Instruments {
        &self.instruments
    }

    /// Limits, positions and exposures.
    pub fn risk(&self) -> &Risk {
        &self.risk
    }

    /// What is open.
    pub fn orders(&self) -> &Orders {
        &self.orders
    }

    fn restore(&mut self, saved: &[u8]) -> Result<(), LoadError> {
        let mut image = ImageReader::new(saved);
        if image.u32("version of an engine")? != VERSION {
            return Err(LoadError { what: "version 2 of an engine" });
        }
        let Capacity { clients, instruments, orders } = self.capacity;
        let same = image.u16("clients of an engine")? == clients
            && image.u32("instruments of an engine")? == instruments
            && image.u32("orders of an engine")? == orders
            && image.u16("gateway of an engine")? == self.gateway.0;
        if !same {
            return Err(LoadError { what: "an engine of the same capacity and gateway" });
        }
        self.line = load_line(&mut image, self.gateway)?;
        self.instruments.load(&mut image)?;
        self.orders.load(&mut image)?;
        self.risk.load(&mut image)?;
        self.venue.load(&mut image)?;
        image.finish("the end of an engine")?;
        let known = |id: InstrumentId| self.instruments.get(id).is_some();
        if !self.orders.iter().all(|order| known(order.instrument)) {
            return Err(LoadError { what: "orders of known instruments" });
        }
        let counted = |client| self.risk.figures(client).map_or(0, |figures| figures.open_orders);
        if !self.orders.clients().all(|client| self.orders.open(client) == counted(client)) {
            return Err(LoadError { what: "as many orders as are reserved for" });
        }
        Ok(())
    }
}

impl<V: Venue> Application for Engine<V> {
    fn apply(&mut self, record: &Record<'_>, events: &mut Events) {
        let Record { client, sequence, time_ns: now_ns, .. } = *record;
        let mut step = Step { engine: self, events, client, sequence, now_ns };
        step.advance();
        match record.kind {
            Kind::Command => step.command(Role::of(record.code), record.payload),
            Kind::Connected => step.here(),
            Kind::Disconnected => step.gone(),
            _ => {}
        }
    }

    fn save(&self, out: &mut Vec<u8>) {
        let mut image = ImageWriter::new(out);
        image.u32(VERSION);
        image.u16(self.capacity.clients);
        image.u32(self.capacity.instruments);
        image.u32(self.capacity.orders);
        image.u16(self.gateway.0);
        image.u8(u8::from(self.line.connected) | u8::from(self.line.gateway_gone) << 1);
        image.u64(self.line.latency_ns);
        self.instruments.save(out);
        self.orders.save(out);
        self.risk.save(out);
        self.venue.save(out);
    }

    fn load(&mut self, saved: &[u8]) -> Result<(), LoadError> {
        self.restore(saved).inspect_err(|_| {
            let blank = std::mem::take(&mut self.blank);
            let emptied = self.restore(&blank);
            debug_assert!(emptied.is_ok(), "what was saved at the beginning fits");
            self.blank = blank;
        })
    }
}

fn load_line(image: &mut ImageReader<'_>, gateway: ClientId) -> Result<Line, LoadError> {
    const WHAT: &str = "the line to a venue";
    let flags = image.u8(WHAT)?;
    let gateway_gone = flags & 2 != 0;
    if flags > 3 || (gateway_gone && gateway == ClientId::NONE) {
        return Err(LoadError { what: WHAT });
    }
    let latency_ns = image.u64(WHAT)?;
    if latency_ns > VENUE_LATENCY_MAX_NS {
        return Err(LoadError { what: WHAT });
    }
    Ok(Line { connected: flags & 1 != 0, latency_ns, gateway_gone })
}

/// One record being applied.
struct Step<'a, V> {
    engine: &'a mut Engine<V>,
    events: &'a mut Events,
    client: ClientId,
    sequence: u64,
    now_ns: u64,
}

impl<V: Venue> Step<'_, V> {
    fn advance(&mut self) {
        self.engine.venue.advance(self.now_ns, &mut self.engine.reports);
        self.hear();
    }

    fn command(&mut self, role: Option<Role>, payload: &[u8]) {
        let command = template_of(payload);
        let message = match Message::decode(payload) {
            Ok(message) => message,
            Err(error) => return self.reject(command, checks::reason_of(&error)),
        };
        let gateway = self.client == self.engine.gateway;
        if !role.is_some_and(|role| checks::may_send(role, gateway, &message)) {
            return match message {
                Message::NewOrder(order) => self.reject_order(&order, Reason::NotAuthorised),
                _ => self.reject(command, Reason::NotAuthorised),
            };
        }
        let done = match message {
            Message::NewOrder(order) => {
                self.new_order(&order);
                Ok(())
            }
            Message::CancelOrder(cancel) => {
                self.cancel_order(&cancel);
                Ok(())
            }
            Message::ReplaceOrder(replace) => {
                self.replace_order(&replace);
                Ok(())
            }
            Message::MassCancel(cancel) => self.mass_cancel(&cancel),
            Message::ListOrders(list) => self.list_orders(&list),
            Message::VenueReport(report) => {
                self.venue_report(&report);
                Ok(())
            }
            _ => self.operate(&message),
        };
        if let Err(reason) = done {
            self.reject(command, reason);
        }
        self.hear();
    }

    /// Answers a command that is not carried out.
    fn reject(&mut self, command: u16, reason: Reason) {
        let rejected = Rejected {
            client_order_id: Default::default(),
            order_id: Default::default(),
            instrument: InstrumentId(0),
            command,
            reason,
        };
        self.events.push(self.client, &rejected.encode());
    }
}

/// Template id of what may be a message; 0 if it is none.
fn template_of(payload: &[u8]) -> u16 {
    match *payload {
        [_, _, low, high, schema_low, schema_high, _, _, ..]
            if u16::from_le_bytes([schema_low, schema_high]) == SCHEMA_ID =>
        {
            u16::from_le_bytes([low, high])
        }
        _ => 0,
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
