//! Requests made by hand.

use crate::common::OurRegistry;
use http::StatusCode;
use model::Digest;
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

/// A registry asked by hand.
pub struct Api {
    client: Client,
    base: String,
}

impl Api {
    pub fn new(registry: &OurRegistry) -> Self {
        // A plain client of reqwest needs one, though it never speaks TLS here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            client: Client::builder().build().unwrap(),
            base: registry.url(),
        }
    }

    pub fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{}{path}", self.base)
        };
        self.client.request(method, url)
    }

    pub async fn get(&self, path: &str) -> Response {
        self.ask(Method::GET, path).send().await.unwrap()
    }

    /// Sends and expects this status; gives the answer.
    pub async fn expect(&self, request: RequestBuilder, status: StatusCode) -> Response {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{}", response.url());
        response
    }

    pub async fn put_blob(&self, repository: &str, data: &[u8]) -> Digest {
        let digest = Digest::of(data);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let request = self.ask(Method::POST, &path).body(data.to_vec());
        self.expect(request, StatusCode::CREATED).await;
        digest
    }

    pub async fn put_manifest(&self, repository: &str, reference: &str, manifest: &Value) -> Response {
        let kind = manifest["mediaType"].as_str().unwrap().to_owned();
        let path = format!("/v2/{repository}/manifests/{reference}");
        let request = self.ask(Method::PUT, &path).header("content-type", kind);
        request.body(manifest.to_string()).send().await.unwrap()
    }

    pub async fn start(&self, repository: &str) -> String {
        let request = self.ask(Method::POST, &format!("/v2/{repository}/blobs/uploads/"));
        let response = self.expect(request, StatusCode::ACCEPTED).await;
        header(&response, "location")
    }
}

pub fn header(response: &Response, name: &str) -> String {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap().to_owned())
        .unwrap_or_default()
}

/// The code in an error document.
pub async fn code(response: Response) -> String {
    let document: Value = response.json().await.unwrap();
    document["errors"][0]["code"].as_str().unwrap().to_owned()
}

pub fn manifest(config: Digest, config_size: usize) -> Value {
    json!({"schemaVersion": 2, "mediaType": blobs::oci::MANIFEST,
        "config": {"mediaType": "application/vnd.test+json", "digest": config, "size": config_size},
        "layers": []})
}
