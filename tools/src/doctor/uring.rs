//! io_uring: whether it may be used, and what it can do here.

use gapless::net::{Backend, Network};
use io_uring::{IoUring, Probe, opcode};

use super::finding::Finding;
use super::host::{Host, Missing, Reading, Text};

/// What a ring said about itself.
#[derive(Clone, Debug, Default)]
struct Abilities {
    features: Vec<&'static str>,
    /// Of the operations that we use or would like to.
    operations: Vec<&'static str>,
    lacking: Vec<&'static str>,
}

/// What was read.
pub(super) struct Uring {
    disabled: Text,
    abilities: Reading<Abilities>,
    /// Whether our own back end opens, or why not.
    backend: Result<(), String>,
}

impl Uring {
    pub(super) fn read(host: &Host) -> Self {
        let opened = Network::open(Backend::Uring);
        Self {
            disabled: host.read("/proc/sys/kernel/io_uring_disabled"),
            abilities: abilities().map_err(|error| Missing::new("a ring", &error)),
            backend: opened.map(drop).map_err(|error| error.to_string()),
        }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        let mut findings = vec![switch(&self.disabled), backend(&self.backend)];
        findings.extend(list(&self.abilities));
        findings
    }
}

fn abilities() -> std::io::Result<Abilities> {
    let ring = IoUring::new(8)?;
    let features = ring.params();
    let features = [
        ("NODROP", features.is_feature_nodrop()),
        ("FAST_POLL", features.is_feature_fast_poll()),
        ("EXT_ARG", features.is_feature_ext_arg()),
        ("NATIVE_WORKERS", features.is_feature_native_workers()),
        ("RSRC_TAGS", features.is_feature_resource_tagging()),
        ("CQE_SKIP", features.is_feature_skip_cqe_on_success()),
        ("LINKED_FILE", features.is_feature_linked_file()),
        ("RECVSEND_BUNDLE", features.is_feature_recvsend_bundle()),
        ("MIN_TIMEOUT", features.is_feature_min_timeout()),
    ];
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let operations = [
        ("SEND", opcode::Send::CODE),
        ("RECV", opcode::Recv::CODE),
        ("SENDMSG", opcode::SendMsg::CODE),
        ("RECVMSG", opcode::RecvMsg::CODE),
        ("SEND_ZC", opcode::SendZc::CODE),
        ("SENDMSG_ZC", opcode::SendMsgZc::CODE),
        ("RECV_ZC", opcode::RecvZc::CODE),
        ("PROVIDE_BUFFERS", opcode::ProvideBuffers::CODE),
    ];
    let names = |wanted: bool| {
        let supported = operations.iter().filter(|(_, code)| probe.is_supported(*code) == wanted);
        supported.map(|(name, _)| *name).collect()
    };
    let features = features.iter().filter(|(_, has)| *has).map(|(name, _)| *name);
    Ok(Abilities { features: features.collect(), operations: names(true), lacking: names(false) })
}

fn switch(disabled: &Text) -> Finding {
    const CHECK: &str = "io_uring_disabled";
    let fix = "sysctl -w kernel.io_uring_disabled=0";
    match disabled.as_deref() {
        Ok("0") => Finding::ok(CHECK, "0: for everybody"),
        Ok("1") => {
            let why = "backend=uring falls back to sockets for users not in io_uring_group";
            Finding::note(CHECK, "1: for privileged users", why).fix(fix)
        }
        Ok("2") => {
            let why = "backend=uring falls back to plain sockets";
            Finding::warning(CHECK, "2: for nobody", why).fix(fix)
        }
        Ok(other) => Finding::garbled(CHECK, other),
        Err(Missing { absent: true, .. }) => Finding::ok(CHECK, "no such switch in this kernel"),
        Err(missing) => Finding::unknown(CHECK, missing),
    }
}

fn backend(opened: &Result<(), String>) -> Finding {
    const CHECK: &str = "backend=uring";
    match opened {
        Ok(()) => Finding::ok(CHECK, "works"),
        Err(reason) => {
            let why = "plain sockets are used instead: a system call for each socket and poll";
            Finding::warning(CHECK, reason, why).fix(
                "sysctl -w kernel.io_uring_disabled=0, and allow io_uring in the seccomp profile",
            )
        }
    }
}

fn list(abilities: &Reading<Abilities>) -> Vec<Finding> {
    const FEATURES: &str = "features";
    const OPERATIONS: &str = "operations";
    let found = match abilities {
        Ok(found) => found,
        Err(missing) => {
            return [FEATURES, OPERATIONS].map(|check| Finding::unknown(check, missing)).into();
        }
    };
    let features = Finding::ok(FEATURES, found.features.join(" "));
    let needed = ["SEND", "RECV", "SENDMSG", "RECVMSG"];
    let text = found.operations.join(" ");
    let operations = if found.lacking.is_empty() {
        Finding::ok(OPERATIONS, text)
    } else {
        let text = format!("{text}; not: {}", found.lacking.join(" "));
        let fix = "install a kernel of 6.1 or newer";
        if found.lacking.iter().any(|name| needed.contains(name)) {
            Finding::warning(OPERATIONS, text, "backend=uring cannot work without them").fix(fix)
        } else {
            Finding::ok(OPERATIONS, text)
        }
    };
    vec![features, operations]
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::super::host::tests::{absent, forbidden, text};
    use super::*;

    #[test]
    fn the_switch_has_three_positions() {
        assert_eq!(switch(&text("0")).status, Status::Ok);
        assert_eq!(switch(&text("1")).status, Status::Note);
        assert_eq!(switch(&text("2")).status, Status::Warning);
        assert_eq!(switch(&text("3")).status, Status::Unknown);
        assert_eq!(switch(&absent()).status, Status::Ok);
        assert_eq!(switch(&forbidden()).status, Status::Unknown);
    }

    #[test]
    fn what_a_ring_can_do_is_listed() {
        let all = Abilities {
            features: vec!["NODROP", "FAST_POLL"],
            operations: vec!["SEND", "RECV"],
            lacking: vec!["RECV_ZC"],
        };
        let findings = list(&Ok(all.clone()));
        assert_eq!(findings[0].found, "NODROP FAST_POLL");
        assert_eq!(findings[1].found, "SEND RECV; not: RECV_ZC");
        assert_eq!(findings[1].status, Status::Ok);
        let old = Abilities { lacking: vec!["RECVMSG"], ..all };
        assert_eq!(list(&Ok(old))[1].status, Status::Warning);
        let none = list(&absent());
        assert!(none.iter().all(|finding| finding.status == Status::Unknown));
        assert_eq!(backend(&Ok(())).status, Status::Ok);
        let refused = backend(&Err("io_uring is forbidden here".into()));
        assert_eq!(refused.found, "io_uring is forbidden here");
    }
}
