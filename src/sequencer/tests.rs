//! The sequencer's core under everything that can happen to it.

use super::core::{Admission, Core, Outcome};
use super::divergence::Divergence;
use super::frame::{Frame, FrameKind};
use super::simulation::{Outcomes, Simulation, for_seeds};
use super::*;
use crate::protocol::Random;

/// Keeps a sum over all commands that depends on their order, and answers each with one to three
/// events: one to the client itself, the others to its neighbours.
#[derive(Default)]
struct Chain {
    sum: u64,
    time_ns: u64,
}

impl Application for Chain {
    fn apply(&mut self, record: &Record<'_>, events: &mut Events) {
        self.time_ns = record.time_ns;
        let word = u64::from(record.kind as u8) << 32 | u64::from(record.client.0);
        self.sum = (self.sum ^ word).wrapping_mul(0x0100_0000_01B3) ^ record.time_ns;
        for &byte in record.payload {
            self.sum = (self.sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        if record.kind == Kind::Command {
            for neighbour in 0..=(self.sum % 3) as u16 {
                events.push(ClientId(record.client.0 + neighbour), &self.sum.to_le_bytes());
            }
        }
    }

    fn save(&self, out: &mut Vec<u8>) {
        let mut image = ImageWriter::new(out);
        image.u64(self.sum);
        image.u64(self.time_ns);
    }

    fn load(&mut self, saved: &[u8]) -> Result<(), LoadError> {
        let mut image = ImageReader::new(saved);
        *self = Self { sum: image.u64("the sum")?, time_ns: image.u64("the time")? };
        image.finish("nothing more")
    }
}

fn simulate(seed: u64) -> Outcomes {
    let command = |dice: &mut Random, client: ClientId, number, _: Option<&Chain>| {
        let mut bytes = format!("{client}-{number}-").into_bytes();
        bytes.resize(bytes.len() + dice.below(60) as usize, b'x');
        bytes
    };
    Simulation::new(seed, 4, Chain::default, command).run(3000, |_, _| ())
}

#[test]
fn each_command_once_and_in_order_whatever_happens() {
    let all = for_seeds(2000, simulate);
    if std::env::var_os("SIMULATION_SEED").is_none() {
        // All that is to be withstood did happen.
        assert!(all.take_overs > 20_000 && all.commands > 200_000, "{all:?}");
        assert!(all.duplicates > 20_000 && all.gaps > 2000 && all.rate_refusals > 2000, "{all:?}");
    }
}

#[test]
fn a_seed_says_it_all() {
    assert_eq!(simulate(77), simulate(77));
    assert_ne!(simulate(77), simulate(78));
}

fn frame(kind: FrameKind, client: u16, sequence: u64, payload: &[u8]) -> Vec<u8> {
    let frame = Frame { kind, client: ClientId(client), run: 0, sequence, sent_ns: 5, payload };
    let mut bytes = frame.head().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}

fn command(client: u16, sequence: u64) -> Vec<u8> {
    frame(FrameKind::Command, client, sequence, b"command")
}

fn leader() -> Core<Chain> {
    let mut core = Core::new(Chain::default(), 256);
    core.admit(ClientId(7), Admission::default());
    core.lead(1000);
    core
}

/// What the core has to say, as records.
fn said(core: &mut Core<Chain>) -> Vec<Vec<u8>> {
    let said: Vec<_> = core.outbox().iter().map(<[u8]>::to_vec).collect();
    core.outbox().advance(said.len());
    said
}

#[test]
fn what_is_wrong_with_a_frame_is_said() {
    let mut core = leader();
    said(&mut core);
    let mut refused = |message: &[u8]| {
        core.submit(ClientId(7), message, 2000);
        let said = said(&mut core);
        let record = Record::read(1, said.last().unwrap()).unwrap();
        (record.kind, Refusal::of(record.code), record.reference)
    };
    let refusal = |refusal, reference| (Kind::Refused, Some(refusal), reference);
    assert_eq!(refused(b"nonsense"), refusal(Refusal::Malformed, 0));
    assert_eq!(refused(&command(8, 1)), refusal(Refusal::WrongClient, 1));
    assert_eq!(refused(&command(7, 3)), refusal(Refusal::Gap, 1));
    let long = frame(FrameKind::Command, 7, 1, &[0; 225]);
    assert_eq!(refused(&long), refusal(Refusal::TooLong, 1));
    assert_eq!(refused(&command(7, 2)).0, Kind::Event);
    assert_eq!(core.ledger().last(ClientId(7)), 2);
}

#[test]
fn a_gap_is_told_once_and_a_duplicate_never() {
    let mut core = leader();
    core.submit(ClientId(7), &command(7, 1), 2000);
    said(&mut core);
    for _ in 0..3 {
        assert_eq!(core.submit(ClientId(7), &command(7, 1), 2000), Outcome::Duplicate);
    }
    assert!(said(&mut core).is_empty());
    for number in 3..9 {
        let outcome = core.submit(ClientId(7), &command(7, number), 2000);
        assert_eq!(outcome, Outcome::Refused(Refusal::Gap));
    }
    assert_eq!(said(&mut core).len(), 1);
    assert_eq!(core.submit(ClientId(7), &command(7, 2), 2000), Outcome::Sequenced);
}

#[test]
fn a_hello_is_answered_with_how_far_the_client_had_come() {
    let mut core = leader();
    for number in 1..=5 {
        core.submit(ClientId(7), &command(7, number), 2000);
    }
    said(&mut core);
    core.submit(ClientId(7), &frame(FrameKind::Hello, 7, 0, &[]), 2000);
    let said = said(&mut core);
    let answer = Record::read(1, &said[0]).unwrap();
    assert_eq!((answer.kind, answer.reference, answer.sent_ns), (Kind::Connected, 5, 0));
}

#[test]
fn a_client_that_leaves_is_told_of_once_and_comes_back_by_any_frame() {
    let mut core = leader();
    core.submit(ClientId(7), &command(7, 1), 2000);
    said(&mut core);
    core.submit(ClientId(7), &frame(FrameKind::Goodbye, 7, 1, &[]), 2000);
    core.disconnect(ClientId(7), Leaving::Died, 2000);
    core.submit(ClientId(7), &frame(FrameKind::Heartbeat, 7, 1, &[]), 2000);
    let kinds: Vec<_> = said(&mut core)
        .iter()
        .map(|message| Record::read(1, message).map(|record| (record.kind, record.code)).unwrap())
        .collect();
    assert_eq!(kinds, [(Kind::Disconnected, Leaving::Closed as u8), (Kind::Connected, 0)]);
}

#[test]
fn a_follower_finds_out_what_is_not_as_it_would_have_it() {
    let mut core = leader();
    for number in 1..=20 {
        core.submit(ClientId(7), &command(7, number), 2000 + number);
    }
    core.checkpoint();
    let stream = said(&mut core);
    let follow = |change: &dyn Fn(&mut Vec<Vec<u8>>)| {
        let mut stream = stream.clone();
        change(&mut stream);
        let mut follower = Core::new(Chain::default(), 256);
        let mut sequence = 0..;
        stream.iter().try_for_each(|m| follower.follow(sequence.next().unwrap() + 1, m)).err()
    };
    assert_eq!(follow(&|_| ()), None);
    let event = stream.iter().position(|m| m[0] == Kind::Event as u8).unwrap();
    assert!(matches!(follow(&|s| s[event][33] ^= 1), Some(Divergence::Event { .. })));
    assert!(matches!(follow(&|s| s[event][2] ^= 1), Some(Divergence::Event { .. })));
    assert!(follow(&|s| drop(s.remove(event))).is_some());
    let again = stream[event - 1].clone();
    assert!(follow(&|s| s.insert(event, again.clone())).is_some());
    assert!(matches!(follow(&|s| s.last_mut().unwrap()[8] ^= 1), Some(Divergence::State { .. })));
    assert!(matches!(follow(&|s| s[0][4] = 0), Some(Divergence::Term { .. })));
    assert!(matches!(follow(&|s| s[0][8] = 9), Some(Divergence::Version { found: 9, .. })));
    assert!(matches!(follow(&|s| s[1][0] = 99), Some(Divergence::Record(_))));
}

#[test]
fn time_passes_only_when_nothing_else_says_so() {
    let mut core = leader();
    said(&mut core);
    assert!(!core.tick(1999, 1000) && core.tick(2000, 1000) && !core.tick(2999, 1000));
    core.submit(ClientId(7), &command(7, 1), 2900);
    assert!(!core.tick(3899, 1000) && core.tick(3900, 1000));
    // A clock that was set back changes nothing.
    core.submit(ClientId(7), &command(7, 2), 100);
    assert_eq!(core.time_ns(), 3900);
}

#[test]
fn damaged_states_are_refused() {
    let mut core = leader();
    core.submit(ClientId(7), &command(7, 1), 2000);
    said(&mut core);
    let mut state = Vec::new();
    core.save(&mut state);
    let mut loaded = Core::new(Chain::default(), 256);
    loaded.load(&state).unwrap();
    assert_eq!(
        (loaded.next_sequence(), loaded.state_hash()),
        (core.next_sequence(), core.state_hash())
    );
    for length in 0..state.len() {
        assert!(Core::new(Chain::default(), 256).load(&state[..length]).is_err());
    }
}
