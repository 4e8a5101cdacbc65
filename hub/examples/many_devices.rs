//! What one device costs a hub: a hub process, and another one that holds sessions of many devices.
//!
//! `cargo run --release -p hub --example many_devices -- 1000` prints the hub's and the devices' memory per session.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measuring tool, run by hand"
)]

use hub::{Hub, HubConfig};
use identity::{DeviceKeys, TimeKeeper};
use kit::SystemClock;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use wire::api::NewToken;
use wire::client::{EnrolRequest, HubAddress, Session, enrol};
use wire::frame::Hello;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    match arguments.get(1).map(String::as_str) {
        Some("hub") => runtime.block_on(serve(Path::new(&arguments[2]))),
        count => {
            let count = count.map_or(200, |text| text.parse().unwrap());
            runtime.block_on(measure(count));
        }
    }
}

/// The hub alone, so that its memory is its own.
async fn serve(data: &Path) {
    let bound = Hub::build(HubConfig::new("127.0.0.1:0".parse().unwrap(), data.to_owned()))
        .await
        .unwrap();
    println!("{} {}", bound.address(), bound.admin_token().unwrap());
    bound.run(std::future::pending()).await;
}

async fn measure(count: u32) {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .arg("hub")
        .arg(dir.path().join("hub"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let (address, token) = line.trim().split_once(' ').unwrap();
    let hub: HubAddress = address.parse().unwrap();
    let ca = std::fs::read_to_string(dir.path().join("hub/ca/ca.pem")).unwrap();
    let api = wire::ApiClient::new(hub.clone(), identity::tls::person(&ca).unwrap(), token);
    let new = NewToken {
        uses: Some(count),
        ..NewToken::default()
    };
    let token: identity::EnrolToken = api.create_token(&new).await.unwrap().token.parse().unwrap();
    let started = Instant::now();
    let mut devices = Vec::new();
    for number in 0..count {
        devices.push(enrolled(&hub, &token, dir.path(), number).await);
    }
    println!(
        "enrolled {count} devices, {:.1} ms each",
        started.elapsed().as_secs_f64() * 1e3 / f64::from(count)
    );
    let (hub_before, own_before) = (pss(child.id()), pss(std::process::id()));
    let started = Instant::now();
    let mut open = Vec::new();
    for (hello, keys) in devices {
        open.push((
            Session::connect(&hub, keys.session_tls().unwrap(), hello)
                .await
                .unwrap(),
            keys,
        ));
    }
    println!(
        "opened {count} sessions, {:.1} ms each",
        started.elapsed().as_secs_f64() * 1e3 / f64::from(count)
    );
    tokio::time::sleep(Duration::from_secs(2)).await;
    let per = |after: u64, before: u64| after.saturating_sub(before) as f64 / f64::from(count) / 1024.0;
    println!(
        "hub: {hub_before} B before, {:.1} KiB per session",
        per(pss(child.id()), hub_before)
    );
    println!(
        "device side: {:.1} KiB per session",
        per(pss(std::process::id()), own_before)
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

async fn enrolled(
    hub: &HubAddress,
    token: &identity::EnrolToken,
    dir: &Path,
    number: u32,
) -> (Hello, DeviceKeys) {
    let name: model::DeviceName = format!("d{number}").parse().unwrap();
    let class: model::ClassName = "raspberry-pi-5".parse().unwrap();
    let mut keys = DeviceKeys::open(&dir.join(name.as_str()), Arc::new(SystemClock)).unwrap();
    let requests = keys.requests(&name).unwrap();
    let request = EnrolRequest {
        token: token.reveal(),
        device: name.clone(),
        class: class.clone(),
        identity_csr: requests.identity_csr.clone(),
        operational_csr: requests.operational_csr.clone(),
    };
    let answer = enrol(hub, keys.enrol_tls(token).unwrap(), &request)
        .await
        .unwrap();
    keys.store_enrolment(
        token,
        &requests,
        &answer.identity,
        &answer.operational,
        &answer.bundle,
    )
    .unwrap();
    let hello = Hello {
        versions: wire::OURS,
        device: name,
        class,
        agent: "measure".into(),
        boot_id: "boot".into(),
        nonce: TimeKeeper::nonce(),
        bundle_serial: keys.bundle_serial(),
        last_intent: 0,
        status: None,
        status_at: None,
    };
    (hello, keys)
}

/// Proportional memory of a process, in bytes.
fn pss(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
