//! Addresses of the streams of a run.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use gapless::net::{Direction, Faults, Faulty, Network, SocketSet};
use gapless::{Address, UdpAddress};

use crate::net::{Mode, xdp_obstacle};

/// Which back end both sides use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    /// Plain sockets.
    Socket,
    /// io_uring.
    Uring,
    /// AF_XDP.
    Xdp(Mode),
}

impl Backend {
    /// Its name in cases.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Uring => "uring",
            Self::Xdp(_) => "xdp",
        }
    }

    /// What chooses it in addresses.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Socket => "backend=socket",
            Self::Uring => "backend=uring",
            Self::Xdp(Mode::Generic) => "backend=xdp&xdp=generic",
            Self::Xdp(Mode::Driver) => "backend=xdp&xdp=driver",
        }
    }

    /// The case that is the floor of its round trips.
    pub(crate) fn floor(self) -> String {
        format!("floor/{}/rtt", self.name())
    }

    /// Why there is no such back end here; `None` if there is.
    pub(crate) fn obstacle(self) -> Option<String> {
        let here = || match self {
            Self::Xdp(mode) => xdp_obstacle(mode),
            Self::Socket | Self::Uring => None,
        };
        here().or_else(|| Network::open(self.choice()).err().map(|error| error.to_string()))
    }

    /// A network that loses nothing yet.
    pub(crate) fn faulty(self, seed: u64) -> Result<Faulty<Network>> {
        Ok(Faulty::new(Network::open(self.choice())?, seed))
    }

    fn choice(self) -> gapless::net::Backend {
        match self {
            Self::Socket => gapless::net::Backend::Socket,
            Self::Uring => gapless::net::Backend::Uring,
            Self::Xdp(_) => gapless::net::Backend::Xdp,
        }
    }
}

/// To whom a stream goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// To the receiver's own address.
    Unicast,
    /// To a group on the loopback interface.
    Multicast,
}

/// The group of every multicast stream; ports tell them apart.
const GROUP: &str = "239.255.77.1";

/// The address of a stream to `ip` or to the group, at a port that nobody has at the moment, with
/// `options` behind it. Its ring lies in the run's directory.
pub(crate) fn fresh(form: Form, ip: IpAddr, dir: &Path, options: &str) -> Result<String> {
    let probe = UdpSocket::bind((ip, 0)).with_context(|| format!("bind a socket to {ip}"))?;
    let port = probe.local_addr().context("ask for the socket's address")?.port();
    let dir = dir.display();
    Ok(match form {
        Form::Unicast => format!("udp:{ip}:{port}?dir={dir}&{options}"),
        Form::Multicast => format!("udp:{GROUP}:{port}?iface={ip}&dir={dir}&{options}"),
    })
}

/// The parsed address of datagrams.
pub(crate) fn parsed(text: &str) -> Result<UdpAddress> {
    match text.parse()? {
        Address::Udp(address) => Ok(*address),
        _ => bail!("{text} is no address of datagrams"),
    }
}

/// From here on, a share of what comes in on any socket is lost.
pub(crate) fn lose(network: &mut Faulty<Network>, loss: f64) {
    network.set(Direction::Receive, SocketSet::all(), Faults { loss, ..Faults::default() });
}

/// Longest time that two ends take to find each other.
const MEETING: Duration = Duration::from_secs(10);

/// Repeats `step` until it says that it is done.
pub(crate) fn until(what: &str, mut step: impl FnMut() -> Result<bool>) -> Result<()> {
    let from = Instant::now();
    while !step()? {
        ensure!(from.elapsed() < MEETING, "{what}: not after {} s", MEETING.as_secs());
        std::thread::yield_now();
    }
    Ok(())
}
