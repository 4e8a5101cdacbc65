//! The values of one series over time, in as few bytes as they need.
//!
//! One byte says how. Most series are whole numbers, or decimals with few places (seconds, degrees): those are scaled
//! by a power of ten and stored as differences. The scaling is only used where dividing gives the same bits back, for
//! each value. What is left is stored as the bytes in which a value differs from the one before.

use kit::varint::{Reader, put, put_zigzag};

/// The most decimal places.
const MOST_PLACES: usize = 9;
const TENS: [f64; MOST_PLACES + 1] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
/// Whole numbers up to here are exact in an `f64`.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Below: decimal places of scaled whole numbers.
const MODE: u8 = 0x0f;
const MODE_BITS: u8 = 0x0f;
/// All values are the first one.
const SAME: u8 = 0x40;
/// The last value is the staleness marker, and not written.
const ENDS_STALE: u8 = 0x80;

/// Appends a column. Its length is known to the reader.
pub(super) fn put_column(out: &mut Vec<u8>, values: &[f64], scaled: &mut Vec<i64>) {
    let (values, ends) = match values.split_last() {
        Some((last, rest)) if super::is_stale(*last) => (rest, ENDS_STALE),
        _ => (values, 0),
    };
    let Some((first, rest)) = values.split_first() else {
        out.push(ends);
        return;
    };
    let bits = first.to_bits();
    let same = if rest.iter().all(|value| value.to_bits() == bits) {
        SAME
    } else {
        0
    };
    let counted = if same != 0 { &values[..1] } else { values };
    let Some(places) = scale(counted, scaled) else {
        out.push(ends | same | MODE_BITS);
        put_bits(out, counted);
        return;
    };
    out.push(ends | same | places);
    let mut before = 0;
    for number in scaled.iter() {
        put_zigzag(out, number - before);
        before = *number;
    }
}

/// Whole numbers that give the values back when divided by ten to the power of what is returned.
fn scale(values: &[f64], scaled: &mut Vec<i64>) -> Option<u8> {
    let mut places = 0;
    for value in values {
        while whole(*value, places).is_none() {
            places += 1;
            if places > MOST_PLACES {
                return None;
            }
        }
    }
    scaled.clear();
    for value in values {
        // More places may make an earlier value too large.
        scaled.push(whole(*value, places)?);
    }
    u8::try_from(places).ok()
}

fn whole(value: f64, places: usize) -> Option<i64> {
    let number = (value * TENS[places]).round();
    if number.abs() >= EXACT {
        return None;
    }
    // NaN becomes 0 here, and fails the comparison.
    let number = number as i64;
    (unscale(number, places).to_bits() == value.to_bits()).then_some(number)
}

fn unscale(number: i64, places: usize) -> f64 {
    // Below 2^53: exact.
    number as f64 / TENS[places]
}

/// The first as it is; of each next one the bytes that differ: how many are left out at the top, how many follow.
fn put_bits(out: &mut Vec<u8>, values: &[f64]) {
    let mut before = 0;
    for (index, value) in values.iter().enumerate() {
        let bits = value.to_bits();
        let differs = bits ^ before;
        before = bits;
        if index == 0 {
            out.extend_from_slice(&bits.to_le_bytes());
            continue;
        }
        if differs == 0 {
            out.push(0);
            continue;
        }
        let (top, bottom) = (differs.leading_zeros() / 8, differs.trailing_zeros() / 8);
        let count = 8 - top - bottom;
        // Both are at most 8.
        out.push((top << 4 | count) as u8);
        out.extend_from_slice(&(differs >> (8 * bottom)).to_le_bytes()[..count as usize]);
    }
}

/// Reads a column of `len` values and hands out each; `None` where the bytes are none.
pub(super) fn column(reader: &mut Reader<'_>, len: usize, mut each: impl FnMut(f64)) -> Option<()> {
    if len == 0 {
        return None;
    }
    let how = reader.byte()?;
    let ends = how & ENDS_STALE != 0;
    let len = if ends { len - 1 } else { len };
    if len > 0 {
        let counted = if how & SAME != 0 { 1 } else { len };
        let mut last = 0.0;
        let mut give = |value| {
            last = value;
            each(value);
        };
        match how & MODE {
            MODE_BITS => bits(reader, counted, &mut give)?,
            places => numbers(reader, counted, usize::from(places), &mut give)?,
        }
        for _ in counted..len {
            each(last);
        }
    }
    if ends {
        each(super::stale());
    }
    Some(())
}

fn numbers(reader: &mut Reader<'_>, len: usize, places: usize, give: &mut impl FnMut(f64)) -> Option<()> {
    if places > MOST_PLACES {
        return None;
    }
    let mut number = 0_i64;
    for _ in 0..len {
        number = number.checked_add(reader.zigzag()?)?;
        give(unscale(number, places));
    }
    Some(())
}

fn bits(reader: &mut Reader<'_>, len: usize, give: &mut impl FnMut(f64)) -> Option<()> {
    let mut bits = u64::from_le_bytes(reader.take(8)?.try_into().ok()?);
    give(f64::from_bits(bits));
    for _ in 1..len {
        let how = reader.byte()?;
        let (top, count) = (u32::from(how >> 4), u32::from(how & 0x0f));
        if count > 0 {
            let bottom = 8_u32.checked_sub(top + count)?;
            let mut bytes = [0; 8];
            bytes[..count as usize].copy_from_slice(reader.take(count as usize)?);
            bits ^= u64::from_le_bytes(bytes) << (8 * bottom);
        }
        give(f64::from_bits(bits));
    }
    Some(())
}

/// Numbers without an order: whole ones as they are, others as bits.
pub(super) fn put_list(out: &mut Vec<u8>, values: &[f64]) {
    put(out, values.len() as u64);
    let mut scaled = Vec::new();
    if !values.is_empty() {
        put_column(out, values, &mut scaled);
    }
}

/// What [`put_list`] wrote; at most as many values as bytes are left would not hold for equal ones, so `most` bounds it.
pub(super) fn list(reader: &mut Reader<'_>, most: usize) -> Option<Vec<f64>> {
    let len = usize::try_from(reader.u64()?).ok().filter(|len| *len <= most)?;
    let mut values = Vec::new();
    if len > 0 {
        column(reader, len, |value| values.push(value))?;
    }
    Some(values)
}
