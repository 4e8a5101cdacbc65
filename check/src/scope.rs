//! One cluster, or one folder that belongs to none: its objects against everything that is known.

use crate::{
    DeviceClass, Finding, ImageNeed, Images, KubernetesVersion, Place, Rule, Severity, add,
    crds::Crds,
    engine,
    expressions::in_object,
    files::{Files, Located},
    flux, images,
    kubernetes::Api,
    named,
    path::{Path, meant},
    pods,
    policy::Policies,
    prometheus,
    references::Defined,
    removed,
    schema::{Fault, Validator},
    sealed,
};
use model::Object;
use render::{Inspection, Traced};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What was rendered, and for whom.
#[derive(Debug)]
pub(crate) struct Scope<'a> {
    pub folder: String,
    pub is_cluster: bool,
    /// The class of the devices that render it.
    pub class: Option<&'a DeviceClass>,
}

/// Gathers the findings of all scopes.
pub(crate) struct Checker<'a> {
    version: KubernetesVersion,
    pub(crate) files: &'a Files<'a>,
    crds: &'a Crds,
    sources: &'a flux::Sources,
    validator: Validator,
    pub(crate) findings: Vec<Finding>,
    images: Images,
    /// Faults of an object against its schema, by its text: the same object is in many clusters.
    known: HashMap<String, Vec<Fault>>,
    /// Objects of kinds without schema: how many, and the first one's place.
    unknown: BTreeMap<String, (usize, Finding)>,
    /// Whether everything so far could be rendered.
    is_whole: bool,
    seen_files: BTreeSet<String>,
}

impl<'a> Checker<'a> {
    pub fn new(
        version: KubernetesVersion,
        files: &'a Files<'a>,
        crds: &'a Crds,
        sources: &'a flux::Sources,
    ) -> Self {
        Self {
            version,
            files,
            crds,
            sources,
            validator: Validator::new(Api::of(version)),
            findings: Vec::new(),
            images: Images::default(),
            known: HashMap::new(),
            unknown: BTreeMap::new(),
            is_whole: true,
            seen_files: BTreeSet::new(),
        }
    }

    /// The findings and the images to ask for.
    pub fn done(mut self) -> (Vec<Finding>, Images) {
        for (kind, (count, mut finding)) in std::mem::take(&mut self.unknown) {
            let objects = if count == 1 {
                "1 object".to_owned()
            } else {
                format!("{count} objects")
            };
            finding.message = format!("there is no schema for {kind}: {objects} not checked");
            self.findings.push(finding);
        }
        self.misspelt();
        for finding in &mut self.findings {
            finding.excerpt = self.files.line(&finding.place.file, finding.place.line);
        }
        (self.findings, self.images)
    }

    /// Checks what a scope rendered to. Clusters come before other folders.
    pub fn check(&mut self, scope: &Scope<'_>, inspection: &Inspection) {
        let objects: Vec<&Object> = inspection.objects.iter().map(|traced| &traced.object).collect();
        let mut faults: Vec<Vec<Fault>> = inspection
            .objects
            .iter()
            .map(|traced| self.of_schema(scope, traced))
            .collect();
        let defined = Defined::new(objects.iter().copied());
        // What is not rendered cannot be missed.
        self.is_whole &= inspection.problems.is_empty();
        let judged = if scope.is_cluster {
            inspection.problems.is_empty()
        } else {
            self.is_whole
        };
        for (at, object) in objects.iter().enumerate() {
            // Where much else may be applied beside the folder, a missing object is no error.
            let found = defined.faults(object).into_iter().map(|fault| {
                let mild = !scope.is_cluster && fault.rule == Rule::MissingReference;
                fault.mild(mild)
            });
            faults[at].extend(found.filter(|fault| judged || !fault.rule.is_about_others()));
            if flux::is_flux(object) {
                faults[at].extend(self.sources.faults(object));
            }
        }
        let policies = Policies::of(&objects, self.crds);
        for (at, object) in objects.iter().enumerate() {
            let expressions = &mut self.validator.expressions;
            faults[at].extend(in_object(expressions, object));
            faults[at].extend(Policies::syntax(expressions, object));
            faults[at].extend(policies.faults(expressions, object));
            faults[at].extend(prometheus::faults(object, scope.class.is_some()));
        }
        for (at, fault) in flux::dependency_faults(&objects) {
            faults[at].push(fault);
        }
        if let Some(class) = scope.class {
            self.on_devices(scope, class, inspection, &mut faults);
        }
        let mut judged: BTreeSet<(String, Path)> = BTreeSet::new();
        for (traced, faults) in inspection.objects.iter().zip(faults) {
            self.seen_files
                .extend(traced.trace.file.iter().chain(&traced.trace.patches).cloned());
            for fault in faults {
                judged.insert((named(&traced.object), fault.path.clone()));
                self.tell(scope, traced, fault);
            }
        }
        for problem in &inspection.problems {
            self.problem(scope, inspection, problem, &judged);
        }
    }

    /// Schema and API version.
    fn of_schema(&mut self, scope: &Scope<'_>, traced: &Traced) -> Vec<Fault> {
        if sealed::is_whole(&traced.object) {
            return Vec::new();
        }
        let object = &sealed::opened(&traced.object);
        let text = object.value().to_string();
        if let Some(faults) = self.known.get(&text) {
            return faults.clone();
        }
        let mut faults: Vec<Fault> = removed::fault(object, self.version).into_iter().collect();
        let api = Api::of(self.version);
        if let Some(definition) = api.kind(object.api_version(), object.kind()) {
            faults.extend(self.validator.built_in(definition.name, object.value()));
        } else if let Some(schema) = flux::schema(object.api_version(), object.kind()) {
            faults.extend(self.validator.custom(schema, object.value()));
        } else if faults.is_empty() {
            faults.extend(self.of_crd(scope, traced));
        }
        self.known.insert(text, faults.clone());
        faults
    }

    fn of_crd(&mut self, scope: &Scope<'_>, traced: &Traced) -> Vec<Fault> {
        let object = &traced.object;
        let (group, kind) = (object.group(), object.kind());
        let place = || Path::fields("apiVersion");
        let Some(versions) = self.crds.versions(group, kind) else {
            return self.without_schema(scope, traced).into_iter().collect();
        };
        let wanted = object.api_version().rsplit('/').next().unwrap_or_default();
        let served = || {
            versions
                .iter()
                .filter(|version| version.served)
                .map(|version| version.name.as_str())
        };
        let Some(version) = versions
            .iter()
            .find(|version| version.name == wanted && version.served)
        else {
            let message = format!("the CRD of {kind} serves no version {wanted}");
            let known: Vec<&str> = served().collect();
            return vec![
                Fault::new(Rule::RemovedApi, place(), message)
                    .remedy(format!("use {group}/{}", known.join(" or "))),
            ];
        };
        let mut faults = Vec::new();
        if version.deprecated {
            let message = format!("the CRD of {kind} calls version {wanted} deprecated");
            let others: Vec<&str> = served().filter(|name| *name != wanted).collect();
            let fault = Fault::new(Rule::DeprecatedApi, place(), message);
            faults.push(if others.is_empty() {
                fault
            } else {
                fault.remedy(format!("use {group}/{}", others.join(" or ")))
            });
        }
        if version.schema.is_object() {
            faults.extend(self.validator.custom(&version.schema, object.value()));
        }
        faults
    }

    /// A slip in one of Kubernetes' own kinds is an error; a kind of somebody else's is noted once.
    fn without_schema(&mut self, scope: &Scope<'_>, traced: &Traced) -> Option<Fault> {
        let object = &traced.object;
        let (api_version, kind) = (object.api_version(), object.kind());
        if prometheus::is_rules(object) {
            // Read as a whole by the reader that devices have.
            return None;
        }
        let api = Api::of(self.version);
        let versions = api.versions_of(kind);
        if Api::knows_group(object.group()) {
            let path = Path::fields(if versions.is_empty() { "kind" } else { "apiVersion" });
            let fault = Fault::new(
                Rule::RemovedApi,
                path,
                format!("Kubernetes {} has no {kind} in {api_version}", self.version),
            );
            return Some(match versions.first() {
                Some(version) => fault.remedy(format!("use {version}")),
                None => fault.remedy("correct apiVersion or kind"),
            });
        }
        let mut finding = self
            .finding(scope, traced, Rule::UnknownKind, &Path::fields("kind"), false)
            .0;
        finding.remedy =
            Some("add its CustomResourceDefinition to the repository to have it checked".to_owned());
        finding.object = None;
        self.unknown
            .entry(format!("{kind} of {api_version}"))
            .or_insert((0, finding))
            .0 += 1;
        None
    }

    /// What the devices of a class say.
    fn on_devices(
        &mut self,
        scope: &Scope<'_>,
        class: &DeviceClass,
        inspection: &Inspection,
        faults: &mut [Vec<Fault>],
    ) {
        let own = inspection.objects.iter().map(|traced| &traced.object);
        let own = own.filter(|object| !flux::is_flux(object) && !sealed::is_whole(object));
        let own: Vec<Object> = own.map(sealed::opened).collect();
        for (key, refusal) in engine::refusals(own, class) {
            // The engine speaks of the namespace that an object without one is in.
            let is_it = |traced: &Traced| {
                let own = traced.object.key();
                let namespace = if own.namespace.is_empty() {
                    "default"
                } else {
                    &own.namespace
                };
                own == key
                    || namespace == key.namespace
                        && (&own.group, &own.kind, &own.name) == (&key.group, &key.kind, &key.name)
            };
            let Some(at) = inspection.objects.iter().position(is_it) else {
                continue;
            };
            // What is not rendered cannot be missed.
            if !inspection.problems.is_empty() && refusal.message.contains("there is no ") {
                continue;
            }
            let refusal = at_requests(&inspection.objects[at].object, refusal);
            // What Kubernetes refuses as well is told in its words.
            let told = faults[at]
                .iter()
                .any(|known| known.rule.severity() == Severity::Error && known.path.touches(&refusal.path));
            if !told {
                faults[at].push(refusal);
            }
        }
        for traced in &inspection.objects {
            for (path, image) in images::of(&traced.object) {
                let (finding, silenced) = self.finding(scope, traced, Rule::ImageArchitecture, &path, false);
                if !silenced {
                    let need = ImageNeed {
                        image,
                        architecture: class.architecture.clone(),
                    };
                    let excerpt = self.files.line(&finding.place.file, finding.place.line);
                    self.images.add(need, &class.name, Finding { excerpt, ..finding });
                }
            }
        }
        for warning in &inspection.warnings {
            self.left_out(scope, inspection, warning);
        }
    }

    /// A remark of the renderer, at the object that it begins with.
    fn left_out(&mut self, scope: &Scope<'_>, inspection: &Inspection, warning: &str) {
        let word = warning.split(' ').next().unwrap_or_default();
        let traced = inspection
            .objects
            .iter()
            .find(|traced| word.split_once('/') == Some((traced.object.kind(), traced.object.name())));
        if let Some(traced) = traced {
            let fault = Fault::new(Rule::LeftOut, Path::fields("kind"), warning);
            self.tell(scope, traced, fault);
        }
    }

    /// An empty finding at a field, and whether a comment silences it.
    fn finding(
        &self,
        scope: &Scope<'_>,
        traced: &Traced,
        rule: Rule,
        path: &Path,
        at_key: bool,
    ) -> (Finding, bool) {
        let located = self
            .files
            .locate(&traced.trace, traced.object.value(), path, at_key);
        let silenced = self.files.silences(rule, &located.around);
        let Located {
            mut place, related, ..
        } = located;
        if place.file.is_empty() {
            place = self.files.kustomization(&scope.folder);
        }
        let finding = Finding {
            rule,
            severity: rule.severity(),
            place,
            message: String::new(),
            remedy: None,
            object: Some(named(&traced.object)),
            field: (!path.0.is_empty()).then(|| path.to_string()),
            clusters: vec![scope.folder.clone()],
            related,
            excerpt: None,
        };
        (finding, silenced)
    }

    pub(crate) fn tell(&mut self, scope: &Scope<'_>, traced: &Traced, fault: Fault) {
        let (mut finding, silenced) = self.finding(scope, traced, fault.rule, &fault.path, fault.at_key);
        if silenced {
            return;
        }
        finding.severity = fault.severity.unwrap_or(finding.severity);
        finding.message = fault.message;
        finding.remedy = fault.remedy;
        add(&mut self.findings, finding);
    }

    /// Comments that silence nothing because they name no rule.
    fn misspelt(&mut self) {
        for path in &self.seen_files {
            for (spot, word) in &self.files.get(path).misspelt {
                let meant = meant(word, Rule::all().map(Rule::id));
                let finding = Finding {
                    rule: Rule::UnknownField,
                    severity: Severity::Warning,
                    place: Place {
                        file: path.clone(),
                        line: spot.line,
                        column: spot.column,
                        width: spot.width,
                    },
                    message: format!("there is no rule {word:?} to ignore"),
                    remedy: meant.map(|meant| format!("did you mean {meant:?}?")),
                    object: None,
                    field: None,
                    clusters: Vec::new(),
                    related: Vec::new(),
                    excerpt: None,
                };
                self.findings.push(finding);
            }
        }
    }
}

/// A sum that is too large is told where its last part is asked for.
fn at_requests(object: &Object, mut fault: Fault) -> Fault {
    if fault.rule == Rule::Resources
        && let Some(template) = pods::Template::of(object)
    {
        let asking = template.containers().into_iter().find_map(|container| {
            let path = container.path.keys(&["resources", "requests"]);
            path.of(object.value())?;
            let field = fault.path.0.last()?;
            let exact = Path([path.0.clone(), vec![field.clone()]].concat());
            Some(if exact.of(object.value()).is_some() {
                exact
            } else {
                path
            })
        });
        fault.path = asking.unwrap_or_else(|| template.spec_path());
    }
    fault
}
