//! Where a suite that writes to a disk may do so, and how much; afterwards nothing is left of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::statvfs;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

const PREFIX: &str = "gapless-bench-log-";
/// Locked as long as its directory is in use.
const OWNER: &str = "owner";
/// Bytes that a burst writes: fewer than a machine with 16 GiB lets become dirty before it makes
/// writers wait.
const BURST_BYTES: u64 = 2 << 30;
const BURST_BYTES_QUICK: u64 = 1 << 30;
/// Messages that a late subscriber is behind.
const BACKLOG: u64 = 10_000_000;
const BACKLOG_QUICK: u64 = 1_000_000;

/// What the cases of a suite that writes need to know; both sides of a run know the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// A directory of the measurement's own.
    pub(crate) dir: PathBuf,
    /// Bytes that a burst writes.
    pub(crate) burst_bytes: u64,
    pub(crate) quick: bool,
    /// Other people's servers are to be measured as well.
    pub(crate) peers: bool,
}

impl Place {
    /// Bytes of the log that is searched and opened: 10 GiB, or two bursts in a quick measurement.
    pub(crate) fn library_bytes(&self) -> u64 {
        self.burst_bytes * if self.quick { 2 } else { 5 }
    }

    /// Messages that a late subscriber is behind; fewer if a burst does not hold as many.
    pub(crate) fn backlog(&self) -> u64 {
        let most = if self.quick { BACKLOG_QUICK } else { BACKLOG };
        most.min(self.burst_bytes / 128)
    }

    /// Why so many bytes cannot be written here, if they cannot.
    pub(crate) fn shortage(&self, bytes: u64) -> Option<String> {
        let free = free_bytes(&self.dir).ok()?;
        (free < bytes).then(|| {
            format!(
                "needs {:.1} GiB of disk, and {} has {:.1} GiB free: name another place by --dir",
                gibibytes(bytes),
                self.dir.display(),
                gibibytes(free)
            )
        })
    }

    /// Waits until the disk has taken what the file system has to tell it. Files that are gone do
    /// not count: what of them was not written never will be.
    pub(crate) fn settle(&self) -> Result<()> {
        let dir = File::open(&self.dir).context("open the measurement's directory")?;
        nix::unistd::syncfs(dir).context("wait for the disk")
    }

    /// A directory below this one, removed together with all unwritten data when it is dropped.
    pub(crate) fn scratch(&self) -> Result<Scratch> {
        let dir = tempfile::Builder::new().prefix("run-").tempdir_in(&self.dir);
        Ok(Scratch { dir: dir.context("make a directory for one run")?, place: self.clone() })
    }
}

/// The files of one run.
pub(crate) struct Scratch {
    dir: TempDir,
    place: Place,
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Removes the files, and waits until no run to come pays for them.
    pub(crate) fn clear(self) -> Result<()> {
        self.dir.close().context("remove the files of a run")?;
        self.place.settle()
    }
}

/// The directory that a measurement owns, and its removal.
pub(crate) struct Site {
    pub(crate) place: Place,
    /// What people are told about the disk.
    pub(crate) line: String,
    _lock: File,
    _dir: TempDir,
}

impl Site {
    /// Makes a directory in `wanted`, or else beside this program or in the current directory,
    /// whichever is on a disk; removes those that killed measurements have left there.
    pub(crate) fn open(
        wanted: Option<&Path>,
        burst_bytes: Option<u64>,
        quick: bool,
        peers: bool,
    ) -> Result<Self> {
        let parent = wanted.map_or_else(on_disk, |dir| Ok(dir.to_path_buf()))?;
        ensure!(parent.is_dir(), "{} is no directory", parent.display());
        remove_leftovers(&parent);
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&parent);
        let dir = dir.with_context(|| format!("make a directory in {}", parent.display()))?;
        let lock = File::create(dir.path().join(OWNER)).context("claim the directory")?;
        lock.try_lock().context("lock the directory")?;
        let default = if quick { BURST_BYTES_QUICK } else { BURST_BYTES };
        let place = Place {
            dir: dir.path().to_path_buf(),
            burst_bytes: burst_bytes.unwrap_or(default),
            quick,
            peers,
        };
        Ok(Self { line: describe(&parent), place, _lock: lock, _dir: dir })
    }
}

/// Directories whose owner died: nobody holds their lock.
fn remove_leftovers(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let owner = File::open(entry.path().join(OWNER));
            if owner.is_ok_and(|owner| owner.try_lock().is_ok()) {
                // One that cannot be removed costs room, and nothing else.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

fn is_memory(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
}

/// The program's own directory or the current one, whichever is on a disk.
fn on_disk() -> Result<PathBuf> {
    let program = std::env::current_exe().context("find this program")?;
    let beside = program.parent().map(Path::to_path_buf);
    let current = std::env::current_dir().context("find the current directory")?;
    let candidates = beside.into_iter().chain([current.clone()]);
    Ok(candidates.into_iter().find(|dir| !is_memory(dir)).unwrap_or(current))
}

fn free_bytes(dir: &Path) -> Result<u64> {
    let found = statvfs(dir).context("ask for free room")?;
    Ok(found.blocks_available() * found.fragment_size())
}

fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// File system, device, options and free room, and a warning if there is no disk behind it.
fn describe(dir: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let path = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_path_buf());
    let mounted = mount_of(&mounts, &path).unwrap_or_else(|| "unknown file system".into());
    let free = free_bytes(dir).map_or(0.0, gibibytes);
    let line = format!("files in {}: {mounted}, {free:.0} GiB free", dir.display());
    if is_memory(dir) {
        return format!("{line}; no disk: every figure below is memory's, name a disk by --dir");
    }
    line
}

/// The mount that a path is on, by the longest mount point above it.
fn mount_of(mounts: &str, path: &Path) -> Option<String> {
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let above = fields.filter(|mount| mount.len() >= 4 && path.starts_with(mount[1]));
    let mount = above.max_by_key(|mount| mount[1].len())?;
    Some(format!("{} on {} ({})", mount[2], mount[0], mount[3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_the_longest_one_above() {
        let mounts = "a / ext4 rw 0 0\nb /data xfs ro,x 0 0\nc /database tmpfs rw 0 0\n";
        assert_eq!(mount_of(mounts, Path::new("/data/x")).unwrap(), "xfs on b (ro,x)");
        assert_eq!(mount_of(mounts, Path::new("/home")).unwrap(), "ext4 on a (rw)");
        assert_eq!(mount_of("", Path::new("/home")), None);
    }

    #[test]
    fn what_a_dead_measurement_left_is_removed_and_a_live_ones_is_not() {
        let parent = tempfile::tempdir().unwrap();
        let dead = parent.path().join(format!("{PREFIX}dead"));
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join(OWNER), "").unwrap();
        let open = || Site::open(Some(parent.path()), Some(1 << 20), true, false).unwrap();
        let alive = open();
        assert!(!dead.exists());
        let second = open();
        let dir = alive.place.dir.clone();
        assert!(dir.exists() && second.place.dir.exists() && dir != second.place.dir);
        drop(alive);
        assert!(!dir.exists());
    }

    #[test]
    fn scratch_files_are_gone_when_they_are_cleared() {
        let parent = tempfile::tempdir().unwrap();
        let site = Site::open(Some(parent.path()), None, true, false).unwrap();
        let scratch = site.place.scratch().unwrap();
        let file = scratch.path().join("file");
        fs::write(&file, "x").unwrap();
        scratch.clear().unwrap();
        assert!(!file.exists());
        assert!(site.place.shortage(u64::MAX).unwrap().contains("--dir"));
        assert_eq!(site.place.shortage(0), None);
    }
}
