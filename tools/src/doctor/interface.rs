//! A network interface: its driver, what fits through it, and which cores serve it.

use super::cores;
use super::finding::Finding;
use super::groups;
use super::host::{Host, Missing, Reading, Text};
use super::irq::{self, Irq};
use super::link::Link;
use super::processor::Processor;

/// The MTU that a datagram of the default size needs: 1,472 bytes and the headers of IPv4 and UDP.
const MTU_WANTED: u32 = 1500;

/// What was read.
pub(super) struct Interface {
    pub(super) name: String,
    /// As the kernel lists it.
    pub(super) link: Reading<Link>,
    driver: Text,
    /// The names of its queues: `rx-0`, `tx-0`.
    pub(super) queues: Reading<Vec<String>>,
    node: Text,
    near: Text,
    irqs: Reading<Vec<Irq>>,
    igmp: Text,
    igmp6: Text,
    isolated: Vec<u32>,
    housekeeping: Vec<u32>,
}

impl Interface {
    pub(super) fn read(
        host: &Host,
        name: &str,
        link: Reading<Link>,
        processor: &Processor,
    ) -> Self {
        let folder = format!("/sys/class/net/{name}");
        let own = own_sysfs(&host.read(&format!("{folder}/ifindex")), &link);
        let read = |path: &str| own.clone().and_then(|()| host.read(&format!("{folder}/{path}")));
        Self {
            driver: own.clone().and_then(|()| host.link(&format!("{folder}/device/driver"))),
            queues: own.clone().and_then(|()| host.names(&format!("{folder}/queues"))),
            node: read("device/numa_node"),
            near: read("device/local_cpulist"),
            irqs: own.clone().and_then(|()| irq::of_interface(host, name)),
            igmp: host.read("/proc/self/net/igmp"),
            igmp6: host.read("/proc/self/net/igmp6"),
            isolated: processor.isolated_cores(),
            housekeeping: processor.housekeeping_cores(),
            name: name.to_owned(),
            link,
        }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        let mut findings = vec![
            state(&self.name, &self.link),
            driver(&self.driver, &self.link),
            mtu(&self.name, &self.link),
            queues(&self.queues),
        ];
        findings.extend(node(&self.node, &self.near, &self.isolated));
        findings.push(irq::placement(&self.irqs, &self.isolated, &self.housekeeping));
        findings.push(groups::joined(&self.igmp, &self.igmp6, &self.name));
        findings
    }
}

/// Whether `/sys` shows this interface, and not one of that name in another network namespace.
fn own_sysfs(index: &Text, link: &Reading<Link>) -> Reading<()> {
    let other = || {
        let reason = "/sys shows another network namespace: mount it again in this one".into();
        Missing { absent: false, reason }
    };
    match (index, link) {
        (Ok(index), Ok(link)) if *index != link.index.to_string() => Err(other()),
        (Err(missing), Ok(_)) if missing.absent => Err(other()),
        (Err(missing), _) => Err(missing.clone()),
        (Ok(_), _) => Ok(()),
    }
}

fn state(name: &str, link: &Reading<Link>) -> Finding {
    const CHECK: &str = "state";
    match link {
        Err(missing) => Finding::unknown(CHECK, missing),
        Ok(link) if !link.is_up() => {
            Finding::warning(CHECK, "down", "nothing comes and goes through it")
                .fix(format!("ip link set dev {name} up"))
        }
        Ok(link) if !link.has_carrier() => {
            let why = "nothing comes and goes through it";
            Finding::warning(CHECK, "up, without carrier", why)
                .fix("look at the cable, or at the other end of the pair")
        }
        Ok(_) => Finding::ok(CHECK, "up"),
    }
}

fn driver(driver: &Text, link: &Reading<Link>) -> Finding {
    const CHECK: &str = "driver";
    let kind = link.as_ref().ok().and_then(|link| link.kind.as_deref());
    let is_loopback = link.as_ref().is_ok_and(Link::is_loopback);
    match (driver, kind) {
        (Ok(driver), _) => Finding::ok(CHECK, driver),
        (Err(_), Some(kind)) => Finding::ok(CHECK, format!("{kind} (virtual)")),
        (Err(_), None) if is_loopback => Finding::ok(CHECK, "loopback"),
        (Err(missing), None) if missing.absent && link.is_ok() => {
            Finding::ok(CHECK, "none (virtual)")
        }
        (Err(missing), None) => Finding::unknown(CHECK, missing),
    }
}

fn mtu(name: &str, link: &Reading<Link>) -> Finding {
    const CHECK: &str = "MTU";
    match link {
        Err(missing) => Finding::unknown(CHECK, missing),
        Ok(link) if link.mtu >= MTU_WANTED => Finding::ok(CHECK, link.mtu.to_string()),
        Ok(link) => {
            let why = "datagrams of the default size, 1,472 bytes, do not fit";
            let payload = link.mtu.saturating_sub(28);
            Finding::warning(CHECK, link.mtu.to_string(), why).fix(format!(
                "ip link set dev {name} mtu {MTU_WANTED}, or datagram={payload} in addresses"
            ))
        }
    }
}

/// How many queues there are to receive, and to send.
pub(super) fn queue_counts(names: &[String]) -> (usize, usize) {
    let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
    (count("rx-"), count("tx-"))
}

fn queues(queues: &Reading<Vec<String>>) -> Finding {
    const CHECK: &str = "queues";
    match queues {
        Err(missing) => Finding::unknown(CHECK, missing),
        Ok(names) => {
            let (receive, send) = queue_counts(names);
            Finding::ok(CHECK, format!("{receive} to receive, {send} to send"))
        }
    }
}

/// Where the device is; nothing if it is nowhere in particular.
fn node(node: &Text, near: &Text, isolated: &[u32]) -> Option<Finding> {
    const CHECK: &str = "NUMA node";
    let node = node.as_ref().ok().filter(|node| *node != "-1")?;
    let near = near.as_ref().ok()?;
    let Some(cores) = cores::parse(near) else {
        return Some(Finding::garbled(CHECK, near));
    };
    let found = format!("{node}, near cores {near}");
    if isolated.is_empty() || isolated.iter().any(|core| cores.contains(core)) {
        return Some(Finding::ok(CHECK, found));
    }
    let why = "every packet crosses to the node of the isolated cores";
    let fix = format!("isolate some of the cores {near} instead");
    Some(Finding::note(CHECK, found, why).fix(fix))
}

#[cfg(test)]
pub(super) mod tests {
    use nix::libc;

    use super::super::finding::Status;
    use super::super::host::tests::{absent, forbidden, text};
    use super::*;

    /// An interface that is up, of which nothing else is known.
    pub(in super::super) fn sample(link: Reading<Link>, queues: &[&str]) -> Interface {
        Interface {
            name: "eth0".into(),
            link,
            driver: absent(),
            queues: Ok(queues.iter().map(|queue| (*queue).to_owned()).collect()),
            node: absent(),
            near: absent(),
            irqs: absent(),
            igmp: absent(),
            igmp6: absent(),
            isolated: vec![],
            housekeeping: vec![],
        }
    }

    pub(in super::super) fn up(mtu: u32) -> Link {
        let flags = (libc::IFF_UP | libc::IFF_LOWER_UP) as u32;
        Link { index: 4, name: "eth0".into(), flags, mtu, ..Link::default() }
    }

    #[test]
    fn a_link_is_up_and_takes_a_datagram() {
        assert_eq!(state("eth0", &Ok(up(1500))).status, Status::Ok);
        let down = state("eth0", &Ok(Link { flags: 0, ..up(1500) }));
        assert_eq!(down.fix.as_deref(), Some("ip link set dev eth0 up"));
        let bare = state("eth0", &Ok(Link { flags: libc::IFF_UP as u32, ..up(1500) }));
        assert_eq!(bare.found, "up, without carrier");
        assert_eq!(mtu("eth0", &Ok(up(1500))).status, Status::Ok);
        let small = mtu("eth0", &Ok(up(1400)));
        assert_eq!(small.status, Status::Warning);
        assert!(small.fix.expect("a fix").ends_with("or datagram=1372 in addresses"));
        assert!(mtu("eth0", &Ok(up(3))).fix.expect("a fix").contains("datagram=0"));
        assert_eq!(mtu("eth0", &forbidden()).status, Status::Unknown);
        assert_eq!(state("eth0", &forbidden()).status, Status::Unknown);
    }

    #[test]
    fn the_driver_is_the_devices_or_the_kind() {
        let veth = Ok(Link { kind: Some("veth".into()), ..up(1500) });
        assert_eq!(driver(&text("ixgbe"), &Ok(up(1500))).found, "ixgbe");
        assert_eq!(driver(&absent(), &veth).found, "veth (virtual)");
        assert_eq!(driver(&absent(), &Ok(up(1500))).found, "none (virtual)");
        assert_eq!(driver(&forbidden(), &Ok(up(1500))).status, Status::Unknown);
        assert_eq!(driver(&absent(), &absent()).status, Status::Unknown);
        let lo = Ok(Link { flags: libc::IFF_LOOPBACK as u32, ..up(65536) });
        assert_eq!(driver(&absent(), &lo).found, "loopback");
    }

    #[test]
    fn another_namespaces_files_are_not_taken_for_ours() {
        assert_eq!(own_sysfs(&text("4"), &Ok(up(1500))), Ok(()));
        assert_eq!(own_sysfs(&text("4"), &absent()), Ok(()));
        let other = own_sysfs(&text("2"), &Ok(up(1500))).expect_err("another one");
        assert!(other.reason.contains("another network namespace"));
        let other = own_sysfs(&absent(), &Ok(up(1500))).expect_err("not there");
        assert!(other.reason.contains("another network namespace"));
        assert_eq!(own_sysfs(&forbidden(), &Ok(up(1500))), forbidden());
        assert_eq!(own_sysfs(&absent(), &absent()), absent());
    }

    #[test]
    fn queues_and_nodes() {
        let names = ["rx-0", "rx-1", "tx-0"].map(str::to_owned).to_vec();
        assert_eq!(queues(&Ok(names)).found, "2 to receive, 1 to send");
        assert_eq!(queues(&absent()).status, Status::Unknown);
        assert_eq!(node(&absent(), &absent(), &[]), None);
        assert_eq!(node(&text("-1"), &text("0-3"), &[]), None);
        let of = |isolated: &[u32]| node(&text("1"), &text("4-7"), isolated).expect("known");
        assert_eq!(of(&[]).found, "1, near cores 4-7");
        assert_eq!(of(&[3, 4]).status, Status::Ok);
        assert_eq!(of(&[2, 3]).status, Status::Note);
        assert_eq!(node(&text("1"), &text("x"), &[]).expect("known").status, Status::Unknown);
    }

    #[test]
    fn an_interface_that_cannot_be_read_has_findings_all_the_same() {
        let findings = sample(absent(), &[]).check();
        assert_eq!(findings.len(), 6);
        let unknown = findings.iter().filter(|finding| finding.status == Status::Unknown);
        assert_eq!(unknown.count(), 5, "{findings:?}");
    }
}
