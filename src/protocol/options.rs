//! How a sender sends and a receiver receives: every limit, with its default and range.

use std::net::SocketAddr;

use thiserror::Error;

use super::DATAGRAM_MAX_BYTES;
use super::control::SERVERS_MAX;
use super::flow::Flow;
use super::mold::Session;

/// An option is out of its range.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{option} = {value}: from {min} to {max}")]
pub struct OptionError {
    /// Which.
    pub option: &'static str,
    /// Its value.
    pub value: u64,
    /// The least that would be accepted.
    pub min: u64,
    /// The most.
    pub max: u64,
}

fn range(option: &'static str, value: u64, min: u64, max: u64) -> Result<(), OptionError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(OptionError { option, value, min, max }) }
}

/// How a sender sends. Start from [`Default`] and change what should be otherwise.
#[derive(Clone, Debug)]
pub struct SenderOptions {
    /// Largest datagram payload, bytes: 64 to 65,507. Default 1,472: Ethernet without
    /// fragmentation, over IPv4 (IPv6: 1,452).
    pub datagram_bytes: usize,
    /// First heartbeat behind the last data packet, ns. Default 20 µs.
    pub heartbeat_first_ns: u64,
    /// Each heartbeat waits twice as long as the one before, up to this, ns. Default 1 s.
    pub heartbeat_max_ns: u64,
    /// How long the end of the session is repeated and requests are still served, ns. Default 1 s.
    pub linger_ns: u64,
    /// Whom the sender waits for. Default: nobody.
    pub flow: Flow,
    /// A receiver that has not reported for so long is forgotten, ns. Default 5 s.
    pub receiver_timeout_ns: u64,
    /// Most receivers whose reports are followed. Default 256.
    pub receivers_max: usize,
    /// Bytes a second each requester may have repeated. Default 1 GB.
    pub repair_bytes_per_second: u64,
    /// Bytes that a requester may have at once. Default 16 MiB.
    pub repair_burst_bytes: u64,
    /// Requests that may wait to be answered. Default 64.
    pub requests_max: usize,
    /// If several receivers ask for the same within this time, all get the answer; ns. For
    /// multicast streams; 0, the default, answers each by unicast.
    pub merge_ns: u64,
    /// Bytes of a lossless ring that are kept behind the sender to be repeated, so long as it
    /// remembers their packets; as much less the producer may be ahead of the sender. What flow
    /// control waits for is kept in any case. Default 0: half of the ring; at most all of it but
    /// room for two of the longest messages.
    pub retain_bytes: u64,
    /// Packets whose place in the ring is remembered: older ones take longer to find. Default
    /// 65,536.
    pub history_packets: usize,
    /// Whether each message carries an [envelope](super::envelope), which says whether it is a
    /// fragment. Default no: then a fragment ends the sender.
    pub enveloped: bool,
    /// Whether MoldUDP64 requests are answered whatever session they name: some clients leave it
    /// uninitialised. Default no.
    pub any_session: bool,
    /// Further request servers, told to whoever solicits; at most 8. Default none.
    pub servers: Vec<SocketAddr>,
}

impl Default for SenderOptions {
    fn default() -> Self {
        Self {
            datagram_bytes: 1472,
            heartbeat_first_ns: 20_000,
            heartbeat_max_ns: 1_000_000_000,
            linger_ns: 1_000_000_000,
            flow: Flow::None,
            receiver_timeout_ns: 5_000_000_000,
            receivers_max: 256,
            repair_bytes_per_second: 1_000_000_000,
            repair_burst_bytes: 16 << 20,
            requests_max: 64,
            merge_ns: 0,
            retain_bytes: 0,
            history_packets: 1 << 16,
            enveloped: false,
            any_session: false,
            servers: Vec::new(),
        }
    }
}

impl SenderOptions {
    pub(super) fn check(&self) -> Result<(), OptionError> {
        range("datagram_bytes", self.datagram_bytes as u64, 64, DATAGRAM_MAX_BYTES as u64)?;
        range("heartbeat_max_ns", self.heartbeat_max_ns, 1_000_000, 60_000_000_000)?;
        range("heartbeat_first_ns", self.heartbeat_first_ns, 1_000, self.heartbeat_max_ns)?;
        range("receivers_max", self.receivers_max as u64, 1, 1 << 16)?;
        range("requests_max", self.requests_max as u64, 1, 1 << 16)?;
        range("history_packets", self.history_packets as u64, 1, 1 << 24)?;
        range("servers", self.servers.len() as u64, 0, SERVERS_MAX as u64)
    }
}

/// What a receiver starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Join {
    /// The first message that it sees.
    #[default]
    Now,
    /// The oldest message that the sender can still repeat.
    Oldest,
    /// This one, by asking for what went before it came.
    Sequence(u64),
}

/// How a receiver asks for what is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RequestProtocol {
    /// By gapless's own requests: many messages at once.
    #[default]
    Gapless,
    /// By MoldUDP64 requests, as an exchange's server expects them: one packet is the answer to
    /// each.
    Mold,
}

/// How a receiver receives. Start from [`Default`] and change what should be otherwise.
#[derive(Clone, Debug)]
pub struct ReceiverOptions {
    /// The only session to take; default: the first one seen, and then each that follows it.
    pub session: Option<Session>,
    /// Where to start. Default: with the first message seen.
    pub join: Join,
    /// What was received earlier: if the first session found is this one, it is joined at this
    /// sequence, whatever `join` says. Default none.
    pub resume: Option<(Session, u64)>,
    /// A session is not joined by a packet with a sequence beyond this. Default: the largest.
    pub first_max: u64,
    /// Lines that carry the same stream: 1 to 8. Default 1.
    pub lines: usize,
    /// How long a gap may be mere reordering before it is asked for, ns. Default 2 µs.
    pub reorder_ns: u64,
    /// With several lines, how long a gap may be open on one that the others may yet fill, ns.
    /// Default 1 ms.
    pub skew_ns: u64,
    /// A random part of this is added, so that many receivers do not ask at the same instant; ns.
    /// Default 0.
    pub backoff_ns: u64,
    /// How long to wait for an answer while none has been measured, ns: 1 µs to 10 s. Default
    /// 200 µs.
    pub retry_ns: u64,
    /// Each further attempt waits twice as long, up to this, ns. Default 10 ms.
    pub retry_max_ns: u64,
    /// Attempts with one server before the next is asked, if there are several. Default 3.
    pub attempts_per_server: u32,
    /// If nothing of what was asked for comes for so long, it is given up, ns: the whole gap, if no
    /// server has answered anything meanwhile, or they cannot say what they lack (MoldUDP64).
    /// Default 5 s.
    pub give_up_ns: u64,
    /// Whether the address that the data comes from is asked too. Default yes.
    pub ask_source: bool,
    /// Servers to ask, in this order. Default none. Without any, a gap is given up at once.
    pub servers: Vec<SocketAddr>,
    /// How to ask.
    pub protocol: RequestProtocol,
    /// Messages asked for at once, at most: 1 to 65,534. Default 8,192.
    pub request_max_messages: u32,
    /// Bytes of messages that may wait behind a gap: 4 KiB to 1 GiB. Default 8 MiB.
    pub store_bytes: usize,
    /// Packets that may: 16 to 1 Mi. Default 16,384.
    pub store_packets: usize,
    /// Gaps open at a time: 16 to 65,536. Default 2,048.
    pub gaps_max: usize,
    /// A packet further ahead than this is dropped, and what is missing up to there asked for.
    /// Default 2^32.
    pub ahead_max_messages: u64,
    /// Another session, or another host that sends this one, is taken up when what is received has
    /// been silent for so long, ns. Default 3 s.
    pub session_timeout_ns: u64,
    /// Time between reports while messages come, ns; 0: no reports. Default 10 ms, and a hundred
    /// times that while none come.
    pub report_ns: u64,
    /// How many bytes the receiver's socket takes: told to the sender. At least 2 KiB. Default
    /// 1 MiB.
    pub window_bytes: u32,
    /// This receiver's name in its reports; cut to 24 bytes. Default empty.
    pub name: String,
    /// Its id, and the seed of its back-off. Default 0: choose a random one.
    pub id: u64,
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        Self {
            session: None,
            join: Join::Now,
            resume: None,
            first_max: u64::MAX,
            lines: 1,
            reorder_ns: 2_000,
            skew_ns: 1_000_000,
            backoff_ns: 0,
            retry_ns: 200_000,
            retry_max_ns: 10_000_000,
            attempts_per_server: 3,
            give_up_ns: 5_000_000_000,
            ask_source: true,
            servers: Vec::new(),
            protocol: RequestProtocol::Gapless,
            request_max_messages: 8192,
            store_bytes: 8 << 20,
            store_packets: 16_384,
            gaps_max: 2048,
            ahead_max_messages: 1 << 32,
            session_timeout_ns: 3_000_000_000,
            report_ns: 10_000_000,
            window_bytes: 1 << 20,
            name: String::new(),
            id: 0,
        }
    }
}

impl ReceiverOptions {
    pub(super) fn check(&self) -> Result<(), OptionError> {
        const MINUTE_NS: u64 = 60_000_000_000;
        range("lines", self.lines as u64, 1, 8)?;
        range("reorder_ns", self.reorder_ns, 0, MINUTE_NS)?;
        range("skew_ns", self.skew_ns, 0, MINUTE_NS)?;
        range("backoff_ns", self.backoff_ns, 0, MINUTE_NS)?;
        range("retry_ns", self.retry_ns, 1_000, 10_000_000_000)?;
        range("retry_max_ns", self.retry_max_ns, self.retry_ns, MINUTE_NS)?;
        range("attempts_per_server", self.attempts_per_server.into(), 1, 1_000_000)?;
        range("servers", self.servers.len() as u64, 0, SERVERS_MAX as u64)?;
        range("request_max_messages", self.request_max_messages.into(), 1, 65_534)?;
        range("store_bytes", self.store_bytes as u64, 4096, 1 << 30)?;
        range("store_packets", self.store_packets as u64, 16, 1 << 20)?;
        range("gaps_max", self.gaps_max as u64, 16, 1 << 16)?;
        range("ahead_max_messages", self.ahead_max_messages, 1, 1 << 62)?;
        range("window_bytes", self.window_bytes.into(), 2048, u32::MAX.into())
    }
}
