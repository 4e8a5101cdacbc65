//! Values and times.

/// The NaN that is stored for any NaN that an exporter gives (as Prometheus does).
const NORMAL_NAN: u64 = 0x7ff8_0000_0000_0001;
/// Digits of a number that fits in an `f64` exactly.
const EXACT_DIGITS: usize = 15;

/// A value as Prometheus reads it: a decimal number, `NaN`, `Inf` or `Infinity` in any case, the latter with a sign.
pub(super) fn value(word: &str) -> Option<f64> {
    let bytes = word.as_bytes();
    if bytes.len() <= EXACT_DIGITS && bytes.iter().all(u8::is_ascii_digit) {
        let number = bytes
            .iter()
            .fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        // Below 10^15: exact.
        return (!bytes.is_empty()).then_some(number as f64);
    }
    let value: f64 = word.parse().ok()?;
    if value.is_nan() {
        let signed = bytes[0] == b'-' || bytes[0] == b'+';
        return (!signed).then_some(f64::from_bits(NORMAL_NAN));
    }
    // A number that is too large is an error, not infinity.
    let said = bytes.iter().any(|byte| byte.eq_ignore_ascii_case(&b'i'));
    (value.is_finite() || said).then_some(value)
}

/// Seconds since 1970 as milliseconds.
pub(super) fn milliseconds(word: &str) -> Option<i64> {
    let seconds = value(word)?;
    let milliseconds = seconds * 1000.0;
    // What is beyond cannot be told apart from its neighbours.
    (milliseconds.abs() < 9.0e15).then_some(milliseconds as i64)
}
