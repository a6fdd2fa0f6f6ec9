//! Act 5: an exchange. Two traders, one of them on another host behind a bad line, an engine that
//! is killed half way, a standby that goes on, a recorder and an audit; and in the end everybody's
//! account is held against everybody else's, order by order.

use std::path::{Path, PathBuf};

use gapless::Address;
use gapless::order::messages::Message;
use gapless::sequencer::Kind;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::hosts::Hosts;
use super::stage::Stage;
use super::trader::feed;
use super::troupe::Troupe;
use super::wire::Injected;
use crate::order::chain::Chain;
use crate::order::client::{Seat, Trader};
use crate::order::engine::Tables;
use crate::order::generate::Generated;
use crate::order::market;
use crate::order::reconcile::{self, Sides};
use crate::order::source::Source;
use crate::progress;

pub(super) use report::TradingReport;

mod report;

const TITLE: &str = "Act 5: an exchange; its engine is killed half way, and the standby goes on";
/// Entries of the feed that make the opening book; the traders begin behind them.
pub(super) const OPENING: usize = 2_000;
/// The engines' tables.
const CLIENTS: u16 = 3;
const INSTRUMENTS: u32 = 16;
const ORDERS: u32 = 16_384;

/// What the processes of the act tell.
#[derive(Serialize, Deserialize)]
pub(super) enum Told {
    /// It has its streams.
    Ready,
    /// It leads in this term.
    Leads(u32),
    /// Another leads.
    StandsBy(u32),
    /// Half of its commands are sent.
    Half,
    /// All of them are answered.
    Traded(Box<Generated>),
    Audited(Audited),
    Bridged(Bridged),
    /// So many records are in the log.
    Recorded(u64),
    /// The engine was stopped.
    Ended {
        trades: u64,
    },
}

/// The audit's account.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Audited {
    pub(super) entries: u64,
    pub(super) last: u64,
    pub(super) hash: String,
    /// Records that make no sense to a fold of positions.
    pub(super) anomalies: u64,
}

/// What happened to the datagrams between the hosts.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Bridged {
    /// The stream, on its way to the far host.
    pub(super) inward: Injected,
    /// Commands, on their way from it.
    pub(super) outward: Injected,
    pub(super) gaps: u64,
    pub(super) repaired: u64,
}

/// The streams and files of the act.
struct Set {
    rings: PathBuf,
    private: TempDir,
    /// The sequenced stream as it is written, with its group.
    output: String,
    /// The same on the far host: from the group.
    group: String,
    /// The far trader's commands: to the group, and from it.
    commands: [String; 2],
    namespaces: [Option<String>; 2],
}

impl Set {
    fn new(hosts: &Hosts, stage: &Stage, parent: Option<&Path>) -> anyhow::Result<Self> {
        let private = tempfile::Builder::new()
            .prefix("gapless-demo-orders-")
            .tempdir_in(parent.map_or_else(std::env::temp_dir, Path::to_path_buf))?;
        let [stream, commands] = hosts.ports()?;
        let (near, far) = (hosts.sender(), hosts.receiver());
        let rings = stage.directory().to_path_buf();
        let udp = |group: u8, port: u16, interface: &str| {
            format!("udp:239.255.78.{group}:{port}?iface={interface}")
        };
        let options = format!("dir={}&capacity=32M&wait=yield", rings.display());
        Ok(Self {
            output: format!("{}&ring=sequenced&{options}", udp(3, stream, near.interface)),
            group: format!("{}&from=oldest", udp(3, stream, far.interface)),
            commands: [udp(4, commands, far.interface), udp(4, commands, near.interface)],
            namespaces: [near.namespace, far.namespace],
            rings,
            private,
        })
    }

    /// A ring of the act's.
    fn ring(&self, name: &str, capacity: &str) -> String {
        format!("shm:{name}?dir={}&capacity={capacity}&wait=yield", self.rings.display())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.private.path().join(name)
    }

    fn option(&self, key: &str, name: &str) -> String {
        format!("--{key}={}", self.file(name).display())
    }

    fn engine(&self, core: Option<usize>) -> Vec<String> {
        let mut arguments = vec!["demo-engine".to_owned(), format!("--out={}", self.output)];
        let clients = [
            format!("1={},role=operator", self.ring("operator", "64K")),
            format!("2={}", self.ring("near-trader", "1M")),
            format!("3={}&from=oldest", self.commands[1]),
        ];
        arguments.extend(clients.map(|client| format!("--client={client}")));
        arguments.extend([format!("--clients={CLIENTS}"), format!("--instruments={INSTRUMENTS}")]);
        arguments.extend([format!("--orders={ORDERS}"), self.option("seed-book", "opening.txt")]);
        arguments.push(self.option("state", "state.json"));
        arguments.extend(core.map(|core| format!("--core={core}")));
        arguments.extend(self.namespaces[0].iter().map(|path| format!("--namespace={path}")));
        arguments
    }

    fn trader(&self, far: bool, commands: u64, rate: u64, core: Option<usize>) -> Vec<String> {
        let (id, half, own, stream) = match far {
            false => (2, 0, "near-trader", "sequenced"),
            true => (3, 1, "far-trader", "far-sequenced"),
        };
        let mut arguments = vec!["demo-trader".to_owned(), format!("--id={id}")];
        arguments.push(format!("--to={}", self.ring(own, "1M")));
        arguments.push(format!("--from={}", self.ring(stream, "32M")));
        arguments.push(self.option("record", own));
        arguments.extend([format!("--commands={commands}"), format!("--rate={rate}")]);
        arguments.push(format!("--half={half}"));
        arguments.extend(core.map(|core| format!("--core={core}")));
        arguments
    }

    fn bridge(&self) -> Vec<String> {
        let far = self.ring("far-sequenced", "32M");
        let mut arguments = vec!["demo-bridge".to_owned()];
        arguments.extend(["--stream".into(), self.group.clone(), far]);
        let own = self.ring("far-trader", "1M");
        arguments.extend(["--commands".into(), own, self.commands[0].clone()]);
        arguments.extend(self.namespaces[1].iter().map(|path| format!("--namespace={path}")));
        arguments
    }

    fn log(&self) -> String {
        format!("log:{}", self.file("log").display())
    }
}

/// The processes of the act, and what they have said.
struct Cast<'a> {
    troupe: Troupe,
    stage: &'a Stage,
    ready: usize,
    term: u32,
    stands_by: bool,
    half: bool,
    traded: [Option<Generated>; 2],
    far: Option<usize>,
    audited: Option<Audited>,
    bridged: Option<Bridged>,
    recorded: Option<u64>,
    trades: Option<u64>,
}

impl<'a> Cast<'a> {
    fn new(stage: &'a Stage) -> Self {
        Self {
            troupe: Troupe::new(),
            stage,
            ready: 0,
            term: 0,
            stands_by: false,
            half: false,
            traded: [None, None],
            far: None,
            audited: None,
            bridged: None,
            recorded: None,
            trades: None,
        }
    }

    /// Listens until something holds.
    fn until(&mut self, holds: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        while !holds(self) {
            let (number, told) = self.troupe.listen(&self.stage.stop)?;
            match told {
                Told::Ready => self.ready += 1,
                Told::Leads(term) => self.term = term,
                Told::StandsBy(_) => self.stands_by = true,
                Told::Half => self.half = true,
                Told::Traded(account) => {
                    self.traded[usize::from(self.far == Some(number))] = Some(*account);
                }
                Told::Audited(account) => self.audited = Some(account),
                Told::Bridged(account) => self.bridged = Some(account),
                Told::Recorded(records) => self.recorded = Some(records),
                Told::Ended { trades } => self.trades = Some(trades),
            }
        }
        Ok(())
    }

    /// Starts a process, and waits until it is ready.
    fn enter(&mut self, role: &'static str, arguments: &[String]) -> anyhow::Result<usize> {
        let number = self.troupe.start(role, arguments)?;
        let ready = self.ready + 1;
        self.until(|cast| cast.ready == ready)?;
        Ok(number)
    }
}

/// Who has which core: the engines one each if there are two, the traders if there are four.
fn cores(all: &[usize]) -> [Option<usize>; 4] {
    let of = |index: usize, least: usize| all.get(index).copied().filter(|_| all.len() >= least);
    [of(0, 2), of(1, 2), of(2, 4), of(3, 4)]
}

/// Plays the act: so many commands of each trader, at such a rate.
pub(super) fn play(
    commands: u64,
    rate: u64,
    hosts: &Hosts,
    stage: &Stage,
    parent: Option<&Path>,
) -> anyhow::Result<TradingReport> {
    let set = Set::new(hosts, stage, parent)?;
    let updates = feed();
    std::fs::write(set.file("opening.txt"), market::opening(&updates[..OPENING], &updates))?;
    let [first, second, near, far] = cores(&stage.cores);
    let mut cast = Cast::new(stage);
    let engine = cast.troupe.start("engine", &set.engine(first))?;
    cast.until(|cast| cast.term == 1)?;
    let standby = cast.troupe.start("standby", &set.engine(second))?;
    cast.until(|cast| cast.stands_by)?;
    let recorder = ["demo-recorder".to_owned(), set.ring("sequenced", "32M"), set.log()];
    let recorder = cast.enter("recorder", &[&recorder[..], &["--cued".to_owned()]].concat())?;
    define(&set, &updates, stage)?;
    let bridge = cast.enter("bridge", &set.bridge())?;
    let audit = ["demo-auditor".to_owned(), set.ring("far-sequenced", "32M")];
    let audit = cast.enter("audit", &[&audit[..], &[set.option("chain", "chain")]].concat())?;
    let near = cast.enter("trader", &set.trader(false, commands, rate, near))?;
    let far = cast.enter("far trader", &set.trader(true, commands, rate, far))?;
    cast.far = Some(far);
    let spinner = progress::spinner(TITLE);
    cast.troupe.cue(near)?;
    cast.troupe.cue(far)?;
    cast.until(|cast| cast.half)?;
    cast.troupe.kill(engine)?;
    cast.until(|cast| cast.term == 2 && cast.traded.iter().all(Option::is_some))?;
    cast.troupe.cue(audit)?;
    cast.until(|cast| cast.audited.is_some())?;
    cast.troupe.cue(bridge)?;
    cast.until(|cast| cast.bridged.is_some())?;
    cast.troupe.end(standby)?;
    cast.until(|cast| cast.trades.is_some())?;
    cast.troupe.cue(recorder)?;
    cast.until(|cast| cast.recorded.is_some())?;
    spinner.finish_and_clear();
    conclude(&set, &mut cast, hosts, (commands, rate))
}

/// An operator defines the feed's instruments.
fn define(set: &Set, updates: &[market::Update], stage: &Stage) -> anyhow::Result<()> {
    let definitions = market::definitions(updates).into_iter().map(Message::from);
    let definitions: Vec<Message> = definitions.collect();
    let (to, from) = (set.ring("operator", "64K"), set.ring("sequenced", "32M"));
    let seat = Seat { id: 1, to, from, record: Some(set.file("operator")) };
    let mut operator = Trader::join(&seat, true, &stage.stop)?.in_silence();
    operator.set_up(&definitions, &stage.stop)?;
    operator.leave()
}

/// Holds all accounts against each other.
fn conclude(
    set: &Set,
    cast: &mut Cast<'_>,
    hosts: &Hosts,
    (commands, rate): (u64, u64),
) -> anyhow::Result<TradingReport> {
    let stop = &cast.stage.stop;
    let log: Address = set.log().parse()?;
    let mut tables = Tables::with_book(set.file("opening.txt"));
    tables.resize(CLIENTS, INSTRUMENTS, ORDERS);
    let clients = ["operator", "near-trader", "far-trader"].map(|name| set.file(name));
    let state = set.file("state.json");
    let sides = Sides { clients: &clients, state: Some(&state), snapshot: None, tables: &tables };
    let found = reconcile::reconcile(log.clone(), &sides, stop)?;
    let mut chain = Chain::open(&set.file("chain"))?;
    let (mut last, mut failover_ns, mut killed_at) = ((0, 0), None, 0);
    let read = Source::of(log).read(
        stop,
        |record| {
            if record.term == 1 {
                last = (record.sequence, record.time_ns);
            } else if failover_ns.is_none() && record.kind == Kind::Command {
                failover_ns = Some(record.time_ns - last.1);
                killed_at = last.0;
            }
            chain.take(record)
        },
        || Ok(()),
    )?;
    chain.finish()?;
    let mut differences: Vec<String> =
        found.report.differences.iter().map(ToString::to_string).collect();
    differences.extend(found.others.iter().cloned());
    differences.extend(chain.wrong.iter().map(|wrong| format!("the audit's chain: {wrong}")));
    let [near, far] = std::mem::take(&mut cast.traded).map(Option::unwrap_or_default);
    Ok(TradingReport {
        title: TITLE,
        hosts: hosts.text(),
        apart: hosts.are_apart(),
        cores: cores(&cast.stage.cores),
        wanted_commands: commands,
        wanted_rate: rate,
        traders: [near, far],
        bridged: cast.bridged.unwrap_or_default(),
        audited: cast.audited.clone().unwrap_or_default(),
        chained: chain.compared,
        killed_at,
        failover_ns,
        terms: cast.term,
        records: found.report.records,
        recorded: cast.recorded.unwrap_or(0),
        missed: found.missed + read.missed,
        orders: found.report.orders,
        fills: found.report.fills,
        trades: cast.trades.unwrap_or(0),
        own_records: found.report.own_records,
        replayed: found.replayed,
        positions: found.state.held().count() as u64,
        differences,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_get_a_core_each_before_traders_do() {
        assert_eq!(cores(&[3]), [None; 4]);
        assert_eq!(cores(&[3, 5, 7]), [Some(3), Some(5), None, None]);
        assert_eq!(cores(&[3, 5, 7, 9, 11]), [Some(3), Some(5), Some(7), Some(9)]);
    }
}
