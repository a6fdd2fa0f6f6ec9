//! Agents: things that are polled, and the thread that polls them.
//!
//! An agent does a little work each time its duty cycle is called and never blocks in it. It can
//! run inline in the application's own loop, or on a pinned, named thread by [`AgentRunner`].

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

use gapless_shm::{WaitStrategy, Waiter};

use crate::cpu::{PinError, pin_current_thread};

/// Something with a duty cycle.
pub trait Agent {
    /// What can end it.
    type Error: Error + Send + 'static;

    /// Name of its thread; the kernel shows the first 15 bytes.
    fn name(&self) -> &str;

    /// Does what there is to do, without blocking, and returns how much that was; 0 lets the
    /// runner idle a step.
    ///
    /// # Errors
    /// Whatever ends the agent.
    fn duty_cycle(&mut self) -> Result<usize, Self::Error>;
}

/// Where and how an agent's thread runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunnerOptions {
    /// Core to pin to; `None` leaves it to the system.
    pub core: Option<usize>,
    /// What an idle duty cycle is followed by. `Park` yields: a runner has no one ring to sleep on.
    pub wait: WaitStrategy,
}

/// An agent that has stopped, and the error that ended it if there was one.
pub type Ended<A> = (A, Result<(), <A as Agent>::Error>);

/// A thread that polls one agent until it is stopped or fails.
///
/// ```
/// use gapless::{Agent, AgentRunner, RunnerOptions};
///
/// struct Counter(u64);
/// impl Agent for Counter {
///     type Error = std::convert::Infallible;
///     fn name(&self) -> &str { "counter" }
///     fn duty_cycle(&mut self) -> Result<usize, Self::Error> {
///         self.0 += 1;
///         Ok(1)
///     }
/// }
///
/// let runner = AgentRunner::spawn(Counter(0), RunnerOptions::default())?;
/// let (counter, outcome) = runner.stop();
/// assert!(outcome.is_ok() && counter.0 > 0);
/// # Ok::<(), std::io::Error>(())
/// ```
#[must_use = "dropping a runner stops its agent"]
pub struct AgentRunner<A: Agent> {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Ended<A>>>,
}

impl<A: Agent + Send + 'static> AgentRunner<A> {
    /// Starts the thread, named after the agent, pins it, and runs at least one duty cycle.
    ///
    /// # Errors
    /// If the thread cannot be started, or (as [`PinError`] inside) not be pinned; the agent is
    /// then dropped.
    pub fn spawn(agent: A, options: RunnerOptions) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (pinned, outcome) = mpsc::channel();
        let name = agent.name().replace('\0', ""); // which no thread's name may have
        let body = move || {
            let result = options.core.map_or(Ok(()), pin_current_thread);
            let failed = result.is_err();
            // The spawner waits for this; if it is gone, so is the wish to run.
            if pinned.send(result).is_err() || failed {
                return (agent, Ok(()));
            }
            run(agent, &stopped, options.wait)
        };
        let thread = Builder::new().name(name).spawn(body)?;
        let pinned: Result<(), PinError> = outcome.recv().unwrap_or(Ok(()));
        pinned.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    /// Whether the agent has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends the thread after the current duty cycle and gives the agent back, with the error that
    /// ended it if there was one.
    ///
    /// # Panics
    /// If the agent panicked.
    pub fn stop(mut self) -> Ended<A> {
        self.stop.store(true, Ordering::Relaxed); // Relaxed: the join orders everything else
        let thread = self.thread.take().expect("only `stop` and `drop` take the thread");
        match thread.join() {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl<A: Agent> Drop for AgentRunner<A> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed); // Relaxed: the join orders everything else
        if let Some(thread) = self.thread.take() {
            // A panic of the agent has been printed by its thread already.
            let _ = thread.join();
        }
    }
}

fn run<A: Agent>(mut agent: A, stop: &AtomicBool, wait: WaitStrategy) -> Ended<A> {
    let mut waiter = Waiter::new(wait);
    loop {
        match agent.duty_cycle() {
            Ok(0) => waiter.idle(),
            Ok(_) => waiter.reset(),
            Err(error) => return (agent, Err(error)),
        }
        if stop.load(Ordering::Relaxed) {
            return (agent, Ok(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("three is enough")]
    struct Enough;

    struct Probe {
        cycles: usize,
        thread_name: Option<String>,
        limit: usize,
    }

    impl Agent for Probe {
        type Error = Enough;

        fn name(&self) -> &str {
            "probe"
        }

        fn duty_cycle(&mut self) -> Result<usize, Enough> {
            self.thread_name = std::thread::current().name().map(str::to_owned);
            self.cycles += 1;
            if self.cycles >= self.limit { Err(Enough) } else { Ok(self.cycles % 2) }
        }
    }

    fn probe(limit: usize) -> Probe {
        Probe { cycles: 0, thread_name: None, limit }
    }

    #[test]
    fn an_agent_runs_on_a_pinned_thread_of_its_name_until_stopped() {
        let core = crate::available_cores().first().copied();
        let options = RunnerOptions { core, wait: WaitStrategy::SpinYield };
        let runner = AgentRunner::spawn(probe(usize::MAX), options).unwrap();
        let (probe, outcome) = runner.stop();
        assert!(outcome.is_ok() && probe.cycles >= 1);
        assert_eq!(probe.thread_name.as_deref(), Some("probe"));
    }

    #[test]
    fn a_pinned_thread_can_start_an_agent_on_another_core() {
        for core in crate::available_cores() {
            pin_current_thread(crate::available_cores()[0]).unwrap();
            let options = RunnerOptions { core: Some(core), wait: WaitStrategy::SpinYield };
            let runner = AgentRunner::spawn(probe(usize::MAX), options).unwrap();
            assert!(runner.stop().1.is_ok());
        }
    }

    #[test]
    fn a_name_may_be_anything() {
        struct Odd;
        impl Agent for Odd {
            type Error = std::convert::Infallible;
            fn name(&self) -> &str {
                "odd\0name"
            }
            fn duty_cycle(&mut self) -> Result<usize, Self::Error> {
                Ok(0)
            }
        }
        let runner = AgentRunner::spawn(Odd, RunnerOptions::default()).unwrap();
        assert!(runner.stop().1.is_ok());
    }

    #[test]
    fn an_error_ends_the_agent_and_is_handed_back() {
        let runner = AgentRunner::spawn(probe(3), RunnerOptions::default()).unwrap();
        while !runner.is_finished() {
            std::thread::yield_now();
        }
        let (probe, outcome) = runner.stop();
        assert!(outcome.is_err());
        assert_eq!(probe.cycles, 3);
    }

    #[test]
    fn a_core_that_is_not_there_is_refused() {
        let options = RunnerOptions { core: Some(100_000), wait: WaitStrategy::BusySpin };
        let error = AgentRunner::spawn(probe(1), options).err().unwrap();
        assert!(error.to_string().contains("core 100000"), "{error}");
    }
}
