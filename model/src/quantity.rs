//! Kubernetes quantities (`500m`, `64Mi`) as numbers.

/// Why a text is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("quantity {0:?} is not valid: use a number with a suffix such as 500m, 2, 64Mi or 1G")]
pub struct BadQuantity(String);

fn split(text: &str) -> Result<(f64, &str), BadQuantity> {
    let bad = || BadQuantity(text.to_owned());
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| bad())?;
    Ok((number, &text[end..]))
}

/// CPU in thousandths of a core.
pub fn parse_cpu_milli(text: &str) -> Result<u64, BadQuantity> {
    let (number, suffix) = split(text)?;
    let milli = match suffix {
        "" => number * 1000.0,
        "m" => number,
        "u" => number / 1e3,
        "n" => number / 1e6,
        _ => return Err(BadQuantity(text.to_owned())),
    };
    Ok(milli.ceil() as u64)
}

/// A size in bytes.
pub fn parse_bytes(text: &str) -> Result<u64, BadQuantity> {
    let (number, suffix) = split(text)?;
    let factor = match suffix {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024f64.powi(4),
        "Pi" => 1024f64.powi(5),
        other => match other.strip_prefix(['e', 'E']).and_then(|e| e.parse::<i32>().ok()) {
            Some(exponent) => 10f64.powi(exponent),
            None => return Err(BadQuantity(text.to_owned())),
        },
    };
    Ok((number * factor).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suffixes_as_in_kubernetes() {
        assert_eq!(parse_cpu_milli("500m"), Ok(500));
        assert_eq!(parse_cpu_milli("1.5"), Ok(1500));
        assert_eq!(parse_bytes("64Mi"), Ok(64 << 20));
        assert_eq!(parse_bytes("1e3"), Ok(1000));
        for bad in ["", "Mi", "1Q", "-1", "1 Gi"] {
            assert!(parse_bytes(bad).is_err(), "{bad:?}");
        }
    }
}
