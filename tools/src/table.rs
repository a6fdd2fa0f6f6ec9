//! The one printer of tables: aligned text for people, JSON for programs, from the same cells.

use std::io::{self, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use comfy_table::{CellAlignment, ContentArrangement, Table as Text, presets};
use serde_json::{Map, Value};

/// One cell: what people see, and what programs get.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    value: Value,
}

impl Cell {
    /// A word or a sentence.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { value: Value::from(text.clone()), text }
    }

    /// A whole number, shown with thousands separated.
    pub(crate) fn count(count: u64) -> Self {
        Self { text: grouped(count), value: Value::from(count) }
    }

    /// A number of bytes: exact for programs, in powers of 1,024 for people.
    pub(crate) fn bytes(bytes: u64) -> Self {
        Self { text: bytes_text(bytes), value: Value::from(bytes) }
    }

    /// A span of time, in seconds.
    pub(crate) fn seconds(time: Duration) -> Self {
        Self::with(format!("{:.3}", time.as_secs_f64()), time.as_secs_f64())
    }

    /// Nothing known: `-` and null.
    pub(crate) fn none() -> Self {
        Self { text: "-".into(), value: Value::Null }
    }

    /// Whether nothing is known.
    pub(crate) fn is_none(&self) -> bool {
        self.value.is_null()
    }

    /// Shows `text`, tells programs `value`.
    pub(crate) fn with(text: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { text: text.into(), value: value.into() }
    }
}

/// A table with one heading and one JSON key a column.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<(&'static str, &'static str)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// `columns`: JSON key and heading of each.
    pub(crate) fn new(columns: &[(&'static str, &'static str)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, which has a cell for each column.
    pub(crate) fn row(&mut self, cells: Vec<Cell>) {
        assert_eq!(cells.len(), self.columns.len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints the table for people.
    pub(crate) fn print(&self) -> io::Result<()> {
        writeln!(io::stdout(), "{self}")
    }

    /// Rows as an array of objects.
    pub(crate) fn json(&self) -> Value {
        let object = |row: &Vec<Cell>| {
            let cells = self.columns.iter().zip(row);
            let fields = cells.map(|((key, _), cell)| ((*key).to_owned(), cell.value.clone()));
            Value::Object(fields.collect())
        };
        self.rows.iter().map(object).collect()
    }
}

fn is_number(text: &str) -> bool {
    text.trim_start_matches('-').starts_with(|c: char| c.is_ascii_digit())
}

fn layout() -> Text {
    let mut text = Text::new();
    text.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    text
}

fn trimmed(text: &Text) -> String {
    let lines = text.lines().map(|line| line.trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = layout();
        // A column of numbers is set to the right, and so is its heading.
        let alignments = (0..self.columns.len()).map(|column| {
            let texts = self.rows.iter().map(|row| row[column].text.as_str());
            let mut known = texts.filter(|text| *text != "-").peekable();
            if known.peek().is_some() && known.all(is_number) {
                CellAlignment::Right
            } else {
                CellAlignment::Left
            }
        });
        let alignments: Vec<_> = alignments.collect();
        let aligned = |text: &str, column: usize| {
            comfy_table::Cell::new(text).set_alignment(alignments[column])
        };
        let titles = self.columns.iter().enumerate();
        text.set_header(titles.map(|(column, (_, title))| aligned(title, column)));
        for row in &self.rows {
            let cells = row.iter().enumerate();
            text.add_row(cells.map(|(column, cell)| aligned(&cell.text, column)));
        }
        f.write_str(&trimmed(&text))
    }
}

/// Names and values of one thing, a line each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    facts: Vec<(&'static str, &'static str, Cell)>,
}

impl Facts {
    /// Adds a fact: JSON key, name for people, value.
    pub(crate) fn add(&mut self, key: &'static str, title: &'static str, cell: Cell) {
        self.facts.push((key, title, cell));
    }

    /// All facts as one object.
    pub(crate) fn json(&self) -> Map<String, Value> {
        let fields = self.facts.iter();
        fields.map(|(key, _, cell)| ((*key).to_owned(), cell.value.clone())).collect()
    }
}

impl std::fmt::Display for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = layout();
        for (_, title, cell) in &self.facts {
            text.add_row([*title, cell.text.as_str()]);
        }
        f.write_str(&trimmed(&text))
    }
}

/// Prints one JSON value on one line of standard output.
pub(crate) fn print_json(value: &Value) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}

/// 1234567 as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// "1 message", "2 messages".
pub(crate) fn messages_text(count: u64) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} message{plural}", grouped(count))
}

/// Bytes in the largest power of 1,024 that leaves a number of at least 1.
pub(crate) fn bytes_text(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = UNITS.iter().find(|(shift, _)| bytes >> shift > 0);
    match unit {
        None => format!("{bytes} B"),
        Some((shift, unit)) if bytes.trailing_zeros() >= *shift => {
            format!("{} {unit}", bytes >> shift)
        }
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1u64 << shift) as f64),
    }
}

/// Nanoseconds with the unit that fits.
pub(crate) fn ns_text(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..10_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// How long ago a time was, in words.
pub(crate) fn age_text(unix_ns: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match now.checked_sub(Duration::from_nanos(unix_ns)) {
        None => "in the future".into(),
        Some(age) if age < Duration::from_secs(120) => format!("{:.1} s ago", age.as_secs_f64()),
        Some(age) if age < Duration::from_secs(7200) => {
            format!("{:.1} min ago", age.as_secs_f64() / 60.0)
        }
        Some(age) => format!("{:.1} h ago", age.as_secs_f64() / 3600.0),
    }
}

/// Events a second with the unit that fits.
pub(crate) fn rate_text(per_second: f64, unit: &str) -> String {
    match per_second {
        rate if rate >= 1e6 => format!("{:.2} M{unit}/s", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.1} k{unit}/s", rate / 1e3),
        rate if rate >= 10.0 => format!("{rate:.0} {unit}/s"),
        rate => format!("{rate:.1} {unit}/s"),
    }
}

/// Events a second; 0 over no time.
pub(crate) fn per_second(count: u64, elapsed: Duration) -> f64 {
    if elapsed.is_zero() {
        return 0.0;
    }
    count as f64 / elapsed.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_programs_get_the_same_cells() {
        let mut table = Table::new(&[("name", "name"), ("lag_bytes", "lag"), ("rate", "rate")]);
        table.row(vec![Cell::text("book"), Cell::bytes(1 << 20), Cell::none()]);
        table.row(vec![Cell::text("risk"), Cell::bytes(5), Cell::count(1000)]);
        let expected = serde_json::json!([
            {"name": "book", "lag_bytes": 1_048_576, "rate": null},
            {"name": "risk", "lag_bytes": 5, "rate": 1000},
        ]);
        assert_eq!(table.json(), expected);
        let text = table.to_string();
        assert!(text.contains("1 MiB") && text.contains("1,000"), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
    }

    #[test]
    fn numbers_are_shown_as_people_read_them() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(5_006_418), "5,006,418");
        assert_eq!(bytes_text(1023), "1023 B");
        assert_eq!(bytes_text(64 << 20), "64 MiB");
        assert_eq!(bytes_text(1536), "1.5 KiB");
        assert_eq!(ns_text(130), "130 ns");
        assert_eq!(ns_text(31_500), "31.5 µs");
        assert_eq!(rate_text(2_500_000.0, "msg"), "2.50 Mmsg/s");
        assert_eq!(per_second(5, Duration::ZERO), 0.0);
    }
}
