//! Images at this hub: devices pull with their certificate, people pull and push with their bearer token.
//!
//! Tools of the container world know `Basic` (RFC 7617) better than bearer tokens: the token is taken as its password,
//! whatever the name.

use crate::caller::Caller;
use crate::problem::Refusal;
use crate::store::{Act, Person, Role};
use crate::{Hub, HubError};
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use blobs::registry::{Access, Action, Answer, Asked};
use blobs::{Quota, Registry};
use http::{HeaderMap, Method, StatusCode, header};
use identity::Kind;
use model::DeviceName;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How often what no image names is removed.
const COLLECT_EVERY: Duration = Duration::from_secs(3600);
/// What was touched within this time stays: a push may be under way.
const COLLECT_GRACE: Duration = Duration::from_secs(24 * 3600);

/// Who asks the registry; in the extensions of the request.
#[derive(Debug, Clone)]
enum Guest {
    Nobody,
    Device(DeviceName),
    Person(Person),
}

impl Guest {
    fn may(&self, action: Action) -> Answer {
        let forbid = |why: String| Answer::Forbid { why };
        match (self, action) {
            (Self::Nobody, _) => Answer::Unauthenticated {
                challenge: r#"Basic realm="leeward""#.into(),
            },
            (Self::Device(_), Action::Ping | Action::Pull) => Answer::Allow,
            (Self::Device(name), _) => forbid(format!("device {name} may only pull")),
            (Self::Person(_), Action::Ping | Action::Catalog | Action::Pull) => Answer::Allow,
            (Self::Person(person), _) if person.role == Role::Admin => Answer::Allow,
            (Self::Person(person), _) => forbid(format!("{} may look, not change", person.name)),
        }
    }
}

/// Opens the registry below `dir`.
pub(crate) fn open(dir: &Path) -> Result<Registry, HubError> {
    let store = blobs::Store::open(dir, Quota::default())?;
    // Asked in the same task that found out who asks: without an answer nobody is let in.
    let access = Access::new(|asked: &Asked<'_>| {
        asked
            .request
            .extensions
            .get::<Guest>()
            .unwrap_or(&Guest::Nobody)
            .may(asked.action)
    });
    Ok(Registry::open(dir, store, access)?)
}

/// Everything below `/v2/`.
pub(crate) async fn serve(State(hub): State<Arc<Hub>>, caller: Caller, mut request: Request) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let guest = match hub.guest(&caller, request.headers()).await {
        Ok(guest) => guest,
        Err(refusal) => return refusal.into_response(),
    };
    request.extensions_mut().insert(guest.clone());
    let response = hub.registry().handle(request).await;
    if let Err(refusal) = hub
        .note(&guest, &method, &path, response.status(), response.headers())
        .await
    {
        return refusal.into_response();
    }
    response.map(Body::new)
}

impl Hub {
    async fn guest(&self, caller: &Caller, headers: &HeaderMap) -> Result<Guest, Refusal> {
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let token = value.to_str().ok().and_then(token_in);
            return Ok(Guest::Person(
                self.person_by(caller, token.as_deref(), "registry").await?,
            ));
        }
        if caller.peer.is_none() {
            return Ok(Guest::Nobody);
        }
        let device = self.admit_device(caller, Kind::Operational).await?;
        Ok(Guest::Device(device.peer.name))
    }

    /// Writes into the trail who changed what images.
    async fn note(
        &self,
        guest: &Guest,
        method: &Method,
        path: &str,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<(), Refusal> {
        let action = match *method {
            Method::PUT if path.contains("/manifests/") => "image.push",
            Method::DELETE => "image.delete",
            _ => return Ok(()),
        };
        let (Guest::Person(person), true) = (guest, status.is_success()) else {
            return Ok(());
        };
        let digest = headers
            .get("docker-content-digest")
            .and_then(|value| value.to_str().ok());
        let act = Act {
            who: person.name.clone(),
            action: action.into(),
            target: path.trim_start_matches("/v2/").into(),
            outcome: "ok".into(),
            detail: digest.unwrap_or_default().into(),
        };
        Ok(self.store().audit(act).await?)
    }

    /// Removes, now and then, what no image names.
    pub(crate) fn collect_images(self: &Arc<Self>) {
        let registry = self.registry().clone();
        self.tasks.spawn("images", kit::OnEnd::Restart, move || {
            let registry = registry.clone();
            async move {
                loop {
                    tokio::time::sleep(COLLECT_EVERY).await;
                    let registry = registry.clone();
                    match tokio::task::spawn_blocking(move || registry.collect(COLLECT_GRACE)).await {
                        Ok(Ok(collected)) => tracing::debug!(?collected, "images collected"),
                        Ok(Err(err)) => {
                            tracing::error!(error = kit::chain(&err), "images were not collected")
                        }
                        Err(err) => tracing::error!(%err, "images were not collected"),
                    }
                }
            }
        });
    }
}

/// The token in an `Authorization` header: `Bearer TOKEN`, or the password of `Basic`.
fn token_in(value: &str) -> Option<String> {
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(BASE64_STANDARD.decode(rest.trim()).ok()?).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_in_both_schemes() {
        assert_eq!(token_in("Bearer abc"), Some("abc".into()));
        assert_eq!(token_in("basic YW55OmE6Yg=="), Some("a:b".into()));
        for bad in ["", "abc", "Basic", "Basic !!", "Basic YWI=", "Digest abc"] {
            assert_eq!(token_in(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn devices_only_pull_and_viewers_only_look() {
        let person = |role| {
            Guest::Person(Person {
                name: "p".into(),
                role,
            })
        };
        let all = [
            Action::Ping,
            Action::Catalog,
            Action::Pull,
            Action::Push,
            Action::Delete,
        ];
        let allowed = |guest: &Guest| all.map(|action| guest.may(action) == Answer::Allow);
        assert_eq!(allowed(&Guest::Nobody), [false; 5]);
        assert_eq!(
            allowed(&Guest::Device("a".parse().unwrap())),
            [true, false, true, false, false]
        );
        assert_eq!(allowed(&person(Role::Viewer)), [true, true, true, false, false]);
        assert_eq!(allowed(&person(Role::Admin)), [true; 5]);
    }
}
