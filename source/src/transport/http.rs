//! Git's smart HTTP protocol over our own client: rustls on ring, certificates of the source's own CA or the
//! system's, a redirect followed only for the first request and never to plain text, credentials sent only to the
//! host they were given for.

use super::{TICK, Wire, causes, chain};
use crate::error::disk;
use crate::{GitAuth, GitSpec, SourceError};
use base64::Engine as _;
use bytes::{Buf as _, Bytes};
use gix::protocol::transport::Protocol;
use gix::protocol::transport::client::blocking_io::http::{
    GetResponse, Http, PostBodyDataKind, PostResponse, Transport,
};
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url, redirect};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::any::Any;
use std::cell::RefCell;
use std::error::Error;
use std::io::{self, BufRead, Cursor, Read, Write};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

const MOST_REDIRECTS: usize = 5;

/// One client for all requests of a fetch: connections are kept between them.
pub(crate) struct Session<'a> {
    wire: &'a Wire<'a>,
    runtime: tokio::runtime::Runtime,
    client: Client,
    /// Sent to the origin of the configured address only.
    authorization: Option<HeaderValue>,
    origin: Url,
}

impl<'a> Session<'a> {
    pub(crate) fn new(
        spec: &GitSpec,
        url: &Url,
        wire: &'a Wire<'a>,
        tls: rustls::ClientConfig,
    ) -> Result<Self, SourceError> {
        Self::with(url, &spec.auth, wire, tls, redirect::Policy::custom(follow))
    }

    /// For requests that are not Git's: any redirect is followed but one to plain text.
    pub(crate) fn plain(
        url: &Url,
        auth: &GitAuth,
        wire: &'a Wire<'a>,
        tls: rustls::ClientConfig,
    ) -> Result<Self, SourceError> {
        Self::with(url, auth, wire, tls, redirect::Policy::custom(follow_any))
    }

    fn with(
        url: &Url,
        auth: &GitAuth,
        wire: &'a Wire<'a>,
        tls: rustls::ClientConfig,
        redirects: redirect::Policy,
    ) -> Result<Self, SourceError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("git/leeward-", env!("CARGO_PKG_VERSION")))
            .connect_timeout(wire.limits.connect)
            .redirect(redirects)
            .build()
            .map_err(|err| SourceError::Connect {
                url: wire.url.clone(),
                why: chain(&err),
            })?;
        let authorization = match auth {
            GitAuth::Token { user, token } => Some(basic(&wire.url, user, token)?),
            GitAuth::None | GitAuth::Ssh { .. } | GitAuth::User => None,
        };
        Ok(Self {
            wire,
            runtime: runtime.map_err(disk("start the client for", Path::new(&wire.url)))?,
            client,
            authorization,
            origin: url.clone(),
        })
    }

    /// Waits for `future`, and fails when the fetch should not go on or nothing came for too long.
    fn wait<T>(&self, future: impl Future<Output = reqwest::Result<T>>) -> io::Result<T> {
        let since = Instant::now();
        self.runtime.block_on(async {
            tokio::pin!(future);
            loop {
                tokio::select! {
                    done = &mut future => return done.map_err(|err| self.wire.fail(self.explain(&err))),
                    () = tokio::time::sleep(TICK) => self.wire.check(since)?,
                }
            }
        })
    }

    fn explain(&self, err: &reqwest::Error) -> SourceError {
        let url = self.wire.url.clone();
        // The address would be repeated by the text.
        let why = chain(err).replace(&format!(" for url ({})", err.url().map_or("", Url::as_str)), "");
        let certificate = tls_error(err).filter(|tls| matches!(tls, rustls::Error::InvalidCertificate(_)));
        match certificate {
            Some(tls) => SourceError::Certificate {
                url,
                why: tls.to_string(),
            },
            None if err.is_connect() || err.is_timeout() => SourceError::Connect { url, why },
            None if err.is_redirect() => SourceError::Server { url, why },
            None => SourceError::Cut {
                url,
                received: self.wire.received(),
                why,
            },
        }
    }

    fn status(&self, response: &Response) -> io::Result<()> {
        let status = response.status();
        let (url, why) = (self.wire.url.clone(), status.to_string());
        Err(self.wire.fail(match status {
            _ if status.is_success() => return Ok(()),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SourceError::Authentication { url, why },
            StatusCode::NOT_FOUND | StatusCode::GONE => SourceError::NotFound { url, why },
            _ => SourceError::Server { url, why },
        }))
    }

    /// A request with the credentials, where they are for that address.
    pub(crate) fn request(&self, method: reqwest::Method, url: &Url) -> reqwest::RequestBuilder {
        let request = self.client.request(method, url.clone());
        match &self.authorization {
            Some(value) if self.same_origin(url) => {
                request.header(reqwest::header::AUTHORIZATION, value.clone())
            }
            _ => request,
        }
    }

    /// Sends, and waits for the head of the answer.
    pub(crate) fn send(&self, request: reqwest::RequestBuilder) -> io::Result<Response> {
        self.wait(request.send())
    }

    /// Fails where the answer is an error.
    pub(crate) fn succeeded(&self, response: &Response) -> io::Result<()> {
        self.status(response)
    }

    /// The next bytes of a body; `None` at its end.
    pub(crate) fn chunk(&self, response: &mut Response) -> io::Result<Option<Bytes>> {
        let chunk = self.wait(response.chunk())?;
        self.wire.count(chunk.as_ref().map_or(0, Bytes::len))?;
        Ok(chunk)
    }

    fn same_origin(&self, url: &Url) -> bool {
        url.origin() == self.origin.origin()
    }
}

/// An I/O error shows what it wraps through `get_ref` only, not as its source.
fn tls_error<'e>(err: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    causes(err).find_map(|cause| {
        cause.downcast_ref::<rustls::Error>().or_else(|| {
            let inner: &(dyn Error + 'static) = cause.downcast_ref::<io::Error>()?.get_ref()?;
            tls_error(inner)
        })
    })
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from_https = attempt
        .previous()
        .last()
        .is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > MOST_REDIRECTS {
        attempt.error("too many redirects")
    } else if from_https && attempt.url().scheme() != "https" {
        attempt.error("the server sends us from https to plain http")
    } else if !attempt.url().path().ends_with("/info/refs") {
        attempt.error("the server sends us to something that is no Git repository, such as a page to log in")
    } else {
        attempt.follow()
    }
}

fn follow_any(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let from_https = attempt
        .previous()
        .last()
        .is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > MOST_REDIRECTS {
        attempt.error("too many redirects")
    } else if from_https && attempt.url().scheme() != "https" {
        attempt.error("the server sends us from https to plain http")
    } else {
        attempt.follow()
    }
}

fn basic(url: &str, user: &str, token: &str) -> Result<HeaderValue, SourceError> {
    let user = if user.is_empty() { "git" } else { user };
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{token}"));
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).map_err(|_| SourceError::BadUrl {
        url: url.to_owned(),
        why: "its user or token holds a control character".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whom to trust. A clone remembers the sessions of the original, so that a later connection is resumed without
/// the server's certificates travelling again.
pub(crate) fn tls(spec: &GitSpec) -> Result<rustls::ClientConfig, SourceError> {
    tls_with(spec.ca.as_deref(), &spec.display_url())
}

/// As [`tls`]; `url` is for messages.
pub(crate) fn tls_with(ca: Option<&[u8]>, url: &str) -> Result<rustls::ClientConfig, SourceError> {
    let bad = |why: String| SourceError::Certificate {
        url: url.to_owned(),
        why,
    };
    let mut roots = rustls::RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|err| bad(format!("`ca` is no PEM: {err}")))?;
                roots
                    .add(certificate)
                    .map_err(|err| bad(format!("`ca` holds no certificate: {err}")))?;
            }
            if roots.is_empty() {
                return Err(bad("`ca` holds no certificate".to_owned()));
            }
        }
        // A system without certificates shows in the first connection, not for plain http.
        None => drop(roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs)),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|err| bad(err.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// gix's HTTP transport over `session`.
pub(super) fn transport<'a>(
    session: &'a Session<'a>,
    url: &Url,
) -> Result<Transport<Requests<'a>>, SourceError> {
    let parsed = gix::url::parse(url.as_str()).map_err(|err| SourceError::BadUrl {
        url: session.wire.url.clone(),
        why: err.to_string(),
    })?;
    let requests = Requests {
        session,
        redirected: None,
    };
    Ok(Transport::new_http(requests, parsed, Protocol::V2, false))
}

/// The requests of one connection in gix's sense.
pub(super) struct Requests<'a> {
    session: &'a Session<'a>,
    redirected: Option<String>,
}

impl Requests<'_> {
    fn headers(
        &self,
        mut request: reqwest::RequestBuilder,
        url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<reqwest::RequestBuilder> {
        for header in headers {
            let header = header.as_ref();
            let Some((name, value)) = header.split_once(':') else {
                continue;
            };
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(io::Error::other)
                .map_err(erase)?;
            // Ours says who we are.
            if name != reqwest::header::USER_AGENT {
                request = request.header(name, value.trim());
            }
        }
        let ours = Url::parse(url).is_ok_and(|url| self.session.same_origin(&url));
        Ok(match &self.session.authorization {
            Some(value) if ours => request.header(reqwest::header::AUTHORIZATION, value.clone()),
            _ => request,
        })
    }
}

fn erase(err: io::Error) -> gix::Error {
    gix::Error::from_error(err)
}

impl<'a> Http for Requests<'a> {
    type Headers = Headers<'a>;
    type ResponseBody = Body<'a>;
    type PostBody = Upload;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<Headers<'a>, Body<'a>>> {
        let session = self.session;
        let request = self.headers(session.client.get(url), url, headers)?;
        let response = session.wait(request.send()).map_err(erase)?;
        session.status(&response).map_err(erase)?;
        let tail = url.strip_prefix(base_url).unwrap_or_default();
        let reached = response.url().as_str();
        if reached != url {
            self.redirected = reached.strip_suffix(tail).map(str::to_owned);
        }
        let exchange = Exchange::received(session, response);
        Ok(GetResponse {
            headers: Headers::of(&exchange),
            body: Body::of(exchange),
        })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _body: PostBodyDataKind,
    ) -> gix::Result<PostResponse<Headers<'a>, Body<'a>, Upload>> {
        let request = self.headers(self.session.client.post(url), url, headers)?;
        let upload = Upload::default();
        let exchange = Exchange::prepared(self.session, request, upload.clone());
        let headers = Headers::of(&exchange);
        Ok(PostResponse {
            post_body: upload,
            headers,
            body: Body::of(exchange),
        })
    }

    fn configure(&mut self, _config: &dyn Any) -> gix::Result {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.redirected.clone()
    }
}

/// What is sent; small (wants and haves), so it is gathered first.
#[derive(Clone, Default)]
pub(super) struct Upload(Rc<RefCell<Vec<u8>>>);

impl Write for Upload {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Stage {
    Prepared(Box<reqwest::RequestBuilder>, Upload),
    Received(Box<Response>),
    Failed,
}

/// A request and its response: sent when the first byte of the answer is asked for.
struct Exchange<'a> {
    session: &'a Session<'a>,
    stage: Stage,
}

type Shared<'a> = Rc<RefCell<Exchange<'a>>>;

impl<'a> Exchange<'a> {
    fn prepared(session: &'a Session<'a>, request: reqwest::RequestBuilder, upload: Upload) -> Shared<'a> {
        let stage = Stage::Prepared(Box::new(request), upload);
        Rc::new(RefCell::new(Self { session, stage }))
    }

    fn received(session: &'a Session<'a>, response: Response) -> Shared<'a> {
        let stage = Stage::Received(Box::new(response));
        Rc::new(RefCell::new(Self { session, stage }))
    }

    fn response(&mut self) -> io::Result<&mut Response> {
        if let Stage::Prepared(..) = self.stage
            && let Stage::Prepared(request, upload) = std::mem::replace(&mut self.stage, Stage::Failed)
        {
            let body = upload.0.take();
            let response = self.session.wait(request.body(body).send())?;
            self.session.status(&response)?;
            self.stage = Stage::Received(Box::new(response));
        }
        match &mut self.stage {
            Stage::Received(response) => Ok(response),
            Stage::Prepared(..) | Stage::Failed => Err(io::Error::other("the request failed before")),
        }
    }

    fn chunk(&mut self) -> io::Result<Bytes> {
        let session = self.session;
        let response = self.response()?;
        let chunk = session.wait(response.chunk())?.unwrap_or_default();
        session.wire.count(chunk.len())?;
        Ok(chunk)
    }

    fn header_lines(&mut self) -> io::Result<Vec<u8>> {
        let response = self.response()?;
        let mut lines = Vec::new();
        for (name, value) in response.headers() {
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.extend_from_slice(b": ");
            lines.extend_from_slice(value.as_bytes());
            lines.push(b'\n');
        }
        Ok(lines)
    }
}

/// The response's headers, line by line.
pub(super) struct Headers<'a> {
    exchange: Shared<'a>,
    lines: Option<Cursor<Vec<u8>>>,
}

impl<'a> Headers<'a> {
    fn of(exchange: &Shared<'a>) -> Self {
        Self {
            exchange: Rc::clone(exchange),
            lines: None,
        }
    }

    fn lines(&mut self) -> io::Result<&mut Cursor<Vec<u8>>> {
        if self.lines.is_none() {
            self.lines = Some(Cursor::new(self.exchange.borrow_mut().header_lines()?));
        }
        Ok(self.lines.get_or_insert_default())
    }
}

impl Read for Headers<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.lines()?.read(buf)
    }
}
impl BufRead for Headers<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.lines()?.fill_buf()
    }
    fn consume(&mut self, amount: usize) {
        if let Some(lines) = &mut self.lines {
            lines.consume(amount);
        }
    }
}

/// The response's body.
pub(super) struct Body<'a> {
    exchange: Shared<'a>,
    chunk: Bytes,
    ended: bool,
}

impl<'a> Body<'a> {
    fn of(exchange: Shared<'a>) -> Self {
        Self {
            exchange,
            chunk: Bytes::new(),
            ended: false,
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut data = self.fill_buf()?;
        let taken = data.read(buf)?;
        self.consume(taken);
        Ok(taken)
    }
}
impl BufRead for Body<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() && !self.ended {
            self.chunk = self.exchange.borrow_mut().chunk()?;
            self.ended = self.chunk.is_empty();
        }
        Ok(&self.chunk)
    }
    fn consume(&mut self, amount: usize) {
        self.chunk.advance(amount);
    }
}
