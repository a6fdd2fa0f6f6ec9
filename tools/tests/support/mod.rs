//! Running the built command: to its end, or beside the test and never longer than it.

#![expect(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Ring directory of one test, gone at its end.
pub struct Rings {
    pub directory: tempfile::TempDir,
}

impl Rings {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(format!("{name}.ring"))
    }

    /// The command, looking for rings in this directory.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gapless"));
        command.args(arguments).env("GAPLESS_DIR", self.path());
        command
    }

    /// Runs it to its end.
    pub fn run<const N: usize>(&self, arguments: [&str; N]) -> Ended {
        self.run_with_input(arguments, "")
    }

    /// Runs it to its end, with something on its standard input.
    pub fn run_with_input<const N: usize>(&self, arguments: [&str; N], input: &str) -> Ended {
        let mut running = self.start(arguments);
        running.write(input);
        running.end()
    }

    /// Starts it beside the test, with pipes on all three ends.
    pub fn start<const N: usize>(&self, arguments: [&str; N]) -> Running {
        self.start_more(arguments, &[])
    }

    /// Starts it with paths behind its other arguments.
    pub fn start_more<const N: usize>(&self, arguments: [&str; N], paths: &[&Path]) -> Running {
        self.start_command(self.command(arguments), paths)
    }

    /// Starts it with as many arguments as there are.
    pub fn start_all(&self, arguments: &[&str]) -> Running {
        self.start_command(self.command(arguments), &[])
    }

    fn start_command(&self, mut command: Command, paths: &[&Path]) -> Running {
        command.args(paths).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running { child: Some(command.spawn().expect("the command starts")) }
    }
}

/// A running command; killed if the test ends before it.
pub struct Running {
    child: Option<Child>,
}

impl Running {
    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("not ended yet")
    }

    pub fn pid(&mut self) -> i32 {
        self.child().id() as i32
    }

    pub fn signal(&mut self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("it runs");
    }

    /// Writes to its standard input, which stays open.
    pub fn write(&mut self, text: &str) {
        let input = self.child().stdin.as_mut().expect("a pipe");
        input.write_all(text.as_bytes()).expect("it reads");
        input.flush().expect("it reads");
    }

    /// Reads its standard error up to a line that has `part` in it.
    pub fn await_error_line(&mut self, part: &str) -> String {
        let errors = self.child().stderr.as_mut().expect("a pipe");
        let mut seen = String::new();
        // Byte by byte: what follows stays in the pipe for `end`.
        let mut lines = BufReader::with_capacity(1, errors);
        loop {
            let mut line = String::new();
            let read = lines.read_line(&mut line).expect("readable");
            assert!(read > 0, "ended without {part:?}: {seen}");
            if line.contains(part) {
                return line;
            }
            seen.push_str(&line);
        }
    }

    /// Reads some bytes of its standard output.
    pub fn read_exact(&mut self, bytes: usize) -> Vec<u8> {
        let mut read = vec![0; bytes];
        let output = self.child().stdout.as_mut().expect("a pipe");
        output.read_exact(&mut read).expect("as many bytes");
        read
    }

    /// Waits for its end with its input still open: it ends for another reason.
    pub fn end_leaving_input_open(mut self) -> Ended {
        let input = self.child().stdin.take();
        let ended = self.end();
        drop(input);
        ended
    }

    /// Closes its input and waits for its end.
    pub fn end(mut self) -> Ended {
        let child = self.child.take().expect("not ended yet");
        Ended { output: child.wait_with_output().expect("an end") }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Fails only if it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a command left.
pub struct Ended {
    output: Output,
}

impl Ended {
    pub fn code(&self) -> i32 {
        self.output.status.code().unwrap_or(-1)
    }

    pub fn out(&self) -> &str {
        str::from_utf8(&self.output.stdout).expect("text")
    }

    pub fn bytes(&self) -> &[u8] {
        &self.output.stdout
    }

    pub fn err(&self) -> &str {
        str::from_utf8(&self.output.stderr).expect("text")
    }

    /// Asserts the exit code, showing what the command said.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        let (out, err) = (&self.output.stdout, &self.output.stderr);
        let (out, err) = (String::from_utf8_lossy(out), String::from_utf8_lossy(err));
        assert_eq!(self.code(), code, "out: {out}\nerr: {err}");
        self
    }

    /// Its output as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(self.out()).unwrap_or_else(|error| panic!("{error}: {}", self.out()))
    }
}
