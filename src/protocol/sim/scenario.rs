//! What happens in a simulation: every setting, and how a seed chooses them.

use super::network::Faults;
use crate::protocol::{Flow, Join, Random, ReceiverOptions, RequestProtocol, SenderOptions};

const MS: u64 = 1_000_000;

/// Something that happens at an appointed time. Receivers, hosts and servers are numbered from 0,
/// as far as there are so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// All links to and from a receiver are cut, or healed.
    Cut {
        /// Which receiver.
        receiver: usize,
        /// Cut, or healed.
        cut: bool,
    },
    /// A line is cut to every receiver, or healed.
    CutLine {
        /// Which line.
        line: usize,
        /// Cut, or healed.
        cut: bool,
    },
    /// A receiver starts.
    Join(usize),
    /// A receiver is gone, without a word.
    KillReceiver(usize),
    /// A sender is gone. Its ring goes on being written.
    KillSender(usize),
    /// A sender that is gone starts again, from another port, on what was its ring: with the next
    /// message of the publisher, the next it would have sent, or the oldest, by the number.
    RestartSender(usize, u8),
    /// A host begins another session, without its ring.
    NewSession(usize),
    /// A further server of a host is gone.
    KillServer(usize, usize),
    /// A peer asks a host for so many random ranges at once.
    Storm(usize, u32),
}

/// One receiver.
#[derive(Clone, Debug)]
pub struct Place {
    /// How it receives. Its servers are filled in.
    pub options: ReceiverOptions,
    /// What the links to it do.
    pub down: Faults,
    /// What the link from it does.
    pub up: Faults,
    /// Messages that its handler takes every 100 µs; 0: any number.
    pub slow: u64,
    /// Chance that its handler refuses a message for no reason.
    pub refuse: f64,
}

/// A deliberate mistake between a receiver and its judge: to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sabotage {
    /// A message is not handed over.
    Swallow,
    /// A message is handed over twice.
    Repeat,
    /// A byte of a message is another.
    Alter,
    /// A message is said to be lost.
    Invent,
    /// Messages are taken no more.
    Stop,
    /// The end is told once more.
    EndTwice,
}

/// All that happens in a simulation. [`random`](Self::random) chooses it by a seed; every field
/// may be changed after that.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Where all chance in it comes from.
    pub seed: u64,
    /// Time at the start, ns.
    pub start_ns: u64,
    /// Messages that each host publishes in each session.
    pub messages: u64,
    /// Most that are published at once.
    pub burst: u64,
    /// Longest time between two bursts, ns.
    pub pause_ns: u64,
    /// Longest message, bytes; most are 64 bytes at most.
    pub message_max_bytes: u64,
    /// Chance that a record stands for a lost message.
    pub lost_record_chance: f64,
    /// Sequence of the first message.
    pub first_sequence: u64,
    /// Number of the first session; later ones are higher.
    pub session: u64,
    /// Hosts that publish to the same group, each its own stream.
    pub hosts: usize,
    /// The ring of each.
    pub ring_bytes: u64,
    /// Further request servers of each host, which hold four times as much.
    pub servers: usize,
    /// How they send.
    pub sender: SenderOptions,
    /// Lines that every packet is sent on.
    pub lines: usize,
    /// Who receives.
    pub receivers: Vec<Place>,
    /// What happens when, ns from the start, in order.
    pub script: Vec<(u64, Action)>,
    /// Mean time between two packets from somebody hostile, ns; 0: nobody is.
    pub hostile_ns: u64,
    /// A deliberate mistake.
    pub sabotage: Option<Sabotage>,
}

/// One of these.
fn one<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[random.below(of.len() as u64) as usize]
}

impl Scenario {
    /// What a seed chooses.
    pub fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let r = &mut random;
        let count = 1 + r.below(4) as usize;
        let session_max = 36_u64.pow(10) - 10;
        let mut scenario = Self {
            seed,
            start_ns: one(r, &[0, 1, 1_700_000_000_000_000_000, 1 << 60]),
            messages: one(r, &[30, 100, 300]),
            burst: one(r, &[1, 5, 30, 100]),
            pause_ns: one(r, &[2_000, 30_000, 200_000]),
            message_max_bytes: one(r, &[8, 64, 400, 1_400]),
            lost_record_chance: one(r, &[0.0, 0.0, 0.0, 0.02, 0.3]),
            first_sequence: one(r, &[1, 1, 0, u64::from(u32::MAX) - 50, (1 << 62) - 20, 1 << 62]),
            session: one(r, &[1, 36, 1_000_000, session_max]),
            hosts: one(r, &[1, 1, 1, 2]),
            ring_bytes: one(r, &[1 << 14, 1 << 16, 1 << 18]),
            servers: one(r, &[0, 0, 1, 2]),
            sender: sender(r),
            lines: one(r, &[1, 1, 2]),
            receivers: Vec::new(),
            script: Vec::new(),
            hostile_ns: one(r, &[0, 0, 10_000, 300_000]),
            sabotage: None,
        };
        if scenario.sender.flow != Flow::None {
            scenario.hosts = 1; // a sender whom nobody receives waits for ever
        }
        let protocol =
            one(r, &[RequestProtocol::Gapless, RequestProtocol::Gapless, RequestProtocol::Mold]);
        // What nobody has is given up one after the other if nobody says so.
        let is_slow = scenario.servers > 0 || protocol == RequestProtocol::Mold;
        let loses = is_slow && scenario.lost_record_chance > 0.0;
        if loses && scenario.hostile_ns > 0 {
            scenario.lost_record_chance = 0.0;
        }
        for _ in 0..count {
            let place = receiver(r, &scenario, protocol);
            scenario.receivers.push(place);
            if loses && scenario.hostile_ns == 0 {
                let options = scenario.receivers.last_mut().map(|place| &mut place.options);
                options.expect("it was just put there").give_up_ns = 30 * MS;
            }
        }
        scenario.script = script(r, &scenario);
        scenario
    }

    /// Until when the script goes on and faults last, ns from the start.
    pub(super) fn faults_end_ns(&self) -> u64 {
        let publishing = self.messages / self.burst * self.pause_ns;
        let script = self.script.last().map_or(0, |(at, _)| *at);
        (publishing / 2).max(script) + 5 * MS
    }
}

fn sender(r: &mut Random) -> SenderOptions {
    let flow = one(r, &[Flow::None, Flow::None, Flow::Slowest, Flow::Quorum(1)]);
    SenderOptions {
        datagram_bytes: one(r, &[1472, 1472, 2000, 9000]),
        heartbeat_first_ns: one(r, &[20_000, 1_000, 100_000]),
        heartbeat_max_ns: one(r, &[1_000 * MS, 10 * MS]),
        linger_ns: 10_000 * MS,
        flow,
        receiver_timeout_ns: one(r, &[20 * MS, 500 * MS]),
        receivers_max: one(r, &[256, 8]),
        repair_bytes_per_second: one(r, &[1_000_000_000, 20_000_000]),
        repair_burst_bytes: one(r, &[16 << 20, 64 << 10]),
        requests_max: one(r, &[64, 2]),
        merge_ns: one(r, &[0, 0, 100_000]),
        history_packets: one(r, &[1 << 12, 16]),
        ..SenderOptions::default()
    }
}

fn faults(r: &mut Random) -> Faults {
    let some = |r: &mut Random, of: &[f64]| one(r, of);
    Faults {
        delay_ns: one(r, &[1_000, 10_000, 100_000, MS]),
        jitter_ns: one(r, &[0, 0, 5_000, 100_000]),
        loss: some(r, &[0.0, 0.0, 0.01, 0.1, 0.4]),
        burst_enter: some(r, &[0.0, 0.0, 0.01, 0.05]),
        burst_leave: some(r, &[0.5, 0.1]),
        tail: some(r, &[0.0, 0.0, 0.3, 0.9]),
        corrupt: some(r, &[0.0, 0.01]),
        truncate: some(r, &[0.0, 0.0, 0.02]),
        flip: 0.0,
        duplicate: some(r, &[0.0, 0.0, 0.05, 0.5]),
        reorder: some(r, &[0.0, 0.0, 0.05, 0.5]),
        reorder_ns: one(r, &[1_000, 30_000, MS]),
    }
}

fn receiver(r: &mut Random, scenario: &Scenario, protocol: RequestProtocol) -> Place {
    let first = scenario.first_sequence;
    let report_ns = if scenario.sender.flow == Flow::None { one(r, &[10 * MS, 0]) } else { MS };
    // To give up before a forger has been found out would be to believe him.
    let trusting = scenario.hostile_ns == 0;
    // Only the sender knows what was never sent, and waits for reports.
    let is_needed = scenario.servers == 0 || scenario.sender.flow != Flow::None || !trusting;
    let mut options = ReceiverOptions {
        join: one(r, &[Join::Now, Join::Oldest, Join::Sequence(first), Join::Sequence(first + 20)]),
        lines: scenario.lines,
        reorder_ns: one(r, &[0, 2_000, 50_000]),
        skew_ns: one(r, &[0, MS]),
        backoff_ns: one(r, &[0, 20_000]),
        retry_ns: one(r, &[50_000, 200_000, 3 * MS]),
        attempts_per_server: one(r, &[1, 3]),
        give_up_ns: if trusting { one(r, &[5_000 * MS, 30 * MS]) } else { 5_000 * MS },
        ask_source: is_needed || r.chance(0.9),
        protocol: if trusting { protocol } else { RequestProtocol::Gapless },
        request_max_messages: one(r, &[8192, 10, 1]),
        store_bytes: one(r, &[4096, 1 << 16]),
        store_packets: one(r, &[16, 256]),
        gaps_max: one(r, &[16, 2048]),
        ahead_max_messages: one(r, &[1 << 32, 1 << 40, 50]),
        session_timeout_ns: if trusting { one(r, &[200 * MS, 3_000 * MS]) } else { 3_000 * MS },
        report_ns,
        window_bytes: one(r, &[1 << 20, 1 << 14, 2048]),
        id: 1 + r.next() / 2,
        ..ReceiverOptions::default()
    };
    // Where a server is gone and says nothing, what the others lack is given up: one message after
    // the other while all gaps are in use.
    if scenario.servers > 0 && options.give_up_ns > 30 * MS {
        options.gaps_max = 2048;
    }
    let (down, mut up) = (faults(r), faults(r));
    up.flip = one(r, &[0.0, 0.0, 0.01]);
    let up = if r.chance(0.5) { Faults { flip: up.flip, ..down.clone() } } else { up };
    Place { options, down, up, slow: one(r, &[0, 0, 0, 3, 50]), refuse: one(r, &[0.0, 0.0, 0.1]) }
}

fn script(r: &mut Random, scenario: &Scenario) -> Vec<(u64, Action)> {
    let publishing = (scenario.messages / scenario.burst * scenario.pause_ns / 2).max(MS);
    let (receivers, lines) = (scenario.receivers.len(), scenario.lines);
    let mut script = Vec::new();
    for receiver in 0..receivers {
        let at = if r.chance(0.7) { 0 } else { r.below(publishing) };
        script.push((at, Action::Join(receiver)));
        if r.chance(0.3) {
            let from = at + r.below(publishing);
            let long = one(r, &[MS, publishing / 2, 300 * MS]);
            script.push((from, Action::Cut { receiver, cut: true }));
            script.push((from + r.below(long), Action::Cut { receiver, cut: false }));
        }
        // The last one lives on.
        if receiver + 1 < receivers && r.chance(0.2) {
            script.push((at + r.below(publishing * 2), Action::KillReceiver(receiver)));
        }
    }
    if lines > 1 && r.chance(0.4) {
        let (line, at) = (r.below(2) as usize, r.below(publishing));
        script.push((at, Action::CutLine { line, cut: true }));
        script.push((at + r.below(publishing), Action::CutLine { line, cut: false }));
    }
    for host in 0..scenario.hosts {
        if r.chance(0.3) {
            let (at, start) = (r.below(publishing), r.below(3) as u8);
            script.push((at, Action::KillSender(host)));
            script.push((at + r.below(publishing), Action::RestartSender(host, start)));
        }
        if r.chance(0.2) {
            script.push((r.below(publishing * 2), Action::NewSession(host)));
        }
        for server in 1..=scenario.servers {
            if r.chance(0.3) {
                script.push((r.below(publishing), Action::KillServer(host, server)));
            }
        }
        if r.chance(0.2) {
            script.push((r.below(publishing), Action::Storm(host, 500)));
        }
    }
    script.sort_by_key(|(at, _)| *at);
    script
}
