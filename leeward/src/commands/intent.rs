//! What a person asks of a device through the hub, and tokens for new ones.

use crate::people::AccessArgs;
use crate::print::{Output, note, one, seconds};
use anyhow::{Context as _, Result};
use jiff::{SignedDuration, Timestamp};
use model::{ClassName, DeviceName, IntentKind, ObjectKey};
use wire::api::{NewIntent, NewToken};

#[derive(Debug, clap::Args)]
pub struct DeviceArgs {
    /// Which device
    #[cfg_attr(feature = "hub", arg(add = clap_complete::ArgValueCandidates::new(super::completions::devices)))]
    device: DeviceName,
    /// How long the device may take to hear of it, such as 1h
    #[arg(long)]
    valid: Option<SignedDuration>,
}

#[derive(Debug, clap::Args)]
pub struct RestartArgs {
    #[command(flatten)]
    device: DeviceArgs,
    /// Deployment.apps/namespace/name, as `leeward describe` shows it
    workload: ObjectKey,
}

#[derive(Debug, clap::Args)]
pub struct TokenArgs {
    /// Only for devices of this class
    #[arg(long)]
    class: Option<ClassName>,
    /// Where the device stands
    #[arg(long)]
    site: Option<String>,
    /// A label for the device, such as canary=yes; more by repeating it
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Let it take the name of a device that is known already, in its place
    #[arg(long)]
    replaces: bool,
    /// How long it can be used, such as 24h
    #[arg(long)]
    valid: Option<SignedDuration>,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

impl DeviceArgs {
    pub async fn run(self, access: AccessArgs, kind: IntentKind) -> Result<()> {
        let new = NewIntent {
            kind,
            ttl_seconds: ttl(self.valid)?,
        };
        let made = access.client()?.intend(&self.device, &new).await?;
        let until = made.not_after;
        note(&if made.sent {
            format!("intent {} sent to {}", made.id, self.device)
        } else {
            format!(
                "{} is not connected; intent {} waits for it until {until}",
                self.device, made.id
            )
        });
        Ok(())
    }
}

impl RestartArgs {
    pub async fn run(self, access: AccessArgs) -> Result<()> {
        self.device
            .run(
                access,
                IntentKind::Restart {
                    workload: self.workload,
                },
            )
            .await
    }
}

impl TokenArgs {
    pub async fn run(self, access: AccessArgs) -> Result<()> {
        let new = NewToken {
            class: self.class,
            site: self.site,
            labels: self.labels.into_iter().collect(),
            replaces: self.replaces,
            ttl_seconds: ttl(self.valid)?,
            ..NewToken::default()
        };
        let made = access.client()?.create_token(&new).await?;
        let left = made
            .expires_at
            .duration_since(Timestamp::now())
            .as_secs()
            .max(0)
            .unsigned_abs();
        note(&format!(
            "good for one device, within {}; shown once",
            seconds(left)
        ));
        one(self.output, &made, || format!("{}\n", made.token))
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

fn ttl(valid: Option<SignedDuration>) -> Result<Option<u64>> {
    valid
        .map(|valid| u64::try_from(valid.as_secs()).context("--valid must not be negative"))
        .transpose()
}
