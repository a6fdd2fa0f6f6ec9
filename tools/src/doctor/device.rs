//! AF_XDP on an interface: which modes it has, what stands in their way, and, if asked to, whether
//! they can be had indeed.
//!
//! Asking changes nothing. Trying attaches a program, and takes it away again.

use std::net::{Ipv4Addr, SocketAddr};

use gapless::net::{
    Datagrams, Interface as Wanted, NetError, SocketOptions, XdpMode, XdpNetwork, XdpSupport,
};

use super::finding::Finding;
use super::host::{Missing, Reading};
use super::interface::Interface;

/// The largest MTU with which a packet and its surroundings fit one page, bytes; drivers differ by
/// a few.
const MTU_MAX: u32 = 3498;
/// The same of a veth, both ends.
const MTU_MAX_VETH: u32 = 3506;

/// What was read.
pub(super) struct Device {
    support: Reading<XdpSupport>,
    /// What came of trying; `None` if nothing was tried.
    tried: Option<Vec<Tried>>,
}

/// A mode, and what was had, or why it was not.
struct Tried {
    mode: XdpMode,
    result: Result<String, String>,
}

impl Device {
    /// Asks about an interface, and tries each mode if `probe` says so.
    pub(super) fn read(name: &str, probe: bool) -> Self {
        let support = XdpSupport::of(&Wanted::Name(name.to_owned()));
        let support = support.map_err(|error| Missing { absent: false, reason: error.to_string() });
        // A program of ours that is there already is shared in the mode that it has.
        let shared = support.as_ref().is_ok_and(|had| had.is_program_ours() == Some(true));
        let modes: &[XdpMode] = if shared {
            &[XdpMode::Auto]
        } else {
            &[XdpMode::Generic, XdpMode::Driver, XdpMode::ZeroCopy]
        };
        let attempt = |&mode: &XdpMode| Tried { mode, result: attempt(name, mode) };
        Self { support, tried: probe.then(|| modes.iter().map(attempt).collect()) }
    }

    /// About the interface of that name; `vlans` are those that it carries.
    pub(super) fn check(&self, interface: &Interface, vlans: &[&str]) -> Vec<Finding> {
        let mut findings = vec![program(interface, self.support.as_ref().ok())];
        match &self.support {
            Err(missing) => findings.push(Finding::unknown(MODES, missing)),
            Ok(support) => {
                findings.push(modes(support, &interface.name));
                findings.extend(room(support, interface));
                findings.push(queues(support));
                findings.extend(tags(support, vlans));
            }
        }
        match &self.tried {
            Some(tried) => findings.extend(tried.iter().map(probed)),
            None => findings.push(Finding::ok(
                "XDP probe",
                "not done, nothing was attached: --probe does (a driver may reset its queues)",
            )),
        }
        findings
    }
}

const MODES: &str = "XDP modes";

/// Opens AF_XDP on an interface and gives it back: what was had.
fn attempt(name: &str, mode: XdpMode) -> Result<String, String> {
    let said = |error| match error {
        NetError::Unavailable { reason, .. } => reason,
        other => other.to_string(),
    };
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let options = SocketOptions::new(any).interface(Wanted::Name(name.to_owned())).xdp_mode(mode);
    let mut network = XdpNetwork::new().map_err(said)?;
    network.add(&options).map_err(said)?;
    let had = network.notes().iter().find_map(|note| note.strip_prefix("AF_XDP on "));
    Ok(had.unwrap_or(name).to_owned())
}

fn probed(tried: &Tried) -> Finding {
    let check = match tried.mode {
        XdpMode::Generic => "probe generic",
        XdpMode::Driver => "probe driver",
        XdpMode::ZeroCopy => "probe zerocopy",
        _ => "probe shared",
    };
    match &tried.result {
        Ok(had) => Finding::ok(check, format!("works: {had}")),
        Err(reason) => {
            let why = "AF_XDP cannot be had so; backend=auto takes the next best";
            Finding::note(check, reason.as_str(), why)
        }
    }
}

fn modes(support: &XdpSupport, name: &str) -> Finding {
    let word = |mode: &XdpMode| match mode {
        XdpMode::ZeroCopy => "zero-copy",
        XdpMode::Driver => "driver",
        _ => "generic",
    };
    let words: Vec<&str> = support.modes().iter().map(word).collect();
    let mut found = format!("{} is chosen", words.join(", else "));
    if support.interface != name {
        found = format!("of {}, which carries it: {found}", support.interface);
    }
    match (support.driver, support.zero_copy) {
        (None, _) => found += "; its driver is not known (Linux 6.3 and later tell)",
        (Some(false), _) => found += "; its driver has no XDP, or not with these settings",
        (Some(true), Some(false)) => found += "; no zero-copy",
        (Some(true), _) => {}
    }
    if support.driver == Some(false) && !support.is_virtual {
        let why = "the kernel makes a packet of its own first, and copies it";
        return Finding::note(MODES, found, why)
            .fix("lower the MTU or the number of queues if the driver's manual says so");
    }
    Finding::ok(MODES, found)
}

fn program(interface: &Interface, support: Option<&XdpSupport>) -> Finding {
    const CHECK: &str = "XDP program";
    let attached = match &interface.link {
        Ok(link) => &link.xdp,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let Some(attached) = attached else {
        return Finding::ok(CHECK, "none attached");
    };
    let programs: Vec<String> = attached.programs.iter().map(u32::to_string).collect();
    let found = format!("{} attached ({} mode)", programs.join(", "), attached.mode);
    let first = programs.first().map_or("", String::as_str);
    // Of the interface itself, and not of one below it.
    let support = support.filter(|had| had.program.is_some_and(|id| id.to_string() == first));
    let named =
        support.and_then(|had| Some((had.program_name.as_deref()?, had.is_program_ours()?)));
    match named {
        Some((name, true)) => Finding::ok(CHECK, format!("{found}: {name}, which is ours")),
        Some((name, false)) => {
            let why = "not ours: it sees packets first and is not displaced, so AF_XDP is refused";
            Finding::note(CHECK, format!("{found}: {name:?}"), why)
                .fix(format!("ip link set dev {} xdp off", interface.name))
        }
        None => {
            let why = "it is not displaced; ours while a stream is open (its name takes root)";
            Finding::note(CHECK, found, why).fix(format!("bpftool prog show id {first}"))
        }
    }
}

/// Nothing to say where packets are small enough.
fn room(support: &XdpSupport, interface: &Interface) -> Option<Finding> {
    let link = interface.link.as_ref().ok();
    let is_veth = link.is_some_and(|link| link.kind.as_deref() == Some("veth"));
    let most = if is_veth { MTU_MAX_VETH } else { MTU_MAX };
    let is_loopback = link.is_some_and(|link| link.is_loopback());
    if support.mtu <= most || is_loopback || support.driver == Some(false) {
        return None;
    }
    let found = format!("MTU {}, of at most {most} in driver mode", support.mtu);
    let why = "most drivers take no XDP program while a packet may exceed a page";
    let finding = Finding::note("XDP packet size", found, why);
    Some(finding.fix(format!("ip link set dev {} mtu 1500", support.interface)))
}

fn queues(support: &XdpSupport) -> Finding {
    const CHECK: &str = "XDP queues";
    let (count, most) = (support.receive_queues, XdpSupport::QUEUES_MAX);
    if count <= 1 {
        return Finding::ok(CHECK, "1 to receive");
    }
    let name = &support.interface;
    let fewer = if support.is_virtual { "rx 1" } else { "combined 1" };
    let fix = format!(
        "ethtool -L {name} {fewer}, or ethtool -N {name} flow-type udp4 dst-port PORT action 0"
    );
    if count > most {
        let found = format!("{count} to receive, of which {most} are taken");
        let why = "what comes in by the others goes through the kernel";
        return Finding::warning(CHECK, found, why).fix(fix);
    }
    let why = "each takes memory of its own and is polled in turn";
    Finding::note(CHECK, format!("{count} to receive"), why).fix(fix)
}

/// Nothing to say where there are no VLANs.
fn tags(support: &XdpSupport, vlans: &[&str]) -> Option<Finding> {
    if vlans.is_empty() {
        return None;
    }
    let found = format!("carries {}", vlans.join(", "));
    let why = "a driver that strips tags shows their packets without: they are not found by theirs";
    let fix = format!("ethtool -K {} rxvlan off", support.interface);
    Some(Finding::note("XDP and VLANs", found, why).fix(fix))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::finding::Status;
    use super::super::host::tests::{absent, forbidden};
    use super::super::interface::tests::{sample, up};
    use super::super::link::{Attached, Link};
    use super::*;

    /// An interface that nothing is known of.
    pub(in super::super) fn unread() -> Device {
        Device { support: forbidden(), tried: None }
    }

    /// A card with one queue whose driver has all, or what `change` makes of it.
    fn card(change: impl FnOnce(&mut XdpSupport)) -> XdpSupport {
        let mut support = XdpSupport::default();
        support.interface = "eth0".into();
        (support.driver, support.zero_copy) = (Some(true), Some(true));
        (support.receive_queues, support.mtu) = (1, 1500);
        change(&mut support);
        support
    }

    fn veth(mtu: u32) -> Interface {
        sample(Ok(Link { kind: Some("veth".into()), ..up(mtu) }), &[])
    }

    #[test]
    fn the_modes_are_told_in_the_order_of_choice() {
        let of = |driver, zero_copy, is_virtual| {
            let support = card(|card| {
                (card.driver, card.zero_copy, card.is_virtual) = (driver, zero_copy, is_virtual);
            });
            let Finding { found, status, .. } = modes(&support, "eth0");
            (found, status)
        };
        let (found, status) = of(Some(true), Some(true), false);
        assert_eq!(found, "zero-copy, else driver, else generic is chosen");
        assert_eq!(status, Status::Ok);
        let (found, status) = of(Some(true), Some(false), true);
        assert_eq!(found, "generic, else driver is chosen; no zero-copy");
        assert_eq!(status, Status::Ok);
        let (found, status) = of(Some(false), Some(false), false);
        assert!(found.starts_with("generic is chosen; its driver has no XDP"), "{found}");
        assert_eq!(status, Status::Note);
        assert_eq!(of(Some(false), Some(false), true).1, Status::Ok);
        let (found, _) = of(None, None, false);
        assert!(found.contains("is not known"), "{found}");
        let tagged = modes(&card(|_| ()), "eth0.7").found;
        assert!(tagged.starts_with("of eth0, which carries it: zero-copy"), "{tagged}");
    }

    #[test]
    fn driver_mode_takes_packets_of_a_page() {
        let of = |mtu, interface: &Interface| room(&card(|card| card.mtu = mtu), interface);
        let eth0 = sample(Ok(up(1500)), &[]);
        assert_eq!(of(3498, &eth0), None);
        let found = of(3499, &eth0).expect("it is too large");
        assert_eq!(found.found, "MTU 3499, of at most 3498 in driver mode");
        assert_eq!(found.fix.as_deref(), Some("ip link set dev eth0 mtu 1500"));
        assert_eq!(of(3506, &veth(3506)), None);
        assert_eq!(of(9000, &veth(9000)).expect("it is too large").status, Status::Note);
        let generic = card(|card| (card.mtu, card.driver) = (9000, Some(false)));
        assert_eq!(room(&generic, &eth0), None, "there is no driver mode to lose");
    }

    #[test]
    fn many_queues_are_made_fewer() {
        let of = |count| queues(&card(|card| card.receive_queues = count));
        assert_eq!(of(1).status, Status::Ok);
        let few = of(4);
        assert_eq!((few.status, few.found.as_str()), (Status::Note, "4 to receive"));
        assert!(few.fix.expect("a fix").starts_with("ethtool -L eth0 combined 1, or ethtool -N"));
        let many = of(XdpSupport::QUEUES_MAX + 1);
        assert_eq!(many.status, Status::Warning);
        assert_eq!(many.found, "17 to receive, of which 16 are taken");
    }

    #[test]
    fn vlans_need_their_tags() {
        assert_eq!(tags(&card(|_| ()), &[]), None);
        let found = tags(&card(|_| ()), &["eth0.7", "blue"]).expect("there are some");
        assert_eq!(found.found, "carries eth0.7, blue");
        assert_eq!(found.fix.as_deref(), Some("ethtool -K eth0 rxvlan off"));
    }

    #[test]
    fn a_program_is_ours_or_somebody_elses() {
        let xdp = Some(Attached { mode: "generic", programs: vec![17] });
        let interface = sample(Ok(Link { xdp, ..up(1500) }), &[]);
        let of = |id, name: Option<&str>| {
            let support = card(|card| {
                (card.program, card.program_name) = (id, name.map(str::to_owned));
            });
            program(&interface, Some(&support))
        };
        let ours = of(Some(17), Some("gapless1_skb"));
        assert_eq!(ours.found, "17 attached (generic mode): gapless1_skb, which is ours");
        assert_eq!(ours.status, Status::Ok);
        let other = of(Some(17), Some("xdp_pass"));
        assert_eq!(other.found, "17 attached (generic mode): \"xdp_pass\"");
        assert_eq!(other.fix.as_deref(), Some("ip link set dev eth0 xdp off"));
        for nameless in [of(Some(17), None), of(Some(18), Some("x")), program(&interface, None)] {
            assert_eq!(nameless.fix.as_deref(), Some("bpftool prog show id 17"));
        }
        assert_eq!(program(&sample(Ok(up(1500)), &[]), None).found, "none attached");
    }

    #[test]
    fn what_was_tried_is_told_mode_by_mode() {
        let tried = vec![
            Tried { mode: XdpMode::Generic, result: Ok("eth0 (generic mode, 1 queue)".into()) },
            Tried { mode: XdpMode::ZeroCopy, result: Err("its driver cannot".into()) },
        ];
        let device = Device { support: Ok(card(|_| ())), tried: Some(tried) };
        let found = device.check(&sample(Ok(up(1500)), &[]), &[]);
        let of = |check| found.iter().find(|finding| finding.check == check).expect(check);
        assert_eq!(of("probe generic").found, "works: eth0 (generic mode, 1 queue)");
        assert_eq!(of("probe zerocopy").found, "its driver cannot");
        assert_eq!(of("probe zerocopy").status, Status::Note);
        assert!(!found.iter().any(|finding| finding.check == "XDP probe"));
    }

    #[test]
    fn without_trying_nothing_was_attached_and_that_is_told() {
        let device = Device { support: Ok(card(|_| ())), tried: None };
        let clear = device.check(&sample(Ok(up(1500)), &[]), &[]);
        assert!(clear.iter().all(|finding| finding.status == Status::Ok), "{clear:?}");
        let probe = clear.last().expect("some");
        assert!(probe.check == "XDP probe" && probe.found.contains("nothing was attached"));
        let found = unread().check(&sample(absent(), &[]), &[]);
        let states: Vec<Status> = found.iter().map(|finding| finding.status).collect();
        assert_eq!(states, [Status::Unknown, Status::Unknown, Status::Ok]);
    }
}
