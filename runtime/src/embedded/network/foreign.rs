//! Other programs' firewalls that would drop pods' packets.
//!
//! An accept in our table does not overrule a drop in another's, so where iptables drops what it does not know
//! (Docker, ufw) our bridge is let pass there. Failures are told and go no further: the device may well be fine.

use super::firewall::program;
use std::process::Stdio;

/// Chains, and rules that let pods out, in, and to the device's DNS, as iptables itself prints them.
fn passes(bridge: &str) -> [(&'static str, String); 4] {
    [
        ("FORWARD", format!("-i {bridge} -j ACCEPT")),
        ("FORWARD", format!("-o {bridge} -j ACCEPT")),
        ("INPUT", format!("-i {bridge} -p udp -m udp --dport 53 -j ACCEPT")),
        ("INPUT", format!("-i {bridge} -p tcp -m tcp --dport 53 -j ACCEPT")),
    ]
}

/// Lets the bridge's traffic pass where iptables has rules or drops by policy.
pub fn let_pass(bridge: &str) {
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

/// Removes what [`let_pass`] added.
pub fn no_longer(bridge: &str) {
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

/// The program's output where it succeeded.
fn iptables<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let output = program("iptables")
        .arg("-w")
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
