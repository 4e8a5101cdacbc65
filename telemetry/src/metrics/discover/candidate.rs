//! From meta labels to a target, as Prometheus goes: defaults, relabelling, then what is left of the labels.

use super::super::labels::Labels;
use super::super::relabel::{LabelMap, Rule, relabel};
use super::super::target::{Job, Source, Target};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Where nothing else is said.
#[derive(Debug, Clone, Copy)]
pub struct Defaults {
    pub interval: Duration,
}

impl Defaults {
    pub fn job(self, name: &str) -> Job {
        Job::new(name, self.interval)
    }
}

/// What a job says of where its targets are.
#[derive(Debug, Clone)]
pub struct Place {
    pub scheme: String,
    pub path: String,
    pub params: Vec<(String, String)>,
    pub rules: Vec<Rule>,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            scheme: "http".to_owned(),
            path: "/metrics".to_owned(),
            params: Vec::new(),
            rules: Vec::new(),
        }
    }
}

/// A target, unless relabelling leaves it out; an error where what is left makes none.
pub fn finish(mut labels: LabelMap, place: &Place, job: &Arc<Job>) -> Result<Option<Target>, String> {
    let mut default = |name: &str, value: &str| {
        labels.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    };
    default("job", &job.name);
    default("__scheme__", &place.scheme);
    default("__metrics_path__", &place.path);
    for (name, value) in &place.params {
        default(&format!("__param_{name}"), value);
    }
    if !relabel(&place.rules, &mut labels) {
        return Ok(None);
    }
    let get = |name: &str| labels.get(name).map_or("", String::as_str);
    let address = get("__address__");
    if address.is_empty() || address.contains('/') {
        return Err(format!("{address:?} is no address of a target"));
    }
    let scheme = get("__scheme__");
    if !["http", "https"].contains(&scheme) {
        return Err(format!("scheme {scheme:?} of target {address}: http or https"));
    }
    let port = if has_port(address) {
        ""
    } else if scheme == "https" {
        ":443"
    } else {
        ":80"
    };
    let path = get("__metrics_path__");
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut url = format!("{scheme}://{address}{port}{slash}{path}");
    let params = labels
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("__param_")?, value)));
    for (index, (name, value)) in params.enumerate() {
        url.push(if index == 0 { '?' } else { '&' });
        encode(&mut url, name);
        url.push('=');
        encode(&mut url, value);
    }
    let instance = format!("{address}{port}");
    labels.entry("instance".to_owned()).or_insert(instance);
    let kept = labels.iter().filter(|(name, _)| !name.starts_with("__"));
    let kept = Labels::new(kept.map(|(name, value)| (name.as_str(), value.as_str())));
    Ok(Some(Target {
        source: Source::Url(url),
        labels: kept.map_err(|err| err.to_string())?,
        job: Arc::clone(job),
    }))
}

/// `host:port`, `[v6]:port`; a bare v6 address has none.
fn has_port(address: &str) -> bool {
    let after = address.rsplit_once(']').map_or(address, |(_, after)| after);
    after.matches(':').count() == 1
}

/// As in a URL's query.
fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// A name as it can stand in a label's name.
pub fn sanitize(name: &str) -> String {
    name.chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// Prometheus' durations: `15s`, `1m30s`, `500ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 15s or 1m30s");
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let milliseconds = match &rest[..letters] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "w" => 604_800_000,
            _ => return Err(wrong()),
        };
        total += Duration::from_millis(number.saturating_mul(milliseconds));
        rest = &rest[letters..];
    }
    if total.is_zero() {
        return Err(wrong());
    }
    Ok(total)
}

/// Prometheus' sizes: `10MB` are 10 * 2^20 bytes.
pub fn size(text: &str) -> Result<usize, String> {
    let wrong = || format!("{text:?} is no size such as 512KB or 10MB");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: usize = text[..digits].parse().map_err(|_| wrong())?;
    let shift = match text[digits..].trim_end_matches("iB").trim_end_matches('B') {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err(wrong()),
    };
    number.checked_mul(1 << shift).ok_or_else(wrong)
}
