//! The file that says how an order path is set up: its streams, its clients, what can be traded,
//! and how much. The engine takes the first half of it, an operator sends the second.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use gapless::order::messages::{DefineInstrument, Message, SetLimits};
use gapless::order::{InstrumentId, MarketState, Money, Price, Quantity, SelfMatch, Symbol};
use gapless::sequencer::{ClientId, ClientOptions, Rate, Role};
use serde::Deserialize;
use toml::Spanned;

use super::decimal::Decimal;
use crate::units;

/// All of it. What is not given is as on the command line without the option.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// Address of the sequenced stream.
    pub(crate) output: Option<String>,
    pub(crate) snapshots: Option<PathBuf>,
    pub(crate) core: Option<usize>,
    #[serde(default)]
    pub(crate) capacity: Capacities,
    #[serde(default, rename = "client")]
    pub(crate) clients: Vec<ClientPlan>,
    #[serde(default, rename = "instrument")]
    instruments: Vec<InstrumentPlan>,
    #[serde(default)]
    limits: Vec<LimitsPlan>,
    /// Where it was read, and its text, to point into.
    #[serde(skip)]
    source: (PathBuf, String),
}

/// What the tables have room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Capacities {
    pub(crate) clients: Option<u16>,
    pub(crate) instruments: Option<u32>,
    pub(crate) orders: Option<u32>,
}

/// A client of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientPlan {
    pub(crate) id: u16,
    pub(crate) address: String,
    #[serde(default)]
    role: Rank,
    rate: Option<Pace>,
    silence: Option<Span>,
    owner: Option<u32>,
}

/// A role, by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rank {
    #[default]
    Trader,
    Operator,
    Gateway,
}

/// Commands a second, and at once: `10000/100`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Pace(Rate);

impl TryFrom<String> for Pace {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (per_second, burst) = text.split_once('/').unwrap_or((&text, "1"));
        let number = |text: &str| text.parse().ok().filter(|&number: &u32| number > 0);
        match (number(per_second).filter(|&rate| rate <= 1_000_000_000), number(burst)) {
            (Some(per_second), Some(burst)) => Ok(Self(Rate { per_second, burst })),
            _ => Err("expected commands a second, and at once: as 10000/100".into()),
        }
    }
}

/// A span of time, as `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Span(Duration);

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        units::duration(&text).map(Self)
    }
}

/// An instrument's state, by its name.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Opening {
    Closed,
    #[default]
    Open,
    Halted,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InstrumentPlan {
    id: u32,
    symbol: Spanned<String>,
    tick: Spanned<Decimal>,
    #[serde(default = "one")]
    lot: u64,
    #[serde(default = "one")]
    multiplier: u64,
    price_exponent: i8,
    reference: Option<Spanned<Decimal>>,
    #[serde(default)]
    state: Opening,
}

fn one() -> u64 {
    1
}

/// What happens to orders of one client that would trade with each other, by its name.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Selves {
    #[default]
    Allow,
    CancelIncoming,
    CancelStanding,
}

/// A client's limits; what is not given is no limit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsPlan {
    client: u16,
    max_quantity: u64,
    max_notional: i64,
    max_position: u64,
    max_gross: i64,
    credit: i64,
    max_loss: i64,
    max_open_orders: u32,
    max_orders_per_second: u32,
    collar_basis_points: u32,
    reference_age_ms: u32,
    maker_fee_ppm: i32,
    taker_fee_ppm: i32,
    self_match: Selves,
    cancel_on_disconnect: Option<bool>,
    stop_on_breach: bool,
}

impl Plan {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut plan: Self = toml::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {}", path.display(), error.to_string().trim()))?;
        plan.source = (path.to_owned(), text);
        Ok(plan)
    }

    /// What an operator has to send so that trading can begin: definitions, then limits.
    pub(crate) fn commands(&self) -> anyhow::Result<Vec<Message>> {
        let defined = self.instruments.iter().map(|instrument| {
            instrument.message().map(Message::from).map_err(|(at, error)| self.wrong(at, &error))
        });
        let limits = self.limits.iter().map(|limits| Ok(Message::from(limits.message())));
        defined.chain(limits).collect()
    }

    /// Points at the line that has byte `at`.
    fn wrong(&self, at: usize, error: &str) -> anyhow::Error {
        let (path, text) = &self.source;
        let line = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        anyhow::anyhow!("{}: line {line}: {error}", path.display())
    }
}

impl InstrumentPlan {
    /// Its definition; or where in the file what is wrong.
    fn message(&self) -> Result<DefineInstrument, (usize, String)> {
        let price = |decimal: &Spanned<Decimal>| {
            let at = decimal.get_ref().at(self.price_exponent);
            at.map(Price).map_err(|error| (decimal.span().start, error))
        };
        let symbol = Symbol::new(self.symbol.get_ref()).ok_or_else(|| {
            let error = "a symbol has 1 to 16 letters of printable ASCII, and no space";
            (self.symbol.span().start, error.to_owned())
        })?;
        Ok(DefineInstrument {
            symbol,
            tick: price(&self.tick)?,
            lot: Quantity(self.lot),
            multiplier: self.multiplier,
            reference: self.reference.as_ref().map_or(Ok(Price(0)), price)?,
            instrument: InstrumentId(self.id),
            price_exponent: self.price_exponent,
            state: match self.state {
                Opening::Closed => MarketState::Closed,
                Opening::Open => MarketState::Open,
                Opening::Halted => MarketState::Halted,
            },
        })
    }
}

impl LimitsPlan {
    fn message(&self) -> SetLimits {
        SetLimits {
            max_quantity: Quantity(self.max_quantity),
            max_notional: Money(self.max_notional),
            max_position: Quantity(self.max_position),
            max_gross: Money(self.max_gross),
            credit: Money(self.credit),
            max_loss: Money(self.max_loss),
            max_open_orders: self.max_open_orders,
            max_orders_per_second: self.max_orders_per_second,
            collar_basis_points: self.collar_basis_points,
            reference_age_ms: self.reference_age_ms,
            maker_fee_ppm: self.maker_fee_ppm,
            taker_fee_ppm: self.taker_fee_ppm,
            client: ClientId(self.client),
            self_match: match self.self_match {
                Selves::Allow => SelfMatch::Allow,
                Selves::CancelIncoming => SelfMatch::CancelIncoming,
                Selves::CancelStanding => SelfMatch::CancelStanding,
            },
            cancel_on_disconnect: self.cancel_on_disconnect.unwrap_or(true),
            stop_on_breach: self.stop_on_breach,
        }
    }
}

impl ClientPlan {
    /// As a sequencer takes it.
    pub(crate) fn options(&self) -> ClientOptions {
        let role = match self.role {
            Rank::Trader => Role::Trader,
            Rank::Operator => Role::Operator,
            Rank::Gateway => Role::Gateway,
        };
        let mut options = ClientOptions::new(ClientId(self.id), &self.address).role(role);
        if let Some(Pace(rate)) = self.rate {
            options = options.rate(rate);
        }
        if let Some(Span(silence)) = self.silence {
            options = options.silence(silence);
        }
        match self.owner {
            Some(uid) => options.owner(uid),
            None => options,
        }
    }

    /// Whether it brings what a venue reports.
    pub(crate) fn is_gateway(&self) -> bool {
        self.role == Rank::Gateway
    }
}

impl fmt::Display for ClientPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.id, self.address)
    }
}

/// `ID=ADDRESS,role=operator,rate=10000/100,silence=1s,owner=UID`, for the command line. An address
/// may have commas of its own.
impl std::str::FromStr for ClientPlan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "expected ID=ADDRESS, as 2=shm:client-2,rate=10000/100".to_owned();
        let (id, mut rest) = text.split_once('=').ok_or_else(wrong)?;
        let id = id.parse().ok().filter(|&id: &u16| id > 0).ok_or_else(wrong)?;
        let mut plan = Self {
            id,
            address: String::new(),
            role: Rank::default(),
            rate: None,
            silence: None,
            owner: None,
        };
        while let Some((before, option)) = rest.rsplit_once(',') {
            match option.split_once('=') {
                Some(("role", role)) => {
                    plan.role = match role {
                        "trader" => Rank::Trader,
                        "operator" => Rank::Operator,
                        "gateway" => Rank::Gateway,
                        _ => return Err("role: expected trader, operator or gateway".into()),
                    }
                }
                Some(("rate", rate)) => plan.rate = Some(rate.to_owned().try_into()?),
                Some(("silence", time)) => plan.silence = Some(time.to_owned().try_into()?),
                Some(("owner", uid)) => {
                    let uid = uid.parse().map_err(|_| "owner: expected a user's number");
                    plan.owner = Some(uid?);
                }
                _ => break,
            }
            rest = before;
        }
        plan.address = rest.to_owned();
        if rest.is_empty() { Err(wrong()) } else { Ok(plan) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Plan> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        Plan::read(file.path())
    }

    const WHOLE: &str = r#"
output = "shm:sequenced?capacity=64M"
snapshots = "/var/lib/orders"
core = 3

[capacity]
clients = 10

[[client]]
id = 2
address = "shm:desk"
rate = "10000/100"
silence = "500ms"

[[instrument]]
id = 1
symbol = "AAPL"
tick = "0.01"
price_exponent = -2
reference = "187.25"

[[limits]]
client = 2
max_quantity = 500
self_match = "cancel_incoming"
"#;

    #[test]
    fn a_whole_plan_is_understood() {
        let plan = read(WHOLE).expect("sound");
        assert_eq!(
            (plan.core, plan.capacity.clients, plan.capacity.orders),
            (Some(3), Some(10), None)
        );
        let typed: ClientPlan = "2=shm:desk,rate=10000/100,silence=500ms".parse().expect("sound");
        assert_eq!(plan.clients, [typed]);
        let commands = plan.commands().expect("sound");
        let [Message::DefineInstrument(define), Message::SetLimits(limits)] = commands[..] else {
            panic!("{commands:?}");
        };
        assert_eq!((define.tick, define.reference), (Price(1), Price(18725)));
        assert_eq!((limits.max_quantity, limits.cancel_on_disconnect), (Quantity(500), true));
        assert_eq!(limits.self_match, SelfMatch::CancelIncoming);
    }

    #[test]
    fn what_is_wrong_is_pointed_at() {
        let wrong = |from: &str, to: &str| {
            assert!(WHOLE.contains(from));
            let plan = read(&WHOLE.replace(from, to));
            plan.and_then(|plan| plan.commands()).expect_err(to).to_string()
        };
        assert!(wrong("output", "outputs").contains("line 2"));
        assert!(wrong("10000/100", "fast").contains("line 12"));
        assert!(wrong("10000/100", "fast").contains("as 10000/100"));
        assert!(wrong("\"0.01\"", "\"0.001\"").contains("line 18: 0.001 is no whole number"));
        assert!(wrong("AAPL", "no space").contains("line 17: a symbol has"));
        assert!(wrong("cancel_incoming", "maybe").contains("line 25"));
    }

    #[test]
    fn clients_of_the_command_line_have_addresses_with_commas() {
        let plan: ClientPlan = "7=udp:239.1.2.3:9000?request=10.0.0.1:1,10.0.0.1:2,role=gateway"
            .parse()
            .expect("sound");
        assert_eq!(plan.address, "udp:239.1.2.3:9000?request=10.0.0.1:1,10.0.0.1:2");
        assert!(plan.is_gateway());
        for bad in ["", "shm:a", "0=shm:a", "x=shm:a", "1=", "1=shm:a,role=king", "1=shm:a,rate=0"]
        {
            assert!(bad.parse::<ClientPlan>().is_err(), "{bad}");
        }
    }
}
