//! How a command ends: the four exit codes, and which failure gets which.

use std::io;
use std::process::ExitCode;

/// Shown at the end of the long help.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  the operation failed: no such ring, no permission, no room, interrupted
  2  the command line makes no sense
  3  done, and something wrong was found: messages missed, a damaged ring, digests that differ,
     a publisher or agent that died without closing its stream";

/// What a command that did its work found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing wrong.
    Sound,
    /// Something wrong, already told in the output.
    Wrong,
}

impl Outcome {
    /// `Wrong` if `wrong`.
    pub(crate) fn wrong_if(wrong: bool) -> Self {
        if wrong { Self::Wrong } else { Self::Sound }
    }
}

/// A command line that parses but makes no sense; exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Tells a failure on standard error, and turns the result into the exit code.
pub(crate) fn report(result: anyhow::Result<Outcome>) -> ExitCode {
    match result {
        Ok(Outcome::Sound) => ExitCode::SUCCESS,
        Ok(Outcome::Wrong) => ExitCode::from(3),
        // Whoever read our output has had enough of it: `gapless sub … | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gapless: {error:#}");
            ExitCode::from(if error.is::<Usage>() { 2 } else { 1 })
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io_errors = error.chain().filter_map(|e| e.downcast_ref::<io::Error>());
    let mut kinds = io_errors.map(io::Error::kind);
    kinds.any(|kind| kind == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_closed_reader_is_no_failure() {
        let broken = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(is_broken_pipe(&broken.context("write a line")));
        assert!(!is_broken_pipe(&anyhow::anyhow!("no such ring")));
    }
}
