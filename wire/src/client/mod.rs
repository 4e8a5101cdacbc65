//! The device's side: enrol, renew, ask for the time, hold a session.
//!
//! Each call opens its own connection with the TLS configuration that it is given: which certificate is shown and whom
//! it trusts is decided there, by `identity`. Nothing here tries twice; waiting and trying again is the caller's.

mod connect;
mod enrol;
mod meter;
mod session;
mod watched;

pub(crate) use connect::{ANSWER_WITHIN, Connection, OutBody, body_of, open};
pub use connect::{BadHubAddress, ConnectError, HubAddress};
pub use enrol::{EnrolAnswer, EnrolRequest, RenewAnswer, RenewRequest, enrol, renew, signed_time};
pub use meter::Meter;
pub use session::{Closed, Ended, Order, Orders, Session, SessionSender};
