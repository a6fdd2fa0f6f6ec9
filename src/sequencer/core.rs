//! The sequencer without its streams: what it makes of clients' frames, and of its own records.
//!
//! Does no I/O and reads no clock: frames, records and the time are brought to it, and records for
//! the stream wait in its outbox. So the very code that runs in production runs in simulations.
//!
//! A core **follows** the stream or **leads** it. Following, it applies each record to its
//! application and checks that the events that stand in the stream are those of its own
//! application, byte for byte. Leading, it takes frames. It may begin to lead when it has followed
//! to the stream's end and nobody else writes any more: what the former leader had not finished
//! (the events of its last command) is finished first. What is in the stream is all there is to
//! know, so nothing is lost and nothing is done twice.

use super::application::{Application, Events, LoadError};
use super::divergence::Divergence;
use super::frame::{Frame, FrameKind};
use super::image::{ImageReader, ImageWriter};
use super::ledger::{Bucket, Ledger, Rate};
use super::outbox::Outbox;
use super::record::{ClientId, Kind, Leaving, Record, Refusal, Role};

/// Version of the records' layout.
pub(crate) const LAYOUT_VERSION: u64 = 1;
/// How far ahead of sequenced time a client's clock may be: a day. Its runs are numbered by it, and
/// a number that is too large would keep all later ones out.
const RUN_AHEAD_NS: u64 = 86_400_000_000_000;
/// A client is told so often, on record, of what is no command.
const TELL_NS: u64 = 1_000_000;

/// What a client may do, and how often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// What it may do.
    pub role: Role,
    /// How often it may; `None`: as often as it likes.
    pub rate: Option<Rate>,
}

/// What became of a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is a record now.
    Sequenced,
    /// It was one already.
    Duplicate,
    /// It is none, and a record says why (but for gaps that have been told).
    Refused(Refusal),
    /// It was no command.
    Heard,
}

/// See the module's first page.
pub(crate) struct Core<A> {
    application: A,
    events: Events,
    /// How many of `events` stand in the stream.
    confirmed: usize,
    /// The record that caused them.
    cause: u64,
    ledger: Ledger,
    admissions: Vec<Option<(Role, Option<Bucket>)>>,
    /// Per client, the number that it has been asked to begin again with.
    asked: Vec<u64>,
    next_sequence: u64,
    term: u32,
    time_ns: u64,
    /// Time of the newest record.
    written_ns: u64,
    max_bytes: usize,
    outbox: Outbox,
    /// Per client, until when it has used up what it may be told of that is no command.
    told_ns: Vec<u64>,
    /// For checkpoints: room once taken is kept.
    image: Vec<u8>,
}

impl<A: Application> Core<A> {
    /// At the beginning of a stream whose messages have at most `max_bytes`.
    pub(crate) fn new(application: A, max_bytes: usize) -> Self {
        Self {
            application,
            events: Events::new(),
            confirmed: 0,
            cause: 0,
            ledger: Ledger::default(),
            admissions: Vec::new(),
            asked: Vec::new(),
            next_sequence: 1,
            term: 0,
            time_ns: 0,
            written_ns: 0,
            max_bytes,
            outbox: Outbox::new(),
            told_ns: Vec::new(),
            image: Vec::new(),
        }
    }

    /// Lets a client in.
    pub(crate) fn admit(&mut self, client: ClientId, admission: Admission) {
        let index = usize::from(client.0);
        if index >= self.admissions.len() {
            self.admissions.resize(index + 1, None);
            self.asked.resize(index + 1, 0);
            self.told_ns.resize(index + 1, 0);
        }
        self.admissions[index] = Some((admission.role, admission.rate.map(Rate::bucket)));
    }

    pub(crate) fn application(&self) -> &A {
        &self.application
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    pub(crate) fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    pub(crate) fn term(&self) -> u32 {
        self.term
    }

    /// Sequenced time, Unix ns.
    pub(crate) fn time_ns(&self) -> u64 {
        self.time_ns
    }

    /// Sequence of the next record, those in the outbox counted.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    pub(crate) fn set_max_bytes(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    // ---- Following

    /// Takes a message of the stream, as written by the leader.
    pub(crate) fn follow(&mut self, sequence: u64, message: &[u8]) -> Result<(), Divergence> {
        let wanted = self.next_sequence;
        if sequence != wanted {
            return Err(Divergence::Gap { wanted, found: sequence });
        }
        let record = Record::read(sequence, message)?;
        if record.time_ns < self.time_ns {
            let (time_ns, found_ns) = (self.time_ns, record.time_ns);
            return Err(Divergence::Time { sequence, time_ns, found_ns });
        }
        if record.kind != Kind::Term && record.term != self.term {
            return Err(Divergence::Term { sequence, term: self.term, found: record.term });
        }
        match record.kind {
            Kind::Event => {
                let own = self.events.get(self.confirmed);
                if record.reference != self.cause || own != Some((record.client, record.payload)) {
                    return Err(Divergence::Event { sequence, cause: record.reference });
                }
                self.confirmed += 1;
            }
            Kind::Term => self.follow_term(&record)?,
            kind => {
                let missing = self.events.len() - self.confirmed;
                if missing > 0 {
                    return Err(Divergence::Missing { sequence, cause: self.cause, missing });
                }
                if kind == Kind::Checkpoint {
                    let (here, there) = (self.state_hash(), record.reference);
                    if here != there {
                        return Err(Divergence::State { sequence, here, there });
                    }
                } else {
                    self.account(&record)?;
                    self.apply(&record);
                }
            }
        }
        (self.time_ns, self.written_ns) = (record.time_ns, record.time_ns);
        self.next_sequence += 1;
        Ok(())
    }

    fn follow_term(&mut self, record: &Record<'_>) -> Result<(), Divergence> {
        let sequence = record.sequence;
        if record.term <= self.term {
            return Err(Divergence::Term { sequence, term: self.term, found: record.term });
        }
        if record.reference != LAYOUT_VERSION {
            return Err(Divergence::Version { sequence, found: record.reference });
        }
        self.term = record.term;
        Ok(())
    }

    /// Books what a record says of its client.
    fn account(&mut self, record: &Record<'_>) -> Result<(), Divergence> {
        let seat = self.ledger.seat(record.client);
        let refusal = Refusal::of(record.code);
        match record.kind {
            Kind::Command => {
                let (wanted, found) = (seat.last + 1, record.reference);
                if found != wanted {
                    let (sequence, client) = (record.sequence, record.client);
                    return Err(Divergence::Command { sequence, client, wanted, found });
                }
                seat.last = found;
                let admission = self.admissions.get(usize::from(record.client.0));
                if let Some(Some((_, Some(bucket)))) = admission {
                    seat.charge(bucket, record.time_ns);
                }
            }
            Kind::Refused if refusal.is_some_and(Refusal::uses_up) => seat.last = record.reference,
            Kind::Connected => (seat.is_connected, seat.run) = (true, record.sent_ns),
            Kind::Disconnected => seat.is_connected = false,
            _ => {}
        }
        Ok(())
    }

    #[inline]
    fn apply(&mut self, record: &Record<'_>) {
        self.events.clear();
        (self.confirmed, self.cause) = (0, record.sequence);
        self.application.apply(record, &mut self.events);
    }

    // ---- Leading

    /// Begins to write the stream, behind all that has been followed.
    pub(crate) fn lead(&mut self, now_ns: u64) {
        self.term += 1;
        self.time_ns = self.time_ns.max(now_ns);
        self.asked.fill(0);
        self.write(Kind::Term, 0, ClientId::NONE, LAYOUT_VERSION);
        self.write_events();
    }

    /// Takes a frame that came by the stream of `client`.
    #[inline]
    pub(crate) fn submit(&mut self, client: ClientId, message: &[u8], now_ns: u64) -> Outcome {
        self.time_ns = self.time_ns.max(now_ns);
        let frame = match Frame::read(message) {
            Ok(frame) if frame.client == client => frame,
            Ok(frame) => return self.complain(client, Refusal::WrongClient, frame.sequence),
            Err(refusal) => return self.complain(client, refusal, 0),
        };
        let seat = self.ledger.seat(client);
        let last = seat.last;
        let was_connected = seat.is_connected;
        if frame.run != seat.run {
            return self.other_run(&frame);
        }
        let is_back = match frame.kind {
            FrameKind::Hello | FrameKind::Heartbeat => true,
            FrameKind::Command => frame.sequence > last, // and no leftover
            FrameKind::Goodbye => false,
        };
        if frame.kind == FrameKind::Hello || !was_connected && is_back {
            self.welcome(client);
        }
        match frame.kind {
            FrameKind::Command if frame.sequence <= last => Outcome::Duplicate,
            FrameKind::Command if frame.sequence == last + 1 => self.sequence(&frame),
            FrameKind::Command => self.ask(client, last + 1),
            // What it has sent last has not come, nor anything behind it that would show that.
            FrameKind::Heartbeat if frame.sequence > last => {
                self.forget_asking(client);
                self.ask(client, last + 1)
            }
            FrameKind::Goodbye if was_connected => {
                self.disconnect(client, Leaving::Closed, now_ns);
                Outcome::Heard
            }
            _ => Outcome::Heard,
        }
    }

    /// A frame of another run than the one in force. A hello begins a new run, or is told which is
    /// newer; what else an old run had left behind is passed over.
    #[cold]
    fn other_run(&mut self, frame: &Frame<'_>) -> Outcome {
        let seat = self.ledger.seat(frame.client);
        let is_hello = frame.kind == FrameKind::Hello;
        match frame.run > seat.run {
            true if !is_hello || frame.run > self.time_ns.saturating_add(RUN_AHEAD_NS) => {
                self.complain(frame.client, Refusal::Malformed, frame.sequence)
            }
            true => {
                seat.run = frame.run;
                self.welcome(frame.client);
                Outcome::Heard
            }
            false if is_hello => {
                self.welcome(frame.client);
                Outcome::Heard
            }
            false => Outcome::Duplicate,
        }
    }

    #[inline]
    fn sequence(&mut self, frame: &Frame<'_>) -> Outcome {
        let client = frame.client;
        let seat = self.ledger.seat(client);
        let admission = self.admissions.get(usize::from(client.0));
        let (role, bucket) = admission.copied().flatten().unwrap_or_default();
        seat.last = frame.sequence;
        if super::STAMP_BYTES + frame.payload.len() > self.max_bytes {
            return self.refuse(client, Refusal::TooLong, frame.sequence);
        }
        if let Some(bucket) = &bucket {
            if !seat.affords(bucket, self.time_ns) {
                return self.refuse(client, Refusal::Rate, frame.sequence);
            }
            seat.charge(bucket, self.time_ns);
        }
        let record = Record {
            sequence: self.next_sequence,
            kind: Kind::Command,
            code: role as u8,
            client,
            term: self.term,
            reference: frame.sequence,
            sent_ns: frame.sent_ns,
            time_ns: self.time_ns,
            payload: frame.payload,
        };
        self.outbox.push(&record.stamp(), frame.payload);
        self.written_ns = self.time_ns;
        self.next_sequence += 1;
        self.apply(&record);
        self.write_events();
        Outcome::Sequenced
    }

    /// Asks a client, once, to begin again with its number `wanted`.
    #[cold]
    fn ask(&mut self, client: ClientId, wanted: u64) -> Outcome {
        let told = self.asked.get_mut(usize::from(client.0));
        if let Some(told) = told.filter(|told| **told != wanted) {
            *told = wanted;
            self.complain(client, Refusal::Gap, wanted);
        }
        Outcome::Refused(Refusal::Gap)
    }

    fn forget_asking(&mut self, client: ClientId) {
        if let Some(asked) = self.asked.get_mut(usize::from(client.0)) {
            *asked = 0;
        }
    }

    /// Refuses what is no command, or not the next: on record, but for a client that brings more of
    /// it than anybody needs to read.
    #[cold]
    fn complain(&mut self, client: ClientId, refusal: Refusal, reference: u64) -> Outcome {
        if self.may_tell(client) {
            self.refuse(client, refusal, reference);
        }
        Outcome::Refused(refusal)
    }

    /// A hundred at once, and a thousand a second.
    fn may_tell(&mut self, client: ClientId) -> bool {
        let Some(told_ns) = self.told_ns.get_mut(usize::from(client.0)) else { return true };
        let may = told_ns.saturating_sub(self.time_ns) < 100 * TELL_NS;
        if may {
            *told_ns = self.time_ns.max(*told_ns) + TELL_NS;
        }
        may
    }

    #[cold]
    fn refuse(&mut self, client: ClientId, refusal: Refusal, reference: u64) -> Outcome {
        self.write_and_apply(Kind::Refused, refusal as u8, client, reference, 0);
        Outcome::Refused(refusal)
    }

    /// Says how far a client had come, and which of its runs that was said to.
    #[cold]
    fn welcome(&mut self, client: ClientId) {
        if !self.may_tell(client) {
            return; // it will say so again
        }
        let seat = self.ledger.seat(client);
        seat.is_connected = true;
        let (last, run) = (seat.last, seat.run);
        self.forget_asking(client);
        self.write_and_apply(Kind::Connected, 0, client, last, run);
    }

    /// A client is gone.
    #[cold]
    pub(crate) fn disconnect(&mut self, client: ClientId, leaving: Leaving, now_ns: u64) {
        let seat = self.ledger.seat(client);
        if std::mem::take(&mut seat.is_connected) {
            self.time_ns = self.time_ns.max(now_ns);
            self.write_and_apply(Kind::Disconnected, leaving as u8, client, 0, 0);
        }
    }

    /// A client's ring belongs to another user than the one that may have it.
    #[cold]
    pub(crate) fn turn_away(&mut self, client: ClientId, owner: u32, now_ns: u64) {
        self.disconnect(client, Leaving::Unreadable, now_ns);
        self.refuse(client, Refusal::WrongOwner, u64::from(owner));
    }

    /// Lets time pass: writes a record if the stream's newest is as old as `interval_ns`.
    #[inline]
    pub(crate) fn tick(&mut self, now_ns: u64, interval_ns: u64) -> bool {
        let due = now_ns.saturating_sub(self.written_ns) >= interval_ns;
        if due {
            self.time_ns = self.time_ns.max(now_ns);
            self.write_and_apply(Kind::Time, 0, ClientId::NONE, 0, 0);
        }
        due
    }

    /// Writes the hash of the application's state into the stream, for followers to compare.
    pub(crate) fn checkpoint(&mut self) {
        let mut image = std::mem::take(&mut self.image);
        image.clear();
        self.application.save(&mut image);
        self.write(Kind::Checkpoint, 0, ClientId::NONE, hash_of(&image));
        self.image = image;
    }

    fn write(&mut self, kind: Kind, code: u8, client: ClientId, reference: u64) {
        let record = self.blank(kind, code, client, reference);
        self.outbox.push(&record.stamp(), &[]);
        self.next_sequence += 1;
    }

    fn write_and_apply(
        &mut self,
        kind: Kind,
        code: u8,
        client: ClientId,
        reference: u64,
        sent_ns: u64,
    ) {
        let record = Record { sent_ns, ..self.blank(kind, code, client, reference) };
        self.outbox.push(&record.stamp(), &[]);
        self.next_sequence += 1;
        self.apply(&record);
        self.write_events();
    }

    /// The record that will be the next.
    fn blank(&mut self, kind: Kind, code: u8, client: ClientId, reference: u64) -> Record<'static> {
        self.written_ns = self.time_ns;
        Record {
            sequence: self.next_sequence,
            kind,
            code,
            client,
            term: self.term,
            reference,
            sent_ns: 0,
            time_ns: self.time_ns,
            payload: &[],
        }
    }

    /// Writes those events that do not stand in the stream yet.
    #[inline]
    fn write_events(&mut self) {
        let begun = self.confirmed;
        while let Some((client, payload)) = self.events.get(self.confirmed) {
            let event = Record {
                sequence: self.next_sequence,
                kind: Kind::Event,
                code: 0,
                client,
                term: self.term,
                reference: self.cause,
                sent_ns: 0,
                time_ns: self.time_ns,
                payload,
            };
            self.outbox.push(&event.stamp(), payload);
            self.next_sequence += 1;
            self.confirmed += 1;
        }
        if self.confirmed > begun {
            self.written_ns = self.time_ns;
        }
    }

    // ---- The whole state

    /// A hash of the application's state: CRC-64/NVME of what it saves.
    pub(crate) fn state_hash(&self) -> u64 {
        let mut image = Vec::new();
        self.application.save(&mut image);
        hash_of(&image)
    }

    /// Whether the state is that behind a whole record and its events.
    pub(crate) fn is_settled(&self) -> bool {
        self.confirmed == self.events.len() && self.outbox.is_empty()
    }

    /// Appends the state behind record `next_sequence - 1`.
    pub(crate) fn save(&self, out: &mut Vec<u8>) {
        debug_assert!(self.is_settled());
        let mut image = ImageWriter::new(out);
        image.u64(self.next_sequence);
        image.u32(self.term);
        image.u64(self.time_ns);
        self.ledger.save(out);
        self.application.save(out);
    }

    /// Begins behind what was saved.
    pub(crate) fn load(&mut self, saved: &[u8]) -> Result<(), LoadError> {
        let mut image = ImageReader::new(saved);
        let next_sequence = image.u64("the next sequence")?;
        let term = image.u32("the term")?;
        let time_ns = image.u64("the time")?;
        let ledger = Ledger::load(&mut image)?;
        self.application.load(image.rest())?;
        (self.next_sequence, self.term, self.time_ns) = (next_sequence, term, time_ns);
        self.written_ns = time_ns;
        (self.ledger, self.confirmed, self.cause) = (ledger, 0, 0);
        self.events.clear();
        Ok(())
    }
}

/// CRC-64/NVME.
fn hash_of(image: &[u8]) -> u64 {
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, image)
}
