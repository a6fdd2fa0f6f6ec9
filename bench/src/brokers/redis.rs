//! Redis Streams over a socket of this host: `XADD` in pipelines, `XRANGE` in pages. Messages are
//! kept in memory, and in an append-only file.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::{BUFFER_BYTES, Broker, Client, PATIENCE, WINDOW, block, line, number};

const SOCKET: &str = "redis.sock";
/// Messages in a page.
const PAGE: usize = 4096;

/// When the append-only file goes to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syncing {
    /// When the system sees fit.
    No,
    /// Once a second.
    EverySecond,
}

/// A server for one run.
pub(crate) struct Redis(pub(crate) Syncing);

impl Broker for Redis {
    type Client = RedisClient;

    const PROGRAM: &'static str = "redis-server";

    fn arguments(&self, run: &Path, disk: &Path) -> Vec<String> {
        let socket = run.join(SOCKET).display().to_string();
        let disk = disk.display().to_string();
        let sync = match self.0 {
            Syncing::No => "no",
            Syncing::EverySecond => "everysec",
        };
        let options = [
            ("--port", "0"),
            ("--unixsocket", &socket),
            ("--dir", &disk),
            ("--save", ""),
            ("--appendonly", "yes"),
            ("--appendfsync", sync),
            ("--auto-aof-rewrite-percentage", "0"),
            ("--daemonize", "no"),
        ];
        options.into_iter().flat_map(|(name, value)| [name.into(), value.into()]).collect()
    }

    fn connect(&self, run: &Path) -> Result<Option<RedisClient>> {
        let Ok(stream) = UnixStream::connect(run.join(SOCKET)) else {
            return Ok(None);
        };
        stream.set_read_timeout(Some(PATIENCE)).context("set a limit")?;
        let reader = stream.try_clone().context("share the socket")?;
        Ok(Some(RedisClient {
            reader: BufReader::with_capacity(BUFFER_BYTES, reader),
            stream,
            pipeline: Vec::new(),
            answer: Vec::new(),
            sent: 0,
            confirmed: 0,
        }))
    }
}

/// One connection.
pub(crate) struct RedisClient {
    stream: UnixStream,
    reader: BufReader<UnixStream>,
    /// Commands of a batch, the same for every batch.
    pipeline: Vec<u8>,
    answer: Vec<u8>,
    sent: u64,
    confirmed: u64,
}

/// A command as the protocol writes it.
fn command(parts: &[&[u8]], into: &mut Vec<u8>) {
    into.extend(format!("*{}\r\n", parts.len()).bytes());
    for part in parts {
        into.extend(format!("${}\r\n", part.len()).bytes());
        into.extend_from_slice(part);
        into.extend(b"\r\n");
    }
}

impl RedisClient {
    /// The number behind the mark of an answer's next element.
    fn header(&mut self, mark: u8) -> Result<usize> {
        let text = line(&mut self.reader, &mut self.answer)?;
        match text.split_first() {
            Some((&first, digits)) if first == mark => number(digits),
            _ => bail!("Redis says: {}", String::from_utf8_lossy(text)),
        }
    }

    fn bulk(&mut self) -> Result<&[u8]> {
        let bytes = self.header(b'$')?;
        block(&mut self.reader, bytes, &mut self.answer)
    }

    fn confirm(&mut self, waiting: u64) -> Result<()> {
        while self.sent - self.confirmed > waiting {
            self.bulk()?;
            self.confirmed += 1;
        }
        Ok(())
    }
}

impl Client for RedisClient {
    fn append(&mut self, payload: &[u8], count: usize) -> Result<()> {
        if self.pipeline.is_empty() {
            for _ in 0..count {
                command(&[b"XADD", b"s", b"*", b"m", payload], &mut self.pipeline);
            }
        }
        self.stream.write_all(&self.pipeline).context("send to Redis")?;
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
        let (mut from, mut read) = (b"-".to_vec(), 0);
        let page = PAGE.to_string();
        while read < count {
            let mut request = Vec::new();
            command(&[b"XRANGE", b"s", &from, b"+", b"COUNT", page.as_bytes()], &mut request);
            self.stream.write_all(&request).context("send to Redis")?;
            let entries = self.header(b'*')?;
            ensure!(entries > 0, "Redis has {read} messages of {count}");
            for _ in 0..entries {
                self.header(b'*')?;
                let id = self.bulk()?;
                from.clear();
                from.push(b'(');
                from.extend_from_slice(id);
                self.header(b'*')?;
                self.bulk()?;
                handler(self.bulk()?);
            }
            read += entries as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_as_the_protocol_wants_them() {
        let mut text = Vec::new();
        command(&[b"XADD", b"s", b"*", b"m", b"abc"], &mut text);
        assert_eq!(text, b"*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\nm\r\n$3\r\nabc\r\n");
    }
}
