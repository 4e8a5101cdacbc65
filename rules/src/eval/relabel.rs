//! Labels made of labels.

use super::Element;
use crate::promql::whole;

/// `label_replace`: target, replacement, source, expression.
pub(super) fn replace(mut elements: Vec<Element>, texts: &[String; 4]) -> Vec<Element> {
    let [target, replacement, source, expression] = texts;
    // The parser has tried it.
    let Ok(expression) = whole(expression) else {
        return elements;
    };
    for element in &mut elements {
        let value = element.labels.get(source).unwrap_or_default();
        if let Some(found) = expression.captures(value) {
            let mut text = String::new();
            found.expand(replacement, &mut text);
            element.labels.set(target, &text);
        }
    }
    elements
}

/// `label_join`: target, separator, sources.
pub(super) fn join(mut elements: Vec<Element>, texts: &[String]) -> Vec<Element> {
    let [target, separator, sources @ ..] = texts else {
        return elements;
    };
    for element in &mut elements {
        let values: Vec<&str> = sources
            .iter()
            .map(|source| element.labels.get(source).unwrap_or_default())
            .collect();
        let text = values.join(separator);
        element.labels.set(target, &text);
    }
    elements
}
