//! The life of a server: started by the partner, on the partner's core, with files on the disk;
//! ended by it, and never left behind.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{Broker, STARTED};
use crate::control::Word;
use crate::scenario::Session;

/// Kills the server, however its parent ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it is gone already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a server until the lead has stopped the run, and removes what it wrote.
pub(super) fn serve<B: Broker>(broker: &B, session: &Session<'_>) -> Result<()> {
    let scratch = session.place()?.scratch()?;
    let mut command = Command::new(B::PROGRAM);
    command.args(broker.arguments(session.dir, scratch.path()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let die_with_parent = || {
        let asked = nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL);
        asked.map_err(std::io::Error::from)
    };
    // SAFETY: between fork and exec only this one system call is made: it takes no lock, and
    // neither it nor the conversion of its error allocates.
    unsafe { command.pre_exec(die_with_parent) };
    let child = command.spawn().with_context(|| format!("start {}", B::PROGRAM))?;
    let mut server = Running(child);
    session.control.set(Word::Stage, STARTED);
    let mut ended = Ok(None);
    session.control.doze_until_or(Word::Stop, 1, || {
        ended = server.0.try_wait();
        !matches!(ended, Ok(None))
    })?;
    if let Some(status) = ended.context("look after the server")? {
        bail!("{} ended with {status}", B::PROGRAM);
    }
    drop(server);
    scratch.clear()
}
