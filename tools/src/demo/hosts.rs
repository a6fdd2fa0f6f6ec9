//! Two hosts on one machine: network namespaces joined by a veth pair where that may be made, or
//! else the loopback interface.
//!
//! The namespaces have no name: they live as long as a process holds a descriptor of them or is in
//! them, so nothing is left behind, however the demo ends. Nothing outside them is touched.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use nix::sched::{CloneFlags, setns, unshare};

const SENDER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const RECEIVER: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);
const SENDER_LINK: &str = "sender";
const RECEIVER_LINK: &str = "receiver";
/// The kernel takes milliseconds to find that both ends are up.
const UP_LIMIT: Duration = Duration::from_secs(5);

/// Where the processes of an act are.
pub(super) enum Hosts {
    /// Each in a network namespace of its own.
    Apart { sender: File, receiver: File },
    /// Both here.
    Together {
        /// Why.
        why: String,
    },
}

/// What one of them needs to know.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// Where to find its namespace.
    pub(super) namespace: Option<String>,
    pub(super) interface: &'static str,
    pub(super) address: Ipv4Addr,
}

impl Hosts {
    /// Two hosts if they can be made.
    pub(super) fn find() -> Self {
        // In a thread of its own, which takes its place in the new namespaces to its end.
        let thread = std::thread::Builder::new().name("hosts".into()).spawn(make);
        let made = thread.map_err(anyhow::Error::from).and_then(|thread| {
            thread.join().map_err(|_| anyhow!("the thread that makes them panicked"))?
        });
        match made {
            Ok((sender, receiver)) => Self::Apart { sender, receiver },
            Err(error) => Self::Together { why: format!("{error:#}") },
        }
    }

    /// In words.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Apart { .. } => "two network namespaces, joined by a veth pair".into(),
            Self::Together { why } => {
                format!("the loopback interface; two network namespaces could not be had: {why}")
            }
        }
    }

    /// Whether they are two.
    pub(super) fn are_apart(&self) -> bool {
        matches!(self, Self::Apart { .. })
    }

    /// The sending host.
    pub(super) fn sender(&self) -> Host {
        match self {
            Self::Apart { sender, .. } => Host::within(sender, SENDER_LINK, SENDER),
            Self::Together { .. } => Host::here(),
        }
    }

    /// The receiving host.
    pub(super) fn receiver(&self) -> Host {
        match self {
            Self::Apart { receiver, .. } => Host::within(receiver, RECEIVER_LINK, RECEIVER),
            Self::Together { .. } => Host::here(),
        }
    }

    /// Ports that nobody has at the moment.
    pub(super) fn ports<const N: usize>(&self) -> anyhow::Result<[u16; N]> {
        let mut ports: [u16; N] = std::array::from_fn(|index| 9000 + index as u16);
        if !self.are_apart() {
            let sockets = ports.map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
            for (port, socket) in ports.iter_mut().zip(sockets) {
                *port = socket?.local_addr()?.port();
            }
        }
        Ok(ports)
    }
}

impl Host {
    fn here() -> Self {
        Self { namespace: None, interface: "lo", address: Ipv4Addr::LOCALHOST }
    }

    fn within(namespace: &File, interface: &'static str, address: Ipv4Addr) -> Self {
        Self { namespace: Some(path(namespace)), interface, address }
    }
}

/// Goes into a namespace: the calling thread, and whatever it starts.
pub(super) fn enter(namespace: Option<&str>) -> anyhow::Result<()> {
    let Some(namespace) = namespace else { return Ok(()) };
    let file = File::open(namespace).context("open the network namespace")?;
    setns(file, CloneFlags::CLONE_NEWNET).context("enter the network namespace")
}

fn path(namespace: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

fn make() -> anyhow::Result<(File, File)> {
    let sender = fresh_namespace()?;
    let receiver = fresh_namespace()?;
    ip(&format!(
        "link add {RECEIVER_LINK} type veth peer name {SENDER_LINK} netns {there}\n\
         address add {RECEIVER}/30 dev {RECEIVER_LINK}\n\
         link set {RECEIVER_LINK} up\n",
        there = path(&sender),
    ))?;
    setns(&sender, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
    ip(&format!("address add {SENDER}/30 dev {SENDER_LINK}\nlink set {SENDER_LINK} up\n"))?;
    wait_until_up(SENDER_LINK)?;
    setns(&receiver, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
    wait_until_up(RECEIVER_LINK)?;
    Ok((sender, receiver))
}

fn fresh_namespace() -> anyhow::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace (root may)")?;
    File::open("/proc/thread-self/ns/net").context("open this thread's network namespace")
}

/// Runs `ip` on a batch of commands, in the thread's namespace.
fn ip(batch: &str) -> anyhow::Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("start `ip` (Debian: iproute2)")?;
    let mut stdin = child.stdin.take().context("`ip` has no input")?;
    stdin.write_all(batch.as_bytes()).context("write to `ip`")?;
    drop(stdin);
    let output = child.wait_with_output().context("wait for `ip`")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`ip` refused: {}", error.trim().replace('\n', "; "));
    Ok(())
}

fn wait_until_up(link: &str) -> anyhow::Result<()> {
    let from = Instant::now();
    while from.elapsed() < UP_LIMIT {
        let output = Command::new("ip").args(["-oneline", "link", "show", link]).output();
        let output = output.context("start `ip`")?;
        if String::from_utf8_lossy(&output.stdout).contains("state UP") {
            return Ok(());
        }
    }
    anyhow::bail!("link {link} is not up after {} s", UP_LIMIT.as_secs())
}
