//! `replacements`: a value copied from one object's field into others.

use crate::config::selects;
use crate::{
    error::{Problem, RenderError, Result},
    kustomization::{ReplacementField, ReplacementOptions, ReplacementSource, ReplacementTarget, Selector},
    path::{self, Made},
    resource::{Resource, Resources},
    selector::Matcher,
    yaml::{Node, Plain, Scalar, Style},
};

const NAME: &str = "metadata.name";

/// Carries out one replacement.
pub(crate) fn apply(resources: &mut Resources, replacement: &ReplacementField) -> Result<()> {
    let wrong = |message: &str| RenderError::configuration(message).field("replacements");
    let Some(targets) = &replacement.targets else {
        return Err(wrong("a replacement needs a source and at least one target"));
    };
    let value = match (&replacement.source, &replacement.source_value) {
        (Some(_), Some(_)) => return Err(wrong("source and sourceValue exclude each other")),
        (None, None) => return Err(wrong("a replacement needs a source and at least one target")),
        (None, Some(value)) => Node::bare(value.as_str()),
        (Some(source), None) => source_value(resources, source)?,
    };
    targets
        .iter()
        .try_for_each(|target| apply_to(resources, &value, target))
}

fn source_value(resources: &Resources, source: &ReplacementSource) -> Result<Node> {
    let describe = || {
        let mut text = String::new();
        for part in [
            &source.kind,
            &source.group,
            &source.version,
            &source.namespace,
            &source.name,
        ] {
            if !part.is_empty() {
                if !text.is_empty() {
                    text.push('/');
                }
                text.push_str(part);
            }
        }
        text
    };
    let mut matches = resources.0.iter().filter(|resource| is_source(resource, source));
    let (Some(resource), None) = (matches.next(), matches.next()) else {
        let count = resources.0.iter().filter(|r| is_source(r, source)).count();
        return Err(RenderError::new(
            Problem::Conflict,
            format!(
                "{count} objects match the source {}; it must be exactly one",
                describe()
            ),
        )
        .field("replacements.source"));
    };
    let field = if source.field_path.is_empty() {
        NAME
    } else {
        &source.field_path
    };
    let node = path::lookup(&resource.node, &path::split(field))
        .filter(|node| !node.is_nil_or_empty())
        .ok_or_else(|| {
            resource
                .blame(RenderError::new(
                    Problem::NotFound,
                    "the source of a replacement has no such field, or nothing in it",
                ))
                .field(field)
        })?;
    refine(node, source.options.as_ref()).map_err(|error| resource.blame(error).field(field))
}

fn is_source(resource: &Resource, source: &ReplacementSource) -> bool {
    let all = resource.previous_ids().chain([resource.id()]);
    all.into_iter().any(|id| {
        let namespace = if source.namespace.is_empty() {
            ""
        } else {
            &source.namespace
        };
        selects(&source.group, id.group)
            && selects(&source.version, id.version)
            && selects(&source.kind, id.kind)
            && selects(&source.name, id.name)
            && (namespace.is_empty() || namespace == id.namespace)
    })
}

/// Takes a part of a text where options ask for it.
fn refine(node: &Node, options: Option<&ReplacementOptions>) -> Result<Node> {
    let Some(options) = options.filter(|options| !options.delimiter.is_empty()) else {
        return Ok(node.clone());
    };
    let Node::Scalar(scalar) = node else {
        return Err(RenderError::configuration("the delimiter option needs a text"));
    };
    let parts: Vec<&str> = scalar.text.split(options.delimiter.as_str()).collect();
    let part = usize::try_from(options.index).ok().and_then(|at| parts.get(at));
    let part = part.ok_or_else(|| {
        RenderError::configuration(format!(
            "options.index {} is out of bounds for {:?}",
            options.index, scalar.text
        ))
    })?;
    let mut refined = scalar.clone();
    (*part).clone_into(&mut refined.text);
    Ok(Node::Scalar(refined))
}

fn apply_to(resources: &mut Resources, value: &Node, target: &ReplacementTarget) -> Result<()> {
    let Some(select) = &target.select else {
        return Err(RenderError::configuration("a target must select objects").field("replacements.targets"));
    };
    let select = Matcher::new(select)?;
    let rejects: Vec<(&Selector, Matcher)> = target
        .reject
        .iter()
        .map(|reject| Ok((reject, Matcher::new(reject)?)))
        .collect::<Result<_>>()?;
    let default = [NAME.to_owned()];
    let paths = if target.field_paths.is_empty() {
        &default[..]
    } else {
        &target.field_paths
    };
    for resource in &mut resources.0 {
        if !is_target(resource, &select, &rejects) {
            continue;
        }
        for field in paths {
            copy(&mut resource.node, value, field, target.options.as_ref())
                .map_err(|error| resource.blame(error).field(field.as_str()))?;
            resource.settle();
        }
    }
    Ok(())
}

fn is_target(resource: &Resource, select: &Matcher, rejects: &[(&Selector, Matcher)]) -> bool {
    let selected = |matcher: &Matcher| {
        let mut now = resource.id();
        now.namespace = resource.namespace();
        resource
            .previous_ids()
            .chain([now])
            .any(|id| matcher.matches_type(&id) && matcher.matches_name(&id))
    };
    let rejected = |(reject, matcher): &(&Selector, Matcher)| {
        let by_metadata = !reject.label_selector.is_empty() || !reject.annotation_selector.is_empty();
        let by_name = [
            &reject.group,
            &reject.version,
            &reject.kind,
            &reject.name,
            &reject.namespace,
        ]
        .iter()
        .any(|part| !part.is_empty());
        (by_metadata && matcher.matches_metadata(resource)) || (by_name && selected(matcher))
    };
    select.matches_metadata(resource) && !rejects.iter().any(rejected) && selected(select)
}

fn copy(node: &mut Node, value: &Node, field: &str, options: Option<&ReplacementOptions>) -> Result<()> {
    let create = options
        .is_some_and(|options| options.create)
        .then(|| Made::like(value));
    let found = path::each(node, &path::split(field), create, &mut |target| {
        set(target, value, options)
    })?;
    if found {
        return Ok(());
    }
    Err(
        RenderError::new(Problem::NotFound, "the target of a replacement has no such field")
            .remedy("correct the path, or set options.create"),
    )
}

fn set(target: &mut Node, value: &Node, options: Option<&ReplacementOptions>) -> Result<()> {
    let mut value = value.clone();
    if let Some(options) = options.filter(|options| !options.delimiter.is_empty()) {
        let (Node::Scalar(old), Node::Scalar(new)) = (&*target, &mut value) else {
            return Err(RenderError::configuration("the delimiter option needs a text"));
        };
        let mut parts: Vec<&str> = old.text.split(options.delimiter.as_str()).collect();
        let text = new.text.clone();
        match usize::try_from(options.index) {
            Err(_) => parts.insert(0, &text),
            Ok(at) if at >= parts.len() => parts.push(&text),
            Ok(at) => parts[at] = &text,
        }
        new.text = parts.join(&options.delimiter);
    }
    match (&mut *target, value) {
        // The target keeps its type.
        (Node::Scalar(old), Node::Scalar(new)) => {
            let fresh = Scalar::new(new.text.as_str(), Style::Plain);
            if old.style == Style::Plain && !fits(&old.plain(), &fresh.plain()) {
                return Err(RenderError::configuration(format!(
                    "{:?} cannot take the place of {}, a value of another type",
                    new.text, old.text
                ))
                .remedy("put the target's value in quotes"));
            }
            let style = match (old.style, old.plain()) {
                (style, _) if style.is_quoted() => style,
                (Style::Bare, _) | (_, Plain::Null) => Style::Bare,
                (_, Plain::Str(_)) => Style::Text,
                (style, _) => style,
            };
            old.write(new.text, style);
        }
        // Only the text of a value is copied into a scalar, and a mapping or list has none.
        (Node::Scalar(old), _) => old.write("", Style::Text),
        (target, value) => *target = value,
    }
    Ok(())
}

/// Whether a value of one type may be written where one of another is.
fn fits(old: &Plain<'_>, new: &Plain<'_>) -> bool {
    match old {
        Plain::Str(_) => true,
        Plain::Null => matches!(new, Plain::Null),
        Plain::Bool(_) => matches!(new, Plain::Bool(_)),
        Plain::Int(_) | Plain::UInt(_) => matches!(new, Plain::Int(_) | Plain::UInt(_)),
        Plain::Float(_) => matches!(new, Plain::Float(_) | Plain::Int(_) | Plain::UInt(_)),
        Plain::Time(_) => matches!(new, Plain::Time(_)),
    }
}
