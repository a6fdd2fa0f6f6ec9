//! Loss on the switch: whatever a host has for a back end, it is lost before it gets there.

use crate::hosts::{Hosts, command};

impl Hosts {
    /// Loses `percent` of what goes to a host by UDP to `port`, at random. False, and says so,
    /// where there is no `nft`.
    pub(crate) fn lose(&self, host: usize, port: u16, percent: u32) -> bool {
        let rules = format!(
            "add table bridge t\n\
             add chain bridge t to {{ type filter hook forward priority 0; }}\n\
             add rule bridge t to oifname port{host} udp dport {port} \
             numgen random mod 100 < {percent} counter drop\n"
        );
        match self.at_the_switch(move || command("nft", &["-f", "-"], &rules)) {
            Ok(_) => true,
            Err(error) => {
                eprintln!("no loss on the switch, nft: {error}");
                false
            }
        }
    }

    /// How many packets [`lose`](Self::lose) has dropped.
    pub(crate) fn lost(&self, host: usize) -> u64 {
        let list = self.at_the_switch(|| command("nft", &["list", "ruleset"], "")).unwrap();
        let to = format!("\"port{host}\"");
        let rule = list.lines().find(|line| line.contains(&to)).expect(&list);
        let mut words = rule.split_whitespace().skip_while(|word| *word != "packets").skip(1);
        words.next().and_then(|word| word.parse().ok()).expect(&list)
    }
}
