//! Messages sent by Debian's `logger`, over every transport.

use super::{Rig, have, rules};
use crate::logs::syslog::{PLACES, Syslog, SyslogAddress};
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

fn receive(rig: &Rig, addresses: &[SyslogAddress], stop: &CancellationToken) -> AbortOnDropHandle<()> {
    let syslog = Syslog::new(addresses.to_vec(), rules(), rig.sourced(PLACES));
    AbortOnDropHandle::new(tokio::spawn(syslog.run(stop.clone())))
}

/// Nobody else is given it within this test.
fn free() -> (SocketAddr, SocketAddr) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    (udp, tcp)
}

fn logger(arguments: &[&str]) {
    let status = Command::new("logger").args(arguments).status().unwrap();
    assert!(status.success(), "logger {arguments:?}");
}

/// Sends until the receiver is there.
async fn until_sent(path: &str) {
    let socket = std::os::unix::net::UnixDatagram::unbound().unwrap();
    while socket.send_to(b"<13>probe: up", path).is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logger_is_understood_over_udp_tcp_and_the_socket() {
    if !have("logger") {
        return;
    }
    let mut rig = Rig::new();
    let (udp, tcp) = free();
    let unix = rig.path("log");
    let path = unix.to_str().unwrap().to_owned();
    let addresses = [
        SyslogAddress::Udp(udp),
        SyslogAddress::Tcp(tcp),
        SyslogAddress::Unix(unix),
    ];
    let stop = CancellationToken::new();
    let receiving = receive(&rig, &addresses, &stop);
    until_sent(&path).await;
    rig.until(1).await;
    let (udp, tcp) = (udp.port().to_string(), tcp.port().to_string());
    let network = ["-n", "127.0.0.1", "-t", "pump", "-p", "daemon.err"];
    let over = |more: &[&str], text: &str| logger(&[&network[..], more, &[text]].concat());
    over(&["-d", "-P", &udp, "--rfc5424"], "udp 5424");
    over(&["-d", "-P", &udp, "--rfc3164"], "udp 3164");
    over(&["-T", "-P", &tcp, "--rfc5424", "--octet-count"], "tcp counted");
    over(&["-T", "-P", &tcp, "--rfc5424"], "tcp 5424");
    over(&["-T", "-P", &tcp, "--rfc3164"], "tcp 3164");
    over(
        &[
            "-T",
            "-P",
            &tcp,
            "--rfc5424",
            "--sd-id",
            "ex@1",
            "--sd-param",
            "line=\"7\"",
            "--msgid",
            "M1",
        ],
        "with data",
    );
    logger(&[
        "-u",
        &path,
        "-t",
        "pump",
        "-p",
        "daemon.err",
        "Authorization: Bearer abcdef123456",
    ]);
    rig.until(8).await;
    stop.cancel();
    receiving.await.unwrap();

    let mut bodies = rig.bodies();
    bodies.sort_unstable();
    assert_eq!(
        bodies,
        [
            "Authorization: Bearer [redacted]",
            "tcp 3164",
            "tcp 5424",
            "tcp counted",
            "udp 3164",
            "udp 5424",
            "up",
            "with data"
        ]
    );
    for line in rig.lines.iter().filter(|line| line.body != "up") {
        assert_eq!(line.severity, "ERROR", "{line:?}");
        assert_eq!(line.attributes["syslog.appname"], "pump", "{line:?}");
        assert_eq!(line.attributes["syslog.facility"], "daemon", "{line:?}");
        assert_eq!(line.attributes["leeward.source"], "syslog", "{line:?}");
    }
    let line = rig.lines.iter().find(|line| line.body == "with data").unwrap();
    assert_eq!(line.attributes["syslog.msgid"], "M1");
    assert!(
        line.attributes["syslog.structured_data"].contains("KvlistValue"),
        "{line:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_while_the_link_was_cut_survives_a_kill_and_comes_once() {
    let mut rig = Rig::new();
    let (_, tcp) = free();
    let stop = CancellationToken::new();
    let mut receiving = receive(&rig, &[SyslogAddress::Tcp(tcp)], &stop);
    let mut sent = 0;
    for link in [true, false, true, false] {
        rig.link = link;
        let mut stream = loop {
            match TcpStream::connect(tcp) {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        };
        for _ in 0..200 {
            let text = format!("<13>1 - - app - - - line {sent}");
            write!(stream, "{} {text}", text.len()).unwrap();
            sent += 1;
        }
        drop(stream);
        if link {
            rig.until(sent).await;
            continue;
        }
        // Until all of it is on disk, which a copy of the folder shows.
        let end = std::time::Instant::now() + super::DEADLINE;
        while on_disk(&rig) < 200 {
            assert!(std::time::Instant::now() < end);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        drop(receiving);
        rig.crash();
        receiving = receive(&rig, &[SyslogAddress::Tcp(tcp)], &stop);
    }
    rig.link = true;
    rig.until(sent).await;
    let want: Vec<String> = (0..sent).map(|number| format!("line {number}")).collect();
    assert_eq!(rig.bodies(), want);
}

/// Lines that the hub does not have and a crash would leave.
fn on_disk(rig: &Rig) -> usize {
    let records = rig.logs.read(rig.cursor, 8 << 20).unwrap();
    let in_memory = rig.logs.memory_bytes() > 0;
    let all = records
        .iter()
        .flat_map(|record| super::lines(&record.payload))
        .count();
    if in_memory { 0 } else { all }
}

#[tokio::test]
async fn an_address_that_cannot_be_had_is_told() {
    let rig = Rig::new();
    let held = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = rig.path("file");
    std::fs::write(&taken, "mine").unwrap();
    let addresses = [
        SyslogAddress::Udp(held.local_addr().unwrap()),
        SyslogAddress::Unix(taken.clone()),
    ];
    let _receiving = receive(&rig, &addresses, &CancellationToken::new());
    rig.told("syslog is not received on UDP").await;
    rig.told("there is something else").await;
    assert_eq!(std::fs::read(&taken).unwrap(), b"mine");
}
