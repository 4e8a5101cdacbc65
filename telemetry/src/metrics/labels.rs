//! The labels that make a series.

use kit::varint::{Reader, put_text};
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

/// The label that holds a metric's name.
pub const NAME: &str = "__name__";

/// Labels of one series, sorted by name, none twice and none empty. Cheap to clone; equal where they say the same.
///
/// In one piece of memory: a device holds tens of thousands of these.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels(Arc<[u8]>);

/// Why labels are none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BadLabels {
    /// A label without a name.
    #[error("a label with the value {value:?} has no name")]
    NoName {
        /// Its value.
        value: String,
    },
    /// A name twice.
    #[error("label {name} is given twice")]
    Twice {
        /// The name.
        name: String,
    },
}

impl Labels {
    /// Labels from pairs in any order; empty values are left out, as they mean that there is no such label.
    ///
    /// # Errors
    /// If a name is empty or given twice.
    pub fn new<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, BadLabels> {
        let mut pairs: Vec<(&str, &str)> = pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        pairs.sort_unstable();
        if let Some((_, value)) = pairs.first().filter(|(name, _)| name.is_empty()) {
            return Err(BadLabels::NoName {
                value: (*value).to_owned(),
            });
        }
        if let Some(twice) = pairs.windows(2).find(|two| two[0].0 == two[1].0) {
            return Err(BadLabels::Twice {
                name: twice[0].0.to_owned(),
            });
        }
        let mut packed = Vec::with_capacity(pairs.iter().map(|(n, v)| n.len() + v.len() + 4).sum());
        for (name, value) in pairs {
            put_text(&mut packed, name);
            put_text(&mut packed, value);
        }
        Ok(Self(packed.into()))
    }

    /// From what [`Labels::packed`] gave, which the caller has checked.
    pub(crate) fn from_packed(packed: &[u8]) -> Self {
        Self(packed.into())
    }

    /// Name and value of each, with the lengths before them.
    pub(crate) fn packed(&self) -> &[u8] {
        &self.0
    }

    /// Name and value of each, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut reader = Reader::new(&self.0);
        std::iter::from_fn(move || Some((reader.text()?, reader.text()?)))
    }

    /// A label's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(held, _)| *held == name)
            .map(|(_, value)| value)
    }

    /// The metric's name, empty where there is none.
    pub fn name(&self) -> &str {
        self.get(NAME).unwrap_or_default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// None.
impl Default for Labels {
    fn default() -> Self {
        Self(Arc::from([]))
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As PromQL writes a selector.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let mut before = "{";
        for (name, value) in self.iter().filter(|(name, _)| *name != NAME) {
            write!(f, "{before}{name}={value:?}")?;
            before = ",";
        }
        f.write_str(if before == "," { "}" } else { "" })
    }
}
