//! Why a folder does not render, told where it can be mended.

use crate::{
    Finding, Place, Rule, add, flux, named,
    path::{Path, meant},
    schema::Fault,
    scope::{Checker, Scope},
};
use model::Object;
use render::{Details, Inspection, Problem, RenderError, Traced};
use std::collections::BTreeSet;

impl Checker<'_> {
    /// Tells a problem, unless it is one of the faults of an object that are `judged` already.
    pub(crate) fn problem(
        &mut self,
        scope: &Scope<'_>,
        inspection: &Inspection,
        problem: &RenderError,
        judged: &BTreeSet<(String, Path)>,
    ) {
        let details = problem.details();
        let rule = match details.field.as_deref() {
            Some("spec.dependsOn") => Rule::FluxDependency,
            _ => Rule::Render,
        };
        let (message, remedy) = plainer(details);
        if let (Some(traced), None) = (flux_object(inspection, details), &details.file) {
            let path = Path::parse(details.field.as_deref().unwrap_or_default());
            let name = named(&traced.object);
            let told = |known: &Path| known.touches(&path) || path.0.len() <= 1;
            if judged
                .iter()
                .any(|(object, known)| *object == name && told(known))
            {
                return;
            }
            let fault = Fault::new(rule, path, message);
            let fault = match remedy {
                Some(remedy) => fault.remedy(remedy),
                None => fault,
            };
            return self.tell(scope, traced, fault);
        }
        let depends = Path::fields("spec.dependsOn");
        if rule == Rule::FluxDependency && judged.iter().any(|(_, known)| known.touches(&depends)) {
            return;
        }
        let place = self.place(scope, inspection, details);
        let message = match (&details.object, &details.field) {
            (Some(object), _) if details.file.is_some() && !object.starts_with("Kustomization/") => {
                format!("{object}: {message}")
            }
            (None, Some(field)) if !["resources", "components", "bases"].contains(&field.as_str()) => {
                format!("{field}: {message}")
            }
            _ => message,
        };
        let finding = Finding {
            rule,
            severity: rule.severity(),
            message,
            remedy,
            object: details.object.clone(),
            field: details.field.clone(),
            clusters: vec![scope.folder.clone()],
            related: Vec::new(),
            excerpt: None,
            place,
        };
        let around = [(finding.place.file.clone(), finding.place.line)];
        if !self.files.silences(rule, &around) {
            add(&mut self.findings, finding);
        }
    }

    fn place(&self, scope: &Scope<'_>, inspection: &Inspection, details: &Details) -> Place {
        let quoted = quoted(&details.message);
        if details.problem == Problem::Undefined {
            let variable = format!("${{{}", quoted_variable(&details.message).unwrap_or_default());
            let found = self.files.find_below(&inspection.folders, &variable);
            return found.unwrap_or_else(|| self.files.kustomization(&scope.folder));
        }
        match (&details.file, details.line) {
            (Some(file), Some(line)) => Place::line(file.as_str(), line),
            // The renderer knows the file; what it quotes stands there, most likely.
            (Some(file), None) => {
                let found = quoted.and_then(|quoted| self.files.find(file, quoted));
                found.unwrap_or_else(|| Place::file(file.as_str()))
            }
            (None, _) => self.files.kustomization(&scope.folder),
        }
    }
}

/// The `Kustomization` that a problem is about.
fn flux_object<'a>(inspection: &'a Inspection, details: &Details) -> Option<&'a Traced> {
    let name = details.object.as_deref()?.strip_prefix("Kustomization/")?;
    let is_it = |object: &Object| {
        let namespace = if object.namespace().is_empty() {
            "default"
        } else {
            object.namespace()
        };
        flux::is_kustomization(object) && format!("{namespace}/{}", object.name()) == name
    };
    inspection.objects.iter().find(|traced| is_it(&traced.object))
}

/// What a message puts in quotes first.
fn quoted(message: &str) -> Option<&str> {
    let at = message.find(['"', '`'])?;
    let mark = message[at..].chars().next()?;
    let rest = &message[at + 1..];
    rest.find(mark)
        .map(|end| &rest[..end])
        .filter(|text| !text.is_empty())
}

fn quoted_variable(message: &str) -> Option<&str> {
    let rest = &message[message.find("${")? + 2..];
    let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
    Some(&rest[..end])
}

/// A list of all fields that there are helps nobody who made a slip.
pub(crate) fn plainer(details: &Details) -> (String, Option<String>) {
    match unknown_field(&details.message) {
        Some((message, remedy)) => (message, remedy.or_else(|| details.remedy.clone())),
        None => (details.message.clone(), details.remedy.clone()),
    }
}

/// The parts of serde's words for an unknown field: what is wrong, and what was meant.
pub(crate) fn unknown_field(message: &str) -> Option<(String, Option<String>)> {
    let rest = message.strip_prefix("unknown field `")?;
    let (field, rest) = rest.split_once('`')?;
    let known = rest.split('`').skip(1).step_by(2);
    let remedy = meant(field, known).map(|meant| format!("did you mean {meant:?}?"));
    Some((format!("there is no field {field:?} here"), remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_out_of_messages() {
        assert_eq!(quoted("there is no file \"a.yaml\" here"), Some("a.yaml"));
        assert_eq!(quoted("unknown field `x`, expected"), Some("x"));
        assert_eq!(quoted("nothing"), None);
        assert_eq!(quoted_variable("the variable A_1 in ${A_1:-x} has"), Some("A_1"));
        let told = unknown_field("unknown field `resorces`, expected one of `apiVersion`, `resources`");
        let remedy = Some("did you mean \"resources\"?".to_owned());
        assert_eq!(
            told,
            Some(("there is no field \"resorces\" here".to_owned(), remedy))
        );
    }
}
