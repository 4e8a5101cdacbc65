//! CEL expressions over objects, as Kubernetes and Flux evaluate them.
//!
//! An expression is compiled once and evaluated over JSON values. Text, depth, work and memory are bounded, since
//! expressions come from a repository: every value that a comprehension walks is charged to a budget by its size,
//! so that loops in loops and values that double end with an error.
//!
//! Known beside the language itself (with optional types): the string, set and base64 libraries of cel-go, and
//! Kubernetes' lists (`sum`, `min`, `max`, `isSorted`, `indexOf`, `lastIndexOf`), `find`, `findAll`, `quantity`.
//! Not known: `timestamp` and `duration` (they would bring the table of time zones onto the device), `url`, `ip`.

mod functions;

use cel::{
    Context, Env, ExecutionError, FunctionContext, Program, Value as Cel,
    common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, SourceInfo},
    objects::Key,
};
use serde_json::Value;
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Longest expression, in bytes.
pub const MAX_TEXT: usize = 8 << 10;
/// Deepest nesting of an expression: it is evaluated by recursion, on a worker's stack.
pub const MAX_DEPTH: usize = 48;
/// What one evaluation may walk: texts in bytes, and every other value as [`NODE`] bytes.
pub const BUDGET: usize = 4 << 20;
/// Address space, not memory: only what is used is taken.
const PARSER_STACK: usize = 256 << 20;
/// What a number, a list or an entry is charged as.
const NODE: usize = 16;
/// Longest text or list that `replace`, `join` and `format` take: their results grow as a product.
const MAX_SHORT: usize = 4 << 10;

/// No expression can have these names.
const CHARGE: &str = "@charge";
const SHORT: &str = "@short";

static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(functions::environment()));

/// Why an expression cannot be used, or has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CelError {
    /// It is no CEL.
    #[error("{message}{at}")]
    Syntax {
        /// What is wrong.
        message: String,
        /// Where.
        at: Position,
    },
    /// A bound was passed.
    #[error("the expression is too large: {what} is over {limit}")]
    TooLarge {
        /// What passed it.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// A name that is no variable or function here, or a field that the object does not have.
    #[error("there is no {name:?}{at}; has({name}) or {name}.?field tells whether it is there")]
    NoSuchName {
        /// The name.
        name: String,
        /// Where it is used first.
        at: Position,
    },
    /// It cannot be computed from these values.
    #[error("{message}{at}")]
    Evaluation {
        /// Why.
        message: String,
        /// The first use of what failed, where it is known.
        at: Position,
    },
    /// It gives something else than what is asked for.
    #[error("the expression gives {got}, not {wanted}")]
    Type {
        /// The type it gives.
        got: String,
        /// The type asked for.
        wanted: &'static str,
    },
}

/// A place in an expression; lines and columns count from 1. Zero where it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.line, self.column) {
            (0, _) => Ok(()),
            (1, column) => write!(f, " at column {column}"),
            (line, column) => write!(f, " at line {line}, column {column}"),
        }
    }
}

/// A compiled expression.
pub struct Expression {
    text: String,
    root: IdedExpr,
    source: SourceInfo,
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl Expression {
    /// Compiles an expression. Names of variables are not checked: which fields an object has is known later.
    ///
    /// # Errors
    /// [`CelError::Syntax`], [`CelError::TooLarge`].
    pub fn compile(text: &str) -> Result<Self, CelError> {
        if text.len() > MAX_TEXT {
            return Err(CelError::TooLarge {
                what: "its length in bytes",
                limit: MAX_TEXT,
            });
        }
        let (root, source) = std::thread::scope(|scope| {
            std::thread::Builder::new()
                .stack_size(PARSER_STACK)
                .spawn_scoped(scope, || parse(text))
                .map_err(|error| CelError::Evaluation {
                    message: format!("no thread to parse the expression in: {error}"),
                    at: Position::default(),
                })?
                .join()
                .expect("the parser gives errors, it does not panic")
        })?;
        Ok(Self {
            text: text.to_owned(),
            root,
            source,
        })
    }

    /// The expression as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Evaluates it to a boolean.
    ///
    /// # Errors
    /// Every [`CelError`] but [`CelError::Syntax`].
    pub fn is_true<'a>(
        &self,
        variables: impl IntoIterator<Item = (&'a str, &'a Value)>,
    ) -> Result<bool, CelError> {
        match self.evaluate(variables)? {
            Cel::Bool(answer) => Ok(answer),
            other => Err(wrong_type(&other, "a boolean")),
        }
    }

    /// Evaluates it to a text: what a `messageExpression` gives.
    ///
    /// # Errors
    /// Every [`CelError`] but [`CelError::Syntax`].
    pub fn to_text<'a>(
        &self,
        variables: impl IntoIterator<Item = (&'a str, &'a Value)>,
    ) -> Result<String, CelError> {
        match self.evaluate(variables)? {
            Cel::String(text) => Ok(text.to_string()),
            other => Err(wrong_type(&other, "a text")),
        }
    }

    /// Evaluates it to whatever it gives: what a `variables` entry of a policy holds.
    ///
    /// # Errors
    /// Every [`CelError`] but [`CelError::Syntax`]; [`CelError::Type`] where JSON has no such value.
    pub fn to_json<'a>(
        &self,
        variables: impl IntoIterator<Item = (&'a str, &'a Value)>,
    ) -> Result<Value, CelError> {
        let value = self.evaluate(variables)?;
        json(&value).ok_or_else(|| wrong_type(&value, "a value that JSON has"))
    }

    fn evaluate<'a>(
        &self,
        variables: impl IntoIterator<Item = (&'a str, &'a Value)>,
    ) -> Result<Cel, CelError> {
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        for (name, value) in variables {
            context.add_variable_from_value(name, from_json(value));
        }
        let spent = AtomicUsize::new(0);
        let charge = move |call: &FunctionContext<'_, '_>, value: Cel| {
            let size = size(&value);
            if spent.fetch_add(size, Ordering::Relaxed).saturating_add(size) > BUDGET {
                return Err(call.error(BUDGET));
            }
            Ok(value)
        };
        let short = |call: &FunctionContext<'_, '_>, value: Cel| {
            if size(&value) > MAX_SHORT {
                return Err(call.error(MAX_SHORT));
            }
            Ok(value)
        };
        context
            .add_function(CHARGE, charge)
            .and_then(|()| context.add_function(SHORT, short))
            .expect("the environment declares no such names");
        context.resolve(&self.root).map_err(|error| self.failure(error))
    }

    fn failure(&self, error: ExecutionError) -> CelError {
        match error {
            ExecutionError::FunctionError { function, .. } if function == CHARGE => CelError::TooLarge {
                what: "what it walks through, in bytes,",
                limit: BUDGET,
            },
            ExecutionError::FunctionError { function, .. } if function == SHORT => CelError::TooLarge {
                what: "what replace, join or format is given, in bytes,",
                limit: MAX_SHORT,
            },
            ExecutionError::NoSuchKey(name) | ExecutionError::UndeclaredReference(name) => {
                let at = self.place_of(&name);
                CelError::NoSuchName {
                    name: name.to_string(),
                    at,
                }
            }
            ExecutionError::NoSuchOverload(overload) => CelError::Evaluation {
                at: self.place_of(overload.function()),
                message: format!(
                    "{} cannot be applied to {}",
                    overload.function(),
                    overload.argument_types().join(" and ")
                ),
            },
            other => CelError::Evaluation {
                message: other.to_string(),
                at: Position::default(),
            },
        }
    }

    /// Where a name is used first: errors of an evaluation do not tell.
    fn place_of(&self, name: &str) -> Position {
        let mut todo = vec![&self.root];
        let mut first: Option<u32> = None;
        while let Some(node) = todo.pop() {
            let named = match &node.expr {
                Expr::Ident(ident) => ident == name,
                Expr::Select(select) => select.field == name,
                Expr::Call(call) => call.func_name == name,
                _ => false,
            };
            if let Some((start, _)) = self.source.offset_for(node.id).filter(|_| named) {
                first = Some(first.map_or(start, |first| first.min(start)));
            }
            children(node, |child| todo.push(child));
        }
        let Some(before) = first.and_then(|start| self.text.get(..start as usize)) else {
            return Position::default();
        };
        Position {
            line: before.matches('\n').count() + 1,
            column: before.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
        }
    }
}

/// Runs on a stack that the deepest expression of [`MAX_TEXT`] fits in, for it is measured when it is parsed; what is
/// too deep to be evaluated is dropped there too.
fn parse(text: &str) -> Result<(IdedExpr, SourceInfo), CelError> {
    let program = ENVIRONMENT.compile(text).map_err(|errors| syntax(&errors))?;
    if depth(program.expression()) > MAX_DEPTH {
        return Err(CelError::TooLarge {
            what: "the depth of its nesting",
            limit: MAX_DEPTH,
        });
    }
    let mut root = program.expression().clone();
    bound(&mut root);
    Ok((root, offsets(&program)))
}

fn syntax(errors: &cel::ParseErrors) -> CelError {
    let Some(first) = errors.errors.first() else {
        return CelError::Syntax {
            message: "the expression is no CEL".to_owned(),
            at: Position::default(),
        };
    };
    let positive = |number: isize| usize::try_from(number).unwrap_or_default();
    CelError::Syntax {
        message: first.msg.trim().to_owned(),
        at: Position {
            line: positive(first.pos.0),
            column: positive(first.pos.1),
        },
    }
}

/// The program's own table cannot be taken out of it.
fn offsets(program: &Program) -> SourceInfo {
    let mut source = SourceInfo::default();
    let mut todo = vec![program.expression()];
    while let Some(node) = todo.pop() {
        if let Some((start, stop)) = program.source_info().offset_for(node.id) {
            source.add_offset(node.id, start, stop);
        }
        children(node, |child| todo.push(child));
    }
    source
}

fn wrong_type(value: &Cel, wanted: &'static str) -> CelError {
    CelError::Type {
        got: format!("a value of type {}", value.type_of()),
        wanted,
    }
}

/// Calls `visit` for each part of an expression.
fn children<'e>(node: &'e IdedExpr, mut visit: impl FnMut(&'e IdedExpr)) {
    let entries = |entries: &'e [cel::common::ast::IdedEntryExpr], visit: &mut dyn FnMut(&'e IdedExpr)| {
        for entry in entries {
            match &entry.expr {
                EntryExpr::StructField(field) => visit(&field.value),
                EntryExpr::MapEntry(entry) => {
                    visit(&entry.key);
                    visit(&entry.value);
                }
            }
        }
    };
    match &node.expr {
        Expr::Call(call) => call
            .target
            .as_deref()
            .into_iter()
            .chain(&call.args)
            .for_each(visit),
        Expr::Comprehension(loops) => [
            &loops.iter_range,
            &loops.accu_init,
            &loops.loop_cond,
            &loops.loop_step,
            &loops.result,
        ]
        .into_iter()
        .for_each(visit),
        Expr::List(list) => list.elements.iter().for_each(visit),
        Expr::Map(map) => entries(&map.entries, &mut visit),
        Expr::Struct(fields) => entries(&fields.entries, &mut visit),
        Expr::Select(select) => visit(&select.operand),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn depth(root: &IdedExpr) -> usize {
    let mut deepest = 0;
    let mut todo = vec![(root, 1)];
    while let Some((node, depth)) = todo.pop() {
        deepest = deepest.max(depth);
        children(node, |child| todo.push((child, depth + 1)));
    }
    deepest
}

/// Puts what is walked through under the budget, and what grows as a product under its bound.
fn bound(node: &mut IdedExpr) {
    match &mut node.expr {
        Expr::Call(call) => {
            call.target.iter_mut().for_each(|target| bound(target));
            call.args.iter_mut().for_each(bound);
            if ["replace", "join", "format"].contains(&call.func_name.as_str()) {
                call.target.iter_mut().for_each(|target| wrap(target, SHORT));
                call.args.iter_mut().for_each(|argument| wrap(argument, SHORT));
            }
        }
        Expr::Comprehension(loops) => {
            bound(&mut loops.iter_range);
            wrap(&mut loops.iter_range, CHARGE);
            bound(&mut loops.loop_cond);
            bound(&mut loops.loop_step);
            bound(&mut loops.result);
        }
        Expr::List(list) => list.elements.iter_mut().for_each(bound),
        Expr::Map(map) => map
            .entries
            .iter_mut()
            .for_each(|entry| bound_entry(&mut entry.expr)),
        Expr::Struct(fields) => fields
            .entries
            .iter_mut()
            .for_each(|entry| bound_entry(&mut entry.expr)),
        Expr::Select(select) => bound(&mut select.operand),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}

fn bound_entry(entry: &mut EntryExpr) {
    match entry {
        EntryExpr::StructField(field) => bound(&mut field.value),
        EntryExpr::MapEntry(entry) => {
            bound(&mut entry.key);
            bound(&mut entry.value);
        }
    }
}

fn wrap(node: &mut IdedExpr, function: &str) {
    let inner = std::mem::take(node);
    // The id of no node in the source: it has no place of its own.
    *node = IdedExpr {
        id: 0,
        expr: Expr::Call(CallExpr {
            func_name: function.to_owned(),
            target: None,
            args: vec![inner],
        }),
    };
}

/// Whole numbers are `int`, as in Kubernetes.
fn from_json(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Cel::Int(number),
            (None, Some(number)) => Cel::UInt(number),
            (None, None) => Cel::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(from_json).collect())),
        Value::Object(map) => {
            let map: HashMap<String, Cel> = map
                .iter()
                .map(|(key, value)| (key.clone(), from_json(value)))
                .collect();
            Cel::from(map)
        }
    }
}

fn json(value: &Cel) -> Option<Value> {
    Some(match value {
        Cel::Null => Value::Null,
        Cel::Bool(value) => Value::Bool(*value),
        Cel::Int(number) => (*number).into(),
        Cel::UInt(number) => (*number).into(),
        Cel::Float(number) => serde_json::Number::from_f64(*number)?.into(),
        Cel::String(text) => Value::String(text.to_string()),
        Cel::List(items) => Value::Array(items.iter().map(json).collect::<Option<_>>()?),
        Cel::Map(map) => {
            let mut out = serde_json::Map::new();
            for (key, value) in map.map.iter() {
                let Key::String(key) = key else { return None };
                out.insert(key.to_string(), json(value)?);
            }
            Value::Object(out)
        }
        _ => return None,
    })
}

fn size(value: &Cel) -> usize {
    match value {
        Cel::String(text) => NODE + text.len(),
        Cel::Bytes(bytes) => NODE + bytes.len(),
        Cel::List(items) => NODE + items.iter().map(size).sum::<usize>(),
        Cel::Map(map) => {
            NODE + map
                .map
                .iter()
                .map(|(key, value)| size(&Cel::from(key)) + size(value))
                .sum::<usize>()
        }
        _ => NODE,
    }
}

#[cfg(test)]
mod tests;
