//! `vars`: `$(NAME)` in certain fields stands for the value of another object's field.

use crate::{
    config::{Config, FieldSpec},
    error::{Problem, RenderError, Result},
    fieldspec::{self, Create},
    kustomization::Var,
    path,
    resource::{Id, Resources, split_api_version},
    yaml::{Node, Plain, Scalar, Style},
};
use std::collections::BTreeMap;

/// Remembers on the objects which variables they give a value.
pub(crate) fn register(resources: &mut Resources, known: &mut Vec<Var>, new: &[Var]) -> Result<()> {
    for var in new {
        let reference = &var.objref;
        let (group, version) = if reference.api_version.is_empty() {
            (reference.group.as_str(), reference.version.as_str())
        } else {
            split_api_version(&reference.api_version)
        };
        let api_version = if group.is_empty() {
            version.to_owned()
        } else {
            format!("{group}/{version}")
        };
        let wanted = Id::new(
            &api_version,
            &reference.kind,
            &reference.name,
            &reference.namespace,
        );
        let exact = !reference.namespace.is_empty() || wanted.is_cluster_scoped();
        let matches = |id: Id<'_>| {
            if exact {
                id == wanted
            } else {
                id.same_but_namespace(&wanted)
            }
        };
        let mut found = resources
            .0
            .iter_mut()
            .filter(|resource| resource.previous_ids().chain([resource.id()]).any(matches));
        if let Some(resource) = found.next() {
            resource.vars.push(var.name.clone());
        }
        if found.next().is_some() {
            return Err(RenderError::new(
                Problem::Conflict,
                format!("more than one object could give {} its value", var.name),
            )
            .field("vars")
            .remedy("name the namespace in objref"));
        }
    }
    add(known, new)
}

/// Adds variables; a name may be defined once.
pub(crate) fn add(known: &mut Vec<Var>, new: &[Var]) -> Result<()> {
    for var in new {
        if known.iter().any(|old| old.name == var.name) {
            return Err(RenderError::new(
                Problem::Conflict,
                format!("the variable {} is defined twice", var.name),
            )
            .field("vars"));
        }
        known.push(var.clone());
    }
    Ok(())
}

/// Replaces all variables by their values.
pub(crate) fn resolve(resources: &mut Resources, vars: &[Var], config: &Config) -> Result<()> {
    if vars.is_empty() {
        return Ok(());
    }
    let values: BTreeMap<&str, Scalar> = vars
        .iter()
        .map(|var| Ok((var.name.as_str(), value_of(resources, var)?)))
        .collect::<Result<_>>()?;
    for resource in &mut resources.0 {
        for spec in &config.var_reference {
            expand_at(&mut resource.node, spec, &values).map_err(|error| resource.blame(error))?;
            resource.settle();
        }
    }
    Ok(())
}

fn value_of(resources: &Resources, var: &Var) -> Result<Scalar> {
    let unknown = |message: String| RenderError::new(Problem::Undefined, message).field("vars");
    let Some(resource) = resources
        .0
        .iter()
        .find(|resource| resource.vars.contains(&var.name))
    else {
        return Err(
            unknown(format!("no object gives the variable {} its value", var.name))
                .remedy("check kind, name and apiVersion of its objref"),
        );
    };
    let field = match var.fieldref.fieldpath.as_str() {
        "" => "metadata.name",
        other => other,
    };
    let parts: Vec<String> = path::split(field).into_iter().flat_map(split_index).collect();
    match path::lookup(&resource.node, &parts) {
        Some(Node::Scalar(scalar)) => Ok(scalar.clone()),
        _ => Err(resource.blame(unknown(format!(
            "the variable {} stands for {field}, which is no single value here",
            var.name
        )))),
    }
}

/// `ports[0]` is `ports`, `0`.
fn split_index(part: String) -> Vec<String> {
    match part.strip_suffix(']').and_then(|part| part.split_once('[')) {
        Some((name, index)) if !name.is_empty() => vec![name.to_owned(), index.to_owned()],
        _ => vec![part],
    }
}

fn expand_at(node: &mut Node, spec: &FieldSpec, values: &BTreeMap<&str, Scalar>) -> Result<()> {
    fieldspec::apply(node, spec, Create::Nothing, &mut |field| match field {
        Node::Scalar(scalar) => {
            expand(scalar, values);
            Ok(())
        }
        Node::Map(map) => {
            for (_, value) in &mut map.0 {
                if let Node::Scalar(scalar) = value {
                    expand(scalar, values);
                }
            }
            Ok(())
        }
        Node::Seq(items) => items.iter_mut().try_for_each(|item| match item {
            Node::Scalar(scalar) if scalar.is_text() => {
                expand(scalar, values);
                Ok(())
            }
            _ => Err(RenderError::configuration(
                "a list with variables may hold only texts",
            )),
        }),
    })
}

fn expand(scalar: &mut Scalar, values: &BTreeMap<&str, Scalar>) {
    if scalar.is_null() || !scalar.is_text() {
        return;
    }
    // A value that is one variable takes its type.
    let alone = scalar
        .text
        .strip_prefix("$(")
        .and_then(|rest| rest.strip_suffix(')'));
    if let Some(value) = alone.and_then(|name| values.get(name)) {
        match value.plain() {
            Plain::Str(text) => scalar.write(text, Style::Text),
            _ => scalar.write(value.text.as_str(), Style::Plain),
        }
        return;
    }
    if scalar.text.contains('$') {
        let text = expand_text(&scalar.text, values);
        scalar.write(text, Style::Text);
    } else {
        scalar.style = Style::Text;
    }
}

/// `$(NAME)` is replaced, `$$` is a dollar sign, all else stays.
fn expand_text(text: &str, values: &BTreeMap<&str, Scalar>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        match after.chars().next() {
            None => {
                out.push('$');
                rest = after;
            }
            Some('$') => {
                out.push('$');
                rest = &after[1..];
            }
            Some('(') => match after.find(')') {
                Some(end) => {
                    let name = &after[1..end];
                    match values.get(name) {
                        Some(value) => out.push_str(&value.text),
                        None => {
                            out.push_str("$(");
                            out.push_str(name);
                            out.push(')');
                        }
                    }
                    rest = &after[end + 1..];
                }
                None => {
                    out.push_str("$(");
                    rest = &after[1..];
                }
            },
            Some(other) => {
                out.push('$');
                out.push(other);
                rest = &after[other.len_utf8()..];
            }
        }
    }
    out.push_str(rest);
    out
}
