//! `order/failover`: a leading sequencer is killed (SIGKILL) while a client sends; how long until a
//! command is accepted under the next term, and whether any is lost or done twice.
//!
//! The client has the first core. Leader and standby share the second one and yield it to each
//! other, since there are two: when the leader is dead the standby has it alone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gapless::Agent;
use gapless::sequencer::{Client, ClientId, Kind, Record, Sequencer, Standing};

use super::tally::Tally;
use super::{client_stream, options, stream};
use crate::clock::{Clock, ticks};
use crate::control::{Control, Watch, Word};
use crate::partner::pin;
use crate::scenario::{Kills, Outcome, Scenario, Session, histogram};

/// Kills of a run: five runs make a thousand.
const KILLS: u64 = 200;
const KILLS_QUICK: u64 = 20;
/// A run that takes longer makes no further kill.
const ENOUGH: Duration = Duration::from_secs(40);
/// From one command to the next.
const PACE: Duration = Duration::from_micros(10);
/// Commands under each leader, at least: it is killed in the middle of its work.
const COMMANDS_MIN: u64 = 100;
/// Of the sequenced stream: more than is written between a snapshot and the next standby.
const CAPACITY_BYTES: u64 = 16 << 20;
const SNAPSHOT_RECORDS: u64 = 4096;
const CLIENT: ClientId = ClientId(1);

/// A sequencer that runs until it is killed; the command line of its process.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Node {
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    core: usize,
    /// What it says once it leads, or has followed to the end of the stream.
    #[arg(long)]
    number: u64,
}

impl Node {
    /// Follows or leads for ever.
    pub(crate) fn run(&self) -> Result<()> {
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
            .context("ask to die with the parent")?;
        pin(self.core);
        let control = Control::open(&self.dir, Clock::with_rate(1.0))?;
        let ended = self.turns(&control);
        control.set(Word::Failed, 1);
        ended
    }

    fn turns(&self, control: &Control) -> Result<()> {
        let options = options(&self.dir, 1, CAPACITY_BYTES)
            .snapshots(self.dir.join("snapshots"))
            .snapshot_records(SNAPSHOT_RECORDS);
        let mut sequencer = Sequencer::open(options, Tally::answering())?;
        let mut is_told = false;
        loop {
            if sequencer.duty_cycle()? == 0 {
                if !is_told && sequencer.standing() != Standing::Waiting {
                    control.set(Word::Progress, self.number);
                    is_told = true;
                }
                std::thread::yield_now();
            }
        }
    }
}

/// A node's process. Ends it, whatever becomes of the run.
struct Running(Child);

impl Running {
    fn start(session: &Session<'_>, number: u64) -> Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut command = Command::new(program);
        command.arg("__node").arg("--dir").arg(session.dir);
        command.args(["--core", &session.beside.to_string()]);
        command.args(["--number", &number.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self(command.spawn().context("start a sequencer")?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only if it is gone already, which is what is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the stream says of the client's commands.
#[derive(Default)]
struct Journal {
    /// The last number that was seen.
    last: u64,
    kills: Kills,
    /// The term of the newest command, and the largest of all records.
    command_term: u32,
    term: u32,
}

impl Journal {
    fn note(&mut self, record: &Record<'_>) {
        self.term = self.term.max(record.term);
        if record.kind != Kind::Command || record.client != CLIENT {
            return;
        }
        // The command says its number itself: the sequencer's word is not taken for it.
        let number = record.payload.first_chunk::<8>().copied().map_or(0, u64::from_le_bytes);
        if number > self.last {
            self.kills.lost += number - self.last - 1;
            self.last = number;
        } else {
            self.kills.duplicated += 1;
        }
        self.command_term = record.term;
    }
}

/// The client, and when its next command is due.
struct Sender<'a> {
    client: Client,
    journal: Journal,
    due: u64,
    pace: u64,
    watch: Watch<'a>,
}

impl<'a> Sender<'a> {
    fn open(session: &'a Session<'_>, dir: &Path) -> Result<Self> {
        let sequenced = stream(dir, "sequenced", CAPACITY_BYTES);
        let client = Client::open(CLIENT, &client_stream(dir, CLIENT.0), &sequenced)?;
        let pace = session.clock.to_ticks(PACE);
        let (journal, watch) = (Journal::default(), session.control.watch());
        Ok(Self { client, journal, due: ticks(), pace, watch })
    }

    /// Sends what is due, and reads until `done` says so; answers when that was, in ticks.
    fn until(&mut self, mut done: impl FnMut(&Journal) -> bool) -> Result<u64> {
        loop {
            if self.client.is_ready() && ticks() >= self.due {
                let number = self.client.last_submitted() + 1;
                match self.client.submit(&number.to_le_bytes()) {
                    Ok(_) => self.due += self.pace,
                    Err(error) if error.is_backpressure() => {}
                    Err(error) => return Err(error).context("submit"),
                }
            }
            self.read()?;
            if done(&self.journal) {
                return Ok(ticks());
            }
        }
    }

    fn read(&mut self) -> Result<()> {
        let journal = &mut self.journal;
        if self.client.poll(256, |record| journal.note(record)).context("poll")? == 0 {
            self.watch.stopped()?;
            std::hint::spin_loop();
        }
        Ok(())
    }

    /// Sends no more, and reads until everything is there.
    fn finish(&mut self) -> Result<()> {
        while self.client.unconfirmed() > 0 {
            self.read()?;
        }
        self.journal.kills.lost += self.client.last_submitted() - self.journal.last;
        Ok(())
    }
}

/// Kills leader after leader.
pub(crate) struct Failover;

impl Scenario for Failover {
    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let control = session.control;
        let kills = if session.span.is_quick() { KILLS_QUICK } else { KILLS };
        let enough = ticks() + session.clock.to_ticks(ENOUGH);
        let mut leader = Running::start(session, 1)?;
        control.wait_for(Word::Progress, 1)?;
        let mut sender = Sender::open(session, session.dir)?;
        let (mut samples, mut announced) = (histogram(), histogram());
        for kill in 1..=kills {
            let mut standby = Running::start(session, kill + 1)?;
            let enough_seen = sender.journal.last + COMMANDS_MIN;
            sender.until(|journal| {
                control.get(Word::Progress) > kill && journal.last >= enough_seen
            })?;
            let term = sender.journal.term;
            let from = ticks();
            leader.0.kill().context("kill the leader")?;
            let begun = sender.until(|journal| journal.term > term)?;
            let now = sender.until(|journal| journal.command_term > term)?;
            samples.saturating_record((now - from).max(1));
            announced.saturating_record((begun - from).max(1));
            std::mem::swap(&mut leader, &mut standby); // the dead one is waited for here
            sender.journal.kills.kills = kill;
            if now > enough {
                break;
            }
        }
        sender.finish()?;
        let Sender { client, journal, .. } = sender;
        let counted = journal.kills;
        ensure!(counted.kills > 0 && journal.last >= COMMANDS_MIN, "nobody was killed");
        control.set(Word::Stop, 1);
        let begun_ns = session.clock.to_ns(announced.value_at_quantile(0.5));
        let mut outcome = Outcome::latency(samples)
            .with_detail("commands", journal.last as f64)
            .with_detail("resent", client.resent() as f64)
            .with_detail("term_p50_ns", begun_ns);
        outcome.kills = Some(counted);
        Ok(outcome)
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        session.control.doze_until(Word::Stop, 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_and_what_comes_twice_is_counted() {
        let mut journal = Journal::default();
        for number in [1u64, 2, 5, 5, 3, 6] {
            journal.note(&Record {
                sequence: 1,
                kind: Kind::Command,
                code: 0,
                client: CLIENT,
                term: 7,
                reference: number,
                sent_ns: 0,
                time_ns: 0,
                payload: &number.to_le_bytes(),
            });
        }
        let Journal { last, kills, command_term, .. } = journal;
        assert_eq!((last, kills.lost, kills.duplicated, command_term), (6, 2, 2, 7));
    }
}
