//! `generators`, `transformers` and `validators` that are built into kustomize.

use crate::{
    error::{Problem, RenderError, Result},
    resource::{Resource, Resources},
    target::{Builder, Target},
};

pub(crate) fn generate(
    resources: &mut Resources,
    builder: &mut Builder,
    target: &Target<'_>,
    entry: &str,
) -> Result<()> {
    let _ = resources;
    match builder.plugin_configs(target, entry)?.0.first() {
        Some(config) => Err(unsupported(config)),
        None => Ok(()),
    }
}

pub(crate) fn transform(
    resources: &mut Resources,
    builder: &mut Builder,
    target: &Target<'_>,
    entry: &str,
) -> Result<()> {
    let _ = resources;
    match builder.plugin_configs(target, entry)?.0.first() {
        Some(config) => Err(unsupported(config)),
        None => Ok(()),
    }
}

pub(crate) fn validate(
    resources: &mut Resources,
    builder: &mut Builder,
    target: &Target<'_>,
    entry: &str,
) -> Result<()> {
    transform(resources, builder, target, entry)
}

fn unsupported(config: &Resource) -> RenderError {
    config.blame(
        RenderError::new(
            Problem::Unsupported,
            format!(
                "{}/{} is no plugin that is built in",
                config.api_version(),
                config.kind()
            ),
        )
        .remedy("commit what the plugin makes instead"),
    )
}
