//! Rules of Prometheus: whether they can be read, and whether a device evaluates them.

use crate::{Rule, Severity, path::Path, schema::Fault};
use model::Object;

/// Whether it is a `PrometheusRule`.
pub(crate) fn is_rules(object: &Object) -> bool {
    (object.group(), object.kind()) == ("monitoring.coreos.com", "PrometheusRule")
}

/// What is wrong with rules. What is right for Prometheus and beyond a device matters only where devices are.
pub(crate) fn faults(object: &Object, on_devices: bool) -> Vec<Fault> {
    if !is_rules(object) {
        return Vec::new();
    }
    let (_, faults) = rules::read(object.value());
    let of = |fault: rules::Fault| {
        let rule = if fault.beyond {
            Rule::Engine
        } else {
            Rule::BadValue
        };
        let found = Fault::new(rule, Path::parse(&fault.path), fault.message);
        // The device leaves the rule out, says so, and runs everything else.
        if fault.beyond {
            found.severity(Severity::Warning)
        } else {
            found
        }
    };
    let told = faults.into_iter().filter(|fault| on_devices || !fault.beyond);
    told.map(of).collect()
}
