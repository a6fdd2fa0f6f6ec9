//! Round trips over datagrams: one message there, the same back, one at a time, by an end that both
//! sends and receives.

use anyhow::Result;

use super::ground::{Ground, Path, Side};
use crate::control::Word;
use crate::link::consume;
use crate::roundtrip;
use crate::scenario::{Outcome, Scenario, Session};

/// Longest message passed to and fro.
const MESSAGE_MAX: usize = 2048;

/// One side's end of a conversation.
pub(crate) trait Duplex {
    /// Sends a copy of `message`.
    fn send(&mut self, message: &[u8]) -> Result<()>;

    /// Hands what has come to `handler` and says how many messages that was; what else the end has
    /// to do from time to time is done here too.
    fn poll(&mut self, handler: impl FnMut(&[u8])) -> Result<usize>;
}

/// A way to hold a conversation.
pub(crate) trait Dial: Send + Sync + 'static {
    type End: Duplex;

    /// Opens one side's end. Both sides call this at once and may wait for each other.
    fn open(&self, session: &Session<'_>, ground: &Ground) -> Result<Self::End>;

    /// Why there is no such thing here; `None` if there is.
    fn obstacle(&self) -> Option<String> {
        None
    }
}

/// Passes messages of a size to and fro.
pub(crate) struct PingPong<D> {
    pub(crate) dial: D,
    pub(crate) path: Path,
    pub(crate) payload_bytes: usize,
}

impl<D: Dial> Scenario for PingPong<D> {
    fn obstacle(&self) -> Option<String> {
        self.dial.obstacle().or_else(|| self.path.obstacle())
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let ground = Ground::open(session, self.path, Side::Lead)?;
        let mut end = self.dial.open(session, &ground)?;
        let payload = vec![0x5a; self.payload_bytes];
        let samples = roundtrip::sample(session, |watch| {
            end.send(&payload)?;
            let mut sum = 0;
            while end.poll(|message| sum = consume(message))? == 0 {
                watch.stopped()?;
                std::hint::spin_loop();
            }
            std::hint::black_box(sum);
            Ok(())
        })?;
        session.control.set(Word::Stop, 1);
        Ok(Outcome::latency(samples))
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let ground = Ground::open(session, self.path, Side::Partner)?;
        let mut end = self.dial.open(session, &ground)?;
        let mut watch = session.control.watch();
        let mut copy = [0; MESSAGE_MAX];
        let mut bytes = 0;
        loop {
            let count = end.poll(|message| {
                bytes = message.len();
                copy[..bytes].copy_from_slice(message);
            })?;
            if count > 0 {
                end.send(&copy[..bytes])?;
            } else {
                if watch.stopped()? {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        }
    }
}
