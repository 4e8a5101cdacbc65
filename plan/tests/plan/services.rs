//! Services and their ports on the device.

use crate::support::{LIMITS, desired, told, wanted};
use plan::expand;

fn service(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {spec}")
}

fn node_ports(spec: &str) -> Vec<Option<u16>> {
    let wanted = wanted(&service(spec));
    wanted.services[0]
        .ports
        .iter()
        .map(|port| port.node_port)
        .collect()
}

#[test]
fn a_port_on_the_device_is_the_named_one_the_services_own_or_one_that_stays() {
    let ports = "ports: [{name: a, port: 80}, {name: b, port: 443, nodePort: 30443}]";
    assert_eq!(node_ports("{ports: [{port: 80}]}"), [None]);
    let refused = told(&expand(&desired(&service(&format!("{{{ports}}}"))), &LIMITS).unwrap_err());
    assert!(refused.contains("spec.ports[443].nodePort"), "{refused}");
    assert_eq!(
        node_ports(&format!("{{type: LoadBalancer, {ports}}}")),
        [Some(80), Some(30443)]
    );
    let chosen = node_ports(&format!("{{type: NodePort, {ports}}}"));
    assert_eq!(chosen[1], Some(30443));
    assert!(
        chosen[0].is_some_and(|port| (30000..=32767).contains(&port)),
        "{chosen:?}"
    );
    assert_eq!(node_ports(&format!("{{type: NodePort, {ports}}}")), chosen);
}

#[test]
fn affinity_is_by_the_clients_address_or_not_at_all() {
    let affinity = |spec: &str| wanted(&service(spec)).services[0].client_affinity;
    assert!(!affinity("{ports: [{port: 80}]}"));
    assert!(!affinity("{ports: [{port: 80}], sessionAffinity: None}"));
    assert!(affinity(
        "{ports: [{port: 80}], sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}}"
    ));
    let yaml = service("{ports: [{port: 80}], sessionAffinity: Cookie}");
    let refused = told(&expand(&desired(&yaml), &LIMITS).unwrap_err());
    assert!(
        refused.contains("spec.sessionAffinity") && refused.contains("ClientIP"),
        "{refused}"
    );
}
