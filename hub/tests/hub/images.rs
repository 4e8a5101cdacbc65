//! Images at the hub, with the device's own client.

use crate::rig::*;
use blobs::build::{ImageBuild, ImageFile, Source};
use blobs::registries::{Credentials, Endpoint, Patience, Progress, RegistryConfig, Tls};
use blobs::{Quota, Registries, RegistryError, Store};
use hub::store::Role;
use model::{Digest, ImageRef, Platform};
use std::path::Path;
use std::sync::Arc;
use wire::client::HubAddress;

const HOST: &str = "registry.leeward.internal";

fn platform() -> Platform {
    Platform::host()
}

fn image() -> ImageRef {
    format!("{HOST}/apps/hello:1").parse().unwrap()
}

fn client(hub: &HubAddress, tls: Arc<rustls::ClientConfig>, password: Option<&str>) -> Registries {
    let mut endpoint = Endpoint::new(&hub.to_string());
    endpoint.tls = Tls::Config(tls);
    endpoint.credentials = password.map(|password| Credentials::Basic {
        user: "any".into(),
        password: password.into(),
    });
    let registries = Registries::new(Patience::default());
    registries.configure(HOST, RegistryConfig::at(endpoint)).unwrap();
    registries
}

fn built(dir: &Path) -> (Store, Digest) {
    let store = Store::open(dir, Quota::default()).unwrap();
    let file = ImageFile {
        path: "/hello".into(),
        source: Source::Bytes(vec![7; 200_000]),
        mode: None,
    };
    let build = ImageBuild {
        platform: platform(),
        files: vec![file],
        config: Default::default(),
        allow_dynamic: false,
    };
    let digest = build.build(&store).unwrap().manifest.digest;
    (store, digest)
}

#[tokio::test]
async fn people_push_and_devices_pull() {
    let rig = Rig::new().await;
    let device = rig.device("a").await;
    let person = identity::tls::person(&rig.running.hub.ca()).unwrap();
    let (store, digest) = built(&rig.dir.path().join("build"));
    let pusher = client(&rig.at(), person.clone(), Some(&rig.admin_token));
    pusher
        .push(&store, &digest, &image(), None, Progress::none())
        .await
        .unwrap();

    let puller = client(&rig.at(), device.keys.session_tls().unwrap(), None);
    let found = puller.resolve(&image(), &platform(), None).await.unwrap();
    assert_eq!(found.digest, digest);
    let local = Store::open(&rig.dir.path().join("local"), Quota::default()).unwrap();
    for layer in &found.manifest.layers {
        puller
            .fetch_blob(&local, &image(), layer, None, Progress::none())
            .await
            .unwrap();
        assert!(local.has(&layer.digest));
    }
    let trail = rig.api.audit(10).await.unwrap();
    let pushed = trail.iter().find(|row| row.action == "image.push").unwrap();
    assert_eq!(
        (pushed.who.as_str(), pushed.detail.as_str()),
        ("admin", digest.to_string().as_str())
    );
    // What was pushed is there after a restart.
    let rig = rig.restart().await;
    assert_eq!(
        rig.running.hub.registry().tags("apps/hello").unwrap(),
        [("1".to_owned(), digest)]
    );
    puller.resolve(&image(), &platform(), None).await.unwrap();
}

#[tokio::test]
async fn nobody_else_pulls_and_devices_do_not_push() {
    let rig = Rig::new().await;
    let device = rig.device("a").await;
    let person = identity::tls::person(&rig.running.hub.ca()).unwrap();
    let (store, digest) = built(&rig.dir.path().join("build"));
    let push = async |client: &Registries| {
        client
            .push(&store, &digest, &image(), None, Progress::none())
            .await
    };
    rig.running
        .hub
        .store()
        .set_person("vera", "look-only", Role::Viewer, None, "admin")
        .await
        .unwrap();
    let device_tls = device.keys.session_tls().unwrap();
    for (who, client) in [
        ("nobody", client(&rig.at(), person.clone(), None)),
        (
            "a stranger",
            client(&rig.at(), person.clone(), Some("lwp1.guess")),
        ),
        ("a viewer", client(&rig.at(), person.clone(), Some("look-only"))),
        ("a device", client(&rig.at(), device_tls.clone(), None)),
        (
            "an identity certificate",
            client(&rig.at(), device.keys.renew_tls().unwrap(), None),
        ),
    ] {
        let outcome: Result<(), RegistryError> = push(&client).await;
        assert!(outcome.is_err(), "{who} pushed");
    }
    assert_eq!(
        rig.running.hub.registry().repositories().unwrap(),
        Vec::<String>::new()
    );
    push(&client(&rig.at(), person.clone(), Some(&rig.admin_token)))
        .await
        .unwrap();
    let resolve = async |client: Registries| client.resolve(&image(), &platform(), None).await.map(drop);
    assert!(resolve(client(&rig.at(), person.clone(), None)).await.is_err());
    resolve(client(&rig.at(), person, Some("look-only")))
        .await
        .unwrap();
    resolve(client(&rig.at(), device_tls.clone(), None))
        .await
        .unwrap();
    rig.api.revoke(&device.name).await.unwrap();
    assert!(
        resolve(client(&rig.at(), device_tls, None)).await.is_err(),
        "a revoked device pulled"
    );
}
