//! A device, its pods and the world outside, each a network namespace of its own.

use model::{PodId, Protocol, ServicePort, ServiceRun, TargetPort};
use runtime::embedded::network::{HostPort, Network, NetworkConfig, PodAddress, netns};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs `test` in a thread with a fresh network namespace, as the agent of a device would live in; or says why not.
pub fn on_device(test: impl AsyncFnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        assert!(
            std::env::var_os("CI").is_none_or(|ci| ci != "true"),
            "CI must run this as root"
        );
        eprintln!("SKIPPED: network namespaces need root");
        return;
    }
    let device = netns::create().unwrap();
    netns::enter(&device, || {
        run("ip", &["link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    })
    .unwrap();
}

/// Runs a system program in the calling thread's network namespace; it must succeed.
#[track_caller]
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn config(state: &tempfile::TempDir) -> NetworkConfig {
    NetworkConfig::new(state.path())
}

/// A namespace with something in it that answers.
#[derive(Debug)]
pub struct Place {
    pub id: PodId,
    netns: File,
}

impl Place {
    pub fn new(name: &str) -> Self {
        Self::at(name, netns::create().unwrap())
    }

    /// The device itself.
    pub fn of_this_thread(name: &str) -> Self {
        Self::at(name, netns::current().unwrap())
    }

    fn at(name: &str, netns: File) -> Self {
        let id = PodId {
            namespace: "default".into(),
            name: name.into(),
        };
        Self { id, netns }
    }

    /// A path that leads to the namespace, as `/proc/<shim>/ns/net` does.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.netns.as_raw_fd()).into()
    }

    pub async fn attach(&self, network: &Network, ports: &[HostPort]) -> Ipv4Addr {
        network.attach(&self.id, &self.path(), ports).await.unwrap()
    }

    /// Runs `work` inside.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        netns::enter(&self.netns, work).unwrap()
    }

    /// Answers every TCP connection to `port` with the place's name and the caller's address.
    pub fn serve(&self, port: u16) {
        let listener = self.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        let name = self.id.name.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let Ok(peer) = stream.peer_addr() else { continue };
                // A caller that is gone by now is not this place's trouble.
                let _sent = write!(stream, "{name} {}", peer.ip());
            }
        });
    }

    /// The same for datagrams.
    pub fn serve_udp(&self, port: u16) {
        let socket = self.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
        let name = self.id.name.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                let _sent = socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
            }
        });
    }

    /// What answers at `to`, asked from inside.
    pub fn call(&self, to: impl Into<SocketAddr>) -> std::io::Result<String> {
        let to = to.into();
        self.inside(|| call(to))
    }
}

/// What answers at `to`, asked from the calling thread's network namespace.
pub fn call(to: impl Into<SocketAddr>) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to.into(), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// The same by datagram.
pub fn call_udp(to: impl Into<SocketAddr>) -> std::io::Result<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.connect(to.into())?;
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

/// Asks by datagram again and again from one socket, as a sensor sends, until `who` answers.
#[track_caller]
pub fn keeps_sending_until(socket: &UdpSocket, who: &str) {
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let start = Instant::now();
    let mut buffer = [0; 64];
    loop {
        // Refused or lost: it goes on sending.
        let _sent = socket.send(b"?");
        if let Ok(length) = socket.recv(&mut buffer)
            && buffer[..length].starts_with(who.as_bytes())
        {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{who} never answered");
    }
}

/// Waits until `holds`.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A machine on the device's own network: 192.0.2.2, the device is 192.0.2.1; no route leads further.
pub fn outside() -> Place {
    let place = Place::new("outside");
    run(
        "ip",
        &["link", "add", "uplink", "type", "veth", "peer", "name", "far"],
    );
    run(
        "ip",
        &["link", "set", "far", "netns", place.path().to_str().unwrap()],
    );
    run("ip", &["address", "add", "192.0.2.1/24", "dev", "uplink"]);
    run("ip", &["link", "set", "uplink", "up"]);
    place.inside(|| {
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["address", "add", "192.0.2.2/24", "dev", "far"]);
        run("ip", &["link", "set", "far", "up"]);
    });
    place
}

pub const DEVICE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

pub fn host_port(host_port: u16, container_port: u16) -> HostPort {
    HostPort {
        host_ip: None,
        host_port,
        protocol: Protocol::Tcp,
        container_port,
    }
}

/// A Service in `default` whose port `http` (80) leads to port `web` of these pods.
pub fn service(name: &str, pods: &[&Place]) -> ServiceRun {
    ServiceRun {
        namespace: "default".into(),
        name: name.into(),
        headless: false,
        client_affinity: false,
        ports: vec![ServicePort {
            name: Some("http".into()),
            port: 80,
            target: TargetPort::Name("web".into()),
            node_port: None,
            protocol: Protocol::Tcp,
        }],
        endpoints: pods.iter().map(|pod| pod.id.clone()).collect(),
    }
}

/// Pods by address; their port `web` is 8080.
pub fn addresses(pods: &[(&Place, Ipv4Addr)]) -> BTreeMap<PodId, PodAddress> {
    let address = |ip| PodAddress {
        ip,
        ports: BTreeMap::from([("web".to_owned(), 8080)]),
        hostname: String::new(),
    };
    pods.iter()
        .map(|(pod, ip)| {
            let hostname = pod.id.name.clone();
            (
                pod.id.clone(),
                PodAddress {
                    hostname,
                    ..address(*ip)
                },
            )
        })
        .collect()
}

/// The source address in an answer of [`Place::serve`].
pub fn seen(answer: &str) -> IpAddr {
    answer.rsplit(' ').next().unwrap().parse().unwrap()
}
