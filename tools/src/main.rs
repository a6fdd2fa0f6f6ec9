//! The `gapless` command: one subcommand for each thing one does with a stream, one file for each
//! subcommand.

#![forbid(unsafe_code)]

mod demo;
mod digest;
mod doctor;
mod enveloped;
mod exit;
mod inspect;
mod latency;
mod log;
mod ls;
mod notes;
mod order;
mod ping;
mod progress;
mod publish;
mod range;
mod record;
mod records;
mod relay;
mod remove;
mod replay;
mod rewind;
mod sending;
mod stat;
mod stop;
mod subscribe;
mod table;
mod target;
mod units;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use exit::Outcome;

const LONG_ABOUT: &str = "\
Messaging between the processes of one host, and between hosts: every consumer sees the same \
messages, in the same order, without a gap.

A stream is one ordered sequence of messages written by one publisher and read by any number of \
subscribers. Its ADDRESS says where it lives:

  shm:NAME                          a ring in /dev/shm/gapless (or $GAPLESS_DIR)
  shm:NAME?capacity=64M&mode=lossy  with options, KEY=VALUE joined by &
  udp:239.1.2.3:9000?iface=eth0     datagrams to a multicast group
  udp:10.0.0.7:9000                 datagrams to a host: the receiver's own address
  log:DIRECTORY?from=1000&pace=2x   what was recorded, to be read

Options of a ring's publisher: capacity, align, max, slots, mode (lossless, lossy), parkable,
evictable, first, filemode. Of its subscriber: from (oldest, now, a sequence number), name, observe,
wait (spin, yield, park). Of both: dir, prefault, lock, huge.

Options of datagrams, where they go: iface, b and ifaceb (line B: the same again), also, bind, ttl,
loop, source. How they are sent: datagram (largest, bytes), flow (none, slowest, or how many
receivers must keep up), heartbeat, linger, ring (a ring that local subscribers may read too),
anysession. How they are received: from, name, request (whom to ask for what is lost), repair
(gapless, mold), session, reorder, skew, backoff, retry, giveup, store. Of both: stats (a page that
`gapless stat` shows), envelope, backend (auto, socket, uring), rcvbuf, sndbuf, dscp, busypoll,
coalesce, and those of a ring.

Of a log: from, until (a sequence number, or a time as @1763788800.25 or @2025-11-22T05:20:00Z),
pace (flat, recorded, 2x), follow, session, reader, envelope, wait. A subscriber of a ring or of
datagrams may name the past of its stream: log (a directory), rewind (servers); what it asks for by
from, and the ring or the sender has not any more, is then read there first.

Each side ignores the other's options, so both may use one string.";

const EXAMPLES: &str = "\
Examples:
  gapless demo                                   real market data, through a ring and between hosts
  echo hello | gapless pub shm:greetings         lines into a stream
  gapless sub shm:greetings                      and out again
  gapless pub shm:load --generate --rate 100000  a load to play with
  gapless pong shm:echo & gapless ping shm:echo  the round trip between two processes
  gapless pub udp:239.1.2.3:9000                 lines to a multicast group
  gapless sub udp:239.1.2.3:9000                 and out again, on any host
  gapless relay shm:orders udp:239.1.2.3:9000    a ring to a multicast group
  gapless record shm:orders log:/var/log/orders  a stream to disk
  gapless replay log:/var/log/orders --pace 2x   and once more, twice as fast
  gapless log ls /var/log/orders                 what was recorded
  gapless order engine --config exchange.toml    sequence, check and match orders
  gapless ls                                     which streams there are
  gapless inspect load --follow                  who reads it, and who is behind
  gapless stat                                   what senders and receivers count, live
  gapless doctor                                 what this host can do, and what would fix the rest
  gapless rm greetings                           away with it";

#[derive(Parser)]
#[command(
    name = "gapless",
    version,
    about = "Low-latency messaging over shared memory and multicast"
)]
#[command(long_about = LONG_ABOUT, after_long_help = format!("{EXAMPLES}\n\n{}", exit::HELP))]
#[command(subcommand_required = true, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Pub(publish::Args),
    Sub(subscribe::Args),
    Ping(ping::PingArgs),
    Pong(ping::PongArgs),
    Relay(relay::Args),
    Rewind(rewind::Args),
    Ls(ls::Args),
    Inspect(inspect::Args),
    Stat(stat::Args),
    Doctor(doctor::Args),
    Record(record::Args),
    Replay(replay::Args),
    Log(log::Args),
    Order(order::Args),
    Rm(remove::Args),
    #[command(hide = true)]
    DemoPublisher(demo::publisher::Args),
    #[command(hide = true)]
    DemoSubscriber(demo::subscriber::Args),
    #[command(hide = true)]
    DemoSender(demo::sender::Args),
    #[command(hide = true)]
    DemoReceiver(demo::receiver::Args),
    #[command(hide = true)]
    DemoRecorder(demo::recorder::Args),
    #[command(hide = true)]
    DemoSurvivor(demo::survivor::Args),
    #[command(hide = true)]
    DemoEngine(demo::engine::Args),
    #[command(hide = true)]
    DemoTrader(demo::trader::Args),
    #[command(hide = true)]
    DemoBridge(demo::bridge::Args),
    #[command(hide = true)]
    DemoAuditor(demo::auditor::Args),
}

fn run(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Demo(args) => demo::run(&args),
        Command::Pub(args) => publish::run(&args),
        Command::Sub(args) => subscribe::run(&args),
        Command::Ping(args) => ping::ping(&args),
        Command::Pong(args) => ping::pong(&args),
        Command::Relay(args) => relay::run(&args),
        Command::Rewind(args) => rewind::run(&args),
        Command::Ls(args) => ls::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Stat(args) => stat::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Replay(args) => replay::run(args),
        Command::Log(args) => log::run(&args),
        Command::Order(args) => order::run(&args),
        Command::Rm(args) => remove::run(&args),
        Command::DemoPublisher(args) => demo::publisher::run(&args),
        Command::DemoSubscriber(args) => demo::subscriber::run(&args),
        Command::DemoSender(args) => demo::sender::run(&args),
        Command::DemoReceiver(args) => demo::receiver::run(&args),
        Command::DemoRecorder(args) => demo::recorder::run(&args),
        Command::DemoSurvivor(args) => demo::survivor::run(&args),
        Command::DemoEngine(args) => demo::engine::run(&args),
        Command::DemoTrader(args) => demo::trader::run(&args),
        Command::DemoBridge(args) => demo::bridge::run(&args),
        Command::DemoAuditor(args) => demo::auditor::run(&args),
    }
}

fn main() -> ExitCode {
    exit::report(run(Cli::parse().command))
}
