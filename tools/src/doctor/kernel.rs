//! The kernel's release, and whether somebody else's machine is under it.

use super::finding::Finding;
use super::host::{Host, Text};

/// What was read.
pub(super) struct Kernel {
    release: Text,
    version: Text,
    cpuinfo: Text,
    vendor: Text,
    product: Text,
    stat: Text,
}

impl Kernel {
    pub(super) fn read(host: &Host) -> Self {
        Self {
            release: host.read("/proc/sys/kernel/osrelease"),
            version: host.read("/proc/sys/kernel/version"),
            cpuinfo: host.read("/proc/cpuinfo"),
            vendor: host.read("/sys/class/dmi/id/sys_vendor"),
            product: host.read("/sys/class/dmi/id/product_name"),
            stat: host.read("/proc/stat"),
        }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        vec![
            release(&self.release, &self.version),
            machine(&self.cpuinfo, &self.vendor, &self.product),
            steal(&self.stat),
        ]
    }
}

fn release(release: &Text, version: &Text) -> Finding {
    const CHECK: &str = "release";
    let release = match release {
        Ok(release) => release,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::garbled(CHECK, release);
    };
    let preemption = ["PREEMPT_RT", "PREEMPT_DYNAMIC", "PREEMPT"];
    let words = version.as_deref().unwrap_or_default();
    let preemption = preemption.iter().find(|word| words.contains(**word));
    let found = preemption.map_or(release.clone(), |word| format!("{release}, {word}"));
    let fix = "install a kernel of 6.1 or newer";
    match (major, minor) {
        (6, 1..) | (7.., _) => Finding::ok(CHECK, found),
        (5, 11..) | (6, _) => {
            Finding::note(CHECK, found, "io_uring and AF_XDP are better from 6.1 on").fix(fix)
        }
        _ => {
            let why = "AF_XDP has no busy polling before 5.11, and io_uring lacks much";
            Finding::warning(CHECK, found, why).fix(fix)
        }
    }
}

/// Whether a processor of `/proc/cpuinfo` has this flag; `None` if there is no list of flags.
pub(super) fn has_flag(cpuinfo: &str, flag: &str) -> Option<bool> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    Some(line.split_whitespace().any(|word| word == flag))
}

fn machine(cpuinfo: &Text, vendor: &Text, product: &Text) -> Finding {
    const CHECK: &str = "machine";
    let cpuinfo = match cpuinfo {
        Ok(cpuinfo) => cpuinfo,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let names = [vendor, product].into_iter().flatten().map(String::as_str);
    let name = names.collect::<Vec<_>>().join(" ");
    let named = |kind: &str| if name.is_empty() { kind.into() } else { format!("{kind} ({name})") };
    match has_flag(cpuinfo, "hypervisor") {
        None => Finding::garbled(CHECK, cpuinfo),
        Some(false) => Finding::ok(CHECK, named("no hypervisor")),
        Some(true) => {
            let why = "the host below takes cores away and delays interrupts when it likes";
            let fix = "a machine of your own, or one with dedicated cores";
            Finding::note(CHECK, named("virtual"), why).fix(fix)
        }
    }
}

/// The share of time that the host below took, in parts per million, since boot.
fn stolen_ppm(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Option<Vec<u64>> = line.split_whitespace().map(|word| word.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal; what follows is counted in the first two.
    let ticks = ticks?;
    let steal = u128::from(*ticks.get(7)?);
    let total: u128 = ticks[..8].iter().copied().map(u128::from).sum();
    Some((steal * 1_000_000).checked_div(total)? as u64)
}

fn steal(stat: &Text) -> Finding {
    const CHECK: &str = "stolen time";
    let stat = match stat {
        Ok(stat) => stat,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let Some(ppm) = stolen_ppm(stat) else {
        return Finding::garbled(CHECK, stat);
    };
    let found = format!("{:.2} % since boot", ppm as f64 / 1e4);
    let why = "no setting here keeps the tail short while the host takes the core";
    let fix = "ask for dedicated cores, or use a machine of your own";
    match ppm {
        0..100 => Finding::ok(CHECK, found),
        100..10_000 => Finding::note(CHECK, found, why).fix(fix),
        _ => Finding::warning(CHECK, found, why).fix(fix),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::super::host::tests::{absent, text};
    use super::*;

    #[test]
    fn old_releases_are_told_apart() {
        let status = |name: &str| release(&text(name), &absent()).status;
        assert_eq!(status("6.18.44-fc"), Status::Ok);
        assert_eq!(status("7.0.1"), Status::Ok);
        assert_eq!(status("6.0.0"), Status::Note);
        assert_eq!(status("5.15.0-91-generic"), Status::Note);
        assert_eq!(status("5.4.0"), Status::Warning);
        assert_eq!(status("4.18.0"), Status::Warning);
        for bad in ["", "linux", "6", "6.", "99999999999.1"] {
            assert_eq!(status(bad), Status::Unknown, "{bad}");
        }
        assert_eq!(release(&absent(), &absent()).status, Status::Unknown);
        let found = release(&text("6.1.0"), &text("#1 SMP PREEMPT_RT Debian")).found;
        assert_eq!(found, "6.1.0, PREEMPT_RT");
    }

    #[test]
    fn a_virtual_machine_is_named() {
        let bare = text("model name : X\nflags\t\t: fpu tsc\n");
        let guest = text("flags\t\t: fpu hypervisor tsc\n");
        assert_eq!(machine(&bare, &absent(), &absent()).found, "no hypervisor");
        let found = machine(&guest, &text("QEMU"), &text("Standard PC"));
        assert_eq!(
            (found.status, found.found.as_str()),
            (Status::Note, "virtual (QEMU Standard PC)")
        );
        assert_eq!(machine(&text("x"), &absent(), &absent()).status, Status::Unknown);
        assert_eq!(machine(&absent(), &absent(), &absent()).status, Status::Unknown);
    }

    #[test]
    fn stolen_time_is_a_share() {
        let of = |line: &str| steal(&text(line));
        assert_eq!(of("cpu  100 0 0 900 0 0 0 0 0 0\ncpu0 1").found, "0.00 % since boot");
        let much = of("cpu  100 0 0 800 0 0 0 100 0 0");
        assert_eq!((much.status, much.found.as_str()), (Status::Warning, "10.00 % since boot"));
        assert_eq!(of("cpu  0 0 0 9990 0 0 0 10 0 0").status, Status::Note);
        assert_eq!(of("cpu  18446744073709551615 0 0 1 0 0 0 1").status, Status::Ok);
        for bad in ["", "cpu  1 2 3", "cpu  a b c d e f g h", "cpu  0 0 0 0 0 0 0 0"] {
            assert_eq!(of(bad).status, Status::Unknown, "{bad}");
        }
        assert_eq!(steal(&absent()).status, Status::Unknown);
    }
}
