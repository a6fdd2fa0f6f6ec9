//! Counters of the wire on their shared-memory page: what `gapless stat` shows.
//!
//! Agents count in plain fields of their own; every so often those are copied to the page. Without
//! a page, nothing is.

use gapless_shm::{Counters, CountersOptions};

use super::WireError;
use crate::address::UdpAddress;
use crate::net::SocketStatistics;
use crate::protocol::{LineCounts, ReceiverCounts, SenderCounts};

/// Time between two copies, ns.
const PERIOD_NS: u64 = 10_000_000;

const SENDER: [&str; 28] = [
    "messages",
    "packets",
    "bytes",
    "heartbeats",
    "requests",
    "requests-refused",
    "requests-merged",
    "requests-odd",
    "malformed",
    "messages-repaired",
    "packets-repaired",
    "gone",
    "reports",
    "lapped",
    "stalls",
    "next-sequence",
    "receivers",
    "receivers-silenced",
    "slowest-lag",
    "kernel-drops",
    "send-failures",
    "unreachable",
    "system-calls",
    "datagrams-in",
    "datagrams-out",
    "no-room",
    "unanswered",
    "stable-1",
];

const RECEIVER: [&str; 45] = [
    "messages",
    "packets",
    "bytes",
    "heartbeats",
    "duplicates",
    "gaps",
    "missed",
    "reordered",
    "repaired",
    "lost",
    "requests",
    "retries",
    "reports",
    "malformed",
    "foreign",
    "stale",
    "conflicts",
    "moves",
    "overflows",
    "sessions",
    "next-sequence",
    "newest-sequence",
    "open-gaps",
    "held-bytes",
    "unasked",
    "kernel-drops",
    "send-failures",
    "unreachable",
    "system-calls",
    "A-packets",
    "A-wins",
    "A-duplicates",
    "A-lost",
    "A-reordered",
    "A-late-samples",
    "A-late-ns",
    "A-late-max-ns",
    "B-packets",
    "B-wins",
    "B-duplicates",
    "B-lost",
    "B-reordered",
    "B-late-samples",
    "B-late-ns",
    "B-late-max-ns",
];

/// The page of one agent, if it has one.
pub(super) struct Page {
    counters: Option<Counters>,
    due_at: u64,
}

impl Page {
    pub(super) fn sender(address: &UdpAddress) -> Result<Self, WireError> {
        Self::open(address, "sender", &SENDER, &[])
    }

    pub(super) fn receiver(address: &UdpAddress) -> Result<Self, WireError> {
        Self::open(address, "receiver", &RECEIVER, &["repair"])
    }

    fn open(
        address: &UdpAddress,
        kind: &str,
        counters: &[&str],
        histograms: &[&str],
    ) -> Result<Self, WireError> {
        let Some(name) = &address.counters else {
            return Ok(Self { counters: None, due_at: u64::MAX });
        };
        let options = CountersOptions::new().directory(address.ring.directory());
        let counters = options.open(name, kind, counters, histograms)?;
        Ok(Self { counters: Some(counters), due_at: 0 })
    }

    /// Whether it is time to copy.
    #[inline(always)]
    pub(super) fn is_due(&self, now: u64) -> bool {
        now >= self.due_at
    }

    fn put(&mut self, now: u64, values: &[u64]) {
        self.due_at = now + PERIOD_NS;
        if let Some(counters) = &mut self.counters {
            for (index, value) in values.iter().enumerate() {
                counters.set(index, *value);
            }
        }
    }

    pub(super) fn put_sender(
        &mut self,
        now: u64,
        counts: &SenderCounts,
        next: u64,
        receivers: (usize, u64, u64),
        sockets: &SocketStatistics,
        others: [u64; 3],
    ) {
        let values: [u64; SENDER.len()] = [
            counts.messages,
            counts.packets,
            counts.bytes,
            counts.heartbeats,
            counts.requests,
            counts.requests_refused,
            counts.requests_merged,
            counts.requests_odd,
            counts.malformed,
            counts.repaired_messages,
            counts.repaired_packets,
            counts.gone,
            counts.reports,
            counts.lapped,
            counts.stalls,
            next,
            receivers.0 as u64,
            receivers.1,
            receivers.2,
            sockets.kernel_drops,
            sockets.send_failures,
            sockets.unreachable,
            sockets.system_calls,
            sockets.datagrams_in,
            sockets.datagrams_out,
            others[0],
            others[1],
            others[2],
        ];
        self.put(now, &values);
    }

    pub(super) fn put_receiver(
        &mut self,
        now: u64,
        counts: &ReceiverCounts,
        place: [u64; 5],
        sockets: &SocketStatistics,
        lines: [&LineCounts; 2],
    ) {
        let mut values = [0; RECEIVER.len()];
        let (first, rest) = values.split_at_mut(29);
        first.copy_from_slice(&[
            counts.messages,
            counts.packets,
            counts.bytes,
            counts.heartbeats,
            counts.duplicates,
            counts.gaps,
            counts.missed,
            counts.reordered,
            counts.repaired,
            counts.lost,
            counts.requests,
            counts.retries,
            counts.reports,
            counts.malformed,
            counts.foreign,
            counts.stale,
            counts.conflicts,
            counts.moves,
            counts.overflows,
            counts.sessions,
            place[0],
            place[1],
            place[2],
            place[3],
            place[4],
            sockets.kernel_drops,
            sockets.send_failures,
            sockets.unreachable,
            sockets.system_calls,
        ]);
        for (values, line) in rest.chunks_mut(8).zip(lines) {
            values.copy_from_slice(&[
                line.packets,
                line.wins,
                line.duplicates,
                line.lost,
                line.reordered,
                line.late_samples,
                line.late_ns,
                line.late_max_ns,
            ]);
        }
        self.put(now, &values);
    }

    /// Notes how long a hole was open.
    pub(super) fn record_repair(&mut self, ns: u64) {
        if let Some(counters) = &mut self.counters {
            counters.record(0, ns);
        }
    }
}

/// What several sockets did, together.
pub(super) fn sum(statistics: impl Iterator<Item = SocketStatistics>) -> SocketStatistics {
    statistics.fold(SocketStatistics::default(), |mut sum, one| {
        sum.datagrams_in += one.datagrams_in;
        sum.bytes_in += one.bytes_in;
        sum.datagrams_out += one.datagrams_out;
        sum.bytes_out += one.bytes_out;
        sum.kernel_drops += one.kernel_drops;
        sum.send_failures += one.send_failures;
        sum.unreachable += one.unreachable;
        sum.system_calls += one.system_calls;
        sum
    })
}
