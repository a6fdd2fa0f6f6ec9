//! `gapless relay`: joins any two: rings, datagrams, captured files. Everything goes through a
//! ring, so sequence numbers, sessions and repair are those of the library's own agents.

pub(crate) mod capture;
mod feed;
pub(crate) mod origin;
mod sink;
pub(crate) mod stage;

use std::time::{Duration, Instant};

use gapless::shm::{Inspector, ring_path};
use gapless::{Address, ShmAddress, WaitStrategy, Waiter, pin_current_thread};
use tempfile::TempDir;

use crate::exit::{Outcome, Usage};
use crate::notes;
use crate::progress;
use crate::stop::Stop;
use crate::table::{Cell, Facts, per_second, print_json, rate_text};
use feed::Feed;
use origin::{FileOrigin, Origin};
use sink::Sink;
use stage::{Intake, Outlet, SourceEnd, inspect, ring_between};

/// Between two looks at whether the source has ended: each may be a system call.
const STATUS_INTERVAL: Duration = Duration::from_millis(1);
/// Longest sleep with `wait=park`: requests must not wait for long.
const PARK_MAX: Duration = Duration::from_millis(1);

/// Join two: rings, datagrams, captured files
///
/// Sequence numbers stay as they are, sessions too where they are numbers; what was lost for good
/// on the way in is an explicit hole on the way out. Ends with its source: when the publisher has
/// closed the stream, or died, or at the end of the file. Ctrl-c ends the session that it sends in
/// order: what receivers lack is repeated first.
#[derive(clap::Args)]
#[command(after_long_help = "\
FROM is an address, shm:NAME, udp:GROUP_OR_HOST:PORT or log:DIRECTORY, or a file:

  file:FILE?prefix=be16&first=N     length-prefixed records (be16, le16, be32, le32)
  mold:FILE                         MoldUDP64 packets one behind the other
  pcap:FILE?port=PORT&b=IP:PORT     MoldUDP64 packets in a capture (pcap or pcapng), by where they
                                    went to: PORT or IP:PORT; b= is line B
  pcap:FILE?port=PORT&raw=yes       each datagram of the capture is a message

Examples:
  gapless relay shm:orders 'udp:239.1.2.3:9000?iface=eth0&stats=out'      ring to multicast
  gapless relay 'udp:239.1.2.3:9000?iface=eth0&stats=in' shm:orders       and back into a ring
  gapless relay 'udp:239.1.2.3:9000?b=239.1.2.4:9000&ifaceb=eth1' shm:feed     two lines, one ring
  gapless relay 'udp:233.54.12.111:26477?repair=mold&request=10.1.1.1:18001' shm:itch
  gapless relay 'pcap:day.pcap?port=26477' shm:itch
  gapless relay mold:packets.dat 'udp:10.0.0.7:9000?flow=1' --wait-for 1
  gapless relay shm:orders shm:copy

`stats=NAME` in a udp address makes a counters page for `gapless stat NAME`. With fewer cores than
relays say `wait=yield` or `wait=park` in an address.

Ends with 3 if messages were lost, the source died, or a file is damaged.")]
pub(crate) struct Args {
    /// Where messages come from
    from: Origin,
    /// Where they go: shm:NAME or udp:GROUP_OR_HOST:PORT
    to: Address,
    /// End when N messages have been carried; datagrams are taken whole
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Go on when the publisher has gone: another one may take the stream over
    #[arg(long)]
    follow: bool,
    /// Messages a second from a file [default: as fast as they go]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,
    /// Begin with a file or a log when N subscribers are attached, or receivers have reported
    #[arg(long, value_name = "N")]
    wait_for: Option<usize>,
    /// Pin to this core
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
    /// Summary as one JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    let is_file = matches!(args.from, Origin::File(_));
    if !is_file && args.rate.is_some() {
        return Err(Usage("--rate is for files (for logs: pace= in the address)".into()).into());
    }
    if !is_file && !matches!(args.from, Origin::Stream(Address::Log(_))) && args.wait_for.is_some()
    {
        let text = "--wait-for is for files and logs (for streams: flow=N in the udp address)";
        return Err(Usage(text.into()).into());
    }
    if let Some(core) = args.core {
        pin_current_thread(core)?;
    }
    let mut relay = Relay::open(args)?;
    let start = Instant::now();
    let end = relay.carry(args, &stop, start)?;
    if let Some(outlet) = &mut relay.outlet {
        outlet.finish()?;
    }
    relay.summarise(args, end, start.elapsed())
}

/// Why carrying ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source(SourceEnd),
    Enough,
    Stopped,
}

struct Relay {
    intake: Intake,
    outlet: Option<Outlet>,
    /// The ring in the middle, if it has to be waited for who reads it.
    ring: ShmAddress,
    strategy: WaitStrategy,
    /// Holds the ring between two streams of datagrams.
    _directory: Option<TempDir>,
}

impl Args {
    /// A log into a stream.
    pub(crate) fn replay(
        from: Address,
        to: Address,
        count: Option<u64>,
        wait_for: Option<usize>,
        json: bool,
    ) -> Self {
        let (follow, rate, core) = (false, None, None);
        Self { from: Origin::Stream(from), to, count, follow, rate, wait_for, core, json }
    }
}

impl Relay {
    fn open(args: &Args) -> anyhow::Result<Self> {
        let (ring, outlet, directory) = match (&args.from, &args.to) {
            (Origin::Stream(Address::Shm(from)), Address::Udp(to)) => {
                if to.ring_name().is_some() {
                    let text = format!("{}: the ring is {}, no ring= here", to.text(), from.name());
                    return Err(Usage(text).into());
                }
                (from.clone(), Some(Outlet::new((**to).clone(), from.clone())), None)
            }
            (_, Address::Shm(to)) => (to.clone(), None, None),
            (_, Address::Udp(to)) => {
                let directory = private_directory()?;
                let ring = ring_between(to, "between", &directory.path().display().to_string())?;
                let outlet = Outlet::new((**to).clone(), ring.clone());
                (ring, Some(outlet), Some(directory))
            }
            (_, to) => return Err(Usage(format!("{to}: relays know shm: and udp:")).into()),
        };
        let mut strategy = match &args.to {
            Address::Shm(shm) => shm.wait_strategy(),
            Address::Udp(udp) => udp.wait_strategy(),
            _ => WaitStrategy::default(),
        };
        let intake = match &args.from {
            Origin::File(file) => open_file(file, ring.clone(), args.wait_for)?,
            Origin::Stream(Address::Udp(from)) => {
                strategy = from.wait_strategy();
                let mut agent = gapless::wire::ReceiverAgent::open(from, &ring)?;
                notes::tell(agent.inlet().network());
                Intake::Wire(Box::new(agent))
            }
            Origin::Stream(Address::Shm(from)) => {
                strategy = from.wait_strategy();
                match &outlet {
                    Some(_) => Intake::Nothing { ring: Box::new(inspect(from)?) },
                    None if from.name() == ring.name() && from.directory() == ring.directory() => {
                        return Err(Usage("a ring cannot be relayed to itself".into()).into());
                    }
                    None => Intake::copy(from, ring.clone())?,
                }
            }
            Origin::Stream(Address::Log(from)) => {
                let mut sink = Sink::new(ring.clone());
                sink.held = args.wait_for.is_some_and(|count| count > 0);
                Intake::replay(from, sink)?
            }
            Origin::Stream(from) => {
                return Err(Usage(format!("{from}: relays know shm:, udp: and log:")).into());
            }
        };
        Ok(Self { intake, outlet, ring, strategy, _directory: directory })
    }

    /// Carries until the source ends, enough was carried, or a stop is asked.
    fn carry(&mut self, args: &Args, stop: &Stop, start: Instant) -> anyhow::Result<End> {
        let spinner = progress::spinner(format!("{} to {}", args.from, args.to));
        let mut waiter = Waiter::new(self.strategy);
        let mut looked_at = start;
        let mut begun = start;
        loop {
            let left = args.count.map_or(u64::MAX, |count| count.saturating_sub(self.messages()));
            let mut work = 0;
            if left > 0 && self.is_due(args, begun) {
                let limit = if args.rate.is_some() { 1 } else { left };
                work += self.intake.cycle(limit)?;
            }
            if let Some(outlet) = &mut self.outlet {
                outlet.follow(self.intake.session())?;
                work += outlet.cycle()?;
            }
            if stop.asked() {
                return Ok(End::Stopped);
            }
            if left == 0 && self.all_left() {
                return Ok(End::Enough);
            }
            if work > 0 {
                waiter.reset();
            }
            let now = Instant::now();
            if work == 0 && now.duration_since(looked_at) >= STATUS_INTERVAL {
                looked_at = now;
                spinner.set_position(self.messages());
                if self.release(args)? {
                    begun = now;
                }
                let sent = self.outlet.as_ref().and_then(Outlet::next_sequence);
                let ended = self.intake.end(sent).filter(|_| !args.follow);
                // Asked after an empty cycle, and nothing has come since.
                if let Some(end) = ended
                    && self.intake.cycle(left)? == 0
                    && self.all_left()
                {
                    return Ok(End::Source(end));
                }
            }
            if work == 0 {
                match self.strategy {
                    WaitStrategy::Park => self.intake.sleep(PARK_MAX)?,
                    _ => waiter.idle(),
                }
            }
        }
    }

    /// Whether a file's next message may go.
    fn is_due(&self, args: &Args, begun: Instant) -> bool {
        let Intake::File { sink, .. } = &self.intake else { return true };
        let Some(rate) = args.rate else { return true };
        sink.held || sink.messages as f64 <= begun.elapsed().as_secs_f64() * rate as f64
    }

    /// Lets a file's messages go once those who are waited for are there. True if it did.
    fn release(&mut self, args: &Args) -> anyhow::Result<bool> {
        let (Intake::File { sink, .. } | Intake::Log { sink, .. }) = &mut self.intake else {
            return Ok(false);
        };
        if !sink.held || sink.producer.is_none() {
            return Ok(false);
        }
        let found = match &self.outlet {
            Some(outlet) => outlet.receivers(),
            None => {
                let file = ring_path(self.ring.directory(), self.ring.name())?;
                let consumers = Inspector::open_file(&file)?.snapshot().consumers;
                consumers.iter().filter(|consumer| consumer.alive).count()
            }
        };
        sink.held = found < args.wait_for.unwrap_or(0);
        Ok(!sink.held)
    }

    /// Messages carried so far.
    fn messages(&mut self) -> u64 {
        match (&self.intake, &self.outlet) {
            (Intake::Nothing { .. }, Some(outlet)) => outlet.counts().messages,
            _ => self.intake.carried().0,
        }
    }

    /// Whether everything that is in the ring has been sent.
    fn all_left(&mut self) -> bool {
        let next = match &mut self.intake {
            Intake::Nothing { .. } => None,
            Intake::Wire(agent) => agent.producer().map(|producer| producer.next_sequence()),
            Intake::Ring { sink, .. } | Intake::File { sink, .. } | Intake::Log { sink, .. } => {
                sink.producer.as_ref().map(|producer| producer.next_sequence())
            }
        };
        match (&self.outlet, next) {
            (Some(outlet), Some(next)) => outlet.next_sequence() == Some(next),
            _ => true,
        }
    }

    fn summarise(mut self, args: &Args, end: End, elapsed: Duration) -> anyhow::Result<Outcome> {
        let messages = self.messages();
        let (_, bytes, lost) = self.intake.carried();
        let sent = self.outlet.as_ref().map(Outlet::counts);
        let lost = lost + sent.map_or(0, |sent| sent.lapped);
        let torn = match &mut self.intake {
            Intake::File { feed, .. } => feed.torn.take(),
            _ => None,
        };
        let rate = per_second(messages, elapsed);
        let mut facts = Facts::default();
        facts.add("from", "from", Cell::text(args.from.to_string()));
        facts.add("to", "to", Cell::text(args.to.to_string()));
        facts.add("messages", "messages", Cell::count(messages));
        let bytes = sent.map_or(bytes, |sent| sent.bytes);
        facts.add("bytes", "bytes", Cell::bytes(bytes));
        facts.add("lost", "lost", Cell::count(lost));
        if let Some(received) = self.intake.received() {
            facts.add("packets_in", "packets in", Cell::count(received.packets));
            facts.add("gaps", "gaps", Cell::count(received.gaps));
            facts.add("repaired", "repaired", Cell::count(received.repaired));
            facts.add("reordered", "reordered", Cell::count(received.reordered));
            facts.add("duplicates", "duplicates", Cell::count(received.duplicates));
            facts.add("malformed", "malformed", Cell::count(received.malformed));
        }
        if let Some(sent) = sent {
            facts.add("packets_out", "packets out", Cell::count(sent.packets));
            facts.add("requests", "requests", Cell::count(sent.requests));
            facts.add("repeated", "repeated", Cell::count(sent.repaired_messages));
        }
        facts.add("elapsed_s", "seconds", Cell::seconds(elapsed));
        facts.add("messages_per_second", "rate", Cell::with(rate_text(rate, "msg"), rate));
        facts.add("end", "ended by", Cell::text(end_text(end, &args.from)));
        let torn = torn.map_or(Cell::none(), Cell::text);
        let wrong = lost > 0 || !torn.is_none() || end == End::Source(SourceEnd::Died);
        facts.add("problem", "problem", torn);
        if args.json {
            print_json(&facts.json().into())?;
        } else {
            println!("{facts}");
        }
        Ok(Outcome::wrong_if(wrong))
    }
}

fn end_text(end: End, from: &Origin) -> &'static str {
    match (end, from) {
        (End::Enough, _) => "as many messages as asked for",
        (End::Stopped, _) => "interrupted",
        (End::Source(SourceEnd::Died), _) => "the publisher died without closing the stream",
        (End::Source(SourceEnd::Closed), Origin::File(_)) => "the end of the file",
        (End::Source(SourceEnd::Closed), Origin::Stream(Address::Log(_))) => {
            "the end of the replay"
        }
        (End::Source(SourceEnd::Closed), _) => "the publisher closed the stream",
    }
}

fn open_file(file: &FileOrigin, to: ShmAddress, wait: Option<usize>) -> anyhow::Result<Intake> {
    let mut sink = Sink::new(to);
    let feed = Box::new(Feed::open(file, &mut sink)?);
    sink.held = wait.is_some_and(|count| count > 0);
    Ok(Intake::File { feed, sink })
}

/// For the ring between two streams of datagrams.
pub(crate) fn private_directory() -> anyhow::Result<TempDir> {
    let directory = |parent: &std::path::Path| {
        tempfile::Builder::new().prefix("gapless-relay-").tempdir_in(parent)
    };
    let shared = directory(std::path::Path::new("/dev/shm"));
    Ok(shared.or_else(|_| directory(&std::env::temp_dir()))?)
}
