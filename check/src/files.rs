//! Finding the place of a field: in the object's file, or in the patch that set it.

use crate::{
    Place, Rule,
    finding::Related,
    marked::{self, Marked, Shape, Spot},
    path::{Path, Step},
    scopes::{FILES, is_yaml},
};
use model::Tree;
use render::Trace;
use serde_json::Value;
use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

/// What a comment must start with to silence rules.
const IGNORE: &str = "leeward:ignore";

/// The files of a repository, parsed when first asked for.
pub(crate) struct Files<'a> {
    tree: &'a Tree,
    known: RefCell<HashMap<String, Rc<File>>>,
}

pub(crate) struct File {
    text: String,
    documents: Vec<Rc<Marked>>,
    /// Silenced rules by line: that of the comment, or the next one for a comment that stands alone.
    silenced: HashMap<usize, BTreeSet<Rule>>,
    /// Comments that name no rule, with what they name.
    pub misspelt: Vec<(Spot, String)>,
}

/// Where a finding is, and the lines of everything that holds it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Located {
    pub place: Place,
    pub related: Vec<Related>,
    /// File and line of the field, what it is in, and so on up to the object.
    pub around: Vec<(String, usize)>,
}

/// A way through marked YAML.
struct Walked {
    spot: Spot,
    /// Lines of the keys and items that were passed.
    lines: Vec<usize>,
    /// Whether the whole path is there.
    whole: bool,
    /// The text of the value, where it is a scalar.
    text: Option<String>,
}

impl<'a> Files<'a> {
    pub fn new(tree: &'a Tree) -> Self {
        Self {
            tree,
            known: RefCell::default(),
        }
    }

    pub fn get(&self, path: &str) -> Rc<File> {
        if let Some(file) = self.known.borrow().get(path) {
            return file.clone();
        }
        let bytes = self.tree.read(path).map(|data| data.to_vec()).unwrap_or_default();
        let text = String::from_utf8(bytes).unwrap_or_default();
        let file = Rc::new(File::new(text));
        self.known.borrow_mut().insert(path.to_owned(), file.clone());
        file
    }

    /// A line, for an excerpt.
    pub fn line(&self, path: &str, line: usize) -> Option<String> {
        const MAX_LINE: usize = 200;
        let file = self.get(path);
        let text = file.text.lines().nth(line.checked_sub(1)?)?;
        (text.len() <= MAX_LINE).then(|| text.to_owned())
    }

    /// The file that stands for a folder: its kustomization, or the first of its manifests.
    pub fn kustomization(&self, folder: &str) -> Place {
        let in_folder = |name: &str| {
            if folder.is_empty() {
                name.to_owned()
            } else {
                format!("{folder}/{name}")
            }
        };
        let named = FILES
            .iter()
            .map(|name| in_folder(name))
            .find(|path| self.tree.read(path).is_some());
        let first = || {
            self.tree
                .below(folder)
                .map(|(path, _)| path.to_owned())
                .find(|path| is_yaml(path))
        };
        Place::file(named.or_else(first).unwrap_or_else(|| in_folder(FILES[0])))
    }

    /// The first place of a text in a file.
    pub fn find(&self, path: &str, text: &str) -> Option<Place> {
        let file = self.get(path);
        file.text.lines().enumerate().find_map(|(line, content)| {
            let at = content.find(text)?;
            Some(Place {
                file: path.to_owned(),
                line: line + 1,
                column: content[..at].chars().count() + 1,
                width: text.chars().count(),
            })
        })
    }

    /// The first place of a text in the manifests of some folders.
    pub fn find_below(&self, folders: &[String], text: &str) -> Option<Place> {
        folders
            .iter()
            .flat_map(|folder| self.tree.below(folder))
            .map(|(path, _)| path)
            .filter(|path| is_yaml(path))
            .find_map(|path| self.find(path, text))
    }

    /// Whether a comment silences the rule here.
    pub fn silences(&self, rule: Rule, around: &[(String, usize)]) -> bool {
        around.iter().any(|(file, line)| {
            let file = self.get(file);
            file.silenced.get(line).is_some_and(|rules| rules.contains(&rule))
        })
    }

    /// Where a field of an object was written; `at_key` points at its name, else at its value.
    pub fn locate(&self, trace: &Trace, object: &Value, path: &Path, at_key: bool) -> Located {
        let Some(file) = &trace.file else {
            return self
                .locate_in_patches(trace, object, path, at_key)
                .unwrap_or_default();
        };
        let parsed = self.get(file);
        let Some(root) = parsed.object(trace.line, object) else {
            let place = Place::line(file.as_str(), trace.line);
            return Located {
                around: vec![(file.clone(), place.line)],
                place,
                related: Vec::new(),
            };
        };
        let walked = walk(&root, object, path, at_key);
        let mut located = Located {
            place: place_of(file, walked.spot),
            related: Vec::new(),
            around: walked.lines.iter().map(|line| (file.clone(), *line)).collect(),
        };
        let differs = match (path.of(object).and_then(plain_text), &walked.text) {
            (Some(rendered), Some(written)) => rendered != *written,
            _ => false,
        };
        if !trace.patches.is_empty() && (!walked.whole || differs) {
            if let Some(mut patched) = self.locate_in_patches(trace, object, path, at_key) {
                patched.related.push(Related {
                    place: place_of(file, root.start()),
                    message: "the object that is patched".to_owned(),
                });
                patched.around.extend(located.around);
                return patched;
            }
            let patches = trace.patches.iter().map(|patch| Related {
                place: Place::file(patch.as_str()),
                message: "a patch changes the object".to_owned(),
            });
            located.related.extend(patches);
        }
        located
    }

    /// The last patch that has the field's name with its value, or the field's name at all.
    fn locate_in_patches(&self, trace: &Trace, object: &Value, path: &Path, at_key: bool) -> Option<Located> {
        let key = path.0.iter().rev().find_map(|step| match step {
            Step::Key(key) => Some(key.as_str()),
            Step::Index(_) => None,
        })?;
        let value = path.of(object).and_then(plain_text);
        trace.patches.iter().rev().find_map(|patch| {
            let file = self.get(patch);
            let spot = file
                .documents
                .iter()
                .find_map(|document| in_patch(document, key, value.as_deref(), at_key))?;
            let spot = file.column_of(
                spot,
                if at_key {
                    key
                } else {
                    value.as_deref().unwrap_or(key)
                },
            );
            Some(Located {
                place: place_of(patch, spot),
                related: Vec::new(),
                around: vec![(patch.clone(), spot.line)],
            })
        })
    }
}

fn place_of(file: &str, spot: Spot) -> Place {
    Place {
        file: file.to_owned(),
        line: spot.line.max(1),
        column: spot.column.max(1),
        width: spot.width,
    }
}

/// The value as it would be written; nothing for lists and mappings.
fn plain_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

impl File {
    fn new(text: String) -> Self {
        let documents = marked::documents(&text);
        let mut silenced: HashMap<usize, BTreeSet<Rule>> = HashMap::new();
        let mut misspelt = Vec::new();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some((before, comment)) = line.split_once('#') else {
                continue;
            };
            let Some(said) = comment.trim_start().strip_prefix(IGNORE) else {
                continue;
            };
            let alone = before.trim().is_empty();
            // A comment that stands alone is for the next line that is neither empty nor a comment.
            let target = if alone {
                let code = |line: &&&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
                at + 1 + lines[at + 1..].iter().take_while(|line| !code(line)).count()
            } else {
                at
            };
            let words = said
                .split([',', ' '])
                .map(str::trim)
                .filter(|word| !word.is_empty());
            let mut any = false;
            for word in words {
                match word.parse() {
                    Ok(rule) => {
                        any = true;
                        silenced.entry(target + 1).or_default().insert(rule);
                    }
                    // What follows is the reason.
                    Err(_) if any => break,
                    Err(_) => {
                        let spot = Spot {
                            line: at + 1,
                            column: before.chars().count() + 1,
                            width: line.chars().count() - before.chars().count(),
                        };
                        misspelt.push((spot, word.to_owned()));
                        break;
                    }
                }
            }
        }
        Self {
            text,
            documents,
            silenced,
            misspelt,
        }
    }

    /// Finds the column of a word on a line, where only the line is known.
    fn column_of(&self, spot: Spot, word: &str) -> Spot {
        if spot.column > 0 {
            return spot;
        }
        let line = self
            .text
            .lines()
            .nth(spot.line.saturating_sub(1))
            .unwrap_or_default();
        match line.rfind(word) {
            Some(at) => Spot {
                column: line[..at].chars().count() + 1,
                width: word.chars().count(),
                ..spot
            },
            None => Spot { width: 0, ..spot },
        }
    }

    /// The object that starts at a line; an item of it where it is a list.
    fn object(&self, line: usize, object: &Value) -> Option<Rc<Marked>> {
        let document = self
            .documents
            .iter()
            .rev()
            .find(|document| document.start().line <= line.max(1))
            .or_else(|| self.documents.first())?;
        let is_object = document.get("kind").is_some();
        let Some((_, items)) = document.get("items").filter(|_| is_object) else {
            return is_object.then(|| document.clone());
        };
        let Shape::Seq(items) = &items.value else {
            return Some(document.clone());
        };
        let text = |marked: &Marked, key: &str| {
            marked
                .get(key)
                .and_then(|(_, value)| value.text().map(str::to_owned))
        };
        let kind = object.get("kind").and_then(Value::as_str);
        let name = object
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let item = items.iter().find(|item| {
            let named = item
                .get("metadata")
                .and_then(|(_, metadata)| text(metadata, "name"));
            text(item, "kind").as_deref() == kind && named.is_some_and(|written| name.contains(&written))
        });
        Some(item.unwrap_or(document).clone())
    }
}

/// Follows a path in the source beside the rendered value, which knows list items by name.
fn walk(root: &Rc<Marked>, object: &Value, path: &Path, at_key: bool) -> Walked {
    let mut here = root.clone();
    let mut value = Some(object);
    let mut walked = Walked {
        spot: root.start(),
        lines: vec![root.start().line],
        whole: true,
        text: None,
    };
    if path.0.is_empty() {
        return walked;
    }
    for (at, step) in path.0.iter().enumerate() {
        let last = at + 1 == path.0.len();
        let next = match step {
            Step::Key(key) => {
                value = value.and_then(|value| value.get(key.as_str()));
                here.get(key).map(|(spot, next)| (spot, next.clone()))
            }
            Step::Index(index) => {
                let items = value.and_then(Value::as_array);
                value = items.and_then(|items| items.get(*index));
                item(&here, items, value, *index).map(|next| (next.start(), next))
            }
        };
        let Some((spot, next)) = next else {
            walked.whole = false;
            return walked;
        };
        walked.lines.push(spot.line);
        let points_at_value = last && !at_key && matches!(next.value, Shape::Scalar { block: false, .. });
        walked.spot = if points_at_value { next.spot } else { spot };
        if points_at_value {
            walked.lines.push(next.spot.line);
        }
        here = next;
    }
    walked.text = here.text().map(str::to_owned);
    walked
}

/// The item in the source that became an item of the rendered list.
fn item(
    list: &Marked,
    rendered: Option<&Vec<Value>>,
    value: Option<&Value>,
    index: usize,
) -> Option<Rc<Marked>> {
    let Shape::Seq(items) = &list.value else {
        return None;
    };
    let same = |item: &Rc<Marked>, key: &str, text: &str| {
        item.get(key).and_then(|(_, value)| value.text()) == Some(text)
    };
    // Two of one name are told apart by their place.
    let same_length = rendered.is_none_or(|rendered| rendered.len() == items.len());
    if same_length {
        return items.get(index).cloned();
    }
    for key in ["name", "mountPath", "containerPort", "port", "key"] {
        let text = value.and_then(|value| value.get(key)).and_then(plain_text);
        if let Some(text) = text {
            return items.iter().find(|item| same(item, key, &text)).cloned();
        }
    }
    let text = value.and_then(plain_text);
    match text {
        Some(text) => items.iter().find(|item| item.text() == Some(&text)).cloned(),
        None => items.get(index).cloned(),
    }
}

/// A field of this name, with this value where there is one, anywhere in a patch: of a strategic merge, of a JSON
/// patch (`path: /spec/NAME`, `value:`), or of one that is written as a text in a kustomization.
fn in_patch(node: &Marked, key: &str, value: Option<&str>, at_key: bool) -> Option<Spot> {
    let fits = |found: &Marked| match (value, found.text()) {
        (Some(value), Some(text)) => value == text,
        (None, None) => true,
        _ => false,
    };
    match &node.value {
        Shape::Seq(items) => items.iter().find_map(|item| in_patch(item, key, value, at_key)),
        Shape::Scalar { text, block: true } => {
            let inner = marked::documents(text);
            let spot = inner
                .iter()
                .find_map(|document| in_patch(document, key, value, at_key))?;
            Some(Spot {
                // The text's first line is where the scalar starts; how far it is indented shows in the file only.
                line: node.spot.line + spot.line - 1,
                column: 0,
                width: spot.width,
            })
        }
        Shape::Scalar { .. } => None,
        Shape::Map(entries) => {
            if let Some((_, pointer)) = node.get("path") {
                let names = pointer.text().and_then(|text| text.rsplit('/').next()) == Some(key);
                if names {
                    let spot = node.get("value").map(|(_, value)| value.start());
                    return Some(if at_key {
                        pointer.spot
                    } else {
                        spot.unwrap_or(pointer.spot)
                    });
                }
            }
            entries.iter().find_map(|(name, spot, inner)| {
                if name == key && fits(inner) {
                    return Some(if at_key || inner.text().is_none() {
                        *spot
                    } else {
                        inner.spot
                    });
                }
                in_patch(inner, key, value, at_key)
            })
        }
    }
}
