//! Other people's servers that keep a log: started for a run on the partner's core, spoken to by
//! the measuring side in their own protocols. Both are common and installed in a minute; what is
//! not installed is said.

mod nats;
mod redis;
mod server;

use std::hint::black_box;
use std::io::{BufRead, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub(crate) use nats::Nats;
pub(crate) use redis::{Redis, Syncing};

use crate::clock::ticks;
use crate::control::Word;
use crate::link::consume;
use crate::place::Place;
use crate::scenario::{Outcome, Scenario, Session};

const STARTED: u64 = 1;
/// Messages that are sent by one system call.
const BATCH: usize = 256;
/// Messages that may wait for their confirmation.
const WINDOW: u64 = 8 * BATCH as u64;
/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(10);
const BUFFER_BYTES: usize = 1 << 18;
/// Every byte of every payload.
const FILL: u8 = 0x5a;
/// Messages that are read back are written for as many spans.
const FILLING_SPANS: u32 = 3;

/// A server that keeps messages in order.
pub(crate) trait Broker: Send + Sync + 'static {
    type Client: Client;

    /// The program's name, and the package that brings it.
    const PROGRAM: &'static str;

    /// Its command line: rendezvous and whatever else dies with the run in `run`, messages in
    /// `disk`.
    fn arguments(&self, run: &Path, disk: &Path) -> Vec<String>;

    /// A client, or nothing if the server is not there yet.
    fn connect(&self, run: &Path) -> Result<Option<Self::Client>>;
}

/// A connection to a server.
pub(crate) trait Client {
    /// Sends so many copies of `payload`, and takes confirmations until at most [`WINDOW`] wait.
    fn append(&mut self, payload: &[u8], count: usize) -> Result<()>;

    /// Takes all confirmations that are still to come.
    fn finish(&mut self) -> Result<()>;

    /// Messages confirmed so far.
    fn confirmed(&self) -> u64;

    /// Reads the first `count` messages back, in order.
    fn replay(&mut self, count: u64, handler: impl FnMut(&[u8])) -> Result<()>;
}

/// Why a server cannot be measured.
fn obstacle<B: Broker>(place: &Place) -> Option<String> {
    if !place.peers {
        return Some("servers of others are measured with --peers".into());
    }
    let asked = Command::new(B::PROGRAM).arg("--version").stdout(Stdio::null()).status();
    asked.is_err().then(|| format!("{0} is not here: apt-get install {0}", B::PROGRAM))
}

fn connect<B: Broker>(broker: &B, session: &Session<'_>) -> Result<B::Client> {
    session.control.wait_for(Word::Stage, STARTED)?;
    loop {
        if let Some(client) = broker.connect(session.dir)? {
            return Ok(client);
        }
        session.control.check().with_context(|| format!("wait for {}", B::PROGRAM))?;
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Messages into a server, each of them confirmed, so many waiting for that at a time.
pub(crate) struct Append<B> {
    pub(crate) broker: B,
    pub(crate) payload_bytes: usize,
}

impl<B: Broker> Scenario for Append<B> {
    fn obstacle_at(&self, place: &Place) -> Option<String> {
        obstacle::<B>(place)
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let mut client = connect(&self.broker, session)?;
        let payload = vec![FILL; self.payload_bytes];
        let (warm, end) = session.schedule();
        let mut from = (0, ticks());
        let to = loop {
            client.append(&payload, BATCH)?;
            let now = ticks();
            if now < warm {
                from = (client.confirmed(), now);
            }
            if now > end {
                break (client.confirmed(), now);
            }
        };
        client.finish()?;
        session.control.set(Word::Stop, 1);
        Ok(Outcome::rate(session.clock, to.0 - from.0, to.1 - from.1))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        server::serve(&self.broker, session)
    }
}

/// Messages out of a server, from the first one on, again and again.
pub(crate) struct Replay<B> {
    pub(crate) broker: B,
    pub(crate) payload_bytes: usize,
}

impl<B: Broker> Scenario for Replay<B> {
    fn obstacle_at(&self, place: &Place) -> Option<String> {
        obstacle::<B>(place)
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let mut client = connect(&self.broker, session)?;
        let payload = vec![FILL; self.payload_bytes];
        let filled = ticks() + session.clock.to_ticks(session.span.measure * FILLING_SPANS);
        while ticks() < filled {
            client.append(&payload, BATCH)?;
        }
        client.finish()?;
        let count = client.confirmed();
        let (mut sum, mut messages) = (0u64, 0u64);
        let from = ticks();
        let end = from + session.clock.to_ticks(session.span.measure);
        let now = loop {
            client.replay(count, |payload| {
                messages += 1;
                sum = sum.wrapping_add(consume(payload));
            })?;
            let now = ticks();
            if now > end {
                break now;
            }
        };
        session.control.set(Word::Stop, 1);
        let all = consume(&payload).wrapping_mul(messages);
        ensure!(sum == all, "the {messages} messages read are not those that were written");
        let outcome = Outcome::rate(session.clock, black_box(messages), now - from);
        Ok(outcome.with_detail("messages", count as f64))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        server::serve(&self.broker, session)
    }
}

/// Reads up to the end of a line, without it. An end of the stream is an error.
fn line<'a>(reader: &mut impl BufRead, into: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    into.clear();
    reader.read_until(b'\n', into).context("read an answer")?;
    into.strip_suffix(b"\r\n").context("the server has hung up")
}

/// Reads so many bytes and the end of line behind them.
fn block<'a>(reader: &mut impl Read, bytes: usize, into: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    into.resize(bytes + 2, 0);
    reader.read_exact(into).context("read an answer")?;
    into.strip_suffix(b"\r\n").context("an answer is longer than it says")
}

/// A number of an answer.
fn number(digits: &[u8]) -> Result<usize> {
    let text = str::from_utf8(digits).context("an answer is no text")?;
    text.parse().with_context(|| format!("`{text}` is no number"))
}
