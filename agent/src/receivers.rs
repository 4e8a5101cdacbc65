//! What the sections of the configuration share that name a receiver: as whom it is told, and whom it is trusted to be.

use ::telemetry::http::{Trust, basic};
use std::io;
use std::path::{Path, PathBuf};

/// The fields, as they were given.
#[derive(Debug, Default)]
pub(crate) struct Given<'a> {
    pub url: &'a str,
    pub token_file: Option<&'a Path>,
    pub user: Option<&'a str>,
    pub password_file: Option<&'a Path>,
    pub ca_file: Option<&'a Path>,
    pub insecure_skip_verify: bool,
}

/// The field that is wrong, by its name in the configuration.
#[derive(Debug)]
pub(crate) enum Fault {
    /// A file that it names cannot be read.
    Read {
        field: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    /// What is wrong, and what to write.
    Value { field: &'static str, why: &'static str },
}

impl Given<'_> {
    /// The value of `Authorization`, and whom to trust.
    pub fn resolve(&self) -> Result<(Option<String>, Trust), Fault> {
        let value = |field, why| Err(Fault::Value { field, why });
        if !self.url.starts_with("http://") && !self.url.starts_with("https://") {
            return value("url", "must begin with http:// or https://");
        }
        let authorization = match (self.token_file, self.user, self.password_file) {
            (None, None, None) => None,
            (Some(token), None, None) => Some(format!("Bearer {}", text("tokenFile", token)?)),
            (None, Some(user), Some(password)) => Some(basic(user, &text("passwordFile", password)?)),
            _ => return value("tokenFile", "give tokenFile, or user and passwordFile"),
        };
        let trust = match (self.ca_file, self.insecure_skip_verify) {
            (None, false) => Trust::System,
            (Some(path), false) => Trust::Only(text("caFile", path)?.into_bytes()),
            (None, true) => Trust::Anybody,
            (Some(_), true) => return value("caFile", "says nothing beside insecureSkipVerify"),
        };
        Ok((authorization, trust))
    }
}

fn text(field: &'static str, path: &Path) -> Result<String, Fault> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(Fault::Read {
            field,
            path: path.to_owned(),
            source,
        }),
    }
}
