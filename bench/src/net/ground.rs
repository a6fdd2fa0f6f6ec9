//! Where the sockets of a run stand: on the loopback interface, or in two network namespaces that a
//! veth pair joins.

use std::ffi::CStr;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::OnceLock;

use anyhow::{Context, Result};

use super::meeting::{ask, tell};
use super::veth::{self, Veth};
use crate::scenario::{Outcome, Scenario, Session};

/// What lies between the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Path {
    /// The loopback interface.
    Loopback,
    /// A veth pair; needs root.
    Veth,
    /// A veth pair that super-datagrams do not cross whole: they are cut before it, as before a
    /// wire.
    CutVeth,
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
        static VETH: OnceLock<Option<String>> = OnceLock::new();
        static CUT_VETH: OnceLock<Option<String>> = OnceLock::new();
        let found = match self {
            Self::Loopback => return None,
            Self::Veth => &VETH,
            Self::CutVeth => &CUT_VETH,
        };
        let create = || Veth::create(self == Self::CutVeth);
        let tried = || create().err().map(|error| format!("no veth pair: {error:#}"));
        found.get_or_init(tried).clone()
    }

    /// The address of a side's end.
    pub(crate) fn address(self, side: Side) -> IpAddr {
        let address = match (self, side) {
            (Self::Loopback, _) => Ipv4Addr::LOCALHOST,
            (Self::Veth | Self::CutVeth, Side::Lead) => veth::NEAR,
            (Self::Veth | Self::CutVeth, Side::Partner) => veth::FAR,
        };
        address.into()
    }
}

/// One side's end of a path. The lead's end keeps the path: both sides' sockets outlive it, but
/// nothing more can be opened when it is gone.
pub(crate) struct Ground {
    path: Path,
    side: Side,
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
        let (namespace, veth) = match (path, side) {
            (Path::Loopback, _) => (None, None),
            (Path::Veth | Path::CutVeth, Side::Lead) => {
                let veth = Veth::create(path == Path::CutVeth)?;
                tell(session.dir, NAMESPACE, &veth.far_path())?;
                (Some(veth.near()?), Some(veth))
            }
            (Path::Veth | Path::CutVeth, Side::Partner) => {
                let path = ask(session, NAMESPACE)?;
                let namespace = File::open(&path).with_context(|| format!("open {path}"))?;
                (Some(namespace), None)
            }
        };
        Ok(Self { path, side, namespace, _veth: veth })
    }

    /// This side's address.
    pub(crate) fn address(&self) -> IpAddr {
        self.path.address(self.side)
    }

    /// The interface at this side's end, if it has one of its own.
    pub(crate) fn interface(&self) -> Option<&'static CStr> {
        match (self.path, self.side) {
            (Path::Loopback, _) => None,
            (Path::Veth | Path::CutVeth, Side::Lead) => Some(veth::NEAR_LINK),
            (Path::Veth | Path::CutVeth, Side::Partner) => Some(veth::FAR_LINK),
        }
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
        match &self.namespace {
            None => Ok(open()),
            Some(namespace) => veth::inside(namespace, open),
        }
    }

    /// A non-blocking socket that is connected with the other side's. Both sides call this; it
    /// waits for the other.
    pub(crate) fn connect(&self, session: &Session<'_>) -> Result<UdpSocket> {
        let bound = self.inside(|| UdpSocket::bind((self.address(), 0)))?;
        let socket = bound.with_context(|| format!("bind a socket to {}", self.address()))?;
        let own = socket.local_addr().context("ask for the socket's address")?;
        let (mine, theirs) = self.names();
        tell(session.dir, mine, &own.to_string())?;
        let peer: SocketAddr = ask(session, theirs)?.parse().context("the other's address")?;
        socket.connect(peer).with_context(|| format!("connect to {peer}"))?;
        socket.set_nonblocking(true).context("make the socket non-blocking")?;
        Ok(socket)
    }
}

/// A scenario that takes place on a path from its beginning to its end, both of its sides: what it
/// opens, and whoever it starts, is in the right namespace.
pub(crate) struct Across<S> {
    pub(crate) path: Path,
    pub(crate) scenario: S,
}

impl<S: Scenario> Scenario for Across<S> {
    fn obstacle(&self) -> Option<String> {
        self.scenario.obstacle().or_else(|| self.path.obstacle())
    }

    fn lead(&self, session: &Session<'_>) -> Result<Outcome> {
        let ground = Ground::open(session, self.path, Side::Lead)?;
        ground.inside(|| self.scenario.lead(session))?
    }

    fn follow(&self, session: &Session<'_>) -> Result<()> {
        let ground = Ground::open(session, self.path, Side::Partner)?;
        ground.inside(|| self.scenario.follow(session))?
    }
}
