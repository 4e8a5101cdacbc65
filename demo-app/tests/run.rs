//! The program as a container runs it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

struct App(Child);

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl App {
    fn start(args: &[&str], env: &[(&str, &str)]) -> (Self, impl Iterator<Item = String> + use<>) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_demo-app"))
            .args(args)
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        (Self(child), lines)
    }

    fn ask_to_end(mut self) -> Option<i32> {
        kill(
            Pid::from_raw(i32::try_from(self.0.id()).unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        self.0.wait().unwrap().code()
    }
}

fn get(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

fn hello() -> (App, u16, tempfile::TempDir) {
    let config = tempfile::tempdir().unwrap();
    std::fs::write(config.path().join("greeting"), "Good day.\n").unwrap();
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let text = port.to_string();
    let env = [
        ("PORT", text.as_str()),
        ("CONFIG_DIR", config.path().to_str().unwrap()),
        ("VERSION", "1.2.3"),
        ("DEVICE", "pi-1"),
    ];
    let (app, mut lines) = App::start(&["hello"], &env);
    assert!(lines.next().unwrap().contains("hello 1.2.3 listens"));
    std::thread::spawn(move || lines.for_each(drop));
    (app, port, config)
}

#[test]
fn hello_says_who_it_is_and_ends_when_asked() {
    let (app, port, _config) = hello();
    let page = get(port, "/");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    for part in ["Good day.", "version 1.2.3", "device pi-1", "request 1"] {
        assert!(page.contains(part), "{page}");
    }
    assert!(get(port, "/api").contains("\"device\":\"pi-1\""));
    assert!(get(port, "/metrics").contains("hello_requests_total 2"));
    assert!(get(port, "/healthz").contains("200 OK") && get(port, "/readyz").contains("200 OK"));
    assert!(get(port, "/nothing").contains("404"));
    assert!(get(port, "/fail").contains("200 OK"));
    assert!(get(port, "/healthz").contains("500") && get(port, "/readyz").contains("503"));
    assert_eq!(app.ask_to_end(), Some(0));
}

#[test]
fn hello_crashes_when_asked() {
    let (mut app, port, _config) = hello();
    assert!(get(port, "/crash").contains("going down"));
    assert_eq!(app.0.wait().unwrap().code(), Some(1));
}

#[test]
fn a_sensor_counts_on_after_a_restart_and_its_probe_sees_it() {
    let data = tempfile::tempdir().unwrap();
    let env = [
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("INTERVAL_SECONDS", "1"),
    ];
    let last = data.path().join("last");
    let last = last.to_str().unwrap();
    let check = || {
        Command::new(env!("CARGO_BIN_EXE_demo-app"))
            .args(["check", last])
            .status()
            .unwrap()
            .success()
    };
    assert!(!check());
    let (app, mut lines) = App::start(&["sensor"], &env);
    assert!(lines.next().unwrap().contains("\"number\":1,"));
    assert!(lines.next().unwrap().contains("\"number\":2,"));
    assert!(check());
    assert_eq!(app.ask_to_end(), Some(0));
    let (app, mut lines) = App::start(&["sensor"], &env);
    let line = lines.next().unwrap();
    assert!(
        line.contains("\"number\":3,") || line.contains("\"number\":4,"),
        "{line}"
    );
    drop(app);
    let readings = std::fs::read_to_string(data.path().join("readings.jsonl")).unwrap();
    assert!(readings.lines().count() >= 2, "{readings}");
}

#[test]
fn a_job_ends_and_its_failure_shows() {
    let (mut app, mut lines) = App::start(&["job"], &[("UPTO", "1000")]);
    assert!(lines.next().unwrap().contains("\"primes\":168"));
    assert_eq!(app.0.wait().unwrap().code(), Some(0));
    let (mut app, _lines) = App::start(&["job"], &[("FAIL", "1")]);
    assert_eq!(app.0.wait().unwrap().code(), Some(1));
}
