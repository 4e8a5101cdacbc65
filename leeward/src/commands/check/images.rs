//! Asking registries whether images are there for the devices' architecture.

use crate::commands::image::{Scratch, reach};
use crate::people::AccessArgs;
use ::check::{ImageAnswer, ImageNeed, Report};
use anyhow::Result;
use blobs::oci::ConfigFile;
use blobs::{Patience, Progress, Quota, Registries, RegistryError, Store};
use model::{ImageRef, Platform};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::task::JoinSet;

/// A check is waited for by a person: one try, and not for long.
const PATIENCE: Patience = Patience {
    first_wait: Duration::from_millis(200),
    longest_wait: Duration::from_millis(200),
    failures: 1,
    connect: Duration::from_secs(4),
    silence: Duration::from_secs(8),
};

/// An image's configuration is a few KiB.
const MOST_CONFIG: u64 = 4 << 20;

/// Adds the registries' answers to the report. Gives what was not looked at, and why.
pub async fn ask(
    report: &mut Report,
    access: &AccessArgs,
    offline: bool,
    plain_http: &[String],
) -> Result<Vec<String>> {
    let mut hosts: BTreeMap<String, Vec<(ImageNeed, ImageRef)>> = BTreeMap::new();
    for (need, image) in report.images.needs() {
        hosts
            .entry(image.registry.clone())
            .or_default()
            .push((need.clone(), image));
    }
    let count: usize = hosts.values().map(Vec::len).sum();
    if count == 0 {
        return Ok(Vec::new());
    }
    if offline {
        return Ok(vec![format!("{} (--offline)", images(count))]);
    }
    let scratch = Scratch::make()?;
    let asker = Asker {
        registries: Registries::new(PATIENCE),
        store: Store::open(&scratch.0, Quota::default())?,
        access: access.clone(),
    };
    let mut asking = JoinSet::new();
    for (host, needs) in hosts {
        let asker = asker.clone();
        let plain = plain_http.contains(&host);
        asking.spawn(async move { asker.host(host, needs, plain).await });
    }
    let mut not_checked = Vec::new();
    while let Some(answered) = asking.join_next().await {
        let (host, answers) = answered?;
        let unknown: Vec<&String> = answers
            .iter()
            .filter_map(|(_, answer)| match answer {
                ImageAnswer::Unknown { why } => Some(why),
                _ => None,
            })
            .collect();
        if let Some(why) = unknown.first() {
            not_checked.push(format!("{} of {host}: {why}", images(unknown.len())));
        }
        report.add_answers(answers.iter().map(|(need, answer)| (need, answer)));
    }
    not_checked.sort();
    Ok(not_checked)
}

fn images(count: usize) -> String {
    if count == 1 {
        "1 image".to_owned()
    } else {
        format!("{count} images")
    }
}

#[derive(Clone)]
struct Asker {
    registries: Registries,
    store: Store,
    access: AccessArgs,
}

impl Asker {
    /// One registry's images, one after another; where it does not answer once, it is not asked again.
    async fn host(
        self,
        host: String,
        needs: Vec<(ImageNeed, ImageRef)>,
        plain: bool,
    ) -> (String, Vec<(ImageNeed, ImageAnswer)>) {
        let mut answers = Vec::new();
        let mut gone: Option<String> = None;
        for (need, image) in needs {
            let answer = match &gone {
                Some(why) => ImageAnswer::Unknown { why: why.clone() },
                None => match self.image(&need, &image, plain).await {
                    Ok(answer) => answer,
                    Err(err) => {
                        let why = err.to_string();
                        gone = Some(why.clone());
                        ImageAnswer::Unknown { why }
                    }
                },
            };
            answers.push((need, answer));
        }
        (host, answers)
    }

    /// An error is one that other images of the registry will meet as well.
    async fn image(&self, need: &ImageNeed, image: &ImageRef, plain: bool) -> Result<ImageAnswer> {
        let credentials = reach(&self.registries, image, &self.access, plain)?;
        let platform = Platform {
            architecture: need
                .architecture
                .clone()
                .unwrap_or_else(|| Platform::host().architecture),
            ..Platform::host()
        };
        match self
            .registries
            .resolve(image, &platform, credentials.as_ref())
            .await
        {
            Ok(resolved) if need.architecture.is_some() => {
                let config = &resolved.manifest.config;
                self.registries
                    .fetch_blob(&self.store, image, config, credentials.as_ref(), Progress::none())
                    .await?;
                let text = self.store.read(&config.digest, MOST_CONFIG)?.unwrap_or_default();
                let config: ConfigFile = serde_json::from_slice(&text)?;
                let has = config.platform();
                Ok(if has.architecture == platform.architecture {
                    ImageAnswer::Fine
                } else {
                    ImageAnswer::OtherArchitectures {
                        offered: vec![has.to_string()],
                    }
                })
            }
            Ok(_) => Ok(ImageAnswer::Fine),
            Err(RegistryError::NotFound { .. }) => Ok(ImageAnswer::Missing),
            Err(RegistryError::WrongPlatform { offered, .. }) if need.architecture.is_some() => {
                Ok(ImageAnswer::OtherArchitectures {
                    offered: offered.iter().map(ToString::to_string).collect(),
                })
            }
            // Without an architecture asked for, it is enough that the image is there.
            Err(RegistryError::WrongPlatform { .. }) => Ok(ImageAnswer::Fine),
            Err(err @ (RegistryError::Unreachable { .. } | RegistryError::Silent { .. })) => Err(err.into()),
            Err(err) => Ok(ImageAnswer::Unknown { why: err.to_string() }),
        }
    }
}
