//! Other programs' firewalls that would drop pods' packets.
//!
//! An accept in our table does not overrule a drop in another's, so where iptables drops what it does not know
//! (Docker, ufw) our bridge is let pass there. Failures are told and go no further: the device may well be fine.

use super::firewall::program;
use std::process::Stdio;

/// Rules that let pods out, in, and to the device's DNS; without the verb and chain in front.
fn passes(bridge: &str) -> [(&'static str, Vec<String>); 4] {
    let words = |text: String| text.split(' ').map(str::to_owned).collect();
    [
        ("FORWARD", words(format!("-i {bridge} -j ACCEPT"))),
        ("FORWARD", words(format!("-o {bridge} -j ACCEPT"))),
        ("INPUT", words(format!("-i {bridge} -p udp --dport 53 -j ACCEPT"))),
        ("INPUT", words(format!("-i {bridge} -p tcp --dport 53 -j ACCEPT"))),
    ]
}

/// Lets the bridge's traffic pass where iptables has rules or drops by policy.
pub fn let_pass(bridge: &str) {
    for (chain, rule) in passes(bridge) {
        // Not installed, or nothing in the way: leave no trace.
        let Some(listing) = iptables(&["-S", chain]) else {
            return;
        };
        if listing.trim() == format!("-P {chain} ACCEPT") {
            continue;
        }
        let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
        if iptables(&[&["-C", chain], &*rule].concat()).is_none()
            && iptables(&[&["-I", chain], &*rule].concat()).is_none()
        {
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
    for (chain, rule) in passes(bridge) {
        let rule: Vec<&str> = rule.iter().map(String::as_str).collect();
        if iptables(&[&["-C", chain], &*rule].concat()).is_some() {
            iptables(&[&["-D", chain], &*rule].concat());
        }
    }
}

/// The program's output where it succeeded.
fn iptables(arguments: &[&str]) -> Option<String> {
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
