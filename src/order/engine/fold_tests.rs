//! Days of random commands, and all who only read the stream: what they make of it is what the
//! engine has.

use proptest::prelude::*;

use super::super::tests::*;
use super::{CLIENTS, Dice, Player, Step, bytes, days};
use crate::order::audit::{Audit, Fate, Query};
use crate::order::entry::Outcome;
use crate::order::field::{InstrumentId, OrderId, Reason, ReportKind, Side};
use crate::order::messages::{Message, NewOrder, VenueReport};
use crate::order::notify::{Filter, Notifications};
use crate::order::positions::{Position, Positions};
use crate::order::reconcile::{OpenOrder, Reconciliation};
use crate::order::venue::Venue;
use crate::sequencer::{ClientId, Kind, Record, Role};

/// All who read, and what the engine said with its own voice.
struct Readers {
    sequence: u64,
    audit: Audit,
    positions: Positions,
    reconciliation: Reconciliation<'static>,
    notifications: Notifications,
    notified: u64,
    fills: u64,
    /// What was answered to the gateway's reports: by sequence number, and why if it was refused.
    reports: Vec<(u64, Option<Reason>)>,
}

impl Readers {
    /// Who have seen the definitions that a desk opens with.
    fn new() -> Self {
        let mut readers = Self {
            sequence: 0,
            audit: Audit::new(),
            positions: Positions::new(),
            reconciliation: Reconciliation::new(),
            notifications: Notifications::new(),
            notified: 0,
            fills: 0,
            reports: Vec::new(),
        };
        let filter: Filter = "kind=filled instrument=AAPL,GOOGL".parse().unwrap();
        readers.notifications.subscribe("fills", filter);
        for (id, symbol, lot) in [(AAPL, "AAPL", 1), (GOOGL, "GOOGL", 5)] {
            let defined = bytes(Some(define(id, symbol, lot).into()));
            readers.read(Kind::Command, OPERATOR, 0, 1, &defined, 1_000);
        }
        readers
    }

    fn read(
        &mut self,
        kind: Kind,
        client: u16,
        reference: u64,
        code: u8,
        payload: &[u8],
        time_ns: u64,
    ) {
        self.sequence += 1;
        let (sequence, client) = (self.sequence, ClientId(client));
        let record = Record {
            sequence,
            kind,
            code,
            client,
            term: 1,
            reference,
            sent_ns: 0,
            time_ns,
            payload,
        };
        self.audit.apply(&record);
        self.positions.apply(&record).unwrap();
        self.reconciliation.stream(&record);
        self.notifications.apply(&record, |_, _| self.notified += 1);
    }

    /// Has the engine apply a record, and reads it and its events.
    fn follow<V: Venue>(&mut self, desk: &mut Desk<V>, (kind, client, role, message): Step) {
        let payload = bytes(message);
        self.read(kind, client, 0, role as u8, &payload, desk.now_ns);
        let cause = self.sequence;
        let events = desk.record(kind, client, role as u8, &payload);
        for (whom, event) in &events {
            self.read(Kind::Event, *whom, cause, 0, event, desk.now_ns);
        }
        assert_eq!(self.sequence, desk.sequence);
        self.heard(message.as_ref(), cause, &events);
    }

    fn heard(&mut self, command: Option<&Message>, cause: u64, events: &[(u16, Vec<u8>)]) {
        let mut refused = None;
        for (_, payload) in events {
            match Message::decode(payload).unwrap() {
                Message::Filled(_) => self.fills += 1,
                Message::Rejected(no) if no.command == VenueReport::TEMPLATE_ID => {
                    refused = Some(no.reason);
                }
                _ => {}
            }
        }
        if let Some(Message::VenueReport(_)) = command {
            self.reports.push((cause, refused));
        }
    }

    fn agree_with<V: Venue>(mut self, desk: &Desk<V>) {
        let (engine, now_ns) = (&desk.engine, desk.now_ns);
        self.read(Kind::Time, 0, 0, 0, &[], now_ns);
        let is_open = |fate: Fate| !fate.is_final();
        let open: Vec<_> = self
            .audit
            .lives()
            .filter(|life| is_open(life.fate))
            .map(|life| life.order_id)
            .collect();
        let mut known: Vec<_> = engine.orders().iter().map(|order| order.order_id).collect();
        known.sort_unstable();
        assert_eq!(open, known, "what is open by the audit");
        for order in engine.orders().iter() {
            let life = self.audit.life(order.order_id).unwrap();
            assert_eq!((life.client, life.filled), (order.client, order.filled));
            assert_eq!(life.names.last(), Some(&order.client_order_id));
            assert_eq!(life.fate == Fate::Open, order.accepted || life.filled.0 > 0);
        }
        for entry in self.audit.find(&Query::default()) {
            let report = self.reports.iter().find(|(sequence, _)| *sequence == entry.sequence);
            if let Some((_, refused)) = report {
                let expected = refused.map_or(Outcome::Taken, Outcome::Rejected);
                assert_eq!(entry.outcome, expected, "{entry}");
            }
        }
        let mut held = Vec::new();
        for client in 1..=CLIENTS {
            for instrument in [AAPL, GOOGL] {
                let position = engine.risk().position(ClientId(client), instrument);
                let folded = self.positions.get(ClientId(client), instrument);
                assert_eq!(folded.map_or(0, |at| at.quantity), position);
                held.push((ClientId(client), instrument, position));
            }
            let of = |(whose, _, at): (ClientId, InstrumentId, _)| {
                let at: &Position = at;
                if whose.0 == client { i128::from(at.fees.0) } else { 0 }
            };
            let fees: i128 = self.positions.iter().map(of).sum();
            assert_eq!(fees, engine.risk().figures(ClientId(client)).unwrap().fees);
        }
        assert_eq!(self.positions.anomalies().total(), 0);
        assert_eq!(self.notified, self.fills, "both instruments are known by name");
        self.reconciliation.positions("risk", held);
        self.reconciliation.engine(engine.orders().iter().map(OpenOrder::from));
        let report = self.reconciliation.finish();
        assert!(report.is_clean(), "{report}");
    }
}

/// A gateway's report as a sound venue would make it: no trade beyond the order's limit.
fn sound<V: Venue>(desk: &Desk<V>, message: &mut Message) {
    let Message::VenueReport(report) = message else { return };
    let Some(order) = desk.engine.orders().get(report.order_id) else { return };
    if report.kind == ReportKind::Filled {
        report.price = match order.side {
            Side::Buy => report.price.min(order.price),
            Side::Sell => report.price.max(order.price),
        };
    }
}

fn read_day<V: Venue>(mut desk: Desk<V>, day: &[Dice], gateway: bool) {
    let (mut player, mut readers) = (Player::new(gateway), Readers::new());
    for &dice in day {
        let (kind, client, role, mut message) = player.step(&desk, dice);
        message.iter_mut().for_each(|message| sound(&desk, message));
        desk.now_ns += u64::from(dice.4 % 4) * 10;
        readers.follow(&mut desk, (kind, client, role, message));
    }
    readers.agree_with(&desk);
}

proptest! {
    #[test]
    fn a_day_at_a_gateway_is_read_as_it_was(day in days()) {
        read_day(remote(), &day, true);
    }

    #[test]
    fn a_day_at_an_exchange_is_read_as_it_was(day in days()) {
        read_day(exchange(), &day, false);
    }
}

/// The venue's answer to a cancel crosses with a fill, and it says all of it twice.
#[test]
fn a_race_of_fill_and_cancel_is_read_as_it_was() {
    let mut desk = remote();
    let mut readers = Readers::new();
    let id = desk.sequence + 1;
    let order: NewOrder = order(1, Side::Buy, 100, 10);
    let fill = VenueReport { match_id: 1, ..report(id, ReportKind::Filled) };
    let fill = VenueReport { price: order.price, quantity: order.quantity, ..fill };
    let steps: [Message; 7] = [
        order.into(),
        report(id, ReportKind::Accepted).into(),
        report(id, ReportKind::Accepted).into(),
        cancel(1).into(),
        fill.into(),
        fill.into(),
        report(id, ReportKind::CancelRejected).into(),
    ];
    for message in steps {
        let (client, role) = match message {
            Message::VenueReport(_) => (GATEWAY, Role::Gateway),
            _ => (1, Role::Trader),
        };
        readers.follow(&mut desk, (Kind::Command, client, role, Some(message)));
    }
    let refused: Vec<_> = readers.reports.iter().map(|(_, refused)| *refused).collect();
    let (twice, late) = (Some(Reason::DuplicateOrder), Some(Reason::TooLate));
    assert_eq!(refused, [None, twice, None, late, late]);
    assert_eq!(readers.audit.life(OrderId(id)).unwrap().fate, Fate::Filled);
    readers.agree_with(&desk);
}
