//! Dotted field paths of replacements and vars: `spec.containers.[name=web].image`, `args.0`, `ports.*`.

use crate::{
    error::{Problem, RenderError, Result},
    yaml::{Map, Node, Scalar, Style},
};
use regex::Regex;

/// Splits at dots, but not at `\.` nor inside brackets.
pub(crate) fn split(path: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut depth = 0usize;
    let mut chars = path.chars().peekable();
    while let Some(c) = chars.next() {
        let part = parts.last_mut().expect("there is always a part");
        match c {
            '\\' if chars.peek() == Some(&'.') => {
                chars.next();
                part.push('.');
            }
            '.' if depth == 0 => parts.push(String::new()),
            '[' => {
                depth += 1;
                part.push(c);
            }
            ']' => {
                depth = depth.saturating_sub(1);
                part.push(c);
            }
            other => part.push(other),
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// `key=value` of `[key=value]`.
fn element_of(part: &str) -> Option<(&str, &str)> {
    part.strip_prefix('[')?.strip_suffix(']')?.split_once('=')
}

/// The node at a path, the first where several match.
pub(crate) fn lookup<'a>(node: &'a Node, parts: &[String]) -> Option<&'a Node> {
    parts.iter().try_fold(node, |node, part| match node {
        Node::Map(map) => map.get(part),
        Node::Seq(items) => match (part.parse::<usize>(), element_of(part)) {
            (Ok(at), _) => items.get(at),
            _ if part == "-" => items.last(),
            (_, Some(("", value))) => items.iter().find(|item| item.raw() == value),
            (_, Some((key, value))) => items
                .iter()
                .find(|item| item.get(key).is_some_and(|field| field.raw() == value)),
            _ => None,
        },
        Node::Scalar(_) => None,
    })
}

/// What the end of a path becomes where it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Made {
    Scalar,
    Seq,
    Map,
}

impl Made {
    pub fn like(node: &Node) -> Self {
        match node {
            Node::Scalar(_) => Self::Scalar,
            Node::Seq(_) => Self::Seq,
            Node::Map(_) => Self::Map,
        }
    }

    fn node(self) -> Node {
        match self {
            Self::Scalar => Node::Scalar(Scalar::new("", Style::Bare)),
            Self::Seq => Node::Seq(Vec::new()),
            Self::Map => Node::empty_map(),
        }
    }
}

fn made_for(next: Option<&String>, end: Made) -> Node {
    match next {
        None => end.node(),
        Some(next) if next.starts_with('[') || next == "*" || next.parse::<usize>().is_ok() => {
            Made::Seq.node()
        }
        Some(_) => Made::Map.node(),
    }
}

/// Calls `set` on every node at a path; says whether there was any.
pub(crate) fn each(
    node: &mut Node,
    parts: &[String],
    create: Option<Made>,
    set: &mut dyn FnMut(&mut Node) -> Result<()>,
) -> Result<bool> {
    let Some((part, rest)) = parts.split_first() else {
        set(node)?;
        return Ok(true);
    };
    if let Ok(at) = part.parse::<usize>()
        && let Node::Seq(items) = node
    {
        if let (Some(end), true) = (create, at == items.len()) {
            items.push(made_for(rest.first(), end));
        }
        let length = items.len();
        let item = items.get_mut(at).ok_or_else(|| {
            RenderError::new(
                Problem::Configuration,
                format!("there are {length} elements, none at index {at}"),
            )
        })?;
        return each(item, rest, create, set);
    }
    if part == "*"
        && let Node::Seq(items) = node
    {
        let mut found = false;
        for item in items {
            found |= each(item, rest, create, set)?;
        }
        return Ok(found);
    }
    if let Some((key, value)) = element_of(part) {
        return elements(node, key, value, rest, create, set);
    }
    match node {
        Node::Map(map) => {
            if let (None, Some(end)) = (map.get(part), create) {
                map.set(part, made_for(rest.first(), end));
            }
            match map.get_mut(part) {
                Some(field) => each(field, rest, create, set),
                None => Ok(false),
            }
        }
        Node::Scalar(scalar) if scalar.is_null() => Ok(false),
        other => Err(RenderError::new(
            Problem::Configuration,
            format!("{part:?} is looked for in {}", other.kind()),
        )),
    }
}

fn elements(
    node: &mut Node,
    key: &str,
    value: &str,
    rest: &[String],
    create: Option<Made>,
    set: &mut dyn FnMut(&mut Node) -> Result<()>,
) -> Result<bool> {
    let Node::Seq(items) = node else {
        return if node.is_null() {
            Ok(false)
        } else {
            Err(RenderError::new(
                Problem::Configuration,
                format!("[{key}={value}] is looked for in {}", node.kind()),
            ))
        };
    };
    let plain = value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let regex = if plain {
        None
    } else {
        Some(Regex::new(value).map_err(|error| {
            RenderError::configuration(format!("{value:?} is no regular expression: {error}"))
        })?)
    };
    let matches = |text: &str| match &regex {
        Some(regex) => regex.is_match(text),
        None => text.contains(value),
    };
    let mut found = false;
    for item in items.iter_mut() {
        let is_match = if key.is_empty() {
            item.as_scalar().is_some_and(|scalar| matches(&scalar.text))
        } else {
            item.get(key).is_some_and(|field| matches(field.raw()))
        };
        if is_match {
            found |= each(item, rest, create, set)?;
        }
    }
    if let (false, Some(_)) = (found, create) {
        let mut item = if key.is_empty() {
            Node::bare(value)
        } else {
            Node::Map(Map(vec![(key.to_owned(), Node::bare(value))]))
        };
        found = each(&mut item, rest, create, set)?;
        items.push(item);
    }
    Ok(found)
}
