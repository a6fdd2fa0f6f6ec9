//! NATS JetStream over loopback: messages published without waiting for each confirmation, and
//! read back by an ordered push consumer with flow control. Messages are kept in files.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::{BUFFER_BYTES, Broker, Client, PATIENCE, WINDOW, block, line, number};

const STREAM: &str = "S";
const SUBJECT: &str = "s.m";
/// Subscriptions: what confirms, and what answers requests.
const CONFIRMATIONS: &str = "ack";
const ANSWERS: &str = "answer";
const FLOW_STALLED: &str = "Nats-Consumer-Stalled:";

/// A server for one run.
pub(crate) struct Nats;

impl Broker for Nats {
    type Client = NatsClient;

    const PROGRAM: &'static str = "nats-server";

    fn arguments(&self, run: &Path, disk: &Path) -> Vec<String> {
        let (run, disk) = (run.display().to_string(), disk.display().to_string());
        let port = "-1"; // any that is free; told by a file
        let options =
            ["-a", "127.0.0.1", "-p", port, "--ports_file_dir", &run, "-js", "-sd", &disk];
        options.map(Into::into).to_vec()
    }

    fn connect(&self, run: &Path) -> Result<Option<NatsClient>> {
        let Some(address) = address(run) else {
            return Ok(None);
        };
        let stream = TcpStream::connect(address).context("connect to NATS")?;
        stream.set_read_timeout(Some(PATIENCE)).context("set a limit")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let reader = stream.try_clone().context("share the socket")?;
        let mut client = NatsClient {
            reader: BufReader::with_capacity(BUFFER_BYTES, reader),
            stream,
            batch: Vec::new(),
            words: Vec::new(),
            payload: Vec::new(),
            consumers: 0,
            sent: 0,
            confirmed: 0,
        };
        client.greet()?;
        Ok(Some(client))
    }
}

/// Where the server listens, once it has told.
fn address(run: &Path) -> Option<String> {
    let mut files = std::fs::read_dir(run).ok()?.flatten().map(|entry| entry.path());
    let ports = files.find(|path| path.extension().is_some_and(|it| it == "ports"))?;
    let told: Value = serde_json::from_str(&std::fs::read_to_string(ports).ok()?).ok()?;
    told["nats"][0].as_str()?.strip_prefix("nats://").map(Into::into)
}

/// What the server sends.
enum Incoming<'a> {
    Message {
        subscription: &'a str,
        payload: &'a [u8],
    },
    /// No message: where to answer to for more to come, if that is wanted.
    Status {
        answer_to: Option<String>,
    },
}

/// One connection.
pub(crate) struct NatsClient {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    /// The commands of a batch, the same for every batch.
    batch: Vec<u8>,
    words: Vec<u8>,
    payload: Vec<u8>,
    /// Consumers made so far, for their names.
    consumers: u32,
    sent: u64,
    confirmed: u64,
}

impl NatsClient {
    fn say(&mut self, text: &str) -> Result<()> {
        self.stream.write_all(text.as_bytes()).context("send to NATS")
    }

    fn greet(&mut self) -> Result<()> {
        let options = json!({"verbose": false, "pedantic": false, "headers": true});
        self.say(&format!("CONNECT {options}\r\n"))?;
        for subscription in [CONFIRMATIONS, ANSWERS] {
            self.say(&format!("SUB {subscription} {subscription}\r\n"))?;
        }
        let config = json!({"name": STREAM, "subjects": [SUBJECT], "storage": "file"});
        self.request(&format!("STREAM.CREATE.{STREAM}"), &config)
    }

    /// Asks JetStream for something, and takes everything up to the answer.
    fn request(&mut self, what: &str, body: &Value) -> Result<()> {
        let body = body.to_string();
        self.say(&format!("PUB $JS.API.{what} {ANSWERS} {}\r\n{body}\r\n", body.len()))?;
        loop {
            if let Incoming::Message { subscription: ANSWERS, payload } = self.next()? {
                let answer: Value = serde_json::from_slice(payload).context("NATS' answer")?;
                ensure!(answer["error"].is_null(), "NATS refuses: {}", answer["error"]);
                return Ok(());
            }
        }
    }

    /// The next message, of whatever subscription.
    fn next(&mut self) -> Result<Incoming<'_>> {
        loop {
            let words = line(&mut self.reader, &mut self.words)?;
            let words = str::from_utf8(words).context("NATS speaks no text")?;
            let mut words = words.split(' ');
            let verb = words.next().unwrap_or_default();
            match verb {
                "MSG" | "HMSG" => break,
                "PING" => self.stream.write_all(b"PONG\r\n").context("send to NATS")?,
                "-ERR" => bail!("NATS says: {}", words.collect::<Vec<_>>().join(" ")),
                _ => {}
            }
        }
        let words = self.words.strip_suffix(b"\r\n").unwrap_or_default();
        let words = str::from_utf8(words).context("NATS speaks no text")?;
        let words: Vec<&str> = words.split(' ').collect();
        let (&[verb, _, subscription], rest) =
            words.split_first_chunk().context("a message of NATS is cut")?;
        let bytes = number(rest.last().copied().unwrap_or_default().as_bytes())?;
        let body = block(&mut self.reader, bytes, &mut self.payload)?;
        if verb == "MSG" {
            return Ok(Incoming::Message { subscription, payload: body });
        }
        let asked = (rest.len() == 3).then(|| rest[0].to_owned());
        let text = String::from_utf8_lossy(body);
        let stalled = || Some(text.split_once(FLOW_STALLED)?.1.lines().next()?.trim().to_owned());
        Ok(Incoming::Status { answer_to: asked.or_else(stalled) })
    }

    fn confirm(&mut self, waiting: u64) -> Result<()> {
        while self.sent - self.confirmed > waiting {
            if let Incoming::Message { subscription: CONFIRMATIONS, payload } = self.next()? {
                let refused = payload.windows(7).any(|part| part == b"\"error\"");
                ensure!(!refused, "NATS refuses: {}", String::from_utf8_lossy(payload));
                self.confirmed += 1;
            }
        }
        Ok(())
    }
}

impl Client for NatsClient {
    fn append(&mut self, payload: &[u8], count: usize) -> Result<()> {
        if self.batch.is_empty() {
            for _ in 0..count {
                let head = format!("PUB {SUBJECT} {CONFIRMATIONS} {}\r\n", payload.len());
                self.batch.extend(head.bytes().chain(payload.iter().copied()).chain(*b"\r\n"));
            }
        }
        self.stream.write_all(&self.batch).context("send to NATS")?;
        self.sent += count as u64;
        self.confirm(WINDOW)
    }

    fn finish(&mut self) -> Result<()> {
        self.confirm(0)
    }

    fn confirmed(&self) -> u64 {
        self.confirmed
    }

    fn replay(&mut self, count: u64, mut handler: impl FnMut(&[u8])) -> Result<()> {
        self.consumers += 1;
        let to = format!("replay.{}", self.consumers);
        self.say(&format!("SUB {to} {to}\r\n"))?;
        let config = json!({
            "deliver_subject": to,
            "deliver_policy": "all",
            "ack_policy": "none",
            "replay_policy": "instant",
            "flow_control": true,
            "idle_heartbeat": 1_000_000_000,
        });
        let body = json!({"stream_name": STREAM, "config": config}).to_string();
        // Messages may come before the answer, which is taken like them and tells nothing more.
        let request = format!("$JS.API.CONSUMER.CREATE.{STREAM}");
        self.say(&format!("PUB {request} {ANSWERS} {}\r\n{body}\r\n", body.len()))?;
        let mut read = 0;
        while read < count {
            let answer = match self.next()? {
                Incoming::Message { subscription, payload } if subscription == to => {
                    handler(payload);
                    read += 1;
                    continue;
                }
                Incoming::Message { subscription: ANSWERS, payload } => {
                    let refused = payload.windows(7).any(|part| part == b"\"error\"");
                    ensure!(!refused, "NATS refuses: {}", String::from_utf8_lossy(payload));
                    continue;
                }
                Incoming::Message { .. } => continue,
                Incoming::Status { answer_to } => answer_to,
            };
            if let Some(answer) = answer {
                self.say(&format!("PUB {answer} 0\r\n\r\n"))?;
            }
        }
        self.say(&format!("UNSUB {to}\r\n"))
    }
}
