//! The other side of a run: this very program once more, or a thread; pinned, and never left
//! behind.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use core_affinity::CoreId;

use crate::clock::Clock;
use crate::control::{Control, Word};
use crate::place::Place;
use crate::probe;
use crate::scenario::{Case, Partner, Session, Span};
use crate::suite;

/// What the partner needs to know; the command line of its process.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Brief {
    #[arg(long)]
    suite: String,
    #[arg(long)]
    case: String,
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    core: usize,
    #[arg(long)]
    ticks_per_ns: f64,
    #[arg(long)]
    warm_up_us: u64,
    #[arg(long)]
    measure_us: u64,
    /// The core of the other side.
    #[arg(long, default_value_t = 0)]
    beside: usize,
    /// Where to write, as JSON.
    #[arg(long, value_parser = |text: &str| serde_json::from_str::<Place>(text))]
    place: Option<Place>,
}

impl Brief {
    pub(crate) fn new(suite: &str, case: &str, dir: &Path, core: usize) -> Self {
        Self {
            suite: suite.to_owned(),
            case: case.to_owned(),
            dir: dir.to_path_buf(),
            core,
            ticks_per_ns: 1.0,
            warm_up_us: 0,
            measure_us: 0,
            beside: 0,
            place: None,
        }
    }

    /// Where to write, and on which core the other side is.
    pub(crate) fn at(mut self, place: Option<&Place>, beside: usize) -> Self {
        self.place = place.cloned();
        self.beside = beside;
        self
    }

    pub(crate) fn timed(mut self, clock: Clock, span: Span) -> Self {
        self.ticks_per_ns = clock.ticks_per_ns();
        self.warm_up_us = span.warm_up.as_micros() as u64;
        self.measure_us = span.measure.as_micros() as u64;
        self
    }

    fn arguments(&self) -> Result<Vec<String>> {
        let mut pairs = vec![
            ("--suite", self.suite.clone()),
            ("--case", self.case.clone()),
            ("--core", self.core.to_string()),
            ("--ticks-per-ns", self.ticks_per_ns.to_string()),
            ("--warm-up-us", self.warm_up_us.to_string()),
            ("--measure-us", self.measure_us.to_string()),
            ("--beside", self.beside.to_string()),
        ];
        if let Some(place) = &self.place {
            pairs.push(("--place", serde_json::to_string(place).context("name the place")?));
        }
        Ok(pairs.into_iter().flat_map(|(k, v)| [k.to_owned(), v]).collect())
    }
}

/// Pins the calling thread; false if the system does not let it.
pub(crate) fn pin(core: usize) -> bool {
    core_affinity::set_for_current(CoreId { id: core })
}

/// The partner of one run. Dropping it kills a process that is still there, and waits for it.
pub(crate) enum Running {
    Process(Child),
    Thread(Option<JoinHandle<Result<()>>>, Arc<Control>),
}

impl Running {
    /// Starts the partner of `case`.
    pub(crate) fn start(case: &Case, brief: &Brief, control: &Arc<Control>) -> Result<Self> {
        match case.partner {
            Partner::Process => {
                let program = std::env::current_exe().context("find this program")?;
                let child = Command::new(program)
                    .arg("__partner")
                    .args(brief.arguments()?)
                    .arg("--dir")
                    .arg(&brief.dir)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .spawn()
                    .context("start the partner process")?;
                Ok(Self::Process(child))
            }
            Partner::Thread => {
                let (case, brief, shared) = (case.clone(), brief.clone(), control.clone());
                let thread = std::thread::Builder::new()
                    .name("partner".into())
                    .spawn(move || play(&case, &brief, &shared))
                    .context("start the partner thread")?;
                Ok(Self::Thread(Some(thread), control.clone()))
            }
        }
    }

    /// Waits for the partner's own end.
    pub(crate) fn finish(mut self) -> Result<()> {
        match &mut self {
            Self::Process(child) => {
                let status = child.wait().context("wait for the partner process")?;
                if !status.success() {
                    bail!("the partner process ended with {status}");
                }
                Ok(())
            }
            Self::Thread(thread, _) => match thread.take().map(JoinHandle::join) {
                Some(Err(_)) => Err(anyhow!("the partner thread panicked")),
                Some(Ok(result)) => result,
                None => Ok(()),
            },
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        match self {
            // Both fail only if the child is gone already, which is what is wanted.
            Self::Process(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Self::Thread(thread, control) => {
                if let Some(thread) = thread.take() {
                    control.set(Word::Failed, 1);
                    let _ = thread.join();
                }
            }
        }
    }
}

/// The whole life of a partner process.
pub(crate) fn run(brief: &Brief) -> Result<()> {
    // Dies with its parent, however that dies.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .context("ask to die with the parent")?;
    let cases = suite::cases(&brief.suite)?;
    let case = cases
        .iter()
        .find(|case| case.name == brief.case)
        .with_context(|| format!("no case {} in suite {}", brief.case, brief.suite))?;
    let control = Control::open(&brief.dir, Clock::with_rate(brief.ticks_per_ns))?;
    play(case, brief, &control)
}

/// The partner's part: probe, scenario, probe; tells the lead if it fails.
fn play(case: &Case, brief: &Brief, control: &Control) -> Result<()> {
    let guard = FailureGuard(control);
    pin(brief.core);
    let session = Session {
        dir: &brief.dir,
        control,
        clock: Clock::with_rate(brief.ticks_per_ns),
        span: Span {
            warm_up: Duration::from_micros(brief.warm_up_us),
            measure: Duration::from_micros(brief.measure_us),
        },
        beside: brief.beside,
        place: brief.place.as_ref(),
    };
    probe::follow(control, Word::ProbeBefore)?;
    case.scenario.follow(&session)?;
    probe::follow(control, Word::ProbeAfter)?;
    std::mem::forget(guard);
    Ok(())
}

/// Tells the lead that its partner left by an error or a panic.
struct FailureGuard<'a>(&'a Control);

impl Drop for FailureGuard<'_> {
    fn drop(&mut self) {
        self.0.set(Word::Failed, 1);
    }
}
