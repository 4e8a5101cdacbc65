//! The language: text in, expressions with checked types out.

mod ast;
mod functions;
mod lex;
mod matcher;
mod parse;
#[cfg(test)]
mod tests;

pub use ast::{Aggregate, Aggregation, Binary, Call, Expr, Kind, Matching, Operator, Selector, Side, Type};
pub(crate) use functions::Function;
pub use lex::duration;
pub(crate) use matcher::whole;
pub use matcher::{Matcher, Relation};
pub(crate) use parse::is_label;
pub use parse::parse;

use thiserror::Error;

/// Why a text is no expression that is evaluated here. `at` is a place in bytes from the text's start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PromqlError {
    /// It is no PromQL.
    #[error("{why}")]
    Syntax {
        /// Where.
        at: usize,
        /// What is wrong.
        why: String,
    },
    /// It is PromQL, but beyond what a device evaluates.
    #[error("{what} is not evaluated on devices; {instead}")]
    Unsupported {
        /// Where.
        at: usize,
        /// What, by its name.
        what: String,
        /// What to write.
        instead: &'static str,
    },
}

impl PromqlError {
    fn syntax(at: usize, why: impl Into<String>) -> Self {
        Self::Syntax { at, why: why.into() }
    }

    /// Where, in bytes.
    pub fn at(&self) -> usize {
        match self {
            Self::Syntax { at, .. } | Self::Unsupported { at, .. } => *at,
        }
    }

    /// Line and column in the text, from 1, and what is wrong.
    pub fn shown(&self, text: &str) -> String {
        let before = text.get(..self.at()).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        format!("{line}:{column}: {self}")
    }
}
