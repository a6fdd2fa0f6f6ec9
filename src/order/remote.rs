//! A venue outside: what is asked of it is routed to a gateway, which brings back what it says.
//!
//! The gateway is a client of the sequencer. It asks its venue what each
//! [`Routed`](super::messages::Routed) event says, and sends a
//! [`VenueReport`](super::messages::VenueReport) for each answer: refusals in the order in which
//! they were asked for, fills of one order with rising match ids. As all it needs stands in the
//! stream, one that was restarted finds there what it has not asked yet.

use super::field::{CancelReason, OrderId, Price, Quantity, Reason, RouteAction};
use super::venue::{Report, Venue, VenueOrder};
use crate::sequencer::{ImageReader, ImageWriter, LoadError};

/// The near end of a gateway: see [`Engine::with_gateway`](super::Engine::with_gateway).
///
/// While it is not connected (see [`SetVenue`](super::messages::SetVenue)) nothing is routed, and
/// all is refused with [`Reason::VenueDown`]. A latency is the venue's own, and means nothing here.
#[derive(Clone, Debug)]
pub struct Remote {
    connected: bool,
}

impl Remote {
    /// A venue that is connected.
    pub fn new() -> Self {
        Self { connected: true }
    }

    fn change(&self, order_id: OrderId, action: RouteAction) -> Report {
        if self.connected {
            Report::Route { order_id, action }
        } else {
            Report::CancelRejected { order_id, reason: Reason::VenueDown }
        }
    }
}

impl Default for Remote {
    fn default() -> Self {
        Self::new()
    }
}

impl Venue for Remote {
    fn submit(&mut self, _now_ns: u64, order: &VenueOrder, reports: &mut Vec<Report>) {
        let order_id = order.order_id;
        reports.push(if self.connected {
            Report::Route { order_id, action: RouteAction::New }
        } else {
            Report::Rejected { order_id, reason: Reason::VenueDown }
        });
    }

    fn cancel(
        &mut self,
        _now_ns: u64,
        order_id: OrderId,
        _reason: CancelReason,
        reports: &mut Vec<Report>,
    ) {
        reports.push(self.change(order_id, RouteAction::Cancel));
    }

    fn replace(
        &mut self,
        _now_ns: u64,
        order_id: OrderId,
        _price: Price,
        _leaves: Quantity,
        reports: &mut Vec<Report>,
    ) {
        reports.push(self.change(order_id, RouteAction::Replace));
    }

    fn advance(&mut self, _now_ns: u64, _reports: &mut Vec<Report>) {}

    fn set(&mut self, connected: bool, _latency_ns: u64) {
        self.connected = connected;
    }

    fn save(&self, out: &mut Vec<u8>) {
        ImageWriter::new(out).u8(u8::from(self.connected));
    }

    fn load(&mut self, image: &mut ImageReader<'_>) -> Result<(), LoadError> {
        const WHAT: &str = "whether the venue is connected";
        self.connected = match image.u8(WHAT)? {
            0 => false,
            1 => true,
            _ => return Err(LoadError { what: WHAT }),
        };
        Ok(())
    }
}
