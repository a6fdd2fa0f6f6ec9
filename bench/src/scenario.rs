//! A case: what is run, by whom, and what comes out of one run.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use crate::clock::{Clock, ticks};
use crate::control::Control;
use crate::place::Place;

/// What both sides of a scenario do. The lead measures; the partner plays along.
pub(crate) trait Scenario: Send + Sync {
    /// Runs in the measuring process.
    fn lead(&self, session: &Session<'_>) -> Result<Outcome>;
    /// Runs on the other core.
    fn follow(&self, session: &Session<'_>) -> Result<()>;
    /// Why this cannot be run here, as people are told; `None` if it can.
    fn obstacle(&self) -> Option<String> {
        None
    }
    /// Why this cannot be run in that place; `None` if it can.
    fn obstacle_at(&self, _place: &Place) -> Option<String> {
        None
    }
    /// Called before each run, and not timed: makes what several runs share, unless it is there.
    fn prepare(&self, _place: &Place) -> Result<()> {
        Ok(())
    }
}

/// Where the partner runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Partner {
    /// In a process of its own.
    Process,
    /// In a thread: for peers that cannot leave the process.
    Thread,
}

/// One row of the results to be.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The case that is the physical limit of this one.
    pub(crate) floor: Option<String>,
    /// Our own case of the same work, where this one is a peer's.
    pub(crate) rival: Option<String>,
    /// The same work on a path that loses nothing, where this one's does.
    pub(crate) lossfree: Option<String>,
    /// The same work by the application's own threads, where agents stand between here.
    pub(crate) inline: Option<String>,
    /// The plain ring's case, where this one carries the same through more than a ring.
    pub(crate) ring: Option<String>,
    /// The same work by plain sockets, and by io_uring, where this one's is by AF_XDP.
    pub(crate) sockets: Option<String>,
    pub(crate) uring: Option<String>,
    /// The same work by plain sockets whose super-datagrams are cut before the wire.
    pub(crate) cut_sockets: Option<String>,
    pub(crate) partner: Partner,
    /// Whether it does not matter how far apart the cores are, since one side does all the work or
    /// the disk takes most of the time: runs of both classes are then one row.
    pub(crate) any_class: bool,
    /// Whether percentiles are those of the samples of all rounds together: where a round has too
    /// few of them for percentiles of its own.
    pub(crate) pooled: bool,
    pub(crate) scenario: Arc<dyn Scenario>,
}

impl Case {
    /// A case of two processes, without a floor.
    pub(crate) fn new(name: impl Into<String>, scenario: impl Scenario + 'static) -> Self {
        Self {
            name: name.into(),
            floor: None,
            rival: None,
            lossfree: None,
            inline: None,
            ring: None,
            sockets: None,
            uring: None,
            cut_sockets: None,
            partner: Partner::Process,
            any_class: false,
            pooled: false,
            scenario: Arc::new(scenario),
        }
    }

    pub(crate) fn against(mut self, floor: impl Into<String>) -> Self {
        self.floor = Some(floor.into());
        self
    }

    pub(crate) fn rival_of(mut self, ours: impl Into<String>) -> Self {
        self.rival = Some(ours.into());
        self
    }

    pub(crate) fn without_loss(mut self, lossfree: impl Into<String>) -> Self {
        self.lossfree = Some(lossfree.into());
        self
    }

    pub(crate) fn instead_of(mut self, inline: impl Into<String>) -> Self {
        self.inline = Some(inline.into());
        self
    }

    pub(crate) fn over_ring(mut self, ring: impl Into<String>) -> Self {
        self.ring = Some(ring.into());
        self
    }

    pub(crate) fn over_sockets(mut self, sockets: impl Into<String>) -> Self {
        self.sockets = Some(sockets.into());
        self
    }

    pub(crate) fn over_uring(mut self, uring: impl Into<String>) -> Self {
        self.uring = Some(uring.into());
        self
    }

    pub(crate) fn over_cut_sockets(mut self, sockets: impl Into<String>) -> Self {
        self.cut_sockets = Some(sockets.into());
        self
    }

    /// The cases that this one is compared with.
    pub(crate) fn measures(&self) -> impl Iterator<Item = &String> {
        let judges = [&self.floor, &self.rival, &self.lossfree, &self.inline, &self.ring];
        judges.into_iter().chain([&self.sockets, &self.uring, &self.cut_sockets]).flatten()
    }

    pub(crate) fn pooled(mut self) -> Self {
        self.pooled = true;
        self
    }

    pub(crate) fn of_any_class(mut self) -> Self {
        self.any_class = true;
        self
    }

    pub(crate) fn in_threads(mut self) -> Self {
        self.partner = Partner::Thread;
        self
    }
}

/// How long a run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
}

impl Span {
    /// Long enough for a look.
    pub(crate) const QUICK: Self =
        Self { warm_up: Duration::from_millis(20), measure: Duration::from_millis(100) };
    /// Long enough for 99.99 percentiles of what happens 100,000 times a second.
    pub(crate) const FULL: Self =
        Self { warm_up: Duration::from_millis(100), measure: Duration::from_millis(1000) };

    /// Whether this is no full measurement.
    pub(crate) fn is_quick(&self) -> bool {
        self.measure < Self::FULL.measure
    }
}

/// One run, as both sides see it.
pub(crate) struct Session<'a> {
    pub(crate) dir: &'a Path,
    pub(crate) control: &'a Control,
    pub(crate) clock: Clock,
    pub(crate) span: Span,
    /// The other side's core, for threads beside the measuring one.
    pub(crate) beside: usize,
    /// Where to write, in suites that do.
    pub(crate) place: Option<&'a Place>,
}

impl Session<'_> {
    /// Where to write.
    ///
    /// # Errors
    /// If the suite has no such place.
    pub(crate) fn place(&self) -> Result<&Place> {
        self.place.context("this suite has no directory to write in")
    }

    /// Ticks at which warming up ends, and at which the run ends, if it starts now.
    pub(crate) fn schedule(&self) -> (u64, u64) {
        let warm = ticks() + self.clock.to_ticks(self.span.warm_up);
        (warm, warm + self.clock.to_ticks(self.span.measure))
    }
}

/// Largest latency told apart, in ticks: some ten seconds.
const TICKS_MAX: u64 = 1 << 35;

/// An empty histogram of ticks, of three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, TICKS_MAX, 3).expect("bounds and digits are in range")
}

/// What kills did to a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kills {
    /// How often its writer was killed.
    pub(crate) kills: u64,
    /// Commands that were accepted by their client's ring, and are not in the stream.
    pub(crate) lost: u64,
    /// Commands that are in it more than once.
    pub(crate) duplicated: u64,
}

/// What one run measured.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Latencies in ticks.
    pub(crate) samples: Option<Histogram<u64>>,
    /// Operations that one sample covers.
    pub(crate) operations_per_sample: u32,
    /// Messages (or operations) a second, in millions.
    pub(crate) rate_mps: Option<f64>,
    /// System calls a message, those of both sides together.
    pub(crate) system_calls_per_message: Option<f64>,
    /// What only this case has to say.
    pub(crate) details: BTreeMap<String, f64>,
    /// Added up over the rounds.
    pub(crate) kills: Option<Kills>,
    /// Whether two states that must be equal were.
    pub(crate) hash_equal: Option<bool>,
}

impl Outcome {
    /// Latencies, one a sample.
    pub(crate) fn latency(samples: Histogram<u64>) -> Self {
        Self { samples: Some(samples), operations_per_sample: 1, ..Self::default() }
    }

    /// A rate: `count` messages in `ticks_long`.
    pub(crate) fn rate(clock: Clock, count: u64, ticks_long: u64) -> Self {
        Self::default().with_rate(clock, count, ticks_long)
    }

    pub(crate) fn with_rate(mut self, clock: Clock, count: u64, ticks_long: u64) -> Self {
        let ns = clock.to_ns(ticks_long.max(1));
        self.rate_mps = Some(count as f64 * 1e3 / ns);
        self
    }

    pub(crate) fn with_detail(mut self, name: &str, value: f64) -> Self {
        self.details.insert(name.to_owned(), value);
        self
    }
}
