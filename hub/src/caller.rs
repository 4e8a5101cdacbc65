//! Who calls: a device by its certificate, a person by a bearer token, or nobody known.

use crate::Hub;
use crate::problem::Refusal;
use crate::store::{Act, Person, Role};
use axum::extract::FromRequestParts;
use http::request::Parts;
use http::{Method, StatusCode, header};
use identity::{Kind, Peer};
use rustls::pki_types::CertificateDer;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The other end of a connection; in the extensions of each of its requests.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Its address as seen here.
    pub(crate) address: SocketAddr,
    /// The certificate that it showed: its chain was verified in the handshake. That it was not revoked is not
    /// said by this.
    pub(crate) peer: Option<Peer>,
    /// The same, as sent.
    pub(crate) certificate: Option<CertificateDer<'static>>,
}

/// A device whose certificate of this kind is valid and not revoked.
#[derive(Debug, Clone)]
pub(crate) struct DeviceCaller {
    pub(crate) peer: Peer,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) address: SocketAddr,
}

impl Hub {
    /// Lets a device in that shows a certificate of `kind` which this hub issued and did not revoke.
    pub(crate) async fn admit_device(&self, caller: &Caller, kind: Kind) -> Result<DeviceCaller, Refusal> {
        let refused = |reason, message: String| Refusal::new(StatusCode::FORBIDDEN, reason, message);
        let (Some(peer), Some(certificate)) = (&caller.peer, &caller.certificate) else {
            let message = format!("this needs a device's {} certificate", kind.as_str());
            return Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "CertificateRequired",
                message,
            ));
        };
        let known = self.store().certificate(&peer.serial).await?;
        let refusal = match known {
            _ if peer.kind != kind => refused(
                "WrongCertificate",
                format!(
                    "this needs the {} certificate, not the {} one",
                    kind.as_str(),
                    peer.kind.as_str()
                ),
            ),
            None => refused(
                "CertificateUnknown",
                format!("certificate {} is not one of this hub; renew it", peer.serial),
            ),
            Some(known) if known.revoked_at.is_some() => refused(
                "Revoked",
                format!("certificate {} of device {} is revoked", peer.serial, peer.name),
            ),
            Some(known) if known.device != peer.name => refused(
                "WrongCertificate",
                format!("certificate {} is of another device", peer.serial),
            ),
            Some(_) if peer.not_after < self.now() => {
                // TLS looks at the dates only when a connection opens.
                refused(
                    "CertificateExpired",
                    format!("certificate {} has expired; renew it", peer.serial),
                )
            }
            Some(_) => {
                return Ok(DeviceCaller {
                    peer: peer.clone(),
                    certificate: certificate.clone(),
                    address: caller.address,
                });
            }
        };
        self.refused(
            caller,
            peer.name.as_str(),
            "device.connect",
            peer.name.as_str(),
            &refusal,
        )
        .await;
        Err(refusal)
    }

    /// Finds the person behind a bearer token, where the request carries one.
    pub(crate) async fn person_of(&self, caller: &Caller, parts: &Parts) -> Result<Option<Person>, Refusal> {
        let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
            return Ok(None);
        };
        let token = value.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
        self.person_by(caller, token.map(str::trim), parts.uri.path())
            .await
            .map(Some)
    }

    /// Finds the person behind a token; none is a refusal.
    pub(crate) async fn person_by(
        &self,
        caller: &Caller,
        token: Option<&str>,
        target: &str,
    ) -> Result<Person, Refusal> {
        let found = match token {
            Some(token) => self.store().person(token).await?,
            None => None,
        };
        if let Some(person) = found {
            return Ok(person);
        }
        let message = "the bearer token is not known, or has expired";
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized", message);
        self.refused(caller, "unknown", "api", target, &refusal).await;
        Err(refusal)
    }

    /// Writes a refusal into the trail; not more than the trail can bear from one address.
    pub(crate) async fn refused(
        &self,
        caller: &Caller,
        who: &str,
        action: &str,
        target: &str,
        refusal: &Refusal,
    ) {
        let Some(before) = self.quiet().note(caller.address.ip(), &format!("{who} {action}")) else {
            return;
        };
        let detail = match before {
            0 => format!("from {}", caller.address),
            more => format!("from {}; {more} more like it before", caller.address),
        };
        let act = Act {
            who: who.into(),
            action: action.into(),
            target: target.into(),
            outcome: format!("refused: {}", refusal.problem.message),
            detail,
        };
        if let Err(err) = self.store().audit(act).await {
            tracing::error!(%err, "a refusal could not be written into the trail");
        }
    }
}

/// Holds refusals from one address back to one a minute and kind, so that a stranger cannot fill the trail.
#[derive(Debug, Default)]
pub(crate) struct Quiet(Mutex<HashMap<(IpAddr, String), (Instant, u64)>>);

const QUIET_FOR: Duration = Duration::from_secs(60);
const QUIET_MOST: usize = 4096;

impl Quiet {
    /// Whether to write; then also how many were held back since the last.
    fn note(&self, address: IpAddr, action: &str) -> Option<u64> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if held.len() >= QUIET_MOST {
            held.retain(|_, (since, _)| now - *since < QUIET_FOR);
            if held.len() >= QUIET_MOST {
                return None;
            }
        }
        match held.entry((address, action.to_owned())) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert((now, 0));
                Some(0)
            }
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                let (since, count) = entry.get_mut();
                if now - *since < QUIET_FOR {
                    *count += 1;
                    return None;
                }
                let before = std::mem::take(count);
                *since = now;
                Some(before)
            }
        }
    }
}

/// A person with a bearer token; what changes something needs an administrator.
#[derive(Debug, Clone)]
pub(crate) struct PersonCaller(pub(crate) Person);

impl FromRequestParts<Arc<Hub>> for PersonCaller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Result<Self, Refusal> {
        let caller = caller_of(parts)?;
        let Some(person) = hub.person_of(&caller, parts).await? else {
            let message = "this needs a person's bearer token (Authorization: Bearer lwp1...)";
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized", message));
        };
        // A query reads, though it is posted: SQL may be longer than a path.
        let reads = matches!(parts.method, Method::GET | Method::HEAD) || parts.uri.path() == "/v1/query";
        if !reads && person.role != Role::Admin {
            let message = format!("{} may look, not change", person.name);
            let refusal = Refusal::new(StatusCode::FORBIDDEN, "Forbidden", message);
            hub.refused(&caller, &person.name, "api", parts.uri.path(), &refusal)
                .await;
            return Err(refusal);
        }
        Ok(Self(person))
    }
}

fn caller_of(parts: &Parts) -> Result<Caller, Refusal> {
    parts.extensions.get::<Caller>().cloned().ok_or_else(|| {
        Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "NoCaller",
            "the listener did not say who calls",
        )
    })
}

impl FromRequestParts<Arc<Hub>> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _hub: &Arc<Hub>) -> Result<Self, Refusal> {
        caller_of(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_cannot_fill_the_trail() {
        let quiet = Quiet::default();
        let one: IpAddr = [10, 0, 0, 1].into();
        assert_eq!(quiet.note(one, "api"), Some(0));
        for _ in 0..100 {
            assert_eq!(quiet.note(one, "api"), None);
        }
        assert_eq!(quiet.note(one, "enrol"), Some(0));
        assert_eq!(quiet.note([10, 0, 0, 2].into(), "api"), Some(0));
        for last in 0..u16::MAX {
            quiet.note(IpAddr::from([11, 0, (last >> 8) as u8, last as u8]), "api");
        }
        assert!(quiet.0.lock().unwrap().len() <= QUIET_MOST);
    }
}
