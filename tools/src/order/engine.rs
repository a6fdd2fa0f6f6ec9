//! `gapless order engine` and `standby`: a sequencer with the order path's engine and an exchange
//! behind it, leading or following.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use gapless::order::{
    Capacity, Engine, Exchange, InstrumentId, OrderId, OrderType, Price, Quantity, SelfMatch, Side,
    TimeInForce, VenueOrder,
};
use gapless::sequencer::{ClientId, Sequencer, SequencerOptions, Standing};
use gapless::{Address, Agent, WaitStrategy, Waiter, pin_current_thread};

use super::config::{Capacities, ClientPlan, Plan};
use super::state::State;
use crate::exit::{Outcome, Usage};
use crate::stop::Stop;
use crate::table::{Cell, Facts, grouped, per_second, print_json, rate_text};

/// Duty cycles between two looks at whether to stop.
const CYCLES: u32 = 256;
/// Order ids of an opening book: no order of the stream's has one.
const SEEDED: u64 = 1 << 63;
/// The tables, unless told otherwise.
const CLIENTS: u16 = 64;
const INSTRUMENTS: u32 = 256;
const ORDERS: u32 = 65_536;

/// Sequence clients' commands, check and match orders, publish what happens
///
/// Leads if nobody else does, and else stands by: it follows the stream with an engine of its own,
/// compares each event byte for byte, and goes on where the leader ends, however that was. What it
/// does is said on standard error; ctrl-c ends it in order, with an account.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless order engine --out shm:sequenced --client 1=shm:ops,role=operator --client 2=shm:desk
  gapless order engine --config exchange.toml --snapshots /var/lib/orders --core 3
  gapless order engine --config exchange.toml --seed-book opening.txt

A file for --config has `output`, `snapshots`, `core`, a [capacity] (clients, instruments, orders),
and for each client a [[client]] with id, address and, if wanted, role (trader, operator,
gateway), rate (\"10000/100\": commands a second, and at once), silence (\"500ms\") and owner (a
user's number). Its [[instrument]] and [[limits]] are commands: `gapless order client --setup`
sends them. The command line goes before the file.

An opening book is a line for each order, all in whole numbers: INSTRUMENT buy|sell PRICE QUANTITY.
Every engine of a stream must have the same one, and the same capacities.")]
pub(crate) struct Args {
    /// Write the sequenced stream here: a shm: address, or udp: with a ring=NAME
    #[arg(long, value_name = "ADDRESS", required_unless_present = "config")]
    out: Option<String>,
    /// A client and its stream, as 2=shm:desk,role=operator,rate=10000/100,silence=1s,owner=UID
    #[arg(long, value_name = "ID=ADDRESS")]
    client: Vec<ClientPlan>,
    /// Snapshots: begin with the newest, write more while standing by
    #[arg(long, value_name = "DIR")]
    snapshots: Option<PathBuf>,
    /// Records between two snapshots
    #[arg(long, value_name = "N")]
    snapshot_records: Option<u64>,
    #[command(flatten)]
    tables: Tables,
    /// Pin to this core
    #[arg(long, value_name = "N")]
    core: Option<usize>,
    /// At the end, write the engine's state here, for `gapless order reconcile`
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// The account at the end as one JSON object
    #[arg(long)]
    json: bool,
}

/// What has to be the same for all engines of a stream.
#[derive(clap::Args)]
pub(crate) struct Tables {
    /// Take what is not said here from FILE (TOML)
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Largest client number [default: 64]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    clients: Option<u16>,
    /// Largest instrument number [default: 256]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    instruments: Option<u32>,
    /// Open orders of all clients together [default: 65536]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    orders: Option<u32>,
    /// The opening book
    #[arg(long, value_name = "FILE")]
    seed_book: Vec<PathBuf>,
}

impl Tables {
    /// The tables unless told otherwise, with this opening book.
    pub(crate) fn with_book(path: PathBuf) -> Self {
        let (config, clients, instruments, orders) = (None, None, None, None);
        Self { config, clients, instruments, orders, seed_book: vec![path] }
    }

    /// With other capacities.
    pub(crate) fn resize(&mut self, clients: u16, instruments: u32, orders: u32) {
        self.clients = Some(clients);
        self.instruments = Some(instruments);
        self.orders = Some(orders);
    }

    /// The file, or nothing said.
    pub(super) fn plan(&self) -> anyhow::Result<Plan> {
        self.config.as_deref().map_or_else(|| Ok(Plan::default()), Plan::read)
    }

    fn capacity(&self, plan: &Plan) -> Capacity {
        let Capacities { clients, instruments, orders } = plan.capacity;
        Capacity {
            clients: self.clients.or(clients).unwrap_or(CLIENTS),
            instruments: self.instruments.or(instruments).unwrap_or(INSTRUMENTS),
            orders: self.orders.or(orders).unwrap_or(ORDERS),
        }
    }

    /// The largest client number that an engine of these tables serves.
    pub(super) fn clients(&self, plan: &Plan) -> u16 {
        self.capacity(plan).clients
    }

    /// An engine as it is before the stream begins.
    pub(super) fn engine(
        &self,
        plan: &Plan,
        clients: &[ClientPlan],
    ) -> anyhow::Result<Engine<Exchange>> {
        let capacity = self.capacity(plan);
        let (instruments, orders) = (capacity.instruments as usize, capacity.orders as usize);
        let mut exchange = Exchange::new(instruments, orders);
        let mut number = SEEDED;
        for path in &self.seed_book {
            let text = std::fs::read_to_string(path);
            let text = text.with_context(|| path.display().to_string())?;
            for (line, text) in (1..).zip(text.lines()) {
                let at = || format!("{}: line {line}", path.display());
                if let Some(order) = seeded(text, number).with_context(at)? {
                    exchange.seed([order]).with_context(at)?;
                    number += 1;
                }
            }
        }
        let engine = Engine::new(capacity, exchange);
        let gateway = clients.iter().find(|client| client.is_gateway());
        Ok(match gateway {
            Some(gateway) => engine.with_gateway(ClientId(gateway.id)),
            None => engine,
        })
    }
}

/// An order of an opening book; `None` for an empty line or a remark.
fn seeded(line: &str, number: u64) -> anyhow::Result<Option<VenueOrder>> {
    let line = line.split('#').next().unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let [instrument, side, price, quantity] = words[..] else {
        if words.is_empty() {
            return Ok(None);
        }
        bail!("expected INSTRUMENT buy|sell PRICE QUANTITY, as 1 buy 18725 100");
    };
    Ok(Some(VenueOrder {
        order_id: OrderId(number),
        client: ClientId::NONE,
        instrument: InstrumentId(instrument.parse().context(instrument.to_owned())?),
        side: match side {
            "buy" => Side::Buy,
            "sell" => Side::Sell,
            _ => bail!("{side}: expected buy or sell"),
        },
        order_type: OrderType::Limit,
        time_in_force: TimeInForce::Day,
        post_only: false,
        price: Price(price.parse().context(price.to_owned())?),
        quantity: Quantity(quantity.parse().context(quantity.to_owned())?),
        self_match: SelfMatch::Allow,
    }))
}

/// What to run, put together from the command line and the file.
struct Setting {
    sequencer: Sequencer<Engine<Exchange>>,
    wait: WaitStrategy,
    core: Option<usize>,
    clients: u16,
}

impl Setting {
    fn of(args: &Args) -> anyhow::Result<Self> {
        let plan = args.tables.plan()?;
        let Some(output) = args.out.as_ref().or(plan.output.as_ref()) else {
            let text = "where to? give --out, or `output` in the file of --config";
            return Err(Usage(text.into()).into());
        };
        let clients = if args.client.is_empty() { &plan.clients } else { &args.client };
        if clients.is_empty() {
            return Err(Usage("whose commands? give --client, or a [[client]]".into()).into());
        }
        let engine = args.tables.engine(&plan, clients)?;
        let mut options = SequencerOptions::new(output);
        for client in clients {
            options = options.client(client.options());
        }
        if let Some(directory) = args.snapshots.as_ref().or(plan.snapshots.as_ref()) {
            options = options.snapshots(directory);
        }
        if let Some(records) = args.snapshot_records {
            options = options.snapshot_records(records);
        }
        let sequencer = Sequencer::open(options, engine)?;
        let wait = match output.parse() {
            Ok(Address::Shm(shm)) => shm.wait_strategy(),
            Ok(Address::Udp(udp)) => udp.wait_strategy(),
            _ => WaitStrategy::default(),
        };
        let core = args.core.or(plan.core);
        Ok(Self { sequencer, wait, core, clients: args.tables.clients(&plan) })
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    let begun = Instant::now();
    let sequencer = work(args, &stop, |standing, term, next| {
        let next = grouped(next);
        match (standing, term) {
            (Standing::Waiting, _) => eprintln!("waits for its turn"),
            (Standing::Following, 0) => eprintln!("stands by: reads the stream"),
            (Standing::Following, term) => {
                eprintln!("stands by: another leads, term {term}, next record {next}");
            }
            (Standing::Leading, term) => eprintln!("leads: term {term}, next record {next}"),
            (Standing::Ended, _) => {} // its error says why
        }
        Ok(())
    })?;
    summarise(args, &sequencer, begun)?;
    Ok(Outcome::Sound)
}

/// Leads or follows until it is asked to stop, and says each time that it changes what it does, in
/// which term, and at which record.
pub(crate) fn work(
    args: &Args,
    stop: &Stop,
    told: impl FnMut(Standing, u32, u64) -> anyhow::Result<()>,
) -> anyhow::Result<Sequencer<Engine<Exchange>>> {
    let Setting { mut sequencer, wait, core, clients } = Setting::of(args)?;
    if let Some(core) = core {
        pin_current_thread(core)?;
    }
    lead_or_follow(&mut sequencer, wait, stop, told)?;
    if let Some(path) = &args.state {
        write_state(path, &State::of(sequencer.application(), sequencer.next_sequence(), clients))?;
    }
    Ok(sequencer)
}

fn lead_or_follow(
    sequencer: &mut Sequencer<Engine<Exchange>>,
    wait: WaitStrategy,
    stop: &Stop,
    mut tell: impl FnMut(Standing, u32, u64) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut waiter = Waiter::new(wait);
    let mut told = (Standing::Waiting, 0);
    let mut cycles = 0_u32;
    loop {
        match sequencer.duty_cycle()? {
            0 => waiter.idle(),
            _ => waiter.reset(),
        }
        cycles = cycles.wrapping_add(1);
        if !cycles.is_multiple_of(CYCLES) {
            continue;
        }
        let now = (sequencer.standing(), sequencer.term());
        if now != told {
            told = now;
            tell(now.0, now.1, sequencer.next_sequence())?;
        }
        if stop.asked() {
            return Ok(());
        }
    }
}

fn write_state(path: &Path, state: &State) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(state)?;
    std::fs::write(path, text + "\n").with_context(|| path.display().to_string())
}

fn summarise(
    args: &Args,
    sequencer: &Sequencer<Engine<Exchange>>,
    begun: Instant,
) -> anyhow::Result<()> {
    let (stats, engine) = (sequencer.stats(), sequencer.application());
    let mut facts = Facts::default();
    let standing = match sequencer.standing() {
        Standing::Leading => "leading",
        Standing::Following => "following",
        Standing::Waiting => "waiting",
        Standing::Ended => "ended",
    };
    facts.add("standing", "was", Cell::text(standing));
    facts.add("term", "term of the stream", Cell::count(sequencer.term().into()));
    facts.add("terms", "terms that it led", Cell::count(stats.terms));
    facts.add("next_sequence", "next sequence", Cell::count(sequencer.next_sequence()));
    facts.add("sequenced", "commands sequenced", Cell::count(stats.sequenced));
    let rate = per_second(stats.sequenced, begun.elapsed());
    facts.add("commands_per_second", "rate", Cell::with(rate_text(rate, "cmd"), rate));
    facts.add("duplicates", "came twice", Cell::count(stats.duplicates));
    facts.add("refused", "refused", Cell::count(stats.refused));
    facts.add("followed", "records followed", Cell::count(stats.followed));
    facts.add("backpressure", "waits for room", Cell::count(stats.backpressure));
    facts.add("snapshots", "snapshots", Cell::count(stats.snapshots));
    facts.add("instruments", "instruments", Cell::count(engine.instruments().len() as u64));
    facts.add("open_orders", "open orders", Cell::count(engine.orders().len() as u64));
    facts.add("trades", "trades", Cell::count(engine.venue().trades()));
    let hash = format!("{:016x}", sequencer.state_hash());
    facts.add("state_hash", "state", Cell::text(hash));
    match args.json {
        true => print_json(&facts.json().into())?,
        false => println!("{facts}"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_opening_book_is_read_line_by_line() {
        let order = seeded("1 buy 18725 100 # the best bid", 9).expect("sound").expect("an order");
        assert_eq!((order.instrument, order.side), (InstrumentId(1), Side::Buy));
        assert_eq!((order.price, order.quantity), (Price(18725), Quantity(100)));
        assert_eq!(seeded("  # nothing", 9).expect("sound"), None);
        for bad in ["1 buy 18725", "x buy 1 1", "1 hold 1 1", "1 sell 1.5 1", "1 sell 1 -1"] {
            assert!(seeded(bad, 9).is_err(), "{bad}");
        }
    }
}
