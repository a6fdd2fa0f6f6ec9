//! The processor: its cores, who shares them, and how fast they may run.

use super::cores;
use super::finding::Finding;
use super::host::{Host, Missing, Text};

const CPU: &str = "/sys/devices/system/cpu";

/// What was read.
pub(super) struct Processor {
    cpuinfo: Text,
    online: Text,
    status: Text,
    smt: Text,
    /// The siblings of each online core's thread.
    siblings: Vec<Text>,
    isolated: Text,
    nohz_full: Text,
    /// Of each online core.
    governors: Vec<Text>,
    no_turbo: Text,
    boost: Text,
}

impl Processor {
    pub(super) fn read(host: &Host) -> Self {
        let online = host.read(&format!("{CPU}/online"));
        let cores = online.as_deref().ok().and_then(cores::parse).unwrap_or_default();
        let of_each = |path: &str| {
            let read = |core: &u32| host.read(&format!("{CPU}/cpu{core}/{path}"));
            cores.iter().map(read).collect()
        };
        Self {
            cpuinfo: host.read("/proc/cpuinfo"),
            status: host.read("/proc/self/status"),
            smt: host.read(&format!("{CPU}/smt/active")),
            siblings: of_each("topology/thread_siblings_list"),
            isolated: host.read(&format!("{CPU}/isolated")),
            nohz_full: host.read(&format!("{CPU}/nohz_full")),
            governors: of_each("cpufreq/scaling_governor"),
            no_turbo: host.read(&format!("{CPU}/intel_pstate/no_turbo")),
            boost: host.read(&format!("{CPU}/cpufreq/boost")),
            online,
        }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        vec![
            model(&self.cpuinfo),
            count(&self.online, &self.status),
            siblings(&self.smt, &self.siblings),
            isolated(&self.isolated, &self.online),
            tickless(&self.nohz_full, &self.isolated),
            governor(&self.governors),
            turbo(&self.no_turbo, &self.boost),
        ]
    }

    /// The cores that the scheduler leaves alone; empty if that is not known.
    pub(super) fn isolated_cores(&self) -> Vec<u32> {
        self.isolated.as_deref().ok().and_then(cores::parse).unwrap_or_default()
    }

    /// The cores that everything else runs on.
    pub(super) fn housekeeping_cores(&self) -> Vec<u32> {
        let isolated = self.isolated_cores();
        let mut all = self.online.as_deref().ok().and_then(cores::parse).unwrap_or_default();
        all.retain(|core| !isolated.contains(core));
        all
    }
}

fn model(cpuinfo: &Text) -> Finding {
    const CHECK: &str = "model";
    let cpuinfo = match cpuinfo {
        Ok(cpuinfo) => cpuinfo,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    match line.and_then(|line| line.split_once(':')) {
        Some((_, name)) => Finding::ok(CHECK, name.trim()),
        None => Finding::garbled(CHECK, cpuinfo),
    }
}

fn count(online: &Text, status: &Text) -> Finding {
    const CHECK: &str = "cores online";
    let online = match online {
        Ok(online) => online,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let Some(all) = cores::parse(online).filter(|all| !all.is_empty()) else {
        return Finding::garbled(CHECK, online);
    };
    let status = status.as_deref().unwrap_or_default();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let allowed = allowed.and_then(cores::parse).unwrap_or_else(|| all.clone());
    let usable = all.iter().filter(|core| allowed.contains(core)).count();
    let mut found = format!("{} ({online})", all.len());
    if usable < all.len() {
        found += &format!(", of which this process may use {usable}");
    }
    let why = "each side that spins takes a core, and the rest of the system needs one";
    match usable {
        0 | 1 => {
            Finding::warning(CHECK, found, why).fix("use wait=park or wait=yield in addresses")
        }
        2 | 3 => Finding::note(CHECK, found, why).fix("spin with as many threads as cores - 1"),
        _ if usable < all.len() => {
            let why = "threads can be pinned to those only";
            Finding::note(CHECK, found, why).fix(format!("taskset -c {online} gapless ..."))
        }
        _ => Finding::ok(CHECK, found),
    }
}

fn siblings(active: &Text, siblings: &[Text]) -> Finding {
    const CHECK: &str = "SMT";
    match active.as_deref() {
        Err(missing) if missing.absent => Finding::ok(CHECK, "not in this kernel or processor"),
        Err(missing) => Finding::unknown(CHECK, missing),
        Ok("0") => Finding::ok(CHECK, "off: no core has siblings"),
        Ok("1") => {
            let mut pairs: Vec<&str> = siblings.iter().flatten().map(String::as_str).collect();
            pairs.dedup();
            let more = if pairs.len() > 4 { " ..." } else { "" };
            pairs.truncate(4);
            let found = format!("on: siblings {}{more}", pairs.join(" "));
            let why = "a sibling takes execution units and cache from the thread that spins";
            Finding::note(CHECK, found, why).fix(format!("echo off > {CPU}/smt/control"))
        }
        Ok(other) => Finding::garbled(CHECK, other),
    }
}

/// What to add to the kernel's command line: the upper half of the cores to ourselves.
fn boot_options(online: &Text) -> Option<String> {
    let all = cores::parse(online.as_deref().ok()?)?;
    let own = cores::text(&all[all.len().div_ceil(2)..]);
    let options = format!("isolcpus=managed_irq,domain,{own} nohz_full={own} rcu_nocbs={own}");
    (all.len() >= 4).then(|| format!("add to the kernel's command line: {options}"))
}

fn isolated(isolated: &Text, online: &Text) -> Finding {
    const CHECK: &str = "isolated cores";
    let text = match isolated {
        Ok(text) => text,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    match cores::parse(text) {
        None => Finding::garbled(CHECK, text),
        Some(none) if none.is_empty() => {
            let why = "the scheduler may put other threads on a core that spins";
            let finding = Finding::note(CHECK, "none", why);
            match boot_options(online) {
                Some(options) => finding.fix(options),
                None => finding.fix("a machine of four cores or more has some to spare"),
            }
        }
        Some(own) => Finding::ok(CHECK, format!("{text} ({})", cores::count_text(own.len()))),
    }
}

fn tickless(nohz_full: &Text, isolated: &Text) -> Finding {
    const CHECK: &str = "nohz_full";
    let why = "the timer interrupts a core that spins, 100 to 1,000 times a second";
    let text = match nohz_full {
        Ok(text) => text,
        Err(Missing { absent: true, .. }) => {
            return Finding::note(CHECK, "not built into this kernel", why)
                .fix("a kernel with CONFIG_NO_HZ_FULL");
        }
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let Some(without) = cores::parse(text) else {
        return Finding::garbled(CHECK, text);
    };
    let own = isolated.as_deref().ok().and_then(cores::parse).unwrap_or_default();
    let ticking: Vec<u32> = own.iter().copied().filter(|core| !without.contains(core)).collect();
    if !ticking.is_empty() {
        let ticking = cores::text(&ticking);
        let found = format!("the timer ticks on isolated cores {ticking}");
        return Finding::warning(CHECK, found, why)
            .fix(format!("add to the kernel's command line: nohz_full={}", cores::text(&own)));
    }
    match without.is_empty() {
        true => Finding::note(CHECK, "none", why).fix("name the isolated cores in nohz_full= too"),
        false => Finding::ok(CHECK, text),
    }
}

fn governor(governors: &[Text]) -> Finding {
    const CHECK: &str = "frequency governor";
    let mut names: Vec<&str> = Vec::new();
    let mut missing: Option<&Missing> = None;
    for governor in governors {
        match governor {
            Ok(name) => names.push(name),
            Err(reason) => missing = Some(reason),
        }
    }
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return match missing {
            Some(missing) if !missing.absent => Finding::unknown(CHECK, missing),
            Some(_) => {
                Finding::ok(CHECK, "none: the firmware or the host below sets the frequency")
            }
            None => {
                let reason = "no core is known to be online".into();
                Finding::unknown(CHECK, &Missing { absent: true, reason })
            }
        };
    }
    let found = names.join(", ");
    if names == ["performance"] {
        return Finding::ok(CHECK, found);
    }
    let why = "a core that was idle starts slowly, and clocks up in the middle of a burst";
    Finding::warning(CHECK, found, why)
        .fix(format!("echo performance | tee {CPU}/cpu*/cpufreq/scaling_governor"))
}

fn turbo(no_turbo: &Text, boost: &Text) -> Finding {
    const CHECK: &str = "turbo";
    let why = "a single thread runs at the base frequency";
    let off = |path: &str, on: &str| {
        Finding::note(CHECK, "off", why).fix(format!("echo {on} > {CPU}/{path}"))
    };
    match (no_turbo.as_deref(), boost.as_deref()) {
        (Ok("0"), _) | (Err(_), Ok("1")) => Finding::ok(CHECK, "on"),
        (Ok("1"), _) => off("intel_pstate/no_turbo", "0"),
        (Err(_), Ok("0")) => off("cpufreq/boost", "1"),
        (Ok(other), _) | (_, Ok(other)) => Finding::garbled(CHECK, other),
        (Err(missing), Err(_)) if !missing.absent => Finding::unknown(CHECK, missing),
        (_, Err(missing)) if !missing.absent => Finding::unknown(CHECK, missing),
        _ => Finding::ok(CHECK, "no switch: the firmware or the host below decides"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::super::host::tests::{absent, forbidden, text};
    use super::*;

    fn fix(finding: Finding) -> String {
        finding.fix.expect("a fix")
    }

    #[test]
    fn the_model_is_named() {
        assert_eq!(model(&text("processor\t: 0\nmodel name\t: AMD EPYC\n")).found, "AMD EPYC");
        assert_eq!(model(&text("")).status, Status::Unknown);
        assert_eq!(model(&absent()).status, Status::Unknown);
    }

    #[test]
    fn cores_are_counted_as_far_as_they_may_be_used() {
        let of = |online: &str, status: &str| count(&text(online), &text(status));
        assert_eq!(of("0-15", "Cpus_allowed_list:\t0-15\n").found, "16 (0-15)");
        assert_eq!(of("0-15", "").status, Status::Ok);
        let bound = of("0-15", "Name: x\nCpus_allowed_list:\t0-7\n");
        assert_eq!(bound.status, Status::Note);
        assert_eq!(fix(bound), "taskset -c 0-15 gapless ...");
        assert_eq!(of("0-15", "Cpus_allowed_list:\t3\n").status, Status::Warning);
        assert_eq!(of("0-1", "").status, Status::Note);
        assert_eq!(of("0", "").status, Status::Warning);
        assert_eq!(of("", "").status, Status::Unknown);
        assert_eq!(count(&forbidden(), &absent()).found, "permission denied");
    }

    #[test]
    fn siblings_are_listed() {
        let pairs = [text("0,4"), text("0,4"), text("1,5"), absent()];
        let on = siblings(&text("1"), &pairs);
        assert_eq!((on.status, on.found.as_str()), (Status::Note, "on: siblings 0,4 1,5"));
        assert_eq!(siblings(&text("0"), &pairs).status, Status::Ok);
        assert_eq!(siblings(&absent(), &pairs).status, Status::Ok);
        assert_eq!(siblings(&forbidden(), &pairs).status, Status::Unknown);
        assert_eq!(siblings(&text("maybe"), &pairs).status, Status::Unknown);
    }

    #[test]
    fn isolation_is_proposed_where_there_are_cores_for_it() {
        assert_eq!(isolated(&text("2-3"), &text("0-3")).found, "2-3 (2 cores)");
        let none = isolated(&text(""), &text("0-7"));
        assert_eq!(none.status, Status::Note);
        assert!(fix(none).contains("isolcpus=managed_irq,domain,4-7 nohz_full=4-7"));
        assert!(!fix(isolated(&text(""), &text("0-1"))).contains("isolcpus"));
        assert!(!fix(isolated(&text(""), &absent())).contains("isolcpus"));
        assert_eq!(isolated(&text("x"), &text("0-3")).status, Status::Unknown);
        assert_eq!(isolated(&absent(), &text("0-3")).status, Status::Unknown);
    }

    #[test]
    fn isolated_cores_should_not_tick() {
        let of = |full: &str, own: &str| tickless(&text(full), &text(own));
        assert_eq!(of("2-3", "2-3").status, Status::Ok);
        let half = of("2", "2-3");
        assert_eq!(half.found, "the timer ticks on isolated cores 3");
        assert_eq!(half.status, Status::Warning);
        assert_eq!(of("(null)", "").status, Status::Note);
        assert_eq!(of("x", "").status, Status::Unknown);
        assert_eq!(tickless(&absent(), &text("")).status, Status::Note);
        assert_eq!(tickless(&forbidden(), &text("")).status, Status::Unknown);
    }

    #[test]
    fn one_slow_governor_is_enough() {
        assert_eq!(governor(&[text("performance"), text("performance")]).status, Status::Ok);
        let mixed = governor(&[text("performance"), text("powersave")]);
        assert_eq!(mixed.status, Status::Warning);
        assert_eq!(mixed.found, "performance, powersave");
        assert!(fix(mixed).contains("scaling_governor"));
        assert_eq!(governor(&[absent(), absent()]).status, Status::Ok);
        assert_eq!(governor(&[forbidden()]).status, Status::Unknown);
        assert_eq!(governor(&[]).status, Status::Unknown);
    }

    #[test]
    fn turbo_has_two_switches() {
        assert_eq!(turbo(&text("0"), &absent()).found, "on");
        assert!(fix(turbo(&text("1"), &absent())).contains("echo 0 > "));
        assert_eq!(turbo(&absent(), &text("1")).found, "on");
        assert!(fix(turbo(&absent(), &text("0"))).contains("echo 1 > "));
        assert_eq!(turbo(&absent(), &absent()).status, Status::Ok);
        assert_eq!(turbo(&absent(), &forbidden()).status, Status::Unknown);
        assert_eq!(turbo(&text("2"), &absent()).status, Status::Unknown);
    }
}
