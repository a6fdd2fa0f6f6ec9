//! What a sequencer does, what it has done, and whether it may lead.

/// Who may lead, where the kernel's lease on the stream's ring does not say it alone: the seam for
/// a coordinator that knows of several hosts.
///
/// The lease always has to be had as well, so two processes of one host never both write.
pub trait Election: Send {
    /// Whether this sequencer may lead now. Asked before it begins to, and in each duty cycle while
    /// it does; it ceases when the answer is no. Must not block.
    fn may_lead(&mut self) -> bool;
}

/// The kernel's lease alone: whoever gets it leads.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelLease;

impl Election for KernelLease {
    fn may_lead(&mut self) -> bool {
        true
    }
}

/// What a sequencer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is no stream yet, and it may not begin one.
    Waiting,
    /// Another leads; this one follows it.
    Following,
    /// This one leads.
    Leading,
    /// A duty cycle of it has failed.
    Ended,
}

/// What has happened since a sequencer began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SequencerStats {
    /// Commands that it made records of.
    pub sequenced: u64,
    /// Commands that had been sequenced before.
    pub duplicates: u64,
    /// Frames that it refused.
    pub refused: u64,
    /// Records that it followed.
    pub followed: u64,
    /// How often it began to lead.
    pub terms: u64,
    /// Duty cycles in which the stream had no room.
    pub backpressure: u64,
    /// Snapshots that it wrote.
    pub snapshots: u64,
    /// Snapshots that it could not write; `Sequencer::snapshot_trouble` says why.
    pub snapshots_failed: u64,
    /// Errors of the network that it went on after.
    pub network_errors: u64,
    /// Readers that it threw out of an `evictable` stream, because they held it up for too long.
    pub evicted: u64,
}
