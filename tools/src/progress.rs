//! Progress on standard error, where that is a terminal; silence elsewhere.

use std::borrow::Cow;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

fn target() -> ProgressDrawTarget {
    if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(5)
    } else {
        ProgressDrawTarget::hidden()
    }
}

/// Something of unknown length goes on. Four ticks a second: what is measured meanwhile should not
/// notice.
pub(crate) fn spinner(what: impl Into<Cow<'static, str>>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, target()).with_message(what);
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(250));
    }
    bar
}

/// Something of `total` steps goes on.
pub(crate) fn bar(total: u64, what: impl Into<Cow<'static, str>>) -> ProgressBar {
    let template = "{msg} {bar:30} {human_pos}/{human_len}, {per_sec}, {eta} left";
    styled(total, what, template)
}

/// So many bytes are gone through; how many there are is set later.
pub(crate) fn byte_bar(what: impl Into<Cow<'static, str>>) -> ProgressBar {
    let template = "{msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left";
    styled(0, what, template)
}

fn styled(total: u64, what: impl Into<Cow<'static, str>>, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), target()).with_message(what);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
