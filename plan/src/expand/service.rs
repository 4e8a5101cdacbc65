//! Service -> ports and selector.

use super::{container::protocol, namespace_of, typed};
use crate::WantedService;
use crate::api::{self, IntOrString};
use crate::refusal::Complaints;
use model::{Digest, Object, ServicePort, TargetPort};

/// First and number of the ports that Kubernetes gives to Services by itself.
const NODE_PORTS: (u16, u16) = (30000, 2768);

pub(super) fn read(object: &Object, complaints: &mut Complaints<'_>) -> Option<WantedService> {
    let spec = typed::<api::Service>(object, complaints)?.spec;
    match spec.kind.as_deref() {
        None | Some("ClusterIP" | "NodePort" | "LoadBalancer") => {}
        Some(other) => {
            let target = spec
                .external_name
                .as_deref()
                .map(|name| format!(" ({name})"))
                .unwrap_or_default();
            complaints.add(
                "spec.type",
                format!("{other}{target} is not served by the embedded engine"),
                "use ClusterIP, NodePort or LoadBalancer",
            );
            return None;
        }
    }
    let client_affinity = match spec.session_affinity.as_deref() {
        None | Some("None") => false,
        Some("ClientIP") => true,
        Some(other) => {
            complaints.add(
                "spec.sessionAffinity",
                format!("{other:?} is not known"),
                "use ClientIP or None",
            );
            false
        }
    };
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let ports = spec
        .ports
        .into_iter()
        .filter_map(|port| service_port(port, complaints))
        .collect::<Vec<_>>();
    let kind = spec.kind.as_deref();
    if matches!(kind, None | Some("ClusterIP"))
        && let Some(port) = ports.iter().find(|port| port.node_port.is_some())
    {
        complaints.add(
            format!("spec.ports[{}].nodePort", port.port),
            "is given, though the type is ClusterIP",
            "set spec.type to NodePort, or remove it",
        );
    }
    let ports = ports
        .into_iter()
        .map(|port| on_device(port, kind, object))
        .collect();
    Some(WantedService {
        namespace: namespace_of(object),
        name: object.name().to_owned(),
        headless,
        client_affinity,
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        selector: spec.selector.unwrap_or_default(),
        ports,
    })
}

/// Fills in the port on the device where its type asks for one and none is named: a load balancer's is the
/// Service's own, as there is no other machine in front; a node port follows from the names, so that it stays.
fn on_device(port: ServicePort, kind: Option<&str>, object: &Object) -> ServicePort {
    let node_port = match kind {
        Some("LoadBalancer") => port.node_port.or(Some(port.port)),
        Some("NodePort") => port.node_port.or_else(|| {
            let name = format!("{}/{}/{}", namespace_of(object), object.name(), port.port);
            let number = u64::from_str_radix(&Digest::of(name.as_bytes()).short(), 16).ok()?;
            let (first, count) = NODE_PORTS;
            u16::try_from(number % u64::from(count))
                .ok()
                .map(|index| first + index)
        }),
        _ => port.node_port,
    };
    ServicePort { node_port, ..port }
}

fn service_port(given: api::ServicePortSpec, complaints: &mut Complaints<'_>) -> Option<ServicePort> {
    let at = format!("spec.ports[{}]", given.port);
    let target = match given.target_port {
        None => TargetPort::Number(given.port),
        Some(IntOrString::Int(number)) => match u16::try_from(number) {
            Ok(number) if number != 0 => TargetPort::Number(number),
            _ => {
                complaints.add(
                    format!("{at}.targetPort"),
                    format!("{number} is no port"),
                    "use 1 to 65535",
                );
                return None;
            }
        },
        Some(IntOrString::Text(name)) => TargetPort::Name(name),
    };
    Some(ServicePort {
        protocol: protocol(&at, given.protocol.as_deref(), complaints),
        name: given.name,
        port: given.port,
        target,
        node_port: given.node_port.filter(|p| *p != 0),
    })
}
