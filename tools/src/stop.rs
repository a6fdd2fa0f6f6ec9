//! Being asked to end: ctrl-c and SIGTERM raise a flag that every loop looks at, so that streams
//! are closed and files removed in order. A second one ends the process at once.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::sending::SharedPublisher;

/// How often something that waits looks at the flag.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Whether the process was asked to end.
#[derive(Clone)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on ctrl-c and SIGTERM ask instead of killing.
    pub(crate) fn on_signals() -> io::Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Order matters: the second signal finds the flag raised by the first.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    /// Whether to end now.
    #[inline]
    pub(crate) fn asked(&self) -> bool {
        // Relaxed: nothing else is communicated by it.
        self.0.load(Ordering::Relaxed)
    }

    /// Sleeps for `time`, or until asked to end.
    pub(crate) fn wait(&self, time: Duration) {
        let due = Instant::now() + time;
        while !self.asked() && Instant::now() < due {
            sleep(due.saturating_duration_since(Instant::now()).min(LOOK_INTERVAL));
        }
    }
}

/// A file whose reads end, as at the end of the file, when the process is asked to stop. (A plain
/// read of a pipe or terminal would sleep on.)
pub(crate) struct StoppableFile {
    file: File,
    stop: Stop,
    tended: Option<SharedPublisher>,
}

impl StoppableFile {
    /// Reads `file` until its end or until `stop`.
    pub(crate) fn new(file: File, stop: Stop) -> Self {
        Self { file, stop, tended: None }
    }

    /// Looks after a publisher while there is nothing to read.
    pub(crate) fn tending(self, publisher: SharedPublisher) -> Self {
        Self { tended: Some(publisher), ..self }
    }
}

impl Read for StoppableFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.stop.asked() {
                return Ok(0);
            }
            let rest = match &self.tended {
                Some(publisher) => publisher.borrow_mut().rest().map_err(io::Error::other)?,
                None => LOOK_INTERVAL,
            };
            let mut ready = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(rest).unwrap_or(PollTimeout::ZERO);
            match poll(&mut ready, timeout) {
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return self.file.read(buffer),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
