//! Making what was written last: when a sync is asked for, and what became of it.

use std::sync::Arc;

use super::catalog::SegmentName;
use super::disk::Disk;
use super::error::LogError;
use super::keeper::{Done, Job};
use super::options::SyncPolicy;
use super::writer::{LogWriter, PREPARED, Prepared};

/// What is durable, and what is being made so.
#[derive(Debug, Default)]
pub(super) struct SyncState {
    /// Finished segments that are not known to be durable.
    pub(super) earlier: Vec<SegmentName>,
    /// Whether names are not.
    pub(super) names: bool,
    /// Sequence behind what is durable.
    pub(super) durable_end: u64,
    /// Sequence behind what the last sync that was asked for makes durable.
    pub(super) asked_end: u64,
    pub(super) outstanding: usize,
    pub(super) asked_ns: u64,
}

impl<D: Disk> LogWriter<D> {
    /// Does what time demands: asks for syncs, takes note of what became of them, gets the next
    /// segment ready. To be called once in a while, also when nothing is written.
    ///
    /// # Errors
    /// [`LogError::SyncFailed`], which ends the writer.
    pub fn tick(&mut self, unix_ns: u64) -> Result<(), LogError> {
        while self.sync.outstanding > 0 || matches!(self.prepared, Prepared::Asked) {
            let Some(done) = self.keeper.poll() else { break };
            self.take(done);
        }
        self.fail()?;
        let due = match self.options.sync {
            SyncPolicy::None => false,
            SyncPolicy::Batch => true,
            SyncPolicy::Every(time) => {
                // Or the clock was set back.
                let passed = unix_ns.checked_sub(self.sync.asked_ns);
                passed.is_none_or(|passed| passed >= time.as_nanos() as u64)
            }
        };
        if due && self.sync.outstanding == 0 {
            self.sync.asked_ns = unix_ns;
            self.ask_for_sync();
        }
        let half = self.segment.as_ref().is_some_and(|segment| segment.end > segment.capacity / 2);
        if half && matches!(self.prepared, Prepared::No) {
            let (path, bytes) = (self.directory.join(PREPARED), self.options.segment_bytes);
            self.keeper.submit(Job::Prepare { path, bytes });
            self.prepared = Prepared::Asked;
        }
        Ok(())
    }

    /// Asks for what has been written to be made durable, if it is not.
    pub(super) fn ask_for_sync(&mut self) {
        if let Some(stream) = self.stream
            && stream.written_end > self.sync.asked_end
        {
            self.submit_sync(stream.written_end);
        }
    }

    pub(super) fn submit_sync(&mut self, end_sequence: u64) {
        let segment = self.segment.as_ref();
        self.keeper.submit(Job::Sync {
            directory: self.directory.clone(),
            earlier: std::mem::take(&mut self.sync.earlier),
            file: segment.map(|segment| (Arc::clone(&segment.file), segment.path.clone())),
            names: std::mem::take(&mut self.sync.names),
            end_sequence,
        });
        self.sync.asked_end = end_sequence;
        self.sync.outstanding += 1;
    }

    fn take(&mut self, done: Done<D::File>) {
        match done {
            // After a failure the system's word is worth nothing.
            Done::Synced { .. } if self.failed.is_some() => {}
            Done::Synced { end_sequence } => {
                self.sync.outstanding -= 1;
                self.sync.durable_end = self.sync.durable_end.max(end_sequence);
            }
            Done::SyncFailed { path, source } => {
                let durable_end = self.sync.durable_end;
                let failed = LogError::SyncFailed { path, source, durable_end };
                self.failed.get_or_insert(failed);
            }
            Done::Prepared { path, file: Some(file) } => {
                self.prepared = Prepared::Ready(path, file);
            }
            Done::Prepared { file: None, .. } => self.prepared = Prepared::Refused,
        }
    }

    /// Says again what ended the writer.
    pub(super) fn fail(&self) -> Result<(), LogError> {
        let Some(LogError::SyncFailed { path, source, durable_end }) = &self.failed else {
            return Ok(());
        };
        let source = source.kind().into();
        Err(LogError::SyncFailed { path: path.clone(), source, durable_end: *durable_end })
    }

    /// Waits for what has been asked for to be durable.
    pub(super) fn wait_for_syncs(&mut self) -> Result<(), LogError> {
        while self.sync.outstanding > 0 && self.failed.is_none() {
            let Some(done) = self.keeper.wait() else {
                let (path, source) =
                    (self.directory.clone(), std::io::ErrorKind::BrokenPipe.into());
                let durable_end = self.sync.durable_end;
                self.failed = Some(LogError::SyncFailed { path, source, durable_end });
                break;
            };
            self.take(done);
        }
        self.fail()
    }

    /// Flushes, and makes all of it durable before it returns, whatever the policy.
    ///
    /// # Errors
    /// As for [`flush`](Self::flush).
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.flush()?;
        if let Some(stream) = self.stream
            && (stream.written_end > self.sync.durable_end || !self.sync.earlier.is_empty())
        {
            self.submit_sync(stream.written_end);
        }
        self.wait_for_syncs()
    }
}
