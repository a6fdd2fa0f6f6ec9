//! What the act of the exchange found, and how it is told.

use std::io::{self, Write};

use serde::Serialize;

use super::{Audited, Bridged};
use crate::demo::lines_of;
use crate::latency;
use crate::order::generate::Generated;
use crate::table::{Cell, Table, grouped, ns_text};

/// Differences that are told one by one.
const TOLD_MAX: usize = 10;

/// The act, as it was.
#[derive(Clone, Debug, Default, Serialize)]
pub(in crate::demo) struct TradingReport {
    pub(super) title: &'static str,
    pub(super) hosts: String,
    pub(super) apart: bool,
    /// Of the engine, the standby and the traders, if they have one of their own.
    pub(super) cores: [Option<usize>; 4],
    /// Of each trader.
    pub(super) wanted_commands: u64,
    pub(super) wanted_rate: u64,
    /// The near one, over shared memory; and the far one, over the bad line.
    pub(super) traders: [Generated; 2],
    pub(super) bridged: Bridged,
    pub(super) audited: Audited,
    /// Entries of the log that the audit's chain covers.
    pub(super) chained: u64,
    /// The last record of the engine that was killed.
    pub(super) killed_at: u64,
    /// From that record to the first command that its successor sequenced.
    pub(super) failover_ns: Option<u64>,
    pub(super) terms: u32,
    pub(super) records: u64,
    pub(super) recorded: u64,
    /// Messages that the log lacks.
    pub(super) missed: u64,
    pub(super) orders: u64,
    pub(super) fills: u64,
    pub(super) trades: u64,
    /// Records of the clients' own that were compared.
    pub(super) own_records: u64,
    /// Records that an engine was made of again, event by event.
    pub(super) replayed: u64,
    pub(super) positions: u64,
    pub(super) differences: Vec<String>,
}

impl TradingReport {
    /// Whether everybody's account is everybody else's, and the act was played as it should be.
    pub(in crate::demo) fn is_sound(&self) -> bool {
        let served = |trader: &Generated| {
            trader.commands == self.wanted_commands && trader.refused == 0 && trader.fills > 0
        };
        self.differences.is_empty()
            && self.missed == 0
            && self.terms == 2
            && self.traders.iter().all(served)
            && self.audited.anomalies == 0
            && self.chained > 0
            && self.chained == self.audited.entries
            && self.records == self.recorded
    }

    pub(in crate::demo) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        self.print_setting(out)?;
        let later = match self.failover_ns {
            Some(ns) => format!("the standby's first command came {} later", ns_text(ns)),
            None => "no command came after that".into(),
        };
        writeln!(
            out,
            "  SIGKILL to the engine behind record {}: {later}",
            grouped(self.killed_at)
        )?;
        self.print_traders(out)?;
        writeln!(
            out,
            "  audited on the other host: {} entries, chained; the log's are {}",
            grouped(self.audited.entries),
            if self.chained == self.audited.entries { "the same" } else { "OTHERS" },
        )?;
        let against = format!(
            "reconciled: {} records of the log against {} of the clients' own, an engine made \
             anew of all {}, the standby's last state, {} positions: {}",
            grouped(self.records),
            grouped(self.own_records),
            grouped(self.replayed),
            grouped(self.positions),
            match self.differences.len() {
                0 => "no difference".to_owned(),
                count => format!("{count} DIFFERENCES"),
            }
        );
        for line in lines_of(&against, 96) {
            writeln!(out, "  {line}")?;
        }
        for difference in self.differences.iter().take(TOLD_MAX) {
            writeln!(out, "    {difference}")?;
        }
        writeln!(out)?;
        out.flush()
    }

    /// Who was where, and what was done to them.
    fn print_setting(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{}", self.title)?;
        let hosts = format!(
            "one trader over shared memory; the other and the audit over multicast, both ways \
             over a bad line: {}",
            self.hosts
        );
        for line in lines_of(&hosts, 96) {
            writeln!(out, "  {line}")?;
        }
        let core = |core: Option<usize>| core.map_or("any".to_owned(), |core| core.to_string());
        let [engine, standby, near, far] = self.cores.map(core);
        writeln!(
            out,
            "  cores: engine {engine}, standby {standby}, traders {near} and {far}; recorder, \
             bridge and audit any"
        )?;
        writeln!(
            out,
            "  {} commands each by the feed's books, {} a second wanted: {} orders, {} trades",
            grouped(self.wanted_commands),
            grouped(self.wanted_rate),
            grouped(self.orders),
            grouped(self.trades),
        )?;
        let Bridged { inward, outward, gaps, repaired } = &self.bridged;
        writeln!(
            out,
            "  injected: of {} datagrams {} lost, of the commands' {} {}; {} gaps, {} messages \
             repaired",
            grouped(inward.datagrams),
            grouped(inward.lost),
            grouped(outward.datagrams),
            grouped(outward.lost),
            grouped(*gaps),
            grouped(*repaired),
        )
    }

    fn print_traders(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut columns = vec![
            ("trader", "  tick to trade"),
            ("accepted", "accepted"),
            ("fills", "fills"),
            ("resent", "sent again"),
        ];
        columns.extend(latency::COLUMNS);
        let mut table = Table::new(&columns);
        for (name, trader) in ["  near", "  far"].into_iter().zip(&self.traders) {
            let Some(latency) = &trader.latency else { continue };
            let mut cells = vec![Cell::text(name)];
            cells.extend([trader.accepted, trader.fills, trader.resent].map(Cell::count));
            cells.extend(latency.cells());
            table.row(cells);
        }
        writeln!(out, "{table}")?;
        writeln!(
            out,
            "  (from the time each command was due to its first event seen, the fail-over included)"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_sound(change: impl FnOnce(&mut TradingReport)) -> bool {
        let trader = Generated { commands: 10, fills: 1, ..Generated::default() };
        let mut report = TradingReport {
            wanted_commands: 10,
            traders: [trader.clone(), trader],
            audited: Audited { entries: 5, ..Audited::default() },
            chained: 5,
            terms: 2,
            records: 9,
            recorded: 9,
            ..TradingReport::default()
        };
        change(&mut report);
        report.is_sound()
    }

    #[test]
    fn anything_amiss_is_unsound() {
        assert!(is_sound(|_| ()));
        assert!(!is_sound(|report| report.differences.push("#7".into())));
        assert!(!is_sound(|report| report.traders[1].commands = 9));
        assert!(!is_sound(|report| report.traders[0].refused = 1));
        assert!(!is_sound(|report| report.chained = 4));
        assert!(!is_sound(|report| report.terms = 1));
        assert!(!is_sound(|report| report.recorded = 8));
        assert!(!is_sound(|report| report.audited.anomalies = 1));
    }
}
