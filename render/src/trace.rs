//! Rendering that goes on behind a fault, and tells where each object comes from.

use crate::{
    BuildOptions, Given, LoadRestrictor, Remotes, RenderError, flux,
    resource::{Resource, Resources, Source},
    yaml::Node,
};
use model::{Object, Origin, Tree};
use std::rc::Rc;

/// Where an object comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The file that it was read from, or the kustomization that generates it.
    pub file: Option<String>,
    /// Line at which it starts there, from 1.
    pub line: usize,
    /// Files of the patches that changed it, in order.
    pub patches: Vec<String>,
}

/// A rendered object with its origin.
#[derive(Debug, Clone)]
pub struct Traced {
    /// The object.
    pub object: Object,
    /// Where it comes from.
    pub trace: Trace,
}

/// What a folder renders to, and everything that is wrong with it.
#[derive(Debug, Clone, Default)]
pub struct Inspection {
    /// The objects, Flux's own among them.
    pub objects: Vec<Traced>,
    /// Why some objects are not there.
    pub problems: Vec<RenderError>,
    /// What people should know.
    pub warnings: Vec<String>,
    /// The folders that were built, the first one first.
    pub folders: Vec<String>,
}

/// As [`crate::render`], for people: a fault in one `Kustomization` is told and does not hide those of the others.
pub fn inspect(tree: &Tree, path: &str, given: &Given<'_>) -> Inspection {
    flux::inspect(tree, path, given)
}

/// As [`crate::build`] without restriction of loading, with origins.
pub fn inspect_folder(tree: &Tree, path: &str, remotes: &dyn Remotes) -> Inspection {
    let options = BuildOptions {
        load_restrictor: LoadRestrictor::None,
        remotes,
    };
    let mut inspection = Inspection {
        folders: vec![path.to_owned()],
        ..Inspection::default()
    };
    match crate::built(tree, path, &options) {
        Err(problem) => inspection.problems.push(problem),
        Ok((made, warnings)) => {
            inspection.warnings = warnings;
            for made in &made {
                match made.object() {
                    Ok(object) => inspection.objects.push(made.traced(object)),
                    Err(problem) => inspection.problems.push(problem),
                }
            }
        }
    }
    inspection
}

/// A built object before Flux's finish, with its origin.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub node: Node,
    source: Option<Source>,
    patches: Vec<Rc<str>>,
}

impl From<Resource> for Made {
    fn from(resource: Resource) -> Self {
        Self {
            node: resource.node,
            source: resource.source,
            patches: resource.patches,
        }
    }
}

impl Made {
    /// Names the object and its file.
    pub fn blame(&self, error: RenderError) -> RenderError {
        let field = |path: [&str; 2]| self.node.at(path).map_or("", Node::value);
        let kind = self.node.get("kind").map_or("", Node::value);
        let error = error.on(format_args!("{kind}/{}", field(["metadata", "name"])));
        self.place(error)
    }

    fn place(&self, error: RenderError) -> RenderError {
        match &self.source {
            Some(source) => error.in_file(&*source.file).at_line(source.line),
            None => error,
        }
    }

    /// The object; an error names its file.
    pub fn object(&self) -> Result<Object, RenderError> {
        let place = |error| self.place(error);
        let value = crate::yaml::to_json(&self.node).map_err(|number| place(crate::bad_number(number)))?;
        Object::new(value)
            .map_err(|error| place(RenderError::new(crate::Problem::Unreadable, error.to_string())))
    }

    /// Its files are those of another source.
    pub fn lies_in(&mut self, source: &str) {
        if let Some(known) = &mut self.source {
            known.file = format!("{source}:{}", known.file).into();
        }
        for patch in &mut self.patches {
            *patch = format!("{source}:{patch}").into();
        }
    }

    /// Where it was read, or which file makes it.
    pub fn origin(&self) -> Option<Origin> {
        self.source.as_ref().map(|source| Origin {
            file: source.file.to_string(),
            line: (source.line > 0).then_some(source.line),
        })
    }

    pub fn traced(&self, object: Object) -> Traced {
        Traced {
            object,
            trace: Trace {
                file: self.source.as_ref().map(|source| source.file.to_string()),
                line: self.source.as_ref().map_or(0, |source| source.line),
                patches: self.patches.iter().map(ToString::to_string).collect(),
            },
        }
    }
}

/// Remembers the file of a patch with all objects that it has just changed.
pub(crate) fn note_patch(resources: &mut Resources, file: &Rc<str>) {
    for resource in &mut resources.0 {
        if std::mem::take(&mut resource.patched) && resource.patches.last() != Some(file) {
            resource.patches.push(file.clone());
        }
    }
}
