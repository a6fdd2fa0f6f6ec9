//! AF_XDP: who may use it here, and what stands in its way on an interface.

use super::finding::Finding;
use super::host::{Host, Missing, Text};
use super::interface::{Interface, queue_counts};
use super::rights::{Capability, Rights};

/// The largest MTU with which a packet and its surroundings fit one page, bytes; drivers differ by
/// a few.
const MTU_MAX: u32 = 3498;

/// What was read.
pub(super) struct Xdp {
    rights: Rights,
    unprivileged: Text,
    jit: Text,
    /// The program that would be given the capabilities.
    program: String,
}

impl Xdp {
    pub(super) fn read(host: &Host, rights: &Rights) -> Self {
        let program = std::env::current_exe().map(|path| path.display().to_string());
        Self {
            rights: rights.clone(),
            unprivileged: host.read("/proc/sys/kernel/unprivileged_bpf_disabled"),
            jit: host.read("/proc/sys/net/core/bpf_jit_enable"),
            program: program.unwrap_or_else(|_| "gapless".into()),
        }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        vec![
            capabilities(&self.rights, &self.program),
            unprivileged(&self.unprivileged),
            jit(&self.jit),
        ]
    }
}

fn capabilities(rights: &Rights, program: &str) -> Finding {
    const CHECK: &str = "capabilities";
    if let Some(missing) = rights.missing() {
        return Finding::unknown(CHECK, missing);
    }
    // Loading a program takes a capability on the host, of which SYS_ADMIN is the older one; the
    // rest counts in the network namespace.
    let may_load = rights.has_on_host(Capability::Bpf) || rights.has_on_host(Capability::SysAdmin);
    let needed = [
        ("CAP_NET_RAW", rights.has(Capability::NetRaw)),
        ("CAP_NET_ADMIN", rights.has(Capability::NetAdmin)),
        ("CAP_BPF", may_load),
    ];
    let lacking = needed.iter().filter(|(_, has)| !has).map(|(name, _)| *name);
    let lacking: Vec<&str> = lacking.collect();
    if lacking.is_empty() {
        return Finding::ok(CHECK, needed.map(|(name, _)| name).join(", "));
    }
    let inside = if rights.is_on_host() { "" } else { " (in a user namespace)" };
    let found = format!("without {}{inside}", lacking.join(", "));
    let why = "AF_XDP is refused; sockets and io_uring need none";
    Finding::note(CHECK, found, why)
        .fix(format!("setcap cap_net_raw,cap_net_admin,cap_bpf,cap_ipc_lock+ep {program}"))
}

fn unprivileged(text: &Text) -> Finding {
    const CHECK: &str = "unprivileged_bpf_disabled";
    match text.as_deref() {
        Ok("0") => {
            let why = "no help to AF_XDP, which takes capabilities anyway, and a risk";
            Finding::note(CHECK, "0: anybody loads programs", why)
                .fix("sysctl -w kernel.unprivileged_bpf_disabled=2")
        }
        Ok(mode @ ("1" | "2")) => Finding::ok(CHECK, format!("{mode}: only with CAP_BPF")),
        Ok(other) => Finding::garbled(CHECK, other),
        Err(missing) => Finding::unknown(CHECK, missing),
    }
}

fn jit(text: &Text) -> Finding {
    const CHECK: &str = "bpf_jit_enable";
    match text.as_deref() {
        Ok("0") => Finding::warning(CHECK, "0", "the program is interpreted for every packet")
            .fix("sysctl -w net.core.bpf_jit_enable=1"),
        Ok("1") => Finding::ok(CHECK, "1"),
        Ok("2") => {
            Finding::note(CHECK, "2: for debugging", "programs are written to the kernel's log")
                .fix("sysctl -w net.core.bpf_jit_enable=1")
        }
        Ok(other) => Finding::garbled(CHECK, other),
        Err(Missing { absent: true, reason }) => {
            let reason = format!("{reason} (shown in the host's own network namespace)");
            Finding::unknown(CHECK, &Missing { absent: true, reason })
        }
        Err(missing) => Finding::unknown(CHECK, missing),
    }
}

/// What stands in the way of AF_XDP on an interface.
pub(super) fn check(interface: &Interface) -> Vec<Finding> {
    let mut findings = vec![program(interface)];
    findings.extend(room(interface));
    findings.extend(steering(interface));
    findings
}

fn program(interface: &Interface) -> Finding {
    const CHECK: &str = "XDP program";
    let name = &interface.name;
    let attached = match &interface.link {
        Ok(link) => &link.xdp,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let Some(attached) = attached else {
        return Finding::ok(CHECK, "none attached");
    };
    let programs: Vec<String> = attached.programs.iter().map(u32::to_string).collect();
    let found = format!("{} attached ({} mode)", programs.join(", "), attached.mode);
    let why = "it sees packets first, and is not displaced; ours while a stream is open";
    let first = programs.first().map_or("", String::as_str);
    Finding::note(CHECK, found, why)
        .fix(format!("bpftool prog show id {first}; ip link set dev {name} xdp off"))
}

/// Nothing to say where packets are small enough.
fn room(interface: &Interface) -> Option<Finding> {
    let link = interface.link.as_ref().ok()?;
    if link.mtu <= MTU_MAX || link.is_loopback() {
        return None;
    }
    let why = "most drivers take no XDP program while a packet may exceed a page";
    let finding = Finding::note("XDP packet size", format!("MTU {}", link.mtu), why);
    Some(finding.fix(format!("ip link set dev {} mtu 1500", interface.name)))
}

/// Nothing to say where all packets come in on one queue.
fn steering(interface: &Interface) -> Option<Finding> {
    let (receive, _) = queue_counts(interface.queues.as_ref().ok()?);
    if receive <= 1 {
        return None;
    }
    let why = "a socket gets the packets of its own queue only: one queue, or flows steered";
    let finding = Finding::note("XDP queues", format!("{receive} to receive"), why);
    Some(finding.fix(format!("ethtool -L {} combined 1", interface.name)))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::super::host::tests::{absent, forbidden, text};
    use super::super::interface::tests::{sample, up};
    use super::super::link::{Attached, Link};
    use super::*;

    fn rights(bits: u64, map: &str) -> Rights {
        Rights::of(&text(&format!("CapEff:\t{bits:016x}\n")), &text(map))
    }

    #[test]
    fn capabilities_are_those_of_the_host() {
        const ALL: u64 = 0x1ff_ffff_ffff;
        let host = "0 0 4294967295";
        assert_eq!(capabilities(&rights(ALL, host), "x").status, Status::Ok);
        let none = capabilities(&rights(0, host), "/bin/gapless");
        assert_eq!(none.found, "without CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF");
        assert!(none.fix.expect("a fix").ends_with("+ep /bin/gapless"));
        let old = 1 << 21 | 1 << 13 | 1 << 12; // SYS_ADMIN instead of BPF
        assert_eq!(capabilities(&rights(old, host), "x").status, Status::Ok);
        let inside = capabilities(&rights(ALL, "0 1000 1"), "x");
        assert_eq!(inside.found, "without CAP_BPF (in a user namespace)");
        assert_eq!(capabilities(&Rights::of(&absent(), &absent()), "x").status, Status::Unknown);
    }

    #[test]
    fn the_switches_of_bpf() {
        assert_eq!(unprivileged(&text("2")).status, Status::Ok);
        assert_eq!(unprivileged(&text("0")).status, Status::Note);
        assert_eq!(unprivileged(&text("x")).status, Status::Unknown);
        assert_eq!(unprivileged(&absent()).status, Status::Unknown);
        assert_eq!(jit(&text("1")).status, Status::Ok);
        assert_eq!(jit(&text("0")).status, Status::Warning);
        assert_eq!(jit(&text("2")).status, Status::Note);
        assert_eq!(jit(&text("")).status, Status::Unknown);
        assert_eq!(jit(&absent()).status, Status::Unknown);
        assert_eq!(jit(&forbidden()).status, Status::Unknown);
    }

    #[test]
    fn what_stands_in_the_way_on_an_interface() {
        let clear = check(&sample(Ok(up(1500)), &["rx-0", "tx-0"]));
        assert!(clear.iter().all(|finding| finding.status == Status::Ok), "{clear:?}");
        let xdp = Some(Attached { mode: "generic", programs: vec![17] });
        let link = Link { xdp, ..up(9000) };
        let found = check(&sample(Ok(link), &["rx-0", "rx-1", "tx-0"]));
        let texts: Vec<&str> = found.iter().map(|finding| finding.found.as_str()).collect();
        assert_eq!(texts, ["17 attached (generic mode)", "MTU 9000", "2 to receive"]);
        assert!(found.iter().all(|finding| finding.status == Status::Note));
        let unread = check(&sample(absent(), &[]));
        assert_eq!(unread.len(), 1);
        assert_eq!(unread[0].status, Status::Unknown);
    }
}
