//! What a device, a hub and people say to each other, and how it is laid out on the wire.
//!
//! Takes: a TLS configuration made by `identity`, an address, plain data of `model`.
//! Gives: the device's side ([`client`]: enrol, renew, one [`client::Session`] per device over HTTP/2),
//! the hub's side of the same frames ([`server`]), and the people's JSON API ([`api`], [`ApiClient`]).
//! Never: holds state that outlives a connection, decides whom to trust, reconnects by itself.
//!
//! Every size that a peer can choose is bounded here ([`codec`]); a frame beyond its bound ends the connection.

pub mod api;
mod api_client;
pub mod client;
pub mod codec;
pub mod frame;
pub mod server;
mod version;

pub use api_client::{ApiClient, ApiError};
pub use version::{NoCommonVersion, OURS, Versions};
