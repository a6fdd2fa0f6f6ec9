//! Queues within one process: both ends are made at once, and the receiving one waits to be
//! fetched.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result};

use crate::link::{Link, Receiver, Sender};

/// A queue whose ends are made together.
pub(crate) trait Queue: Send + Sync + 'static {
    type Sender: Sender;
    type Receiver: Receiver + Send;

    fn pair(&self) -> (Self::Sender, Self::Receiver);
}

/// A link that hands the receiving end over within the process.
pub(crate) struct ThreadLink<Q: Queue> {
    queue: Q,
    /// Receiving ends not fetched yet, by directory of the run and channel.
    waiting: Mutex<Vec<(std::path::PathBuf, Q::Receiver)>>,
}

impl<Q: Queue> ThreadLink<Q> {
    pub(crate) fn new(queue: Q) -> Self {
        Self { queue, waiting: Mutex::default() }
    }
}

impl<Q: Queue> Link for ThreadLink<Q> {
    type Sender = Q::Sender;
    type Receiver = Q::Receiver;

    fn open_sender(&self, dir: &Path, channel: &str) -> Result<Q::Sender> {
        let (sender, receiver) = self.queue.pair();
        let mut waiting = self.waiting.lock().expect("no holder of the lock panics");
        waiting.push((dir.join(channel), receiver));
        Ok(sender)
    }

    fn open_receiver(&self, dir: &Path, channel: &str) -> Result<Q::Receiver> {
        let name = dir.join(channel);
        let mut waiting = self.waiting.lock().expect("no holder of the lock panics");
        let at = waiting.iter().position(|(of, _)| *of == name);
        let at = at.with_context(|| format!("no sender of {channel} in this process"))?;
        Ok(waiting.swap_remove(at).1)
    }
}
