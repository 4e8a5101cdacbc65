//! What the `Kustomization` objects of a generation amount to: Flux's health checks over what a device sees.

use super::types::{CrossNamespaceReference, KustomizationSpec};
use crate::{
    cel::Expression,
    error::{RenderError, Result},
};
use model::{Desired, Kustomization, Object, ObjectKey, WorkloadState, WorkloadStatus};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// How a `Kustomization` stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// See [`Standing`].
    pub standing: Standing,
    /// One of Flux's reasons for its `Ready` condition.
    pub reason: String,
    /// One sentence.
    pub message: String,
    /// Whether there was anything to check beside that it was applied.
    pub checked: bool,
}

/// Where a `Kustomization` is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Applied, and all that is checked is healthy.
    Ready,
    /// Applied; something that is checked is not healthy yet.
    Progressing,
    /// Something that is checked has failed.
    Failed,
    /// What it depends on is not ready: nothing of it is to be changed.
    Waiting,
    /// It was left out.
    LeftOut,
}

#[derive(Debug)]
struct Checks {
    in_progress: Option<Expression>,
    failed: Option<Expression>,
    current: Expression,
}

#[derive(Debug)]
struct Dependency {
    namespace: String,
    name: String,
    ready: Option<Expression>,
}

/// The rules of one `Kustomization`, compiled.
#[derive(Debug)]
pub(super) struct Rules {
    wait: bool,
    named: Vec<ObjectKey>,
    dependencies: Vec<Dependency>,
    /// By group and kind.
    checks: BTreeMap<(String, String), Checks>,
}

fn compile(text: &str, field: String) -> Result<Expression> {
    Expression::compile(text).map_err(|error| {
        RenderError::configuration(format!("the CEL expression is not valid: {error}")).field(field)
    })
}

fn group_of(api_version: &str) -> String {
    api_version
        .split_once('/')
        .map_or("", |(group, _)| group)
        .to_owned()
}

impl Rules {
    /// Flux calls what fails here `InvalidCELExpression`.
    pub(super) fn compile(namespace: &str, spec: &KustomizationSpec) -> Result<Self> {
        let mut checks = BTreeMap::new();
        for (at, given) in spec.health_check_exprs.iter().enumerate() {
            let field = |name: &str| format!("spec.healthCheckExprs[{at}].{name}");
            for (name, value) in [
                ("apiVersion", &given.api_version),
                ("kind", &given.kind),
                ("current", &given.current),
            ] {
                if value.is_empty() {
                    return Err(RenderError::configuration(format!("{name} is missing")).field(field(name)));
                }
            }
            let optional = |text: &Option<String>, name: &str| match text.as_deref() {
                None | Some("") => Ok(None),
                Some(text) => compile(text, field(name)).map(Some),
            };
            let compiled = Checks {
                in_progress: optional(&given.in_progress, "inProgress")?,
                failed: optional(&given.failed, "failed")?,
                current: compile(&given.current, field("current"))?,
            };
            checks.insert((group_of(&given.api_version), given.kind.clone()), compiled);
        }
        let mut dependencies = Vec::new();
        for (at, given) in spec.depends_on.iter().enumerate() {
            let field = format!("spec.dependsOn[{at}].readyExpr");
            dependencies.push(Dependency {
                namespace: given.namespace.clone().unwrap_or_else(|| namespace.to_owned()),
                name: given.name.clone(),
                ready: given
                    .ready_expr
                    .as_deref()
                    .map(|text| compile(text, field))
                    .transpose()?,
            });
        }
        let key = |given: &CrossNamespaceReference| ObjectKey {
            group: group_of(given.api_version.as_deref().unwrap_or_default()),
            kind: given.kind.clone(),
            namespace: given.namespace.clone().unwrap_or_else(|| namespace.to_owned()),
            name: given.name.clone(),
        };
        Ok(Self {
            wait: spec.wait,
            named: spec.health_checks.iter().map(key).collect(),
            dependencies,
            checks,
        })
    }
}

/// Judges the `Kustomization` objects of one generation again and again.
#[derive(Debug)]
pub struct Judge {
    revision: String,
    kustomizations: Vec<(Kustomization, Rules)>,
    /// All that there are; the bodies of those that an expression looks at.
    objects: BTreeMap<ObjectKey, Option<Object>>,
    owners: BTreeMap<ObjectKey, usize>,
}

/// An object without namespace lies in `default` on a device.
fn placed(mut key: ObjectKey) -> ObjectKey {
    if key.namespace.is_empty() {
        key.namespace = "default".to_owned();
    }
    key
}

impl Judge {
    /// Of a generation that was rendered by this version or an older one; rules that do not compile any more are
    /// left out, for what runs is not to stop over them.
    pub fn new(desired: &Desired) -> Self {
        let mut kustomizations: Vec<(Kustomization, Rules)> = Vec::new();
        let mut owners = BTreeMap::new();
        for kustomization in &desired.kustomizations {
            let spec = kustomization.object.get("spec").cloned().unwrap_or_default();
            let spec: KustomizationSpec = serde_json::from_value(spec).unwrap_or_default();
            let rules = Rules::compile(&kustomization.namespace, &spec)
                .or_else(|_| Rules::compile(&kustomization.namespace, &KustomizationSpec::default()));
            let Ok(rules) = rules else { continue };
            for key in &kustomization.objects {
                owners.insert(placed(key.clone()), kustomizations.len());
            }
            kustomizations.push((kustomization.clone(), rules));
        }
        let looked_at = |object: &Object| {
            let kind = (object.group().to_owned(), object.kind().to_owned());
            kustomizations
                .iter()
                .any(|(_, rules)| rules.checks.contains_key(&kind))
        };
        let objects = desired
            .objects
            .iter()
            .map(|object| (placed(object.key()), looked_at(object).then(|| object.clone())))
            .collect();
        Self {
            revision: desired.revision.to_string(),
            kustomizations,
            objects,
            owners,
        }
    }

    /// How many objects each has, by its place.
    pub fn kustomizations(&self) -> impl Iterator<Item = &Kustomization> {
        self.kustomizations.iter().map(|(kustomization, _)| kustomization)
    }

    /// How each stands, in the order of their dependencies.
    pub fn judge(&self, workloads: &[WorkloadStatus]) -> Vec<Health> {
        let states: BTreeMap<ObjectKey, &WorkloadStatus> = workloads
            .iter()
            .map(|workload| (placed(workload.key.clone()), workload))
            .collect();
        let mut judged: Vec<Health> = Vec::new();
        for (kustomization, rules) in &self.kustomizations {
            let health = self.one(kustomization, rules, &states, &judged);
            judged.push(health);
        }
        judged
    }

    /// The workloads that are not to be changed now: those of `Kustomization` objects that wait for others.
    pub fn held_back(&self, judged: &[Health]) -> BTreeSet<ObjectKey> {
        self.owners
            .iter()
            .filter(|(_, at)| {
                judged
                    .get(**at)
                    .is_some_and(|health| health.standing == Standing::Waiting)
            })
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn one(
        &self,
        kustomization: &Kustomization,
        rules: &Rules,
        states: &BTreeMap<ObjectKey, &WorkloadStatus>,
        before: &[Health],
    ) -> Health {
        let revision = kustomization.revision.as_ref().unwrap_or(&self.revision);
        let health = |standing, reason: &str, message: String, checked| Health {
            namespace: kustomization.namespace.clone(),
            name: kustomization.name.clone(),
            standing,
            reason: reason.to_owned(),
            message,
            checked,
        };
        if let Some((reason, message)) = &kustomization.left_out {
            return health(Standing::LeftOut, reason, message.clone(), false);
        }
        for dependency in &rules.dependencies {
            if let Err(why) = self.dependency(kustomization, dependency, before) {
                return health(Standing::Waiting, "DependencyNotReady", why, false);
            }
        }
        let checked: Vec<ObjectKey> = if rules.wait {
            kustomization.objects.iter().cloned().map(placed).collect()
        } else {
            rules.named.clone()
        };
        let mut moving = None;
        for key in &checked {
            match self.object(key, rules, states) {
                (WorkloadState::Current, _) => {}
                (WorkloadState::Failed, why) => {
                    let message = format!("health check failed: [{key} status: 'Failed': {why}]");
                    return health(Standing::Failed, "HealthCheckFailed", message, true);
                }
                (state, why) => {
                    moving.get_or_insert(format!("{key} status: '{state:?}': {why}"));
                }
            }
        }
        match moving {
            Some(why) => health(
                Standing::Progressing,
                "Progressing",
                format!("Running health checks for revision {revision}: {why}"),
                true,
            ),
            None => health(
                Standing::Ready,
                "ReconciliationSucceeded",
                format!("Applied revision: {revision}"),
                !checked.is_empty(),
            ),
        }
    }

    /// `readyExpr` takes the place of the look at the `Ready` condition.
    fn dependency(
        &self,
        of: &Kustomization,
        on: &Dependency,
        before: &[Health],
    ) -> std::result::Result<(), String> {
        let told = format!("{}/{}", on.namespace, on.name);
        let at = before
            .iter()
            .position(|health| health.namespace == on.namespace && health.name == on.name)
            .ok_or_else(|| format!("dependency '{told}' not found"))?;
        let Some(expression) = &on.ready else {
            return match before[at].standing {
                // What was left out is somebody else's to bring about.
                Standing::Ready | Standing::LeftOut => Ok(()),
                _ => Err(format!("dependency '{told}' is not ready")),
            };
        };
        let dependency = self.with_conditions(&self.kustomizations[at].0, &before[at]);
        match expression.is_true([("self", &of.object), ("dep", &dependency)]) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!(
                "dependency '{told}' is not ready according to readyExpr eval"
            )),
            Err(error) => Err(format!("dependency '{told}': readyExpr: {error}")),
        }
    }

    /// A `Kustomization` with the status that a cluster would show.
    fn with_conditions(&self, kustomization: &Kustomization, health: &Health) -> Value {
        let mut object = kustomization.object.clone();
        let applied = matches!(
            health.standing,
            Standing::Ready | Standing::Progressing | Standing::Failed
        );
        let revision = kustomization.revision.as_ref().unwrap_or(&self.revision);
        let mut status = json!({
            "conditions": [{
                "type": "Ready", "status": ready_word(health.standing),
                "reason": health.reason, "message": health.message,
            }],
            "lastAttemptedRevision": revision,
            "inventory": {"entries": kustomization.inventory},
        });
        if applied {
            status["lastAppliedRevision"] = revision.clone().into();
        }
        if let Some(map) = object.as_object_mut() {
            map.insert("status".to_owned(), status);
        }
        object
    }

    fn object(
        &self,
        key: &ObjectKey,
        rules: &Rules,
        states: &BTreeMap<ObjectKey, &WorkloadStatus>,
    ) -> (WorkloadState, String) {
        let Some(body) = self.objects.get(key) else {
            return (WorkloadState::InProgress, "the object is not there".to_owned());
        };
        let workload = states.get(key).copied();
        let checks = rules.checks.get(&(key.group.clone(), key.kind.clone()));
        if let (Some(checks), Some(object)) = (checks, body) {
            return checks.judge(&with_status(object, workload));
        }
        match workload {
            Some(workload) => (workload.state, workload.message.clone()),
            None => (WorkloadState::Current, "the object is there".to_owned()),
        }
    }
}

/// The status of a `Ready` condition.
pub fn ready_word(standing: Standing) -> &'static str {
    match standing {
        Standing::Ready => "True",
        Standing::Progressing => "Unknown",
        Standing::Failed | Standing::Waiting | Standing::LeftOut => "False",
    }
}

impl Checks {
    /// In the order of Flux' RFC 9. An expression without answer says nothing yet: the field may come.
    fn judge(&self, object: &Value) -> (WorkloadState, String) {
        let fields = || {
            object
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.as_str(), value))
        };
        for (expression, state) in [
            (self.in_progress.as_ref(), WorkloadState::InProgress),
            (self.failed.as_ref(), WorkloadState::Failed),
            (Some(&self.current), WorkloadState::Current),
        ] {
            let Some(expression) = expression else { continue };
            match expression.is_true(fields()) {
                Ok(true) => return (state, format!("by {}", expression.text())),
                Ok(false) => {}
                Err(error) => return (WorkloadState::InProgress, error.to_string()),
            }
        }
        (
            WorkloadState::InProgress,
            format!("not yet {}", self.current.text()),
        )
    }
}

/// An object with the status that a cluster would show, as far as a device knows it.
fn with_status(object: &Object, workload: Option<&WorkloadStatus>) -> Value {
    let mut value = object.value().clone();
    let (Some(workload), Some(map)) = (workload, value.as_object_mut()) else {
        return value;
    };
    let word = |is: bool| if is { "True" } else { "False" };
    let current = workload.state == WorkloadState::Current;
    let failed = workload.state == WorkloadState::Failed;
    let condition =
        |kind: &str, is: bool| json!({"type": kind, "status": word(is), "message": workload.message});
    let status = match workload.key.kind.as_str() {
        "Job" => json!({
            "succeeded": workload.ready,
            "conditions": [
                condition("Complete", current && workload.ready >= workload.desired),
                condition("Failed", failed),
            ],
        }),
        "DaemonSet" => json!({
            "desiredNumberScheduled": workload.desired, "currentNumberScheduled": workload.desired,
            "numberReady": workload.ready, "numberAvailable": workload.ready,
            "conditions": [condition("Ready", current)],
        }),
        _ => json!({
            "replicas": workload.desired, "readyReplicas": workload.ready, "availableReplicas": workload.ready,
            "conditions": [condition("Available", current), condition("Ready", current)],
        }),
    };
    map.insert("status".to_owned(), status);
    value
}
