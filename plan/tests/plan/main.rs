//! The planner as its callers see it: objects in, refusals or steps out.

mod converge;
mod refusals;
mod services;
mod support;
