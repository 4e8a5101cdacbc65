//! The little of Amazon's S3 that reading a bucket needs: signed GETs (Signature Version 4) and the list of objects.

use jiff::Timestamp;
use reqwest::Url;
use ring::{digest, hmac};
use std::fmt::Write as _;

/// Who signs.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Keys {
    /// Access key's id.
    pub id: String,
    /// Its secret.
    pub secret: String,
}

impl std::fmt::Debug for S3Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Keys")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// SHA-256 of nothing: the body of a GET.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// The headers that sign a GET of `url` at `now` (AWS General Reference, "Signature Version 4 signing process").
/// The query of `url` has to be sorted and encoded as [`encode`] does.
pub(crate) fn sign(keys: &S3Keys, region: &str, url: &Url, now: Timestamp) -> Vec<(&'static str, String)> {
    let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let day = &time[..8];
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    };
    let canonical = format!(
        "GET\n{}\n{}\nhost:{host}\nx-amz-content-sha256:{EMPTY}\nx-amz-date:{time}\n\nhost;x-amz-content-sha256;x-amz-date\n{EMPTY}",
        url.path(),
        url.query().unwrap_or_default()
    );
    let scope = format!("{day}/{region}/s3/aws4_request");
    let text = format!(
        "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
        hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref())
    );
    let mut key = format!("AWS4{}", keys.secret).into_bytes();
    for part in [day, region, "s3", "aws4_request"] {
        key = mac(&key, part);
    }
    let signature = hex(&mac(&key, &text));
    vec![
        ("x-amz-date", time.clone()),
        ("x-amz-content-sha256", EMPTY.to_owned()),
        (
            "authorization",
            format!(
                "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={signature}",
                keys.id
            ),
        ),
    ]
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
        .as_ref()
        .to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A text in an address, as S3 encodes it: everything but letters, digits and `-_.~`, and the slashes of a path.
pub(crate) fn encode(text: &str, path: bool) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte))
            }
            b'/' if path => encoded.push('/'),
            byte => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// One object of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub key: String,
    pub etag: String,
    pub size: u64,
}

/// A page of a bucket's objects.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub objects: Vec<Listed>,
    /// Where the next page begins.
    pub next: Option<String>,
}

/// Reads the answer to `ListObjectsV2` with `encoding-type=url`; `None` where it is none.
pub(crate) fn page(xml: &str) -> Option<Page> {
    let list = inner(xml, "ListBucketResult")?;
    let mut objects = Vec::new();
    let mut rest = list;
    while let Some(start) = rest.find("<Contents>") {
        let body = &rest[start + "<Contents>".len()..];
        let end = body.find("</Contents>")?;
        let content = &body[..end];
        objects.push(Listed {
            key: unescape(&text(inner(content, "Key")?))?,
            etag: text(inner(content, "ETag")?),
            size: inner(content, "Size")?.trim().parse().ok()?,
        });
        rest = &body[end..];
    }
    let more = inner(list, "IsTruncated").is_some_and(|text| text.trim() == "true");
    let next = if more {
        Some(text(inner(list, "NextContinuationToken")?))
    } else {
        None
    };
    Some(Page { objects, next })
}

/// What stands in the first element of this name.
fn inner<'t>(xml: &'t str, name: &str) -> Option<&'t str> {
    let open = format!("<{name}");
    let mut from = 0;
    loop {
        let at = from + xml[from..].find(&open)?;
        let after = &xml[at + open.len()..];
        if after.starts_with(['>', ' ', '\n', '\t', '\r']) {
            let body = &after[after.find('>')? + 1..];
            return body.find(&format!("</{name}>")).map(|end| &body[..end]);
        }
        from = at + open.len();
    }
}

fn text(xml: &str) -> String {
    xml.replace("&quot;", "\"")
        .replace("&#34;", "\"")
        .replace("&apos;", "'")
        .replace("&#39;", "'")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example "GET Object" of Amazon's "Signature Calculations for the Authorization Header", less its `range`.
    #[test]
    fn a_list_is_signed_as_in_amazons_example() {
        let keys = S3Keys {
            id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
        };
        let url = Url::parse("https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J").unwrap();
        let now = "2013-05-24T00:00:00Z".parse().unwrap();
        let headers = sign(&keys, "us-east-1", &url, now);
        let authorization = &headers[2].1;
        assert!(
            authorization
                .ends_with("Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
            "{authorization}"
        );
    }

    #[test]
    fn a_list_is_read_page_by_page() {
        let xml = "<?xml version=\"1.0\"?>\n<ListBucketResult xmlns=\"x\"><KeyCount>1</KeyCount><IsTruncated>true</IsTruncated>\
                   <NextContinuationToken>a&amp;b</NextContinuationToken><Contents><Key>apps/a%20b.yaml</Key>\
                   <ETag>&quot;e1&quot;</ETag><Size>12</Size></Contents></ListBucketResult>";
        let page = page(xml).unwrap();
        assert_eq!(page.next.as_deref(), Some("a&b"));
        assert_eq!(
            page.objects,
            [Listed {
                key: "apps/a b.yaml".to_owned(),
                etag: "\"e1\"".to_owned(),
                size: 12
            }]
        );
        assert_eq!(super::page("<Error><Code>X</Code></Error>"), None);
    }

    #[test]
    fn names_are_encoded_as_s3_wants_them() {
        assert_eq!(encode("a b/ü+~", true), "a%20b/%C3%BC%2B~");
        assert_eq!(encode("a/b", false), "a%2Fb");
    }
}
