//! The kustomization file as it is written, decoded strictly.

use crate::{
    config::FieldSpec,
    error::{Problem, RenderError, Result},
    yaml::{self, Node},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub(crate) type Pairs = BTreeMap<String, String>;

/// `kustomization.yaml` (`kustomize.config.k8s.io` v1beta1 and v1) or a `Component` (v1alpha1).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Kustomization {
    pub api_version: String,
    pub kind: String,
    /// Accepted, as kustomize does, and without effect.
    pub metadata: Value,
    pub openapi: Pairs,
    pub name_prefix: String,
    pub name_suffix: String,
    pub namespace: String,
    pub common_labels: Pairs,
    pub labels: Vec<Label>,
    pub common_annotations: Pairs,
    pub patches_strategic_merge: Vec<String>,
    #[serde(rename = "patchesJson6902")]
    pub patches_json6902: Vec<Patch>,
    pub patches: Vec<Patch>,
    pub images: Vec<Image>,
    pub image_tags: Vec<Image>,
    pub replacements: Vec<ReplacementField>,
    pub replicas: Vec<Replica>,
    pub vars: Vec<Var>,
    pub sort_options: Option<SortOptions>,
    pub resources: Vec<String>,
    pub components: Vec<String>,
    pub crds: Vec<String>,
    pub bases: Vec<String>,
    pub config_map_generator: Vec<GeneratorArgs>,
    pub secret_generator: Vec<GeneratorArgs>,
    /// Accepted, and without effect where there is no chart.
    pub helm_globals: Value,
    pub helm_charts: Vec<Value>,
    pub helm_chart_inflation_generator: Vec<Value>,
    pub generator_options: Option<GeneratorOptions>,
    pub configurations: Vec<String>,
    pub generators: Vec<String>,
    pub transformers: Vec<String>,
    pub validators: Vec<String>,
    pub build_metadata: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Label {
    pub pairs: Pairs,
    pub include_selectors: bool,
    pub include_templates: bool,
    pub fields: Vec<FieldSpec>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Patch {
    pub path: String,
    pub patch: String,
    pub target: Option<Selector>,
    pub options: BTreeMap<String, bool>,
}

/// Which objects something is for; each part but the selectors is an anchored regular expression.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Selector {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub annotation_selector: String,
    pub label_selector: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Image {
    pub name: String,
    pub new_name: String,
    pub tag_suffix: String,
    pub new_tag: String,
    pub digest: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Replica {
    pub name: String,
    pub count: i64,
}

/// A replacement, or the path of a file of them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct ReplacementField {
    pub path: String,
    pub source: Option<ReplacementSource>,
    pub source_value: Option<String>,
    pub targets: Option<Vec<ReplacementTarget>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct ReplacementSource {
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub field_path: String,
    pub options: Option<ReplacementOptions>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct ReplacementTarget {
    pub select: Option<Selector>,
    pub reject: Vec<Selector>,
    pub field_paths: Vec<String>,
    pub options: Option<ReplacementOptions>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct ReplacementOptions {
    pub delimiter: String,
    pub index: i64,
    pub encoding: String,
    pub create: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Var {
    pub name: String,
    pub objref: ObjectReference,
    pub fieldref: FieldReference,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct ObjectReference {
    pub api_version: String,
    pub group: String,
    pub version: String,
    pub kind: String,
    pub name: String,
    pub namespace: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FieldReference {
    #[serde(alias = "fieldPath")]
    pub fieldpath: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct SortOptions {
    pub order: String,
    pub legacy_sort_options: Option<LegacySortOptions>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct LegacySortOptions {
    pub order_first: Vec<String>,
    pub order_last: Vec<String>,
}

/// A ConfigMap or Secret to generate.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct GeneratorArgs {
    pub namespace: String,
    pub name: String,
    pub behavior: String,
    pub literals: Vec<String>,
    pub files: Vec<String>,
    pub envs: Vec<String>,
    pub env: String,
    pub options: Option<GeneratorOptions>,
    /// Of Secrets only.
    #[serde(rename = "type")]
    pub secret_type: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct GeneratorOptions {
    pub labels: Pairs,
    pub annotations: Pairs,
    pub disable_name_suffix_hash: bool,
    pub immutable: bool,
}

impl Kustomization {
    /// Decodes a file's text, and moves deprecated fields to where they belong now.
    pub fn parse(text: &str, file: &str, warnings: &mut Vec<String>) -> Result<Self> {
        let documents = yaml::parse_lenient(text).map_err(|error| {
            RenderError::new(Problem::Unreadable, error.message)
                .in_file(file)
                .at_line(error.line)
        })?;
        let root = match documents.as_slice() {
            [] => {
                return Err(RenderError::configuration("kustomization.yaml is empty")
                    .in_file(file)
                    .remedy("list the folder's resources in it"));
            }
            [document, ..] => &document.root,
        };
        let says_nothing = |(key, value): &(String, Node)| {
            matches!(key.as_str(), "apiVersion" | "kind")
                || (value.as_scalar().is_some() && value.value().is_empty())
        };
        if root.is_nil_or_empty() || root.as_map().is_some_and(|map| map.0.iter().all(says_nothing)) {
            return Err(RenderError::configuration("kustomization.yaml is empty").in_file(file));
        }
        let mut parsed: Self = decode(root).map_err(|error| error.in_file(file))?;
        parsed.warn_of_old_fields(file, warnings);
        parsed.move_old_fields();
        parsed.check_version().map_err(|error| error.in_file(file))?;
        Ok(parsed)
    }

    fn warn_of_old_fields(&self, file: &str, warnings: &mut Vec<String>) {
        let mut warn = |used: bool, old: &str, new: &str| {
            if used {
                warnings.push(format!("{file}: '{old}' is deprecated; use '{new}'"));
            }
        };
        warn(!self.bases.is_empty(), "bases", "resources");
        warn(!self.image_tags.is_empty(), "imageTags", "images");
        warn(!self.patches_json6902.is_empty(), "patchesJson6902", "patches");
        warn(
            !self.patches_strategic_merge.is_empty(),
            "patchesStrategicMerge",
            "patches",
        );
        warn(!self.common_labels.is_empty(), "commonLabels", "labels");
        warn(!self.vars.is_empty(), "vars", "replacements");
    }

    fn move_old_fields(&mut self) {
        if self.kind.is_empty() {
            "Kustomization".clone_into(&mut self.kind);
        }
        self.resources.append(&mut self.bases);
        self.images.append(&mut self.image_tags);
        for generator in self
            .config_map_generator
            .iter_mut()
            .chain(&mut self.secret_generator)
        {
            if !generator.env.is_empty() {
                generator.envs.push(std::mem::take(&mut generator.env));
            }
        }
    }

    fn check_version(&self) -> Result<()> {
        let known: &[&str] = match self.kind.as_str() {
            "Kustomization" => &["kustomize.config.k8s.io/v1beta1", "kustomize.config.k8s.io/v1"],
            "Component" => &["kustomize.config.k8s.io/v1alpha1"],
            other => {
                return Err(RenderError::configuration(format!(
                    "kind should be Kustomization or Component, not {other}"
                ))
                .field("kind"));
            }
        };
        if !self.api_version.is_empty() && !known.contains(&self.api_version.as_str()) {
            return Err(RenderError::configuration(format!(
                "apiVersion for {} should be {}",
                self.kind, known[0]
            ))
            .field("apiVersion"));
        }
        Ok(())
    }

    /// Refuses what needs programs beside kustomize.
    pub fn refuse_unsupported(&self) -> Result<()> {
        let helm = !self.helm_charts.is_empty() || !self.helm_chart_inflation_generator.is_empty();
        if helm {
            return Err(
                RenderError::new(Problem::Unsupported, "Helm charts are not rendered here")
                    .field("helmCharts")
                    .remedy("render the chart with 'helm template' and commit the result"),
            );
        }
        Ok(())
    }
}

/// Decodes a node of kustomize's own configuration: unknown fields are errors, null counts as absent.
pub(crate) fn decode<T: DeserializeOwned>(node: &Node) -> Result<T> {
    let mut value = yaml::to_json_yaml11(node)
        .map_err(|number| RenderError::configuration(format!("{number} is no number that JSON has")))?;
    tidy(&mut value, true);
    serde_json::from_value(value).map_err(|error| RenderError::configuration(error.to_string()))
}

/// Mappings whose keys are the user's own.
const FREE: &[&str] = &[
    "pairs",
    "commonLabels",
    "commonAnnotations",
    "annotations",
    "openapi",
    "metadata",
    "helmGlobals",
    "helmCharts",
    "helmChartInflationGenerator",
];

/// Removes nulls, and gives keys the case that kustomize's documentation has: Go takes any.
fn tidy(value: &mut Value, top: bool) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| tidy(item, false)),
        Value::Object(map) => {
            let entries = std::mem::take(map);
            for (key, mut value) in entries {
                if value.is_null() {
                    continue;
                }
                let key = match canonical(&key) {
                    Some(canonical) => canonical.to_owned(),
                    None => key,
                };
                let free = FREE.contains(&key.as_str()) || (key == "labels" && !top && value.is_object());
                if free {
                    drop_nulls(&mut value);
                } else {
                    tidy(&mut value, false);
                }
                map.entry(key).or_insert(value);
            }
        }
        _ => {}
    }
}

fn drop_nulls(value: &mut Value) {
    if let Value::Object(map) = value {
        let kept: Map<String, Value> = std::mem::take(map)
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect();
        *map = kept;
    }
}

const NAMES: &[&str] = &[
    "apiVersion",
    "kind",
    "metadata",
    "openapi",
    "namePrefix",
    "nameSuffix",
    "namespace",
    "commonLabels",
    "labels",
    "commonAnnotations",
    "patchesStrategicMerge",
    "patchesJson6902",
    "patches",
    "images",
    "imageTags",
    "replacements",
    "replicas",
    "vars",
    "sortOptions",
    "resources",
    "components",
    "crds",
    "bases",
    "configMapGenerator",
    "secretGenerator",
    "helmGlobals",
    "helmCharts",
    "generatorOptions",
    "configurations",
    "generators",
    "transformers",
    "validators",
    "buildMetadata",
    "includeSelectors",
    "includeTemplates",
    "newName",
    "newTag",
    "tagSuffix",
    "labelSelector",
    "annotationSelector",
    "fieldPath",
    "fieldPaths",
    "sourceValue",
    "disableNameSuffixHash",
    "objref",
    "fieldref",
    "fieldSpecs",
    "nameReference",
    "varReference",
    "templateLabels",
    "legacySortOptions",
    "path",
    "patch",
    "target",
    "options",
    "name",
    "digest",
    "group",
    "version",
    "count",
    "behavior",
    "literals",
    "files",
    "envs",
    "env",
    "pairs",
    "fields",
    "create",
    "orderFirst",
    "orderLast",
];

pub(crate) fn canonical(key: &str) -> Option<&'static str> {
    NAMES.iter().find(|name| name.eq_ignore_ascii_case(key)).copied()
}
