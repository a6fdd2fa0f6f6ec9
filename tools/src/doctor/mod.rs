//! `gapless doctor`: what this host can do for low latency, and what would fix the rest.
//!
//! One file for each concern. Each reads first (`read`), and then judges what was read (`check`),
//! which is a pure function: it is tested on texts. What cannot be read is a finding too.

mod clock;
mod cores;
mod device;
mod finding;
mod groups;
mod host;
mod interface;
mod irq;
mod kernel;
mod limits;
mod link;
mod memory;
mod processor;
mod report;
mod rights;
mod sockets;
mod uring;
mod xdp;

use gapless::Address;
use gapless::net::NetError;

use crate::exit::Outcome;
use device::Device;
use finding::Finding;
use host::{Host, Missing, Reading};
use interface::Interface;
use link::Link;
use processor::Processor;
use rights::Rights;

/// Say what this host can do for low latency, and what would fix the rest
///
/// Reads only: nothing is changed, but with --probe. A note could be better, a warning costs
/// latency or will be refused; what cannot be read is unknown, with the reason. Each comes with
/// the command that fixes it, most of them for root.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  gapless doctor                             everything, and every interface that is up
  gapless doctor --interface eth1            that interface only
  gapless doctor --probe --interface eth1    whether AF_XDP works there, by trying
  gapless doctor --json | jq -r 'select(.status == \"warning\") | .fix'

What `sysctl -w`, `echo` and `ip` set lasts until the next boot: /etc/sysctl.d and the like keep it.
JSON is one line for each finding: section, interface, check, status (ok, note, warning, unknown),
found, why, fix. Ends with 0 whatever is found.")]
pub(crate) struct Args {
    /// Interface to look at, may be repeated [default: all that are up, without the loopback]
    #[arg(long, value_name = "NAME")]
    interface: Vec<String>,
    /// Open AF_XDP on the interfaces named, in each mode, and take it away again; a driver may
    /// reset its queues, and be without packets meanwhile
    #[arg(long, requires = "interface")]
    probe: bool,
    /// JSON, a line for each finding
    #[arg(long)]
    json: bool,
}

/// Findings about one concern.
struct Section {
    title: &'static str,
    interface: Option<String>,
    findings: Vec<Finding>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let links = link::all().map_err(|error| Missing::new("list of interfaces", &error));
    let device = |name: &str| Device::read(name, args.probe);
    let sections = examine(&Host::new("/"), &links, &args.interface, &device)?;
    if args.json {
        report::json(&sections)?
    } else {
        report::text(&sections)?
    }
    Ok(Outcome::Sound)
}

/// Everything about a host and these of its interfaces; all that are up if none is named.
fn examine(
    host: &Host,
    links: &Reading<Vec<Link>>,
    wanted: &[String],
    device: &dyn Fn(&str) -> Device,
) -> Result<Vec<Section>, NetError> {
    let names = chosen(host, links, wanted)?;
    let rights = Rights::read(host);
    let processor = Processor::read(host);
    let section = |title, findings| Section { title, interface: None, findings };
    let mut sections = vec![
        section("kernel", kernel::Kernel::read(host).check()),
        section("processor", processor.check()),
        section("clock", clock::Clock::read(host).check()),
        section("memory", memory::Memory::read(host).check()),
        section("limits", limits::Limits::read(host, &rights).check()),
        section("sockets", sockets::Sockets::read(host, &rights, buffers_wanted()).check()),
        section("io_uring", uring::Uring::read(host).check()),
        section("AF_XDP", xdp::Xdp::read(host, &rights).check()),
        section("interrupts", vec![irq::balancer(&irq::processes(host))]),
    ];
    for name in names {
        let device = device(&name);
        let link = links.clone().and_then(|links| {
            let reason = format!("the kernel does not list {name}");
            let found = links.into_iter().find(|link| link.name == name);
            found.ok_or(Missing { absent: true, reason })
        });
        let interface = Interface::read(host, &name, link, &processor);
        let mut findings = interface.check();
        findings.extend(device.check(&interface, &carried(&interface, links)));
        sections.push(Section { title: "interface", interface: Some(name), findings });
    }
    Ok(sections)
}

/// The VLANs on an interface.
fn carried<'a>(interface: &Interface, links: &'a Reading<Vec<Link>>) -> Vec<&'a str> {
    let (Ok(link), Ok(links)) = (&interface.link, links) else { return Vec::new() };
    let vlans = links.iter().filter(|other| other.is_vlan_on(link.index));
    vlans.map(|vlan| vlan.name.as_str()).collect()
}

/// Which interfaces to look at.
fn chosen(
    host: &Host,
    links: &Reading<Vec<Link>>,
    wanted: &[String],
) -> Result<Vec<String>, NetError> {
    let (all, default): (Vec<String>, Vec<String>) = match links {
        Ok(links) => {
            let busy = links.iter().filter(|link| link.is_up() && !link.is_loopback());
            let name = |link: &Link| link.name.clone();
            (links.iter().map(name).collect(), busy.map(name).collect())
        }
        // The kernel does not tell; its files may.
        Err(_) => {
            let mut names = host.names("/sys/class/net").unwrap_or_default();
            names.retain(|name| host::is_plain(name));
            let default = names.iter().filter(|name| *name != "lo").cloned().collect();
            (names, default)
        }
    };
    if let Some(bad) = wanted.iter().find(|name| !all.contains(name)) {
        return Err(NetError::InterfaceMissing { wanted: bad.clone(), available: all });
    }
    let mut names = if wanted.is_empty() { default } else { wanted.to_vec() };
    let mut seen = Vec::new();
    names.retain(|name| {
        let is_new = !seen.contains(name);
        seen.push(name.clone());
        is_new
    });
    Ok(names)
}

/// The buffers that an address asks for unless it says otherwise, bytes: to receive, and to send.
fn buffers_wanted() -> (u64, u64) {
    match "udp:127.0.0.1:9000".parse() {
        Ok(Address::Udp(udp)) => {
            (udp.receive_buffer_bytes() as u64, udp.send_buffer_bytes() as u64)
        }
        _ => unreachable!("a constant address, which the tests parse"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use device::tests::unread;
    use finding::Status;
    use host::tests::forbidden;

    fn link(index: u32, name: &str, flags: i32) -> Link {
        let (name, flags) = (name.to_owned(), flags as u32);
        Link { index, name, flags, mtu: 1500, ..Link::default() }
    }

    #[test]
    fn a_host_that_tells_nothing_is_unknown_and_no_failure() {
        let root = tempfile::tempdir().expect("a directory");
        let sections =
            examine(&Host::new(root.path()), &forbidden(), &[], &|_| unread()).expect("no failure");
        let titles: Vec<&str> = sections.iter().map(|section| section.title).collect();
        let expected = [
            "kernel",
            "processor",
            "clock",
            "memory",
            "limits",
            "sockets",
            "io_uring",
            "AF_XDP",
            "interrupts",
        ];
        assert_eq!(titles, expected);
        for section in sections.iter().filter(|section| section.title != "io_uring") {
            let judged =
                section.findings.iter().filter(|finding| finding.status == Status::Warning);
            assert_eq!(judged.count(), 0, "{}: {:?}", section.title, section.findings);
            assert!(!section.findings.is_empty(), "{}", section.title);
        }
    }

    #[test]
    fn interfaces_are_those_named_or_those_that_are_up() {
        let root = tempfile::tempdir().expect("a directory");
        let host = Host::new(root.path());
        let up = nix::libc::IFF_UP;
        let lo = link(1, "lo", up | nix::libc::IFF_LOOPBACK);
        let links = Ok(vec![lo, link(2, "ifb0", 0), link(4, "eth0", up)]);
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            chosen(&host, &links, &names)
        };
        assert_eq!(of(&[]).expect("listed"), ["eth0"]);
        assert_eq!(of(&["lo", "ifb0", "lo"]).expect("listed"), ["lo", "ifb0"]);
        let error = of(&["eth9"]).expect_err("it is not there").to_string();
        assert_eq!(error, "no interface eth9; there are: lo, ifb0, eth0");
        fs::create_dir_all(root.path().join("sys/class/net/eth7")).expect("made");
        assert_eq!(chosen(&host, &forbidden(), &[]).expect("listed"), ["eth7"]);
        assert!(chosen(&host, &forbidden(), &["../../x".into()]).is_err());
    }

    #[test]
    fn a_sample_host_is_read_where_the_kernel_has_it() {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in [
            ("proc/sys/kernel/osrelease", "6.1.0\n"),
            ("proc/sys/net/core/rmem_max", "212992\n"),
            ("sys/devices/system/cpu/online", "0-7\n"),
            ("sys/devices/system/cpu/isolated", "4-7\n"),
            ("sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", "powersave\n"),
            ("sys/class/net/eth0/ifindex", "4\n"),
            ("sys/class/net/eth0/queues/rx-0/x", ""),
            ("sys/class/net/eth0/device/msi_irqs/38", "msix\n"),
            ("proc/interrupts", " 38: 0 PCI-MSIX 1-edge virtio2-input.0\n"),
            ("proc/irq/38/smp_affinity_list", "0-7\n"),
            ("proc/1/comm", "irqbalance\n"),
        ] {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        let links = Ok(vec![link(4, "eth0", nix::libc::IFF_UP)]);
        let sections = examine(&Host::new(root.path()), &links, &[], &|_| unread()).expect("read");
        let find = |title: &str, check: &str| {
            let section = sections.iter().find(|section| section.title == title).expect(title);
            let finding = section.findings.iter().find(|finding| finding.check == check);
            let finding = finding.unwrap_or_else(|| panic!("no {check}: {:?}", section.findings));
            (finding.status, finding.found.clone())
        };
        assert_eq!(find("kernel", "release"), (Status::Ok, "6.1.0".into()));
        assert_eq!(find("sockets", "rmem_max").0, Status::Warning);
        assert_eq!(find("processor", "isolated cores"), (Status::Ok, "4-7 (4 cores)".into()));
        assert_eq!(find("processor", "frequency governor").1, "powersave");
        assert_eq!(find("interrupts", "irqbalance").0, Status::Note);
        assert_eq!(find("interface", "interrupts"), (Status::Warning, "1: 38 on 0-7".into()));
        assert_eq!(find("interface", "queues").1, "1 to receive, 0 to send");
    }

    #[test]
    fn the_buffers_are_those_of_an_address() {
        assert_eq!(buffers_wanted(), (4 << 20, 1 << 20));
    }
}
