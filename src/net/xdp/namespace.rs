//! For tests: a network of their own, with a cable in it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;

use nix::sched::{CloneFlags, unshare};

/// Runs a test in a fresh network namespace, on a thread of its own. Where none can be made, says
/// so and leaves the test out.
pub(super) fn in_a_fresh_namespace(test: impl FnOnce() + Send + 'static) {
    if let Err(error) = Command::new("ip").arg("-V").output() {
        eprintln!("skipped: there is no program `ip` (Debian: iproute2): {error}");
        return;
    }
    let run = thread::spawn(|| match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => test(),
        Err(error) => eprintln!("skipped: no network namespace can be made here: {error}"),
    });
    if let Err(panic) = run.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Lets `ip` do lines of work in this thread's namespace. The error is what it said.
pub(super) fn try_ip(lines: &str) -> Result<(), String> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    // One that ends without reading has its reasons, and tells them.
    let _ = child.stdin.take().map(|mut input| input.write_all(lines.as_bytes()));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// The same, where failing is the test's end.
///
/// # Panics
/// If `ip` fails.
pub(super) fn ip(lines: &str) {
    try_ip(lines).expect(lines);
}

/// A cable between `left` (10.0.0.1, fd00::1) and `right`, both up, and the loopback interface.
pub(super) fn cable() {
    ip("link add name left address 02:00:00:00:00:01 type veth peer name right
        link set lo up
        link set left up
        link set right up
        address add 10.0.0.1/24 dev left
        address add fd00::1/64 dev left nodad");
}
