//! `leeward secret`: at a device, the keys that it decrypts the repository's secrets with.

use super::local::LocalArgs;
use crate::exit::{NotFound, Refused};
use crate::print::{Output, Table, list, note, one};
use ::agent::{SecretKey, SecretKeyError, SecretKeys};
use anyhow::{Context as _, Result};
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// A key file is a few hundred bytes; a PGP key some kilobytes.
const MAX_KEY: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Keys for files that SOPS encrypted
    Key {
        #[command(subcommand)]
        verb: Verb,
    },
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Keep a key: an age key (AGE-SECRET-KEY-1...) or an armoured PGP secret key
    Add {
        /// Name of the key on this device
        name: String,
        /// File with the key; standard input where it is '-'
        #[arg(required_unless_present = "generate")]
        file: Option<PathBuf>,
        /// Make an age key here, which then never leaves the device
        #[arg(long, conflicts_with = "file")]
        generate: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Show the keys by name and public half
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Forget a key
    Remove {
        /// Name of the key on this device
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    local: LocalArgs,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl Args {
    pub fn run(self) -> Result<()> {
        let What::Key { verb } = self.what;
        match verb {
            Verb::Add {
                name,
                file,
                generate,
                common,
            } => {
                let text = match &file {
                    Some(file) if !generate => read(file)?,
                    _ => format!("{}\n", sops::generate_age_key().0),
                };
                let store = SecretKeys::of(&common.local.state);
                let added = store.add(&name, &text).map_err(told)?;
                note(
                    "the agent tries what it could not decrypt again within five minutes, at once after 'leeward sync'",
                );
                one(common.output, &added, || {
                    format!("{}: encrypt for {}\n", added.name, added.recipients.join(", "))
                })
            }
            Verb::List { common } => {
                let keys = SecretKeys::of(&common.local.state).list().map_err(told)?;
                list(common.output, &keys, || table(&keys))
            }
            Verb::Remove { name, common } => {
                SecretKeys::of(&common.local.state).remove(&name).map_err(told)?;
                note(&format!(
                    "{name} is forgotten; what was decrypted with it runs on until the next revision that needs it"
                ));
                Ok(())
            }
        }
    }
}

fn table(keys: &[SecretKey]) -> Table {
    Table {
        head: &["NAME", "ENCRYPT FOR"],
        wide: 0,
        rows: keys
            .iter()
            .map(|key| vec![key.name.clone(), key.recipients.join(", ")])
            .collect(),
    }
}

fn told(err: SecretKeyError) -> anyhow::Error {
    match &err {
        SecretKeyError::Absent(_) => NotFound(err.to_string()).into(),
        SecretKeyError::Disk { .. } => err.into(),
        _ => Refused(kit::chain(&err)).into(),
    }
}

fn read(file: &Path) -> Result<String> {
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin()
            .take(MAX_KEY)
            .read_to_string(&mut text)
            .context("read the key")?;
        return Ok(text);
    }
    let opened = std::fs::File::open(file).with_context(|| format!("open {}", file.display()))?;
    opened
        .take(MAX_KEY)
        .read_to_string(&mut text)
        .with_context(|| format!("read {}", file.display()))?;
    Ok(text)
}

/// Keys in files that a person names, to decrypt with on another machine than a device.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct KeyFiles {
    /// File with age keys or an armoured PGP secret key, to decrypt what SOPS encrypted (may be given several times)
    #[arg(long = "age-key-file", value_name = "FILE", env = "SOPS_AGE_KEY_FILE")]
    files: Vec<PathBuf>,
}

impl KeyFiles {
    /// The keys of all files.
    pub fn keys(&self) -> Result<sops::Keys> {
        let mut keys = sops::Keys::default();
        for file in &self.files {
            keys.add(&read(file)?)
                .map_err(|err| Refused(format!("{}: {err}", file.display())))?;
        }
        Ok(keys)
    }
}
