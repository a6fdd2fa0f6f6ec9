//! Act 4: a stream is recorded, its subscriber killed half way, and a new one goes on from its last
//! message: first what the ring has not any more, from the log, then live.

use std::io::{self, Write};
use std::path::Path;

use gapless::log::survey;
use gapless::shm::{Inspector, ProducerStatus, ring_path};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::print_size;
use super::ring::{Published, Told};
use super::stage::Stage;
use super::survivor::read_kept;
use super::troupe::Troupe;
use crate::progress;
use crate::table::{bytes_text, grouped};

const TITLE: &str = "Act 4: recorded; the subscriber is killed half way, and a new one goes on";
const STREAM: &str = "demo-recorded";
/// Small, so that it soon has not any more what the one that was killed lacks.
const CAPACITY: &str = "64K";

/// The account of the subscriber that goes on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Successor {
    /// Messages that its predecessor had kept.
    pub(super) from_file: u64,
    /// Messages that it read in the log.
    pub(super) from_log: u64,
    /// Messages that it read in the ring.
    pub(super) live: u64,
    /// Sequence numbers that never came, or twice.
    pub(super) gaps: u64,
    /// Of all messages, those of its predecessor among them.
    pub(super) digest: String,
}

/// The act, as it was.
#[derive(Serialize)]
pub(super) struct SagaReport {
    title: &'static str,
    wanted_rate: u64,
    messages: u64,
    bytes: u64,
    digest: String,
    /// Messages in the log, and bytes of it.
    recorded: u64,
    log_bytes: u64,
    /// Sequence of the last message that the killed subscriber had kept.
    killed_at: u64,
    /// Sequence of the oldest message in the ring when its successor was started.
    ring_began_at: u64,
    successor: Successor,
}

impl SagaReport {
    /// Whether the two subscribers together saw what was published, and the log has it.
    pub(super) fn is_sound(&self) -> bool {
        let successor = &self.successor;
        let seen = successor.from_file + successor.from_log + successor.live;
        successor.gaps == 0
            && seen == self.messages
            && self.recorded == self.messages
            && successor.digest == self.digest
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.title)?;
        print_size(self.messages, self.bytes, Some(self.wanted_rate), out)?;
        let (recorded, bytes) = (grouped(self.recorded), bytes_text(self.log_bytes));
        writeln!(out, "  {recorded} messages recorded, {bytes} of log")?;
        writeln!(
            out,
            "  SIGKILL to the subscriber: it had kept {} messages; the ring begins at {} by now",
            grouped(self.killed_at),
            grouped(self.ring_began_at),
        )?;
        let Successor { from_file, from_log, live, gaps, digest } = &self.successor;
        writeln!(
            out,
            "  its successor: {} from its file, {} from the log, {} live; {gaps} gaps",
            grouped(*from_file),
            grouped(*from_log),
            grouped(*live),
        )?;
        let equal = digest == &self.digest;
        let found = if equal { "equal".to_owned() } else { format!("DIFFERS: {digest}") };
        writeln!(out, "  publisher's digest {}, of both subscribers: {found}\n", self.digest)?;
        out.flush()
    }
}

/// Plays the act; the log goes to a directory of its own in `parent`, or where temporary files go.
pub(super) fn play(
    messages: u64,
    rate: u64,
    stage: &Stage,
    parent: Option<&Path>,
) -> anyhow::Result<SagaReport> {
    let private = tempfile::Builder::new()
        .prefix("gapless-demo-log-")
        .tempdir_in(parent.map_or_else(std::env::temp_dir, Path::to_path_buf))?;
    let ring = format!("shm:{STREAM}?dir={}&capacity={CAPACITY}", stage.directory().display());
    let mut troupe = Troupe::new();
    let mut publisher = vec!["demo-publisher".to_owned(), ring.clone(), "--yield".into()];
    publisher.extend([format!("--messages={messages}"), format!("--rate={rate}")]);
    let publisher = troupe.start("publisher", &publisher)?;
    await_ready(&mut troupe, stage)?;
    let log = private.path().join("log");
    let recorder = ["demo-recorder".to_owned(), ring.clone(), format!("log:{}", log.display())];
    troupe.start("recorder", &recorder)?;
    await_ready(&mut troupe, stage)?;
    let (half, hold) = (messages / 2, messages / 4 * 3);
    let mut first = survivor_arguments(&ring, &private);
    first.extend([format!("--tell-at={half}"), format!("--hold-at={}", hold.max(half))]);
    let first = troupe.start("subscriber", &first)?;
    await_ready(&mut troupe, stage)?;
    let spinner = progress::spinner(TITLE);
    troupe.cue(publisher)?;
    let mut told = Heard::default();
    while !told.half {
        told.listen(&mut troupe, stage)?;
    }
    troupe.kill(first)?;
    let killed_at = read_kept(&private.path().join("kept"))?.messages;
    let ring_began_at = await_overwritten(stage, killed_at + 1)?;
    troupe.start("subscriber", &survivor_arguments(&ring, &private))?;
    let (published, recorded, successor) = loop {
        match (&told.published, told.recorded, &told.successor) {
            (Some(published), Some(recorded), Some(successor)) => {
                break (published.clone(), recorded, successor.clone());
            }
            _ => told.listen(&mut troupe, stage)?,
        }
    };
    spinner.finish_and_clear();
    let log_bytes = survey(&log)?.iter().map(|segment| segment.bytes).sum();
    let Published { messages, bytes, digest, .. } = published;
    let (title, wanted_rate) = (TITLE, rate);
    Ok(SagaReport {
        title,
        wanted_rate,
        messages,
        bytes,
        digest,
        recorded,
        log_bytes,
        killed_at,
        ring_began_at,
        successor,
    })
}

/// What the processes have said so far.
#[derive(Default)]
struct Heard {
    half: bool,
    published: Option<Published>,
    recorded: Option<u64>,
    successor: Option<Successor>,
}

impl Heard {
    fn listen(&mut self, troupe: &mut Troupe, stage: &Stage) -> anyhow::Result<()> {
        match troupe.listen(&stage.stop)?.1 {
            Told::Ready => {}
            Told::Half => self.half = true,
            Told::Published(account) => self.published = Some(account),
            Told::Recorded(messages) => self.recorded = Some(messages),
            Told::Survived(account) => self.successor = Some(account),
            Told::Received(_) => anyhow::bail!("somebody of another act"),
        }
        Ok(())
    }
}

fn await_ready(troupe: &mut Troupe, stage: &Stage) -> anyhow::Result<()> {
    match troupe.listen(&stage.stop)?.1 {
        Told::Ready => Ok(()),
        _ => anyhow::bail!("somebody was early"),
    }
}

fn survivor_arguments(ring: &str, private: &TempDir) -> Vec<String> {
    let (log, file) = (private.path().join("log"), private.path().join("kept"));
    vec![
        "demo-survivor".into(),
        format!("{ring}&log={}", log.display()),
        format!("--file={}", file.display()),
    ]
}

/// Waits until the ring has not any more what comes at `sequence`, or its publisher has ended, and
/// says where the ring begins.
fn await_overwritten(stage: &Stage, sequence: u64) -> anyhow::Result<u64> {
    let ring = Inspector::open_file(&ring_path(stage.directory(), STREAM)?)?;
    loop {
        let looked = ring.snapshot();
        if looked.oldest_sequence > sequence || looked.producer != ProducerStatus::Alive {
            return Ok(looked.oldest_sequence);
        }
        if stage.stop.asked() {
            anyhow::bail!("interrupted");
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_sound(change: impl FnOnce(&mut SagaReport)) -> bool {
        let (from_file, from_log, live) = (5, 3, 2);
        let mut report = SagaReport {
            title: "",
            wanted_rate: 1,
            messages: 10,
            bytes: 100,
            digest: "d".into(),
            recorded: 10,
            log_bytes: 1,
            killed_at: 5,
            ring_began_at: 8,
            successor: Successor { from_file, from_log, live, gaps: 0, digest: "d".into() },
        };
        change(&mut report);
        report.is_sound()
    }

    #[test]
    fn anything_amiss_is_unsound() {
        assert!(is_sound(|_| ()));
        assert!(!is_sound(|report| report.recorded = 9));
        assert!(!is_sound(|report| report.successor.gaps = 1));
        assert!(!is_sound(|report| report.successor.live = 3));
        assert!(!is_sound(|report| report.successor.digest = "e".into()));
    }
}
