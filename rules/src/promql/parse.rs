//! From words to checked expressions: a parser by binding strength.

use super::PromqlError;
use super::ast::{
    Aggregate, Aggregation, Binary, Call, Expr, Kind, Matching, Operator, Selector, Side, Type,
};
use super::functions::{self, Function, OTHERS};
use super::lex::{Token, Word, words};
use super::matcher::Matcher;
use crate::labels::NAME;

/// Deeper ones are refused: each level costs stack.
const DEEPEST: usize = 100;
/// Longer ones are refused.
const LONGEST: usize = 64 * 1024;

/// Reads an expression and checks its types.
///
/// # Errors
/// [`PromqlError`]: no PromQL, or more than is evaluated here; with the place.
pub fn parse(text: &str) -> Result<Expr, PromqlError> {
    if text.len() > LONGEST {
        return Err(PromqlError::syntax(0, format!("longer than {LONGEST} bytes")));
    }
    let mut parser = Parser {
        tokens: words(text)?,
        next: 0,
        depth: 0,
    };
    let expr = parser.expr(1)?;
    match parser.peek() {
        Word::End => Ok(expr),
        other => Err(parser.unexpected(&other.clone(), "an operator or the end")),
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

type Parsed<T> = Result<T, PromqlError>;

impl Parser {
    fn peek(&self) -> &Word {
        self.ahead(0)
    }

    /// The last word is the end; it is never passed.
    fn ahead(&self, count: usize) -> &Word {
        let at = (self.next + count).min(self.tokens.len() - 1);
        &self.tokens[at].word
    }

    fn at(&self) -> usize {
        self.tokens[self.next.min(self.tokens.len() - 1)].at
    }

    fn take(&mut self) -> Word {
        let word = self.peek().clone();
        self.next = (self.next + 1).min(self.tokens.len() - 1);
        word
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Word::Sign(held) if *held == sign)
    }

    fn took(&mut self, sign: &str) -> bool {
        let there = self.is(sign);
        if there {
            self.take();
        }
        there
    }

    fn expect(&mut self, sign: &'static str) -> Parsed<()> {
        if self.took(sign) {
            return Ok(());
        }
        Err(self.unexpected(&self.peek().clone(), &format!("{sign:?}")))
    }

    /// Whether the next word is this keyword, in any case.
    fn is_keyword(&self, keyword: &str) -> bool {
        matches!(self.peek(), Word::Name(name) if name.eq_ignore_ascii_case(keyword))
    }

    fn took_keyword(&mut self, keyword: &str) -> bool {
        let there = self.is_keyword(keyword);
        if there {
            self.take();
        }
        there
    }

    fn unexpected(&self, word: &Word, wanted: &str) -> PromqlError {
        let shown = match word {
            Word::End => "the text ends".to_owned(),
            Word::Name(name) => format!("unexpected {name:?}"),
            Word::Text(text) => format!("unexpected text {text:?}"),
            Word::Sign(sign) => format!("unexpected {sign:?}"),
            Word::Number(number) => format!("unexpected number {number}"),
            Word::Duration(_) => "unexpected duration".to_owned(),
        };
        PromqlError::syntax(self.at(), format!("{shown} where {wanted} belongs"))
    }

    fn expr(&mut self, weakest: u8) -> Parsed<Expr> {
        self.depth += 1;
        if self.depth > DEEPEST {
            let why = format!("nested more than {DEEPEST} deep");
            return Err(PromqlError::syntax(self.at(), why));
        }
        let mut left = self.unary()?;
        while let Some(operator) = self.operator().filter(|found| found.strength() >= weakest) {
            let at = self.at();
            self.take();
            let (bool, matching, said) = self.modifiers(operator)?;
            // To the right: 2^3^2 is 2^(3^2).
            let next = operator.strength() + u8::from(operator != Operator::Power);
            let right = self.expr(next)?;
            check_binary(operator, bool, said, &left, &right, at)?;
            let binary = Binary {
                operator,
                bool,
                matching,
                left,
                right,
            };
            left = Expr {
                at,
                kind: Kind::Binary(Box::new(binary)),
            };
        }
        self.depth -= 1;
        Ok(left)
    }

    fn operator(&self) -> Option<Operator> {
        Some(match self.peek() {
            Word::Sign(sign) => match *sign {
                "+" => Operator::Add,
                "-" => Operator::Subtract,
                "*" => Operator::Multiply,
                "/" => Operator::Divide,
                "%" => Operator::Modulo,
                "^" => Operator::Power,
                "==" => Operator::Equal,
                "!=" => Operator::NotEqual,
                ">" => Operator::Greater,
                "<" => Operator::Less,
                ">=" => Operator::GreaterOrEqual,
                "<=" => Operator::LessOrEqual,
                _ => return None,
            },
            Word::Name(name) => match name.to_ascii_lowercase().as_str() {
                "and" => Operator::And,
                "or" => Operator::Or,
                "unless" => Operator::Unless,
                "atan2" => Operator::Atan2,
                _ => return None,
            },
            _ => return None,
        })
    }

    /// `bool`, `on (…)`, `group_left (…)`; whether anything was said of matching.
    fn modifiers(&mut self, operator: Operator) -> Parsed<(bool, Matching, bool)> {
        let at = self.at();
        let bool = self.took_keyword("bool");
        if bool && !operator.compares() {
            return Err(PromqlError::syntax(at, "bool belongs behind a comparison"));
        }
        let mut matching = Matching {
            on: false,
            labels: Vec::new(),
            many: Side::Neither,
            include: Vec::new(),
        };
        let on = self.is_keyword("on");
        // A metric may have such a name; labels follow only a keyword.
        if !(on || self.is_keyword("ignoring")) || *self.ahead(1) != Word::Sign("(") {
            return Ok((bool, matching, false));
        }
        self.take();
        matching.on = on;
        matching.labels = self.label_names()?;
        let at = self.at();
        for (keyword, side) in [("group_left", Side::Left), ("group_right", Side::Right)] {
            if matching.many == Side::Neither && self.took_keyword(keyword) {
                matching.many = side;
                if self.is("(") {
                    matching.include = self.label_names()?;
                }
            }
        }
        if matching.many != Side::Neither && operator.joins_sets() {
            return Err(PromqlError::syntax(
                at,
                "a set operator takes no group_left or group_right",
            ));
        }
        if on
            && let Some(twice) = matching
                .include
                .iter()
                .find(|name| matching.labels.contains(name))
        {
            let why = format!("label {twice:?} cannot be both in on and in the group");
            return Err(PromqlError::syntax(at, why));
        }
        Ok((bool, matching, true))
    }

    /// `(a, b)`
    fn label_names(&mut self) -> Parsed<Vec<String>> {
        self.expect("(")?;
        let mut names = Vec::new();
        while !self.took(")") {
            match self.peek().clone() {
                Word::Name(name) if !name.contains(':') => names.push(name),
                other => return Err(self.unexpected(&other, "a label's name")),
            }
            self.take();
            if !self.is(")") {
                self.expect(",")?;
            }
        }
        Ok(names)
    }

    fn unary(&mut self) -> Parsed<Expr> {
        let at = self.at();
        if !self.is("-") && !self.is("+") {
            return self.postfix();
        }
        let minus = self.take() == Word::Sign("-");
        // Weaker than ^ alone.
        let inner = self.expr(Operator::Power.strength())?;
        if !matches!(inner.gives(), Type::Scalar | Type::Vector) {
            let why = format!(
                "a sign belongs before a scalar or an instant vector, not {}",
                inner.gives()
            );
            return Err(PromqlError::syntax(at, why));
        }
        Ok(match (minus, inner.kind) {
            (true, Kind::Number(number)) => Expr {
                at,
                kind: Kind::Number(-number),
            },
            (true, kind) => Expr {
                at,
                kind: Kind::Negative(Box::new(Expr { at: inner.at, kind })),
            },
            (false, kind) => Expr { at, kind },
        })
    }

    /// What stands alone, and `[5m]`, `offset 5m` behind it.
    fn postfix(&mut self) -> Parsed<Expr> {
        let bare = !self.is("(");
        let mut expr = self.primary()?;
        let mut shifted = false;
        loop {
            let at = self.at();
            if self.took("[") {
                expr = self.range(expr, bare && !shifted, at)?;
            } else if self.took("@") {
                return Err(PromqlError::Unsupported {
                    at,
                    what: "the modifier @".to_owned(),
                    instead: "a rule looks at the time of its evaluation; use offset",
                });
            } else if self.is_keyword("offset") {
                self.take();
                let sign = if self.took("-") { -1 } else { 1 };
                let Word::Duration(offset) = *self.peek() else {
                    return Err(self.unexpected(&self.peek().clone(), "a duration such as 5m"));
                };
                self.take();
                match &mut expr.kind {
                    Kind::Selector(selector) | Kind::Range(selector, _) if bare && !shifted => {
                        selector.offset = sign * offset;
                        shifted = true;
                    }
                    _ => return Err(PromqlError::syntax(at, "offset belongs behind a selector, once")),
                }
            } else {
                return Ok(expr);
            }
        }
    }

    fn range(&mut self, expr: Expr, plain: bool, at: usize) -> Parsed<Expr> {
        let Word::Duration(range) = *self.peek() else {
            return Err(self.unexpected(&self.peek().clone(), "a duration such as 5m"));
        };
        self.take();
        if self.is(":") {
            return Err(PromqlError::Unsupported {
                at,
                what: "a subquery".to_owned(),
                instead: "record the inner expression by a rule of its own, and select what it records",
            });
        }
        self.expect("]")?;
        if range <= 0 {
            return Err(PromqlError::syntax(at, "a range must be longer than 0"));
        }
        match expr.kind {
            Kind::Selector(selector) if plain => Ok(Expr {
                at: expr.at,
                kind: Kind::Range(selector, range),
            }),
            _ => Err(PromqlError::syntax(at, "a range belongs behind a selector")),
        }
    }

    fn primary(&mut self) -> Parsed<Expr> {
        let at = self.at();
        let kind = match self.peek().clone() {
            Word::Number(number) => {
                self.take();
                Kind::Number(number)
            }
            Word::Text(text) => {
                self.take();
                Kind::Text(text)
            }
            Word::Sign("(") => {
                self.take();
                let inner = self.expr(1)?;
                self.expect(")")?;
                return Ok(inner);
            }
            Word::Sign("{") => Kind::Selector(self.selector(None)?),
            Word::Name(name) => return self.named(&name, at),
            other => return Err(self.unexpected(&other, "an expression")),
        };
        Ok(Expr { at, kind })
    }

    /// A function, an aggregation, or a metric.
    fn named(&mut self, name: &str, at: usize) -> Parsed<Expr> {
        self.take();
        let lower = name.to_ascii_lowercase();
        let by = self.is_keyword("by") || self.is_keyword("without");
        let kind = match Aggregation::from_name(&lower) {
            Some(aggregation) if self.is("(") || (by && *self.ahead(1) == Word::Sign("(")) => {
                Kind::Aggregate(Box::new(self.aggregate(aggregation, &lower, at)?))
            }
            _ if self.is("(") => Kind::Call(self.call(name, at)?),
            _ => Kind::Selector(self.selector(Some(name))?),
        };
        Ok(Expr { at, kind })
    }

    fn aggregate(&mut self, aggregation: Aggregation, name: &str, at: usize) -> Parsed<Aggregate> {
        let mut grouping = self.grouping()?;
        let mut arguments = self.arguments()?;
        if grouping.is_none() {
            grouping = self.grouping()?;
        }
        let (labels, without) = grouping.unwrap_or_default();
        let parameter_type = aggregation.parameter();
        let wanted = 1 + usize::from(parameter_type.is_some());
        if arguments.len() != wanted {
            let why = format!("{name} takes {wanted} arguments, not {}", arguments.len());
            return Err(PromqlError::syntax(at, why));
        }
        let mut taken = arguments.drain(..);
        let parameter = parameter_type.and_then(|_| taken.next());
        if let (Some(parameter), Some(wanted)) = (&parameter, parameter_type) {
            check_type(parameter, wanted, name)?;
        }
        let of = taken
            .next()
            .ok_or_else(|| PromqlError::syntax(at, format!("{name} takes a vector")))?;
        check_type(&of, Type::Vector, name)?;
        Ok(Aggregate {
            aggregation,
            of,
            parameter,
            labels,
            without,
        })
    }

    fn grouping(&mut self) -> Parsed<Option<(Vec<String>, bool)>> {
        let without = self.is_keyword("without");
        if !without && !self.is_keyword("by") {
            return Ok(None);
        }
        self.take();
        Ok(Some((self.label_names()?, without)))
    }

    fn arguments(&mut self) -> Parsed<Vec<Expr>> {
        self.expect("(")?;
        let mut arguments = Vec::new();
        if self.took(")") {
            return Ok(arguments);
        }
        loop {
            arguments.push(self.expr(1)?);
            if self.took(")") {
                return Ok(arguments);
            }
            self.expect(",")?;
        }
    }

    fn call(&mut self, name: &str, at: usize) -> Parsed<Call> {
        let Some(row) = functions::find(name) else {
            if let Some((name, instead)) = OTHERS.iter().find(|(known, _)| *known == name) {
                return Err(PromqlError::Unsupported {
                    at,
                    what: format!("the function {name}"),
                    instead,
                });
            }
            let why = format!("there is no function {name:?}");
            return Err(PromqlError::syntax(at, why));
        };
        let arguments = self.arguments()?;
        let most = if row.more { usize::MAX } else { row.takes.len() };
        if arguments.len() < row.needs || arguments.len() > most {
            let wanted = if row.needs == most {
                most.to_string()
            } else if row.more {
                format!("at least {}", row.needs)
            } else {
                format!("{} to {most}", row.needs)
            };
            let why = format!("{name} takes {wanted} arguments, not {}", arguments.len());
            return Err(PromqlError::syntax(at, why));
        }
        for (place, argument) in arguments.iter().enumerate() {
            let wanted = row.takes[place.min(row.takes.len() - 1)];
            check_type(argument, wanted, name)?;
        }
        check_texts(row.function, &arguments)?;
        Ok(Call {
            function: row.function,
            name: row.name,
            arguments,
        })
    }

    /// Behind a metric's name, if there was one.
    fn selector(&mut self, name: Option<&str>) -> Parsed<Selector> {
        let at = self.at();
        let mut matchers: Vec<Matcher> = name.map(Matcher::named).into_iter().collect();
        if self.took("{") {
            while !self.took("}") {
                let matcher = self.matcher()?;
                if name.is_some() && matcher.name == NAME {
                    let why = "the metric's name is given twice".to_owned();
                    return Err(PromqlError::syntax(at, why));
                }
                matchers.push(matcher);
                if !self.is("}") {
                    self.expect(",")?;
                }
            }
        }
        if matchers.iter().all(|matcher| matcher.takes("")) {
            let why = "a selector needs a metric's name, or a condition that not every series meets";
            return Err(PromqlError::syntax(at, why));
        }
        Ok(Selector { matchers, offset: 0 })
    }

    fn matcher(&mut self) -> Parsed<Matcher> {
        let at = self.at();
        let name = match self.peek().clone() {
            Word::Name(name) if !name.contains(':') => name,
            Word::Text(_) => {
                return Err(PromqlError::Unsupported {
                    at,
                    what: "a quoted name in braces".to_owned(),
                    instead: "names of letters, digits and underscores need no quotes",
                });
            }
            other => return Err(self.unexpected(&other, "a label's name")),
        };
        self.take();
        let sign = match self.peek().clone() {
            Word::Sign(sign @ ("=" | "!=" | "=~" | "!~")) => sign,
            other => return Err(self.unexpected(&other, "=, !=, =~ or !~")),
        };
        self.take();
        let at = self.at();
        match self.peek().clone() {
            Word::Text(value) => {
                self.take();
                Matcher::new(name, sign, value, at)
            }
            other => Err(self.unexpected(&other, "a text in quotes")),
        }
    }
}

fn check_type(expr: &Expr, wanted: Type, name: &str) -> Parsed<()> {
    if expr.gives() == wanted {
        return Ok(());
    }
    let why = format!("{name} takes {wanted} here, not {}", expr.gives());
    Err(PromqlError::syntax(expr.at, why))
}

/// What Prometheus finds at evaluation is found at once: texts are constants.
fn check_texts(function: Function, arguments: &[Expr]) -> Parsed<()> {
    let text = |place: usize| match arguments.get(place).map(|argument| &argument.kind) {
        Some(Kind::Text(text)) => text.as_str(),
        _ => "",
    };
    let at = |place: usize| arguments.get(place).map_or(0, |argument| argument.at);
    match function {
        Function::LabelReplace => {
            super::matcher::whole(text(4)).map_err(|why| PromqlError::syntax(at(4), why))?;
            check_label(text(1), at(1))
        }
        Function::LabelJoin => check_label(text(1), at(1)),
        _ => Ok(()),
    }
}

fn check_label(name: &str, at: usize) -> Parsed<()> {
    if is_label(name) {
        return Ok(());
    }
    Err(PromqlError::syntax(at, format!("{name:?} is no label's name")))
}

/// Whether a label may be called so.
pub(crate) fn is_label(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(fits) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn check_binary(
    operator: Operator,
    bool: bool,
    said: bool,
    left: &Expr,
    right: &Expr,
    at: usize,
) -> Parsed<()> {
    for side in [left, right] {
        if !matches!(side.gives(), Type::Scalar | Type::Vector) {
            let why = format!(
                "an operator takes scalars and instant vectors, not {}",
                side.gives()
            );
            return Err(PromqlError::syntax(side.at, why));
        }
    }
    let scalars = [left, right]
        .into_iter()
        .filter(|side| side.gives() == Type::Scalar)
        .count();
    if operator.compares() && scalars == 2 && !bool {
        return Err(PromqlError::syntax(
            at,
            "a comparison between two scalars needs bool",
        ));
    }
    if operator.joins_sets() && scalars > 0 {
        return Err(PromqlError::syntax(
            at,
            "a set operator takes two instant vectors",
        ));
    }
    if said && scalars > 0 {
        return Err(PromqlError::syntax(
            at,
            "on and ignoring belong between two instant vectors",
        ));
    }
    Ok(())
}
