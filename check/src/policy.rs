//! ValidatingAdmissionPolicies of a cluster, applied to its own objects as if each were created.

use crate::{
    Rule, Severity,
    crds::Crds,
    expressions::{Answer, Expressions, message, one_line},
    path::Path,
    pods::matches,
    schema::Fault,
};
use model::Object;
use serde_json::{Map, Value, json};

const GROUP: &str = "admissionregistration.k8s.io";

/// The policies and bindings of a cluster.
pub(crate) struct Policies<'a> {
    bound: Vec<Bound<'a>>,
    objects: &'a [&'a Object],
    crds: &'a Crds,
}

/// A policy with one of its bindings.
struct Bound<'a> {
    policy: &'a Object,
    binding: &'a Object,
    severity: Severity,
    params: Option<&'a Object>,
}

fn list<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    value[key].as_array().into_iter().flatten()
}

impl<'a> Policies<'a> {
    pub fn of(objects: &'a [&'a Object], crds: &'a Crds) -> Self {
        let is =
            |kind: &'static str| move |object: &&&'a Object| object.group() == GROUP && object.kind() == kind;
        let mut bound = Vec::new();
        for binding in objects.iter().filter(is("ValidatingAdmissionPolicyBinding")) {
            let spec = &binding.value()["spec"];
            let policy = objects
                .iter()
                .filter(is("ValidatingAdmissionPolicy"))
                .find(|policy| spec["policyName"] == policy.name());
            let has = |action: &str| list(spec, "validationActions").any(|given| given == action);
            let severity = match (has("Deny"), has("Warn")) {
                (true, _) => Severity::Error,
                (false, true) => Severity::Warning,
                _ => Severity::Note,
            };
            bound.extend(policy.map(|policy| Bound {
                policy,
                binding,
                severity,
                params: params(objects, policy, spec),
            }));
        }
        Self { bound, objects, crds }
    }

    /// Expressions of a policy that are no CEL.
    pub fn syntax(expressions: &mut Expressions, policy: &Object) -> Vec<Fault> {
        if policy.group() != GROUP || policy.kind() != "ValidatingAdmissionPolicy" {
            return Vec::new();
        }
        let mut faults = Vec::new();
        for field in ["validations", "matchConditions", "variables", "auditAnnotations"] {
            let path = Path::fields("spec").key(field);
            let entries = path.of(policy.value()).and_then(Value::as_array);
            for (at, entry) in entries.into_iter().flatten().enumerate() {
                for key in ["expression", "messageExpression", "valueExpression"] {
                    if let Some(text) = entry[key].as_str() {
                        faults.extend(expressions.syntax(Rule::Policy, path.index(at).key(key), text));
                    }
                }
            }
        }
        faults
    }

    /// What the policies have against an object.
    pub fn faults(&self, expressions: &mut Expressions, object: &Object) -> Vec<Fault> {
        // Nobody's policy may stop the policies.
        if object.group() == GROUP {
            return Vec::new();
        }
        let mut faults = Vec::new();
        for bound in &self.bound {
            let spec = &bound.policy.value()["spec"];
            let of_binding = &bound.binding.value()["spec"]["matchResources"];
            if self.selects(&spec["matchConstraints"], object)
                && (of_binding.is_null() || self.selects(of_binding, object))
            {
                self.judge(bound, expressions, object, &mut faults);
            }
        }
        faults
    }

    fn judge(
        &self,
        bound: &Bound<'_>,
        expressions: &mut Expressions,
        object: &Object,
        faults: &mut Vec<Fault>,
    ) {
        let spec = &bound.policy.value()["spec"];
        let nothing = Value::Null;
        let namespace = self.namespace(object);
        let request = self.request(object);
        let mut variables = Value::Object(Map::new());
        let given = |variables: &Value| -> [(&'static str, Value); 6] {
            [
                ("object", object.value().clone()),
                ("oldObject", nothing.clone()),
                ("request", request.clone()),
                ("namespaceObject", namespace.clone()),
                (
                    "params",
                    bound.params.map_or(Value::Null, |params| params.value().clone()),
                ),
                ("variables", variables.clone()),
            ]
        };
        let name = bound.policy.name();
        let fault = |what: String| {
            Fault::new(Rule::Policy, Path::default(), format!("policy {name}: {what}"))
                .severity(bound.severity)
        };
        let unknown = |text: &str, why: &str| {
            let what = format!("policy {name}: {} is not checked: {why}", one_line(text));
            Fault::new(Rule::Policy, Path::default(), what).severity(Severity::Note)
        };
        // What fails to be evaluated lets nothing through, unless the policy says otherwise.
        let fails = spec["failurePolicy"] != "Ignore";
        for condition in list(spec, "matchConditions") {
            let Some(text) = condition["expression"].as_str() else {
                continue;
            };
            let given = given(&variables);
            match expressions.ask(text, given.iter().map(|(name, value)| (*name, value))) {
                Answer::Yes => {}
                Answer::No => return,
                Answer::Failed(why) if fails => {
                    faults.push(fault(format!("{} cannot be evaluated: {why}", one_line(text))));
                    return;
                }
                Answer::Failed(_) => return,
                Answer::Unknown(why) => {
                    faults.extend((!why.is_empty()).then(|| unknown(text, &why)));
                    return;
                }
            }
        }
        for variable in list(spec, "variables") {
            let (Some(name), Some(text)) = (variable["name"].as_str(), variable["expression"].as_str())
            else {
                continue;
            };
            let given = given(&variables);
            let given = given.iter().map(|(name, value)| (*name, value));
            // One that fails is missed by the expressions that use it.
            let value = expressions
                .compiled(text)
                .and_then(|expression| expression.to_json(given));
            if let (Ok(value), Value::Object(map)) = (value, &mut variables) {
                map.insert(name.to_owned(), value);
            }
        }
        for validation in list(spec, "validations") {
            let Some(text) = validation["expression"].as_str() else {
                continue;
            };
            let given = given(&variables);
            let given = || given.iter().map(|(name, value)| (*name, value));
            match expressions.ask(text, given()) {
                Answer::Yes => {}
                Answer::No => {
                    let said = message(expressions, validation, given());
                    let told = fault(said.unwrap_or_else(|| "the object is not admitted".to_owned()));
                    faults.push(told.remedy(format!("it asks for: {}", one_line(text))));
                }
                Answer::Failed(why) if fails => {
                    faults.push(fault(format!("{} cannot be evaluated: {why}", one_line(text))))
                }
                Answer::Failed(_) => {}
                Answer::Unknown(why) => faults.extend((!why.is_empty()).then(|| unknown(text, &why))),
            }
        }
    }

    /// Whether a policy or binding is about an object.
    fn selects(&self, constraints: &Value, object: &Object) -> bool {
        let about = |rule: &Value| self.is_about(rule, object);
        let rules: Vec<&Value> = list(constraints, "resourceRules").collect();
        let selected = rules.is_empty() || rules.into_iter().any(about);
        let namespace = self.namespace(object);
        selected
            && !list(constraints, "excludeResourceRules").any(about)
            && labels_match(
                &constraints["objectSelector"],
                &object.value()["metadata"]["labels"],
            )
            && (object.namespace().is_empty() && namespace.is_null()
                || labels_match(
                    &constraints["namespaceSelector"],
                    &namespace["metadata"]["labels"],
                ))
    }

    fn is_about(&self, rule: &Value, object: &Object) -> bool {
        let version = object.api_version().rsplit('/').next().unwrap_or_default();
        let resource = self.resource(object);
        let any = |key: &str, wanted: &str| list(rule, key).any(|given| given == "*" || given == wanted);
        let is_resource = |given: &str| given == "*" || given == "*/*" || given == resource;
        let names: Vec<&Value> = list(rule, "resourceNames").collect();
        any("apiGroups", object.group())
            && any("apiVersions", version)
            && any("operations", "CREATE")
            && list(rule, "resources").filter_map(Value::as_str).any(is_resource)
            && (names.is_empty() || names.iter().any(|name| **name == object.name()))
    }

    /// The kind's name in paths: `networkpolicies` of NetworkPolicy.
    fn resource(&self, object: &Object) -> String {
        if let Some(plural) = self.crds.plural(object.group(), object.kind()) {
            return plural.to_owned();
        }
        let kind = object.kind().to_lowercase();
        match kind.as_str() {
            "endpoints" => kind,
            _ if kind.ends_with(['s', 'x']) || kind.ends_with("ch") => format!("{kind}es"),
            _ => match kind.strip_suffix('y') {
                Some(stem) if !stem.ends_with(['a', 'e', 'o']) => format!("{stem}ies"),
                _ => format!("{kind}s"),
            },
        }
    }

    /// The object's namespace, made up where the cluster does not define it.
    fn namespace(&self, object: &Object) -> Value {
        let name = if object.namespace().is_empty() {
            "default"
        } else {
            object.namespace()
        };
        let defined = self
            .objects
            .iter()
            .find(|it| it.kind() == "Namespace" && it.name() == name);
        let mut namespace = defined.map_or_else(
            || json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
            |defined| defined.value().clone(),
        );
        if !namespace["metadata"]["labels"].is_object() {
            namespace["metadata"]["labels"] = json!({});
        }
        namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
        namespace
    }

    fn request(&self, object: &Object) -> Value {
        let (group, version) = object
            .api_version()
            .split_once('/')
            .unwrap_or(("", object.api_version()));
        let kind = json!({"group": group, "version": version, "kind": object.kind()});
        let resource = json!({"group": group, "version": version, "resource": self.resource(object)});
        json!({
            "operation": "CREATE",
            "kind": kind,
            "requestKind": kind,
            "resource": resource,
            "requestResource": resource,
            "name": object.name(),
            "namespace": object.namespace(),
            "dryRun": false,
        })
    }
}

/// The object that a binding hands to its policy.
fn params<'a>(objects: &'a [&'a Object], policy: &Object, binding: &Value) -> Option<&'a Object> {
    let kind = &policy.value()["spec"]["paramKind"];
    let reference = &binding["paramRef"];
    let is_it = |object: &&&Object| {
        kind["apiVersion"] == object.api_version()
            && kind["kind"] == object.kind()
            && reference["name"] == object.name()
            && reference["namespace"]
                .as_str()
                .is_none_or(|namespace| namespace == object.namespace())
    };
    objects.iter().find(is_it).copied()
}

/// Whether labels are what a selector asks for; an absent one asks for nothing.
fn labels_match(selector: &Value, labels: &Value) -> bool {
    let labels = labels.as_object();
    let exact = selector["matchLabels"]
        .as_object()
        .is_none_or(|wanted| matches(wanted, labels));
    exact
        && list(selector, "matchExpressions").all(|expression| {
            let key = expression["key"].as_str().unwrap_or_default();
            let value = labels.and_then(|labels| labels.get(key));
            let among = value.is_some_and(|value| list(expression, "values").any(|given| given == value));
            match expression["operator"].as_str().unwrap_or_default() {
                "In" => among,
                "NotIn" => !among,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}
