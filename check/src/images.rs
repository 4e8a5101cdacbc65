//! The images of workloads: who needs which for what architecture, and what a registry's answer means.

use crate::{Finding, Rule};
use model::{ImageRef, Object};
use std::collections::BTreeMap;

/// What a registry says of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageAnswer {
    /// It is there, for the architecture asked for.
    Fine,
    /// The registry does not have it.
    Missing,
    /// It is there for others only.
    OtherArchitectures {
        /// What there is, such as `linux/amd64`.
        offered: Vec<String>,
    },
    /// Nobody knows: the registry did not answer, or did not let us in.
    Unknown {
        /// Why.
        why: String,
    },
}

/// An image that some workloads need.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageNeed {
    /// As it is written.
    pub image: String,
    /// `arm64`; any will do where absent.
    pub architecture: Option<String>,
}

/// All needs of a repository, with a finding for each place, to be filled in.
#[derive(Debug, Clone, Default)]
pub struct Images {
    needs: BTreeMap<ImageNeed, Vec<Finding>>,
    classes: BTreeMap<String, Vec<String>>,
}

impl Images {
    pub(crate) fn add(&mut self, need: ImageNeed, class: &str, place: Finding) {
        if let Some(architecture) = &need.architecture {
            let classes = self.classes.entry(architecture.clone()).or_default();
            if !classes.iter().any(|known| known == class) {
                classes.push(class.to_owned());
            }
        }
        let places = self.needs.entry(need).or_default();
        match places.iter_mut().find(|known| known.place == place.place) {
            Some(known) => crate::join_clusters(known, place.clusters),
            None => places.push(place),
        }
    }

    /// What is to be asked for; names that do not parse are told by other rules.
    pub fn needs(&self) -> impl Iterator<Item = (&ImageNeed, ImageRef)> {
        self.needs
            .keys()
            .filter_map(|need| Some((need, need.image.parse().ok()?)))
    }

    /// What an answer means for the places that need the image.
    pub fn judge(&self, need: &ImageNeed, answer: &ImageAnswer) -> Vec<Finding> {
        let architecture = need.architecture.as_deref().unwrap_or_default();
        let classes = self.classes.get(architecture).map(|classes| classes.join(", "));
        let (rule, message, remedy) = match answer {
            ImageAnswer::Fine | ImageAnswer::Unknown { .. } => return Vec::new(),
            ImageAnswer::Missing => (
                Rule::ImageMissing,
                format!("the registry does not have the image {}", need.image),
                "correct the name or the tag, or push the image".to_owned(),
            ),
            ImageAnswer::OtherArchitectures { offered } => (
                Rule::ImageArchitecture,
                format!(
                    "the image {} is for {}, and the devices here ({}) are linux/{architecture}",
                    need.image,
                    offered.join(", "),
                    classes.unwrap_or_default()
                ),
                format!("build it for linux/{architecture}, too, or use another image"),
            ),
        };
        let places = self.needs.get(need).into_iter().flatten();
        let fill = |place: &Finding| Finding {
            rule,
            severity: rule.severity(),
            message: message.clone(),
            remedy: Some(remedy.clone()),
            ..place.clone()
        };
        places.map(fill).collect()
    }
}

/// The images of a workload's containers, with the way to each.
pub(crate) fn of(object: &Object) -> Vec<(crate::path::Path, String)> {
    let Some(template) = crate::pods::Template::of(object) else {
        return Vec::new();
    };
    template
        .containers()
        .into_iter()
        .filter_map(|container| {
            let image = container.value["image"].as_str()?;
            Some((container.path.key("image"), image.to_owned()))
        })
        .collect()
}
