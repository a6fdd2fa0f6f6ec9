//! Where the sockets of a run stand: on the loopback interface, or in two network namespaces that a
//! veth pair joins.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};

use super::meeting::{ask, tell};
use super::veth::{self, Veth};
use crate::scenario::Session;

/// What lies between the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// The loopback interface.
    Loopback,
    /// A veth pair; needs root.
    Veth,
}

/// Which side of the run this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Lead,
    Partner,
}

impl Path {
    /// Why there is no such path here; `None` if there is.
    pub(crate) fn obstacle(self) -> Option<String> {
        match self {
            Self::Loopback => None,
            Self::Veth => Veth::create().err().map(|error| format!("no veth pair: {error:#}")),
        }
    }
}

/// One side's end of a path. The lead's end keeps the path: both sides' sockets outlive it, but
/// nothing more can be opened when it is gone.
pub(crate) struct Ground {
    side: Side,
    address: IpAddr,
    /// The namespace to open sockets in, if not the process's own.
    namespace: Option<File>,
    /// Held for the partner, who opens it through this process.
    _veth: Option<Veth>,
}

/// What the lead tells of the partner's namespace.
const NAMESPACE: &str = "namespace";

impl Ground {
    /// Makes the path, if it has to be made, and takes this side's end of it.
    pub(crate) fn open(session: &Session<'_>, path: Path, side: Side) -> Result<Self> {
        let (address, namespace, veth) = match (path, side) {
            (Path::Loopback, _) => (Ipv4Addr::LOCALHOST, None, None),
            (Path::Veth, Side::Lead) => {
                let veth = Veth::create()?;
                tell(session.dir, NAMESPACE, &veth.far_path())?;
                (veth::NEAR, Some(veth.near()?), Some(veth))
            }
            (Path::Veth, Side::Partner) => {
                let path = ask(session, NAMESPACE)?;
                let namespace = File::open(&path).with_context(|| format!("open {path}"))?;
                (veth::FAR, Some(namespace), None)
            }
        };
        Ok(Self { side, address: address.into(), namespace, _veth: veth })
    }

    /// This side's address.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// What this side and the other are called.
    pub(crate) fn names(&self) -> (&'static str, &'static str) {
        match self.side {
            Side::Lead => ("lead", "partner"),
            Side::Partner => ("partner", "lead"),
        }
    }

    /// Calls `open` where this side's sockets belong. A socket stays where it was opened.
    pub(crate) fn inside<T>(&self, open: impl FnOnce() -> T) -> Result<T> {
        let Some(namespace) = &self.namespace else {
            return Ok(open());
        };
        let home = veth::current_namespace()?;
        setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
        let opened = open();
        setns(home, CloneFlags::CLONE_NEWNET).context("leave the network namespace")?;
        Ok(opened)
    }

    /// A non-blocking socket that is connected with the other side's. Both sides call this; it
    /// waits for the other.
    pub(crate) fn connect(&self, session: &Session<'_>) -> Result<UdpSocket> {
        let bound = self.inside(|| UdpSocket::bind((self.address, 0)))?;
        let socket = bound.with_context(|| format!("bind a socket to {}", self.address))?;
        let own = socket.local_addr().context("ask for the socket's address")?;
        let (mine, theirs) = self.names();
        tell(session.dir, mine, &own.to_string())?;
        let peer: SocketAddr = ask(session, theirs)?.parse().context("the other's address")?;
        socket.connect(peer).with_context(|| format!("connect to {peer}"))?;
        socket.set_nonblocking(true).context("make the socket non-blocking")?;
        Ok(socket)
    }
}
