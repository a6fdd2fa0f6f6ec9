//! The order path under any bytes: an engine, and everything that folds its stream.

use gapless::order::messages::{DefineInstrument, SetLimits};
use gapless::order::{
    Audit, Capacity, Engine, Exchange, InstrumentId, MarketState, Message, Money, Notifications,
    OpenOrder, OwnReader, Positions, Price, Quantity, Reconciliation, SelfMatch, Symbol,
};
use gapless::sequencer::{
    Application, ClientId, Events, ImageReader, Kind, Record, Role, STAMP_BYTES,
};

const KINDS: [Kind; 5] =
    [Kind::Command, Kind::Refused, Kind::Time, Kind::Connected, Kind::Disconnected];

fn engine() -> Engine<Exchange> {
    Engine::new(Capacity { clients: 8, instruments: 4, orders: 64 }, Exchange::new(4, 64))
}

/// A day: each step is a head of four bytes (kind, client, role, length) and a payload.
pub fn orders(data: &[u8]) {
    let _ = Record::read(1, data);
    let _ = Message::decode(data);
    let _ = engine().load(data);
    let _ = Positions::load(&mut ImageReader::new(data));
    if let Ok(reader) = OwnReader::new(data) {
        reader.for_each(drop);
    }
    let mut day = Day::new();
    day.take(Kind::Command, 1, Role::Operator, &instrument().encode());
    day.take(Kind::Command, 1, Role::Operator, &limits().encode());
    let mut rest = data;
    while let Some((&[kind, client, role, length], behind)) = rest.split_first_chunk() {
        let (payload, behind) = behind.split_at(behind.len().min(usize::from(length)));
        rest = behind;
        let kind = KINDS[usize::from(kind) % KINDS.len()];
        let role = Role::of(role % 3).unwrap_or_default();
        day.take(kind, u16::from(client % 9), role, payload);
    }
    day.close();
}

/// An engine, and its stream's readers.
struct Day {
    engine: Engine<Exchange>,
    events: Events,
    positions: Positions,
    audit: Audit,
    notifications: Notifications,
    stream: Vec<Vec<u8>>,
}

impl Day {
    fn new() -> Self {
        let mut notifications = Notifications::new();
        let filter = "kind=filled,rejected client=2,3 instrument=AAPL".parse();
        notifications.subscribe("some", filter.expect("a filter"));
        Self {
            engine: engine(),
            events: Events::new(),
            positions: Positions::new(),
            audit: Audit::remembering(8),
            notifications,
            stream: Vec::new(),
        }
    }

    fn take(&mut self, kind: Kind, client: u16, role: Role, payload: &[u8]) {
        let code = if kind == Kind::Command { role as u8 } else { 1 };
        let cause = self.write(kind, code, ClientId(client), 0, payload);
        let events: Vec<_> =
            self.events.iter().map(|(client, bytes)| (client, bytes.to_vec())).collect();
        assert!(kind == Kind::Command || events.iter().all(|(_, bytes)| !bytes.is_empty()));
        for (client, payload) in events {
            assert!(Message::decode(&payload).is_ok(), "an event that nobody can read");
            self.write(Kind::Event, 0, client, cause, &payload);
        }
    }

    fn write(
        &mut self,
        kind: Kind,
        code: u8,
        client: ClientId,
        reference: u64,
        payload: &[u8],
    ) -> u64 {
        let sequence = self.stream.len() as u64 + 1;
        let time_ns = 1_000_000 * sequence;
        let record = Record {
            sequence,
            kind,
            code,
            client,
            term: 1,
            reference: if kind == Kind::Command { sequence } else { reference },
            sent_ns: 0,
            time_ns,
            payload,
        };
        if kind != Kind::Event {
            self.events.clear();
            self.engine.apply(&record, &mut self.events);
        }
        let _ = self.positions.apply(&record);
        self.audit.apply(&record);
        self.notifications.apply(&record, |_, _| ());
        self.stream.push([&record.stamp()[..], payload].concat());
        sequence
    }

    /// What was saved is the same again, and the stream agrees with the engine.
    fn close(self) {
        let (mut saved, mut again) = (Vec::new(), Vec::new());
        self.engine.save(&mut saved);
        let mut loaded = engine();
        loaded.load(&saved).expect("what was saved");
        loaded.save(&mut again);
        assert_eq!(saved, again);
        let mut reconciliation = Reconciliation::new();
        for (at, message) in self.stream.iter().enumerate() {
            assert!(message.len() >= STAMP_BYTES);
            let record = Record::read(at as u64 + 1, message).expect("a record");
            reconciliation.stream(&record);
        }
        reconciliation.engine(self.engine.orders().iter().map(OpenOrder::from));
        let _ = reconciliation.finish();
    }
}

fn instrument() -> DefineInstrument {
    DefineInstrument {
        symbol: Symbol::new("AAPL").expect("a symbol"),
        tick: Price(1),
        lot: Quantity(1),
        multiplier: 1,
        reference: Price(100),
        instrument: InstrumentId(1),
        price_exponent: -2,
        state: MarketState::Open,
    }
}

fn limits() -> SetLimits {
    SetLimits {
        max_position: Quantity(1000),
        max_gross: Money(1_000_000),
        credit: Money(1_000_000),
        max_loss: Money(10_000),
        max_open_orders: 20,
        maker_fee_ppm: -10,
        taker_fee_ppm: 30,
        self_match: SelfMatch::CancelStanding,
        stop_on_breach: true,
        ..SetLimits::none(ClientId(2))
    }
}
