//! The only door to atomics: `core` in production, `loom` under the model checker.
//!
//! Every other file of this crate takes its atomics, fences and spin hints from here, so that the
//! model checker runs the very code that ships.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};

/// One `pause`: on an empty poll it costs about 30 ns and halves the round trip (see
/// ARCHITECTURE.md, "what was measured").
#[inline(always)]
pub(crate) fn spin_hint() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// Returns `value`, without the compiler knowing that it does: what follows then waits only for
/// `value`, not for whatever it was found equal to.
#[inline(always)]
pub(crate) fn launder(value: u64) -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        let mut value = value;
        // SAFETY: the empty instruction leaves its register as it is and touches nothing else.
        unsafe {
            core::arch::asm!(
                "/* {0} */",
                inout(reg) value,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        value
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    value
}
