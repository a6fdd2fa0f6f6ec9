//! What this process may take: locked memory, open files, real-time priority.

use super::finding::Finding;
use super::host::{Host, Text};
use super::rights::{Capability, Rights};
use crate::table::{bytes_text, grouped};

/// Locked memory below which a ring of the default size with its buffers is not locked, bytes.
const LOCKED_MIN: u64 = 64 << 20;
/// Open files below which a relay of many streams runs out.
const FILES_MIN: u64 = 1024;

/// What was read.
pub(super) struct Limits {
    limits: Text,
    rights: Rights,
}

impl Limits {
    pub(super) fn read(host: &Host, rights: &Rights) -> Self {
        Self { limits: host.read("/proc/self/limits"), rights: rights.clone() }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        vec![
            locked(&self.limits, self.rights.has_on_host(Capability::IpcLock)),
            files(&self.limits),
            priority(&self.limits, self.rights.has_on_host(Capability::SysNice)),
        ]
    }
}

/// The soft limit in a line of `/proc/PID/limits`; `u64::MAX` is unlimited.
fn soft(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The soft limit, or the finding that it is not known.
fn read(check: &'static str, limits: &Text, name: &str) -> Result<u64, Finding> {
    let text = limits.as_deref().map_err(|missing| Finding::unknown(check, missing))?;
    soft(text, name).ok_or_else(|| Finding::garbled(check, text))
}

fn raise(item: &str, value: &str) -> String {
    let file = "/etc/security/limits.d/gapless.conf";
    format!("echo '* - {item} {value}' >> {file}, then log in again")
}

fn locked(limits: &Text, privileged: bool) -> Finding {
    const CHECK: &str = "locked memory";
    let bytes = match read(CHECK, limits, "Max locked memory") {
        Ok(bytes) => bytes,
        Err(finding) => return finding,
    };
    match bytes {
        u64::MAX => Finding::ok(CHECK, "unlimited"),
        _ if privileged => {
            Finding::ok(CHECK, format!("{}, not for CAP_IPC_LOCK", bytes_text(bytes)))
        }
        LOCKED_MIN.. => Finding::ok(CHECK, bytes_text(bytes)),
        _ => {
            let why = "rings beyond that are not locked, and their pages may be taken away";
            Finding::warning(CHECK, bytes_text(bytes), why).fix(raise("memlock", "unlimited"))
        }
    }
}

fn files(limits: &Text) -> Finding {
    const CHECK: &str = "open files";
    match read(CHECK, limits, "Max open files") {
        Err(finding) => finding,
        Ok(u64::MAX) => Finding::ok(CHECK, "unlimited"),
        Ok(count @ FILES_MIN..) => Finding::ok(CHECK, grouped(count)),
        Ok(count) => {
            let why = "each ring, log segment and socket takes one or more";
            Finding::warning(CHECK, grouped(count), why).fix("ulimit -n 65536")
        }
    }
}

fn priority(limits: &Text, privileged: bool) -> Finding {
    const CHECK: &str = "real-time priority";
    match read(CHECK, limits, "Max realtime priority") {
        Err(finding) => finding,
        Ok(0) if privileged => Finding::ok(CHECK, "0, not for CAP_SYS_NICE"),
        Ok(0) => {
            let why = "chrt is refused: on a shared core, others may run first";
            Finding::note(CHECK, "0", why).fix(raise("rtprio", "50"))
        }
        Ok(u64::MAX) => Finding::ok(CHECK, "unlimited"),
        Ok(priority) => Finding::ok(CHECK, format!("up to {priority}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::super::host::tests::{absent, text};
    use super::*;

    const LIMITS: &str = "Limit                     Soft Limit           Hard Limit           Units\n\
        Max open files            1024                 524288               files\n\
        Max locked memory         8388608              8388608              bytes\n\
        Max realtime priority     0                    0                    \n";

    #[test]
    fn the_soft_limit_counts_unless_a_capability_lifts_it() {
        let limits = text(LIMITS);
        assert_eq!(locked(&limits, false).status, Status::Warning);
        assert_eq!(locked(&limits, true).found, "8 MiB, not for CAP_IPC_LOCK");
        assert_eq!(files(&limits).found, "1,024");
        assert_eq!(priority(&limits, false).status, Status::Note);
        assert_eq!(priority(&limits, true).status, Status::Ok);
        let more = LIMITS.replace("8388608 ", "unlimited ").replace("1024 ", "256 ");
        assert_eq!(locked(&text(&more), false).found, "unlimited");
        assert_eq!(files(&text(&more)).status, Status::Warning);
        let more = text("Max realtime priority     99    99   \nMax locked memory 1073741824 0");
        assert_eq!(priority(&more, false).found, "up to 99");
        assert_eq!(locked(&more, false).found, "1 GiB");
    }

    #[test]
    fn damaged_limits_are_unknown() {
        for bad in ["", "Max locked memory", "Max locked memory   x  y", "Max open files  -1"] {
            assert_eq!(locked(&text(bad), true).status, Status::Unknown, "{bad}");
            assert_eq!(files(&text(bad)).status, Status::Unknown, "{bad}");
        }
        assert_eq!(priority(&absent(), true).status, Status::Unknown);
    }
}
