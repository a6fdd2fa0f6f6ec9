//! `gapless record`: a ring, or datagrams, into a log.

use std::fmt;
use std::str::FromStr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use gapless::log::{
    LogError, LogOptions, PastSource, Recorder, RecorderOptions, Retention, SyncPolicy, WhenSlow,
};
use gapless::shm::{ProducerStatus, RingError, session_text};
use gapless::{Address, Agent, ShmAddress, WaitStrategy, Waiter, pin_current_thread};
use indicatif::ProgressBar;
use tempfile::TempDir;

use crate::exit::{Outcome, Usage};
use crate::log::Directory;
use crate::notes;
use crate::progress;
use crate::relay::private_directory;
use crate::relay::stage::{Intake, SourceEnd, inspect, ring_between};
use crate::stop::Stop;
use crate::table::{Cell, Facts, grouped, per_second, print_json, rate_text};
use crate::units::{bytes, duration};

/// Between two looks at whether the source has ended, each of which may be a system call.
const STATUS_INTERVAL: Duration = Duration::from_millis(1);
/// Between two status lines.
const SHOW_INTERVAL: Duration = Duration::from_millis(250);
/// Longest sleep with `wait=park`.
const PARK_MAX: Duration = Duration::from_millis(1);
/// How often to look for a ring that does not exist yet.
const ATTACH_INTERVAL: Duration = Duration::from_millis(2);
/// How long what is in the ring may take to be recorded, when asked to end.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Record a stream into a log
///
/// Goes on where the log ends: with the ring's oldest message at the latest, and with what --refill
/// finds of those between. A recorder that is killed loses nothing that it has written, and its
/// successor goes on behind that. Ends when the publisher has closed the stream, or died, and
/// everything is recorded; ctrl-c ends it in order, with everything synced.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless record shm:orders log:/var/log/orders
  gapless record shm:orders log:/var/log/orders --sync every=10ms --retain-age 7days --follow
  gapless record 'udp:239.1.2.3:9000?iface=eth0&from=oldest' log:/var/log/feed --sync batch
  gapless record shm:feed log:/a --on-slow refill --refill log:/mnt/other/feed

While it runs, `gapless stat NAME.recorder` shows what it counts, what is durable among it.

If the disk is slower than the stream, the publisher waits (--on-slow gate); with --on-slow refill
it does not: what the recorder missed is got from the places of --refill, or put on record as lost.
On a full disk it waits for room.

Ends with 3 if messages were lost, or the publisher died.")]
pub(crate) struct Args {
    /// The stream, as shm:NAME or udp:239.1.2.3:9000?iface=eth0
    from: Address,
    /// The log, as log:DIRECTORY
    to: Directory,
    /// When what was written is made to last through a crash of the host: none, every=TIME (as
    /// every=10ms), batch (as soon as it is written)
    #[arg(long, value_name = "POLICY", default_value = "none", value_parser = sync_policy)]
    sync: SyncPolicy,
    /// Size of a segment
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = bytes)]
    segment: u64,
    /// Finish a segment at this age, although there is room, when the next message comes [default:
    /// never]
    #[arg(long, value_name = "AGE", value_parser = duration)]
    segment_age: Option<Duration>,
    /// Keep about so many bytes [default: all]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    retain_bytes: Option<u64>,
    /// Keep what is younger than this, as 12h or 7days [default: all]
    #[arg(long, value_name = "AGE", value_parser = duration)]
    retain_age: Option<Duration>,
    /// What happens when the disk is slower than the stream
    #[arg(long, value_enum, default_value_t = OnSlow::Gate)]
    on_slow: OnSlow,
    /// Where to get what was missed: log:DIRECTORY, or a rewinder as 10.0.0.7:9100; may be given
    /// several times
    #[arg(long, value_name = "PLACE")]
    refill: Vec<Place>,
    /// How long places to refill from may have nothing
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    patience: Duration,
    /// Go on when the publisher has gone: another one may take the stream over
    #[arg(long)]
    follow: bool,
    /// Wait for the ring to be created
    #[arg(long)]
    wait_for_publisher: bool,
    /// Pin to this core
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
    /// Summary as one JSON object
    #[arg(long)]
    json: bool,
}

/// What happens when the disk is slower than the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OnSlow {
    /// The publisher waits
    Gate,
    /// Nobody waits; what was missed is got from elsewhere
    Refill,
}

/// A place that has the past of a stream.
#[derive(Clone, Debug)]
struct Place(PastSource);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("log:") {
            Some(_) => Ok(Self(PastSource::Log(text.parse::<Directory>()?.0))),
            None => match text.parse() {
                Ok(server) => Ok(Self(PastSource::Server(server))),
                Err(_) => Err("expected log:DIRECTORY, or a rewinder as 10.0.0.7:9100".into()),
            },
        }
    }
}

fn sync_policy(text: &str) -> Result<SyncPolicy, String> {
    match (text, text.strip_prefix("every=")) {
        ("none", _) => Ok(SyncPolicy::None),
        ("batch", _) => Ok(SyncPolicy::Batch),
        (_, Some(time)) => duration(time).map(SyncPolicy::Every),
        _ => Err("expected none, every=10ms, or batch".into()),
    }
}

impl Args {
    fn options(&self) -> RecorderOptions {
        let retention = Retention { bytes: self.retain_bytes, age: self.retain_age };
        let mut log = LogOptions::new().sync(self.sync).segment_bytes(self.segment);
        log = log.retention(retention);
        if let Some(age) = self.segment_age {
            log = log.segment_age(age);
        }
        let when_slow = match self.on_slow {
            OnSlow::Gate => WhenSlow::Gate,
            OnSlow::Refill => WhenSlow::Refill,
        };
        let places: Vec<PastSource> = self.refill.iter().map(|place| place.0.clone()).collect();
        RecorderOptions::new().log(log).when_slow(when_slow).refill(places).patience(self.patience)
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let stop = Stop::on_signals()?;
    if let Some(core) = args.core {
        pin_current_thread(core)?;
    }
    let start = Instant::now();
    let mut recording = Recording::open(args)?;
    let end = recording.run(args, &stop)?;
    recording.finish(args, end, start.elapsed())
}

/// Why recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Source(SourceEnd),
    Stopped,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Source(SourceEnd::Closed) => "the publisher closed the stream",
            Self::Source(SourceEnd::Died) => "the publisher died without closing the stream",
            Self::Stopped => "interrupted",
        })
    }
}

struct Recording {
    /// Of datagrams: what fills the ring.
    intake: Option<Intake>,
    ring: ShmAddress,
    strategy: WaitStrategy,
    recorder: Option<Recorder>,
    status: Status,
    /// Holds the ring that datagrams go through.
    _directory: Option<TempDir>,
}

impl Recording {
    fn open(args: &Args) -> anyhow::Result<Self> {
        let status = Status::new(args);
        let (intake, ring, strategy, directory) = match &args.from {
            Address::Shm(ring) => (None, ring.clone(), ring.wait_strategy(), None),
            Address::Udp(from) => {
                let directory = private_directory()?;
                let name = from.name().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
                let ring = ring_between(from, &name, &directory.path().display().to_string())?;
                let mut agent = gapless::wire::ReceiverAgent::open(from, &ring)?;
                notes::tell(agent.inlet().network());
                (Some(Intake::Wire(Box::new(agent))), ring, from.wait_strategy(), Some(directory))
            }
            from => return Err(Usage(format!("{from}: shm: and udp: can be recorded")).into()),
        };
        Ok(Self { intake, ring, strategy, recorder: None, status, _directory: directory })
    }

    /// Attaches to the ring, once it is there.
    fn attach(&mut self, args: &Args) -> anyhow::Result<bool> {
        if self.recorder.is_some() {
            return Ok(true);
        }
        if let Some(intake) = &mut self.intake
            && intake.session().is_none()
        {
            return Ok(false);
        }
        let wait = args.wait_for_publisher || self.intake.is_some();
        match Recorder::open(&self.ring, &args.to.0, &args.options()) {
            Err(LogError::Ring(RingError::NotFound { .. })) if wait => Ok(false),
            recorder => {
                let recorder = recorder?;
                if let Some(cut) = recorder.recovery().and_then(|found| found.cut.as_ref()) {
                    let (path, bytes) = (cut.path.display(), cut.bytes);
                    eprintln!("gapless: {path}: a torn end of {bytes} bytes was cut off");
                }
                self.recorder = Some(recorder);
                Ok(true)
            }
        }
    }

    /// Records until the source ends, or a stop is asked.
    fn run(&mut self, args: &Args, stop: &Stop) -> anyhow::Result<End> {
        let mut waiter = Waiter::new(self.strategy);
        let mut looked_at = Instant::now();
        loop {
            let attached = self.attach(args)?;
            let mut work = self.intake.as_mut().map_or(Ok(0), |intake| intake.cycle(u64::MAX))?;
            if let Some(recorder) = &mut self.recorder {
                work += recorder.duty_cycle()?;
            }
            if stop.asked() {
                self.drain()?;
                return Ok(End::Stopped);
            }
            if work > 0 {
                waiter.reset();
            }
            let now = Instant::now();
            if now.duration_since(looked_at) >= STATUS_INTERVAL {
                looked_at = now;
                self.status.show(now, &self.ring, self.recorder.as_ref());
                if work == 0
                    && !args.follow
                    && let Some(end) = self.end()
                {
                    return Ok(End::Source(end));
                }
            }
            match (work, self.strategy) {
                (0, _) if !attached && self.intake.is_none() => sleep(ATTACH_INTERVAL),
                (0, WaitStrategy::Park) => match &mut self.intake {
                    Some(intake) => intake.sleep(PARK_MAX)?,
                    None => sleep(PARK_MAX),
                },
                (0, _) => waiter.idle(),
                _ => {}
            }
        }
    }

    /// Whether there is nothing more to come, and all of it is recorded.
    fn end(&mut self) -> Option<SourceEnd> {
        if let Some(intake) = &mut self.intake {
            let ended = intake.end(None)?;
            // Asked after an empty cycle: what there was is in the ring.
            let next = match intake {
                Intake::Wire(agent) => agent.producer().map(|producer| producer.next_sequence()),
                _ => None,
            };
            let recorded = self.recorder.as_ref().map(Recorder::next_sequence);
            return (next == recorded).then_some(ended);
        }
        if !self.recorder.as_ref()?.is_done() {
            return None;
        }
        let publisher = inspect(&self.ring).map(|ring| ring.snapshot().producer);
        Some(match publisher {
            Ok(ProducerStatus::Dead) => SourceEnd::Died,
            _ => SourceEnd::Closed, // a ring that was removed was done with
        })
    }

    /// Records what is in the ring now.
    fn drain(&mut self) -> anyhow::Result<()> {
        let Some(recorder) = &mut self.recorder else { return Ok(()) };
        let until = Instant::now() + DRAIN_MAX;
        let target = inspect(&self.ring).map_or(0, |ring| ring.snapshot().next_sequence);
        while recorder.next_sequence() < target
            && recorder.trouble().is_none()
            && Instant::now() < until
        {
            if recorder.duty_cycle()? == 0 {
                std::thread::yield_now();
            }
        }
        Ok(())
    }

    fn finish(self, args: &Args, end: End, elapsed: Duration) -> anyhow::Result<Outcome> {
        self.status.bar.finish_and_clear();
        let mut facts = Facts::default();
        facts.add("from", "from", Cell::text(args.from.to_string()));
        facts.add("to", "to", Cell::text(args.to.0.display().to_string()));
        let mut lost = 0;
        if let Some(recorder) = self.recorder {
            let counts = recorder.counts();
            let position = recorder.writer().position();
            let cut = recorder.recovery().and_then(|found| found.cut.as_ref());
            let cut = cut.map_or(0, |cut| cut.bytes);
            recorder.close()?; // everything is durable before it is said to be recorded
            lost = counts.lost;
            facts.add("messages", "messages", Cell::count(counts.messages));
            facts.add("bytes", "bytes", Cell::bytes(counts.bytes));
            facts.add("lapped", "lapped", Cell::count(counts.lapped));
            facts.add("refilled", "refilled", Cell::count(counts.refilled));
            facts.add("lost", "lost", Cell::count(counts.lost));
            facts.add("no_room", "disk full", Cell::count(counts.no_room));
            facts.add("cut_bytes", "cut off", Cell::bytes(cut));
            if let Some((session, next)) = position {
                facts.add("session", "session", Cell::text(session_text(session)));
                facts.add("next_sequence", "next sequence", Cell::count(next));
            }
            let rate = per_second(counts.messages, elapsed);
            facts.add("elapsed_s", "seconds", Cell::seconds(elapsed));
            facts.add("messages_per_second", "rate", Cell::with(rate_text(rate, "msg"), rate));
        } else {
            facts.add("messages", "messages", Cell::count(0));
        }
        facts.add("end", "ended by", Cell::text(end.to_string()));
        match args.json {
            true => print_json(&facts.json().into())?,
            false => println!("{facts}"),
        }
        Ok(Outcome::wrong_if(lost > 0 || end == End::Source(SourceEnd::Died)))
    }
}

/// The status line: rate, how far behind, what is durable.
struct Status {
    bar: ProgressBar,
    shown_at: Instant,
    shown_messages: u64,
    synced: bool,
    trouble: bool,
}

impl Status {
    fn new(args: &Args) -> Self {
        let bar = progress::spinner(format!("waiting for {}", args.from));
        let synced = args.sync != SyncPolicy::None;
        Self { bar, shown_at: Instant::now(), shown_messages: 0, synced, trouble: false }
    }

    fn show(&mut self, now: Instant, ring: &ShmAddress, recorder: Option<&Recorder>) {
        let elapsed = now.duration_since(self.shown_at);
        let Some(recorder) = recorder.filter(|_| elapsed >= SHOW_INTERVAL) else { return };
        let messages = recorder.counts().messages;
        let new = messages - self.shown_messages;
        (self.shown_at, self.shown_messages) = (now, messages);
        let trouble = recorder.trouble();
        match (trouble, self.trouble) {
            (Some(trouble), false) => self.bar.suspend(|| eprintln!("gapless: {trouble}")),
            (None, true) => self.bar.suspend(|| eprintln!("gapless: there is room again")),
            _ => {}
        }
        self.trouble = trouble.is_some();
        if self.bar.is_hidden() {
            return;
        }
        let next = recorder.next_sequence();
        let published = inspect(ring).map_or(next, |ring| ring.snapshot().next_sequence);
        let durable = match self.synced {
            true => format!("durable {}", grouped(recorder.writer().durable_sequence())),
            false => "not synced".into(),
        };
        self.bar.set_message(format!(
            "recording {}, {}, {} behind, written {}, {durable}",
            ring.name(),
            rate_text(per_second(new, elapsed), "msg"),
            grouped(published.saturating_sub(next)),
            grouped(recorder.writer().written_sequence()),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_and_places_are_understood() {
        assert_eq!(sync_policy("none"), Ok(SyncPolicy::None));
        assert_eq!(sync_policy("batch"), Ok(SyncPolicy::Batch));
        let every = SyncPolicy::Every(Duration::from_millis(10));
        assert_eq!(sync_policy("every=10ms"), Ok(every));
        for bad in ["", "every", "every=", "every=10", "always"] {
            assert!(sync_policy(bad).is_err(), "{bad}");
        }
        let place = |text: &str| text.parse::<Place>().map(|place| place.0.to_string());
        assert_eq!(place("log:/a/b"), Ok("log:/a/b".into()));
        assert_eq!(place("10.0.0.7:9100"), Ok("10.0.0.7:9100".into()));
        assert!(place("log:").is_err() && place("nowhere").is_err());
    }
}
