//! Socket limits, against what our addresses ask for.

use super::finding::Finding;
use super::host::{Host, Missing, Text};
use super::rights::{Capability, Rights};
use crate::table::{bytes_text, grouped};

/// What was read.
pub(super) struct Sockets {
    receive_max: Text,
    send_max: Text,
    backlog: Text,
    busy_poll: Text,
    busy_read: Text,
    groups: Text,
    /// What an address asks for unless it says otherwise, bytes: to receive, and to send.
    wanted: (u64, u64),
    rights: Rights,
}

impl Sockets {
    pub(super) fn read(host: &Host, rights: &Rights, wanted: (u64, u64)) -> Self {
        let core = |name: &str| host.read(&format!("/proc/sys/net/core/{name}"));
        Self {
            receive_max: core("rmem_max"),
            send_max: core("wmem_max"),
            backlog: core("netdev_max_backlog"),
            busy_poll: core("busy_poll"),
            busy_read: core("busy_read"),
            groups: host.read("/proc/sys/net/ipv4/igmp_max_memberships"),
            wanted,
            rights: rights.clone(),
        }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        // The kernel asks for it on the host, whose memory it is.
        let admin = self.rights.has_on_host(Capability::NetAdmin);
        vec![
            buffer("rmem_max", &self.receive_max, self.wanted.0, admin),
            buffer("wmem_max", &self.send_max, self.wanted.1, admin),
            backlog(&self.backlog),
            busy_poll(&self.busy_poll),
            busy_read(&self.busy_read, admin),
            groups(&self.groups),
        ]
    }
}

/// A setting's number, or the finding that it is not known.
fn number(check: &'static str, text: &Text) -> Result<u64, Finding> {
    let text = text.as_ref().map_err(|missing| match missing {
        // Most of these belong to the host's own network namespace.
        Missing { absent: true, reason } => {
            let reason = format!("{reason} (shown in the host's own network namespace)");
            Finding::unknown(check, &Missing { absent: true, reason })
        }
        missing => Finding::unknown(check, missing),
    })?;
    text.parse().map_err(|_| Finding::garbled(check, text))
}

fn buffer(check: &'static str, text: &Text, wanted: u64, admin: bool) -> Finding {
    let bytes = match number(check, text) {
        Ok(bytes) => bytes,
        Err(finding) => return finding,
    };
    let found = format!("{} (addresses ask for {})", bytes_text(bytes), bytes_text(wanted));
    let fix = format!("sysctl -w net.core.{check}={wanted}");
    if bytes >= wanted {
        Finding::ok(check, found)
    } else if admin {
        let why = "more is had by CAP_NET_ADMIN only: other users' streams drop bursts";
        Finding::note(check, found, why).fix(fix)
    } else {
        let why = "a burst does not fit: datagrams are dropped, or the sender waits";
        Finding::warning(check, found, why).fix(fix)
    }
}

fn backlog(text: &Text) -> Finding {
    const CHECK: &str = "netdev_max_backlog";
    match number(CHECK, text) {
        Err(finding) => finding,
        Ok(packets @ 4096..) => Finding::ok(CHECK, format!("{} packets", grouped(packets))),
        Ok(packets) => {
            let why = "a burst over loopback, veth or RPS beyond that is dropped";
            Finding::note(CHECK, format!("{} packets", grouped(packets)), why)
                .fix("sysctl -w net.core.netdev_max_backlog=16384")
        }
    }
}

fn busy_poll(text: &Text) -> Finding {
    const CHECK: &str = "busy_poll";
    match number(CHECK, text) {
        Err(finding) => finding,
        Ok(0) => {
            let why =
                "a receiver that sleeps is woken by an interrupt only; those that spin do well";
            Finding::note(CHECK, "0: off", why).fix("sysctl -w net.core.busy_poll=50")
        }
        Ok(us) => Finding::ok(CHECK, format!("{us} µs")),
    }
}

fn busy_read(text: &Text, admin: bool) -> Finding {
    const CHECK: &str = "busy_read";
    match number(CHECK, text) {
        Err(finding) => finding,
        Ok(0) if admin => Finding::ok(CHECK, "0: sockets with busypoll= poll the device"),
        Ok(0) => {
            let why = "busypoll= in an address needs CAP_NET_ADMIN, or this as its upper limit";
            Finding::note(CHECK, "0: off", why).fix("sysctl -w net.core.busy_read=50")
        }
        Ok(us) => Finding::ok(CHECK, format!("{us} µs")),
    }
}

fn groups(text: &Text) -> Finding {
    const CHECK: &str = "igmp_max_memberships";
    match number(CHECK, text) {
        Err(finding) => finding,
        Ok(groups @ 20..) => Finding::ok(CHECK, format!("{} groups a socket", grouped(groups))),
        Ok(groups) => {
            let why = "a process that listens to many groups is refused the next";
            Finding::warning(CHECK, format!("{groups} groups a socket"), why)
                .fix("sysctl -w net.ipv4.igmp_max_memberships=256")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::super::host::tests::{absent, forbidden, text};
    use super::*;

    #[test]
    fn buffers_are_measured_by_what_is_asked_for() {
        let of = |bytes: &str, admin: bool| buffer("rmem_max", &text(bytes), 4 << 20, admin);
        assert_eq!(of("4194304", false).found, "4 MiB (addresses ask for 4 MiB)");
        let small = of("212992", false);
        assert_eq!(small.status, Status::Warning);
        assert_eq!(small.fix.as_deref(), Some("sysctl -w net.core.rmem_max=4194304"));
        assert_eq!(of("212992", true).status, Status::Note);
        assert_eq!(of("x", true).status, Status::Unknown);
        assert_eq!(buffer("rmem_max", &forbidden(), 1, true).found, "permission denied");
        let inside = buffer("rmem_max", &absent(), 1, true);
        assert!(inside.found.contains("host's own network namespace"), "{}", inside.found);
    }

    #[test]
    fn the_other_settings() {
        assert_eq!(backlog(&text("16384")).found, "16,384 packets");
        assert_eq!(backlog(&text("1000")).status, Status::Note);
        assert_eq!(busy_poll(&text("0")).status, Status::Note);
        assert_eq!(busy_poll(&text("50")).found, "50 µs");
        assert_eq!(busy_read(&text("0"), true).status, Status::Ok);
        assert_eq!(busy_read(&text("0"), false).status, Status::Note);
        assert_eq!(busy_read(&text("50"), false).status, Status::Ok);
        assert_eq!(groups(&text("20")).found, "20 groups a socket");
        assert_eq!(groups(&text("5")).status, Status::Warning);
        for check in [backlog, busy_poll, groups] {
            assert_eq!(check(&absent()).status, Status::Unknown);
            assert_eq!(check(&text("many")).status, Status::Unknown);
        }
        assert_eq!(busy_read(&absent(), true).status, Status::Unknown);
    }
}
