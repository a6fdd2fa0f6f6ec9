//! `gapless rewind`: serves logs to whoever missed something of them.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use gapless::log::{Rewinder, RewinderCounts, RewinderOptions};
use gapless::{Agent, pin_current_thread};

use crate::exit::{Outcome, Usage};
use crate::progress;
use crate::stop::Stop;
use crate::table::{Cell, Facts, bytes_text, messages_text, print_json};
use crate::target::Directory;
use crate::units;

/// Sleep between two looks when nothing is asked for.
const REST: Duration = Duration::from_micros(200);
/// Looks that found nothing before it sleeps: who asks is likely to ask again at once.
const IDLE_LOOKS: u32 = 1_000;
/// Progress is shown this often.
const SHOW_INTERVAL: Duration = Duration::from_millis(100);

/// Serve logs: repeat what has left a sender's ring, and bring late comers up to date
///
/// Answers requests by datagram (MoldUDP64's own, and ours), for any session that one of the logs
/// has, also while it is being recorded; and sends a log from any message on by TCP. Receivers name
/// it in their address, request=SENDER:PORT,HOST:PORT, or are told of it. Runs until ctrl-c.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless rewind /data/orders --bind 10.0.0.9:7000
  gapless rewind /data/orders /data/quotes --bind 0.0.0.0:7000 --rate 50M --stats rewinder
  gapless sub 'udp:239.1.2.3:9000?from=oldest&request=10.0.0.7:9000,10.0.0.9:7000'

The exit code is 0 when it was asked to end, whatever was asked for.")]
pub(crate) struct Args {
    /// Directories of logs
    #[arg(value_name = "LOGDIR", required = true)]
    logs: Vec<PathBuf>,
    /// Where requests come to, UDP and TCP; may be repeated
    #[arg(long, value_name = "HOST:PORT", required = true)]
    bind: Vec<String>,
    /// Most bytes a second, over everything; 0: no limit
    #[arg(long, value_name = "BYTES", default_value = "100M", value_parser = units::bytes)]
    rate: u64,
    /// Most bytes a second for each who asks by datagram
    #[arg(long, value_name = "BYTES", default_value = "25M", value_parser = units::bytes)]
    requester_rate: u64,
    /// Largest datagram, bytes: that of the stream
    #[arg(long, value_name = "BYTES", default_value_t = 1472)]
    datagram: usize,
    /// Clients by TCP at a time
    #[arg(long, value_name = "N", default_value_t = 64)]
    clients: usize,
    /// Another rewinder, told to whoever asks what there is; may be repeated
    #[arg(long, value_name = "HOST:PORT")]
    server: Vec<String>,
    /// Name of a counters page, for `gapless stat`
    #[arg(long, value_name = "NAME")]
    stats: Option<String>,
    #[command(flatten)]
    directory: Directory,
    /// Pin to this core
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
    /// Summary as one JSON object
    #[arg(long)]
    json: bool,
}

fn address(text: &str) -> Result<SocketAddr, Usage> {
    let found = text.to_socket_addrs().map(|mut addresses| addresses.next());
    let none = || Usage(format!("{text} has no address"));
    found.map_err(|error| Usage(format!("{text} is no HOST:PORT: {error}")))?.ok_or_else(none)
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    if let Some(missing) = args.logs.iter().find(|directory| !directory.is_dir()) {
        return Err(Usage(format!("{} is no directory", missing.display())).into());
    }
    let mut rewinder = open(args)?;
    if let Some(core) = args.core {
        pin_current_thread(core)?;
    }
    let addresses: Vec<String> = rewinder.addresses().map(|address| address.to_string()).collect();
    let logs = if args.logs.len() == 1 { "log" } else { "logs" };
    eprintln!("serving {} {logs} at {}", args.logs.len(), addresses.join(", "));
    let progress = progress::spinner("nobody has asked yet");
    let (mut idle, mut shown) = (0, Instant::now());
    while !stop.asked() {
        match rewinder.duty_cycle()? {
            0 => idle += 1,
            _ => idle = 0,
        }
        if idle >= IDLE_LOOKS {
            std::thread::sleep(REST);
        }
        if shown.elapsed() >= SHOW_INTERVAL {
            shown = Instant::now();
            progress.set_message(line(&rewinder.counts()));
        }
    }
    progress.finish_and_clear();
    summarise(&rewinder.counts(), args.json)
}

fn open(args: &Args) -> anyhow::Result<Rewinder> {
    let mut options = RewinderOptions::new()
        .bytes_per_second(args.rate)
        .requester_bytes_per_second(args.requester_rate)
        .datagram_bytes(args.datagram)
        .clients_max(args.clients)
        .counters_directory(args.directory.path());
    for directory in &args.logs {
        options = options.log(directory);
    }
    for text in &args.bind {
        options = options.bind(address(text)?);
    }
    for text in &args.server {
        options = options.server(address(text)?);
    }
    if let Some(name) = &args.stats {
        options = options.counters(name);
    }
    Ok(options.open()?)
}

fn line(counts: &RewinderCounts) -> String {
    format!(
        "{} repeated, {} by TCP to {} clients",
        messages_text(counts.messages),
        bytes_text(counts.bulk_bytes),
        counts.clients
    )
}

fn summarise(counts: &RewinderCounts, json: bool) -> anyhow::Result<Outcome> {
    let mut facts = Facts::default();
    facts.add("requests", "requests", Cell::count(counts.requests));
    facts.add("messages", "messages repeated", Cell::count(counts.messages));
    facts.add("packets", "in packets", Cell::count(counts.packets));
    facts.add("bytes", "bytes by datagram", Cell::bytes(counts.bytes));
    facts.add("refused", "refused", Cell::count(counts.refused));
    facts.add("odd", "odd requests", Cell::count(counts.odd));
    facts.add("malformed", "malformed", Cell::count(counts.malformed));
    facts.add("gone", "gone", Cell::count(counts.gone));
    facts.add("unanswered", "unanswered", Cell::count(counts.unanswered));
    facts.add("clients_served", "clients by TCP", Cell::count(counts.clients_served));
    facts.add("clients_refused", "clients refused", Cell::count(counts.clients_refused));
    facts.add("bulk_bytes", "bytes by TCP", Cell::bytes(counts.bulk_bytes));
    match json {
        true => print_json(&facts.json().into())?,
        false => println!("{facts}"),
    }
    Ok(Outcome::Sound)
}
