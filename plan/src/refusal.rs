//! Why a generation cannot run: object, field, what is wrong, and what to do.

use model::{ObjectKey, Origin};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One reason not to run a generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The object at fault.
    pub object: ObjectKey,
    /// Where it was read, where that is known; overlays and patches may lie elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Path of the field, such as `spec.template.spec.containers[0].image`.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{origin}: ")?;
        }
        write!(f, "{}: ", self.object)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{}", self.problem)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

/// Collects refusals about one object while it is read.
#[derive(Debug)]
pub(crate) struct Complaints<'a> {
    object: &'a ObjectKey,
    list: &'a mut Vec<Refusal>,
}

impl<'a> Complaints<'a> {
    pub(crate) fn about(object: &'a ObjectKey, list: &'a mut Vec<Refusal>) -> Self {
        Self { object, list }
    }

    pub(crate) fn add(
        &mut self,
        field: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.list.push(Refusal {
            object: self.object.clone(),
            origin: None,
            field: field.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        });
    }
}
