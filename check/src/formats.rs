//! The formats of texts and numbers that Kubernetes checks.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use regex::Regex;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

macro_rules! pattern {
    ($name:ident, $text:literal) => {
        static $name: LazyLock<Regex> =
            LazyLock::new(|| Regex::new($text).expect("a test uses every pattern"));
    };
}

pattern!(
    DATE_TIME,
    r"^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$"
);
pattern!(DATE, r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$");
pattern!(DURATION, r"^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h|d|w))+$");
pattern!(
    UUID,
    r"^(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"
);
pattern!(MAC, r"^(?i)([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$");
pattern!(EMAIL, r"^[^@\s]+@[^@\s]+$");
pattern!(
    HOST,
    r"^([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*\.?$"
);
pattern!(
    QUANTITY,
    r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
);

/// What is wrong with a value of a format; formats that Kubernetes does not check are all right.
pub(crate) fn wrong(format: &str, value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => {
            let within = |low: i64, high: i64| number.as_i64().is_some_and(|it| (low..=high).contains(&it));
            match format {
                "int32" if !within(i32::MIN.into(), i32::MAX.into()) => {
                    Some(format!("{number} does not fit into 32 bits"))
                }
                "int64" if number.as_i64().is_none() => Some(format!("{number} does not fit into 64 bits")),
                _ => None,
            }
        }
        Value::String(text) => {
            let what = text_format(format, text)?;
            Some(format!("{text:?} is no {what}"))
        }
        _ => None,
    }
}

/// The name of the format, where the text does not have it.
fn text_format(format: &str, text: &str) -> Option<&'static str> {
    let (fine, what) = match format {
        "byte" => (is_base64(text), "base64"),
        "date-time" | "datetime" => (DATE_TIME.is_match(text), "time such as 2026-01-31T12:00:00Z"),
        "date" => (DATE.is_match(text), "date such as 2026-01-31"),
        "duration" => (DURATION.is_match(text), "duration such as 90s or 1h30m"),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => (UUID.is_match(text), "UUID"),
        "mac" => (MAC.is_match(text), "MAC address"),
        "email" => (EMAIL.is_match(text), "e-mail address"),
        "hostname" => (HOST.is_match(text), "host name"),
        "ipv4" => (text.parse::<Ipv4Addr>().is_ok(), "IPv4 address"),
        "ipv6" => (text.parse::<Ipv6Addr>().is_ok(), "IPv6 address"),
        "cidr" => (is_cidr(text), "network such as 10.0.0.0/8"),
        "uri" => (text.starts_with('/') || text.contains(':'), "URI"),
        _ => return None,
    };
    (!fine).then_some(what)
}

fn is_base64(text: &str) -> bool {
    let compact: String = text.split_whitespace().collect();
    STANDARD.decode(compact).is_ok()
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else {
        return false;
    };
    let most = match address.parse() {
        Ok(IpAddr::V4(_)) => 32,
        Ok(IpAddr::V6(_)) => 128,
        Err(_) => return false,
    };
    bits.parse::<u8>().is_ok_and(|bits| bits <= most)
}

/// Whether a text is a quantity such as `500m` or `1Gi`.
pub(crate) fn is_quantity(text: &str) -> bool {
    QUANTITY.is_match(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(format: &str, good: &[Value], bad: &[Value]) {
        for value in good {
            assert_eq!(wrong(format, value), None, "{format} {value}");
        }
        for value in bad {
            assert!(wrong(format, value).is_some(), "{format} {value}");
        }
    }

    #[test]
    fn formats() {
        check("int32", &[json!(2_147_483_647)], &[json!(2_147_483_648_i64)]);
        check("int64", &[json!(-9)], &[json!(18_446_744_073_709_551_615_u64)]);
        check(
            "byte",
            &[json!("aGk="), json!("aG\nk=")],
            &[json!("hi!"), json!("aGk")],
        );
        check(
            "date-time",
            &[json!("2026-01-31T12:00:00Z")],
            &[json!("2026-01-31")],
        );
        check("date", &[json!("2026-01-31")], &[json!("2026-13-31")]);
        check(
            "duration",
            &[json!("1h30m"), json!("1.5s")],
            &[json!("5"), json!("1y")],
        );
        check(
            "uuid",
            &[json!("123e4567-e89b-12d3-a456-426614174000")],
            &[json!("x")],
        );
        check("mac", &[json!("00:1a:2b:3c:4d:5e")], &[json!("00:1a")]);
        check("email", &[json!("a@b.c")], &[json!("a")]);
        check("hostname", &[json!("a.b-c")], &[json!("-a"), json!("a b")]);
        check("ipv4", &[json!("10.0.0.1")], &[json!("::1")]);
        check("ipv6", &[json!("::1")], &[json!("10.0.0.1")]);
        check(
            "cidr",
            &[json!("10.0.0.0/8"), json!("::/0")],
            &[json!("10.0.0.0/33"), json!("10.0.0.0")],
        );
        check("uri", &[json!("https://x/")], &[json!("x")]);
        check("unheard-of", &[json!("x"), json!(1)], &[]);
    }

    #[test]
    fn quantities() {
        for good in ["1", "500m", "1Gi", "1.5", "1e3", "1E-3", ".5", "12k", "100n"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "1 Gi", "1GB", "Gi", "1gi", "one", "1K i"] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }
}
