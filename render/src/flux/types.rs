//! Flux's objects, every field of their v1 API, decoded strictly.

use super::health::Rules;
use crate::{
    error::{Problem, RenderError, Result},
    yaml::{self, Node},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::BTreeMap;

type Texts = BTreeMap<String, String>;

macro_rules! flux {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase", default)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    )* };
}

/// A `Kustomization` of `kustomize.toolkit.fluxcd.io`.
#[derive(Debug, Clone, PartialEq)]
pub struct FluxKustomization {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`; "default" where absent.
    pub namespace: String,
    /// What it asks for.
    pub spec: KustomizationSpec,
    /// The object itself, as JSON.
    pub object: Value,
}

flux! {
    /// `spec` of a `Kustomization`.
    KustomizationSpec {
        /// How often it is applied again, as a Go duration.
        interval: String,
        /// How soon after a failure; `interval` where absent.
        retry_interval: Option<String>,
        /// How long applying and health checks may take.
        timeout: Option<String>,
        /// The folder, from the root of the source.
        path: String,
        /// Whether what is no longer in the source is deleted.
        prune: bool,
        /// Where the files come from.
        source_ref: SourceReference,
        /// Whether all objects must become healthy.
        wait: bool,
        /// Whether objects with changed immutable fields are made anew.
        force: bool,
        /// Whether nothing is done for now.
        suspend: bool,
        /// What must be ready before.
        depends_on: Vec<Dependency>,
        /// The namespace that all objects are put in.
        target_namespace: String,
        /// Labels and annotations for all objects.
        common_metadata: Option<CommonMetadata>,
        /// Put in front of all names.
        name_prefix: String,
        /// Put behind all names.
        name_suffix: String,
        /// Patches, after those of the kustomization.
        patches: Vec<FluxPatch>,
        /// Changes of images, over those of the kustomization.
        images: Vec<FluxImage>,
        /// Components, after those of the kustomization.
        components: Vec<String>,
        /// Whether components that are not there are left out.
        ignore_missing_components: bool,
        /// kustomize's `buildMetadata`.
        build_metadata: Vec<String>,
        /// Variables.
        post_build: Option<PostBuild>,
        /// Objects that must become healthy.
        health_checks: Vec<CrossNamespaceReference>,
        /// When objects of custom kinds are healthy, as CEL expressions.
        health_check_exprs: Vec<HealthCheckExpr>,
        /// How secrets are decrypted.
        decryption: Option<Decryption>,
        /// What becomes of the objects when the Kustomization goes: MirrorPrune, Delete, WaitForTermination, Orphan.
        deletion_policy: Option<String>,
        /// Whose rights are used.
        service_account_name: Option<String>,
        /// Another cluster to apply to.
        kube_config: Option<KubeConfig>,
        /// Fields whose drift is left alone.
        ignore: Vec<IgnoreRule>,
    }

    /// A source by kind and name.
    SourceReference {
        /// Its API version.
        api_version: Option<String>,
        /// `GitRepository`, `OCIRepository`, `Bucket`.
        kind: String,
        /// Its name.
        name: String,
        /// Its namespace; the referrer's own where absent.
        namespace: Option<String>,
    }

    /// Another Kustomization that must be ready.
    Dependency {
        /// Its name.
        name: String,
        /// Its namespace; the referrer's own where absent.
        namespace: Option<String>,
        /// When it counts as ready, as a CEL expression.
        ready_expr: Option<String>,
    }

    /// Metadata for all objects.
    CommonMetadata {
        /// Labels.
        labels: Texts,
        /// Annotations.
        annotations: Texts,
    }

    /// A patch of kustomize's, inline.
    FluxPatch {
        /// The patch, a strategic merge or JSON patch.
        patch: String,
        /// What it is for.
        target: Option<FluxSelector>,
    }

    /// Which objects a patch is for.
    FluxSelector {
        /// API group.
        group: String,
        /// API version.
        version: String,
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// Annotations, as a label selector.
        annotation_selector: String,
        /// Labels, as a label selector.
        label_selector: String,
    }

    /// A change of an image.
    FluxImage {
        /// The image's name now.
        name: String,
        /// Its new name.
        new_name: String,
        /// Its new tag.
        new_tag: String,
        /// Its new digest.
        digest: String,
    }

    /// Variables that are replaced after the build.
    PostBuild {
        /// Written values; they win over those of objects.
        substitute: Texts,
        /// Objects whose data are variables; later ones win.
        substitute_from: Vec<SubstituteReference>,
        /// `WithVariables` or `Always`.
        substitute_strategy: Option<String>,
    }

    /// An object whose data are variables.
    SubstituteReference {
        /// `ConfigMap` or `Secret`.
        kind: String,
        /// Its name, in the Kustomization's namespace.
        name: String,
        /// Whether it may be absent.
        optional: bool,
    }

    /// An object in any namespace.
    CrossNamespaceReference {
        /// Its API version.
        api_version: Option<String>,
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// Its namespace.
        namespace: Option<String>,
    }

    /// When objects of a kind are healthy.
    HealthCheckExpr {
        /// Their API version.
        api_version: String,
        /// Their kind.
        kind: String,
        /// CEL: healthy.
        current: String,
        /// CEL: not yet.
        in_progress: Option<String>,
        /// CEL: failed.
        failed: Option<String>,
    }

    /// How secrets are decrypted.
    Decryption {
        /// `sops`.
        provider: String,
        /// The Secret with the keys.
        secret_ref: Option<LocalReference>,
        /// Whose rights are used with a key service.
        service_account_name: Option<String>,
    }

    /// Another cluster.
    KubeConfig {
        /// The Secret with the kubeconfig.
        secret_ref: Option<Value>,
        /// The ConfigMap with provider settings.
        config_map_ref: Option<LocalReference>,
    }

    /// Fields whose drift is left alone.
    IgnoreRule {
        /// JSON pointers.
        paths: Vec<String>,
        /// In which objects.
        target: Option<FluxSelector>,
    }

    /// An object in the same namespace.
    LocalReference {
        /// Its name.
        name: String,
    }

    /// `spec` of a `GitRepository`.
    GitRepositorySpec {
        /// `https://`, `http://` or `ssh://`.
        url: String,
        /// The Secret with credentials.
        secret_ref: Option<LocalReference>,
        /// `generic`, `aws`, `azure`, `github`.
        provider: Option<String>,
        /// Whose rights are used with a provider.
        service_account_name: Option<String>,
        /// How often it is looked at.
        interval: String,
        /// How long fetching may take; 60 s where absent.
        timeout: Option<String>,
        /// What is checked out.
        r#ref: Option<GitRepositoryRef>,
        /// How commits and tags are verified.
        verify: Option<Value>,
        /// The Secret with a proxy.
        proxy_secret_ref: Option<LocalReference>,
        /// Ignored files, in the words of .gitignore, in place of `.sourceignore`.
        ignore: Option<String>,
        /// Whether nothing is done for now.
        suspend: bool,
        /// Whether submodules are fetched.
        recurse_submodules: bool,
        /// Other repositories, copied into folders.
        include: Vec<Value>,
        /// Folders that are fetched.
        sparse_checkout: Vec<String>,
    }

    /// What of a repository is checked out; a commit wins over a name, semver, tag, branch.
    GitRepositoryRef {
        /// A branch.
        branch: Option<String>,
        /// A tag.
        tag: Option<String>,
        /// A range of tags.
        semver: Option<String>,
        /// A full reference name.
        name: Option<String>,
        /// A commit.
        commit: Option<String>,
    }

    /// `spec` of an `OCIRepository`.
    OciRepositorySpec {
        /// `oci://registry/repository`.
        url: String,
        /// What is pulled.
        r#ref: Option<OciRepositoryRef>,
        /// Which layer, and how it is used.
        layer_selector: Option<Value>,
        /// `generic`, `aws`, `azure`, `gcp`.
        provider: Option<String>,
        /// The Secret with credentials, as of Docker.
        secret_ref: Option<LocalReference>,
        /// How the signature is verified.
        verify: Option<Value>,
        /// Whose image pull secrets are used.
        service_account_name: Option<String>,
        /// The Secret with certificates.
        cert_secret_ref: Option<LocalReference>,
        /// The Secret with a proxy.
        proxy_secret_ref: Option<LocalReference>,
        /// How often it is looked at.
        interval: String,
        /// How long pulling may take.
        timeout: Option<String>,
        /// Ignored files.
        ignore: Option<String>,
        /// Whether plain HTTP is allowed.
        insecure: bool,
        /// Whether nothing is done for now.
        suspend: bool,
    }

    /// What of an OCI repository is pulled; a digest wins over semver, tag.
    OciRepositoryRef {
        /// A digest.
        digest: Option<String>,
        /// A range of tags.
        semver: Option<String>,
        /// A regular expression that tags must match.
        semver_filter: Option<String>,
        /// A tag.
        tag: Option<String>,
    }

    /// `spec` of a `Bucket`.
    BucketSpec {
        /// `generic`, `aws`, `gcp`, `azure`.
        provider: Option<String>,
        /// The bucket's name.
        bucket_name: String,
        /// Host and port.
        endpoint: String,
        /// Security token service.
        sts: Option<Value>,
        /// Whether plain HTTP is allowed.
        insecure: bool,
        /// Region.
        region: Option<String>,
        /// Only objects with this prefix.
        prefix: Option<String>,
        /// The Secret with credentials.
        secret_ref: Option<LocalReference>,
        /// Whose rights are used with a provider.
        service_account_name: Option<String>,
        /// The Secret with certificates.
        cert_secret_ref: Option<LocalReference>,
        /// The Secret with a proxy.
        proxy_secret_ref: Option<LocalReference>,
        /// How often it is looked at.
        interval: String,
        /// How long fetching may take.
        timeout: Option<String>,
        /// Ignored files.
        ignore: Option<String>,
        /// Whether nothing is done for now.
        suspend: bool,
    }
}

impl FluxKustomization {
    pub(super) fn decode(node: &Node) -> Result<Self> {
        let metadata = |field| node.at(["metadata", field]).map_or("", Node::value).to_owned();
        let (name, namespace) = (metadata("name"), metadata("namespace"));
        let namespace = if namespace.is_empty() {
            "default".to_owned()
        } else {
            namespace
        };
        let place = |error: RenderError| error.on(format_args!("Kustomization/{namespace}/{name}"));
        let spec: KustomizationSpec = decode_spec(node).map_err(place)?;
        if spec.source_ref.name.is_empty() || spec.source_ref.kind.is_empty() {
            return Err(place(
                RenderError::configuration("a Kustomization needs a source")
                    .field("spec.sourceRef")
                    .remedy("name kind and name of a GitRepository"),
            ));
        }
        spec.validate().map_err(place)?;
        Rules::compile(&namespace, &spec).map_err(place)?;
        Ok(Self {
            name,
            namespace,
            spec,
            object: yaml::to_json(node).map_err(crate::bad_number)?,
        })
    }

    /// Namespace and name.
    pub(super) fn named(&self) -> (String, String) {
        (self.namespace.clone(), self.name.clone())
    }

    /// Namespaces and names of what it depends on.
    pub(super) fn dependencies(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.spec.depends_on.iter().map(|dependency| {
            let namespace = dependency.namespace.as_ref().unwrap_or(&self.namespace);
            (namespace.clone(), dependency.name.clone())
        })
    }
}

pub(super) fn decode_spec<T: DeserializeOwned>(node: &Node) -> Result<T> {
    let spec = node
        .get("spec")
        .ok_or_else(|| RenderError::configuration("the object has no spec").field("spec"))?;
    let mut value = yaml::to_json(spec).map_err(crate::bad_number)?;
    drop_nulls(&mut value);
    serde_json::from_value(value)
        .map_err(|error| RenderError::new(Problem::Configuration, error.to_string()).field("spec"))
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
