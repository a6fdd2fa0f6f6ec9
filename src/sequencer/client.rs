//! A client of a sequencer: sends commands, sees them come back in the sequenced stream, and sends
//! again what did not.

use std::time::Duration;

use super::error::{ClientError, SubmitError};
use super::frame::{FRAME_HEAD_BYTES, Frame, FrameKind};
use super::record::{ClientId, Kind, Record};
use super::window::{Run, Window, notice};
use crate::clock::{Clock, UnixClock};
use crate::error::{Error, PollError};
use crate::publisher::Publisher;
use crate::subscriber::Subscriber;

/// Commands on their way at most.
const WINDOW: usize = 4096;
/// A hello that is not answered is repeated.
const HELLO_NS: u64 = 50_000_000;
/// Polls, at most, between two looks at what there is to do besides reading.
const BUSY_POLLS: u32 = 64;

/// One client of a sequencer: its own stream of commands, and the sequenced one.
///
/// A command has a number of the client's own. The sequencer takes each number once and in order,
/// so that sending again is harmless: what has not come back in the sequenced stream is sent again
/// when the sequencer asks for it, or when another one has taken over. A client that is started
/// again is told how far it had come.
///
/// See the [module](super) for an example.
pub struct Client {
    id: ClientId,
    publisher: Publisher,
    subscriber: Subscriber,
    window: Window,
    clock: UnixClock,
    run: Run,
    /// When the last hello was sent.
    hello_ns: u64,
    heartbeat_ns: u64,
    sent_ns: u64,
    silence_ns: u64,
    /// Whether a poll has found records since the clock was looked at.
    has_heard: bool,
    heard_ns: u64,
    is_silent: bool,
    /// Frames behind this number have to be sent again.
    resend: Option<u64>,
    resent: u64,
    /// Whether answers may have been missed, so that the sequencer has to be asked how far it is.
    is_unsure: bool,
    /// Polls since the last look at what else there is to do.
    busy_polls: u32,
}

impl Client {
    /// Opens the client's own stream at `commands`, the sequenced one at `sequenced`, and says
    /// hello. [`poll`](Self::poll) until [`is_ready`](Self::is_ready).
    ///
    /// # Errors
    /// As for [`Publisher::open`] and [`Subscriber::open`]; among others, if there is no sequenced
    /// stream yet.
    pub fn open(id: ClientId, commands: &str, sequenced: &str) -> Result<Self, Error> {
        // First the way back, so that the answer cannot be missed.
        let subscriber = Subscriber::open(sequenced)?;
        let publisher = Publisher::open(commands)?;
        let mut client = Self {
            id,
            publisher,
            subscriber,
            window: Window::new(WINDOW),
            clock: UnixClock::new(),
            run: Run { mark: std::process::id() as u16, ..Run::default() },
            hello_ns: 0,
            heartbeat_ns: 100_000_000,
            sent_ns: 0,
            silence_ns: 1_000_000_000,
            has_heard: true,
            heard_ns: 0,
            is_silent: false,
            resend: None,
            resent: 0,
            is_unsure: false,
            busy_polls: 0,
        };
        client.run.outdo(client.clock.now_ns());
        client.greet();
        Ok(client)
    }

    /// After so long without a command a heartbeat is sent; 100 ms by default. Each
    /// [`poll`](Self::poll) that finds nothing looks at the clock for it, and each 64th of others.
    pub fn set_heartbeat(&mut self, interval: Duration) {
        self.heartbeat_ns = interval.as_nanos() as u64;
    }

    /// If the sequenced stream says nothing for so long, not even the time, commands are refused
    /// rather than queued for whoever may come: a second by default. Noticed by polls that find
    /// nothing.
    pub fn set_silence(&mut self, limit: Duration) {
        self.silence_ns = limit.as_nanos() as u64;
    }

    /// Whether the sequenced stream has said nothing for too long.
    pub fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// Which client it is.
    pub fn id(&self) -> ClientId {
        self.id
    }

    /// Whether the sequencer has said how far this client had come, so that commands can be sent.
    pub fn is_ready(&self) -> bool {
        self.run.is_answered
    }

    /// The last number that was given to a command; 0 if none was.
    pub fn last_submitted(&self) -> u64 {
        self.window.last()
    }

    /// How many commands have not come back yet.
    pub fn unconfirmed(&self) -> usize {
        self.window.len()
    }

    /// How many commands were sent again.
    pub fn resent(&self) -> u64 {
        self.resent
    }

    /// The sequenced stream's subscription.
    pub fn subscriber(&mut self) -> &mut Subscriber {
        &mut self.subscriber
    }

    /// Sends a command and returns its number: the client's own, which its record's `reference`
    /// says. Never blocks.
    ///
    /// # Errors
    /// [`SubmitError`]: nothing was sent. If it [`is_backpressure`](SubmitError::is_backpressure),
    /// poll and try again.
    #[inline]
    pub fn submit(&mut self, command: &[u8]) -> Result<u64, SubmitError> {
        if !self.run.is_answered {
            return Err(SubmitError::NotReady);
        }
        if self.is_silent {
            return Err(SubmitError::Silent { limit: Duration::from_nanos(self.silence_ns) });
        }
        if self.window.is_full() {
            return Err(SubmitError::WindowFull { window: WINDOW });
        }
        if self.resend.is_some() {
            self.send_again()?; // in order
        }
        let sequence = self.window.last() + 1;
        let now_ns = self.clock.now_ns();
        self.send(FrameKind::Command, sequence, now_ns, command)?;
        self.window.push(command, now_ns);
        Ok(sequence)
    }

    /// Hands up to `limit` records of the sequenced stream to `handler`, those of all clients, and
    /// returns how many. Sends heartbeats, and again what has to be.
    ///
    /// # Errors
    /// [`ClientError::Poll`]: as for [`Subscriber::poll`]. What was lost may have been answers to
    /// this client, so that it asks the sequencer how far it is, and sends again what is missing
    /// there; if the stream is another one, which knows less than has come back, what had not come
    /// back is dropped. [`ClientError::Record`] if a message is no record: the next poll goes on
    /// behind it, likewise. [`ClientError::Superseded`] if another run of this client has begun:
    /// this one is shut out. [`ClientError::Wire`]: what the network refused.
    #[inline]
    pub fn poll(
        &mut self,
        limit: usize,
        mut handler: impl FnMut(&Record<'_>),
    ) -> Result<usize, ClientError> {
        let Self { subscriber, window, resend, run, id, is_unsure, .. } = self;
        let mut odd = None;
        let polled = subscriber.poll_while(limit, |message| {
            if odd.is_some() {
                return false;
            }
            match Record::read(message.sequence, message.payload) {
                Ok(record) => {
                    if record.client == *id || record.kind == Kind::Term {
                        if *is_unsure && run.is_answered_by(&record) {
                            window.settle(record.reference);
                            (*is_unsure, *resend) = (false, Some(0));
                        }
                        notice(&record, window, resend, run);
                    }
                    handler(&record);
                }
                Err(error) => odd = Some(error),
            }
            true
        });
        let handled = polled.map_err(|error| self.interrupted(error))?;
        if let Some(odd) = odd {
            self.is_unsure = true;
            return Err(odd.into());
        }
        if self.run.is_superseded {
            return Err(ClientError::Superseded);
        }
        if handled > 0 {
            (self.has_heard, self.is_silent) = (true, false);
        }
        self.busy_polls += 1;
        if handled == 0 || self.busy_polls >= BUSY_POLLS || self.resend.is_some() {
            self.idle()?;
        }
        Ok(handled)
    }

    /// Answers may be among what was lost.
    #[cold]
    fn interrupted(&mut self, error: PollError) -> ClientError {
        use PollError::{Lapped, Lost, NewSession};
        self.is_unsure |= matches!(error, Lapped { .. } | Lost { .. } | NewSession { .. });
        error.into()
    }

    /// What there is to do besides reading.
    fn idle(&mut self) -> Result<(), ClientError> {
        self.busy_polls = 0;
        self.publisher.poll()?;
        if self.resend.is_some() {
            // If there is no room, the next poll tries again.
            let _ = self.send_again();
        }
        let now_ns = self.clock.now_ns();
        if std::mem::take(&mut self.has_heard) {
            self.heard_ns = now_ns;
        }
        self.is_silent = now_ns.saturating_sub(self.heard_ns) > self.silence_ns;
        if !self.run.is_answered || self.is_unsure {
            if now_ns.saturating_sub(self.hello_ns) >= HELLO_NS {
                self.greet();
            }
        } else if now_ns.saturating_sub(self.sent_ns) >= self.heartbeat_ns {
            let _ = self.send(FrameKind::Heartbeat, self.window.last(), now_ns, &[]);
            self.sent_ns = now_ns;
        }
        Ok(())
    }

    /// Says good-bye: the sequencer takes note that this client is gone. Commands that are on their
    /// way are sequenced all the same.
    ///
    /// # Errors
    /// [`SubmitError::Publish`] if the stream has no room; the client's end is noticed all the
    /// same, by its lease.
    pub fn close(mut self) -> Result<(), SubmitError> {
        let now_ns = self.clock.now_ns();
        Ok(self.send(FrameKind::Goodbye, self.window.last(), now_ns, &[]).map(|_| ())?)
    }

    /// Says hello, each time as the same run: the answer to any of them will do, however long it
    /// takes.
    fn greet(&mut self) {
        let now_ns = self.clock.now_ns();
        self.hello_ns = now_ns;
        // If there is no room, it is repeated later.
        let _ = self.send(FrameKind::Hello, self.window.last(), now_ns, &[]);
    }

    #[inline]
    fn send(
        &mut self,
        kind: FrameKind,
        sequence: u64,
        sent_ns: u64,
        payload: &[u8],
    ) -> Result<u64, gapless_shm::PublishError> {
        let run = self.run.number;
        let frame = Frame { kind, client: self.id, run, sequence, sent_ns, payload };
        let mut claim = self.publisher.claim(FRAME_HEAD_BYTES + payload.len())?;
        if let Some((head, body)) = claim.split_first_chunk_mut() {
            *head = frame.head();
            body.copy_from_slice(payload);
        }
        self.sent_ns = sent_ns;
        Ok(claim.commit())
    }

    /// Sends again what has not come back, from where it was asked for.
    #[cold]
    fn send_again(&mut self) -> Result<(), SubmitError> {
        while let Some(from) = self.resend {
            let from = from.max(self.window.first());
            if from > self.window.last() {
                self.resend = None;
                break;
            }
            let (mut command, sent_ns) = self.window.take(from);
            let sent = self.send(FrameKind::Command, from, sent_ns, &command);
            self.window.put_back(from, std::mem::take(&mut command));
            sent?;
            self.resent += 1;
            self.resend = Some(from + 1);
        }
        Ok(())
    }
}
