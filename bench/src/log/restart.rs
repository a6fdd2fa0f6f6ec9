//! `log/restart`: a writer of a large log is killed while it writes; how long until the next one
//! has its first message in the log.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use gapless::Flags;
use gapless::log::LogOptions;

use super::library::Library;
use super::{BATCH, unix_ns};
use crate::clock::ticks;
use crate::control::Word;
use crate::place::Place;
use crate::scenario::{Outcome, Scenario, Session, histogram};

/// Bytes that the writer has written into its segment when it is killed, at least: half of it, if a
/// burst is as large as that.
const KILLED_AFTER_BYTES: u64 = 128 << 20;
const PAYLOAD: [u8; 64] = [0x5a; 64];

/// The writer that is to be killed; the command line of its process.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Doomed {
    #[arg(long)]
    dir: PathBuf,
    /// Bytes that it writes at least.
    #[arg(long)]
    bytes: u64,
}

impl Doomed {
    /// Appends until it is killed; says when it has written enough.
    pub(crate) fn run(&self) -> Result<()> {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
            .context("ask to die with the parent")?;
        let (mut writer, _) = LogOptions::new().open(&self.dir).context("open the log")?;
        let (_, first) = writer.position().context("the log is empty")?;
        let enough = first + self.bytes / PAYLOAD.len() as u64;
        for sequence in first.. {
            let now = unix_ns();
            writer.append(sequence, &PAYLOAD, Flags::WHOLE, now).context("append")?;
            if sequence.is_multiple_of(BATCH) {
                writer.tick(now).context("tick")?;
            }
            if sequence == enough {
                let mut out = std::io::stdout();
                writeln!(out, "{sequence}").and_then(|()| out.flush()).context("say so")?;
            }
        }
        Ok(())
    }
}

/// Ends the writer, whatever becomes of the run.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only if it is gone already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills a writer and takes its place.
pub(crate) struct Restart {
    /// With nothing of the log in the page cache, as after a crash of the host.
    pub(crate) cold: bool,
}

impl Restart {
    /// Writes to the end of the log until killed.
    fn crash(library: Library, place: &Place) -> Result<()> {
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        let bytes = KILLED_AFTER_BYTES.min(place.burst_bytes / 4).to_string();
        command.arg("__doomed").arg("--dir").arg(library.dir(place)).args(["--bytes", &bytes]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut writer = Killed(command.spawn().context("start a writer")?);
        let said = writer.0.stdout.take().context("hear the writer")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line).context("hear the writer")?;
        ensure!(line.ends_with('\n'), "the writer ended by itself");
        Ok(())
    }
}

impl Scenario for Restart {
    fn obstacle_at(&self, place: &Place) -> Option<String> {
        Library::large(place).obstacle(place)
    }

    fn prepare(&self, place: &Place) -> Result<()> {
        Library::large(place).make(place)
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let place = session.place()?;
        let library = Library::large(place);
        Self::crash(library, place)?;
        place.settle()?;
        if self.cold {
            library.forget(place, "")?;
        }
        let from = ticks();
        let opened = LogOptions::new().open(library.dir(place)).context("open the log")?;
        let opened_at = ticks();
        let (mut writer, recovery) = opened;
        let (_, next) = writer.position().context("the log is empty")?;
        writer.append(next, &PAYLOAD, Flags::WHOLE, unix_ns()).context("append")?;
        writer.flush().context("flush")?;
        let now = ticks();
        session.control.set(Word::Stop, 1);
        ensure!(recovery.is_some() && next > library.messages(), "the log went back to {next}");
        let mut samples = histogram();
        samples.saturating_record(now - from);
        let torn = recovery.and_then(|recovery| recovery.cut).map_or(0, |cut| cut.bytes);
        Ok(Outcome::latency(samples)
            .with_detail("open_ns", session.clock.to_ns(opened_at - from))
            .with_detail("messages", next as f64)
            .with_detail("torn_bytes", torn as f64))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.doze_until(Word::Stop, 1)
    }
}
