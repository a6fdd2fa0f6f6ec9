//! Rounds: every case once a round, so that all of them see the same weather.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};

use crate::clock::Clock;
use crate::control::{Control, Word};
use crate::partner::{Brief, Running, pin};
use crate::place::Place;
use crate::probe::{Class, classify};
use crate::report::Skipped;
use crate::scenario::{Case, Outcome, Session, Span};

/// A run whose class changed is repeated this often, then given up for this round.
const ATTEMPTS: u32 = 4;
/// A quick measurement begins no round that would probably end later than this.
const QUICK_LIMIT: Duration = Duration::from_secs(55);

/// What is to be run, and how long.
pub(crate) struct Plan {
    pub(crate) suite: String,
    pub(crate) clock: Clock,
    pub(crate) span: Span,
    pub(crate) rounds: u32,
    pub(crate) quick: bool,
    pub(crate) cores: [usize; 2],
    /// Where to write, in suites that do.
    pub(crate) place: Option<Place>,
}

/// One run of one case.
pub(crate) struct Run {
    pub(crate) case: usize,
    pub(crate) class: Class,
    pub(crate) outcome: Outcome,
}

/// The cases that can be run here, and those that cannot, with the reasons.
pub(crate) fn runnable(
    suite: &str,
    cases: Vec<Case>,
    place: Option<&Place>,
) -> (Vec<Case>, Vec<Skipped>) {
    let mut skipped = Vec::new();
    let mut can_run = |case: &Case| {
        let here = || case.scenario.obstacle_at(place?);
        let obstacle = case.scenario.obstacle().or_else(here);
        let skip = |reason| Skipped { suite: suite.to_owned(), case: case.name.clone(), reason };
        let found = obstacle.map(skip);
        let none = found.is_none();
        skipped.extend(found);
        none
    };
    let cases = cases.into_iter().filter(|case| can_run(case)).collect();
    (cases, skipped)
}

/// Runs all rounds; `progress` is told what comes next.
pub(crate) fn rounds(
    plan: &Plan,
    cases: &[Case],
    mut progress: impl FnMut(&str),
) -> Result<Vec<Run>> {
    let started = Instant::now();
    if !pin(plan.cores[0]) {
        progress("this process could not be pinned to its core: expect wider spreads");
    }
    let mut runs = Vec::new();
    let mut longest = Duration::ZERO;
    for round in 0..plan.rounds {
        if plan.quick && round > 0 && started.elapsed() + longest > QUICK_LIMIT {
            progress(&format!("{round} rounds: no time for more"));
            break;
        }
        let from = Instant::now();
        for (index, case) in cases.iter().enumerate() {
            progress(&format!("round {} of {}: {}", round + 1, plan.rounds, case.name));
            runs.extend(steady(plan, case)?.map(|(class, outcome)| Run {
                case: index,
                class,
                outcome,
            }));
        }
        longest = longest.max(from.elapsed());
    }
    Ok(runs)
}

/// One run whose class did not change, or nothing if it would not stay.
fn steady(plan: &Plan, case: &Case) -> Result<Option<(Class, Outcome)>> {
    for _ in 0..ATTEMPTS {
        let (before, outcome, after) =
            once(plan, case).with_context(|| format!("case {}", case.name))?;
        if before == after || case.any_class {
            return Ok(Some((before, outcome)));
        }
    }
    Ok(None)
}

/// One run, with the class before and after it.
fn once(plan: &Plan, case: &Case) -> Result<(Class, Outcome, Class)> {
    let place = plan.place.as_ref();
    place.map_or(Ok(()), |place| case.scenario.prepare(place)).context("prepare")?;
    let dir = workspace()?;
    let control = Arc::new(Control::create(dir.path(), plan.clock)?);
    let brief = Brief::new(&plan.suite, &case.name, dir.path(), plan.cores[1])
        .timed(plan.clock, plan.span)
        .at(place, plan.cores[0]);
    let partner = Running::start(case, &brief, &control)?;
    let session = Session {
        dir: dir.path(),
        control: &control,
        clock: plan.clock,
        span: plan.span,
        beside: plan.cores[1],
        place,
    };
    let (before, line_before_ns) = classify(&control, plan.clock, Word::ProbeBefore)?;
    let preempted_before = preemptions();
    let outcome = case.scenario.lead(&session)?;
    let preempted = preemptions() - preempted_before;
    let (after, line_after_ns) = classify(&control, plan.clock, Word::ProbeAfter)?;
    partner.finish()?;
    let outcome = outcome
        .with_detail("line_ns", (line_before_ns + line_after_ns) / 2.0)
        .with_detail("preemptions", preempted as f64);
    Ok((before, outcome, after))
}

/// How often the system has taken the core away from this thread for somebody else.
fn preemptions() -> i64 {
    getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.involuntary_context_switches())
}

/// A directory for the rings of one run: in memory if there is such a place.
pub(crate) fn workspace() -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("gapless-bench-");
    builder
        .tempdir_in("/dev/shm")
        .or_else(|_| builder.tempdir())
        .context("make a directory for the rings")
}
