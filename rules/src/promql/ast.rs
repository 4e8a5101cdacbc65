//! What an expression is.

use super::functions::Function;
use super::matcher::{Matcher, Relation};
use crate::labels::{Labels, NAME};
use std::fmt;

/// What an expression gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A number.
    Scalar,
    /// Series with one value each.
    Vector,
    /// Series with the values of a time span.
    Range,
    /// A text.
    Text,
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scalar => "a scalar",
            Self::Vector => "an instant vector",
            Self::Range => "a range vector",
            Self::Text => "a text",
        })
    }
}

/// A node with its place in the text.
#[derive(Debug, Clone)]
pub struct Expr {
    /// In bytes from the text's start.
    pub at: usize,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
    /// The newest value of series.
    Selector(Selector),
    /// The values of series over so many milliseconds.
    Range(Selector, i64),
    /// A function with its arguments.
    Call(Call),
    /// Groups of series made to one each.
    Aggregate(Box<Aggregate>),
    /// An operator between two.
    Binary(Box<Binary>),
    /// `-`
    Negative(Box<Expr>),
}

/// A function with its arguments.
#[derive(Debug, Clone)]
pub struct Call {
    pub(crate) function: Function,
    pub(crate) name: &'static str,
    pub(crate) arguments: Vec<Expr>,
}

/// Which series.
#[derive(Debug, Clone)]
pub struct Selector {
    /// All of them hold.
    pub matchers: Vec<Matcher>,
    /// Milliseconds back in time.
    pub offset: i64,
}

impl Selector {
    /// The metric's name, where it must be this one.
    pub fn metric(&self) -> Option<&str> {
        let named = |matcher: &&Matcher| matcher.name == NAME && matches!(matcher.relation, Relation::Equal);
        self.matchers
            .iter()
            .find(named)
            .map(|matcher| matcher.value.as_str())
    }

    /// Whether a series is meant.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.matchers.iter().all(|matcher| matcher.matches(labels))
    }
}

/// As it would be written, without offset; equal for those that mean the same series in the same words.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metric = self.metric();
        f.write_str(metric.unwrap_or_default())?;
        let others: Vec<String> = self
            .matchers
            .iter()
            .filter(|matcher| matcher.name != NAME || metric.is_none())
            .map(ToString::to_string)
            .collect();
        if others.is_empty() {
            return Ok(());
        }
        write!(f, "{{{}}}", others.join(","))
    }
}

/// How a group is made to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in PromQL")]
pub enum Aggregation {
    Sum,
    Min,
    Max,
    Avg,
    Count,
    Group,
    Stddev,
    Stdvar,
    Topk,
    Bottomk,
    Quantile,
    CountValues,
}

impl Aggregation {
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "sum" => Self::Sum,
            "min" => Self::Min,
            "max" => Self::Max,
            "avg" => Self::Avg,
            "count" => Self::Count,
            "group" => Self::Group,
            "stddev" => Self::Stddev,
            "stdvar" => Self::Stdvar,
            "topk" => Self::Topk,
            "bottomk" => Self::Bottomk,
            "quantile" => Self::Quantile,
            "count_values" => Self::CountValues,
            _ => return None,
        })
    }

    /// What it takes beside the vector.
    pub(super) fn parameter(self) -> Option<Type> {
        match self {
            Self::Topk | Self::Bottomk | Self::Quantile => Some(Type::Scalar),
            Self::CountValues => Some(Type::Text),
            _ => None,
        }
    }
}

/// An aggregation.
#[derive(Debug, Clone)]
pub struct Aggregate {
    /// How.
    pub aggregation: Aggregation,
    /// Of what.
    pub of: Expr,
    /// `topk(5, …)`.
    pub parameter: Option<Expr>,
    /// Labels that make the groups.
    pub labels: Vec<String>,
    /// All labels but those.
    pub without: bool,
}

/// Between two expressions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "named as in mathematics")]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Power,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterOrEqual,
    LessOrEqual,
    And,
    Or,
    Unless,
}

impl Operator {
    /// The binding strength: higher binds first.
    pub(super) fn strength(self) -> u8 {
        match self {
            Self::Or => 1,
            Self::And | Self::Unless => 2,
            Self::Add | Self::Subtract => 4,
            Self::Multiply | Self::Divide | Self::Modulo | Self::Atan2 => 5,
            Self::Power => 6,
            _ => 3,
        }
    }

    /// Whether it compares.
    pub fn compares(self) -> bool {
        self.strength() == 3
    }

    /// Whether it joins sets of series.
    pub fn joins_sets(self) -> bool {
        self.strength() <= 2
    }
}

/// Which side has several series for one of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Neither.
    Neither,
    /// `group_left`
    Left,
    /// `group_right`
    Right,
}

/// Which series belong together.
#[derive(Debug, Clone)]
pub struct Matching {
    /// `on`; else `ignoring`.
    pub on: bool,
    /// These labels.
    pub labels: Vec<String>,
    /// The side that has several.
    pub many: Side,
    /// Labels that are taken over from the other side.
    pub include: Vec<String>,
}

/// An operator between two.
#[derive(Debug, Clone)]
pub struct Binary {
    /// Which.
    pub operator: Operator,
    /// 0 or 1 instead of leaving out.
    pub bool: bool,
    /// Between two vectors.
    pub matching: Matching,
    /// Left.
    pub left: Expr,
    /// Right.
    pub right: Expr,
}

impl Expr {
    /// What it gives.
    pub fn gives(&self) -> Type {
        match &self.kind {
            Kind::Number(_) => Type::Scalar,
            Kind::Text(_) => Type::Text,
            Kind::Selector(_) | Kind::Aggregate(_) => Type::Vector,
            Kind::Range(..) => Type::Range,
            Kind::Call(call) => call.function.gives(),
            Kind::Negative(inner) => inner.gives(),
            Kind::Binary(binary) => match (binary.left.gives(), binary.right.gives()) {
                (Type::Scalar, Type::Scalar) => Type::Scalar,
                _ => Type::Vector,
            },
        }
    }

    /// Calls `visit` for each selector with the milliseconds before the evaluation that it reaches back over.
    pub fn selectors(&self, lookback: i64, visit: &mut dyn FnMut(&Selector, i64)) {
        match &self.kind {
            Kind::Number(_) | Kind::Text(_) => {}
            Kind::Selector(selector) => visit(selector, (selector.offset + lookback).max(0)),
            Kind::Range(selector, range) => visit(selector, (selector.offset + range).max(0)),
            Kind::Call(call) => {
                for argument in &call.arguments {
                    argument.selectors(lookback, visit);
                }
            }
            Kind::Aggregate(aggregate) => {
                aggregate.of.selectors(lookback, visit);
                if let Some(parameter) = &aggregate.parameter {
                    parameter.selectors(lookback, visit);
                }
            }
            Kind::Binary(binary) => {
                binary.left.selectors(lookback, visit);
                binary.right.selectors(lookback, visit);
            }
            Kind::Negative(inner) => inner.selectors(lookback, visit),
        }
    }
}
