//! Who a device is, whom it trusts, and what time it is.
//!
//! Takes: an enrolment token, answers of the hub, the machine's clock, a folder of its own.
//! Gives: the device's keys and certificates on disk ([`DeviceKeys`]), the next step of enrolment, renewal and
//! connection ([`Lifecycle`], free of I/O), a time that a wrong clock cannot spoil ([`TimeKeeper`]), the hub's
//! certificate authority ([`Authority`]), signed statements ([`model::Signed`]), and rustls configurations ([`tls`]).
//! Never: opens a connection, trusts a name that it did not verify, believes an expiry by an unproven clock alone.
//!
//! Two certificates: a long-lived *identity* (ten years, used only to enrol and renew) and a short *operational* one
//! (thirty days, for everything else). A device that was away for a year renews with the first and returns by itself.

mod authority;
mod certificate;
mod keys;
mod lifecycle;
mod seal;
mod signed;
mod time;
pub mod tls;
mod token;
mod trust;

pub use authority::{Authority, AuthorityError, CsrError, IDENTITY_LIFE, Issued, OPERATIONAL_LIFE, Trusted};
pub use certificate::{BadCertificate, Kind, Peer};
pub use keys::{DeviceKeys, Held, IntentError, KeyError, Requests};
pub use lifecycle::{Action, Event, Failure, Lifecycle, Step};
pub use seal::Seal;
pub use signed::{BadSignature, Purpose};
pub use time::{TimeError, TimeKeeper};
pub use token::{BadToken, EnrolToken, PersonToken, SecretHash};
pub use trust::{TrustBundle, TrustError};
