//! Services: from names and selectors' results to addresses and ports.

use super::State;
use super::dns::{NamedPort, ZoneService};
use super::firewall::Front;
use super::leases::Leases;
use super::ports::{self, HostPort};
use model::{PodId, ServicePort, ServiceRun, TargetPort};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// Namespace and name of a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceId {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Service name.
    pub name: String,
}

impl ServiceId {
    /// The id of a [`ServiceRun`].
    pub fn of(service: &ServiceRun) -> Self {
        Self {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
        }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where a pod can be reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodAddress {
    /// What [`super::Network::attach`] gave; the gateway's for a pod on the device's own network.
    pub ip: Ipv4Addr,
    /// Its containers' ports by name, for Services that name their target.
    pub ports: BTreeMap<String, u16>,
    /// `spec.hostname`, the pod's name where absent: its own name below a headless Service.
    pub hostname: String,
}

impl PodAddress {
    /// The address of `pod`, with what its containers declare.
    pub fn of(pod: &model::PodRun, ip: Ipv4Addr) -> Self {
        let declared = pod.containers.iter().flat_map(|c| &c.ports);
        Self {
            ip,
            ports: declared
                .filter_map(|port| Some((port.name.clone()?, port.container_port)))
                .collect(),
            hostname: pod.hostname.clone().unwrap_or_else(|| pod.id.name.clone()),
        }
    }
}

/// An RFC 1123 label: what may stand in a rule, a chain's name or a domain name.
pub fn is_label(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The Services whose names can be published, each once.
pub fn named_well(services: &[ServiceRun], refused: &mut Vec<String>) -> Vec<ServiceRun> {
    let mut good = BTreeMap::new();
    for service in services {
        let id = ServiceId::of(service);
        if is_label(&id.namespace) && is_label(&id.name) {
            good.insert(id, service.clone());
        } else {
            refused.push(format!(
                "Service {id} has a name that is no RFC 1123 label: rename it"
            ));
        }
    }
    good.into_values().collect()
}

/// Every port of every Service with a ready pod behind it, in order.
pub fn resolve(
    services: &[ServiceRun],
    addresses: &BTreeMap<PodId, PodAddress>,
    leases: &Leases,
) -> Vec<Front> {
    let mut fronts = BTreeMap::new();
    for service in services {
        let id = ServiceId::of(service);
        let Some(address) = leases.service(&id) else {
            continue;
        };
        for port in &service.ports {
            let endpoints = endpoints(service, port, addresses);
            if endpoints.is_empty() {
                continue;
            }
            let front = Front {
                service: id.clone(),
                address,
                port: port.port,
                node_port: port.node_port,
                protocol: port.protocol,
                client_affinity: service.client_affinity,
                endpoints,
            };
            fronts.insert((id.clone(), port.port, port.protocol), front);
        }
    }
    fronts.into_values().collect()
}

fn endpoints(
    service: &ServiceRun,
    port: &ServicePort,
    addresses: &BTreeMap<PodId, PodAddress>,
) -> Vec<(Ipv4Addr, u16)> {
    let mut found: Vec<(Ipv4Addr, u16)> = service
        .endpoints
        .iter()
        .filter_map(|pod| addresses.get(pod))
        .filter_map(|pod| Some((pod.ip, target(port, pod)?)))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn target(port: &ServicePort, pod: &PodAddress) -> Option<u16> {
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => pod.ports.get(name).copied(),
    }
}

/// Takes the node port from each front whose node port somebody else has, and says who.
pub fn refuse_node_ports(fronts: &mut [Front], state: &State, refused: &mut Vec<String>) {
    let held: Vec<(HostPort, &super::ServiceId)> = state
        .published
        .iter()
        .flatten()
        .filter_map(|front| Some((wanted(front)?, &front.service)))
        .collect();
    let mut given: Vec<(HostPort, ServiceId)> = Vec::new();
    // Who has a port keeps it, whatever the others are called.
    let mut order: Vec<&mut Front> = fronts.iter_mut().filter(|f| f.node_port.is_some()).collect();
    let holds = |front: &Front| {
        held.iter()
            .any(|(port, service)| **service == front.service && wanted(front).as_ref() == Some(port))
    };
    order.sort_by_key(|front| !holds(front));
    for front in order {
        let Some(port) = wanted(front) else { continue };
        match taken_by(&port, state, &given, holds(front)) {
            Some(holder) => {
                refused.push(format!(
                    "Service {} asks for nodePort {port}, which {holder} has: change one of the two",
                    front.service
                ));
                front.node_port = None;
            }
            None => given.push((port, front.service.clone())),
        }
    }
}

fn wanted(front: &Front) -> Option<HostPort> {
    Some(HostPort {
        host_ip: None,
        host_port: front.node_port?,
        protocol: front.protocol,
        container_port: 0,
    })
}

fn taken_by(
    port: &HostPort,
    state: &State,
    given: &[(HostPort, ServiceId)],
    held_already: bool,
) -> Option<String> {
    if let Some((_, service)) = given.iter().find(|(other, _)| other.clashes(port)) {
        return Some(format!("Service {service}"));
    }
    let pod = state
        .leases
        .pods()
        .find(|lease| lease.ports.iter().any(|other| other.clashes(port)));
    if let Some(lease) = pod {
        return Some(format!("pod {}", lease.pod));
    }
    // Asked only once: what we publish is no socket, so whoever came later is not in our way.
    if held_already {
        return None;
    }
    ports::listener(port).map(|holder| format!("{holder} of this device"))
}

/// What DNS answers for each Service, with or without ready pods.
pub fn zone_entries(
    services: &[ServiceRun],
    addresses: &BTreeMap<PodId, PodAddress>,
    leases: &Leases,
) -> BTreeMap<ServiceId, ZoneService> {
    services
        .iter()
        .map(|service| {
            let id = ServiceId::of(service);
            let pods: Vec<&PodAddress> = service
                .endpoints
                .iter()
                .filter_map(|p| addresses.get(p))
                .collect();
            let ports = service.ports.iter().filter_map(|port| {
                let targets = pods.iter().filter_map(|pod| Some((pod.ip, target(port, pod)?)));
                Some(NamedPort {
                    name: port.name.clone()?,
                    protocol: port.protocol,
                    port: port.port,
                    targets: targets.collect(),
                })
            });
            let entry = ZoneService {
                address: leases.service(&id).filter(|_| !service.headless),
                pods: pods.iter().map(|pod| (pod.hostname.clone(), pod.ip)).collect(),
                ports: ports.collect(),
            };
            (id, entry)
        })
        .collect()
}
