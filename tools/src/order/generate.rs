//! `gapless order client --generate`: a client that trades by itself, and times its answers.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;
use gapless::order::InstrumentId;
use gapless::order::messages::{MassCancel, Message};
use gapless::sequencer::{ClientId, Kind, Record, Refusal};
use gapless::{TscClock, Waiter};
use serde::{Deserialize, Serialize};

use super::client::Trader;
use super::flow::Flow;
use super::market::{self, Update};
use crate::latency::{self, Latency};
use crate::stop::Stop;
use crate::table::{Cell, Facts, Table, per_second, print_json, rate_text};

/// How to trade.
#[derive(clap::Args)]
pub(crate) struct Generation {
    /// Send N commands made of --data, tell only the account at the end
    #[arg(long, value_name = "N", requires = "data", conflicts_with = "script")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) generate: Option<u64>,
    /// With --generate: commands a second; 0: as fast as they are answered
    #[arg(long, value_name = "R", default_value_t = 0)]
    pub(crate) rate: u64,
    /// With --generate: the feed, FAST messages of MOEX FORTS, each behind its length
    #[arg(long, value_name = "FILE")]
    pub(crate) data: Option<PathBuf>,
    /// With --generate: take every Nth entry of the feed, the Ith of them, as 1/2
    #[arg(long, value_name = "I/N", value_parser = share, default_value = "1/1")]
    pub(crate) share: (usize, usize),
}

/// `1/2` is (0, 2).
fn share(text: &str) -> Result<(usize, usize), String> {
    let parts = text.split_once('/').and_then(|(which, of)| {
        let (which, of): (usize, usize) = (which.parse().ok()?, of.parse().ok()?);
        (1..=of).contains(&which).then(|| (which - 1, of))
    });
    parts.ok_or_else(|| "expected I/N, as 1/2".into())
}

/// The account of a client that traded by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generated {
    pub(crate) commands: u64,
    pub(crate) orders: u64,
    pub(crate) replaces: u64,
    pub(crate) cancels: u64,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    pub(crate) fills: u64,
    /// Commands that the sequencer refused.
    pub(crate) refused: u64,
    /// Commands that were sent again.
    pub(crate) resent: u64,
    pub(crate) elapsed_ns: u64,
    /// From the time that a command was due (flat out: was sent) to its first event seen.
    pub(crate) latency: Option<Latency>,
}

/// Commands that are on their way, and those that are being answered.
struct Watch {
    clock: TscClock,
    client: ClientId,
    /// Number and time of each that has not come back.
    sent: VecDeque<(u64, u64)>,
    /// Its record, and when it was sent.
    current: Option<(u64, u64)>,
    recorder: latency::Recorder,
    account: Generated,
}

impl Watch {
    fn take(&mut self, record: &Record<'_>) {
        if record.client != self.client {
            return;
        }
        match record.kind {
            Kind::Command => {
                while let Some((number, ticks)) = self.sent.pop_front() {
                    if number == record.reference {
                        self.current = Some((record.sequence, ticks));
                        break;
                    }
                }
            }
            Kind::Event => {
                if let Some((_, ticks)) = self.current.take_if(|(of, _)| *of == record.reference) {
                    self.recorder.record(self.clock.ns_between(ticks, self.clock.ticks()));
                }
                match Message::decode(record.payload) {
                    Ok(Message::Accepted(_)) => self.account.accepted += 1,
                    Ok(Message::Rejected(_) | Message::CancelRejected(_)) => {
                        self.account.rejected += 1;
                    }
                    Ok(Message::Filled(_)) => self.account.fills += 1,
                    _ => {}
                }
            }
            Kind::Refused if Refusal::of(record.code) != Some(Refusal::Gap) => {
                self.account.refused += 1;
            }
            _ => {}
        }
    }

    fn count(&mut self, message: &Message) {
        self.account.commands += 1;
        match message {
            Message::NewOrder(_) => self.account.orders += 1,
            Message::ReplaceOrder(_) => self.account.replaces += 1,
            _ => self.account.cancels += 1,
        }
    }
}

impl Trader {
    /// Sends `count` commands, `rate` a second, and takes out what is open in the end. Calls
    /// `half` when half of them are sent.
    pub(crate) fn generate(
        &mut self,
        updates: Vec<Update>,
        generation: &Generation,
        stop: &Stop,
        mut half: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Generated> {
        let count = generation.generate.unwrap_or(0);
        let mut flow = Flow::new(updates, generation.share, &self.desk)?;
        let clock = TscClock::new();
        let pace = clock.calibration(Duration::from_millis(20)).ticks_per_second;
        let pace = (generation.rate > 0).then(|| pace / generation.rate as f64);
        let mut watch = Watch {
            clock,
            client: self.desk.client(),
            sent: VecDeque::with_capacity(1 << 13),
            current: None,
            recorder: latency::Recorder::new()?,
            account: Generated::default(),
        };
        let (begun, start) = (Instant::now(), watch.clock.ticks());
        let mut waiter = Waiter::new(self.wait);
        let mut bytes = Vec::new();
        for number in 0..count {
            let due = pace.map(|pace| start + (number as f64 * pace) as u64);
            while due.is_some_and(|due| watch.clock.ticks() < due) {
                self.watch(&mut flow, &mut watch, &mut waiter, stop)?;
            }
            let message = flow.next(self.desk.next());
            bytes.clear();
            message.encode_to(&mut bytes);
            let ticks = due.unwrap_or_else(|| watch.clock.ticks());
            let own = loop {
                match self.client.submit(&bytes) {
                    Ok(own) => break own,
                    Err(error) if error.is_backpressure() => {
                        self.watch(&mut flow, &mut watch, &mut waiter, stop)?;
                    }
                    Err(error) => return Err(error.into()),
                }
            };
            watch.sent.push_back((own, ticks));
            watch.count(&message);
            self.own.sent(own, &bytes)?;
            self.desk.sent(&message);
            self.watch(&mut flow, &mut watch, &mut waiter, stop)?;
            if number == count / 2 {
                half()?;
            }
        }
        while self.client.unconfirmed() > 0 || watch.current.is_some() {
            self.watch(&mut flow, &mut watch, &mut waiter, stop)?;
        }
        let elapsed_ns = begun.elapsed().as_nanos() as u64;
        self.silent = true;
        self.send(&MassCancel { instrument: InstrumentId(0) }.into())?;
        self.await_answer(stop)?;
        let (resent, latency) = (self.client.resent(), Some(watch.recorder.latency()));
        Ok(Generated { resent, elapsed_ns, latency, ..watch.account })
    }

    fn watch(
        &mut self,
        flow: &mut Flow,
        watch: &mut Watch,
        waiter: &mut Waiter,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        if stop.asked() {
            bail!("interrupted");
        }
        let client = watch.client;
        let polled = self.drive(|record, _| {
            watch.take(record);
            if record.client == client {
                flow.learn(record);
            }
            Ok(())
        })?;
        match polled {
            0 => waiter.idle(),
            _ => waiter.reset(),
        }
        Ok(())
    }
}

/// The feed of `--data`.
pub(crate) fn feed(generation: &Generation) -> anyhow::Result<Vec<Update>> {
    match &generation.data {
        Some(path) => market::read_file(path),
        None => bail!("of what? give --data"),
    }
}

impl Generated {
    /// Prints the account.
    pub(crate) fn tell(&self, json: bool) -> anyhow::Result<()> {
        if json {
            return Ok(print_json(&serde_json::to_value(self)?)?);
        }
        let mut facts = Facts::default();
        let counts = [
            ("commands", self.commands),
            ("new orders", self.orders),
            ("replacements", self.replaces),
            ("cancels", self.cancels),
            ("accepted", self.accepted),
            ("rejected", self.rejected),
            ("fills", self.fills),
            ("refused", self.refused),
            ("sent again", self.resent),
        ];
        for (title, count) in counts {
            facts.add(title, title, Cell::count(count));
        }
        let rate = per_second(self.commands, Duration::from_nanos(self.elapsed_ns));
        facts.add("rate", "rate", Cell::with(rate_text(rate, "cmd"), rate));
        println!("{facts}");
        if let Some(latency) = &self.latency {
            let mut table = Table::new(&latency::COLUMNS);
            table.row(latency.cells());
            println!("from a command's time to its first event seen\n{table}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_understood() {
        assert_eq!((share("1/1"), share("2/3")), (Ok((0, 1)), Ok((1, 3))));
        for bad in ["", "1", "0/2", "3/2", "a/b", "1/0"] {
            assert!(share(bad).is_err(), "{bad}");
        }
    }
}
