//! Which tags a repository has.

use super::retry::Persist;
use super::send::{Asker, bounded};
use super::{Credentials, Registries, RegistryError};
use model::ImageRef;
use reqwest::header::LINK;
use serde::Deserialize;

/// Tags asked for at a time.
const PAGE: usize = 1000;
/// More than any repository that is meant to be followed.
const MOST: usize = 100_000;

#[derive(Deserialize)]
struct Page {
    /// `null` where there is none.
    tags: Option<Vec<String>>,
}

impl Registries {
    /// All tags of the repository that `image` is in (distribution-spec, "Listing Tags").
    ///
    /// # Errors
    /// As any request; [`RegistryError::Wrong`] for a list without end.
    pub async fn tags(
        &self,
        image: &ImageRef,
        credentials: Option<&Credentials>,
    ) -> Result<Vec<String>, RegistryError> {
        let host = self.host(&image.registry)?;
        let scope = format!("repository:{}:pull", image.repository);
        let asker = Asker {
            credentials,
            scope: &scope,
        };
        let what = format!("repository {}/{}", image.registry, image.repository);
        let what = what.as_str();
        let mut all: Vec<String> = Vec::new();
        loop {
            let last = all.last().cloned();
            let (mut tags, more, url) = self
                .anywhere(&host, Persist::AsConfigured, |place| {
                    let last = last.clone();
                    async move {
                        let mut url = place.url(&format!("{}/tags/list", image.repository))?;
                        url.query_pairs_mut().append_pair("n", &PAGE.to_string());
                        if let Some(last) = &last {
                            url.query_pairs_mut().append_pair("last", last);
                        }
                        let response = self
                            .send(&place, asker, what, &url, |url| place.client.get(url))
                            .await?;
                        let more = response.headers().contains_key(LINK);
                        let bytes = bounded(response, crate::oci::MAX_MANIFEST_BYTES).await?;
                        let page: Page =
                            serde_json::from_slice(&bytes).map_err(|err| RegistryError::Wrong {
                                url: url.to_string(),
                                what: format!("no list of tags: {err}"),
                            })?;
                        Ok((page.tags.unwrap_or_default(), more, url.to_string()))
                    }
                })
                .await?;
            let ended = tags.is_empty() || !more;
            all.append(&mut tags);
            if ended {
                return Ok(all);
            }
            if all.len() > MOST {
                return Err(RegistryError::Wrong {
                    url,
                    what: format!("more than {MOST} tags"),
                });
            }
        }
    }
}
