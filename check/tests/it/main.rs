//! The whole crate over small repositories.

mod cel;
mod faults;
mod mutations;
mod prometheus;
mod support;
