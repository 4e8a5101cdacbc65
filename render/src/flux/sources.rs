//! The sources that `Kustomization` objects read, beside the repository that is rendered.

use super::{
    Named, group_of, kustomize, name_of,
    types::{LocalReference, SourceReference},
    validate::SourceSpec,
};
use crate::{
    error::{Problem, RenderError, Result},
    trace::Made,
};
use model::{Object, Tree};
use std::collections::BTreeMap;
use std::rc::Rc;

/// A source with the Secrets that it names, for whoever fetches it.
#[derive(Debug, Clone)]
pub struct FluxSource {
    /// `metadata.namespace`; that of the referrer where it has none.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// What it says.
    pub spec: SourceSpec,
    /// The data of `spec.secretRef`.
    pub secret: Option<BTreeMap<String, String>>,
    /// The data of `spec.certSecretRef`.
    pub certificates: Option<BTreeMap<String, String>>,
    /// Whether it is the only Git repository that is defined beside its `Kustomization` objects.
    pub alone: bool,
}

/// The files of a source.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// All of them, without what is ignored.
    pub tree: Tree,
    /// As Flux writes it: `main@sha1:<commit>`, `1.0.0@sha256:<digest>`.
    pub revision: String,
}

/// What a source is to the one who renders.
#[derive(Debug, Clone)]
pub enum Sourced {
    /// The repository that is being rendered.
    Own,
    /// Another one.
    Other(Rc<Artifact>),
    /// Nobody is asked for it here.
    NotAsked,
}

impl FluxSource {
    /// Flux's name of the kind.
    pub fn kind(&self) -> &'static str {
        self.spec.kind()
    }
}

impl SourceSpec {
    /// Flux's name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Git(_) => "GitRepository",
            Self::Oci(_) => "OCIRepository",
            Self::Bucket(_) => "Bucket",
        }
    }

    fn secrets(&self) -> (Option<&LocalReference>, Option<&LocalReference>) {
        match self {
            Self::Git(spec) => (spec.secret_ref.as_ref(), None),
            Self::Oci(spec) => (spec.secret_ref.as_ref(), spec.cert_secret_ref.as_ref()),
            Self::Bucket(spec) => (spec.secret_ref.as_ref(), spec.cert_secret_ref.as_ref()),
        }
    }
}

/// Flux calls the source that it was started from so; on a device that is the one that the device follows.
const OWN: &str = "flux-system";

/// The sources that were defined so far, with the number of Git repositories beside each.
#[derive(Debug, Default)]
pub(super) struct Sources(Vec<(Named, SourceSpec, usize)>);

/// What a reference to a source leads to.
pub(super) enum Referred {
    /// Without a look at any object: the repository that is rendered.
    Own,
    /// An object of the repository.
    Defined(Box<FluxSource>),
    /// There is no such object.
    Undefined,
}

impl Sources {
    pub(super) fn add(&mut self, made: &[Made]) {
        let mut found = Vec::new();
        let of_flux = |made: &&Made| group_of(&made.node) == "source.toolkit.fluxcd.io";
        for made in made.iter().filter(of_flux) {
            // What does not decode is told where it is taken.
            if let Ok(object) = made.object()
                && let Ok(Some(spec)) = SourceSpec::decode(&object)
            {
                found.push((name_of(&made.node), spec));
            }
        }
        let git = |(_, spec): &&(Named, SourceSpec)| matches!(spec, SourceSpec::Git(_));
        let count = found.iter().filter(git).count();
        self.0
            .extend(found.into_iter().map(|(named, spec)| (named, spec, count)));
    }

    fn find(&self, reference: &SourceReference, namespace: &str) -> Option<&(Named, SourceSpec, usize)> {
        self.0.iter().find(|((n, name), spec, _)| {
            spec.kind() == reference.kind && *name == reference.name && (n == namespace || n.is_empty())
        })
    }

    /// Whether a Secret is needed to read what a reference names.
    pub(super) fn has_secret(&self, reference: &SourceReference, namespace: &str) -> bool {
        let namespace = reference.namespace.as_deref().unwrap_or(namespace);
        reference.name != OWN
            && self.find(reference, namespace).is_some_and(|(_, spec, _)| {
                let (secret, certificates) = spec.secrets();
                secret.or(certificates).is_some()
            })
    }

    /// `objects` are those that are rendered so far, the Secrets of sources among them.
    pub(super) fn refer(
        &self,
        reference: &SourceReference,
        namespace: &str,
        objects: &[Object],
    ) -> Result<Referred> {
        if reference.name == OWN {
            return Ok(Referred::Own);
        }
        let namespace = reference.namespace.as_deref().unwrap_or(namespace);
        let Some((_, spec, git)) = self.find(reference, namespace) else {
            return Ok(match reference.kind.as_str() {
                "GitRepository" => Referred::Own,
                _ => Referred::Undefined,
            });
        };
        let data = |named: Option<&LocalReference>| {
            named
                .map(|named| secret(&named.name, namespace, objects))
                .transpose()
        };
        let (secret, certificates) = spec.secrets();
        Ok(Referred::Defined(Box::new(FluxSource {
            namespace: namespace.to_owned(),
            name: reference.name.clone(),
            secret: data(secret)?,
            certificates: data(certificates)?,
            alone: *git == 1 && matches!(spec, SourceSpec::Git(_)),
            spec: spec.clone(),
        })))
    }
}

fn secret(name: &str, namespace: &str, objects: &[Object]) -> Result<BTreeMap<String, String>> {
    let found = objects.iter().find(|object| {
        object.group().is_empty()
            && object.kind() == "Secret"
            && object.name() == name
            && (object.namespace() == namespace || object.namespace().is_empty())
    });
    let object = found.ok_or_else(|| {
        RenderError::new(
            Problem::NotFound,
            format!("the source needs the Secret {namespace}/{name}, which is not in the repository"),
        )
        .remedy("add it beside the source, encrypted with SOPS")
    })?;
    kustomize::raw_data(object)
}
