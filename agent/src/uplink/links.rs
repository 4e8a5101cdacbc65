//! Which link the hub is reached over, what it may carry, and what the month has used.

use super::budget::{Budget, Now, Policy, Rate, Usage, Window};
use jiff::civil;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Below the state folder.
const FILE: &str = "uplink.json";
/// Usage is written down after this share of a month's budget, ...
const SAVE_SHARE: u64 = 100;
/// ... or this time: a crash forgets no more.
const SAVE_EVERY: Duration = Duration::from_secs(3600);

/// What kind of link an interface is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Cable.
    Ethernet,
    /// Wireless LAN.
    Wifi,
    /// A modem: what is usually paid by the byte.
    Cellular,
}

/// One entry of `uplink.links` in the agent's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawLink {
    name: String,
    #[serde(default)]
    interfaces: Vec<String>,
    #[serde(default)]
    kinds: Vec<Kind>,
    #[serde(default)]
    rate: Option<String>,
    #[serde(default)]
    burst: Option<String>,
    #[serde(default)]
    monthly: Option<String>,
    #[serde(default)]
    windows: Vec<RawWindow>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawWindow {
    from: String,
    to: String,
    rate: String,
}

/// A rule: which links, and what they may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    name: String,
    interfaces: Vec<String>,
    kinds: Vec<Kind>,
    policy: Policy,
}

impl RawLink {
    /// Resolves the texts.
    ///
    /// # Errors
    /// Which field, and what to write.
    pub fn resolve(self) -> Result<Rule, String> {
        let named = |what: &str, err: String| format!("{}.{what}: {err}", self.name);
        let windows = self.windows.iter().map(|window| {
            Ok(Window {
                from: time(&window.from).map_err(|err| named("windows[].from", err))?,
                to: time(&window.to).map_err(|err| named("windows[].to", err))?,
                rate: rate(&window.rate).map_err(|err| named("windows[].rate", err))?,
            })
        });
        let policy = Policy {
            rate: match &self.rate {
                None => None,
                Some(text) => rate(text).map_err(|err| named("rate", err))?,
            },
            burst: optional_bytes(self.burst.as_deref()).map_err(|err| named("burst", err))?,
            monthly: optional_bytes(self.monthly.as_deref()).map_err(|err| named("monthly", err))?,
            windows: windows.collect::<Result<_, String>>()?,
        };
        if self.interfaces.is_empty() && self.kinds.is_empty() {
            let why = "name interfaces (such as wwan*) or kinds (ethernet, wifi, cellular)";
            return Err(named("interfaces", why.to_owned()));
        }
        Ok(Rule {
            name: self.name,
            interfaces: self.interfaces,
            kinds: self.kinds,
            policy,
        })
    }
}

/// `64kbit`, `1.5mbit`, `0`, `unlimited`: bits per second, as `tc` counts them; gives bytes.
fn rate(text: &str) -> Result<Rate, String> {
    let text = text.trim();
    if text == "unlimited" {
        return Ok(None);
    }
    let units = [("gbit", 1e9), ("mbit", 1e6), ("kbit", 1e3), ("bit", 1.0)];
    let (number, unit) = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)))
        .unwrap_or((text, 0.0));
    let bits = match number.trim().parse::<f64>() {
        Ok(0.0) => 0.0,
        Ok(number) if number > 0.0 && number.is_finite() && unit > 0.0 => number * unit,
        _ => {
            return Err(format!(
                "{text:?} is no rate; write 64kbit, 10mbit, 0 or unlimited"
            ));
        }
    };
    Ok(Some((bits / 8.0) as u64))
}

fn optional_bytes(text: Option<&str>) -> Result<Option<u64>, String> {
    let Some(text) = text.map(str::trim) else {
        return Ok(None);
    };
    let units = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40)];
    let (number, shift) = units
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))
        .unwrap_or((text, 0));
    match number
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(1 << shift))
    {
        Some(bytes) if bytes > 0 => Ok(Some(bytes)),
        _ => Err(format!("{text:?} is no size; write 64Ki, 500Mi or 2Gi")),
    }
}

fn time(text: &str) -> Result<civil::Time, String> {
    civil::Time::strptime("%H:%M", text).map_err(|_| format!("{text:?} is no time of day; write 22:00 (UTC)"))
}

/// All rules, and the months of their links.
#[derive(Debug)]
pub struct Links {
    rules: Vec<Rule>,
    sysroot: PathBuf,
    file: PathBuf,
    used: BTreeMap<String, Usage>,
    saved: (u64, Duration),
}

impl Links {
    /// Reads what the months have used; a file that cannot be read counts as none.
    pub fn open(rules: Vec<Rule>, sysroot: &Path, state: &Path) -> Self {
        let file = state.join(FILE);
        let used = match kit::disk::read_if_there(&file) {
            Ok(None) => BTreeMap::new(),
            Ok(Some(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|err| {
                tracing::warn!(file = %file.display(), %err, "what the month has used is forgotten");
                BTreeMap::new()
            }),
            Err(err) => {
                tracing::warn!(file = %file.display(), %err, "what the month has used cannot be read");
                BTreeMap::new()
            }
        };
        Self {
            rules,
            sysroot: sysroot.to_owned(),
            file,
            used,
            saved: (0, Duration::ZERO),
        }
    }

    /// The budget of the link that leads to `peer`, under its rule's name; without a rule there is no limit.
    pub fn budget(&mut self, peer: Option<SocketAddr>, now: Now) -> (Option<String>, Budget) {
        let interface = peer.and_then(|peer| interface_to(&self.sysroot, peer.ip()));
        let rule = interface.as_deref().and_then(|name| self.rule(name)).cloned();
        let Some(rule) = rule else {
            return (None, Budget::new(Policy::default(), Usage::default(), now));
        };
        tracing::info!(interface, rule = rule.name, "uplink");
        let usage = self.used.get(&rule.name).cloned().unwrap_or_default();
        self.saved = (usage.bytes, now.since_boot);
        (Some(rule.name), Budget::new(rule.policy, usage, now))
    }

    fn rule(&self, interface: &str) -> Option<&Rule> {
        let kind = kind_of(&self.sysroot, interface);
        self.rules.iter().find(|rule| {
            rule.kinds.contains(&kind) || rule.interfaces.iter().any(|pattern| matches(pattern, interface))
        })
    }

    /// Keeps what a link's month has used; written down when it is `due`, or at once at the end of a session.
    pub fn keep(&mut self, name: &str, budget: &Budget, now: Now, at_once: bool) {
        let Some(monthly) = budget.monthly() else { return };
        let usage = budget.usage();
        let (bytes, at) = self.saved;
        let moved = usage.bytes.abs_diff(bytes);
        let due = moved >= (monthly / SAVE_SHARE).max(1) || now.since_boot.saturating_sub(at) >= SAVE_EVERY;
        if moved == 0 || !(due || at_once) {
            return;
        }
        self.used.insert(name.to_owned(), usage.clone());
        // Plain data; it cannot fail to serialise.
        let text = serde_json::to_vec(&self.used).unwrap_or_default();
        if let Err(err) = kit::disk::replace(&self.file, &text) {
            tracing::warn!(file = %self.file.display(), %err, "what the month has used is not kept");
        }
        self.saved = (usage.bytes, now.since_boot);
    }
}

/// `wwan*` and `wwan0` match `wwan0`.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

fn kind_of(sysroot: &Path, interface: &str) -> Kind {
    let folder = sysroot.join("sys/class/net").join(interface);
    if folder.join("wireless").is_dir() || folder.join("phy80211").exists() {
        return Kind::Wifi;
    }
    let uevent = std::fs::read_to_string(folder.join("uevent")).unwrap_or_default();
    let modem = uevent.lines().any(|line| line == "DEVTYPE=wwan")
        || ["wwan", "ppp", "rmnet"]
            .iter()
            .any(|start| interface.starts_with(start));
    if modem { Kind::Cellular } else { Kind::Ethernet }
}

/// The interface that the kernel's routes give for an address.
fn interface_to(sysroot: &Path, address: IpAddr) -> Option<String> {
    let read = |name: &str| std::fs::read_to_string(sysroot.join("proc/net").join(name)).unwrap_or_default();
    match address.to_canonical() {
        IpAddr::V4(address) if address.is_loopback() => Some("lo".to_owned()),
        IpAddr::V6(address) if address.is_loopback() => Some("lo".to_owned()),
        IpAddr::V4(address) => route_4(&read("route"), address.into()),
        IpAddr::V6(address) => route_6(&read("ipv6_route"), address.into()),
    }
}

/// `/proc/net/route`: the longest mask, then the least metric. Numbers are in the machine's order of bytes.
fn route_4(table: &str, address: u32) -> Option<String> {
    let number = |text: &&str| u32::from_str_radix(text, 16).ok();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let cells: Vec<&str> = line.split_whitespace().collect();
            let net = u32::from_be(number(cells.get(1)?)?);
            let mask = u32::from_be(number(cells.get(7)?)?);
            let metric: u32 = cells.get(6)?.parse().ok()?;
            (address & mask == net)
                .then(|| (mask.count_ones(), std::cmp::Reverse(metric), cells[0].to_owned()))
        })
        .max()
        .map(|(_, _, name)| name)
}

/// `/proc/net/ipv6_route`, the same.
fn route_6(table: &str, address: u128) -> Option<String> {
    table
        .lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.split_whitespace().collect();
            let net = u128::from_str_radix(cells.first()?, 16).ok()?;
            let length = u32::from_str_radix(cells.get(1)?, 16).ok()?;
            let metric = u32::from_str_radix(cells.get(5)?, 16).ok()?;
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            let name = (*cells.get(9)?).to_owned();
            // A route to nowhere is under `lo`.
            (address & mask == net && name != "lo").then_some((length, std::cmp::Reverse(metric), name))
        })
        .max()
        .map(|(_, _, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wwan0\t00000000\t0100000A\t0003\t0\t0\t700\t00000000\t0\t0\t0
wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
";
    const ROUTES_6: &str = "\
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003    wlan0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    fn link(yaml: &str) -> Result<Rule, String> {
        serde_saphyr::from_str::<RawLink>(yaml).unwrap().resolve()
    }

    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let net = root.path().join("proc/net");
        fs::create_dir_all(&net).unwrap();
        fs::write(net.join("route"), ROUTES).unwrap();
        fs::write(net.join("ipv6_route"), ROUTES_6).unwrap();
        fs::create_dir_all(root.path().join("sys/class/net/wlan0/wireless")).unwrap();
        root
    }

    #[test]
    fn rates_sizes_and_times_are_read_as_people_write_them() {
        let read: Vec<Rate> = ["64kbit", "1.5mbit", "0", "800 bit", "unlimited"]
            .map(|text| rate(text).unwrap())
            .into();
        assert_eq!(read, [Some(8_000), Some(187_500), Some(0), Some(100), None]);
        assert_eq!(optional_bytes(Some("500Mi")), Ok(Some(500 << 20)));
        for bad in [
            "{name: a, kinds: [wifi], rate: fast}",
            "{name: a, kinds: [wifi], rate: 64}",
            "{name: a, kinds: [wifi], monthly: 1GB}",
            "{name: a, kinds: [wifi], windows: [{from: '25:00', to: '6:00', rate: '0'}]}",
            "{name: a, rate: 64kbit}",
        ] {
            let err = link(bad).unwrap_err();
            assert!(err.starts_with("a."), "{bad}: {err}");
        }
    }

    #[test]
    fn the_route_to_the_hub_says_which_link_it_is() {
        let root = root();
        let to = |address: &str| interface_to(root.path(), address.parse().unwrap()).unwrap();
        assert_eq!(to("192.168.1.9"), "eth0");
        assert_eq!(to("1.1.1.1"), "wlan0");
        assert_eq!(to("::ffff:192.168.1.9"), "eth0");
        assert_eq!(to("fd00::1"), "eth0");
        assert_eq!(to("2001:db8::1"), "wlan0");
        assert_eq!(to("127.0.0.1"), "lo");
        let kind = |name| kind_of(root.path(), name);
        assert_eq!(
            [kind("wlan0"), kind("wwan0"), kind("eth0")],
            [Kind::Wifi, Kind::Cellular, Kind::Ethernet]
        );
    }

    #[test]
    fn the_first_rule_that_fits_counts_and_its_month_survives_a_restart() {
        let (root, state) = (root(), tempfile::tempdir().unwrap());
        let rules = vec![
            link("{name: modem, interfaces: ['wwan*']}").unwrap(),
            link("{name: air, kinds: [wifi], monthly: 1Mi}").unwrap(),
        ];
        let now = Now {
            since_boot: Duration::from_secs(1),
            wall: "2026-05-10T12:00:00Z".parse().unwrap(),
        };
        let open = || Links::open(rules.clone(), root.path(), state.path());
        let mut links = open();
        let hub = Some("1.1.1.1:7443".parse().unwrap());
        let (name, mut budget) = links.budget(hub, now);
        assert_eq!(name.as_deref(), Some("air"));
        budget.spent(5_000, 0, now);
        links.keep("air", &budget, now, false);
        assert!(
            !state.path().join(FILE).exists(),
            "half a per cent is not worth a write"
        );
        budget.spent(6_000, 0, now);
        links.keep("air", &budget, now, false);
        budget.spent(500, 0, now);
        links.keep("air", &budget, now, true);
        assert_eq!(open().budget(hub, now).1.usage().bytes, 11_500);
        assert_eq!(open().budget(Some("192.168.1.2:1".parse().unwrap()), now).0, None);
        fs::write(state.path().join(FILE), "{").unwrap();
        assert_eq!(open().budget(hub, now).1.usage().bytes, 0);
    }
}
