//! A disk in memory that fails as disks do, by a seed: for tests of what must survive that.
//!
//! Writes that are not synced may be torn, dropped and reordered when the power goes; names that
//! are not synced may come or go; any call may be refused, cut short or interrupted; a failed sync
//! is not made good by the next; a process may die within any call. The same seed and the same
//! calls give the same faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gapless_shm::FileMap;

use super::disk::{Disk, DiskFile};
use super::platter::Platter;
use crate::protocol::Random;

/// How often calls fail, from 0 to 1 each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Faults {
    /// Reads and writes that do less than was asked for.
    pub short: f64,
    /// Reads and writes that are interrupted by a signal.
    pub interrupted: f64,
    /// Calls of any sort that are refused with an input/output error.
    pub io_error: f64,
    /// Calls that need room and are told that there is none; a write may be done in part.
    pub no_room: f64,
    /// Syncs that fail. What they were to make last may be lost for good, although readers still
    /// see it, and the next sync succeeds.
    pub sync_error: f64,
}

/// What the n-th call meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An input/output error; a sync then fails as by [`Faults::sync_error`].
    Error,
    /// No room, if it is a call that needs any.
    NoRoom,
    /// The death of the process: a write is done in part, anything else may or may not be done, and
    /// every later call by the same process fails.
    Death,
}

/// A disk in memory, with faults. Clones are the same disk, used by the same process.
///
/// ```
/// use gapless::log::{FaultyDisk, LogOptions, SyncPolicy};
/// let disk = FaultyDisk::new(7);
/// let options = LogOptions::new().segment_bytes(1 << 16).in_line(true);
/// let (mut log, _) = options.open_on(disk.clone(), "/log")?;
/// log.begin(1, 1)?;
/// log.append(1, b"kept", gapless::Flags::WHOLE, 0)?;
/// log.sync()?;
/// log.append(2, b"lost", gapless::Flags::WHOLE, 0)?;
///
/// let disk = disk.power_off(42); // the log that is open can do nothing any more
/// let (log, recovery) = options.open_on(disk, "/log")?;
/// assert_eq!(recovery.map(|found| found.next_sequence), Some(2));
/// # Ok::<(), gapless::log::LogError>(())
/// ```
#[derive(Clone)]
pub struct FaultyDisk {
    state: Arc<Mutex<State>>,
    /// Which process this value belongs to: all but the last one are dead.
    process: u64,
}

/// An open file of a [`FaultyDisk`].
#[derive(Debug)]
pub struct FaultyFile {
    disk: FaultyDisk,
    inode: u64,
    handle: u64,
}

#[derive(Debug)]
struct State {
    random: Random,
    boot: u64,
    process: u64,
    dead: bool,
    calls: u64,
    failed_syncs: u64,
    faults: Faults,
    planned: BTreeMap<u64, Fault>,
    /// Bytes of room on the disk.
    room: Option<u64>,
    directories: BTreeSet<PathBuf>,
    /// Names as processes see them, and as they are on the disk.
    names: BTreeMap<PathBuf, u64>,
    stored_names: BTreeMap<PathBuf, u64>,
    /// What leads from the second to the first.
    name_changes: Vec<NameChange>,
    inodes: BTreeMap<u64, Inode>,
    handles: u64,
}

#[derive(Clone, Debug)]
enum NameChange {
    Set(PathBuf, u64),
    Rename(PathBuf, PathBuf, u64),
    Remove(PathBuf),
}

#[derive(Debug, Default)]
struct Inode {
    platter: Platter,
    /// Bytes of room it takes.
    allocated: u64,
    opened: u64,
    /// The handle that has its lock.
    locked: Option<u64>,
}

/// What a call is, as far as faults go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Read,
    Write,
    Room,
    Sync,
    Other,
}

/// How a call goes.
enum Way {
    Done,
    /// Only in part, up to so many in a thousand; then the process is dead or not.
    Part(u64),
}

fn died() -> io::Error {
    io::Error::other("the process is dead")
}

fn refused() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

fn no_room() -> io::Error {
    io::ErrorKind::StorageFull.into()
}

impl FaultyDisk {
    /// An empty disk without faults.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            boot: 1,
            process: 0,
            dead: false,
            calls: 0,
            failed_syncs: 0,
            faults: Faults::default(),
            planned: BTreeMap::new(),
            room: None,
            directories: BTreeSet::new(),
            names: BTreeMap::new(),
            stored_names: BTreeMap::new(),
            name_changes: Vec::new(),
            inodes: BTreeMap::new(),
            handles: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), process: 0 }
    }

    /// From now on calls fail so often.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// The `calls`-th call from now on, 0 being the next, meets `fault`.
    pub fn plan(&self, calls: u64, fault: Fault) {
        let mut state = self.lock();
        let at = state.calls + calls;
        state.planned.insert(at, fault);
    }

    /// From now on the disk has room for so many bytes of files; `None`: for any.
    pub fn set_room(&self, bytes: Option<u64>) {
        self.lock().room = bytes;
    }

    /// Bytes of files that the disk has room for are used up.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// Calls made so far.
    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    /// Syncs of files that failed so far.
    pub fn failed_syncs(&self) -> u64 {
        self.lock().failed_syncs
    }

    /// Whether the process met its [planned](Self::plan) death.
    pub fn is_dead(&self) -> bool {
        let state = self.lock();
        state.dead || state.process != self.process
    }

    /// The process dies: everything that uses this value or its clones fails from now on. Returns
    /// the disk as the next process finds it: all that was written is there. Plans, faults and
    /// locks are gone.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut state = self.lock();
        state.process += 1;
        state.dead = false;
        state.planned.clear();
        state.faults = Faults::default();
        for inode in state.inodes.values_mut() {
            (inode.opened, inode.locked) = (0, None);
        }
        state.collect();
        Self { state: Arc::clone(&self.state), process: state.process }
    }

    /// The power goes, and comes back: as [`kill`](Self::kill), and of what was not synced, data
    /// and names, is there what `seed` says.
    #[must_use]
    pub fn power_off(&self, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let next = self.kill();
        let mut state = self.lock();
        state.boot += 1;
        let kept = [0.0, 0.5, 1.0][random.below(3) as usize];
        for change in std::mem::take(&mut state.name_changes) {
            if random.chance(kept) {
                change.apply(&mut state.stored_names);
            }
        }
        state.names = state.stored_names.clone();
        state.collect();
        for inode in state.inodes.values_mut() {
            inode.platter.power_off(&mut random);
            inode.allocated = inode.allocated.max(inode.platter.bytes().len() as u64);
        }
        drop(state);
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What a panic of a test's thread left is as good as what a kill leaves.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a call, and says how it goes.
    fn call(&self, call: Call) -> io::Result<(MutexGuard<'_, State>, Way)> {
        let mut state = self.lock();
        if state.process != self.process || state.dead {
            return Err(died());
        }
        let way = state.way(call)?;
        Ok((state, way))
    }

    /// A call that is done or not.
    fn simple(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        match self.call(call)? {
            (state, Way::Part(part)) if state.dead && part < 500 => {
                drop(state);
                Err(died())
            }
            (state, _) => Ok(state),
        }
    }

    fn handle(&self, state: &mut State, inode: u64) -> FaultyFile {
        state.handles += 1;
        if let Some(inode) = state.inodes.get_mut(&inode) {
            inode.opened += 1;
        }
        FaultyFile { disk: self.clone(), inode, handle: state.handles }
    }
}

impl fmt::Debug for FaultyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyDisk").field("process", &self.process).finish_non_exhaustive()
    }
}

impl State {
    fn way(&mut self, call: Call) -> io::Result<Way> {
        let planned = self.planned.remove(&self.calls);
        self.calls += 1;
        let (faults, part) = (self.faults, self.random.below(1000));
        let mut hit = |probability| probability > 0.0 && self.random.chance(probability);
        let data = matches!(call, Call::Read | Call::Write);
        let room = matches!(call, Call::Write | Call::Room);
        if planned == Some(Fault::Death) {
            self.dead = true;
            return Ok(Way::Part(part));
        }
        if planned == Some(Fault::Error) || hit(faults.io_error) {
            return Err(refused());
        }
        if call == Call::Sync && hit(faults.sync_error) {
            return Err(refused());
        }
        if room && (planned == Some(Fault::NoRoom) || hit(faults.no_room)) {
            return match call {
                Call::Write if part < 500 => Ok(Way::Part(part)),
                _ => Err(no_room()),
            };
        }
        if data && hit(faults.interrupted) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if data && hit(faults.short) {
            return Ok(Way::Part(part));
        }
        Ok(Way::Done)
    }

    fn used(&self) -> u64 {
        self.inodes.values().map(|inode| inode.allocated).sum()
    }

    /// Takes room so that a file has `bytes`, or as many of them as there are.
    fn take_room(&mut self, inode: u64, bytes: u64) -> u64 {
        let free = self.room.map_or(u64::MAX, |room| room.saturating_sub(self.used()));
        let Some(inode) = self.inodes.get_mut(&inode) else { return 0 };
        let more = bytes.saturating_sub(inode.allocated).min(free);
        inode.allocated += more;
        bytes.min(inode.allocated)
    }

    /// Lets go of files that have neither a name nor a handle.
    fn collect(&mut self) {
        let named: BTreeSet<u64> =
            self.names.values().chain(self.stored_names.values()).copied().collect();
        let pending: BTreeSet<u64> = self.name_changes.iter().filter_map(NameChange::of).collect();
        let visible: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|id, inode| {
            if !visible.contains(id) && inode.opened == 0 {
                inode.allocated = 0; // its room can be used; its bytes may yet come back
            }
            named.contains(id) || pending.contains(id) || inode.opened > 0
        });
    }

    fn change(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
        self.collect();
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn directory_of(&self, path: &Path) -> io::Result<()> {
        let there = path.parent().is_some_and(|parent| self.directories.contains(parent));
        if there { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<PathBuf, u64>) {
        match self {
            Self::Set(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
        }
    }

    fn of(&self) -> Option<u64> {
        match self {
            Self::Set(_, inode) | Self::Rename(_, _, inode) => Some(*inode),
            Self::Remove(_) => None,
        }
    }

    fn is_in(&self, directory: &Path) -> bool {
        let (Self::Set(path, _) | Self::Rename(path, ..) | Self::Remove(path)) = self;
        path.parent() == Some(directory)
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.simple(Call::Other)?;
        state.directories.extend(path.ancestors().map(Path::to_path_buf));
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let state = self.simple(Call::Other)?;
        if !state.directories.contains(directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let here = state.names.keys().filter(|path| path.parent() == Some(directory));
        Ok(here.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect())
    }

    fn create(&self, path: &Path) -> io::Result<FaultyFile> {
        let mut state = self.simple(Call::Other)?;
        state.directory_of(path)?;
        let inode = match state.names.get(path).copied() {
            Some(inode) => {
                if let Some(inode) = state.inodes.get_mut(&inode) {
                    inode.platter.set_length(0);
                    inode.allocated = 0;
                }
                inode
            }
            None => {
                state.handles += 1;
                let inode = state.handles;
                state.inodes.insert(inode, Inode { opened: 1, ..Inode::default() });
                state.change(NameChange::Set(path.to_path_buf(), inode));
                if let Some(inode) = state.inodes.get_mut(&inode) {
                    inode.opened = 0;
                }
                inode
            }
        };
        Ok(self.handle(&mut state, inode))
    }

    fn open(&self, path: &Path, _writable: bool) -> io::Result<FaultyFile> {
        let mut state = self.simple(Call::Other)?;
        let inode = state.find(path)?;
        Ok(self.handle(&mut state, inode))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.simple(Call::Other)?;
        let inode = state.find(from)?;
        state.directory_of(to)?;
        state.change(NameChange::Rename(from.to_path_buf(), to.to_path_buf(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.simple(Call::Other)?;
        state.find(path)?;
        state.change(NameChange::Remove(path.to_path_buf()));
        Ok(())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = self.simple(Call::Sync)?;
        let changes = std::mem::take(&mut state.name_changes);
        let (here, elsewhere) = changes.into_iter().partition(|change| change.is_in(path));
        state.name_changes = elsewhere;
        let here: Vec<NameChange> = here;
        here.iter().for_each(|change| change.apply(&mut state.stored_names));
        state.collect();
        Ok(())
    }

    fn boot_id(&self) -> [u8; 16] {
        u128::from(self.lock().boot).to_le_bytes()
    }
}

impl FaultyFile {
    /// The file, unless its process is dead.
    fn with<T>(&self, state: &mut State, then: impl FnOnce(&mut Inode) -> T) -> io::Result<T> {
        state.inodes.get_mut(&self.inode).map(then).ok_or_else(died)
    }
}

impl DiskFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        let mut state = self.disk.simple(Call::Other)?;
        self.with(&mut state, |inode| inode.platter.bytes().len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let (mut state, way) = self.disk.call(Call::Read)?;
        self.with(&mut state, |inode| {
            let from = usize::try_from(offset).unwrap_or(usize::MAX);
            let there = inode.platter.bytes().get(from..).unwrap_or_default();
            let whole = bytes.len().min(there.len());
            let read = part(way, whole).max(usize::from(whole > 0));
            bytes[..read].copy_from_slice(&there[..read]);
            read
        })
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let (mut state, way) = self.disk.call(Call::Write)?;
        let least = usize::from(!state.dead && !bytes.is_empty());
        let wanted = part(way, bytes.len()).max(least) as u64;
        let end = state.take_room(self.inode, offset + wanted);
        let written = end.saturating_sub(offset) as usize;
        self.with(&mut state, |inode| match written {
            0 => {}
            _ => inode.platter.write(offset as usize, &bytes[..written]),
        })?;
        match written {
            _ if state.dead => Err(died()),
            0 if !bytes.is_empty() => Err(no_room()),
            written => Ok(written),
        }
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.simple(Call::Room)?;
        let before = self.with(&mut state, |inode| inode.allocated)?;
        let there = state.take_room(self.inode, bytes);
        self.with(&mut state, |inode| {
            if there < bytes {
                inode.allocated = before;
                return Err(no_room());
            }
            if (inode.platter.bytes().len() as u64) < bytes {
                inode.platter.set_length(bytes as usize);
            }
            Ok(())
        })?
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.simple(Call::Other)?;
        self.with(&mut state, |inode| {
            inode.allocated = inode.allocated.min(bytes);
            inode.platter.set_length(bytes as usize);
        })
    }

    fn sync(&self) -> io::Result<()> {
        let call = self.disk.call(Call::Sync).map(|(state, way)| match way {
            Way::Part(part) if state.dead => (state, part >= 500),
            _ => (state, true),
        });
        match call {
            Ok((mut state, true)) => self.with(&mut state, |inode| inode.platter.sync()),
            Ok((_, false)) => Err(died()),
            Err(error) => {
                let mut state = self.disk.lock();
                if state.process == self.disk.process && !state.dead {
                    state.failed_syncs += 1;
                    let mut random = Random::new(state.random.next());
                    self.with(&mut state, |inode| inode.platter.fail_sync(&mut random))?;
                }
                Err(error)
            }
        }
    }

    fn try_lock(&self) -> io::Result<bool> {
        let mut state = self.disk.simple(Call::Other)?;
        self.with(&mut state, |inode| *inode.locked.get_or_insert(self.handle) == self.handle)
    }

    fn map(&self) -> Option<FileMap> {
        None
    }
}

/// How much of `whole` is done.
fn part(way: Way, whole: usize) -> usize {
    match way {
        Way::Done => whole,
        Way::Part(thousandths) => whole * thousandths as usize / 1000,
    }
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        let mut state = self.disk.lock();
        if state.process != self.disk.process {
            return; // it let go when its process died
        }
        if let Some(inode) = state.inodes.get_mut(&self.inode) {
            inode.opened = inode.opened.saturating_sub(1);
            if inode.locked == Some(self.handle) {
                inode.locked = None;
            }
        }
        state.collect();
    }
}

#[cfg(test)]
mod tests;
