//! A Git server over HTTP or HTTPS: hyper in front of the real `git http-backend` (CGI, RFC 3875).
//!
//! Serves every repository below a folder, with or without a password, and takes pushes from one user. For tests it
//! counts what it sends, and can break off a response in the middle. It runs on a thread of its own and ends when
//! it is dropped.

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

/// Largest request body taken, in bytes: a push of a small repository.
const MOST_UPLOAD: usize = 64 << 20;

/// Value of [`Faults::cut_after`] that cuts nothing.
pub const NEVER: u64 = u64::MAX;

/// What to serve, and to whom.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Folder that holds the (bare) repositories.
    pub root: PathBuf,
    /// For `https`.
    pub tls: Option<Arc<ServerConfig>>,
    /// User and password that reading asks for.
    pub reader: Option<(String, String)>,
    /// User and password that may read and push; nobody pushes without.
    pub writer: Option<(String, String)>,
}

/// What the server counts, and how it is made to fail. Shared with the one who started it.
#[derive(Debug)]
pub struct Faults {
    /// Break the connection once this many bytes of response bodies were sent, counted from when it was set.
    pub cut_after: AtomicU64,
    /// Bytes of response bodies sent.
    pub sent: AtomicU64,
    /// `METHOD path?query` of each request, in order.
    pub requests: Mutex<Vec<String>>,
    /// Answers every request with a redirect to this address, the path and query appended.
    pub redirect_to: Mutex<Option<String>>,
}

/// A running server.
#[derive(Debug)]
pub struct GitServer {
    address: SocketAddr,
    secure: bool,
    faults: Arc<Faults>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl GitServer {
    /// Starts serving on `listener`, which may have been bound in another network namespace.
    pub fn start(listener: TcpListener, options: Options) -> io::Result<Self> {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let secure = options.tls.is_some();
        let faults = Arc::new(Faults {
            cut_after: AtomicU64::new(NEVER),
            sent: AtomicU64::new(0),
            requests: Mutex::default(),
            redirect_to: Mutex::default(),
        });
        let shared = Arc::new(Shared {
            options,
            faults: Arc::clone(&faults),
        });
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let listener = {
            let _inside = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let thread = std::thread::Builder::new()
            .name("git-server".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, shared) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self {
            address,
            secure,
            faults,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a repository, for a client on this machine.
    pub fn url(&self, repository: &str) -> String {
        let scheme = if self.secure { "https" } else { "http" };
        format!("{scheme}://localhost:{}/{repository}", self.address.port())
    }

    /// Counters and faults.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the server has already failed whatever used it.
            let _ = thread.join();
        }
    }
}

struct Shared {
    options: Options,
    faults: Arc<Faults>,
}

async fn accept(listener: tokio::net::TcpListener, shared: Arc<Shared>) {
    let tls = shared.options.tls.clone().map(TlsAcceptor::from);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let (shared, tls) = (Arc::clone(&shared), tls.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let server = auto::Builder::new(TokioExecutor::new());
            // What a client does to its connection is that client's affair.
            match tls {
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    }
                }
                None => {
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                }
            }
        });
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    if let Ok(mut requests) = shared.faults.requests.lock() {
        requests.push(format!("{} {path}", request.method()));
    }
    let redirect = shared.faults.redirect_to.lock().ok().and_then(|to| to.clone());
    let response = match redirect {
        Some(to) => Response::builder()
            .status(StatusCode::FOUND)
            .header("location", format!("{to}{path}"))
            .body(text(""))
            .map_err(io::Error::other),
        None => respond(&shared, request).await,
    };
    Ok(response.unwrap_or_else(|err| {
        let mut response = Response::new(text(&err.to_string()));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    }))
}

fn text(text: &str) -> Body {
    Full::new(Bytes::copy_from_slice(text.as_bytes()))
        .map_err(|never| match never {})
        .boxed_unsync()
}

async fn respond(shared: &Arc<Shared>, request: Request<Incoming>) -> io::Result<Response<Body>> {
    let pushes = request.uri().path().ends_with("/git-receive-pack")
        || request.uri().query() == Some("service=git-receive-pack");
    let user = match user(&shared.options, request.headers(), pushes) {
        Ok(user) => user,
        Err(status) => {
            let response = Response::builder()
                .status(status)
                .header(WWW_AUTHENTICATE, "Basic realm=\"git\"");
            return response
                .body(text("credentials are needed\n"))
                .map_err(io::Error::other);
        }
    };
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MOST_UPLOAD)
        .collect()
        .await
        .map_err(io::Error::other)?
        .to_bytes();
    let header = |name: &str| {
        head.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let mut command = Command::new("git");
    command
        .arg("http-backend")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_PROJECT_ROOT", &shared.options.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("REQUEST_METHOD", head.method.as_str())
        .env("PATH_INFO", head.uri.path())
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header(CONTENT_TYPE.as_str()))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header(CONTENT_ENCODING.as_str()))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    if let Some(user) = user {
        command.env("REMOTE_USER", user);
    }
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        tokio::spawn(async move { stdin.write_all(&body).await });
    }
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    relay(Arc::clone(&shared.faults), child, BufReader::new(stdout)).await
}

/// Who asks, or the status to refuse with.
fn user(options: &Options, headers: &HeaderMap, pushes: bool) -> Result<Option<String>, StatusCode> {
    use base64::Engine as _;
    let given = headers.get(AUTHORIZATION).and_then(|value| {
        let encoded = value.to_str().ok()?.strip_prefix("Basic ")?;
        let text = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(encoded).ok()?).ok()?;
        text.split_once(':')
            .map(|(user, password)| (user.to_owned(), password.to_owned()))
    });
    if given.is_some() && given == options.writer {
        return Ok(given.map(|(user, _)| user));
    }
    let reads = options.reader.is_none() || given == options.reader;
    match (pushes, reads) {
        (true, _) if options.writer.is_none() => Err(StatusCode::FORBIDDEN),
        (true, _) | (false, false) => Err(StatusCode::UNAUTHORIZED),
        (false, true) => Ok(None),
    }
}

/// Turns the program's output into the response: headers up to an empty line, then the body as it comes.
async fn relay(
    faults: Arc<Faults>,
    child: Child,
    mut output: BufReader<ChildStdout>,
) -> io::Result<Response<Body>> {
    let mut response = Response::builder();
    let mut line = String::new();
    loop {
        line.clear();
        if output.read_line(&mut line).await? == 0 || line.trim_end().is_empty() {
            break;
        }
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            continue;
        };
        match name {
            "Status" => response = response.status(value.split(' ').next().unwrap_or("500")),
            // The body is cut in tests: it must be seen to be cut, so it goes in chunks.
            name if name.eq_ignore_ascii_case(CONTENT_LENGTH.as_str()) => {}
            name => response = response.header(name, value),
        }
    }
    let chunks = futures_util::stream::unfold(
        (output, child, faults, false),
        |(mut output, child, faults, over)| async move {
            if over {
                return None;
            }
            let mut buffer = vec![0; 16 << 10];
            let chunk = match output.read(&mut buffer).await {
                Ok(0) => return None,
                Ok(read) => take(&faults, buffer, read),
                Err(err) => Err(err),
            };
            let over = chunk.is_err();
            Some((chunk.map(Frame::data), (output, child, faults, over)))
        },
    );
    response
        .body(StreamBody::new(chunks).boxed_unsync())
        .map_err(io::Error::other)
}

fn take(faults: &Faults, mut buffer: Vec<u8>, read: usize) -> io::Result<Bytes> {
    buffer.truncate(read);
    let left = faults.cut_after.load(Ordering::Relaxed);
    if left == 0 {
        return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
    }
    if left != NEVER {
        buffer.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(read));
        faults.cut_after.fetch_sub(buffer.len() as u64, Ordering::Relaxed);
    }
    faults.sent.fetch_add(buffer.len() as u64, Ordering::Relaxed);
    Ok(buffer.into())
}
