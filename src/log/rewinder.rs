//! The rewinder: a request server over logs.
//!
//! What has left a sender's ring is asked of a rewinder, which has the log: single messages and
//! ranges by datagram, in both protocols that [`protocol`](crate::protocol) describes, and
//! everything from some point on by TCP ([`bulk`](super::bulk)). It serves any session that one of
//! its logs has, also while that is being recorded. Several rewinders may serve one stream:
//! receivers fall over between them.
//!
//! What a log lost, or has damaged, is answered with "gone", unless another of the logs has it;
//! what it has not come to yet never is. All that leaves, by either way, stays within one budget of
//! bytes a second, so that the live stream, which may share the line, is not hurt. Reading the disk
//! is the only thing that a duty cycle waits for.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use gapless_shm::{Counters, CountersOptions};

use super::desk::{Desks, Terms};
use super::error::LogError;
use super::pace::Pace;
use super::serve::{Bulk, Limits, listen};
use super::shelf::Library;
use crate::agent::Agent;
use crate::clock::{Clock, TscClock};
use crate::net::{Datagrams, NetError, Network, Run, SOCKETS_MAX, SocketOptions, SocketSet};
use crate::protocol::control::SERVERS_MAX;
use crate::protocol::{BURST_BYTES, DATAGRAM_MAX_BYTES, To, Transmit};

/// Questions taken in one duty cycle.
const QUESTIONS_MAX: usize = 64;
/// Answers sent in one duty cycle: packets of up to 64 KiB together, each.
const ANSWERS_MAX: usize = 4;
/// Time between two copies to the counters page, ns.
const PERIOD_NS: u64 = 10_000_000;
/// Ports tried before none is found that both UDP and TCP have free.
const PORTS_MAX: usize = 16;

const LABELS: [&str; 13] = [
    "requests",
    "messages",
    "packets",
    "bytes",
    "refused",
    "odd",
    "malformed",
    "gone",
    "clients",
    "clients-served",
    "clients-refused",
    "bulk-bytes",
    "unanswered",
];

/// What a rewinder has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RewinderCounts {
    /// Requests by datagram that were taken, of either protocol.
    pub requests: u64,
    /// Messages that answered them.
    pub messages: u64,
    /// Packets of those.
    pub packets: u64,
    /// Bytes of everything sent by datagram.
    pub bytes: u64,
    /// Requests not answered for want of budget or room.
    pub refused: u64,
    /// Requests that make no sense: a session that no log has, sequence 0, not there yet.
    pub odd: u64,
    /// Datagrams that are no question.
    pub malformed: u64,
    /// Times that something asked for was gone.
    pub gone: u64,
    /// Clients by TCP that are served now.
    pub clients: u64,
    /// Clients that ever were.
    pub clients_served: u64,
    /// Clients that were refused.
    pub clients_refused: u64,
    /// Bytes sent to clients by TCP.
    pub bulk_bytes: u64,
    /// Answers that could not be sent.
    pub unanswered: u64,
}

/// How a rewinder serves.
///
/// | option | default | |
/// |---|---|---|
/// | `log` | | a directory to serve; repeat for more |
/// | `bind` | | where requests come to, UDP and TCP; repeat for more. Port 0: any that both have free |
/// | `bytes_per_second` | 100 MB | for everything together; 0: no limit |
/// | `requester_bytes_per_second` | 25 MB | for each who asks by datagram, of each session |
/// | `datagram_bytes` | 1,472 | largest datagram payload, 64 to 65,507: that of the stream |
/// | `requests_max` | 64 | requests that may wait, of each session |
/// | `clients_max` | 64 | clients by TCP |
/// | `hello_timeout` | 5 s | for a client to say what it wants |
/// | `stall_timeout` | 30 s | a client that takes nothing for so long is given up |
/// | `server` | none | another rewinder, told to whoever asks what there is; up to 8 |
/// | `counters` | none | name of a counters page |
/// | `counters_directory` | that of the rings | where that is |
#[derive(Clone, Debug)]
pub struct RewinderOptions {
    logs: Vec<PathBuf>,
    binds: Vec<SocketAddr>,
    bytes_per_second: u64,
    requester_bytes_per_second: u64,
    datagram_bytes: usize,
    requests_max: usize,
    clients_max: usize,
    hello_timeout: Duration,
    stall_timeout: Duration,
    servers: Vec<SocketAddr>,
    counters: Option<String>,
    counters_directory: Option<PathBuf>,
}

impl Default for RewinderOptions {
    fn default() -> Self {
        Self {
            logs: Vec::new(),
            binds: Vec::new(),
            bytes_per_second: 100_000_000,
            requester_bytes_per_second: 25_000_000,
            datagram_bytes: 1472,
            requests_max: 64,
            clients_max: 64,
            hello_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(30),
            servers: Vec::new(),
            counters: None,
            counters_directory: None,
        }
    }
}

impl RewinderOptions {
    /// The defaults of the table above.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more log to serve. It need not be there yet.
    #[must_use]
    pub fn log(mut self, directory: impl Into<PathBuf>) -> Self {
        self.logs.push(directory.into());
        self
    }

    /// One more address that requests come to.
    #[must_use]
    pub fn bind(mut self, address: SocketAddr) -> Self {
        self.binds.push(address);
        self
    }

    /// Most bytes sent in a second, over everything; 0: no limit.
    #[must_use]
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = bytes;
        self
    }

    /// Most bytes sent in a second to one who asks by datagram.
    #[must_use]
    pub fn requester_bytes_per_second(mut self, bytes: u64) -> Self {
        self.requester_bytes_per_second = bytes;
        self
    }

    /// Largest datagram payload, bytes. A message that does not fit counts as gone.
    #[must_use]
    pub fn datagram_bytes(mut self, bytes: usize) -> Self {
        self.datagram_bytes = bytes;
        self
    }

    /// Requests that may wait to be answered, of each session.
    #[must_use]
    pub fn requests_max(mut self, requests: usize) -> Self {
        self.requests_max = requests;
        self
    }

    /// Clients that are served at a time by TCP; more are refused.
    #[must_use]
    pub fn clients_max(mut self, clients: usize) -> Self {
        self.clients_max = clients;
        self
    }

    /// How long a client may take to say what it wants.
    #[must_use]
    pub fn hello_timeout(mut self, timeout: Duration) -> Self {
        self.hello_timeout = timeout;
        self
    }

    /// How long a client may take nothing.
    #[must_use]
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = timeout;
        self
    }

    /// One more server to tell of.
    #[must_use]
    pub fn server(mut self, address: SocketAddr) -> Self {
        self.servers.push(address);
        self
    }

    /// Keeps a counters page of this name, of kind `rewinder`.
    #[must_use]
    pub fn counters(mut self, name: impl Into<String>) -> Self {
        self.counters = Some(name.into());
        self
    }

    /// Directory of the counters page.
    #[must_use]
    pub fn counters_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.counters_directory = Some(directory.into());
        self
    }

    fn check(&self) -> Result<(), LogError> {
        let within = |option, value: usize, min: usize, max: usize, expected| {
            let value = (min..=max).contains(&value).then_some(()).ok_or(value as u64);
            value.map_err(|value| LogError::Option { option, value, expected })
        };
        within("log", self.logs.len(), 1, 1024, "1 to 1,024 directories")?;
        within("bind", self.binds.len(), 1, SOCKETS_MAX, "1 to 32 addresses")?;
        let datagram = self.datagram_bytes;
        within("datagram_bytes", datagram, 64, DATAGRAM_MAX_BYTES, "64 to 65,507")?;
        within("requests_max", self.requests_max, 1, 1 << 16, "1 to 65,536")?;
        within("clients_max", self.clients_max, 0, 4096, "0 to 4,096")?;
        within("server", self.servers.len(), 0, SERVERS_MAX, "at most 8")
    }

    /// Opens the sockets.
    ///
    /// # Errors
    /// [`LogError::Option`]; [`LogError::Net`] or [`LogError::Listen`] if an address cannot be had;
    /// [`LogError::Counters`].
    pub fn open(&self) -> Result<Rewinder, LogError> {
        self.check()?;
        let mut network = Network::prefer(crate::net::Backend::Socket);
        let mut listeners = Vec::new();
        for &address in &self.binds {
            listeners.push(bind(&mut network, address)?);
        }
        let clock = TscClock::new();
        let terms = Terms {
            datagram_bytes: self.datagram_bytes,
            requests_max: self.requests_max,
            requester_bytes_per_second: self.requester_bytes_per_second,
            servers: self.servers.as_slice().into(),
        };
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let limits = Limits {
            clients_max: self.clients_max,
            hello_ns: ns(self.hello_timeout),
            stall_ns: ns(self.stall_timeout),
        };
        let counters = self.counters.as_ref().map(|name| {
            let mut options = CountersOptions::new();
            if let Some(directory) = &self.counters_directory {
                options = options.directory(directory);
            }
            options.open(name, "rewinder", &LABELS, &[])
        });
        Ok(Rewinder {
            library: Library::new(self.logs.clone()),
            network,
            desks: Desks::new(terms),
            bulk: Bulk::new(listeners, limits),
            pace: Pace::new(self.bytes_per_second, clock.now_ns()),
            clock,
            buffer: vec![0; BURST_BYTES].into(),
            unsent: None,
            bytes: 0,
            unanswered: 0,
            counters: counters.transpose()?,
            count_at: 0,
        })
    }
}

/// Opens both sockets of an address, on one port.
fn bind(network: &mut Network, address: SocketAddr) -> Result<TcpListener, LogError> {
    let refused = |source| LogError::Listen { address, source };
    let mut tried = 0;
    loop {
        let listener = listen(address).map_err(refused)?;
        let port = listener.local_addr().map_err(refused)?.port();
        let options = SocketOptions::new(SocketAddr::new(address.ip(), port)).coalesce(false);
        match network.add(&options) {
            Ok(_) => return Ok(listener),
            // The one that the kernel chose for TCP is another's for UDP.
            Err(NetError::PortInUse { .. }) if address.port() == 0 && tried < PORTS_MAX => {}
            Err(error) => return Err(error.into()),
        }
        tried += 1;
    }
}

/// Serves logs to whoever missed something of them: an agent, polled inline or on a thread of its
/// own.
///
/// ```
/// use gapless::log::{Fetch, LogOptions, RewinderOptions};
/// use gapless::{Agent, AgentRunner, Flags, RunnerOptions};
/// # let dir = tempfile::tempdir()?;
/// # let directory = dir.path().join("log");
/// let (mut log, _) = LogOptions::new().open(&directory)?;
/// log.begin(35, 1)?;
/// log.append(1, b"buy 100 SBER", Flags::WHOLE, 1_700_000_000_000_000_000)?;
/// log.flush()?;
///
/// let here = "127.0.0.1:0".parse()?;
/// let rewinder = RewinderOptions::new().log(&directory).bind(here).open()?;
/// let address = rewinder.addresses().next().unwrap();
/// let running = AgentRunner::spawn(rewinder, RunnerOptions::default())?;
///
/// let mut fetch = Fetch::connect(address, None, 1)?; // the newest session, from message 1 on
/// let mut bought = 0;
/// while bought == 0 {
///     bought = fetch.poll_while(64, |message, _time| message.payload == b"buy 100 SBER")?;
/// }
/// # running.stop().1?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Rewinder {
    library: Library,
    network: Network,
    desks: Desks,
    bulk: Bulk,
    pace: Pace,
    clock: TscClock,
    buffer: Box<[u8]>,
    /// What the network had no room for, in the buffer, and its socket.
    unsent: Option<(usize, Transmit)>,
    bytes: u64,
    unanswered: u64,
    counters: Option<Counters>,
    count_at: u64,
}

impl Rewinder {
    /// Where requests come to, UDP and TCP, in the order in which they were given.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let sockets = self.bulk.listeners();
        (0..sockets).map(|socket| self.network.local_address(socket))
    }

    /// What it has done so far.
    pub fn counts(&self) -> RewinderCounts {
        let (udp, tcp) = (&self.desks.counts, &self.bulk.counts);
        RewinderCounts {
            requests: udp.requests,
            messages: udp.repaired_messages,
            packets: udp.repaired_packets,
            bytes: self.bytes,
            refused: udp.requests_refused,
            odd: udp.requests_odd,
            malformed: udp.malformed,
            gone: udp.gone,
            clients: self.bulk.clients() as u64,
            clients_served: tcp.served,
            clients_refused: tcp.refused,
            bulk_bytes: tcp.bytes,
            unanswered: self.unanswered,
        }
    }

    fn take_questions(&mut self, now: u64) -> Result<usize, LogError> {
        let (desks, library) = (&mut self.desks, &mut self.library);
        let taken = self.network.receive(SocketSet::all(), QUESTIONS_MAX, |datagram| {
            desks.on_datagram(library, datagram.socket, datagram.source, datagram.bytes, now);
        })?;
        Ok(taken)
    }

    fn answer(&mut self, now: u64) -> usize {
        let mut answered = 0;
        while answered < ANSWERS_MAX && self.pace.room(now) > 0 {
            let unsent = self.unsent.take();
            let next = unsent.or_else(|| self.desks.next(now, &mut self.buffer));
            let Some((socket, transmit)) = next else { break };
            let To::Peer(peer) = transmit.to else { continue }; // a rewinder has no group
            let bytes = &self.buffer[..transmit.bytes];
            let run = Run { bytes, segment_bytes: transmit.segment_bytes };
            match self.network.send(socket, Some(peer), &[run]) {
                Ok(0) => {
                    self.unsent = Some((socket, transmit));
                    break;
                }
                Ok(_) => {
                    self.pace.take(transmit.bytes);
                    self.bytes += transmit.bytes as u64;
                }
                // Whoever asked from an address that nothing can be sent to stops nobody else.
                Err(_) => self.unanswered += 1,
            }
            answered += 1;
        }
        answered
    }

    #[cold]
    fn count(&mut self, now: u64) {
        self.count_at = now + PERIOD_NS;
        let counts = self.counts();
        let Some(counters) = &mut self.counters else { return };
        let values: [u64; LABELS.len()] = [
            counts.requests,
            counts.messages,
            counts.packets,
            counts.bytes,
            counts.refused,
            counts.odd,
            counts.malformed,
            counts.gone,
            counts.clients,
            counts.clients_served,
            counts.clients_refused,
            counts.bulk_bytes,
            counts.unanswered,
        ];
        for (index, value) in values.into_iter().enumerate() {
            counters.set(index, value);
        }
    }
}

impl Agent for Rewinder {
    type Error = LogError;

    fn name(&self) -> &str {
        "rewinder"
    }

    /// # Errors
    /// [`LogError::Net`] if datagrams cannot be received any more. What a client, a requester or a
    /// damaged log does ends nothing.
    fn duty_cycle(&mut self) -> Result<usize, LogError> {
        let now = self.clock.now_ns();
        let mut work = self.take_questions(now)?;
        if self.unsent.is_some() || !self.desks.is_empty() {
            work += self.answer(now);
        }
        work += usize::from(self.bulk.turn(&mut self.library, &mut self.pace, now) > 0);
        if now >= self.count_at && self.counters.is_some() {
            self.count(now);
        }
        Ok(work)
    }
}

impl Drop for Rewinder {
    fn drop(&mut self) {
        self.count(self.clock.now_ns()); // the page keeps the last figures
    }
}
