//! A real Chromium, driven over WebDriver (W3C) through chromedriver.
#![expect(clippy::unwrap_used, reason = "a test's tool may panic")]

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a page may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// One browser with one page; both end with it.
pub struct Browser {
    driver: Child,
    client: Client<HttpConnector, Full<Bytes>>,
    base: String,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // chromedriver is the leader of its own group, which its browser belongs to.
        let group = pid_of(&self.driver);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.driver.wait();
    }
}

fn pid_of(child: &Child) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

impl Browser {
    /// Starts one; `None`, said aloud, where Chromium is not installed (an error under `CI=true`).
    pub async fn start() -> Option<Self> {
        use std::os::unix::process::CommandExt as _;
        let profile = tempfile::tempdir().unwrap();
        let port_file = profile.path().join("driver.log");
        let started = Command::new("chromedriver")
            .args(["--port=0"])
            // What it and the browser leave there goes with the profile.
            .env("TMPDIR", profile.path())
            .stdout(std::fs::File::create(&port_file).unwrap())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let driver = match started {
            Ok(driver) => driver,
            Err(err) => {
                assert!(
                    std::env::var("CI").as_deref() != Ok("true"),
                    "chromedriver is needed: {err}; apt-get install chromium chromium-driver"
                );
                #[expect(clippy::print_stderr, reason = "a skipped test says so")]
                {
                    eprintln!("SKIPPED: chromedriver: {err}; apt-get install chromium chromium-driver");
                }
                return None;
            }
        };
        let mut browser = Self {
            driver,
            client: Client::builder(TokioExecutor::new()).build_http(),
            base: String::new(),
            _profile: profile,
        };
        let deadline = Instant::now() + PATIENCE;
        let port = loop {
            let said = std::fs::read_to_string(&port_file).unwrap();
            // The line above it names the port that was asked for, which is 0.
            let rest = said.split("started successfully on port ").nth(1);
            match rest.and_then(|rest| rest.split_once('.')) {
                Some((port, _)) => break port.to_owned(),
                None => assert!(Instant::now() < deadline, "chromedriver did not start: {said}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        browser.base = format!("http://127.0.0.1:{port}/session");
        let args = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "acceptInsecureCerts": true,
            "goog:chromeOptions": {"args": args, "perfLoggingPrefs": {"enableNetwork": true}},
            "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
        }}});
        let made = browser.call("POST", "", Some(wanted)).await;
        let id = made["sessionId"].as_str().unwrap();
        browser.base = format!("{}/{id}", browser.base);
        Some(browser)
    }

    async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header("content-type", "application/json")
            .body(Full::from(body.map(|b| b.to_string()).unwrap_or_default()))
            .unwrap();
        let answer = tokio::time::timeout(PATIENCE, self.client.request(request))
            .await
            .unwrap()
            .unwrap();
        let good = answer.status().is_success();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        let mut value: Value = serde_json::from_slice(&bytes).unwrap();
        assert!(good, "{method} {path}: {value}");
        value["value"].take()
    }

    /// Goes to a page and waits until it is loaded.
    pub async fn open(&self, url: &str) {
        self.call("POST", "/url", Some(json!({"url": url}))).await;
    }

    /// Runs the body of a function in the page.
    pub async fn run(&self, script: &str) -> Value {
        self.call(
            "POST",
            "/execute/sync",
            Some(json!({"script": script, "args": []})),
        )
        .await
    }

    /// Waits until an expression in the page is true.
    pub async fn until(&self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.run(&format!("return !!({expression})")).await != json!(true) {
            if Instant::now() > deadline {
                let page = self.run("return document.body.innerText").await;
                panic!("never true: {expression}\n{}", page.as_str().unwrap_or_default());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Presses keys, as WebDriver writes them, where the focus is.
    pub async fn press(&self, keys: &str) {
        let strokes: Vec<Value> = keys
            .chars()
            .flat_map(|key| {
                [
                    json!({"type": "keyDown", "value": key}),
                    json!({"type": "keyUp", "value": key}),
                ]
            })
            .collect();
        let actions = json!({"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]});
        self.call("POST", "/actions", Some(actions)).await;
    }

    /// A command of the DevTools protocol.
    pub async fn devtools(&self, command: &str, params: Value) -> Value {
        self.call(
            "POST",
            "/goog/cdp/execute",
            Some(json!({"cmd": command, "params": params})),
        )
        .await
    }

    /// The addresses of all requests since the last call.
    pub async fn requests(&self) -> Vec<String> {
        let log = self
            .call("POST", "/se/log", Some(json!({"type": "performance"})))
            .await;
        let messages = log.as_array().unwrap().iter();
        messages
            .filter_map(|entry| serde_json::from_str::<Value>(entry["message"].as_str()?).ok())
            .filter(|entry| entry["message"]["method"] == "Network.requestWillBeSent")
            .filter_map(|entry| Some(entry["message"]["params"]["request"]["url"].as_str()?.to_owned()))
            .collect()
    }

    /// What the page complained of since the last call: script errors, refusals by its policy.
    pub async fn complaints(&self) -> Vec<String> {
        let log = self
            .call("POST", "/se/log", Some(json!({"type": "browser"})))
            .await;
        let entries = log.as_array().unwrap().iter();
        entries.map(|entry| entry["message"].to_string()).collect()
    }
}
