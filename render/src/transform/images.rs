//! `images`: other names, tags and digests for container images.

use crate::{
    config::FieldSpec,
    error::{RenderError, Result},
    fieldspec::{self, Create},
    kustomization::Image,
    resource::Resources,
    yaml::Node,
};
use regex::Regex;

/// Changes one image wherever it is used.
pub(crate) fn set(resources: &mut Resources, image: &Image, specs: &[FieldSpec]) -> Result<()> {
    let matcher = Matcher::new(&image.name)?;
    for resource in &mut resources.0 {
        if resource.kind() == "CustomResourceDefinition" {
            continue;
        }
        update_containers(&mut resource.node, image, &matcher);
        for spec in specs {
            fieldspec::apply(
                &mut resource.node,
                spec,
                Create::Nothing,
                &mut |field| match field {
                    Node::Scalar(_) => {
                        update(field, image, &matcher);
                        Ok(())
                    }
                    other if other.is_null() => Ok(()),
                    other => Err(RenderError::configuration(format!(
                        "expected an image, found {}",
                        other.kind()
                    ))),
                },
            )
            .map_err(|error| resource.blame(error))?;
        }
    }
    Ok(())
}

/// Any list named `containers` or `initContainers`, however deep, in any kind.
fn update_containers(node: &mut Node, image: &Image, matcher: &Matcher) {
    match node {
        Node::Map(map) => {
            for (key, value) in &mut map.0 {
                update_containers(value, image, matcher);
                if key != "containers" && key != "initContainers" {
                    continue;
                }
                for container in value.as_seq_mut().into_iter().flatten() {
                    if let Some(field) = container.get_mut("image") {
                        update(field, image, matcher);
                    }
                }
            }
        }
        Node::Seq(items) => {
            for item in items {
                update_containers(item, image, matcher);
            }
        }
        Node::Scalar(_) => {}
    }
}

fn update(field: &mut Node, image: &Image, matcher: &Matcher) {
    let Node::Scalar(scalar) = field else {
        return;
    };
    if scalar.is_null() || !matcher.matches(&scalar.text) {
        return;
    }
    let (name, tag, digest) = split(&scalar.text);
    let name = if image.new_name.is_empty() {
        name
    } else {
        &image.new_name
    };
    let mut tag = tag.to_owned();
    let mut digest = digest;
    if !image.new_tag.is_empty() || !image.digest.is_empty() {
        tag.clone_from(&image.new_tag);
        digest = &image.digest;
    } else if !image.tag_suffix.is_empty() {
        tag.push_str(&image.tag_suffix);
        digest = "";
    }
    let mut text = name.to_owned();
    for (mark, part) in [(':', tag.as_str()), ('@', digest)] {
        if !part.is_empty() {
            text.push(mark);
            text.push_str(part);
        }
    }
    scalar.set_bare(&text);
}

/// Name, tag and digest; a port in the registry's name is no tag.
fn split(image: &str) -> (&str, &str, &str) {
    let domain = image.find('/').filter(|at| *at > 0).unwrap_or(0);
    let rest = &image[domain..];
    let tag = rest.find(':').map(|at| at + domain);
    let digest = rest.find('@').map(|at| at + domain);
    match (tag, digest) {
        (None, None) => (image, "", ""),
        (Some(tag), Some(digest)) if tag < digest => {
            (&image[..tag], &image[tag + 1..digest], &image[digest + 1..])
        }
        (_, Some(digest)) => (&image[..digest], "", &image[digest + 1..]),
        (Some(tag), None) => (&image[..tag], &image[tag + 1..], ""),
    }
}

/// The image's name is a regular expression, followed by an optional tag and digest.
enum Matcher {
    /// No more than dots of a regular expression in it: compared by hand.
    Simple(Vec<u8>),
    Regex(Regex),
}

impl Matcher {
    fn new(name: &str) -> Result<Self> {
        if name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"./_-:".contains(&b))
        {
            return Ok(Self::Simple(name.as_bytes().to_vec()));
        }
        Regex::new(&format!(
            "^{name}(:[a-zA-Z0-9_.{{}}-]*)?(@sha256:[a-zA-Z0-9_.{{}}-]*)?$"
        ))
        .map(Self::Regex)
        .map_err(|error| {
            RenderError::configuration(format!("{name:?} is no regular expression: {error}"))
                .field("images.name")
        })
    }

    fn matches(&self, image: &str) -> bool {
        match self {
            Self::Regex(regex) => regex.is_match(image),
            Self::Simple(name) => {
                let bytes = image.as_bytes();
                let same = |(pattern, byte): (&u8, &u8)| *pattern == b'.' || pattern == byte;
                bytes.len() >= name.len()
                    && image.is_char_boundary(name.len())
                    && name.iter().zip(bytes).all(same)
                    && is_tag_and_digest(&image[name.len()..])
            }
        }
    }
}

fn is_tag_and_digest(rest: &str) -> bool {
    let word = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.{}-".contains(&b))
    };
    let (tag, digest) = rest.split_once('@').unwrap_or((rest, ""));
    let tag_fits = tag.is_empty() || tag.strip_prefix(':').is_some_and(word);
    let digest_fits = !rest.contains('@') || digest.strip_prefix("sha256:").is_some_and(word);
    tag_fits && digest_fits
}
