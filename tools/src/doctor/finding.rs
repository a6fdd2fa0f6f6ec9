//! What a check says: what was found, whether that is good, why it matters, what would fix it.

use serde_json::{Value, json};

use super::host::Missing;

/// How good it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// As it should be, or nothing to say.
    Ok,
    /// Could be better, or is good to know.
    Note,
    /// Costs latency, or something will be refused.
    Warning,
    /// Could not be read.
    Unknown,
}

impl Status {
    /// In a word.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What was looked at, in a few words; the same for ever, for programs.
    pub(super) check: &'static str,
    pub(super) status: Status,
    /// What is there, or why that is not known.
    pub(super) found: String,
    /// Why it matters: one short clause.
    pub(super) why: Option<String>,
    /// The command, or what else to do.
    pub(super) fix: Option<String>,
}

impl Finding {
    fn new(check: &'static str, status: Status, found: String, why: Option<&str>) -> Self {
        Self { check, status, found: one_line(&found), why: why.map(str::to_owned), fix: None }
    }

    /// As it should be.
    pub(super) fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Status::Ok, found.into(), None)
    }

    /// Could be better.
    pub(super) fn note(check: &'static str, found: impl Into<String>, why: &str) -> Self {
        Self::new(check, Status::Note, found.into(), Some(why))
    }

    /// Should be better.
    pub(super) fn warning(check: &'static str, found: impl Into<String>, why: &str) -> Self {
        Self::new(check, Status::Warning, found.into(), Some(why))
    }

    /// Could not be read.
    pub(super) fn unknown(check: &'static str, missing: &Missing) -> Self {
        Self::new(check, Status::Unknown, missing.reason.clone(), None)
    }

    /// Was read, and makes no sense.
    pub(super) fn garbled(check: &'static str, text: &str) -> Self {
        let start: String = text.chars().take(40).collect();
        Self::new(check, Status::Unknown, format!("not understood: {start:?}"), None)
    }

    /// With the command that fixes it.
    pub(super) fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix = Some(one_line(&command.into()));
        self
    }

    /// For programs.
    pub(super) fn json(&self, section: &str, interface: Option<&str>) -> Value {
        json!({
            "section": section,
            "interface": interface,
            "check": self.check,
            "status": self.status.text(),
            "found": self.found,
            "why": self.why,
            "fix": self.fix,
        })
    }
}

/// What comes from files may have anything in it; a terminal gets printable text on one line.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_printable_line_and_one_object() {
        let finding = Finding::warning("swap", "a\n\x1b[31mb", "pages leave").fix("swapoff -a");
        assert_eq!(finding.found, "a  [31mb");
        let expected = json!({
            "section": "memory", "interface": null, "check": "swap", "status": "warning",
            "found": "a  [31mb", "why": "pages leave", "fix": "swapoff -a",
        });
        assert_eq!(finding.json("memory", None), expected);
        let long = Finding::garbled("swap", &"é".repeat(1000));
        assert_eq!((long.status, long.found.chars().count()), (Status::Unknown, 58));
    }
}
