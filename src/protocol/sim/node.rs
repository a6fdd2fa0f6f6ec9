//! The receiving hosts of a simulation: a receiver, its handler, and who judges it.

use std::net::SocketAddr;

use super::network::Network;
use super::scenario::{Place, Sabotage, Scenario};
use super::stream::{Book, Host, Outgoing};
use super::watch::Watch;
use super::world::Going;
use crate::protocol::control::{CONTROL_MAX_BYTES, SERVERS_MAX};
use crate::protocol::{Event, Random, Receiver};

/// How often a slow handler takes something again, ns.
const ROOM_NS: u64 = 100_000;
/// A deliberate mistake is made at this message.
const MISTAKE_AT: u64 = 7;

/// What decides whether a message is taken.
struct Handler {
    random: Random,
    slow: u64,
    refuse: f64,
    room: u64,
    sabotage: Option<Sabotage>,
    is_sabotaged: bool,
}

pub(super) struct Node {
    pub(super) receiver: Option<Receiver>,
    pub(super) address: SocketAddr,
    pub(super) watch: Watch,
    /// Numbers of its links.
    pub(super) lines: Vec<usize>,
    pub(super) answers: usize,
    pub(super) up: usize,
    /// At which of its addresses it last asked a sender.
    pub(super) asked_at: SocketAddr,
    pub(super) messages: u64,
    pub(super) losses: u64,
    place: Place,
    handler: Handler,
    room_at: u64,
    buffer: Vec<u8>,
}

impl Node {
    pub(super) fn new(scenario: &Scenario, number: usize, network: &mut Network<Going>) -> Self {
        let mut place = scenario.receivers[number].clone();
        let servers = (1..=scenario.servers)
            .flat_map(|server| (0..scenario.hosts).map(move |host| (host, server)));
        place.options.servers =
            servers.map(|(host, server)| Host::server_address(host, server)).collect();
        place.options.servers.truncate(SERVERS_MAX);
        let hostile = scenario.hostile_ns > 0;
        Self {
            receiver: None,
            address: ([10, 3, 0, 1 + number as u8], 5000).into(),
            watch: Watch::new(&place.options, scenario.servers + 1, hostile),
            lines: (0..scenario.lines).map(|_| network.add_link(place.down.clone())).collect(),
            answers: network.add_link(place.down.clone()),
            up: network.add_link(place.up.clone()),
            asked_at: ([0, 0, 0, 0], 0).into(),
            messages: 0,
            losses: 0,
            handler: Handler {
                random: Random::new(scenario.seed ^ number as u64),
                slow: place.slow,
                refuse: place.refuse,
                room: place.slow,
                sabotage: scenario.sabotage,
                is_sabotaged: false,
            },
            place,
            room_at: u64::MAX,
            buffer: vec![0; CONTROL_MAX_BYTES],
        }
    }

    pub(super) fn links(&self) -> impl Iterator<Item = usize> + use<> {
        let links: Vec<_> = self.lines.iter().copied().chain([self.answers, self.up]).collect();
        links.into_iter()
    }

    pub(super) fn start(&mut self) -> Result<(), String> {
        let receiver = Receiver::new(self.place.options.clone());
        self.receiver = Some(receiver.map_err(|error| error.to_string())?);
        Ok(())
    }

    /// The handler takes everything from now on.
    pub(super) fn heal(&mut self, now: u64) {
        (self.handler.slow, self.handler.refuse) = (0, 0.0);
        self.room_at = now;
    }

    /// When it has something to do by itself, ns.
    pub(super) fn next_at(&self) -> u64 {
        self.receiver.as_ref().map_or(u64::MAX, |receiver| receiver.timeout().min(self.room_at))
    }

    pub(super) fn state(&self) -> impl std::fmt::Debug + use<> {
        let receiver = self.receiver.as_ref().map(|receiver| {
            let (next, newest) = (receiver.next_sequence(), receiver.newest_sequence());
            (receiver.session(), next, newest, receiver.open_gaps(), *receiver.counts())
        });
        (self.watch.position(), receiver)
    }

    pub(super) fn on_datagram(
        &mut self,
        line: Option<usize>,
        from: SocketAddr,
        bytes: &[u8],
        books: &[Book],
        hosts: &[Host],
        now: u64,
    ) -> Result<(), String> {
        let refused = |receiver: &Receiver| receiver.counts().malformed + receiver.counts().foreign;
        let before = self.receiver.as_ref().map(refused);
        self.drive(books, hosts, now, |receiver, handler| match line {
            Some(line) => {
                receiver.on_idle(now); // what came before was taken when it came
                receiver.on_datagram(line, from, bytes, now, &mut |event| handler(event));
            }
            None => receiver.on_answer(from, bytes, now, &mut |event| handler(event)),
        })?;
        if line.is_none() && before == self.receiver.as_ref().map(refused) {
            self.watch.on_answer(now);
        }
        Ok(())
    }

    /// Lets the receiver do something, and judges what it hands over.
    fn drive(
        &mut self,
        books: &[Book],
        hosts: &[Host],
        now: u64,
        act: impl FnOnce(&mut Receiver, &mut dyn FnMut(Event<'_>) -> bool),
    ) -> Result<(), String> {
        let Some(receiver) = self.receiver.as_mut() else { return Ok(()) };
        let (watch, own) = (&mut self.watch, &mut self.handler);
        watch.heard_at = receiver.heard_at();
        watch.on_newest(receiver.newest_sequence(), now);
        let mut failure = None;
        let (mut messages, mut losses) = (0, 0);
        let mut judge = |watch: &mut Watch, event: &Event<'_>| {
            if let Err(what) = watch.on_event(event, books, hosts, now) {
                failure.get_or_insert(what);
            }
        };
        act(receiver, &mut |event| {
            if let Event::Message { .. } | Event::Lost { .. } = event {
                if !own.takes() {
                    return false;
                }
                messages += u64::from(matches!(event, Event::Message { .. }));
                losses += u64::from(matches!(event, Event::Lost { .. }));
            }
            if own.sabotage.is_some() && own.mistake(&event, watch, &mut judge) {
                return true;
            }
            judge(watch, &event);
            true
        });
        self.messages += messages;
        self.losses += losses;
        failure.map_or(Ok(()), Err)
    }

    /// All that it has to say and to hand over now.
    pub(super) fn poll(
        &mut self,
        books: &[Book],
        hosts: &[Host],
        now: u64,
        out: &mut Vec<Outgoing>,
    ) -> Result<(), String> {
        if now >= self.room_at {
            self.handler.room = self.handler.slow;
            self.room_at = u64::MAX;
        }
        self.drive(books, hosts, now, |receiver, handler| {
            receiver.deliver(&mut |event| handler(event))
        })?;
        let Some(receiver) = self.receiver.as_mut() else { return Ok(()) };
        let polls_max = 10 + self.place.options.gaps_max;
        let mut polls = 0;
        while let Some(transmit) = receiver.poll_transmit(now, &mut self.buffer) {
            polls += 1;
            if polls > polls_max {
                return Err("a receiver does not stop sending".into());
            }
            self.watch.on_sent(&self.buffer[..transmit.bytes], now);
            let bytes = self.buffer[..transmit.bytes].into();
            out.push(Outgoing { to: transmit.to, bytes, last: true });
        }
        self.drive(books, hosts, now, |receiver, handler| {
            receiver.deliver(&mut |event| handler(event))
        })?;
        self.check(now)
    }

    fn check(&mut self, now: u64) -> Result<(), String> {
        let Some(receiver) = self.receiver.as_mut() else { return Ok(()) };
        let options = &self.place.options;
        if receiver.open_gaps() > options.gaps_max || receiver.held_bytes() > options.store_bytes {
            let (gaps, bytes) = (receiver.open_gaps(), receiver.held_bytes());
            return Err(format!("{gaps} gaps and {bytes} bytes are beyond the limits"));
        }
        if receiver.timeout() <= now {
            return Err(format!("a receiver is due at {}, and idle", receiver.timeout()));
        }
        if receiver.next_sequence() > receiver.newest_sequence() {
            return Err("a receiver is further than the stream".into());
        }
        let session = self.watch.position();
        if let Some(joined) = receiver.session()
            && session != Some((joined, receiver.next_sequence()))
            && self.handler.sabotage.is_none()
        {
            return Err(format!(
                "a receiver is at {}, seen: {session:?}",
                receiver.next_sequence()
            ));
        }
        if receiver.is_refused() && self.room_at == u64::MAX {
            self.room_at = now + ROOM_NS;
        }
        if receiver.take_repairs().any(|ns| ns > now) {
            return Err("a gap was open for longer than time".into());
        }
        Ok(())
    }
}

impl Handler {
    fn takes(&mut self) -> bool {
        if self.refuse > 0.0 && self.random.chance(self.refuse) {
            return false;
        }
        if self.slow > 0 {
            if self.room == 0 {
                return false;
            }
            self.room -= 1;
        }
        !(self.sabotage == Some(Sabotage::Stop) && self.is_sabotaged)
    }

    /// Makes the mistake that was ordered, once. True if the event is not to be judged itself.
    fn mistake(
        &mut self,
        event: &Event<'_>,
        watch: &mut Watch,
        judge: &mut impl FnMut(&mut Watch, &Event<'_>),
    ) -> bool {
        let is_end = matches!(event, Event::Ended { .. });
        let is_due = match *event {
            Event::Message { sequence, .. } => sequence % MISTAKE_AT == 0,
            _ => is_end,
        };
        if !is_due || self.is_sabotaged || is_end != (self.sabotage == Some(Sabotage::EndTwice)) {
            return false;
        }
        self.is_sabotaged = true;
        match (self.sabotage, event) {
            (Some(Sabotage::Repeat | Sabotage::EndTwice), event) => judge(watch, event),
            (Some(Sabotage::Swallow), _) => return true,
            (Some(Sabotage::Alter), Event::Message { sequence, payload }) => {
                let mut payload = payload.to_vec();
                match payload.last_mut() {
                    Some(byte) => *byte ^= 1,
                    None => payload.push(0),
                }
                judge(watch, &Event::Message { sequence: *sequence, payload: &payload });
                return true;
            }
            (Some(Sabotage::Invent), Event::Message { sequence, .. }) => {
                judge(watch, &Event::Lost { first: *sequence, count: 1 });
                return true;
            }
            _ => {}
        }
        false
    }
}
