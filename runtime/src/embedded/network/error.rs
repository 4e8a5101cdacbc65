//! What can go wrong on the pod network.

use super::ServiceId;
use super::cidr::Cidr;
use model::PodId;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;

/// Why the pod network could not do what was asked. Nothing was changed, except where the text says so.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The bridge's name does not fit an interface.
    #[error(
        "bridge name {0:?} is not valid: use 1 to 15 lower-case letters, digits and '-', starting with a letter"
    )]
    BridgeName(String),
    /// The cluster's domain is no domain name.
    #[error(
        "cluster domain {0:?} is not valid: use labels of lower-case letters, digits and '-', 64 characters at most, as cluster.local"
    )]
    ClusterDomain(String),
    /// The ranges cannot serve.
    #[error("pod range {pods} and service range {services}: {problem}")]
    Ranges {
        /// Addresses of pods.
        pods: Cidr,
        /// Virtual addresses.
        services: Cidr,
        /// What is wrong and what to do.
        problem: &'static str,
    },
    /// The device has an address in one of the ranges.
    #[error(
        "range {range} overlaps {address}/{prefix}, an address that this device has: choose another range for the pod network"
    )]
    RangeInUse {
        /// The configured range.
        range: Cidr,
        /// The device's address.
        address: Ipv4Addr,
        /// Its prefix length.
        prefix: u8,
    },
    /// All addresses are given out.
    #[error("no free address in {range} ({held} held): use a larger range")]
    NoAddressLeft {
        /// Which range.
        range: Cidr,
        /// Addresses held.
        held: usize,
    },
    /// A host port of a pod is taken by another pod.
    #[error("pod {pod} asks for host port {port}, which pod {holder} has: change one of the two")]
    PortOfPod {
        /// Who asks.
        pod: PodId,
        /// `8080/tcp`.
        port: String,
        /// Who has it.
        holder: PodId,
    },
    /// A host port of a pod is the node port of a Service.
    #[error(
        "pod {pod} asks for host port {port}, which Service {holder} has as nodePort: change one of the two"
    )]
    PortOfService {
        /// Who asks.
        pod: PodId,
        /// `8080/tcp`.
        port: String,
        /// Who has it.
        holder: ServiceId,
    },
    /// A host port of a pod is in use on the device.
    #[error(
        "pod {pod} asks for host port {port}, at which {holder} of this device listens: change the port or stop it"
    )]
    PortOfDevice {
        /// Who asks.
        pod: PodId,
        /// `8080/tcp`.
        port: String,
        /// Process id and name.
        holder: String,
    },
    /// Some Services could not be published; all others were.
    #[error("{}; all other Services are published", .0.join("; "))]
    ServicesRefused(Vec<String>),
    /// The kernel refused a change of links, addresses or routes.
    #[error("{what}: the kernel refused")]
    Link {
        /// What was tried.
        what: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The pod's network namespace cannot be opened.
    #[error("network namespace {path} of pod {pod} cannot be entered: is the pod's shim alive?")]
    Netns {
        /// Whose.
        pod: PodId,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A kernel setting cannot be written.
    #[error("kernel setting {path} cannot be written: the agent needs root and a writable /proc/sys")]
    Setting {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// nft cannot be run.
    #[error("nft cannot be run: install the package nftables")]
    NoNft {
        /// Why.
        source: io::Error,
    },
    /// nft refused a transaction.
    #[error("nft refused the device's rules, none of which were changed: {message}")]
    Nft {
        /// Its own words.
        message: String,
    },
    /// The state folder cannot be read or written.
    #[error("address leases {path}: cannot be read or written")]
    State {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The leases are not in the form that was written.
    #[error("address leases {path} are damaged: stop all pods and remove the file; addresses are given anew")]
    Leases {
        /// Where.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
}
