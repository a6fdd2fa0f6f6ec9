//! The machine behind the figures. No figure is written without it.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::clock::{self, Clock};

/// Who measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Host {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// The timer, its rate, and what reading it costs (not subtracted from any figure).
    pub(crate) clock: String,
    pub(crate) ticks_per_ns: f64,
    pub(crate) timer_cost_ns: f64,
    /// Load of the machine when the run began: above 0, somebody else was there as well.
    pub(crate) load_1m: f64,
    /// Revision of the source, if this was run inside its repository.
    pub(crate) commit: Option<String>,
    /// The file system that was written to, if the suite did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) disk: Option<String>,
}

impl Host {
    /// Looks at the machine.
    pub(crate) fn probe(clock: Clock) -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cpu: cpu_model(&cpuinfo).unwrap_or(std::env::consts::ARCH).to_owned(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            kernel: read_line("/proc/sys/kernel/osrelease"),
            clock: clock::NAME.to_owned(),
            ticks_per_ns: clock.ticks_per_ns(),
            timer_cost_ns: clock.timer_cost_ns(),
            load_1m: read_line("/proc/loadavg")
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(0.0),
            commit: commit(),
            disk: None,
        }
    }

    /// Whether the record says who measured.
    pub(crate) fn is_complete(&self) -> bool {
        let named = [&self.cpu, &self.kernel, &self.clock];
        named.iter().all(|name| !name.is_empty()) && self.cores > 0 && self.ticks_per_ns > 0.0
    }

    /// One line for people.
    pub(crate) fn line(&self) -> String {
        format!(
            "{}, {} core{}, Linux {}, {} at {:.3} GHz, {:.1} ns a reading, load {:.1}, commit {}",
            self.cpu,
            self.cores,
            if self.cores == 1 { "" } else { "s" },
            self.kernel,
            self.clock,
            self.ticks_per_ns,
            self.timer_cost_ns,
            self.load_1m,
            self.commit.as_deref().unwrap_or("unknown"),
        )
    }
}

fn read_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().to_owned()
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, model)| model.trim())
}

fn commit() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let name = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_where_linux_writes_it() {
        let text = "processor\t: 0\nmodel name\t: Fast CPU 9000 \nflags\t: a b\n";
        assert_eq!(cpu_model(text), Some("Fast CPU 9000"));
        assert_eq!(cpu_model("processor: 0\n"), None);
    }

    #[test]
    fn this_machine_is_described_completely() {
        let host = Host::probe(Clock::calibrate());
        assert!(host.is_complete(), "{host:?}");
        assert!(host.timer_cost_ns > 0.0);
    }
}
