//! Aeron: an exclusive publication over `aeron:ipc`, polled by a subscription of another process.
use std::ffi::CString;
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

use crate::link::{Link, Receiver, Sender};

/// One exclusive publication and one subscription a channel.
pub(crate) struct AeronIpc;

/// No answer of the driver takes longer.
const PATIENCE: Duration = Duration::from_secs(5);

fn env(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or(default.into())
}

fn failed(error: AeronCError) -> anyhow::Error {
    anyhow!("Aeron: {error} ({})", Aeron::errmsg())
}

fn driver_dir(dir: &Path) -> Result<CString> {
    CString::new(dir.join("aeron").as_os_str().as_bytes()).context("a directory without a NUL")
}

fn stream_id(channel: &str) -> i32 {
    channel.bytes().fold(0, |id, byte| id * 31 + i32::from(byte))
}

fn client(dir: &Path) -> Result<Aeron> {
    let connect = || {
        let context = AeronContext::new()?;
        context.set_dir(&driver_dir(dir).unwrap())?;
        context.set_pre_touch_mapped_memory(true)?;
        let client = Aeron::new(&context)?;
        client.start()?;
        Ok(client)
    };
    connect().map_err(failed)
}

enum Driver {
    Threaded(JoinHandle<Result<AeronDriver, AeronCError>>, mpsc::Sender<()>),
    Inline(AeronDriver),
    Own(AeronDriver),
    Taken,
}

impl Driver {
    fn start(dir: &Path) -> Result<Self> {
        let start = || {
            let context = AeronDriverContext::new()?;
            context.set_dir(&driver_dir(dir).unwrap())?;
            context.set_dir_delete_on_shutdown(true)?;
            context.set_term_buffer_sparse_file(false)?;
            let term: usize = env("TERM_LEN", "1048576").parse().unwrap();
            context.set_ipc_term_buffer_length(term)?;
            let mode = env("MODE", "inline");
            if mode != "inline" {
                context.set_threading_mode(aeron_threading_mode_t::AERON_THREADING_MODE_SHARED)?;
                let (kind, args) = mode.split_once(':').unwrap_or((&mode, ""));
                if !args.is_empty() {
                    context.set_shared_idle_strategy_init_args(&CString::new(args).unwrap())?;
                }
                context.set_shared_idle_strategy(&CString::new(kind).unwrap())?;
                let driver = AeronDriver::new(&context)?;
                driver.start(false)?;
                return Ok(Self::Own(driver));
            }
            context.set_threading_mode(aeron_threading_mode_t::AERON_THREADING_MODE_INVOKER)?;
            let driver = AeronDriver::new(&context)?;
            driver.start(true)?;
            let (stop, stopped) = mpsc::channel::<()>();
            let thread = std::thread::spawn(move || {
                while stopped.recv_timeout(Duration::from_millis(1))
                    == Err(RecvTimeoutError::Timeout)
                {
                    driver.main_do_work()?;
                }
                Ok(driver)
            });
            Ok(Self::Threaded(thread, stop))
        };
        start().map_err(failed)
    }

    fn work(&mut self) {
        match self {
            Self::Inline(driver) => {
                driver.main_do_work().unwrap();
            }
            Self::Own(_) => {}
            _ => {
                let Self::Threaded(thread, stop) = std::mem::replace(self, Self::Taken) else {
                    panic!()
                };
                drop(stop);
                *self = Self::Inline(thread.join().unwrap().unwrap());
            }
        }
    }
}

impl Link for AeronIpc {
    type Sender = AeronSender;
    type Receiver = AeronReceiver;

    fn open_sender(&self, dir: &Path, channel: &str) -> Result<AeronSender> {
        let hosts = !dir.join("aeron").exists();
        let driver = if hosts { Some(Driver::start(dir)?) } else { None };
        let client = client(dir)?;
        let publication = client
            .async_add_exclusive_publication(c"aeron:ipc", stream_id(channel))
            .and_then(|adding| adding.poll_blocking(PATIENCE))
            .map_err(failed)?;
        let every = env("EVERY", "64").parse().unwrap();
        Ok(AeronSender { publication, _client: client, driver, every, left: every })
    }

    fn open_receiver(&self, dir: &Path, channel: &str) -> Result<AeronReceiver> {
        let client = client(dir)?;
        let subscription = client
            .async_add_subscription(
                c"aeron:ipc",
                stream_id(channel),
                Handlers::NONE,
                Handlers::NONE,
            )
            .and_then(|adding| adding.poll_blocking(PATIENCE))
            .map_err(failed)?;
        let limit = Instant::now() + PATIENCE;
        while !subscription.is_connected() {
            ensure!(Instant::now() < limit, "Aeron: no publication of {channel}");
            std::thread::yield_now();
        }
        Ok(AeronReceiver { subscription, _client: client })
    }
}

pub(crate) struct AeronSender {
    publication: AeronExclusivePublication,
    _client: Aeron,
    driver: Option<Driver>,
    every: u32,
    left: u32,
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
            self.left -= 1;
            if !sent || self.left == 0 {
                self.left = self.every;
                driver.work();
            }
        }
        sent
    }
}

pub(crate) struct AeronReceiver {
    subscription: AeronSubscription,
    _client: Aeron,
}

impl Receiver for AeronReceiver {
    #[inline(always)]
    fn poll(&mut self, limit: usize, mut handler: impl FnMut(&[u8])) -> usize {
        let polled = self.subscription.poll_fn(|message, _| handler(message), limit);
        polled.expect("Aeron polls") as usize
    }
}
