//! The capabilities of this process, and whether they count on the host, or in a user namespace
//! only.

use super::host::{Host, Missing, Reading, Text};

/// A capability that we have a use for, and its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Capability {
    NetAdmin = 12,
    NetRaw = 13,
    IpcLock = 14,
    SysAdmin = 21,
    SysNice = 23,
    Bpf = 39,
}

/// What this process may do.
#[derive(Clone, Debug)]
pub(super) struct Rights {
    /// The effective capabilities, a bit each.
    effective: Reading<u64>,
    /// Whether this is the host's own user namespace.
    on_host: bool,
}

impl Rights {
    pub(super) fn read(host: &Host) -> Self {
        Self::of(&host.read("/proc/self/status"), &host.read("/proc/self/uid_map"))
    }

    /// From `/proc/self/status` and `/proc/self/uid_map`.
    pub(super) fn of(status: &Text, uid_map: &Text) -> Self {
        let effective = status.clone().and_then(|status| {
            let digits = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
            let bits = digits.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
            let reason = "/proc/self/status: no line CapEff".into();
            bits.ok_or(Missing { absent: true, reason })
        });
        // Every id is itself there; a kernel without user namespaces has no such file.
        let map: Result<Vec<&str>, _> =
            uid_map.as_ref().map(|map| map.split_whitespace().collect());
        let on_host =
            map.map_or_else(|missing| missing.absent, |words| words == ["0", "0", "4294967295"]);
        Self { effective, on_host }
    }

    /// Whether it is effective in its own user namespace; no, if that is not known.
    pub(super) fn has(&self, capability: Capability) -> bool {
        self.effective.as_ref().is_ok_and(|bits| bits >> capability as u32 & 1 == 1)
    }

    /// Whether it counts against the whole host.
    pub(super) fn has_on_host(&self, capability: Capability) -> bool {
        self.on_host && self.has(capability)
    }

    /// Whether this is the host's own user namespace.
    pub(super) fn is_on_host(&self) -> bool {
        self.on_host
    }

    /// Why the capabilities are not known.
    pub(super) fn missing(&self) -> Option<&Missing> {
        self.effective.as_ref().err()
    }
}

#[cfg(test)]
mod tests {
    use super::super::host::tests::{absent, forbidden, text};
    use super::*;

    #[test]
    fn capabilities_are_bits_and_a_namespace_makes_them_count_less() {
        let status = text("Name:\tx\nCapEff:\t0000008000003000\n");
        let host = text("         0          0 4294967295");
        let rights = Rights::of(&status, &host);
        assert!(rights.has(Capability::NetAdmin) && rights.has(Capability::NetRaw));
        assert!(rights.has_on_host(Capability::Bpf) && !rights.has(Capability::SysAdmin));
        let inside = Rights::of(&status, &text("0 1000 1"));
        assert!(inside.has(Capability::Bpf) && !inside.has_on_host(Capability::Bpf));
        assert!(Rights::of(&status, &absent()).is_on_host());
        assert!(!Rights::of(&status, &forbidden()).is_on_host());
    }

    #[test]
    fn unknown_rights_are_none() {
        for bad in [text(""), text("CapEff:\tzz"), absent()] {
            let rights = Rights::of(&bad, &absent());
            assert!(rights.missing().is_some() && !rights.has(Capability::NetRaw));
        }
    }
}
