//! Reading the sequenced stream to look at it: from a ring, datagrams or a log.

use std::thread::sleep;
use std::time::Duration;

use anyhow::bail;
use gapless::sequencer::Record;
use gapless::shm::ProducerStatus;
use gapless::{Address, PollError, Subscriber};

use crate::stop::Stop;

/// Records of one poll.
const POLL_LIMIT: usize = 256;
/// A reader that has seen everything sleeps so long.
const REST: Duration = Duration::from_millis(1);

/// A sequenced stream, and how far it is read.
#[derive(clap::Args)]
pub(crate) struct Source {
    /// The sequenced stream, as shm:sequenced, log:/var/log/orders or udp:239.1.2.3:9000
    #[arg(value_name = "SOURCE")]
    address: Address,
    /// Go on with what comes, whoever leads, until ctrl-c
    #[arg(long)]
    follow: bool,
}

/// How reading went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Read {
    /// Records that were read.
    pub(crate) records: u64,
    /// Messages that could not be had, or were no records.
    pub(crate) missed: u64,
}

impl Source {
    /// Reads all of `address` that there is now.
    pub(crate) fn of(address: Address) -> Self {
        Self { address, follow: false }
    }

    /// Whether more is waited for.
    pub(crate) fn follows(&self) -> bool {
        self.follow
    }

    /// Hands each record to `take`, in order, and calls `rest` each time that there is nothing
    /// more for now.
    pub(crate) fn read(
        &self,
        stop: &Stop,
        mut take: impl FnMut(&Record<'_>) -> anyhow::Result<()>,
        mut rest: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Read> {
        let mut subscriber = Subscriber::open_at(&self.address)?;
        let mut read = Read::default();
        loop {
            let stopping = stop.asked();
            let mut failed = None;
            let polled = subscriber.poll_while(POLL_LIMIT, |message| {
                match Record::read(message.sequence, message.payload) {
                    Ok(record) => {
                        read.records += 1;
                        failed = take(&record).err();
                    }
                    Err(error) => {
                        read.missed += 1;
                        eprintln!("gapless: {error}");
                    }
                }
                failed.is_none()
            });
            if let Some(error) = failed {
                return Err(error);
            }
            match polled {
                Ok(0) => {
                    rest()?;
                    if stopping || self.is_over(&subscriber) {
                        return Ok(read);
                    }
                    sleep(REST);
                }
                Ok(_) | Err(PollError::Unsteady) => {}
                Err(error @ PollError::Lapped { missed, .. }) => {
                    read.missed += missed;
                    eprintln!("gapless: {error}");
                }
                Err(error @ PollError::Lost { count, .. }) => {
                    read.missed += count;
                    eprintln!("gapless: {error}");
                }
                Err(PollError::NewSession { session, .. }) => {
                    bail!("another session begins, {session}: say session=… to read one of them");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether nothing more is to be waited for, nothing being there.
    fn is_over(&self, subscriber: &Subscriber) -> bool {
        match &self.address {
            _ if self.follow => false,
            Address::Shm(_) => subscriber.is_live(),
            _ => subscriber.publisher_status() != ProducerStatus::Alive,
        }
    }
}
