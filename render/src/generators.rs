//! ConfigMaps and Secrets made from literals and files.

use crate::{
    error::{Problem, RenderError, Result},
    kustomization::{GeneratorArgs, GeneratorOptions},
    loader::Loader,
    resource::{Behavior, Resource, Source},
    yaml::{Map, Node},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use std::rc::Rc;

/// What is generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }
}

impl Kind {
    /// kustomize's name for what makes it.
    pub fn plugin(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMapGenerator",
            Self::Secret => "SecretGenerator",
        }
    }
}

type Pair = (String, Vec<u8>);

/// Makes one object.
pub(crate) fn generate(
    kind: Kind,
    args: &GeneratorArgs,
    global: Option<&GeneratorOptions>,
    loader: &Loader<'_>,
    file: &Rc<str>,
) -> Result<Resource> {
    let place = |error: RenderError| {
        error
            .in_file(&**file)
            .on(format_args!("{}/{}", kind.name(), args.name))
    };
    if args.name.is_empty() {
        return Err(place(RenderError::configuration("a generator needs a name")));
    }
    if kind == Kind::ConfigMap && !args.secret_type.is_empty() {
        return Err(place(
            RenderError::configuration("a ConfigMap has no type").field("type"),
        ));
    }
    let options = merge_options(args.options.as_ref(), global);
    let pairs = read_pairs(args, loader).map_err(place)?;
    let mut map = Map::default();
    map.set("apiVersion", Node::text("v1"));
    map.set("kind", Node::text(kind.name()));
    map.set("metadata", Node::Map(metadata(args, &options)));
    if kind == Kind::Secret {
        let secret_type = match args.secret_type.as_str() {
            "" => "Opaque",
            other => other,
        };
        map.set("type", Node::text(secret_type));
    }
    set_data(&mut map, kind, pairs);
    if options.immutable {
        map.set("immutable", Node::bare("true"));
    }
    let mut resource = Resource::new(Node::Map(map));
    resource.behavior = match args.behavior.as_str() {
        "merge" => Behavior::Merge,
        "replace" => Behavior::Replace,
        _ => Behavior::Create,
    };
    resource.needs_hash = !options.disable_name_suffix_hash;
    resource.source = Some(Source {
        file: file.clone(),
        line: 0,
    });
    Ok(resource)
}

fn metadata(args: &GeneratorArgs, options: &GeneratorOptions) -> Map {
    let mut metadata = Map::default();
    metadata.set("name", Node::text(args.name.as_str()));
    if !args.namespace.is_empty() {
        metadata.set("namespace", Node::text(args.namespace.as_str()));
    }
    for (field, pairs) in [("labels", &options.labels), ("annotations", &options.annotations)] {
        if !pairs.is_empty() {
            let entries = pairs
                .iter()
                .map(|(key, value)| (key.clone(), Node::text(value.as_str())));
            metadata.set(field, Node::Map(Map(entries.collect())));
        }
    }
    metadata
}

/// The generator's own options over those of the whole kustomization.
fn merge_options(own: Option<&GeneratorOptions>, global: Option<&GeneratorOptions>) -> GeneratorOptions {
    let mut merged = global.cloned().unwrap_or_default();
    if let Some(own) = own {
        let copy = |(key, value): (&String, &String)| (key.clone(), value.clone());
        merged.labels.extend(own.labels.iter().map(copy));
        merged.annotations.extend(own.annotations.iter().map(copy));
        merged.disable_name_suffix_hash |= own.disable_name_suffix_hash;
        merged.immutable |= own.immutable;
    }
    merged
}

fn set_data(map: &mut Map, kind: Kind, pairs: Vec<Pair>) {
    let mut data = Map::default();
    let mut binary = Map::default();
    for (key, value) in pairs {
        match (kind, String::from_utf8(value)) {
            (Kind::ConfigMap, Ok(text)) => data.set(&key, Node::text(text)),
            (Kind::ConfigMap, Err(bytes)) => binary.set(&key, Node::text(base64_lines(bytes.as_bytes()))),
            (Kind::Secret, Ok(text)) => data.set(&key, Node::text(base64_lines(text.as_bytes()))),
            (Kind::Secret, Err(bytes)) => data.set(&key, Node::text(base64_lines(bytes.as_bytes()))),
        }
    }
    if !data.is_empty() {
        map.set("data", Node::Map(data));
    }
    if !binary.is_empty() {
        map.set("binaryData", Node::Map(binary));
    }
}

/// base64, broken after each 70 characters where it is longer than a line.
fn base64_lines(bytes: &[u8]) -> String {
    const LINE: usize = 70;
    let encoded = STANDARD.encode(bytes);
    if encoded.len() < LINE {
        return encoded;
    }
    let mut lines = String::with_capacity(encoded.len() + encoded.len() / LINE + 1);
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        lines.push_str(line);
        lines.push('\n');
        rest = after;
    }
    lines
}

fn read_pairs(args: &GeneratorArgs, loader: &Loader<'_>) -> Result<Vec<Pair>> {
    let mut pairs: Vec<Pair> = Vec::new();
    for path in &args.envs {
        let text = loader.read_text(path).map_err(|error| error.field("envs"))?;
        for (line, content) in text.lines().enumerate() {
            let content = content.trim_end_matches('\r');
            if let Some((key, value)) = env_line(content, line) {
                pairs.push((key, value.into_bytes()));
            }
        }
    }
    for literal in &args.literals {
        let (key, value) = literal
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| {
                RenderError::configuration(format!("{literal:?} is no literal"))
                    .field("literals")
                    .remedy("write key=value")
            })?;
        pairs.push((key.to_owned(), unquote(value).as_bytes().to_vec()));
    }
    for source in &args.files {
        let (key, path) = file_source(source)?;
        let data = loader.read(path).map_err(|error| error.field("files"))?;
        pairs.push((key.to_owned(), data.to_vec()));
    }
    for (at, (key, _)) in pairs.iter().enumerate() {
        if pairs[..at].iter().any(|(known, _)| known == key) {
            return Err(RenderError::new(
                Problem::Configuration,
                format!("the key {key:?} is given twice"),
            ));
        }
    }
    pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(pairs)
}

/// A line of an env file: `KEY=value`, a bare `KEY`, a comment, or nothing.
fn env_line(line: &str, number: usize) -> Option<(String, String)> {
    let line = if number == 0 {
        line.trim_start_matches('\u{feff}')
    } else {
        line
    };
    let line = line.trim_start();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (key, value) = line.split_once('=').unwrap_or((line, ""));
    Some((key.to_owned(), value.to_owned()))
}

/// `path`, or `key=path`.
fn file_source(source: &str) -> Result<(&str, &str)> {
    let wrong = |why: &str| {
        RenderError::configuration(format!("{source:?}: {why}"))
            .field("files")
            .remedy("write a path, or key=path")
    };
    match source.split_once('=') {
        None => Ok((source.rsplit('/').next().unwrap_or(source), source)),
        Some(("", _)) => Err(wrong("the key is missing")),
        Some((_, "")) => Err(wrong("the path is missing")),
        Some((_, path)) if path.contains('=') => Err(wrong("there is more than one '='")),
        Some(parts) => Ok(parts),
    }
}

fn unquote(value: &str) -> &str {
    let bytes = value.as_bytes();
    match bytes {
        [first @ (b'"' | b'\''), .., last] if first == last => &value[1..value.len() - 1],
        _ => value,
    }
}
