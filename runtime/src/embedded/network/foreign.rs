//! Other programs' firewalls that would drop pods' packets.
//!
//! An accept in our table does not overrule a drop in another's. So where iptables (Docker, ufw) or another nftables
//! table (a hardened Debian) drops what it does not know, our bridge is let pass there: what pods send, what belongs
//! to it, and what was translated towards them. Failures are told and go no further: the device may well be fine.

use super::firewall::{self, program};
use serde::Deserialize;
use std::process::{Command, Stdio};

/// Chains, and rules that let pods out, in, and to the device's DNS, as iptables itself prints them.
fn passes(bridge: &str) -> [(&'static str, String); 4] {
    [
        ("FORWARD", format!("-i {bridge} -j ACCEPT")),
        (
            "FORWARD",
            format!("-o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"),
        ),
        ("INPUT", format!("-i {bridge} -p udp -m udp --dport 53 -j ACCEPT")),
        ("INPUT", format!("-i {bridge} -p tcp -m tcp --dport 53 -j ACCEPT")),
    ]
}

/// Lets the bridge's traffic pass where another firewall has rules or drops by policy.
pub fn let_pass(bridge: &str) {
    let_pass_iptables(bridge);
    let_pass_nftables(bridge);
}

/// Removes what [`let_pass`] added.
pub fn no_longer(bridge: &str) {
    no_longer_iptables(bridge);
    for chain in dropping_chains() {
        for handle in rules_of(&chain, bridge) {
            let (family, table, name) = (&chain.family, &chain.table, &chain.name);
            tell(firewall::run(&format!(
                "delete rule {family} {table} {name} handle {handle}\n"
            )));
        }
    }
}

/// Base chains of nftables that drop what none of their rules takes, less those that iptables keeps there.
fn dropping_chains() -> Vec<Chain> {
    let listed = nft_json(&["list", "chains"]);
    let chains = listed.into_iter().filter_map(|entry| entry.chain);
    chains
        .filter(|chain| chain.policy.as_deref() == Some("drop"))
        .filter(|chain| matches!(chain.family.as_str(), "ip" | "inet"))
        .filter(|chain| !chain.is_of_iptables())
        .collect()
}

fn let_pass_nftables(bridge: &str) {
    for chain in dropping_chains() {
        let (family, table, name) = (&chain.family, &chain.table, &chain.name);
        let rules = match chain.hook.as_deref() {
            Some("forward") => [
                format!("iifname \"{bridge}\""),
                format!("oifname \"{bridge}\" ct state established,related"),
                format!("oifname \"{bridge}\" ct status dnat"),
            ]
            .to_vec(),
            Some("input") => ["udp", "tcp"]
                .map(|kind| format!("iifname \"{bridge}\" {kind} dport 53"))
                .to_vec(),
            _ => continue,
        };
        if !rules_of(&chain, bridge).is_empty() {
            continue;
        }
        tracing::info!(
            family,
            table,
            chain = name,
            "this chain drops by policy; pods' packets are let pass"
        );
        let insert =
            |rule| format!("insert rule {family} {table} {name} {rule} accept comment \"{bridge}\"\n");
        tell(firewall::run(&rules.into_iter().map(insert).collect::<String>()));
    }
}

/// Handles of our rules in another's chain; they carry the bridge's name as comment.
fn rules_of(chain: &Chain, bridge: &str) -> Vec<u64> {
    let listed = nft_json(&["-a", "list", "chain", &chain.family, &chain.table, &chain.name]);
    let rules = listed.into_iter().filter_map(|entry| entry.rule);
    rules
        .filter(|rule| rule.comment.as_deref() == Some(bridge))
        .map(|rule| rule.handle)
        .collect()
}

fn tell(done: Result<(), super::NetworkError>) {
    if let Err(err) = done {
        tracing::warn!(
            error = kit::chain(&err),
            "another firewall may drop pods' packets"
        );
    }
}

/// The part of `nft -j`'s output that is of use here (libnftables-json(5)).
#[derive(Debug, Deserialize)]
struct Listing {
    nftables: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    chain: Option<Chain>,
    rule: Option<Rule>,
}

#[derive(Debug, Deserialize)]
struct Chain {
    family: String,
    table: String,
    name: String,
    hook: Option<String>,
    policy: Option<String>,
}

impl Chain {
    fn is_of_iptables(&self) -> bool {
        self.family == "ip" && self.table == "filter" && matches!(self.name.as_str(), "FORWARD" | "INPUT")
    }
}

#[derive(Debug, Deserialize)]
struct Rule {
    handle: u64,
    comment: Option<String>,
}

fn nft_json(arguments: &[&str]) -> Vec<Entry> {
    let text = output(program("nft").arg("-j").args(arguments)).unwrap_or_default();
    serde_json::from_str::<Listing>(&text).map_or_else(|_| Vec::new(), |listing| listing.nftables)
}

fn let_pass_iptables(bridge: &str) {
    // Not installed: nothing is in the way, nor was it ever.
    let Some(listing) = iptables(["-S"]) else { return };
    for (chain, rule) in passes(bridge) {
        if has(&listing, chain, &rule) || is_open(&listing, chain) {
            continue;
        }
        if iptables(["-I", chain].into_iter().chain(rule.split(' '))).is_none() {
            tracing::warn!(
                chain,
                bridge,
                "iptables did not take the rule that lets pods' packets pass"
            );
        }
    }
}

fn no_longer_iptables(bridge: &str) {
    let Some(listing) = iptables(["-S"]) else { return };
    for (chain, rule) in passes(bridge) {
        if has(&listing, chain, &rule) {
            iptables(["-D", chain].into_iter().chain(rule.split(' ')));
        }
    }
}

fn has(listing: &str, chain: &str, rule: &str) -> bool {
    let line = format!("-A {chain} {rule}");
    listing.lines().any(|held| held == line)
}

/// Whether a chain has no rule and lets all pass: then there shall be no trace of us in it.
fn is_open(listing: &str, chain: &str) -> bool {
    let rule = format!("-A {chain} ");
    !listing.lines().any(|line| line.starts_with(&rule))
        && !listing.lines().any(|line| line == format!("-P {chain} DROP"))
}

fn iptables<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Option<String> {
    output(program("iptables").arg("-w").args(arguments))
}

/// The program's output where it succeeded.
fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
