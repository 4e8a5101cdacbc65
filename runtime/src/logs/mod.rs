//! Containers' logs on disk: found in the order in which they were written, read through rotation and compression,
//! kept within bounds.
//!
//! The shim writes `0.log` and rotates it to `0.log.1`, `0.log.2`, ... What has been rotated is put away by
//! [`keep`] under the time of its last line, `0.log-20261125T101500.123456789Z`, and compressed (`.zst`), so that
//! `zstdcat` reads it, too.

mod files;
mod keep;
mod lines;
mod read;

pub use keep::{Kept, Retention, keep};
pub use lines::Grep;
pub(crate) use lines::{About, Lines, wanted, write_line};
pub(crate) use read::Cursor;

#[cfg(test)]
mod tests;
