//! Hosts on one bridge, each a network namespace: several machines on one switch.
//!
//! The namespaces have no name: they live as long as this process holds a descriptor of them, or
//! somebody has a socket in them, so nothing is left behind, however the test ends. Nothing outside
//! them is touched.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gapless::net::{Backend, Datagrams, Network, SocketOptions};
use nix::sched::{CloneFlags, setns, unshare};

/// Longest wait for anything that must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A switch and the hosts that are plugged in. Host `n` has the interface `eth0` with the addresses
/// 10.78.0.`n + 1` and fd78::`n + 1`.
pub(crate) struct Hosts {
    switch: File,
    hosts: Vec<File>,
}

impl Hosts {
    /// Makes them; `None`, and says why, without the right to (root has it) or the program `ip`.
    pub(crate) fn new(count: usize) -> Option<Self> {
        if Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_err() {
            eprintln!("skipped: there is no program `ip` (Debian: iproute2)");
            return None;
        }
        let made = std::thread::spawn(move || {
            let switch = fresh()?;
            ip("link add br0 type bridge mcast_snooping 0 stp_state 0 forward_delay 0\n\
                link set br0 up\n");
            let hosts = (0..count).map(|_| fresh()).collect::<nix::Result<_>>()?;
            Ok::<_, nix::Error>(Self { switch, hosts })
        });
        let hosts = match made.join().unwrap() {
            Ok(hosts) => hosts,
            Err(error) => {
                eprintln!("skipped: no network namespace can be made here: {error}");
                return None;
            }
        };
        for host in 0..count {
            hosts.plug_in(host);
        }
        Some(hosts)
    }

    /// Connects a host with the switch.
    pub(crate) fn plug_in(&self, host: usize) {
        let port = format!("port{host}");
        self.switch(&format!(
            "link add {port} type veth peer name eth0 netns {}\n\
             link set {port} master br0\n\
             link set {port} up\n",
            self.path(host)
        ));
        let number = host + 1;
        self.ip(
            host,
            &format!(
                "link set lo up\n\
                 address add 10.78.0.{number}/24 dev eth0\n\
                 address add fd78::{number}/64 dev eth0 nodad\n\
                 link set eth0 up\n"
            ),
        );
        let until = Instant::now() + PATIENCE;
        while !self.switch(&format!("link show {port}\n")).contains("state UP") {
            assert!(Instant::now() < until, "{port} does not come up");
        }
    }

    /// Runs `task` in a thread that is on this host. What it opens stays there.
    pub(crate) fn on<T: Send + 'static>(
        &self,
        host: usize,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        run_in(&self.hosts[host], task)
    }

    /// Where other processes find the host, as long as this one holds it.
    pub(crate) fn path(&self, host: usize) -> String {
        path(&self.hosts[host])
    }

    /// Runs commands of `ip` on a host.
    pub(crate) fn ip(&self, host: usize, batch: &str) -> String {
        let batch = batch.to_owned();
        self.on(host, move || ip(&batch)).join().unwrap()
    }

    /// Runs commands of `ip` on the switch.
    pub(crate) fn switch(&self, batch: &str) -> String {
        let batch = batch.to_owned();
        self.at_the_switch(move || ip(&batch))
    }

    /// Pulls a host's cable, or plugs it in.
    pub(crate) fn cable(&self, host: usize, up: bool) {
        self.switch(&format!("link set port{host} {}\n", if up { "up" } else { "down" }));
    }

    /// Runs `task` in a thread that is on the switch.
    pub(crate) fn at_the_switch<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        run_in(&self.switch, task).join().unwrap()
    }

    /// Whether a back end can be had on the hosts: why not, if not.
    pub(crate) fn can(&self, backend: &str) -> Result<(), String> {
        let backend = match backend {
            "uring" => Backend::Uring,
            "xdp" => Backend::Xdp,
            _ => return Ok(()),
        };
        let open = move || {
            let options = SocketOptions::new(SocketAddr::from(([10, 78, 0, 1], 0)));
            Network::open(backend)?.add(&options.interface("eth0"))
        };
        self.on(0, open).join().unwrap().map_err(|error| error.to_string()).map(drop)
    }
}

fn run_in<T: Send + 'static>(
    namespace: &File,
    task: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    let namespace = namespace.try_clone().unwrap();
    std::thread::spawn(move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET).unwrap();
        task()
    })
}

/// Takes this thread to the host at `path`.
pub(crate) fn enter(path: &str) {
    setns(File::open(path).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
}

fn path(namespace: &File) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

fn fresh() -> nix::Result<File> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    Ok(File::open("/proc/thread-self/ns/net").unwrap())
}

fn ip(batch: &str) -> String {
    command("ip", &["-batch", "-"], batch).unwrap()
}

/// Runs a program in the thread's namespace. The error is why it could not be run, or what it said.
pub(crate) fn command(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    // One that ends without reading has its reasons, and tells them.
    let _ = child.stdin.take().map(|mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
