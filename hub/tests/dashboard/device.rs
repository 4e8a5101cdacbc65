//! A device as an agent would be, as far as the hub is concerned.
#![expect(clippy::unwrap_used, reason = "a test's set-up may panic")]

use identity::DeviceKeys;
use kit::SystemClock;
use model::{ClassName, DeviceName};
use std::path::Path;
use std::sync::Arc;
use wire::ApiClient;
use wire::api::NewToken;
use wire::client::{self, ConnectError, EnrolRequest, HubAddress, Orders, Session};
use wire::frame::Hello;

/// Keys and a name.
pub struct Device {
    pub name: DeviceName,
    class: ClassName,
    keys: DeviceKeys,
}

/// The API of a hub, for a person with `token`.
pub fn api(hub: &HubAddress, ca: &str, token: &str) -> ApiClient {
    ApiClient::new(hub.clone(), identity::tls::person(ca).unwrap(), token)
}

impl Device {
    /// Makes keys below `dir` and joins with a fresh token.
    pub async fn join(dir: &Path, hub: &HubAddress, api: &ApiClient, name: &str, class: &str) -> Self {
        let token = api
            .create_token(&NewToken::default())
            .await
            .unwrap()
            .token
            .parse()
            .unwrap();
        let mut keys = DeviceKeys::open(dir, Arc::new(SystemClock)).unwrap();
        let (name, class): (DeviceName, ClassName) = (name.parse().unwrap(), class.parse().unwrap());
        let requests = keys.requests(&name).unwrap();
        let request = EnrolRequest {
            token: identity::EnrolToken::reveal(&token),
            device: name.clone(),
            class: class.clone(),
            identity_csr: requests.identity_csr.clone(),
            operational_csr: requests.operational_csr.clone(),
        };
        let answer = client::enrol(hub, keys.enrol_tls(&token).unwrap(), &request)
            .await
            .unwrap();
        keys.store_enrolment(
            &token,
            &requests,
            &answer.identity,
            &answer.operational,
            &answer.bundle,
        )
        .unwrap();
        Self { name, class, keys }
    }

    /// Opens a session.
    pub async fn connect(&self, hub: &HubAddress) -> Result<(Session, Orders), ConnectError> {
        let hello = Hello {
            versions: wire::OURS,
            device: self.name.clone(),
            class: self.class.clone(),
            agent: "0.1.0".into(),
            boot_id: "boot".into(),
            nonce: identity::TimeKeeper::nonce(),
            bundle_serial: self.keys.bundle_serial(),
            last_intent: 0,
            status: None,
            status_at: None,
        };
        Session::connect(hub, self.keys.session_tls().unwrap(), hello).await
    }
}
