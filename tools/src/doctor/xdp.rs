//! AF_XDP: who may use it here. What an interface has for it is in [`device`](super::device).

use super::finding::Finding;
use super::host::{Host, Missing, Text};
use super::rights::{Capability, Rights};

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
    let all = needed.map(|(name, _)| name).join(", ");
    if lacking.is_empty() && rights.has_on_host(Capability::SysAdmin) {
        return Finding::ok(CHECK, format!("{all}, CAP_SYS_ADMIN"));
    }
    if lacking.is_empty() {
        let why = "an interface that another process has cannot be shared with it";
        return Finding::note(CHECK, format!("{all}, without CAP_SYS_ADMIN"), why).fix(format!(
            "setcap cap_net_raw,cap_net_admin,cap_bpf,cap_sys_admin,cap_ipc_lock+ep {program}"
        ));
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

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::super::host::tests::{absent, forbidden, text};
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
        let alone = capabilities(&rights(1 << 39 | 1 << 13 | 1 << 12, host), "x");
        assert_eq!(alone.status, Status::Note);
        assert!(alone.found.ends_with("without CAP_SYS_ADMIN"), "{alone:?}");
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
}
