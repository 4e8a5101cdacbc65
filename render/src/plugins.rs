//! `generators`, `transformers` and `validators` given as objects: those that are built into kustomize.

use crate::{
    config::FieldSpec,
    error::{Problem, RenderError, Result},
    fieldspec, generators, hash,
    kube::Schemas,
    kustomization::{GeneratorArgs, Image, Pairs, Patch, ReplacementField, Replica, Selector, canonical},
    loader::Loader,
    origin::Origin,
    replacements,
    resource::{Resource, Resources, Source},
    target::{Builder, Target, load_replacements},
    transform::{images, metadata, metadata::End, namespace, patches},
    yaml::{self, Map, Node},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::rc::Rc;

/// Runs the generators that an entry of `generators` configures.
pub(crate) fn generate(
    resources: &mut Resources,
    builder: &mut Builder,
    target: &Target<'_>,
    entry: &str,
) -> Result<()> {
    for config in builder.plugin_configs(target, entry)?.0 {
        let mut made = make(&config, target).map_err(|error| config.blame(error))?;
        made.origin = made.origin.or_else(|| builder.plugin_origin(&config));
        resources.absorb(made)?;
    }
    Ok(())
}

/// Runs the transformers that an entry of `transformers` configures.
pub(crate) fn transform(
    resources: &mut Resources,
    builder: &mut Builder,
    target: &Target<'_>,
    entry: &str,
) -> Result<()> {
    for config in builder.plugin_configs(target, entry)?.0 {
        run(resources, &config, &target.loader, builder.schemas()).map_err(|error| config.blame(error))?;
        if let Some(origin) = builder.plugin_origin(&config) {
            crate::origin::note(resources, &origin);
        }
        resources.0.retain(|resource| !resource.is_deleted());
    }
    Ok(())
}

/// Runs transformers that may only look.
pub(crate) fn validate(
    resources: &mut Resources,
    builder: &mut Builder,
    target: &Target<'_>,
    entry: &str,
) -> Result<()> {
    let before: Vec<Node> = resources.0.iter().map(|resource| resource.node.clone()).collect();
    transform(resources, builder, target, entry)?;
    let same = before.len() == resources.0.len()
        && before.iter().zip(&resources.0).all(|(old, new)| *old == new.node);
    if same {
        return Ok(());
    }
    Err(RenderError::configuration("a validator changed the objects").field("validators"))
}

/// Where the configuration of a plugin was read.
pub(crate) fn origin_of(config: &Resource) -> Origin {
    let read_from = config.origin.clone().unwrap_or_default();
    Origin {
        configured_in: read_from.path,
        repository: read_from.repository,
        reference: read_from.reference,
        api_version: config.api_version().to_owned(),
        kind: config.kind().to_owned(),
        name: config.name().to_owned(),
        namespace: config.namespace().to_owned(),
        ..Origin::default()
    }
}

fn make(config: &Resource, target: &Target<'_>) -> Result<Resource> {
    expect_built_in(config)?;
    let kind = match config.kind() {
        "ConfigMapGenerator" => generators::Kind::ConfigMap,
        "SecretGenerator" => generators::Kind::Secret,
        "IAMPolicyGenerator" => return service_account(config),
        _ => return Err(unsupported(config)),
    };
    let mut args: GeneratorArgs = decode_known(config, GENERATOR_FIELDS)?;
    if args.name.is_empty() {
        config.name().clone_into(&mut args.name);
    }
    if args.namespace.is_empty() {
        config.namespace().clone_into(&mut args.namespace);
    }
    let file: Rc<str> = config
        .source
        .as_ref()
        .map_or_else(|| target.file.clone(), |source: &Source| source.file.clone());
    generators::generate(kind, &args, None, &target.loader, &file)
}

/// A Kubernetes service account tied to one of Google's.
fn service_account(config: &Resource) -> Result<Resource> {
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Args {
        cloud: String,
        kubernetes_service: Account,
        service_account: Account,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Account {
        name: String,
        namespace: String,
        project_id: String,
    }
    let args: Args = decode(config)?;
    if args.cloud != "gke" {
        return Err(
            RenderError::configuration(format!("the cloud {:?} is not known", args.cloud)).field("cloud"),
        );
    }
    let google = format!(
        "{}@{}.iam.gserviceaccount.com",
        args.service_account.name, args.service_account.project_id
    );
    let annotations = Map(vec![(
        "iam.gke.io/gcp-service-account".to_owned(),
        Node::text(google),
    )]);
    let mut metadata = Map(vec![
        ("annotations".to_owned(), Node::Map(annotations)),
        ("name".to_owned(), Node::text(args.kubernetes_service.name)),
    ]);
    if !args.kubernetes_service.namespace.is_empty() {
        metadata.set("namespace", Node::text(args.kubernetes_service.namespace));
    }
    Ok(Resource::new(Node::Map(Map(vec![
        ("apiVersion".to_owned(), Node::text("v1")),
        ("kind".to_owned(), Node::text("ServiceAccount")),
        ("metadata".to_owned(), Node::Map(metadata)),
    ]))))
}

/// What the configurations of transformers may hold; each kind reads its own fields.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Transformer {
    annotations: Pairs,
    labels: Pairs,
    field_specs: Vec<FieldSpec>,
    image_tag: Image,
    unset_only: bool,
    set_role_binding_subjects: String,
    target: Option<Selector>,
    path: String,
    json_op: String,
    paths: Vec<String>,
    patches: String,
    patch: String,
    options: std::collections::BTreeMap<String, bool>,
    prefix: String,
    suffix: String,
    replacements: Vec<ReplacementField>,
    replica: Replica,
    value: String,
    targets: Vec<ValueTarget>,
    target_file_path: String,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ValueTarget {
    selector: Option<Selector>,
    field_path: String,
    file_path_position: usize,
}

fn run(resources: &mut Resources, config: &Resource, loader: &Loader<'_>, schemas: &Schemas) -> Result<()> {
    expect_built_in(config)?;
    let args: Transformer = decode(config)?;
    let specs = &args.field_specs;
    match config.kind() {
        "AnnotationsTransformer" => metadata::set_pairs(resources, &args.annotations, specs),
        "LabelTransformer" => metadata::set_pairs(resources, &args.labels, specs),
        "ImageTagTransformer" => images::set(resources, &args.image_tag, specs),
        "HashTransformer" => hash::rename(resources),
        "NamespaceTransformer" => set_namespace(resources, config.namespace(), &args),
        "PrefixTransformer" => metadata::extend_names(resources, End::Prefix, &args.prefix, specs),
        "SuffixTransformer" => metadata::extend_names(resources, End::Suffix, &args.suffix, specs),
        "PrefixSuffixTransformer" => {
            metadata::extend_names(resources, End::Prefix, &args.prefix, specs)?;
            metadata::extend_names(resources, End::Suffix, &args.suffix, specs)
        }
        "ReplicaCountTransformer" => metadata::set_replicas(resources, &args.replica, specs),
        "PatchTransformer" => patches::apply(
            resources,
            &Patch {
                path: args.path,
                patch: args.patch,
                target: args.target,
                options: args.options,
            },
            loader,
            schemas,
        ),
        "PatchJson6902Transformer" => patches::apply_json(
            resources,
            &Patch {
                path: args.path,
                patch: args.json_op,
                target: args.target,
                ..Patch::default()
            },
            loader,
        ),
        "PatchStrategicMergeTransformer" => merge(resources, &args, loader, schemas),
        "ReplacementTransformer" => args.replacements.iter().try_for_each(|entry| {
            load_replacements(entry, loader)?
                .iter()
                .try_for_each(|replacement| replacements::apply(resources, replacement))
        }),
        "ValueAddTransformer" => add_value(resources, &args, loader),
        _ => Err(unsupported(config)),
    }
}

fn set_namespace(resources: &mut Resources, namespace: &str, args: &Transformer) -> Result<()> {
    let subjects = match args.set_role_binding_subjects.as_str() {
        "" | "defaultOnly" => namespace::Subjects::DefaultOnly,
        "allServiceAccounts" => namespace::Subjects::AllServiceAccounts,
        "none" => namespace::Subjects::None,
        other => {
            return Err(
                RenderError::configuration(format!("{other:?} is no choice of subjects"))
                    .field("setRoleBindingSubjects")
                    .remedy("use defaultOnly, allServiceAccounts or none"),
            );
        }
    };
    let options = namespace::Options {
        namespace,
        specs: &args.field_specs,
        unset_only: args.unset_only,
        subjects,
    };
    namespace::set(resources, &options)
}

fn merge(
    resources: &mut Resources,
    args: &Transformer,
    loader: &Loader<'_>,
    schemas: &Schemas,
) -> Result<()> {
    if args.paths.is_empty() && args.patches.is_empty() {
        return Err(RenderError::configuration(
            "there is neither 'paths' nor 'patches'",
        ));
    }
    for path in &args.paths {
        patches::apply_merge(resources, path, loader, schemas)?;
    }
    if !args.patches.is_empty() {
        patches::apply_merge(resources, &args.patches, loader, schemas)?;
    }
    Ok(())
}

/// Writes a value into fields, or as a part of a path in them.
fn add_value(resources: &mut Resources, args: &Transformer, loader: &Loader<'_>) -> Result<()> {
    let value = match args.value.trim() {
        "" => loader.root().rsplit('/').next().unwrap_or_default(),
        value => value,
    };
    let mut targets = args.targets.clone();
    if !args.target_file_path.is_empty() {
        let text = loader.read_text(&args.target_file_path)?;
        let documents = yaml::parse_lenient(&text)
            .map_err(|error| RenderError::new(Problem::Unreadable, error.message).at_line(error.line))?;
        for document in &documents {
            let more: Transformer = decode_node(&document.root)?;
            targets.extend(more.targets);
        }
    }
    if targets.is_empty() {
        return Err(RenderError::configuration("there is no target").field("targets"));
    }
    for target in &targets {
        let selected = match &target.selector {
            Some(selector) => crate::selector::Matcher::new(selector)?.select(resources),
            None => (0..resources.0.len()).collect(),
        };
        let spec = FieldSpec {
            path: target.field_path.clone().into(),
            create: true,
            ..FieldSpec::everywhere("", true)
        };
        for at in selected {
            let resource = &mut resources.0[at];
            if target.field_path == "metadata/namespace" && resource.id().is_cluster_scoped() {
                continue;
            }
            fieldspec::apply(
                &mut resource.node,
                &spec,
                fieldspec::Create::Scalar,
                &mut |field| {
                    let text = match target.file_path_position {
                        0 => value.to_owned(),
                        position => insert_part(field.value(), position - 1, value),
                    };
                    fieldspec::set_bare(field, &text)
                },
            )
            .map_err(|error| resource.blame(error))?;
        }
    }
    Ok(())
}

/// Puts a part into a path, behind its last one where the position is too large.
fn insert_part(path: &str, position: usize, part: &str) -> String {
    let (root, relative) = match path.strip_prefix('/') {
        Some(relative) => ("/", relative),
        None => ("", path),
    };
    let mut parts: Vec<&str> = relative.split('/').filter(|part| !part.is_empty()).collect();
    parts.insert(position.min(parts.len()), part);
    format!("{root}{}", parts.join("/"))
}

fn expect_built_in(config: &Resource) -> Result<()> {
    if config.api_version() == "builtin" {
        Ok(())
    } else {
        Err(unsupported(config))
    }
}

fn unsupported(config: &Resource) -> RenderError {
    config.blame(
        RenderError::new(
            Problem::Unsupported,
            format!(
                "{}/{} is no plugin that is built in",
                config.api_version(),
                config.kind()
            ),
        )
        .remedy("commit what the plugin makes instead"),
    )
}

const GENERATOR_FIELDS: &[&str] = &[
    "namespace",
    "name",
    "behavior",
    "literals",
    "files",
    "envs",
    "env",
    "options",
    "type",
];
const SPEC_FIELDS: &[&str] = &["group", "version", "kind", "path", "create"];

fn decode<T: DeserializeOwned>(config: &Resource) -> Result<T> {
    decode_node(&config.node)
}

/// Decodes into a type that would refuse other fields than these.
fn decode_known<T: DeserializeOwned>(config: &Resource, known: &[&str]) -> Result<T> {
    let mut node = config.node.clone();
    if let Some(map) = node.as_map_mut() {
        map.0.retain(|(key, _)| known.contains(&key.as_str()));
    }
    decode_node(&node)
}

/// Decodes as Go does: unknown fields are ignored, and where a text is wanted a number will do.
fn decode_node<T: DeserializeOwned>(node: &Node) -> Result<T> {
    let mut value = yaml::to_json_yaml11(node).map_err(crate::bad_number)?;
    if let Some(map) = value.as_object_mut() {
        for field in ["apiVersion", "kind", "metadata"] {
            map.remove(field);
        }
    }
    to_texts(&mut value, "");
    for spec in value
        .get_mut("fieldSpecs")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(spec) = spec.as_object_mut() {
            spec.retain(|key, _| SPEC_FIELDS.contains(&key.as_str()));
        }
    }
    serde_json::from_value(value).map_err(|error| RenderError::configuration(error.to_string()))
}

/// Fields that are no texts.
const TYPED: &[&str] = &[
    "count",
    "create",
    "immutable",
    "disableNameSuffixHash",
    "index",
    "unsetOnly",
    "filePathPosition",
    "allowNameChange",
    "allowKindChange",
    "allowNoTargetMatch",
];

fn to_texts(value: &mut Value, key: &str) {
    match value {
        Value::Object(map) => {
            for (key, mut value) in std::mem::take(map) {
                if !value.is_null() {
                    to_texts(&mut value, &key);
                    let key = canonical(&key).map_or(key, str::to_owned);
                    map.insert(key, value);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| to_texts(item, key)),
        Value::Bool(_) | Value::Number(_) if !TYPED.contains(&key) => {
            *value = Value::String(value.to_string());
        }
        _ => {}
    }
}
