//! Results: medians over the rounds, ratios to the floor of the same run, one table, one JSON
//! object a line. Nothing is written without a complete host record.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::host::Host;
use crate::probe::Class;
use crate::run::Run;
use crate::scenario::{Case, Kills};

/// A median, and the smallest and largest value beside it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            (values[middle - 1] + values[middle]) / 2.0
        };
        Some(Self { min, median, max })
    }
}

/// A case's results of one class, over all rounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) suite: String,
    pub(crate) case: String,
    pub(crate) class: Class,
    pub(crate) p50_ns: Option<f64>,
    pub(crate) p90_ns: Option<f64>,
    pub(crate) p99_ns: Option<f64>,
    pub(crate) p999_ns: Option<f64>,
    pub(crate) p9999_ns: Option<f64>,
    /// The largest of all rounds.
    pub(crate) max_ns: Option<f64>,
    pub(crate) rate_mps: Option<f64>,
    /// Latencies: ours over the floor's, at most 1.0 is the limit.
    pub(crate) ratio_p50: Option<f64>,
    pub(crate) ratio_p99: Option<f64>,
    pub(crate) ratio_p999: Option<f64>,
    /// Rates: ours over the floor's, 1.0 is the limit.
    pub(crate) ratio_floor: Option<f64>,
    /// For a peer: how many times better our ring is (latency or rate).
    pub(crate) ring_better: Option<f64>,
    /// Over the same on a path that loses nothing: the rate, or else p99. `details` has all
    /// percentiles over the loss-free median.
    pub(crate) ratio_lossfree: Option<f64>,
    /// Over the same without agents between: the rate, or else p50.
    pub(crate) ratio_inline: Option<f64>,
    /// p50 over that of the plain ring.
    pub(crate) ratio_ring: Option<f64>,
    /// Over the same by plain sockets, and by io_uring: latencies, and the rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_socket_p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_socket_p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_socket: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_uring_p50: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_uring_p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_uring: Option<f64>,
    /// The rate over that of sockets whose super-datagrams are cut before the wire.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ratio_socket_nogso: Option<f64>,
    /// System calls a message, those of both sides together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) system_calls_per_message: Option<f64>,
    /// How often a stream's writer was killed in all rounds, and what became of its commands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kills: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duplicated: Option<u64>,
    /// Whether states that must be equal were, in all rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hash_equal: Option<bool>,
    pub(crate) samples: u64,
    pub(crate) rounds: usize,
    pub(crate) p50_spread_ns: Option<Spread>,
    pub(crate) p99_spread_ns: Option<Spread>,
    pub(crate) p999_spread_ns: Option<Spread>,
    pub(crate) rate_spread_mps: Option<Spread>,
    pub(crate) details: BTreeMap<String, f64>,
}

impl Row {
    /// Takes the percentiles of all rounds' samples together, if there are such.
    fn pooling(mut self, clock: Clock, samples: Option<&Histogram<u64>>) -> Self {
        if let Some(samples) = samples {
            let quantile = |q| Some(clock.to_ns(samples.value_at_quantile(q)));
            self.p50_ns = quantile(0.5);
            self.p90_ns = quantile(0.9);
            self.p99_ns = quantile(0.99);
            self.p999_ns = quantile(0.999);
            self.p9999_ns = quantile(0.9999);
        }
        self
    }

    /// What people are told below the table; nothing of most cases.
    fn remark(&self) -> Option<String> {
        if let (Some(kills), Some(lost), Some(twice)) = (self.kills, self.lost, self.duplicated) {
            return Some(format!("{kills} kills, {lost} lost, {twice} duplicated"));
        }
        if let Some(calls) = self.system_calls_per_message {
            return Some(format!("{calls:.4} system calls a message, both sides together"));
        }
        let equal = self.hash_equal?;
        Some(format!("the states' hashes are {}equal", if equal { "" } else { "NOT " }))
    }
}

/// A case that could not be run here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Skipped {
    pub(crate) suite: String,
    pub(crate) case: String,
    #[serde(rename = "skipped")]
    pub(crate) reason: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped {}: {}", self.case, self.reason)
    }
}

/// A line of the JSON file: a row, or what took its place.
#[derive(Serialize)]
struct Line<'a, T> {
    #[serde(flatten)]
    row: &'a T,
    host: &'a Host,
}

/// The results of one measurement.
pub(crate) struct Report {
    pub(crate) host: Host,
    pub(crate) rows: Vec<Row>,
    /// Cases that could not be run here.
    pub(crate) skipped: Vec<Skipped>,
    /// For the plot: all rounds of a row's samples in one, in ticks.
    pub(crate) merged: Vec<Option<Histogram<u64>>>,
    pub(crate) clock: Clock,
}

impl Report {
    /// Puts the runs together.
    ///
    /// # Errors
    /// If the host record does not say who measured.
    pub(crate) fn new(
        host: Host,
        clock: Clock,
        suite: &str,
        cases: &[Case],
        runs: &[Run],
    ) -> Result<Self> {
        ensure!(host.is_complete(), "no results without a host record: {host:?} is not one");
        let mut rows = Vec::new();
        let mut merged = Vec::new();
        for (index, case) in cases.iter().enumerate() {
            for class in [Class::Near, Class::Far] {
                let of_case = |run: &&Run| run.case == index;
                let of_row = |run: &&Run| of_case(run) && (run.class == class || case.any_class);
                let of_row: Vec<&Run> = runs.iter().filter(of_row).collect();
                let first = runs.iter().find(of_case);
                let is_told = first.is_some_and(|first| !case.any_class || first.class == class);
                if !of_row.is_empty() && is_told {
                    let all = merge(&of_row)?;
                    let pooled = all.as_ref().filter(|_| case.pooled);
                    rows.push(row(suite, &case.name, class, clock, &of_row).pooling(clock, pooled));
                    merged.push(all);
                }
            }
        }
        compare(&mut rows, cases);
        Ok(Self { host, rows, skipped: Vec::new(), merged, clock })
    }

    /// Tells of cases that were not run, too.
    pub(crate) fn skipping(mut self, skipped: Vec<Skipped>) -> Self {
        self.skipped = skipped;
        self
    }

    /// One JSON object a line.
    ///
    /// # Errors
    /// If writing fails.
    pub(crate) fn write_json(&self, out: &mut impl Write) -> Result<()> {
        let host = &self.host;
        let mut write = |line: serde_json::Result<String>| -> Result<()> {
            writeln!(out, "{}", line.context("write JSON")?).context("write JSON")
        };
        for row in &self.rows {
            write(serde_json::to_string(&Line { row, host }))?;
        }
        for row in &self.skipped {
            write(serde_json::to_string(&Line { row, host }))?;
        }
        Ok(())
    }

    /// What the table has no column for.
    pub(crate) fn remarks(&self) -> impl Iterator<Item = String> {
        self.rows.iter().filter_map(|row| Some(format!("{}: {}", row.case, row.remark()?)))
    }

    /// The table for people.
    pub(crate) fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header([
            "case",
            "class",
            "p50 ns",
            "min..max",
            "p99",
            "p99.9",
            "p99.99",
            "max",
            "×floor p50",
            "p99",
            "M/s",
            "min..max",
            "×floor",
            "ring is × better",
            "×lossfree",
            "×inline",
            "×ring",
            "×socket",
            "×uring",
            "×nogso",
            "samples",
        ]);
        for row in &self.rows {
            table.add_row([
                row.case.clone(),
                row.class.name().to_owned(),
                number(row.p50_ns),
                spread(row.p50_spread_ns),
                number(row.p99_ns),
                number(row.p999_ns),
                number(row.p9999_ns),
                number(row.max_ns),
                ratio(row.ratio_p50),
                ratio(row.ratio_p99),
                number(row.rate_mps),
                spread(row.rate_spread_mps),
                ratio(row.ratio_floor),
                ratio(row.ring_better),
                ratio(row.ratio_lossfree),
                ratio(row.ratio_inline),
                ratio(row.ratio_ring),
                ratio(row.ratio_socket_p50.or(row.ratio_socket)),
                ratio(row.ratio_uring_p50.or(row.ratio_uring)),
                ratio(row.ratio_socket_nogso),
                row.samples.to_string(),
            ]);
        }
        for column in table.column_iter_mut().skip(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    })
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(String::new, |value| format!("{value:.2}"))
}

fn spread(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |s| format!("{}..{}", number(Some(s.min)), number(Some(s.max))))
}

/// All samples of a row.
fn merge(runs: &[&Run]) -> Result<Option<Histogram<u64>>> {
    let mut merged: Option<Histogram<u64>> = None;
    for samples in runs.iter().filter_map(|run| run.outcome.samples.as_ref()) {
        match &mut merged {
            Some(all) => all.add(samples).context("add histograms")?,
            None => merged = Some(samples.clone()),
        }
    }
    Ok(merged)
}

fn row(suite: &str, case: &str, class: Class, clock: Clock, runs: &[&Run]) -> Row {
    let quantile = |q: f64| {
        Spread::of(runs.iter().filter_map(|run| {
            let samples = run.outcome.samples.as_ref()?;
            let ns = clock.to_ns(samples.value_at_quantile(q));
            Some(ns / f64::from(run.outcome.operations_per_sample))
        }))
    };
    let calls = Spread::of(runs.iter().filter_map(|run| run.outcome.system_calls_per_message));
    let rates = Spread::of(runs.iter().filter_map(|run| run.outcome.rate_mps));
    let median = |spread: Option<Spread>| spread.map(|spread| spread.median);
    let names: Vec<&String> = runs.iter().flat_map(|run| run.outcome.details.keys()).collect();
    let details = names.into_iter().filter_map(|name| {
        let values = runs.iter().filter_map(|run| run.outcome.details.get(name).copied());
        Some((name.clone(), Spread::of(values)?.median))
    });
    let counts = runs.iter().filter_map(|run| run.outcome.samples.as_ref());
    let total = |count: fn(&Kills) -> u64| {
        let all = runs.iter().filter_map(|run| run.outcome.kills.as_ref().map(count));
        all.reduce(|total, count| total + count)
    };
    let equals = runs.iter().filter_map(|run| run.outcome.hash_equal);
    Row {
        suite: suite.to_owned(),
        case: case.to_owned(),
        class,
        p50_ns: median(quantile(0.5)),
        p90_ns: median(quantile(0.9)),
        p99_ns: median(quantile(0.99)),
        p999_ns: median(quantile(0.999)),
        p9999_ns: median(quantile(0.9999)),
        max_ns: quantile(1.0).map(|spread| spread.max),
        rate_mps: median(rates),
        ratio_p50: None,
        ratio_p99: None,
        ratio_p999: None,
        ratio_floor: None,
        ring_better: None,
        ratio_lossfree: None,
        ratio_inline: None,
        ratio_ring: None,
        ratio_socket_p50: None,
        ratio_socket_p99: None,
        ratio_socket: None,
        ratio_uring_p50: None,
        ratio_uring_p99: None,
        ratio_uring: None,
        ratio_socket_nogso: None,
        system_calls_per_message: median(calls),
        kills: total(|kills| kills.kills),
        lost: total(|kills| kills.lost),
        duplicated: total(|kills| kills.duplicated),
        hash_equal: equals.reduce(|all, equal| all && equal),
        samples: counts.map(Histogram::len).sum(),
        rounds: runs.len(),
        p50_spread_ns: quantile(0.5),
        p99_spread_ns: quantile(0.99),
        p999_spread_ns: quantile(0.999),
        rate_spread_mps: rates,
        details: details.collect(),
    }
}

/// Fills the ratios in: each row against its floor and its rival, of the same class if that
/// matters.
fn compare(rows: &mut [Row], cases: &[Case]) {
    let all = rows.to_vec();
    let over = |a: Option<f64>, b: Option<f64>| Some(a? / b?);
    for row in rows {
        let Some(case) = cases.iter().find(|case| case.name == row.case) else {
            continue;
        };
        let find = |name: &Option<String>| {
            let name = name.as_ref()?;
            let any_class = cases.iter().any(|case| case.name == *name && case.any_class);
            let fits = |other: &&Row| other.class == row.class || any_class;
            all.iter().filter(|other| other.case == *name).find(fits)
        };
        if let Some(floor) = find(&case.floor) {
            row.ratio_p50 = over(row.p50_ns, floor.p50_ns);
            row.ratio_p99 = over(row.p99_ns, floor.p99_ns);
            row.ratio_p999 = over(row.p999_ns, floor.p999_ns);
            row.ratio_floor = over(row.rate_mps, floor.rate_mps);
        }
        if let Some(ours) = find(&case.rival) {
            row.ring_better = over(row.p50_ns, ours.p50_ns).or(over(ours.rate_mps, row.rate_mps));
        }
        if let Some(inline) = find(&case.inline) {
            let latency = over(row.p50_ns, inline.p50_ns);
            row.ratio_inline = latency.or(over(row.rate_mps, inline.rate_mps));
        }
        if let Some(ring) = find(&case.ring) {
            row.ratio_ring = over(row.p50_ns, ring.p50_ns);
        }
        if let Some(sockets) = find(&case.sockets) {
            row.ratio_socket_p50 = over(row.p50_ns, sockets.p50_ns);
            row.ratio_socket_p99 = over(row.p99_ns, sockets.p99_ns);
            row.ratio_socket = over(row.rate_mps, sockets.rate_mps);
        }
        if let Some(uring) = find(&case.uring) {
            row.ratio_uring_p50 = over(row.p50_ns, uring.p50_ns);
            row.ratio_uring_p99 = over(row.p99_ns, uring.p99_ns);
            row.ratio_uring = over(row.rate_mps, uring.rate_mps);
        }
        if let Some(sockets) = find(&case.cut_sockets) {
            row.ratio_socket_nogso = over(row.rate_mps, sockets.rate_mps);
        }
        if let Some(lossfree) = find(&case.lossfree) {
            let latency = over(row.p99_ns, lossfree.p99_ns);
            row.ratio_lossfree = latency.or(over(row.rate_mps, lossfree.rate_mps));
            let percentiles = [
                ("p50_over_lossfree_p50", row.p50_ns),
                ("p99_over_lossfree_p50", row.p99_ns),
                ("p999_over_lossfree_p50", row.p999_ns),
                ("p9999_over_lossfree_p50", row.p9999_ns),
            ];
            let ratios =
                percentiles.map(|(name, ns)| Some((name.to_owned(), over(ns, lossfree.p50_ns)?)));
            row.details.extend(ratios.into_iter().flatten());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::line::Line as LineScenario;
    use crate::scenario::{Outcome, histogram};

    fn host() -> Host {
        Host {
            cpu: "CPU".into(),
            cores: 2,
            kernel: "6".into(),
            clock: "tsc".into(),
            ticks_per_ns: 1.0,
            timer_cost_ns: 10.0,
            load_1m: 0.0,
            commit: None,
            disk: None,
        }
    }

    /// A run of 1,000 samples, all of them `ns`.
    fn run(case: usize, class: Class, ns: u64) -> Run {
        let mut samples = histogram();
        samples.record_n(ns, 1000).unwrap();
        let outcome = Outcome::latency(samples).with_rate(Clock::with_rate(1.0), 1000, 1000 * ns);
        Run { case, class, outcome }
    }

    fn report(host: Host, runs: &[Run]) -> Result<Report> {
        let cases = [
            Case::new("floor", LineScenario),
            Case::new("ours", LineScenario).against("floor"),
            Case::new("peer", LineScenario).against("floor").rival_of("ours"),
        ];
        Report::new(host, Clock::with_rate(1.0), "ipc", &cases, runs)
    }

    #[test]
    fn no_results_without_a_host_record() {
        let nobody = Host { cpu: String::new(), ..host() };
        let error = report(nobody, &[run(0, Class::Near, 100)]).err().unwrap();
        assert!(error.to_string().contains("host record"), "{error}");
        assert!(report(host(), &[run(0, Class::Near, 100)]).is_ok());
    }

    #[test]
    fn medians_and_extremes_are_over_the_rounds() {
        let runs = [300, 100, 120].map(|ns| run(0, Class::Near, ns));
        let rows = report(host(), &runs).unwrap().rows;
        assert_eq!(rows.len(), 1);
        let spread = rows[0].p50_spread_ns.unwrap();
        assert_eq!((spread.min, spread.median, spread.max), (100.0, 120.0, 300.0));
        assert_eq!((rows[0].p50_ns, rows[0].max_ns), (Some(120.0), Some(300.0)));
        assert_eq!((rows[0].samples, rows[0].rounds), (3000, 3));
    }

    #[test]
    fn ratios_are_taken_within_a_class_only() {
        let runs = [
            run(0, Class::Near, 100),
            run(1, Class::Near, 110),
            run(1, Class::Far, 550),
            run(2, Class::Near, 220),
        ];
        let rows = report(host(), &runs).unwrap().rows;
        let named = |case: &str, class| {
            let row = rows.iter().find(|row| row.case == case && row.class == class);
            row.unwrap()
        };
        let ours = named("ours", Class::Near);
        assert_eq!(ours.ratio_p50, Some(1.1));
        assert!((ours.ratio_floor.unwrap() - 100.0 / 110.0).abs() < 1e-9);
        assert_eq!(named("ours", Class::Far).ratio_p50, None);
        assert_eq!(named("peer", Class::Near).ring_better, Some(2.0));
    }

    #[test]
    fn what_no_class_matters_to_has_one_row() {
        let cases = [
            Case::new("floor", LineScenario).of_any_class(),
            Case::new("ours", LineScenario).against("floor").of_any_class(),
            Case::new("peer", LineScenario).rival_of("ours"),
        ];
        let runs = [
            run(0, Class::Near, 100),
            run(1, Class::Far, 110),
            run(0, Class::Far, 100),
            run(2, Class::Far, 220),
        ];
        let rows = Report::new(host(), Clock::with_rate(1.0), "log", &cases, &runs).unwrap().rows;
        assert_eq!(rows.iter().map(|row| row.rounds).collect::<Vec<_>>(), [2, 1, 1]);
        assert_eq!((rows[1].ratio_p50, rows[2].ring_better), (Some(1.1), Some(2.0)));
    }

    #[test]
    fn losses_are_held_against_the_same_without_loss() {
        let cases = [
            Case::new("good", LineScenario),
            Case::new("bad", LineScenario).without_loss("good"),
            Case::new("by agents", LineScenario).instead_of("good"),
        ];
        let runs = [100, 300, 150].into_iter().enumerate();
        let runs: Vec<Run> = runs.map(|(case, ns)| run(case, Class::Far, ns)).collect();
        let rows = Report::new(host(), Clock::with_rate(1.0), "net", &cases, &runs).unwrap().rows;
        assert_eq!((rows[1].ratio_lossfree, rows[1].ratio_inline), (Some(3.0), None));
        assert_eq!(rows[1].details["p999_over_lossfree_p50"], 3.0);
        assert_eq!((rows[2].ratio_lossfree, rows[2].ratio_inline), (None, Some(1.5)));
    }

    #[test]
    fn back_ends_are_held_against_each_other() {
        let cases = [
            Case::new("sockets", LineScenario),
            Case::new("uring", LineScenario),
            Case::new("bypass", LineScenario)
                .over_sockets("sockets")
                .over_uring("uring")
                .over_cut_sockets("uring"),
        ];
        let runs = [200, 400, 100].into_iter().enumerate();
        let mut runs: Vec<Run> = runs.map(|(case, ns)| run(case, Class::Far, ns)).collect();
        runs[2].outcome.system_calls_per_message = Some(0.03);
        let report = Report::new(host(), Clock::with_rate(1.0), "xdp", &cases, &runs).unwrap();
        let row = &report.rows[2];
        assert_eq!((row.ratio_socket_p50, row.ratio_uring_p50), (Some(0.5), Some(0.25)));
        assert_eq!((row.ratio_socket, row.ratio_uring), (Some(2.0), Some(4.0)));
        assert_eq!(row.ratio_socket_nogso, Some(4.0));
        let remarks: Vec<_> = report.remarks().collect();
        assert_eq!(remarks, ["bypass: 0.0300 system calls a message, both sides together"]);
        let line = serde_json::to_value(row).unwrap();
        assert_eq!(line["system_calls_per_message"], 0.03);
        assert!(serde_json::to_value(&report.rows[0]).unwrap().get("ratio_socket_p50").is_none());
    }

    #[test]
    fn kills_are_added_up_and_their_percentiles_are_over_all_rounds() {
        let cases = [
            Case::new("ring", LineScenario),
            Case::new("kills", LineScenario).pooled().over_ring("ring"),
        ];
        let mut runs = [200, 300, 1000].map(|ns| run(1, Class::Near, ns));
        for (run, lost) in runs.iter_mut().zip(0..) {
            run.outcome.kills = Some(Kills { kills: 10, lost, duplicated: 1 });
            run.outcome.hash_equal = Some(lost != 1);
        }
        let runs: Vec<Run> = runs.into_iter().chain([run(0, Class::Near, 100)]).collect();
        let report = Report::new(host(), Clock::with_rate(1.0), "order", &cases, &runs).unwrap();
        let row = &report.rows[1];
        assert_eq!((row.kills, row.lost, row.duplicated), (Some(30), Some(3), Some(3)));
        assert_eq!((row.hash_equal, row.ratio_ring), (Some(false), Some(3.0)));
        // The median of the rounds' own would be 300.
        assert_eq!(row.p99_ns, Some(1000.0));
        let remarks: Vec<_> = report.remarks().collect();
        assert_eq!(remarks, ["kills: 30 kills, 3 lost, 3 duplicated"]);
        let line = serde_json::to_value(&report.rows[0]).unwrap();
        assert!(line.get("kills").is_none() && line.get("hash_equal").is_none());
    }

    #[test]
    fn what_was_skipped_is_told_with_its_reason() {
        let reason = "no such kernel".to_owned();
        let skipped = Skipped { suite: "net".into(), case: "floor".into(), reason };
        assert_eq!(skipped.to_string(), "skipped floor: no such kernel");
        let report = report(host(), &[]).unwrap().skipping(vec![skipped.clone()]);
        let mut out = Vec::new();
        report.write_json(&mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(value["skipped"], "no such kernel");
        assert_eq!(serde_json::from_value::<Skipped>(value).unwrap(), skipped);
    }

    #[test]
    fn every_json_line_is_a_row_with_its_host() {
        let runs = [run(0, Class::Near, 100), run(1, Class::Far, 550)];
        let report = report(host(), &runs).unwrap();
        let mut out = Vec::new();
        report.write_json(&mut out).unwrap();
        let lines: Vec<&str> = std::str::from_utf8(&out).unwrap().lines().collect();
        assert_eq!(lines.len(), 2);
        for (line, row) in lines.iter().zip(&report.rows) {
            let read: Row = serde_json::from_str(line).unwrap();
            assert_eq!((&read.case, read.class, read.samples), (&row.case, row.class, 1000));
            assert!((read.p99_ns.unwrap() - row.p99_ns.unwrap()).abs() < 1e-6);
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::from_value::<Host>(value["host"].clone()).unwrap(), host());
        }
    }
}
