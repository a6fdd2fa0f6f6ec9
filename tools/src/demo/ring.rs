//! Act 1: a publisher and two subscribers on one ring. Plays it and puts the three accounts
//! together.

use gapless::TscClock;
use serde::{Deserialize, Serialize};

use super::saga::Successor;
use super::stage::Stage;
use super::troupe::Troupe;
use crate::latency::Latency;
use crate::progress;

/// One way to play the act.
pub(super) struct Act {
    pub(super) title: &'static str,
    /// Name of its stream.
    pub(super) stream: &'static str,
    pub(super) messages: u64,
    /// Messages a second; `None`: flat out.
    pub(super) rate: Option<u64>,
}

/// What the publisher and the subscribers tell.
#[derive(Serialize, Deserialize)]
pub(super) enum Told {
    /// The ring exists; or: attached.
    Ready,
    /// All is published.
    Published(Published),
    /// All is read.
    Received(Received),
    /// Half of it is read.
    Half,
    /// All is recorded: so many messages.
    Recorded(u64),
    /// All is read, by two one after the other.
    Survived(Successor),
}

/// The publisher's account.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Published {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) digest: String,
    pub(super) start_ticks: u64,
    pub(super) backpressure_waits: u64,
}

/// A subscriber's account.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Received {
    pub(super) name: String,
    pub(super) core: Option<usize>,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    /// Sequence numbers that never came.
    pub(super) gaps: u64,
    pub(super) digest: String,
    pub(super) end_ticks: u64,
    /// One way, from the time each message was due.
    pub(super) latency: Option<Latency>,
}

/// The act, as it was.
#[derive(Serialize)]
pub(super) struct RingReport {
    pub(super) title: &'static str,
    pub(super) wanted_rate: Option<u64>,
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) digest: String,
    /// From the publisher's start to the last message at the last subscriber.
    pub(super) elapsed_ns: u64,
    pub(super) messages_per_second: f64,
    pub(super) bytes_per_second: f64,
    /// Messages for which the publisher found the ring full at first.
    pub(super) backpressure_waits: u64,
    pub(super) subscribers: Vec<Received>,
}

impl RingReport {
    /// Whether every subscriber saw what was published.
    pub(super) fn is_sound(&self) -> bool {
        let sound =
            |s: &Received| s.gaps == 0 && s.messages == self.messages && s.digest == self.digest;
        !self.subscribers.is_empty() && self.subscribers.iter().all(sound)
    }
}

/// Plays an act: ring first, then the subscribers, and only when both are attached the messages.
pub(super) fn play(act: &Act, stage: &Stage, clock: &TscClock) -> anyhow::Result<RingReport> {
    let mut troupe = Troupe::new();
    let publisher = troupe.start("publisher", &publisher_arguments(act, stage))?;
    await_ready(&mut troupe, stage, 1)?;
    for (name, core) in ["A", "B"].into_iter().zip(stage.roles.subscribers) {
        troupe.start("subscriber", &subscriber_arguments(act, stage, name, core))?;
    }
    await_ready(&mut troupe, stage, 2)?;
    let spinner = progress::spinner(act.title);
    troupe.cue(publisher)?;
    let mut published = None;
    let mut subscribers = Vec::new();
    while published.is_none() || subscribers.len() < 2 {
        match troupe.listen(&stage.stop)?.1 {
            Told::Published(account) => published = Some(account),
            Told::Received(account) => subscribers.push(account),
            _ => anyhow::bail!("somebody came twice"),
        }
    }
    spinner.finish_and_clear();
    let published: Published = published.expect("the loop ends with it");
    subscribers.sort_by(|a: &Received, b: &Received| a.name.cmp(&b.name));
    let end_ticks = subscribers.iter().map(|s| s.end_ticks).max().unwrap_or(0);
    let elapsed_ns = clock.ns_between(published.start_ticks, end_ticks).max(1);
    let seconds = elapsed_ns as f64 / 1e9;
    Ok(RingReport {
        title: act.title,
        wanted_rate: act.rate,
        messages: published.messages,
        bytes: published.bytes,
        digest: published.digest,
        elapsed_ns,
        messages_per_second: published.messages as f64 / seconds,
        bytes_per_second: published.bytes as f64 / seconds,
        backpressure_waits: published.backpressure_waits,
        subscribers,
    })
}

fn await_ready(troupe: &mut Troupe, stage: &Stage, count: usize) -> anyhow::Result<()> {
    for _ in 0..count {
        match troupe.listen(&stage.stop)?.1 {
            Told::Ready => {}
            _ => anyhow::bail!("somebody was early"),
        }
    }
    Ok(())
}

fn common_arguments(command: &str, act: &Act, stage: &Stage, core: Option<usize>) -> Vec<String> {
    let directory = stage.directory().display();
    let mut arguments = vec![command.to_owned()];
    arguments.push(format!("shm:{}?dir={directory}", act.stream));
    if let Some(core) = core {
        arguments.push(format!("--core={core}"));
    }
    arguments
}

fn publisher_arguments(act: &Act, stage: &Stage) -> Vec<String> {
    let core = stage.roles.publisher;
    let mut arguments = common_arguments("demo-publisher", act, stage, core);
    arguments.push(format!("--messages={}", act.messages));
    if let Some(rate) = act.rate {
        arguments.push(format!("--rate={rate}"));
    }
    if !stage.roles.publisher_alone {
        arguments.push("--yield".into());
    }
    arguments
}

fn subscriber_arguments(act: &Act, stage: &Stage, name: &str, core: Option<usize>) -> Vec<String> {
    let mut arguments = common_arguments("demo-subscriber", act, stage, core);
    arguments.push(format!("--name={name}"));
    if act.rate.is_some() {
        arguments.push("--latency".into());
    }
    if !stage.roles.subscribers_alone {
        arguments.push("--yield".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(change: impl FnOnce(&mut Received)) -> Received {
        let mut received = Received {
            name: "A".into(),
            core: None,
            messages: 3,
            bytes: 9,
            gaps: 0,
            digest: "d".into(),
            end_ticks: 1,
            latency: None,
        };
        change(&mut received);
        received
    }

    fn is_sound(subscribers: Vec<Received>) -> bool {
        let report = RingReport {
            title: "",
            wanted_rate: None,
            messages: 3,
            bytes: 9,
            digest: "d".into(),
            elapsed_ns: 1,
            messages_per_second: 1.0,
            bytes_per_second: 1.0,
            backpressure_waits: 0,
            subscribers,
        };
        report.is_sound()
    }

    #[test]
    fn one_subscriber_that_saw_something_else_is_enough() {
        assert!(is_sound(vec![received(|_| {}), received(|_| {})]));
        let wrong: [fn(&mut Received); 3] =
            [|r| r.gaps = 1, |r| r.digest = "e".into(), |r| r.messages = 2];
        for change in wrong {
            assert!(!is_sound(vec![received(|_| {}), received(change)]));
        }
        assert!(!is_sound(Vec::new()), "nobody saw anything");
    }
}
