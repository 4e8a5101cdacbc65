//! Flux's source objects, as the source crate fetches them.

use render::RenderError;
use render::flux::{
    BucketSpec, FluxSource, GitRepositorySpec, OciRepositorySpec, SourceSpec as Said, duration,
};
use serde_json::Value;
use source::{GitAuth, GitRef, GitSpec, OciRef, OciSpec, S3Keys, SourceSpec};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A source to fetch, and when it is looked at again.
#[derive(Debug, Clone)]
pub(crate) struct Other {
    pub spec: SourceSpec,
    /// Between two looks.
    pub interval: Duration,
    /// Whether it stays as it is for now.
    pub suspended: bool,
    /// What `spec` names by its path, for as long as it is used.
    _keys: Option<Arc<KeyFiles>>,
}

impl Other {
    /// # Errors
    /// What Flux can do and this does not, by its field; a Secret without what is needed.
    pub fn of(source: &FluxSource) -> Result<Self, RenderError> {
        let (spec, keys, interval, suspended) = match &source.spec {
            Said::Git(said) => {
                let (spec, keys) = git(said, source.secret.as_ref())?;
                (SourceSpec::Git(spec), keys, &said.interval, said.suspend)
            }
            Said::Oci(said) => (
                SourceSpec::Oci(oci(said, source)?),
                None,
                &said.interval,
                said.suspend,
            ),
            Said::Bucket(said) => (
                SourceSpec::Bucket(bucket(said, source)?),
                None,
                &said.interval,
                said.suspend,
            ),
        };
        Ok(Self {
            spec,
            // The field is required; where it is empty nevertheless, as often as Flux's own examples.
            interval: duration(interval)
                .filter(|interval| !interval.is_zero())
                .unwrap_or(Duration::from_secs(600)),
            suspended,
            _keys: keys.map(Arc::new),
        })
    }
}

type Data = BTreeMap<String, String>;

/// The first of these fields that is given is refused.
fn refuse(fields: &[(&str, bool)]) -> Result<(), RenderError> {
    match fields.iter().find(|(_, given)| *given) {
        Some((field, _)) => Err(RenderError::unsupported(
            format!("spec.sourceRef: {field}"),
            "a device does not do this, and does not take the source without it; leave the field out, or copy the \
             files into the repository",
        )),
        None => Ok(()),
    }
}

fn is_foreign(provider: Option<&str>, known: &[&str]) -> bool {
    provider.is_some_and(|provider| !provider.is_empty() && !known.contains(&provider))
}

fn lacks(source: &str, keys: &str) -> RenderError {
    RenderError::unsupported(
        "spec.sourceRef: secretRef",
        format!("the Secret of this {source} has to hold {keys}"),
    )
}

fn git(said: &GitRepositorySpec, secret: Option<&Data>) -> Result<(GitSpec, Option<KeyFiles>), RenderError> {
    refuse(&[
        ("verify", said.verify.is_some()),
        ("provider", is_foreign(said.provider.as_deref(), &["generic"])),
        ("proxySecretRef", said.proxy_secret_ref.is_some()),
        ("serviceAccountName", said.service_account_name.is_some()),
        ("recurseSubmodules", said.recurse_submodules),
        ("include", !said.include.is_empty()),
    ])?;
    let given = |key: &str| secret.and_then(|data| data.get(key)).cloned();
    let mut files = None;
    let auth = match secret {
        None => GitAuth::None,
        Some(_) if said.url.starts_with("ssh://") => match (given("identity"), given("known_hosts")) {
            (Some(key), Some(hosts)) => {
                let kept = KeyFiles::write(&key, &hosts).map_err(|err| {
                    RenderError::unreachable(format!("the deploy key cannot be kept in memory: {err}"))
                })?;
                let auth = GitAuth::Ssh {
                    key: kept.path("identity"),
                    known_hosts: kept.path("known_hosts"),
                };
                files = Some(kept);
                auth
            }
            _ => return Err(lacks("GitRepository", "identity and known_hosts")),
        },
        Some(_) => match (given("username"), given("password")) {
            (user, Some(token)) => GitAuth::Token {
                user: user.unwrap_or_default(),
                token,
            },
            (None, None) if given("ca.crt").or(given("caFile")).is_some() => GitAuth::None,
            _ => return Err(lacks("GitRepository", "username and password")),
        },
    };
    let reference = said.r#ref.clone().unwrap_or_default();
    let spec = GitSpec {
        url: said.url.clone(),
        reference: match reference {
            render::flux::GitRepositoryRef { commit: Some(id), .. } => GitRef::Commit(id),
            render::flux::GitRepositoryRef { name: Some(name), .. } if name.starts_with("refs/tags/") => {
                GitRef::Tag(name)
            }
            render::flux::GitRepositoryRef { name: Some(name), .. } => GitRef::Branch(name),
            render::flux::GitRepositoryRef {
                semver: Some(range), ..
            } => GitRef::Semver(range),
            render::flux::GitRepositoryRef { tag: Some(tag), .. } => GitRef::Tag(tag),
            // Flux's default, whatever the repository's own is.
            reference => GitRef::Branch(reference.branch.unwrap_or_else(|| "master".to_owned())),
        },
        auth,
        ca: given("ca.crt").or(given("caFile")).map(String::into_bytes),
        include: said.sparse_checkout.clone(),
        ignore: said.ignore.clone(),
    };
    Ok((spec, files))
}

fn authority(source: &FluxSource) -> Option<Vec<u8>> {
    let data = source.certificates.as_ref()?;
    data.get("ca.crt")
        .or_else(|| data.get("caFile"))
        .map(|pem| pem.clone().into_bytes())
}

fn oci(said: &OciRepositorySpec, source: &FluxSource) -> Result<OciSpec, RenderError> {
    let selector = said.layer_selector.as_ref();
    let selected = |key: &str| selector.and_then(|it| it.get(key)).and_then(Value::as_str);
    refuse(&[
        ("verify", said.verify.is_some()),
        ("provider", is_foreign(said.provider.as_deref(), &["generic"])),
        ("proxySecretRef", said.proxy_secret_ref.is_some()),
        ("serviceAccountName", said.service_account_name.is_some()),
        (
            "layerSelector.operation",
            selected("operation").is_some_and(|operation| operation != "extract"),
        ),
    ])?;
    let config = match &source.secret {
        None => None,
        Some(data) => match data.get(".dockerconfigjson") {
            Some(config) => Some(config.clone().into_bytes()),
            None => return Err(lacks("OCIRepository", ".dockerconfigjson")),
        },
    };
    let reference = said.r#ref.clone().unwrap_or_default();
    let reference = match (reference.digest, reference.semver, reference.tag) {
        (Some(digest), ..) => OciRef::Digest(digest.parse().map_err(|_| {
            RenderError::unsupported(
                "spec.sourceRef: ref.digest",
                format!("{digest:?} is no digest; write sha256: and 64 hexadecimal digits"),
            )
        })?),
        (None, Some(range), _) => OciRef::Semver {
            range,
            filter: reference.semver_filter,
        },
        (None, None, tag) => OciRef::Tag(tag.unwrap_or_else(|| "latest".to_owned())),
    };
    Ok(OciSpec {
        url: said.url.clone(),
        reference,
        media_type: selected("mediaType").map(str::to_owned),
        docker_config: config,
        login: None,
        ca: authority(source),
        insecure: said.insecure,
        ignore: said.ignore.clone(),
    })
}

fn bucket(said: &BucketSpec, source: &FluxSource) -> Result<source::BucketSpec, RenderError> {
    refuse(&[
        (
            "provider",
            is_foreign(said.provider.as_deref(), &["generic", "aws"]),
        ),
        ("sts", said.sts.is_some()),
        ("proxySecretRef", said.proxy_secret_ref.is_some()),
        ("serviceAccountName", said.service_account_name.is_some()),
    ])?;
    let keys = match &source.secret {
        None => None,
        Some(data) => match (data.get("accesskey"), data.get("secretkey")) {
            (Some(id), Some(secret)) => Some(S3Keys {
                id: id.clone(),
                secret: secret.clone(),
            }),
            _ => return Err(lacks("Bucket", "accesskey and secretkey")),
        },
    };
    Ok(source::BucketSpec {
        endpoint: said.endpoint.clone(),
        bucket: said.bucket_name.clone(),
        region: said.region.clone(),
        prefix: said.prefix.clone().unwrap_or_default(),
        keys,
        ca: authority(source),
        insecure: said.insecure,
        ignore: said.ignore.clone(),
    })
}

/// A deploy key that came as a Secret, for the ssh program: in memory, for its owner only, gone with this.
#[derive(Debug)]
struct KeyFiles(PathBuf);

/// A file system in memory that every Linux has.
const MEMORY: &str = "/dev/shm";

impl KeyFiles {
    fn write(key: &str, hosts: &str) -> std::io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = Path::new(MEMORY).join(format!("leeward-{}-{number}", std::process::id()));
        // One of an agent that was killed, whose number came again.
        if dir.exists() {
            std::fs::remove_dir_all(&dir)?;
        }
        std::fs::DirBuilder::new().create(&dir)?;
        let this = Self(dir);
        // OpenSSH wants the last line ended.
        for (name, text) in [
            ("identity", format!("{}\n", key.trim_end())),
            ("known_hosts", hosts.to_owned()),
        ] {
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(this.path(name))?
                .write_all(text.as_bytes())?;
        }
        Ok(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for KeyFiles {
    fn drop(&mut self) {
        // Nothing better can be done with what does not go; it is memory of its owner.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
