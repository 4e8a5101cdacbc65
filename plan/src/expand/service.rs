//! Service -> ports and selector.

use super::{container::protocol, namespace_of, typed};
use crate::WantedService;
use crate::api::{self, IntOrString};
use crate::refusal::Complaints;
use model::{Object, ServicePort, TargetPort};

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
    if spec
        .session_affinity
        .as_deref()
        .is_some_and(|affinity| affinity != "None")
    {
        complaints.add(
            "spec.sessionAffinity",
            "is not honoured by the embedded engine",
            "remove it",
        );
    }
    let headless = spec.cluster_ip.as_deref() == Some("None");
    let ports = spec
        .ports
        .into_iter()
        .filter_map(|port| service_port(port, complaints))
        .collect();
    Some(WantedService {
        namespace: namespace_of(object),
        name: object.name().to_owned(),
        headless,
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        selector: spec.selector.unwrap_or_default(),
        ports,
    })
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
