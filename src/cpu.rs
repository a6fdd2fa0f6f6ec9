//! Cores: which there are, and pinning a thread to one.

use std::sync::OnceLock;

use core_affinity::CoreId;

use thiserror::Error;

/// Cores that this process may use, by number; empty if the system does not tell.
///
/// As they were when this process first asked (pinning asks before it pins): a thread that has
/// pinned itself sees only its own core, and so would the threads that it starts.
pub fn available_cores() -> Vec<usize> {
    static FIRST_ANSWER: OnceLock<Vec<usize>> = OnceLock::new();
    let ask = || core_affinity::get_core_ids().unwrap_or_default();
    FIRST_ANSWER.get_or_init(|| ask().into_iter().map(|core| core.id).collect()).clone()
}

/// Pins the calling thread to a core.
///
/// ```
/// let cores = gapless::available_cores();
/// gapless::pin_current_thread(cores[0])?;
/// assert!(gapless::pin_current_thread(100_000).is_err());
/// # Ok::<(), gapless::PinError>(())
/// ```
///
/// # Errors
/// [`PinError::NotAvailable`] names the cores that could be had; [`PinError::Refused`] if the
/// system says no all the same.
pub fn pin_current_thread(core: usize) -> Result<(), PinError> {
    let available = available_cores();
    if !available.contains(&core) {
        return Err(PinError::NotAvailable { core, available });
    }
    if core_affinity::set_for_current(CoreId { id: core }) {
        Ok(())
    } else {
        Err(PinError::Refused { core })
    }
}

/// A thread could not be pinned.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PinError {
    /// The core does not exist or is not this process's to use.
    #[error("core {core} is not available to this process; available: {available:?}")]
    NotAvailable {
        /// The core asked for.
        core: usize,
        /// Those that could be had.
        available: Vec<usize>,
    },
    /// The system refused.
    #[error("the system refused to pin the thread to core {core}")]
    Refused {
        /// The core asked for.
        core: usize,
    },
}
