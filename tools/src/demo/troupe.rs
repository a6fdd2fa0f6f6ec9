//! The processes of an act: started from this very program, talking back in JSON lines on their
//! standard output, and gone when the troupe is dropped.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;

use crate::stop::{LOOK_INTERVAL, Stop};

/// Processes of one act.
pub(super) struct Troupe {
    members: Vec<Member>,
    sender: Sender<(usize, Said)>,
    said: Receiver<(usize, Said)>,
}

struct Member {
    role: &'static str,
    process: Child,
    input: ChildStdin,
    /// Its end is what was wanted.
    killed: bool,
}

enum Said {
    Line(String),
    /// Its output ended: it has gone, or is about to.
    Nothing,
}

impl Troupe {
    /// Nobody yet.
    pub(super) fn new() -> Self {
        let (sender, said) = channel();
        Self { members: Vec::new(), sender, said }
    }

    /// Starts a process, and returns its number.
    pub(super) fn start(
        &mut self,
        role: &'static str,
        arguments: &[String],
    ) -> anyhow::Result<usize> {
        let program = std::env::current_exe().context("find this program")?;
        let mut process = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start the {role}"))?;
        let (input, output) = match (process.stdin.take(), process.stdout.take()) {
            (Some(input), Some(output)) => (input, output),
            _ => bail!("the {role} has no pipes"),
        };
        let number = self.members.len();
        self.members.push(Member { role, process, input, killed: false });
        let sender = self.sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send((number, Said::Line(line))).is_err() {
                    return;
                }
            }
            // Nobody listens any more: fine.
            let _ = sender.send((number, Said::Nothing));
        });
        Ok(number)
    }

    /// Tells a process to go on.
    pub(super) fn cue(&mut self, number: usize) -> anyhow::Result<()> {
        let member = &mut self.members[number];
        let role = member.role;
        writeln!(member.input, "go").with_context(|| format!("the {role} has gone"))
    }

    /// Kills a process, which cannot do anything about it (SIGKILL), and waits for its end.
    pub(super) fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        let member = &mut self.members[number];
        member.killed = true;
        member.process.kill().with_context(|| format!("kill the {}", member.role))?;
        member.process.wait()?;
        Ok(())
    }

    /// Asks a process to end in order (SIGTERM).
    pub(super) fn end(&mut self, number: usize) -> anyhow::Result<()> {
        let member = &self.members[number];
        let pid = nix::unistd::Pid::from_raw(member.process.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
            .with_context(|| format!("end the {}", member.role))
    }

    /// Waits for the next line of anybody.
    ///
    /// # Errors
    /// If one has gone without a last word, or the demo is interrupted.
    pub(super) fn listen<T: DeserializeOwned>(
        &mut self,
        stop: &Stop,
    ) -> anyhow::Result<(usize, T)> {
        loop {
            if stop.asked() {
                bail!("interrupted");
            }
            match self.said.recv_timeout(LOOK_INTERVAL) {
                Ok((number, Said::Line(line))) => {
                    let role = self.members[number].role;
                    let told = serde_json::from_str(&line)
                        .with_context(|| format!("the {role} said {line:?}"))?;
                    return Ok((number, told));
                }
                Ok((number, Said::Nothing)) => {
                    let member = &mut self.members[number];
                    let status = member.process.wait()?;
                    if !status.success() && !member.killed {
                        bail!("the {} ended early: {status}", member.role);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
    }
}

impl Drop for Troupe {
    fn drop(&mut self) {
        for member in &mut self.members {
            // Either fails only for a process that has ended and been reaped already.
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
    }
}

/// What a process of the troupe does first: it does not outlive whoever started it.
pub(super) fn join_troupe() -> anyhow::Result<()> {
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .context("ask to end with the demo")
}

/// Tells the demo something, in one line.
pub(super) fn tell<T: serde::Serialize>(what: &T) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::to_string(what)?)?;
    out.flush().context("talk to the demo")
}

/// Waits for the demo to say go on.
pub(super) fn await_cue() -> anyhow::Result<()> {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line)? == 0 {
        bail!("the demo has gone");
    }
    Ok(())
}

/// A flag that the demo's cue raises; raised from the start if none is `wanted`.
pub(super) fn cue_of(wanted: bool) -> Arc<AtomicBool> {
    let cued = Arc::new(AtomicBool::new(!wanted));
    if wanted {
        let raised = Arc::clone(&cued);
        thread::spawn(move || {
            // If the demo has gone, so has the wish to wait for it.
            let _ = await_cue();
            raised.store(true, Ordering::Relaxed); // nothing else is communicated by it
        });
    }
    cued
}
