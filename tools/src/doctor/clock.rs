//! The clock: whether the processor's own counter may be read as time.

use super::finding::Finding;
use super::host::{Host, Text};
use super::kernel::has_flag;

const CURRENT: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
const AVAILABLE: &str = "/sys/devices/system/clocksource/clocksource0/available_clocksource";

/// What was read.
pub(super) struct Clock {
    current: Text,
    available: Text,
    cpuinfo: Text,
}

impl Clock {
    pub(super) fn read(host: &Host) -> Self {
        Self {
            current: host.read(CURRENT),
            available: host.read(AVAILABLE),
            cpuinfo: host.read("/proc/cpuinfo"),
        }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        vec![source(&self.current, &self.available), counter(&self.cpuinfo)]
    }
}

fn source(current: &Text, available: &Text) -> Finding {
    const CHECK: &str = "clock source";
    let current = match current {
        Ok(current) => current,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let others = available.as_deref().unwrap_or_default();
    let found = format!("{current} (there are: {others})");
    let fix = if others.split_whitespace().any(|name| name == "tsc") {
        format!("echo tsc > {CURRENT}")
    } else {
        "add to the kernel's command line: tsc=reliable clocksource=tsc".into()
    };
    match current.as_str() {
        "" => Finding::garbled(CHECK, current),
        "tsc" => Finding::ok(CHECK, found),
        "kvm-clock" | "hyperv_clocksource_tsc_page" => {
            Finding::note(CHECK, found, "reading the time costs more than the counter").fix(fix)
        }
        _ => {
            let why = "every reading of the system's time is a system call, or a slow device's";
            Finding::warning(CHECK, found, why).fix(fix)
        }
    }
}

fn counter(cpuinfo: &Text) -> Finding {
    const CHECK: &str = "time-stamp counter";
    let cpuinfo = match cpuinfo {
        Ok(cpuinfo) => cpuinfo,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let flags = ["constant_tsc", "nonstop_tsc"];
    let mut lacking = Vec::new();
    for flag in flags {
        match has_flag(cpuinfo, flag) {
            None => return Finding::garbled(CHECK, cpuinfo),
            Some(true) => {}
            Some(false) => lacking.push(flag),
        }
    }
    if lacking.is_empty() {
        return Finding::ok(CHECK, flags.join(", "));
    }
    let why = "ticks of two cores, or before and after a sleep, cannot be compared";
    let fix = "expose an invariant counter to the guest (QEMU: -cpu host,+invtsc)";
    Finding::warning(CHECK, format!("without {}", lacking.join(", ")), why).fix(fix)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::super::host::tests::{absent, text};
    use super::*;

    #[test]
    fn the_clock_source_is_the_counter_or_can_be_made_it() {
        let of = |current: &str, others: &str| source(&text(current), &text(others));
        assert_eq!(of("tsc", "tsc kvm-clock").status, Status::Ok);
        let hpet = of("hpet", "tsc hpet acpi_pm");
        assert_eq!(hpet.status, Status::Warning);
        assert!(hpet.fix.is_some_and(|fix| fix.starts_with("echo tsc > /sys/")));
        let none = of("acpi_pm", "acpi_pm");
        assert!(none.fix.is_some_and(|fix| fix.contains("tsc=reliable")));
        assert_eq!(of("kvm-clock", "kvm-clock acpi_pm").status, Status::Note);
        assert_eq!(source(&text("tsc"), &absent()).status, Status::Ok);
        assert_eq!(source(&absent(), &text("tsc")).status, Status::Unknown);
        assert_eq!(of("", "").status, Status::Unknown);
    }

    #[test]
    fn the_counter_must_be_constant_and_never_stop() {
        let of = |cpuinfo: &str| counter(&text(cpuinfo));
        assert_eq!(of("flags : tsc constant_tsc nonstop_tsc").status, Status::Ok);
        let stops = of("flags : tsc constant_tsc");
        assert_eq!(stops.status, Status::Warning);
        assert_eq!(stops.found, "without nonstop_tsc");
        assert_eq!(of("processor : 0").status, Status::Unknown);
        assert_eq!(counter(&absent()).status, Status::Unknown);
    }
}
