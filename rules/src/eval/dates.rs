//! Parts of a moment, in UTC.

use jiff::civil::DateTime;

pub(crate) fn minute(at: DateTime) -> f64 {
    f64::from(at.minute())
}

pub(crate) fn hour(at: DateTime) -> f64 {
    f64::from(at.hour())
}

/// 0 is Sunday.
pub(crate) fn day_of_week(at: DateTime) -> f64 {
    f64::from(at.weekday().to_sunday_zero_offset())
}

pub(crate) fn day_of_month(at: DateTime) -> f64 {
    f64::from(at.day())
}

pub(crate) fn day_of_year(at: DateTime) -> f64 {
    f64::from(at.day_of_year())
}

pub(crate) fn days_in_month(at: DateTime) -> f64 {
    f64::from(at.days_in_month())
}

pub(crate) fn month(at: DateTime) -> f64 {
    f64::from(at.month())
}

pub(crate) fn year(at: DateTime) -> f64 {
    f64::from(at.year())
}
