//! Pods on the pod network, through the engine.

use crate::contract::{find, id, pod, start, stop, until};
use crate::rig::on_device;
use crate::run_to_end;
use model::{
    Action, Because, EnvVar, PodPhase, PortRun, Protocol, RestartPolicy, ServicePort, ServiceRun, Step,
    TargetPort,
};
use runtime::Engine as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

fn publish(services: Vec<ServiceRun>) -> Step {
    Step {
        action: Action::Publish { services },
        about: crate::contract::key("web"),
        because: Because::Changed,
    }
}

fn web() -> ServiceRun {
    ServiceRun {
        namespace: "default".to_owned(),
        name: "web".to_owned(),
        headless: false,
        client_affinity: false,
        ports: vec![ServicePort {
            name: None,
            port: 80,
            target: TargetPort::Name("http".to_owned()),
            node_port: None,
            protocol: Protocol::Tcp,
        }],
        endpoints: vec![id("server")],
    }
}

/// A Service by its name from another pod, the pod's own address in its environment, a port of the device; and
/// all of it again after the agent has gone and come back.
#[test]
fn root_netns_a_service_is_reached_by_name_and_a_host_port_from_the_device() {
    on_device(async |rig| {
        let (engine, network) = rig.open_with_network().await;
        let script =
            "mkdir /tmp/www; echo hello from $IP > /tmp/www/index.html; httpd -f -p 8080 -h /tmp/www";
        let mut server = pod("server", RestartPolicy::Always, script);
        server.containers[0].env = vec![EnvVar::Field {
            name: "IP".to_owned(),
            field: "status.podIP".to_owned(),
        }];
        server.containers[0].ports = vec![PortRun {
            name: Some("http".to_owned()),
            container_port: 8080,
            host_port: Some(18080),
            host_ip: None,
            protocol: Protocol::Tcp,
        }];
        server.containers[0].readiness = Some(model::Probe {
            kind: model::ProbeKind::TcpSocket { port: 8080 },
            initial_delay_seconds: 0,
            period_seconds: 1,
            timeout_seconds: 5,
            failure_threshold: 1,
            success_threshold: 1,
        });
        engine.apply(&start(&server)).await.unwrap();
        let seen = until(&engine, "ready", |seen| {
            find(seen, "server").is_some_and(model::PodObserved::ready)
        })
        .await;
        let ip = find(&seen, "server").unwrap().ip.unwrap();
        engine.apply(&publish(vec![web()])).await.unwrap();
        assert_eq!(
            engine.observe().await.unwrap().services,
            Some(model::services_digest(&[web()]))
        );

        // Debian's static wget needs glibc's name service modules, nslookup and nc do not.
        let client = pod(
            "client",
            RestartPolicy::OnFailure,
            "ip=$(nslookup web.default.svc.cluster.local | grep 'Address: ' | tail -n 1); \
             printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 5 ${ip#Address: } 80 | grep hello",
        );
        assert_eq!(
            run_to_end(&engine, &client).await.1.lines().last().unwrap(),
            format!("hello from {ip}")
        );
        assert!(from_the_device(network.gateway()).ends_with(&format!("hello from {ip}\n")));

        // The agent dies and another comes.
        drop((engine, network));
        let (engine, network) = rig.open_with_network().await;
        assert_eq!(
            find(&engine.observe().await.unwrap(), "server").unwrap().ip,
            Some(ip)
        );
        engine.apply(&publish(vec![web()])).await.unwrap();
        assert_eq!(
            run_to_end(&engine, &client).await.1.lines().last().unwrap(),
            format!("hello from {ip}")
        );
        assert!(from_the_device(network.gateway()).ends_with(&format!("hello from {ip}\n")));
        engine.apply(&stop("server")).await.unwrap();
        drop(engine);
        network.clean_up().await.unwrap();
        rig.nothing_is_left();
    });
}

fn from_the_device(address: std::net::Ipv4Addr) -> String {
    let mut stream = TcpStream::connect((address, 18080)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// A port that is taken is refused by name, and nothing of the pod is left.
#[test]
fn root_netns_a_port_in_use_is_refused() {
    on_device(async |rig| {
        let (engine, _network) = rig.open_with_network().await;
        let mut first = pod("first", RestartPolicy::Always, "sleep 1000");
        first.containers[0].ports = vec![PortRun {
            name: None,
            container_port: 80,
            host_port: Some(18081),
            host_ip: None,
            protocol: Protocol::Tcp,
        }];
        engine.apply(&start(&first)).await.unwrap();
        let mut second = first.clone();
        second.id = id("second");
        let refusal = engine.apply(&start(&second)).await.unwrap_err().to_string();
        assert!(
            refusal.contains("18081") && refusal.contains("default/first"),
            "{refusal}"
        );
        assert_eq!(engine.observe().await.unwrap().pods.len(), 1);
        engine.apply(&stop("first")).await.unwrap();
        engine.apply(&start(&second)).await.unwrap();
        engine.apply(&stop("second")).await.unwrap();
        drop(engine);
        rig.nothing_is_left();
    });
}

/// A device without any route or resolver starts its pods all the same (faults F1 and F2).
#[test]
fn root_netns_no_route_and_no_resolver_are_no_obstacle() {
    on_device(async |rig| {
        let (engine, network) = rig.open_with_network().await;
        let mut own = pod(
            "own",
            RestartPolicy::Never,
            "grep nameserver /etc/resolv.conf; echo $HOST",
        );
        own.host_network = true;
        own.containers[0].env = vec![EnvVar::Field {
            name: "HOST".to_owned(),
            field: "status.hostIP".to_owned(),
        }];
        let gateway = network.gateway();
        let (seen, text) = run_to_end(&engine, &own).await;
        assert_eq!(seen.phase, PodPhase::Succeeded);
        assert_eq!(text, format!("nameserver {gateway}\n{gateway}\n"));
        drop(engine);
        rig.nothing_is_left();
    });
}
