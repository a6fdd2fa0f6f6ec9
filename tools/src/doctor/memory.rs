//! Memory: huge pages, the file system that rings live in, swap, nodes.

use nix::sys::statvfs::statvfs;

use super::cores;
use super::finding::Finding;
use super::host::{Host, Missing, Reading, Text};
use crate::table::bytes_text;

const THP: &str = "/sys/kernel/mm/transparent_hugepage";
const SHM: &str = "/dev/shm";
/// Free room below which a few rings of the default capacity do not fit, bytes.
const SHM_FREE_MIN: u64 = 256 << 20;

/// What was read.
pub(super) struct Memory {
    transparent: Text,
    shmem: Text,
    mounts: Text,
    /// Huge pages of each size: its name, kB, how many are reserved, how many of these free.
    pools: [(&'static str, u64, Text, Text); 2],
    /// Size and free room, bytes.
    shm: Reading<(u64, u64)>,
    swaps: Text,
    nodes: Text,
}

impl Memory {
    pub(super) fn read(host: &Host) -> Self {
        let pool = |check: &'static str, kib: u64| {
            let read = |file: &str| {
                host.read(&format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB/{file}"))
            };
            (check, kib, read("nr_hugepages"), read("free_hugepages"))
        };
        let room = statvfs(&host.path(SHM));
        Self {
            transparent: host.read(&format!("{THP}/enabled")),
            shmem: host.read(&format!("{THP}/shmem_enabled")),
            mounts: host.read("/proc/self/mounts"),
            pools: [pool("huge pages, 2 MiB", 2 << 10), pool("huge pages, 1 GiB", 1 << 20)],
            shm: room
                .map(|room| {
                    let block = room.fragment_size();
                    (room.blocks() * block, room.blocks_available() * block)
                })
                .map_err(|errno| Missing::new(SHM, &errno.into())),
            swaps: host.read("/proc/swaps"),
            nodes: host.read("/sys/devices/system/node/online"),
        }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        let mut findings = vec![
            transparent(&self.transparent),
            shmem(&self.shmem),
            shm_pages(&self.mounts, &self.shmem),
        ];
        let pools = self.pools.iter();
        findings.extend(pools.map(|(check, kib, all, free)| pool(check, *kib, all, free)));
        findings.push(hugetlbfs(&self.mounts));
        findings.push(shm_room(&self.shm));
        findings.push(swap(&self.swaps));
        findings.push(nodes(&self.nodes));
        findings
    }
}

/// The word in brackets: `always [madvise] never`.
fn chosen(text: &str) -> Option<&str> {
    text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
}

fn transparent(mode: &Text) -> Finding {
    const CHECK: &str = "transparent huge pages";
    let text = match mode {
        Ok(text) => text,
        Err(Missing { absent: true, .. }) => {
            return Finding::note(CHECK, "not in this kernel", "ordinary memory has small pages");
        }
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let fix = format!("echo madvise > {THP}/enabled");
    match chosen(text) {
        Some("madvise") => Finding::ok(CHECK, "madvise: for those who ask"),
        Some("always") => {
            let why = "the kernel may stop any process to make or merge pages";
            Finding::note(CHECK, "always", why).fix(fix)
        }
        Some("never") => {
            Finding::note(CHECK, "never", "ordinary memory has small pages only").fix(fix)
        }
        _ => Finding::garbled(CHECK, text),
    }
}

fn shmem(mode: &Text) -> Finding {
    const CHECK: &str = "shmem_enabled";
    let text = match mode {
        Ok(text) => text,
        Err(Missing { absent: true, .. }) => {
            return Finding::note(CHECK, "not in this kernel", "shared memory has small pages");
        }
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    match chosen(text) {
        Some(mode @ ("advise" | "within_size" | "always" | "force")) => Finding::ok(CHECK, mode),
        Some(mode @ ("never" | "deny")) => {
            let why = "shared memory without a file has small pages";
            Finding::note(CHECK, mode, why).fix(format!("echo advise > {THP}/shmem_enabled"))
        }
        _ => Finding::garbled(CHECK, text),
    }
}

/// The mounts of this type: where, and with which options.
fn mounts_of<'a>(mounts: &'a str, kind: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    mounts.lines().filter_map(move |line| {
        let mut words = line.split_whitespace().skip(1);
        let (place, found, options) = (words.next()?, words.next()?, words.next()?);
        (found == kind).then_some((place, options))
    })
}

/// What `huge=transparent` may do for a ring: the mount's own option says, unless the kernel's
/// overrules it.
fn shm_pages(mounts: &Text, shmem: &Text) -> Finding {
    const CHECK: &str = "huge pages in /dev/shm";
    let mounts = match mounts {
        Ok(mounts) => mounts,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    // What is mounted last lies on top.
    let Some((_, options)) = mounts_of(mounts, "tmpfs").filter(|(place, _)| *place == SHM).last()
    else {
        let reason = format!("{SHM} is no tmpfs of its own");
        return Finding::unknown(CHECK, &Missing { absent: true, reason });
    };
    let option = options.split(',').find_map(|option| option.strip_prefix("huge="));
    let why = "huge=transparent changes nothing for rings there";
    let fix = format!("mount -o remount,huge=advise {SHM}");
    match (shmem.as_deref().ok().and_then(chosen), option) {
        (Some("force"), _) => Finding::ok(CHECK, "forced by shmem_enabled"),
        (Some("deny"), _) => Finding::note(CHECK, "denied by shmem_enabled", why)
            .fix(format!("echo advise > {THP}/shmem_enabled && {fix}")),
        (_, Some(mode @ ("advise" | "within_size" | "always"))) => {
            Finding::ok(CHECK, format!("huge={mode}"))
        }
        (_, mode) => {
            Finding::note(CHECK, format!("huge={}", mode.unwrap_or("never")), why).fix(fix)
        }
    }
}

fn pool(check: &'static str, kib: u64, reserved: &Text, free: &Text) -> Finding {
    let (reserved, free) = match (reserved, free) {
        (Ok(reserved), Ok(free)) => (reserved, free),
        (Err(Missing { absent: true, .. }), _) => {
            return Finding::ok(check, "not in this kernel or processor");
        }
        (Err(missing), _) | (_, Err(missing)) => return Finding::unknown(check, missing),
    };
    let (Ok(pages), Ok(left)) = (reserved.parse::<u64>(), free.parse::<u64>()) else {
        return Finding::garbled(check, &format!("{reserved} {free}"));
    };
    let found = format!("{pages} reserved, {left} free");
    let why = "rings and frame buffers miss the TLB with small pages";
    match (kib, pages) {
        // Those of 2 MiB do for us.
        (1_048_576, 0) => Finding::ok(check, found),
        (_, 0) => Finding::note(check, found, why).fix("sysctl -w vm.nr_hugepages=512"),
        _ if left == 0 => {
            let fix = if kib == 2 << 10 {
                format!("sysctl -w vm.nr_hugepages={}", pages.saturating_mul(2))
            } else {
                format!(
                    "echo {} > /sys/kernel/mm/hugepages/hugepages-{kib}kB/nr_hugepages",
                    pages.saturating_add(1)
                )
            };
            Finding::note(check, found, "all are taken: huge=required is refused").fix(fix)
        }
        _ => Finding::ok(check, found),
    }
}

fn hugetlbfs(mounts: &Text) -> Finding {
    const CHECK: &str = "hugetlbfs";
    let mounts = match mounts {
        Ok(mounts) => mounts,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let places: Vec<String> = mounts_of(mounts, "hugetlbfs")
        .map(|(place, options)| {
            let size = options.split(',').find_map(|option| option.strip_prefix("pagesize="));
            format!("{place} ({})", size.unwrap_or("pages of the default size"))
        })
        .collect();
    if places.is_empty() {
        let why = "rings with huge=required need a directory there";
        return Finding::note(CHECK, "not mounted", why)
            .fix("mkdir -p /mnt/huge && mount -t hugetlbfs none /mnt/huge");
    }
    Finding::ok(CHECK, places.join(", "))
}

fn shm_room(room: &Reading<(u64, u64)>) -> Finding {
    const CHECK: &str = "/dev/shm";
    let (size, free) = match room {
        Ok(room) => *room,
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    let found = format!("{}, {} free", bytes_text(size), bytes_text(free));
    if free >= SHM_FREE_MIN {
        return Finding::ok(CHECK, found);
    }
    let wanted = size.saturating_add(1 << 30).div_ceil(1 << 30);
    Finding::warning(CHECK, found, "rings live there, and are refused without room")
        .fix(format!("mount -o remount,size={wanted}G {SHM}"))
}

fn swap(swaps: &Text) -> Finding {
    const CHECK: &str = "swap";
    let swaps = match swaps {
        Ok(swaps) => swaps,
        Err(Missing { absent: true, .. }) => return Finding::ok(CHECK, "not in this kernel"),
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    if !swaps.starts_with("Filename") {
        return Finding::garbled(CHECK, swaps);
    }
    let files = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let files: Vec<&str> = files.collect();
    if files.is_empty() {
        return Finding::ok(CHECK, "none");
    }
    let why = "a page that is not locked may have to come back from disk, milliseconds";
    Finding::note(CHECK, files.join(", "), why).fix("swapoff -a")
}

fn nodes(online: &Text) -> Finding {
    const CHECK: &str = "NUMA nodes";
    let text = match online {
        Ok(text) => text,
        Err(Missing { absent: true, .. }) => return Finding::ok(CHECK, "1"),
        Err(missing) => return Finding::unknown(CHECK, missing),
    };
    match cores::parse(text).map_or(0, |nodes| nodes.len()) {
        0 => Finding::garbled(CHECK, text),
        1 => Finding::ok(CHECK, "1"),
        count => {
            let why = "memory, cores and network card should be of one node";
            Finding::note(CHECK, format!("{count} ({text})"), why)
                .fix("numactl --cpunodebind=0 --membind=0 gapless ...")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Status;
    use super::super::host::tests::{absent, forbidden, text};
    use super::*;

    const MOUNTS: &str = "proc /proc proc rw 0 0\n\
        tmpfs /dev/shm tmpfs rw,size=4g 0 0\n\
        tmpfs /dev/shm tmpfs rw,size=4g,huge=advise 0 0\n\
        none /mnt/huge hugetlbfs rw,relatime,pagesize=2M 0 0\n\
        cut\n";

    #[test]
    fn the_mode_of_transparent_huge_pages_is_the_word_in_brackets() {
        let of = |mode: &str| transparent(&text(mode)).status;
        assert_eq!(of("always [madvise] never"), Status::Ok);
        assert_eq!(of("[always] madvise never"), Status::Note);
        assert_eq!(of("always madvise [never]"), Status::Note);
        for bad in ["", "always", "[", "[]", "[x]"] {
            assert_eq!(of(bad), Status::Unknown, "{bad}");
        }
        assert_eq!(transparent(&absent()).status, Status::Note);
        assert_eq!(transparent(&forbidden()).status, Status::Unknown);
        let of = |mode: &str| shmem(&text(mode)).status;
        assert_eq!(of("always within_size [advise] never deny force"), Status::Ok);
        assert_eq!(of("always within_size advise [never] deny force"), Status::Note);
        assert_eq!(of("?"), Status::Unknown);
        assert_eq!(shmem(&absent()).status, Status::Note);
        assert_eq!(shmem(&forbidden()).status, Status::Unknown);
    }

    #[test]
    fn the_mount_decides_for_rings_unless_the_kernel_does() {
        let never = text("always advise [never] deny force");
        assert_eq!(shm_pages(&text(MOUNTS), &never).found, "huge=advise");
        let plain = shm_pages(&text("tmpfs /dev/shm tmpfs rw 0 0"), &never);
        assert_eq!((plain.status, plain.found.as_str()), (Status::Note, "huge=never"));
        assert_eq!(shm_pages(&text(MOUNTS), &text("never [deny]")).status, Status::Note);
        let forced = shm_pages(&text("tmpfs /dev/shm tmpfs rw 0 0"), &text("[force]"));
        assert_eq!(forced.status, Status::Ok);
        assert_eq!(shm_pages(&text("proc /proc proc rw 0 0"), &never).status, Status::Unknown);
        assert_eq!(shm_pages(&absent(), &never).status, Status::Unknown);
    }

    #[test]
    fn reserved_pages_are_counted() {
        let of = |reserved: &str, free: &str| pool("x", 2048, &text(reserved), &text(free));
        assert_eq!(of("512", "500").found, "512 reserved, 500 free");
        assert_eq!(of("512", "500").status, Status::Ok);
        assert_eq!(of("0", "0").fix.as_deref(), Some("sysctl -w vm.nr_hugepages=512"));
        assert_eq!(of("8", "0").fix.as_deref(), Some("sysctl -w vm.nr_hugepages=16"));
        assert_eq!(of("", "-1").status, Status::Unknown);
        let large = |count: &str| pool("x", 1 << 20, &text(count), &text("0"));
        assert_eq!(large("0").status, Status::Ok);
        let fix = large("1").fix.expect("a fix");
        assert_eq!(fix, "echo 2 > /sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages");
        assert_eq!(pool("x", 2048, &absent(), &absent()).status, Status::Ok);
        assert_eq!(pool("x", 2048, &text("1"), &forbidden()).status, Status::Unknown);
        assert_eq!(hugetlbfs(&text(MOUNTS)).found, "/mnt/huge (2M)");
        assert_eq!(hugetlbfs(&text("")).status, Status::Note);
        assert_eq!(hugetlbfs(&absent()).status, Status::Unknown);
    }

    #[test]
    fn rings_need_room() {
        assert_eq!(shm_room(&Ok((4 << 30, 1 << 30))).found, "4 GiB, 1 GiB free");
        let full = shm_room(&Ok((64 << 20, 1 << 20)));
        assert_eq!(full.status, Status::Warning);
        assert_eq!(full.fix.as_deref(), Some("mount -o remount,size=2G /dev/shm"));
        assert_eq!(shm_room(&absent()).status, Status::Unknown);
    }

    #[test]
    fn swap_and_nodes() {
        let header = "Filename\tType\tSize\tUsed\tPriority";
        assert_eq!(swap(&text(header)).status, Status::Ok);
        let used = swap(&text(&format!("{header}\n/dev/sda2 partition 1 0 -2\n")));
        assert_eq!((used.status, used.found.as_str()), (Status::Note, "/dev/sda2"));
        assert_eq!(swap(&text("?")).status, Status::Unknown);
        assert_eq!(swap(&absent()).status, Status::Ok);
        assert_eq!(swap(&forbidden()).status, Status::Unknown);
        assert_eq!(nodes(&text("0")).status, Status::Ok);
        assert_eq!(nodes(&text("0-1")).found, "2 (0-1)");
        assert_eq!(nodes(&text("x")).status, Status::Unknown);
        assert_eq!(nodes(&absent()).status, Status::Ok);
    }
}
