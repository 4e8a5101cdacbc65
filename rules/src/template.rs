//! The texts of alerts: what stands between `{{` and `}}`, as far as it needs no queries, loops or conditions.

use crate::Labels;
use crate::number::{general, humanize, humanize_1024, humanize_duration, humanize_timestamp, shortest};
use thiserror::Error;

/// A text that was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Value(Operand, Vec<Function>),
}

/// What a pipeline begins with.
#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Label(String),
    Value,
    Text(String),
}

#[derive(Debug, Clone, PartialEq)]
enum Function {
    Humanize,
    Humanize1024,
    HumanizeDuration,
    HumanizePercentage,
    HumanizeTimestamp,
    ToUpper,
    ToLower,
    Printf(Format),
}

/// One verb between texts.
#[derive(Debug, Clone, PartialEq)]
struct Format {
    before: String,
    verb: Option<(char, Option<usize>)>,
    after: String,
}

/// What a template cannot say. `at` is a place in bytes from the text's start.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// `{{` without `}}`.
    #[error("{{{{ without }}}}")]
    Open {
        /// Where.
        at: usize,
    },
    /// It is more than a device fills in.
    #[error("{what} is not filled in on devices; {instead}")]
    Unsupported {
        /// Where.
        at: usize,
        /// What, by its name.
        what: String,
        /// What there is.
        instead: &'static str,
    },
}

const THERE_IS: &str = "there is $labels.NAME, $value, humanize, humanize1024, humanizeDuration, humanizePercentage, \
                        humanizeTimestamp, toUpper, toLower and printf with %s, %v, %f, %.2f, %g or %e";

/// A value on its way through a pipeline.
#[derive(Debug, Clone)]
enum Flow {
    Number(f64),
    Text(String),
}

impl Template {
    /// Reads a text.
    ///
    /// # Errors
    /// [`TemplateError`], with the place.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut at = 0;
        let mut trim_next = false;
        while let Some(found) = text[at..].find("{{") {
            let open = at + found;
            let Some(length) = text[open + 2..].find("}}") else {
                return Err(TemplateError::Open { at: open });
            };
            let inner = &text[open + 2..open + 2 + length];
            let mut before = &text[at..open];
            if trim_next {
                before = before.trim_start();
            }
            // `{{- ` and ` -}}` take the blanks around.
            let (inner, trims) = match inner.strip_prefix("- ") {
                Some(inner) => (inner, true),
                None => (inner, false),
            };
            if trims {
                before = before.trim_end();
            }
            let (inner, trims) = match inner.strip_suffix(" -") {
                Some(inner) => (inner, true),
                None => (inner, false),
            };
            trim_next = trims;
            pieces.push(Piece::Text(before.to_owned()));
            pieces.extend(action(inner.trim(), open)?);
            at = open + 2 + length + 2;
        }
        let rest = &text[at..];
        let rest = if trim_next { rest.trim_start() } else { rest };
        pieces.push(Piece::Text(rest.to_owned()));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Ok(Self(pieces))
    }

    /// A text in which nothing is filled in.
    pub(crate) fn plain(text: &str) -> Self {
        Self(vec![Piece::Text(text.to_owned())])
    }

    /// Fills a text in for a series.
    pub fn fill(&self, labels: &Labels, value: f64) -> String {
        let one = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Value(operand, functions) => {
                let first = match operand {
                    Operand::Label(name) => Flow::Text(labels.get(name).unwrap_or_default().to_owned()),
                    Operand::Value => Flow::Number(value),
                    Operand::Text(text) => Flow::Text(text.clone()),
                };
                let last = functions
                    .iter()
                    .fold(first, |flow, function| function.apply(flow));
                last.text()
            }
        };
        self.0.iter().map(one).collect()
    }
}

impl Flow {
    fn number(&self) -> f64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.trim().parse().unwrap_or(f64::NAN),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Number(number) => shortest(number),
            Self::Text(text) => text,
        }
    }
}

impl Function {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "humanize" => Self::Humanize,
            "humanize1024" => Self::Humanize1024,
            "humanizeDuration" => Self::HumanizeDuration,
            "humanizePercentage" => Self::HumanizePercentage,
            "humanizeTimestamp" => Self::HumanizeTimestamp,
            "toUpper" => Self::ToUpper,
            "toLower" => Self::ToLower,
            _ => return None,
        })
    }

    fn apply(&self, flow: Flow) -> Flow {
        Flow::Text(match self {
            Self::Humanize => humanize(flow.number()),
            Self::Humanize1024 => humanize_1024(flow.number()),
            Self::HumanizeDuration => humanize_duration(flow.number()),
            Self::HumanizePercentage => format!("{}%", general(flow.number() * 100.0, 4)),
            Self::HumanizeTimestamp => humanize_timestamp(flow.number()),
            Self::ToUpper => flow.text().to_uppercase(),
            Self::ToLower => flow.text().to_lowercase(),
            Self::Printf(format) => format.apply(flow),
        })
    }
}

impl Format {
    fn parse(text: &str, at: usize) -> Result<Self, TemplateError> {
        let unsupported = |what: String| TemplateError::Unsupported {
            at,
            what,
            instead: THERE_IS,
        };
        let mut format = Self {
            before: String::new(),
            verb: None,
            after: String::new(),
        };
        let mut rest = text;
        while let Some(found) = rest.find('%') {
            let (literal, verb) = rest.split_at(found);
            format.literal(literal);
            let verb = &verb[1..];
            if let Some(after) = verb.strip_prefix('%') {
                format.literal("%");
                rest = after;
                continue;
            }
            let end = verb.find(|c: char| c.is_ascii_alphabetic());
            let Some((flags, kind)) = end.map(|end| (&verb[..end], verb[end..].chars().next())) else {
                return Err(unsupported(format!("printf with %{verb}")));
            };
            let digits = match flags.strip_prefix('.') {
                None if flags.is_empty() => Some(None),
                Some(digits) => digits.parse().ok().filter(|digits| *digits <= 30).map(Some),
                None => None,
            };
            match (digits, kind) {
                (Some(digits), Some(kind @ ('s' | 'v' | 'f' | 'g' | 'e'))) if format.verb.is_none() => {
                    format.verb = Some((kind, digits));
                    rest = &verb[flags.len() + 1..];
                }
                _ => return Err(unsupported(format!("printf with {text:?}"))),
            }
        }
        format.literal(rest);
        Ok(format)
    }

    fn literal(&mut self, text: &str) {
        if self.verb.is_some() {
            self.after.push_str(text);
        } else {
            self.before.push_str(text);
        }
    }

    fn apply(&self, flow: Flow) -> String {
        let middle = match self.verb {
            None => String::new(),
            Some(('f', digits)) => crate::number::fixed(flow.number(), digits.unwrap_or(6)),
            Some(('e', digits)) => crate::number::exponential(flow.number(), digits.unwrap_or(6)),
            Some(('g', Some(digits))) => general(flow.number(), digits.max(1)),
            Some(('g', None)) => shortest(flow.number()),
            Some((_, digits)) => {
                let text = flow.text();
                match digits {
                    Some(most) => text.chars().take(most).collect(),
                    None => text,
                }
            }
        };
        format!("{}{middle}{}", self.before, self.after)
    }
}

/// What stands between braces; nothing for a comment.
fn action(text: &str, at: usize) -> Result<Option<Piece>, TemplateError> {
    if text.starts_with("/*") && text.ends_with("*/") {
        return Ok(None);
    }
    let unsupported = |what: &str| TemplateError::Unsupported {
        at,
        what: format!("{{{{ {what} }}}}"),
        instead: THERE_IS,
    };
    let mut stages = stages(text).ok_or_else(|| unsupported(text))?.into_iter();
    let mut first = stages.next().ok_or_else(|| unsupported(text))?;
    let mut functions = Vec::new();
    // `humanize $value` is `$value | humanize`.
    let operand = match first.as_slice() {
        [single] => operand(single),
        [_, .., last] => {
            let found = operand(last);
            first.pop();
            functions.push(function(&first, at)?.ok_or_else(|| unsupported(text))?);
            found
        }
        [] => None,
    };
    let operand = operand.ok_or_else(|| unsupported(text))?;
    for stage in stages {
        functions.push(function(&stage, at)?.ok_or_else(|| unsupported(text))?);
    }
    Ok(Some(Piece::Value(operand, functions)))
}

fn operand(word: &str) -> Option<Operand> {
    if let Some(text) = unquoted(word) {
        return Some(Operand::Text(text));
    }
    if matches!(word, "$value" | ".Value") {
        return Some(Operand::Value);
    }
    let label = word
        .strip_prefix("$labels.")
        .or_else(|| word.strip_prefix(".Labels."))?;
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (!label.is_empty() && label.chars().all(fits)).then(|| Operand::Label(label.to_owned()))
}

fn function(words: &[String], at: usize) -> Result<Option<Function>, TemplateError> {
    Ok(match words {
        [name] => Function::from_name(name),
        [name, format] if name == "printf" => match unquoted(format) {
            Some(format) => Some(Function::Printf(Format::parse(&format, at)?)),
            None => None,
        },
        _ => None,
    })
}

fn unquoted(word: &str) -> Option<String> {
    if let Some(inner) = word.strip_prefix('`') {
        return inner.strip_suffix('`').map(str::to_owned);
    }
    // Go's escapes are JSON's, but for rare ones.
    word.starts_with('"')
        .then(|| serde_json::from_str(word).ok())
        .flatten()
}

/// Words of each stage of a pipeline; `None` where quotes do not end.
fn stages(text: &str) -> Option<Vec<Vec<String>>> {
    let mut stages = vec![Vec::new()];
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut escaped = false;
    let end = |word: &mut String, stages: &mut Vec<Vec<String>>| {
        if !word.is_empty()
            && let Some(stage) = stages.last_mut()
        {
            stage.push(std::mem::take(word));
        }
    };
    for c in text.chars() {
        match quote {
            Some(open) => {
                word.push(c);
                if c == open && !escaped {
                    quote = None;
                }
                escaped = c == '\\' && !escaped && open == '"';
            }
            None if c == '"' || c == '`' => {
                quote = Some(c);
                word.push(c);
            }
            None if c == '|' => {
                end(&mut word, &mut stages);
                stages.push(Vec::new());
            }
            None if c.is_whitespace() => end(&mut word, &mut stages),
            None => word.push(c),
        }
    }
    end(&mut word, &mut stages);
    quote.is_none().then_some(stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_filled_in_is_named() {
        for (text, want) in [
            ("a {{ $value", "{{ without }}"),
            (
                "{{ if gt $value 1.0 }}x{{ end }}",
                "{{ if gt $value 1.0 }} is not filled in",
            ),
            (
                "{{ query \"up\" | first | value }}",
                "{{ query \"up\" | first | value }} is not filled in",
            ),
            (
                "{{ $externalLabels.x }}",
                "{{ $externalLabels.x }} is not filled in",
            ),
            ("{{ range $labels }}", "{{ range $labels }} is not filled in"),
            (
                "{{ printf \"%d\" $value }}",
                "printf with \"%d\" is not filled in",
            ),
            ("{{ $value | title }}", "{{ $value | title }} is not filled in"),
        ] {
            let err = Template::parse(text).unwrap_err().to_string();
            assert!(err.starts_with(want), "{text}: {err}");
        }
    }
}
