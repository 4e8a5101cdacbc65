//! The machine below: its hardware class and what it tells of itself.
//!
//! Takes: a root folder with `proc` and `sys` (`/`, or a fixture's), the folder whose disk counts.
//! Gives: [`Class`]es as data (capacity, what the system keeps, thermal limits, folder of the repository), the class
//! that a board belongs to, its figures as a page of metrics ([`HostMetrics`]), [`Facts`](model::Facts) as they are now, and fixtures of each class's files.
//! Never: assumes one board, waits for a sensor that does not answer, invents a value that is not there, or writes
//! anything but fixtures.

mod cgroup;
mod class;
mod facts;
pub mod fixture;
mod metrics;
mod patient;
mod root;
mod sensors;

pub use class::{Allocatable, Class, Heat, Reserved, Thermal, UnknownClass, detect_class};
pub use facts::{FactsReader, boot_id};
pub use metrics::{ContainerMetrics, HostMetrics, Page, process as process_metrics};
