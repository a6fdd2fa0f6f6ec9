//! The findings, for people and for programs.

use std::fmt::Write as _;
use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};

use super::Section;
use super::finding::{Finding, Status};
use crate::table::print_json;

/// One object a finding and line.
pub(super) fn json(sections: &[Section]) -> io::Result<()> {
    for section in sections {
        for finding in &section.findings {
            print_json(&finding.json(section.title, section.interface.as_deref()))?;
        }
    }
    Ok(())
}

/// A table for each section, with what to do about a finding below its row, and what it comes to.
pub(super) fn text(sections: &[Section]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for section in sections {
        writeln!(out, "{}\n", rendered(section))?;
    }
    writeln!(out, "{}", summary(sections))?;
    out.flush()
}

fn rendered(section: &Section) -> String {
    let mut text = section.title.to_owned();
    if let Some(interface) = &section.interface {
        text = format!("{text} {interface}");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for finding in &section.findings {
        // As wide in each section.
        let status = format!("{:7}", finding.status.text());
        table.add_row([status.as_str(), finding.check, &finding.found]);
    }
    for (line, finding) in table.lines().zip(&section.findings) {
        let _ = write!(text, "\n {}", line.trim_end());
        // Below its row, so that a command can be copied whole.
        let below = [("why", &finding.why), ("fix", &finding.fix)];
        for (name, words) in below {
            if let Some(words) = words {
                let _ = write!(text, "\n{:13}{name}: {words}", "");
            }
        }
    }
    text
}

fn summary(sections: &[Section]) -> String {
    let all: Vec<&Finding> = sections.iter().flat_map(|section| &section.findings).collect();
    let count = |status| all.iter().filter(|finding| finding.status == status).count();
    let plural =
        |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    format!(
        "{}: {}, {}, {} unknown",
        plural(all.len(), "finding"),
        plural(count(Status::Warning), "warning"),
        plural(count(Status::Note), "note"),
        count(Status::Unknown)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fix_stands_below_its_finding() {
        let findings = vec![
            Finding::ok("model", "X"),
            Finding::warning("governor", "powersave", "slow").fix("echo performance"),
            Finding::note("SMT", "12", "shared"),
        ];
        let section = Section { title: "processor", interface: None, findings };
        let text = rendered(&section);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 7, "{text}");
        assert_eq!(lines[0], "processor");
        assert!(lines[2].contains("governor") && lines[2].contains("powersave"), "{text}");
        assert_eq!([lines[3].trim(), lines[4].trim()], ["why: slow", "fix: echo performance"]);
        assert!(lines[5].contains("SMT") && lines[5].contains("12"), "{text}");
        assert_eq!(summary(&[section]), "3 findings: 1 warning, 1 note, 0 unknown");
    }
}
