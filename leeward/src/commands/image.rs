//! `leeward image`: container images from static binaries and files, without Docker.

use crate::exit::Refused;
use crate::people::AccessArgs;
use crate::print::{Output, note, one};
use anyhow::{Context as _, Result};
use blobs::build::{Built, ImageBuild, ImageFile, Source, export_layout, index};
use blobs::oci::{Descriptor, ImageConfig};
use blobs::{
    Credentials, DockerConfig, Endpoint, Patience, Progress, Quota, Registries, RegistryConfig, Store, Tls,
};
use model::{ImageRef, Platform};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The name by which manifests in Git call the hub's registry.
const HUB_REGISTRY: &str = "registry.leeward.internal";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Build an image, or an index of several platforms, and push it or write an OCI layout
    Build(Box<Build>),
}

#[derive(Debug, clap::Args)]
struct Build {
    /// Name of the image; registry.leeward.internal is the hub's own registry
    #[arg(short, long, value_name = "IMAGE")]
    tag: ImageRef,
    /// Description of the image (YAML), for several platforms; see the guide
    #[arg(long, value_name = "FILE", conflicts_with_all = ["add", "entrypoint", "cmd", "env", "port", "user", "workdir"])]
    spec: Option<PathBuf>,
    /// Copy a file or folder: SOURCE:PATH
    #[arg(long, value_parser = copy)]
    add: Vec<(PathBuf, String)>,
    /// Program and arguments, one word each
    #[arg(long)]
    entrypoint: Vec<String>,
    /// Default arguments, one word each
    #[arg(long)]
    cmd: Vec<String>,
    /// NAME=VALUE
    #[arg(long)]
    env: Vec<String>,
    /// Port that the program listens at, such as 8080/tcp
    #[arg(long)]
    port: Vec<String>,
    /// User and group, by number
    #[arg(long)]
    user: Option<String>,
    /// Working folder
    #[arg(long)]
    workdir: Option<String>,
    /// linux/amd64, linux/arm64, linux/arm/v7; this machine's where absent
    #[arg(long, value_parser = platform)]
    platform: Option<Platform>,
    /// Accept programs that need a loader which the image does not hold
    #[arg(long)]
    allow_dynamic: bool,
    /// Push to the registry in the name
    #[arg(long)]
    push: bool,
    /// Write an OCI image layout into this folder
    #[arg(long, value_name = "DIR")]
    layout: Option<PathBuf>,
    /// Talk plain HTTP to the registry
    #[arg(long)]
    plain_http: bool,
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

/// `--spec`: what all platforms share, and the files of each.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Spec {
    #[serde(default)]
    entrypoint: Vec<String>,
    #[serde(default)]
    cmd: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    #[serde(default)]
    ports: Vec<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    workdir: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    allow_dynamic: bool,
    /// Files of every platform: path in the image to file, relative to the spec.
    #[serde(default)]
    files: BTreeMap<String, PathBuf>,
    /// Files of each platform beside those.
    platforms: BTreeMap<String, BTreeMap<String, PathBuf>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    image: String,
    digest: String,
    platforms: Vec<String>,
    layer_bytes: u64,
    pushed: bool,
}

impl Args {
    pub async fn run(self, access: AccessArgs) -> Result<()> {
        let Verb::Build(build) = self.verb;
        build.run(access).await
    }
}

impl Build {
    async fn run(self, access: AccessArgs) -> Result<()> {
        if !self.push && self.layout.is_none() {
            return Err(Refused("say where the image goes: --push, --layout DIR, or both".to_owned()).into());
        }
        let scratch = Scratch::make()?;
        let store = Store::open(&scratch.0, Quota::default())?;
        let mut built: Vec<Built> = Vec::new();
        for build in self.builds()? {
            let made = build
                .build(&store)
                .with_context(|| format!("{} for {}", self.tag, build.platform))?;
            made.warnings
                .iter()
                .for_each(|warning| note(&format!("warning: {warning}")));
            built.push(made);
        }
        let top: Descriptor = match built.as_slice() {
            [only] => only.manifest.clone(),
            several => index(&store, several)?,
        };
        if let Some(dir) = &self.layout {
            export_layout(&store, &top, dir, &self.tag.to_string())?;
        }
        if self.push {
            self.push_to_registry(&store, &top, &access).await?;
        }
        let platforms = built
            .iter()
            .filter_map(|b| b.manifest.platform.as_ref())
            .map(ToString::to_string)
            .collect();
        let made = Made {
            image: self.tag.to_string(),
            digest: top.digest.to_string(),
            platforms,
            layer_bytes: built.iter().map(|b| b.layer_bytes).sum(),
            pushed: self.push,
        };
        one(self.output, &made, || format!("{}@{}\n", made.image, made.digest))
    }

    fn builds(&self) -> Result<Vec<ImageBuild>> {
        let Some(path) = &self.spec else {
            let files = self
                .add
                .iter()
                .map(|(source, path)| file(path, source.clone()))
                .collect();
            return Ok(vec![ImageBuild {
                platform: self.platform.clone().unwrap_or_else(Platform::host),
                files,
                config: self.flags().config(),
                allow_dynamic: self.allow_dynamic,
            }]);
        };
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let spec: Spec =
            serde_saphyr::from_str(&text).map_err(|err| Refused(format!("{}: {err}", path.display())))?;
        let base = path.parent().unwrap_or(Path::new("."));
        let own = |files: &BTreeMap<String, PathBuf>| -> Vec<ImageFile> {
            files
                .iter()
                .map(|(path, source)| file(path, base.join(source)))
                .collect()
        };
        spec.platforms
            .iter()
            .map(|(name, files)| {
                let platform = platform(name).map_err(|why| Refused(format!("{}: {why}", path.display())))?;
                Ok(ImageBuild {
                    platform,
                    files: [own(&spec.files), own(files)].concat(),
                    config: spec.config(),
                    allow_dynamic: spec.allow_dynamic,
                })
            })
            .collect()
    }

    /// What the flags say, as a file would.
    fn flags(&self) -> Spec {
        Spec {
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
            env: self.env.clone(),
            ports: self.port.clone(),
            user: self.user.clone(),
            workdir: self.workdir.clone(),
            allow_dynamic: self.allow_dynamic,
            ..Spec::default()
        }
    }

    async fn push_to_registry(&self, store: &Store, top: &Descriptor, access: &AccessArgs) -> Result<()> {
        let registries = Registries::new(Patience::default());
        let credentials = reach(&registries, &self.tag, access, self.plain_http)?;
        registries
            .push(
                store,
                &top.digest,
                &self.tag,
                credentials.as_ref(),
                Progress::none(),
            )
            .await
            .with_context(|| format!("cannot push {}", self.tag))
    }
}

impl Spec {
    fn config(&self) -> ImageConfig {
        ImageConfig {
            entrypoint: self.entrypoint.clone(),
            cmd: self.cmd.clone(),
            env: self.env.clone(),
            user: self.user.clone().unwrap_or_default(),
            working_dir: self.workdir.clone().unwrap_or_default(),
            exposed_ports: self.ports.clone(),
            labels: self.labels.clone(),
            ..ImageConfig::default()
        }
    }
}

fn file(path: &str, source: PathBuf) -> ImageFile {
    ImageFile {
        path: path.to_owned(),
        source: Source::Path(source),
        mode: None,
    }
}

fn copy(text: &str) -> Result<(PathBuf, String), String> {
    let (source, path) = text
        .split_once(':')
        .ok_or("write SOURCE:PATH, such as ./app:/usr/bin/app")?;
    Ok((source.into(), path.to_owned()))
}

fn platform(text: &str) -> Result<Platform, String> {
    let mut parts = text.split('/').map(str::to_owned);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(os), Some(architecture), variant, None) => Ok(Platform {
            os,
            architecture,
            variant,
        }),
        _ => Err(format!(
            "{text:?} is no platform: write linux/arm64 or linux/arm/v7"
        )),
    }
}

/// What `docker login` or `podman login` left for the registry.
/// Sets up the way to an image's registry, and gives the credentials for it: those of a person for the hub's own
/// registry, those of `docker login` for all others.
pub(super) fn reach(
    registries: &Registries,
    image: &ImageRef,
    access: &AccessArgs,
    plain_http: bool,
) -> Result<Option<Credentials>> {
    let host = &image.registry;
    if host == HUB_REGISTRY {
        let hub = access.read()?;
        let mut endpoint = Endpoint::new(&format!("https://{}", hub.hub));
        endpoint.tls = Tls::Config(identity::tls::person(&hub.ca)?);
        registries.configure(host, RegistryConfig::at(endpoint))?;
        return Ok(Some(Credentials::Bearer(hub.token)));
    }
    if plain_http {
        let endpoint = Endpoint::plain(&format!("http://{host}"));
        registries.configure(host, RegistryConfig::at(endpoint))?;
    }
    Ok(docker_credentials(image))
}

fn docker_credentials(image: &ImageRef) -> Option<Credentials> {
    let home = std::env::var_os("HOME").map(PathBuf::from)?;
    let bytes = std::fs::read(home.join(".docker/config.json")).ok()?;
    DockerConfig::parse(&bytes).ok()?.find(image).cloned()
}

/// A folder for a while.
pub(super) struct Scratch(pub PathBuf);

impl Scratch {
    pub fn make() -> Result<Self> {
        let name = format!(
            "leeward-image-{}-{}",
            std::process::id(),
            jiff::Timestamp::now().as_nanosecond()
        );
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).with_context(|| dir.display().to_string())?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left over in the temporary folder is the system's to clean.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
