//! Operators' commands: what can be traded, by whom, and how much.

use super::{Step, VENUE_LATENCY_MAX_NS};
use crate::order::field::{CancelReason, InstrumentId, MarketState, Reason};
use crate::order::messages::{
    Breached, DefineInstrument, KillSwitch, Message, SetMarketState, SetReference,
};
use crate::order::orders::MustGo;
use crate::order::venue::Venue;
use crate::sequencer::ClientId;

impl<V: Venue> Step<'_, V> {
    pub(super) fn operate(&mut self, message: &Message) -> Result<(), Reason> {
        match message {
            Message::DefineInstrument(define) => self.define(define),
            Message::SetMarketState(set) => self.set_market_state(set),
            Message::KillSwitch(kill) => self.kill_switch(kill),
            Message::SetLimits(limits) => {
                self.engine.risk.set_limits(limits)?;
                self.look_at_loss(limits.client);
                Ok(())
            }
            Message::SetReference(set) => self.set_reference(set),
            Message::SetVenue(set) if set.latency_ns > VENUE_LATENCY_MAX_NS => {
                Err(Reason::InvalidLimit)
            }
            Message::SetVenue(set) => {
                let line = &mut self.engine.line;
                (line.connected, line.latency_ns) = (set.connected, set.latency_ns);
                self.set_line();
                Ok(())
            }
            _ => Err(Reason::NotAuthorised),
        }
    }

    /// One that has open orders ([`Reason::OpenOrders`]) or positions ([`Reason::PositionLimit`])
    /// is not defined anew.
    fn define(&mut self, define: &DefineInstrument) -> Result<(), Reason> {
        let (engine, id) = (&mut *self.engine, define.instrument);
        if engine.risk.in_use(id) {
            let open = engine.orders.iter().any(|order| order.instrument == id);
            return Err(if open { Reason::OpenOrders } else { Reason::PositionLimit });
        }
        engine.instruments.define(define)?;
        engine.risk.set_reference(id, define.reference, self.now_ns);
        Ok(())
    }

    fn set_market_state(&mut self, set: &SetMarketState) -> Result<(), Reason> {
        self.engine.instruments.set_state(set.instrument, set.state)?;
        if set.state == MarketState::Closed {
            let command = SetMarketState::TEMPLATE_ID;
            let must_go = MustGo { reason: CancelReason::MarketClosed, command, tries: 0 };
            for client in self.engine.orders.clients() {
                self.send_off(client, set.instrument, must_go);
            }
        }
        Ok(())
    }

    fn kill_switch(&mut self, kill: &KillSwitch) -> Result<(), Reason> {
        let everybody = kill.client == ClientId::NONE;
        if !everybody && !self.engine.orders.serves(kill.client) {
            return Err(Reason::Capacity);
        }
        self.engine.risk.stop(kill.client, kill.engaged);
        if kill.engaged && kill.cancel_open {
            let command = KillSwitch::TEMPLATE_ID;
            let must_go = MustGo { reason: CancelReason::KillSwitch, command, tries: 0 };
            for client in self.engine.orders.clients() {
                if everybody || client == kill.client {
                    self.send_off(client, InstrumentId(0), must_go);
                }
            }
        }
        Ok(())
    }

    fn set_reference(&mut self, set: &SetReference) -> Result<(), Reason> {
        if self.engine.instruments.get(set.instrument).is_none() {
            return Err(Reason::UnknownInstrument);
        }
        if set.price.0 < 0 {
            return Err(Reason::InvalidPrice);
        }
        self.engine.risk.set_reference(set.instrument, set.price, self.now_ns);
        for client in self.engine.orders.clients() {
            self.look_at_loss(client);
        }
        Ok(())
    }

    fn look_at_loss(&mut self, client: ClientId) {
        if let Some(breached) = self.engine.risk.check_loss(client) {
            self.breached(client, &breached);
        }
    }

    /// Says that a client broke a limit, and cancels what it has open if it was stopped for it.
    pub(super) fn breached(&mut self, client: ClientId, breached: &Breached) {
        self.events.push(client, &breached.encode());
        if breached.stopped {
            let must_go = MustGo { reason: CancelReason::Breach, command: 0, tries: 0 };
            self.send_off(client, InstrumentId(0), must_go);
        }
    }

    /// The client is here.
    pub(super) fn here(&mut self) {
        if self.client == self.engine.gateway && self.engine.line.gateway_gone {
            self.engine.line.gateway_gone = false;
            self.set_line();
            self.hear();
        }
    }

    /// The client is gone.
    pub(super) fn gone(&mut self) {
        if self.client == self.engine.gateway && self.client != ClientId::NONE {
            self.engine.line.gateway_gone = true;
            self.set_line();
        }
        if self.engine.risk.limits(self.client).cancel_on_disconnect {
            let must_go = MustGo { reason: CancelReason::Disconnected, command: 0, tries: 0 };
            self.send_off(self.client, InstrumentId(0), must_go);
        }
        self.hear();
    }

    /// Makes the line to the venue what operators and the gateway let it be. If it holds, what
    /// must go is asked for anew.
    fn set_line(&mut self) {
        let engine = &mut *self.engine;
        let holds = engine.line.connected && !engine.line.gateway_gone;
        engine.venue.set(holds, engine.line.latency_ns);
        if !holds {
            return;
        }
        for client in engine.orders.clients() {
            let mut next = self.engine.orders.first(client);
            while let Some(place) = next {
                next = self.engine.orders.behind(place);
                if let Some(must_go) = &mut self.engine.orders.at_mut(place).must_go {
                    must_go.tries = 0;
                    self.ask_again(place);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "operating_tests.rs"]
mod tests;
