//! What a link is made worse by, as people write it: `1mbit`, `200ms`, `1%`.

use crate::run::run;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Limits of a link, the same in each direction; what is absent is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Shape {
    /// Bits each second.
    pub rate: Option<Rate>,
    /// How late everything comes.
    pub delay: Option<Delay>,
    /// How much does not come.
    pub loss: Option<Loss>,
}

/// Bits each second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate(u64);

/// Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delay(u64);

/// Percent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Loss(f64);

impl Shape {
    /// Whether frames must be held back or lost, which a rate alone does not ask for.
    pub(crate) fn disturbs(&self) -> bool {
        self.delay.is_some() || self.loss.is_some()
    }

    /// Delay in milliseconds and loss in percent.
    pub(crate) fn disturbance(&self) -> (u64, f64) {
        let delay = self.delay.map_or(0, |Delay(millis)| millis);
        (delay, self.loss.map_or(0.0, |Loss(percent)| percent))
    }

    /// Hangs the rate on a network device, as a token bucket; `ns` is the namespace where it is not ours.
    pub(crate) fn limit(&self, ns: Option<&str>, device: &str) -> Result<()> {
        let Some(Rate(bits)) = self.rate else {
            return Ok(());
        };
        let rate = format!("{bits}bit");
        let bucket = ["root", "tbf", "rate", &rate, "burst", "16kb", "latency", "400ms"];
        tc(ns, &[&["replace", "dev", device], &bucket[..]].concat())
    }

    /// Hangs everything on a network device; fails where the kernel has no netem.
    pub(crate) fn emulate(&self, ns: Option<&str>, device: &str) -> Result<()> {
        let (delay, loss) = self.disturbance();
        let (delay, loss) = (format!("{delay}ms"), format!("{loss}%"));
        let rate = self.rate.map(|Rate(bits)| format!("{bits}bit"));
        let mut words = vec![
            "replace", "dev", device, "root", "netem", "delay", &delay, "loss", &loss,
        ];
        if let Some(rate) = &rate {
            words.extend(["rate", rate]);
        }
        tc(ns, &words)
    }
}

/// `tc qdisc ...`, in a namespace.
pub(crate) fn tc(ns: Option<&str>, words: &[&str]) -> Result<()> {
    let place = ns.map_or_else(Vec::new, |ns| vec!["-n", ns]);
    run("tc", &[&place, &["qdisc"][..], words].concat()).map(drop)
}

/// A number, and what follows it.
fn split(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

fn whole(value: f64) -> Option<u64> {
    // Bounded before, so that nothing is cut off.
    (1.0..=1e12).contains(&value).then_some(value.round() as u64)
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (number, unit) = split(text)?;
            let factor = match unit {
                "bit" => 1.0,
                "kbit" => 1e3,
                "mbit" => 1e6,
                "gbit" => 1e9,
                _ => return None,
            };
            // Below this, a bucket would never hold a whole frame.
            whole(number * factor).filter(|bits| *bits >= 8_000).map(Self)
        };
        read().ok_or_else(|| format!("{text:?} is no rate: write 256kbit or 1mbit, 8kbit at least"))
    }
}

impl FromStr for Delay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || {
            let (number, unit) = split(text)?;
            let factor = match unit {
                "ms" => 1.0,
                "s" => 1e3,
                _ => return None,
            };
            whole(number * factor)
                .filter(|millis| *millis <= 60_000)
                .map(Self)
        };
        read().ok_or_else(|| format!("{text:?} is no delay: write 200ms or 1s, 60s at most"))
    }
}

impl FromStr for Loss {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let read = || match split(text)? {
            (percent, "%") if (0.0..=100.0).contains(&percent) => Some(Self(percent)),
            _ => None,
        };
        read().ok_or_else(|| format!("{text:?} is no loss: write 1% or 0.5%"))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if let Some(Rate(bits)) = self.rate {
            let (factor, unit) = match bits {
                1_000_000.. => (1e6, "mbit"),
                1_000.. => (1e3, "kbit"),
                _ => (1.0, "bit"),
            };
            words.push(format!("{}{unit}", bits as f64 / factor));
        }
        if let Some(Delay(millis)) = self.delay {
            words.push(format!("{millis}ms"));
        }
        if let Some(Loss(percent)) = self.loss {
            words.push(format!("{percent}%"));
        }
        f.write_str(&words.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::{Delay, Loss, Rate, Shape};

    #[test]
    fn people_write_units() {
        let shape = Shape {
            rate: Some("1.5mbit".parse().unwrap()),
            delay: Some("0.2s".parse().unwrap()),
            loss: Some("0.5%".parse().unwrap()),
        };
        assert_eq!(shape.to_string(), "1.5mbit 200ms 0.5%");
        assert_eq!(shape.disturbance(), (200, 0.5));
        assert!(
            !Shape {
                delay: None,
                loss: None,
                ..shape
            }
            .disturbs()
        );
    }

    #[test]
    fn what_is_no_limit_is_refused_with_an_example() {
        for text in ["", "1", "fast", "1mb", "-1mbit", "7kbit", "1e9gbit"] {
            assert!(text.parse::<Rate>().unwrap_err().contains("1mbit"), "{text}");
        }
        for text in ["", "200", "2m", "61s", "0ms"] {
            assert!(text.parse::<Delay>().unwrap_err().contains("200ms"), "{text}");
        }
        for text in ["", "1", "101%", "-1%"] {
            assert!(text.parse::<Loss>().unwrap_err().contains("0.5%"), "{text}");
        }
    }
}
