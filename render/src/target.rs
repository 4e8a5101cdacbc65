//! One build: kustomizations read depth first, each transforming what its resources gave.

use crate::{
    config::{Config, FieldSpec, merge_shared, merge_spec, merge_specs},
    error::{Problem, RenderError, Result},
    generators, hash,
    kustomization::{Kustomization, Label, ReplacementField, Var, decode},
    loader::Loader,
    names, plugins, reader, replacements,
    resource::Resources,
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
    pub warnings: Vec<String>,
}

/// A kustomization file and where it is.
pub(crate) struct Target<'a> {
    pub loader: Loader<'a>,
    pub file: Rc<str>,
    pub kustomization: Kustomization,
}

impl Builder {
    pub fn new() -> Self {
        Self {
            built_in: Rc::new(Config::built_in()),
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
                format!(
                    "there is no kustomization file in {}",
                    if loader.root().is_empty() {
                        "the root"
                    } else {
                        loader.root()
                    }
                ),
            )
            .remedy("add a kustomization.yaml that lists the folder's resources"));
        };
        if let Some(second) = found.next() {
            return Err(RenderError::configuration(format!(
                "{} has both {name} and {second}",
                loader.root()
            ))
            .remedy("keep one of them"));
        }
        let file = loader.display(name);
        let text = loader.read_text(name)?;
        let kustomization = Kustomization::parse(&text, &file, &mut self.warnings)?;
        Ok(Target {
            loader,
            file: file.into(),
            kustomization,
        })
    }

    /// Builds the kustomization of the root folder.
    pub fn build(&mut self, target: &Target<'_>) -> Result<Resources> {
        let empty = self.empty();
        let mut all = self.accumulate(target, empty)?;
        for resource in &mut all.resources.0 {
            if resource.needs_hash {
                let suffix = hash::suffix(resource).map_err(|error| resource.blame(error))?;
                resource.store_previous_id();
                let name = format!("{}-{suffix}", resource.name());
                resource.set_name(&name);
            }
        }
        names::update(&mut all.resources, &all.config)?;
        vars::resolve(&mut all.resources, &all.vars, &all.config)
            .map_err(|error| error.in_file(&*target.file))?;
        let local = |value: Option<&str>| value.is_some_and(|value| value != "false");
        all.resources
            .0
            .retain(|resource| !local(resource.annotation("config.kubernetes.io/local-config")));
        sort::sort(&mut all.resources, target.kustomization.sort_options.as_ref())
            .map_err(|error| error.in_file(&*target.file))?;
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
        self.configure(&mut all, target).map_err(place)?;
        self.generate(&mut all, target)?;
        for path in &kustomization.components {
            let loader = target
                .loader
                .enter(path)
                .map_err(|error| place(error.field("components")))?;
            let component = self.load(loader)?;
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
            let file: Rc<str> = loader.display(path).into();
            let text = loader.read_text(path).map_err(place)?;
            let objects = reader::objects(&text, Some(&file))?;
            return all.resources.append(Resources(objects));
        }
        let base = self.load(loader.enter(path).map_err(place)?).map_err(place)?;
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
        all.resources.append(base.resources)?;
        merge_shared(&mut all.config, &base.config)?;
        vars::add(&mut all.vars, &base.vars).map_err(place)
    }

    /// Adds the files in `configurations`.
    fn configure(&self, all: &mut Accumulator, target: &Target<'_>) -> Result<()> {
        let kustomization = &target.kustomization;
        if !kustomization.configurations.is_empty() {
            let mut config = Config::clone(&self.built_in);
            for entry in &kustomization.configurations {
                let read = || {
                    let text = if entry.contains('\n') {
                        entry.as_str().into()
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
            let made = generators::generate(kind, args, options, &target.loader, &target.file)?;
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
        let loader = &target.loader;
        let config = all.config.clone();
        let resources = &mut all.resources;
        for entry in &kustomization.patches_strategic_merge {
            patches::apply_merge(resources, entry, loader)?;
        }
        drop_deleted(resources);
        for patch in &kustomization.patches {
            patches::apply(resources, patch, loader)?;
            drop_deleted(resources);
        }
        let options = namespace::Options {
            namespace: &kustomization.namespace,
            specs: &config.namespace,
            unset_only: false,
            subjects: namespace::Subjects::DefaultOnly,
        };
        namespace::set(resources, &options)?;
        metadata::extend_names(
            resources,
            End::Prefix,
            &kustomization.name_prefix,
            &config.name_prefix,
        )?;
        metadata::extend_names(
            resources,
            End::Suffix,
            &kustomization.name_suffix,
            &config.name_suffix,
        )?;
        for label in &kustomization.labels {
            metadata::set_pairs(resources, &label.pairs, &label_specs(label, &config)?)?;
        }
        metadata::set_pairs(resources, &kustomization.common_labels, &config.common_labels)?;
        metadata::set_pairs(
            resources,
            &kustomization.common_annotations,
            &config.common_annotations,
        )?;
        for patch in &kustomization.patches_json6902 {
            patches::apply_json(resources, patch, loader)?;
        }
        for replica in &kustomization.replicas {
            metadata::set_replicas(resources, replica, &config.replicas)?;
        }
        for image in &kustomization.images {
            images::set(resources, image, &config.images)?;
        }
        for replacement in &kustomization.replacements {
            for replacement in load_replacements(replacement, loader)? {
                replacements::apply(resources, &replacement)?;
            }
        }
        for entry in &kustomization.transformers {
            plugins::transform(resources, self, target, entry)
                .map_err(|error| error.field("transformers"))?;
            drop_deleted(resources);
        }
        Ok(())
    }

    /// What a path or text in `generators`, `transformers` or `validators` configures.
    pub fn plugin_configs(&mut self, target: &Target<'_>, entry: &str) -> Result<Resources> {
        if let Ok(objects) = reader::objects(entry, None) {
            return Ok(Resources(objects));
        }
        let mut all = self.empty();
        self.add_resource(&mut all, target, entry)?;
        Ok(all.resources)
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
    if config.labels.is_empty() {
        merge_spec(&mut specs, &FieldSpec::everywhere("metadata/labels", true))?;
    } else {
        merge_specs(&mut specs, &config.labels)?;
    }
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
