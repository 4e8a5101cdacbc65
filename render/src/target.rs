//! One build: kustomizations read depth first, each transforming what its resources gave.

use crate::{
    config::{Config, FieldSpec, merge_shared, merge_spec, merge_specs},
    error::{Problem, RenderError, Result},
    generators, hash,
    kube::Schemas,
    kustomization::{Kustomization, Label, ReplacementField, Var, decode},
    loader::Loader,
    names,
    origin::{self, Origin, Place},
    plugins, reader, replacements,
    repository::{Repository, is_http},
    resource::{Resource, Resources},
    trace,
    transform::{images, metadata, metadata::End, namespace, patches, sort},
    vars,
    yaml::{self, Node},
};
use std::rc::Rc;

/// Names that a kustomization file may have.
pub(crate) const FILE_NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// Objects, and what is known about changing them.
pub(crate) struct Accumulator {
    pub resources: Resources,
    pub config: Rc<Config>,
    vars: Vec<Var>,
}

pub(crate) struct Builder {
    built_in: Rc<Config>,
    /// How lists merge, once a kustomization has chosen; the built-in way before.
    schemas: Option<Schemas>,
    /// `buildMetadata` of the root.
    metadata: Vec<String>,
    pub warnings: Vec<String>,
}

/// A kustomization file and where it is.
pub(crate) struct Target<'a> {
    pub loader: Loader<'a>,
    /// The file, for messages.
    pub file: Rc<str>,
    /// Its name in its folder.
    pub name: &'static str,
    pub kustomization: Kustomization,
    /// The folder, as origin annotations tell it.
    pub place: Place,
}

/// What an address in `resources` turned out to be.
enum Remote<'a> {
    File(Resources),
    Base(Box<Target<'a>>),
}

impl Builder {
    pub fn new() -> Self {
        Self {
            built_in: Rc::new(Config::built_in()),
            schemas: None,
            metadata: Vec::new(),
            warnings: Vec::new(),
        }
    }

    fn empty(&self) -> Accumulator {
        Accumulator {
            resources: Resources::default(),
            config: self.built_in.clone(),
            vars: Vec::new(),
        }
    }

    /// Reads the kustomization file of a folder.
    pub fn load<'t>(&mut self, loader: Loader<'t>) -> Result<Target<'t>> {
        let mut found = FILE_NAMES.iter().filter(|name| loader.has_file(name));
        let Some(name) = found.next() else {
            return Err(RenderError::new(
                Problem::NotFound,
                format!("there is no kustomization file in {}", shown(&loader)),
            )
            .remedy("add a kustomization.yaml that lists the folder's resources"));
        };
        if let Some(second) = found.next() {
            return Err(RenderError::configuration(format!(
                "{} has both {name} and {second}",
                shown(&loader)
            ))
            .remedy("keep one of them"));
        }
        let file = loader.display(name);
        let text = loader.read_text(name)?;
        let kustomization = Kustomization::parse(&text, &file, &mut self.warnings)?;
        self.use_openapi(&kustomization, &loader)
            .map_err(|error| error.in_file(file.as_str()).field("openapi"))?;
        Ok(Target {
            loader,
            file: file.into(),
            name,
            kustomization,
            place: Place::default(),
        })
    }

    /// Takes the schema that a kustomization names; the outermost one counts.
    fn use_openapi(&mut self, kustomization: &Kustomization, loader: &Loader<'_>) -> Result<()> {
        let openapi = &kustomization.openapi;
        let (path, version) = (openapi.get("path"), openapi.get("version"));
        if path.is_some() && version.is_some() {
            return Err(RenderError::configuration("path and version exclude each other"));
        }
        if let Some(version) = version {
            if version != "v1.21.2" {
                return Err(RenderError::configuration(format!(
                    "the Kubernetes schema {version} is not built in; v1.21.2 is"
                )));
            }
            self.schemas.get_or_insert_default();
        }
        let Some(path) = path else {
            return Ok(());
        };
        let text = loader.read_text(path)?;
        let place = |error: RenderError| error.in_file(loader.display(path));
        let documents = yaml::parse_lenient(&text).map_err(|error| {
            place(RenderError::new(Problem::Unreadable, error.message).at_line(error.line))
        })?;
        let definitions = documents
            .first()
            .and_then(|document| document.root.get("definitions"));
        if let (None, Some(definitions)) = (&self.schemas, definitions) {
            self.schemas = Some(Schemas::Custom(
                yaml::to_json(definitions).map_err(crate::bad_number)?,
            ));
        }
        Ok(())
    }

    /// Builds the kustomization of the root folder.
    pub fn build(&mut self, target: &Target<'_>) -> Result<Resources> {
        self.metadata.clone_from(&target.kustomization.build_metadata);
        let empty = self.empty();
        let mut all = self.accumulate(target, empty)?;
        hash::rename(&mut all.resources)?;
        names::update(&mut all.resources, &all.config)?;
        vars::resolve(&mut all.resources, &all.vars, &all.config)
            .map_err(|error| error.in_file(&*target.file))?;
        let local = |value: Option<&str>| value.is_some_and(|value| value != "false");
        all.resources
            .0
            .retain(|resource| !local(resource.annotation("config.kubernetes.io/local-config")));
        sort::sort(&mut all.resources, target.kustomization.sort_options.as_ref())
            .map_err(|error| error.in_file(&*target.file))?;
        origin::annotate(&mut all.resources, &self.metadata);
        for resource in &mut all.resources.0 {
            tidy_annotations(&mut resource.node);
        }
        Ok(all.resources)
    }

    fn accumulate(&mut self, target: &Target<'_>, mut all: Accumulator) -> Result<Accumulator> {
        let kustomization = &target.kustomization;
        let place = |error: RenderError| error.in_file(&*target.file);
        kustomization.refuse_unsupported().map_err(place)?;
        for path in &kustomization.resources {
            self.add_resource(&mut all, target, path)?;
        }
        // Once for all of them: file by file it would look at every object before again.
        all.resources.check_unique()?;
        self.configure(&mut all, target).map_err(place)?;
        self.generate(&mut all, target)?;
        for path in &kustomization.components {
            let loader = target
                .loader
                .enter(path)
                .map_err(|error| place(error.field("components")))?;
            let mut component = self.load(loader)?;
            component.place = target.place.join(path);
            if component.kustomization.kind != "Component" {
                return Err(RenderError::configuration(format!(
                    "kind should be Component, not {}, for {path} to be used as a component",
                    component.kustomization.kind
                ))
                .in_file(&*component.file)
                .field("kind"));
            }
            all = self.accumulate(&component, all)?;
        }
        self.transform(&mut all, target).map_err(place)?;
        for entry in &kustomization.validators {
            plugins::validate(&mut all.resources, self, target, entry).map_err(place)?;
        }
        vars::register(&mut all.resources, &mut all.vars, &kustomization.vars).map_err(place)?;
        Ok(all)
    }

    /// Adds what a path in `resources` names: a file of objects, or a folder with a kustomization.
    pub fn add_resource(&mut self, all: &mut Accumulator, target: &Target<'_>, path: &str) -> Result<()> {
        let loader = &target.loader;
        let place = |error: RenderError| error.in_file(&*target.file).field("resources");
        if loader.has_file(path) {
            let objects = self.read_objects(target, path).map_err(place)?;
            all.resources.0.extend(objects.0);
            return Ok(());
        }
        let mut base = if is_http(path) {
            match self.remote(target, path).map_err(place)? {
                Remote::File(objects) => {
                    all.resources.0.extend(objects.0);
                    return Ok(());
                }
                Remote::Base(base) => *base,
            }
        } else {
            self.load(loader.enter(path).map_err(place)?).map_err(place)?
        };
        base.place = target.place.join(path);
        if base.kustomization.kind == "Component" {
            return Err(RenderError::configuration(format!(
                "{path} is a Component, which resources may not name"
            ))
            .in_file(&*target.file)
            .field("resources")
            .remedy("list it under 'components'"));
        }
        let empty = self.empty();
        let base = self.accumulate(&base, empty)?;
        all.resources.0.extend(base.resources.0);
        merge_shared(&mut all.config, &base.config)?;
        vars::add(&mut all.vars, &base.vars).map_err(place)
    }

    fn read_objects(&self, target: &Target<'_>, path: &str) -> Result<Resources> {
        let file: Rc<str> = target.loader.display(path).into();
        let text = target.loader.read_text(path)?;
        let mut objects = reader::objects(&text, Some(&file))?;
        if !self.metadata.is_empty() {
            for object in &mut objects {
                object.origin = Some(Origin::file(target.place.join(path)));
            }
        }
        Ok(Resources(objects))
    }

    /// What a web address gives: a file of objects, or a folder of a repository.
    ///
    /// kustomize asks for the file first. Where the address says that it is one of a repository, that request is
    /// spared; either way the other meaning is tried before it is an error.
    fn remote<'t>(&mut self, target: &Target<'t>, url: &str) -> Result<Remote<'t>> {
        let repository = Repository::parse(url);
        let marked = repository.as_ref().is_some_and(|repository| repository.marked);
        if marked {
            return match target.loader.enter(url) {
                Ok(loader) => Ok(Remote::Base(Box::new(self.load(loader)?))),
                Err(no_base) => match self.read_objects(target, url) {
                    Ok(objects) => Ok(Remote::File(objects)),
                    Err(_) => Err(no_base),
                },
            };
        }
        match (self.read_objects(target, url), repository) {
            (Ok(objects), _) => Ok(Remote::File(objects)),
            (Err(no_file), None) => Err(no_file),
            (Err(no_file), Some(_)) => match target.loader.enter(url) {
                Ok(loader) => Ok(Remote::Base(Box::new(self.load(loader)?))),
                Err(no_base) => Err(no_file.also(&no_base)),
            },
        }
    }

    /// Adds the files in `configurations`.
    fn configure(&self, all: &mut Accumulator, target: &Target<'_>) -> Result<()> {
        let kustomization = &target.kustomization;
        if !kustomization.configurations.is_empty() {
            let mut config = Config::clone(&self.built_in);
            for entry in &kustomization.configurations {
                let read = || {
                    let text = if entry.contains('\n') {
                        entry.clone()
                    } else {
                        target.loader.read_text(entry)?
                    };
                    parse_config(&text)
                };
                let added = read().map_err(|error| {
                    error
                        .in_file(target.loader.display(entry))
                        .field("configurations")
                })?;
                config.merge(&added)?;
            }
            merge_shared(&mut all.config, &Rc::new(config))?;
        }
        if !kustomization.crds.is_empty() {
            let added = crate::crds::load(&target.loader, &kustomization.crds)?;
            merge_shared(&mut all.config, &Rc::new(added))?;
        }
        Ok(())
    }

    fn generate(&mut self, all: &mut Accumulator, target: &Target<'_>) -> Result<()> {
        let kustomization = &target.kustomization;
        let options = kustomization.generator_options.as_ref();
        let maps = kustomization
            .config_map_generator
            .iter()
            .map(|args| (generators::Kind::ConfigMap, args));
        let secrets = kustomization
            .secret_generator
            .iter()
            .map(|args| (generators::Kind::Secret, args));
        for (kind, args) in maps.chain(secrets) {
            let mut made = generators::generate(kind, args, options, &target.loader, &target.file)?;
            if !self.metadata.is_empty() {
                let configured_in = target.place.join(target.name);
                made.origin = Some(Origin::built_in(configured_in, kind.plugin()));
            }
            all.resources.absorb(made)?;
        }
        for entry in &kustomization.generators {
            plugins::generate(&mut all.resources, self, target, entry)
                .map_err(|error| error.in_file(&*target.file).field("generators"))?;
        }
        Ok(())
    }

    fn transform(&mut self, all: &mut Accumulator, target: &Target<'_>) -> Result<()> {
        let kustomization = &target.kustomization;
        let config = all.config.clone();
        let resources = &mut all.resources;
        self.patch(resources, target)?;
        self.rename(resources, target, &config)?;
        for patch in &kustomization.patches_json6902 {
            patches::apply_json(resources, patch, &target.loader)?;
            trace::note_patch(resources, &patch_file(target, &patch.path));
            self.note(resources, target, "PatchJson6902Transformer");
        }
        for replica in &kustomization.replicas {
            metadata::set_replicas(resources, replica, &config.replicas)?;
            self.note(resources, target, "ReplicaCountTransformer");
        }
        for image in &kustomization.images {
            images::set(resources, image, &config.images)?;
            self.note(resources, target, "ImageTagTransformer");
        }
        for entry in &kustomization.replacements {
            for replacement in load_replacements(entry, &target.loader)? {
                replacements::apply(resources, &replacement)?;
            }
        }
        if !kustomization.replacements.is_empty() {
            self.note(resources, target, "ReplacementTransformer");
        }
        for entry in &kustomization.transformers {
            plugins::transform(resources, self, target, entry)
                .map_err(|error| error.field("transformers"))?;
            trace::note_patch(resources, &target.file);
        }
        Ok(())
    }

    fn patch(&self, resources: &mut Resources, target: &Target<'_>) -> Result<()> {
        let kustomization = &target.kustomization;
        if !kustomization.patches_strategic_merge.is_empty() {
            for entry in &kustomization.patches_strategic_merge {
                patches::apply_merge(resources, entry, &target.loader, self.schemas())?;
                let path = if target.loader.has_file(entry) { entry } else { "" };
                trace::note_patch(resources, &patch_file(target, path));
            }
            drop_deleted(resources);
            self.note(resources, target, "PatchStrategicMergeTransformer");
        }
        for patch in &kustomization.patches {
            patches::apply(resources, patch, &target.loader, self.schemas())?;
            drop_deleted(resources);
            trace::note_patch(resources, &patch_file(target, &patch.path));
            self.note(resources, target, "PatchTransformer");
        }
        Ok(())
    }

    /// Namespace, names, labels and annotations.
    fn rename(&self, resources: &mut Resources, target: &Target<'_>, config: &Config) -> Result<()> {
        let kustomization = &target.kustomization;
        let options = namespace::Options {
            namespace: &kustomization.namespace,
            specs: &config.namespace,
            unset_only: false,
            subjects: namespace::Subjects::DefaultOnly,
        };
        if !options.namespace.is_empty() {
            namespace::set(resources, &options)?;
            self.note(resources, target, "NamespaceTransformer");
        }
        let (prefix, suffix) = (&kustomization.name_prefix, &kustomization.name_suffix);
        if !prefix.is_empty() {
            metadata::extend_names(resources, End::Prefix, prefix, &config.name_prefix)?;
            self.note(resources, target, "PrefixTransformer");
        }
        if !suffix.is_empty() {
            metadata::extend_names(resources, End::Suffix, suffix, &config.name_suffix)?;
            self.note(resources, target, "SuffixTransformer");
        }
        for label in &kustomization.labels {
            metadata::set_pairs(resources, &label.pairs, &label_specs(label, config)?)?;
            self.note(resources, target, "LabelTransformer");
        }
        if !kustomization.common_labels.is_empty() || !kustomization.labels.is_empty() {
            metadata::set_pairs(resources, &kustomization.common_labels, &config.common_labels)?;
            self.note(resources, target, "LabelTransformer");
        }
        if !kustomization.common_annotations.is_empty() {
            let annotations = &kustomization.common_annotations;
            metadata::set_pairs(resources, annotations, &config.common_annotations)?;
            self.note(resources, target, "AnnotationsTransformer");
        }
        Ok(())
    }

    /// Remembers what changed the objects, where that is asked for.
    fn note(&self, resources: &mut Resources, target: &Target<'_>, transformer: &str) {
        if !self.metadata.is_empty() {
            let configured_in = target.place.join(target.name);
            origin::note(resources, &Origin::built_in(configured_in, transformer));
        }
    }

    /// Where a plugin's configuration was read, where that is asked for.
    pub fn plugin_origin(&self, config: &Resource) -> Option<Origin> {
        (!self.metadata.is_empty()).then(|| plugins::origin_of(config))
    }

    /// How lists merge in this build.
    pub fn schemas(&self) -> &Schemas {
        self.schemas.as_ref().unwrap_or(&Schemas::BuiltIn)
    }

    /// What a path or text in `generators`, `transformers` or `validators` configures.
    pub fn plugin_configs(&mut self, target: &Target<'_>, entry: &str) -> Result<Resources> {
        if let Ok(mut objects) = reader::objects(entry, None) {
            for object in &mut objects {
                let path = target.place.join(target.name);
                object.origin = (!self.metadata.is_empty()).then(|| Origin::file(path));
            }
            return Ok(Resources(objects));
        }
        let mut all = self.empty();
        self.add_resource(&mut all, target, entry)?;
        all.resources.check_unique()?;
        Ok(all.resources)
    }
}

/// The file that a patch is in; the kustomization's own for one that is written there.
fn patch_file(target: &Target<'_>, path: &str) -> Rc<str> {
    match path {
        "" => target.file.clone(),
        path => target.loader.display(path).into(),
    }
}

fn shown(loader: &Loader<'_>) -> String {
    match loader.display(".") {
        root if root.is_empty() => "the root".to_owned(),
        folder => folder,
    }
}

fn drop_deleted(resources: &mut Resources) {
    resources.0.retain(|resource| !resource.is_deleted());
}

fn label_specs(label: &Label, config: &Config) -> Result<Vec<FieldSpec>> {
    let mut specs = label.fields.clone();
    if label.include_selectors {
        merge_specs(&mut specs, &config.common_labels)?;
        return Ok(specs);
    }
    if label.include_templates {
        merge_specs(&mut specs, &config.template_labels)?;
    }
    merge_specs(&mut specs, &config.labels)?;
    merge_spec(&mut specs, &FieldSpec::everywhere("metadata/labels", true))?;
    Ok(specs)
}

/// The replacements of an entry: itself, or those in the file that it names.
pub(crate) fn load_replacements(
    entry: &ReplacementField,
    loader: &Loader<'_>,
) -> Result<Vec<ReplacementField>> {
    if entry.path.is_empty() {
        return Ok(vec![entry.clone()]);
    }
    if entry.source.is_some() || entry.targets.is_some() {
        return Err(RenderError::configuration(
            "a replacement may not have a path beside source and targets",
        )
        .field("replacements"));
    }
    let file = loader.display(&entry.path);
    let text = loader.read_text(&entry.path)?;
    let documents = yaml::parse_documents(&text).map_err(|error| {
        RenderError::new(Problem::Unreadable, error.message)
            .in_file(file.as_str())
            .at_line(error.line)
    })?;
    let Some(document) = documents.first() else {
        return Ok(Vec::new());
    };
    let decoded = match &document.root {
        Node::Seq(_) => decode::<Vec<ReplacementField>>(&document.root),
        _ => decode::<ReplacementField>(&document.root).map(|one| vec![one]),
    };
    decoded.map_err(|error| error.in_file(file))
}

fn parse_config(text: &str) -> Result<Config> {
    let documents = yaml::parse_documents(text)
        .map_err(|error| RenderError::new(Problem::Unreadable, error.message).at_line(error.line))?;
    match documents.first() {
        Some(document) => decode(&document.root),
        None => Ok(Config::default()),
    }
}

/// kustomize writes annotations back as texts, and drops the field where none is left.
fn tidy_annotations(node: &mut Node) {
    let Some(metadata) = node.get_mut("metadata").and_then(Node::as_map_mut) else {
        return;
    };
    let Some(annotations) = metadata.get_mut("annotations") else {
        return;
    };
    match annotations {
        Node::Map(map) if !map.is_empty() => {
            for (_, value) in &mut map.0 {
                *value = Node::text(value.raw());
            }
        }
        _ => {
            metadata.remove("annotations");
        }
    }
}
