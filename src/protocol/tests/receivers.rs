//! What must not stop or mislead a receiver: each case in its smallest form.

use super::*;

const MS: u64 = 1_000_000;

fn host(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 2, n], 4000))
}

/// A receiver by itself, and what it hands over.
struct Alone {
    receiver: Receiver,
    seen: Vec<Seen>,
    takes: bool,
}

impl Alone {
    fn new(options: ReceiverOptions) -> Self {
        let options = ReceiverOptions { report_ns: 0, id: 1, ..options };
        Self { receiver: Receiver::new(options).unwrap(), seen: Vec::new(), takes: true }
    }

    fn hand(&mut self, act: impl FnOnce(&mut Receiver, &mut dyn FnMut(Event<'_>) -> bool)) {
        let (seen, takes) = (&mut self.seen, self.takes);
        act(&mut self.receiver, &mut |event| {
            let refusable = matches!(event, Event::Message { .. } | Event::Lost { .. });
            if refusable && !takes {
                return false;
            }
            seen.push(match event {
                Event::Joined { session, next } => Seen::Joined(session, next),
                Event::Message { sequence, payload } => Seen::Message(sequence, payload.to_vec()),
                Event::Lost { first, count } => Seen::Lost(first, count),
                Event::Ended { next } => Seen::Ended(next),
            });
            true
        });
    }

    fn packet(&mut self, line: usize, from: SocketAddr, bytes: &[u8], now: u64) {
        self.hand(|receiver, handler| {
            receiver.on_datagram(line, from, bytes, now, &mut |event| handler(event));
        });
    }

    fn message(&mut self, from: SocketAddr, sequence: u64, now: u64) {
        self.packet(0, from, &message(SESSION, sequence), now);
    }

    fn heartbeat(&mut self, from: SocketAddr, sequence: u64, now: u64) {
        let bytes = Header { session: SESSION, sequence, count: mold::HEARTBEAT }.to_bytes();
        self.packet(0, from, &bytes, now);
    }

    /// A server says that it does not have `[first, end)`: it holds `[oldest, next)`.
    fn gone(&mut self, from: SocketAddr, wanted: [u64; 2], held: [u64; 2], now: u64) {
        let (first, span) = (wanted[0], (wanted[1] - wanted[0]) as u32);
        let gone = control::Gone { first, span, oldest: held[0], next: held[1] };
        let answer = control(SESSION, control::Body::Gone(gone));
        self.hand(|receiver, handler| {
            receiver.on_answer(from, &answer, now, &mut |event| handler(event));
        });
    }

    /// A server repeats a message.
    fn answer(&mut self, from: SocketAddr, sequence: u64, now: u64) {
        let answer = message(SESSION, sequence);
        self.hand(|receiver, handler| {
            receiver.on_answer(from, &answer, now, &mut |event| handler(event));
        });
    }

    /// Which messages it asks for now, and of whom.
    fn wants(&mut self, now: u64) -> Vec<(SocketAddr, Vec<u64>)> {
        let wanted = |bytes: &[u8]| {
            let control = control::Control::read(bytes).unwrap();
            let control::Body::Request(request) = control.body else { panic!("{control:?}") };
            let wanted = (0..request.span).filter(|index| request.wants(*index));
            wanted.map(|index| request.first + u64::from(index)).collect()
        };
        self.asks(now).iter().map(|(server, bytes)| (*server, wanted(bytes))).collect()
    }

    /// Whom it asks now.
    fn asked(&mut self, now: u64) -> Vec<SocketAddr> {
        self.asks(now).into_iter().map(|(server, _)| server).collect()
    }

    /// What it asks for now, and of whom; then what it has given up is handed over.
    fn asks(&mut self, now: u64) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut buffer = [0; control::CONTROL_MAX_BYTES];
        let mut asked = Vec::new();
        while let Some(transmit) = self.receiver.poll_transmit(now, &mut buffer) {
            let To::Peer(peer) = transmit.to else { panic!("{transmit:?}") };
            asked.push((peer, buffer[..transmit.bytes].to_vec()));
        }
        self.hand(|receiver, handler| receiver.deliver(&mut |event| handler(event)));
        asked
    }

    fn messages(&self) -> Vec<u64> {
        let message = |seen: &Seen| if let Seen::Message(n, _) = seen { Some(*n) } else { None };
        self.seen.iter().filter_map(message).collect()
    }

    fn is_lossless(&self) -> bool {
        !self.seen.iter().any(|seen| matches!(seen, Seen::Lost(..)))
    }
}

fn message(session: Session, sequence: u64) -> Vec<u8> {
    let mut bytes = Header { session, sequence, count: 1 }.to_bytes().to_vec();
    bytes.extend(b"\0\x01m");
    bytes
}

#[test]
fn one_packet_from_far_away_does_not_end_the_stream() {
    let mut alone = Alone::new(ReceiverOptions { ask_source: false, ..Default::default() });
    alone.message(host(1), 1, 0);
    alone.message(host(1), 1 << 40, MS);
    alone.heartbeat(host(1), 1 << 50, 2 * MS);
    alone.asks(20 * MS);
    alone.message(host(1), 2, 30 * MS);
    assert_eq!(alone.messages(), [1, 2]);
    assert!(alone.is_lossless());
    // A second one that carries on from there is proof.
    alone.message(host(1), 1 << 30, 40 * MS);
    alone.message(host(1), (1 << 30) + 1, 40 * MS);
    alone.asks(50 * MS);
    assert_eq!(alone.seen.last(), Some(&Seen::Message((1 << 30) + 1, b"m".to_vec())));
    assert!(alone.seen.contains(&Seen::Lost(3, (1 << 30) - 2)));
}

#[test]
fn lines_that_die_are_not_the_only_ones_asked() {
    let mut alone = Alone::new(ReceiverOptions { lines: 2, ..Default::default() });
    alone.packet(0, host(1), &message(SESSION, 1), 0);
    alone.packet(1, host(2), &message(SESSION, 1), 0);
    alone.packet(1, host(2), &message(SESSION, 3), MS); // line 0 is dead from here on
    let mut asked = Vec::new();
    for ms in 1..1000 {
        asked.extend(alone.asks(ms * MS).into_iter().map(|(server, _)| server));
    }
    assert!(asked.contains(&host(1)) && asked.contains(&host(2)), "{asked:?}");
}

#[test]
fn sequences_up_to_the_last_are_asked_for() {
    let mut alone = Alone::new(ReceiverOptions::default());
    alone.message(host(1), u64::MAX - 11, 0);
    alone.message(host(1), u64::MAX - 1, MS);
    assert_eq!(alone.asks(10 * MS).len(), 1);
    // And what a line lost is counted whatever two sessions say.
    let options =
        ReceiverOptions { session_timeout_ns: 1, ask_source: false, ..Default::default() };
    let mut alone = Alone::new(options);
    for (session, number) in [(SESSION, 1), (Session(*b"TEST000002"), 2)] {
        for sequence in [1, u64::MAX - 1] {
            alone.packet(0, host(number), &message(session, sequence), u64::from(number) * MS);
        }
        alone.receiver.on_idle(u64::from(number) * MS + 10);
    }
    assert_eq!(alone.receiver.line(0).unwrap().lost, u64::MAX);
}

#[test]
fn who_wants_the_oldest_waits_for_a_slow_answer() {
    let mut alone = Alone::new(ReceiverOptions { join: Join::Oldest, ..Default::default() });
    for ms in 0..400 {
        alone.message(host(1), 1000 + ms, ms * MS);
        alone.asks(ms * MS);
    }
    assert_eq!(alone.seen, []);
    let servers = [None; control::SERVERS_MAX];
    let body = control::Advertisement { oldest: 10, next: 1400, ended: false, servers };
    let answer = control(SESSION, control::Body::Advertisement(body));
    alone.hand(|receiver, handler| {
        receiver.on_answer(host(1), &answer, 400 * MS, &mut |event| handler(event));
    });
    assert_eq!(alone.seen, [Seen::Joined(SESSION, 10)]);
    // Nobody answers at all: what is there is better than nothing.
    let mut alone = Alone::new(ReceiverOptions { join: Join::Oldest, ..Default::default() });
    for ms in 0..6000 {
        alone.message(host(1), 1000 + ms, ms * MS);
        alone.asks(ms * MS);
    }
    assert_eq!(alone.seen[0], Seen::Joined(SESSION, 6000));
}

#[test]
fn gaps_that_share_no_request_are_each_asked_for_once() {
    for protocol in [RequestProtocol::Gapless, RequestProtocol::Mold] {
        let mut alone = Alone::new(ReceiverOptions { protocol, ..Default::default() });
        alone.message(host(1), 1, 0);
        for n in 1..=50 {
            alone.message(host(1), 1 + n * 20_000, 0);
        }
        let mut sequences = Vec::new();
        let mut buffer = [0; control::CONTROL_MAX_BYTES];
        while let Some(transmit) = alone.receiver.poll_transmit(MS, &mut buffer) {
            let at = if protocol == RequestProtocol::Mold { 10 } else { 28 };
            let first = u64::from_be_bytes(buffer[at..at + 8].try_into().unwrap());
            sequences.push(first);
            assert!(transmit.bytes > 0);
            // What comes meanwhile is not forgotten over it.
            if sequences.len() == 25 {
                alone.message(host(1), 2, MS);
                assert!(alone.receiver.timeout() <= MS && alone.receiver.wants_to_send(MS));
            }
        }
        let wanted: Vec<_> = (0..50).map(|n| 2 + n * 20_000).collect();
        let again = sequences.split_off(50);
        assert_eq!(sequences, wanted);
        let next = if protocol == RequestProtocol::Mold { vec![3] } else { vec![] };
        assert_eq!(again, next, "mold asks on for what a packet left");
        assert!(alone.receiver.timeout() > MS);
    }
}

#[test]
fn a_session_that_cannot_be_finished_gives_nothing_up() {
    let options = ReceiverOptions { session_timeout_ns: 1_000 * MS, ..Default::default() };
    let mut alone = Alone::new(options);
    let other = Session(*b"TEST000002");
    alone.message(host(1), 1, 0);
    alone.message(host(1), 3, 0);
    alone.message(host(1), 5, 0);
    alone.receiver.on_idle(2_000 * MS);
    alone.takes = false;
    alone.packet(0, host(2), &message(other, 1), 2_000 * MS);
    alone.takes = true;
    for sequence in [2, 4] {
        alone.message(host(1), sequence, 2_001 * MS);
    }
    assert_eq!(alone.messages(), [1, 2, 3, 4, 5]);
    assert!(alone.is_lossless());
}

#[test]
fn nobody_speaks_into_a_stream_that_is_only_idle() {
    let mut alone = Alone::new(ReceiverOptions::default());
    alone.message(host(1), 1, 0);
    for ms in (0..1000).step_by(100) {
        alone.receiver.on_idle(ms * MS);
        alone.message(host(2), 2, ms * MS);
    }
    alone.message(host(1), 2, 1000 * MS);
    assert_eq!(alone.messages(), [1, 2]);
    let counts = alone.receiver.counts();
    assert_eq!((counts.conflicts, counts.moves), (10, 0));
    // The time in which nobody looked was no silence, of the source or of the session.
    alone.message(host(2), 3, 60_000 * MS);
    let other = message(Session(*b"TEST000002"), 1);
    alone.packet(0, host(2), &other, 60_000 * MS);
    alone.message(host(1), 3, 60_000 * MS);
    assert_eq!(alone.messages(), [1, 2, 3]);
    assert_eq!(alone.receiver.session(), Some(SESSION));
    // After true silence another host goes on.
    alone.receiver.on_idle(63_000 * MS);
    alone.message(host(2), 4, 63_000 * MS);
    assert_eq!(alone.messages(), [1, 2, 3, 4]);
    assert_eq!(alone.receiver.counts().moves, 1);
}

#[test]
fn what_was_never_sent_is_not_told_as_lost() {
    // Those who are asked say nothing about it, or may not know.
    for protocol in [RequestProtocol::Gapless, RequestProtocol::Mold] {
        let (servers, ask_source) = (vec![host(9)], false);
        let options = ReceiverOptions { protocol, servers, ask_source, ..Default::default() };
        let mut alone = Alone::new(options);
        alone.message(host(1), 1, 0);
        alone.message(host(1), 1000, 0); // a mistake
        for ms in 1..20_000 {
            alone.receiver.on_idle(ms * MS);
            alone.asks(ms * MS);
            if ms % 1000 == 0 {
                alone.heartbeat(host(1), 2, ms * MS);
            }
        }
        assert_eq!((alone.receiver.newest_sequence(), alone.receiver.open_gaps()), (2, 0));
        alone.message(host(1), 2, 20_000 * MS);
        assert_eq!(alone.messages(), [1, 2]);
        assert!(alone.is_lossless());
    }
}

#[test]
fn while_others_are_answered_only_what_was_asked_for_in_vain_is_given_up() {
    // The whole gap was, though only its beginning had been asked for.
    let (give_up_ns, request_max_messages) = (30 * MS, 2);
    let mut alone =
        Alone::new(ReceiverOptions { give_up_ns, request_max_messages, ..Default::default() });
    alone.message(host(1), 1, 0);
    alone.message(host(1), 8, 0);
    for now in (1..100).map(|ms| ms * MS) {
        for (server, wanted) in alone.wants(now) {
            wanted.into_iter().filter(|n| *n >= 4).for_each(|n| alone.answer(server, n, now));
        }
        alone.answer(host(1), 1, now); // it has not fallen silent
    }
    assert_eq!(alone.seen[2], Seen::Lost(2, 2));
    assert_eq!(alone.messages(), [1, 4, 5, 6, 7, 8]);
}

#[test]
fn what_nobody_has_is_noted_bit_by_bit_when_all_gaps_are_in_use() {
    // A range that had been noted in the last place could not be split any more.
    let (gaps_max, servers, ask_source) = (16, vec![host(8), host(9)], false);
    let mut alone =
        Alone::new(ReceiverOptions { gaps_max, servers, ask_source, ..Default::default() });
    (0..=15).for_each(|n| alone.message(host(1), 1 + n * 5, 0));
    assert_eq!(alone.receiver.open_gaps(), 15);
    for now in (1..1000).map(|ms| ms * MS) {
        for (server, wanted) in alone.wants(now) {
            // One server speaks of two messages at once, the other of one.
            let many = if server == host(8) { 2 } else { 1 };
            for run in wanted.chunks(many) {
                alone.gone(server, [run[0], run[run.len() - 1] + 1], [77, 77], now);
            }
        }
    }
    assert_eq!(alone.messages(), (0..=15).map(|n| 1 + n * 5).collect::<Vec<_>>());
    assert_eq!(alone.receiver.counts().lost, 60);
}

#[test]
fn a_heartbeat_that_was_overtaken_takes_nothing_back() {
    let mut alone = Alone::new(ReceiverOptions::default());
    alone.message(host(1), 1, 0);
    alone.message(host(1), 3, MS);
    alone.receiver.on_idle(2 * MS);
    alone.heartbeat(host(1), 2, 2 * MS);
    assert_eq!((alone.receiver.newest_sequence(), alone.receiver.open_gaps()), (4, 1));
    alone.message(host(1), 2, 3 * MS);
    assert_eq!(alone.messages(), [1, 2, 3]);
}

/// Two lines of which the second is ahead: both brought message 1, it alone said that there are
/// messages 2 and 3. The first has been asked for them.
fn behind_and_ahead() -> Alone {
    let mut alone = Alone::new(ReceiverOptions { lines: 2, ..Default::default() });
    for line in [0, 1] {
        alone.packet(line, host(1 + line as u8), &message(SESSION, 1), 0);
    }
    let heartbeat = Header { session: SESSION, sequence: 4, count: mold::HEARTBEAT }.to_bytes();
    alone.packet(1, host(2), &heartbeat, MS);
    assert_eq!(alone.asked(3 * MS), [host(1)]);
    alone
}

#[test]
fn what_a_line_has_not_sent_yet_is_neither_gone_nor_made_up() {
    let mut alone = behind_and_ahead();
    alone.gone(host(1), [2, 4], [1, 2], 4 * MS);
    assert_eq!(alone.receiver.newest_sequence(), 4, "the other line knows better");
    assert_eq!(alone.asked(4 * MS), [host(2)], "without delay");
    // That one does not hold them any more: the first will still send them.
    alone.gone(host(2), [2, 4], [4, 4], 5 * MS);
    for ms in 5..100 {
        assert!(alone.asked(ms * MS).iter().all(|server| *server == host(1)));
    }
    assert!(alone.is_lossless());
    for sequence in [2, 3] {
        alone.message(host(1), sequence, 100 * MS);
    }
    assert_eq!(alone.messages(), [1, 2, 3]);
}

#[test]
fn what_a_line_that_has_ended_did_not_have_is_asked_of_the_other() {
    let mut alone = behind_and_ahead();
    let end = Header { session: SESSION, sequence: 2, count: mold::END_OF_SESSION }.to_bytes();
    alone.packet(0, host(1), &end, 4 * MS);
    alone.gone(host(1), [2, 4], [1, 2], 4 * MS);
    assert_eq!(alone.asked(4 * MS), [host(2)]);
    for sequence in [2, 3] {
        alone.answer(host(2), sequence, 5 * MS);
    }
    let end = Header { session: SESSION, sequence: 4, count: mold::END_OF_SESSION }.to_bytes();
    alone.packet(1, host(2), &end, 6 * MS);
    assert_eq!(alone.messages(), [1, 2, 3]);
    assert_eq!(alone.seen.last(), Some(&Seen::Ended(4)));
    assert!(alone.is_lossless());
}

#[test]
fn a_line_that_was_not_heard_yet_may_have_what_the_other_lost() {
    let mut alone = Alone::new(ReceiverOptions { lines: 2, ..Default::default() });
    alone.message(host(1), 1, 0);
    alone.message(host(1), 4, 0);
    for ms in 2..100 {
        for server in alone.asked(ms * MS) {
            alone.gone(server, [2, 4], [4, 5], ms * MS);
        }
    }
    assert_eq!((alone.messages(), alone.receiver.open_gaps()), (vec![1], 1));
    assert!(alone.is_lossless());
    // Heard at last, it brings one of them; the other it does not have either.
    alone.packet(1, host(2), &message(SESSION, 2), 100 * MS);
    for ms in 100..200 {
        for server in alone.asked(ms * MS) {
            alone.gone(server, [3, 4], [4, 5], ms * MS);
        }
    }
    assert_eq!(alone.messages(), [1, 2, 4]);
    assert!(alone.seen.contains(&Seen::Lost(3, 1)), "{:?}", alone.seen);
}

#[test]
fn who_asks_for_what_nobody_has_sent_asks_ever_more_rarely() {
    // Each "not yet" was followed by a question 50 us later, for as long as the gap was open.
    let servers = vec![host(8), host(9)];
    let options = ReceiverOptions { servers, ask_source: false, ..Default::default() };
    let retry_max_ns = options.retry_max_ns;
    let mut alone = Alone::new(options);
    alone.message(host(1), 1, 0);
    alone.message(host(1), 1000, 0); // a mistake
    let (step_ns, end_ns) = (10_000, 1000 * MS);
    let mut asked = Vec::new();
    for now in (step_ns..end_ns).step_by(step_ns as usize) {
        for server in alone.asked(now) {
            asked.push(now);
            alone.gone(server, [2, 1000], [1, 2], now);
        }
    }
    assert!(asked[2] <= 500_000, "{asked:?}");
    let max = end_ns / retry_max_ns + 20;
    assert!(asked.len() as u64 <= max, "{} questions", asked.len());
}
