//! What must not keep a recorder waiting: syncing, finishing and removing segments, and getting the
//! next one ready. Done on a thread of its own, or in line where the order of things must be the
//! caller's.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use super::catalog::SegmentName;
use super::disk::{Disk, DiskFile};
use super::retention::Removal;
use super::unsynced;

/// Something to do. All is done in the order in which it was asked for.
pub(crate) enum Job<F> {
    /// Make the log last, up to what was written when this was asked: earlier segments, the file
    /// that is written, names.
    Sync {
        directory: PathBuf,
        earlier: Vec<SegmentName>,
        file: Option<(Arc<F>, PathBuf)>,
        names: bool,
        end_sequence: u64,
    },
    /// Cut a sealed segment to its length, and its index likewise.
    Finish { file: Arc<F>, path: PathBuf, length: u64, index: Option<F>, sync: bool },
    /// Make a file with room for a segment.
    Prepare { path: PathBuf, bytes: u64 },
    /// Remove segments.
    Remove { directory: PathBuf, removal: Removal },
}

/// What was done.
pub(crate) enum Done<F> {
    Synced { end_sequence: u64 },
    Prepared { path: PathBuf, file: Option<F> },
    SyncFailed { path: PathBuf, source: io::Error },
}

fn work<D: Disk>(disk: &D, job: Job<D::File>) -> Option<Done<D::File>> {
    match job {
        Job::Sync { directory, earlier, file, names, end_sequence } => {
            let sync = || {
                unsynced::sync(disk, &directory, &earlier)?;
                if let Some((file, path)) = &file {
                    file.sync().map_err(|source| (path.clone(), source))?;
                }
                match names {
                    true => disk.sync_directory(&directory).map_err(|e| (directory.clone(), e)),
                    false => Ok(()),
                }
            };
            Some(match sync() {
                Ok(()) => Done::Synced { end_sequence },
                Err((path, source)) => sync_failed(disk, path, source, &directory),
            })
        }
        Job::Finish { file, path, length, index, sync } => {
            // A tail of zeroes that stays is none the worse: readers stop at the seal.
            let _ = file.set_length(length);
            let synced = if sync { file.sync() } else { Ok(()) };
            if let Some(index) = index.filter(|_| sync) {
                let _ = index.sync(); // rebuilt if it is lost
            }
            let directory = path.parent().map(Path::to_path_buf).unwrap_or_default();
            synced.err().map(|source| sync_failed(disk, path, source, &directory))
        }
        Job::Prepare { path, bytes } => {
            let file = disk.create(&path).ok().filter(|file| file.allocate(bytes).is_ok());
            if file.is_none() {
                let _ = disk.remove(&path); // the room it took may be what is lacking
            }
            Some(Done::Prepared { path, file })
        }
        Job::Remove { directory, removal } => match removal.prepare(disk, &directory) {
            Ok(()) => {
                let _ = removal.run(disk, &directory); // tried again with the next segment
                None
            }
            Err((path, source)) => Some(sync_failed(disk, path, source, &directory)),
        },
    }
}

fn sync_failed<D: Disk>(
    disk: &D,
    path: PathBuf,
    source: io::Error,
    directory: &Path,
) -> Done<D::File> {
    unsynced::mark(disk, directory);
    Done::SyncFailed { path, source }
}

/// Does jobs.
pub(crate) enum Keeper<D: Disk> {
    InLine {
        disk: D,
        done: VecDeque<Done<D::File>>,
    },
    Thread {
        jobs: Option<Sender<Job<D::File>>>,
        done: Receiver<Done<D::File>>,
        thread: Option<JoinHandle<()>>,
    },
}

impl<D: Disk> Keeper<D> {
    pub(crate) fn in_line(disk: D) -> Self {
        Self::InLine { disk, done: VecDeque::new() }
    }

    pub(crate) fn thread(disk: D) -> io::Result<Self> {
        let (jobs, to_do) = channel::<Job<D::File>>();
        let (told, done) = channel();
        let run = move || {
            for job in to_do {
                if let Some(result) = work(&disk, job) {
                    let _ = told.send(result); // nobody listens any more: still finish
                }
            }
        };
        let thread = Builder::new().name("log keeper".into()).spawn(run)?;
        Ok(Self::Thread { jobs: Some(jobs), done, thread: Some(thread) })
    }

    pub(crate) fn submit(&mut self, job: Job<D::File>) {
        match self {
            Self::InLine { disk, done } => done.extend(work(disk, job)),
            Self::Thread { jobs, .. } => {
                // It ends only with this value.
                if let Some(jobs) = jobs {
                    let _ = jobs.send(job);
                }
            }
        }
    }

    pub(crate) fn poll(&mut self) -> Option<Done<D::File>> {
        match self {
            Self::InLine { done, .. } => done.pop_front(),
            Self::Thread { done, .. } => done.try_recv().ok(),
        }
    }

    /// Waits for one result; `None` if none will come.
    pub(crate) fn wait(&mut self) -> Option<Done<D::File>> {
        match self {
            Self::InLine { done, .. } => done.pop_front(),
            Self::Thread { done, .. } => done.recv().ok(),
        }
    }
}

impl<D: Disk> Drop for Keeper<D> {
    fn drop(&mut self) {
        if let Self::Thread { jobs, thread, .. } = self {
            *jobs = None;
            if let Some(thread) = thread.take() {
                let _ = thread.join();
            }
        }
    }
}
