//! Interrupts: which are an interface's, which cores take them, and who moves them about.

use super::cores;
use super::finding::Finding;
use super::host::{Host, Missing, Reading, Text};

/// An interrupt of an interface.
#[derive(Clone, Debug)]
pub(super) struct Irq {
    pub(super) number: u32,
    /// The cores that may take it.
    pub(super) cores: Text,
}

/// The interrupts of an interface: those of its device, or those that have its name.
pub(super) fn of_interface(host: &Host, name: &str) -> Reading<Vec<Irq>> {
    let interrupts = host.read("/proc/interrupts")?;
    let device = format!("/sys/class/net/{name}/device");
    // A virtio device's interrupts are those of the PCI device that it is on.
    let listed = [format!("{device}/msi_irqs"), format!("{device}/../msi_irqs")];
    let listed = listed.iter().find_map(|path| host.names(path).ok()).unwrap_or_default();
    let listed: Vec<u32> = listed.iter().filter_map(|number| number.parse().ok()).collect();
    let mut names = vec![name.to_owned()];
    names.extend(host.link(&device));
    let numbers = belonging(&interrupts, &listed, &names);
    let cores = |number| host.read(&format!("/proc/irq/{number}/smp_affinity_list"));
    Ok(numbers.into_iter().map(|number| Irq { number, cores: cores(number) }).collect())
}

/// The numbers in `/proc/interrupts` that are listed, or whose action is one of the names, alone
/// or with more behind it: `eth0`, `eth0-rx-1`, `mlx5_comp0@pci:0000:3b:00.0`.
fn belonging(interrupts: &str, listed: &[u32], names: &[String]) -> Vec<u32> {
    let is_named = |word: &str| {
        names.iter().any(|name| match word.strip_prefix(name.as_str()) {
            Some(rest) => !rest.starts_with(|c: char| c.is_alphanumeric()),
            None => word.ends_with(&format!("@pci:{name}")),
        })
    };
    let number = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let number = number.trim().parse().ok()?;
        let mut words = rest.split([' ', ',']).filter(|word| !word.is_empty());
        // The configuration of a virtio device changes with no packet.
        let is_configuration = rest.trim_end().ends_with("-config");
        let ours = listed.contains(&number) || words.any(is_named);
        (ours && !is_configuration).then_some(number)
    };
    interrupts.lines().filter_map(number).collect()
}

/// How an interface's interrupts lie to the cores that are set apart.
pub(super) fn placement(
    irqs: &Reading<Vec<Irq>>,
    isolated: &[u32],
    housekeeping: &[u32],
) -> Finding {
    const CHECK: &str = "interrupts";
    let irqs = match irqs {
        Ok(irqs) if irqs.is_empty() => return Finding::ok(CHECK, "none of its own"),
        Ok(irqs) => irqs,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let (mut all, mut intruders) = (Vec::new(), Vec::new());
    for irq in irqs {
        let text = match &irq.cores {
            Ok(text) => text,
            Err(missing) => return Finding::unknown(CHECK, missing),
        };
        let Some(allowed) = cores::parse(text) else {
            return Finding::garbled(CHECK, text);
        };
        if allowed.iter().any(|core| isolated.contains(core)) {
            intruders.push(irq.number.to_string());
        }
        all.extend(allowed);
    }
    all.sort_unstable();
    all.dedup();
    let each =
        |irq: &Irq| format!("{} on {}", irq.number, irq.cores.as_deref().unwrap_or_default());
    let found = match irqs.len() {
        count @ 1..=4 => {
            format!("{count}: {}", irqs.iter().map(each).collect::<Vec<_>>().join(", "))
        }
        count => format!("{count} on cores {}", cores::text(&all)),
    };
    if intruders.is_empty() {
        return Finding::ok(CHECK, found);
    }
    let home = cores::text(housekeeping);
    Finding::warning(CHECK, found, "they interrupt what spins on an isolated core").fix(format!(
        "for i in {}; do echo {home} > /proc/irq/$i/smp_affinity_list; done",
        intruders.join(" ")
    ))
}

/// The names of all processes that can be seen.
pub(super) fn processes(host: &Host) -> Reading<Vec<String>> {
    let names = host.names("/proc")?;
    let numbers = names.iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    // One that ends meanwhile is none.
    let names: Vec<String> =
        numbers.filter_map(|number| host.read(&format!("/proc/{number}/comm")).ok()).collect();
    let reason = "/proc: no process can be seen".into();
    if names.is_empty() { Err(Missing { absent: true, reason }) } else { Ok(names) }
}

/// Whether somebody moves interrupts about.
pub(super) fn balancer(processes: &Reading<Vec<String>>) -> Finding {
    const CHECK: &str = "irqbalance";
    match processes {
        Err(missing) => Finding::unknown(CHECK, missing),
        Ok(names) if names.iter().any(|name| name == "irqbalance") => {
            let why = "it moves interrupts of the network card to cores that spin";
            Finding::note(CHECK, "running", why).fix("systemctl disable --now irqbalance")
        }
        Ok(_) => Finding::ok(CHECK, "not running"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::super::host::tests::{absent, forbidden, text};
    use super::*;

    const INTERRUPTS: &str = "           CPU0       CPU1
 28:          0          0 PCI-MSIX-0000:00:01.0   0-edge      virtio0-config
 38:          0      22098 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0
 39:      16986          0 PCI-MSIX-0000:00:03.0   2-edge      virtio2-output.0
 40:      16986          0 PCI-MSIX-0000:00:03.0   2-edge      virtio20-input.0
 41:          5          0 PCI-MSI 524288-edge      eth0-rx-0
 42:          5          0 IO-APIC 16-fasteoi       ehci_hcd:usb1, eth0
 43:          5          0 PCI-MSIX-0000:3b:00.0   1-edge      mlx5_comp0@pci:0000:3b:00.0
 44:          0          0 PCI-MSIX-0000:00:03.0   0-edge      virtio2-config
NMI:          0          0   Non-maskable interrupts
";

    #[test]
    fn interrupts_belong_by_list_or_by_name() {
        let of = |listed: &[u32], names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            belonging(INTERRUPTS, listed, &names)
        };
        assert_eq!(of(&[], &["eth0"]), [41, 42]);
        assert_eq!(of(&[], &["enp1", "virtio2"]), [38, 39]);
        assert_eq!(of(&[], &["ens1", "0000:3b:00.0"]), [43]);
        assert_eq!(of(&[38, 44, 99], &["x"]), [38]);
        assert_eq!(of(&[], &["lo"]), [0; 0]);
        assert_eq!(belonging("", &[1], &[]), [0; 0]);
    }

    #[test]
    fn interrupts_stay_off_isolated_cores() {
        let irq = |number, cores: &str| Irq { number, cores: text(cores) };
        let irqs = Ok(vec![irq(38, "0-3"), irq(39, "1")]);
        assert_eq!(placement(&irqs, &[], &[0, 1, 2, 3]).found, "2: 38 on 0-3, 39 on 1");
        let hit = placement(&irqs, &[2, 3], &[0, 1]);
        assert_eq!(hit.status, Status::Warning);
        let fix = "for i in 38; do echo 0-1 > /proc/irq/$i/smp_affinity_list; done";
        assert_eq!(hit.fix.as_deref(), Some(fix));
        let many = (0..8).map(|n| irq(n, &n.to_string())).collect();
        assert_eq!(placement(&Ok(many), &[9], &[0]).found, "8 on cores 0-7");
        assert_eq!(placement(&Ok(vec![]), &[], &[]).status, Status::Ok);
        assert_eq!(placement(&absent(), &[], &[]).status, Status::Unknown);
        let unread = Ok(vec![Irq { number: 1, cores: forbidden() }]);
        assert_eq!(placement(&unread, &[], &[]).found, "permission denied");
        assert_eq!(placement(&Ok(vec![irq(1, "x")]), &[], &[]).status, Status::Unknown);
    }

    #[test]
    fn the_balancer_is_seen_by_its_name() {
        assert_eq!(balancer(&Ok(vec!["init".into(), "irqbalance".into()])).status, Status::Note);
        assert_eq!(balancer(&Ok(vec!["init".into()])).status, Status::Ok);
        assert_eq!(balancer(&absent()).status, Status::Unknown);
    }
}
