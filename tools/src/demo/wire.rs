//! Acts 2 and 3: a sender and a receiver on two hosts, and a bad line between them. Plays them and
//! puts the two accounts together.

use std::io::{self, Write};

use gapless::TscClock;
use serde::{Deserialize, Serialize};

use super::hosts::{Host, Hosts};
use super::sample;
use super::stage::Stage;
use super::troupe::Troupe;
use crate::latency::{self, Latency};
use crate::progress;
use crate::table::{Cell, Table, bytes_text, grouped, ns_text, rate_text};

/// One way to play the act.
pub(super) struct Act {
    pub(super) title: &'static str,
    pub(super) messages: u64,
    /// Messages a second; `None`: flat out.
    pub(super) rate: Option<u64>,
    /// Whether both lines of the feed are sent, instead of a stream of our own.
    pub(super) lines: bool,
}

/// What the sender and the receiver tell.
#[derive(Serialize, Deserialize)]
pub(super) enum Told {
    /// Its sockets are open.
    Ready,
    Sent(Sent),
    Received(Box<Received>),
}

/// The sender's account.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) digest: String,
    pub(super) start_ticks: u64,
    pub(super) packets: u64,
}

/// What was done to the datagrams on their way in.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Injected {
    pub(super) datagrams: u64,
    pub(super) lost: u64,
    pub(super) duplicated: u64,
    pub(super) reordered: u64,
}

/// The receiver's account.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Received {
    pub(super) first_sequence: u64,
    pub(super) next_sequence: u64,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) digest: String,
    pub(super) end_ticks: u64,
    /// Messages that never came.
    pub(super) lost: u64,
    /// Holes seen, and the messages in them: which came late, were repeated, or were lost.
    pub(super) gaps: u64,
    pub(super) missed: u64,
    pub(super) reordered: u64,
    pub(super) repaired: u64,
    pub(super) duplicates: u64,
    pub(super) requests: u64,
    /// Messages that each line brought first.
    pub(super) wins: [u64; 2],
    pub(super) injected: Injected,
    pub(super) repairs: u64,
    /// From a hole seen to the hole filled.
    pub(super) repair: Option<Latency>,
    /// One way, from the time each message was due.
    pub(super) latency: Option<Latency>,
}

/// The act, as it was.
#[derive(Serialize)]
pub(super) struct WireReport {
    pub(super) title: &'static str,
    pub(super) hosts: String,
    pub(super) apart: bool,
    pub(super) wanted_rate: Option<u64>,
    pub(super) lines: bool,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) packets: u64,
    pub(super) digest: String,
    pub(super) elapsed_ns: u64,
    pub(super) messages_per_second: f64,
    pub(super) receiver: Received,
}

impl WireReport {
    /// Whether the receiver saw what was sent, under the same numbers.
    pub(super) fn is_sound(&self) -> bool {
        let receiver = &self.receiver;
        receiver.lost == 0
            && receiver.messages == self.messages
            && receiver.digest == self.digest
            && receiver.next_sequence - receiver.first_sequence == self.messages
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let receiver = &self.receiver;
        writeln!(out, "{}", self.title)?;
        for line in super::lines_of(&format!("over {}", self.hosts), 96) {
            writeln!(out, "  {line}")?;
        }
        let pace = match self.wanted_rate {
            Some(rate) => format!("{} a second wanted", grouped(rate)),
            None => "as fast as they go".into(),
        };
        let (messages, bytes) = (grouped(self.messages), bytes_text(self.bytes));
        writeln!(out, "  {messages} messages, {bytes}, {pace}")?;
        writeln!(
            out,
            "  done in {}: {}, {:.1} messages a datagram",
            ns_text(self.elapsed_ns),
            rate_text(self.messages_per_second, "msg"),
            // Both lines carry everything.
            self.messages as f64 / (self.packets as f64 / if self.lines { 2.0 } else { 1.0 }),
        )?;
        let injected = &receiver.injected;
        writeln!(
            out,
            "  injected: of {} datagrams {} lost ({:.2} %), {} doubled, {} overtaken",
            grouped(injected.datagrams),
            grouped(injected.lost),
            100.0 * injected.lost as f64 / injected.datagrams.max(1) as f64,
            grouped(injected.duplicated),
            grouped(injected.reordered),
        )?;
        if self.lines {
            writeln!(
                out,
                "  sequence {} to {}: line A was first with {}, line B with {}",
                receiver.first_sequence,
                receiver.next_sequence - 1,
                grouped(receiver.wins[0]),
                grouped(receiver.wins[1]),
            )?;
        }
        writeln!(out, "  sender's digest {}", self.digest)?;
        self.print_tables(out)?;
        writeln!(out)?;
        out.flush()
    }

    fn print_tables(&self, out: &mut dyn Write) -> io::Result<()> {
        let receiver = &self.receiver;
        let digest = if receiver.digest == self.digest { "equal" } else { "DIFFERS" };
        let mut table = Table::new(&[
            ("messages", "  messages"),
            ("lost", "lost"),
            ("gaps", "gaps found"),
            ("missed", "missing in them"),
            ("reordered", "came late"),
            ("repaired", "repaired"),
            ("duplicates", "came twice"),
            ("digest", "digest"),
        ]);
        let counts = [
            receiver.messages,
            receiver.lost,
            receiver.gaps,
            receiver.missed,
            receiver.reordered,
            receiver.repaired,
            receiver.duplicates,
        ];
        let mut row: Vec<Cell> = counts.into_iter().map(Cell::count).collect();
        row.push(Cell::text(digest));
        table.row(row);
        writeln!(out, "{table}")?;
        let mut columns = vec![("what", "  time")];
        columns.extend(latency::COLUMNS);
        let mut times = Table::new(&columns);
        let repair = ("  from a gap seen to the gap filled", &receiver.repair);
        let latency = ("  one way, from when it was due", &receiver.latency);
        for (what, latency) in [repair, latency] {
            if let Some(latency) = latency {
                let mut row = vec![Cell::text(what)];
                row.extend(latency.cells());
                times.row(row);
            }
        }
        if !times.is_empty() {
            writeln!(out, "{times}")?;
        }
        Ok(())
    }
}

/// Plays an act: the receiver first, then whoever sends.
pub(super) fn play(
    act: &Act,
    hosts: &Hosts,
    stage: &Stage,
    clock: &TscClock,
) -> anyhow::Result<WireReport> {
    let mut troupe = Troupe::new();
    let [receiver, sender] = arguments(act, hosts, stage)?;
    troupe.start("receiver", &receiver)?;
    match troupe.listen(&stage.stop)?.1 {
        Told::Ready => {}
        Told::Sent(_) | Told::Received(_) => anyhow::bail!("somebody was early"),
    }
    let spinner = progress::spinner(act.title);
    troupe.start("sender", &sender)?;
    let (mut sent, mut received): (Option<Sent>, Option<Box<Received>>) = (None, None);
    let (sent, receiver) = loop {
        match troupe.listen(&stage.stop)?.1 {
            Told::Sent(account) => sent = Some(account),
            Told::Received(account) => received = Some(account),
            Told::Ready => anyhow::bail!("somebody came twice"),
        }
        if let (Some(sent), Some(received)) = (&sent, &received) {
            break (sent.clone(), (**received).clone());
        }
    };
    spinner.finish_and_clear();
    let elapsed_ns = clock.ns_between(sent.start_ticks, receiver.end_ticks).max(1);
    Ok(WireReport {
        title: act.title,
        hosts: hosts.text(),
        apart: hosts.are_apart(),
        wanted_rate: act.rate,
        lines: act.lines,
        messages: sent.messages,
        bytes: sent.bytes,
        packets: sent.packets,
        digest: sent.digest,
        elapsed_ns,
        messages_per_second: sent.messages as f64 * 1e9 / elapsed_ns as f64,
        receiver,
    })
}

/// The command lines of the receiver and of the sender.
fn arguments(act: &Act, hosts: &Hosts, stage: &Stage) -> anyhow::Result<[Vec<String>; 2]> {
    let [a, b, requests_a, requests_b] = hosts.ports()?;
    let (sender, receiver) = (hosts.sender(), hosts.receiver());
    let alone = stage.cores.len() > 1;
    let line = |host: &Host, group: u8, port: u16| {
        format!("udp:239.255.78.{group}:{port}?iface={}", host.interface)
    };
    let mut receive = vec!["demo-receiver".to_owned()];
    let mut send = vec!["demo-sender".to_owned()];
    if act.lines {
        let servers = format!("{0}:{requests_a},{0}:{requests_b}", sender.address);
        let line_a = line(&receiver, 1, a);
        let from = sample::FIRST_A;
        receive.push(format!("{line_a}&b=239.255.78.2:{b}&request={servers}&from={from}"));
        receive.push(format!("--until={}", from + sample::MESSAGES_OF_BOTH));
        let bind = |port: u16| format!("&bind={}:{port}", sender.address);
        send.push(format!("{}{}", line(&sender, 1, a), bind(requests_a)));
        send.push(format!("--line-b={}{}", line(&sender, 2, b), bind(requests_b)));
    } else {
        receive.push(line(&receiver, 1, a));
        receive.extend(act.rate.map(|_| "--latency".to_owned()));
        let directory = stage.directory().display();
        send.push(format!("{}&flow=1&dir={directory}", line(&sender, 1, a)));
        send.push(format!("--messages={}", act.messages));
    }
    send.push(format!("--dir={}", stage.directory().display()));
    send.extend(act.rate.map(|rate| format!("--rate={rate}")));
    receive.extend(common_arguments(&receiver, stage.roles.subscribers[0], alone));
    send.extend(common_arguments(&sender, stage.roles.publisher, alone));
    Ok([receive, send])
}

fn common_arguments(host: &Host, core: Option<usize>, alone: bool) -> Vec<String> {
    let namespace = host.namespace.iter().map(|path| format!("--namespace={path}"));
    let core = core.map(|core| format!("--core={core}"));
    let yields = (!alone).then(|| "--yield".to_owned());
    namespace.chain(core).chain(yields).collect()
}
