//! Aeron: an exclusive publication over `aeron:ipc`, polled by a subscription of another process.
//!
//! Aeron needs a media driver, which moves the limits of publications on and cleans used buffers.
//! It has no thread of its own while messages flow: the first sender of a run calls its duty cycle,
//! once in so many messages and whenever there is no room. That keeps both cores to the two sides;
//! a driver's thread that sleeps has the same round trips, but moves limits only once a sleep.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use rusteron_media_driver::bindings::aeron_threading_mode_t;
use rusteron_media_driver::{
    Aeron, AeronCError, AeronContext, AeronDriver, AeronDriverContext, AeronExclusivePublication,
    AeronSubscription, Handlers,
};

use crate::link::{CAPACITY_BYTES, Link, Receiver, Sender};

const CHANNEL: &CStr = c"aeron:ipc";
/// The driver answers a request sooner.
const PATIENCE: Duration = Duration::from_secs(5);
/// The driver's sleep between two duty cycles before messages flow.
const SET_UP_PAUSE: Duration = Duration::from_millis(1);
/// Messages between two duty cycles of the driver.
const WORK_EVERY: u32 = 256;
/// A publication may be ahead of its subscription by half a term: as much as our ring holds.
const TERM_BYTES: usize = 2 * CAPACITY_BYTES as usize;
/// Bytes of the longest message of any case, with its header.
const FRAME_BYTES_MAX: u64 = 1024 + 32;

// The side that answers runs no driver: it must never be out of room between two duty cycles.
const _: () = assert!(WORK_EVERY as u64 * FRAME_BYTES_MAX < CAPACITY_BYTES / 2);

/// One exclusive publication and one subscription a channel.
pub(crate) enum AeronIpc {
    /// As much room as all others have.
    SameRoom,
    /// Aeron's own choice: 32 MiB, in terms of 64 MiB.
    DefaultTerms,
}

fn failed(error: AeronCError) -> anyhow::Error {
    anyhow!("Aeron: {error}: {}", Aeron::errmsg())
}

/// Where the driver and its clients meet.
fn meeting_place(dir: &Path) -> Result<CString> {
    CString::new(dir.join("aeron").as_os_str().as_bytes()).context("name Aeron's directory")
}

fn stream_id(channel: &str) -> i32 {
    channel.bytes().fold(0i32, |id, byte| id.wrapping_mul(31).wrapping_add(byte.into()))
}

/// A client whose own housekeeping thread sleeps 16 ms at a time.
fn connect(place: &CStr) -> Result<Aeron, AeronCError> {
    let context = AeronContext::new()?;
    context.set_dir(place)?;
    context.set_pre_touch_mapped_memory(true)?;
    let client = Aeron::new(&context)?;
    client.start()?;
    Ok(client)
}

/// The media driver of a run.
enum Driver {
    /// In a thread, while both sides are busy with opening their ends. Dropping the sender ends it.
    SettingUp(JoinHandle<Result<Box<AeronDriver>, AeronCError>>, mpsc::Sender<()>),
    /// In the sender's own thread.
    Inline(Box<AeronDriver>),
    /// On the way from the one to the other.
    Moving,
}

impl Driver {
    fn start(place: &CStr, terms: &AeronIpc) -> Result<Self, AeronCError> {
        let context = AeronDriverContext::new()?;
        context.set_dir(place)?;
        context.set_dir_delete_on_shutdown(true)?;
        context.set_term_buffer_sparse_file(false)?;
        if matches!(terms, AeronIpc::SameRoom) {
            context.set_ipc_term_buffer_length(TERM_BYTES)?;
        }
        context.set_threading_mode(aeron_threading_mode_t::AERON_THREADING_MODE_INVOKER)?;
        let driver = Box::new(AeronDriver::new(&context)?);
        driver.start(true)?;
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(SET_UP_PAUSE) == Err(RecvTimeoutError::Timeout) {
                driver.main_do_work()?;
            }
            Ok(driver)
        });
        Ok(Self::SettingUp(thread, stop))
    }

    /// One duty cycle.
    fn work(&mut self) {
        let worked = match self {
            Self::Inline(driver) => driver.main_do_work().map(drop),
            _ => self.move_in(),
        };
        worked.map_err(failed).expect("Aeron's driver works");
    }

    /// Takes the driver from the thread that it had while both sides opened their ends.
    #[cold]
    fn move_in(&mut self) -> Result<(), AeronCError> {
        if let Self::SettingUp(thread, stop) = std::mem::replace(self, Self::Moving) {
            drop(stop);
            *self = Self::Inline(thread.join().expect("the driver's thread does not panic")?);
        }
        Ok(())
    }
}

impl Link for AeronIpc {
    type Sender = AeronSender;
    type Receiver = AeronReceiver;

    fn open_sender(&self, dir: &Path, channel: &str) -> Result<AeronSender> {
        let place = meeting_place(dir)?;
        let is_first = !dir.join("aeron").exists();
        let driver = is_first.then(|| Driver::start(&place, self)).transpose().map_err(failed)?;
        let client = connect(&place).map_err(failed)?;
        let publication = client
            .async_add_exclusive_publication(CHANNEL, stream_id(channel))
            .and_then(|request| request.poll_blocking(PATIENCE))
            .map_err(failed)?;
        Ok(AeronSender { publication, _client: client, driver, until_work: WORK_EVERY })
    }

    fn open_receiver(&self, dir: &Path, channel: &str) -> Result<AeronReceiver> {
        let client = connect(&meeting_place(dir)?).map_err(failed)?;
        let subscription = client
            .async_add_subscription(CHANNEL, stream_id(channel), Handlers::NONE, Handlers::NONE)
            .and_then(|request| request.poll_blocking(PATIENCE))
            .map_err(failed)?;
        let limit = Instant::now() + PATIENCE;
        while !subscription.is_connected() {
            ensure!(Instant::now() < limit, "Aeron: nobody publishes {channel}");
            std::thread::yield_now();
        }
        Ok(AeronReceiver { subscription, _client: client })
    }
}

/// The publication. Fields are dropped in this order: the driver outlives its clients here.
pub(crate) struct AeronSender {
    publication: AeronExclusivePublication,
    _client: Aeron,
    /// With the first sender of a run.
    driver: Option<Driver>,
    until_work: u32,
}

impl Sender for AeronSender {
    #[inline(always)]
    fn try_send(&mut self, payload: &[u8]) -> bool {
        let sent = match self.publication.offer(payload) {
            Ok(_) => true,
            Err(error) if error.is_retryable() => false,
            Err(error) => panic!("Aeron: {error}"),
        };
        if let Some(driver) = &mut self.driver {
            self.until_work -= 1;
            if !sent || self.until_work == 0 {
                self.until_work = WORK_EVERY;
                driver.work();
            }
        }
        sent
    }
}

/// The subscription; its client lives as long.
pub(crate) struct AeronReceiver {
    subscription: AeronSubscription,
    _client: Aeron,
}

impl Receiver for AeronReceiver {
    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        let polled = self.subscription.poll_fn(|message, _header| handler(message), limit);
        polled.map_err(failed).expect("Aeron polls") as usize
    }
}
