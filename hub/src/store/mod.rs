//! What the hub knows, in SQLite.

mod ranges;

pub use ranges::Ranges;
