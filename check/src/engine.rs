//! What Leeward's own engine says to the objects of a cluster that devices render.

use crate::{DeviceClass, Rule, path::Path, problems, schema::Fault};
use jiff::Timestamp;
use model::{Desired, Object, ObjectKey, Revision};
use std::collections::BTreeMap;

/// The variables that a device of the class knows in substitutions.
pub(crate) fn variables(class: &DeviceClass) -> BTreeMap<String, String> {
    let architecture = class.architecture.as_deref().unwrap_or("amd64");
    [
        ("DEVICE", "checked"),
        ("CLASS", class.name.as_str()),
        ("SITE", "checked"),
        ("ARCH", architecture),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// What a device of the class refuses: for each object the fault.
pub(crate) fn refusals(objects: Vec<Object>, class: &DeviceClass) -> Vec<(ObjectKey, Fault)> {
    let desired = Desired {
        revision: Revision {
            reference: String::new(),
            commit: String::new(),
            summary: String::new(),
            author: String::new(),
            committed_at: Timestamp::UNIX_EPOCH,
        },
        path: class.folder.clone(),
        objects,
        kustomizations: Vec::new(),
        origins: Vec::new(),
        warnings: Vec::new(),
    };
    let Err(refusals) = plan::expand(&desired, &class.limits) else {
        return Vec::new();
    };
    let fault = |refusal: plan::Refusal| {
        let fits = refusal.field.starts_with("resources.requests");
        let rule = if fits { Rule::Resources } else { Rule::Engine };
        let (problem, remedy) = match problems::unknown_field(&refusal.problem) {
            Some((problem, meant)) => (problem, meant.unwrap_or(refusal.remedy)),
            None => (refusal.problem, refusal.remedy),
        };
        let message = if fits {
            format!("{} does not hold it: {problem}", class.name)
        } else {
            format!("Leeward does not run it: {problem}")
        };
        let fault = Fault::new(rule, Path::parse(&refusal.field), message);
        (
            refusal.object,
            if remedy.is_empty() {
                fault
            } else {
                fault.remedy(remedy)
            },
        )
    };
    refusals.into_iter().map(fault).collect()
}
