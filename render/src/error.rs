//! What went wrong, where, and what to do about it.

use std::fmt;

/// Why a folder could not be rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderError(Box<Details>);

/// Everything known about a [`RenderError`]; each part may be unknown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// What kind of failure it is.
    pub problem: Problem,
    /// One sentence without the place.
    pub message: String,
    /// The file, from the tree's root.
    pub file: Option<String>,
    /// Line in the file, from 1.
    pub line: Option<usize>,
    /// The object, as `Kind.group/namespace/name`.
    pub object: Option<String>,
    /// The field, as a path from the root of the object or file.
    pub field: Option<String>,
    /// What the user can do.
    pub remedy: Option<String>,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is no YAML, or no Kubernetes object.
    #[error("not readable")]
    Unreadable,
    /// A file or folder that is named is not there, or may not be read.
    #[error("not found")]
    NotFound,
    /// A file of kustomize's or Flux's own says something that it may not say.
    #[error("wrong configuration")]
    Configuration,
    /// Two objects would have one identity, or one reference two answers.
    #[error("conflict")]
    Conflict,
    /// A patch does not fit what it is for.
    #[error("patch does not apply")]
    Patch,
    /// A variable has no value.
    #[error("undefined variable")]
    Undefined,
    /// Something remote cannot be had now; another try may succeed.
    #[error("not reachable")]
    Unreachable,
    /// kustomize or Flux can do it, this renderer does not.
    #[error("not supported")]
    Unsupported,
    /// A file is encrypted, and cannot be decrypted with the keys at hand or is no longer what was encrypted.
    #[error("cannot be decrypted")]
    Sealed,
    /// A bound on size, depth or number was passed.
    #[error("too large")]
    TooLarge,
}

impl RenderError {
    pub(crate) fn new(problem: Problem, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            problem,
            message: message.into(),
            file: None,
            line: None,
            object: None,
            field: None,
            remedy: None,
        }))
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Self::new(Problem::Configuration, message)
    }

    /// For [`crate::Remotes`]: an address gives nothing.
    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Problem::Unreachable, message)
    }

    /// For [`crate::Remotes`]: a source asks for what is not done here.
    pub fn unsupported(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Problem::Unsupported, message).field(field)
    }

    /// For [`crate::Files`]: a file is there and does not read.
    pub fn cannot_read(message: impl Into<String>) -> Self {
        Self::new(Problem::Unreadable, message)
    }

    /// Everything known about the failure.
    pub fn details(&self) -> &Details {
        &self.0
    }

    /// Names the file, unless a more precise place is known already.
    pub(crate) fn in_file(mut self, file: impl Into<String>) -> Self {
        self.0.file.get_or_insert_with(|| file.into());
        self
    }

    /// A file that was named is one of another source.
    pub(crate) fn in_source(mut self, source: &str) -> Self {
        if let Some(file) = &mut self.0.file {
            *file = format!("{source}:{file}");
        }
        self
    }

    pub(crate) fn at_line(mut self, line: usize) -> Self {
        if line > 0 {
            self.0.line.get_or_insert(line);
        }
        self
    }

    pub(crate) fn on(mut self, object: impl fmt::Display) -> Self {
        self.0.object.get_or_insert_with(|| object.to_string());
        self
    }

    pub(crate) fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field.get_or_insert_with(|| field.into());
        self
    }

    /// Adds why the other meaning of an address does not hold either.
    pub(crate) fn also(mut self, other: &Self) -> Self {
        self.0.message = format!(
            "{}; nor is it a repository's folder: {}",
            self.0.message, other.0.message
        );
        self
    }

    /// Puts an outer field's name in front of the inner one's.
    pub(crate) fn under(mut self, outer: &str) -> Self {
        self.0.field = Some(match self.0.field.take() {
            Some(inner) => format!("{outer}.{inner}"),
            None => outer.to_owned(),
        });
        self
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy.get_or_insert_with(|| remedy.into());
        self
    }
}

impl fmt::Display for RenderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &self.0;
        if let Some(file) = &details.file {
            write!(f, "{file}")?;
            if let Some(line) = details.line {
                write!(f, ":{line}")?;
            }
            write!(f, ": ")?;
        }
        if let Some(object) = &details.object {
            write!(f, "{object}: ")?;
        }
        if let Some(field) = &details.field {
            write!(f, "{field}: ")?;
        }
        write!(f, "{}", details.message)?;
        if let Some(remedy) = &details.remedy {
            write!(f, " ({remedy})")?;
        }
        Ok(())
    }
}

impl std::error::Error for RenderError {}

pub(crate) type Result<T> = std::result::Result<T, RenderError>;
