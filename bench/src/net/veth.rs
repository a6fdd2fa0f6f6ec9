//! Two network namespaces, joined by a veth pair: two hosts on one machine.
//!
//! The namespaces have no name: they live as long as somebody holds a descriptor of them or a
//! socket in them, so nothing is left behind, however the program ends. Nothing outside them is
//! touched.

use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};

/// Addresses of the lead's and of the partner's end.
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// Their interfaces.
pub(crate) const NEAR_LINK: &CStr = c"near";
pub(crate) const FAR_LINK: &CStr = c"far";
/// The kernel takes milliseconds to find that both ends are up.
const UP_LIMIT: Duration = Duration::from_secs(5);

/// The pair; both ends are up.
pub(crate) struct Veth {
    near: File,
    far: File,
}

/// The network namespace of the calling thread.
pub(crate) fn current_namespace() -> Result<File> {
    File::open("/proc/thread-self/ns/net").context("open this thread's network namespace")
}

/// Calls `work` in `namespace`. A socket stays where it was opened.
pub(crate) fn inside<T>(namespace: &File, work: impl FnOnce() -> T) -> Result<T> {
    let home = current_namespace()?;
    setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
    let done = work();
    setns(home, CloneFlags::CLONE_NEWNET).context("leave the network namespace")?;
    Ok(done)
}

impl Veth {
    /// Makes the namespaces and the pair, which takes no super-datagrams if it is to be `cut`: the
    /// kernel cuts them before.
    ///
    /// # Errors
    /// Without the right to (root has it), or without the program `ip`.
    pub(crate) fn create(cut: bool) -> Result<Self> {
        // In a thread of its own, which takes its place in the new namespaces to its end.
        let thread = std::thread::Builder::new().name("veth".into());
        let thread = thread.spawn(move || Self::create_here(cut));
        let thread = thread.context("start a thread")?;
        thread.join().map_err(|_| anyhow!("the thread that makes the veth pair panicked"))?
    }

    fn create_here(cut: bool) -> Result<Self> {
        let near = fresh_namespace()?;
        let far = fresh_namespace()?;
        let pair = Self { near, far };
        let [near_link, far_link] = [NEAR_LINK, FAR_LINK].map(CStr::to_string_lossy);
        ip(&format!(
            "link add {far_link} type veth peer name {near_link} netns {}\n",
            path(&pair.near),
        ))?;
        let up = |link: &str, address: Ipv4Addr| {
            let cut = if cut { format!("link set {link} gso_max_segs 1\n") } else { String::new() };
            ip(&format!("{cut}address add {address}/30 dev {link}\nlink set {link} up\n"))
        };
        up(&far_link, FAR)?;
        pair.enter(&pair.near)?;
        up(&near_link, NEAR)?;
        wait_until_up(&near_link)?;
        pair.enter(&pair.far)?;
        wait_until_up(&far_link)?;
        Ok(pair)
    }

    fn enter(&self, namespace: &File) -> Result<()> {
        setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace")
    }

    /// The lead's namespace.
    pub(crate) fn near(&self) -> Result<File> {
        self.near.try_clone().context("duplicate a namespace's descriptor")
    }

    /// The partner's namespace.
    pub(crate) fn far(&self) -> Result<File> {
        self.far.try_clone().context("duplicate a namespace's descriptor")
    }

    /// Where other processes find the partner's namespace, as long as this pair is held.
    pub(crate) fn far_path(&self) -> String {
        path(&self.far)
    }
}

fn path(namespace: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

fn fresh_namespace() -> Result<File> {
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace (root may)")?;
    current_namespace()
}

/// Runs `ip` on a batch of commands, in the thread's namespace.
fn ip(batch: &str) -> Result<()> {
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

fn wait_until_up(link: &str) -> Result<()> {
    let from = Instant::now();
    while from.elapsed() < UP_LIMIT {
        let output = Command::new("ip").args(["-oneline", "link", "show", link]).output();
        let output = output.context("start `ip`")?;
        if String::from_utf8_lossy(&output.stdout).contains("state UP") {
            return Ok(());
        }
    }
    bail!("link {link} is not up after {} s", UP_LIMIT.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    /// A socket in `namespace`; a socket stays where it was made.
    fn socket(namespace: &File, address: Ipv4Addr) -> UdpSocket {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                UdpSocket::bind((address, 0)).unwrap()
            });
            thread.join().unwrap()
        })
    }

    #[test]
    fn a_datagram_crosses_the_pair_or_the_reason_is_told() {
        let home = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        match Veth::create(false) {
            Ok(pair) => {
                let near = socket(&pair.near, NEAR);
                let far = socket(&File::open(pair.far_path()).unwrap(), FAR);
                near.send_to(b"across", far.local_addr().unwrap()).unwrap();
                let mut buffer = [0; 16];
                far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let (bytes, from) = far.recv_from(&mut buffer).unwrap();
                assert_eq!((&buffer[..bytes], from), (&b"across"[..], near.local_addr().unwrap()));
            }
            Err(error) => {
                let error = format!("{error:#}");
                let known = ["network namespace", "`ip`", "refused"];
                assert!(known.iter().any(|known| error.contains(known)), "{error}");
            }
        }
        assert_eq!(std::fs::read_link("/proc/thread-self/ns/net").unwrap(), home);
    }
}
